"""Records with placeholders where identifiers were.

Input: an Interaction, an Assessment, or the bytes of what became neither. Output: the same,
redacted, or a BadRecordError: what could not be looked at is never passed on.
"""

import hmac
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec

from pydantic import JsonValue

from flywheel.capture.parse import ERROR_TEXT_LIMIT
from flywheel.capture.redact.analyzer import Analyzer
from flywheel.capture.redact.policy import Policy, resolve_policy
from flywheel.capture.redact.scrub import Scrub
from flywheel.capture.redact.walk import Leaf, walk_text
from flywheel.errors import BadRecordError, ConfigError, FlywheelError, MissingExtraError
from flywheel.records import Assessment, Interaction, JsonObject, Message, Record
from flywheel.settings import Settings
from flywheel.workload import RedactionSection, Workload

_OPAQUE = re.compile(
    r"(?:^|\n|\\n)\s*data:\s*[\[{\\]"  # parts of a stream
    r"|(?=[A-Za-z0-9+/_-]*[G-Zg-z+/])[A-Za-z0-9+/_-]{60,}"  # base64, but not a hash in hex
)
_WITHHELD = "<WITHHELD "
_CUT_IDENTIFIER = 64
"""The parser cuts a long error message, perhaps inside an identifier: its last bit goes too."""
_JUDGED_TEXTS = ("name", "label", "rationale", "source_role", "rubric", "error_type")


class Redacted(Record):
    """A text and what was taken out of it."""

    text: str
    policy: str
    findings: tuple[JsonObject, ...]
    """Each with entity, score, start and end in the original, the original, and the placeholder."""


class Redactor:
    """Applies one workload's policy. It may be kept: a text it has seen is not analysed again.

    Args:
        workload: its name; keyed placeholders of two workloads never agree.
        policy: what to look for.
        secret: of the keyed placeholders and of conversations named after a person; empty: the
            first have no suffix, and such a conversation falls apart into its calls.
        analyzer: instead of the policy's own.
    """

    def __init__(
        self, workload: str, policy: Policy, *, secret: bytes, analyzer: Analyzer | None = None
    ) -> None:
        self.workload, self.policy = workload, policy.name
        self.entities = policy.entities
        self._policy, self._secret = policy, secret
        self._analyzer = analyzer or _analyzer(policy)

    def redact_interaction(self, interaction: Interaction) -> Interaction:
        """The call with placeholders, the policy's name and the count. Twice is as once.

        Raises:
            BadRecordError: `redaction_failed`.
        """
        with _nothing_passes_unseen():
            conversation_id = self._identity(interaction.conversation_id)
            conversation_id = conversation_id or interaction.interaction_id
            scrub = self._scrub(conversation_id)
            carries = not self._policy.is_keyed and _carries_history(interaction)
            carried, others = _carried(interaction), _others(interaction)
            scrub.learn(carried, is_numbered=carries)
            scrub.learn(list(others.values()), is_numbered=False)
            messages, response = (scrub.replaced(part) for part in carried)
            changed = {name: scrub.replaced(part) for name, part in others.items()}
            if len(interaction.error_message or "") >= ERROR_TEXT_LIMIT:
                changed["error_message"] = str(changed["error_message"])[:-_CUT_IDENTIFIER]
            update: dict[str, object] = {
                "conversation_id": conversation_id,
                "redaction_policy": self.policy,
                "redactions": (interaction.redactions or 0) + scrub.count,
            }
            if changed != others or scrub.count:
                update |= changed | {
                    "messages": _messages(messages),
                    "response": None if response is None else Message.model_validate(response),
                    "alternatives": _messages(changed["alternatives"]),
                }
            return interaction.model_copy(update=update)

    def redact_assessment(
        self, assessment: Assessment, *, conversation_id: str | None = None
    ) -> Assessment:
        """The judgement with placeholders.

        Args:
            assessment: as it came.
            conversation_id: of the call it judges, as the lake has it: keyed placeholders agree
                with the call's only when it is given.

        Raises:
            BadRecordError: `redaction_failed`.
        """
        with _nothing_passes_unseen():
            named = {
                field: self._identity(value)
                for field in ("conversation_id", "source_id")
                if (value := getattr(assessment, field)) is not None
            }
            scope = conversation_id or named.get("conversation_id") or assessment.interaction_id
            scrub = self._scrub(scope or assessment.assessment_id)
            texts = {name: getattr(assessment, name) for name in _JUDGED_TEXTS}
            correction = _dumped(assessment.correction)
            scrub.learn([correction, *texts.values()], is_numbered=False)
            update: dict[str, object] = {name: scrub.replaced(text) for name, text in texts.items()}
            if correction is not None:
                update["correction"] = Message.model_validate(scrub.replaced(correction))
            return assessment.model_copy(update=update | named)

    def redact_text(self, text: str) -> Redacted:
        """What the policy does to one text.

        Raises:
            BadRecordError: `redaction_failed`.
        """
        with _nothing_passes_unseen():
            scrub = self._scrub("")
            scrub.learn([text], is_numbered=not self._policy.is_keyed)
            changed = str(scrub.replaced(text))
            return Redacted(text=changed, policy=self.policy, findings=tuple(scrub.findings))

    def redact_bytes(self, payload: bytes) -> bytes | None:
        """A payload nobody could parse, as far as it is text that can be looked at.

        Parts of a stream are left out as a whole: an identifier is cut in two between its chunks.

        Returns:
            None where it is not such text: withhold it.

        Raises:
            BadRecordError: `redaction_failed`.
        """
        with _nothing_passes_unseen():
            try:
                text = payload.decode()
            except UnicodeDecodeError:
                return None
            readable = walk_text(text, _without_opaque)
            if readable.startswith(_WITHHELD):  # not a part of it, but all
                return None
            scrub = self._scrub("")
            scrub.learn([readable], is_numbered=False)
            return str(scrub.replaced(readable)).encode()

    def _scrub(self, scope: str) -> Scrub:
        return Scrub(self._analyzer, secret=self._secret, scope=f"{self.workload}\0{scope}")

    def _identity(self, value: str) -> str | None:
        """An id that names nobody: itself, or its HMAC, so that what it joins stays joined."""
        if not self._analyzer.find(value):
            return value
        if not self._secret:
            return None
        return hmac.new(self._secret, value.encode("utf-8", "surrogatepass"), sha256).hexdigest()


