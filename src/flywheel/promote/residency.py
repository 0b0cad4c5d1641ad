"""Which adapters replicas hold in memory: load, check by a generation, let go of the old ones."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from flywheel.errors import PromotionError, UpstreamUnavailableError
from flywheel.promote.fleet import Fleet
from flywheel.promote.servers import ModelServer
from flywheel.promote.store import verify_folder
from flywheel.records import Adapter, Message
from flywheel.workload import PromotionSection


async def stage(adapter: Adapter, servers: Sequence[ModelServer]) -> None:
    """Loads an adapter on every replica and moves no alias: the gate evaluates it from there.

    Raises:
        AdapterError: the folder must not be served.
        UpstreamUnavailableError: a replica does not answer; the others may have it by now.
        PromotionError: a replica refuses it, or there is none.
    """
    if not servers:
        raise PromotionError("no model server is known: set FLYWHEEL_ENGINE_URLS.")
    path = Path(adapter.path)
    verify_folder(path, adapter)
    await asyncio.gather(*(server.load(adapter.name, path) for server in servers))


async def verify(model: str, servers: Sequence[ModelServer], section: PromotionSection) -> None:
    """Has every replica answer the workload's `verify_prompt` as `model`.

    It proves that the model answers, and says nothing of how well: that is the gate's work.

    Raises:
        UpstreamUnavailableError: a replica does not answer.
        PromotionError: one answers nothing, or as another model.
    """
    await asyncio.gather(*(_verify_one(model, server, section) for server in servers))


async def _verify_one(model: str, server: ModelServer, section: PromotionSection) -> None:
    prompt = Message(role="user", content=section.verify_prompt)
    answer = await server.complete([prompt], model=model, max_tokens=section.verify_max_tokens)
    if answer.model != model:
        raise PromotionError(
            f"{server.url} was asked for {model} and answered as {answer.model}: nothing was moved."
        )
    if not answer.text.strip():
        raise PromotionError(
            f"{server.url} answered nothing as {model} to promotion.verify_prompt "
            f"{section.verify_prompt!r}: nothing was moved."
        )


async def ensure_resident(fleet: Fleet, model: str) -> tuple[str, ...]:
    """Makes sure that a model that served before can serve again, at once.

    A replica that is down does not hold up a roll-back, as long as one other has the model.

    Returns:
        A warning for each replica that does not answer.

    Raises:
        UpstreamUnavailableError: no replica answers.
        PromotionError: one refuses the model.
    """
    outcomes = await asyncio.gather(
        *(_ensure_on(server, fleet, model) for server in fleet.servers), return_exceptions=True
    )
    down: list[UpstreamUnavailableError] = []
    for outcome in outcomes:
        if isinstance(outcome, UpstreamUnavailableError):
            down.append(outcome)
        elif outcome is not None:
            raise outcome
    if len(down) == len(outcomes):
        raise down[0] if down else PromotionError("no model server is known.")
    return tuple(str(error) for error in down)


async def _ensure_on(server: ModelServer, fleet: Fleet, model: str) -> None:
    if model in await server.models():
        return
    if model == fleet.workload.base_model:
        raise PromotionError(f"{server.url} does not serve the base model {model}.")
    await stage(fleet.stored(model), [server])
    await verify(model, [server], fleet.workload.promotion)


def wanted(fleet: Fleet) -> set[str]:
    """Adapters that must stay resident: the champion's, the previous one, the newest candidate."""
    now = fleet.lake.current_release(fleet.workload.name)
    newest = fleet.adapters()[:1]
    return {adapter.name for adapter in newest} | ({now.model, now.previous} if now else set())


async def retire(fleet: Fleet) -> tuple[str, ...]:
    """Asks the replicas to let go of this workload's adapters that nobody needs any more.

    Nothing waits for it and nothing depends on it: what a replica does not unload now is asked for
    again the next time. Adapters of other workloads are not touched.

    Returns:
        Served names that were asked for.
    """
    stale = {adapter.name for adapter in fleet.adapters()} - wanted(fleet)
    asked = await asyncio.gather(*(_retire_on(server, stale) for server in fleet.servers))
    return tuple(sorted(set().union(*asked)))


async def _retire_on(server: ModelServer, stale: set[str]) -> set[str]:
    found: set[str] = set()
    try:
        found = stale.intersection(await server.models())
        for name in sorted(found):
            await server.unload(name)
    except UpstreamUnavailableError:
        # Down, or busy unloading: the next release asks again.
        return found
    return found
