"""The resolved label of an interaction, worked by hand.

One answer is judged by several people, judges and programs. The strongest tier decides; inside it
more than half of the raters must agree; disagreement never becomes a label.
"""

from datetime import UTC, datetime, timedelta

import pytest

from flywheel.lake import Lake
from flywheel.records import Assessment, Message
from flywheel.testing import make_assessment, make_qualification

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
COLUMNS = [
    "workload",
    "interaction_id",
    "name",
    "label_source",
    "correction",
    "value",
    "label",
    "raters",
    "agreement",
    "strength",
    "first_at",
    "last_at",
]
Row = dict[str, object]


def judged(minute: int = 0, /, **fields: object) -> Assessment:
    return make_assessment(
        **{"interaction_id": "i", "created_at": NOON + timedelta(minutes=minute), **fields}
    )


def corrected(text: str) -> Message:
    return Message(role="assistant", content=text)


def resolved(lake: Lake, *assessments: Assessment) -> Row:
    """The one label these judgements resolve to."""
    lake.append([make_qualification()])
    lake.append(assessments)
    rows: list[Row] = lake.query("SELECT * FROM labels").to_pylist()
    assert len(rows) == 1
    return rows[0]


def test_columns_are_the_promised_ones(lake: Lake) -> None:
    assert lake.query("SELECT * FROM labels").column_names == COLUMNS


def test_one_correction_is_the_label_with_everything_about_it(lake: Lake) -> None:
    assert resolved(lake, judged(3, correction=corrected("Rest."), value=0, label="urgent")) == {
        "workload": "triage",
        "interaction_id": "i",
        "name": "urgency",
        "label_source": "expert",
        "correction": '{"role":"assistant","content":"Rest."}',
        "value": 0.0,
        "label": "urgent",
        "raters": 1,
        "agreement": 1.0,
        "strength": 0.9,
        "first_at": NOON + timedelta(minutes=3),
        "last_at": NOON + timedelta(minutes=3),
    }


def test_two_of_three_raters_make_the_label(lake: Lake) -> None:
    """2 of 3 agree: agreement 2/3, strength 2/3 x 0.9 = 0.6; the times span all three."""
    row = resolved(
        lake,
        judged(1, source_id="a", label="urgent"),
        judged(2, source_id="b", label="routine"),
        judged(3, source_id="c", label="urgent"),
    )
    assert (row["label"], row["raters"]) == ("urgent", 3)
    assert row["agreement"] == pytest.approx(2 / 3)
    assert row["strength"] == pytest.approx(0.6)
    assert (row["first_at"], row["last_at"]) == (
        NOON + timedelta(minutes=1),
        NOON + timedelta(minutes=3),
    )


@pytest.mark.parametrize(
    "answers", [["x", "y"], ["x", "y", "z"], ["x", "x", "y", "y"], ["x", "x", "y", "z"]]
)
def test_without_more_than_half_there_is_no_label(lake: Lake, answers: list[str]) -> None:
    row = resolved(
        lake,
        *(
            judged(source_id=f"rater-{index}", correction=corrected(answer), label=answer, value=1)
            for index, answer in enumerate(answers)
        ),
    )
    assert (row["correction"], row["label"], row["value"]) == (None, None, None)
    assert row["strength"] == 0
    assert row["raters"] == len(answers)
    assert row["agreement"] == answers.count("x") / len(answers)


@pytest.mark.parametrize("field", ["label", "value"])
def test_raters_agree_on_label_or_value_as_well(lake: Lake, field: str) -> None:
    values: list[object] = ["a", "b", "b"] if field == "label" else [0, 1, 1]
    row = resolved(
        lake, *(judged(source_id=f"r{i}", **{field: value}) for i, value in enumerate(values))
    )
    assert row[field] == values[1]


def test_a_correction_counts_before_the_label_beside_it(lake: Lake) -> None:
    """Both name another label, but the same answer: they agree on what should have been said."""
    row = resolved(
        lake,
        judged(1, source_id="a", correction=corrected("Rest."), label="x"),
        judged(2, source_id="b", correction=corrected("Rest."), label="y"),
    )
    assert row["agreement"] == 1.0
    assert row["label"] == "y", "the latest who agrees speaks for them"


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ("Rest.", " Rest.\n", True),
        ('{"urgency": "urgent"}', '{ "urgency":"urgent" }', True),
        ('{"urgency": "urgent"}', '{"urgency": "routine"}', False),
        ("Rest.", "rest.", False),
        ("1", "1 ", True),
    ],
)
def test_spacing_is_no_disagreement(lake: Lake, one: str, other: str, agree: bool) -> None:
    row = resolved(
        lake,
        judged(1, source_id="a", correction=corrected(one)),
        judged(2, source_id="b", correction=corrected(other)),
    )
    assert (row["correction"] is not None) is agree


