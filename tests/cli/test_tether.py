"""Processes that end with the one that started them, seen from outside."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flywheel.cli.tether import start_tethered

CHILD = """
import os, pathlib, signal, sys, time
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(60)
"""
PARENT = """
import os, sys, time
from pathlib import Path
from flywheel.cli.tether import start_tethered
start_tethered(
    [sys.executable, "-c", sys.argv[1], sys.argv[2], sys.argv[3]],
    env=os.environ, log=Path(sys.argv[4]), grace_s=0.5,
)
time.sleep(60)
"""


@pytest.mark.parametrize("manners", ["polite", "stubborn"])
def test_a_server_ends_when_the_process_that_started_it_is_killed(
    tmp_path: Path, manners: str
) -> None:
    """Guards against servers that went on after a killed `flywheel up` or test run."""
    pid_file = tmp_path / "pid"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD, str(pid_file), manners, str(tmp_path / "log")]
    )
    try:
        server = _wait_for_pid(pid_file)
        assert _is_running(server)
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 10
        while _is_running(server) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _is_running(server)
    finally:
        parent.kill()
        parent.wait()


def test_a_tether_ends_with_its_server_and_says_how(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", "print('said'); raise SystemExit(7)"]
    with start_tethered(command, env=os.environ, log=log) as tether:
        assert tether.wait(20) == 7
    assert log.read_text() == "said\n"


def test_a_request_to_stop_reaches_the_server_and_not_only_its_tether(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    command = [sys.executable, "-c", CHILD, str(pid_file), "polite"]
    with start_tethered(command, env=os.environ, log=tmp_path / "log") as tether:
        server = _wait_for_pid(pid_file)
        os.killpg(tether.pid, signal.SIGTERM)
        assert tether.wait(20) == 128 + signal.SIGTERM
    assert not _is_running(server)


def _wait_for_pid(path: Path) -> int:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.02)
    return int(path.read_text())


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Where nobody reaps orphans, an ended one stays listed as a zombie.
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(") ")[2][0] != "Z"
