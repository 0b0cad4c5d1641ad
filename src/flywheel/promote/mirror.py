"""MLflow's aliases, set to what the ledger says. People look there; nothing is decided by them."""

from typing import TYPE_CHECKING

from flywheel.promote.fleet import Fleet
from flywheel.promote.store import store_adapter

if TYPE_CHECKING:
    from flywheel.tracking import Alias


def mirror(fleet: Fleet) -> "dict[Alias, str | None]":
    """Points `champion`, `previous` and `candidate` where the ledger points; again is harmless.

    An alias that would name the base model is removed: the registry has adapters only. `candidate`
    is the newest adapter, until it is released.

    Returns:
        What each alias names now.

    Raises:
        UpstreamUnavailableError: MLflow does not answer.
        TrackingError: it refuses.
    """
    adapters = {adapter.name: adapter for adapter in fleet.adapters()}
    history = fleet.history()
    released = {flip.model for flip in history}
    now = history[-1] if history else None
    newest = next(iter(adapters), None)
    aliases: dict[Alias, str | None] = {
        "champion": now.adapter if now else None,
        "previous": now.previous if now and now.previous in adapters else None,
        "candidate": newest if newest not in released else None,
    }
    known = fleet.tracker.aliases(fleet.workload.name)
    for alias, name in aliases.items():
        if known.get(alias) != name:
            if name is not None:
                fleet.tracker.register_adapter(store_adapter(adapters[name], fleet.store))
            fleet.tracker.set_alias(fleet.workload.name, alias, name)
    return aliases
