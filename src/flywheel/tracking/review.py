"""MLflow's review queues: questions, traces to look at, queues, and the answers.

A queue is one set of questions over many traces; whoever is assigned to it answers in MLflow's own
pages (MLflow 3.14 and newer). Queues, questions and traces live in one experiment.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

from flywheel.errors import TrackingError, UpstreamUnavailableError
from flywheel.records import JsonObject, Message
from flywheel.reviews import QuestionSection
from flywheel.tracking.connection import PROBE_TIMEOUT_S, door, is_server, quiet_requests
from flywheel.tracking.tracker import OWN_ID, Tracker

if TYPE_CHECKING:
    from mlflow.entities import Assessment as MlflowAssessment
    from mlflow.entities.span import Span
    from mlflow.genai.label_schemas import LabelSchema
    from mlflow.genai.review_queues import ReviewQueue
    from mlflow.tracing.client import TracingClient

OLDEST = (3, 14)
"""MLflow's first version with review queues."""
MAX_PREVIEW_CHARS = 1000
"""MLflow's column (SqlTraceInfo.request_preview); longer text is refused by some databases."""
PREFERENCES = {
    "Reply A is better": "A",
    "Reply B is better": "B",
    "Tie: equally good": "tie",
    "Both unsafe or unusable": "both_bad",
    "Cannot judge": "cannot_judge",
}
"""What a rater reads, and the label it stands for (A and B as presented)."""
PAGE = 100

ItemStatus = Literal["pending", "complete", "declined"]


@dataclass(frozen=True)
class ShownTrace:
    """What a rater sees of one item."""

    trace_id: str
    """`tr-` and 32 hex digits. Writing one that is there changes nothing."""
    name: str
    messages: tuple[Message, ...]
    replies: tuple[Message, ...]
    """One, or the two of a pair in the order presented."""
    request_text: str
    response_text: str
    """Markdown the review page shows, at most MAX_PREVIEW_CHARS; the trace has all of it."""
    tags: Mapping[str, str]
    shown_at: datetime
    """Its time in MLflow: a queue shows later ones first."""


@dataclass(frozen=True)
class Answer:
    """One answer a person gave on a trace."""

    answer_id: str
    trace_id: str
    title: str
    """The question, as the rater read it."""
    value: JsonValue
    rationale: str | None
    user: str
    """MLflow's user; `default` on a server without users."""
    answered_at: datetime


@dataclass(frozen=True)
class Queue:
    """A review queue as MLflow has it now."""

    queue_id: str
    name: str
    schema_ids: frozenset[str]
    items: Mapping[str, ItemStatus]
    """By trace id."""


