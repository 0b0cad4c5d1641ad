"""On data nobody here wrote: PandaLM's 999 pairs, three raters and a recorded judge.

PandaLM (Wang et al. 2023, arXiv:2306.05087), human test set v1. Skipped where it is not beside the
checkout; the same ground is covered on the project's own data by the other tests.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.ppi_coverage import measure, pandalm, simulated
from flywheel.cli import app
from flywheel.label.calibration import Population
from flywheel.lake import Lake
from flywheel.testing import make_assessment
from tests.label.agreement.world import MONDAY

EXAMPLE = Path(__file__).parents[3] / "examples" / "triage" / "flywheel.yaml"
SAID = {0: "tie", 1: "A", 2: "B"}


def lines(items: list[dict[str, int]]) -> Iterator[str]:
    """The three ratings of each pair as rows of a label file."""
    for item in items:
        pair = {f"pair_{side}": f"pandalm-{item['idx']:04d}-{n}" for n, side in enumerate("ab")}
        for rater in ("annotator1", "annotator2", "annotator3"):
            said = {"name": "better", "label": SAID[item[rater]], "source_id": rater}
            yield json.dumps({**pair, **said})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pandalm")
    data = Path(__file__).resolve().parents[4] / "shared" / "data" / "pandalm"
    if not data.is_dir():
        pytest.skip("../shared/data/pandalm is not beside this checkout")
    items = json.loads((data / "testset-v1.json").read_text(encoding="utf-8"))
    (folder / "labels.jsonl").write_text("\n".join(lines(items)) + "\n", encoding="utf-8")
    told = label(folder / "home", "import", str(folder / "labels.jsonl"))
    assert told["written"] == 2997
    return folder / "home"


def label(home: Path, *args: str) -> dict[str, Any]:
    result = CliRunner().invoke(
        app, ["label", *args, "--json", "--home", str(home), "--workload", str(EXAMPLE)]
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert isinstance(told, dict)
    return told


def test_the_published_agreement_is_reproduced_to_three_digits(home: Path) -> None:
    """Through `flywheel label import` and `flywheel label agreement --json`."""
    report = label(home, "agreement", "--name", "better")
    (overall,) = report["overall"]
    values = {one["measure"]: round(one["value"], 3) for one in overall["coefficients"]}
    assert values["fleiss_kappa"] == 0.864
    assert values["krippendorff_nominal"] == 0.864
    assert round(overall["unanimous"]["mean"], 3) == 0.880
    pairs = [round(pair["cohen_kappa"]["value"], 3) for pair in report["pairs"]]
    assert pairs == [0.852, 0.879, 0.862]
    assert report["disagreements"] == 120


def test_the_judge_is_calibrated_against_two_hundred_random_labels(
    home: Path, shared_data: Path
) -> None:
    """Every fifth pair stands for a draw with probability .2; the truth is all 999 pairs'."""
    lake = Lake(str(home / "lake"))
    win, said = pandalm(shared_data / "pandalm")["win rate"]
    judged = [
        make_assessment(
            assessment_id=f"judge-{n}", interaction_id=None, kind="preference", name="gpt",
            pair_ids=(f"pandalm-{n:04d}-0", f"pandalm-{n:04d}-1"), source_type="llm_judge",
            source_id="judge:gpt/gpt-3.5-turbo", value=value, created_at=MONDAY,
            label={1.0: "A", 0.0: "B", 0.5: "tie"}[value],
        )
        for n, value in enumerate(said)
    ]  # fmt: skip
    drawn = [
        make_assessment(
            assessment_id=f"drawn-{n}", interaction_id=None, kind="preference", name="drawn",
            pair_ids=(f"pandalm-{n:04d}-0", f"pandalm-{n:04d}-1"), value=win[n], label="tie"
            if win[n] == 0.5 else None, inclusion_prob=0.2, created_at=MONDAY,
        )
        for n in range(0, 999, 5)
    ]  # fmt: skip
    lake.append([*judged, *drawn])
    told = label(home, "calibrate", "gpt", "--against", "drawn")
    mean = told["mean"]
    estimate, alone = mean["estimate"], mean["labels_only"]
    assert (mean["judged"], mean["labelled"]) == (999, 200)
    assert estimate["low"] <= win.mean() <= estimate["high"]
    assert estimate["high"] - estimate["low"] < 0.88 * (alone["high"] - alone["low"])


@pytest.mark.parametrize("labelled", [50, 100, 200])
@pytest.mark.parametrize("population", ["items", pytest.param("process", marks=pytest.mark.slow)])
def test_intervals_cover_and_are_narrower_on_pandalm(
    shared_data: Path, population: Population, labelled: int
) -> None:
    """2,000 draws: within 94 to 96 %, and at least 12 % under labels only."""
    values = pandalm(shared_data / "pandalm")["win rate"]
    found = measure("PandaLM", "win rate", values, labelled=labelled, population=population)
    assert 0.94 <= found.covered <= 0.96
    assert found.narrower >= 0.12


def test_intervals_cover_and_are_narrower_on_the_projects_own_set() -> None:
    found = measure(
        "simulated", "pass rate", simulated()["pass rate"],
        labelled=100, population="items", draws=1000,
    )  # fmt: skip
    assert 0.935 <= found.covered <= 0.965
    assert found.narrower >= 0.12
