"""Parts of a message: cut at boundaries that may be broken, decoded as far as they go."""

from __future__ import annotations

import base64
import quopri
from email import message_from_bytes
from email.message import Message

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read.mail_parts import (
    MAX_PARTS,
    Part,
    cut_header,
    decode_text,
    parameter,
    parts,
    read_fields,
    unfold,
    unify_newlines,
)


def leaves(data: bytes) -> list[Part]:
    header, body = cut_header(unify_newlines(data))
    return parts(read_fields(header), body)


FIELDS = [
    ("plain", b"Subject: lunch", b"subject", "lunch"),
    ("no space", b"Subject:lunch", b"subject", "lunch"),
    ("space before the colon", b"Subject : lunch", b"subject", "lunch"),
    ("folded", b"Subject: lunch\n\tat\n  noon", b"subject", "lunch at noon"),
    ("twice: the first counts", b"Subject: lunch\nSUBJECT: dinner", b"subject", "lunch"),
    ("encoded words", b"Subject: =?utf-8?Q?l=C3=BCnch?=\n =?iso-8859-1?B?IGF0?= noon", b"subject", "l\u00fcnch at noon"),
    ("an encoded word of no charset", b"Subject: =?x-klingon?Q?qapla=27?=", b"subject", "qapla'"),
    ("half an encoded word", b"Subject: =?utf-8?Q?lunch", b"subject", "=?utf-8?Q?lunch"),
    ("bytes of no charset", b"Subject: l\xfcnch", b"subject", "l\u00fcnch"),
    ("UTF-8 as it is (RFC 6532)", "Subject: lünch".encode(), b"subject", "lünch"),
    ("behind a line that is no field", b"nonsense\nSubject: lunch", b"subject", "lunch"),
    ("empty", b"Subject:\nTo: a@x.test", b"subject", ""),
]  # fmt: skip


@pytest.mark.parametrize(("header", "name", "value"), [pytest.param(*case, id=why) for why, *case in FIELDS])
def test_fields(header: bytes, name: bytes, value: str) -> None:
    """A field's value is one line of text."""
    assert unfold(read_fields(header)[name]) == value


PARAMETERS = [
    ("plain", b"multipart/mixed; boundary=abc", b"abc"),
    ("quoted", b'multipart/mixed; boundary="a b;c"', b"a b;c"),
    ("other quotes", b"multipart/mixed; boundary='abc'", b"abc"),
    ("half a quote", b'multipart/mixed; boundary="abc', b"abc"),
    ("folded, with white space", b"multipart/mixed;\n\tBoundary = abc ; charset=x", b"abc"),
    ("no semicolon", b"multipart/mixed boundary=abc", b"abc"),
    ("a name that ends alike", b"multipart/mixed; x-boundary=no; boundary=abc", b"abc"),
    ("the word in a value", b"multipart/mixed; type=boundary; boundary=abc", b"abc"),
    ("not there", b"multipart/mixed; charset=x", b""),
]


@pytest.mark.parametrize(("value", "boundary"), [pytest.param(*case, id=why) for why, *case in PARAMETERS])
def test_parameters(value: bytes, boundary: bytes) -> None:
    """A boundary is found however the field is written."""
    assert parameter(value, b"boundary") == boundary


