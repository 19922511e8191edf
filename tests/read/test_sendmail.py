"""Sendmail's log: TLS lines tied to deliveries by process and relay, and what the words of a ruleset mean."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read.log_rows import Sink
from rtls_analysis.read.log_time import Clock
from rtls_analysis.read.logs import read_connections, read_logs
from rtls_analysis.read.sendmail import MAX_RECIPIENTS, MAX_TEXT, SendmailReader
from tests.read.truth import disagreements

ReadText = Callable[..., pd.DataFrame]

MX = "mx.b.test. [192.0.2.1]"
TLS = "STARTTLS=client, relay=mx.b.test., version=TLSv1.3, verify={}, cipher=TLS_AES_256_GCM_SHA384, bits=256/256"
BROKEN = "STARTTLS=client, error: connect failed=-1, reason=unexpected eof while reading, SSL_error=1, errno=0, retry=-1"
REJECT = "ruleset=tls_server, arg1={}, relay=mx.b.test, reject=454 4.7.0 {}"


def to(
    queue_id: str = "6ANGWTP1000076",
    *,
    who: str = "<a@b.test>",
    relay: str = MX,
    dsn: str = "2.0.0",
    stat: str = "Sent (Ok: queued)",
    reply: str = "",
) -> str:
    """A delivery line."""
    reply = f", reply={reply}" if reply else ""
    return (
        f"{queue_id}: to={who}, delay=1+00:01:05, xdelay=00:00:01, mailer=esmtp, pri=30309, relay={relay}, dsn={dsn}"
        f"{reply}, stat={stat}"
    )


def log(*lines: str, pid: int = 78) -> bytes:
    """Lines of one process."""
    return "".join(f"Nov 23 16:32:30 mta sm-mta[{pid}]: {line}\n" for line in lines).encode()


def deferred(text: str) -> str:
    """A delivery line of a refusal by Sendmail itself."""
    return to(dsn="4.7.0", stat=f"Deferred: 454 4.7.0 {text}")


# Lines of one process, and what the last row says of TLS.
ATTEMPTS: list[tuple[str, list[str], str | None, str]] = [
    ("TLSA records matched", [TLS.format("TRUSTED"), to()], "verified", "ok"),
    ("the chain was checked, the name was not", [TLS.format("OK"), to()], "trusted", "ok"),
    ("not verifiable, sent all the same", [TLS.format("FAIL"), to()], "untrusted", "ok"),
    ("no certificate shown", [TLS.format("NO"), to()], "anonymous", "ok"),
    ("none asked for", [TLS.format("NOT"), to()], "encrypted", "ok"),
    ("another process has TLS, this one has not", [TLS.format("OK").replace("client", "server"), to()], "none", "ok"),
    ("nothing in the log shows TLS", [to()], "unknown", "ok"),
    ("handshake broke, then cleartext", [BROKEN, to()], "none", "ok"),
    (
        "handshake broke",
        [BROKEN, REJECT.format("SOFTWARE", "TLS handshake failed."), deferred("TLS handshake failed.")],
        "none", "tls_handshake_failed",
    ),
    (
        "STARTTLS not offered",
        [REJECT.format("NONE", "other side does not support STARTTLS"), deferred("other side does not support STARTTLS")],
        "none", "starttls_not_supported",
    ),
    (
        "STARTTLS refused, and the words are those of a bad certificate",
        [REJECT.format("TEMP", "authentication failure "), deferred("authentication failure ")],
        "none", "starttls_refused",
    ),
    (
        "certificate not accepted",
        [TLS.format("FAIL"), REJECT.format("FAIL", "authentication failed"), deferred("authentication failed")],
        "untrusted", "certificate_unverified",
    ),
    (
        "certificate not accepted, its reason shown at log level 10",
        [
            "STARTTLS=client, cert-subject=/CN=mx.b.test, cert-issuer=/CN=x, verifymsg=certificate has expired",
            TLS.format("FAIL"), REJECT.format("FAIL", "authentication failed"), deferred("authentication failed"),
        ],
        "untrusted", "certificate_expired",
    ),
    (
        "no TLSA record matched, in the words of the access map",
        [TLS.format("DANE_FAIL"), REJECT.format("DANE_FAIL", "authentication failure "), deferred("authentication failure ")],
        "untrusted", "tlsa_invalid",
    ),
    (
        "no TLSA record matched, found by the recipient's ruleset",
        [
            TLS.format("DANE_FAIL"),
            "6ANGWTP1000076: ruleset=tls_rcpt, arg1=a@b.test, relay=mx.b.test., reject=454 4.7.0 DANE check failed.",
            to(dsn="4.0.0", stat="Deferred: 454 4.7.0 DANE check failed."),
        ],
        "untrusted", "tlsa_invalid",
    ),
    (
        "TLSA records, but STARTTLS not offered",
        [
            "STARTTLS=client, relay=mx.b.test, warning=DANE configured in DNS but STARTTLS not offered",
            "6ANGWTP1000076: ruleset=tls_rcpt, arg1=a@b.test, relay=mx.b.test., reject=454 4.7.0 DANE: missing STARTTLS.",
            to(dsn="4.0.0", stat="Deferred: 454 4.7.0 DANE: missing STARTTLS."),
        ],
        "none", "starttls_not_supported",
    ),
    (
        "TLSA records, but STARTTLS refused",
        [
            "STARTTLS=client, relay=mx.b.test, warning=DANE configured in DNS but STARTTLS failed",
            "6ANGWTP1000076: ruleset=tls_rcpt, arg1=a@b.test, relay=mx.b.test., reject=454 4.7.0 DANE check failed"
            " temporarily.",
            to(dsn="4.0.0", stat="Deferred: 454 4.7.0 DANE check failed temporarily."),
        ],
        "none", "starttls_refused",
    ),
    (
        "TLSA records could not be had: no connection",
        [to(relay="mx.b.test.", dsn="4.0.0", stat="Deferred: Name server: mx.b.test.: host name lookup failure for TLSA RR")],
        None, "dnssec_invalid",
    ),
    (
        "cleartext where the access map demands bits",
        [
            TLS.format("OK").replace("mx.b", "mx.c"),
            REJECT.format("NONE", "encryption too weak 0 less than 112"),
            deferred("encryption too weak 0 less than 112"),
        ],
        "none", "starttls_not_supported",
    ),
    (
        "nobody listens: no session",
        [TLS.format("OK").replace("mx.b", "mx.c"), to(dsn="4.4.1", stat="Deferred: Connection refused by mx.b.test.")],
        None, "not_tls",
    ),
    (
        "the peer wants encryption, whatever the word is for it",
        [to(dsn="5.7.10", reply="550 5.7.10 Encryption needed", stat="Service unavailable")],
        "unknown", "peer_requires_tls",
    ),
    (
        "a rejection for policy is worded as a user unknown",
        [
            TLS.format("TRUSTED"),
            to(dsn="5.7.1", reply="550 5.7.1 see our TLS and mail policy page", stat="User unknown"),
        ],
        "verified", "not_tls",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "level", "outcome"), [pytest.param(*rest, id=why) for why, *rest in ATTEMPTS]
)
def test_tls_of_an_attempt(read_text: ReadText, lines: list[str], level: str | None, outcome: str) -> None:
    """TLS lines and rejections by rulesets belong to the delivery behind them."""
    row = read_text(log(*lines)).iloc[-1]
    assert (None if pd.isna(row["tls_level"]) else row["tls_level"]) == level
    assert row["tls_outcome"] == outcome


def test_a_delivery_line(read_text: ReadText) -> None:
    """Everything that a delivery and its arrival and TLS lines say."""
    data = log(
        "6ANGWTP1000076: from=<s@a.test>, size=309, class=0, nrcpts=1, msgid=<m@a.test>, proto=ESMTPS, daemon=MTA, relay=c",
        TLS.format("OK").replace("TLSv1.3", "TLSv1.2"),
        to(stat="Sent (2.0.0 Ok, queued: as X)"),
    )
    row = read_text(data).iloc[0]
    says = {
        "queue_id": "6ANGWTP1000076", "message_id": "m@a.test", "sender": "s@a.test", "recipient": "a@b.test",
        "relay_host": "mx.b.test", "relay_address": "192.0.2.1", "transport": "esmtp", "attempted": True,
        "action": "delivered", "status_word": "Sent", "enhanced_code": "2.0.0",
        "reply_text": "2.0.0 Ok, queued: as X", "delay_seconds": 86465.0, "tls_version": "TLSv1.2",
        "cipher": "TLS_AES_256_GCM_SHA384", "cipher_bits": 256, "requiretls": "unknown", "tls_required_no": "unknown",
        "reporting_host": "mta", "mta": "sendmail", "line_number": 3,
    }  # fmt: skip
    assert {name: row[name] for name in says} == says
    assert row["logged_at"] == pd.Timestamp("2026-11-23T16:32:30Z")


def test_version_of_old_logs(read_text: ReadText) -> None:
    """``TLSv1/SSLv3`` of before 8.15 names no single version; IPv6 relays have a mark before the address."""
    data = log(
        TLS.format("FAIL").replace("TLSv1.3", "TLSv1/SSLv3").replace("TLS_AES_256_GCM_SHA384", "AES128-SHA"),
        to("pAT79aTa018531", relay="mx.b.test. [IPv6:2001:DB8::1b]"),
    )
    row = read_text(data).iloc[0]
    assert pd.isna(row["tls_version"])
    assert (row["cipher"], row["relay_address"]) == ("AES128-SHA", "2001:db8::1b")


RECIPIENTS = [
    ("<a@b.test>,<c@d.test>", ["a@b.test", "c@d.test"]),
    ("<a@b.test>,<c@d.test> [more], ctladdr=<o@e.test> (1/0)", ["a@b.test", "c@d.test"]),
    ("a@b.test,c@d.test", ["a@b.test", "c@d.test"]),
    ("postmaster, ctladdr=root (0/0)", ["postmaster"]),
    ("/var/mail/x.mbox, ctladdr=<o@e.test> (1/0)", ["o@e.test"]),
    ('"|/usr/bin/procmail -a x", ctladdr=<o@e.test> (1/0)', ["o@e.test"]),
    ("<a,b@c.test>,<d@e.test>", ["a,b@c.test", "d@e.test"]),
]


@pytest.mark.parametrize(("who", "recipients"), RECIPIENTS)
def test_recipients(read_text: ReadText, who: str, recipients: list[str]) -> None:
    """One line, one row per recipient, the commas in addresses left alone."""
    frame = read_text(log(to(who=who)))
    assert frame["recipient"].tolist() == recipients
    assert frame["action"].tolist() == ["delivered"] * len(recipients)


def test_cached_connection(read_text: ReadText) -> None:
    """A cached connection keeps its TLS from message to message, until the process turns to another relay."""
    other = "mx.c.test. [192.0.2.2]"
    data = log(TLS.format("OK"), to("A" * 14), to("B" * 14), to("C" * 14, relay=other), to("D" * 14))
    frame = read_text(data)
    assert frame["tls_level"].tolist() == ["trusted", "trusted", "none", "unknown"]
    connections = read_text(data, table="connections")
    assert connections["queue_id"].tolist() == ["A" * 14, "B" * 14, "C" * 14, "D" * 14]
    assert [None if pd.isna(reused) else bool(reused) for reused in connections["reused"]] == [
        False,
        True,
        None,
        None,
    ]


def test_connection_kept_no_longer(read_text: ReadText) -> None:
    """After ten minutes without a delivery the same process id is not thought to hold its connection."""
    late = log(to("B" * 14)).replace(b"16:32", b"16:45")
    assert read_text(log(TLS.format("OK"), to("A" * 14)) + late)["tls_level"].tolist() == ["trusted", "none"]


def test_processes_interleave(read_text: ReadText) -> None:
    """A TLS line is for its own process only."""
    first = log(TLS.format("TRUSTED"), to("A" * 14), pid=1).splitlines(keepends=True)
    second = log(TLS.format("FAIL"), to("B" * 14), pid=2).splitlines(keepends=True)
    frame = read_text(first[0] + second[0] + first[1] + second[1])
    assert frame["tls_level"].tolist() == ["verified", "untrusted"]


def test_shortened_relay(read_text: ReadText) -> None:
    """Delivery lines cut the middle out of long relay names; the TLS line of the same process has it whole."""
    name = "mta15.out-pf-oppstarttls.northgate.test"
    tls = TLS.format("OK").replace("mx.b.test", name)
    row = read_text(log(tls, to(relay="mta15.out-pf-oppst...ls.northgate.test. [192.0.2.15]"))).iloc[0]
    assert (row["relay_host"], row["tls_level"]) == (name, "trusted")


def test_host_that_failed_before(read_text: ReadText) -> None:
    """A queue run does not try a host again that failed it; such a row is no attempt and keeps the last reason."""
    failed = [
        TLS.format("FAIL"),
        REJECT.format("FAIL", "authentication failed"),
        deferred("authentication failed"),
    ]
    other = to("B" * 14, relay="mx.b.test.", dsn="4.0.0", stat="Deferred")
    give_up = "{0}: 6ANGXaLe000307: sender notify: Cannot send message for 5 days"
    frame = read_text(log(*failed, other, give_up.format("6ANGWTP1000076"), give_up.format("B" * 14)))
    assert frame["attempted"].tolist() == [True, False, False, False]
    assert frame["tls_outcome"].tolist() == ["certificate_unverified"] * 4
    assert frame["status_word"].tolist() == ["Deferred", "Deferred", "expired", "expired"]
    assert frame["enhanced_code"].tolist() == ["4.7.0", "4.0.0", "4.7.0", "4.0.0"]
    assert frame["action"].tolist() == ["delayed", "delayed", "failed", "failed"]


def test_expired_recipients(read_text: ReadText) -> None:
    """Only recipients still open expire; a warning to the sender is no end; an unknown one is a row all the same."""
    data = log(
        to(
            "A" * 14,
            who="<a@b.test>,<c@b.test>,<e@b.test>",
            dsn="4.4.1",
            stat="Deferred: Connection refused by mx.b.test.",
        ),
        to("A" * 14, who="<c@b.test>"),
        "A" * 14 + ": B00000000000000: sender notify: Warning: could not send message for past 4 hours",
        "A" * 14 + ": B00000000000001: DSN: Cannot send message for 1 minute, 15 seconds",
        "C" * 14 + ": B00000000000002: return to sender: Cannot send message within 5 days",
    )
    frame = read_text(data)
    expired = frame[frame["status_word"] == "expired"]
    assert [None if pd.isna(who) else who for who in expired["recipient"]] == ["a@b.test", "e@b.test", None]
    assert expired["tls_outcome"].tolist() == ["not_tls", "not_tls", "unknown"]
    assert expired["attempted"].tolist() == [False] * 3


def test_held_and_queued(read_text: ReadText) -> None:
    """Quarantined mail is held; mail that was only queued was not tried."""
    frame = read_text(
        log(
            "A0000000000000: to=<a@b.test>, delay=00:00:00, mailer=esmtp, pri=1, quarantine=virus, stat=quarantined",
            "B0000000000000: to=<a@b.test>, delay=00:00:00, mailer=esmtp, pri=1, dsn=4.4.3, stat=queued",
        )
    )
    assert frame["status_word"].tolist() == ["held", "queued"]
    assert frame["attempted"].tolist() == [False, False]
    assert frame["action"].tolist() == ["delayed", "delayed"]


def test_two_hops_on_one_host(read_text: ReadText) -> None:
    """The submission program hands over to the daemon under a second id; TLS between them is tied by the address."""
    data = log(
        "x89Bx1VC007420: from=root, size=9, class=0, nrcpts=1, msgid=<m@h>, relay=root@localhost",
        TLS.format("FAIL").replace("mx.b.test.", "[127.0.0.1]"),
        to(
            "x89Bx1VC007420",
            relay="[127.0.0.1] [127.0.0.1]",
            stat="Sent (x89Bx1iP007421 Message accepted for delivery)",
        ),
    ).replace(b"sm-mta", b"sendmail")
    row = read_text(data).iloc[0]
    assert (row["relay_address"], row["tls_level"], row["sender"]) == ("127.0.0.1", "untrusted", "root")
    assert pd.isna(row["relay_host"])


def test_split_envelope(read_text: ReadText) -> None:
    """A copy of a message for other recipients keeps the id that the server gave first."""
    data = log(
        "A0000000000000: from=<s@a.test>, size=9, class=0, nrcpts=2, msgid=<m@h>, relay=c",
        "A0000000000001: clone A0000000000000, owner=<list-owner@a.test>",
        to("A0000000000001"),
    )
    row = read_text(data).iloc[0]
    assert (row["queue_id"], row["message_id"]) == ("A0000000000000", "m@h")


def test_connections(read_text: ReadText) -> None:
    """Each connection is a row once, under its message; one that no delivery followed is a row too."""
    data = log(
        TLS.format("FAIL"),
        REJECT.format("FAIL", "authentication failed"),
        TLS.format("OK").replace("mx.b", "mx2.b"),
        to("A" * 14, relay="mx2.b.test. [192.0.2.2]"),
        BROKEN,
        REJECT.format("SOFTWARE", "TLS handshake failed."),
        deferred("TLS handshake failed."),
        to("B" * 14, relay="mx4.b.test. [192.0.2.4]"),
        TLS.format("TRUSTED").replace("mx.b", "mx5.b"),
    )
    frame = read_text(data, table="connections")
    missing = frame.astype(object).where(frame.notna(), None)
    columns = ["line_number", "queue_id", "relay_host", "relay_address", "tls_level", "tls_outcome"]
    assert missing[columns].to_numpy().tolist() == [
        [1, "A" * 14, "mx.b.test", None, "untrusted", "certificate_unverified"],
        [3, "A" * 14, "mx2.b.test", "192.0.2.2", "trusted", "ok"],
        [5, "6ANGWTP1000076", "mx.b.test", "192.0.2.1", "none", "tls_handshake_failed"],
        [8, "B" * 14, "mx4.b.test", "192.0.2.4", "none", "ok"],
        [9, None, "mx5.b.test", None, "verified", "ok"],
    ]


@pytest.mark.parametrize("tag", ["sendmail", "sm-mta", "sm-msp-queue", "mailer-of-mine"])
def test_names(read_text: ReadText, tag: str) -> None:
    """Every name that Sendmail's programs log under, and others whose first line proves it."""
    assert len(read_text(log(to()).replace(b"sm-mta", tag.encode()))) == 1


