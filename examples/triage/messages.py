"""Patients' messages: a complaint dressed as somebody would type it. Pure and seeded.

A message is its complaint in one of several wordings, about the writer or about somebody else,
and, each drawn alike for every urgency: an opening, a closing, symptoms denied, an aside, a second
complaint that is less pressing, typos, texting style. The same seed gives the same bytes anywhere.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice

from flywheel.records import Message, Record
from flywheel_examples.triage.complaints import (
    ALWAYS_ABOUT_OTHERS,
    URGENCIES,
    Complaint,
    Group,
    Urgency,
    development_complaints,
    holdout_complaints,
    production_complaints,
    read_yaml,
)
from flywheel_examples.triage.grammar import Person, render
from flywheel_examples.triage.typos import add_typos, drop_apostrophes

SYSTEM_PROMPT = 'Triage. Reply with JSON: {"urgency": "emergency"|"urgent"|"routine"}'
DEVELOPMENT_SEED = 2026
HOLDOUT_SEED = 2027
"""Not that of development: today's development set was once the hold-out, and ids are for ever."""

SHARES = {
    "someone_else": 0.4,
    "introduction": 0.6,
    "second_complaint": 0.12,
    "opening": 0.45,
    "closing": 0.35,
    "negation": 0.25,
    "aside": 0.15,
    "typo": 0.3,
    "texting": 0.2,
}
"""How often a message has each feature, whatever its urgency; introduction: of someone else."""

_EQUAL: dict[Urgency, float] = dict.fromkeys(URGENCIES, 1.0)


class PatientMessage(Record):
    """One message and its truth."""

    message_id: str
    text: str
    urgency: Urgency
    """Of the more urgent complaint."""
    complaint_id: str
    """The complaint that decides the urgency."""
    second_complaint_id: str | None = None
    features: tuple[str, ...] = ()
    """Which of SHARES it has."""

    @property
    def conversation_id(self) -> str:
        """Each message is a conversation of its own."""
        return f"conversation-{self.message_id}"

    @property
    def messages(self) -> tuple[Message, ...]:
        """The chat to send: system prompt and text."""
        return (
            Message(role="system", content=SYSTEM_PROMPT),
            Message(role="user", content=self.text),
        )


def answer(urgency: Urgency) -> str:
    """The assistant message that is right, as a correction gives it."""
    return json.dumps({"urgency": urgency})


class Negation(Record):
    """A symptom denied, and the stems beside which denying it would contradict the message."""

    say: str
    felt: bool = False
    """Only the patient can say it: not of a baby, nor of somebody who lies unconscious."""
    unless: tuple[str, ...]


class Wording(Record):
    """What surrounds a complaint: `wording.yaml`."""

    openings: tuple[str, ...]
    closings: tuple[str, ...]
    asides: tuple[str, ...]
    introductions: tuple[str, ...]
    joiners: tuple[str, ...]
    negations: tuple[Negation, ...]
    people: dict[str, tuple[tuple[str, str], ...]]


@cache
def wording() -> Wording:
    """The wording, read once."""
    return Wording.model_validate(read_yaml("wording.yaml"))


_PEOPLE: dict[Group, tuple[str, ...]] = {
    "adult": ("adult",),
    "anyone": ("adult", "child"),
    "other": ("adult",),
    "pregnant": ("woman",),
    "woman": ("woman",),
    "man": ("man",),
    "elder": ("elder",),
    "child": ("child",),
    "baby": ("baby",),
}
_COMPANIONS: dict[str, tuple[Group, ...]] = {
    "self": ("adult", "anyone"),
    "adult": ("adult", "anyone"),
    "woman": ("adult", "anyone"),
    "man": ("adult", "anyone"),
    "elder": ("anyone", "elder"),
    "child": ("child", "anyone"),
    "baby": ("baby",),
}
"""Groups of a second complaint by kind of person; pregnancy stands alone, it changes the rest."""


