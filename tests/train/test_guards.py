import math
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

from flywheel.adapters import CONFIG_FILE, WEIGHTS_FILE, inspect_adapter
from flywheel.errors import TrainingError
from flywheel.train import TrainSpec
from flywheel.train.guards import check_parent, check_trained, delta_norm
from tests.train.conftest import BASE, RECIPE

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


def write(folder: Path, *, b: float = 0.5, rank: int = 8, alpha: float = 16) -> Path:
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": BASE,
        "r": rank,
        "lora_alpha": alpha,
    }
    (folder / CONFIG_FILE).write_text(str(config).replace("'", '"'), encoding="utf-8")
    tensors = {
        f"{MODULE}.lora_A.weight": numpy.ones((rank, 4), "float32"),
        f"{MODULE}.lora_B.weight": numpy.full((6, rank), b, "float32"),
    }
    save_file(tensors, folder / WEIGHTS_FILE)
    return folder


def test_delta_norm_is_that_of_the_product(tmp_path: Path) -> None:
    """B A is 6 x 4 of 8 x 0.5 = 4 each; times 16 / 8 is 8; its norm is 8 x sqrt(24)."""
    folder = write(tmp_path / "adapter")
    assert delta_norm(folder, inspect_adapter(folder)) == pytest.approx(8 * math.sqrt(24))


def test_an_adapter_that_adds_nothing_is_refused(tmp_path: Path, spec: TrainSpec) -> None:
    with pytest.raises(TrainingError, match="adds zero to the base"):
        check_trained(spec, write(tmp_path / "adapter", b=0))


def test_an_adapter_that_is_its_parent_is_refused(tmp_path: Path, spec: TrainSpec) -> None:
    folder = write(tmp_path / "adapter")
    parent = inspect_adapter(folder).adapter_id
    with pytest.raises(TrainingError, match="byte for byte its parent"):
        check_trained(spec.model_copy(update={"parent": parent}), folder)


def test_an_adapter_nobody_may_serve_is_refused(tmp_path: Path, spec: TrainSpec) -> None:
    with pytest.raises(TrainingError, match="NaN or Inf"):
        check_trained(spec, write(tmp_path / "nan", b=float("nan")))
    pickled = write(tmp_path / "pickled")
    (pickled / "training_args.bin").write_bytes(b"")
    with pytest.raises(TrainingError, match="only safetensors"):
        check_trained(spec, pickled)


def test_a_parent_must_be_what_was_promoted_and_of_the_same_shape(
    tmp_path: Path, spec: TrainSpec
) -> None:
    folder = write(tmp_path / "parent")
    identity = inspect_adapter(folder).adapter_id
    known = {"parent": identity, "parent_path": str(folder)}
    assert check_parent(spec) is None
    assert check_parent(spec.model_copy(update=known)) == folder
    with pytest.raises(TrainingError, match="has other weights than were promoted"):
        check_parent(spec.model_copy(update={**known, "parent": "0" * 64}))
    wide = RECIPE.model_copy(update={"lora": RECIPE.lora.model_copy(update={"alpha": 32})})
    with pytest.raises(TrainingError, match=r"rank 8 and alpha 16, training\.lora 8 and 32"):
        check_parent(spec.model_copy(update={**known, "training": wide}))
    with pytest.raises(TrainingError, match="no such folder"):
        check_parent(spec.model_copy(update={**known, "parent_path": str(tmp_path / "gone")}))
