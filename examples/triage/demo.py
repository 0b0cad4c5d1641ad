"""Three days in production and three nights of learning, on a real language model.

Input: a folder. Output: <home>/result.json, <home>/learning-curve.png, a lake, an MLflow store and
a Prefect database that `make up` opens again. Command: `flywheel demo`, or `make demo`.

Nothing here is simulated but the people: messages come from the generator, clinicians from its
truth with a small rate of mistakes. Engine, gateway, lake, training, gate and promotion are the
real ones, and this script reaches them as users do: over HTTP, and by the `flywheel` command.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.table import Table

from flywheel.cli.common import console
from flywheel.cli.demo import (
    BaseScores,
    DemoResult,
    NightScores,
    QueryAnswer,
    Requests,
    print_promises,
)
from flywheel.cli.stack import Server, Stack
from flywheel.errors import ConfigError, FlywheelError
from flywheel.lake import Lake
from flywheel.records import Adapter, Comparison, Decision, Release, Snapshot
from flywheel.settings import Settings
from flywheel.workload import Workload
from flywheel_examples.triage.clinicians import Clinician, PoisonedClinician
from flywheel_examples.triage.messages import PatientMessage, production_messages
from flywheel_examples.triage.picture import draw
from flywheel_examples.triage.queries import QUERIES
from flywheel_examples.triage.traffic import Application, Rater, Served, Tally, review

WORKLOAD = Path(__file__).with_name("flywheel.yaml")
MARK = ".flywheel-demo"
CALLS_A_DAY = 120
LABELS_A_DAY = 108
MISTAKE_RATE = 0.03
"""Share of labels in which an honest clinician errs by one class."""


class Demo:
    """The running demo: what is up, what was counted, where the time went."""

    def __init__(self, home: Path, seed: int) -> None:
        self.home, self.seed = home, seed
        self.workload = Workload.load(WORKLOAD)
        self.stack = Stack(Settings.load(home=home), [WORKLOAD])
        self.settings = self.stack.settings
        self.lake = Lake.open(self.settings)
        self.tally = Tally()
        self.phases: dict[str, float] = {}
        self._messages = iter(production_messages(seed, 10 * CALLS_A_DAY))
        self.honest = [
            Clinician(name, seed=seed + index, mistake_rate=MISTAKE_RATE)
            for index, name in enumerate(("dr-adeyemi", "nurse-bakker", "dr-chen"))
        ]

    def take(self, count: int) -> list[PatientMessage]:
        """The next messages of production; none comes twice."""
        return [next(self._messages) for _ in range(count)]

    @contextmanager
    def phase(self, name: str, title: str) -> Iterator[None]:
        """A titled part of the demo, timed."""
        console.print(Rule(f"[bold]{title}", align="left"))
        started = time.monotonic()
        yield
        self.phases[name] = round(time.monotonic() - started, 1)
        console.print(f"[dim]{self.phases[name]:.0f} s[/]")

    def start(self) -> None:
        """Engine, gateway, MLflow and Prefect, on free loopback ports."""

        def told(server: Server, seconds: float) -> None:
            console.print(f"  {server.name:<8} {server.url}  [dim]{seconds:.0f} s[/]")

        self.stack.start(told)

    async def day(self, raters: Sequence[Rater]) -> None:
        """Production traffic, and clinicians who look at some of the answers."""
        application = Application(self.settings.gateway_url, self.workload.alias, self.tally)
        with counting("patients' messages", CALLS_A_DAY) as tick:
            served = await application.ask_all(self.take(CALLS_A_DAY), on_answer=tick)
        await application.close()
        for answer in served[:2]:
            console.print(f"  [dim]patient:[/] {answer.message.text}")
            console.print(f"  [dim]answer :[/] {answer.text.strip()[:100]!r}")
        right = sum(answer.urgency == answer.message.urgency for answer in served)
        console.print(
            f"  {len(served)} answered by {_who(served)}, {right} of them right; "
            f"{self.tally.sent} requests so far, {len(self.tally.failures)} failed"
        )
        seen = served[:LABELS_A_DAY]
        approved, corrected = await review(seen, raters, self.settings.gateway_url)
        names = ", ".join(rater.name for rater in raters)
        console.print(f"  {names}: {approved} answers approved, {corrected} corrected")

    def night(self) -> None:
        """The nightly flow, by the command a scheduler would call."""
        run_cli(
            self.stack.environment,
            *("run", "nightly", "--workload", str(WORKLOAD), "--home", str(self.home)),
        )

    @asynccontextmanager
    async def traffic(self) -> AsyncIterator[None]:
        """Requests that keep flowing, four at a time, while something else happens."""
        stop = asyncio.Event()

        async def client() -> None:
            application = Application(self.settings.gateway_url, self.workload.alias, self.tally)
            stream = False
            while not stop.is_set():
                await application.ask(self.take(1)[0], stream=stream)
                stream = not stream
            await application.close()

        clients = [asyncio.create_task(client()) for _ in range(4)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*clients)

    async def switch(self, verb: Literal["rollback", "roll_forward"], expected: str) -> float:
        """Moves the alias; seconds until every gateway confirmed it. Then asks, to be sure."""
        # What `flywheel rollback` and `flywheel roll-forward` do once Python has started.
        from flywheel.cli.promote import move

        application = Application(self.settings.gateway_url, self.workload.alias, self.tally)
        started = time.monotonic()
        release: Release = await move(verb, self.settings, self.workload, actor="demo")
        seconds = time.monotonic() - started
        answer = await application.ask(self.take(1)[0], stream=False)
        await application.close()
        if answer is None or release.model != expected or (answer.adapter or expected) != expected:
            raise FlywheelError(f"{verb} to {expected} did not take: {answer}")
        console.print(f"  {verb}: {release.previous} → {release.model} in {seconds:.2f} s")
        return seconds


def _who(served: Sequence[Served]) -> str:
    return " and ".join(sorted({answer.adapter or "the base model" for answer in served}))


@contextmanager
def counting(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar; yields what to call for each step."""
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)


