"""Haraka's log in its three forms: whom a result is for, with which TLS, and why a mail did not go."""

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

from rtls_analysis.read import haraka
from rtls_analysis.read.haraka import HarakaReader
from rtls_analysis.read.log_rows import Sink, Source
from rtls_analysis.read.log_time import Clock
from rtls_analysis.read.logs import read_connections, read_logs
from tests.read.truth import disagreements

ReadText = Callable[..., pd.DataFrame]

UUID = "BC4D8559-FDAB-45CA-9D30-41A897F1EBC5.3"
STAMP = "2026-11-23T16:32:35.215Z "


def core(text: str, uuid: str = UUID) -> str:
    """A line of a connection."""
    return f"{STAMP}[NOTICE] [{uuid}] [core] {text}"


def out(text: str, place: int = 1, uuid: str = UUID) -> str:
    """A line of a mail on its way out."""
    return f"{STAMP}[INFO] [{uuid}.{place}] [outbound] {text}"


def received(*recipients: str, uuid: str = UUID) -> list[str]:
    """The lines of a message's arrival."""
    return [
        core('sender <s@a.test> code=CONT msg=""', uuid),
        *(core(f'recipient <{recipient}> code=OK msg="" sender=s@a.test', uuid) for recipient in recipients),
        core(f'message mid=<m@a.test> size=3 rcpts={len(recipients)}/0/0 delay=0 code=CONT msg=""', uuid),
    ]


def secured(verified: bool, error: str = "") -> str:
    """What was negotiated."""
    error = f" error={error}" if error else ""
    return out(
        f"secured verified={str(verified).lower()} cipher=TLS_AES_256_GCM_SHA384 version=TLSv1.3{error} cn=mx.b.test"
        ' organization="" issuer="" expires="Feb 11 16:31:24 2027 GMT" fingerprint=7D:2A'
    )


def delivered(tls: str = "Y", rcpts: str = "1/0/0", place: int = 1, domain: str = "b.test") -> str:
    """A result line."""
    return out(
        f" delivered file=1795_0 domain={domain} host=mx.{domain} ip=192.0.2.{place} port=25 mode=SMTP tls={tls} auth=N"
        f' response="Ok: \\"queued\\" as 29 tls=N" delay=0.111 fails=0 rcpts={rcpts}',
        place,
    )


def log(*lines: str | list[str]) -> bytes:
    """Lines of standard output."""
    flat = [line for part in lines for line in ([part] if isinstance(part, str) else part)]
    return "".join(f"{line}\n" for line in flat).encode()


def tried_all(text: str) -> list[str]:
    """A server that failed, the only one of its domain."""
    return [
        f"{STAMP}[ERROR] [{UUID}.1] [outbound] Ongoing connection failed to 192.0.2.1:25 : {text}",
        out("Temp failing 1795_0 for 8 seconds: Tried all MXs"),
    ]


