"""The engine over HTTP beside plain `transformers` and PEFT, in the same run.

Each round measures four ways to answer one after the other, so that a noisy machine disturbs all
alike; the table shows the median round of each, and the engine's ratio to its peer. Prompts are
random token ids, 60 a prompt and all different, so nothing is found in a cache; answers are 32
tokens. The batch of `generate` begins and ends together, which suits it best; the engine takes
requests as they come. Then adapters are loaded while one answer streams, and the time between its
tokens is compared with the rest of the stream; the same with PEFT's own `load_adapter`, called in
one thread while another writes tokens.

Command: `make bench NAME=engine_throughput`. Output: two tables, and
benchmarks/results/engine_throughput.json. It takes about five minutes on two cores.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from aiohttp import ClientSession
from peft import LoraConfig, PeftModel, get_peft_model
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from flywheel.models import resolve_base_model
from flywheel.serve.engine import Engine, EngineOptions, running
from flywheel.settings import Settings

RESULTS = Path(__file__).parent / "results" / "engine_throughput.json"
BASE = "base"
ADAPTERS = 4
LOADS = 6
MIXED = ("engine over HTTP, 4 adapters mixed", "PEFT generate, 4 adapters mixed")
Measure = Callable[[int, int], float]
"""(requests at once, round) to seconds."""


def prompts(count: int, length: int, vocabulary: int, seed: int) -> list[list[int]]:
    """Random token ids."""
    draw = random.Random(seed)
    return [[draw.randrange(100, vocabulary) for _ in range(length)] for _ in range(count)]


def build_adapters(base: Path, store: Path) -> list[str]:
    """Random LoRA adapters of rank 16 on all linear layers."""
    names = [f"a{seed}" for seed in range(ADAPTERS)]
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        for parameter, weight in model.named_parameters():
            if "lora_B" in parameter:
                torch.nn.init.normal_(weight, std=0.01)
        model.peft_config["default"].base_model_name_or_path = BASE
        model.save_pretrained(store / name, save_embedding_layers=False)
    return names


class Plain:
    """`transformers` and PEFT, without a server."""

    def __init__(self, base: Path, store: Path, names: Sequence[str], dtype: torch.dtype) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype).eval()
        second = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
        self.adapted = PeftModel.from_pretrained(second, store / names[0], adapter_name=names[0])
        for name in names[1:]:
            self.adapted.load_adapter(store / name, adapter_name=name)
        self.adapted.eval()

    def seconds(self, batch: list[list[int]], tokens: int, adapters: list[str] | None) -> float:
        """Time of one `generate`."""
        ids = torch.tensor(batch)
        options = {
            "attention_mask": torch.ones_like(ids),
            "min_new_tokens": tokens,
            "max_new_tokens": tokens,
            "do_sample": False,
            "pad_token_id": 0,
        }
        if adapters is not None:
            options["adapter_names"] = adapters
        model = self.model if adapters is None else self.adapted
        started = time.perf_counter()
        with torch.inference_mode():
            model.generate(input_ids=ids, **options)
        return time.perf_counter() - started

    def load_while_writing(
        self, store: Path, names: Sequence[str], prompt: list[int]
    ) -> dict[str, list[float]]:
        """PEFT's `load_adapter` while a thread writes tokens; as `load_while_streaming`."""
        tokens: list[float] = []
        spans: list[tuple[float, float]] = []
        stop = threading.Event()

        def write() -> None:
            step = {"input_ids": torch.tensor([prompt]), "adapter_names": [names[0]]}
            cache = None
            with torch.inference_mode():
                while not stop.is_set():
                    output = self.adapted(**step, past_key_values=cache, use_cache=True)
                    cache = output.past_key_values
                    step["input_ids"] = output.logits[:, -1:].argmax(-1)
                    tokens.append(time.perf_counter())

        writing = threading.Thread(target=write)
        writing.start()
        for at in range(LOADS):
            while len(tokens) < 20 * (at + 1):
                time.sleep(0.005)
            started = time.perf_counter()
            name = names[at % len(names)]
            self.adapted.load_adapter(store / name, adapter_name=f"again-{at}")
            spans.append((started, time.perf_counter()))
        stop.set()
        writing.join()
        return gaps(tokens, spans)


