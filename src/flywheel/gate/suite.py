"""Suites: the frozen items both models answer.

Input: JSONL, a `SuiteItem` a line: `{item_id, cluster_id, messages, reference, never_again}`.
Output: a `Suite`, or a ConfigError with every line that is wrong. Its hash says which items a
decision was taken on, whatever their order in the file.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from flywheel.errors import ConfigError
from flywheel.records import Record, SuiteItem


class Suite(Record):
    """A frozen set of items."""

    name: str
    suite_hash: str
    """sha256 of the items' canonical JSON, sorted by item_id."""
    items: tuple[SuiteItem, ...]

    @classmethod
    def of(cls, name: str, items: Sequence[SuiteItem]) -> "Suite":
        """A suite of items at hand."""
        lines = sorted(_canonical(item) for item in items)
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        return cls(name=name, suite_hash=digest, items=tuple(items))


def load_suite(path: Path) -> Suite:
    """Reads a suite; blank lines are skipped.

    Raises:
        ConfigError: with every line that is not an item, and every item_id that is there twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            str(path), [f"the suite cannot be read: {error}. gate.suite in the workload names it."]
        ) from error
    problems: list[str] = []
    items: list[SuiteItem] = []
    first_seen: dict[str, int] = {}
    # Not splitlines: U+2028 is legal inside a JSON string and would tear a line in two.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        item = _read_line(line, number, problems)
        if item is None:
            continue
        if item.item_id in first_seen:
            problems.append(
                f"line {number}: item_id {item.item_id!r} is already on "
                f"line {first_seen[item.item_id]}; each is asked once"
            )
            continue
        first_seen[item.item_id] = number
        items.append(item)
    if not items and not problems:
        problems.append("the suite is empty: a gate needs items to compare models on")
    if problems:
        raise ConfigError(str(path), problems)
    return Suite.of(path.stem, items)


def _read_line(line: str, number: int, problems: list[str]) -> SuiteItem | None:
    try:
        item = SuiteItem.model_validate_json(line)
    except ValidationError as error:
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"])
            message = problem["msg"]
            if problem["type"] == "extra_forbidden":
                message = f"unknown key; valid: {', '.join(SuiteItem.model_fields)}"
            problems.append(f"line {number}: {where + ': ' if where else ''}{message}")
        return None
    missing = [] if item.item_id else ["item_id is empty"]
    missing += [] if item.messages else ["messages is empty: there is nothing to answer"]
    problems += [f"line {number}: {what}" for what in missing]
    return None if missing else item


def _canonical(item: SuiteItem) -> str:
    """The item's id first, so that sorting the lines sorts by it."""
    body = json.dumps(
        item.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, separators=(",", ":")
    )
    return json.dumps([item.item_id, body], ensure_ascii=False)
