"""Templates: `{{item.*}}`, `{{sample.output_text}}` and `{{sample.output_json.*}}`.

Parsed once, rendered in one pass: what a model wrote is inserted as text and never read as a
template.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn

from pydantic import JsonValue

from flywheel.records import GradeResult, JsonObject

_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_PATH = re.compile(r"[\w-]+(?:\.[\w-]+|\[\d+\])*", re.ASCII)
_VALID = "{{item.*}}, {{sample.output_text}}, {{sample.output_json}}, {{sample.output_json.*}}"


@dataclass(frozen=True)
class Missing:
    """A template's field that is not there, and whose fault that is."""

    side: Literal["output", "item"]
    detail: str

    def result(self) -> GradeResult:
        """0 when the output lacks it: a wrong answer. None when the item does: no comparison."""
        if self.side == "output":
            return GradeResult(score=0.0, detail=self.detail)
        return GradeResult(score=None, error_type="missing_item_field", detail=self.detail)


@dataclass(frozen=True)
class Template:
    """Text with fields in double braces."""

    parts: tuple[str, ...]
    """Literal text at even positions, field paths at odd ones."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The fields it reads, as written."""
        return self.parts[1::2]

    def render(
        self, output: str, item: JsonObject, *, enclose: Callable[[str, str], str] | None = None
    ) -> str | Missing:
        """Fills the fields in; the first one that is absent ends it.

        A string is inserted as it is, anything else as compact JSON (`true`, `3`, `null`).

        Args:
            output: What `sample.*` is of.
            item: What `item.*` is of.
            enclose: Makes what is inserted of a field's path and its text.
        """
        filled = list(self.parts)
        for position, path in enumerate(self.paths):
            found = _look_up(path, output, item)
            if isinstance(found, Missing):
                return found
            filled[2 * position + 1] = enclose(path, found) if enclose else found
        return "".join(filled)


def parse_template(text: str) -> Template:
    """Reads a template.

    Raises:
        ValueError: with every field that is not one, and what would be valid.
    """
    parts = _BRACES.split(text)
    parts[1::2] = [path.strip() for path in parts[1::2]]
    problems = [problem for path in parts[1::2] if (problem := _problem(path))]
    if any("{{" in literal for literal in parts[::2]):
        problems.append("'{{' is never closed with '}}'")
    if problems:
        raise ValueError("; ".join(problems))
    return Template(tuple(parts))


def _problem(path: str) -> str | None:
    """Why this is not a field, or None."""
    names = _keys(path) if _PATH.fullmatch(path) else []
    is_item = len(names) > 1 and names[0] == "item"
    is_sample = names[:2] == ["sample", "output_json"] or names == ["sample", "output_text"]
    if is_item or is_sample:
        return None
    return f"unknown field {{{{{path}}}}}; valid: {_VALID}"


def _keys(path: str) -> list[str]:
    """`a.b[0].c` as its keys; a list's positions are keys too."""
    return path.replace("[", ".").replace("]", "").split(".")


def _look_up(path: str, output: str, item: JsonObject) -> str | Missing:
    side, *keys = _keys(path)
    if side == "item":
        found = _walk(item, keys)
        return _text(found[0]) if found else Missing("item", f"the item has no {path}")
    if keys == ["output_text"]:
        return output
    parsed = parse_json(output)
    if isinstance(parsed, NotJson):
        return Missing("output", f"the output is not JSON: {parsed.reason}")
    found = _walk(parsed.value, keys[1:])
    return (
        _text(found[0]) if found else Missing("output", f"the output has no {'.'.join(keys[1:])}")
    )


def _walk(value: JsonValue, keys: list[str]) -> tuple[JsonValue] | None:
    """The value at the end of the keys, in a tuple because it may itself be None."""
    for key in keys:
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return (value,)


def _text(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class ParsedJson:
    """A JSON value."""

    value: JsonValue


@dataclass(frozen=True)
class NotJson:
    """Why a text is not JSON."""

    reason: str


def parse_json(text: str) -> ParsedJson | NotJson:
    """Reads the whole text as JSON (RFC 8259): NaN is no number, and a code fence no JSON."""
    try:
        return ParsedJson(json.loads(text, parse_constant=_refuse_constant))
    except RecursionError:
        return NotJson("nested too deeply")
    except ValueError as error:  # JSONDecodeError, and an integer of more digits than Python reads
        return NotJson(str(error))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
