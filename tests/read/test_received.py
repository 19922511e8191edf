from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read.received import iter_received, read_header, read_received, received_summary
from rtls_analysis.read.trace import TracePage, read_trace, received_report
from rtls_analysis.schema import HOPS
from rtls_analysis.standards.received import MAX_FIELD

SAMPLE = Path(__file__).parents[2] / "data" / "received-2019.eml"
SHARED = Path(__file__).parents[3] / "shared" / "data"
SECOND = (
    "Received: from a.example (a.example [192.0.2.1])\r\n\tby b.example (Postfix) with ESMTPS id 2\r\n"
    "\tfor <x@b.example>; Mon, 3 Aug 2026 10:00:05 +0000\r\n"
)
FIRST = (
    "Received: from [192.0.2.9] by a.example (Postfix) with ESMTPSA id 1; Mon, 3 Aug 2026 12:00:00 +0200\r\n"
)
REST = "From: u@a.example\r\nMessage-ID: <m1@a.example>\r\n\r\nHello.\r\n"


@pytest.fixture
def read() -> Callable[..., pd.DataFrame]:
    """A function that reads text as one message, or an mbox."""

    def read_text(text: str, **options: Any) -> pd.DataFrame:
        return read_received(io.BytesIO(text.encode()), progress=False, **options)

    return read_text


def plain(frame: pd.DataFrame, *columns: str) -> list[list[Any]]:
    part = frame[list(columns)].astype(object)
    values: list[list[Any]] = part.where(part.notna(), None).values.tolist()
    return values


def test_hops_count_from_the_oldest(read: Callable[..., pd.DataFrame]) -> None:
    """The last field of a header is hop 1; delays are between hops."""
    frame = read(SECOND + FIRST + REST)
    assert frame.columns.tolist() == HOPS.names()
    assert plain(frame, "hop", "from_name", "by_host", "with_protocol", "delay_seconds", "authenticated") == [
        [1, "[192.0.2.9]", "a.example", "ESMTPSA", None, True],
        [2, "a.example", "b.example", "ESMTPS", 5.0, False],
    ]
    assert frame["message_id"].tolist() == ["m1@a.example"] * 2
    assert frame["raw"].iloc[0].startswith("from [192.0.2.9] by a.example (Postfix) with ESMTPSA id 1; Mon")
    assert str(frame["received_at"].dt.tz) == "UTC"


def test_the_sample_of_2019() -> None:
    """A hop of the sample is encrypted, yet anonymous: it could not have been REQUIRETLS; the others may have been."""
    frame = read_received(SAMPLE, progress=False)
    assert plain(frame, "hop", "inside_host", "tls_state", "could_be_requiretls") == [
        [1, False, "encrypted", "unknown"],
        [2, True, "unknown", "unknown"],
        [3, True, "none", "unknown"],
        [4, False, "anonymous", "no"],
        [5, True, "unknown", "unknown"],
        [6, True, "none", "unknown"],
        [7, True, "none", "unknown"],
        [8, False, "encrypted", "unknown"],
    ]
    assert frame["detail"].dropna().tolist() == [
        "anonymous cipher: the server sent no certificate that could be verified"
    ]
    assert frame["list_id"].iloc[0] == "SMTP Require TLS Option <require-tls.lists.example.org>"


@pytest.mark.skipif(not (SHARED / "received").exists(), reason="no received/ beside the repository")
def test_the_message_of_2019_in_the_archive() -> None:
    """The header below the archive's title is found, and its anonymous hop."""
    frame = read_received(SHARED / "received" / "last-call-2019.txt", progress=False)
    assert len(frame) == 6
    assert plain(
        frame[frame["could_be_requiretls"] == "no"], "hop", "cipher", "tls_version", "cipher_bits"
    ) == [[4, "AECDH-AES256-SHA", "TLSv1.2", 256]]


