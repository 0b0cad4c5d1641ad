"""`flywheel judge winrate`: how often one model is preferred, and how often at equal length."""

from typing import TYPE_CHECKING, Annotated

import typer

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
    from flywheel.records import Interval


def winrate(
    judge: Annotated[str, typer.Argument(help="A pairwise entry of judges.")],
    model: Annotated[str, typer.Option(help="Whose wins count: a response_model.")],
    against: Annotated[str, typer.Option(help="The other model.")],
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    json: JsonOption = False,
) -> None:
    """Win rate of one model over another, as it is and at equal length.

    Example: flywheel judge winrate better_answer --model triage-0a1b --against base --home demo
    """
    from flywheel.errors import JudgeError
    from flywheel.label.winrate import read_preferences, win_rate
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    lake = Lake.open(settings)
    found = read_preferences(lake, workload=task.name, judge=judge, model=model, against=against)
    if not found:
        raise JudgeError(
            f"{judge!r} has no verdict on a pair of {model!r} and {against!r}: "
            f"`flywheel judge run {judge}` makes them; `flywheel label summary` counts them"
        )
    rate = win_rate(found)
    if json:
        print_json(rate)
        return
    print_table(
        f"{model} over {against}, by {judge}",
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
    if rate.length_controlled is None:
        messages.print("at equal length: not told; it takes 10 pairs whose lengths differ")


def _percent(interval: "Interval | None") -> str | None:
    if interval is None:
        return None
    return f"{interval.mean:.1%} ({interval.low:.1%} to {interval.high:.1%})"
