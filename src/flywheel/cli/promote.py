"""`flywheel promote | rollback | roll-forward | status`: what users get, and got before."""

import asyncio
import getpass
from typing import TYPE_CHECKING, Annotated, Literal

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
    print_table,
)
from flywheel.cli.steps import find_candidate, open_fleet
from flywheel.errors import FlywheelError
from flywheel.records import Release
from flywheel.settings import Settings
from flywheel.workload import Workload

if TYPE_CHECKING:
    from flywheel.capture.status import SpoolTotals
    from flywheel.promote import Fleet, StatusReport, Step

ReasonOption = Annotated[str, typer.Option(help="Why, for the ledger.")]
ActorOption = Annotated[str, typer.Option(help="Who, for the ledger. Default: the login name.")]


def promote(
    adapter: Annotated[
        str, typer.Option(help="Served name; `latest` is the newest adapter.")
    ] = "latest",
    reason: ReasonOption = "",
    actor: ActorOption = "",
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    json: JsonOption = False,
) -> None:
    """Release an adapter the gate passed against what serves now. Nothing goes round the gate.

    Safe to repeat: what an interrupted promotion left undone is done.

    Example: flywheel promote --adapter triage-3f2a9c1b7d10 --home demo
    """
    from flywheel.promote import promote as release_adapter

    settings, task = load(home, workload)
    fleet = open_fleet(settings, task)
    candidate = find_candidate(fleet, adapter).name
    released = asyncio.run(
        release_adapter(
            fleet, adapter=candidate, actor=actor or _login(), reason=reason, on_step=_tell
        )
    )
    _show_release(released, json)


def rollback(
    to_base: Annotated[
        bool, typer.Option("--to-base", help="Past every adapter, to the base model.")
    ] = False,
    reason: ReasonOption = "",
    actor: ActorOption = "",
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    json: JsonOption = False,
) -> None:
    """Give users the model they had before the present one; again goes further back.

    Example: flywheel rollback --reason "too terse" --home demo
    """
    settings, task = load(home, workload)
    verb: Literal["rollback", "rollback_to_base"] = "rollback_to_base" if to_base else "rollback"
    moved = asyncio.run(move(verb, settings, task, actor=actor or _login(), reason=reason))
    _show_release(moved, json)
    _mirror(open_fleet(settings, task))


def roll_forward(
    to: Annotated[
        str | None,
        typer.Option(help="A served name that served before. Default: what a roll-back left."),
    ] = None,
    reason: ReasonOption = "",
    actor: ActorOption = "",
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    json: JsonOption = False,
) -> None:
    """Give users the model a roll-back took away, or another that served before and had a PASS.

    Example: flywheel roll-forward --home demo
    """
    settings, task = load(home, workload)
    who = actor or _login()
    moved = asyncio.run(move("roll_forward", settings, task, actor=who, reason=reason, to=to))
    _show_release(moved, json)
    _mirror(open_fleet(settings, task))


def status(
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Bring replicas, gateway and MLflow back to the ledger."),
    ] = False,
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    json: JsonOption = False,
) -> None:
    """Show what serves, since when, and what is wrong. It answers when parts are down too.

    Example: flywheel status --home demo
    """
    from flywheel.capture import read_status
    from flywheel.promote import repair as bring_back
    from flywheel.promote import status as ask

    settings, task = load(home, workload)
    fleet = open_fleet(settings, task)
    if repair:
        asyncio.run(bring_back(fleet, on_step=_tell))
    report = asyncio.run(ask(fleet, new_labels=_new_labels(fleet)))
    captured = read_status(settings.spool_dir).totals
    if json:
        print_json({**report.model_dump(mode="json"), "captured": captured})
    else:
        _show_status(report, captured)


async def move(
    verb: Literal["rollback", "rollback_to_base", "roll_forward"],
    settings: Settings,
    workload: Workload,
    *,
    actor: str,
    reason: str = "",
    to: str | None = None,
) -> Release:
    """Moves the alias back or forward; returns once the gateway has confirmed it.

    MLflow's aliases are not touched: that takes longer than the move, and can be done after it.
    """
    from flywheel.promote import roll_forward as forward
    from flywheel.promote import rollback as back

    fleet = open_fleet(settings, workload)
    if verb == "roll_forward":
        return await forward(fleet, actor=actor, reason=reason, to=to, on_step=_tell)
    to_base = verb == "rollback_to_base"
    return await back(fleet, actor=actor, reason=reason, to_base=to_base, on_step=_tell)


def _mirror(fleet: "Fleet") -> None:
    from flywheel.promote import mirror

    try:
        mirror(fleet)
    except FlywheelError as error:
        messages.print(
            f"[yellow]MLflow's aliases are behind:[/] {escape(str(error))}\n"
            "the next night mirrors them, or `flywheel status --repair`"
        )


def _new_labels(fleet: "Fleet") -> int | None:
    """Labels no finished night has learned from; before the dataset's own rules leave any out."""
    from flywheel.dataset.history import read_history

    sql = (
        "select interaction_id from labels where workload = ? and name = ? "
        "and (correction is not null or value is not null or label is not null)"
    )
    task = fleet.workload
    try:
        labelled = fleet.lake.query(sql, (task.name, task.labels.name)).column(0).to_pylist()
        return len(set(labelled) - read_history(fleet.lake, task.name).learned)
    except FlywheelError:
        return None


def _tell(step: "Step") -> None:
    if step.warning:
        messages.print(f"[yellow]{step.name}:[/] {escape(step.warning)}", soft_wrap=True)
    else:
        messages.print(f"[dim]{step.name}: {step.seconds:.2f} s[/]")


def _show_release(release: Release, as_json: bool) -> None:
    if as_json:
        print_json(release)
        return
    console.print(
        f"{escape(release.alias)} now means [bold]{escape(release.model)}[/] "
        f"(epoch {release.epoch}, {release.action} by {escape(release.actor)}); "
        f"before: {escape(release.previous)}",
        soft_wrap=True,
    )


def _show_status(report: "StatusReport", captured: "SpoolTotals") -> None:
    from flywheel.cli.capture import sums

    spool = report.gateway.spool or {}
    since = report.since.strftime("%Y-%m-%d %H:%M:%S UTC") if report.since else "the beginning"
    how = f", {report.action} by {report.actor}" if report.action else ""
    labels = "unknown" if report.new_labels is None else str(report.new_labels)
    rows = [
        ["champion", f"{report.champion} (epoch {report.epoch}, since {since}{how})"],
        ["previous", report.previous or "none"],
        ["candidate", report.candidate or "none"],
        ["new labels", f"{labels} (a night needs {report.labels_needed})"],
        ["gateway", f"{report.gateway.url} {'up' if report.gateway.is_up else 'DOWN'}"],
        ["spool", ", ".join(f"{name} {value}" for name, value in spool.items()) or "unknown"],
        *([name, text] for name, text in zip(("captured", "", ""), sums(captured), strict=True)),
    ]
    for replica in report.replicas:
        state = f"up: {', '.join(replica.resident)}" if replica.is_up else "DOWN"
        rows.append(["model server", f"{replica.url} {state}"])
    rows.append(["MLflow", report.tracking_uri])
    print_table(
        f"{report.workload} (clients ask for {report.alias})",
        ["", ""],
        [[escape(cell) for cell in row] for row in rows],
    )
    for problem in report.problems:
        messages.print(f"[yellow]problem:[/] {escape(problem)}", soft_wrap=True)


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a user id that has no name.
        return "unknown"
