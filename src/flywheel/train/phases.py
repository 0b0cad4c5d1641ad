"""One phase, SFT or DPO, by TRL's trainer: configured, resumed, watched.

Input: the policy and the snapshot's rows of the phase. Output: the policy with other weights, and
the phase's metrics; checkpoints go to `work/<phase>/` after each epoch.

DPO's reference is the policy as it enters the phase: given a `PeftModel` and no `ref_model`, TRL
freezes a copy of the adapter beside it (docs/training.md says why that is the one we want).
"""

import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import JsonValue

from flywheel.errors import TrainingError
from flywheel.records import DatasetKind, JsonObject
from flywheel.train.data import Examples, load_examples
from flywheel.train.events import Emit, TrainProgress
from flywheel.train.policy import (
    ADAPTER,
    Hardware,
    choose_attention,
    completion_logits_only,
    world_size,
)
from flywheel.train.spec import TrainSpec

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback

STATE_FILE = "trainer_state.json"


class Session(NamedTuple):
    """What both phases of a run share."""

    spec: TrainSpec
    tokenizer: "PreTrainedTokenizerBase"
    hardware: Hardware
    emit: Emit


class Checkpoint(NamedTuple):
    """A complete checkpoint, as the trainer left it."""

    path: Path
    history: Sequence[JsonObject]
    is_last: bool
    """Training had come to its end: the last epoch, or early stopping."""
    best: Path
    """The weights to keep: the best epoch's under early stopping, else its own."""


def train_phase(session: Session, kind: DatasetKind, policy: "PeftModel") -> dict[str, float]:
    """Trains one phase, from its newest complete checkpoint if there is one.

    Returns:
        Metrics named `<phase>/<metric>`. Empty when the snapshot has no rows for the phase.

    Raises:
        TrainingError: the loss is not a number.
    """
    train = load_examples(session.spec, kind, "train", session.tokenizer)
    if train.dataset is None:
        return {}
    validation = load_examples(session.spec, kind, "validation", session.tokenizer)
    longest = max(train.longest, validation.longest)
    choose_attention(policy, session.hardware, longest=longest)
    folder = session.spec.work_folder / kind
    checkpoint = newest_checkpoint(folder)
    started = time.monotonic()
    if checkpoint is not None and checkpoint.is_last:
        # Trainer would train on after early stopping: it clears the flag when it resumes.
        policy.load_adapter(str(checkpoint.best), ADAPTER, is_trainable=True)
        history = checkpoint.history
    else:
        trainer = _build_trainer(session, kind, policy, train, validation)
        with completion_logits_only():
            trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
        history = trainer.state.log_history
    dropped = train.dropped + validation.dropped
    counts = {"examples": train.kept, "validation_examples": validation.kept, "dropped": dropped}
    metrics = {**counts, **summarise(history), "seconds": time.monotonic() - started}
    return {f"{kind}/{name}": float(value) for name, value in metrics.items()}


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; one torn by a kill is removed."""
    for path in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True):
        try:
            # The trainer writes its state after everything else.
            state = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
            control = state["stateful_callbacks"]["TrainerControl"]["args"]
            return Checkpoint(
                path=path,
                history=state["log_history"],
                is_last=bool(control["should_training_stop"]),
                best=Path(state["best_model_checkpoint"] or path),
            )
        except (OSError, ValueError, KeyError, TypeError):
            shutil.rmtree(path)
    return None


def _step(path: Path) -> int:
    return int(path.name.rsplit("-", 1)[-1])


def summarise(history: Sequence[Mapping[str, JsonValue]]) -> dict[str, float]:
    """Last training loss, best and last validation loss, steps and epochs of a trainer's log."""
    losses = [_number(entry, "loss") for entry in history if "loss" in entry]
    evals = [_number(entry, "eval_loss") for entry in history if "eval_loss" in entry]
    summary = {"loss": losses[-1]} if losses else {}
    if evals:
        summary |= {"eval_loss": evals[-1], "best_eval_loss": min(evals)}
    steps = [entry for entry in history if "loss" in entry]
    if steps:
        summary |= {"steps": _number(steps[-1], "step"), "epochs": _number(steps[-1], "epoch")}
    rewards = [entry for entry in history if "rewards/accuracies" in entry]
    if rewards:
        summary["reward_accuracy"] = _number(rewards[-1], "rewards/accuracies")
    return summary


def _number(entry: Mapping[str, JsonValue], name: str) -> float:
    value = entry[name]
    assert isinstance(value, int | float)
    return float(value)


