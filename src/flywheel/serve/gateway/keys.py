"""API keys of the gateway: who may call, which workloads, how much a minute.

Input: <home>/gateway-keys.json, and the token a client sends. Output: the key, or None. A token is
256 random bits, shown once; the file holds its SHA-256, which needs no salt and no slow hash: what
is not guessable cannot be tried out. The lookup is by digest, so that the time it takes says
something of a digest at most, and nothing of a token.
Command: `flywheel keys create|list|revoke`.

While there is no file the gateway is open. Once one was read it stays closed to everybody else,
even if the file is removed or damaged: the keys read last remain in force, and the log says so.
"""

import fcntl
import hmac
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, ValidationError

from flywheel.errors import ConfigError
from flywheel.records import Record, UtcDatetime, new_id, utcnow

logger = logging.getLogger(__name__)

ALL_WORKLOADS = "*"
RECHECK_S = 0.25
"""How often the file is looked at: a revoked key stops within this."""
_TOKEN_BYTES = 32
_PREFIX = "fw-"

PerMinute = Annotated[int, Field(ge=1)]


class GatewayKey(Record):
    """One key, as the file keeps it: without the token."""

    key_id: str
    name: str = Field(min_length=1, max_length=100)
    """What people call it; unique among the keys that are not revoked."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the token."""
    workloads: tuple[str, ...] = Field(min_length=1)
    """Names of the workloads it opens; `*` is every one."""
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    created_at: UtcDatetime
    revoked_at: UtcDatetime | None = None

    def opens(self, workload: str) -> bool:
        """Whether it is for this workload."""
        return workload in self.workloads or ALL_WORKLOADS in self.workloads


class KeyFile(Record):
    """The content of gateway-keys.json."""

    version: int = Field(default=1, ge=1, le=1)
    keys: tuple[GatewayKey, ...] = ()


class NewKey(NamedTuple):
    """A key and its token, which nobody can read again."""

    key: GatewayKey
    token: str


def read_keys(path: Path) -> tuple[GatewayKey, ...]:
    """Every key of a file, revoked ones too; none where there is no file.

    Raises:
        ConfigError: it is there and cannot be read.
    """
    try:
        return KeyFile.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        told = [f"{'.'.join(map(str, p['loc'])) or 'file'}: {p['msg']}" for p in problems]
        raise ConfigError(str(path), told) from error


def create_key(
    path: Path,
    *,
    name: str,
    workloads: Sequence[str],
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
) -> NewKey:
    """Makes a key and adds it to the file.

    Raises:
        ConfigError: the name is taken, or a value does not hold.
    """
    token = _PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    try:
        key = GatewayKey(
            key_id=new_id(),
            name=name,
            sha256=_digest(token),
            workloads=tuple(workloads),
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            created_at=utcnow(),
        )
    except ValidationError as error:
        problems = [f"{p['loc'][0]}: {p['msg']}" for p in error.errors()]
        raise ConfigError("flywheel keys create", problems) from error
    with _changing(path):
        keys = read_keys(path)
        if any(known.name == name and known.revoked_at is None for known in keys):
            raise ConfigError(
                str(path),
                [f"there is a key {name!r}: take another name, or `flywheel keys revoke {name}`"],
            )
        _write(path, (*keys, key))
    return NewKey(key, token)


def revoke_key(path: Path, name_or_id: str) -> GatewayKey:
    """Ends a key, for good; the gateways notice within a second.

    Raises:
        ConfigError: no key that is in force has this name or id.
    """
    with _changing(path):
        keys = read_keys(path)
        live = {key.key_id: key for key in keys if key.revoked_at is None}
        found = [key for key in live.values() if name_or_id in (key.name, key.key_id)]
        if not found:
            names = ", ".join(sorted(key.name for key in live.values())) or "none"
            raise ConfigError(str(path), [f"no key {name_or_id!r} is in force; there are: {names}"])
        revoked = found[0].model_copy(update={"revoked_at": utcnow()})
        _write(path, [revoked if key.key_id == revoked.key_id else key for key in keys])
    return revoked


class KeyRing:
    """The keys in force in one gateway process; follows its file.

    Args:
        path: the file; it may come later.
        clock: monotonic seconds.

    Raises:
        ConfigError: the file is there and cannot be read: nobody may start open by accident.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._by_digest: dict[str, GatewayKey] | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._looked = clock()
        if (stamp := _stamp(path)) is not None:
            self._take(read_keys(path), stamp)
        else:
            logger.warning(
                "%s is not there: the gateway is OPEN, whoever reaches its port may call. "
                "`flywheel keys create` closes it.",
                path,
            )

    @property
    def is_open(self) -> bool:
        """Whether calls need no key."""
        self._look()
        return self._by_digest is None

    def find(self, token: str) -> GatewayKey | None:
        """The key of a token, revoked or not; None for a token nobody was given."""
        self._look()
        digest = _digest(token)
        key = (self._by_digest or {}).get(digest)
        return key if key is not None and hmac.compare_digest(key.sha256, digest) else None

    def _look(self) -> None:
        now = self._clock()
        if 0 <= now - self._looked < RECHECK_S:
            return
        self._looked = now
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        if stamp is None:
            logger.error("%s is gone: the keys read last stay in force", self._path)
            self._stamp = None
            return
        try:
            self._take(read_keys(self._path), stamp)
        except ConfigError as error:
            logger.error("%s; the keys read last stay in force", error)
            self._stamp = stamp
            # It was meant to close the gateway; nobody gets in by a key that cannot be read.
            self._by_digest = self._by_digest or {}

    def _take(self, keys: Sequence[GatewayKey], stamp: tuple[int, int, int]) -> None:
        self._by_digest = {key.sha256: key for key in keys}
        self._stamp = stamp
        logger.info("%d API keys are in force", sum(key.revoked_at is None for key in keys))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _digest(token: str) -> str:
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Lets one process at a time read, change and write the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, keys: Sequence[GatewayKey]) -> None:
    """Replaces the file, so that no gateway reads half of it; 0600 from its first byte on."""
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(KeyFile(keys=tuple(keys)).model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
