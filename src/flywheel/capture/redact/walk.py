"""Every text inside a JSON value, visited in order and put back where it was.

A text that is itself JSON (tool arguments, a JSON answer) is changed inside its string literals and
nowhere else: its spacing, the order of its keys and its numbers stay as they were.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from pydantic import JsonValue
from pydantic_core import from_json, to_json


class Leaf(NamedTuple):
    """A text in a JSON value."""

    text: str
    hint: str = ""
    """The words of the key it stands under: what introduces it, as a sentence would."""
    is_number: bool = False
    """It is an integer, and a text only where something else takes its place."""


Visit = Callable[[Leaf], str]
"""What to put in a leaf's place."""

MAX_NESTING = 8
"""JSON in a string in JSON, and so on: deeper is read as plain text."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|[{}\[\],:]', re.DOTALL)
_COLON = re.compile(r"\s*:")
_WORD_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\W_]+")


def walk(value: JsonValue, visit: Visit, hint: str = "", *, nesting: int = 0) -> JsonValue:
    """The value with each text, number and key replaced by what `visit` makes of it."""
    if isinstance(value, str):
        return walk_text(value, visit, hint, nesting=nesting)
    if isinstance(value, dict):
        walked: dict[str, JsonValue] = {}
        for key, item in value.items():
            told_key = visit(Leaf(key))
            while told_key in walked:  # two people under one placeholder: lose neither
                told_key += "_"
            walked[told_key] = walk(item, visit, hint_of(key, hint), nesting=nesting)
        return walked
    if isinstance(value, list):
        return [walk(item, visit, hint, nesting=nesting) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        told = _number(str(value), visit, hint)
        return value if told is None else told
    return value


def walk_text(text: str, visit: Visit, hint: str = "", *, nesting: int = 0) -> str:
    """The text, visited inside its string literals where it is a JSON object or array."""
    if nesting < MAX_NESTING and _is_json(text):
        return _walk_literals(text, visit, hint, nesting + 1)
    return visit(Leaf(text, hint))


def hint_of(key: str, outer: str) -> str:
    """The words of a key: `patient_phone`, `patientPhone` -> `patient phone`."""
    words = " ".join(_WORD_BREAK.sub(" ", key).split())
    return words if 0 < len(words) <= 60 else outer


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        from_json(text)
    except ValueError:
        return False
    return True


def _walk_literals(text: str, visit: Visit, hint: str, nesting: int) -> str:
    out: list[str] = []
    at = 0
    keys: list[str] = []  # the hint that holds in each open object or array
    current = hint
    for token in _TOKEN.finditer(text):
        out.append(text[at : token.start()])
        at = token.end()
        literal = token[0]
        if literal in ("{", "["):
            keys.append(current)
        elif literal in ("}", "]"):
            current = keys.pop()
        elif literal[0] == '"':
            word = from_json(literal)
            if _COLON.match(text, at):
                told, current = visit(Leaf(word)), hint_of(word, keys[-1])
            else:
                told = walk_text(word, visit, current, nesting=nesting)
            literal = literal if told == word else to_json(told).decode()
        elif literal not in (",", ":"):
            number = _number(literal, visit, current)
            literal = literal if number is None else to_json(number).decode()
        out.append(literal)
    return "".join(out) + text[at:]


def _number(literal: str, visit: Visit, hint: str) -> str | None:
    """What stands in a number's place; None where it stays: an identifier is a long integer."""
    if not literal.isdigit() or len(literal) < 5:
        return None
    told = visit(Leaf(literal, hint, is_number=True))
    return None if told == literal else told
