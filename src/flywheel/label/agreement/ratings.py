"""The ratings of one workload, as the view `ratings` has them, and what a report is asked of."""

from collections.abc import Iterable
from datetime import datetime

from flywheel.label.agreement.coefficients import ordered
from flywheel.lake import Lake
from flywheel.records import Record, SourceType, UtcDatetime

_RATINGS = """
SELECT item, name, rater, category, score, guideline, cluster, created_at
FROM ratings
WHERE workload = $1
    AND ($2::VARCHAR IS NULL OR name = $2)
    AND source_type = $3
    AND tier <> 1
    AND kind <> 'expectation'
    AND ($4::VARCHAR IS NULL OR guideline = $4)
ORDER BY created_at, assessment_id
"""
_GOLD = """
SELECT item, name, category
FROM ratings
WHERE workload = $1
    AND ($2::VARCHAR IS NULL OR name = $2)
    AND category IS NOT NULL
    AND (tier = 1 OR (kind = 'expectation' AND source_type <> 'llm_judge'))
-- An adjudication goes before an expectation, the latest before earlier ones.
QUALIFY row_number() OVER (
    PARTITION BY item, name ORDER BY tier <> 1, created_at DESC, assessment_id DESC
) = 1
"""


_NAMES = """
SELECT DISTINCT name, source_type FROM ratings
WHERE workload = $1 AND kind <> 'expectation' AND tier <> 1
ORDER BY name, source_type
"""


class Rating(Record):
    """What one rater said of one item."""

    item: str
    name: str
    rater: str
    category: str | None
    """None: the rater could not judge."""
    score: float | None
    guideline: str | None
    cluster: str
    """Conversation; the item itself where it is not known."""
    created_at: UtcDatetime


class Asked(Record):
    """Which ratings a report is about."""

    workload: str
    name: str | None = None
    source_type: SourceType = "human"
    guideline: str | None = None
    level: float = 0.95
    resamples: int = 2000


def read_ratings(lake: Lake, asked: Asked) -> list[Rating]:
    """Ratings by time, a rater's earlier ones of an item included."""
    params = [asked.workload, asked.name, asked.source_type, asked.guideline]
    return lake.fetch(Rating, _RATINGS, params)


def read_gold(lake: Lake, asked: Asked) -> dict[tuple[str, str], str]:
    """What each item should have been called, by name and item: adjudicated, or expected."""
    rows = lake.query(_GOLD, [asked.workload, asked.name]).to_pylist()
    return {(row["name"], row["item"]): row["category"] for row in rows}


def read_names(lake: Lake, workload: str) -> dict[str, list[str]]:
    """The questions that somebody rated at all, each with the source types of the raters."""
    found: dict[str, list[str]] = {}
    for row in lake.query(_NAMES, [workload]).to_pylist():
        found.setdefault(row["name"], []).append(row["source_type"])
    return found


def latest(ratings: Iterable[Rating]) -> list[Rating]:
    """Of each rater the latest rating of each item."""
    return list({(one.name, one.item, one.rater): one for one in ratings}.values())


def contradicted(ratings: Iterable[Rating]) -> dict[tuple[str, str, str], list[str]]:
    """What a rater said of an item, in turn, where it is not always the same."""
    said: dict[tuple[str, str, str], list[str]] = {}
    for one in ratings:
        if one.category is not None:
            said.setdefault((one.name, one.item, one.rater), []).append(one.category)
    return {key: answers for key, answers in said.items() if len(set(answers)) > 1}


def scale_of(ratings: Iterable[Rating]) -> dict[str, str] | None:
    """The score of each category as text, where every category has exactly one; else None.

    With two scores or fewer there is nothing that order could add, and it is None too.
    """
    scores: dict[str, set[float]] = {}
    for one in ratings:
        if one.category is not None:
            if one.score is None:
                return None
            scores.setdefault(one.category, set()).add(one.score)
    if any(len(found) > 1 for found in scores.values()):
        return None
    told = {category: repr(found.pop()) for category, found in scores.items()}
    return told if len(set(told.values())) > 2 else None


def categories_of(ratings: Iterable[Rating]) -> list[str]:
    """The answers given, in order."""
    return ordered({one.category for one in ratings})


def week_of(moment: datetime) -> str:
    """The ISO week: `2026-W03`."""
    year, week, _ = moment.isocalendar()
    return f"{year}-W{week:02d}"
