"""The time of a log line in UTC: the year that RFC 3164 leaves out, local zones, and the hour that comes twice."""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import TZPATH, ZoneInfo

from rtls_analysis.read.lines import MONTHS
from rtls_analysis.read.log_files import UNREADABLE, LogFile, open_log

_ISO = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))? ?(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)
_SECOND = 1_000_000
_MINUTE = 60_000_000
_TAI64 = 4611686018427387914  # 2 to the 62nd, and ten seconds: daemontools knows no leap seconds
_END = 253_370_764_800 * _SECOND  # of the year 9998
_NO_ZONE = frozenset({b"", b" "} | {b" " + bytes([sign]) for sign in range(256) if sign not in b"+-Zz"})
_ZONE_SIGNS = frozenset({b"+", b"-", b"Z"})
_MAX_HOURS = 10_000
_LATE_DAYS = 31  # beyond which no line is late


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


class ZoneOfMachine(tzinfo):
    """The zone of the machine where it was made, on whichever machine it is used.

    Parameters
    ----------
    data
        A TZif file (RFC 9636).
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._zone = ZoneInfo.from_file(io.BytesIO(data))

    def __reduce__(self) -> tuple[Any, ...]:
        return ZoneOfMachine, (self._data,)

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        """How far it is east of UTC then."""
        return self._zone.utcoffset(when)

    def dst(self, when: datetime | None) -> timedelta | None:
        """How much of that is summer time."""
        return self._zone.dst(when)

    def tzname(self, when: datetime | None) -> str | None:
        """What it is called then."""
        return self._zone.tzname(when)


def zone_of_machine() -> ZoneOfMachine | None:
    """The zone of this machine, as it can be sent to another one; `None` where that cannot be told."""
    try:
        own = ZoneOfMachine(_zone_file())
        days = (datetime(year, month, 1, 12) for year in range(1990, 2037) for month in range(1, 13))
        agrees = all(day.replace(tzinfo=own).astimezone(UTC) == day.astimezone(UTC) for day in days)
    except (OSError, ValueError, OverflowError):
        return None
    return own if agrees else None


def _zone_file() -> bytes:
    """The TZif data of this machine's zone: what ``TZ`` says, or else ``/etc/localtime``."""
    name = os.environ.get("TZ")
    if name is None:
        local = Path("/etc/localtime")
        return local.read_bytes() if local.exists() else _zone_of_rule("UTC0")
    name = name.removeprefix(":") or "UTC0"
    for folder in ("/", *TZPATH) if name.startswith("/") else TZPATH:
        path = Path(folder, name)
        if path.is_file():
            return path.read_bytes()
    return _zone_of_rule(name)


def _zone_of_rule(rule: str) -> bytes:
    """A TZif file without a transition: from its footer on, a rule as ``CET-1CEST,M3.5.0,M10.5.0/3`` holds."""
    header = struct.pack("!4sc15x6L", b"TZif", b"2", 0, 0, 0, 0, 1, 4)
    only_type = struct.pack("!lBB4s", 0, 0, 0, b"UTC\0")
    return (header + only_type) * 2 + b"\n" + rule.encode("ascii", "replace") + b"\n"


@dataclass(frozen=True, slots=True)
class ClockState:
    """Where a clock stands between two lines: the year, and month and day of the last line that was not late."""

    zone: tzinfo | None
    year: int
    year_of_line: int
    date: tuple[int, int]
    not_after: datetime | None


