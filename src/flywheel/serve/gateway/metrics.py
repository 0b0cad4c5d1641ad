"""Numbers of one gateway, in Prometheus' text format.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4). Written by
hand, because on the request path a counter should cost a dictionary update and nothing else.
"""

import resource
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from flywheel.prices import TokenUsage
from flywheel.records import CaptureCounters
from flywheel.serve.gateway.budget import BudgetState
from flywheel.serve.gateway.routing import Route

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Histogram:
    """Observations in buckets, by workload."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = bounds
        self._buckets: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, workload: str, value: float) -> None:
        """Counts one value."""
        buckets = self._buckets.get(workload)
        if buckets is None:
            buckets = self._buckets[workload] = [0] * (len(self._bounds) + 1)
        buckets[bisect_left(self._bounds, value)] += 1
        self._sums[workload] = self._sums.get(workload, 0.0) + value

    def lines(self, name: str) -> Iterator[str]:
        """The series, cumulative as Prometheus wants them."""
        for workload, buckets in self._buckets.items():
            total = 0
            for bound, count in zip((*self._bounds, "+Inf"), buckets, strict=True):
                total += count
                yield f"{name}_bucket{_labels(workload=workload, le=bound)} {total}"
            yield f"{name}_sum{_labels(workload=workload)} {self._sums[workload]:.6f}"
            yield f"{name}_count{_labels(workload=workload)} {total}"


class Metrics:
    """What happened since the start."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        """By workload, arm and HTTP status; 499 is a client that went away."""
        self.refused: Counter[int] = Counter()
        """Requests that reached no workload, by HTTP status."""
        self.feedback: Counter[int] = Counter()
        self.upstream_failures: Counter[str] = Counter()
        """By error_type."""
        self.refusals: Counter[tuple[str, str]] = Counter()
        """Calls not let in, by workload (empty while no key tells) and reason: key_missing,
        key_unknown, key_revoked, key_workload, requests, tokens, budget."""
        self.tokens: Counter[tuple[str, str, str]] = Counter()
        """By workload, model and kind; `cached` is part of `input`."""
        self.cost_usd: dict[tuple[str, str], float] = {}
        """By workload and model; calls of unknown cost are not in it."""
        self.unknown_cost: Counter[tuple[str, str]] = Counter()
        """Calls without a price or without token counts, by workload and model."""
        self.budgets: Callable[[], Sequence[BudgetState]] = tuple
        """Where each workload stands today."""
        self.telemetry: Callable[[], Mapping[tuple[str, str], int]] = dict
        """Parts that OpenTelemetry's exporters sent, by signal and what became of them."""
        self.upstream_retries = 0
        """Connections that failed before a byte of an answer, taken up by the next replica."""
        self.attempts: Counter[tuple[str, str]] = Counter()
        """Attempts in vain, by provider and error_type."""
        self.release_poll_failures = 0
        self.reloads = 0
        self.worker_restarts = 0
        """Processes that died in this one's place."""
        self.in_flight = 0
        self.duration = Histogram()
        self.first_token = Histogram()

    def spent(
        self, workload: str, model: str, usage: TokenUsage | None, cost_usd: float | None
    ) -> None:
        """Counts the tokens and the cost of one call."""
        if usage is not None:
            self.tokens[workload, model, "input"] += usage.input_tokens
            self.tokens[workload, model, "output"] += usage.output_tokens
            self.tokens[workload, model, "cached"] += usage.cached_input_tokens or 0
        if cost_usd is None:
            self.unknown_cost[workload, model] += 1
        else:
            known = self.cost_usd.get((workload, model), 0.0)
            self.cost_usd[workload, model] = known + cost_usd

    def render(self, routes: Sequence[Route], capture: CaptureCounters, *, is_ready: bool) -> str:
        """The page at /metrics."""
        lines = [
            *self._request_lines(),
            *self._spending_lines(),
            *_family("flywheel_gateway_ready", "gauge", {"": int(is_ready)}),
            *_family(
                "flywheel_gateway_release_epoch",
                "gauge",
                {_labels(workload=r.workload, model=r.model, arm=r.arm): r.epoch for r in routes},
            ),
            *_capture_lines(capture),
            *_process_lines(),
        ]
        return "\n".join([*lines, ""])

    def _request_lines(self) -> Iterator[str]:
        requests = {
            _labels(workload=workload, arm=arm, code=code): count
            for (workload, arm, code), count in self.requests.items()
        }
        prefix = "flywheel_gateway"
        yield from _family(f"{prefix}_requests_total", "counter", requests)
        yield from _family(f"{prefix}_refused_total", "counter", _by("code", self.refused))
        yield from _family(f"{prefix}_feedback_total", "counter", _by("code", self.feedback))
        failures = _by("error_type", self.upstream_failures)
        yield from _family(f"{prefix}_upstream_failures_total", "counter", failures)
        yield from _family(
            f"{prefix}_upstream_retries_total", "counter", {"": self.upstream_retries}
        )
        attempts = {
            _labels(provider=provider, error_type=error_type): count
            for (provider, error_type), count in self.attempts.items()
        }
        yield from _family(f"{prefix}_attempts_failed_total", "counter", attempts)
        polls = {"": self.release_poll_failures}
        yield from _family(f"{prefix}_release_poll_failures_total", "counter", polls)
        yield from _family(f"{prefix}_reloads_total", "counter", {"": self.reloads})
        restarts = {"": self.worker_restarts}
        yield from _family(f"{prefix}_worker_restarts_total", "counter", restarts)
        yield from _family(f"{prefix}_in_flight", "gauge", {"": self.in_flight})
        otlp = {_labels(signal=s, outcome=o): n for (s, o), n in self.telemetry().items()}
        yield from _family(f"{prefix}_otlp_total", "counter", otlp)
        yield f"# TYPE {prefix}_request_duration_seconds histogram"
        yield from self.duration.lines(f"{prefix}_request_duration_seconds")
        yield f"# TYPE {prefix}_first_token_seconds histogram"
        yield from self.first_token.lines(f"{prefix}_first_token_seconds")

    def _spending_lines(self) -> Iterator[str]:
        prefix = "flywheel_gateway"
        refusals = {_labels(workload=w, reason=r): n for (w, r), n in self.refusals.items()}
        yield from _family(f"{prefix}_refusals_total", "counter", refusals)
        tokens = {_labels(workload=w, model=m, kind=k): n for (w, m, k), n in self.tokens.items()}
        yield from _family(f"{prefix}_tokens_total", "counter", tokens)
        cost = {_labels(workload=w, model=m): usd for (w, m), usd in self.cost_usd.items()}
        yield from _family(f"{prefix}_cost_usd_total", "counter", cost)
        unknown = {_labels(workload=w, model=m): n for (w, m), n in self.unknown_cost.items()}
        yield from _family(f"{prefix}_unknown_cost_total", "counter", unknown)
        states = self.budgets()
        budgets = {
            _labels(workload=s.workload): s.budget_usd for s in states if s.budget_usd is not None
        }
        yield from _family(f"{prefix}_daily_budget_usd", "gauge", budgets)
        spent = {_labels(workload=s.workload): s.spend.usd for s in states}
        yield from _family(f"{prefix}_spent_today_usd", "gauge", spent)
        missed = {_labels(workload=s.workload): s.spend.unknown for s in states}
        yield from _family(f"{prefix}_unknown_cost_today", "gauge", missed)


