"""Text similarity between 0 and 1, in plain Python.

`fuzzy_match` is rapidfuzz's normalised Indel ratio. `bleu` is sentence BLEU-4 with add-one
smoothing above unigrams (Papineni et al. 2002; Lin and Och 2004); `gleu` is Google's (Wu et al.
2016), `rouge_n` and `rouge_l` are F1 (Lin 2004) without stemming. Tokens are lower-cased runs of
word characters. `cosine` needs an embedding model and `meteor` a thesaurus: neither is here.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial

Metric = Callable[[str, str], float]
_WORD = re.compile(r"\w+")


def fuzzy_match(text: str, reference: str) -> float:
    """Twice the longest common subsequence of characters over both lengths."""
    total = len(text) + len(reference)
    return 2 * common_subsequence(text, reference) / total if total else 1.0


def common_subsequence(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, a row at a time in one integer (Hyyrö 2004)."""
    positions: dict[Hashable, int] = {}
    for index, symbol in enumerate(first):
        positions[symbol] = positions.get(symbol, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full
    for symbol in second:
        matches = row & positions.get(symbol, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(first) - row.bit_count()


def bleu(text: str, reference: str) -> float:
    """Geometric mean of the 1- to 4-gram precisions, times the brevity penalty."""
    words, wanted = _tokens(text), _tokens(reference)
    if not words or not wanted:
        return float(words == wanted)
    precisions = []
    for n in range(1, 5):
        ours, theirs = _ngrams(words, n), _ngrams(wanted, n)
        smoothing = int(n > 1)
        precisions.append(((ours & theirs).total() + smoothing) / (ours.total() + smoothing))
    if precisions[0] == 0:
        return 0.0
    brevity = min(1.0, math.exp(1 - len(wanted) / len(words)))
    return brevity * math.exp(sum(math.log(precision) for precision in precisions) / 4)


def gleu(text: str, reference: str) -> float:
    """The smaller of precision and recall over all 1- to 4-grams."""
    words, wanted = _tokens(text), _tokens(reference)
    if not words or not wanted:
        return float(words == wanted)
    ours = sum((_ngrams(words, n) for n in range(1, 5)), Counter())
    theirs = sum((_ngrams(wanted, n) for n in range(1, 5)), Counter())
    return (ours & theirs).total() / max(ours.total(), theirs.total())


def rouge_n(text: str, reference: str, *, n: int) -> float:
    """F1 of the n-grams in common."""
    ours, theirs = _ngrams(_tokens(text), n), _ngrams(_tokens(reference), n)
    total = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / total if total else float(text == reference)


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence of words."""
    words, wanted = _tokens(text), _tokens(reference)
    total = len(words) + len(wanted)
    return 2 * common_subsequence(words, wanted) / total if total else 1.0


def _tokens(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


METRICS: Mapping[str, Metric] = {
    "fuzzy_match": fuzzy_match,
    "bleu": bleu,
    "gleu": gleu,
    **{f"rouge_{n}": partial(rouge_n, n=n) for n in range(1, 6)},
    "rouge_l": rouge_l,
}
"""OpenAI's names for them."""
