"""A day in production: an application asks, the model answers, clinicians look at some of it.

Input: messages of the generator. Output: what was served, and labels at POST /v1/feedback. The
client is the ordinary `openai` package; it knows a base URL and a model name, nothing of adapters.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp
from openai import APIError, AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from flywheel_examples.triage.complaints import Urgency
from flywheel_examples.triage.messages import SYSTEM_PROMPT, PatientMessage

MAX_TOKENS = 16
"""The answer is at most 8 tokens and an end; a base model that rambles is cut here."""


class Rater(Protocol):
    """Somebody who reads a message and says how urgent it is."""

    name: str

    def label(self, urgency: Urgency) -> Urgency:
        """Their judgement of a message whose true urgency is given."""
        ...


@dataclass(frozen=True)
class Served:
    """One answer a patient got."""

    message: PatientMessage
    interaction_id: str
    adapter: str
    """Served name of the adapter, empty when the base model answered."""
    text: str

    @property
    def urgency(self) -> str | None:
        """The answer's urgency, None when it is not the JSON asked for."""
        try:
            answer = json.loads(self.text)
        except json.JSONDecodeError:
            return None
        return answer.get("urgency") if isinstance(answer, dict) and len(answer) == 1 else None


@dataclass
class Tally:
    """Requests of the whole demo, counted at the client."""

    sent: int = 0
    answered: int = 0
    failures: list[str] = field(default_factory=list)


class Application:
    """The patient-facing application: asks the gateway for the stable model name."""

    def __init__(self, gateway_url: str, model: str, tally: Tally) -> None:
        # No retries: a request that fails once is a failed request, and the demo promises none.
        self._client = AsyncOpenAI(
            base_url=f"{gateway_url}/v1", api_key="none", max_retries=0, timeout=120
        )
        self._model, self._tally = model, tally

    async def ask(self, message: PatientMessage, *, stream: bool) -> Served | None:
        """One request; None when it failed, which is counted."""
        conversation: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": message.text},
        ]
        headers = {"x-flywheel-conversation-id": message.conversation_id}
        create = self._client.chat.completions.with_raw_response.create
        self._tally.sent += 1
        try:
            if stream:
                streamed = await create(
                    model=self._model,
                    messages=conversation,
                    temperature=0,
                    max_tokens=MAX_TOKENS,
                    stream=True,
                    extra_headers=headers,
                )
                reply_headers, text = streamed.headers, ""
                async for chunk in streamed.parse():
                    text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            else:
                whole = await create(
                    model=self._model,
                    messages=conversation,
                    temperature=0,
                    max_tokens=MAX_TOKENS,
                    extra_headers=headers,
                )
                reply_headers = whole.headers
                text = whole.parse().choices[0].message.content or ""
        except APIError as error:
            self._tally.failures.append(f"{message.message_id}: {error}")
            return None
        self._tally.answered += 1
        return Served(
            message=message,
            interaction_id=reply_headers["x-flywheel-interaction-id"],
            adapter=reply_headers["x-flywheel-adapter"].replace("none", ""),
            text=text,
        )

    async def ask_all(
        self,
        messages: Sequence[PatientMessage],
        *,
        concurrency: int = 8,
        on_answer: Callable[[], None] = lambda: None,
    ) -> list[Served]:
        """A day's messages, every second one streamed; in the order of the messages."""
        slots = asyncio.Semaphore(concurrency)

        async def one(index: int, message: PatientMessage) -> Served | None:
            async with slots:
                served = await self.ask(message, stream=index % 2 == 1)
            on_answer()
            return served

        answers = await asyncio.gather(*(one(i, message) for i, message in enumerate(messages)))
        return [served for served in answers if served is not None]

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()


async def review(
    served: Iterable[Served], raters: Sequence[Rater], gateway_url: str
) -> tuple[int, int]:
    """Clinicians label answers at the public feedback endpoint.

    An answer a clinician agrees with is approved (`value` 1); any other is corrected.

    Returns:
        How many were approved, and how many corrected.
    """
    approved = corrected = 0
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        for index, answer in enumerate(served):
            rater = raters[index % len(raters)]
            verdict = rater.label(answer.message.urgency)
            body: dict[str, object] = {
                "interaction_id": answer.interaction_id,
                "name": "urgency",
                "source_type": "human",
                "source_id": rater.name,
                # Sent twice after a network failure, it is still one judgement.
                "assessment_id": f"{rater.name}/{answer.interaction_id}",
            }
            if answer.urgency == verdict:
                approved += 1
                body["value"] = 1
            else:
                corrected += 1
                body["correction"] = json.dumps({"urgency": verdict})
            async with session.post(f"{gateway_url}/v1/feedback", json=body) as reply:
                await reply.read()
    return approved, corrected
