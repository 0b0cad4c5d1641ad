"""`flywheel label agreement`: everything about how far raters agree, as one record.

Input: the lake's ratings. Output: an `AgreementReport`, printed by `cli/agreement.py` and drawn by
`page.py`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from flywheel.label.agreement.intervals import share_interval
from flywheel.label.agreement.measure import (
    GroupAgreement,
    PairAgreement,
    measure_group,
    measure_pairs,
)
from flywheel.label.agreement.queue import list_disagreements
from flywheel.label.agreement.ratings import (
    Asked,
    Rating,
    contradicted,
    latest,
    read_gold,
    read_names,
    read_ratings,
    week_of,
)
from flywheel.lake import Lake
from flywheel.records import Interval, Record, UtcDatetime, utcnow

Gold = dict[tuple[str, str], str]


class GoldAgreement(Record):
    """How often a rater said what gold says."""

    name: str
    rater: str
    week: str | None
    """ISO week of the ratings; None: all of them."""
    items: int
    agreement: Interval | None


class RaterAgreement(Record):
    """One rater of one question."""

    name: str
    rater: str
    ratings: int
    cannot_judge: int
    contradictions: int
    """Items of which the rater said different things; the latest counts."""
    with_others: Interval | None
    """Share of comparisons with another rater on the same item that agree."""
    gold: GoldAgreement


class Contradiction(Record):
    """What one rater said of one item, in turn; the last one counts."""

    name: str
    item: str
    rater: str
    answers: tuple[str, ...]


class AgreementReport(Record):
    """How far the raters of a workload agree."""

    asked: Asked
    made_at: UtcDatetime
    overall: tuple[GroupAgreement, ...]
    """By criterion: one for each question."""
    weeks: tuple[GroupAgreement, ...]
    """By the week in which an item got its last rating."""
    guidelines: tuple[GroupAgreement, ...]
    """By version; each rater's latest rating under it."""
    pairs: tuple[PairAgreement, ...]
    raters: tuple[RaterAgreement, ...]
    drift: tuple[GoldAgreement, ...]
    """Each rater's agreement with gold by week."""
    contradictions: tuple[Contradiction, ...]
    disagreements: int
    """Items that wait for adjudication: `flywheel label disagreements`."""
    notes: tuple[str, ...]
    """What a reader must know before the numbers."""


def report_agreement(lake: Lake, asked: Asked) -> AgreementReport:
    """Measures agreement by criterion, week, guideline, rater and pair of raters."""
    history = read_ratings(lake, asked)
    gold = read_gold(lake, asked)
    ratings = latest(history)
    changed = contradicted(history)
    by_name = _grouped(ratings, lambda one: one.name)
    return AgreementReport(
        asked=asked,
        made_at=utcnow(),
        overall=tuple(measure_group(name, None, said, asked) for name, said in by_name.items()),
        weeks=tuple(_by(by_name, _week_of_item, asked)),
        guidelines=tuple(_guidelines(history, asked)),
        pairs=tuple(
            pair for name, said in by_name.items() for pair in measure_pairs(name, said, asked)
        ),
        raters=tuple(_raters(by_name, gold, Counter((n, r) for n, _, r in changed), asked)),
        drift=tuple(_drift(ratings, gold, asked)),
        contradictions=tuple(
            Contradiction(name=name, item=item, rater=rater, answers=tuple(answers))
            for (name, item, rater), answers in sorted(changed.items())
        ),
        disagreements=len(list_disagreements(lake, asked.workload, asked.name)),
        notes=(
            *([] if ratings else [_nothing_found(asked, read_names(lake, asked.workload))]),
            *_notes(ratings, history, gold),
        ),
    )


def _grouped(ratings: Sequence[Rating], key: Callable[[Rating], str]) -> dict[str, list[Rating]]:
    groups: dict[str, list[Rating]] = defaultdict(list)
    for one in ratings:
        groups[key(one)].append(one)
    return dict(sorted(groups.items()))


def _week_of_item(ratings: Sequence[Rating]) -> Callable[[Rating], str]:
    last: dict[str, Rating] = {}
    for one in ratings:
        if one.item not in last or one.created_at > last[one.item].created_at:
            last[one.item] = one
    return lambda one: week_of(last[one.item].created_at)