def _build_trainer(
    session: Session, kind: DatasetKind, policy: "PeftModel", train: Examples, validation: Examples
) -> "Trainer":
    from transformers import EarlyStoppingCallback, PrinterCallback

    callbacks = [_watcher(kind, session.emit)]
    sft = session.spec.training.sft
    if kind == "sft" and sft is not None and _stops_early(session.spec, validation):
        callbacks.append(EarlyStoppingCallback(sft.early_stopping_patience))
    build = _sft_trainer if kind == "sft" else _dpo_trainer
    trainer = build(session, policy, train, validation, callbacks)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _sft_trainer(
    session: Session,
    policy: "PeftModel",
    train: Examples,
    validation: Examples,
    callbacks: "list[TrainerCallback]",
) -> "Trainer":
    from trl import SFTConfig, SFTTrainer

    sft = session.spec.training.sft
    assert sft is not None
    best: JsonObject = {}
    if _stops_early(session.spec, validation):
        best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
    config = SFTConfig(
        **_arguments(session, "sft", validation),
        **best,
        learning_rate=sft.learning_rate,
        num_train_epochs=sft.epochs,
        warmup_steps=sft.warmup_share,
        completion_only_loss=True,
        max_length=None,
        # Processes that share a batch must share the sampler's seed, and this sampler has none.
        train_sampling_strategy="group_by_length" if world_size() == 1 else "random",
    )
    return SFTTrainer(
        model=policy,
        args=config,
        train_dataset=train.dataset,
        eval_dataset=validation.dataset,
        processing_class=session.tokenizer,
        callbacks=callbacks,
    )


def _dpo_trainer(
    session: Session,
    policy: "PeftModel",
    train: Examples,
    validation: Examples,
    callbacks: "list[TrainerCallback]",
) -> "Trainer":
    from trl import DPOConfig, DPOTrainer

    dpo = session.spec.training.dpo
    assert dpo is not None
    config = DPOConfig(
        **_arguments(session, "dpo", validation),
        learning_rate=dpo.learning_rate,
        num_train_epochs=dpo.epochs,
        beta=dpo.beta,
        loss_type=list(dpo.loss),
        max_length=None,
    )
    return DPOTrainer(
        model=policy,
        ref_model=None,
        args=config,
        train_dataset=train.dataset,
        eval_dataset=validation.dataset,
        processing_class=session.tokenizer,
        callbacks=callbacks,
    )


def _stops_early(spec: TrainSpec, validation: Examples) -> bool:
    """Whether the best epoch is kept; without a validation split there is nothing to stop by."""
    sft = spec.training.sft
    wanted = sft is not None and sft.early_stopping_patience is not None
    return wanted and validation.dataset is not None


def _arguments(session: Session, kind: DatasetKind, validation: Examples) -> JsonObject:
    """What both trainers are given. Nothing is reported anywhere but through our own callback."""
    on_gpu = session.hardware.device == "cuda"
    section = getattr(session.spec.training, kind)
    batch = max(1, section.batch_size // world_size())
    return {
        "output_dir": str(session.spec.work_folder / kind),
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "seed": session.spec.training.seed,
        "use_cpu": not on_gpu,
        "bf16": session.hardware.is_bf16,
        # Saves memory, which is short on a GPU; costs time, which is short on a CPU.
        "activation_checkpointing": on_gpu,
        "dataloader_pin_memory": on_gpu,
        "logging_steps": 1,
        # The filter replaces NaN in the log by the mean so far: the guard would never see one.
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "restore_callback_states_from_checkpoint": True,
        "eval_strategy": "epoch" if validation.dataset is not None else "no",
        "prediction_loss_only": True,
    }


def _watcher(kind: DatasetKind, emit: Emit) -> "TrainerCallback":
    """A callback that tells each step and stops at the first number that is not one."""
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

    class Watcher(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        started = 0.0

        def on_train_begin(self, *arguments: object, **more: object) -> None:
            self.started = time.monotonic()

        def on_log(
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            logs: Mapping[str, float] | None = None,
            **more: object,
        ) -> None:
            logs = logs or {}
            if not {"loss", "eval_loss"} & logs.keys():
                return
            for name in ("loss", "grad_norm", "eval_loss"):
                if not math.isfinite(logs.get(name, 0.0)):
                    raise TrainingError(
                        f"{kind}: {name} is {logs[name]} at step {state.global_step}: "
                        f"lower training.{kind}.learning_rate"
                    )
            tokens, seconds = logs.get("num_tokens"), time.monotonic() - self.started
            emit(
                TrainProgress(
                    phase=kind,
                    step=state.global_step,
                    total_steps=state.max_steps,
                    epoch=state.epoch or 0.0,
                    loss=logs.get("loss"),
                    eval_loss=logs.get("eval_loss"),
                    learning_rate=logs.get("learning_rate"),
                    tokens_per_second=tokens / seconds if tokens and seconds > 0 else None,
                )
            )

    return Watcher()
