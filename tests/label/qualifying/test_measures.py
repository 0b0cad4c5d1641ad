"""What a judge is measured by, with numbers worked by hand."""

import numpy as np
import pytest

from flywheel.label.agreement import cohen_kappa
from flywheel.label.qualifying import GoldItem, GoldVerdict
from flywheel.label.qualifying.measures import (
    Name,
    measure_all,
    measure_kappa,
    measure_length_bias,
    measure_self_preference,
    measure_swap_consistency,
    passes,
)
from tests.label.qualifying.material import (
    SCALE,
    TWO_CRITERIA,
    make_judge,
    pair,
    pairs,
    said,
)

JUDGE = make_judge()


def rated(
    number: int, gold: str, verdict: str, *, length: int = 5, **fields: object
) -> GoldVerdict:
    item = GoldItem.model_validate(
        {
            "item_id": f"g{number}",
            "messages": "?",
            "response": "x" * length,
            "label": gold,
            **fields,
        }
    )
    return GoldVerdict(item=item, labels={"score": verdict})


def test_kappa_takes_out_what_chance_gives() -> None:
    """20 pairs, gold half A half B, the judge right on 8 + 8: (.8 - .5) / (1 - .5) = .6."""
    gold = "A" * 10 + "B" * 10
    judge = "A" * 8 + "BB" + "B" * 8 + "AA"
    measure = measure_kappa(JUDGE, pairs(gold, judge)).measure
    assert measure.value == pytest.approx(0.6)
    assert measure.low is not None and measure.high is not None
    assert measure.low < 0.35 < 0.75 < measure.high
    assert (measure.n, measure.bar, measure.passed) == (20, 0.4, False)


def test_kappa_is_the_agreement_stages() -> None:
    random = np.random.default_rng(3)
    gold = "".join(random.choice(list("ABt"), 60))
    judge = "".join(random.choice(list("ABt"), 60))
    measure = measure_kappa(JUDGE, pairs(gold, judge)).measure
    assert measure.value == pytest.approx(cohen_kappa(list(gold), list(judge)))


def test_a_judge_without_a_mistake_is_not_certain() -> None:
    """The bootstrap says [1, 1]; Wilson's share of disagreement is at most 3.84 / 53.84 of 50."""
    measure = measure_kappa(JUDGE, pairs("AB" * 25, "AB" * 25)).measure
    assert measure.value == 1
    assert measure.low == pytest.approx(1 - (3.8415 / 53.8415) / 0.5, abs=1e-3)


def test_grades_of_a_scale_are_weighted_by_their_distance() -> None:
    """Off by one of two steps everywhere: the square of one half, not a whole disagreement."""
    judge = make_judge(SCALE)
    near = [rated(n, "13"[n % 2], "2", cluster_id=f"c{n}") for n in range(20)]
    near += [rated(n + 20, "13"[n % 2], "13"[n % 2]) for n in range(20)]
    far = [rated(n, "13"[n % 2], "31"[n % 2]) for n in range(20)] + near[20:]
    near_value = measure_kappa(judge, near).measure.value
    far_value = measure_kappa(judge, far).measure.value
    gold, answers = ([v.item.gold("score") for v in near], [v.labels["score"] for v in near])
    assert near_value == pytest.approx(cohen_kappa(gold, answers, weights="quadratic"))
    assert far_value == pytest.approx(0.0)


def test_what_the_gold_never_says_is_a_whole_disagreement() -> None:
    judge = make_judge(SCALE)
    shy = [rated(n, "13"[n % 2], "cannot_judge") for n in range(20)]
    measure = measure_kappa(judge, shy).measure
    assert measure.value == pytest.approx(0.0)


