"""Keeps the gate's items out of training, exactly or nearly. Pure, but for reading the suite.

An example is held out when what its user said, in one turn or up to some turn, is what the user of
an item says: equal after normalising case, punctuation and white space, or with a Jaccard
similarity of the sets of words of at least 0.9. It sees neither a paraphrase nor a translation.
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from flywheel.dataset.select import Example, Selection
from flywheel.errors import DatasetError
from flywheel.records import Message, SuiteItem

THRESHOLD = 0.9
"""Jaccard similarity at which two texts are nearly the same."""
_NOT_WORD = re.compile(r"[\W_]+")


def normalise(text: str) -> str:
    """Lower case, words only, one space between them; a text without words is kept as it is."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _NOT_WORD.sub(" ", folded).strip() or folded.strip()


def user_text(messages: Sequence[Message]) -> str:
    """What the user said, turn after turn."""
    return "\n".join(_turns(messages))


def _turns(messages: Sequence[Message]) -> list[str]:
    said = [message.text for message in messages if message.role == "user"]
    return said or [message.text for message in messages]


class HeldOut:
    """Texts that may not be trained on, indexed so that near ones are found fast.

    Two sets of words with a Jaccard similarity of at least t share one of the first
    n - ceil(t n) + 1 of their n words, whatever order all words are put in (prefix filtering;
    Chaudhuri et al. 2006). With the rarest first, few candidates remain to compare.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._exact = {normalise(text) for text in texts} - {""}
        sets = [frozenset(text.split()) for text in self._exact]
        self._frequency = Counter(word for words in sets for word in words)
        self._index: dict[str, list[frozenset[str]]] = defaultdict(list)
        for words in sets:
            for word in self._prefix(words):
                self._index[word].append(words)

    def _prefix(self, words: frozenset[str]) -> list[str]:
        ordered = sorted(words, key=lambda word: (self._frequency[word], word))
        # Less a hair: 0.9 n may come out above the whole number it is.
        return ordered[: len(words) - math.ceil(THRESHOLD * len(words) - 1e-9) + 1]

    def match(self, text: str) -> Literal["exact", "near"] | None:
        """How a text is held out, or None when it is not."""
        normal = normalise(text)
        if normal in self._exact:
            return "exact"
        words = frozenset(normal.split())
        candidates = {other for word in self._prefix(words) for other in self._index.get(word, ())}
        is_near = any(len(words & other) >= THRESHOLD * len(words | other) for other in candidates)
        return "near" if is_near else None


def decontaminate(examples: Sequence[Example], held_out: HeldOut) -> Selection:
    """Drops the examples whose user says what a held-out item's user says."""
    dropped: Counter[str] = Counter()
    kept = []
    for example in examples:
        found = {held_out.match(text) for text in _said_so_far(example.prompt)}
        if "exact" in found:
            dropped["held_out"] += 1
        elif "near" in found:
            dropped["held_out_nearly"] += 1
        else:
            kept.append(example)
    return Selection(examples=tuple(kept), dropped=dict(dropped))


def _said_so_far(messages: Sequence[Message]) -> set[str]:
    """Every turn of the user's by itself, and together with all before it."""
    turns = _turns(messages)
    return {*turns, *("\n".join(turns[: end + 1]) for end in range(len(turns)))}


def read_held_out(path: Path) -> HeldOut:
    """Reads the gate's suite for what may not be trained on.

    Raises:
        DatasetError: it cannot be read; then nothing can be kept out, and nothing is built.
    """
    try:
        lines = path.read_bytes().split(b"\n")
        items = [SuiteItem.model_validate_json(line) for line in lines if line.strip()]
    except (OSError, ValidationError) as error:
        raise DatasetError(
            f"the gate's suite {path} cannot be read ({' '.join(str(error).split()):.200}), and "
            "without it the hold-out cannot be kept out of training. gate.suite in the workload "
            "names it; `flywheel gate` lists all its mistakes."
        ) from error
    return HeldOut(user_text(item.messages) for item in items)
