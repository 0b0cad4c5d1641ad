"""What a judge is asked about: the answers, or pairs of answers, it has not judged yet.

Input: the lake and a `Selection`. Output: `JudgeTask`s with the probability of having been drawn.
The order is drawn too, by hash, so that any first part of a run is a random part of the whole.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import NamedTuple
from zlib import crc32

from pydantic import Field

from flywheel.graders.judge import Judge, JudgeTask
from flywheel.lake import Lake
from flywheel.records import Interaction, Message, Record, Share
from flywheel.workload import Workload

PAGE = 500
"""Tasks whose messages are read at a time."""
_INTERACTIONS = """
SELECT * FROM interactions
WHERE workload = $1 AND list_contains($2::VARCHAR[], interaction_id)
"""


class Selection(Record):
    """Which answers a run judges."""

    sample: Share = 1.0
    """Share of all, by hash: a larger share holds every smaller one of the same seed."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many that are not judged yet."""
    seed: int = 11
    shard: int = 0
    shards: int = Field(default=1, ge=1)
    """This part of so many, each of which can run in a process of its own."""


class Draw(Record):
    """What was selected."""

    task_ids: tuple[str, ...]
    """Not judged yet, in the order of the draw."""
    eligible: int
    """All answers, or pairs, there are; of all shards."""
    judged: int
    """Of the sample, those judged already."""
    inclusion_prob: Share
    """With which each of `eligible` came into this draw."""


def draw_tasks(lake: Lake, workload: Workload, judge: Judge, selection: Selection) -> Draw:
    """Draws what is to be judged."""
    name = "unjudged_pairs.sql" if judge.section.mode == "pairwise" else "unjudged_answers.sql"
    rows = lake.query(
        _sql(name),
        [workload.name, str(selection.seed), judge.name, judge.identity, len(judge.section.panel)],
    )
    ids, draws = rows.column("task_id").to_pylist(), rows.column("draw").to_pylist()
    judged = rows.column("is_judged").to_pylist()
    drawn = [at for at, draw in enumerate(draws) if draw < selection.sample]
    missing = [ids[at] for at in drawn if not judged[at]]
    taken = missing if selection.limit is None else missing[: selection.limit]
    # With a limit the first so many of the order are drawn, those judged earlier among them.
    known = len(drawn) - len(missing)
    share = selection.sample
    if len(taken) < len(missing):
        share = (known + len(taken)) / len(ids)
    if selection.shards > 1:
        # By name and not by place: other shards judge meanwhile, and places move up.
        taken = [one for one in taken if crc32(one.encode()) % selection.shards == selection.shard]
    return Draw(
        task_ids=tuple(taken),
        eligible=len(ids),
        judged=known,
        inclusion_prob=share,
    )


def load_tasks(lake: Lake, workload: Workload, judge: Judge, draw: Draw) -> Iterator[JudgeTask]:
    """The tasks of a draw. A page is read in a thread while the one before is judged."""
    ids = draw.task_ids
    pages = [ids[start : start + PAGE] for start in range(0, len(ids), PAGE)]
    with ThreadPoolExecutor(1) as pool:
        upcoming = deque(pool.submit(_read, lake, workload, judge, page) for page in pages[:1])
        for number, page in enumerate(pages):
            rows = upcoming.popleft().result()
            if number + 1 < len(pages):
                upcoming.append(pool.submit(_read, lake, workload, judge, pages[number + 1]))
            for task_id in page:
                found = [rows[one] for one in task_id.split(" ") if one in rows]
                if len(found) == len(task_id.split(" ")):  # else it was erased meanwhile
                    yield _task(workload, judge, task_id, found, draw)


class _Row(NamedTuple):
    interaction: Interaction
    expert_answer: Message | None


def _read(lake: Lake, workload: Workload, judge: Judge, task_ids: Sequence[str]) -> dict[str, _Row]:
    ids = sorted({one for task_id in task_ids for one in task_id.split(" ")})
    interactions = lake.fetch(Interaction, _INTERACTIONS, [workload.name, ids])
    answers: dict[str, Message] = {}
    if "reference" in judge.rubric.variables:
        params = [workload.name, ids, workload.labels.name]
        answers = {
            row["interaction_id"]: Message.model_validate_json(row["expert_answer"])
            for row in lake.query(_sql("expert_answers.sql"), params).to_pylist()
        }
    return {one.interaction_id: _Row(one, answers.get(one.interaction_id)) for one in interactions}


def _task(
    workload: Workload, judge: Judge, task_id: str, rows: Sequence[_Row], draw: Draw
) -> JudgeTask:
    first = rows[0].interaction
    references = [row.expert_answer for row in rows if row.expert_answer is not None]
    ids = [row.interaction.interaction_id for row in rows]
    subjects = {row.interaction.subject_key for row in rows}
    return JudgeTask(
        task_id=task_id,
        workload=workload.name,
        messages=first.messages,
        responses=tuple(
            row.interaction.response for row in rows if row.interaction.response is not None
        ),
        reference=references[0] if references else None,
        interaction_id=first.interaction_id if len(rows) == 1 else None,
        pair_ids=(ids[0], ids[1]) if len(rows) > 1 else None,
        variables={
            name: str(first.tags[name])
            for name in judge.rubric.variables
            if isinstance(first.tags.get(name), str | int | float)
        },
        inclusion_prob=draw.inclusion_prob,
        subject_key=first.subject_key if len(subjects) == 1 else None,
    )


def _sql(name: str) -> str:
    return (files("flywheel.label.judging") / name).read_text(encoding="utf-8")
