"""The only door to MLflow: runs, metrics, tables, registered models and their aliases.

Input: a tracking URI, `sqlite:///…` or the http address of an MLflow server. Nothing global is
set: no `mlflow.set_tracking_uri`, no active run, nothing in the working directory. With SQLite,
artifacts lie in `artifacts/` beside the database; with a server, the server decides.

MLflow is where people look; the lake is what Flywheel decides by: nothing is read back from here
to decide anything.
"""

import json
import logging
import math
import os
import re
import sqlite3
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

from flywheel.errors import MissingExtraError, TrackingError, UpstreamUnavailableError
from flywheel.records import Adapter, JsonObject

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

MAX_PARAM_CHARS = 6000
MAX_TAG_CHARS = 8000
MAX_KEY_CHARS = 250
MAX_PARAMS_A_BATCH = 100
MAX_METRICS_A_BATCH = 1000
"""MLflow's limits (mlflow/utils/validation.py); it refuses the whole batch when one is passed."""

PROBE_TIMEOUT_S = 5.0
Alias = Literal["champion", "candidate", "previous"]


class TrackedRun:
    """One MLflow run, open for logging. Made by `Tracker.run`."""

    def __init__(self, client: "MlflowClient", run_id: str, uri: str) -> None:
        self._client, self._uri = client, uri
        self.run_id = run_id

    def log_params(self, params: Mapping[str, JsonValue]) -> None:
        """Logs parameters: nested objects as dotted names, what is too long cut with an ellipsis.

        MLflow lets a parameter be set once. On a resumed run the first value stays.
        """
        from mlflow.entities import Param

        flat = _flatten(params)
        with _door(self._uri):
            known = self._client.get_run(self.run_id).data.params
            fresh = [Param(key, value) for key, value in flat.items() if key not in known]
            for start in range(0, len(fresh), MAX_PARAMS_A_BATCH):
                self._client.log_batch(
                    self.run_id, params=fresh[start : start + MAX_PARAMS_A_BATCH]
                )

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Logs a batch of metrics at one step; a value that is not finite is left out."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [
            Metric(_key(name), float(value), now, step or 0)
            for name, value in metrics.items()
            if math.isfinite(value)
        ]
        with _door(self._uri):
            for start in range(0, len(points), MAX_METRICS_A_BATCH):
                self._client.log_batch(
                    self.run_id, metrics=points[start : start + MAX_METRICS_A_BATCH]
                )

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags; one set before is replaced."""
        with _door(self._uri):
            for name, value in tags.items():
                self._client.set_tag(self.run_id, _key(name), _cut(value, MAX_TAG_CHARS))

    def log_table(self, name: str, rows: Sequence[JsonObject]) -> None:
        """Logs rows as a table MLflow's UI shows; one of the same name is replaced.

        `MlflowClient.log_table` would append to it (a resumed run would double its rows) and needs
        pandas, which turns a missing number into NaN.
        """
        columns = list(dict.fromkeys(column for row in rows for column in row))
        table = {"columns": columns, "data": [[_cell(row.get(c)) for c in columns] for row in rows]}
        path = name if name.endswith(".json") else f"{name}.json"
        with _door(self._uri):
            self._client.log_text(self.run_id, json.dumps(table, ensure_ascii=False), path)
            tags = self._client.get_run(self.run_id).data.tags
            logged = json.loads(tags.get("mlflow.loggedArtifacts", "[]"))
            entry = {"path": path, "type": "table"}
            if entry not in logged:
                self._client.set_tag(
                    self.run_id, "mlflow.loggedArtifacts", json.dumps([*logged, entry])
                )

    def log_figure(self, figure: "Figure", name: str) -> None:
        """Logs a matplotlib figure under `name` (`plots/accuracy.png`)."""
        with _door(self._uri):
            self._client.log_figure(self.run_id, figure, name)

    def log_text(self, text: str, name: str) -> None:
        """Logs text as an artifact file."""
        with _door(self._uri):
            self._client.log_text(self.run_id, text, name)

    def log_file(self, path: Path, *, folder: str | None = None) -> None:
        """Copies a file, or a folder with all it holds, into the run's artifacts."""
        with _door(self._uri):
            if path.is_dir():
                self._client.log_artifacts(self.run_id, str(path), folder)
            else:
                self._client.log_artifact(self.run_id, str(path), folder)


