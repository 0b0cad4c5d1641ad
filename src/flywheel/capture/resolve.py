"""Which workload a judgement belongs to, where it does not say.

Input: spooled feedback, the lake with its calls already committed. Output: a workload for
each.
"""

from collections.abc import Iterable, Sequence

from flywheel.lake import Lake
from flywheel.records import Feedback

_COMMITTED = """
SELECT assessment_id AS id, any_value(workload) AS workload
FROM assessments WHERE assessment_id IN (SELECT unnest(CAST(? AS VARCHAR[]))) GROUP BY 1
"""
_JUDGED_CALL = """
SELECT interaction_id AS id, any_value(workload) AS workload
FROM interactions WHERE interaction_id IN (SELECT unnest(CAST(? AS VARCHAR[]))) GROUP BY 1
"""
_CONVERSATION = """
SELECT interaction_id AS id, any_value(conversation_id) AS conversation_id
FROM interactions WHERE interaction_id IN (SELECT unnest(CAST(? AS VARCHAR[]))) GROUP BY 1
"""
_JUDGED_CONVERSATION = """
SELECT conversation_id AS id, any_value(workload ORDER BY started_at) AS workload
FROM interactions WHERE conversation_id IN (SELECT unnest(CAST(? AS VARCHAR[]))) GROUP BY 1
"""


def resolve_workloads(
    lake: Lake, feedback: Sequence[tuple[Feedback, str | None]]
) -> list[str | None]:
    """The workload of each judgement: its own, else its call's, else the gateway's default.

    One that is in the lake already keeps the workload it was committed with, so that a drain
    repeated after a kill finds the duplicate.

    Args:
        lake: where the judged calls are.
        feedback: each with the default of the gateway that received it.

    Returns:
        In the same order; None where nobody can say.
    """
    silent = [item for item, _ in feedback if item.workload is None]
    committed = _look_up(lake, _COMMITTED, (item.assessment_id for item in silent))
    calls = _look_up(lake, _JUDGED_CALL, (item.interaction_id for item in silent))
    conversations = _look_up(lake, _JUDGED_CONVERSATION, (i.conversation_id for i in silent))
    return [
        item.workload
        or committed.get(item.assessment_id or "")
        or calls.get(item.interaction_id or "")
        or conversations.get(item.conversation_id or "")
        or default
        for item, default in feedback
    ]


def conversations_of(lake: Lake, interaction_ids: Iterable[str | None]) -> dict[str, str]:
    """The conversation of each call that is in the lake."""
    return _look_up(lake, _CONVERSATION, interaction_ids, value="conversation_id")


def _look_up(
    lake: Lake, sql: str, ids: Iterable[str | None], *, value: str = "workload"
) -> dict[str, str]:
    wanted = sorted({identity for identity in ids if identity})
    if not wanted:
        return {}
    rows = lake.query(sql, [wanted]).to_pylist()
    return {row["id"]: row[value] for row in rows}
