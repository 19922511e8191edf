"""Messages followed across the sender's log, the receiver's copy and the notices: all readers agree with the truth.

Every message of `mail_world` is sent once, through real servers; the tests read what is left of it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import rtls_analysis as rtls
from rtls_analysis.outcomes import RequireTls, TlsLevel, TlsOutcome, Told
from tests.servers.mail_start import CLIENT, INBOX, LOG, send
from tests.servers.mail_truth import Expected, expect, expect_at_relay
from tests.servers.mail_world import (
    BY_DOMAIN,
    RECEIVER,
    RELAY,
    UTF8_DOMAIN,
    UTF8_RECIPIENTS,
    Destination,
    Message,
    Policy,
    mail_addresses,
    messages,
)
from tests.servers.prepare import CannotPrepare

pytestmark = pytest.mark.servers

MESSAGES: dict[str, list[Message]] = defaultdict(list)
for _message in messages():
    MESSAGES[_message.group].append(_message)
EVERYTHING = [message for group in MESSAGES.values() for message in group]
ADDRESSES = mail_addresses()

Row = dict[str, Any]
Key = tuple[str, str]

by_group = pytest.mark.parametrize("group", MESSAGES)


def _rows(frame: pd.DataFrame) -> list[Row]:
    """Give rows as they would be written by hand: what is missing is `None`."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _by(rows: list[Row], *names: str) -> dict[Any, list[Row]]:
    found = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names)].append(row)
    return found


@dataclass(frozen=True)
class Remains:
    """What is left of the world of mail, and the tables that it is read into."""

    folder: Path

    def log(self, server: str) -> Path:
        return self.folder / "log" / server / LOG

    def inbox(self, server: str) -> Path:
        return self.folder / "log" / server / INBOX

    @cached_property
    def deliveries(self) -> pd.DataFrame:
        return rtls.read_logs([self.log(policy.label) for policy in Policy], progress=False)

    @cached_property
    def tries(self) -> dict[Key, list[Row]]:
        """The rows of each message and recipient, without those of notices that arrive."""
        rows = _rows(self.deliveries[self.deliveries["transport"] != "virtual"])
        return _by(rows, "message_id", "recipient")

    @cached_property
    def connections(self) -> dict[Key, list[Row]]:
        frame = rtls.read_connections([self.log(policy.label) for policy in Policy], progress=False)
        return _by(_rows(frame), "reporting_host", "queue_id")

    @cached_property
    def relay_tries(self) -> dict[Key, list[Row]]:
        return _by(_rows(rtls.read_logs(self.log(RELAY), progress=False)), "message_id", "recipient")

    @cached_property
    def receiver_log(self) -> pd.DataFrame:
        return rtls.read_logs(self.log(RECEIVER), progress=False)

    @cached_property
    def copies(self) -> dict[Key, list[Row]]:
        """The hops of each stored copy, by Message-ID and the last server's queue id."""
        rows = _rows(rtls.read_received(self.inbox(RECEIVER), progress=False))
        copies = _by(rows, "source_file").values()
        return {(hops[-1]["message_id"], hops[-1]["queue_id"]): hops for hops in copies}

    @cached_property
    def bounces(self) -> pd.DataFrame:
        return rtls.read_dsns([self.inbox(policy.label) for policy in Policy], progress=False)

    @cached_property
    def notices(self) -> dict[Key, list[Row]]:
        return _by(_rows(self.bounces), "original_message_id", "final_recipient")


@pytest.fixture(scope="module")
def remains(tmp_path_factory: pytest.TempPathFactory) -> Remains:
    """Send everything, once; skips with the reason where that cannot be."""
    folder = tmp_path_factory.mktemp("mail")
    try:
        send(folder)
    except CannotPrepare as problem:
        pytest.skip(str(problem))
    return Remains(folder)


def _sent(group: str) -> Iterator[tuple[Message, str, Expected]]:
    """Give the messages of a group, each once for every recipient, and what must come of it."""
    for message in MESSAGES[group]:
        for recipient in message.recipients:
            yield message, recipient, expect(message, recipient)


