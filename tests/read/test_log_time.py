"""The time of a line: years worked out, zones, the hour that comes twice."""

from __future__ import annotations

import gzip
import os
import pickle
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read.log_files import LogFile
from rtls_analysis.read.log_time import Clock, first_year, zone_of, zone_of_machine


def when(clock: Clock, line: str) -> datetime | None:
    """The time of a line, as the engine asks for it."""
    data = line.encode()
    if data[3:4] == b" ":
        clock.day(data)
    at = clock.at(data)
    return None if at is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Nov  3 16:32:10 x", "2026-11-03T15:32:10"),
        ("Nov 03 16:32:10 x", "2026-11-03T15:32:10"),
        ("Jul  3 16:32:10 x", "2026-07-03T14:32:10"),
        ("2026-11-23T16:32:10.123456+05:30 x", "2026-11-23T11:02:10.123456"),
        ("2026-11-23T16:32:10.123456-0800 x", "2026-11-24T00:32:10.123456"),
        ("2026-11-23T16:32:10.1Z x", "2026-11-23T16:32:10.1"),
        ("2026-11-23T16:32:10Z x", "2026-11-23T16:32:10"),
        ("2026-11-23 16:32:10 x", "2026-11-23T15:32:10"),
        ("2026-11-23 16:32:10.123 +0000 x", "2026-11-23T16:32:10.123"),
        ("2026-11-23 16:32:10,123456789 x", "2026-11-23T15:32:10.123456"),
        ("2026-02-30 10:00:00 x", None),
        ("Feb 30 10:00:00 x", None),
        ("Foo 12 10:00:00 x", None),
        ("Nov 23 10-00-00 x", None),
        ("Nov xx 10:00:00 x", None),
        ("2026-11-23T16:32", None),
        ("@4000", None),
        ("@ffffffffffffffffffffffff x", None),
        ("", None),
    ],
)
def test_forms(line: str, expected: str | None) -> None:
    """Each form of stamp in UTC; what is none, or no date, is missing."""
    clock = Clock(ZoneInfo("Europe/Berlin"))
    clock.start(2026)
    assert when(clock, line) == (None if expected is None else utc(expected))


def test_tai64n() -> None:
    """daemontools counts no leap seconds: ten seconds and two to the 62nd come off."""
    clock = Clock()
    label = f"@{2**62 + 10 + 1_795_451_530:016x}{123_456_789:08x} x"
    assert when(clock, label) == utc("2026-11-23T16:32:10.123456")


def test_new_year() -> None:
    """The month falls by more than six at New Year; a late line of the year before is of that year."""
    clock = Clock(UTC)
    clock.start(2024)
    lines = ["Nov 30", "Dec 31", "Jan  1", "Dec 31", "Jan  2", "Feb 29", "Mar  1", "Dec 31", "Jan  1"]
    years = [at.year if (at := when(clock, f"{line} 10:00:00 x")) else None for line in lines]
    assert years == [2024, 2024, 2025, 2024, 2025, None, 2025, 2025, 2026]  # 2025 has no 29 February


def test_the_hour_that_comes_twice() -> None:
    """Within it, a step back of half an hour or more begins the second pass; smaller ones are disorder."""
    clock = Clock(ZoneInfo("Europe/Berlin"))
    clock.start(2026)
    clock.day(b"Oct 25 00:00:00")
    assert clock.careful
    minutes = ["01:59", "02:10", "02:50", "02:45", "02:59", "02:01", "02:30", "03:00"]
    times = [when(clock, f"Oct 25 {minute}:00 x") for minute in minutes]
    assert [at and at.strftime("%H:%M") for at in times] == [
        "23:59", "00:10", "00:50", "00:45", "00:59", "01:01", "01:30", "02:00",
    ]  # fmt: skip
    assert clock.met_twice
    clock.day(b"Oct 26 00:00:00")
    assert not clock.careful


def test_the_hour_that_is_skipped() -> None:
    """A stamp that never was is taken with the offset before the change."""
    clock = Clock(ZoneInfo("Europe/Berlin"))
    clock.start(2026)
    assert when(clock, "Mar 29 02:30:00 x") == utc("2026-03-29T01:30:00")


def test_zone_of() -> None:
    """A zone that does not exist is the caller's error."""
    assert zone_of("Europe/Berlin") == ZoneInfo("Europe/Berlin")
    for name in ("Nowhere/Else", "", "../etc/passwd", "Europe"):
        with pytest.raises(ValueError, match="give a name such as"):
            zone_of(name)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=40),
    st.sampled_from([b"Nov 23 16:32:10", b"2026-11-23T16:32:10.123456+01:00", b"@4" + b"0" * 23]),
)
def test_any_bytes(noise: bytes, stamp: bytes) -> None:
    """Whatever stands there, a time of the years that tables can hold comes out, or none."""
    clock = Clock(UTC)
    for line in (noise, stamp[:5] + noise, noise[:3] + stamp):
        clock.day(line)
        at = clock.at(line)
        assert at is None or -62_135_596_800_000_000 <= at < 253_402_300_800_000_000


