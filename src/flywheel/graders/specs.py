"""The shapes of grader JSON that can be built, as OpenAI writes them; ours start with `x-`."""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from flywheel.records import Finite, JsonObject, Record

S = TypeVar("S", bound=Record)


class StringCheckSpec(Record):
    """Compares two texts: 1 when the operation holds, else 0."""

    type: Literal["string_check"]
    name: str | None = None
    operation: Literal["eq", "ne", "like", "ilike"]
    """Equal, not equal, input contains reference, the same whatever the case."""
    input: str
    reference: str


class TextSimilaritySpec(Record):
    """How alike two texts are, between 0 and 1."""

    type: Literal["text_similarity"]
    name: str | None = None
    evaluation_metric: str
    input: str
    reference: str
    pass_threshold: float | None = None
    """Kept for the round trip; the score is the similarity itself."""


class MultiSpec(Record):
    """Several graders joined by a formula."""

    type: Literal["multi"]
    name: str | None = None
    graders: dict[str, JsonObject]
    calculate_output: str


class FunctionSpec(Record):
    """What a Python function marked as a grader says."""

    type: Literal["x-function"]
    name: str | None = None
    function: str
    """`package.module:name`, importable where this runs."""


class JsonSchemaSpec(Record):
    """1 when the output is JSON that satisfies the schema, else 0."""

    type: Literal["x-json_schema"]
    name: str | None = None
    schema_: JsonObject = Field(alias="schema")
    """JSON Schema, draft 2020-12 unless `$schema` says otherwise. References are local only."""


class ModelMessageSpec(Record):
    """One message of a model grader's prompt."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str
    type: Literal["message"] = "message"


class SamplingSpec(Record):
    """How a model grader's model is asked, by OpenAI's names."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    max_completions_tokens: Annotated[int, Field(ge=16)] = 1024


class ScoreModelSpec(Record):
    """A model gives a number within a range."""

    type: Literal["score_model"]
    name: str | None = None
    model: str
    input: Annotated[tuple[ModelMessageSpec, ...], Field(min_length=1)]
    range: tuple[Finite, Finite] = (0.0, 1.0)
    sampling_params: SamplingSpec = SamplingSpec()
    provider: str | None = Field(default=None, alias="x-provider")
    """Of `gateway.providers`; may be absent where there is only one."""

    @model_validator(mode="after")
    def _range_rises(self) -> Self:
        if self.range[0] >= self.range[1]:
            raise ValueError("range is [lowest, highest]")
        return self


class LabelModelSpec(Record):
    """A model gives one of some labels: 1 when it is a passing one, else 0."""

    type: Literal["label_model"]
    name: str | None = None
    model: str
    input: Annotated[tuple[ModelMessageSpec, ...], Field(min_length=1)]
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    passing_labels: Annotated[tuple[str, ...], Field(min_length=1)]
    sampling_params: SamplingSpec = SamplingSpec()
    provider: str | None = Field(default=None, alias="x-provider")

    @model_validator(mode="after")
    def _passing_are_labels(self) -> Self:
        unknown = sorted(set(self.passing_labels) - set(self.labels))
        if unknown:
            raise ValueError(f"passing_labels {', '.join(unknown)} are not among labels")
        return self


class JudgeSpec(Record):
    """What a judge of flywheel.yaml says of an answer."""

    type: Literal["x-judge"]
    name: str | None = None
    judge: str
    """Of `judges`; one with purpose `gate` and mode `pointwise`."""


class MlflowSpec(Record):
    """What a scorer of `mlflow.genai` says of an answer."""

    type: Literal["x-mlflow"]
    name: str | None = None
    scorer: str
    """`package.module:name` of a scorer, or the name of a class in `mlflow.genai.scorers`."""
    arguments: JsonObject = Field(default_factory=dict)
    """What a built-in one takes: `{model: "openai:/gpt-4.1-mini"}`, as MLflow names models."""


def read_spec(spec: type[S], raw: JsonObject, where: str, problems: list[str]) -> S | None:
    """The specification, or None and lines added to `problems`."""
    try:
        return spec.model_validate(raw)
    except ValidationError as error:
        for problem in error.errors():
            path = ".".join(str(part) for part in (where, *problem["loc"]))
            if problem["type"] == "extra_forbidden":
                valid = ", ".join(field.alias or key for key, field in spec.model_fields.items())
                problems.append(f"{path}: unknown key; valid: {valid}")
            elif problem["type"] == "missing":
                problems.append(f"{path}: is required and missing")
            else:
                problems.append(f"{path}: {problem['msg']} (found {problem['input']!r:.80})")
        return None
