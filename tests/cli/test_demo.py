"""The demo's verdict: each promise can be broken, and then says so."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flywheel.cli import app
from flywheel.cli.demo import BaseScores, DemoResult, NightScores, Requests, promises
from flywheel.errors import ConfigError
from flywheel_examples.triage.picture import draw
from flywheel_examples.triage.queries import QUERIES

ADAPTERS = ("triage-111111111111", "triage-222222222222", "triage-333333333333")


def night(number: int, **changes: object) -> NightScores:
    good: dict[str, object] = {
        "night": number,
        "labels": 72,
        "valid": 1.0,
        "accuracy": 0.7,
        "accuracy_ci": (0.62, 0.78),
        "emergency_recall": 0.6,
        "decision": "PASS",
        "promoted": True,
        "poisoned": False,
        "adapter": ADAPTERS[number - 1],
    }
    return NightScores.model_validate(good | changes)


def result(**changes: object) -> DemoResult:
    poisoned = night(3, decision="FAIL", promoted=False, poisoned=True, accuracy=0.4)
    good: dict[str, object] = {
        "workload": "triage",
        "base_model": "base",
        "seed": 7,
        "base": BaseScores(valid=0, accuracy=0, accuracy_ci=(0, 0.03), emergency_recall=0, n=144),
        "nights": (night(1), night(2), poisoned),
        "requests": Requests(sent=9, answered=9, failed=0, captured=9),
        "rollback_seconds": 0.2,
        "roll_forward_seconds": 0.2,
        "champion": ADAPTERS[1],
        "queries": (),
        "wall_seconds": 500,
        "phase_seconds": {},
        "machine": {},
    }
    return DemoResult.model_validate(good | changes)


def broken(outcome: DemoResult, *, time_allowance: float = 1.0) -> list[str]:
    checked = promises(outcome, time_allowance=time_allowance)
    return [promise.text for promise in checked if not promise.kept]


def test_a_good_result_breaks_no_promise() -> None:
    assert broken(result()) == []


@pytest.mark.parametrize(
    ("changes", "promise"),
    [
        ({"nights": (night(1, valid=0.98), night(2))}, "valid JSON"),
        ({"nights": (night(1), night(2, accuracy=0.63))}, "30 points above chance"),
        ({"nights": (night(1), night(2), night(3, poisoned=True))}, "poisoned night"),
        ({"nights": (night(1), night(2))}, "poisoned night"),
        ({"champion": ADAPTERS[2]}, "champion at the end"),
        ({"requests": Requests(sent=9, answered=8, failed=1, captured=9)}, "no request failed"),
        ({"requests": Requests(sent=9, answered=9, failed=0, captured=8)}, "captured"),
        ({"rollback_seconds": 1.2}, "roll-back"),
        ({"wall_seconds": 601}, "10 minutes"),
    ],
)
def test_each_promise_can_be_broken(changes: dict[str, object], promise: str) -> None:
    assert any(promise in text for text in broken(result(**changes)))


def test_a_hold_out_that_is_too_small_breaks_its_promise() -> None:
    small = result().base.model_copy(update={"n": 119})
    assert broken(result(base=small)) == ["hold-out of at least 120 unseen complaints"]


def test_an_allowance_stretches_time_and_nothing_else() -> None:
    slow = result(wall_seconds=1400, rollback_seconds=2.0)
    assert broken(slow, time_allowance=2.5) == []
    assert broken(result(wall_seconds=1501), time_allowance=2.5)
    assert broken(result(nights=(night(1), night(2, accuracy=0.63))), time_allowance=99)


def test_check_reads_the_file_and_exits_with_the_verdict(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(result().model_dump_json())
    ok = CliRunner().invoke(app, ["demo", "--check", "--home", str(tmp_path)])
    assert ok.exit_code == 0 and "all promises kept" in ok.output
    (tmp_path / "result.json").write_text(result(wall_seconds=9999).model_dump_json())
    late = CliRunner().invoke(app, ["demo", "--check", "--home", str(tmp_path)])
    assert late.exit_code == 1 and "1 of 9 promises BROKEN" in late.output


def test_a_result_that_is_absent_or_cut_short_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make demo"):
        DemoResult.read(tmp_path / "result.json")
    (tmp_path / "result.json").write_text('{"workload": "tri')
    with pytest.raises(ConfigError, match="result.json"):
        DemoResult.read(tmp_path / "result.json")


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    path = draw(result(), tmp_path / "curve.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_there_are_five_queries_and_each_asks_something_else() -> None:
    assert len({sql for _, sql in QUERIES}) == len({question for question, _ in QUERIES}) == 5