class Clock:
    """Microseconds since 1970 (UTC) of the stamp at the beginning of a line.

    Tell it the `day` of RFC 3164 stamps whenever that changes: where the month falls by more than six, New Year has
    passed; a line that is of the last days of a year, right after New Year, is a late one of the year before.

    Attributes
    ----------
    year_of_line
        The year of RFC 3164 stamps on the day at hand.
    careful
        The day at hand has an hour that comes twice: each line is to be shown to `at`, in order, since a step back
        of half an hour or more within that hour begins its second pass.
    met_twice
        Such an hour was met.
    met_careful_day
        Such a day was.
    first_day
        Year, month and day, and what `_turn` made of it, of the first line with a day since the clock was made.
    """

    def __init__(self, zone: tzinfo | None = None, year: int | None = None) -> None:
        self.zone = zone
        self.careful = False
        self.met_twice = self.met_careful_day = False
        self.first_day: tuple[int, tuple[int, int], int] | None = None
        self._year = self.year_of_line = datetime.now(UTC).year if year is None else year
        self._date = (0, 0)  # month and day of the last line that was not late
        self._not_after: datetime | None = None
        self._hours: dict[bytes, int] = {}
        self._twice: dict[datetime, tuple[int, bool]] = {}
        self._last = b""
        self._last_at: int | None = None

    def start(self, year: int, not_after: datetime | None = None) -> None:
        """Begin a set whose first stamp is of this year, or of the one before if it would be after `not_after`."""
        self._year = self.year_of_line = year
        self._date = (0, 0)
        self._not_after = not_after
        self._forget()

    def _forget(self) -> None:
        self._hours.clear()
        self._last = b""

    @property
    def state(self) -> ClockState:
        """Where the clock stands."""
        return ClockState(self.zone, self._year, self.year_of_line, self._date, self._not_after)

    def resume(self, state: ClockState) -> None:
        """Stand where another clock of the same zone stood."""
        self._year, self.year_of_line, self._date = state.year, state.year_of_line, state.date
        self._not_after = state.not_after
        self._forget()

    def go_to_year(self, year: int) -> None:
        """Take the next line for one of this year, whatever its day."""
        if year != self.year_of_line:
            self.year_of_line = year
            self._forget()

    def agrees(self, first_day: tuple[int, tuple[int, int], int] | None) -> bool:
        """Whether this clock would go on from such a first line as the one did that read it."""
        if first_day is None:
            return True
        year, date, turned = first_day
        turn = _turn(self._date, date)
        return self._not_after is None and min(turn, turned) >= 0 and self._year + turn == year

    def day(self, line: bytes) -> None:
        """Note the day of an RFC 3164 stamp, which differs from that of the line before."""
        month = MONTHS.get(line[:3])
        if month is None or not line[4:6].strip().isdigit():
            return
        day = int(line[4:6])
        if self._not_after is not None:
            if (month, day) > (self._not_after.month, self._not_after.day):
                self._year -= 1
            self._not_after = None
        turn = _turn(self._date, (month, day))
        year = self._year + turn
        if turn >= 0:
            self._year, self._date = year, (month, day)
        if self.first_day is None:
            self.first_day = (year, (month, day), turn)
        self.go_to_year(year)
        self.careful = self._has_hour_twice(year, month, day)
        self.met_careful_day = self.met_careful_day or self.careful

    def _has_hour_twice(self, year: int, month: int, day: int) -> bool:
        try:
            begin = datetime(year, month, day)
            one, two = self._utc(begin, 0), self._utc(begin + _DAY, 0)
        except (ValueError, OverflowError):
            return False
        return one is not None and two is not None and two - one > _DAY // _MICROSECOND

    def at(self, line: bytes) -> int | None:
        """The time at which a line begins (RFC 3164, RFC 3339, date and time with a space, TAI64N); `None`: none."""
        try:
            if line[3] == 32:
                stamp = line[:15]
                if stamp != self._last:
                    self._last_at = self._traditional(stamp)
                    self._last = stamp if not self.careful else b""
                return self._last_at
            if line[10] == 84 and line[19] == 46 and (sign := line[26:27]) in _ZONE_SIGNS:
                zone = line[26:32] if sign != b"Z" else b"Z"
                past = int(line[14:16]) * _MINUTE + int(line[17:19]) * _SECOND + int(line[20:26])
                base = self._hours.get(line[:13] + zone)
                if base is not None:
                    return base + past
                at = self._iso(line)
                if at is not None:
                    self._remember(line[:13] + zone, at - past)
                return at
            if (
                line[10] == 32
                and (base := self._hours.get(line[:13])) is not None
                and line[19:21] in _NO_ZONE
            ):
                return base + int(line[14:16]) * _MINUTE + int(line[17:19]) * _SECOND
            if line[0] == 64:
                at = (int(line[1:17], 16) - _TAI64) * _SECOND + int(line[17:25], 16) // 1000
                return at if 0 <= at < _END else None
            return self._iso(line)
        except (IndexError, ValueError, OverflowError):
            return None

    def _traditional(self, stamp: bytes) -> int | None:
        if not stamp[9] == stamp[12] == 58:
            return None
        past = int(stamp[10:12]) * _MINUTE + int(stamp[13:15]) * _SECOND
        base = self._hours.get(stamp[:9])
        if base is None:
            month = MONTHS.get(stamp[:3], 0)
            hour = datetime(self.year_of_line, month, int(stamp[4:6]), int(stamp[7:9]))
            base = self._local(stamp[:9], hour, past)
        return None if base is None else base + past

    def _iso(self, line: bytes) -> int | None:
        match = _ISO.match(line)
        if match is None:
            return None
        year, month, day, hours, minutes, seconds, fraction, zone = match.groups()
        if not b"1900" <= year <= b"9998":
            return None
        hour = datetime(int(year), int(month), int(day), int(hours))
        past = int(minutes) * _MINUTE + int(seconds) * _SECOND
        if zone is None:
            base = self._hours.get(line[:13])
            if base is None:
                base = self._local(line[:13], hour, past)
            if base is None:
                return None
        else:
            base = (hour.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
            if zone not in (b"Z", b"z"):
                east = int(zone[1:3]) * 60 + int(zone[-2:])
                base -= (east if zone[:1] == b"+" else -east) * _MINUTE
        return base + past + (int(fraction[:6].ljust(6, b"0")) if fraction else 0)

    def _local(self, key: bytes, hour: datetime, past: int) -> int | None:
        """UTC of the beginning of a local hour; of one that comes twice, as `past` and the lines before tell."""
        first, second = self._utc(hour, 0), self._utc(hour, 1)
        if first is None or second is None:
            return None
        if second <= first:  # once, or an hour that the clock jumped over
            self._remember(key, first)
            return first
        self.met_twice = True
        before, again = self._twice.get(hour, (0, False))
        again = again or past < before - 30 * _MINUTE
        self._twice[hour] = (past, again)
        return second if again else first

    def _remember(self, key: bytes, base: int) -> None:
        if len(self._hours) >= _MAX_HOURS:
            self._hours.clear()
        self._hours[key] = base

    def _utc(self, naive: datetime, fold: int) -> int | None:
        local = naive.replace(fold=fold) if self.zone is None else naive.replace(tzinfo=self.zone, fold=fold)
        try:
            return (local.astimezone(UTC) - _EPOCH) // _MICROSECOND
        except (OverflowError, ValueError, OSError):
            return None


def _turn(last: tuple[int, int], now: tuple[int, int]) -> int:
    """From one month and day to the next: 1 New Year lies between, -1 a late line of the year before, else 0."""
    if last[0] == 0:
        return 0
    if now[0] - last[0] < -6:
        return 1
    days_back = (last[0] - 1) * 31 + last[1] + (12 - now[0]) * 31 + 31 - now[1]
    return -1 if days_back <= _LATE_DAYS else 0


# -- the year -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class YearGuess:
    """The year of the first line of a set, and the rule that gave it; `not_after` may take one year off."""

    year: int
    rule: str
    not_after: datetime | None = None


_MONTH_LINES = re.compile(rb"^([A-Z][a-z]{2}) [ \d]\d \d\d:\d\d:\d\d", re.MULTILINE)
_NAME_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)(?:-?(0[1-9]|1[0-2])(?:-?([0-3]\d))?)?(?!\d)")
_HEAD_BYTES = 8 << 20
_SAMPLE_EVERY = 1 << 16
_SAMPLE_BYTES = 4096
_REMOTE_SAMPLES = 1_000


