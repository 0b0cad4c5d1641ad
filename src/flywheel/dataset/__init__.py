"""Dataset: labels become immutable training data.

Input: the lake's view `responses`, the gate's suite (to keep it out). Output: a folder a snapshot,
with a Parquet file per kind and split, `CARD.md` and `manifest.json`; rows of `snapshots` and
`snapshot_rows`. Command: `flywheel dataset build`. docs/datasets.md describes the files, and they
stay as it says.
"""

from flywheel.dataset.build import build_snapshot
from flywheel.dataset.export import Shape, export_rows
from flywheel.dataset.files import Manifest, file_name, read_card, read_manifest
from flywheel.dataset.find import find_snapshot, list_snapshots

__all__ = [
    "Manifest",
    "Shape",
    "build_snapshot",
    "export_rows",
    "file_name",
    "find_snapshot",
    "list_snapshots",
    "read_card",
    "read_manifest",
]
