"""Similarities worked by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.graders.similarity import METRICS, bleu, common_subsequence, fuzzy_match, gleu

TEXTS = st.text(alphabet="ab c", max_size=12)


def test_fuzzy_match_is_twice_the_common_subsequence_over_both_lengths() -> None:
    """kitten and sitting share i, t, t, n in order: 2 x 4 / (6 + 7)."""
    assert fuzzy_match("kitten", "sitting") == pytest.approx(8 / 13)


def test_common_subsequence_of_words() -> None:
    assert common_subsequence(["the", "cat", "sat"], ["the", "dog", "sat", "down"]) == 2


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        # the cat sat / the cat ran: unigrams 2 of 3 and 3, bigrams 1 of 2 and 2, trigrams 0.
        ("rouge_1", 2 / 3),
        ("rouge_2", 1 / 2),
        ("rouge_3", 0.0),
        ("rouge_l", 2 / 3),
        # 3 n-grams in common of 3 + 2 + 1.
        ("gleu", 3 / 6),
        # (2/3 x (1+1)/(2+1) x (0+1)/(1+1) x (0+1)/(0+1)) ** 1/4, no brevity penalty.
        ("bleu", (2 / 3 * 2 / 3 * 1 / 2 * 1) ** 0.25),
    ],
)
def test_an_n_gram_metric_worked_by_hand(metric: str, expected: float) -> None:
    assert METRICS[metric]("The cat sat.", "the cat ran") == pytest.approx(expected)


def test_bleu_punishes_a_text_shorter_than_its_reference() -> None:
    """One word of two: precisions 1, 1, 1, 1; brevity exp(1 - 2/1)."""
    assert bleu("cat", "cat sat") == pytest.approx(math.exp(-1))


def test_gleu_takes_the_smaller_of_precision_and_recall() -> None:
    """cat / cat sat: one n-gram in common, one in the text, three in the reference."""
    assert gleu("cat", "cat sat") == pytest.approx(1 / 3)


@given(st.sampled_from(sorted(METRICS)), TEXTS, TEXTS)
def test_a_similarity_is_a_share(metric: str, text: str, reference: str) -> None:
    assert 0.0 <= METRICS[metric](text, reference) <= 1.0


@given(st.sampled_from(sorted(METRICS)), TEXTS)
def test_a_text_is_wholly_like_itself(metric: str, text: str) -> None:
    assert METRICS[metric](text, text) == pytest.approx(1.0)


@given(TEXTS, TEXTS)
def test_common_subsequence_agrees_with_the_textbook_table(first: str, second: str) -> None:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
            )
    assert common_subsequence(first, second) == table[-1][-1]
