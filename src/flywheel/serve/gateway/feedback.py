"""POST /v1/feedback: one judgement on an answer, from whoever saw it.

Input: a Feedback. Output: 202 with its assessment_id, once it is in the sink, and on disk where its
workload says `before_response`. The interaction need not be known: it may still be in a spool, here
or elsewhere.
"""

from aiohttp import web
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from flywheel.errors import BadRequestError, KeyRefusedError
from flywheel.records import Feedback, new_id, utcnow
from flywheel.serve.gateway.admission import Admission, refusal
from flywheel.serve.gateway.body import BodyError, read_body
from flywheel.serve.gateway.identity import pseudonym
from flywheel.serve.gateway.recorder import Recorder
from flywheel.serve.gateway.replies import bad_request, json_reply, readable, unavailable
from flywheel.serve.gateway.routing import RouteTable

_MOST_TOLD = 10
"""Mistakes of one body; a reply is not longer than what it answers."""


class FeedbackEndpoint:
    """The handler.

    Args:
        routes: the workloads feedback may name.
        recorder: where it is kept and counted.
        subject_secret: with one, an end user's `source_id` is kept as its HMAC; two judgements of
            one person still meet.
        admission: whose keys are asked for; None asks for none.
        body_timeout_s: a body must have come by then.
    """

    def __init__(
        self,
        routes: RouteTable,
        recorder: Recorder,
        *,
        subject_secret: bytes,
        admission: Admission | None = None,
        body_timeout_s: float = 60.0,
    ) -> None:
        self._routes, self._sink, self._metrics = routes, recorder.sink, recorder.metrics
        self._admission, self._body_timeout_s = admission, body_timeout_s
        self._subject_secret = subject_secret

    async def __call__(self, request: web.Request) -> web.Response:
        """Answers one request."""
        reply = await self._answer(request)
        self._metrics.feedback[reply.status] += 1
        return reply

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            if self._admission is not None:
                self._admission.authenticate(request.headers)
            raw = await read_body(request, timeout_s=self._body_timeout_s)
            feedback = Feedback.model_validate_json(raw)
            if feedback.workload is not None:
                self._routes.of(feedback.workload)
        except BodyError as error:
            return bad_request(str(error), status=error.status, code=error.code)
        except ValidationError as error:
            return _invalid(error)
        except KeyRefusedError as error:
            return refusal(error)
        except BadRequestError as error:
            return bad_request(str(error), status=422, param=error.param, code=error.code)
        stored = self._completed(feedback)
        durability = self._routes.durability_of(feedback.workload)
        if not self._sink.append("feedback", stored, durability=durability):
            return unavailable(
                "the feedback could not be stored; send it again later, under the same "
                "assessment_id",
                status=503,
                code="not_stored",
            )
        if durability == "before_response":
            await self._sink.durable()
        return json_reply({"assessment_id": stored.assessment_id}, status=202)

    def _completed(self, feedback: Feedback) -> Feedback:
        """What the caller left out, and nobody's identifier in the clear."""
        source_id = feedback.source_id
        if source_id and feedback.source_type == "end_user" and self._subject_secret:
            source_id = pseudonym(source_id, self._subject_secret)
        return feedback.model_copy(
            update={
                "assessment_id": feedback.assessment_id or new_id(),
                "created_at": feedback.created_at or utcnow(),
                "source_id": source_id,
            }
        )


def _invalid(error: ValidationError) -> web.Response:
    problems = error.errors(include_url=False, include_context=False)
    if problems[0]["type"] == "json_invalid":
        return bad_request(f"the body is not JSON: {problems[0]['msg']}", code="invalid_json")
    told = [_sentence(problem) for problem in problems[:_MOST_TOLD]]
    if len(problems) > _MOST_TOLD:
        told.append(f"and {len(problems) - _MOST_TOLD} more")
    message = "; ".join(told)
    return bad_request(message, status=422, code="invalid_feedback")


def _sentence(problem: ErrorDetails) -> str:
    where = readable(".".join(str(part) for part in problem["loc"]))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = f"unknown field; valid: {', '.join(Feedback.model_fields)}"
    return f"{where}: {message}" if where else message
