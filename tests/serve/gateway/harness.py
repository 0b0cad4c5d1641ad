"""A gateway on loopback in a thread of its own, with a real spool and a real lake behind it."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

from aiohttp import web
from openai import OpenAI

from flywheel.capture import DrainReport, Spool, drain
from flywheel.lake import Lake
from flywheel.records import Assessment, Interaction, QuarantineRecord, Release
from flywheel.serve.gateway import Gateway, GatewayConfig, create_admin_app, create_app, run_app
from flywheel.serve.gateway.app import Telemetry
from flywheel.workload import Workload

TOKEN = "a-token"
BASE = "base-model"
T = TypeVar("T")


def workload(name: str = "triage", **sections: object) -> Workload:
    """A workload as small as one can be."""
    return Workload.model_validate(
        {
            "name": name,
            "alias": name,
            "base_model": BASE,
            "labels": {"name": "urgency"},
            "graders": {
                "correct": {
                    "type": "string_check",
                    "operation": "eq",
                    "input": "{{sample.output_text}}",
                    "reference": "{{item.reference.answer}}",
                }
            },
            "gate": {"suite": "holdout.jsonl", "target": {"grader": "correct"}},
            **sections,
        }
    )


def release(epoch: int, model: str, *, workload: str = "triage") -> Release:
    """A promotion; a model named like the base is a roll-back to it."""
    return Release(
        workload=workload,
        epoch=epoch,
        alias=workload,
        model=model,
        adapter=None if model == BASE else model,
        previous=BASE,
        action="promote",
        decision_id="d",
        actor="test",
        reason="test",
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
    )


class Ledger:
    """Releases in memory."""

    def __init__(self) -> None:
        self.latest: dict[str, Release] = {}
        self.failure: Exception | None = None
        self.reads = 0

    def current(self, workload: str) -> Release | None:
        self.reads += 1
        if self.failure is not None:
            raise self.failure
        return self.latest.get(workload)


class RunningGateway:
    """Starts on `with`, and drains into its lake when asked."""

    def __init__(
        self,
        home: Path,
        engine_urls: Sequence[str],
        *,
        workloads: Sequence[Workload] = (),
        ledger: Ledger | None = None,
        spool: Spool | None = None,
        load: Callable[[], Sequence[Workload]] | None = None,
        telemetry: Telemetry | None = None,
        **config: Any,
    ) -> None:
        self.spool_dir = home / "spool"
        self.lake = Lake(str(home / "lake"))
        self.ledger = ledger or Ledger()
        self._workloads, self._load = workloads or [workload()], load
        self._telemetry = telemetry
        self._config = GatewayConfig.model_validate(
            {"engine_urls": engine_urls, "poll_interval_s": 0.05, "shutdown_timeout_s": 2, **config}
        )
        self.spool = spool or Spool(self.spool_dir, default_workload=self._workloads[0].name)
        self.url = self.admin_url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.openai.close()
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self.spool.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> None:
        self.gateway = Gateway(
            self._workloads,
            sink=self.spool,
            releases=self.ledger,
            config=self._config,
            load=self._load,
        )
        self.gateway.telemetry = self._telemetry
        self._runners = [
            run_app(app, self._config)
            for app in (create_app(self.gateway), create_admin_app(self.gateway, TOKEN))
        ]
        urls = []
        for runner in self._runners:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        self.url, self.admin_url = urls
        if self.ledger.failure is None:
            await self.gateway.watcher.loaded.wait()

    async def _stop(self) -> None:
        for runner in self._runners:
            await runner.cleanup()

    @cached_property
    def openai(self) -> OpenAI:
        """A client as an application has it, without retries of its own."""
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=20)

    def drain(self) -> DrainReport:
        return drain(self.spool_dir, self.lake)

    def interactions(self) -> list[Interaction]:
        """Everything captured so far, through a real drain."""
        self.drain()
        return self.lake.fetch(Interaction, "SELECT * FROM interactions ORDER BY started_at")

    def assessments(self) -> list[Assessment]:
        self.drain()
        return self.lake.fetch(Assessment, "SELECT * FROM assessments ORDER BY created_at")

    def quarantine(self) -> list[QuarantineRecord]:
        self.drain()
        return self.lake.fetch(QuarantineRecord, "SELECT * FROM quarantine")


def eventually(claim: Callable[[], bool], *, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)