def run_cli(environment: dict[str, str], *arguments: str) -> None:
    """Runs `flywheel …` and lets it print.

    Raises:
        FlywheelError: it failed; what it said is above.
    """
    finished = subprocess.run(
        [sys.executable, "-m", "flywheel.cli", *arguments], env=environment, check=False
    )
    if finished.returncode:
        raise FlywheelError(f"`flywheel {' '.join(arguments)}` failed; what it said is above")


async def run(demo: Demo) -> tuple[float, float]:
    """Days, nights, roll-back and roll-forward; returns the seconds of the last two."""
    with demo.phase("start", "starting the servers"):
        demo.start()
    with demo.phase("day 1", "day 1: the base model answers, clinicians correct"):
        await demo.day(demo.honest)
    with demo.phase("night 1", "night 1: learn from the day"):
        demo.night()
    with demo.phase("day 2", "day 2: same client, same model name, the new adapter"):
        await demo.day(demo.honest)
    with demo.phase("night 2", "night 2: learn from both days"):
        demo.night()
    with demo.phase("day 3", "day 3: a poisoned batch, every label systematically wrong"):
        await demo.day([PoisonedClinician("compromised-account")])
    with demo.phase("night 3", "night 3: the gate must refuse"):
        demo.night()
    with demo.phase("roll back", "roll back and forward, with requests flowing"):
        champion = demo.lake.current_release(demo.workload.name)
        if champion is None:
            raise FlywheelError("nothing was promoted, so there is nothing to roll back")
        async with demo.traffic():
            back = await demo.switch("rollback", champion.previous)
            forward = await demo.switch("roll_forward", champion.model)
    return back, forward


def collect(demo: Demo, switches: tuple[float, float], wall: float) -> DemoResult:
    """The result, read back from the lake: what is not there did not happen."""
    lake, name = demo.lake, demo.workload.name
    decisions = lake.fetch(Decision, "select * from decisions order by created_at")
    adapters = {a.name: a for a in lake.fetch(Adapter, "select * from adapters")}
    snapshots = {s.snapshot_id: s for s in lake.fetch(Snapshot, "select * from snapshots")}
    promoted = {release.model for release in lake.releases(name)}
    nights = []
    for number, decision in enumerate(decisions, 1):
        snapshot = snapshots[str(adapters[decision.candidate].snapshot_id)]
        nights.append(
            NightScores(
                **_scores(decision, "candidate"),
                night=number,
                labels=snapshot.labels,
                decision=decision.verdict,
                promoted=decision.candidate in promoted,
                poisoned=number == 3,
                adapter=decision.candidate,
            )
        )
    captured = lake.query("select count(*) from interactions where source = 'gateway'")
    champion = lake.current_release(name)
    return DemoResult(
        workload=name,
        base_model=demo.workload.base_model,
        seed=demo.seed,
        base=BaseScores(**_scores(decisions[0], "champion"), n=_metric(decisions[0], "accuracy").n),
        nights=tuple(nights),
        requests=Requests(
            sent=demo.tally.sent,
            answered=demo.tally.answered,
            failed=len(demo.tally.failures),
            captured=captured[0][0].as_py(),
        ),
        rollback_seconds=round(switches[0], 3),
        roll_forward_seconds=round(switches[1], 3),
        champion=champion.model if champion else demo.workload.base_model,
        queries=tuple(
            QueryAnswer(
                question=question,
                sql=sql.strip(),
                rows=json.loads(json.dumps(lake.query(sql).to_pylist(), default=str)),
            )
            for question, sql in QUERIES
        ),
        wall_seconds=round(wall, 1),
        phase_seconds=demo.phases,
        machine={
            "system": platform.platform(),
            "python": platform.python_version(),
            "cpus": str(len(os.sched_getaffinity(0))),
        },
    )