def test_a_list_copy_has_the_hops_of_both_ways(read: Callable[..., pd.DataFrame]) -> None:
    """Hops that were added on top change nothing of those below."""
    before = read_received(SAMPLE, progress=False)
    added = read(SECOND + SAMPLE.read_text(encoding="ascii"))
    assert len(added) == len(before) + 1
    pd.testing.assert_frame_equal(
        added.iloc[:-1].drop(columns="source_file"),
        before.drop(columns="source_file"),
        check_categorical=False,
    )


@pytest.mark.parametrize(
    ("minimum", "found"),
    [("TLSv1.2", "no"), ("1.2", "no"), ("TLS1_1", "unknown"), ("TLSv1.0", "unknown"), ("1.3", "no")],
)
def test_the_minimum_is_a_parameter(read: Callable[..., pd.DataFrame], minimum: str, found: str) -> None:
    """TLS below the minimum disproves, and the minimum can be named in any way."""
    hop = (
        "Received: from a.example (a.example [192.0.2.1]) (using TLSv1.1 with cipher ECDHE-RSA-AES256-SHA (256/256 bits)) "
        "(No client certificate requested) by b.example (Postfix) with ESMTPS id 2; Mon, 3 Aug 2026 10:00:05 +0000\n"
    )
    assert read(hop + REST, minimum_tls=minimum)["could_be_requiretls"].tolist() == [found]


def test_a_minimum_that_is_none(read: Callable[..., pd.DataFrame]) -> None:
    """What the caller does wrong is said at once, before anything is read."""
    with pytest.raises(ValueError, match="minimum_tls is 'TLSv2'; give one of SSLv3"):
        iter_received("nowhere", minimum_tls="TLSv2")
    with pytest.raises(FileNotFoundError):
        iter_received("nowhere")


MARKS = [
    ("nothing", "", "unknown", "no"),
    ("Postfix's private field", "Require-TLS-ESMTP: yes\r\n", "yes", "no"),
    ("another value of it", "Require-TLS-ESMTP: no\r\n", "unknown", "no"),
    ("the field of RFC 8689", "tls-required: NO\r\n", "unknown", "yes"),
    ("its name in drafts", "RequireTLS: NO\r\n", "unknown", "yes"),
    ("its name in the first draft", "Require-TLS: no\r\n", "unknown", "yes"),
    ("another value", "TLS-Required: yes\r\n", "unknown", "no"),
    ("both", "TLS-Required: No\r\nRequire-TLS-ESMTP: yes\r\n", "yes", "yes"),
    ("in the body", "\r\nTLS-Required: No\r\n", "unknown", "no"),
]


@pytest.mark.parametrize(
    ("field", "requested", "required_no"), [pytest.param(f, r, n, id=why) for why, f, r, n in MARKS]
)
def test_wishes_in_the_header(
    read: Callable[..., pd.DataFrame], field: str, requested: str, required_no: str
) -> None:
    """What a message says of its own wishes stands beside each of its hops."""
    frame = read(SECOND + FIRST + field + REST)
    assert plain(frame, "requiretls_requested", "tls_required_no") == [[requested, required_no]] * 2


HEADERS = [
    ("CRLF", SECOND + FIRST + REST, 2),
    ("LF", (SECOND + FIRST + REST).replace("\r\n", "\n"), 2),
    ("CR alone", (SECOND + FIRST + REST).replace("\r\n", "\r"), 2),
    ("names in any case", (SECOND + FIRST).replace("Received", "RECEIVED") + REST, 2),
    ("white space before the colon", SECOND.replace("Received:", "Received :") + REST, 1),
    ("empty lines first", "\r\n\r\n" + SECOND + REST, 1),
    ("no body", SECOND + "From: a@b.example", 1),
    ("fields of the body", "From: a@b.example\r\n\r\n" + SECOND, 0),
    ("other fields of a like name", "Received-SPF: pass\r\nX-Received: by a\r\nFrom: a@b.example\r\n\r\n", 0),
    ("a title above", "Re: a title\r\n\r\nA Person <a@b.example> 2019\r\n\r\n" + SECOND + REST, 1),
    ("an empty field", "Received:\r\n" + FIRST + REST, 2),
    ("a field without end", "Received: from a.example " + "x" * 200_000 + "\r\n" + REST, 1),
    ("more hops than can be", "Received: by a\r\n" * 5000 + REST, 1000),
    ("nothing", "", 0),
]


