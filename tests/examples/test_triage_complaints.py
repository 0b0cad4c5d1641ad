import re
from collections import Counter
from itertools import combinations, product
from statistics import mean
from typing import get_args

import pytest

from flywheel_examples.triage.complaints import (
    ALWAYS_ABOUT_OTHERS,
    DEVELOPMENT_PER_CLASS,
    HOLDOUT_PER_CLASS,
    URGENCIES,
    Complaint,
    Group,
    Urgency,
    development_complaints,
    holdout_complaints,
    load_complaints,
    production_complaints,
)
from flywheel_examples.triage.grammar import Person, render, third_person

MUM = Person(who="my mum", pronoun="she")
SON = Person(who="my son", pronoun="he")
SMALL_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and the in on of to is it for with no i my not are or was has have since at",
    )
)


def content_words(phrasing: str) -> frozenset[str]:
    plain = re.sub(r"<[^>]+>", " ", phrasing.lower())
    return frozenset(re.findall(r"[a-z0-9]+", plain)) - SMALL_WORDS


def likeness(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("urgency", URGENCIES)
def test_every_class_has_at_least_105_complaints_in_three_wordings(urgency: Urgency) -> None:
    of_class = [item for item in load_complaints() if item.urgency == urgency]
    assert len(of_class) >= 105
    assert all(len(set(item.phrasings)) >= 3 for item in of_class)


def test_no_complaint_and_no_wording_comes_twice() -> None:
    ids = [item.complaint_id for item in load_complaints()]
    phrasings = [phrasing for item in load_complaints() for phrasing in item.phrasings]
    assert len(set(ids)) == len(ids)
    assert len(set(phrasings)) == len(phrasings)


PARTS = {
    "production": production_complaints(),
    "development": development_complaints(),
    "holdout": holdout_complaints(),
}


def test_the_three_parts_are_disjoint_and_complete() -> None:
    parts = [{item.complaint_id for item in part} for part in PARTS.values()]
    assert not any(a & b for a, b in combinations(parts, 2))
    assert set().union(*parts) == {item.complaint_id for item in load_complaints()}


@pytest.mark.parametrize(
    ("part", "per_class"),
    [("development", DEVELOPMENT_PER_CLASS), ("holdout", HOLDOUT_PER_CLASS)],
)
def test_the_classes_are_balanced(part: str, per_class: int) -> None:
    counts = Counter(item.urgency for item in PARTS[part])
    assert counts == dict.fromkeys(URGENCIES, per_class) == dict.fromkeys(URGENCIES, 48)


@pytest.mark.parametrize(("part", "other"), [*combinations(PARTS, 2)])
def test_no_wording_of_a_part_is_nearly_one_of_another(part: str, other: str) -> None:
    """Jaccard likeness of the content words of two wordings; 0.38 is the most there is."""

    def words(complaints: tuple[Complaint, ...]) -> list[frozenset[str]]:
        return [content_words(phrasing) for item in complaints for phrasing in item.phrasings]

    pairs = product(words(PARTS[part]), words(PARTS[other]))
    assert max(likeness(a, b) for a, b in pairs) < 0.45


def vocabulary(complaint: Complaint) -> frozenset[str]:
    return frozenset().union(*map(content_words, complaint.phrasings))


def test_no_holdout_complaint_is_nearly_another() -> None:
    """Jaccard likeness of the content words of all their wordings; 0.24 is the most there is.

    0.26 is the most between development and production, a tailbone abscess and Bartholin's.
    """
    holdout = [vocabulary(item) for item in PARTS["holdout"]]
    others = [vocabulary(item) for item in (*PARTS["production"], *PARTS["development"])]
    pairs = [*product(holdout, others), *combinations(holdout, 2)]
    assert max(likeness(a, b) for a, b in pairs) < 0.25


@pytest.mark.parametrize("urgency", URGENCIES)
def test_the_holdout_is_as_long_and_about_the_same_people_as_the_rest(urgency: Urgency) -> None:
    """Neither easier nor harder by its form: words a wording, share of complaints of each group."""

    def of_class(part: str) -> list[Complaint]:
        return [item for item in PARTS[part] if item.urgency == urgency]

    def words(complaints: list[Complaint]) -> float:
        return mean(len(text.split()) for item in complaints for text in item.phrasings)

    def shares(complaints: list[Complaint]) -> dict[str, float]:
        counts = Counter(item.group for item in complaints)
        return {group: counts[group] / len(complaints) for group in get_args(Group)}

    holdout, rest = of_class("holdout"), of_class("production") + of_class("development")
    assert abs(words(holdout) - words(rest)) < 1
    ours, theirs = shares(holdout), shares(rest)
    assert all(abs(ours[group] - theirs[group]) < 0.05 for group in ours)


@pytest.mark.parametrize("word", ["pain", "blood", "bleed", "chest", "rash", "fever", "breath"])
def test_telling_words_turn_up_in_every_class(word: str) -> None:
    found = {
        item.urgency
        for item in production_complaints()
        if any(word in phrasing for phrasing in item.phrasings)
    }
    assert found == set(URGENCIES)


def test_every_class_has_complaints_of_children_and_babies() -> None:
    groups = {(item.urgency, item.group) for item in production_complaints()}
    assert {(u, g) for u in URGENCIES for g in ("child", "baby")} <= groups
    assert {"other", "elder", "child", "baby"} == ALWAYS_ABOUT_OTHERS


def test_the_writer_stays_the_first_person() -> None:
    assert render("<I'm> hot and <my> arm hurts <me>", None) == "I'm hot and my arm hurts me"


def test_somebody_else_is_named_once_and_then_a_pronoun() -> None:
    said = render("<I> <feel> sick, <my> arm hurts and <I'm> hot", MUM)
    assert said == "my mum feels sick, her arm hurts and she's hot"
    assert render("<my> arm hurts <me>", SON) == "my son's arm hurts him"


def test_somebody_introduced_is_a_pronoun_from_the_start() -> None:
    assert render("<I've> cut <myself>", SON, introduced=True) == "he has cut himself"


def test_unmarked_words_keep_their_writer() -> None:
    assert render("I think <I've> cracked <my> rib", MUM) == "I think my mum has cracked her rib"


@pytest.mark.parametrize(
    ("verb", "third"),
    [("feel", "feels"), ("cry", "cries"), ("play", "plays"), ("scratch", "scratches"),
     ("go", "goes"), ("have", "has"), ("don't", "doesn't"), ("am", "is")],
)  # fmt: skip
def test_verbs_follow_the_third_person(verb: str, third: str) -> None:
    assert third_person(verb) == third


def test_no_third_person_keeps_a_verb_of_the_first() -> None:
    """Guards the slots of the files: a verb after the subject that nobody marked."""
    verbs = {"have", "am", "do", "don't", "haven't", "feel", "need", "want", "get", "keep", "take"}
    for item in load_complaints():
        for phrasing in item.phrasings:
            for verb in re.findall(r"(?<!can )(?<!should )(?<!could )<I> ([a-z']+)", phrasing):
                if not re.search(rf"<do> <I> {verb}\b", phrasing):
                    assert verb not in verbs, phrasing
            assert not re.search(r"\b(do|don't|am|have) <I>", phrasing), phrasing
