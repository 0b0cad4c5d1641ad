"""MLflow at one tracking URI: runs, registered models and their aliases."""

import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from flywheel.errors import MissingExtraError, TrackingError
from flywheel.records import Adapter, Assessment
from flywheel.tracking.connection import (
    door,
    is_server,
    prepare,
    probe,
    quiet_migration,
    sqlite_folder,
)
from flywheel.tracking.run import TrackedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Assessment as MlflowAssessment
    from mlflow.entities.model_registry import ModelVersion

Alias = Literal["champion", "candidate", "previous"]
OWN_ID = "flywheel.assessment_id"
"""Metadata on the assessments Flywheel logs: the id of the lake's row."""


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
        with door(self.uri):
            if run_id is None:
                run_id = client.create_run(
                    self.experiment_id(experiment), run_name=name
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
            with door(self.uri, silent=not finished):
                client.set_terminated(run_id, "FINISHED" if finished else "FAILED")

    def register_adapter(self, adapter: Adapter) -> int:
        """Makes the adapter a version of the registered model named as its workload.

        Idempotent on `adapter_id`. The version points at the adapter store; the weights are not
        copied, so that erasing an adapter erases it.

        Returns:
            The version's number.
        """
        client = self._client()
        with door(self.uri):
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
        with door(self.uri):
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
        with door(self.uri):
            models = client.search_registered_models(f"name = '{workload}'")
            if not models:
                return {}
            found = client.get_registered_model(workload).aliases
            return {
                alias: client.get_model_version(workload, version).tags.get("adapter", "")
                for alias, version in found.items()
            }

    def log_assessments(self, trace_id: str, assessments: Sequence[Assessment]) -> int:
        """Logs what is known of a response as MLflow assessments on its trace; twice is once.

        A failed one is logged with its error and no value.

        Returns:
            How many were not there yet.
        """
        client = self._client()
        with door(self.uri):
            logged = client.get_trace(trace_id, display=False).info.assessments or []
            known = {(one.metadata or {}).get(OWN_ID) for one in logged}
            fresh = [one for one in assessments if one.assessment_id not in known]
            for assessment in fresh:
                tracing = client._tracing_client
                tracing.log_assessment(trace_id, _to_mlflow(assessment))
        return len(fresh)

    def run_url(self, run_id: str) -> str:
        """Where a browser finds the run; without a server `runs:/<id>`, MLflow's name for it."""
        if not is_server(self.uri):
            return f"runs:/{run_id}"
        client = self._client()
        with door(self.uri):
            experiment = client.get_run(run_id).info.experiment_id
        return f"{self.uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"

    def _client(self) -> "MlflowClient":
        if self._opened is None:
            if is_server(self.uri):
                probe(self.uri)
            prepare(self.uri)
            try:
                from mlflow import MlflowClient
            except ImportError as error:
                raise MissingExtraError("mlflow", "track") from error
            with door(self.uri), quiet_migration():
                client = MlflowClient(self.uri, registry_uri=self.uri)
                client.search_experiments(max_results=1)
            self._opened = client
        return self._opened

    def experiment_id(self, name: str) -> str:
        """The experiment's id; made on first use, with artifacts beside a SQLite database."""
        from mlflow.exceptions import MlflowException

        client = self._client()
        with door(self.uri):
            found = client.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            folder = sqlite_folder(self.uri)
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
        if "://" in path or not is_server(self.uri):
            return path
        return f"flywheel-adapter://{urllib.parse.quote(path)}"


def _to_mlflow(assessment: Assessment) -> "MlflowAssessment":
    from mlflow.entities import (
        AssessmentError,
        AssessmentSource,
        Expectation,
        Feedback,
    )

    kinds = {"end_user": "HUMAN", "human": "HUMAN", "llm_judge": "LLM_JUDGE", "code": "CODE"}
    about = {
        "source": AssessmentSource(
            kinds[assessment.source_type], assessment.source_id or "default"
        ),
        "metadata": {OWN_ID: assessment.assessment_id},
    }
    if assessment.correction is not None:
        return Expectation(name=assessment.name, value=assessment.correction.text, **about)
    error = None
    if assessment.error_type is not None:
        error = AssessmentError(error_code=assessment.error_type)
    value = assessment.value if assessment.label is None else assessment.label
    return Feedback(
        name=assessment.name, value=value, error=error, rationale=assessment.rationale, **about
    )


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
