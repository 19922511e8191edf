"""Exim's main log: what each line says of an attempt, and what its notices say of the servers before it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read.exim import MAX_ADDRESS, EximReader
from rtls_analysis.read.log_rows import Sink, Source
from rtls_analysis.read.log_time import Clock
from rtls_analysis.read.logs import read_connections, read_logs
from tests.read.truth import disagreements, last_rows

ReadText = Callable[..., pd.DataFrame]

ID = "1xVWxq-0000000000j-3OP5"
OLD_ID = "1jmH1t-0000dO-Un"
GNUTLS = "ECDHE_SECP256R1__ECDSA_SECP256R1_SHA256__AES_256_GCM"

# What a line says, and why it is here; columns not named are not looked at, `None` is missing.
LINES: list[tuple[str, str, dict[str, Any]]] = [
    (
        "GnuTLS, verified by DANE",
        f"{ID} => a@fir.test R=dnslookup T=remote_smtp H=mx1.fir.test [192.0.2.1] X=TLS1.3:{GNUTLS}:256:SECP256R1 CV=dane"
        ' DN="CN=mx1.fir.test" K C="250 2.0.0 Ok: queued as D8056" DT=0s',
        {"action": "delivered", "status_word": "=>", "tls_level": "verified", "tls_version": "TLSv1.3", "cipher": GNUTLS,
         "cipher_bits": 256, "relay_host": "mx1.fir.test", "relay_address": "192.0.2.1", "relay_port": None,
         "transport": "remote_smtp", "reply_code": 250, "enhanced_code": "2.0.0",
         "reply_text": "250 2.0.0 Ok: queued as D8056", "tls_outcome": "ok", "requiretls": "unknown",
         "tls_required_no": "unknown", "attempted": True, "queue_id": ID},
    ),
    (
        "OpenSSL, id of before 4.97, old words for protocol and no CV=: how far it was checked is not told",
        f"{OLD_ID} => a@b.test R=r T=t H=mx.b.test [192.0.2.1]:2525 X=TLSv1:RC4-SHA:128",
        {"tls_level": "encrypted", "tls_version": "TLSv1.0", "cipher": "RC4-SHA", "cipher_bits": 128, "relay_port": 2525,
         "queue_id": OLD_ID, "reply_code": None},
    ),
    (
        "a resumed session, its star behind cipher and CV",
        f'{ID} => a@b.test R=r T=t H=mx.b.test [192.0.2.1]* X=TLS1.2:ECDHE-RSA-AES256-SHA384:256* CV=yes* C="250 OK"',
        {"tls_level": "trusted", "tls_version": "TLSv1.2", "cipher": "ECDHE-RSA-AES256-SHA384", "cipher_bits": 256},
    ),
    (
        "the certificate was not verified",
        f"{ID} => a@b.test R=r T=t H=mx.b.test [2001:DB8::1]:25 X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=no",
        {"tls_level": "untrusted", "relay_address": "2001:db8::1", "relay_port": 25},
    ),
    (
        "a version that the log leaves open",
        f"{ID} => a@b.test R=r T=t H=mx.b.test [192.0.2.1] X=TLS1.x:ke-RSA-AES256-SHAnnn:256 CV=yes",
        {"tls_level": "trusted", "tls_version": None},
    ),
    (
        "certificate name and reply hold spaces, commas, quotes and words of the log's own",
        f'{ID} => a@b.test R=r T=t H=mx.b.test [192.0.2.1] X=TLS1.3:C:256 CV=no DN="CN=x CV=dane H=y [1.1.1.1],O=a \\"b\\""'
        ' C="250 2.6.0 <i@x> Queued \\"mail\\" X=TLS1.0:NULL:0 -> 250 2.1.5" QT=1h2m3s DT=0.5s',
        {"tls_level": "untrusted", "cipher": "C", "relay_host": "mx.b.test", "delay_seconds": 3723.0,
         "reply_text": '250 2.6.0 <i@x> Queued "mail" X=TLS1.0:NULL:0 -> 250 2.1.5'},
    ),
    (
        "an alias: the mail went to the first address",
        f'{ID} => far@b.test <near@a.test> F=<s@a.test> P=<r@a.test> R=r T=t S=640 H=mx.b.test [192.0.2.1] C="250 ok"',
        {"recipient": "far@b.test", "recipient_domain": "b.test", "sender": "s@a.test", "enhanced_code": None},
    ),
    (
        "a mailbox here: the envelope's address, no session",
        f"{ID} => stores18 <stores18@a.test> R=local T=maildir DT=0s",
        {"recipient": "stores18@a.test", "transport": "maildir", "tls_level": None, "relay_host": None,
         "action": "delivered"},
    ),
    (
        "a pipe with spaces, and the addresses it came by",
        f"{ID} => |/usr/bin/prog -f x (list@a.test) <cat@a.test> R=r T=address_pipe",
        {"recipient": "cat@a.test", "transport": "address_pipe"},
    ),
    (
        "a quoted local part",
        f'{ID} => "a b"@b.test R=r T=t H=mx.b.test [192.0.2.1] C="250 ok"',
        {"recipient": '"a b"@b.test', "recipient_domain": "b.test"},
    ),
    (
        "cutthrough",
        f'{ID} >> a@b.test P=<s@a.test> R=r T=t H=mx.b.test [192.0.2.1] C="250 OK"',
        {"action": "delivered", "status_word": ">>"},
    ),
    (
        "a deferral with errno and reply of the peer: TLS is not told",
        f"{ID} == a@b.test R=r T=t defer (-44) H=mx.b.test [192.0.2.1]: SMTP error from remote mail server after"
        " RCPT TO:<a@b.test>: 450 4.7.1 Greylisted",
        {"action": "delayed", "status_word": "==", "tls_outcome": "not_tls", "reply_code": 450, "enhanced_code": "4.7.1",
         "tls_level": "unknown", "attempted": True},
    ),
    (
        "Exim 4.96 and later: no errno",
        f"{ID} == a@b.test R=r T=t defer H=mx.b.test [192.0.2.1]:25 DT=8s: a TLS session is required, but the server did"
        " not offer TLS support",
        {"tls_outcome": "starttls_not_supported", "tls_level": "none", "relay_port": 25},
    ),
    (
        "STARTTLS was offered, then refused",
        f"{ID} == a@b.test R=r T=t defer (-38) H=mx.b.test [192.0.2.1]: a TLS session is required, but an attempt to"
        " start TLS failed",
        {"tls_outcome": "starttls_refused", "tls_level": "none"},
    ),
    (
        "refused, and the peer's own words say nothing of TLS",
        f"{ID} == a@b.test R=r T=t defer H=mx.b.test [192.0.2.1] DT=0s: SMTP error from remote mail server after STARTTLS:"
        " 454 4.3.0 come back later",
        {"tls_outcome": "starttls_refused", "enhanced_code": "4.3.0"},
    ),
    (
        "the certificate is not the one of the TLSA record",
        f"{ID} == a@b.test R=r T=t defer (-37) H=mx.b.test [192.0.2.1]: TLS session: (certificate verification failed):"
        " Verification failed. The certificate differs. ",
        {"tls_outcome": "tlsa_invalid", "tls_level": "encrypted"},
    ),
    (
        "a certificate that fails for a reason not given",
        f"{ID} == a@b.test R=r T=t defer (-37) H=mx.b.test [192.0.2.1]: TLS session: (certificate verification failed)",
        {"tls_outcome": "certificate_unverified"},
    ),
    (
        "OpenSSL's handshake",
        f"{ID} == a@b.test R=r T=t defer (-37) H=mx.b.test [192.0.2.1]: TLS session: (SSL_connect): error:1408F10B:SSL"
        " routines:ssl3_get_record:wrong version number",
        {"tls_outcome": "tls_handshake_failed", "tls_level": "none"},
    ),
    (
        "TLSA records could not be had",
        f"{ID} == a@b.test R=r T=t defer (-36): DANE error: tlsa lookup DEFER",
        {"tls_outcome": "dnssec_invalid", "tls_level": None},
    ),
    (
        "DANE is required, the name is not signed: permanent",
        f"{ID} ** a@b.test R=r T=t : DANE error: mx.b.test lookup not DNSSEC",
        {"tls_outcome": "dane_required", "action": "failed"},
    ),
    (
        "errno in words, no host",
        f"{ID} == a@b.test R=r T=t defer (Connection refused) DT=0s",
        {"tls_outcome": "not_tls", "tls_level": None, "reply_text": "Connection refused", "relay_host": None},
    ),
    (
        "errno in words before the host",
        f"{ID} == a@b.test R=r T=t defer (110): Connection timed out H=mx.b.test [192.0.2.1]: SMTP timeout after EHLO me",
        {"relay_host": "mx.b.test", "reply_text": "SMTP timeout after EHLO me", "tls_level": "unknown"},
    ),
    (
        "routing put off, not a try",
        f"{ID} == a@b.test routing defer (-52): retry time not reached",
        {"attempted": False, "action": "delayed", "tls_outcome": "unknown", "recipient": "a@b.test"},
    ),
    (
        "rejected over TLS, code of the peer that wants encryption",
        f'{ID} ** a@b.test R=r T=t H=mx.b.test [192.0.2.1]:25 X=TLS1.3:C:256 CV=dane DN="CN=mx" : SMTP error from remote'
        " mail server after end of data: 550 5.7.10 Encryption needed DT=0s",
        {"action": "failed", "status_word": "**", "tls_level": "verified", "tls_outcome": "peer_requires_tls",
         "enhanced_code": "5.7.10", "reply_code": 550, "cipher_bits": 256},
    ),
    (
        "the recipient's own address speaks of encryption, the peer does not",
        f"{ID} ** tls-required@encryption.test R=r T=t H=mx.b.test [192.0.2.1]: SMTP error from remote mail server after"
        " RCPT TO:<tls-required@encryption.test>: 550 no such user",
        {"tls_outcome": "not_tls", "tls_level": "unknown"},
    ),
    (
        "colon right behind the certificate",
        f'{OLD_ID} ** a@b.test R=r T=t H=mx.b.test [192.0.2.1] X=TLS1.2:C:256 CV=yes DN="O=Z Corp,CN=mx": SMTP error from'
        " remote mail server after end of data: 554 5.2.0 Mailbox Full",
        {"tls_level": "trusted", "enhanced_code": "5.2.0"},
    ),
    (
        "the greeting refused: no TLS yet",
        f"{ID} ** a@b.test R=r T=t H=mx.b.test [192.0.2.1] : SMTP error from remote mail server after initial connection:"
        " 554 5.3.2 not accepting mail DT=0s",
        {"tls_level": "none", "tls_outcome": "not_tls",
         "reply_text": "SMTP error from remote mail server after initial connection: 554 5.3.2 not accepting mail"},
    ),
    (
        "no route",
        f"{ID} ** a@b.test <c@d.test> : Unrouteable address",
        {"recipient": "a@b.test", "action": "failed", "attempted": True, "tls_level": None, "transport": None},
    ),
    (
        "its time was up",
        f"{ID} ** a@b.test: retry timeout exceeded",
        {"status_word": "expired", "attempted": False, "action": "failed", "tls_outcome": "unknown"},
    ),
    (
        "its time was up because all hosts have failed for long",
        f"{ID} ** a@b.test R=r T=t : all hosts for 'b.test' have been failing for a long time (and retry time not reached)",
        {"status_word": "expired", "attempted": False, "recipient": "a@b.test"},
    ),
]  # fmt: skip


def plain(row: Any) -> Any:
    """A value of a table, missing ones as `None`."""
    return None if pd.isna(row) else row


@pytest.mark.parametrize(("line", "says"), [pytest.param(line, says, id=why) for why, line, says in LINES])
def test_a_line(read_text: ReadText, line: str, says: dict[str, Any]) -> None:
    """A delivery line gives one row, which says what the line says."""
    frame = read_text(f"2026-11-23 16:32:22 {line}\n".encode())
    assert len(frame) == 1
    assert {name: plain(frame[name][0]) for name in says} == says
    assert frame.attrs["coverage"]["understood"] == {"exim delivery": 1}


STAMPS = [
    ("2026-11-23 16:32:22", "2026-11-23T16:32:22Z"),
    ("2026-11-23 16:32:22.075", "2026-11-23T16:32:22.075Z"),
    ("2026-11-23 16:32:22 +0200", "2026-11-23T14:32:22Z"),
    ("2026-11-23 16:32:22.075 -0130 [4711]", "2026-11-23T18:02:22.075Z"),
    ("2026-11-23 16:32:22 [4711]", "2026-11-23T16:32:22Z"),
    ("Nov 23 16:32:23 mx exim[30]: 2026-11-23 16:32:22", "2026-11-23T16:32:22Z"),
    ("Nov 23 16:32:23 mx exim4[30]:", "2026-11-23T16:32:23Z"),
    ("2026-11-23T17:32:22.5+01:00 mx exim[30]: 2026-11-23 16:32:22", "2026-11-23T16:32:22.5Z"),
    ("Nov 23 16:32:23 mx mail-relay[30]: 2026-11-23 16:32:22 [30]", "2026-11-23T16:32:22Z"),
]


@pytest.mark.parametrize(("stamp", "time"), STAMPS)
def test_stamps(read_text: ReadText, stamp: str, time: str) -> None:
    """Exim's own date forms, through syslog with both stamps or one; the inner one knows the year."""
    frame = read_text(f"{stamp} {ID} => a@b.test R=r T=t H=mx.b.test [192.0.2.1]\n".encode(), year=2026)
    assert frame["logged_at"].tolist() == [pd.Timestamp(time)]
    assert frame["queue_id"].tolist() == [ID]


