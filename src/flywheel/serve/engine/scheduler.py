"""Continuous batching: one thread, one pass through the model at a time, any rows in it.

Before each step rows that finished or were given up have left, and waiting ones take the free
slots. A step adds one token to every row that decodes and a bounded part of the prompts, so that a
long prompt delays nobody by more than that part. A prompt that begins like another one of the same
adapter starts from its keys and values: a shared system prompt is computed once.
"""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flywheel.errors import EngineBusyError
from flywheel.serve.engine.meter import Meter
from flywheel.serve.engine.model import Chunk, PackedModel
from flywheel.serve.engine.rows import Row
from flywheel.serve.engine.sampling import choose
from flywheel.serve.engine.tokens import Tokenizer

log = logging.getLogger(__name__)

_LEAST_PREFIX = 16
"""Shorter common beginnings are computed again: copying them would save nothing."""
_UNHEALTHY_AFTER = 3
"""Failed steps in a row after which the engine says it is not ready."""


class Limits(NamedTuple):
    """How much the scheduler takes on."""

    slots: int
    """Rows in one step."""
    queue: int
    """Rows that may wait for a slot; more are refused."""
    step_tokens: int
    """Prompt tokens in one step."""


@dataclass(slots=True)
class _Slot:
    """A place in the cache: the row in it, or what the last one left."""

    number: int
    row: Row | None = None
    key: str = ""
    tokens: list[int] = field(default_factory=list)
    """Left behind by the last row, keys and values included."""

    @property
    def content(self) -> tuple[str, list[int], int]:
        """Whose tokens, which, and how many of them have their keys and values here."""
        if self.row is not None:
            return self.row.key, self.row.tokens, self.row.computed
        return self.key, self.tokens, len(self.tokens)


class _Prefix(NamedTuple):
    """The best beginning a row can take over."""

    slot: _Slot | None
    length: int
    """Usable now."""
    promised: int
    """Usable once a prompt now being computed is through."""


