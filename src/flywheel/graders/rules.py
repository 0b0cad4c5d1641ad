"""The graders that need no model: string_check, text_similarity, multi and x-json_schema."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flywheel.graders.expression import Expression
from flywheel.graders.grader import Grader
from flywheel.graders.similarity import Metric
from flywheel.graders.template import Missing, NotJson, Template, parse_json
from flywheel.records import GradeResult, JsonObject

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


@dataclass(frozen=True)
class StringCheck:
    """Compares two texts."""

    name: str
    operation: Literal["eq", "ne", "like", "ilike"]
    input: Template
    reference: Template

    def grade(self, output: str, item: JsonObject) -> GradeResult:
        """1 when the operation holds, else 0."""
        texts = _render_both(self.input, self.reference, output, item)
        if isinstance(texts, Missing):
            # An output without the field is wrong whatever the operation: `ne` too.
            return texts.result()
        text, reference = texts
        holds = {
            "eq": text == reference,
            "ne": text != reference,
            "like": reference in text,
            "ilike": reference.casefold() in text.casefold(),
        }[self.operation]
        detail = None if holds else f"{self.operation}: {text!r:.80} and {reference!r:.80}"
        return GradeResult(score=float(holds), detail=detail)


@dataclass(frozen=True)
class TextSimilarity:
    """How alike two texts are."""

    name: str
    metric: Metric
    input: Template
    reference: Template

    def grade(self, output: str, item: JsonObject) -> GradeResult:
        """The similarity, between 0 and 1."""
        texts = _render_both(self.input, self.reference, output, item)
        if isinstance(texts, Missing):
            return texts.result()
        return GradeResult(score=self.metric(*texts))


@dataclass(frozen=True)
class Multi:
    """Several graders joined by a formula."""

    name: str
    graders: Mapping[str, Grader]
    formula: Expression

    def grade(self, output: str, item: JsonObject) -> GradeResult:
        """The formula's value; None when a sub-grader it uses failed or it has no finite value."""
        scores: dict[str, float] = {}
        for name in sorted(self.formula.names):
            result = self.graders[name].grade(output, item)
            if result.score is None:
                detail = f"{name}: {result.error_type}: {result.detail}"
                return GradeResult(score=None, error_type="sub_grader_failed", detail=detail)
            scores[name] = result.score
        try:
            score = self.formula.evaluate(scores)
        except ArithmeticError as error:
            return GradeResult(score=None, error_type="calculation", detail=str(error))
        return GradeResult(score=score, detail=", ".join(f"{k}={v:g}" for k, v in scores.items()))


@dataclass(frozen=True)
class JsonSchema:
    """Whether the output is JSON that satisfies a schema."""

    name: str
    validator: "Validator"

    def grade(self, output: str, item: JsonObject) -> GradeResult:
        """1 when it does, else 0 and what is wrong; None when the schema cannot be applied."""
        from jsonschema.exceptions import best_match
        from referencing.exceptions import Unresolvable

        parsed = parse_json(output)
        if isinstance(parsed, NotJson):
            return GradeResult(score=0.0, detail=f"the output is not JSON: {parsed.reason}")
        try:
            problem = best_match(self.validator.iter_errors(parsed.value))
        except (Unresolvable, RecursionError) as error:
            return GradeResult(score=None, error_type="schema", detail=str(error))
        if problem is None:
            return GradeResult(score=1.0)
        return GradeResult(score=0.0, detail=f"{problem.json_path}: {problem.message:.200}")


def _render_both(
    text: Template, reference: Template, output: str, item: JsonObject
) -> tuple[str, str] | Missing:
    """Both texts, or what is missing; an item's gap first, for then nothing can be said at all."""
    rendered = text.render(output, item), reference.render(output, item)
    gaps = [part for part in rendered if isinstance(part, Missing)]
    if gaps:
        return min(gaps, key=lambda gap: gap.side != "item")
    left, right = rendered
    assert isinstance(left, str) and isinstance(right, str)
    return left, right
