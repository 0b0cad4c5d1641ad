"""How many threads a training on the CPU takes: as many as there are cores nobody else keeps busy.

The threads of one product wait for each other. Beside another process that keeps the cores busy,
two threads on two cores were five to fifty times slower than one (docs/training.md); with the
machine to itself, two are half again as fast.
"""

import math
import os
import time
from pathlib import Path

MIN_WINDOW_S = 1.0
"""A shorter look says nothing."""
TOLERANCE = 0.35
"""Of a core: the rest of a deployment, idle, keeps about a tenth of one busy."""


class OthersLoad:
    """Cores that processes other than this one and its parent keep busy, since it was made.

    The parent waits while this process trains; what it does at the beginning does not last.
    """

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._started = time.monotonic()
        self._before = self._busy_seconds()

    def cores(self) -> float | None:
        """Cores busy on average; None where it cannot be told."""
        elapsed, after = time.monotonic() - self._started, self._busy_seconds()
        if self._before is None or after is None or elapsed < MIN_WINDOW_S:
            return None
        return max(0.0, (after - self._before) / elapsed)

    def _busy_seconds(self) -> float | None:
        """CPU time of the whole machine less our own, as Linux counts it since boot."""
        try:
            whole = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
            # The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15.
            parent = Path(f"/proc/{self._parent}/stat").read_text(encoding="utf-8")
        except OSError:
            return None
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, whole)
        theirs = sum(int(field) for field in parent.rpartition(")")[2].split()[11:13])
        own = os.times()
        ticks = user + nice + system + irq + softirq + steal - theirs
        return ticks / os.sysconf("SC_CLK_TCK") - own.user - own.system


def threads_for(available: int, busy: float | None) -> int:
    """Threads to train with.

    Args:
        available: threads the library would take.
        busy: cores others keep busy; None where it is not known.
    """
    if busy is None:
        return available
    return max(1, min(available, math.floor(available - busy + TOLERANCE)))


def share_cores(remembered: Path, load: OthersLoad) -> None:
    """Sets the threads of torch, once for a run: a resumed one must multiply as before.

    `OMP_NUM_THREADS` is somebody's decision and stands.
    """
    import torch

    if "OMP_NUM_THREADS" in os.environ:
        return
    if remembered.is_file():
        count = int(remembered.read_text(encoding="ascii"))
    else:
        count = threads_for(torch.get_num_threads(), load.cores())
        remembered.write_text(str(count), encoding="ascii")
    torch.set_num_threads(count)
