"""Gold labels out of the lake: what people adjudicated, as items a judge can be measured by.

Input: the views `labels` and `verdicts`. Only round `adjudication` counts: a majority of experts is
what the judge is to stand in for, not what it is measured against.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.resources import files

from flywheel.errors import JudgeError
from flywheel.graders.judge import Criterion, Judge
from flywheel.judge_rules import model_families
from flywheel.label.qualifying.gold import GoldItem, mistakes_of
from flywheel.lake import Lake
from flywheel.records import JsonObject, Message, Record
from flywheel.workload import Workload


class AdjudicatedGold(Record):
    """Gold items of the lake, and what could not become one."""

    items: tuple[GoldItem, ...]
    left_out: dict[str, int]
    """Adjudicated labels that the rubric cannot be measured by, by reason."""


def adjudicated_gold(lake: Lake, workload: Workload, judge: Judge) -> AdjudicatedGold:
    """The adjudicated labels of the judge's question, with the answers they are about.

    The question is the judge's name; `<judge>.<criterion>` where its rubric has several criteria.

    Raises:
        JudgeError: there is none, or none that the rubric's grades can express.
    """
    is_pairwise = judge.rubric.mode == "pairwise"
    found = list((_pairs if is_pairwise else _answers)(lake, workload, judge))
    items: list[GoldItem] = []
    left_out: Counter[str] = Counter()
    for item in found:
        mistakes = list(mistakes_of(item, judge.rubric))
        if mistakes:
            left_out[mistakes[0]] += 1
        else:
            items.append(item)
    if not items:
        why = "; ".join(f"{count} x {reason}" for reason, count in left_out.items())
        raise JudgeError(
            f"the lake has no adjudicated label named {' or '.join(_questions(judge))} of "
            f"{workload.name} that judge {judge.name!r} can be measured by"
            f"{': ' + why if why else ''}. They come by `flywheel label import` with round "
            "`adjudication`; or give --gold gold.jsonl."
        )
    return AdjudicatedGold(items=tuple(items), left_out=dict(left_out))


def _questions(judge: Judge) -> list[str]:
    criteria = judge.rubric.criteria
    if judge.rubric.mode == "pairwise" or len(criteria) == 1:
        return [judge.name]
    return [f"{judge.name}.{criterion.name}" for criterion in criteria]


def _pairs(lake: Lake, workload: Workload, judge: Judge) -> Iterator[GoldItem]:
    for row in _rows(lake, "adjudicated_pairs.sql", [workload.name, judge.name]):
        label = str(row["label"] or "")
        yield GoldItem(
            item_id=str(row["item"]),
            cluster_id=str(row["conversation_id"]),
            messages=_messages(row["messages"]),
            responses=(_message(row["response_a"]), _message(row["response_b"])),
            label=(label.upper() if label.lower() in ("a", "b") else label) or None,
            families=(
                _families(workload, row["model_a"], row["adapter_a"]),
                _families(workload, row["model_b"], row["adapter_b"]),
            ),
        )


def _answers(lake: Lake, workload: Workload, judge: Judge) -> Iterator[GoldItem]:
    """One item an answer: its labels are rows that lie together, one for each criterion."""
    questions = dict(zip(_questions(judge), judge.rubric.criteria, strict=True))
    rows = _rows(lake, "adjudicated_answers.sql", [workload.name, list(questions)])
    by_answer: dict[str, list[JsonObject]] = {}
    for row in rows:
        by_answer.setdefault(str(row["interaction_id"]), []).append(row)
    for interaction_id, said in by_answer.items():
        labels = {
            questions[str(row["name"])].name: label
            for row in said
            if (label := _grade(questions[str(row["name"])], row)) is not None
        }
        yield GoldItem(
            item_id=interaction_id,
            cluster_id=str(said[0]["conversation_id"]),
            messages=_messages(said[0]["messages"]),
            responses=(_message(said[0]["response"]),),
            labels=labels,
            families=(_families(workload, said[0]["response_model"], said[0]["adapter"]),),
        )


def _grade(criterion: Criterion, row: JsonObject) -> str | None:
    """The label as it was given, or the grade that is worth the value given."""
    if row["label"]:
        return str(row["label"])
    worth = [grade.label for grade in criterion.grades if grade.value == row["value"]]
    return worth[0] if row["value"] is not None and worth else None


def _families(workload: Workload, model: object, adapter: object) -> tuple[str, ...]:
    """An adapter's answer is its base model's kin."""
    if adapter is not None or model in (workload.alias, workload.base_model):
        return tuple(sorted(model_families(workload.base_model)))
    return tuple(sorted(model_families(str(model or ""))))


def _rows(lake: Lake, name: str, params: list[object]) -> Iterable[JsonObject]:
    sql = (files("flywheel.label.qualifying") / name).read_text(encoding="utf-8")
    rows: list[JsonObject] = lake.query(sql, params).to_pylist()
    return rows


def _messages(text: object) -> tuple[Message, ...]:
    return tuple(Message.model_validate(message) for message in json.loads(str(text)))


def _message(text: object) -> Message:
    return Message.model_validate_json(str(text))
