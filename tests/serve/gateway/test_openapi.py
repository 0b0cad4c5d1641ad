"""The description of the gateway's routes is whole, valid, and the one that is served."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import schemathesis
from aiohttp import web

from flywheel.capture.importers import Source
from flywheel.capture.importers.live import JoinBuffer, OtlpReceiver
from flywheel.capture.importers.live.wire import OtlpEndpoints
from flywheel.serve.gateway import create_admin_app, create_app, describe
from tests.serve.gateway.harness import TOKEN, RunningGateway

DOCUMENT: Any = describe()


def routes(app: web.Application) -> set[tuple[str, str]]:
    found = set()
    for route in app.router.routes():
        assert route.resource is not None
        if route.method not in ("HEAD", "*"):
            path = route.resource.canonical
            found.add((route.method.lower(), path))
    return found


def described(*, is_admin: bool) -> set[tuple[str, str]]:
    return {
        (method, path)
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        if method != "parameters" and (operation.get("tags") == ["admin"]) == is_admin
    }


def test_every_route_is_described_and_every_description_is_a_route(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    receiver = OtlpReceiver(
        lambda records: True, lambda: Source(workload="triage"), JoinBuffer(tmp_path)
    )
    gateway.gateway.telemetry = OtlpEndpoints(receiver)
    assert routes(create_app(gateway.gateway)) == described(is_admin=False)
    admin = routes(create_admin_app(gateway.gateway, TOKEN))
    assert admin == described(is_admin=True) | {("get", "/healthz"), ("get", "/metrics")}


def test_it_is_valid_openapi() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    assert DOCUMENT["openapi"].startswith("3.1")


def test_it_is_served_to_whoever_asks(gateway: RunningGateway) -> None:
    with urllib.request.urlopen(f"{gateway.url}/openapi.json") as reply:
        assert reply.headers["Content-Type"].startswith("application/json")
        assert json.loads(reply.read()) == DOCUMENT
