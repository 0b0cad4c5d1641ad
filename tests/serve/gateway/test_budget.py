"""The budget of a day: over restarts, over processes, over midnight."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flywheel.errors import BudgetSpentError, ConfigError
from flywheel.serve.gateway.budget import DailyBudgets, Spend, read_spend

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Calendar:
    """A moment that is moved by hand."""

    def __init__(self) -> None:
        self.moment = NOON

    def __call__(self) -> datetime:
        return self.moment


Opener = Callable[..., DailyBudgets]


@pytest.fixture
def calendar() -> Calendar:
    return Calendar()


@pytest.fixture
def start(tmp_path: Path, calendar: Calendar) -> Iterator[Opener]:
    """Starts a gateway's budgets in one home; all are closed in the end."""
    with ExitStack() as stack:

        def opened(**budgets: float) -> DailyBudgets:
            made = DailyBudgets(tmp_path / "gateway", budgets or {"triage": 1.0}, now=calendar)
            stack.callback(made.close)
            return made

        yield opened


def test_a_spent_budget_refuses_and_says_when_it_resets(start: Opener) -> None:
    """Noon to midnight is 43,200 s."""
    budgets = start(triage=1.0)
    budgets.spend("triage", 0.6)
    budgets.check("triage")
    budgets.spend("triage", 0.6)
    with pytest.raises(BudgetSpentError) as caught:
        budgets.check("triage")
    error = caught.value
    assert (error.status, error.kind, error.code) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
    )
    assert error.retry_after_s == 43_200
    assert "1.2000 of 1.0000 USD" in str(error) and "resets at 2026-05-02T00:00:00Z" in str(error)


def test_a_workload_without_a_budget_is_never_refused(start: Opener) -> None:
    budgets = start(triage=1.0)
    budgets.spend("billing", 1e9)
    budgets.check("billing")  # raises where a budget is spent
    budgets.check("triage")
    assert not budgets.has_budget("billing")
    assert budgets.has_budget("triage")


def test_midnight_resets_and_the_day_before_stays_what_it_was(
    start: Opener, calendar: Calendar, tmp_path: Path
) -> None:
    budgets = start()
    budgets.spend("triage", 2.0)
    calendar.moment = NOON + timedelta(hours=12)
    budgets.check("triage")
    budgets.spend("triage", 0.5)
    calendar.moment = NOON  # the clock jumped back over midnight
    with pytest.raises(BudgetSpentError):
        budgets.check("triage")
    budgets.refresh()
    folder = tmp_path / "gateway"
    assert read_spend(folder, NOON.date())["triage"].usd == 2.0
    assert read_spend(folder, NOON.date() + timedelta(days=1))["triage"].usd == 0.5


def test_a_restart_forgets_nothing(start: Opener) -> None:
    first = start()
    first.spend("triage", 0.7)
    first.spend("triage", None)
    first.close()
    second = start()
    second.spend("triage", 0.4)
    with pytest.raises(BudgetSpentError, match=r"1\.1000"):
        second.check("triage")
    (state,) = second.states()
    assert state.spend.usd == pytest.approx(1.1)
    assert (state.spend.calls, state.spend.unknown) == (2, 1)


def test_two_gateways_of_a_home_spend_one_budget(start: Opener) -> None:
    one, two = start(), start()
    one.spend("triage", 0.6)
    two.spend("triage", 0.6)
    one.refresh()
    two.refresh()
    one.refresh()
    for budgets in (one, two):
        with pytest.raises(BudgetSpentError):
            budgets.check("triage")


def test_the_thread_writes_within_seconds_and_leaves_no_half_file(
    start: Opener, tmp_path: Path
) -> None:
    """What a SIGKILL would leave: nothing was closed here."""
    import time

    budgets = start()
    budgets.spend("triage", 0.25)
    deadline = time.monotonic() + 5
    while not read_spend(tmp_path / "gateway", NOON.date()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert read_spend(tmp_path / "gateway", NOON.date())["triage"].usd == 0.25
    assert not list((tmp_path / "gateway").glob("*.tmp"))


def test_an_unknown_cost_spends_nothing_and_is_counted(start: Opener) -> None:
    budgets = start(triage=0.1)
    for _ in range(1000):
        budgets.spend("triage", None)
    budgets.check("triage")
    (state,) = budgets.states()
    assert state.spend == Spend(usd=0.0, calls=0, unknown=1000) and state.budget_usd == 0.1


def test_a_damaged_file_is_told_and_the_others_count(
    start: Opener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = start()
    first.spend("triage", 0.3)
    first.close()
    (tmp_path / "gateway" / f"spend-{NOON.date()}-other.json").write_text('{"day":')
    assert start().states()[0].spend.usd == 0.3
    assert "is not counted" in caplog.text


def test_a_disk_that_refuses_is_told_once_and_tried_again(
    start: Opener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    budgets = start()
    folder, away = tmp_path / "gateway", tmp_path / "away"
    folder.rename(away)
    budgets.spend("triage", 2.0)
    with caplog.at_level(logging.ERROR):
        budgets.refresh()
        budgets.refresh()
    assert caplog.text.count("cannot be written") == 1
    with pytest.raises(BudgetSpentError):
        budgets.check("triage")
    away.rename(folder)
    budgets.refresh()
    assert read_spend(folder, NOON.date())["triage"].usd == 2.0


def test_old_days_are_removed_at_the_start(start: Opener, tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    folder.mkdir()
    old, recent = folder / "spend-2026-03-01-x.json", folder / "spend-2026-04-20-x.json"
    other = folder / "spend-notes.json"
    for path in (old, recent, other):
        path.write_text("{}")
    start()
    assert not old.exists() and recent.exists() and other.exists()


def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "gateway").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written to"):
        DailyBudgets(tmp_path / "gateway", {"triage": 1.0})


def test_a_budget_read_anew_counts_what_was_spent(start: Opener) -> None:
    budgets = start(triage=10.0)
    budgets.spend("triage", 3.0)
    budgets.replace_budgets({"triage": 2.0})
    with pytest.raises(BudgetSpentError):
        budgets.check("triage")
