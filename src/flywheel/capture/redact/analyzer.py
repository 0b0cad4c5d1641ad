"""Where identifiers are in a text: Presidio's AnalyzerEngine, offline, bounded and failing loudly.

Presidio by itself downloads a spaCy model and a list of domain suffixes; skips a pattern that took
too long, with a warning; and logs what it could not validate. Here it gets an NLP engine of its
own, no suffix list, pieces of bounded length, and a log handler that turns a skipped pattern into
an error: what was not looked at must not pass for clean.
"""

import logging
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from flywheel.capture.redact.fold import BLANK, fold
from flywheel.capture.redact.policy import NER_ENTITIES, Policy
from flywheel.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

PIECE = 8_000
"""Characters analysed at once: a bound on what a slow pattern can cost."""
OVERLAP = 400
"""Longer than any identifier and the words that introduce it."""
MAX_LOOKS = 4
"""A date before a telephone number hides it from phonenumbers: what was found is blanked, and the
rest is looked at again until there is nothing new."""
_PROBE = "Write to probe@example.org or ring +1 415 555 0100."
CACHED = 200_000
"""Texts whose findings are remembered, by hash; the texts themselves are not."""


class Finding(NamedTuple):
    """One identifier in a text."""

    start: int
    end: int
    entity: str
    score: float


class SkippedPatternError(Exception):
    """Presidio gave up on a pattern, so nobody knows what the text holds."""


def _digits(count: int) -> Callable[[str], object]:
    return re.compile(rf"\d(?:\W{{0,4}}\d){{{count - 1}}}").search


_MIGHT_HOLD: dict[str, Callable[[str], object]] = {
    "CREDIT_CARD": _digits(12),
    "DATE_OF_BIRTH": re.compile(r"(?s)(?i:d\.?\s?o\.?\s?b|b\.|birth|born).*\d").search,
    "EMAIL_ADDRESS": re.compile("@").search,
    "IBAN_CODE": re.compile(r"[A-Za-z]{2}\d{2}[\s-]?[A-Za-z0-9]{4}").search,
    "IP_ADDRESS": re.compile(r"\d\.\d{1,3}\.\d{1,3}\.\d|[0-9A-Fa-f:]:[0-9A-Fa-f:]").search,
    "MEDICAL_LICENSE": re.compile(r"[A-Za-z][A-Za-z9]\d{7}").search,
    "MEDICAL_RECORD": re.compile(
        r"(?s)(?i:mrn|urn|record|number|chart|file|notes|\b(?:no|id|nr|pt|patient)\b|num|#).*\d"
    ).search,
    "PHONE_NUMBER": _digits(7),
    "US_DRIVER_LICENSE": re.compile(
        r"(?s)(?i:\b(?:drivers?|licen[cs]es?|permit|lic|identification|cdls?|dls?|driving)\b).*\d{3}"
    ).search,
    "US_SSN": re.compile(r"\d{3}[- .]?\d\d[- .]?\d{4}|\d{3}-\d{6}|\d{5}-\d{4}").search,
}
"""A cheap necessary condition for each pattern: most texts meet none, and never reach Presidio."""
_MIGHT_HOLD_WIDE = _MIGHT_HOLD | {
    "DATE_OF_BIRTH": re.compile(r"(?s)\d.{1,24}\d\d").search,
    "MEDICAL_RECORD": re.compile(r"\d[\dA-Za-z]{2}").search,
}
"""The same for the wider patterns: what stands before may be anything."""


