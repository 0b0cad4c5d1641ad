import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from flywheel.capture import Spool
from flywheel.records import JsonObject, new_id
from tests.serve.gateway.harness import RunningGateway, workload
from tests.serve.gateway.upstream import ScriptedServer

HELLO: Any = [{"role": "user", "content": "My knee hurts."}]


def send(gateway: RunningGateway, body: JsonObject | bytes) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(f"{gateway.url}/v1/feedback", data=data) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_correction_reaches_the_lake_beside_its_call(gateway: RunningGateway) -> None:
    reply = gateway.openai.chat.completions.with_raw_response.create(model="triage", messages=HELLO)
    identity = reply.headers["x-flywheel-interaction-id"]
    status, body = send(
        gateway,
        {
            "interaction_id": identity,
            "name": "urgency",
            "correction": '{"urgency":"urgent"}',
            "comment": "swollen",
            "source_type": "human",
            "source_id": "dr-1",
        },
    )
    assert status == 202
    [row] = gateway.assessments()
    assert row.assessment_id == body["assessment_id"]
    assert (row.interaction_id, row.workload, row.kind) == (identity, "triage", "correction")
    assert (row.source_type, row.source_id, row.rationale) == ("human", "dr-1", "swollen")


def test_feedback_sent_twice_under_one_id_is_one_judgement(gateway: RunningGateway) -> None:
    body: JsonObject = {
        "assessment_id": "mine",
        "interaction_id": new_id(),
        "name": "helpful",
        "value": True,
    }
    assert send(gateway, body) == send(gateway, body) == (202, {"assessment_id": "mine"})
    [row] = gateway.assessments()
    assert (row.value, row.kind) == (1.0, "feedback")
    assert send(gateway, body)[0] == 202
    assert len(gateway.assessments()) == 1


def test_feedback_for_a_call_nobody_knows_is_accepted_for_the_gateways_own_workload(
    gateway: RunningGateway,
) -> None:
    status, _ = send(gateway, {"interaction_id": "unknown", "name": "urgency", "label": "urgent"})
    assert status == 202
    assert gateway.assessments()[0].workload == "triage"


def test_an_end_user_is_kept_as_a_key(gateway: RunningGateway) -> None:
    for _ in range(2):
        send(gateway, {"interaction_id": "i", "name": "ok", "value": 1, "source_id": "grace"})
    keys = {row.source_id for row in gateway.assessments()}
    assert len(keys) == 1
    assert "grace" not in str(keys)


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"{", 400, "the body is not JSON"),
        (b"[]", 422, "Input should be an object"),
        ({"interaction_id": "i", "name": "urgency", "correction": ""}, 422, "correction is empty"),
        ({"interaction_id": "i", "name": "u", "correction": "  \n"}, 422, "correction is empty"),
        ({"interaction_id": "i", "name": "urgency"}, 422, "at least one of value, label and"),
        ({"name": "urgency", "value": 1}, 422, "give either interaction_id or conversation_id"),
        ({"interaction_id": "i", "name": "", "value": 1}, 422, "name: String should have at least"),
        ({"interaction_id": "i", "value": 1}, 422, "name: Field required"),
        ({"interaction_id": "i", "name": "u", "valeu": 1}, 422, "valeu: unknown field; valid: int"),
        (
            {"interaction_id": "i", "name": "u", "value": 1, "workload": "nope"},
            422,
            "workload 'nope' is not served here; served: triage",
        ),
    ],
)
def test_feedback_that_says_nothing_is_refused_with_a_sentence(
    gateway: RunningGateway, body: JsonObject | bytes, status: int, sentence: str
) -> None:
    code, reply = send(gateway, body)
    assert code == status
    assert sentence in reply["error"]["message"]
    assert gateway.spool.counters.accepted == 0


def test_feedback_that_cannot_be_stored_is_not_acknowledged(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=10)
    with RunningGateway(tmp_path, [upstream.url], spool=spool) as gateway:
        status, reply = send(gateway, {"interaction_id": "i", "name": "u", "value": 1})
    assert (status, reply["error"]["code"]) == (503, "not_stored")


def test_one_gateway_takes_feedback_for_each_of_its_workloads(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    both = [workload("triage"), workload("coding")]
    with RunningGateway(tmp_path, [upstream.url], workloads=both) as gateway:
        reply = gateway.openai.chat.completions.with_raw_response.create(
            model="coding", messages=HELLO
        )
        known = reply.headers["x-flywheel-interaction-id"]
        for body in (
            {"interaction_id": known},
            {"interaction_id": "unknown"},
            {"interaction_id": "unknown", "workload": "coding"},
        ):
            assert send(gateway, {**body, "name": "ok", "value": 1})[0] == 202
        assert [row.workload for row in gateway.assessments()] == ["coding", "triage", "coding"]