def first_year(files: Sequence[LogFile], year: int | None = None) -> YearGuess | None:
    """The year of a set's first RFC 3164 stamp; `None` where its lines carry their own year.

    In this order: given by the caller (the year of the first line); a date in the name of the last file, or else
    the time that file was last changed, as the time of the last line, less the New Years passed on the way.
    A stream is taken to have begun within the last year.

    Notes
    -----
    New Years are looked for in every line of a file's first 8 MiB, then in one line per 64 KiB; of a file at an
    address in a thousand places at most.
    """
    if year is not None:
        return YearGuess(year, "given")
    if any(file.stream is not None for file in files):
        now = datetime.now(UTC)
        return YearGuess(now.year, "within a year of now, for a stream", not_after=now + _DAY)
    turns, last = 0, (0, 0)
    for file in files:
        for date in _days(file):
            turn = _turn(last, date)
            if turn >= 0:
                turns, last = turns + turn, date
    if last[0] == 0:
        return None
    end, rule, to_the_day = _end_of(files[-1])
    latest = end + _DAY
    before = to_the_day and latest.year == end.year and last > (latest.month, latest.day)
    return YearGuess(end.year - before - turns, rule)


def _end_of(file: LogFile) -> tuple[datetime, str, bool]:
    """When the last line was written, how that is known, and whether it is known to the day or month."""
    match = _NAME_DATE.search(Path(file.name).name)
    if match is not None:
        end = datetime(int(match[1]), int(match[2] or 12), 28, tzinfo=UTC)
        if match[3]:
            end = (
                datetime(int(match[1]), int(match[2]), max(1, min(int(match[3]), 28)), tzinfo=UTC) + 3 * _DAY
            )
        return end, "date in the file name", match[2] is not None
    return _changed(file), "time the file was last changed", True


