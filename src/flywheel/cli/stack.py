"""The servers of one deployment as child processes: engine, gateway, MLflow, Prefect.

Input: settings, workload files, ports. Output: running servers, a log file each in <home>/logs, and
<home>/deployment.json, which tells every other command with the same --home where they listen.
Command: `flywheel up`.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from flywheel.cli.tether import start_tethered
from flywheel.errors import ConfigError, UpstreamUnavailableError
from flywheel.settings import Settings
from flywheel.workload import Workload

STARTUP_S = 180
"""Longest wait for a server; a cold start on two busy cores was seen to take 40 s."""
SHUTDOWN_S = 20


@dataclass(frozen=True)
class Ports:
    """Loopback ports; 0 takes a free one."""

    gateway: int = 0
    admin: int = 0
    engine: int = 0
    mlflow: int = 0
    prefect: int = 0


@dataclass(frozen=True)
class Server:
    """One child process and how to tell that it answers."""

    name: str
    url: str
    """What a person opens, or a client calls."""
    ready_url: str
    command: tuple[str, ...]
    log: Path


class Stack:
    """Starts the servers together, waits until all answer, ends them together.

    Use it as a context manager. Each server runs in a process group of its own, so that a Ctrl-C in
    the terminal reaches only this process, which then ends them in order: the gateway first. When
    this process is killed, they end by themselves.
    """

    def __init__(
        self,
        settings: Settings,
        workloads: Sequence[Path],
        *,
        ports: Ports = Ports(),
        engine_options: Sequence[str] = (),
    ) -> None:
        if not workloads:
            raise ConfigError("flywheel up", ["at least one --workload is needed"])
        self.base_model = Workload.load(workloads[0]).base_model
        self._home = settings.root
        self._ports = Ports(**{k: v or free_port() for k, v in vars(ports).items()})
        self.settings = settings.model_copy(
            update={
                "home": self._home,
                "engine_urls": (self._url("engine"),),
                "gateway_url": self._url("gateway"),
                "gateway_admin_url": self._url("admin"),
                "mlflow_tracking_uri": self._url("mlflow"),
                "prefect_api_url": f"{self._url('prefect')}/api",
            }
        )
        self.environment = os.environ | {
            "FLYWHEEL_HOME": str(self._home),
            "FLYWHEEL_LAKE_URI": settings.lake_root,
            "FLYWHEEL_ENGINE_URLS": json.dumps(self.settings.engine_urls),
            "FLYWHEEL_GATEWAY_URL": self.settings.gateway_url,
            "FLYWHEEL_GATEWAY_ADMIN_URL": self.settings.gateway_admin_url,
            "FLYWHEEL_MLFLOW_TRACKING_URI": self.settings.tracking_uri,
            "PREFECT_HOME": str(self._home / "prefect"),
            "PREFECT_API_URL": self.settings.prefect_api_url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }
        self.servers = self._plan(workloads, engine_options)
        self._running: list[tuple[Server, subprocess.Popen[bytes]]] = []

    def _url(self, name: str) -> str:
        return f"http://127.0.0.1:{getattr(self._ports, name)}"

    def _plan(self, workloads: Sequence[Path], engine_options: Sequence[str]) -> tuple[Server, ...]:
        flywheel = (sys.executable, "-m", "flywheel.cli")
        workload_options = [part for path in workloads for part in ("--workload", str(path))]
        mlflow = self._home / "mlflow"
        commands = {
            "engine": (*flywheel, "engine", "--model", self.base_model, *engine_options),
            "gateway": (*flywheel, "gateway", *workload_options)
            + ("--admin-port", str(self._ports.admin)),
            "mlflow": (sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1")
            + ("--backend-store-uri", f"sqlite:///{mlflow / 'mlflow.db'}", "--workers", "1")
            + ("--artifacts-destination", (mlflow / "artifacts").as_uri()),
            "prefect": (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"),
        }
        ready = {
            "engine": "/readyz",
            "gateway": "/readyz",
            "mlflow": "/health",
            "prefect": "/api/health",
        }
        return tuple(
            Server(
                name,
                self._url(name),
                self._url(name) + ready[name],
                (*command, "--port", str(getattr(self._ports, name))),
                self._home / "logs" / f"{name}.log",
            )
            for name, command in commands.items()
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, on_ready: Callable[[Server, float], None] | None = None) -> None:
        """Starts all servers and waits until each answers.

        Args:
            on_ready: called with each server and the seconds it took.

        Raises:
            UpstreamUnavailableError: one ended or did not answer in time; all are stopped again.
        """
        for folder in ("logs", "mlflow", "prefect", "adapters", "spool"):
            (self._home / folder).mkdir(parents=True, exist_ok=True)
        self._make_admin_token()
        started = time.monotonic()
        try:
            for server in self.servers:
                process = start_tethered(server.command, env=self.environment, log=server.log)
                self._running.append((server, process))
            self._wait(started, on_ready)
        except BaseException:
            self.stop()
            raise
        self._write_deployment()

    def _wait(self, started: float, on_ready: Callable[[Server, float], None] | None) -> None:
        waiting = dict(self._running)
        while waiting:
            for server, process in list(waiting.items()):
                if process.poll() is not None:
                    raise UpstreamUnavailableError(
                        server.url, f"{server.name} ended while starting:\n{_tail(server.log)}"
                    )
                if answers(server.ready_url):
                    del waiting[server]
                    if on_ready:
                        on_ready(server, time.monotonic() - started)
            if waiting and time.monotonic() - started > STARTUP_S:
                slow = next(iter(waiting))
                raise UpstreamUnavailableError(
                    slow.url, f"{slow.name} did not answer in {STARTUP_S} s:\n{_tail(slow.log)}"
                )
            time.sleep(0.2)

    def ended(self) -> Server | None:
        """A server that is no longer running, if there is one."""
        return next((s for s, process in self._running if process.poll() is not None), None)

    def stop(self) -> None:
        """Ends the servers: a request to stop, then after SHUTDOWN_S the end. Idempotent."""
        for _, process in sorted(self._running, key=lambda pair: pair[0].name != "gateway"):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + SHUTDOWN_S
        for _, process in self._running:
            with process:
                try:
                    process.wait(timeout=max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
        self._running.clear()

    def _make_admin_token(self) -> None:
        if not self.settings.read_admin_token():
            path = self._home / "admin-token"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(secrets.token_urlsafe(32))

    def _write_deployment(self) -> None:
        facts = self.settings.model_dump(
            mode="json",
            include={
                "engine_urls",
                "gateway_url",
                "gateway_admin_url",
                "mlflow_tracking_uri",
                "prefect_api_url",
            },
        )
        path = self.settings.deployment_file
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str, *, timeout_s: float = 2) -> bool:
    """Whether a GET is answered with a 2xx."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as reply:
            return bool(200 <= reply.status < 300)
    except (urllib.error.URLError, OSError):
        return False


def _tail(log: Path, lines: int = 12) -> str:
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([*text[-lines:], f"(all of it: {log})"])
