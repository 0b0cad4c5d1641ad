"""Who is asked what: a pure, seeded plan under a budget of minutes.

Input: what could be asked and how much each strategy wants it, what was asked before, and the
`review` section. Output: items for each rater's queue, in the order they are shown.

The random slice is drawn first and by itself. Every item has a permanent random number, a hash of
its name; the slice takes the smallest numbers not taken yet, and the first number it did not take
is the probability with which an item is in it (priority sampling with equal weights: Duffield,
Lund and Thorup 2007; permanent random numbers: Ohlsson 1995). What the strategies want has no part
in it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from flywheel.records import Record, ReviewReason, Share
from flywheel.reviews import ReviewSection, ReviewStrategy


def item_key(interaction_ids: Iterable[str]) -> str:
    """An item's name: its interaction's id, or the two of a pair whichever stands first."""
    return " ".join(sorted(interaction_ids))


class Candidate(Record):
    """Something that could be asked."""

    interaction_ids: tuple[str, ...]
    """One, or A and B of a pair."""
    scores: dict[ReviewStrategy, float] = Field(default_factory=dict)
    """How much each strategy wants it; a strategy that is not there does not."""

    @property
    def item(self) -> str:
        """Its name."""
        return item_key(self.interaction_ids)

    @property
    def is_pair(self) -> bool:
        """Whether two answers are compared."""
        return len(self.interaction_ids) == 2


class ReviewState(Record):
    """What was asked before."""

    asked: dict[str, frozenset[str]] = Field(default_factory=dict)
    """Items by rater or group, answered or waiting."""
    drawn: frozenset[str] = frozenset()
    """Items the random slice has taken already."""
    waiting_s: dict[str, float] = Field(default_factory=dict)
    """Seconds of work in each queue that nobody has done yet."""


class PlannedItem(Record):
    """One item for one rater."""

    rater: str
    interaction_ids: tuple[str, ...]
    presented_order: Literal["AB", "BA"] | None
    reason: ReviewReason
    inclusion_prob: Share | None
    position: int
    """In the rater's queue, 0 first."""
    seconds: float

    @property
    def item(self) -> str:
        """Its name."""
        return item_key(self.interaction_ids)


class Plan(Record):
    """What one push asks."""

    items: tuple[PlannedItem, ...]
    already_asked: tuple[PlannedItem, ...]
    """Drawn for the random slice, but every rater was asked before: their answers count for it."""
    budget_s: dict[str, float]
    """Seconds that were left to each queue before this plan."""
    skipped: tuple[str, ...] = ()
    """Items nobody is left to be asked of; of an adjudication."""


def plan_review(
    section: ReviewSection,
    candidates: Sequence[Candidate],
    gold: Sequence[Candidate],
    state: ReviewState,
) -> Plan:
    """Plans one push. The same input gives the same plan, in whatever order it comes.

    Args:
        section: Raters, budget, shares, strategies and the seed.
        candidates: The whole population the random slice stands for.
        gold: Items adjudicated before; those of them nobody may tell from the others.
        state: What was asked before.
    """
    desk = _Desk.open(section, state)
    ordered = sorted(candidates, key=lambda one: one.item)
    drawn, adopted = _draw_random(desk, ordered, state.drawn)
    _mix_gold(desk, sorted(gold, key=lambda one: one.item))
    _ask_by_strategy(desk, [one for one in ordered if one.item not in drawn])
    return Plan(
        items=_in_order(section, desk.placed),
        already_asked=tuple(adopted),
        budget_s=desk.budgets,
    )


def plan_adjudication(
    section: ReviewSection, disputed: Sequence[Candidate], state: ReviewState
) -> Plan:
    """Plans who decides where raters disagree: one adjudicator each, who did not rate the item."""
    desk = _Desk.open(section, state, raters=section.adjudicators)
    skipped = []
    for candidate in sorted(disputed, key=lambda one: one.item):
        if not desk.eligible(candidate.item):
            skipped.append(candidate.item)
            continue
        desk.place(candidate, "adjudication", raters=1, rooms=desk.rooms)
    items = _in_order(section, desk.placed)
    return Plan(items=items, already_asked=(), budget_s=desk.budgets, skipped=tuple(skipped))


