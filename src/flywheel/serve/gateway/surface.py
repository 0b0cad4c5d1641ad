"""The endpoints of OpenAI's API that the gateway forwards, and how a stream of each ends.

Source: https://platform.openai.com/docs/api-reference. What an endpoint's bodies mean is for
`capture` to know: here they pass through.
"""

from dataclasses import dataclass


class EndOfStream:
    """Finds the last event of a stream, chunk by chunk.

    Args:
        marks: what the last event begins with, on a line of its own; within JSON a line break is
            escaped, so no answer can contain one.
        is_whole: whether the event must be there to its end.
    """

    def __init__(self, marks: tuple[bytes, ...], *, is_whole: bool) -> None:
        self._marks, self._is_whole = marks, is_whole
        self._longest = max(map(len, marks)) if marks else 0
        self._tail = b"\n"
        self._is_begun = False

    def is_in(self, chunk: bytes) -> bool:
        """Whether the stream has ended with this chunk."""
        seen = self._tail + chunk
        if not self._is_begun:
            found = [at for mark in self._marks if (at := seen.find(mark)) >= 0]
            if not found:
                self._tail = seen[-self._longest :] if self._longest else b""
                return False
            self._is_begun = True
            seen = seen[min(found) :]
        if not self._is_whole:
            return True
        self._tail = seen[-3:]
        return b"\n\n" in seen or b"\r\n\r\n" in seen


@dataclass(frozen=True, slots=True)
class Surface:
    """One endpoint."""

    path: str
    """After `/v1/`."""
    operation: str
    """OpenTelemetry's gen_ai.operation.name."""
    last_events: tuple[bytes, ...] = ()
    is_last_event_read: bool = False
    """Whether the last event carries what the record needs."""

    def end_of_stream(self) -> EndOfStream:
        """A finder for one stream."""
        return EndOfStream(self.last_events, is_whole=self.is_last_event_read)


_DONE = (b"\ndata: [DONE]", b"\ndata:[DONE]")
CHAT = Surface("chat/completions", "chat", _DONE)
SURFACES = (
    CHAT,
    Surface("completions", "text_completion", _DONE),
    Surface("embeddings", "embeddings"),
    Surface(
        "responses",
        "responses",
        tuple(b"\nevent: response." + end for end in (b"completed", b"incomplete", b"failed")),
        is_last_event_read=True,
    ),
)
