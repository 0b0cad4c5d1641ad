"""Runs a gateway on two ports until it is told to stop, then lets requests in flight finish.

Input: a Gateway, addresses, a token. Output: a served gateway; everything captured has been handed
to the sink when this returns.
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from flywheel.errors import ConfigError
from flywheel.serve.gateway.app import Gateway, GatewayConfig, create_admin_app, create_app
from flywheel.serve.gateway.patience import PatientRunner

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int


OnReady = Callable[[str, str], None]
"""Called with the public and the admin URL, once calls are answered."""


async def serve(
    gateway: Gateway, *, public: Address, admin: Address, token: str, on_ready: OnReady
) -> None:
    """Serves until SIGTERM or SIGINT; SIGHUP reads the workload files again.

    Raises:
        ConfigError: the token is empty or a port is taken.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, gateway)
    admin_app = create_admin_app(gateway, token)
    runners = [run_app(app, gateway.config) for app in (create_app(gateway), admin_app)]
    try:
        urls = [
            await _listen(runner, address)
            for runner, address in zip(runners, (public, admin), strict=True)
        ]
        ready = asyncio.create_task(gateway.watcher.loaded.wait())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((ready, stopped), return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            on_ready(*urls)
        await stopped
        gateway.is_stopping = True
    finally:
        for runner in runners:
            await runner.cleanup()


def run_app(app: web.Application, config: GatewayConfig) -> PatientRunner:
    """The runner of one of the two applications."""
    return PatientRunner(
        app,
        header_timeout_s=config.header_timeout_s,
        keepalive_timeout_s=config.keepalive_timeout_s,
        shutdown_timeout_s=config.shutdown_timeout_s,
    )


def _reload(gateway: Gateway) -> None:
    """What SIGHUP does: a bad file is refused whole, and the old one stays in force."""
    try:
        gateway.reload()
    except ConfigError as error:
        logger.error("the configuration was not reloaded, the old one stays: %s", error)
    else:
        logger.info("reloaded: %s", ", ".join(gateway.routes.aliases))


async def _listen(runner: web.AppRunner, address: Address) -> str:
    await runner.setup()
    site = web.TCPSite(runner, address.host, address.port)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(
            "gateway",
            [
                f"cannot listen on {address.host}:{address.port}: {error.strerror}; "
                "take another port"
            ],
        ) from error
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"
