"""Whether a judge's word counts today: what it reached on gold labels, and whether it is the same.

`require_qualified` stands before everything that writes labels of a judge, `require_gate_judges`
before a gate that asks one; `flywheel judge list` shows the same standing. Input: the judge as
declared now, and the table `qualifications`.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Literal

from flywheel.errors import JudgeNotQualifiedError
from flywheel.graders.judge import Judge, build_judges
from flywheel.judge_rules import shared_families
from flywheel.judges import JudgePurpose
from flywheel.label.qualifying.measures import bar_of, passes
from flywheel.lake import Lake
from flywheel.records import (
    JsonObject,
    Qualification,
    QualificationMeasure,
    Record,
    UtcDatetime,
    utcnow,
)
from flywheel.workload import Workload

State = Literal["qualified", "never", "failed", "expired", "changed"]

_HISTORY = """
SELECT * FROM qualifications WHERE workload = ? AND judge = ?
ORDER BY created_at, qualification_id
"""


class JudgeStanding(Record):
    """Whether one judge's word counts, and why not."""

    judge: str
    purpose: JudgePurpose
    models: str
    """Of the panel, joined by ` + `."""
    rubric: str
    identity: str
    state: State
    reason: str
    """A sentence's worth; of a qualified judge until when."""
    valid_until: UtcDatetime | None = None
    """NULL unless it is qualified."""
    last: Qualification | None = None
    """The measurement the state rests on."""
    measurements: int = 0
    """Of this very judge, so far."""
    gold_sets: int = 0
    """Different gold labels among them."""


def require_qualified(
    lake: Lake, workload: Workload, judge: Judge, *, now: datetime | None = None
) -> Qualification:
    """The qualification that lets the judge label at this moment.

    Raises:
        JudgeNotQualifiedError: it never qualified, failed, expired, or is no longer the judge that
            qualified; the error says which, and the command that qualifies it.
    """
    standing = standing_of(lake, workload, judge, now=now)
    if standing.state != "qualified" or standing.last is None:
        raise JudgeNotQualifiedError(judge.name, standing.reason)
    return standing.last


def require_gate_judges(
    lake: Lake, workload: Workload, *, now: datetime | None = None
) -> list[Qualification]:
    """The qualifications of every judge of `judges` that a grader of the gate asks.

    A gate that listened to an unmeasured judge would promote by its taste.

    Raises:
        JudgeNotQualifiedError: as `require_qualified`, of the first that is not.
    """
    named = sorted(set(_gate_judges(workload)))
    judges = build_judges(workload) if named else {}
    return [require_qualified(lake, workload, judges[name], now=now) for name in named]


def _gate_judges(workload: Workload) -> Iterator[str]:
    gate = workload.gate
    for grader in (gate.target.grader, *(rail.grader for rail in gate.guardrails)):
        yield from _asked_judges(workload.graders[grader])


def _asked_judges(spec: JsonObject) -> Iterator[str]:
    """The judges a grader names, those of the graders inside it too."""
    judge, inner = spec.get("judge"), spec.get("graders")
    if spec.get("type") == "x-judge" and isinstance(judge, str):
        yield judge
    for part in inner.values() if isinstance(inner, dict) else ():
        if isinstance(part, dict):
            yield from _asked_judges(part)


def standing_of(
    lake: Lake, workload: Workload, judge: Judge, *, now: datetime | None = None
) -> JudgeStanding:
    """Whether the judge may label, by its history in the lake."""
    history = history_of(lake, workload, judge)
    own = shared_families(judge.section, workload.base_model)
    return decide_standing(judge, history, now=now or utcnow(), own_families=own)


def decide_standing(
    judge: Judge,
    history: Sequence[Qualification],
    *,
    now: datetime,
    own_families: frozenset[str] = frozenset(),
) -> JudgeStanding:
    """The standing that a history of measurements gives. Pure.

    The latest measurement of this very judge counts, also where an earlier one was better: to
    measure again until it passes would make a bar of luck. Bars and `valid_days` are today's, so
    that a bar raised since is not cleared by what it was. For the same reason a pass after a
    failure counts only on as many gold items: `weaker_gold`.

    Args:
        judge: As declared now.
        history: Its qualifications by time.
        now: At the very moment it expires a qualification no longer counts.
        own_families: Those the judge shares with the policy, which then must have been measured.
    """
    same = same_judge(judge, history)
    last = same[-1] if same else history[-1] if history else None
    state, reason = _decide(judge, same, last, now, own_families)
    return JudgeStanding(
        judge=judge.name,
        purpose=judge.section.purpose,
        models=models_of(judge),
        rubric=rubric_of(judge),
        identity=judge.identity,
        state=state,
        reason=reason,
        valid_until=_expiry(judge, last) if last and state == "qualified" else None,
        last=last,
        measurements=len(same),
        gold_sets=count_gold_sets(same),
    )


