"""The decision: pure, from two reports to PASS, FAIL or INCONCLUSIVE.

- Target (superiority): PASS when the whole interval of the difference lies above
  `minimum_effect`; FAIL when the whole of it lies at or below, so that the effect is out of reach.
- Guardrails (non-inferiority): PASS when the whole interval lies above -margin; FAIL when the whole
  of it lies below, which is proven harm.
- Never-again items: FAIL unless the candidate gets every one right by the target's grader.
- Anything else is INCONCLUSIVE, with how many more items would settle it.

One FAIL fails the gate; without one, one INCONCLUSIVE makes it inconclusive. Nothing is corrected
for several guardrails, and nothing needs to be: all of them must pass, so more of them make a wrong
PASS rarer (an intersection-union test, Berger 1982).

A missing score counts against the candidate: its own as the worst there is, the champion's as the
best, both as no difference. More of them than `max_error_share` allows is no evidence at all.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from pydantic import JsonValue

from flywheel.errors import GateError
from flywheel.gate.statistics import PairedIntervals, PairedScores, items_needed, paired_intervals
from flywheel.gate.suite import Suite
from flywheel.records import (
    Comparison,
    Decision,
    EvalReport,
    EvaluationItem,
    JsonObject,
    SuiteItem,
    Verdict,
)
from flywheel.workload import GateSection

Rule = Literal["superiority", "non_inferiority", "never_again"]
NEVER_AGAIN: Final = "never_again"


@dataclass(frozen=True)
class Pair:
    """One item and what both models made of it."""

    item: SuiteItem
    candidate: EvaluationItem
    champion: EvaluationItem


@dataclass(frozen=True)
class Metric:
    """One comparison the gate declares: which items, which grader, which rule."""

    name: str
    rule: Rule
    grader: str
    margin: float
    where: tuple[tuple[str, str], ...] = ()

    def selects(self, item: SuiteItem) -> bool:
        """Whether the item carries this metric."""
        if self.rule == NEVER_AGAIN:
            return item.never_again
        return all(_text(item.reference.get(key)) == value for key, value in self.where)

    @property
    def bound(self) -> float:
        """What the difference must exceed."""
        return self.margin if self.rule == "superiority" else -self.margin


def decide(
    candidate: EvalReport,
    champion: EvalReport,
    suite: Suite,
    gate: GateSection,
    *,
    workload: str,
) -> Decision:
    """Compares two reports over the same suite by the rules declared beforehand.

    Raises:
        GateError: the reports cannot be compared, a guardrail selects no item, or too many scores
            are missing; with every such reason.
    """
    pairs = pair_up(candidate, champion, suite)
    metrics = metrics_of(gate, suite)
    _refuse_holes(metrics, pairs, gate)
    comparisons = tuple(_compare(metric, pairs, gate) for metric in metrics)
    return Decision(
        decision_id=_digest(workload, candidate.evaluation_id, champion.evaluation_id),
        workload=workload,
        created_at=max(one.created_at for one in (*candidate.items, *champion.items)),
        candidate=candidate.model,
        champion=champion.model,
        verdict=_overall([comparison.verdict for comparison in comparisons]),
        reasons=tuple(f"{one.verdict} {one.name}: {one.reason}" for one in comparisons),
        comparisons=comparisons,
        suite=suite.name,
        suite_hash=suite.suite_hash,
        candidate_evaluation_id=candidate.evaluation_id,
        champion_evaluation_id=champion.evaluation_id,
    )


def pair_up(candidate: EvalReport, champion: EvalReport, suite: Suite) -> list[Pair]:
    """Both models' answers to each item, by item_id.

    Raises:
        GateError: they are not two models' answers to this very suite.
    """
    problems = []
    if candidate.model == champion.model:
        problems.append(f"candidate and champion are the same model, {candidate.model!r}")
    expected = {item.item_id for item in suite.items}
    for report in (candidate, champion):
        if report.suite_hash != suite.suite_hash:
            problems.append(
                f"{report.model} answered suite {report.suite_hash[:12]}, not "
                f"{suite.suite_hash[:12]}: both must answer the same frozen items"
            )
        answered = [item.item_id for item in report.items]
        if set(answered) != expected or len(answered) != len(expected):
            problems.append(
                f"{report.model} has {len(answered)} answers for {len(expected)} items; "
                "each item is answered once"
            )
    if problems:
        raise GateError("; ".join(problems))
    by_candidate = {item.item_id: item for item in candidate.items}
    by_champion = {item.item_id: item for item in champion.items}
    # By id: a suite whose lines were reordered has the same hash, and must get the same interval.
    return [
        Pair(item, by_candidate[item.item_id], by_champion[item.item_id])
        for item in sorted(suite.items, key=lambda item: item.item_id)
    ]


def metrics_of(gate: GateSection, suite: Suite) -> list[Metric]:
    """What is compared: the target, the guardrails, and never-again items where there are any.

    Raises:
        GateError: with every guardrail that selects no item.
    """
    target = Metric(gate.target.name, "superiority", gate.target.grader, gate.target.minimum_effect)
    rails = [
        Metric(rail.name, "non_inferiority", rail.grader, rail.margin, tuple(rail.where.items()))
        for rail in gate.guardrails
    ]
    never = Metric(NEVER_AGAIN, NEVER_AGAIN, gate.target.grader, 0.0)
    empty = [rail for rail in rails if not any(rail.selects(item) for item in suite.items)]
    if empty:
        raise GateError(
            "; ".join(f"guardrail {one.name}: no item has {dict(one.where)}" for one in empty)
            + f". suite {suite.name} has {len(suite.items)} items; `where` names fields of "
            "their reference."
        )
    has_never = any(never.selects(item) for item in suite.items)
    return [target, *rails, *([never] if has_never else [])]


def _compare(metric: Metric, pairs: Sequence[Pair], gate: GateSection) -> Comparison:
    carried = [pair for pair in pairs if metric.selects(pair.item)]
    scores = _scores(metric, carried)
    found = paired_intervals(scores, alpha=gate.alpha, resamples=gate.resamples, seed=gate.seed)
    verdict, more_items = _judge(metric, carried, found, gate)
    return Comparison(
        name=metric.name,
        rule=metric.rule,
        margin=metric.margin,
        n=found.items,
        clusters=found.clusters,
        candidate=found.candidate,
        champion=found.champion,
        difference=found.difference,
        verdict=verdict,
        reason=_reason(metric, carried, found, verdict, more_items),
        more_items=more_items,
    )


def _judge(
    metric: Metric, pairs: Sequence[Pair], found: PairedIntervals, gate: GateSection
) -> tuple[Verdict, int | None]:
    """The verdict, and the items that would settle it where it is open."""
    if metric.rule == NEVER_AGAIN:
        return ("FAIL" if _wrong(metric, pairs) else "PASS"), None
    difference, bound = found.difference, metric.bound
    if difference.low > bound:
        return "PASS", None
    # At the bound itself the effect is out of reach, and a loss is still one that is tolerated.
    is_out_of_reach = metric.rule == "superiority" and difference.high <= bound
    if is_out_of_reach or difference.high < bound:
        return "FAIL", None
    needed = items_needed(
        distance=difference.mean - bound,
        variance=found.variance,
        effect=found.design_effect,
        alpha=gate.alpha,
    )
    return "INCONCLUSIVE", None if needed is None else max(1, needed - found.items)


def _reason(
    metric: Metric,
    pairs: Sequence[Pair],
    found: PairedIntervals,
    verdict: Verdict,
    more_items: int | None,
) -> str:
    """One sentence with the numbers it rests on."""
    if metric.rule == NEVER_AGAIN:
        wrong = _wrong(metric, pairs)
        if not wrong:
            return f"all {len(pairs)} right"
        return f"{len(wrong)} of {len(pairs)} wrong: {', '.join(wrong[:5])}{_and_more(wrong)}"
    gap = found.difference
    numbers = (
        f"{found.champion.mean:.3f} -> {found.candidate.mean:.3f} on {found.items} items, "
        f"difference {gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
    )
    if metric.rule == "superiority":
        claim = {
            "PASS": f"more than {metric.margin:g} better",
            "FAIL": f"not more than {metric.margin:g} better",
            "INCONCLUSIVE": f"not proven more than {metric.margin:g} better",
        }
    else:
        claim = {
            "PASS": f"no more than {metric.margin:g} worse",
            "FAIL": f"more than {metric.margin:g} worse",
            "INCONCLUSIVE": f"a loss of more than {metric.margin:g} is neither proven nor excluded",
        }
    sentence = f"{claim[verdict]}: {numbers}"
    if verdict != "INCONCLUSIVE":
        return sentence
    if more_items is None:
        return f"{sentence}; the estimate lies on the bound, so that no number of items would tell"
    return f"{sentence}; about {more_items:,} more items would settle it"


def _scores(metric: Metric, pairs: Sequence[Pair]) -> PairedScores:
    """Arrays with the gaps filled against the candidate."""
    seen = [
        score
        for pair in pairs
        for one in (pair.candidate, pair.champion)
        if (score := one.scores.get(metric.grader)) is not None
    ]
    low, high = min([0.0, *seen]), max([1.0, *seen])
    candidate, champion = [], []
    for pair in pairs:
        mine, theirs = (one.scores.get(metric.grader) for one in (pair.candidate, pair.champion))
        candidate.append(low if mine is None else mine)
        champion.append((low if mine is None else high) if theirs is None else theirs)
    names = [pair.item.cluster_id or pair.item.item_id for pair in pairs]
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return PairedScores(
        candidate=np.asarray(candidate, dtype=np.float64),
        champion=np.asarray(champion, dtype=np.float64),
        clusters=np.asarray([number[name] for name in names], dtype=np.int64),
        span=(low, high),
    )


def _wrong(metric: Metric, pairs: Sequence[Pair]) -> list[str]:
    """Items the candidate does not get right: a score of at least 1 is right, a missing one not."""
    wrong = []
    for pair in pairs:
        score = pair.candidate.scores.get(metric.grader)
        if score is None or score < 1:
            wrong.append(pair.item.item_id)
    return wrong


def _refuse_holes(metrics: Sequence[Metric], pairs: Sequence[Pair], gate: GateSection) -> None:
    """Refuses to decide on more missing scores than the workload allows."""
    allowed = math.floor(gate.max_error_share * len(pairs))
    problems = []
    for metric in metrics:
        holes = [
            one
            for pair in pairs
            if metric.selects(pair.item)
            for one in (pair.candidate, pair.champion)
            if one.scores.get(metric.grader) is None
        ]
        if len({one.item_id for one in holes}) > allowed:
            why = sorted({one.error_type or "no score" for one in holes})
            problems.append(
                f"{metric.name}: grader {metric.grader!r} has no score for {len(holes)} answers "
                f"({', '.join(why[:3])}{_and_more(why, 3)}); gate.max_error_share allows "
                f"{allowed} items"
            )
    if problems:
        raise GateError("; ".join(problems))


def _overall(verdicts: Sequence[Verdict]) -> Verdict:
    order: tuple[Verdict, ...] = ("FAIL", "INCONCLUSIVE", "PASS")
    return next(verdict for verdict in order if verdict in verdicts)


def _text(value: JsonValue) -> str | None:
    """A reference's value as `where` writes it: text as it is, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True)


def _and_more(found: Sequence[str], shown: int = 5) -> str:
    return f" and {len(found) - shown} more" if len(found) > shown else ""


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def recipe_hash(gate: GateSection, graders: dict[str, JsonObject]) -> str:
    """What a decision depends on besides the models and the items: rules, graders, sampling.

    Left out is what cannot change an answer's meaning: where the suite's file lies, and how many
    answers are asked for at once.
    """
    rules = gate.model_dump(mode="json", exclude={"suite": True, "sampling": {"concurrency"}})
    text = json.dumps([METHOD, rules, graders], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


METHOD = 1
"""Version of the statistics: a change that can move a verdict raises it."""
