"""Tables in files of their own: Parquet, CSV or JSON Lines, by the file's ending, written and read back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtls_analysis.schema import TABLES, Column, Kind, Table, conform, from_arrow, write_csv
from rtls_analysis.store import StoreProblem

if TYPE_CHECKING:
    import pandas as pd

COVERAGE = "coverage"
"""Key of what was read for a table, in the metadata of its Parquet file."""

_ENDINGS = "a name that ends in .parquet, .csv or .jsonl"


def write_table(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table to a file, whole or not at all; its ending says how: ``.parquet``, ``.csv`` or ``.jsonl``.

    In CSV lists are JSON; in both text forms times are ISO 8601 and missing values empty, or null. Parquet keeps
    the frame's coverage too.

    Raises
    ------
    StoreProblem
        Another ending.
    """
    target = Path(path)
    hidden = target.with_name(f".{target.name}.tmp")
    match target.suffix:
        case ".parquet":
            _write_parquet(frame, hidden)
        case ".csv":
            write_csv(frame, hidden)
        case ".jsonl":
            frame.to_json(hidden, orient="records", lines=True, date_format="iso", date_unit="us")
        case _:
            raise StoreProblem(f"cannot write {target}: give {_ENDINGS}")
    hidden.replace(target)


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table that this package wrote: its columns have their declared dtypes, whatever the file's form.

    A table of another make comes as it is; `table_of` tells which one a frame is.

    Raises
    ------
    StoreProblem
        The file is not there, has another ending, or cannot be read.
    """
    import pandas as pd

    source = Path(path)
    if not source.is_file():
        raise StoreProblem(f"there is no file {source}")
    try:
        match source.suffix:
            case ".parquet":
                return _read_parquet(source)
            case ".csv":
                frame = pd.read_csv(source, dtype=str, keep_default_na=False, na_values=[""])
            case ".jsonl":
                frame = pd.read_json(source, lines=True, dtype=False)
            case _:
                raise StoreProblem(f"cannot read {source}: give {_ENDINGS}")
    except (ValueError, OSError) as error:  # what pandas and pyarrow raise is one of these
        raise StoreProblem(f"cannot read {source}: {error}") from None
    table = table_of(frame.columns)
    if table is None:
        return frame
    known = {column.name: column for column in table.columns if column.name in frame}
    return conform(
        frame.assign(**{name: _from_text(frame[name], column) for name, column in known.items()}), table
    )


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame without pandas' own notes on it: those on lists keep pandas itself from reading the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = table_of(frame.columns)
    declared = table.by_name if table is not None else {}
    plain = frame.astype(
        {str(name): object for name in frame if isinstance(frame[name].dtype, _categorical())}
    )
    schema = pa.Schema.from_pandas(plain, preserve_index=False)
    fields = [
        field.with_type(declared[field.name].arrow) if field.name in declared else field for field in schema
    ]
    arrow = pa.Table.from_pandas(plain, schema=pa.schema(fields), preserve_index=False)
    metadata = {COVERAGE: json.dumps(frame.attrs["coverage"])} if "coverage" in frame.attrs else {}
    pq.write_table(arrow.replace_schema_metadata(metadata), path, compression="zstd")


def _categorical() -> type:
    import pandas as pd

    return pd.CategoricalDtype


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow.parquet as pq

    arrow = pq.read_table(path, partitioning=None)
    metadata = arrow.schema.metadata or {}
    table = table_of(arrow.column_names)
    frame = arrow.to_pandas() if table is None else conform(from_arrow(table, arrow), table)
    if coverage := metadata.get(COVERAGE.encode()):
        frame.attrs["coverage"] = json.loads(coverage)
    return frame


def table_of(columns: Iterable[str]) -> Table | None:
    """Tell which declared table has these columns: the one most of whose they are, three quarters at least."""
    names = set(columns)
    share = {
        table.name: len(names.intersection(table.names())) / len(table.columns) for table in TABLES.values()
    }
    best = max(share, key=lambda name: share[name])
    return TABLES[best] if share[best] >= 0.75 else None


def _from_text(values: pd.Series[Any], column: Column) -> pd.Series[Any]:
    """Give the values of a text form back their kind."""
    import base64

    import pandas as pd

    match column.kind:
        case Kind.FLAG:
            words = {"True": True, "False": False, True: True, False: False}
            return values.map(words).astype("boolean")
        case Kind.COUNT | Kind.SECONDS:
            return pd.to_numeric(values)
        case Kind.LIST:
            lists = [json.loads(value) if isinstance(value, str) else value for value in values]
            kept = [value if isinstance(value, list) else None for value in lists]
            return pd.Series(kept, index=values.index, dtype=column.dtype)
        case Kind.BYTES:
            data = [base64.b64decode(value) if isinstance(value, str) else None for value in values]
            return pd.Series(data, index=values.index, dtype=column.dtype)
        case _:
            return values