def _destination(recipient: str) -> Destination:
    return BY_DOMAIN[recipient.rpartition("@")[2].lower()]


def _ascii_domain(address: str) -> str:
    return address.rpartition("@")[2].lower().replace(UTF8_DOMAIN, "xn--bcher-kva.signed.test")


def _differences(who: object, found: Row, truth: Row) -> list[str]:
    return [
        f"{who}: {name} is {found[name]!r}, not {value!r}"
        for name, value in truth.items()
        if found[name] != value
    ]


def _session(recipient: str, level: TlsLevel | None) -> Row:
    """Give what a log tells of the session with a server, and the receiver's copy too."""
    version = cipher = bits = None
    if level not in (None, TlsLevel.NONE, TlsLevel.UNKNOWN):
        version, cipher, bits = "TLSv1.3", "TLS_AES_256_GCM_SHA384", 256
        if "tls12" in _destination(recipient).settings:
            version, cipher = "TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"
            if level is TlsLevel.ANONYMOUS:
                cipher = "ADH-AES256-GCM-SHA384"
    return {"tls_version": version, "cipher": cipher, "cipher_bits": bits}


def _second_try(recipient: str, expected: Expected) -> bool:
    """Whether the message goes in cleartext after a handshake that failed."""
    return expected.is_delivered and _destination(recipient).starttls == "broken"


# -- the sender's log --------------------------------------------------------------------------------------------


@by_group
def test_log(remains: Remains, group: str) -> None:
    """Every try tells level, session, REQUIRETLS and outcome as sender and destination were set to make them."""
    wrong = []
    for message, recipient, expected in _sent(group):
        who = message.message_id, recipient
        *before, last = remains.tries[who]
        truth = {
            "mta": "postfix",
            "reporting_host": message.policy.host.partition(".")[0],
            "sender": message.sender,
            "sender_domain": message.policy.domain,
            "recipient_domain": _ascii_domain(recipient),
            "transport": "smtp",
            "attempted": True,
            "action": "delivered" if expected.is_delivered else "delayed" if expected.expires else "failed",
            "status_word": expected.status_word,
            "enhanced_code": expected.code,
            "relay_host": expected.host,
            "relay_address": ADDRESSES[expected.host] if expected.host else None,
            "relay_port": 25 if expected.host else None,
            "tls_policy": expected.policy,
            "tls_level": expected.level,
            "requiretls": expected.requiretls,
            "requiretls_violated": expected.violated,
            "requiretls_strict": expected.strict,
            "tls_required_no": "unknown",  # the log has no word of it
            "tls_outcome": expected.outcome,
            **_session(recipient, expected.level),
        }
        if expected.expires:
            assert before
            given_up = {"action": "failed", "status_word": "expired", "attempted": False, "relay_host": None}
            lasting = ("enhanced_code", "tls_outcome", "tls_policy", "requiretls", "requiretls_violated")
            wrong += _differences(who, last, given_up | {name: truth[name] for name in lasting})
            for row in before:
                wrong += _differences(who, row, truth)
        else:
            wrong += _differences(who, last, truth)
            if before:
                assert _second_try(recipient, expected)
            for row in before:
                wrong += _differences(who, row, {"action": "delayed", "tls_outcome": "tls_handshake_failed"})
        if len({row["queue_id"] for row in (*before, last)}) != 1:
            wrong.append(f"{who}: more than one queue id")
    assert wrong == []


@by_group
def test_connections(remains: Remains, group: str) -> None:
    """Each try has one connection with each server that it reached, which ended as it must, and there are no others."""
    wrong = []
    for message in MESSAGES[group]:
        truth: Counter[tuple[Any, ...]] = Counter()
        for recipient in message.recipients:
            tries = [row for row in remains.tries[message.message_id, recipient] if row["attempted"]]
            expected = expect(message, recipient)
            if _second_try(recipient, expected):  # a last handshake comes before the cleartext
                broken = replace(expected, outcome=TlsOutcome.TLS_HANDSHAKE_FAILED)
                truth.update(_connections(message, recipient, broken) * len(tries))
                tries = tries[-1:]
            truth.update(_connections(message, recipient, expected) * len(tries))
        where = tries[0]["reporting_host"], tries[0]["queue_id"]
        connections = remains.connections.get(where, ())
        found = Counter((row["relay_host"], row["tls_level"], row["tls_outcome"]) for row in connections)
        if found != truth:
            wrong.append((message.message_id, +(found - truth), +(truth - found)))
    assert wrong == []


