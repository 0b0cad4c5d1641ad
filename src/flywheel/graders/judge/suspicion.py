"""Signs that a judged text speaks to its judge. Cheap, and told, not acted upon.

The signs go into `covariates.suspicious` of every row, so that SQL finds the verdicts to look at.
They do not prove an injection, and their absence proves nothing: an attack in other words, another
language or encoded is not found. What holds is the fence, and a judge that qualified.
"""

import re
from collections.abc import Mapping

MAX_CHARS = 200_000
"""Of one text that are looked at."""

_TAGS = "response|response_a|response_b|messages?|question|reference|material"
_GRADE_WORDS = r"(?:score|grade|rating|mark|verdict|judg(?:e)?ment|points?)"
_SIGNS: Mapping[str, re.Pattern[str]] = {
    # The judge's own tags, with whatever code.
    "fence": re.compile(
        rf"</?(?:{_TAGS})(?:-[0-9a-z]{{4,}})?(?:\s\w+=[^>\n]{{0,80}})?>", re.IGNORECASE
    ),
    # "score 10", "give this answer full marks", "verdict: A", the form of the verdict itself.
    "asks_for_grade": re.compile(
        rf"\b{_GRADE_WORDS}\s{{0,3}}(?::|=|is|of|to|as|should be|must be)?\s{{0,3}}"
        r"[\"'*`]{0,3}(?:10|100|[0-9]{1,2}\s?/\s?[0-9]{1,3}|perfect|full|maximum|highest)\b"
        r"|\b(?:verdict|winner|grade|better one)\s?(?::|=|is)\s?(?:answer\s)?[AB]\b"
        r"|\b(?:full|top|maximum|highest|perfect)\s(?:marks?|scores?|grades?|ratings?)\b"
        r"|\b(?:rate|grade|score|rank|judge|prefer|choose|pick)\s"
        r"(?:this|my|the above|assistant)?\s?(?:answer|response|reply|assistant)\b"
        r"|[\"']grades?[\"']\s?:\s?[{\"']",
        re.IGNORECASE,
    ),
    # "ignore all previous instructions", "you are now", "as the judge".
    "instructs_judge": re.compile(
        r"\b(?:ignore|disregard|forget|override)\b[^.\n]{0,40}\b(?:instruction|rubric|prompt|guideline|rule|above|previous)"
        r"|\b(?:attention|note to|dear|message for|instructions? (?:to|for))\s(?:the\s)?"
        r"(?:judge|grader|evaluator|reviewer|rater|ai|llm|model)\b"
        r"|\b(?:you are|act as|as)\s(?:now\s)?(?:an?|the)\s(?:impartial\s)?"
        r"(?:judge|grader|evaluator)\b"
        r"|\bnew (?:system )?instructions?\b|\bsystem prompt\b",
        re.IGNORECASE,
    ),
    # Chat templates' own tokens.
    "chat_template": re.compile(
        r"<\|[a-z_]{2,30}\|>|\[/?INST\]|<</?SYS>>|</?(?:system|assistant|user)>"
        r"|^\s{0,3}#{0,3}\s?(?:system|assistant)\s?:",
        re.IGNORECASE | re.MULTILINE,
    ),
    # Characters that are not seen: zero width, bidirectional overrides, Unicode tags.
    "hidden_characters": re.compile(
        "[\u200b\u2060\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
    ),
}


def find_suspicions(texts: Mapping[str, str]) -> list[str]:
    """The signs found, as `<name of the text>:<sign>`, in the order of the texts."""
    return [
        f"{name}:{sign}"
        for name, text in texts.items()
        for sign, pattern in _SIGNS.items()
        if pattern.search(text[:MAX_CHARS])
    ]
