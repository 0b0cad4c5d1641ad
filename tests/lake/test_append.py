from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flywheel.errors import ConfigError, LakeFormatError, LakeSchemaError
from flywheel.lake import AppendResult, Lake
from flywheel.lake.commit import try_commit
from flywheel.lake.delta import VERSION_KEY
from flywheel.lake.rows import to_arrow
from flywheel.lake.tables import TABLES
from flywheel.records import SCHEMA_VERSION, Interaction, Message
from flywheel.testing import make_assessment, make_interaction


def ids(lake: Lake) -> list[str]:
    found = lake.query("SELECT interaction_id FROM interactions ORDER BY 1")
    return [str(value) for value in found.column(0).to_pylist()]


def test_appending_twice_adds_nothing(lake: Lake) -> None:
    records = [make_interaction(interaction_id=name) for name in "ab"]
    assert lake.append(records) == AppendResult("interactions", 2, 0, 1)
    assert lake.append(records) == AppendResult("interactions", 0, 2, 1)
    assert ids(lake) == ["a", "b"]


def test_what_is_new_in_a_batch_is_added_once(lake: Lake) -> None:
    a, b = (make_interaction(interaction_id=name) for name in "ab")
    lake.append([a])
    assert lake.append([b, a, b]) == AppendResult("interactions", 1, 2, 2)
    assert ids(lake) == ["a", "b"]


def test_the_first_record_of_an_id_stays(lake: Lake) -> None:
    lake.append([make_interaction(interaction_id="a", duration_ms=1.0)])
    lake.append([make_interaction(interaction_id="a", duration_ms=2.0)])
    assert lake.fetch(Interaction, "SELECT * FROM interactions")[0].duration_ms == 1.0


def test_a_batch_over_several_days_and_workloads_lands_in_its_partitions(lake: Lake) -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    lake.append(
        [
            make_interaction(workload=workload, started_at=day + timedelta(days=days))
            for workload in ("triage", "coding")
            for days in range(3)
        ]
    )
    found = lake.query("SELECT DISTINCT workload, event_date::VARCHAR d FROM interactions")
    assert found.num_rows == 6
    folder = Path(lake.root, "interactions", "workload=triage", "event_date=2026-01-03")
    assert len(list(folder.glob("*.parquet"))) == 1


def test_an_append_opens_only_files_of_its_own_time(lake: Lake) -> None:
    """Else every append of a day would cost more than the one before."""
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    for minute in range(4):
        lake.append([make_interaction(started_at=noon + timedelta(minutes=minute))])
    *earlier, last = sorted(
        Path(lake.root).rglob("*.parquet"), key=lambda path: path.stat().st_mtime
    )
    for path in earlier:
        path.write_bytes(b"not opened")
    repeated = make_interaction(interaction_id="a", started_at=noon + timedelta(minutes=3))
    assert lake.append([repeated]).written == 1
    assert lake.append([repeated]).written == 0
    assert last.stat().st_size > 100


def test_a_judgement_repeated_on_a_later_day_is_still_the_same(lake: Lake) -> None:
    """A client may send its feedback again after midnight, under the same assessment_id."""
    first = make_assessment(assessment_id="a", interaction_id="i", value=1)
    later = make_assessment(
        assessment_id="a",
        interaction_id="i",
        value=1,
        created_at=first.created_at + timedelta(days=1),
    )
    lake.append([first])
    assert lake.append([later]).written == 0


@pytest.mark.parametrize("name", ["tri age/é", "100%", "a=b", "'; DROP", "2024", "..", "x y#z?q"])
def test_any_workload_name_comes_back_as_it_was(lake: Lake, name: str) -> None:
    record = make_interaction(workload=name)
    assert lake.append([record]).written == 1
    assert lake.append([record]).written == 0
    assert lake.fetch(Interaction, "SELECT * FROM interactions WHERE workload = ?", [name]) == [
        record
    ]


@pytest.mark.parametrize("folder", ["with space", "100%", "ünï", "a#b?c*", "it's", 'a"{b}&c=d'])
def test_any_ordinary_folder_holds_a_lake(tmp_path: Path, folder: str) -> None:
    lake = Lake(str(tmp_path / folder))
    lake.append([make_interaction(interaction_id="a")])
    lake.append([make_interaction(interaction_id="b", workload="tri age/é%[a]*?")])
    assert ids(lake) == ["a", "b"]
    assert (tmp_path / folder / "interactions" / "_delta_log").is_dir()


def test_a_lake_behind_a_symbolic_link_is_the_same_lake(tmp_path: Path) -> None:
    """delta-rs resolves the link, DuckDB is given the path as it was asked for."""
    link = tmp_path / "a link"
    link.symlink_to(tmp_path / "a deeper" / "folder")
    (tmp_path / "a deeper" / "folder").mkdir(parents=True)
    Lake(str(link)).append([make_interaction(interaction_id="a")])
    assert ids(Lake(str(link))) == ids(Lake(str(link.resolve()))) == ["a"]


@pytest.mark.parametrize("folder", ["per%20cent", "a[b]", "back\\slash", "pipe|"])
def test_a_folder_delta_would_misread_is_refused(tmp_path: Path, folder: str) -> None:
    """delta-rs writes `per%20cent` into the folder `per cent`, and panics on brackets."""
    with pytest.raises(ConfigError, match="choose a folder without"):
        Lake(str(tmp_path / folder))


