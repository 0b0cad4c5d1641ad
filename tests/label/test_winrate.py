"""Win rates, as they are and at equal length; the numbers worked by hand or simulated."""

import json
import math
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flywheel.cli.judge import app
from flywheel.errors import JudgeError
from flywheel.label import Retraction, retract
from flywheel.label.calibration import CalibratedMean
from flywheel.label.winrate import Preference, calibrate_rate, read_preferences, win_rate
from flywheel.lake import Lake
from flywheel.records import Message
from flywheel.testing import make_assessment, make_interaction


def _drawn(n: int, *, theta: float, phi: float, shift: float, seed: int = 3) -> list[Preference]:
    """Preferences of a judge who leans by theta to the first and by phi to the longer one."""
    source = random.Random(seed)
    found = []
    for index in range(n):
        length = source.gauss(shift, 100)
        p = 1 / (1 + math.exp(-(theta + phi * math.tanh(length / 100))))
        won = source.random() < p
        found.append(Preference(wins=won, length_difference=length, cluster=str(index)))
    return found


def test_a_win_rate_counts_a_tie_as_half() -> None:
    """(1 + 0 + 0.5 + 1) / 4 = 0.625; of the three decided pairs the longer won two."""
    rows = [(1, 10), (0, 5), (0.5, 7), (1, 3)]
    found = win_rate(
        [Preference(wins=w, length_difference=d, cluster=str(i)) for i, (w, d) in enumerate(rows)]
    )
    assert (found.pairs, found.ties, found.win_rate.mean) == (4, 1, 0.625)
    assert found.longer_wins == pytest.approx(2 / 3)
    assert found.length_controlled is None, "four pairs say nothing of length"


def test_answers_that_win_by_length_alone_win_half_at_equal_length() -> None:
    found = win_rate(_drawn(2000, theta=0, phi=1.5, shift=120))
    assert found.win_rate.mean > 0.65
    assert found.length_controlled is not None
    assert found.length_controlled.mean == pytest.approx(0.5, abs=0.05)
    assert found.length_controlled.low < 0.5 < found.length_controlled.high
    assert found.length_effect is not None
    assert found.length_effect == pytest.approx(1.5, abs=0.35)


def test_a_better_model_stays_better_at_equal_length() -> None:
    """theta 1 is 1 / (1 + exp(-1)) = 0.731, whatever the lengths add."""
    found = win_rate(_drawn(2000, theta=1, phi=1.5, shift=-120))
    assert found.win_rate.mean < 0.55, "its short answers hide it"
    assert found.length_controlled is not None
    assert found.length_controlled.mean == pytest.approx(0.731, abs=0.05)


def test_without_any_bias_both_rates_are_the_same() -> None:
    found = win_rate(_drawn(2000, theta=0.5, phi=0, shift=80))
    assert found.length_controlled is not None
    assert found.length_controlled.mean == pytest.approx(found.win_rate.mean, abs=0.04)


def test_a_clean_sweep_and_equal_lengths_are_no_trouble() -> None:
    swept = [Preference(wins=1, length_difference=d, cluster=str(d)) for d in range(1, 40)]
    found = win_rate(swept)
    assert found.length_controlled is not None
    assert 0.9 < found.length_controlled.mean <= 1
    level = [Preference(wins=i % 2, length_difference=0, cluster=str(i)) for i in range(40)]
    assert win_rate(level).length_controlled is None


def test_turning_the_models_round_turns_the_rate_round() -> None:
    pairs = _drawn(500, theta=0.4, phi=1, shift=50)
    turned = [
        Preference(wins=1 - p.wins, length_difference=-p.length_difference, cluster=p.cluster)
        for p in pairs
    ]
    first, second = win_rate(pairs), win_rate(turned)
    assert first.length_controlled is not None and second.length_controlled is not None
    assert first.length_controlled.mean == pytest.approx(1 - second.length_controlled.mean)


def test_no_preferences_are_no_win_rate() -> None:
    with pytest.raises(ValueError, match="no preferences"):
        win_rate([])


def _fill(lake: Lake) -> None:
    """Two pairs with the models either way round, one of them judged twice: the later counts."""
    lake.append(
        [
            make_interaction(interaction_id=name, conversation_id=f"c-{name[-1]}",
                             response_model=model,
                             response=Message(role="assistant", content=text))
            for name, model, text in (
                ("new-1", "new", "long answer"), ("old-1", "old", "short"),
                ("new-2", "new", "x"), ("old-2", "old", "longer"),
            )
        ]
    )  # fmt: skip
    answers = {"response_a": {"characters": 11}, "response_b": {"characters": 5}}
    turned = {"response_a": {"characters": 6}, "response_b": {"characters": 1}}
    common = {"name": "better", "kind": "preference", "source_type": "llm_judge"}
    lake.append(
        [
            make_assessment(pair_ids=("new-1", "old-1"), label="B", value=0.0, source_id="j",
                            covariates=answers, **common),
            make_assessment(pair_ids=("new-1", "old-1"), label="A", value=1.0, source_id="j",
                            covariates=answers, created_at=datetime(2026, 2, 1, tzinfo=UTC),
                            **common),
            make_assessment(pair_ids=("old-2", "new-2"), label="A", value=1.0, source_id="j",
                            covariates=turned, **common),
            make_assessment(pair_ids=("old-2", "new-2"), label="cannot_judge", source_id="k",
                            covariates=turned, **common),
        ]
    )  # fmt: skip


def test_preferences_are_read_from_the_lake_whoever_came_first(lake: Lake) -> None:
    _fill(lake)
    found = read_preferences(lake, workload="triage", judge="better", model="new", against="old")
    assert [(p.wins, p.length_difference, p.cluster) for p in found] == [
        (1.0, 6.0, "c-1"),
        (0.0, -5.0, "c-2"),
    ]


