"""The nouns: what crosses a stage is one of these frozen models.

Timestamps are aware UTC with microseconds. Missing is `None`, with a reason beside it where there
is one, never 0 or NaN. Field names follow the OpenTelemetry GenAI semantic conventions without the
`gen_ai.` prefix; messages are OpenAI chat JSON and survive a round trip unchanged.
"""

import os
import time
from datetime import UTC, date, datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    model_serializer,
    model_validator,
)

JsonObject = dict[str, JsonValue]
"""A JSON object as it came over the wire."""

SCHEMA_VERSION = 1
"""Version of the table columns below. A lake at a newer version is refused, not guessed at."""


def utcnow() -> datetime:
    """Now, aware, in UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then 74 random bits; sorts by time."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    value = (milliseconds & ((1 << 48) - 1)) << 80 | 7 << 76
    value |= ((random >> 62) & 0xFFF) << 64 | 0b10 << 62 | random & ((1 << 62) - 1)
    return str(UUID(int=value))


def _utc(value: datetime) -> datetime:
    return value if value.tzinfo is UTC else value.astimezone(UTC)


UtcDatetime = Annotated[AwareDatetime, AfterValidator(_utc)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Record(BaseModel):
    """A frozen model that refuses fields it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, defer_build=True
    )


class Message(BaseModel):
    """One OpenAI chat message. Fields it does not name are kept as they came."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    role: str
    """system, developer, user, assistant or tool."""
    content: str | list[JsonObject] | None = None
    """Text, or content parts, or null (an assistant that only calls tools)."""
    tool_calls: list[JsonObject] | None = None
    """Calls the assistant asks for, as OpenAI writes them."""
    tool_call_id: str | None = None
    """The call a tool message answers."""
    name: str | None = None
    """The participant, where several share a role."""

    @model_serializer(mode="plain")
    def _only_what_came(self) -> JsonObject:
        """A field that was absent stays absent; one that was null stays null."""
        came = self.model_fields_set
        dumped: JsonObject = {name: value for name, value in self.__dict__.items() if name in came}
        return dumped | (self.__pydantic_extra__ or {})

    @property
    def text(self) -> str:
        """The text of the message, its text parts joined; empty when there is none."""
        if isinstance(self.content, str):
            return self.content
        parts = self.content or []
        return "".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")


Arm = Literal["champion", "canary", "shadow", "fallback", "baseline"]
Status = Literal["ok", "error", "cancelled", "truncated"]


class Interaction(Record):
    """One model call: request, response, who served it, what it cost."""

    interaction_id: str
    """UUIDv7 given at the gateway; importers derive it from content."""
    workload: str
    event_date: date
    """UTC date of `started_at`; the partition."""
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    conversation_id: str
    """Calls that belong together; the interaction's own id where the caller names none."""
    turn_index: int | None = None
    started_at: UtcDatetime
    duration_ms: Finite | None = None
    """From the request's arrival to the last byte of the answer."""
    time_to_first_token_ms: Finite | None = None
    """NULL when the answer was not streamed."""
    operation: str = "chat"
    """chat, text_completion, embeddings."""
    provider: str | None = None
    request_model: str
    """The name the client asked for: the stable alias."""
    response_model: str | None = None
    """The name that answered: an adapter's served name, or the base model's."""
    adapter: str | None = None
    """Served name of the adapter, NULL when the base model answered."""
    arm: Arm = "champion"
    messages: tuple[Message, ...]
    tools: tuple[JsonObject, ...] | None = None
    request_params: JsonObject = Field(default_factory=dict)
    """The request less messages, tools and model."""
    response: Message | None = None
    """The first choice's assistant message, NULL when none came."""
    alternatives: tuple[Message, ...] = ()
    """Further choices when n > 1."""
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: Finite | None = None
    status: Status = "ok"
    error_type: str | None = None
    error_message: str | None = None
    subject_key: str | None = None
    """HMAC of the data subject's identifier; the identifier itself is never stored."""
    purposes: tuple[str, ...] = ()
    """What the data may be used for; empty means as the deployment's policy says."""
    inclusion_prob: Share | None = None
    """Probability with which this call was sampled into the lake; 1 when all are."""
    redaction_policy: str | None = None
    redactions: int | None = None
    tags: JsonObject = Field(default_factory=dict)
    source: str = "gateway"
    schema_version: int = SCHEMA_VERSION
    ingested_at: UtcDatetime | None = None
    """When it was committed to the lake."""


