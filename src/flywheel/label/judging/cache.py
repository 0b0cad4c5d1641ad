"""What judges answered, kept by what they were asked.

Input: a reply and who it is about. Output: the same reply, the next time the same is asked: a run
that was killed pays for nothing twice. A failed call is never kept. One SQLite file, safe with any
number of processes; beside each reply stands whose data it came from, so that an erasure finds it,
and what is erased is overwritten.

It does not keep what was asked, only its sha256; but a judge quotes what it judges.
"""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Self

from flywheel.errors import JudgeError
from flywheel.graders.judge import JudgeReply, JudgeTask
from flywheel.records import Record, utcnow

BUSY_S = 30.0
FILE_NAME = "replies.sqlite"

_TABLES = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY,
    task_id TEXT NOT NULL,
    judge TEXT NOT NULL,
    judge_hash TEXT NOT NULL,
    reply TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS sources (
    key TEXT NOT NULL REFERENCES replies (key) ON DELETE CASCADE,
    workload TEXT NOT NULL,
    interaction_id TEXT NOT NULL,
    subject_key TEXT,
    PRIMARY KEY (key, interaction_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sources_subject ON sources (subject_key);
CREATE INDEX IF NOT EXISTS sources_interaction ON sources (interaction_id);
"""


class CacheSize(Record):
    """What the cache holds."""

    replies: int
    interactions: int
    """Different ones that replies are about."""
    bytes: int
    """On disk, with SQLite's log."""
    oldest: datetime | None
    by_judge: dict[str, int]
    """Replies, by judge name."""


class ReplyCache:
    """The cache of a deployment.

    Args:
        folder: where its file is; made when absent.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE_NAME
        self._db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.DatabaseError as error:
            raise JudgeError(
                f"{self.path} is not a reply cache: {error}. Move it away and run again; only "
                "replies not yet in the lake are paid for again."
            ) from error
        for pragma in ("synchronous = NORMAL", "secure_delete = ON", "foreign_keys = ON"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_TABLES)

    def get(self, key: str, task: JudgeTask) -> JudgeReply | None:
        """The reply to what was asked under this key, None where it was not.

        What it cost stays with the task that paid: for another it is 0, not a second time the sum.
        """
        row = self._db.execute(
            "SELECT reply, task_id FROM replies WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        reply = JudgeReply.model_validate_json(row[0])
        if row[1] == task.task_id:
            return reply
        self._link(key, task)
        return unpaid(reply)

    def put(self, reply: JudgeReply, task: JudgeTask, *, judge: str, judge_hash: str) -> None:
        """Keeps a reply; the first one stays where there is one already.

        Raises:
            ValueError: the reply is an error, and errors are never kept.
        """
        if reply.error_type is not None or reply.text is None:
            raise ValueError(f"a failed reply is not kept: {reply.error_type}")
        row = (reply.key, task.task_id, judge, judge_hash, reply.model_dump_json())
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?)",
                (*row, utcnow().isoformat()),
            )
            self._link(reply.key, task)

    def _link(self, key: str, task: JudgeTask) -> None:
        interactions = task.pair_ids or (task.interaction_id or task.task_id,)
        self._db.executemany(
            "INSERT OR IGNORE INTO sources VALUES (?, ?, ?, ?)",
            [(key, task.workload, one, task.subject_key) for one in interactions],
        )

    def size(self) -> CacheSize:
        """What it holds, and how much room that takes."""
        replies, oldest = self._db.execute(
            "SELECT count(*), min(created_at) FROM replies"
        ).fetchone()
        (interactions,) = self._db.execute(
            "SELECT count(DISTINCT interaction_id) FROM sources"
        ).fetchone()
        by_judge = self._db.execute("SELECT judge, count(*) FROM replies GROUP BY judge ORDER BY 1")
        files = [self.path, *self.path.parent.glob(f"{self.path.name}-*")]
        return CacheSize(
            replies=replies,
            interactions=interactions,
            bytes=sum(file.stat().st_size for file in files if file.is_file()),
            oldest=None if oldest is None else datetime.fromisoformat(oldest),
            by_judge=dict(by_judge.fetchall()),
        )

    def erase(
        self, *, subject_keys: Sequence[str] = (), interaction_ids: Sequence[str] = ()
    ) -> int:
        """Forgets every reply about these people or interactions, and returns how many.

        A reply that was reused for somebody else goes too: it was made of their data. The bytes are
        overwritten and the log is emptied, so that nothing is left to be found in the file.

        Raises:
            JudgeError: another process reads the cache just now; nothing of the log was emptied.
        """
        erased = 0
        for column, values in (("subject_key", subject_keys), ("interaction_id", interaction_ids)):
            for value in values:
                erased += self._db.execute(
                    f"DELETE FROM replies WHERE key IN (SELECT key FROM sources WHERE {column} = ?)",  # noqa: S608, E501 - two names of ours
                    (value,),
                ).rowcount
        self._empty_log()
        return erased

    def clear(self) -> int:
        """Forgets everything, and returns how many replies that were."""
        erased = self._db.execute("DELETE FROM replies").rowcount
        self._db.execute("DELETE FROM sources")
        self._empty_log()
        self._db.execute("VACUUM")
        self._empty_log()
        return erased

    def _empty_log(self) -> None:
        (is_busy, *_) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            raise JudgeError(
                f"{self.path}: the replies are gone, but another process keeps the log from being "
                "emptied, and they can still be read there. End the judge run, then erase again."
            )

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unpaid(reply: JudgeReply) -> JudgeReply:
    """A reply somebody else paid for: it cost nothing more."""
    nothing = {"input_tokens": 0, "output_tokens": 0, "cached_input_tokens": 0, "cost_usd": 0.0}
    return reply.model_copy(update=nothing)
