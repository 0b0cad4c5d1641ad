"""The NLP engines Presidio is given, so that it never makes one that downloads.

Importing this module imports Presidio: only `analyzer` does, late.
"""

import re
from collections.abc import Iterable, Iterator

import spacy
from presidio_analyzer import EntityRecognizer
from presidio_analyzer.nlp_engine import (
    NerModelConfiguration,
    NlpArtifacts,
    NlpEngine,
    SpacyNlpEngine,
)
from presidio_analyzer.predefined_recognizers import SpacyRecognizer

from flywheel.capture.redact.fold import BLANK
from flywheel.capture.redact.policy import NER_ENTITIES

_WORD = re.compile(r"[^\W_]+|[^\w\s]|_")
_STOPWORDS = frozenset(
    {"a", "an", "and", "as", "at", "be", "for", "from", "in", "is", "it", "of", "on", "the", "was"}
)


class Words(NlpEngine):  # type: ignore[misc]
    """Lower-case words, which is what context words are compared with. No model, no entities."""

    def load(self) -> None:
        """There is nothing to load."""

    def is_loaded(self) -> bool:
        """Always."""
        return True

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        """The words of a text and where they are."""
        found = list(_WORD.finditer(text))
        words = [word[0] for word in found]
        return NlpArtifacts(
            entities=[],
            tokens=words,
            tokens_indices=[word.start() for word in found],
            lemmas=[word.lower() for word in words],
            nlp_engine=self,
            language=language,
        )

    def process_batch(
        self, texts: Iterable[str], language: str, **_: object
    ) -> Iterator[tuple[str, NlpArtifacts]]:
        """The words of each text."""
        for text in texts:
            yield text, self.process_text(text, language)

    def is_stopword(self, word: str, language: str) -> bool:
        """Words that do not count among the few before a match that are looked at."""
        return word.lower() in _STOPWORDS

    def is_punct(self, word: str, language: str) -> bool:
        """Neither letters nor digits. What was blanked counts, and keeps words before it away."""
        return word != BLANK and not any(map(str.isalnum, word))

    def get_supported_entities(self) -> list[str]:
        """None."""
        return []

    def get_supported_languages(self) -> list[str]:
        """As the recognisers."""
        return ["en"]


class InstalledModel(SpacyNlpEngine):  # type: ignore[misc]
    """A spaCy model that is here already; Presidio's own engine downloads one that is not."""

    def __init__(self, model: str) -> None:
        quiet = NerModelConfiguration(
            labels_to_ignore=[
                "CARDINAL", "EVENT", "LANGUAGE", "LAW", "MONEY", "ORDINAL", "PERCENT", "PRODUCT",
                "QUANTITY", "WORK_OF_ART",
            ]
        )  # fmt: skip
        super().__init__(
            models=[{"lang_code": "en", "model_name": model}], ner_model_configuration=quiet
        )

    def load(self) -> None:
        """Loads it, or raises OSError where it is gone."""
        self.nlp = {"en": spacy.load(self.models[0]["model_name"])}


def names_recognizer() -> EntityRecognizer:
    """Names and places as the model tells them."""
    return SpacyRecognizer(supported_entities=sorted(NER_ENTITIES))
