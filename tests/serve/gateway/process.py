"""`flywheel gateway` as a process of its own."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests.serve.gateway.harness import workload

READY = re.compile(r"gateway ready: (http://\S+)/v1 \(admin (http://\S+)\) serves (\S+)")


class GatewayProcess:
    """Runs in a home folder; waits for its ready line."""

    def __init__(self, home: Path, engine_url: str, *, options: Sequence[str] = ()) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        self.log = home / "gateway.log"
        file = home / "flywheel.yaml"
        # JSON is YAML.
        file.write_text(workload().model_dump_json(exclude_none=True), encoding="utf-8")
        self.command = [sys.executable, "-m", "flywheel.cli", "gateway", "--home", str(home)]
        self.command += ["--workload", str(file), "--port", "0", "--admin-port", "0"]
        self.command += ["--engine-url", engine_url, *options]

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        found = READY.match(self.process.stdout.readline())
        assert found, self.log.read_text()
        self.url, self.admin_url, _ = found.groups()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def end(self, number: signal.Signals) -> int:
        """Sends a signal and waits for the end."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def admin(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.admin_url}{path}", data=body)
        token = (self.home / "admin-token").read_text()
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=20) as reply:
            found: dict[str, Any] = json.loads(reply.read())
            return found
