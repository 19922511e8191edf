"""MTA logs to tables: each line goes to the reader that knows its form, also where several servers share a file.

A syslog line is known by its tag, once for each process; a line of a server's own form by its beginning. Readers
keep their state from file to file, so that a rotated set reads as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import tzinfo
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rtls_analysis.read.lines import (
    Block,
    Clock,
    LogPath,
    Problems,
    find_log_files,
    first_year,
    read_blocks,
    stamp_end,
    too_long,
    unwrap,
    zone_of,
)
from rtls_analysis.read.log_rows import (
    EMPTY,
    NOT_A_LOG_LINE,
    OTHER_PROGRAM,
    PART_ROWS,
    TOO_LONG,
    LogReader,
    Places,
    Sink,
    Source,
    connections_table,
    deliveries_table,
)
from rtls_analysis.schema import CONNECTIONS, DELIVERIES, MailReader, from_arrow

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

READERS: Mapping[MailReader, str] = {
    MailReader.POSTFIX: "PostfixReader",
    MailReader.EXIM: "EximReader",
    MailReader.SENDMAIL: "SendmailReader",
    MailReader.OPENSMTPD: "OpenSmtpdReader",
    MailReader.HARAKA: "HarakaReader",
    MailReader.EXCHANGE: "ExchangeReader",
    MailReader.MOX: "MoxReader",
    MailReader.MADDY: "MaddyReader",
    MailReader.STALWART: "StalwartReader",
    MailReader.QMAIL: "QmailReader",
}

MAX_SOURCES = 100_000
MAX_WRAPPINGS = 4
MAX_REPEATS = 1_000  # of one line; a folded count beyond that is not believed

_HEADER = re.compile(
    rb"(?:(?:<[\w.]+> )?([^\s\[\]]*[^\s\[\]:]) +)?([^\s\[\]:]+)(?:\[([^\]\s]{0,32})\])?: ?(?:\[ID \d+ [\w.]+\] )?"
).match
_REPEATED = re.compile(rb"message repeated (\d{1,9}) times: \[ ?(.*?)\]?", re.DOTALL).fullmatch
_LAST_REPEATED = re.compile(rb"(?:(\S+) )?(?:-- )?last message repeated (\d{1,9}) times?(?: --)?").fullmatch


def _make_readers(sink: Sink, mta: MailReader | None) -> list[LogReader]:
    readers: list[LogReader] = []
    for name, class_name in READERS.items():
        if mta is not None and name is not mta:
            continue
        try:
            module = import_module(f"rtls_analysis.read.{name}")
        except ModuleNotFoundError:
            continue
        readers.append(getattr(module, class_name)(sink))
    return readers


class LogEngine:
    """Lines to readers; feed it blocks in order, then `finish`."""

    def __init__(self, sink: Sink, mta: MailReader | None = None) -> None:
        self.sink = sink
        self.readers = _make_readers(sink, mta)
        self.number = 0  # lines fed so far
        self.places = Places()
        self._raw = [reader.raw for reader in self.readers]
        self._sources: dict[bytes, Source] = {}  # by "host tag[pid" as it stands in the line
        self._known: dict[tuple[bytes, bytes, bytes], tuple[Source, LogReader | None]] = {}
        self._blank = Source()
        self._month = b"\0"
        self._day = b"\0"
        self._width = 0  # of a stamp with year, with the space behind it
        self._not_log = sink.coverage.reason(NOT_A_LOG_LINE)
        self._other = sink.coverage.reason(OTHER_PROGRAM)
        self._empty = sink.coverage.reason(EMPTY)
        self._recent: list[bytes] = []

    def start_set(self, year: int | None) -> None:
        """Begin a rotated set, whose first stamp without a year is of this one."""
        if year is not None:
            self.sink.clock.start(year)
        self._month = b"\0"

    def feed(self, block: Block) -> None:
        """Read a block of lines."""
        self.places.add(self.number + 1, block.file.name, block.first_line)
        self.sink.coverage.lines_read += len(block.lines)
        number = self.number
        sources = self._sources.get
        month, day, width = self._month, self._day, self._width
        for line in block.lines:
            number += 1
            if line.startswith(month):
                end = line.find(b"]: ", 16)
                source = sources(line[16:end])
            elif line.startswith(day):
                end = line.find(b"]: ", width)
                source = sources(line[width:end])
            else:
                self._line(line, number)
                month, day, width = self._month, self._day, self._width
                continue
            if source is None:
                self._line(line, number)
                month, day, width = self._month, self._day, self._width
            elif (feed := source.feed) is not None:
                feed(source, line, end + 3, number)
            else:
                source.skipped.count += 1  # type: ignore[union-attr]
        self.number = number

    def finish(self) -> None:
        """Tell the readers that the input has ended."""
        for reader in self.readers:
            reader.finish()

    # -- any other line ------------------------------------------------------------------------------------

    def _line(self, line: bytes, number: int, depth: int = 0) -> None:
        """A line of a form not met before, or not of the syslog kind."""
        start = stamp_end(line)
        if start:
            if line[3:4] == b" ":
                if line[:4] != self._month:
                    self._month = line[:4]
                    self.sink.clock.month(line[:3])
            else:
                self._day, self._width = line[:11], start
            header = _HEADER(line, start)
            if header is not None:
                self._syslog(line, start, header, number)
                return
        elif not line.strip(b"\0 \t\r"):
            self._empty.count += 1
            return
        elif (head := too_long(line)) is not None:
            self.sink.coverage.skip(TOO_LONG, head)
            return
        elif depth < MAX_WRAPPINGS and (inner := unwrap(line)) is not None:
            self._line(inner, number, depth + 1)
            return
        if not self._own_form(self._blank, line, 0, number):
            self._not_log.add(line)

    def _syslog(self, line: bytes, start: int, header: re.Match[bytes], number: int) -> None:
        host, tag, pid = header[1] or b"", header[2], header[3] or b""
        end = header.end()
        known = self._known.get((host, tag, pid))
        if known is None:
            known = self._new_source(host, tag, pid, line[end:])
        source = known[0]
        hot = line[start : line.find(b"]: ", start)]
        if header[3] is not None and line[start + len(hot) + 3 : end + 1] == line[end : end + 1]:
            self._sources[hot] = source
        if source.feed is not None:
            source.feed(source, line, end, number)
        elif source.skipped is not None:
            source.skipped.count += 1

    def _new_source(
        self, host: bytes, tag: bytes, pid: bytes, text: bytes
    ) -> tuple[Source, LogReader | None]:
        if len(self._known) >= MAX_SOURCES:
            self._forget()
        for reader in self.readers:
            if (source := reader.source(host, tag, pid, text)) is not None:
                known: tuple[Source, LogReader | None] = (source, reader)
                break
        else:
            known = (Source(host, tag, pid, feed=self._foreign), None)
        self._known[host, tag, pid] = known
        return known

    def _forget(self) -> None:
        for key in list(self._known)[: MAX_SOURCES // 4]:
            source, reader = self._known.pop(key)
            if reader is not None:
                reader.drop(source)
        self._sources.clear()

    def _foreign(self, source: Source, line: bytes, start: int, number: int) -> None:
        """A line under a tag that no reader knows: a server's own form behind it, or behind the stamp."""
        if not self._own_form(source, line, start, number) and not self._own_form(
            self._blank, line, 0, number
        ):
            self._other.add(line)

    def _own_form(self, source: Source, line: bytes, start: int, number: int) -> bool:
        for index, raw in enumerate(self._raw):
            if raw(source, line, start, number):
                if index:  # the next line is probably of the same server
                    self._raw.insert(0, self._raw.pop(index))
                return True
        return False


