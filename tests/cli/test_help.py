"""Every command and option explains itself, and starts quickly."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from flywheel.cli import app

ROOT = Path(__file__).resolve().parents[2]
VERBS = [
    "init",
    "demo",
    "up",
    "engine",
    "gateway",
    "capture",
    "label",
    "dataset",
    "train",
    "gate",
    "promote",
    "rollback",
    "status",
    "sql",
    "lake",
    "run",
]


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from walk(child, (*path, name))
    else:
        yield path, command


COMMANDS = dict(walk(typer.main.get_command(app)))


def test_every_promised_verb_is_there() -> None:
    assert set(VERBS) <= {path[0] for path in COMMANDS}
    assert ("run", "nightly") in COMMANDS and ("lake", "catalog") in COMMANDS


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_command_explains_itself_with_an_example(path: tuple[str, ...]) -> None:
    example = re.search(r"Example: (flywheel [^\n]+)", COMMANDS[path].help or "")
    assert example, f"no example in the help of {' '.join(path)}"
    assert example[1].startswith(f"flywheel {' '.join(path)}")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_says_what_it_does(path: tuple[str, ...]) -> None:
    unexplained = [p.name for p in COMMANDS[path].params if not getattr(p, "help", None)]
    assert not unexplained


def test_every_command_the_documents_name_exists() -> None:
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"]
    named = {
        match[1]
        for path in texts
        if path.is_file()
        for match in re.finditer(r"\bflywheel ((?:[a-z-]+)(?: [a-z-]+)?)", code_of(path))
    }
    groups = {path[0] for path in COMMANDS if len(path) == 2}
    singles = {path[0] for path in COMMANDS if len(path) == 1}
    unknown = [
        words
        for words in named
        if not (words.split()[0] in singles or tuple(words.split()) in COMMANDS)
        and words not in groups
    ]
    assert not unknown


def code_of(path: Path) -> str:
    """Fenced and inline code of a Markdown file: where a command would be."""
    text = path.read_text(encoding="utf-8")
    fenced = re.findall(r"```(?:bash|console|sh)\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`(flywheel [^`\n]+)`", text)
    return "\n".join([*fenced, *inline])


def test_an_error_is_one_line_and_exit_code_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flywheel.cli", "sql", "selec 1", "--home", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: ") and "Traceback" not in finished.stderr


def test_help_does_not_import_what_is_heavy() -> None:
    code = "import sys, flywheel.cli; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "transformers", "mlflow", "prefect", "polars", "pyarrow"} & set(modules)
