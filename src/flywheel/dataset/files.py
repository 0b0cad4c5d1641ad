"""A snapshot's folder: Parquet files, CARD.md, and last of all manifest.json.

Messages are JSON text in the Parquet columns: nested Parquet structs would insert nulls into tool
arguments. A folder without a manifest is not a snapshot, whatever else is in it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from flywheel.errors import DatasetError
from flywheel.records import DatasetKind, Record, Snapshot, Split, new_id

if TYPE_CHECKING:
    import pyarrow

MANIFEST = "manifest.json"
CARD = "CARD.md"
COLUMNS: Mapping[DatasetKind, tuple[str, ...]] = {
    "sft": ("prompt", "completion", "tools"),
    "dpo": ("prompt", "chosen", "rejected", "tools"),
}
"""The columns of each kind's files, all text: JSON; `tools` is NULL where the request had none."""
FileRow = Mapping[str, str | None]
"""A row of a file, by column."""


class FileEntry(Record):
    """One file of a snapshot."""

    rows: int
    bytes: int
    sha256: str


class Manifest(Record):
    """What a complete snapshot consists of."""

    snapshot: Snapshot
    files: dict[str, FileEntry]
    dropped: dict[str, int]
    """Labelled interactions that are not in it, by reason."""


def file_name(kind: DatasetKind, split: Split) -> str:
    """The name of a kind's and split's file."""
    return f"{kind}-{split}.parquet"


def write_files(
    snapshot: Snapshot,
    tables: Mapping[tuple[DatasetKind, Split], Sequence[FileRow]],
    *,
    card: str,
    dropped: Mapping[str, int],
) -> Manifest:
    """Writes a snapshot's folder; the manifest last, so that its existence means complete."""
    folder = Path(snapshot.path)
    folder.mkdir(parents=True, exist_ok=True)
    entries: dict[str, FileEntry] = {}
    for (kind, split), rows in tables.items():
        name = file_name(kind, split)
        _write(folder / name, partial(_write_parquet, kind=kind, rows=rows))
        entries[name] = _entry(folder / name, len(rows))
    _write(folder / CARD, partial(_write_text, text=card))
    manifest = Manifest(snapshot=snapshot, files=entries, dropped=dict(dropped))
    _write(folder / MANIFEST, partial(_write_text, text=manifest.model_dump_json(indent=2)))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Reads a snapshot's manifest.

    Raises:
        DatasetError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DatasetError(
            f"{folder} is not a complete snapshot: it has no {MANIFEST}. "
            "`flywheel dataset build` writes it again."
        ) from error
    except (OSError, ValidationError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error


def read_card(folder: Path) -> str:
    """A snapshot's card.

    Raises:
        DatasetError: the folder is no complete snapshot.
    """
    read_manifest(folder)
    try:
        return (folder / CARD).read_text(encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"{folder / CARD} cannot be read: {error}") from error


def is_complete(folder: Path) -> bool:
    """Whether the folder has its manifest and every file is as the manifest says."""
    try:
        manifest = read_manifest(folder)
        return all(
            _entry(folder / name, entry.rows) == entry for name, entry in manifest.files.items()
        )
    except (DatasetError, OSError):
        return False


def read_rows(folder: Path, kind: DatasetKind, split: Split) -> list[dict[str, str | None]]:
    """The rows of one file, messages still as JSON text.

    Raises:
        DatasetError: the snapshot has no such file.
    """
    import pyarrow.parquet as pq

    name = file_name(kind, split)
    known = read_manifest(folder).files
    if name not in known:
        raise DatasetError(f"{folder} has no {name}; it has: {', '.join(known)}")
    rows: list[dict[str, str | None]] = pq.read_table(folder / name).to_pylist()
    return rows


def _write(path: Path, write: Callable[[Path], None]) -> None:
    """Under another name first: a reader sees the whole file or none."""
    draft = path.with_name(f".{path.name}.{new_id()}")
    try:
        write(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _write_text(path: Path, *, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_parquet(path: Path, *, kind: DatasetKind, rows: Sequence[FileRow]) -> None:
    import pyarrow.parquet as pq

    pq.write_table(_to_table(kind, rows), path)


def _to_table(kind: DatasetKind, rows: Sequence[FileRow]) -> "pyarrow.Table":
    import pyarrow as pa

    schema = pa.schema([(name, pa.string()) for name in COLUMNS[kind]])
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def _entry(path: Path, rows: int) -> FileEntry:
    data = path.read_bytes()
    return FileEntry(rows=rows, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def to_json(value: object) -> str:
    """JSON text as the files hold it: keys as they came, nothing escaped that need not be."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
