"""One call through the real openai client to a real endpoint on loopback."""

import json

import pytest

from flywheel.chat import OpenAIChatModel
from flywheel.errors import UpstreamUnavailableError
from flywheel.graders.judge import ask, plan_calls, read_verdict
from flywheel.records import JsonObject
from tests.graders.judge.conftest import Endpoint, grades, make_judge, make_task


async def test_a_verdict_comes_back_with_what_it_cost(
    endpoint: Endpoint, model: OpenAIChatModel
) -> None:
    judge = make_judge()
    (call,) = plan_calls(judge, make_task())
    reply = await ask(judge, call, model)
    assert reply.text == grades(score="7")
    assert (reply.key, reply.attempts, reply.repaired) == (call.key, 1, False)
    assert (reply.input_tokens, reply.output_tokens, reply.cached_input_tokens) == (10, 5, 3)
    assert read_verdict(judge, call, reply.text).value == 7
    (sent,) = endpoint.requests
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("j", 0.0, 1024)
    form = sent["response_format"]
    assert isinstance(form, dict)
    assert form["type"] == "json_schema"
    assert form["json_schema"] == {
        "name": "verdict",
        "strict": True,
        "schema": call.response_schema,
    }


async def test_garbage_is_repaired_once(endpoint: Endpoint, model: OpenAIChatModel) -> None:
    endpoint.script = lambda body: "I'd say 7!" if _turns(body) == 2 else grades(score="7")
    judge = make_judge()
    (call,) = plan_calls(judge, make_task())
    reply = await ask(judge, call, model)
    assert reply.text == grades(score="7")
    assert (reply.key, reply.attempts, reply.repaired) == (call.key, 2, True)
    assert (reply.input_tokens, reply.output_tokens) == (20, 10)
    repair = endpoint.requests[1]["messages"]
    assert isinstance(repair, list)
    roles = [message["role"] for message in repair if isinstance(message, dict)]
    assert roles == ["system", "user", "assistant", "user"]
    assert "not one JSON object" in json.dumps(repair[-1])


async def test_garbage_twice_is_an_error_and_no_number(
    endpoint: Endpoint, model: OpenAIChatModel
) -> None:
    endpoint.script = lambda body: "I'd say 7!"
    judge = make_judge()
    (call,) = plan_calls(judge, make_task())
    reply = await ask(judge, call, model)
    assert (reply.text, reply.error_type, reply.attempts) == (None, "judge_garbage", 2)
    assert (reply.input_tokens, reply.output_tokens) == (20, 10), "it was paid for all the same"
    assert len(endpoint.requests) == 2


async def test_a_grade_that_is_not_offered_is_named_in_the_repair_without_quoting_it(
    endpoint: Endpoint, model: OpenAIChatModel
) -> None:
    endpoint.script = lambda body: grades(score="11") if _turns(body) == 2 else grades(score=10)
    judge = make_judge()
    (call,) = plan_calls(judge, make_task())
    reply = await ask(judge, call, model)
    assert reply.text is not None
    assert read_verdict(judge, call, reply.text).value == 10
    repair = endpoint.requests[1]["messages"]
    assert isinstance(repair, list)
    last = repair[-1]
    assert isinstance(last, dict)
    assert "none of those offered: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10" in str(last["content"])
    assert "11" not in str(last["content"])


async def test_a_refusal_is_an_error_and_is_not_asked_again(
    endpoint: Endpoint, model: OpenAIChatModel
) -> None:
    endpoint.script = lambda body: {
        "message": {"role": "assistant", "content": None, "refusal": "I can't help with that."}
    }
    judge = make_judge()
    (call,) = plan_calls(judge, make_task())
    reply = await ask(judge, call, model)
    assert (reply.text, reply.error_type) == (None, "judge_refused")
    assert reply.error_message == "I can't help with that."
    assert len(endpoint.requests) == 1


async def test_an_answer_cut_off_is_asked_again_more_briefly(
    endpoint: Endpoint, model: OpenAIChatModel
) -> None:
    cut: JsonObject = {
        "message": {"role": "assistant", "content": '{"reasoning": "Well, first'},
        "finish_reason": "length",
    }
    endpoint.script = lambda body: cut if _turns(body) == 2 else grades(score="7")
    judge = make_judge(max_tokens=16)
    (call,) = plan_calls(judge, make_task())
    assert (await ask(judge, call, model)).repaired
    assert "cut off at 16 tokens" in json.dumps(endpoint.requests[1]["messages"])


async def test_a_request_the_endpoint_does_not_take_is_an_error_of_that_item(
    endpoint: Endpoint, model: OpenAIChatModel
) -> None:
    endpoint.script = lambda body: 400
    judge = make_judge()
    (call,) = plan_calls(judge, make_task())
    reply = await ask(judge, call, model)
    assert (reply.text, reply.error_type) == (None, "judge_refused")


async def test_what_waiting_may_cure_is_raised_with_what_the_endpoint_says_of_its_limits(
    endpoint: Endpoint, model: OpenAIChatModel
) -> None:
    endpoint.script = lambda body: 429
    judge = make_judge()
    (call,) = plan_calls(judge, make_task())
    with pytest.raises(UpstreamUnavailableError) as caught:
        await ask(judge, call, model)
    assert (caught.value.status, caught.value.retry_after_s) == (429, 3.0)
    assert caught.value.headers == {"retry-after": "3", "x-ratelimit-remaining-requests": "0"}
    assert len(endpoint.requests) == 1, "the client does not pace itself; its caller does"


async def test_rate_limit_headers_of_an_answer_reach_the_caller(
    endpoint: Endpoint, model: OpenAIChatModel
) -> None:
    answer = await model.complete_structured(
        make_task().messages,
        model="j",
        schema={"type": "object"},
        temperature=0,
        max_tokens=9,
        timeout_s=5,
    )
    assert answer.headers == {"x-ratelimit-remaining-requests": "41"}


def _turns(body: JsonObject) -> int:
    messages = body["messages"]
    assert isinstance(messages, list)
    return len(messages)
