"""qmail-send's lines under each of their stamps: rows, numbers used again, and what results say of TLS."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read.log_rows import Sink, Source
from rtls_analysis.read.log_time import Clock, zone_of
from rtls_analysis.read.logs import read_logs
from rtls_analysis.read.qmail import QmailReader

ENVELOPES = {
    "multilog": b"@400000006a1c2b9b075bcd15 ",
    "tai64nlocal": b"2026-05-31 12:37:37.123456789 ",
    "splogger": b"May 31 12:37:39 mx qmail: 1780231057.123456 ",
    "splogger without its stamp": b"May 31 12:37:37 mx qmail: ",
    "splogger, tagged by another": b"2026-05-31T12:37:39+00:00 mx notqmail-send[7]: 1780231057.123456 ",
    "another tag": b"May 31 12:37:37 mx s6-qmail: ",
    "epoch": b"1780231057.123456 ",
    "bare": b"",
}
ACCEPTED = b"192.0.2.7_accepted_message./Remote_host_said:_250_2.0.0_Ok:_queued/"


def delivery(
    result: bytes,
    *,
    number: int = 12,
    message: int = 78833,
    sender: bytes = b"a@a.test",
    to: bytes = b"remote c@b.test",
    envelope: bytes = ENVELOPES["multilog"],
    queue: bytes = b"",
) -> bytes:
    lines = (
        b"new msg %d" % message,
        b"info msg %d: bytes 190 from <%s> qp 13750 uid 0" % (message, sender),
        b"starting delivery %d: msg %d to %s" % (number, message, to),
        b"status: local 0/10 remote 1/20",
        b"delivery %d: %s" % (number, result),
        b"end msg %d" % message,
    )
    return b"".join(envelope + line + queue + b"\n" for line in lines)


def rows(frame):
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


@pytest.mark.parametrize("name", ENVELOPES)
def test_every_envelope_tells_the_same(read_text, name):
    data = delivery(b"success: " + ACCEPTED, envelope=ENVELOPES[name])
    frame = read_text(data)
    (row,) = rows(frame)
    assert (row["mta"], row["queue_id"], row["sender"], row["recipient"]) == (
        "qmail",
        "78833",
        "a@a.test",
        "c@b.test",
    )
    assert (row["action"], row["status_word"], row["transport"]) == ("delivered", "success", "remote")
    assert (row["relay_address"], row["reply_code"], row["enhanced_code"]) == ("192.0.2.7", 250, "2.0.0")
    assert (row["tls_level"], row["tls_outcome"], row["requiretls"]) == ("unknown", "ok", "unknown")
    assert row["reporting_host"] == ("mx" if b" mx " in ENVELOPES[name] else None)
    assert (row["logged_at"] is None) == (name == "bare")
    if name != "bare":
        assert (
            row["logged_at"].replace(microsecond=0, nanosecond=0).isoformat() == "2026-05-31T12:37:37+00:00"
        )
    assert row["line_number"] == 5
    coverage = frame.attrs["coverage"]
    counted = sum(coverage["understood"].values()) + sum(s["count"] for s in coverage["skipped"].values())
    assert counted == coverage["lines_read"] == 6
    assert set(coverage["skipped"]) == {"qmail: no end of a delivery"}


RESULTS = {
    "refused recipient": (
        b"failure: 192.0.2.7_does_not_like_recipient./Remote_host_said:_550_5.1.1_no_such_user/Giving_up_on_192.0.2.7./",
        ("failed", "not_tls", "unknown", "192.0.2.7", 550, "5.1.1"),
    ),
    "refused recipient, IPv6": (
        b"failure: 2001:DB8::7_does_not_like_recipient./Remote_host_said:_550_no/Giving_up_on_2001:DB8::7./",
        ("failed", "not_tls", "unknown", "2001:db8::7", 550, None),
    ),
    "greeting": (
        b"deferral: Connected_to_192.0.2.7_but_greeting_failed./Remote_host_said:_421_4.3.2_busy/",
        ("delayed", "not_tls", "unknown", "192.0.2.7", 421, "4.3.2"),
    ),
    "peer wants TLS": (
        b"failure: Connected_to_192.0.2.7_but_sender_was_rejected./Remote_host_said:_530_5.7.0_Must_issue_a_STARTTLS_"
        b"command_first/",
        ("failed", "peer_requires_tls", "none", "192.0.2.7", 530, "5.7.0"),
    ),
    "no connection": (
        b"deferral: Sorry,_I_wasn't_able_to_establish_an_SMTP_connection._(#4.4.1)/",
        ("delayed", "not_tls", None, None, None, "4.4.1"),
    ),
    "no such domain": (
        b"failure: Sorry,_I_couldn't_find_any_host_named_b.test._(#5.1.2)/",
        ("failed", "not_tls", None, None, None, "5.1.2"),
    ),
    "expired": (
        b"failure: Sorry,_I_wasn't_able_to_establish_an_SMTP_connection._(#4.4.1)/I'm_not_going_to_try_again;_this_"
        b"message_has_been_in_the_queue_too_long./",
        ("failed", "not_tls", None, None, None, "4.4.1"),
    ),
    "handshake": (
        b"deferral: TLS_connect_failed:_error:0A000410:SSL_routines::sslv3_alert_handshake_failure;_connected_to_"
        b"192.0.2.7./",
        ("delayed", "tls_handshake_failed", "none", "192.0.2.7", None, None),
    ),
    "timeout in the handshake": (
        b"deferral: TLS_connect_failed:_timed_out;_connected_to_192.0.2.7./",
        ("delayed", "tls_handshake_failed", "none", "192.0.2.7", None, None),
    ),
    "version": (
        b"deferral: TLS_connect_failed:_error:0A000102:SSL_routines::unsupported_protocol;_connected_to_192.0.2.7./",
        ("delayed", "tls_version_too_low", "none", "192.0.2.7", None, None),
    ),
    "not offered": (
        b"deferral: No_TLS_achieved_while_control/tlshosts/mx.b.test.pem_exists;_connecting_to_192.0.2.7./",
        ("delayed", "starttls_not_supported", "none", "192.0.2.7", None, None),
    ),
    "refused": (
        b"deferral: STARTTLS_rejected_while_control/tlshosts/mx.b.test.pem_exists;_connecting_to_192.0.2.7./",
        ("delayed", "starttls_refused", "none", "192.0.2.7", None, None),
    ),
    "certificate": (
        b"deferral: TLS_unable_to_verify_server_with_control/tlshosts/mx.b.test.pem:_self-signed_certificate;_"
        b"connected_to_192.0.2.7./",
        ("delayed", "certificate_not_trusted", "encrypted", "192.0.2.7", None, None),
    ),
    "certificate, no more said": (
        b"deferral: TLS_unable_to_verify_server_mx.b.test:_no_certificate_provided;_connected_to_192.0.2.7./",
        ("delayed", "certificate_unverified", "encrypted", "192.0.2.7", None, None),
    ),
    "certificate of another": (
        b"deferral: TLS_unable_to_verify_server_mx.b.test:_received_certificate_for_x.test;_connected_to_192.0.2.7./",
        ("delayed", "certificate_host_mismatch", "encrypted", "192.0.2.7", None, None),
    ),
    "no TLSA answer": (
        b"deferral: DNSSEC_Unable_to_fetch_TLSA_RR._(#4.5.0)/",
        ("delayed", "dnssec_invalid", None, None, None, "4.5.0"),
    ),
    "DANE": (
        b"deferral: recpient_failed_DANE_validation;_connected_to_192.0.2.7._(#4.7.5)/",
        ("delayed", "tlsa_invalid", "encrypted", "192.0.2.7", None, "4.7.5"),
    ),
    "own library": (
        b"deferral: TLS_error_initializing_ctx:_x;_connecting_to_192.0.2.7./",
        ("delayed", "local_policy", "unknown", "192.0.2.7", None, None),
    ),
    "mangled": (b"report mangled, will defer", ("delayed", "not_tls", None, None, None, None)),
    "a fork with addresses": (
        b"success: <From:a@a.test_To:c@b.test>_192.0.2.7_accepted_message./Remote_host_said:_250_ok/",
        ("delivered", "ok", "unknown", "192.0.2.7", 250, None),
    ),
}


@pytest.mark.parametrize("name", RESULTS)
def test_what_a_result_says(read_text, name):
    result, expected = RESULTS[name]
    (row,) = rows(read_text(delivery(result)))
    assert (
        row["action"],
        row["tls_outcome"],
        row["tls_level"],
        row["relay_address"],
        row["reply_code"],
        row["enhanced_code"],
    ) == expected
    assert row["recipient"] == "c@b.test"
    assert row["attempted"] is True


@pytest.mark.parametrize(
    ("text", "version", "cipher"),
    [
        (
            b"192.0.2.7_accepted_message./STARTTLS_proto=TLSv1.3;_cipher=TLS_AES_256_GCM_SHA384;_subject=/CN=x;/",
            "TLSv1.3",
            "TLS_AES_256_GCM_SHA384",
        ),
        (
            b"192.0.2.7_accepted_message./STARTTLS_proto=TLSv1/SSLv3;_cipher=AES256-SHA;_subject=/CN=x;/",
            None,
            "AES256-SHA",
        ),
        (
            b"192.0.2.7_accepted_message_(TLSv1.2_cipher_ECDHE-RSA-AES256-GCM-SHA384)./Remote_host_said:_250_ok/",
            "TLSv1.2",
            "ECDHE-RSA-AES256-GCM-SHA384",
        ),
    ],
)
def test_forks_that_tell_their_tls(read_text, text, version, cipher):
    (row,) = rows(read_text(delivery(b"success: " + text)))
    assert (row["tls_level"], row["tls_version"], row["cipher"]) == ("encrypted", version, cipher)


@pytest.mark.parametrize(
    ("result", "action"),
    [
        (b"success: did_1+0+0/", "delivered"),
        (b"success: did_0+0+1/", "delivered"),
        (b"success: did_0+1+0/qp_123/", "expanded"),
        (b"failure: Sorry,_no_mailbox_here_by_that_name._(#5.1.1)/", "failed"),
    ],
)
def test_local_deliveries_have_no_session(read_text, result, action):
    (row,) = rows(read_text(delivery(result, to=b"local c@b.test")))
    assert (row["action"], row["transport"], row["tls_level"]) == (action, "local", None)
    assert row["tls_outcome"] == ("not_tls" if action == "failed" else "ok")


def test_numbers_used_again_and_two_instances(read_text):
    one = delivery(b"success: " + ACCEPTED)
    two = delivery(b"success: " + ACCEPTED, sender=b"", to=b"remote d@b.test")
    lines = [
        *delivery(b"success: " + ACCEPTED, to=b"remote e@b.test", queue=b" queue1").splitlines(keepends=True),
        *delivery(b"success: " + ACCEPTED, to=b"remote f@b.test", queue=b" queue2").splitlines(keepends=True),
    ]
    mixed = b"".join(lines[index] for pair in zip(range(6), range(6, 12), strict=True) for index in pair)
    frame = read_text(one + two + mixed)
    assert frame["recipient"].tolist() == ["c@b.test", "d@b.test", "e@b.test", "f@b.test"]
    assert frame["sender"].tolist() == ["a@a.test", "", "a@a.test", "a@a.test"]


def test_a_log_that_begins_in_the_middle(read_text):
    lines = delivery(b"success: " + ACCEPTED).splitlines(keepends=True)[4:]
    local = b"@400000006a1c2b9b075bcd15 delivery 13: success: did_1+0+0/\n"
    one, two = rows(read_text(b"".join(lines) + local))
    assert (one["recipient"], one["sender"], one["transport"], one["tls_level"]) == (
        None,
        None,
        "remote",
        "unknown",
    )
    assert (two["transport"], two["tls_level"]) == ("local", None)


def test_connections(read_text):
    data = (
        delivery(b"success: " + ACCEPTED)
        + delivery(RESULTS["handshake"][0])
        + delivery(RESULTS["no connection"][0])
    )
    frame = read_text(data, table="connections")
    assert frame[["relay_address", "tls_level", "tls_outcome"]].to_numpy().tolist() == [
        ["192.0.2.7", "unknown", "ok"],
        ["192.0.2.7", "none", "tls_handshake_failed"],
    ]


def test_long_lines_and_lines_of_others(read_text):
    frame = read_text(
        ENVELOPES["splogger"][:-1]
        + b"+rest_of_it/\n"
        + ENVELOPES["splogger"]
        + b"rblsmtpd: 192.0.2.1 pid 3: 451 no\n"
        + b"@400000006a1c2b9b075bcd15 tcpserver: status: 1/40\n"
        + b"delivery 12: success\nstarting delivery x: msg 1 to remote y\ninfo msg 7\nstatus: all good\n"
    )
    assert frame.empty
    skipped = {reason: skip["count"] for reason, skip in frame.attrs["coverage"]["skipped"].items()}
    assert skipped.pop("qmail: rest of a long line") == 1
    assert skipped.pop("qmail: no end of a delivery") == 1
    assert sum(skipped.values()) == 5
    assert set(skipped) <= {"another program", "not a log line of a known form"}


def test_public_lines_without_deliveries_give_no_rows(public_log):
    assert read_logs(public_log("qmail/fail2ban/qmail"), timezone="UTC").empty


WHOLE = delivery(b"success: " + ACCEPTED) + delivery(
    RESULTS["certificate"][0], envelope=ENVELOPES["splogger"]
)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(WHOLE)), st.integers(0, 200))
def test_any_bytes_any_cut(junk, place, width):
    sink = Sink(Clock(zone_of("UTC")))
    reader = QmailReader(sink)
    blank = Source()
    for number, one in enumerate((WHOLE[:place] + junk + WHOLE[place + width :]).split(b"\n"), 1):
        before = sum(sink.understood.values()) + sum(s.count for s in sink.coverage.skipped.values())
        taken = reader.raw(blank, one, 0, number)
        after = sum(sink.understood.values()) + sum(s.count for s in sink.coverage.skipped.values())
        assert after - before == taken
    reader.finish()


@settings(max_examples=150, deadline=None)
@given(st.text("0123456789abcdefABCDEF.:_()#<>TLSv/", max_size=80).map(str.encode))
def test_any_result_text(text):
    sink = Sink(Clock(zone_of("UTC")))
    reader = QmailReader(sink)
    for number, one in enumerate(delivery(b"failure: " + text).splitlines(), 1):
        assert reader.raw(Source(), one, 0, number)
    assert sink.understood["qmail delivery"] == 1


@pytest.mark.parametrize("place", range(1, len(WHOLE), 61))
def test_a_cut_between_files_changes_nothing(tmp_path, read_text, place):
    (tmp_path / "qmail.1").write_bytes(WHOLE[:place])
    (tmp_path / "qmail").write_bytes(WHOLE[place:])
    apart = read_logs(str(tmp_path / "qmail*"), timezone="UTC", year=2026)
    columns = [name for name in apart if name not in ("source_file", "line_number")]
    assert apart[columns].equals(read_text(WHOLE)[columns])
