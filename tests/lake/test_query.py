from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from flywheel.errors import LakeVersionError, QueryError
from flywheel.lake import Lake
from flywheel.lake.session import VIEWS, relations_in
from flywheel.lake.tables import TABLES, arrow_schema
from flywheel.testing import make_assessment, make_interaction


def rows(lake: Lake, sql: str, *params: object) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in lake.query(sql, params).to_pylist()]


def active_file(lake: Lake) -> Path:
    return next(Path(lake.root, "interactions").rglob("*.parquet"))


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_does_not_exist_is_empty_and_typed(lake: Lake, name: str) -> None:
    found = lake.query(f"SELECT * FROM {name}")
    assert found.num_rows == 0
    assert found.schema.equals(arrow_schema(name))
    assert not Path(lake.root).exists(), "reading creates nothing"


def test_types_are_the_same_with_rows_as_without(lake: Lake) -> None:
    lake.append([make_interaction()])
    assert lake.query("SELECT * FROM interactions").schema.equals(arrow_schema("interactions"))


def test_the_question_of_the_demo_has_its_answer(lake: Lake) -> None:
    lake.append(
        [
            make_interaction(duration_ms=10.0),
            make_interaction(duration_ms=20.0),
            make_interaction(adapter="triage-1", duration_ms=None),
        ]
    )
    sql = "select adapter, count(*) n, avg(duration_ms) ms from interactions group by 1 order by 1"
    assert rows(lake, sql) == [("triage-1", 1, None), (None, 2, 15.0)]


def test_values_are_bound_and_never_part_of_the_sql(lake: Lake) -> None:
    lake.append([make_interaction(interaction_id="it's")])
    assert rows(lake, "SELECT count(*) FROM interactions WHERE interaction_id = ?", "it's") == [
        (1,)
    ]
    assert rows(lake, "SELECT $1", "'; DROP TABLE x") == [("'; DROP TABLE x",)]


def test_json_columns_are_read_with_json_paths(lake: Lake) -> None:
    lake.append([make_interaction(tags={"ward": "A&E"})])
    sql = "SELECT tags ->> 'ward', messages ->> '$[0].content' FROM interactions"
    assert rows(lake, sql) == [("A&E", "My knee hurts.")]


def test_days_are_utc_whatever_the_machines_zone(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    lake.append([make_interaction(started_at=datetime(2026, 1, 2, 23, tzinfo=UTC))])
    assert rows(lake, "SELECT started_at::DATE = event_date FROM interactions") == [(True,)]


def test_a_pinned_version_answers_as_it_did(lake: Lake) -> None:
    lake.append([make_interaction()])
    pinned = lake.versions()
    lake.append([make_interaction()])
    lake.append([make_assessment()])
    lake.compact()
    sql = "SELECT (SELECT count(*) FROM interactions) i, (SELECT count(*) FROM assessments) a"
    then = lake.query(sql, versions=pinned).to_pylist()
    assert then == [{"i": 1, "a": 1}], "a table the pin does not name is read at its latest"
    assert rows(lake, "SELECT count(*) FROM interactions") == [(2,)]


def test_versions_of_a_moment_before_a_table_existed_find_it_empty(lake: Lake) -> None:
    lake.append([make_interaction()])
    then = lake.versions(as_of=datetime(2020, 1, 1, tzinfo=UTC))
    assert then == {"interactions": 0}
    assert lake.query("SELECT * FROM interactions", versions=then).num_rows == 0
    assert lake.versions(as_of=datetime.now(UTC) + timedelta(minutes=1)) == {"interactions": 1}


@pytest.mark.parametrize("version", [7, -1])
def test_a_version_that_never_was_is_a_clear_error(lake: Lake, version: int) -> None:
    lake.append([make_interaction()])
    with pytest.raises(LakeVersionError, match="latest is 1.*flywheel lake history interactions"):
        lake.query("FROM interactions", versions={"interactions": version})


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("selec 1", "syntax error"),
        ("SELECT nothing FROM interactions", '"nothing" not found'),
        ("SELECT * FROM interaction", r"interaction does not exist\. Did you mean interactions\?"),
        ("", "one statement is expected, 0"),
        ("SELECT 1; SELECT 2", "one statement is expected, 2"),
        ("SELECT ?", "Values were not provided"),
    ],
)
def test_sql_duckdb_refuses_is_a_clear_error(lake: Lake, sql: str, reason: str) -> None:
    with pytest.raises(QueryError, match=reason) as caught:
        lake.query(sql)
    assert "flywheel lake tables" in str(caught.value)