def test_corrections_that_call_tools_are_compared_by_their_calls(lake: Lake) -> None:
    def calling(name: str) -> Message:
        return Message(
            role="assistant", content=None, tool_calls=[{"id": "1", "function": {"name": name}}]
        )

    row = resolved(
        lake,
        judged(1, source_id="a", correction=calling("f")),
        judged(2, source_id="b", correction=calling("g")),
        judged(3, source_id="c", correction=calling("f")),
    )
    assert '"name":"f"' in str(row["correction"])
    assert row["raters"] == 3


def test_a_raters_latest_judgement_replaces_the_earlier_ones(lake: Lake) -> None:
    """a says x, then y; b says y: y, unanimously. Had a counted twice, there would be 3 raters."""
    row = resolved(
        lake,
        judged(1, source_id="a", label="x"),
        judged(3, source_id="a", label="y"),
        judged(2, source_id="b", label="y"),
    )
    assert (row["label"], row["raters"], row["agreement"]) == ("y", 2, 1.0)
    assert row["first_at"] == NOON + timedelta(minutes=2)


def test_of_two_judgements_in_the_same_instant_the_greater_id_counts(lake: Lake) -> None:
    row = resolved(
        lake,
        judged(assessment_id="2", source_id="a", label="second"),
        judged(assessment_id="1", source_id="a", label="first"),
    )
    assert (row["label"], row["raters"]) == ("second", 1)


def test_judgements_without_a_source_are_one_unnamed_rater(lake: Lake) -> None:
    row = resolved(
        lake,
        judged(1, source_type="end_user", source_id=None, value=1),
        judged(2, source_type="end_user", source_id=None, value=0),
    )
    assert (row["value"], row["raters"]) == (0.0, 1)


# Of a judge that was qualified when it judged: make_qualification's.
JUDGE = {"source_type": "llm_judge", "judge_prompt_hash": "judge-hash"}
TIERS = [
    ("adjudicated", {"source_type": "human", "round": "adjudication"}, 1.0),
    ("expert", {"source_type": "human"}, 0.9),
    ("judge", JUDGE, 0.45),
    ("end_user", {"source_type": "end_user"}, 0.3),
    ("code", {"source_type": "code"}, 0.15),
]


@pytest.mark.parametrize("strongest", range(5))
def test_the_strongest_tier_decides_alone(lake: Lake, strongest: int) -> None:
    """However many and however late the weaker ones are."""
    name, fields, strength = TIERS[strongest]
    weaker = [
        judged(10 + index, source_id=f"weak-{index}", label="weak", **weak)
        for index in range(3)
        for _, weak, _ in TIERS[strongest + 1 :]
    ]
    row = resolved(lake, judged(0, source_id="strong", label="strong", **fields), *weaker)
    assert (row["label_source"], row["label"], row["raters"]) == (name, "strong", 1)
    assert row["strength"] == pytest.approx(strength)
    assert row["last_at"] == NOON


def test_a_split_in_the_strongest_tier_is_not_settled_by_a_weaker_one(lake: Lake) -> None:
    row = resolved(
        lake,
        judged(source_id="a", label="x"),
        judged(source_id="b", label="y"),
        judged(source_id="judge", label="x", **JUDGE),
    )
    assert (row["label_source"], row["label"], row["strength"]) == ("expert", None, 0)


def test_an_adjudication_settles_a_split(lake: Lake) -> None:
    row = resolved(
        lake,
        judged(1, source_id="a", label="x"),
        judged(2, source_id="b", label="y"),
        judged(3, source_id="a", label="y", round="adjudication"),
    )
    assert (row["label_source"], row["label"], row["raters"]) == ("adjudicated", "y", 1)


def test_only_a_human_adjudicates(lake: Lake) -> None:
    row = resolved(
        lake,
        judged(source_id="j", label="x", round="adjudication", **JUDGE),
        judged(source_id="a", label="y"),
    )
    assert (row["label_source"], row["label"]) == ("expert", "y")


