"""One MLflow run, open for logging."""

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from flywheel.records import JsonObject
from flywheel.tracking.connection import door

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

MAX_PARAM_CHARS = 6000
MAX_TAG_CHARS = 8000
MAX_KEY_CHARS = 250
MAX_PARAMS_A_BATCH = 100
MAX_METRICS_A_BATCH = 1000
"""MLflow's limits (mlflow/utils/validation.py); it refuses the whole batch when one is passed."""


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
        with door(self._uri):
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
        with door(self._uri):
            for start in range(0, len(points), MAX_METRICS_A_BATCH):
                self._client.log_batch(
                    self.run_id, metrics=points[start : start + MAX_METRICS_A_BATCH]
                )

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags; one set before is replaced."""
        with door(self._uri):
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
        with door(self._uri):
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
        with door(self._uri):
            self._client.log_figure(self.run_id, figure, name)

    def log_text(self, text: str, name: str) -> None:
        """Logs text as an artifact file."""
        with door(self._uri):
            self._client.log_text(self.run_id, text, name)

    def log_file(self, path: Path, *, folder: str | None = None) -> None:
        """Copies a file, or a folder with all it holds, into the run's artifacts."""
        with door(self._uri):
            if path.is_dir():
                self._client.log_artifacts(self.run_id, str(path), folder)
            else:
                self._client.log_artifact(self.run_id, str(path), folder)


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