def test_beside_postfix(read_text: ReadText) -> None:
    """Lines of both servers in one file: each goes to its reader."""
    postfix = (
        b"Nov 23 16:32:30 mta postfix/smtp[78]: 2D8A8258641: to=<p@b.test>, relay=mx.b.test[192.0.2.1]:25, delay=0.2,"
        b" delays=0/0/0/0.2, dsn=2.0.0, status=sent (250 ok)\n"
    )
    frame = read_text(log(TLS.format("OK")) + postfix + log(to()))
    assert frame["mta"].tolist() == ["postfix", "sendmail"]
    assert frame["tls_level"].tolist() == ["unknown", "trusted"]


# -- real logs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sender"),
    [("sendmail-opp/mail.iso.log", "sendmail-opp"), ("sendmail-verify/mail.log", "sendmail-verify")],
)
def test_truth(
    lab_log: Callable[[str], Path], truth: Callable[[str], list[dict[str, str]]], name: str, sender: str
) -> None:
    """Every recipient of the lab's Sendmail senders, without an exception."""
    frame = read_logs(lab_log(f"sendmail-8.18.2/{name}"), timezone="UTC", year=2026)
    assert disagreements(frame, truth(sender)) == []


@pytest.mark.parametrize("name", ["sendmail/fail2ban/sendmail-auth", "sendmail/fail2ban/sendmail-reject"])
def test_negative_controls(public_log: Callable[[str], Path], name: str) -> None:
    """Inbound rejects are no delivery attempts."""
    frame = read_logs(public_log(name), timezone="UTC", year=2026)
    assert frame.empty
    assert read_connections(public_log(name), timezone="UTC", year=2026).empty
    assert frame.attrs["coverage"]["skipped"]["sendmail: no delivery"]["count"] > 0


