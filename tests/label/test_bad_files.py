"""Label files as hospitals send them: Excel's, of several encodings, by people nobody declared."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from flywheel.capture.redact import Redactors, redactor_for
from flywheel.errors import BadRecordError
from flywheel.label import LabelFile, RowDefaults, import_labels
from flywheel.label.files import read_lines
from flywheel.lake import Lake
from flywheel.records import Assessment, QuarantineRecord
from flywheel.settings import Settings
from flywheel.testing import make_interaction
from flywheel.workload import RedactionSection, Workload

EXAMPLE = Path(__file__).parents[2] / "examples" / "triage" / "flywheel.yaml"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
DEFAULTS = RowDefaults(workload="triage", now=NOW)
EXCEL = (
    "sep=;\r\n"
    "interaction_id;name;value;rationale;blinded;;\r\n"
    'i1;quality;0,5;"zwei\r\nZeilen; ""ja""";WAHR;;\r\n'
    "i2;quality;-1;'=cmd|' /C calc'!A0;FALSCH;;\r\n"
    "i3;quality;1.234,5;;;;\r\n"
    ";;;;;;\r\n"
)


def write(tmp_path: Path, content: bytes, name: str = "labels.csv") -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def assessments(lake: Lake) -> list[Assessment]:
    return lake.fetch(Assessment, "SELECT * FROM assessments ORDER BY created_at, interaction_id")


def quarantined(lake: Lake) -> list[QuarantineRecord]:
    return lake.fetch(QuarantineRecord, "SELECT * FROM quarantine ORDER BY source")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_what_german_excel_saves_is_read(lake: Lake, tmp_path: Path, encoding: str) -> None:
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    path = write(tmp_path, mark + EXCEL.encode(encoding))
    report = import_labels(lake, path, DEFAULTS)
    assert (report.rows, report.written, report.reasons) == (3, 2, {"bad_number": 1})
    first, second = assessments(lake)
    assert (first.value, first.rationale, first.blinded) == (0.5, 'zwei\r\nZeilen; "ja"', True)
    assert (second.value, second.rationale) == (-1.0, "=cmd|' /C calc'!A0")
    (bad,) = quarantined(lake)
    line = "i3;quality;1.234,5;;;;\r\n"
    own = encoding.replace("-sig", "").replace("utf-16-be", "UTF-16-BE")
    assert bad.payload == (line.encode("utf-16-le") if own == "utf-16" else line.encode(own))


def test_a_comma_is_no_decimal_sign_where_it_separates_columns(tmp_path: Path) -> None:
    path = write(tmp_path, b'interaction_id,name,value\ni1,n,"1,000"\n')
    (line,) = read_lines(path)
    assert not isinstance(line.row, BadRecordError)
    assert line.row["value"] == "1,000"


def test_a_row_that_is_not_utf8_is_not_guessed_at_but_read_as_told(
    lake: Lake, tmp_path: Path
) -> None:
    rows = ["interaction_id,name,label\n", "i1,n,ja\n", "i2,n,Übelkeit\n", "i3,n,Übelkeit\n"]
    content = [row.encode("cp1252" if row.startswith("i2") else "utf-8") for row in rows]
    path = write(tmp_path, b"".join(content))
    report = import_labels(lake, path, DEFAULTS)
    assert (report.written, report.reasons) == (2, {"bad_encoding": 1})
    (bad,) = quarantined(lake)
    assert bad.payload == content[2]
    assert "byte 0xdc" in bad.detail and "'Ü'" in bad.detail and "--encoding cp1252" in bad.detail

    told = import_labels(lake, LabelFile(path=path, encoding="cp1252"), DEFAULTS)
    assert (told.written, told.duplicates, told.quarantined) == (1, 2, 0)
    assert [a.label for a in assessments(lake)] == ["ja", "Übelkeit", "Übelkeit"]


def test_utf16_that_ends_in_the_middle_of_a_character_costs_its_last_row_only(
    lake: Lake, tmp_path: Path
) -> None:
    content = "interaction_id,name,value\ni1,n,1\ni2,n,1".encode("utf-16")[:-1]
    report = import_labels(lake, write(tmp_path, content), DEFAULTS)
    assert (report.written, report.reasons) == (1, {"bad_encoding": 1})
    assert quarantined(lake)[0].payload == "i2,n,1".encode("utf-16-le")[:-1]


def test_pairs_have_both_ids_a_preference_and_a_value(lake: Lake, tmp_path: Path) -> None:
    rows = [
        "pair_a,pair_b,interaction_id,name,label,correction,presented_order",
        "i1,i2,,better,a,,BA",
        "i1,i2,,better,Both_Bad,,",
        "i1,i2,,better,cannot_judge,,",
        "i1,i2,,better,left,,",
        "i1,i2,,better,,,",
        "i1,,,better,A,,",
        "i1,i1,,better,A,,",
        "i1,i2,i3,better,A,,",
        "i1,i2,,better,A,Rest.,",
        "i1,i2,,better,A,,XY",
        ",,i1,better,A,,",
    ]
    report = import_labels(lake, write(tmp_path, "\n".join(rows).encode()), DEFAULTS)
    assert report.reasons == {
        "bad_preference": 2,
        "empty_correction": 1,
        "half_a_pair": 2,
        "two_items": 1,
        "bad_presented_order": 1,
    }
    said = [(a.kind, a.pair_ids, a.label, a.value, a.presented_order) for a in assessments(lake)]
    pair = ("i1", "i2")
    assert said == [
        ("preference", pair, "A", 1.0, "BA"),
        ("preference", pair, "both_bad", 0.5, None),
        ("preference", pair, "cannot_judge", None, None),
        ("feedback", None, "A", None, None),
    ]
    assert report.unknown_interactions == 2


