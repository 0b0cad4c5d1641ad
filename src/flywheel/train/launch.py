"""How the worker is started: by itself, or by `accelerate launch` on every GPU of this machine."""

import os
import re
import sys
from pathlib import Path

from flywheel.workload import TrainingSection

WORKER = "flywheel.train.worker"
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
"""glibc: keep what a step frees for the next one. By default each large tensor is mapped, zeroed
and unmapped again, 60,000 page faults a step; without, an example costs a sixth less CPU time and
the process is no larger (docs/training.md)."""


def count_gpus() -> int:
    """NVIDIA devices this process may use, without importing torch to ask."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len([path for path in Path("/dev").glob("nvidia*") if re.search(r"\d$", path.name)])


def process_count(training: TrainingSection, *, gpus: int) -> int:
    """The most processes that share every phase's batch evenly: its size stays the declared one."""
    sections = [section for section in (training.sft, training.dpo) if section is not None]
    shared = [
        count
        for count in range(1, max(gpus, 1) + 1)
        if all(section.batch_size % count == 0 for section in sections)
    ]
    return max(shared)


def launch_command(
    spec_path: Path, training: TrainingSection, *, gpus: int, cpu_processes: int = 1
) -> list[str]:
    """The command that trains a spec.

    Args:
        spec_path: the spec's JSON.
        training: its recipe.
        gpus: devices of this machine.
        cpu_processes: with no GPU, processes that train together: how the path is tested.
    """
    count = process_count(training, gpus=gpus or cpu_processes)
    if count == 1:
        return [sys.executable, "-m", WORKER, str(spec_path)]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1"]
    device = ["--multi_gpu"] if gpus else ["--cpu"]
    options = ["--num_processes", str(count), "--mixed_precision", "no", "--dynamo_backend", "no"]
    return [*launcher, *device, *options, "-m", WORKER, str(spec_path)]


def worker_environment(*, gpus: int) -> dict[str, str]:
    """The worker's environment: this process's, and on a CPU what makes its memory cheaper."""
    return {**os.environ} if gpus else {**MALLOC, **os.environ}