def _by(
    by_name: dict[str, list[Rating]],
    key_of: Callable[[Sequence[Rating]], Callable[[Rating], str]],
    asked: Asked,
) -> list[GroupAgreement]:
    return [
        measure_group(name, group, said, asked)
        for name, ratings in by_name.items()
        for group, said in _grouped(ratings, key_of(ratings)).items()
    ]


def _guidelines(history: Sequence[Rating], asked: Asked) -> list[GroupAgreement]:
    versions = _grouped([one for one in history if one.guideline], lambda one: str(one.guideline))
    return [
        measure_group(name, version, said, asked)
        for version, given in versions.items()
        for name, said in _grouped(latest(given), lambda one: one.name).items()
    ]


def _raters(
    by_name: dict[str, list[Rating]],
    gold: Gold,
    changed: Counter[tuple[str, str]],
    asked: Asked,
) -> list[RaterAgreement]:
    found = []
    for name, ratings in by_name.items():
        of_item = _grouped([one for one in ratings if one.category is not None], lambda r: r.item)
        for rater, own in _grouped(ratings, lambda one: one.rater).items():
            compared = [
                (one.category == other.category, one.cluster)
                for one in own
                if one.category is not None
                for other in of_item[one.item]
                if other.rater != rater
            ]
            found.append(
                RaterAgreement(
                    name=name,
                    rater=rater,
                    ratings=sum(one.category is not None for one in own),
                    cannot_judge=sum(one.category is None for one in own),
                    contradictions=changed[name, rater],
                    with_others=share_interval(
                        [same for same, _ in compared],
                        # Comparisons of one item with several raters are not independent.
                        [cluster for _, cluster in compared],
                        level=asked.level,
                    ),
                    gold=_against_gold(name, rater, None, own, gold, asked),
                )
            )
    return found


def _against_gold(  # noqa: PLR0913 - what a row says
    name: str,
    rater: str,
    week: str | None,
    ratings: Sequence[Rating],
    gold: Gold,
    asked: Asked,
) -> GoldAgreement:
    known = [one for one in ratings if one.category is not None and (name, one.item) in gold]
    return GoldAgreement(
        name=name,
        rater=rater,
        week=week,
        items=len(known),
        agreement=share_interval(
            [one.category == gold[name, one.item] for one in known],
            [one.cluster for one in known],
            level=asked.level,
        ),
    )


def _drift(ratings: Sequence[Rating], gold: Gold, asked: Asked) -> list[GoldAgreement]:
    groups: dict[tuple[str, str, str], list[Rating]] = defaultdict(list)
    for one in ratings:
        if (one.name, one.item) in gold:
            groups[one.name, one.rater, week_of(one.created_at)].append(one)
    return [
        _against_gold(name, rater, week, said, gold, asked)
        for (name, rater, week), said in sorted(groups.items())
    ]


def _nothing_found(asked: Asked, names: dict[str, list[str]]) -> str:
    """What was looked for, and what there is instead."""
    wanted = [f"{asked.source_type} ratings"]
    wanted += [f"named {asked.name!r}"] if asked.name else []
    wanted += [f"under guideline {asked.guideline!r}"] if asked.guideline else []
    there = ", ".join(f"{name} ({', '.join(types)})" for name, types in names.items())
    return (
        f"nothing was found: {asked.workload} has no {' '.join(wanted)}; names there are: "
        f"{there or 'none'}. `flywheel label summary` counts them"
    )


def _notes(ratings: Sequence[Rating], history: Sequence[Rating], gold: Gold) -> list[str]:
    notes = []
    unnamed = sum(not one.rater for one in ratings)
    if unnamed:
        notes.append(
            f"{unnamed} ratings have no source_id and count as one rater without a name: "
            "`flywheel label import --source-id` names them"
        )
    changed = len(contradicted(history))
    if changed:
        notes.append(
            f"{changed} times a rater contradicted themselves on an item: the latest rating counts"
        )
    versions = sorted({one.guideline or "none" for one in ratings})
    if len(versions) > 1:
        notes.append(
            f"ratings under different guidelines ({', '.join(versions)}) are compared; "
            "--guideline restricts to one"
        )
    if ratings and not gold:
        notes.append(
            "no gold: nothing is adjudicated (round `adjudication`) or recorded as an expectation, "
            "so drift cannot be told"
        )
    return notes
