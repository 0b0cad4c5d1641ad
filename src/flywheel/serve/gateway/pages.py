"""Pages of /metrics of several processes: told apart by a label, or added up.

Input: pages as `metrics` renders them. Output: a page. Counters and histograms are summed; what all
processes see of the same thing is not.
"""

from collections.abc import Callable, Iterable

Number = int | float
_PREFIX = "flywheel_gateway_"
_ALIKE: dict[str, Callable[[Number, Number], Number]] = {
    f"{_PREFIX}ready": min,
    f"{_PREFIX}release_epoch": min,
    f"{_PREFIX}daily_budget_usd": max,
    f"{_PREFIX}spent_today_usd": max,
    f"{_PREFIX}unknown_cost_today": max,
}
"""Not ready while one is not; at the release of the last to follow; a budget is a home's."""


def labelled(page: str, worker: int) -> str:
    """The page with a further label on every series."""
    return "\n".join(_labelled(line, f'worker="{worker}"') for line in page.split("\n"))


def combined(pages: Iterable[str]) -> str:
    """One page for all of them."""
    families: dict[str, dict[str, Number]] = {}
    for page in pages:
        series: dict[str, Number] = {}
        join: Callable[[Number, Number], Number] = _add
        for line in page.splitlines():
            if line.startswith("#"):  # `# TYPE <name> <kind>`
                series = families.setdefault(line, {})
                join = _ALIKE.get(line.split()[2], _add)
            elif line:
                name, _, value = line.rpartition(" ")
                number = _number(value)
                series[name] = join(series[name], number) if name in series else number
    lines = [
        line
        for family, series in families.items()
        for line in (family, *(f"{name} {number}" for name, number in series.items()))
    ]
    return "\n".join([*lines, ""])


def _labelled(line: str, label: str) -> str:
    if not line or line.startswith("#"):
        return line
    name, _, value = line.rpartition(" ")
    inside = f"{name[:-1]},{label}}}" if name.endswith("}") else f"{name}{{{label}}}"
    return f"{inside} {value}"


def _add(one: Number, other: Number) -> Number:
    total = one + other
    return round(total, 9) if isinstance(total, float) else total


def _number(text: str) -> Number:
    try:
        return int(text)
    except ValueError:
        return float(text)