def _days(file: LogFile) -> Iterator[tuple[int, int]]:
    """Month and day of stamps where the month changes, in order, and of the last stamps looked at."""
    try:
        with open_log(file) as opened:
            head = opened.read(_HEAD_BYTES)
            yield from _changes(head, 0)
            if len(head) < _HEAD_BYTES or _MONTH_LINES.search(head) is None:
                return
            if opened.packed or (file.path is None and file.remote is None):
                while data := opened.read(1 << 20):
                    for offset in [*range(0, len(data), _SAMPLE_EVERY), max(len(data) - _SAMPLE_BYTES, 0)]:
                        yield from _changes(data[offset : offset + _SAMPLE_BYTES], 1)
                return
        if file.remote is not None:
            size = file.remote.size
            every = max(_SAMPLE_EVERY, size // _REMOTE_SAMPLES)
            begins = [*range(_HEAD_BYTES, size, every), max(size - _SAMPLE_BYTES, 0)]
            for data in file.remote.ranges(begins, _SAMPLE_BYTES):
                yield from _changes(data, 1)
            return
        assert file.path is not None
        with file.path.open("rb", buffering=0) as stream:
            size = file.path.stat().st_size
            for offset in [*range(_HEAD_BYTES, size, _SAMPLE_EVERY), max(size - _SAMPLE_BYTES, 0)]:
                stream.seek(offset)
                yield from _changes(stream.read(_SAMPLE_BYTES), 1)
    except UNREADABLE:
        return


def _changes(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    month, day = b"", 0
    for match in _MONTH_LINES.finditer(data, start):
        if match[1] != month and match[1] in MONTHS:
            month = match[1]
            yield MONTHS[month], int(match[0][4:6])
        day = int(match[0][4:6])
    if month:
        yield MONTHS[month], day


def _changed(file: LogFile) -> datetime:
    """When a file was last changed; for one packed by gzip, the file that was packed."""
    if file.stream is not None:
        return datetime.now(UTC)
    try:
        with file.open(_SAMPLE_BYTES) as stream:
            head = stream.read(8)
        if head.startswith(b"\x1f\x8b") and any(head[4:8]):
            return datetime.fromtimestamp(int.from_bytes(head[4:8], "little"), UTC)
        return file.changed() or datetime.now(UTC)
    except (OSError, OverflowError, ValueError):
        return datetime.now(UTC)
