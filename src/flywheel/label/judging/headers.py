"""What a server says about its limits: `retry-after` and `x-ratelimit-*` headers, read.

Input: the headers of a reply. Output: seconds to wait, and what is left of each allowance. Values
that make no sense are as good as absent: a header never stops a run.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

LONGEST_WAIT_S = 3600.0
"""A longer `retry-after` is taken as this: the deadline of the judgement ends it anyway."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class Allowance(NamedTuple):
    """Of one resource, requests or tokens, as OpenAI's `x-ratelimit-*` headers tell it."""

    remaining: float
    limit: float | None = None
    reset_s: float | None = None
    """Until the allowance is whole again."""

    @property
    def refill_per_s(self) -> float | None:
        """How fast it grows back: what is used up, over the time until none is.

        Exact for a token bucket, which is what OpenAI documents. Of a fixed window it is too high
        while little is left, so it never slows a run that the server would have allowed.
        """
        if self.limit is None or not self.reset_s:
            return None
        used = self.limit - self.remaining
        return used / self.reset_s if used > 0 else None


class Limits(NamedTuple):
    """What one reply says of the server's limits; None where it says nothing."""

    retry_after_s: float | None = None
    requests: Allowance | None = None
    tokens: Allowance | None = None


def read_limits(headers: Mapping[str, str], *, now: datetime | None = None) -> Limits:
    """The limits in a reply's headers, whatever the case of their names."""
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    now = now or datetime.now(UTC)
    return Limits(
        _retry_after_s(lower, now),
        _allowance(lower, "requests", now),
        _allowance(lower, "tokens", now),
    )


def _retry_after_s(lower: Mapping[str, str], now: datetime) -> float | None:
    """Milliseconds (Azure, OpenAI) before seconds or an HTTP date (RFC 9110, 10.2.3)."""
    milliseconds = _number(lower.get("retry-after-ms", ""))
    if milliseconds is not None:
        return min(milliseconds / 1000, LONGEST_WAIT_S)
    text = lower.get("retry-after", "")
    seconds = _number(text)
    if seconds is None and text:
        seconds = _until(text, now)
    return None if seconds is None else min(seconds, LONGEST_WAIT_S)


def _allowance(lower: Mapping[str, str], resource: str, now: datetime) -> Allowance | None:
    remaining = _number(lower.get(f"x-ratelimit-remaining-{resource}", ""))
    if remaining is None:
        return None
    limit = _number(lower.get(f"x-ratelimit-limit-{resource}", ""))
    reset = lower.get(f"x-ratelimit-reset-{resource}", "")
    return Allowance(remaining, limit, read_duration_s(reset, now=now) if reset else None)


def read_duration_s(text: str, *, now: datetime | None = None) -> float | None:
    """Seconds in `6m0s`, `20ms`, `1.5` or a moment (`2026-01-31T08:00:00Z`); None for others."""
    text = text.strip()
    seconds = _number(text)
    if seconds is not None:
        return seconds
    if _DURATION.fullmatch(text):
        return sum(float(count) * _UNITS[unit] for count, unit in _PART.findall(text))
    return _until(text, now or datetime.now(UTC))


def _until(text: str, now: datetime) -> float | None:
    """Seconds until an HTTP or ISO 8601 date; 0 where it is past."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = read(text)
        except (ValueError, OverflowError):
            continue
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    return None


def _number(text: str) -> float | None:
    """A finite number that is not negative."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
