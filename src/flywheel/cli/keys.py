"""`flywheel keys …`: who may call the gateway, and what was spent today."""

from typing import Annotated

import typer

from flywheel.cli.common import HomeOption, JsonOption, console, messages, print_json, print_table
from flywheel.errors import MissingExtraError
from flywheel.settings import Settings

app = typer.Typer(
    help="API keys of the gateway: make, list, revoke; what was spent today.", no_args_is_help=True
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What to call it: the application that gets it.")],
    workload: Annotated[
        list[str],
        typer.Option(help="Name of a workload it opens; repeatable. '*' is every one."),
    ],
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Most requests a minute. Default: no limit.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Most tokens a minute. Default: no limit.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key. Its token is shown now and never again; with the first the gateway closes.

    Example: flywheel keys create ward-7 --workload triage --requests-per-minute 600
    """
    _need_gateway()
    from flywheel.serve.gateway.keys import create_key

    path = Settings.load(home=home).gateway_keys_file
    made = create_key(
        path,
        name=name,
        workloads=workload,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    if as_json:
        shown = made.key.model_dump(mode="json", exclude={"sha256"})
        print_json({**shown, "token": made.token})
        return
    messages.print(f"{name} opens {', '.join(workload)}. Keep it now, it is not shown again:")
    console.print(made.token, soft_wrap=True)


@app.command("list")
def list_keys(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show every key, revoked ones too, without its token.

    Example: flywheel keys list --home demo
    """
    _need_gateway()
    from flywheel.serve.gateway.keys import read_keys

    path = Settings.load(home=home).gateway_keys_file
    keys = read_keys(path)
    if as_json:
        print_json([key.model_dump(mode="json", exclude={"sha256"}) for key in keys])
        return
    if not path.is_file():
        console.print(f"no keys: the gateway is open ({path} is not there)", soft_wrap=True)
        return
    columns = ["name", "workloads", "requests/min", "tokens/min", "created", "revoked", "id"]
    print_table(
        "keys",
        columns,
        [
            [
                key.name,
                ", ".join(key.workloads),
                key.requests_per_minute,
                key.tokens_per_minute,
                f"{key.created_at:%Y-%m-%d %H:%M}",
                f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else None,
                key.key_id,
            ]
            for key in keys
        ],
    )


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Name or id of a key.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a key for good; running gateways refuse it within a second.

    Example: flywheel keys revoke ward-7
    """
    _need_gateway()
    from flywheel.serve.gateway.keys import revoke_key

    revoked = revoke_key(Settings.load(home=home).gateway_keys_file, key)
    if as_json:
        print_json(revoked.model_dump(mode="json", exclude={"sha256"}))
        return
    console.print(f"{revoked.name} ({revoked.key_id}) is revoked")


@app.command()
def spent(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show what each workload spent today (UTC), over all gateways of the home.

    Example: flywheel keys spent --home demo
    """
    _need_gateway()
    from flywheel.records import utcnow
    from flywheel.serve.gateway.budget import read_spend

    day = utcnow().date()
    found = read_spend(Settings.load(home=home).gateway_dir, day)
    if as_json:
        print_json({"day": day.isoformat(), "workloads": found})
        return
    print_table(
        f"spent on {day} (UTC)",
        ["workload", "USD", "calls", "calls of unknown cost"],
        [[name, f"{one.usd:.4f}", one.calls, one.unknown] for name, one in sorted(found.items())],
    )


def _need_gateway() -> None:
    try:
        import flywheel.serve.gateway  # noqa: F401 - its extra is what is asked for
    except ImportError as error:
        raise MissingExtraError(error.name or "aiohttp", "gateway") from error
