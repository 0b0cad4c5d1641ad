"""Evaluation: what is asked, in which order, and what happens to answers that do not come."""

import asyncio
from collections.abc import Sequence

import pytest

from flywheel.chat import Completion
from flywheel.errors import BadRequestError, GateError, UnknownModelError, UpstreamUnavailableError
from flywheel.gate.evaluate import Contestant, EvalPair, Exam, evaluate, evaluate_pair
from flywheel.gate.suite import Suite
from flywheel.graders import Grader, build_graders
from flywheel.records import EvalReport, Message
from flywheel.testing import ScriptedChatModel
from flywheel.workload import SamplingSection
from tests.gate.conftest import make_suite

GRADERS: dict[str, Grader] = build_graders(
    {
        "correct": {
            "type": "string_check",
            "operation": "eq",
            "input": "{{sample.output_text}}",
            "reference": "{{item.reference.urgency}}",
        }
    }
)
NEW = Contestant("new", "candidate", "evaluation-new")
OLD = Contestant("old", "champion", "evaluation-old")
RIGHT = ("emergency", "urgent", "routine")


def right(model: str, messages: Sequence[Message]) -> str:
    """The truth, from the number in `complaint 7`."""
    return RIGHT[int(messages[-1].text.split()[-1]) % 3]


def number_of(messages: Sequence[Message]) -> int:
    return int(messages[-1].text.split()[-1])


async def alone(chat: ScriptedChatModel, suite: Suite, concurrency: int = 4) -> EvalReport:
    return await evaluate(
        chat,
        suite,
        GRADERS,
        workload="triage",
        model="new",
        role="candidate",
        sampling=SamplingSection(concurrency=concurrency),
    )


async def both(
    chat: ScriptedChatModel, suite: Suite, *, concurrency: int = 4, max_error_share: float = 0.1
) -> EvalPair:
    exam = Exam("triage", suite, GRADERS, SamplingSection(concurrency=concurrency), max_error_share)
    return await evaluate_pair(chat, exam, candidate=NEW, champion=OLD)


async def test_every_item_is_asked_once_and_scored() -> None:
    suite = make_suite(7, cluster_size=2)
    chat = ScriptedChatModel(lambda model, messages: "urgent")
    report = await alone(chat, suite)
    assert [item.item_id for item in report.items] == [item.item_id for item in suite.items]
    assert [item.scores["correct"] for item in report.items] == [0, 1, 0, 0, 1, 0, 0]
    assert len(chat.calls) == 7
    first = report.items[0]
    assert (first.output, first.error_type, first.cluster_id) == ("urgent", None, "c000")
    assert (first.model, first.role, first.suite_hash) == ("new", "candidate", suite.suite_hash)
    assert first.duration_ms is not None and first.duration_ms >= 0


async def test_candidate_and_champion_are_asked_item_by_item() -> None:
    """In one queue, side by side: what disturbs the server disturbs both."""
    chat = ScriptedChatModel(right)
    pair = await both(chat, make_suite(5), concurrency=1)
    asked = [(model, number_of(messages)) for model, messages in chat.calls]
    assert asked == [(model, n) for n in range(5) for model in ("new", "old")]
    assert {item.model for item in pair.candidate.items} == {"new"}
    assert {item.evaluation_id for item in pair.champion.items} == {"evaluation-old"}


class _Slow:
    """Answers after a moment, and counts how many wait at once."""

    def __init__(self) -> None:
        self.waiting = self.most = 0

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        model: str,
        temperature: float = 0.0,
        max_tokens: int = 64,
        seed: int | None = None,
    ) -> Completion:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await asyncio.sleep(0.002)
        self.waiting -= 1
        return Completion(text="urgent", model=model, finish_reason="stop")


async def test_no_more_answers_are_asked_for_at_once_than_declared() -> None:
    chat = _Slow()
    sampling = SamplingSection(concurrency=3)
    exam = Exam("triage", make_suite(12), GRADERS, sampling)
    await evaluate_pair(chat, exam, candidate=NEW, champion=OLD)
    assert chat.most == 3


