"""The embedded engine: transformers models with many LoRA adapters, behind OpenAI's and vLLM's API.

Input: a base model (`flywheel.models`) and adapter folders. Output: answers over HTTP, adapters
loaded and unloaded while others answer. Command: `flywheel engine`. From Python:

    with Engine(EngineOptions(model=…, cache=…, adapter_dir=…)) as engine, running(engine) as url:
        …

What it is not: a replacement for vLLM on a busy GPU. It has no paged memory, no quantisation, no
tools and no images; it runs wherever transformers runs.
"""

from flywheel.serve.engine.engine import Answer, Engine, EngineOptions
from flywheel.serve.engine.generation import Delta, Sampling
from flywheel.serve.engine.server import Server, running, serve

__all__ = [
    "Answer",
    "Delta",
    "Engine",
    "EngineOptions",
    "Sampling",
    "Server",
    "running",
    "serve",
]
