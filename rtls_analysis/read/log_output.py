"""Tables of logs into files, part by part: Parquet, CSV or JSON Lines, by the file's ending."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rtls_analysis.schema import Table, from_arrow
from rtls_analysis.store import StoreProblem

if TYPE_CHECKING:
    import pyarrow as pa

COVERAGE = "coverage"  # the key in a Parquet file's metadata


class TableFile:
    """A file that a table is written to, part by part, and that appears under its name when it is closed.

    Parameters
    ----------
    path
        Its ending says how: ``.parquet``, ``.csv`` or ``.jsonl``.
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
        self.path = Path(path)
        self.coverage: Mapping[str, Any] = {}
        self._table = table
        self._hidden = self.path.with_name(f".{self.path.name}.tmp")
        self._first = True
        self._writer: Any = None
        if self.path.suffix == ".parquet":
            import pyarrow.parquet as pq

            self._writer = pq.ParquetWriter(self._hidden, table.arrow_schema, compression="zstd")
        elif self.path.suffix in (".csv", ".jsonl"):
            self._stream = self._hidden.open("w", encoding="utf-8", newline="")
        else:
            raise StoreProblem(f"cannot write {self.path}: give a name that ends in .parquet, .csv or .jsonl")

    def write(self, part: pa.Table) -> None:
        """Add a part."""
        if self._writer is not None:
            self._writer.write_table(part)
            return
        frame = from_arrow(self._table, part)
        if self.path.suffix == ".csv":
            frame.to_csv(self._stream, index=False, header=self._first)
        else:
            frame.to_json(self._stream, orient="records", lines=True, date_format="iso", date_unit="us")
        self._first = False

    def __enter__(self) -> TableFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.add_key_value_metadata({COVERAGE: json.dumps(self.coverage)})
            self._writer.close()
        else:
            self._stream.close()
        if kind is None or issubclass(kind, KeyboardInterrupt):  # what was done is kept
            self._hidden.replace(self.path)
        else:
            self._hidden.unlink(missing_ok=True)


def read_coverage(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The coverage in a Parquet file's metadata; empty where it has none."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path).metadata or {}
    coverage: dict[str, Any] = json.loads(metadata.get(COVERAGE.encode(), b"{}"))
    return coverage
