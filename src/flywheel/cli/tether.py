"""A child process that ends when its parent does, however the parent ended.

A parent that is killed outright runs no clean-up, and servers it had started would go on holding
ports, memory and the lake. So each is started through this file: a process of a few megabytes that
holds the server in its process group and reads a pipe whose other end only the parent has. The
operating system closes that end whatever happens to the parent; then the group is asked to stop,
and ended after GRACE_S.

Input: a command. Output: its exit status. Run by path and with the standard library alone, because
there is one of it for every server.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

GRACE_S = 20.0
"""From the request to stop to the end."""


def start_tethered(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    grace_s: float = GRACE_S,
) -> subprocess.Popen[bytes]:
    """Starts a command in a process group of its own, tethered to this process.

    Args:
        command: the program and its arguments.
        env: its whole environment.
        log: where its output is appended.
        grace_s: seconds it gets to stop once this process is gone.

    Returns:
        The tether: its exit status is the command's, its process group holds both.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", __file__, str(grace_s), *command],
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def main(arguments: Sequence[str]) -> int:
    """Runs a command until it ends, or until standard input does.

    Args:
        arguments: seconds of grace, then the command.
    """
    # A handler, because an ignored signal would stay ignored in the command. A signal to the group
    # reaches the command by itself.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(arguments[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_input, args=(float(arguments[0]),), daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 128 - status


def _end_with_input(grace_s: float) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(grace_s)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
