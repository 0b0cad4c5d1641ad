"""Adapters come and go while answers are being written, and only those that may be served."""

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI

from flywheel.adapters import CONFIG_FILE, WEIGHTS_FILE
from flywheel.testing import build_tiny_adapter
from tests.serve.engine.harness import BASE, Served, build_store, tiny_engine


@pytest.fixture
def lone(tiny_model: Path, tmp_path: Path) -> Iterator[Served]:
    """An engine of its own, whose store the test may spoil: two adapters, none loaded."""
    build_store(tmp_path / "adapters", tiny_model, (1, 2))
    with tiny_engine(tiny_model, tmp_path / "adapters") as served:
        yield served


def stored(served: Served) -> list[str]:
    return sorted(path.name for path in served.store.iterdir())


async def post(served: Served, verb: str, **body: object) -> tuple[int, str]:
    async with (
        ClientSession() as session,
        session.post(f"{served.url}/v1/{verb}", json=body) as reply,
    ):
        return reply.status, await reply.text()


async def load(
    served: Served, name: str, path: str | None = None, **more: object
) -> tuple[int, str]:
    return await post(served, "load_lora_adapter", lora_name=name, lora_path=path or name, **more)


async def unload(served: Served, name: str) -> tuple[int, str]:
    return await post(served, "unload_lora_adapter", lora_name=name)


async def ask(served: Served, model: str, *, max_tokens: int = 12) -> str:
    async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        reply = await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Hello"}],
            temperature=0,
            max_tokens=max_tokens,
        )
        return reply.choices[0].message.content or ""


async def models(served: Served) -> dict[str, dict[str, object]]:
    async with ClientSession() as session, session.get(f"{served.url}/v1/models") as reply:
        return {card["id"]: card for card in (await reply.json())["data"]}


async def in_use(served: Served) -> None:
    while not any(one.users for one in served.engine.adapters.registered):
        await asyncio.sleep(0.001)


def message(body: str) -> str:
    return str(json.loads(body)["error"]["message"])


async def test_an_adapter_is_loaded_listed_used_and_unloaded_as_in_vllm(lone: Served) -> None:
    name = stored(lone)[0]
    assert await load(lone, name) == (200, f"Success: LoRA adapter '{name}' added successfully.")
    card = (await models(lone))[name]
    assert (card["parent"], card["root"]) == (BASE, str(lone.store / name))
    assert await ask(lone, name) != await ask(lone, BASE)
    assert await unload(lone, name) == (
        200,
        f"Success: LoRA adapter '{name}' removed successfully.",
    )
    assert list(await models(lone)) == [BASE]


async def test_a_second_load_of_a_name_is_400_as_in_vllm(lone: Served) -> None:
    name = stored(lone)[0]
    await load(lone, name)
    status, body = await load(lone, name)
    error = json.loads(body)["error"]
    assert (status, error["type"], error["code"]) == (400, "InvalidUserInput", 400)
    assert error["message"] == f"The lora adapter '{name}' has already been loaded."


async def test_unloading_what_is_not_loaded_is_404_as_in_vllm(lone: Served) -> None:
    status, body = await unload(lone, "nobody")
    error = json.loads(body)["error"]
    assert (status, error["type"], error["code"]) == (404, "NotFoundError", 404)
    assert error["message"] == "The lora adapter 'nobody' cannot be found."


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("load_lora_adapter", {"lora_name": "a"}),
        ("load_lora_adapter", {"lora_path": "a"}),
        ("load_lora_adapter", {"lora_name": 3, "lora_path": "a"}),
        ("unload_lora_adapter", {}),
        ("load_lora_adapter", {"lora_name": "a", "lora_path": "b", "load_inplace": True}),
        ("load_lora_adapter", {"lora_name": "a b", "lora_path": "b"}),
        ("load_lora_adapter", {"lora_name": BASE, "lora_path": "b"}),
    ],
)
async def test_a_load_that_says_too_little_or_too_much_is_400(
    served: Served, verb: str, body: dict[str, object]
) -> None:
    status, text = await post(served, verb, **body)
    assert status == 400
    assert json.loads(text)["error"]["code"] == 400


