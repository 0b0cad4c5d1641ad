"""Grader JSON -> graders, with every mistake at once."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic import JsonValue

from flywheel.errors import ConfigError
from flywheel.graders.expression import Expression, parse_expression
from flywheel.graders.function import FunctionGrader, find_function
from flywheel.graders.grader import Grader
from flywheel.graders.rules import JsonSchema, Multi, StringCheck, TextSimilarity
from flywheel.graders.similarity import METRICS
from flywheel.graders.specs import (
    FunctionSpec,
    JsonSchemaSpec,
    MultiSpec,
    StringCheckSpec,
    TextSimilaritySpec,
    read_spec,
)
from flywheel.graders.template import Template, parse_template
from flywheel.records import JsonObject
from flywheel.workload import Workload

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_LATER = {
    "python": "comes with the sandbox: this version has none, and runs no code from a file",
}
_LATER_METRICS = {
    "cosine": "comes with embeddings: it needs a model this version does not call",
    "meteor": "needs a thesaurus this version does not have",
}
_TYPES = (
    "string_check",
    "text_similarity",
    "multi",
    "score_model",
    "label_model",
    "x-json_schema",
    "x-function",
    "x-judge",
    "x-mlflow",
)
_MODEL_TYPES = ("score_model", "label_model", "x-judge", "x-mlflow")
"""Those that wait for a model: seconds, not microseconds."""


def build_graders(
    spec: Mapping[str, JsonObject],
    *,
    source: str = "graders",
    models_of: Workload | None = None,
) -> dict[str, Grader]:
    """Builds every grader of a specification.

    Args:
        spec: OpenAI grader JSON by name.
        source: What to call the specification in an error: a file's name.
        models_of: The workload whose providers and judges a grader may ask. Without one, graders
            that wait for a model are mistakes: where it is not given nobody may wait.

    Raises:
        ConfigError: with every mistake, and what would be valid.
    """
    problems: list[str] = []
    graders = {name: _build(name, raw, name, problems, models_of) for name, raw in spec.items()}
    if problems:
        raise ConfigError(source, problems)
    return {name: grader for name, grader in graders.items() if grader is not None}


def grader_hash(spec: JsonObject) -> str:
    """Which grader this is: 16 hex digits of the sha256 of its JSON, whatever the order of keys."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pin_graders(spec: Mapping[str, JsonObject], workload: Workload) -> dict[str, JsonObject]:
    """The specification with each judge's identity: a changed rubric is another grader.

    Raises:
        ConfigError: a judge it names cannot be built.
    """
    from flywheel.graders.judge.building import pinned_judges

    return {name: pinned_judges(raw, workload) for name, raw in spec.items()}


def template_paths(spec: JsonObject) -> set[str]:
    """The fields a grader reads (`item.reference.urgency`), its sub-graders' too.

    Raises:
        ConfigError: a template that cannot be read.
    """
    paths: set[str] = set()
    for key, text in _template_texts(spec):
        try:
            paths.update(parse_template(text).paths)
        except ValueError as error:
            raise ConfigError("graders", [f"{key}: {error}"]) from error
    parts = spec.get("graders")
    for part in parts.values() if isinstance(parts, dict) else ():
        if isinstance(part, dict):
            paths |= template_paths(part)
    return paths


def _template_texts(spec: JsonObject) -> Iterator[tuple[str, str]]:
    """Every template with its key; a model grader's input is a list of messages."""
    for key in ("input", "reference"):
        value = spec.get(key)
        for part in value if isinstance(value, list) else [value]:
            text = part.get("content") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield key, text


def _build(
    name: str, raw: JsonObject, where: str, problems: list[str], models_of: Workload | None
) -> Grader | None:
    """One grader, or None and lines added to `problems`."""
    kind = raw.get("type")
    match kind:
        case "string_check":
            return _string_check(name, raw, where, problems)
        case "text_similarity":
            return _text_similarity(name, raw, where, problems)
        case "multi":
            return _multi(name, raw, where, problems, models_of)
        case "x-json_schema":
            return _json_schema(name, raw, where, problems)
        case "x-function":
            return _function(name, raw, where, problems)
        case str() if kind in _MODEL_TYPES and models_of is None:
            problems.append(
                f"{where}: {kind} waits for a model, and nobody may wait here: the gate uses it. "
                "A judge labels by `flywheel judge run` (docs/judges.md)"
            )
        case str() if kind in _MODEL_TYPES and models_of is not None:
            # Imported late: judges are built on what is here.
            from flywheel.graders.judge.building import build_model_grader

            return build_model_grader(name, raw, where, problems, models_of)
        case str() if kind in _LATER:
            problems.append(f"{where}: {kind} {_LATER[kind]}. Valid now: {', '.join(_TYPES)}")
        case None:
            problems.append(f"{where}.type: is required and missing; valid: {', '.join(_TYPES)}")
        case _:
            problems.append(f"{where}.type: no grader type {kind!r}; valid: {', '.join(_TYPES)}")
    return None


