"""`flywheel label agreement`, `disagreements` and `calibrate`: how far to trust what was judged."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import JsonValue
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
from flywheel.errors import MissingExtraError

if TYPE_CHECKING:
    from flywheel.label.agreement import AgreementReport, Coefficient, GroupAgreement
    from flywheel.label.calibrating import Calibration
    from flywheel.lake import Lake
    from flywheel.records import Interval

NameOption = Annotated[str | None, typer.Option(help="Only answers to this question.")]


def agreement(
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    name: NameOption = None,
    by: Annotated[
        Literal["criterion", "rater", "week", "guideline", "workload"],
        typer.Option(help="What the table has a row for; workload: all in the lake."),
    ] = "criterion",
    guideline: Annotated[
        str | None, typer.Option(help="Only ratings made under this version.")
    ] = None,
    source_type: Annotated[
        Literal["human", "llm_judge", "end_user", "code"], typer.Option(help="Whose ratings.")
    ] = "human",
    html: Annotated[
        Path | None, typer.Option(help="Also write a page with plots there; it needs no network.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Tell how far raters agree beyond chance, with intervals, and how each does on gold.

    Cohen's kappa of each two raters; Fleiss' kappa, Krippendorff's alpha and Gwet's AC1 of all.

    Example: flywheel label agreement --by week --html agreement.html --home demo
    """
    _needs_numpy()
    from flywheel.label.agreement import (
        Asked,
        agreement_page,
        list_disagreements,
        report_agreement,
    )
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    lake = Lake.open(settings)
    names = _workloads(lake) if by == "workload" else [task.name]
    reports = [
        report_agreement(
            lake, Asked(workload=one, name=name, source_type=source_type, guideline=guideline)
        )
        for one in names
    ]
    if html is not None:
        if by == "workload":
            raise typer.BadParameter("a page is of one workload: leave --by workload out")
        page = agreement_page(reports[0], list_disagreements(lake, task.name, name))
        html.write_text(page, encoding="utf-8")
        messages.print(f"wrote {html}")
    if json:
        print_json(reports if by == "workload" else reports[0])
        return
    for report in reports:
        _print(report, by)


def disagreements(
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    name: NameOption = None,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 50,
    json: JsonOption = False,
) -> None:
    """List what experts disagree on and no adjudication has settled, the worst first.

    A label with round `adjudication` by a person settles an item.

    Example: flywheel label disagreements --name urgency --home demo
    """
    _needs_numpy()
    from flywheel.label.agreement import list_disagreements
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    found = list_disagreements(Lake.open(settings), task.name, name, limit=limit)
    if json:
        print_json(found)
        return
    print_table(
        f"{task.name}: waiting for adjudication",
        ["item", "question", "raters", "agreement", "majority", "who said what"],
        [
            [
                escape(one.item),
                escape(one.name),
                one.raters,
                f"{one.agreement:.2f}",
                "yes" if one.has_majority else "no",
                escape(one.told),
            ]
            for one in found
        ],
    )


def calibrate(
    judge: Annotated[str, typer.Argument(help="A judge's name: the name of its judgements.")],
    against: Annotated[str, typer.Option(help="The name of the experts' labels.")],
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    share_of: Annotated[
        str | None,
        typer.Option(
            help="Estimate the share of this answer, else the mean score: a category; a number "
            "(1 is a review's pass, 0 its fail); of pairs A, B or tie."
        ),
    ] = None,
    population: Annotated[
        Literal["items", "process"],
        typer.Option(help="The mean of the judged items, or of the traffic they are a sample of."),
    ] = "items",
    json: JsonOption = False,
) -> None:
    """Estimate what experts would say of all a judge judged, from those they labelled at random.

    Only labels with a known inclusion probability count: others were picked, and would bias it.
    Only judgements of the judge as the workload declares it count, else of its latest version.

    Example: flywheel label calibrate helpful --against helpful --home demo
    """
    _needs_numpy()
    from flywheel.graders.judge import build_judges
    from flywheel.label.calibrating import calibrate as estimate
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    found = estimate(
        Lake.open(settings),
        task.name,
        judge,
        against,
        share_of=share_of,
        version=build_judges(task)[judge].identity if judge in task.judges else None,
        population=population,
    )
    if json:
        print_json(found)
        return
    _print_calibration(found)


