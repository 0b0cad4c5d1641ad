"""Versioned policies: what is looked for, what stands in its place, and the name that is stored.

A policy's name is stored with every row, so what it means never changes: a change to the entities,
the patterns or the threshold that finds other things is a new version beside the old one.
"""

from hashlib import sha256
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import NamedTuple

from flywheel.errors import ConfigError
from flywheel.workload import RedactionSection

LABELS = {
    "CREDIT_CARD": "CARD",
    "DATE_OF_BIRTH": "DATE_OF_BIRTH",
    "EMAIL_ADDRESS": "EMAIL",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP",
    "LOCATION": "LOCATION",
    "MEDICAL_LICENSE": "MEDICAL_LICENSE",
    "MEDICAL_RECORD": "MEDICAL_RECORD",
    "PERSON": "PERSON",
    "PHONE_NUMBER": "PHONE",
    "US_DRIVER_LICENSE": "DRIVER_LICENSE",
    "US_SSN": "SSN",
}
"""The word in the placeholder of each entity."""

NER_ENTITIES = frozenset({"PERSON", "LOCATION"})


class Policy(NamedTuple):
    """A policy as it will be applied here, with the model that is installed here."""

    name: str
    """Stored as `redaction_policy`: `standard-1`, `standard-1+ner:en_core_web_sm-3.8.0`, with
    `~<hash>` where the workload changed entities, threshold or placeholders."""
    entities: frozenset[str]
    score_threshold: float
    is_keyed: bool
    ner_model: str | None
    is_wide: bool = False
    """Whether it has the patterns of `wider`, as `standard-2` has."""


def resolve_policy(section: RedactionSection, *, source: str) -> Policy | None:
    """The policy a workload declares; None where it declares none.

    Args:
        section: of the workload.
        source: what to call the workload in an error.

    Raises:
        ConfigError: names or places are asked for and there is no model to find them.
    """
    if section.policy == "none":
        return None
    model = _ner_model(section.ner_model, source)
    asked = frozenset(section.entities or LABELS)
    if section.entities and asked & NER_ENTITIES and model is None:
        wanted = ", ".join(sorted(asked & NER_ENTITIES))
        problem = f"capture.redaction.entities: {wanted} needs a spaCy model, and none is installed"
        raise ConfigError(source, [f"{problem}: pip install one, or take {wanted} out"])
    entities = asked if model else asked - NER_ENTITIES
    has_ner = model is not None and bool(entities & NER_ENTITIES)
    name = section.policy + (f"+ner:{_version_of(model)}" if has_ner and model else "")
    return Policy(
        name=name + _changes(section),
        entities=entities,
        score_threshold=section.score_threshold,
        is_keyed=section.placeholders == "keyed",
        ner_model=model if has_ner else None,
        is_wide=section.policy == "standard-2",
    )


def _changes(section: RedactionSection) -> str:
    """A short hash of what the workload set otherwise, so that two rows of one name are alike."""
    changed = section.model_dump(exclude_defaults=True, exclude={"policy", "ner_model"})
    if not changed:
        return ""
    if section.entities is not None:
        changed["entities"] = sorted(section.entities)
    return "~" + sha256(repr(sorted(changed.items())).encode()).hexdigest()[:8]


def _ner_model(asked: str, source: str) -> str | None:
    """The model to load: spaCy's models announce themselves as entry points."""
    if asked == "none":
        return None
    installed = sorted(point.name for point in entry_points(group="spacy_models"))
    if asked == "auto":
        english = [name for name in installed if name.startswith("en_")]
        return english[0] if english else None
    if asked in installed or Path(asked, "meta.json").is_file():
        return asked
    valid = ", ".join(["auto", "none", *installed]) + ", or the folder of a model"
    raise ConfigError(
        source, [f"capture.redaction.ner_model: {asked!r} is not installed; valid: {valid}"]
    )


def _version_of(model: str) -> str:
    try:
        return f"{model}-{version(model)}"
    except PackageNotFoundError:
        return Path(model).name
