"""What takes more than one stage, for the commands and the flows alike.

Input: a `Place` and ids. Output: an id, or `Held` with the reason why there is nothing more to do
tonight. Each step opens what it needs, can be repeated, and leaves what it did in the lake.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel.errors import NotEnoughLabelsError, PromotionError
from flywheel.records import Record
from flywheel.settings import Settings
from flywheel.workload import Workload

if TYPE_CHECKING:
    from flywheel.capture import DrainReport
    from flywheel.label import GradeReport
    from flywheel.promote import Fleet, Step
    from flywheel.records import Adapter, Decision, Release
    from flywheel.train import TrainProgress

log = logging.getLogger("flywheel.steps")

PROGRESS_EVERY_S = 5.0
NIGHTLY = "nightly"
"""The actor of a release no person asked for."""
DECISION_SQL = "select * from decisions where workload = ? and decision_id = ?"


class Place(Record):
    """Which workload, and where: two paths, so that it can cross to another process."""

    workload: Path
    """The workload file."""
    home: Path | None = None
    """The deployment's folder; $FLYWHEEL_HOME or ./.flywheel when absent."""

    def load(self) -> tuple[Settings, Workload]:
        """The deployment's settings and the workload, both validated.

        Raises:
            ConfigError: with everything that does not hold.
        """
        return Settings.load(home=self.home), Workload.load(self.workload)


class Held(Record):
    """Nothing went wrong, and nothing is released: why."""

    reason: str


def open_fleet(settings: Settings, workload: Workload) -> "Fleet":
    """The replicas, gateway, lake and registry of a deployment. It connects to nothing yet."""
    from flywheel.lake import Lake
    from flywheel.promote import Fleet, HttpGatewayAdmin, HttpModelServer
    from flywheel.tracking import Tracker

    return Fleet(
        workload=workload,
        lake=Lake.open(settings),
        servers=tuple(HttpModelServer(url) for url in settings.engine_urls),
        gateway=HttpGatewayAdmin(settings.gateway_admin_url, token=settings.read_admin_token()),
        tracker=Tracker(settings.tracking_uri),
        store=settings.adapter_dir,
    )


def drain_spool(place: Place) -> "DrainReport":
    """Moves what the gateway captured into the lake."""
    from flywheel.capture import drain
    from flywheel.capture.redact import redactors_for
    from flywheel.lake import Lake

    settings, workload = place.load()
    redactors = redactors_for(settings, workload)
    return drain(settings.spool_dir, Lake.open(settings), redactors=redactors)


def grade_captured(place: Place) -> "GradeReport":
    """Runs the workload's code graders over what has no grade yet."""
    from flywheel.label import grade_captured as grade
    from flywheel.lake import Lake

    settings, workload = place.load()
    return grade(Lake.open(settings), workload, on_progress=_told("graded"))


def build_snapshot(place: Place) -> str | Held:
    """Builds the snapshot of all usable labels and returns its id; too few new ones hold."""
    from flywheel.dataset import build_snapshot as build
    from flywheel.lake import Lake

    settings, workload = place.load()
    try:
        snapshot = build(Lake.open(settings), workload, folder=settings.snapshot_dir)
    except NotEnoughLabelsError as too_few:
        return Held(reason=str(too_few))
    return snapshot.snapshot_id


def train_adapter(
    place: Place,
    snapshot_id: str = "latest",
    *,
    on_progress: "Callable[[TrainProgress], None] | None" = None,
) -> str:
    """Trains on a snapshot, keeps what comes out, and returns its served name."""
    from flywheel.dataset import find_snapshot
    from flywheel.models import resolve_base_model
    from flywheel.train import plan, train

    settings, workload = place.load()
    fleet = open_fleet(settings, workload)
    now = fleet.lake.current_release(workload.name)
    continued = now.adapter if now and workload.training.start_from == "champion" else None
    spec = plan(
        workload,
        find_snapshot(fleet.lake, workload.name, snapshot_id),
        base_model_path=resolve_base_model(
            workload.base_model, cache=settings.models_dir, progress=log.info
        ),
        parent=fleet.stored(continued) if continued else None,
        output_root=settings.runs_dir / "train",
        tracking_uri=settings.tracking_uri,
    )
    return keep_adapter(fleet, train(spec, on_progress=on_progress or _trained())).name


def keep_adapter(fleet: "Fleet", trained: "Adapter") -> "Adapter":
    """Puts a trained adapter into the store, the lake and MLflow's registry, as the candidate."""
    from flywheel.promote import mirror, store_adapter

    stored = store_adapter(trained, fleet.store)
    fleet.lake.append([stored])
    fleet.tracker.register_adapter(stored)
    mirror(fleet)
    return stored