async def test_a_folder_that_is_not_there_is_404(served: Served) -> None:
    status, body = await load(served, "new", "nothing-here")
    assert status == 404
    assert "No adapter found for nothing-here" in message(body)


@pytest.mark.parametrize("path", ["..", "../elsewhere", "/etc", ".", "a/../../elsewhere"])
async def test_a_path_out_of_the_store_is_refused(lone: Served, path: str) -> None:
    shutil.copytree(lone.store / stored(lone)[0], lone.store.parent / "elsewhere")
    status, body = await load(lone, "new", path)
    assert status == 400
    assert "only folders inside" in message(body)


@pytest.mark.parametrize("what", ["folder", "file"])
async def test_a_link_out_of_the_store_is_refused(lone: Served, what: str) -> None:
    outside = lone.store.parent / "outside"
    shutil.copytree(lone.store / stored(lone)[0], outside)
    link = lone.store / "linked"
    if what == "folder":
        link.symlink_to(outside)
    else:
        shutil.copytree(outside, link)
        (link / WEIGHTS_FILE).unlink()
        (link / WEIGHTS_FILE).symlink_to(outside / WEIGHTS_FILE)
    status, body = await load(lone, "new", "linked")
    assert status == 400
    assert "only folders inside" in message(body)


async def test_a_pickle_is_refused(lone: Served) -> None:
    name = stored(lone)[0]
    (lone.store / name / "adapter_model.bin").write_bytes(b"\x80\x04.")
    status, body = await load(lone, name)
    assert status == 400
    assert "only safetensors" in message(body)


async def test_a_truncated_adapter_is_refused(lone: Served) -> None:
    name = stored(lone)[0]
    weights = lone.store / name / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-100])
    status, body = await load(lone, name)
    assert status == 400
    assert "truncated" in message(body)


async def test_another_bases_adapter_is_refused(lone: Served, tiny_model: Path) -> None:
    build_tiny_adapter(lone.store / "foreign", tiny_model, base_model="somebody/else")
    status, body = await load(lone, "foreign")
    assert status == 400
    assert "somebody/else" in message(body)


@pytest.mark.parametrize("setting", ["use_dora", "alora_invocation_tokens", "lora_bias"])
async def test_an_adapter_that_is_more_than_plain_lora_is_refused(
    lone: Served, setting: str
) -> None:
    config = lone.store / stored(lone)[0] / CONFIG_FILE
    config.write_text(json.dumps(json.loads(config.read_text()) | {setting: [1]}))
    status, _ = await load(lone, "new", stored(lone)[0])
    assert status == 400


