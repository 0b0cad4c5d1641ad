"""A gateway with capture on under load for a long time: does its memory stay, and is all there?

    python -m benchmarks.gateway_soak [--minutes 30] [--workers 1] [--durability group]

A few seconds at full speed tell the most it does; the soak then runs at half of that, a quarter of
the connections streaming, with a drain every minute as a deployment has it. The resident memory of
the gateway's processes is sampled every second, and lines are fitted through the samples after a
warm-up, of the second half and of the last third: their slopes are in MB an hour, with standard
errors, which take neighbouring samples for independent and so are too small. Memory grows in steps,
when a burst takes more than any before it, and malloc keeps the room; what a call left behind would
show in the number of objects alive (`python_blocks` of /metrics), sampled every five seconds. In
the end every answered call must be in the lake once, and the counters of the gateway and of its
spool must add up.
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
from contextlib import ExitStack, suppress
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
BLOCKS_S = 5.0
BLOCKS = "\nflywheel_gateway_python_blocks "
DRAIN = (
    "import sys; from pathlib import Path; home = Path(sys.argv[1]); "
    "from flywheel.capture import drain; from flywheel.lake import Lake; "
    "drain(home / 'spool', Lake(str(home / 'lake')))"
)


Slope = dict[str, float]
"""Per hour, and its standard error."""


@dataclass
class Samples:
    """A number over time."""

    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, seconds: float, value: float) -> None:
        """Adds one."""
        self.seconds.append(round(seconds, 2))
        self.values.append(round(value, 3))

    def after(self, seconds: float) -> "Samples":
        """Those taken later."""
        kept = [(s, v) for s, v in zip(self.seconds, self.values, strict=True) if s >= seconds]
        return Samples([s for s, _ in kept], [v for _, v in kept])

    def slope(self) -> Slope:
        """By least squares."""
        hours = [seconds / 3600 for seconds in self.seconds]
        if len(hours) < 3:
            return {"per_hour": 0.0, "standard_error": 0.0}
        fit = statistics.linear_regression(hours, self.values)
        left = [
            value - fit.slope * hour - fit.intercept
            for hour, value in zip(hours, self.values, strict=True)
        ]
        middle = statistics.fmean(hours)
        spread = sum((hour - middle) ** 2 for hour in hours)
        variance = sum(one**2 for one in left) / (len(left) - 2)
        return {
            "per_hour": round(fit.slope, 3),
            "standard_error": round((variance / spread) ** 0.5, 3),
        }

    def slopes(self, warm_up_s: float) -> dict[str, Slope]:
        """After the warm-up, of the second half, and of the last third."""
        last = self.seconds[-1]
        begins = {"after_warm_up": warm_up_s, "last_half": last / 2, "last_third": last * 2 / 3}
        return {name: self.after(begin).slope() for name, begin in begins.items()}


@dataclass
class Watched:
    """What was seen of the gateway's memory."""

    rss_mb: Samples = field(default_factory=Samples)
    blocks: Samples = field(default_factory=Samples)
    """Python's objects alive, all workers together."""


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


async def watch(target: Target, watched: Watched) -> None:
    """Samples memory, and drains as a deployment does; until it is cancelled."""
    started = time.perf_counter()
    drained = counted = started
    drains: list[asyncio.subprocess.Process] = []
    try:
        while True:
            now = time.perf_counter()
            watched.rss_mb.add(now - started, target.rss() / 1e6)
            if now - counted > BLOCKS_S:
                counted = now
                page = await asyncio.to_thread(ask_admin, target, "/metrics")
                watched.blocks.add(now - started, float(page.split(BLOCKS)[1].split()[0]))
            if now - drained > DRAIN_S and (not drains or drains[-1].returncode is not None):
                drained = now
                command = [sys.executable, "-c", DRAIN, str(target.home)]
                drains.append(await asyncio.create_subprocess_exec(*command))
            await asyncio.sleep(1)
    finally:
        if drains:
            await drains[-1].wait()


def ask_admin(target: Target, path: str, *, is_post: bool = False) -> str:
    """What the admin port answers."""
    assert target.home is not None
    token = (target.home / "admin-token").read_text(encoding="utf-8")
    request = urllib.request.Request(f"{target.admin_url}{path}", data=b"" if is_post else None)
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=30) as reply:
        page: bytes = reply.read()
    return page.decode()


async def soak(
    target: Target, watched: Watched, *, seconds: float, per_second: float
) -> list[load.Latencies]:
    """The load and the watch over it."""
    watching = asyncio.create_task(watch(target, watched))
    found = await ask(target, seconds=seconds, per_second=per_second)
    watching.cancel()
    with suppress(asyncio.CancelledError):  # what else ended the watch is raised
        await watching
    return found


def check(target: Target, answered: int) -> dict[str, Any]:
    """What became of every call; ends the benchmark where it does not add up."""
    assert target.home is not None
    counters: dict[str, Any] = json.loads(ask_admin(target, "/admin/spool/flush", is_post=True))
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
    watched = Watched()
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
        found = uvloop.run(soak(target, watched, seconds=seconds, per_second=per_second / 2))
        errors = sum(one.errors for one in [*most, *found])
        answered = sum(len(one.whole_ms) for one in [*most, *found])
        books = check(target, answered)
    warm_up_s = min(120.0, seconds / 5)
    rss = watched.rss_mb.after(warm_up_s)
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
            "first": watched.rss_mb.values[0],
            "after_warm_up": rss.values[0],
            "last": rss.values[-1],
            "most": max(watched.rss_mb.values),
        },
        "slope_mb": watched.rss_mb.slopes(warm_up_s),
        "slope_blocks": watched.blocks.slopes(warm_up_s),
        **books,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "samples_mb": rss.values[:: max(len(rss.values) // 120, 1)],
        "samples_blocks": watched.blocks.values[:: max(len(watched.blocks.values) // 120, 1)],
    }
    print(json.dumps({name: value for name, value in result.items() if "samples" not in name}))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if errors:
        raise SystemExit(f"{errors} answers were not 200")


if __name__ == "__main__":
    main()
