"""Coverages of parts of an input, merged, are that of the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read.coverage import merge
from rtls_analysis.read.log_rows import Coverage

KINDS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 9))


@st.composite
def counted(draw: Callable[..., Any]) -> Coverage:
    made = Coverage(draw(st.integers(0, 99)), draw(st.integers(0, 9)), draw(KINDS))
    for reason, lines in draw(
        st.dictionaries(
            st.sampled_from(["empty line", "x", "y"]), st.lists(st.binary(max_size=4), min_size=1, max_size=5)
        )
    ).items():
        for line in lines:
            made.skip(reason, line)
    for text in draw(st.lists(st.sampled_from(["v", "w"]), max_size=3)):
        made.warn(text)
    return made


def as_dict(coverage: Coverage) -> dict[str, Any]:
    return coverage.as_dict(
        rows={"deliveries": 1}, files={}, time={"timezone": "UTC", "an_hour_came_twice": False}
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(counted(), min_size=1, max_size=5))
def test_merged_coverages_of_logs(parts: list[Coverage]) -> None:
    """The same as when all of it had been counted together, also in the order of what is in it."""
    whole = Coverage()
    for part in parts:
        whole.add(part)
    expected = as_dict(whole) | {"rows": {"deliveries": len(parts)}}
    merged = merge(as_dict(part) for part in parts)
    assert merged == expected
    assert [list(merged[name]) for name in ("understood", "skipped")] == [
        list(expected[name]) for name in ("understood", "skipped")
    ]
    assert merge([merged]) == merged
    half = len(parts) // 2
    halves = [merge(as_dict(part) for part in some) for some in (parts[:half], parts[half:])]
    assert merge(halves) == merged


def test_what_is_said_once() -> None:
    """A flag that one of them has, and the first reason of a file."""
    one = {"time": {"zone": "UTC", "twice": False}, "unreadable_files": {"a": "first"}}
    two = {"time": {"zone": "UTC", "twice": True}, "unreadable_files": {"a": "second", "b": "x"}}
    assert merge([one, two]) == {
        "time": {"zone": "UTC", "twice": True},
        "unreadable_files": {"a": "first", "b": "x"},
    }
    assert one["unreadable_files"] == {"a": "first"}


def test_groups_do_not_know_of_each_other(tmp_path: Any) -> None:
    """Logs read together give what each gives alone: levels, hours that come twice, years."""
    from rtls_analysis.read.logs import read_logs

    sent = (
        b"Oct 25 02:%02d:10 mail postfix/smtp[7]: 4F1AA1234%d: to=<a@b.test>, relay=mx.b.test[192.0.2.1]:25, delay=1, "
        b"delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)\n"
    )
    told = (
        b"Oct 25 02:%02d:10 mail postfix/smtp[7]: Trusted TLS connection established to mx.b.test[192.0.2.1]:25: "
        b"TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)\n"
    )
    (tmp_path / "a.log").write_bytes(told % 50 + sent % (50, 1) + sent % (55, 2))
    (tmp_path / "b.log").write_bytes(sent % (10, 1) + sent % (12, 3))
    names = [tmp_path / "a.log", tmp_path / "b.log"]
    options = {"timezone": "Europe/Berlin", "progress": False}
    whole = read_logs(names, **options)
    apart = [read_logs(name, **options) for name in names]
    pd.testing.assert_frame_equal(whole, pd.concat(apart, ignore_index=True))
    assert whole.attrs["coverage"] == merge(frame.attrs["coverage"] for frame in apart)
    assert whole["tls_level"].tolist() == ["trusted", "none", "unknown", "unknown"]
    assert whole["logged_at"].dt.hour.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("read", ["dsns", "received"])
def test_mail_in_parts(tmp_path: Any, read: str) -> None:
    """Of mail too: two folders' coverages, merged, are that of both."""
    import rtls_analysis as rtls

    reader = getattr(rtls, f"read_{read}")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.eml").write_bytes(
                b"From: a@b.test\n\nhello\n" if number else b"no mail"
            )
    folders = [tmp_path / "a", tmp_path / "b"]
    whole = reader(folders, progress=False).attrs["coverage"]
    assert whole["messages_read"] == 6
    assert merge(reader(folder, progress=False).attrs["coverage"] for folder in folders) == whole
