"""What a gateway adds: this one with and without capture, and its peers, side by side in one run.

    python -m benchmarks.gateway_overhead [--seconds 2] [--rounds 5] [--output results.json]
        [--litellm-python PATH] [--mlflow-python PATH]

Client, gateways and a mock model server share this machine, each a process of its own; the rounds
of all are interleaved, so that a noisy neighbour meets them all. `bare` is this gateway with
capture off. A peer takes part when the Python of a virtual environment that has it is given, here
or in LITELLM_PYTHON and MLFLOW_PYTHON. Every figure is a median over rounds; what is added to
`direct` is taken round by round. In the end the rows of the lakes are counted: a capture that drops
would be fast. `cpu_us_per_call` is the processor time of the answering processes at 16 connections,
which neighbours hardly change. Two workers need two cores beside those of the client and the mock.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import uvloop

from benchmarks import load
from benchmarks.servers import Target, gateway, litellm_proxy, mlflow_gateway, mock_server
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
DIRECT, BARE = "direct", "bare"
OURS: tuple[tuple[str, str | None, int], ...] = (
    (BARE, None, 1),
    ("group", "group", 1),
    ("async", "async", 1),
    ("before_response", "before_response", 1),
    ("bare 2 workers", None, 2),
    ("group 2 workers", "group", 2),
)
"""Name, durability, workers."""
PEERS = {
    "litellm": (litellm_proxy, "litellm[proxy]", "LITELLM_PYTHON"),
    "mlflow": (mlflow_gateway, "mlflow[gateway]", "MLFLOW_PYTHON"),
}
ADDED = ("p50_ms_1", "p99_ms_1", "first_token_p50_ms")
PER_SECOND = "per_second_16"

Cells = dict[str, float]


def bodies() -> tuple[bytes, bytes]:
    """A request for a whole answer and one for a stream."""
    streamed = {**REQUEST, "stream": True}
    return json.dumps(REQUEST).encode(), json.dumps(streamed, separators=(",", ":")).encode()


def measure(target: Target, *, seconds: float) -> tuple[Cells, int]:
    """One round of one target: its figures, and how many calls it answered."""
    whole, streamed = bodies()
    warm = run(target, whole, connections=1, seconds=min(seconds, 0.5))
    one = run(target, whole, connections=1, seconds=seconds)
    before = target.cpu_s()
    many = run(target, whole, connections=16, seconds=seconds)
    used = target.cpu_s() - before
    stream = run(target, streamed, connections=1, seconds=seconds)
    cells = {
        "p50_ms_1": load.percentile(one.whole_ms, 0.5),
        "p99_ms_1": load.percentile(one.whole_ms, 0.99),
        PER_SECOND: len(many.whole_ms) / many.seconds,
        "p50_ms_16": load.percentile(many.whole_ms, 0.5),
        "p99_ms_16": load.percentile(many.whole_ms, 0.99),
        "cpu_us_per_call": used / len(many.whole_ms) * 1e6,
        "first_token_p50_ms": load.percentile(stream.first_ms, 0.5),
    }
    return cells, sum(len(found.whole_ms) for found in (warm, one, many, stream))


def run(target: Target, body: bytes, *, connections: int, seconds: float) -> load.Latencies:
    """One cell; an error in it ends the benchmark."""
    found: load.Latencies = uvloop.run(
        load.run(target.port, body, connections=connections, seconds=seconds)
    )
    if found.errors:
        raise SystemExit(f"{target.name}: {found.errors} answers were not 200")
    return found


def medians(rounds: Sequence[Cells]) -> Cells:
    """Of every figure."""
    return {
        name: round(statistics.median(cells[name] for cells in rounds), 3) for name in rounds[0]
    }


def summarise(rounds: dict[str, list[Cells]]) -> dict[str, dict[str, Cells]]:
    """Figures, what is added to no gateway at all, and how many times as many requests a second."""
    figures = {name: medians(found) for name, found in rounds.items()}
    added = {
        name: medians(
            [
                {cell: mine[cell] - direct[cell] for cell in ADDED}
                for mine, direct in zip(found, rounds[DIRECT], strict=True)
            ]
        )
        for name, found in rounds.items()
        if name != DIRECT
    }
    bases = [name for name in (BARE, "bare 2 workers", *PEERS) if name in figures]
    ratios = {
        name: {base: round(found[PER_SECOND] / figures[base][PER_SECOND], 3) for base in bases}
        for name, found in figures.items()
    }
    return {"figures": figures, "added": added, "throughput_ratios": ratios}


def print_table(summary: dict[str, dict[str, Cells]]) -> None:
    """All of it, a block each."""
    for title, rows in summary.items():
        columns = list(next(iter(rows.values())))
        print(f"{title.replace('_', ' '):<18}" + "".join(f"{name:>19}" for name in columns))
        for name, cells in rows.items():
            print(f"{name:<18}" + "".join(f"{cells[column]:>19.2f}" for column in columns))
        print()


def count_rows(targets: Sequence[Target], answered: dict[str, int]) -> dict[str, int]:
    """Calls in the lake of each that captures.

    Raises:
        SystemExit: somewhere they are not as many as were answered.
    """
    captured = {}
    for target in targets:
        if target.home is not None:
            report = drain(target.home / "spool", Lake(str(target.home / "lake")))
            captured[target.name] = report.interactions
            print(
                f"{target.name}: {answered[target.name]} calls answered, "
                f"{report.interactions} in the lake"
            )
    lost = [name for name, rows in captured.items() if rows != answered[name]]
    if lost:
        raise SystemExit(f"calls were lost or doubled: {', '.join(lost)}")
    return captured


def start_all(stack: ExitStack, options: argparse.Namespace) -> list[Target]:
    """Everybody who takes part, the mock first."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    mock = stack.enter_context(mock_server())
    targets = [mock]
    for name, durability, workers in OURS:
        ours = gateway(name, folder, mock, durability=durability, workers=workers)
        targets.append(stack.enter_context(ours))
    for name, (start, package, variable) in PEERS.items():
        python: Path | None = getattr(options, f"{name}_python")
        if python is None:
            print(
                f"without {name}: python -m venv ENV; ENV/bin/pip install '{package}'; then "
                f"--{name}-python ENV/bin/python, or {variable}"
            )
            continue
        print(f"starting {name} …", file=sys.stderr, flush=True)
        targets.append(stack.enter_context(start(python.absolute(), folder, mock)))
    return targets


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="per cell")
    parser.add_argument("--rounds", type=int, default=5)
    for name, (_, _, variable) in PEERS.items():
        found = os.environ.get(variable)
        parser.add_argument(
            f"--{name}-python", type=Path, default=Path(found) if found else None, metavar="PATH"
        )
    default = Path("benchmarks/results/gateway_overhead.json")
    parser.add_argument("--output", type=Path, default=default)
    return parser.parse_args()


def main() -> None:
    """Measures, counts the rows captured, prints, writes."""
    options = read_options()
    with ExitStack() as stack:
        targets = start_all(stack, options)
        rounds: dict[str, list[Cells]] = {target.name: [] for target in targets}
        answered = dict.fromkeys(rounds, 0)
        for number in range(options.rounds):
            for target in targets:
                text = f"round {number + 1} of {options.rounds}: {target.name} …"
                print(text, file=sys.stderr, flush=True)
                cells, calls = measure(target, seconds=options.seconds)
                rounds[target.name].append(cells)
                answered[target.name] += calls
        load_average = os.getloadavg()
        summary = summarise(rounds)
        print_table(summary)
        captured = count_rows(targets, answered)
    result = {
        **summary,
        "answered": answered,
        "captured": captured,
        "versions": {target.name: target.version for target in targets if target.version},
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_average": load_average,
        "seconds": options.seconds,
        "rounds": options.rounds,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
