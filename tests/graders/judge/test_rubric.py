"""Rubric files: what they say, and every mistake at once with its line."""

from pathlib import Path

import pytest

from flywheel.errors import BadRecordError, ConfigError
from flywheel.graders.judge import build_judges, load_rubric, parse_rubric, plan_calls
from flywheel.records import Message
from flywheel.workload import Workload
from tests.graders.judge.conftest import PAIRWISE, POINTWISE, RUBRICS, make_judge, make_task

SMALL = """\
---
name: small
version: 1
variables: [guideline]
criteria:
  - name: ok
    question: Is it?
    grades: [{label: yes, value: 1}, {label: no, value: 0}]
---
Judge.

{{guideline}} {{response}}
"""


def _problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_rubric(text, source="r.md")
    assert caught.value.source == "r.md"
    return caught.value.problems


def test_the_examples_are_rubrics() -> None:
    safe, better = (load_rubric(RUBRICS / f"{n}.md") for n in ("safe_advice", "better_answer"))
    assert (safe.name, safe.version, safe.mode) == ("safe_advice", 1, "pointwise")
    assert [criterion.name for criterion in safe.criteria] == ["safe", "complete"]
    assert safe.variables == ("messages", "response", "reference")
    assert better.variables == ("messages", "response_a", "response_b", "reference")
    labels = [grade.label for grade in better.criteria[0].grades]
    assert labels == ["A", "B", "tie", "both_bad", "cannot_judge"]


def test_words_of_yaml_are_labels_as_they_are_written() -> None:
    """To YAML 1.1 `yes` is True and `10` a number: a judge would be offered True."""
    assert [grade.label for grade in parse_rubric(SMALL, source="r").criteria[0].grades] == [
        "yes",
        "no",
    ]
    ten = parse_rubric(POINTWISE, source="r").criteria[0].grades[-1]
    assert (ten.label, ten.value) == ("10", 10.0)


def test_an_unknown_variable_is_told_with_its_line_and_what_is_valid() -> None:
    (problem,) = _problems(SMALL.replace("{{response}}", "{{response}}\n{{refrence}}"))
    assert problem == (
        "line 13: unknown variable {{refrence}}; did you mean 'reference'? valid for pointwise: "
        "response, messages, question, reference, guideline. Others are declared under variables"
    )


def test_every_mistake_is_told_at_once() -> None:
    text = """\
---
name: Bad Name
version: 0
mode: pairwise
colour: red
criteria:
  - name: c
    question: "Is {{it}}?"
    grades: [{label: A}, {label: C}, {label: tie, value: 1}]
  - name: c
---
{{response}}

{{response_a}} {{never
"""
    problems = "\n".join(_problems(text))
    for told in (
        "line 2: name: String should match pattern",
        "line 3: version: Input should be greater than or equal to 1 (found '0')",
        "line 5: colour: unknown key; valid: name, version, mode, variables, criteria",
        "line 10: criteria.1.question: is required and missing",
        "line 12: unknown variable {{response}}; did you mean 'response_b'?",
        "line 12: the text never names {{response_b}}",
        "line 14: '{{' is never closed with '}}'",
    ):
        assert told in problems, problems


def test_mistakes_of_criteria_are_told_with_their_lines() -> None:
    text = """\
---
name: r
version: 1
mode: pairwise
criteria:
  - name: c
    question: "Is {{it}}?"
    grades: [{label: A}, {label: C}, {label: tie, value: 1}]
  - name: c
    question: Same name.
---
{{response_a}} {{response_b}}
"""
    assert _problems(text) == (
        "line 6: criteria.c: variables belong into the text below the front matter",
        "line 6: criteria.c: a pairwise grade is one of A, B, tie, both_bad, cannot_judge, not 'C'",
        "line 6: criteria.c: both A and B must be among the grades",
        "line 6: criteria.c: a pairwise grade takes no value: A is 1, B 0, tie and both_bad 0.5",
        "line 9: criteria.c: this name is taken by an earlier criterion",
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("---\nname", "name", "line 1: a rubric starts with front matter"),
        ("version: 1", "version: 1\nversion: 2", "line 4: version: is given twice"),
        ("{label: no, value: 0}", "{label: YES, value: 0}", "two grades have the label 'yes'"),
        (", {label: no, value: 0}", "", "at least two grades are needed"),
        ("value: 1}, {label: no, value: 0}", "value: x}, {label: no}", "line 8: criteria.0.grad"),
        ("value: 1}, {label: no, value: 0}", "value: ~}, {label: no}", "no grade has a value"),
        ("{{guideline}}", "", "the text never names {{guideline}}"),
        ("{{response}}", "", "the text never names {{response}}"),
        ("[guideline]", "[guideline, question]", "'question' must be a word in lower case"),
        ("Is it?", "Is it? {", "not YAML"),
    ],
)
def test_a_mistake_is_told(old: str, new: str, told: str) -> None:
    if told == "not YAML":
        new = "Is: it: {"
    assert told in "\n".join(_problems(SMALL.replace(old, new)))


