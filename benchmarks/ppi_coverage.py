"""How often a calibrated mean's interval holds the truth, and how much narrower it is.

PandaLM's human test set (999 pairs of answers, three raters) with its recorded GPT-3.5 judge, read
from ../shared/data; without it a simulated set of the same size. Twice: slices of the items drawn
without replacement, truth their mean (`population="items"`); and items and slice both drawn anew
from the set, as traffic is (`population="process"`). Nominal coverage: 95 %; the standard error of
2,000 draws is half a point.

Command: `make bench NAME=ppi_coverage`. Output: a table and benchmarks/results/ppi_coverage.json.
It takes a minute on one core.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from flywheel.label.calibration import Population, ppi_mean

Floats = NDArray[np.float64]

DRAWS = 2000
SEED = 11
SIZES = (50, 100, 200)
FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "pandalm"
RESULTS = Path(__file__).parent / "results" / "ppi_coverage.json"


@dataclass(frozen=True)
class Coverage:
    """What so many draws of one size came to."""

    data: str
    mean_of: str
    population: Population
    labelled: int
    draws: int
    covered: float
    """Share of intervals that hold the truth."""
    labels_only_covered: float
    width: float
    labels_only_width: float
    narrower: float
    """1 less the ratio of the mean widths."""
    mean_lambda: float


def pandalm(folder: Path) -> dict[str, tuple[Floats, Floats]]:
    """What people and the judge said of each pair, as two kinds of mean.

    `win rate`: of the first answer, a tie half a win, raters averaged. `first preferred`: share of
    pairs whose majority prefers the first answer. A reply nobody can read is a tie.
    """
    items = json.loads((folder / "testset-v1.json").read_text(encoding="utf-8"))
    said = json.loads((folder / "judge-gpt-3.5-turbo.json").read_text(encoding="utf-8"))
    people = np.array([[item[f"annotator{n}"] for n in (1, 2, 3)] for item in items])
    judge = np.array([{"1": 1, "2": 2}.get(str(one["gpt_result"]).strip(), 0) for one in said])
    wins = np.array([0.5, 1.0, 0.0])
    first = ((people == 1).sum(axis=1) > 1).astype(np.float64)
    return {
        "win rate": (wins[people].mean(axis=1), wins[judge]),
        "first preferred": (first, (judge == 1).astype(np.float64)),
    }


def simulated(size: int = 999) -> dict[str, tuple[Floats, Floats]]:
    """Labels that pass 45 times in a hundred, and a judge right four times in five."""
    random = np.random.default_rng(SEED)
    labels = (random.random(size) < 0.45).astype(np.float64)
    return {"pass rate": (labels, np.where(random.random(size) < 0.8, labels, 1 - labels))}


def measure(  # noqa: PLR0913 - one row of the table
    data: str,
    mean_of: str,
    values: tuple[Floats, Floats],
    *,
    labelled: int,
    population: Population,
    draws: int = DRAWS,
) -> Coverage:
    """Draws slices, estimates, and counts."""
    labels, judge = values
    random, truth, size = np.random.default_rng(SEED), float(labels.mean()), len(labels)
    ends, lambdas = np.empty((draws, 4)), np.empty(draws)
    for row in range(draws):
        order = (
            random.permutation(size) if population == "items" else random.integers(0, size, size)
        )
        drawn, rest = order[:labelled], order[labelled:]
        found = ppi_mean(labels[drawn], judge[drawn], judge[rest], population=population)
        ends[row] = (
            found.estimate.low, found.estimate.high, found.labels_only.low, found.labels_only.high
        )  # fmt: skip
        lambdas[row] = found.lam
    low, high, labels_low, labels_high = ends.T
    width, labels_width = float((high - low).mean()), float((labels_high - labels_low).mean())
    return Coverage(
        data=data,
        mean_of=mean_of,
        population=population,
        labelled=labelled,
        draws=draws,
        covered=float(((low <= truth) & (truth <= high)).mean()),
        labels_only_covered=float(((labels_low <= truth) & (truth <= labels_high)).mean()),
        width=width,
        labels_only_width=labels_width,
        narrower=1 - width / labels_width,
        mean_lambda=float(lambdas.mean()),
    )


def main() -> None:
    """Prints the table and keeps the numbers."""
    is_there = FOLDER.is_dir()
    name, means = ("PandaLM", pandalm(FOLDER)) if is_there else ("simulated", simulated())
    populations: tuple[Population, ...] = ("items", "process")
    found = [
        measure(name, mean_of, values, labelled=labelled, population=population)
        for mean_of, values in means.items()
        for population in populations
        for labelled in SIZES
    ]
    table = Table(title=f"{name}: calibrated means, {DRAWS:,} draws, nominal 95 %")
    for column in (
        "mean of",
        "population",
        "labels",
        "covered",
        "labels only",
        "narrower",
        "lambda",
    ):
        table.add_column(column, justify="left" if column in ("mean of", "population") else "right")
    for one in found:
        table.add_row(
            one.mean_of,
            one.population,
            str(one.labelled),
            f"{one.covered:.1%}",
            f"{one.labels_only_covered:.1%}",
            f"{one.narrower:.1%}",
            f"{one.mean_lambda:.2f}",
        )
    Console().print(table)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
