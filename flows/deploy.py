"""Registers the flows of one workload with a Prefect server.

Input: a workload, and the `prefect.yaml` that travels with this package. Output: the work pools
`cpu` and `gpu` where they are missing, and one deployment a stage, named for the workload, with its
own schedule and absolute paths.
Command: `flywheel deploy`, which is `python -m flywheel_flows.deploy`.
"""

import argparse
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import yaml
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from pydantic import BaseModel, ConfigDict, JsonValue

from flywheel.cli.steps import Place

PREFECT = (sys.executable, "-m", "prefect", "--no-prompt")


class Pool(BaseModel):
    """Where a deployment's runs are picked up."""

    model_config = ConfigDict(extra="allow")
    name: str


class Deployment(BaseModel):
    """One entry of prefect.yaml; what is not named here stays as it is."""

    model_config = ConfigDict(extra="allow")
    name: str
    entrypoint: str
    work_pool: Pool
    parameters: dict[str, JsonValue]
    tags: list[str]
    schedules: list[dict[str, JsonValue]] = []


class Plan(BaseModel):
    """prefect.yaml."""

    model_config = ConfigDict(extra="allow")
    deployments: list[Deployment]


def read_plan() -> Plan:
    """The prefect.yaml that travels with this package."""
    text = (files("flywheel_flows") / "prefect.yaml").read_text(encoding="utf-8")
    return Plan.model_validate(yaml.safe_load(text))


def rendered(place: Place) -> Plan:
    """The same with the workload's name, paths and schedule in it."""
    settings, workload = place.load()
    plan = read_plan()
    for deployment in plan.deployments:
        deployment.name = f"{workload.name}-{deployment.name}"
        deployment.tags.append(workload.name)
        deployment.parameters["place"] = {
            "workload": str(place.workload.absolute()),
            "home": str(settings.root),
        }
        if deployment.entrypoint.endswith(".nightly"):
            for schedule in deployment.schedules:
                schedule.update(workload.schedule.model_dump(mode="json"))
    return plan


def create_missing_pools(names: set[str]) -> None:
    """Makes process work pools that are not there; those that are stay as they are."""
    for name in sorted(names):
        try:
            with get_client(sync_client=True) as client:
                client.read_work_pool(name)
        except ObjectNotFound:
            subprocess.run([*PREFECT, "work-pool", "create", name, "--type", "process"], check=True)


def main() -> int:
    """Deploys; 0 when the server took everything."""
    parser = argparse.ArgumentParser(prog="python -m flywheel_flows.deploy", description=__doc__)
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--home", type=Path)
    arguments = parser.parse_args()
    place = Place(workload=arguments.workload, home=arguments.home)
    if not PREFECT_API_URL.value():
        sys.stderr.write(
            "error: PREFECT_API_URL is not set, so there is no server to deploy to. Start one with "
            "`prefect server start` or `flywheel up`, and set it to http://…/api.\n"
        )
        return 1
    plan = rendered(place)
    create_missing_pools({deployment.work_pool.name for deployment in plan.deployments})
    settings, workload = place.load()
    path = settings.root / "prefect" / f"{workload.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    return subprocess.run([*PREFECT, "deploy", "--all", "--prefect-file", str(path)]).returncode


if __name__ == "__main__":
    sys.exit(main())