TREES = [
    ("no multipart", b"Subject: x\n\nbody", [("text/plain", b"body")]),
    ("no body", b"Content-Type: text/html", [("text/html", b"")]),
    ("two parts", b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\nContent-Type: text/html\n\ntwo\n--b--\nx", [("text/plain", b"one"), ("text/html", b"two")]),
    ("no last line", b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo", [("text/plain", b"one"), ("text/plain", b"two")]),
    ("white space behind a boundary", b"Content-Type: multipart/mixed; boundary=b\n\n--b  \n\none\n--b-- \n", [("text/plain", b"one")]),
    ("a header alone", b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n--b--\n", [("text/html", b"")]),
    ("parts in parts", b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/x; boundary=bb\n\n--bb\n\none\n--bb--\n--b\n\ntwo\n--b--", [("text/plain", b"one"), ("text/plain", b"two")]),
    ("the default of a digest", b"Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: x\n\none\n--b--", [("message/rfc822", b"Subject: x\n\none")]),
    ("a message is a leaf", b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\none\n--c--\n--b--", [("message/rfc822", b"Content-Type: multipart/mixed; boundary=c\n\n--c\n\none\n--c--")]),
    ("no part at all", b"Content-Type: multipart/mixed; boundary=b\n\nbody", [("text/plain", b"body")]),
    ("boundary not told", b"Content-Type: multipart/mixed\n\n--guess\nContent-Type: text/html\n\none\n--guess--", [("text/html", b"one")]),
]  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), [pytest.param(*case, id=why) for why, *case in TREES])
def test_trees(data: bytes, expected: list[tuple[str, bytes]]) -> None:
    """The leaves come in order, whatever stands between them."""
    assert [(leaf.media_type, leaf.body) for leaf in leaves(data)] == expected


CHARSETS = [
    ("ASCII", b"lunch", b"us-ascii", "lunch"),
    ("UTF-8, whatever is said", "lünch".encode(), b"iso-8859-1", "lünch"),
    ("Latin-1", b"l\xfcnch", b"iso-8859-1", "lünch"),
    ("Windows", b"\x93lunch\x94", b"windows-1252", "\u201clunch\u201d"),
    ("Japanese", "送信できません".encode("iso-2022-jp"), b"ISO-2022-JP", "送信できません"),
    ("Japanese, mistold", "送信できません".encode("euc-jp"), b"euc-jp", "送信できません"),
    ("UTF-16", "lünch".encode("utf-16"), b"utf-16", "lünch"),
    ("none", b"l\xfcnch", b"", "lünch"),
    ("one that nobody knows", b"l\xfcnch", b"x-klingon", "lünch"),
    ("no codec of text", b"l\xfcnch", b"zlib", "lünch"),
    ("one that costs too much", b"l\xfcnch", b"punycode", "lünch"),
    ("no name at all", b"l\xfcnch", b"\xff\0", "lünch"),
]


@pytest.mark.parametrize(
    ("data", "charset", "text"), [pytest.param(*case, id=why) for why, *case in CHARSETS]
)
def test_charsets(data: bytes, charset: bytes, text: str) -> None:
    """UTF-8 where it is that, else what is said, else a character for each byte."""
    assert decode_text(data, charset) == text


ENCODINGS = [
    ("base64", base64.encodebytes(b"lunch\r\nat noon\n")),
    ("base64", base64.b64encode(b"lunch\r\nat noon\n") + b"\n-- \nscanned!"),
    ("base64", base64.b64encode(b"lunch\r\nat noon\n" * 3)[:-3]),
    ("quoted-printable", quopri.encodestring(b"lunch\r\nat noon\n")),
    ("Quoted-Printable (sic)", b"lunch=0D=0Aat no=\non=0A=ZZ"),
    ("8bit", b"lunch\nat noon\n"),
    ("x-nonsense", b"lunch\nat noon\n"),
]


@pytest.mark.parametrize(("encoding", "body"), ENCODINGS)
def test_encodings(encoding: str, body: bytes) -> None:
    """A transfer encoding is undone as far as it goes, and lines end in LF."""
    part = Part("text/plain", {b"content-transfer-encoding": encoding.encode()}, body)
    assert part.text().startswith("lunch\nat noon\n")


def test_binary_parts_stay_as_they_are() -> None:
    """Only text has ends of lines."""
    part = Part(
        "application/gzip", {b"content-transfer-encoding": b"base64"}, base64.b64encode(b"\x1f\x8b\r\n\r")
    )
    assert part.data() == b"\x1f\x8b\r\n\r"


def test_too_many_parts() -> None:
    """A message of a million parts has no more leaves than are kept."""
    assert (
        len(leaves(b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 100_000)) <= MAX_PARTS
    )


SMALL = st.binary(max_size=30).map(lambda data: data.replace(b"\r", b"").replace(b"--b", b""))


@settings(max_examples=150, deadline=None)
@given(st.lists(SMALL, min_size=1, max_size=5), st.sampled_from([b"b", b"=_b", b"b'()+_,-./:=?"]))
def test_agrees_with_the_standard_library(bodies: list[bytes], boundary: bytes) -> None:
    """Of well-formed messages the parts are those that `email` finds."""
    data = b'Content-Type: multipart/mixed; boundary="' + boundary + b'"\n\n'
    data += b"".join(b"--" + boundary + b"\nContent-Type: text/plain\n\n" + body + b"\n" for body in bodies)
    data += b"--" + boundary + b"--\n"
    theirs = message_from_bytes(data).get_payload()
    assert isinstance(theirs, list)
    assert [leaf.body for leaf in leaves(data)] == [raw(part) for part in theirs]


def raw(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    """Any bytes have leaves, and every leaf a text."""
    for leaf in leaves(b"Content-Type: multipart/x; boundary=b\n" + data):
        assert isinstance(leaf.text(), str)
    assert isinstance(unfold(data), str)
