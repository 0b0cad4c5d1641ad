"""What is judged, what reaches the model, and what came back. All of it plain records."""

from typing import Annotated, Literal

from pydantic import Field

from flywheel.records import Finite, JsonObject, Message, Record, Share

Order = Literal["AB", "BA"]
"""Which answer of a pair the judge sees as its A: the task's first, or its second."""


class JudgeTask(Record):
    """One thing to be judged: an answer, or two answers to the same messages."""

    task_id: str
    """Of the interaction, or of the pair; part of the id of every row."""
    workload: str
    messages: tuple[Message, ...]
    """What was asked."""
    responses: Annotated[tuple[Message, ...], Field(min_length=1, max_length=2)]
    """One answer, or A and B."""
    reference: Message | None = None
    """A good answer to compare with, where there is one."""
    interaction_id: str | None = None
    pair_ids: tuple[str, str] | None = None
    variables: dict[str, str] = Field(default_factory=dict)
    """Values of the variables the rubric declares beyond the built-in ones."""
    inclusion_prob: Share | None = None
    subject_key: str | None = None


class JudgeCall(Record):
    """One request to one model."""

    key: str
    """sha256 over all that reaches the model, in hex: what a cache of replies goes by."""
    task_id: str
    judge: str
    provider: str
    model: str
    url: str | None = None
    """Of the provider; NULL for the deployment's own engine."""
    order: Order | None = None
    """NULL when one answer is judged by itself."""
    messages: tuple[Message, ...]
    response_schema: JsonObject
    temperature: Finite
    max_tokens: int


class JudgeReply(Record):
    """What came of one call, its repair included."""

    key: str
    text: str | None
    """The verdict as the model wrote it; NULL when there is none."""
    error_type: str | None = None
    """judge_unavailable, judge_garbage, judge_refused, budget, deadline."""
    error_message: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    attempts: int = 1
    """Answers asked for: 2 when the first had to be repaired."""
    repaired: bool = False
    cost_usd: Finite | None = None


class CriterionVerdict(Record):
    """The grade one criterion got."""

    name: str
    label: str
    """As the rubric writes it; of a pair in the task's terms, whichever order was shown."""
    value: Finite | None


class Verdict(Record):
    """What one reply says, checked against the rubric."""

    criteria: tuple[CriterionVerdict, ...]
    """In the rubric's order."""
    label: str | None
    """The overall grade; NULL where several pointwise criteria have only a mean."""
    value: Finite | None
    rationale: str
