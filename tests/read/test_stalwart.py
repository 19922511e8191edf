"""Stalwart's events, as text, JSON and in the old form: rows for every recipient, TLS from the events of the span."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read.log_rows import Sink, Source
from rtls_analysis.read.log_time import Clock, zone_of
from rtls_analysis.read.logs import read_logs
from rtls_analysis.read.stalwart import StalwartReader

SPAN = {"queueId": 7, "queueName": "remote", "from": "a@a.test", "to": ["c@b.test", "d@b.test"], "size": 900}
HOST = {"domain": "b.test", "hostname": "mx.b.test"}
DESCRIPTIONS = {
    "delivery.attempt-start": "Delivery attempt started",
    "delivery.delivered": "Message delivered",
    "delivery.start-tls": "SMTP STARTTLS",
}


def value(one: object) -> str:
    if isinstance(one, str):
        return json.dumps(one)
    if isinstance(one, list):
        return "[" + ", ".join(value(part) for part in one) + "]"
    if isinstance(one, dict):
        inner = ", ".join(f"{key} = {value(part)}" for key, part in one.items())
        return f"SMTP error (smtp.error) {{ {inner} }}"
    if isinstance(one, bool):
        return "true" if one else "false"
    return str(one)


def event(name: str, *, form: str = "text", second: int = 0, **keys: object) -> bytes:
    span = SPAN if name.startswith(("delivery.", "queue.", "dane.", "mta-sts.")) else {}
    pairs = {**{key: one for key, one in span.items() if key not in keys}, **keys}
    text = DESCRIPTIONS.get(name, "An event")
    stamp = f"2026-11-24T10:00:{second:02}.250Z"
    if form == "json":
        data = {
            key: {"type": "smtp.error", "data": one} if isinstance(one, dict) else one
            for key, one in pairs.items()
        }
        record = {"id": 1, "text": text, "createdAt": stamp, "type": name, "data": data}
        return json.dumps(record).encode() + b"\n"
    head = f"{stamp} INFO {text} ({name})"
    if form == "lines":
        return (head + "".join(f"\n\t{key} = {value(one)}" for key, one in pairs.items()) + "\n").encode()
    line = head + " " + ", ".join(f"{key} = {value(one)}" for key, one in pairs.items())
    if form == "colours":
        line = line.replace("INFO", "\x1b[32mINFO\x1b[0m").replace(name, f"\x1b[33m{name}\x1b[0m")
    if form == "syslog":
        line = "Nov 24 10:00:00 mail stalwart[7]: " + line
    return line.encode() + b"\n"


START = ("delivery.attempt-start", {"total": 2})
DOMAIN = ("delivery.domain-delivery-start", {"domain": "b.test"})
CONNECT = ("delivery.connect", {**HOST, "remoteIp": "192.0.2.7", "remotePort": 25, "elapsed": "15ms"})
TLS = ("delivery.start-tls", {**HOST, "version": "TLSv1_3", "details": "TLS13_AES_256_GCM_SHA384"})
NO_TLS = ("delivery.start-tls-unavailable", {**HOST, "details": "STARTTLS was not advertised by host"})
REFUSED = ("delivery.start-tls-unavailable", {**HOST, "code": 454, "details": "4.7.0 TLS not available"})
OFF = ("delivery.start-tls-disabled", HOST)
END = ("delivery.attempt-end", {"elapsed": "2s"})
AGAIN = ("queue.rescheduled", {})
DONE = ("delivery.completed", {})


def tls_error(reason: str) -> tuple[str, dict[str, object]]:
    return ("delivery.start-tls-error", {**HOST, "reason": {"details": "TLS Error", "reason": reason}})


def delivered(to: str) -> tuple[str, dict[str, object]]:
    return ("delivery.delivered", {**HOST, "to": to, "code": 250, "details": '2.0.0 ok, queued as "1"'})


def perm(to: str, details: str = "TLS error from 'mx.b.test'") -> tuple[str, dict[str, object]]:
    return ("delivery.dsn-perm-fail", {"to": to, "hostname": "mx.b.test", "details": details})


def log(*events: tuple[str, dict[str, object]], form: str = "text") -> bytes:
    return b"".join(event(name, form=form, **keys) for name, keys in events)


def rows(frame):
    return frame.astype(object).where(frame.notna(), None).sort_values("recipient").to_dict("records")


@pytest.mark.parametrize("form", ["text", "json", "lines", "colours", "syslog"])
def test_every_form_tells_the_same(read_text, form):
    data = log(
        START, DOMAIN, CONNECT, TLS, delivered("c@b.test"), delivered("d@b.test"), DONE, END, form=form
    )
    frame = read_text(data)
    one, two = rows(frame)
    assert (one["recipient"], two["recipient"]) == ("c@b.test", "d@b.test")
    assert (one["mta"], one["queue_id"], one["sender"], one["action"]) == (
        "stalwart",
        "7",
        "a@a.test",
        "delivered",
    )
    assert (one["tls_level"], one["tls_version"], one["cipher"]) == (
        "encrypted",
        "TLSv1.3",
        "TLS13_AES_256_GCM_SHA384",
    )
    assert (one["relay_host"], one["relay_address"], one["relay_port"]) == ("mx.b.test", "192.0.2.7", 25)
    assert (one["reply_code"], one["enhanced_code"], one["reply_text"]) == (
        250,
        "2.0.0",
        '2.0.0 ok, queued as "1"',
    )
    assert (one["tls_outcome"], one["requiretls"], one["reporting_host"]) == (
        "ok",
        "unknown",
        "mail" if form == "syslog" else None,
    )
    assert one["logged_at"].microsecond == (0 if form == "syslog" else 250_000)
    coverage = frame.attrs["coverage"]
    counted = sum(coverage["understood"].values()) + sum(s["count"] for s in coverage["skipped"].values())
    assert counted == coverage["lines_read"] == data.count(b"\n")


STS = ("mta-sts.authorized", {**HOST, "strict": True})
SUCCESSES = {
    "no event about TLS": ((), "unknown", None),
    "STARTTLS": ((TLS,), "encrypted", "TLSv1.3"),
    "STARTTLS under an enforced policy": ((STS, CONNECT, TLS), "verified", "TLSv1.3"),
    "STARTTLS under a policy in test": (
        (("mta-sts.authorized", {**HOST, "strict": False}), CONNECT, TLS),
        "encrypted",
        "TLSv1.3",
    ),
    "DANE": ((TLS, ("dane.authentication-success", HOST)), "verified", "TLSv1.3"),
    "not offered": ((NO_TLS,), "none", None),
    "refused": ((REFUSED,), "none", None),
    "switched off": ((OFF,), "none", None),
    "another host before": (
        (TLS, ("delivery.connect", {**HOST, "hostname": "mx2.b.test", "remoteIp": "192.0.2.8"})),
        "unknown",
        None,
    ),
}


@pytest.mark.parametrize("name", SUCCESSES)
def test_what_a_success_says(read_text, name):
    events, level, version = SUCCESSES[name]
    to = delivered("c@b.test")
    if name == "another host before":
        to[1]["hostname"] = "mx2.b.test"
    frame = read_text(log(START, DOMAIN, CONNECT, *events, to, DONE, END))
    (row,) = rows(frame)
    assert (row["tls_level"], row["tls_version"], row["tls_outcome"]) == (level, version, "ok")


def strict(name: str) -> tuple[str, dict[str, object]]:
    return (name, {**HOST, "strict": True, "details": "because"})


FAILURES = {
    "not offered": (NO_TLS, "starttls_not_supported", "none"),
    "refused": (REFUSED, "starttls_refused", "none"),
    "wrong name": (
        tls_error("invalid peer certificate: NotValidForName"),
        "certificate_host_mismatch",
        "encrypted",
    ),
    "wrong name, newer rustls": (
        tls_error('invalid peer certificate: certificate not valid for name "mx.b.test"'),
        "certificate_host_mismatch",
        "encrypted",
    ),
    "unknown issuer": (
        tls_error("InvalidCertificate(UnknownIssuer)"),
        "certificate_not_trusted",
        "encrypted",
    ),
    "expired": (tls_error("invalid peer certificate: Expired"), "certificate_expired", "encrypted"),
    "another certificate error": (
        tls_error("invalid peer certificate: BadEncoding"),
        "certificate_unverified",
        "encrypted",
    ),
    "version": (tls_error("received fatal alert: ProtocolVersion"), "tls_version_too_low", "none"),
    "handshake": (tls_error("received fatal alert: HandshakeFailure"), "tls_handshake_failed", "none"),
    "broken off": (
        ("delivery.start-tls-error", {**HOST, "reason": {"details": "I/O Error", "reason": "eof"}}),
        "tls_handshake_failed",
        "none",
    ),
    "TLSA": (("dane.authentication-failure", HOST), "tlsa_invalid", "encrypted"),
    "no TLSA": (strict("dane.tlsa-record-not-found"), "dane_required", None),
    "bogus": (strict("dane.bogus-dnssec-record"), "dnssec_invalid", None),
    "MX not in the policy": (strict("mta-sts.not-authorized"), "sts_mx_mismatch", None),
    "policy not to be had": (strict("mta-sts.policy-fetch-error"), "sts_policy_fetch_error", None),
    "policy broken": (strict("mta-sts.invalid-policy"), "sts_policy_invalid", None),
    "no route": (
        ("delivery.connect-error", {**HOST, "remoteIp": "192.0.2.7", "causedBy": {"details": "refused"}}),
        "not_tls",
        None,
    ),
    "peer wants TLS": (
        (
            "delivery.mail-from-rejected",
            {**HOST, "code": 530, "details": "5.7.0 Must issue a STARTTLS command first"},
        ),
        "peer_requires_tls",
        "none",
    ),
    "rejected": (
        ("delivery.message-rejected", {**HOST, "code": 554, "details": "5.7.1 spam"}),
        "not_tls",
        "unknown",
    ),
    "too many": (("delivery.rate-limit-exceeded", {"domain": "b.test", "id": "x"}), "not_tls", None),
}


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("name", FAILURES)
def test_why_a_domain_failed(read_text, name, final):
    failure, outcome, level = FAILURES[name]
    notices = (perm("c@b.test"), perm("d@b.test"), DONE) if final else (AGAIN,)
    before = (DOMAIN, CONNECT) if "connect" not in failure[0] else (DOMAIN,)
    before += (TLS,) if failure[0] == "dane.authentication-failure" else ()
    data = log(START, *before, failure, *notices, END)
    one, two = rows(read_text(data))
    for row in (one, two):
        assert (row["tls_outcome"], row["tls_level"]) == (outcome, level)
        assert row["attempted"] is (name != "too many")
        final = final or row["reply_code"] == 554 or row["reply_code"] == 530
        assert row["action"] == ("failed" if final else "delayed")
        assert row["line_number"] == data[: data.index(failure[0].encode())].count(b"\n") + 1


def test_policies_that_are_only_a_wish_fail_nothing(read_text):
    lax = [
        (name, {**HOST, "strict": False}) for name in ("mta-sts.not-authorized", "dane.tlsa-record-not-found")
    ]
    (row,) = rows(read_text(log(START, DOMAIN, *lax, CONNECT, TLS, delivered("c@b.test"), DONE, END)))
    assert (row["action"], row["tls_level"]) == ("delivered", "encrypted")


def test_one_recipient_of_two_is_rejected(read_text):
    rejected = (
        "delivery.rcpt-to-rejected",
        {**HOST, "to": "d@b.test", "code": 550, "details": "5.1.1 no such user"},
    )
    data = log(
        START,
        DOMAIN,
        CONNECT,
        NO_TLS,
        rejected,
        delivered("c@b.test"),
        perm("d@b.test", "rejected"),
        DONE,
        END,
    )
    one, two = rows(read_text(data))
    assert (one["action"], two["action"], two["reply_code"], two["enhanced_code"]) == (
        "delivered",
        "failed",
        550,
        "5.1.1",
    )
    assert (one["tls_level"], two["tls_level"], two["tls_outcome"]) == ("none", "none", "not_tls")


def test_expiry_keeps_the_reason_of_the_last_try(read_text):
    first = log(START, DOMAIN, CONNECT, tls_error("invalid peer certificate: Expired"), AGAIN, END)
    expired = [
        ("delivery.failed", {"to": to, "reason": {"details": "TLS Error", "reason": "Expired"}})
        for to in ("c@b.test", "d@b.test")
    ]
    second = log(START, *expired, perm("c@b.test"), perm("d@b.test"), DONE, END)
    frame = read_text(first + second)
    assert frame["action"].tolist() == ["delayed", "delayed", "failed", "failed"]
    last = frame.iloc[2:]
    assert set(last["tls_outcome"]) == {"certificate_expired"}
    assert not last["attempted"].any()
    assert last["tls_level"].isna().all()
    assert set(last["status_word"]) == {"expired"}


def test_a_reminder_is_no_attempt_and_local_delivery_no_session(read_text):
    reminder = ("delivery.dsn-temp-fail", {"to": "c@b.test", "details": "an older error"})
    local = (
        "delivery.dsn-success",
        {"to": "d@b.test", "hostname": "localhost", "code": 250, "details": "delivered"},
    )
    (row,) = rows(read_text(log(START, reminder, DOMAIN, local, AGAIN, END)))
    assert (row["recipient"], row["transport"], row["tls_level"]) == ("d@b.test", "local", None)


def test_the_null_sender_and_two_queues_of_one_message(read_text):
    other = {"queueName": "local", "from": "<>"}
    data = event(*START[:1], **other) + log(START, DOMAIN, CONNECT, TLS)
    data += event("delivery.delivered", **{**other, **HOST, "to": "c@b.test", "hostname": "x.b.test"})
    (row,) = rows(read_text(data))
    assert (row["sender"], row["tls_level"]) == ("", "unknown")


def test_connections(read_text):
    data = log(START, DOMAIN, CONNECT, NO_TLS, delivered("c@b.test"), END)
    data += log(START, DOMAIN, CONNECT, TLS, ("dane.authentication-failure", HOST), AGAIN, END)
    data += log(
        START, DOMAIN, CONNECT, TLS, ("dane.authentication-success", HOST), delivered("d@b.test"), DONE, END
    )
    frame = read_text(data, table="connections")
    assert frame[["tls_level", "tls_outcome", "relay_host", "queue_id"]].to_numpy().tolist() == [
        ["none", "ok", "mx.b.test", "7"],
        ["encrypted", "tlsa_invalid", "mx.b.test", "7"],
        ["verified", "ok", "mx.b.test", "7"],
    ]


OLD = (
    b'2023-08-08T10:00:00.123456Z  INFO delivery{id=265 return_path="<a@a.test>" nrcpt=1 size=949}:'
    b'attempt{domain="b.test" attempt_number=0}: smtp::outbound::%s'
)


def test_the_form_before(read_text):
    data = (
        OLD
        % b'delivery: STARTTLS unavailable. context="tls" event="unavailable" mx="mx.b.test" reason="x not advertised"\n'
        + OLD
        % b'session: context="rcpt" event="delivered" rcpt="c@b.test" mx="mx.b.test" '
        b"response=Delivered: Code: 250, Enhanced code: 2.0.0, Message: queued as 1\n"
        + OLD
        % b'session: context="rcpt" event="rejected" rcpt=<d@b.test> mx="mx.b.test" '
        b"reason=Code: 550, Enhanced code: 5.1.1, Message: no such user\n"
        + OLD
        % b'queue: context="queue" event="completed"\n'
    )
    one, two = rows(read_text(data))
    assert (one["recipient"], one["sender"], one["queue_id"]) == ("c@b.test", "a@a.test", "265")
    assert (one["tls_level"], one["reply_code"], one["enhanced_code"]) == ("none", 250, "2.0.0")
    assert (two["recipient"], two["action"], two["reply_code"]) == ("d@b.test", "failed", 550)


def test_the_form_before_has_no_recipients_for_a_domain(read_text):
    data = (
        OLD
        % b'delivery: context="tls" event="failed" mx="mx.b.test" error="invalid peer certificate: Expired"\n'
    )
    (row,) = rows(read_text(data + OLD % b'queue: context="queue" event="requeue"\n'))
    assert (row["recipient"], row["action"], row["tls_outcome"]) == (None, "delayed", "certificate_expired")


def test_lines_of_others_give_nothing(read_text):
    frame = read_text(
        b"2026-11-24T10:00:00Z INFO Started (app.py) a = 1\n"
        b'2026-11-24T10:00:00Z INFO SMTP EHLO (smtp.ehlo) listenerId = "smtp"\n'
        b'{"createdAt": "x", "type": 1}\n'
        b'{"createdAt": "2026-11-24T10:00:00Z", "type": "smtp.ehlo", "data": {}}\n'
        b"\tkey = value\n"
    )
    assert frame.empty
    skipped = {reason: skip["count"] for reason, skip in frame.attrs["coverage"]["skipped"].items()}
    assert skipped == {"not a log line of a known form": 3, "stalwart: no event of a delivery": 2}


WHOLE = (
    log(START, DOMAIN, CONNECT, TLS, delivered("c@b.test"))
    + log(REFUSED, perm("d@b.test"), DONE, END, form="lines")
    + log(START, tls_error("Expired"), END, form="json")
    + OLD % b'session: context="rcpt" event="delivered" rcpt="c@b.test" mx="m" response=Code: 250\n'
)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(WHOLE)), st.integers(0, 300))
def test_any_bytes_any_cut(junk, place, width):
    sink = Sink(Clock(zone_of("UTC")))
    reader = StalwartReader(sink)
    blank = Source()
    for number, one in enumerate((WHOLE[:place] + junk + WHOLE[place + width :]).split(b"\n"), 1):
        before = sum(sink.understood.values()) + sum(s.count for s in sink.coverage.skipped.values())
        taken = reader.raw(blank, one, 0, number)
        after = sum(sink.understood.values()) + sum(s.count for s in sink.coverage.skipped.values())
        assert after - before == taken
    reader.finish()


@pytest.mark.parametrize("place", range(1, len(WHOLE), 131))
def test_a_cut_between_files_changes_nothing(tmp_path, read_text, place):
    (tmp_path / "stalwart.log.2026-11-23").write_bytes(WHOLE[:place])
    (tmp_path / "stalwart.log.2026-11-24").write_bytes(WHOLE[place:])
    apart = read_logs(str(tmp_path / "stalwart.log.*"), timezone="UTC", year=2026)
    columns = [name for name in apart if name not in ("source_file", "line_number")]
    assert apart[columns].equals(read_text(WHOLE)[columns])
