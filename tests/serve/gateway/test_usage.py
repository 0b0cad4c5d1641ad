"""Usage out of the last bytes: what servers send, what users write, and anything at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.prices import TokenUsage
from flywheel.serve.gateway.usage import TAIL_BYTES, usage_in

CHAT = {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37}
CACHED: dict[str, object] = {
    **CHAT,
    "prompt_tokens_details": {"cached_tokens": 20, "audio_tokens": 0},
}
RESPONSES = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 20},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 37,
}
ANSWER = {"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}]}


def body(**fields: object) -> bytes:
    return json.dumps({**ANSWER, **fields}).encode()


def stream(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events)


def chunk_with(**counts: int) -> dict[str, object]:
    return {**ANSWER, "usage": {**CHAT, **counts}}


def test_a_chat_completion_with_what_follows_its_usage() -> None:
    assert usage_in(body(usage=CHAT), False) == TokenUsage(30, 7, None)
    found = usage_in(body(usage=CACHED, service_tier="default", system_fingerprint=None), False)
    assert found == TokenUsage(30, 7, 20)


def test_embeddings_have_no_output() -> None:
    data = {"data": [{"embedding": [0.1] * 5}], "usage": {"prompt_tokens": 8, "total_tokens": 8}}
    assert usage_in(json.dumps(data).encode(), False) == TokenUsage(8, 0, None)


def test_a_response_with_usage_before_its_metadata() -> None:
    data: object = {
        "id": "r",
        "output": [],
        "usage": RESPONSES,
        "user": None,
        "metadata": {"a": "}"},
    }
    assert usage_in(json.dumps(data, indent=2).encode(), False) == TokenUsage(30, 7, 20)


def test_a_chat_stream_reports_in_its_last_chunk() -> None:
    chunk = {**ANSWER, "usage": None}
    last = {"id": "x", "choices": [], "usage": CHAT}
    assert usage_in(stream(chunk, chunk, last) + b"data: [DONE]\n\n", True) == TokenUsage(30, 7)


def test_continuous_usage_means_the_last_of_it() -> None:
    events = [chunk_with(completion_tokens=n) for n in range(4)]
    assert usage_in(stream(*events), True) == TokenUsage(30, 3)
    assert usage_in(stream(*events)[:-60], True) == TokenUsage(30, 2)  # cut off in the last


def test_a_responses_stream_reports_inside_its_last_event() -> None:
    done = {"type": "response.completed", "response": {"output": [], "usage": RESPONSES}}
    tail = stream({"type": "response.output_text.delta", "delta": '"usage": {'}, done)
    assert usage_in(tail, True) == TokenUsage(30, 7, 20)


def test_crlf_and_a_byte_cut_within_a_character() -> None:
    tail = ("ü" * 50).encode()[1:] + stream({**ANSWER, "usage": CHAT}).replace(b"\n", b"\r\n")
    assert usage_in(tail, True) == TokenUsage(30, 7)


def test_a_stream_that_does_not_report_is_none() -> None:
    assert usage_in(stream({**ANSWER, "usage": None}) + b"data: [DONE]\n\n", True) is None
    assert usage_in(b"", True) is None and usage_in(b"<html>", False) is None


FORGED = '"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}'


@pytest.mark.parametrize("text", [FORGED, f"}}, {FORGED}", "\\", '\\"', f'\\", {FORGED}', "\n"])
def test_what_a_model_writes_is_not_usage(text: str) -> None:
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}}]
    assert usage_in(json.dumps({"choices": choices}).encode(), False) is None
    whole = json.dumps({"usage": CHAT, "choices": choices}).encode()
    assert usage_in(whole, False) == TokenUsage(30, 7)
    assert usage_in(stream({"choices": [{"delta": {"content": text}}]}), True) is None


def test_a_schema_echoed_from_the_request_is_not_usage() -> None:
    schema = {"properties": {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}}
    data = {"usage": RESPONSES, "tools": [{"parameters": schema}]}
    assert usage_in(json.dumps(data).encode(), False) == TokenUsage(30, 7, 20)
    assert usage_in(json.dumps({"tools": [{"parameters": schema}]}).encode(), False) is None


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "7", None, 1 << 60, [], {}])
def test_counts_that_are_none_are_not_guessed(wrong: object) -> None:
    assert usage_in(body(usage={**CHAT, "prompt_tokens": wrong}), False) is None


def test_a_nest_without_end_is_no_usage() -> None:
    assert usage_in(b'{"usage": ' + b'{"a":' * 5000, False) is None
    assert usage_in(b'{"usage": {"prompt_tokens":' + b"[" * 5000, False) is None
    assert usage_in(b'"usage"' * 100_000, True) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
COUNTS = st.integers(0, 1 << 40)


@given(COUNTS, COUNTS, st.none() | COUNTS, st.dictionaries(st.text(), JSON, max_size=4), st.text())
def test_usage_is_found_whatever_stands_beside_it(
    asked: int, answered: int, cached: int | None, after: dict[str, object], content: str
) -> None:
    usage = {"prompt_tokens": asked, "completion_tokens": answered}
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    after.pop("usage", None)
    document = {"choices": [{"message": content}], "usage": {**usage, **details}, **after}
    expected = TokenUsage(asked, answered, cached)
    for ascii_only in (True, False):
        text = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "replace")
        assert usage_in(text, False) == expected
        assert usage_in(b"data: " + text + b"\n\ndata: [DONE]\n\n", True) == expected


@given(st.dictionaries(st.text().filter(lambda name: name != "usage"), JSON), st.booleans())
def test_nothing_is_found_where_nothing_stands(document: dict[str, object], streamed: bool) -> None:
    text = json.dumps({"x": document}).encode()
    found = usage_in(text, streamed)
    assert found is None or '"usage"' in text.decode()


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_survived(data: bytes, streamed: bool) -> None:
    for tail in (data, b'"usage":{' + data, data + body(usage=CHAT)[-TAIL_BYTES:]):
        found = usage_in(tail, streamed)
        assert found is None or found.total_tokens >= 0
