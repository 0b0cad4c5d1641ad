"""`flywheel capture …`: the spool, and its way into the lake."""

from typing import TYPE_CHECKING, Annotated

import typer

from flywheel.cli.common import HomeOption, JsonOption, console, messages, print_json, print_table
from flywheel.settings import Settings

if TYPE_CHECKING:
    from flywheel.capture.status import SpoolTotals

app = typer.Typer(
    help="The spool of captured calls: drain it into the lake, look at it.", no_args_is_help=True
)


@app.command()
def drain(
    home: HomeOption = None,
    as_json: JsonOption = False,
    seal_timeout: Annotated[
        float, typer.Option(help="Seconds to wait for a gateway whose disk is stuck.")
    ] = 10.0,
) -> None:
    """Move everything captured so far into the lake, exactly once; safe to repeat after a kill.

    Example: flywheel capture drain --home demo
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from flywheel.capture import drain as drain_spool
    from flywheel.lake import Lake

    settings = Settings.load(home=home)
    columns = (TextColumn("draining"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True) as progress:
        bar = progress.add_task("draining", total=None)
        report = drain_spool(
            settings.spool_dir,
            Lake.open(settings),
            on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
            seal_timeout_s=seal_timeout,
        )
    if as_json:
        print_json(report)
        return
    console.print(
        f"drained {report.records} records ({report.bytes / 1e6:.1f} MB, {report.segments} "
        f"segments) in {report.duration_s:.1f} s: {report.interactions} interactions, "
        f"{report.assessments} assessments, {report.duplicates} known already, "
        f"{report.quarantined} to quarantine"
    )
    if report.quarantined:
        console.print('why: flywheel sql "select reason, count(*) from quarantine group by 1"')
    if report.dropped:
        messages.print(
            f"[bold red]lost:[/] {report.dropped} records never reached the disk; "
            "why: flywheel capture status"
        )
    if report.unsealed_writers or report.skipped_segments:
        messages.print(
            f"[yellow]left for later:[/] {report.unsealed_writers} live writers did not seal, "
            f"{report.skipped_segments} segments are of a newer Flywheel"
        )


@app.command()
def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show what waits in the spool, what every gateway's counters say, and that it all adds up.

    Example: flywheel capture status --home demo
    """
    from flywheel.capture import read_status

    found = read_status(Settings.load(home=home).spool_dir)
    if as_json:
        print_json(found)
        return
    age = "nothing waits" if found.oldest_age_s is None else f"oldest {found.oldest_age_s:.0f} s"
    console.print(
        f"{found.spool}: {found.bytes / 1e6:.1f} MB in {found.sealed_segments} sealed, "
        f"{found.open_segments} open, {found.leftover_segments} leftover segments; {age}"
    )
    console.print(told(found.totals), soft_wrap=True)
    if found.writers:
        print_table(
            "writers",
            ["writer", "pid", "alive", "writable", "accepted", "spooled", "pending", "dropped"],
            [
                [
                    writer.state.writer,
                    writer.state.pid,
                    writer.is_alive,
                    writer.state.is_writable,
                    writer.state.counters.accepted,
                    writer.state.counters.spooled,
                    writer.state.counters.pending,
                    ", ".join(f"{k} {v}" for k, v in writer.state.counters.dropped.items()) or 0,
                ]
                for writer in found.writers
            ],
        )


def told(totals: "SpoolTotals") -> str:
    """The counters since the folder was made, as sums one can check."""
    dropped = sum(totals.dropped.values())
    reasons = ", ".join(f"{name} {count}" for name, count in totals.dropped.items())
    late = f"; {totals.late} answers left before their record was on disk" if totals.late else ""
    moving = f"; {abs(totals.difference)} in motion" if totals.difference else ""
    return (
        f"{totals.accepted} accepted = {totals.spooled} spooled + {totals.pending} pending + "
        f"{dropped} dropped{f' ({reasons})' if reasons else ''}; "
        f"{totals.spooled} spooled = {totals.drained} drained + {totals.waiting} waiting{moving}; "
        f"{totals.drained} drained = {totals.committed} committed + "
        f"{totals.quarantined} quarantined + {totals.duplicates} duplicates{late}"
    )
