"""OpenAI -> record -> OpenTelemetry -> record -> OpenAI gives back the same messages."""

import json

from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from flywheel.capture.importers import openai, otlp, span_attributes
from flywheel.capture.importers.parts import EXTRA, from_parts, to_parts
from flywheel.records import Interaction, JsonObject
from tests.capture.importers.rows import CALL, COMPLETION, SOURCE, TOOL, call_of
from tests.capture.importers.rows import otlp as document

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = (
    st.dictionaries(TEXT, JSON_VALUES, max_size=3).map(lambda v: json.dumps(v))
    | st.dictionaries(TEXT, JSON_VALUES, max_size=3).map(
        lambda v: json.dumps(v, ensure_ascii=False, separators=(",", ":"))
    )
    | TEXT
    | st.sampled_from(["{}", '{"a":1,"a":2}', '{"x": 1.0}', '{"x":1e5}', "[1,2]", "3", "null"])
)
PARTS = st.lists(
    st.builds(lambda t: {"type": "text", "text": t}, TEXT)
    | st.builds(lambda t: {"type": "text", "text": t, "cache_control": {"type": "x"}}, TEXT)
    | st.sampled_from(
        [
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA"}},
            {"type": "image_url", "image_url": {"url": "https://a", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
            {"type": "file", "file": {"file_id": "f-1"}},
            {"type": "file", "file": {"file_data": "AAAA", "filename": "a.pdf"}},
            {"type": "refusal", "refusal": "no"},
        ]
    ),
    max_size=4,
)
CALLS = st.lists(
    st.builds(
        lambda identity, name, arguments: {
            "id": identity,
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        },
        TEXT,
        TEXT,
        ARGUMENTS,
    )
    | st.just({"id": "c", "type": "custom", "custom": {"name": "n", "input": "i"}}),
    max_size=3,
)
CONTENT = TEXT | PARTS | st.none()
ANSWERS = st.fixed_dictionaries(
    {"role": st.just("assistant")},
    optional={
        "content": CONTENT,
        "tool_calls": CALLS | st.none(),
        "refusal": TEXT | st.none(),
        "reasoning_content": TEXT,
        "audio": st.just({"id": "a-1"}),
        "name": TEXT,
    },
)
MESSAGES = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user"]), "content": CONTENT},
        optional={"name": TEXT},
    ),
    ANSWERS,
    st.fixed_dictionaries(
        {"role": st.just("tool"), "content": CONTENT, "tool_call_id": TEXT},
        optional={"name": TEXT},
    ),
)


def through_otel(call: Interaction) -> Interaction:
    return call_of(otlp.read(document(dict(span_attributes(call))), SOURCE))


def dumped(call: Interaction) -> list[JsonObject]:
    answers = [call.response, *call.alternatives]
    return [m.model_dump() for m in (*call.messages, *answers) if m is not None]


@given(st.lists(MESSAGES, max_size=5), st.lists(ANSWERS, min_size=1, max_size=2))
def test_messages_survive_the_way_out_and_in_again(
    messages: list[JsonValue], answers: list[JsonValue]
) -> None:
    choices: list[JsonValue] = [{"index": i, "message": m} for i, m in enumerate(answers)]
    request: JsonObject = {"model": "small", "messages": messages, "tools": [TOOL], "seed": 3}
    row: JsonObject = {"request": request, "response": {**COMPLETION, "choices": choices}}
    call = call_of(openai.read(row, SOURCE))
    again = through_otel(call)
    assert json.dumps(dumped(again), sort_keys=True) == json.dumps(
        [*messages, *answers], sort_keys=True
    )
    for name in ("interaction_id", "tools", "request_params", "input_tokens", "request_model"):
        assert getattr(again, name) == getattr(call, name)


@given(MESSAGES)
def test_parts_are_json_of_the_conventions_shape(message: JsonObject) -> None:
    converted = to_parts(message)
    assert isinstance(converted["parts"], list)
    assert json.loads(json.dumps(converted)) == converted
    assert from_parts(converted) == message


def test_ordinary_messages_need_nothing_but_the_conventions() -> None:
    ordinary: list[JsonObject] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?", "name": "ann"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And this?"},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "assistant", "content": "It rains."},
        {"role": "assistant", "content": "Rain.", "reasoning_content": "Look outside."},
    ]
    for message in ordinary:
        assert EXTRA not in to_parts(message)
    called = to_parts(ordinary[3])
    assert called["parts"] == [
        {"type": "tool_call", "id": "call_1", "name": "look", "arguments": {"city": "Paris"}}
    ]
