"""The shapes of grader JSON that can be built, as OpenAI writes them; ours start with `x-`."""

from typing import Literal

from pydantic import Field

from flywheel.records import JsonObject, Record


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
