"""Tables in files of their own: Parquet, CSV or JSON Lines, by the file's ending, written and read back.

A table that is too large for one file is a folder of Parquet parts, which several machines can write at a time; its
coverage lies beside them. Files and folders may be at an address, such as ``s3://bucket/deliveries/``.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from rtls_analysis.addresses import file_to_write, is_folder
from rtls_analysis.frames import Frame, collected, from_parts, in_parts, is_dask, mapped, with_attrs
from rtls_analysis.schema import TABLES, Column, Kind, Table, conform, from_arrow, write_csv
from rtls_analysis.storage import Folder, StoreProblem, is_address, open_folder

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

COVERAGE = "coverage"
"""Key of what was read for a table, in the metadata of its Parquet file."""

FOLDER_COVERAGE = "_coverage.json"
"""The same for a folder of parts: a file, which those who read Parquet folders pass over."""

GROUP_NOTE = "_group-"
"""How the notes begin that those leave in a folder who write it together, until it is whole."""

ROWS_PER_PART = 250_000
BYTES_PER_PART = 48 << 20  # packed
ROWS_AT_ONCE = 50_000

_ENDINGS = "a name that ends in .parquet, .csv or .jsonl"


def write_table(frame: Frame, path: str | os.PathLike[str]) -> None:
    """Write a table to a file, whole or not at all; its ending says how: ``.parquet``, ``.csv`` or ``.jsonl``.

    The file may be at an address. A name that ends in a slash, or that of a folder, is written as a folder of parts.

    In CSV lists are JSON; in both text forms times are ISO 8601 and missing values empty, or null. Parquet keeps
    the frame's coverage too.

    A Dask frame is written partition by partition, so that it need not fit into memory; into a folder by the workers
    themselves, who have to see it.

    Raises
    ------
    StoreProblem
        Another ending, or a folder that the workers do not see.
    """
    coverage = getattr(frame, "attrs", {}).get(COVERAGE)
    if is_folder(path):
        table = table_of(frame.columns)
        if table is None:
            raise StoreProblem(
                f"cannot write {os.fspath(path)}: only this package's own tables go into folders"
            )
        folder = open_folder(path)
        clear_folder(folder)
        written = collected(mapped(frame, _write_parts, folder=folder, table=table))["part"].to_list()
        if unseen := set(written) - set(folder.list("")):
            raise StoreProblem(
                f"{folder.address} is not where the workers wrote {min(unseen)}: give a path that all of them share, "
                "or an address such as s3://BUCKET/NAME/"
            )
        finish_folder(folder, table, written, coverage)
        return
    with file_to_write(path) as (hidden, folder, name):
        match Path(name).suffix:
            case ".parquet":
                _write_parquet(_bits(frame), hidden, coverage)
            case ".csv":
                with hidden.open("w", encoding="utf-8", newline="") as stream:
                    for number, bit in enumerate(_bits(frame)):
                        write_csv(bit, stream, header=number == 0)
            case ".jsonl":
                with hidden.open("w", encoding="utf-8", newline="") as stream:
                    for bit in _bits(frame):
                        bit.to_json(stream, orient="records", lines=True, date_format="iso", date_unit="us")
            case _:
                raise StoreProblem(f"cannot write {os.fspath(path)}: give {_ENDINGS}")
        folder.put(name, hidden)


@overload
def read_table(path: str | os.PathLike[str], *, dask: Literal[False] = False) -> pd.DataFrame: ...
@overload
def read_table(path: str | os.PathLike[str], *, dask: Literal[True]) -> Frame: ...
def read_table(path: str | os.PathLike[str], *, dask: bool = False) -> Frame:
    """Read a table that this package wrote: its columns have their declared dtypes, whatever the file's form.

    A table of another make comes as it is; `table_of` tells which one a frame is.

    Parameters
    ----------
    path
        A file, or a folder of Parquet parts; also at an address.
    dask
        Give a folder as a ``dask.dataframe`` with a partition per part; nothing is read yet but its coverage.

    Raises
    ------
    StoreProblem
        The file is not there, has another ending, or cannot be read.
    """
    import pandas as pd

    if is_folder(path):
        return _read_folder(open_folder(path), dask=dask)
    if dask:
        raise StoreProblem(f"cannot read {os.fspath(path)} by parts: dask= is for folders")
    source = open_source(path)
    try:
        match Path(os.fspath(path)).suffix:
            case ".parquet":
                return _read_parquet(source)
            case ".csv":
                frame = pd.read_csv(source, dtype=str, keep_default_na=False, na_values=[""])
            case ".jsonl":
                frame = pd.read_json(source, lines=True, dtype=False)
            case _:
                raise StoreProblem(f"cannot read {os.fspath(path)}: give {_ENDINGS}, or a folder")
    except (ValueError, OSError) as error:  # what pandas and pyarrow raise is one of these
        raise StoreProblem(f"cannot read {os.fspath(path)}: {error}") from None
    table = table_of(frame.columns)
    if table is None:
        return frame
    known = {column.name: column for column in table.columns if column.name in frame}
    return conform(
        frame.assign(**{name: _from_text(frame[name], column) for name, column in known.items()}), table
    )


def open_source(path: str | os.PathLike[str]) -> Path | io.BytesIO:
    """Give a file to read from; what lies at an address is fetched whole.

    Raises
    ------
    StoreProblem
        It is not there, or cannot be fetched.
    """
    text = os.fspath(path)
    if is_address(text):
        folder, _slash, name = text.rpartition("/")
        try:
            return io.BytesIO(open_folder(folder).read(name))
        except FileNotFoundError:
            raise StoreProblem(f"there is no file {text}") from None
        except OSError as error:
            raise StoreProblem(f"cannot read {text}: {error}") from None
    if not Path(text).is_file():
        raise StoreProblem(f"there is no file {text}")
    return Path(text)


def _bits(frame: Frame) -> Iterator[pd.DataFrame]:
    """Give a frame bit by bit, with the dtypes of its table; one bit at least."""
    table = table_of(map(str, frame.columns))
    if not is_dask(frame) or table is None:  # what is none of our tables is a result, and small
        yield collected(frame)
        return
    is_first = True
    for part in in_parts(frame):
        if len(part):
            yield conform(part, table)[list(frame.columns)]
            is_first = False
    if is_first:
        yield conform(collected(frame), table)[list(frame.columns)]


def _write_parquet(bits: Iterable[pd.DataFrame], path: Path, coverage: Any) -> None:
    """Write a frame without pandas' own notes on it: those on lists keep pandas itself from reading the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: pq.ParquetWriter | None = None
    try:
        for bit in bits:
            plain = _plain(bit)
            if writer is None:
                table = table_of(map(str, bit.columns))
                known = table.by_name if table is not None else {}
                fields = [
                    field.with_type(known[field.name].arrow) if field.name in known else field
                    for field in pa.Schema.from_pandas(plain, preserve_index=False)
                ]
                metadata = {COVERAGE: json.dumps(coverage)} if coverage is not None else {}
                schema = pa.schema(fields, metadata=metadata)
                writer = pq.ParquetWriter(path, schema, compression="zstd")
            arrow = pa.Table.from_pandas(plain, schema=schema, preserve_index=False)
            writer.write_table(arrow.replace_schema_metadata(metadata))
    finally:
        if writer is not None:
            writer.close()


