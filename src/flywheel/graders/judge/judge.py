"""A judge of flywheel.yaml, ready to be asked; and the calls a task takes. Pure."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue

from flywheel.errors import ConfigError
from flywheel.graders.judge.prompt import REPAIR, TEMPLATES, answer_form, answer_schema
from flywheel.graders.judge.prompt import render_messages as _render
from flywheel.graders.judge.rubric import NAME, Rubric
from flywheel.graders.judge.rubric_file import load_rubric
from flywheel.graders.judge.task import JudgeCall, JudgeTask, Order, Verdict
from flywheel.graders.judge.verdict import parse_verdict
from flywheel.judges import JudgeSection
from flywheel.records import Message
from flywheel.routes import ENGINE
from flywheel.workload import Workload

MAX_QUOTED_CHARS = 4_000
"""Of an answer that is shown back to the model that is to repair it."""


@dataclass(frozen=True)
class Judge:
    """One entry of `judges`, with its rubric read."""

    name: str
    section: JudgeSection
    rubric: Rubric
    urls: tuple[str | None, ...] = ()
    """Where each model of the panel is served; None of the deployment's own engine."""

    @cached_property
    def identity(self) -> str:
        """16 hex digits: other models, URLs, words, rubric or sampling are another judge.

        Rows carry it as `judge_prompt_hash`, qualifications as `judge_hash`.
        """
        section = self.section
        return _digest(
            list(TEMPLATES),
            self.rubric.hash,
            [[seat.provider, seat.model] for seat in section.panel],
            list(self.urls),
            [section.mode, section.order_disagreement, section.temperature, section.max_tokens],
        )[:16]


def build_judges(workload: Workload) -> dict[str, Judge]:
    """Every judge the workload declares, by name.

    Raises:
        ConfigError: with every mistake of all of them and of their rubrics.
    """
    problems: list[str] = []
    judges: dict[str, Judge] = {}
    for name, section in workload.judges.items():
        problems += [f"judges.{name}{problem}" for problem in _problems(name, section, workload)]
        path = workload.folder / section.rubric
        try:
            rubric = load_rubric(path)
        except ConfigError as error:
            problems += [f"judges.{name}.rubric: {path}: {text}" for text in error.problems]
            continue
        if rubric.mode != section.mode:
            problems.append(
                f"judges.{name}.mode: is {section.mode}, but {path} is {rubric.mode}: "
                "one of them must change"
            )
        judges[name] = Judge(name, section, rubric, _urls(section, workload))
    if problems:
        raise ConfigError(f"judges of {workload.name}", problems)
    return judges


def plan_calls(judge: Judge, task: JudgeTask) -> tuple[JudgeCall, ...]:
    """The requests a task takes: one for each model of the panel, and for a pair each order.

    Raises:
        BadRecordError: the task lacks something the rubric needs.
    """
    orders: tuple[Order | None, ...] = ("AB", "BA") if judge.rubric.mode == "pairwise" else (None,)
    prompts = {order: _render(judge.rubric, task, order) for order in orders}
    schema = answer_schema(judge.rubric)
    urls = judge.urls or (None,) * len(judge.section.panel)
    return tuple(
        with_key(
            JudgeCall(
                key="",
                task_id=task.task_id,
                judge=judge.name,
                provider=seat.provider,
                model=seat.model,
                url=url,
                order=order,
                messages=prompts[order],
                response_schema=schema,
                temperature=judge.section.temperature,
                max_tokens=judge.section.max_tokens,
            )
        )
        for seat, url in zip(judge.section.panel, urls, strict=True)
        for order in orders
    )


def repair_call(judge: Judge, call: JudgeCall, text: str, problem: str) -> JudgeCall:
    """The same request with what came of it and what is wrong with that.

    Args:
        judge: Whose call it is.
        call: The first one.
        text: What the model wrote.
        problem: `VerdictError.reason`, which quotes nothing of the text: what a judge was talked
            into writing must not come back as a word of ours.
    """
    said = Message(role="assistant", content=text[:MAX_QUOTED_CHARS] or "…")
    words = REPAIR.format(problem=problem, form=answer_form(judge.rubric))
    messages = (*call.messages, said, Message(role="user", content=words))
    return with_key(call.model_copy(update={"messages": messages}))


def read_verdict(judge: Judge, call: JudgeCall, text: str) -> Verdict:
    """What a reply to this call says, in the task's terms.

    Raises:
        VerdictError: it says nothing the rubric offers.
    """
    return parse_verdict(judge.rubric, text, order=call.order)


def with_key(call: JudgeCall) -> JudgeCall:
    """The call under the key of what it sends."""
    key = _digest(
        call.provider,
        call.url,
        call.model,
        [message.model_dump(mode="json") for message in call.messages],
        call.response_schema,
        call.temperature,
        call.max_tokens,
    )
    return call.model_copy(update={"key": key})


def _problems(name: str, section: JudgeSection, workload: Workload) -> Iterator[str]:
    if not re.fullmatch(NAME, name):
        yield ": a judge's name is lower-case letters, digits, _ and -, and starts with a letter"
    known = sorted({ENGINE, *workload.gateway.providers})
    models: set[str] = set()
    for index, seat in enumerate(section.panel):
        if seat.provider not in known:
            yield (
                f".panel.{index}.provider: no provider {seat.provider!r}; gateway.providers has: "
                f"{', '.join(known)}"
            )
        if seat.model in models:
            yield f".panel.{index}.model: {seat.model!r} sits there twice: it would be one vote"
        models.add(seat.model)


def _urls(section: JudgeSection, workload: Workload) -> tuple[str | None, ...]:
    """A model's name says what was asked for, and whoever serves it what answers."""
    providers = workload.gateway.providers
    found = [providers.get(seat.provider) for seat in section.panel]
    return tuple(one.base_url.rstrip("/") if one and one.base_url else None for one in found)


def _digest(*parts: JsonValue) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
