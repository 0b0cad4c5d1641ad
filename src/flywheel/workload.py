"""flywheel.yaml -> Workload: everything declarative about one task.

Input: a YAML file. Output: a frozen `Workload`, or a ConfigError with every mistake at once, each
with its line and what would be valid. JSON Schema: `schemas/workload.json`.
Command: `flywheel init` writes one; every other command reads it with `--workload`.
"""

import difflib
import re
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import (
    Field,
    JsonValue,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from flywheel.errors import ConfigError
from flywheel.judge_rules import rule_problems
from flywheel.judges import JudgeSection
from flywheel.records import DatasetKind, Durability, JsonObject
from flywheel.reviews import ReviewSection
from flywheel.routes import GatewaySection
from flywheel.section import Fraction, Positive, Section, line_of, value_at

ServableRank = Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]
"""Ranks vLLM accepts as max_lora_rank; anything else could be trained but not served."""


RedactedEntity = Literal[
    "CREDIT_CARD",
    "DATE_OF_BIRTH",
    "EMAIL_ADDRESS",
    "IBAN_CODE",
    "IP_ADDRESS",
    "LOCATION",
    "MEDICAL_LICENSE",
    "MEDICAL_RECORD",
    "PERSON",
    "PHONE_NUMBER",
    "US_DRIVER_LICENSE",
    "US_SSN",
]


class RedactionSection(Section):
    """What is taken out of a record before it is first committed."""

    policy: Literal["none", "standard-1", "standard-2"] = "none"
    """none stores what clients send as it is. standard-1, and standard-2, which finds more:
    docs/redaction.md says what they find, how often, and what they do not."""
    entities: tuple[RedactedEntity, ...] | None = None
    """Only these; all the policy knows when absent. PERSON and LOCATION need a spaCy model."""
    score_threshold: Annotated[float, Field(ge=0.4, le=1)] = 0.4
    """Findings below it are left in the text. Higher finds less and is wrong less often."""
    placeholders: Literal["numbered", "keyed"] = "numbered"
    """numbered: <EMAIL_1>, by first appearance in the messages, for clients that send the whole
    history with each call. keyed: <EMAIL_k3f9a2c>, from FLYWHEEL_SUBJECT_KEY_SECRET, for others."""
    ner_model: str = "auto"
    """A spaCy model by name or folder, for names and places. auto: an installed English one, if
    there is one; none: patterns only. Nothing is ever downloaded."""


class CaptureSection(Section):
    """What the gateway keeps."""

    enabled: bool = True
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of calls captured; stored as inclusion_prob."""
    durability: Durability = "group"
    """before_response: the last byte of an answer leaves after the fsync that covers its record.
    group: one fsync for all calls within 20 ms; a killed gateway loses at most those. async: the
    operating system's own time; a power cut may cost a minute, a killed gateway 20 ms."""
    redaction: RedactionSection = RedactionSection()


class LabelsSection(Section):
    """Which judgements teach this workload."""

    name: str
    """Assessments with this name are the labels."""
    minimum_new: Annotated[int, Field(ge=1)] = 12
    """With fewer new labels a night ends early and says so."""
    accept_at: float = 1.0
    """A rating at or above this approves the served answer as it is."""
    graders: tuple[str, ...] = ()
    """Graders run over what was captured, by `flywheel label grade`."""


class DatasetSection(Section):
    """How labels become training data."""

    kinds: tuple[DatasetKind, ...] = ("sft", "dpo")
    validation_share: Fraction = 0.1
    """Share of conversations kept for early stopping; never the gate's hold-out."""
    max_conversations: Annotated[int, Field(ge=1)] | None = None
    """Newest labelled conversations used; all when absent."""
    max_pairs: Annotated[int, Field(ge=1)] | None = None
    """Most pairs of a split for DPO, those labelled last; all when absent. The newest rejected
    answers are the champion's own, which is where a preference teaches most."""


class LoraSection(Section):
    """The adapter's shape."""

    rank: ServableRank = 16
    alpha: Positive = 32
    dropout: Fraction = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    last_layers: Annotated[int, Field(ge=1)] | None = None
    """Only the last so many layers get an adapter; all when absent. Fewer train faster: nothing
    below the first of them needs a gradient."""


class SftSection(Section):
    """Supervised fine-tuning on the corrected answers."""

    learning_rate: Positive = 2e-4
    epochs: Annotated[int, Field(ge=1)] = 5
    batch_size: Annotated[int, Field(ge=1)] = 8
    warmup_share: Fraction = 0.1
    early_stopping_patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better validation loss before stopping; the best epoch's weights stay."""


