"""Errors and headers as OpenAI's clients expect them."""

from collections.abc import Mapping

from aiohttp import web
from multidict import CIMultiDict
from pydantic_core import to_json

from flywheel.records import JsonObject
from flywheel.serve.gateway.routing import Target

INTERACTION_ID = "x-flywheel-interaction-id"
ADAPTER = "x-flywheel-adapter"
ARM = "x-flywheel-arm"
PROVIDER = "x-flywheel-provider"
NONE = "none"
"""In place of an adapter where the base model answers, and of both where nothing did."""

_NOT_FORWARDED = frozenset(
    (
        # hop-by-hop, RFC 9110 section 7.6.1
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        # what this server sets itself
        "content-encoding",
        "content-length",
        "date",
        "server",
    )
)

_MOST_QUOTED = 300


def is_clean(value: str) -> bool:
    """Whether a header's value may travel on: text without control characters.

    Bytes that are not UTF-8 arrive as lone surrogates, which can be neither sent nor stored.
    """
    if value.isascii() and value.isprintable():
        return True
    return all(
        c == "\t" or c >= " " and c != "\x7f" and not "\ud800" <= c <= "\udfff" for c in value
    )


def readable(text: str) -> str:
    """What a stranger's server said, fit to be stored and passed on: short, and valid UTF-8."""
    return text[:_MOST_QUOTED].encode("utf-8", "replace").decode()


def flywheel_headers(interaction_id: str, target: Target | None) -> CIMultiDict[str]:
    """What every reply of a model call carries.

    Args:
        interaction_id: of the call.
        target: who answered; None when nobody was asked.
    """
    adapter = target.adapter if target is not None else None
    return CIMultiDict(
        (
            (INTERACTION_ID, interaction_id),
            (ADAPTER, adapter or NONE),
            (ARM, target.arm if target is not None else NONE),
            (PROVIDER, target.provider if target is not None else NONE),
        )
    )


def forwarded(upstream: Mapping[str, str], own: CIMultiDict[str]) -> CIMultiDict[str]:
    """The upstream's headers as far as they are text, with ours over them."""
    headers = CIMultiDict(
        (name, value)
        for name, value in upstream.items()
        if name.lower() not in _NOT_FORWARDED and is_clean(value)
    )
    headers.update(own)
    return headers


def error_body(
    message: str, *, kind: str, param: str | None = None, code: str | None = None
) -> JsonObject:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def json_reply(
    body: JsonObject, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON reply."""
    return web.Response(
        body=to_json(body), status=status, headers=headers, content_type="application/json"
    )


def bad_request(
    message: str,
    *,
    status: int = 400,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """A 4xx reply whose sentence says what to change."""
    body = error_body(message, kind="invalid_request_error", param=param, code=code)
    return json_reply(body, status=status, headers=headers)


def unavailable(
    message: str, *, status: int, code: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A 5xx reply: the same request may work later."""
    return json_reply(
        error_body(message, kind="upstream_error", code=code), status=status, headers=headers
    )