def test_inner_stamp_has_the_year(read_text: ReadText) -> None:
    """Behind syslog's stamp without a year, Exim's own tells it, in the zone that the caller gives."""
    line = f"Dec 31 23:59:59 mx exim[30]: 2024-12-31 23:59:59 {ID} => a@b.test R=r T=t\n"
    frame = read_text(line.encode(), year=2026, timezone="Europe/Berlin")
    assert frame["logged_at"][0] == pd.Timestamp("2024-12-31T22:59:59Z")
    assert frame["reporting_host"][0] == "mx"


def test_entry_in_pieces(read_text: ReadText) -> None:
    """An entry too long for syslog comes in pieces, between those of other processes, and is one line again."""
    text = f'{ID} => a@b.test R=r T=t H=mx.b.test [192.0.2.1] X=TLS1.3:C:256 CV=yes C="250 2.0.0 Ok"'
    head = "Nov 23 16:32:22 mx exim[{}]: "
    pieces = [text[:40], text[40:70], text[70:]]
    lines = [
        head.format(1) + "[1/3] 2026-11-23 16:32:22 " + pieces[0],
        head.format(2) + "[1/2] 2026-11-23 16:32:22 " + text.replace("a@b", "c@d")[:50],
        head.format(1) + "[2\\3] " + pieces[1],
        head.format(2) + "[2/2] " + text.replace("a@b", "c@d")[50:],
        head.format(1) + "[3/3] " + pieces[2],
        head.format(3) + "[2/3] of which the first piece is missing",
    ]
    frame = read_text("\n".join(lines).encode())
    assert frame["recipient"].tolist() == ["c@d.test", "a@b.test"]
    assert frame["tls_level"].tolist() == ["trusted", "trusted"]
    assert frame["line_number"].tolist() == [2, 1]
    coverage = frame.attrs["coverage"]
    assert coverage["understood"] == {"exim delivery": 2, "exim piece of an entry": 3}
    assert list(coverage["skipped"]) == ["exim: piece of an entry whose beginning is missing"]


