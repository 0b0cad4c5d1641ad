from pathlib import Path

import pytest

from flywheel.adapters import inspect_adapter
from flywheel.errors import BaseModelError, TrainingError
from flywheel.train import TrainSpec
from flywheel.train.policy import (
    Hardware,
    choose_attention,
    completion_logits_only,
    load_policy,
    load_tokenizer,
    save_policy,
)
from flywheel.workload import LoraSection, TrainingSection
from tests.train.conftest import BASE

CPU = Hardware("cpu", is_bf16=False)


def test_only_lora_weights_train_and_they_are_float32(spec: TrainSpec) -> None:
    import torch

    policy = load_policy(spec, None, Hardware("cpu", is_bf16=True))
    trainable = {name: weight for name, weight in policy.named_parameters() if weight.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)
    assert {weight.dtype for weight in trainable.values()} == {torch.float32}
    frozen = {weight.dtype for weight in policy.parameters() if not weight.requires_grad}
    assert frozen == {torch.bfloat16}


def test_a_saved_adapter_is_two_files_under_the_served_name(
    tmp_path: Path, spec: TrainSpec
) -> None:
    policy = load_policy(spec, None, CPU)
    save_policy(policy, tmp_path / "adapter", base_model=BASE)
    assert sorted(file.name for file in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    found = inspect_adapter(tmp_path / "adapter", base_model=BASE)
    assert (found.rank, found.alpha) == (8, 16)
    assert "lm_head" not in found.target_modules


def test_a_continued_adapter_is_trainable_and_the_same(tmp_path: Path, spec: TrainSpec) -> None:
    """PEFT's default loads it frozen: an empty optimizer that looks healthy."""
    save_policy(load_policy(spec, None, CPU), tmp_path / "one", base_model=BASE)
    continued = load_policy(spec, tmp_path / "one", CPU)
    assert any(weight.requires_grad for weight in continued.parameters())
    save_policy(continued, tmp_path / "two", base_model=BASE)
    one, two = (inspect_adapter(tmp_path / name).adapter_id for name in ("one", "two"))
    assert one == two


def test_modules_no_server_takes_are_refused_with_those_it_does(spec: TrainSpec) -> None:
    lora = LoraSection(rank=8, target_modules=("lm_head", "q_proj", "nonsense"))
    other = spec.model_copy(update={"training": TrainingSection(lora=lora)})
    with pytest.raises(TrainingError, match="lm_head, nonsense cannot .* some of down_proj"):
        load_policy(other, None, CPU)


def test_a_base_that_is_not_there_is_named(tmp_path: Path, spec: TrainSpec) -> None:
    other = spec.model_copy(update={"base_model_path": str(tmp_path)})
    with pytest.raises(BaseModelError, match=BASE):
        load_policy(other, None, CPU)
    with pytest.raises(BaseModelError, match=BASE):
        load_tokenizer(other)


def test_scoring_only_the_answer_gives_the_same_loss_and_gradient(spec: TrainSpec) -> None:
    """On the CPU TRL scores every position and drops the prompt's; here they are never scored."""
    import torch
    from trl.trainer.utils import add_fused_lm_head

    policy = load_policy(spec, None, CPU)
    add_fused_lm_head(policy.get_base_model())
    ids = torch.randint(3, 250, (2, 24), generator=torch.Generator().manual_seed(0))
    labels = ids.masked_fill(torch.arange(24) < 20, -100)
    weights = [weight for weight in policy.parameters() if weight.requires_grad]

    def loss_and_gradients() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        loss = policy(input_ids=ids, labels=labels, fused_lm_head=True).loss
        return loss.detach(), torch.autograd.grad(loss, weights)

    loss, gradients = loss_and_gradients()
    with completion_logits_only():
        quick_loss, quick_gradients = loss_and_gradients()
    torch.testing.assert_close(quick_loss, loss)
    for quick, slow in zip(quick_gradients, gradients, strict=True):
        torch.testing.assert_close(quick, slow)


def test_scoring_is_put_back_as_it_was() -> None:
    from trl.trainer import utils

    original = utils._use_triton
    with completion_logits_only():
        assert utils._use_triton is not original
    assert utils._use_triton is original


def test_attention_is_written_out_for_short_sequences_on_a_cpu(spec: TrainSpec) -> None:
    policy = load_policy(spec, None, CPU)
    for longest, name in ((256, "eager"), (257, "sdpa")):
        choose_attention(policy, CPU, longest=longest)
        assert policy.config._attn_implementation == name
    choose_attention(policy, Hardware("cuda", is_bf16=True), longest=1)
    assert policy.config._attn_implementation == "sdpa"


def test_only_the_last_layers_learn_where_the_recipe_says_so(
    tmp_path: Path, spec: TrainSpec
) -> None:
    """The tiny model has two layers; three asked for are all there are."""
    found = {}
    for count in (1, 2, 3):
        lora = LoraSection(rank=8, last_layers=count)
        other = spec.model_copy(update={"training": TrainingSection(lora=lora)})
        policy = load_policy(other, None, CPU)
        trained = [name for name, weight in policy.named_parameters() if weight.requires_grad]
        found[count] = {name.split(".layers.")[1].split(".")[0] for name in trained}
        assert not any("lm_head" in name for name in trained)
        save_policy(policy, tmp_path / str(count), base_model=BASE)
        assert inspect_adapter(tmp_path / str(count)).rank == 8
    assert found == {1: {"1"}, 2: {"0", "1"}, 3: {"0", "1"}}
