from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.standards.mail_date import find_date

DATES = [
    ("as RFC 5322 has it", "Sat, 26 Jan 2019 07:35:43 -0800 (PST)", "2019-01-26T15:35:43+00:00"),
    ("without the day of the week", "3 Mar 2004 20:34:38 -0000", "2004-03-03T20:34:38+00:00"),
    ("without seconds", "03 Feb 2023 06:09 +0100", "2023-02-03T05:09:00+00:00"),
    ("with a fraction of a second", "Thu, 02 Apr 2020 07:53:55.516 +0000 (UTC)", "2020-04-02T07:53:55+00:00"),
    ("no space after the comma", "Thu,29 Apr 2010 23:34:45 +0900", "2010-04-29T14:34:45+00:00"),
    ("a day of three digits", "Tue, 029 Apr 2019 23:34:45 -0800 (PST)", "2019-04-30T07:34:45+00:00"),
    ("a year of two digits", "Wed, 26 Mar 03 20:43:24 -0600", "2003-03-27T02:43:24+00:00"),
    ("a year of two digits, last century", "Wed, 26 Mar 97 20:43:24 +0000", "1997-03-26T20:43:24+00:00"),
    ("a year of three digits", "Wed, 26 Mar 103 20:43:24 +0000", "2003-03-26T20:43:24+00:00"),
    ("a leap second", "Sat, 31 Dec 2016 23:59:60 +0000", "2017-01-01T00:00:00+00:00"),
    ("letters that RFC 5322 knows", "Wed, 12 Feb 2003 14:22:21 PST", "2003-02-12T22:22:21+00:00"),
    ("letters that everyone knows", "Wed, 12 Feb 2003 14:22:21 CET", "2003-02-12T13:22:21+00:00"),
    ("letters that mean two zones", "Wed, 12 Feb 2003 14:22:21 IST", "2003-02-12T14:22:21+00:00"),
    ("no zone", "30 Apr 2003 15:06:29", "2003-04-30T15:06:29+00:00"),
    ("the form of C's asctime", "Fri Feb 07 10:18:12 2003 -0800", "2003-02-07T18:18:12+00:00"),
    ("that form with letters", "Fri Sep 14 14:36:56 EDT 2018", "2018-09-14T18:36:56+00:00"),
    ("that form without a zone", "Sun Nov 13 14:50:12 2005", "2005-11-13T14:50:12+00:00"),
    (
        "behind a word, without semicolon",
        "id BQB0 Thu, 20 Feb 2003 16:13:20 -0700",
        "2003-02-20T23:13:20+00:00",
    ),
    (
        "behind the last semicolon",
        "x 1 Jan 2001 00:00:00 +0000; 2 Jan 2001 00:00:00 +0000",
        "2001-01-02T00:00:00+00:00",
    ),
    (
        "before what stands behind the last one",
        "2 Jan 2001 00:00:00 +0000 (a; b)",
        "2001-01-02T00:00:00+00:00",
    ),
    ("no such day", "31 Feb 2003 15:06:29 +0000", None),
    ("no such month", "31 Xyz 2003 15:06:29 +0000", None),
    ("no such hour", "30 Apr 2003 25:06:29 +0000", None),
    ("beyond the calendar", "31 Dec 9999 23:59:59 -2300", None),
    ("year nought", "1 Jan 0000 00:00:00 +0000", None),
    ("nothing", "", None),
]


@pytest.mark.parametrize(("text", "moment"), [pytest.param(t, m, id=why) for why, t, m in DATES])
def test_find_date(text: str, moment: str | None) -> None:
    """Dates are read in every form that mail has for them, and in UTC."""
    found = find_date(text)
    assert (found.moment.isoformat() if found else None) == moment


@settings(max_examples=100, deadline=None)
@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_what_is_printed_reads_back(local: datetime, east_minutes: int) -> None:
    """A date that Python's own mail library writes is read as the same moment."""
    moment = local.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=east_minutes)))
    found = find_date(format_datetime(moment))
    assert found is not None
    assert found.moment == moment
