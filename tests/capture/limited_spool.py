"""A process whose files may not grow: prints what its spool says before, during and after.

python -m tests.capture.limited_spool <folder>
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from flywheel.capture import Spool
from tests.capture.records import exchange


def main(folder: Path) -> None:
    said: list[object] = []
    with Spool(folder, queue_bytes=20_000) as spool:
        said.append(taken(spool, lambda: spool.counters.spooled == 1))
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        said.append(taken(spool, lambda: not spool.is_writable))
        while spool.append("exchange", exchange(response="x" * 5000)):
            pass
        said.append(spool.counters.model_dump())
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        said.append(eventually(lambda: spool.counters.pending == 0))
    json.dump([*said, spool.counters.model_dump()], sys.stdout)


def taken(spool: Spool, claim: Callable[[], bool]) -> bool:
    return spool.append("exchange", exchange(response="x" * 5000)) and eventually(claim)


def eventually(claim: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.01)
    return claim()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
