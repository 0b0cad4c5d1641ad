"""The segment file: how a record lies on disk, and how it is read back from a damaged file.

    file  = magic (8) | version u16 | length u32 | crc32 u32 | header JSON | frame*
    frame = marker ff fe | length u32 | crc32 u32 | kind u8 | payload

All integers are little-endian; a frame's CRC covers length, kind and payload. The marker cannot
occur in UTF-8, so that after a damaged frame the next whole one is found again and only the damage
is lost.
Input: bytes. Output: frames and damaged stretches, which together are the file.
"""

import mmap
import struct
import zlib
from collections.abc import Iterator
from datetime import datetime
from typing import Literal, NamedTuple

from pydantic import ValidationError

from flywheel.errors import BadRecordError
from flywheel.records import Record, UtcDatetime

MAGIC = b"FLYSPOOL"
VERSION = 1
MARKER = b"\xff\xfe"
KINDS: dict[str, int] = {
    **{"exchange": 1, "feedback": 2, "interaction": 3, "assessment": 4},
    "refused": 5,
}
MAX_PAYLOAD = 1 << 30
HEADER_BYTES = 4096
"""More than a segment's header."""

Kind = Literal["exchange", "feedback", "interaction", "assessment", "refused"]
"""As a gateway saw it; parsed already, as OTLP spans are before they are acknowledged; or what
could not be parsed then."""
_FILE_HEAD = struct.Struct("<8sHII")
_FRAME_HEAD = struct.Struct("<2sIIB")
_CHECKED = struct.Struct("<IB")
_NAMES: dict[int, Kind] = {
    **{1: "exchange", 2: "feedback", 3: "interaction", 4: "assessment"},
    5: "refused",
}
FRAME_OVERHEAD = _FRAME_HEAD.size


class SegmentHeader(Record):
    """Who wrote a segment, and when it was begun."""

    writer: str
    created_at: UtcDatetime
    default_workload: str | None = None
    """The workload of feedback that names none and judges an interaction nobody knows."""


class Frame(NamedTuple):
    """One whole record."""

    offset: int
    kind: Kind
    payload: bytes
    size: int
    """Bytes on disk, head included."""


class Damage(NamedTuple):
    """A stretch that holds no whole record."""

    offset: int
    reason: Literal["torn_frame", "corrupt_frame"]
    """torn: the file ends before the record does, as after a kill. corrupt: bytes changed."""
    data: bytes


def encode_header(header: SegmentHeader) -> bytes:
    """The start of a segment file."""
    text = header.model_dump_json().encode()
    return _FILE_HEAD.pack(MAGIC, VERSION, len(text), zlib.crc32(text)) + text


def encode_frame(kind: Kind, payload: bytes) -> bytes:
    """One record as it lies on disk."""
    number = KINDS[kind]
    checksum = zlib.crc32(payload, zlib.crc32(_CHECKED.pack(len(payload), number)))
    return _FRAME_HEAD.pack(MARKER, len(payload), checksum, number) + payload


def decode_header(data: bytes) -> tuple[SegmentHeader, int]:
    """The header and the offset of the first frame.

    Raises:
        BadRecordError: `newer_segment` (leave the file alone), or `bad_segment_header`.
    """
    if len(data) < _FILE_HEAD.size:
        raise BadRecordError("bad_segment_header", f"{len(data)} bytes: the header is not whole")
    magic, version, length, checksum = _FILE_HEAD.unpack_from(data)
    if magic != MAGIC:
        raise BadRecordError("bad_segment_header", f"starts with {magic!r}, not {MAGIC!r}")
    if version > VERSION:
        raise BadRecordError("newer_segment", f"format {version}; this Flywheel reads {VERSION}")
    text = data[_FILE_HEAD.size : _FILE_HEAD.size + length]
    if len(text) < length or zlib.crc32(text) != checksum:
        raise BadRecordError("bad_segment_header", "its checksum does not match")
    try:
        return SegmentHeader.model_validate_json(text), _FILE_HEAD.size + length
    except ValidationError as error:
        raise BadRecordError("bad_segment_header", str(error)) from error


def read_frames(data: bytes, start: int) -> Iterator[Frame | Damage]:
    """Every frame from `start` on, and every stretch between them that is not one."""
    offset = start
    while offset < len(data):
        frame = _frame_at(data, offset)
        if frame is not None:
            yield frame
            offset += frame.size
            continue
        following = _next_frame(data, offset + 1)
        yield Damage(offset, _why(data, offset, following), data[offset:following])
        offset = following


def count_frames(data: bytes | mmap.mmap, *, is_whole: bool) -> int:
    """Records and damaged stretches of a segment, by their lengths alone: checksums are not read.

    Args:
        data: the file.
        is_whole: whether its writer is done; else an unfinished end is not counted.
    """
    try:
        offset = decode_header(data[:HEADER_BYTES])[1]
    except BadRecordError:
        offset = 0
    count = 0
    while len(data) - offset >= FRAME_OVERHEAD:
        marker, length, _, _ = _FRAME_HEAD.unpack_from(data, offset)
        if marker != MARKER or offset + FRAME_OVERHEAD + length > len(data):
            break
        offset += FRAME_OVERHEAD + length
        count += 1
    if offset == len(data):
        return count
    rest = list(read_frames(data[offset:], 0))
    if rest and not is_whole and isinstance(rest[-1], Damage):
        rest.pop()
    return count + len(rest)


def _frame_at(data: bytes, offset: int) -> Frame | None:
    if len(data) - offset < FRAME_OVERHEAD:
        return None
    marker, length, checksum, number = _FRAME_HEAD.unpack_from(data, offset)
    begin, end = offset + FRAME_OVERHEAD, offset + FRAME_OVERHEAD + length
    if marker != MARKER or number not in _NAMES or end > len(data):
        return None
    payload = data[begin:end]
    if zlib.crc32(payload, zlib.crc32(_CHECKED.pack(length, number))) != checksum:
        return None
    return Frame(offset, _NAMES[number], payload, end - offset)


def _next_frame(data: bytes, offset: int) -> int:
    """Offset of the next whole frame, or the end of the file."""
    while (offset := data.find(MARKER, offset)) >= 0:
        if _frame_at(data, offset) is not None:
            return offset
        offset += 1
    return len(data)


def _why(data: bytes, offset: int, end: int) -> Literal["torn_frame", "corrupt_frame"]:
    """A stretch up to the end of the file whose own head says that more should follow is torn."""
    if end < len(data):
        return "corrupt_frame"
    if end - offset < FRAME_OVERHEAD:
        return "torn_frame"
    marker, length, _, _ = _FRAME_HEAD.unpack_from(data, offset)
    is_short = marker == MARKER and offset + FRAME_OVERHEAD + length > end
    return "torn_frame" if is_short else "corrupt_frame"


def begun_at(data: bytes, fallback: datetime) -> datetime:
    """When the segment was begun, or `fallback` where its header cannot be read."""
    try:
        return decode_header(data)[0].created_at
    except BadRecordError:
        return fallback