async def test_an_adapter_for_layers_the_base_lacks_is_refused(
    lone: Served, tmp_path: Path
) -> None:
    """Same base name, another shape: what a renamed or re-published base model would give."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        vocab_size=60,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
    adapted.peft_config["default"].base_model_name_or_path = BASE
    adapted.save_pretrained(lone.store / "wide", save_embedding_layers=False)
    status, body = await load(lone, "wide")
    assert status == 400
    assert "the base model" in message(body)


async def test_a_name_that_carries_a_sha_takes_only_those_weights(lone: Served) -> None:
    one, other = stored(lone)
    status, body = await load(lone, one, other)
    assert status == 400
    assert "a name is never given to other weights" in message(body)


async def test_a_name_keeps_its_weights_even_after_it_was_unloaded(lone: Served) -> None:
    one, other = stored(lone)
    assert (await load(lone, "mine", one))[0] == 200
    assert (await unload(lone, "mine"))[0] == 200
    status, body = await load(lone, "mine", other)
    assert status == 400
    assert "a name is never given to other weights" in message(body)
    assert (await load(lone, "mine", one))[0] == 200


async def test_an_unloaded_adapter_finishes_what_it_is_writing(lone: Served) -> None:
    name = stored(lone)[0]
    await load(lone, name)
    whole = await ask(lone, name, max_tokens=100)
    writing = asyncio.create_task(ask(lone, name, max_tokens=100))
    await in_use(lone)
    assert (await unload(lone, name))[0] == 200
    assert await writing == whole


async def test_an_unloaded_name_answers_no_more(lone: Served) -> None:
    name = stored(lone)[0]
    await load(lone, name)
    await unload(lone, name)
    status, body = await post(
        lone, "chat/completions", model=name, messages=[{"role": "user", "content": "a"}]
    )
    assert status == 404
    assert json.loads(body)["error"]["code"] == "model_not_found"


async def test_a_restarted_engine_finds_in_the_store_what_it_served_before(lone: Served) -> None:
    """Nothing was loaded, but the name carries the sha of a folder in the store."""
    name = stored(lone)[0]
    found = await ask(lone, name)
    assert found != await ask(lone, BASE)
    assert name in await models(lone)


async def test_the_adapter_unused_for_longest_leaves_memory_and_comes_back(
    tiny_model: Path, store: Path, names: list[str]
) -> None:
    with tiny_engine(tiny_model, store, max_adapters=2) as served:
        before = {}
        for name in names:
            assert (await load(served, name))[0] == 200
            before[name] = await ask(served, name)
        assert served.engine.adapters.resident == 2
        assert list(await models(served)) == [BASE, *names]
        assert {name: await ask(served, name) for name in names} == before
        assert served.engine.meter.adapter_evictions >= 2


async def test_pinned_adapters_are_never_let_go_and_a_load_beyond_them_is_503(
    tiny_model: Path, store: Path, names: list[str]
) -> None:
    with tiny_engine(tiny_model, store, max_adapters=2) as served:
        assert (await load(served, names[0], pinned=True))[0] == 200
        assert (await load(served, names[1], pinned=True))[0] == 200
        status, body = await load(served, names[2])
        assert status == 503
        assert "in use or pinned" in message(body)


async def test_an_adapter_in_use_is_not_let_go(
    tiny_model: Path, store: Path, names: list[str]
) -> None:
    with tiny_engine(tiny_model, store, max_adapters=1) as served:
        await load(served, names[0])
        writing = asyncio.create_task(ask(served, names[0], max_tokens=150))
        await in_use(served)
        status, _ = await load(served, names[1])
        assert status == 503
        await writing
        assert (await load(served, names[1]))[0] == 200


async def test_loads_do_not_pause_the_answers_of_others(
    tiny_model: Path, store: Path, names: list[str]
) -> None:
    """Tokens keep coming while an adapter is loaded and unloaded again and again.

    The longest time between two tokens is compared with the same without loads. The bound is
    generous, because other processes share the cores; a load that held the model's thread for its
    whole length each time would leave the answer no token meanwhile, so that is counted too.
    """
    with tiny_engine(tiny_model, store) as served:

        async def gaps(tokens: int) -> list[float]:
            client = AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none")
            stream = await client.chat.completions.create(
                model=BASE,
                messages=[{"role": "user", "content": "Hello"}],
                temperature=0,
                max_tokens=tokens,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            times = [time.monotonic() async for chunk in stream if chunk.choices]
            await client.close()
            return [after - before for before, after in zip(times, times[1:], strict=False)]

        writing = asyncio.create_task(gaps(400))
        progress = []
        for _ in range(12):
            before = served.engine.meter.completion_tokens
            assert (await load(served, names[0]))[0] == 200
            progress.append(served.engine.meter.completion_tokens - before)
            assert (await unload(served, names[0]))[0] == 200
            if writing.done():
                break
        assert not writing.done() or len(progress) > 3
        measured = await writing
        assert sum(tokens > 0 for tokens in progress) >= len(progress) // 2
        assert max(measured) < 1.0
