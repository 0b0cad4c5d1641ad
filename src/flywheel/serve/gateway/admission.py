"""Who may call, how much, and what it cost: keys, limits and budgets as one object.

Input: a request's headers and its workload; later the tokens it used. Output: a Grant, or an error
with the status, the code and the `Retry-After` to answer with (`refusal` makes the reply).

    grant = admission.admit(request.headers, route.workload)
    …
    admission.settle(grant, usage_in(tail, is_stream), route.model)

The client's Authorization header is the gateway's key: while `needs_key` it must not travel
upstream. For one thread: the event loop's.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from flywheel.errors import BudgetSpentError, KeyRefusedError, LimitReachedError
from flywheel.prices import PriceTable, TokenUsage
from flywheel.serve.gateway.budget import DailyBudgets
from flywheel.serve.gateway.keys import GatewayKey, KeyRing
from flywheel.serve.gateway.limits import RateLimits
from flywheel.serve.gateway.metrics import Metrics
from flywheel.serve.gateway.replies import error_body, json_reply
from flywheel.workload import Workload

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Grant:
    """A call that was let in."""

    workload: str
    key: GatewayKey | None
    """None where the gateway is open."""
    headers: dict[str, str] = field(default_factory=dict)
    """`x-ratelimit-*`, for the reply."""
    is_settled: bool = False

    def again(self) -> "Grant":
        """For a further call on behalf of the same request: its tokens count, it does not."""
        return Grant(self.workload, self.key)


class Admission:
    """The door of one gateway process.

    Args:
        keys: who may call.
        limits: how much a minute.
        budgets: how much a day.
        prices: what a token costs.
        metrics: where it is counted.
    """

    def __init__(
        self,
        keys: KeyRing,
        limits: RateLimits,
        budgets: DailyBudgets,
        prices: PriceTable,
        metrics: Metrics,
    ) -> None:
        self._keys, self._limits, self._budgets = keys, limits, budgets
        self._prices, self._metrics = prices, metrics
        self._warned: set[str] = set()
        metrics.budgets = budgets.states

    @classmethod
    def open(
        cls,
        *,
        keys_file: Path,
        spend_dir: Path,
        prices: PriceTable,
        workloads: Iterable[Workload],
        metrics: Metrics,
    ) -> "Admission":
        """The door of a home.

        Raises:
            ConfigError: the keys cannot be read, or the folder not written to.
        """
        budgets = DailyBudgets(spend_dir, _budgets(workloads))
        return cls(KeyRing(keys_file), RateLimits(), budgets, prices, metrics)

    @property
    def needs_key(self) -> bool:
        """Whether the Authorization header is ours, and must not be sent on."""
        return not self._keys.is_open

    def reload(self, workloads: Iterable[Workload], prices: PriceTable) -> None:
        """Takes budgets and prices of files read anew. The keys follow their file by themselves."""
        self._budgets.replace_budgets(_budgets(workloads))
        self._prices = prices

    def authenticate(self, headers: Mapping[str, str]) -> GatewayKey | None:
        """The key of a request; None while the gateway is open.

        Raises:
            KeyRefusedError: none was sent, or not one in force.
        """
        if self._keys.is_open:
            return None
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise self._refused(KeyRefusedError("missing"))
        key = self._keys.find(token)
        if key is None:
            raise self._refused(KeyRefusedError("unknown"))
        if key.revoked_at is not None:
            raise self._refused(KeyRefusedError("revoked", key=key.name))
        return key

    def admit(self, headers: Mapping[str, str], workload: str) -> Grant:
        """Lets a call in and counts it.

        Raises:
            KeyRefusedError: no key, or not one for this workload.
            BudgetSpentError: the workload's budget of the day is spent.
            RateLimitedError: the key's requests or tokens a minute are.
        """
        key = self.authenticate(headers)
        if key is not None and not key.opens(workload):
            raise self._refused(KeyRefusedError("workload", key=key.name, workload=workload))
        try:
            self._budgets.check(workload)
            allowed = self._limits.take(key) if key is not None else {}
        except LimitReachedError as error:
            if key is not None:
                error.headers = self._limits.headers(key)
            self._metrics.refusals[workload, error.reason] += 1
            raise
        return Grant(workload, key, allowed)

    def settle(
        self, grant: Grant, usage: TokenUsage | None, model: str, *, estimated_tokens: int = 0
    ) -> float | None:
        """Charges a call that ended, once.

        Args:
            grant: as it was given.
            usage: what the server reported.
            model: the name that answered, as the price table knows it.
            estimated_tokens: charged to the key's tokens a minute where the server reported
                nothing, so that a stream that hides its usage is limited too. Never a cost.

        Returns:
            What it cost in USD, None where nobody knows.
        """
        if grant.is_settled:
            return None
        grant.is_settled = True
        cost = self._prices.cost_usd(model, usage)
        self._budgets.spend(grant.workload, cost)
        self._metrics.spent(grant.workload, model, usage, cost)
        if grant.key is not None:
            tokens = usage.total_tokens if usage is not None else estimated_tokens
            self._limits.settle(grant.key, tokens)
        if cost is None and self._budgets.has_budget(grant.workload):
            self._warn(grant.workload, model, usage)
        return cost

    def close(self) -> None:
        """Writes what was spent. Blocks for one small file."""
        self._budgets.close()

    def _refused(self, error: KeyRefusedError) -> KeyRefusedError:
        # Without a key's word for it a workload is not worth a series of its own.
        self._metrics.refusals[error.workload, f"key_{error.reason}"] += 1
        return error

    def _warn(self, workload: str, model: str, usage: TokenUsage | None) -> None:
        reason = f"model {model!r} has no price" if usage is not None else "no tokens were reported"
        if (said := f"{workload} {reason}") in self._warned or len(self._warned) > 1000:
            return
        self._warned.add(said)
        logger.warning(
            "%s has a daily budget, and a call of unknown cost: %s. It spends nothing of it; see "
            "FLYWHEEL_PRICES, and stream_options.include_usage",
            workload,
            reason,
        )


def refusal(
    error: KeyRefusedError | LimitReachedError, headers: Mapping[str, str] | None = None
) -> web.Response:
    """The reply to a call that was not let in, as OpenAI would put it.

    Args:
        error: why.
        headers: what every reply carries.
    """
    if isinstance(error, KeyRefusedError):
        body = error_body(str(error), kind="invalid_request_error", code=error.code)
        extra = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
        return json_reply(body, status=error.status, headers={**(headers or {}), **extra})
    body = error_body(str(error), kind=error.kind, code=error.code)
    extra = {"Retry-After": str(error.retry_after_s), **error.headers}
    if isinstance(error, BudgetSpentError):
        extra["x-should-retry"] = "false"  # OpenAI's clients would try again within seconds
    return json_reply(body, status=error.status, headers={**(headers or {}), **extra})


def _budgets(workloads: Iterable[Workload]) -> dict[str, float]:
    declared = {one.name: one.gateway.daily_budget_usd for one in workloads}
    return {name: budget for name, budget in declared.items() if budget is not None}
