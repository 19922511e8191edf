"""mox's logfmt lines: rows, TLS and REQUIRETLS words, and state over lines of one delivery."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read.log_rows import Sink, Source
from rtls_analysis.read.log_time import Clock, zone_of
from rtls_analysis.read.mox import MoxReader

ENVELOPE = b"2026-11-24T10:00:00.000000+00:00 mx mox[7]: "
DIAL = b'l=info m="delivering to remote" pkg=queue remote=mx.b.test cid=1a from=a@a.test attempts=1\n'
DELIVERED = b'l=info m="delivered from queue" pkg=queue cid=1a from=a@a.test attempts=1 cid=1b msgid=3 recipient=c@b.test\n'
HANDSHAKE = (
    b'l=debug m="starttls client handshake done" pkg=smtpclient cid=1a from=a@a.test attempts=1 cid=1b '
    b"tlsmode=%s verifypkix=%s verifydane=%s ignoretlsverifyerrors=false tls=TLS1.3 "
    b"ciphersuite=TLS_AES_128_GCM_SHA256 servername=mx.b.test\n"
)
RESULT = (
    b'l=debug m="queue deliverhost result" pkg=queue host=mx.b.test attempt=1 result=%s delivered=1 failed=0 '
    b"tlsmode=%s tlspkix=%s tlsdane=%s tlsrequiredno=false badtls=false duration=1s cid=1a from=a@a.test attempts=1 "
    b"cid=1b remoteip=192.0.2.7\n"
)
AGAIN = (
    b'l=info m="connecting again for delivery attempt without tls" pkg=queue enforcemtasts=false tlsdane=false '
    b"requiretls=%s cid=1a from=a@a.test attempts=1 cid=1b\n"
)
MAIL = b'l=trace m="LC: MAIL FROM:<a@a.test> BODY=8BITMIME%s" pkg=smtpclient cid=1a from=a@a.test attempts=1 cid=1b\n'
NO_POLICY = (
    b'l=info m="verified tls is required, but destination has no usable dane records and no mta-sts policy, '
    b'canceling delivery attempt to host" pkg=queue cid=1a from=a@a.test attempts=1 cid=1b\n'
)


def failure(error: bytes, code: bytes = b"0", secode: bytes = b'""', *, permanent: bool = True) -> bytes:
    kind = b"permanent" if permanent else b"temporary"
    return (
        b'l=error m="%s failure delivering from queue" err="%s" pkg=queue cid=1a from=a@a.test attempts=1 '
        b"permanent=%s code=%s secode=%s msgid=3 recipient=c@b.test\n"
    ) % (kind, error, b"true" if permanent else b"false", code, secode)


SUCCESSES = {
    "nothing said": (DIAL + DELIVERED, "unknown", "unknown", "unknown"),
    "no dial line": (DELIVERED, "unknown", "unknown", "unknown"),
    "opportunistic handshake": (
        DIAL + HANDSHAKE % (b"opportunistic", b"false", b"false") + DELIVERED,
        "encrypted",
        "unknown",
        "unknown",
    ),
    "PKIX": (
        HANDSHAKE % (b"requiredstarttls", b"true", b"false") + DELIVERED,
        "verified",
        "unknown",
        "unknown",
    ),
    "DANE": (
        HANDSHAKE % (b"opportunistic", b"false", b"true") + DELIVERED,
        "verified",
        "unknown",
        "unknown",
    ),
    "errors ignored": (
        (HANDSHAKE % (b"requiredstarttls", b"true", b"true")).replace(b"errors=false", b"errors=true")
        + DELIVERED,
        "encrypted",
        "unknown",
        "unknown",
    ),
    "result line only": (
        RESULT % (b"ok", b"requiredstarttls", b"true", b"false") + DELIVERED,
        "verified",
        "unknown",
        "no",
    ),
    "result line, opportunistic": (
        RESULT % (b"ok", b"opportunistic", b"false", b"false") + DELIVERED,
        "unknown",
        "unknown",
        "no",
    ),
    "clear the second time": (
        HANDSHAKE % (b"opportunistic", b"false", b"false") + AGAIN % b'""' + DELIVERED,
        "none",
        "not_requested",
        "no",
    ),
    "TLS-Required: No": (AGAIN % b"false" + DELIVERED, "none", "not_requested", "yes"),
    "REQUIRETLS": (
        HANDSHAKE % (b"requiredstarttls", b"true", b"false") + MAIL % b" REQUIRETLS" + DELIVERED,
        "verified",
        "sent",
        "unknown",
    ),
    "MAIL without it": (MAIL % b"" + DELIVERED, "unknown", "not_requested", "unknown"),
}


@pytest.mark.parametrize("name", SUCCESSES)
def test_what_a_delivery_says_of_tls(read_text, name):
    data, level, requiretls, required_no = SUCCESSES[name]
    (row,) = read_text(data).to_dict("records")
    assert (row["tls_level"], row["requiretls"], row["tls_required_no"]) == (level, requiretls, required_no)
    assert (row["mta"], row["action"], row["tls_outcome"]) == ("mox", "delivered", "ok")
    assert (row["sender"], row["recipient"], row["queue_id"]) == ("a@a.test", "c@b.test", "3")
    if requiretls == "sent":
        assert (row["requiretls_strict"], row["requiretls_violated"]) == ("yes", False)


def test_relay_policy_and_cipher(read_text):
    data = b"".join(
        ENVELOPE + line
        for line in (
            DIAL
            + HANDSHAKE % (b"requiredstarttls", b"true", b"false")
            + RESULT % (b"ok", b"requiredstarttls", b"true", b"false")
            + DELIVERED
        ).splitlines(keepends=True)
    )
    frame = read_text(data)
    (row,) = frame.to_dict("records")
    assert (row["relay_host"], row["relay_address"], row["relay_port"]) == ("mx.b.test", "192.0.2.7", 25)
    assert (row["tls_policy"], row["tls_version"], row["cipher"]) == (
        "requiredstarttls+pkix",
        "TLSv1.3",
        "TLS_AES_128_GCM_SHA256",
    )
    assert row["reporting_host"] == "mx"
    assert row["logged_at"].isoformat() == "2026-11-24T10:00:00+00:00"
    assert frame.attrs["coverage"]["understood"] == {"mox attempt": 3, "mox delivery": 1}
    (connection,) = read_text(data, table="connections").to_dict("records")
    assert (connection["queue_id"], connection["process_id"], connection["tls_level"]) == (
        "3",
        "1a",
        "verified",
    )


def test_clear_where_other_lines_show_that_handshakes_are_logged(read_text):
    other = HANDSHAKE.replace(b"cid=1a", b"cid=2a").replace(b"cid=1b", b"cid=2b")
    frame = read_text(other % (b"opportunistic", b"false", b"false") + DELIVERED)
    assert frame["tls_level"].tolist() == ["none"]


FAILURES = {
    "STARTTLS unknown": (
        failure(
            b"tls error: STARTTLS: got 502, expected 220, permanent: 502 5.5.1 Error: command not implemented",
            b"502",
            b"5.1",
        ),
        ("starttls_not_supported", "none", "unknown", None, "5.5.1", 502, True),
    ),
    "STARTTLS refused": (
        failure(b"tls error: STARTTLS: got 454, expected 220", b"454", b"7.0", permanent=False),
        ("starttls_refused", "none", "unknown", None, "4.7.0", 454, True),
    ),
    "wrong name": (
        failure(
            b"tls error: STARTTLS TLS handshake: tls: failed to verify certificate: x509: certificate is valid for x, "
            b"not mx.b.test",
            permanent=False,
        ),
        ("certificate_host_mismatch", "encrypted", "unknown", None, None, None, True),
    ),
    "handshake": (
        failure(b"tls error: STARTTLS TLS handshake: remote error: tls: handshake failure", permanent=False),
        ("tls_handshake_failed", "none", "unknown", None, None, None, True),
    ),
    "no policy for REQUIRETLS": (
        failure(b"missing required tls verification mechanism", b"554", b"7.30"),
        ("mx_unauthenticated", None, "no_certificate_match", True, "5.7.30", 554, True),
    ),
    "REQUIRETLS not offered": (
        failure(
            b"remote smtp server does not implement requiretls extension, required for delivery",
            b"554",
            b"7.30",
        ),
        ("requiretls_not_supported", "verified", "not_offered", True, "5.7.30", 554, True),
    ),
    "no server has REQUIRETLS": (
        failure(b"destination servers do not support requiretls", b"554", b"7.30"),
        ("requiretls_not_supported", "verified", "not_offered", True, "5.7.30", 554, True),
    ),
    "no server has a policy": (
        NO_POLICY + failure(b"destination servers do not support requiretls", b"554", b"7.30"),
        ("mx_unauthenticated", None, "no_certificate_match", True, "5.7.30", 554, True),
    ),
    "a transport that does not verify": (
        failure(
            b"transport smart: message requires verified tls but transport does not verify tls",
            b"554",
            b"7.30",
        ),
        ("local_policy", "unknown", "no_certificate_match", True, "5.7.30", 554, True),
    ),
    "MX not in the policy": (
        failure(
            b"mx host mx.b.test does not match enforced mta-sts policy with hosts m.b.test", permanent=False
        ),
        ("sts_mx_mismatch", None, "unknown", None, None, None, True),
    ),
    "policy not to be had": (
        b'l=info m="mtasts lookup temporary error, aborting delivery attempt" err="dns" pkg=queue domain=b.test '
        b"cid=1a from=a@a.test attempts=1\n" + failure(b"http fetch: timeout", permanent=False),
        ("sts_policy_fetch_error", None, "unknown", None, None, None, True),
    ),
    "no such host": (
        failure(b"dialing smtp server: lookup mx.b.test: no such host", permanent=False),
        ("not_tls", None, "unknown", None, None, None, True),
    ),
    "refused recipient": (
        HANDSHAKE % (b"opportunistic", b"false", b"false")
        + failure(b"permanent: 550 5.1.1 no such user", b"550", b"1.1"),
        ("not_tls", "encrypted", "unknown", None, "5.1.1", 550, True),
    ),
    "suppressed": (
        failure(b"not delivering to recipient address c@b.test: on suppression list"),
        ("not_tls", None, "unknown", None, None, None, False),
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_why_a_delivery_failed(read_text, name):
    data, expected = FAILURES[name]
    frame = read_text(data)
    (row,) = frame.astype(object).where(frame.notna(), None).to_dict("records")
    assert (
        row["tls_outcome"],
        row["tls_level"],
        row["requiretls"],
        row["requiretls_violated"],
        row["enhanced_code"],
        row["reply_code"],
        row["attempted"],
    ) == expected
    assert row["action"] == ("failed" if b"permanent failure" in data else "delayed")


def test_two_hosts_of_one_delivery_are_kept_apart(read_text):
    second = DIAL.replace(b"mx.b.test", b"mx2.b.test") + DELIVERED.replace(b"cid=1b", b"cid=1c")
    frame = read_text(DIAL + HANDSHAKE % (b"opportunistic", b"false", b"true") + second)
    assert (frame["relay_host"].tolist(), frame["tls_level"].tolist()) == (["mx2.b.test"], ["none"])
    assert frame["tls_version"].isna().all()


def test_addresses_beyond_ascii_and_the_null_sender(read_text):
    line = DELIVERED.replace(b"c@b.test", "c@ü.test/c@xn--tda.test".encode()).replace(
        b"from=a@a.test", b'from=""'
    )
    (row,) = read_text(line).to_dict("records")
    assert (row["sender"], row["recipient"], row["recipient_domain"]) == ("", "c@ü.test", "xn--tda.test")


def test_quoted_values_and_a_transport(read_text):
    line = (
        b'l=info m="delivered from queue with transport" pkg=queue cid=1a from="a b\\"\\u00fc\\n@a.test" msgid=4 '
        b"recipient=c@b.test transport=smart\n"
    )
    (row,) = read_text(line).to_dict("records")
    assert (row["sender"], row["transport"]) == ('a b"ü\n@a.test', "smart")


def test_other_lines_are_counted_once(read_text):
    frame = read_text(
        b'l=info m="smtp connection" pkg=smtpserver cid=3\n'
        + ENVELOPE
        + b"panic: something\n"
        + b"l=info something else\nlevel=info m=x\n"
        + DELIVERED
    )
    coverage = frame.attrs["coverage"]
    skipped = {reason: skip["count"] for reason, skip in coverage["skipped"].items()}
    assert skipped == {
        "mox: no end of a delivery": 1,
        "mox: not of its form": 1,
        "not a log line of a known form": 2,
    }
    assert coverage["lines_read"] == 5
    assert len(frame) == 1


def reader() -> tuple[Sink, MoxReader]:
    sink = Sink(Clock(zone_of("UTC")))
    return sink, MoxReader(sink)


LINES = (
    DIAL + HANDSHAKE % (b"x", b"true", b"false") + RESULT % (b"ok", b"x", b"y", b"z") + DELIVERED + NO_POLICY
)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(LINES)), st.integers(0, 200))
def test_any_bytes_any_cut(junk, place, width):
    sink, mox = reader()
    data = LINES[:place] + junk + LINES[place + width :]
    lines = data.split(b"\n")
    claimed = mox.source(b"h", b"mox", b"1", b"")
    assert claimed is not None
    assert claimed.feed is not None
    for number, line in enumerate(lines, 1):
        before = sum(sink.understood.values()) + sum(s.count for s in sink.coverage.skipped.values())
        taken = mox.raw(Source(), line, 0, number)
        after = sum(sink.understood.values()) + sum(s.count for s in sink.coverage.skipped.values())
        assert after - before == taken
        claimed.feed(claimed, b"Nov 24 10:00:00 h mox[1]: " + line, 25, number)
    mox.finish()


@pytest.mark.parametrize("place", range(1, len(LINES), 97))
def test_a_cut_between_files_changes_nothing(tmp_path, read_text, place):
    from rtls_analysis.read.logs import read_logs

    (tmp_path / "mox.log.1").write_bytes(LINES[:place])
    (tmp_path / "mox.log").write_bytes(LINES[place:])
    apart = read_logs(str(tmp_path / "mox.log*"), timezone="UTC", year=2026)
    columns = [name for name in apart if name not in ("source_file", "line_number")]
    assert apart[columns].equals(read_text(LINES)[columns])