MESSAGE = f"""\
2026-11-23 16:32:20 {ID} <= s@a.test H=client [192.0.2.9] P=esmtps X=TLS1.3:C:256 S=604 id=m1@a.test T="a for b@c" for x@b.test y@b.test z@c.test
2026-11-23 16:32:21 {ID} DANE attempt failed; TLS connection to mx1.b.test [192.0.2.1]: (certificate verification failed): certificate invalid
2026-11-23 16:32:21 {ID} H=mx2.b.test [192.0.2.2] Connection refused
2026-11-23 16:32:22 {ID} TLS session: (gnutls_handshake): timed out: delivering unencrypted to H=mx3.b.test [192.0.2.3]:25 (not in hosts_require_tls)
2026-11-23 16:32:22 {ID} => x@b.test R=r T=t H=mx3.b.test [192.0.2.3]:25 C="250 2.0.0 Ok"
2026-11-23 16:32:22 {ID} -> y@b.test R=r T=t H=mx3.b.test [192.0.2.3]:25 C="250 2.0.0 Ok"
2026-11-23 16:32:23 {ID} == z@c.test R=r T=t defer (-37) H=mx1.c.test [192.0.2.4]: TLS session: (certificate verification failed): certificate invalid
2026-11-23 16:33:00 {ID} == z@c.test R=r T=t defer (-53): retry time not reached for any host
2026-11-23 16:33:23 {ID} ** z@c.test: retry timeout exceeded
2026-11-23 16:33:23 {ID} Completed
"""


