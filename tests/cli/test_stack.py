"""The servers of a deployment: started together, ended together, never half."""

from pathlib import Path

import psutil
import pytest

from flywheel.cli.stack import Stack, free_port
from flywheel.errors import ConfigError, UpstreamUnavailableError
from flywheel.settings import Settings

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "triage" / "flywheel.yaml"


def test_a_server_that_cannot_start_stops_the_others_and_shows_its_log(tmp_path: Path) -> None:
    workload = tmp_path / "flywheel.yaml"
    text = EXAMPLE.read_text(encoding="utf-8")
    workload.write_text(text.replace("HuggingFaceTB/SmolLM2-135M-Instruct", "./no-such-model"))
    stack = Stack(Settings(home=tmp_path / "home"), [workload])
    with pytest.raises(UpstreamUnavailableError, match="engine ended while starting") as caught:
        stack.start()
    assert "no-such-model" in str(caught.value) and "engine.log" in str(caught.value)
    left = [c for c in psutil.Process().children() if c.status() != psutil.STATUS_ZOMBIE]
    assert not [child for child in left if str(tmp_path) in " ".join(child.cmdline())]
    assert not (tmp_path / "home" / "deployment.json").exists()


def test_a_stack_needs_a_workload(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--workload"):
        Stack(Settings(home=tmp_path), [])


def test_free_ports_differ_from_each_other() -> None:
    assert len({free_port() for _ in range(20)}) > 1


def test_the_admin_token_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    stack = Stack(Settings(home=tmp_path), [EXAMPLE])
    stack._make_admin_token()
    token = (tmp_path / "admin-token").read_text()
    stack._make_admin_token()
    assert len(token) > 30 and (tmp_path / "admin-token").read_text() == token
    assert (tmp_path / "admin-token").stat().st_mode & 0o077 == 0