AssessmentKind = Literal["feedback", "preference", "correction", "expectation"]
SourceType = Literal["end_user", "human", "llm_judge", "code"]


class Assessment(Record):
    """One judgement on a response or a pair: value, label, correction, by whom, why."""

    assessment_id: str
    """Idempotent: the same id twice is the same judgement."""
    workload: str
    event_date: date
    """UTC date of `created_at`; the partition."""
    interaction_id: str | None = None
    """What is judged; NULL for a pair. May name an interaction that has not arrived yet."""
    conversation_id: str | None = None
    """Set instead of `interaction_id` when a whole conversation is judged."""
    pair_ids: tuple[str, str] | None = None
    """Interactions A and B of a preference."""
    name: str
    """The question answered: `urgency`, `helpful`, `valid_json`."""
    kind: AssessmentKind
    value: Finite | None = None
    """A number on the question's scale; booleans are 0 and 1. NULL with `error_type` on failure."""
    label: str | None = None
    correction: Message | None = None
    """The assistant message that should have been sent."""
    rationale: str | None = None
    source_type: SourceType
    source_id: str | None = None
    source_role: str | None = None
    rubric: str | None = None
    guideline: str | None = None
    """Version of the instructions the rater worked by: `2026-03`."""
    round: Literal["1", "2", "adjudication"] | None = None
    presented_order: str | None = None
    blinded: bool | None = None
    lead_time_s: Finite | None = None
    status: Literal["submitted", "discarded", "error"] = "submitted"
    error_type: str | None = None
    judge_model: str | None = None
    judge_prompt_hash: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: Finite | None = None
    covariates: JsonObject = Field(default_factory=dict)
    """What was measured beside the verdict and may have moved it: lengths, format, signs of an
    injection. Recorded, never subtracted: docs/judges.md."""
    judge_run_id: str | None = None
    """Of `judge_runs`: the row counts once that run is valid. NULL where there is no run."""
    supersedes: str | None = None
    """assessment_id of the judgement this one replaces."""
    subject_key: str | None = None
    inclusion_prob: Share | None = None
    created_at: UtcDatetime

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.kind == "correction" and (
            self.correction is None or not _has_content(self.correction)
        ):
            raise ValueError("a correction needs a message with content or tool calls")
        if self.status == "error" and self.value is not None:
            raise ValueError("a failed assessment has value NULL and an error_type")
        return self


def _has_content(message: Message) -> bool:
    return bool(message.text.strip() or message.tool_calls)


ReviewReason = Literal[
    "random",
    "gold",
    "complaints",
    "order_disagreement",
    "panel_split",
    "uncertainty",
    "new_clusters",
    "adjudication",
]


class ReviewItem(Record):
    """One item put to one rater: what was asked, why, and how it was shown."""

    review_item_id: str
    """Of workload, rater, item and round; a random draw of an item already asked has its own."""
    workload: str
    created_at: UtcDatetime
    trace_id: str
    """The MLflow trace the rater sees; one a rater, so that nobody sees another's answers."""
    rater: str
    """Whose queue: a rater or a group."""
    interaction_ids: tuple[str, ...]
    """One, or A and B of a pair."""
    presented_order: Literal["AB", "BA"] | None = None
    """Of a pair, as this rater saw it; NULL otherwise."""
    reason: ReviewReason
    """Why it was picked. The rater does not see it."""
    inclusion_prob: Share | None = None
    """Of the random slice: the probability with which the item is in it. NULL for the rest."""
    round: Literal["1", "adjudication"] = "1"
    guideline: str
    blinded: bool
    position: int
    """Where it stood in the rater's queue, 0 first."""