# -- any bytes -------------------------------------------------------------------------------------------------

_PIECES = st.sampled_from(
    [b"to=<a@b.test>,<c@d>", b"to=", b", ctladdr=<o@e> (1/0)", b", delay=00:00:01", b", delay=1+00:00:01",
     b", xdelay=00:00:01", b", mailer=esmtp", b", pri=1", b", relay=mx. [192.0.2.1]", b", relay=mx...x. [1]", b", relay=mx.",
     b", dsn=4.7.0", b", dsn=2.0.0", b", reply=550 5.1.1 no", b", stat=Sent (ok)", b", stat=Deferred", b", stat=Deferred: x",
     b"from=<s>", b", size=1", b", msgid=<m>", b"STARTTLS=client, relay=mx., version=TLSv1.3, verify=OK, cipher=C",
     b"STARTTLS=client, error: connect failed=-1", b"ruleset=tls_server, arg1=FAIL, relay=mx, reject=454 x",
     b"STARTTLS=client, relay=mx, warning=DANE configured in DNS but STARTTLS failed", b"\xff\0",
     b"B00000000000000: DSN: Cannot send message for 1 day", b"clone A00000000000000, owner=x"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(
        st.tuples(
            st.booleans(), st.booleans(), st.lists(_PIECES | st.binary(max_size=20), max_size=9).map(b"".join)
        ),
        max_size=8,
    )
)
def test_any_bytes(lines: list[tuple[bool, bool, bytes]]) -> None:
    """No line raises, whatever it holds and whatever came before it, and each is counted once."""
    sink = Sink(Clock())
    reader = SendmailReader(sink)
    sources = [reader.source(b"h", b"sendmail", pid, b"") for pid in (b"1", b"2")]
    head = b"Nov 23 16:32:30 h sendmail[1]: "
    for number, (second, with_id, text) in enumerate(lines, 1):
        source = sources[second]
        assert source is not None
        assert source.feed is not None
        source.feed(source, head + b"A00000000000000: " * with_id + text, len(head), number)
    reader.finish()
    counted = sum(sink.understood.values()) + sum(skip.count for skip in sink.coverage.skipped.values())
    assert counted == len(lines)


def test_one_line_is_not_multiplied(read_text: ReadText) -> None:
    """What many recipients share, and how many they are, has a bound."""
    line = to(stat="Deferred: " + "x" * 5000, who=",".join(["<a@b.test>"] * (MAX_RECIPIENTS + 1)))
    frame = read_text(log(line))
    assert len(frame) == MAX_RECIPIENTS
    assert frame["reply_text"].str.len().unique().tolist() == [MAX_TEXT]


@settings(max_examples=50, deadline=None)
@given(order=st.permutations([0] * 5 + [1] * 5))
def test_any_interleaving(order: list[int]) -> None:
    """Processes do not disturb each other, however their lines interleave."""
    queues: list[list[bytes]] = []
    for pid in (1, 2):
        queue_id = str(pid) * 14
        lines = log(
            f"{queue_id}: from=<s@a.test>, size=309, class=0, nrcpts=1, msgid=<m@a.test>, relay=c",
            TLS.format("FAIL"),
            REJECT.format("FAIL", "authentication failed"),
            TLS.format("OK").replace("mx.b", "mx2.b"),
            to(queue_id, relay="mx2.b.test. [192.0.2.2]"),
            pid=pid,
        )
        queues.append(lines.splitlines(keepends=True))
    data = b"".join(queues[which].pop(0) for which in order)
    rows: list[list[Any]] = []
    for read in (read_logs, read_connections):
        frame = read(io.BytesIO(data), timezone="UTC", year=2026).drop(columns=["line_number"])
        ids = frame.pop("queue_id")
        frame = frame.drop(columns=["process_id"], errors="ignore")
        first, second = (frame[ids == str(pid) * 14].reset_index(drop=True) for pid in (1, 2))
        pd.testing.assert_frame_equal(first, second)
        rows.append(first["tls_outcome"].tolist())
    assert rows == [["ok"], ["certificate_unverified", "ok"]]
