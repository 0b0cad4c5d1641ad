import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from flywheel.capture.sse import ChunkError, assemble, events
from flywheel.records import JsonObject


def stream(*chunks: JsonObject, done: bool = True) -> str:
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""])


def chunk(delta: JsonObject, *, index: int = 0, finish: str | None = None) -> JsonObject:
    return {
        "id": "c",
        "model": "base",
        "choices": [{"index": index, "delta": delta, "finish_reason": finish}],
    }


def test_content_grows_and_usage_comes_last() -> None:
    text = stream(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Rest "}),
        chunk({"content": "it."}, finish="stop"),
        {"id": "c", "model": "base", "choices": [], "usage": {"prompt_tokens": 3}},
    )
    assert assemble(text) == {
        "id": "c",
        "model": "base",
        "usage": {"prompt_tokens": 3},
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Rest it."},
                "finish_reason": "stop",
            }
        ],
    }


def choices_of(text: str) -> list[dict[str, Any]]:
    """The choices, untyped: what a test looks up in them is there or fails it."""
    found: list[dict[str, Any]] = json.loads(json.dumps(assemble(text)["choices"]))
    return found


def call(index: int | None, *, id: str | None = None, **function: str) -> JsonObject:
    part: JsonObject = {"function": dict(function)}
    if index is not None:
        part["index"] = index
    return {**part, "id": id, "type": "function"} if id else part


CALLS: list[JsonValue] = [
    {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"x":1}'}},
    {"id": "b", "type": "function", "function": {"name": "ask", "arguments": "{}"}},
]


@pytest.mark.parametrize("has_index", [True, False])
def test_tool_calls_are_put_together_by_index_or_where_there_is_none_by_id(
    has_index: bool,
) -> None:
    first, second = (0, 1) if has_index else (None, None)
    text = stream(
        chunk({"role": "assistant", "content": None}),
        chunk({"tool_calls": [call(first, id="a", name="look", arguments="")]}),
        chunk({"tool_calls": [call(first, arguments='{"x"')]}),
        chunk({"tool_calls": [call(first, arguments=":1}")]}),
        chunk({"tool_calls": [call(second, id="b", name="ask", arguments="{}")]}),
        chunk({}, finish="tool_calls"),
    )
    assert choices_of(text)[0] == {
        "index": 0,
        "message": {"role": "assistant", "content": None, "tool_calls": CALLS},
        "finish_reason": "tool_calls",
    }


def test_choices_that_interleave_are_kept_apart_and_in_order() -> None:
    text = stream(
        chunk({"content": "B1"}, index=1),
        chunk({"content": "A1"}, index=0),
        chunk({"content": "B2"}, index=1, finish="stop"),
        chunk({"content": "A2"}, index=0, finish="length"),
    )
    choices = choices_of(text)
    assert [(c["message"]["content"], c["finish_reason"]) for c in choices] == [
        ("A1A2", "length"),
        ("B1B2", "stop"),
    ]


def test_a_stream_cut_off_anywhere_gives_what_had_come() -> None:
    text = stream(*[chunk({"content": letter}) for letter in "abc"])
    for cut in range(len(text)):
        choices = choices_of(text[:cut])
        content = choices[0]["message"].get("content", "") if choices else ""
        assert "abc".startswith(content)


@given(st.lists(st.text(), min_size=1), st.sampled_from(["\n", "\r\n", "\r"]))
def test_however_a_text_is_cut_into_chunks_it_comes_back(parts: list[str], newline: str) -> None:
    text = stream(*[chunk({"content": part}) for part in parts]).replace("\n", newline)
    assert choices_of(text)[0]["message"]["content"] == "".join(parts)


def test_an_event_of_several_lines_is_one_and_comments_are_none() -> None:
    assert list(events(": ping\nevent: x\ndata: a\ndata:b\n\ndata: cut")) == ["a\nb"]


@pytest.mark.parametrize(
    "data",
    ["<html>", "[1]", '{"choices":[1]}', '{"choices":[{"index":"0"}]}']
    + ['{"choices":[{"delta":{"tool_calls":[1]}}]}'],
)
def test_an_event_that_is_no_chunk_is_refused(data: str) -> None:
    with pytest.raises(ChunkError):
        assemble(f"data: {data}\n\n")


@given(st.text())
def test_no_text_makes_the_reader_fail_otherwise(text: str) -> None:
    with suppress(ChunkError):
        assemble(f"data: {text}\n\n{text}")


def test_tool_calls_that_are_null_in_the_first_delta_are_no_obstacle_to_those_that_follow() -> None:
    """Guards a drain that stopped for good at such a stream: it was an AssertionError."""
    text = stream(
        chunk({"role": "assistant", "content": None, "tool_calls": None}),
        chunk({"tool_calls": [call(0, id="a", name="look", arguments='{"x":1}')]}),
        chunk({"tool_calls": None}, finish="tool_calls"),
    )
    assert choices_of(text)[0]["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": CALLS[:1],
    }
    with pytest.raises(ChunkError, match="not a list"):
        assemble(stream(chunk({"tool_calls": "look"})))
