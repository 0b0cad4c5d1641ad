"""What is in an adapter folder, and whether it may be served.

Input: a folder with `adapter_config.json` and `adapter_model.safetensors`, as PEFT writes it.
Output: an `AdapterFolder`, or an AdapterError that says why the folder must not be served.

The check reads the file as bytes, by the safetensors format (8 bytes of little-endian length, then
a JSON header, then tensors): it needs no torch, runs no code of the adapter's and takes tens of
milliseconds for 20 MB. It does not judge what the adapter says: that is the gate's work.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flywheel.errors import AdapterError, MissingExtraError
from flywheel.records import Finite, JsonObject, Record
from flywheel.workload import ServableRank

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"})
"""Files that may run code when they are loaded. One of them anywhere in the folder is a refusal."""

_EXPONENTS = {"F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}
"""Servable dtypes: the integer they are read as, and the exponent bits all set in NaN and Inf."""
_LORA_TENSOR = re.compile(r"^(?P<module>.+)\.lora_(?P<side>A|B)\.weight$")
_MAX_HEADER = 100_000_000
"""The format's own limit on the header, so that a corrupt length does not eat the memory."""


class AdapterFolder(Record):
    """What an adapter folder holds, once it has passed every check."""

    path: str
    adapter_id: str
    """sha256 over its tensors' names, dtypes, shapes and bytes, in hex."""
    base_model: str
    """The served id its config names."""
    rank: int
    alpha: Finite
    target_modules: tuple[str, ...]
    """Names of the layers that carry weights, sorted: `q_proj`, `v_proj`, …"""
    size_bytes: int
    """Of the weights file."""

    def served_name(self, workload: str) -> str:
        """The immutable name a model server knows it by."""
        return served_name(workload, self.adapter_id)


class _Config(BaseModel):
    """The fields of PEFT's adapter_config.json that decide whether a server can use it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    peft_type: str
    base_model_name_or_path: str = Field(min_length=1)
    r: int
    lora_alpha: Finite
    bias: str = "none"
    use_dora: bool = False
    modules_to_save: list[str] | None = None
    alpha_pattern: JsonObject = Field(default_factory=dict)


class _Tensor(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def served_name(workload: str, adapter_id: str) -> str:
    """`<workload>-<first 12 of the sha>`: one name for one set of weights, for ever."""
    return f"{workload}-{adapter_id[:12]}"


def inspect_adapter(path: Path, *, base_model: str | None = None) -> AdapterFolder:
    """Reads an adapter folder and checks that it can and may be served.

    Args:
        path: the folder.
        base_model: the served id it must have been trained on; not checked when absent.

    Raises:
        AdapterError: absent, truncated or corrupt, pickled, of another base, not LoRA, of a rank no
            server takes, with shapes that contradict the rank, or with NaN or Inf in the weights.
    """
    if not path.is_dir():
        raise AdapterError(str(path), "there is no such folder")
    config = _read_config(path, base_model)
    _refuse_pickles(path)
    weights = path / WEIGHTS_FILE
    if not weights.is_file():
        raise AdapterError(str(path), f"{WEIGHTS_FILE} is missing: train it again or copy it again")
    with weights.open("rb") as file:
        tensors = _read_header(path, file, weights.stat().st_size)
        modules = _check_shapes(path, tensors, config.r)
        adapter_id = _hash_tensors(path, file, tensors)
    return AdapterFolder(
        path=str(path),
        adapter_id=adapter_id,
        base_model=config.base_model_name_or_path,
        rank=config.r,
        alpha=config.lora_alpha,
        target_modules=modules,
        size_bytes=weights.stat().st_size,
    )


def _read_config(path: Path, base_model: str | None) -> _Config:
    file = path / CONFIG_FILE
    if not file.is_file():
        raise AdapterError(str(path), f"{CONFIG_FILE} is missing: this is not an adapter folder")
    try:
        config = _Config.model_validate_json(file.read_bytes())
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or CONFIG_FILE}: {problem['msg']}"
            for problem in error.errors()
        )
        raise AdapterError(str(path), f"{CONFIG_FILE} is not valid: {problems}") from error
    reason = _unservable(config, base_model)
    if reason:
        raise AdapterError(str(path), reason)
    return config


def _unservable(config: _Config, base_model: str | None) -> str | None:
    """Why no server could give right answers with this config; None when one can."""
    ranks = get_args(ServableRank)
    if config.peft_type != "LORA":
        return f"peft_type is {config.peft_type!r}; only LORA can be served"
    if base_model is not None and config.base_model_name_or_path != base_model:
        return f"it was trained on {config.base_model_name_or_path!r}, not on {base_model!r}"
    if config.r not in ranks:
        return f"rank {config.r} cannot be served; valid: {', '.join(map(str, ranks))}"
    if config.use_dora or config.bias != "none" or config.modules_to_save or config.alpha_pattern:
        return "DoRA, biases, modules_to_save and alpha_pattern cannot be served; plain LoRA can"
    return None


def _refuse_pickles(path: Path) -> None:
    found = sorted(file.name for file in path.rglob("*") if file.suffix.lower() in PICKLE_SUFFIXES)
    if found:
        raise AdapterError(
            str(path), f"{', '.join(found)} may run code when loaded; only safetensors is accepted"
        )


def _read_header(path: Path, file: BinaryIO, size: int) -> dict[str, _Tensor]:
    """The tensors by name, with absolute byte ranges that tile the file exactly."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise AdapterError(str(path), f"{WEIGHTS_FILE} is truncated: {size} bytes, in its header")
    if length > _MAX_HEADER:
        raise AdapterError(str(path), f"{WEIGHTS_FILE} has a header of {length} bytes: corrupt")
    begin = 8 + length
    try:
        header = json.loads(file.read(length))
        tensors = {
            name: _Tensor(
                dtype=str(entry["dtype"]),
                shape=tuple(int(side) for side in entry["shape"]),
                start=begin + int(entry["data_offsets"][0]),
                end=begin + int(entry["data_offsets"][1]),
            )
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise AdapterError(str(path), f"{WEIGHTS_FILE} has a corrupt header: {error!r}") from error
    _check_ranges(path, tensors, begin, size)
    return tensors


def _check_ranges(path: Path, tensors: Mapping[str, _Tensor], begin: int, size: int) -> None:
    position = begin
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.start):
        if tensor.start != position or tensor.end < tensor.start:
            raise AdapterError(str(path), f"{WEIGHTS_FILE} has a corrupt header: gaps or overlaps")
        position = tensor.end
    if position > size:
        raise AdapterError(
            str(path), f"{WEIGHTS_FILE} is truncated: {size} bytes where {position} were written"
        )
    if position < size:
        raise AdapterError(
            str(path), f"{WEIGHTS_FILE} has {size - position} bytes its header does not name"
        )


