"""What keywords alone achieve: naive Bayes over single words, trained on production messages.

The number to beat, and a check that the task is neither trivial nor out of reach: on the
development set, or with `--holdout`, once all is fixed, on the hold-out. Run
`python -m flywheel_examples.triage.baseline`.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Sequence

from flywheel_examples.triage.complaints import URGENCIES, Urgency
from flywheel_examples.triage.messages import (
    PatientMessage,
    development_messages,
    holdout_messages,
    production_messages,
)

_WORD = re.compile(r"[a-z']+|\d+")


class NaiveBayes:
    """Multinomial naive Bayes with add-one smoothing and equal priors."""

    def __init__(self, messages: Sequence[PatientMessage]) -> None:
        self._counts: dict[Urgency, Counter[str]] = {urgency: Counter() for urgency in URGENCIES}
        for message in messages:
            self._counts[message.urgency].update(_WORD.findall(message.text.lower()))
        self._vocabulary = len(set().union(*self._counts.values()))

    def predict(self, text: str) -> Urgency:
        """The class whose words these are."""
        words = _WORD.findall(text.lower())
        return max(URGENCIES, key=lambda urgency: self._log_likelihood(urgency, words))

    def _log_likelihood(self, urgency: Urgency, words: Sequence[str]) -> float:
        counts = self._counts[urgency]
        total = counts.total() + self._vocabulary
        return sum(math.log((counts[word] + 1) / total) for word in words)


def keyword_accuracy(items: Sequence[PatientMessage], labels: int, *, seed: int) -> float:
    """Share of the items that naive Bayes gets right after that many production messages."""
    model = NaiveBayes(production_messages(seed, labels))
    return sum(model.predict(item.text) == item.urgency for item in items) / len(items)


def main() -> None:
    """Prints the mean over ten seeds for a few numbers of labels."""
    items = holdout_messages() if "--holdout" in sys.argv[1:] else development_messages()
    for labels in (24, 48, 96, 192, 960):
        scores = [keyword_accuracy(items, labels, seed=seed) for seed in range(10)]
        print(f"{labels:4d} labels: {sum(scores) / len(scores):.0%}")  # noqa: T201


if __name__ == "__main__":
    main()
