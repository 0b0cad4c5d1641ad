"""What a rater sees of an item: a trace that holds the whole chat, and a page of Markdown. Pure."""

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta

from flywheel.label.review.plan import item_key
from flywheel.records import Interaction, Message, ReviewItem
from flywheel.tracking import ShownTrace
from flywheel.tracking.review import MAX_PREVIEW_CHARS

CUT = "\n\n*(cut: “View full trace” has all of it)*"
SHOWN_FIELDS = ("role", "content", "tool_calls", "tool_call_id", "name")
"""Others may tell who answered: a provider's own fields, a fingerprint."""


def trace_id_of(workload: str, rater: str, item: str, round: str, guideline: str) -> str:
    """The id of the trace a rater sees: the same question to the same rater is the same trace."""
    identity = "\0".join(("review", workload, rater, item, round, guideline))
    return f"tr-{hashlib.sha256(identity.encode()).hexdigest()[:32]}"


def show(item: ReviewItem, interactions: Mapping[str, Interaction]) -> ShownTrace:
    """The trace of an item, for the rater it was put to.

    Raises:
        KeyError: an interaction is not among those given.
    """
    calls = [interactions[one] for one in item.interaction_ids]
    presented = list(reversed(calls)) if item.presented_order == "BA" else calls
    replies = tuple(_plain(call.response) for call in presented if call.response is not None)
    tags = {
        "flywheel.workload": item.workload,
        "flywheel.item": item_key(item.interaction_ids),
        "flywheel.guideline": item.guideline,
    }
    if not item.blinded:
        models = [call.response_model or call.request_model for call in presented]
        tags["flywheel.model"] = ", ".join(models)
    messages = tuple(_plain(message) for message in calls[0].messages)
    return ShownTrace(
        trace_id=item.trace_id,
        name=f"{item.workload} review",
        messages=messages,
        replies=replies,
        request_text=_request_text(messages),
        response_text=_response_text(replies),
        tags=tags,
        # Queues show later traces first: the first to be reviewed is the youngest.
        shown_at=item.created_at - timedelta(milliseconds=10 * item.position),
    )


def _plain(message: Message) -> Message:
    dumped = message.model_dump()
    return Message.model_validate({key: dumped[key] for key in SHOWN_FIELDS if key in dumped})


def _request_text(messages: tuple[Message, ...]) -> str:
    """The conversation less instructions to the model; its end, where it is too long."""
    spoken = [message for message in messages if message.role not in ("system", "developer")]
    if len(spoken) == 1:
        return _cut(_body(spoken[0]), MAX_PREVIEW_CHARS)
    text = "\n\n".join(f"**{message.role}:** {_body(message)}" for message in spoken)
    if len(text) <= MAX_PREVIEW_CHARS:
        return text
    head = "*(cut: “View full trace” has all of it)*\n\n… "
    return head + text[len(text) - (MAX_PREVIEW_CHARS - len(head)) :]


def _response_text(replies: tuple[Message, ...]) -> str:
    if len(replies) == 1:
        return _cut(_body(replies[0]), MAX_PREVIEW_CHARS)
    titles = [f"### Reply {letter}\n\n" for letter in "AB"]
    rule = "\n\n---\n\n"
    room = (MAX_PREVIEW_CHARS - len(rule) - sum(map(len, titles))) // 2
    parts = [
        title + _cut(_fenced(_body(reply)), room)
        for title, reply in zip(titles, replies, strict=True)
    ]
    return rule.join(parts)


def _body(message: Message) -> str:
    """Text, then the tools it calls, then what is not text by its type."""
    parts = [message.text] if message.text else []
    parts += [
        f"`{json.dumps(call.get('function', call), ensure_ascii=False)}`"
        for call in message.tool_calls or ()
    ]
    if isinstance(message.content, list):
        others = [str(part.get("type")) for part in message.content if part.get("type") != "text"]
        parts += [f"*[{kind}]*" for kind in others]
    return "\n\n".join(parts) or "*(empty)*"


def _fenced(text: str) -> str:
    """JSON as code: Markdown would eat its marks."""
    return f"```json\n{text}\n```" if text.lstrip().startswith(("{", "[")) else text


def _cut(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    closing = "\n```" if text.startswith("```") else ""
    return text[: room - len(CUT) - len(closing) - 1] + "…" + closing + CUT
