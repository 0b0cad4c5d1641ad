"""`flywheel label export`, `page`, and `import` of what comes back."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flywheel.cli import app
from flywheel.lake import Lake
from flywheel.records import Message
from flywheel.testing import make_assessment, make_interaction

EXAMPLE = Path(__file__).parents[2] / "examples" / "triage" / "flywheel.yaml"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Three answers, two of them to the same message; one of them judged."""
    lake = Lake(str(tmp_path / "home" / "lake"))
    other = (Message(role="user", content="I feel dizzy."),)
    better = Message(role="assistant", content="Go to hospital.")
    lake.append(
        [
            make_interaction(interaction_id="i1"),
            make_interaction(interaction_id="i2", response=better),
            make_interaction(interaction_id="i3", messages=other),
            make_interaction(interaction_id="i4", messages=other, response=None, status="error"),
        ]
    )
    lake.append([make_assessment(assessment_id="1", interaction_id="i1", label="urgent")])
    return tmp_path / "home"


def run(home: Path, *args: str, workload: Path = EXAMPLE) -> Result:
    options = ["--home", str(home), "--workload", str(workload)]
    return CliRunner().invoke(app, ["label", *args, *options], env={"COLUMNS": "200"})


def test_judgements_go_out_and_come_back_as_known(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    result = run(home, "export", "--to", "csv", "--out", str(out), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["judgements"] == 1
    report = json.loads(run(home, "import", str(out), "--json").stdout)
    assert (report["duplicates"], report["written"]) == (1, 0)


def test_items_nobody_judged_go_out_and_answers_come_back(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "tasks.json"
    args = ("export", "--to", "label-studio", "--items", "--out", str(out))
    result = run(home, *args, "--question", "urgency=routine|urgent")
    assert result.exit_code == 0, result.output
    assert "tasks.config.xml: the tool's own settings" in result.stderr.replace("\n", "")
    tasks = json.loads(out.read_text())
    assert {task["data"]["interaction_id"] for task in tasks} == {"i2", "i3"}
    answer = {"from_name": "verdict", "type": "choices", "value": {"choices": ["urgent"]}}
    tasks[0]["annotations"] = [{"result": [answer], "completed_by": 10}]
    out.write_text(json.dumps(tasks))
    assert json.loads(run(home, "import", str(out), "--json").stdout)["written"] == 1
    again = run(home, *args, "--question", "urgency=routine|urgent", "--json")
    assert json.loads(again.stdout)["items"] == 1


def test_pairs_are_answers_to_the_same_messages(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    args = ("export", "--to", "prodigy", "--items", "--pairs", "--out", str(out))
    result = run(home, *args, "--question", "better", "--json")
    assert json.loads(result.stdout)["items"] == 1
    (task,) = map(json.loads, out.read_text().splitlines())
    assert {task["meta"]["pair_a"], task["meta"]["pair_b"]} == {"i1", "i2"}
    ids = [option["id"] for option in task["options"]]
    assert ids == ["first", "second", "tie", "both_bad", "cannot_judge"]
    out.write_text(json.dumps({**task, "accept": ["first"], "answer": "accept"}))
    run(home, "import", str(out))
    (judged,) = json.loads(run(home, "list", "--name", "better", "--json").stdout)
    shown_first = "A" if task["flywheel"]["presented_order"] == "AB" else "B"
    assert (judged["label"], judged["presented_order"]) == (
        shown_first,
        task["flywheel"]["presented_order"],
    )
    assert json.loads(run(home, *args, "--question", "better", "--json").stdout)["items"] == 0


def test_what_a_tool_does_not_show_or_carry_is_said(home: Path, tmp_path: Path) -> None:
    lake = Lake(str(home / "lake"))
    lake.append([make_assessment(interaction_id="i2", value=0.25, input_tokens=7)])
    result = run(home, "export", "--to", "argilla", "--out", str(tmp_path / "a.json"))
    said = result.stderr.replace("\n", " ")
    assert "argilla does not show: source_id (1), value (1)" in said
    assert "argilla does not carry: input_tokens (1)" in said


def test_a_page_is_written_and_says_how_its_answers_come_back(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "usb" / "review.html"
    result = run(home, "page", "--out", str(out), "--rater", "dr-smith", "--guideline", "triage@3")
    assert result.exit_code == 0, result.output
    assert "3 items" in result.stderr  # all: the one judgement there is is another rater's
    assert "flywheel label import labels-triage-" in result.stderr
    text = out.read_text(encoding="utf-8")
    assert "http://" not in text and "https://" not in text
    assert '"rater": "dr-smith"' in text and '"guideline": "triage@3"' in text


@pytest.mark.parametrize("question", ["", "q=1", "q=a|a", "q=1-99"])
def test_a_question_nobody_could_answer_is_refused(
    home: Path, tmp_path: Path, question: str
) -> None:
    result = run(home, "page", "--out", str(tmp_path / "r.html"), "--question", question)
    assert result.exit_code == 2
    assert not (tmp_path / "r.html").exists()


def test_import_redacts_by_the_workloads_policy_and_takes_declared_raters_only(
    home: Path, tmp_path: Path
) -> None:
    text = EXAMPLE.read_text()
    policy = "capture:\n  redaction: {policy: standard-1, ner_model: none}\n"
    declared = tmp_path / "flywheel.yaml"
    assert "\ncapture:" not in text
    declared.write_text(text + policy)
    rows = (
        "interaction_id,name,value,rationale,source_id\n"
        "i1,urgency,1,wrote to jane.roe@example.com,dr-a\n"
        "i1,urgency,1,jane.roe@example.com,dr-x\n"
    )
    (tmp_path / "l.csv").write_text(rows)
    result = run(
        home, "import", str(tmp_path / "l.csv"), "--raters", "dr-a,dr-b", workload=declared
    )
    assert result.exit_code == 0, result.output
    assert "unknown_rater 1" in result.stderr
    (kept,) = json.loads(run(home, "list", "--source-id", "dr-a", "--limit", "1", "--json").stdout)
    assert kept["rationale"] == "wrote to <EMAIL>"
    files = [path.read_bytes() for path in (home / "lake").rglob("*") if path.is_file()]
    assert not any(b"jane.roe" in data for data in files)