def test_a_message(read_text: ReadText) -> None:
    """The arrival line gives sender and Message-ID, an expired recipient has the outcome of its last try."""
    frame = read_text(MESSAGE.encode())
    assert frame["message_id"].unique().tolist() == ["m1@a.test"]
    assert frame["sender"].unique().tolist() == ["s@a.test"]
    assert frame["delay_seconds"].tolist() == [2.0, 2.0, 3.0, 40.0, 63.0]
    assert frame["tls_level"].astype(object).where(frame["tls_level"].notna(), None).tolist() == [
        "none", "none", "encrypted", None, None,
    ]  # fmt: skip
    assert frame["attempted"].tolist() == [True, True, True, False, False]
    assert frame["status_word"].tolist() == ["=>", "->", "==", "==", "expired"]
    assert frame["tls_outcome"].tolist() == ["ok", "ok"] + ["certificate_unverified"] * 3


def test_servers_before_the_last_one(read_text: ReadText) -> None:
    """Servers that were given up leave no delivery line; `connections` has each, and each connection once."""
    frame = read_text(MESSAGE.encode(), table="connections")
    told = [
        (row.relay_host, None if pd.isna(row.tls_level) else row.tls_level, row.tls_outcome)
        for row in frame.itertuples()
    ]
    assert told == [
        ("mx1.b.test", "encrypted", "tlsa_invalid"),
        ("mx2.b.test", None, "not_tls"),
        ("mx3.b.test", "none", "tls_handshake_failed"),
        ("mx3.b.test", "none", "ok"),
        ("mx1.c.test", "encrypted", "certificate_unverified"),
    ]
    assert frame["queue_id"].unique().tolist() == [ID]


