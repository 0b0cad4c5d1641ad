"""A judge endpoint on loopback that says what a judge is recorded to have said.

It speaks OpenAI chat completions, finds what it is shown by the fenced texts in the prompt, and
answers in the schema asked for. So a recording goes through the whole path a live judge goes:
rubric, prompt, client, structured output, verdict, both orders.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from flywheel.records import JsonObject
from tests.loopback import LoopbackServer

_FENCED = re.compile(
    r"<(?P<name>[a-z_]+)-(?P<code>\w+)[^>]*>\n(?P<text>.*?)\n</(?P=name)-(?P=code)>", re.S
)


@dataclass(frozen=True)
class Shown:
    """What one request shows the judge."""

    model: str
    question: str
    """The last message before the answers."""
    answers: tuple[str, ...]
    """In the order shown."""


Script = Callable[[Shown], str | None]
"""The grade for each criterion, in the terms shown; None is an answer no schema knows."""


class ReplayEndpoint(LoopbackServer):
    """A judge whose grades are a function of what it is shown; it remembers what that was."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script
        self.shown: list[Shown] = []
        self.delay_s = 0.0

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", self._chat)])
        return app

    async def _chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        shown = read_prompt(body["model"], body["messages"][1]["content"])
        self.shown.append(shown)
        await asyncio.sleep(self.delay_s)
        said = self.script(shown)
        schema = body["response_format"]["json_schema"]["schema"]
        text = "I would rather not say." if said is None else _in_schema(schema, said)
        message = {"role": "assistant", "content": text}
        return web.json_response(
            {
                "id": "chat-1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
            }
        )


def read_prompt(model: str, prompt: str) -> Shown:
    """What stands between the fences."""
    fenced: dict[str, str] = {}
    for found in _FENCED.finditer(prompt):
        inner = list(_FENCED.finditer(found["text"]))
        fenced[found["name"]] = inner[-1]["text"] if inner else found["text"]
    answers = [fenced[name] for name in ("response", "response_a", "response_b") if name in fenced]
    return Shown(model, fenced.get("question") or fenced["messages"], tuple(answers))


def _in_schema(schema: JsonObject, said: str) -> str:
    """The grade for every criterion; `a=x b=y` where they differ."""
    properties = schema["properties"]
    assert isinstance(properties, dict)
    grades = properties["grades"]
    assert isinstance(grades, dict)
    names = grades["required"]
    assert isinstance(names, list)
    each = dict(part.split("=") for part in said.split()) if "=" in said else {}
    return json.dumps(
        {"reasoning": "As recorded.", "grades": {str(n): each.get(str(n), said) for n in names}}
    )


@dataclass(frozen=True)
class Recorded:
    """A pair of LLMBar (Zeng et al. 2024) with what one judge said of it in both orders."""

    question: str
    outputs: tuple[str, str]
    gold: str
    winners: tuple[str, str]
    """1 or 2: with output 1 first, and with output 2 first."""


def read_llmbar(folder: Path, judge: str) -> list[Recorded]:
    """One set of LLMBar with one judge's recording."""
    rows = json.loads((folder / f"judge-{judge}-Vanilla.json").read_text(encoding="utf-8"))
    return [
        Recorded(
            question=row["input"],
            outputs=(row["output_1"], row["output_2"]),
            gold="A" if row["label"] == 1 else "B",
            winners=(
                row["results"][0]["swap = False"]["winner"],
                row["results"][0]["swap = True"]["winner"],
            ),
        )
        for row in rows
    ]


def replaying(recordings: Mapping[str, Sequence[Recorded]]) -> Script:
    """A script that says what each model is recorded to have said of the pair, in that order."""
    said: dict[Shown, str] = {}
    for model, rows in recordings.items():
        for row in rows:
            one, two = row.outputs
            first, second = row.winners
            said[Shown(model, row.question, (one, two))] = "A" if first == "1" else "B"
            said[Shown(model, row.question, (two, one))] = "A" if second == "2" else "B"
    return lambda shown: said[shown]
