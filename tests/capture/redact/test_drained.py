"""Nothing a policy takes out is in any file of the lake after a drain, wherever it came in."""

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flywheel.capture import DrainReport, Spool, drain
from flywheel.capture.redact import Redactor, redactors_for, remember_policy
from flywheel.capture.redact.analyzer import Analyzer, Finding
from flywheel.capture.redact.policy import resolve_policy
from flywheel.capture.segment import SegmentHeader, encode_frame, encode_header
from flywheel.cli import app
from flywheel.errors import ConfigError
from flywheel.lake import Lake
from flywheel.records import Assessment, Interaction, QuarantineRecord
from flywheel.settings import Settings
from flywheel.workload import RedactionSection, Workload
from tests.capture.records import STARTED, completion, exchange, feedback
from tests.capture.redact.make import redactor

ROOT = Path(__file__).resolve().parents[3]
PLANTED = ("jane.doe@clinic.example", "415-555-2671", "460-89-9847", "4454794511390933", "483920")
TEXT = (
    f"I am {PLANTED[0]}, phone {PLANTED[1]}, SSN {PLANTED[2]}, card {PLANTED[3]}, MRN {PLANTED[4]}"
)


@pytest.fixture
def spool_dir(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def leaks(folder: Path) -> set[str]:
    """Planted identifiers in any byte of any file, and in any value of any Parquet file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    found = set()
    for path in files:
        data = path.read_bytes().decode("utf-8", "replace")
        if path.suffix == ".parquet":
            data += repr(pq.ParquetFile(path).read().to_pylist())
        found |= {planted for planted in PLANTED if planted in data}
    return found


def body(text: str = TEXT, **fields: object) -> str:
    asked = {"role": "user", "content": text}
    return json.dumps({"model": "triage", "messages": [asked], **fields})


def planted(spool_dir: Path) -> None:
    """Every way in: calls, errors, judgements, and what can become none of these."""
    answer = completion(f"Noted: {TEXT}")
    one = exchange(request=body(), response=json.dumps(answer), conversation_id=PLANTED[0])
    with Spool(spool_dir, default_workload="triage") as spool:
        spool.append("exchange", one)
        spool.append("exchange", exchange(request=body(metadata={"caller": TEXT})))
        spool.append(
            "exchange", exchange(response=f"<html>{TEXT}", http_status=500, status="error")
        )
        spool.append("exchange", exchange(request=body(), response=f"<html>{TEXT}"))
        spool.append("exchange", exchange(request=TEXT))
        spool.append("exchange", exchange(request=json.dumps({"messages": [{"role": [TEXT]}]})))
        spool.append(
            "feedback",
            feedback(interaction_id=one.interaction_id, correction=TEXT, comment=TEXT, label=TEXT),
        )
        spool.append(
            "feedback", feedback(name=TEXT, conversation_id=PLANTED[0], interaction_id=None)
        )
    header = SegmentHeader(writer="w", created_at=STARTED, default_workload="triage")
    torn = encode_frame("exchange", exchange(request=body()).model_dump_json().encode())
    bad = encode_frame("exchange", json.dumps({"interaction_id": TEXT, TEXT: [TEXT]}).encode())
    binary = encode_frame("exchange", b"\xff" + TEXT.encode())
    data = encode_header(header) + bad + binary + torn[:-5]
    (spool_dir / "dead-00000001.open").write_bytes(data)


def adds_up(report: DrainReport) -> bool:
    arrived = report.interactions + report.assessments + report.quarantined + report.duplicates
    return report.records + report.damaged == arrived


def test_without_a_policy_everything_is_stored_as_it_came(spool_dir: Path, lake: Lake) -> None:
    """The scan below sees what there is to see."""
    planted(spool_dir)
    drain(spool_dir, lake)
    assert leaks(Path(lake.root)) == set(PLANTED)


def test_no_identifier_reaches_a_file_of_the_lake(spool_dir: Path, lake: Lake) -> None:
    planted(spool_dir)
    report = drain(spool_dir, lake, redactors={"triage": redactor()})
    assert (report.interactions, report.assessments, report.quarantined) == (3, 2, 6)
    assert adds_up(report)
    assert leaks(Path(lake.root)) == set()
    assert list(spool_dir.glob("*.seg")) == []
    calls = lake.fetch(Interaction, "SELECT * FROM interactions")
    assert {call.redaction_policy for call in calls} == {"standard-1"}
    assert sorted(call.redactions or 0 for call in calls)[0] >= 1
    judged = lake.fetch(Assessment, "SELECT * FROM assessments WHERE conversation_id IS NOT NULL")
    assert judged[0].conversation_id in {call.conversation_id for call in calls}
    kept = lake.fetch(QuarantineRecord, "SELECT * FROM quarantine")
    assert all(row.payload or "withheld: " in row.detail for row in kept)
    assert any(b"<MEDICAL_RECORD" in row.payload for row in kept)


def test_repeating_a_drain_that_was_killed_adds_nothing(spool_dir: Path, lake: Lake) -> None:
    planted(spool_dir)
    segments = {path: path.read_bytes() for path in spool_dir.iterdir() if path.suffix != ".lock"}
    redactors = {"triage": redactor()}
    first = drain(spool_dir, lake, redactors=redactors)
    for path, data in segments.items():
        path.write_bytes(data)
    again = drain(spool_dir, lake, redactors=redactors)
    assert (again.interactions, again.assessments, again.quarantined) == (0, 0, 0)
    assert again.duplicates == first.records + first.damaged


class Stumbling(Analyzer):
    """Fails on one text, and quotes it."""

    def find(self, text: str) -> tuple[Finding, ...]:
        if "jane" in text:
            raise ValueError(f"did not find {text!r}")
        return super().find(text)


def test_a_redactor_that_fails_withholds_the_record(spool_dir: Path, lake: Lake) -> None:
    planted(spool_dir)
    policy = resolve_policy(RedactionSection(policy="standard-1"), source="test")
    assert policy is not None
    failing = Redactor("triage", policy, secret=b"key", analyzer=Stumbling(policy))
    report = drain(spool_dir, lake, redactors={"triage": failing})
    assert (report.interactions, report.assessments, adds_up(report)) == (0, 0, True)
    assert leaks(Path(lake.root)) == set()
    kept = lake.fetch(QuarantineRecord, "SELECT * FROM quarantine WHERE reason='redaction_failed'")
    assert len(kept) == 5
    assert {row.payload for row in kept} == {b""}
    assert all("withheld: " in row.detail and "sha256" in row.detail for row in kept)


def test_another_workload_s_calls_pass_as_they_are(spool_dir: Path, lake: Lake) -> None:
    with Spool(spool_dir) as spool:
        spool.append("exchange", exchange(workload="other", request=body("jane@example.org")))
        spool.append("exchange", exchange(workload="triage", request=body("jane@example.org")))
        spool.append("exchange", exchange(workload="other", request="jane@example.org"))
    drain(spool_dir, lake, redactors={"triage": redactor()})
    calls = {call.workload: call for call in lake.fetch(Interaction, "SELECT * FROM interactions")}
    assert calls["other"].messages[0].text == "jane@example.org"
    assert calls["triage"].messages[0].text == "<EMAIL_1>"
    [unread] = lake.fetch(QuarantineRecord, "SELECT * FROM quarantine")
    assert b"jane" not in unread.payload, "nobody could read whose it is"


def test_a_keyed_judgement_agrees_with_its_call_of_a_conversation(
    spool_dir: Path, lake: Lake
) -> None:
    one = exchange(request=body("jane@example.org"), conversation_id="c1")
    redactors = {"triage": redactor(placeholders="keyed")}
    with Spool(spool_dir) as spool:
        spool.append("exchange", one)
    drain(spool_dir, lake, redactors=redactors)
    with Spool(spool_dir) as spool:
        spool.append("feedback", feedback(interaction_id=one.interaction_id, comment=TEXT))
        spool.append(
            "feedback",
            feedback(interaction_id=one.interaction_id, comment="for jane@example.org"),
        )
    drain(spool_dir, lake, redactors=redactors)
    [call] = lake.fetch(Interaction, "SELECT * FROM interactions")
    found = lake.fetch(Assessment, "SELECT * FROM assessments")
    assert f"for {call.messages[0].text}" in {judged.rationale for judged in found}


def declared(tmp_path: Path, **section: object) -> Path:
    text = (ROOT / "examples" / "triage" / "flywheel.yaml").read_text(encoding="utf-8")
    suite = ROOT / "examples" / "triage" / "holdout.jsonl"
    text = text.replace("suite: holdout.jsonl", f"suite: {suite}")
    path = tmp_path / "flywheel.yaml"
    path.write_text(f"{text}\ncapture: {json.dumps({'redaction': section})}\n", encoding="utf-8")
    return path


def test_a_drain_that_is_told_nothing_takes_the_policy_the_gateway_left(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    workload = Workload.load(declared(tmp_path, policy="standard-1"))
    assert redactors_for(settings) == {}
    remember_policy(workload, settings)
    assert policies(redactors_for(settings)) == {"triage": "standard-1"}
    planted(settings.spool_dir)
    result = CliRunner().invoke(app, ["capture", "drain", "--home", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    assert leaks(tmp_path / "lake") == set()
    off = Workload.load(declared(tmp_path, policy="none"))
    assert redactors_for(settings, off) == {}, "the file wins"
    remember_policy(off, settings)
    assert redactors_for(settings) == {}
    (tmp_path / "redaction" / "odd.json").write_text("{}x", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"odd\.json"):
        redactors_for(settings)


def policies(redactors: Mapping[str, Redactor]) -> dict[str, str]:
    return {name: one.policy for name, one in redactors.items()}


def test_redact_check_shows_what_a_policy_would_do(tmp_path: Path) -> None:
    path = declared(tmp_path, policy="standard-1")
    words = ["capture", "redact-check", "-", "--workload", str(path), "--home", str(tmp_path)]
    shown = CliRunner().invoke(app, words, input="Call 415-555-2671")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("Call <PHONE_1>")
    told = json.loads(CliRunner().invoke(app, [*words, "--json"], input="Call 415-555-2671").stdout)
    assert (told["text"], told["policy"]) == ("Call <PHONE_1>", "standard-1")
    assert told["findings"][0]["entity"] == "PHONE_NUMBER"
    off = ["capture", "redact-check", "-", "--workload", str(declared(tmp_path, policy="none"))]
    refused = CliRunner().invoke(app, off, input="x")
    assert isinstance(refused.exception, ConfigError)
    assert not (tmp_path / "lake").exists()
