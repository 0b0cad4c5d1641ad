"""What the gateway adds: capture on, capture off, and no gateway, side by side in one run.

    python -m benchmarks.gateway_overhead [--seconds 2] [--rounds 3] [--output results.json]

Client, gateway and a mock model server share this machine, each a process of its own; the rounds of
the three are interleaved, so that a noisy neighbour meets them all. The rows of the lake are
counted in the end: a capture that drops would be fast. `cpu_us_per_call` is the processor time of
the answering process at 16 connections, which neighbours hardly change.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks import load
from flywheel.capture import drain
from flywheel.lake import Lake

REQUEST = {
    "model": "triage",
    "messages": [
        {"role": "system", "content": "How soon must somebody see this patient? " * 8},
        {"role": "user", "content": "My knee has hurt since I fell on the stairs. " * 16},
    ],
    "temperature": 0,
}
WORKLOAD = """
name: triage
alias: triage
base_model: base
capture: {{enabled: {capture}}}
labels: {{name: urgency}}
graders: {{correct: {{type: string_check, operation: eq, input: "a", reference: "a"}}}}
gate: {{suite: holdout.jsonl, target: {{grader: correct}}}}
"""


@dataclass(frozen=True)
class Target:
    """Something that answers."""

    name: str
    port: int
    pid: int
    home: Path | None = None

    def cpu_s(self) -> float:
        """Processor time it has used: what a busy machine cannot distort."""
        # Fields 14 and 15 of proc(5)'s stat; the name before them may hold spaces.
        fields = (
            Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def mock_server() -> Iterator[Target]:
    """The mock model server."""
    command = [sys.executable, "-m", "benchmarks.mock_upstream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Target("direct", int(process.stdout.readline()), process.pid)
        finally:
            process.kill()


@contextmanager
def gateway(home: Path, upstream: Target, *, is_capturing: bool) -> Iterator[Target]:
    """`flywheel gateway` before the mock."""
    name = "capture on" if is_capturing else "capture off"
    home = home / name.replace(" ", "-")
    home.mkdir()
    workload = home / "flywheel.yaml"
    workload.write_text(WORKLOAD.format(capture=str(is_capturing).lower()), encoding="utf-8")
    command = [sys.executable, "-m", "flywheel.cli", "gateway", "--home", str(home)]
    command += ["--workload", str(workload), "--port", "0", "--admin-port", "0"]
    command += ["--engine-url", f"http://127.0.0.1:{upstream.port}", "--generate-admin-token"]
    with (
        (home / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        found = re.match(r"gateway ready: http://127.0.0.1:(\d+)/v1", process.stdout.readline())
        if found is None:
            raise SystemExit((home / "log").read_text(encoding="utf-8"))
        try:
            yield Target(name, int(found[1]), process.pid, home)
        finally:
            process.send_signal(signal.SIGTERM)


def measure(
    targets: list[Target], *, seconds: float, rounds: int
) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """The median over the rounds of every figure, and the calls each target answered."""
    whole = json.dumps(REQUEST).encode()
    streamed = json.dumps({**REQUEST, "stream": True}, separators=(",", ":")).encode()
    figures: dict[str, dict[str, list[float]]] = {target.name: {} for target in targets}
    calls = dict.fromkeys(figures, 0)
    for number in range(rounds):
        for target in targets:
            print(f"round {number + 1} of {rounds}: {target.name} …", file=sys.stderr, flush=True)
            one = run(target, whole, connections=1, seconds=seconds)
            before = target.cpu_s()
            many = run(target, whole, connections=16, seconds=seconds)
            used = target.cpu_s() - before
            stream = run(target, streamed, connections=1, seconds=seconds)
            calls[target.name] += sum(len(found.whole_ms) for found in (one, many, stream))
            for name, value in {
                "p50_ms_1": load.percentile(one.whole_ms, 0.5),
                "p99_ms_1": load.percentile(one.whole_ms, 0.99),
                "per_second_16": len(many.whole_ms) / many.seconds,
                "p50_ms_16": load.percentile(many.whole_ms, 0.5),
                "p99_ms_16": load.percentile(many.whole_ms, 0.99),
                "cpu_us_per_call": used / len(many.whole_ms) * 1e6,
                "first_token_p50_ms": load.percentile(stream.first_ms, 0.5),
            }.items():
                figures[target.name].setdefault(name, []).append(value)
    medians = {
        target: {name: round(statistics.median(values), 3) for name, values in found.items()}
        for target, found in figures.items()
    }
    return medians, calls


def run(target: Target, body: bytes, *, connections: int, seconds: float) -> load.Latencies:
    """One cell; an error in it ends the benchmark."""
    found: load.Latencies = uvloop.run(
        load.run(target.port, body, connections=connections, seconds=seconds)
    )
    if found.errors:
        raise SystemExit(f"{target.name}: {found.errors} answers were not 200")
    return found


def print_table(figures: dict[str, dict[str, float]]) -> None:
    """A table, and what each adds to no gateway at all."""
    direct = figures["direct"]
    columns = list(direct)
    print(f"{'':<12}" + "".join(f"{name:>20}" for name in columns))
    for target, found in figures.items():
        print(f"{target:<12}" + "".join(f"{found[name]:>20.2f}" for name in columns))
    for target, found in figures.items():
        if target == "direct":
            continue
        cells = [
            f"x {found[name] / direct[name]:.2f}"
            if name.startswith("per_second")
            else f"+ {found[name] - direct[name]:.2f}"
            for name in columns
        ]
        print(f"{target + ' adds':<12}"[:17] + "".join(f"{cell:>20}" for cell in cells))


def main() -> None:
    """Measures, counts the rows captured, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="per cell")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/gateway.json"))
    options = parser.parse_args()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mock = stack.enter_context(mock_server())
        on, off = (
            stack.enter_context(gateway(home, mock, is_capturing=is_on)) for is_on in (True, False)
        )
        figures, calls = measure([mock, off, on], seconds=options.seconds, rounds=options.rounds)
        assert on.home is not None
        report = drain(on.home / "spool", Lake(str(on.home / "lake")))
    print_table(figures)
    print(
        f"calls answered with capture on: {calls['capture on']}; in the lake: {report.interactions}"
    )
    result = {
        "figures": figures,
        "answered": calls,
        "captured": report.interactions,
        "drain_records_per_second": round(report.records / max(report.duration_s, 1e-9)),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "seconds": options.seconds,
        "rounds": options.rounds,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if report.interactions != calls["capture on"]:
        raise SystemExit("calls were lost")


if __name__ == "__main__":
    main()
