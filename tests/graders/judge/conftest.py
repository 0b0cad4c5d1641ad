"""Judges, tasks, and a real endpoint on loopback whose answers are a function of the request."""

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from flywheel.chat import OpenAIChatModel
from flywheel.graders.judge import Judge, JudgeTask, parse_rubric
from flywheel.judges import JudgeSection
from flywheel.records import JsonObject, Message

RUBRICS = Path(__file__).resolve().parents[3] / "examples/triage/rubrics"

POINTWISE = """\
---
name: helpful
version: 3
criteria:
  - name: score
    question: How helpful is the answer, from 1 to 10?
    grades:
GRADES
---
Judge the answer.

{{question}}

{{response}}

A good answer: {{reference}}
""".replace("GRADES", "\n".join(f"      - {{label: {n}, value: {n}}}" for n in range(1, 11)))

PAIRWISE = """\
---
name: better
version: 1
mode: pairwise
criteria:
  - {name: better, question: "Which answer is better?"}
---
Compare.

{{question}}

{{response_a}}

{{response_b}}
"""


def make_judge(
    text: str = POINTWISE, *, models: Sequence[str] = ("j",), **section: object
) -> Judge:
    rubric = parse_rubric(text, source="rubric.md")
    fields: dict[str, object] = {
        "rubric": "rubric.md",
        "mode": rubric.mode,
        "panel": [{"provider": "p", "model": model} for model in models],
        **section,
    }
    return Judge(rubric.name, JudgeSection.model_validate(fields), rubric)


def make_task(*answers: str, question: str = "My knee hurts.", **fields: object) -> JudgeTask:
    responses = answers or ("Rest it.",)
    values: dict[str, object] = {
        "task_id": "t-1",
        "workload": "triage",
        "messages": (Message(role="user", content=question),),
        "responses": tuple(Message(role="assistant", content=answer) for answer in responses),
        "interaction_id": "i-1" if len(responses) == 1 else None,
        "pair_ids": ("i-a", "i-b") if len(responses) == 2 else None,
    }
    return JudgeTask.model_validate({**values, **fields})


def grades(**labels: object) -> str:
    return json.dumps({"reasoning": "Because.", "grades": labels})


@dataclass
class Endpoint:
    """Answers by a script over the request's body; a number is an HTTP status instead."""

    url: str = ""
    script: Callable[[JsonObject], str | int | JsonObject] = lambda body: grades(score="7")
    requests: list[JsonObject] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        answer = self.script(body)
        if isinstance(answer, int):
            headers = {"retry-after": "3", "x-ratelimit-remaining-requests": "0"}
            error = {"error": {"message": "not now", "code": "c"}}
            return web.json_response(error, status=answer, headers=headers)
        if isinstance(answer, str):
            answer = {"message": {"role": "assistant", "content": answer}}
        choice = {"index": 0, "finish_reason": "stop", **answer}
        details = {"cached_tokens": 3}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": details}
        return web.json_response(
            {
                "id": "c-1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [choice],
                "usage": usage,
            },
            headers={"x-ratelimit-remaining-requests": "41", "x-other": "no"},
        )


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    served = Endpoint()
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", served.handle)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield served
    await runner.cleanup()


@pytest.fixture
async def model(endpoint: Endpoint) -> AsyncIterator[OpenAIChatModel]:
    chat = OpenAIChatModel(endpoint.url, max_retries=0)
    yield chat
    await chat.close()


CODE = re.compile(r"The code of this request is ([0-9a-f]{16})\.")


def without_material(text: str) -> str:
    """What stands outside the fences: all that a judge which honours them obeys."""
    code = CODE.search(text)
    assert code is not None
    return re.sub(rf"<(\w+)-{code[1]}[^>]*>.*?</\1-{code[1]}>", "", text, flags=re.DOTALL)
