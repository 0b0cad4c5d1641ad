import multiprocessing
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.train.cpu import OthersLoad, share_cores, threads_for


def test_a_machine_of_ones_own_is_used_whole_and_a_busy_core_is_left_alone() -> None:
    assert threads_for(2, 0.1) == 2
    assert threads_for(2, 0.5) == 1
    assert threads_for(2, 3.0) == 1
    assert threads_for(8, 2.2) == 6
    assert threads_for(4, None) == 4


@given(available=st.integers(1, 64), busy=st.none() | st.floats(0, 100))
def test_threads_are_at_least_one_and_at_most_what_there_is(
    available: int, busy: float | None
) -> None:
    assert 1 <= threads_for(available, busy) <= available


def spin(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass


def test_another_process_at_work_is_seen_and_this_one_is_not() -> None:
    """No upper bounds: a machine may be busy with more than this test."""
    load = OthersLoad()
    assert load.cores() is None
    other = multiprocessing.get_context("spawn").Process(target=spin, args=(30,))
    other.start()
    try:
        deadline = time.monotonic() + 60
        busy = None
        while busy is None or busy < 0.1:
            assert time.monotonic() < deadline
            time.sleep(0.3)
            busy = load.cores()
    finally:
        other.kill()
        other.join()
    assert busy < (os.cpu_count() or 1) + 0.5


def test_a_resumed_run_takes_the_threads_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS")
    remembered = tmp_path / "threads"
    try:
        share_cores(remembered, OthersLoad())
        assert remembered.read_text() == str(before)
        remembered.write_text("3")
        share_cores(remembered, OthersLoad())
        assert torch.get_num_threads() == 3
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        remembered.write_text("2")
        share_cores(remembered, OthersLoad())
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
