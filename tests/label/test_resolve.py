"""The pure function and the view say the same, and no crowd outvotes an expert in either."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.capture import Spool, drain
from flywheel.label.resolve import Resolved, resolve
from flywheel.lake import Lake
from flywheel.records import Assessment, Feedback, JudgeRun, Message, Qualification
from flywheel.testing import make_assessment, make_interaction, make_qualification

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def judged(minute: int = 0, /, **fields: object) -> Assessment:
    return make_assessment(
        **{"interaction_id": "i", "created_at": NOON + timedelta(minutes=minute), **fields}
    )


@st.composite
def assessments(draw: st.DrawFn) -> list[Assessment]:
    """Up to twelve judgements that collide in everything that matters."""
    found: list[Assessment] = []
    for index in range(draw(st.integers(0, 12))):
        pair = draw(st.sampled_from([None, None, ("i", "j"), ("j", "i")]))
        label = draw(st.sampled_from([None, "A", "b", "tie", "x"]))
        correction = draw(
            st.sampled_from(
                [None, None, " Rest.", "Rest. ", '{"a": 1}', '{ "a":1}', "1", "1.0", '"é"', "NaN"]
            )
        )
        status = draw(st.sampled_from(["submitted"] * 6 + ["discarded", "error"]))
        value = None if status == "error" else draw(st.sampled_from([None, 0.0, 1.0, 0.5]))
        found.append(
            judged(
                draw(st.integers(0, 4)),
                assessment_id=str(index),
                workload=draw(st.sampled_from(["triage", "triage", "coding"])),
                interaction_id=None if pair else draw(st.sampled_from(["i", "i", "j", None])),
                pair_ids=pair,
                name=draw(st.sampled_from(["urgency", "urgency", "tone"])),
                label=label,
                value=value,
                correction=Message(role="assistant", content=correction) if correction else None,
                source_type=draw(
                    st.sampled_from(["human", "human", "llm_judge", "end_user", "code"])
                ),
                source_id=draw(
                    st.sampled_from(["a", "b", None, "judge:u/m", "judge:u/n/o", "judge:v/m"])
                ),
                round=draw(st.sampled_from([None, None, "2", "adjudication"])),
                status=status,
                supersedes=draw(st.sampled_from([None, None, None, "0", "1", str(index)])),
                judge_run_id=draw(st.sampled_from([None, None, "valid", "open"])),
                judge_prompt_hash=draw(
                    st.sampled_from(["judge-hash", "judge-hash", "other-hash", "unknown", None])
                ),
            )
        )
    return found


@st.composite
def qualifications(draw: st.DrawFn) -> list[Qualification]:
    return [
        make_qualification(
            qualification_id=str(index),
            created_at=NOON + timedelta(minutes=(at := draw(st.integers(-3, 4)))),
            expires_at=NOON + timedelta(minutes=at + draw(st.integers(1, 6))),
            qualified=draw(st.sampled_from([True, True, False])),
            workload=draw(st.sampled_from(["triage", "triage", "coding"])),
            judge_hash=draw(st.sampled_from(["judge-hash", "other-hash"])),
        )
        for index in range(draw(st.integers(0, 4)))
    ]


def run(name: str, state: Literal["open", "valid"]) -> JudgeRun:
    """An entry of a run's ledger."""
    return JudgeRun(
        entry_id=f"{name} {state}", judge_run_id=name, workload="triage", created_at=NOON,
        judge="urgency", judge_hash="judge-hash", state=state, tasks=1, errors=0,
        max_error_share=0.1, calls=1, tokens=1, cost_usd=None, reason="as a test has it",
    )  # fmt: skip


def shown(one: Resolved) -> dict[str, object]:
    """What the view shows of it."""
    row = one.model_dump(exclude={"spoken"})
    return row | {"spoken": one.spoken.assessment_id if one.spoken else None}


@settings(max_examples=25)
@given(assessments(), qualifications())
def test_the_function_and_the_view_say_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    judgements: list[Assessment],
    standing: list[Qualification],
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    if judgements:
        lake.append(judgements)
    if standing:
        lake.append(standing)
    lake.append([run("valid", "open"), run("valid", "valid"), run("open", "open")])
    view = "SELECT * REPLACE (spoken.assessment_id AS spoken) FROM verdicts"
    rows: list[dict[str, object]] = lake.query(f"{view} ORDER BY workload, item, name").to_pylist()
    ours = [shown(one) for one in resolve(judgements, standing, {"valid"})]
    assert [{**row, "strength": pytest.approx(row["strength"])} for row in rows] == ours


def both(lake: Lake, *judgements: Assessment) -> list[tuple[object, ...]]:
    """Label, source and raters, by function and by view, which must be the same."""
    lake.append(judgements)
    rows = lake.query("SELECT label, value, label_source, raters FROM labels ORDER BY ALL")
    by_view = [tuple(row.values()) for row in rows.to_pylist()]
    by_function = sorted(
        (
            one.spoken.label if one.spoken else None,
            one.spoken.value if one.spoken else None,
            one.label_source,
            one.raters,
        )
        for one in resolve(judgements)
    )
    assert by_function == by_view
    return by_view


def test_a_thousand_thumbs_do_not_outvote_one_expert(lake: Lake) -> None:
    thumbs = [
        judged(10, source_type="end_user", source_id=f"user-{n}", label="up", value=1)
        for n in range(1000)
    ]
    assert both(lake, judged(0, label="down", value=0), *thumbs) == [("down", 0.0, "expert", 1)]


def test_thumbs_do_not_break_a_tie_of_experts(lake: Lake) -> None:
    thumbs = [judged(1, source_type="end_user", source_id=f"u{n}", label="x") for n in range(50)]
    experts = [judged(source_id="a", label="x"), judged(source_id="b", label="y")]
    assert both(lake, *experts, *thumbs) == [(None, None, "expert", 2)]


