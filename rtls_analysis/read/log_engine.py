"""Each line to the reader that knows its form, also where several servers share a file.

A syslog line is known by its tag, once for each process; a line of a server's own form by its beginning. Readers
keep their state from file to file, so that a rotated set reads as one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from itertools import chain, islice

from rtls_analysis.read.exchange import ExchangeReader
from rtls_analysis.read.exim import EximReader
from rtls_analysis.read.haraka import HarakaReader
from rtls_analysis.read.lines import REPEATS, Block, stamp_end, too_long, unwrap
from rtls_analysis.read.log_rows import (
    EMPTY,
    NOT_A_LOG_LINE,
    OTHER_PROGRAM,
    RARE,
    TOO_LONG,
    LogReader,
    Sink,
    Source,
)
from rtls_analysis.read.log_tables import Places
from rtls_analysis.read.maddy import MaddyReader
from rtls_analysis.read.mox import MoxReader
from rtls_analysis.read.opensmtpd import OpenSmtpdReader
from rtls_analysis.read.postfix import PostfixReader
from rtls_analysis.read.qmail import QmailReader
from rtls_analysis.read.sendmail import SendmailReader
from rtls_analysis.read.stalwart import StalwartReader
from rtls_analysis.schema import MailReader

READERS: tuple[Callable[[Sink], LogReader], ...] = (
    PostfixReader,
    EximReader,
    SendmailReader,
    OpenSmtpdReader,
    HarakaReader,
    ExchangeReader,
    MoxReader,
    MaddyReader,
    StalwartReader,
    QmailReader,
)

GENERATION = 1 << 20  # lines; a process that says nothing for one to two generations is forgotten
MAX_SOURCES = 300_000  # of one generation
MAX_UNCLAIMED = 10_000
MAX_WRAPPINGS = 4
MAX_REPEATS = 1_000  # of one line; a folded count beyond that is not believed
MAX_LOOK_BACK = 1_000  # lines in which the one that was repeated is looked for

# A stamp is known by its date; a broken time makes it no other line, and the row's time is missing.
_TRADITIONAL = re.compile(rb"[A-Z][a-z]{2} [ \d]\d .{9}", re.DOTALL).match
_ISO = re.compile(rb"\d{4}-\d\d-\d\dT\S* ").match
HEADER = re.compile(
    rb"(?:<[\w.]+> )?(?:([^\s\[\]]{0,254}[^\s\[\]:]) +)?([^\s\[\]:]{1,100})(?:\[([^\]\s]{0,32})\])?: ?"
    rb"(?:\[ID \d+ [\w.]+\] )?"
).match
_REPEATED = re.compile(rb"message repeated (?P<times>\d{1,9}) times?: \[ ?(.*?)\]?", re.DOTALL).fullmatch
_LAST_REPEATED = re.compile(
    rb"(?:(\S+) )?(?:-- )?last message repeated (?P<times>\d{1,9}) times?(?: --)?"
).fullmatch
_LOST = re.compile(
    rb"(?:imuxsock|imjournal).{0,60} lost \d+ messages|Suppressed \d+ messages|rate-limit"
).search


def make_readers(sink: Sink, mta: MailReader | None = None) -> list[LogReader]:
    """Readers of all servers, or of one."""
    readers = [make(sink) for make in READERS]
    return [reader for reader in readers if mta is None or reader.name is mta]


class LogEngine:
    """Lines to readers: feed it blocks in order, then `finish`.

    Attributes
    ----------
    number
        Lines fed so far; the place of a line in the whole input counts from 1.
    places
        From such a place back to file and line number.
    """

    def __init__(self, sink: Sink, readers: list[LogReader]) -> None:
        self.sink = sink
        self.readers = readers
        self.number = 0
        self.places = Places()
        self._raw = [reader.raw for reader in readers]
        self._sources: dict[bytes, Source] = {}  # by "host tag[pid" as it stands in a line
        self._known: dict[tuple[bytes, bytes, bytes], tuple[Source, LogReader]] = {}
        self._older: dict[
            tuple[bytes, bytes, bytes], tuple[Source, LogReader]
        ] = {}  # of the generation before
        self._unclaimed: dict[tuple[bytes, bytes, bytes], Source] = {}
        self._bare = Source()
        self._own: Callable[[Source, bytes, int, int], bool] | None = None  # the last that took a bare line
        self._day = b"\0"  # of the last line: "Nov 23 " ...
        self._date = b"\0"  # ... or "2026-11-23T", and how long that stamp was, with the space behind it
        self._width = 0
        self._not_log = sink.coverage.reason(NOT_A_LOG_LINE)
        self._other = sink.coverage.reason(OTHER_PROGRAM)
        self._empty = sink.coverage.reason(EMPTY)
        self._before: deque[bytes] = deque(maxlen=MAX_LOOK_BACK)  # the lines before the block at hand

    def start_set(self) -> None:
        """Begin another rotated set: the clock has been told its year."""
        self._day = b"\0"

    def feed(self, block: Block) -> None:
        """Read a block of lines."""
        lines = block.text.split(b"\n")
        if block.first_line is not None:
            self.places.add(self.number + 1, block.file.name, block.first_line)
        repeats = REPEATS in block.text
        self.sink.coverage.lines_read += len(lines)
        while lines:
            if self.number % GENERATION == 0 and self.number:
                self.age()
            room = GENERATION - self.number % GENERATION
            self._feed_lines(lines[:room] if len(lines) > room else lines, repeats=repeats)
            lines = lines[room:]

    def skip(self, lines: list[bytes]) -> None:
        """Lines like these have been read elsewhere: the last ones before the next block."""
        self._before.extend(lines)
        self._day = b"\0"

    def _feed_lines(self, lines: list[bytes], *, repeats: bool) -> None:
        begun = 0
        if repeats:
            for index, line in enumerate(lines):
                if REPEATS in line:
                    self._run(lines[begun:index])
                    self.number += 1
                    if not self._repeat(lines, index):
                        self._line(line, self.number)
                    begun = index + 1
        self._run(lines[begun:] if begun else lines)
        self._before.extend(lines[-MAX_LOOK_BACK:])

    def _run(self, lines: list[bytes]) -> None:
        number = self.number
        sources, bare = self._sources.get, self._bare
        day, date, width, own = self._day, self._date, self._width, self._own
        for line in lines:
            number += 1
            if line.startswith(day):
                end = line.find(b"]: ", 16)
                source = sources(line[16:end])
            elif line.startswith(date) and line.find(b" ", 11) == width - 1:
                end = line.find(b"]: ", width)
                source = sources(line[width:end])
            else:
                source = None
            if source is None:
                if own is None or not own(bare, line, 0, number):
                    self._line(line, number)
                    day, date, width, own = self._day, self._date, self._width, self._own
            elif (feed := source.feed) is not None:
                feed(source, line, end + 3, number)
            elif source.rare is not None and RARE in line:
                source.rare(source, line, end + 3, number)
            else:
                source.skipped.count += 1
        self.number = number

    def finish(self) -> None:
        """Tell the readers that the input has ended."""
        for reader in self.readers:
            reader.finish()

    # -- lines that stand for others ------------------------------------------------------------------------

    def _repeat(self, lines: list[bytes], index: int) -> bool:
        """``message repeated 3 times: [ TEXT]`` is three more of TEXT, the older form of the host's line before."""
        line = lines[index]
        start = stamp_end(line)
        if start and (match := _LAST_REPEATED(line, start)):
            text = self.last_of(match[1] or b"", lines[:index])
        elif start and (header := HEADER(line, start)) and (match := _REPEATED(line, header.end())):
            text = line[start : header.end()] + match[2]
        else:
            return False
        times = int(match["times"])
        coverage = self.sink.coverage
        if times > MAX_REPEATS:
            coverage.warn(f"a line said to be repeated more than {MAX_REPEATS} times was taken so often")
            times = MAX_REPEATS
        if text is None or not times:
            self._other.add(line)
            return True
        coverage.repeated += times - 1
        for _ in range(times):
            self._line(line[:start] + text, self.number)
        return True

    def last_of(self, host: bytes, lines: list[bytes]) -> bytes | None:
        """The text behind the stamp of a host's last line, the last of these and those before; `None`: none."""
        for line in islice(chain(reversed(lines), reversed(self._before)), MAX_LOOK_BACK):
            start = stamp_end(line)
            if start and line.startswith(host, start) and REPEATS not in line:
                return line[start:]
        return None

    # -- any other line ------------------------------------------------------------------------------------

    def _line(self, line: bytes, number: int, depth: int = 0) -> None:
        """A line that begins unlike the last one, comes from a source not met before, or is not of the syslog kind."""
        start = stamp_end(line)
        contained = line.startswith((b"stdout ", b"stderr "), start)
        if start and not contained and line[:1] != b"@":
            self._stamped(line, start, number)
        elif not line.strip(b"\0 \t\r"):
            self._empty.count += 1
        elif (head := too_long(line)) is not None:
            self.sink.coverage.skip(TOO_LONG, head)
        elif depth < MAX_WRAPPINGS and (inner := unwrap(line)) is not None:
            self._line(inner, number, depth + 1)
        elif (stamp := _TRADITIONAL(line) or _ISO(line)) is not None:
            self._stamped(line, stamp.end(), number)
        else:
            self.unknown(line, 0, None, number)

    def _stamped(self, line: bytes, start: int, number: int) -> None:
        traditional = line[3:4] == b" "
        if traditional:
            if line[:7] != self._day:
                self.sink.clock.day(line)
                self._day = line[:7]
            if self.sink.clock.careful:  # each line must pass here
                self.sink.clock.at(line)
                self._day = b"\0"
        elif line[10:11] == b"T" and line.find(b" ", 11) == start - 1:
            self._date, self._width = line[:11], start
        header = HEADER(line, start)
        # Lines of a server's own form may begin like this, and hold words with a colon that look like a tag.
        if header is None or (header[3] is None and not traditional):
            self.unknown(line, start, header, number)
        else:
            self._syslog(line, start, header, number)

    def unknown(self, line: bytes, start: int, header: re.Match[bytes] | None, number: int) -> None:
        """A line that may be of a server's own form, and else of a syslog source where it has such a header."""
        if self._own_form(self._bare, line, 0, number):
            return
        if header is None:
            self._not_log.add(line)
        else:
            self._syslog(line, start, header, number)

    def _syslog(self, line: bytes, start: int, header: re.Match[bytes], number: int) -> None:
        host, tag, pid = header[1] or b"", header[2], header[3] or b""
        source = self.source_of(host, tag, pid, line[header.end() :])
        if header[3] is not None and header[2] + b"[" + pid + b"]: " == line[header.start(2) : header.end()]:
            begin = 16 if line[3:4] == b" " else start
            self._sources[line[begin : header.end() - 3]] = source
        self.hand(source, line, header.end(), number)

    def hand(self, source: Source, line: bytes, start: int, number: int) -> None:
        """Give a line to its source."""
        if source.feed is not None:
            source.feed(source, line, start, number)
        elif source.rare is not None and RARE in line:
            source.rare(source, line, start, number)
        else:
            source.skipped.count += 1

    def source_of(self, host: bytes, tag: bytes, pid: bytes, text: bytes) -> Source:
        """The source of a syslog line, whoever's it is; `text` is what a new one says first."""
        key = (host, tag, pid)
        if (known := self._known.get(key)) is not None:
            return known[0]
        if (known := self._older.pop(key, None)) is not None:
            self._known[key] = known
            return known[0]
        if (unclaimed := self._unclaimed.get(key)) is not None:
            return unclaimed
        for reader in self.readers:
            if (source := reader.source(host, tag, pid, text)) is not None:
                if len(self._known) >= MAX_SOURCES:
                    self.age()
                self._known[key] = (source, reader)
                return source
        if len(self._unclaimed) >= MAX_UNCLAIMED:
            self._unclaimed.clear()
            self._sources.clear()
        source = self._unclaimed[key] = Source(host, tag, pid, feed=self.foreign)
        return source

    def known_source(self, host: bytes, tag: bytes, pid: bytes) -> Source | None:
        """The source of such lines, if there were any that a reader took."""
        known = self._known.get((host, tag, pid)) or self._older.get((host, tag, pid))
        return known[0] if known is not None else None

    def age(self) -> None:
        """Forget the processes that have said nothing for a generation of lines, and begin another."""
        for source, reader in self._older.values():
            reader.drop(source)
        self._older, self._known = self._known, {}
        self._sources.clear()

    def foreign(self, source: Source, line: bytes, start: int, number: int) -> None:
        """A line under a tag that no reader knows: a server's own form behind it, or behind the stamp."""
        if self._own_form(source, line, start, number) or self._own_form(self._bare, line, 0, number):
            return
        if _LOST(line, start):
            self.sink.coverage.warn("the log says that lines were lost to a rate limit: attempts are missing")
        self._other.add(line)

    def _own_form(self, source: Source, line: bytes, start: int, number: int) -> bool:
        for index, raw in enumerate(self._raw):
            if raw(source, line, start, number):
                if index:  # the next line is probably of the same server
                    self._raw.insert(0, self._raw.pop(index))
                if source is self._bare:
                    self._own = raw
                return True
        return False
