"""Answers that are looked at before they leave: verify and repair, fast and slow thinking.

Input: a chat request to a route with `repair` or `cascade`. Output: the first answer that passes,
or the best there is. Each answer asked for is a call of its own in the lake; `tags.chain` links
them: whose turn, why the one before did not do, and which was sent. Where a later answer passes
what an earlier one failed, it is stored as that one's correction: a pair to learn from.

A checked answer cannot leave before it is whole. A client that asked for a stream gets it as one.
"""

import asyncio
from dataclasses import dataclass
from typing import NamedTuple

import aiohttp
from aiohttp import web
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from flywheel.records import Feedback, JsonObject, Message, new_id, utcnow
from flywheel.serve.gateway.call import Call, Outcome
from flywheel.serve.gateway.checks import Check, RouteChecks
from flywheel.serve.gateway.dispatch import Dispatcher, NobodyAnsweredError, Question
from flywheel.serve.gateway.recorder import Recorder
from flywheel.serve.gateway.replay import as_stream
from flywheel.serve.gateway.replies import flywheel_headers, forwarded, readable, unavailable

GONE = Outcome("cancelled", "client_disconnected", "the client went away")
_BROKEN = (aiohttp.ClientError, TimeoutError)
_STREAMING = ("stream", "stream_options")


class Said(NamedTuple):
    """A whole answer, or an error instead of one."""

    call: Call
    status: int
    headers: dict[str, str]
    payload: bytes
    reply: JsonObject | None
    """Parsed, when it is an answer."""
    outcome: Outcome


@dataclass(slots=True)
class Step:
    """One link of a chain."""

    said: Said
    role: str
    """first, repair or escalation."""
    failed: str | None = None
    """Why it did not pass; None when it did, or was not looked at."""


class Chain:
    """All that was asked on behalf of one request."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def add(self, said: Said, role: str) -> Step:
        """A further answer."""
        self.steps.append(Step(said, role))
        return self.steps[-1]

    def tag(self, sent: Step) -> None:
        """Says in every call where it stands, and which one the client got."""
        chain_id = self.steps[0].said.call.arrival.interaction_id
        for number, step in enumerate(self.steps):
            step.said.call.tags["chain"] = {
                "id": chain_id,
                "step": number,
                "role": step.role,
                "failed": step.failed,
                "sent": step is sent,
            }


class CheckedAnswers:
    """Asks, looks, and asks again.

    Args:
        dispatcher: who asks.
        recorder: keeps what becomes of each call.
    """

    def __init__(self, dispatcher: Dispatcher, recorder: Recorder) -> None:
        self._dispatcher, self._recorder = dispatcher, recorder

    async def answer(self, call: Call, question: Question, checks: RouteChecks) -> web.Response:
        """The reply to one request.

        Args:
            call: the request.
            question: what it asks.
            checks: of its route.
        """
        body = {name: value for name, value in question.body.items() if name not in _STREAMING}
        told_logprobs = body.get("logprobs")
        if checks.cascade is not None and checks.cascade.min_mean_logprob is not None:
            body["logprobs"] = True
        question = question._replace(body=body)
        chain = Chain()
        try:
            sent = await self._settle(chain, call, question, checks)
        except BaseException:  # the client went away: what was answered so far is kept as it is
            for step in chain.steps:
                self._recorder.finish(step.said.call, step.said.outcome)
            raise
        chain.tag(sent)
        for step in chain.steps:
            self._recorder.finish(step.said.call, step.said.outcome)
        self._keep_pair(chain, sent, call)
        for step in chain.steps:
            await self._recorder.settled(step.said.call)
        return _reply(call, sent.said, told_logprobs=bool(told_logprobs))

    async def _settle(
        self,
        chain: Chain,
        call: Call,
        question: Question,
        checks: RouteChecks,
    ) -> Step:
        """Which step's answer is sent."""
        best = chain.add(await self._ask(call, question), "first")
        if checks.repair is not None:
            best = await self._repair(chain, best, question, checks.repair)
        if checks.cascade is None or 400 <= best.said.status < 500:
            return best
        if best.failed is None:
            reply = best.said.reply
            best.failed = checks.cascade.reason(reply, question.body) if reply else "no answer"
        return best if best.failed is None else await self._escalate(chain, best, question, checks)

    async def _repair(
        self,
        chain: Chain,
        first: Step,
        question: Question,
        check: Check,
    ) -> Step:
        """Tells the model what is wrong until it is right or its attempts are used up."""
        section = first.said.call.route.section.repair
        assert section is not None, "there is a check, so it is declared"
        last = first
        for _ in range(section.max_attempts + 1):
            reply = last.said.reply
            if reply is None:  # an error: the answer before it is better than none
                return first
            last.failed = check.reason(reply, question.body)
            if last.failed is None:
                return last
            if len(chain.steps) > section.max_attempts:
                break
            instruction = section.instruction.replace("{reason}", last.failed)
            body = _with_objection(question.body, reply, instruction)
            further = last.said.call.again(body, (last.said.call.target,))
            last = chain.add(await self._ask(further, question._replace(body=body)), "repair")
        return last

    async def _escalate(
        self,
        chain: Chain,
        small: Step,
        question: Question,
        checks: RouteChecks,
    ) -> Step:
        """The large model's answer; the small one's where the large one has none."""
        route = small.said.call.route
        assert route.section.cascade is not None and checks.escalated is not None
        large = route.target(route.section.cascade.escalate_to)
        further = chain.steps[0].said.call.again(question.body, (large,))
        step = chain.add(await self._ask(further, question), "escalation")
        if step.said.reply is None:
            return small
        step.failed = checks.escalated.reason(step.said.reply, question.body)
        return step

    async def _ask(self, call: Call, question: Question) -> Said:
        """One whole answer."""
        said = await self._ask_for_it(call, question)
        call.end()
        return said

    async def _ask_for_it(self, call: Call, question: Question) -> Said:
        try:
            answer = await self._dispatcher.ask(call.plan, question)
        except NobodyAnsweredError as error:
            call.answered_by(call.plan[0], error.attempts)
            outcome = Outcome("error", error.error_type, str(error))
            return Said(call, error.status or 503, {}, b"", None, outcome)
        except asyncio.CancelledError:
            self._recorder.finish(call, GONE)
            raise
        call.answered_by(answer.target, answer.attempts)
        response = answer.begun.response
        try:
            payload = answer.begun.first_chunk + await response.read()
        except _BROKEN as error:
            outcome = Outcome("error", "upstream_disconnected", readable(str(error)) or "timeout")
            return Said(call, 502, {}, b"", None, outcome)
        except asyncio.CancelledError:
            call.http_status = response.status
            self._recorder.finish(call, GONE)
            raise
        finally:
            response.release()
        call.http_status = response.status
        call.received(payload)
        is_ok = response.status < 400
        reply = _parse(payload) if is_ok else None
        outcome = Outcome("ok" if is_ok else "error")
        return Said(call, response.status, dict(response.headers), payload, reply, outcome)

    def _keep_pair(self, chain: Chain, sent: Step, call: Call) -> None:
        """The answer that passed, as the correction of the last one that did not."""
        if sent.failed is not None or sent.said.reply is None or sent is chain.steps[0]:
            return
        section, message = call.route.section, _message(sent.said.reply)
        failed = chain.steps[0]
        if message is None or failed.failed is None or not call.route.sample:
            return
        is_repair = sent.role == "repair"
        named = section.repair if is_repair else section.cascade
        assert named is not None
        self._recorder.sink.append(
            "feedback",
            Feedback(
                interaction_id=failed.said.call.arrival.interaction_id,
                name=named.record_as,
                correction=message,
                comment=failed.failed,
                source_type="code",
                source_id=f"gateway:{sent.role}:{sent.said.call.target.model}",
                assessment_id=new_id(),
                workload=call.route.workload,
                created_at=utcnow(),
            ),
        )


