"""Exchanges and feedback as a gateway would hand them in."""

import json
from datetime import UTC, datetime

from flywheel.records import Exchange, Feedback, JsonObject, new_id

STARTED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def completion(content: str = "Rest it.", **fields: object) -> JsonObject:
    """A chat completion as a model server answers it."""
    message: JsonObject = {"role": "assistant", "content": content}
    body: JsonObject = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "base",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
    return {**body, **fields}  # type: ignore[dict-item]


def exchange(**fields: object) -> Exchange:
    """A call that went well; give the fields that matter to the test."""
    request = {"model": "triage", "messages": [{"role": "user", "content": "My knee hurts."}]}
    values: dict[str, object] = {
        "interaction_id": new_id(),
        "workload": "triage",
        "started_at": STARTED,
        "duration_ms": 12.5,
        "request_model": "triage",
        "served_model": "base",
        "request": json.dumps(request),
        "response": json.dumps(completion()),
        "http_status": 200,
    }
    return Exchange.model_validate({**values, **fields})


def feedback(**fields: object) -> Feedback:
    """A correction, as the gateway completes it."""
    values: dict[str, object] = {
        "interaction_id": new_id(),
        "name": "urgency",
        "correction": "See a doctor today.",
        "assessment_id": new_id(),
        "created_at": STARTED,
    }
    return Feedback.model_validate({**values, **fields})
