"""The budget of a run: reserved before a call, settled after, and never exceeded.

Input: what a call can cost at worst. Output: leave to make it, or none. Kept in SQLite, so that it
holds across all processes that share the file, and across a kill: what a killed process had
reserved and not settled stays counted at its worst case, for it may have been paid.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PICO = 10**12
"""Money is counted in whole picodollars: a token may cost 1.25e-8 USD, and sums must not drift."""
BUSY_S = 30.0

_TABLE = """
CREATE TABLE IF NOT EXISTS spending (
    run_id TEXT PRIMARY KEY,
    spent_pico INTEGER NOT NULL DEFAULT 0,
    spent_tokens INTEGER NOT NULL DEFAULT 0,
    reserved_pico INTEGER NOT NULL DEFAULT 0,
    reserved_tokens INTEGER NOT NULL DEFAULT 0,
    unpriced INTEGER NOT NULL DEFAULT 0,
    calls INTEGER NOT NULL DEFAULT 0
)
"""
_RESERVE = """
UPDATE spending
SET reserved_pico = reserved_pico + :pico, reserved_tokens = reserved_tokens + :tokens
WHERE run_id = :run
    AND (:limit_pico IS NULL OR spent_pico + reserved_pico + :pico <= :limit_pico)
    AND (:limit_tokens IS NULL OR spent_tokens + reserved_tokens + :tokens <= :limit_tokens)
"""
_SETTLE = """
UPDATE spending
SET reserved_pico = reserved_pico - :pico, reserved_tokens = reserved_tokens - :tokens,
    spent_pico = spent_pico + :spent_pico, spent_tokens = spent_tokens + :spent_tokens,
    unpriced = unpriced + :unpriced, calls = calls + :calls
WHERE run_id = :run
"""


class Reservation(NamedTuple):
    """What was set aside for one call."""

    pico: int
    tokens: int


class Spent(NamedTuple):
    """What a run has spent."""

    usd: float | None
    """NULL where a call had no price: an unknown cost is never 0."""
    tokens: int
    calls: int
    """Paid for."""
    reserved_usd: float
    """Set aside by calls under way, or by calls of a process that was killed."""
    reserved_tokens: int


class Spending:
    """The account of one run.

    Args:
        run_id: whose account.
        path: the SQLite file; none keeps it in memory.
        budget_usd: limit of money, None for none.
        budget_tokens: limit of input and output tokens together, None for none.
    """

    def __init__(
        self,
        run_id: str,
        path: Path | None = None,
        *,
        budget_usd: float | None = None,
        budget_tokens: int | None = None,
    ) -> None:
        self.run_id, self.budget_usd, self.budget_tokens = run_id, budget_usd, budget_tokens
        self._limit_pico = None if budget_usd is None else int(budget_usd * PICO)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(
            ":memory:" if path is None else path, timeout=BUSY_S, isolation_level=None
        )
        if path is not None:
            self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(_TABLE)
        self._db.execute("INSERT OR IGNORE INTO spending (run_id) VALUES (?)", (run_id,))

    @property
    def is_limited(self) -> bool:
        """Whether there is a budget at all."""
        return self._limit_pico is not None or self.budget_tokens is not None

    def reserve(self, usd: float | None, tokens: int) -> Reservation | None:
        """Sets the worst case of a call aside; None where it does not fit any more."""
        wanted = Reservation(pico=_pico_up(usd), tokens=tokens)
        values = {"run": self.run_id, "pico": wanted.pico, "tokens": wanted.tokens}
        limits = {"limit_pico": self._limit_pico, "limit_tokens": self.budget_tokens}
        changed = self._db.execute(_RESERVE, values | limits).rowcount
        return wanted if changed else None

    def settle(
        self, reserved: Reservation, usd: float | None, tokens: int, *, calls: int = 1
    ) -> None:
        """Books what calls did cost; `usd` None where their price is not known."""
        spent = Reservation(_pico_up(usd), tokens)
        self._settle(reserved, spent, unpriced=usd is None and calls > 0, calls=calls)

    def release(self, reserved: Reservation) -> None:
        """Gives back what was set aside for a call that was not paid for."""
        self._settle(reserved, Reservation(0, 0), unpriced=False, calls=0)

    def _settle(
        self, reserved: Reservation, spent: Reservation, *, unpriced: bool, calls: int
    ) -> None:
        values = {
            "run": self.run_id,
            "pico": reserved.pico,
            "tokens": reserved.tokens,
            "spent_pico": spent.pico,
            "spent_tokens": spent.tokens,
            "unpriced": int(unpriced),
            "calls": calls,
        }
        self._db.execute(_SETTLE, values)

    def read(self) -> Spent:
        """Where the account stands, with what other processes did."""
        row = self._db.execute(
            "SELECT spent_pico, spent_tokens, calls, unpriced, reserved_pico, reserved_tokens "
            "FROM spending WHERE run_id = ?",
            (self.run_id,),
        ).fetchone()
        pico, tokens, calls, unpriced, reserved_pico, reserved_tokens = row
        return Spent(
            usd=None if unpriced else pico / PICO,
            tokens=tokens,
            calls=calls,
            reserved_usd=reserved_pico / PICO,
            reserved_tokens=reserved_tokens,
        )

    def told(self) -> tuple[str, str]:
        """Spent and budget, for a sentence."""
        spent, is_money = self.read(), self._limit_pico is not None
        parts, limits = [], []
        if is_money:
            parts.append("an unknown sum" if spent.usd is None else f"{spent.usd:.6g} USD")
            limits.append(f"{self.budget_usd:.6g} USD")
        if self.budget_tokens is not None:
            parts.append(f"{spent.tokens} tokens")
            limits.append(f"{self.budget_tokens} tokens")
        return " and ".join(parts) or f"{spent.tokens} tokens", " and ".join(limits) or "none"

    def close(self) -> None:
        """Closes the file."""
        self._db.close()


@contextmanager
def open_spending(
    run_id: str,
    path: Path | None = None,
    *,
    budget_usd: float | None = None,
    budget_tokens: int | None = None,
) -> Iterator[Spending]:
    """A run's account, closed at the end."""
    account = Spending(run_id, path, budget_usd=budget_usd, budget_tokens=budget_tokens)
    try:
        yield account
    finally:
        account.close()


def _pico_up(usd: float | None) -> int:
    """Rounded up: a budget may be undershot, not overshot."""
    if usd is None:
        return 0
    exact = usd * PICO
    whole = int(exact)
    return whole + 1 if exact - whole > 1e-3 else whole