class MessageFactory:
    """Makes messages from some of the complaints.

    Args:
        complaints: All it may speak of: as the complaint, and as the second one.
        seed: Of everything drawn.
        prefix: Starts the message ids.
    """

    def __init__(self, complaints: Sequence[Complaint], *, seed: int, prefix: str = "m") -> None:
        self._complaints = tuple(complaints)
        self._seed = seed
        self._prefix = prefix
        self._others_rate = {urgency: self._rate_of_others(urgency) for urgency in URGENCIES}

    def stream(self, weights: Mapping[Urgency, float] | None = None) -> Iterator[PatientMessage]:
        """Messages without end: every complaint of a class once before any a second time.

        Args:
            weights: Mix of the classes, equal by default. Every prefix is as near to it as it can.
        """
        rng = random.Random(f"order/{self._seed}")
        decks: dict[Urgency, list[Complaint]] = {urgency: [] for urgency in URGENCIES}
        for index, urgency in enumerate(_labels(weights or _EQUAL, rng)):
            if not decks[urgency]:
                decks[urgency] = self._of(urgency)
                rng.shuffle(decks[urgency])
            yield self.about(decks[urgency].pop(), index)

    def about(self, complaint: Complaint, index: int) -> PatientMessage:
        """The message at one place of the stream, given its complaint."""
        rng = random.Random(f"message/{self._seed}/{index}/{complaint.complaint_id}")
        has = {name for name, share in SHARES.items() if rng.random() < share}
        kind, person = self._person(complaint, rng, has)
        second = self._second(complaint, kind, rng) if "second_complaint" in has else None
        has -= {"second_complaint"} if second is None else set()
        text = _style(_compose(complaint, second, person, rng, has), rng, has)
        return PatientMessage(
            message_id=f"{self._prefix}-{self._seed}-{index:05d}",
            text=text,
            urgency=complaint.urgency,
            complaint_id=complaint.complaint_id,
            second_complaint_id=second.complaint_id if second else None,
            features=tuple(sorted(has)),
        )

    def _of(self, urgency: Urgency) -> list[Complaint]:
        return [item for item in self._complaints if item.urgency == urgency]

    def _rate_of_others(self, urgency: Urgency) -> float:
        """How often the complaints that leave a choice are about others, to hit the class's share.

        Classes differ in how many complaints are about a child or a helpless person; without this
        "my son" would be a hint.
        """
        of_class = self._of(urgency)
        fixed = sum(item.group in ALWAYS_ABOUT_OTHERS for item in of_class) / max(len(of_class), 1)
        return max(0.0, (SHARES["someone_else"] - fixed) / (1 - fixed)) if fixed < 1 else 0.0

    def _person(
        self, complaint: Complaint, rng: random.Random, has: set[str]
    ) -> tuple[str, Person | None]:
        has.discard("someone_else")
        chosen = rng.random() < self._others_rate[complaint.urgency]
        if complaint.group not in ALWAYS_ABOUT_OTHERS and not chosen:
            has.discard("introduction")
            return "self", None
        has.add("someone_else")
        kind = rng.choice(_PEOPLE[complaint.group])
        who, pronoun = rng.choice(wording().people[kind])
        return kind, Person.model_validate({"who": who, "pronoun": pronoun})

    def _second(self, first: Complaint, kind: str, rng: random.Random) -> Complaint | None:
        """A less urgent complaint of the same person; beside a routine one another routine one.

        Two urgent ones could make an emergency together, and no clinician is here to say so.
        """
        if first.group == "pregnant":
            return None
        least = max(URGENCIES.index(first.urgency) + 1, 1)
        allowed = URGENCIES[min(least, len(URGENCIES) - 1) :]
        choices = [
            item
            for item in self._complaints
            if item.urgency in allowed
            and item.group in _COMPANIONS[kind]
            and item.complaint_id != first.complaint_id
        ]
        return rng.choice(choices) if choices else None


def production_messages(
    seed: int, n: int, *, skip: int = 0, weights: Mapping[Urgency, float] | None = None
) -> list[PatientMessage]:
    """Messages of production: no development or hold-out complaint, not even in passing.

    Args:
        seed: One stream a seed.
        n: How many.
        skip: How many of the stream were taken before, so that day 2 goes on where day 1 ended.
        weights: Mix of the classes, equal by default.
    """
    factory = MessageFactory(production_complaints(), seed=seed)
    return list(islice(factory.stream(weights), skip, skip + n))


