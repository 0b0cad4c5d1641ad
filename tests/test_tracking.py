"""The door to MLflow, on a real SQLite store and behind a real server."""

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from flywheel.errors import TrackingError, UpstreamUnavailableError
from flywheel.records import Adapter, utcnow
from flywheel.tracking import Tracker
from tests.loopback import LoopbackServer

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def tracker(tracking_uri: str) -> Tracker:
    return Tracker(tracking_uri)


@pytest.fixture
def client(tracking_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri)


def make_adapter(letter: str, **fields: object) -> Adapter:
    values: dict[str, object] = {
        "adapter_id": letter * 64,
        "name": f"triage-{letter * 12}",
        "workload": "triage",
        "created_at": utcnow(),
        "base_model": "some/base",
        "spec": {},
        "rank": 16,
        "target_modules": ("q_proj",),
        "size_bytes": 1,
        "path": f"/store/{letter}",
    }
    return Adapter.model_validate({**values, **fields})


def test_a_run_ends_finished_under_its_name_and_tags(
    tracker: Tracker, client: "MlflowClient"
) -> None:
    with tracker.run("triage", "night 1", tags={"stage": "train"}) as run:
        assert client.get_run(run.run_id).info.status == "RUNNING"
    found = client.get_run(run.run_id)
    assert (found.info.run_name, found.info.status) == ("night 1", "FINISHED")
    assert found.info.end_time is not None
    assert found.data.tags["stage"] == "train"
    experiment = client.get_experiment_by_name("triage")
    assert experiment is not None and found.info.experiment_id == experiment.experiment_id


def test_a_run_whose_body_raises_ends_failed_and_the_error_goes_on(
    tracker: Tracker, client: "MlflowClient"
) -> None:
    run_id = ""
    with pytest.raises(ZeroDivisionError), tracker.run("triage", "night 1") as run:
        run_id = run.run_id
        raise ZeroDivisionError
    assert client.get_run(run_id).info.status == "FAILED"


def test_a_run_is_resumed_by_its_id_and_what_was_logged_twice_is_there_once(
    tracker: Tracker, client: "MlflowClient"
) -> None:
    """A training killed at night and started again: its parameters are the same, or the first."""
    with pytest.raises(KeyboardInterrupt), tracker.run("triage", "train") as run:
        run.log_params({"rank": 16})
        run.log_table("items", [{"n": 1}])
        raise KeyboardInterrupt
    with tracker.run("triage", "train", run_id=run.run_id) as again:
        again.log_params({"rank": 32, "seed": 7})
        again.log_table("items", [{"n": 1}])
    found = client.get_run(run.run_id)
    assert again.run_id == run.run_id
    assert found.info.status == "FINISHED"
    assert found.data.params == {"rank": "16", "seed": "7"}
    assert read_table(client, run.run_id, "items.json") == {"columns": ["n"], "data": [[1]]}


def test_a_run_nobody_knows_is_not_resumed(tracker: Tracker) -> None:
    with (
        pytest.raises(TrackingError, match="not found"),
        tracker.run("triage", "x", run_id="f" * 32),
    ):
        pass


def test_nested_parameters_become_dotted_names(tracker: Tracker, client: "MlflowClient") -> None:
    with tracker.run("triage", "x") as run:
        run.log_params(
            {"lora": {"rank": 16, "modules": ["q", "v"]}, "dpo": None, "empty": {}, "why?": "é"}
        )
    assert client.get_run(run.run_id).data.params == {
        "lora.rank": "16",
        "lora.modules": '["q", "v"]',
        "dpo": "null",
        "empty": "{}",
        "why_": "é",
    }


def test_parameters_beyond_mlflows_limits_are_cut_and_not_refused(
    tracker: Tracker, client: "MlflowClient"
) -> None:
    """6,000 characters a value, 250 a name, 100 in a batch."""
    many = {f"p{n}": n for n in range(250)}
    with tracker.run("triage", "x", tags={"note": "t" * 9000}) as run:
        run.log_params({"long": "v" * 7000, "n" * 300: 1, **many})
    data = client.get_run(run.run_id).data
    assert len(data.params) == 252
    assert (len(data.params["long"]), data.params["long"][-1]) == (6000, "…")
    assert data.params["n" * 250] == "1"
    assert len(data.tags["note"]) == 8000


