"""Tokens are drawn as the parameters say, and the same seed draws the same."""

import math
import random
from collections import Counter

import pytest

from flywheel.serve.engine.generation import Sampling
from flywheel.serve.engine.sampling import Draw, choose

torch = pytest.importorskip("torch")
LOGITS = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))


def draws(count: int, **fields: float) -> Counter[int]:
    draw = Draw(Sampling(max_tokens=1, **fields), random.Random(5))  # type: ignore[arg-type]
    return Counter(choose(LOGITS, [draw])[0].token for _ in range(count))


def test_temperature_zero_takes_the_likeliest() -> None:
    assert draws(20, temperature=0) == {0: 20}


def test_temperature_one_draws_by_the_models_probabilities() -> None:
    """4,000 draws: the standard error of a share of 0.5 is 0.008, so 0.03 is near 4 of them."""
    counts = draws(4000)
    for token, share in enumerate((0.5, 0.3, 0.15, 0.05)):
        assert math.isclose(counts[token] / 4000, share, abs_tol=0.03)


def test_a_low_temperature_sharpens() -> None:
    """At 0.5 the probabilities go by their squares: .25 / (.25 + .09 + .0225 + .0025) = .685."""
    assert math.isclose(draws(4000, temperature=0.5)[0] / 4000, 0.685, abs_tol=0.03)


def test_top_p_keeps_the_shortest_list_that_reaches_it() -> None:
    """.5 + .3 = .8 reaches .7 and .5 does not; among the two, the first is drawn 5 times in 8."""
    counts = draws(4000, top_p=0.7)
    assert set(counts) == {0, 1}
    assert math.isclose(counts[0] / 4000, 0.625, abs_tol=0.03)


def test_top_p_zero_keeps_only_the_likeliest() -> None:
    assert draws(50, top_p=0.0) == {0: 50}


def test_top_p_is_exact_where_the_first_512_tokens_do_not_reach_it() -> None:
    """1,024 equal tokens: .75 of them are 768, more than the shortcut looks at."""
    logits = torch.zeros(1, 1024)
    draw = Draw(Sampling(max_tokens=1, top_p=0.75), random.Random(1))
    seen = {choose(logits, [draw])[0].token for _ in range(3000)}
    assert 512 < len(seen) <= 769


def test_a_tiny_temperature_does_not_overflow() -> None:
    assert draws(20, temperature=1e-8) == {0: 20}


def test_logprobs_are_the_models_own_whatever_the_temperature() -> None:
    draw = Draw(Sampling(max_tokens=1, temperature=0, logprobs=2), random.Random(0))
    chosen = choose(LOGITS, [draw])[0]
    assert chosen.token == 0
    assert math.isclose(chosen.logprob, math.log(0.5), abs_tol=1e-5)
    assert [token for token, _ in chosen.top] == [0, 1]
    assert math.isclose(chosen.top[1][1], math.log(0.3), abs_tol=1e-5)


def test_an_impossible_token_has_a_logprob_json_can_say() -> None:
    logits = torch.tensor([[0.0, -math.inf]])
    draw = Draw(Sampling(max_tokens=1, temperature=0, logprobs=2), random.Random(0))
    assert choose(logits, [draw])[0].top[1] == (1, -9999.0)


def test_rows_of_one_batch_are_drawn_by_their_own_rules() -> None:
    logits = LOGITS.repeat(3, 1)
    greedy = Draw(Sampling(max_tokens=1, temperature=0), random.Random(0))
    one = Draw(Sampling(max_tokens=1), random.Random(3))
    same = Draw(Sampling(max_tokens=1), random.Random(3))
    for _ in range(30):
        first, second, third = (chosen.token for chosen in choose(logits, [greedy, one, same]))
        assert first == 0
        assert second == third
