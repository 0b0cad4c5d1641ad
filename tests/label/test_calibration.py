"""Calibrated means: against the authors' package, by coverage, and where little is known."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flywheel.errors import CalibrationError
from flywheel.label.calibrating import calibrate
from flywheel.label.calibration import CalibratedMean, ppi_mean
from flywheel.lake import Lake
from flywheel.records import Assessment, JudgeRun, Message
from flywheel.testing import make_assessment

PEER = json.loads((Path(__file__).parent / "ppi_peer.json").read_text())["sets"]
Z = 1.959964
Floats = NDArray[np.float64]


@pytest.mark.parametrize("one", PEER)
def test_the_estimate_is_that_of_the_papers_package(one: dict[str, list[float]]) -> None:
    found = ppi_mean(
        one["labels"], one["judge_labelled"], one["judge_unlabelled"], population="process"
    )
    assert found.estimate.mean == pytest.approx(one["estimate"], abs=1e-3)


@pytest.mark.parametrize("one", PEER)
def test_the_interval_is_the_packages_with_students_quantile(one: dict[str, list[float]]) -> None:
    """Theirs is normal and fits lambda for free: of 40 and 60 labels t is 3 to 6 % wider.

    Of the second set's 30 labels its judge, nearly perfect there, is held to one more mistake.
    """
    found = ppi_mean(
        one["labels"], one["judge_labelled"], one["judge_unlabelled"], population="process"
    )
    theirs = float(one["high"]) - float(one["low"])  # type: ignore[arg-type]
    assert 1.0 < (found.estimate.high - found.estimate.low) / theirs < 1.15


def test_worked_by_hand() -> None:
    """Four labels of eight: labels 1 0 1 0, judge 1 0 0 1 there and 1 1 1 0 elsewhere.

    The judge is no better than a coin there: covariance 0, lambda 0, and so the labels' own mean.
    With fewer than five labels apart from the most frequent one it would be 0 anyway.
    """
    found = ppi_mean([1, 0, 1, 0], [1, 0, 0, 1], [1, 1, 1, 0])
    assert (found.lam, found.estimate.mean, found.judge_only) == (0.0, 0.5, 5 / 8)
    assert found.estimate == found.labels_only


def test_a_judge_without_a_mistake_on_the_slice_is_not_taken_for_perfect() -> None:
    """Labels equal judgements and slice and rest are alike: lambda is 1 / (1 + 20/80) = .8.

    Its mean, .7, is the estimate. One mistake in 22 is allowed for: variance
    20/18 x (1/22) / 20 x (1 - 20/100) = .00202, t(.975, 18) = 2.101, so .7 -+ .0944.
    """
    labels = [1.0] * 14 + [0.0] * 6
    found = ppi_mean(labels, labels, [1.0] * 56 + [0.0] * 24)
    assert found.lam == pytest.approx(0.8)
    assert found.estimate.mean == pytest.approx(0.7)
    assert found.estimate.high - found.estimate.mean == pytest.approx(0.0944, abs=1e-4)


def test_a_judge_that_contradicts_is_not_leaned_on() -> None:
    labels = [1.0, 0.0] * 10
    found = ppi_mean(labels, [1 - label for label in labels], [1.0] * 80)
    assert (found.lam, found.estimate) == (0.0, found.labels_only)


@pytest.mark.parametrize("judge", [0.0, 1.0])
def test_labels_that_do_not_vary_are_not_certainty(judge: float) -> None:
    """Twenty of twenty passed: 20 / (20 + z^2) = .839 by Wilson; of 1,000 items a little more."""
    found = ppi_mean([1.0] * 20, [judge] * 20, [0.5] * 980)
    assert found.lam == 0
    assert found.estimate.low == pytest.approx(20 / (20 + Z**2), abs=0.005)
    assert (found.estimate.mean, found.estimate.high) == pytest.approx((1, 1))


def test_all_items_labelled_leave_nothing_to_estimate() -> None:
    found = ppi_mean([1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0], [])
    assert (found.estimate.low, found.estimate.high) == (0.75, 0.75)


@pytest.mark.parametrize(
    ("labels", "judge", "prob", "reason"),
    [
        ([1.0, 0.0], [1.0, 0.0], None, "at least three"),
        ([1.0, 0.0, 1.0], [1.0, 0.0], None, "3 labels, 2 judgements"),
        ([1.0, 0.0, float("nan")], [1.0, 0.0, 1.0], None, "not a finite number"),
        ([1.0, 0.0, 1.0], [1.0, 0.0, 1.0], [0.1, 0.0, 0.1], "outside"),
    ],
)
def test_what_cannot_be_estimated_is_refused(
    labels: list[float], judge: list[float], prob: list[float] | None, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        ppi_mean(labels, judge, [1.0] * 5, inclusion_prob=prob)


def population(rng: np.random.Generator, size: int) -> tuple[Floats, Floats]:
    """Labels that pass six times in ten, and a judge right four times in five."""
    labels = (rng.random(size) < 0.6).astype(float)
    return labels, np.where(rng.random(size) < 0.8, labels, 1 - labels)


def covered(found: CalibratedMean, truth: float) -> tuple[bool, bool]:
    return tuple(one.low <= truth <= one.high for one in (found.estimate, found.labels_only))  # type: ignore[return-value]


@pytest.mark.parametrize("labelled", [50, 100])
def test_the_interval_holds_the_mean_of_the_items_and_is_narrower(labelled: int) -> None:
    """The project's own small set; 1,000 draws: standard error .007."""
    labels, judge = population(np.random.default_rng(3), 600)
    rng, hits, widths = np.random.default_rng(11), [], []
    for _ in range(1000):
        order = rng.permutation(600)
        drawn, rest = order[:labelled], order[labelled:]
        found = ppi_mean(labels[drawn], judge[drawn], judge[rest])
        hits.append(covered(found, labels.mean()))
        widths.append([one.high - one.low for one in (found.estimate, found.labels_only)])
    assert 0.93 <= np.mean([hit[0] for hit in hits]) <= 0.97
    ours, theirs = np.mean(widths, axis=0)
    assert ours < 0.88 * theirs


