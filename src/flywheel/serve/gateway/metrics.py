"""Numbers of one gateway, in Prometheus' text format.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4). Written by
hand, because on the request path a counter should cost a dictionary update and nothing else.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from flywheel.records import CaptureCounters
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
        self.upstream_retries = 0
        self.release_poll_failures = 0
        self.in_flight = 0
        self.duration = Histogram()
        self.first_token = Histogram()

    def render(self, routes: Sequence[Route], capture: CaptureCounters, *, is_ready: bool) -> str:
        """The page at /metrics."""
        lines = [
            *self._request_lines(),
            *_family("flywheel_gateway_ready", "gauge", {"": int(is_ready)}),
            *_family(
                "flywheel_gateway_release_epoch",
                "gauge",
                {_labels(workload=r.workload, model=r.model, arm=r.arm): r.epoch for r in routes},
            ),
            *_capture_lines(capture),
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
        polls = {"": self.release_poll_failures}
        yield from _family(f"{prefix}_release_poll_failures_total", "counter", polls)
        yield from _family(f"{prefix}_in_flight", "gauge", {"": self.in_flight})
        yield f"# TYPE {prefix}_request_duration_seconds histogram"
        yield from self.duration.lines(f"{prefix}_request_duration_seconds")
        yield f"# TYPE {prefix}_first_token_seconds histogram"
        yield from self.first_token.lines(f"{prefix}_first_token_seconds")


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


def _family(name: str, kind: str, series: Mapping[str, int]) -> Iterator[str]:
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