def test_metrics_keep_their_steps_and_what_is_no_number_is_left_out(
    tracker: Tracker, client: "MlflowClient"
) -> None:
    with tracker.run("triage", "x") as run:
        for step, loss in enumerate([2.0, 1.5, float("nan"), 1.25]):
            run.log_metrics({"loss": loss, "rate": 0.1}, step=step)
        run.log_metrics({"accuracy": float("inf")})
        run.log_metrics({f"m{n}": n for n in range(1200)})
    history = [(one.step, one.value) for one in client.get_metric_history(run.run_id, "loss")]
    assert history == [(0, 2.0), (1, 1.5), (3, 1.25)]
    metrics = client.get_run(run.run_id).data.metrics
    assert "accuracy" not in metrics
    assert metrics["m1199"] == 1199


def read_table(client: "MlflowClient", run_id: str, name: str) -> object:
    with tempfile.TemporaryDirectory() as folder:
        return json.loads(Path(client.download_artifacts(run_id, name, folder)).read_text("utf-8"))


@pytest.mark.filterwarnings("ignore:For backward compatibility, 'str' dtypes")  # MLflow's
def test_a_table_is_as_mlflow_itself_writes_one(tracker: Tracker, client: "MlflowClient") -> None:
    """Beside one by `MlflowClient.log_table`, which a resumed run would double."""
    with tracker.run("triage", "x") as run:
        run.log_table("ours", [{"item": "a", "score": 1}, {"item": "b", "score": 0}])
        client.log_table(run.run_id, {"item": ["a", "b"], "score": [1, 0]}, "theirs.json")
    tables = [read_table(client, run.run_id, name) for name in ("ours.json", "theirs.json")]
    assert tables[0] == tables[1] == {"columns": ["item", "score"], "data": [["a", 1], ["b", 0]]}
    logged = json.loads(client.get_run(run.run_id).data.tags["mlflow.loggedArtifacts"])
    assert logged == [{"path": f"{name}.json", "type": "table"} for name in ("ours", "theirs")]


def test_in_a_table_missing_stays_null_and_what_is_nested_is_json(
    tracker: Tracker, client: "MlflowClient"
) -> None:
    with tracker.run("triage", "x") as run:
        run.log_table("items", [{"item": "a", "said": {"x": 1}}, {"item": "b", "score": None}])
    assert read_table(client, run.run_id, "items.json") == {
        "columns": ["item", "said", "score"],
        "data": [["a", '{"x": 1}', None], ["b", None, None]],
    }


def test_an_empty_table_is_a_table(tracker: Tracker, client: "MlflowClient") -> None:
    with tracker.run("triage", "x") as run:
        run.log_table("items", [])
    assert read_table(client, run.run_id, "items.json") == {"columns": [], "data": []}


def test_figures_texts_files_and_folders_become_artifacts(
    tracker: Tracker, client: "MlflowClient", tmp_path: Path
) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "card.md").write_text("# Card", "utf-8")
    with tracker.run("triage", "x") as run:
        run.log_figure(figure, "plots/curve.png")
        run.log_text("PASS", "verdict.txt")
        run.log_file(folder / "card.md")
        run.log_file(folder, folder="copied")
    paths = {one.path for one in client.list_artifacts(run.run_id)}
    assert paths == {"plots", "verdict.txt", "card.md", "copied"}
    assert [one.path for one in client.list_artifacts(run.run_id, "plots")] == ["plots/curve.png"]


def test_an_adapter_is_one_version_however_often_it_is_registered(
    tracker: Tracker, client: "MlflowClient"
) -> None:
    assert [tracker.register_adapter(make_adapter(letter)) for letter in "aaba"] == [1, 1, 2, 1]
    version = client.get_model_version("triage", "1")
    assert version.tags["adapter"] == "triage-aaaaaaaaaaaa"
    assert version.tags["adapter_id"] == "a" * 64
    assert version.source == "/store/a"
    assert "parent" not in version.tags


def test_a_version_names_the_run_that_trained_it(tracker: Tracker, client: "MlflowClient") -> None:
    with tracker.run("triage", "train") as run:
        pass
    tracker.register_adapter(make_adapter("a", run_id=run.run_id, parent="p" * 64))
    version = client.get_model_version("triage", "1")
    assert (version.run_id, version.tags["parent"]) == (run.run_id, "p" * 64)


def test_aliases_are_set_moved_and_deleted(tracker: Tracker) -> None:
    assert tracker.aliases("triage") == {}
    for letter in "ab":
        tracker.register_adapter(make_adapter(letter))
    tracker.set_alias("triage", "champion", "triage-aaaaaaaaaaaa")
    tracker.set_alias("triage", "candidate", "triage-bbbbbbbbbbbb")
    assert tracker.aliases("triage") == {
        "champion": "triage-aaaaaaaaaaaa",
        "candidate": "triage-bbbbbbbbbbbb",
    }
    tracker.set_alias("triage", "previous", "triage-aaaaaaaaaaaa")
    tracker.set_alias("triage", "champion", "triage-bbbbbbbbbbbb")
    tracker.set_alias("triage", "candidate", None)
    assert tracker.aliases("triage") == {
        "champion": "triage-bbbbbbbbbbbb",
        "previous": "triage-aaaaaaaaaaaa",
    }


