"""The records of a JSON array or of a JSONL file, each with its original bytes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flywheel.errors import BadRecordError, ConfigError
from flywheel.label.texts import FallbackEncoding, TextLine, text_lines
from flywheel.records import JsonObject


@dataclass(frozen=True)
class Element:
    """One record of a file."""

    number: int
    """1-based: its line in JSONL, its place in an array."""
    raw: bytes
    value: JsonObject | BadRecordError


def read_elements(path: Path, encoding: FallbackEncoding | None = None) -> Iterator[Element]:
    """The records of a file. Of an array that is cut off, the whole ones are read.

    Raises:
        ConfigError: the file cannot be read, or is empty.
    """
    lines = text_lines(path, encoding)
    first = next((line for line in lines if line.text.strip()), None)
    if first is None:
        raise ConfigError(str(path), ["is empty"])
    if first.text.lstrip().startswith("["):
        yield from _array([first, *lines])
        return
    for number, line in enumerate(_again(first, lines), start=1):
        if line.text.strip():
            yield Element(number, line.raw, line.problem or _object(line.text))


def _again(first: TextLine, rest: Iterator[TextLine]) -> Iterator[TextLine]:
    yield first
    yield from rest


def _array(lines: list[TextLine]) -> Iterator[Element]:
    text = "".join(line.text for line in lines)
    decoder = json.JSONDecoder()
    at, number = text.index("[") + 1, 0
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if at >= len(text) or text[at] == "]":
            return
        number += 1
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            problem = BadRecordError("bad_json", f"the array cannot be read on from here: {error}")
            yield Element(number, _bytes(text[at:]), problem)
            return
        raw = _bytes(text[at:end])
        yield Element(number, raw, _checked(value, text[at:end]))
        at = end


def _object(text: str) -> JsonObject | BadRecordError:
    try:
        return _checked(json.loads(text), "")
    except (ValueError, RecursionError) as error:
        return BadRecordError("bad_json", str(error))


def _checked(value: object, text: str) -> JsonObject | BadRecordError:
    if any("\udc80" <= mark <= "\udcff" for mark in text):
        return BadRecordError("bad_encoding", "not UTF-8; --encoding says what else it is")
    return value if isinstance(value, dict) else BadRecordError("bad_json", "not an object {…}")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")
