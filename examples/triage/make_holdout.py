"""Writes `holdout.jsonl`, the frozen suite of the gate: one message for each hold-out complaint.

Run `python -m flywheel_examples.triage.make_holdout` after a change of the complaints.
"""

import json
from pathlib import Path

from flywheel.records import SuiteItem
from flywheel_examples.triage.messages import holdout_messages

HOLDOUT = Path(__file__).with_name("holdout.jsonl")


def holdout_jsonl() -> str:
    """The lines of the suite."""
    items = [
        SuiteItem(
            item_id=message.message_id,
            cluster_id=message.complaint_id,
            messages=message.messages,
            reference={"urgency": message.urgency},
        )
        for message in holdout_messages()
    ]
    lines = (json.dumps(item.model_dump(mode="json"), ensure_ascii=False) for item in items)
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Writes the file beside this one."""
    HOLDOUT.write_text(holdout_jsonl(), encoding="utf-8")


if __name__ == "__main__":
    main()