def test_notice_refines_the_deferral(read_text: ReadText) -> None:
    """What a notice of the same try names, the vague deferral behind it gets; one of a try before it does not."""
    again = (
        f"{ID} == a@b.test R=r T=t defer (-37) H=mx.b.test [192.0.2.1]: TLS session: (SSL_connect): timed out"
    )
    lines = [
        f"{ID} [192.0.2.1] SSL verify error: depth=0 error=certificate has expired cert=/CN=mx.b.test",
        f"{ID} DANE attempt failed; TLS connection to mx.b.test [192.0.2.1]: (SSL_connect): certificate verify failed",
        again,
        again,
    ]
    data = "".join(f"2026-11-23 16:32:22 {line}\n" for line in lines).encode()
    assert read_text(data)["tls_outcome"].tolist() == ["tlsa_invalid", "tls_handshake_failed"]
    assert read_text(data, table="connections")["tls_outcome"].tolist() == [
        "certificate_expired", "tlsa_invalid", "tls_handshake_failed",
    ]  # fmt: skip


def test_one_connection_for_several_recipients(read_text: ReadText) -> None:
    """Recipients of one session are one connection; the same server tried again is another."""
    way = "R=r T=t H=mx.b.test [192.0.2.1]"
    lines = [
        f"** a@b.test {way}: SMTP error from remote mail server after RCPT TO:<a@b.test>: 550 no",
        f'=> b@b.test {way} C="250 ok"',
        f'-> c@b.test {way} C="250 ok"',
        f"== d@b.test {way[:7]} defer (-44){way[7:]}: SMTP error from remote mail server after RCPT TO:<d@b.test>: 450 no",
        f"== d@b.test {way[:7]} defer (-44){way[7:]}: SMTP error from remote mail server after RCPT TO:<d@b.test>: 450 no",
        f'=> e@b.test {way}* C="250 ok"',
    ]
    data = "".join(f"2026-11-23 16:32:22 {ID} {line}\n" for line in lines).encode()
    assert len(read_text(data)) == 6
    frame = read_text(data, table="connections")
    assert frame["line_number"].tolist() == [1, 5]


