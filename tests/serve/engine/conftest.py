"""One engine with three adapters in its store, two of them loaded, for the whole session."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.serve.engine.harness import Served, build_store, tiny_engine

Reference = Callable[[str, str, int], str]


@pytest.fixture(scope="session")
def store(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three adapters, each under the name that carries its sha."""
    store = tmp_path_factory.mktemp("engine") / "adapters"
    build_store(store, tiny_model, (1, 2, 3))
    return store


@pytest.fixture(scope="session")
def names(store: Path) -> list[str]:
    """Served names of the adapters in the store; the first two are loaded."""
    return sorted(path.name for path in store.iterdir())


@pytest.fixture(scope="session")
def served(tiny_model: Path, store: Path, names: list[str]) -> Iterator[Served]:
    with tiny_engine(tiny_model, store) as served:
        with OpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
            for name in names[:2]:
                body = {"lora_name": name, "lora_path": name}
                client.post("/load_lora_adapter", body=body, cast_to=str)
        yield served


@pytest.fixture(scope="session")
def client(served: Served) -> Iterator[OpenAI]:
    """A real client that shows errors instead of trying again."""
    with OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(served: Served) -> AsyncIterator[AsyncOpenAI]:
    """The same, for many requests at once."""
    async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def reference(tiny_model: Path, store: Path) -> Reference:
    """What plain transformers and PEFT answer greedily: (model name, user text, tokens) to text."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    def answer(name: str, text: str, max_new_tokens: int) -> str:
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        if (store / name).is_dir():
            model = PeftModel.from_pretrained(model, store / name)
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            output = model.eval().generate(
                **inputs, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=0
            )
        new = output[0][inputs.input_ids.shape[1] :]
        return str(tokenizer.decode(new, skip_special_tokens=True))

    return answer
