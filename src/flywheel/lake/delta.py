"""The only door to Delta: open, create, commit by compare-and-swap.

A commit either becomes exactly the next version after the one it read, or fails. What Delta calls
a conflict-free append is not enough here: whether a row is new can only be decided against the
version the commit follows.
"""

import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from flywheel.errors import LakeFormatError, LakeSchemaError
from flywheel.lake.tables import TableSpec, arrow_schema
from flywheel.records import SCHEMA_VERSION, new_id

if TYPE_CHECKING:
    import pyarrow
    from deltalake import DeltaTable

VERSION_KEY = "flywheel.schemaVersion"
"""Table property that says which version of the columns the table was written with."""
COMMIT_KEY = "flywheel.commit"
"""Commit metadata by which a writer recognises its own commit after an error."""


def normalise_root(root: str) -> str:
    """A folder as an absolute path, a `file://` URI as the folder it names, other URIs as they are."""
    from pathlib import Path

    parts = urlsplit(root)
    if parts.scheme == "file":
        return unquote(parts.path).rstrip("/") or "/"
    if "://" in root:
        return root.rstrip("/")
    return str(Path(root).expanduser().absolute())


class Storage:
    """Where the tables are, and how to reach them."""

    def __init__(self, root: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.root = normalise_root(root)
        self.options = dict(storage_options) if storage_options else None

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine."""
        return "://" not in self.root

    def uri(self, name: str) -> str:
        """The table's URI."""
        return f"{self.root}/{name}"

    def open(self, name: str, *, version: int | None = None) -> "DeltaTable | None":
        """The table at a version (the latest when None), or None where there is none yet.

        Raises:
            LakeSchemaError: a newer Flywheel wrote it.
            LakeFormatError: it uses a Delta feature this reader would get wrong.
        """
        from pathlib import Path

        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        if self.is_local and not Path(self.uri(name), "_delta_log").is_dir():
            return None
        try:
            table = DeltaTable(self.uri(name), version=version, storage_options=self.options)
        except TableNotFoundError:
            return None
        _check(name, table)
        return table

    def open_or_create(self, spec: TableSpec) -> "DeltaTable":
        """The table, created empty where there is none yet."""
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        table = self.open(spec.name)
        if table is not None:
            return table
        try:
            return DeltaTable.create(
                self.uri(spec.name),
                schema=arrow_schema(spec.name),
                partition_by=list(spec.partition_by),
                configuration=_properties(spec),
                storage_options=self.options,
                raise_if_key_not_exists=False,
            )
        except DeltaError:
            # Another process created it between the look and the create; else the error stands.
            table = self.open(spec.name)
            if table is None:
                raise
            return table


def _properties(spec: TableSpec) -> dict[str, str | None]:
    properties: dict[str, str | None] = {VERSION_KEY: str(SCHEMA_VERSION)}
    if spec.statistics:
        properties["delta.dataSkippingStatsColumns"] = ",".join(spec.statistics)
    else:
        properties["delta.dataSkippingNumIndexedCols"] = "0"
    return properties


def _check(name: str, table: "DeltaTable") -> None:
    found = int(table.metadata().configuration.get(VERSION_KEY, SCHEMA_VERSION))
    if found > SCHEMA_VERSION:
        raise LakeSchemaError(name, found, SCHEMA_VERSION)
    features = set(table.protocol().reader_features or ())
    unreadable = sorted(features & {"deletionVectors", "columnMapping"})
    if unreadable:
        raise LakeFormatError(name, unreadable)


def try_commit(table: "DeltaTable", rows: "pyarrow.Table") -> bool:
    """Appends rows as exactly the version after the one `table` was opened at.

    Returns:
        False when somebody else committed that version first; then nothing was added.
    """
    from deltalake import CommitProperties, write_deltalake
    from deltalake.exceptions import CommitFailedError, DeltaError

    token = new_id()
    properties = CommitProperties(custom_metadata={COMMIT_KEY: token}, max_commit_retries=0)
    read_version = table.version()
    try:
        write_deltalake(table, rows, mode="append", commit_properties=properties)
    except DeltaError as error:
        # An error may come after the commit was written: the log knows, the exception does not.
        if _has_commit(table, read_version, token):
            return True
        if isinstance(error, CommitFailedError):
            return False
        raise
    return True


def _has_commit(table: "DeltaTable", since: int, token: str) -> bool:
    table.update_incremental()
    newer = table.version() - since
    return newer > 0 and any(entry.get(COMMIT_KEY) == token for entry in table.history(limit=newer))


def back_off(attempt: int) -> None:
    """Sleeps a random moment, longer with each attempt, so that writers stop colliding."""
    time.sleep(random.uniform(0.001, 0.01 * min(2**attempt, 32)))
