"""Grader JSON that asks a model -> graders, or every mistake; and the clients they ask through."""

from functools import cache

from pydantic import JsonValue

from flywheel.chat import OpenAIChatModel, StructuredChatModel
from flywheel.errors import ConfigError
from flywheel.graders.function import FunctionGrader
from flywheel.graders.grader import Grader
from flywheel.graders.judge.grading import (
    JudgeGrader,
    LabelReading,
    ModelGrader,
    Reading,
    ScoreReading,
)
from flywheel.graders.judge.judge import Judge, build_judges
from flywheel.graders.specs import (
    JudgeSpec,
    LabelModelSpec,
    MlflowSpec,
    ModelMessageSpec,
    ScoreModelSpec,
    read_spec,
)
from flywheel.graders.template import Template, parse_template
from flywheel.records import JsonObject
from flywheel.routes import ENGINE, ProviderSection
from flywheel.tracking_scorers import open_scorer
from flywheel.workload import Workload


def build_model_grader(
    name: str, raw: JsonObject, where: str, problems: list[str], workload: Workload
) -> Grader | None:
    """One grader that asks a model, or None and lines added to `problems`."""
    match raw.get("type"):
        case "score_model":
            score = read_spec(ScoreModelSpec, raw, where, problems)
            if score is None:
                return None
            return _model(name, score, ScoreReading(*score.range), where, problems, workload)
        case "label_model":
            label = read_spec(LabelModelSpec, raw, where, problems)
            if label is None:
                return None
            reading = LabelReading(label.labels, label.passing_labels)
            return _model(name, label, reading, where, problems, workload)
        case "x-mlflow":
            return _scorer(name, raw, where, problems)
        case _:
            return _judge(name, raw, where, problems, workload)


def pinned_judges(spec: JsonObject, workload: Workload) -> JsonObject:
    """A grader's JSON with the identity of every judge it names, its sub-graders' too."""
    pinned = dict(spec)
    if spec.get("type") == "x-judge":
        judge = build_judges(workload).get(str(spec.get("judge")))
        pinned["identity"] = judge.identity if judge is not None else None
    parts = spec.get("graders")
    if isinstance(parts, dict):
        inner: dict[str, JsonValue] = {
            name: pinned_judges(part, workload) if isinstance(part, dict) else part
            for name, part in parts.items()
        }
        pinned["graders"] = inner
    return pinned


def _model(  # noqa: PLR0913 - what it is, how it is read, and where its mistakes go
    name: str,
    spec: ScoreModelSpec | LabelModelSpec,
    reading: Reading,
    where: str,
    problems: list[str],
    workload: Workload,
) -> Grader | None:
    provider = _provider(spec.provider, where, problems, workload)
    chat = _client(provider, f"{where}.x-provider", problems, workload) if provider else None
    prompt = _prompt(spec.input, where, problems)
    if provider is None or chat is None or prompt is None:
        return None
    return ModelGrader(
        name=name,
        chat=chat,
        provider=provider,
        model=spec.model,
        prompt=prompt,
        reading=reading,
        temperature=spec.sampling_params.temperature,
        max_tokens=spec.sampling_params.max_completions_tokens,
    )


def _judge(
    name: str, raw: JsonObject, where: str, problems: list[str], workload: Workload
) -> Grader | None:
    spec = read_spec(JudgeSpec, raw, where, problems)
    judge = _gating_judge(spec.judge, where, problems, workload) if spec else None
    if judge is None:
        return None
    names = dict.fromkeys(seat.provider for seat in judge.section.panel)
    found = {one: _client(one, f"{where}.judge", problems, workload) for one in names}
    models = {one: model for one, model in found.items() if model is not None}
    return JudgeGrader(name, judge, models) if len(models) == len(found) else None


def _scorer(name: str, raw: JsonObject, where: str, problems: list[str]) -> Grader | None:
    spec = read_spec(MlflowSpec, raw, where, problems)
    if spec is None:
        return None
    try:
        return FunctionGrader(name, open_scorer(spec.scorer, spec.arguments))
    except ValueError as error:
        problems.append(f"{where}.scorer: {error}")
        return None


def _gating_judge(name: str, where: str, problems: list[str], workload: Workload) -> Judge | None:
    try:
        judges = build_judges(workload)
    except ConfigError as error:
        problems += [f"{where}.judge: {problem}" for problem in error.problems]
        return None
    judge = judges.get(name)
    if judge is None:
        problems.append(f"{where}.judge: no judge {name!r}; judges has: {', '.join(judges) or '-'}")
        return None
    if judge.section.purpose != "gate":
        problems.append(
            f"{where}.judge: {name} is there to label (judges.{name}.purpose), and who labels may "
            "not gate: declare another judge with purpose: gate"
        )
    if judge.rubric.mode != "pointwise":
        problems.append(f"{where}.judge: {name} compares two answers, and a grader sees one")
    return judge if judge.section.purpose == "gate" and judge.rubric.mode == "pointwise" else None


def _provider(
    stated: str | None, where: str, problems: list[str], workload: Workload
) -> str | None:
    known = [name for name in workload.gateway.providers if name != ENGINE]
    if stated is not None:
        return stated
    if len(known) == 1:
        return known[0]
    problems.append(
        f"{where}.x-provider: name whom to ask; gateway.providers has: {', '.join(known) or '-'}"
    )
    return None


def _client(
    name: str, where: str, problems: list[str], workload: Workload
) -> StructuredChatModel | None:
    section = workload.gateway.providers.get(name)
    if name == ENGINE or section is None or section.base_url is None:
        known = ", ".join(one for one in workload.gateway.providers if one != ENGINE) or "-"
        why = "serves what is judged" if name == ENGINE else "is not declared"
        problems.append(f"{where}: {name} {why}; gateway.providers has: {known}")
        return None
    if section.api_key_env and section.api_key is None:
        problems.append(f"{where}: {name}: the environment has no {section.api_key_env}")
        return None
    return _open(section.model_dump_json(), section.api_key or "none")


@cache
def _open(section: str, api_key: str) -> OpenAIChatModel:
    """One client an endpoint for the life of the process: its connections are used again."""
    provider = ProviderSection.model_validate_json(section)
    return OpenAIChatModel(provider.base_url or "", api_key=api_key, headers=provider.headers)


def _prompt(
    messages: tuple[ModelMessageSpec, ...], where: str, problems: list[str]
) -> tuple[tuple[str, Template], ...] | None:
    found: list[tuple[str, Template]] = []
    for index, message in enumerate(messages):
        try:
            found.append((message.role, parse_template(message.content)))
        except ValueError as error:
            problems.append(f"{where}.input.{index}.content: {error}")
    return tuple(found) if len(found) == len(messages) else None
