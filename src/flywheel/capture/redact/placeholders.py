"""What stands in the place of an identifier, the same one each time.

A number is given by first appearance in the messages and the answer: the next call of a chat
carries them all again in the same order, so that <EMAIL_1> stays the same person's in every turn,
drained together or weeks apart, without anything being remembered. What no later call carries (a
further choice, an error, a judgement) would take a number that a later turn gives to somebody else:
it gets the number its value has already, or a keyed hash, or with no key the bare word.
"""

import hmac
from hashlib import sha256

from flywheel.capture.redact.fold import PLACEHOLDER, fold
from flywheel.capture.redact.policy import LABELS

KEYED_DIGITS = 6


class Placeholders:
    """The placeholders of one record.

    Args:
        secret: key of the hashes; empty makes none.
        scope: what a hash is consistent within: workload and conversation.
    """

    def __init__(self, secret: bytes, scope: str) -> None:
        self._secret, self._scope = secret, scope
        self._given: dict[str, str] = {}
        self._last: dict[str, int] = {}
        self._taken: set[str] = set()

    def reserve(self, text: str) -> None:
        """Keeps the numbers a text already uses for whom they mean there."""
        if "<" in text:
            self._taken.update(found[0] for found in PLACEHOLDER.finditer(text))

    def give(self, entity: str, value: str, *, is_numbered: bool) -> str:
        """The placeholder of a value; one it has is kept, whatever it was taken for later."""
        key = _normal(value)
        given = self._given.get(key)
        if given is None:
            label = LABELS[entity]
            given = self._next(label) if is_numbered else self._hashed(label, key)
            self._given[key] = given
        return given

    def _next(self, label: str) -> str:
        while True:
            self._last[label] = self._last.get(label, 0) + 1
            given = f"<{label}_{self._last[label]}>"
            if given not in self._taken:
                return given

    def _hashed(self, label: str, key: str) -> str:
        if not self._secret:
            return f"<{label}>"
        message = f"{self._scope}\0{key}".encode("utf-8", "surrogatepass")
        digest = hmac.new(self._secret, message, sha256).hexdigest()
        return f"<{label}_k{digest[:KEYED_DIGITS]}>"


def _normal(value: str) -> str:
    """One writing of a value: case, spaces and separators do not make another person."""
    folded = fold(value).text.casefold()
    if "@" in folded:
        return folded
    if any(map(str.isdigit, folded)):
        return "".join(filter(str.isalnum, folded))
    return " ".join(folded.split())
