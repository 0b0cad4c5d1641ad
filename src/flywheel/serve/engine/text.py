"""Token ids in, text out as soon as it is certain: whole characters, and never a part of a stop.

A byte-level token may end in the middle of a character, and a stop string may begin at the end of a
token, so the last characters are held back until what follows them is known.
"""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
_UNFINISHED = "\ufffd"
"""What a decoder writes for bytes that are no whole character (yet)."""


class Detokenizer:
    """Decodes a growing list of tokens piece by piece.

    The pieces joined are what decoding the whole list at once gives. Each piece is decoded behind
    the piece before it, because some tokenizers drop the space at the start of a text.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._context = 0
        self._read = 0

    def push(self, token: int) -> str:
        """Takes a token; returns the characters that are complete now."""
        self._tokens.append(token)
        piece = self._pending()
        if not piece or piece.endswith(_UNFINISHED):
            return ""
        self._context, self._read = self._read, len(self._tokens)
        return piece

    def flush(self) -> str:
        """The rest, complete or not: nothing more will come."""
        piece = self._pending()
        self._context = self._read = len(self._tokens)
        return piece

    def _pending(self) -> str:
        before = self._decode(self._tokens[self._context : self._read])
        return self._decode(self._tokens[self._context :])[len(before) :]


class StopScanner:
    """Passes text through up to the first stop string, and holds back what may begin one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False
        """A stop string was seen: what came before it has been returned, the rest is dropped."""

    def push(self, text: str) -> str:
        """Takes text; returns what is certain not to be part of a stop string."""
        held = self._held + text
        found = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return held[: min(found)]
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """The rest: no stop string can be completed any more."""
        held, self._held = self._held, ""
        return held


class TextStream:
    """Detokenizer and stop scanner in a row, with the counts that align tokens with text."""

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self._detokenizer = Detokenizer(decode)
        self._scanner = StopScanner(stops)
        self.seen = 0
        """Characters decoded so far, held back or not."""
        self.released = 0
        """Characters returned so far."""

    @property
    def stopped(self) -> bool:
        """A stop string ended the text."""
        return self._scanner.stopped

    def push(self, token: int) -> str:
        """Takes a token; returns the text that is certain now."""
        return self._release(self._detokenizer.push(token))

    def close(self) -> str:
        """No token follows: returns the rest, unless a stop string is in it after all."""
        rest = self._release(self._detokenizer.flush())
        return rest if self.stopped else rest + self._count(self._scanner.flush())

    def _release(self, text: str) -> str:
        self.seen += len(text)
        return self._count(self._scanner.push(text))

    def _count(self, text: str) -> str:
        self.released += len(text)
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, but not all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
