"""Lines out of log files: opening them, putting rotated sets in order, and telling the time of a line.

Files are read as bytes, in blocks of whole lines, whatever they are packed with. A line cut in two by a rotation
is put together again. Nothing here knows a mail server.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import json
import lzma
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from pathlib import Path
from typing import IO, Any
from zoneinfo import ZoneInfo

BLOCK_BYTES = 4 << 20
MAX_LINE_BYTES = 1 << 20
MAX_SKIPPED_BYTES = 256 << 20  # of one line without an end; a packed bomb is given up there
MAX_RATIO = 500  # unpacked to packed bytes, beyond the first GiB; logs pack 10 to 100 times

LogPath = str | os.PathLike[str] | IO[bytes]


@dataclass(slots=True)
class LogFile:
    """One input: its name as tables show it, and a path or an open stream."""

    name: str
    path: Path | None = None
    stream: IO[bytes] | None = None


@dataclass(slots=True)
class Block:
    """Whole lines of one file, without their ends; `first_line` is the number of the first, from 1."""

    file: LogFile
    first_line: int
    lines: list[bytes]


@dataclass(slots=True)
class Problems:
    """Files that could not be read to their end, and why."""

    by_file: dict[str, str] = field(default_factory=dict)

    def add(self, file: LogFile, reason: str) -> None:
        """Note the first thing that went wrong with a file."""
        self.by_file.setdefault(file.name, reason)


# -- which files, in which order ------------------------------------------------------------------------------

_PACKED = re.compile(r"\.(?:gz|xz|zst|zstd|bz2|lzma)$", re.IGNORECASE)
_NUMBERED = re.compile(r"(.+?)[.-](\d{1,6})")
_DATED = re.compile(r"(.+?)[.-]((?:19|20)\d\d-?\d\d-?\d\d(?:[-T_.]?\d[\d:-]*)?)")
_DIGITS = re.compile(r"(\d+)")


def find_log_files(paths: LogPath | Iterable[LogPath]) -> list[list[LogFile]]:
    """Expand paths, globs and folders into rotated sets, each oldest file first.

    `-` is standard input; an open binary file may stand for a path. ``mail.log.2.gz``, ``mail.log.1`` and
    ``mail.log`` are one set, so are ``mail.log-20261101.xz`` and ``mail.log``. Sets keep the order in which they
    were named.

    Raises
    ------
    FileNotFoundError
        A path names nothing, or a glob finds nothing.
    """
    given: list[Any] = (
        [paths] if isinstance(paths, (str, os.PathLike)) or hasattr(paths, "read") else list(paths)
    )
    sets: dict[tuple[str, str], list[tuple[Any, LogFile]]] = {}
    seen: set[str] = set()
    for item in given:
        if not isinstance(item, (str, os.PathLike)):
            name = str(getattr(item, "name", "stream"))
            sets[("stream", f"{len(sets)}")] = [((0,), LogFile(name, stream=item))]
            continue
        text = os.fspath(item)
        if text == "-":
            sets[("-", "-")] = [((0,), LogFile("-", stream=sys.stdin.buffer))]
            continue
        for path in _expand(text):
            if (key := os.path.realpath(path)) in seen:
                continue
            seen.add(key)
            base, order = _rotation(path.name)
            sets.setdefault((str(path.parent), base), []).append((order, LogFile(str(path), path)))
    return [_in_order(members) for members in sets.values()]


def _expand(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_dir():
        return sorted((entry for entry in path.iterdir() if entry.is_file()), key=_natural)
    if path.exists():
        return [path]
    found = [Path(name) for name in glob.glob(str(path))] if glob.has_magic(text) else []  # noqa: PTH207
    if not found:
        raise FileNotFoundError(
            f"no log file at {text!r}: give a file, a folder, a glob, or - for standard input"
        )
    return sorted((entry for entry in found if entry.is_file()), key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(str(path))]


def _rotation(name: str) -> tuple[str, tuple[int, Any]]:
    """The name shared by a rotated set, and a key that sorts its oldest file first."""
    bare = _PACKED.sub("", name)
    if match := _DATED.fullmatch(bare):
        return match[1], (0, re.sub(r"\D", "", match[2]))
    if match := _NUMBERED.fullmatch(bare):
        return match[1], (1, -int(match[2]))
    return bare, (2, "")


def _in_order(members: list[tuple[Any, LogFile]]) -> list[LogFile]:
    members = sorted(members, key=lambda member: member[0])
    files = [file for _order, file in members]
    if len(files) > 1 and all(order[0] == 1 for order, _file in members):
        # Pieces numbered upwards (split, exporters) look like rotations: their first stamps tell.
        stamps = [_first_stamp(file) for file in files]
        known = [stamp for stamp in stamps if stamp is not None]
        if len(known) == len(files) and all(later < earlier for earlier, later in pairwise(known)):
            near = all(abs(one[1] - two[1]) <= 6 or one[0] != two[0] for one, two in pairwise(known))
            if near and len({stamp[0] > 0 for stamp in known}) == 1:
                files.reverse()
    return files


_STAMP = re.compile(
    rb"^(?:(\d{4})-(\d\d)-(\d\d)[T ](\d\d:\d\d:\d\d\S*)|([A-Z][a-z]{2}) ([ \d]\d) (\d\d:\d\d:\d\d))",
    re.MULTILINE,
)


def _first_stamp(file: LogFile) -> tuple[int, int, int, bytes] | None:
    """Year (0 where the form has none), month, day and time of the first line with a stamp."""
    try:
        with _opened(file) as stream:
            match = _STAMP.search(stream.read(1 << 16))
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError):
        return None
    if match is None:
        return None
    if match[1]:
        return int(match[1]), int(match[2]), int(match[3]), match[4]
    return 0, _MONTHS.get(match[5], 0), int(match[6]), match[7]


# -- opening --------------------------------------------------------------------------------------------------

_UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError)


class _Opened:
    """A file unpacked by its first bytes, whatever its name; `read` gives what there is, to the last good byte."""

    def __init__(self, file: LogFile) -> None:
        raw: Any = file.stream
        self._close = file.stream is None
        if raw is None:
            if file.path is None:
                raise ValueError(f"{file.name}: neither path nor stream")
            raw = file.path.open("rb", buffering=1 << 18)
        self._raw = raw
        head = _peek(raw)
        self.packed = True
        self._rest = b""
        source: Any = raw if head is None else _Joined(head, raw)
        head = head if head is not None else raw.peek(8)[:8]
        if head.startswith(b"\x1f\x8b"):
            self._stream: Any = gzip.GzipFile(fileobj=source)
        elif head.startswith((b"\xfd7zXZ\0", b"]\0\0")):
            self._stream = lzma.LZMAFile(source)  # noqa: SIM115
        elif head.startswith(b"BZh"):
            self._stream = bz2.BZ2File(source)
        elif head.startswith((b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18")):
            import pyarrow as pa

            self._stream = pa.CompressedInputStream(pa.PythonFile(source, "r"), "zstd")
        else:
            self._stream = source
            self.packed = False
        self.wide = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
        self._read1 = getattr(self._stream, "read1", None) or self._stream.read

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; less only at the end. What a damaged file gave before the damage is kept."""
        parts: list[bytes] = []
        missing = size
        while missing > 0:
            try:
                data = self._read1(missing)
            except _UNREADABLE:
                if not parts:
                    raise
                break  # the next call meets the same damage
            if not data:
                break
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def packed_bytes(self) -> int:
        """Bytes taken from the packed file so far; 0 where that cannot be told."""
        try:
            return int(self._raw.tell())
        except (OSError, ValueError, AttributeError):
            return 0

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        if self._close:
            self._raw.close()