class Tracker:
    """MLflow at one tracking URI. Cheap to make: nothing is opened before the first use."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._opened: MlflowClient | None = None

    @contextmanager
    def run(
        self,
        experiment: str,
        name: str,
        *,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Iterator[TrackedRun]:
        """Creates a run, or resumes `run_id`; it ends FINISHED, or FAILED when the body raises.

        Raises:
            UpstreamUnavailableError: MLflow does not answer.
            TrackingError: it refuses; a `run_id` it does not know, for one.
        """
        client = self._client()
        with _door(self.uri):
            if run_id is None:
                run_id = client.create_run(
                    self._experiment_id(experiment), run_name=name
                ).info.run_id
            else:
                client.update_run(run_id, status="RUNNING")
        run = TrackedRun(client, run_id, self.uri)
        finished = False
        try:
            run.set_tags(tags or {})
            yield run
            finished = True
        finally:
            with _door(self.uri, silent=not finished):
                client.set_terminated(run_id, "FINISHED" if finished else "FAILED")

    def register_adapter(self, adapter: Adapter) -> int:
        """Makes the adapter a version of the registered model named as its workload.

        Idempotent on `adapter_id`. The version points at the adapter store; the weights are not
        copied, so that erasing an adapter erases it.

        Returns:
            The version's number.
        """
        client = self._client()
        with _door(self.uri):
            self._ensure_model(adapter.workload)
            known = self._versions(adapter.workload, "adapter_id", adapter.adapter_id)
            if not known:
                client.create_model_version(
                    adapter.workload,
                    self._source(adapter.path),
                    run_id=adapter.run_id,
                    tags=_version_tags(adapter),
                    description=f"LoRA rank {adapter.rank} over {adapter.base_model}",
                    await_creation_for=0,
                )
                known = self._versions(adapter.workload, "adapter_id", adapter.adapter_id)
            # Two writers at once may both create one: everybody then names the first.
            return min(int(version.version) for version in known)

    def set_alias(self, workload: str, alias: Alias, adapter: str | None) -> None:
        """Points an alias at an adapter's version, or deletes it with None (the base model serves).

        Raises:
            TrackingError: no version carries that adapter name.
        """
        client = self._client()
        with _door(self.uri):
            if adapter is None:
                if alias in self.aliases(workload):
                    client.delete_registered_model_alias(workload, alias)
                return
            versions = self._versions(workload, "adapter", adapter)
            if not versions:
                raise TrackingError(
                    self.uri,
                    f"no version of registered model {workload!r} carries adapter {adapter!r}: "
                    "register it before an alias names it",
                )
            first = min(versions, key=lambda version: int(version.version))
            client.set_registered_model_alias(workload, alias, first.version)

    def aliases(self, workload: str) -> dict[str, str]:
        """Alias to adapter name; empty when nothing was registered yet."""
        client = self._client()
        with _door(self.uri):
            models = client.search_registered_models(f"name = '{workload}'")
            if not models:
                return {}
            found = client.get_registered_model(workload).aliases
            return {
                alias: client.get_model_version(workload, version).tags.get("adapter", "")
                for alias, version in found.items()
            }

    def run_url(self, run_id: str) -> str:
        """Where a browser finds the run; without a server `runs:/<id>`, MLflow's name for it."""
        if not _is_server(self.uri):
            return f"runs:/{run_id}"
        client = self._client()
        with _door(self.uri):
            experiment = client.get_run(run_id).info.experiment_id
        return f"{self.uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"

    def _client(self) -> "MlflowClient":
        if self._opened is None:
            if _is_server(self.uri):
                _probe(self.uri)
            _prepare(self.uri)
            try:
                from mlflow import MlflowClient
            except ImportError as error:
                raise MissingExtraError("mlflow", "track") from error
            with _door(self.uri), _quiet_migration():
                client = MlflowClient(self.uri, registry_uri=self.uri)
                client.search_experiments(max_results=1)
            self._opened = client
        return self._opened

    def _experiment_id(self, name: str) -> str:
        """The experiment's id; made on first use, with artifacts beside a SQLite database."""
        from mlflow.exceptions import MlflowException

        client = self._client()
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        folder = _sqlite_folder(self.uri)
        location = (folder / "artifacts").as_uri() if folder else None
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            # Another process may have made it since the look-up.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def _ensure_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        client = self._client()
        if client.search_registered_models(f"name = '{name}'"):
            return
        try:
            client.create_registered_model(name)
        except MlflowException:
            if not client.search_registered_models(f"name = '{name}'"):
                raise

    def _versions(self, workload: str, tag: str, value: str) -> "list[ModelVersion]":
        query = f"name = '{workload}' and tags.`{tag}` = '{value}'"
        return list(self._client().search_model_versions(query))

    def _source(self, path: str) -> str:
        """A server refuses a local folder as a version's source; a name of our own passes."""
        if "://" in path or not _is_server(self.uri):
            return path
        return f"flywheel-adapter://{urllib.parse.quote(path)}"


def _version_tags(adapter: Adapter) -> dict[str, str]:
    tags = {
        "adapter": adapter.name,
        "adapter_id": adapter.adapter_id,
        "base_model": adapter.base_model,
        "path": adapter.path,
        "snapshot_id": adapter.snapshot_id,
        "parent": adapter.parent,
    }
    return {name: value for name, value in tags.items() if value is not None}


def _is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _sqlite_folder(uri: str) -> Path | None:
    """The folder of a SQLite database; None for anything else."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///")).absolute().parent


def _prepare(uri: str) -> None:
    """What must be there before MLflow is imported: no telemetry, no printing, short waits.

    The variables are MLflow's own, and one that is already set is left alone. Its defaults wait
    minutes for a server that is gone (7 retries of 120 s each).
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    folder = _sqlite_folder(uri)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrackingError(uri, f"its folder cannot be made: {error}") from error


def _probe(uri: str) -> None:
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
def _quiet_migration() -> Iterator[None]:
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
def _door(uri: str, *, silent: bool = False) -> Iterator[None]:
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


def _flatten(params: Mapping[str, JsonValue], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in params.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{key}."))
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            flat[_key(key)] = _cut(text, MAX_PARAM_CHARS)
    return flat


def _key(name: str) -> str:
    """A name MLflow takes: letters, digits and _ - . space : / only, at most 250 of them."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:MAX_KEY_CHARS]


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _cell(value: JsonValue) -> JsonValue:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