def gaps(tokens: Sequence[float], spans: Sequence[tuple[float, float]]) -> dict[str, list[float]]:
    """Seconds: of the loads, between tokens during them, and between the other tokens."""
    during: list[float] = []
    others: list[float] = []
    for before, after in zip(tokens, tokens[1:], strict=False):
        is_during = any(before < end and after > start for start, end in spans)
        (during if is_during else others).append(after - before)
    return {"loads": [end - start for start, end in spans], "during": during, "others": others}


async def ask_all(url: str, batch: list[list[int]], models: list[str], tokens: int) -> float:
    """Time until all of the requests, sent at once, are answered."""
    async with ClientSession() as session:

        async def ask(prompt: list[int], model: str) -> None:
            body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
            body |= {"ignore_eos": True}
            async with session.post(f"{url}/v1/completions", json=body) as reply:
                answer = await reply.json()
            assert answer["usage"]["completion_tokens"] == tokens, answer

        started = time.perf_counter()
        await asyncio.gather(*map(ask, batch, models))
        return time.perf_counter() - started


async def load(session: ClientSession, url: str, name: str, path: str) -> float:
    """Time of one load."""
    started = time.perf_counter()
    body = {"lora_name": name, "lora_path": path}
    async with session.post(f"{url}/v1/load_lora_adapter", json=body) as reply:
        assert reply.status == 200, await reply.text()
    return time.perf_counter() - started


async def load_while_streaming(
    url: str, names: Sequence[str], prompt: list[int]
) -> dict[str, list[float]]:
    """Loads adapters while one answer streams.

    Returns:
        Seconds: of the loads, between tokens during them, and between the other tokens.
    """
    tokens: list[float] = []
    spans: list[tuple[float, float]] = []
    async with ClientSession() as session:

        async def stream() -> None:
            body = {"model": BASE, "prompt": prompt, "max_tokens": 500, "stream": True}
            async with session.post(
                f"{url}/v1/completions", json=body | {"ignore_eos": True}
            ) as reply:
                async for _ in reply.content.iter_any():
                    tokens.append(time.perf_counter())

        writing = asyncio.create_task(stream())
        for at in range(LOADS):
            while len(tokens) < 50 * (at + 1):
                await asyncio.sleep(0.005)
            seconds = await load(session, url, f"again-{at}", names[at % len(names)])
            spans.append((time.perf_counter() - seconds, time.perf_counter()))
        await writing
    return gaps(tokens, spans)


def measure(
    ways: dict[str, Measure], concurrency: Sequence[int], rounds: int
) -> dict[str, dict[int, list[float]]]:
    """Seconds of every round, by way and requests at once; the first round only warms up."""
    seconds: dict[str, dict[int, list[float]]] = {way: {c: [] for c in concurrency} for way in ways}
    for number in range(rounds + 1):
        for c in concurrency:
            for way, run in ways.items():
                taken = run(c, number)
                if number:
                    seconds[way][c].append(taken)
    return seconds


def ways_to_answer(
    args: argparse.Namespace, engine: Engine, url: str, plain: Plain, names: Sequence[str]
) -> dict[str, Measure]:
    """What is compared."""

    def batch(c: int, number: int, salt: int = 0) -> list[list[int]]:
        return prompts(c, args.prompt, engine.model.vocabulary, 1000 * (number + salt) + c)

    def mixed(c: int) -> list[str]:
        return [names[at % len(names)] for at in range(c)]

    def over_http(c: int, number: int, *, models: list[str], salt: int) -> float:
        return asyncio.run(ask_all(url, batch(c, number, salt), models, args.tokens))

    return {
        "transformers generate, base": lambda c, r: plain.seconds(batch(c, r), args.tokens, None),
        "engine over HTTP, base": lambda c, r: over_http(c, r, models=[BASE] * c, salt=100),
        "PEFT generate, 4 adapters mixed": lambda c, r: plain.seconds(
            batch(c, r), args.tokens, mixed(c)
        ),
        "engine over HTTP, 4 adapters mixed": lambda c, r: over_http(
            c, r, models=mixed(c), salt=200
        ),
    }


