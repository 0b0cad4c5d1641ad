"""`flywheel keys …`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flywheel.cli import app
from flywheel.errors import ConfigError
from flywheel.serve.gateway.budget import DailyBudgets
from flywheel.serve.gateway.keys import KeyRing


def run(home: Path, *words: str) -> str:
    result = CliRunner().invoke(app, ["keys", *words, "--home", str(home)])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_a_key_is_made_listed_and_revoked(tmp_path: Path) -> None:
    assert "the gateway is open" in run(tmp_path, "list").replace("\n", " ")
    made = json.loads(
        run(
            tmp_path,
            "create",
            "ward-7",
            "--workload",
            "triage",
            "--tokens-per-minute",
            "9",
            "--json",
        )
    )
    ring = KeyRing(tmp_path / "gateway-keys.json")
    found = ring.find(made["token"])
    assert found is not None and found.tokens_per_minute == 9 and "sha256" not in made
    assert made["token"] not in run(tmp_path, "list") + run(tmp_path, "list", "--json")
    run(tmp_path, "revoke", "ward-7")
    (listed,) = json.loads(run(tmp_path, "list", "--json"))
    assert listed["revoked_at"] is not None and "sha256" not in listed
    with pytest.raises(ConfigError, match="no key 'ward-7' is in force"):
        run(tmp_path, "revoke", "ward-7")


def test_only_the_token_is_on_stdout_so_that_a_script_can_take_it(tmp_path: Path) -> None:
    token = run(tmp_path, "create", "ward-7", "--workload", "*").strip()
    assert KeyRing(tmp_path / "gateway-keys.json").find(token) is not None


def test_what_was_spent_today_is_shown(tmp_path: Path) -> None:
    budgets = DailyBudgets(tmp_path / "gateway", {})
    budgets.spend("triage", 0.5)
    budgets.spend("triage", None)
    budgets.close()
    found = json.loads(run(tmp_path, "spent", "--json"))["workloads"]
    assert found == {"triage": {"usd": 0.5, "calls": 1, "unknown": 1}}
    assert "0.5000" in run(tmp_path, "spent")
