"""The `review` section of flywheel.yaml: who is asked what, how often, and for how long.

Input: a part of the file. Output: frozen sections. `label/review` plans, asks and collects.
"""

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from flywheel.section import Fraction, Positive, Section

QuestionKind = Literal["pass_fail", "category", "number", "preference", "correction", "comment"]
ReviewStrategy = Literal[
    "complaints", "order_disagreement", "panel_split", "uncertainty", "new_clusters"
]

MAX_OPTIONS = 10
MAX_OPTION_CHARS = 64
MAX_TITLE_CHARS = 250
MAX_MEMBERS = 10
"""MLflow's limits (mlflow/genai/label_schemas/validation.py, review_queues/validation.py)."""
RESERVED_TITLE = "feedback"
"""MLflow's own default question; compared without case."""

Rater = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._@+-]{0,99}$")]
"""As MLflow knows its users: lower case."""
Members = Annotated[tuple[Rater, ...], Field(min_length=1, max_length=MAX_MEMBERS)]


class QuestionSection(Section):
    """One question a rater answers of an item."""

    kind: QuestionKind
    """pass_fail: yes or no, value 1 or 0. category: one of `options`, the label. number: between
    `minimum` and `maximum`, the value. preference: which of two answers; pairs only. correction:
    the reply that should have been sent. comment: free text, kept as rationale."""
    name: str | None = None
    """Name of the assessments the answers become. Absent: the question's key. A correction may
    have the name of the one verdict it corrects."""
    title: Annotated[str, Field(min_length=1, max_length=MAX_TITLE_CHARS)] | None = None
    """What the rater reads. Absent: the question's key."""
    instruction: Annotated[str, Field(max_length=1000)] | None = None
    options: tuple[Annotated[str, Field(min_length=1, max_length=MAX_OPTION_CHARS)], ...] = ()
    """Of a category; at most ten."""
    minimum: float | None = None
    maximum: float | None = None
    pass_label: Annotated[str, Field(min_length=1, max_length=MAX_OPTION_CHARS)] = "Pass"
    fail_label: Annotated[str, Field(min_length=1, max_length=MAX_OPTION_CHARS)] = "Fail"
    """How the two answers of pass_fail read."""
    comment: bool = False
    """Whether the rater may say why, beside the answer."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        problems = []
        if self.kind == "category" and not 2 <= len(self.options) <= MAX_OPTIONS:
            problems.append(f"a category needs 2 to {MAX_OPTIONS} options")
        if self.kind != "category" and self.options:
            problems.append(f"options belong to a category, not to {self.kind}")
        if len(set(self.options)) != len(self.options):
            problems.append("the same option stands twice")
        if self.kind != "number" and (self.minimum is not None or self.maximum is not None):
            problems.append(f"minimum and maximum belong to a number, not to {self.kind}")
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            problems.append("minimum must be below maximum")
        if self.kind == "pass_fail" and self.pass_label == self.fail_label:
            problems.append("pass_label and fail_label must read differently")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def is_pairwise(self) -> bool:
        """Whether it is asked of two answers, and not of one."""
        return self.kind == "preference"


class OverlapSection(Section):
    """Items several raters see, so that their agreement can be measured."""

    raters: Annotated[int, Field(ge=2)] = 2
    """How many see such an item."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of items that are put to so many."""