class QualificationMeasure(Record):
    """One thing a judge was measured by on gold labels."""

    name: Literal["kappa", "swap_consistency", "length_bias", "self_preference"]
    value: Finite | None
    """NULL where the gold labels cannot tell it; then it has not passed."""
    low: Finite | None
    high: Finite | None
    level: Share = 0.95
    bar: Finite
    passed: bool
    n: int
    """Items it rests on."""


class Qualification(Record):
    """What one judge reached on gold labels, and until when its word counts."""

    qualification_id: str
    """Of judge, gold labels and time of measurement."""
    workload: str
    created_at: UtcDatetime
    expires_at: UtcDatetime
    judge: str
    """Name in `judges` of flywheel.yaml."""
    judge_hash: str
    """Of models, prompt, rubric and sampling: a change of any makes another judge."""
    judge_model: str
    """The models of the panel, joined by ` + `."""
    rubric: str
    """Its name and version, `helpful@2`."""
    gold_hash: str
    """sha256 of the gold labels used."""
    items: int
    errors: int
    """Gold items on which the judge failed; counted as wrong by no measure, told beside them."""
    measures: tuple[QualificationMeasure, ...]
    qualified: bool
    reasons: tuple[str, ...]
    """Sentences; why not, where it did not."""
    run_id: str | None = None
    """MLflow run with the report."""


class JudgeRun(Record):
    """An entry of the ledger of judge runs: append-only, and a run's latest entry is its state.

    A judge's rows are committed while it judges and count from the entry `valid` on: an invalid
    run labels nothing, and the next run goes on with it instead of beginning again.
    """

    entry_id: str
    judge_run_id: str
    workload: str
    created_at: UtcDatetime
    judge: str
    judge_hash: str
    """Of models, prompt, rubric and sampling: only the same judge goes on with a run."""
    state: Literal["open", "invalid", "valid"]
    tasks: int
    """Interactions or pairs judged so far, once for each model of the panel."""
    errors: int
    """Of those, without a verdict."""
    max_error_share: Share
    """Declared: with a greater share the run is invalid."""
    calls: int
    """Paid for so far."""
    tokens: int
    cost_usd: Finite | None
    """NULL where the price of a call is not known."""
    reason: str
    """A sentence."""


class QuarantineRecord(Record):
    """A record that could not be accepted, with the reason and the original bytes."""

    quarantine_id: str
    """Derived from the bytes and the source, so quarantining twice adds nothing."""
    event_date: date
    created_at: UtcDatetime
    source: str
    """Where it came from: a spool segment, a file and line."""
    reason: str
    """A short stable name: `torn_frame`, `bad_json`, `invalid_record`, `empty_correction`."""
    detail: str
    payload: bytes


Split = Literal["train", "validation"]
DatasetKind = Literal["sft", "dpo"]


class Snapshot(Record):
    """An immutable dataset: rows, splits, manifest, card."""

    snapshot_id: str
    """sha256 of content and recipe, in hex."""
    workload: str
    created_at: UtcDatetime
    path: str
    """Folder with one JSONL or Parquet file per kind and split, manifest.json and CARD.md."""
    lake_versions: dict[str, int]
    """Delta version read, per table."""
    recipe: JsonObject
    """The `dataset` and `labels` sections it was built with."""
    counts: dict[str, int]
    """Rows per `<kind>/<split>`."""
    labels: int
    """Labelled interactions used."""
    new_labels: int
    """Of those, labelled since the last snapshot a night trained on."""


class SnapshotRow(Record):
    """Which interaction sits in which split of a snapshot, and how sure its label is."""

    snapshot_id: str
    workload: str
    interaction_id: str
    conversation_id: str
    kind: DatasetKind
    split: Split
    label_source: str
    """The strongest source the label rests on: adjudicated, expert, judge, end_user, code."""
    strength: Share | None = None
    raters: int
    agreement: Share | None = None
    """Share of raters who agree with the resolved label."""