def _opened(file: LogFile) -> _Opened:
    return _Opened(file)


def _peek(raw: Any) -> bytes | None:
    """The first bytes of a stream that cannot look ahead; `None` where it can."""
    return None if hasattr(raw, "peek") else (raw.read(8) or b"")


class _Joined:
    """A stream with bytes already taken from it put back in front."""

    def __init__(self, head: bytes, raw: IO[bytes]) -> None:
        self._head, self._raw, self.closed = head, raw, False

    def read(self, size: int = -1) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head if size < 0 or size > len(head) else self._put_back(head, size)
        return self._raw.read(size)

    def _put_back(self, head: bytes, size: int) -> bytes:
        self._head = head[size:]
        return head[:size]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


# -- blocks of lines ------------------------------------------------------------------------------------------

_BEGINNINGS = tuple(
    re.compile(pattern)
    for pattern in (
        rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d",
        rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d",
        rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d",
        rb"\{\s*\"",
        rb"@[0-9a-f]{24} ",
        rb"\[[A-Z]+\] \[",
        rb"l=\w+ m=",
        rb"<\d{1,3}>",
        rb"level=[A-Z]+ ",
        rb"#",
    )
)


def _begins_a_line(carry: bytes, data: bytes) -> bool:
    """Whether `data` starts a line of the same form as the unfinished line before it, and so does not end it."""
    return any(form.match(carry) and form.match(data) for form in _BEGINNINGS)