def _reply(call: Call, said: Said, *, told_logprobs: bool) -> web.Response:
    """The answer as the client asked for it: whole or as a stream, logprobs or none."""
    own = flywheel_headers(said.call.arrival.interaction_id, said.call.target)
    own.update(call.grant.headers if call.grant is not None else {})
    if not said.payload:
        return unavailable(
            said.outcome.error_message or "no answer",
            status=said.status,
            code=said.outcome.error_type or "upstream_unavailable",
            headers=own,
        )
    headers = forwarded(said.headers, own)
    body = said.payload
    if said.reply is not None:
        reply = said.reply if told_logprobs else _without_logprobs(said.reply)
        if call.body.get("stream") is True:
            options = call.body.get("stream_options")
            has_usage = isinstance(options, dict) and options.get("include_usage") is True
            headers["Content-Type"] = "text/event-stream"
            body = as_stream(reply, has_usage=has_usage)
        elif reply != said.reply:
            body = to_json(reply)
    return web.Response(body=body, status=said.status, headers=headers)


def _with_objection(body: JsonObject, reply: JsonObject, instruction: str) -> JsonObject:
    given, message = body.get("messages"), _message(reply)
    messages = [*given] if isinstance(given, list) else []
    if message is not None:
        messages.append(message.model_dump(mode="json"))
    return {**body, "messages": [*messages, {"role": "user", "content": instruction}]}


def _message(reply: JsonObject) -> Message | None:
    """The first choice's message."""
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    raw = first.get("message") if isinstance(first, dict) else None
    try:
        return Message.model_validate(raw)
    except ValidationError:
        return None


def _parse(payload: bytes) -> JsonObject | None:
    try:
        reply = from_json(payload, allow_inf_nan=False)
    except ValueError:
        return None
    return reply if isinstance(reply, dict) else None


def _without_logprobs(reply: JsonObject) -> JsonObject:
    """What the client gets when it was the check that wanted them."""
    choices = reply.get("choices")
    return {
        **reply,
        "choices": [
            {name: value for name, value in choice.items() if name != "logprobs"}
            if isinstance(choice, dict) and choice.get("logprobs") is not None
            else choice
            for choice in (choices if isinstance(choices, list) else [])
        ],
    }
