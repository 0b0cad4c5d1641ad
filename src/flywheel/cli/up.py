"""`flywheel up`: every server of a deployment, in the foreground, until Ctrl-C."""

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from flywheel.cli.common import DEFAULT_WORKLOAD, HomeOption, console
from flywheel.errors import UpstreamUnavailableError
from flywheel.settings import Settings


def up(
    home: HomeOption = None,
    workload: Annotated[
        list[Path] | None, typer.Option("--workload", "-w", help="A workload file; repeatable.")
    ] = None,
    gateway_port: Annotated[int, typer.Option(help="0 takes a free port.")] = 8080,
    admin_port: Annotated[int, typer.Option(help="The gateway's administration.")] = 8081,
    engine_port: Annotated[int, typer.Option(help="The model server.")] = 8100,
    mlflow_port: Annotated[int, typer.Option(help="MLflow's server and UI.")] = 5000,
    prefect_port: Annotated[int, typer.Option(help="Prefect's server and UI.")] = 4200,
) -> None:
    """Start engine, gateway, MLflow and Prefect on loopback, until Ctrl-C.

    The other commands find them through --home.

    Example: flywheel up --home demo --workload examples/triage/flywheel.yaml
    """
    from flywheel.cli.stack import Ports, Server, Stack

    ports = Ports(gateway_port, admin_port, engine_port, mlflow_port, prefect_port)
    settings = Settings.load(home=home)
    stack = Stack(settings, workload or [DEFAULT_WORKLOAD], ports=ports)

    def told(server: Server, seconds: float) -> None:
        console.print(f"  {server.name:<8} {server.url}  [dim]({seconds:.0f} s)[/]")

    def asked_to_stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, asked_to_stop)
    console.print(f"starting in {settings.root} …")
    try:
        stack.start(told)
        console.print(
            f"ready. Point an OpenAI client at base_url={stack.settings.gateway_url}/v1\n"
            f"the nightly flow: flywheel run nightly --home {settings.home} "
            f"--workload {(workload or [DEFAULT_WORKLOAD])[0]}\nCtrl-C stops everything."
        )
        while (ended := stack.ended()) is None:
            time.sleep(1)
        raise UpstreamUnavailableError(ended.url, f"{ended.name} ended; its log: {ended.log}")
    except KeyboardInterrupt:
        console.print("\nstopping …")
    finally:
        stack.stop()
