"""`flywheel engine`: the model server, in the foreground."""

import json
import logging
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flywheel.cli.common import HomeOption, JsonOption, console, messages
from flywheel.errors import ConfigError, MissingExtraError
from flywheel.settings import Settings

if TYPE_CHECKING:
    from flywheel.serve.engine import Engine


class DeviceChoice(StrEnum):
    """Where the model runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class DtypeChoice(StrEnum):
    """What its numbers are."""

    auto = "auto"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


def engine(
    model: Annotated[
        str, typer.Option("--model", "-m", help="Hub id, local folder or packaged model.")
    ],
    home: HomeOption = None,
    host: Annotated[
        str, typer.Option(help="Address to bind. There is no authentication: keep it private.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8100,
    served_name: Annotated[
        str | None, typer.Option(help="Name of the base model. Default: what --model says.")
    ] = None,
    adapter_dir: Annotated[
        Path | None,
        typer.Option(help="The only folder adapters are loaded from. Default: <home>/adapters."),
    ] = None,
    device: Annotated[DeviceChoice, typer.Option(help="auto: CUDA if any.")] = DeviceChoice.auto,
    dtype: Annotated[
        DtypeChoice, typer.Option(help="auto: bfloat16 where the hardware has it, else float32.")
    ] = DtypeChoice.auto,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of the model. Default: all cores.")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Answers written at once.")] = 16,
    max_queue: Annotated[
        int, typer.Option(min=1, help="Answers that may wait; more get 429.")
    ] = 256,
    max_length: Annotated[
        int | None, typer.Option(min=16, help="Longest prompt and answer. Default: the model's.")
    ] = None,
    max_adapters: Annotated[int, typer.Option(min=1, help="Adapters in memory at once.")] = 16,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only find or convert the base model, then end.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Serve a base model and its adapters: OpenAI's API and vLLM's adapter endpoints.

    Prints one line when it answers; with --json, {"event": "ready", "url": …}. SIGTERM lets the
    answers being written end.

    Example: flywheel engine --model HuggingFaceTB/SmolLM2-135M-Instruct --port 8100
    """
    _check_extras()
    from flywheel.models import resolve_base_model
    from flywheel.serve.engine import EngineOptions, serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = Settings.load(home=home)

    def say(sentence: str) -> None:
        messages.print(f"[dim]{sentence}[/]", highlight=False)

    if prepare:
        console.print(str(resolve_base_model(model, cache=settings.models_dir, progress=say)))
        return
    adapters = (adapter_dir or settings.adapter_dir).expanduser().absolute()
    try:
        adapters.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("--adapter-dir", [f"{adapters} cannot be made: {error}"]) from error
    options = EngineOptions(
        model=model,
        cache=settings.models_dir,
        adapter_dir=adapters,
        served_name=served_name,
        device=device.value,
        dtype=dtype.value,
        threads=threads,
        max_batch=max_batch,
        max_queue=max_queue,
        max_length=max_length,
        max_adapters=max_adapters,
    )

    def ready(url: str, served: "Engine") -> None:
        facts = {
            "event": "ready",
            "url": url,
            "model": served.name,
            "pid": os.getpid(),
            "device": str(served.model.device),
            "dtype": str(served.model.like.dtype).removeprefix("torch."),
        }
        line = json.dumps(facts) if as_json else f"ready: {url}/v1 serves {served.name}"
        console.print(line, soft_wrap=True, markup=False)

    import uvloop

    uvloop.run(serve(options, host=host, port=port, progress=say, on_ready=ready))


def _check_extras() -> None:
    from importlib.util import find_spec

    for package, extra in (("aiohttp", "serve"), ("uvloop", "serve"), ("torch", "serve")):
        if find_spec(package) is None:
            raise MissingExtraError(package, extra)