def _print_calibration(found: "Calibration") -> None:
    mean = found.mean
    what = f"share of {found.share_of!r}" if found.share_of else "mean score"
    print_table(
        escape(f"{found.workload}: {what} by {found.against}, with judge {found.judge}"),
        ["estimate", "value", "interval", "rests on"],
        [
            ["calibrated (PPI++)", *_interval(mean.estimate), f"{mean.judged} judged items"],
            ["labels only", *_interval(mean.labels_only), f"{mean.labelled} random labels"],
            [
                "judge alone, uncorrected",
                f"{mean.judge_only:.3f}",
                "",
                f"{mean.judged} judged items",
            ],
        ],
    )
    messages.print(
        f"lambda {mean.lam:.2f}; the judge failed on {found.failed}; left out: {found.not_random} "
        f"labels that were not drawn at random, {found.not_judged} of items not judged, "
        f"{found.labels_without_score} without a score"
    )
    if found.other_versions:
        messages.print(
            f"left out: {found.other_versions} judgements of other versions of "
            f"{escape(found.judge)}; these are of {found.version or 'the one without a hash'}"
        )


def _print(report: "AgreementReport", by: str) -> None:
    asked = report.asked
    groups = {"week": report.weeks, "guideline": report.guidelines}.get(by, report.overall)
    is_empty = not report.overall
    if by == "rater" and not is_empty:
        _print_raters(report)
    elif not is_empty:
        _print_groups(f"{asked.workload}: agreement of {asked.source_type} raters", groups)
    if by in ("criterion", "rater") and not is_empty:
        _print_pairs(report)
    for note in report.notes:
        messages.print(f"[yellow]note:[/] {escape(note)}")
    if report.disagreements:
        messages.print(
            f"{report.disagreements} items wait for adjudication: `flywheel label disagreements`"
        )


def _print_groups(title: str, groups: "tuple[GroupAgreement, ...]") -> None:
    measures = list(dict.fromkeys(c.measure for one in groups for c in one.coefficients))
    rows: list[list[JsonValue]] = []
    reasons: dict[str, None] = {}
    for one in groups:
        found = {c.measure: c for c in one.coefficients}
        reasons |= dict.fromkeys(f"{one.name}: {c.reason}" for c in found.values() if c.reason)
        rows.append(
            [
                escape(one.name),
                escape(one.group or ""),
                one.raters,
                one.items,
                "" if one.unanimous is None else f"{one.unanimous.mean:.1%}",
                *(_told(found.get(measure)) for measure in measures),
            ]
        )
    titles = [measure.replace("_", " ") for measure in measures]
    print_table(title, ["question", "", "raters", "items", "unanimous", *titles], rows)
    for reason in reasons:
        messages.print(f"[yellow]note:[/] {escape(reason)}")


def _print_pairs(report: "AgreementReport") -> None:
    print_table(
        "each two raters",
        ["question", "rater", "rater", "items", "agreement", "Cohen's kappa", "quadratic"],
        [
            [
                escape(pair.name),
                escape(pair.rater_a or "(no name)"),
                escape(pair.rater_b),
                pair.items,
                "" if pair.agreement is None else f"{pair.agreement.mean:.1%}",
                _told(pair.cohen_kappa) or escape(pair.cohen_kappa.reason or ""),
                _told(pair.cohen_kappa_quadratic),
            ]
            for pair in report.pairs
        ],
    )


def _print_raters(report: "AgreementReport") -> None:
    print_table(
        f"{report.asked.workload}: raters",
        ["question", "rater", "ratings", "agrees with others", "gold items", "agrees with gold"],
        [
            [
                escape(one.name),
                escape(one.rater or "(no name)"),
                one.ratings,
                " ".join(map(str, _interval(one.with_others))),
                one.gold.items,
                " ".join(map(str, _interval(one.gold.agreement))),
            ]
            for one in report.raters
        ],
    )
    if report.drift:
        print_table(
            "agreement with gold by week",
            ["question", "rater", "week", "items", "share", "interval"],
            [
                [
                    escape(one.name),
                    escape(one.rater),
                    one.week,
                    one.items,
                    *_interval(one.agreement),
                ]
                for one in report.drift
            ],
        )


def _told(one: "Coefficient | None") -> str:
    if one is None or one.value is None:
        return ""
    interval = "" if one.low is None else f" \\[{one.low:.3f}, {one.high:.3f}]"
    return f"{one.value:.3f}{interval}"


def _interval(one: "Interval | None") -> list[JsonValue]:
    return ["", ""] if one is None else [f"{one.mean:.3f}", f"\\[{one.low:.3f}, {one.high:.3f}]"]


def _workloads(lake: "Lake") -> list[str]:
    rows = lake.query("SELECT DISTINCT workload FROM assessments ORDER BY workload")
    return [str(name) for name in rows.column("workload").to_pylist()]


def _needs_numpy() -> None:
    try:
        import numpy  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("numpy", "label") from error
