"""What the redaction policy finds, what it takes for an identifier that is none, and its price.

    python -m benchmarks.redaction [--policy standard-2] [--records 2000] [--output FILE]

Recall and precision per entity on `redaction_sentences`, and on Presidio's own synthetic set where
../shared/data has it; names on conllpp where a spaCy model is installed. `hidden`: the labelled
characters are gone, under whatever name. `named`: under the right one. `precision`: findings of the
type that touch a labelled identifier of that type. Then records a second, redaction off and on,
from spool to lake; `--records 0` leaves that out.
"""

import argparse
import csv
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.redaction_sentences import LATER, Sentence, Span, sentences
from flywheel.capture import Spool, drain
from flywheel.capture.redact import Redactor
from flywheel.capture.redact.analyzer import Analyzer
from flywheel.capture.redact.policy import Policy, resolve_policy
from flywheel.lake import Lake
from flywheel.records import Exchange, new_id, utcnow
from flywheel.workload import RedactionSection

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Beside the checkout."""
OUTPUT = Path(__file__).parent / "results" / "redaction.json"
AS_OURS = {"GPE": "LOCATION", "STREET_ADDRESS": "LOCATION", "ZIP_CODE": "LOCATION"}
"""Their names for what we call otherwise."""

Row = dict[str, int | float | None]


def measure(analyzer: Analyzer, texts: Iterable[Sentence]) -> dict[str, Row]:
    """Counts per entity type over labelled texts."""
    labelled, hidden, named = Counter[str](), Counter[str](), Counter[str]()
    found, right = Counter[str](), Counter[str]()
    for text, spans in texts:
        findings = analyzer.find(text)
        gone = {at for one in findings for at in range(one.start, one.end)}
        for span in spans:
            labelled[span.entity] += 1
            matters = {at for at in range(span.start, span.end) if text[at].isalnum()}
            is_hidden = matters <= gone
            hidden[span.entity] += is_hidden
            named[span.entity] += is_hidden and any(
                one.entity == span.entity and _touch(one.start, one.end, span) for one in findings
            )
        for one in findings:
            found[one.entity] += 1
            right[one.entity] += any(
                one.entity == span.entity and _touch(one.start, one.end, span) for span in spans
            )
    return {
        entity: {
            "labelled": labelled[entity],
            "hidden": _share(hidden[entity], labelled[entity]),
            "named": _share(named[entity], labelled[entity]),
            "found": found[entity],
            "precision": _share(right[entity], found[entity]),
        }
        for entity in sorted(labelled | found)
    }


def _touch(start: int, end: int, span: Span) -> bool:
    return start < span.end and span.start < end


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


def presidio_research(shared: Path) -> list[Sentence]:
    """Presidio's synthetic set; empty where it is not beside the checkout."""
    path = shared / "presidio-research" / "synth_dataset_v2.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return [
        Sentence(
            row["full_text"],
            tuple(
                Span(
                    one["start_position"],
                    one["end_position"],
                    AS_OURS.get(one["entity_type"], one["entity_type"]),
                )
                for one in row["spans"]
            ),
        )
        for row in rows
    ]


def conllpp(shared: Path) -> list[Sentence]:
    """Persons and places of conllpp's validation sentences, each where it first stands."""
    path = shared / "conllpp" / "validation.csv"
    if not path.is_file():
        return []
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            text, labels = row["input"], json.loads(row["output"])
            named = [(name, "PERSON") for name in labels["person"]]
            named += [(name, "LOCATION") for name in labels["location"]]
            spans = [
                Span(text.find(name), text.find(name) + len(name), kind)
                for name, kind in named
                if name in text
            ]
            found.append(Sentence(text, tuple(spans)))
    return found


def speed(policy: Policy, count: int) -> dict[str, float]:
    """Records a second from spool to lake: without a policy, then with one.

    One record in five is full of identifiers, and no two are alike; the system prompt is.
    """
    held = [sentence.text for sentence in sentences() if sentence.spans]
    clean = [sentence.text for sentence in sentences() if not sentence.spans]
    result: dict[str, float] = {}
    for name in ("off", "on"):
        with tempfile.TemporaryDirectory() as folder:
            with Spool(Path(folder, "spool"), queue_bytes=1 << 30) as spool:
                for number in range(count):
                    spool.append("exchange", _exchange(clean if number % 5 else held, number))
            redactor = Redactor("triage", policy, secret=b"benchmark")
            redactor.redact_text("Loads Presidio: a@example.org")
            started = time.perf_counter()
            redactors = {"triage": redactor} if name == "on" else {}
            report = drain(Path(folder, "spool"), Lake(f"{folder}/lake"), redactors=redactors)
            result[f"{name}_per_second"] = round(count / (time.perf_counter() - started))
            if report.interactions != count:
                raise SystemExit(f"records were lost: {report}")
    return result


def _exchange(texts: list[str], number: int) -> Exchange:
    """A call of about 2.4 KB: a system prompt all share, and a message and an answer of its own."""
    about = f"Case {number % 97} of day {number // 97}. "
    asked = about + " ".join(texts[(number * 7 + at) % len(texts)] for at in range(8))
    told = about + "Rest it, keep it cool, and see somebody if it swells. " * 8
    system = {
        "role": "system",
        "content": "You answer patients' messages, briefly and kindly. " * 20,
    }
    choice = {"message": {"role": "assistant", "content": told}, "finish_reason": "stop"}
    request = {"model": "triage", "messages": [system, {"role": "user", "content": asked}]}
    return Exchange(
        interaction_id=new_id(),
        workload="triage",
        started_at=utcnow(),
        duration_ms=3.0,
        request_model="triage",
        request=json.dumps(request),
        response=json.dumps({"model": "base", "choices": [choice]}),
        http_status=200,
    )


def show(console: Console, title: str, rows: Mapping[str, Row]) -> None:
    """One table."""
    table = Table("entity", "labelled", "hidden", "named", "found", "precision", title=title)
    for entity, row in rows.items():
        table.add_row(entity, *("-" if value is None else str(value) for value in row.values()))
    console.print(table)


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--policy", default="standard-2")
    options = parser.parse_args()
    console = Console()
    policy = resolve_policy(RedactionSection(policy=options.policy), source="benchmark")
    assert policy is not None
    analyzer = Analyzer(policy)
    sets = {"own sentences": sentences(), "own sentences, later": sentences(LATER)}
    sets |= {"presidio-research": presidio_research(options.shared)}
    if policy.ner_model:
        sets["conllpp"] = conllpp(options.shared)
    result: dict[str, object] = {"policy": policy.name}
    for name, texts in sets.items():
        if not texts:
            console.print(f"{name}: not in {options.shared}, left out", soft_wrap=True)
            continue
        rows = measure(analyzer, texts)
        show(console, f"{name}: {len(texts)} texts, policy {policy.name}", rows)
        result[name] = {"texts": len(texts), "entities": rows}
    if not policy.ner_model:
        console.print("no spaCy model is installed: names and places are not looked for")
    if options.records:
        result["speed"] = speed(policy, options.records)
        console.print(result["speed"])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
