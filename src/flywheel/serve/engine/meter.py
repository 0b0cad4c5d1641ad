"""What the engine counts, and how Prometheus reads it.

Each number is written by one thread only, so that plain attributes are enough.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence

_STEP_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
_LATENCY_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Histogram:
    """Counts by upper bound, as Prometheus has them."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Takes one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> list[str]:
        """In the text format: cumulative buckets, sum and count."""
        lines, total = [], 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self._sum:.6f}", f"{name}_count {total}"]


class Meter:
    """Counters and histograms of one engine."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        """By route and HTTP status."""
        self.prompt_tokens = 0
        """Run through the model."""
        self.cached_tokens = 0
        """Of prompts, found in the cache instead."""
        self.completion_tokens = 0
        self.cancelled = 0
        """Rows dropped because nobody waited for them any more."""
        self.failed_steps = 0
        self.adapter_loads = 0
        self.adapter_evictions = 0
        self.longest_pause_s = 0.0
        """Longest time between two steps while somebody was waiting for a next token."""
        self._steps = Histogram(_STEP_BUCKETS_S)
        self._rows = Histogram(_ROW_BUCKETS)
        self._latency = Histogram(_LATENCY_BUCKETS_S)
        self._last_step: float | None = None

    def step(self, started: float, rows: int) -> None:
        """Takes one pass through the model that began at `started` (monotonic seconds)."""
        now = time.monotonic()
        self._steps.observe(now - started)
        self._rows.observe(rows)
        if self._last_step is not None:
            self.longest_pause_s = max(self.longest_pause_s, now - self._last_step)
        self._last_step = now

    def idle(self) -> None:
        """Nobody waits any more: the time to the next step is no pause."""
        self._last_step = None

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Takes one finished HTTP request."""
        self.requests[(route, status)] += 1
        self._latency.observe(seconds)

    def render(self, gauges: Mapping[str, float]) -> str:
        """Everything in Prometheus' text format, with gauges read by the caller."""
        lines = ["# TYPE flywheel_engine_requests_total counter"]
        for (route, status), count in sorted(self.requests.items()):
            labels = f'route="{route}",status="{status}"'
            lines.append(f"flywheel_engine_requests_total{{{labels}}} {count}")
        counters: dict[str, float] = {
            "prompt_tokens": self.prompt_tokens,
            "cached_prompt_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "cancelled_rows": self.cancelled,
            "failed_steps": self.failed_steps,
            "adapter_loads": self.adapter_loads,
            "adapter_evictions": self.adapter_evictions,
        }
        for name, value in counters.items():
            lines += _metric(f"flywheel_engine_{name}_total", "counter", value)
        for name, value in {**gauges, "longest_pause_seconds": self.longest_pause_s}.items():
            lines += _metric(f"flywheel_engine_{name}", "gauge", value)
        for name, histogram in {
            "step_seconds": self._steps,
            "batch_rows": self._rows,
            "request_seconds": self._latency,
        }.items():
            full = f"flywheel_engine_{name}"
            lines += [f"# TYPE {full} histogram", *histogram.lines(full)]
        return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, value: float) -> list[str]:
    return [f"# TYPE {name} {kind}", f"{name} {value}"]
