"""What is known of a response becomes one label, with strength, agreement and provenance. Pure.

Input: assessments, and the qualifications of judges. Output: what the lake's view `verdicts` shows,
and so `labels` and `pairs`: a property test holds the two together. For code that has judgements
and no lake: a reward, a preview, a test.
"""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from flywheel.records import Assessment, Message, Qualification, Record, UtcDatetime

LabelSource = Literal["adjudicated", "expert", "judge", "end_user", "code"]

TIERS: tuple[LabelSource, ...] = ("adjudicated", "expert", "judge", "end_user", "code")
"""Strongest first: the strongest one present decides alone, however many weaker ones there are."""
WEIGHTS = (1.0, 0.9, 0.45, 0.3, 0.15)
"""A unanimous tier's strength; half the experts' is still no less than a unanimous judge's."""
_OF_SOURCE = {"human": 1, "llm_judge": 2, "end_user": 3, "code": 4}


class Resolved(Record):
    """The label of one question: a name asked of one response, or of a pair."""

    workload: str
    item: str
    """interaction_id; of a pair its two ids in order, with a space between."""
    is_pair: bool
    name: str
    label_source: LabelSource
    """The strongest tier anybody of which answered."""
    spoken: Assessment | None
    """The latest judgement of the majority; None where there is none, and then it is no label."""
    raters: int
    """Of that tier, who answered."""
    agreement: float
    """Share of them behind the most frequent answer."""
    strength: float
    """Agreement times the tier's weight; 0 without a majority."""
    first_at: UtcDatetime
    last_at: UtcDatetime


def resolve(
    judgements: Iterable[Assessment],
    qualifications: Sequence[Qualification] = (),
    valid_runs: Collection[str] = (),
) -> list[Resolved]:
    """One label for each question judged, in order of workload, item and name.

    Args:
        judgements: All there are: one that is withdrawn is known by the one that supersedes it.
        qualifications: Of judges. A language model's judgement counts only if one of exactly that
            judge stood when it was made (`is_qualified`); without any, none does.
        valid_runs: judge_run_ids of the runs that are valid; rows of other runs do not count.
    """
    known = list(judgements)
    withdrawn = {
        (one.workload, one.supersedes)
        for one in known
        if one.supersedes is not None
        and one.supersedes != one.assessment_id
        and one.status != "error"
    }
    questions: dict[tuple[str, str, str], list[Assessment]] = defaultdict(list)
    for one in sorted(known, key=_moment):
        item = item_of(one)
        is_out = (one.workload, one.assessment_id) in withdrawn or answer_of(one) is None
        is_out |= one.judge_run_id is not None and one.judge_run_id not in valid_runs
        if is_out or item is None or not is_qualified(one, qualifications):
            continue
        questions[one.workload, item, one.name].append(one)
    return [
        _resolved(question, _latest_by_rater(said))
        for question, said in sorted(questions.items(), key=lambda pair: pair[0])
    ]


def is_qualified(judgement: Assessment, qualifications: Sequence[Qualification]) -> bool:
    """Whether a judgement counts: any but a language model's, and that of one that was qualified.

    The latest qualification of the same workload and judge (by its hash) when the judgement was
    made must say so, and must not have expired by then.
    """
    if judgement.source_type != "llm_judge":
        return True
    standing = max(
        (
            one
            for one in qualifications
            if one.workload == judgement.workload
            and one.judge_hash == judgement.judge_prompt_hash
            and one.created_at <= judgement.created_at
        ),
        key=lambda one: (one.created_at, one.qualification_id),
        default=None,
    )
    return (
        standing is not None and standing.qualified and judgement.created_at < standing.expires_at
    )


def tier_of(judgement: Assessment) -> int:
    """Position in TIERS. Only a human adjudicates: no judge reaches the top by naming its round."""
    if judgement.source_type == "human" and judgement.round == "adjudication":
        return 0
    return _OF_SOURCE[judgement.source_type]


def judge_of(judgement: Assessment) -> str | None:
    """Which judge a language model's judgement is by, whatever its version; None of any other.

    `judge:<judge>/` of `judge:<judge>/<model>`; a source named otherwise is a judge by itself.
    """
    if judgement.source_type != "llm_judge":
        return None
    source = judgement.source_id or ""
    named = re.match(r"judge:[^/]+/", source)
    return named.group() if named else source


def item_of(judgement: Assessment) -> str | None:
    """What is judged: an interaction or a pair, whichever way round; None of a conversation."""
    if judgement.interaction_id is not None:
        return judgement.interaction_id
    return " ".join(sorted(judgement.pair_ids)) if judgement.pair_ids else None


def answer_of(judgement: Assessment) -> str | None:
    """What two raters must share to agree; None of a judgement that says nothing."""
    if judgement.status != "submitted":
        return None
    label = judgement.label
    if judgement.interaction_id is None and judgement.pair_ids and label is not None:
        preferred = dict(zip("AB", judgement.pair_ids, strict=True)).get(label.upper())
        if preferred is not None:
            return f"prefers {preferred}"
    if judgement.correction is not None:
        return f"correction {_said(judgement.correction)}"
    if label is not None:
        return f"label {label}"
    return None if judgement.value is None else f"value {judgement.value!r}"


def _said(correction: Message) -> str:
    """The text without outer space, JSON without any, and the calls."""
    content = correction.content
    text = content if isinstance(content, str) else "" if content is None else _compact(content)
    try:
        text = _compact(json.loads(text))
    except (ValueError, RecursionError):
        text = text.strip(" \t\r\n")
    calls = correction.tool_calls
    return text + (" " + _compact(calls) if calls else "")


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _moment(judgement: Assessment) -> tuple[object, str]:
    return judgement.created_at, judgement.assessment_id


def _latest_by_rater(said: Sequence[Assessment]) -> dict[tuple[int, str], Assessment]:
    """Of one question's judgements, earliest first: the latest of each rater, one version a judge.

    Two versions of a judge are not two raters: the one that answered last speaks for it.
    """
    version = {judge_of(one): one.judge_prompt_hash for one in said}
    return {
        (tier_of(one), one.source_id or ""): one
        for one in said
        if one.source_type != "llm_judge" or one.judge_prompt_hash == version[judge_of(one)]
    }


def _resolved(
    question: tuple[str, str, str], by_rater: dict[tuple[int, str], Assessment]
) -> Resolved:
    tier = min(tier for tier, _ in by_rater)
    said = [one for (of_tier, _), one in by_rater.items() if of_tier == tier]
    votes: dict[str | None, list[Assessment]] = defaultdict(list)
    for one in said:
        votes[answer_of(one)].append(one)
    most = max(votes.values(), key=len)
    agreement = len(most) / len(said)
    workload, item, name = question
    return Resolved(
        workload=workload,
        item=item,
        is_pair=all(one.interaction_id is None for one in said),
        name=name,
        label_source=TIERS[tier],
        spoken=max(most, key=_moment) if agreement > 0.5 else None,
        raters=len(said),
        agreement=agreement,
        strength=agreement * WEIGHTS[tier] if agreement > 0.5 else 0.0,
        first_at=min(one.created_at for one in said),
        last_at=max(one.created_at for one in said),
    )
