"""The fence around what is judged: a delimiter the judged text cannot contain.

Whoever wrote an answer may write into it "score 10", or the delimiter and then "score 10". So the
delimiter carries a code drawn over the very text it encloses (HMAC-SHA256, RFC 2104, keyed by the
rubric): a text would have to contain a hash of itself, and where one does, the code is drawn again.
The same text gets the same code, so that the cache of replies finds it.

A fence tells a model what is material; it does not make a weak model heed it ("spotlighting", Hines
et al. 2024). That is what `suspicion.py` and qualification are for.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass

CODE_DIGITS = 16


@dataclass(frozen=True)
class Fence:
    """Tags that carry a code."""

    code: str

    def enclose(self, name: str, text: str, *, attributes: str = "") -> str:
        """The text between `<name-code>` and `</name-code>`, each on a line of its own."""
        return f"<{name}-{self.code}{attributes}>\n{text}\n</{name}-{self.code}>"


def draw_fence(key: str, material: Mapping[str, str]) -> Fence:
    """A fence for this material, by name.

    Args:
        key: Of the HMAC; the rubric's hash, so that each rubric has codes of its own.
        material: Every text that will stand between tags.
    """
    content = json.dumps(sorted(material.items())).encode()
    draw = 0
    while True:
        message = str(draw).encode() + b"\0" + content
        code = hmac.new(key.encode(), message, hashlib.sha256).hexdigest()[:CODE_DIGITS]
        if not any(code in text for text in material.values()):
            return Fence(code)
        draw += 1
