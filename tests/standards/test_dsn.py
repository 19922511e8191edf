"""Fields, addresses and codes of delivery status notifications: a truth table per rule of the RFCs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.standards.dsn import (
    decode_utf8_address,
    decode_xtext,
    find_enhanced_code,
    find_reply_code,
    parse_delivery_status,
    parse_recipient,
    parse_status,
    parse_typed,
)

RECIPIENTS = [
    ("as RFC 3464 writes it", "rfc822; a@x.test", "a@x.test"),
    ("no space, other case", "RFC822;A@X.test", "A@X.test"),
    ("no type", "a@x.test", "a@x.test"),
    ("angle brackets", "rfc822; <a@x.test>", "a@x.test"),
    ("half of them", "rfc822; a@x.test>", "a@x.test"),
    ("a comment", "rfc822; a@x.test (mailbox full)", "a@x.test"),
    ("a name before the address", "rfc822; Some One <a@x.test>", "a@x.test"),
    ("a quoted local part", 'rfc822; "a b;c"@x.test', '"a b;c"@x.test'),
    ("xtext (RFC 3461 §4)", "rfc822; a+2Bb+3Dc@x.test", "a+b=c@x.test"),
    ("a plus sign that is none of xtext", "rfc822; a+list@x.test", "a+list@x.test"),
    ("a plus sign before what looks like hex", "rfc822; a+20years@x.test", "a+20years@x.test"),
    ("xtext of UTF-8", "utf-8; j+C3+B6rg@x.test", "jörg@x.test"),
    ("utf-8-addr-xtext (RFC 6533 §3)", r"utf-8; j\x{F6}rg@x.test", "jörg@x.test"),
    ("an escaped backslash", r"utf-8; a\x{5C}b@x.test", "a\\b@x.test"),
    ("utf-8-address", "utf-8; jörg@bücher.test", "jörg@bücher.test"),
    ("beyond the plane", r"utf-8; \x{1F408}@x.test", "🐈@x.test"),
    ("no code point", r"utf-8; \x{D800}\x{110000}@x.test", r"\x{D800}\x{110000}@x.test"),
    ("another type", "x400; /C=xx/ADMD= /", "/C=xx/ADMD= /"),
    ("a local name", "local; someone", "someone"),
    ("empty", "", ""),
    ("a type and nothing", "rfc822;", ""),
    ("the null address", "rfc822; <>", ""),
]


@pytest.mark.parametrize(("field", "address"), [pytest.param(f, a, id=why) for why, f, a in RECIPIENTS])
def test_recipients(field: str, address: str) -> None:
    """An address comes without its type, brackets and comments, and decoded."""
    assert parse_recipient(field) == address


STATUSES = [
    ("plain", "5.1.1", "5.1.1"),
    ("with a comment (RFC 3464 §2.3.4)", "5.1.2 (550 Tried all MXs)", "5.1.2"),
    ("three digits", "4.7.323", "4.7.323"),
    ("white space inside", "5. 1. 1", "5.1.1"),
    ("text in front", "smtp; 5.7.1", "5.7.1"),
    ("no code", "unknown", None),
    ("a reply code alone", "550", None),
    ("a class that is none", "3.1.1", None),
    ("four digits", "5.1.1111", None),
]


@pytest.mark.parametrize(("field", "status"), [pytest.param(f, s, id=why) for why, f, s in STATUSES])
def test_status(field: str, status: str | None) -> None:
    """A status is reported as it stands, without its comment, or not at all."""
    assert parse_status(field) == status


CODES = [
    ("both", "smtp; 550 5.1.1 <a@x.test> unknown", "5.1.1", 550),
    ("behind said", "host mx.x.test[192.0.2.25] said: 450 4.2.0 later", "4.2.0", 450),
    ("in several lines", "550-5.7.26 first 550 5.7.26 second", "5.7.26", 550),
    ("qmail's", "user unknown (#5.1.1)", "5.1.1", None),
    ("Exchange's", "#550 5.1.1 RESOLVER.ADR.RecipNotFound ##", "5.1.1", 550),
    ("sendmail's", "<a@x.test>... Deferred: 403 4.7.0 TLS handshake failed.", "4.7.0", 403),
    ("a colon behind the code", "550: user unknown", None, 550),
    ("no code in an IP address", "connect to mx.x.test[198.51.5.4]: timed out", None, None),
    ("nor in a version", "Exim 4.96.2.1", None, None),
    ("nor in a port or a size", "mx.x.test:2525, 450000 bytes", None, None),
    ("nothing", "", None, None),
]


@pytest.mark.parametrize(("text", "enhanced", "reply"), [pytest.param(*case, id=why) for why, *case in CODES])
def test_codes_in_texts(text: str, enhanced: str | None, reply: int | None) -> None:
    """Codes are found where servers put them, and not in numbers that look alike."""
    assert find_enhanced_code(text) == enhanced
    assert find_reply_code(text) == reply


def test_codes_of_a_class() -> None:
    """In a dialogue that went well for a while, the first failure counts."""
    dialogue = "250 2.1.0 Ok\n354 End data\n451 4.3.0 queue file write error"
    assert find_enhanced_code(dialogue, "45") == "4.3.0"
    assert find_reply_code(dialogue, "45") == 451


GROUPS = [
    (
        "as RFC 3464 writes it",
        "Reporting-MTA: dns; a.test\n\nFinal-Recipient: rfc822; 1@x.test\nAction: failed\nStatus: 5.1.1\n\n"
        "Final-Recipient: rfc822; 2@x.test\nAction: delayed\nStatus: 4.2.2\n",
    ),
    (
        "no empty line at all",
        "Reporting-MTA: dns; a.test\nFinal-Recipient: rfc822; 1@x.test\nAction: failed\nStatus: 5.1.1\n"
        "Final-Recipient: rfc822; 2@x.test\nAction: delayed\nStatus: 4.2.2",
    ),
    (
        "no empty line, and the action first",
        "Reporting-MTA: dns; a.test\nAction: failed\nFinal-Recipient: rfc822; 1@x.test\nStatus: 5.1.1\n"
        "Action: delayed\nFinal-Recipient: rfc822; 2@x.test\nStatus: 4.2.2",
    ),
    (
        "an empty line too many",
        "Reporting-MTA: dns; a.test\n\n\n\nFinal-Recipient: rfc822; 1@x.test\n\nAction: failed\nStatus: 5.1.1\n \n"
        "Final-Recipient: rfc822; 2@x.test\n\nAction: delayed\nStatus: 4.2.2\n",
    ),
    (
        "recipients first",
        "Final-Recipient: rfc822; 1@x.test\nAction: failed\nStatus: 5.1.1\n\n"
        "Final-Recipient: rfc822; 2@x.test\nAction: delayed\nStatus: 4.2.2\n\nReporting-MTA: dns; a.test\n",
    ),
    (
        "white space and case",
        "REPORTING-MTA :dns; a.test  \n\t\nfinal-recipient:rfc822; 1@x.test\nACTION:\tfailed \nstatus : 5.1.1 \n\n"
        "Final-recipient: rfc822;\n 2@x.test\nAction:\n\tdelayed\nStatus: 4.2.2",
    ),
    (
        "a field that comes twice",
        "Reporting-MTA: dns; a.test\nReporting-MTA: dns; b.test\n\nFinal-Recipient: rfc822; 1@x.test\nRemote-MTA: dns; c\n"
        "Remote-MTA: dns; d\nAction: failed\nStatus: 5.1.1\n\nFinal-Recipient: rfc822; 2@x.test\nAction: delayed\nStatus: 4.2.2",
    ),
    (
        "the action in a group of its own, before the name",
        "Reporting-MTA: dns; a.test\n\nAction: failed\nStatus: 5.1.1\n\nFinal-Recipient: rfc822; 1@x.test\n\n"
        "Final-Recipient: rfc822; 2@x.test\nAction: delayed\nStatus: 4.2.2",
    ),
]  # fmt: skip


@pytest.mark.parametrize("text", [pytest.param(text, id=why) for why, text in GROUPS])
def test_groups(text: str) -> None:
    """The same two recipients, however the groups are set apart."""
    status = parse_delivery_status(text)
    assert parse_typed(status.message["reporting-mta"]).value == "a.test"
    assert [
        (parse_recipient(fields["final-recipient"]), fields["action"].strip(), parse_status(fields["status"]))
        for fields in status.recipients
    ] == [("1@x.test", "failed", "5.1.1"), ("2@x.test", "delayed", "4.2.2")]


def test_folded_values() -> None:
    """A folded value is one line; one that lost the white space of its folding is put together again."""
    folded = "Final-Recipient: rfc822; a@x.test\nDiagnostic-Code: smtp; 550-5.1.1 first\n  550 5.1.1 second\nAction: failed"
    lost = "Final-Recipient: rfc822; a@x.test\nDiagnostic-Code: smtp; 550-5.1.1 first\n550 5.1.1 second\nAction: failed"
    for text in (folded, lost):
        (fields,) = parse_delivery_status(text).recipients
        assert fields["diagnostic-code"] == "smtp; 550-5.1.1 first 550 5.1.1 second"
        assert fields["action"] == "failed"


NAMES = st.sampled_from(
    ["Final-Recipient", "Action", "Status", "Diagnostic-Code", "X-Other", "Reporting-MTA", "no field"]
)
LINES = st.lists(
    st.tuples(NAMES, st.text(max_size=20), st.sampled_from([": ", ":", " ", "\n", ":\n "])), max_size=30
)


@settings(max_examples=200, deadline=None)
@given(LINES)
def test_any_fields(lines: list[tuple[str, str, str]]) -> None:
    """Any text is read; only groups that name a recipient are recipients."""
    status = parse_delivery_status("\n".join(name + between + value for name, value, between in lines))
    for fields in status.recipients:
        assert fields.keys() & {"final-recipient", "original-recipient", "x-actual-recipient"}


@settings(max_examples=200, deadline=None)
@given(
    st.text(
        alphabet=st.characters(min_codepoint=33, exclude_characters="+=\\", exclude_categories=["Cs"]),
        min_size=1,
    )
)
def test_addresses_survive_encoding(local_part: str) -> None:
    """What an encoder wrote comes back, in xtext for ASCII and UTF-8, and in the form of RFC 6533."""
    encoded = "".join(
        char if "!" <= char <= "~" else "".join(f"+{octet:02X}" for octet in char.encode())
        for char in local_part
    )
    assert decode_xtext(encoded) == local_part
    assert decode_utf8_address("".join(f"\\x{{{ord(char):04X}}}" for char in local_part)) == local_part
