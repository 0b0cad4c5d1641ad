"""`flywheel label import`: judgements from files, redacted before anything is stored."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    from flywheel.label import ImportReport

FormatOption = Annotated[
    Literal["auto", "own", "argilla", "label-studio", "prodigy"],
    typer.Option(help="Whose file it is; auto looks at its first records."),
]
EncodingOption = Annotated[
    Literal["cp1252", "latin-1", "cp437", "cp850", "mac-roman"] | None,
    typer.Option(help="Of lines that are not UTF-8; they are quarantined without it."),
]
RatersOption = Annotated[
    str | None, typer.Option(metavar="A,B,…", help="Only these may judge; others' rows are bad.")
]


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, moved by calling what it yields with done and total."""
    from rich.progress import Progress

    with Progress(console=messages, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def import_(
    file: Annotated[Path, typer.Argument(help="A .csv, .jsonl or .json file; docs/labels.md.")],
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    source_type: Annotated[
        Literal["human", "end_user", "llm_judge", "code"],
        typer.Option(help="Who judged, where a row does not say."),
    ] = "human",
    source_id: Annotated[
        str | None, typer.Option(help="Which of them, where a row does not say.")
    ] = None,
    guideline: Annotated[
        str | None, typer.Option(help="Version of the raters' instructions, where a row has none.")
    ] = None,
    format: FormatOption = "auto",
    encoding: EncodingOption = None,
    name: Annotated[
        str | None, typer.Option(help="The question, where the tool's file does not say it.")
    ] = None,
    raters: RatersOption = None,
    json: JsonOption = False,
) -> None:
    """Import judgements from a file; rows that cannot be read go to quarantine.

    Columns: interaction_id (or pair_a and pair_b), name, one of value, label, correction; more are
    in docs/labels.md. Files of Argilla, Label Studio and Prodigy: docs/exchange.md. The workload's
    redaction policy is applied before anything is stored. Importing twice adds nothing.

    Example: flywheel label import labels.csv --source-id dr-smith --home demo
    """
    from flywheel.capture.redact import Redactors, redactors_for
    from flywheel.label import LabelFile, RowDefaults, import_labels
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    defaults = RowDefaults(
        workload=task.name,
        source_type=source_type,
        source_id=source_id,
        guideline=guideline,
        name=name,
        raters=None if raters is None else tuple(one.strip() for one in raters.split(",")),
    )
    redactors = Redactors(redactors_for(settings, task))
    with progress("reading") as on_progress:
        report = import_labels(
            Lake.open(settings),
            LabelFile(path=file, format=format, encoding=encoding, name=name),
            defaults,
            redaction=redactors if redactors else None,
            on_progress=on_progress,
        )
    if json:
        print_json(report)
    else:
        _print_import(file, report)
    _remark_on_import(report, task.labels.name)


def _print_import(file: Path, report: "ImportReport") -> None:
    print_table(
        str(file),
        ["rows", "new", "known already", "quarantined", "interactions not captured (yet)"],
        [
            [
                report.rows,
                report.written,
                report.duplicates,
                report.quarantined,
                report.unknown_interactions,
            ]
        ],
    )


def _remark_on_import(report: "ImportReport", question: str) -> None:
    """What somebody should look at; a file without one good row is a failure."""
    if report.quarantined:
        reasons = ", ".join(f"{reason} {count}" for reason, count in report.reasons.items())
        messages.print(f"[yellow]quarantined:[/] {escape(reasons)}. Look at them with")
        messages.print('  flywheel sql "select source, reason, detail from quarantine"')
    if report.contradictions:
        messages.print(
            f"[yellow]contradictions:[/] on {report.contradictions} questions one rater has said "
            "different things; the latest counts, the others stay on record"
        )
    if report.unknown_interactions:
        shown = ", ".join(report.unknown_examples)
        messages.print(f"[yellow]not captured (yet):[/] {escape(shown)}; their labels wait")
    if report.names and question not in report.names:
        messages.print(
            f"[yellow]note:[/] no row is named {question!r} (labels.name): these are kept, "
            "but teach nothing"
        )
    if report.rows and report.rows == report.quarantined:
        raise typer.Exit(1)
