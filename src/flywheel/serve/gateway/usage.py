"""The tokens a server reports, found in the last bytes of its answer.

Input: the end of a body or of a stream. Output: a TokenUsage, or None where the server does not say
(a stream says only when asked: `stream_options.include_usage`).

The body is not parsed: the last `"usage": {…}` that stands where one stands is read, and nothing
else. A quote inside a JSON string is escaped, so that no text of a model or a user looks like the
key; an object echoed from the request (a tool's schema, say) is told from the reply's own by how
deep it stands. Reads chat completions, completions, responses and embeddings.
"""

import json
import re

from pydantic import JsonValue

from flywheel.prices import TokenUsage

TAIL_BYTES = 16_384
"""Enough of a stream: its last events. Of a whole body any length may be given."""

_KEY = b'"usage"'
_VALUE = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(?=\{)")
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\]]', re.DOTALL)
_LONGEST_USAGE = 2048
_LONGEST_REST = 65_536
"""What may follow in the same object; a usage before all of the content is not looked for."""
_MAX_TOKENS = 1 << 53
_MAX_LOOKS = 32
_decoder = json.JSONDecoder()


def usage_in(tail: bytes, is_stream: bool) -> TokenUsage | None:
    """The last usage in the bytes.

    Args:
        tail: the end of what the server sent, or all of it.
        is_stream: whether they are server-sent events.
    """
    end = len(tail)
    for _ in range(_MAX_LOOKS):
        at = tail.rfind(_KEY, 0, end)
        if at < 0:
            return None
        end = at
        if at and tail[at - 1 : at] == b"\\":  # the key is the end of a longer, escaped one
            continue
        value = _VALUE.match(tail, at + len(_KEY))
        if value is None:
            continue
        found = _read(tail, value.end(), is_stream=is_stream)
        if found is not None:
            return found
    return None


def _read(tail: bytes, start: int, *, is_stream: bool) -> TokenUsage | None:
    text = tail[start : start + _LONGEST_USAGE].decode("utf-8", "replace")
    try:
        usage, length = _decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    after = start + len(text[:length].encode())
    line_end = tail.find(b"\n", after) if is_stream else -1
    rest = tail[after : line_end if line_end >= 0 else len(tail)]
    # A chunk's own usage stands one deep; that of a Responses API event in its `response`, two.
    if len(rest) > _LONGEST_REST or _closes(rest) not in ((1, 2) if is_stream else (1,)):
        return None
    return _counts(usage)


def _closes(rest: bytes) -> int:
    """How many objects the rest of a document closes; -1 where it is none."""
    depth = 0
    for token in _STRUCTURE.finditer(rest):
        mark = token[0]
        if mark in b"{[":
            depth -= 1
        elif mark in b"}]":
            depth += 1
    return depth


def _counts(usage: JsonValue) -> TokenUsage | None:
    if not isinstance(usage, dict):
        return None
    asked = _tokens(usage.get("prompt_tokens", usage.get("input_tokens")))
    answered = _tokens(usage.get("completion_tokens", usage.get("output_tokens")))
    total = _tokens(usage.get("total_tokens"))
    if asked is None:
        return None
    if answered is None:  # embeddings have no output, and say so only by their total
        if total is None or total < asked:
            return None
        answered = total - asked
    details = usage.get("prompt_tokens_details", usage.get("input_tokens_details"))
    cached = _tokens(details.get("cached_tokens")) if isinstance(details, dict) else None
    return TokenUsage(asked, answered, cached)


def _tokens(value: JsonValue) -> int | None:
    """A count; a bool, a fraction or a negative is none."""
    is_count = type(value) is int and 0 <= value < _MAX_TOKENS
    return value if is_count and isinstance(value, int) else None
