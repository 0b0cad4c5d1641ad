"""Capture without a gateway: an `openai` client whose calls are recorded where they are made.

Input: an OpenAI or AsyncOpenAI client. Output: the same client, and the Exchange of each call in a
spool, as the gateway would have written it.

    from flywheel.capture import instrument
    instrument(client, workload="triage")
"""

from flywheel.capture.sdk.client import (
    Instrumentation,
    instrument,
    last_interaction_id,
    uninstrument,
)

__all__ = ["Instrumentation", "instrument", "last_interaction_id", "uninstrument"]
