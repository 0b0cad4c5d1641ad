"""Where the tables are: open one at a version, create it, bring an older one up to date.

A table is refused, and left as it is, when reading it could go wrong: a newer Flywheel wrote it, or
it uses a Delta feature this reader does not honour.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from flywheel.errors import (
    ConfigError,
    LakeFormatError,
    LakeSchemaError,
    LakeVersionError,
    UpstreamUnavailableError,
)
from flywheel.lake.tables import TableSpec, arrow_schema
from flywheel.records import SCHEMA_VERSION

if TYPE_CHECKING:
    import pyarrow.dataset
    from deltalake import DeltaTable

VERSION_KEY = "flywheel.schemaVersion"
"""Table property that says which version of the columns the table was written with."""


_UNUSABLE = re.compile(r"[\[\]|^\\\x00-\x1f]|%[0-9A-Fa-f]{2}")
"""What delta-rs mistakes in a folder's name: it takes the path for a URL in places."""


def normalise_root(root: str) -> str:
    """A folder, or a `file://` URI, as an absolute path; any other URI as it is.

    Raises:
        ConfigError: the folder's path has characters delta-rs would misread.
    """
    parts = urlsplit(root)
    if "://" in root and parts.scheme != "file":
        return root.rstrip("/")
    folder = unquote(parts.path) if parts.scheme == "file" else root
    path = str(Path(folder).expanduser().absolute())
    if found := _UNUSABLE.search(path):
        problem = (
            f"{path!r} contains {found[0]!r}, which Delta tables cannot have in their path; choose "
            "a folder without [ ] | ^ \\ and %xx (FLYWHEEL_HOME or FLYWHEEL_LAKE_URI)"
        )
        raise ConfigError("lake root", [problem])
    return path


Partition = tuple[str, str, str | list[str]]
"""Partition column, `=` or `in`, value or values."""


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

    def files(self, table: "DeltaTable", name: str) -> list[str]:
        """The files active in a table, as DuckDB takes them.

        delta-rs writes a local root with its links resolved and percent-encoded, and the rest as it
        is on disk.
        """
        uris = table.file_uris()
        if not self.is_local:
            return uris
        encoded_root = table.table_uri.removeprefix("file://").rstrip("/")
        return [f"{self.uri(name)}{uri.removeprefix(encoded_root)}" for uri in uris]

    def dataset(
        self, table: "DeltaTable", name: str, partitions: "list[Partition] | None" = None
    ) -> "pyarrow.dataset.Dataset":
        """The table as Arrow reads it, or some of its partitions.

        A folder is read by Arrow itself: the handler of delta-rs calls back into Python from
        Arrow's threads, and a process that ends meanwhile aborts.
        """
        import pyarrow.fs as fs

        native = (
            fs.SubTreeFileSystem(self.uri(name), fs.LocalFileSystem()) if self.is_local else None
        )
        return table.to_pyarrow_dataset(filesystem=native, file_pruning_predicate=partitions)

    def open(self, name: str, *, version: int | None = None) -> "DeltaTable | None":
        """The table at a version (the latest when None), or None where there is none yet.

        Raises:
            LakeSchemaError: a newer Flywheel wrote it.
            LakeFormatError: it uses a Delta feature this reader would get wrong.
            LakeVersionError: it has no such version.
            UpstreamUnavailableError: the object store does not answer.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        if self.is_local and not Path(self.uri(name), "_delta_log").is_dir():
            return None
        try:
            table = DeltaTable(self.uri(name), storage_options=self.options)
        except TableNotFoundError:
            return None
        except OSError as error:
            if self.is_local:
                raise
            raise UpstreamUnavailableError(self.root, _last_line(error)) from error
        _check(name, table)
        if version is not None and version != table.version():
            _load_version(name, table, version)
        return table

    def open_or_create(self, spec: TableSpec) -> "DeltaTable":
        """The latest version of the table, with every column of its record.

        Created empty where there is none yet; columns younger than the table are added to it.
        """
        table = self.open(spec.name) or self._create(spec)
        while _add_columns(spec, table):
            table = self.open(spec.name) or table
        return table

    def _create(self, spec: TableSpec) -> "DeltaTable":
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

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


def _last_line(error: OSError) -> str:
    """The cause delta-rs names last, without its colours and arrows."""
    return re.sub(r"\x1b\[[0-9;]*m|\u21b3", "", str(error)).splitlines()[-1].strip()


def _load_version(name: str, table: "DeltaTable", version: int) -> None:
    from deltalake.exceptions import DeltaError

    latest = table.version()
    try:
        table.load_as_version(version)
    except (DeltaError, OverflowError) as error:
        raise LakeVersionError(name, version, latest) from error


def _add_columns(spec: TableSpec, table: "DeltaTable") -> bool:
    """Adds what the table lacks and says whether it lacked anything.

    Losing the commit to another writer is no failure: whoever looks again sees what is left to do.
    """
    from deltalake import Schema
    from deltalake.exceptions import CommitFailedError

    present = {field.name for field in table.schema().fields}
    missing = [
        field
        for field in Schema.from_arrow(arrow_schema(spec.name)).fields
        if field.name not in present
    ]
    is_old = _schema_version(table) < SCHEMA_VERSION
    with suppress(CommitFailedError):
        if missing:
            table.alter.add_columns(missing)
        if is_old:
            table.alter.set_table_properties(
                {VERSION_KEY: str(SCHEMA_VERSION)}, raise_if_not_exists=False
            )
    return bool(missing) or is_old


def _schema_version(table: "DeltaTable") -> int:
    """What the table says; a table that says nothing is taken for a first version."""
    return int(table.metadata().configuration.get(VERSION_KEY, 1))


def _check(name: str, table: "DeltaTable") -> None:
    found = _schema_version(table)
    if found > SCHEMA_VERSION:
        raise LakeSchemaError(name, found, SCHEMA_VERSION)
    features = set(table.protocol().reader_features or ())
    unreadable = sorted(features & {"deletionVectors", "columnMapping"})
    if unreadable:
        raise LakeFormatError(name, unreadable)