def redactor_for(workload: Workload, settings: Settings) -> Redactor | None:
    """The redactor of a workload; None where its policy is `none`.

    Raises:
        ConfigError: the policy cannot be applied here.
        MissingExtraError: Presidio is not installed.
    """
    return make_redactor(workload.name, workload.capture.redaction, settings)


def make_redactor(workload: str, section: RedactionSection, settings: Settings) -> Redactor | None:
    """As `redactor_for`, where there is no workload file at hand.

    Raises:
        ConfigError: the policy cannot be applied here.
        MissingExtraError: Presidio is not installed.
    """
    policy = resolve_policy(section, source=f"workload {workload}")
    if policy is None:
        return None
    if find_spec("presidio_analyzer") is None:
        raise MissingExtraError("presidio-analyzer", "redact")
    secret = settings.subject_key_secret.get_secret_value().encode()
    if policy.is_keyed and not secret:
        problem = "keyed needs FLYWHEEL_SUBJECT_KEY_SECRET; set it, or take numbered"
        raise ConfigError(f"workload {workload}", [f"capture.redaction.placeholders: {problem}"])
    return Redactor(workload, policy, secret=secret)


@lru_cache(maxsize=8)
def _analyzer(policy: Policy) -> Analyzer:
    """One for all redactors of a policy, so that what one has seen the others know."""
    return Analyzer(policy)


@contextmanager
def _nothing_passes_unseen() -> Iterator[None]:
    """Any failure of an analyser stops the record; its message may quote what it stumbled over."""
    try:
        yield
    except (FlywheelError, MemoryError):  # not this record's fault: the whole drain stops
        raise
    except Exception as error:  # noqa: BLE001 - unknown code on unknown text; told, never swallowed
        told = f"the redactor raised {type(error).__name__}"
        raise BadRecordError("redaction_failed", told) from None


def _carries_history(interaction: Interaction) -> bool:
    """Whether the request holds all turns before it, as far as the record tells."""
    answers = sum(message.role == "assistant" for message in interaction.messages)
    return interaction.turn_index is None or answers >= interaction.turn_index


def _carried(interaction: Interaction) -> list[JsonValue]:
    """What the next call of the conversation will carry, in order: messages, then the answer."""
    messages: list[JsonValue] = [message.model_dump() for message in interaction.messages]
    return [messages, _dumped(interaction.response)]


def _others(interaction: Interaction) -> dict[str, JsonValue]:
    """Texts no later call carries. Tool definitions are the application's own, and stay."""
    return {
        "alternatives": [message.model_dump() for message in interaction.alternatives],
        "request_params": interaction.request_params,
        "error_type": interaction.error_type,
        "error_message": interaction.error_message,
        "tags": interaction.tags,
    }


def _dumped(message: Message | None) -> JsonObject | None:
    return None if message is None else message.model_dump()


def _messages(dumped: JsonValue) -> tuple[Message, ...]:
    assert isinstance(dumped, list)
    return tuple(Message.model_validate(one) for one in dumped)


def _without_opaque(leaf: Leaf) -> str:
    """A leaf of a payload, or where it cannot be read as words, only its hash."""
    if _OPAQUE.search(leaf.text) is None:
        return leaf.text
    data = leaf.text.encode("utf-8", "surrogatepass")
    return f"{_WITHHELD}{len(data)} bytes, sha256 {sha256(data).hexdigest()}>"
