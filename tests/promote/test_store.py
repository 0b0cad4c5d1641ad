import os
import time
from pathlib import Path

import pytest

from flywheel.errors import AdapterError
from flywheel.promote import store_adapter
from tests.promote.conftest import MakeAdapter


def test_a_stored_adapter_is_complete_and_points_into_the_store(
    tmp_path: Path, trained: MakeAdapter
) -> None:
    adapter = trained(1)
    stored = store_adapter(adapter, tmp_path / "store")
    folder = Path(stored.path)
    assert folder == tmp_path / "store" / adapter.name
    assert {file.name for file in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert stored.adapter_id == adapter.adapter_id


def test_storing_twice_is_harmless_and_needs_the_source_no_more(
    tmp_path: Path, trained: MakeAdapter
) -> None:
    adapter = trained(1)
    once = store_adapter(adapter, tmp_path / "store")
    before = (Path(once.path) / "adapter_model.safetensors").stat().st_mtime_ns
    gone = adapter.model_copy(update={"path": str(tmp_path / "gone")})
    assert store_adapter(gone, tmp_path / "store") == once
    assert (Path(once.path) / "adapter_model.safetensors").stat().st_mtime_ns == before


def test_checkpoints_stay_out_of_the_store(tmp_path: Path, trained: MakeAdapter) -> None:
    adapter = trained(1)
    checkpoint = Path(adapter.path) / "checkpoint-1"
    checkpoint.mkdir()
    (checkpoint / "state.json").write_text("{}")
    stored = store_adapter(adapter, tmp_path / "store")
    assert not (Path(stored.path) / "checkpoint-1").exists()


def test_a_truncated_adapter_never_appears_in_the_store(
    tmp_path: Path, trained: MakeAdapter
) -> None:
    adapter = trained(1)
    weights = Path(adapter.path) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])
    with pytest.raises(AdapterError, match="truncated"):
        store_adapter(adapter, tmp_path / "store")
    assert not (tmp_path / "store" / adapter.name).exists()


def test_other_weights_under_an_adapters_name_are_refused(
    tmp_path: Path, trained: MakeAdapter
) -> None:
    one, two = trained(1), trained(2)
    swapped = one.model_copy(update={"path": two.path})
    with pytest.raises(AdapterError, match=r"hash to .* was asked for"):
        store_adapter(swapped, tmp_path / "store")


def test_weights_changed_inside_the_store_are_noticed(tmp_path: Path, trained: MakeAdapter) -> None:
    one, two = trained(1), trained(2)
    stored = Path(store_adapter(one, tmp_path / "store").path)
    changed = (Path(two.path) / "adapter_model.safetensors").read_bytes()
    (stored / "adapter_model.safetensors").write_bytes(changed)
    with pytest.raises(AdapterError, match="Somebody changed them"):
        store_adapter(one, tmp_path / "store")


def test_what_a_killed_copy_left_is_swept_and_one_going_on_is_not(
    tmp_path: Path, trained: MakeAdapter
) -> None:
    store = tmp_path / "store"
    old, young = store / ".triage-x.1.partial", store / ".triage-x.2.partial"
    old.mkdir(parents=True)
    young.mkdir()
    os.utime(old, (0, time.time() - 7200))
    store_adapter(trained(1), store)
    assert not old.exists()
    assert young.exists()
