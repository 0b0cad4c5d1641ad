"""`flywheel demo`: the whole loop on a real language model, and whether it kept its promises."""

import os
import sys
from pathlib import Path
from typing import Annotated, Self

import typer
from pydantic import Field, ValidationError

from flywheel.cli.common import console
from flywheel.errors import ConfigError
from flywheel.records import JsonObject, Record, Share, Verdict

CHANCE = 1 / 3
"""Three classes, equally frequent in the hold-out."""
PROMISED_GAIN = 0.30
PROMISED_VALID = 0.99
PROMISED_ITEMS = 120
PROMISED_WALL_S = 600
PROMISED_SWITCH_S = 1.0


class Scores(Record):
    """How one model did on the hold-out."""

    valid: Share
    """Share of answers that are the JSON asked for."""
    accuracy: Share
    accuracy_ci: tuple[Share, Share]
    """95 % interval, complaints resampled."""
    emergency_recall: Share
    """Share of emergencies called an emergency."""


class BaseScores(Scores):
    """The base model, before any night."""

    n: int
    """Hold-out items, each a complaint no training message mentions."""


class NightScores(Scores):
    """A night's candidate."""

    night: int
    labels: int
    """Labelled answers the candidate learned from."""
    decision: Verdict
    promoted: bool
    poisoned: bool
    """Whether that day's labels were systematically wrong."""
    adapter: str


class Requests(Record):
    """Every request of every day, counted where it was sent and where it was kept."""

    sent: int
    answered: int
    failed: int
    captured: int
    """Rows in the lake afterwards."""


class QueryAnswer(Record):
    """One SQL query over the lake, and what came back."""

    question: str
    sql: str
    rows: list[JsonObject]


class DemoResult(Record):
    """What `make demo` leaves in demo/result.json."""

    workload: str
    base_model: str
    seed: int
    base: BaseScores
    nights: tuple[NightScores, ...]
    requests: Requests
    rollback_seconds: float = Field(ge=0)
    """From the command until the gateway confirmed the move, with requests flowing."""
    roll_forward_seconds: float = Field(ge=0)
    champion: str
    """Who serves at the end."""
    queries: tuple[QueryAnswer, ...]
    wall_seconds: float = Field(ge=0)
    phase_seconds: dict[str, float]
    """Where the time went."""
    machine: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a result file.

        Raises:
            ConfigError: it is absent, cut short or not a result.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ConfigError(str(path), [f"{error.strerror}. `make demo` writes it."]) from error
        except ValidationError as error:
            raise ConfigError(
                str(path), [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            ) from error


class Promise(Record):
    """One promise of the demo, and whether this result keeps it."""

    text: str
    found: str
    kept: bool


def promises(result: DemoResult, *, time_allowance: float = 1.0) -> list[Promise]:
    """Every promise the demo makes, checked against one result.

    Args:
        result: what one demo left.
        time_allowance: factor on the promises about time, for machines shared with others.
    """
    honest = [night for night in result.nights if not night.poisoned]
    poisoned = [night for night in result.nights if night.poisoned]
    second = next((night for night in result.nights if night.night == 2), None)
    champions = [night for night in honest if night.promoted]
    requests = result.requests
    gain = second.accuracy - CHANCE if second else float("nan")
    worst_valid = min((night.valid for night in champions), default=0.0)
    switch = max(result.rollback_seconds, result.roll_forward_seconds)
    rows = [
        (
            f"hold-out of at least {PROMISED_ITEMS} unseen complaints",
            str(result.base.n),
            result.base.n >= PROMISED_ITEMS,
        ),
        (
            f"promoted answers are valid JSON in at least {PROMISED_VALID:.0%}",
            f"{worst_valid:.1%}",
            worst_valid >= PROMISED_VALID,
        ),
        (
            f"accuracy after night 2 at least {PROMISED_GAIN * 100:.0f} points above chance",
            f"{gain * 100:+.1f} points",
            gain >= PROMISED_GAIN,
        ),
        (
            "the poisoned night is refused",
            ", ".join(night.decision for night in poisoned) or "no such night",
            bool(poisoned) and not any(night.promoted for night in poisoned),
        ),
        (
            "the champion at the end was promoted by an honest night",
            result.champion,
            result.champion in {night.adapter for night in champions},
        ),
        (
            "no request failed",
            f"{requests.failed} of {requests.sent}",
            requests.failed == 0 and requests.answered == requests.sent > 0,
        ),
        (
            "every request was captured",
            f"{requests.captured} of {requests.sent}",
            requests.captured == requests.sent,
        ),
        (
            f"roll-back and roll-forward each under {PROMISED_SWITCH_S * time_allowance:g} s",
            f"{result.rollback_seconds:.2f} s, {result.roll_forward_seconds:.2f} s",
            switch < PROMISED_SWITCH_S * time_allowance,
        ),
        (
            f"within {PROMISED_WALL_S / 60 * time_allowance:g} minutes",
            f"{result.wall_seconds / 60:.1f} minutes",
            result.wall_seconds <= PROMISED_WALL_S * time_allowance,
        ),
    ]
    return [Promise(text=text, found=found, kept=kept) for text, found, kept in rows]


def print_promises(result: DemoResult, *, time_allowance: float = 1.0) -> bool:
    """Prints each promise and a verdict line; returns whether all were kept."""
    checked = promises(result, time_allowance=time_allowance)
    for promise in checked:
        mark = "[green]kept  [/]" if promise.kept else "[bold red]BROKEN[/]"
        console.print(f"  {mark} {promise.text}: {promise.found}")
    broken = sum(not promise.kept for promise in checked)
    verdict = "all promises kept" if not broken else f"{broken} of {len(checked)} promises BROKEN"
    nights = ", ".join(f"night {n.night} {n.accuracy:.0%} {n.decision}" for n in result.nights)
    console.print(f"demo: {verdict} (base {result.base.accuracy:.0%}, {nights})", soft_wrap=True)
    return not broken


def demo(
    home: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Of messages, mistakes and training.")] = 7,
    check: Annotated[
        bool, typer.Option("--check", help="Only check <home>/result.json against the promises.")
    ] = False,
    time_allowance: Annotated[
        float, typer.Option(min=1, help="With --check: a factor on the promises about time.")
    ] = 1.0,
) -> None:
    """Run three days and nights of the triage workload on a real model, no GPU, no key, no hub.

    Ends with exit code 1 when a promise is broken; <home>/result.json has every number.

    Example: flywheel demo --home demo
    """
    if check:
        result = DemoResult.read(home / "result.json")
        raise typer.Exit(0 if print_promises(result, time_allowance=time_allowance) else 1)
    # The examples stand above the CLI, so this process becomes theirs: imports keep pointing down,
    # and a signal meant for the demo reaches it.
    command = [sys.executable, "-m", "flywheel_examples.triage.demo"]
    os.execv(sys.executable, [*command, "--home", str(home), "--seed", str(seed)])
