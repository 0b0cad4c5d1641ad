"""Prices: hand-worked costs, unknown is None, every mistake of a table at once."""

from pathlib import Path

import pytest

from flywheel.errors import ConfigError
from flywheel.prices import MAX_REMEMBERED, PriceTable, TokenUsage
from flywheel.settings import Settings

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "prices.yaml"


def table(folder: Path, text: str) -> PriceTable:
    path = folder / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    return PriceTable.load(path)


def test_cached_tokens_are_part_of_the_input_and_cheaper(tmp_path: Path) -> None:
    """600 x 2 + 400 x 1 + 100 x 10 = 2,600 millionths of a dollar."""
    prices = table(tmp_path, "m: {input: 2, cached_input: 1, output: 10}")
    assert prices.cost_usd("m", TokenUsage(1000, 100, 400)) == pytest.approx(0.0026)
    assert prices.cost_usd("m", TokenUsage(1000, 100)) == pytest.approx(0.003)


def test_without_a_price_for_cached_tokens_they_cost_what_input_costs(tmp_path: Path) -> None:
    prices = table(tmp_path, "m: {input: 2, output: 10}")
    assert prices.cost_usd("m", TokenUsage(1000, 0, 400)) == pytest.approx(0.002)


def test_an_unknown_cost_is_none_and_a_free_model_costs_zero(tmp_path: Path) -> None:
    prices = table(tmp_path, "free: {input: 0, output: 0}")
    assert prices.cost_usd("free", TokenUsage(1, 1)) == 0.0
    assert prices.cost_usd("free", None) is None
    assert prices.cost_usd("other", TokenUsage(1, 1)) is None
    assert PriceTable.load(None).cost_usd("free", TokenUsage(1, 1)) is None


def test_more_cached_tokens_than_input_are_not_charged_twice(tmp_path: Path) -> None:
    prices = table(tmp_path, "m: {input: 2, cached_input: 1, output: 1}")
    assert prices.cost_usd("m", TokenUsage(100, 0, 500)) == pytest.approx(100 / 1e6)


def test_a_name_wins_over_a_pattern_and_a_longer_pattern_over_a_shorter(tmp_path: Path) -> None:
    prices = table(
        tmp_path,
        "'*': {input: 1, output: 0}\n"
        "'gpt-4o*': {input: 3, output: 0}\n"
        "'gpt-*': {input: 2, output: 0}\n"
        "gpt-4o: {input: 4, output: 0}\n"
        "'a.c*': {input: 9, output: 0}\n",
    )
    million = TokenUsage(1_000_000, 0)
    costs = [
        prices.cost_usd(name, million) for name in ("x", "gpt-3", "gpt-4o-mini", "gpt-4o", "abc")
    ]
    assert costs == [1, 2, 3, 4, 1]


def test_names_a_server_makes_up_do_not_fill_the_memory(tmp_path: Path) -> None:
    prices = table(tmp_path, "m: {input: 1, output: 1}")
    for number in range(3 * MAX_REMEMBERED):
        prices.find(f"made-up-{number}")
    assert len(prices._remembered) <= MAX_REMEMBERED
    assert prices.find("m") is not None


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = (
        "a: {input: 1, output: -1}\n"
        "b: {inptu: 1, output: 1}\n"
        "c: 5\n"
        "4: {input: 1, output: 1}\n"
        "d: {input: 1, output: 1}\n"
        "d: {input: 2, output: 2}\n"
    )
    with pytest.raises(ConfigError) as caught:
        table(tmp_path, text)
    told = "\n".join(caught.value.problems)
    assert "line 6: d: has a price already, in line 5" in told
    assert "line 1: a: output:" in told
    assert "line 2: b: input: is required and missing" in told
    assert "line 2: b: inptu: unknown key; valid: input, cached_input, output" in told
    assert "line 3: c: price:" in told
    assert "line 4: 4: a model name is text" in told


@pytest.mark.parametrize("text", ["", "- a", "a: {", "a: !!python/object:os.system {}"])
def test_what_is_no_table_is_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"prices\.yaml"):
        table(tmp_path, text)


def test_a_table_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        PriceTable.load(tmp_path / "none.yaml")


def test_the_example_is_valid_and_found_through_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLYWHEEL_PRICES", str(EXAMPLE))
    prices = PriceTable.load(Settings.load().prices)
    assert prices.cost_usd("triage-0123456789ab", TokenUsage(1, 1)) is not None
