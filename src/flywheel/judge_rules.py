"""Who may judge whom: the judge that labels apart from the one that gates, and no judge its kin.

Input: the data of a workload file, wrong elsewhere or not. Output: what it breaks, with where.
A judge prefers answers like its own (Panickssery et al. 2024, "LLM Evaluators Recognize and Favor
Their Own Generations"), and a model trained on a judge's labels has learned to please that judge:
were the same one to gate it, the gate would measure the pleasing.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pydantic import JsonValue, ValidationError

from flywheel.judges import JudgeModelSection, JudgePurpose, JudgeSection
from flywheel.section import value_at

Location = tuple[str | int, ...]

_FAMILIES: tuple[tuple[str, str], ...] = (
    ("openai", r"openai|gpt(?!-(?:neo|j\b))|chatgpt|o[1-9](?=-|$)|davinci|codex"),
    ("anthropic", r"anthropic|claude"),
    ("meta", r"meta-llama|llama|codellama"),
    ("qwen", r"qwen|qwq"),
    ("mistral", r"mistral|mistralai|mixtral|ministral|codestral|magistral|devstral|pixtral"),
    ("google", r"google|gemini|gemma|medgemma|codegemma|palm|text-bison|chat-bison"),
    ("deepseek", r"deepseek"),
    ("huggingface", r"huggingface\w*|smollm|smolvlm|zephyr"),
    ("microsoft", r"phi(?=-?\d)|wizardlm"),
    ("cohere", r"cohere\w*|command-(?=r|a|light)|aya"),
    ("xai", r"xai|grok"),
    ("amazon", r"amazon|titan-text|nova-(?=pro|lite|micro|premier)"),
    ("ibm", r"granite"),
    ("nvidia", r"nemotron"),
    ("ai2", r"allenai|olmo|tulu"),
    ("zhipu", r"glm|chatglm"),
    ("moonshot", r"kimi|moonshot\w*"),
    ("tii", r"falcon"),
    ("eleutherai", r"eleutherai|pythia|gpt-neo\w*|gpt-j\b"),
)
_RELEASE = re.compile(r"(-\d{4}-\d{2}-\d{2}|-\d{8}|-\d{4}|@\d{4}-?\d{2}-?\d{2}|[-:@]latest)$")
"""What follows a name to say which release of the model, such as its date."""
_PATTERNS = tuple((name, re.compile(rf"(?<![a-z])(?:{mark})")) for name, mark in _FAMILIES)


def model_families(model: str) -> frozenset[str]:
    """Who made a model, told from its name; empty where the name does not tell.

    A distilled or merged model has several: `DeepSeek-R1-Distill-Qwen-7B` is kin of both.
    """
    return frozenset(name for name, mark in _PATTERNS if mark.search(model.lower()))


def judge_families(model: JudgeModelSection) -> frozenset[str]:
    """The family declared for a judge's model, else what its name tells."""
    return frozenset({model.family.lower()}) if model.family else model_families(model.model)


def shared_families(judge: JudgeSection, base_model: str) -> frozenset[str]:
    """The families that the panel and the policy have in common."""
    panel = frozenset[str]().union(*(judge_families(model) for model in judge.panel))
    return panel & model_families(base_model)


def rule_problems(data: JsonValue) -> list[tuple[Location, str]]:
    """What a workload's data breaks of both rules, each with the place to change.

    Args:
        data: The workload file as YAML reads it. Judges that are not valid are passed over: what
            is wrong with them is told by whoever validates the file.
    """
    judges = _judges(value_at(data, "judges"))
    base_model, alias = value_at(data, "base_model"), value_at(data, "alias")
    policy = {str(name).lower() for name in (base_model, alias) if name}
    return [
        *_own_family(judges, str(base_model or ""), policy),
        *_label_and_gate([*_declared_uses(judges), *_grader_uses(data, judges)]),
    ]


def _judges(data: JsonValue) -> dict[str, JudgeSection]:
    judges = {}
    for name, raw in data.items() if isinstance(data, dict) else ():
        try:
            judges[name] = JudgeSection.model_validate(raw)
        except ValidationError:
            continue
    return judges


