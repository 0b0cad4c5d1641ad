"""A small clinic whose truth is known: three raters, two questions, eight weeks, one who drifts."""

from datetime import UTC, datetime, timedelta

import numpy as np

from flywheel.lake import Lake
from flywheel.records import Assessment
from flywheel.testing import make_assessment, make_interaction

MONDAY = datetime(2026, 1, 5, 9, tzinfo=UTC)
URGENCIES = ("routine", "soon", "urgent")
WEEKS, PER_WEEK = 8, 24


def fill(lake: Lake, *, seed: int = 3) -> None:
    """Answers in conversations of two; every second item has gold; dr-c gets worse week by week."""
    rng = np.random.default_rng(seed)
    calls, judged = [], []
    for index in range(WEEKS * PER_WEEK):
        week = index // PER_WEEK
        at = MONDAY + timedelta(weeks=week, hours=index % PER_WEEK)
        name, truth = f"i{index:03d}", int(rng.integers(3))
        calls.append(
            make_interaction(interaction_id=name, conversation_id=f"c{index // 2}", started_at=at)
        )
        skills = {"dr-a": 0.92, "dr-b": 0.85, "dr-c": 0.95 - 0.1 * week}
        for order, (rater, skill) in enumerate(skills.items()):
            said = truth if rng.random() < skill else int(rng.integers(3))
            helpful = float(rng.random() < (0.9 if truth else 0.8))
            shared = {
                "interaction_id": name,
                "source_id": rater,
                "created_at": at + timedelta(days=1, minutes=order),
                "guideline": "2026-01" if week < WEEKS // 2 else "2026-02",
            }
            judged.append(_rated("urgency", said, shared))
            judged.append(make_assessment(name="helpful", value=helpful, **shared))
        if index % 2 == 0:
            gold = {"interaction_id": name, "round": "adjudication", "source_id": "dr-chief"}
            judged.append(_rated("urgency", truth, {**gold, "created_at": at + timedelta(days=2)}))
    lake.append(calls)
    lake.append(judged)


def _rated(name: str, step: int, shared: dict[str, object]) -> Assessment:
    return make_assessment(name=name, label=URGENCIES[step], value=float(step), **shared)