def test_unequal_inclusion_probabilities_do_not_bias_the_mean() -> None:
    """What the judge failed was drawn four times as often, and fails more often."""
    labels, judge = population(np.random.default_rng(5), 1500)
    prob = np.where(judge == 0, 0.24, 0.06)
    rng, hits, means, naive = np.random.default_rng(11), [], [], []
    for _ in range(600):
        drawn = rng.random(1500) < prob
        found = ppi_mean(
            labels[drawn], judge[drawn], judge[~drawn],
            inclusion_prob=prob[drawn],
        )  # fmt: skip
        hits.append(covered(found, labels.mean())[0])
        means.append(found.estimate.mean)
        naive.append(labels[drawn].mean())
    assert np.mean(means) == pytest.approx(labels.mean(), abs=0.01)
    assert abs(np.mean(naive) - labels.mean()) > 0.15
    assert 0.92 <= np.mean(hits) <= 0.98


def test_items_of_one_conversation_are_not_independent_of_a_process() -> None:
    """Each answer five times over tells of traffic to come no more than once."""
    labels, judge = population(np.random.default_rng(6), 100)
    many, said = np.repeat(labels, 5), np.repeat(judge, 5)
    order = np.random.default_rng(1).permutation(500)
    drawn, rest = order[:100], order[100:]
    asked = (many[drawn], said[drawn], said[rest])
    alone = ppi_mean(*asked, population="process")
    together = ppi_mean(*asked, population="process", clusters=[int(i) // 5 for i in order])
    assert together.estimate.high - together.estimate.low > 1.3 * (
        alone.estimate.high - alone.estimate.low
    )
    items = ppi_mean(*asked, clusters=[int(i) // 5 for i in order])
    assert items.estimate == ppi_mean(*asked).estimate, "the draw was of items, one by one"


def judged(item: int, value: float | None, **fields: object) -> Assessment:
    given = {
        "interaction_id": f"i{item}", "name": "helpful-judge", "value": value,
        "source_type": "llm_judge", "source_id": "judge:helpful-judge/m",
    }  # fmt: skip
    return make_assessment(**{**given, **fields})


def labelled(
    item: int, value: float | None, prob: float | None = 0.25, **fields: object
) -> Assessment:
    given = {"interaction_id": f"i{item}", "name": "helpful", "inclusion_prob": prob}
    return make_assessment(**{**given, "value": value, **fields})


def test_what_experts_said_of_an_item_is_one_number(lake: Lake) -> None:
    """Forty judged, ten labelled. Of item 0 two experts say 1 and 0: one half. Of item 1 the
    adjudication counts, and of item 2 the latest. So (.5 + 1 + 0 + 7 x 1) / 10 = .85."""
    lake.append([judged(n, float(n % 3 > 0)) for n in range(40)])
    lake.append(
        [
            labelled(0, 1), labelled(0, 0, source_id="dr-b"),
            labelled(1, 0), labelled(1, 1, round="adjudication", source_id="chief"),
            labelled(2, 1, assessment_id="1"), labelled(2, 0, assessment_id="2"),
            *(labelled(n, 1) for n in range(3, 10)),
        ]
    )  # fmt: skip
    found = calibrate(lake, "triage", "helpful-judge", "helpful")
    assert (found.mean.judged, found.mean.labelled) == (40, 10)
    assert found.mean.labels_only.mean == pytest.approx(0.85)


def test_a_judge_that_failed_leaves_its_items_in_the_mean(lake: Lake) -> None:
    failed = [judged(n, None, status="error", error_type="judge_garbage") for n in range(3)]
    lake.append([*failed, *(judged(n, float(n % 2)) for n in range(3, 40))])
    lake.append([labelled(n, float(n % 2)) for n in range(12)])
    found = calibrate(lake, "triage", "helpful-judge", "helpful")
    assert (found.failed, found.mean.judged, found.mean.labelled) == (3, 40, 12)


def test_picked_labels_are_left_out_and_counted(lake: Lake) -> None:
    lake.append([judged(n, float(n % 2)) for n in range(40)])
    lake.append([labelled(n, float(n % 2)) for n in range(12)])
    lake.append([labelled(n, 0, prob=None) for n in range(12, 20)])
    lake.append([labelled(99, 1)])
    found = calibrate(lake, "triage", "helpful-judge", "helpful")
    assert (found.mean.labelled, found.not_random, found.not_judged) == (12, 8, 1)


def test_the_share_of_an_answer_is_a_mean_too(lake: Lake) -> None:
    lake.append([judged(n, None, label="pass" if n % 4 else "fail") for n in range(40)])
    lake.append([labelled(n, 9, label="pass" if n % 4 else "fail") for n in range(0, 40, 2)])
    found = calibrate(lake, "triage", "helpful-judge", "helpful", share_of="pass")
    assert found.mean.labels_only.mean == 0.5
    assert found.mean.judge_only == 0.75


def test_labels_that_were_not_drawn_at_random_are_refused(lake: Lake) -> None:
    lake.append([judged(n, 1.0) for n in range(40)])
    lake.append([labelled(n, 1, prob=None) for n in range(20)])
    with pytest.raises(CalibrationError, match="picked, not drawn at random") as refused:
        calibrate(lake, "triage", "helpful-judge", "helpful")
    assert "none of the 20 labelled items has an inclusion probability" in str(refused.value)
    assert "`flywheel review push`" in str(refused.value)


def test_what_is_missing_is_named(lake: Lake) -> None:
    with pytest.raises(CalibrationError, match="`flywheel judge run helpful-judge`"):
        calibrate(lake, "triage", "helpful-judge", "helpful")
    lake.append([judged(n, 1.0) for n in range(40)])
    lake.append([labelled(n, 1) for n in range(4)])
    with pytest.raises(CalibrationError, match="experts' names: helpful"):
        calibrate(lake, "triage", "helpful-judge", "helpfull")
    with pytest.raises(
        CalibrationError, match="4 randomly drawn items are labelled, 10 are needed"
    ):
        calibrate(lake, "triage", "helpful-judge", "helpful")


def test_only_one_version_of_a_judge_is_calibrated(lake: Lake) -> None:
    """It said 0 as it was, and says 1 as it is. The last version counts, or the one asked for."""
    old, new = {"judge_prompt_hash": "old"}, {"judge_prompt_hash": "new"}
    lake.append([judged(n, 0.0, **old) for n in range(40)])
    later = {"created_at": datetime(2026, 3, 1, tzinfo=UTC)}
    lake.append([judged(n, 1.0, **new, **later) for n in range(30)])
    lake.append([judged(50, None, status="error", error_type="judge_garbage", **old)])
    lake.append([labelled(n, float(n % 2)) for n in range(12)])
    found = calibrate(lake, "triage", "helpful-judge", "helpful")
    assert (found.version, found.other_versions) == ("new", 40)
    assert (found.mean.judged, found.mean.judge_only, found.failed) == (30, 1.0, 0)
    asked = calibrate(lake, "triage", "helpful-judge", "helpful", version="old")
    assert (asked.mean.judged, asked.mean.judge_only, asked.other_versions) == (41, 0.0, 30)
    with pytest.raises(CalibrationError, match="70 judgements of other versions of it do not"):
        calibrate(lake, "triage", "helpful-judge", "helpful", version="not run yet")


def test_a_failure_in_a_run_that_is_not_valid_is_none(lake: Lake) -> None:
    failed = {"status": "error", "error_type": "judge_unavailable"}
    lake.append([judged(n, float(n % 2)) for n in range(40)])
    lake.append([judged(40, None, judge_run_id="open", **failed)])
    lake.append([judged(41, None, judge_run_id="valid", **failed)])
    lake.append(
        [
            JudgeRun(
                entry_id=name, judge_run_id=name, workload="triage", judge="helpful-judge",
                created_at=datetime(2026, 1, 1, tzinfo=UTC), judge_hash="h", state=name, tasks=1,
                errors=1, max_error_share=1, calls=1, tokens=1, cost_usd=None, reason="a test",
            )
            for name in ("open", "valid")
        ]
    )  # fmt: skip
    lake.append([labelled(n, float(n % 2)) for n in range(12)])
    found = calibrate(lake, "triage", "helpful-judge", "helpful")
    assert (found.failed, found.mean.judged) == (1, 41)


def test_the_share_of_an_answer_nobody_gave_is_refused(lake: Lake) -> None:
    lake.append([judged(n, float(n % 2)) for n in range(40)])
    lake.append([labelled(n, 1.0) for n in range(12)])
    with pytest.raises(
        CalibrationError, match="nobody answered 'zzz'; the answers there are: 0, 1"
    ):
        calibrate(lake, "triage", "helpful-judge", "helpful", share_of="zzz")
    found = calibrate(lake, "triage", "helpful-judge", "helpful", share_of="0")
    assert found.mean.labels_only.mean == 0, "the judge alone gave it: experts' share is nought"


def test_labels_without_a_score_are_counted(lake: Lake) -> None:
    corrected = Message(role="assistant", content="Rest it.")
    lake.append([judged(n, float(n % 2)) for n in range(40)])
    lake.append([labelled(n, None, correction=corrected) for n in range(12, 15)])
    with pytest.raises(CalibrationError, match="none of the 3 labels experts gave .* has a score"):
        calibrate(lake, "triage", "helpful-judge", "helpful")
    lake.append([labelled(n, float(n % 2)) for n in range(12)])
    found = calibrate(lake, "triage", "helpful-judge", "helpful")
    assert (found.labels_without_score, found.mean.labelled) == (3, 12)