def read_blocks(files: Sequence[LogFile], problems: Problems, *, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """Blocks of whole lines from the files of one rotated set, oldest first.

    A file that breaks off in the middle of a line is continued by the next one. Lines of more than 1 MiB come as
    their first 80 bytes and a mark that `skipped_line` knows.
    """
    carry = b""
    owner: LogFile | None = None
    number = 0  # lines of `owner` already given
    for file in files:
        first = True
        skipping = 0
        try:
            opened = _opened(file)
        except _UNREADABLE as error:
            problems.add(file, _reason(error))
            continue
        with opened:
            decoder = None
            total = 0
            while True:
                try:
                    data = opened.read(size)
                except _UNREADABLE as error:
                    problems.add(file, _reason(error))
                    break
                if not data:
                    break
                total += len(data)
                if opened.packed and total > 1 << 30 and total > MAX_RATIO * max(opened.packed_bytes(), 1):
                    problems.add(file, f"unpacks to more than {MAX_RATIO} times its size")
                    break
                if first:
                    if opened.wide:
                        import codecs

                        decoder = codecs.getincrementaldecoder(opened.wide)("replace")
                    elif data.startswith(b"\xef\xbb\xbf"):
                        data = data[3:]
                if decoder is not None:
                    data = decoder.decode(data).encode("utf-8", "replace")
                if first:
                    first = False
                    if carry and owner is not None and _begins_a_line(carry, data):
                        yield Block(owner, number + 1, [carry])
                        carry = b""
                    if not carry:
                        owner, number = file, 0
                if skipping:
                    end = data.find(b"\n")
                    if end < 0:
                        skipping += len(data)
                        if skipping > MAX_SKIPPED_BYTES:
                            problems.add(file, "a line without end")
                            break
                        continue
                    data = data[end:]
                    skipping = 0
                end = data.rfind(b"\n")
                if end < 0:
                    carry += data
                    if len(carry) > MAX_LINE_BYTES:
                        carry = _cut(carry)
                        skipping = 1
                    continue
                text = carry + data[:end] if carry else data[:end]
                carry = data[end + 1 :]
                if b"\r" in text:
                    text = text.replace(b"\r\n", b"\n").removesuffix(b"\r")
                lines = text.split(b"\n")
                if max(map(len, lines)) > MAX_LINE_BYTES:
                    lines = [line if len(line) <= MAX_LINE_BYTES else _cut(line) for line in lines]
                assert owner is not None
                yield Block(owner, number + 1, lines)
                number += len(lines)
                if owner is not file:
                    owner, number = file, 0
                if len(carry) > MAX_LINE_BYTES:
                    carry = _cut(carry)
                    skipping = 1
    if carry and owner is not None:
        yield Block(owner, number + 1, [carry.removesuffix(b"\r")])


_TOO_LONG = b"\0rtls: too long\0"


def _cut(line: bytes) -> bytes:
    return _TOO_LONG + line[:80]


def too_long(line: bytes) -> bytes | None:
    """The beginning of a line that was too long to keep; `None` for any other line."""
    return line[len(_TOO_LONG) :] if line.startswith(_TOO_LONG) else None


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


# -- other envelopes brought into the syslog form ---------------------------------------------------------------

_PRIORITY = re.compile(rb"<\d{1,3}>(?!1 )")
_RFC5424 = re.compile(
    rb"<\d{1,3}>1 (\S+) (\S+) (\S+) (\S+) \S+ (?:-|(?:\[(?:[^\]\\]|\\.)*\])+)(?: (?:\xef\xbb\xbf)?(.*))?",
    re.DOTALL,
)
_CRI = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*) (?:stdout|stderr) [FP] (.*)", re.DOTALL)
_COMPOSE = re.compile(rb"[\w.-]+ +\| ?(.*)", re.DOTALL)
_POD = re.compile(rb"\[pod/\S+\] (.*)", re.DOTALL)
_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
_PRECISE = re.compile(rb"([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d)[.,]\d+( .*)", re.DOTALL)
_SHORT_FULL = re.compile(
    rb"[A-Z][a-z]{2} (\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?) (UTC|GMT) (.*)", re.DOTALL
)
_OLD_ZONE = re.compile(rb"([A-Z][a-z]{2} [ \d]\d) (\d{4}) (\d\d:\d\d:\d\d)( .*)", re.DOTALL)
_WITH_STAMP = re.compile(
    rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d|\{|<\d|@[0-9a-f]{24}|\[|l=|level="
)


def unwrap(line: bytes) -> bytes | None:
    """The log line inside an envelope: journald and container JSON, CRI, compose, RFC 5424, PRI, colours, NULs.

    `None` where there is no such envelope; the result may be wrapped again. Envelopes that carry time, host and
    process come back as ``<RFC 3339> host tag[pid]: text``.
    """
    head = line[:1]
    if head == b"\0":
        return line.lstrip(b"\0") or None
    if head == b"\x1b" or b"\x1b[" in line[:64]:
        plain = _COLOUR.sub(b"", line)
        return plain if plain != line else None
    if head == b"{":
        return _unwrap_json(line)
    if head == b"<":
        if match := _RFC5424.fullmatch(line):
            stamp, host, tag, pid, text = match.groups()
            host = b"" if host == b"-" else host + b" "
            pid = b"" if pid == b"-" else b"[" + pid + b"]"
            return stamp + b" " + host + (b"-" if tag == b"-" else tag) + pid + b": " + (text or b"")
        if match := _PRIORITY.match(line):
            return line[match.end() :]
        return None
    if match := _CRI.fullmatch(line):
        inner = match[2]
        return inner if _WITH_STAMP.match(inner) else match[1] + b" " + inner
    if head == b"[":
        match = _POD.fullmatch(line)
        return match[1] if match else None
    if line[15:16] in (b".", b",") and (match := _PRECISE.fullmatch(line)):
        # The fraction goes: the year is to be found as for any stamp of this form.
        return match[1] + match[2]
    if match := _SHORT_FULL.fullmatch(line):
        return match[1] + b"T" + match[2] + b"Z " + match[4]
    if line[6:7] == b" " and (match := _OLD_ZONE.fullmatch(line)):
        month = _MONTHS.get(match[1][:3])
        if month:
            day = match[1][4:].replace(b" ", b"0")
            return match[2] + b"-%02d-" % month + day + b"T" + match[3] + match[4]
    if (match := _COMPOSE.fullmatch(line)) and _WITH_STAMP.match(match[1]):
        return match[1]
    return None


def _unwrap_json(line: bytes) -> bytes | None:
    if len(line) > MAX_LINE_BYTES or not line.rstrip().endswith(b"}"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    if "MESSAGE" in record and "__REALTIME_TIMESTAMP" in record:
        return _unwrap_journal(record)
    text = record.get("log")
    if isinstance(text, str) and ("stream" in record or "time" in record):  # Docker's json-file
        inner = text.rstrip("\n").encode("utf-8", "surrogateescape")
        if _WITH_STAMP.match(inner) or not isinstance(record.get("time"), str):
            return inner
        return str(record["time"]).encode("utf-8", "replace") + b" " + inner
    return None


def _unwrap_journal(record: dict[str, Any]) -> bytes | None:
    """An entry of ``journalctl -o json``; a MESSAGE that is no UTF-8 comes as a list of byte numbers."""
    message = record["MESSAGE"]
    try:
        if isinstance(message, list):
            text = bytes(message)
        elif isinstance(message, str):
            text = message.encode("utf-8", "surrogateescape")
        else:
            return None
        micros = int(record["__REALTIME_TIMESTAMP"])
        when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    except (ValueError, TypeError, OverflowError):
        return None

    def word(*names: str) -> bytes:
        for name in names:
            if isinstance(value := record.get(name), (str, int)):
                return re.sub(rb"[\s\0]", b"_", str(value).encode("utf-8", "replace"))
        return b""

    host, tag = word("_HOSTNAME"), word("SYSLOG_IDENTIFIER", "_COMM")
    pid = word("SYSLOG_PID", "_PID")
    stamp = when.strftime("%Y-%m-%dT%H:%M:%S.%f").encode() + b"+00:00 "
    text = text.replace(b"\n", b" ").rstrip()
    return (
        stamp
        + (host + b" " if host else b"")
        + (tag or b"-")
        + (b"[" + pid + b"]" if pid else b"")
        + b": "
        + text
    )


# -- time -----------------------------------------------------------------------------------------------------

_NAMES = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTHS = {name: number for number, name in enumerate(_NAMES, 1)}
_ISO = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))? ?(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = 60_000_000
_STAMP_END = re.compile(
    rb"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    rb"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z| ?[+-]\d\d:?\d\d)?"
    rb"|@[0-9a-f]{24})[ \t]+"
).match


def stamp_end(line: bytes, start: int = 0) -> int:
    """Where the text behind a time stamp at `start` begins; `start` itself where there is no stamp.

    >>> line = b"2026-01-02T03:04:05.123Z [INFO] loaded"
    >>> line[stamp_end(line):]
    b'[INFO] loaded'
    """
    match = _STAMP_END(line, start)
    return start if match is None else match.end()


def zone_of(timezone: str | tzinfo | None) -> tzinfo | None:
    """The zone of stamps that carry none; `None` is that of this machine.

    Raises
    ------
    ValueError
        There is no zone of that name.
    """
    if timezone is None or isinstance(timezone, tzinfo):
        return timezone
    try:
        return ZoneInfo(timezone)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"no time zone {timezone!r}: give a name such as 'Europe/Berlin' or 'UTC'"
        ) from error


