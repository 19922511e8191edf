"""MTA logs to tables: the functions that users call.

Each reads one file or many, packed or not, in rotated sets; the mail server is recognised by the form of each line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import tzinfo
from functools import partial
from typing import TYPE_CHECKING, Any

from rtls_analysis.read.lines import read_blocks
from rtls_analysis.read.log_engine import LogEngine, make_readers
from rtls_analysis.read.log_files import LogPath, Problems, find_log_files
from rtls_analysis.read.log_rows import (
    PART_ROWS,
    Connection,
    Delivery,
    Sink,
    connections_table,
    deliveries_table,
)
from rtls_analysis.read.log_time import Clock, first_year, zone_of
from rtls_analysis.schema import CONNECTIONS, DELIVERIES, MailReader, from_arrow

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def _tables(
    paths: LogPath | Iterable[LogPath],
    *,
    mta: str = "auto",
    timezone: str | tzinfo | None = None,
    year: int | None = None,
    table: str = "deliveries",
) -> Iterator[tuple[pa.Table, dict[str, Any]]]:
    sets = find_log_files(paths)
    clock = Clock(zone_of(timezone))
    sink = Sink(clock, connections=table == "connections")
    engine = LogEngine(sink, make_readers(sink, None if mta == "auto" else MailReader(mta)))
    problems = Problems()
    rows = sink.deliveries if table == "deliveries" else sink.connections
    make = deliveries_table if table == "deliveries" else connections_table
    size = PART_ROWS * len(Delivery._fields if table == "deliveries" else Connection._fields)
    width = size // PART_ROWS
    rules: dict[str, str] = {}
    for files in sets:
        guess = first_year(files, year)
        if guess:
            clock.start(guess.year, guess.not_after)
            rules[files[-1].name] = f"{guess.year}: {guess.rule}"
        engine.start_set()
        for block in read_blocks(files, problems):
            engine.feed(block)
            while len(rows) >= size:
                part = rows[:size]
                del rows[:size]
                yield make(part, engine.places, max(part[::width])), {}
            if table == "connections":
                sink.deliveries.clear()
    engine.finish()
    coverage = sink.coverage.as_dict(files=problems.by_file, clock={"year": rules})
    while len(rows) >= size:
        part = rows[:size]
        del rows[:size]
        yield make(part, engine.places, max(part[::width])), {}
    yield make(rows, engine.places, max(rows[::width], default=0)), coverage


def read_logs(
    paths: LogPath | Iterable[LogPath],
    *,
    mta: str = "auto",
    timezone: str | tzinfo | None = None,
    year: int | None = None,
) -> pd.DataFrame:
    """Read logs of any mail servers into `deliveries`."""
    return _frame(paths, "deliveries", mta=mta, timezone=timezone, year=year)


def read_connections(
    paths: LogPath | Iterable[LogPath],
    *,
    mta: str = "auto",
    timezone: str | tzinfo | None = None,
    year: int | None = None,
) -> pd.DataFrame:
    """Read logs of any mail servers into `connections`."""
    return _frame(paths, "connections", mta=mta, timezone=timezone, year=year)


def _frame(paths: LogPath | Iterable[LogPath], table: str, **options: Any) -> pd.DataFrame:
    import pyarrow as pa

    parts = list(_tables(paths, table=table, **options))
    frame = from_arrow(
        DELIVERIES if table == "deliveries" else CONNECTIONS, pa.concat_tables([part for part, _ in parts])
    )
    frame.attrs["coverage"] = parts[-1][1]
    return frame


read_postfix = partial(read_logs, mta="postfix")
