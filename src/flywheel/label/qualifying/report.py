"""What a qualification leaves for people: numbers, two tables, two pictures. It decides nothing."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flywheel.graders.judge import Judge
from flywheel.label.qualifying.intervals import share_interval
from flywheel.label.qualifying.measures import Measured, criterion_kappa
from flywheel.label.qualifying.permission import count_gold_sets
from flywheel.label.qualifying.verdicts import GoldVerdict, criteria_of
from flywheel.records import Interval, JsonObject, Qualification, Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flywheel.tracking import TrackedRun

PASSED, FAILED = "#2e7d32", "#c62828"
MAX_CELL = 2_000
"""Characters of a text in the table of items."""


class QualificationReport(Record):
    """A measurement with what stands beside it."""

    qualification: Qualification
    accuracy: Interval | None
    """Share of items with every label the gold's. No bar: a lopsided gold makes it high."""
    notes: dict[str, str]
    """By measure, what is worth a word."""
    cost_usd: float | None
    """NULL where a price or the tokens are not known."""
    verdicts: tuple[GoldVerdict, ...]
    measurements: int
    """Of this very judge, with this one: of many tries one passes by luck."""
    gold_sets: int
    """Different gold labels among them."""


def make_report(
    qualification: Qualification,
    measured: Sequence[Measured],
    verdicts: Sequence[GoldVerdict],
    *,
    before: Sequence[Qualification] = (),
) -> QualificationReport:
    """Puts a measurement together with accuracy, notes, cost and the earlier ones of the judge."""
    answered = [verdict for verdict in verdicts if verdict.has_verdict]
    clusters = [verdict.item.cluster for verdict in answered]
    costs = [verdict.cost_usd for verdict in verdicts]
    return QualificationReport(
        qualification=qualification,
        accuracy=share_interval([verdict.is_right for verdict in answered], clusters),
        notes={one.measure.name: one.note for one in measured if one.note is not None},
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        verdicts=tuple(verdicts),
        measurements=len(before) + 1,
        gold_sets=count_gold_sets([*before, qualification]),
    )


def log_report(run: "TrackedRun", judge: Judge, report: QualificationReport) -> None:
    """Puts the evidence into an MLflow run.

    Raises:
        UpstreamUnavailableError: MLflow does not answer.
        TrackingError: it refuses.
    """
    found = report.qualification
    run.set_tags({"qualified": str(found.qualified).lower(), "gold_hash": found.gold_hash})
    run.log_params(
        {
            "judge": judge.name,
            "judge_hash": found.judge_hash,
            "judge_model": found.judge_model,
            "rubric": found.rubric,
            "bars": judge.section.bars.model_dump(mode="json"),
            "gold_hash": found.gold_hash,
            "items": found.items,
        }
    )
    run.log_metrics(report_metrics(judge, report))
    run.log_table("measures", measure_rows(report))
    run.log_table("items", item_rows(report.verdicts))
    run.log_figure(draw_confusion(judge, report.verdicts), "confusion.png")
    run.log_figure(draw_intervals(found), "intervals.png")
    run.log_text(judge.rubric.text, "rubric.md")
    run.log_text(found.model_dump_json(indent=2), "qualification.json")


def report_metrics(judge: Judge, report: QualificationReport) -> dict[str, float]:
    """`kappa`, `kappa_low`, `kappa_high`, … and what it rests on; what is not known is left out."""
    found = report.qualification
    metrics: dict[str, float] = {"items": found.items, "errors": found.errors}
    metrics["qualified"] = float(found.qualified)
    metrics |= {"measurements": report.measurements, "gold_sets": report.gold_sets}
    for measure in found.measures:
        ends = {"": measure.value, "_low": measure.low, "_high": measure.high}
        metrics |= {f"{measure.name}{end}": v for end, v in ends.items() if v is not None}
    answered = [verdict for verdict in report.verdicts if verdict.has_verdict]
    if len(criteria_of(judge)) > 1 and answered:
        for name in criteria_of(judge):
            interval, _ = criterion_kappa(judge, name, answered)
            metrics |= {f"kappa.{name}": interval.mean} if interval else {}
    if report.accuracy is not None:
        accuracy = report.accuracy
        metrics |= {"accuracy": accuracy.mean, "accuracy_low": accuracy.low}
        metrics["accuracy_high"] = accuracy.high
    metrics["input_tokens"] = sum(verdict.input_tokens for verdict in report.verdicts)
    metrics["output_tokens"] = sum(verdict.output_tokens for verdict in report.verdicts)
    return metrics | ({"cost_usd": report.cost_usd} if report.cost_usd is not None else {})