def test_a_way_known_already_changes_nothing(read_text: ReadText) -> None:
    """A line is read the same whether its way is new or known, with its end cut off and other oddities too."""
    way = 'R=r T=t H=mx.b.test [192.0.2.1] X=TLS1.3:C:256 CV=no DN="CN=mx"'
    odd = [
        f'=> >a@b.test {way} C="250 ok"',
        f'=> a b@b.test {way} C="250 ok"',
        f'=> local <a@b.test> {way} C="250 ok"',
        f'=> a@b.test F=<s@c.test> {way} C="250 ok"',
        f'=> a@b.test {way} C="250 2.6.0 \\"x\\" ok" QT=3s',
        f'=> a@b.test {way} C="250 cut',
        f'=> a@b.test {way} C=""',
        f"=> a@b.test {way}",
    ]
    lines = [line for _, line, _ in LINES] + [f"{ID} {line}" for line in odd]
    known = f'{OLD_ID} => a@b.test {way} C="250 ok"'
    for line in lines:
        rows = []
        for first in (known, known.replace("mx", "other")):
            data = "".join(f"2026-11-23 16:32:22 {logged}\n" for logged in (first, line, line)).encode()
            frame = read_text(data).drop(columns="line_number")
            rows += [str(row) for row in frame.to_dict("records")[1:]]
        assert len(rows) == 4
        assert len(set(rows)) == 1


def test_cleartext_only_where_tls_is_logged(read_text: ReadText) -> None:
    """No X= means cleartext in a log that shows X= at all; where the log selector is off it is not told."""
    way = 'R=r T=t H=mx.b.test [192.0.2.1] C="250 ok"\n'
    plain_only = f"2026-11-23 16:32:22 {ID} => a@b.test {way}".encode()
    shown = f"2026-11-23 16:32:21 {OLD_ID} <= s@a.test H=c [192.0.2.9] P=esmtps X=TLS1.3:C:256 S=1\n".encode()
    assert read_text(plain_only)["tls_level"].tolist() == ["unknown"]
    assert read_text(shown + plain_only)["tls_level"].tolist() == ["none"]


def test_further_address_without_host(read_text: ReadText) -> None:
    """Old versions give the host of a further address only on the line before it."""
    lines = [
        "=> a@b.test R=r T=t H=mx.b.test [192.0.2.1] X=TLS1.2:C:128 CV=no",
        "-> c@b.test R=r T=t",
        "=> d <d@a.test> R=l T=mbox",
        "-> e <e@a.test> R=l T=mbox",
    ]
    frame = read_text("".join(f"2026-11-23 16:32:22 {OLD_ID} {line}\n" for line in lines).encode())
    assert [plain(host) for host in frame["relay_host"]] == ["mx.b.test", "mx.b.test", None, None]
    assert [plain(level) for level in frame["tls_level"]] == ["untrusted", "untrusted", None, None]


def test_frozen(read_text: ReadText) -> None:
    """A frozen message holds each recipient still open, said once until another line says otherwise."""
    defer = "R=r T=t defer (-1): no"
    lines = [
        "<= s@a.test H=c [192.0.2.9] P=esmtp S=1 id=m@a",
        "=> a@b.test R=r T=t",
        f"== c@d.test {defer}",
        f"== e@f.test {defer}",
        "Frozen by the system filter",
        "Message is frozen",
        "Unfrozen by forced delivery",
        "frozen by root",
        "Unfrozen by forced delivery",
        f"== e@f.test {defer}",
        "=> c@d.test R=r T=t",
        "Frozen",
    ]
    frame = read_text("".join(f"2026-11-23 16:32:22 {ID} {line}\n" for line in lines).encode())
    held = frame[frame["status_word"] == "held"]
    assert held["recipient"].tolist() == ["c@d.test", "e@f.test", "e@f.test"]
    assert held["attempted"].tolist() == [False] * 3
    assert held["action"].unique().tolist() == ["delayed"]
    assert held["line_number"].tolist() == [5, 5, 12]


def test_frozen_where_recipients_are_told_otherwise(read_text: ReadText) -> None:
    """Recipients of a message never tried: from the arrival line; of a bounce that failed: from its failure."""
    other = ID.replace("3OP5", "0000")
    lines = [
        f'{ID} <= s@a.test U=u P=local S=1 id=m@a T="x for y" for a@b.test c@d.test',
        f"{ID} frozen by root",
        f"{other} <= <> R={ID} U=Debian-exim P=local S=1",
        f"{other} ** s@a.test R=r T=t: gone",
        f"{other} Frozen (delivery error message)",
    ]
    frame = read_text("".join(f"2026-11-23 16:32:22 {line}\n" for line in lines).encode())
    assert frame["recipient"].tolist() == ["a@b.test", "c@d.test", "s@a.test", "s@a.test"]
    assert frame["sender"].tolist() == ["s@a.test", "s@a.test", "", ""]


