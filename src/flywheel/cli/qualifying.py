"""`flywheel judge qualify` and `flywheel judge list`: whether a judge's word counts."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flywheel.cli.common import (
    DEFAULT_WORKLOAD,
    HomeOption,
    JsonOption,
    WorkloadOption,
    load,
    messages,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from pydantic import JsonValue

    from flywheel.graders.judge import Judge
    from flywheel.label.qualifying import GoldItem, JudgeStanding, QualificationReport
    from flywheel.lake import Lake
    from flywheel.settings import Settings
    from flywheel.workload import Workload


def qualify(
    judge: Annotated[str, typer.Argument(help="Its name under `judges` in the workload file.")],
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    gold: Annotated[
        Path | None, typer.Option(help="Gold labels, a .jsonl file: docs/qualifying.md.")
    ] = None,
    from_lake: Annotated[
        bool, typer.Option("--from-lake", help="Gold labels are the lake's adjudicated ones.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure a judge on gold labels; before that its word does not count.

    Kappa, swap consistency, length bias and, where judge and policy are of one family,
    self-preference, each with an interval against its bar. Exit code 1: it did not qualify.

    Example: flywheel judge qualify helpful --gold gold.jsonl --home demo
    """
    from flywheel.cli.judging import find_judge
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    if (gold is None) == (not from_lake):
        raise typer.BadParameter("give either --gold gold.jsonl or --from-lake")
    chosen = find_judge(task, judge)
    items = _gold_items(Lake.open(settings), task, chosen, gold)
    report = _measure(settings, task, chosen, items)
    if json:
        print_json(report.qualification)
    else:
        _show(report)
    if not report.qualification.qualified:
        raise typer.Exit(1)


def list_judges(
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    json: JsonOption = False,
) -> None:
    """List the declared judges: whether the word of each counts, until when, or why not.

    Example: flywheel judge list --home demo
    """
    from flywheel.graders.judge import build_judges
    from flywheel.label.qualifying import standing_of
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    lake = Lake.open(settings)
    standings = [standing_of(lake, task, judge) for judge in build_judges(task).values()]
    if json:
        print_json(standings)
        return
    print_table(
        f"{task.name}: judges",
        ["judge", "for", "models", "rubric", "state", "measured", "times", "gold sets", "why"],
        [_standing_row(standing) for standing in standings],
    )
    for standing in standings:
        if standing.state != "qualified":
            messages.print(
                f"`flywheel judge qualify {standing.judge} --gold gold.jsonl` qualifies "
                f"{escape(standing.judge)}"
            )
    if not standings:
        messages.print(f"{workload} declares no judge; docs/judges.md shows how")


def _gold_items(
    lake: "Lake", task: "Workload", judge: "Judge", path: Path | None
) -> "tuple[GoldItem, ...]":
    from flywheel.label.qualifying import adjudicated_gold, read_gold

    if path is not None:
        return tuple(read_gold(path, judge))
    found = adjudicated_gold(lake, task, judge)
    for reason, count in found.left_out.items():
        messages.print(f"[yellow]left out:[/] {count} adjudicated labels: {escape(reason)}")
    return found.items


def _measure(
    settings: "Settings", task: "Workload", judge: "Judge", gold: "tuple[GoldItem, ...]"
) -> "QualificationReport":
    from rich.progress import Progress

    from flywheel.cli.judging import open_desk
    from flywheel.label.qualifying import qualify as measure
    from flywheel.tracking import Tracker

    async def measured(on_progress: Callable[[int, int], None]) -> "QualificationReport":
        tracker = Tracker(settings.tracking_uri)
        async with open_desk(settings, task, judge) as desk:
            return await measure(desk, gold, tracker=tracker, on_progress=on_progress)

    with Progress(console=messages, transient=True) as bar:
        shown = bar.add_task(f"asking {judge.name}", total=len(gold))
        return asyncio.run(measured(lambda done, _: bar.update(shown, completed=done)))


def _show(report: "QualificationReport") -> None:
    from flywheel.label.qualifying.report import measure_rows

    found = report.qualification
    print_table(
        f"{found.judge}: {found.items} gold items, {found.errors} without a verdict",
        ["measure", "value", "interval", "bar", "items", ""],
        [_measure_row(row) for row in measure_rows(report)],
    )
    if report.accuracy is not None:
        accuracy = report.accuracy
        messages.print(
            f"right on {accuracy.mean:.1%} of the items [{accuracy.low:.1%}, {accuracy.high:.1%}]"
        )
    messages.print(
        f"measurement {report.measurements} of this very judge, on {report.gold_sets} gold sets"
    )
    if found.qualified:
        messages.print(
            f"[green]qualified[/] until {found.expires_at:%Y-%m-%d %H:%M} UTC: its labels count"
        )
    else:
        messages.print("[bold red]not qualified:[/] it labels nothing")
        for reason in found.reasons:
            messages.print(f"  - {escape(reason)}")
    messages.print(f"evidence: MLflow run {found.run_id}")


def _measure_row(row: "dict[str, JsonValue]") -> "list[JsonValue]":
    interval = None if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
    sign = ">" if row["measure"] in ("kappa", "swap_consistency") else "within"
    return [
        row["measure"],
        None if row["value"] is None else f"{row['value']:.3f}",
        interval,
        f"{sign} {row['bar']:g}",
        row["items"],
        "passed" if row["passed"] else f"[red]failed[/] {escape(str(row['note'] or ''))}",
    ]


def _standing_row(standing: "JudgeStanding") -> "list[JsonValue]":
    colour = "green" if standing.state == "qualified" else "red"
    return [
        escape(standing.judge),
        standing.purpose,
        escape(standing.models),
        standing.rubric,
        f"[{colour}]{standing.state}[/]",
        None if standing.last is None else f"{standing.last.created_at:%Y-%m-%d}",
        standing.measurements,
        standing.gold_sets,
        escape(standing.reason),
    ]
