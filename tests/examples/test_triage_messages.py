import hashlib
import random
import subprocess
import sys
from collections import Counter
from statistics import median

import pytest

from flywheel_examples.triage.baseline import keyword_accuracy
from flywheel_examples.triage.complaints import (
    URGENCIES,
    Complaint,
    Urgency,
    development_complaints,
    holdout_complaints,
    load_complaints,
    production_complaints,
)
from flywheel_examples.triage.messages import (
    SHARES,
    MessageFactory,
    PatientMessage,
    development_messages,
    holdout_messages,
    production_messages,
    wording,
)
from flywheel_examples.triage.typos import add_typos, drop_apostrophes

MANY = 3000


@pytest.fixture(scope="module")
def many() -> list[PatientMessage]:
    return production_messages(1, MANY)


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    """Guards against hash(): another process hashes strings with another salt."""
    program = (
        "from flywheel_examples.triage.messages import production_messages\n"
        "for m in production_messages(5, 40): print(m.model_dump_json())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "4242"},
    )  # fmt: skip
    here = [message.model_dump_json() for message in production_messages(5, 40)]
    assert elsewhere.stdout.splitlines() == here


def test_another_seed_gives_other_messages() -> None:
    first, second = production_messages(1, 50), production_messages(2, 50)
    assert {message.text for message in first}.isdisjoint(message.text for message in second)


def test_production_messages_are_those_of_before_the_fresh_holdout() -> None:
    """The hash of 200 messages, taken when the hold-out was still what development is today.

    Results measured before must stay repeatable; a changed production complaint changes it rightly.
    """
    lines = "\n".join(message.model_dump_json() for message in production_messages(7, 200))
    assert hashlib.sha256(lines.encode()).hexdigest() == (
        "54edd74264e4b7586d265ef41351fdd0440d3ec31a31f4ae17074da94ea1dacf"
    )


def spoken_of(messages: list[PatientMessage]) -> set[str | None]:
    return {m.complaint_id for m in messages} | {m.second_complaint_id for m in messages}


def test_no_part_speaks_of_a_complaint_of_another(many: list[PatientMessage]) -> None:
    production, development, holdout = (
        spoken_of(many), spoken_of(development_messages()), spoken_of(holdout_messages()),
    )  # fmt: skip
    assert production & development == production & holdout == development & holdout == {None}


def test_development_and_holdout_items_have_ids_of_their_own() -> None:
    development = {message.message_id for message in development_messages()}
    holdout = {message.message_id for message in holdout_messages()}
    once_the_holdout = {name.replace("development", "holdout") for name in development}
    assert len(development) == len(holdout) == 144
    assert holdout.isdisjoint(development | once_the_holdout)


def test_every_production_complaint_comes_once_before_any_comes_twice() -> None:
    messages = production_messages(3, 3 * 75)
    for urgency in URGENCIES:
        ids = [m.complaint_id for m in messages if m.urgency == urgency]
        assert len(ids) == 75
        assert len(set(ids)) == min(
            75, len([c for c in production_complaints() if c.urgency == urgency])
        )


def test_any_prefix_is_balanced_by_default() -> None:
    counts = Counter(message.urgency for message in production_messages(4, 25))
    assert sorted(counts.values()) == [8, 8, 9]


def test_weights_set_the_mix() -> None:
    weights: dict[Urgency, float] = {"emergency": 1.0, "urgent": 3.0, "routine": 6.0}
    counts = Counter(m.urgency for m in production_messages(4, 100, weights=weights))
    assert counts == {"emergency": 10, "urgent": 30, "routine": 60}


def test_skip_continues_the_stream() -> None:
    assert production_messages(6, 20)[12:] == production_messages(6, 8, skip=12)


def test_message_ids_are_unique(many: list[PatientMessage]) -> None:
    assert len({message.message_id for message in many}) == MANY


