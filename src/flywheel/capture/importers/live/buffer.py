"""Where spans wait for their log records, and log records for their span, on disk.

Input: model calls without content, and GenAI events, in any order and from any number of gateway
processes. Output: each when its time has come, with what was found for it.

OpenTelemetry's exporters send spans and log records on their own timetables, so that each may come
first and neither says when it is complete. Both are fsynced before they are acknowledged; a gateway
that is killed goes on where it was. The file is SQLite's and holds calls as they came, like the
spool it lies in.
"""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple

from flywheel.capture.importers.log_events import LogEvent
from flywheel.capture.importers.row import canonical
from flywheel.capture.importers.spans import Event, Span
from flywheel.errors import TransientError

JOIN_S = 60.0
"""After a span, or the last log record for it, so long is waited for more."""
EVENT_S = 120.0
"""So long a log record waits for its span; exporters try again for about a minute."""
KEPT_S = 600.0
"""So long it is known that a span came, to tell a late log record from one without a span."""
MAX_BYTES = 1 << 30
BUSY_S = 5.0
AT_ONCE = 500
"""Spans or events settled in one transaction."""
FILE_NAME = "otlp-waiting.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS spans (key TEXT PRIMARY KEY, state TEXT NOT NULL, due REAL NOT NULL,
    span TEXT, interaction_id TEXT NOT NULL, workload TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS spans_due ON spans (state, due);
CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
    key TEXT NOT NULL, due REAL NOT NULL, time_ns TEXT NOT NULL, event TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_key ON events (key);
CREATE INDEX IF NOT EXISTS events_due ON events (due);
"""
_WAITING_SPANS = """
SELECT key, span, interaction_id, workload FROM spans
WHERE state = 'waiting' AND due <= ? ORDER BY due LIMIT ?
"""
_ADD_EVENT = """
INSERT OR IGNORE INTO events (id, key, due, time_ns, event) VALUES (?, ?, ?, ?, ?)
"""
_EVENTS_OF = "SELECT event FROM events WHERE key = ? ORDER BY time_ns, number"
_EVENTS_ALONE = """
SELECT events.id, events.event, spans.state, spans.interaction_id, spans.workload
FROM events LEFT JOIN spans USING (key)
WHERE events.due <= ? AND (spans.state IS NULL OR spans.state <> 'waiting')
ORDER BY events.due LIMIT ?
"""

SpanState = Literal["whole", "joined"]
"""It had its content itself; or waited, and was recorded with what had come."""


class NotKeptError(TransientError):
    """Nothing of it can be kept now: the exporter is to send all of it again."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"spans and log records cannot be kept now: {problem}")


class Known(NamedTuple):
    """A call that is recorded, or will be when it has waited."""

    span: Span
    interaction_id: str
    workload: str


class Lone(NamedTuple):
    """An event whose span never came, had its content itself, or was recorded before it came."""

    row: str
    event: LogEvent
    state: SpanState | None
    """None: the span never came."""
    judged: dict[str, str] | None
    """`interaction_id` and `workload` of the span's call, where it came."""