def _connections(message: Message, recipient: str, expected: Expected) -> list[tuple[Any, ...]]:
    """Give server, level and outcome of each connection that a try makes."""
    row = _destination(recipient)
    if "refused" in row.settings and expected.outcome is TlsOutcome.NOT_TLS:
        return [(row.hosts[0], None, "not_tls")]
    if expected.host is None:
        return []
    outcome = expected.outcome
    if outcome is TlsOutcome.NOT_TLS and expected.level is not TlsLevel.UNKNOWN:
        outcome = TlsOutcome.OK  # what went wrong came later
    if outcome is TlsOutcome.OK and row.dane == "dane:encrypt" and expected.policy == "dane":
        outcome = TlsOutcome.CERTIFICATE_NOT_TRUSTED  # by no key that was left; it was used all the same
    is_name = expected.outcome is TlsOutcome.CERTIFICATE_HOST_MISMATCH
    lacking = expected.outcome if is_name else TlsOutcome.REQUIRETLS_NOT_SUPPORTED
    before = row.hosts[: row.hosts.index(expected.host)]
    return [*((host, expected.level, lacking) for host in before), (expected.host, expected.level, outcome)]


def test_nothing_is_passed_over(remains: Remains) -> None:
    """Every delivery line became a row, and what was skipped is of the kinds that tell nothing of deliveries."""
    text = "".join(remains.log(policy.label).read_text() for policy in Policy)
    ends = len(re.findall(r"status=expired, returned to sender$", text, re.MULTILINE))
    lines = len(re.findall(r": to=<.+>, relay=.* status=\w+ \(", text))
    coverage = remains.deliveries.attrs["coverage"]
    assert coverage["lines_read"] == text.count("\n")
    assert coverage["understood"]["postfix delivery"] == lines
    assert coverage["understood"]["postfix expired"] == ends
    skipped = {reason.partition(":")[0] for reason in coverage["skipped"]}
    assert skipped <= {
        f"postfix/{name}" for name in ("bounce", "cleanup", "master", "postfix-script", "smtp", "smtpd")
    }
    assert not re.search(r"\b(?:fatal|panic): ", text)


# -- the receiver's copy -----------------------------------------------------------------------------------------


@by_group
def test_copy(remains: Remains, group: str) -> None:
    """What the receiver's Received field tells of the session is what the sender's log tells of it."""
    wrong = []
    for message, recipient, expected in _sent(group):
        if not expected.is_delivered:
            continue
        who = message.message_id, recipient
        sent = remains.tries[who][-1]
        hops = _copy(remains, who, sent)
        if hops is None:
            if "relay" in _destination(recipient).settings and message.requiretls:
                continue  # the next server was not good enough
            wrong.append(f"{who}: no copy")
            continue
        shared = {
            "mta": "postfix",
            "requiretls_requested": "yes" if message.requiretls else "unknown",
            "tls_required_no": "yes" if message.tls_required_no else "no",
            "requiretls_mark": None,
        }
        word = "UTF8SMTP" if message.is_utf8 else "ESMTP"
        is_clear = expected.level is TlsLevel.NONE
        submitted = {
            "hop": 1,
            "from_name": CLIENT,
            "by_host": message.policy.host,
            "queue_id": sent["queue_id"],
            "with_protocol": word + "S" * message.requiretls,
            "tls_state": "encrypted" if message.requiretls else "none",
            "could_be_requiretls": "unknown" if message.requiretls else "no",
        }
        is_anonymous = expected.level is TlsLevel.ANONYMOUS
        passed_on = {
            "hop": 2,
            "from_name": message.policy.host,
            "from_address": ADDRESSES[message.policy.host],
            "by_host": sent["relay_host"],
            "recipient": recipient,
            "with_protocol": word + "S" * (not is_clear),
            "tls_state": "none" if is_clear else "anonymous" if is_anonymous else "encrypted",
            "could_be_requiretls": "no" if is_clear or is_anonymous else "unknown",
            **{name: sent[name] for name in ("tls_version", "cipher", "cipher_bits")},
        }
        for hop, truth in zip(hops, (submitted, passed_on), strict=False):
            wrong += _differences(who, hop, shared | truth)
        between = sent["logged_at"] - hops[1]["received_at"]
        if not timedelta(seconds=-1) <= between <= timedelta(seconds=60):
            wrong.append(f"{who}: sent {between} after it was received")
    assert wrong == []


