"""What comes parsed, or refused, before it is acknowledged: it goes through the spool all the same.

Input: records of an endpoint that reads what it is sent. Output: frames, fsynced. A part that could
not become a record goes the same way, into quarantine.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import ConfigDict

from flywheel.capture.segment import Kind
from flywheel.records import Assessment, Interaction, Record

if TYPE_CHECKING:
    from flywheel.capture.spool import Spool


class Refused(Record):
    """A part of what somebody sent, as far as it could be read."""

    model_config = ConfigDict(
        **Record.model_config, ser_json_bytes="base64", val_json_bytes="base64"
    )

    source: str
    """Who sent it: `otlp`."""
    reason: str
    detail: str
    payload: bytes


_KINDS: dict[type[Record], Kind] = {
    Interaction: "interaction",
    Assessment: "assessment",
    Refused: "refused",
}


def keep(spool: "Spool", records: Sequence[Interaction | Assessment | Refused]) -> bool:
    """Appends records and waits until they are on disk; not on an event loop.

    Returns:
        False when one of them was dropped, or the disk took too long: they may come again.
    """
    taken = [
        spool.append(_KINDS[type(record)], record, durability="before_response")
        for record in records
    ]
    return all(taken) and asyncio.run(spool.durable())
