"""`train`: runs the worker, shows and tracks what it tells, and makes its folder an Adapter.

Input: a TrainSpec. Output: an Adapter, and `manifest.json` in the run's folder, written last: its
existence means complete, and training the same spec again returns what it says.

The worker knows nothing of MLflow: this process, idle meanwhile, logs what the worker tells, so
that a tracking server that is slow or gone for a while does not hold up the training.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from flywheel.adapters import CONFIG_FILE, inspect_adapter, served_name
from flywheel.errors import (
    AdapterError,
    TrainingError,
    TrainingInterruptedError,
    UpstreamUnavailableError,
)
from flywheel.records import Adapter, utcnow
from flywheel.tracking import TrackedRun, Tracker
from flywheel.train.events import EXIT_LOCKED, TrainProgress, read_event
from flywheel.train.launch import count_gpus, launch_command, worker_environment
from flywheel.train.spec import TrainResult, TrainSpec, spec_params

MANIFEST_FILE = "manifest.json"
SPEC_FILE = "spec.json"
LOG_FILE = "worker.log"
RUN_FILE = "run_id"
"""The MLflow run, so that a resumed training goes on in it."""
FLUSH_INTERVAL_S = 1.0
TAIL_LINES = 3
TERMINATION_WAIT_S = 10.0
_CHILD_KILLED = re.compile(r"exitcode\s*: -\d+")
"""How `accelerate launch` reports that a signal ended one of its processes."""

OnProgress = Callable[[TrainProgress], None]


def train(spec: TrainSpec, *, on_progress: OnProgress | None = None) -> Adapter:
    """Trains an adapter in a process of its own; resumes what was interrupted.

    Args:
        spec: from `plan`.
        on_progress: called after each step and each evaluation.

    Returns:
        The adapter in the run's folder. It is not in the lake yet.

    Raises:
        TrainingInterruptedError: the process was killed; the same call resumes.
        TrainingError: a guard tripped, or the process failed.
        UpstreamUnavailableError: MLflow did not answer at the beginning or at the end.
    """
    finished = read_manifest(spec)
    if finished is not None:
        return finished
    spec.folder.mkdir(parents=True, exist_ok=True)
    _write(spec.folder / SPEC_FILE, spec.model_dump_json(indent=2))
    adapter = _train_tracked(spec, on_progress or (lambda progress: None))
    _write(spec.folder / MANIFEST_FILE, adapter.model_dump_json(indent=2))
    shutil.rmtree(spec.work_folder, ignore_errors=True)
    return adapter


def read_manifest(spec: TrainSpec) -> Adapter | None:
    """The finished adapter, if its files are still those that were trained; else None."""
    try:
        text = (spec.folder / MANIFEST_FILE).read_bytes()
        adapter = Adapter.model_validate_json(text)
        found = inspect_adapter(spec.adapter_folder, base_model=spec.base_model)
    except (OSError, ValidationError, AdapterError):
        return None
    return adapter if found.adapter_id == adapter.adapter_id else None


def _train_tracked(spec: TrainSpec, on_progress: OnProgress) -> Adapter:
    result = _read_result(spec)
    # Started before MLflow is imported: the two take their seconds side by side.
    with _worker(spec, is_needed=result is None) as process:
        remembered = spec.folder / RUN_FILE
        known = remembered.read_text(encoding="utf-8") if remembered.is_file() else None
        tags = {"stage": "train", "snapshot_id": spec.snapshot_id, "train_key": spec.key}
        tracker = Tracker(spec.tracking_uri)
        with tracker.run(spec.workload, f"train {spec.key}", run_id=known, tags=tags) as run:
            _write(remembered, run.run_id)
            run.log_params(spec_params(spec))
            if process is not None:
                _follow(spec, process, run, on_progress)
                result = _read_result(spec)
            if result is None:
                raise TrainingError(f"the worker left no result in {spec.folder}")
            run.log_metrics(result.metrics)
            run.log_file(spec.folder / SPEC_FILE)
            run.log_file(spec.adapter_folder / CONFIG_FILE)
            return _to_adapter(spec, result, run.run_id)


def _read_result(spec: TrainSpec) -> TrainResult | None:
    """A result whose adapter is there; one that lost its adapter is trained again."""
    result = spec.read_result()
    try:
        found = inspect_adapter(spec.adapter_folder, base_model=spec.base_model)
    except AdapterError:
        found = None
    if result is not None and (found is None or found.adapter_id != result.adapter_id):
        spec.discard_result()
        return None
    return result


@contextmanager
def _worker(spec: TrainSpec, *, is_needed: bool) -> Iterator[subprocess.Popen[str] | None]:
    """The worker process; ended when the body ends before it does."""
    if not is_needed:
        yield None
        return
    gpus = count_gpus()
    with (spec.folder / LOG_FILE).open("ab") as log:
        process = subprocess.Popen(
            launch_command(spec.folder / SPEC_FILE, spec.training, gpus=gpus),
            env=worker_environment(gpus=gpus),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            # Ctrl-C is for this process; it ends the worker itself.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Asks first: a launcher passes it on to its processes, which are not of its group."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(TERMINATION_WAIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _follow(
    spec: TrainSpec, process: subprocess.Popen[str], run: TrackedRun, on_progress: OnProgress
) -> None:
    """Passes on what the worker tells until it ends.

    Raises:
        TrainingInterruptedError: it was killed, or another worker holds the folder.
        TrainingError: it failed.
    """
    assert process.stdout is not None
    metrics, failure = _MetricLog(run), None
    for line in process.stdout:
        event = read_event(line)
        if isinstance(event, TrainProgress):
            on_progress(event)
            metrics.add(event)
        elif event is not None:
            failure = event.message
    code = process.wait()
    if code == 0:
        metrics.flush()
        return
    metrics.try_flush()
    if failure is not None:
        raise TrainingError(failure)
    log = spec.folder / LOG_FILE
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    tail = " / ".join([line.strip() for line in text.splitlines() if line.strip()][-TAIL_LINES:])
    if code == EXIT_LOCKED:
        raise TrainingInterruptedError(str(spec.folder), code, "another process trains there")
    if code < 0 or _CHILD_KILLED.search(text):
        raise TrainingInterruptedError(str(spec.folder), code, tail)
    raise TrainingError(f"training failed (exit {code}): {tail}. The whole of it: {log}")


class _MetricLog:
    """Progress on its way to MLflow, at most once a second; kept while MLflow does not answer."""

    def __init__(self, run: TrackedRun) -> None:
        self._run = run
        self._waiting: deque[TrainProgress] = deque()
        self._flushed_at = time.monotonic()

    def add(self, progress: TrainProgress) -> None:
        self._waiting.append(progress)
        if time.monotonic() - self._flushed_at > FLUSH_INTERVAL_S:
            self.try_flush()

    def try_flush(self) -> None:
        try:
            self.flush()
        except UpstreamUnavailableError:
            self._flushed_at = time.monotonic()

    def flush(self) -> None:
        while self._waiting:
            progress = self._waiting[0]
            fields = progress.model_dump(
                include={"epoch", "loss", "eval_loss", "learning_rate", "tokens_per_second"},
                exclude_none=True,
            )
            named = {f"{progress.phase}/{name}": value for name, value in fields.items()}
            self._run.log_metrics(named, step=progress.step)
            self._waiting.popleft()
        self._flushed_at = time.monotonic()


def _to_adapter(spec: TrainSpec, result: TrainResult, run_id: str) -> Adapter:
    return Adapter(
        adapter_id=result.adapter_id,
        name=served_name(spec.workload, result.adapter_id),
        workload=spec.workload,
        created_at=utcnow(),
        base_model=spec.base_model,
        parent=spec.parent,
        snapshot_id=spec.snapshot_id,
        spec=spec.model_dump(mode="json"),
        rank=result.rank,
        target_modules=result.target_modules,
        size_bytes=result.size_bytes,
        path=str(spec.adapter_folder),
        run_id=run_id,
        metrics=result.metrics,
    )


def _write(path: Path, text: str) -> None:
    """Under another name first: a reader sees the whole file or none."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
