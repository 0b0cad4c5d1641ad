"""The providers that judges name, ready to be asked."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from flywheel.chat import OpenAIChatModel
from flywheel.errors import ConfigError
from flywheel.routes import ENGINE
from flywheel.workload import Workload


@dataclass(frozen=True)
class Address:
    """Where a provider is, and what it wants to be asked with."""

    url: str
    api_key: str
    headers: dict[str, str]


def find_providers(workload: Workload, *, engine_url: str | None = None) -> dict[str, Address]:
    """The providers that judges of the workload name.

    Raises:
        ConfigError: a provider without a URL, or whose key is not in the environment.
    """
    problems, found = [], {}
    names = {seat.provider for judge in workload.judges.values() for seat in judge.panel}
    for name in sorted(names):
        section = workload.gateway.providers.get(name)
        url = section.base_url if section is not None else None
        if url is None and name == ENGINE and engine_url is not None:
            url = f"{engine_url.rstrip('/')}/v1"
        if url is None:
            problems.append(f"gateway.providers.{name}: has no base_url")
        elif section is not None and section.api_key_env and section.api_key is None:
            problems.append(
                f"gateway.providers.{name}.api_key_env: {section.api_key_env} is not set"
            )
        elif section is None:
            found[name] = Address(url, "none", {})
        else:
            found[name] = Address(url, section.api_key or "none", dict(section.headers))
    if problems:
        raise ConfigError(f"providers of {workload.name}", problems)
    return found


def open_models(workload: Workload, *, engine_url: str | None = None) -> dict[str, OpenAIChatModel]:
    """A client for each provider that a judge of the workload names; it connects to nothing yet.

    Args:
        workload: `judges` names them, `gateway.providers` says where they are.
        engine_url: where the deployment's own model server is, for the provider `engine`.

    Raises:
        ConfigError: a provider without a URL, or whose key is not in the environment.
    """
    return {
        name: OpenAIChatModel(
            address.url, api_key=address.api_key, max_retries=0, headers=address.headers
        )
        for name, address in find_providers(workload, engine_url=engine_url).items()
    }


@asynccontextmanager
async def opened_models(
    workload: Workload, *, engine_url: str | None = None
) -> AsyncIterator[Mapping[str, OpenAIChatModel]]:
    """`open_models`, their connections closed at the end."""
    models = open_models(workload, engine_url=engine_url)
    try:
        yield models
    finally:
        for model in models.values():
            await model.close()