def test_the_worst_criterion_counts() -> None:
    judge = make_judge(TWO_CRITERIA, name="good")
    verdicts = []
    for number in range(40):
        safe, complete = ("safe", "2") if number % 2 else ("unsafe", "0")
        item = GoldItem.model_validate(
            {
                "item_id": f"g{number}",
                "messages": "?",
                "response": "x" * number,
                "labels": {"safe": safe, "complete": complete},
            }
        )
        guess = "02"[number // 2 % 2]
        verdicts.append(GoldVerdict(item=item, labels={"safe": safe, "complete": guess}))
    measured = measure_kappa(judge, verdicts)
    assert measured.measure.value == pytest.approx(0.0)
    assert measured.note == "of 2 criteria complete agrees least"


def test_gold_of_one_class_leaves_kappa_undefined() -> None:
    measured = measure_kappa(JUDGE, pairs("A" * 60, "AB" * 30))
    assert (measured.measure.value, measured.measure.passed) == (None, False)
    assert measured.note is not None
    assert "every gold label is 'A'" in measured.note


def test_swap_consistency_is_the_share_with_one_winner_in_both_orders() -> None:
    verdicts = [said(pair(n, "A"), "A") for n in range(93)]
    verdicts += [said(pair(n, "A"), "tie", orders=("A", "B")) for n in range(93, 100)]
    measure = measure_swap_consistency(JUDGE, verdicts).measure
    assert measure.value == pytest.approx(0.93)
    assert measure.low == pytest.approx(0.8625, abs=2e-3), "Wilson's: Newcombe 1998, method 3"
    assert measure.passed


def test_length_bias_is_how_much_more_often_than_the_gold_the_longer_answer_wins() -> None:
    """Longer is right in 30 of 60 and wins in 45: 15 of 60 too many."""
    verdicts = [said(pair(n, "A", longer="A"), "A") for n in range(30)]
    verdicts += [said(pair(n, "A", longer="B"), "B") for n in range(30, 45)]
    verdicts += [said(pair(n, "A", longer="B"), "A") for n in range(45, 60)]
    measure = measure_length_bias(JUDGE, verdicts).measure
    assert measure.value == pytest.approx(0.25)
    assert measure.low is not None and measure.low > 0.1
    assert not measure.passed, "its upper bound is beyond .2"


def test_a_judge_that_prefers_the_longer_where_the_gold_does_is_not_biased() -> None:
    verdicts = [said(pair(n, "A", longer="A"), "A") for n in range(60)]
    measure = measure_length_bias(JUDGE, verdicts).measure
    assert measure.value == 0
    assert measure.high == pytest.approx(3.8415 / 63.8415, abs=1e-3), "not [0, 0]"


def test_a_bias_to_the_shorter_answer_is_one_too() -> None:
    verdicts = [said(pair(n, "A", longer="A"), "B") for n in range(60)]
    measure = measure_length_bias(JUDGE, verdicts).measure
    assert (measure.value, measure.passed) == (-1, False)


def test_pairs_of_one_length_leave_length_bias_unmeasured() -> None:
    same = [said(pair(n, "A", responses=["one", "two"]), "A") for n in range(60)]
    measured = measure_length_bias(JUDGE, same)
    assert (measured.measure.value, measured.note) == (None, "no pair has a longer answer")


def test_length_bias_of_single_answers_compares_the_longer_half_with_the_shorter() -> None:
    """The judge gives every long answer one of two steps too much: half of the scale."""
    judge = make_judge(SCALE)
    verdicts = [rated(n, "2", "3" if n % 2 else "2", length=50 if n % 2 else 5) for n in range(60)]
    measure = measure_length_bias(judge, verdicts).measure
    assert measure.value == pytest.approx(0.5)
    assert not measure.passed


def test_self_preference_is_how_much_more_often_than_the_gold_its_kin_wins() -> None:
    """Of 40 pairs with one answer of its own family, gold and judge differ on 10, all for kin."""
    families = [["qwen"], ["meta"]]
    verdicts = [said(pair(n, "AB"[n % 2], families=families), "AB"[n % 2]) for n in range(30)]
    verdicts += [said(pair(n, "B", families=families), "A") for n in range(30, 40)]
    verdicts += [said(pair(n, "B", families=["qwen", "qwen"]), "A") for n in range(40, 60)]
    measure = measure_self_preference(JUDGE, verdicts, frozenset({"qwen"})).measure
    assert measure.n == 40
    assert measure.value == pytest.approx(0.25)
    assert not measure.passed


def test_self_preference_of_single_answers_compares_kin_with_others() -> None:
    judge = make_judge(SCALE)
    verdicts = [
        rated(n, "2", "3" if n % 2 else "2", families=["qwen" if n % 2 else "meta"])
        for n in range(60)
    ]
    measure = measure_self_preference(judge, verdicts, frozenset({"qwen"})).measure
    assert measure.value == pytest.approx(0.5)


def test_self_preference_needs_to_know_who_wrote_what() -> None:
    measured = measure_self_preference(JUDGE, pairs("AB" * 30, "AB" * 30), frozenset({"qwen"}))
    assert (measured.measure.value, measured.measure.passed) == (None, False)
    assert measured.note is not None
    assert "say in `families` who made each answer" in measured.note


def test_failures_are_in_no_measure() -> None:
    """With 10 failures in place of right answers kappa is that of the other 50."""
    whole = pairs("AB" * 25, "AB" * 25)
    with_failures = [*whole, *pairs("AB" * 5, "x" * 10)]
    found = measure_all(JUDGE, with_failures)
    assert [one.measure for one in found] == [one.measure for one in measure_all(JUDGE, whole)]
    assert all(one.measure.n <= 50 for one in found)


def test_items_of_one_conversation_count_as_one() -> None:
    alone = [said(pair(n, "A"), "A", orders=("A", "AB"[n // 45])) for n in range(50)]
    together = [
        said(pair(n, "A", cluster_id=f"c{n // 5}"), "A", orders=("A", "AB"[n // 45]))
        for n in range(50)
    ]
    narrow = measure_swap_consistency(JUDGE, alone).measure
    wide = measure_swap_consistency(JUDGE, together).measure
    assert narrow.value == wide.value == pytest.approx(0.9)
    assert narrow.low is not None and wide.low is not None
    assert wide.low < narrow.low - 0.1


@pytest.mark.parametrize("name", ["kappa", "swap_consistency"])
def test_agreement_must_exceed_its_bar_and_not_only_reach_it(name: Name) -> None:
    assert not passes(name, low=0.4, high=1.0, bar=0.4)
    assert passes(name, low=np.nextafter(0.4, 1), high=1.0, bar=0.4)


def test_a_bias_may_be_as_large_as_its_bar_on_either_side_and_no_larger() -> None:
    assert passes("length_bias", low=-0.2, high=0.2, bar=0.2)
    assert not passes("length_bias", low=-0.1, high=np.nextafter(0.2, 1), bar=0.2)
    assert not passes("self_preference", low=-0.3, high=0.1, bar=0.2)


def test_what_was_not_measured_has_not_passed() -> None:
    assert not passes("length_bias", low=None, high=None, bar=1.0)
