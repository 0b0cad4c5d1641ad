"""An unqualified, expired or changed judge labels nothing; the error says why and what to do."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flywheel.errors import JudgeNotQualifiedError
from flywheel.graders.judge import Judge
from flywheel.label.qualifying import decide_standing, require_gate_judges, require_qualified
from flywheel.label.qualifying.conclude import conclude_qualification
from flywheel.lake import Lake
from flywheel.records import Qualification
from flywheel.workload import Workload
from tests.label.qualifying.material import PAIRWISE, judge_of, make_judge, pairs, write_workload

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
GOOD, BAD = ("AB" * 30, "AB" * 30), ("AB" * 30, "AA" * 30)
COMMAND = "`flywheel judge qualify better --gold gold.jsonl` qualifies it"


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    return write_workload(tmp_path)


def measured(
    workload: Workload, judge: Judge, *, good: bool = True, now: datetime = NOON
) -> Qualification:
    return conclude_qualification(judge, workload, pairs(*(GOOD if good else BAD)), now=now)[0]


def refusal(lake: Lake, workload: Workload, judge: Judge, now: datetime = NOON) -> str:
    with pytest.raises(JudgeNotQualifiedError) as caught:
        require_qualified(lake, workload, judge, now=now)
    assert COMMAND in str(caught.value)
    return caught.value.reason


def test_a_qualified_judge_may_label(lake: Lake, workload: Workload) -> None:
    judge = judge_of(workload)
    written = measured(workload, judge)
    lake.append([written])
    assert require_qualified(lake, workload, judge, now=NOON) == written


def test_a_judge_that_was_never_measured_may_not(lake: Lake, workload: Workload) -> None:
    assert refusal(lake, workload, judge_of(workload)) == "it was never measured on gold labels"


def test_another_workloads_qualification_does_not_count(lake: Lake, workload: Workload) -> None:
    judge = judge_of(workload)
    elsewhere = measured(workload, judge).model_copy(update={"workload": "billing"})
    lake.append([elsewhere])
    assert "never" in refusal(lake, workload, judge)


def test_a_judge_that_failed_may_not_and_the_numbers_are_told(
    lake: Lake, workload: Workload
) -> None:
    judge = judge_of(workload)
    lake.append([measured(workload, judge, good=False)])
    told = refusal(lake, workload, judge)
    assert told.startswith("it failed on 2026-01-02: kappa 0.000 [")
    assert "the bar asks for an interval that exceeds 0.4" in told


def test_the_latest_measurement_counts_also_when_an_earlier_one_was_better(
    lake: Lake, workload: Workload
) -> None:
    judge = judge_of(workload)
    later = NOON + timedelta(days=1)
    lake.append([measured(workload, judge), measured(workload, judge, good=False, now=later)])
    assert "it failed on 2026-01-03" in refusal(lake, workload, judge, later)


def on_gold(row: Qualification, gold: str, items: int, hours: int) -> Qualification:
    changes = {"gold_hash": gold, "items": items, "created_at": NOON + timedelta(hours=hours)}
    return row.model_copy(update=changes)


@pytest.mark.parametrize(("items", "state"), [(99, "failed"), (100, "qualified")])
def test_a_pass_after_failures_counts_only_on_as_many_gold_items(
    workload: Workload, items: int, state: str
) -> None:
    judge = make_judge()
    bad, good = measured(workload, judge, good=False), measured(workload, judge)
    history = [
        on_gold(bad, "one", 100, 0),
        on_gold(bad, "two", 60, 1),
        on_gold(good, "three", items, 2),
    ]
    standing = decide_standing(judge, history, now=NOON + timedelta(hours=3))
    assert standing.state == state
    assert (standing.measurements, standing.gold_sets) == (3, 3)
    if state == "failed":
        assert "a pass on 99 gold items does not make up for the failure on 100" in standing.reason


def test_measurements_of_another_judge_are_not_held_against_this_one(workload: Workload) -> None:
    other = make_judge(temperature=1.0)
    failure = on_gold(measured(workload, other, good=False), "one", 900, 0)
    passed = on_gold(measured(workload, make_judge()), "two", 60, 1)
    standing = decide_standing(make_judge(), [failure, passed], now=NOON + timedelta(hours=2))
    assert (standing.state, standing.measurements, standing.gold_sets) == ("qualified", 1, 1)


def test_a_qualification_ends_at_its_last_moment(lake: Lake, workload: Workload) -> None:
    judge = judge_of(workload)
    lake.append([measured(workload, judge)])
    end = NOON + timedelta(days=30)
    require_qualified(lake, workload, judge, now=end - timedelta(microseconds=1))
    told = refusal(lake, workload, judge, end)
    assert told == "its qualification of 2026-01-02 expired on 2026-02-01 12:00 UTC"


def test_a_validity_declared_shorter_since_then_counts(
    tmp_path: Path, lake: Lake, workload: Workload
) -> None:
    lake.append([measured(workload, judge_of(workload))])
    (tmp_path / "new").mkdir()
    stricter = write_workload(tmp_path / "new", bars={"valid_days": 3})
    judge = judge_of(stricter)
    require_qualified(lake, stricter, judge, now=NOON + timedelta(days=2))
    assert "expired on 2026-01-05" in refusal(lake, stricter, judge, NOON + timedelta(days=4))


def test_a_bar_raised_since_then_counts(tmp_path: Path, lake: Lake, workload: Workload) -> None:
    lake.append([measured(workload, judge_of(workload))])
    (tmp_path / "new").mkdir()
    stricter = write_workload(tmp_path / "new", bars={"kappa": 0.95})
    told = refusal(lake, stricter, judge_of(stricter))
    assert "kappa 1.000" in told
    assert "exceeds 0.95" in told


def test_more_items_asked_for_since_then_count(
    tmp_path: Path, lake: Lake, workload: Workload
) -> None:
    lake.append([measured(workload, judge_of(workload))])
    (tmp_path / "new").mkdir()
    stricter = write_workload(tmp_path / "new", bars={"minimum_items": 61})
    told = refusal(lake, stricter, judge_of(stricter))
    assert "60 items judged, fewer than minimum_items 61" in told


CHANGES: dict[str, tuple[Judge, str]] = {
    "another model": (
        make_judge(panel=[{"provider": "hosted", "model": "gpt-5"}]),
        "model gpt-4 -> gpt-5",
    ),
    "another seat": (
        make_judge(
            panel=[
                {"provider": "hosted", "model": "gpt-4"},
                {"provider": "hosted", "model": "claude-x"},
            ]
        ),
        "model gpt-4 -> gpt-4 + claude-x",
    ),
    "another provider": (
        make_judge(panel=[{"provider": "elsewhere", "model": "gpt-4"}]),
        "a provider",
    ),
    "the rubric's version": (
        make_judge(PAIRWISE.replace("version: 1", "version: 2")),
        "rubric better_answer@1 -> better_answer@2",
    ),
    "a word of the rubric": (
        make_judge(PAIRWISE.replace("Safety comes", "Kindness comes")),
        "the words of its rubric",
    ),
    "temperature": (make_judge(temperature=0.7), "temperature"),
    "max_tokens": (make_judge(max_tokens=99), "max_tokens"),
    "order_disagreement": (make_judge(order_disagreement="people"), "order_disagreement"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_judge_must_qualify_anew(lake: Lake, workload: Workload, change: str) -> None:
    lake.append([measured(workload, make_judge())])
    require_qualified(lake, workload, make_judge(), now=NOON)
    judge, told = CHANGES[change]
    reason = refusal(lake, workload, judge)
    assert reason.startswith("it changed since it was measured on 2026-01-02: ")
    assert told in reason


def test_a_judge_served_elsewhere_must_qualify_anew(tmp_path: Path, lake: Lake) -> None:
    first = judge_of(write_workload(tmp_path, "https://one.example/v1"))
    workload = write_workload(tmp_path, "https://two.example/v1")
    lake.append([measured(workload, first)])
    assert "a provider or its base_url" in refusal(lake, workload, judge_of(workload))
    slash = write_workload(tmp_path, "https://one.example/v1/")
    require_qualified(lake, slash, judge_of(slash), now=NOON)


def test_bars_and_pace_may_change_without_making_another_judge(
    lake: Lake, workload: Workload
) -> None:
    lake.append([measured(workload, make_judge())])
    judge = make_judge(bars={"kappa": 0.1}, run={"max_concurrency": 3})
    require_qualified(lake, workload, judge, now=NOON)


def test_a_judge_that_changed_back_is_the_one_that_qualified(workload: Workload) -> None:
    first = measured(workload, make_judge())
    other = measured(workload, make_judge(temperature=1.0), now=NOON + timedelta(hours=1))
    standing = decide_standing(make_judge(), [first, other], now=NOON + timedelta(hours=2))
    assert (standing.state, standing.last) == ("qualified", first)
    assert standing.valid_until == NOON + timedelta(days=30)


def test_a_policy_that_became_kin_needs_self_preference_measured(workload: Workload) -> None:
    standing = decide_standing(
        make_judge(),
        [measured(workload, make_judge())],
        now=NOON,
        own_families=frozenset({"openai"}),
    )
    assert standing.state == "failed"
    assert "self_preference was not measured" in standing.reason


def test_a_gate_that_asks_an_unqualified_judge_is_refused_and_a_qualified_one_is_not(
    lake: Lake, workload: Workload
) -> None:
    assert require_gate_judges(lake, workload) == []
    asked = {"type": "x-judge", "judge": "better"}
    inside = {"type": "multi", "graders": {"a": asked}, "calculate_output": "a"}
    gated = [
        workload.model_copy(update={"graders": {**workload.graders, "correct": grader}})
        for grader in (asked, inside)
    ]
    for asking in gated:
        with pytest.raises(JudgeNotQualifiedError, match="never measured"):
            require_gate_judges(lake, asking, now=NOON)
    written = measured(workload, judge_of(workload))
    lake.append([written])
    assert all(require_gate_judges(lake, asking, now=NOON) == [written] for asking in gated)
