"""`instrument`: an openai client that records its calls, and is otherwise the client it was.

Input: a client, a workload. Output: the client's class exchanged for one that sees each HTTP
request and its response go by (`_send_request`, the one place through which openai sends), copies
and `with_options` included. Objects, streams and exceptions are those of the client itself; a
stream is read by its reader and by nobody else. Retries are calls of their own, as they are to a
gateway.

What it does not see: websockets, assistants, batches, files, and clients made by `openai`'s
module-level functions.
"""

import logging
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from inspect import iscoroutinefunction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from flywheel.capture.sdk.recorder import Recorder, recorder_of
from flywheel.capture.sdk.seen import CONVERSATION_HEADER, USER_HEADER, Seen, operation_of
from flywheel.capture.sdk.tee import tee
from flywheel.capture.spool import Spool
from flywheel.errors import ConfigError
from flywheel.records import CaptureCounters
from flywheel.settings import Settings

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI, OpenAI

logger = logging.getLogger(__name__)

INTERACTION_HEADER = "x-flywheel-interaction-id"
_HANDLE = "_flywheel_instrumentation"
_BASE = "_flywheel_base"

Named: TypeAlias = "str | Callable[[], str | None] | None"
"""A value, or a function that gives it for the call being made."""

_last: ContextVar[str | None] = ContextVar("flywheel_interaction_id", default=None)


def instrument(
    client: "OpenAI | AsyncOpenAI",
    *,
    workload: str,
    spool: Path | Spool | None = None,
    conversation_id: Named = None,
    subject: Named = None,
) -> "Instrumentation":
    """Records every chat completion, completion, response and embedding a client asks for.

    Instrumenting a client again changes nothing and returns what the first time returned.

    Args:
        client: any OpenAI, AsyncOpenAI or a subclass (Azure's).
        workload: whose calls these are.
        spool: a spool folder, or a Spool of your own. Default: <home>/spool, from the settings.
        conversation_id: of each call; else its `x-flywheel-conversation-id` header, else
            `metadata.conversation_id` in its body.
        subject: identifier of the person a call is about; else its `x-flywheel-user` header, `user`
            or `safety_identifier`. Kept as an HMAC, or not at all where FLYWHEEL_SUBJECT_KEY_SECRET
            is not set.

    Raises:
        ConfigError: the client is none, or the spool cannot be written to. After this nothing of
            capture is ever raised: it is counted, and logged once.
    """
    known = getattr(client, _HANDLE, None)
    if isinstance(known, Instrumentation) and known.is_open:
        if known.workload != workload:
            logger.warning("the client records %s already, and goes on doing so", known.workload)
        return known
    _watched(_base_of(client))
    settings = Settings.load()
    return Instrumentation(
        client,
        recorder_of(spool if spool is not None else settings.spool_dir, workload),
        workload=workload,
        conversation_id=conversation_id,
        subject=subject,
        secret=settings.subject_key_secret.get_secret_value().encode(),
    )


def uninstrument(client: "OpenAI | AsyncOpenAI") -> None:
    """Gives a client back its own class, and records no more of its copies either."""
    handle = getattr(client, _HANDLE, None)
    if isinstance(handle, Instrumentation):
        handle.close()


def last_interaction_id() -> str | None:
    """The id of the latest call recorded in this thread or task: what feedback refers to.

    A call made inside another task (`asyncio.gather`, `wait_for`) is that task's.
    """
    return _last.get()


