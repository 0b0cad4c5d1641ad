"""Coefficients against well-kept peers, values worked by hand, and what has no value."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.label.agreement import cohen_kappa, fleiss_kappa, gwet_ac1, krippendorff_alpha

Units = list[list[str | None]]
PEERS = json.loads((Path(__file__).parent / "peers.json").read_text())


def pair(units: Units) -> tuple[list[str | None], list[str | None]]:
    return [unit[0] for unit in units], [unit[1] for unit in units]


OURS: dict[str, Callable[[Units], float | None]] = {
    "krippendorff nominal": krippendorff_alpha,
    "krippendorff ordinal": lambda units: krippendorff_alpha(units, level="ordinal"),
    "krippendorff interval": lambda units: krippendorff_alpha(units, level="interval"),
    "irrCAC gwet_ac1": gwet_ac1,
    "irrCAC fleiss": fleiss_kappa,
    "statsmodels fleiss": fleiss_kappa,
    "statsmodels cohen": lambda units: cohen_kappa(*pair(units)),
    "statsmodels cohen linear": lambda units: cohen_kappa(*pair(units), weights="linear"),
    "statsmodels cohen quadratic": lambda units: cohen_kappa(*pair(units), weights="quadratic"),
}


@pytest.mark.parametrize(
    ("name", "measure"),
    [(name, measure) for name, one in PEERS["sets"].items() for measure in one if measure in OURS],
)
def test_every_coefficient_is_the_peers(name: str, measure: str) -> None:
    one = PEERS["sets"][name]
    assert OURS[measure](one["units"]) == pytest.approx(one[measure], abs=1e-9)


def test_cohen_worked_by_hand() -> None:
    """Cohen (1960) by a table of 20 5 / 10 15: agreement .70, expected .50, kappa .40."""
    a = ["y"] * 25 + ["n"] * 25
    b = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohen_kappa(a, b) == pytest.approx(0.4)


def test_fleiss_of_the_paper() -> None:
    """Fleiss (1971), as Wikipedia works it: ten subjects, fourteen raters, five categories."""
    table = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    units = [[str(c) for c, count in enumerate(row) for _ in range(count)] for row in table]
    assert fleiss_kappa(units) == pytest.approx(0.20993, abs=1e-5)


def test_ac1_stays_high_where_kappa_collapses() -> None:
    """Gwet's paradox: 118 + 2 + 5 of 125 by two raters.

    Agreement 118/125 = .944. Shares of the rare category 2/125 and 5/125, mean .028: chance by AC1
    2 x .028 x .972 = .0544, so (.944 - .0544) / .9456 = .9408; kappa is below 0.
    """
    a = ["no"] * 118 + ["yes"] * 2 + ["no"] * 5
    b = ["no"] * 120 + ["yes"] * 5
    ac1 = gwet_ac1(list(zip(a, b, strict=True)))
    assert ac1 == pytest.approx(0.9408, abs=1e-4)
    kappa = cohen_kappa(a, b)
    assert kappa is not None
    assert kappa < 0


def test_the_order_of_categories_can_be_declared() -> None:
    """low < mid < high is not the alphabet's order; once by one step, twice by two."""
    a, b = ["low", "mid", "high", "low"], ["low", "high", "high", "mid"]
    declared = cohen_kappa(a, b, weights="quadratic", categories=["low", "mid", "high"])
    numbered = cohen_kappa(["1", "2", "3", "1"], ["1", "3", "3", "2"], weights="quadratic")
    assert declared == pytest.approx(numbered)
    assert declared != pytest.approx(cohen_kappa(a, b, weights="quadratic"))


def test_ten_comes_after_nine() -> None:
    """By alphabet 10 would lie beside 1, and a rating of 10 against 9 be the gravest there is."""
    near = krippendorff_alpha([["9", "10"], ["1", "1"], ["5", "5"], ["10", "10"]], level="ordinal")
    assert near is not None
    assert near > 0.9


@pytest.mark.parametrize("coefficient", [fleiss_kappa, gwet_ac1, krippendorff_alpha])
@pytest.mark.parametrize(
    "units",
    [
        pytest.param([], id="nothing"),
        pytest.param([[]], id="no rating"),
        pytest.param([["a", None], [None, "b"]], id="no overlap"),
        pytest.param([["a", "a"], ["a", "a"]], id="one category"),
    ],
)
def test_what_has_no_agreement_beyond_chance_has_no_value(
    coefficient: Callable[[Units], float | None], units: Units
) -> None:
    assert coefficient(units) is None


@pytest.mark.parametrize(
    ("a", "b"), [([], []), (["x", None], [None, "x"]), (["x", "x"], ["x", "x"]), ([None], [None])]
)
@pytest.mark.parametrize("weights", [None, "linear"])
def test_cohen_of_no_overlap_or_one_category_is_none(
    a: list[str | None], b: list[str | None], weights: None
) -> None:
    assert cohen_kappa(a, b, weights=weights) is None


def test_an_interval_scale_of_words_is_refused() -> None:
    with pytest.raises(ValueError, match="could not convert"):
        krippendorff_alpha([["low", "high"]], level="interval")


units = st.lists(
    st.lists(st.sampled_from(["1", "2", "3", None]), min_size=2, max_size=4), max_size=20
)


@settings(max_examples=40)
@given(units)
def test_a_coefficient_is_a_number_up_to_one_or_nothing(rows: Units) -> None:
    found = [
        fleiss_kappa(rows),
        gwet_ac1(rows),
        *(krippendorff_alpha(rows, level=level) for level in ("nominal", "ordinal", "interval")),
    ]
    assert all(value is None or -1e9 < value <= 1 + 1e-9 for value in found)


@settings(max_examples=40)
@given(units, st.permutations(range(4)))
def test_raters_of_alpha_are_exchangeable(rows: Units, order: list[int]) -> None:
    padded = [row + [None] * (4 - len(row)) for row in rows]
    shuffled = [[row[index] for index in order] for row in padded]
    assert krippendorff_alpha(shuffled) == pytest.approx(krippendorff_alpha(rows))
