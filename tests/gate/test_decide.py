"""Decisions worked by hand: what passes, what fails, and what is not proven."""

from collections.abc import Sequence

import pytest

from flywheel.errors import GateError
from flywheel.gate.decide import decide, recipe_hash
from flywheel.gate.suite import Suite
from flywheel.records import Comparison, Decision, JsonObject
from flywheel.workload import GateSection, GuardrailSection
from tests.gate.conftest import make_item, make_report, make_suite


def section(*guardrails: JsonObject, minimum_effect: float = 0.0, **fields: object) -> GateSection:
    return GateSection.model_validate(
        {
            "suite": "holdout.jsonl",
            "target": {"name": "accuracy", "grader": "correct", "minimum_effect": minimum_effect},
            "guardrails": guardrails,
            "resamples": 500,
            **fields,
        }
    )


def judge(
    suite: Suite,
    candidate: Sequence[float | None],
    champion: Sequence[float | None],
    gate: GateSection | None = None,
) -> Decision:
    return decide(
        make_report(suite, "candidate", candidate),
        make_report(suite, "champion", champion),
        suite,
        gate or section(),
        workload="triage",
    )


def only(decision: Decision, name: str) -> Comparison:
    return next(one for one in decision.comparisons if one.name == name)


def test_a_clear_gain_passes() -> None:
    """60 items, 30 right before and 50 now: 20 gained, none lost, +0.333."""
    decision = judge(make_suite(60), [1] * 50 + [0] * 10, [1] * 30 + [0] * 30)
    accuracy = only(decision, "accuracy")
    assert decision.verdict == accuracy.verdict == "PASS"
    assert accuracy.champion.mean == 0.5
    assert accuracy.candidate.mean == pytest.approx(5 / 6)
    assert accuracy.difference.mean == pytest.approx(1 / 3)
    assert accuracy.difference.low > 0.19
    assert (accuracy.n, accuracy.clusters, accuracy.more_items) == (60, 60, None)
    assert decision.reasons[0].startswith(
        "PASS accuracy: more than 0 better: 0.500 -> 0.833 on 60 items, difference +0.333 [+0."
    )


def test_a_clear_loss_fails() -> None:
    decision = judge(make_suite(60), [1] * 30 + [0] * 30, [1] * 50 + [0] * 10)
    assert decision.verdict == "FAIL"
    assert "not more than 0 better" in decision.reasons[0]


def test_equal_models_are_not_proven_better() -> None:
    """Nothing differs in 60 items: the interval is +-3.84 / 63.84 = 0.060, not zero wide."""
    decision = judge(make_suite(60), [1] * 60, [1] * 60)
    accuracy = only(decision, "accuracy")
    assert decision.verdict == "INCONCLUSIVE"
    assert accuracy.difference.low == pytest.approx(-0.0602, abs=1e-3)
    assert accuracy.more_items is None
    assert "no number of items would tell" in accuracy.reason


def test_a_small_gain_is_inconclusive_and_says_how_many_more_items_would_settle_it() -> None:
    """100 items, 12 gained and 6 lost: +0.06 and discordance 0.18, less 0.06^2 is 0.1764.

    7.8489 x 0.1764 / 0.06^2 = 384.6, so 385 items, 285 more.
    """
    candidate = [1] * 12 + [0] * 6 + [1] * 82
    champion = [0] * 12 + [1] * 6 + [1] * 82
    accuracy = only(judge(make_suite(100), candidate, champion), "accuracy")
    assert accuracy.verdict == "INCONCLUSIVE"
    assert accuracy.more_items == 285
    assert "about 285 more items would settle it" in accuracy.reason


def test_a_gain_below_the_minimum_effect_fails_when_the_effect_is_out_of_reach() -> None:
    """400 items, 8 gained: +0.02 [+0.01, +0.04], and 0.1 was asked for."""
    decision = judge(
        make_suite(400), [1] * 208 + [0] * 192, [1] * 200 + [0] * 200, section(minimum_effect=0.1)
    )
    assert decision.verdict == "FAIL"
    assert "not more than 0.1 better" in decision.reasons[0]


def test_a_gain_around_the_minimum_effect_is_inconclusive() -> None:
    """100 items, 10 gained, 0.1 asked for: better, and not proven that much better."""
    gate = section(minimum_effect=0.1)
    decision = judge(make_suite(100), [1] * 60 + [0] * 40, [1] * 50 + [0] * 50, gate)
    assert only(decision, "accuracy").difference.low > 0
    assert decision.verdict == "INCONCLUSIVE"


def guarded(suite: Suite, lost: int, margin: float) -> Comparison:
    """A guardrail where the champion is always right and the candidate wrong `lost` times."""
    count = len(suite.items)
    rail: JsonObject = {"name": "recall", "grader": "correct", "margin": margin}
    decision = judge(suite, [0] * lost + [1] * (count - lost), [1] * count, section(rail))
    return only(decision, "recall")