def test_only_declared_raters_may_judge_and_a_near_miss_is_named(
    lake: Lake, tmp_path: Path
) -> None:
    content = b"interaction_id,name,value,source_id\ni1,n,1,dr-a\ni1,n,0,dr-smth\ni1,n,0,\n"
    defaults = DEFAULTS.model_copy(update={"raters": ("dr-a", "dr-smith")})
    report = import_labels(lake, write(tmp_path, content), defaults)
    assert (report.written, report.reasons) == (1, {"unknown_rater": 2})
    details = [bad.detail for bad in quarantined(lake)]
    assert "did you mean 'dr-smith'? declared raters: dr-a, dr-smith" in details[0]


def test_unknown_ids_are_kept_counted_and_the_first_are_named(lake: Lake, tmp_path: Path) -> None:
    lake.append([make_interaction(interaction_id="i1")])
    rows = "".join(f"x{number},n,1\n" for number in range(7))
    path = write(tmp_path, f"interaction_id,name,value\ni1,n,1\n{rows}".encode())
    report = import_labels(lake, path, DEFAULTS)
    assert (report.written, report.unknown_interactions) == (8, 7)
    assert report.unknown_examples == ("x0", "x1", "x2", "x3", "x4")


def test_contradictions_of_one_rater_are_counted_and_the_latest_counts(
    lake: Lake, tmp_path: Path
) -> None:
    rows = [
        "interaction_id,pair_a,pair_b,name,label,source_id",
        "i1,,,n,low,dr-a",
        "i1,,,n,high,dr-a",  # contradicts
        "i1,,,n,low,dr-b",  # another rater
        "i2,,,n,low,dr-a",
        "i2,,,n,low,dr-a",  # a duplicate
        ",i1,i2,better,A,dr-a",
        ",i2,i1,better,B,dr-a",  # the same, the other way round
        ",i1,i2,better,tie,dr-b",
        ",i2,i1,better,A,dr-b",  # contradicts
    ]
    path = write(tmp_path, "\n".join(rows).encode())
    report = import_labels(lake, path, DEFAULTS)
    assert (report.rows, report.duplicates, report.contradictions) == (9, 1, 2)
    assert import_labels(lake, path, DEFAULTS).contradictions == 2
    found = lake.query("SELECT answer FROM judgements WHERE item = 'i1' AND source_id = 'dr-a'")
    assert found.to_pylist() == [{"answer": "label high"}]


def test_an_id_made_of_the_content_stays_what_it_was_before_there_were_more_columns(
    lake: Lake, tmp_path: Path
) -> None:
    """Guards old files: imported before an upgrade and after it, they must add nothing."""
    content = b"interaction_id,name,value,source_id\ni1,urgency,1,dr-a\n"
    import_labels(lake, write(tmp_path, content), DEFAULTS)
    assert assessments(lake)[0].assessment_id == "cf95d53db77fb9e3726081ae2d77a9ba"


def test_no_identifier_reaches_the_lake_by_a_label_file(lake: Lake, tmp_path: Path) -> None:
    loaded = Workload.load(EXAMPLE)
    section = RedactionSection(policy="standard-1", ner_model="none")
    capture = loaded.capture.model_copy(update={"redaction": section})
    task = loaded.model_copy(update={"capture": capture})
    redactor = redactor_for(task, Settings.load(home=tmp_path / "home"))
    assert redactor is not None
    rows = [
        b"interaction_id,name,value,correction,rationale,source_id\n",
        b"i1,urgency,,Call 212-555-0143 now,wrote to jane.roe@example.com,dr@clinic.org\n",
        b"i2,urgency,high,,wrote to jane.roe@example.com,dr@clinic.org\n",
        b"i3,urgency,1,,caf\xe9 of jane.roe@example.com,dr@clinic.org\n",
    ]
    path = write(tmp_path, b"".join(rows))
    report = import_labels(lake, path, DEFAULTS, redaction=Redactors({"triage": redactor}))
    assert (report.written, report.quarantined) == (1, 2)
    (kept,) = assessments(lake)
    assert kept.rationale == "wrote to <EMAIL>" and kept.correction is not None
    assert "555-0143" not in kept.correction.text and "<PHONE" in kept.correction.text
    # Who judged is on record: raters are staff, and their word must be countable and withdrawable.
    assert kept.source_id == "dr@clinic.org"
    held = b"".join(path.read_bytes() for path in (tmp_path / "lake").rglob("*") if path.is_file())
    assert b"jane.roe" not in held and b"555-0143" not in held
    texts = [record.payload + record.detail.encode() for record in quarantined(lake)]
    assert all(b"jane.roe" not in text for text in texts)
