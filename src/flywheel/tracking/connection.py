"""What every call to MLflow goes through: a look whether it is there, our errors for its own."""

import logging
import os
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flywheel.errors import TrackingError, UpstreamUnavailableError

PROBE_TIMEOUT_S = 5.0


def is_server(uri: str) -> bool:
    """Whether the address is a server's, and not a database's."""
    return uri.startswith(("http://", "https://"))


def sqlite_folder(uri: str) -> Path | None:
    """The folder of a SQLite database; None for anything else."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///")).absolute().parent


def prepare(uri: str) -> None:
    """What must be there before MLflow is imported: no telemetry, no printing, short waits.

    The variables are MLflow's own, and one that is already set is left alone. Its defaults wait
    minutes for a server that is gone (7 retries of 120 s each).
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    folder = sqlite_folder(uri)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrackingError(uri, f"its folder cannot be made: {error}") from error


def probe(uri: str) -> None:
    """One quick look whether the server is there, before MLflow's client waits and retries."""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PROBE_TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 429 or error.code >= 500:
            raise UpstreamUnavailableError(uri, error.reason, status=error.code) from error
    except OSError as error:
        raise UpstreamUnavailableError(uri, str(error)) from error


@contextmanager
def quiet_migration() -> Iterator[None]:
    """A new database goes through every schema MLflow ever had, and says so: not news here."""
    loggers = [logging.getLogger(name) for name in ("mlflow.store.db.utils", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def quiet_requests() -> Iterator[None]:
    """MLflow warns of a trace written under an id of one's own; here that is what is wanted."""
    loggers = [logging.getLogger(name) for name in ("mlflow.tracing", "mlflow.store.tracking")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def door(uri: str, *, silent: bool = False) -> Iterator[None]:
    """Turns MLflow's exceptions into ours. `silent`: another error is already on its way out."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        if silent:
            return
        message = " ".join(str(error).split())
        if error.error_code in _TRANSIENT_CODES or re.match(r"API request to .* failed", message):
            raise UpstreamUnavailableError(uri, message) from error
        raise TrackingError(uri, message) from error
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        if silent:
            return
        raise TrackingError(uri, " ".join(str(error).split())) from error


_TRANSIENT_CODES = frozenset({"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"})
