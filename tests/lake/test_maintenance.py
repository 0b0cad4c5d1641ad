import os
from pathlib import Path

import pytest

from flywheel.errors import QueryError
from flywheel.lake import Compaction, Lake
from flywheel.lake.commit import try_commit
from flywheel.lake.rows import to_arrow
from flywheel.lake.tables import TABLES
from flywheel.records import Interaction
from flywheel.testing import make_interaction

DAY = 86_400


def parquet(lake: Lake) -> set[Path]:
    return set(Path(lake.root, "interactions").rglob("*.parquet"))


def lose_a_commit(lake: Lake) -> Path:
    """Leaves the file of an append whose commit somebody else won."""
    spec = TABLES["interactions"]
    stale = lake._storage.open_or_create(spec)
    lake.append([make_interaction()])
    before = parquet(lake)
    assert not try_commit(stale, to_arrow(spec, [make_interaction()]))
    [orphan] = parquet(lake) - before
    return orphan


def age(path: Path, seconds: float) -> None:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_compaction_merges_files_and_keeps_every_row(lake: Lake) -> None:
    records = [make_interaction(interaction_id=f"{number}") for number in range(5)]
    for record in records:
        lake.append([record])
    assert lake.compact() == [Compaction("interactions", 5, 1, 6)]
    found = lake.fetch(Interaction, "FROM interactions ORDER BY interaction_id")
    assert found == records
    assert lake.append(records).written == 0, "duplicates are still known"


def test_compacting_what_is_compact_commits_nothing(lake: Lake) -> None:
    lake.append([make_interaction()])
    assert lake.compact() == [Compaction("interactions", 1, 1, 1)]


def test_an_empty_lake_has_nothing_to_compact_vacuum_or_tell(lake: Lake) -> None:
    assert (lake.compact(), lake.vacuum(), lake.history("interactions")) == ([], [], [])


def test_vacuum_keeps_what_the_retention_protects(lake: Lake) -> None:
    for _ in range(3):
        lake.append([make_interaction()])
    lake.compact()
    assert [done.files_removed for done in lake.vacuum()] == [0]
    assert lake.query("FROM interactions", versions={"interactions": 3}).num_rows == 3


def test_vacuum_removes_what_is_older_and_then_old_versions_say_so(lake: Lake) -> None:
    for _ in range(3):
        lake.append([make_interaction()])
    lake.compact()
    assert [done.files_removed for done in lake.vacuum(retention_hours=0)] == [3]
    assert lake.query("FROM interactions").num_rows == 3
    with pytest.raises(QueryError, match="gone once `flywheel lake vacuum`"):
        lake.query("FROM interactions", versions={"interactions": 3})


def test_vacuum_spares_the_file_of_an_append_in_flight_and_takes_an_old_orphan(lake: Lake) -> None:
    """`vacuum(full=True)` would delete a file whose commit is about to come."""
    lake.append([make_interaction()])
    fresh, old = lose_a_commit(lake), lose_a_commit(lake)
    age(old, 2 * DAY)
    lake.vacuum(retention_hours=0)
    assert fresh.exists()
    assert not old.exists()
    assert lake.query("FROM interactions").num_rows == 3


def test_history_tells_each_commit_newest_first(lake: Lake) -> None:
    lake.append([make_interaction(), make_interaction()])
    lake.compact()
    lake.append([make_interaction()])
    commits = lake.history("interactions")
    assert [(c.version, c.operation, c.rows_added) for c in commits] == [
        (2, "WRITE", 1),
        (1, "WRITE", 2),
        (0, "CREATE TABLE", None),
    ]
    assert len(lake.history("interactions", limit=1)) == 1
    assert commits[0].committed_at >= commits[1].committed_at
