from pathlib import Path

import pytest

import flywheel_examples.triage
from flywheel.records import SuiteItem
from flywheel.workload import Workload
from flywheel_examples.triage.complaints import URGENCIES
from flywheel_examples.triage.make_holdout import (
    DEVELOPMENT,
    HOLDOUT,
    development_jsonl,
    holdout_jsonl,
)
from flywheel_examples.triage.messages import SYSTEM_PROMPT


def test_the_committed_suites_are_fresh() -> None:
    """Run `python -m flywheel_examples.triage.make_holdout` and commit what it wrote."""
    assert HOLDOUT.read_text(encoding="utf-8") == holdout_jsonl()
    assert DEVELOPMENT.read_text(encoding="utf-8") == development_jsonl()


def test_the_workload_gates_on_the_holdout() -> None:
    folder = Path(str(flywheel_examples.triage.__file__)).parent
    workload = Workload.load(folder / "flywheel.yaml")
    assert workload.suite_path.resolve() == HOLDOUT.resolve()


@pytest.mark.parametrize("suite", [HOLDOUT, DEVELOPMENT], ids=["holdout", "development"])
def test_every_line_is_a_suite_item_and_classes_are_balanced(suite: Path) -> None:
    lines = suite.read_text(encoding="utf-8").splitlines()
    items = [SuiteItem.model_validate_json(line) for line in lines]
    references = [item.reference["urgency"] for item in items]
    assert {u: references.count(u) for u in URGENCIES} == dict.fromkeys(URGENCIES, 48)
    assert len({item.item_id for item in items}) == len({item.cluster_id for item in items}) == 144
    assert {item.messages[0].content for item in items} == {SYSTEM_PROMPT}
    assert all([m.role for m in item.messages] == ["system", "user"] for item in items)
