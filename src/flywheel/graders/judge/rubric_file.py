"""A rubric's Markdown file -> Rubric, or every mistake with its line."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, get_args

import yaml
from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails

from flywheel.errors import ConfigError
from flywheel.graders.judge.rubric import (
    NAME,
    OWN_VARIABLES,
    PAIRWISE_VALUES,
    SHARED_VARIABLES,
    Criterion,
    Grade,
    Mode,
    Rubric,
    Winner,
)
from flywheel.records import Finite, Record
from flywheel.section import line_of

_FENCE = "---"
_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_VARIABLE = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_WINNERS: tuple[Winner, ...] = get_args(Winner)
_WINNER_MEANINGS: dict[Winner, str] = {
    "A": "Answer A is better.",
    "B": "Answer B is better.",
    "tie": "Both are acceptable, and neither is better.",
    "both_bad": "Neither is acceptable.",
    "cannot_judge": "What is shown does not suffice to tell.",
}


def _null(value: object) -> object:
    return None if value in ("null", "~", "") else value


class _GradeDraft(Record):
    label: Annotated[str, Field(min_length=1, max_length=60)]
    value: Annotated[Finite | None, BeforeValidator(_null)] = None
    meaning: str = ""


class _CriterionDraft(Record):
    name: Annotated[str, Field(pattern=NAME)]
    question: Annotated[str, Field(min_length=1)]
    grades: tuple[_GradeDraft, ...] = ()


class _FrontMatter(Record):
    name: Annotated[str, Field(pattern=NAME)]
    version: Annotated[int, Field(ge=1)]
    mode: Mode = "pointwise"
    variables: tuple[str, ...] = ()
    criteria: Annotated[tuple[_CriterionDraft, ...], Field(min_length=1)]


def load_rubric(path: Path) -> Rubric:
    """Reads a rubric.

    Raises:
        ConfigError: with every mistake, each with its line, and what would be valid.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            str(path), [f"cannot be read: {error}. docs/judges.md shows one"]
        ) from error
    return parse_rubric(text, source=str(path))


