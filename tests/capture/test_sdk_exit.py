"""What an application that simply ends leaves behind: everything."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flywheel.capture import drain
from flywheel.lake import Lake
from tests.capture.sdk_server import Provider


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider().start()
    yield server
    server.go_on.set()
    server.stop()


def run(provider: Provider, spool: Path, how: str) -> None:
    command = [sys.executable, "-m", "tests.capture.sdk_process", provider.url, str(spool), how]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0 and finished.stderr == "", finished.stderr


def asked_in(lake: Lake) -> list[tuple[str, str]]:
    rows = lake.query("SELECT messages, status FROM interactions ORDER BY started_at").to_pylist()
    return [(json.loads(row["messages"])[0]["content"], row["status"]) for row in rows]


def test_nothing_is_lost_at_the_end_of_a_process(provider: Provider, tmp_path: Path) -> None:
    provider.go_on.clear()
    run(provider, tmp_path / "spool", "exit")
    lake = Lake(str(tmp_path / "lake"))
    assert drain(tmp_path / "spool", lake).quarantined == 0
    assert asked_in(lake) == [("before", "ok"), ("open", "cancelled")]


def test_a_forked_child_records_its_own_calls(provider: Provider, tmp_path: Path) -> None:
    run(provider, tmp_path / "spool", "fork")
    lake = Lake(str(tmp_path / "lake"))
    drain(tmp_path / "spool", lake)
    assert asked_in(lake) == [("before", "ok"), ("child", "ok"), ("parent", "ok")]