# -- what users call ------------------------------------------------------------------------------------------


def _tables(
    paths: LogPath | Iterable[LogPath],
    *,
    mta: str = "auto",
    timezone: str | tzinfo | None = None,
    year: int | None = None,
    table: str = "deliveries",
) -> Iterator[tuple[pa.Table, dict[str, Any]]]:
    sets = find_log_files(paths)
    clock = Clock(zone_of(timezone), year)
    sink = Sink(clock, connections=table == "connections")
    engine = LogEngine(sink, None if mta == "auto" else MailReader(mta))
    problems = Problems()
    rows = sink.deliveries if table == "deliveries" else sink.connections
    make = deliveries_table if table == "deliveries" else connections_table
    rules: dict[str, str] = {}
    for files in sets:
        guess = first_year(files, year)
        engine.start_set(guess.year if guess else None)
        if guess:
            rules[files[-1].name] = f"{guess.year}: {guess.rule}"
        for block in read_blocks(files, problems):
            engine.feed(block)
            while len(rows) >= PART_ROWS:
                part = rows[:PART_ROWS]
                del rows[:PART_ROWS]
                yield make(part, engine.places, max(row[0] for row in part)), {}
            if table == "connections":
                sink.deliveries.clear()
    engine.finish()
    coverage = sink.coverage.as_dict(files=problems.by_file, clock={"year": rules})
    yield make(rows, engine.places, engine.number), coverage


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
