"""A real engine on a tiny random model, cheap enough for any test that needs a model server.

    with tiny_engine(tiny_model, store) as served: …

The store is the adapter folder; `build_store` fills one with random adapters under their names.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from flywheel.adapters import inspect_adapter, served_name
from flywheel.serve.engine import Engine, EngineOptions, running
from flywheel.testing import build_tiny_adapter

BASE = "tiny"


class Served(NamedTuple):
    """A running engine."""

    engine: Engine
    url: str
    store: Path


def build_store(store: Path, base: Path, seeds: Sequence[int]) -> list[str]:
    """Writes a random adapter per seed into a store, and returns their served names."""
    names = []
    for seed in seeds:
        draft = build_tiny_adapter(store / f"draft-{seed}", base, base_model=BASE, seed=seed)
        name = served_name("triage", inspect_adapter(draft).adapter_id)
        draft.rename(store / name)
        names.append(name)
    return names


def tiny_options(model: Path, store: Path, **changes: object) -> EngineOptions:
    """float32 on one thread, so that greedy answers can be compared token by token."""
    options = EngineOptions(
        model=str(model),
        cache=store.parent / "no-cache",
        adapter_dir=store,
        served_name=BASE,
        device="cpu",
        dtype="float32",
        threads=1,
        max_batch=6,
        max_queue=40,
        step_tokens=64,
    )
    return replace(options, **changes)  # type: ignore[arg-type]


@contextlib.contextmanager
def tiny_engine(model: Path, store: Path, **changes: object) -> Iterator[Served]:
    """Serves the tiny model on a free loopback port; `changes` are fields of EngineOptions."""
    store.mkdir(parents=True, exist_ok=True)
    with Engine(tiny_options(model, store, **changes)) as engine, running(engine) as url:
        yield Served(engine, url, store)
