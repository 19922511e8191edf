"""Exchange's message tracking and SmtpSend logs: columns, rows, the dialogue, and both logs as one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read.exchange import ExchangeReader
from rtls_analysis.read.log_rows import Sink, Source
from rtls_analysis.read.log_time import Clock, zone_of
from rtls_analysis.read.logs import read_logs

SESSION = b"08DA4F7C11473A60"
OLD_FIELDS = (
    b"date-time,client-ip,client-hostname,server-ip,server-hostname,source-context,connector-id,source,event-id,"
    b"internal-message-id,message-id,recipient-address,recipient-status,total-bytes,recipient-count,"
    b"related-recipient-address,reference,message-subject,sender-address,return-path,message-info,directionality,"
    b"tenant-id,original-client-ip,original-server-ip,custom-data"
)
FIELDS = OLD_FIELDS.replace(b",message-id,", b",message-id,network-message-id,") + (
    b",transport-traffic-type,log-id,schema-version"
)
TRACKING_HEADER = (
    b"#Software: Microsoft Exchange Server\r\n#Version: 15.01.2507.006\r\n#Log-type: Message Tracking Log\r\n"
    b"#Date: 2026-11-24T10:00:00.000Z\r\n#Fields: " + FIELDS + b"\r\n"
)
SEND_FIELDS = (
    b"date-time,connector-id,session-id,sequence-number,local-endpoint,remote-endpoint,event,data,context"
)
SEND_HEADER = (
    b"#Software: Microsoft Exchange Server\r\n#Version: 15.0.0.0\r\n#Log-type: SMTP Send Protocol Log\r\n"
    b"#Date: 2026-11-24T10:00:00.000Z\r\n#Fields: " + SEND_FIELDS + b"\r\n"
)
OPPORTUNISTIC = b"S:Microsoft.Exchange.Transport.MailRecipient.RequiredTlsAuthLevel=Opportunistic"
EFFECTIVE = b"S:Microsoft.Exchange.Transport.MailRecipient.EffectiveTlsAuthLevel="


def quoted(value: bytes) -> bytes:
    return b'"' + value.replace(b'"', b'""') + b'"' if b"," in value or b'"' in value else value


def track(event: bytes, fields: bytes = FIELDS, **columns: bytes) -> bytes:
    values = {
        b"date-time": b"2026-11-24T10:00:00.123Z",
        b"client-hostname": b"EX1",
        b"server-hostname": b"mx.b.test",
        b"server-ip": b"192.0.2.7",
        b"source-context": SESSION + b";250 2.6.0 <m1@a.test> Queued mail for delivery;ClientSubmitTime:2026",
        b"connector-id": b"To Internet",
        b"source": b"SMTP",
        b"event-id": event,
        b"internal-message-id": b"4711",
        b"message-id": b"<m1@a.test>",
        b"recipient-address": b"c@b.test",
        b"recipient-status": b"250 2.1.5 Recipient OK",
        b"message-subject": b'a "subject", with a comma',
        b"sender-address": b"a@a.test",
        b"return-path": b"a@a.test",
        **{name.replace("_", "-").encode(): value for name, value in columns.items()},
    }
    return b",".join(quoted(values.get(name, b"")) for name in fields.split(b",")) + b"\r\n"


def dialogue(
    *lines: tuple[bytes, bytes] | tuple[bytes, bytes, bytes], session: bytes = SESSION, first: int = 0
) -> bytes:
    text = b""
    for number, (event, data, *context) in enumerate(lines, first):
        text += b"2026-11-24T10:00:01.%03dZ,To Internet,%s,%d,10.0.0.1:4711,192.0.2.7:25,%s,%s,%s\r\n" % (
            number,
            session,
            number,
            event,
            quoted(data),
            quoted(context[0] if context else b""),
        )
    return text


CONNECT = (
    (b"*", b"", b"attempting to connect"),
    (b"+", b""),
    (b"<", b"220 mx.b.test Microsoft ESMTP MAIL Service ready"),
    (b">", b"EHLO ex1.a.test"),
    (b"<", b"250-mx.b.test Hello [10.0.0.1]"),
    (b"<", b"250-STARTTLS"),
    (b"<", b"250 PIPELINING"),
)
TLS = (
    (b">", b"STARTTLS"),
    (b"<", b"220 2.0.0 SMTP server ready"),
    (b"*", b"", b"Sending certificate"),
    (
        b"*",
        b"",
        b"TLS protocol SP_PROT_TLS1_2_CLIENT negotiation succeeded using bulk encryption algorithm CALG_AES_256 with "
        b"strength 256 bits, MAC hash algorithm CALG_SHA_384 with strength 384 bits and key exchange algorithm "
        b"CALG_ECDHE with strength 255 bits",
    ),
    (b">", b"EHLO ex1.a.test"),
    (b"<", b"250-mx.b.test Hello [10.0.0.1]"),
    (b"<", b"250 PIPELINING"),
)
MESSAGE = (
    (b"*", b"", b"sending message with RecordId 4711 and InternetMessageId <m1@a.test>"),
    (b">", b"MAIL FROM:<a@a.test> SIZE=900"),
    (b">", b"RCPT TO:<c@b.test>"),
    (b">", b"RCPT TO:<d@b.test> NOTIFY=NEVER"),
    (b"<", b"250 2.1.0 Sender OK"),
    (b"<", b"250 2.1.5 Recipient OK"),
    (b"<", b"550 5.1.1 no such user"),
    (b">", b"DATA"),
    (b"<", b"354 go ahead"),
    (b"<", b"250 2.6.0 queued"),
)
QUIT = ((b">", b"QUIT"), (b"<", b"221 2.0.0 bye"), (b"-", b"", b"Local"))


def rows(frame):
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def one(frame):
    (row,) = rows(frame)
    return row


# -- message tracking ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "fields"),
    [
        (TRACKING_HEADER, FIELDS),
        (b"#Fields: " + OLD_FIELDS + b"\n", OLD_FIELDS),
        (b"", FIELDS),
        (b"", OLD_FIELDS),
    ],
)
@pytest.mark.parametrize("event", [b"SEND", b"SENDEXTERNAL"])
def test_a_message_sent(read_text, header, fields, event):
    frame = read_text(header + track(b"RECEIVE", fields) + track(event, fields))
    row = one(frame)
    assert (row["mta"], row["action"], row["attempted"]) == ("exchange", "delivered", True)
    assert (row["queue_id"], row["message_id"], row["sender"], row["recipient"]) == (
        "4711",
        "m1@a.test",
        "a@a.test",
        "c@b.test",
    )
    assert (row["relay_host"], row["relay_address"], row["transport"]) == (
        "mx.b.test",
        "192.0.2.7",
        "To Internet",
    )
    assert (row["reporting_host"], row["reply_code"], row["enhanced_code"]) == ("ex1", 250, "2.6.0")
    assert row["reply_text"] == "250 2.6.0 <m1@a.test> Queued mail for delivery"
    assert (row["tls_level"], row["tls_outcome"], row["requiretls"]) == ("unknown", "ok", "unknown")
    assert row["logged_at"].isoformat() == "2026-11-24T10:00:00.123000+00:00"
    coverage = frame.attrs["coverage"]
    assert coverage["skipped"]["exchange: event without an end of an attempt"]["count"] == 1
    counted = sum(coverage["understood"].values()) + sum(s["count"] for s in coverage["skipped"].values())
    assert counted == coverage["lines_read"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_other_encodings(read_text, encoding):
    data = (TRACKING_HEADER + track(b"SEND")).decode().encode(encoding)
    assert one(read_text(data))["recipient"] == "c@b.test"


@pytest.mark.parametrize(
    ("custom", "level", "policy"),
    [
        (b"", "unknown", None),
        (OPPORTUNISTIC, "unknown", "Opportunistic"),
        (OPPORTUNISTIC + b";" + EFFECTIVE + b"EncryptionOnly", "encrypted", "Opportunistic"),
        (OPPORTUNISTIC + b";" + EFFECTIVE + b"CertificateValidation", "trusted", "Opportunistic"),
        (OPPORTUNISTIC + b";" + EFFECTIVE + b"DomainValidation", "verified", "Opportunistic"),
        (OPPORTUNISTIC.replace(b"Opportunistic", b"EncryptionOnly"), "encrypted", "EncryptionOnly"),
    ],
)
def test_what_custom_data_tells(read_text, custom, level, policy):
    row = one(read_text(TRACKING_HEADER + track(b"SEND", custom_data=custom)))
    assert (row["tls_level"], row["tls_policy"]) == (level, policy)


LED = (
    b"[{LED=450 4.7.320 Certificate validation failure, Reason:SubjectMismatch};{MSG=};{FQDN=mx.b.test};"
    b"{IP=192.0.2.7};{LRT=11/24/2026 9:00:00 AM}]"
)
ENDS = {
    "mailbox": (
        {"event": b"DELIVER", "source": b"STOREDRIVER"},
        ("delivered", "ok", None, True, "deliver"),
    ),
    "refused": (
        {"event": b"FAIL", "recipient_status": b"550 5.1.1 no such user"},
        ("failed", "not_tls", "unknown", True, "fail"),
    ),
    "no route": (
        {"event": b"FAIL", "source": b"ROUTING", "recipient_status": b"550 5.4.4 ROUTING.NoRoute"},
        ("failed", "not_tls", None, False, "fail"),
    ),
    "expired": (
        {
            "event": b"FAIL",
            "source": b"QUEUE",
            "recipient_status": b"550 4.4.7 QUEUE.Expired; message expired",
        },
        ("failed", "not_tls", None, False, "expired"),
    ),
    "expired for its certificate": (
        {
            "event": b"FAIL",
            "source": b"QUEUE",
            "recipient_status": b"550 4.4.7 QUEUE.Expired; message expired in unreachable destination queue. Reason: "
            b"454 4.7.5 Certificate validation failure, Reason:UntrustedRoot",
        },
        ("failed", "certificate_not_trusted", None, False, "expired"),
    ),
    "certificate": (
        {"event": b"DEFER", "recipient_status": LED},
        ("delayed", "certificate_host_mismatch", "encrypted", True, "defer"),
    ),
    "no STARTTLS": (
        {"event": b"DEFER", "recipient_status": b"451 5.7.3 STARTTLS is required to send mail"},
        ("delayed", "starttls_not_supported", "none", True, "defer"),
    ),
    "peer wants TLS": (
        {"event": b"FAIL", "recipient_status": b"530 5.7.0 Must issue a STARTTLS command first"},
        ("failed", "peer_requires_tls", "none", True, "fail"),
    ),
    "MTA-STS": (
        {"event": b"FAIL", "recipient_status": b"550 5.4.8 MX hosts of b.test failed MTA-STS validation"},
        ("failed", "sts_mx_mismatch", None, True, "fail"),
    ),
    "DANE": (
        {
            "event": b"FAIL",
            "recipient_status": b"550 5.7.323 tlsa-invalid: The domain failed DANE validation",
        },
        ("failed", "tlsa_invalid", "encrypted", True, "fail"),
    ),
    "not reached": (
        {"event": b"DEFER", "recipient_status": b"421 4.4.1 Connection timed out"},
        ("delayed", "not_tls", None, True, "defer"),
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_other_ends(read_text, name):
    columns, expected = ENDS[name]
    columns = {"source_context": b"", **columns}
    row = one(read_text(TRACKING_HEADER + track(columns.pop("event"), **columns)))
    assert (
        row["action"],
        row["tls_outcome"],
        row["tls_level"],
        row["attempted"],
        row["status_word"],
    ) == expected
    if name == "certificate":
        assert (row["reply_code"], row["enhanced_code"], row["relay_address"]) == (
            450,
            "4.7.320",
            "192.0.2.7",
        )


def test_the_last_try_tells_why_a_message_expired(read_text):
    data = track(
        b"DEFER", recipient_status=b"451 5.7.3 STARTTLS is required to send mail", source_context=b""
    )
    data += track(b"FAIL", source=b"QUEUE", recipient_status=b"550 4.4.7 QUEUE.Expired", source_context=b"")
    frame = read_text(TRACKING_HEADER + data)
    assert set(frame["tls_outcome"]) == {"starttls_not_supported"}
    assert sorted(frame["attempted"]) == [False, True]


def test_several_recipients_have_their_own_status(read_text):
    data = track(
        b"DEFER", recipient_address=b"c@b.test;d@b.test", recipient_status=LED + b";[{LED=452 4.2.2 full}]"
    )
    data += track(
        b"FAIL", recipient_address=b"e@b.test;f@b.test", recipient_status=b"550 5.1.1 no;554 5.7.1 spam"
    )
    data += track(b"FAIL", recipient_address=b"g@b.test;h@b.test", recipient_status=b"550 5.0.0 a; b; c")
    frame = read_text(TRACKING_HEADER + data).set_index("recipient")
    assert frame["enhanced_code"].to_dict() == {
        "c@b.test": "4.7.320",
        "d@b.test": "4.2.2",
        "e@b.test": "5.1.1",
        "f@b.test": "5.7.1",
        "g@b.test": "5.0.0",
        "h@b.test": "5.0.0",
    }


def test_an_export_with_a_header_row_and_the_null_sender(read_text):
    names = FIELDS.replace(b"date-time", b"date_time_utc").replace(b"-", b"_")
    line = track(b"SEND", return_path=b"<>").replace(b"2026-11-24T10:00:00.123Z", b"2026-11-24T10:00:00.123")
    row = one(read_text(names + b"\n" + line))
    assert (row["sender"], row["logged_at"].isoformat()) == ("", "2026-11-24T10:00:00.123000+00:00")


# -- SmtpSend -----------------------------------------------------------------------------------------------------


def test_a_session_with_tls(read_text):
    data = SEND_HEADER + dialogue(*CONNECT, *TLS, *MESSAGE, *QUIT)
    frame = read_text(data)
    two, first = sorted(rows(frame), key=lambda row: row["recipient"], reverse=True)
    assert (first["action"], first["reply_code"], first["enhanced_code"]) == ("delivered", 250, "2.6.0")
    assert (two["action"], two["reply_code"], two["enhanced_code"]) == ("failed", 550, "5.1.1")
    for row in (first, two):
        assert (row["tls_level"], row["tls_version"], row["cipher"], row["cipher_bits"]) == (
            "encrypted",
            "TLSv1.2",
            "CALG_AES_256",
            256,
        )
        assert (row["queue_id"], row["message_id"], row["sender"]) == ("4711", "m1@a.test", "a@a.test")
        assert (row["relay_host"], row["relay_address"], row["relay_port"]) == ("mx.b.test", "192.0.2.7", 25)
        assert (row["reporting_host"], row["transport"]) == ("ex1.a.test", "To Internet")
    coverage = frame.attrs["coverage"]
    assert coverage["understood"] == {"exchange header": 5, "exchange protocol line": data.count(b"\n") - 5}
    connection = one(read_text(data, table="connections"))
    assert (connection["tls_level"], connection["tls_outcome"], connection["process_id"]) == (
        "encrypted",
        "ok",
        SESSION.decode(),
    )


@pytest.mark.parametrize(
    ("lines", "first", "level"),
    [
        ((*CONNECT, *MESSAGE), 0, "none"),
        (MESSAGE, 40, "unknown"),
        (((*TLS, (b"*", b"", b"Secure domain certificate"), *MESSAGE)), 10, "verified"),
        ((*CONNECT, (b">", b"STARTTLS"), (b"<", b"454 4.7.0 TLS not available"), *MESSAGE), 0, "none"),
    ],
)
def test_level_of_a_session(read_text, lines, first, level):
    frame = read_text(SEND_HEADER + dialogue(*lines, *QUIT, first=first))
    assert set(frame["tls_level"]) == {level}


def test_chunks_pipelining_and_two_messages(read_text):
    chunks = tuple(line for line in MESSAGE if line[1][:4] not in (b"DATA", b"354 ", b"250 2.6.0"))[:-1]
    second = tuple(
        (event, data.replace(b"c@b", b"e@b").replace(b"d@b", b"f@b"), *more) for event, data, *more in chunks
    )
    end = (
        (b">", b"BDAT 10"),
        (b"<", b"250 2.0.0 10 octets"),
        (b">", b"BDAT 900 LAST"),
        (b"<", b"250 2.6.0 queued"),
    )
    frame = read_text(SEND_HEADER + dialogue(*CONNECT, *TLS, *chunks, *end, *second, *end, *QUIT))
    actions = frame.set_index("recipient")["action"].to_dict()
    assert actions == {
        "c@b.test": "delivered",
        "d@b.test": "failed",
        "e@b.test": "delivered",
        "f@b.test": "failed",
    }


def test_interleaved_sessions(read_text):
    one_session = dialogue(*CONNECT, *TLS, *MESSAGE, *QUIT).splitlines(keepends=True)
    other = dialogue(*CONNECT, *MESSAGE, *QUIT, session=b"08DA4F7C11473A61").replace(b"b.test", b"x.test")
    others = other.splitlines(keepends=True)
    mixed = b"".join(
        line for index in range(40) for part in (one_session, others) for line in part[index : index + 1]
    )
    frame = read_text(SEND_HEADER + mixed)
    levels = frame.groupby("recipient_domain")["tls_level"].agg(set).to_dict()
    assert levels == {"b.test": {"encrypted"}, "x.test": {"none"}}


PROBLEMS = {
    "TLS negotiation failed with error SocketError": ("tls_handshake_failed", "none"),
    "TLS negotiation failed with error AlgorithmMismatch": ("tls_version_too_low", "none"),
    "TLS negotiation failed with error NoCredentials": ("local_policy", "unknown"),
    "TLS negotiation failed with error CertExpired": ("certificate_expired", "encrypted"),
    "TLS negotiation failed with error UntrustedRoot": ("certificate_not_trusted", "encrypted"),
    "Outbound TLS authentication failed for auth level DomainValidation with error SubjectMismatch": (
        "certificate_host_mismatch",
        "encrypted",
    ),
    "Connector is configured to send mail only over TLS connections and remote doesn't support TLS": (
        "starttls_not_supported",
        "none",
    ),
}


@pytest.mark.parametrize("text", PROBLEMS)
def test_what_fails_before_the_first_recipient_is_a_connection(read_text, text):
    outcome, level = PROBLEMS[text]
    started = TLS[:2] if "negotiation" in text else TLS[:4] if "authentication" in text else ()
    data = SEND_HEADER + dialogue(*CONNECT, *started, (b"*", b"", text.encode()), (b"-", b"", b"Local"))
    row = one(read_text(data, table="connections"))
    expected = "none" if level == "unknown" else level
    assert (row["tls_outcome"], row["tls_level"]) == (outcome, expected)
    assert read_text(data).empty


def test_a_handshake_without_an_end_and_a_connection_that_failed(read_text):
    broken = dialogue(*CONNECT, *TLS[:2], (b"-", b"", b"Remote"))
    failed = dialogue(
        (b"*", b"", b"attempting to connect"),
        (b"*", b"", b"Failed to connect. Winsock error code: 10060"),
        session=b"08DA4F7C11473A61",
    )
    frame = read_text(SEND_HEADER + broken + failed, table="connections")
    assert frame["tls_outcome"].tolist() == ["tls_handshake_failed", "not_tls"]
    assert frame["tls_level"].isna().tolist() == [False, True]


def test_a_session_that_broke_off_delays_and_one_under_way_says_nothing(read_text):
    begun = dialogue(*CONNECT, *TLS, *MESSAGE[:6])
    row = one(
        read_text(SEND_HEADER + begun + dialogue((b"-", b"", b"Remote"), first=30)).query(
            "recipient=='c@b.test'"
        )
    )
    assert (row["action"], row["tls_level"], row["reply_code"], row["reply_text"]) == (
        "delayed",
        "encrypted",
        None,
        "Remote",
    )
    assert read_text(SEND_HEADER + begun).empty


def test_a_refused_sender_refuses_its_recipients(read_text):
    lines = (
        *MESSAGE[:4],
        (b"<", b"530 5.7.0 Must issue a STARTTLS command first"),
        *((b"<", b"503 5.5.1 no"),) * 2,
    )
    frame = read_text(SEND_HEADER + dialogue(*CONNECT, *lines, *QUIT))
    assert frame["recipient"].tolist() == ["c@b.test", "d@b.test"]
    assert set(frame["tls_outcome"]) == {"peer_requires_tls"}
    assert set(frame["tls_level"]) == {"none"}
    assert set(frame["action"]) == {"failed"}


def test_receive_logs_and_public_lines_give_no_rows(read_text, public_log):
    swap = {b"<": b">", b">": b"<"}
    lines = [(swap.get(event, event), *rest) for event, *rest in (*CONNECT[1:], *TLS, *MESSAGE, *QUIT)]
    for header in (SEND_HEADER.replace(b"SMTP Send", b"SMTP Receive"), SEND_HEADER, b""):
        frame = read_text(header + dialogue(*lines))
        assert frame.empty
        assert frame.attrs["coverage"]["skipped"]["exchange: SmtpReceive, no delivery"]["count"] > 20
    # and a send log behind it reads as ever
    both = SEND_HEADER.replace(b"SMTP Send", b"SMTP Receive") + dialogue(*lines)
    assert len(read_text(both + SEND_HEADER + dialogue(*CONNECT, *TLS, *MESSAGE, *QUIT))) == 2
    assert read_logs(public_log("exchange/crowdsec/exchange-smtp-logs.log"), timezone="UTC").empty


# -- both logs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tracking_first", [True, False])
def test_both_logs_give_one_row_for_each_attempt(read_text, tracking_first):
    tracking = TRACKING_HEADER + track(b"SEND", custom_data=OPPORTUNISTIC)
    tracking += track(
        b"FAIL", recipient_address=b"d@b.test", recipient_status=b"550 5.1.1 no such user", source_context=b""
    )
    send = SEND_HEADER + dialogue(*CONNECT, *TLS, *MESSAGE, *QUIT)
    data = tracking + send if tracking_first else send + tracking
    frame = read_text(data).set_index("recipient")
    assert frame["action"].to_dict() == {"c@b.test": "delivered", "d@b.test": "failed"}
    assert set(frame["tls_level"]) == {"encrypted"}
    assert set(frame["tls_version"]) == {"TLSv1.2"}
    row = frame.loc["c@b.test"]
    assert (row["tls_policy"], row["reporting_host"], row["relay_port"]) == ("Opportunistic", "ex1", 25)


def test_other_csv_gives_nothing(read_text):
    frame = read_text(
        b"#Software: Microsoft Internet Information Services 10.0\n#Fields: date time s-ip\n"
        b"2026-11-24T10:00:00.123Z,a,b,c\n"
        b"2026-11-24T10:00:00.123Z,a,zz,1,c,d,>,e,f\n" + b"2026-11-24T10:00:00.123Z" + b",x" * 30 + b"\n"
        b"recipient-address,event-id\n"
    )
    assert frame.empty
    assert frame.attrs["coverage"]["understood"] == {}


WHOLE = (
    TRACKING_HEADER
    + track(b"SEND", custom_data=OPPORTUNISTIC)
    + track(b"DEFER", recipient_status=LED)
    + SEND_HEADER
    + dialogue(*CONNECT, *TLS, *MESSAGE, *QUIT)
)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(WHOLE)), st.integers(0, 300))
def test_any_bytes_any_cut(junk, place, width):
    sink = Sink(Clock(zone_of("UTC")))
    reader = ExchangeReader(sink)
    blank = Source()
    for number, line in enumerate((WHOLE[:place] + junk + WHOLE[place + width :]).split(b"\r\n"), 1):
        before = sum(sink.understood.values()) + sum(s.count for s in sink.coverage.skipped.values())
        taken = reader.raw(blank, line, 0, number)
        after = sum(sink.understood.values()) + sum(s.count for s in sink.coverage.skipped.values())
        assert after - before == taken
    reader.finish()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"+", b"-", b">", b"<", b"*"]),
            st.sampled_from(
                [b"", b"220 x.test", b"250 ok", b"354 go", b"500 no", b"STARTTLS", b"MAIL FROM:<a@a>", b"RCPT TO:<b@b>",
                 b"DATA", b"BDAT 1 LAST", b"RSET", b"QUIT", b"AUTH LOGIN", b"EHLO", b"250-"]
            ),
        ),
        max_size=25,
    )
)  # fmt: skip
def test_any_dialogue_has_at_most_one_row_for_each_recipient_named(lines):
    sink = Sink(Clock(zone_of("UTC")))
    reader = ExchangeReader(sink)
    for number, line in enumerate(dialogue(*lines).splitlines(), 1):
        reader.raw(Source(), line, 0, number)
    reader.finish()
    named = sum(event == b">" and data.startswith(b"RCPT") for event, data in lines)
    assert sink.deliveries.count(b"b@b") <= named


@pytest.mark.parametrize("place", range(1, len(WHOLE), 203))
def test_a_cut_between_files_changes_nothing(tmp_path, read_text, place):
    (tmp_path / "MSGTRK2026112409-1.LOG").write_bytes(WHOLE[:place])
    (tmp_path / "MSGTRK2026112410-1.LOG").write_bytes(WHOLE[place:])
    names = [str(tmp_path / f"MSGTRK20261124{hour}-1.LOG") for hour in ("09", "10")]
    if WHOLE[:place].endswith(b"\n"):
        apart = read_logs(names, timezone="UTC", year=2026)
    else:  # Exchange ends its files with a line; only a set's files are put together again
        (tmp_path / "x.log.1").write_bytes(WHOLE[:place])
        (tmp_path / "x.log").write_bytes(WHOLE[place:])
        apart = read_logs(str(tmp_path / "x.log*"), timezone="UTC", year=2026)
    columns = [name for name in apart if name not in ("source_file", "line_number")]
    assert apart[columns].equals(read_text(WHOLE)[columns])
