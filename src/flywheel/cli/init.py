"""`flywheel init`: a workload file and a hold-out to start from."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from flywheel.cli.common import console
from flywheel.errors import ConfigError
from flywheel.records import Message, SuiteItem
from flywheel.workload import Workload

DEFAULT_BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


def init(
    folder: Annotated[Path, typer.Argument(help="Made when absent.")] = Path(),
    name: Annotated[str, typer.Option(help="Of the workload: lower case, digits, dashes.")] = "",
    base_model: Annotated[str, typer.Option(help="Hub id, local folder, packaged.")] = DEFAULT_BASE,
) -> None:
    """Write flywheel.yaml and holdout.jsonl into a folder; nothing there is overwritten.

    Example: flywheel init my-copilot --name copilot
    """
    name = name or folder.absolute().name.lower().replace("_", "-")
    path, suite = folder / "flywheel.yaml", folder / "holdout.jsonl"
    taken = [str(file) for file in (path, suite) if file.exists()]
    if taken:
        raise ConfigError("flywheel init", [f"{file} exists; it stays as it is" for file in taken])
    folder.mkdir(parents=True, exist_ok=True)
    template = files("flywheel.cli").joinpath("templates/flywheel.yaml").read_text("utf-8")
    path.write_text(template.format(name=name, base_model=base_model), encoding="utf-8")
    try:
        Workload.load(path)
    except ConfigError:
        path.unlink()
        raise
    items = [
        SuiteItem(
            item_id=f"example-{number}",
            messages=(Message(role="user", content=question),),
            reference={"answer": answer},
        )
        for number, (question, answer) in enumerate(
            [("Replace these lines with questions of yours.", "and their right answers"),
             ("The gate asks candidate and champion each of them.", "and compares")], 1
        )
    ]  # fmt: skip
    lines = "".join(item.model_dump_json(exclude_defaults=True) + "\n" for item in items)
    suite.write_text(lines, encoding="utf-8")
    console.print(
        f"wrote {path} and {suite}\n"
        f"next: put at least 100 items into {suite.name}, then\n"
        f"  flywheel up --workload {path}"
    )
