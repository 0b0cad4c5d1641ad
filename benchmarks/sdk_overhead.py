"""What `instrument` adds to a call: the same client with and without, in turn, in one run.

    python -m benchmarks.sdk_overhead [--calls 300] [--rounds 5] [--output results.json]

The client is the real `openai` one, the model a mock on this machine in a process of its own. The
rounds of the two are interleaved, so that a noisy neighbour meets both; the median over the rounds
is given. `cpu_us` is processor time of this process a call, the recorder's threads included. The
rows of the lake are counted in the end: a capture that drops would be fast.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from openai import OpenAI

from benchmarks import load
from flywheel.capture import drain, instrument
from flywheel.lake import Lake

CONTENT = "My knee has hurt since I fell on the stairs. " * 40


def whole(client: OpenAI) -> None:
    """One call answered at once."""
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": CONTENT}])


def streamed(client: OpenAI) -> None:
    """One call read as a stream."""
    for _ in client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": CONTENT}], stream=True
    ):
        pass


KINDS: dict[str, Callable[[OpenAI], None]] = {"whole": whole, "streamed": streamed}


def measure(client: OpenAI, call: Callable[[OpenAI], None], calls: int) -> dict[str, float]:
    """Latency and processor time of so many calls, one after the other."""
    found: list[float] = []
    before = time.process_time()
    for _ in range(calls):
        begun = time.perf_counter()
        call(client)
        found.append((time.perf_counter() - begun) * 1000)
    used = time.process_time() - before
    return {
        "p50_ms": load.percentile(found, 0.5),
        "p99_ms": load.percentile(found, 0.99),
        "cpu_us": used / calls * 1e6,
    }


def run(
    plain: OpenAI, watched: OpenAI, *, calls: int, rounds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Medians over the rounds, by kind of call and client."""
    clients = {"without": plain, "with": watched}
    figures: dict[str, dict[str, dict[str, list[float]]]] = {
        kind: {name: {} for name in clients} for kind in KINDS
    }
    for _ in range(rounds):
        for kind, call in KINDS.items():
            for name, client in clients.items():
                for figure, value in measure(client, call, calls).items():
                    figures[kind][name].setdefault(figure, []).append(value)
    return {
        kind: {
            name: {figure: round(statistics.median(values), 3) for figure, values in found.items()}
            for name, found in by_client.items()
        }
        for kind, by_client in figures.items()
    }


def print_table(figures: dict[str, dict[str, dict[str, float]]]) -> None:
    """Both, and the difference."""
    print(f"{'':<22}" + "".join(f"{name:>12}" for name in ("p50_ms", "p99_ms", "cpu_us")))
    for kind, by_client in figures.items():
        for name, found in by_client.items():
            print(f"{kind + ', ' + name:<22}" + "".join(f"{v:>12.3f}" for v in found.values()))
        added = [by_client["with"][f] - value for f, value in by_client["without"].items()]
        print(f"{kind + ', added':<22}" + "".join(f"{value:>+12.3f}" for value in added))


def main() -> None:
    """Measures, counts the records, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300, help="per cell")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/sdk_overhead.json"))
    options = parser.parse_args()
    command = [sys.executable, "-m", "benchmarks.mock_upstream"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as mock,
    ):
        try:
            assert mock.stdout is not None
            url = f"http://127.0.0.1:{int(mock.stdout.readline())}/v1"
            with OpenAI(base_url=url, api_key="k") as plain, OpenAI(base_url=url, api_key="k") as c:
                with instrument(c, workload="triage", spool=Path(folder) / "spool") as handle:
                    figures = run(plain, c, calls=options.calls, rounds=options.rounds)
                counters = handle.counters
        finally:
            mock.kill()
        report = drain(Path(folder) / "spool", Lake(str(Path(folder) / "lake")))
    print_table(figures)
    asked = options.calls * options.rounds * len(KINDS)
    print(f"calls made with capture: {asked}; in the lake: {report.interactions}")
    result = {
        "figures": figures,
        "asked": asked,
        "captured": report.interactions,
        "counters": counters.model_dump(mode="json"),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "calls": options.calls,
        "rounds": options.rounds,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if report.interactions != asked:
        raise SystemExit("calls were lost")


if __name__ == "__main__":
    main()
