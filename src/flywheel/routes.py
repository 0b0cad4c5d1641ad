"""The `gateway` section of flywheel.yaml: who may answer, in which order, and what is checked.

Input: a part of the file. Output: frozen sections. `serve/gateway` acts on them.
"""

import os
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from flywheel.section import Positive, Section

ENGINE = "engine"
"""The provider every workload has: the model servers of the deployment (FLYWHEEL_ENGINE_URLS)."""
_HOP_HEADERS = ("host", "content-length", "transfer-encoding", "connection", "authorization")


class ProviderSection(Section):
    """An OpenAI-compatible server, and how patient to be with it."""

    base_url: str | None = None
    """With its `/v1`, as the openai client takes it. Absent only for `engine`."""
    api_key_env: str | None = None
    """Environment variable that holds its key; the key itself is never in this file."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent with every request, for servers that want more than a key."""
    connect_timeout_s: Positive = 5.0
    first_byte_timeout_s: Positive = 60.0
    """Until it begins; of a stream, until its first chunk. Then comes the next target."""
    read_timeout_s: Positive = 600.0
    """Longest silence once the answer has begun."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Further attempts here, where it says 429 or 5xx, before the next target is asked."""
    max_retry_wait_s: Annotated[float, Field(ge=0)] = 5.0
    """A `retry-after` longer than this is not waited for: the next target is asked."""
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    """So many failures in a row and it is not asked for a while."""
    breaker_cooldown_s: Positive = 15.0

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("an http:// or https:// URL, with its /v1")
        return value

    @field_validator("headers")
    @classmethod
    def _headers_are_safe(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if name.lower() in _HOP_HEADERS or any(c in name + text for c in "\r\n\0"):
                raise ValueError(f"{name!r} cannot be set here; a key goes into api_key_env")
        return value

    @property
    def api_key(self) -> str | None:
        """The key, read from the environment."""
        return os.environ.get(self.api_key_env) if self.api_key_env else None


class RouteTarget(Section):
    """One who may answer."""

    provider: str = ENGINE
    model: str | None = None
    """Name sent to the provider. Absent, and only with `engine`: the champion."""
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Share of the conversations it answers first. Default: 1 for the first target, 0 for others,
    which then are plan B, in the order of the list."""


class CascadeSection(Section):
    """Answer with the small model; where a check fails, ask the large one."""

    escalate_to: RouteTarget
    graders: tuple[str, ...] = ()
    """Graders of this workload; each must score at least `pass_at`."""
    json_schema: dict[str, object] | None = None
    """The answer must be JSON that satisfies it."""
    min_mean_logprob: Annotated[float, Field(le=0)] | None = None
    """Natural logarithm, mean over the answer's tokens. Asks the model for logprobs."""
    pass_at: float = 1.0
    record_as: str = "escalated"
    """Name of the correction stored on the small model's answer when the large one's passes the
    checks. Where it is the workload's `labels.name`, the pair teaches; else it is only kept."""

    @model_validator(mode="after")
    def _checks_something(self) -> Self:
        if not self.graders and self.json_schema is None and self.min_mean_logprob is None:
            raise ValueError("declare at least one of graders, json_schema and min_mean_logprob")
        return self


class RepairSection(Section):
    """Check an answer before it leaves; tell the model what is wrong and let it try again."""

    graders: Annotated[tuple[str, ...], Field(min_length=1)]
    pass_at: float = 1.0
    max_attempts: Annotated[int, Field(ge=1, le=5)] = 1
    """Further attempts after the first answer."""
    instruction: str = (
        "Your last answer was checked and is not acceptable: {reason}\n"
        "Answer again, in full, without this mistake and without mentioning it."
    )
    """Sent as the user; `{reason}` is what the grader said."""
    record_as: str = "repaired"
    """Name of the correction stored on the answer that failed, once another passed."""


class RouteSection(Section):
    """What one model name of the gateway stands for."""

    targets: Annotated[tuple[RouteTarget, ...], Field(min_length=1)] = (RouteTarget(),)
    cascade: CascadeSection | None = None
    repair: RepairSection | None = None

    @model_validator(mode="after")
    def _somebody_answers(self) -> Self:
        if not any(self.weights):
            raise ValueError("every weight is 0: nobody would answer")
        return self

    @property
    def weights(self) -> tuple[float, ...]:
        """A weight a target, with the defaults filled in."""
        return tuple(
            target.weight if target.weight is not None else float(index == 0)
            for index, target in enumerate(self.targets)
        )

    @property
    def is_checked(self) -> bool:
        """Whether answers are looked at before they leave."""
        return self.cascade is not None or self.repair is not None

    @property
    def all_targets(self) -> tuple[RouteTarget, ...]:
        """Plan B and the large model included."""
        return (*self.targets, *((self.cascade.escalate_to,) if self.cascade else ()))


class GatewaySection(Section):
    """Providers, and routes beside the workload's own alias."""

    providers: dict[str, ProviderSection] = Field(default_factory=dict)
    routes: dict[str, RouteSection] = Field(default_factory=dict)
    """By model name. The workload's alias needs no entry: the champion answers it."""
    daily_budget_usd: Positive | None = None
    """Spent by UTC day, over all gateways of a home; then calls are refused with 429 until
    midnight. Needs a price table (FLYWHEEL_PRICES): a call of unknown cost spends nothing."""

    @model_validator(mode="after")
    def _providers_exist(self) -> Self:
        problems = []
        for name, provider in self.providers.items():
            if (provider.base_url is None) != (name == ENGINE):
                problems.append(
                    f"{ENGINE} takes no base_url, it is the deployment's own"
                    if name == ENGINE
                    else f"provider {name} needs a base_url"
                )
        known = sorted({ENGINE, *self.providers})
        for alias, route in self.routes.items():
            for target in route.all_targets:
                if target.provider not in known:
                    problems.append(
                        f"route {alias}: no provider {target.provider!r}; there are: "
                        f"{', '.join(known)}"
                    )
                elif target.provider != ENGINE and target.model is None:
                    problems.append(f"route {alias}: a target at {target.provider} needs a model")
        if problems:
            raise ValueError("; ".join(problems))
        return self
