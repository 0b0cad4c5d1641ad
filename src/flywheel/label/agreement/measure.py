"""Ratings -> coefficients with intervals, of a group of raters and of each two of them. Pure."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

from flywheel.label.agreement.coefficients import (
    Summed,
    ac1_summed,
    alpha_summed,
    coded,
    cohen_summed,
    fleiss_summed,
    tallied,
)
from flywheel.label.agreement.intervals import coefficient_interval, share_interval
from flywheel.label.agreement.ratings import Asked, Rating, categories_of, scale_of
from flywheel.records import Interval, Record


class Coefficient(Record):
    """Agreement beyond chance by one measure."""

    measure: str
    """fleiss_kappa, krippendorff_nominal, cohen_kappa, …"""
    value: float | None
    low: float | None
    high: float | None
    level: float
    reason: str | None = None
    """Why there is no value, or no interval."""


class GroupAgreement(Record):
    """How far the raters of one question agree."""

    name: str
    group: str | None
    """A week, a guideline; None: all of them."""
    raters: int
    items: int
    """Rated by two or more."""
    rated_once: int
    ratings: int
    cannot_judge: int
    """Ratings that say so: left out, as missing."""
    categories: tuple[str, ...]
    unanimous: Interval | None
    """Share of items all of whose raters say the same."""
    coefficients: tuple[Coefficient, ...]


class PairAgreement(Record):
    """How far two raters agree on what both rated."""

    name: str
    rater_a: str
    rater_b: str
    items: int
    agreement: Interval | None
    """Share of them on which they say the same."""
    cohen_kappa: Coefficient
    cohen_kappa_quadratic: Coefficient | None
    """Where the answers have scores: far disagreements count more. None where they have not."""


def measure_group(
    name: str, group: str | None, ratings: Sequence[Rating], asked: Asked
) -> GroupAgreement:
    """The coefficients of any number of raters on one question."""
    given = [one for one in ratings if one.category is not None]
    by_item: dict[str, list[Rating]] = defaultdict(list)
    for one in given:
        by_item[one.item].append(one)
    several = [said for said in by_item.values() if len(said) > 1]
    clusters = [said[0].cluster for said in by_item.values()]
    return GroupAgreement(
        name=name,
        group=group,
        raters=len({one.rater for one in given}),
        items=len(several),
        rated_once=len(by_item) - len(several),
        ratings=len(given),
        cannot_judge=len(ratings) - len(given),
        categories=tuple(categories_of(given)),
        unanimous=share_interval(
            [len({one.category for one in said}) == 1 for said in several],
            [said[0].cluster for said in several],
            level=asked.level,
        ),
        coefficients=tuple(
            _coefficient(measure, summed, clusters, categories_of(given), asked)
            for measure, summed in _measures(list(by_item.values())).items()
        ),
    )


def _measures(items: Sequence[Sequence[Rating]]) -> dict[str, Summed]:
    given = [one for said in items for one in said]
    names = categories_of(given)
    counts = tallied([[one.category for one in said] for said in items], names)
    found = {
        "fleiss_kappa": fleiss_summed(counts),
        "krippendorff_nominal": alpha_summed(counts, names, "nominal"),
        "gwet_ac1": ac1_summed(counts),
    }
    scale = scale_of(given)
    if scale is not None:
        steps = sorted(set(scale.values()), key=float)
        units = [[scale[one.category] for one in said if one.category] for said in items]
        scored = tallied(units, steps)
        found["krippendorff_ordinal"] = alpha_summed(scored, steps, "ordinal")
        found["krippendorff_interval"] = alpha_summed(scored, steps, "interval")
    return found


def measure_pairs(name: str, ratings: Sequence[Rating], asked: Asked) -> list[PairAgreement]:
    """Cohen's kappa of each two raters of one question, those who share no item too."""
    said: dict[str, dict[str, Rating]] = defaultdict(dict)
    for one in ratings:
        if one.category is not None:
            said[one.rater][one.item] = one
    scale = scale_of(ratings)
    return [
        _pair(name, (a, b), [(said[a][item], said[b][item]) for item in sorted(both)], scale, asked)
        for a, b in combinations(sorted(said), 2)
        for both in [said[a].keys() & said[b].keys()]
    ]


def _pair(
    name: str,
    raters: tuple[str, str],
    both: Sequence[tuple[Rating, Rating]],
    scale: dict[str, str] | None,
    asked: Asked,
) -> PairAgreement:
    clusters = [one.cluster for one, _ in both]
    answers = [(one.category, other.category) for one, other in both]
    names = categories_of([one for pair in both for one in pair])
    plain = cohen_summed(coded(answers, names, width=2), len(names))
    weighted = None
    if scale is not None:
        steps = sorted(set(scale.values()), key=float)
        scores = [(scale[a], scale[b]) for a, b in answers if a and b]
        summed = cohen_summed(coded(scores, steps, width=2), len(steps), "quadratic")
        weighted = _coefficient("cohen_kappa_quadratic", summed, clusters, names, asked)
    return PairAgreement(
        name=name,
        rater_a=raters[0],
        rater_b=raters[1],
        items=len(both),
        agreement=share_interval([a == b for a, b in answers], clusters, level=asked.level),
        cohen_kappa=_coefficient("cohen_kappa", plain, clusters, names, asked),
        cohen_kappa_quadratic=weighted,
    )


def _coefficient(
    measure: str, summed: Summed, clusters: Sequence[str], categories: Sequence[str], asked: Asked
) -> Coefficient:
    value = summed.value()
    interval = coefficient_interval(summed, clusters, resamples=asked.resamples, level=asked.level)
    reason = None
    if not summed.is_pairable.any():
        reason = "no item is rated by two raters: no agreement can be computed"
    elif value is None:
        reason = f"every rating is {categories[0]!r}: agreement beyond chance is undefined"
    elif len(set(clusters)) < 2:
        reason = "all items are of one conversation: no interval"
    elif interval is None:
        reason = "too few items of a second answer (or too many answers) to resample: no interval"
    return Coefficient(
        measure=measure,
        value=value,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        level=asked.level,
        reason=reason,
    )