def _copy(remains: Remains, who: Key, sent: Row) -> list[Row] | None:
    """Give the hops of the copy that a try led to, be it by way of the relay."""
    if sent["relay_host"] == "mx.hop.signed.test":
        sent = remains.relay_tries[who][-1]
    accepted = re.search(r"queued as (\w+)", sent["reply_text"])
    return remains.copies.get((who[0], accepted[1])) if accepted else None


def test_what_was_sent_arrived_and_nothing_else(remains: Remains) -> None:
    """The receiver has a copy for each recipient that the truth says was reached."""
    truth: Counter[str] = Counter()
    for group in MESSAGES:
        for message, recipient, expected in _sent(group):
            if expected.is_delivered and "relay" in _destination(recipient).settings:
                expected = expect_at_relay(message)
            truth[message.message_id] += expected.is_delivered
    copies = Counter(message_id for message_id, _queue_id in remains.copies)
    assert copies == +truth
    files = list((remains.inbox(RECEIVER) / "new").iterdir())
    assert len(files) == sum(truth.values())
    for file in files:
        data = file.read_bytes()
        number = re.search(rb"^Message-ID: <(\d+)", data, re.MULTILINE)
        assert number
        assert b"The body of message %s." % number[1] in data


def test_receivers_log(remains: Remains) -> None:
    """In the receiver's own log each copy is a delivery without a session, and its notices are deliveries with one."""
    rows = _rows(remains.receiver_log)
    stored = [row for row in rows if row["transport"] == "virtual"]
    assert Counter(row["message_id"] for row in stored) == Counter(
        message_id for message_id, _queue_id in remains.copies
    )
    assert {(row["action"], row["tls_level"], row["tls_outcome"]) for row in stored} == {
        ("delivered", None, "ok")
    }
    reports = [row for row in rows if row["transport"] == "smtp"]
    assert {(row["sender"], row["action"], row["requiretls"]) for row in reports} == {
        ("", "delivered", RequireTls.NOT_REQUESTED)  # redacted, so it need not ask for it
    }
    bounces = remains.bounces
    assert len(reports) == bounces[bounces["reporting_mta"] == "mx1.receiver.test"]["source_file"].nunique()


@pytest.mark.parametrize("requiretls", [True, False], ids=["requiretls", "plain"])
def test_second_hop(remains: Remains, requiretls: bool) -> None:
    """A relay that took a message with REQUIRETLS looks for it again, whoever sent it, and says so in its own name."""
    wrong = []
    for message in EVERYTHING:
        who = message.message_id, "user@hop.signed.test"
        if who[1] not in message.recipients or message.requiretls != requiretls:
            continue
        if not expect(message, who[1]).is_delivered:
            assert who not in remains.relay_tries
            continue
        expected = expect_at_relay(message)
        (sent,) = remains.relay_tries[who]
        truth = {
            "reporting_host": "mx",
            "action": "delivered" if expected.is_delivered else "failed",
            "relay_host": expected.host,
            "enhanced_code": expected.code,
            "tls_policy": expected.policy,
            "tls_level": expected.level,
            "requiretls": expected.requiretls,
            "requiretls_violated": expected.violated,
            "tls_outcome": expected.outcome,
        }
        wrong += _differences(who, sent, truth)
        first = remains.tries[who][-1]
        wrong += _differences(who, first, {"action": "delivered", "tls_outcome": "ok"})
        if not requiretls:
            hops = _copy(remains, who, first)
            assert hops is not None
            by = [hop["by_host"] for hop in hops]
            assert by == [message.policy.host, "mx.hop.signed.test", "mx.off.signed.test"]
    assert wrong == []


