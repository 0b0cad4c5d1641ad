"""A deployment small enough to turn: a real lake, a tiny model really trained, loopback servers."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from flywheel.cli.steps import Place
from flywheel.lake import Lake
from flywheel.records import Message
from flywheel.settings import Settings
from flywheel.testing import make_assessment, make_interaction
from tests.loopback import TOKEN, AdminPort, Replica

LABELS = ("emergency", "urgent", "routine")
WORKLOAD = """
name: triage
alias: triage
base_model: {base}
labels: {{name: urgency, minimum_new: 6, graders: [short]}}
dataset: {{kinds: [sft], validation_share: 0}}
training:
  lora: {{rank: 1, alpha: 2}}
  sft: {{learning_rate: 1.0e-3, epochs: 1, batch_size: 4}}
  dpo: null
  max_length: 256
graders:
  correct:
    type: string_check
    operation: eq
    input: "{{{{sample.output_text}}}}"
    reference: "{{{{item.reference.urgency}}}}"
  short: {{type: string_check, operation: like, input: "{{{{sample.output_text}}}}", reference: a}}
gate:
  suite: holdout.jsonl
  target: {{grader: correct}}
  resamples: 200
promotion: {{verify_prompt: "Are you there?"}}
schedule: {{cron: "30 3 * * *", timezone: Europe/Berlin}}
"""

Teach = Callable[[int], None]
Flywheel = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session", autouse=True)
def _prefect() -> Iterator[None]:
    """A Prefect server of this session's own; starting it takes seconds."""
    with prefect_test_harness(server_startup_timeout=300):
        yield


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries happen at once."""
    from flywheel_flows import capture, dataset, gate, judge, label, nightly, promote, train

    tasks = [capture.drain, label.grade, label.ask_judges, dataset.build, train.learn]
    tasks += [gate.stage, gate.decide, judge.begin, judge.shard, judge.finish]
    for task in [*tasks, promote.flip, nightly.tidy]:
        monkeypatch.setattr(task, "retry_delay_seconds", 0)


@pytest.fixture
def replica(tiny_model: Path) -> Iterator[Replica]:
    """A model server whose adapters know the answer, while its base never does."""
    server = Replica(str(tiny_model))
    server.answer = lambda model, messages: (
        "no idea" if model == server.base_model else right_answer(messages[-1]["content"])
    )
    yield server.start()
    server.stop()


def right_answer(question: str) -> str:
    """The last word of a question of the suite names its answer."""
    return question.split()[-1]


@pytest.fixture
def gateway() -> Iterator[AdminPort]:
    port = AdminPort().start()
    yield port
    port.stop()


@pytest.fixture
def place(
    tmp_path: Path, tiny_model: Path, replica: Replica, gateway: AdminPort, tracking_uri: str
) -> Place:
    """A workload file with its suite, and a home that knows where the servers are."""
    folder, home = tmp_path / "workload", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    (folder / "flywheel.yaml").write_text(WORKLOAD.format(base=tiny_model), encoding="utf-8")
    items = [
        {
            "item_id": f"h{number}",
            "messages": [{"role": "user", "content": f"held out {number}: {LABELS[number % 3]}"}],
            "reference": {"urgency": LABELS[number % 3]},
        }
        for number in range(24)
    ]
    lines = "".join(json.dumps(item) + "\n" for item in items)
    (folder / "holdout.jsonl").write_text(lines, encoding="utf-8")
    facts = {
        "engine_urls": [replica.url],
        "gateway_admin_url": gateway.url,
        "mlflow_tracking_uri": tracking_uri,
    }
    (home / "deployment.json").write_text(json.dumps(facts), encoding="utf-8")
    (home / "admin-token").write_text(TOKEN, encoding="utf-8")
    return Place(workload=folder / "flywheel.yaml", home=home)


@pytest.fixture
def lake(place: Place) -> Lake:
    return Lake.open(Settings.load(home=place.home))


@pytest.fixture
def teach(lake: Lake) -> Teach:
    """So many corrected answers more in the lake, the same ones in every test."""
    taught = 0

    def make(count: int) -> None:
        nonlocal taught
        for number in range(taught, taught + count):
            identity, at = (
                f"i{number:04}",
                datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number),
            )
            interaction = make_interaction(
                interaction_id=identity,
                started_at=at,
                messages=(Message(role="user", content=f"patient {number} writes: it hurts"),),
            )
            correction = Message(role="assistant", content=LABELS[number % 3])
            lake.append([interaction])
            lake.append(
                [
                    make_assessment(
                        assessment_id=f"a{number:04}",
                        interaction_id=identity,
                        correction=correction,
                        created_at=at,
                    )
                ]
            )
        taught += count

    return make


def api_of_the_session() -> dict[str, str]:
    """What another process needs in its environment to use this session's Prefect server."""
    url = PREFECT_API_URL.value()
    assert url
    return {"PREFECT_API_URL": url}


@pytest.fixture
def flywheel(place: Place) -> Flywheel:
    """`flywheel …` in a process of its own, in the place, with this session's Prefect server."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        options = ("--workload", str(place.workload), "--home", str(place.home))
        return subprocess.run(
            [sys.executable, "-m", "flywheel.cli", *arguments, *options],
            env={**os.environ, **api_of_the_session()},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that trains leaves what others need not train again."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def reuse_training(place: Place, trained_runs: Path) -> Iterator[None]:
    """What an earlier test of this session trained is found as if an earlier night had."""
    assert place.home is not None
    runs = place.home / "runs" / "train"
    if any(trained_runs.iterdir()):
        shutil.copytree(trained_runs, runs)
    yield
    if runs.is_dir():
        shutil.copytree(runs, trained_runs, dirs_exist_ok=True)