def development_messages(seed: int = DEVELOPMENT_SEED) -> list[PatientMessage]:
    """One message for each development complaint."""
    return _one_each(development_complaints(), seed, "development")


def holdout_messages(seed: int = HOLDOUT_SEED) -> list[PatientMessage]:
    """One message for each hold-out complaint."""
    return _one_each(holdout_complaints(), seed, "holdout")


def _one_each(complaints: Sequence[Complaint], seed: int, prefix: str) -> list[PatientMessage]:
    factory = MessageFactory(complaints, seed=seed, prefix=prefix)
    return [factory.about(item, index) for index, item in enumerate(complaints)]


def _labels(weights: Mapping[Urgency, float], rng: random.Random) -> Iterator[Urgency]:
    """The class furthest behind its share comes next, ties at random."""
    total = sum(weights.values())
    counts: dict[Urgency, int] = dict.fromkeys(weights, 0)
    index = 0
    while True:
        index += 1
        behind = {name: weights[name] / total * index - counts[name] for name in weights}
        most = max(behind.values())
        label = rng.choice([name for name, gap in behind.items() if gap > most - 1e-9])
        counts[label] += 1
        yield label


def _compose(
    complaint: Complaint,
    second: Complaint | None,
    person: Person | None,
    rng: random.Random,
    has: set[str],
) -> str:
    words = wording()
    clauses = _clauses([complaint, second] if second else [complaint], person, rng, has)
    felt = complaint.group not in ("baby", "other")
    denied = _denied(" ".join(clauses), rng, felt=felt) if "negation" in has else ""
    opening = rng.choice(words.openings) if "opening" in has else ""
    parts = [opening] if opening else []
    if "introduction" in has and person is not None:
        parts.append(rng.choice(words.introductions).format(who=person.who))
    if denied and rng.random() < 0.5 and not opening.endswith("but"):
        parts.append(f"{denied}, but {clauses[0]}.")
        denied = ""
    else:
        parts.append(f"{clauses[0]}.")
    if second is not None:
        parts += [rng.choice(words.joiners), f"{clauses[1]}."]
    parts += [f"{denied}."] if denied else []
    parts += [rng.choice(words.asides)] if "aside" in has else []
    parts += [rng.choice(words.closings)] if "closing" in has else []
    return _sentences(parts)


def _clauses(
    complaints: list[Complaint], person: Person | None, rng: random.Random, has: set[str]
) -> list[str]:
    """The complaints in any order, in words; the person is named once, then a pronoun."""
    rng.shuffle(complaints)
    named_by_clause = "introduction" not in has
    phrasings = [_phrasing(item, rng, starts_with_person=named_by_clause) for item in complaints]
    if person is not None and not phrasings[0].startswith("<"):
        has.add("introduction")  # "hit my head" is about the writer unless somebody was named
    first = render(phrasings[0], person, introduced="introduction" in has)
    return [first, *(render(item, person, introduced=True) for item in phrasings[1:])]


def _phrasing(complaint: Complaint, rng: random.Random, *, starts_with_person: bool) -> str:
    starting = [item for item in complaint.phrasings if item.startswith("<")]
    return rng.choice(starting if starts_with_person and starting else complaint.phrasings)


def _denied(text: str, rng: random.Random, *, felt: bool) -> str:
    """One or two symptoms the text says nothing of; `felt` allows those only the patient knows."""
    lower = text.lower()
    fitting = [
        negation.say
        for negation in wording().negations
        if (felt or not negation.felt) and not any(stem in lower for stem in negation.unless)
    ]
    return ", ".join(rng.sample(fitting, min(rng.choice((1, 2, 2)), len(fitting))))


def _sentences(parts: Sequence[str]) -> str:
    """Joins the parts; what follows a full stop starts with a capital."""
    text = ""
    for part in parts:
        starts = not text or text[-1] in ".!?"
        text += (" " if text else "") + (part[0].upper() + part[1:] if starts else part)
    return text


def _style(text: str, rng: random.Random, has: set[str]) -> str:
    if "typo" in has:
        text = add_typos(text, rng, count=rng.choice((1, 1, 2, 3)))
    if "texting" in has:
        text = drop_apostrophes(text.lower()).removesuffix(".")
    return text
