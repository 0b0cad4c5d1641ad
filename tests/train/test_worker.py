import fcntl
import json
import math
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flywheel.adapters import WEIGHTS_FILE, inspect_adapter
from flywheel.errors import TrainingError
from flywheel.train import TrainProgress, TrainSpec
from flywheel.train.events import EXIT_LOCKED, TrainEvent, TrainFailure
from flywheel.train.phases import newest_checkpoint
from flywheel.train.worker import _lock, run
from flywheel.workload import DpoSection, SftSection
from tests.train.conftest import (
    BASE,
    RECIPE,
    STEPS,
    Trained,
    changed,
    chat,
    examples,
    write_parquet,
)


class Killed(Exception):
    """Stands for a kill at a step, in this process."""


def killed_after(steps: int) -> Callable[[TrainEvent], None]:
    """An `emit` that ends the run when it has told so many steps."""
    told = 0

    def emit(event: TrainEvent) -> None:
        nonlocal told
        told += isinstance(event, TrainProgress) and event.loss is not None
        if told == steps:
            raise Killed

    return emit


def quiet(event: TrainEvent) -> None:
    """Tells nobody."""


def test_a_run_leaves_an_adapter_its_result_and_nothing_a_server_refuses(golden: Trained) -> None:
    found = inspect_adapter(golden.spec.adapter_folder, base_model=BASE)
    assert found.adapter_id == golden.result.adapter_id
    assert golden.spec.read_result() == golden.result
    assert golden.result.metrics["sft/examples"] == 10
    assert golden.result.metrics["sft/validation_examples"] == 2
    assert golden.result.metrics["delta_norm"] > 0


def test_a_run_tells_every_step_and_learns(golden: Trained) -> None:
    progress = [event for event in golden.events if isinstance(event, TrainProgress)]
    steps = [event for event in progress if event.loss is not None]
    assert len(steps) == STEPS
    assert [event.phase for event in steps] == ["sft"] * 9 + ["dpo"] * 6
    assert len([event for event in progress if event.eval_loss is not None]) == 3 + 2
    assert all(event.tokens_per_second for event in steps)
    sft = [event.loss for event in steps if event.phase == "sft" and event.loss]
    assert sum(sft[-3:]) < sum(sft[:3]) / 2


def test_dpo_starts_from_what_sft_learned_and_takes_it_as_its_reference(golden: Trained) -> None:
    """Policy and reference are equal at the first step: the sigmoid loss is log 2.

    With the base as its reference the margin would be far from zero after SFT.
    """
    state = newest_checkpoint(golden.spec.work_folder / "dpo")
    assert state is not None
    first = next(entry for entry in state.history if "rewards/margins" in entry)
    assert first["rewards/margins"] == 0
    phases = [golden.spec.work_folder / kind / "adapter" for kind in ("sft", "dpo")]
    assert len({inspect_adapter(folder).adapter_id for folder in phases}) == 2
    reference = state.path / "ref"
    assert inspect_adapter(reference).adapter_id == inspect_adapter(phases[0]).adapter_id


def test_only_the_answer_and_its_end_are_learned(spec: TrainSpec) -> None:
    from flywheel.train.data import Examples, load_examples
    from flywheel.train.phases import Session, _sft_trainer
    from flywheel.train.policy import Hardware, load_policy, load_tokenizer

    hardware = Hardware("cpu", is_bf16=False)
    session = Session(spec, load_tokenizer(spec), hardware, quiet)
    train = load_examples(spec, "sft", "train", session.tokenizer)
    policy = load_policy(spec, None, hardware)
    trainer = _sft_trainer(session, policy, train, Examples(None, 0, 0, 0), [])
    row = trainer.train_dataset[0]
    learned = [token for token in row["labels"] if token != -100]
    assert session.tokenizer.decode(learned) == '{"urgency": "emergency"}<|im_end|>\n'
    assert session.tokenizer.decode(row["input_ids"]).startswith("<|im_start|>system\nTriage.")


def test_a_run_killed_anywhere_and_resumed_leaves_the_same_bytes(
    golden: Trained, tmp_path: Path
) -> None:
    """Twice in the second epoch of SFT and once in that of DPO, at steps a seed picks."""
    spec = golden.spec.model_copy(update={"output_root": str(tmp_path)})
    assert spec.key == golden.spec.key
    pick = random.Random(7)
    for steps in (pick.randint(4, 6), pick.randint(1, 2), 6 + pick.randint(4, 5)):
        with pytest.raises(Killed):
            run(spec, killed_after(steps))
        assert spec.read_result() is None
    assert (spec.work_folder / "sft" / "adapter").is_dir()
    assert newest_checkpoint(spec.work_folder / "dpo") is not None
    assert run(spec, quiet).adapter_id == golden.result.adapter_id


def test_a_run_killed_after_its_last_checkpoint_only_finishes(
    golden: Trained, tmp_path: Path
) -> None:
    spec = golden.spec.model_copy(update={"output_root": str(tmp_path)})
    shutil.copytree(golden.spec.work_folder, spec.work_folder)
    shutil.rmtree(spec.work_folder / "dpo" / "adapter")
    told: list[TrainEvent] = []
    assert run(spec, told.append).adapter_id == golden.result.adapter_id
    assert told == []
    assert run(spec, told.append).adapter_id == golden.result.adapter_id


