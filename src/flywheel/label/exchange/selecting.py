"""Which judgements go out, and which items are still to be judged."""

from collections.abc import Iterator, Sequence
from importlib.resources import files

from flywheel.label.exchange.annotation import Question
from flywheel.label.exchange.exporting import Judged
from flywheel.label.exchange.items import Item, order_for
from flywheel.lake import Lake
from flywheel.records import Assessment, Interaction, SourceType

_BATCH = 1_000
"""Items whose content is in memory at a time."""
_CALLS = """
SELECT * FROM interactions
WHERE workload = $1 AND interaction_id IN (SELECT unnest($2::VARCHAR[]))
"""


def judged_items(
    lake: Lake,
    workload: str,
    *,
    name: str | None = None,
    source_types: Sequence[SourceType] = ("human",),
) -> Iterator[Judged]:
    """Items with the judgements on them that are in force, one for each item and question.

    Args:
        lake: where they are.
        workload: whose.
        name: only this question.
        source_types: whose judgements.
    """
    found = lake.fetch(Assessment, _sql("judged.sql"), [workload, name, list(source_types)])
    groups: dict[tuple[str, ...], list[Assessment]] = {}
    for one in found:
        # A pair judged as (A, B) and as (B, A) is two items: a record shows one order.
        key = (one.interaction_id or "", *(one.pair_ids or ()), one.name)
        groups.setdefault(key, []).append(one)
    ready = list(groups.values())
    for start in range(0, len(ready), _BATCH):
        batch = ready[start : start + _BATCH]
        items = [
            _item(group[0].name, group[0].interaction_id, group[0].pair_ids) for group in batch
        ]
        for item, group in zip(_with_content(lake, workload, items), batch, strict=True):
            yield Judged(item=item, judgements=tuple(group))


def unlabelled_items(
    lake: Lake,
    workload: str,
    question: Question,
    *,
    rater: str | None = None,
    limit: int = 100,
) -> list[Item]:
    """Items nobody (with a rater: this rater) has judged under a question.

    Args:
        lake: where they are.
        workload: whose.
        question: a preference is asked of pairs, anything else of single answers.
        rater: who will judge; also decides the order in which a pair's answers are shown.
        limit: at most so many.
    """
    params = [workload, question.name, rater, limit]
    if question.kind == "preference":
        found = lake.query(_sql("unlabelled_pairs.sql"), params).to_pylist()
        pairs = [(str(row["a"]), str(row["b"])) for row in found]
        items = [
            _item(question.name, None, pair).model_copy(
                update={"presented_order": order_for(rater or "", " ".join(pair))}
            )
            for pair in pairs
        ]
    else:
        found = lake.query(_sql("unlabelled.sql"), params).to_pylist()
        items = [_item(question.name, str(row["interaction_id"]), None) for row in found]
    return _with_content(lake, workload, items)


def _item(name: str, interaction_id: str | None, pair: tuple[str, str] | None) -> Item:
    return Item(name=name, interaction_id=interaction_id, pair_ids=pair)


def _with_content(lake: Lake, workload: str, items: Sequence[Item]) -> list[Item]:
    """The items with what was said; those not in the lake stay without. Images are not loaded."""
    wanted = {one for item in items for one in item.pair_ids or (item.interaction_id,)}
    found = lake.fetch(Interaction, _CALLS, [workload, sorted(one for one in wanted if one)])
    calls = {call.interaction_id: call for call in found}
    return [_filled(item, calls) for item in items]


def _filled(item: Item, calls: dict[str, Interaction]) -> Item:
    ids = item.pair_ids or (item.interaction_id or "",)
    known = [calls[one] for one in ids if one in calls]
    responses = tuple(calls[one].response if one in calls else None for one in ids)
    messages = known[0].messages if known else ()
    return item.model_copy(update={"messages": messages, "responses": responses})


def _sql(name: str) -> str:
    return (files("flywheel.label.exchange") / name).read_text(encoding="utf-8")
