"""OpenAI's two endpoints, asked by OpenAI's own client."""

import math

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletion

from tests.serve.engine.conftest import Reference
from tests.serve.engine.harness import BASE


def chat(client: OpenAI, text: str = "Hello", **fields: object) -> ChatCompletion:
    """A greedy answer of 24 tokens, unless `fields` say otherwise."""
    wanted = {"model": BASE, "temperature": 0, "max_tokens": 24} | fields
    reply = client.chat.completions.create(
        messages=[{"role": "user", "content": text}],
        **wanted,  # type: ignore[call-overload]
    )
    assert isinstance(reply, ChatCompletion)
    return reply


def said(reply: ChatCompletion, choice: int = 0) -> str:
    return reply.choices[choice].message.content or ""


def test_usage_and_finish_reason_tell_what_happened(client: OpenAI) -> None:
    """The template makes <|im_start|>user, Hello<|im_end|>, <|im_start|>assistant, three lines.

    A token a byte and one for each special: 1 + 5 + 5 + 1 + 1 + 1 + 10 = 24.
    """
    reply = chat(client, max_tokens=7)
    assert reply.object == "chat.completion"
    assert reply.model == BASE
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (24, 7)
    assert reply.usage.total_tokens == 31


def test_max_completion_tokens_is_the_new_name_of_max_tokens(client: OpenAI) -> None:
    reply = chat(client, max_tokens=None, max_completion_tokens=3)
    assert reply.usage is not None and reply.usage.completion_tokens == 3


