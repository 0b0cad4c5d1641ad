"""`flywheel report`: how the gateway's routes did: what stayed small, what it cost, what it saved.

Input: the lake, a workload file, a price table. Output: a row a model name clients asked for.
"""

from datetime import timedelta
from importlib.resources import files
from typing import Annotated, cast

import typer
from pydantic import JsonValue

from flywheel.cli.common import (
    DEFAULT_WORKLOAD,
    HomeOption,
    JsonOption,
    WorkloadOption,
    console,
    print_json,
    print_table,
)
from flywheel.prices import PriceTable, TokenUsage
from flywheel.records import Record, utcnow
from flywheel.settings import Settings
from flywheel.workload import Workload


class RouteReport(Record):
    """What the requests to one model name came to."""

    alias: str
    requests: int
    """What applications sent; a repaired or escalated request is one of them."""
    calls: int
    """What models were asked on their behalf."""
    escalated: int
    """Answered by the large model, because a check of the small one's answer failed."""
    repaired: int
    """Asked again, with the reason why the first answer would not do."""
    plan_b: int
    """Answered by another provider than the one meant to."""
    failed: int
    cost_usd: float | None
    """Of the requests whose cost is known; None when it is of none."""
    cost_unknown: int
    """Requests of which the cost of at least one call is not known."""
    tokens_unknown: int
    input_tokens: int
    """Of the first answers."""
    cached_input_tokens: int
    output_tokens: int

    @property
    def stayed_small(self) -> float | None:
        """Share of the requests the large model never saw."""
        return 1 - self.escalated / self.requests if self.requests else None

    def at_the_price_of(self, model: str, prices: PriceTable) -> float | None:
        """What the first answers' tokens would have cost from this model.

        An estimate: another model writes another number of tokens. None when it has no price, or
        some of the tokens are not known.
        """
        if self.tokens_unknown:
            return None
        usage = TokenUsage(self.input_tokens, self.output_tokens, self.cached_input_tokens)
        return prices.cost_usd(model, usage)


def report(
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    days: Annotated[float, typer.Option(min=0.01, help="How far back.")] = 7,
    as_json: JsonOption = False,
) -> None:
    """Show, for each model name, what share stayed with the small model and what it cost.

    Costs need a price table when calls are answered (FLYWHEEL_PRICES); an unknown cost is counted,
    never taken for 0.

    Example: flywheel report --home demo --days 7
    """
    from flywheel.lake import Lake

    settings = Settings.load(home=home)
    declared = Workload.load(workload)
    prices = PriceTable.load(settings.prices)
    sql = (files("flywheel.cli") / "report.sql").read_text(encoding="utf-8")
    since = utcnow() - timedelta(days=days)
    found = Lake.open(settings).fetch(RouteReport, sql, [declared.name, since])
    rows = [_told(one, declared, prices) for one in found]
    if as_json:
        print_json({"workload": declared.name, "since": since.isoformat(), "routes": rows})
        return
    if not rows:
        console.print(
            f"no calls of {declared.name} in the last {days:g} days are in the lake; "
            "`flywheel capture drain` brings what waits in the spool"
        )
        return
    facts = {
        "requests": "requests",
        "stayed_small": "stayed with the small model",
        "repaired": "repaired",
        "plan_b": "answered by plan B",
        "failed": "failed",
        "cost_usd": "cost, USD",
        "cost_unknown": "requests of unknown cost",
        "large_model": "large model",
        "would_have_cost_usd": "it alone would have cost, USD",
    }
    table = [[told, *(_cell(row[name]) for row in rows)] for name, told in facts.items()]
    names = [str(row["alias"]) for row in rows]
    print_table(f"{declared.name}, last {days:g} days", ["model name", *names], table)


def _told(one: RouteReport, workload: Workload, prices: PriceTable) -> dict[str, object]:
    route = workload.gateway.routes.get(one.alias)
    large = route.cascade.escalate_to.model if route and route.cascade else None
    return {
        **one.model_dump(),
        "stayed_small": one.stayed_small if large else None,
        "large_model": large,
        "would_have_cost_usd": one.at_the_price_of(large, prices) if large else None,
    }


def _cell(value: object) -> JsonValue:
    return f"{value:.4g}" if isinstance(value, float) else cast("JsonValue", value)
