"""Replies out of octets: truth tables, and any octets cut anyhow."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.standards.smtp_reply import (
    Reply,
    ReplyReader,
    escape_octets,
    masked_keywords,
    parse_keywords,
)

BUDGETS = {"max_line": 100, "max_lines": 10, "max_bytes": 400}


def read(data: bytes, **budgets: int) -> tuple[Reply | None, str, bytes]:
    reader = ReplyReader(**{**BUDGETS, **budgets})
    return reader.feed(data), reader.failure, reader.rest


WHOLE = [
    ("one line", b"220 mx ESMTP\r\n", 220, ["mx ESMTP"]),
    ("several lines", b"250-mx\r\n250-SIZE 1\r\n250 DSN\r\n", 250, ["mx", "SIZE 1", "DSN"]),
    ("code without blank or text", b"250\r\n", 250, [""]),
    ("such a one at the end", b"250-mx\r\n250\r\n", 250, ["mx", ""]),
    ("blank without text", b"250 \r\n", 250, [""]),
    ("bare line feeds", b"250-mx\n250 DSN\n", 250, ["mx", "DSN"]),
    ("more than one carriage return", b"250 mx\r\r\n", 250, ["mx"]),
    ("blanks are kept", b"250   mx \t \r\n", 250, ["  mx \\t "]),
    ("octets beyond ASCII", b"250 caf\xe9 \xf0\x9f\x93\xac\r\n", 250, ["caf\\xe9 \\xf0\\x9f\\x93\\xac"]),
    ("NUL", b"250 a\0b\r\n", 250, ["a\\x00b"]),
    ("carriage return inside", b"250 a\rb\r\n", 250, ["a\\rb"]),
    ("backslash", b"250 a\\r\r\n", 250, ["a\\\\r"]),
    ("a code nobody knows", b"299 ?\r\n", 299, ["?"]),
    ("second digit out of the grammar", b"599 no\r\n", 599, ["no"]),
    ("empty lines before it", b"\r\n\n\r\n250 mx\r\n", 250, ["mx"]),
    ("a hyphen in the text", b"250 -mx\r\n", 250, ["-mx"]),
]


@pytest.mark.parametrize(("data", "code", "texts"), [pytest.param(*row[1:], id=row[0]) for row in WHOLE])
def test_whole(data: bytes, code: int, texts: list[str]) -> None:
    """A reply ends at its first line without a hyphen, and what comes after it is left."""
    for rest in (b"", b"250 next\r\n", b"\0"):
        reply, failure, left = read(data + rest)
        assert reply is not None
        assert (reply.code, reply.text.split("\n"), failure, left) == (code, texts, "", rest)


NO_REPLY = [
    ("another protocol", b"SSH-2.0-OpenSSH_9.9\r\n", "not a reply: 'SSH-2.0-OpenSSH_9.9'"),
    ("octets", b"\x00\xff\r\n", r"not a reply: '\x00\xff'"),
    ("two digits", b"25 mx\r\n", "not a reply"),
    ("four digits", b"2500 mx\r\n", "not a reply"),
    ("no such first digit", b"150 mx\r\n", "not a reply"),
    ("first digit of digits elsewhere", "٢50 mx\r\n".encode(), "not a reply"),
    ("neither blank nor hyphen", b"250_mx\r\n", "not a reply"),
    ("tab for the blank", b"250\tmx\r\n", "not a reply"),
    ("blank before the code", b" 250 mx\r\n", "not a reply"),
    ("garbage in the second line", b"250-mx\r\nDSN\r\n", "not a reply: 'DSN'"),
    ("empty second line", b"250-mx\r\n\r\n250 DSN\r\n", "not a reply: ''"),
    ("two codes", b"250-mx\r\n220 mx\r\n", "two codes in one reply: 250, 220"),
    ("line too long", b"250 " + b"x" * 97 + b"\r\n", "a line of more than 100 octets"),
    ("line too long, without end", b"x" * 101, "a line of more than 100 octets"),
    ("too many lines", b"250-x\r\n" * 10, "a reply of more than 10 lines"),
    ("too many empty lines", b"\r\n" * 10, "a reply of more than 10 lines"),
    ("too many octets", b"250-" + b"x" * 94 + b"\r\n" + b"250-" + b"x" * 94 + b"\r\n" + b"250-" + b"x" * 94 + b"\r\n"
     + b"250-" + b"x" * 94 + b"\r\n" + b"2", "a reply of more octets than we read"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), [pytest.param(*row[1:], id=row[0]) for row in NO_REPLY])
def test_no_reply(data: bytes, reason: str) -> None:
    """What is no reply ends with a reason, and nothing can follow it."""
    reader = ReplyReader(**BUDGETS)
    assert reader.feed(data) is None
    assert reader.failure.startswith(reason)
    raw = reader.raw
    assert reader.feed(b"250 mx\r\n") is None
    assert reader.raw == raw


UNFINISHED = [b"", b"2", b"250", b"250 mx", b"250 mx\r", b"250-mx\r\n", b"250-mx\r\n250 ", b"x", b"\r\n"]


@pytest.mark.parametrize("data", UNFINISHED)
def test_unfinished(data: bytes) -> None:
    """Before its end a reply is neither whole nor broken."""
    assert read(data) == (None, "", b"")


def test_budgets_to_the_octet() -> None:
    """A reply that just keeps within each budget is whole."""
    lines = b"250-x\r\n" * 9 + b"250 " + b"x" * 94 + b"\r\n"
    reply, *_ = read(lines, max_bytes=len(lines))
    assert reply is not None
    assert len(reply.lines) == 10
    _, failure, _ = read(lines, max_bytes=len(lines) - 1)
    assert failure.startswith("a reply of more octets")


ENHANCED = [
    ("Postfix", [b"554 5.7.1 no"], "5.7.1"),
    ("three digits", [b"450 4.7.650 busy"], "4.7.650"),
    ("nothing after it", [b"250 2.0.0"], "2.0.0"),
    ("in each line", [b"421-4.7.28 too much", b"421 4.7.28 of it"], "4.7.28"),
    ("in the second line only", [b"421-mx", b"421 4.3.2 full"], "4.3.2"),
    ("none", [b"554 no"], None),
    ("class of another digit", [b"554 4.7.1 no"], None),
    ("no such class", [b"354 3.0.0 go"], None),
    ("an address", [b"554 5.7.1.9 is listed"], None),
    ("a version", [b"220 2.1 mx"], None),
    ("not at the beginning", [b"554 mx 5.7.1"], None),
    ("four digits", [b"554 5.1000.1 no"], None),
    ("glued to the text", [b"554 5.7.1: no"], None),
    ("line without text", [b"554"], None),
]


@pytest.mark.parametrize(("lines", "code"), [pytest.param(*row[1:], id=row[0]) for row in ENHANCED])
def test_enhanced_code(lines: list[bytes], code: str | None) -> None:
    """An enhanced code stands at the beginning of the text, and is of the reply's own class."""
    assert Reply(int(lines[0][:3]), tuple(lines)).enhanced_code == code