class DpoSection(Section):
    """Direct preference optimisation (Rafailov et al. 2023): correction over served answer."""

    learning_rate: Positive = 5e-5
    epochs: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 8
    beta: Positive = 0.1
    loss: tuple[Literal["sigmoid", "sft", "ipo", "hinge"], ...] = ("sigmoid", "sft")
    """`sft` beside `sigmoid` keeps the chosen answer from being unlearned."""


class TrainingSection(Section):
    """How an adapter is trained."""

    start_from: Literal["base", "champion"] = "base"
    """base: every night anew from all labels. champion: continue, replaying all labels."""
    lora: LoraSection = LoraSection()
    sft: SftSection | None = SftSection()
    dpo: DpoSection | None = DpoSection()
    max_length: Annotated[int, Field(ge=16)] = 512
    """Tokens; longer examples are dropped and counted."""
    seed: int = 7

    @model_validator(mode="after")
    def _has_a_stage(self) -> Self:
        if self.sft is None and self.dpo is None:
            raise ValueError("at least one of sft and dpo is needed")
        return self


class TargetSection(Section):
    """What a candidate must do better."""

    name: str = "accuracy"
    grader: str
    minimum_effect: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The improvement whose confidence bound must be exceeded."""


class GuardrailSection(Section):
    """What a candidate must not do worse."""

    name: str
    grader: str
    margin: Annotated[float, Field(ge=0, lt=1)]
    """The worst loss tolerated, declared beforehand."""
    where: dict[str, str] = Field(default_factory=dict)
    """Only items whose reference has these values."""


class SamplingSection(Section):
    """How the gate asks for answers."""

    temperature: Annotated[float, Field(ge=0)] = 0.0
    max_tokens: Annotated[int, Field(ge=1)] = 64
    concurrency: Annotated[int, Field(ge=1)] = 16


class GateSection(Section):
    """Candidate against champion on the frozen hold-out."""

    suite: Path
    """JSONL of {item_id, cluster_id, messages, reference}; relative to the workload file."""
    target: TargetSection
    guardrails: tuple[GuardrailSection, ...] = ()
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.025
    """One-sided error of each comparison."""
    resamples: Annotated[int, Field(ge=100)] = 4000
    seed: int = 11
    max_error_share: Fraction = 0.02
    """Share of items that may stay without an answer or a score; with more, nothing is decided."""
    sampling: SamplingSection = SamplingSection()


class PromotionSection(Section):
    """How a winner reaches users."""

    verify_prompt: str = "Hello"
    """Sent to every replica before the alias moves; an empty answer stops the promotion."""
    verify_max_tokens: Annotated[int, Field(ge=1)] = 16


class ScheduleSection(Section):
    """When the nightly flow runs."""

    cron: str = "0 2 * * *"
    timezone: str = "UTC"


class Workload(Section):
    """One task being improved."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,40}$")]
    """Also the start of every adapter's served name."""
    description: str = ""
    alias: str
    """The stable model name clients call."""
    base_model: str
    """Hub id, local folder, or packaged model; also its served name."""
    capture: CaptureSection = CaptureSection()
    labels: LabelsSection
    dataset: DatasetSection = DatasetSection()
    training: TrainingSection = TrainingSection()
    graders: dict[str, JsonObject]
    """OpenAI grader JSON by name; extensions have a type that starts with `x-`."""
    judges: dict[str, JudgeSection] = Field(default_factory=dict)
    """Language models that judge, by the name of the question they answer: docs/judges.md."""
    review: ReviewSection | None = None
    """What clinicians (or any experts) are asked in MLflow's review queues: docs/review.md."""
    gate: GateSection
    promotion: PromotionSection = PromotionSection()
    gateway: GatewaySection = GatewaySection()
    schedule: ScheduleSection = ScheduleSection()
    _folder: Path = PrivateAttr(default=Path())

    @field_validator("alias")
    @classmethod
    def _alias_is_a_name(cls, value: str) -> str:
        if not re.fullmatch(r"[\w.:/-]{1,100}", value):
            raise ValueError("letters, digits and . : / _ - only")
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        problems = _misfits(self.model_dump(mode="json"), None)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def folder(self) -> Path:
        """The workload file's folder; paths in the file are relative to it."""
        return self._folder

    @property
    def suite_path(self) -> Path:
        """The gate's suite, resolved against the workload file's folder."""
        return self._folder / self.gate.suite

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads and validates a workload file.

        Raises:
            ConfigError: with every problem, each with its line and what would be valid.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                str(path), [f"cannot be read: {error}. `flywheel init` writes a workload file."]
            ) from error
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(str(path), [f"not YAML: {' '.join(str(error).split())}"]) from error
        if not isinstance(data, dict):
            raise ConfigError(str(path), ["line 1: not a mapping; `flywheel init` writes one"])
        try:
            workload = cls.model_validate(data)
        except ValidationError as error:
            # Cross-references are checked on the raw data, so that they are told together with
            # the mistakes that keep the model from being built; loc () repeats them.
            fields = [_sentence(problem, root) for problem in error.errors() if problem["loc"]]
            raise ConfigError(str(path), [*fields, *_misfits(data, root)]) from error
        workload._folder = path.parent.absolute()
        return workload