class ReviewQueues:
    """The review queues of one experiment.

    Args:
        tracker: The MLflow they are on.
        experiment: Name of the experiment; made on first use.

    Raises:
        UpstreamUnavailableError: MLflow does not answer.
        TrackingError: it is too old to have review queues.
    """

    def __init__(self, tracker: Tracker, experiment: str) -> None:
        self._uri = tracker.uri
        self.experiment = experiment
        self.experiment_id = tracker.experiment_id(experiment)
        _require_reviews(self._uri)
        self._opened: TracingClient | None = None

    def ensure_questions(self, questions: Mapping[str, QuestionSection]) -> dict[str, str]:
        """Makes the questions that are missing; their ids by the question's key.

        Raises:
            TrackingError: one of that title is there and is of another kind.
        """
        ids = {}
        with door(self._uri):
            known = {schema.name: schema for schema in self._schemas()}
            # The page asks the youngest question first: the first declared is made last.
            for key, question in reversed(list(questions.items())):
                title = question.title or key
                wanted = _schema_input(question)
                found = known.get(title)
                if found is None:
                    found = self._client()._create_label_schema(
                        self.experiment_id,
                        name=title,
                        type="expectation" if question.kind == "correction" else "feedback",
                        input=wanted,
                        instruction=question.instruction,
                        enable_comment=question.comment,
                    )
                elif found.input != wanted:
                    raise TrackingError(
                        self._uri,
                        f"experiment {self.experiment!r} has a question {title!r} that is another: "
                        f"{found.input} there, {wanted} here. Give yours another title",
                    )
                ids[key] = str(found.schema_id)
        return ids

    def log_traces(self, traces: Iterable[ShownTrace]) -> None:
        """Writes traces; one that is there already stays as it is."""
        from mlflow.entities import TraceInfo, TraceLocation, TraceState

        for trace in traces:
            millis = int(trace.shown_at.timestamp() * 1000)
            info = TraceInfo(
                trace_id=trace.trace_id,
                trace_location=TraceLocation.from_experiment_id(self.experiment_id),
                request_time=millis,
                state=TraceState.OK,
                execution_duration=0,
                request_preview=trace.request_text[:MAX_PREVIEW_CHARS],
                response_preview=trace.response_text[:MAX_PREVIEW_CHARS],
                tags={"mlflow.traceName": trace.name, **trace.tags},
            )
            with door(self._uri), quiet_requests():
                client = self._client()
                client.start_trace(info)
                client.log_spans(self.experiment_id, [_span(trace, millis)])

    def put(
        self,
        queue: str,
        trace_ids: Sequence[str],
        *,
        users: Sequence[str],
        schema_ids: Iterable[str],
    ) -> Queue:
        """Attaches traces to a queue, which is made if it is not there; twice is once.

        Raises:
            TrackingError: the queue asks other questions than these.
        """
        wanted = frozenset(schema_ids)
        with door(self._uri):
            found = self._find(queue)
            if found is None:
                found = self._client()._create_review_queue(
                    self.experiment_id,
                    name=queue,
                    queue_type="custom",
                    users=list(users),
                    schema_ids=sorted(wanted),
                )
            elif frozenset(found.schema_ids) != wanted:
                raise TrackingError(
                    self._uri,
                    f"queue {queue!r} asks other questions than review.questions. Answers to "
                    "different questions may not be mixed: raise the version in review.guideline",
                )
            for start in range(0, len(trace_ids), PAGE):
                page = list(trace_ids[start : start + PAGE])
                self._client()._add_items_to_review_queue(found.queue_id, item_ids=page)
            return self._queue(found)

    def queues(self) -> dict[str, Queue]:
        """Every queue of the experiment, by name."""
        with door(self._uri):
            return {found.name: self._queue(found) for found in self._found()}

    def traces(self, trace_ids: Sequence[str]) -> dict[str, list[Answer]]:
        """The answers people gave, by trace; a trace that is gone from MLflow is left out.

        An answer that was edited is there once, as it is now.
        """
        found: dict[str, list[Answer]] = {}
        with door(self._uri):
            store = self._client().store
            for start in range(0, len(trace_ids), PAGE):
                for info in store.batch_get_trace_infos(list(trace_ids[start : start + PAGE])):
                    given = [_answer(info.trace_id, one) for one in info.assessments or ()]
                    found[info.trace_id] = [answer for answer in given if answer is not None]
        return found

    def url(self, queue_id: str) -> str | None:
        """Where a browser finds the queue; None without a server."""
        if not is_server(self._uri):
            return None
        page = f"{self._uri.rstrip('/')}/#/experiments/{self.experiment_id}/review-queue"
        return f"{page}?selectedQueueId={queue_id}&startReview=true"

    def _client(self) -> "TracingClient":
        if self._opened is None:
            from mlflow.tracing.client import TracingClient

            self._opened = TracingClient(self._uri)
        return self._opened

    def _schemas(self) -> "list[LabelSchema]":
        schemas, token = [], None
        while True:
            page = self._client()._list_label_schemas(
                self.experiment_id, max_results=PAGE, page_token=token
            )
            schemas += list(page)
            token = page.token
            if not token:
                return schemas

    def _found(self) -> "list[ReviewQueue]":
        queues, token = [], None
        while True:
            page = self._client()._list_review_queues(
                self.experiment_id, user=None, max_results=PAGE, page_token=token
            )
            queues += list(page)
            token = page.token
            if not token:
                return queues

    def _find(self, name: str) -> "ReviewQueue | None":
        return next((queue for queue in self._found() if queue.name == name), None)

    def _queue(self, found: "ReviewQueue") -> Queue:
        items: dict[str, ItemStatus] = {}
        token = None
        while True:
            page = self._client()._list_review_queue_items(
                found.queue_id, status=None, max_results=PAGE, page_token=token
            )
            items.update({item.item_id: item.status.value for item in page})
            token = page.token
            if not token:
                return Queue(found.queue_id, found.name, frozenset(found.schema_ids), items)


