"""When to ask the same provider again: pure, with the clock and the dice given.

Sources: RFC 9110 section 10.2.3 (Retry-After); full jitter as in Brooker, "Exponential Backoff And
Jitter" (AWS Architecture Blog, 2015).
"""

import random
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

RETRIED_STATUSES = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
"""Answers after which another attempt, or another provider, may do better."""
_FIRST_S = 0.25
_MOST_S = 8.0


def retry_after_s(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Seconds a server asks for: `retry-after-ms`, or `retry-after` as seconds or as a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            seconds = _until(text, now)
        if 0 <= seconds < float("inf"):
            return seconds
    return None


def _until(text: str, now: datetime) -> float:
    try:
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (ValueError, TypeError):  # TypeError: a date without a zone
        return -1.0


def pause_s(attempt: int, asked_s: float | None, *, longest_s: float, dice: random.Random) -> float:
    """Seconds before the next attempt; infinite when the server asks for too long a wait.

    Args:
        attempt: the one that failed, from 0.
        asked_s: by `retry_after_s`.
        longest_s: more than this is not waited for.
        dice: for the jitter.
    """
    if asked_s is None:
        return min(longest_s, dice.uniform(0, min(_MOST_S, _FIRST_S * 2**attempt)))
    return asked_s + dice.uniform(0, 0.1) if asked_s <= longest_s else float("inf")
