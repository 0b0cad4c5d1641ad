"""The gateway's two applications as an OpenAPI 3.1 document: what a route takes, and all it says.

Input: the list of surfaces and our own records. Output: the document of `GET /openapi.json` and of
schemas/openapi.json. OpenAI's bodies are whatever OpenAI says they are: what passes through
untouched is described as an object with a `model`, and no more.
"""

from collections.abc import Sequence

from pydantic import JsonValue
from pydantic.json_schema import models_json_schema

from flywheel.records import Feedback, JsonObject, Release
from flywheel.serve.gateway.admin import SpoolState
from flywheel.serve.gateway.identity import CONVERSATION_HEADER, USER_HEADER
from flywheel.serve.gateway.replies import ADAPTER, ARM, INTERACTION_ID, PROVIDER
from flywheel.serve.gateway.surface import SURFACES, Surface

_REF = "#/components/schemas/{model}"
_EVERYWHERE = (400, 417, 500)
"""Before a route is looked at, or where one of ours fails."""
_REASONS = {
    400: "not HTTP, not JSON, or without what is required",
    401: "the API key or the admin token is missing, unknown or revoked",
    403: "the API key is not for this workload",
    404: "nothing of this name is served here",
    408: "the body did not come in time",
    409: "the alias has moved on to a later epoch",
    413: "the body is too large, packed or unpacked",
    415: "neither JSON nor protobuf, or packed otherwise than by gzip",
    417: "an `Expect` other than 100-continue",
    422: "JSON, but not what is wanted; every mistake is named",
    429: "the key's requests or tokens a minute, or the workload's budget of the day, are used up",
    500: "a bug of the gateway's; its log has it",
    502: "the model server broke off, or is none",
    503: "not ready, not stored, or no model server is there; the same request may work later",
    504: "no model server began to answer in time",
}
_ASKED = (401, 403, 404, 408, 413, 429, 502, 503, 504)


def describe() -> JsonObject:
    """The document."""
    models = [(Feedback, "validation"), (Release, "validation"), (SpoolState, "serialization")]
    _, ours = models_json_schema(models, ref_template=_REF)  # type: ignore[arg-type]
    ours["$defs"]["Feedback"] |= _FEEDBACK_RULES
    ours["$defs"]["SpoolState"]["additionalProperties"] = True  # several workers add who is behind
    schemas = {**ours["$defs"], "Error": _ERROR, "ModelRequest": _MODEL_REQUEST, "Model": _MODEL}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Flywheel gateway",
            "version": "1",
            "description": "OpenAI's API, and what Flywheel adds to it. Operations tagged `admin` "
            "are served on the admin port only; /metrics is there too, behind the token.",
        },
        "security": [{}, {"key": []}],
        "paths": {**_public(), **_admin()},
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "flywheel keys create"},
                "token": {"type": "http", "scheme": "bearer", "description": "<home>/admin-token"},
            },
        },
    }


def _public() -> JsonObject:
    paths: JsonObject = {f"/v1/{one.path}": {"post": _asked(one)} for one in SURFACES}
    name: JsonObject = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
    }
    text: JsonObject = {"type": "string"}
    listed = _object(object={"const": "list"}, data={"type": "array", "items": _ref("Model")})
    return paths | {
        "/v1/traces": {"post": _otlp("Take spans of OpenTelemetry", _SPANS)},
        "/v1/logs": {"post": _otlp("Take log records of OpenTelemetry", _LOGS)},
        "/v1/feedback": {
            "post": _operation(
                "Judge an answer",
                _reply(_object(assessment_id={"type": "string"})),
                (401, 408, 413, 422, 503),
                status=202,
                body=_ref("Feedback"),
            )
        },
        "/v1/models": {"get": _operation("List the aliases", _reply(listed), (401,))},
        "/v1/models/{name}": {
            "parameters": [name],
            "get": _operation("Look at one alias", _reply(_ref("Model")), (401, 404)),
        },
        "/healthz": {"get": _open("The process answers", _reply(_object(status={"const": "ok"})))},
        "/readyz": {"get": _readyz()},
        "/metrics": {
            "get": {
                # 401 on the admin port only.
                **_operation("Numbers for Prometheus", {"text/plain": {"schema": text}}, (401,)),
                "security": [{}, {"token": []}],
            }
        },
        "/openapi.json": {"get": _open("This document", _reply({"type": "object"}))},
    }


def _admin() -> JsonObject:
    anything: JsonObject = {"type": "object"}
    counters = _ref("SpoolState")
    return {
        "/admin/releases": {
            "get": _guarded("The releases in force", _reply(anything)),
            "post": _guarded(
                "Point an alias at a release",
                _reply(_object(switched={"type": "boolean"}, model={"type": "string"})),
                (404, 408, 409, 413, 422),
                body=_ref("Release"),
            ),
        },
        "/admin/spool": {"get": _guarded("What became of all captured", _reply(counters))},
        "/admin/spool/flush": {
            "post": _guarded("Make all captured ready to drain", _reply(counters), (503,))
        },
        "/admin/providers": {"get": _guarded("Who may answer", _reply(anything))},
        "/admin/reload": {"post": _guarded("Read the workloads again", _reply(anything), (422,))},
    }


