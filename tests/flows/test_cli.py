import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flywheel.cli.run import environment
from flywheel.cli.steps import Place
from flywheel.settings import Settings
from tests.flows.conftest import Flywheel, Teach

pytestmark = pytest.mark.timeout(900)


def test_run_nightly_prints_the_report_and_nothing_else_as_json(
    flywheel: Flywheel, teach: Teach
) -> None:
    teach(2)
    finished = flywheel("run", "nightly", "--json")
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    assert (report["outcome"], report["workload"]) == ("held", "triage")
    assert "2 new labels" in report["reason"]


def test_run_nightly_ends_with_a_sentence_and_a_failure_with_exit_code_one(
    flywheel: Flywheel, place: Place
) -> None:
    finished = flywheel("run", "nightly")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1].startswith("held: triage: 0 new labels")

    (place.workload.parent / "holdout.jsonl").unlink()
    finished = flywheel("run", "nightly")
    assert finished.returncode == 1
    assert finished.stdout.splitlines()[-1].startswith("failed: ")
    assert "holdout.jsonl" in finished.stdout


def test_a_flow_writes_into_the_home_and_tells_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith(("PREFECT_", "DO_NOT_TRACK")):
            monkeypatch.delenv(name)
    settings = Settings(home=tmp_path)
    found = environment(settings)
    assert found["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert (found["PREFECT_SERVER_ANALYTICS_ENABLED"], found["DO_NOT_TRACK"]) == ("false", "1")
    assert "PREFECT_API_URL" not in found
    nobody = settings.model_copy(update={"prefect_api_url": "http://127.0.0.1:9/api"})
    assert "PREFECT_API_URL" not in environment(nobody)
    monkeypatch.setenv("PREFECT_HOME", "elsewhere")
    assert environment(settings)["PREFECT_HOME"] == "elsewhere"


@pytest.mark.slow
def test_without_any_prefect_server_a_night_starts_one_and_keeps_its_database(
    place: Place, tmp_path: Path
) -> None:
    assert place.home is not None
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    finished = subprocess.run(
        [sys.executable, "-m", "flywheel.cli", "run", "nightly"]
        + ["--workload", str(place.workload), "--home", str(place.home)],
        env={**kept, "HOME": str(tmp_path / "user")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert (place.home / "prefect" / "prefect.db").is_file()
    assert not (tmp_path / "user" / ".prefect").exists()