# The lines of a try, and what its row says: action, level, outcome.
TRIES: list[tuple[str, list[str], str, str | None, str]] = [
    ("a good certificate", [secured(True), delivered()], "delivered", "trusted", "ok"),
    ("a bad one, sent all the same", [secured(False, "CERT_HAS_EXPIRED"), delivered()], "delivered", "untrusted", "ok"),
    ("TLS, and a log level that hides which", [delivered()], "delivered", "encrypted", "ok"),
    ("cleartext", [delivered("N")], "delivered", "none", "ok"),
    (
        "recipient put off",
        [secured(True), out("recipient <a@b.test> deferred: 451 4.7.1 Greylisted"),
         out("Temp failing 1795_0 for 8 seconds: Some recipients temp failed: <a@b.test>")],
        "delayed", "trusted", "not_tls",
    ),
    (
        "recipient rejected, and nothing shows TLS",
        [out("recipient <a@b.test> rejected: 550 5.1.1 <a@b.test>: no"), out("bouncing mail: Some recipients failed: <a@b.test>")],
        "failed", "unknown", "not_tls",
    ),
    (
        "the peer wants encryption",
        [secured(True), out("bouncing mail: 550 5.7.10 Encryption needed")],
        "failed", "trusted", "peer_requires_tls",
    ),
    (
        "STARTTLS refused",
        [out("Temp failing 1795_0 for 8 seconds: Upstream error: 454 4.7.0 TLS not available due to temporary reason")],
        "delayed", "none", "starttls_refused",
    ),
    (
        "STARTTLS not offered, but required",
        [out("Temp failing 1795_0 for 8 seconds: No TLS available but required by configuration.")],
        "delayed", "none", "starttls_not_supported",
    ),
    (
        "certificate refused after the handshake",
        [secured(False, "DEPTH_ZERO_SELF_SIGNED_CERT"),
         out("Temp failing 1795_0 for 8 seconds: Host failed TLS verification required by configuration.")],
        "delayed", "untrusted", "certificate_not_trusted",
    ),
    ("expired", tried_all("Error: certificate has expired"), "delayed", "encrypted", "certificate_expired"),
    (
        "another name",
        tried_all("Error [ERR_TLS_CERT_ALTNAME_INVALID]: Hostname/IP does not match certificate's altnames: Host: mx.b.test."),
        "delayed", "encrypted", "certificate_host_mismatch",
    ),
    (
        "the handshake broke",
        tried_all("Error: Client network socket disconnected before secure TLS connection was established"),
        "delayed", "none", "tls_handshake_failed",
    ),
    ("the handshake stalled", tried_all("socket timeout waiting on starttls"), "delayed", "none", "tls_handshake_failed"),
    ("no greeting", tried_all("socket timeout waiting on connect"), "delayed", "none", "not_tls"),
    (
        "nobody listens",
        [out("Failed to get socket: connect ECONNREFUSED 192.0.2.1:25"), out("Temp failing 1795_0 for 8 seconds: Tried all MXs")],
        "delayed", None, "not_tls",
    ),
    ("servers failed, and no line tells how", [out("Temp failing 1795_0 for 8 seconds: Tried all MXs")], "delayed", None, "unknown"),
    (
        "no such domain",
        [out("bouncing mail: Nowhere to deliver mail to for domain: b.test")],
        "failed", None, "not_tls",
    ),
    ("null MX", [out("bouncing mail: Domain b.test sends and receives no email (NULL MX)")], "failed", None, "not_tls"),
    (
        "a garbled reply, to which command is not told",
        [out("bouncing mail: Unrecognized response from upstream server: HTTP/1.0 400 Bad Request  ")],
        "failed", "unknown", "unknown",
    ),
    (
        "a garbled reply, over TLS",
        [secured(True), out("bouncing mail: Unrecognized response from upstream server: HTTP/1.0 400 Bad Request  ")],
        "failed", "trusted", "not_tls",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "action", "level", "outcome"), [pytest.param(*rest, id=why) for why, *rest in TRIES]
)
def test_a_try(read_text: ReadText, lines: list[str], action: str, level: str | None, outcome: str) -> None:
    """A try is one row, with the TLS that the lines before it show and the reason of the last server."""
    frame = read_text(log(received("a@b.test"), lines))
    assert len(frame) == 1
    row = frame.astype(object).where(frame.notna(), None).iloc[0]
    assert (row["action"], row["tls_level"], row["tls_outcome"]) == (action, level, outcome)
    assert (row["recipient"], row["sender"], row["message_id"]) == ("a@b.test", "s@a.test", "m@a.test")
    assert row["queue_id"] == UUID


