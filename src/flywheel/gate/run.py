"""Running a gate: both models answer, the decision is taken, the evidence is kept.

Input: a lake, MLflow, a workload, a chat model that serves both names. Output: a `Decision`, in the
lake with every answer, and in MLflow with numbers, a table and pictures.

Idempotent: the same two models on the same items by the same rules have one decision, and asking
again returns it. That is also what keeps anybody from asking until chance says PASS.
"""

import hashlib
import json

from flywheel.chat import ChatModel
from flywheel.errors import GateError
from flywheel.gate.decide import decide, metrics_of, pair_up, recipe_hash
from flywheel.gate.evaluate import Contestant, EvalPair, Exam, Progress, evaluate_pair
from flywheel.gate.report import (
    comparison_rows,
    draw_agreement,
    draw_intervals,
    gate_metrics,
    item_rows,
)
from flywheel.gate.suite import Suite, load_suite
from flywheel.graders import build_graders, grader_hash, pin_graders
from flywheel.lake import Lake
from flywheel.records import Decision, EvalReport, EvaluationItem, JsonObject
from flywheel.tracking import TrackedRun, Tracker
from flywheel.workload import Workload

DECISION_SQL = "select * from decisions where workload = ? and decision_id = ?"
EVALUATION_SQL = "select * from evaluations where workload = ? and evaluation_id = ?"


async def run_gate(  # noqa: PLR0913 - where the evidence goes, what is judged, and by what
    lake: Lake,
    tracker: Tracker,
    workload: Workload,
    chat: ChatModel,
    *,
    candidate: str,
    champion: str,
    on_progress: Progress | None = None,
) -> Decision:
    """Gates the candidate against the champion, or returns the decision there is.

    Args:
        lake: Keeps the answers and the decision.
        tracker: MLflow, for people.
        workload: Its `gate` and `graders` sections are the rules.
        chat: Serves both models under their names; not the gateway, which would capture the suite.
        candidate: Served name.
        champion: Served name of what users get now: the base model's when nothing was released.
        on_progress: Called with answers there are and answers there will be.

    Raises:
        ConfigError: the suite or a grader is not as it should be.
        GateError: the gate cannot be run as declared.
        UpstreamUnavailableError: the model server or MLflow does not answer. The answers there
            are are kept: run again to go on.
    """
    if candidate == champion:
        raise GateError(f"{candidate!r} is what serves now: there is nothing to compare it with")
    refuse_own_homework(workload)
    suite = load_suite(workload.suite_path)
    specs = _grader_specs(workload)
    rules = recipe_hash(workload.gate, pin_graders(specs, workload))
    decision_id = _digest(workload.name, candidate, champion, suite.suite_hash, rules)
    known = lake.fetch(Decision, DECISION_SQL, (workload.name, decision_id))
    if known:
        return known[0]
    exam = Exam(
        workload=workload.name,
        suite=suite,
        graders=build_graders(specs, source="graders", models_of=workload),
        sampling=workload.gate.sampling,
        max_error_share=workload.gate.max_error_share,
    )
    metrics_of(workload.gate, suite)  # a guardrail without items is told before anything is asked
    sides = (
        Contestant(candidate, "candidate", _digest(decision_id, "candidate")),
        Contestant(champion, "champion", _digest(decision_id, "champion")),
    )
    pair = _stored(lake, exam, sides)
    if pair is None:
        pair = await evaluate_pair(
            chat, exam, candidate=sides[0], champion=sides[1], on_progress=on_progress
        )
        # One commit for both sides: either all of the evidence is there or none.
        lake.append([*pair.candidate.items, *pair.champion.items])
    decision = decide(
        pair.candidate, pair.champion, suite, workload.gate, workload=workload.name
    ).model_copy(update={"decision_id": decision_id})
    decision = _keep(tracker, workload, suite, pair, decision)
    lake.append([decision])
    return decision


def refuse_own_homework(workload: Workload) -> None:
    """Refuses a gate whose grader made the labels the candidate learned from.

    A code grader run over captured traffic (`labels.graders`) makes assessments under its own name;
    where that is `labels.name`, they are the labels a night trains on. Passing such a grader proves
    that its taste was learned, not that the answers are right. Other graders in `labels.graders`
    only watch, and may gate. The same grader under another name is the same grader.

    Raises:
        GateError: with every grader concerned.
    """
    taught = {
        grader_hash(workload.graders[name])
        for name in workload.labels.graders
        if name == workload.labels.name
    }
    marking = [n for n, spec in _grader_specs(workload).items() if grader_hash(spec) in taught]
    if marking:
        raise GateError(
            f"{', '.join(marking)} made the labels {workload.labels.name!r} that candidates learn "
            "from (labels.graders), and may not gate them: give the gate a grader of its own, one "
            "that compares with the suite's reference."
        )


def _grader_specs(workload: Workload) -> dict[str, JsonObject]:
    """The graders the gate uses."""
    gate = workload.gate
    used = [gate.target.grader, *(rail.grader for rail in gate.guardrails)]
    return {name: workload.graders[name] for name in used}


def _stored(lake: Lake, exam: Exam, sides: tuple[Contestant, Contestant]) -> EvalPair | None:
    """Both sides' answers of a gate that got that far before, or None."""
    reports = []
    for side in sides:
        items = lake.fetch(EvaluationItem, EVALUATION_SQL, (exam.workload, side.evaluation_id))
        if len(items) != len(exam.suite.items):
            return None
        reports.append(
            EvalReport(
                evaluation_id=side.evaluation_id,
                workload=exam.workload,
                model=side.model,
                role=side.role,
                suite=exam.suite.name,
                suite_hash=exam.suite.suite_hash,
                items=tuple(items),
            )
        )
    return EvalPair(*reports)


def _keep(
    tracker: Tracker, workload: Workload, suite: Suite, pair: EvalPair, decision: Decision
) -> Decision:
    """Puts the evidence where people look, and the run's id on the decision."""
    tags = {
        "stage": "gate",
        "workload": workload.name,
        "decision": decision.verdict,
        "decision_id": decision.decision_id,
        "candidate": decision.candidate,
        "champion": decision.champion,
        "suite_hash": decision.suite_hash,
    }
    with tracker.run(workload.name, f"gate {decision.candidate}", tags=tags) as run:
        _log(run, workload, suite, pair, decision)
    return decision.model_copy(update={"run_id": run.run_id})


def _log(
    run: TrackedRun, workload: Workload, suite: Suite, pair: EvalPair, decision: Decision
) -> None:
    pairs = pair_up(pair.candidate, pair.champion, suite)
    metrics = [one for one in metrics_of(workload.gate, suite) if one.rule != "never_again"]
    run.log_params({"gate": workload.gate.model_dump(mode="json"), "items": len(suite.items)})
    run.log_metrics(gate_metrics(decision))
    run.log_table("comparisons", comparison_rows(decision))
    run.log_table("items", item_rows(pairs))
    run.log_figure(draw_intervals(decision), "intervals.png")
    run.log_figure(draw_agreement(decision, metrics, pairs), "agreement.png")
    run.log_text(decision.model_dump_json(indent=2), "decision.json")


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
