"""When a call was made, as logs say it: text of ISO 8601, or a number of some unit since 1970.

Input: values as a log holds them. Output: aware times in UTC, durations in milliseconds.
"""

import math
from datetime import UTC, datetime, timedelta

from pydantic import JsonValue

from flywheel.capture.importers.row import Source
from flywheel.errors import BadRecordError

_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)


def moment(value: JsonValue, name: str = "timestamp") -> datetime | None:
    """A time, aware, in UTC: ISO 8601 (UTC where it has no zone), or a number since 1970.

    A number's unit is read off its size, which between 1973 and 5138 can only mean one of seconds,
    milliseconds, microseconds and nanoseconds.

    Raises:
        BadRecordError: `bad_timestamp`: there is something, but no time of this century or next.
    """
    if value is None or value == "":
        return None
    found: datetime | None = None
    if isinstance(value, str):
        found = _from_text(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = _from_number(value)
    if found is None or not _EARLIEST <= found < _LATEST:
        raise BadRecordError("bad_timestamp", f"{name}: {value!r:.80} is no time since 2000")
    return found


def _from_text(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.strip())
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError:
        return None
    except ValueError:
        try:
            return _from_number(float(text))
        except ValueError:
            return None


def _from_number(value: float) -> datetime | None:
    if not math.isfinite(value):
        return None
    for limit, per_second in ((1e11, 1), (1e14, 10**3), (1e17, 10**6), (1e20, 10**9)):
        if 0 < value < limit:
            # Integers stay exact: a float of nanoseconds is off by a quarter of a microsecond.
            whole, rest = divmod(value, per_second)
            micros = rest * 10**6 // per_second if per_second > 1 else (value % 1) * 10**6
            return datetime.fromtimestamp(int(whole), UTC) + timedelta(microseconds=int(micros))
    return None


def started(source: Source, *candidates: datetime | None) -> datetime:
    """The first time there is.

    Raises:
        BadRecordError: `missing_timestamp`. A time made up now would be another at the next
            import, and the row would come in twice.
    """
    for candidate in (*candidates, source.assumed_time):
        if candidate is not None:
            return candidate
    raise BadRecordError(
        "missing_timestamp", "the row does not say when; give a time with --assume-time"
    )


def milliseconds(begin: datetime | None, end: datetime | None) -> float | None:
    """From begin to end, None where either is missing or they run backwards."""
    if begin is None or end is None or end < begin:
        return None
    return (end - begin) / timedelta(milliseconds=1)
