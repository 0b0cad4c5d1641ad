"""A row: one sequence in flight, from its prompt to its finish reason."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence

from flywheel.serve.engine.generation import Delta, FinishReason, Sampling, TokenLogprob
from flywheel.serve.engine.lora import LoraWeights
from flywheel.serve.engine.sampling import Draw
from flywheel.serve.engine.text import Decode, TextStream

Deliver = Callable[[Delta], None]


class Row:
    """One choice of a request. The scheduler's thread owns it; others may only set `cancelled`."""

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        weights: LoraWeights | None,
        deliver: Deliver,
        choice: int = 0,
    ) -> None:
        self.tokens = list(prompt)
        """The prompt and what was chosen after it."""
        self.prompt_length = len(self.tokens)
        self.computed = 0
        """Tokens whose keys and values are in the slot."""
        self.cached = 0
        """Of those, how many were found there and not computed."""
        self.weights = weights
        self.slot = -1
        self.ticket = 0
        """Order of admission."""
        self.cancelled = False
        self.finish_reason: FinishReason | None = None
        self._sampling = sampling
        self._choice = choice
        self._deliver = deliver
        self._text = ""
        self._ready: list[TokenLogprob] = []
        self.draw = Draw(sampling, random.Random(sampling.seed))
        self._stream: TextStream | None = None
        self._logprobs: list[tuple[int, TokenLogprob]] = []

    @property
    def generated(self) -> int:
        """Tokens chosen so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def pending(self) -> int:
        """Tokens that still have to go through the model."""
        return len(self.tokens) - self.computed

    @property
    def key(self) -> str:
        """Whose keys and values the slot holds: the same tokens differ between adapters."""
        return self.weights.adapter_id if self.weights else ""

    def accept(self, chosen: TokenLogprob, *, eos: frozenset[int], decode: Decode) -> None:
        """Takes the next token, and delivers what became certain by it."""
        if self._stream is None:
            self._stream = TextStream(decode, self._sampling.stop)
        stream = self._stream
        self.tokens.append(chosen.token)
        if chosen.token in eos and not self._sampling.ignore_eos:
            self.finish_reason = "stop"
            text = stream.close()
        else:
            self._logprobs.append((stream.seen, chosen))
            text = stream.push(chosen.token)
            if self.generated >= self._sampling.max_tokens and not stream.stopped:
                self.finish_reason = "length"
                text += stream.close()
        if stream.stopped:
            self.finish_reason = "stop"
        self._text += text
        self._ready += self._released(stream)
        if self.finish_reason is not None or (self._sampling.streams and self._text):
            self._send()

    def fail(self, message: str) -> None:
        """Tells the request that no answer will come."""
        self._deliver(Delta(self._choice, "", error=message))

    def _released(self, stream: TextStream) -> list[TokenLogprob]:
        """Log probabilities of the tokens whose text is out, each once."""
        if self._sampling.logprobs is None:
            self._logprobs.clear()
            return []
        everything = self.finish_reason is not None and not stream.stopped
        count = sum(everything or at < stream.released for at, _ in self._logprobs)
        released = [chosen for _, chosen in self._logprobs[:count]]
        del self._logprobs[:count]
        return released

    def _send(self) -> None:
        """A row that does not stream is sent whole: waking its reader for each token costs time."""
        text, self._text = self._text, ""
        logprobs, self._ready = tuple(self._ready), []
        self._deliver(
            Delta(
                self._choice,
                text,
                logprobs=logprobs,
                finish_reason=self.finish_reason,
                completion_tokens=self.generated,
                cached_tokens=self.cached,
            )
        )


class Mailbox:
    """Carries deltas from the scheduler's thread to a coroutine."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Delta] = asyncio.Queue()

    def deliver(self, delta: Delta) -> None:
        """From any thread. A loop that has been closed has nobody waiting."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._queue.put_nowait, delta)

    async def receive(self) -> Delta:
        """The next delta, waiting for it."""
        return await self._queue.get()
