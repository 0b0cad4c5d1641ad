"""`flywheel label grade`: code graders over captured interactions that have no grade yet.

Input: `interactions`, and `labels.graders` of the workload. Output: rows of `assessments` with
source_type `code` and the grader's hash as their `rubric`. A grader that changes grades anew, and
its latest grade counts. A grader that fails leaves a row with value NULL and an error_type.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from importlib.resources import files

from flywheel.errors import ConfigError
from flywheel.graders import Grader, build_graders, grader_hash, template_paths
from flywheel.lake import Lake
from flywheel.records import Assessment, Interaction, JsonObject, Record, utcnow
from flywheel.workload import Workload

BATCH = 2_000
"""Interactions read and grades committed at a time."""


class GraderCount(Record):
    """What one grader did in this run."""

    graded: int
    """Interactions that got a score."""
    failed: int
    """Interactions on which the grader itself failed."""
    mean: float | None
    """Mean score, NULL when nothing got one."""


class GradeReport(Record):
    """What a run of the code graders added."""

    graders: dict[str, GraderCount]


def grade_captured(
    lake: Lake,
    workload: Workload,
    *,
    now: datetime | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> GradeReport:
    """Grades every answered interaction the workload's graders have not graded yet.

    Args:
        lake: What is graded, and where the grades go.
        workload: `labels.graders` names the graders; none named is nothing done.
        now: When the grades are given.
        on_progress: Called with grades given and grades to give.

    Raises:
        ConfigError: a grader cannot be built, or compares with a reference traffic does not have.
    """
    now = now or utcnow()
    specs = {name: workload.graders[name] for name in workload.labels.graders}
    graders = build_graders(specs)
    _refuse_references(specs)
    to_give = sum(_count_ungraded(lake, workload.name, name, specs[name]) for name in specs)
    given = 0
    counts: dict[str, GraderCount] = {}
    for name, grader in graders.items():
        scores: list[float | None] = []
        for page in _pages(lake, workload.name, name, specs[name]):
            batch = [_grade(grader, interaction, specs[name], now) for interaction in page]
            lake.append(batch)
            scores += (grade.value for grade in batch)
            given += len(batch)
            if on_progress:
                on_progress(given, to_give)
        counts[name] = _count(scores)
    return GradeReport(graders=counts)


def _refuse_references(specs: Mapping[str, JsonObject]) -> None:
    problems = [
        f"{name}: compares with {path}, which captured traffic does not have; "
        "keep it for the gate and take it out of labels.graders"
        for name, spec in specs.items()
        for path in sorted(template_paths(spec))
        if path.split(".")[:2] == ["item", "reference"]
    ]
    if problems:
        raise ConfigError("labels.graders", problems)


def _sql() -> str:
    return (files("flywheel.label") / "ungraded.sql").read_text(encoding="utf-8")


def _count_ungraded(lake: Lake, workload: str, name: str, spec: JsonObject) -> int:
    sql = f"SELECT count(*) AS n FROM ({_sql()})"  # noqa: S608 - a file of ours, values bound
    everything = [workload, name, grader_hash(spec), "", 2**62]
    return int(lake.query(sql, everything).column("n")[0].as_py())


def _pages(lake: Lake, workload: str, name: str, spec: JsonObject) -> Iterator[list[Interaction]]:
    """Ungraded interactions by id; each page starts after the last, whatever was graded since."""
    last = ""
    while page := lake.fetch(Interaction, _sql(), [workload, name, grader_hash(spec), last, BATCH]):
        yield page
        last = page[-1].interaction_id


def _grade(grader: Grader, interaction: Interaction, spec: JsonObject, now: datetime) -> Assessment:
    assert interaction.response is not None  # the query asks for it
    item: JsonObject = {"messages": [message.model_dump() for message in interaction.messages]}
    result = grader.grade(interaction.response.text, item)
    version = grader_hash(spec)
    identity = f"{interaction.interaction_id}\0{grader.name}\0{version}"
    return Assessment(
        assessment_id=hashlib.sha256(identity.encode()).hexdigest()[:32],
        workload=interaction.workload,
        event_date=now.date(),
        interaction_id=interaction.interaction_id,
        name=grader.name,
        kind="feedback",
        value=result.score,
        rationale=result.detail,
        source_type="code",
        source_id=f"grader:{grader.name}",
        rubric=version,
        status="submitted" if result.score is not None else "error",
        error_type=result.error_type,
        created_at=now,
    )


def _count(scores: list[float | None]) -> GraderCount:
    known = [score for score in scores if score is not None]
    return GraderCount(
        graded=len(known),
        failed=len(scores) - len(known),
        mean=sum(known) / len(known) if known else None,
    )
