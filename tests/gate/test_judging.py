"""A judge in the gate: its scores are the items' scores, and a judge that fails is no zero."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flywheel.gate.evaluate import evaluate
from flywheel.graders import build_graders
from flywheel.records import JsonObject
from flywheel.testing import ScriptedChatModel
from flywheel.workload import SamplingSection, Workload
from tests.gate.conftest import WORKLOAD, make_suite
from tests.loopback import Replica

RUBRIC = """\
---
name: kind
version: 1
criteria:
  - name: kind
    question: Is it kind?
    grades: [{label: "yes", value: 1}, {label: "no", value: 0}]
---
{{response}}
"""


@pytest.fixture
def judge() -> Iterator[Replica]:
    served = Replica("gpt-x")
    served.start()
    yield served
    served.stop()


async def test_a_judge_grades_every_answer_of_the_gate(tmp_path: Path, judge: Replica) -> None:
    """Complaints 0, 3, 6 get a kind answer, 1, 4, 7 a rude one; on 2 and 5 the judge babbles.

    Several threads ask at once, from the first answer on: they must share one event loop.
    """
    (tmp_path / "kind.md").write_text(RUBRIC)
    (tmp_path / "flywheel.yaml").write_text(
        WORKLOAD
        + f'gateway: {{providers: {{big: {{base_url: "{judge.url}/v1"}}}}}}\n'
        + "judges: {kind: {rubric: kind.md, purpose: gate,"
        + " panel: [{provider: big, model: gpt-x}]}}\n"
    )
    workload = Workload.load(tmp_path / "flywheel.yaml")

    def verdict(model: str, messages: list[dict[str, str]]) -> str:
        asked = "\n".join(message["content"] for message in messages)
        if "babble" in asked:
            return "Hmm."
        return '{"reasoning": "", "grades": {"kind": "%s"}}' % ("no" if "Rude" in asked else "yes")

    judge.answer = verdict
    spec: dict[str, JsonObject] = {"kind": {"type": "x-judge", "judge": "kind"}}
    chat = ScriptedChatModel(
        lambda model, messages: ("Kind.", "Rude.", "babble")[int(messages[-1].text.split()[-1]) % 3]
    )
    report = await evaluate(
        chat,
        make_suite(8),
        build_graders(spec, models_of=workload),
        workload="triage",
        model="new",
        role="candidate",
        sampling=SamplingSection(concurrency=4),
    )
    scores = [item.scores["kind"] for item in report.items]
    assert scores == [1.0, 0.0, None, 1.0, 0.0, None, 1.0, 0.0]
    errors = {item.error_type for item in report.items}
    assert errors == {None, "kind: judge_garbage"}