def _misfits(data: JsonValue, root: yaml.Node | None) -> list[str]:
    """What no part shows by itself; works on data that may be wrong elsewhere too."""
    broken = [
        (f"line {line_of(root, where)}: " if root is not None else "")
        + f"{'.'.join(str(part) for part in where)}: {problem}"
        for where, problem in rule_problems(data)
    ]
    return [*_missing_graders(data, root), *broken]


def _missing_graders(data: JsonValue, root: yaml.Node | None) -> list[str]:
    """Graders that are named but not declared."""
    known = value_at(data, "graders")
    names = sorted(known) if isinstance(known, dict) else []
    rails, labels = value_at(data, "gate", "guardrails"), value_at(data, "labels", "graders")
    paths: list[tuple[int | str, ...]] = [("gate", "target", "grader")]
    paths += [
        ("gate", "guardrails", i, "grader")
        for i in range(len(rails) if isinstance(rails, list) else 0)
    ]
    paths += [
        ("labels", "graders", i) for i in range(len(labels) if isinstance(labels, list) else 0)
    ]
    paths += _route_graders(data)
    problems = []
    for path in paths:
        name = value_at(data, *path)
        if isinstance(name, str) and name not in names:
            line = f"line {line_of(root, path)}: " if root is not None else ""
            valid = ", ".join(names) or "none"
            where = ".".join(str(part) for part in path)
            problems.append(f"{line}{where}: no grader {name!r}; graders has: {valid}")
    return problems


def _route_graders(data: JsonValue) -> list[tuple[int | str, ...]]:
    routes = value_at(data, "gateway", "routes")
    return [
        ("gateway", "routes", alias, part, "graders", i)
        for alias in (routes if isinstance(routes, dict) else ())
        for part in ("cascade", "repair")
        if isinstance(named := value_at(data, "gateway", "routes", alias, part, "graders"), list)
        for i in range(len(named))
    ]


def _sentence(problem: ErrorDetails, root: yaml.Node | None) -> str:
    """One line for one mistake: line number, path, what is wrong, what would be valid."""
    loc = problem["loc"]
    line = line_of(root, loc)
    where = ".".join(str(part) for part in loc) or "(the whole file)"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        valid = _valid_keys(loc[:-1])
        close = difflib.get_close_matches(str(loc[-1]), valid, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        message = f"unknown key; {hint}valid: {', '.join(valid)}"
    elif problem["type"] == "missing":
        message = "is required and missing"
    else:
        message = f"{message} (found {problem['input']!r:.80})"
    return f"line {line}: {where}: {message}"


def _valid_keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys the section at this path takes, read off the model's JSON Schema."""
    schema = Workload.model_json_schema()
    node: JsonObject = schema
    for part in loc:
        node = _deref(node, schema)
        children = node.get("properties")
        if isinstance(part, int):
            node = node.get("items", {})  # type: ignore[assignment]
        elif isinstance(children, dict) and part in children:
            node = children[part]  # type: ignore[assignment]
    properties = _deref(node, schema).get("properties")
    return list(properties) if isinstance(properties, dict) else []


def _deref(node: JsonObject, schema: JsonObject) -> JsonObject:
    options = node.get("anyOf")
    for option in [node, *(options if isinstance(options, list) else [])]:
        reference = option.get("$ref") if isinstance(option, dict) else None
        if isinstance(reference, str):
            definitions = schema["$defs"]
            assert isinstance(definitions, dict)
            found = definitions[reference.rsplit("/", 1)[-1]]
            assert isinstance(found, dict)
            return found
    return node