class Instrumentation:
    """What `instrument` returns: counters, flush, and the way back. A context manager too."""

    def __init__(  # noqa: PLR0913 - one caller, which names each
        self,
        client: "OpenAI | AsyncOpenAI",
        recorder: Recorder,
        *,
        workload: str,
        conversation_id: Named,
        subject: Named,
        secret: bytes,
    ) -> None:
        self.workload = workload
        self._recorder, self._secret = recorder, secret
        self._conversation_id, self._subject = conversation_id, subject
        self._client = weakref.ref(client)
        self._base = _base_of(client)
        self._has_met_gateway = False
        self.is_open = True
        setattr(client, _HANDLE, self)
        client.__class__ = _watched(self._base)

    @property
    def counters(self) -> CaptureCounters:
        """What became of the calls of every client that records into the same spool."""
        return self._recorder.counters

    def flush(self, *, timeout_s: float = 10.0) -> bool:
        """Waits until every call that is over can be drained; False when the time was too short."""
        return self._recorder.flush(timeout_s)

    def close(self) -> None:
        """Ends the recording and flushes; the client goes on working."""
        if not self.is_open:
            return
        self.is_open = False
        client: Any = self._client()
        if client is not None:
            client.__class__ = self._base
            delattr(client, _HANDLE)
        self.flush()
        self._recorder.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def begin(self, request: "httpx2.Request") -> Seen | None:
        """Looks at a request before it is sent; None for what is not recorded."""
        if not self.is_open:
            return None
        try:
            operation = operation_of(request.url.path) if request.method == "POST" else None
            return self._begin(request, operation) if operation is not None else None
        except Exception as error:  # noqa: BLE001 - the call must not notice, whatever it is
            self._recorder.fail(error)
            return None

    def answered(self, seen: Seen, response: "httpx2.Response", *, is_read: bool) -> None:
        """Looks at a response before its caller does.

        Args:
            seen: the call.
            response: with its body read, or still to be read.
            is_read: which of the two.
        """
        try:
            known = response.headers.get(INTERACTION_HEADER)
            if known is not None:
                self._leave_to_gateway(known)
            else:
                self._answered(seen, response, is_read=is_read)
        except Exception as error:  # noqa: BLE001 - as above
            seen.is_over = True
            self._recorder.fail(error)

    def _begin(self, request: "httpx2.Request", operation: str) -> Seen:
        headers = request.headers
        # Headers for Flywheel are none of a provider's business; one of them names a person.
        conversation_id = headers.pop(CONVERSATION_HEADER, None)
        subject = headers.pop(USER_HEADER, None)
        self._recorder.begin()
        seen = Seen(
            workload=self.workload,
            operation=operation,
            host=request.url.host,
            request=request.content,
            conversation_id=_value(self._conversation_id) or conversation_id,
            subject=_value(self._subject) or subject,
            traceparent=headers.get("traceparent"),
            hand_in=self._hand_in,
        )
        _last.set(seen.interaction_id)
        return seen

    def _answered(self, seen: Seen, response: "httpx2.Response", *, is_read: bool) -> None:
        seen.http_status = response.status_code
        seen.is_streamed = response.headers.get("content-type", "").startswith("text/event-stream")
        response.headers[INTERACTION_HEADER] = seen.interaction_id
        if is_read:
            seen.took(response.content)
            seen.end()
        else:
            seen.encoding = response.headers.get("content-encoding", "").strip().lower()
            tee(response, seen)
            self._recorder.streams(seen)

    def _hand_in(self, seen: Seen) -> None:
        self._recorder.hand_in(seen, self._secret)

    def _leave_to_gateway(self, interaction_id: str) -> None:
        _last.set(interaction_id)
        if not self._has_met_gateway:
            self._has_met_gateway = True
            logger.warning(
                "%s: the answers come from a gateway, which records them; this client does not",
                self.workload,
            )


def _value(named: Named) -> str | None:
    return named() if callable(named) else named


def _base_of(client: object) -> type:
    """The class it had; a copy that outlived its handle still has the watched one."""
    base: type = getattr(client, _BASE, type(client))
    return base


@lru_cache(maxsize=64)
def _watched(base: type) -> type:
    """A subclass of a client's class whose requests are looked at."""
    # A seam of openai's, the same in 3.50 to 3.54; should it go, say so and break nothing.
    send = getattr(base, "_send_request", None)
    copy = getattr(base, "copy", None)
    if send is None or copy is None:
        raise ConfigError(
            "instrument",
            [f"{base.__module__}.{base.__name__} is no client of openai 3.50 or newer"],
        )

    def send_request(self: Any, request: Any, *, stream: bool, **options: Any) -> Any:
        handle = _handle_of(self)
        seen = handle.begin(request) if handle is not None else None
        if handle is None or seen is None:
            return send(self, request, stream=stream, **options)
        try:
            response = send(self, request, stream=stream, **options)
        except BaseException as error:
            seen.fail(error, "upstream_unavailable")
            raise
        handle.answered(seen, response, is_read=not stream)
        return response

    async def send_request_async(self: Any, request: Any, *, stream: bool, **options: Any) -> Any:
        handle = _handle_of(self)
        seen = handle.begin(request) if handle is not None else None
        if handle is None or seen is None:
            return await send(self, request, stream=stream, **options)
        try:
            response = await send(self, request, stream=stream, **options)
        except BaseException as error:
            seen.fail(error, "upstream_unavailable")
            raise
        handle.answered(seen, response, is_read=not stream)
        return response

    def copied(self: Any, *args: Any, **options: Any) -> Any:
        made = copy(self, *args, **options)
        handle = _handle_of(self)
        if handle is not None:
            setattr(made, _HANDLE, handle)
        return made

    members = {
        _BASE: base,
        "_send_request": send_request_async if iscoroutinefunction(send) else send_request,
        "copy": copied,
        "with_options": copied,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
    }
    return type(base.__name__, (base,), members)


def _handle_of(client: object) -> Instrumentation | None:
    found = getattr(client, _HANDLE, None)
    return found if isinstance(found, Instrumentation) else None
