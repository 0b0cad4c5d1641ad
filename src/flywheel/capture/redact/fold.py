"""A text as the recognisers should read it, and the way back to where that was.

People and programs write the same number with full-width digits, no-break spaces and typographic
dashes, in escaped JSON or in a URL. The analyser reads a plain version; what it finds is cut from
the original. Placeholders and UUIDs are blanked, so that nothing is found inside them.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from flywheel.capture.redact.policy import LABELS

PLACEHOLDER = re.compile(rf"<({'|'.join(LABELS.values())})(?:_([0-9]{{1,5}})|_k[0-9a-f]{{6}})?>")
"""What this package writes: <EMAIL_1>, <EMAIL_k3f9a2c>, <EMAIL>."""

_BLANKED = re.compile(
    PLACEHOLDER.pattern
    + r"|\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b"
)
BLANK = "\ufffc"
_SHORTENED = re.compile(
    r"\\+(?:u[0-9a-fA-F]{4}|[nrtbf\"/])"  # escaped JSON, however often
    r"|%(?:40|2[0bBdDeE]|3[aA])"  # @ space + - . : in a URL
    r"|[\u00ad\u200b-\u200f\u2060\ufeff]+"  # soft hyphen, zero-width characters
)
_DASHES = dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d", "-")
_NEVER = frozenset({"n", "r", "t", "b", "f"})


class Folded(NamedTuple):
    """The plain text; `origins` is None where its offsets are the original's."""

    text: str
    origins: Sequence[tuple[int, int]] | None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The span of the original that a span of the plain text stands for."""
        if self.origins is None:
            return start, end
        return self.origins[start][0], self.origins[end - 1][1]


def fold(text: str) -> Folded:
    """Folds a text. It never fails: a lone surrogate becomes a replacement character."""
    blanked = _BLANKED.sub(lambda found: BLANK * len(found[0]), text)
    if not _SHORTENED.search(blanked):
        plain = blanked if blanked.isascii() else "".join(map(_plain, blanked))
        return Folded(plain, None)
    characters: list[str] = []
    origins: list[tuple[int, int]] = []
    at = 0
    for found in _SHORTENED.finditer(blanked):
        start, end = found.span()
        characters.extend(map(_plain, blanked[at:start]))
        origins.extend((i, i + 1) for i in range(at, start))
        short = _decoded(found[0])
        characters.extend(short)
        origins.extend((start, end) for _ in short)
        at = end
    characters.extend(map(_plain, blanked[at:]))
    origins.extend((i, i + 1) for i in range(at, len(blanked)))
    return Folded("".join(characters), origins)


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    """One character for one character."""
    if character.isascii():
        return character
    if "\ud800" <= character <= "\udfff":
        return "\ufffd"
    if character in _DASHES:
        return "-"
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    compatible = unicodedata.normalize("NFKC", character)
    return compatible if len(compatible) == 1 else character


def _decoded(found: str) -> str:
    """The one character a sequence stands for; nothing for what cannot be seen."""
    if found[0] == "%":
        return chr(int(found[1:], 16))
    if found[0] != "\\":
        return ""
    escape = found.lstrip("\\")
    if escape[0] == "u" and len(escape) == 5:
        return _plain(chr(int(escape[1:], 16)))
    return " " if escape in _NEVER else escape
