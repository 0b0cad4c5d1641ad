"""One whole turn of the wheel: the real servers, a tiny model, the commands people type.

Everything `make demo` does but the real model: traffic through the gateway, corrections at the
feedback endpoint, a night, the next day on the new adapter, back and forward.
"""

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from flywheel.cli.promote import move
from flywheel.cli.stack import Stack
from flywheel.lake import Lake
from flywheel.records import Decision
from flywheel.settings import Settings
from flywheel.workload import Workload

ANSWERS = {"red": "stop", "tan": "go"}
WORKLOAD = """
name: crossing
alias: crossing
base_model: {base}
labels: {{name: right, minimum_new: 12}}
dataset: {{kinds: [sft, dpo], validation_share: 0.1}}
training:
  lora: {{rank: 16, alpha: 32}}
  sft: {{learning_rate: 1.0e-2, epochs: 30, batch_size: 8}}
  dpo: {{learning_rate: 1.0e-4, epochs: 1, batch_size: 8}}
graders:
  correct:
    type: string_check
    operation: eq
    input: "{{{{sample.output_text}}}}"
    reference: "{{{{item.reference.answer}}}}"
gate:
  suite: holdout.jsonl
  target: {{grader: correct}}
  guardrails: [{{name: stops, grader: correct, where: {{answer: stop}}, margin: 0.1}}]
  sampling: {{max_tokens: 8}}
"""


def question(number: int) -> tuple[str, str]:
    colour = "red" if number % 2 else "tan"
    return f"{colour} light at {number}", ANSWERS[colour]


@pytest.fixture(scope="module")
def workload(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crossing")
    path = folder / "flywheel.yaml"
    path.write_text(WORKLOAD.format(base=tiny_model), encoding="utf-8")
    items = []
    for number in range(5000, 5040):
        text, answer = question(number)
        messages = [{"role": "user", "content": text}]
        items.append(
            {"item_id": str(number), "messages": messages, "reference": {"answer": answer}}
        )
    lines = "".join(json.dumps(item) + "\n" for item in items)
    (folder / "holdout.jsonl").write_text(lines, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def stack(workload: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(Settings(home=tmp_path_factory.mktemp("home")), [workload]) as running:
        yield running


def flywheel(stack: Stack, *arguments: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-m", "flywheel.cli", *arguments],
        env=stack.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr + finished.stdout
    return finished.stdout


def ask(stack: Stack, text: str, *, stream: bool = False) -> tuple[str, str, str]:
    """The answer, who gave it, and the interaction's id."""
    client = OpenAI(base_url=f"{stack.settings.gateway_url}/v1", api_key="none", max_retries=0)
    create = client.chat.completions.with_raw_response.create
    message: ChatCompletionMessageParam = {"role": "user", "content": text}
    # Conversations are split by their ids: random ones would train another model each time.
    conversation = {"x-flywheel-conversation-id": text}
    if stream:
        streamed = create(
            model="crossing",
            messages=[message],
            temperature=0,
            max_tokens=8,
            stream=True,
            extra_headers=conversation,
        )
        chunks = list(streamed.parse())
        answer = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        headers = streamed.headers
    else:
        whole = create(
            model="crossing",
            messages=[message],
            temperature=0,
            max_tokens=8,
            extra_headers=conversation,
        )
        answer = whole.parse().choices[0].message.content or ""
        headers = whole.headers
    client.close()
    return answer, headers["x-flywheel-adapter"], headers["x-flywheel-interaction-id"]


def correct(stack: Stack, interaction_id: str, answer: str) -> None:
    body = {
        "interaction_id": interaction_id,
        "name": "right",
        "correction": answer,
        "source_type": "human",
        "source_id": "warden",
        "assessment_id": f"warden/{interaction_id}",
    }
    request = urllib.request.Request(
        f"{stack.settings.gateway_url}/v1/feedback",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as reply:
        assert reply.status == 202


@pytest.mark.timeout(400)
def test_a_day_of_corrections_becomes_a_better_model_by_the_next_morning(
    stack: Stack, workload: Path
) -> None:
    task = Workload.load(workload)
    for number in range(1000, 1040):
        text, answer = question(number)
        _, adapter, interaction_id = ask(stack, text, stream=number % 2 == 0)
        assert adapter == "none"
        correct(stack, interaction_id, answer)
        correct(stack, interaction_id, answer)  # a client that repeats itself counts once

    report = json.loads(flywheel(stack, "run", "nightly", "-w", str(workload), "--json"))
    lake = Lake.open(stack.settings)
    (decision,) = lake.fetch(Decision, "select * from decisions")
    assert report["outcome"] == "released", decision.reasons
    assert decision.comparisons[0].champion.mean < 0.1
    assert decision.comparisons[0].candidate.mean >= 0.8, decision.comparisons[0]

    answer, adapter, _ = ask(stack, "red light at 6001")
    assert (answer, adapter) == ("stop", report["adapter"])

    again = json.loads(flywheel(stack, "run", "nightly", "-w", str(workload), "--json"))
    assert again["outcome"] == "held" and "0 new labels" in again["reason"]

    back = asyncio.run(move("rollback", stack.settings, task, actor="test"))
    assert back.model == task.base_model and ask(stack, "hello")[1] == "none"
    forward = asyncio.run(move("roll_forward", stack.settings, task, actor="test"))
    assert forward.model == report["adapter"] == ask(stack, "hello")[1]

    flywheel(stack, "capture", "drain")
    catalog = stack.settings.root / "lake.duckdb"
    flywheel(stack, "lake", "catalog", "--output", str(catalog))
    sql = "select adapter, count(*) n from interactions group by 1 order by n desc"
    with duckdb.connect(str(catalog), read_only=True) as plain:  # noqa: TID251 - as a user would
        assert plain.execute(sql).fetchall() == [(None, 41), (report["adapter"], 2)]
    assert json.loads(flywheel(stack, "sql", sql, "--format", "json"))[0] == {
        "adapter": None,
        "n": 41,
    }
    status = json.loads(flywheel(stack, "status", "-w", str(workload), "--json"))
    assert status["champion"] == report["adapter"]
