"""What a grader is, and the one distinction all of them keep.

A *wrong output* scores 0: the model was asked for JSON and wrote none, or left out the field that
was asked for. A *grader's failure* scores None with an `error_type`: the item lacks the reference
to compare with, the formula divides by zero. The first says something about the model, the second
says nothing about it, so it must not drag a mean down.
"""

from typing import Protocol

from flywheel.records import GradeResult, JsonObject


class Grader(Protocol):
    """Scores one output of a model."""

    @property
    def name(self) -> str:
        """The name it is declared under."""
        ...

    def grade(self, output: str, item: JsonObject) -> GradeResult:
        """Scores `output`, the assistant message's text.

        Args:
            output: What `{{sample.output_text}}` sees, and `{{sample.output_json.*}}` once parsed.
            item: What `{{item.*}}` sees: `{"messages": […], "reference": {…}}`.

        Returns:
            A score, or score None and an `error_type` when the grader itself failed. Never raises.
        """
        ...
