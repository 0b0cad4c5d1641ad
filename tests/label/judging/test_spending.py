import asyncio
import random
import threading
from pathlib import Path

import pytest

from flywheel.label.judging.purse import BudgetReachedError, Purse, worst_case
from flywheel.label.judging.spending import open_spending
from flywheel.records import Message


def test_what_was_not_spent_of_a_reservation_is_free_again() -> None:
    with open_spending("run", budget_usd=1.0) as account:
        first = account.reserve(0.8, 0)
        assert first is not None
        assert account.reserve(0.3, 0) is None
        account.settle(first, 0.2, 50)
        assert account.reserve(0.8, 0) is not None
        spent = account.read()
    assert (spent.usd, spent.tokens, spent.calls, spent.reserved_usd) == (0.2, 50, 1, 0.8)


def test_a_refused_call_costs_nothing() -> None:
    with open_spending("run", budget_tokens=100) as account:
        reserved = account.reserve(None, 100)
        assert reserved is not None
        account.release(reserved)
        assert account.read().calls == 0
        assert account.reserve(None, 100) is not None


def test_money_does_not_drift() -> None:
    """A million tokens at 12.5 nanodollars are 0.0125 dollars, however they are added."""
    with open_spending("run", budget_usd=0.0125) as account:
        for _ in range(1000):
            reserved = account.reserve(1.25e-5, 0)
            assert reserved is not None
            account.settle(reserved, 1.25e-5, 0)
        assert account.read().usd == 0.0125
        assert account.reserve(1e-11, 0) is None


def test_one_call_without_a_price_makes_the_sum_unknown() -> None:
    with open_spending("run") as account:
        for usd in (0.5, None):
            reserved = account.reserve(usd, 10)
            assert reserved is not None
            account.settle(reserved, usd, 10)
        assert account.read().usd is None


def test_runs_have_accounts_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "spending.sqlite"
    with (
        open_spending("one", path, budget_tokens=10) as one,
        open_spending("two", path, budget_tokens=10) as two,
    ):
        assert one.reserve(None, 10) is not None
        assert two.reserve(None, 10) is not None


def test_a_budget_holds_across_processes_that_share_the_file(tmp_path: Path) -> None:
    """Each thread has a connection of its own, as a process would."""
    path, granted = tmp_path / "spending.sqlite", list[int]()

    def spend() -> None:
        with open_spending("run", path, budget_tokens=1_000) as account:
            granted.extend(7 for _ in range(100) if account.reserve(None, 7) is not None)

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 994


async def test_with_64_under_way_the_budget_is_used_up_and_never_exceeded() -> None:
    """Worst cases of 100, costs of 1 to 100: the next waits for what comes back."""
    rng, spent = random.Random(1), 0
    with open_spending("run", budget_tokens=5_000) as account:
        purse = Purse(account)

        async def call() -> None:
            nonlocal spent
            reserved = await purse.reserve(None, 100)
            await asyncio.sleep(rng.random() / 1000)
            cost = rng.randint(1, 100)
            spent += cost
            assert spent <= 5_000
            purse.settle(reserved, None, cost)

        results = await asyncio.gather(*(call() for _ in range(300)), return_exceptions=True)
    refused = [one for one in results if isinstance(one, BudgetReachedError)]
    assert refused and len(refused) == sum(one is not None for one in results)
    assert 4_900 < spent <= 5_000


@pytest.mark.parametrize("text", ["hello", "Gürtelrose", "🤕" * 50, "a b " * 400])
def test_the_worst_case_is_over_a_token_a_byte(text: str) -> None:
    usage = worst_case([Message(role="user", content=text)], {"type": "object"}, 64)
    assert usage.input_tokens > len(text.encode())
    assert usage.output_tokens == 64