NO_ROWS = [
    f"{ID} *> a@b.test R=r T=t H=mx.b.test [192.0.2.1]",
    f"{ID} => blackhole (RCPT ACL discarded recipients)",
    f"{ID} H=c [192.0.2.9] F=<s@a.test> rejected after DATA: spam",
    f"{ID} == a@b.test",
    f"{ID} ** a@b.test",
    "Start queue run: pid=1234 -qf",
    "H=c [192.0.2.9] F=<s@a.test> rejected RCPT <a@b.test>: => nothing R=x",
]


@pytest.mark.parametrize("line", NO_ROWS)
def test_no_rows(read_text: ReadText, line: str) -> None:
    """A line without an attempt, or cut short, is counted with its reason and gives no row."""
    frame = read_text(f"2026-11-23 16:32:22 {line}\n".encode())
    assert frame.empty
    coverage = frame.attrs["coverage"]
    assert sum(skipped["count"] for skipped in coverage["skipped"].values()) == 1
    assert all(reason.startswith("exim: ") for reason in coverage["skipped"])


# -- real logs ------------------------------------------------------------------------------------------------


def _untold(said: Any, row: Any) -> set[str]:
    untold = set()
    if said["enhanced_status"] == "5.0.0":
        untold.add("enhanced_code")  # of the DSN; the log has none for a domain that takes no mail
    if said["final_action"] == "deferred" and "failed" in said["dsn_actions"]:
        untold.add("action")  # the truth is wrong: it expired, and a failure notice came back
    return untold


@pytest.mark.parametrize(
    ("name", "sender", "wrong_in_truth"),
    [
        ("exim-opp/mainlog", "exim-opp", 3),
        ("exim-reqtls/mainlog", "exim-reqtls", 4),
        ("exim-reqtls/mail.log", "exim-reqtls", 4),
    ],
)
def test_truth(
    lab_log: Callable[[str], Path],
    truth: Callable[[str], list[dict[str, str]]],
    name: str,
    sender: str,
    wrong_in_truth: int,
) -> None:
    """Every recipient of the lab's Exim senders, but for `trusted` where only the settings make it verified."""
    frame = read_logs(lab_log(f"exim-4.100.1/{name}"), timezone="UTC", year=2026)
    rows = truth(sender)
    verified = frozenset({"verified", "trusted"})
    assert disagreements(frame, rows, untold=_untold, tls_level={"verified": verified}) == []
    final = last_rows(frame)
    expired = [said for said in rows if "action" in _untold(said, None)]
    assert len(expired) == wrong_in_truth
    assert {final[said["queue_id"], said["recipient"]]["status_word"] for said in expired} == {"expired"}


def test_file_and_syslog_say_the_same(lab_log: Callable[[str], Path]) -> None:
    """The main log and the same entries through syslog give the same rows, but for the host and the lines."""
    frames = [
        read_logs(lab_log(f"exim-4.100.1/exim-reqtls/{name}"), timezone="UTC", year=2026)
        .drop(columns=["source_file", "line_number", "reporting_host"])
        .sort_values(["queue_id", "recipient", "logged_at"], kind="stable", ignore_index=True)
        for name in ("mainlog", "mail.log")
    ]
    pd.testing.assert_frame_equal(*frames)


_FLAGGED = re.compile(
    rb"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*(?: [+-]\d{4})? (?:\[\d+\] )?\w{6}-\w+-\w+ (?:=>|->|>>|\*\*|==) (?!blackhole )",
    re.MULTILINE,
)


def test_public_logs(public_log: Callable[[str], Path]) -> None:
    """Each delivery line of Exim's own test logs is one row, and none is of an unknown form."""
    logs = sorted(public_log("exim/exim-testsuite").iterdir())
    assert len(logs) == 127
    total = 0
    for path in logs:
        frame = read_logs(path, timezone="UTC", year=2026)
        assert "exim: delivery line of an unknown form" not in frame.attrs["coverage"]["skipped"], path.name
        rows = frame[frame["status_word"] != "held"]
        assert len(rows) == len(_FLAGGED.findall(path.read_bytes())), path.name
        total += len(rows)
    assert total == 915


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("exim/exim_exporter/mainlog", 13),
        ("exim/logstash-patterns-core/lines.log", 1),
        ("exim/crowdsec/exim-logs__exim-logs.log", 0),
        ("exim/crowdsec/exim-syslog-logs__exim-logs.log", 0),
    ],
)
def test_public_counts(public_log: Callable[[str], Path], name: str, rows: int) -> None:
    """Logs of other tools: deliveries are counted, rejects and arrivals give none."""
    assert len(read_logs(public_log(name), timezone="UTC", year=2026)) == rows


