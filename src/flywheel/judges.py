"""The `judges` section of flywheel.yaml: which models judge what, and when they stop.

Input: a part of the file. Output: frozen sections. `graders/judge` asks, `label` runs them.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from flywheel.section import Fraction, Positive, Section

JudgePurpose = Literal["label", "gate"]


class JudgeModelSection(Section):
    """One model that judges."""

    provider: str
    """Of `gateway.providers`: its base URL and the environment variable of its key."""
    model: str
    family: str | None = None
    """Who made it: `openai`, `qwen`. Absent: told from the name. A judge of the policy's own
    family prefers its kin, so it may not judge it unless `allow_own_family` says so."""


class JudgeBarsSection(Section):
    """What a judge must reach on gold labels before its word counts.

    Each is compared with the bound of a confidence interval, not with the estimate.
    """

    minimum_items: Annotated[int, Field(ge=1)] = 50
    """With fewer gold items nothing is proven."""
    kappa: Annotated[float, Field(gt=-1, lt=1)] = 0.4
    """Cohen's kappa against adjudicated labels; the lower bound must exceed it."""
    swap_consistency: Fraction = 0.8
    """Share of pairs with the same winner in both orders; the lower bound must exceed it."""
    length_bias: Annotated[float, Field(ge=0, le=1)] = 0.2
    """How much more often than the gold the longer answer wins; the upper bound of its size."""
    self_preference: Annotated[float, Field(ge=0, le=1)] = 0.1
    """How much more often than the gold its own family's answer wins; likewise. Only where the
    families are the same."""
    valid_days: Annotated[int, Field(ge=1)] = 30
    """A qualification is forgotten after so many days: hosted models change under their name."""


class JudgeRunSection(Section):
    """How a run spends time and money."""

    max_concurrency: Annotated[int, Field(ge=1)] = 64
    """Most requests under way at one endpoint; the run finds by itself how many it takes."""
    deadline_s: Positive = 120.0
    """Of one judgement with its retries; then it is an error row."""
    max_error_share: Fraction = 0.05
    """A run with more errors than this is invalid and labels nothing."""
    budget_usd: Annotated[float, Field(ge=0)] | None = None
    """Never exceeded. Needs a price table (FLYWHEEL_PRICES)."""
    budget_tokens: Annotated[int, Field(ge=0)] | None = None
    """Input and output together; never exceeded."""
    batch_price_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """What the batch API costs of the price in the table: half, at the large providers."""


class JudgeSection(Section):
    """One question put to one model or to a panel of them."""

    rubric: Path
    """Markdown file, relative to the workload file: docs/judges.md."""
    mode: Literal["pointwise", "pairwise"] = "pointwise"
    """pointwise: each answer by itself. pairwise: two answers, in both orders."""
    panel: Annotated[tuple[JudgeModelSection, ...], Field(min_length=1)]
    """One model, or several whose majority counts."""
    purpose: JudgePurpose = "label"
    """What it is for. The judge that labels may not be the judge that gates."""
    order_disagreement: Literal["tie", "people"] = "tie"
    """A pair with different winners in the two orders is a tie, or goes to people."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    max_tokens: Annotated[int, Field(ge=16)] = 1024
    allow_own_family: bool = False
    """Declares that a judge of the policy's own family is accepted; self-preference is measured."""
    allow_label_and_gate: bool = False
    """Declares that another judge with the same model and the opposite purpose is accepted."""
    bars: JudgeBarsSection = JudgeBarsSection()
    run: JudgeRunSection = JudgeRunSection()

    @model_validator(mode="after")
    def _panel_has_no_twins(self) -> "JudgeSection":
        seats = [(judge.provider, judge.model) for judge in self.panel]
        if len(set(seats)) != len(seats):
            raise ValueError("the same model sits twice on the panel; its vote would count double")
        return self
