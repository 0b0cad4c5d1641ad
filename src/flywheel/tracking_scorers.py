"""MLflow's scorers and judges (`mlflow.genai`) as functions of an answer. Part of the MLflow door.

Input: the name of a scorer. Output: a function of (output, item) that gives a GradeResult. What a
scorer says as `yes` or True is 1, as `no` or False 0; a scorer that raises, reports an error or
says something that is no number is an error, never 0.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pydantic import JsonValue

from flywheel.errors import MissingExtraError
from flywheel.records import GradeResult, JsonObject

if TYPE_CHECKING:
    from mlflow.genai.scorers import Scorer

Score = Callable[[str, JsonObject], GradeResult]
_WORDS = {"yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0, "pass": 1.0, "fail": 0.0}


def open_scorer(name: str, arguments: Mapping[str, JsonValue]) -> Score:
    """The scorer of this name.

    Args:
        name: `package.module:name` of a scorer (a function under `@mlflow.genai.scorer`, or what
            `make_judge` returned), or the name of a class in `mlflow.genai.scorers`.
        arguments: What a class takes: `{"model": "openai:/gpt-4.1-mini"}`.

    Returns:
        A function that calls it with `inputs` {"messages": …}, `outputs` the text, and
        `expectations` the item's reference.

    Raises:
        ValueError: there is no such scorer, or it does not take the arguments.
        MissingExtraError: MLflow is not installed.
    """
    scorer = _custom(name, arguments) if ":" in name else _built_in(name, arguments)

    def score(output: str, item: JsonObject) -> GradeResult:
        reference = item.get("reference")
        try:
            said = scorer.run(
                inputs={"messages": item.get("messages")},
                outputs=output,
                expectations=reference if isinstance(reference, dict) else None,
            )
        except Exception as error:  # noqa: BLE001 - somebody else's code; it says nothing of the output
            return _failed(f"{type(error).__name__}: {error}")
        return _result(said)

    return score


def _built_in(name: str, arguments: Mapping[str, JsonValue]) -> "Scorer":
    scorers = _module("mlflow.genai.scorers")
    base = _attribute(scorers, "Scorer")
    known = sorted(
        one
        for one in dir(scorers)
        if isinstance(found := getattr(scorers, one), type)
        and issubclass(found, base)
        and found is not base
    )
    if name not in known:
        raise ValueError(
            f"no scorer {name!r}: it is package.module:name, or one of {', '.join(known)}"
        )
    try:
        scorer: Scorer = getattr(scorers, name)(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} does not take these arguments: {error}") from error
    return scorer


def _custom(name: str, arguments: Mapping[str, JsonValue]) -> "Scorer":
    if arguments:
        raise ValueError(f"{name} is made already: arguments are for MLflow's own classes")
    module_name, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
    except ImportError as error:
        raise ValueError(f"{module_name} cannot be imported: {error}") from error
    if not isinstance(found, _attribute(_module("mlflow.genai.scorers"), "Scorer")):
        raise ValueError(f"{name} is no scorer: define it there, under @mlflow.genai.scorer")
    scorer: Scorer = found
    return scorer


def _module(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("mlflow", "track") from error


def _attribute(module: object, name: str) -> type:
    found = getattr(module, name)
    assert isinstance(found, type)
    return found


def _result(said: object) -> GradeResult:
    if isinstance(said, list):
        if len(said) != 1:
            return _failed(f"it gave {len(said)} assessments; a grader gives one")
        said = said[0]
    error, rationale = getattr(said, "error", None), getattr(said, "rationale", None)
    if error is not None:
        return _failed(f"{error.error_code}: {error.error_message}")
    value = getattr(said, "value", said)
    if isinstance(value, str):
        value = _WORDS.get(value.strip().lower(), value)
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        return _failed(f"it said {value!r:.80}, which is no number and neither yes nor no")
    return GradeResult(score=float(value), detail=rationale if isinstance(rationale, str) else None)


def _failed(detail: str) -> GradeResult:
    return GradeResult(score=None, error_type="mlflow_scorer", detail=detail)