def test_a_guardrail_passes_when_a_loss_beyond_the_margin_is_excluded() -> None:
    """Nothing lost in 100: the worst the score interval allows is 3.84 / 103.84 = 0.037."""
    assert guarded(make_suite(100), 0, 0.04).verdict == "PASS"


def test_a_guardrail_is_inconclusive_where_the_margin_is_tighter_than_the_items_can_tell() -> None:
    """The same with a margin of 0.02.

    Planned with one discordant pair in 102, 7.8489 / 102 / 0.02^2
    = 192.4, so 193 items, 93 more.
    """
    recall = guarded(make_suite(100), 0, 0.02)
    assert recall.verdict == "INCONCLUSIVE"
    assert recall.more_items == 93
    assert "neither proven nor excluded" in recall.reason


def test_a_guardrail_fails_when_harm_beyond_the_margin_is_proven() -> None:
    """30 of 100 lost: -0.3 [-0.39, -0.21], wholly below -0.1."""
    recall = guarded(make_suite(100), 30, 0.1)
    assert recall.verdict == "FAIL"
    assert "more than 0.1 worse" in recall.reason


def test_a_loss_on_both_sides_of_the_margin_is_inconclusive() -> None:
    assert guarded(make_suite(100), 10, 0.1).verdict == "INCONCLUSIVE"


def test_the_same_losses_say_less_in_clusters() -> None:
    """9 of 90 lost, by three whole conversations of three: 30 observations and not 90."""
    alone, together = (
        guarded(make_suite(90), 9, 0.2),
        guarded(make_suite(90, cluster_size=3), 9, 0.2),
    )
    assert (alone.verdict, together.verdict) == ("PASS", "INCONCLUSIVE")
    assert (alone.clusters, together.clusters) == (90, 30)


def test_a_guardrail_looks_only_where_it_says() -> None:
    """Ten of thirty items are emergencies; all of them are lost, and only they count."""
    suite = make_suite(30)
    where: JsonObject = {"urgency": "emergency"}
    rail: JsonObject = {"name": "recall", "grader": "correct", "where": where, "margin": 0.1}
    candidate = [0.0 if n % 3 == 0 else 1.0 for n in range(30)]
    recall = only(judge(suite, candidate, [1] * 30, section(rail)), "recall")
    assert (recall.n, recall.difference.mean, recall.verdict) == (10, -1, "FAIL")


@pytest.mark.parametrize(
    ("value", "wanted"), [(True, "true"), (3, "3"), (2.5, "2.5"), ("yes", "yes"), (["a"], '["a"]')]
)
def test_where_selects_on_values_that_are_not_text_as_json(value: object, wanted: str) -> None:
    suite = Suite.of("s", [make_item(0, reference={"is": value}), make_item(1, reference={})])
    rail: JsonObject = {"name": "r", "grader": "correct", "where": {"is": wanted}, "margin": 0.1}
    assert only(judge(suite, [1, 1], [1, 0], section(rail)), "r").n == 1


def test_a_guardrail_that_selects_nothing_is_refused() -> None:
    where: JsonObject = {"urgency": "never"}
    rail: JsonObject = {"name": "recall", "grader": "correct", "where": where, "margin": 0.1}
    with pytest.raises(GateError, match="guardrail recall: no item has {'urgency': 'never'}"):
        judge(make_suite(6), [1] * 6, [1] * 6, section(rail))


def test_one_never_again_item_wrong_fails_whatever_else_was_won() -> None:
    suite = make_suite(60, never_again=(59,))
    decision = judge(suite, [1] * 59 + [0], [0] * 59 + [1])
    assert only(decision, "accuracy").verdict == "PASS"
    assert only(decision, "never_again").verdict == decision.verdict == "FAIL"
    assert "1 of 1 wrong: i059" in decision.reasons[1]


def test_all_never_again_items_right_pass() -> None:
    suite = make_suite(60, never_again=(0, 1))
    decision = judge(suite, [1] * 60, [0] * 60)
    assert decision.verdict == "PASS"
    assert decision.reasons[1] == "PASS never_again: all 2 right"


def test_one_inconclusive_guardrail_makes_the_gate_inconclusive() -> None:
    rail: JsonObject = {"name": "tight", "grader": "correct", "margin": 0.0}
    gate = section(rail, minimum_effect=0.0)
    candidate, champion = [1] * 40 + [0] * 20, [1] * 20 + [0] * 40
    assert judge(make_suite(60), candidate, champion, gate).verdict == "PASS"
    where: JsonObject = {"urgency": "urgent"}
    hard: JsonObject = {"name": "urgent", "grader": "correct", "where": where, "margin": 0.01}
    thirds = [1.0 if n % 3 != 1 else 0.0 for n in range(60)]
    decision = judge(make_suite(60), thirds, [0] * 60, section(hard))
    assert [one.verdict for one in decision.comparisons] == ["PASS", "INCONCLUSIVE"]
    assert decision.verdict == "INCONCLUSIVE"


