"""`flywheel engine` as a process: a ready line a supervisor can read, and an orderly end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from openai import OpenAI

from tests.serve.engine.harness import BASE


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "flywheel.cli", "engine", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_it_prints_a_ready_line_answers_and_ends_on_sigterm(
    tiny_model: Path, tmp_path: Path
) -> None:
    home = ("--home", str(tmp_path / "home"))
    named = ("--model", str(tiny_model), "--served-name", BASE)
    process = start(*named, *home, "--port", "0", "--json", "--dtype", "float32", "--threads", "1")
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert (ready["event"], ready["model"], ready["pid"]) == ("ready", BASE, process.pid)
        assert (ready["device"], ready["dtype"]) == ("cpu", "float32")
        with OpenAI(base_url=f"{ready['url']}/v1", api_key="none") as client:
            assert client.completions.create(model=BASE, prompt="A", max_tokens=2).choices
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("model", "said"),
    [("./nothing-here", "does not exist"), ("nobody/nothing", "HF_HUB_OFFLINE is set")],
)
def test_a_model_that_cannot_be_found_is_one_error_that_says_what_was_tried(
    tmp_path: Path, model: str, said: str
) -> None:
    process = start("--model", model, "--home", str(tmp_path), "--port", "0")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said in " ".join(errors.split())
    assert "Traceback" not in errors
