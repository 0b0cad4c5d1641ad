"""lake.duckdb is opened here as anyone would: plain duckdb, no Flywheel."""

from pathlib import Path

import duckdb
import pytest

from flywheel.lake import Lake
from flywheel.lake.session import VIEWS
from flywheel.lake.tables import TABLES
from flywheel.testing import make_assessment, make_interaction

QUESTION = "select adapter, count(*) n, avg(duration_ms) ms from interactions group by 1"


def ask(path: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(path), read_only=True) as connection:  # noqa: TID251 - as a user does
        return connection.sql(sql).fetchall()


def test_plain_duckdb_answers_from_the_catalog_what_the_lake_answers(
    lake: Lake, tmp_path: Path
) -> None:
    lake.append([make_interaction(interaction_id=f"{n}", duration_ms=n) for n in range(3)])
    lake.append([make_assessment(interaction_id="1", label="x")])
    path = lake.catalog(tmp_path / "new folder" / "lake.duckdb")
    assert ask(path, QUESTION) == [(None, 3, 1.0)]
    assert ask(path, "select interaction_id, label from labels") == [("1", "x")]
    assert ask(path, "select workload, event_date::varchar from interactions limit 1") == [
        ("triage", "2026-01-02")
    ]


def test_every_table_and_view_is_in_the_catalog_of_an_empty_lake(
    lake: Lake, tmp_path: Path
) -> None:
    path = lake.catalog(tmp_path / "lake.duckdb")
    for name in [*TABLES, *VIEWS]:
        assert ask(path, f"select * from {name}") == []


def test_the_catalog_says_which_versions_it_shows(lake: Lake, tmp_path: Path) -> None:
    lake.append([make_interaction()])
    path = lake.catalog(tmp_path / "lake.duckdb")
    assert ask(path, "select name, version from catalog where version is not null") == [
        ("interactions", 1)
    ]
    assert ask(path, "select count(*), bool_and(written_at <= now()) from catalog") == [
        (len(TABLES), True)
    ]


def test_writing_again_refreshes_it_for_new_readers_beside_one_who_has_it_open(
    lake: Lake, tmp_path: Path
) -> None:
    lake.append([make_interaction()])
    path = lake.catalog(tmp_path / "lake.duckdb")
    with duckdb.connect(str(path), read_only=True) as open_before:  # noqa: TID251 - as a user does
        lake.append([make_interaction()])
        assert ask(path, "select count(*) from interactions") == [(1,)], "a point in time"
        lake.catalog(path)
        counted = open_before.sql("select count(*) from interactions").fetchall()
        assert counted == [(1,)]
    assert ask(path, "select count(*) from interactions") == [(2,)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lake", "lake.duckdb"]


def test_a_catalog_that_cannot_be_written_leaves_the_old_one(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lake.catalog(tmp_path / "lake.duckdb")
    before = path.read_bytes()
    # A view that cannot be bound is what a broken installation would meet half-way.
    monkeypatch.setitem(VIEWS, "no_such_file", ())
    with pytest.raises(FileNotFoundError):
        lake.catalog(path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lake.duckdb"]
