"""What a task is made of."""

from flywheel.graders.judge import Judge, build_judges
from flywheel.label.judging import Selection, draw_tasks, load_tasks
from flywheel.records import Message
from flywheel.testing import make_assessment, make_interaction
from flywheel.workload import Workload
from tests.label.judging.conftest import RUBRIC, Office, Server

NOWHERE = Server("http://127.0.0.1:9")


def judge_with(office: Office, text: str, *, variables: str = "") -> tuple[Workload, Judge]:
    workload = office.declare(NOWHERE)
    rubric = RUBRIC.replace("mode: pointwise", f"mode: pointwise{variables}") + text
    (office.folder / "helpful.md").write_text(rubric, encoding="utf-8")
    return workload, build_judges(workload)["helpful"]


def test_a_reference_is_the_newest_answer_an_expert_gave_to_the_same_messages(
    office: Office,
) -> None:
    asked = (Message(role="user", content="question 1"),)
    office.answers(3)
    office.lake.append([make_interaction(interaction_id="older", messages=asked)])
    office.lake.append(
        [
            make_assessment(
                assessment_id="a1",
                interaction_id="older",
                name="helpful",
                source_type="human",
                source_id="dr-smith",
                correction=Message(role="assistant", content="see somebody today"),
            )
        ]
    )
    workload, judge = judge_with(office, "\nA good answer:\n\n{{reference}}\n")
    draw = draw_tasks(office.lake, workload, judge, Selection())
    tasks = {task.task_id: task for task in load_tasks(office.lake, workload, judge, draw)}
    assert tasks["base-00000"].reference is None
    reference = tasks["base-00001"].reference
    assert reference is not None and reference.text == "see somebody today"


def test_a_rubrics_own_variables_come_from_the_tags(office: Office) -> None:
    office.lake.append([make_interaction(interaction_id="i", tags={"clinic": "north", "age": 41})])
    workload, judge = judge_with(
        office, "\n{{clinic}} {{age}}\n", variables="\nvariables: [clinic, age]"
    )
    draw = draw_tasks(office.lake, workload, judge, Selection())
    (task,) = load_tasks(office.lake, workload, judge, draw)
    assert task.variables == {"clinic": "north", "age": "41"}


def test_what_was_erased_since_it_was_drawn_is_passed_over(office: Office) -> None:
    office.answers(2)
    workload, judge = judge_with(office, "")
    draw = draw_tasks(office.lake, workload, judge, Selection())
    gone = draw.model_copy(update={"task_ids": ("gone", *draw.task_ids)})
    assert len(list(load_tasks(office.lake, workload, judge, gone))) == 2
