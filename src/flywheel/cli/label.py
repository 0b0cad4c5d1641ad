"""`flywheel label …`: judgements in, counted, and withdrawn."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flywheel.cli.agreement import agreement, calibrate, disagreements
from flywheel.cli.common import (
    DEFAULT_WORKLOAD,
    HomeOption,
    JsonOption,
    WorkloadOption,
    load,
    messages,
    moment,
    print_json,
    print_table,
)
from flywheel.cli.label_exchange import export, page
from flywheel.cli.label_import import import_, progress

if TYPE_CHECKING:
    from flywheel.records import Assessment

app = typer.Typer(
    help="Judgements on what was answered: import them, grade by code, count, withdraw.\n\n"
    "Example: flywheel label summary --home demo",
    no_args_is_help=True,
)


SinceOption = Annotated[
    datetime | None,
    typer.Option(parser=moment, metavar="TIME", help="Only those made at or after (ISO 8601)."),
]
UntilOption = Annotated[
    datetime | None, typer.Option(parser=moment, metavar="TIME", help="Only those made before.")
]


app.command("import")(import_)
app.command()(export)
app.command()(page)
app.command()(agreement)
app.command()(disagreements)
app.command()(calibrate)


@app.command()
def grade(
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    json: JsonOption = False,
) -> None:
    """Run the workload's labels.graders over captured interactions not graded yet.

    Example: flywheel label grade --home demo
    """
    from flywheel.label import grade_captured
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    with progress("grading") as on_progress:
        report = grade_captured(Lake.open(settings), task, on_progress=on_progress)
    if not task.labels.graders:
        messages.print(
            f"labels.graders of {workload} is empty: nothing to run. "
            f"It may name: {', '.join(task.graders) or 'no grader is declared'}"
        )
    if json:
        print_json(report)
        return
    print_table(
        f"{task.name}: graded now",
        ["grader", "graded", "failed", "mean score"],
        [
            [name, count.graded, count.failed, None if count.mean is None else f"{count.mean:.3f}"]
            for name, count in report.graders.items()
        ],
    )


@app.command()
def summary(
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    json: JsonOption = False,
) -> None:
    """Count judgements by question, source, rater and day, and what they amount to.

    Example: flywheel label summary --home demo
    """
    from flywheel.label import count_labels, label_state
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    lake = Lake.open(settings)
    counts = count_labels(lake, task.name)
    state = label_state(lake, task.name, task.labels.name)
    if json:
        print_json({"state": state, "counts": counts})
        return
    print_table(
        f"{task.name}: judgements",
        ["name", "source", "rater", "day", "made", "in force", "failed", "corrections", "mean"],
        [
            [
                escape(count.name),
                count.source_type,
                escape(count.source_id or ""),
                count.day.isoformat(),
                count.judgements,
                count.in_force,
                count.failed,
                count.corrections,
                None if count.mean_value is None else f"{count.mean_value:.3f}",
            ]
            for count in counts
        ],
    )
    messages.print(
        f"{state.name}: {state.labelled} interactions judged ({state.interactions} captured), "
        f"{state.corrected} corrected, {state.disagreements} in disagreement (no label)"
    )


@app.command("list")
def list_(
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    name: Annotated[str | None, typer.Option(help="Only answers to this question.")] = None,
    source_id: Annotated[str | None, typer.Option(help="Only this rater's.")] = None,
    interaction_id: Annotated[str | None, typer.Option(help="Only on this interaction.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20,
    json: JsonOption = False,
) -> None:
    """List judgements, newest first.

    Example: flywheel label list --source-id dr-smith --limit 50 --home demo
    """
    from flywheel.label import LabelFilter, list_judgements
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    wanted = LabelFilter(name=name, source_id=source_id, interaction_id=interaction_id)
    found = list_judgements(Lake.open(settings), task.name, wanted, limit=limit)
    if json:
        print_json(found)
        return
    print_table(
        f"{task.name}: newest judgements",
        ["made", "interaction", "name", "judgement", "source", "rater", "status"],
        [
            [
                judgement.created_at.strftime("%Y-%m-%d %H:%M:%S"),
                judgement.interaction_id,
                escape(judgement.name),
                escape(_said(judgement)),
                judgement.source_type,
                escape(judgement.source_id or ""),
                judgement.status,
            ]
            for judgement in found
        ],
    )


def _said(judgement: "Assessment") -> str:
    """What was judged, on one line."""
    if judgement.correction is not None:
        return f"{judgement.correction.text:.60}" or "(tool calls)"
    if judgement.label is not None:
        return judgement.label
    return "" if judgement.value is None else f"{judgement.value:g}"


@app.command()
def retract(
    source_id: Annotated[str, typer.Option(help="Whose judgements.")],
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    since: SinceOption = None,
    until: UntilOption = None,
    name: Annotated[str | None, typer.Option(help="Only answers to this question.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, change nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Withdraw a rater's judgements, so that they stop teaching; nothing is deleted.

    Example: flywheel label retract --source-id rater-3 --since 2026-01-31 --home demo
    """
    from flywheel.label import Retraction
    from flywheel.label import retract as withdraw
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    asked = Retraction(
        workload=task.name,
        source_id=source_id,
        since=since,
        until=until,
        name=name,
        reason=reason,
    )
    report = withdraw(Lake.open(settings), asked, is_dry_run=dry_run)
    if json:
        print_json(report)
        return
    done = "would be withdrawn" if dry_run else "withdrawn"
    messages.print(
        f"{report.judgements} judgements of {report.items} items {done}"
        + ("" if report.judgements else "; raters: `flywheel label summary`")
    )
