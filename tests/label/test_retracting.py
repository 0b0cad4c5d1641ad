from datetime import UTC, datetime

from flywheel.label import Retraction, count_labels, label_state, retract
from flywheel.lake import Lake
from flywheel.records import Assessment, Message
from flywheel.testing import make_interaction


def correction(identity: str, rater: str, text: str, *, day: int) -> Assessment:
    moment = datetime(2026, 1, day, 12, tzinfo=UTC)
    return Assessment(
        assessment_id=f"{identity}-{rater}-{day}",
        workload="triage",
        event_date=moment.date(),
        interaction_id=identity,
        name="urgency",
        kind="correction",
        correction=Message(role="assistant", content=text),
        source_type="human",
        source_id=rater,
        created_at=moment,
    )


def labels(lake: Lake) -> dict[str, str]:
    rows = lake.query("SELECT interaction_id, correction ->> '$.content' AS text FROM labels")
    return {row["interaction_id"]: row["text"] for row in rows.to_pylist()}


def test_retracted_judgements_stop_teaching_and_stay_on_record(lake: Lake) -> None:
    lake.append(
        [
            correction("a", "good", "A", day=1),
            correction("b", "bad", "B", day=1),
            correction("c", "bad", "C", day=2),
        ]
    )
    report = retract(lake, Retraction(workload="triage", source_id="bad", reason="poisoned"))
    assert (report.judgements, report.items, report.names) == (2, 2, {"urgency": 2})
    assert labels(lake) == {"a": "A"}
    rows = lake.query("SELECT status, count(*) AS n FROM assessments GROUP BY 1 ORDER BY 1")
    assert rows.to_pylist() == [{"status": "discarded", "n": 2}, {"status": "submitted", "n": 3}]
    withdrawn = lake.query("SELECT correction FROM assessments WHERE status = 'discarded'")
    assert withdrawn.column("correction").to_pylist() == [None, None]


def test_pairs_are_counted_as_items_whichever_order_they_were_shown_in(lake: Lake) -> None:
    fields = {"interaction_id": None, "kind": "preference", "correction": None, "label": "A"}
    pairs = [("a", "b"), ("b", "a"), ("c", "d")]
    lake.append(
        [
            correction(f"p{number}", "bad", "x", day=1).model_copy(
                update={**fields, "pair_ids": pair}
            )
            for number, pair in enumerate(pairs)
        ]
    )
    report = retract(lake, Retraction(workload="triage", source_id="bad"))
    assert (report.judgements, report.items) == (3, 2)


def test_retracting_twice_adds_nothing(lake: Lake) -> None:
    lake.append([correction("a", "bad", "A", day=1)])
    asked = Retraction(workload="triage", source_id="bad")
    assert retract(lake, asked).judgements == 1
    version = lake.versions()["assessments"]
    assert retract(lake, asked).judgements == 0
    assert lake.versions()["assessments"] == version


def test_only_the_days_asked_for_are_retracted_and_the_rater_s_earlier_word_counts_again(
    lake: Lake,
) -> None:
    lake.append([correction("a", "dr", f"day {day}", day=day) for day in (1, 2, 3)])
    since = datetime(2026, 1, 2, tzinfo=UTC)
    until = datetime(2026, 1, 3, tzinfo=UTC)
    asked = Retraction(workload="triage", source_id="dr", since=since, until=until)
    assert retract(lake, asked).judgements == 1
    assert labels(lake) == {"a": "day 3"}
    assert retract(lake, asked.model_copy(update={"until": None})).judgements == 1
    assert labels(lake) == {"a": "day 1"}


def test_a_dry_run_counts_and_appends_nothing(lake: Lake) -> None:
    lake.append([correction("a", "bad", "A", day=1)])
    asked = Retraction(workload="triage", source_id="bad")
    assert retract(lake, asked, is_dry_run=True).judgements == 1
    assert labels(lake) == {"a": "A"}


def test_a_rater_nobody_knows_has_nothing_to_retract(lake: Lake) -> None:
    assert retract(lake, Retraction(workload="triage", source_id="nobody")).judgements == 0


def test_judgements_are_counted_by_question_source_rater_and_day(lake: Lake) -> None:
    lake.append(
        [
            correction("a", "one", "A", day=1),
            correction("b", "one", "B", day=1),
            correction("a", "two", "Z", day=2),
        ]
    )
    retract(lake, Retraction(workload="triage", source_id="two"))
    counts = [
        (count.source_id, count.day.day, count.judgements, count.in_force, count.corrections)
        for count in count_labels(lake, "triage")
    ]
    assert counts == [("one", 1, 2, 2, 2), ("two", 2, 1, 0, 1)]


def test_the_state_of_a_question_counts_labels_and_disagreements(lake: Lake) -> None:
    lake.append([make_interaction(interaction_id="a"), make_interaction(interaction_id="b")])
    lake.append(
        [
            correction("a", "one", "A", day=1),
            correction("a", "two", "Z", day=1),
            correction("b", "one", "B", day=1),
        ]
    )
    state = label_state(lake, "triage", "urgency")
    assert state.model_dump(exclude={"name"}) == {
        "interactions": 2,
        "labelled": 2,
        "corrected": 1,
        "disagreements": 1,
    }
