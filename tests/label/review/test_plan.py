"""The plan is a pure function: what it promises is held against random input."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.label.review.plan import (
    Candidate,
    Plan,
    PlannedItem,
    ReviewState,
    permanent_random_number,
    plan_adjudication,
    plan_review,
)
from flywheel.records import ReviewReason
from flywheel.reviews import ReviewSection, ReviewStrategy
from tests.label.review.conftest import make_section

STRATEGIES: tuple[ReviewStrategy, ...] = (
    "complaints",
    "order_disagreement",
    "panel_split",
    "uncertainty",
    "new_clusters",
)
ITEMS = [(f"i-{number:02}",) for number in range(30)] + [
    (f"p-{number:02}", f"q-{number:02}") for number in range(10)
]


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    scores = st.dictionaries(st.sampled_from(STRATEGIES), st.floats(0, 1), max_size=3)
    picked = draw(st.lists(st.sampled_from(ITEMS), unique=True, max_size=40))
    return [Candidate(interaction_ids=ids, scores=draw(scores)) for ids in picked]


@st.composite
def sections(draw: st.DrawFn) -> ReviewSection:
    groups = draw(st.sampled_from([{}, {"nurses": ["n-1", "dr-b"]}]))
    return make_section(
        raters=draw(st.sampled_from([["dr-a", "dr-b"], ["dr-a", "dr-b", "dr-c"]])),
        groups=groups,
        minutes=draw(st.integers(0, 12)),
        seconds_per_item=draw(st.sampled_from([20, 60])),
        seconds_per_pair=draw(st.sampled_from([30, 90])),
        gold_share=draw(st.sampled_from([0, 0.2])),
        random_share=draw(st.sampled_from([0.1, 0.5])),
        overlap={"share": draw(st.sampled_from([0, 0.5, 1]))},
        seed=draw(st.integers(0, 5)),
    )


@st.composite
def states(draw: st.DrawFn) -> ReviewState:
    items = st.frozensets(st.sampled_from([" ".join(ids) for ids in ITEMS]), max_size=10)
    names = ["dr-a", "dr-b", "nurses"]
    return ReviewState(
        asked={name: draw(items) for name in names},
        drawn=draw(items),
        waiting_s={"dr-a": draw(st.sampled_from([0.0, 60.0, 10_000.0]))},
    )


def reasons(plan: Plan, reason: ReviewReason) -> list[PlannedItem]:
    return [one for one in plan.items if one.reason == reason]


@settings(max_examples=40)
@given(sections(), candidates(), candidates(), states())
def test_no_rater_gets_more_than_their_minutes_nor_an_item_twice(
    section: ReviewSection, population: list[Candidate], gold: list[Candidate], state: ReviewState
) -> None:
    plan = plan_review(section, population, gold, state)
    people = {
        name: {*section.groups.get(name, ()), name} for name in (*section.queues, *state.asked)
    }
    seen: dict[str, list[str]] = {}
    for name, asked in state.asked.items():
        for item in asked:
            seen.setdefault(item, []).append(name)
    for rater in section.queues:
        mine = [one for one in plan.items if one.rater == rater]
        left = section.minutes * 60 - state.waiting_s.get(rater, 0)
        assert sum(one.seconds for one in mine) <= max(0, left)
        assert [one.position for one in mine] == list(range(len(mine)))
    for one in plan.items:
        assert not any(people[one.rater] & people[other] for other in seen.get(one.item, []))
        seen.setdefault(one.item, []).append(one.rater)
        assert (one.presented_order is None) == (len(one.interaction_ids) == 1)


@settings(max_examples=40)
@given(sections(), candidates(), candidates(), states(), st.randoms(use_true_random=False))
def test_the_plan_does_not_depend_on_the_order_of_what_it_is_given(
    section: ReviewSection,
    population: list[Candidate],
    gold: list[Candidate],
    state: ReviewState,
    random: object,
) -> None:
    plan = plan_review(section, population, gold, state)
    shuffle = random.shuffle  # type: ignore[attr-defined]
    shuffle(population)
    shuffle(gold)
    assert plan_review(section, population, gold, state) == plan


@settings(max_examples=40)
@given(sections(), candidates(), states())
def test_the_random_slice_is_the_same_whatever_the_strategies_want(
    section: ReviewSection, population: list[Candidate], state: ReviewState
) -> None:
    plain = [one.model_copy(update={"scores": {}}) for one in population]
    plan, bare = (plan_review(section, given, [], state) for given in (population, plain))
    assert plan.already_asked == bare.already_asked

    def sliced(plan: Plan) -> set[tuple[str, str, float | None]]:
        found = reasons(plan, "random")
        return {(one.rater, one.item, one.inclusion_prob) for one in found}

    assert sliced(plan) == sliced(bare)
    assert len(bare.items) == len(reasons(bare, "random"))


@settings(max_examples=40)
@given(sections(), candidates(), candidates(), states())
def test_only_the_random_slice_carries_a_probability(
    section: ReviewSection, population: list[Candidate], gold: list[Candidate], state: ReviewState
) -> None:
    plan = plan_review(section, population, gold, state)
    for one in (*plan.items, *plan.already_asked):
        if one.reason == "random":
            assert one.inclusion_prob is not None
            assert permanent_random_number(section.seed, one.item) < one.inclusion_prob <= 1
        else:
            assert one.inclusion_prob is None


def test_there_is_a_random_slice_while_there_is_room_for_one_item() -> None:
    section = make_section(minutes=1, random_share=0.01)
    population = [Candidate(interaction_ids=(f"i-{n}",), scores={"complaints": 1}) for n in "abcd"]
    plan = plan_review(section, population, [], ReviewState())
    assert [one.reason for one in plan.items] == ["random", "random"]


def test_a_budget_of_zero_asks_nothing() -> None:
    plan = plan_review(
        make_section(minutes=0), [Candidate(interaction_ids=("i",))], [], ReviewState()
    )
    assert plan.items == () and set(plan.budget_s.values()) == {0.0}


def test_overlapped_items_go_to_as_many_raters_as_declared() -> None:
    section = make_section(
        raters=["dr-a", "dr-b", "dr-c"], overlap={"raters": 3, "share": 1}, minutes=10
    )
    population = [Candidate(interaction_ids=(f"i-{n}",)) for n in range(50)]
    plan = plan_review(section, population, [], ReviewState())
    raters: dict[str, set[str]] = {}
    for one in plan.items:
        raters.setdefault(one.item, set()).add(one.rater)
    assert raters and all(seen == {"dr-a", "dr-b", "dr-c"} for seen in raters.values())


def test_about_the_declared_share_of_items_is_overlapped() -> None:
    section = make_section(overlap={"raters": 2, "share": 0.3}, minutes=400, random_share=0.9)
    population = [Candidate(interaction_ids=(f"i-{n}",)) for n in range(500)]
    plan = plan_review(section, population, [], ReviewState())
    items = [one.item for one in plan.items]
    twice = sum(1 for item in set(items) if items.count(item) == 2)
    assert len(set(items)) == 500 and 0.24 < twice / 500 < 0.36


def test_the_strategies_take_turns_and_ask_what_they_want_most() -> None:
    """Two minutes beside the slice's one: one question for each of the two strategies."""
    section = make_section(
        raters=["dr-a"], minutes=3, random_share=0.01, strategies=["complaints", "uncertainty"]
    )
    population = [
        Candidate(interaction_ids=(f"i-{n:03}",), scores={"complaints": n, "uncertainty": -n})
        for n in range(200)
    ]
    plan = plan_review(section, population, [], ReviewState())
    by_reason = {one.reason: one.item for one in plan.items}
    assert set(by_reason) == {"random", "complaints", "uncertainty"}
    assert by_reason["complaints"] in ("i-199", "i-198")
    assert by_reason["uncertainty"] in ("i-000", "i-001")


