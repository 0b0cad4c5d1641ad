"""`flywheel label calibrate`: a judge's mean over all it judged, corrected by random labels.

Input: a judge's rows and experts' labels in the lake. Output: a `Calibration`. The statistics are
in `calibration.py`; this finds the numbers and says when there is nothing to correct with.
"""

from importlib.resources import files

from flywheel.errors import CalibrationError
from flywheel.label.calibration import CalibratedMean, Population, ppi_mean
from flywheel.lake import Lake
from flywheel.records import Record, Share

MINIMUM_LABELS = 10
"""Random labels below which no mean is told: an interval of nine is too wide to be of use."""

_NAMES = """
SELECT DISTINCT name FROM assessments
WHERE workload = $1 AND source_type = 'human' AND status = 'submitted' ORDER BY name
"""


class _Item(Record):
    item: str
    is_judged: bool
    judge_said: float | None
    experts_said: float | None
    inclusion_prob: Share | None
    cluster: str


class Calibration(Record):
    """What experts would say of everything a judge judged."""

    workload: str
    judge: str
    against: str
    """The question the experts answered."""
    share_of: str | None
    """The mean is the share of this answer; None: it is the mean score."""
    mean: CalibratedMean
    failed: int
    """Items on which the judge failed. They stay in the mean, as if it had said its average."""
    not_random: int
    """Judged items with labels of unknown inclusion probability: picked, not drawn, so left out."""
    not_judged: int
    """Randomly labelled items the judge has not judged: left out, the mean is of what it judged."""


def calibrate(  # noqa: PLR0913 - the question, and two ways to put it
    lake: Lake,
    workload: str,
    judge: str,
    against: str,
    *,
    share_of: str | None = None,
    population: Population = "items",
    level: float = 0.95,
) -> Calibration:
    """The PPI++ estimate of what experts would say on average, over all that a judge judged.

    Args:
        lake: Where the judgements are.
        workload: Whose.
        judge: Its name, which is the name of its judgements. It need not be qualified: an estimate
            that leans on a bad judge is wide, not wrong.
        against: The name of the experts' labels.
        share_of: An answer: `pass`, or of pairs `A` or `tie`. None: the mean of the scores.
        population: What the mean is of; see `flywheel.label.calibration`.
        level: Confidence.

    Raises:
        CalibrationError: nothing judged, nothing labelled, or no label was drawn at random.
    """
    sql = (files("flywheel.label") / "calibration.sql").read_text(encoding="utf-8")
    items = lake.fetch(_Item, sql, [workload, judge, against, share_of])
    judged = [one for one in items if one.is_judged]
    if not any(one.judge_said is not None for one in judged):
        raise CalibrationError(
            judge, against, f"it has judged nothing of {workload}: `flywheel judge run {judge}`"
        )
    labelled = [one for one in judged if one.experts_said is not None]
    drawn = [one for one in labelled if one.inclusion_prob]
    if len(drawn) < MINIMUM_LABELS:
        raise CalibrationError(judge, against, _why_not(lake, workload, against, labelled, drawn))
    return Calibration(
        workload=workload,
        judge=judge,
        against=against,
        share_of=share_of,
        mean=_mean(judged, drawn, population=population, level=level),
        failed=sum(one.judge_said is None for one in judged),
        not_random=len(labelled) - len(drawn),
        not_judged=sum(
            not one.is_judged and one.experts_said is not None and bool(one.inclusion_prob)
            for one in items
        ),
    )


def _mean(
    judged: list[_Item], drawn: list[_Item], *, population: Population, level: float
) -> CalibratedMean:
    known = [one.judge_said for one in judged if one.judge_said is not None]
    average = sum(known) / len(known)
    chosen = {one.item for one in drawn}
    rest = [one for one in judged if one.item not in chosen]
    numbers = {name: at for at, name in enumerate(dict.fromkeys(one.cluster for one in judged))}

    def said(items: list[_Item]) -> list[float]:
        return [average if one.judge_said is None else one.judge_said for one in items]

    return ppi_mean(
        [one.experts_said for one in drawn if one.experts_said is not None],
        said(drawn),
        said(rest),
        inclusion_prob=[one.inclusion_prob for one in drawn if one.inclusion_prob],
        level=level,
        population=population,
        clusters=[numbers[one.cluster] for one in [*drawn, *rest]],
    )


def _why_not(
    lake: Lake, workload: str, against: str, labelled: list[_Item], drawn: list[_Item]
) -> str:
    if not labelled:
        names = lake.query(_NAMES, [workload]).column("name").to_pylist()
        there = ", ".join(names) or "none"
        return (
            f"no item it judged has a score by an expert under that name; experts' names: {there}"
        )
    draw = "`flywheel review push` keeps a randomly drawn slice apart"
    if not drawn:
        return (
            f"none of the {len(labelled)} labelled items has an inclusion probability: they were "
            f"picked, not drawn at random, and would bias the mean by how they were picked. {draw}"
        )
    return f"{len(drawn)} randomly drawn items are labelled, {MINIMUM_LABELS} are needed. {draw}"