def test_another_word_is_another_rubric() -> None:
    first = parse_rubric(SMALL, source="r")
    assert first.hash == parse_rubric(SMALL, source="other").hash
    assert first.hash != parse_rubric(SMALL.replace("Judge.", "Judge!"), source="r").hash
    assert first.hash == parse_rubric("\ufeff"[1:] + SMALL.replace("\n", "\r\n"), source="r").hash


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_rubric(tmp_path / "none.md")


def test_the_reference_paragraph_is_left_out_where_there_is_none() -> None:
    judge = make_judge()
    (without,) = plan_calls(judge, make_task())
    (with_one,) = plan_calls(judge, make_task(reference=Message(role="assistant", content="Ice.")))
    assert "A good answer" not in without.messages[1].text
    assert "Ice." in with_one.messages[1].text
    assert without.key != with_one.key


def test_a_variable_of_its_own_reaches_the_judge_and_may_not_be_missing() -> None:
    judge = make_judge(SMALL)
    (call,) = plan_calls(judge, make_task(variables={"guideline": "Be brief.", "response": "no"}))
    assert "Be brief." in call.messages[1].text
    assert "Rest it." in call.messages[1].text, "a task's variable does not replace the answer"
    with pytest.raises(BadRecordError, match="needs guideline"):
        plan_calls(judge, make_task())


def test_a_pair_is_refused_by_a_rubric_for_one_answer() -> None:
    with pytest.raises(BadRecordError, match="judges 1 answer, not 2"):
        plan_calls(make_judge(), make_task("a", "b"))


def test_a_pair_is_shown_in_both_orders_by_every_model_of_the_panel() -> None:
    judge = make_judge(PAIRWISE, models=["j", "k"])
    calls = plan_calls(judge, make_task("first", "second"))
    assert [(c.model, c.order) for c in calls] == [
        ("j", "AB"), ("j", "BA"), ("k", "AB"), ("k", "BA")
    ]  # fmt: skip
    assert len({call.key for call in calls}) == 4
    ab, ba = (call.messages[1].text for call in calls[:2])
    assert ab.index("first") < ab.index("second")
    assert ba.index("second") < ba.index("first")


def test_the_key_is_of_what_is_sent_and_nothing_else() -> None:
    judge = make_judge()
    (call,), (same,) = (plan_calls(judge, make_task(task_id=name)) for name in ("t-1", "t-2"))
    assert call.key == same.key
    others = [make_judge(temperature=1), make_judge(max_tokens=99), make_judge(models=["k"])]
    keys = {plan_calls(other, make_task())[0].key for other in others}
    assert len(keys | {call.key, plan_calls(judge, make_task("Run."))[0].key}) == 5


def test_tool_calls_and_parts_of_messages_are_judged_too() -> None:
    response = Message(
        role="assistant", content=None, tool_calls=[{"function": {"name": "book", "arguments": ""}}]
    )
    (call,) = plan_calls(make_judge(), make_task(responses=(response,)))
    assert '"name": "book"' in call.messages[1].text


WORKLOAD = """\
name: triage
alias: triage
base_model: m
labels: {name: urgency}
graders:
  g: {type: string_check, operation: eq, input: "{{sample.output_text}}", reference: x}
gate: {suite: s.jsonl, target: {grader: g}}
gateway: {providers: {big: {base_url: "http://127.0.0.1:1/v1"}}}
judges:
"""


def _workload(folder: Path, judges: str) -> Workload:
    (folder / "flywheel.yaml").write_text(WORKLOAD + judges)
    (folder / "small.md").write_text(POINTWISE)
    (folder / "broken.md").write_text(POINTWISE.replace("{{response}}", "{{respnse}}"))
    return Workload.load(folder / "flywheel.yaml")


def test_judges_are_built_from_the_workload(tmp_path: Path) -> None:
    workload = _workload(
        tmp_path,
        "  helpful: {rubric: small.md, panel: [{provider: big, model: j}]}\n"
        "  own: {rubric: small.md, allow_own_family: true,"
        " panel: [{provider: engine, model: m}]}\n",
    )
    judges = build_judges(workload)
    assert list(judges) == ["helpful", "own"]
    assert judges["helpful"].rubric.reference_name == "helpful@3"


def test_every_mistake_of_every_judge_is_told_at_once(tmp_path: Path) -> None:
    workload = _workload(
        tmp_path,
        "  Helpful: {rubric: small.md, panel: [{provider: bg, model: j}]}\n"
        "  pair: {rubric: small.md, mode: pairwise, panel: [{provider: big, model: j}]}\n"
        "  gone: {rubric: none.md, panel: [{provider: big, model: j}]}\n"
        "  broken: {rubric: broken.md, panel: [{provider: big, model: j},"
        " {provider: engine, model: j}]}\n",
    )
    with pytest.raises(ConfigError) as caught:
        build_judges(workload)
    told = "\n".join(caught.value.problems)
    for problem in (
        "judges.Helpful: a judge's name is lower-case letters",
        "judges.Helpful.panel.0.provider: no provider 'bg'; gateway.providers has: big, engine",
        "judges.pair.mode: is pairwise, but",
        "none.md: cannot be read",
        "broken.md: line 23: unknown variable {{respnse}}; did you mean 'response'?",
        "judges.broken.panel.1.model: 'j' sits there twice",
    ):
        assert problem in told, told