def test_gold_items_are_mixed_in_and_stand_anywhere() -> None:
    """A fifth of 100 minutes: 20 gold items among 100, and not all of them at one end."""
    section = make_section(raters=["dr-a"], minutes=100, gold_share=0.2, random_share=0.8)
    population = [Candidate(interaction_ids=(f"i-{n}",)) for n in range(500)]
    gold = [Candidate(interaction_ids=(f"g-{n}",)) for n in range(500)]
    places = [
        one.position
        for one in reasons(plan_review(section, population, gold, ReviewState()), "gold")
    ]
    assert len(places) == 20 and min(places) < 30 and max(places) > 70


def test_the_order_a_pair_is_shown_in_differs_from_rater_to_rater_and_is_balanced() -> None:
    section = make_section(
        raters=["dr-a", "dr-b"], overlap={"raters": 2, "share": 1}, minutes=500, random_share=1
    )
    pairs = [Candidate(interaction_ids=(f"a-{n}", f"b-{n}")) for n in range(400)]
    plan = plan_review(section, pairs, [], ReviewState())
    shown = {(one.item, one.rater): one.presented_order for one in plan.items}
    first = [order for (_, rater), order in shown.items() if rater == "dr-a"]
    same = sum(shown[one.item, "dr-a"] == shown[one.item, "dr-b"] for one in plan.items) / 2
    assert len(first) == 400 and 160 < first.count("AB") < 240 and 160 < same < 240


