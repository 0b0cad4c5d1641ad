"""Spool to lake: records a second, beside a bare Delta append of the same rows made ready.

    python -m benchmarks.spool_to_lake [--records 40000] [--rounds 3] [--output results.json]

Records of about 2.4 KB, of random words, so that they compress no better than text does. `bare` is
`write_deltalake(mode="append")` of Arrow rows in batches as large as the drain's: no parsing, no
validation, no look for duplicates. `drain` is the real one, with redaction off; `redacted` with the
standard policy, on fewer records, where the redact extra is installed. The rounds are interleaved,
each on a fresh lake of its own; the table shows medians, and what one record costs in each step of
the drain, measured alone and on one core. The rows are counted in the end.
"""

import argparse
import gc
import importlib
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deltalake import write_deltalake

from flywheel.capture import Spool, drain
from flywheel.capture.calm import few_collections
from flywheel.capture.drain import COMMIT_ROWS
from flywheel.capture.parse import to_interaction
from flywheel.lake import Lake
from flywheel.lake.rows import to_arrow
from flywheel.lake.tables import TABLES
from flywheel.records import Exchange, new_id, utcnow
from flywheel.settings import Settings

SPEC = TABLES["interactions"]
REDACTED_SHARE = 20
"""One record in so many is drained with redaction on: it is slow."""


def records_of(count: int, *, seed: int = 1) -> list[Exchange]:
    """Calls of about 2.4 KB."""
    chance = random.Random(seed)
    letters = "eeeetttaaaooniishhrrdlucmfwygpbvk"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(5000)]
    found = []
    for _ in range(count):
        asked, answered = (" ".join(chance.choices(words, k=k)) for k in (190, 70))
        message = {"role": "assistant", "content": answered}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        request = {"model": "triage", "messages": [{"role": "user", "content": asked}]}
        found.append(
            Exchange(
                interaction_id=new_id(),
                workload="triage",
                started_at=utcnow(),
                duration_ms=3.0,
                request_model="triage",
                served_model="base",
                request=json.dumps(request),
                response=json.dumps({"model": "base", "choices": [choice]}),
                http_status=200,
            )
        )
    return found


def redactor() -> object | None:
    """The standard policy's patterns, where Presidio is installed."""
    try:
        importlib.import_module("presidio_analyzer")
        package = importlib.import_module("flywheel.capture.redact.redactor")
    except ImportError as error:
        print(f"redaction is left out: {error}")
        return None
    section = importlib.import_module("flywheel.workload").RedactionSection
    found: object = package.make_redactor(
        "triage", section(policy="standard-1", ner_model="none"), Settings()
    )
    return found


def spooled(folder: Path, records: Sequence[Exchange]) -> Path:
    """A spool with these records."""
    with Spool(folder, queue_bytes=1 << 31, max_bytes=1 << 34) as spool:
        for one in records:
            spool.append("exchange", one)
    if spool.counters.spooled != len(records):
        raise SystemExit(f"records were lost: {spool.counters}")
    return folder


def drained(folder: Path, records: Sequence[Exchange], **options: object) -> float:
    """Records a second through the real drain; the rows are counted."""
    spool, lake = spooled(folder / "spool", records), Lake(str(folder / "lake"))
    started = time.perf_counter()
    report = drain(spool, lake, **options)  # type: ignore[arg-type]
    seconds = time.perf_counter() - started
    rows = lake.query("SELECT count(*) n FROM interactions").column("n")[0].as_py()
    if not rows == report.interactions == len(records):
        raise SystemExit(f"{len(records)} records, {rows} rows: {report}")
    return len(records) / seconds


def bare(folder: Path, records: Sequence[Exchange]) -> float:
    """Records a second when the rows are ready."""
    rows = [to_interaction(one) for one in records]
    tables = [
        to_arrow(SPEC, rows[at : at + COMMIT_ROWS]) for at in range(0, len(rows), COMMIT_ROWS)
    ]
    del rows
    gc.collect()
    started = time.perf_counter()
    for table in tables:
        write_deltalake(folder / "bare", table, mode="append", partition_by=list(SPEC.partition_by))
    return len(records) / (time.perf_counter() - started)


def steps(records: Sequence[Exchange]) -> dict[str, float]:
    """Microseconds a record in each step, on one core."""
    payloads = [one.model_dump_json().encode() for one in records]
    found: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> object:
        started = time.process_time()
        result = work()
        found[name] = round((time.process_time() - started) / len(records) * 1e6, 1)
        return result

    rows = [to_interaction(one) for one in records]
    with few_collections():
        timed("validate_exchange_us", lambda: [Exchange.model_validate_json(p) for p in payloads])
        timed("parse_us", lambda: [to_interaction(one) for one in records])
        timed("to_arrow_us", lambda: to_arrow(SPEC, rows))
    return found


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks/results/spool_to_lake.json")
    )
    options = parser.parse_args()
    records = records_of(options.records)
    bytes_each = len(records[0].model_dump_json())
    policy = redactor()
    rates: dict[str, list[float]] = {"bare": [], "drain": []}
    with tempfile.TemporaryDirectory() as name:
        warm_up = Path(name) / "warm-up"
        drained(warm_up, records[:100])
        bare(warm_up, records[:100])
        for number in range(options.rounds):
            folder = Path(name) / str(number)
            rates["bare"].append(bare(folder, records))
            rates["drain"].append(drained(folder / "off", records))
            if policy is not None:
                few = records[: max(1, len(records) // REDACTED_SHARE)]
                rate = drained(folder / "on", few, redactors={"triage": policy})
                rates.setdefault("redacted", []).append(rate)
    medians = {name: round(statistics.median(found)) for name, found in rates.items()}
    costs = steps(records[:5000])
    print(f"{'':<22}{'records/s':>12}{'of bare':>10}")
    for name, rate in medians.items():
        print(f"{name:<22}{rate:>12,}{rate / medians['bare']:>10.2f}")
    for name, cost in costs.items():
        print(f"{name:<22}{cost:>12}")
    result = {
        "records_per_second": medians,
        "microseconds_a_record": costs,
        "bytes_a_record": bytes_each,
        "records": options.records,
        "rounds": options.rounds,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
