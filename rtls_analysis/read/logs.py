"""MTA logs to tables: the functions that users call.

Each reads one file or many, packed or not, in rotated sets; the mail server is recognised by the form of each line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import tzinfo
from itertools import chain
from typing import TYPE_CHECKING, Any

from rtls_analysis.progress import progress_bar
from rtls_analysis.read.coverage import add_coverage, merge
from rtls_analysis.read.lines import Block, read_blocks
from rtls_analysis.read.log_engine import LogEngine, make_readers
from rtls_analysis.read.log_files import Intake, LogFile, LogPath, find_log_files, group_sets
from rtls_analysis.read.log_output import open_output
from rtls_analysis.read.log_pieces import PiecewiseReading, Workers
from rtls_analysis.read.log_rows import Sink
from rtls_analysis.read.log_tables import TEXT_PLACES, WIDTHS, Services, finish_table, rows_table
from rtls_analysis.read.log_time import Clock, first_year, zone_of, zone_of_machine
from rtls_analysis.read.mail_reading import no_out
from rtls_analysis.read.postfix import PostfixReader
from rtls_analysis.read.pseudonyms import Pseudonyms, read_pseudonyms
from rtls_analysis.schema import CONNECTIONS, DELIVERIES, TABLES, MailReader, Table, from_arrow

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from rtls_analysis.read.log_summary import LogSummary

PART_ROWS = 25_000
HELD_BYTES = 64 << 20  # of texts in rows that wait for their part to be full; no log of mail comes near
LARGE_BYTES = 64 << 20  # of files on disk, from which on other processes pay


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How logs are to be read; it can be sent to other machines.

    `zone` is that of stamps that carry none, also where the caller named none (`None` only where this machine's cannot
    be told), and `zone_name` what the coverage says of it. The others are those of `read_logs`.
    """

    tables: tuple[str, ...]
    only: MailReader | None
    zone: tzinfo | None
    zone_name: str
    year: int | None
    pseudonyms: Pseudonyms | None
    workers: int | None


def log_options(
    tables: Iterable[Table],
    *,
    mta: str = "auto",
    timezone: str | tzinfo | None = None,
    year: int | None = None,
    pseudonymise: str | os.PathLike[str] | Pseudonyms | None = None,
    domains_too: bool = False,
    workers: int | None = None,
) -> LogOptions:
    """Check what the caller of `read_logs` gave, and read the key.

    Raises
    ------
    ValueError
        There is no such mail server or time zone, or the key is too short.
    """
    only = _reader_name(mta)
    if year is not None and not 1970 <= year <= 9998:
        raise ValueError(f"no year {year!r}: give one from 1970 on, as 2026")
    zone = zone_of(timezone)
    pseudonyms = (
        read_pseudonyms(pseudonymise, domains_too=domains_too)
        if isinstance(pseudonymise, (str, os.PathLike))
        else pseudonymise
    )
    return LogOptions(
        tables=tuple(table.name for table in tables),
        only=only,
        zone=zone_of_machine() if zone is None else zone,
        zone_name="that of this machine" if zone is None else str(zone),
        year=year,
        pseudonyms=pseudonyms,
        workers=workers,
    )


