"""What could be asked, and what was asked before: read from the lake."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import cast

from flywheel.label.review.novelty import new_clusters
from flywheel.label.review.plan import Candidate, ReviewState, item_key
from flywheel.lake import Lake
from flywheel.records import Message, Record, ReviewItem
from flywheel.reviews import ReviewSection, ReviewStrategy
from flywheel.workload import Workload

NEWEST = 5_000
"""Interactions whose texts are clustered; older ones had their turn."""

_POPULATION = """
SELECT interaction_id FROM interactions
WHERE workload = $1 AND status IN ('ok', 'truncated') AND response IS NOT NULL AND arm <> 'shadow'
ORDER BY interaction_id
"""
_TEXTS = """
SELECT interaction_id, messages FROM interactions
WHERE workload = $1 AND status IN ('ok', 'truncated') AND response IS NOT NULL AND arm <> 'shadow'
ORDER BY started_at DESC, interaction_id LIMIT $2
"""
_ITEMS = "SELECT * FROM review_items WHERE workload = $1 ORDER BY created_at, rater, position"
_HUMAN = """
SELECT DISTINCT coalesce(interaction_id, concat_ws(' ',
    least(pair_ids ->> 0, pair_ids ->> 1), greatest(pair_ids ->> 0, pair_ids ->> 1))) AS item,
    source_id AS rater, coalesce(round, '1') AS round, rubric
FROM assessments
WHERE workload = $1 AND source_type = 'human' AND source_id IS NOT NULL
    AND list_contains($2::VARCHAR[], name)
"""


class Said(Record):
    """That a person judged an item."""

    item: str
    rater: str
    round: str
    rubric: str | None


class Asked(Record):
    """What was asked so far, and what of it was answered."""

    items: tuple[ReviewItem, ...]
    said: tuple[Said, ...]

    def open_items(self, section: ReviewSection) -> list[ReviewItem]:
        """Items in a queue without an answer pulled, each once."""
        answered = {(one.item, one.rater, one.round, one.rubric) for one in self.said}
        found: dict[str, ReviewItem] = {}
        for one in self.items:
            item = item_key(one.interaction_ids)
            people = {*section.groups.get(one.rater, ()), one.rater}
            if not any((item, who, one.round, one.guideline) in answered for who in people):
                found.setdefault(one.trace_id, one)
        return list(found.values())

    def state(self, section: ReviewSection) -> ReviewState:
        """The same, for the plan. Imported judgements count as asked too."""
        asked: dict[str, set[str]] = defaultdict(set)
        for item in self.items:
            asked[item.rater].add(item_key(item.interaction_ids))
        for one in self.said:
            asked[one.rater].add(one.item)
        waiting: dict[str, float] = defaultdict(float)
        for item in self.open_items(section):
            if item.guideline != section.guideline:
                continue  # asked under a guideline that is no longer followed: nobody need answer
            waiting[item.rater] += section.seconds(is_pair=len(item.interaction_ids) == 2)
        drawn = (item_key(one.interaction_ids) for one in self.items if one.reason == "random")
        return ReviewState(
            asked={rater: frozenset(items) for rater, items in asked.items()},
            drawn=frozenset(drawn),
            waiting_s=dict(waiting),
        )


def read_asked(lake: Lake, workload: Workload, section: ReviewSection) -> Asked:
    """Everything put to raters so far."""
    items = lake.fetch(ReviewItem, _ITEMS, [workload.name])
    said = lake.fetch(Said, _HUMAN, [workload.name, question_names(section)])
    return Asked(items=tuple(items), said=tuple(said))


def question_names(section: ReviewSection) -> list[str]:
    """The names answers are stored under."""
    return sorted({question.name or key for key, question in section.questions.items()})


def read_candidates(
    lake: Lake, workload: Workload, section: ReviewSection, asked: Iterable[str]
) -> list[Candidate]:
    """The population: every answer, and every pair that can be compared, with their scores."""
    name = workload.name
    population: list[tuple[str, ...]] = []
    if any(not question.is_pairwise for question in section.questions.values()):
        ids = lake.query(_POPULATION, [name]).column("interaction_id").to_pylist()
        population += [(one,) for one in ids]
    if any(question.is_pairwise for question in section.questions.values()):
        population += [(str(row["a"]), str(row["b"])) for row in _rows(lake, "pairs.sql", [name])]
    scores: dict[str, dict[ReviewStrategy, float]] = defaultdict(dict)
    for row in _rows(lake, "signals.sql", [name]):
        strategy = cast(ReviewStrategy, row["strategy"])
        best = scores[str(row["item"])].get(strategy, 0.0)
        scores[str(row["item"])][strategy] = max(best, float(str(row["score"])))
    if "new_clusters" in section.strategies:
        for item, score in _novelty(lake, name, frozenset(asked)).items():
            scores[item]["new_clusters"] = score
    return [
        Candidate(interaction_ids=ids, scores=scores.get(item_key(ids), {})) for ids in population
    ]


def read_gold(lake: Lake, workload: Workload, section: ReviewSection) -> list[Candidate]:
    """Items whose every question a person adjudicated."""
    return _spoken(lake, workload, section, "adjudicated", is_settled=True)


def read_disputed(lake: Lake, workload: Workload, section: ReviewSection) -> list[Candidate]:
    """Items on some question of which experts are split, and nobody has adjudicated."""
    return _spoken(lake, workload, section, "expert", is_settled=False)


def _spoken(
    lake: Lake, workload: Workload, section: ReviewSection, source: str, *, is_settled: bool
) -> list[Candidate]:
    params = [workload.name, question_names(section), source]
    kinds = {question.is_pairwise for question in section.questions.values()}
    found = [
        Candidate(interaction_ids=tuple(str(row["item"]).split(" ")))
        for row in _rows(lake, "verdicts.sql", params)
        if row["is_settled"] is is_settled
    ]
    return [one for one in found if one.is_pair in kinds]


def _rows(lake: Lake, name: str, params: Sequence[object]) -> list[dict[str, object]]:
    sql = (files("flywheel.label.review") / name).read_text(encoding="utf-8")
    rows: list[dict[str, object]] = lake.query(sql, params).to_pylist()
    return rows


def _novelty(lake: Lake, workload: str, asked: frozenset[str]) -> Mapping[str, float]:
    rows = lake.query(_TEXTS, [workload, NEWEST]).to_pylist()
    known_ids = {one for item in asked for one in item.split(" ")}
    texts = {row["interaction_id"]: _last_user_text(row["messages"]) for row in rows}
    known = [text for one, text in texts.items() if one in known_ids]
    return new_clusters({one: texts[one] for one in texts if one not in known_ids}, known)


def _last_user_text(messages: str) -> str:
    parsed = [Message.model_validate(message) for message in json.loads(messages)]
    return next((message.text for message in reversed(parsed) if message.role == "user"), "")