# -- any bytes -------------------------------------------------------------------------------------------------

_TOKENS = st.sampled_from(
    [b"=>", b"->", b"**", b"==", b"<=", b"Completed", b"a@b.test", b'"a b"@c', b"<o@p>", b"F=<s>", b"R=r", b"T=t",
     b"H=mx [192.0.2.1]", b"H=mx [", b"X=TLS1.3:C:256", b"X=:", b"CV=yes", b'DN="CN=x', b'C="250 ok"', b"defer (-44)",
     b"defer (", b": SMTP error from remote mail server after DATA: 450", b": retry timeout exceeded", b"QT=1s",
     b"QT=1.2.3s", b"routing defer", b"\xff\0", b"Frozen", b"[1.2.3.4] SSL verify error: x",
     b"DANE attempt failed; TLS connection to h [1]: y", b": delivering unencrypted to H=h [1]", b"for x@y",
     b"S=1 id=m@x"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(st.lists(_TOKENS | st.binary(max_size=20), max_size=8).map(b" ".join), max_size=6),
    pieces=st.booleans(),
)
def test_any_bytes(lines: list[bytes], pieces: bool) -> None:
    """No line raises, whatever it holds, and each is counted once."""
    sink = Sink(Clock())
    reader = EximReader(sink)
    syslog = reader.source(b"h", b"exim", b"1", b"")
    assert syslog is not None
    assert syslog.feed is not None
    stamp = b"2026-11-23 16:32:22 " + ID.encode() + b" "
    mark = b"[1/2] " if pieces else b""
    for number, line in enumerate(lines, 1):
        assert reader.raw(Source(), stamp + line, 0, 2 * number - 1)
        syslog.feed(syslog, b"Nov 23 16:32:22 h exim[1]: " + mark + line, 27, 2 * number)
    reader.finish()
    counted = sum(sink.understood.values()) + sum(skip.count for skip in sink.coverage.skipped.values())
    assert counted == 2 * len(lines)


def test_one_line_is_not_multiplied(read_text: ReadText) -> None:
    """What a line says is repeated by later ones only up to a bound, and a hostile queue that thaws by none."""
    lines = [
        f"<= {'s' * 5000}@a.test U=u P=local S=1 id={'m' * 5000}@a",
        f"=> a@b.test R=r T=t H={'h' * 5000}.test [192.0.2.1] X=TLS1.3:{'C' * 5000}:256",
        "-> c@b.test R=r T=t",
        *[f"== {name}@b.test R=r T=t defer (-1): no" for name in "defg"],
        *["Frozen", "Unfrozen"] * 50,
    ]
    frame = read_text("".join(f"2026-11-23 16:32:22 {ID} {line}\n" for line in lines).encode())
    assert len(frame) == 2 + 4 + 4
    further = frame.iloc[1]
    assert [len(further[name]) for name in ("sender", "message_id", "relay_host", "cipher")] == [
        MAX_ADDRESS
    ] * 4


@settings(max_examples=50, deadline=None)
@given(order=st.permutations([0] * 10 + [1] * 10))
def test_any_interleaving(order: list[int]) -> None:
    """Messages do not disturb each other, however their lines interleave."""
    queues = [MESSAGE.splitlines(), MESSAGE.replace(ID, OLD_ID).splitlines()]
    data = "\n".join(queues[which].pop(0) for which in order).encode()
    frame = read_logs(io.BytesIO(data), timezone="UTC", year=2026)
    both = [
        frame[frame["queue_id"] == which].drop(columns=["queue_id", "line_number"]).reset_index(drop=True)
        for which in (ID, OLD_ID)
    ]
    assert len(both[0]) == 5
    pd.testing.assert_frame_equal(*both)
    assert len(read_connections(io.BytesIO(data), timezone="UTC", year=2026)) == 10