def _capture_lines(capture: CaptureCounters) -> Iterator[str]:
    prefix = "flywheel_capture"
    yield from _family(f"{prefix}_accepted_total", "counter", {"": capture.accepted})
    yield from _family(f"{prefix}_spooled_total", "counter", {"": capture.spooled})
    yield from _family(f"{prefix}_spooled_bytes_total", "counter", {"": capture.bytes_spooled})
    yield from _family(f"{prefix}_pending", "gauge", {"": capture.pending})
    yield from _family(f"{prefix}_late_total", "counter", {"": capture.late})
    # A loss is alerted on by its rate: the series must be there before the first one.
    dropped = _by("reason", capture.dropped) or {_labels(reason="disk_error"): 0}
    yield from _family(f"{prefix}_dropped_total", "counter", dropped)


def _process_lines() -> Iterator[str]:
    """Memory. Objects that stay while it grows: malloc keeps what a burst took, nothing leaks."""
    yield from _family("flywheel_gateway_python_blocks", "gauge", {"": sys.getallocatedblocks()})
    with suppress(FileNotFoundError):  # only Linux has it
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        resident = {"": pages * resource.getpagesize()}
        yield from _family("process_resident_memory_bytes", "gauge", resident)


def _family(name: str, kind: str, series: Mapping[str, int] | Mapping[str, float]) -> Iterator[str]:
    yield f"# TYPE {name} {kind}"
    for labels, value in series.items():
        yield f"{name}{labels} {value}"


def _by(label: str, counts: Mapping[int, int] | Mapping[str, int]) -> dict[str, int]:
    return {_labels(**{label: key}): count for key, count in counts.items()}


def _labels(**labels: object) -> str:
    pairs = (f'{name}="{_escape(str(value))}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