def _metric(decision: Decision, name: str) -> Comparison:
    return next(found for found in decision.comparisons if found.name == name)


def _scores(decision: Decision, side: str) -> dict[str, float | tuple[float, float]]:
    accuracy = getattr(_metric(decision, "accuracy"), side)
    return {
        "valid": getattr(_metric(decision, "valid_json"), side).mean,
        "accuracy": accuracy.mean,
        "accuracy_ci": (max(0.0, accuracy.low), min(1.0, accuracy.high)),
        "emergency_recall": getattr(_metric(decision, "emergency_recall"), side).mean,
    }


def report(result: DemoResult, home: Path) -> None:
    """The tables a person reads at the end."""
    table = Table(
        *("", "valid JSON", "accuracy", "95 % interval", "emergencies found", "labels", "decision"),
        title=f"{result.base.n} hold-out complaints, none of them in training",
        title_justify="left",
    )
    for score in (result.base, *result.nights):
        night = score if isinstance(score, NightScores) else None
        low, high = score.accuracy_ci
        table.add_row(
            f"night {night.night}{' (poisoned)' if night.poisoned else ''}" if night else "base",
            f"{score.valid:.1%}",
            f"{score.accuracy:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{score.emergency_recall:.1%}",
            str(night.labels) if night else "",
            f"{night.decision}, {'promoted' if night.promoted else 'held'}" if night else "",
        )
    console.print(table)
    for number, query in enumerate(result.queries, 1):
        columns = list(query.rows[0]) if query.rows else ["(no rows)"]
        answers = Table(*columns, title=f"SQL {number}: {query.question}", title_justify="left")
        for row in query.rows:
            answers.add_row(*("" if cell is None else str(cell) for cell in row.values()))
        console.print(f"\n[dim]{query.sql}[/]", highlight=False, soft_wrap=True)
        console.print(answers)
    console.print(
        f"\nresult          {home}/result.json"
        f"\nlearning curve  {home}/learning-curve.png"
        f"\nask the lake    .venv/bin/flywheel sql --home {home} 'from responses limit 5'"
        "\nopen the UIs    make up, then MLflow at http://127.0.0.1:5000"
        " and Prefect at http://127.0.0.1:4200\n",
        highlight=False,
        soft_wrap=True,
    )


def prepare_home(home: Path) -> None:
    """An empty folder; an earlier demo's is emptied, anything else is left alone.

    Raises:
        ConfigError: there is something else in it.
    """
    if home.is_dir() and any(home.iterdir()):
        if not (home / MARK).is_file():
            raise ConfigError(
                str(home), ["is not empty and not a demo's; choose another with --home"]
            )
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)
    (home / MARK).touch()


def main() -> int:
    """Runs the demo; 0 when every promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    started = time.monotonic()
    # A polite kill must not leave four servers behind: it unwinds like any error.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        prepare_home(arguments.home)
        demo = Demo(arguments.home, arguments.seed)
        try:
            switches = asyncio.run(run(demo))
        finally:
            demo.stack.stop()
        run_cli(demo.stack.environment, "capture", "drain", "--home", str(arguments.home))
        run_cli(demo.stack.environment, "lake", "catalog", "--home", str(arguments.home))
        result = collect(demo, switches, time.monotonic() - started)
    except FlywheelError as error:
        console.print(
            f"[bold red]demo stopped:[/] {error}\nlogs: {arguments.home}/logs", markup=True
        )
        return 1
    text = result.model_dump_json(indent=2) + "\n"
    (arguments.home / "result.json").write_text(text, encoding="utf-8")
    draw(result, arguments.home / "learning-curve.png")
    report(result, arguments.home)
    return 0 if print_promises(result) else 1


if __name__ == "__main__":
    sys.exit(main())