# The three forms as Haraka 3.3.4 writes them, of one mail.
FORMS = {
    "default": """\
[NOTICE] [{0}] [core] sender <s@a.test> code=CONT msg=""
[NOTICE] [{0}] [core] recipient <a@b.test> code=OK msg="" sender=s@a.test
[NOTICE] [{0}] [core] recipient <c@b.test> code=OK msg="" sender=s@a.test
[NOTICE] [{0}] [core] message mid=<m@a.test> size=3 rcpts=2/0/0 delay=0 code=CONT msg=""
[INFO] [{0}.1] [outbound] secured verified=false cipher=TLS_AES_256_GCM_SHA384 version=TLSv1.3 error=CERT_HAS_EXPIRED cn=mx.b.test organization="" expires="Nov 13 16:31:24 2026 GMT"
[NOTICE] [{0}.1] [outbound] recipient <a@b.test> deferred: 451 4.7.1 "x" Greylisted
[NOTICE] [{0}.1] [outbound]  delivered file=123_x domain=b.test host=mx.b.test ip=192.0.2.1 port=25 mode=SMTP tls=Y auth=N response="Ok: \\"queued\\" as 29 tls=N" delay=0.111 fails=0 rcpts=1/1/0
[ERROR] [{0}.1] [outbound] Ongoing connection failed to 192.0.2.1:25 : Error: certificate has expired
[INFO] [{0}.1] [outbound] bouncing mail: Too many failures (Tried all MXs)
""",
    "logfmt": """\
level=NOTICE uuid={0} origin=core message="sender <s@a.test>" code=CONT msg=""
level=NOTICE uuid={0} origin=core message="recipient <a@b.test>" code=OK msg="" sender=s@a.test
level=NOTICE uuid={0} origin=core message="recipient <c@b.test>" code=OK msg="" sender=s@a.test
level=NOTICE uuid={0} origin=core message=message mid=<m@a.test> size=3 rcpts=2/0/0 delay=0 code=CONT msg=""
level=INFO uuid={0}.1 origin=outbound message=secured verified=false cipher=TLS_AES_256_GCM_SHA384 version=TLSv1.3 error=CERT_HAS_EXPIRED cn=mx.b.test organization="" expires="Nov 13 16:31:24 2026 GMT"
level=NOTICE uuid={0}.1 origin=outbound message="recipient <a@b.test> deferred: 451 4.7.1 \\"x\\" Greylisted"
level=NOTICE uuid={0}.1 origin=outbound message="" delivered file=123_x domain=b.test host=mx.b.test ip=192.0.2.1 port=25 mode=SMTP tls=Y auth=N response="Ok: \\"queued\\" as 29 tls=N" delay=0.111 fails=0 rcpts=1/1/0
level=ERROR uuid={0}.1 origin=outbound message="Ongoing connection failed to 192.0.2.1:25 : Error: certificate has expired"
level=INFO uuid={0}.1 origin=outbound message="bouncing mail: Too many failures (Tried all MXs)"
""",
    "json": """\
{{"level":"NOTICE","uuid":"{0}","origin":"core","message":"sender <s@a.test>","code":"CONT","msg":""}}
{{"level":"NOTICE","uuid":"{0}","origin":"core","message":"recipient <a@b.test>","code":"OK","msg":"","sender":"s@a.test"}}
{{"level":"NOTICE","uuid":"{0}","origin":"core","message":"recipient <c@b.test>","code":"OK","msg":"","sender":"s@a.test"}}
{{"level":"NOTICE","uuid":"{0}","origin":"core","message":"message","mid":"<m@a.test>","size":3,"rcpts":"2/0/0","delay":0,"code":"CONT","msg":""}}
{{"level":"INFO","uuid":"{0}.1","origin":"outbound","message":"secured","verified":false,"cipher":"TLS_AES_256_GCM_SHA384","version":"TLSv1.3","error":"CERT_HAS_EXPIRED","cn":"mx.b.test","organization":"","expires":"Nov 13 16:31:24 2026 GMT"}}
{{"level":"NOTICE","uuid":"{0}.1","origin":"outbound","message":"recipient <a@b.test> deferred: 451 4.7.1 \\"x\\" Greylisted"}}
{{"level":"NOTICE","uuid":"{0}.1","origin":"outbound","message":"","delivered file":"123_x","domain":"b.test","host":"mx.b.test","ip":"192.0.2.1","port":25,"mode":"SMTP","tls":"Y","auth":"N","response":"Ok: \\"queued\\" as 29 tls=N","delay":0.111,"fails":0,"rcpts":"1/1/0"}}
{{"level":"ERROR","uuid":"{0}.1","origin":"outbound","message":"Ongoing connection failed to 192.0.2.1:25 : Error: certificate has expired"}}
{{"level":"INFO","uuid":"{0}.1","origin":"outbound","message":"bouncing mail: Too many failures (Tried all MXs)"}}
""",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms(read_text: ReadText, form: str) -> None:
    """The three forms say the same: two recipients of one domain, one delivered, one put off, tried again, expired."""
    frame = read_text(FORMS[form].format(UUID).encode())
    rows = frame.astype(object).where(frame.notna(), None)
    columns = ["recipient", "action", "status_word", "attempted", "tls_level", "tls_outcome", "enhanced_code"]
    assert rows[columns].to_numpy().tolist() == [
        ["a@b.test", "delayed", "deferred", True, "untrusted", "not_tls", "4.7.1"],
        ["c@b.test", "delivered", "delivered", True, "untrusted", "ok", None],
        ["a@b.test", "delayed", "Temp failing", True, "encrypted", "certificate_expired", None],
        ["a@b.test", "failed", "expired", False, None, "certificate_expired", None],
    ]
    says = {
        "relay_host": "mx.b.test", "relay_address": "192.0.2.1", "relay_port": 25, "transport": "SMTP", "cipher_bits": None,
        "cipher": "TLS_AES_256_GCM_SHA384", "tls_version": "TLSv1.3", "delay_seconds": 0.111, "mta": "haraka",
        "reply_text": 'Ok: "queued" as 29 tls=N', "requiretls": "unknown", "tls_required_no": "unknown",
    }  # fmt: skip
    assert {name: rows.iloc[1][name] for name in says} == says
    assert set(frame.attrs["coverage"]["understood"]) == {
        "haraka arrival", "haraka TLS connection", "haraka delivery", "haraka connection problem",
    }  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("head", "time"),
    [
        ("2026-11-23T16:32:35.215Z ", "2026-11-23T16:32:35.215Z"),
        ("Nov 23 16:32:36 mx haraka[7]: ", "2026-11-23T16:32:36Z"),
        ("Nov 23 16:32:36 mx node[7]: 2026-11-23T16:32:35.215Z ", "2026-11-23T16:32:35.215Z"),
        ("", None),
    ],
    ids=["stamps on", "syslog", "a unit's name", "no stamp"],
)
def test_stamps(read_text: ReadText, form: str, head: str, time: str | None) -> None:
    """The time is Haraka's own where it writes it, else that of the envelope."""
    lines = FORMS[form].format(UUID).splitlines()
    frame = read_text("".join(f"{head}{line}\n" for line in lines).encode())
    assert len(frame) == 4
    expected = pd.NaT if time is None else pd.Timestamp(time)
    assert all(at is expected or at == expected for at in frame["logged_at"])


