"""The numbers of several processes: told apart, and added up."""

from flywheel.records import CaptureCounters
from flywheel.serve.gateway.metrics import Metrics
from flywheel.serve.gateway.pages import combined, labelled
from flywheel.serve.gateway.routing import RouteTable
from tests.serve.gateway.harness import release, workload


def page(requests: int, *, seconds: float = 0.02, epoch: int = 1, is_ready: bool = True) -> str:
    metrics = Metrics()
    for _ in range(requests):
        metrics.requests["triage", "champion", 200] += 1
        metrics.duration.observe("triage", seconds)
    routes = RouteTable([workload()])
    routes.apply(release(epoch, "triage-abc"))
    return metrics.render(routes.all(), CaptureCounters(accepted=requests), is_ready=is_ready)


def test_counters_and_histograms_are_summed() -> None:
    total = combined([page(2), page(3, seconds=2.0)]).splitlines()
    assert 'flywheel_gateway_requests_total{workload="triage",arm="champion",code="200"} 5' in total
    assert 'flywheel_gateway_request_duration_seconds_bucket{workload="triage",le="1.0"} 2' in total
    assert 'flywheel_gateway_request_duration_seconds_count{workload="triage"} 5' in total
    assert 'flywheel_gateway_request_duration_seconds_sum{workload="triage"} 6.04' in total
    assert "flywheel_capture_accepted_total 5" in total


def test_what_all_must_be_is_only_so_when_all_are() -> None:
    total = combined([page(1, epoch=3), page(1, epoch=2, is_ready=False)]).splitlines()
    assert "flywheel_gateway_ready 0" in total
    [epoch] = [line for line in total if line.startswith("flywheel_gateway_release_epoch")]
    assert epoch.endswith(" 2")


def test_one_page_alone_is_what_it_was() -> None:
    before = page(2)
    assert [float(line.rpartition(" ")[2]) for line in before.splitlines() if line[0] != "#"] == [
        float(line.rpartition(" ")[2]) for line in combined([before]).splitlines() if line[0] != "#"
    ]


def test_every_series_names_its_worker() -> None:
    lines = [line for line in labelled(page(1), 1).splitlines() if line[0] != "#"]
    assert lines and all(line.rpartition(" ")[0].endswith('worker="1"}') for line in lines)
    assert 'flywheel_gateway_ready{worker="1"} 1' in lines
