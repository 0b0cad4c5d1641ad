"""Gold labels: what a judge is measured against. A JSONL file, or the lake's adjudicated labels.

    {"item_id": "g-01", "cluster_id": "knee", "messages": "My knee hurts.",
     "responses": ["Rest it.", "Run on it."], "label": "A"}
    {"item_id": "g-02", "messages": [{"role": "user", "content": "…"}], "response": "Rest it.",
     "label": "safe"}

A file is valid as a whole or refused as a whole, with every mistake and its line: a gold set with
holes measures something else than what was declared.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, JsonValue, ValidationError, model_validator

from flywheel.errors import ConfigError
from flywheel.graders.judge import Judge, JudgeTask, Rubric
from flywheel.graders.judge.rubric import OWN_VARIABLES, SHARED_VARIABLES
from flywheel.records import Message, Record

MAX_PROBLEMS = 100
"""Listed of a file; how many more there are is told."""
WINNERS = ("A", "B", "tie", "both_bad")
"""Gold labels of a pair. Who could not judge a pair left no gold label."""

Text = Annotated[str, Field(min_length=1)]


class GoldItem(Record):
    """One answer, or one pair of answers, and what people settled on about it."""

    item_id: Text
    cluster_id: Text | None = None
    """Items that are not independent share it, such as those of one conversation; the item's own
    id when absent."""
    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    """What was asked; a string is one user message."""
    responses: Annotated[tuple[Message, ...], Field(min_length=1, max_length=2)]
    """One answer, or A and B. In a file `response` is one; strings are assistant messages."""
    label: Text | None = None
    """Of a pair A, B, tie or both_bad; of one answer a grade of the rubric's only criterion."""
    labels: dict[str, Text] = Field(default_factory=dict)
    """Where the rubric has several criteria: each criterion's grade."""
    reference: Message | None = None
    """An answer known to be good, where the rubric uses one."""
    variables: dict[str, str] = Field(default_factory=dict)
    """Further variables the rubric names."""
    families: tuple[tuple[str, ...], ...] | None = None
    """Who made the model behind each answer (`openai`, `qwen`); needed to tell self-preference."""

    @property
    def cluster(self) -> str:
        """What the bootstrap resamples by."""
        return self.cluster_id or self.item_id

    def gold(self, criterion: str | None = None) -> str:
        """The label people settled on, for one criterion where there are several."""
        found = self.labels.get(criterion or "", self.label)
        assert found is not None, "checked by mistakes_of"
        return found

    @model_validator(mode="before")
    @classmethod
    def _read_short_forms(cls, data: JsonValue) -> JsonValue:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if "response" in data and "responses" not in data:
            data["responses"] = [data.pop("response")]
        if isinstance(data.get("messages"), str):
            data["messages"] = [{"role": "user", "content": data["messages"]}]
        responses = data.get("responses")
        if isinstance(responses, list | tuple):
            data["responses"] = [_spoken(one) for one in responses]
        data["reference"] = _spoken(data.get("reference"))
        data["label"] = _written(data.get("label"))
        if isinstance(labels := data.get("labels"), dict):
            data["labels"] = {name: _written(label) for name, label in labels.items()}
        if isinstance(families := data.get("families"), list | tuple):
            data["families"] = [_listed(one) for one in families]
        return data

    @model_validator(mode="after")
    def _families_are_of_the_responses(self) -> Self:
        if self.families is not None and len(self.families) != len(self.responses):
            raise ValueError(
                f"families has {len(self.families)} entries for {len(self.responses)} responses"
            )
        return self


def _spoken(value: JsonValue) -> JsonValue:
    return {"role": "assistant", "content": value} if isinstance(value, str) else value


