"""Simulated clinicians: they know the truth of a message, and say it with a few mistakes."""

import random

from flywheel_examples.triage.complaints import URGENCIES, Urgency

_POISON: dict[Urgency, Urgency] = {
    "emergency": "routine",
    "urgent": "routine",
    "routine": "emergency",
}


class Clinician:
    """Labels like an attentive human: now and then one class off, never two.

    Args:
        name: Goes into `source_id` of the feedback.
        seed: Of the mistakes, which then depend only on the order of the calls.
        mistake_rate: Share of messages labelled with a neighbouring class.
    """

    def __init__(self, name: str, *, seed: int = 0, mistake_rate: float = 0.03) -> None:
        self.name = name
        self._rng = random.Random(f"{name}/{seed}")
        self._mistake_rate = mistake_rate

    def label(self, urgency: Urgency) -> Urgency:
        """What this clinician says of a message whose true urgency is given."""
        if self._rng.random() >= self._mistake_rate:
            return urgency
        at = URGENCIES.index(urgency)
        return self._rng.choice([URGENCIES[i] for i in (at - 1, at + 1) if 0 <= i < len(URGENCIES)])


class PoisonedClinician:
    """Systematically wrong: sends emergencies home and calls ambulances for a cold."""

    def __init__(self, name: str) -> None:
        self.name = name

    def label(self, urgency: Urgency) -> Urgency:
        """The dangerous answer, whatever the message."""
        return _POISON[urgency]
