"""Writes two suites of the gate, one message for each complaint of a part.

`holdout.jsonl` is the frozen suite of the workload, `development.jsonl` the one to choose settings
on. Run `python -m flywheel_examples.triage.make_holdout` after a change of the complaints.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from flywheel.records import SuiteItem
from flywheel_examples.triage.messages import (
    PatientMessage,
    development_messages,
    holdout_messages,
)

HOLDOUT = Path(__file__).with_name("holdout.jsonl")
DEVELOPMENT = Path(__file__).with_name("development.jsonl")


def holdout_jsonl() -> str:
    """The lines of the hold-out."""
    return _suite_jsonl(holdout_messages())


def development_jsonl() -> str:
    """The lines of the development set."""
    return _suite_jsonl(development_messages())


def _suite_jsonl(messages: Iterable[PatientMessage]) -> str:
    items = [
        SuiteItem(
            item_id=message.message_id,
            cluster_id=message.complaint_id,
            messages=message.messages,
            reference={"urgency": message.urgency},
        )
        for message in messages
    ]
    lines = (json.dumps(item.model_dump(mode="json"), ensure_ascii=False) for item in items)
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Writes the files beside this one."""
    HOLDOUT.write_text(holdout_jsonl(), encoding="utf-8")
    DEVELOPMENT.write_text(development_jsonl(), encoding="utf-8")


if __name__ == "__main__":
    main()