class ReviewSection(Section):
    """What experts are asked, within a budget of their minutes."""

    raters: tuple[Rater, ...] = ()
    """Each has a queue of their own."""
    groups: dict[
        Rater, Annotated[tuple[Rater, ...], Field(min_length=1, max_length=MAX_MEMBERS)]
    ] = Field(default_factory=dict)
    """Each has one queue, where whoever comes first answers. For overlap a group is one rater."""
    adjudicators: tuple[Rater, ...] = ()
    """Who decides where raters disagree: `flywheel review push --adjudicate`."""
    questions: Annotated[dict[str, QuestionSection], Field(min_length=1)]
    guideline: Annotated[str, Field(pattern=r"^[\w.-]{1,40}@[\w.-]{1,20}$")]
    """Name and version of what raters were told to go by, `triage@3`; stored as `rubric` and
    `guideline` with every answer. Questions may only change together with it."""
    experiment: str | None = None
    """MLflow experiment the queues are in. Absent: `<workload>-review`."""
    minutes: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30
    """Budget of each rater: what waits in a queue never takes longer than this."""
    seconds_per_item: Positive = 45
    seconds_per_pair: Positive = 75
    strategies: tuple[ReviewStrategy, ...] = (
        "complaints",
        "order_disagreement",
        "panel_split",
        "uncertainty",
        "new_clusters",
    )
    """What is worth asking, in turns."""
    random_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the budget that goes to a random slice, whatever the strategies want; only these
    labels carry an inclusion_prob, and only they may be read as a mean of the traffic."""
    gold_share: Fraction = 0.1
    """Share of the budget that goes to items adjudicated before; raters cannot tell them."""
    overlap: OverlapSection = OverlapSection()
    blinded: bool = True
    """Whether raters are kept from seeing which model answered."""
    show_judges: bool = False
    """Whether what judges said is logged on the trace, where a rater may look it up."""
    seed: int = 17

    @field_validator("strategies", "raters", "adjudicators")
    @classmethod
    def _no_twins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted(name for name, count in Counter(value).items() if count > 1)
        if twice:
            raise ValueError(f"{', '.join(twice)}: stands there twice")
        return value

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        problems = [*self._people_problems(), *self._question_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _people_problems(self) -> list[str]:
        problems = []
        if not self.raters and not self.groups:
            problems.append("nobody is asked: name raters or groups")
        both = sorted(set(self.raters) & set(self.groups))
        if both:
            problems.append(f"{', '.join(both)}: the name of a rater and of a group")
        seats = len(self.raters) + len(self.groups)
        if self.overlap.share and self.overlap.raters > seats > 1:
            problems.append(
                f"overlap.raters is {self.overlap.raters}, but there are {seats} queues"
            )
        if self.random_share + self.gold_share > 1:
            problems.append("random_share and gold_share are together more than the whole budget")
        return problems

    def _question_problems(self) -> list[str]:
        titles = Counter(title.lower() for title in self.titles.values())
        problems = [f"two questions read {title!r}" for title, n in titles.items() if n > 1]
        if RESERVED_TITLE in titles:
            problems.append("a question may not read 'Feedback': MLflow's own default does")
        return [*problems, *self._name_problems()]

    def _name_problems(self) -> list[str]:
        """A later answer replaces an earlier one of its name, and a correction takes the verdict.

        So a verdict and its correction share a name, and nothing else does.
        """
        named: dict[str, list[str]] = {}
        for key, question in self.questions.items():
            named.setdefault(question.name or key, []).append(key)
        problems = []
        for name, keys in named.items():
            corrections = [key for key in keys if self.questions[key].kind == "correction"]
            others = [key for key in keys if key not in corrections]
            is_comment = any(self.questions[key].kind == "comment" for key in others)
            if len(corrections) > 1 or len(others) > 1 or (corrections and is_comment):
                problems.append(
                    f"questions {', '.join(keys)} are all named {name!r}, and the answer to one "
                    "would replace the other's: only a correction may share the name of one verdict"
                )
        return problems

    @property
    def titles(self) -> dict[str, str]:
        """What raters read, by the question's key."""
        return {key: question.title or key for key, question in self.questions.items()}

    @property
    def queues(self) -> tuple[str, ...]:
        """Raters and groups: whoever has a queue, in the order declared."""
        return (*self.raters, *self.groups)

    @property
    def people(self) -> frozenset[str]:
        """Everybody whose answer is taken."""
        members = (name for group in self.groups.values() for name in group)
        return frozenset((*self.raters, *members, *self.adjudicators))

    def seconds(self, *, is_pair: bool) -> float:
        """What one item takes."""
        return self.seconds_per_pair if is_pair else self.seconds_per_item