def _check_shapes(path: Path, tensors: Mapping[str, _Tensor], rank: int) -> tuple[str, ...]:
    """Every tensor is the A or B of a module, of the config's rank; returns the modules' names."""
    sides: dict[str, set[str]] = {}
    for name, tensor in tensors.items():
        match = _LORA_TENSOR.match(name)
        if match is None:
            raise AdapterError(str(path), f"tensor {name} is not a LoRA A or B and is not servable")
        if tensor.dtype not in _EXPONENTS:
            valid = ", ".join(_EXPONENTS)
            raise AdapterError(str(path), f"tensor {name} is {tensor.dtype}; valid: {valid}")
        axis = 0 if match["side"] == "A" else 1
        if len(tensor.shape) != 2 or min(tensor.shape) < 1 or tensor.shape[axis] != rank:
            raise AdapterError(
                str(path), f"tensor {name} has shape {tensor.shape}, which is not of rank {rank}"
            )
        width = 4 if tensor.dtype == "F32" else 2
        if tensor.end - tensor.start != tensor.shape[0] * tensor.shape[1] * width:
            raise AdapterError(str(path), f"tensor {name} has a size that is not its shape's")
        sides.setdefault(match["module"], set()).add(match["side"])
    lonely = sorted(module for module, found in sides.items() if found != {"A", "B"})
    if lonely or not sides:
        what = f"{lonely[0]} has no A and B" if lonely else f"{WEIGHTS_FILE} holds no tensors"
        raise AdapterError(str(path), what)
    return tuple(sorted({module.rsplit(".", 1)[-1] for module in sides}))


def _hash_tensors(path: Path, file: BinaryIO, tensors: Mapping[str, _Tensor]) -> str:
    """sha256 over the tensors in order of name, each checked for NaN and Inf on the way.

    The file's own order and metadata do not enter: the same weights have the same identity.
    """
    try:
        import numpy
    except ImportError as error:
        raise MissingExtraError("numpy", "models") from error
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        file.seek(tensor.start)
        data = file.read(tensor.end - tensor.start)
        dtype, exponent = _EXPONENTS[tensor.dtype]
        bits = numpy.frombuffer(data, dtype=dtype)
        if int((bits & exponent).max()) == exponent:
            raise AdapterError(str(path), f"tensor {name} has NaN or Inf in it")
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(data)
    return digest.hexdigest()
