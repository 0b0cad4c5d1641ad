from pathlib import Path

import flywheel_examples.triage
from flywheel.records import SuiteItem
from flywheel_examples.triage.complaints import HOLDOUT_PER_CLASS, URGENCIES
from flywheel_examples.triage.make_holdout import HOLDOUT, holdout_jsonl
from flywheel_examples.triage.messages import SYSTEM_PROMPT


def test_the_committed_holdout_is_fresh() -> None:
    """Run `python -m flywheel_examples.triage.make_holdout` and commit what it wrote."""
    assert HOLDOUT.read_text(encoding="utf-8") == holdout_jsonl()


def test_the_holdout_lies_where_the_workload_looks_for_it() -> None:
    folder = Path(str(flywheel_examples.triage.__file__)).parent
    assert HOLDOUT.resolve() == (folder / "holdout.jsonl").resolve()


def test_every_line_is_a_suite_item_and_classes_are_balanced() -> None:
    lines = HOLDOUT.read_text(encoding="utf-8").splitlines()
    items = [SuiteItem.model_validate_json(line) for line in lines]
    references = [item.reference["urgency"] for item in items]
    assert {u: references.count(u) for u in URGENCIES} == dict.fromkeys(
        URGENCIES, HOLDOUT_PER_CLASS
    )
    assert len({item.item_id for item in items}) == len({item.cluster_id for item in items}) == 144
    assert {item.messages[0].content for item in items} == {SYSTEM_PROMPT}
    assert all([m.role for m in item.messages] == ["system", "user"] for item in items)