class Scheduler:
    """The thread that owns the model."""

    def __init__(
        self, model: PackedModel, tokenizer: Tokenizer, *, limits: Limits, meter: Meter
    ) -> None:
        self._model, self._limits, self._meter = model, limits, meter
        self._decode, self._eos = tokenizer.decode, model.eos | tokenizer.eos
        self._slots = [_Slot(number) for number in range(limits.slots)]
        self._waiting: deque[Row] = deque()
        self._wake = threading.Condition()
        self._is_stopping = False
        self._failures = 0
        self._tickets = itertools.count()
        self._thread = threading.Thread(target=self._run, name="flywheel-engine", daemon=True)

    @property
    def waiting(self) -> int:
        """Rows that have no slot yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Rows that have one."""
        return sum(slot.row is not None for slot in self._slots)

    @property
    def is_healthy(self) -> bool:
        """The thread lives and its last steps did not all fail."""
        return self._thread.is_alive() and self._failures < _UNHEALTHY_AFTER

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after its current step; rows still in flight are told."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        self._thread.join()

    def submit(self, rows: Sequence[Row]) -> None:
        """Takes rows, all or none.

        Raises:
            EngineBusyError: the queue is full, or the engine is ending.
        """
        with self._wake:
            if self._is_stopping:
                raise EngineBusyError("the engine is shutting down", status=503)
            if len(self._waiting) + len(rows) > self._limits.queue:
                raise EngineBusyError(f"{len(self._waiting)} answers are waiting already")
            self._waiting.extend(rows)
            self._wake.notify()

    def cancel(self, rows: Sequence[Row]) -> None:
        """Drops rows nobody waits for, before the next step."""
        for row in rows:
            row.cancelled = True

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._is_stopping or self._waiting or self.running):
                    self._wake.wait()
                if self._is_stopping:
                    break
            try:
                self._step()
                self._failures = 0
            except Exception as error:  # counted and logged: the loop must outlive it
                self._failures += 1
                self._meter.failed_steps += 1
                log.exception("a step failed; its rows are given up")
                self._give_up(f"the engine failed: {type(error).__name__}: {error}")
        self._give_up("the engine is shutting down")

    def _step(self) -> None:
        started = time.monotonic()
        self._drop_cancelled()
        self._admit()
        rows = self._plan()
        if not rows:
            self._meter.idle()
            return
        chunks = [
            Chunk(
                row.slot,
                row.computed,
                row.tokens[row.computed : row.computed + count],
                row.weights,
                wants_logits=count == row.pending,
            )
            for row, count in rows
        ]
        logits = self._model.forward(chunks)
        for row, count in rows:
            prompt_part = min(count, max(0, row.prompt_length - row.computed))
            self._meter.prompt_tokens += prompt_part
            row.computed += count
        ready = [row for row, _ in rows if row.pending == 0]
        chosen = choose(logits, [row.draw for row in ready]) if ready else []
        for row, token in zip(ready, chosen, strict=True):
            row.accept(token, eos=self._eos, decode=self._decode)
            self._meter.completion_tokens += 1
            if row.finish_reason is not None:
                self._release(self._slots[row.slot])
        self._meter.step(started, len(rows))
        if not self.running:
            self._meter.idle()

    def _drop_cancelled(self) -> None:
        for slot in self._slots:
            if slot.row is not None and slot.row.cancelled:
                self._meter.cancelled += 1
                self._release(slot)
        with self._wake:
            kept = [row for row in self._waiting if not row.cancelled]
            self._meter.cancelled += len(self._waiting) - len(kept)
            self._waiting = deque(kept)

    def _release(self, slot: _Slot) -> None:
        row, slot.row = slot.row, None
        assert row is not None
        slot.key, slot.tokens = row.key, row.tokens[: row.computed]

    def _admit(self) -> None:
        """Gives free slots to waiting rows, oldest first.

        A row whose prompt begins like one that is being computed right now waits for it: that is a
        step or two, against computing the same again.
        """
        with self._wake:
            waiting = list(self._waiting)
        for row in waiting:
            free = [slot for slot in self._slots if slot.row is None]
            if not free:
                return
            prefix = self._best_prefix(row)
            if prefix.promised - prefix.length >= _LEAST_PREFIX:
                continue
            with self._wake:
                self._waiting.remove(row)
            self._place(row, prefix, free)

    def _best_prefix(self, row: Row) -> _Prefix:
        # The last token always goes through the model: its logits choose the next one.
        most = len(row.tokens) - 1
        best, length, promised = None, 0, 0
        for slot in self._slots:
            key, tokens, computed = slot.content
            if key != row.key or min(most, len(tokens)) < _LEAST_PREFIX:
                continue
            common = _common(row.tokens, tokens, most)
            promised = max(promised, common)
            usable = min(common, computed)
            is_longer = usable > length
            if usable >= _LEAST_PREFIX and (is_longer or (usable == length and slot.row is None)):
                best, length = slot, usable
        return _Prefix(best, length, promised)

    def _place(self, row: Row, prefix: _Prefix, free: Sequence[_Slot]) -> None:
        source = prefix.slot
        slot = source if source is not None and source.row is None else free[0]
        if source is not None and source is not slot:
            self._model.cache.copy_prefix(source.number, slot.number, prefix.length)
        row.slot, row.ticket = slot.number, next(self._tickets)
        row.computed = row.cached = prefix.length
        self._meter.cached_tokens += prefix.length
        slot.row = row

    def _plan(self) -> list[tuple[Row, int]]:
        """Which rows bring how many tokens: all that decode, and prompts, oldest first."""
        budget = self._limits.step_tokens
        plan = []
        rows = [slot.row for slot in self._slots if slot.row is not None]
        for row in sorted(rows, key=lambda row: row.ticket):
            count = row.pending
            if count > 1:
                count = min(count, budget)
                budget -= count
            if count:
                plan.append((row, count))
        return plan

    def _give_up(self, message: str) -> None:
        """Fails every row, and forgets what the slots hold: it may be half written."""
        with self._wake:
            rows = [*self._waiting]
            self._waiting.clear()
        for slot in self._slots:
            if slot.row is not None:
                rows.append(slot.row)
            slot.row, slot.key, slot.tokens = None, "", []
        for row in rows:
            row.fail(message)


def _common(left: Sequence[int], right: Sequence[int], most: int) -> int:
    """Length of the common beginning, at most `most`."""
    end = min(len(left), len(right), most)
    pairs = zip(left[:end], right[:end], strict=True)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), end)
