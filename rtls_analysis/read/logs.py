"""MTA logs to tables: the functions that users call.

Each reads one file or many, packed or not, in rotated sets; the mail server is recognised by the form of each line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtls_analysis.progress import progress_bar
from rtls_analysis.read.lines import read_blocks
from rtls_analysis.read.log_engine import LogEngine, make_readers
from rtls_analysis.read.log_files import Intake, LogFile, LogPath, find_log_files
from rtls_analysis.read.log_rows import Sink
from rtls_analysis.read.log_tables import WIDTHS, Services, finish_table, rows_table
from rtls_analysis.read.log_time import Clock, first_year, zone_of
from rtls_analysis.schema import CONNECTIONS, DELIVERIES, MailReader, Table, from_arrow

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PART_ROWS = 50_000
PART_BYTES = 256 << 20  # of texts that no real log has


class LogReading:
    """One pass over log files: iterate for parts, as (table, Arrow table of exactly its columns).

    Parts have `PART_ROWS` rows; the last one of each table that was asked for has the rest, also if that is none.

    Parameters
    ----------
    paths
        Files, globs, folders, open binary files, `-` for standard input; one or many.
    tables
        Which tables are wanted.
    mta
        A mail server's name (`MailReader`) where only its lines are to be read, else `auto`.
    timezone
        Zone of stamps that carry none; by default that of this machine.
    year
        Year of the first line, where stamps carry none; by default worked out.
    progress
        Whether a bar is shown.

    Raises
    ------
    FileNotFoundError
        A path names nothing, or a glob finds nothing.
    ValueError
        There is no such mail server, time zone or year.
    """

    def __init__(
        self,
        paths: LogPath | Iterable[LogPath],
        tables: Iterable[Table] = (DELIVERIES,),
        *,
        mta: str = "auto",
        timezone: str | tzinfo | None = None,
        year: int | None = None,
        progress: bool = False,
    ) -> None:
        self._only = _reader_name(mta)
        if year is not None and not 1970 <= year <= 9998:
            raise ValueError(f"no year {year!r}: give one from 1970 on, as 2026")
        self._year = year
        self._clock = Clock(zone_of(timezone))
        self._sets = find_log_files(paths)
        self._tables = tuple(tables)
        self._progress = progress
        self._sink = Sink(self._clock, connections=CONNECTIONS in self._tables)
        self._engine = LogEngine(self._sink, make_readers(self._sink, self._only))
        self._services = Services()
        self._intake = Intake()
        self._rows = {DELIVERIES.name: self._sink.deliveries, CONNECTIONS.name: self._sink.connections}
        self._held: dict[str, list[pa.Table]] = {table.name: [] for table in self._tables}
        self._given = {table.name: 0 for table in self._tables}
        self._years: dict[str, str] = {}

    def __iter__(self) -> Iterator[tuple[Table, pa.Table]]:
        with progress_bar(
            total=_bytes_of(self._sets), label="logs", unit="B", unit_scale=True, shown=self._progress
        ) as bar:
            for files in self._sets:
                self._start_set(files)
                for block in read_blocks(files, self._intake):
                    self._engine.feed(block)
                    yield from self._full_parts()
                    bar.update(self._intake.taken - bar.n)
        self._engine.finish()
        yield from self._full_parts()
        for table in self._tables:
            self._convert(table, len(self._rows[table.name]))
            yield self._part(table, self._take(table, None))

    def _start_set(self, files: list[LogFile]) -> None:
        guess = first_year(files, self._year)
        if guess is not None:
            self._clock.start(guess.year, guess.not_after)
            self._years[files[-1].name] = f"{guess.year}: {guess.rule}"
        self._engine.start_set()

    @property
    def coverage(self) -> dict[str, Any]:
        """What was read so far, and what was made of it."""
        zone = self._clock.zone
        return self._sink.coverage.as_dict(
            rows=self._given,
            files=self._intake.problems,
            time={
                "timezone": "that of the machine" if zone is None else str(zone),
                "year_of_first_line": self._years,
                "an_hour_came_twice": self._clock.met_twice,
            },
        )

    # -- parts ---------------------------------------------------------------------------------------------

    def _full_parts(self) -> Iterator[tuple[Table, pa.Table]]:
        for name, rows in self._rows.items():
            if name not in self._held:
                rows.clear()
        for table in self._tables:
            size = PART_ROWS * WIDTHS[table.name]
            while len(self._rows[table.name]) >= size:
                self._convert(table, size)
            while sum(held.num_rows for held in self._held[table.name]) >= PART_ROWS:
                yield self._part(table, self._take(table, PART_ROWS))

    def _convert(self, table: Table, size: int) -> None:
        rows = self._rows[table.name]
        self._held[table.name].append(rows_table(table, rows[:size], self._services))
        del rows[:size]

    def _take(self, table: Table, size: int | None) -> pa.Table:
        import pyarrow as pa

        whole = pa.concat_tables(self._held[table.name])
        part = whole if size is None else whole.slice(0, size)
        self._held[table.name] = [] if size is None else [whole.slice(size)]
        return part

    def _part(self, table: Table, part: pa.Table) -> tuple[Table, pa.Table]:
        self._given[table.name] += part.num_rows
        return table, finish_table(table, part, self._engine.places, self._services)


def _reader_name(mta: str) -> MailReader | None:
    if mta == "auto":
        return None
    try:
        return MailReader(mta)
    except ValueError:
        raise ValueError(f"no reader for {mta!r}: there are auto, {', '.join(MailReader)}") from None


def _bytes_of(sets: list[list[LogFile]]) -> int | None:
    files = [file for members in sets for file in members]
    if any(file.path is None for file in files):
        return None
    return sum(Path(str(file.path)).stat().st_size for file in files)


# -- what users call ------------------------------------------------------------------------------------------


def read_logs(
    paths: LogPath | Iterable[LogPath],
    *,
    mta: str = "auto",
    timezone: str | tzinfo | None = None,
    year: int | None = None,
) -> pd.DataFrame:
    """Read logs of any mail servers into `deliveries`."""
    return _frame(paths, DELIVERIES, mta=mta, timezone=timezone, year=year)


def read_connections(
    paths: LogPath | Iterable[LogPath],
    *,
    mta: str = "auto",
    timezone: str | tzinfo | None = None,
    year: int | None = None,
) -> pd.DataFrame:
    """Read logs of any mail servers into `connections`."""
    return _frame(paths, CONNECTIONS, mta=mta, timezone=timezone, year=year)


def iter_logs(
    paths: LogPath | Iterable[LogPath], *, table: str = "deliveries", **options: Any
) -> Iterator[pd.DataFrame]:
    """Read logs part by part."""
    wanted = {one.name: one for one in (DELIVERIES, CONNECTIONS)}[table]
    reading = LogReading(paths, (wanted,), **options)
    for _table, part in reading:
        frame = from_arrow(wanted, part)
        frame.attrs["coverage"] = reading.coverage
        yield frame


def _frame(paths: LogPath | Iterable[LogPath], table: Table, **options: Any) -> pd.DataFrame:
    import pyarrow as pa

    reading = LogReading(paths, (table,), **options)
    frame = from_arrow(table, pa.concat_tables([part for _table, part in reading]))
    frame.attrs["coverage"] = reading.coverage
    return frame


read_postfix = partial(read_logs, mta="postfix")
