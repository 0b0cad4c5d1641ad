import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flywheel.errors import ConfigError
from flywheel.label import RowDefaults, import_labels
from flywheel.lake import Lake
from flywheel.records import Assessment, QuarantineRecord
from flywheel.testing import make_interaction

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DEFAULTS = RowDefaults(workload="triage", now=NOW)
BOM = b"\xef\xbb\xbf"


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def quarantined(lake: Lake) -> list[QuarantineRecord]:
    return lake.fetch(QuarantineRecord, "SELECT * FROM quarantine ORDER BY source")


def assessments(lake: Lake) -> list[Assessment]:
    return lake.fetch(Assessment, "SELECT * FROM assessments ORDER BY created_at")


def test_good_rows_are_kept_and_bad_ones_are_quarantined_with_their_bytes(
    lake: Lake, tmp_path: Path
) -> None:
    lake.append([make_interaction(interaction_id="i1")])
    rows = [
        b"interaction_id,name,value,correction,source_id,rationale\n",
        b'i1,urgency,,"{""urgency"": ""urgent""}",dr-a,"two\nlines"\n',
        b"i1,urgency,high,,dr-a,\n",
        b"i2,,1,,dr-a,\n",
        b"i2,urgency,,,dr-a,\n",
        b"i2,urgency,1,caf\xe9,dr-a,\n",
        b"i2,urgency,1\n",
        b'i2,urgency,1,"un"quoted,dr-a,\n',
        b"i2,urgency,1,,dr-b,\xc3\xa9\n",
    ]
    path = write(tmp_path / "labels.csv", BOM + b"".join(rows))

    report = import_labels(lake, path, DEFAULTS)

    assert (report.rows, report.written, report.duplicates, report.quarantined) == (8, 2, 0, 6)
    assert report.reasons == {
        "bad_number": 1,
        "missing_name": 1,
        "empty_correction": 1,
        "bad_encoding": 1,
        "column_count": 1,
        "bad_csv": 1,
    }
    assert report.unknown_interactions == 1
    assert {record.payload for record in quarantined(lake)} == set(rows[2:8])
    first, second = assessments(lake)
    assert first.correction is not None
    assert first.correction.text == '{"urgency": "urgent"}'
    assert (first.rationale, first.source_id) == ("two\nlines", "dr-a")
    assert (second.value, second.rationale) == (1.0, "é")


def test_importing_a_file_twice_adds_nothing(lake: Lake, tmp_path: Path) -> None:
    content = b"interaction_id,name,value\ni1,urgency,1\ni1,urgency,1\ni2,urgency,bad\n"
    path = write(tmp_path / "labels.csv", content)
    first = import_labels(lake, path, DEFAULTS)
    later = RowDefaults(workload="triage", now=datetime(2026, 2, 2, tzinfo=UTC))
    second = import_labels(lake, path, later)
    assert (first.written, first.duplicates) == (1, 1)
    assert (second.written, second.duplicates) == (0, 2)
    assert len(assessments(lake)) == 1
    assert len(quarantined(lake)) == 1


def test_jsonl_rows_are_read_one_by_one(lake: Lake, tmp_path: Path) -> None:
    good = {"interaction_id": "i1", "name": "urgency", "correction": "Rest.", "source_id": 7}
    lines = [
        BOM + json.dumps(good).encode(),
        b"",
        b"not json",
        b"[1]",
        b'{"interaction_id": "i1", "name": "urgency", "valeu": 1}',
        b'{"interaction_id": "i1", "name": "\xff"}',
        b"[" * 100_000,
        b'{"interaction_id": "i2", "name": "urgency", "value": false}',
    ]
    report = import_labels(lake, write(tmp_path / "l.jsonl", b"\n".join(lines)), DEFAULTS)
    assert (report.rows, report.written) == (7, 2)
    assert report.reasons == {"bad_json": 3, "unknown_column": 1, "bad_encoding": 1}
    assert [record.source_id for record in assessments(lake)] == ["7", None]


def test_of_two_judgements_by_one_rater_in_a_file_the_later_line_is_later(
    lake: Lake, tmp_path: Path
) -> None:
    content = b"interaction_id,name,label,source_id\ni1,urgency,a,dr\ni1,urgency,b,dr\n"
    import_labels(lake, write(tmp_path / "l.csv", content), DEFAULTS)
    labels = lake.query("SELECT label, raters FROM labels").to_pylist()
    assert labels == [{"label": "b", "raters": 1}]


def test_excels_semicolons_and_empty_rows_are_understood(lake: Lake, tmp_path: Path) -> None:
    content = b"interaction_id;name;value\r\ni1;urgency;1\r\n;;\r\n"
    report = import_labels(lake, write(tmp_path / "l.csv", content), DEFAULTS)
    assert (report.rows, report.written) == (1, 1)


def test_a_label_for_an_interaction_that_comes_later_finds_it(lake: Lake, tmp_path: Path) -> None:
    content = b"interaction_id,name,value\ni9,urgency,1\n"
    report = import_labels(lake, write(tmp_path / "l.csv", content), DEFAULTS)
    assert report.unknown_interactions == 1
    lake.append([make_interaction(interaction_id="i9")])
    found = lake.query("SELECT interaction_id FROM responses WHERE name = 'urgency'")
    assert found.column("interaction_id").to_pylist() == ["i9"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("l.csv", b"interaction_id,name,vaule\n", "did you mean 'value'"),
        ("l.csv", b"name,value\n", "column interaction_id is missing"),
        ("l.csv", b"interaction_id,name\n", "at least one of the columns value, label, correction"),
        ("l.csv", b"interaction_id,name,value,value\n", "column value is there twice"),
        ("l.csv", b"", "column interaction_id is missing"),
        ("l.csv", "interaction_id,name,value\n".encode("utf-16-le"), "UTF-16 without its mark"),
        ("l.csv", b"PK\x03\x04\x14\0", "Excel workbook .* Save As, CSV UTF-8"),
        ("l.csv", b"interaction_id,name,value\ri1,n,1\r", "Save As, CSV UTF-8"),
        ("l.csv", b"pair_a,name,label\n", r"interaction_id is missing \(or pair_a and pair_b\)"),
        ("l.xlsx", b"PK", "give a .csv or .jsonl file"),
    ],
)
def test_a_file_with_a_wrong_header_is_refused_whole(
    lake: Lake, tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        import_labels(lake, write(tmp_path / name, content), DEFAULTS)
    assert lake.versions() == {}


def test_a_file_that_is_absent_is_refused(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file"):
        import_labels(lake, tmp_path / "absent.csv", DEFAULTS)


def test_progress_reaches_the_size_of_the_file(lake: Lake, tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", b'{"interaction_id": "i", "name": "n", "value": 1}\n' * 3)
    seen: list[tuple[int, int]] = []
    import_labels(lake, path, DEFAULTS, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
