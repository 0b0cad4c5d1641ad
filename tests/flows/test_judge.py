"""The judge flow in threads and, where prefect-ray is installed, on Ray."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.judge_endpoint import grade_of
from flywheel.cli.judging import JudgeOutcome, find_judge, judging_alone, run_label_judges
from flywheel.cli.steps import Place
from flywheel.errors import JudgeError, JudgeNotQualifiedError
from flywheel.lake import Lake
from flywheel_flows.judge import judge
from tests.label.judging.conftest import GRADES, Office, Server, endpoint, qualified

pytestmark = pytest.mark.timeout(900)

COUNT = 24


@pytest.fixture
def server() -> Iterator[Server]:
    with endpoint(latency_s=0.02) as started:
        yield started


@pytest.fixture
def judged_place(tmp_path: Path, server: Server) -> Place:
    """A home with answers, and a judge for them that has qualified."""
    (tmp_path / "home").mkdir()
    office = Office(tmp_path, Lake(str(tmp_path / "home" / "lake")))
    office.answers(COUNT)
    workload = office.declare(server)
    office.lake.append([qualified(find_judge(workload, "helpful"))])
    return Place(workload=office.workload_file, home=office.home)


def given(place: Place) -> dict[str, str]:
    settings, _ = place.load()
    rows = Lake.open(settings).query("select interaction_id, label from labels").to_pylist()
    return {row["interaction_id"]: row["label"] for row in rows}


EXPECTED = {f"base-{n:05}": grade_of(f"item-{n:05}", GRADES) for n in range(COUNT)}


def test_shards_in_threads_judge_everything_once_under_one_run(
    judged_place: Place, server: Server
) -> None:
    outcome = judge(judged_place, "helpful", shards=3)
    assert (outcome.state, outcome.judged, outcome.failed) == ("valid", COUNT, 0)
    assert given(judged_place) == EXPECTED
    assert server.stats()["completions"] == COUNT
    settings, _ = judged_place.load()
    runs = Lake.open(settings).query("select distinct judge_run_id from assessments").num_rows
    assert runs == 1


def test_shards_run_on_ray(judged_place: Place, server: Server) -> None:
    ray = pytest.importorskip("prefect_ray", reason="pip install 'flywheel[ray]'")
    runner = ray.RayTaskRunner(init_kwargs={"num_cpus": 2, "include_dashboard": False})
    outcome = judge.with_options(task_runner=runner)(judged_place, "helpful", shards=2)
    assert (outcome.state, outcome.judged) == ("valid", COUNT)
    assert given(judged_place) == EXPECTED
    assert server.stats()["completions"] == COUNT


def test_a_judge_that_has_not_qualified_labels_nothing_and_the_night_goes_on(
    judged_place: Place, server: Server
) -> None:
    outcomes = run_label_judges(judged_place)
    assert [(one.judge, one.state) for one in outcomes] == [
        ("helpful", "valid"),
        ("better", "refused"),
    ]
    assert "flywheel judge qualify better" in outcomes[1].reason
    assert isinstance(outcomes[0], JudgeOutcome)
    assert server.stats()["completions"] == COUNT


def test_a_flow_of_an_unqualified_judge_fails_with_the_command_that_qualifies(
    judged_place: Place,
) -> None:
    with pytest.raises(JudgeNotQualifiedError, match="flywheel judge qualify better"):
        judge(judged_place, "better")


def test_a_second_run_of_a_judge_is_refused_while_one_is_going_on(judged_place: Place) -> None:
    with (
        judging_alone(judged_place, "helpful"),
        pytest.raises(JudgeError, match="is judging triage already"),
    ):
        judge(judged_place, "helpful")