class Adapter(Record):
    """LoRA weights with lineage."""

    adapter_id: str
    """sha256 over its tensors' names, shapes, dtypes and bytes, in hex."""
    name: str
    """Served name, `<workload>-<first 12 of the sha>`, never reused."""
    workload: str
    created_at: UtcDatetime
    base_model: str
    """The served id of the base model, not the path it was loaded from."""
    parent: str | None = None
    """adapter_id it continued from, NULL when it started from the base."""
    snapshot_id: str | None = None
    spec: JsonObject
    """The TrainSpec it was trained with."""
    rank: int
    target_modules: tuple[str, ...]
    size_bytes: int
    path: str
    """Folder in the adapter store."""
    run_id: str | None = None
    """MLflow run that trained it."""
    metrics: dict[str, float] = Field(default_factory=dict)


class EvaluationItem(Record):
    """One item of a frozen suite answered by one model, and how it scored."""

    evaluation_id: str
    workload: str
    created_at: UtcDatetime
    suite: str
    suite_hash: str
    item_id: str
    cluster_id: str
    """Items of one conversation (or complaint) share it; the bootstrap resamples clusters."""
    model: str
    """Served name."""
    role: Literal["candidate", "champion"]
    output: str | None
    scores: dict[str, float | None]
    """Grader name to score; NULL when the grader failed."""
    error_type: str | None = None
    duration_ms: Finite | None = None


class EvalReport(Record):
    """Per-item outputs and scores of one model on one frozen suite."""

    evaluation_id: str
    workload: str
    model: str
    role: Literal["candidate", "champion"]
    suite: str
    suite_hash: str
    items: tuple[EvaluationItem, ...]


class Interval(Record):
    """An estimate with its confidence interval."""

    mean: Finite
    low: Finite
    high: Finite
    level: Share = 0.95


class Comparison(Record):
    """One metric of candidate and champion on the same items."""

    name: str
    rule: Literal["superiority", "non_inferiority", "never_again"]
    margin: Finite
    """Superiority: the least improvement that counts. Non-inferiority: the worst loss tolerated."""
    n: int
    """Items that carry the metric."""
    clusters: int
    candidate: Interval
    champion: Interval
    difference: Interval
    """Candidate minus champion, paired; its level is 1 - 2 x the one-sided alpha."""
    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    reason: str
    more_items: int | None = None
    """How many more items would settle it, when inconclusive."""


Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class Decision(Record):
    """PASS, FAIL or INCONCLUSIVE, with reasons and numbers."""

    decision_id: str
    workload: str
    created_at: UtcDatetime
    candidate: str
    """Served name."""
    champion: str
    """Served name; the base model's when nothing was promoted yet."""
    verdict: Verdict
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    suite: str
    suite_hash: str
    candidate_evaluation_id: str
    champion_evaluation_id: str
    run_id: str | None = None
    """MLflow run with the evidence."""


class Release(Record):
    """Which model an alias serves from an epoch on, and how it got there: append-only."""

    workload: str
    epoch: int
    """1 for the first flip; a compare-and-swap on it is the commit point of a promotion."""
    alias: str
    model: str
    """Served name the alias now points to."""
    adapter: str | None
    """The same when it is an adapter, NULL when the base model serves."""
    previous: str
    """Served name it pointed to before."""
    action: Literal["promote", "rollback", "roll_forward"]
    decision_id: str | None
    """The PASS that allowed a promotion; NULL for a roll-back."""
    actor: str
    reason: str
    created_at: UtcDatetime