def test_what_is_drawn_after_every_rater_was_asked_it_counts_with_the_answers_there_are() -> None:
    """Left out, the slice would miss just what the strategies had chosen."""
    section = make_section(minutes=60, random_share=1)
    population = [Candidate(interaction_ids=(f"i-{n}",)) for n in range(10)]
    state = ReviewState(asked={"dr-a": frozenset({"i-3"}), "dr-b": frozenset({"i-3"})})
    plan = plan_review(section, population, [], state)
    assert [one.item for one in plan.already_asked] == ["i-3"]
    assert plan.already_asked[0].inclusion_prob == 1.0


def mean_by_slice(section: ReviewSection, population: list[Candidate], pushes: int) -> float:
    """The mean of 1 for bad and 0 for good answers, each weighed by 1 / inclusion_prob."""
    state = ReviewState()
    asked: dict[str, frozenset[str]] = {}
    weights: list[tuple[float, float]] = []
    for _ in range(pushes):
        plan = plan_review(section, population, [], state)
        drawn = [*reasons(plan, "random"), *plan.already_asked]
        for one in drawn:
            assert one.inclusion_prob is not None
            weights.append((1 / one.inclusion_prob, float(one.item.startswith("bad"))))
        for one in plan.items:
            asked[one.rater] = asked.get(one.rater, frozenset()) | {one.item}
        state = ReviewState(asked=asked, drawn=state.drawn | {one.item for one in drawn})
    return sum(weight * value for weight, value in weights) / sum(w for w, _ in weights)


@pytest.mark.parametrize("pushes", [1, 4])
def test_the_slice_weighted_by_its_probabilities_is_unbiased_though_strategies_hunt(
    pushes: int,
) -> None:
    """30 % are bad, and complaints hunt exactly those: the slice says 30 % all the same."""
    names = [f"bad-{n}" for n in range(30)] + [f"good-{n}" for n in range(70)]
    population = [
        Candidate(interaction_ids=(n,), scores={"complaints": 1} if n[0] == "b" else {})
        for n in names
    ]
    estimates = [
        mean_by_slice(
            make_section(minutes=8, random_share=0.5, raters=["dr-a"], seed=seed),
            population,
            pushes,
        )
        for seed in range(200)
    ]
    # Four draws of 30 %: a standard error of .23 each, .016 over 200.
    assert abs(sum(estimates) / len(estimates) - 0.3) < 0.05


def test_the_inverse_probabilities_of_a_slice_add_up_to_the_population() -> None:
    """Eight of 100, by 300 seeds: a standard error of about 2."""
    population = [Candidate(interaction_ids=(f"i-{n}",)) for n in range(100)]
    sizes = []
    for seed in range(300):
        section = make_section(minutes=8, random_share=1, raters=["dr-a"], seed=seed)
        items = plan_review(section, population, [], ReviewState()).items
        assert len(items) == 8
        sizes.append(sum(1 / (one.inclusion_prob or 1) for one in items))
    assert abs(sum(sizes) / len(sizes) - 100) < 8


def test_an_adjudicator_never_decides_what_they_rated() -> None:
    section = make_section(adjudicators=["dr-a", "dr-c"], minutes=60)
    disputed = [Candidate(interaction_ids=(f"i-{n}",)) for n in range(3)]
    state = ReviewState(
        asked={"dr-a": frozenset({"i-0", "i-1", "i-2"}), "dr-c": frozenset({"i-2"})}
    )
    plan = plan_adjudication(section, disputed, state)
    assert {(one.item, one.rater) for one in plan.items} == {("i-0", "dr-c"), ("i-1", "dr-c")}
    assert plan.skipped == ("i-2",)