@pytest.mark.parametrize("feature", [*SHARES])
def test_features_are_as_frequent_in_every_class(feature: str, many: list[PatientMessage]) -> None:
    """With 1000 messages a class, 0.06 is four standard errors of a difference at worst."""
    rates = []
    for urgency in URGENCIES:
        of_class = [message for message in many if message.urgency == urgency]
        rates.append(sum(feature in message.features for message in of_class) / len(of_class))
    assert max(rates) - min(rates) < 0.06


def test_the_more_urgent_of_two_complaints_decides(many: list[PatientMessage]) -> None:
    urgency_of = {item.complaint_id: item.urgency for item in load_complaints()}
    pairs = [message for message in many if message.second_complaint_id is not None]
    assert len(pairs) > 200
    for message in pairs:
        both = [urgency_of[message.complaint_id], urgency_of[str(message.second_complaint_id)]]
        assert message.urgency == min(both, key=URGENCIES.index)
        assert both != ["urgent", "urgent"]


def test_a_message_is_short(many: list[PatientMessage]) -> None:
    lengths = [len(message.text.split()) for message in many]
    assert median(lengths) <= 25
    assert max(lengths) <= 60


def test_no_slot_is_left_unfilled(many: list[PatientMessage]) -> None:
    assert not [m.text for m in many if any(sign in m.text for sign in "<>{}")]


def test_a_symptom_is_never_denied_beside_its_presence() -> None:
    feverish = Complaint(
        complaint_id="test", urgency="urgent", group="adult",
        phrasings=("<I> <have> a fever and a cough",),
    )  # fmt: skip
    factory = MessageFactory([feverish], seed=1)
    texts = [factory.about(feverish, index).text.lower() for index in range(300)]
    assert any("no rash" in text for text in texts)
    assert not any("no fever" in text or "no cough" in text for text in texts)


def test_a_baby_is_not_said_to_deny_what_only_it_could_feel() -> None:
    felt = {negation.say for negation in wording().negations if negation.felt}
    colicky = next(item for item in load_complaints() if item.group == "baby")
    factory = MessageFactory([colicky], seed=1)
    texts = [factory.about(colicky, index).text.lower() for index in range(300)]
    assert not any(symptom in text for symptom in felt for text in texts)


def test_somebody_else_is_named_before_a_pronoun_stands_for_them() -> None:
    knocked = Complaint(
        complaint_id="test", urgency="urgent", group="child",
        phrasings=("hit <my> head on a door",),
    )  # fmt: skip
    factory = MessageFactory([knocked], seed=1)
    for index in range(50):
        message = factory.about(knocked, index)
        assert {"someone_else", "introduction"} <= set(message.features)


def test_keywords_do_better_than_chance_and_far_from_perfect() -> None:
    """Naive Bayes on all of production's words: 66 % when this was written, chance is 33 %.

    On the development set: the hold-out is scored by nothing but the gate.
    """
    assert 0.5 < keyword_accuracy(development_messages(), 960, seed=0) < 0.8


@pytest.mark.parametrize(
    ("messages", "complaints"),
    [
        (holdout_messages(), holdout_complaints()),
        (development_messages(), development_complaints()),
    ],
    ids=["holdout", "development"],
)
def test_a_suite_has_one_message_for_each_complaint(
    messages: list[PatientMessage], complaints: tuple[Complaint, ...]
) -> None:
    assert [m.complaint_id for m in messages] == [c.complaint_id for c in complaints]
    assert Counter(m.urgency for m in messages) == dict.fromkeys(URGENCIES, 48)


def test_typos_spare_short_words_and_numbers() -> None:
    text = "no fever of 39.5 but bleeding badly"
    for seed in range(50):
        damaged = add_typos(text, random.Random(seed), count=2)
        assert damaged != text
        assert damaged.startswith("no ")
        assert " of 39.5 but " in damaged


def test_apostrophes_are_dropped_inside_words_only() -> None:
    assert drop_apostrophes("I can't feel mum's 'arm'") == "I cant feel mums 'arm'"