def measure_rows(report: QualificationReport) -> list[JsonObject]:
    """A row a measure, as a person reads it."""
    return [
        {
            "measure": measure.name,
            "value": _rounded(measure.value),
            "low": _rounded(measure.low),
            "high": _rounded(measure.high),
            "bar": measure.bar,
            "items": measure.n,
            "passed": measure.passed,
            "note": report.notes.get(measure.name),
        }
        for measure in report.qualification.measures
    ]


def item_rows(verdicts: Sequence[GoldVerdict]) -> list[JsonObject]:
    """A row an item: what was asked and answered, the gold, the judge; what it got wrong first."""
    return [_item_row(verdict) for verdict in sorted(verdicts, key=_rank)]


def draw_confusion(judge: Judge, verdicts: Sequence[GoldVerdict]) -> "Figure":
    """How often each gold label got each of the judge's, a panel for each criterion."""
    from matplotlib.figure import Figure

    names = criteria_of(judge)
    answered = [verdict for verdict in verdicts if verdict.has_verdict]
    figure = Figure(figsize=(4.6 * len(names) + 0.6, 4.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        pairs = Counter((v.item.gold(name), v.labels[name]) for v in answered)
        rows = sorted({gold for gold, _ in pairs})
        columns = sorted({label for pair in pairs for label in pair})
        grid = [[pairs[row, column] for column in columns] for row in rows]
        if grid:
            axes.imshow(grid, cmap="Blues", vmin=0)
        dark = max((max(row) for row in grid), default=0) / 2
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                count = pairs[row, column]
                colour = "white" if count > dark else "black"
                axes.text(j, i, str(count), ha="center", va="center", color=colour)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel("judge")
        axes.set_ylabel("gold")
        axes.set_title(name)
    return figure


def draw_intervals(found: Qualification) -> "Figure":
    """Each measure with its interval and its bar; green where the interval clears it."""
    from matplotlib.figure import Figure

    measures = [
        (one, one.value, one.low, one.high)
        for one in found.measures
        if one.value is not None and one.low is not None and one.high is not None
    ]
    figure = Figure(figsize=(8, 1.6 + 0.7 * len(measures)), layout="constrained")
    axes = figure.subplots()
    for row, (one, value, low, high) in enumerate(reversed(measures)):
        colour = PASSED if one.passed else FAILED
        axes.plot([low, high], [row, row], color=colour, linewidth=3)
        axes.plot([value], [row], "o", color=colour, markersize=8)
        is_bias = one.name in ("length_bias", "self_preference")
        for bar in (-one.bar, one.bar) if is_bias else (one.bar,):
            axes.plot([bar, bar], [row - 0.3, row + 0.3], color="black", linewidth=1.5)
    axes.axvline(0, color="grey", linewidth=0.8, linestyle=":")
    names = [f"{one.name} (n={one.n})" for one, *_ in reversed(measures)]
    axes.set_yticks(range(len(measures)), names)
    axes.set_ylim(-0.6, max(len(measures), 1) - 0.4)
    axes.set_xlim(-1.02, 1.02)
    axes.set_xlabel("95% interval; black marks are the bars: agreement right of, bias between them")
    verdict = "qualified" if found.qualified else "not qualified"
    axes.set_title(f"{found.judge} ({found.judge_model}, {found.rubric}): {verdict}")
    return figure


def _rank(verdict: GoldVerdict) -> int:
    return 1 if not verdict.has_verdict else 2 if verdict.is_right else 0


def _item_row(verdict: GoldVerdict) -> JsonObject:
    item = verdict.item
    asked = next((m.text for m in reversed(item.messages) if m.role == "user"), "")
    pair = len(item.responses) == 2
    gold = {name: item.gold(name) for name in verdict.labels} or {"": item.label or "?"}
    return {
        "item_id": item.item_id,
        "cluster_id": item.cluster,
        "gold": ", ".join(gold.values()),
        "judge": ", ".join(verdict.labels.values()) or None,
        "right": verdict.is_right if verdict.has_verdict else None,
        "order_ab": verdict.orders[0] if verdict.orders else None,
        "order_ba": verdict.orders[1] if verdict.orders else None,
        "error_type": verdict.error_type,
        "asked": asked[:MAX_CELL],
        "response_a" if pair else "response": item.responses[0].text[:MAX_CELL],
        **({"response_b": item.responses[1].text[:MAX_CELL]} if pair else {}),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
