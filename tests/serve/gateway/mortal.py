"""Gateways that are made to be killed: one process imports, then forks one gateway a line.

    python -m tests.serve.gateway.mortal <spool folder> <upstream url>

Each line of stdin is a durability, or two (`before_response,group`: two workloads); it is answered
with `<pid> <url>`. A fork starts in milliseconds where an interpreter takes a second.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from flywheel.capture.spool import Spool
from flywheel.serve.gateway import Gateway, GatewayConfig, create_app
from tests.serve.gateway.harness import Ledger, workload


async def serve(folder: Path, upstream: str, durabilities: list[str]) -> None:
    workloads = [
        workload(name.replace("_", "-"), capture={"durability": name}) for name in durabilities
    ]
    spool = Spool(folder, default_workload=workloads[0].name)
    gateway = Gateway(
        workloads,
        sink=spool,
        releases=Ledger(),
        config=GatewayConfig(engine_urls=(upstream,), poll_interval_s=60),
    )
    runner = web.AppRunner(create_app(gateway), access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await gateway.watcher.loaded.wait()
    say(f"{os.getpid()} http://127.0.0.1:{runner.addresses[0][1]}")
    await asyncio.sleep(600)


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(folder: str, upstream: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who is killed leaves no zombie
    for line in sys.stdin:
        if os.fork() == 0:
            uvloop.run(serve(Path(folder), upstream, line.strip().split(",")))
            os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