def test_domains_of_one_message(read_text: ReadText) -> None:
    """Results do not name their recipients: the first domain's are in the first mail, the second's in the second."""
    arrival = received("a@b.test", "x@c.test", "d@b.test")
    frame = read_text(log(arrival, delivered(place=2, domain="c.test"), delivered(rcpts="2/0/0")))
    assert frame["recipient"].tolist() == ["x@c.test", "a@b.test", "d@b.test"]
    assert frame["relay_host"].tolist() == ["mx.c.test", "mx.b.test", "mx.b.test"]


def test_a_mail_for_each_recipient(read_text: ReadText) -> None:
    """With always_split each recipient is a mail of its own, as a count of one for a domain of two shows."""
    arrival = received("a@b.test", "d@b.test")
    frame = read_text(log(arrival, delivered(), delivered(place=2)))
    assert frame["recipient"].tolist() == ["a@b.test", "d@b.test"]


def test_unknown_transaction(read_text: ReadText) -> None:
    """Where the arrival is not in the log, and for bounces of its own, the recipient is missing, the row is not."""
    frame = read_text(log(secured(True), delivered(), out("bouncing mail: 550 5.1.1 no", uuid=UUID[:-2])))
    assert frame["recipient"].isna().tolist() == [True, True]
    assert frame["queue_id"].tolist() == [UUID, UUID[:-2]]


def test_cleartext_only_where_tls_is_logged(read_text: ReadText) -> None:
    """A failure without a `secured` line was in cleartext where the log shows such lines; else it is not told."""
    failure = [out("Temp failing 1795_0 for 8 seconds: Upstream error: 451 4.3.0 later", place=2)]
    arrival = received("a@b.test", "x@c.test")
    assert read_text(log(arrival, failure))["tls_level"].tolist() == ["unknown"]
    assert read_text(log(arrival, secured(True), delivered(), failure))["tls_level"].tolist() == [
        "trusted",
        "none",
    ]


