"""The adapter store: the one folder model servers load from, one immutable folder an adapter.

Input: an `Adapter` whose `path` is where training left it. Output: the same adapter with its `path`
in the store. What is in the store under an adapter's name is that adapter, complete and verified,
or it is not there at all: it is copied beside, checked, and renamed into place.
"""

import os
import shutil
import time
from pathlib import Path
from uuid import uuid4

from flywheel.adapters import AdapterFolder, inspect_adapter
from flywheel.errors import AdapterError
from flywheel.records import Adapter

ABANDONED_AFTER_S = 3600
"""A copy in progress that is older than this was left by a process that died."""


def store_adapter(adapter: Adapter, store: Path) -> Adapter:
    """Copies a verified adapter into the store under its served name; doing it again is harmless.

    Only the regular files at the top of the folder are copied: checkpoints stay where they are.

    Raises:
        AdapterError: the folder must not be served, or holds other weights than the adapter says.
    """
    final = store / adapter.name
    if not final.exists():
        verify_folder(Path(adapter.path), adapter)
        _sweep(store)
        _copy(Path(adapter.path), final, adapter)
    found = verify_folder(final, adapter)
    return adapter.model_copy(update={"path": str(final), "size_bytes": found.size_bytes})


def verify_folder(path: Path, adapter: Adapter) -> AdapterFolder:
    """Checks that a folder may be served and holds exactly this adapter.

    Raises:
        AdapterError: it may not, or does not.
    """
    found = inspect_adapter(path, base_model=adapter.base_model)
    if found.adapter_id != adapter.adapter_id:
        raise AdapterError(
            str(path),
            f"its weights hash to {found.adapter_id[:12]}, and {adapter.name} was asked for. "
            "Somebody changed them: remove the folder, then `flywheel train` makes it again",
        )
    return found


def _copy(source: Path, final: Path, adapter: Adapter) -> None:
    partial = final.with_name(f".{final.name}.{uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        for file in sorted(source.iterdir()):
            if file.is_file():
                _copy_durably(file, partial / file.name)
        verify_folder(partial, adapter)
        try:
            partial.rename(final)
        except OSError:
            # Somebody stored the same adapter meanwhile; what is there is verified by the caller.
            if not final.is_dir():
                raise
        _sync_folder(final.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy_durably(source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)
        writing.flush()
        os.fsync(writing.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(store: Path) -> None:
    """Removes what killed processes left; a copy still going on is younger."""
    for partial in store.glob(".*.partial"):
        if time.time() - partial.stat().st_mtime > ABANDONED_AFTER_S:
            shutil.rmtree(partial, ignore_errors=True)
