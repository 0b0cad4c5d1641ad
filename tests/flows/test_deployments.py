import importlib
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import load_flow_from_entrypoint

from flywheel.cli.steps import Place
from flywheel_flows.deploy import Plan, read_plan, rendered
from tests.flows.conftest import Flywheel, api_of_the_session

ROOT = Path(__file__).resolve().parents[2]
FLOWS = ("capture", "label", "dataset", "train", "gate", "promote", "nightly")

pytestmark = pytest.mark.timeout(900)


def test_no_file_of_the_flows_shadows_an_installed_module() -> None:
    """Prefect puts the folder of a flow on sys.path: flows/datasets.py would hide `datasets`."""
    elsewhere = [path for path in sys.path if Path(path).resolve() != (ROOT / "flows").resolve()]
    found = {
        path.stem
        for path in (ROOT / "flows").glob("*.py")
        if importlib.machinery.PathFinder.find_spec(path.stem, elsewhere) is not None
    }
    assert found <= {"__init__"}


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("form", ["flows/{0}.py:{0}", "flywheel_flows.{0}.{0}"])
def test_every_entrypoint_loads_as_a_flow_and_not_as_a_placeholder(name: str, form: str) -> None:
    entrypoint = form.format(name)
    if ":" in entrypoint:
        entrypoint = f"{ROOT}/{entrypoint}"
    flow: Flow[..., object] = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    assert isinstance(flow, Flow)
    assert flow.name == name
    assert "place" in flow.parameters.properties
    assert flow.description


def test_every_flow_is_deployed_by_an_entrypoint_that_loads() -> None:
    plan = read_plan()
    entrypoints = {deployment.entrypoint for deployment in plan.deployments}
    assert entrypoints == {f"flywheel_flows.{name}.{name}" for name in FLOWS}
    for deployment in plan.deployments:
        entrypoint = deployment.entrypoint
        flow: Flow[..., object] = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
        assert set(deployment.parameters) <= set(flow.parameters.properties)


def test_the_nightly_has_one_active_cron_schedule_and_both_pools_are_used() -> None:
    plan = read_plan()
    assert {deployment.work_pool.name for deployment in plan.deployments} == {"cpu", "gpu"}
    schedules = [s for d in plan.deployments for s in d.schedules]
    for schedule in schedules:
        CronSchedule(cron=str(schedule["cron"]), timezone=str(schedule["timezone"]))
    nightly = [d for d in plan.deployments if d.entrypoint.endswith(".nightly")]
    active = [s for d in nightly for s in d.schedules if s["active"]]
    assert [(s["cron"], s["timezone"]) for s in active] == [("0 2 * * *", "UTC")]
    names = [(d.entrypoint, d.name) for d in plan.deployments]
    assert len(names) == len(set(names))


def test_the_installed_package_carries_the_repositorys_prefect_yaml() -> None:
    packaged = (files("flywheel_flows") / "prefect.yaml").read_text(encoding="utf-8")
    assert packaged == (ROOT / "deployments" / "prefect.yaml").read_text(encoding="utf-8")


def test_a_rendered_plan_has_the_workloads_name_schedule_and_absolute_paths(place: Place) -> None:
    plan = rendered(place)
    nightly = next(d for d in plan.deployments if d.entrypoint.endswith(".nightly"))
    assert nightly.name == "triage-cpu"
    assert nightly.tags == ["flywheel", "triage"]
    assert nightly.schedules == [
        {"cron": "30 3 * * *", "timezone": "Europe/Berlin", "active": True}
    ]
    assert nightly.parameters["place"] == {"workload": str(place.workload), "home": str(place.home)}
    capture = next(d for d in plan.deployments if d.entrypoint.endswith(".capture"))
    assert capture.schedules[0]["cron"] == "*/10 * * * *"


@pytest.fixture
def deployed(place: Place, flywheel: Flywheel) -> Plan:
    finished = flywheel("deploy")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert place.home is not None
    return Plan.model_validate(yaml.safe_load((place.home / "prefect" / "triage.yaml").read_text()))


def test_flywheel_deploy_registers_pools_and_deployments_with_the_server(deployed: Plan) -> None:
    with get_client(sync_client=True) as client:
        pools = {client.read_work_pool(name).name for name in ("cpu", "gpu")}
        found = {(d.entrypoint, d.name): d for d in client.read_deployments()}
    assert pools == {"cpu", "gpu"}
    assert {(d.entrypoint, d.name) for d in deployed.deployments} <= set(found)
    nightly = found["flywheel_flows.nightly.nightly", "triage-cpu"]
    assert nightly.work_pool_name == "cpu"
    assert nightly.pull_steps == []
    schedule = nightly.schedules[0]
    assert isinstance(schedule.schedule, CronSchedule)
    assert (schedule.active, schedule.schedule.cron) == (True, "30 3 * * *")


def test_deploying_without_a_server_says_how_to_start_one(place: Place) -> None:
    command = [sys.executable, "-m", "flywheel_flows.deploy", "--workload", str(place.workload)]
    assert place.home is not None
    environment = {**os.environ, "PREFECT_HOME": str(place.home / "prefect")}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert "prefect server start" in finished.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("deployed")
def test_a_worker_runs_a_deployed_flow_from_the_installed_package(place: Place) -> None:
    assert place.home is not None
    environment = {**os.environ, **api_of_the_session(), "PREFECT_HOME": str(place.home)}
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    started = subprocess.run(
        [*prefect, "deployment", "run", "capture/triage-cpu"], env=environment, cwd="/", check=False
    )
    assert started.returncode == 0
    subprocess.run(
        [*prefect, "worker", "start", "--pool", "cpu", "--run-once"],
        env=environment,
        cwd="/",
        check=True,
    )
    with get_client(sync_client=True) as client:
        runs = [run for run in client.read_flow_runs() if run.deployment_id is not None]
    assert [run.state_name for run in runs] == ["Completed"]