def test_deleting_an_alias_that_is_not_there_is_harmless(tracker: Tracker) -> None:
    tracker.set_alias("triage", "previous", None)
    tracker.register_adapter(make_adapter("a"))
    tracker.set_alias("triage", "previous", None)
    assert tracker.aliases("triage") == {}


def test_an_alias_needs_a_registered_adapter(tracker: Tracker) -> None:
    with pytest.raises(TrackingError, match="'triage-nobody'.*register it"):
        tracker.set_alias("triage", "champion", "triage-nobody")


def test_workloads_are_registered_apart(tracker: Tracker) -> None:
    tracker.register_adapter(make_adapter("a"))
    assert tracker.register_adapter(make_adapter("b", workload="notes", name="notes-b")) == 1
    assert tracker.aliases("notes") == {}


def test_artifacts_lie_beside_the_database_and_nothing_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A new database in a folder that is not there yet: made, migrated, and not a word printed."""
    import mlflow

    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    before = mlflow.get_tracking_uri()
    tracker = Tracker(f"sqlite:///{tmp_path / 'deep' / 'er' / 'mlflow.db'}")
    with tracker.run("triage", "x") as run:
        run.log_text("PASS", "verdict.txt")
    tracker.register_adapter(make_adapter("a"))
    kept = tmp_path / "deep" / "er" / "artifacts" / run.run_id / "artifacts" / "verdict.txt"
    assert kept.read_text("utf-8") == "PASS"
    assert list(cwd.iterdir()) == []
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_a_run_without_a_server_has_mlflows_own_name(tracker: Tracker) -> None:
    assert tracker.run_url("abc") == "runs:/abc"


def test_a_tracker_is_cheap_until_it_is_used() -> None:
    """The nightly flow makes one before it knows whether there is anything to do."""
    started = time.monotonic()
    Tracker(NOBODY)
    assert time.monotonic() - started < 0.1


def test_a_server_that_is_down_is_told_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(UpstreamUnavailableError, match="refused") as caught:
        Tracker(NOBODY).aliases("triage")
    assert caught.value.url == NOBODY
    with pytest.raises(UpstreamUnavailableError), Tracker(NOBODY).run("triage", "x"):
        pass
    assert time.monotonic() - started < 5, "MLflow's own client would wait for minutes"


class Starting(LoopbackServer):
    """A server whose process is there and whose database is not yet."""

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.get("/health", self._not_yet)])
        return app

    async def _not_yet(self, request: web.Request) -> web.Response:
        return web.Response(status=503, text="starting")


def test_a_server_that_is_starting_is_unavailable() -> None:
    server = Starting().start()
    with pytest.raises(UpstreamUnavailableError) as caught:
        Tracker(server.url).aliases("triage")
    assert caught.value.status == 503
    server.stop()


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_text("this is not SQLite, whatever its name says " * 50, "utf-8")
    with pytest.raises(TrackingError, match="not a database"):
        Tracker(f"sqlite:///{path}").aliases("triage")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(TrackingError, match="folder cannot be made"):
        Tracker(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}").aliases("triage")


@pytest.mark.slow
def test_behind_a_server_it_is_all_the_same(
    mlflow_server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server decides where artifacts go, and refuses a version whose source is a folder."""
    from mlflow import MlflowClient

    server = mlflow_server
    tracker, client = Tracker(server), MlflowClient(server)
    with tracker.run("triage", "x") as run:
        run.log_metrics({"loss": 1.0})
        run.log_table("items", [{"n": 1}])
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.artifact_uri.startswith("mlflow-artifacts:")
    assert (tmp_path / "artifacts").is_dir()
    experiment = found.info.experiment_id
    assert tracker.run_url(run.run_id) == f"{server}/#/experiments/{experiment}/runs/{run.run_id}"
    adapter = make_adapter("a", run_id=run.run_id)
    assert [tracker.register_adapter(adapter) for _ in range(2)] == [1, 1]
    tracker.set_alias("triage", "champion", adapter.name)
    assert tracker.aliases("triage") == {"champion": adapter.name}
    assert client.get_model_version("triage", "1").source == "flywheel-adapter:///store/a"
    with pytest.raises(TrackingError, match="not found"), tracker.run("x", "x", run_id="f" * 32):
        pass
    assert capfd.readouterr().out == ""
