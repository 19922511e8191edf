"""Spans of time as mail servers write them."""

from __future__ import annotations

import re

_DURATION = re.compile(
    rb"(?:(\d{1,6})w)?(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9}(?:\.\d{1,9})?)s)?"
).fullmatch
_SECONDS = re.compile(rb"(\d{1,9}(?:\.\d{1,9})?)s").fullmatch


def seconds_of(text: bytes) -> float | None:
    """Seconds of a span such as ``1d2h3m4s`` (Exim, OpenSMTPD); `None` where it is none.

    >>> seconds_of(b"1m15s"), seconds_of(b"0.5s"), seconds_of(b"soon")
    (75.0, 0.5, None)
    """
    if (match := _SECONDS(text)) is not None:  # as nearly all are
        return float(match[1])
    match = _DURATION(text) if text else None
    if match is None:
        return None
    weeks, days, hours, minutes, seconds = (float(word or 0) for word in match.groups())
    return (((weeks * 7 + days) * 24 + hours) * 60 + minutes) * 60 + seconds
