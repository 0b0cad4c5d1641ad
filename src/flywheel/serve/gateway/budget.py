"""A workload's budget of the day, in USD, over every gateway process of a home.

Input: budgets from flywheel.yaml, the cost of each call. Output: a BudgetSpentError once it is
spent. A day is a UTC day.

Each process keeps what it spent in a file of its own, <home>/gateway/spend-<day>-<process>.json,
written by a thread at most once a second and at the close; the sum over the files of the day
counts, so that a restart forgets nothing. A process that is killed forgets its last second. What is
in flight, and what others spent in the last two seconds, may go over the budget. A call of unknown
cost spends nothing; it is counted, and shown.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from pydantic import ValidationError

from flywheel.errors import BudgetSpentError, ConfigError
from flywheel.records import Record, UtcDatetime, new_id, utcnow

logger = logging.getLogger(__name__)

WRITE_S = 1.0
KEPT_DAYS = 31
"""Older files are removed by whoever starts next."""


class Spend(Record):
    """What a workload spent on one day."""

    usd: float = 0.0
    calls: int = 0
    """Of known cost."""
    unknown: int = 0
    """Calls whose cost nobody knows: no price, or no token counts."""

    def plus(self, other: "Spend") -> "Spend":
        """The sum."""
        return Spend(
            usd=self.usd + other.usd,
            calls=self.calls + other.calls,
            unknown=self.unknown + other.unknown,
        )


@dataclass(slots=True)
class _Tally:
    """A Spend that grows: on the request path a frozen record a call would cost too much."""

    usd: float = 0.0
    calls: int = 0
    unknown: int = 0

    def frozen(self) -> Spend:
        return Spend(usd=self.usd, calls=self.calls, unknown=self.unknown)


class SpendFile(Record):
    """What one process spent on one day, by workload."""

    day: date
    writer: str
    workloads: dict[str, Spend]


class BudgetState(Record):
    """Where a workload stands today."""

    workload: str
    day: date
    spend: Spend
    budget_usd: float | None
    resets_at: UtcDatetime


def read_spend(folder: Path, day: date, *, but: str | None = None) -> dict[str, Spend]:
    """What every process of a home spent on a day, by workload.

    Args:
        folder: <home>/gateway.
        day: UTC.
        but: a writer to leave out.
    """
    total: dict[str, Spend] = {}
    for path in sorted(folder.glob(f"spend-{day.isoformat()}-*.json")):
        if but is not None and path == _path(folder, day, but):
            continue
        try:
            found = SpendFile.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            logger.error("%s cannot be read, its spending is not counted: %s", path, error)
            continue
        for workload, spend in found.workloads.items():
            total[workload] = total.get(workload, Spend()).plus(spend)
    return total


class DailyBudgets:
    """The budgets of one gateway process, and the thread that writes what it spent.

    Args:
        folder: <home>/gateway; made when absent.
        budgets: USD a day by workload.
        now: aware UTC.

    Raises:
        ConfigError: the folder cannot be written to: a restart would spend a budget twice.
    """

    def __init__(
        self,
        folder: Path,
        budgets: Mapping[str, float],
        *,
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        self._folder, self._now = folder, now
        self._budgets = dict(budgets)
        self.writer = new_id()
        self._lock = threading.Lock()
        self._own: dict[date, dict[str, _Tally]] = {}
        self._changed: set[date] = set()
        self._others: dict[date, dict[str, Spend]] = {}
        self._is_failing = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _forget_before(folder, self._today() - timedelta(days=KEPT_DAYS))
        except OSError as error:
            raise ConfigError(str(folder), [f"cannot be written to: {error.strerror}"]) from error
        self.refresh()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flywheel-budget", daemon=True)
        self._thread.start()

    def replace_budgets(self, budgets: Mapping[str, float]) -> None:
        """Takes budgets of a workload file read anew; what was spent stays spent."""
        self._budgets = dict(budgets)

    def check(self, workload: str) -> None:
        """Lets a call pass while there is budget.

        Raises:
            BudgetSpentError: there is none, with the moment it resets.
        """
        budget = self._budgets.get(workload)
        if budget is None:
            return
        now = self._now()
        day = now.astimezone(UTC).date()
        with self._lock:
            own = self._own.get(day, {}).get(workload)
            others = self._others.get(day, {}).get(workload)
        spent = (own.usd if own is not None else 0.0) + (others.usd if others is not None else 0.0)
        if spent >= budget:
            raise BudgetSpentError(
                workload, spent_usd=spent, budget_usd=budget, now=now, resets=_midnight_after(day)
            )

    def has_budget(self, workload: str) -> bool:
        """Whether a workload has one."""
        return workload in self._budgets

    def spend(self, workload: str, cost_usd: float | None) -> None:
        """Counts a call that was answered, on the day it was answered."""
        day = self._today()
        with self._lock:
            tally = self._own.setdefault(day, {}).setdefault(workload, _Tally())
            if cost_usd is None:
                tally.unknown += 1
            else:
                tally.usd += cost_usd
                tally.calls += 1
            self._changed.add(day)

    def states(self) -> list[BudgetState]:
        """Every workload that has a budget, or has spent anything today."""
        day = self._today()
        with self._lock:
            others = self._others.get(day, {})
            names = {*self._budgets, *self._own.get(day, {}), *others}
        return [
            BudgetState(
                workload=name,
                day=day,
                spend=self._spend(day, name),
                budget_usd=self._budgets.get(name),
                resets_at=_midnight_after(day),
            )
            for name in sorted(names)
        ]

    def refresh(self) -> None:
        """Writes what this process spent and reads what the others did."""
        today = self._today()
        with self._lock:
            changed = {
                day: {name: tally.frozen() for name, tally in self._own[day].items()}
                for day in self._changed
            }
            self._changed.clear()
        for day, workloads in changed.items():
            self._write(SpendFile(day=day, writer=self.writer, workloads=workloads))
        others = read_spend(self._folder, today, but=self.writer)
        with self._lock:
            self._others = {today: others}
            for day in sorted(self._own)[:-3]:  # a clock may jump back over midnight, not for days
                if day not in self._changed:
                    del self._own[day]

    def close(self) -> None:
        """Writes the last of it and ends the thread."""
        self._stop.set()
        self._thread.join()
        self.refresh()

    def _spend(self, day: date, workload: str) -> Spend:
        with self._lock:
            own = self._own.get(day, {}).get(workload, _Tally()).frozen()
            others = self._others.get(day, {}).get(workload, Spend())
        return own.plus(others)

    def _run(self) -> None:
        while not self._stop.wait(WRITE_S):
            try:
                self.refresh()
            except Exception:  # logged: without this thread nothing spent would ever be written
                logger.exception("the budgets of %s could not be refreshed", self._folder)

    def _write(self, file: SpendFile) -> None:
        path = _path(self._folder, file.day, self.writer)
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text(file.model_dump_json() + "\n", encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            with self._lock:
                self._changed.add(file.day)  # what is in memory still counts; the next turn retries
            if not self._is_failing:
                logger.error("%s cannot be written: %s; a restart would forget it", path, error)
            self._is_failing = True
            return
        self._is_failing = False

    def _today(self) -> date:
        return self._now().astimezone(UTC).date()


def _path(folder: Path, day: date, writer: str) -> Path:
    return folder / f"spend-{day.isoformat()}-{writer}.json"


def _midnight_after(day: date) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), UTC)


def _forget_before(folder: Path, day: date) -> None:
    for path, written in _days(folder):
        if written < day:
            path.unlink(missing_ok=True)


def _days(folder: Path) -> Iterator[tuple[Path, date]]:
    for path in folder.glob("spend-*.json"):
        with suppress(ValueError):
            yield path, date.fromisoformat(path.name[len("spend-") :][:10])
