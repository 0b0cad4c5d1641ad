"""How long an append to the spool takes the caller, and how much of it reaches the disk a second.

    python -m benchmarks.spool_append [--records 20000] [--output results.json]

Records of about 2.4 KB, group fsync every 20 ms; beside it the bare minimum a spool could do: the
same bytes written and fsynced at once, each, and fifty at a time.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from benchmarks.load import percentile
from flywheel.capture import Spool, drain
from flywheel.lake import Lake
from flywheel.records import Exchange, new_id, utcnow

FSYNCED_EACH = 200
"""Appends measured with an fsync each; it is slow."""


def record() -> Exchange:
    """A call of about 2.4 KB."""
    content = "My knee has hurt since I fell on the stairs. " * 28
    answer = "Rest it, keep it cool, and see somebody if it swells. " * 8
    message = {"role": "assistant", "content": answer}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return Exchange(
        interaction_id=new_id(),
        workload="triage",
        started_at=utcnow(),
        duration_ms=3.0,
        request_model="triage",
        served_model="base",
        request=json.dumps({"model": "triage", "messages": [{"role": "user", "content": content}]}),
        response=json.dumps({"model": "base", "choices": [choice]}),
        http_status=200,
    )


def spooled(folder: Path, records: list[Exchange]) -> dict[str, float]:
    """Appends to a real spool as fast as it takes them."""
    times: list[float] = []
    started = time.perf_counter()
    with Spool(folder / "spool", queue_bytes=1 << 30, default_workload="triage") as spool:
        for one in records:
            before = time.perf_counter()
            spool.append("exchange", one)
            times.append((time.perf_counter() - before) * 1e6)
    seconds = time.perf_counter() - started
    counters = spool.counters
    if counters.spooled != len(records):
        raise SystemExit(f"records were lost: {counters}")
    return {
        "append_p50_us": round(percentile(times, 0.5), 2),
        "append_p99_us": round(percentile(times, 0.99), 2),
        "durable_per_second": round(len(records) / seconds),
        "bytes_per_record": round(counters.bytes_spooled / len(records)),
    }


def written(folder: Path, records: list[Exchange], *, every: int) -> float:
    """Microseconds a record when each is written, and every so many are fsynced."""
    payloads = [one.model_dump_json().encode() for one in records]
    descriptor = os.open(folder / f"bare-{every}", os.O_WRONLY | os.O_CREAT, 0o600)
    started = time.perf_counter()
    for number, payload in enumerate(payloads, start=1):
        os.write(descriptor, payload)
        if number % every == 0:
            os.fdatasync(descriptor)
    seconds = time.perf_counter() - started
    os.close(descriptor)
    return round(seconds / len(records) * 1e6, 1)


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/spool.json"))
    options = parser.parse_args()
    records = [record() for _ in range(options.records)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result: dict[str, float] = {
            **spooled(folder, records),
            "bare_fsync_each_us": written(folder, records[:FSYNCED_EACH], every=1),
            "bare_fsync_50_us": written(folder, records, every=50),
        }
        report = drain(folder / "spool", Lake(str(folder / "lake")))
    result["drain_per_second"] = round(report.records / report.duration_s)
    for figure, value in result.items():
        print(f"{figure:<22}{value:>12}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
