"""One night, and the report it leaves whatever happens.

Input: a place. Output: <home>/runs/nights/<night>.json, a `NightReport`. Nights of one workload do
not overlap: the second is refused.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flywheel.cli.steps import Place, find_decision, open_fleet
from flywheel.errors import ConfigError, FlywheelError, NightRunningError
from flywheel.records import Record, UtcDatetime, Verdict, new_id, utcnow

Outcome = Literal["released", "held", "failed"]


class NightReport(Record):
    """What one night did."""

    night_id: str
    workload: str
    started_at: UtcDatetime
    finished_at: UtcDatetime
    outcome: Outcome
    """released: users get a new adapter. held: nothing was wrong, and nothing is released. failed:
    something was wrong; the same command goes on where it stopped."""
    reason: str
    """A sentence."""
    snapshot_id: str | None = None
    adapter: str | None = None
    """Served name of the candidate."""
    decision_id: str | None = None
    verdict: Verdict | None = None
    epoch: int | None = None
    """Of the release, where one was made."""
    champion: str | None = None
    """Served name of what users get after it; NULL when the lake could not be read."""

    @classmethod
    def read(cls, path: Path) -> "NightReport":
        """Reads a report.

        Raises:
            ConfigError: there is none, or it is cut short.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            problem = f"is no report of a night: {error}. `flywheel run nightly` writes one."
            raise ConfigError(str(path), [problem]) from error


@dataclass
class Night:
    """A night while it runs: what is known so far."""

    place: Place
    night_id: str
    snapshot_id: str | None = None
    adapter: str | None = None
    decision_id: str | None = None
    held: str | None = None
    """Why it ended early."""
    _report: NightReport | None = None

    @property
    def report(self) -> NightReport:
        """What it did; there once it has ended."""
        if self._report is None:
            raise RuntimeError("the night is still going on")
        return self._report


def report_path(home: Path, night_id: str) -> Path:
    """Where a night's report is, under the deployment's root."""
    return home / "runs" / "nights" / f"{night_id}.json"


@contextmanager
def night(place: Place, night_id: str | None = None) -> Iterator[Night]:
    """Runs the body as one night of the workload and writes its report, also when it raises.

    Raises:
        NightRunningError: another night of the workload is going on.
    """
    settings, workload = place.load()
    running = Night(place, night_id or new_id())
    path = report_path(settings.root, running.night_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    started_at = utcnow()
    with _alone(path.with_name(f"{workload.name}.lock"), workload.name):
        try:
            yield running
        except BaseException as error:
            reason = str(error) or type(error).__name__
            _write(path, _report(running, started_at, outcome="failed", reason=reason))
            raise
        running._report = _conclude(running, started_at)
        _write(path, running.report)


def _conclude(running: Night, started_at: UtcDatetime) -> NightReport:
    """The report of a night that ran to its end: released, or held."""
    fleet = open_fleet(*running.place.load())
    if running.decision_id is None:
        reason = running.held or "there was nothing to decide"
        return _report(running, started_at, outcome="held", reason=reason)
    decision = find_decision(fleet, running.decision_id)
    made = [flip for flip in fleet.history() if flip.decision_id == decision.decision_id]
    if not made:
        reasons = "; ".join(decision.reasons)
        reason = f"the gate said {decision.verdict} to {decision.candidate}: {reasons}"
        return _report(running, started_at, outcome="held", reason=reason)
    reason = f"{decision.candidate} passed the gate against {decision.champion} and serves"
    return _report(running, started_at, outcome="released", reason=reason, epoch=made[-1].epoch)


def _report(
    running: Night,
    started_at: UtcDatetime,
    *,
    outcome: Outcome,
    reason: str,
    epoch: int | None = None,
) -> NightReport:
    champion = verdict = None
    _, workload = running.place.load()
    try:
        fleet = open_fleet(*running.place.load())
        champion = fleet.serving()
        if running.decision_id is not None:
            verdict = find_decision(fleet, running.decision_id).verdict
    except FlywheelError:
        # A night can fail because the lake does; its report must come out all the same.
        if outcome != "failed":
            raise
    return NightReport(
        night_id=running.night_id,
        workload=workload.name,
        started_at=started_at,
        finished_at=utcnow(),
        outcome=outcome,
        reason=reason,
        snapshot_id=running.snapshot_id,
        adapter=running.adapter,
        decision_id=running.decision_id,
        verdict=verdict,
        epoch=epoch,
        champion=champion,
    )


def _write(path: Path, report: NightReport) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


@contextmanager
def _alone(path: Path, workload: str) -> Iterator[None]:
    """Holds the workload's lock; the kernel lets go of it when the process dies."""
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NightRunningError(workload, str(path)) from error
        yield
