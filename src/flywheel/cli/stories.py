"""What a stage did, told to a person: a table, and a few lines of Markdown.

Input: ids, or the small report of a step. Output: a `Story`. It is read back from the lake, so
that it says what is there and not what was meant. Nothing is decided by it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from flywheel.cli.steps import Held, Place, find_decision, open_fleet
from flywheel.errors import FlywheelError
from flywheel.records import JsonObject, Record

if TYPE_CHECKING:
    from flywheel.capture import DrainReport
    from flywheel.cli.judging import JudgeOutcome
    from flywheel.cli.night import NightReport
    from flywheel.label import GradeReport
    from flywheel.promote import Fleet
    from flywheel.records import Interval, Release


class Story(Record):
    """What a person reads of one stage."""

    title: str
    rows: tuple[JsonObject, ...]
    """The table; every row has the same columns."""
    markdown: str


def of_drain(report: "DrainReport") -> Story:
    """What was captured since the last drain."""
    counts = report.model_dump(mode="json", exclude={"spool"})
    text = (
        f"{report.interactions} interactions and {report.assessments} judgements are new in the "
        f"lake; {report.quarantined} records are new in `quarantine`, each with its reason."
    )
    title = f"{report.interactions} calls and {report.assessments} judgements captured"
    return _story(title, _facts(counts), text)


def of_grades(report: "GradeReport") -> Story:
    """What the code graders said."""
    rows: list[JsonObject] = [
        {"grader": name, **count.model_dump(mode="json")} for name, count in report.graders.items()
    ]
    text = "Graded by `labels.graders`." if rows else "`labels.graders` is empty: nothing to run."
    return _story("Labelled", rows, text)


def of_judges(outcomes: "Sequence[JudgeOutcome]") -> Story:
    """What the judges said, and which of them may not."""
    rows: list[JsonObject] = [outcome.model_dump(mode="json") for outcome in outcomes]
    reasons = [f"- `{outcome.judge}` {outcome.state}: {outcome.reason}" for outcome in outcomes]
    judged = sum(outcome.judged for outcome in outcomes)
    text = "\n".join(reasons) or "`judges` has none with the purpose `label`: nothing to run."
    return _story(f"{judged} answers judged", rows, text)


def of_snapshot(place: Place, outcome: str | Held) -> Story:
    """What there is to learn from tonight: the snapshot's own card."""
    from flywheel.dataset import find_snapshot

    if isinstance(outcome, Held):
        return _story("Held", [{"outcome": "held", "reason": outcome.reason}], outcome.reason)
    fleet = open_fleet(*place.load())
    snapshot = find_snapshot(fleet.lake, fleet.workload.name, outcome)
    rows: list[JsonObject] = [{"part": part, "rows": n} for part, n in snapshot.counts.items()]
    card = Path(snapshot.path) / "CARD.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else f"`{snapshot.path}`"
    title = f"Snapshot {outcome[:12]}: {snapshot.labels} labels, {snapshot.new_labels} of them new"
    return _story(title, rows, text)


def of_adapter(place: Place, name: str) -> Story:
    """What was trained, from what, and where to look."""
    fleet = open_fleet(*place.load())
    adapter = fleet.adapter(name)
    facts: dict[str, JsonValue] = {
        "adapter": adapter.name,
        "base model": adapter.base_model,
        "parent": adapter.parent,
        "snapshot": adapter.snapshot_id,
        "rank": adapter.rank,
        "MB": round(adapter.size_bytes / 1e6, 1),
    }
    link = _run_link(fleet, adapter.run_id, "Training in MLflow")
    return _story(f"Adapter {name}", _facts({**facts, **adapter.metrics}), link)


def of_decision(place: Place, decision_id: str) -> Story:
    """What the gate decided, with its numbers."""
    fleet = open_fleet(*place.load())
    decision = find_decision(fleet, decision_id)
    rows: list[JsonObject] = [
        {
            "metric": found.name,
            "rule": found.rule,
            "margin": found.margin,
            "n": found.n,
            "candidate": _interval(found.candidate),
            "champion": _interval(found.champion),
            "difference": _interval(found.difference),
            "verdict": found.verdict,
        }
        for found in decision.comparisons
    ]
    reasons = "\n".join(f"- {reason}" for reason in decision.reasons)
    link = _run_link(fleet, decision.run_id, "Evidence in MLflow")
    head = f"**{decision.verdict}**: `{decision.candidate}` against `{decision.champion}`"
    return _story(
        f"{decision.verdict}, {decision.candidate} against {decision.champion}",
        rows,
        f"{head}\n\n{reasons}\n\n{link}",
    )


def of_release(outcome: "Release | Held") -> Story:
    """What users get from now on."""
    if isinstance(outcome, Held):
        return _story("Held", [{"outcome": "held", "reason": outcome.reason}], outcome.reason)
    text = (
        f"`{outcome.alias}` means `{outcome.model}` since epoch {outcome.epoch}. Back to "
        f"`{outcome.previous}` in under a second:\n\n    flywheel rollback\n"
    )
    return _story(
        f"{outcome.alias} means {outcome.model} from now on",
        _facts(outcome.model_dump(mode="json")),
        text,
    )


def of_night(place: Place, report: "NightReport") -> Story:
    """The night in one page, with links to its MLflow runs."""
    fleet = open_fleet(*place.load())
    links = []
    if report.adapter is not None:
        run_id = fleet.adapter(report.adapter).run_id
        links.append(_run_link(fleet, run_id, "Training in MLflow"))
    if report.decision_id is not None:
        run_id = find_decision(fleet, report.decision_id).run_id
        links.append(_run_link(fleet, run_id, "Evidence in MLflow"))
    text = "\n".join([f"**{report.outcome}**: {report.reason}", "", *(f"- {x}" for x in links)])
    return _story(f"Night: {report.outcome}", _facts(report.model_dump(mode="json")), text)


def _story(title: str, rows: Sequence[JsonObject], text: str) -> Story:
    return Story(title=title, rows=tuple(rows), markdown=f"# {title}\n\n{text}\n")


def _facts(facts: Mapping[str, JsonValue]) -> list[JsonObject]:
    return [{"what": name, "value": value} for name, value in facts.items()]


def _interval(found: "Interval") -> str:
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _run_link(fleet: "Fleet", run_id: str | None, text: str) -> str:
    """A link where MLflow is a server, the run's id where it is not or is down."""
    if run_id is None:
        return f"{text}: no run"
    try:
        url = fleet.tracker.run_url(run_id)
    except FlywheelError:
        return f"{text}: run `{run_id}`"
    return f"[{text}]({url})" if url.startswith("http") else f"{text}: `{url}`"
