"""What a worker tells while it trains: JSON lines on its standard output, one event a line."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from flywheel.records import DatasetKind, Finite, Record

EXIT_FAILED = 1
EXIT_LOCKED = 75
"""EX_TEMPFAIL of sysexits.h: another worker holds the folder."""
EXIT_ORPHANED = 76


class TrainProgress(Record):
    """One optimizer step, or one evaluation."""

    event: Literal["progress"] = "progress"
    phase: DatasetKind
    step: int
    total_steps: int
    epoch: Finite
    loss: Finite | None = None
    """Of this step; NULL in an evaluation."""
    eval_loss: Finite | None = None
    """On the validation split."""
    learning_rate: Finite | None = None
    tokens_per_second: Finite | None = None
    """Tokens trained on a second of training, padding not counted."""


class TrainFailure(Record):
    """A guard that tripped, in the words for the person who reads it."""

    event: Literal["failure"] = "failure"
    message: str


TrainEvent = TrainProgress | TrainFailure
Emit = Callable[[TrainEvent], None]
_EVENTS: TypeAdapter[TrainEvent] = TypeAdapter(Annotated[TrainEvent, Field(discriminator="event")])


def read_event(line: str) -> TrainEvent | None:
    """The event of a line; None where a launcher or a library printed something of its own."""
    try:
        return _EVENTS.validate_json(line)
    except ValidationError:
        return None
