"""The same code over an object store: every way in and out, against S3's protocol on loopback."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flywheel.errors import EpochConflictError, QueryError, UpstreamUnavailableError
from flywheel.lake import Lake
from flywheel.testing import make_assessment, make_interaction
from tests.lake.writer import make_release

ROOT = Path(__file__).resolve().parents[2]


IMPATIENT = {"max_retries": "0", "connect_timeout": "1s"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A bucket's address."""
    command = [sys.executable, "-m", "tests.lake.object_store"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.terminate()


def options(url: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
    }


@pytest.fixture
def remote(url: str, request: pytest.FixtureRequest) -> Lake:
    return Lake(f"s3://bucket/{request.node.name}/", storage_options=options(url))


def keys(url: str) -> list[str]:
    """Every object there is."""
    with urllib.request.urlopen(f"{url}/-/keys") as answer:
        return [str(key) for key in json.load(answer)]


def test_append_query_and_pin_over_an_object_store(remote: Lake, url: str) -> None:
    assert remote.query("SELECT * FROM labels").num_rows == 0
    records = [make_interaction(interaction_id=f"{n}", duration_ms=n) for n in range(3)]
    assert remote.append(records).written == 3
    pinned = remote.versions()
    again = remote.append([*records, make_interaction(interaction_id="new")])
    assert (again.written, again.duplicates) == (1, 3)
    remote.append([make_assessment(interaction_id="1", label="x")])
    sql = "SELECT interaction_id, label FROM responses WHERE duration_ms = ?"
    assert remote.query(sql, [1.0]).to_pylist() == [{"interaction_id": "1", "label": "x"}]
    assert remote.query("FROM interactions", versions=pinned).num_rows == 3
    root = remote.root.removeprefix("s3://bucket/")
    assert any(key.startswith(f"{root}/interactions/_delta_log/") for key in keys(url))


def test_upkeep_over_an_object_store(remote: Lake) -> None:
    for _ in range(3):
        remote.append([make_interaction()])
    [compacted] = remote.compact()
    assert (compacted.files_before, compacted.files_after) == (3, 1)
    [vacuumed] = remote.vacuum(retention_hours=0)
    assert vacuumed.files_removed == 3
    assert remote.query("FROM interactions").num_rows == 3


def test_racing_releases_over_an_object_store_have_one_winner(remote: Lake) -> None:
    """The bucket's put-if-absent decides, as no lock can."""

    def try_for(writer: int) -> list[int]:
        won = []
        for epoch in range(1, 5):
            try:
                won.append(remote.append_release(make_release(epoch, actor=f"{writer}")))
            except EpochConflictError:
                continue
        return won

    with ThreadPoolExecutor(3) as pool:
        won = [epoch for epochs in pool.map(try_for, range(3)) for epoch in epochs]
    assert sorted(won) == [1, 2, 3, 4]
    assert [release.epoch for release in remote.releases("triage")] == [1, 2, 3, 4]


def test_a_store_that_is_down_is_worth_another_try() -> None:
    """A flow retries it: it is nobody's mistake."""
    down = Lake("s3://bucket/lake", storage_options={**options("http://127.0.0.1:1"), **IMPATIENT})
    with pytest.raises(
        UpstreamUnavailableError, match="s3://bucket/lake is not available: Connection refused"
    ):
        down.append([make_interaction()])
    with pytest.raises(UpstreamUnavailableError):
        down.query("FROM interactions")


def test_a_catalog_of_a_store_duckdb_cannot_read_is_a_clear_error(
    remote: Lake, tmp_path: Path
) -> None:
    remote.append([make_interaction()])
    with pytest.raises(QueryError, match=r"httpfs.*`flywheel sql` needs neither"):
        remote.catalog(tmp_path / "lake.duckdb")
    assert list(tmp_path.iterdir()) == []