def test_a_torn_checkpoint_is_removed_and_the_one_before_it_taken(
    golden: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "sft"
    shutil.copytree(golden.spec.work_folder / "sft", folder)
    for torn, step in (("9", 6), ("6", None)):
        state = folder / f"checkpoint-{torn}" / "trainer_state.json"
        state.write_bytes(state.read_bytes()[:40])
        found = newest_checkpoint(folder)
        assert (found.path.name if found else None) == (f"checkpoint-{step}" if step else None)
        assert not state.exists()


def test_the_champion_is_continued_and_comes_out_different(
    golden: Trained, spec: TrainSpec
) -> None:
    recipe = RECIPE.model_copy(
        update={"start_from": "champion", "sft": RECIPE.sft, "dpo": None, "seed": 8}
    )
    assert recipe.sft is not None
    gentle = recipe.model_copy(update={"sft": SftSection(learning_rate=1e-4, epochs=1)})
    parent = golden.result.adapter_id
    path = str(golden.spec.adapter_folder)
    told: list[TrainEvent] = []
    continued = changed(spec, training=gentle, parent=parent, parent_path=path)
    result = run(continued, told.append)
    assert result.adapter_id != parent
    assert isinstance(told[0], TrainProgress)
    assert told[0].loss is not None
    from_base = golden.events[0]
    assert isinstance(from_base, TrainProgress)
    assert from_base.loss is not None
    assert told[0].loss < from_base.loss / 2


def test_early_stopping_keeps_the_best_epoch(spec: TrainSpec, tmp_path: Path) -> None:
    """Validation wants another answer than training: learning makes it worse, sooner or later."""
    rows = examples(8)
    folder = tmp_path / "contradicting"
    folder.mkdir()
    for split, answer in (("train", "aaaaaaaa"), ("validation", "bbbbbbbb")):
        answered = [{**row, "completion": chat(("assistant", answer))} for row in rows]
        write_parquet(folder / f"sft-{split}.parquet", answered)
    sft = SftSection(learning_rate=1e-2, epochs=12, batch_size=4, early_stopping_patience=1)
    recipe = RECIPE.model_copy(update={"sft": sft, "dpo": None})
    wrecked = changed(spec, training=recipe, snapshot_path=str(folder))
    told: list[TrainEvent] = []
    result = run(wrecked, told.append)
    losses = [
        event.eval_loss
        for event in told
        if isinstance(event, TrainProgress) and event.eval_loss is not None
    ]
    assert len(losses) < 12
    assert result.metrics["sft/best_eval_loss"] == min(losses) < losses[-1]
    best = newest_checkpoint(wrecked.work_folder / "sft")
    assert best is not None
    assert best.is_last
    assert best.best != best.path
    kept = (wrecked.adapter_folder / WEIGHTS_FILE).read_bytes()
    assert kept == (best.best / WEIGHTS_FILE).read_bytes()
    wrecked.discard_result()
    shutil.rmtree(wrecked.work_folder / "sft" / "adapter")
    told.clear()
    assert run(wrecked, told.append).adapter_id == result.adapter_id
    assert told == []


def test_a_loss_that_is_not_a_number_stops_the_run(spec: TrainSpec) -> None:
    sft = SftSection(learning_rate=1e30, epochs=3, batch_size=4, warmup_share=0)
    broken = changed(spec, training=RECIPE.model_copy(update={"sft": sft, "dpo": None}))
    with pytest.raises(TrainingError, match=r"sft: (loss|grad_norm) is (nan|inf) at step \d"):
        run(broken, quiet)
    assert broken.read_result() is None


def test_a_recipe_whose_rows_are_missing_trains_the_phase_that_has_some(
    spec: TrainSpec, snapshot_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "only-dpo"
    folder.mkdir()
    shutil.copy(snapshot_folder / "dpo-train.parquet", folder)
    dpo = DpoSection(learning_rate=1e-3, batch_size=8, loss=("ipo",))
    training = RECIPE.model_copy(update={"dpo": dpo})
    result = run(changed(spec, training=training, snapshot_path=str(folder)), quiet)
    assert {name.split("/")[0] for name in result.metrics} == {"dpo", "delta_norm", "seconds"}


def test_a_snapshot_with_no_rows_at_all_is_an_error(spec: TrainSpec, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no training rows for any phase"):
        run(spec.model_copy(update={"snapshot_path": str(tmp_path)}), quiet)


def test_a_folder_another_worker_holds_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flywheel.train.worker.LOCK_WAIT_S", 0.0)
    with (tmp_path / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with _lock(tmp_path / "lock") as is_ours:
            assert not is_ours
    with _lock(tmp_path / "lock") as is_ours:
        assert is_ours
    assert EXIT_LOCKED == os.EX_TEMPFAIL


def test_events_survive_a_line_of_json_and_noise_is_none() -> None:
    from flywheel.train.events import read_event

    failure = TrainFailure(message="a\nb")
    assert read_event(failure.model_dump_json()) == failure
    progress = TrainProgress(phase="sft", step=1, total_steps=2, epoch=0.5, loss=math.pi)
    assert read_event(progress.model_dump_json(exclude_none=True)) == progress
    assert read_event("Launching training on 2 GPUs.") is None
    assert read_event(json.dumps({"event": "other"})) is None