def test_connections(read_text: ReadText) -> None:
    """Servers that failed before the last one, and what was negotiated with each."""
    failed = f"{STAMP}[ERROR] [{UUID}.1] [outbound] Ongoing connection failed to {{}}:25 : {{}}"
    data = log(
        received("a@b.test"),
        out("Failed to get socket: connect ECONNREFUSED 192.0.2.7:25"),
        failed.format("2001:db8::1", "Error: certificate has expired"),
        secured(True),
        failed.format("192.0.2.8", "Error: read ECONNRESET"),
        secured(False, "ERR_TLS_CERT_ALTNAME_INVALID"),
        delivered(),
        secured(True),
    )
    frame = read_text(data, table="connections")
    missing = frame.astype(object).where(frame.notna(), None)
    columns = ["line_number", "relay_host", "relay_address", "tls_level", "tls_outcome"]
    assert missing[columns].to_numpy().tolist() == [
        [4, None, "192.0.2.7", None, "not_tls"],
        [5, None, "2001:db8::1", "encrypted", "certificate_expired"],
        [6, None, "192.0.2.8", "trusted", "not_tls"],
        [8, "mx.b.test", "192.0.2.1", "untrusted", "certificate_host_mismatch"],
        [10, None, None, "trusted", "ok"],
    ]
    assert frame["queue_id"].unique().tolist() == [UUID]


NO_ROWS = [
    core('disconnect ip=192.0.2.9 rdns=x helo=x relay=N early=N esmtp=Y tls=Y txns=1 rcpts=1/0/0 msgs=1/0/0 time=0.1'),
    core('recipient <a@b.test> code=DENY msg="no" sender=s@a.test'),
    f"{STAMP}[INFO] [{UUID[:-2]}] [tls] secured: cipher=C version=TLSv1.3 verified=false",
    f"{STAMP}[INFO] [-] [outbound] Transaction delivery for domain: b.test",
    out("Looking up A records for: mx.b.test"),
    out("TLS disabled for mx.b.test because it was marked as non-TLS on Mon"),
    f"{STAMP}[CRIT] [{UUID}.1] [outbound] Socket write failed unexpectedly: Error [ERR_STREAM_DESTROYED]",
]  # fmt: skip


@pytest.mark.parametrize("line", NO_ROWS)
def test_no_rows(read_text: ReadText, line: str) -> None:
    """Lines of the server side, and of the client's inner life, are counted and give no row."""
    frame = read_text(log(line))
    assert frame.empty
    assert frame.attrs["coverage"]["skipped"]["haraka: no delivery"]["count"] == 1
    assert read_text(log(line), table="connections").empty


# -- real logs ------------------------------------------------------------------------------------------------


def _untold(said: Any, row: Any) -> set[str]:
    untold = set()
    if said["enhanced_status"] in ("5.1.2", "5.1.10", "5.5.1"):
        untold.add("enhanced_code")  # of the DSN; the log has none
    if said["reason_text"].startswith("Unrecognized response from upstream server"):
        untold.add("tls_outcome")  # that this answered STARTTLS is not logged
    return untold


@pytest.mark.parametrize("sender", ["haraka-opp", "haraka-force"])
def test_truth(
    lab_log: Callable[[str], Path], truth: Callable[[str], list[dict[str, str]]], sender: str
) -> None:
    """Every recipient of the lab's Haraka senders, but for `trusted` where only the settings make it verified."""
    frame = read_logs(lab_log(f"haraka-3.3.4/{sender}/haraka.log"), timezone="UTC", year=2026)
    verified = frozenset({"verified", "trusted"})
    assert disagreements(frame, truth(sender), untold=_untold, tls_level={"verified": verified}) == []
    garbled = frame["reply_text"].str.startswith("Unrecognized response", na=False)
    assert frame.loc[garbled, "tls_outcome"].tolist() == ["unknown"]


