"""Shipped fakes with the real interface, for this project's tests and for yours.

A scripted chat model, a tiny random language model with a real tokenizer, and records with sensible
defaults. None of them is a mock: each is the real thing, small.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flywheel.chat import Completion
from flywheel.records import Assessment, Interaction, Message, Qualification, new_id


class ScriptedChatModel:
    """A ChatModel that answers by a function of (model, messages), and remembers its calls."""

    def __init__(self, answer: Callable[[str, Sequence[Message]], str]) -> None:
        self._answer = answer
        self.calls: list[tuple[str, tuple[Message, ...]]] = []

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        model: str,
        temperature: float = 0.0,
        max_tokens: int = 64,
        seed: int | None = None,
    ) -> Completion:
        """Answers with the script; an exception the script raises is raised."""
        self.calls.append((model, tuple(messages)))
        return Completion(text=self._answer(model, messages), model=model, finish_reason="stop")


def make_interaction(**fields: object) -> Interaction:
    """An Interaction with sensible defaults; give the fields that matter to the test."""
    started = fields.get("started_at", datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC))
    identity = str(fields.get("interaction_id") or new_id())
    assert isinstance(started, datetime)
    values: dict[str, object] = {
        "interaction_id": identity,
        "workload": "triage",
        "event_date": started.astimezone(UTC).date(),
        "conversation_id": identity,
        "started_at": started,
        "duration_ms": 12.5,
        "request_model": "triage",
        "response_model": "base",
        "messages": (Message(role="user", content="My knee hurts."),),
        "response": Message(role="assistant", content="Rest it."),
        "finish_reason": "stop",
    }
    return Interaction.model_validate({**values, **fields})


def make_assessment(**fields: object) -> Assessment:
    """An Assessment with sensible defaults; give the fields that matter to the test."""
    created = fields.get("created_at", datetime(2026, 1, 2, 4, tzinfo=UTC))
    assert isinstance(created, datetime)
    values: dict[str, object] = {
        "assessment_id": new_id(),
        "workload": "triage",
        "event_date": created.astimezone(UTC).date(),
        "name": "urgency",
        "kind": "correction" if fields.get("correction") is not None else "feedback",
        "source_type": "human",
        "source_id": "dr-a",
        "created_at": created,
    }
    return Assessment.model_validate({**values, **fields})


def make_qualification(**fields: object) -> Qualification:
    """A Qualification that stands through 2026; give the fields that matter to the test."""
    created = fields.get("created_at", datetime(2026, 1, 1, tzinfo=UTC))
    assert isinstance(created, datetime)
    values: dict[str, object] = {
        "qualification_id": new_id(),
        "workload": "triage",
        "created_at": created,
        "expires_at": created + timedelta(days=365),
        "judge": "urgency",
        "judge_hash": "judge-hash",
        "judge_model": "judge-model",
        "rubric": "urgency@1",
        "gold_hash": "gold",
        "items": 100,
        "errors": 0,
        "measures": (),
        "qualified": True,
        "reasons": (),
    }
    return Qualification.model_validate({**values, **fields})


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tiny_model(folder: Path, *, seed: int = 0) -> Path:
    """Writes a random Llama of about 0.1 M parameters with a byte-level tokenizer, and returns it.

    It has the real architecture, chat template and file formats, so that everything that works on
    it works on a real model, except that what it says means nothing.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=special[1:2],
    )
    fast.chat_template = CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
        # Fifteen times the usual: a frozen random base with tiny logits cannot be taught by LoRA.
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def build_tiny_adapter(folder: Path, base: Path, *, base_model: str, seed: int = 1) -> Path:
    """Writes a random LoRA adapter over a tiny model, as PEFT saves it, and returns its folder.

    Args:
        folder: where it goes.
        base: what `build_tiny_model` wrote.
        base_model: the served id the adapter says it was trained on.
        seed: another seed, another adapter; its answers differ from the base model's.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
    model.peft_config["default"].base_model_name_or_path = base_model
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder
