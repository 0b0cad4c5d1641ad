"""`flywheel capture …`: the spool and its way into the lake, and other systems' logs."""

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from flywheel.cli.common import (
    DEFAULT_WORKLOAD,
    HomeOption,
    JsonOption,
    WorkloadOption,
    console,
    load,
    messages,
    moment,
    print_json,
    print_table,
)
from flywheel.errors import ConfigError
from flywheel.settings import Settings
from flywheel.workload import Workload

if TYPE_CHECKING:
    from flywheel.capture.status import SpoolTotals

if TYPE_CHECKING:
    from flywheel.capture.importers import ImportReport

app = typer.Typer(
    help="The spool of captured calls: drain it into the lake, look at it; and import logs.",
    no_args_is_help=True,
)
FormatOption = Annotated[
    Literal["openai", "nvidia", "otlp", "litellm", "langfuse", "tensorzero", "openpipe"] | None,
    typer.Option("--format", help="Of the files; found out from their first rows when absent."),
]


@app.command()
def drain(
    home: HomeOption = None,
    workload: Annotated[
        list[Path] | None,
        typer.Option(
            "--workload",
            "-w",
            envvar="FLYWHEEL_WORKLOAD",
            help="A workload file, for its redaction policy; repeatable. Default: what the "
            "gateway left in the home.",
        ),
    ] = None,
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
    from flywheel.capture.redact import redactors_for
    from flywheel.lake import Lake

    settings = Settings.load(home=home)
    redactors = redactors_for(settings, *(Workload.load(path) for path in workload or ()))
    columns = (TextColumn("draining"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True) as progress:
        bar = progress.add_task("draining", total=None)
        report = drain_spool(
            settings.spool_dir,
            Lake.open(settings),
            redactors=redactors,
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
    console.print("; ".join(sums(found.totals)), soft_wrap=True)
    if found.waiting_spans or found.waiting_log_records:
        console.print(
            f"{found.waiting_spans} spans and {found.waiting_log_records} log records of "
            "OpenTelemetry wait to be joined"
        )
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


def sums(totals: "SpoolTotals") -> tuple[str, str, str]:
    """The counters since the folder was made, as sums one can check."""
    dropped = sum(totals.dropped.values())
    reasons = ", ".join(f"{name} {count}" for name, count in totals.dropped.items())
    late = f"; {totals.late} answers left before their record was on disk" if totals.late else ""
    moving = f" ({abs(totals.difference)} in motion)" if totals.difference else ""
    return (
        f"{totals.accepted} accepted = {totals.spooled} spooled + {totals.pending} pending + "
        f"{dropped} dropped{f' ({reasons})' if reasons else ''}{late}",
        f"{totals.spooled} spooled = {totals.drained} drained + {totals.waiting} waiting{moving}",
        f"{totals.drained} drained = {totals.committed} committed + "
        f"{totals.quarantined} quarantined + {totals.duplicates} duplicates",
    )


@app.command()
def redact_check(
    file: Annotated[Path, typer.Argument(help="A text; - reads standard input.")],
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a workload's redaction policy does to a text. Nothing is stored.

    Example: flywheel capture redact-check note.txt --workload flywheel.yaml --json
    """
    from flywheel.capture.redact import redactor_for

    settings, declared = load(home, workload)
    redactor = redactor_for(declared, settings)
    if redactor is None:
        valid = "set capture.redaction.policy: standard-2"
        raise ConfigError(str(workload), [f"capture.redaction.policy is none; {valid}"])
    found = redactor.redact_text(_read_text(file))
    if as_json:
        print_json(found)
        return
    sys.stdout.write(found.text)
    rows = [
        [one["entity"], one["score"], one["text"], one["placeholder"]] for one in found.findings
    ]
    messages.print(f"\npolicy {found.policy}: {len(rows)} identifiers", highlight=False)
    for entity, score, text, placeholder in rows:
        messages.print(f"  {placeholder} {entity} {score} {text!r}", markup=False)


def _read_text(file: Path) -> str:
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), [f"not a text that can be read: {error}"]) from error


@app.command("import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(help="Log files, gzip'd or not; of a batch both, input and output."),
    ],
    format_name: FormatOption = None,
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    assume_time: Annotated[
        datetime | None,
        typer.Option(parser=moment, metavar="TIME", help="When calls were made that do not say."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read everything, write nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Import other systems' logs; rows that cannot be read go to quarantine.

    Formats: openai, nvidia, otlp, litellm, langfuse, tensorzero, openpipe (docs/importers.md).
    Importing twice adds nothing. People's identifiers become an HMAC under
    FLYWHEEL_SUBJECT_KEY_SECRET, or are dropped where that is not set.

    Example: flywheel capture import --format openai calls.jsonl.gz --home demo
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from flywheel.capture.importers import Source, import_files
    from flywheel.capture.redact import redactors_for
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    source = Source(
        workload=task.name,
        label_name=task.labels.name,
        subject_secret=settings.subject_key_secret.get_secret_value().encode(),
        assumed_time=assume_time,
    )
    columns = (TextColumn("importing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True) as progress:
        bar = progress.add_task("importing", total=None)
        report = import_files(
            Lake.open(settings),
            files,
            source,
            format_name=format_name,
            is_dry_run=dry_run,
            redactors=redactors_for(settings, task),
            on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    if as_json:
        print_json(report)
    else:
        _print_import(report)
    if report.rows and not (report.interactions or report.assessments or report.duplicates):
        raise typer.Exit(1)


def _print_import(report: "ImportReport") -> None:
    verb = "would import" if report.is_dry_run else "imported"
    console.print(
        f"{verb} {report.interactions} interactions and {report.assessments} assessments from "
        f"{report.rows} rows of {report.format} ({report.bytes / 1e6:.1f} MB) in "
        f"{report.duration_s:.1f} s; {report.duplicates} known already, "
        f"{report.quarantined} to quarantine"
    )
    if report.passed_over:
        counts = ", ".join(f"{reason} {count}" for reason, count in report.passed_over.items())
        messages.print(f"passed over, being no model calls: {escape(counts)}")
    if report.reasons:
        counts = ", ".join(f"{reason} {count}" for reason, count in report.reasons.items())
        messages.print(f"[yellow]quarantined:[/] {escape(counts)}. Look at them with")
        messages.print('  flywheel sql "select source, reason, detail from quarantine"')
