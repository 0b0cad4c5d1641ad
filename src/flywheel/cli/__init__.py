"""`flywheel …`: the same functions the flows call, one module a verb.

A FlywheelError becomes one line on stderr and exit code 1; a bug keeps its traceback.
"""

import sys

import typer
from rich.markup import escape

from flywheel.cli import capture, dataset, judge, keys, label, lake, review, run
from flywheel.cli.common import messages
from flywheel.cli.demo import demo
from flywheel.cli.engine import engine
from flywheel.cli.gate import gate
from flywheel.cli.gateway import gateway
from flywheel.cli.init import init
from flywheel.cli.promote import promote, roll_forward, rollback, status
from flywheel.cli.report import report
from flywheel.cli.run import deploy
from flywheel.cli.schemas import schemas
from flywheel.cli.sql import sql
from flywheel.cli.train import train
from flywheel.cli.up import up
from flywheel.errors import FlywheelError

app = typer.Typer(
    name="flywheel",
    help="Turns what production and its experts teach a language model each day into a better "
    "model each night, and lets nothing worse through.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


for verb in (
    init,
    demo,
    up,
    engine,
    train,
    gate,
    gateway,
    promote,
    rollback,
    roll_forward,
    status,
    deploy,
    report,
    sql,
    schemas,
):
    app.command()(verb)
app.add_typer(capture.app, name="capture")
app.add_typer(keys.app, name="keys")
app.add_typer(label.app, name="label")
app.add_typer(judge.app, name="judge")
app.add_typer(review.app, name="review")
app.add_typer(dataset.app, name="dataset")
app.add_typer(run.app, name="run")
app.add_typer(lake.app, name="lake")


def main() -> None:
    """The console script."""
    try:
        app()
    except FlywheelError as error:
        messages.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
