"""Model servers: what a replica must be able to do, and the client for those that speak vLLM's API.

vLLM (with `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`) and `flywheel engine` both speak it. A load
reaches one process only, so that every replica is told separately. `path` must mean the same
folder on the server as it does here: the adapter store is on a disk both can read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from flywheel.chat import Completion
from flywheel.errors import PromotionError, UpstreamUnavailableError
from flywheel.promote.wire import Reply, request
from flywheel.records import Message

LIST_TIMEOUT_S = 5.0
LOAD_TIMEOUT_S = 300.0
UNLOAD_TIMEOUT_S = 2.0
"""SGLang answers an unload only when the adapter's last request has ended, and may never."""
GENERATE_TIMEOUT_S = 120.0


class ModelServer(Protocol):
    """One replica: a base model that adapters are loaded into under immutable names."""

    @property
    def url(self) -> str:
        """Where it is, for messages."""
        ...

    async def load(self, name: str, path: Path) -> None:
        """Makes the adapter in a folder answer under a name; loading it again is harmless.

        Raises:
            UpstreamUnavailableError: the replica does not answer, or cannot now.
            PromotionError: it refuses the adapter.
        """
        ...

    async def unload(self, name: str) -> None:
        """Asks that an adapter be forgotten; one that is not there is fine.

        Raises:
            UpstreamUnavailableError: no answer yet; it may still happen.
        """
        ...

    async def models(self) -> list[str]:
        """Names that answer: the base model's and the resident adapters'.

        Raises:
            UpstreamUnavailableError: the replica does not answer.
        """
        ...

    async def complete(
        self, messages: Sequence[Message], *, model: str, max_tokens: int
    ) -> Completion:
        """Answers greedily, once.

        Raises:
            UpstreamUnavailableError: the replica does not answer.
            PromotionError: it answers, but not with a completion of that model.
        """
        ...


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Model(_Lenient):
    id: str


class _Models(_Lenient):
    data: list[_Model]


class _Choice(_Lenient):
    message: Message
    finish_reason: str | None = None


class _Chat(_Lenient):
    model: str
    choices: list[_Choice]


class HttpModelServer:
    """A replica behind vLLM's HTTP API, at its root URL (without `/v1`)."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")

    @property
    def url(self) -> str:
        """Root URL."""
        return self._url

    async def load(self, name: str, path: Path) -> None:
        """Loads an adapter; see ModelServer. A server that says 400 because it has it is believed.

        vLLM answers 400 to a second load of one name, and to other things: its list of models tells
        which. A name stands for one set of weights for ever, so having the name is having them.
        """
        reply = await request(
            "POST",
            f"{self._url}/v1/load_lora_adapter",
            body={"lora_name": name, "lora_path": str(path)},
            timeout_s=LOAD_TIMEOUT_S,
        )
        if reply.status < 300 or name in await self.models():
            return
        raise PromotionError(f"{self._url} would not load {name} from {path}: {_reason(reply)}")

    async def unload(self, name: str) -> None:
        """Unloads an adapter; see ModelServer."""
        await request(
            "POST",
            f"{self._url}/v1/unload_lora_adapter",
            body={"lora_name": name},
            timeout_s=UNLOAD_TIMEOUT_S,
        )

    async def models(self) -> list[str]:
        """Lists what answers; see ModelServer."""
        reply = await request("GET", f"{self._url}/v1/models", timeout_s=LIST_TIMEOUT_S)
        try:
            return [model.id for model in _Models.model_validate(reply.body).data]
        except ValidationError as error:
            raise UpstreamUnavailableError(
                self._url, f"GET /v1/models answered {reply.status}: {reply.message:.200}"
            ) from error

    async def complete(
        self, messages: Sequence[Message], *, model: str, max_tokens: int
    ) -> Completion:
        """Answers once; see ModelServer."""
        reply = await request(
            "POST",
            f"{self._url}/v1/chat/completions",
            body={
                "model": model,
                "messages": [message.model_dump() for message in messages],
                "max_tokens": max_tokens,
                "temperature": 0,
            },
            timeout_s=GENERATE_TIMEOUT_S,
        )
        try:
            chat = _Chat.model_validate(reply.body)
            choice = chat.choices[0]
        except (ValidationError, IndexError) as error:
            raise PromotionError(
                f"{self._url} did not answer as {model}: HTTP {reply.status}: {reply.message:.300}"
            ) from error
        return Completion(
            text=choice.message.text, model=chat.model, finish_reason=choice.finish_reason
        )


def _reason(reply: Reply) -> str:
    if reply.status in (404, 405) and "adapter" not in reply.message.lower():
        return (
            f"HTTP {reply.status}: it has no adapter endpoints. vLLM has them with --enable-lora "
            "and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True; `flywheel engine` always has"
        )
    return f"HTTP {reply.status}: {reply.message:.300}"
