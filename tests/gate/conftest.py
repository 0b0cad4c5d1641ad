"""Suites, reports and workloads small enough to work out by hand."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from flywheel.gate.suite import Suite
from flywheel.records import EvalReport, EvaluationItem, JsonObject, Message, SuiteItem
from flywheel.workload import Workload

WORKLOAD = """
name: triage
alias: triage
base_model: base
labels: {name: urgency}
graders:
  correct:
    type: string_check
    operation: eq
    input: "{{sample.output_json.urgency}}"
    reference: "{{item.reference.urgency}}"
  valid_json:
    type: x-json_schema
    schema: {type: object, required: [urgency]}
gate:
  suite: holdout.jsonl
  target: {name: accuracy, grader: correct}
  guardrails:
    - {name: valid_json, grader: valid_json, margin: 0.1}
    - {name: emergency_recall, grader: correct, where: {urgency: emergency}, margin: 0.3}
  resamples: 400
  sampling: {concurrency: 4}
"""
URGENCIES = ("emergency", "urgent", "routine")
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)

MakeReport = Callable[..., EvalReport]


def make_item(number: int, **fields: object) -> SuiteItem:
    urgency = URGENCIES[number % 3]
    values: JsonObject = {
        "item_id": f"i{number:03d}",
        "messages": [Message(role="user", content=f"complaint {number}").model_dump()],
        "reference": {"urgency": urgency},
    }
    return SuiteItem.model_validate({**values, **fields})


def make_suite(count: int, *, cluster_size: int = 1, never_again: Sequence[int] = ()) -> Suite:
    """Items whose urgency goes round; clusters of consecutive items."""
    items = [
        make_item(n, cluster_id=f"c{n // cluster_size:03d}", never_again=n in never_again)
        for n in range(count)
    ]
    return Suite.of("holdout", items)


def make_report(
    suite: Suite,
    role: Literal["candidate", "champion"],
    scores: Sequence[float | None],
    *,
    model: str | None = None,
    grader: str = "correct",
) -> EvalReport:
    """A report with these scores of one grader, in the order of the suite's items."""
    name = model or {"candidate": "triage-new", "champion": "triage-old"}[role]
    return EvalReport(
        evaluation_id=f"evaluation-{role}",
        workload="triage",
        model=name,
        role=role,
        suite=suite.name,
        suite_hash=suite.suite_hash,
        items=tuple(
            EvaluationItem(
                evaluation_id=f"evaluation-{role}",
                workload="triage",
                created_at=NOON,
                suite=suite.name,
                suite_hash=suite.suite_hash,
                item_id=item.item_id,
                cluster_id=item.cluster_id or item.item_id,
                model=name,
                role=role,
                output="…" if score is not None else None,
                scores={grader: score},
                error_type=None if score is not None else "UpstreamUnavailableError",
            )
            for item, score in zip(suite.items, scores, strict=True)
        ),
    )


def write_suite(path: Path, suite: Suite) -> Path:
    lines = [json.dumps(item.model_dump(mode="json")) for item in suite.items]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def suite() -> Suite:
    """30 items, ten of each urgency, two a cluster; the first two must never be wrong again."""
    return make_suite(30, cluster_size=2, never_again=(0, 1))


@pytest.fixture
def workload_file(tmp_path: Path, suite: Suite) -> Path:
    write_suite(tmp_path / "holdout.jsonl", suite)
    path = tmp_path / "flywheel.yaml"
    path.write_text(WORKLOAD, encoding="utf-8")
    return path


@pytest.fixture
def workload(workload_file: Path) -> Workload:
    return Workload.load(workload_file)