def test_preferences_of_an_earlier_version_of_the_judge_are_not_read(lake: Lake) -> None:
    _fill(lake)
    lake.append(
        [
            make_assessment(pair_ids=("new-1", "old-1"), label="B", value=0.0,
                            source_id="judge:b/m", name="better", kind="preference",
                            source_type="llm_judge",
                            judge_prompt_hash="new", created_at=datetime(2026, 3, 1, tzinfo=UTC),
                            covariates={"response_a": {"characters": 2},
                                        "response_b": {"characters": 1}})
        ]
    )  # fmt: skip
    found = read_preferences(lake, workload="triage", judge="better", model="new", against="old")
    assert [(p.wins, p.length_difference) for p in found] == [(0.0, 1.0)]


def _fill_many(lake: Lake, *, labelled: int) -> None:
    """Forty pairs, the new model's answer now A, now B. The judge has it win all; experts, of the
    pairs that were drawn, three of four, and call each fifth a tie."""
    models = {"a": ("new", "old"), "b": ("old", "new")}
    rows = [(n, "a" if n % 2 else "b") for n in range(40)]
    lake.append(
        [
            make_interaction(interaction_id=f"{n:02d}-{at}", response_model=models[side][at])
            for n, side in rows
            for at in (0, 1)
        ]
    )
    common = {"name": "better", "kind": "preference", "interaction_id": None}
    sizes = {"response_a": {"characters": 2}, "response_b": {"characters": 1}}
    judged = []
    for n, side in rows:
        win, loss = ("A", "B") if side == "a" else ("B", "A")
        said = "tie" if n % 5 == 0 else loss if n % 4 == 1 else win
        pair = (f"{n:02d}-0", f"{n:02d}-1")
        judged.append(
            make_assessment(pair_ids=pair, label=win, value=float(win == "A"), covariates=sizes,
                            source_type="llm_judge", source_id="judge:better/m", **common)
        )  # fmt: skip
        if n < labelled:
            # The expert saw them the other way round.
            turned = {"A": "B", "B": "A"}.get(said, said)
            value = {"A": 1.0, "B": 0.0}.get(turned, 0.5)
            judged.append(
                make_assessment(pair_ids=pair[::-1], label=turned, value=value,
                                inclusion_prob=0.5, **common)
            )  # fmt: skip
    lake.append(judged)


def test_preferences_that_were_withdrawn_are_not_read(lake: Lake) -> None:
    _fill(lake)
    retract(lake, Retraction(workload="triage", source_id="j"))
    read = read_preferences(lake, workload="triage", judge="better", model="new", against="old")
    assert read == []


WORKLOAD = """\
name: triage
alias: triage
base_model: m
labels: {name: urgency}
graders: {g: {type: string_check, operation: eq, input: x, reference: x}}
gate: {suite: s.jsonl, target: {grader: g}}
"""


def test_the_command_prints_both_rates_or_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "flywheel.yaml").write_text(WORKLOAD)
    _fill(Lake(str(tmp_path / "lake")))
    common = [
        "winrate",
        "better",
        "--home",
        str(tmp_path),
        "--workload",
        str(tmp_path / "flywheel.yaml"),
    ]
    ask = CliRunner().invoke
    told = ask(app, [*common, "--model", "new", "--against", "old", "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["win_rate"]["mean"] == 0.5
    assert "win rate" in ask(app, [*common, "--model", "new", "--against", "old"]).output
    missing = ask(app, [*common, "--model", "new", "--against", "nobody"])
    assert isinstance(missing.exception, JudgeError)
    assert "flywheel judge run better" in str(missing.exception)


def test_experts_correct_a_win_rate_whichever_way_round_they_saw_the_pair(lake: Lake) -> None:
    """Of pairs 0 to 19: ties 0, 5, 10, 15; losses 1, 9, 13, 17; the other twelve are wins.

    So (12 + 4 / 2) / 20 = .7, where the judge says 1; the judge never varies, so lambda is 0.
    """
    _fill_many(lake, labelled=20)
    asked = {"workload": "triage", "judge": "better", "labels": "better"}
    found = calibrate_rate(lake, **asked, model="new", against="old")
    assert isinstance(found, CalibratedMean)
    assert (found.judged, found.labelled, found.judge_only) == (40, 20, 1.0)
    assert found.labels_only.mean == pytest.approx(0.7)
    assert found.estimate.mean == pytest.approx(0.7)
    turned = calibrate_rate(lake, **asked, model="old", against="new")
    assert isinstance(turned, CalibratedMean)
    assert turned.labels_only.mean == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("labelled", "told"),
    [
        (0, "uncalibrated: no random slice of experts' preferences; `flywheel review push` draws"),
        (9, "uncalibrated: 9 randomly drawn pairs have an expert's preference, 10 are needed"),
        (20, "calibrated (PPI++)"),
    ],
)
def test_the_command_never_leaves_a_judges_win_rate_alone(
    tmp_path: Path, labelled: int, told: str
) -> None:
    (tmp_path / "flywheel.yaml").write_text(WORKLOAD)
    _fill_many(Lake(str(tmp_path / "lake")), labelled=labelled)
    asked = ["winrate", "better", "--home", str(tmp_path), "--model", "new", "--against", "old",
             "--workload", str(tmp_path / "flywheel.yaml")]  # fmt: skip
    printed = CliRunner().invoke(app, asked).stdout
    assert told in " ".join(printed.split())
    assert ("labels only" in printed) is (labelled == 20)
    found = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert (found["calibrated"] is None) is (labelled < 20)
    assert (found["uncalibrated"] is None) is (labelled == 20)