# -- the year -------------------------------------------------------------------------------------------------


def log(path: Path, text: str, changed: str) -> LogFile:
    """A file with this text, last changed then."""
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=utc(changed).timestamp()) if path.suffix == ".gz" else data)
    os.utime(path, (0, utc(changed).timestamp()))
    return LogFile(str(path), path)


NOVEMBER = "Nov 22 10:00:00 mail a: b\nNov 23 10:00:00 mail a: b\n"
TURN = "Nov 22 10:00:00 mail a: b\nDec 31 10:00:00 mail a: b\nJan  2 10:00:00 mail a: b\n"


@pytest.mark.parametrize(
    ("name", "text", "changed", "year"),
    [
        ("mail.log", NOVEMBER, "2026-11-23T11:00:00", 2026),
        ("mail.log", NOVEMBER, "2026-11-23T09:00:00", 2026),
        ("mail.log", NOVEMBER, "2027-03-01T00:00:00", 2026),
        ("mail.log", TURN, "2026-01-02T11:00:00", 2025),
        ("mail.log", TURN * 3, "2026-01-02T11:00:00", 2023),
        ("mail.log.gz", TURN, "2026-01-02T11:00:00", 2025),
        ("mail.log-20240103", TURN, "2026-01-02T11:00:00", 2023),
        ("mail-2024-01.log", TURN, "2026-01-02T11:00:00", 2023),
        ("mail-2024.log", NOVEMBER, "2026-01-02T11:00:00", 2024),
        ("mail.log-20240101.gz", NOVEMBER, "2026-01-02T11:00:00", 2023),
    ],
)
def test_first_year(name: str, text: str, changed: str, year: int, tmp_path: Path) -> None:
    """The year of the first line: by a date in the name, else by the time of the last change, less the New Years."""
    guess = first_year([log(tmp_path / name, text, changed)])
    assert guess is not None
    assert guess.year == year
    assert ("name" in guess.rule) == ("20" in name)


def test_first_year_of_a_set(tmp_path: Path) -> None:
    """New Years between the files of a set count."""
    old = log(tmp_path / "mail.log.1", NOVEMBER, "2025-11-23T11:00:00")
    new = log(tmp_path / "mail.log", "Jan  5 10:00:00 mail a: b\n", "2026-01-05T10:00:01")
    guess = first_year([old, new])
    assert guess is not None
    assert guess.year == 2025


def test_first_year_beyond_the_head(tmp_path: Path) -> None:
    """A New Year deep in a long file is found in one line per 64 KiB."""
    filler = "Dec 31 10:00:00 mail a: " + "b" * 200 + "\n"
    text = filler * 50_000 + filler.replace("Dec 31", "Jan  1") * 5_000
    for name in ("mail.log", "mail.log.gz"):
        guess = first_year([log(tmp_path / name, text, "2026-01-01T11:00:00")])
        assert guess is not None
        assert guess.year == 2025


def test_given_or_not_needed(tmp_path: Path) -> None:
    """The caller's year is not doubted; lines that carry a year need none."""
    file = log(tmp_path / "mail.log", NOVEMBER, "2026-11-23T11:00:00")
    given_year = first_year([file], 1999)
    assert given_year is not None
    assert (given_year.year, given_year.rule) == (1999, "given")
    assert (
        first_year([log(tmp_path / "new.log", "2026-11-23T10:00:00Z x y: z\n", "2026-11-23T11:00:00")])
        is None
    )


def test_a_stream_lies_in_the_past() -> None:
    """A stream is taken to have begun within a year of now."""
    clock = Clock(UTC)
    for month, year in (("Jan", 2026), ("Nov", 2026), ("Dec", 2025)):
        clock.start(2026, not_after=utc("2026-11-24T00:00:00"))
        at = when(clock, f"{month} 20 10:00:00 x")
        assert at is not None
        assert at.year == year


@pytest.mark.parametrize(
    "name",
    ["", "UTC", ":Europe/Berlin", "America/St_Johns", "CET-1CEST,M3.5.0,M10.5.0/3", "<+0330>-3:30", "Australia/Lord_Howe", None],
)  # fmt: skip
def test_the_zone_of_this_machine(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be sent elsewhere, and means there what it means here, also in the hour that comes twice."""
    if name is None:
        monkeypatch.delenv("TZ", raising=False)
    else:
        monkeypatch.setenv("TZ", name)
    time.tzset()
    try:
        zone = pickle.loads(pickle.dumps(zone_of_machine()))
        assert zone is not None
        for hours in range(0, 366 * 24, 7):
            for fold in (0, 1):
                here = datetime(2026, 1, 1, 0, 30) + timedelta(hours=hours)
                jumped = (
                    here.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != here
                )
                if not jumped:  # an hour that never was may be taken for either
                    there = here.replace(tzinfo=zone, fold=fold)
                    assert there.astimezone(UTC) == here.replace(fold=fold).astimezone(UTC)
    finally:
        monkeypatch.undo()
        time.tzset()
