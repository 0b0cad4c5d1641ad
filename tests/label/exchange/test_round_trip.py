"""Our judgements -> another tool's file -> our judgements."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.label import RowDefaults, import_labels
from flywheel.label.exchange import (
    ExportFormat,
    Item,
    Judged,
    LabelFile,
    ToolName,
    csv_lines,
    export_labels,
    read_label_file,
    read_record,
    row_of,
    tool_records,
)
from flywheel.label.rows import PREFERENCES, parse_row
from flywheel.lake import Lake
from flywheel.records import Assessment, JsonObject, Message
from flywheel.testing import make_assessment

TOOLS: tuple[ToolName, ...] = ("argilla", "label-studio", "prodigy")
FORMATS: tuple[ExportFormat, ...] = ("csv", "jsonl", *TOOLS)
DEFAULTS = RowDefaults(workload="triage", now=datetime(2100, 1, 1, tzinfo=UTC))

# Cells are stripped on import, by design; "=…" and "'=…" are what a spreadsheet would run.
texts = (
    st.text(min_size=1, max_size=40)
    | st.sampled_from(["=1+1", "'=1+1", "-5", "@x", "a\r\nb", '{"role"', '{"urgency": "urgent"}'])
).map(lambda text: text.encode("utf-8", "replace").decode().replace("\0", "").strip())
words = texts.filter(bool)
numbers = st.sampled_from([0.0, 1.0, 4.0, 0.5, -3.25]) | st.floats(-1e6, 1e6, allow_nan=False)
messages = st.builds(lambda text: Message(role="assistant", content=text), words) | st.just(
    Message(
        role="assistant",
        content=None,
        tool_calls=[{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    )
)
moments = st.floats(1.6e9, 1.7e9).map(lambda stamp: datetime.fromtimestamp(stamp, tz=UTC))


@st.composite
def judgements(draw: st.DrawFn) -> Assessment:
    """A judgement as people make them: one answer or a pair, submitted or discarded."""
    created = draw(moments)
    fields: dict[str, object] = {
        "assessment_id": draw(st.uuids()).hex,
        "name": draw(words),
        "interaction_id": "i1",
        "rationale": draw(st.none() | words),
        "source_id": draw(st.none() | words),
        "source_type": draw(st.sampled_from(["human", "end_user", "llm_judge"])),
        "source_role": draw(st.none() | words),
        "rubric": draw(st.sampled_from([None, "triage@3"])),
        "round": draw(st.sampled_from([None, "1", "adjudication"])),
        "blinded": draw(st.none() | st.booleans()),
        "lead_time_s": draw(st.sampled_from([None, 0.5, 12.25])),
        "created_at": created,
        "event_date": created.date(),
        "value": None,
        "label": None,
        "correction": None,
        "kind": "feedback",
    }
    shape = draw(st.sampled_from(["value", "label", "both", "correction", "pair", "discarded"]))
    if shape in ("value", "both"):
        fields["value"] = draw(numbers)
    if shape in ("label", "both"):
        fields["label"] = draw(words)
    if shape == "correction":
        fields |= {"correction": draw(messages), "kind": "correction", "value": draw(numbers)}
    if shape == "pair":
        label = draw(st.sampled_from(list(PREFERENCES)))
        fields |= {"interaction_id": None, "pair_ids": ("i1", "i2"), "kind": "preference"}
        fields |= {"label": label, "value": PREFERENCES[label]}
        fields["presented_order"] = draw(st.sampled_from([None, "AB", "BA"]))
    if shape == "discarded":
        fields["status"] = "discarded"
    return make_assessment(**fields)


def item_of(judgement: Assessment) -> Item:
    shown = (
        Message(role="assistant", content="Rest it."),
        Message(role="assistant", content="Go."),
    )
    return Item(
        name=judgement.name,
        interaction_id=judgement.interaction_id,
        pair_ids=judgement.pair_ids,
        messages=(Message(role="user", content="My knee hurts."),),
        responses=shown if judgement.pair_ids else shown[:1],
        presented_order=judgement.presented_order if judgement.pair_ids else None,
    )


def through(judgement: Assessment, tool: ToolName) -> list[JsonObject]:
    """The tool's records, as they are after they have been JSON."""
    records = tool_records(Judged(item=item_of(judgement), judgements=(judgement,)), tool)
    return [json.loads(json.dumps(record)) for record in records]


@pytest.mark.parametrize("tool", TOOLS)
@given(judgement=judgements())
@settings(max_examples=60)
def test_what_nobody_changed_comes_back_as_it_was(tool: ToolName, judgement: Assessment) -> None:
    rows = [row for record in through(judgement, tool) for row in read_record(record, tool)]
    (row,) = rows
    assert isinstance(row, dict), row
    assert parse_row(row, DEFAULTS) == judgement