def _require_reviews(uri: str) -> None:
    """A server says its version; without a server it is the one installed here."""
    if not is_server(uri):
        from mlflow import __version__ as version
    else:
        try:
            with urllib.request.urlopen(
                f"{uri.rstrip('/')}/version", timeout=PROBE_TIMEOUT_S
            ) as reply:
                version = reply.read(64).decode("utf-8", "replace").strip()
        except urllib.error.HTTPError as error:
            error.close()
            version = "unknown"
        except OSError as error:
            raise UpstreamUnavailableError(uri, str(error)) from error
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if len(numbers) < 2 or numbers < OLDEST:
        raise TrackingError(
            uri,
            f"its version is {version:.40}, and review queues came with "
            f"{'.'.join(map(str, OLDEST))}. Upgrade the server: pip install -U 'mlflow>=3.17'",
        )


def _schema_input(question: QuestionSection) -> object:
    from mlflow.genai.label_schemas import (
        InputCategorical,
        InputNumeric,
        InputPassFail,
        InputText,
    )

    match question.kind:
        case "pass_fail":
            return InputPassFail(
                positive_label=question.pass_label, negative_label=question.fail_label
            )
        case "category":
            return InputCategorical(options=list(question.options))
        case "preference":
            return InputCategorical(options=list(PREFERENCES))
        case "number":
            return InputNumeric(min_value=question.minimum, max_value=question.maximum)
        case _:
            return InputText()


def _span(trace: ShownTrace, millis: int) -> "Span":
    """The conversation as one chat span, in the form MLflow's pages render as a chat."""
    from mlflow.entities.span import Span

    digits = trace.trace_id.removeprefix("tr-")
    outputs: JsonObject = {
        "choices": [
            {"index": index, "message": reply.model_dump()}
            for index, reply in enumerate(trace.replies)
        ]
    }
    attributes: dict[str, JsonValue] = {
        "mlflow.traceRequestId": trace.trace_id,
        "mlflow.spanType": "CHAT_MODEL",
        "mlflow.message.format": "openai",
        "mlflow.spanInputs": {"messages": [message.model_dump() for message in trace.messages]},
        "mlflow.spanOutputs": outputs,
    }
    return Span.from_dict(
        {
            "name": trace.name,
            "trace_id": trace.trace_id,
            "span_id": digits[:16],
            "parent_span_id": None,
            "start_time_unix_nano": millis * 1_000_000,
            "end_time_unix_nano": millis * 1_000_000,
            "status": {"code": "STATUS_CODE_OK", "message": ""},
            "attributes": {
                name: json.dumps(value, ensure_ascii=False) for name, value in attributes.items()
            },
            "events": [],
        }
    )


def _answer(trace_id: str, given: "MlflowAssessment") -> Answer | None:
    """An answer by a person that holds; None for an overridden one, a judge's, or one of ours."""
    if given.source.source_type != "HUMAN" or given.valid is False:
        return None
    if OWN_ID in (given.metadata or {}):
        return None
    spoken = given.feedback or given.expectation
    if spoken is None:
        return None
    millis = given.last_update_time_ms or given.create_time_ms or 0
    return Answer(
        answer_id=str(given.assessment_id),
        trace_id=trace_id,
        title=given.name,
        value=spoken.value,
        rationale=(given.rationale or "").strip() or None,
        user=str(given.source.source_id).strip().lower(),
        answered_at=datetime.fromtimestamp(millis / 1000, tz=UTC),
    )