def permanent_random_number(seed: int, item: str) -> float:
    """In [0, 1), the same for ever: what decides whether an item is in the random slice."""
    return _uniform(seed, "random slice", item)


@dataclass
class _Desk:
    """The queues while a plan is made."""

    section: ReviewSection
    budgets: dict[str, float]
    rooms: dict[str, float]
    """Seconds left."""
    people: dict[str, frozenset[str]]
    """Who answers in a queue: a group's members, or the rater alone."""
    seen: dict[str, set[str]]
    """By item, who was asked it."""
    placed: list[PlannedItem] = field(default_factory=list)

    @classmethod
    def open(
        cls, section: ReviewSection, state: ReviewState, *, raters: Sequence[str] | None = None
    ) -> "_Desk":
        names = section.queues if raters is None else raters
        budgets = {
            name: max(0.0, section.minutes * 60 - state.waiting_s.get(name, 0.0)) for name in names
        }
        seen: dict[str, set[str]] = {}
        for name, items in state.asked.items():
            for item in items:
                seen.setdefault(item, set()).update(_people(section, name))
        people = {name: _people(section, name) for name in names}
        return cls(section, budgets, dict(budgets), people, seen)

    def eligible(self, item: str) -> list[str]:
        """Queues in which nobody was asked the item."""
        seen = self.seen.get(item, set())
        return [name for name in self.budgets if not self.people[name] & seen]

    def place(
        self, candidate: Candidate, reason: ReviewReason, *, raters: int, rooms: dict[str, float]
    ) -> int:
        """Puts an item to as many raters as have room for it, at most `raters`; how many did."""
        seconds = self.section.seconds(is_pair=candidate.is_pair)
        able = [
            name
            for name in self.eligible(candidate.item)
            if rooms[name] >= seconds and self.rooms[name] >= seconds
        ]
        # The least busy first; who is first among equals differs from item to item.
        able.sort(key=lambda name: (-rooms[name], self._number("rater", name, candidate.item)))
        count = 0
        for name in able:
            if count == raters or self.people[name] & self.seen.get(candidate.item, set()):
                continue
            self.placed.append(self.planned(candidate, name, reason))
            self.seen.setdefault(candidate.item, set()).update(self.people[name])
            self.rooms[name] -= seconds
            if rooms is not self.rooms:
                rooms[name] -= seconds
            count += 1
        return count

    def planned(self, candidate: Candidate, rater: str, reason: ReviewReason) -> PlannedItem:
        """The item as this rater sees it."""
        order: Literal["AB", "BA"] | None = None
        if candidate.is_pair:
            order = "AB" if self._number("order", rater, candidate.item) < 0.5 else "BA"
        return PlannedItem(
            rater=rater,
            interaction_ids=candidate.interaction_ids,
            presented_order=order,
            reason=reason,
            inclusion_prob=None,
            position=0,
            seconds=self.section.seconds(is_pair=candidate.is_pair),
        )

    def raters_of(self, item: str) -> int:
        """How many see an item: by its own hash, so that being overlapped says nothing of it."""
        overlap = self.section.overlap
        return overlap.raters if self._number("overlap", item) < overlap.share else 1

    def _number(self, *what: str) -> float:
        return _uniform(self.section.seed, *what)


def _people(section: ReviewSection, name: str) -> frozenset[str]:
    return frozenset(section.groups.get(name, (name,))) | {name}


def _draw_random(
    desk: _Desk, candidates: Sequence[Candidate], drawn: frozenset[str]
) -> tuple[set[str], list[PlannedItem]]:
    """The random slice of single answers and that of pairs; each stands for its own population."""
    kinds = [
        [one for one in candidates if one.is_pair is is_pair and one.item not in drawn]
        for is_pair in (False, True)
    ]
    taken: set[str] = set()
    adopted: list[PlannedItem] = []
    parts = sum(1 for population in kinds if population)
    for population in kinds:
        if population:
            rooms = _random_rooms(desk, parts, is_pair=population[0].is_pair)
            taken |= _draw(desk, population, rooms, adopted)
    return taken, adopted