class GroupReading:
    """One pass over a group of rotated sets (`group_sets`), which owns all that is known of their messages.

    Whether the groups of an input are read one after the other, or by many machines, changes nothing in its rows.

    Attributes
    ----------
    intake
        How far it has come.
    """

    def __init__(self, sets: Sequence[list[LogFile]], options: LogOptions) -> None:
        self._sets = sets
        self._options = options
        self._tables = tuple(TABLES[name] for name in options.tables)
        self._clock = Clock(options.zone)
        self._sink = Sink(self._clock, connections=CONNECTIONS in self._tables)
        self._engine = LogEngine(self._sink, make_readers(self._sink, options.only))
        self._services = Services()
        self.intake = Intake()
        self._rows = {DELIVERIES.name: self._sink.deliveries, CONNECTIONS.name: self._sink.connections}
        self._held: dict[str, list[pa.Table]] = {table.name: [] for table in self._tables}
        self._given = {table.name: 0 for table in self._tables}
        self._looked_at = {table.name: 0 for table in self._tables}
        self._years: dict[str, str] = {}

    def parts(self) -> Iterator[list[tuple[Table, pa.Table]]]:
        """Read on, block by block: each gives the parts that are full, most of them none; the last one the rest.

        A part is an Arrow table of exactly its table's columns, of `PART_ROWS` rows but for the last.
        """
        for files in self._sets:
            self._start_set(files)
            for _ in self._read(read_blocks(files, self.intake), _bytes_of([files])):
                yield list(self._full_parts())
        self._engine.finish()
        last = list(self._full_parts())
        for table in self._tables:
            self._convert(table, len(self._rows[table.name]))
            last.append(self._part(table, self._take(table, None)))
        yield last

    def _start_set(self, files: list[LogFile]) -> None:
        guess = first_year(files, self._options.year)
        if guess is not None:
            self._clock.start(guess.year, guess.not_after)
            self._years[files[-1].name] = f"{guess.year}, {guess.rule}"
        self._engine.start_set()

    def _read(self, blocks: Iterator[Block], size: int | None) -> Iterator[None]:
        """Read the blocks of a set, with workers where they pay."""
        asked = self._options.workers
        count = asked if asked is not None else _cores() if (size or 0) >= LARGE_BYTES else 1
        postfix = next((reader for reader in self._engine.readers if isinstance(reader, PostfixReader)), None)
        first = next(blocks, None)
        blocks = blocks if first is None else chain([first], blocks)
        if count < 2 or postfix is None or first is None or _OF_POSTFIX(first.text) is None:
            for block in blocks:
                self._engine.feed(block)
                yield
            return
        pieces = PiecewiseReading(self._engine, postfix, self._services, self._tables, count - 1)
        with Workers(count - 1) as workers:
            for tables in pieces.read(blocks, workers):
                for name, rows in tables.items():
                    self._held[name].append(rows)
                yield

    @property
    def coverage(self) -> dict[str, Any]:
        """What was read so far, and what was made of it; without samples of lines where names are to be hidden."""
        return self._sink.coverage.as_dict(
            rows=self._given,
            files=self.intake.problems,
            time={
                "timezone": self._options.zone_name,
                "years": self._years,
                "an_hour_came_twice": self._clock.met_twice,
            },
            samples=self._options.pseudonyms is None,
        )

    # -- parts ---------------------------------------------------------------------------------------------

    def _full_parts(self) -> Iterator[tuple[Table, pa.Table]]:
        for name, rows in self._rows.items():
            if name not in self._held:  # nobody wants that table
                rows.clear()
        for table in self._tables:
            size = PART_ROWS * WIDTHS[table.name]
            while len(self._rows[table.name]) >= size:
                self._convert(table, size)
            while sum(held.num_rows for held in self._held[table.name]) >= PART_ROWS:
                yield self._part(table, self._take(table, PART_ROWS))
            if self._holds_much(table):
                self._convert(table, len(self._rows[table.name]))
                yield self._part(table, self._take(table, None))

    def _holds_much(self, table: Table) -> bool:
        """Whether rows with endless texts have come; looked at where they could have, since the last time."""
        if self.intake.given - self._looked_at[table.name] < HELD_BYTES:
            return False
        self._looked_at[table.name] = self.intake.given
        texts = self._rows[table.name][TEXT_PLACES[table.name] :: WIDTHS[table.name]]
        held = sum(part.nbytes for part in self._held[table.name])
        return bool(held + sum(len(text) for text in texts if text is not None) > HELD_BYTES)

    def _convert(self, table: Table, size: int) -> None:
        rows = self._rows[table.name]
        self._held[table.name].append(rows_table(table, rows[:size], self._services))
        del rows[:size]

    def _take(self, table: Table, size: int | None) -> pa.Table:
        import pyarrow as pa

        whole = pa.concat_tables(self._held[table.name])
        self._held[table.name] = [] if size is None else [whole.slice(size)]
        return whole if size is None else whole.slice(0, size)

    def _part(self, table: Table, part: pa.Table) -> tuple[Table, pa.Table]:
        self._given[table.name] += part.num_rows
        part = finish_table(table, part, self._engine.places, self._services)
        pseudonyms = self._options.pseudonyms
        return table, part if pseudonyms is None else pseudonyms.apply(part)


