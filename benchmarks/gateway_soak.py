"""A gateway with capture on under load for a long time: does its memory stay, and is all there?

    python -m benchmarks.gateway_soak [--minutes 30] [--workers 1] [--durability group]

A few seconds at full speed tell the most it does; the soak then runs at half of that, a quarter of
the connections streaming, with a drain every minute as a deployment has it. The resident memory of
the gateway's processes is sampled every second, and a line fitted through the samples after a
warm-up: its slope is in MB an hour, with its standard error, which takes neighbouring samples for
independent and so is too small. In the end every answered call must be in the lake once, and the
counters of the gateway and of its spool must add up.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import load
from benchmarks.gateway_overhead import bodies
from benchmarks.servers import Target, gateway, mock_server
from flywheel.capture import drain
from flywheel.lake import Lake

CONNECTIONS = 16
STREAMING = 4
DRAIN_S = 60.0
DRAIN = (
    "import sys; from pathlib import Path; home = Path(sys.argv[1]); "
    "from flywheel.capture import drain; from flywheel.lake import Lake; "
    "drain(home / 'spool', Lake(str(home / 'lake')))"
)


@dataclass
class Samples:
    """Resident memory over time."""

    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    def add(self, seconds: float, rss: int) -> None:
        """Adds one."""
        self.seconds.append(round(seconds, 2))
        self.megabytes.append(round(rss / 1e6, 3))

    def after(self, seconds: float) -> "Samples":
        """Those taken later."""
        kept = [(s, mb) for s, mb in zip(self.seconds, self.megabytes, strict=True) if s >= seconds]
        return Samples([s for s, _ in kept], [mb for _, mb in kept])

    def slope(self) -> tuple[float, float]:
        """MB an hour by least squares, and its standard error."""
        hours = [seconds / 3600 for seconds in self.seconds]
        fit = statistics.linear_regression(hours, self.megabytes)
        left = [
            mb - fit.slope * hour - fit.intercept
            for hour, mb in zip(hours, self.megabytes, strict=True)
        ]
        middle = statistics.fmean(hours)
        spread = sum((hour - middle) ** 2 for hour in hours)
        variance = sum(one**2 for one in left) / max(len(left) - 2, 1)
        return fit.slope, (variance / spread) ** 0.5


async def ask(target: Target, *, seconds: float, per_second: float | None) -> list[load.Latencies]:
    """Whole answers and streams at once."""
    whole, streamed = bodies()
    share = STREAMING / CONNECTIONS
    return await asyncio.gather(
        *(
            load.run(
                target.port,
                body,
                connections=connections,
                seconds=seconds,
                per_second=per_second and per_second * part,
            )
            for body, connections, part in (
                (whole, CONNECTIONS - STREAMING, 1 - share),
                (streamed, STREAMING, share),
            )
        )
    )


async def watch(target: Target, samples: Samples) -> None:
    """Samples memory, and drains as a deployment does; until it is cancelled."""
    started = time.perf_counter()
    drained = started
    drains: list[asyncio.subprocess.Process] = []
    try:
        while True:
            now = time.perf_counter()
            samples.add(now - started, target.rss())
            if now - drained > DRAIN_S and (not drains or drains[-1].returncode is not None):
                drained = now
                command = [sys.executable, "-c", DRAIN, str(target.home)]
                drains.append(await asyncio.create_subprocess_exec(*command))
            await asyncio.sleep(1)
    finally:
        if drains:
            await drains[-1].wait()


async def soak(
    target: Target, samples: Samples, *, seconds: float, per_second: float
) -> list[load.Latencies]:
    """The load and the watch over it."""
    watching = asyncio.create_task(watch(target, samples))
    found = await ask(target, seconds=seconds, per_second=per_second)
    watching.cancel()
    await asyncio.wait([watching])
    return found


def check(target: Target, admin_url: str, answered: int) -> dict[str, Any]:
    """What became of every call; ends the benchmark where it does not add up."""
    assert target.home is not None
    token = (target.home / "admin-token").read_text(encoding="utf-8")
    request = urllib.request.Request(f"{admin_url}/admin/spool/flush", data=b"")
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=30) as reply:
        counters: dict[str, Any] = json.loads(reply.read())
    lake = Lake(str(target.home / "lake"))
    drain(target.home / "spool", lake)
    sql = "SELECT count(*), count(DISTINCT interaction_id) FROM interactions"
    rows, calls = (column[0] for column in lake.query(sql).to_pydict().values())
    status = subprocess.check_output(
        [sys.executable, "-m", "flywheel.cli", "capture", "status"]
        + ["--home", str(target.home), "--json"],
        text=True,
    )
    totals = json.loads(status)["totals"]
    problems = [
        text
        for text, is_wrong in {
            f"{counters['accepted']} accepted": counters["accepted"] != answered,
            f"{counters['spooled']} spooled": counters["spooled"] != answered,
            f"dropped {counters['dropped']}": bool(counters["dropped"]),
            f"{rows} rows of {calls} calls in the lake": not rows == calls == answered,
            f"the spool's books do not add up: {totals}": totals["difference"] != 0
            or totals["committed"] != answered,
        }.items()
        if is_wrong
    ]
    if problems:
        raise SystemExit(f"{answered} calls answered, but " + "; ".join(problems))
    return {"answered": answered, "in_lake": calls, "counters": counters, "spool": totals}


def main() -> None:
    """Measures, checks, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--durability", default="group")
    default = Path("benchmarks/results/gateway_soak.json")
    parser.add_argument("--output", type=Path, default=default)
    options = parser.parse_args()
    samples = Samples()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mock = stack.enter_context(mock_server())
        durability, workers = options.durability, options.workers
        target = stack.enter_context(
            gateway("soak", folder, mock, durability=durability, workers=workers)
        )
        burst = min(10.0, options.minutes * 6)
        most = uvloop.run(ask(target, seconds=burst, per_second=None))
        per_second = sum(len(one.whole_ms) / one.seconds for one in most)
        print(f"at most {per_second:.0f} requests/s; now {per_second / 2:.0f} …", flush=True)
        seconds = options.minutes * 60
        found = uvloop.run(soak(target, samples, seconds=seconds, per_second=per_second / 2))
        errors = sum(one.errors for one in [*most, *found])
        answered = sum(len(one.whole_ms) for one in [*most, *found])
        books = check(target, str(target.admin_url), answered)
    warm_up_s = min(120.0, seconds / 5)
    steady = samples.after(warm_up_s)
    slope, error = steady.slope()
    latencies = sorted(ms for one in found[:1] for ms in one.whole_ms)
    result = {
        "minutes": options.minutes,
        "workers": workers,
        "durability": durability,
        "most_per_second": round(per_second, 1),
        "per_second": round(sum(len(one.whole_ms) / one.seconds for one in found), 1),
        "errors": errors,
        "p50_ms": round(load.percentile(latencies, 0.5), 3),
        "p99_ms": round(load.percentile(latencies, 0.99), 3),
        "warm_up_s": warm_up_s,
        "rss_mb": {
            "first": samples.megabytes[0],
            "after_warm_up": steady.megabytes[0],
            "last": steady.megabytes[-1],
            "most": max(samples.megabytes),
        },
        "slope_mb_per_hour": round(slope, 3),
        "slope_standard_error": round(error, 3),
        **books,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "samples_mb": steady.megabytes[:: max(len(steady.megabytes) // 120, 1)],
    }
    print(json.dumps({name: value for name, value in result.items() if name != "samples_mb"}))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if errors:
        raise SystemExit(f"{errors} answers were not 200")


if __name__ == "__main__":
    main()
