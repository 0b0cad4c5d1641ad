"""Several gateway processes behind one public port, and the one that looks after them.

Input: how many, and what each of them runs. Output: processes that share the port; the parent holds
it, tells when all answer, passes signals on and starts again what dies.

The parent is one thread without an event loop and has nothing open but sockets: it may fork at any
time, so that a worker is back in milliseconds and with the configuration that is in force. Each
worker has its own spool writer, connections, circuit breakers and rate limits. Worker 0 also
answers on the admin port, for all (`front`); that port and the workers' private ones are the
parent's sockets, so that what arrives while a worker is being replaced waits for its successor.
What a killed worker held is lost to its clients: their connections break.
"""

import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

from flywheel.errors import ConfigError
from flywheel.serve.gateway.listen import Address, listen, reserve, url_of

logger = logging.getLogger(__name__)

LONG_LIFE_S = 5.0
"""Who lived so long is started again at once; who did not, after a pause that doubles."""
FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 5.0
PATIENCE_S = 30.0
"""After SIGTERM, until what still runs is killed; more than a gateway's own shutdown timeout."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(frozen=True)
class Seat:
    """What a worker gets from the parent."""

    index: int
    restarts: int
    """How many sat here before it."""
    public: Address
    """Shared: `listen(…, is_shared=True)`."""
    admin: socket.socket
    """Its private admin port, on loopback."""
    siblings: tuple[str, ...]
    """Root URLs of the private admin ports of all workers, its own too."""
    front: socket.socket | None
    """The admin port; None for all but one."""
    line: socket.socket
    """To the parent. It reads as ended when the parent is gone or wants the worker to stop."""

    def tell(self, word: str) -> None:
        """Tells the parent `ready` or `reloaded`."""
        with suppress(OSError):  # it is gone: the line says so too
            self.line.sendall(f"{word}\n".encode())


@dataclass
class _Worker:
    index: int
    admin: socket.socket
    pid: int = 0
    """0 while there is no process."""
    line: socket.socket | None = None
    is_ready: bool = False
    generation: int = 0
    """Of the configuration it was forked with."""
    started: float = 0.0
    due: float = 0.0
    """When it is to be started again."""
    pause_s: float = FIRST_PAUSE_S
    starts: int = 0


@dataclass
class _Asked:
    """Signals that wait for the loop."""

    stop: bool = False
    reload: bool = False

    def hear(self, number: int, _: object) -> None:
        self.stop |= number in (signal.SIGTERM, signal.SIGINT)
        self.reload |= number == signal.SIGHUP


class Fleet:
    """The workers of one gateway, from the parent's side.

    Args:
        size: how many.
        work: what a worker runs, in its own process, until it is told to stop.
        ports: the public one, which they share, and the admin port.
        on_ready: called once, with both URLs, when all of them answer.
        reload: reads the configuration anew in the parent, for workers forked later; raises
            ConfigError where it cannot.
    """

    def __init__(
        self,
        size: int,
        work: Callable[[Seat], None],
        *,
        ports: tuple[Address, Address],
        on_ready: Callable[[str, str], None],
        reload: Callable[[], None],
    ) -> None:
        self._size, self._work, self._ports = size, work, ports
        self._on_ready, self._reload_files = on_ready, reload
        self._asked = _Asked()
        self._workers: list[_Worker] = []
        self._generation = 0
        self._is_up = False
        self._stop_by: float | None = None
        """When patience ends, once it was told to stop."""

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT, and returns when the last worker has ended.

        Raises:
            ConfigError: a port is taken, or a worker did not come up.
        """
        public, admin = self._ports
        with reserve(public) as held, listen(admin) as front:
            host, port = held.getsockname()[:2]
            self._held, self._front = Address(host, port), front
            for index in range(self._size):
                self._workers.append(_Worker(index, listen(Address("127.0.0.1", 0))))
            with selectors.DefaultSelector() as self._selector, self._hearing():
                self._loop(url_of(held), url_of(front))

    def _loop(self, url: str, admin_url: str) -> None:
        is_broken = False
        while True:
            if self._asked.stop or is_broken:
                self._stop()
            if self._asked.reload:
                self._asked.reload = False
                self._reload()
            self._start_due()
            if self._stop_by is not None and not any(worker.pid for worker in self._workers):
                break
            for key, _ in self._selector.select(self._wait_s()):
                self._hear(key)
            is_broken |= self._reap() and not self._is_up
            if not self._is_up and all(worker.is_ready for worker in self._workers):
                self._is_up = True
                self._on_ready(url, admin_url)
        if is_broken and not self._asked.stop:
            problem = "a worker ended before it answered; the log says why"
            raise ConfigError("gateway", [problem])

    def _wait_s(self) -> float | None:
        """Until something is due without a signal; None for ever."""
        now = time.monotonic()
        if self._stop_by is not None:
            return max(self._stop_by - now, 0.1)
        due = [worker.due - now for worker in self._workers if not worker.pid]
        return max(min(due), 0.0) if due else None

    def _start_due(self) -> None:
        for worker in self._workers:
            if self._stop_by is None and not worker.pid and worker.due <= time.monotonic():
                self._fork(worker)

    def _fork(self, worker: _Worker) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or the worker would write it again
        worker.line, worker.is_ready, worker.started = ours, False, time.monotonic()
        worker.generation, worker.starts = self._generation, worker.starts + 1
        pid = os.fork()
        if pid == 0:
            self._become(worker, theirs)
        worker.pid = pid
        theirs.close()
        self._selector.register(ours, selectors.EVENT_READ, worker)

    def _become(self, worker: _Worker, line: socket.socket) -> NoReturn:
        """The rest of a worker's life."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                # A SIGHUP that comes before it can be followed must not end the worker.
                is_hup = number == signal.SIGHUP
                signal.signal(number, signal.SIG_IGN if is_hup else signal.SIG_DFL)
            for other in self._workers:
                if other.line is not None:  # or nobody would see the parent's end of it close
                    other.line.close()
            self._work(self._seat(worker, line))
            code = 0
        except ConfigError as error:
            logger.error("worker %d: %s", worker.index, error)
        except BaseException:
            logger.exception("worker %d failed", worker.index)
        finally:
            logging.shutdown()
            os._exit(code)

    def _seat(self, worker: _Worker, line: socket.socket) -> Seat:
        return Seat(
            index=worker.index,
            restarts=worker.starts - 1,
            public=self._held,
            admin=worker.admin,
            siblings=tuple(url_of(one.admin) for one in self._workers),
            front=self._front if worker.index == 0 else None,
            line=line,
        )

    def _hear(self, key: selectors.SelectorKey) -> None:
        worker: _Worker | None = key.data
        if worker is None or worker.line is None:
            with suppress(BlockingIOError):
                self._wake.recv(4096)
            return
        try:
            words = worker.line.recv(4096).decode().split()
        except OSError:
            words = []
        if not words:  # it has ended, and SIGCHLD comes or came
            self._hang_up(worker)
        if "reloaded" in words:
            self._follow(but=worker)
        if "ready" in words:
            worker.is_ready = True
            if worker.generation != self._generation:
                os.kill(worker.pid, signal.SIGHUP)

    def _hang_up(self, worker: _Worker) -> None:
        if worker.line is not None:
            self._selector.unregister(worker.line)
            worker.line.close()
            worker.line = None

    def _reap(self) -> bool:
        """Whether a worker ended that was not told to."""
        has_died = False
        for worker in self._workers:
            pid, status = os.waitpid(worker.pid, os.WNOHANG) if worker.pid else (0, 0)
            if not pid:
                continue
            self._hang_up(worker)
            worker.pid, worker.is_ready = 0, False
            if self._stop_by is not None:
                continue
            has_died, now = True, time.monotonic()
            is_old = now - worker.started > LONG_LIFE_S
            worker.due = now if is_old else now + worker.pause_s
            worker.pause_s = FIRST_PAUSE_S if is_old else min(worker.pause_s * 2, LAST_PAUSE_S)
            logger.error(
                "worker %d (pid %d) %s; it is started again", worker.index, pid, _end_of(status)
            )
        return has_died

    def _reload(self) -> None:
        """SIGHUP: nobody is told of a file with a mistake in it."""
        try:
            self._reload_files()
        except ConfigError as error:
            logger.error("the configuration was not reloaded, the old one stays: %s", error)
            return
        self._generation += 1
        for worker in self._workers:
            if worker.is_ready:
                worker.generation = self._generation
                os.kill(worker.pid, signal.SIGHUP)

    def _follow(self, *, but: _Worker) -> None:
        """A reload that came over the admin port: the workers know, workers to come must."""
        with suppress(ConfigError):  # changed again since; the workers run what was good
            self._reload_files()
        self._generation += 1
        for worker in self._workers:
            if worker.is_ready or worker is but:
                worker.generation = self._generation

    def _stop(self) -> None:
        now = time.monotonic()
        if self._stop_by is None:
            self._stop_by = now + PATIENCE_S
            for worker in self._workers:
                if worker.line is not None:  # who has no handlers yet sees this when it has
                    worker.line.shutdown(socket.SHUT_WR)
                if worker.is_ready:
                    os.kill(worker.pid, signal.SIGTERM)
        elif now > self._stop_by:
            for worker in self._workers:
                if worker.pid:
                    logger.error("worker %d does not end and is killed", worker.index)
                    os.kill(worker.pid, signal.SIGKILL)

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        """Signals are noted, and wake the loop."""
        self._wake, alarm = socket.socketpair()
        with self._wake, alarm:
            self._wake.setblocking(False)
            alarm.setblocking(False)
            self._selector.register(self._wake, selectors.EVENT_READ)
            before = {number: signal.signal(number, self._asked.hear) for number in _SIGNALS}
            signal.set_wakeup_fd(alarm.fileno(), warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(-1)
                for number, handler in before.items():
                    signal.signal(number, handler)


def _end_of(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"ended with {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
