"""What is unlike anything asked so far: clusters of new texts. Pure.

Texts become hashed TF-IDF vectors of character 4-grams within words (so that spelling mistakes and
inflections stay near); new ones are grouped by leader clustering (Hartigan 1975, one pass).
"""

import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIMENSIONS = 1024
"""Buckets the n-grams are hashed into."""
NEAR = 0.5
"""Cosine similarity from which a text belongs to a cluster, or to what is known."""
GRAM = 4


def new_clusters(texts: Mapping[str, str], known: Sequence[str]) -> dict[str, float]:
    """One representative of each group of texts that are unlike all known ones.

    Args:
        texts: By id; those already asked are not among them.
        known: Texts that were asked before.

    Returns:
        Score by id, only of representatives: the share of `texts` their cluster holds.
    """
    if not texts:
        return {}
    import numpy as np

    ids = sorted(texts)
    vectors = _vectors([texts[one] for one in ids] + list(known))
    fresh, old = vectors[: len(ids)], vectors[len(ids) :]
    is_new = np.ones(len(ids), dtype=bool)
    if len(old):
        is_new = (fresh @ old.T).max(axis=1) < NEAR
    leaders: list[int] = []
    members: Counter[int] = Counter()
    for index in np.flatnonzero(is_new):
        similarity = fresh[leaders] @ fresh[index] if leaders else np.zeros(0)
        best = int(similarity.argmax()) if leaders else -1
        if best < 0 or similarity[best] < NEAR:
            best = len(leaders)
            leaders.append(int(index))
        members[best] += 1
    return {ids[leader]: members[rank] / len(ids) for rank, leader in enumerate(leaders)}


def _vectors(texts: Sequence[str]) -> "NDArray[np.float32]":
    """Rows of unit length, shape (texts, DIMENSIONS); a text without letters is all zeros."""
    import numpy as np

    counts = [Counter(_buckets(text)) for text in texts]
    frequency = Counter(bucket for row in counts for bucket in row)
    vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
    for row, count in zip(vectors, counts, strict=True):
        for bucket, n in count.items():
            row[bucket] = (1 + math.log(n)) * math.log(1 + len(texts) / frequency[bucket])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(lengths == 0, 1, lengths)
    return vectors


def _buckets(text: str) -> list[int]:
    grams = []
    # One number is as good as another: of days, of beds, of milligrams.
    for word in re.sub(r"\d+", "0", text.lower()).split():
        padded = f" {word} "
        grams += [padded[i : i + GRAM] for i in range(max(1, len(padded) - GRAM + 1))]
    return [zlib.crc32(gram.encode()) % DIMENSIONS for gram in grams]