def test_a_unanimous_expert_is_stronger_than_a_majority_than_a_judge() -> None:
    """The weights keep DESIGN's order: 0.9 > 0.9 x (just over 1/2) >= 0.45 > 0.3 > 0.15."""
    weights = [strength for _, _, strength in TIERS]
    assert weights[1] * 0.5 >= weights[2]
    assert weights == sorted(weights, reverse=True)


def test_a_superseded_judgement_does_not_count(lake: Lake) -> None:
    row = resolved(
        lake,
        judged(1, assessment_id="wrong", source_id="a", label="x"),
        judged(2, assessment_id="right", source_id="b", label="y", supersedes="wrong"),
    )
    assert (row["label"], row["raters"]) == ("y", 1)


def test_a_superseded_judgement_does_not_come_back_with_its_successors_successor(
    lake: Lake,
) -> None:
    row = resolved(
        lake,
        judged(1, assessment_id="1", source_id="a", label="x"),
        judged(2, assessment_id="2", source_id="b", label="y", supersedes="1"),
        judged(3, assessment_id="3", source_id="c", label="z", supersedes="2"),
    )
    assert (row["label"], row["raters"]) == ("z", 1)


def test_a_superseding_judgement_that_is_discarded_withdraws_the_first(lake: Lake) -> None:
    lake.append(
        [
            judged(1, assessment_id="1", label="x"),
            judged(2, assessment_id="2", status="discarded", supersedes="1"),
        ]
    )
    assert lake.query("SELECT * FROM labels").num_rows == 0


def test_a_failed_rerun_does_not_take_back_the_judgement_it_would_have_replaced(
    lake: Lake,
) -> None:
    judge = {"source_id": "judge", **JUDGE}
    row = resolved(
        lake,
        judged(1, assessment_id="1", value=1, **judge),
        judged(2, assessment_id="2", status="error", error_type="t", supersedes="1", **judge),
    )
    assert row["value"] == 1


def test_a_superseded_judgement_of_another_workload_stays(lake: Lake) -> None:
    lake.append(
        [
            judged(assessment_id="1", label="x"),
            judged(assessment_id="2", workload="coding", label="y", supersedes="1"),
        ]
    )
    assert lake.query("SELECT workload FROM labels ORDER BY 1").column(0).to_pylist() == [
        "coding",
        "triage",
    ]


@pytest.mark.parametrize(
    "silent",
    [
        {"status": "discarded", "label": "x"},
        {"status": "error", "error_type": "timeout"},
        {"rationale": "hm"},
        {"interaction_id": None, "conversation_id": "c", "label": "x"},
    ],
)
def test_what_says_nothing_about_an_answer_makes_no_label(
    lake: Lake, silent: dict[str, object]
) -> None:
    lake.append([judged(**silent)])
    assert lake.query("SELECT * FROM labels").num_rows == 0


def test_a_failed_judge_leaves_the_tier_to_those_that_answered(lake: Lake) -> None:
    row = resolved(
        lake,
        judged(source_id="j", status="error", error_type="timeout", **JUDGE),
        judged(source_type="end_user", source_id="u", value=1),
    )
    assert (row["label_source"], row["value"]) == ("end_user", 1)


def test_each_question_of_each_answer_has_a_label_of_its_own(lake: Lake) -> None:
    lake.append(
        [
            judged(interaction_id="1", name="urgency", label="x"),
            judged(interaction_id="1", name="helpful", value=0),
            judged(interaction_id="2", name="urgency", label="y"),
            judged(interaction_id="2", name="urgency", label="z", workload="coding"),
        ]
    )
    rows = lake.query(
        "SELECT workload, interaction_id, name, value, label FROM labels ORDER BY ALL"
    )
    assert [tuple(row.values()) for row in rows.to_pylist()] == [
        ("coding", "2", "urgency", None, "z"),
        ("triage", "1", "helpful", 0.0, None),
        ("triage", "1", "urgency", None, "x"),
        ("triage", "2", "urgency", None, "y"),
    ]


def test_a_judgement_may_arrive_before_the_answer_it_judges(lake: Lake) -> None:
    assert (
        resolved(lake, judged(interaction_id="not yet", label="x"))["interaction_id"] == "not yet"
    )


def test_labels_are_as_they_were_at_a_pinned_version(lake: Lake) -> None:
    lake.append([judged(1, source_id="a", label="x")])
    pinned = lake.versions()
    lake.append([judged(2, source_id="a", label="y")])
    then = lake.query("SELECT label FROM labels", versions=pinned)
    now = lake.query("SELECT label FROM labels")
    assert (then.column(0).to_pylist(), now.column(0).to_pylist()) == (["x"], ["y"])
