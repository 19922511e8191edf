"""maddy's lines with a JSON tail: rows, the level that a failure names, and what was given up before a success."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read.log_rows import Delivery, Sink, Source
from rtls_analysis.read.log_time import Clock, zone_of
from rtls_analysis.read.logs import read_logs
from rtls_analysis.read.maddy import MaddyReader

STAMP = b"2026-11-24T10:00:00.000Z "
SYSLOG = b"Nov 24 10:00:00 mail maddy[7]: "


def line(name: str, text: str, **fields: object) -> bytes:
    return f"{name}: {text}\t{json.dumps(fields, sort_keys=True)}\n".encode()


INCOMING = line("submission", "incoming message", msg_id="ab12", sender="a@a.test", src_ip="192.0.2.1:4000")
DELIVERED = line("queue", "delivered", attempt=1, msg_id="ab12", rcpt="c@b.test")
RETRY = line(
    "queue", "will retry", attempts_count={"c@b.test": 1}, msg_id="ab12", next_try_delay=1, rcpts=["c@b.test"]
)
FINAL = line("queue", "not delivered, permanent error", msg_id="ab12", rcpt="c@b.test")
ON_THE_WAY = {"domain": "b.test", "msg_id": "ab12-65a1b2c3", "remote_server": "mx.b.test."}
VERIFY = line(
    "remote",
    "TLS verify error, trying without authentication",
    reason="tls: failed to verify certificate: x509: certificate has expired or is not yet valid",
    **ON_THE_WAY,
)
PLAIN = line(
    "remote", "TLS error, trying plaintext", reason="remote error: tls: handshake failure", **ON_THE_WAY
)
CANNOT = line(
    "remote",
    "cannot use MX",
    reason="read: connection reset",
    remote_port="25",
    **ON_THE_WAY,
)


def failed(**fields: object) -> bytes:
    return line("queue", "delivery attempt failed", msg_id="ab12", rcpt="c@b.test", **fields)


def requiretls(what: str, **fields: object) -> bytes:
    text = {
        "tls": "TLS it not available or unauthenticated but required (REQUIRETLS)",
        "mx": "Failed to establish the MX record authenticity (REQUIRETLS)",
    }[what]
    return failed(reason=text, smtp_code=550, smtp_enchcode="5.7.30", smtp_msg=text, **fields)


@pytest.mark.parametrize(
    ("before", "level", "relay"),
    [
        (b"", "unknown", None),
        (VERIFY, "encrypted", "mx.b.test"),
        (PLAIN, "none", "mx.b.test"),
        (VERIFY + PLAIN, "none", "mx.b.test"),
        (PLAIN + CANNOT, "unknown", None),
        (PLAIN.replace(b"b.test", b"x.test"), "unknown", None),
    ],
)
@pytest.mark.parametrize("envelope", [b"", STAMP, SYSLOG, SYSLOG + STAMP])
def test_what_a_success_says(read_text, before, level, relay, envelope):
    data = b"".join(envelope + one for one in (INCOMING + before + DELIVERED).splitlines(keepends=True))
    frame = read_text(data)
    (row,) = frame.astype(object).where(frame.notna(), None).to_dict("records")
    assert (row["mta"], row["action"], row["tls_outcome"]) == ("maddy", "delivered", "ok")
    assert (row["queue_id"], row["sender"], row["recipient"]) == ("ab12", "a@a.test", "c@b.test")
    assert (row["tls_level"], row["relay_host"], row["requiretls"]) == (level, relay, "unknown")
    assert (row["logged_at"] is not None) == bool(envelope)
    assert row["reporting_host"] == ("mail" if envelope.startswith(SYSLOG) else None)
    coverage = frame.attrs["coverage"]
    counted = sum(coverage["understood"].values()) + sum(s["count"] for s in coverage["skipped"].values())
    assert counted == coverage["lines_read"] == data.count(b"\n")
    assert not coverage["skipped"]


FAILURES = {
    "no TLS for REQUIRETLS": (
        requiretls("tls", tls_level="none") + FINAL,
        ("starttls_not_supported", "none", "no_starttls", True),
    ),
    "TLS failed for REQUIRETLS": (
        PLAIN + requiretls("tls", tls_level="none") + FINAL,
        ("tls_handshake_failed", "none", "no_encryption", True),
    ),
    "certificate for REQUIRETLS": (
        requiretls("tls", tls_level="encrypted") + FINAL,
        ("certificate_unverified", "encrypted", "no_certificate_match", True),
    ),
    "certificate, and the reason before": (
        VERIFY + requiretls("tls", tls_level="encrypted") + FINAL,
        ("certificate_expired", "encrypted", "no_certificate_match", True),
    ),
    "MX for REQUIRETLS": (
        requiretls("mx", mx_level="none") + FINAL,
        ("mx_unauthenticated", "trusted", "no_certificate_match", True),
    ),
    "keyword for REQUIRETLS": (
        failed(reason="smtp: server does not support REQUIRETLS", remote_server="mx.b.test.") + RETRY,
        ("requiretls_not_supported", "unknown", "not_offered", True),
    ),
    "MX not in the policy": (
        failed(
            reason="No usable MXs, last err: Failed to estabilish the MX record authenticity (MTA-STS)",
            smtp_code=451,
            smtp_enchcode=[4, 7, 0],
        )
        + RETRY,
        ("sts_mx_mismatch", None, "unknown", None),
    ),
    "local MX policy": (
        failed(reason="Failed to estabilish the MX record authenticity", mx_level="none") + RETRY,
        ("mx_unauthenticated", None, "unknown", None),
    ),
    "no TLS for MTA-STS": (
        failed(reason="TLS is required but unavailable or failed (MTA-STS)", smtp_enchcode="4.7.1") + RETRY,
        ("starttls_not_supported", "none", "unknown", None),
    ),
    "certificate for MTA-STS": (
        failed(
            reason="Recipient server TLS certificate is not trusted but authentication is required by MTA-STS",
            tls_level="encrypted",
        )
        + RETRY,
        ("sts_webpki_invalid", "encrypted", "unknown", None),
    ),
    "certificate for MTA-STS, with its error": (
        failed(
            reason="Recipient server TLS certificate is not trusted but authentication is required by MTA-STS",
            tls_level="encrypted",
            tls_err="x509: certificate is valid for x.test, not mx.b.test",
        )
        + RETRY,
        ("certificate_host_mismatch", "encrypted", "unknown", None),
    ),
    "TLSA": (
        failed(reason="No matching TLSA records", smtp_enchcode="4.7.0") + RETRY,
        ("tlsa_invalid", "encrypted", "unknown", None),
    ),
    "no TLS for DANE": (
        failed(reason="TLS is required but unsupported or failed (enforced by DANE)") + RETRY,
        ("starttls_not_supported", "none", "unknown", None),
    ),
    "no MX": (
        failed(reason="no such host", smtp_code=554, smtp_enchcode="5.4.4", smtp_msg="MX lookup error")
        + FINAL,
        ("not_tls", None, "unknown", None),
    ),
    "not reached": (
        failed(reason="connection refused", io_op="dial", remote_server="mx.b.test.") + RETRY,
        ("not_tls", None, "unknown", None),
    ),
    "refused by the peer": (
        failed(reason="no such user", smtp_code=550, smtp_enchcode="5.1.1", remote_server="mx.b.test.")
        + FINAL,
        ("not_tls", "unknown", "unknown", None),
    ),
    "no weight follows": (
        failed(reason="greylisted", smtp_code=451, smtp_enchcode="4.7.1"),
        ("not_tls", "unknown", "unknown", None),
    ),
    "no weight follows, permanent": (
        failed(reason="go away", smtp_code=550, smtp_enchcode="5.7.1"),
        ("not_tls", "unknown", "unknown", None),
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_why_it_failed(read_text, name):
    data, expected = FAILURES[name]
    frame = read_text(data)
    (row,) = frame.astype(object).where(frame.notna(), None).to_dict("records")
    assert (row["tls_outcome"], row["tls_level"], row["requiretls"], row["requiretls_violated"]) == expected
    final = FINAL in data or row["enhanced_code"] == "5.7.1"
    assert row["action"] == ("failed" if final else "delayed")


def test_codes_relay_and_text(read_text):
    data = failed(
        reason="no such user",
        smtp_code=550,
        smtp_enchcode=[5, 1, 1],
        smtp_msg="mx.b.test. said: no",
        remote_server="mx.b.test.",
        remote_addr="[2001:DB8::7]:25",
    )
    (row,) = read_text(data + FINAL).to_dict("records")
    assert (row["reply_code"], row["enhanced_code"], row["status_word"]) == (550, "5.1.1", "permanent error")
    assert (row["relay_host"], row["relay_address"], row["relay_port"]) == ("mx.b.test", "2001:db8::7", 25)
    assert (row["reply_text"], row["line_number"]) == ("mx.b.test. said: no: no such user", 1)


def test_one_message_with_several_recipients_and_its_bounce(read_text):
    data = (
        failed(reason="later", smtp_code=451)
        + DELIVERED.replace(b"c@b.test", b"d@b.test")
        + failed(reason="never", smtp_code=550).replace(b"c@b.test", b"e@b.test")
        + FINAL.replace(b"c@b.test", b"e@b.test")
        + line("queue", "generated failed DSN", dsn_id="ff00", msg_id="ab12")
        + RETRY
        + DELIVERED.replace(b"ab12", b"ff00").replace(b"c@b.test", b"a@a.test")
    )
    frame = read_text(data).sort_values("line_number")
    assert frame[["recipient", "action"]].to_numpy().tolist() == [
        ["c@b.test", "delayed"],
        ["d@b.test", "delivered"],
        ["e@b.test", "failed"],
        ["a@a.test", "delivered"],
    ]
    assert frame["sender"].iloc[-1] == ""


def test_connections(read_text):
    frame = read_text(VERIFY + PLAIN + DELIVERED, table="connections")
    assert frame[["tls_level", "tls_outcome", "relay_host"]].to_numpy().tolist() == [
        ["encrypted", "certificate_expired", "mx.b.test"],
        ["none", "tls_handshake_failed", "mx.b.test"],
        ["none", "ok", "mx.b.test"],
    ]
    assert set(frame["queue_id"]) == {"ab12"}


def test_old_forms_without_a_name_and_with_an_escaped_tab(read_text):
    without = STAMP + DELIVERED.removeprefix(b"queue: ")
    escaped = SYSLOG + DELIVERED.replace(b"\t", b"#011").replace(b"c@b", b"d@b")
    target = b"[debug] target." + DELIVERED.replace(b"\t", b" ").replace(b"c@b", b"e@b")
    assert read_text(without + escaped + target)["recipient"].tolist() == ["c@b.test", "d@b.test", "e@b.test"]


def test_lines_of_others_give_nothing(read_text):
    frame = read_text(
        b'app: delivered\t{"id": 1}\n'
        b'app: delivered {"rcpt": "x"}\n'
        b"queue: delivered\t{broken}\n"
        b'queue: delivered\t[{"rcpt": "x", "msg_id": "1"}]\n'
        b'Nov 24 10:00:00 h prog[1]: connected {"a": 1}\n'
        + SYSLOG
        + b"smtp: listening on tcp://0.0.0.0:25\n"
        + b'smtp: RCPT ok\t{"msg_id": "1", "rcpt": "x"}\n'
    )
    assert frame.empty
    skipped = {reason: skip["count"] for reason, skip in frame.attrs["coverage"]["skipped"].items()}
    assert skipped == {
        "not a log line of a known form": 4,
        "maddy: no delivery": 2,
        "another program": 1,
    }


WHOLE = INCOMING + VERIFY + failed(reason="later", tls_level="none") + RETRY + PLAIN + DELIVERED


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(WHOLE)), st.integers(0, 200))
def test_any_bytes_any_cut(junk, place, width):
    sink = Sink(Clock(zone_of("UTC")))
    maddy = MaddyReader(sink)
    claimed = maddy.source(b"h", b"maddy", b"1", b"")
    assert claimed is not None
    assert claimed.feed is not None
    for number, one in enumerate((WHOLE[:place] + junk + WHOLE[place + width :]).split(b"\n"), 1):
        before = sum(sink.understood.values()) + sum(s.count for s in sink.coverage.skipped.values())
        taken = maddy.raw(Source(), one, 0, number)
        after = sum(sink.understood.values()) + sum(s.count for s in sink.coverage.skipped.values())
        assert after - before == taken
        claimed.feed(claimed, SYSLOG + one, len(SYSLOG), number)
    maddy.finish()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
)
NAMES = (
    "msg_id",
    "rcpt",
    "reason",
    "smtp_code",
    "smtp_enchcode",
    "tls_level",
    "tls_err",
    "remote_addr",
    "domain",
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["delivered", "delivery attempt failed", "cannot use MX", "will retry", "connected"]),
    st.dictionaries(st.sampled_from(NAMES), JSON_VALUES),
)
def test_any_values(kind, fields):
    sink = Sink(Clock(zone_of("UTC")))
    maddy = MaddyReader(sink)
    claimed = maddy.source(b"h", b"maddy", b"1", b"")
    assert claimed is not None
    maddy._line(claimed, line("queue", kind, **fields).rstrip(), 0, 1)
    maddy.finish()
    assert len(sink.deliveries) <= len(Delivery._fields)


@pytest.mark.parametrize("place", range(1, len(WHOLE), 101))
def test_a_cut_between_files_changes_nothing(tmp_path, read_text, place):
    (tmp_path / "maddy.log.1").write_bytes(WHOLE[:place])
    (tmp_path / "maddy.log").write_bytes(WHOLE[place:])
    apart = read_logs(str(tmp_path / "maddy.log*"), timezone="UTC", year=2026)
    columns = [name for name in apart if name not in ("source_file", "line_number")]
    assert apart[columns].equals(read_text(WHOLE)[columns])
