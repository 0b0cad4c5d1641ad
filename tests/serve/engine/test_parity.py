"""The engine answers, token by token, what plain transformers and PEFT answer."""

import asyncio

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.serve.engine.conftest import Reference
from tests.serve.engine.harness import BASE

LONG = "My knee has hurt since Tuesday. " * 12
"""Several times the prompt tokens of a step."""


def ask(client: OpenAI, model: str, text: str, *, max_tokens: int = 40) -> str:
    reply = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": text}],
        temperature=0,
        max_tokens=max_tokens,
    )
    return reply.choices[0].message.content or ""


@pytest.mark.parametrize("text", ["Hello", "naïve café, 東京 🙂", LONG])
def test_base_answers_as_transformers_does(client: OpenAI, reference: Reference, text: str) -> None:
    assert ask(client, BASE, text) == reference(BASE, text, 40)


@pytest.mark.parametrize("which", [0, 1])
def test_an_adapter_answers_as_peft_does(
    client: OpenAI, reference: Reference, names: list[str], which: int
) -> None:
    answer = ask(client, names[which], "How urgent is this?")
    assert answer == reference(names[which], "How urgent is this?", 40)
    assert answer != ask(client, BASE, "How urgent is this?")


async def test_a_mixed_batch_answers_as_each_model_alone(
    async_client: AsyncOpenAI, reference: Reference, names: list[str]
) -> None:
    """Twelve requests for six slots: adapters and base, short and long, all at once."""
    asked = [
        (model, text)
        for model in (BASE, names[0], names[1])
        for text in ("A", "My head hurts. Is it bad?", LONG, "the cat, the cat, the cat, the cat")
    ]

    async def answer(model: str, text: str) -> str:
        reply = await async_client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": text}],
            temperature=0,
            max_tokens=30,
        )
        return reply.choices[0].message.content or ""

    answers = await asyncio.gather(*(answer(model, text) for model, text in asked))
    assert answers == [reference(model, text, 30) for model, text in asked]


def test_a_prompt_that_begins_like_an_earlier_one_is_not_computed_again(
    client: OpenAI, reference: Reference
) -> None:
    """The answer is the same, and the usage says how much was found."""
    first = f"{LONG} First question?"
    second = f"{LONG} Another question, rather longer?"
    ask(client, BASE, first)
    reply = client.chat.completions.create(
        model=BASE, messages=[{"role": "user", "content": second}], temperature=0, max_tokens=40
    )
    assert reply.usage is not None and reply.usage.prompt_tokens_details is not None
    assert (reply.usage.prompt_tokens_details.cached_tokens or 0) >= len(LONG)
    assert reply.choices[0].message.content == reference(BASE, second, 40)


def test_one_adapters_cached_prompt_never_serves_another(
    client: OpenAI, reference: Reference, names: list[str]
) -> None:
    text = f"{LONG} Which of you am I asking?"
    for model in (names[0], BASE, names[1], names[0]):
        assert ask(client, model, text) == reference(model, text, 40)
