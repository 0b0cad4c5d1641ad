import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from flywheel.cli import app
from flywheel.cli.schemas import find_stale, models, render
from flywheel.errors import ConfigError
from flywheel.testing import make_assessment, make_interaction

ROOT = Path(__file__).resolve().parents[2]


def test_the_schemas_in_the_repository_are_fresh() -> None:
    """They are generated: `make schemas` writes them."""
    assert find_stale(render(), ROOT / "schemas") == []


@pytest.mark.parametrize("name", models())
def test_every_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(json.loads(render()[name]))


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*/flywheel.yaml")), ids=str)
def test_every_example_holds_against_the_workload_schema(path: Path) -> None:
    schema = Draft202012Validator(json.loads(render()["workload.json"]))
    workload = yaml.safe_load(path.read_text(encoding="utf-8"))
    schema.validate(workload)
    assert not schema.is_valid({**workload, "labls": {}}), "an editor underlines a slip"


def test_records_hold_against_their_schemas() -> None:
    rendered = render()
    for name, record in (("interaction", make_interaction()), ("assessment", make_assessment())):
        schema = Draft202012Validator(json.loads(rendered[f"{name}.json"]))
        schema.validate(json.loads(record.model_dump_json()))


def test_check_names_what_is_stale_and_write_repairs_it(tmp_path: Path) -> None:
    folder = tmp_path / "schemas"
    words = ["schemas", "--folder", str(folder)]
    assert CliRunner().invoke(app, [*words, "--write"]).exit_code == 0
    assert CliRunner().invoke(app, [*words, "--check"]).exit_code == 0
    (folder / "release.json").write_text("{}", encoding="utf-8")
    (folder / "decision.json").unlink()
    (folder / "nothing.json").write_text("{}", encoding="utf-8")
    checked = CliRunner().invoke(app, [*words, "--check"])
    assert isinstance(checked.exception, ConfigError)
    named = [problem.split(":")[0] for problem in checked.exception.problems]
    assert named == ["decision.json", "nothing.json", "release.json"]
    assert "make schemas" in str(checked.exception)
    CliRunner().invoke(app, words)
    assert find_stale(render(), folder) == []
