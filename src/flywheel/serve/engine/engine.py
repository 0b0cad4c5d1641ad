"""The embedded engine: one base model, many adapters, any number of requests at once.

Input: options. Output: answers, token by token. `server.py` puts OpenAI's and vLLM's HTTP in front
of it; `flywheel engine` runs that.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from flywheel.errors import BadRequestError, EngineBusyError
from flywheel.models import Progress, resolve_base_model
from flywheel.serve.engine.adapters import AdapterShelf
from flywheel.serve.engine.generation import Delta, Sampling
from flywheel.serve.engine.lora import LoraWeights
from flywheel.serve.engine.meter import Meter
from flywheel.serve.engine.model import Device, Dtype, PackedModel
from flywheel.serve.engine.rows import Mailbox, Row
from flywheel.serve.engine.scheduler import Limits, Scheduler
from flywheel.serve.engine.tokens import Tokenizer

_CPU_STEP_TOKENS, _CUDA_STEP_TOKENS = 256, 4096
"""Prompt tokens in a step: about 0.1 s of work, which is what a new prompt delays others by."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What to serve, and how much at once."""

    model: str
    """Folder, hub id or packaged model; also the served name of the base, unless that is given."""
    cache: Path
    """Converted base models (`Settings.models_dir`)."""
    adapter_dir: Path
    """The only folder adapters may be loaded from (`Settings.adapter_dir`)."""
    served_name: str | None = None
    device: Device = "auto"
    """auto: CUDA where there is one."""
    dtype: Dtype = "auto"
    """auto: bfloat16 where the hardware has it, else float32."""
    threads: int | None = None
    """CPU threads of the model; all cores when absent."""
    max_batch: int = 16
    """Answers written at the same time."""
    max_queue: int = 256
    """Answers that may wait; more are refused with 429."""
    max_length: int | None = None
    """Longest prompt and answer together; the model's own limit when absent."""
    max_adapters: int = 16
    """Adapters in memory at the same time."""
    step_tokens: int | None = None
    """Prompt tokens in one step; 256 on a CPU and 4096 on a GPU when absent."""


class Answer:
    """The choices of one request, as they are written."""

    def __init__(self, scheduler: Scheduler, rows: Sequence[Row], mailbox: Mailbox) -> None:
        self._scheduler, self._rows, self._mailbox = scheduler, rows, mailbox

    async def deltas(self) -> AsyncIterator[Delta]:
        """What is new, choice by choice, until each has its finish reason.

        Raises:
            EngineBusyError: the engine failed or is shutting down.
        """
        unfinished = len(self._rows)
        while unfinished:
            delta = await self._mailbox.receive()
            if delta.error is not None:
                raise EngineBusyError(delta.error, status=503)
            unfinished -= delta.finish_reason is not None
            yield delta

    def close(self) -> None:
        """Nobody reads on: rows not finished leave the batch before its next step."""
        self._scheduler.cancel(self._rows)


class Engine:
    """A loaded model, its adapters and the thread that runs it. A context manager."""

    def __init__(self, options: EngineOptions, *, progress: Progress | None = None) -> None:
        """Finds, loads and proves the base model; takes seconds, more when it must be converted.

        Raises:
            BaseModelError: it cannot be found or served.
            MissingExtraError: the `models` extra is not installed.
        """
        say = progress or (lambda sentence: None)
        path = resolve_base_model(options.model, cache=options.cache, progress=say)
        say(f"loading {path}")
        self.options = options
        self.name = options.served_name or options.model
        """Served name of the base model."""
        self.meter = Meter()
        _set_threads(options.threads)
        self.tokenizer = Tokenizer(path)
        self.model = PackedModel(
            path,
            slots=options.max_batch,
            max_length=options.max_length,
            device=options.device,
            dtype=options.dtype,
        )
        default = _CUDA_STEP_TOKENS if self.model.device.type == "cuda" else _CPU_STEP_TOKENS
        self.scheduler = Scheduler(
            self.model,
            self.tokenizer,
            limits=Limits(options.max_batch, options.max_queue, options.step_tokens or default),
            meter=self.meter,
        )
        self.adapters = AdapterShelf(
            options.adapter_dir,
            base_model=self.name,
            model=self.model,
            max_resident=options.max_adapters,
            meter=self.meter,
        )
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="flywheel-tokenizer")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Starts the model's thread."""
        self.scheduler.start()

    def close(self) -> None:
        """Ends the thread; answers still being written are told."""
        self.scheduler.stop()
        self._tokenizing.shutdown()

    async def tokenize(self, work: Callable[[], T]) -> T:
        """Runs tokenizer work in the one thread for it: a long prompt must not hold the loop up."""
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    def check_length(self, prompt: Sequence[int], *, wanted: int | None, param: str) -> int:
        """Tokens of the answer there is room for.

        Raises:
            BadRequestError: the prompt is empty, no text of this model's, or too long.
        """
        if not prompt:
            raise BadRequestError(f"{param} is empty: it has no tokens", param=param)
        if max(prompt) >= self.model.vocabulary:
            raise BadRequestError(
                f"{param}: token ids go up to {self.model.vocabulary - 1}", param=param
            )
        limit, room = self.model.max_length, self.model.max_length - len(prompt)
        if room < (wanted or 1):
            requested = f" and {wanted} in the completion" if wanted else ""
            raise BadRequestError(
                f"This model's maximum context length is {limit} tokens. However, you requested "
                f"{len(prompt)} tokens in the {param}{requested}. Please reduce the length.",
                param=param,
                code="context_length_exceeded",
            )
        return room

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sequence[Sampling],
        *,
        weights: LoraWeights | None,
    ) -> Answer:
        """Begins to answer: one choice for each prompt, in the same order.

        Call it from a running event loop, and `close` what it returns.

        Raises:
            EngineBusyError: the queue is full.
        """
        mailbox = Mailbox()
        rows = [
            Row(prompt, one, weights=weights, deliver=mailbox.deliver, choice=choice)
            for choice, (prompt, one) in enumerate(zip(prompts, sampling, strict=True))
        ]
        self.scheduler.submit(rows)
        return Answer(self.scheduler, rows, mailbox)

    def gauges(self) -> dict[str, float]:
        """Numbers of this moment, for Prometheus."""
        return {
            "queued_rows": self.scheduler.waiting,
            "running_rows": self.scheduler.running,
            "resident_adapters": self.adapters.resident,
            "registered_adapters": len(self.adapters.registered),
            "cache_bytes": self.model.cache.size_bytes,
        }


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
