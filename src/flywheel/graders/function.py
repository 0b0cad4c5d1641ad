"""A grader written in Python: `{"type": "x-function", "function": "package.module:name"}`.

Only a function that says of itself that it is a grader can be named, so that a workload file cannot
hand a model's output to whatever else is installed. It runs in this process and without a sandbox:
it is the deployment's own code, not code that came in a specification.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from flywheel.records import GradeResult, JsonObject

Verdict = float | GradeResult
Function = Callable[[str, JsonObject], Verdict]
F = TypeVar("F", bound=Callable[..., Verdict])
_MARK = "__flywheel_code_grader__"


def code_grader(function: F) -> F:
    """Marks a function of (output, item) as a grader; it returns a score or a GradeResult.

    A `detail` in the result is what a model is told when an answer is to be repaired.
    """
    setattr(function, _MARK, True)
    return function


def find_function(name: str) -> Function:
    """The function a specification names.

    Raises:
        ValueError: with what is wrong: the form, the module, or the function.
    """
    module_name, separator, attribute = name.partition(":")
    if not separator or not all(part.isidentifier() for part in module_name.split(".")):
        raise ValueError(f"{name!r} is not package.module:function")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"{module_name} cannot be imported: {error}. Install it where flywheel is installed"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function) or not getattr(function, _MARK, False):
        raise ValueError(
            f"{name} is no grader: define it there, under @flywheel.graders.code_grader"
        )
    marked: Function = function
    return marked


@dataclass(frozen=True)
class FunctionGrader:
    """Scores what the function says."""

    name: str
    function: Function

    def grade(self, output: str, item: JsonObject) -> GradeResult:
        """Its score; None when it raises."""
        try:
            verdict = self.function(output, item)
        except Exception as error:  # noqa: BLE001 - its author's bug says nothing about the output
            return GradeResult(
                score=None, error_type="function", detail=f"{type(error).__name__}: {error}"
            )
        return verdict if isinstance(verdict, GradeResult) else GradeResult(score=float(verdict))
