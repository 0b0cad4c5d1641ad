from datetime import UTC, datetime
from pathlib import Path

import pytest

from flywheel.errors import ConfigError
from flywheel.label import grade_captured
from flywheel.label import grading as module
from flywheel.lake import Lake
from flywheel.records import Assessment, JsonObject, Message
from flywheel.testing import make_interaction
from flywheel.workload import Workload

EXAMPLE = Path(__file__).parents[2] / "examples" / "triage" / "flywheel.yaml"
SHORT: JsonObject = {
    "type": "multi",
    "graders": {
        "says_ok": {
            "type": "string_check",
            "operation": "like",
            "input": "{{sample.output_text}}",
            "reference": "ok",
        }
    },
    "calculate_output": "1 / says_ok",
}


def workload(*graders: str, **changed: JsonObject) -> Workload:
    loaded = Workload.load(EXAMPLE)
    labels = loaded.labels.model_copy(update={"graders": graders})
    return loaded.model_copy(update={"labels": labels, "graders": {**loaded.graders, **changed}})


def grades(lake: Lake) -> list[Assessment]:
    return lake.fetch(Assessment, "SELECT * FROM assessments ORDER BY interaction_id, created_at")


@pytest.fixture
def captured(lake: Lake) -> Lake:
    lake.append(
        [
            make_interaction(
                interaction_id="a",
                response=Message(role="assistant", content='{"urgency": "urgent"}'),
            ),
            make_interaction(interaction_id="b", response=Message(role="assistant", content="ok")),
            make_interaction(interaction_id="c", response=None, status="error"),
            make_interaction(interaction_id="d", workload="other"),
        ]
    )
    return lake


def test_every_answer_of_the_workload_is_graded_once(captured: Lake) -> None:
    report = grade_captured(captured, workload("valid_json"))
    assert report.graders["valid_json"].model_dump() == {"graded": 2, "failed": 0, "mean": 0.5}
    found = [(g.interaction_id, g.value, g.source_type, g.source_id) for g in grades(captured)]
    assert found == [
        ("a", 1.0, "code", "grader:valid_json"),
        ("b", 0.0, "code", "grader:valid_json"),
    ]

    again = grade_captured(captured, workload("valid_json"))
    assert again.graders["valid_json"].graded == 0
    assert len(grades(captured)) == 2


def test_only_what_came_since_is_graded(captured: Lake) -> None:
    grade_captured(captured, workload("valid_json"))
    captured.append([make_interaction(interaction_id="0")])
    assert grade_captured(captured, workload("valid_json")).graders["valid_json"].graded == 1


def test_a_changed_grader_grades_anew_and_its_latest_grade_counts(captured: Lake) -> None:
    grade_captured(captured, workload("valid_json"), now=datetime(2026, 1, 3, tzinfo=UTC))
    anything: JsonObject = {"type": "x-json_schema", "schema": {"type": "string"}}
    grade_captured(
        captured, workload("valid_json", valid_json=anything), now=datetime(2026, 1, 4, tzinfo=UTC)
    )
    labels = captured.query("SELECT interaction_id, value, raters FROM labels ORDER BY 1")
    assert labels.to_pylist() == [
        {"interaction_id": "a", "value": 0.0, "raters": 1},
        {"interaction_id": "b", "value": 0.0, "raters": 1},
    ]


def test_a_grader_that_fails_leaves_null_and_an_error_and_no_label(captured: Lake) -> None:
    report = grade_captured(captured, workload("short", short=SHORT))
    assert report.graders["short"].model_dump() == {"graded": 1, "failed": 1, "mean": 1.0}
    failed, fine = grades(captured)
    assert (failed.value, failed.status, failed.error_type) == (None, "error", "calculation")
    assert (fine.value, fine.status) == (1.0, "submitted")
    assert captured.query("SELECT interaction_id FROM labels").num_rows == 1


def test_a_run_goes_page_by_page_and_tells_how_far_it_is(
    captured: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 1)
    seen: list[tuple[int, int]] = []
    grade_captured(
        captured, workload("valid_json"), on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 2), (2, 2)]


def test_a_grader_that_needs_a_reference_is_refused_before_anything_is_graded(
    captured: Lake,
) -> None:
    with pytest.raises(ConfigError, match="correct: compares with item.reference.urgency"):
        grade_captured(captured, workload("valid_json", "correct"))
    assert grades(captured) == []


def test_no_graders_named_is_nothing_done(captured: Lake) -> None:
    assert grade_captured(captured, workload()).graders == {}
