from pathlib import Path

import pytest

from flywheel.lake import Lake
from tests.capture.tiny_disk import tiny_disk

__all__ = ["tiny_disk"]


@pytest.fixture
def spool_dir(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))
