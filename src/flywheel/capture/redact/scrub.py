"""One record's identifiers: learnt from all of its texts first, then replaced in all of them.

A number that one sentence calls a record number is the same number where the answer repeats it with
no word around it that would give it away: what was found anywhere is replaced everywhere.
"""

import re
from collections.abc import Sequence

from pydantic import JsonValue

from flywheel.capture.redact.analyzer import Analyzer
from flywheel.capture.redact.placeholders import Placeholders
from flywheel.capture.redact.walk import Leaf, walk
from flywheel.records import JsonObject

_SURE_OF_A_NUMBER = 0.5
"""A bare integer is a phone number only where its key says so."""
_REPEATED = re.compile(r"(?=.*[\d@]).{5,}", re.DOTALL)
_OPAQUE = re.compile(
    r"data:(?:image|audio|video|application)/[\w.+-]+;base64,.*|[A-Za-z0-9+/\s_-]{400,}={0,2}\s*",
    re.DOTALL,
)


class Scrub:
    """Learns, then replaces.

    Args:
        analyzer: finds.
        secret: of the keyed placeholders.
        scope: what they are consistent within.
    """

    def __init__(self, analyzer: Analyzer, *, secret: bytes, scope: str) -> None:
        self._analyzer = analyzer
        self._placeholders = Placeholders(secret, scope)
        self._values: dict[str, str] = {}
        self._repeats: re.Pattern[str] | None = None
        self.count = 0
        """Identifiers replaced."""
        self.findings: list[JsonObject] = []
        """What was replaced by what."""

    def learn(self, values: Sequence[JsonValue], *, is_numbered: bool) -> None:
        """Finds what is in these, in order."""

        def visit(leaf: Leaf) -> str:
            self._placeholders.reserve(leaf.text)
            for start, end, entity, _ in self._found(leaf):
                value = leaf.text[start:end]
                self._placeholders.give(entity, value, is_numbered=is_numbered)
                if _REPEATED.fullmatch(value):
                    self._values[value.casefold()] = entity
            return leaf.text

        for value in values:
            walk(value, visit)
        longest_first = sorted(self._values, key=len, reverse=True)
        if longest_first:
            any_of = "|".join(map(re.escape, longest_first))
            self._repeats = re.compile(rf"(?<!\w)(?:{any_of})(?!\w)", re.IGNORECASE)

    def replaced(self, value: JsonValue) -> JsonValue:
        """The value with a placeholder for all that was learnt."""
        return walk(value, self._replace)

    def _replace(self, leaf: Leaf) -> str:
        out: list[str] = []
        at = 0
        for start, end, entity, score in self._spans(leaf):
            value = leaf.text[start:end]
            placeholder = self._placeholders.give(entity, value, is_numbered=False)
            self.count += 1
            self.findings.append(
                {
                    "entity": entity,
                    "score": round(score, 2),
                    "text": value,
                    "placeholder": placeholder,
                }
            )
            out += [leaf.text[at:start], placeholder]
            at = end
        return "".join(out) + leaf.text[at:] if out else leaf.text

    def _spans(self, leaf: Leaf) -> list[tuple[int, int, str, float]]:
        found = self._found(leaf)
        if self._repeats is not None and not _is_opaque(leaf.text):
            for repeat in self._repeats.finditer(leaf.text):
                start, end = repeat.span()
                if all(end <= one[0] or one[1] <= start for one in found):
                    entity = self._values.get(repeat[0].casefold())
                    if entity is not None:  # casefold and IGNORECASE differ on a few letters
                        found.append((start, end, entity, 1.0))
        return sorted(found)

    def _found(self, leaf: Leaf) -> list[tuple[int, int, str, float]]:
        """Findings in the leaf itself, its key read before it."""
        if not leaf.text or _is_opaque(leaf.text):
            return []
        before = f"{leaf.hint}: " if leaf.hint else ""
        found = [
            (max(one.start - len(before), 0), one.end - len(before), one.entity, one.score)
            for one in self._analyzer.find(before + leaf.text)
            if one.end > len(before)
        ]
        if not leaf.is_number:
            return found
        sure = [one for one in found if one[2] != "PHONE_NUMBER" or one[3] >= _SURE_OF_A_NUMBER]
        return [(0, len(leaf.text), *one[2:]) for one in sure[:1]]


def _is_opaque(text: str) -> bool:
    """An encoded image, sound or file: it is not looked into."""
    return len(text) >= 40 and _OPAQUE.fullmatch(text) is not None
