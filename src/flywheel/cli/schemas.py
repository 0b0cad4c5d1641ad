"""`flywheel schemas`: JSON Schemas of records, flywheel.yaml and files; the gateway's OpenAPI.

Input: the models of records.py, workload.py and the few files others read. Output: schemas/*.json,
in the repository; `make check` and a test fail when they are stale.
"""

import inspect
import json
import re
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from flywheel import records
from flywheel.cli.common import console
from flywheel.errors import ConfigError
from flywheel.records import Record
from flywheel.workload import Workload

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas(
    write: Annotated[
        bool, typer.Option("--write/--check", help="Write them, or fail if one is not as written.")
    ] = True,
    folder: Annotated[Path, typer.Option(help="Where they are.")] = Path("schemas"),
) -> None:
    """Write the JSON Schemas, or check that they are fresh.

    Example: flywheel schemas --check
    """
    rendered = render()
    if not write:
        stale = find_stale(rendered, folder)
        if stale:
            raise ConfigError(
                str(folder), [f"{name}: write it with `make schemas`" for name in stale]
            )
        console.print(f"{len(rendered)} schemas in {folder} are fresh", markup=False)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in find_stale(rendered, folder):
        if name in rendered:
            (folder / name).write_text(rendered[name], encoding="utf-8")
        else:
            (folder / name).unlink()
        console.print(folder / name, markup=False)


def models() -> dict[str, type[BaseModel]]:
    """What is described, by file name: the nouns, the workload, and files that people read."""
    from flywheel.cli.demo import DemoResult
    from flywheel.train.spec import TrainSpec

    nouns = [
        model
        for _, model in inspect.getmembers(records, inspect.isclass)
        if issubclass(model, Record) and model is not Record
    ]
    described: list[type[BaseModel]] = [*nouns, Workload, TrainSpec, DemoResult]
    return {f"{_snake(model.__name__)}.json": model for model in described}


def render() -> dict[str, str]:
    """Every schema as the text of its file."""
    from flywheel.serve.gateway import describe

    described = {
        name: {"$schema": DIALECT, **model.model_json_schema()} for name, model in models().items()
    }
    described["openapi.json"] = describe()
    return {name: json.dumps(body, indent=2) + "\n" for name, body in described.items()}


def find_stale(rendered: dict[str, str], folder: Path) -> list[str]:
    """Names of the files that are missing, differ, or describe nothing any more."""
    present = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in {*rendered, *present} if rendered.get(name) != present.get(name))


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
