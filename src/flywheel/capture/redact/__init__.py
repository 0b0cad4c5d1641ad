"""Redaction: identifiers leave a record before it is first committed to the lake.

Input: a record and the policy of its workload. Output: the record with placeholders.
Command: `flywheel capture redact-check` shows what a policy does to a text.

It finds what its patterns know and, with a spaCy model, names and places; docs/redaction.md has the
measured recall and what it does not find. Presidio is imported when the first text is analysed.
"""

from flywheel.capture.redact.known import redactors_for, remember_policy
from flywheel.capture.redact.redactor import Redacted, Redactor, redactor_for
from flywheel.capture.redact.several import Redactors

__all__ = [
    "Redacted",
    "Redactor",
    "Redactors",
    "redactor_for",
    "redactors_for",
    "remember_policy",
]
