"""Tables of readers into files, part by part: Parquet, CSV or JSON Lines by the file's ending, or a folder of parts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from rtls_analysis.addresses import file_to_write, is_folder
from rtls_analysis.schema import Table, from_arrow
from rtls_analysis.storage import StoreProblem, open_folder
from rtls_analysis.table_files import (
    COVERAGE,
    PartsWriter,
    clear_folder,
    finish_folder,
    folder_coverage,
    open_source,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["COVERAGE", "Output", "TableFile", "TableFolder", "open_output", "read_coverage"]


class Output(Protocol):
    """Where the parts of a table go; what it is about is told in `coverage` before it closes."""

    coverage: Mapping[str, Any]

    def write(self, part: pa.Table) -> None:
        """Add a part."""

    def __enter__(self) -> Output: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_output(address: str | os.PathLike[str], table: Table) -> Output:
    """Open a file, or a folder (it ends in a slash, or is there already), locally or at an address."""
    return TableFolder(address, table) if is_folder(address) else TableFile(address, table)


class TableFile:
    """A file that a table is written to, part by part, and that appears under its name when it is closed.

    Parameters
    ----------
    path
        Its ending says how: ``.parquet``, ``.csv`` or ``.jsonl``. One at an address is made ready on this machine.
    table
        The table that is to come.

    Attributes
    ----------
    coverage
        What was read for it; put into the metadata of a Parquet file, as JSON.

    Raises
    ------
    StoreProblem
        Another ending.
    """

    def __init__(self, path: str | os.PathLike[str], table: Table) -> None:
        self.coverage: Mapping[str, Any] = {}
        self._ending = Path(os.fspath(path)).suffix
        if self._ending not in (".parquet", ".csv", ".jsonl"):
            raise StoreProblem(
                f"cannot write {os.fspath(path)}: give a name that ends in .parquet, .csv or .jsonl, or a folder"
            )
        self._table = table
        self._first = True
        self._writer: Any = None
        self._stack = ExitStack()
        self._hidden, self._folder, self._name = self._stack.enter_context(file_to_write(path))
        try:
            if self._ending == ".parquet":
                import pyarrow.parquet as pq

                self._writer = pq.ParquetWriter(self._hidden, table.arrow_schema, compression="zstd")
            else:
                self._stream = self._hidden.open("w", encoding="utf-8", newline="")
        except BaseException:
            self._stack.close()
            raise

    def write(self, part: pa.Table) -> None:
        """Add a part."""
        if self._writer is not None:
            self._writer.write_table(part)
            return
        frame = from_arrow(self._table, part)
        if self._ending == ".csv":
            frame.to_csv(self._stream, index=False, header=self._first)
        else:
            frame.to_json(self._stream, orient="records", lines=True, date_format="iso", date_unit="us")
        self._first = False

    def __enter__(self) -> TableFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with self._stack:
            if self._writer is not None:
                self._writer.add_key_value_metadata({COVERAGE: json.dumps(self.coverage)})
                self._writer.close()
            else:
                self._stream.close()
            if kind is None or issubclass(kind, KeyboardInterrupt):  # what was done is kept
                self._folder.put(self._name, self._hidden)


class TableFolder:
    """A folder of Parquet parts that a table is written to; each part appears as soon as it is full.

    What the folder held of an earlier table goes. The parameters and `coverage` are those of `TableFile`; the coverage
    becomes a file in the folder.
    """

    def __init__(self, address: str | os.PathLike[str], table: Table) -> None:
        self.coverage: Mapping[str, Any] = {}
        self._folder = open_folder(address)
        self._table = table
        clear_folder(self._folder)
        self._writer = PartsWriter(self._folder, table)

    def write(self, part: pa.Table) -> None:
        """Add rows."""
        self._writer.write(part)

    def __enter__(self) -> TableFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            finish_folder(self._folder, self._table, self._writer.finish(), self.coverage)


def read_coverage(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The coverage in a Parquet file's metadata, or of a folder; empty where there is none."""
    import pyarrow.parquet as pq

    if is_folder(path):
        return folder_coverage(open_folder(path))
    metadata = pq.read_metadata(open_source(path)).metadata or {}
    coverage: dict[str, Any] = json.loads(metadata.get(COVERAGE.encode(), b"{}"))
    return coverage
