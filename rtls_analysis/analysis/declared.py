"""What callers bring: frames of either kind, with the dtypes that their table declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtls_analysis.frames import Frame, collected, is_dask
from rtls_analysis.schema import TABLES, Table, conform
from rtls_analysis.table_files import table_of

if TYPE_CHECKING:
    import pandas as pd


def table_to_declare(frame: Frame) -> str | None:
    """Name the declared table that a Dask frame is, where its columns have other dtypes; else None.

    A frame that Dask itself has opened has text where the table has words, and no order of them. Other tables, and
    pandas frames, stay as they are.
    """
    if not is_dask(frame) or (table := table_of(map(str, frame.columns))) is None:
        return None
    fits = all(frame.dtypes[name] == table[name].dtype for name in frame.columns if name in table.by_name)
    return None if fits else table.name


def fetched(frame: Frame) -> pd.DataFrame:
    """Give a table that is small enough for one machine as a pandas frame."""
    return declared(collected(frame), table_to_declare(frame))


def declared(frame: pd.DataFrame, table: str | None) -> pd.DataFrame:
    """Give the columns of a table their declared dtypes; the frame has all of them, or some."""
    if table is None:
        return frame
    whole = TABLES[table]
    columns = tuple(column for column in whole.columns if column.name in frame)
    return conform(frame, Table(table, whole.one_row_per, columns))[list(frame.columns)]
