"""A drain that is killed at a chosen moment.

    python -m tests.capture.drainer <spool> <lake> <moment> <count>

moment: before or after the count-th append to the lake, or at the count-th progress report.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from flywheel.capture import drain
from flywheel.lake import AppendResult, Lake, Rows


class MortalLake(Lake):
    """A real lake in a process that ends at an append."""

    def __init__(self, root: str, moment: str, count: int) -> None:
        super().__init__(root)
        self.moment, self.left = moment, count

    def append_rows(self, parts: Sequence[Rows]) -> AppendResult:
        self.left -= 1
        if self.moment == "before" and self.left == 0:
            die()
        result = super().append_rows(parts)
        if self.moment == "after" and self.left == 0:
            die()
        return result


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(spool: str, root: str, moment: str, count: str) -> None:
    left = int(count)

    def told(done: int, total: int) -> None:
        nonlocal left
        left -= 1
        if moment == "progress" and left == 0:
            die()

    drain(Path(spool), MortalLake(root, moment, int(count)), on_progress=told)


if __name__ == "__main__":
    main(*sys.argv[1:])