def show(
    seconds: dict[str, dict[int, list[float]]], tokens: int, console: Console
) -> dict[str, dict[int, float]]:
    """Prints and returns tokens per second, of the median round of each."""
    speeds = {
        way: {c: c * tokens / statistics.median(rounds) for c, rounds in by_count.items()}
        for way, by_count in seconds.items()
    }
    table = Table(title="Tokens per second, by requests at once", title_justify="left")
    table.add_column("")
    for c in next(iter(speeds.values())):
        table.add_column(str(c), justify="right")
    for way, by_count in speeds.items():
        table.add_row(way, *(f"{speed:.0f}" for speed in by_count.values()))
    for engine, peer in (("engine over HTTP, base", "transformers generate, base"), MIXED):
        ratios = (speeds[engine][c] / speeds[peer][c] for c in speeds[engine])
        table.add_row(f"{engine} / {peer}", *(f"{ratio:.2f} x" for ratio in ratios))
    console.print(table)
    return speeds


def show_loads(title: str, found: dict[str, list[float]], console: Console) -> None:
    """Prints what loading took and what a running answer felt of it."""
    table = Table(title=f"{title}, milliseconds", title_justify="left")
    for heading in ("", "median", "longest"):
        table.add_column(heading, justify="right" if heading else "left")
    labels = {
        "loads": "to load an adapter while an answer streams",
        "during": "between its tokens, during a load",
        "others": "between its tokens, otherwise",
    }
    for key, label in labels.items():
        values = [value * 1e3 for value in found[key]]
        table.add_row(label, f"{statistics.median(values):.0f}", f"{max(values):.0f}")
    console.print(table)


def main() -> None:
    """Measures, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--prompt", type=int, default=60, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of an answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 16])
    args = parser.parse_args()
    console = Console(width=100)
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    base = resolve_base_model(args.model, cache=Settings.load().models_dir, progress=console.print)
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        names = build_adapters(base, store)
        options = EngineOptions(
            model=str(base), cache=store, adapter_dir=store, served_name=BASE, threads=args.threads
        )
        with Engine(options) as engine, running(engine) as url:
            plain = Plain(base, store, names, engine.model.like.dtype)
            asyncio.run(_load_all(url, names))
            ways = ways_to_answer(args, engine, url, plain, names)
            seconds = measure(ways, args.concurrency, args.rounds)
            speeds = show(seconds, args.tokens, console)
            prompt = prompts(1, args.prompt, engine.model.vocabulary, 0)[0]
            loads = asyncio.run(load_while_streaming(url, names, prompt))
            show_loads("The engine", loads, console)
            peer_loads = plain.load_while_writing(store, names, prompt)
            show_loads("PEFT's load_adapter in a thread", peer_loads, console)
            facts = {"device": str(engine.model.device), "dtype": str(engine.model.like.dtype)}
    result = {
        **facts,
        **vars(args),
        "cpu": f"{os.cpu_count()} x {platform.machine()}",
        "load_average_before": load_before,
        "torch": version("torch"),
        "transformers": version("transformers"),
        "peft": version("peft"),
        "tokens_per_second": speeds,
        "seconds_of_rounds": seconds,
        "engine_loads": _summary(loads),
        "peft_loads": _summary(peer_loads),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console.print(f"written: {RESULTS}")


def _summary(found: dict[str, list[float]]) -> dict[str, object]:
    return {
        "adapter_load_s": found["loads"],
        "longest_between_tokens_during_a_load_s": max(found["during"]),
        "longest_between_tokens_otherwise_s": max(found["others"]),
        "median_between_tokens_s": statistics.median(found["others"]),
    }


async def _load_all(url: str, names: Sequence[str]) -> None:
    async with ClientSession() as session:
        for name in names:
            await load(session, url, name, name)


if __name__ == "__main__":
    main()
