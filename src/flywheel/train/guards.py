"""What must hold of an adapter before anybody hears of it.

Each guard stands for a failure that looked healthy while it ran: an empty optimizer, NaN filtered
out of the logs, a rank no server takes, a config that names the training machine's folder.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel.adapters import WEIGHTS_FILE, AdapterFolder, inspect_adapter
from flywheel.errors import AdapterError, TrainingError
from flywheel.train.spec import TrainSpec

if TYPE_CHECKING:
    import numpy


def check_parent(spec: TrainSpec) -> Path | None:
    """The parent's folder, once it is what the spec says; None when training starts from the base.

    Raises:
        TrainingError: the parent is damaged, other than recorded, or of another shape.
    """
    if spec.parent_path is None:
        return None
    try:
        parent = inspect_adapter(Path(spec.parent_path), base_model=spec.base_model)
    except AdapterError as error:
        raise TrainingError(f"the parent cannot be continued: {error}") from error
    lora = spec.training.lora
    if parent.adapter_id != spec.parent:
        raise TrainingError(
            f"the parent in {spec.parent_path} has other weights than were promoted: "
            f"{parent.adapter_id[:12]}, not {str(spec.parent)[:12]}"
        )
    if (parent.rank, parent.alpha) != (lora.rank, lora.alpha):
        raise TrainingError(
            f"the parent has rank {parent.rank} and alpha {parent.alpha:g}, training.lora "
            f"{lora.rank} and {lora.alpha:g}: make them equal, or set training.start_from to base"
        )
    return Path(spec.parent_path)


def check_trained(spec: TrainSpec, folder: Path) -> AdapterFolder:
    """Inspects a finished adapter as a server would, and that training changed it.

    Raises:
        TrainingError: it must not be served, or it is what training started from.
    """
    try:
        found = inspect_adapter(folder, base_model=spec.base_model)
    except AdapterError as error:
        raise TrainingError(f"training left an adapter nobody may serve: {error}") from error
    if found.adapter_id == spec.parent:
        raise TrainingError("training changed nothing: the adapter is byte for byte its parent")
    if delta_norm(folder, found) == 0:
        raise TrainingError("training changed nothing: the adapter adds zero to the base")
    return found


def delta_norm(folder: Path, found: AdapterFolder) -> float:
    """Frobenius norm of all that the adapter adds to the base, alpha / rank x B A.

    Comparable between nights: it grows when continuing from the champion drifts away from the base.
    It does not see rsLoRA's other scale: this project trains none.
    """
    from safetensors.numpy import load_file

    tensors: dict[str, numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.float32]]]
    tensors = load_file(folder / WEIGHTS_FILE)
    total = 0.0
    for name, a in tensors.items():
        if ".lora_A." in name:
            b = tensors[name.replace(".lora_A.", ".lora_B.")]
            # |BA|^2 = trace(B'B AA'): rank x rank products instead of one of the layer's size.
            total += float(((b.T @ b) * (a @ a.T)).sum())
    return found.alpha / found.rank * math.sqrt(max(total, 0.0))
