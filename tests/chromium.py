"""The process of a headless Chromium: started offline, ended with all of its children."""

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

FLAGS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-sandbox",  # root in a container has no user namespaces
    "--disable-dev-shm-usage",  # /dev/shm of a container is 64 MB
    "--disable-gpu",
    "--no-first-run",
    "--no-default-browser-check",
    "--password-store=basic",
    "--lang=en-US",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    # Nothing phones home: updates, sync, metrics, field trials, crash reports, extensions.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-domain-reliability",
    "--disable-client-side-phishing-detection",
    "--metrics-recording-only",
    "--no-pings",
    "--disable-features=Translate,OptimizationHints,MediaRouter,AutofillServerCommunication,"
    "InterestFeedContentSuggestions,CertificateTransparencyComponentUpdater,DialMediaRouteProvider",
    # And were anything left that tries: it finds nobody.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--proxy-server=direct://",
)
START_S = 30.0


class BrowserError(Exception):
    """The browser refused a command, a script threw, or something awaited did not come."""


def require_chromium() -> str:
    """The path of the browser; the test is skipped where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("no chromium on PATH: apt-get install chromium")


class Chromium:
    """The process: started with a profile of its own, killed with all of its children."""

    def __init__(self, profile: Path) -> None:
        self.profile = profile
        self.process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            require_chromium(),
            *FLAGS,
            f"--user-data-dir={self.profile}",
            "about:blank",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "HOME": str(self.profile), "DBUS_SESSION_BUS_ADDRESS": "disabled:"},
        )
        return self

    async def url(self) -> str:
        """Where it listens, as it writes it into its profile."""
        port_file = self.profile / "DevToolsActivePort"
        assert self.process is not None
        for _ in range(int(START_S / 0.05)):
            lines = port_file.read_text().splitlines() if port_file.exists() else []
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            if self.process.returncode is not None:
                raise BrowserError(f"chromium ended at once with {self.process.returncode}")
            await asyncio.sleep(0.05)
        raise BrowserError(f"chromium did not listen in {START_S:g} s")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), 3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