KEYWORDS = [
    ("any case", b"STARTTLS|starttls|StartTls", {"STARTTLS": ""}),
    ("parameters", b"size  1000 |LIMITS RCPTMAX=1 X=2", {"SIZE": "1000", "LIMITS": "RCPTMAX=1 X=2"}),
    ("trailing blanks", b"STARTTLS  |REQUIRETLS\t", {"STARTTLS": "", "REQUIRETLS": ""}),
    ("blanks before it", b"  STARTTLS", {"STARTTLS": ""}),
    ("old servers", b"AUTH=LOGIN PLAIN", {"AUTH": "LOGIN PLAIN"}),
    ("the first one's parameters", b"AUTH PLAIN|AUTH=LOGIN", {"AUTH": "PLAIN"}),
    ("NUL ends it", b"STARTTLS\0", {"STARTTLS": ""}),
    ("another word that has it inside", b"XSTARTTLS|STARTTLS2|STARTTLS-NOW", {"XSTARTTLS": "", "STARTTLS2": "", "STARTTLS-NOW": ""}),
    ("as a parameter", b"X-FEATURES STARTTLS", {"X-FEATURES": "STARTTLS"}),
    ("not a word", b"STARTTLS;|STARTTLS\xe9|_STARTTLS|-STARTTLS|", {}),
    ("parameters beyond ASCII", b"X \xe9", {"X": "\\xe9"}),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "keywords"), [pytest.param(*row[1:], id=row[0]) for row in KEYWORDS])
