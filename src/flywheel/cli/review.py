"""`flywheel review …`: experts are asked in MLflow's review queues, and their answers come back."""

from collections import Counter
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
    from flywheel.label.review import Plan, PullReport, PushReport

app = typer.Typer(
    help="Ask clinicians (or any experts) in MLflow's review queues: docs/review.md.\n\n"
    "Example: flywheel review push --dry-run --home demo",
    no_args_is_help=True,
)


@app.command()
def push(
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    adjudicate: Annotated[
        bool,
        typer.Option("--adjudicate", help="Ask review.adjudicators about what raters disagree on."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan; change and call nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Put what is worth asking into the raters' queues, within their minutes.

    Each push first pulls. Doing it twice adds nothing while the queues are full.

    Example: flywheel review push --home demo
    """
    from flywheel.label.review import plan_push, push_reviews
    from flywheel.lake import Lake
    from flywheel.tracking import Tracker

    settings, task = load(home, workload)
    lake = Lake.open(settings)
    if dry_run:
        plan = plan_push(lake, task, adjudicate=adjudicate)
        if json:
            print_json(plan)
        else:
            _print_plan(task.name, plan)
        return
    report = push_reviews(lake, task, Tracker(settings.tracking_uri), adjudicate=adjudicate)
    if json:
        print_json(report)
        return
    _print_push(task.name, report)


def _print_push(workload: str, report: "PushReport") -> None:
    if report.pulled is not None:
        _warn(report.pulled)
    _print_plan(workload, report.plan, is_listed=False)
    print_table(
        f"{workload}: queues",
        ["queue", "new", "waiting", "where"],
        [[escape(one.queue), one.new, one.waiting, one.url] for one in report.queues],
    )
    if report.queues and report.queues[0].url is None:
        messages.print(
            "these queues are in a database, which no browser opens: raters need an MLflow "
            "server in front of it. `flywheel up` starts one; or set FLYWHEEL_MLFLOW_TRACKING_URI"
        )


def _print_plan(workload: str, plan: "Plan", *, is_listed: bool = True) -> None:
    if is_listed:
        print_table(
            f"{workload}: what would be asked",
            ["rater", "place", "item", "shown", "why", "inclusion"],
            [
                [
                    escape(one.rater),
                    one.position + 1,
                    escape(one.item),
                    one.presented_order,
                    one.reason,
                    None if one.inclusion_prob is None else f"{one.inclusion_prob:.4f}",
                ]
                for one in plan.items
            ],
        )
    counts = Counter((one.rater, one.reason) for one in plan.items)
    spent = Counter[str]()
    for one in plan.items:
        spent[one.rater] += int(one.seconds)
    for rater, budget in plan.budget_s.items():
        reasons = ", ".join(
            f"{n} {why}" for (who, why), n in sorted(counts.items()) if who == rater
        )
        messages.print(
            f"{escape(rater)}: {spent[rater] / 60:.1f} of {budget / 60:.1f} minutes"
            f" ({reasons or 'nothing'})"
        )
    if plan.skipped:
        messages.print(
            f"[yellow]nobody left to adjudicate[/] {len(plan.skipped)} items: every one of "
            "review.adjudicators has rated them. Name somebody who has not."
        )


@app.command()
def pull(
    home: HomeOption = None, workload: WorkloadOption = DEFAULT_WORKLOAD, json: JsonOption = False
) -> None:
    """Bring answers back as assessments, each once; edited answers supersede.

    Example: flywheel review pull --home demo
    """
    from flywheel.label.review import pull_reviews
    from flywheel.lake import Lake
    from flywheel.tracking import Tracker

    settings, task = load(home, workload)
    report = pull_reviews(Lake.open(settings), task, Tracker(settings.tracking_uri))
    if json:
        print_json(report)
    else:
        print_table(
            f"{task.name}: answers",
            ["in MLflow", "new", "edited", "declined", "quarantined"],
            [
                [
                    report.answers,
                    report.written,
                    report.edited,
                    report.declined,
                    report.quarantined,
                ]
            ],
        )
    _warn(report)


def _warn(report: "PullReport") -> None:
    if report.quarantined:
        reasons = ", ".join(f"{reason} {count}" for reason, count in report.reasons.items())
        messages.print(f"[yellow]quarantined:[/] {escape(reasons)}. Look at them with")
        messages.print('  flywheel sql "select source, reason, detail from quarantine"')
    for queue in report.missing_queues:
        messages.print(
            f"[yellow]queue {escape(queue)!r} was deleted in MLflow:[/] what was answered is "
            "kept; `flywheel review push` makes it anew with what is still open"
        )


@app.command()
def status(
    home: HomeOption = None, workload: WorkloadOption = DEFAULT_WORKLOAD, json: JsonOption = False
) -> None:
    """Show what was asked, answered and still waits, queue by queue.

    Example: flywheel review status --home demo
    """
    from flywheel.label.review import review_status
    from flywheel.lake import Lake
    from flywheel.tracking import Tracker

    settings, task = load(home, workload)
    found = review_status(Lake.open(settings), task, Tracker(settings.tracking_uri))
    if json:
        print_json(found)
        return
    print_table(
        f"{task.name}: review queues",
        ["queue", "asked", "of the random slice", "done in MLflow", "pulled", "minutes left"],
        [
            [
                escape(one.queue),
                one.asked,
                one.random,
                "queue deleted" if one.done is None else one.done,
                one.pulled,
                one.minutes_left,
            ]
            for one in found
        ],
    )
    for one in found:
        if one.url:
            messages.print(f"{escape(one.queue)}: {one.url}", soft_wrap=True)
