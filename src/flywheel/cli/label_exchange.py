"""`flywheel label export` and `flywheel label page`: to other tools, and to where no network is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

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
    from flywheel.label.exchange import ExportReport, Question

QuestionOption = Annotated[
    list[str] | None,
    typer.Option(
        help="What is asked: `helpful` (pass or fail), `urgency=routine|soon|urgent`, "
        "`quality=1-5`. Default: labels.name of the workload.",
    ),
]
PairsOption = Annotated[
    bool, typer.Option("--pairs", help="Two answers to the same messages: which is better?")
]
LimitOption = Annotated[int, typer.Option(min=1, help="At most so many items, a random sample.")]


def export(
    to: Annotated[
        Literal["csv", "jsonl", "argilla", "label-studio", "prodigy"],
        typer.Option(help="Whose format."),
    ],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    items: Annotated[
        bool, typer.Option("--items", help="Items nobody has judged, instead of judgements.")
    ] = False,
    pairs: PairsOption = False,
    question: QuestionOption = None,
    rater: Annotated[
        str | None, typer.Option(help="With --items: those this rater has not judged.")
    ] = None,
    limit: LimitOption = 100,
    source_type: Annotated[
        Literal["human", "end_user", "llm_judge", "code", "any"],
        typer.Option(help="Whose judgements."),
    ] = "human",
    json: JsonOption = False,
) -> None:
    """Export judgements, or items to judge, for Argilla, Label Studio, Prodigy or a spreadsheet.

    What the format cannot carry is told. Answers come back with `flywheel label import`.

    Example: flywheel label export --to label-studio --items --out tasks.json --home demo
    """
    from flywheel.label.exchange import Judged, export_labels, judged_items, unlabelled_items
    from flywheel.lake import Lake
    from flywheel.records import SourceType

    settings, task = load(home, workload)
    lake = Lake.open(settings)
    asked = _questions(question or [task.labels.name], is_pair=pairs)
    if items:
        found = unlabelled_items(lake, task.name, asked[0], rater=rater, limit=limit)
        judged = (Judged(item=item) for item in found)
        report = export_labels(judged, to, out, question=asked[0])
    else:
        name = asked[0].name if question else None
        sources = get_args(SourceType) if source_type == "any" else (source_type,)
        report = export_labels(
            judged_items(lake, task.name, name=name, source_types=sources), to, out
        )
    if json:
        print_json(report)
        return
    print_table(
        f"{task.name}: exported",
        ["file", "items", "judgements"],
        [[str(out), report.items, report.judgements]],
    )
    _tell_losses(report, to)


def page(
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    rater: Annotated[
        str | None, typer.Option(help="Who will review; the page asks when it is not given.")
    ] = None,
    pairs: PairsOption = False,
    question: QuestionOption = None,
    limit: LimitOption = 100,
    guideline: Annotated[
        str | None, typer.Option(help="Guideline and version, stored with each row: triage@3.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a review page: one HTML file that works from a USB stick with no network.

    Operated by keys; saves a JSONL file that `flywheel label import` reads, and goes on from one.

    Example: flywheel label page --out review.html --rater dr-smith --limit 50 --home demo
    """
    from flywheel.label.exchange import unlabelled_items
    from flywheel.label.page import PageSpec, write_page
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    asked = _questions(question or [task.labels.name], is_pair=pairs)
    found = unlabelled_items(Lake.open(settings), task.name, asked[0], rater=rater, limit=limit)
    spec = PageSpec(
        workload=task.name,
        items=tuple(found),
        questions=tuple(asked),
        rater=rater,
        columns={"guideline": guideline} if guideline else {},
    )
    write_page(spec, out)
    if json:
        print_json({"file": out, "items": len(found), "bytes": out.stat().st_size})
        return
    messages.print(
        f"{out}: {len(found)} items, {out.stat().st_size / 1e6:.1f} MB. It holds what was said "
        "there: handle the file as you handle the records. Answers come back with"
    )
    messages.print(f"  flywheel label import labels-{escape(task.name)}-….jsonl")


def _questions(texts: list[str], *, is_pair: bool) -> "list[Question]":
    from flywheel.label.exchange import parse_question

    try:
        return [parse_question(text, is_pair=is_pair) for text in texts]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--question") from error


def _tell_losses(report: "ExportReport", to: str) -> None:
    for path in report.files[1:]:
        messages.print(f"{escape(str(path))}: the tool's own settings for these items")
    if report.only_in_note:
        told = ", ".join(f"{column} ({n})" for column, n in sorted(report.only_in_note.items()))
        messages.print(
            f"[yellow]{to} does not show:[/] {escape(told)}. They come back with answers that "
            "nobody changes there"
        )
    if report.lost:
        told = ", ".join(f"{column} ({n})" for column, n in sorted(report.lost.items()))
        messages.print(f"[yellow]{to} does not carry:[/] {escape(told)} (judgements concerned)")
