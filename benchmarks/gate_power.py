"""How often the gate's intervals hold the truth, and what they can prove: simulated, side by side.

Three intervals of the same paired difference: `naive` (bootstrap of items, as if independent),
`cluster` (percentile bootstrap of clusters, what most tools that know of clusters do) and `gate`
(ours: the wider of an expanded cluster bootstrap and a score interval). Nominal: 95 % covered, and
2.5 % of lower ends above the truth, which is a wrong PASS of a candidate at the margin.

Command: `make bench NAME=gate_power`. Output: two tables, and benchmarks/results/gate_power.json.
It takes a minute or two on one core, and no model.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from flywheel.gate.statistics import PairedScores, paired_intervals
from flywheel.gate.statistics import items_needed as planned
from flywheel.statistics import FloatArray, IntArray

ROUNDS = 1000
RESAMPLES = 500
ALPHA = 0.025
SEED = 7
RESULTS = Path(__file__).parent / "results" / "gate_power.json"


@dataclass(frozen=True)
class World:
    """A truth to draw suites from."""

    name: str
    clusters: int
    size: tuple[int, int]
    """Smallest and largest number of items a cluster has."""
    gain: float
    """Share of items only the candidate gets right."""
    loss: float
    """Share of items only the champion gets right."""
    dependence: float
    """Chance that all items of a cluster share one outcome; 0 is independent."""

    @property
    def truth(self) -> float:
        """The difference a suite without end would show."""
        return self.gain - self.loss


COVERAGE = (
    World("120 single items, 10 % won and lost", 120, (1, 1), 0.10, 0.10, 0.0),
    World("120 single items, 30 % won, 5 % lost", 120, (1, 1), 0.30, 0.05, 0.0),
    World("200 single items, 2 % lost", 200, (1, 1), 0.0, 0.02, 0.0),
    World("40 clusters of 2-9, independent", 40, (2, 9), 0.10, 0.10, 0.0),
    World("40 clusters of 2-9, dependent", 40, (2, 9), 0.10, 0.10, 0.5),
    World("40 clusters of 2-9, dependent, 2 % lost", 40, (2, 9), 0.0, 0.02, 0.5),
    World("12 clusters of 2-9, dependent", 12, (2, 9), 0.20, 0.10, 0.5),
)
POWER = tuple(
    World(f"{n} items, {name}", n, (1, 1), gain, loss, 0.0)
    for name, gain, loss in (("equal, 10 % won and lost", 0.1, 0.1), ("5 points worse", 0.05, 0.10))
    for n in (144, 300, 628, 1745)
)
MARGIN = 0.05


def draw(random: np.random.Generator, world: World) -> PairedScores:
    """One suite both models answered."""
    sizes = random.integers(world.size[0], world.size[1] + 1, world.clusters)
    clusters = np.repeat(np.arange(world.clusters), sizes)
    both = 0.6 * (1 - world.gain - world.loss)
    shares = [world.gain, world.loss, both, 1 - world.gain - world.loss - both]
    own = random.choice(4, size=len(clusters), p=shares)
    shared = random.choice(4, size=world.clusters, p=shares)[clusters]
    is_shared = (random.random(world.clusters) < world.dependence)[clusters]
    outcome = np.where(is_shared, shared, own)
    return PairedScores(
        candidate=np.isin(outcome, (0, 2)).astype(np.float64),
        champion=np.isin(outcome, (1, 2)).astype(np.float64),
        clusters=clusters,
    )


Interval = tuple[float, float]
Method = Callable[[PairedScores, int], Interval]


def naive(scores: PairedScores, seed: int) -> Interval:
    """Items resampled as if they were independent."""
    gap = scores.candidate - scores.champion
    return _percentiles(gap, np.arange(len(gap)), seed)


def cluster(scores: PairedScores, seed: int) -> Interval:
    """Clusters resampled, plain percentiles."""
    return _percentiles(scores.candidate - scores.champion, scores.clusters, seed)


def gate(scores: PairedScores, seed: int) -> Interval:
    """What the gate decides by."""
    found = paired_intervals(scores, alpha=ALPHA, resamples=RESAMPLES, seed=seed).difference
    return found.low, found.high


METHODS: dict[str, Method] = {"naive": naive, "cluster": cluster, "gate": gate}


def _percentiles(gap: FloatArray, clusters: IntArray, seed: int) -> Interval:
    count = int(clusters.max()) + 1
    sums = np.stack([np.bincount(clusters, gap), np.bincount(clusters)], axis=1)
    kinds, counts = np.unique(sums, axis=0, return_counts=True)
    random = np.random.default_rng(seed)
    totals = random.multinomial(count, counts / count, size=RESAMPLES) @ kinds
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [ALPHA, 1 - ALPHA])
    return float(low), float(high)


@dataclass(frozen=True)
class Score:
    """How one interval did in one world."""

    covered: float
    wrong_low: float
    """Share of lower ends above the truth; nominal 0.025."""
    width: float
    passed: float
    """Share of lower ends above minus the margin: a guardrail that passes."""


def measure(world: World) -> dict[str, Score]:
    """All methods on the same suites."""
    random = np.random.default_rng(SEED)
    ends: dict[str, list[Interval]] = {name: [] for name in METHODS}
    for seed in range(ROUNDS):
        scores = draw(random, world)
        for name, method in METHODS.items():
            ends[name].append(method(scores, seed))
    return {name: _score(np.array(found), world.truth) for name, found in ends.items()}


def _score(ends: FloatArray, truth: float) -> Score:
    low, high = ends[:, 0], ends[:, 1]
    return Score(
        covered=float(((low <= truth + 1e-12) & (truth <= high + 1e-12)).mean()),
        wrong_low=float((low > truth + 1e-12).mean()),
        width=float((high - low).mean()),
        passed=float((low > -MARGIN).mean()),
    )


def main() -> None:
    """Runs both tables and writes the results."""
    console = Console(width=100)
    coverage = {world: measure(world) for world in COVERAGE}
    table = Table(title=f"95 % intervals in {ROUNDS} simulated suites each", title_justify="left")
    for heading in ("suite", "interval", "covers", "low end wrong", "width, naive = 1"):
        table.add_column(heading, justify="left" if heading in ("suite", "interval") else "right")
    for world, scores in coverage.items():
        for name, score in scores.items():
            table.add_row(
                world.name if name == "naive" else "",
                name,
                f"{score.covered:.1%}",
                f"{score.wrong_low:.1%}",
                f"{score.width / scores['naive'].width:.2f}",
            )
    console.print(table)
    power = {world: measure(world) for world in POWER}
    table = Table(
        title=f"Of {ROUNDS} suites a guardrail with margin {MARGIN:g} passes",
        title_justify="left",
    )
    for heading in ("truth", "naive", "cluster", "gate"):
        table.add_column(heading, justify="left" if heading == "truth" else "right")
    for world, scores in power.items():
        table.add_row(world.name, *(f"{scores[name].passed:.1%}" for name in METHODS))
    console.print(table)
    needed = planned(distance=MARGIN, variance=0.2)
    console.print(f"planned for 80 % power at 20 % discordance: {needed} items")
    _write(coverage, power)
    console.print(f"written: {RESULTS}")


def _write(*tables: dict[World, dict[str, Score]]) -> None:
    rows = [
        {**asdict(world), "truth": world.truth, "method": name, **asdict(score)}
        for table in tables
        for world, scores in table.items()
        for name, score in scores.items()
    ]
    result = {
        "rounds": ROUNDS,
        "resamples": RESAMPLES,
        "alpha": ALPHA,
        "margin": MARGIN,
        "seed": SEED,
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
