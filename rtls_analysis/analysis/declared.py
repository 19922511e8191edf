"""What callers bring: frames of either kind, with the dtypes that their table declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtls_analysis.frames import Frame, is_dask, mapped
from rtls_analysis.schema import TABLES, conform
from rtls_analysis.table_files import table_of

if TYPE_CHECKING:
    import pandas as pd


def declared(frame: Frame) -> Frame:
    """Give the columns of one of the declared tables their dtypes, where a Dask frame lacks them.

    A frame that Dask itself has opened has text where the table has words, and no order of them. Other tables, and
    pandas frames, stay as they are.
    """
    if not is_dask(frame) or (table := table_of(map(str, frame.columns))) is None:
        return frame
    if all(frame.dtypes[name] == table[name].dtype for name in frame.columns if name in table.by_name):
        return frame
    return mapped(frame, _conformed, table=table.name)


def _conformed(frame: pd.DataFrame, table: str) -> pd.DataFrame:
    return conform(frame, TABLES[table])[list(frame.columns)]
