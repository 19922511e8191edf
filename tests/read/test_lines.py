"""Lines out of files: whole ones wherever a file was cut, and out of whatever wraps them."""

from __future__ import annotations

import io
import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read.lines import (
    BLOCK_BYTES,
    MAX_LINE_BYTES,
    read_blocks,
    stamp_end,
    too_long,
    unwrap,
)
from rtls_analysis.read.log_files import Intake, LogFile


def blocks_of(*pieces: bytes) -> list[tuple[str, int, bytes]]:
    """File, line number and line of each line of files with these bytes."""
    files = [LogFile(str(index), stream=io.BytesIO(data)) for index, data in enumerate(pieces)]
    intake = Intake()
    lines, number = [], 0
    for block in read_blocks(files, intake):
        number = number if block.first_line is None else block.first_line - 1
        for line in block.text.split(b"\n"):
            number += 1
            lines.append((block.file.name, number, line))
    assert not intake.problems
    return lines


# -- blocks ---------------------------------------------------------------------------------------------------

LINE = b"Nov 23 16:32:10 mail postfix/smtp[7]: "


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_any_bytes_any_cut(data: bytes, cuts: list[int]) -> None:
    """Cut anywhere into files, any bytes give the lines that they give as one."""
    data = data.replace(b"\xff\xfe", b"").replace(b"\xfe\xff", b"").lstrip(b"\x1f\xfd](BP\xef")
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [data[begin:end] for begin, end in pairwise(places)] or [b""]
    if any(piece[:2] in (b"\x1f\x8b", b"BZ", b"]\0", b"(\xb5") for piece in pieces):
        return  # begins like a packed file
    assert [line for _file, _number, line in blocks_of(*pieces)] == [
        line for _file, _number, line in blocks_of(data)
    ]


def test_a_line_belongs_to_the_file_it_began_in() -> None:
    """A line cut by a rotation has the number that it has in the file where it begins."""
    assert blocks_of(b"one\ntw", b"o\nthree\n") == [("0", 1, b"one"), ("0", 2, b"two"), ("1", 2, b"three")]
    assert blocks_of(b"one", b"\ntwo", b"", b"!") == [("0", 1, b"one"), ("1", 2, b"two!")]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (LINE + b"cut", LINE + b"whole"),
        (b"2026-11-23T10:00:00Z INFO cut", b"2026-11-23T10:00:01Z INFO whole"),
        (b"2026-11-23 10:00:00 1xVWyA cut", b"2026-11-23 10:00:01 whole"),
        (b'{"log":"cut', b'{"log":"whole"}'),
        (b"l=info m=cut", b"l=info m=whole"),
    ],
)
def test_a_file_that_ends_in_the_middle(one: bytes, two: bytes) -> None:
    """What begins like a line of the same form is one, although the line before it was never ended."""
    assert [line for *_, line in blocks_of(one, two + b"\n")] == [one, two]


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        (b"2026-11-23T10:00:00Z INFO queue (x) nextRetry = 2026-11-23T11:00:00Z, id = 1", 49),
        (b'{"MESSAGE":"x","NESTED":{"a":"b"}}', 24),
        (b"Nov 23 16:31:41 mta21 exim[30]: 2026-11-23 16:31:41 1xVWyA => a@b", 32),
    ],
)
def test_a_cut_before_what_looks_like_a_line(line: bytes, cut: int) -> None:
    """A stamp or a brace within a line is no beginning of one."""
    assert [found for *_, found in blocks_of(line[:cut], line[cut:] + b"\n")] == [line]


def test_ends_of_lines() -> None:
    """CR LF ends a line like LF; a missing end of the last one does not matter, and a BOM is none of it."""
    assert [line for *_, line in blocks_of(b"\xef\xbb\xbfone\r\ntwo\nthree\r")] == [b"one", b"two", b"three"]


def test_utf_16() -> None:
    """An export in UTF-16 is read as UTF-8, also across blocks."""
    text = "".join(f"line {number} ü\r\n" for number in range(100_000))
    lines = blocks_of(text.encode("utf-16"))
    assert len(lines) == 100_000
    assert lines[-1][2] == "line 99999 ü".encode()


def test_lines_without_end() -> None:
    """Of a line of megabytes the beginning is kept, and what follows is read."""
    lines = blocks_of(b"a" * (5 * BLOCK_BYTES) + b"\nnext\n" + b"b" * (MAX_LINE_BYTES + 1))
    assert [too_long(line) for *_, line in lines] == [b"a" * 80, None, b"b" * 80]


def test_a_hole_of_nuls() -> None:
    """After a crash a file may hold megabytes of NULs in front of a line."""
    lines = blocks_of(bytes(3 * BLOCK_BYTES) + LINE + b"after\n")
    assert [line.lstrip(b"\0") for *_, line in lines] == [LINE + b"after"]