def _asked(surface: Surface) -> JsonObject:
    """One of OpenAI's endpoints."""
    json: JsonObject = {"application/json": {"schema": {"type": "object"}}}
    stream: JsonObject = {"text/event-stream": {}}
    operation = _operation(
        f"OpenAI's {surface.path}, captured",
        json | stream,
        _ASKED,
        body=_ref("ModelRequest"),
    )
    text: JsonObject = {"type": "string"}
    operation["parameters"] = [
        {"name": name, "in": "header", "schema": text, "description": told}
        for name, told in (
            (CONVERSATION_HEADER, "the conversation the call belongs to"),
            (USER_HEADER, "the person it is about; kept as an HMAC, or not at all"),
            ("traceparent", "W3C Trace Context"),
        )
    ]
    responses = operation["responses"]
    assert isinstance(responses, dict)
    responses["default"] = {
        "description": "Whatever else the model server answered, as it did",
        "headers": {name: {"schema": text} for name in (INTERACTION_ID, ADAPTER, ARM, PROVIDER)},
    }
    return operation


def _operation(
    summary: str,
    content: JsonObject,
    statuses: Sequence[int] = (),
    *,
    status: int = 200,
    body: JsonObject | None = None,
) -> JsonObject:
    """An operation.

    Args:
        summary: what it does.
        content: of the reply when all is well.
        statuses: it may fail with, beside those of every route.
        status: when all is well.
        body: schema of the body it needs.
    """
    responses: JsonObject = {str(status): {"description": "Done", "content": content}}
    for code in sorted({*statuses, *_EVERYWHERE}):
        # A 417 is said by aiohttp itself, in plain text.
        failed = _reply(_ref("Error")) if code != 417 else {"text/plain": {}}
        responses[str(code)] = {"description": _REASONS[code], "content": failed}
    operation: JsonObject = {"summary": summary, "responses": responses}
    if body is not None:
        content = {"application/json": {"schema": body}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _open(summary: str, content: JsonObject) -> JsonObject:
    """Nobody needs a key for it."""
    return {**_operation(summary, content), "security": []}


def _guarded(
    summary: str,
    content: JsonObject,
    statuses: Sequence[int] = (),
    *,
    body: JsonObject | None = None,
) -> JsonObject:
    # 503 where none of several workers says anything.
    operation = _operation(summary, content, (401, 503, *statuses), body=body)
    return {**operation, "tags": ["admin"], "security": [{"token": []}]}


def _otlp(summary: str, document: JsonObject) -> JsonObject:
    """OTLP's: its errors are google.rpc.Status, in the encoding of the request."""
    packed: JsonObject = {_PROTOBUF: {"schema": _BYTES}}
    operation = _operation(summary, _reply({"type": "object"}) | packed, (401, 408))
    operation["requestBody"] = {"required": True, "content": _reply(document) | packed}
    said = _reply({"anyOf": [_STATUS, _ref("Error")]}) | packed
    responses = operation["responses"]
    assert isinstance(responses, dict)
    for status in (400, 413, 415, 503):
        responses[str(status)] = {"description": _REASONS[status], "content": said}
    return operation


def _readyz() -> JsonObject:
    is_so: JsonObject = {"type": "boolean"}
    said = _reply(_object(ready=is_so, releases_loaded=is_so, spool_writable=is_so, stopping=is_so))
    operation = _open("Calls are answered by the right model, and captured", said)
    responses = operation["responses"]
    assert isinstance(responses, dict)
    responses["503"] = {"description": "Not now; which of them is not so", "content": said}
    return operation


def _reply(schema: JsonValue) -> JsonObject:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> JsonObject:
    return {"$ref": _REF.format(model=name)}


def _object(**properties: JsonValue) -> JsonObject:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _given(**types: JsonValue) -> JsonObject:
    """That these fields are there, and not null."""
    return _object(**{name: {"type": kind} for name, kind in types.items()})


_MAYBE: JsonObject = {"type": ["string", "null"]}
_PROTOBUF = "application/x-protobuf"
_BYTES: JsonObject = {"type": "string", "format": "binary"}
_SPANS = _object(resourceSpans={"type": "array", "items": {"type": "object"}})
_LOGS = _object(resourceLogs={"type": "array", "items": {"type": "object"}})
_STATUS = _object(code={"type": "integer"}, message={"type": "string"})
_ERROR = _object(
    error=_object(message={"type": "string"}, type={"type": "string"}, param=_MAYBE, code=_MAYBE)
)
_MODEL = _object(
    id={"type": "string"},
    object={"const": "model"},
    created={"type": "integer"},
    owned_by={"const": "flywheel"},
)
_FEEDBACK_RULES: JsonObject = {
    "oneOf": [_given(interaction_id="string"), _given(conversation_id="string")],
    "anyOf": [
        _given(value=["number", "boolean"]),
        _given(label="string"),
        _given(correction=["string", "object"]),
    ],
}
"""What a Feedback's own schema cannot say: what about, and at least one judgement."""
_MODEL_REQUEST: JsonObject = {
    "type": "object",
    "description": "OpenAI's body. Only `model` is read and changed; all else passes untouched.",
    "properties": {
        "model": {"type": "string", "minLength": 1, "description": "the alias of a workload"},
        "stream": {"type": ["boolean", "null"]},
    },
    "required": ["model"],
    "additionalProperties": True,
}
