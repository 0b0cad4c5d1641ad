"""Capture: calls and judgements, durably on local disk first, then exactly once in the lake.

Input: what a gateway hands in. Output: `interactions`, `assessments`, `quarantine`.
Command: `flywheel capture drain`, `flywheel capture status`.
"""

from flywheel.capture.drain import DrainReport, drain
from flywheel.capture.sdk import Instrumentation, instrument, last_interaction_id, uninstrument
from flywheel.capture.spool import Spool
from flywheel.capture.status import SpoolStatus, read_status

__all__ = [
    "DrainReport",
    "Instrumentation",
    "Spool",
    "SpoolStatus",
    "drain",
    "instrument",
    "last_interaction_id",
    "read_status",
    "uninstrument",
]