def parse_rubric(text: str, *, source: str) -> Rubric:
    """Reads a rubric's text; see `load_rubric`."""
    head, body, body_line = _split(text, source)
    try:
        # Every scalar as it is written: a grade `yes` or `10` is a word, not True or a number.
        root = yaml.compose(head, Loader=yaml.BaseLoader)
        data = yaml.load(head, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ConfigError(source, [f"not YAML: {' '.join(str(error).split())}"]) from error
    problems = list(_repeated_keys(root))
    draft: _FrontMatter | None = None
    try:
        draft = _FrontMatter.model_validate(data)
    except ValidationError as error:
        problems += [_sentence(problem, root) for problem in error.errors()]
    mode, extra = _stated(data)
    problems += _body_problems(body, body_line, mode, extra)
    if draft is not None:
        problems += _criteria_problems(draft, root)
    if problems or draft is None:
        raise ConfigError(source, problems)
    return Rubric(
        name=draft.name,
        version=draft.version,
        mode=draft.mode,
        criteria=tuple(_criterion(criterion, draft.mode) for criterion in draft.criteria),
        variables=tuple(dict.fromkeys(name for name, _ in _named(body))),
        text=body.strip(),
    )


def _split(text: str, source: str) -> tuple[str, str, int]:
    """Front matter (blank first line, so that lines count as in the file), body, its first line."""
    lines = text.splitlines()
    ends = [index for index, line in enumerate(lines) if line.rstrip() == _FENCE]
    if len(ends) < 2 or ends[0] != 0:
        raise ConfigError(
            source,
            ["line 1: a rubric starts with front matter between two lines of ---; docs/judges.md"],
        )
    end = ends[1]
    return "\n".join(["", *lines[1:end]]), "\n".join(lines[end + 1 :]), end + 2


def _stated(data: object) -> tuple[Mode, tuple[str, ...]]:
    """Mode and variables as far as they can be read, so that the body is checked whatever else."""
    fields = data if isinstance(data, dict) else {}
    names = fields.get("variables")
    extra = (
        tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()
    )
    return ("pairwise" if fields.get("mode") == "pairwise" else "pointwise"), extra


def _named(body: str) -> Iterator[tuple[str, int]]:
    """Every variable of the body with its 0-based line there."""
    for match in _BRACES.finditer(body):
        yield match[1].strip(), body.count("\n", 0, match.start())


def _body_problems(body: str, first_line: int, mode: Mode, extra: tuple[str, ...]) -> list[str]:
    valid = (*OWN_VARIABLES[mode], *SHARED_VARIABLES, *extra)
    problems = []
    for name in extra:
        if not _VARIABLE.fullmatch(name) or name in (*OWN_VARIABLES[mode], *SHARED_VARIABLES):
            problems.append(
                f"variables: {name!r} must be a word in lower case that is not one of "
                f"{', '.join((*OWN_VARIABLES[mode], *SHARED_VARIABLES))}, which are always there"
            )
    used = list(_named(body))
    for name, line in used:
        if name not in valid:
            close = difflib.get_close_matches(name, valid, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            problems.append(
                f"line {first_line + line}: unknown variable {{{{{name}}}}}; {hint}valid for "
                f"{mode}: {', '.join(valid)}. Others are declared under variables"
            )
    names = {name for name, _ in used}
    needed = [name for name in (*OWN_VARIABLES[mode], *extra) if name not in names]
    problems += [
        f"line {first_line}: the text never names {{{{{name}}}}}: the judge would not see it"
        for name in needed
    ]
    rest = _BRACES.sub(lambda match: "\n" * match[0].count("\n"), body)
    if "{{" in rest:
        line = first_line + rest.count("\n", 0, rest.index("{{"))
        problems.append(f"line {line}: '{{{{' is never closed with '}}}}'")
    return problems


def _criteria_problems(draft: _FrontMatter, root: yaml.Node | None) -> list[str]:
    problems = []
    seen: set[str] = set()
    for index, criterion in enumerate(draft.criteria):
        line = line_of(root, ("criteria", index))
        where = f"line {line}: criteria.{criterion.name}"
        if criterion.name in seen:
            problems.append(f"{where}: this name is taken by an earlier criterion")
        seen.add(criterion.name)
        if "{{" in criterion.question + "".join(grade.meaning for grade in criterion.grades):
            problems.append(f"{where}: variables belong into the text below the front matter")
        check = _pairwise_problems if draft.mode == "pairwise" else _pointwise_problems
        problems += [f"{where}: {problem}" for problem in check(criterion)]
    return problems


def _pointwise_problems(criterion: _CriterionDraft) -> Iterator[str]:
    labels = [grade.label.casefold() for grade in criterion.grades]
    if len(labels) < 2:
        yield "at least two grades are needed: {label, value, meaning}"
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        yield f"two grades have the label {label!r}"
    if all(grade.value is None for grade in criterion.grades) and criterion.grades:
        yield "no grade has a value: value is the number it counts as"


def _pairwise_problems(criterion: _CriterionDraft) -> Iterator[str]:
    labels = [grade.label for grade in criterion.grades]
    for label in labels:
        if label not in _WINNERS:
            yield f"a pairwise grade is one of {', '.join(_WINNERS)}, not {label!r}"
    if len(set(labels)) < len(labels):
        yield "a grade is given twice"
    if labels and not {"A", "B"} <= set(labels):
        yield "both A and B must be among the grades"
    if any(grade.value is not None for grade in criterion.grades):
        yield "a pairwise grade takes no value: A is 1, B 0, tie and both_bad 0.5"


def _criterion(draft: _CriterionDraft, mode: Mode) -> Criterion:
    if mode == "pointwise":
        grades = tuple(Grade(**grade.model_dump()) for grade in draft.grades)
        return Criterion(name=draft.name, question=draft.question, grades=grades)
    meanings = {grade.label: grade.meaning for grade in draft.grades}
    offered = [winner for winner in _WINNERS if not draft.grades or winner in meanings]
    return Criterion(
        name=draft.name,
        question=draft.question,
        grades=tuple(
            Grade(
                label=winner,
                value=PAIRWISE_VALUES[winner],
                meaning=meanings.get(winner) or _WINNER_MEANINGS[winner],
            )
            for winner in offered
        ),
    )


def _repeated_keys(node: yaml.Node | None) -> Iterator[str]:
    """Keys given twice in one mapping: YAML would take the last without a word."""
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield f"line {key.start_mark.line + 1}: {key.value}: is given twice"
            seen.add(str(key.value))
            children.append(value)
    elif isinstance(node, yaml.SequenceNode):
        children = list(node.value)
    for child in children:
        yield from _repeated_keys(child)


def _sentence(problem: ErrorDetails, root: yaml.Node | None) -> str:
    loc = problem["loc"]
    where = ".".join(str(part) for part in loc) or "front matter"
    message = f"{problem['msg']} (found {problem['input']!r:.80})"
    if problem["type"] == "extra_forbidden":
        drafts: dict[int, type[Record]] = {1: _FrontMatter, 3: _CriterionDraft, 5: _GradeDraft}
        message = f"unknown key; valid: {', '.join(drafts[len(loc)].model_fields)}"
    elif problem["type"] == "missing":
        message = "is required and missing"
    return f"line {line_of(root, loc)}: {where}: {message}"
