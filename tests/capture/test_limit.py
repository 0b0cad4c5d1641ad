import json
import subprocess
import sys
from pathlib import Path

from flywheel.capture import drain
from flywheel.lake import Lake


def test_a_disk_that_takes_no_more_loses_only_what_memory_cannot_hold(
    spool_dir: Path, lake: Lake
) -> None:
    """RLIMIT_FSIZE makes every write past it fail in the kernel, without root."""
    command = [sys.executable, "-m", "tests.capture.limited_spool", str(spool_dir)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    well, failing, during, recovered, after = json.loads(result.stdout)
    assert (well, failing, recovered) == (True, True, True)
    assert during["dropped"] == {"disk_error": 1}
    assert after["accepted"] == after["spooled"] + 1
    assert "spool" in result.stderr, "a loss is shouted"
    report = drain(spool_dir, lake)
    assert report.interactions + report.quarantined == after["spooled"]
