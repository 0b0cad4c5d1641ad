import re
from collections import Counter
from itertools import product

import pytest

from flywheel_examples.triage.complaints import (
    ALWAYS_ABOUT_OTHERS,
    HOLDOUT_PER_CLASS,
    URGENCIES,
    Complaint,
    Urgency,
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


def test_split_is_disjoint_complete_and_balanced() -> None:
    holdout, production = set(holdout_complaints()), set(production_complaints())
    assert not holdout & production
    assert holdout | production == set(load_complaints())
    per_class = Counter(item.urgency for item in holdout)
    assert per_class == dict.fromkeys(URGENCIES, HOLDOUT_PER_CLASS)
    assert HOLDOUT_PER_CLASS >= 45


def test_no_holdout_wording_is_nearly_a_production_wording() -> None:
    """Jaccard likeness of the content words; 0.38 is the most there is."""

    def words(complaints: tuple[Complaint, ...]) -> list[frozenset[str]]:
        return [content_words(phrasing) for item in complaints for phrasing in item.phrasings]

    pairs = product(words(holdout_complaints()), words(production_complaints()))
    assert max(likeness(a, b) for a, b in pairs) < 0.45


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
