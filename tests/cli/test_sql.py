import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from flywheel.cli import app
from flywheel.errors import FlywheelError, LakeVersionError, QueryError
from flywheel.lake import Lake
from flywheel.records import Message, QuarantineRecord, utcnow
from flywheel.testing import make_interaction

QUESTION = "select adapter, count(*) n, avg(duration_ms) ms from interactions group by 1 order by 1"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    Lake(str(folder / "lake")).append(
        [
            make_interaction(interaction_id="1", duration_ms=10.0),
            make_interaction(interaction_id="2", duration_ms=20.0),
            make_interaction(interaction_id="3", duration_ms=None, adapter="triage-1"),
        ]
    )
    return folder


def flywheel(home: Path, *words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [*words, "--home", str(home)], input=stdin)


def error(result: Result) -> str:
    assert isinstance(result.exception, FlywheelError), result.output
    return str(result.exception)


def test_a_query_is_a_table_for_a_person(home: Path) -> None:
    shown = flywheel(home, "sql", QUESTION)
    assert shown.exit_code == 0
    cells = [line.replace("│", " ").split() for line in shown.stdout.splitlines() if "│" in line]
    assert cells == [["triage-1", "1", "NULL"], ["NULL", "2", "15.0"]]


def test_json_says_null_and_keeps_numbers(home: Path) -> None:
    shown = flywheel(home, "sql", QUESTION, "--format", "json")
    assert json.loads(shown.stdout) == [
        {"adapter": "triage-1", "n": 1, "ms": None},
        {"adapter": None, "n": 2, "ms": 15.0},
    ]


def test_csv_has_a_header_and_quotes_what_needs_it(home: Path) -> None:
    shown = flywheel(home, "sql", "select 'a,\"b\"' x, null y, [1, 2] z", "-f", "csv")
    assert list(csv.reader(io.StringIO(shown.stdout))) == [["x", "y", "z"], ['a,"b"', "", "[1, 2]"]]


