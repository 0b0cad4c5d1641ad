import asyncio

import pytest

from flywheel.label.judging.congestion import Congestion
from flywheel.label.judging.gate import Gate
from flywheel.label.judging.headers import Limits


async def test_no_more_go_than_the_window_allows_and_each_that_comes_back_lets_one_go() -> None:
    gate = Gate(Congestion(2))
    await gate.enter()
    await gate.enter()
    third = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    assert (gate.in_flight, third.done()) == (2, False)
    gate.leave()
    await third
    assert gate.in_flight == 2


async def test_the_earliest_deadline_goes_first() -> None:
    gate, order = Gate(Congestion(1)), list[str]()
    await gate.enter()

    async def wait(name: str, deadline: float) -> None:
        await gate.enter(deadline=deadline)
        order.append(name)
        gate.leave()

    waiting = [
        asyncio.create_task(wait(name, at))
        for name, at in (("new", float("inf")), ("late", 20.0), ("early", 10.0))
    ]
    await asyncio.sleep(0)
    gate.leave()
    await asyncio.gather(*waiting)
    assert order == ["early", "late", "new"]


async def test_one_that_gives_up_waiting_takes_no_place() -> None:
    gate = Gate(Congestion(1))
    await gate.enter()
    gone = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    gate.leave()
    assert gate.in_flight == 0
    await asyncio.wait_for(gate.enter(), 1)


async def test_one_cancelled_in_the_moment_it_is_let_go_gives_its_place_back() -> None:
    gate = Gate(Congestion(1))
    await gate.enter()
    gone = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    gate.leave()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert gate.in_flight == 0


async def test_a_hold_ends_by_itself() -> None:
    gate = Gate(Congestion(4))
    sent = await gate.enter()
    gate.refused(sent, Limits(retry_after_s=0.05))
    gate.leave()
    again = await asyncio.wait_for(gate.enter(), 5)
    assert again - sent >= 0.05