def same_judge(judge: Judge, history: Sequence[Qualification]) -> list[Qualification]:
    """The measurements of this very judge."""
    return [one for one in history if one.judge_hash == judge.identity]


def history_of(lake: Lake, workload: Workload, judge: Judge) -> list[Qualification]:
    """Every measurement under the judge's name, by time."""
    return lake.fetch(Qualification, _HISTORY, [workload.name, judge.name])


def weaker_gold(items: int, same: Sequence[Qualification]) -> str | None:
    """Why a pass does not count after what came before it, or None where it does.

    Args:
        items: Gold items it passed on.
        same: What this very judge was measured at before.
    """
    failure = max((one for one in same if not one.qualified), key=_items, default=None)
    if failure is None or items >= failure.items:
        return None
    return (
        f"a pass on {items} gold items does not make up for the failure on {failure.items} of "
        f"{failure.created_at:%Y-%m-%d}: measure it on at least {failure.items}, or change it"
    )


def count_gold_sets(same: Sequence[Qualification]) -> int:
    """How many different gold sets a judge was measured on."""
    return len({one.gold_hash for one in same})


def _items(one: Qualification) -> int:
    return one.items


def models_of(judge: Judge) -> str:
    """The panel's models, as `Qualification.judge_model` names them."""
    return " + ".join(seat.model for seat in judge.section.panel)


def rubric_of(judge: Judge) -> str:
    """The rubric's name and version."""
    return f"{judge.rubric.name}@{judge.rubric.version}"


def _decide(
    judge: Judge,
    same: Sequence[Qualification],
    last: Qualification | None,
    now: datetime,
    own: frozenset[str],
) -> tuple[State, str]:
    if last is None:
        return "never", "it was never measured on gold labels"
    if not same:
        return "changed", _changes(judge, last)
    weaker = weaker_gold(last.items, same[:-1]) if last.qualified else None
    failures = [*_failures(judge, last, own), *([weaker] if weaker else [])]
    if failures:
        return "failed", f"it failed on {last.created_at:%Y-%m-%d}: {'; '.join(failures)}"
    expiry = _expiry(judge, last)
    if now >= expiry:
        return "expired", (
            f"its qualification of {last.created_at:%Y-%m-%d} expired on {expiry:%Y-%m-%d %H:%M} "
            "UTC"
        )
    return "qualified", f"qualified until {expiry:%Y-%m-%d %H:%M} UTC"


def _expiry(judge: Judge, last: Qualification) -> datetime:
    """A validity declared shorter since then holds for what was measured before, too."""
    return min(last.expires_at, last.created_at + timedelta(days=judge.section.bars.valid_days))


def _changes(judge: Judge, last: Qualification) -> str:
    """What became of the judge since it was measured."""
    parts = [
        f"{what} {was} -> {now}"
        for what, was, now in (
            ("model", last.judge_model, models_of(judge)),
            ("rubric", last.rubric, rubric_of(judge)),
        )
        if was != now
    ]
    told = ", ".join(parts) or (
        "the words of its rubric or prompt, a provider or its base_url, temperature, "
        f"max_tokens or order_disagreement ({last.judge_hash} -> {judge.identity})"
    )
    return f"it changed since it was measured on {last.created_at:%Y-%m-%d}: {told}"


def _failures(judge: Judge, last: Qualification, own: frozenset[str]) -> list[str]:
    """Why the measurement does not do, by today's bars."""
    if not last.qualified:
        return list(last.reasons) or ["no reason was recorded"]
    bars = judge.section.bars
    judged = last.items - last.errors
    found = [
        told
        for measure in last.measures
        if (told := failure_of(measure, bar_of(measure.name, bars))) is not None
    ]
    if own and all(measure.name != "self_preference" for measure in last.measures):
        kin = " and ".join(sorted(own))
        found.append(f"self_preference was not measured, and the policy is of its family {kin} now")
    if judged < bars.minimum_items:
        found.append(f"{judged} items judged, fewer than minimum_items {bars.minimum_items}")
    return found


def failure_of(measure: QualificationMeasure, bar: float) -> str | None:
    """The sentence that says what a measure lacks, or None where it clears the bar."""
    if passes(measure.name, low=measure.low, high=measure.high, bar=bar):
        return None
    if measure.value is None or measure.low is None or measure.high is None:
        return f"{measure.name} could not be measured"
    least = "exceeds" if measure.name in ("kappa", "swap_consistency") else "stays within"
    return (
        f"{measure.name} {measure.value:.3f} [{measure.low:.3f}, {measure.high:.3f}] on "
        f"{measure.n} items; the bar asks for an interval that {least} {bar:g}"
    )