async def test_progress_is_told_up_to_the_last_answer() -> None:
    seen: list[tuple[int, int]] = []
    exam = Exam("triage", make_suite(4), GRADERS, SamplingSection())
    await evaluate_pair(
        ScriptedChatModel(right),
        exam,
        candidate=NEW,
        champion=OLD,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (8, 8)
    assert [done for done, _ in seen] == list(range(1, 9))


async def test_an_answer_that_does_not_come_is_missing_and_not_wrong() -> None:
    def answer(model: str, messages: Sequence[Message]) -> str:
        if model == "new" and number_of(messages) == 3:
            raise BadRequestError("longer than the context")
        return right(model, messages)

    pair = await both(ScriptedChatModel(answer), make_suite(20))
    lost = pair.candidate.items[3]
    assert (lost.output, lost.scores, lost.error_type) == (
        None,
        {"correct": None},
        "BadRequestError",
    )
    assert sum(item.error_type is None for item in pair.candidate.items) == 19
    assert all(item.scores["correct"] == 1 for item in pair.champion.items)


async def test_a_server_that_is_down_is_found_out_early() -> None:
    """2 of 20 may fail; the third ends it, and the other 34 answers are not waited for."""
    calls = 0

    def answer(model: str, messages: Sequence[Message]) -> str:
        nonlocal calls
        calls += 1
        raise UpstreamUnavailableError("http://engine", "connection refused", status=503)

    with pytest.raises(UpstreamUnavailableError, match="connection refused") as caught:
        await both(ScriptedChatModel(answer), make_suite(20), concurrency=2)
    assert caught.value.status == 503
    assert calls <= 7


async def test_items_that_are_refused_beyond_the_share_are_somebodys_to_fix() -> None:
    def answer(model: str, messages: Sequence[Message]) -> str:
        if model == "old":
            raise BadRequestError("no system role, please")
        return right(model, messages)

    with pytest.raises(
        GateError, match=r"old: 1 of 5 items were refused.*no system role"
    ) as caught:
        await both(ScriptedChatModel(answer), make_suite(5))
    assert "max_error_share 0.1" in str(caught.value)


async def test_a_model_nobody_serves_is_told_at_once() -> None:
    def answer(model: str, messages: Sequence[Message]) -> str:
        raise UnknownModelError(model)

    with pytest.raises(GateError, match="does not serve 'new'"):
        await both(ScriptedChatModel(answer), make_suite(20), concurrency=1)


async def test_another_model_answering_is_no_evaluation() -> None:
    """A router that falls back to the champion would let every candidate look as good as it."""

    class Router(ScriptedChatModel):
        async def complete(
            self,
            messages: Sequence[Message],
            *,
            model: str,
            temperature: float = 0.0,
            max_tokens: int = 64,
            seed: int | None = None,
        ) -> Completion:
            return Completion(text="urgent", model="old", finish_reason="stop")

    with pytest.raises(GateError, match="'new' was asked and 'old' answered"):
        await both(Router(right), make_suite(5))


async def test_a_grader_that_fails_leaves_its_reason() -> None:
    """The reference it compares with is not there: that says nothing about the model."""
    suite = Suite.of(
        "s", [item.model_copy(update={"reference": {}}) for item in make_suite(2).items]
    )
    report = await alone(ScriptedChatModel(lambda model, messages: "urgent"), suite)
    assert report.items[0].scores == {"correct": None}
    assert report.items[0].output == "urgent"
    assert (report.items[0].error_type or "").startswith("correct: ")


async def test_a_bug_in_the_model_is_not_taken_for_a_missing_answer() -> None:
    def answer(model: str, messages: Sequence[Message]) -> str:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        await alone(ScriptedChatModel(answer), make_suite(3))
    assert caught.group_contains(ZeroDivisionError)
