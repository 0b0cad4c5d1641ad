"""Which model answers for an alias, right now, and who does when it cannot.

Input: workloads, and releases as they happen. Output: a Route for an alias, and its targets in the
order in which they are asked. A switch is one assignment: a request keeps the route it began with,
so what is in flight finishes on the old adapter.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flywheel.errors import BadRequestError, ConfigError, EpochConflictError, UnknownModelError
from flywheel.records import Arm, Durability, Release
from flywheel.routes import ENGINE, RouteSection, RouteTarget
from flywheel.workload import Workload

STRONGEST_FIRST: tuple[Durability, ...] = ("before_response", "group", "async")


@dataclass(frozen=True, slots=True)
class Target:
    """One who may answer a request."""

    provider: str
    model: str
    """The name sent to the provider."""
    adapter: str | None
    """The same when it is an adapter."""
    arm: Arm


@dataclass(frozen=True, slots=True)
class Route:
    """What an alias stands for."""

    workload: str
    alias: str
    model: str
    """The immutable served name of the champion."""
    adapter: str | None
    """The same when it is an adapter, None when the base model is the champion."""
    arm: Arm
    epoch: int
    """Of the release; 0 before the first."""
    release: Release | None
    sample: float
    """Share of calls captured; 0 when capture is off."""
    section: RouteSection
    durability: Durability = "group"
    """When a captured call is on disk."""

    @property
    def champion(self) -> Target:
        """The champion, on the deployment's own model servers."""
        return Target(ENGINE, self.model, self.adapter, self.arm)

    def plan(self, identity: str) -> tuple[Target, ...]:
        """Whom to ask, in order: one drawn by weight, then plan B.

        Args:
            identity: of the conversation, so that all of it has the same first target.
        """
        targets = self.section.targets
        if len(targets) == 1:
            return (self.target(targets[0]),)
        first = _draw(self.section.weights, identity)
        others = [self.target(target) for target in (*targets[:first], *targets[first + 1 :])]
        plan_b = [replace(target, arm="fallback") for target in others]
        return (self.target(targets[first]), *plan_b)

    def target(self, declared: RouteTarget) -> Target:
        """A declared target as it stands now."""
        if declared.model is None or (declared.provider, declared.model) == (ENGINE, self.model):
            return self.champion
        return Target(declared.provider, declared.model, None, "baseline")


def _draw(weights: Sequence[float], identity: str) -> int:
    """An index by weight, always the same for the same identity."""
    at = zlib.crc32(identity.encode("utf-8", "replace")) / 2**32 * sum(weights)
    for index, weight in enumerate(weights):
        at -= weight
        if at < 0:
            return index
    return max(range(len(weights)), key=weights.__getitem__)  # rounding at the very end


class RouteTable:
    """The routes of the workloads one gateway serves.

    Raises:
        ConfigError: two workloads share a name or a model name.
    """

    def __init__(self, workloads: Sequence[Workload]) -> None:
        self._alias_of = {workload.name: workload.alias for workload in workloads}
        routes = [route for workload in workloads for route in _first_routes(workload)]
        self._by_alias = {route.alias: route for route in routes}
        is_ambiguous = len(self._by_alias) < len(routes) or len(self._alias_of) < len(workloads)
        if not workloads or is_ambiguous:
            names = ", ".join(f"{route.workload} (alias {route.alias})" for route in routes)
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
        """The route of a workload's own alias.

        Raises:
            BadRequestError: it is not served here.
        """
        alias = self._alias_of.get(workload)
        if alias is None:
            raise BadRequestError(
                f"workload {workload!r:.80} is not served here; "
                f"served: {', '.join(self.workloads)}",
                param="workload",
                code="workload_not_found",
            )
        return self._by_alias[alias]

    def durability_of(self, workload: str | None) -> Durability:
        """A workload's durability; the strongest there is where nobody says whose it is."""
        found = {r.durability for r in self.all() if workload in (None, r.workload)}
        return next((one for one in STRONGEST_FIRST if one in found), "group")

    def apply(self, release: Release) -> bool:
        """Switches the workload's champion to the release.

        Returns:
            False when it is that already.

        Raises:
            BadRequestError: the workload is not served here.
            EpochConflictError: the release is not newer than the current one.
        """
        route = self.of(release.workload)
        if release.epoch == route.epoch and release.model == route.model:
            return False
        if release.epoch <= route.epoch:
            raise EpochConflictError(release.workload, release.epoch - 1, route.epoch)
        self._by_alias = {
            alias: _released(one, release) if one.workload == release.workload else one
            for alias, one in self._by_alias.items()
        }
        return True

    def replace(self, other: "RouteTable") -> None:
        """Takes the declarations of another table over, and keeps the releases of this one.

        Raises:
            ConfigError: the workloads are not the same; what their champions are is not known then.
        """
        if other._alias_of != self._alias_of:
            raise ConfigError(
                "gateway",
                ["the workloads or their aliases are not those of the start: restart the gateway"],
            )
        releases = {name: self.of(name).release for name in self._alias_of}
        self._by_alias = {
            alias: _released(route, release) if (release := releases[route.workload]) else route
            for alias, route in other._by_alias.items()
        }


def _first_routes(workload: Workload) -> list[Route]:
    """Before any release the base model answers."""
    declared = {workload.alias: RouteSection(), **workload.gateway.routes}
    return [
        Route(
            workload=workload.name,
            alias=alias,
            model=workload.base_model,
            adapter=None,
            arm="baseline",
            epoch=0,
            release=None,
            sample=workload.capture.sample if workload.capture.enabled else 0.0,
            section=section,
            durability=workload.capture.durability,
        )
        for alias, section in declared.items()
    ]


def _released(route: Route, release: Release) -> Route:
    return replace(
        route,
        model=release.model,
        adapter=release.adapter,
        arm="champion" if release.adapter is not None else "baseline",
        epoch=release.epoch,
        release=release,
    )
