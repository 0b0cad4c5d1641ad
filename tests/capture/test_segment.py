import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.capture.segment import (
    MAGIC,
    Damage,
    Frame,
    Kind,
    SegmentHeader,
    decode_header,
    encode_frame,
    encode_header,
    read_frames,
)
from flywheel.errors import BadRecordError
from tests.capture.records import STARTED

HEADER = SegmentHeader(writer="w", created_at=STARTED, default_workload="triage")
payloads = st.lists(st.tuples(st.sampled_from(["exchange", "feedback"]), st.binary(max_size=60)))


def segment(*records: tuple[Kind, bytes]) -> bytes:
    frames = [encode_frame(kind, payload) for kind, payload in records]
    return encode_header(HEADER) + b"".join(frames)


def read(data: bytes) -> tuple[list[tuple[Kind, bytes]], list[Damage]]:
    _, start = decode_header(data)
    parts = list(read_frames(data, start))
    frames = [(part.kind, part.payload) for part in parts if isinstance(part, Frame)]
    return frames, [part for part in parts if isinstance(part, Damage)]


@given(payloads)
def test_what_is_framed_comes_back(records: list[tuple[Kind, bytes]]) -> None:
    frames, damages = read(segment(*records))
    assert frames == records
    assert damages == []


def test_a_segment_cut_at_any_byte_gives_back_every_whole_frame() -> None:
    records: list[tuple[Kind, bytes]] = [
        ("exchange", b"one"),
        ("feedback", b""),
        ("exchange", "zwei µ".encode()),
    ]
    whole = segment(*records)
    _, start = decode_header(whole)
    ends = [start]
    for kind, payload in records:
        ends.append(ends[-1] + len(encode_frame(kind, payload)))
    for cut in range(start, len(whole) + 1):
        frames, damages = read(whole[:cut])
        complete = sum(end <= cut for end in ends[1:])
        assert frames == records[:complete]
        assert b"".join(damage.data for damage in damages) == whole[ends[complete] : cut]
        assert {damage.reason for damage in damages} <= {"torn_frame"}


@given(payloads, st.data())
def test_one_changed_byte_costs_one_frame_at_most(
    records: list[tuple[Kind, bytes]], data: st.DataObject
) -> None:
    whole = segment(*records)
    _, start = decode_header(whole)
    if start == len(whole):
        return
    position = data.draw(st.integers(start, len(whole) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged = whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :]
    frames, damages = read(damaged)
    assert len(frames) >= len(records) - 1
    kept = sum(len(encode_frame(kind, payload)) for kind, payload in frames)
    assert kept + sum(len(damage.data) for damage in damages) == len(whole) - start


@given(st.binary(max_size=400))
def test_no_bytes_make_the_reader_fail_or_lose_one(noise: bytes) -> None:
    parts = list(read_frames(noise, 0))
    sizes = [part.size if isinstance(part, Frame) else len(part.data) for part in parts]
    assert sum(sizes) == len(noise)


def test_the_header_says_who_wrote_it_and_whose_feedback_it_is() -> None:
    assert decode_header(segment())[0] == HEADER


@pytest.mark.parametrize(
    "data",
    [b"", MAGIC, b"NOTSPOOL" + segment()[8:], segment()[:-1], segment()[:-1] + b"!"],
    ids=["empty", "short", "other file", "cut", "changed"],
)
def test_a_header_that_is_not_whole_is_refused(data: bytes) -> None:
    with pytest.raises(BadRecordError, match="bad_segment_header"):
        decode_header(data)


def test_a_newer_format_is_told_from_a_damaged_file() -> None:
    newer = bytearray(segment(("exchange", b"{}")))
    newer[8] = 2
    with pytest.raises(BadRecordError, match="newer_segment: format 2; this Flywheel reads 1"):
        decode_header(bytes(newer))
