"""What a judgement judges, where its log does not say: a call, or a whole conversation.

TensorZero's feedback names a target that may be an inference or an episode; Langfuse's scores may
name a trace only. Input: assessments as read, the lake with the calls already in it. Output: the
same, aimed at what is there; unchanged where nothing is (yet). Their ids stay as they are.
"""

from collections.abc import Iterable, Sequence

from flywheel.lake import Lake
from flywheel.records import Assessment

_CALLS = """
SELECT interaction_id FROM interactions
WHERE workload = $1 AND interaction_id IN (SELECT unnest(CAST($2 AS VARCHAR[])))
"""
_CONVERSATIONS = """
SELECT DISTINCT conversation_id FROM interactions
WHERE workload = $1 AND conversation_id IN (SELECT unnest(CAST($2 AS VARCHAR[])))
"""
_TRACES = """
SELECT trace_id, min(interaction_id) AS interaction_id FROM interactions
WHERE workload = $1 AND trace_id IN (SELECT unnest(CAST($2 AS VARCHAR[])))
GROUP BY trace_id HAVING count(DISTINCT interaction_id) = 1
"""


def settle(lake: Lake, workload: str, judgements: Sequence[Assessment]) -> list[Assessment]:
    """Aims each judgement at the call or the conversation its target turns out to be."""
    targets = _sorted(item.interaction_id for item in judgements)
    calls = _column(lake, _CALLS, workload, targets)
    others = [target for target in targets if target not in calls]
    episodes = _column(lake, _CONVERSATIONS, workload, others)
    asked = _sorted(item.conversation_id for item in judgements)
    found = lake.query(_TRACES, [workload, asked]).to_pylist() if asked else []
    single = {row["trace_id"]: row["interaction_id"] for row in found}
    return [_aimed(item, episodes, single) for item in judgements]


def _aimed(item: Assessment, episodes: set[str], single: dict[str, str]) -> Assessment:
    if item.interaction_id in episodes:
        update = {"interaction_id": None, "conversation_id": item.interaction_id}
        return item.model_copy(update=update)
    if item.interaction_id is None and item.conversation_id in single:
        update = {"interaction_id": single[item.conversation_id], "conversation_id": None}
        return item.model_copy(update=update)
    return item


def _sorted(ids: Iterable[str | None]) -> list[str]:
    return sorted({identity for identity in ids if identity})


def _column(lake: Lake, sql: str, workload: str, ids: list[str]) -> set[str]:
    if not ids:
        return set()
    return set(lake.query(sql, [workload, ids]).column(0).to_pylist())