@pytest.mark.parametrize("ending", ["json", "csv", "parquet", "txt"])
def test_a_files_ending_is_its_format(home: Path, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"result.{ending}"
    assert flywheel(home, "sql", QUESTION, "--output", str(path)).stdout == ""
    if ending == "parquet":
        assert pyarrow.parquet.read_table(path).column("n").to_pylist() == [1, 2]
    else:
        assert "triage-1" in path.read_text(encoding="utf-8")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["home", path.name]


def test_parquet_keeps_the_types(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "result.parquet"
    flywheel(home, "sql", "select started_at, event_date from interactions", "-o", str(path))
    assert (
        str(pyarrow.parquet.read_schema(path).field("started_at").type) == "timestamp[us, tz=UTC]"
    )


def test_parquet_is_not_for_a_terminal(home: Path) -> None:
    shown = flywheel(home, "sql", QUESTION, "--format", "parquet")
    assert shown.exit_code == 2
    assert "add --output" in shown.stderr


def test_wide_rows_are_shown_as_lines(home: Path) -> None:
    shown = flywheel(home, "sql", "select * from interactions order by interaction_id")
    lines = [line.strip() for line in shown.stdout.splitlines()]
    assert lines[0].startswith("── row 1")
    assert "interaction_id  1" in lines


def test_what_users_wrote_is_shown_and_not_interpreted(home: Path) -> None:
    lake = Lake(str(home / "lake"))
    lake.append([make_interaction(messages=(Message(role="user", content="[/red] [bold]"),))])
    sql = "select messages ->> '$[0].content' said from interactions"
    assert "[/red] [bold]" in flywheel(home, "sql", sql).stdout


def test_long_cells_and_results_are_cut_for_a_person_only(home: Path) -> None:
    sql = "select repeat('x', 500) x from range(300)"
    shown = flywheel(home, "sql", sql)
    assert "x" * 121 not in shown.stdout
    assert "100 more rows" in shown.stderr
    rows = json.loads(flywheel(home, "sql", sql, "-f", "json").stdout)
    assert (len(rows), len(rows[0]["x"])) == (300, 500)


def test_bytes_times_and_not_a_number_are_valid_json(home: Path) -> None:
    Lake(str(home / "lake")).append(
        [
            QuarantineRecord(
                quarantine_id="q",
                event_date=datetime.now(UTC).date(),
                created_at=utcnow(),
                source="s",
                reason="r",
                detail="d",
                payload=b"\xff\x00",
            )
        ]
    )
    sql = "select payload, 'nan'::double n, time '01:02:03' t, 1.5::decimal(3, 1) d from quarantine"
    [row] = json.loads(flywheel(home, "sql", sql, "-f", "json").stdout)
    assert row == {"payload": "/wA=", "n": None, "t": "01:02:03", "d": "1.5"}


def test_values_are_bound(home: Path) -> None:
    sql = "select interaction_id from interactions where interaction_id = ? and duration_ms = ?"
    shown = flywheel(home, "sql", sql, "-p", "2", "-p", "20", "-f", "json")
    assert json.loads(shown.stdout) == [{"interaction_id": "2"}]


def test_a_query_is_read_from_standard_input(home: Path) -> None:
    assert json.loads(flywheel(home, "sql", "-", "-f", "json", stdin="select 1 a").stdout) == [
        {"a": 1}
    ]


@pytest.mark.parametrize(
    ("as_of", "count"),
    [("interactions=0", 0), ("interactions=1", 3), ("2020-01-01", 0), ("2999-01-01T00:00:00Z", 4)],
)
def test_the_lake_as_it_was(home: Path, as_of: str, count: int) -> None:
    Lake(str(home / "lake")).append([make_interaction()])
    shown = flywheel(home, "sql", "select count(*) n from interactions", "--as-of", as_of, "-fjson")
    assert json.loads(shown.stdout) == [{"n": count}]


def test_as_of_something_else_is_refused(home: Path) -> None:
    shown = flywheel(home, "sql", "select 1", "--as-of", "yesterday")
    assert shown.exit_code == 2
    assert "neither TABLE=VERSION nor a time" in " ".join(shown.stderr.replace("│", " ").split())


def test_as_of_a_version_or_table_that_is_not_there_is_refused(home: Path) -> None:
    refused = flywheel(home, "sql", "from interactions", "--as-of", "interactions=9")
    assert isinstance(refused.exception, LakeVersionError)
    assert "did you mean interactions?" in error(
        flywheel(home, "sql", "select 1", "--as-of", "interaction=1")
    )


def test_bad_sql_is_one_error_that_says_where_to_look(home: Path) -> None:
    shown = flywheel(home, "sql", "select * from nothing")
    assert isinstance(shown.exception, QueryError)
    assert "flywheel lake tables" in error(shown)


def test_an_empty_home_answers_and_asks_whether_it_is_the_right_one(tmp_path: Path) -> None:
    shown = flywheel(tmp_path / "nowhere", "sql", "select * from labels", "-f", "json")
    assert json.loads(shown.stdout) == []
    assert "is --home right?" in shown.stderr
    assert not (tmp_path / "nowhere").exists()


def test_lake_tables_lists_them_and_their_columns(home: Path) -> None:
    listed = {
        row["name"]: row for row in json.loads(flywheel(home, "lake", "tables", "--json").stdout)
    }
    assert (listed["interactions"]["rows"], listed["interactions"]["version"]) == (3, 1)
    assert (listed["labels"]["kind"], listed["labels"]["rows"]) == ("view", 0)
    assert all(row["about"] for row in listed.values())
    columns = json.loads(flywheel(home, "lake", "tables", "interactions", "--json").stdout)
    assert columns[0]["about"].startswith("UUIDv7")
    assert "interactions" in flywheel(home, "lake", "tables").stdout
    assert "agreement" in flywheel(home, "lake", "tables", "labels").stdout
    assert "did you mean labels?" in error(flywheel(home, "lake", "tables", "label"))


def test_lake_catalog_writes_what_plain_duckdb_opens(home: Path) -> None:
    shown = flywheel(home, "lake", "catalog")
    assert str(home / "lake.duckdb") in shown.stdout
    with duckdb.connect(str(home / "lake.duckdb"), read_only=True) as connection:  # noqa: TID251
        assert connection.sql(QUESTION).fetchall() == [("triage-1", 1, None), (None, 2, 15.0)]


def test_lake_upkeep_says_what_it_did(home: Path) -> None:
    Lake(str(home / "lake")).append([make_interaction()])
    [compacted] = json.loads(flywheel(home, "lake", "compact", "--json").stdout)
    assert compacted == {"table": "interactions", "files_before": 2, "files_after": 1, "version": 3}
    vacuumed = flywheel(home, "lake", "vacuum", "--retention-hours", "0", "--json")
    assert json.loads(vacuumed.stdout) == [{"table": "interactions", "files_removed": 2}]
    history = json.loads(flywheel(home, "lake", "history", "interactions", "--json").stdout)
    assert [commit["operation"] for commit in history][-3:] == ["WRITE", "WRITE", "CREATE TABLE"]
    assert "OPTIMIZE" in flywheel(home, "lake", "history", "interactions").stdout
    assert "did you mean" in error(flywheel(home, "lake", "history", "interaction"))
