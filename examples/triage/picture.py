"""The learning curve: what each night's candidate could do, and who kept serving."""

from pathlib import Path

from flywheel.cli.demo import CHANCE, DemoResult

INK, GREY, GOOD, OPEN, BAD = "#1b2a41", "#8a94a6", "#1f7a5c", "#a86a12", "#b3392f"
OUTCOMES = {"PASS": ("promoted", GOOD), "INCONCLUSIVE": ("not proven, held", OPEN)}
REFUSED = ("refused", BAD)


def draw(result: DemoResult, path: Path) -> Path:
    """Writes a PNG: accuracy with its 95 % interval per night, the champion's as a step line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    names = ["base", *(f"night {night.night}\n{night.labels} labels" for night in result.nights)]
    scores = [result.base, *result.nights]
    serving = [result.base.accuracy]
    for night in result.nights:
        serving.append(night.accuracy if night.promoted else serving[-1])
    axes.step(range(len(scores)), serving, where="mid", color=INK, lw=2, label="serving", zorder=1)
    for index, score in enumerate(scores):
        named = result.nights[index - 1] if index else None
        word, colour = ("", GREY) if named is None else OUTCOMES.get(named.decision, REFUSED)
        low, high = score.accuracy_ci
        axes.plot([index, index], [low, high], color=colour, lw=5, alpha=0.35, zorder=2)
        axes.plot(index, score.accuracy, "o", color=colour, ms=9, zorder=3)
        if named is not None and named.poisoned:
            word += "\n(poisoned labels)"
        axes.annotate(
            f"{score.accuracy:.0%}\n{word}",
            (index, score.accuracy),
            textcoords="offset points",
            xytext=(12, -30 if index else 2),
            color=colour,
            fontsize=9,
        )
    axes.plot(
        range(len(scores)),
        [score.emergency_recall for score in scores],
        "^:",
        color=GREY,
        ms=5,
        lw=1,
        label="recall of emergencies",
    )
    axes.axhline(CHANCE, color=GREY, ls="--", lw=1)
    axes.text(-0.4, CHANCE + 0.01, "chance", color=GREY, fontsize=8)
    axes.set_xticks(range(len(scores)), names)
    axes.set(xlim=(-0.45, len(scores) - 0.35), ylim=(0, 1.02), ylabel="share of the hold-out")
    axes.set_title(
        f"{result.workload}: {result.base.n} complaints never seen in training",
        loc="left",
        color=INK,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    figure.savefig(path)
    return path
