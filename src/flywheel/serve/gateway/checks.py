"""Is this answer good enough to leave? Graders, a schema, how sure the model was.

Input: a chat completion and what was asked. Output: the reason why not, or None. A tool call
passes: it says nothing yet that could be checked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from flywheel.graders import Grader, build_graders
from flywheel.records import JsonObject, Message
from flywheel.routes import CascadeSection, RepairSection
from flywheel.workload import Workload

_SCHEMA = "cascade.json_schema"


@dataclass(frozen=True, slots=True)
class Check:
    """What an answer has to pass.

    Attributes:
        graders: each must score at least `pass_at`.
        pass_at: see there.
        min_mean_logprob: None does not look.
        is_strict: whether a grader that fails itself counts against the answer.
    """

    graders: Sequence[Grader]
    pass_at: float
    min_mean_logprob: float | None = None
    is_strict: bool = True

    def reason(self, reply: JsonObject, request: JsonObject) -> str | None:
        """Why the reply does not pass, in words its model can use; None when it does."""
        choices = reply.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                reason = self._look(choice, request)
                if reason is not None:
                    return reason
        return None if choices else "there is no answer"

    def _look(self, choice: JsonObject, request: JsonObject) -> str | None:
        raw = choice.get("message")
        message = Message.model_validate(raw) if isinstance(raw, dict) and "role" in raw else None
        if message is None:
            return "there is no answer"
        if message.tool_calls:
            return None
        item: JsonObject = {"messages": request.get("messages"), "reference": {}}
        for grader in self.graders:
            result = grader.grade(message.text, item)
            if result.score is None:
                if self.is_strict:
                    return f"{grader.name} could not say: {result.error_type}: {result.detail}"
            elif result.score < self.pass_at:
                return result.detail or f"{grader.name} scores {result.score:g}"
        return self._doubt(choice)

    def _doubt(self, choice: JsonObject) -> str | None:
        if self.min_mean_logprob is None:
            return None
        mean = mean_logprob(choice)
        if mean is None:
            return "the model does not tell its log-probabilities"
        if mean < self.min_mean_logprob:
            return f"mean token log-probability {mean:.3f} is under {self.min_mean_logprob:g}"
        return None


def mean_logprob(choice: JsonObject) -> float | None:
    """Mean natural log-probability of a choice's tokens; None where it has none."""
    told = choice.get("logprobs")
    tokens = told.get("content") if isinstance(told, dict) else None
    values = [
        float(value)
        for token in (tokens if isinstance(tokens, list) else [])
        if isinstance(token, dict) and isinstance(value := token.get("logprob"), int | float)
    ]
    return sum(values) / len(values) if values else None


@dataclass(frozen=True, slots=True)
class RouteChecks:
    """The checks of one route."""

    repair: Check | None
    cascade: Check | None
    """Of the small model's answer."""
    escalated: Check | None
    """Of the large one's, whose pair is worth keeping only if it passes; log-probabilities of
    another model say nothing here."""


def build_checks(workloads: Sequence[Workload]) -> dict[str, RouteChecks]:
    """The checks of every route that has some, by alias.

    Raises:
        ConfigError: a grader or a schema is not valid.
    """
    return {
        alias: _route_checks(workload, route.repair, route.cascade)
        for workload in workloads
        for alias, route in workload.gateway.routes.items()
        if route.is_checked
    }


def _route_checks(
    workload: Workload, repair: RepairSection | None, cascade: CascadeSection | None
) -> RouteChecks:
    spec: dict[str, JsonObject] = dict(workload.graders)
    named = cascade.graders if cascade else ()
    if cascade is not None and cascade.json_schema is not None:
        schema: JsonValue = cascade.json_schema  # type: ignore[assignment]
        spec[_SCHEMA] = {"type": "x-json_schema", "schema": schema}
        named = (*named, _SCHEMA)
    graders = build_graders(spec, source=f"workload {workload.name}, graders")
    return RouteChecks(
        repair=Check(_pick(graders, repair.graders), repair.pass_at, is_strict=False)
        if repair
        else None,
        cascade=Check(_pick(graders, named), cascade.pass_at, cascade.min_mean_logprob)
        if cascade
        else None,
        escalated=Check(_pick(graders, named), cascade.pass_at) if cascade else None,
    )


def _pick(graders: Mapping[str, Grader], names: Sequence[str]) -> list[Grader]:
    return [graders[name] for name in names]
