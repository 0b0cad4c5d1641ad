"""Flywheel: production answers in, better adapters out, nothing worse than today's let through."""

from flywheel.errors import FlywheelError, TerminalError, TransientError
from flywheel.lake import Lake
from flywheel.records import Adapter, Assessment, Decision, Interaction, Message, Release, Snapshot
from flywheel.settings import Settings
from flywheel.workload import Workload

__all__ = [
    "Adapter",
    "Assessment",
    "Decision",
    "FlywheelError",
    "Interaction",
    "Lake",
    "Message",
    "Release",
    "Settings",
    "Snapshot",
    "TerminalError",
    "TransientError",
    "Workload",
]