@pytest.mark.parametrize(("text", "hops"), [pytest.param(t, n, id=why) for why, t, n in HEADERS])
def test_headers(text: str, hops: int) -> None:
    """Fields are found in the header, whatever its lines end with, and nowhere else."""
    header = read_header(text.encode())
    assert len(header.received) == hops
    assert all(len(value) <= MAX_FIELD for value in header.received)


def test_bytes_that_are_no_text_are_escaped() -> None:
    """A field in another charset is kept, escaped."""
    frame = read_received(io.BytesIO(b"Received: from b\xfccher by a.example with SMTP\n\n"), progress=False)
    assert frame["raw"].tolist() == ["from b\\xfccher by a.example with SMTP"]


def test_delays_need_both_times(read: Callable[..., pd.DataFrame]) -> None:
    """A hop without a time has no delay, nor has the one behind it; clocks may run backwards."""
    fields = [
        "Received: by c; Mon, 3 Aug 2026 09:59:00 +0000\n",
        "Received: by b; Mon, 3 Aug 2026 10:00:00 +0000\n",
        "Received: by x; some day\n",
        "Received: by a; Mon, 3 Aug 2026 09:00:00 +0000\n",
    ]
    assert plain(read("".join(fields) + "\n"), "delay_seconds") == [[None], [None], [None], [-60.0]]


def test_many_messages_come_in_parts(tmp_path: Path) -> None:
    """An mbox is read in frames of bounded size that make up the whole; coverage counts what was read so far."""
    message = f"From a@b Mon Aug  3 10:00:00 2026\n{SECOND}{FIRST}{REST}\n".replace("\r\n", "\n")
    (tmp_path / "mbox").write_text(message * 10, encoding="ascii")
    parts = list(iter_received(tmp_path / "mbox", progress=False, rows=6))
    assert [len(part) for part in parts] == [6, 6, 6, 2]
    assert [part.attrs["coverage"]["messages_read"] for part in parts] == [3, 6, 9, 10]
    whole = read_received(tmp_path / "mbox", progress=False)
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
    assert whole["source_file"].nunique() == 10


def test_coverage_and_summary(tmp_path: Path) -> None:
    """What gave no hops has a reason, in the coverage and in the summary."""
    (tmp_path / "1.eml").write_text(SECOND + FIRST + REST, encoding="ascii")
    (tmp_path / "2.eml").write_text("From: a@b.example\n\nNo trace.\n", encoding="ascii")
    (tmp_path / "3.bin").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "4.eml").write_bytes(SAMPLE.read_bytes())
    frame = read_received(tmp_path, progress=False)
    coverage = frame.attrs["coverage"]
    assert (coverage["messages_read"], coverage["messages_matched"], coverage["rows"]) == (4, 2, 10)
    assert {why: skipped["count"] for why, skipped in coverage["skipped"].items()} == {
        "no Received field": 1,
        "no mail": 1,
    }
    assert json.loads(json.dumps(coverage)) == coverage
    text = received_summary(frame)
    assert "2 messages with 10 hops, 5 of them inside one host" in text
    assert "1 messages have a hop that could not be REQUIRETLS" in text
    assert "anonymous cipher" in text
    assert "1: no Received field" in text


def test_nothing_to_read(read: Callable[..., pd.DataFrame]) -> None:
    """No message gives an empty table with its dtypes, and a summary."""
    frame = read("")
    assert frame.empty
    assert str(frame["hop"].dtype) == "Int64"
    assert received_report(frame).startswith("0 messages with 0 hops")


PIECES = [
    SECOND,
    FIRST,
    REST,
    "Received: ",
    "\r\n",
    "\r",
    "\n\n",
    "\t",
    "from ",
    "by ",
    "(",
    "\0",
    "x" * 70_000,
    "é",
]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_any_message_is_read_without_failing(text: str) -> None:
    """Whatever a message holds, it gives its hops or a reason."""
    frame = read_received(io.BytesIO(text.encode()), progress=False)
    coverage = frame.attrs["coverage"]
    assert coverage["messages_matched"] == frame["source_file"].nunique()
    assert coverage["messages_matched"] or coverage["skipped"]
    assert received_report(frame)