def test_a_stream_says_what_the_whole_answer_says(client: OpenAI) -> None:
    whole = said(chat(client, "naïve 東京"))
    stream = client.chat.completions.create(
        model=BASE,
        messages=[{"role": "user", "content": "naïve 東京"}],
        temperature=0,
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert not chunks[-1].choices
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 24
    assert len({c.id for c in chunks}) == 1


def test_a_stream_without_include_usage_has_none(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=BASE,
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=3,
        stream=True,
    )
    assert all(chunk.usage is None and chunk.choices for chunk in stream)


def test_a_stop_string_ends_the_answer_before_it(client: OpenAI) -> None:
    """A string from the middle of a known answer; it is longer than any token."""
    whole = said(chat(client, max_tokens=60))
    stop = whole[10:13]
    expected = whole[: whole.index(stop)]
    for form in (stop, ["never said", stop]):
        reply = chat(client, max_tokens=60, stop=form)
        assert said(reply) == expected
        assert reply.choices[0].finish_reason == "stop"


def test_a_stop_string_never_leaks_into_a_stream(client: OpenAI) -> None:
    whole = said(chat(client, max_tokens=60))
    stop = whole[10:13]
    stream = client.chat.completions.create(
        model=BASE,
        messages=[{"role": "user", "content": "Hello"}],
        temperature=0,
        max_tokens=60,
        stop=stop,
        stream=True,
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == whole[: whole.index(stop)]


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(client: OpenAI) -> None:
    def drawn(seed: int) -> str:
        return said(chat(client, temperature=1, seed=seed, max_tokens=30))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_several_choices_differ_and_the_seed_repeats_them_all(client: OpenAI) -> None:
    def drawn(choices: int) -> ChatCompletion:
        unending = {"ignore_eos": True}
        return chat(client, temperature=1, seed=4, n=choices, max_tokens=20, extra_body=unending)

    one, two = drawn(3), drawn(3)
    answers = [said(one, choice) for choice in range(3)]
    assert len(set(answers)) == 3
    assert answers == [said(two, choice) for choice in range(3)]
    assert [choice.index for choice in one.choices] == [0, 1, 2]
    assert one.usage is not None and one.usage.completion_tokens == 60
    assert answers[0] == said(drawn(1))


def test_several_choices_stream_side_by_side(client: OpenAI) -> None:
    whole = chat(client, temperature=1, seed=4, n=2, max_tokens=20)
    texts = {0: "", 1: ""}
    for chunk in client.chat.completions.create(
        model=BASE,
        messages=[{"role": "user", "content": "Hello"}],
        temperature=1,
        seed=4,
        n=2,
        max_tokens=20,
        stream=True,
    ):
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
    assert texts == {0: said(whole, 0), 1: said(whole, 1)}


def test_logprobs_of_a_chat_answer_spell_it_and_are_consistent(client: OpenAI) -> None:
    reply = chat(client, logprobs=True, top_logprobs=3, max_tokens=12)
    content = reply.choices[0].logprobs
    assert content is not None and content.content is not None
    assert len(content.content) == 12
    spelled = b"".join(bytes(one.bytes or []) for one in content.content)
    assert spelled.decode("utf-8", errors="replace") == said(reply)
    for one in content.content:
        assert len(one.top_logprobs) == 3
        # Greedy: the chosen token is the likeliest.
        assert math.isclose(one.logprob, one.top_logprobs[0].logprob, abs_tol=1e-6)
        values = [other.logprob for other in one.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert sum(map(math.exp, values)) <= 1 + 1e-6


def test_logprobs_of_a_stream_are_those_of_the_whole_answer(client: OpenAI) -> None:
    whole = chat(client, logprobs=True, max_tokens=12).choices[0].logprobs
    assert whole is not None and whole.content is not None
    streamed: list[float] = []
    for chunk in client.chat.completions.create(
        model=BASE,
        messages=[{"role": "user", "content": "Hello"}],
        temperature=0,
        max_tokens=12,
        logprobs=True,
        stream=True,
    ):
        logprobs = chunk.choices[0].logprobs
        streamed += [one.logprob for one in (logprobs.content if logprobs else None) or []]
    assert streamed == pytest.approx([one.logprob for one in whole.content], abs=1e-4)


def test_logprobs_stop_where_the_text_stops(client: OpenAI) -> None:
    whole = said(chat(client, max_tokens=60))
    reply = chat(client, max_tokens=60, stop=whole[10:13], logprobs=True)
    content = reply.choices[0].logprobs
    assert content is not None and content.content is not None
    spelled = b"".join(bytes(one.bytes or []) for one in content.content)
    assert spelled.decode("utf-8", errors="replace") == said(reply)


def test_text_completions_take_strings_and_tokens_one_or_many(client: OpenAI) -> None:
    """The tiny tokenizer's ids are 3 for "!" and on; "AB" is 35, 36."""

    def texts(prompt: object) -> list[str]:
        reply = client.completions.create(  # type: ignore[call-overload]
            model=BASE, prompt=prompt, temperature=0, max_tokens=8
        )
        assert [choice.index for choice in reply.choices] == list(range(len(reply.choices)))
        return [choice.text for choice in reply.choices]

    one = texts("AB")
    assert texts([35, 36]) == one
    assert texts(["AB", "AB"]) == one * 2
    assert texts([[35, 36], [36, 35]]) == [*one, *texts("BA")]


def test_text_completions_continue_for_16_tokens_by_default(client: OpenAI) -> None:
    reply = client.completions.create(
        model=BASE, prompt="AB", temperature=0, extra_body={"ignore_eos": True}
    )
    assert reply.usage is not None and reply.usage.completion_tokens == 16
    assert reply.object == "text_completion"


def test_logprobs_of_a_text_completion_have_offsets_into_it(client: OpenAI) -> None:
    reply = client.completions.create(
        model=BASE, prompt="AB", temperature=0, max_tokens=6, logprobs=2
    )
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None and len(logprobs.tokens) == 6
    assert logprobs.text_offset == [
        sum(map(len, logprobs.tokens[:index])) for index in range(len(logprobs.tokens))
    ]
    assert logprobs.top_logprobs is not None
    for token, logprob, top in zip(
        logprobs.tokens, logprobs.token_logprobs or [], logprobs.top_logprobs, strict=True
    ):
        assert top[token] == logprob


def test_text_completions_stream(client: OpenAI) -> None:
    whole = client.completions.create(model=BASE, prompt="AB", temperature=0, max_tokens=9)
    stream = client.completions.create(
        model=BASE, prompt="AB", temperature=0, max_tokens=9, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_content_parts_and_the_developer_role_are_understood(client: OpenAI) -> None:
    as_parts = client.chat.completions.create(
        model=BASE,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "He"}, {"type": "text", "text": "llo"}],
            },
        ],
        temperature=0,
        max_tokens=9,
    )
    plain = client.chat.completions.create(
        model=BASE,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
        ],
        temperature=0,
        max_tokens=9,
    )
    assert said(as_parts) == said(plain)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 65}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": -3}, "max_completion_tokens"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"seed": "x"}, "seed"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content",
        ),
        ({"temprature": 0.5}, "temprature"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"model": None}, "model"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(
    client: OpenAI, fields: dict[str, object], param: str
) -> None:
    body = {"model": BASE, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    with pytest.raises(BadRequestError) as refused:
        client.post("/chat/completions", body=body | fields, cast_to=object)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert param in refused.value.message


def test_every_mistake_is_named_at_once(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        chat(client, temperature=-1, n=0, top_p=9)
    assert all(name in refused.value.message for name in ("temperature", "n:", "top_p"))


def test_parameters_at_their_neutral_values_are_accepted(client: OpenAI) -> None:
    reply = chat(
        client,
        max_tokens=2,
        frequency_penalty=0,
        presence_penalty=0.0,
        tools=[],
        response_format={"type": "text"},
        user="u-1",
        top_p=None,
        stop=None,
    )
    assert reply.choices


def test_an_unknown_model_is_404_in_openais_shape(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as refused:
        chat(client, model="nobody")
    assert refused.value.code == "model_not_found"
    assert refused.value.param == "model"
    assert BASE in refused.value.message


@pytest.mark.parametrize("max_tokens", [4, None])
def test_a_prompt_longer_than_the_context_is_refused(
    client: OpenAI, max_tokens: int | None
) -> None:
    with pytest.raises(BadRequestError) as refused:
        chat(client, "a" * 2100, max_tokens=max_tokens)
    assert refused.value.code == "context_length_exceeded"
    assert "2048" in refused.value.message


def test_an_answer_that_would_not_fit_is_refused_before_it_begins(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        chat(client, max_tokens=2030)
    assert refused.value.code == "context_length_exceeded"


def test_token_ids_outside_the_vocabulary_are_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="token ids go up to 258"):
        client.completions.create(model=BASE, prompt=[5, 100_000])


def test_an_empty_prompt_is_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="empty"):
        client.completions.create(model=BASE, prompt="")


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b'"x"', b"\xff"])
async def test_a_body_that_is_no_json_object_is_400(async_client: AsyncOpenAI, body: bytes) -> None:
    with pytest.raises(BadRequestError) as refused:
        await async_client.post("/chat/completions", content=body, cast_to=object)
    assert refused.value.code == "invalid_json"


def test_the_last_token_of_the_context_can_be_used(client: OpenAI, reference: Reference) -> None:
    """A prompt and an answer that fill the context exactly: 2048 = 19 + 2020 + 9."""
    reply = chat(client, "a" * 2020, max_tokens=9)
    assert reply.usage is not None and reply.usage.total_tokens == 2048
    assert said(reply) == reference(BASE, "a" * 2020, 9)