def test_parse_keywords(lines: bytes, keywords: dict[str, str]) -> None:
    """A keyword is the first word of a line but the first, in any case, whatever follows it."""
    reply, *_ = read(
        b"250-mx\r\n" + b"".join(b"250-" + line + b"\r\n" for line in lines.split(b"|")) + b"250\r\n"
    )
    assert reply is not None
    assert parse_keywords(reply) == keywords


def test_first_line_is_no_keyword() -> None:
    """The first line names the server, whatever its name."""
    assert parse_keywords(Reply(250, (b"250-STARTTLS", b"250 DSN"))) == {"DSN": ""}
    assert parse_keywords(Reply(250, (b"250 STARTTLS",))) == {}


def test_masked_keywords() -> None:
    """Keywords that a firewall has overwritten are told from those that begin with an X."""
    lines = (b"250-mx", b"250-XXXXXXXA", b"250-XCLIENT", b"250-X-EXPS", b"250-XXXXB", b"250 SIZE")
    assert masked_keywords(Reply(250, lines)) == ["XXXXXXXA", "XXXXB"]


@given(st.binary(max_size=300))
def test_escape_is_reversible(data: bytes) -> None:
    """Escaped octets are printable ASCII on one line, and come back as they were."""
    escaped = escape_octets(data)
    assert escaped.isascii()
    assert escaped.isprintable()
    assert escaped.encode("ascii").decode("unicode_escape").encode("latin-1") == data


octets = st.one_of(
    st.binary(max_size=500),
    st.lists(
        st.sampled_from(
            [
                b"250-",
                b"250 ",
                b"220",
                b"\r\n",
                b"\n",
                b"\r",
                b"STARTTLS",
                b"\0",
                b"x" * 60,
                b"5.7.1 ",
                b"\xff",
            ]
        ),
        max_size=60,
    ).map(b"".join),
)


@settings(max_examples=200, deadline=None)
@given(octets, st.data())
def test_any_octets_cut_anyhow(data: bytes, draw: st.DataObject) -> None:
    """No octets raise, and how they are cut makes no difference to what is read of them."""
    whole = ReplyReader(**BUDGETS)
    expected = whole.feed(data)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    for pieces in (
        [data[i : i + 1] for i in range(len(data))],
        [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)],
    ):
        reader = ReplyReader(**BUDGETS)
        reply = None
        while pieces and reply is None:
            reply = reader.feed(pieces.pop(0))
        assert (reply, reader.failure, reader.rest + b"".join(pieces) if reply else b"") == (
            expected,
            whole.failure,
            whole.rest,
        )
        assert reader.raw == whole.raw
    if expected is not None:
        assert all(keyword.isascii() for keyword in parse_keywords(expected))
        assert expected.enhanced_code is None or expected.enhanced_code[0] == str(expected.first_digit)


@settings(max_examples=100, deadline=None)
@given(octets, st.integers(1, 50), st.integers(1, 5), st.integers(1, 200))
def test_budgets_hold(data: bytes, max_line: int, max_lines: int, max_bytes: int) -> None:
    """Whatever comes, no more is kept than the budgets allow."""
    reader = ReplyReader(max_line=max_line, max_lines=max_lines, max_bytes=max_bytes)
    reply = reader.feed(data * 20)
    lines = reply.lines if reply else reader.raw.split(b"\n")
    assert len(lines) <= max_lines + 1
    assert all(len(line) <= max_line for line in lines)
    assert sum(map(len, lines)) <= max_bytes
    assert reply or reader.failure or len(data) * 20 <= max_bytes
