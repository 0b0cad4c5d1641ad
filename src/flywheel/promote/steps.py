"""The steps of a release, timed. What fails after the commit is a warning: it can be done again."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flywheel.errors import FlywheelError
from flywheel.records import Finite, Record

log = logging.getLogger("flywheel.promote")


class Step(Record):
    """One thing a release did, and how long it took."""

    name: str
    """decision, load, verify, commit, push, confirm, mirror, unload."""
    seconds: Finite
    warning: str | None = None
    """Why it did not happen, where that does not undo the release."""


OnStep = Callable[[Step], None]


@contextmanager
def timed(name: str, on_step: OnStep | None, *, forgiving: bool = False) -> Iterator[None]:
    """Times the body and tells `on_step` when it is done.

    Args:
        name: the step's.
        on_step: told of a step that ended; one that raised is not a step.
        forgiving: a FlywheelError becomes a warning. Only for what stands after the commit.
    """
    started = time.perf_counter()
    warning = None
    try:
        yield
    except FlywheelError as error:
        if not forgiving:
            raise
        warning = str(error)
        log.warning("%s: %s", name, warning)
    if on_step is not None:
        on_step(Step(name=name, seconds=time.perf_counter() - started, warning=warning))