def _own_family(
    judges: Mapping[str, JudgeSection], base_model: str, policy: set[str]
) -> Iterator[tuple[Location, str]]:
    for name, judge in judges.items():
        if judge.allow_own_family:
            continue
        for index, model in enumerate(judge.panel):
            shared = judge_families(model) & model_families(base_model)
            if model.model.lower() in policy:
                why = f"{model.model} is the model being improved"
            elif shared:
                kin = " and ".join(sorted(shared))
                why = f"{model.model} and base_model {base_model} are both of the family {kin}"
            else:
                continue
            yield (
                ("judges", name, "panel", index),
                f"{why}, and a judge prefers its kin's answers: name a model of another family, "
                "or declare allow_own_family: true, and its self-preference is measured",
            )


class _Use(NamedTuple):
    """A model that judges somewhere."""

    purpose: JudgePurpose
    model: str
    where: Location
    what: str
    is_allowed: bool


def _declared_uses(judges: Mapping[str, JudgeSection]) -> Iterator[_Use]:
    for name, judge in judges.items():
        for index, model in enumerate(judge.panel):
            yield _Use(
                judge.purpose,
                model.model,
                ("judges", name, "panel", index),
                f"judge {name!r}",
                judge.allow_label_and_gate,
            )


def _grader_uses(data: JsonValue, judges: Mapping[str, JudgeSection]) -> Iterator[_Use]:
    """Models that graders ask, where the gate or the labels name such a grader."""
    rails, labels = value_at(data, "gate", "guardrails"), value_at(data, "labels", "graders")
    places: list[tuple[JudgePurpose, Location]] = [("gate", ("gate", "target", "grader"))]
    for index in range(len(rails) if isinstance(rails, list) else 0):
        places.append(("gate", ("gate", "guardrails", index, "grader")))
    for index in range(len(labels) if isinstance(labels, list) else 0):
        places.append(("label", ("labels", "graders", index)))
    for purpose, where in places:
        grader = value_at(data, *where)
        for model, is_allowed in _asked(value_at(data, "graders", str(grader)), judges):
            yield _Use(purpose, model, where, f"grader {grader!r}", is_allowed)


def _asked(
    spec: JsonValue, judges: Mapping[str, JudgeSection], depth: int = 0
) -> Iterator[tuple[str, bool]]:
    """The models a grader asks: its own, a named judge's, those of the graders inside it."""
    if not isinstance(spec, dict) or depth > 10:
        return
    kind, model, judge = spec.get("type"), spec.get("model"), spec.get("judge")
    if kind in ("score_model", "label_model") and isinstance(model, str):
        yield model, False
    if isinstance(kind, str) and kind.startswith("x-") and isinstance(judge, str):
        section = judges.get(judge)
        for seat in section.panel if section else ():
            yield seat.model, section is not None and section.allow_label_and_gate
    scorer = value_at(spec, "arguments", "model")
    if kind == "x-mlflow" and isinstance(scorer, str):
        yield scorer, False
    inner = spec.get("graders")
    for part in inner.values() if isinstance(inner, dict) else ():
        yield from _asked(part, judges, depth + 1)


def _label_and_gate(uses: list[_Use]) -> Iterator[tuple[Location, str]]:
    """One problem for each place that gates with a model that labels, however it is reached."""
    told: set[tuple[Location, str]] = set()
    for gating in uses:
        for labelling in uses:
            if (gating.purpose, labelling.purpose) != ("gate", "label"):
                continue
            if _bare(gating.model) != _bare(labelling.model):
                continue
            if gating.is_allowed or labelling.is_allowed or (gating.where, gating.model) in told:
                continue
            told.add((gating.where, gating.model))
            is_same = gating.model.lower() == labelling.model.lower()
            release = "" if is_same else f" (as {labelling.model})"
            yield (
                gating.where,
                f"{gating.model} gates by {gating.what} and labels by {labelling.what}{release}: "
                "the judge that labels may not gate what learned from it. Name another model in "
                "one of them, or declare allow_label_and_gate: true in the judge",
            )


def _bare(model: str) -> str:
    """A model's name without what some put around it: `openai/gpt-4o`, `gpt-4o-2024-08-06`."""
    return _RELEASE.sub("", model.lower().rsplit("/", 1)[-1])
