"""The model being trained: a frozen base with one trainable LoRA adapter.

The base is bfloat16 where the processor multiplies it natively, else float32. The LoRA weights are
float32 either way (PEFT's default): at the learning rates LoRA takes, an update is smaller than the
distance between two bfloat16 numbers.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from flywheel.adapters import CONFIG_FILE, WEIGHTS_FILE
from flywheel.errors import BaseModelError, TrainingError
from flywheel.train.spec import TrainSpec
from flywheel.workload import LoraSection

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Flags of /proc/cpuinfo (x86, x86, ARM) that mean bfloat16 products in hardware."""
EAGER_TOKENS = 256
ADAPTER = "default"
"""PEFT's name of the adapter that is trained."""


class Hardware(NamedTuple):
    """What this process trains on."""

    device: Literal["cuda", "cpu"]
    is_bf16: bool
    """Whether products are computed in bfloat16."""


def find_hardware() -> Hardware:
    """CUDA where there is some, else the CPU; bfloat16 where it is native."""
    import torch

    if torch.cuda.is_available():
        return Hardware("cuda", torch.cuda.is_bf16_supported(including_emulation=False))
    flags: set[str] = set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                flags.update(line.split(":", 1)[1].split())
                break
    return Hardware("cpu", bool(flags & CPU_FLAGS))


def load_tokenizer(spec: TrainSpec) -> "PreTrainedTokenizerBase":
    """The base model's tokenizer.

    Raises:
        BaseModelError: it cannot be read.
        TrainingError: it has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(spec.base_model_path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BaseModelError(spec.base_model, [f"{spec.base_model_path}: {error}"]) from error
    if not tokenizer.chat_template:
        raise TrainingError(
            f"{spec.base_model} has no chat template, so its answers have no beginning or end: "
            "use an instruction-tuned model"
        )
    return tokenizer


def load_policy(spec: TrainSpec, incoming: Path | None, hardware: Hardware) -> "PeftModel":
    """The base with the incoming adapter to continue, or with a fresh one, which adds zero.

    Raises:
        BaseModelError: the base cannot be read.
        TrainingError: nothing would be trained, or what no server takes.
    """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, set_seed

    try:
        base = AutoModelForCausalLM.from_pretrained(
            spec.base_model_path,
            dtype=torch.bfloat16 if hardware.is_bf16 else torch.float32,
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        raise BaseModelError(spec.base_model, [f"{spec.base_model_path}: {error}"]) from error
    set_seed(spec.training.seed)
    if incoming is not None:
        # PEFT's default is is_trainable=False: an empty optimizer that looks healthy.
        policy = PeftModel.from_pretrained(base, str(incoming), is_trainable=True)
        # PEFT looks up the base's vocabulary by this name when it saves, if need be in a hub.
        policy.peft_config[ADAPTER].base_model_name_or_path = spec.base_model_path
    else:
        lora = spec.training.lora
        policy = get_peft_model(
            base,
            LoraConfig(
                r=lora.rank,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=_target_modules(base, lora),
                layers_to_transform=_layers(base, lora),
                task_type="CAUSAL_LM",
            ),
        )
    trainable = sum(weight.numel() for weight in policy.parameters() if weight.requires_grad)
    if trainable == 0:
        raise TrainingError("no parameter is trainable: the adapter was loaded frozen")
    return policy


def _layers(base: "PreTrainedModel", lora: LoraSection) -> list[int] | None:
    """Which layers get an adapter; None means all."""
    count = int(base.config.num_hidden_layers)
    if lora.last_layers is None or lora.last_layers >= count:
        return None
    return list(range(count - lora.last_layers, count))


def _target_modules(base: "PreTrainedModel", lora: LoraSection) -> str | list[str]:
    """The layers that get an adapter: linear ones, the output head excepted.

    TRL multiplies by the head's own weight, so an adapter on it would never be trained.
    """
    import torch

    if isinstance(lora.target_modules, str) and lora.last_layers is None:
        return lora.target_modules
    head = base.get_output_embeddings()
    valid = {
        name.rsplit(".", 1)[-1]
        for name, module in base.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    if isinstance(lora.target_modules, str):
        return sorted(valid)  # PEFT takes no choice of layers beside its own word for all of them
    unknown = sorted(set(lora.target_modules) - valid)
    if unknown:
        raise TrainingError(
            f"training.lora.target_modules: {', '.join(unknown)} cannot carry an adapter; "
            f"valid: all-linear, or some of {', '.join(sorted(valid))}"
        )
    return sorted(lora.target_modules)


def choose_attention(policy: "PeftModel", hardware: Hardware, *, longest: int) -> None:
    """Written-out attention where it is the quicker one: short sequences on a CPU.

    There the fused kernel's backward alone is a quarter of all the work (docs/training.md); the
    written-out one keeps a square of the length a head and layer, so it is for short ones only.
    """
    if hardware.device == "cpu":
        name = "eager" if longest <= EAGER_TOKENS else "sdpa"
        policy.get_base_model().set_attn_implementation(name)


def save_policy(policy: "PeftModel", folder: Path, *, base_model: str) -> None:
    """Writes the adapter: config and weights and nothing else, of the served base's name.

    Under another name first, so that the folder's existence means complete. PEFT writes the path
    the base was loaded from, and a model card that repeats it.
    """
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    policy.save_pretrained(str(draft), selected_adapters=[ADAPTER], safe_serialization=True)
    for file in draft.iterdir():
        if file.name not in (CONFIG_FILE, WEIGHTS_FILE):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    config = json.loads((draft / CONFIG_FILE).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_model
    text = json.dumps(config, indent=2, sort_keys=True)
    (draft / CONFIG_FILE).write_text(text, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    draft.replace(folder)


@contextmanager
def completion_logits_only() -> Iterator[None]:
    """Projects only the answer's positions onto the vocabulary, on the CPU too.

    TRL does so on CUDA. Elsewhere its fused head scores every position and drops the prompt's
    afterwards, for devices that compile each shape. On the CPU, with a short answer to a long
    prompt, that is half of all the work (docs/training.md). The losses are the same. Should a TRL
    have another name for the function, training is as slow as by default, and as right.
    """
    from trl.trainer import utils

    name = "_use_triton"
    original = getattr(utils, name, None)
    if original is None:
        yield
        return
    setattr(utils, name, lambda device: True)
    try:
        yield
    finally:
        setattr(utils, name, original)


def world_size() -> int:
    """Processes that train together; `accelerate launch` sets the variable."""
    return int(os.environ.get("WORLD_SIZE", "1"))
