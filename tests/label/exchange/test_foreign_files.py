"""Files as Argilla, Label Studio and Prodigy write them, of projects nobody here set up."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flywheel.errors import BadRecordError, ConfigError
from flywheel.label import RowDefaults, import_labels
from flywheel.label.exchange import LabelFile, ToolName, detect_format, read_record
from flywheel.lake import Lake
from flywheel.records import Assessment, JsonObject, QuarantineRecord

DEFAULTS = RowDefaults(workload="triage", now=datetime(2026, 1, 2, tzinfo=UTC))
ARGILLA: JsonObject = {
    "id": "i1",
    "fields": {"text": "…"},
    "metadata": {},
    "suggestions": {"urgency": {"value": "soon", "score": 0.4, "agent": "m"}},
    "responses": {
        "urgency": [{"value": "urgent", "user_id": "u1"}, {"value": "soon", "user_id": "u2"}],
        "comment": [{"value": "chest pain", "user_id": "u1"}],
        "quality": [{"value": 4, "user_id": "u1"}],
    },
    "vectors": {},
    "status": "completed",
    "_server_id": "0b3c",
}
ARGILLA_SERVER: JsonObject = {
    "id": "i1",
    "fields": {"text": "…"},
    "responses": [
        {
            "values": {"urgency": {"value": "urgent"}},
            "status": "submitted",
            "user_id": "u1",
            "updated_at": "2026-01-01T10:00:00.5",
        },
        {"values": {"urgency": {"value": "soon"}}, "status": "draft", "user_id": "u2"},
        {"values": None, "status": "discarded", "user_id": "u3"},
    ],
}
RANKING: JsonObject = {
    "id": "r",
    "fields": {},
    "metadata": {"pair_a": "i1", "pair_b": "i2"},
    "responses": {
        "preference": [
            {
                "value": [{"rank": 2, "value": "response-1"}, {"rank": 1, "value": "response-2"}],
                "user_id": "u1",
            },
            {
                "value": [{"rank": 1, "value": "response-1"}, {"rank": 1, "value": "response-2"}],
                "user_id": "u2",
            },
        ]
    },
}
LABEL_STUDIO: JsonObject = {
    "id": 1,
    "data": {"interaction_id": "i1", "text": "…"},
    "annotations": [
        {
            "id": 7,
            "completed_by": {"id": 10, "email": "dr@example.org"},
            "was_cancelled": False,
            "created_at": "2026-01-01T10:00:00.123456Z",
            "lead_time": 4.288,
            "result": [
                {
                    "from_name": "urgency",
                    "to_name": "text",
                    "type": "choices",
                    "value": {"choices": ["urgent"]},
                },
                {
                    "from_name": "correction",
                    "to_name": "text",
                    "type": "textarea",
                    "value": {"text": ["Go to", "hospital."]},
                },
            ],
        },
        {"id": 8, "completed_by": 11, "was_cancelled": True, "result": []},
        {
            "id": 9,
            "completed_by": 12,
            "result": [{"from_name": "box", "type": "rectanglelabels", "value": {}}],
        },
    ],
    "predictions": [{"model_version": "m", "result": []}],
}
PAIRWISE: JsonObject = {
    "data": {"pair_a": "i1", "pair_b": "i2"},
    "annotations": [
        {
            "result": [{"from_name": "better", "type": "pairwise", "value": {"selected": "right"}}],
            "completed_by": 10,
        },
        {
            "result": [{"from_name": "better", "type": "choices", "value": {"choices": ["tie"]}}],
            "completed_by": 11,
        },
    ],
}
PRODIGY: list[JsonObject] = [
    {
        "text": "…",
        "meta": {"interaction_id": "i1"},
        "options": [{"id": "urgent", "text": "urgent"}, {"id": "soon", "text": "soon"}],
        "accept": ["urgent"],
        "answer": "accept",
        "_annotator_id": "triage-dr_a",
        "_timestamp": 1767225600,
    },
    {"text": "…", "interaction_id": "i2", "answer": "reject", "_session_id": "triage-dr_b"},
    {"text": "…", "interaction_id": "i3", "answer": "ignore"},
    {"text": "…", "interaction_id": "i4", "label": "URGENT", "answer": "accept"},
]


def assessments(lake: Lake) -> list[Assessment]:
    return lake.fetch(
        Assessment, "SELECT * FROM assessments ORDER BY interaction_id, source_id, name"
    )


def write(path: Path, records: object) -> Path:
    path.write_text(json.dumps(records))
    return path


def test_argillas_questions_become_labels_ratings_and_rationales(
    lake: Lake, tmp_path: Path
) -> None:
    report = import_labels(lake, write(tmp_path / "r.json", [ARGILLA]), DEFAULTS)
    assert (report.written, report.quarantined) == (3, 0)
    said = [(a.name, a.label, a.value, a.rationale, a.source_id) for a in assessments(lake)]
    assert said == [
        ("quality", None, 4.0, "chest pain", "u1"),
        ("urgency", "urgent", None, "chest pain", "u1"),
        ("urgency", "soon", None, None, "u2"),
    ]


def test_of_argillas_server_drafts_are_left_and_discarded_ones_kept_as_such(
    lake: Lake, tmp_path: Path
) -> None:
    path = write(tmp_path / "r.json", [ARGILLA_SERVER])
    report = import_labels(lake, LabelFile(path=path, name="urgency"), DEFAULTS)
    assert report.written == 2
    first, second = assessments(lake)
    assert (first.label, first.created_at) == (
        "urgent",
        datetime(2026, 1, 1, 10, 0, 0, 500000, tzinfo=UTC),
    )
    assert (second.source_id, second.status, second.label) == ("u3", "discarded", None)


def test_argillas_flattened_records_are_read_too() -> None:
    record: JsonObject = {
        "id": "i1",
        "text": "…",
        "urgency.responses": ["urgent", "soon"],
        "urgency.responses.users": ["u1", "u2"],
        "urgency.responses.status": ["submitted", "draft"],
    }
    (row,) = read_record(record, "argilla")
    assert isinstance(row, dict)
    assert (row["label"], row["source_id"], row["interaction_id"]) == ("urgent", "u1", "i1")


def test_a_ranking_of_two_is_a_preference_and_equal_ranks_a_tie(lake: Lake, tmp_path: Path) -> None:
    import_labels(lake, write(tmp_path / "r.json", [RANKING]), DEFAULTS)
    said = [(a.pair_ids, a.label, a.value) for a in assessments(lake)]
    assert said == [(("i1", "i2"), "B", 0.0), (("i1", "i2"), "tie", 0.5)]


def test_label_studios_controls_cancellations_and_what_cannot_be_read(
    lake: Lake, tmp_path: Path
) -> None:
    report = import_labels(lake, write(tmp_path / "t.json", [LABEL_STUDIO]), DEFAULTS)
    assert report.reasons == {"unsupported_annotation": 1}
    cancelled, read = assessments(lake)
    assert read.correction is not None
    assert (read.name, read.label, read.correction.text) == (
        "urgency",
        "urgent",
        "Go to\nhospital.",
    )
    assert (read.source_id, read.lead_time_s) == ("dr@example.org", 4.288)
    assert read.created_at == datetime(2026, 1, 1, 10, 0, 0, 123456, tzinfo=UTC)
    assert (cancelled.status, cancelled.source_id) == ("discarded", "11")
    (bad,) = lake.fetch(QuarantineRecord, "SELECT * FROM quarantine")
    assert json.loads(bad.payload) == LABEL_STUDIO
    assert "rectanglelabels" in bad.detail


def test_pairwise_sides_are_the_pair_and_choices_are_ties(lake: Lake, tmp_path: Path) -> None:
    import_labels(lake, write(tmp_path / "t.json", [PAIRWISE]), DEFAULTS)
    assert [(a.name, a.label) for a in assessments(lake)] == [("better", "B"), ("better", "tie")]


def test_prodigys_answers_are_choices_verdicts_and_skips(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    lines = [*PRODIGY, {"text": "…", "interaction_id": "i5", "label": "URGENT", "answer": "reject"}]
    lines += [{**PRODIGY[0], "accept": ["urgent", "soon"]}, {"text": "…", "answer": "accept"}]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    report = import_labels(lake, LabelFile(path=path, name="urgency"), DEFAULTS)
    assert report.reasons == {"negated_label": 1, "several_labels": 1, "missing_interaction_id": 1}
    said = [(a.interaction_id, a.label, a.value, a.status, a.source_id) for a in assessments(lake)]
    assert said == [
        ("i1", "urgent", None, "submitted", "triage-dr_a"),
        ("i2", None, 0.0, "submitted", "triage-dr_b"),
        ("i3", None, None, "discarded", None),
        ("i4", "URGENT", None, "submitted", None),
    ]
    assert assessments(lake)[0].created_at == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (ARGILLA, "argilla"),
        (ARGILLA_SERVER, "argilla"),
        (LABEL_STUDIO, "label-studio"),
        (PRODIGY[0], "prodigy"),
        (PRODIGY[1], "prodigy"),
        ({"interaction_id": "i", "name": "n", "value": 1}, "own"),
    ],
)
def test_a_format_is_recognised_by_its_records(
    record: JsonObject, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps(record))
    assert detect_format(LabelFile(path=path)) == expected


def test_an_unknown_json_file_is_refused_with_the_formats_that_are_known(tmp_path: Path) -> None:
    path = write(tmp_path / "f.json", [{"hello": 1}])
    with pytest.raises(ConfigError, match="--format argilla, label-studio, prodigy"):
        detect_format(LabelFile(path=path))


def test_of_an_array_that_is_cut_off_the_whole_records_are_kept(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    text = json.dumps([PAIRWISE, LABEL_STUDIO])
    path.write_text(text[: len(text) - 40])
    report = import_labels(lake, path, DEFAULTS)
    assert (report.written, report.reasons) == (2, {"bad_json": 1})


@pytest.mark.parametrize("tool", ["argilla", "label-studio", "prodigy"])
@pytest.mark.parametrize(
    "junk",
    [
        {},
        {"responses": {"q": [{"value": {"a": 1}, "user_id": None}]}, "fields": {}},
        {"responses": [3, {"values": [1], "user_id": {}}], "id": 4},
        {"data": 3, "annotations": [3, {"result": [3, {"type": "choices"}]}]},
        {"data": {"interaction_id": "i"}, "annotations": [{"result": "x"}]},
        {"answer": 7, "accept": [{}], "options": 3, "interaction_id": "i"},
        {"answer": "accept", "accept": [None], "options": [3], "interaction_id": "i"},
        {"flywheel": {"judgements": 3}, "metadata": {"flywheel": "[1"}, "answer": "accept"},
    ],
)
def test_junk_is_a_bad_record_and_never_a_crash(tool: ToolName, junk: JsonObject) -> None:
    try:
        rows = list(read_record(junk, tool, "urgency"))
    except BadRecordError:
        return
    assert all(isinstance(row, dict | BadRecordError) for row in rows)
