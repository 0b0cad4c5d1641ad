"""Which labelled interactions teach, and what: pure functions over rows of the lake.

An interaction teaches the correction it was given, or its own answer where that was approved. What
teaches nothing is dropped with a reason and counted.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from flywheel.graders.template import ParsedJson, parse_json
from flywheel.records import JsonObject, Message, Record, Share, Status, UtcDatetime

Dropped = Counter[str]
"""Reason to number of interactions."""


class Labelled(Record):
    """A row of `labelled.sql`."""

    interaction_id: str
    conversation_id: str
    started_at: UtcDatetime
    messages: tuple[Message, ...]
    tools: tuple[JsonObject, ...] | None
    response: Message | None
    status: Status
    label_source: str
    correction: Message | None
    value: float | None
    label: str | None
    raters: int
    agreement: Share | None
    strength: Share | None
    last_at: UtcDatetime


class Example(Record):
    """One interaction that teaches."""

    interaction_id: str
    conversation_id: str
    prompt: tuple[Message, ...]
    tools: tuple[JsonObject, ...] | None
    target: Message
    """The answer that should have been sent."""
    rejected: Message | None
    """The answer that was sent, where it is another and can stand in a pair."""
    label_source: str
    raters: int
    agreement: Share | None
    strength: Share | None
    labelled_at: UtcDatetime


class Selection(Record):
    """What is left, and what is not."""

    examples: tuple[Example, ...]
    dropped: dict[str, int]


def select(rows: Iterable[Labelled], *, accept_at: float) -> Selection:
    """Makes examples of labelled interactions.

    Args:
        rows: Labelled interactions, in any order.
        accept_at: A rating at or above it approves the answer that was served.
    """
    examples: list[Example] = []
    dropped: Dropped = Counter()
    for row in rows:
        made = _example(row, accept_at)
        if isinstance(made, Example):
            examples.append(made)
        else:
            dropped[made] += 1
    return Selection(examples=tuple(examples), dropped=dict(dropped))


def _example(row: Labelled, accept_at: float) -> Example | str:
    """The example, or why there is none."""
    target = _target(row, accept_at)
    if isinstance(target, str):
        return target
    if not row.messages:
        return "no_prompt"
    return Example(
        interaction_id=row.interaction_id,
        conversation_id=row.conversation_id,
        prompt=tuple(_teachable(message) for message in row.messages),
        tools=row.tools or None,
        target=_teachable(target),
        rejected=_rejected(row, target),
        label_source=row.label_source,
        raters=row.raters,
        agreement=row.agreement,
        strength=row.strength,
        labelled_at=row.last_at,
    )


def _target(row: Labelled, accept_at: float) -> Message | str:
    """The answer to teach, or why there is none."""
    if row.correction is not None:
        return (
            row.correction if row.correction.role == "assistant" else "correction_of_another_role"
        )
    if row.value is None:
        return "label_without_answer" if row.label is not None else "disagreement"
    if row.value < accept_at:
        return "refused_without_correction"
    if row.response is None or not says_something(row.response):
        return "approved_without_answer"
    # An answer cut short was not the whole of what the model would have said.
    return row.response if row.status == "ok" else f"approved_but_{row.status}"


def _rejected(row: Labelled, target: Message) -> Message | None:
    """What was served, where it makes the other half of a pair."""
    served = row.response
    if served is None or row.status in ("error", "cancelled") or not says_something(served):
        return None
    return None if same_answer(target, served) else _teachable(served)


def says_something(message: Message) -> bool:
    """Whether the message has text or calls tools."""
    return bool(message.text.strip() or message.tool_calls)


def same_answer(first: Message, second: Message) -> bool:
    """Whether two answers say the same: equal JSON where both are JSON, else equal text."""
    return answer_key(first) == answer_key(second)


def answer_key(message: Message) -> str:
    """A text that is equal for answers that say the same; tool calls count, their ids do not."""
    calls = [_call_key(call) for call in message.tool_calls or []]
    return canonical([_text_key(message.text), calls])


def _text_key(text: str) -> str:
    parsed = parse_json(text)
    return f"json {canonical(parsed.value)}" if isinstance(parsed, ParsedJson) else text.strip()


def _call_key(call: JsonObject) -> list[str]:
    function = call.get("function")
    named: JsonObject = function if isinstance(function, dict) else call
    arguments = named.get("arguments")
    text = arguments if isinstance(arguments, str) else canonical(arguments)
    return [str(named.get("name")), _text_key(text)]


def canonical(value: object) -> str:
    """JSON without a choice left in it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _teachable(message: Message) -> Message:
    """The message without what servers add as null (`refusal`, `audio`, `function_call`)."""
    dumped = message.model_dump()
    kept = {name: value for name, value in dumped.items() if value is not None or name == "content"}
    return Message.model_validate(kept)


def drop_duplicates(examples: Sequence[Example]) -> Selection:
    """Of examples with the same prompt and tools, keeps the one labelled last."""
    newest: dict[str, Example] = {}
    for example in sorted(examples, key=age):
        newest[prompt_key(example)] = example
    return Selection(
        examples=tuple(newest.values()),
        dropped=_counted("duplicate_prompt", len(examples) - len(newest)),
    )


def keep_newest(examples: Sequence[Example], *, conversations: int | None) -> Selection:
    """Keeps the examples of the conversations labelled last; all of them when None."""
    latest: dict[str, Example] = {}
    for example in sorted(examples, key=age):
        latest[example.conversation_id] = example
    byage = sorted(latest, key=lambda conversation: age(latest[conversation]), reverse=True)
    kept = set(byage if conversations is None else byage[:conversations])
    left = tuple(example for example in examples if example.conversation_id in kept)
    return Selection(
        examples=left, dropped=_counted("older_conversation", len(examples) - len(left))
    )


def age(example: Example) -> tuple[object, str]:
    """Sorts by when examples were labelled, earliest first."""
    return example.labelled_at, example.interaction_id


def prompt_key(example: Example) -> str:
    """A text that is equal for examples that ask the same with the same tools."""
    return canonical([[message.model_dump() for message in example.prompt], example.tools])


def _counted(reason: str, count: int) -> dict[str, int]:
    return {reason: count} if count else {}
