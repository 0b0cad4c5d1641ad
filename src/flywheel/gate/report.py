"""What a gate leaves for people: numbers, a table of items, two pictures. It decides nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flywheel.gate.decide import Metric, Pair
from flywheel.records import Comparison, Decision, JsonObject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"PASS": "#2e7d32", "FAIL": "#c62828", "INCONCLUSIVE": "#b26a00"}
_RIGHT = 0.5
"""At or above it a score counts as right, in a picture of agreement only."""


def gate_metrics(decision: Decision) -> dict[str, float]:
    """`candidate.accuracy`, `candidate.accuracy_low`, … for both models and the difference."""
    metrics: dict[str, float] = {}
    for one in decision.comparisons:
        sides = {"candidate": one.candidate, "champion": one.champion, "difference": one.difference}
        for role, interval in sides.items():
            metrics[f"{role}.{one.name}"] = interval.mean
            metrics[f"{role}.{one.name}_low"] = interval.low
            metrics[f"{role}.{one.name}_high"] = interval.high
        metrics[f"items.{one.name}"] = one.n
    return metrics


def item_rows(pairs: Sequence[Pair]) -> list[JsonObject]:
    """A row an item: what was asked, what both answered, how both scored; disagreements first."""
    return [_item_row(pair) for pair in sorted(pairs, key=lambda pair: not _differs(pair))]


def comparison_rows(decision: Decision) -> list[JsonObject]:
    """A row a comparison, as a person reads it."""
    return [
        {
            "metric": one.name,
            "rule": one.rule,
            "margin": one.margin,
            "items": one.n,
            "clusters": one.clusters,
            "champion": round(one.champion.mean, 4),
            "candidate": round(one.candidate.mean, 4),
            "difference": round(one.difference.mean, 4),
            "low": round(one.difference.low, 4),
            "high": round(one.difference.high, 4),
            "verdict": one.verdict,
            "reason": one.reason,
        }
        for one in decision.comparisons
    ]


def draw_intervals(decision: Decision) -> "Figure":
    """The paired difference of each metric with its interval, and the bound it must clear."""
    from matplotlib.figure import Figure

    found = [one for one in decision.comparisons if one.rule != "never_again"]
    figure = Figure(figsize=(8, 1.4 + 0.7 * len(found)), layout="constrained")
    axes = figure.subplots()
    for row, one in enumerate(reversed(found)):
        gap, colour = one.difference, COLOURS[one.verdict]
        axes.plot([gap.low, gap.high], [row, row], color=colour, linewidth=3)
        axes.plot([gap.mean], [row], "o", color=colour, markersize=8)
        bound = one.margin if one.rule == "superiority" else -one.margin
        axes.plot([bound, bound], [row - 0.3, row + 0.3], color="black", linewidth=1.5)
    axes.axvline(0, color="grey", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(found)), [_row_label(one) for one in reversed(found)])
    axes.set_ylim(-0.6, len(found) - 0.4)
    level = found[0].difference.level if found else 0.95
    axes.set_xlabel(
        f"candidate minus champion, {level:.0%} interval; the black mark is what it must clear"
    )
    axes.set_title(f"{decision.verdict}: {decision.candidate} against {decision.champion}")
    return figure


def draw_agreement(
    decision: Decision, metrics: Sequence[Metric], pairs: Sequence[Pair]
) -> "Figure":
    """Which items only one of the two got right, a square a metric: a gate lives off those."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(metrics), 3.6), layout="constrained")
    squares = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(squares, metrics, strict=True):
        _draw_square(axes, metric, [pair for pair in pairs if metric.selects(pair.item)])
    figure.suptitle(f"{decision.candidate} against {decision.champion}")
    return figure


def _draw_square(axes: "Axes", metric: Metric, pairs: Sequence[Pair]) -> None:
    counts = [[0, 0], [0, 0]]
    for pair in pairs:
        mine, theirs = _is_right(metric, pair)
        counts[0 if theirs else 1][0 if mine else 1] += 1
    axes.imshow(counts, cmap="Blues", vmin=0, vmax=max(1, len(pairs)))
    for row in range(2):
        for column in range(2):
            share = counts[row][column] / max(1, len(pairs))
            axes.text(
                column,
                row,
                f"{counts[row][column]}\n{share:.0%}",
                ha="center",
                va="center",
                color="white" if share > 0.5 else "black",
            )
    axes.set_xticks([0, 1], ["right", "wrong"])
    axes.set_yticks([0, 1], ["right", "wrong"])
    axes.set_xlabel("candidate")
    axes.set_ylabel("champion")
    axes.set_title(f"{metric.name} (n={len(pairs)})", fontsize=10)


def _is_right(metric: Metric, pair: Pair) -> tuple[bool, bool]:
    mine, theirs = (one.scores.get(metric.grader) for one in (pair.candidate, pair.champion))
    return (mine or 0) >= _RIGHT, (theirs or 0) >= _RIGHT


def _item_row(pair: Pair) -> JsonObject:
    row: JsonObject = {
        "item_id": pair.item.item_id,
        "cluster_id": pair.item.cluster_id or pair.item.item_id,
        "asked": pair.item.messages[-1].text,
        "reference": dict(pair.item.reference),
        "champion_output": pair.champion.output,
        "candidate_output": pair.candidate.output,
    }
    for name in pair.candidate.scores:
        row[f"champion.{name}"] = pair.champion.scores.get(name)
        row[f"candidate.{name}"] = pair.candidate.scores.get(name)
    row["differs"] = _differs(pair)
    row["error"] = pair.candidate.error_type or pair.champion.error_type
    return row


def _differs(pair: Pair) -> bool:
    return pair.candidate.scores != pair.champion.scores


def _row_label(one: Comparison) -> str:
    rule = "better" if one.rule == "superiority" else f"no worse than -{one.margin:g}"
    return f"{one.name}\n{rule}: {one.verdict}"
