"""What a gate leaves for people. Pictures are drawn for real; they were looked at by eye once."""

from pathlib import Path

from flywheel.gate.decide import Pair, decide, metrics_of, pair_up
from flywheel.gate.report import (
    comparison_rows,
    draw_agreement,
    draw_intervals,
    gate_metrics,
    item_rows,
)
from flywheel.gate.suite import Suite
from flywheel.records import Decision
from flywheel.workload import GateSection
from tests.gate.conftest import make_report, make_suite

GATE = GateSection.model_validate(
    {
        "suite": "holdout.jsonl",
        "target": {"name": "accuracy", "grader": "correct"},
        "guardrails": [
            {"name": "no_worse", "grader": "correct", "margin": 0.5},
            {"name": "recall", "grader": "correct", "where": {"urgency": "urgent"}, "margin": 0.01},
        ],
        "resamples": 200,
        "max_error_share": 0.1,
    }
)


def gated() -> tuple[Suite, Decision, list[Pair]]:
    suite = make_suite(30, never_again=(1,))
    candidate = make_report(suite, "candidate", [1] * 24 + [0] * 5 + [None])
    champion = make_report(suite, "champion", [1] * 6 + [0] * 24)
    decision = decide(candidate, champion, suite, GATE, workload="triage")
    return suite, decision, pair_up(candidate, champion, suite)


def test_metrics_carry_both_models_and_their_intervals() -> None:
    _, decision, _ = gated()
    metrics = gate_metrics(decision)
    assert metrics["candidate.accuracy"] == 24 / 30
    assert metrics["champion.accuracy"] == 6 / 30
    low, high = metrics["difference.accuracy_low"], metrics["difference.accuracy_high"]
    assert low < metrics["difference.accuracy"] < high
    assert metrics["items.recall"] == 10


def test_items_that_differ_come_first_with_what_both_said() -> None:
    _, _, pairs = gated()
    rows = item_rows(pairs)
    assert [row["differs"] for row in rows] == [True] * 19 + [False] * 11
    assert rows[0]["asked"] == "complaint 6"
    assert (rows[0]["champion.correct"], rows[0]["candidate.correct"]) == (0, 1)
    assert [row["error"] for row in rows if row["item_id"] == "i029"] == [
        "UpstreamUnavailableError"
    ]


def test_comparisons_are_a_row_each() -> None:
    _, decision, _ = gated()
    rows = comparison_rows(decision)
    assert [row["metric"] for row in rows] == ["accuracy", "no_worse", "recall", "never_again"]
    assert [row["verdict"] for row in rows] == [one.verdict for one in decision.comparisons]


def test_pictures_have_a_row_and_a_square_a_metric(tmp_path: Path) -> None:
    suite, decision, pairs = gated()
    metrics = [one for one in metrics_of(GATE, suite) if one.rule != "never_again"]
    intervals, agreement = draw_intervals(decision), draw_agreement(decision, metrics, pairs)
    labels = [label.get_text() for label in intervals.axes[0].get_yticklabels()]
    assert [label.split("\n")[0] for label in labels] == ["recall", "no_worse", "accuracy"]
    assert [axes.get_title() for axes in agreement.axes] == [
        "accuracy (n=30)",
        "no_worse (n=30)",
        "recall (n=10)",
    ]
    for name, figure in (("intervals", intervals), ("agreement", agreement)):
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
