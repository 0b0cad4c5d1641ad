"""The lines of a batch: requests as JSONL, and what came of them."""

import json

from flywheel.chat import StructuredCompletion, read_structured, structured_body
from flywheel.errors import BadRequestError, UpstreamUnavailableError
from flywheel.graders.judge import JudgeCall, JudgeReply
from flywheel.label.judging.batch_server import ENDPOINT
from flywheel.label.judging.purse import worst_case
from flywheel.prices import TokenUsage


def request_line(call: JudgeCall) -> bytes:
    """A request as a line of the input file."""
    body = structured_body(
        call.messages,
        model=call.model,
        schema=call.response_schema,
        temperature=call.temperature,
        max_tokens=call.max_tokens,
    )
    line = {"custom_id": call.key, "method": "POST", "url": ENDPOINT, "body": body}
    return json.dumps(line).encode() + b"\n"


def read_line(
    line: bytes, url: str
) -> tuple[str | None, StructuredCompletion | BadRequestError | None]:
    """The request's key and its answer; no answer where asking again may bring one."""
    try:
        found = json.loads(line)
        key, response = str(found["custom_id"]), found.get("response") or {}
        status, body = response.get("status_code"), response.get("body") or {}
        if status == 200:
            return key, read_structured(json.dumps(body), url=url)
        if status is not None and 400 <= status < 500 and status not in (408, 409, 429):
            error = body.get("error") or {}
            return key, BadRequestError(str(error.get("message")), code=str(status))
    except (ValueError, KeyError, TypeError, AttributeError, UpstreamUnavailableError):
        return None, None
    return key, None


def usage_of(answer: StructuredCompletion | JudgeReply) -> TokenUsage | None:
    """Tokens of an answer; None where the server did not count them."""
    if answer.input_tokens is None or answer.output_tokens is None:
        return None
    return TokenUsage(answer.input_tokens, answer.output_tokens, answer.cached_input_tokens)


def worst_of(call: JudgeCall) -> TokenUsage:
    """What is booked for an answer nobody counted."""
    return worst_case(call.messages, call.response_schema, call.max_tokens)
