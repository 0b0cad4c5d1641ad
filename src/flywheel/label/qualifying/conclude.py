"""Verdicts on gold items -> a Qualification: qualified, or not and why. Pure."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from flywheel.errors import JudgeError
from flywheel.graders.judge import Judge
from flywheel.judge_rules import shared_families
from flywheel.label.qualifying.gold import GoldItem, gold_hash
from flywheel.label.qualifying.measures import Measured, measure_all
from flywheel.label.qualifying.permission import (
    failure_of,
    models_of,
    rubric_of,
    same_judge,
    weaker_gold,
)
from flywheel.label.qualifying.verdicts import GoldVerdict, criteria_of
from flywheel.records import Qualification
from flywheel.workload import Workload


def check_gold(judge: Judge, gold: Sequence[GoldItem]) -> None:
    """Refuses gold labels that cannot qualify the judge whatever it says, before any is paid for.

    Raises:
        JudgeError: there are too few, or all of them have one label.
    """
    least = judge.section.bars.minimum_items
    if len(gold) < least:
        raise JudgeError(
            f"judge {judge.name!r} cannot qualify on {len(gold)} gold items: "
            f"judges.{judge.name}.bars.minimum_items asks for {least}. Nothing was asked."
        )
    for name in criteria_of(judge):
        labels = Counter(item.gold(name) for item in gold)
        if len(labels) < 2:
            raise JudgeError(
                f"judge {judge.name!r} cannot qualify: every gold label of {name} is "
                f"{next(iter(labels))!r}, and kappa is not defined where there is nothing to tell "
                "apart. Add items with other labels. Nothing was asked."
            )


def conclude_qualification(  # noqa: PLR0913 - what a measurement consists of
    judge: Judge,
    workload: Workload,
    verdicts: Sequence[GoldVerdict],
    *,
    now: datetime,
    run_id: str | None = None,
    history: Sequence[Qualification] = (),
) -> tuple[Qualification, list[Measured]]:
    """What the judge reached, with every reason it did not qualify for.

    Args:
        judge: What was measured.
        workload: Whose base model the judge may be kin of.
        verdicts: One for each gold item, failures too.
        now: The time of measurement.
        run_id: MLflow run with the evidence.
        history: What was measured under the judge's name before: a pass after a failure counts
            only on as many items.
    """
    own = shared_families(judge.section, workload.base_model)
    measured = measure_all(judge, verdicts, own_families=own)
    bars = judge.section.bars
    reasons = [told for one in measured if (told := _reason(one)) is not None]
    reasons = [*_counted_out(judge, verdicts), *reasons]
    weaker = weaker_gold(len(verdicts), same_judge(judge, history))
    if not reasons and weaker is not None:
        reasons = [weaker]
    gold = gold_hash([verdict.item for verdict in verdicts])
    identity = "\0".join((workload.name, judge.name, judge.identity, gold, now.isoformat()))
    qualification = Qualification(
        qualification_id=hashlib.sha256(identity.encode()).hexdigest()[:32],
        workload=workload.name,
        created_at=now,
        expires_at=now + timedelta(days=bars.valid_days),
        judge=judge.name,
        judge_hash=judge.identity,
        judge_model=models_of(judge),
        rubric=rubric_of(judge),
        gold_hash=gold,
        items=len(verdicts),
        errors=sum(not verdict.has_verdict for verdict in verdicts),
        measures=tuple(one.measure for one in measured),
        qualified=not reasons,
        reasons=tuple(reasons),
        run_id=run_id,
    )
    return qualification, measured


def _reason(measured: Measured) -> str | None:
    failure = failure_of(measured.measure, measured.measure.bar)
    return failure if failure is None or measured.note is None else f"{failure} ({measured.note})"


def _counted_out(judge: Judge, verdicts: Sequence[GoldVerdict]) -> list[str]:
    """Too many failures, or too few answers to prove anything."""
    failed = Counter(verdict.error_type for verdict in verdicts if verdict.error_type)
    errors, section = failed.total(), judge.section
    reasons = []
    if verdicts and errors / len(verdicts) > section.run.max_error_share:
        kinds = ", ".join(f"{kind} {count}" for kind, count in failed.most_common())
        reasons.append(
            f"it failed on {errors} of {len(verdicts)} items ({kinds}), more than "
            f"run.max_error_share {section.run.max_error_share:g}"
        )
    if len(verdicts) - errors < section.bars.minimum_items:
        reasons.append(
            f"{len(verdicts) - errors} items judged, fewer than minimum_items "
            f"{section.bars.minimum_items}"
        )
    return reasons