class Exchange(Record):
    """What the gateway saw of one call, raw. It is spooled as it is; `capture` parses it later.

    Parsing off the request path keeps the gateway fast, and an answer Flywheel cannot parse is
    still kept: its bytes go to quarantine.
    """

    interaction_id: str
    workload: str
    conversation_id: str | None = None
    turn_index: int | None = None
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    started_at: UtcDatetime
    duration_ms: Finite
    time_to_first_token_ms: Finite | None = None
    operation: str = "chat"
    provider: str | None = None
    request_model: str
    served_model: str | None = None
    """The name sent upstream; NULL when the request never got that far."""
    adapter: str | None = None
    arm: Arm = "champion"
    request: str
    """The client's body, as text."""
    response: str
    """The upstream's body as text: JSON, or the SSE stream as forwarded so far."""
    streamed: bool = False
    http_status: int | None = None
    """Upstream's status, NULL when there was none."""
    status: Status = "ok"
    error_type: str | None = None
    error_message: str | None = None
    cost_usd: Finite | None = None
    """By the gateway's price table; NULL where it does not know the model or the tokens."""
    subject_key: str | None = None
    inclusion_prob: Share | None = 1.0
    tags: JsonObject = Field(default_factory=dict)
    source: str = "gateway"


class Feedback(Record):
    """The body of POST /v1/feedback."""

    interaction_id: str | None = None
    conversation_id: str | None = None
    """Either this or `interaction_id`."""
    name: str = Field(min_length=1)
    value: Finite | bool | None = None
    label: str | None = None
    correction: Message | str | None = None
    """The assistant message that should have been sent; a string is its content."""
    comment: str | None = None
    source_type: SourceType = "end_user"
    source_id: str | None = None
    assessment_id: str | None = None
    """Given by the caller to make a repeat harmless; made by the gateway when absent."""
    workload: str | None = None
    """Needed only where a gateway serves several and the interaction is not known yet."""
    created_at: UtcDatetime | None = None
    """Set by the gateway when absent."""

    @model_validator(mode="after")
    def _judges_something(self) -> Self:
        if (self.interaction_id is None) == (self.conversation_id is None):
            raise ValueError("give either interaction_id or conversation_id")
        if self.value is None and self.label is None and self.correction is None:
            raise ValueError("give at least one of value, label and correction")
        message = self.correction_message
        if message is not None and not _has_content(message):
            raise ValueError("correction is empty: give the answer that should have been sent")
        return self

    @property
    def correction_message(self) -> Message | None:
        """The correction as an assistant message."""
        if isinstance(self.correction, str):
            return Message(role="assistant", content=self.correction)
        return self.correction


Durability = Literal["before_response", "group", "async"]
"""When a captured call is on disk: before its answer ends, within the spool's window after it, or
when the operating system sees fit."""


class CaptureCounters(Record):
    """What became of the records handed to a spool since it was opened.

    Always `accepted == spooled + pending + sum(dropped.values())`.
    """

    accepted: int = 0
    """Records handed in."""
    spooled: int = 0
    """Written and, but for `async` ones, fsynced."""
    pending: int = 0
    """In memory, waiting for the next fsync, or for a full disk to have room again."""
    dropped: dict[str, int] = Field(default_factory=dict)
    """Lost, by reason: spool_full, queue_full, disk_error, invalid, closed."""
    bytes_spooled: int = 0
    late: int = 0
    """Answers of `before_response` that left although the disk had not taken their record in
    time. The records themselves are in one of the counts above."""


class SuiteItem(Record):
    """One item of a frozen evaluation suite: a line of its JSONL file."""

    item_id: str
    cluster_id: str | None = None
    """Items that are not independent share it; the item's own id when absent."""
    messages: tuple[Message, ...]
    reference: JsonObject = Field(default_factory=dict)
    """What graders compare with; `where` of a guardrail selects on it."""
    never_again: bool = False
    """A case that must be right: one failure fails the gate."""


class GradeResult(Record):
    """What a grader said of one sample."""

    score: Finite | None
    """NULL when the grader failed, with `error_type`."""
    error_type: str | None = None
    detail: str | None = None
