"""The training process: a spec in, an adapter folder out, killable at any moment.

Input: the path of a TrainSpec's JSON. Output: `<output_root>/<key>/adapter/` and `result.json`
beside it, written last; events as JSON lines on standard output and in `training.jsonl`; what
libraries print goes to `worker.log`.
Command: `python -m flywheel.train.worker SPEC.json`, which `flywheel train` runs for you.

Killed and run again it resumes from the last epoch, and on the CPU leaves the bytes it would have
left. It reaches no network.
"""

import fcntl
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flywheel.errors import FlywheelError, TrainingError
from flywheel.train.events import (
    EXIT_FAILED,
    EXIT_LOCKED,
    EXIT_ORPHANED,
    Emit,
    TrainEvent,
    TrainFailure,
)
from flywheel.train.guards import check_parent, check_trained, delta_norm
from flywheel.train.phases import Session, train_phase
from flywheel.train.policy import find_hardware, load_policy, load_tokenizer, save_policy
from flywheel.train.spec import PHASES, TrainResult, TrainSpec

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "DO_NOT_TRACK": "1",
}
"""Set before a Hugging Face library is imported: no hub, no telemetry, no bars."""
LOCK_WAIT_S = 20.0
"""A worker whose parent was killed ends soon after; its successor waits for that."""
PARENT_CHECK_S = 1.0


def run(spec: TrainSpec, emit: Emit) -> TrainResult:
    """Trains what the spec says, or what of it is missing.

    Raises:
        TrainingError: a guard tripped.
        BaseModelError: the base cannot be read.
    """
    finished = spec.read_result()
    if finished is not None:
        return finished
    started = time.monotonic()
    trained = train_phases(spec, emit)
    found = check_trained(spec, trained)
    metrics = {**_phase_metrics(spec), "delta_norm": delta_norm(trained, found)}
    result = TrainResult(
        adapter_id=found.adapter_id,
        rank=found.rank,
        target_modules=found.target_modules,
        size_bytes=found.size_bytes,
        metrics={**metrics, "seconds": time.monotonic() - started},
    )
    shutil.rmtree(spec.adapter_folder, ignore_errors=True)
    shutil.copytree(trained, spec.adapter_folder)
    spec.write_result(result)
    return result


def train_phases(spec: TrainSpec, emit: Emit) -> Path:
    """Trains the phases in order, each on the weights of the one before.

    Every process of a distributed run calls this; the main one writes.

    Returns:
        The last phase's adapter.

    Raises:
        TrainingError: a guard tripped, or the snapshot has no rows for any phase.
    """
    incoming = check_parent(spec)
    session, policy, trained = None, None, None
    for kind in PHASES:
        if getattr(spec.training, kind) is None:
            continue
        adapter = spec.work_folder / kind / "adapter"
        if not adapter.is_dir():
            session = session or _open_session(spec, emit)
            policy = policy or load_policy(spec, incoming, session.hardware)
            metrics = train_phase(session, kind, policy)
            if not metrics:
                continue
            if is_main_process():
                (adapter.parent / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
                save_policy(policy, adapter, base_model=spec.base_model)
        incoming = trained = adapter
    if trained is None:
        raise TrainingError(f"{spec.snapshot_path} has no training rows for any phase")
    return trained


def _open_session(spec: TrainSpec, emit: Emit) -> Session:
    return Session(spec, load_tokenizer(spec), find_hardware(), emit)


def _phase_metrics(spec: TrainSpec) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for file in sorted(spec.work_folder.glob("*/metrics.json")):
        metrics |= json.loads(file.read_text(encoding="utf-8"))
    return metrics


def is_main_process() -> bool:
    """Whether this process writes and speaks; the launcher sets the variable."""
    return int(os.environ.get("RANK", "0")) == 0


def main(spec_path: Path) -> int:
    """Runs one worker process.

    Returns:
        The exit code: 0, EXIT_FAILED after a failure it has told, EXIT_LOCKED.
    """
    os.environ.update(ENVIRONMENT)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    spec = TrainSpec.model_validate_json(spec_path.read_bytes())
    emit = _claim_stdout(spec)
    try:
        if not is_main_process():
            train_phases(spec, emit)
            return 0
        with _lock(spec.folder / "lock") as is_ours:
            if not is_ours:
                return EXIT_LOCKED
            run(spec, emit)
    except FlywheelError as error:
        emit(TrainFailure(message=str(error)))
        return EXIT_FAILED
    return 0


def _end_with_parent(parent: int) -> None:
    """Ends an orphan: whoever started it may be retrying already, and checkpoints are on disk."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(EXIT_ORPHANED)


def _claim_stdout(spec: TrainSpec) -> Emit:
    """Keeps standard output for events, and sends whatever else is printed to `worker.log`."""
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    log = os.open(spec.folder / "worker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)

    def emit(event: TrainEvent) -> None:
        if is_main_process():
            line = event.model_dump_json(exclude_none=True) + "\n"
            with (spec.folder / "training.jsonl").open("a", encoding="utf-8") as history:
                history.write(line)
            events.write(line)

    return emit


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Holds the run's folder; False when another worker keeps it. The kernel frees it at a kill."""
    with path.open("w") as file:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    yield False
                    return
                time.sleep(0.2)
        yield True


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
