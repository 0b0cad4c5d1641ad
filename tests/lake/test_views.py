from datetime import UTC, datetime, timedelta

import pytest

from flywheel.lake import Lake
from flywheel.lake.session import VIEWS
from flywheel.records import (
    Adapter,
    Assessment,
    Decision,
    Interaction,
    Message,
    Snapshot,
    Verdict,
)
from flywheel.testing import make_assessment, make_interaction
from tests.lake.writer import make_release

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def answer(text: str) -> Message:
    return Message(role="assistant", content=text)


def judged(interaction: str, rater: str, label: str, **fields: object) -> Assessment:
    return make_assessment(interaction_id=interaction, source_id=rater, label=label, **fields)


def preferred(a: str, b: str, label: str, **fields: object) -> Assessment:
    return make_assessment(
        **{"pair_ids": (a, b), "label": label, "kind": "preference", "name": "better", **fields}
    )


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_can_be_queried_on_an_empty_lake(lake: Lake, view: str) -> None:
    assert lake.query(f"SELECT * FROM {view}").num_rows == 0


def test_responses_are_interactions_with_their_labels(lake: Lake) -> None:
    labelled, bare = (make_interaction(interaction_id=name) for name in ("a", "b"))
    lake.append([labelled, bare])
    lake.append([judged("a", "dr", "x"), judged("a", "dr", "y", name="other")])
    rows = lake.query("SELECT interaction_id, name, label FROM responses ORDER BY ALL")
    assert [tuple(row.values()) for row in rows.to_pylist()] == [
        ("a", "other", "y"),
        ("a", "urgency", "x"),
        ("b", None, None),
    ]
    assert lake.fetch(Interaction, "FROM responses WHERE interaction_id = 'b'") == [bare]


def test_a_correction_that_differs_from_the_answer_makes_a_pair(lake: Lake) -> None:
    lake.append(
        [make_interaction(interaction_id=name, response=answer("Rest.")) for name in "abc"]
        + [make_interaction(interaction_id="d", response=None, status="error")]
    )
    lake.append(
        [
            make_assessment(interaction_id="a", correction=answer("Go to a doctor.")),
            make_assessment(interaction_id="b", correction=answer("Rest.")),
            make_assessment(interaction_id="c", value=1),
            make_assessment(interaction_id="d", correction=answer("Go to a doctor.")),
        ]
    )
    rows = lake.query("SELECT * FROM pairs").to_pylist()
    assert len(rows) == 1
    assert {name: rows[0][name] for name in ("pair_source", "interaction_id", "chosen")} == {
        "pair_source": "correction",
        "interaction_id": "a",
        "chosen": '{"role":"assistant","content":"Go to a doctor."}',
    }
    assert rows[0]["rejected"] == '{"role":"assistant","content":"Rest."}'


def test_a_preference_makes_a_pair_whichever_way_round_it_was_asked(lake: Lake) -> None:
    """Two raters prefer i2: one was shown (i1, i2) and said B, the other (i2, i1) and said A."""
    lake.append(
        [make_interaction(interaction_id=f"i{n}", response=answer(f"answer {n}")) for n in (1, 2)]
    )
    lake.append(
        [
            preferred("i1", "i2", "B", source_id="dr-a"),
            preferred("i2", "i1", "a", source_id="dr-b"),
        ]
    )
    [row] = lake.query("SELECT * FROM pairs").to_pylist()
    assert (row["interaction_id"], row["rejected_interaction_id"]) == ("i2", "i1")
    assert (row["raters"], row["agreement"], row["label_source"]) == (2, 1.0, "expert")
    assert lake.query("FROM labels").num_rows == 0, "a preference is no label of either answer"


@pytest.mark.parametrize("labels", [["tie"], ["A", "B"], ["tie", "tie", "A"]])
def test_ties_and_split_raters_make_no_pair(lake: Lake, labels: list[str]) -> None:
    lake.append([make_interaction(interaction_id=name) for name in ("i1", "i2")])
    lake.append([preferred("i1", "i2", label, source_id=f"r{n}") for n, label in enumerate(labels)])
    assert lake.query("SELECT * FROM pairs").num_rows == 0


