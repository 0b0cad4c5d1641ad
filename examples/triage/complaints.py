"""The complaints, and which of them is seen when.

Each belongs for good to one of three parts. Those of `complaints_<urgency>.yaml` go by a hash of
their id to production, where labels are given, or to development, where settings are chosen. Those
of `holdout_<urgency>.yaml` are the hold-out: written after all settings were fixed and scored by
the gate alone, so that its score measures situations no label and no setting was ever given for.
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
DEVELOPMENT_PER_CLASS = 48
HOLDOUT_PER_CLASS = 48
"""As many as `holdout_<urgency>.yaml` has."""


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
    """All complaints of the three parts, in the order of the files."""
    return (*_read("complaints"), *holdout_complaints())


@cache
def _read(stem: str) -> tuple[Complaint, ...]:
    return tuple(item for urgency in URGENCIES for item in _read_class(stem, urgency))


def _read_class(stem: str, urgency: Urgency) -> list[Complaint]:
    groups = read_yaml(f"{stem}_{urgency}.yaml")
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


def holdout_complaints() -> tuple[Complaint, ...]:
    """The complaints the gate alone scores: 48 of each class, in files of their own."""
    return _read("holdout")


@cache
def development_complaints() -> tuple[Complaint, ...]:
    """Those settings may be chosen on: 48 of each class, those with the smallest hash."""
    chosen: list[Complaint] = []
    for urgency in URGENCIES:
        of_class = [item for item in _read("complaints") if item.urgency == urgency]
        chosen += sorted(of_class, key=_hash)[:DEVELOPMENT_PER_CLASS]
    return tuple(chosen)


@cache
def production_complaints() -> tuple[Complaint, ...]:
    """All the others of `complaints_<urgency>.yaml`."""
    kept_back = {item.complaint_id for item in development_complaints()}
    return tuple(item for item in _read("complaints") if item.complaint_id not in kept_back)


def _hash(complaint: Complaint) -> str:
    return hashlib.sha256(f"triage/{complaint.complaint_id}".encode()).hexdigest()
