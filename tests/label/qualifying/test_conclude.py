"""Qualified, or not and why."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flywheel.errors import JudgeError
from flywheel.graders.judge import Judge
from flywheel.label.qualifying import check_gold, conclude_qualification
from flywheel.records import Qualification
from flywheel.workload import Workload
from tests.label.qualifying.material import make_judge, pair, pairs, said, write_workload

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    return write_workload(tmp_path)


def conclude(workload: Workload, gold: str, said: str, judge: Judge | None = None) -> Qualification:
    verdicts = pairs(gold, said)
    return conclude_qualification(judge or make_judge(), workload, verdicts, now=NOON)[0]


def test_a_good_judge_qualifies(workload: Workload) -> None:
    found = conclude(workload, "AB" * 30, "AB" * 29 + "AA")
    assert (found.qualified, found.reasons) == (True, ())
    assert [measure.name for measure in found.measures] == [
        "kappa",
        "swap_consistency",
        "length_bias",
    ]
    assert (found.items, found.errors, found.judge_model) == (60, 0, "gpt-4")
    assert (found.rubric, found.expires_at) == ("better_answer@1", NOON + timedelta(days=30))
    assert found.judge_hash == make_judge().identity


def test_a_pass_on_less_gold_than_a_failure_is_written_as_none(workload: Workload) -> None:
    verdicts = pairs("AB" * 30, "AB" * 30)
    failure = conclude(workload, "AB" * 30, "AA" * 30)
    for items, is_qualified in ((61, False), (60, True)):
        before = failure.model_copy(update={"items": items})
        found, _ = conclude_qualification(
            make_judge(), workload, verdicts, now=NOON, history=[before]
        )
        assert found.qualified is is_qualified
        assert ("does not make up for the failure on 61" in " ".join(found.reasons)) is (
            not is_qualified
        )


def test_every_missed_bar_is_a_reason(workload: Workload) -> None:
    verdicts = [
        said(pair(n, "AB"[n % 2], longer="A"), "A", orders=("A", "AB"[n // 30])) for n in range(60)
    ]
    found, _ = conclude_qualification(make_judge(), workload, verdicts, now=NOON)
    assert not found.qualified
    assert [reason.split(" ")[0] for reason in found.reasons] == [
        "kappa",
        "swap_consistency",
        "length_bias",
    ]


def test_kappa_that_is_not_defined_disqualifies_with_its_reason(workload: Workload) -> None:
    found = conclude(workload, "A" * 60, "A" * 60)
    assert found.measures[0].value is None
    assert not found.qualified
    assert "kappa could not be measured (every gold label is 'A'" in found.reasons[0]


def test_failures_are_counted_and_are_neither_right_nor_wrong(workload: Workload) -> None:
    """3 of 60 are 5 %, which max_error_share allows; kappa is of the 57 others."""
    found = conclude(workload, "AB" * 30, "AB" * 28 + "Axxx")
    assert (found.items, found.errors, found.qualified) == (60, 3, True)
    assert (found.measures[0].value, found.measures[0].n) == (1.0, 57)


def test_too_many_failures_disqualify_a_judge_that_is_right_otherwise(workload: Workload) -> None:
    found = conclude(workload, "AB" * 30, "AB" * 28 + "xxxx")
    assert not found.qualified
    assert found.reasons == (
        "it failed on 4 of 60 items (judge_garbage 4), more than run.max_error_share 0.05",
    )


def test_failures_may_leave_too_few_items(workload: Workload) -> None:
    found = conclude(
        workload, "AB" * 26, "AB" * 24 + "Axxx", make_judge(run={"max_error_share": 0.5})
    )
    assert found.reasons == ("49 items judged, fewer than minimum_items 50",)


def test_a_judge_that_never_answers_is_not_qualified(workload: Workload) -> None:
    found = conclude(workload, "AB" * 30, "x" * 60)
    assert (found.errors, found.qualified) == (60, False)
    assert all(measure.value is None for measure in found.measures)


def test_self_preference_is_measured_only_of_kin(tmp_path: Path, workload: Workload) -> None:
    other = make_judge(panel=[{"provider": "hosted", "model": "smollm3", "family": "HuggingFace"}])
    families = [["huggingface"], ["openai"]]
    verdicts = [said(pair(n, "AB"[n % 2], families=families), "AB"[n % 2]) for n in range(60)]
    kin, _ = conclude_qualification(other, workload, verdicts, now=NOON)
    stranger, _ = conclude_qualification(make_judge(), workload, verdicts, now=NOON)
    assert kin.measures[-1].name == "self_preference"
    assert kin.measures[-1].value == 0
    assert stranger.measures[-1].name == "length_bias"


def test_an_abstaining_judge_does_not_qualify_by_the_little_it_says(workload: Workload) -> None:
    """Where orders disagree it says `cannot_judge`: consistent with no gold label."""
    verdicts = [said(pair(n, "AB"[n % 2]), "cannot_judge", orders=("A", "B")) for n in range(50)]
    verdicts += pairs("AB" * 25, "AB" * 25)
    found, _ = conclude_qualification(make_judge(), workload, verdicts, now=NOON)
    assert not found.qualified
    assert found.measures[0].value is not None
    assert found.measures[0].value < 0.4


def test_the_same_measurement_has_the_same_id(workload: Workload) -> None:
    one = conclude(workload, "AB" * 30, "AB" * 30)
    assert one == conclude(workload, "AB" * 30, "AB" * 30)
    later, _ = conclude_qualification(
        make_judge(), workload, pairs("AB" * 30, "AB" * 30), now=NOON + timedelta(seconds=1)
    )
    assert later.qualification_id != one.qualification_id


def test_too_few_gold_items_are_refused_before_anything_is_paid() -> None:
    gold = [pair(n, "AB"[n % 2]) for n in range(49)]
    with pytest.raises(JudgeError, match="49 gold items: judges.better.bars.minimum_items asks"):
        check_gold(make_judge(), gold)
    check_gold(make_judge(), [*gold, pair(49, "A")])


def test_gold_of_one_class_is_refused_before_anything_is_paid() -> None:
    with pytest.raises(JudgeError, match="every gold label of better is 'A'"):
        check_gold(make_judge(), [pair(n, "A") for n in range(60)])
