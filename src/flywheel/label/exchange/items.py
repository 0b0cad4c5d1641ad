"""What is shown to a rater: one answer, or two, with the conversation before them."""

import hashlib
from typing import Literal

from flywheel.records import JsonObject, Message, Record

Order = Literal["AB", "BA"]


class Item(Record):
    """One thing to judge, under one question."""

    name: str
    """The question."""
    interaction_id: str | None = None
    pair_ids: tuple[str, str] | None = None
    """Instead, of a preference."""
    messages: tuple[Message, ...] = ()
    """What was said before; empty where the interaction is not in the lake."""
    responses: tuple[Message | None, ...] = ()
    """One, or A and B."""
    presented_order: Order | None = None
    """Of a pair: which of the two is shown first. AB where absent."""

    @property
    def key(self) -> str:
        """Names the item among those of a workload."""
        return self.interaction_id or " ".join(self.pair_ids or ())

    def columns(self) -> JsonObject:
        """The columns of a label file that say what is judged."""
        if self.pair_ids is None:
            return {"interaction_id": self.interaction_id}
        return {"pair_a": self.pair_ids[0], "pair_b": self.pair_ids[1]}

    def shown(self) -> tuple[Message | None, ...]:
        """The responses in the order they are shown."""
        return self.responses[::-1] if self.presented_order == "BA" else self.responses


def order_for(rater: str, key: str) -> Order:
    """Which of a pair a rater sees first: a fair coin that falls the same way each time."""
    digest = hashlib.sha256(f"order\0{rater}\0{key}".encode()).digest()
    return "AB" if digest[0] % 2 == 0 else "BA"


def plain_text(message: Message | None) -> str:
    """A message as a person reads it, tool calls included."""
    if message is None:
        return ""
    calls = [call.get("function") for call in message.tool_calls or ()]
    shown = [
        f"→ {call.get('name')}({call.get('arguments')})" for call in calls if isinstance(call, dict)
    ]
    return "\n".join([text for text in (message.text, *shown) if text])
