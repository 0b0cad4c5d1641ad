"""Which model answers for an alias, right now.

Input: workloads, and releases as they happen. Output: a Route for an alias. A switch is one
assignment: a request keeps the route it began with, so what is in flight finishes on the old
adapter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flywheel.errors import BadRequestError, ConfigError, EpochConflictError, UnknownModelError
from flywheel.records import Arm, Durability, Release
from flywheel.workload import Workload

STRONGEST_FIRST: tuple[Durability, ...] = ("before_response", "group", "async")


@dataclass(frozen=True, slots=True)
class Route:
    """What an alias stands for."""

    workload: str
    alias: str
    model: str
    """The immutable served name sent upstream."""
    adapter: str | None
    """The same when it is an adapter, None when the base model answers."""
    arm: Arm
    epoch: int
    """Of the release; 0 before the first."""
    release: Release | None
    sample: float
    """Share of calls captured; 0 when capture is off."""
    durability: Durability = "group"
    """When a captured call is on disk."""


class RouteTable:
    """The routes of the workloads one gateway serves.

    Raises:
        ConfigError: two workloads share a name or an alias.
    """

    def __init__(self, workloads: Sequence[Workload]) -> None:
        self._by_alias = {workload.alias: _first_route(workload) for workload in workloads}
        self._alias_of = {workload.name: workload.alias for workload in workloads}
        if not workloads or min(len(self._by_alias), len(self._alias_of)) < len(workloads):
            names = ", ".join(f"{workload.name} (alias {workload.alias})" for workload in workloads)
            problem = "every workload needs a name and an alias of its own"
            raise ConfigError("gateway", [f"{problem}; given: {names or 'none'}"])

    @property
    def aliases(self) -> list[str]:
        """The model names clients may ask for."""
        return sorted(self._by_alias)

    @property
    def workloads(self) -> list[str]:
        """The workloads served."""
        return sorted(self._alias_of)

    def all(self) -> list[Route]:
        """Every route as it is now."""
        return [self._by_alias[alias] for alias in self.aliases]

    def find(self, alias: str) -> Route:
        """The route of a model name.

        Raises:
            UnknownModelError: with the names there are.
        """
        route = self._by_alias.get(alias)
        if route is None:
            raise UnknownModelError(alias, self.aliases)
        return route

    def of(self, workload: str) -> Route:
        """The route of a workload.

        Raises:
            BadRequestError: it is not served here.
        """
        alias = self._alias_of.get(workload)
        if alias is None:
            raise BadRequestError(
                f"workload {workload!r} is not served here; served: {', '.join(self.workloads)}",
                param="workload",
                code="workload_not_found",
            )
        return self._by_alias[alias]

    def durability_of(self, workload: str | None) -> Durability:
        """A workload's durability; the strongest there is where nobody says whose it is."""
        found = {r.durability for r in self.all() if workload in (None, r.workload)}
        return next((one for one in STRONGEST_FIRST if one in found), "group")

    def apply(self, release: Release) -> bool:
        """Switches the workload's alias to the release.

        Returns:
            False when it points there already.

        Raises:
            BadRequestError: the workload is not served here.
            EpochConflictError: the release is not newer than the current one.
        """
        route = self.of(release.workload)
        if release.epoch == route.epoch and release.model == route.model:
            return False
        if release.epoch <= route.epoch:
            raise EpochConflictError(release.workload, release.epoch - 1, route.epoch)
        self._by_alias[route.alias] = replace(
            route,
            model=release.model,
            adapter=release.adapter,
            arm="champion" if release.adapter is not None else "baseline",
            epoch=release.epoch,
            release=release,
        )
        return True


def _first_route(workload: Workload) -> Route:
    """Before any release the base model answers."""
    return Route(
        workload=workload.name,
        alias=workload.alias,
        model=workload.base_model,
        adapter=None,
        arm="baseline",
        epoch=0,
        release=None,
        sample=workload.capture.sample if workload.capture.enabled else 0.0,
        durability=workload.capture.durability,
    )