def test_agreement_and_kappa_of_two_raters_worked_by_hand(lake: Lake) -> None:
    """10 items. a: 6 x, 4 y. b: 5 x, 5 y. Both x: 4; both y: 3; they agree on 7.

    Observed 0.7. Expected 0.6 x 0.5 + 0.4 x 0.5 = 0.5. Kappa (0.7 - 0.5) / (1 - 0.5) = 0.4.
    """
    a, b = "xxxxxxyyyy", "xxxxyyyyyx"
    lake.append(
        [judged(str(n), "a", said) for n, said in enumerate(a)]
        + [judged(str(n), "b", said) for n, said in enumerate(b)]
        + [judged("only one", "a", "x")]
    )
    [row] = lake.query("SELECT * FROM label_agreement").to_pylist()
    assert (row["rater_a"], row["rater_b"], row["items"]) == ("expert:a", "expert:b", 10)
    assert row["agreement"] == pytest.approx(0.7)
    assert row["expected"] == pytest.approx(0.5)
    assert row["kappa"] == pytest.approx(0.4)


def test_a_judge_is_compared_with_the_expert_and_kappa_is_null_where_chance_gives_all(
    lake: Lake,
) -> None:
    lake.append([judged("1", "dr", "x"), judged("1", "gpt", "x", source_type="llm_judge")])
    [row] = lake.query("SELECT * FROM label_agreement").to_pylist()
    assert (row["rater_a"], row["rater_b"]) == ("expert:dr", "judge:gpt")
    assert (row["agreement"], row["expected"], row["kappa"]) == (1.0, 1.0, None)


def make_adapter(number: int, parent: int | None) -> Adapter:
    return Adapter(
        adapter_id=f"sha{number}",
        name=f"triage-{number}",
        workload="triage",
        created_at=NOON,
        base_model="base",
        parent=None if parent is None else f"sha{parent}",
        snapshot_id=f"snapshot{number}",
        spec={},
        rank=16,
        target_modules=("q_proj",),
        size_bytes=1,
        path="p",
    )


def make_decision(number: int, verdict: Verdict, minute: int) -> Decision:
    return Decision(
        decision_id=f"{number}-{minute}",
        workload="triage",
        created_at=NOON + timedelta(minutes=minute),
        candidate=f"triage-{number}",
        champion="base",
        verdict=verdict,
        reasons=(),
        comparisons=(),
        suite="s",
        suite_hash="h",
        candidate_evaluation_id="c",
        champion_evaluation_id="b",
    )


def test_lineage_tells_each_adapters_ancestors_and_fate(lake: Lake) -> None:
    lake.append([make_adapter(1, None), make_adapter(2, 1), make_adapter(3, 2), make_adapter(4, 9)])
    lake.append(
        [
            Snapshot(
                snapshot_id="snapshot1",
                workload="triage",
                created_at=NOON,
                path="p",
                lake_versions={},
                recipe={},
                counts={},
                labels=24,
                new_labels=12,
            )
        ]
    )
    lake.append([make_decision(1, "PASS", 1), make_decision(2, "INCONCLUSIVE", 2)])
    lake.append([make_decision(2, "PASS", 3), make_decision(3, "FAIL", 4)])
    for epoch in (1, 2):
        lake.append_release(make_release(epoch))
    lake.append_release(make_release(3).model_copy(update={"model": "triage-1"}))
    rows = lake.query(
        "SELECT name, generation, lineage, labels, verdict, epochs, is_serving "
        "FROM adapter_lineage ORDER BY name"
    )
    names = ["triage-1", "triage-2", "triage-3"]
    assert [tuple(row.values()) for row in rows.to_pylist()] == [
        ("triage-1", 0, names[:1], 24, "PASS", [1, 3], True),
        ("triage-2", 1, names[:2], None, "PASS", [2], False),
        ("triage-3", 2, names, None, "FAIL", None, False),
        ("triage-4", None, None, None, None, None, False),
    ]


def test_cost_is_summed_a_day_a_model_and_an_activity(lake: Lake) -> None:
    lake.append(
        [
            make_interaction(input_tokens=10, output_tokens=2, cost_usd=0.5),
            make_interaction(input_tokens=20, status="error"),
            make_interaction(response_model="triage-1", adapter="triage-1"),
        ]
    )
    judge = {"source_type": "llm_judge", "source_id": "j", "judge_model": "gpt"}
    lake.append(
        [
            make_assessment(interaction_id="i", value=1, input_tokens=100, cost_usd=0.1, **judge),
            make_assessment(interaction_id="i", value=1),
        ]
    )
    rows = lake.query("SELECT * EXCLUDE (workload, event_date) FROM cost_daily ORDER BY ALL")
    assert [tuple(row.values()) for row in rows.to_pylist()] == [
        ("answering", "base", 2, 1, 30, 2, 0.5),
        ("answering", "triage-1", 1, 0, None, None, None),
        ("judging", "gpt", 1, 0, 100, None, 0.1),
    ]
