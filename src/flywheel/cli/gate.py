"""`flywheel gate`: candidate against champion, and an exit code a script can act on."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flywheel.cli.common import (
    DEFAULT_WORKLOAD,
    HomeOption,
    JsonOption,
    WorkloadOption,
    console,
    load,
    messages,
    print_json,
    print_table,
)
from flywheel.cli.steps import open_fleet
from flywheel.settings import Settings
from flywheel.workload import Workload

if TYPE_CHECKING:
    from flywheel.records import Decision, Interval

EXIT_CODES = {"PASS": 0, "FAIL": 2, "INCONCLUSIVE": 3}
_COLOURS = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}


def gate(
    candidate: Annotated[str, typer.Option(help="Served name of the model to judge.")],
    champion: Annotated[
        str | None,
        typer.Option(help="Served name it is judged against. Default: what serves now."),
    ] = None,
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    json: JsonOption = False,
) -> None:
    """Judge a candidate against the champion on the workload's frozen suite.

    Both answer the same items in the same run, on the first of FLYWHEEL_ENGINE_URLS; adapters of
    the lake are loaded there first. Nothing a user sees is changed. The same models, items and
    rules have one decision: asking again shows it.

    Exit code: 0 PASS, 2 FAIL, 3 INCONCLUSIVE, 1 the gate could not be run.

    Example: flywheel gate --candidate triage-3f2a9c1b7d10 --home demo
    """
    settings, task = load(home, workload)
    decision = asyncio.run(_judge(settings, task, candidate, champion))
    if json:
        print_json(decision)
    else:
        _show(decision, settings)
    raise typer.Exit(EXIT_CODES[decision.verdict])


async def _judge(
    settings: Settings, task: Workload, candidate: str, champion: str | None
) -> "Decision":
    from flywheel.chat import OpenAIChatModel
    from flywheel.gate import run_gate
    from flywheel.label.qualifying import require_gate_judges
    from flywheel.lake import Lake
    from flywheel.tracking import Tracker

    lake, url = Lake.open(settings), settings.engine_urls[0]
    require_gate_judges(lake, task)
    if champion is None:
        release = lake.current_release(task.name)
        champion = release.model if release else task.base_model
    await _load(settings, task, [candidate, champion])
    bar = Progress(
        TextColumn("asking {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=messages,
        transient=True,
    )
    chat = OpenAIChatModel(f"{url.rstrip('/')}/v1")
    try:
        with bar:
            row = bar.add_task(f"{candidate} and {champion}", total=None)
            return await run_gate(
                lake,
                Tracker(settings.tracking_uri),
                task,
                chat,
                candidate=candidate,
                champion=champion,
                on_progress=lambda done, total: bar.update(row, completed=done, total=total),
            )
    finally:
        await chat.close()


async def _load(settings: Settings, task: Workload, names: list[str]) -> None:
    """Loads those of the names that are adapters; the rest must be served already."""
    from flywheel.promote import HttpModelServer, stage

    fleet = open_fleet(settings, task)
    known = {adapter.name for adapter in fleet.adapters()}
    server = HttpModelServer(settings.engine_urls[0])
    for name in names:
        if name in known:
            await stage(fleet.stored(name), [server])


def _show(decision: "Decision", settings: Settings) -> None:
    print_table(
        f"{escape(decision.candidate)} against {escape(decision.champion)}",
        ["metric", "items", "champion", "candidate", "difference", "must", "verdict"],
        [
            [
                escape(one.name),
                one.n,
                f"{one.champion.mean:.3f}",
                f"{one.candidate.mean:.3f}",
                _interval(one.difference),
                _must(one.rule, one.margin),
                f"[{_COLOURS[one.verdict]}]{one.verdict}[/]",
            ]
            for one in decision.comparisons
        ],
    )
    console.print(f"[bold {_COLOURS[decision.verdict]}]{decision.verdict}[/]")
    for reason in decision.reasons:
        console.print(f"  {escape(reason)}", soft_wrap=True)
    console.print(f"evidence: decision {decision.decision_id}, MLflow run {decision.run_id}")
    console.print(f"MLflow: {escape(settings.tracking_uri)}", soft_wrap=True)


def _interval(found: "Interval") -> str:
    return escape(f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")


def _must(rule: str, margin: float) -> str:
    if rule == "never_again":
        return "all right"
    return f"> {margin:+g}" if rule == "superiority" else f"> {-margin:+g}"
