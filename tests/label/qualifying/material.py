"""Judges, gold items and a workload small enough to work out by hand."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from flywheel.graders.judge import Judge, build_judges, parse_rubric
from flywheel.judges import JudgeSection
from flywheel.label.qualifying import GoldItem, GoldVerdict
from flywheel.workload import Workload

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "triage" / "flywheel.yaml"
RUBRICS = EXAMPLE.parent / "rubrics"
GOLD = EXAMPLE.parent / "gold"

PAIRWISE = (RUBRICS / "better_answer.md").read_text(encoding="utf-8")
TWO_CRITERIA = (RUBRICS / "safe_advice.md").read_text(encoding="utf-8")
SCALE = """\
---
name: helpful
version: 1
criteria:
  - name: score
    question: How helpful is it?
    grades:
      - {label: "1", value: 1}
      - {label: "2", value: 2}
      - {label: "3", value: 3}
      - {label: cannot_judge}
---
Judge: {{response}}
"""


def make_judge(text: str = PAIRWISE, *, name: str = "better", **section: object) -> Judge:
    """A judge of a rubric; no workload has to declare it."""
    rubric = parse_rubric(text, source="rubric.md")
    fields: dict[str, object] = {
        "rubric": "rubric.md",
        "mode": rubric.mode,
        "panel": [{"provider": "hosted", "model": "gpt-4"}],
        **section,
    }
    return Judge(name, JudgeSection.model_validate(fields), rubric)


def pair(number: int, label: str, *, longer: str = "A", **fields: object) -> GoldItem:
    """A pair whose longer answer is the one named."""
    texts = ["a longer answer", "short"] if longer == "A" else ["short", "a longer answer"]
    values = {"item_id": f"g{number}", "messages": "?", "responses": texts, "label": label}
    return GoldItem.model_validate({**values, **fields})


def said(item: GoldItem, label: str, *, orders: tuple[str, str] | None = None) -> GoldVerdict:
    """A pairwise verdict of judge `better`."""
    return GoldVerdict(item=item, labels={"better": label}, orders=orders or (label, label))


def failed(item: GoldItem) -> GoldVerdict:
    return GoldVerdict(item=item, labels={}, error_type="judge_garbage")


def pairs(labels: str, verdicts: str) -> list[GoldVerdict]:
    """Verdicts from letters, `A`, `B`, `t`ie, `x` for a failure: gold first, the judge below it.

    The longer answer is A in every other pair, so that length tells nothing.
    """
    names = {"A": "A", "B": "B", "t": "tie"}
    found = []
    for number, (gold, verdict) in enumerate(zip(labels, verdicts, strict=True)):
        item = pair(number, names[gold], longer="AB"[number // 2 % 2])
        found.append(failed(item) if verdict == "x" else said(item, names[verdict]))
    return found


def write_workload(folder: Path, url: str = "http://127.0.0.1:9/v1", **changes: object) -> Workload:
    """The example with two judges behind one provider; `changes` go into both judges."""
    data = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    seat = {"provider": "hosted", "model": "gpt-4"}
    data["gate"]["suite"] = str(EXAMPLE.parent / "holdout.jsonl")
    data["gateway"] = {"providers": {"hosted": {"base_url": url}}}
    data["judges"] = {
        "better": {
            "rubric": str(RUBRICS / "better_answer.md"),
            "mode": "pairwise",
            "panel": [seat],
            **changes,
        },
        "good": {"rubric": str(RUBRICS / "safe_advice.md"), "panel": [seat], **changes},
    }
    path = folder / "flywheel.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return Workload.load(path)


def judge_of(workload: Workload, name: str = "better") -> Judge:
    return build_judges(workload)[name]


def gold_answers(items: Sequence[GoldItem]) -> dict[tuple[str, tuple[str, ...]], str]:
    """What a judge that knows the gold says, by the last message and the answers as shown."""
    swapped = {"A": "B", "B": "A"}
    answers = {}
    for item in items:
        texts = tuple(response.text for response in item.responses)
        grades = " ".join(f"{name}={label}" for name, label in item.labels.items())
        answers[item.messages[-1].text, texts] = item.label or grades
        if len(texts) == 2 and item.label:
            answers[item.messages[-1].text, texts[::-1]] = swapped.get(item.label, item.label)
    return answers
