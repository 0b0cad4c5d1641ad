"""`flywheel judge winrate`: how often one model is preferred, and how often at equal length."""

from typing import TYPE_CHECKING, Annotated

import typer

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

if TYPE_CHECKING:
    from flywheel.label.winrate import WinRate
    from flywheel.records import Interval
    from flywheel.workload import Workload


def winrate(
    judge: Annotated[str, typer.Argument(help="A pairwise entry of judges.")],
    model: Annotated[str, typer.Option(help="Whose wins count: a response_model.")],
    against: Annotated[str, typer.Option(help="The other model.")],
    labels: Annotated[
        str | None,
        typer.Option(
            help="The name of experts' preferences. Default: the judge's, if the review asks "
            "for it or for no preference; else the review's."
        ),
    ] = None,
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    json: JsonOption = False,
) -> None:
    """Win rate of one model over another, as it is, at equal length, and corrected by experts.

    Experts' preferences on a random slice of the same pairs correct it; without them it says so.

    Example: flywheel judge winrate better_answer --model triage-0a1b --against base --home demo
    """
    from flywheel.errors import JudgeError
    from flywheel.label.winrate import calibrate_rate, read_preferences, win_rate
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    lake = Lake.open(settings)
    found = read_preferences(lake, workload=task.name, judge=judge, model=model, against=against)
    if not found:
        raise JudgeError(
            f"{judge!r} has no verdict on a pair of {model!r} and {against!r}: "
            f"`flywheel judge run {judge}` makes them; `flywheel label summary` counts them"
        )
    calibrated = calibrate_rate(
        lake,
        workload=task.name,
        judge=judge,
        labels=labels or _asked_name(task, judge),
        model=model,
        against=against,
    )
    is_reason = isinstance(calibrated, str)
    rate = win_rate(found).model_copy(
        update={"uncalibrated" if is_reason else "calibrated": calibrated}
    )
    if json:
        print_json(rate)
        return
    _print(rate, f"{model} over {against}, by {judge}")


def _print(rate: "WinRate", title: str) -> None:
    print_table(
        title,
        ["pairs", "ties", "win rate", "at equal length", "longer answer wins"],
        [
            [
                rate.pairs,
                rate.ties,
                _percent(rate.win_rate),
                _percent(rate.length_controlled),
                None if rate.longer_wins is None else f"{rate.longer_wins:.0%}",
            ]
        ],
    )
    if rate.calibrated is not None:
        mean = rate.calibrated
        print_table(
            "what experts would say",
            ["estimate", "win rate", "rests on"],
            [
                ["calibrated (PPI++)", _percent(mean.estimate), f"{mean.judged} judged pairs"],
                ["labels only", _percent(mean.labels_only), f"{mean.labelled} random labels"],
            ],
        )
    else:
        console.print(f"uncalibrated: {rate.uncalibrated}")
    if rate.length_controlled is None:
        messages.print("at equal length: not told; it takes 10 pairs whose lengths differ")


def _asked_name(task: "Workload", judge: str) -> str:
    """The name of the preferences the workload's review asks for; the judge's where it may be."""
    questions = task.review.questions if task.review else {}
    names = [one.name or key for key, one in questions.items() if one.is_pairwise]
    return judge if judge in names or not names else names[0]


def _percent(interval: "Interval | None") -> str | None:
    if interval is None:
        return None
    return f"{interval.mean:.1%} ({interval.low:.1%} to {interval.high:.1%})"
