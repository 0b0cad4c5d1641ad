"""Redactors for tests, with Presidio's real engine."""

from collections.abc import Mapping

from flywheel.capture.redact.policy import resolve_policy
from flywheel.capture.redact.redactor import Redactor
from flywheel.workload import RedactionSection


def redactor(*, secret: bytes = b"key", workload: str = "triage", **section: object) -> Redactor:
    """One for the policy standard-1; give the keys of the section that matter to the test."""
    return redactor_of(section, secret=secret, workload=workload)


def redactor_of(
    section: Mapping[str, object], *, secret: bytes = b"key", workload: str = "triage"
) -> Redactor:
    """The same, for the keys of a section."""
    declared = RedactionSection.model_validate({"policy": "standard-1", **section})
    policy = resolve_policy(declared, source="test")
    assert policy is not None
    return Redactor(workload, policy, secret=secret)
