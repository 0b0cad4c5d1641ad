"""How much of what a judge endpoint allows is used, when it is everything but kind.

The endpoint (`judge_endpoint.py`, a process of its own) takes 30 requests a second from a bucket
that holds ten seconds' worth (providers' hold a minute's), is slow, tells its limits in headers or,
in the second line, only by refusing, answers 3 % of the items with nonsense, and drops dead for
20 s in the middle. 10,000 answers are judged by the whole path: lake, plan, requests, repairs,
cache, budget, rows, ledger.
What may not happen is counted: verdicts invented, completions paid twice, a budget exceeded.

`used` is completions over all that the bucket let through: what it held at first, what came back
while the endpoint was up, and what came back meanwhile for the moment it was up again.

Command: `make bench NAME=judge_throughput`. Output: a table, and
benchmarks/results/judge_throughput.json. It takes about twelve minutes. 30 a second are few:
on two cores that others use as well the `openai` client is the limit soon after (`cpu ms`);
`--rate` asks for more.
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.judge_endpoint import grade_of
from flywheel.graders.judge import build_judges
from flywheel.label.judging import JudgeDesk, JudgeRunReport, judge_captured, opened_models
from flywheel.lake import Lake
from flywheel.prices import Price, PriceTable
from flywheel.records import Message
from flywheel.testing import make_interaction
from flywheel.workload import Workload

RESULTS = Path(__file__).parent / "results" / "judge_throughput.json"
COUNT, RATE, BURST_S = 10_000, 30.0, 10.0
LATENCY_S, GARBAGE, DEAD_S = 0.3, 0.03, 20.0
BUDGET_USD = 20.0
GRADES = ["bad", "fair", "good"]
RUBRIC = """---
name: helpful
version: 1
mode: pointwise
criteria:
  - name: helpful
    question: Does the answer help?
    grades: [{label: bad, value: 0}, {label: fair, value: 0.5}, {label: good, value: 1}]
---
{{question}}

{{response}}
"""
WORKLOAD = """
name: triage
alias: triage
base_model: base
labels: {{name: helpful}}
graders: {{correct: {{type: string_check, operation: eq, input: "a", reference: "a"}}}}
gate: {{suite: holdout.jsonl, target: {{grader: correct}}}}
gateway: {{providers: {{judges: {{base_url: "{url}/v1"}}}}}}
judges:
  helpful:
    rubric: helpful.md
    panel: [{{provider: judges, model: judge}}]
    max_tokens: 64
    run: {{max_concurrency: 128, budget_usd: {budget}}}
"""


@dataclass(frozen=True)
class Line:
    """One line of the result."""

    endpoint: str
    judged: int
    failed: int
    invented: int
    """Verdicts that the endpoint never gave."""
    paid_twice: int
    completions: int
    refused: int
    cost_usd: float
    budget_usd: float
    seconds: float
    dead_s: float
    used: float
    """Share of what the endpoint let through while it was up."""
    cpu_ms: float
    """Processor time of this process for each judgement."""


@contextmanager
def endpoint(count: int, rate: float, *, has_headers: bool) -> Iterator[str]:
    """The endpoint's URL."""
    command = [sys.executable, "-m", "benchmarks.judge_endpoint", f"--rate={rate}"]
    command += [f"--burst={rate * BURST_S}", f"--latency-s={LATENCY_S}", f"--garbage={GARBAGE}"]
    command += [f"--dies-after={count // 2}", f"--dead-s={DEAD_S}"]
    command += [] if has_headers else ["--no-headers"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def fill(lake: Lake, count: int) -> None:
    """Answers that name their item, from which the endpoint's grade can be told."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    lake.append(
        [
            make_interaction(
                interaction_id=f"item-{number:06}",
                started_at=start + timedelta(seconds=number),
                messages=(Message(role="user", content="Since this morning my knee hurts."),),
                response=Message(role="assistant", content=f"item-{number:06}: rest it."),
            )
            for number in range(count)
        ]
    )


async def judge(folder: Path, lake: Lake, url: str) -> JudgeRunReport:
    """The run itself."""
    (folder / "helpful.md").write_text(RUBRIC, encoding="utf-8")
    file = folder / "flywheel.yaml"
    file.write_text(WORKLOAD.format(url=url, budget=BUDGET_USD), encoding="utf-8")
    workload = Workload.load(file)
    async with opened_models(workload) as models:
        desk = JudgeDesk(
            lake=lake,
            workload=workload,
            judge=build_judges(workload)["helpful"],
            models=models,
            folder=folder / "judge-cache",
            prices=PriceTable({"judge": Price(input=1.0, output=2.0)}),
        )
        return await judge_captured(desk, permission=lambda *_, **__: None)


def invented(lake: Lake) -> int:
    """Verdicts that are not the endpoint's; of all there are, for this judge never qualified."""
    rows = lake.query("select interaction_id, label from submissions where name = 'helpful'")
    return sum(row["label"] != grade_of(row["interaction_id"], GRADES) for row in rows.to_pylist())


def measure(count: int, *, has_headers: bool, rate: float = RATE) -> Line:
    """One run against one endpoint."""
    with (
        tempfile.TemporaryDirectory() as name,
        endpoint(count, rate, has_headers=has_headers) as url,
    ):
        folder = Path(name)
        lake = Lake(str(folder / "lake"))
        fill(lake, count)
        cpu, started = _cpu_s(), time.monotonic()
        report = asyncio.run(judge(folder, lake, url))
        seconds, cpu = time.monotonic() - started, _cpu_s() - cpu
        with urllib.request.urlopen(f"{url}/stats") as reply:
            stats: dict[str, Any] = json.load(reply)
        bucket, up_s = rate * BURST_S, stats["elapsed_s"] - stats["dead_s"]
        allowed = bucket + rate * up_s + min(bucket, rate * stats["dead_s"])
        return Line(
            endpoint="limits in headers" if has_headers else "limits by refusal",
            judged=report.judged,
            failed=report.failed,
            invented=invented(lake),
            paid_twice=stats["paid_twice"],
            completions=stats["completions"],
            refused=stats["refused"],
            cost_usd=report.cost_usd or float("nan"),
            budget_usd=BUDGET_USD,
            seconds=seconds,
            dead_s=stats["dead_s"],
            used=stats["completions"] / allowed,
            cpu_ms=1000 * cpu / count,
        )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measures both and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--rate", type=float, default=RATE)
    options = parser.parse_args()
    count, rate = options.count, options.rate
    lines = [measure(count, has_headers=headers, rate=rate) for headers in (True, False)]
    table = Table(title=f"{count} judgements, {rate:g} a second allowed", title_justify="left")
    columns = ("failed", "invented", "paid_twice", "refused", "seconds", "dead_s", "cpu_ms", "used")
    table.add_column("endpoint")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for line in lines:
        cells = [getattr(line, column) for column in columns[:-1]]
        told = [f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells]
        table.add_row(line.endpoint, *told, f"{line.used:.1%}")
    console = Console(width=110)
    console.print(table)
    if (count, rate) == (COUNT, RATE):
        facts = {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "rate": rate,
            "burst_s": BURST_S,
        }
        RESULTS.parent.mkdir(exist_ok=True)
        rows = [asdict(line) for line in lines]
        RESULTS.write_text(json.dumps({**facts, "rows": rows}, indent=2) + "\n", encoding="utf-8")
        console.print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
