"""`flywheel label calibrate`: a judge's mean over all it judged, corrected by random labels.

Input: a judge's rows and experts' labels in the lake. Output: a `Calibration`. The statistics are
in `calibration.py`; this finds the numbers and says when there is nothing to correct with.
"""

from collections.abc import Sequence
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

_ANSWERS = """
SELECT DISTINCT category FROM ratings
WHERE workload = $1
    AND category IS NOT NULL
    AND (
        (name = $2 AND source_type = 'llm_judge' AND judge_prompt_hash IS NOT DISTINCT FROM $4)
        OR (name = $3 AND tier <= 2)
    )
ORDER BY category
"""
MOST_ANSWERS_TOLD = 20


class CalibrationItem(Record):
    """An answer or a pair, what a judge said of it and what experts did."""

    item: str
    is_judged: bool
    judge_said: float | None
    """None where it failed or could not judge."""
    experts_said: float | None
    without_score: int
    """Experts' labels without a number, such as a correction without a verdict."""
    inclusion_prob: Share | None
    cluster: str

    @property
    def is_drawn(self) -> bool:
        """Whether it is judged, labelled, and was drawn at random to be."""
        return self.is_judged and self.experts_said is not None and bool(self.inclusion_prob)


class JudgeVersion(Record):
    """One version of a judge, and how many judgements of it stand."""

    version: str | None
    """`judge_prompt_hash`; None of judgements that came by a file or by feedback."""
    judgements: int


class Calibration(Record):
    """What experts would say of everything a judge judged."""

    workload: str
    judge: str
    against: str
    """The question the experts answered."""
    share_of: str | None
    """The mean is the share of this answer; None: it is the mean score."""
    mean: CalibratedMean
    version: str | None
    """`judge_prompt_hash` of the judgements the mean is of."""
    other_versions: int
    """Judgements by the same name of other versions of the judge: left out."""
    failed: int
    """Items on which the judge failed. They stay in the mean, as if it had said its average."""
    not_random: int
    """Judged items with labels of unknown inclusion probability: picked, not drawn, so left out."""
    labels_without_score: int
    """Experts' labels of judged items that hold no number (a correction without a verdict, a
    category, `cannot_judge`): left out."""
    not_judged: int
    """Randomly labelled items the judge has not judged: left out, the mean is of what it judged."""


def calibrate(  # noqa: PLR0913 - the question, and two ways to put it
    lake: Lake,
    workload: str,
    judge: str,
    against: str,
    *,
    share_of: str | None = None,
    version: str | None = None,
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
        share_of: An answer as the view `ratings` has it: a category (`urgent`); a number as it
            is written (`1` is a review's pass, `0` its fail); of pairs `A`, `B` or `tie`. None:
            the mean of the scores.
        version: `judge_prompt_hash` of the judgements that count (`Judge.identity`). None: of the
            version that judged last.
        population: What the mean is of; see `flywheel.label.calibration`.
        level: Confidence.

    Raises:
        CalibrationError: nothing judged, nothing labelled, no label was drawn at random, or
            nobody gave the answer the share is of.
    """
    versions = judge_versions(lake, workload, judge)
    if version is None and versions:
        version = versions[0].version
    others = sum(one.judgements for one in versions if one.version != version)
    items = read_items(lake, workload, judge, against, version=version, share_of=share_of)
    judged = [one for one in items if one.is_judged]
    if not any(one.judge_said is not None for one in judged):
        raise CalibrationError(judge, against, _nothing_judged(workload, judge, others))
    labelled = [one for one in judged if one.experts_said is not None]
    drawn = [one for one in labelled if one.is_drawn]
    if len(drawn) < MINIMUM_LABELS:
        raise CalibrationError(judge, against, _why_not(lake, workload, against, judged))
    if share_of is not None:
        _check_answer(lake, (workload, judge, against, version), share_of)
    return Calibration(
        workload=workload,
        judge=judge,
        against=against,
        share_of=share_of,
        mean=calibrated_mean(judged, population=population, level=level),
        version=version,
        other_versions=others,
        failed=sum(one.judge_said is None for one in judged),
        not_random=len(labelled) - len(drawn),
        labels_without_score=sum(one.without_score for one in judged),
        not_judged=sum(
            not one.is_judged and one.experts_said is not None and bool(one.inclusion_prob)
            for one in items
        ),
    )


def judge_versions(lake: Lake, workload: str, judge: str) -> list[JudgeVersion]:
    """The versions of a judge whose judgements stand, the one that judged last first."""
    return lake.fetch(JudgeVersion, _sql("versions"), [workload, judge])


def read_items(  # noqa: PLR0913 - the question, and two ways to put it
    lake: Lake,
    workload: str,
    judge: str,
    against: str,
    *,
    version: str | None,
    share_of: str | None = None,
) -> list[CalibrationItem]:
    """All that one version of a judge judged or experts labelled; arguments as of `calibrate`."""
    params = [workload, judge, against, share_of, version]
    return lake.fetch(CalibrationItem, _sql("calibration"), params)


def calibrated_mean(
    judged: Sequence[CalibrationItem], *, population: Population = "items", level: float = 0.95
) -> CalibratedMean:
    """The mean over judged items; one on which the judge failed stays in as if of its average.

    Raises:
        ValueError: fewer than three of them were drawn at random and labelled.
    """
    drawn = [one for one in judged if one.is_drawn]
    known = [one.judge_said for one in judged if one.judge_said is not None]
    average = sum(known) / len(known)
    chosen = {one.item for one in drawn}
    rest = [one for one in judged if one.item not in chosen]
    numbers = {name: at for at, name in enumerate(dict.fromkeys(one.cluster for one in judged))}

    def said(items: Sequence[CalibrationItem]) -> list[float]:
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


def _sql(name: str) -> str:
    return (files("flywheel.label") / f"{name}.sql").read_text(encoding="utf-8")


def _nothing_judged(workload: str, judge: str, others: int) -> str:
    if others:
        return (
            f"as it is now it has judged nothing of {workload}, and {others} judgements of other "
            f"versions of it do not count: `flywheel judge run {judge}`"
        )
    return f"it has judged nothing of {workload}: `flywheel judge run {judge}`"


def _check_answer(lake: Lake, asked: tuple[str, str, str, str | None], share_of: str) -> None:
    workload, judge, against, version = asked
    rows = lake.query(_ANSWERS, [workload, judge, against, version])
    answers = [str(answer) for answer in rows.column("category").to_pylist()]
    if share_of in answers:
        return
    told = ", ".join(answers[:MOST_ANSWERS_TOLD])
    more = f" and {len(answers) - MOST_ANSWERS_TOLD} more" * (len(answers) > MOST_ANSWERS_TOLD)
    raise CalibrationError(
        judge, against, f"nobody answered {share_of!r}; the answers there are: {told}{more}"
    )


def _why_not(lake: Lake, workload: str, against: str, judged: Sequence[CalibrationItem]) -> str:
    labelled = [one for one in judged if one.experts_said is not None]
    drawn = [one for one in labelled if one.is_drawn]
    unscored = sum(one.without_score for one in judged)
    if not labelled and unscored:
        return (
            f"none of the {unscored} labels experts gave the items it judged has a score; "
            "`--share-of` estimates how often one answer is given"
        )
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