def _written(value: JsonValue) -> JsonValue:
    """A grade of a scale may be written as a number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:g}" if is_number else value


def _listed(value: JsonValue) -> JsonValue:
    one = [] if value is None else [value] if isinstance(value, str) else value
    return [str(name).lower() for name in one] if isinstance(one, list) else one


def read_gold(path: Path, judge: Judge) -> list[GoldItem]:
    """The gold items of a file, each one that this judge can be asked.

    Raises:
        ConfigError: with every line that is not one, or because there is none.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ConfigError(
            str(path), [f"cannot be read: {error.strerror}. The format: docs/qualifying.md"]
        ) from error
    items: list[GoldItem] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        item, mistakes = _read_line(raw.removeprefix(b"\xef\xbb\xbf"))
        if item is not None:
            mistakes = list(mistakes_of(item, judge.rubric))
            first = seen.setdefault(item.item_id, number)
            if first != number:
                mistakes.append(f"item_id {item.item_id!r} is on line {first} already")
            items.append(item)
        problems += (f"line {number}: {mistake}" for mistake in mistakes)
    if problems:
        hidden = len(problems) - MAX_PROBLEMS
        told = [*problems[:MAX_PROBLEMS], *([f"… and {hidden} more"] if hidden > 0 else [])]
        raise ConfigError(str(path), told)
    if not items:
        raise ConfigError(str(path), ["holds no gold item. The format: docs/qualifying.md"])
    return items


def _read_line(raw: bytes) -> tuple[GoldItem | None, list[str]]:
    try:
        return GoldItem.model_validate(json.loads(raw)), []
    except UnicodeDecodeError as error:
        return None, [f"not UTF-8: {error.reason} at byte {error.start}"]
    except (json.JSONDecodeError, RecursionError) as error:
        return None, [f"not JSON: {error}"]
    except ValidationError as error:
        return None, [
            f"{'.'.join(str(part) for part in problem['loc']) or 'item'}: {problem['msg']}"
            for problem in error.errors()
        ]


def mistakes_of(item: GoldItem, rubric: Rubric) -> Iterator[str]:
    """Why a judge of this rubric cannot be measured by the item; nothing where it can."""
    wanted = 2 if rubric.mode == "pairwise" else 1
    if len(item.responses) != wanted:
        yield (
            f"has {len(item.responses)} responses; rubric {rubric.name}@{rubric.version} is "
            f"{rubric.mode} and judges {wanted}"
        )
    if rubric.mode == "pairwise":
        if item.label not in WINNERS:
            yield f"label {item.label!r} is none of: {', '.join(WINNERS)}"
    else:
        yield from _grade_mistakes(item, rubric)
    built_in = {*SHARED_VARIABLES, *OWN_VARIABLES[rubric.mode]}
    missing = [name for name in rubric.variables if name not in built_in | set(item.variables)]
    if missing:
        yield f"variables lacks {', '.join(missing)}, which the rubric names"


def _grade_mistakes(item: GoldItem, rubric: Rubric) -> Iterator[str]:
    known = {criterion.name for criterion in rubric.criteria}
    for name in sorted(set(item.labels) - known):
        yield f"labels has {name!r}, which is no criterion; valid: {', '.join(sorted(known))}"
    for criterion in rubric.criteria:
        alone = item.label if len(rubric.criteria) == 1 else None
        label = item.labels.get(criterion.name, alone)
        offered = [grade.label for grade in criterion.grades]
        if label is None:
            where = "label" if len(rubric.criteria) == 1 else f"labels.{criterion.name}"
            yield f"{where} is missing; one of: {', '.join(offered)}"
        elif label not in offered:
            yield f"label {label!r} is no grade of {criterion.name}: {', '.join(offered)}"


def gold_hash(items: Sequence[GoldItem]) -> str:
    """sha256 over the items, whatever their order."""
    lines = sorted(
        json.dumps(item.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        for item in items
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def to_task(item: GoldItem, workload: str) -> JudgeTask:
    """The item as the judge is asked it. Its ids name no interaction of the lake."""
    name = f"gold:{item.item_id}"
    is_pair = len(item.responses) == 2
    return JudgeTask(
        task_id=name,
        workload=workload,
        messages=item.messages,
        responses=item.responses,
        reference=item.reference,
        interaction_id=None if is_pair else name,
        pair_ids=(f"{name}:A", f"{name}:B") if is_pair else None,
        variables=item.variables,
        inclusion_prob=None,
        subject_key=None,
    )
