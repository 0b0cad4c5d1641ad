"""Every route of a running gateway, fuzzed from its own description by schemathesis.

What holds for any request: it is answered, never with 500, and as the description says; what was
taken of it is in the lake or in quarantine, and the counters say so.
"""

import copy
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from flywheel.capture import Spool
from flywheel.capture.importers import Source
from flywheel.capture.importers.live import JoinBuffer, Kept, OtlpReceiver
from flywheel.capture.importers.live.buffer import EVENT_S
from flywheel.capture.importers.live.wire import OtlpEndpoints
from flywheel.capture.parsed import keep
from flywheel.serve.gateway import describe
from flywheel.serve.gateway.keys import create_key
from flywheel.serve.gateway.surface import SURFACES
from tests.serve.gateway.harness import TOKEN, RunningGateway, eventually, workload
from tests.serve.gateway.upstream import ScriptedServer

NAMES = ["triage", "coding"]
MODEL_PATHS = {f"/v1/{surface.path}" for surface in SURFACES}
MODEL_STATUSES = {200, 400, 401, 403, 404, 408, 413, 417, 429}
"""Of a call to a model server that is well; more statuses are for those that are not."""

load_all_checks()
CONFORMANCE: Any = CHECKS.get_by_names(
    ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)

NAMED = [
    "gen_ai.operation.name",
    "gen_ai.request.model",
    "gen_ai.input.messages",
    "gen_ai.usage.input_tokens",
    "llm.input_messages.0.message.content",
    "openinference.span.kind",
]


