"""Dates of header fields, in the forms in which they come (RFC 5322 §3.3, §4.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

_DATE = re.compile(
    r"(?:[A-Z][a-z]{2,8}, ?)?(?<!\d)(\d{1,3})[ -]([A-Z][a-z]{2})[a-z]{0,6}[ -](\d{2,4}),? "
    r"(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,]\d{1,9})?)?(?: ?([+-]\d{4})(?!\d)| ([A-Z]{1,5})\b)?"
)
_ASCTIME = re.compile(
    r"(?:[A-Z][a-z]{2} )?([A-Z][a-z]{2}) (\d{1,2}) (\d{1,2}):(\d\d):(\d\d) (?:([A-Z]{2,5}) )?(\d{4})"
    r"(?: ([+-]\d{4})(?!\d))?"
)
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_ZONES = {
    "PST": -8,
    "PDT": -7,
    "MST": -7,
    "MDT": -6,
    "CST": -6,
    "CDT": -5,
    "EST": -5,
    "EDT": -4,  # of RFC 5322
    "WEST": 1,
    "CET": 1,
    "MET": 1,
    "MEZ": 1,
    "CEST": 2,
    "MEST": 2,
    "MESZ": 2,
    "EET": 2,
    "EEST": 3,
    "MSK": 3,
    "JST": 9,
    "KST": 9,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class FoundDate:
    """A date in a text: where it stands, and its moment in UTC."""

    begin: int
    end: int
    moment: datetime


def find_date(text: str) -> FoundDate | None:
    """Find the date of an unfolded header field: after the last semicolon if it can be, else the last one.

    Notes
    -----
    A zone that is missing, or whose letters are not known, counts as ``-0000``, as RFC 5322 §4.3 has it for letters.
    Those that two countries use for different times (BST, IST) are not known.

    Examples
    --------
    >>> find_date("by mx.example.org; Sat, 26 Jan 2019 07:35:43 -0800 (PST)").moment.isoformat()
    '2019-01-26T15:35:43+00:00'
    """
    start = text.rfind(";") + 1
    if match := _DATE.search(text, start) or _last(_DATE, text):
        day, month, year, hour, minute, second, offset, letters = match.groups()
    elif match := _ASCTIME.search(text, start) or _last(_ASCTIME, text):
        month, day, hour, minute, second, letters, year, offset = match.groups()
    else:
        return None
    moment = _moment(_day(year, month, day), int(hour), int(minute), int(second or 0), offset, letters)
    return FoundDate(match.start(), match.end(), moment) if moment is not None else None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    last = None
    for match in pattern.finditer(text):
        last = match
    return last


@lru_cache(maxsize=1024)
def _day(year: str, month: str, day: str) -> int | None:
    """Seconds from 1970 to the begin of a day; years of two and three digits as in RFC 5322 §4.3."""
    number = int(year)
    if len(year) < 4:
        number += 2000 if len(year) == 2 and number < 50 else 1900
    try:
        return (date(number, _MONTHS[month], int(day)).toordinal() - _EPOCH.toordinal()) * 86_400
    except (KeyError, ValueError):
        return None


def _moment(
    day: int | None, hour: int, minute: int, second: int, offset: str | None, letters: str | None
) -> datetime | None:
    if day is None or hour > 23 or minute > 59 or second > 60:
        return None
    east = 0
    if offset is not None:
        east = int(offset[1:3]) * 3600 + int(offset[3:]) * 60
        east = -east if offset[0] == "-" else east
    elif letters is not None:
        east = _ZONES.get(letters, 0) * 3600
    try:
        return _EPOCH + timedelta(seconds=day + hour * 3600 + minute * 60 + second - east)
    except OverflowError:
        return None