def test_missing_scores_count_against_the_candidate() -> None:
    """Of 100 items the candidate lacks one and the champion another: a loss each, and no gain.

    An item both lack is no difference.
    """
    gate = section(max_error_share=0.05)
    candidate: list[float | None] = [None, 1, None, *[1.0] * 97]
    champion: list[float | None] = [1, None, None, *[1.0] * 97]
    accuracy = only(judge(make_suite(100), candidate, champion, gate), "accuracy")
    assert accuracy.candidate.mean == pytest.approx(0.98)
    assert accuracy.champion.mean == pytest.approx(0.99)
    champion[1] = 0
    accuracy = only(judge(make_suite(100), candidate, champion, gate), "accuracy")
    assert accuracy.difference.mean == pytest.approx(0)


def test_a_champion_without_an_answer_counts_as_right() -> None:
    gate = section(max_error_share=0.05)
    champion: list[float | None] = [None, *[0.0] * 99]
    accuracy = only(judge(make_suite(100), [0] * 100, champion, gate), "accuracy")
    assert accuracy.difference.mean == pytest.approx(-0.01)


def test_more_missing_scores_than_allowed_are_no_evidence() -> None:
    candidate: list[float | None] = [None, None, None, *[1.0] * 97]
    with pytest.raises(
        GateError, match=r"'correct' has no score for 3 answers \(Upstream.*2 items"
    ):
        judge(make_suite(100), candidate, [1] * 100)


def test_scores_beyond_one_are_compared_on_their_own_scale() -> None:
    """A judge's 0 to 10: one point better on every item."""
    decision = judge(make_suite(30), [7.0, 9.0, 5.0] * 10, [6.0, 8.0, 4.0] * 10)
    accuracy = only(decision, "accuracy")
    assert accuracy.difference.mean == pytest.approx(1)
    assert accuracy.candidate.high <= 9


def test_the_same_model_twice_is_refused() -> None:
    suite = make_suite(3)
    with pytest.raises(GateError, match="the same model, 'x'"):
        decide(
            make_report(suite, "candidate", [1] * 3, model="x"),
            make_report(suite, "champion", [1] * 3, model="x"),
            suite,
            section(),
            workload="triage",
        )


def test_reports_over_other_items_are_refused_with_every_reason() -> None:
    suite, other = make_suite(3), make_suite(4)
    with pytest.raises(GateError, match=r"triage-old answered suite .*triage-old has 4 answers"):
        decide(
            make_report(suite, "candidate", [1] * 3),
            make_report(other, "champion", [1] * 4),
            suite,
            section(),
            workload="triage",
        )


def test_an_item_answered_twice_is_refused() -> None:
    suite = make_suite(3)
    report = make_report(suite, "candidate", [1] * 3)
    doubled = report.model_copy(update={"items": (*report.items, report.items[0])})
    with pytest.raises(GateError, match="4 answers for 3 items"):
        decide(doubled, make_report(suite, "champion", [1] * 3), suite, section(), workload="t")


def test_a_decision_does_not_depend_on_the_order_of_the_items() -> None:
    suite = make_suite(40, cluster_size=2)
    candidate, champion = [1, 0, 1, 1] * 10, [0, 0, 1, 0] * 10
    there = judge(suite, candidate, champion)
    turned = Suite.of(suite.name, suite.items[::-1])
    back = judge(turned, candidate[::-1], champion[::-1])
    assert there == back


def test_the_recipe_is_the_rules_and_not_where_the_file_lies() -> None:
    gate = section()
    same = gate.model_copy(update={"suite": gate.suite / "elsewhere"})
    busier = gate.sampling.model_copy(update={"concurrency": 99})
    warmer = gate.sampling.model_copy(update={"temperature": 1.0})
    rail = GuardrailSection(name="r", grader="correct", margin=0.1)
    known: dict[str, JsonObject] = {"correct": {"type": "string_check"}}
    base = recipe_hash(gate, known)
    assert recipe_hash(same, known) == base
    assert recipe_hash(gate.model_copy(update={"sampling": busier}), known) == base
    assert recipe_hash(gate.model_copy(update={"sampling": warmer}), known) != base
    assert recipe_hash(gate.model_copy(update={"guardrails": (rail,)}), known) != base
    assert recipe_hash(gate, {"correct": {"type": "multi"}}) != base
