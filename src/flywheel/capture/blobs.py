"""Takes images, audio and files out of a call, to be stored beside the lake.

Input: an Interaction whose messages carry base64. Output: the same with references in its place,
and the content. `flywheel.lake.blobs` has the form of a reference and the way back.

Looked at are content parts and a message's `audio`: data: URLs anywhere in them (`image_url`,
`file_data`), and bare base64 under `data` or `file_data` (`input_audio`, `file`). What is not
base64 to the letter stays as it is, because it could not be put back the same.
"""

import base64
import binascii
import re
from hashlib import sha256

from pydantic import JsonValue

from flywheel.lake import BLOB_TAG, BlobReference
from flywheel.records import Interaction, Message

INLINE_BYTES = 16 << 10
"""Shorter strings stay in the row."""
_DATA_URL = re.compile(r"data:([\w.+/-]+);base64,")
_BARE = ("data", "file_data")
_UNKNOWN = "application/octet-stream"


def without_large_content(
    call: Interaction, *, inline_bytes: int = INLINE_BYTES
) -> tuple[Interaction, dict[str, bytes]]:
    """The call with references for large content, and that content by its sha256."""
    taken: dict[str, bytes] = {}
    update: dict[str, object] = {}
    for name in ("messages", "alternatives"):
        messages = getattr(call, name)
        update[name] = tuple(_message(message, inline_bytes, taken) for message in messages)
    if call.response is not None:
        update["response"] = _message(call.response, inline_bytes, taken)
    if not taken:
        return call, taken
    update["tags"] = {**call.tags, BLOB_TAG: sorted(taken)}
    return call.model_copy(update=update), taken


def _message(message: Message, inline_bytes: int, taken: dict[str, bytes]) -> Message:
    extra = message.model_extra or {}
    if not isinstance(message.content, list) and "audio" not in extra:
        return message
    before = message.model_dump()
    after = {
        name: _taken_out(value, inline_bytes, taken) if name in ("content", "audio") else value
        for name, value in before.items()
    }
    return message if after == before else Message.model_validate(after)


def _taken_out(
    value: JsonValue, inline_bytes: int, taken: dict[str, bytes], kind: str | None = None
) -> JsonValue:
    """The value with references; `kind` is the media type of bare base64, where it may stand."""
    if isinstance(value, list):
        return [_taken_out(part, inline_bytes, taken) for part in value]
    if isinstance(value, dict):
        fmt = value.get("format")
        media_type = f"audio/{fmt}" if isinstance(fmt, str) and fmt.isalnum() else _UNKNOWN
        return {
            name: _taken_out(part, inline_bytes, taken, media_type if name in _BARE else None)
            for name, part in value.items()
        }
    if not isinstance(value, str) or len(value) < inline_bytes:
        return value
    url = _DATA_URL.match(value)
    if url is None and kind is None:
        return value
    text = value[url.end() :] if url else value
    data = _decoded(text)
    if data is None:
        return value
    digest = sha256(data).hexdigest()
    taken[digest] = data
    return str(BlobReference(digest, url[1] if url else kind or _UNKNOWN, len(data), url is None))


def _decoded(text: str) -> bytes | None:
    """The bytes, if encoding them gives back the text to the letter."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == text else None
