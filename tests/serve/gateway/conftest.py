from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.capture.tiny_disk import tiny_disk
from tests.serve.gateway.harness import RunningGateway
from tests.serve.gateway.upstream import ScriptedServer

__all__ = ["tiny_disk"]


@pytest.fixture
def upstream() -> Iterator[ScriptedServer]:
    server = ScriptedServer().start()
    yield server
    server.stop()


@pytest.fixture
def gateway(tmp_path: Path, upstream: ScriptedServer) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path, [upstream.url], subject_secret="a-secret") as running:
        yield running
