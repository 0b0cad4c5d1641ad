"""Where one workload is served, and the ledger that says what with."""

from dataclasses import dataclass
from pathlib import Path

from flywheel.errors import PromotionError
from flywheel.lake import Lake
from flywheel.promote.gateway import GatewayAdmin
from flywheel.promote.ledger import serving
from flywheel.promote.servers import ModelServer
from flywheel.promote.store import store_adapter
from flywheel.records import Adapter, Release
from flywheel.tracking import Tracker
from flywheel.workload import Workload

ADAPTERS_SQL = "select * from adapters where workload = ? order by created_at desc, adapter_id"


@dataclass(frozen=True)
class Fleet:
    """The replicas, gateway, ledger and registry a release of one workload passes through."""

    workload: Workload
    lake: Lake
    servers: tuple[ModelServer, ...]
    """Every replica: an adapter is loaded on each."""
    gateway: GatewayAdmin
    tracker: Tracker
    """Only mirrors: no decision is read from it, and it is not opened before the alias moved."""
    store: Path
    """The adapter store: the only folder a model server may load from."""

    def history(self) -> list[Release]:
        """The workload's releases, oldest first."""
        return self.lake.releases(self.workload.name)

    def serving(self) -> str:
        """Served name of the model users get now."""
        return serving(self.history(), self.workload.base_model)

    def adapters(self) -> list[Adapter]:
        """The workload's adapters, newest first."""
        return self.lake.fetch(Adapter, ADAPTERS_SQL, (self.workload.name,))

    def adapter(self, name: str) -> Adapter:
        """The adapter with this served name.

        Raises:
            PromotionError: the lake knows none, or it was trained on another base model.
        """
        known = {adapter.name: adapter for adapter in self.adapters()}
        if name not in known:
            newest = ", ".join(list(known)[:5]) or "none yet"
            raise PromotionError(
                f"{self.workload.name} has no adapter {name!r}; newest first: {newest}. "
                "`flywheel train` makes one."
            )
        found = known[name]
        if found.base_model != self.workload.base_model:
            raise PromotionError(
                f"{name} was trained on {found.base_model}, and {self.workload.name} now has "
                f"base_model {self.workload.base_model}: `flywheel train` makes one for it."
            )
        return found

    def stored(self, name: str) -> Adapter:
        """The adapter with this served name, verified and in the store.

        Raises:
            PromotionError: the lake knows none, or it was trained on another base model.
            AdapterError: its folder must not be served.
        """
        return store_adapter(self.adapter(name), self.store)
