"""A fleet of two replicas, a gateway's admin port, a lake and a registry: all real, all small."""

import json
import struct
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy
import pytest

from flywheel.adapters import inspect_adapter, served_name
from flywheel.lake import Lake
from flywheel.promote import Fleet, HttpGatewayAdmin, HttpModelServer, store_adapter
from flywheel.records import Adapter, Decision, Verdict, utcnow
from flywheel.tracking import Tracker
from flywheel.workload import Workload
from tests.loopback import TOKEN, AdminPort, Replica

BASE = "some/base"
WORKLOAD = """
name: triage
alias: triage
base_model: some/base
labels: {name: urgency}
graders:
  correct: {type: string_check, operation: eq, input: "{{sample.output_text}}", reference: x}
gate: {suite: holdout.jsonl, target: {grader: correct}}
promotion: {verify_prompt: I have a mild cold.}
"""

MakeAdapter = Callable[[int], Adapter]
MakeDecision = Callable[..., Decision]


@pytest.fixture
def workload_file(tmp_path: Path) -> Path:
    path = tmp_path / "flywheel.yaml"
    path.write_text(WORKLOAD, encoding="utf-8")
    return path


@pytest.fixture
def replicas() -> Iterator[tuple[Replica, Replica]]:
    both = Replica(BASE).start(), Replica(BASE).start()
    yield both
    for replica in both:
        replica.stop()


@pytest.fixture
def gateway() -> Iterator[AdminPort]:
    port = AdminPort().start()
    yield port
    port.stop()


@pytest.fixture
def fleet(
    tmp_path: Path,
    workload_file: Path,
    replicas: tuple[Replica, Replica],
    gateway: AdminPort,
    tracking_uri: str,
) -> Fleet:
    return Fleet(
        workload=Workload.load(workload_file),
        lake=Lake(str(tmp_path / "lake")),
        servers=tuple(HttpModelServer(replica.url) for replica in replicas),
        gateway=HttpGatewayAdmin(gateway.url, token=TOKEN),
        tracker=Tracker(tracking_uri),
        store=tmp_path / "adapters",
    )


def write_adapter(folder: Path, seed: int) -> Path:
    """A valid LoRA folder of rank 1 whose weights differ by seed, in the safetensors format."""
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": BASE, "r": 1, "lora_alpha": 2}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    header: dict[str, object] = {}
    body = b""
    for side, shape in (("A", (1, 4)), ("B", (4, 1))):
        data = numpy.full(shape, seed, dtype="float32").tobytes()
        name = f"base_model.model.layers.0.q_proj.lora_{side}.weight"
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    weights = struct.pack("<Q", len(text)) + text + body
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


@pytest.fixture
def trained(tmp_path: Path) -> MakeAdapter:
    """An adapter as training leaves it, the number its weights; a higher one is younger."""

    def make(number: int) -> Adapter:
        folder = write_adapter(tmp_path / "runs" / str(number), number)
        found = inspect_adapter(folder)
        return Adapter(
            adapter_id=found.adapter_id,
            name=served_name("triage", found.adapter_id),
            workload="triage",
            created_at=utcnow() + timedelta(seconds=number),
            base_model=BASE,
            spec={},
            rank=found.rank,
            target_modules=found.target_modules,
            size_bytes=found.size_bytes,
            path=str(folder),
        )

    return make


@pytest.fixture
def adapter(tmp_path: Path, fleet: Fleet, trained: MakeAdapter) -> MakeAdapter:
    """The same in the store and in the lake, where promotion finds it."""

    def make(number: int) -> Adapter:
        stored = store_adapter(trained(number), tmp_path / "adapters")
        fleet.lake.append([stored])
        return stored

    return make


@pytest.fixture
def decide(fleet: Fleet) -> MakeDecision:
    """A decision of the gate about an adapter, against what serves now, in the lake."""

    def make(
        candidate: Adapter, verdict: Verdict = "PASS", champion: str | None = None
    ) -> Decision:
        champion = champion or fleet.serving()
        decision = Decision(
            decision_id=f"{candidate.name}-{champion}-{verdict}",
            workload="triage",
            created_at=utcnow(),
            candidate=candidate.name,
            champion=champion,
            verdict=verdict,
            reasons=("accuracy +10 points",),
            comparisons=(),
            suite="holdout",
            suite_hash="h",
            candidate_evaluation_id="c",
            champion_evaluation_id="b",
        )
        fleet.lake.append([decision])
        return decision

    return make
