"""What a call cost: the tokens a server reports, times a price table.

Input: a YAML file, model pattern -> USD per million tokens. Output: dollars, or None where the
model or the tokens are not known: an unknown cost is never 0.

    gpt-4o-mini: {input: 0.15, cached_input: 0.075, output: 0.60}
    "triage-*": {input: 0.02, output: 0.02}
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flywheel.errors import ConfigError

Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]

MAX_REMEMBERED = 1024
"""Model names whose price is remembered; a name may come from a server, so there is an end."""


class TokenUsage(NamedTuple):
    """Tokens of one call, as the server reports them."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int | None = None
    """Of `input_tokens`, those served from a cache; None where the server does not say."""

    @property
    def total_tokens(self) -> int:
        """What a limit of tokens counts."""
        return self.input_tokens + self.output_tokens


class Price(BaseModel):
    """USD per million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    input: Dollars
    cached_input: Dollars | None = None
    """As `input` when absent."""
    output: Dollars

    def cost_usd(self, usage: TokenUsage) -> float:
        """Of one call. Cached tokens are part of the input, as OpenAI counts them."""
        cached = min(usage.cached_input_tokens or 0, usage.input_tokens)
        cached_price = self.input if self.cached_input is None else self.cached_input
        total = (usage.input_tokens - cached) * self.input
        return (total + cached * cached_price + usage.output_tokens * self.output) / 1e6


class PriceTable:
    """Prices by model name.

    Args:
        prices: by pattern; `*` stands for any characters. A name written out wins over a pattern,
            a pattern with more characters of its own over one with fewer.
    """

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._exact = {name: price for name, price in prices.items() if "*" not in name}
        patterns = sorted((name for name in prices if "*" in name), key=_own_characters)
        self._patterns = [(_compiled(name), prices[name]) for name in reversed(patterns)]
        self._remembered: dict[str, Price | None] = {}

    @classmethod
    def load(cls, path: Path | None) -> Self:
        """Reads a price table; no path is an empty one.

        Raises:
            ConfigError: with every mistake, each with its line.
        """
        if path is None:
            return cls({})
        try:
            text = path.read_text(encoding="utf-8")
            root, data = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(str(path), [f"cannot be read: {error}"]) from error
        except yaml.YAMLError as error:
            raise ConfigError(str(path), [f"not YAML: {' '.join(str(error).split())}"]) from error
        if not isinstance(root, yaml.MappingNode) or not isinstance(data, dict):
            raise ConfigError(
                str(path), ["line 1: not a mapping of model names to {input, cached_input, output}"]
            )
        problems, prices = _duplicates(root), {}
        for name, fields in data.items():
            line = _line_of(root, name)
            try:
                prices[_name(name)] = Price.model_validate(fields)
            except ValidationError as error:
                problems += [f"line {line}: {name}: {_told(p)}" for p in error.errors()]
            except TypeError as error:
                problems.append(f"line {line}: {error}")
        if problems:
            raise ConfigError(str(path), problems)
        return cls(prices)

    def find(self, model: str) -> Price | None:
        """The price of a model, None when the table has none."""
        try:
            return self._remembered[model]
        except KeyError:
            pass
        found = self._exact.get(model)
        if found is None:
            found = next((price for rule, price in self._patterns if rule.fullmatch(model)), None)
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[model] = found
        return found

    def cost_usd(self, model: str, usage: TokenUsage | None) -> float | None:
        """What a call cost; None where its model has no price or its tokens are not known."""
        price = self.find(model) if usage is not None else None
        return price.cost_usd(usage) if price is not None and usage is not None else None


def _own_characters(pattern: str) -> int:
    return len(pattern) - pattern.count("*")


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, re.split(r"\*+", pattern))), re.DOTALL)


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{name!r}: a model name is text; put it in quotes")
    return name


def _told(problem: Mapping[str, object]) -> str:
    loc = problem["loc"]
    where = ".".join(str(part) for part in loc) if isinstance(loc, tuple) else ""
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key; valid: {', '.join(Price.model_fields)}"
    if problem["type"] == "missing":
        return f"{where}: is required and missing"
    return f"{where or 'price'}: {problem['msg']} (found {problem['input']!r:.80})"


def _duplicates(root: yaml.MappingNode) -> list[str]:
    """Names given twice: YAML would take the last without a word."""
    seen: dict[str, int] = {}
    problems = []
    for key, _ in root.value:
        line = key.start_mark.line + 1
        first = seen.setdefault(str(key.value), line)
        if first != line:
            problems.append(f"line {line}: {key.value}: has a price already, in line {first}")
    return problems


def _line_of(root: yaml.MappingNode, name: object) -> int:
    lines = [key.start_mark.line + 1 for key, _ in root.value if str(key.value) == str(name)]
    return lines[0] if lines else root.start_mark.line + 1
