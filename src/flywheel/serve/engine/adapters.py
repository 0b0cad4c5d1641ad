"""The adapters an engine serves: loaded by name, verified, kept in memory, let go to make room.

A name stands for one set of weights for as long as the engine runs: other bytes under it are
refused, and a name that ends in `-<12 hex digits>` must match the weights' own sha256. Only folders
inside the allowed one are read, links resolved, and only safetensors.

At most `max_resident` adapters are in memory. When one more is needed, the one unused for longest
goes, never one in use or pinned; it stays registered, and the next request for it reads it again.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from flywheel.adapters import CONFIG_FILE, WEIGHTS_FILE, AdapterFolder, inspect_adapter
from flywheel.errors import (
    AdapterError,
    AdapterNotFoundError,
    DuplicateAdapterError,
    EngineBusyError,
    UnknownModelError,
)
from flywheel.serve.engine.lora import LoraWeights, read_lora
from flywheel.serve.engine.meter import Meter
from flywheel.serve.engine.model import PackedModel

log = logging.getLogger(__name__)

_NAME = re.compile(r"[\w.:/-]{1,200}")
_CONTENT_NAME = re.compile(r"[\w.-]*-(?P<sha>[0-9a-f]{12})")


@dataclass(slots=True)
class Registered:
    """An adapter by name; `weights` is None while it is not in memory."""

    name: str
    path: Path
    adapter_id: str
    created: int
    """Unix seconds of its first load."""
    weights: LoraWeights | None = None
    is_pinned: bool = False
    users: int = 0
    """Requests being answered by it."""
    last_used: float = 0.0


class AdapterShelf:
    """All adapters of one engine. Used from one event loop; files are read in a thread."""

    def __init__(
        self, folder: Path, *, base_model: str, model: PackedModel, max_resident: int, meter: Meter
    ) -> None:
        self.folder = folder
        self._base_model, self._model = base_model, model
        self._max_resident, self._meter = max_resident, meter
        self._registered: dict[str, Registered] = {}
        self._known: dict[str, str] = {}
        """Every name ever used and the sha256 it stands for, unloaded ones too."""
        self._unloaded: set[str] = set()
        self._lock = asyncio.Lock()

    @property
    def registered(self) -> list[Registered]:
        """What `GET /v1/models` lists, in order of loading."""
        return list(self._registered.values())

    @property
    def resident(self) -> int:
        """Adapters in memory."""
        return sum(one.weights is not None for one in self._registered.values())

    async def load(self, name: str, path: str, *, pinned: bool = False) -> None:
        """Registers an adapter and reads it into memory, while everything else goes on.

        Raises:
            DuplicateAdapterError: the name is taken.
            AdapterNotFoundError: there is no such folder.
            AdapterError: it must not be served, or not under this name.
            EngineBusyError: as many as fit are in use or pinned.
        """
        async with self._lock:
            if name in self._registered or name == self._base_model:
                raise DuplicateAdapterError(name, "this name is loaded already")
            if not _NAME.fullmatch(name):
                raise AdapterError(path, f"{name!r} is no name: letters, digits and . : / _ - only")
            folder = self._inside(path)
            found, weights = await self._read(name, folder)
            self._make_room()
            self._registered[name] = Registered(
                name, folder, found.adapter_id, int(time.time()), weights, pinned
            )
            self._registered[name].last_used = time.monotonic()
            self._unloaded.discard(name)

    async def unload(self, name: str) -> None:
        """Forgets an adapter. Answers it is writing now are finished with it.

        Raises:
            AdapterNotFoundError: no adapter has this name.
        """
        async with self._lock:
            if self._registered.pop(name, None) is None:
                raise AdapterNotFoundError(name, "no adapter of this name is loaded")
            self._unloaded.add(name)
            log.info("unloaded adapter %s", name)

    def check(self, name: str) -> None:
        """Refuses a name nobody could serve, before anything else is done for the request.

        Raises:
            UnknownModelError: it is not the base, not registered, and not in the store.
        """
        if name != self._base_model and name not in self._registered:
            self._in_store(name)

    @contextlib.asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[LoraWeights | None]:
        """The weights behind a model name for the length of one request; None is the base.

        Raises:
            UnknownModelError: nobody serves this name.
        """
        if name == self._base_model:
            yield None
            return
        one = self._registered.get(name)
        if one is None or one.weights is None:
            one = await self._bring(name)
        weights = one.weights
        one.users += 1
        one.last_used = time.monotonic()
        try:
            yield weights
        finally:
            one.users -= 1

    async def _bring(self, name: str) -> Registered:
        """Reads a registered adapter again, or one that lies in the store under its own name.

        The latter makes a restarted engine answer for what it served before, without anybody's
        help: the name carries the sha256 of the weights, so the folder proves itself.
        """
        async with self._lock:
            one = self._registered.get(name)
            if one is not None and one.weights is not None:
                return one
            if one is None:
                one = self._in_store(name)
            found, weights = await self._read(name, one.path)
            self._make_room()
            one.adapter_id, one.weights, one.last_used = found.adapter_id, weights, time.monotonic()
            self._registered[name] = one
            return one

    def _in_store(self, name: str) -> Registered:
        unknown = UnknownModelError(name, [self._base_model, *self._registered])
        if name in self._unloaded or not _CONTENT_NAME.fullmatch(name):
            raise unknown
        try:
            folder = self._inside(name)
        except AdapterError as error:
            raise unknown from error
        return Registered(name, folder, "", int(time.time()))

    async def _read(self, name: str, folder: Path) -> tuple[AdapterFolder, LoraWeights]:
        started = time.monotonic()
        found, weights = await asyncio.to_thread(self._verify_and_read, folder)
        match = _CONTENT_NAME.fullmatch(name)
        expected = match["sha"] if match else self._known.get(name, found.adapter_id)
        if not found.adapter_id.startswith(expected):
            raise AdapterError(
                str(folder),
                f"its weights hash to {found.adapter_id[:12]}, and the name {name} stands for "
                f"{expected[:12]}: a name is never given to other weights. Load it as another one",
            )
        self._known[name] = found.adapter_id
        self._meter.adapter_loads += 1
        log.info("loaded adapter %s from %s in %.2f s", name, folder, time.monotonic() - started)
        return found, weights

    def _verify_and_read(self, folder: Path) -> tuple[AdapterFolder, LoraWeights]:
        """In a thread of its own. The file read is the file that was verified."""
        before = _stamp(folder)
        found = inspect_adapter(folder, base_model=self._base_model)
        weights = read_lora(found, self._model.sites, like=self._model.like)
        if _stamp(folder) != before:
            raise AdapterError(str(folder), "it was changed while it was being read: load it again")
        return found, weights

    def _inside(self, path: str) -> Path:
        """The folder a path means, if it is in the allowed one with all that is read from it."""
        root = self.folder.resolve()
        folder = (root / path).resolve()
        files = (folder, folder / CONFIG_FILE, folder / WEIGHTS_FILE)
        if folder == root or not all(file.resolve().is_relative_to(root) for file in files):
            raise AdapterError(path, f"only folders inside {root} may be loaded (--adapter-dir)")
        if not folder.is_dir():
            raise AdapterNotFoundError(path, "there is no such folder")
        return folder

    def _make_room(self) -> None:
        """Lets the adapter unused for longest go from memory, if there is no room for another."""
        if self.resident < self._max_resident:
            return
        idle = [
            one
            for one in self._registered.values()
            if one.weights is not None and not one.users and not one.is_pinned
        ]
        if not idle:
            raise EngineBusyError(
                f"all {self._max_resident} adapters in memory are in use or pinned "
                "(--max-adapters)",
                status=503,
            )
        oldest = min(idle, key=lambda one: one.last_used)
        oldest.weights = None
        self._meter.adapter_evictions += 1
        log.info("adapter %s left memory; its next request reads it again", oldest.name)


def _stamp(folder: Path) -> tuple[tuple[int, int, int] | None, ...]:
    """Identity, size and time of the files that are read; None where one is absent."""
    stamps: list[tuple[int, int, int] | None] = []
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        try:
            stat = (folder / name).stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(stamps)
