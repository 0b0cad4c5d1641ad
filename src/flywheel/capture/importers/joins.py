"""What one row needs of another, on disk while an import runs.

Input: keys and JSON objects. Output: the objects of a key, in the order they were added. A batch's
requests and a span's log events may lie anywhere in the files; SQLite keeps them, so that memory
does not grow with them.
"""

import json
import sqlite3
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from flywheel.records import JsonObject


class JoinStore:
    """A temporary table; made at the first `add`, gone when closed."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._connection: sqlite3.Connection | None = None

    def add(self, parts: Iterable[tuple[str, JsonObject]]) -> None:
        """Keeps objects under their keys."""
        rows = [(key, json.dumps(value)) for key, value in parts]
        if rows:
            self._open().executemany("INSERT INTO parts (key, value) VALUES (?, ?)", rows)

    def get(self, key: str) -> list[JsonObject]:
        """The objects of a key."""
        if self._connection is None:
            return []
        sql = "SELECT value FROM parts WHERE key = ? ORDER BY rowid"
        return [json.loads(value) for (value,) in self._connection.execute(sql, (key,))]

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._folder = tempfile.TemporaryDirectory(prefix="flywheel-import-")
            self._connection = sqlite3.connect(Path(self._folder.name) / "joins.db")
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.execute("CREATE TABLE parts (key TEXT, value TEXT)")
            self._connection.execute("CREATE INDEX parts_key ON parts (key)")
        return self._connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._folder is not None:
            self._folder.cleanup()
