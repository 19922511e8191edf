"""OpenSMTPD's log in its three forms, sessions tied by their id, and what "Network error" leaves untold."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read import opensmtpd
from rtls_analysis.read.log_rows import Sink, Source
from rtls_analysis.read.log_time import Clock
from rtls_analysis.read.logs import read_connections, read_logs
from rtls_analysis.read.opensmtpd import OpenSmtpdReader
from tests.read.truth import disagreements

ReadText = Callable[..., pd.DataFrame]

SID = "8c7d7fb502fbec20"
EVP = "4845cf47a6e7c8a1"
NOBODY = "0" * 16


def connecting(
    scheme: str = "smtp", host: str = "mx.b.test", address: str = "192.0.2.1", sid: str = SID
) -> str:
    """The first line of a session."""
    return f"{sid} mta connecting address={scheme}://{address}:25 host={host}"


def delivery(
    result: str = "Ok",
    stat: str = "250 2.0.0 Ok: queued",
    *,
    sid: str = SID,
    relay: str = "192.0.2.1 (mx.b.test)",
    to: str = "a@b.test",
    evpid: str = EVP,
) -> str:
    """A delivery line of 6.4 and later."""
    return (
        f'{sid} mta delivery evpid={evpid} from=<s@a.test> to=<{to}> rcpt=<-> source="192.0.2.9" relay="{relay}"'
        f' delay=1m5s result="{result}" stat="{stat}"'
    )


TLS_LINE = f"{SID} mta tls ciphers=TLSv1.3:TLS_AES_256_GCM_SHA384:256"
CHECK = SID + ' mta cert-check result="{}" fingerprint="SHA256:50bd68e4"'
DOWNGRADE = f"smtp-out: Error on session {SID}: opportunistic TLS failed, downgrading to plain"
OLD = f"relay: {{}} for {EVP}: session={SID}, from=<s@a.test>, to=<a@b.test>, rcpt=<->, source=192.0.2.9,"
OLD += " relay=192.0.2.1 (mx.b.test), delay=1m5s, stat={}"
OLD_CONNECTING = f"smtp-out: Connecting to smtp+tls://192.0.2.1:25 (mx.b.test) on session {SID}..."


def log(*lines: str) -> bytes:
    """Lines as syslog writes them."""
    return "".join(f"Nov 23 16:32:29 mta23 smtpd[43]: {line}\n" for line in lines).encode()


# Lines of a session, and what the row of its delivery says.
SESSIONS: list[tuple[str, list[str], dict[str, Any]]] = [
    (
        "verification demanded",
        [connecting("smtp+tls"), f"{SID} mta connected", TLS_LINE, CHECK.format("valid"), delivery()],
        {"tls_level": "verified", "tls_policy": "smtp+tls", "tls_version": "TLSv1.3", "cipher_bits": 256,
         "cipher": "TLS_AES_256_GCM_SHA384", "relay_host": "mx.b.test", "relay_address": "192.0.2.1", "relay_port": 25,
         "queue_id": "4845cf47", "sender": "s@a.test", "recipient": "a@b.test", "delay_seconds": 65.0, "reply_code": 250,
         "enhanced_code": "2.0.0", "status_word": "Ok", "action": "delivered", "tls_outcome": "ok",
         "requiretls": "unknown", "tls_required_no": "unknown", "message_id": None, "attempted": True},
    ),
    (
        "verification not asked for: how good the certificate is is not told",
        [connecting(), TLS_LINE, CHECK.format("unverified"), delivery()],
        {"tls_level": "encrypted", "tls_policy": "smtp"},
    ),
    (
        "no certificate; the line says smtp",
        [connecting(), TLS_LINE, f'{SID} smtp cert-check result="no certificate presented"', delivery()],
        {"tls_level": "anonymous"},
    ),
    ("STARTTLS was not offered", [connecting(), f"{SID} mta connected", delivery()], {"tls_level": "none"}),
    (
        "TLS failed, then cleartext",
        [connecting(), DOWNGRADE, connecting("smtp+notls"), delivery()],
        {"tls_level": "none", "tls_policy": "smtp+notls", "tls_outcome": "ok"},
    ),
    ("the session began before this log", [delivery()], {"tls_level": "unknown", "relay_host": "mx.b.test"}),
    (
        "its beginning is missing, its TLS is not",
        [TLS_LINE, CHECK.format("valid"), delivery()],
        {"tls_level": "verified", "tls_version": "TLSv1.3", "relay_host": "mx.b.test"},
    ),
    (
        "IPv6, a peer without a name",
        [connecting(host="<unknown>", address="[2001:DB8::1]"), delivery(relay="2001:db8::1 (<unknown>)")],
        {"relay_host": None, "relay_address": "2001:db8::1", "relay_port": 25},
    ),
    (
        "rejected",
        [connecting(), TLS_LINE, delivery("PermFail", "550 5.1.1 <a@b.test>: relay=\\\"x\\\" result=\\\"Ok\\\"")],
        {"action": "failed", "status_word": "PermFail", "reply_code": 550, "enhanced_code": "5.1.1",
         "tls_level": "encrypted", "tls_outcome": "not_tls"},
    ),
    (
        "the peer wants encryption",
        [connecting(), delivery("TempFail", "454 4.7.10 Must issue a STARTTLS command first")],
        {"action": "delayed", "tls_outcome": "peer_requires_tls", "tls_level": "none"},
    ),
    (
        "no MX: no session",
        [delivery("PermFail", "Domain does not exist", sid=NOBODY, relay="b.test")],
        {"action": "failed", "tls_level": None, "relay_host": None, "tls_outcome": "not_tls"},
    ),
    (
        "form of 6.0",
        [
            f"{SID} mta event=connecting address=smtp+tls://192.0.2.1:25 host=mx.b.test",
            f'{SID} mta event=starttls ciphers="version=TLSv1.2, cipher=ECDHE-RSA-AES256-GCM-SHA384, bits=256"',
            f'{SID} mta event=server-cert-check result="success"',
            delivery().replace("mta delivery", "mta event=delivery"),
        ],
        {"tls_level": "trusted", "tls_version": "TLSv1.2", "cipher": "ECDHE-RSA-AES256-GCM-SHA384", "cipher_bits": 256},
    ),
    (
        "form of before 6.0",
        [
            OLD_CONNECTING,
            f"smtp-out: Connected on session {SID}",
            f"smtp-out: Started TLS on session {SID}: version=TLSv1.2, cipher=AES256-SHA, bits=256",
            f"smtp-out: Server certificate verification failed on session {SID}",
            OLD.format("Ok", "250 2.0.0: Ok, queued"),
        ],
        {"tls_level": "untrusted", "tls_version": "TLSv1.2", "cipher": "AES256-SHA", "status_word": "Ok",
         "reply_text": "250 2.0.0: Ok, queued", "enhanced_code": "2.0.0", "queue_id": "4845cf47", "relay_host": "mx.b.test",
         "delay_seconds": 65.0},
    ),
    (
        "form of before 6.0, in cleartext",
        [OLD_CONNECTING, OLD.format("TempFail", "450 4.2.1 later")],
        {"tls_level": "none", "action": "delayed", "enhanced_code": "4.2.1"},
    ),
    (
        "a mailbox here",
        [f"{SID} mda delivery evpid={EVP} from=<> to=<a@b.test> rcpt=<a@b.test> user=v delay=0s result=Ok stat=Delivered"],
        {"tls_level": None, "transport": "mda", "sender": "", "action": "delivered", "reply_text": "Delivered"},
    ),
    (
        "a mailbox here, before 6.0",
        [f"delivery: Ok for {EVP}: from=<s@a.test>, to=<a@b.test>, user=v, method=maildir, delay=1s, stat=Delivered"],
        {"tls_level": None, "transport": "mda", "action": "delivered"},
    ),
    (
        "its time was up",
        [f"relay: Expire for {EVP}: from=<s@a.test>, to=<a@b.test>, rcpt=<->, delay=1m15s, stat=Envelope expired"],
        {"status_word": "expired", "attempted": False, "action": "failed", "delay_seconds": 75.0, "tls_outcome": "unknown"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "says"), [pytest.param(lines, says, id=why) for why, lines, says in SESSIONS]
)
def test_a_session(read_text: ReadText, lines: list[str], says: dict[str, Any]) -> None:
    """A delivery has the TLS of its session, whatever the version writes."""
    frame = read_text(log(*lines))
    assert len(frame) == 1
    row = frame.astype(object).where(frame.notna(), None).iloc[0]
    assert {name: row[name] for name in says} == says
    assert "opensmtpd: delivery line of an unknown form" not in frame.attrs["coverage"]["skipped"]


def test_network_error_is_untold(read_text: ReadText) -> None:
    """A host failed, and mail for a domain could not go; that this is one of its hosts stands nowhere."""
    data = log(
        connecting("smtp+tls", "mx1.b.test"),
        f"{SID} mta error reason=IO Error: certificate verification failed: certificate has expired",
        "smtp-out: Disabling route 192.0.2.9 <-> 192.0.2.1 (mx1.b.test) for 15s",
        delivery("TempFail", "Network error on destination MXs", sid=NOBODY, relay="b.test"),
        f"relay: Expire for {EVP}: from=<s@a.test>, to=<a@b.test>, rcpt=<->, delay=5d, stat=Envelope expired",
    )
    assert read_text(data)["tls_outcome"].tolist() == ["unknown", "unknown"]


@pytest.mark.parametrize(
    ("before", "relay"),
    [
        ([connecting(), delivery("TempFail", "450 later")], "b.test"),
        ([], "mx.b.test"),
    ],
    ids=["a delivery for the domain went there before", "the destination is the host"],
)
def test_network_error_that_is_tied(read_text: ReadText, before: list[str], relay: str) -> None:
    """Where the log ties the domain to the host that failed, its reason is that of the message, and of its expiry."""
    data = log(
        *before,
        connecting("smtp+tls", sid="1" * 16),
        f"{'1' * 16} mta error reason=TLS required but not supported by remote host",
        delivery("TempFail", "Network error on destination MXs", sid=NOBODY, relay=relay),
        f"relay: Expire for {EVP}: from=<s@a.test>, to=<a@b.test>, rcpt=<->, delay=5d, stat=Envelope expired",
    )
    assert read_text(data)["tls_outcome"].tolist()[len(before) // 2 :] == ["starttls_not_supported"] * 2


REASONS = [
    ("IO Error: Connection refused", None, "not_tls"),
    ("BANNER rejected: 554 5.3.2 not accepting mail", "none", "not_tls"),
    ("TLS required but not supported by remote host", "none", "starttls_not_supported"),
    ("STARTTLS rejected: 454 4.7.0 TLS not available", "none", "starttls_refused"),
    (
        "IO Error: handshake failed: error:0A000126:SSL routines::unexpected eof",
        "none",
        "tls_handshake_failed",
    ),
    (
        "IO Error: certificate verification failed: certificate has expired",
        "encrypted",
        "certificate_expired",
    ),
    (
        "IO Error: certificate verification failed: self-signed certificate",
        "encrypted",
        "certificate_not_trusted",
    ),
    (
        "IO Error: name `mx.b.test' not present in server certificate",
        "encrypted",
        "certificate_host_mismatch",
    ),
]


@pytest.mark.parametrize(("reason", "level", "outcome"), REASONS)
@pytest.mark.parametrize(
    "form", [f"{SID} mta error reason=", f"smtp-out: Error on session {SID}: "], ids=["new", "old"]
)
def test_failed_session(read_text: ReadText, form: str, reason: str, level: str | None, outcome: str) -> None:
    """A session that failed leaves no delivery line: `connections` has it with its reason."""
    frame = read_text(log(connecting("smtp+tls"), form + reason), table="connections")
    assert len(frame) == 1
    row = frame.iloc[0]
    assert (None if pd.isna(row["tls_level"]) else row["tls_level"], row["tls_outcome"]) == (level, outcome)
    assert (row["relay_host"], row["text"], row["line_number"]) == ("mx.b.test", reason, 1)


def test_connections(read_text: ReadText) -> None:
    """One row per session, under its first message; one downgraded is two; the last has no end."""
    other = "9" * 16
    data = log(
        connecting(),
        TLS_LINE,
        CHECK.format("unverified"),
        delivery(),
        delivery(evpid="ffffffffa6e7c8a1", to="c@b.test"),
        f"{SID} mta disconnected reason=quit messages=2",
        connecting(sid=SID),
        DOWNGRADE,
        connecting("smtp+notls"),
        connecting(host="mx.c.test", sid=other),
    )
    frame = read_text(data, table="connections").sort_values("line_number")
    missing = frame.astype(object).where(frame.notna(), None)
    columns = ["line_number", "queue_id", "relay_host", "tls_level", "tls_outcome"]
    assert missing[columns].to_numpy().tolist() == [
        [1, "4845cf47", "mx.b.test", "encrypted", "ok"],
        [7, None, "mx.b.test", "none", "tls_handshake_failed"],
        [9, None, "mx.b.test", "none", "ok"],
        [10, None, "mx.c.test", "none", "ok"],
    ]


def test_in_the_foreground(read_text: ReadText) -> None:
    """``smtpd -d`` writes the same lines without a tag; a container puts a stamp or a name in front."""
    lines = [connecting(), TLS_LINE, delivery()]
    plain = "".join(f"{line}\n" for line in lines).encode()
    stamped = "".join(f"2026-11-23T16:32:29.5Z {line}\n" for line in lines).encode()
    named = "".join(f"Nov 23 16:32:29 host mail-1[7]: {line}\n" for line in lines).encode()
    for data in (plain, stamped, named):
        frame = read_text(data)
        assert frame["tls_level"].tolist() == ["encrypted"]
        assert frame["mta"].tolist() == ["opensmtpd"]
    assert read_text(stamped)["logged_at"][0] == pd.Timestamp("2026-11-23T16:32:29.5Z")


# -- real logs ------------------------------------------------------------------------------------------------

_AS_LOGGED = "Network error on destination MXs"


def _untold(said: Any, row: Any) -> set[str]:
    if said["reason_text"].startswith(_AS_LOGGED):
        return {"enhanced_code"}  # of the session that failed
    return {"enhanced_code"} if said["enhanced_status"] == "5.0.0" else set()  # of the DSN


@pytest.mark.parametrize(
    ("name", "sender", "behind"),
    [("opensmtpd-opp/mail.iso.log", "opensmtpd-opp", 4), ("opensmtpd-tls/mail.log", "opensmtpd-tls", 32)],
)
def test_truth(
    lab_log: Callable[[str], Path],
    truth: Callable[[str], list[dict[str, str]]],
    name: str,
    sender: str,
    behind: int,
) -> None:
    """Every recipient of the lab's senders; behind a network error the log tells of no reason."""
    frame = read_logs(lab_log(f"opensmtpd-7.9.0p0/{name}"), timezone="UTC", year=2026)
    rows = truth(sender)
    told = [said for said in rows if not said["reason_text"].startswith(_AS_LOGGED)]
    rest = [said for said in rows if said["reason_text"].startswith(_AS_LOGGED)]
    assert disagreements(frame, told, untold=_untold) == []
    assert len(rest) == behind
    unknown = {said["reason_category"]: frozenset({"unknown"}) for said in rest}
    assert disagreements(frame, rest, untold=_untold, tls_outcome=unknown) == []