# -- the page -------------------------------------------------------------------------------------------------


def test_the_page_of_the_sample() -> None:
    """The page names the verdict first, then each hop, and what one has to know."""
    page = read_trace(SAMPLE)
    text = str(page)
    assert text.startswith("<20190131140325.last-call@example.net>, 8 hops\n====")
    assert page.headline.startswith("REQUIRETLS did not hold all the way: hop 4 (anonymous cipher")
    assert "x  4  mail.example.net at 198.51.100.25 -> lists.example.org" in text
    assert "2019-01-31 14:22:07 (18 min 37 s later)" in text
    assert "TLS without a certificate (anonymous), TLSv1.2, AECDH-AES256-SHA (256 bits)" in text
    assert "=> not REQUIRETLS: anonymous cipher" in text
    assert "require-tls.lists.example.org> sent this copy anew" in text
    assert "can be forged" in text
    assert repr(page).startswith(
        "<TracePage <20190131140325.last-call@example.net>, 8 hops: REQUIRETLS did not"
    )


def test_the_page_as_html(tmp_path: Path) -> None:
    """The HTML form has a row for each hop, and what the field says, and stands by itself as a file."""
    page = read_trace(SAMPLE)
    text = page._repr_html_()
    assert text.count("<tr") == 9
    assert text.count("<details>") == 8
    assert '<td class="rtls-bad">no: anonymous cipher' in text
    page.write_html(tmp_path / "page.html")
    written = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert written.startswith("<!doctype html>")
    assert text in written
    assert "http" not in written  # nothing is fetched


def test_the_page_is_safe_to_show(read: Callable[..., pd.DataFrame]) -> None:
    """What a stranger wrote can neither run in a notebook nor move the cursor of a terminal."""
    hostile = "<script>x</script>\x1b[2J"
    frame = read(
        f"Received: from {hostile} (a [192.0.2.1]) by {hostile} with {hostile} id 1\nMessage-ID: <{hostile}>\n"
        f"List-Id: {hostile}\nFrom: a@b\n\n"
    )
    page = TracePage(frame)
    assert "<script" not in page._repr_html_().lower()
    assert "\x1b" not in str(page)
    assert "\x1b" not in repr(page)


HEADLINES = [
    ("unknown", SECOND, "No hop disproves REQUIRETLS. None can prove it"),
    (
        "inside",
        "Received: by b.example (Postfix, from userid 0) id 1; Mon, 3 Aug 2026 10:00:00 +0000\r\n",
        "The message never",
    ),
    (
        "two of them",
        SECOND.replace("ESMTPS", "ESMTP") * 2,
        "REQUIRETLS did not hold all the way: hop 1 (no TLS, which postfix names wherever there is any), and 1 more.",
    ),
]


@pytest.mark.parametrize(("fields", "headline"), [pytest.param(f, h, id=why) for why, f, h in HEADLINES])
def test_headlines(read: Callable[..., pd.DataFrame], fields: str, headline: str) -> None:
    """The verdict says no more than Received fields can tell."""
    assert TracePage(read(fields + REST)).headline.startswith(headline)


def test_a_page_is_of_one_message(tmp_path: Path) -> None:
    """Hops of several messages make no trace; the report has a page for each of a few, and else the summary."""
    for number in range(4):
        (tmp_path / f"{number}.eml").write_text(SECOND + FIRST + REST, encoding="ascii")
    frame = read_received(tmp_path, progress=False)
    with pytest.raises(ValueError, match="of one message, not of 4"):
        TracePage(frame)
    assert received_report(frame).startswith("4 messages with 8 hops")
    assert received_report(frame, pages=4).count("<m1@a.example>, 2 hops") == 4
    assert read_trace(tmp_path / "0.eml").hops["hop"].tolist() == [1, 2]
    with pytest.raises(ValueError, match="no message with Received fields"):
        read_trace(io.BytesIO(b"From: a@b\n\n"))
