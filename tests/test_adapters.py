import json
import struct
import time
from pathlib import Path

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from flywheel.adapters import CONFIG_FILE, WEIGHTS_FILE, inspect_adapter, served_name
from flywheel.errors import AdapterError
from flywheel.records import JsonObject

BASE = "some/base"
PREFIX = "base_model.model.model.layers.0"
Array = numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.float32]]


def lora(rank: int = 8, width: int = 16) -> dict[str, Array]:
    random = numpy.random.default_rng(0)
    return {
        f"{PREFIX}.{module}.lora_{side}.weight": random.normal(
            size=(rank, width) if side == "A" else (width, rank)
        ).astype("float32")
        for module in ("self_attn.q_proj", "mlp.up_proj")
        for side in "AB"
    }


def write_weights(path: Path, tensors: dict[str, Array], *, dtype: str = "F32") -> None:
    """The safetensors format by hand, so that every corruption can be written too."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in tensors.items():
        data = tensor.tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def write_adapter(
    folder: Path, tensors: dict[str, Array] | None = None, **config: JsonValue
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    fields: JsonObject = {
        "peft_type": "LORA",
        "base_model_name_or_path": BASE,
        "r": 8,
        "lora_alpha": 32,
        "target_modules": ["q_proj", "up_proj"],
        **config,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(fields), encoding="utf-8")
    write_weights(folder / WEIGHTS_FILE, lora() if tensors is None else tensors)
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")


def refusal(folder: Path, *, base_model: str | None = None) -> str:
    with pytest.raises(AdapterError) as caught:
        inspect_adapter(folder, base_model=base_model)
    assert str(folder) in str(caught.value)
    return caught.value.reason


def test_a_good_adapter_is_described(adapter: Path) -> None:
    found = inspect_adapter(adapter, base_model=BASE)
    assert found.rank == 8
    assert found.alpha == 32
    assert found.base_model == BASE
    assert found.target_modules == ("q_proj", "up_proj")
    assert found.size_bytes == (adapter / WEIGHTS_FILE).stat().st_size
    assert len(found.adapter_id) == 64
    assert found.served_name("triage") == served_name("triage", found.adapter_id)
    assert found.served_name("triage") == f"triage-{found.adapter_id[:12]}"


def test_identity_is_the_weights_and_not_their_order_or_the_config(tmp_path: Path) -> None:
    tensors = lora()
    one = write_adapter(tmp_path / "one", tensors)
    reverse = {name: tensors[name] for name in reversed(tensors)}
    two = write_adapter(tmp_path / "two", reverse, lora_alpha=16)
    assert (one / WEIGHTS_FILE).read_bytes() != (two / WEIGHTS_FILE).read_bytes()
    assert inspect_adapter(one).adapter_id == inspect_adapter(two).adapter_id


def test_one_changed_bit_is_another_identity(tmp_path: Path, adapter: Path) -> None:
    tensors = lora()
    tensors[f"{PREFIX}.mlp.up_proj.lora_B.weight"][3, 3] += 1e-3
    other = write_adapter(tmp_path / "other", tensors)
    assert inspect_adapter(adapter).adapter_id != inspect_adapter(other).adapter_id


def test_the_format_is_the_one_safetensors_writes(tmp_path: Path, adapter: Path) -> None:
    from safetensors.numpy import save_file

    save_file(lora(), tmp_path / "theirs.safetensors")
    ours = inspect_adapter(adapter).adapter_id
    (tmp_path / "theirs.safetensors").replace(adapter / WEIGHTS_FILE)
    assert inspect_adapter(adapter).adapter_id == ours


def test_absent_folder_config_and_weights_are_each_named(tmp_path: Path, adapter: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "nowhere")
    (adapter / WEIGHTS_FILE).unlink()
    assert f"{WEIGHTS_FILE} is missing" in refusal(adapter)
    (adapter / CONFIG_FILE).unlink()
    assert f"{CONFIG_FILE} is missing" in refusal(adapter)


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"peft_type": "LORA"}', "\xff"])
def test_a_config_that_is_not_one_is_refused(adapter: Path, text: str) -> None:
    (adapter / CONFIG_FILE).write_bytes(text.encode("latin-1"))
    assert f"{CONFIG_FILE} is not valid" in refusal(adapter)


@pytest.mark.parametrize("name", ["a.bin", "b.pt", "c.PKL", "d.pth", "sub/optimizer.ckpt"])
def test_a_pickle_anywhere_in_the_folder_is_refused(adapter: Path, name: str) -> None:
    (adapter / name).parent.mkdir(exist_ok=True)
    (adapter / name).write_bytes(b"\x80\x04.")
    assert "may run code" in refusal(adapter)


def test_another_base_is_refused(adapter: Path) -> None:
    assert "trained on 'some/base', not on 'other/base'" in refusal(
        adapter, base_model="other/base"
    )


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"peft_type": "IA3"}, "only LORA"),
        ({"r": 7}, "rank 7 cannot be served; valid: 1, 8, 16"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"r": 16}, "is not of rank 16"),
    ],
)
def test_what_no_server_takes_is_refused(tmp_path: Path, config: JsonObject, reason: str) -> None:
    assert reason in refusal(write_adapter(tmp_path / "adapter", None, **config))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    tensors = lora()
    tensors[f"{PREFIX}.mlp.up_proj.lora_A.weight"][0, 5] = value
    assert "NaN or Inf" in refusal(write_adapter(tmp_path / "adapter", tensors))


def test_half_precision_is_read_bit_by_bit(adapter: Path) -> None:
    """bfloat16 1.0 is 0x3F80 and Inf 0x7F80; neither is read as a number."""
    bits = {name: numpy.full(t.shape, 0x3F80, "<u2") for name, t in lora().items()}
    write_weights(adapter / WEIGHTS_FILE, bits, dtype="BF16")
    assert inspect_adapter(adapter).rank == 8
    bits[f"{PREFIX}.mlp.up_proj.lora_A.weight"][0, 0] = 0x7F80
    write_weights(adapter / WEIGHTS_FILE, bits, dtype="BF16")
    assert "NaN or Inf" in refusal(adapter)


def test_tensors_that_are_not_lora_are_refused(tmp_path: Path) -> None:
    extra = {**lora(), "base_model.model.lm_head.weight": numpy.zeros((4, 4), "float32")}
    assert "not a LoRA A or B" in refusal(write_adapter(tmp_path / "extra", extra))
    half = {name: tensor for name, tensor in lora().items() if "lora_B" not in name}
    assert "has no A and B" in refusal(write_adapter(tmp_path / "half", half))
    assert "holds no tensors" in refusal(write_adapter(tmp_path / "empty", {}))


def test_every_truncation_is_noticed(adapter: Path) -> None:
    whole = (adapter / WEIGHTS_FILE).read_bytes()
    for size in (0, 3, 8, 100, len(whole) // 2, len(whole) - 1):
        (adapter / WEIGHTS_FILE).write_bytes(whole[:size])
        assert "truncated" in refusal(adapter)
    (adapter / WEIGHTS_FILE).write_bytes(whole + b"more")
    assert "bytes its header does not name" in refusal(adapter)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400))
def test_any_bytes_as_weights_are_an_adapter_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = write_adapter(tmp_path_factory.mktemp("adapter"))
    (folder / WEIGHTS_FILE).write_bytes(data)
    refusal(folder)


@settings(max_examples=60, deadline=None)
@given(
    header=st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets"]), inner)
            ),
            max_leaves=8,
        ),
        max_size=3,
    )
)
def test_any_header_is_an_adapter_error(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, object]
) -> None:
    folder = write_adapter(tmp_path_factory.mktemp("adapter"))
    text = json.dumps(header).encode()
    (folder / WEIGHTS_FILE).write_bytes(struct.pack("<Q", len(text)) + text)
    refusal(folder)


def test_twenty_megabytes_take_a_fraction_of_a_second(tmp_path: Path) -> None:
    random = numpy.random.default_rng(0)
    tensors = {
        f"base_model.model.model.layers.{layer}.mlp.up_proj.lora_{side}.weight": random.normal(
            size=(8, 10_240) if side == "A" else (10_240, 8)
        ).astype("float32")
        for layer in range(30)
        for side in "AB"
    }
    folder = write_adapter(tmp_path / "adapter", tensors)
    assert (folder / WEIGHTS_FILE).stat().st_size > 19_000_000
    started = time.perf_counter()
    inspect_adapter(folder)
    assert time.perf_counter() - started < 1.0
