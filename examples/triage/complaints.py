"""The complaints, and which of them production may see.

Read from `complaints_<urgency>.yaml`. Each belongs for good to production or to the hold-out by a
hash of its id, so that the score on the hold-out measures situations no label was ever given for.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

import yaml

from flywheel.records import Record

Urgency = Literal["emergency", "urgent", "routine"]
URGENCIES: tuple[Urgency, ...] = get_args(Urgency)
"""Most urgent first."""

Group = Literal["adult", "anyone", "pregnant", "woman", "man", "other", "elder", "child", "baby"]
"""Whom a complaint can be about; of `other`, `elder`, `child` and `baby` somebody else writes."""

ALWAYS_ABOUT_OTHERS: frozenset[Group] = frozenset({"other", "elder", "child", "baby"})
HOLDOUT_PER_CLASS = 48


class Complaint(Record):
    """One clinical situation, in several patients' words."""

    complaint_id: str
    urgency: Urgency
    group: Group
    phrasings: tuple[str, ...]
    """With the slots of `grammar`."""


def read_yaml(name: str) -> object:
    """A YAML file of this folder; libyaml where PyYAML has it, ten times as fast."""
    text = (files(__package__) / name).read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loaded: object = yaml.load(text, Loader=loader)
    return loaded


@cache
def load_complaints() -> tuple[Complaint, ...]:
    """All complaints, in the order of the files."""
    return tuple(complaint for urgency in URGENCIES for complaint in _read(urgency))


def _read(urgency: Urgency) -> list[Complaint]:
    groups = read_yaml(f"complaints_{urgency}.yaml")
    assert isinstance(groups, Mapping)
    return [
        Complaint.model_validate(
            {
                "complaint_id": complaint_id,
                "urgency": urgency,
                "group": group,
                "phrasings": tuple(phrasings),
            }
        )
        for group, complaints in groups.items()
        for complaint_id, phrasings in complaints.items()
    ]


@cache
def holdout_complaints() -> tuple[Complaint, ...]:
    """The complaints production never sees: 48 of each class, those with the smallest hash."""
    chosen: list[Complaint] = []
    for urgency in URGENCIES:
        of_class = [item for item in load_complaints() if item.urgency == urgency]
        chosen += sorted(of_class, key=_hash)[:HOLDOUT_PER_CLASS]
    return tuple(chosen)


@cache
def production_complaints() -> tuple[Complaint, ...]:
    """All the others."""
    kept_back = {item.complaint_id for item in holdout_complaints()}
    return tuple(item for item in load_complaints() if item.complaint_id not in kept_back)


def _hash(complaint: Complaint) -> str:
    return hashlib.sha256(f"triage/{complaint.complaint_id}".encode()).hexdigest()
