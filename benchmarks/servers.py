"""The servers a gateway benchmark puts side by side, each in processes of its own on loopback.

Input: where the mock model server listens. Output: a Target that answers. The peers need packages
that this project does not; each runs in a virtual environment of its own, and is left out with a
word on how to make it where there is none.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

WORKLOAD = """
name: triage
alias: triage
base_model: base
capture: {{enabled: {enabled}, durability: {durability}}}
labels: {{name: urgency}}
graders: {{correct: {{type: string_check, operation: eq, input: "a", reference: "a"}}}}
gate: {{suite: holdout.jsonl, target: {{grader: correct}}}}
"""
LITELLM = """
model_list:
  - model_name: triage
    litellm_params: {{model: openai/base, api_base: "{url}/v1", api_key: none}}
litellm_settings: {{telemetry: false, num_retries: 0, callbacks: []}}
general_settings:
  disable_spend_logs: true
  dangerously_permit_weak_or_unset_master_key: true
"""
MLFLOW = """
endpoints:
  - name: triage
    endpoint_type: llm/v1/chat
    model:
      provider: openai
      name: base
      config: {{openai_api_key: none, openai_api_base: "{url}/v1"}}
"""
START_S = 120.0


@dataclass(frozen=True)
class Target:
    """Something that answers."""

    name: str
    port: int
    pid: int
    home: Path | None = None
    """Of a gateway that captures."""
    admin_url: str | None = None
    version: str | None = None

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        """Processor time of all its processes: what a busy machine hardly distorts."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes())

    def rss(self) -> int:
        """Resident bytes of all its processes; what they share is counted for each."""
        return sum(process.memory_info().rss for process in self.processes())

    def processes(self) -> list[psutil.Process]:
        """Its first process, and those it started."""
        first = psutil.Process(self.pid)
        return [first, *first.children(recursive=True)]


@contextmanager
def mock_server() -> Iterator[Target]:
    """The mock model server."""
    command = [sys.executable, "-m", "benchmarks.mock_upstream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Target("direct", int(process.stdout.readline()), process.pid)
        finally:
            process.kill()


@contextmanager
def gateway(
    name: str, folder: Path, upstream: Target, *, durability: str | None, workers: int = 1
) -> Iterator[Target]:
    """`flywheel gateway` before the mock; captures nothing where there is no durability."""
    home = folder / name.replace(" ", "-")
    home.mkdir()
    workload = home / "flywheel.yaml"
    enabled = str(durability is not None).lower()
    workload.write_text(
        WORKLOAD.format(enabled=enabled, durability=durability or "group"), encoding="utf-8"
    )
    command = [sys.executable, "-m", "flywheel.cli", "gateway", "--home", str(home)]
    command += ["--workload", str(workload), "--port", "0", "--admin-port", "0"]
    command += ["--engine-url", upstream.url, "--generate-admin-token", "--workers", str(workers)]
    with (
        (home / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"gateway ready: http://127.0.0.1:(\d+)/v1 \(admin (http\S+)\)", line)
        if found is None:
            raise SystemExit((home / "log").read_text(encoding="utf-8"))
        try:
            captures = home if durability else None
            yield Target(name, int(found[1]), process.pid, captures, admin_url=found[2])
        finally:
            process.send_signal(signal.SIGTERM)


@contextmanager
def litellm_proxy(python: Path, folder: Path, upstream: Target) -> Iterator[Target]:
    """LiteLLM's proxy: one worker, no keys, no database, no logging, production mode."""
    config = folder / "litellm.yaml"
    config.write_text(LITELLM.format(url=upstream.url), encoding="utf-8")
    run = "from litellm.proxy.proxy_cli import run_server; run_server()"
    environment = {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    arguments = ["-c", run, "--config", str(config), "--num_workers", "1", "--telemetry", "False"]
    with _peer("litellm", python, arguments, environment, folder) as target:
        yield target


@contextmanager
def mlflow_gateway(python: Path, folder: Path, upstream: Target) -> Iterator[Target]:
    """MLflow's AI gateway, started from a file: one worker and no tracking server."""
    config = folder / "mlflow.yaml"
    config.write_text(MLFLOW.format(url=upstream.url), encoding="utf-8")
    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http",
        "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",
    }
    arguments = ["-m", "mlflow", "gateway", "start", "--config-path", str(config), "--workers", "1"]
    with _peer("mlflow", python, arguments, environment, folder) as target:
        yield target


@contextmanager
def _peer(
    name: str, python: Path, arguments: Sequence[str], environment: dict[str, str], folder: Path
) -> Iterator[Target]:
    port = _free_port()
    with ExitStack() as stack:
        log = stack.enter_context((folder / f"{name}.log").open("wb"))
        # Only this: a proxy or a key of this shell would change what is measured.
        kept = {key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ}
        path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        process = stack.enter_context(
            subprocess.Popen(
                [str(python), *arguments, "--host", "127.0.0.1", "--port", str(port)],
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**kept, "PATH": path, **environment},
                start_new_session=True,  # it starts processes of its own, and they end with it
            )
        )
        stack.callback(_end, process)
        target = Target(name, port, process.pid, version=_version(python, name))
        _await_answer(target, process, folder / f"{name}.log")
        yield target


def _await_answer(target: Target, process: "subprocess.Popen[bytes]", log: Path) -> None:
    body = json.dumps({"model": "triage", "messages": [{"role": "user", "content": "?"}]}).encode()
    request = urllib.request.Request(
        f"{target.url}/v1/chat/completions", body, {"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(request, timeout=5):
            return
        time.sleep(0.5)
    raise SystemExit(f"{target.name} does not answer:\n{log.read_text(encoding='utf-8')[-3000:]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)


def _version(python: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.check_output([str(python), "-c", code], text=True).strip()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