def test_public_log_of_the_old_form(public_log: Callable[[str], Path]) -> None:
    """Inbound lines of before 6.0 are no delivery attempts and no outbound sessions."""
    path = public_log("opensmtpd/ossec/lines.log")
    frame = read_logs(path, timezone="UTC", year=2026)
    assert frame.empty
    assert frame.attrs["coverage"]["skipped"]["opensmtpd: no delivery"]["count"] == 7
    assert read_connections(path, timezone="UTC", year=2026).empty


# -- any bytes -------------------------------------------------------------------------------------------------

_LINES = st.sampled_from([line for _why, lines, _says in SESSIONS for line in lines])


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(
        st.tuples(_LINES, st.integers(0, 200), st.binary(max_size=10)).map(
            lambda part: part[0].encode()[: part[1]] + part[2] + part[0].encode()[part[1] :]
        )
        | st.tuples(_LINES, st.integers(0, 250)).map(lambda part: part[0].encode()[: part[1]])
        | st.binary(max_size=40),
        max_size=8,
    )
)
def test_any_bytes(lines: list[bytes]) -> None:
    """No line raises, cut or spoilt anywhere, and each is counted once."""
    sink = Sink(Clock())
    reader = OpenSmtpdReader(sink)
    source = reader.source(b"h", b"smtpd", b"1", b"")
    assert source is not None
    assert source.feed is not None
    taken = 0
    for number, line in enumerate(lines, 1):
        source.feed(source, b"Nov 23 16:32:29 h smtpd[1]: " + line, 28, 2 * number - 1)
        taken += reader.raw(Source(), line, 0, 2 * number)
    reader.finish()
    counted = sum(sink.understood.values()) + sum(skip.count for skip in sink.coverage.skipped.values())
    assert counted == len(lines) + taken


