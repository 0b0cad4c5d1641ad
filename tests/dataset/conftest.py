from pathlib import Path

import pytest

from flywheel.lake import Lake
from flywheel.workload import Workload
from tests.dataset.make import EXAMPLE


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    """The example's, with labels.minimum_new of 2, a validation split and a suite of one item."""
    text = EXAMPLE.read_text(encoding="utf-8").replace("minimum_new: 12", "minimum_new: 2")
    text = text.replace("validation_share: 0 ", "validation_share: 0.1 ")
    (tmp_path / "flywheel.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "holdout.jsonl").write_text(
        '{"item_id": "h1", "messages": [{"role": "user", "content": "My tongue is swelling!"}]}\n'
    )
    return Workload.load(tmp_path / "flywheel.yaml")