class Clock:
    """Microseconds since 1970 (UTC) of a line's stamp, with the year that RFC 3164 leaves out.

    Feed `month` whenever the month of the stamps changes: it falls by more than six months at New Year; a line
    whose month rises by more than six is a late one of the year before. Within the hour that comes twice at the
    end of summer time, a step back of half an hour or more begins the second pass.
    """

    def __init__(self, zone: tzinfo | None = None, year: int | None = None) -> None:
        self.zone = zone
        self.year = year if year is not None else datetime.now(UTC).year
        self._month = 0
        self._year_of_line = self.year
        self._hours: dict[bytes, int | None] = {}
        self._twice: dict[bytes, tuple[int, int, int, bool]] = {}
        self.met_twice = False
        self._last: bytes = b""
        self._last_at: int | None = None

    def start(self, year: int, month: int = 0) -> None:
        """Begin another file or set in this year."""
        self.year = self._year_of_line = year
        self._month = month
        self._hours.clear()
        self._last = b""

    def month(self, name: bytes) -> None:
        """Note the month of the line at hand."""
        month = _MONTHS.get(name)
        if month is None:
            return
        step = month - self._month if self._month else 0
        year = self.year
        if step > 6:
            year -= 1
        else:
            if step < -6:
                self.year = year = year + 1
            self._month = month
        if year != self._year_of_line:
            self._year_of_line = year
            self._hours.clear()
            self._last = b""

    def at(self, line: bytes) -> int | None:
        """The time at which a line begins (RFC 3164, RFC 3339, date and time with a space, TAI64N); `None`: none."""
        try:
            if line[3] == 32:
                stamp = line[:15]
                if stamp == self._last:
                    return self._last_at
                hour = line[:9]
                base = self._hours[hour] if hour in self._hours else self._hour(hour, stamp)
                at = None
                if base is not None and stamp[9] == stamp[12] == 58:
                    at = base + int(stamp[10:12]) * _MINUTE + int(stamp[13:15]) * 1_000_000
                self._last, self._last_at = stamp, at
                return at
            if line[10] == 84 and line[19] == 46 and line[26] in b"+-Z":
                hour = line[:13] + line[26:32] if line[26] != 90 else line[:13] + b"Z"
                base = self._hours.get(hour)
                if base is not None:
                    return base + int(line[14:16]) * _MINUTE + int(line[17:19]) * 1_000_000 + int(line[20:26])
                at = self._iso(line)
                if at is not None and len(self._hours) < 10_000:
                    self._hours[hour] = at - (
                        int(line[14:16]) * _MINUTE + int(line[17:19]) * 1_000_000 + int(line[20:26])
                    )
                return at
            if line[0] == 64:
                # Two to the 62nd and ten seconds before 1970; daemontools knows no leap seconds.
                return (int(line[1:17], 16) - 4611686018427387914) * 1_000_000 + int(line[17:25], 16) // 1000
            return self._iso(line)
        except (IndexError, ValueError):
            return None

    def _hour(self, hour: bytes, stamp: bytes) -> int | None:
        month = _MONTHS.get(hour[:3])
        try:
            day, hours = int(hour[4:6]), int(hour[7:9])
            first = datetime(self._year_of_line, month or 0, day, hours)
        except ValueError:
            return None
        return self._resolve(hour, first, stamp)

    def _resolve(self, hour: bytes, first: datetime, stamp: bytes) -> int | None:
        one, two = self._utc(first, 0), self._utc(first, 1)
        if one == two or one is None or two is None:
            if len(self._hours) > 10_000:
                self._hours.clear()
            self._hours[hour] = one
            return one
        if two < one:  # an hour that the clock jumped over
            return one
        self.met_twice = True
        minute, second = int(stamp[10:12]), int(stamp[13:15])
        within = minute * 60 + second
        _one, _two, before, again = self._twice.get(hour, (one, two, 0, False))
        again = again or within < before - 1800
        self._twice[hour] = (one, two, within, again)
        return two if again else one

    def _utc(self, naive: datetime, fold: int) -> int | None:
        try:
            if self.zone is None:
                aware = naive.replace(fold=fold).astimezone(UTC)
            else:
                aware = naive.replace(tzinfo=self.zone, fold=fold).astimezone(UTC)
        except (OverflowError, ValueError, OSError):
            return None
        return (aware - _EPOCH) // timedelta(microseconds=1)

    def _iso(self, line: bytes) -> int | None:
        match = _ISO.match(line)
        if match is None:
            return None
        year, month, day, hours, minutes, seconds, fraction, zone = match.groups()
        try:
            first = datetime(int(year), int(month), int(day), int(hours))
        except ValueError:
            return None
        past = int(minutes) * _MINUTE + int(seconds) * 1_000_000
        if fraction:
            past += int(fraction[:6].ljust(6, b"0"))
        if zone is None:
            hour = line[:13]
            base = self._hours.get(hour)
            if base is None:
                base = self._resolve(hour, first, b" " * 10 + minutes + b":" + seconds)
            return None if base is None else base + past
        base = (first.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
        if zone not in (b"Z", b"z"):
            east = int(zone[1:3]) * 60 + int(zone[-2:])
            base -= (east if zone[:1] == b"+" else -east) * _MINUTE
        return base + past


@dataclass(frozen=True, slots=True)
class YearGuess:
    """The year of the first line of a set, and the rule that gave it."""

    year: int
    rule: str


_MONTH_LINES = re.compile(rb"^([A-Z][a-z]{2}) [ \d]\d \d\d:\d\d:\d\d", re.MULTILINE)
_NAME_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)(?:-?(0[1-9]|1[0-2])(?:-?([0-3]\d))?)?(?!\d)")


