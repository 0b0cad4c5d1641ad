"""Runs a gateway until it is told to stop, then lets requests in flight finish.

Input: a Gateway, where to listen, a token. Output: a served gateway; everything captured has been
handed to the sink when this returns.
"""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from aiohttp import web

from flywheel.errors import ConfigError
from flywheel.serve.gateway.app import Gateway, GatewayConfig, create_admin_app, create_app
from flywheel.serve.gateway.fleet import Seat
from flywheel.serve.gateway.front import create_front_app
from flywheel.serve.gateway.listen import Address, cannot_listen, listen
from flywheel.serve.gateway.patience import PatientRunner

logger = logging.getLogger(__name__)


class Shared(NamedTuple):
    """A port that several processes listen on."""

    address: Address


Site = tuple[web.Application, Address | socket.socket | Shared]

OnReady = Callable[[str, str], None]
"""Called with the public and the admin URL, once calls are answered."""


async def serve(
    gateway: Gateway, *, public: Address, admin: Address, token: str, on_ready: OnReady
) -> None:
    """Serves until SIGTERM or SIGINT; SIGHUP reads the workload files again.

    Raises:
        ConfigError: the token is empty or a port is taken.
    """
    sites = [(create_app(gateway), public), (create_admin_app(gateway, token), admin)]
    await _serve(gateway, sites, lambda urls: on_ready(*urls), asyncio.Event())


async def serve_seat(gateway: Gateway, seat: Seat, *, token: str) -> None:
    """Serves as one worker of several, until SIGTERM or until the parent hangs up.

    Raises:
        ConfigError: the token is empty.
    """
    stop = asyncio.Event()
    loop, line = asyncio.get_running_loop(), seat.line.fileno()

    def hang_up() -> None:
        """Nothing ever comes down the line but its end, and that for ever."""
        loop.remove_reader(line)
        stop.set()

    loop.add_reader(line, hang_up)
    sites: list[Site] = [
        (create_app(gateway), Shared(seat.public)),
        (create_admin_app(gateway, token), seat.admin),
    ]
    if seat.front is not None:
        front = create_front_app(seat.siblings, token, on_reload=lambda: seat.tell("reloaded"))
        sites.append((front, seat.front))
    await _serve(gateway, sites, lambda _: seat.tell("ready"), stop)


async def _serve(
    gateway: Gateway,
    sites: Sequence[Site],
    on_ready: Callable[[Sequence[str]], None],
    stop: asyncio.Event,
) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, gateway)
    runners = [run_app(app, gateway.config) for app, _ in sites]
    ready = asyncio.create_task(gateway.watcher.loaded.wait())
    stopped = asyncio.create_task(stop.wait())
    try:
        urls = []
        for runner, (_, where) in zip(runners, sites, strict=True):
            await runner.setup()
            if isinstance(where, Shared):
                # Until it knows the champion it would refuse what another one can answer.
                await asyncio.wait((ready, stopped), return_when=asyncio.FIRST_COMPLETED)
            urls.append(await _listen(runner, where))
        await asyncio.wait((ready, stopped), return_when=asyncio.FIRST_COMPLETED)
        _set_aside()
        if ready.done():
            on_ready(urls)
        await stopped
        gateway.is_stopping = True
    finally:
        for task in (ready, stopped):
            task.cancel()
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


def _set_aside() -> None:
    """Takes what was imported out of every later search for garbage.

    There are tens of thousands of such objects and none is ever garbage: a full search through them
    stops every request for up to a tenth of a second.
    """
    gc.collect()
    gc.freeze()


def _reload(gateway: Gateway) -> None:
    """What SIGHUP does: a bad file is refused whole, and the old one stays in force."""
    try:
        gateway.reload()
    except ConfigError as error:
        logger.error("the configuration was not reloaded, the old one stays: %s", error)
    else:
        logger.info("reloaded: %s", ", ".join(gateway.routes.aliases))


async def _listen(runner: web.AppRunner, where: Address | socket.socket | Shared) -> str:
    if isinstance(where, Address):
        try:
            await web.TCPSite(runner, where.host, where.port).start()
        except OSError as error:
            raise cannot_listen(where, error) from error
    else:
        ours = listen(where.address, is_shared=True) if isinstance(where, Shared) else where
        await web.SockSite(runner, ours).start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"