# -- the notices -------------------------------------------------------------------------------------------------


@by_group
def test_notices(remains: Remains, group: str) -> None:
    """Those notices came that were asked for, and each tells what the log tells and what the message had asked for."""
    wrong = []
    for message, recipient, expected in _sent(group):
        who = message.message_id, recipient
        found = {notice["action"]: notice for notice in remains.notices.get(who, ())}
        if len(found) != len(remains.notices.get(who, ())):
            wrong.append(f"{who}: a notice came twice")
        may_be_late = message.options.wants("DELAY") and (
            expected.expires or _second_try(recipient, expected)
        )
        truth = dict(_notices(message, recipient, expected))
        if found.keys() - ({"delayed"} if may_be_late else set()) != truth.keys():
            wrong.append(f"{who}: notices {[*found]}, not {[*truth]}")
            continue
        if "delayed" in found:
            truth["delayed"] = _delay(message, recipient, expected)
        last = remains.tries[who][-1]
        for action, columns in truth.items():
            wrong += _differences((*who, action), found[action], _asked(message, recipient) | columns)
            if action == "failed" and columns["reporting_mta"] == message.policy.host:
                wrong += _disagreements(who, found[action], remains.tries[who])
            if found[action]["reported_at"] < remains.tries[who][0]["logged_at"]:
                wrong.append(f"{who}: {action} at {found[action]['reported_at']}, and {last['logged_at']}")
    assert wrong == []


def _asked(message: Message, recipient: str) -> Row:
    """Give what every notice tells of the message."""
    return {
        "original_message_id": message.message_id,
        "original_envelope_id": message.options.envelope_id or None,
        "original_recipient": recipient,
        "final_recipient": recipient,
        "recipient_domain": _ascii_domain(recipient),
        "requiretls_requested": Told.YES if message.requiretls else Told.UNKNOWN,
        "tls_required_no": Told.YES if message.tls_required_no else Told.NO,
        "reporting_software": "Postfix",
        "form": "rfc6533" if message.is_utf8 else "rfc3464",
    }


def _notices(message: Message, recipient: str, expected: Expected) -> Iterator[tuple[str, Row]]:
    """Give the final notice about a recipient, if there is to be one."""
    reporter, row = message.policy.host, _destination(recipient)
    if "relay" in row.settings and expected.is_delivered:
        reporter, expected = row.hosts[0], expect_at_relay(message)
    if expected.is_delivered:
        if not message.options.wants("SUCCESS"):
            return
        columns = {"returned": "headers", "redacted": True, "enhanced_code": "2.0.0", "tls_outcome": "ok"}
        if "no_dsn" in row.settings:
            yield "relayed", columns | {"reporting_mta": reporter, "remote_mta": row.hosts[0]}
        else:
            yield "delivered", columns | {"reporting_mta": "mx1.receiver.test", "remote_mta": None}
    elif message.options.wants("FAILURE"):
        yield "failed", _failure(message, expected, reporter)


def _failure(message: Message, expected: Expected, reporter: str) -> Row:
    is_redacted = message.requiretls and (message.policy.redacts or reporter != message.policy.host)
    is_full = not is_redacted and message.options.ret != "HDRS"
    return {
        "returned": "full" if is_full else "headers",
        "redacted": not is_full,
        "reporting_mta": reporter,
        "enhanced_code": expected.code,
        "reply_code": expected.reply_code,
        "diagnostic_type": "smtp" if expected.is_reply else "x-postfix",
        "remote_mta": expected.host if expected.is_reply else None,
        "tls_outcome": expected.notice_outcome,
    }


