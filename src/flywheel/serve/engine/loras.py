"""vLLM's adapter endpoints: POST /v1/load_lora_adapter and /v1/unload_lora_adapter.

Status codes and bodies are those of vLLM 0.33, whose success is a sentence of plain text. Two
things differ on purpose: `load_inplace` is refused, because a name stands for one set of weights,
and an adapter that must not be served is 400 where vLLM says 500.
"""

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from flywheel.errors import AdapterError, AdapterNotFoundError, DuplicateAdapterError
from flywheel.serve.engine.engine import Engine
from flywheel.serve.engine.protocol import parse_object
from flywheel.serve.engine.replies import error_body


class _Load(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    lora_name: str = ""
    lora_path: str = ""
    load_inplace: bool = False
    pinned: bool = False
    """Never leaves memory; SGLang's name for it."""


class _Unload(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    lora_name: str = ""


async def load_adapter(request: web.Request, engine: Engine) -> web.Response:
    """Loads an adapter under a new name."""
    try:
        body = _Load.model_validate(parse_object(await request.read()))
    except ValidationError as error:
        return _refuse(400, "InvalidUserInput", _sentences(error))
    if not body.lora_name or not body.lora_path:
        return _refuse(
            400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided."
        )
    if body.load_inplace:
        return _refuse(
            400,
            "InvalidUserInput",
            "load_inplace is not supported: a name stands for one set of weights. "
            "Load the adapter under another name.",
        )
    try:
        await engine.adapters.load(body.lora_name, body.lora_path, pinned=body.pinned)
    except DuplicateAdapterError:
        message = f"The lora adapter '{body.lora_name}' has already been loaded."
        return _refuse(400, "InvalidUserInput", message)
    except AdapterNotFoundError as error:
        message = f"Loading lora {body.lora_name} failed: No adapter found for {body.lora_path}"
        return _refuse(404, "NotFoundError", f"{message}: {error.reason}")
    except AdapterError as error:
        return _refuse(400, "BadRequestError", str(error))
    return web.Response(text=f"Success: LoRA adapter '{body.lora_name}' added successfully.")


async def unload_adapter(request: web.Request, engine: Engine) -> web.Response:
    """Forgets an adapter; answers being written with it are finished."""
    try:
        name = _Unload.model_validate(parse_object(await request.read())).lora_name
    except ValidationError as error:
        return _refuse(400, "InvalidUserInput", _sentences(error))
    if not name:
        return _refuse(
            400, "InvalidUserInput", "'lora_name' needs to be provided to unload a LoRA adapter."
        )
    try:
        await engine.adapters.unload(name)
    except AdapterNotFoundError:
        return _refuse(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
    return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")


def _refuse(status: int, kind: str, message: str) -> web.Response:
    return web.json_response(error_body(message, kind=kind, code=status), status=status)


def _sentences(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors()
    )
