"""The mistakes people make when they type: pure functions of a text and a random source."""

import random
import re

_NEIGHBOURS = {
    "q": "wa", "w": "qe", "e": "wr", "r": "et", "t": "ry", "y": "tu", "u": "yi", "i": "uo",
    "o": "ip", "p": "ol", "a": "sq", "s": "ad", "d": "sf", "f": "dg", "g": "fh", "h": "gj",
    "j": "hk", "k": "jl", "l": "ko", "z": "xa", "x": "zc", "c": "xv", "v": "cb", "b": "vn",
    "n": "bm", "m": "nj",
}  # fmt: skip
_LONG_WORD = re.compile(r"[a-z]{5,}")
_APOSTROPHE = re.compile(r"(?<=[a-z])'(?=[a-z])", re.IGNORECASE)


def add_typos(text: str, rng: random.Random, *, count: int) -> str:
    """Damages up to `count` longer words; short ones, numbers and names keep their meaning."""
    words = list(_LONG_WORD.finditer(text))
    for word in sorted(rng.sample(words, min(count, len(words))), key=lambda w: -w.start()):
        text = text[: word.start()] + _damage(word[0], rng) + text[word.end() :]
    return text


def drop_apostrophes(text: str) -> str:
    """can't, I'm and mum's as a hurried thumb writes them."""
    return _APOSTROPHE.sub("", text)


def _damage(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    kind = rng.choice(("neighbour", "dropped", "swapped", "doubled"))
    if kind == "neighbour":
        return word[:at] + rng.choice(_NEIGHBOURS[word[at]]) + word[at + 1 :]
    if kind == "dropped":
        return word[:at] + word[at + 1 :]
    if kind == "swapped":
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at] + word[at:]
