"""Sockets to listen on, and a port that several processes of one gateway share.

Input: addresses. Output: sockets. The kernel spreads new connections over all sockets that listen
on a port with SO_REUSEPORT; a connection stays with its process.
"""

import socket
from dataclasses import dataclass

from flywheel.errors import ConfigError

_BACKLOG = 1024


@dataclass(frozen=True)
class Address:
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int


def listen(address: Address, *, is_shared: bool = False) -> socket.socket:
    """A listening socket.

    Args:
        address: where.
        is_shared: whether other sockets may listen there too.

    Raises:
        ConfigError: the port is taken, or the host is none of this machine's.
    """
    made = _bind(address, is_shared=is_shared)
    made.listen(_BACKLOG)
    made.setblocking(False)
    return made


def reserve(address: Address) -> socket.socket:
    """A socket that holds a port for `listen(…, is_shared=True)` and takes no connections.

    Raises:
        ConfigError: the port is taken, or the host is none of this machine's.
    """
    # Without this first one a second gateway would quietly take half of the first one's requests.
    with _bind(address, is_shared=False) as alone:
        free = Address(address.host, alone.getsockname()[1])
    return _bind(free, is_shared=True)


def url_of(bound: socket.socket) -> str:
    """The root URL of whoever answers on a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"http://{host}:{port}"


def cannot_listen(address: Address, error: OSError) -> ConfigError:
    """What to say where a port cannot be had."""
    reason = error.strerror or str(error)
    problem = f"cannot listen on {address.host}:{address.port}: {reason}; take another port"
    return ConfigError("gateway", [problem])


def _bind(address: Address, *, is_shared: bool) -> socket.socket:
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise cannot_listen(address, error) from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(where)
    except OSError as error:
        made.close()
        raise cannot_listen(address, error) from error
    return made
