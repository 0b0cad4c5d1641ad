"""Turns one phrasing into a sentence about the writer or about somebody else.

A phrasing marks what changes with the person: `<I> <feel> sick and <my> arm hurts` becomes
"I feel sick and my arm hurts" or "my mum feels sick and her arm hurts". Words it does not mark
stay as they are, so "I think <I've> cracked <my> rib" keeps its writer.
"""

import re
from typing import Literal

from flywheel.records import Record

_SLOT = re.compile(r"<([A-Za-z']+)>")
_IRREGULAR = {
    "am": "is",
    "have": "has",
    "do": "does",
    "don't": "doesn't",
    "haven't": "hasn't",
    "go": "goes",
}
_OBJECT = {"she": "her", "he": "him"}
_POSSESSIVE = {"she": "her", "he": "his"}
_REFLEXIVE = {"she": "herself", "he": "himself"}


class Person(Record):
    """Somebody a message is about who is not its writer."""

    who: str
    """As first mentioned: my mum, our little one."""
    pronoun: Literal["she", "he"]


def third_person(verb: str) -> str:
    """The verb as it follows she or he: feel, feels; cry, cries; push, pushes."""
    if verb in _IRREGULAR:
        return _IRREGULAR[verb]
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "z", "o")) else "s")


def render(phrasing: str, person: Person | None, *, introduced: bool = False) -> str:
    """Fills the slots of a phrasing.

    Args:
        phrasing: Text with `<I>`-like slots in the first person.
        person: Whom it is about; None for the writer.
        introduced: True where the message has already named the person: pronouns only.
    """
    if person is None:
        return _SLOT.sub(lambda slot: slot[1], phrasing)
    words: list[str] = []
    end = 0
    for slot in _SLOT.finditer(phrasing):
        words += [phrasing[end : slot.start()], _third(slot[1], person, introduced)]
        introduced = introduced or slot[1] in _MENTIONS
        end = slot.end()
    return "".join([*words, phrasing[end:]])


_MENTIONS = frozenset({"I", "I'm", "I've", "I'd", "my", "me"})


def _third(slot: str, person: Person, introduced: bool) -> str:
    subject = person.pronoun if introduced else person.who
    forms = {
        "I": subject,
        "I'm": f"{subject}'s" if introduced else f"{subject} is",
        "I've": f"{subject} has",
        "I'd": f"{subject}'d" if introduced else f"{subject} would",
        "my": _POSSESSIVE[person.pronoun] if introduced else f"{person.who}'s",
        "me": _OBJECT[person.pronoun] if introduced else person.who,
        "myself": _REFLEXIVE[person.pronoun],
    }
    return forms.get(slot) or third_person(slot)