class Analyzer:
    """Finds what a policy looks for; the same text is analysed once."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._engine: AnalyzerEngine | None = None
        self._known: dict[bytes, tuple[Finding, ...]] = {}
        self._might_hold = _MIGHT_HOLD_WIDE if policy.is_wide else _MIGHT_HOLD
        self._patterns = sorted(policy.entities - NER_ENTITIES)
        self._names = sorted(policy.entities & NER_ENTITIES)

    def find(self, text: str) -> tuple[Finding, ...]:
        """Identifiers in order, overlapping ones united under the longer's name.

        Raises:
            SkippedPatternError: a pattern took too long on some piece.
            MissingExtraError: Presidio is not installed.
            ConfigError: it, or its model, does not work at all.
        """
        key = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        found = self._known.get(key)
        if found is None:
            found = self._find(text)
            if len(self._known) >= CACHED:
                self._known.clear()
            self._known[key] = found
        return found

    def _find(self, text: str) -> tuple[Finding, ...]:
        folded = fold(text)
        found: list[Finding] = []
        rest = folded.text
        for _ in range(MAX_LOOKS):
            new = [
                one._replace(start=one.start + offset, end=one.end + offset)
                for offset, piece in _pieces(rest)
                for one in self._in_piece(piece)
            ]
            if not new:
                break
            found += new
            rest = _blanked(rest, new)
        return tuple(
            one._replace(start=start, end=end)
            for one in _united(found)
            for start, end in [folded.original(one.start, one.end)]
        )

    def _in_piece(self, piece: str) -> Iterator[Finding]:
        wanted = [name for name in self._patterns if self._might_hold[name](piece)] + self._names
        if not wanted or not piece.strip():
            return
        if self._engine is None:
            self._engine = _engine(self._policy.ner_model, is_wide=self._policy.is_wide)
        with _told_what_was_skipped():
            results = self._engine.analyze(
                text=piece,
                language="en",
                entities=wanted,
                score_threshold=self._policy.score_threshold,
            )
        for result in results:
            if result.entity_type in wanted:
                yield Finding(result.start, result.end, result.entity_type, result.score)


@lru_cache(maxsize=4)
def _engine(ner_model: str | None, *, is_wide: bool) -> "AnalyzerEngine":
    try:
        import presidio_analyzer  # noqa: F401 - tells a missing extra from a broken one
    except ImportError as error:
        raise MissingExtraError(error.name or "presidio-analyzer", "redact") from error
    try:
        engine = _build(ner_model, is_wide=is_wide)
        engine.analyze(text=_PROBE, language="en")
    except Exception as error:  # spaCy and a model raise anything; told, and nothing is drained
        told = f"Presidio cannot be used (spaCy model: {ner_model or 'none'}): {error}"
        raise ConfigError("redaction", [told]) from error
    return engine


def _build(ner_model: str | None, *, is_wide: bool) -> "AnalyzerEngine":
    from presidio_analyzer import AnalyzerEngine, LemmaContextAwareEnhancer, RecognizerRegistry

    from flywheel.capture.redact.nlp import InstalledModel, Words, names_recognizer
    from flywheel.capture.redact.recognizers import pattern_recognizers
    from flywheel.capture.redact.wider import wider_recognizers

    recognizers = wider_recognizers() if is_wide else []
    recognizers += pattern_recognizers() + ([names_recognizer()] if ner_model else [])
    return AnalyzerEngine(
        registry=RecognizerRegistry(recognizers=recognizers, supported_languages=["en"]),
        nlp_engine=InstalledModel(ner_model) if ner_model else Words(),
        # By substring, `lic` of a driver's licence is in every `clinic` and `public`.
        context_aware_enhancer=LemmaContextAwareEnhancer(context_matching_mode="whole_word"),
        supported_languages=["en"],
    )


def _blanked(text: str, findings: list[Finding]) -> str:
    """The text with nothing left of what was found, as long as before."""
    characters = list(text)
    for one in findings:
        characters[one.start : one.end] = BLANK * (one.end - one.start)
    return "".join(characters)


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """The text in overlapping pieces, each with where it begins."""
    for start in range(0, max(len(text) - OVERLAP, 1), PIECE - OVERLAP):
        yield start, text[start : start + PIECE]


def _united(findings: list[Finding]) -> Iterator[Finding]:
    """Overlapping findings as one, so that no part of any of them stays."""
    current: list[Finding] = []
    for finding in sorted(findings):
        if current and finding.start >= max(one.end for one in current):
            yield _union(current)
            current = []
        current.append(finding)
    if current:
        yield _union(current)


def _union(findings: list[Finding]) -> Finding:
    chosen = max(findings, key=lambda one: (one.end - one.start, one.score, one.entity))
    start, end = findings[0].start, max(one.end for one in findings)
    return Finding(start, end, chosen.entity, chosen.score)


class _told_what_was_skipped(logging.Handler):
    """While it is entered, a warning of Presidio's raises on leaving, and nothing is logged.

    Presidio's logger gets identifiers that failed a checksum; they must not reach a log file.
    """

    logger = logging.getLogger("presidio-analyzer")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._skipped = False

    def emit(self, record: logging.LogRecord) -> None:
        self._skipped |= "timed out" in str(record.msg)

    def __enter__(self) -> None:
        self.logger.propagate = False
        self.logger.addHandler(self)

    def __exit__(self, *_: object) -> None:
        self.logger.removeHandler(self)
        if self._skipped:
            raise SkippedPatternError("a pattern of Presidio's took too long and was skipped")
