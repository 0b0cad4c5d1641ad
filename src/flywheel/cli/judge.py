"""`flywheel judge …`: judges over what was captured, once they have qualified."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flywheel.cli.common import (
    DEFAULT_WORKLOAD,
    HomeOption,
    JsonOption,
    WorkloadOption,
    console,
    messages,
    print_json,
    print_table,
)
from flywheel.cli.qualifying import list_judges, qualify
from flywheel.cli.winrate import winrate

if TYPE_CHECKING:
    from flywheel.label.judging import Estimate, JudgeRunReport, RunProgress
    from flywheel.label.judging.run import OnProgress

app = typer.Typer(
    help="Language models that judge: whether their word counts, and what they say.\n\n"
    "Example: flywheel judge run helpful --dry-run --home demo",
    no_args_is_help=True,
)
app.command()(winrate)
app.command()(qualify)
app.command("list")(list_judges)


@app.command()
def run(
    judge: Annotated[str, typer.Argument(help="Its name under `judges` in the workload file.")],
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many, drawn at random.")
    ] = None,
    sample: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="This share, drawn at random.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the draw; the same draws the same.")] = 11,
    batch: Annotated[
        bool, typer.Option("--batch", help="By the batch API: half the price, up to a day.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count calls and their worst cost; ask nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Have a judge judge the answers, or pairs of answers, it has not judged yet.

    It must have qualified. Killed, or stopped at its budget, it goes on where it was when it is
    run again. Exit code 1: the run is invalid, and labels nothing.

    Example: flywheel judge run helpful --sample 0.1 --home demo
    """
    from flywheel.cli.judging import estimate_run, run_judge
    from flywheel.cli.steps import Place
    from flywheel.label.judging import Selection

    place = Place(workload=workload, home=home)
    selection = Selection(limit=limit, sample=sample, seed=seed)
    if dry_run:
        found = estimate_run(place, judge, selection, is_batch=batch)
        if json:
            print_json(found)
        else:
            _tell_estimate(found)
        return
    with _progress(judge) as on_progress:
        report = run_judge(place, judge, selection, is_batch=batch, on_progress=on_progress)
    if json:
        print_json(report)
    else:
        _tell(report)
    if report.state == "invalid":
        why = f"judge_run_id = '{report.judge_run_id}' and status = 'error'"
        messages.print(
            f"[yellow]invalid:[/] {escape(report.reason)}. It labels nothing; run it again to have "
            "only the failed ones judged. Why they failed:"
        )
        messages.print(f'  flywheel sql "from assessments where {why}"', soft_wrap=True)
        raise typer.Exit(1)


@app.command()
def cache(
    home: HomeOption = None,
    erase_subject: Annotated[
        list[str] | None, typer.Option(help="Forget replies about this subject_key; repeatable.")
    ] = None,
    erase_interaction: Annotated[
        list[str] | None, typer.Option(help="Forget replies about this interaction; repeatable.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Forget all replies.")] = False,
    json: JsonOption = False,
) -> None:
    """Show how much judges' replies take on disk, or forget some of them.

    Replies save asking, and paying, again; rows in the lake do not need them.

    Example: flywheel judge cache --home demo
    """
    from flywheel.label.judging import ReplyCache
    from flywheel.settings import Settings

    settings = Settings.load(home=home)
    with ReplyCache(settings.judge_cache_dir) as replies:
        if clear:
            messages.print(f"{replies.clear()} replies forgotten")
        if erase_subject or erase_interaction:
            erased = replies.erase(
                subject_keys=erase_subject or (), interaction_ids=erase_interaction or ()
            )
            messages.print(f"{erased} replies forgotten")
        size = replies.size()
    if json:
        print_json(size)
        return
    told = ", ".join(f"{escape(name)} {count}" for name, count in size.by_judge.items())
    console.print(
        f"{settings.judge_cache_dir}: {size.replies} replies about {size.interactions} "
        f"interactions, {size.bytes / 1e6:.1f} MB" + (f" ({told})" if told else "")
    )


@contextmanager
def _progress(judge: str) -> "Iterator[OnProgress]":
    """A bar on stderr: tasks, errors, money, and requests under way."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}"),
    )
    with Progress(*columns, console=messages, transient=True) as bar:
        task = bar.add_task(judge, total=None, told="")

        def moved(now: "RunProgress", total: int) -> None:
            money = "" if now.usd is None else f", {now.usd:.4f} USD"
            told = f"{now.failed} failed, {now.cached} known{money}, {now.concurrency} under way"
            bar.update(task, completed=now.judged, total=total, told=told)

        yield moved


def _tell_estimate(found: "Estimate") -> None:
    usd = None if found.worst_usd is None else f"{found.worst_usd:.4f}"
    print_table(
        f"{found.judge}: what a run would do",
        ["eligible", "judged before", "selected", "calls", "tokens at most", "USD at most"],
        [
            [
                found.eligible,
                found.judged_before,
                found.selected,
                found.calls,
                found.worst_tokens,
                usd,
            ]
        ],
    )


def _tell(report: "JudgeRunReport") -> None:
    print_table(
        f"{report.judge}: {report.state} ({report.reason})",
        ["judged", "failed", "known replies", "asked", "tokens", "USD", "seconds", "left"],
        [
            [
                report.judged,
                report.failed,
                report.cached,
                report.asked,
                report.tokens,
                None if report.cost_usd is None else f"{report.cost_usd:.4f}",
                f"{report.seconds:.1f}",
                report.eligible - report.judged_before - report.judged,
            ]
        ],
    )