def _random_rooms(desk: _Desk, parts: int, *, is_pair: bool) -> dict[str, float]:
    """Seconds each rater gives to a random slice: its share, but never less than one item."""
    one = desk.section.seconds(is_pair=is_pair)
    share = desk.section.random_share / parts
    return {name: max(one, share * budget) for name, budget in desk.budgets.items()}


def _draw(
    desk: _Desk,
    population: Sequence[Candidate],
    rooms: dict[str, float],
    adopted: list[PlannedItem],
) -> set[str]:
    seed = desk.section.seed
    numbers = {one.item: permanent_random_number(seed, one.item) for one in population}
    taken: set[str] = set()
    start, adopted_start = len(desk.placed), len(adopted)
    threshold = 1.0
    for candidate in sorted(population, key=lambda one: (numbers[one.item], one.item)):
        if not desk.eligible(candidate.item):
            # Leaving it out would take from the slice just what the strategies had chosen.
            adopted.append(desk.planned(candidate, "", "random"))
        elif not desk.place(
            candidate, "random", raters=desk.raters_of(candidate.item), rooms=rooms
        ):
            threshold = numbers[candidate.item]
            break
        taken.add(candidate.item)
    known = {"inclusion_prob": threshold}
    desk.placed[start:] = [one.model_copy(update=known) for one in desk.placed[start:]]
    adopted[adopted_start:] = [one.model_copy(update=known) for one in adopted[adopted_start:]]
    return taken


def _mix_gold(desk: _Desk, gold: Sequence[Candidate]) -> None:
    """To each rater their share of items whose answer is known, each rater's own choice of them."""
    for name, budget in desk.budgets.items():
        rooms = {other: 0.0 for other in desk.budgets} | {name: budget * desk.section.gold_share}
        order = sorted(gold, key=lambda one: _uniform(desk.section.seed, "gold", name, one.item))
        for candidate in order:
            if name in desk.eligible(candidate.item):
                desk.place(candidate, "gold", raters=1, rooms=rooms)


def _ask_by_strategy(desk: _Desk, candidates: Sequence[Candidate]) -> None:
    """The strategies take turns; each asks what it wants most and nobody has taken."""
    planned = {one.item for one in desk.placed}
    turns = [_wanted(desk, candidates, strategy) for strategy in desk.section.strategies]
    names = list(desk.section.strategies)
    while turns:
        for name, wanted in list(zip(names, turns, strict=True)):
            for candidate in wanted:
                if candidate.item in planned:
                    continue
                raters = desk.raters_of(candidate.item)
                if desk.place(candidate, name, raters=raters, rooms=desk.rooms):
                    planned.add(candidate.item)
                    break
            else:
                names.remove(name)
                turns.remove(wanted)


def _wanted(
    desk: _Desk, candidates: Sequence[Candidate], strategy: ReviewStrategy
) -> Iterator[Candidate]:
    """What a strategy wants that was never asked of anybody, the most wanted first."""
    seed = desk.section.seed
    return iter(
        sorted(
            (one for one in candidates if strategy in one.scores and not desk.seen.get(one.item)),
            key=lambda one: (-one.scores[strategy], _uniform(seed, "tie", one.item)),
        )
    )


def _in_order(section: ReviewSection, placed: Sequence[PlannedItem]) -> tuple[PlannedItem, ...]:
    """Shuffled within each queue, so that where an item stands does not tell why it is there."""
    queues: Mapping[str, list[PlannedItem]] = {one.rater: [] for one in placed}
    for one in placed:
        queues[one.rater].append(one)
    return tuple(
        one.model_copy(update={"position": position})
        for rater in sorted(queues)
        for position, one in enumerate(
            sorted(
                queues[rater],
                key=lambda one: _uniform(section.seed, "position", rater, one.item),
            )
        )
    )


def _uniform(seed: int, *what: str) -> float:
    """In [0, 1) by hash: seeded, and without a generator's state that order could disturb."""
    text = "\0".join((str(seed), *what))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]) / 2**56