def some(**properties: object) -> dict[str, object]:
    """An object with these fields and no others, which takes far less time to think of."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def few(item: object) -> dict[str, object]:
    return {"type": "array", "items": item, "minItems": 1, "maxItems": 2}


_WHEN = {"type": ["string", "integer"]}
_VALUE = {"enum": [{"stringValue": s} for s in ("chat", "LLM", "[{}]", "[", "\0", "9" * 400)]}
_SPAN = some(
    traceId={"type": "string"},
    spanId={"type": "string"},
    startTimeUnixNano=_WHEN,
    endTimeUnixNano=_WHEN,
    attributes=few(some(key={"enum": NAMED}, value=_VALUE)),
)
_LOG = some(
    traceId={"type": "string"},
    spanId={"enum": ["", "0" * 16, "a" * 16]},
    timeUnixNano=_WHEN,
    eventName={"enum": ["", "gen_ai.choice", "gen_ai.evaluation.result", "\0"]},
    body=_VALUE,
)
SPANS = some(resourceSpans=few(some(scopeSpans=few(some(spans=few(_SPAN))))))
LOGS = some(resourceLogs=few(some(scopeLogs=few(some(logRecords=few(_LOG))))))
"""OTLP as far as its shape matters here: the description leaves it to OTLP."""


def document() -> dict[str, Any]:
    """The description, with the names that are served here; what is wrong may have others."""
    found: Any = copy.deepcopy(describe())
    schemas = found["components"]["schemas"]
    for model, name in (
        ("ModelRequest", "model"),
        ("Feedback", "workload"),
        ("Release", "workload"),
    ):
        schemas[model]["properties"][name] = {"enum": NAMES}
    schemas["Spans"] = SPANS
    traces = found["paths"]["/v1/traces"]["post"]["requestBody"]["content"]
    traces["application/json"]["schema"] = {"$ref": "#/components/schemas/Spans"}
    schemas["Logs"] = LOGS
    logs = found["paths"]["/v1/logs"]["post"]["requestBody"]["content"]
    logs["application/json"]["schema"] = {"$ref": "#/components/schemas/Logs"}
    return dict(found)


class Fuzzer:
    """Sends what schemathesis thinks of, and judges the answers.

    Args:
        gateway: both of its ports are fuzzed.
        keys: the headers of a request, drawn in turn.
    """

    def __init__(self, gateway: RunningGateway, keys: list[Mapping[str, str]]) -> None:
        self._gateway, self._keys = gateway, keys
        self._session = requests.Session()
        self.answers: Counter[tuple[str, int]] = Counter()

    def run(self, *, examples: int) -> None:
        for found in schemathesis.openapi.from_dict(document()).get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()
            for mode in GenerationMode:
                if mode is GenerationMode.POSITIVE or operation.body:  # else nothing can be wrong
                    self._fuzz(operation, mode, examples=examples)
        self._session.close()

    def _fuzz(
        self, operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, *, examples: int
    ) -> None:
        @seed(3)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Case[Any]) -> None:
            self._ask(case)

        ask()

    def _ask(self, case: Case[Any]) -> None:
        is_admin = case.operation.path.startswith("/admin")
        gateway = self._gateway
        number = self.answers.total()
        headers = self._keys[number % len(self._keys)]
        if is_admin:
            headers = {"Authorization": f"Bearer {TOKEN}"} if number % 8 else {}
        url = gateway.admin_url if is_admin else gateway.url
        reply = case.call(base_url=url, session=self._session, headers=dict(headers), timeout=10)
        self.answers[case.operation.label, reply.status_code] += 1
        assert reply.status_code != 500, reply.text
        if case.operation.path in MODEL_PATHS:
            assert reply.status_code in MODEL_STATUSES, reply.text
        case.validate_response(reply, checks=CONFORMANCE)


@pytest.fixture(params=["open", "keyed"])
def fuzzer(
    request: pytest.FixtureRequest, tmp_path: Path, upstream: ScriptedServer
) -> Iterator[tuple[RunningGateway, Fuzzer]]:
    workloads = [workload(name) for name in NAMES]
    keys_file = tmp_path / "keys.json"
    keys: list[Mapping[str, str]] = [{}]
    if request.param == "keyed":
        made = [
            create_key(keys_file, name="both", workloads=NAMES).token,
            create_key(keys_file, name="one", workloads=("coding",)).token,
            create_key(keys_file, name="slow", workloads=NAMES, requests_per_minute=20).token,
        ]
        keys += [{"Authorization": f"Bearer {token}"} for token in [*made, made[0], "unknown"]]
    spool = Spool(tmp_path / "spool", default_workload=NAMES[0])
    with RunningGateway(
        tmp_path,
        [upstream.url],
        spool=spool,
        telemetry=OtlpEndpoints(Taking(spool)),
        workloads=workloads,
        load=lambda: workloads,
        keys_file=keys_file,
        spend_dir=tmp_path / "spend",
        subject_secret="a-secret",
    ) as gateway:
        yield gateway, Fuzzer(gateway, keys)


class Taking(OtlpReceiver):
    """What the command mounts, counting what it hands to the spool."""

    def __init__(self, spool: Spool) -> None:
        super().__init__(self._counted, source, JoinBuffer(spool.folder.path))
        self._spool, self.kept = spool, 0

    def _counted(self, records: Sequence[Kept]) -> bool:
        self.kept += len(records)
        return keep(self._spool, records)


def source() -> Source:
    return Source(workload=NAMES[0], workloads=frozenset(NAMES))


def assert_nothing_is_lost(gateway: RunningGateway, upstream: ScriptedServer) -> None:
    """What came in is answered, counted, and in the lake or in quarantine."""
    metrics, spool = gateway.gateway.metrics, gateway.spool
    eventually(lambda: metrics.in_flight == 0)
    assert requests.get(f"{gateway.url}/readyz", timeout=5).status_code == 200
    telemetry = gateway.gateway.telemetry
    assert isinstance(telemetry, OtlpEndpoints)
    receiver = telemetry.receiver
    assert isinstance(receiver, Taking)
    receiver.settle(time.time() + EVENT_S)
    assert receiver.waiting() == (0, 0)
    assert spool.seal()
    counters = spool.counters
    asked = sum(metrics.requests.values())
    assert asked == len(upstream.seen), "what reached the model server is counted"
    assert counters.accepted == asked + metrics.feedback[202] + receiver.kept
    assert counters.accepted == counters.spooled + sum(counters.dropped.values())
    assert counters.dropped == {}
    report = gateway.drain()
    kept = report.interactions + report.assessments + report.quarantined
    assert kept + report.duplicates == counters.accepted
    in_lake = len(gateway.interactions()) + len(gateway.assessments()) + len(gateway.quarantine())
    assert in_lake == kept


def test_nothing_a_request_says_breaks_the_gateway_or_loses_a_record(
    fuzzer: tuple[RunningGateway, Fuzzer], upstream: ScriptedServer
) -> None:
    gateway, fuzz = fuzzer
    fuzz.run(examples=25)
    assert_nothing_is_lost(gateway, upstream)
    assert {200, 400, 401, 404, 422} <= {status for _, status in fuzz.answers}
    taken = {operation for operation, status in fuzz.answers if status in (200, 202)}
    assert taken >= {
        "POST /v1/chat/completions",
        "POST /v1/feedback",
        "POST /v1/traces",
        "POST /v1/logs",
        "POST /admin/releases",
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_a_thousand_requests_say_breaks_the_gateway_or_loses_a_record(
    fuzzer: tuple[RunningGateway, Fuzzer], upstream: ScriptedServer
) -> None:
    gateway, fuzz = fuzzer
    fuzz.run(examples=300)
    assert_nothing_is_lost(gateway, upstream)
