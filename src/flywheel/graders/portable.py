"""To and from one OpenAI grader object: there a grader carries its name, here its key does."""

from pydantic import JsonValue

from flywheel.errors import ConfigError
from flywheel.records import JsonObject, Record


class NamedGrader(Record):
    """A grader's name and its JSON, as an entry of `graders` in flywheel.yaml."""

    name: str
    spec: JsonObject


def from_openai(grader: JsonObject) -> NamedGrader:
    """Takes an OpenAI grader object; a sub-grader's name that repeats its key is left out.

    Raises:
        ConfigError: it has no name.
    """
    name = grader.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError("grader", ["name: is required and missing in an OpenAI grader object"])
    return NamedGrader(name=name, spec=_without_name(name, grader))


def to_openai(name: str, spec: JsonObject) -> JsonObject:
    """Gives an OpenAI grader object, sub-graders named by their keys.

    Raises:
        ConfigError: it, or a part of it, is of a type only Flywheel has.
    """
    kind = spec.get("type")
    if isinstance(kind, str) and kind.startswith("x-"):
        raise ConfigError("graders", [f"{name}: {kind} is Flywheel's own; OpenAI has no such type"])
    exported: JsonObject = {"name": name}
    exported.update({key: value for key, value in spec.items() if not key.startswith("x-")})
    parts = spec.get("graders")
    if isinstance(parts, dict):
        exported["graders"] = {
            key: to_openai(key, part) if isinstance(part, dict) else part
            for key, part in parts.items()
        }
    return exported


def _without_name(key: str, grader: JsonObject) -> JsonObject:
    spec: JsonObject = {
        field: value for field, value in grader.items() if (field, value) != ("name", key)
    }
    parts = grader.get("graders")
    if isinstance(parts, dict):
        named: dict[str, JsonValue] = {
            part: _without_name(part, sub) if isinstance(sub, dict) else sub
            for part, sub in parts.items()
        }
        spec["graders"] = named
    return spec