FORBIDDEN = [
    "COPY (SELECT 1) TO '{file}'",
    "WITH x AS (COPY (SELECT 1) TO '{file}') SELECT * FROM x",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}'",
    "COPY (PIVOT (SELECT 1 a, 2 b) ON a USING sum(b)) TO '{file}'",
    "/* a comment */ wItH x AS (cOpY (SELECT 1) TO '{file}') FROM x",
    "FROM query('WITH x AS (COPY (SELECT 1) TO ''{file}'') SELECT * FROM x')",
    "EXPORT DATABASE '{folder}/export'",
    "ATTACH '{folder}/other.db'",
    "CREATE TABLE t (a INTEGER)",
    "DROP VIEW interactions",
    "SET enable_external_access = true",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CALL enable_logging('QueryLog')",
    "SELECT * FROM read_csv('{folder}/secret.csv')",
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM read_parquet('http://127.0.0.1/x.parquet')",
    "FROM '{folder}/secret.csv'",
    "SELECT * FROM lake",
]


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_sql_can_neither_write_nor_read_anything_but_the_lake(
    lake: Lake, tmp_path: Path, sql: str
) -> None:
    """COPY inside WITH passes for a SELECT in DuckDB 2.0: it could overwrite an active file."""
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    lake.append([make_interaction()])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    # Naming a table opens its files to the session; the worst case is the one to try.
    statement = sql.format(file=active_file(lake), folder=tmp_path)
    with pytest.raises(QueryError):
        lake.query(f"{statement} -- interactions")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "sql",
    [
        "FROM interactions",
        "DESCRIBE interactions",
        "SHOW TABLES",
        "SUMMARIZE interactions",
        "PIVOT interactions ON status USING count(*)",
        "EXPLAIN SELECT * FROM labels",
        "WITH RECURSIVE t AS (SELECT 1) FROM t",
        "VALUES (1)",
        "(SELECT 'copy' AS \"copy\") -- copy",
        "SELECT * FROM information_schema.tables",
    ],
)
def test_whatever_only_reads_can_be_asked(lake: Lake, sql: str) -> None:
    lake.append([make_interaction()])
    assert lake.query(sql).num_rows > 0


def test_show_tables_lists_every_table_and_view(lake: Lake) -> None:
    assert {row[0] for row in rows(lake, "SHOW TABLES")} == {*TABLES, *VIEWS}


def test_python_variables_are_no_tables(lake: Lake) -> None:
    secret_table = pa.table({"a": [1]})
    with pytest.raises(QueryError, match="secret_table does not exist"):
        lake.query("SELECT * FROM secret_table")
    assert secret_table.num_rows == 1


def test_a_query_opens_only_what_its_sql_may_need() -> None:
    assert relations_in("SELECT 1") == []
    assert relations_in("SELECT * FROM Labels") == [
        "assessments",
        "qualifications",
        "judge_runs",
        "submissions",
        "judgements",
        "verdicts",
        "labels",
    ]
    assert relations_in("DESCRIBE x") == relations_in("FROM " + ", ".join([*TABLES, *VIEWS]))


def test_a_store_without_local_files_is_read_through_arrow(lake: Lake) -> None:
    """What an object store takes: DuckDB has no file to open, delta-rs reads for it."""
    from flywheel.lake import session

    class Remote(type(lake._storage)):  # type: ignore[misc]
        is_local = False

    lake.append([make_interaction(interaction_id=f"{n}", duration_ms=n) for n in range(3)])
    lake.append([make_assessment(interaction_id="1", label="x")])
    remote = Remote(lake.root)
    sql = "SELECT interaction_id, label FROM responses WHERE duration_ms = ?"
    with session.session(remote, sql) as connection:
        found = session.run(connection, sql, [1]).to_pylist()
    assert found == [{"interaction_id": "1", "label": "x"}]