def first_year(files: Sequence[LogFile], year: int | None = None) -> YearGuess | None:
    """The year of a set's first RFC 3164 stamp; `None` where its lines carry their own year.

    In this order: given by the caller (the year of the first line); a date in the name of the last file, or else
    the time that file was last changed, as the time of the last line, less the New Years passed on the way.
    Standard input is taken to have begun within the last year.

    Notes
    -----
    New Years are looked for in every line of a file's first 8 MiB, then in one line per 64 KiB.
    """
    if year is not None:
        return YearGuess(year, "given")
    month = turns = last_month = last_day = 0
    first: tuple[int, int] | None = None
    if any(file.stream is not None for file in files):
        now = datetime.now(UTC)
        return YearGuess(now.year, "this year, for a stream")
    for file in files:
        for name, day in _months(file):
            number = _MONTHS.get(name)
            if number is None:
                continue
            step = number - month if month else 0
            if step > 6:
                continue
            turns += step < -6
            month = number
            last_month, last_day = number, day
            first = first or (number, day)
    if first is None:
        return None
    last = files[-1]
    match = _NAME_DATE.search(Path(last.name).name)
    if match:
        end, rule = datetime(int(match[1]), int(match[2] or 12), 28, tzinfo=UTC), "date in the file name"
    else:
        end, rule = _changed(last), "time the file was last changed"
    ending = end + timedelta(days=1)
    later = (last_month, last_day) > (ending.month, ending.day) and ending.year == end.year
    if match and not match[2]:
        later = False
    return YearGuess(end.year - later - turns, rule)