def test_sessions_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions whose end never comes are given up, the oldest first, whatever their first line was."""
    monkeypatch.setattr(opensmtpd, "MAX_SESSIONS", 8)
    sink = Sink(Clock())
    reader = OpenSmtpdReader(sink)
    for number in range(1, 101):
        line = (
            f"{number:016x} mta tls ciphers=TLSv1.3:C:256" if number % 2 else connecting(sid=f"{number:016x}")
        )
        assert reader.raw(Source(), line.encode(), 0, number)
    (server,) = reader.servers.values()
    assert len(server.sessions) <= 8
    assert f"{100:016x}".encode() in server.sessions


@settings(max_examples=50, deadline=None)
@given(order=st.permutations([0] * 5 + [1] * 5))
def test_any_interleaving(order: list[int]) -> None:
    """Sessions do not disturb each other, however their lines interleave."""
    lines = [
        connecting("smtp+tls"),
        TLS_LINE,
        CHECK.format("valid"),
        delivery(),
        f"{SID} mta disconnected reason=quit",
    ]
    queues = [[line.replace(SID, sid) for line in lines] for sid in (SID, "f" * 16)]
    data = log(*(queues[which].pop(0) for which in order))
    for read in (read_logs, read_connections):
        frame = read(io.BytesIO(data), timezone="UTC", year=2026)
        frame = frame.drop(columns=["line_number", "source_file"])
        assert len(frame) == 2
        pd.testing.assert_series_equal(frame.iloc[0], frame.iloc[1], check_names=False)
        assert frame["tls_level"].tolist() == ["verified", "verified"]