class LogReading:
    """One pass over log files: iterate for parts, as (table, Arrow table of exactly its columns).

    Parts have `PART_ROWS` rows; the last one of each table that was asked for has the rest, also if that is none.
    The parameters are those of `read_logs`.
    """

    def __init__(
        self,
        paths: LogPath | Iterable[LogPath],
        tables: Iterable[Table] = (DELIVERIES,),
        *,
        progress: bool = True,
        **options: Any,
    ) -> None:
        self._tables = tuple(tables)
        self._options = log_options(self._tables, **options)
        self._sets = find_log_files(paths)
        self._progress = progress
        self._held: dict[str, list[pa.Table]] = {table.name: [] for table in self._tables}
        self._given = {table.name: 0 for table in self._tables}
        self._done: dict[str, Any] = {}  # coverage of the groups that were read
        self._group: GroupReading | None = GroupReading((), self._options)

    def __iter__(self) -> Iterator[tuple[Table, pa.Table]]:
        taken = 0  # bytes of the groups that were read
        total = _bytes_of(self._sets)
        with progress_bar(
            total=total, label="logs", unit="B", unit_scale=True, unit_divisor=1024, shown=self._progress
        ) as bar:
            for sets in group_sets(self._sets):
                self._group = group = GroupReading(sets, self._options)
                for parts in group.parts():
                    for table, part in parts:
                        self._held[table.name].append(part)
                    yield from self._full_parts()
                    bar.update(taken + group.intake.taken - bar.n)
                taken += group.intake.taken
                add_coverage(self._done, group.coverage)
                self._group = None
        for table in self._tables:
            yield self._part(table, self._take(table, None))

    @property
    def coverage(self) -> dict[str, Any]:
        """What was read so far, and what was made of it; without samples of lines where names are to be hidden."""
        merged = merge([self._done] if self._group is None else [self._done, self._group.coverage])
        return merged | {"rows": dict(self._given)}

    def _full_parts(self) -> Iterator[tuple[Table, pa.Table]]:
        for table in self._tables:
            while sum(held.num_rows for held in self._held[table.name]) >= PART_ROWS:
                yield self._part(table, self._take(table, PART_ROWS))
            if sum(held.nbytes for held in self._held[table.name]) > HELD_BYTES:
                yield self._part(table, self._take(table, None))

    def _take(self, table: Table, size: int | None) -> pa.Table:
        import pyarrow as pa

        whole = pa.concat_tables([table.arrow_schema.empty_table(), *self._held[table.name]])
        self._held[table.name] = [] if size is None else [whole.slice(size)]
        return whole if size is None else whole.slice(0, size)

    def _part(self, table: Table, part: pa.Table) -> tuple[Table, pa.Table]:
        self._given[table.name] += part.num_rows
        return table, part


_OF_POSTFIX = re.compile(rb"/(?:qmgr|cleanup|smtpd?)\[").search


def _cores() -> int:
    """How many processes the machine has room for, up to four: beyond, the one that joins is the limit."""
    return min(len(os.sched_getaffinity(0)), 4)


def _reader_name(mta: str) -> MailReader | None:
    if mta == "auto":
        return None
    try:
        return MailReader(mta)
    except ValueError:
        raise ValueError(f"no reader for {mta!r}: there are auto, {', '.join(MailReader)}") from None


def _bytes_of(sets: Iterable[list[LogFile]]) -> int | None:
    sizes = [file.size for files in sets for file in files]
    return None if None in sizes else sum(size for size in sizes if size is not None)


# -- what users call ------------------------------------------------------------------------------------------