def _write_parts(
    frame: pd.DataFrame, folder: Folder, table: Table, partition_info: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Write a frame, or a partition, as parts under its number; gives their names."""
    import pandas as pd
    import pyarrow as pa

    writer = PartsWriter(folder, table, partition_info["number"] if partition_info else 0)
    plain = _plain(conform(frame, table))
    writer.write(pa.Table.from_pandas(plain, schema=table.arrow_schema, preserve_index=False))
    return pd.DataFrame({"part": pd.Series(writer.finish(), dtype=object)})


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return frame.astype(
        {str(name): object for name in frame if isinstance(frame[name].dtype, pd.CategoricalDtype)}
    )


def _read_parquet(path: Path | io.BytesIO) -> pd.DataFrame:
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


# -- folders of parts -----------------------------------------------------------------------------------------

_PART = re.compile(r"part-\d{5,}-\d{6,}\.parquet")


class PartsWriter:
    """Parquet parts of a table in a folder, in bounded memory: each appears whole or not at all.

    Parameters
    ----------
    folder, table
        Where, and what.
    group
        Number of those who write there at the same time: the names of their parts differ by it, and depend on nothing
        else. What a group left in the folder is removed first.
    """

    def __init__(self, folder: Folder, table: Table, group: int = 0) -> None:
        self._folder = folder
        self._table = table
        self._prefix = f"part-{group:05}-"
        self._names: list[str] = []
        self._held: list[pa.Table] = []
        self._buffer = io.BytesIO()
        self._writer: Any = None
        self._rows = 0
        for name in folder.list(""):
            if name.startswith(self._prefix):
                folder.remove(name)

    def write(self, rows: pa.Table) -> None:
        """Add rows, of exactly the columns of the table."""
        if rows.num_rows:
            self._held.append(rows)
        if sum(held.num_rows for held in self._held) >= ROWS_AT_ONCE:
            self._pack()

    def finish(self) -> list[str]:
        """Write the rest; gives the names of the parts, none where there was no row."""
        self._pack()
        self._publish()
        return self._names

    def _pack(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._held:
            return
        rows = pa.concat_tables(self._held)
        self._held = []
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._buffer, self._table.arrow_schema, compression="zstd")
        self._writer.write_table(rows)
        self._rows += rows.num_rows
        if self._rows >= ROWS_PER_PART or self._buffer.tell() >= BYTES_PER_PART:
            self._publish()

    def _publish(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        name = f"{self._prefix}{len(self._names) + 1:06}.parquet"
        self._folder.write(name, self._buffer.getvalue())
        self._names.append(name)
        self._buffer, self._writer, self._rows = io.BytesIO(), None, 0


def clear_folder(folder: Folder) -> None:
    """Make a folder ready for a table: parts and coverage that were written there before are removed.

    Raises
    ------
    StoreProblem
        It holds Parquet files of another make, or cannot be written to.
    """
    try:
        names = folder.list("")
        foreign = [name for name in names if name.endswith(".parquet") and not _PART.fullmatch(name)]
        if foreign:
            raise StoreProblem(
                f"{folder.address} holds other Parquet files, as {foreign[0]}: give another folder"
            )
        folder.make()
        for name in names:
            if _PART.fullmatch(name) or name == FOLDER_COVERAGE or name.startswith(GROUP_NOTE):
                folder.remove(name)
    except OSError as error:
        raise StoreProblem(f"cannot write to {folder.address}: {error}") from None


def finish_folder(
    folder: Folder, table: Table, parts: Iterable[str], coverage: Mapping[str, Any] | None
) -> list[str]:
    """Say that a folder is whole: these parts, and no other; one without rows where there are none."""
    import pyarrow.parquet as pq

    kept = sorted(parts)
    listed = set(kept)
    for name in folder.list(""):
        if (_PART.fullmatch(name) and name not in listed) or name.startswith(GROUP_NOTE):
            folder.remove(name)
    if not kept:
        kept = ["part-00000-000001.parquet"]
        buffer = io.BytesIO()
        pq.write_table(table.arrow_schema.empty_table(), buffer)
        folder.write(kept[0], buffer.getvalue())
    if coverage is not None:
        folder.write(FOLDER_COVERAGE, json.dumps(coverage).encode())
    return kept


def folder_frame(folder: Folder, table: Table, parts: Iterable[str], coverage: Mapping[str, Any]) -> Any:
    """Give parts in a folder as a Dask frame, with the coverage."""
    root, filesystem = folder.arrow
    paths = [f"{root}/{name}" for name in parts]
    return with_attrs(from_parts(table, paths, filesystem), {COVERAGE: coverage} if coverage else {})


def folder_coverage(folder: Folder) -> dict[str, Any]:
    """The coverage of the table in a folder; empty where it has none."""
    try:
        coverage: dict[str, Any] = json.loads(folder.read(FOLDER_COVERAGE))
    except FileNotFoundError:
        return {}
    return coverage


def _read_folder(folder: Folder, *, dask: bool) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = [name for name in folder.list("") if name.endswith(".parquet") and name[0] not in "._"]
        if not names:
            raise StoreProblem(f"there is no table in {folder.address}: no Parquet file")
        coverage = folder_coverage(folder)
        root, filesystem = folder.arrow
        first = pq.read_schema(f"{root}/{names[0]}", filesystem=filesystem)
        table = table_of(first.names)
        if dask and table is not None:
            return folder_frame(folder, table, names, coverage)
        if dask:
            raise StoreProblem(
                f"{folder.address} holds none of this package's tables: open it with Dask itself"
            )
        parts = [pq.read_table(f"{root}/{name}", filesystem=filesystem, partitioning=None) for name in names]
    except (ValueError, OSError) as error:
        raise StoreProblem(f"cannot read {folder.address}: {error}") from None
    arrow = pa.concat_tables(parts, promote_options="default")
    frame = arrow.to_pandas() if table is None else conform(from_arrow(table, arrow), table)
    if coverage:
        frame.attrs[COVERAGE] = coverage
    return frame
