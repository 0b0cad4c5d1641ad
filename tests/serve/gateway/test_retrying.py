import random
from datetime import UTC, datetime

import pytest

from flywheel.serve.gateway.retrying import pause_s, retry_after_s

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "150", "retry-after": "2"}, 0.15),
        ({"retry-after": "Fri, 02 Jan 2026 03:04:35 GMT"}, 30.0),
        ({"retry-after": "Fri, 02 Jan 2026 03:04:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Fri, 02 Jan 2026 03:04:35"}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after_s(headers, now=NOW) == seconds


def test_a_wait_that_was_asked_for_is_kept_and_never_shortened() -> None:
    dice = random.Random(1)
    pauses = [pause_s(0, 2.0, longest_s=5, dice=dice) for _ in range(100)]
    assert all(2.0 <= pause <= 2.1 for pause in pauses)
    assert len(set(pauses)) > 90, "all clients would come back at once"


def test_too_long_a_wait_is_no_wait_at_all() -> None:
    assert pause_s(0, 60.0, longest_s=5, dice=random.Random(1)) == float("inf")


def test_pauses_grow_by_two_and_are_drawn_from_the_whole_range() -> None:
    """Attempt 3: between 0 and 0.25 * 2**3 = 2 s."""
    dice = random.Random(1)
    pauses = [pause_s(3, None, longest_s=100, dice=dice) for _ in range(1000)]
    assert 0 <= min(pauses) < 0.1
    assert 1.9 < max(pauses) <= 2.0
