"""Whatever is in a row: outcomes or a BadRecordError, and the lake can take or refuse them."""

import copy
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from flywheel.capture.importers.front import FORMATS, FormatName
from flywheel.capture.importers.row import Source, parse_json
from flywheel.capture.importers.spans import spans_of_protobuf
from flywheel.errors import BadRecordError
from flywheel.lake.rows import to_arrow
from flywheel.lake.tables import TABLES
from flywheel.records import Assessment, Interaction, JsonObject
from tests.capture.importers import rows

NESTED: JsonObject = {"role": "user", "content": [{"type": "text"}], "tool_calls": [{"id": 1}]}
SCALARS = st.sampled_from(
    [None, True, 0, -1, 1.5, 2**70, 1e300, "", "x", "\x00", "😀", "{", "[]", "1767323045", "{}"]
    + ["2026-01-02T03:04:05", "9999-12-31T23:59:59-23:59", "data: {}\n\n", 'data: {"choices":7}']
)
ANYTHING = st.recursive(
    SCALARS | st.just(NESTED),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "messages",
                    "choices",
                    "message",
                    "function",
                    "id",
                    "delta",
                    "x",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
GOOD: dict[FormatName, list[JsonObject]] = {
    "openai": [rows.OPENAI, {"custom_id": "a", "response": {"body": rows.COMPLETION}}],
    "nvidia": [rows.NVIDIA],
    "openpipe": [rows.OPENPIPE],
    "litellm": [rows.LITELLM],
    "langfuse": [
        rows.LANGFUSE,
        {"name": "n", "value": 1, "trace_id": "t", "timestamp": 1767323045},
    ],
    "tensorzero": [rows.TENSORZERO, rows.FEEDBACK, rows.DEMONSTRATION],
    "otlp": [
        rows.OTLP,
        rows.otlp({"mlflow.spanType": '"LLM"', "mlflow.spanInputs": json.dumps(rows.REQUEST)}),
        rows.otlp({"openinference.span.kind": "LLM", "llm.input_messages.0.message.role": "u"}),
    ],
}
SOURCE = Source(
    workload="w",
    subject_secret=b"k",
    assumed_time=rows.NOW,
    joined=lambda key: [rows.REQUEST],
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path] if path else []
    for key, item in inner:
        deeper = isinstance(item, dict | list)
        found += places(item, (*path, key)) if deeper else [(*path, key)]
    return found


def unfold(value: Any) -> Any:
    """JSON in strings taken apart, so that it is spoilt inside too."""
    if isinstance(value, dict):
        return {key: unfold(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unfold(item) for item in value]
    if isinstance(value, str) and value[:1] in "{[" and value:
        return {"__json__": json.loads(value)}
    return value


def fold(value: Any) -> Any:
    if isinstance(value, dict) and "__json__" in value:
        return json.dumps(fold(value["__json__"]))
    if isinstance(value, dict):
        return {key: fold(item) for key, item in value.items()}
    return [fold(item) for item in value] if isinstance(value, list) else value


@st.composite
def spoilt(draw: st.DrawFn, good: list[JsonObject]) -> JsonObject:
    row = unfold(json.loads(json.dumps(draw(st.sampled_from(good)))))
    for _ in range(draw(st.integers(0, 4))):
        found = places(row)
        if not found:
            break
        *way, last = draw(st.sampled_from(found))
        at = row
        for step in way:
            at = at[step]
        if draw(st.booleans()) or isinstance(at, list):
            at[last] = copy.deepcopy(draw(ANYTHING))
        else:
            del at[last]
    return fold(row)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", list(GOOD))
def test_a_spoilt_row_is_read_or_refused_and_never_breaks_the_import(name: FormatName) -> None:
    @settings(max_examples=150)
    @given(spoilt(GOOD[name]))
    def check(row: JsonObject) -> None:
        FORMATS[name].looks_like(row)
        try:
            outcomes = FORMATS[name].read(row, SOURCE)
        except BadRecordError as error:
            assert error.reason and error.detail
            return
        for outcome in outcomes:
            if isinstance(outcome, Interaction | Assessment):
                table = "interactions" if isinstance(outcome, Interaction) else "assessments"
                with suppress(BadRecordError):  # the import quarantines the row alone
                    to_arrow(TABLES[table], [outcome])

    check()


@pytest.mark.parametrize("name", list(GOOD))
def test_any_object_at_all_is_refused_or_read(name: FormatName) -> None:
    @settings(max_examples=60)
    @given(st.dictionaries(st.sampled_from(sorted({k for r in GOOD[name] for k in r})), ANYTHING))
    def check(row: JsonObject) -> None:
        FORMATS[name].looks_like(row)
        with suppress(BadRecordError):
            FORMATS[name].read(row, SOURCE)

    check()


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda tail: b'{"a": "' + tail))
def test_any_bytes_are_json_or_refused(raw: bytes) -> None:
    try:
        parse_json(raw)
    except BadRecordError as error:
        assert error.reason in ("bad_json", "bad_encoding")


@given(st.binary(max_size=200))
def test_any_bytes_are_protobuf_or_refused(raw: bytes) -> None:
    try:
        list(spans_of_protobuf(raw))
    except BadRecordError as error:
        assert error.reason == "bad_protobuf"


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000])
def test_deep_and_long_json_is_refused_or_read_at_once(raw: bytes) -> None:
    try:
        value: JsonValue = parse_json(raw)
    except BadRecordError:
        return
    assert isinstance(value, int)
