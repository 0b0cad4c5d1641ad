"""Large content beside the tables: `<root>/blobs/<first two of the sha>/<sha256>`.

Input: bytes. Output: a reference that stands in a record where the content stood:

    blob:sha256:<64 hex>;type=image/png;size=12345            for data:image/png;base64,…
    blob:sha256:<64 hex>;type=audio/wav;size=12345;base64     for bare base64

Content is its own name, so that writing twice is writing once, and a picture sent in every turn is
stored once. A row names its blobs in `tags.blobs`, and only those are put back: a client that sends
such a reference gets nothing for it. Blobs of rows that were erased are not deleted yet.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import JsonValue

from flywheel.errors import BadRecordError
from flywheel.lake.delta import Storage
from flywheel.records import Interaction, Message, new_id

if TYPE_CHECKING:
    from deltalake.fs import DeltaStorageHandler

FOLDER = "blobs"
TAG = "blobs"
"""The tag that lists a row's blobs."""
_REFERENCE = re.compile(r"blob:sha256:([0-9a-f]{64});type=([\w.+/-]+);size=(\d+)(;base64)?")


class BlobReference(NamedTuple):
    """What stands in a record in place of large content."""

    digest: str
    media_type: str
    size: int
    is_bare: bool
    """Whether the content stood there as base64 alone, and not as a data: URL."""

    def __str__(self) -> str:
        bare = ";base64" if self.is_bare else ""
        return f"blob:sha256:{self.digest};type={self.media_type};size={self.size}{bare}"

    @classmethod
    def parse(cls, text: str) -> "BlobReference | None":
        """The reference a string is, if it is one."""
        found = _REFERENCE.fullmatch(text)
        if found is None:
            return None
        digest, media_type, size, bare = found.groups()
        return cls(digest, media_type, int(size), bare is not None)

    def content(self, data: bytes) -> str:
        """The string that stood there."""
        text = base64.b64encode(data).decode()
        return text if self.is_bare else f"data:{self.media_type};base64,{text}"


def put(storage: Storage, data: bytes) -> str:
    """Stores content, once, and returns its sha256 in hex."""
    digest = sha256(data).hexdigest()
    if storage.is_local:
        _put_file(Path(storage.uri(_path(digest))), data)
    else:
        _put_object(storage, _path(digest), data)
    return digest


def get(storage: Storage, digest: str) -> bytes:
    """The content of a sha256.

    Raises:
        BadRecordError: `missing_blob`, or `damaged_blob` where it is not what its name says.
    """
    try:
        if storage.is_local:
            data = Path(storage.uri(_path(digest))).read_bytes()
        else:
            data = _handler(storage).open_input_file(_path(digest)).read()
    except FileNotFoundError as error:
        raise BadRecordError("missing_blob", f"{storage.root} has no blob {digest}") from error
    if sha256(data).hexdigest() != digest:
        raise BadRecordError("damaged_blob", f"{storage.root}: blob {digest} has other content")
    return data


def restored(storage: Storage, call: Interaction) -> Interaction:
    """The call with its large content where it stood.

    Raises:
        BadRecordError: a blob is missing or damaged.
    """
    listed = call.tags.get(TAG)
    wanted = {str(digest) for digest in listed} if isinstance(listed, list) else set()
    if not wanted:
        return call
    contents = {digest: get(storage, digest) for digest in wanted}
    return call.model_copy(
        update={
            "messages": _messages(call.messages, contents),
            "response": _messages([call.response], contents)[0] if call.response else None,
            "alternatives": _messages(call.alternatives, contents),
            "tags": {name: value for name, value in call.tags.items() if name != TAG},
        }
    )


def _messages(messages: Iterable[Message], contents: Mapping[str, bytes]) -> tuple[Message, ...]:
    return tuple(
        Message.model_validate(_put_back(message.model_dump(), contents)) for message in messages
    )


def _put_back(value: JsonValue, contents: Mapping[str, bytes]) -> JsonValue:
    if isinstance(value, dict):
        return {name: _put_back(part, contents) for name, part in value.items()}
    if isinstance(value, list):
        return [_put_back(part, contents) for part in value]
    reference = BlobReference.parse(value) if isinstance(value, str) else None
    if reference is None or reference.digest not in contents:
        return value
    return reference.content(contents[reference.digest])


def _path(digest: str) -> str:
    return f"{FOLDER}/{digest[:2]}/{digest}"


def _put_file(path: Path, data: bytes) -> None:
    if path.exists() and path.stat().st_size == len(data):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{new_id()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def _put_object(storage: Storage, path: str, data: bytes) -> None:
    handler = _handler(storage)
    [known] = handler.get_file_info([path])
    if known.is_file and known.size == len(data):
        return
    # Not the handler's own stream: Arrow 25 hands it buffers, and delta-rs 1.6 takes only bytes.
    stream = handler._handler.open_output_stream(path)
    stream.write(data)
    stream.close()  # type: ignore[attr-defined]  # there; its stub forgets it


def _handler(storage: Storage) -> "DeltaStorageHandler":
    from deltalake.fs import DeltaStorageHandler

    return DeltaStorageHandler(storage.root, storage.options)