@pytest.mark.parametrize("tool", TOOLS)
@given(judgement=judgements())
@settings(max_examples=60)
def test_the_tools_own_fields_alone_say_the_same(tool: ToolName, judgement: Assessment) -> None:
    """Without our note of the judgement: what a person in that tool sees and can change."""
    is_shown = judgement.label is not None or judgement.correction is not None
    if not is_shown or judgement.status == "discarded":
        return
    (record,) = through(judgement, tool)
    (row,) = read_record(without_judgements(record), tool)
    assert isinstance(row, dict), row
    read = parse_row(row, DEFAULTS)
    assert (read.interaction_id, read.pair_ids) == (judgement.interaction_id, judgement.pair_ids)
    assert (read.name, read.kind) == (judgement.name, judgement.kind)
    assert (read.label, read.rationale) == (judgement.label, judgement.rationale)
    assert read.correction == judgement.correction
    if judgement.source_id is not None and tool == "prodigy":
        assert read.source_id == judgement.source_id


def without_judgements(record: JsonObject) -> JsonObject:
    text = json.dumps(record)
    for place in ("metadata", "data", None):
        holder = record if place is None else record.get(place)
        if isinstance(holder, dict) and "flywheel" in holder:
            note = holder["flywheel"]
            note = json.loads(note) if isinstance(note, str) else note
            assert isinstance(note, dict)
            stripped = {k: v for k, v in note.items() if k != "judgements"}
            changed = {**holder, "flywheel": stripped}
            return changed if place is None else {**record, place: changed}
    raise AssertionError(text)


@given(judgement=judgements())
@settings(max_examples=60)
def test_our_own_rows_survive_a_spreadsheets_csv(
    judgement: Assessment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("own") / "labels.csv"
    text = "".join(csv_lines([row_of(judgement)]))
    path.write_text("\ufeff" + text, encoding="utf-8", newline="")
    (line,) = read_label_file(LabelFile(path=path))
    assert isinstance(line.row, dict), line.row
    assert parse_row(line.row, DEFAULTS) == judgement
    for cell in text.split("\r\n")[1].split(","):
        assert not cell.startswith(("=", "@", "+")), cell


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_imported_again_adds_nothing_and_loses_nothing(
    to: ExportFormat, lake: Lake, tmp_path: Path
) -> None:
    said = [
        make_assessment(assessment_id="1", interaction_id="i1", label="urgent", source_id="a"),
        make_assessment(assessment_id="2", interaction_id="i1", label="routine", source_id="b"),
        make_assessment(assessment_id="3", interaction_id="i2", value=0.25, source_id=None),
    ]
    lake.append(said)
    path = tmp_path / ("labels.json" if to in ("argilla", "label-studio") else f"labels.{to}")
    path = path.with_suffix(".jsonl") if to == "prodigy" else path
    groups = [said[:2], said[2:]]
    judged = [Judged(item=item_of(group[0]), judgements=tuple(group)) for group in groups]
    report = export_labels(judged, to, path)
    assert (report.items, report.judgements, report.lost) == (2, 3, {})
    assert report.files == (path,)
    again = import_labels(lake, path, DEFAULTS)
    assert (again.written, again.duplicates, again.quarantined) == (0, 3, 0), again.reasons


def test_what_a_format_cannot_carry_is_told_and_not_dropped_in_silence(tmp_path: Path) -> None:
    judge = make_assessment(
        interaction_id="i1",
        label="urgent",
        source_type="llm_judge",
        source_id="judge:x",
        judge_model="m",
        cost_usd=0.1,
    )
    rater = make_assessment(interaction_id=judge.interaction_id, value=0.25, source_id="dr")
    twice = rater.model_copy(update={"assessment_id": "other", "value": 0.5})
    one = Judged(item=item_of(judge), judgements=(judge, rater, twice))
    report = export_labels([one], "argilla", tmp_path / "out.json")
    # The judge's cost has no column; of one rater's two answers Argilla holds one.
    assert report.lost == {"judge_model": 1, "cost_usd": 1, "judgement": 1}
    assert report.only_in_note["value"] == 2  # a rating there is a whole number
    csv = export_labels([one], "csv", tmp_path / "out.csv")
    assert csv.lost == {"judge_model": 1, "cost_usd": 1}


def test_an_answer_changed_in_the_tool_is_a_new_judgement_by_the_same_rater() -> None:
    before = make_assessment(interaction_id="i1", label="routine", source_id="dr-a", round="1")
    (record,) = through(before, "argilla")
    record["responses"]["verdict"][0]["value"] = "urgent"  # type: ignore[index,call-overload]
    (row,) = read_record(record, "argilla")
    assert isinstance(row, dict)
    after = parse_row(row, DEFAULTS)
    assert (after.label, after.source_id, after.interaction_id) == ("urgent", "dr-a", "i1")
    assert after.assessment_id != before.assessment_id