class JoinBuffer:
    """One file, for all gateway processes of a spool.

    Args:
        folder: the spool's, or another on a local disk; made when absent.
        max_bytes: of the file; beyond it nothing is taken.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.path, self._max_bytes = folder / FILE_NAME, max_bytes

    def add_spans(self, waiting: Sequence[Known], whole: Sequence[Known]) -> None:
        """Keeps spans that wait for their content, and that the others came.

        Raises:
            NotKeptError: it takes nothing now.
        """
        now = time.time()
        rows = [
            (one.span.key, "waiting", now + JOIN_S, json.dumps(one.span), *one[1:])
            for one in waiting
        ] + [(one.span.key, "whole", now + KEPT_S, None, *one[1:]) for one in whole]
        if rows:
            with self._changing(is_adding=True) as database:
                sql = "INSERT OR IGNORE INTO spans VALUES (?, ?, ?, ?, ?, ?)"
                database.executemany(sql, rows)

    def add_events(self, events: Sequence[LogEvent]) -> None:
        """Keeps events; a request that is sent again adds nothing.

        Raises:
            NotKeptError: it takes nothing now.
        """
        now = time.time()
        seen: Counter[str] = Counter()  # two messages of a call may be alike
        rows = []
        for event in events:
            data = canonical(event.as_json())
            identity = sha256(f"{event.key}#{seen[event.key]}".encode() + data).hexdigest()
            seen[event.key] += 1
            when = f"{event.time_ns:020d}"  # SQLite's integers are signed
            rows.append((identity, event.key, now + EVENT_S, when, json.dumps(event)))
        if rows:
            with self._changing(is_adding=True) as database:
                database.executemany(_ADD_EVENT, rows)
                sql = "UPDATE spans SET due = max(due, ?) WHERE state = 'waiting' AND key = ?"
                database.executemany(sql, [(now + JOIN_S, key) for key in seen])

    @contextmanager
    def settling(self, now: float) -> Iterator["Settling"]:
        """What is due; none of it is forgotten when the block raises.

        Raises:
            NotKeptError: it cannot be read or changed now.
        """
        with self._changing(is_adding=False) as database:
            yield Settling(database, now)

    def waiting(self) -> tuple[int, int]:
        """How many spans and log records wait."""
        if not self.path.exists():
            return 0, 0
        with self._changing(is_adding=False) as database:
            [spans] = database.execute("SELECT count(*) FROM spans WHERE state = 'waiting'")
            [events] = database.execute("SELECT count(*) FROM events")
        return int(spans[0]), int(events[0])

    @contextmanager
    def _changing(self, *, is_adding: bool) -> Iterator[sqlite3.Connection]:
        """One transaction, fsynced at its end."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            with closing(sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)) as it:
                it.execute("PRAGMA journal_mode = WAL")
                it.execute("PRAGMA synchronous = FULL")
                it.executescript(_SCHEMA)
                it.execute("BEGIN IMMEDIATE")
                if is_adding:
                    self._check_room(it)
                yield it
                it.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise NotKeptError(f"{self.path}: {error}") from error

    def _check_room(self, database: sqlite3.Connection) -> None:
        [size, pages, free] = (
            database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "page_count", "freelist_count")
        )
        if size * (pages - free) > self._max_bytes:
            raise NotKeptError(f"{self.path} is at its cap of {self._max_bytes} bytes")


class Settling:
    """One transaction over what is due."""

    def __init__(self, database: sqlite3.Connection, now: float) -> None:
        self._database, self._now = database, now

    def spans(self) -> list[tuple[Known, list[LogEvent]]]:
        """Spans that have waited, each with its events in order."""
        found = self._database.execute(_WAITING_SPANS, (self._now, AT_ONCE)).fetchall()
        return [
            (
                Known(_span(data), interaction_id, workload),
                [_event(event) for (event,) in self._database.execute(_EVENTS_OF, (key,))],
            )
            for key, data, interaction_id, workload in found
        ]

    def events(self) -> list[Lone]:
        """Events that no span waits for any more."""
        found = self._database.execute(_EVENTS_ALONE, (self._now, AT_ONCE)).fetchall()
        return [
            Lone(
                row,
                _event(event),
                state,
                {"interaction_id": call, "workload": workload} if call else None,
            )
            for row, event, state, call, workload in found
        ]

    def forget(self, spans: Sequence[Known], events: Sequence[Lone]) -> None:
        """They are recorded: of the spans stays that they came, for a while."""
        keys = [(known.span.key,) for known in spans]
        until = self._now + KEPT_S
        self._database.executemany("DELETE FROM events WHERE key = ?", keys)
        sql = "UPDATE spans SET state = 'joined', due = ?, span = NULL WHERE key = ?"
        self._database.executemany(sql, [(until, key) for (key,) in keys])
        self._database.executemany("DELETE FROM events WHERE id = ?", [(e.row,) for e in events])
        sql = "DELETE FROM spans WHERE state <> 'waiting' AND due <= ?"
        self._database.execute(sql, (self._now,))


def _span(data: str) -> Span:
    found = Span(*json.loads(data))
    return found._replace(events=tuple(Event(*event) for event in found.events))


def _event(data: str) -> LogEvent:
    return LogEvent(*json.loads(data))
