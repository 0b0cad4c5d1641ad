"""A writer that is killed, closes, or is left running, as the test says.

    python -m tests.capture.mortal_writer <spool> <most bytes>

Each line of stdin is a number of records to append; after it comes one line, the count of what was
taken. `close` closes and ends. A kill needs no word.
"""

import sys
from pathlib import Path

from flywheel.capture.spool import Spool
from tests.capture.records import exchange


def main(folder: str, max_bytes: str) -> None:
    spool = Spool(Path(folder), max_bytes=int(max_bytes), segment_bytes=20_000)
    say("up")
    for line in sys.stdin:
        if line.strip() == "close":
            spool.close()
            return
        taken = sum(spool.append("exchange", exchange()) for _ in range(int(line)))
        say(str(taken))


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
