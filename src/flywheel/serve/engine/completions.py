"""POST /v1/chat/completions and /v1/completions: from the body to the answer or the stream."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from aiohttp import web

from flywheel.errors import EngineBusyError
from flywheel.records import JsonObject
from flywheel.serve.engine.engine import Answer, Engine
from flywheel.serve.engine.generation import Sampling, TokenLogprob
from flywheel.serve.engine.protocol import (
    MOST_CHOICES,
    ChatRequest,
    TextRequest,
    parse_chat,
    parse_text,
)
from flywheel.serve.engine.replies import (
    ChatFormat,
    Choice,
    Envelope,
    Format,
    TextFormat,
    Usage,
    error_body,
)


class Job(NamedTuple):
    """A request made ready: what to run and how to write it."""

    model: str
    prompts: list[list[int]]
    """One a choice."""
    prompt_tokens: int
    """Of the distinct prompts."""
    sampling: list[Sampling]
    format: Format
    envelope: Envelope
    streams: bool


async def chat_completions(request: web.Request, engine: Engine) -> web.StreamResponse:
    """Answers a conversation."""
    return await _run(request, engine, await _chat_job(engine, await request.read()))


async def completions(request: web.Request, engine: Engine) -> web.StreamResponse:
    """Continues one or several texts."""
    return await _run(request, engine, await _text_job(engine, await request.read()))


async def _chat_job(engine: Engine, body: bytes) -> Job:
    chat: ChatRequest = parse_chat(body)
    engine.adapters.check(chat.model)
    messages = [message.for_template() for message in chat.messages]
    prompt = await engine.tokenize(lambda: engine.tokenizer.render(messages))
    room = engine.check_length(prompt, wanted=chat.wanted_tokens, param="messages")
    choices = chat.n or 1
    return Job(
        model=chat.model,
        prompts=[prompt] * choices,
        prompt_tokens=len(prompt),
        sampling=_per_choice(chat.sampling(room), choices),
        format=ChatFormat(engine.tokenizer.piece, logprobs=bool(chat.logprobs)),
        envelope=Envelope("chat.completion", chat.model, includes_usage=chat.includes_usage),
        streams=bool(chat.stream),
    )


async def _text_job(engine: Engine, body: bytes) -> Job:
    text: TextRequest = parse_text(body)
    engine.adapters.check(text.model)
    prompts = await engine.tokenize(
        lambda: [
            engine.tokenizer.encode(one) if isinstance(one, str) else one for one in text.prompts
        ]
    )
    room = min(
        engine.check_length(prompt, wanted=text.wanted_tokens, param="prompt") for prompt in prompts
    )
    each = text.n or 1
    return Job(
        model=text.model,
        prompts=[prompt for prompt in prompts for _ in range(each)],
        prompt_tokens=sum(map(len, prompts)),
        sampling=_per_choice(text.sampling(room), each) * len(prompts),
        format=TextFormat(engine.tokenizer.piece, logprobs=text.logprobs is not None),
        envelope=Envelope("text_completion", text.model, includes_usage=text.includes_usage),
        streams=bool(text.stream),
    )


def _per_choice(sampling: Sampling, choices: int) -> list[Sampling]:
    """Choices of one request with a seed differ from each other, the same way every time."""
    if sampling.seed is None:
        return [sampling] * choices
    first = sampling.seed * MOST_CHOICES
    return [replace(sampling, seed=first + choice) for choice in range(choices)]


async def _run(request: web.Request, engine: Engine, job: Job) -> web.StreamResponse:
    """Holds the adapter for the length of the answer, and gives the rows up if the client goes."""
    async with engine.adapters.lease(job.model) as weights:
        answer = engine.answer(job.prompts, job.sampling, weights=weights)
        try:
            if job.streams:
                return await _stream(request, job, answer)
            return web.json_response(await _collect(job, answer))
        finally:
            answer.close()


async def _collect(job: Job, answer: Answer) -> JsonObject:
    choices = [Choice(number, "", [], None) for number in range(len(job.prompts))]
    tally = _Tally(job.prompt_tokens)
    async for delta in answer.deltas():
        so_far = choices[delta.choice]
        logprobs: Sequence[TokenLogprob] = [*so_far.logprobs, *delta.logprobs]
        choices[delta.choice] = Choice(
            delta.choice, so_far.text + delta.text, logprobs, delta.finish_reason
        )
        tally.see(delta.choice, delta.completion_tokens, delta.cached_tokens)
    return job.envelope.whole([job.format.whole(choice) for choice in choices], tally.usage)


async def _stream(request: web.Request, job: Job, answer: Answer) -> web.StreamResponse:
    """Server-sent events. An engine that fails in the middle says so in the stream."""
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    )
    await response.prepare(request)
    tally = _Tally(job.prompt_tokens)
    try:
        for number in range(len(job.prompts)):
            opening = job.format.opening(number)
            if opening is not None:
                await _send(response, job.envelope.chunk([opening]))
        async for delta in answer.deltas():
            tally.see(delta.choice, delta.completion_tokens, delta.cached_tokens)
            await _send(response, job.envelope.chunk([job.format.chunk(delta)]))
        closing = job.envelope.closing(tally.usage)
        if closing is not None:
            await _send(response, closing)
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
    except EngineBusyError as error:
        await _send(response, error_body(str(error), kind="server_error", code="engine_failed"))
    except ConnectionResetError as error:
        # The client went away; the caller gives the rows up.
        raise asyncio.CancelledError from error
    return response


async def _send(response: web.StreamResponse, event: JsonObject) -> None:
    await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


class _Tally:
    """Usage as the deltas tell it."""

    def __init__(self, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._completion: dict[int, int] = {}
        self._cached: dict[int, int] = {}

    def see(self, choice: int, completion_tokens: int, cached_tokens: int) -> None:
        """Takes a delta's counts, which are totals so far."""
        self._completion[choice], self._cached[choice] = completion_tokens, cached_tokens

    @property
    def usage(self) -> Usage:
        """All choices together. A prompt shared by several choices counts once."""
        completion = sum(self._completion.values())
        return Usage(self._prompt_tokens, completion, min(self._cached.values(), default=0))
