"""Shared fixtures. The suite is offline by construction: a socket to anywhere else is an error."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says more about the machine's other work than about the code.
hypothesis.settings.register_profile(
    "flywheel", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("flywheel")

# Before anything imports torch or a Hugging Face library: two cores are shared by several
# processes, and nothing may look for a hub or report home.
os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
    }
)

# rich keeps the width it finds when it is imported: not one that some test has set for itself.
os.environ.pop("COLUMNS", None)
import flywheel.cli.common  # noqa: E402, F401

LOOPBACK = {"127.0.0.1", "::1", "localhost"}
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


class OutsideSocketError(Exception):
    """A test tried to leave this machine."""


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses every connection but to loopback and Unix sockets."""
    real_connect, real_connect_ex = socket.socket.connect, socket.socket.connect_ex

    def check(sock: socket.socket, address: object) -> None:
        outside = (
            sock.family in (socket.AF_INET, socket.AF_INET6)
            and isinstance(address, tuple)
            and address[0] not in LOOPBACK
        )
        if outside:
            raise OutsideSocketError(f"a test tried to connect to {address}")

    def connect(sock: socket.socket, address: object) -> None:
        check(sock, address)
        real_connect(sock, address)  # type: ignore[arg-type]

    def connect_ex(sock: socket.socket, address: object) -> int:
        check(sock, address)
        return real_connect_ex(sock, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)


@pytest.fixture(autouse=True)
def _no_deployment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own FLYWHEEL_* and PREFECT_API_URL must not reach a test."""
    for name in list(os.environ):
        if name.startswith("FLYWHEEL_") or name == "PREFECT_API_URL":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 0.1 M parameters with a real tokenizer, built once."""
    from flywheel.testing import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def shared_data() -> Iterator[Path]:
    """Real data beside the checkout; absent in most places, and then the test says so."""
    if not SHARED_DATA.is_dir():
        pytest.skip("../shared/data is not beside this checkout")
    yield SHARED_DATA


@pytest.fixture(scope="session")
def _empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's SQLite file after all of its migrations, which take seconds: made once."""
    from flywheel.tracking import Tracker

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Tracker(f"sqlite:///{path}").aliases("none")
    return path


@pytest.fixture
def tracking_uri(tmp_path: Path, _empty_mlflow: Path) -> str:
    """A real MLflow of this test's own, in a copy of the migrated SQLite file."""
    path = tmp_path / "mlflow" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(_empty_mlflow, path)
    return f"sqlite:///{path}"


@pytest.fixture
def mlflow_server(tmp_path: Path, _empty_mlflow: Path) -> Iterator[str]:
    """A real `mlflow server`; it takes half a minute to come up on a busy machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    database = shutil.copy(_empty_mlflow, tmp_path / "server.db")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{database}"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True
        )
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=1):
                    break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)
