"""The spool folder's books: what became of every record, over restarts, kills and drains.

Input: the last word of writers that are gone, and what drains did. Output: `ledger.json`, replaced
atomically. Always `accepted == spooled + pending + dropped`, `spooled == drained + waiting` and
`drained == committed + quarantined + duplicates`; `status` checks it.

A writer that was killed knew more than it had said: what of it is on disk is counted there, and
what it said it had accepted and is nowhere is dropped as `killed`. What it accepted after its last
word (a second at most) and never wrote is known to nobody. One that closed and whose segments hold
less than it wrote has lost the rest as `damaged`. A damaged stretch counts as one record.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from flywheel.capture.folder import SpoolFolder, sync_folder, writer_of
from flywheel.records import CaptureCounters, Record

logger = logging.getLogger(__name__)


class Drained(Record):
    """Where the drained records went."""

    committed: int = 0
    """Rows added to `interactions` and `assessments`."""
    quarantined: int = 0
    duplicates: int = 0
    """In the lake already, as after a drain that was killed between its commit and its books."""

    @property
    def total(self) -> int:
        """Records and damaged stretches drained."""
        return self.committed + self.quarantined + self.duplicates


class Ledger(Record):
    """What the files that are no longer there would say."""

    finished: CaptureCounters = CaptureCounters()
    """Sums over the writers that are gone and whose segments are drained."""
    drained: Drained = Drained()
    """Sums over all drains."""
    drained_of: dict[str, int] = Field(default_factory=dict)
    """Records drained of each writer not yet in `finished`."""
    deleting: tuple[str, ...] = ()
    """Segments that are counted, and to be deleted if they are still there."""
    absorbed: tuple[str, ...] = ()
    """Writers that are in `finished`, and whose state is to be deleted if it is still there."""


def read_ledger(folder: SpoolFolder) -> Ledger:
    """The folder's ledger; an empty one where there is none or it cannot be read."""
    try:
        return Ledger.model_validate_json(folder.ledger.read_bytes())
    except FileNotFoundError:
        return Ledger()
    except (OSError, ValidationError) as error:
        logger.error("%s cannot be read, its counts begin anew: %s", folder.ledger, error)
        return Ledger()


def settled(said: CaptureCounters | None, on_disk: int, *, is_closed: bool) -> CaptureCounters:
    """The final counters of a writer that is gone.

    Args:
        said: its last word, if there is one.
        on_disk: its records in segments, drained or waiting.
        is_closed: whether it ended by itself; else it was killed.
    """
    counters = said or CaptureCounters()
    dropped = Counter(counters.dropped)
    if (missing := counters.accepted - dropped.total() - on_disk) > 0:
        dropped["damaged" if is_closed else "killed"] += missing
    return counters.model_copy(
        update={
            "accepted": on_disk + dropped.total(),
            "spooled": on_disk,
            "pending": 0,
            "dropped": dict(dropped),
        }
    )


def added(first: CaptureCounters, second: CaptureCounters) -> CaptureCounters:
    """The sums of two writers' counters."""
    dropped = dict(Counter(first.dropped) + Counter(second.dropped))
    fields = ("accepted", "spooled", "pending", "bytes_spooled", "late")
    sums = {name: getattr(first, name) + getattr(second, name) for name in fields}
    return CaptureCounters(dropped=dropped, **sums)


class Books:
    """The ledger while one drain works. Whoever has it holds the drain's lock.

    Making it finishes what a killed drain had counted and not deleted.
    """

    def __init__(self, folder: SpoolFolder) -> None:
        self._folder = folder
        self._ledger = read_ledger(folder)
        for name in self._ledger.deleting:
            (folder.path / name).unlink(missing_ok=True)
        for writer in self._ledger.absorbed:
            folder.forget(writer)

    def delete(
        self, paths: Sequence[Path], drained: Drained, records_of: Mapping[str, int]
    ) -> None:
        """Counts committed segments, once, and deletes them."""
        before = self._ledger
        self._ledger = before.model_copy(
            update={
                "drained": Drained(
                    committed=before.drained.committed + drained.committed,
                    quarantined=before.drained.quarantined + drained.quarantined,
                    duplicates=before.drained.duplicates + drained.duplicates,
                ),
                "drained_of": dict(Counter(before.drained_of) + Counter(records_of)),
                "deleting": tuple(path.name for path in paths),
                "absorbed": (),
            }
        )
        try:
            self._save(self._ledger)
        except OSError as error:  # a full disk: deleting makes room, and the next save has it all
            logger.warning("%s cannot be written now: %s", self._folder.ledger, error)
        for path in paths:
            path.unlink()

    def absorb(self) -> int:
        """Takes over the counters of writers that are gone and have nothing left to drain.

        Returns:
            How many records the writers, there and gone, have lost since they were started.
        """
        folder, ledger, gone, lost = self._folder, self._ledger, [], 0
        writers = sorted({*folder.states(), *ledger.drained_of})
        alive = {writer for writer in writers if folder.is_alive(writer)}
        # Looked at in this order: who is gone begins no segment any more.
        busy = alive | {writer_of(path) for path in folder.all_segments()}
        for writer in writers:
            state = folder.state(writer)
            counters = state.counters if state else None
            if writer not in busy:
                on_disk = ledger.drained_of.get(writer, 0)
                counters = settled(counters, on_disk, is_closed=folder.is_closed(writer))
                ledger = ledger.model_copy(update={"finished": added(ledger.finished, counters)})
                gone.append(writer)
            lost += sum(counters.dropped.values()) if counters else 0
        if gone or ledger.deleting:
            rest = {name: n for name, n in ledger.drained_of.items() if name not in gone}
            update = {"drained_of": rest, "deleting": (), "absorbed": tuple(gone)}
            try:
                self._save(ledger.model_copy(update=update))
            except OSError as error:  # their states stay, for the next drain to take over
                logger.warning("%s cannot be written now: %s", self._folder.ledger, error)
                return lost
            for writer in gone:
                self._folder.forget(writer)
        return lost

    def _save(self, ledger: Ledger) -> None:
        temporary = self._folder.ledger.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(ledger.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder.ledger)
        sync_folder(self._folder.path)
