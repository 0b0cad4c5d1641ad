"""Replies -> rows of `assessments`. Pure: the same replies make the same rows.

One model of the panel is one rater (`judge:<judge>/<model>`), and the lake's views take their
majority. An answer gets one row by the judge's name, and one a criterion (`<judge>.<criterion>`)
where there are several; a pair gets these for both orders together, and one row an order
(`<judge>:AB`, `<judge>:BA`), so that how often order decides is a query. Tokens and money stand
once, on the row of the call they paid for; rows made of others have `covariates.derived`.

A judgement that failed is a row with value NULL and an `error_type`. Its id is of the attempt, so
that a later success has an id of its own.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from flywheel.errors import VerdictError
from flywheel.graders.judge.covariates import task_covariates
from flywheel.graders.judge.judge import Judge, plan_calls, read_verdict
from flywheel.graders.judge.rubric import PAIRWISE_VALUES, Winner
from flywheel.graders.judge.task import JudgeCall, JudgeReply, JudgeTask, Verdict
from flywheel.graders.judge.verdict import winner_of
from flywheel.records import Assessment, JsonObject


def conclude(
    judge: Judge,
    task: JudgeTask,
    replies: Mapping[str, JudgeReply],
    *,
    now: datetime,
    run: str | None = None,
) -> list[Assessment]:
    """The rows a task's replies amount to.

    Args:
        judge: Who was asked.
        task: What was judged.
        replies: By `JudgeCall.key`; one for each call of `plan_calls`.
        now: When the judgement is given.
        run: Which attempt this is, in the ids of rows that failed; the time when absent.

    Raises:
        KeyError: a call has no reply.
    """
    calls = plan_calls(judge, task)
    sheet = _Sheet(judge, task, task_covariates(task), now, run or now.isoformat())
    rows: list[Assessment] = []
    for seat in judge.section.panel:
        outcomes = [
            _outcome(judge, call, replies[call.key])
            for call in calls
            if (call.provider, call.model) == (seat.provider, seat.model)
        ]
        is_pair = judge.rubric.mode == "pairwise"
        rows += (_pair_rows if is_pair else _answer_rows)(sheet, seat.model, outcomes)
    return rows


@dataclass(frozen=True)
class _Failure:
    error_type: str
    message: str | None


@dataclass(frozen=True)
class _Outcome:
    """One call, what it cost and what it said."""

    call: JudgeCall
    reply: JudgeReply
    said: Verdict | _Failure


@dataclass(frozen=True)
class _Said:
    """What a row says."""

    name: str
    label: str | None = None
    value: float | None = None
    rationale: str | None = None
    failure: _Failure | None = None
    covariates: JsonObject | None = None


@dataclass(frozen=True)
class _Sheet:
    """What all rows of a task share."""

    judge: Judge
    task: JudgeTask
    covariates: JsonObject
    now: datetime
    attempt: str

    def row(
        self, model: str, said: _Said, *, order: str | None, paid: JudgeReply | None
    ) -> Assessment:
        """One row; `paid` is the reply whose cost it carries."""
        judge, task, failure = self.judge, self.task, said.failure
        is_pair = judge.rubric.mode == "pairwise"
        identity = [judge.identity, task.workload, task.task_id, model, said.name, order]
        if failure is not None:
            identity.append(self.attempt)
        derived: JsonObject = {} if paid is not None else {"derived": True}
        return Assessment(
            assessment_id=hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32],
            workload=task.workload,
            event_date=self.now.date(),
            interaction_id=None if is_pair else task.interaction_id,
            pair_ids=task.pair_ids if is_pair else None,
            name=said.name,
            kind="preference" if is_pair else "feedback",
            value=said.value if failure is None else None,
            label=said.label if failure is None else None,
            rationale=failure.message if failure is not None else said.rationale,
            source_type="llm_judge",
            source_id=f"judge:{judge.name}/{model}",
            rubric=judge.rubric.reference_name,
            presented_order=order,
            blinded=True,
            status="submitted" if failure is None else "error",
            error_type=failure.error_type if failure is not None else None,
            judge_model=model,
            judge_prompt_hash=judge.identity,
            input_tokens=paid.input_tokens if paid is not None else None,
            output_tokens=paid.output_tokens if paid is not None else None,
            cost_usd=paid.cost_usd if paid is not None else None,
            covariates={**self.covariates, **derived, **(said.covariates or {})},
            subject_key=task.subject_key,
            inclusion_prob=task.inclusion_prob,
            created_at=self.now,
        )


def _outcome(judge: Judge, call: JudgeCall, reply: JudgeReply) -> _Outcome:
    if reply.text is None:
        failure = _Failure(reply.error_type or "judge_unavailable", reply.error_message)
        return _Outcome(call, reply, failure)
    try:
        return _Outcome(call, reply, read_verdict(judge, call, reply.text))
    except VerdictError as error:
        return _Outcome(call, reply, _Failure("judge_garbage", str(error)))


def _answer_rows(sheet: _Sheet, model: str, outcomes: Sequence[_Outcome]) -> list[Assessment]:
    (outcome,) = outcomes
    name, said = sheet.judge.name, outcome.said
    if isinstance(said, _Failure):
        return [sheet.row(model, _Said(name, failure=said), order=None, paid=outcome.reply)]
    overall = _Said(name, said.label, said.value, said.rationale)
    rows = [sheet.row(model, overall, order=None, paid=outcome.reply)]
    if len(said.criteria) > 1:
        parts = [_Said(f"{name}.{one.name}", one.label, one.value) for one in said.criteria]
        rows += [sheet.row(model, part, order=None, paid=None) for part in parts]
    return rows


def _pair_rows(sheet: _Sheet, model: str, outcomes: Sequence[_Outcome]) -> list[Assessment]:
    name = sheet.judge.name
    rows = []
    for outcome in outcomes:
        said, order = outcome.said, outcome.call.order
        told = (
            _Said(f"{name}:{order}", failure=said)
            if isinstance(said, _Failure)
            else _Said(f"{name}:{order}", said.label, said.value, said.rationale)
        )
        rows.append(sheet.row(model, told, order=order, paid=outcome.reply))
    verdicts = [outcome.said for outcome in outcomes if isinstance(outcome.said, Verdict)]
    failures = [outcome.said for outcome in outcomes if isinstance(outcome.said, _Failure)]
    if failures:
        # One order alone is half a judgement: it would carry the whole of the position bias.
        return [sheet.row(model, _Said(name, failure=failures[0]), order="both", paid=None), *rows]
    joined = _joined(sheet.judge, verdicts)
    return [*(sheet.row(model, said, order="both", paid=None) for said in joined), *rows]


def _joined(judge: Judge, verdicts: Sequence[Verdict]) -> list[_Said]:
    """Both orders as one verdict: overall, and by criterion where there are several."""
    first, second = verdicts
    names = [criterion.name for criterion in judge.rubric.criteria]
    labels = [
        (_winner(a.label), _winner(b.label))
        for a, b in zip(first.criteria, second.criteria, strict=True)
    ]
    parts = [_settle(judge, pair) for pair in labels]
    overall = _settle(judge, (winner_of([a for a, _ in labels]), winner_of([b for _, b in labels])))
    reasons = f"AB: {first.rationale}\nBA: {second.rationale}"
    said = [_told(judge.name, overall, reasons)]
    if len(names) > 1:
        said += [
            _told(f"{judge.name}.{part}", settled, None)
            for part, settled in zip(names, parts, strict=True)
        ]
    return said


@dataclass(frozen=True)
class _Settled:
    winner: Winner
    disagreement: str | None


def _settle(judge: Judge, orders: tuple[Winner, Winner]) -> _Settled:
    """What two orders say together; a win counts only where both orders say it."""
    first, second = orders
    if first == second:
        return _Settled(first, None)
    if "cannot_judge" in orders:
        return _Settled("cannot_judge", None)
    if "A" not in orders and "B" not in orders:
        return _Settled("tie", None)
    told = f"orders disagree: {first} when A came first, {second} when B did"
    is_tie = judge.section.order_disagreement == "tie"
    return _Settled("tie" if is_tie else "cannot_judge", told)


def _told(name: str, settled: _Settled, reasons: str | None) -> _Said:
    lines = [line for line in (settled.disagreement, reasons) if line]
    return _Said(
        name,
        label=settled.winner,
        value=PAIRWISE_VALUES[settled.winner],
        rationale="\n".join(lines) or None,
        covariates={"orders_agree": settled.disagreement is None},
    )


def _winner(label: str) -> Winner:
    return next(winner for winner in PAIRWISE_VALUES if winner == label)
