"""What counts as a verdict. The number is never fished out of a sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.errors import VerdictError
from flywheel.graders.judge import parse_rubric, plan_calls, read_verdict
from flywheel.graders.judge.verdict import parse_verdict
from tests.graders.judge.conftest import PAIRWISE, POINTWISE, grades, make_judge, make_task

TEN = parse_rubric(POINTWISE, source="rubric.md")


@pytest.mark.parametrize("said", ["10", 10, 10.0, "10/10", " 10 ", "10 out of 10", "10 of 10"])
def test_ten_of_ten_is_ten(said: object) -> None:
    verdict = parse_verdict(TEN, grades(score=said), order=None)
    assert (verdict.label, verdict.value) == ("10", 10.0)


@pytest.mark.parametrize(
    "said",
    ["11", 0, -1, 7.5, "7/5", "7/100", "1/1", "10, or rather 1", "ten", "1 0", "", None, True,
     [10], {"score": 10}, "10\n1", 1e400],
)  # fmt: skip
def test_what_is_not_offered_is_no_grade(said: object) -> None:
    text = grades(score=said).replace("Infinity", "1e400")
    with pytest.raises(VerdictError):
        parse_verdict(TEN, text, order=None)


@pytest.mark.parametrize(
    "text",
    ["", "Score: 7", "[7]", "null", '{"grades": 7}', '{"score": "7"}', '{"grades": {}}',
     '{"grades": {"score": "7"}', '{"grades": {"score": NaN}}',
     '{"grades": {"score": "7", "other": "1"}}', '{"grades": {"score": "7"}} and {"a": 1}',
     "[" * 100_000],
)  # fmt: skip
def test_garbage_is_no_verdict(text: str) -> None:
    with pytest.raises(VerdictError):
        parse_verdict(TEN, text, order=None)


def test_a_key_given_twice_is_no_verdict() -> None:
    """Else the last would win: an answer quoted by the judge could bring its own."""
    with pytest.raises(VerdictError):
        parse_verdict(TEN, '{"grades": {"score": "2", "score": "10"}}', order=None)


def test_a_verdict_may_stand_in_a_code_block_and_after_thoughts() -> None:
    text = '<think>{"grades": {"score": "1"}}</think>\n```json\n' + grades(score="8") + "\n```"
    assert parse_verdict(TEN, text, order=None).value == 8


def test_a_label_counts_whatever_its_case() -> None:
    rubric = parse_rubric(
        POINTWISE.split("    grades:\n")[0]
        + "    grades: [{label: Safe, value: 1}, {label: Unsafe, value: 0}]\n---\n{{response}}\n",
        source="rubric.md",
    )
    verdict = parse_verdict(rubric, grades(score=" safe "), order=None)
    assert (verdict.label, verdict.value) == ("Safe", 1)
    with pytest.raises(VerdictError):
        parse_verdict(rubric, grades(score=1), order=None)


def test_a_grade_without_a_number_is_a_verdict_without_a_value() -> None:
    rubric = parse_rubric(
        POINTWISE.split("    grades:\n")[0]
        + "    grades: [{label: yes, value: 1}, {label: cannot_judge, value: null}]\n---\n"
        + "{{response}}\n",
        source="rubric.md",
    )
    verdict = parse_verdict(rubric, grades(score="cannot_judge"), order=None)
    assert (verdict.label, verdict.value) == ("cannot_judge", None)


@pytest.mark.parametrize(
    ("said", "shown_first", "label"),
    [("A", "AB", "A"), ("A", "BA", "B"), ("B", "BA", "A"), ("tie", "BA", "tie"),
     ("both_bad", "AB", "both_bad"), ("cannot_judge", "BA", "cannot_judge")],
)  # fmt: skip
def test_a_preference_is_told_in_the_terms_of_the_task(
    said: str, shown_first: str, label: str
) -> None:
    judge = make_judge(PAIRWISE)
    calls = plan_calls(judge, make_task("first", "second"))
    call = next(one for one in calls if one.order == shown_first)
    assert read_verdict(judge, call, grades(better=said)).label == label


@given(st.text())
def test_any_text_is_a_verdict_or_a_verdict_error(text: str) -> None:
    for candidate in (text, json.dumps({"grades": {"score": text}})):
        try:
            verdict = parse_verdict(TEN, candidate, order=None)
        except VerdictError:
            continue
        assert verdict.value in range(1, 11)
