"""flywheel.yaml: every mistake at once, each with its line."""

from pathlib import Path

import pytest

from flywheel.errors import ConfigError
from flywheel.workload import Workload

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "triage" / "flywheel.yaml"

THREE_MISTAKES = """\
name: triage
alias: triage
base_model: some/model
labels:
  name: urgency
  minimum_nw: 12
training:
  lora: {rank: 17}
graders:
  correct: {type: string_check}
gate:
  suite: holdout.jsonl
  target: {grader: corect}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "flywheel.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        Workload.load(path)
    return caught.value.problems


def test_the_example_is_valid_and_finds_its_suite_beside_itself() -> None:
    workload = Workload.load(EXAMPLE)
    assert workload.suite_path == EXAMPLE.parent / "holdout.jsonl"
    assert workload.gate.target.grader in workload.graders


def test_three_mistakes_are_told_at_once_with_line_and_what_would_be_valid(tmp_path: Path) -> None:
    unknown, rank, grader = problems_of(write(tmp_path, THREE_MISTAKES))
    assert unknown.startswith("line 6: labels.minimum_nw: unknown key; did you mean 'minimum_new'?")
    assert rank.startswith("line 8: training.lora.rank:")
    assert "16, 32, 64" in rank
    assert grader == "line 13: gate.target.grader: no grader 'corect'; graders has: correct"


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    text = THREE_MISTAKES[: THREE_MISTAKES.index("gate:")].replace("minimum_nw", "minimum_new")
    assert "gate: is required and missing" in "\n".join(
        problems_of(write(tmp_path, text.replace("17", "16")))
    )


def test_what_is_not_yaml_is_one_clear_line(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, "name: [triage\nalias: x"))
    assert problem.startswith("not YAML:") and "line 2" in problem and "\n" not in problem


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_what_is_not_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "not a mapping" in problems_of(write(tmp_path, text))[0]


def test_an_absent_file_names_the_command_that_writes_one(tmp_path: Path) -> None:
    assert "flywheel init" in problems_of(tmp_path / "nothing.yaml")[0]


def test_both_training_stages_off_is_refused(tmp_path: Path) -> None:
    text = THREE_MISTAKES.replace("minimum_nw", "minimum_new").replace("corect", "correct")
    text = text.replace("lora: {rank: 17}", "sft: null\n  dpo: null")
    (problem,) = problems_of(write(tmp_path, text))
    assert "at least one of sft and dpo" in problem and problem.startswith("line 7")


def test_a_workload_built_in_code_checks_its_graders_too() -> None:
    data = Workload.load(EXAMPLE).model_dump(mode="json")
    data["gate"]["target"]["grader"] = "nobody"
    with pytest.raises(ValueError, match="no grader 'nobody'"):
        Workload.model_validate(data)
