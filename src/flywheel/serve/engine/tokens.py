"""Text to token ids and back: the model's own tokenizer and chat template."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel.errors import BadRequestError, BaseModelError
from flywheel.records import JsonObject

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Tokenizer:
    """A fast tokenizer. Use it from one thread at a time, but for `decode`."""

    def __init__(self, path: Path) -> None:
        from transformers import AutoTokenizer

        try:
            loaded = AutoTokenizer.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError) as error:
            raise BaseModelError(str(path), [f"tokenizer: {error}"]) from error
        if not loaded.is_fast:
            raise BaseModelError(
                str(path), ["tokenizer: only fast ones (tokenizer.json) are served"]
            )
        self._tokenizer: PreTrainedTokenizerFast = loaded
        eos = loaded.eos_token_id
        self.eos = frozenset[int]() if eos is None else frozenset({int(eos)})
        """What ends a turn in the chat template; generation_config.json does not always name it."""
        self._bytes = _byte_alphabet() if _is_byte_level(loaded) else None

    def render(self, messages: Sequence[JsonObject]) -> list[int]:
        """The prompt for a conversation, up to where the assistant begins to speak.

        Raises:
            BadRequestError: the model's template refuses the conversation, or there is none.
        """
        from jinja2 import TemplateError

        if not self._tokenizer.chat_template:
            raise BadRequestError(
                "this model has no chat template; use /v1/completions", param="messages"
            )
        try:
            text = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, TypeError, KeyError) as error:
            raise BadRequestError(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error
        return self._encode(text, add_special_tokens=False)

    def encode(self, text: str) -> list[int]:
        """A plain prompt, with what the model expects at the start of a text."""
        return self._encode(text, add_special_tokens=True)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text without special tokens."""
        text: str = self._tokenizer.backend_tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def piece(self, token: int) -> tuple[str, bytes]:
        """One token as text, special ones too, and the bytes it stands for."""
        text: str = self._tokenizer.backend_tokenizer.decode([token], skip_special_tokens=False)
        name = self._tokenizer.convert_ids_to_tokens(token)
        if self._bytes is not None and name and all(char in self._bytes for char in name):
            return text, bytes(self._bytes[char] for char in name)
        return text, text.encode()

    def _encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        encoding = self._tokenizer.backend_tokenizer.encode(
            text, add_special_tokens=add_special_tokens
        )
        ids: list[int] = encoding.ids
        return ids


def _is_byte_level(tokenizer: "PreTrainedTokenizerFast") -> bool:
    return type(tokenizer.backend_tokenizer.decoder).__name__ == "ByteLevel"


def _byte_alphabet() -> dict[str, int]:
    """The characters byte-level BPE writes bytes as (GPT-2): printable ones as themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + at): byte for at, byte in enumerate(others)}