def _months(file: LogFile) -> Iterator[tuple[bytes, int]]:
    try:
        with _opened(file) as opened:
            head = opened.read(8 << 20)
            found = [(match[1], int(match[0][4:6])) for match in _MONTH_LINES.finditer(head)]
            yield from _changes(found)
            if not found or len(head) < 8 << 20:
                return
            if not opened.packed and file.path is not None:
                with file.path.open("rb") as stream:
                    size = file.path.stat().st_size
                    for offset in [*range(8 << 20, size, 1 << 16), max(size - 4096, 0)]:
                        stream.seek(offset)
                        yield from _changes(_sample(stream.read(4096)))
                return
            while data := opened.read(1 << 20):
                for offset in range(0, len(data), 1 << 16):
                    yield from _changes(_sample(data[offset : offset + 4096]))
                yield from _changes(_sample(data[-4096:]))
    except _UNREADABLE:
        return


def _sample(data: bytes) -> list[tuple[bytes, int]]:
    return [(match[1], int(match[0][4:6])) for match in _MONTH_LINES.finditer(data, 1)]


def _changes(found: list[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    """The first, the last, and those where the month differs from the one before."""
    kept = [one for one, two in zip(found, [(b"", 0), *found], strict=False) if one[0] != two[0]]
    return kept + found[-1:]


def _changed(file: LogFile) -> datetime:
    if file.path is None:
        return datetime.now(UTC)
    try:
        with file.path.open("rb") as stream:
            head = stream.read(8)
        if head.startswith(b"\x1f\x8b") and int.from_bytes(head[4:8], "little"):
            return datetime.fromtimestamp(int.from_bytes(head[4:8], "little"), UTC)
        return datetime.fromtimestamp(file.path.stat().st_mtime, UTC)
    except (OSError, OverflowError, ValueError):
        return datetime.now(UTC)