def _as_logfmt(line: str) -> str:
    match = re.fullmatch(r"(\S+) \[(\w+)\] \[(\S+)\] \[([^\]]+)\]  ?(.*)", line)
    if match is None:
        return line
    stamp, level, uuid, origin, text = match.groups()
    split = re.fullmatch(
        r"(secured|sender <[^>]*>|recipient <[^>]*>|message|(?=delivered file=))(?: ?)((?:[\w ]+=.*))", text
    )
    message, rest = split.groups() if split else (text, "")
    quoted = (
        message
        if message and not re.search(r'[ ="\\]', message)
        else '"' + re.sub(r'(["\\])', r"\\\1", message) + '"'
    )
    return f"{stamp} level={level} uuid={uuid} origin={origin} message={quoted} {rest}".strip()


def test_lab_log_as_logfmt(lab_log: Callable[[str], Path]) -> None:
    """A whole log rewritten as Haraka's logfmt gives the same rows."""
    path = lab_log("haraka-3.3.4/haraka-force/haraka.log")
    lines = path.read_text(encoding="utf-8").splitlines()
    logfmt = "".join(f"{_as_logfmt(line)}\n" for line in lines).encode()
    for read in (read_logs, read_connections):
        one = read(path, timezone="UTC", year=2026).drop(columns="source_file")
        two = read(io.BytesIO(logfmt), timezone="UTC", year=2026).drop(columns="source_file")
        pd.testing.assert_frame_equal(
            one.drop(columns="text", errors="ignore"), two.drop(columns="text", errors="ignore")
        )


# -- any bytes -------------------------------------------------------------------------------------------------

_LINES = st.sampled_from(
    [line for _why, lines, *_rest in TRIES for line in lines]
    + received("a@b.test", "x@c.test")
    + [line for form in FORMS.values() for line in form.format(UUID).splitlines()]
    + [
        '{"level":"INFO","uuid":"-","origin":{},"message":1}',
        '{"level":"INFO","uuid":"' + UUID + '","origin":"core","message":null}',
    ]
)


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(
        st.tuples(_LINES, st.integers(0, 200), st.binary(max_size=10)).map(
            lambda part: part[0].encode()[: part[1]] + part[2] + part[0].encode()[part[1] :]
        )
        | st.tuples(_LINES, st.integers(0, 250)).map(lambda part: part[0].encode()[: part[1]])
        | st.binary(max_size=40),
        max_size=10,
    )
)
def test_any_bytes(lines: list[bytes]) -> None:
    """No line raises, cut or spoilt anywhere, and each is counted once."""
    sink = Sink(Clock())
    reader = HarakaReader(sink)
    taken = sum(reader.raw(Source(), line, 0, number) for number, line in enumerate(lines, 1))
    reader.finish()
    counted = sum(sink.understood.values()) + sum(skip.count for skip in sink.coverage.skipped.values())
    assert counted == taken


def test_tries_of_one_mail_have_a_bound(read_text: ReadText, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try is a row for each recipient; a log that repeats them without end is read up to a bound."""
    monkeypatch.setattr(haraka, "MAX_ROWS", 10)
    lines = [*received("a@b.test", "c@b.test"), *[out("Temp failing 1_0 for 64 seconds: 450 no")] * 20]
    frame = read_text(log(*lines))
    assert len(frame) == 10
    assert frame.attrs["coverage"]["skipped"]["haraka: more tries of one mail than are read"]["count"] == 15


@settings(max_examples=50, deadline=None)
@given(order=st.permutations([0] * 6 + [1] * 6))
def test_any_interleaving(order: list[int]) -> None:
    """Mails do not disturb each other, however their lines interleave."""
    lines = [
        *received("a@b.test"),
        secured(False, "CERT_HAS_EXPIRED"),
        out("recipient <a@b.test> deferred: 451 4.7.1 later"),
        out("Temp failing 1795_0 for 8 seconds: Some recipients temp failed: <a@b.test>"),
    ]
    other = UUID[:-1] + "4"
    queues = [[line.replace(UUID, uuid) for line in lines] for uuid in (UUID, other)]
    data = log([queues[which].pop(0) for which in order])
    for read in (read_logs, read_connections):
        frame = read(io.BytesIO(data), timezone="UTC", year=2026).drop(columns=["line_number", "source_file"])
        assert sorted(frame.pop("queue_id")) == [UUID, other]
        pd.testing.assert_series_equal(frame.iloc[0], frame.iloc[1], check_names=False)
        assert frame["tls_level"].tolist() == ["untrusted", "untrusted"]
