"""The `review` section tells every mistake at once."""

from pathlib import Path

import pytest

from flywheel.errors import ConfigError
from flywheel.workload import Workload
from tests.label.review.conftest import make_section

HEAD = """
name: triage
alias: triage
base_model: some/base
labels: {name: urgency}
graders:
  ok: {type: x-json_schema, schema: {type: object}}
gate: {suite: holdout.jsonl, target: {grader: ok}}
"""


def problems(tmp_path: Path, review: str) -> str:
    path = tmp_path / "flywheel.yaml"
    path.write_text(HEAD + review)
    with pytest.raises(ConfigError) as raised:
        Workload.load(path)
    return str(raised.value)


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    told = problems(
        tmp_path,
        """review:
  raters: [Dr Smith, dr-b, dr-b]
  guideline: triage
  minutes: -1
  strategies: [guessing]
  questions:
    harm: {kind: category, options: [none]}
    right: {kind: pass_fail, pass_label: X, fail_label: X, options: [a, b]}
    how: {kind: number, minimum: 5, maximum: 1}
    what: {kind: comment, colour: red}
""",
    )
    for expected in (
        "line 10: review.raters.0",
        "line 11: review.guideline",
        "line 12: review.minutes",
        "line 13: review.strategies.0",
        "a category needs 2 to 10 options",
        "options belong to a category, not to pass_fail; pass_label and fail_label must read",
        "minimum must be below maximum",
        "review.questions.what.colour: unknown key",
    ):
        assert expected in told, expected


def test_questions_whose_answers_would_replace_each_other_are_refused_with_their_line(
    tmp_path: Path,
) -> None:
    told = problems(
        tmp_path,
        """review:
  raters: [dr-a]
  overlap: {share: 0}
  guideline: triage@1
  questions:
    urgency: {kind: pass_fail}
    why: {kind: comment, name: urgency}
    class: {kind: category, name: urgency, options: [a, b]}
""",
    )
    assert "line 9: review: questions urgency, why, class are all named 'urgency'" in told
    assert "only a correction may share the name of one verdict" in told


CORRECTED = {"kind": "correction", "name": "urgency"}


@pytest.mark.parametrize(
    "questions",
    [
        {"urgency": {"kind": "comment"}, "corrected": CORRECTED},
        {"urgency": CORRECTED, "corrected": CORRECTED},
        {"urgency": {"kind": "pass_fail"}, "better": {"kind": "preference", "name": "urgency"}},
        {"a": {"kind": "number", "name": "urgency"}, "urgency": {"kind": "comment"}},
    ],
)
def test_only_a_correction_shares_the_name_of_one_verdict(questions: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="all named 'urgency'"):
        make_section(questions=questions)


@pytest.mark.parametrize("kind", ["pass_fail", "number"])
def test_a_verdict_and_its_correction_share_a_name(kind: str) -> None:
    make_section(questions={"urgency": {"kind": kind}, "corrected": CORRECTED})


def test_a_section_that_does_not_hold_together_tells_all_of_it() -> None:
    with pytest.raises(ValueError, match="nobody is asked") as raised:
        make_section(
            raters=[],
            random_share=0.8,
            gold_share=0.5,
            questions={
                "a": {"kind": "comment", "title": "Feedback"},
                "feedback": {"kind": "comment"},
            },
        )
    told = str(raised.value)
    assert "more than the whole budget" in told
    assert "two questions read 'feedback'" in told and "MLflow's own default" in told


def test_a_rater_may_not_be_named_twice_nor_share_a_name_with_a_group() -> None:
    with pytest.raises(ValueError, match="dr-b: stands there twice"):
        make_section(raters=["dr-a", "dr-b", "dr-b"])
    with pytest.raises(ValueError, match="dr-a: the name of a rater and of a group"):
        make_section(groups={"dr-a": ["n-1"]})


def test_overlap_needs_as_many_queues() -> None:
    with pytest.raises(ValueError, match=r"overlap.raters is 3, but there are 2 queues"):
        make_section(overlap={"raters": 3, "share": 0.5})
