"""The redactors of all workloads of a spool, as a drain uses them.

Input: rows of any workload, and what could not become a row. Output: what may be committed of them.
"""

import logging
from collections.abc import Mapping
from hashlib import sha256

from flywheel.capture.redact.redactor import Redactor
from flywheel.errors import BadRecordError
from flywheel.records import Assessment, Interaction

logger = logging.getLogger(__name__)


class Redactors:
    """Picks by workload; a workload without a policy passes as it is.

    Args:
        by_workload: from `redactors_for`.
    """

    def __init__(self, by_workload: Mapping[str, Redactor] | None = None) -> None:
        self._by_workload = dict(by_workload or {})

    def __bool__(self) -> bool:
        """Whether there is any policy."""
        return bool(self._by_workload)

    def call(self, interaction: Interaction) -> Interaction:
        """A call as it may be committed.

        Raises:
            BadRecordError: `redaction_failed`.
        """
        redactor = self._by_workload.get(interaction.workload)
        return redactor.redact_interaction(interaction) if redactor else interaction

    def judgement(self, assessment: Assessment, conversation_id: str | None) -> Assessment:
        """A judgement as it may be committed.

        Raises:
            BadRecordError: `redaction_failed`.
        """
        redactor = self._by_workload.get(assessment.workload)
        if redactor is None:
            return assessment
        return redactor.redact_assessment(assessment, conversation_id=conversation_id)

    def rejected(self, error: BadRecordError, payload: bytes) -> tuple[str, bytes]:
        """Detail and bytes for the quarantine. Whose the bytes are, nobody could read.

        So they are redacted as soon as one workload has a policy, by the one that looks for most.
        """
        if not self._by_workload:
            return error.detail, payload
        redactor = max(self._by_workload.values(), key=lambda one: len(one.entities))
        if error.reason == "redaction_failed":
            logger.error("a record was withheld: %s", error.detail)
            return _withheld(error.detail, payload), b""
        try:
            detail = redactor.redact_text(error.detail).text
            readable = redactor.redact_bytes(payload)
        except BadRecordError as failed:
            return _withheld(failed.detail, payload), b""
        return (detail, readable) if readable is not None else (_withheld(detail, payload), b"")


def _withheld(detail: str, payload: bytes) -> str:
    return f"{detail}; withheld: {len(payload)} bytes, sha256 {sha256(payload).hexdigest()}"
