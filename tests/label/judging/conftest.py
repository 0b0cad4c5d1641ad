"""A judge, what it judges, and an endpoint one would rather not have, all of them real."""

import asyncio
import json
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks.judge_endpoint import JudgeEndpoint, Temper
from flywheel.graders.judge import Judge, build_judges
from flywheel.label.judging import (
    JudgeDesk,
    JudgeRunReport,
    Selection,
    judge_captured,
    opened_models,
)
from flywheel.lake import Lake
from flywheel.prices import Price, PriceTable
from flywheel.records import Message, Qualification
from flywheel.testing import make_interaction
from flywheel.workload import Workload

GRADES = ["bad", "fair", "good"]
RUBRIC = """---
name: helpful
version: 1
mode: pointwise
criteria:
  - name: helpful
    question: Does the answer help?
    grades:
      - {label: bad, value: 0}
      - {label: fair, value: 0.5}
      - {label: good, value: 1}
---
The question:

{{question}}

The answer:

{{response}}
"""
PAIR_RUBRIC = """---
name: better
version: 1
mode: pairwise
criteria:
  - name: better
    question: Which answer is better?
    grades:
      - {label: A}
      - {label: B}
      - {label: tie}
      - {label: both_bad}
      - {label: cannot_judge}
---
{{question}}

{{response_a}}

{{response_b}}
"""
WORKLOAD = """
name: triage
alias: triage
base_model: base
labels: {{name: helpful}}
graders: {{correct: {{type: string_check, operation: eq, input: "a", reference: "a"}}}}
gate: {{suite: holdout.jsonl, target: {{grader: correct}}}}
gateway:
  providers: {{judges: {{base_url: "{url}/v1"}}}}
judges:
  helpful:
    rubric: helpful.md
    panel: {panel}
    max_tokens: 64
    run: {run}
  better:
    rubric: better.md
    mode: pairwise
    panel: [{{provider: judges, model: judge-1}}]
    max_tokens: 64
    run: {run}
"""
PRICES = PriceTable({"judge-*": Price(input=1.0, output=2.0)})


@dataclass(frozen=True)
class Server:
    """An endpoint that listens."""

    url: str

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/stats") as reply:
            counts: dict[str, Any] = json.load(reply)
        return counts


@contextmanager
def endpoint(port: int = 0, **temper: Any) -> Iterator[Server]:
    """The endpoint with these vices, in a thread of its own; see `benchmarks.judge_endpoint`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    served = JudgeEndpoint(Temper(**temper))
    try:
        port = asyncio.run_coroutine_threadsafe(served.serve(port), loop).result(30)
        yield Server(f"http://127.0.0.1:{port}")
    finally:
        asyncio.run_coroutine_threadsafe(served.close(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts endpoints; they end with the test."""
    with ExitStack() as stack:
        yield lambda **temper: stack.enter_context(endpoint(**temper))


@dataclass(frozen=True)
class Office:
    """A lake with answers, and judges for them."""

    folder: Path
    lake: Lake

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def cache_dir(self) -> Path:
        return self.home / "judge-cache"

    @property
    def workload_file(self) -> Path:
        return self.folder / "flywheel.yaml"

    def declare(
        self, server: Server, *, run: Mapping[str, object] | None = None, models: int = 1
    ) -> Workload:
        panel = [{"provider": "judges", "model": f"judge-{n + 1}"} for n in range(models)]
        text = WORKLOAD.format(
            url=server.url, run=json.dumps(dict(run or {})), panel=json.dumps(panel)
        )
        (self.folder / "helpful.md").write_text(RUBRIC, encoding="utf-8")
        (self.folder / "better.md").write_text(PAIR_RUBRIC, encoding="utf-8")
        self.workload_file.write_text(text, encoding="utf-8")
        return Workload.load(self.workload_file)

    @asynccontextmanager
    async def desk(self, workload: Workload, judge: str = "helpful") -> AsyncIterator[JudgeDesk]:
        seated = build_judges(workload)[judge]
        # Labels count only of a judge that was qualified when it judged.
        self.lake.append([qualified(seated)])
        async with opened_models(workload) as models:
            yield JudgeDesk(
                lake=self.lake,
                workload=workload,
                judge=seated,
                models=models,
                folder=self.cache_dir,
                prices=PRICES,
            )

    async def judge(
        self, workload: Workload, judge: str = "helpful", **selection: Any
    ) -> JudgeRunReport:
        """One run of a judge that has qualified."""
        async with self.desk(workload, judge) as desk:
            return await judge_captured(desk, Selection(**selection), permission=allowed)

    def answers(self, count: int, *, first: int = 0, model: str = "base") -> None:
        """Answers `item-<n>`, whose grade `benchmarks.judge_endpoint.grade_of` tells."""
        start = datetime(2026, 1, 1, tzinfo=UTC)
        self.lake.append(
            [
                make_interaction(
                    interaction_id=f"{model}-{number:05}",
                    started_at=start + timedelta(seconds=number),
                    messages=(Message(role="user", content=f"question {number}"),),
                    response=Message(role="assistant", content=f"item-{number:05} by {model}"),
                    response_model=model,
                )
                for number in range(first, first + count)
            ]
        )

    def sql(self, query: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.lake.query(query).to_pylist()
        return rows


@pytest.fixture
def office(tmp_path: Path) -> Office:
    (tmp_path / "home").mkdir()
    return Office(tmp_path, Lake(str(tmp_path / "home" / "lake")))


def allowed(*_: object, **__: object) -> None:
    """Every judge has qualified."""


def qualified(judge: Judge, *, days: int = 30) -> Qualification:
    """A qualification that holds for so many days; a negative number has expired."""
    now = datetime.now(UTC)
    return Qualification(
        qualification_id=f"q-{judge.identity}-{days}",
        workload="triage",
        created_at=now - timedelta(days=60 if days < 0 else 1),
        expires_at=now + timedelta(days=days),
        judge=judge.name,
        judge_hash=judge.identity,
        judge_model=" + ".join(seat.model for seat in judge.section.panel),
        rubric=judge.rubric.reference_name,
        gold_hash="gold",
        items=100,
        errors=0,
        measures=(),
        qualified=True,
        reasons=(),
    )