def iter_logs(
    paths: LogPath | Iterable[LogPath],
    *,
    table: str = "deliveries",
    mta: str = "auto",
    timezone: str | tzinfo | None = None,
    year: int | None = None,
    pseudonymise: str | os.PathLike[str] | Pseudonyms | None = None,
    domains_too: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Iterator[pd.DataFrame]:
    """Read as `read_logs` does, in frames of 25,000 rows: bounded memory, whatever the size.

    There is at least one frame. The coverage of each counts all that was read up to its end.

    Parameters
    ----------
    table
        ``deliveries`` or ``connections``; the others are those of `read_logs`.
    """
    tables = {one.name: one for one in (DELIVERIES, CONNECTIONS)}
    if table not in tables:
        raise ValueError(f"logs have no table {table!r}: there are {' and '.join(tables)}")
    reading = LogReading(
        paths,
        (tables[table],),
        mta=mta,
        timezone=timezone,
        year=year,
        pseudonymise=pseudonymise,
        domains_too=domains_too,
        workers=workers,
        progress=progress,
    )
    return _frames(reading)


def _frames(reading: LogReading) -> Iterator[pd.DataFrame]:
    for table, part in reading:
        frame = from_arrow(table, part)
        frame.attrs["coverage"] = reading.coverage
        yield frame


def read_logs(
    paths: LogPath | Iterable[LogPath],
    *,
    mta: str = "auto",
    timezone: str | tzinfo | None = None,
    year: int | None = None,
    pseudonymise: str | os.PathLike[str] | Pseudonyms | None = None,
    domains_too: bool = False,
    workers: int | None = None,
    client: Any = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Read logs of any mail servers, also of several in one file: one row of `deliveries` per attempt and recipient.

    Parameters
    ----------
    paths
        Files, plain or packed (gzip, xz, zstd, bzip2), globs, folders, all of these also at an address, as
        ``s3://bucket/logs/*/mail.log*``; open binary files, `-` for standard input; one or many. Files of a rotated set
        (``mail.log.2.gz``, ``mail.log.1``, ``mail.log``) are read oldest first, as one.
    mta
        A mail server's name where only its lines are to be read, as ``postfix``; by default each line is recognised
        by its form.
    timezone
        Zone of stamps that carry none, as ``Europe/Berlin``; by default that of this machine.
    year
        Year of the first line, where stamps carry none. By default worked out from the date in the file's name, or
        else from the time it was last changed, and from the months that pass.
    pseudonymise
        File with a secret key of 16 bytes or more: local parts are replaced by keyed hashes, in texts too.
    domains_too
        Replace domains, host names and addresses of hosts as well.
    workers
        Processes that share the work; by default as many as there are cores, up to four, where a log of Postfix has
        64 MiB or more. The table does not depend on it.
    client
        A ``distributed.Client`` whose workers do it, each rotated set as one task, or the address of a scheduler. The
        table does not depend on that either.
    out
        Folder, local or at an address, for the Parquet parts that the workers write as they go; what it held of an
        earlier table goes. Without one the table stays in the workers' memory.
    progress
        Show a progress bar, with a client that of Dask.

    Returns
    -------
    pandas.DataFrame, or dask.dataframe.DataFrame with `client`
        Columns `schema.DELIVERIES`. ``attrs["coverage"]`` tells how many lines were read, what was understood, and
        what was skipped, by reason.

    Raises
    ------
    FileNotFoundError
        A path names nothing, or a glob finds nothing.
    ValueError
        There is no such mail server or time zone, or the key is too short; with a client also: what was given cannot
        be sent to its workers.
    ClusterProblem
        The cluster cannot do it, for instance because a worker does not see the files.
    StoreProblem
        An address cannot be used, or the folder not be written to.

    Notes
    -----
    Interrupted, it raises `KeyboardInterrupt`; `iter_logs` keeps what was read until then, and so does `out`.
    """
    return _whole(DELIVERIES, locals())


def read_connections(
    paths: LogPath | Iterable[LogPath],
    *,
    mta: str = "auto",
    timezone: str | tzinfo | None = None,
    year: int | None = None,
    pseudonymise: str | os.PathLike[str] | Pseudonyms | None = None,
    domains_too: bool = False,
    workers: int | None = None,
    client: Any = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Read logs into `connections`: one row per outbound connection or TLS attempt that they tell of.

    A first MX host whose TLS failed leaves no delivery attempt, only this. The parameters are those of `read_logs`.
    """
    return _whole(CONNECTIONS, locals())


def _whole(table: Table, options: Mapping[str, Any]) -> pd.DataFrame:
    import pyarrow as pa

    options = dict(options)
    paths, client, out = (options.pop(name, None) for name in ("paths", "client", "out"))
    if client is not None:
        frame: pd.DataFrame = _on_cluster(paths, {table: out}, client, options)[table.name]  # a Dask one
        return frame
    no_out(out)
    reading = LogReading(paths, (table,), **options)
    frame = from_arrow(table, pa.concat_tables([part for _table, part in reading]))
    frame.attrs["coverage"] = reading.coverage
    return frame


def _on_cluster(
    paths: Any, outs: Mapping[Table, str | os.PathLike[str] | None], client: Any, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Have the workers of a cluster read these tables; gives Dask frames by the names of the tables."""
    from rtls_analysis.read.clustered import no_streams, read_on_cluster

    options = dict(options)
    progress = options.pop("progress", True)
    sending = log_options(outs, **{**options, "workers": 1})
    if sending.zone is None:
        raise ValueError(
            "the time zone of this machine cannot be told to the workers: name it, as timezone='Europe/Berlin'"
        )
    sets = find_log_files(paths)
    no_streams(sets)
    return read_on_cluster(
        client,
        group_sets(sets),
        GroupReading,
        sending,
        tuple(outs),
        out={table.name: out for table, out in outs.items() if out is not None},
        label=" and ".join(table.name for table in outs),
        progress=progress,
    )


def write_logs(
    paths: LogPath | Iterable[LogPath],
    deliveries: str | os.PathLike[str] | None = None,
    connections: str | os.PathLike[str] | None = None,
    *,
    client: Any = None,
    **options: Any,
) -> tuple[LogSummary, dict[str, Any]]:
    """Read logs into files, in bounded memory, and sum up.

    Parameters
    ----------
    paths
        As for `read_logs`.
    deliveries, connections
        Files to write, ending in ``.parquet`` (with the coverage in its metadata), ``.csv`` or ``.jsonl``, or folders
        for Parquet parts (they end in a slash, or are there already); also at an address, as
        ``s3://bucket/deliveries.parquet``.
    client
        As for `read_logs`; then `deliveries` is needed, and both are folders.
    options
        The other parameters of `read_logs`.

    Returns
    -------
    tuple
        The summary of the deliveries, and the coverage.

    Raises
    ------
    StoreProblem
        A file to write has another ending, or cannot be written.
    ClusterProblem, ValueError
        As for `read_logs`.
    """
    from rtls_analysis.read.log_summary import LogSummary

    summary = LogSummary()
    if client is not None:
        from rtls_analysis.read.clustered import sum_up

        if deliveries is None:
            raise ValueError("a cluster writes the deliveries into a folder: give one that all workers see")
        outs = {DELIVERIES: deliveries} | ({} if connections is None else {CONNECTIONS: connections})
        frames = _on_cluster(paths, outs, client, options)
        sum_up(client, deliveries, DELIVERIES, summary)
        return summary, frames[DELIVERIES.name].attrs["coverage"]
    targets = {DELIVERIES: deliveries, CONNECTIONS: connections}
    tables = (DELIVERIES,) if connections is None else (DELIVERIES, CONNECTIONS)
    reading = LogReading(paths, tables, **options)
    with ExitStack() as stack:
        files = {
            table.name: stack.enter_context(open_output(path, table))
            for table, path in targets.items()
            if path is not None
        }
        try:
            for table, part in reading:
                if table is DELIVERIES:
                    summary.add(from_arrow(table, part))
                if table.name in files:
                    files[table.name].write(part)
        finally:
            for file in files.values():
                file.coverage = reading.coverage
    return summary, reading.coverage


def _only(mta: MailReader) -> Callable[..., pd.DataFrame]:
    """`read_logs` for one mail server."""

    def read(
        paths: LogPath | Iterable[LogPath],
        *,
        timezone: str | tzinfo | None = None,
        year: int | None = None,
        pseudonymise: str | os.PathLike[str] | Pseudonyms | None = None,
        domains_too: bool = False,
        workers: int | None = None,
        progress: bool = True,
    ) -> pd.DataFrame:
        return _whole(DELIVERIES, {**locals(), "mta": mta})

    read.__name__ = read.__qualname__ = f"read_{mta}"
    read.__doc__ = (
        f"Read the lines of {mta} in logs into `deliveries`, as `read_logs` does; pass over all others."
    )
    return read


read_postfix = _only(MailReader.POSTFIX)
read_exim = _only(MailReader.EXIM)
read_sendmail = _only(MailReader.SENDMAIL)
read_opensmtpd = _only(MailReader.OPENSMTPD)
read_haraka = _only(MailReader.HARAKA)
read_exchange = _only(MailReader.EXCHANGE)
read_mox = _only(MailReader.MOX)
read_maddy = _only(MailReader.MADDY)
read_stalwart = _only(MailReader.STALWART)
read_qmail = _only(MailReader.QMAIL)
