from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flywheel.lake import Lake
from flywheel.records import Interaction, Message
from flywheel.reviews import ReviewSection
from flywheel.testing import make_interaction
from flywheel.workload import Workload

REVIEW: Mapping[str, object] = {
    "raters": ["dr-a", "dr-b"],
    "guideline": "triage@1",
    "minutes": 5,
    "seconds_per_item": 60,
    "seconds_per_pair": 60,
    "gold_share": 0,
    "overlap": {"share": 0},
    "questions": {
        "urgency": {"kind": "pass_fail", "title": "Is it right?", "comment": True},
        "harm": {"kind": "category", "options": ["none", "minor", "serious"]},
        "corrected": {"kind": "correction", "name": "urgency", "title": "What should it be?"},
    },
}
PAIRS = {"better": {"kind": "preference", "title": "Which is better?", "comment": True}}


def make_section(**fields: object) -> ReviewSection:
    return ReviewSection.model_validate({**REVIEW, **fields})


def make_workload(**fields: object) -> Workload:
    return Workload.model_validate(
        {
            "name": "triage",
            "alias": "triage",
            "base_model": "some/base",
            "labels": {"name": "urgency"},
            "graders": {"ok": {"type": "x-json_schema", "schema": {"type": "object"}}},
            "gate": {"suite": "holdout.jsonl", "target": {"grader": "ok"}},
            "review": {**REVIEW, **fields},
        }
    )


def make_calls(count: int, *, prefix: str = "i") -> list[Interaction]:
    started = datetime(2026, 1, 2, 3, tzinfo=UTC)
    return [
        make_interaction(
            interaction_id=f"{prefix}-{number:03}",
            started_at=started + timedelta(minutes=number),
            response_model="triage-abcdef123456",
            messages=(
                Message(role="system", content="Answer with the urgency."),
                Message(role="user", content=f"It hurts since {number} days."),
            ),
            response=Message(role="assistant", content=f"Reply {number} of {prefix}."),
        )
        for number in range(count)
    ]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))