def test_the_members_of_a_qualified_panel_are_raters_of_one_tier(lake: Lake) -> None:
    """Two of three models say A: the panel's majority, agreement 2/3, strength .45 x 2/3 = .3."""
    panel = [
        judged(
            source_type="llm_judge",
            source_id=f"judge:helpful/model-{n}",
            judge_prompt_hash="judge-hash",
            interaction_id=None,
            pair_ids=("i", "j"),
            kind="preference",
            label=label,
        )
        for n, label in enumerate(["A", "A", "B"])
    ]
    lake.append([make_qualification()])
    lake.append(panel)
    (row,) = lake.query(
        "SELECT spoken.label AS label, raters, agreement, strength FROM verdicts"
    ).to_pylist()
    (ours,) = resolve(panel, [make_qualification()])
    assert (row["label"], row["raters"]) == ("A", 3)
    assert ours.spoken is not None
    assert (ours.spoken.label, ours.raters, ours.agreement) == ("A", 3, row["agreement"])
    assert ours.strength == pytest.approx(row["strength"]) == pytest.approx(0.3)


def test_an_old_version_of_a_judge_does_not_vote_beside_the_new_one(lake: Lake) -> None:
    """Two models said x as the judge was; one model says y as it is now; the hash tells them apart.

    The unchanged version of another judge, and other versions on another answer, stay.
    """
    old = {"source_type": "llm_judge", "judge_prompt_hash": "old"}
    new = {"source_type": "llm_judge", "judge_prompt_hash": "new"}
    said = [
        judged(1, label="x", source_id="judge:u/m", **old),
        judged(1, label="x", source_id="judge:u/n", **old),
        judged(2, label="y", source_id="judge:u/o", **new),
        judged(0, label="y", source_id="judge:v/m", **old),
        judged(1, interaction_id="j", label="x", source_id="judge:u/m", **old),
    ]
    standing = [
        make_qualification(qualification_id=name, judge_hash=name) for name in ("old", "new")
    ]
    lake.append(standing)
    lake.append(said)
    rows = lake.query("SELECT item, spoken.label AS label, raters FROM verdicts ORDER BY item")
    by_view = [tuple(row.values()) for row in rows.to_pylist()]
    ours = [
        (one.item, one.spoken and one.spoken.label, one.raters) for one in resolve(said, standing)
    ]
    assert ours == by_view == [("i", "y", 2), ("j", "x", 1)]


JUDGE = {
    "source_type": "llm_judge",
    "source_id": "judge:urgency/m",
    "judge_prompt_hash": "judge-hash",
}


@pytest.mark.parametrize(
    ("qualification", "counts"),
    [
        pytest.param({}, True, id="qualified"),
        pytest.param({"qualified": False}, False, id="measured and found wanting"),
        pytest.param({"judge_hash": "another"}, False, id="model, prompt or rubric changed"),
        pytest.param({"created_at": NOON + timedelta(hours=1)}, False, id="only afterwards"),
        pytest.param({"expires_at": NOON}, False, id="expired at that moment"),
        pytest.param({"workload": "coding"}, False, id="of another workload"),
    ],
)
def test_a_judge_counts_only_while_it_is_qualified(
    lake: Lake, qualification: dict[str, object], counts: bool
) -> None:
    standing = make_qualification(**qualification)
    lake.append([standing])
    one = judged(label="x", **JUDGE)
    lake.append([one])
    assert bool(lake.query("SELECT 1 FROM labels").num_rows) is counts
    assert bool(resolve([one], [standing])) is counts


def test_a_judgement_without_a_hash_is_no_qualified_judges(lake: Lake) -> None:
    """As a label file or POST /v1/feedback brings it: whoever writes it cannot claim a hash."""
    lake.append([make_qualification()])
    one = judged(label="x", source_type="llm_judge", source_id="judge:urgency/m")
    lake.append([one])
    assert lake.query("SELECT 1 FROM labels").num_rows == 0
    assert lake.query("SELECT 1 FROM submissions WHERE NOT is_qualified").num_rows == 1
    assert resolve([one], [make_qualification()]) == []


def test_labels_made_while_qualified_stay_when_the_judge_fails_later(lake: Lake) -> None:
    """What was trained on must not change under it; `flywheel label retract` takes them back."""
    lake.append(
        [
            make_qualification(qualification_id="1"),
            make_qualification(
                qualification_id="2", created_at=NOON + timedelta(hours=1), qualified=False
            ),
        ]
    )
    lake.append([judged(label="x", **JUDGE), judged(90, interaction_id="k", label="x", **JUDGE)])
    assert lake.query("SELECT interaction_id FROM labels").column(0).to_pylist() == ["i"]


def test_feedback_of_weeks_later_finds_its_answer(lake: Lake, tmp_path: Path) -> None:
    """Through the gateway's spool: the answer is drained in January, the thumb in March."""
    lake.append([make_interaction(interaction_id="i", started_at=NOON)])
    late = NOON + timedelta(weeks=8)
    with Spool(tmp_path / "spool") as spool:
        thumb = Feedback(interaction_id="i", name="urgency", value=0, created_at=late)
        spool.append("feedback", thumb)
    assert drain(tmp_path / "spool", lake).assessments == 1
    (row,) = lake.query(
        "SELECT value, label_source, started_at, last_at FROM responses WHERE interaction_id = 'i'"
    ).to_pylist()
    assert (row["value"], row["label_source"]) == (0.0, "end_user")
    assert row["last_at"] - row["started_at"] == timedelta(weeks=8)