def _delay(message: Message, recipient: str, expected: Expected) -> Row:
    if _second_try(recipient, expected):
        expected = replace(expected, code="4.7.5", notice_outcome=TlsOutcome.TLS_HANDSHAKE_FAILED)
    return {**_failure(message, expected, message.policy.host), "returned": "headers", "redacted": True}


def _disagreements(who: Key, notice: Row, tries: list[Row]) -> list[str]:
    """Compare a failure as its sender reported it with what the same server logged."""
    row = [row for row in tries if row["attempted"]][-1]
    wrong = _differences(
        who, notice, {"enhanced_code": row["enhanced_code"], "reply_code": row["reply_code"]}
    )
    if notice["diagnostic"] not in row["reply_text"]:
        wrong.append(f"{who}: {notice['diagnostic']!r} is not in {row['reply_text']!r}")
    coarser = {TlsOutcome.CERTIFICATE_UNVERIFIED}  # the line about the certificate is not in the notice
    if notice["tls_outcome"] not in {row["tls_outcome"], *coarser}:
        wrong.append(f"{who}: {notice['tls_outcome']} in the notice, {row['tls_outcome']} in the log")
    asked = row["requiretls"] not in (RequireTls.NOT_REQUESTED, RequireTls.UNKNOWN)
    if asked and notice["requiretls_requested"] != Told.YES:
        wrong.append(f"{who}: the log knows of a wish for REQUIRETLS, and the notice does not")
    return wrong


def test_every_notice_is_read(remains: Remains) -> None:
    """Each message in the senders' mailboxes is a notice, with recipients that had mail; some tell of a delay."""
    files = [file for policy in Policy for file in (remains.inbox(policy.label) / "new").iterdir()]
    coverage = remains.bounces.attrs["coverage"]
    assert coverage["messages_read"] == len(files)
    assert coverage["kinds"].keys() == {"dsn", "delay"}
    assert coverage["skipped"] == {}
    sent = {(message.message_id, recipient) for message in EVERYTHING for recipient in message.recipients}
    assert remains.notices.keys() <= sent
    fields = sum(file.read_bytes().count(b"\nFinal-Recipient: ") for file in files)
    assert len(remains.bounces) == fields
    assert (remains.bounces["action"] == "delayed").any()


def test_a_redacted_notice_shows_no_body(remains: Remains) -> None:
    """What the reader calls redacted has none of the body, and what it calls full has it (RFC 8689 §5)."""
    for row in _rows(remains.bounces):
        text = Path(row["source_file"]).read_bytes()
        assert (b"The body of message" in text) is (row["returned"] == "full")


def test_envelope_ids_join(remains: Remains) -> None:
    """Envelope ids come back as they were before they were encoded, and lead to their message."""
    given = {
        message.options.envelope_id: message.message_id
        for message in EVERYTHING
        if message.options.envelope_id
    }
    found = remains.bounces.dropna(subset="original_envelope_id")
    assert len(found) > 100
    assert found["original_envelope_id"].map(given).tolist() == found["original_message_id"].tolist()


# -- internationalised addresses ---------------------------------------------------------------------------------


def test_internationalised_notices(remains: Remains) -> None:
    """Notices as RFC 6533 wants them, and Postfix writes them: of its media type, with addresses in UTF-8 and in ASCII."""
    rows = [row for row in _rows(remains.bounces) if row["form"] == "rfc6533"]
    kinds: Counter[tuple[str, bool]] = Counter()
    for row in rows:
        text = Path(row["source_file"]).read_bytes()
        assert b"message/global-delivery-status" in text
        is_utf8 = not row["final_recipient"].isascii()
        kind = "utf-8" if is_utf8 else "rfc822"
        assert f"\nFinal-Recipient: {kind}; {row['final_recipient']}\n".encode() in text
        kinds[row["action"], is_utf8] += 1
    assert kinds.keys() >= {("failed", True), ("failed", False), ("delivered", True)}
    assert len({row["final_recipient"] for row in rows}) == len(UTF8_RECIPIENTS)
