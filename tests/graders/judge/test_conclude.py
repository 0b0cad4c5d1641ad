"""Replies become rows; a failed judgement is a row without a value, never a zero."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flywheel.graders.judge import Judge, JudgeReply, JudgeTask, conclude, load_rubric, plan_calls
from flywheel.judges import JudgeSection
from flywheel.lake import Lake
from flywheel.records import Assessment
from flywheel.testing import make_qualification
from tests.graders.judge.conftest import PAIRWISE, RUBRICS, grades, make_judge, make_task

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


def rows_of(judge: Judge, task: JudgeTask, *texts: str | None, **options: str) -> list[Assessment]:
    """The rows of a task, its calls answered in order; None is an endpoint that stayed away."""
    replies = {
        call.key: JudgeReply(
            key=call.key,
            text=text,
            error_type=None if text is not None else "judge_unavailable",
            error_message=None if text is not None else "not there",
            input_tokens=10,
            output_tokens=5,
            cost_usd=0.01,
        )
        for call, text in zip(plan_calls(judge, task), texts, strict=True)
    }
    return conclude(judge, task, replies, now=NOW, run=options.get("run"))


def test_one_criterion_is_one_row_that_says_who_judged_by_what() -> None:
    judge = make_judge()
    (row,) = rows_of(judge, make_task(subject_key="s", inclusion_prob=0.25), grades(score="7"))
    assert (row.name, row.kind, row.label, row.value) == ("helpful", "feedback", "7", 7.0)
    assert (row.interaction_id, row.pair_ids) == ("i-1", None)
    assert (row.source_type, row.source_id) == ("llm_judge", "judge:helpful/j")
    assert (row.rubric, row.judge_model) == ("helpful@3", "j")
    assert row.judge_prompt_hash == judge.identity
    assert (row.input_tokens, row.output_tokens, row.cost_usd) == (10, 5, 0.01)
    assert (row.subject_key, row.inclusion_prob, row.rationale) == ("s", 0.25, "Because.")


def test_several_criteria_have_their_mean_and_a_row_each_and_are_paid_for_once() -> None:
    """safe is worth 1, complete "1" is worth 0.5: the mean is 0.75."""
    section = {"rubric": "r.md", "panel": [{"provider": "p", "model": "j"}]}
    judge = Judge(
        "advice",
        JudgeSection.model_validate(section),
        load_rubric(RUBRICS / "safe_advice.md"),
    )
    rows = rows_of(judge, make_task(), grades(safe="safe", complete="1"))
    assert [(row.name, row.label, row.value) for row in rows] == [
        ("advice", None, 0.75),
        ("advice.safe", "safe", 1.0),
        ("advice.complete", "1", 0.5),
    ]
    assert [row.cost_usd for row in rows] == [0.01, None, None]


def test_a_failure_is_a_row_without_a_value() -> None:
    (row,) = rows_of(make_judge(), make_task(), None)
    assert (row.status, row.value, row.label) == ("error", None, None)
    assert (row.error_type, row.rationale) == ("judge_unavailable", "not there")


def test_a_reply_that_is_no_verdict_is_a_row_without_a_value() -> None:
    """A cache may hold anything: what it gives is read as strictly as what an endpoint gives."""
    (row,) = rows_of(make_judge(), make_task(), "7, I think")
    assert (row.status, row.value, row.error_type) == ("error", None, "judge_garbage")


@pytest.mark.parametrize(
    ("ab", "ba", "policy", "label", "value", "agree"),
    [
        ("A", "B", "tie", "A", 1.0, True),  # both orders say the task's A
        ("B", "A", "tie", "B", 0.0, True),
        ("A", "A", "tie", "tie", 0.5, False),  # always the first shown
        ("A", "A", "people", "cannot_judge", None, False),
        ("A", "tie", "tie", "tie", 0.5, False),
        ("A", "tie", "people", "cannot_judge", None, False),
        ("tie", "tie", "people", "tie", 0.5, True),
        ("tie", "both_bad", "people", "tie", 0.5, True),
        ("both_bad", "both_bad", "tie", "both_bad", 0.5, True),
        ("cannot_judge", "A", "tie", "cannot_judge", None, True),
    ],
)
def test_both_orders_make_one_preference(
    ab: str, ba: str, policy: str, label: str, value: float | None, agree: bool
) -> None:
    judge = make_judge(PAIRWISE, order_disagreement=policy)
    rows = rows_of(judge, make_task("first", "second"), grades(better=ab), grades(better=ba))
    assert [(row.name, row.presented_order) for row in rows] == [
        ("better", "both"), ("better:AB", "AB"), ("better:BA", "BA")
    ]  # fmt: skip
    both = rows[0]
    assert (both.kind, both.pair_ids, both.interaction_id) == ("preference", ("i-a", "i-b"), None)
    assert (both.label, both.value) == (label, value)
    assert both.covariates["orders_agree"] is agree
    assert ("orders disagree" in str(both.rationale)) is not agree
    assert [row.cost_usd for row in rows] == [None, 0.01, 0.01]


def test_one_order_alone_is_no_preference() -> None:
    judge = make_judge(PAIRWISE)
    rows = rows_of(judge, make_task("first", "second"), grades(better="A"), None)
    assert [(row.name, row.status, row.label) for row in rows] == [
        ("better", "error", None),
        ("better:AB", "submitted", "A"),
        ("better:BA", "error", None),
    ]


def test_the_same_judgement_has_the_same_id_and_a_failed_one_that_of_its_attempt() -> None:
    judge, task = make_judge(), make_task()
    first, again = rows_of(judge, task, grades(score="7")), rows_of(judge, task, grades(score="3"))
    assert first[0].assessment_id == again[0].assessment_id
    failed = [rows_of(judge, task, None, run=run)[0].assessment_id for run in ("1", "1", "2")]
    assert failed[0] == failed[1] != failed[2]
    assert first[0].assessment_id not in failed


def test_another_model_prompt_rubric_or_sampling_is_another_judge() -> None:
    plain = make_judge()
    others = [
        make_judge(models=["k"]),
        make_judge(models=["j", "k"]),
        make_judge(temperature=0.5),
        make_judge(max_tokens=64),
        make_judge(order_disagreement="people"),
        Judge("helpful", plain.section, plain.rubric.model_copy(update={"text": "x {{response}}"})),
        Judge("helpful", plain.section, plain.rubric.model_copy(update={"version": 4})),
        Judge("helpful", plain.section, plain.rubric, ("https://one.example/v1",)),
        Judge("helpful", plain.section, plain.rubric, ("https://two.example/v1",)),
    ]
    assert len({plain.identity, *(other.identity for other in others)}) == len(others) + 1
    assert Judge("renamed", plain.section, plain.rubric).identity == plain.identity


def test_a_reply_is_not_taken_for_that_of_a_model_served_elsewhere() -> None:
    plain = make_judge()
    judges = [Judge("helpful", plain.section, plain.rubric, (url,)) for url in ("a", "b", None)]
    assert len({plan_calls(judge, make_task())[0].key for judge in judges}) == 3


def test_a_panels_majority_is_the_label_in_sql(tmp_path: Path) -> None:
    judge = make_judge(models=["j1", "j2", "j3"])
    rows = rows_of(judge, make_task(), grades(score="7"), grades(score="2"), grades(score=7))
    lake = Lake(str(tmp_path / "lake"))
    lake.append(rows)
    lake.append(rows)
    assert lake.query("select * from labels").num_rows == 0, "nobody measured this judge"
    lake.append([make_qualification(judge=judge.name, judge_hash=judge.identity)])
    found = lake.query("select label, value, raters, agreement from labels").to_pylist()
    assert found == [{"label": "7", "value": 7.0, "raters": 3, "agreement": pytest.approx(2 / 3)}]


def test_order_swaps_and_covariates_are_plain_sql(tmp_path: Path) -> None:
    judge = make_judge(PAIRWISE)
    task = make_task("A short one.", "# Long\n\n- with\n- a list")
    lake = Lake(str(tmp_path / "lake"))
    lake.append(rows_of(judge, task, grades(better="B"), grades(better="B")))
    found = lake.query(
        "select (covariates ->> '$.response_b.characters')::int"
        "  - (covariates ->> '$.response_a.characters')::int as longer,"
        " covariates ->> '$.response_b.has_list' as b_list,"
        " covariates ->> '$.orders_agree' as agree from assessments where name = 'better'"
    ).to_pylist()
    assert found == [{"longer": 11, "b_list": "true", "agree": "false"}]


def test_a_judgement_that_is_repeated_later_adds_nothing(tmp_path: Path) -> None:
    judge, task = make_judge(), make_task()
    lake = Lake(str(tmp_path / "lake"))
    (row,) = rows_of(judge, task, grades(score="7"))
    lake.append([row])
    lake.append([row.model_copy(update={"created_at": NOW + timedelta(days=1)})])
    assert lake.query("select count(*) as n from assessments").column("n")[0].as_py() == 1


def test_a_days_cost_counts_calls_and_not_the_rows_made_of_them(tmp_path: Path) -> None:
    judge = make_judge(PAIRWISE)
    lake = Lake(str(tmp_path / "lake"))
    lake.append(rows_of(judge, make_task("first", "second"), grades(better="A"), None))
    (row,) = lake.query("select * from cost_daily").to_pylist()
    assert (row["activity"], row["calls"], row["errors"]) == ("judging", 2, 1)
    assert (row["input_tokens"], row["cost_usd"]) == (20, pytest.approx(0.02))
