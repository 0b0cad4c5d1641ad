"""Labelled interactions with sensible defaults, as rows and in a lake."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from flywheel.dataset.select import Labelled
from flywheel.lake import Lake
from flywheel.records import Adapter, Assessment, Decision, Message, Release, Verdict
from flywheel.testing import make_interaction

EXAMPLE = Path(__file__).parents[2] / "examples" / "triage" / "flywheel.yaml"
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CLASSES = ("emergency", "urgent", "routine")


def said(text: str | None, **fields: object) -> Message:
    return Message.model_validate({"role": "assistant", "content": text, **fields})


def asked(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def labelled(identity: str = "i1", **fields: object) -> Labelled:
    """An interaction that answered 'Rest it.' and was corrected to 'Call 112.'."""
    values: dict[str, object] = {
        "interaction_id": identity,
        "conversation_id": f"c-{identity}",
        "started_at": START,
        "messages": asked(f"Question {identity}?"),
        "tools": None,
        "response": said("Rest it."),
        "status": "ok",
        "label_source": "expert",
        "correction": said("Call 112."),
        "value": None,
        "label": None,
        "raters": 1,
        "agreement": 1.0,
        "strength": 0.9,
        "last_at": START,
    }
    return Labelled.model_validate({**values, **fields})


def correction(
    identity: str, text: str, *, rater: str = "dr-a", name: str = "urgency", minute: int = 0
) -> Assessment:
    moment = START + timedelta(minutes=minute)
    return Assessment(
        assessment_id=f"{identity}-{rater}-{minute}",
        workload="triage",
        event_date=moment.date(),
        interaction_id=identity,
        name=name,
        kind="correction",
        correction=said(text),
        source_type="human",
        source_id=rater,
        created_at=moment,
    )


def fill(lake: Lake, numbers: range) -> None:
    """Interactions i000, i001, … that answered 'routine', each corrected to a class in turn."""
    names = [f"i{number:03}" for number in numbers]
    lake.append(
        [
            make_interaction(
                interaction_id=name,
                conversation_id=f"c-{name}",
                messages=asked(f"Complaint number {name}"),
                response=said('{"urgency": "routine"}'),
            )
            for name in names
        ]
    )
    lake.append(
        [
            correction(name, f'{{"urgency": "{CLASSES[number % 3]}"}}')
            for number, name in zip(numbers, names, strict=True)
        ]
    )


def finish_night(
    lake: Lake, snapshot_id: str, *, verdict: Verdict | None, is_promoted: bool = False
) -> None:
    """An adapter trained on a snapshot; decided on unless the verdict is None; perhaps promoted."""
    name = f"triage-{snapshot_id[:12]}"
    lake.append(
        [
            Adapter(
                adapter_id=snapshot_id,
                name=name,
                workload="triage",
                created_at=START,
                base_model="base",
                snapshot_id=snapshot_id,
                spec={},
                rank=16,
                target_modules=("q_proj",),
                size_bytes=1,
                path="/",
            )
        ]
    )
    if verdict is not None:
        lake.append(
            [
                Decision(
                    decision_id=f"d-{snapshot_id}",
                    workload="triage",
                    created_at=START,
                    candidate=name,
                    champion="base",
                    verdict=verdict,
                    reasons=(),
                    comparisons=(),
                    suite="holdout",
                    suite_hash="0",
                    candidate_evaluation_id="a",
                    champion_evaluation_id="b",
                )
            ]
        )
    if is_promoted:
        lake.append_release(
            Release(
                workload="triage",
                epoch=1,
                alias="triage",
                model=name,
                adapter=name,
                previous="base",
                action="promote",
                decision_id=f"d-{snapshot_id}",
                actor="test",
                reason="test",
                created_at=START,
            )
        )
