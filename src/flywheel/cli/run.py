"""`flywheel run nightly`, `flywheel deploy`: the Prefect flows, in a process of their own.

The library never imports Prefect. The flows are the package `flywheel_flows`, run with `python -m`.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import typer
from rich.markup import escape

from flywheel.cli.common import (
    DEFAULT_WORKLOAD,
    HomeOption,
    JsonOption,
    WorkloadOption,
    console,
    load,
    messages,
    print_json,
)
from flywheel.cli.night import NightReport, report_path
from flywheel.cli.stack import answers
from flywheel.errors import MissingExtraError
from flywheel.records import new_id
from flywheel.settings import Settings

app = typer.Typer(help="Run a flow here and now.", no_args_is_help=True)


@app.callback()
def _run() -> None:
    """Run a flow here and now."""


@app.command()
def nightly(
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    json: JsonOption = False,
) -> None:
    """Turn the wheel once: drain, label, build, train, gate, promote.

    Running a failed night again redoes only what is missing. With PREFECT_API_URL the run shows in
    that server's UI; without, a temporary server writes to <home>/prefect.

    Exit code: 0 released or held, 1 failed.

    Example: flywheel run nightly --workload examples/triage/flywheel.yaml --home demo
    """
    settings, _ = load(home, workload)
    night_id = new_id()
    command = ["--workload", str(workload.absolute()), "--home", str(settings.root)]
    returncode = run_module(
        "flywheel_flows.nightly", settings, *command, "--night", night_id, quiet_stdout=json
    )
    path = report_path(settings.root, night_id)
    if not path.is_file():
        messages.print("[bold red]failed[/] before the night began; what it said is above")
        raise typer.Exit(returncode or 1)
    report = NightReport.read(path)
    if json:
        print_json(report)
    else:
        colour = {"released": "green", "held": "yellow", "failed": "bold red"}[report.outcome]
        console.print(f"[{colour}]{report.outcome}[/]: {escape(report.reason)}", soft_wrap=True)
    raise typer.Exit(returncode)


def deploy(
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
) -> None:
    """Register the flows with a Prefect server: schedule, work pools, one deployment a stage.

    Needs PREFECT_API_URL. The nightly runs at `schedule.cron` of the workload, on a worker started
    with `prefect worker start --pool cpu`. Deploying again updates what is there.

    Example: flywheel deploy --workload examples/triage/flywheel.yaml --home demo
    """
    settings, _ = load(home, workload)
    command = ["--workload", str(workload.absolute()), "--home", str(settings.root)]
    raise typer.Exit(run_module("flywheel_flows.deploy", settings, *command))


def run_module(module: str, settings: Settings, *arguments: str, quiet_stdout: bool = False) -> int:
    """Runs a module of the flows and lets it print; returns its exit code.

    Raises:
        MissingExtraError: Prefect is not installed.
    """
    if importlib.util.find_spec("prefect") is None:
        raise MissingExtraError("prefect", "flows")
    finished = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment(settings),
        stdout=sys.stderr if quiet_stdout else None,
        check=False,
    )
    return finished.returncode


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a flow's process: nothing outside the home, nothing told to anybody.

    What is set already stays, so that a Prefect of your own is used as you configured it. A server
    that `flywheel up` started is used while it answers.
    """
    home: Path = settings.root / "prefect"
    defaults = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        # A person at the terminal reads the steps' own lines; the UI has Prefect's as well.
        "PREFECT_LOGGING_EXTRA_LOGGERS": "flywheel",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    if settings.prefect_api_url and answers(f"{settings.prefect_api_url}/health"):
        defaults["PREFECT_API_URL"] = settings.prefect_api_url
    return {**defaults, **os.environ}
