"""How fast a log is imported, and whether memory grows with it.

    python -m benchmarks.import_jsonl [--megabytes 50 200] [--output results.json]

Writes OpenAI-style JSONL of about 2.4 KB a row, imports each size in a process of its own, and
prints megabytes and rows a second, and the peak of resident memory. Beside it, the same file read
line by line and parsed with nothing done to it: what no importer can beat here.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pydantic_core import from_json

from flywheel.capture.importers import Source, import_files
from flywheel.lake import Lake

STARTED = 1_767_323_045


def write(path: Path, megabytes: int) -> int:
    """A log of the size; the number of its rows."""
    asked = "My knee has hurt since I fell on the stairs. " * 28
    answer = "Rest it, keep it cool, and see somebody if it swells. " * 14
    written = rows = 0
    with path.open("wb") as file:
        while written < megabytes * 1_000_000:
            line = json.dumps(_row(rows, asked, answer)).encode() + b"\n"
            written += file.write(line)
            rows += 1
    return rows


def _row(number: int, asked: str, answer: str) -> dict[str, object]:
    message = {"role": "assistant", "content": answer}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {
        "timestamp": STARTED + number,
        "request": {
            "model": "triage",
            "messages": [{"role": "user", "content": f"{number}: {asked}"}],
            "temperature": 0.2,
        },
        "response": {
            "id": f"chatcmpl-{number}",
            "model": "base",
            "choices": [choice],
            "usage": {"prompt_tokens": 300, "completion_tokens": 150, "total_tokens": 450},
        },
    }


def peak_mb() -> float:
    """Peak resident memory of this process, in MB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1e6 if sys.platform == "darwin" else 1e3)


def run_import(path: Path, *, is_bare: bool) -> dict[str, float]:
    """In this process: imports, or only reads and parses."""
    before, began = peak_mb(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if is_bare:
            with path.open("rb") as file:
                rows = sum(isinstance(from_json(line), dict) for line in file)
        else:
            source = Source(workload="triage")
            report = import_files(Lake(folder), [path], source, format_name="openai")
            rows = report.interactions
        seconds = time.perf_counter() - began
    return {"rows": rows, "seconds": seconds, "peak_mb": peak_mb(), "idle_mb": before}


def measure(path: Path, *, is_bare: bool) -> dict[str, float]:
    """In a process of its own, whose peak is nobody else's."""
    command = [sys.executable, "-m", "benchmarks.import_jsonl", "--one", str(path)]
    finished = subprocess.run(
        [*command, *(["--bare"] if is_bare else [])], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(finished.stdout)
    megabytes = path.stat().st_size / 1e6
    return {
        "megabytes": round(megabytes),
        "rows": found["rows"],
        "mb_per_second": round(megabytes / found["seconds"], 1),
        "rows_per_second": round(found["rows"] / found["seconds"]),
        "peak_mb": round(found["peak_mb"]),
        "idle_mb": round(found["idle_mb"]),
    }


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[50])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/import_jsonl.json"))
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_import(options.one, is_bare=options.bare)))
        return
    results: dict[str, list[dict[str, float]]] = {"import": [], "parse_only": []}
    with tempfile.TemporaryDirectory() as folder:
        for megabytes in options.megabytes:
            path = Path(folder, "log.jsonl")
            rows = write(path, megabytes)
            for name, found in results.items():
                found.append(measure(path, is_bare=name == "parse_only"))
                if found[-1]["rows"] != rows:
                    raise SystemExit(f"{name}: {found[-1]['rows']} of {rows} rows")
    columns = list(results["import"][0])
    print(f"{'':<12}" + "".join(f"{column:>17}" for column in columns))
    for name, found in results.items():
        for line in found:
            print(f"{name:<12}" + "".join(f"{line[column]:>17}" for column in columns))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