def stage_candidate(place: Place, adapter: str = "latest") -> str:
    """Loads a candidate on every replica beside the champion, and returns its served name."""
    from flywheel.promote import ensure_resident, stage

    fleet = open_fleet(*place.load())
    candidate = fleet.stored(find_candidate(fleet, adapter).name)
    asyncio.run(_in_order(stage(candidate, fleet.servers), ensure_resident(fleet, fleet.serving())))
    return candidate.name


def judge(place: Place, adapter: str) -> str:
    """Has the gate judge a staged adapter against what serves now; returns the decision's id."""
    from flywheel.chat import OpenAIChatModel
    from flywheel.gate import run_gate
    from flywheel.label.qualifying import require_gate_judges

    settings, workload = place.load()
    fleet = open_fleet(settings, workload)
    require_gate_judges(fleet.lake, workload)

    async def ask() -> "Decision":
        chat = OpenAIChatModel(f"{settings.engine_urls[0].rstrip('/')}/v1")
        try:
            return await run_gate(
                fleet.lake,
                fleet.tracker,
                workload,
                chat,
                candidate=adapter,
                champion=fleet.serving(),
                on_progress=_told("answered"),
            )
        finally:
            await chat.close()

    return asyncio.run(ask()).decision_id


def release(place: Place, decision_id: str, actor: str = NIGHTLY) -> "Release | Held":
    """Releases what the decision passed; a FAIL or an INCONCLUSIVE holds."""
    from flywheel.promote import promote

    fleet = open_fleet(*place.load())
    decision = find_decision(fleet, decision_id)
    if decision.verdict != "PASS":
        reasons = "; ".join(decision.reasons)
        return Held(reason=f"the gate said {decision.verdict} to {decision.candidate}: {reasons}")
    return asyncio.run(promote(fleet, adapter=decision.candidate, actor=actor, on_step=log_step))


def settle(place: Place) -> None:
    """Brings replicas, gateway and MLflow in line with the ledger, and unloads what nobody needs.

    It ends every night, so that whatever was down in an earlier one is made good. What cannot be
    made good now is logged.
    """
    from flywheel.promote import repair, retire

    fleet = open_fleet(*place.load())
    asyncio.run(_in_order(repair(fleet, on_step=log_step), retire(fleet)))


def tidy_lake(place: Place) -> None:
    """Joins the day's small files, drops what is past its retention, and writes lake.duckdb."""
    from flywheel.lake import Lake

    settings = Settings.load(home=place.home)
    lake = Lake.open(settings)
    lake.compact()
    lake.vacuum()
    lake.catalog(settings.root / "lake.duckdb")


def find_candidate(fleet: "Fleet", name: str = "latest") -> "Adapter":
    """The adapter of that name, or the newest.

    Raises:
        PromotionError: there is none.
    """
    if name != "latest":
        return fleet.adapter(name)
    newest = next(iter(fleet.adapters()), None)
    if newest is None:
        raise PromotionError(f"{fleet.workload.name} has no adapter yet: `flywheel train`.")
    return newest


def find_decision(fleet: "Fleet", decision_id: str) -> "Decision":
    """The decision with that id.

    Raises:
        PromotionError: there is none.
    """
    from flywheel.records import Decision

    found = fleet.lake.fetch(Decision, DECISION_SQL, (fleet.workload.name, decision_id))
    if not found:
        raise PromotionError(
            f"{fleet.workload.name} has no decision {decision_id!r}: `flywheel gate` makes one."
        )
    return found[0]


def log_step(step: "Step") -> None:
    """One line a step, for the log of a run that nobody watches."""
    if step.warning:
        log.warning("%s: %s", step.name, step.warning)
    else:
        log.info("%s: %.2f s", step.name, step.seconds)


async def _in_order(*parts: Awaitable[object]) -> None:
    for part in parts:
        await part


def _trained() -> "Callable[[TrainProgress], None]":
    """Training's progress as a log line every few seconds, and at the end of a phase."""
    last = time.monotonic()

    def told(progress: "TrainProgress") -> None:
        nonlocal last
        is_last = progress.step == progress.total_steps and progress.loss is not None
        if is_last or time.monotonic() - last > PROGRESS_EVERY_S:
            last = time.monotonic()
            where = f"step {progress.step} of {progress.total_steps}"
            loss = f", loss {progress.loss:.3f}" if progress.loss is not None else ""
            log.info("training %s: %s%s", progress.phase.upper(), where, loss)

    return told


def _told(what: str) -> Callable[[int, int], None]:
    """Progress as a log line every few seconds, and at the end."""
    last = time.monotonic()

    def told(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > PROGRESS_EVERY_S:
            last = time.monotonic()
            log.info("%s %d of %d", what, done, total)

    return told