def _string_check(name: str, raw: JsonObject, where: str, problems: list[str]) -> Grader | None:
    spec = read_spec(StringCheckSpec, raw, where, problems)
    texts = _templates(raw, where, problems)
    if spec is None or texts is None:
        return None
    return StringCheck(name, spec.operation, *texts)


def _text_similarity(name: str, raw: JsonObject, where: str, problems: list[str]) -> Grader | None:
    spec = read_spec(TextSimilaritySpec, raw, where, problems)
    texts = _templates(raw, where, problems)
    metric = spec.evaluation_metric if spec else "fuzzy_match"
    if metric not in METRICS:
        reason = _LATER_METRICS.get(metric, f"no metric {metric!r}")
        problems.append(f"{where}.evaluation_metric: {reason}; valid: {', '.join(METRICS)}")
        return None
    if spec is None or texts is None:
        return None
    return TextSimilarity(name, METRICS[metric], *texts)


def _multi(
    name: str, raw: JsonObject, where: str, problems: list[str], models_of: Workload | None
) -> Grader | None:
    spec = read_spec(MultiSpec, raw, where, problems)
    if spec is None:
        return None
    parts = {
        part: _build(part, sub, f"{where}.graders.{part}", problems, models_of)
        for part, sub in spec.graders.items()
    }
    formula: Expression | None = None
    try:
        formula = parse_expression(spec.calculate_output, spec.graders)
    except ValueError as error:
        problems.append(f"{where}.calculate_output: {error}")
    built = {part: grader for part, grader in parts.items() if grader is not None}
    return Multi(name, built, formula) if formula and len(built) == len(parts) else None


def _json_schema(name: str, raw: JsonObject, where: str, problems: list[str]) -> Grader | None:
    spec = read_spec(JsonSchemaSpec, raw, where, problems)
    validator = _validator(spec.schema_, f"{where}.schema", problems) if spec else None
    return JsonSchema(name, validator) if validator is not None else None


def _function(name: str, raw: JsonObject, where: str, problems: list[str]) -> Grader | None:
    spec = read_spec(FunctionSpec, raw, where, problems)
    if spec is None:
        return None
    try:
        return FunctionGrader(name, find_function(spec.function))
    except ValueError as error:
        problems.append(f"{where}.function: {error}")
        return None


def _templates(
    raw: JsonObject, where: str, problems: list[str]
) -> tuple[Template, Template] | None:
    """Input and reference; read from the raw JSON, so that their mistakes join the others'."""
    found: list[Template] = []
    for key in ("input", "reference"):
        text = raw.get(key)
        try:
            found.append(parse_template(text if isinstance(text, str) else ""))
        except ValueError as error:
            problems.append(f"{where}.{key}: {error}")
    return (found[0], found[1]) if len(found) == 2 else None


def _validator(schema: JsonObject, where: str, problems: list[str]) -> "Validator | None":
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry

    remote = sorted({target for target in _references(schema) if not target.startswith("#")})
    if remote:
        problems.append(f"{where}: only local references (#/…) are followed, not {remote}")
    validator_class = validator_for(schema, default=Draft202012Validator)
    try:
        validator_class.check_schema(schema)
    except SchemaError as error:
        problems.append(f"{where}: not a JSON Schema: {error.json_path}: {error.message}")
        return None
    # An empty registry: jsonschema's own would fetch a remote reference over the network.
    return validator_class(schema, registry=Registry()) if not remote else None


def _references(value: JsonValue) -> Iterator[str]:
    """Every `$ref` and `$dynamicRef` below this value."""
    if isinstance(value, dict):
        for key in ("$ref", "$dynamicRef"):
            target = value.get(key)
            if isinstance(target, str):
                yield target
    children = value.values() if isinstance(value, dict) else value
    for child in children if isinstance(children, (list, type({}.values()))) else ():
        yield from _references(child)