def test_a_file_uri_is_the_folder_it_names(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    Lake(folder.as_uri()).append([make_interaction(interaction_id="a")])
    assert ids(Lake(str(folder))) == ["a"]


def test_a_commit_whose_error_came_after_the_write_counts_as_done(lake: Lake) -> None:
    """delta-rs can raise although the write happened (measured): the log decides, not the error.

    A checkpoint after every commit that cannot be written, because its pointer file is a folder,
    makes it raise exactly so.
    """
    lake.append([make_interaction(interaction_id="a")])
    table = lake._storage.open_or_create(TABLES["interactions"])
    table.alter.set_table_properties({"delta.checkpointInterval": "1"})
    pointer = Path(lake.root, "interactions", "_delta_log", "_last_checkpoint")
    pointer.unlink(missing_ok=True)
    pointer.mkdir()
    (pointer / "occupied").touch()
    result = lake.append([make_interaction(interaction_id="b")])
    assert result.written == 1
    assert ids(lake) == ["a", "b"]


def test_a_commit_on_a_version_somebody_else_followed_adds_nothing(lake: Lake) -> None:
    spec = TABLES["interactions"]
    lake.append([make_interaction(interaction_id="a")])
    stale = lake._storage.open_or_create(spec)
    lake.append([make_interaction(interaction_id="b")])
    assert not try_commit(stale, to_arrow(spec, [make_interaction(interaction_id="b")]))
    assert ids(lake) == ["a", "b"]


def test_columns_an_older_table_lacks_are_added_and_read_as_missing(lake: Lake) -> None:
    from deltalake import DeltaTable, write_deltalake

    spec = TABLES["interactions"]
    old = make_interaction(interaction_id="old", tags={"gone": 1}, redactions=4)
    rows = to_arrow(spec, [old]).drop_columns(["redactions", "tags"])
    write_deltalake(lake._storage.uri("interactions"), rows, partition_by=list(spec.partition_by))
    assert lake.fetch(Interaction, "SELECT * FROM interactions") == [
        old.model_copy(update={"redactions": None, "tags": {}})
    ]
    lake.append([make_interaction(interaction_id="new", redactions=2)])
    found = lake.query("SELECT interaction_id, redactions FROM interactions ORDER BY 1")
    assert found.to_pylist() == [
        {"interaction_id": "new", "redactions": 2},
        {"interaction_id": "old", "redactions": None},
    ]
    table = DeltaTable(lake._storage.uri("interactions"))
    assert {field.name for field in table.schema().fields} == set(spec.record.model_fields)


def test_a_lake_of_a_newer_version_is_refused_and_left_as_it_is(lake: Lake) -> None:
    lake.append([make_interaction()])
    table = lake._storage.open_or_create(TABLES["interactions"])
    newer = str(SCHEMA_VERSION + 1)
    table.alter.set_table_properties({VERSION_KEY: newer}, raise_if_not_exists=False)
    folder = Path(lake.root)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for use in (
        lambda: lake.append([make_interaction()]),
        lambda: lake.query("SELECT count(*) FROM labels, interactions"),
        lambda: lake.versions(),
        lambda: lake.compact(),
        lambda: lake.vacuum(),
        lambda: lake.catalog(folder.parent / "lake.duckdb"),
    ):
        with pytest.raises(LakeSchemaError, match=f"version {newer}.*pip install -U"):
            use()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert not (folder.parent / "lake.duckdb").exists()
    assert list(folder.parent.iterdir()) == [folder]


def test_a_table_with_deletion_vectors_is_refused(lake: Lake) -> None:
    """DuckDB would read the files whole, and deleted rows would come back."""
    from deltalake import DeltaTable, TableFeatures

    lake.append([make_interaction()])
    table = DeltaTable(lake._storage.uri("interactions"))
    table.alter.add_feature(TableFeatures.DeletionVectors, allow_protocol_versions_increase=True)
    with pytest.raises(LakeFormatError, match="deletionVectors"):
        lake.query("SELECT * FROM interactions")


def test_tables_stay_readable_by_every_delta_reader(lake: Lake) -> None:
    lake.append([make_interaction()])
    protocol = lake._storage.open_or_create(TABLES["interactions"]).protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)


def test_no_content_and_no_identity_reaches_the_log_or_survives_there(lake: Lake) -> None:
    """Statistics outlive the rows: an erased value would stay in Delta's log as a min or max."""
    secret = "Zacharias-Quine"
    lake.append(
        [
            make_interaction(
                interaction_id=f"id-{secret}-{number}",
                conversation_id=f"conversation-{secret}",
                subject_key=f"key-{secret}",
                messages=(Message(role="user", content=secret),),
                response=Message(role="assistant", content=secret),
                tags={"name": secret},
                error_message=secret,
            )
            for number in range(3)
        ]
    )
    lake.append([make_interaction(error_message=secret)])
    lake.append(
        [
            make_assessment(
                interaction_id=secret,
                source_id=secret,
                label=secret,
                rationale=secret,
                correction=Message(role="assistant", content=secret),
            )
        ]
    )
    lake.compact()
    for name in ("interactions", "assessments"):
        lake._storage.open_or_create(TABLES[name]).create_checkpoint()
    logs = [path for path in Path(lake.root).rglob("_delta_log/*") if path.is_file()]
    assert len(logs) >= 6
    assert [path.name for path in logs if secret.encode() in path.read_bytes()] == []
