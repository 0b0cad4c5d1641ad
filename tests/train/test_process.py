import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from flywheel.adapters import WEIGHTS_FILE
from flywheel.errors import TrainingError, TrainingInterruptedError
from flywheel.records import Adapter
from flywheel.tracking import Tracker
from flywheel.train import TrainProgress, TrainSpec, train
from flywheel.train.process import MANIFEST_FILE, read_manifest
from tests.train.conftest import STEPS, Trained


def workers_of(spec: TrainSpec) -> list[int]:
    """Processes of this machine that train this spec, read off /proc."""
    wanted = str(spec.folder / "spec.json").encode()
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if _holds(path, wanted)
    ]


def _holds(path: Path, wanted: bytes) -> bool:
    try:
        return wanted in path.read_bytes().split(b"\0")
    except OSError:
        return False


def test_a_worker_killed_with_sigkill_is_resumed_and_leaves_the_same_bytes(
    golden: Trained, tmp_path: Path, tracking_uri: str
) -> None:
    """The contract whole: kill -9 in the second epoch, the same call again, one MLflow run."""
    spec = golden.spec.model_copy(
        update={"output_root": str(tmp_path), "tracking_uri": tracking_uri}
    )

    def kill(progress: TrainProgress) -> None:
        if progress.phase == "sft" and progress.step == 5:
            for pid in workers_of(spec):
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(TrainingInterruptedError, match=r"exit -9.*resumes from its last"):
        train(spec, on_progress=kill)
    assert workers_of(spec) == []
    assert read_manifest(spec) is None
    told: list[TrainProgress] = []
    adapter = train(spec, on_progress=told.append)
    assert adapter.adapter_id == golden.result.adapter_id
    assert told[0].step == 4
    assert not spec.work_folder.exists()
    assert train(spec) == adapter
    check_tracked(spec, adapter)


def check_tracked(spec: TrainSpec, adapter: Adapter) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(spec.tracking_uri)
    experiment = client.get_experiment_by_name("triage")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.run_id for run in runs] == [adapter.run_id]
    assert runs[0].info.status == "FINISHED"
    assert runs[0].data.params["training.sft.epochs"] == "3"
    assert runs[0].data.metrics["dpo/steps"] == 6
    steps = {point.step for point in client.get_metric_history(str(adapter.run_id), "sft/loss")}
    assert steps >= set(range(1, 10))
    assert {file.path for file in client.list_artifacts(str(adapter.run_id))} >= {
        "spec.json",
        "adapter_config.json",
    }
    assert Tracker(spec.tracking_uri).register_adapter(adapter) == 1


def test_a_finished_run_is_read_and_a_damaged_one_is_not(golden: Trained, tmp_path: Path) -> None:
    """What `train` finds of an earlier run; nothing is started here."""
    spec = golden.spec.model_copy(update={"output_root": str(tmp_path)})
    shutil.copytree(golden.spec.adapter_folder, spec.adapter_folder)
    record = {
        **golden.result.model_dump(exclude={"metrics"}),
        "name": "triage-x",
        "workload": "triage",
        "created_at": "2026-01-02T00:00:00Z",
        "base_model": spec.base_model,
        "spec": {},
        "path": str(spec.adapter_folder),
    }
    (spec.folder / MANIFEST_FILE).write_bytes(TypeAdapter(dict).dump_json(record))
    found = train(spec)
    assert found.adapter_id == golden.result.adapter_id
    weights = spec.adapter_folder / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-1])
    assert read_manifest(spec) is None


def test_a_guard_that_trips_in_the_worker_is_told_in_its_own_words(
    spec: TrainSpec, tmp_path: Path, tracking_uri: str
) -> None:
    lost = spec.model_copy(
        update={
            "parent": "0" * 64,
            "parent_path": str(tmp_path / "gone"),
            "tracking_uri": tracking_uri,
        }
    )
    with pytest.raises(TrainingError, match="the parent cannot be continued: .* no such folder"):
        train(lost)
    assert not (lost.folder / MANIFEST_FILE).exists()


def test_a_worker_that_crashes_shows_the_end_of_its_log(spec: TrainSpec, tracking_uri: str) -> None:
    """A spec of a version this worker does not know stands for any bug."""
    newer = spec.model_copy(update={"version": 2, "tracking_uri": tracking_uri})
    with pytest.raises(TrainingError, match=r"training failed \(exit 1\).*worker\.log"):
        train(newer)


def test_a_worker_ends_soon_after_whoever_started_it(spec: TrainSpec) -> None:
    """A night that is killed must not leave a worker in the folder its successor resumes in."""
    from flywheel.train.launch import launch_command

    path = spec.folder / "spec.json"
    path.write_text(spec.model_dump_json(), encoding="utf-8")
    command = shlex.join(launch_command(path, spec.training, gpus=0))
    shell = subprocess.Popen(["sh", "-c", f"{command} > /dev/null & wait"])
    try:
        wait_until(lambda: len(workers_of(spec)) == 1)
    finally:
        shell.kill()
        shell.wait()
    wait_until(lambda: workers_of(spec) == [])
    assert workers_of(spec) == []


def wait_until(is_so: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_several_processes_train_together(golden: Trained, tmp_path: Path) -> None:
    """The path of several GPUs, on the CPU: accelerate launches two, gloo averages gradients."""
    from flywheel.adapters import inspect_adapter
    from flywheel.train.launch import launch_command

    spec = golden.spec.model_copy(update={"output_root": str(tmp_path)})
    spec.folder.mkdir()
    path = spec.folder / "spec.json"
    path.write_text(spec.model_dump_json(), encoding="utf-8")
    command = launch_command(path, spec.training, gpus=0, cpu_processes=2)
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, check=False)
    log = spec.folder / "worker.log"
    assert done.returncode == 0, log.read_text(encoding="utf-8")[-2000:]
    assert done.stdout.count('"loss"') == STEPS
    result = spec.read_result()
    assert result is not None
    found = inspect_adapter(spec.adapter_folder, base_model=spec.base_model)
    assert found.adapter_id == result.adapter_id
    assert result.metrics["sft/loss"] < 4
