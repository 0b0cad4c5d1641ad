"""Importers: other systems' logs become interactions and assessments.

Input: files of seven formats, or spans at `POST /v1/traces`. Output: rows of `interactions`,
`assessments`, `quarantine`. Command: `flywheel capture import`. Tables: docs/importers.md.
"""

from flywheel.capture.importers.export import span_attributes
from flywheel.capture.importers.front import FormatName, ImportReport, detect_format, import_files
from flywheel.capture.importers.row import Source

__all__ = [
    "FormatName",
    "ImportReport",
    "Source",
    "detect_format",
    "import_files",
    "span_attributes",
]
