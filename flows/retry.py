"""How a library function becomes a task: retried when doing it again may work, and only then."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun

from flywheel.errors import TransientError

P = ParamSpec("P")
R = TypeVar("R")

DELAYS_S: list[float] = [2, 20]


def is_transient(task: Task[..., object], run: TaskRun, state: State[object]) -> bool:
    """Whether a failed task may work the next time, by the error tree."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


def retried(function: Callable[P, R], name: str) -> Task[P, R]:
    """The function as a task; the function itself stays as it is."""
    as_task = task(
        name=name,
        retries=len(DELAYS_S),
        retry_delay_seconds=DELAYS_S,
        retry_condition_fn=is_transient,
    )
    return as_task(function)
