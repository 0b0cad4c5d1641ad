"""CARD.md: what is in a snapshot, where it came from and what was left out, for a person."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from flywheel.dataset.select import Example, Selection, answer_key
from flywheel.records import Record, Snapshot

MAX_CLASSES = 20
"""Answers listed in the class balance; with more of them the task is not a classification."""

REASONS: Mapping[str, str] = {
    "disagreement": "raters disagree",
    "refused_without_correction": "rated below labels.accept_at, and nobody wrote a better answer",
    "label_without_answer": "a label, but neither a correction nor a rating",
    "approved_without_answer": "approved, but no answer was captured",
    "approved_but_truncated": "approved, but the answer was cut short",
    "approved_but_error": "approved, but the call failed",
    "approved_but_cancelled": "approved, but the client went away before the end",
    "correction_of_another_role": "the correction is not an assistant message",
    "no_prompt": "the request has no messages",
    "held_out": "the user says what an item of the gate's suite says",
    "held_out_nearly": "the user says nearly what an item of the gate's suite says",
    "duplicate_prompt": "the same prompt was labelled again later",
    "older_conversation": "more conversations than dataset.max_conversations",
}


class RaterVote(Record):
    """One rater's judgement in force on one interaction: a row of `raters.sql`."""

    interaction_id: str
    source_type: str
    source_id: str


def write_card(snapshot: Snapshot, selection: Selection, votes: Sequence[RaterVote]) -> str:
    """The card's text."""
    examples = selection.examples
    used = {example.interaction_id for example in examples}
    raters = Counter(
        f"{vote.source_id} ({vote.source_type})" for vote in votes if vote.interaction_id in used
    )
    sections = [
        f"# {snapshot.workload} · snapshot {snapshot.snapshot_id[:12]}",
        f"{snapshot.labels} labelled interactions, {snapshot.new_labels} of them new since the "
        f"last finished night. Built {snapshot.created_at:%Y-%m-%d %H:%M} UTC.",
        _table("Rows", ("file", "rows"), snapshot.counts),
        _table("Sources", ("strongest source", "labels"), _count(e.label_source for e in examples)),
        _table("Raters", ("rater", "judgements behind these labels"), raters),
        _table("Raters a label", ("raters", "labels"), _count(str(e.raters) for e in examples)),
        _table("Label strength", ("strength", "labels"), _strengths(examples)),
        _classes(examples),
        _dropped(selection.dropped),
        _table("Read from the lake", ("table", "Delta version"), snapshot.lake_versions),
        f"Identity: `{snapshot.snapshot_id}`, the sha256 of rows and recipe. "
        "Files and their hashes: `manifest.json`.",
    ]
    return "\n\n".join(sections) + "\n"


def _table(title: str, columns: tuple[str, str], counts: Mapping[str, int]) -> str:
    lines = [f"## {title}", "", f"| {columns[0]} | {columns[1]} |", "|---|---:|"]
    lines += [f"| {_cell(name)} | {count} |" for name, count in counts.items()]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """One line that cannot break the table."""
    return " ".join(text.split()).replace("|", "\\|")


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _strengths(examples: Sequence[Example]) -> dict[str, int]:
    strengths = (example.strength for example in examples)
    return dict(
        sorted(
            Counter("unknown" if s is None else f"{s:.2f}" for s in strengths).items(), reverse=True
        )
    )


def _classes(examples: Sequence[Example]) -> str:
    answers = Counter(answer_key(example.target) for example in examples)
    if len(answers) > MAX_CLASSES:
        return f"## Class balance\n\n{len(answers)} different answers to {len(examples)} prompts."
    texts = {answer_key(e.target): e.target.text or "(tool calls)" for e in examples}
    counts = _count(key for example in examples for key in [answer_key(example.target)])
    return _table(
        "Class balance", ("answer", "labels"), {f"`{texts[k]:.80}`": n for k, n in counts.items()}
    )


def _dropped(dropped: Mapping[str, int]) -> str:
    if not dropped:
        return "## Left out\n\nNothing: every labelled interaction is in it."
    explained = {f"{name}: {REASONS.get(name, 'see the code')}": n for name, n in dropped.items()}
    return _table("Left out", ("why", "labelled interactions"), explained)