# -- stamps and envelopes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stamp",
    [
        b"Nov 23 16:32:10 ",
        b"Nov  3 16:32:10  ",
        b"2026-11-23T16:32:10Z ",
        b"2026-11-23T16:32:10.123456+01:00 ",
        b"2026-11-23 16:32:10 ",
        b"2026-11-23 16:32:10.123 +0100 ",
        b"2026-11-23 16:32:10,123 ",
        b"@4000000065a1b2c31d2e3f40 ",
        b"",
    ],
)
def test_stamp_end(stamp: bytes) -> None:
    """Behind a stamp of any form the text begins."""
    assert stamp_end(stamp + b"text 1") == len(stamp)
    assert stamp_end(b"!" + stamp + b"text 1", 1) == len(stamp) + 1


def journal(message: object, **more: object) -> bytes:
    """An entry of the journal."""
    entry = {
        "__REALTIME_TIMESTAMP": "1795451530123456", "_HOSTNAME": "mail", "SYSLOG_IDENTIFIER": "postfix/smtp",
        "_PID": "7", "MESSAGE": message, **more,
    }  # fmt: skip
    return json.dumps(entry).encode()


ENTRY = b"2026-11-23T16:32:10.123456+00:00 mail postfix/smtp[7]: "
WRAPPED = [
    ("the journal", journal("text ü"), ENTRY + "text ü".encode()),
    ("the journal, no UTF-8", journal(list(b"te\xffxt")), ENTRY + b"te\xffxt"),
    ("a lone surrogate", journal("te\ud800xt"), ENTRY + b"te\\ud800xt"),
    ("without a process", journal("text", _PID=None, SYSLOG_IDENTIFIER=None),
     b"2026-11-23T16:32:10.123456+00:00 mail -: text"),
    ("an impossible byte", journal([300]), None),
    ("an impossible time", journal("x", __REALTIME_TIMESTAMP="9" * 30), None),
    ("no message", journal(None), None),
    ("Docker", json.dumps({"log": LINE.decode() + "x\n", "stream": "stdout", "time": "2026-11-23T16:32:10.1Z"}).encode(),
     LINE + b"x"),
    ("Docker, no stamp within", b'{"log":"[INFO] [x] y\\n","stream":"stdout","time":"2026-11-23T16:32:10.1Z"}',
     b"2026-11-23T16:32:10.1Z [INFO] [x] y"),
    ("containerd", b"2026-11-23T16:32:10.123456789Z stdout F " + LINE + b"x", LINE + b"x"),
    ("compose", b"mail-1  | " + LINE + b"x", LINE + b"x"),
    ("kubectl", b"[pod/mail-0/postfix] " + LINE + b"x", LINE + b"x"),
    ("RFC 5424", b"<22>1 2026-11-23T16:32:10.1Z mail postfix/smtp 7 ID [a@1 b=\"\\]\\\"\"][c d=\"e\"] text",
     b"2026-11-23T16:32:10.1Z mail postfix/smtp[7]: text"),
    ("RFC 5424, nothing told", b"<22>1 2026-11-23T16:32:10.1Z - postfix/smtp - - - \xef\xbb\xbftext",
     b"2026-11-23T16:32:10.1Z postfix/smtp: text"),
    ("priority", b"<22>" + LINE + b"x", LINE + b"x"),
    ("journalctl -o short-precise", b"Nov 23 16:32:10.123456 mail x[1]: y", b"Nov 23 16:32:10 mail x[1]: y"),
    ("journalctl -o short-full", b"Mon 2026-11-23 16:32:10 UTC mail x[1]: y", b"2026-11-23T16:32:10Z mail x[1]: y"),
    ("of a zone", b"Mon 2026-11-23 16:32:10 CET mail x[1]: y", b"2026-11-23T16:32:10 mail x[1]: y"),
    ("a year within", b"Nov  3 2026 16:32:10 mail x[1]: y", b"2026-11-03 16:32:10 mail x[1]: y"),
    ("colours", b"\x1b[32mINFO\x1b[0m x", b"INFO x"),
    ("NULs before it", b"\0\0" + LINE + b"x", LINE + b"x"),
    ("nothing of the kind", b"any text", None),
    ("JSON of another kind", b'{"a":1}', None),
    ("broken JSON", b'{"MESSAGE":', None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "inner"), [pytest.param(line, inner, id=why) for why, line, inner in WRAPPED]
)
def test_unwrap(line: bytes, inner: bytes | None) -> None:
    """An envelope gives the line inside, with the stamp, host and process that it tells."""
    assert unwrap(line) == inner


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([line for _why, line, _inner in WRAPPED]), st.binary(max_size=5), st.integers(0, 200))
def test_unwrap_any_bytes(line: bytes, noise: bytes, place: int) -> None:
    """Broken envelopes raise nothing, and unwrapping comes to an end."""
    broken: bytes | None = line[:place] + noise + line[place:]
    for _ in range(len(line) + 10):
        broken = unwrap(broken) if broken is not None else None
    assert broken is None or isinstance(broken, bytes)


@pytest.mark.parametrize(
    "line",
    [b"<22>1 a b c d e " + b"[a" * 300_000, b"{" * 500_000 + b"}", b"\x1b[" * 300_000, b"x " * 400_000 + b"|", b"[" * 900_000],
)  # fmt: skip
def test_unwrap_hostile_lines(line: bytes) -> None:
    """A megabyte made to be tried in many ways is no envelope."""
    assert unwrap(line) is None or len(unwrap(line) or b"") <= len(line)
