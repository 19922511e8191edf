"""Postfix logs: logs of real servers against their truth, versions and forms of other ages, hostile lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rtls_analysis.read.logs import read_connections, read_logs, read_postfix
from tests.read.truth import disagreements

Read = Callable[..., pd.DataFrame]
Truth = Callable[[str], list[dict[str, str]]]
Log = Callable[[str], Path]

SENDERS = [
    ("postfix-3.11.7/pf-default", ["mail.log", "mail.iso.log"]),
    ("postfix-3.11.7/pf-dane-enforce", ["maillog"]),
    ("postfix-3.11.7/pf-sts-enforce", ["mail.iso.log"]),
    ("postfix-3.11.7/pf-danests-verbose", ["maillog"]),
    ("postfix-3.11.7/pf-oppstarttls", ["mail.log"]),
    ("postfix-3.11.7/pf-opportunistic", ["maillog"]),
    ("postfix-3.11.7/pf-encrypt-norequiretls", ["mail.iso.log"]),
    ("postfix-3.11.7/pf-dane-notlsrequired", ["maillog"]),
    ("postfix-3.10.13/pf310-dane", ["mail.log"]),
]
LOGS = [(folder, name) for folder, names in SENDERS for name in names]

# tls= of the last result in the truth, as far as it decides our words; by the second part, then by the marks
WISHES = [
    (r"[a-z-]+/requiretls", "sent"),
    (r"[a-z-]+/requiretls:nocertmatch", "sent_unauthenticated"),
    (r".*/!?requiretls:nocertmatch", "no_certificate_match"),
    (r".*/!?requiretls:none", "not_offered"),
    (r".*/!?requiretls:nostarttls", "no_starttls"),
    (r".*/requiretls\?", "undecided"),
    (r"[^/]+", "not_requested"),
    (r"", "unknown"),
]


def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows with missing values as `None`."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


# -- the lab --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "name"), LOGS)
def test_truth(folder: str, name: str, lab_log: Log, truth: Truth) -> None:
    """The last row of every recipient says what happened: action, status, level, versions, reason, relay."""
    rows = truth(folder.partition("/")[2])
    frame = read_logs(lab_log(f"{folder}/{name}"), timezone="UTC", year=2026)
    assert disagreements(frame, rows) == []


@pytest.mark.parametrize(("folder", "name"), LOGS)
def test_requiretls_of_the_truth(folder: str, name: str, lab_log: Log, truth: Truth, final_rows: Any) -> None:
    """What became of each REQUIRETLS wish, whether it was violated, and how strictly it was met."""
    final = final_rows(read_postfix(lab_log(f"{folder}/{name}"), timezone="UTC", year=2026))
    for said in truth(folder.partition("/")[2]):
        row, field = final[said["queue_id"], said["recipient"]], said["log_tls_field"]
        wish = next(word for form, word in WISHES if re.fullmatch(form, field))
        assert row["requiretls"] == wish, said
        assert row["requiretls_violated"] == (("/!" in field) if "/" in field else None), said
        level = field.partition("/")[0]
        strict = {"halfdane": "no"}.get(level, "yes") if wish == "sent" else None
        assert row["requiretls_strict"] == ("no" if wish == "sent_unauthenticated" else strict), said
        assert row["tls_required_no"] == "unknown"


@pytest.mark.parametrize(("folder", "name"), LOGS)
def test_attempts_of_the_truth(folder: str, name: str, lab_log: Log, truth: Truth) -> None:
    """Each result line is one row, the suspended ones among them; an end without a try is one more."""
    frame = read_logs(lab_log(f"{folder}/{name}"), timezone="UTC", year=2026)
    results = frame[~frame["status_word"].isin(["expired", "held"])]
    lines = Counter(zip(results["queue_id"], results["recipient"], strict=True))
    for said in truth(folder.partition("/")[2]):
        assert lines[said["queue_id"], said["recipient"]] == int(said["attempts"]), said


def test_stamps_of_both_forms_agree(lab_log: Log) -> None:
    """The same log with RFC 3164 and with RFC 3339 stamps gives the same table, but for the fractions of seconds."""
    old, new = (
        read_logs(lab_log(f"postfix-3.11.7/pf-default/{name}"), timezone="UTC", year=2026)
        for name in ("mail.log", "mail.iso.log")
    )
    new["logged_at"] = new["logged_at"].dt.floor("s")
    pd.testing.assert_frame_equal(old.drop(columns="source_file"), new.drop(columns="source_file"))


def test_first_server_that_failed(lab_log: Log) -> None:
    """A first MX host that does not do, and leaves no delivery line, is a connection with its reason."""
    frame = read_connections(lab_log("postfix-3.11.7/pf-dane-enforce/maillog"), timezone="UTC", year=2026)
    first = frame[
        (frame["relay_host"] == "mx1.ebony.test") & (frame["tls_outcome"] == "requiretls_not_supported")
    ]
    assert len(first)
    assert set(first["tls_level"]) == {"verified"}
    second = frame[(frame["relay_host"] == "mx2.ebony.test") & frame["queue_id"].isin(first["queue_id"])]
    assert set(second["tls_outcome"]) == {"ok"}


# -- public logs ----------------------------------------------------------------------------------------------

_RESULT = re.compile(rb"\[\d+\]: \w+: to=.*, relay=.*, delay=.*, status=\w+")


@pytest.mark.parametrize(
    ("name", "results", "ends"),
    [
        ("postfix_exporter/lines.log", 4, 2),
        ("pflogsumm-go/sample.log", 7, 0),
        ("pflogsumm-go/rfc3339.log", 1, 0),
        ("postfix-parser/lines.log", 2, 0),
        ("log-ship-elastic-postfix/mail.log", 1, 0),
        ("crowdsec/postfix-logs.log", 0, 0),
        ("crowdsec/postfix-relay.log", 0, 0),
        ("crowdsec/postscreen-logs.log", 0, 0),
    ],
)
def test_public_logs(name: str, results: int, ends: int, public_log: Log) -> None:
    """Of other tools' samples each line with a recipient and a status is one row, each expired message one more."""
    path = public_log(f"postfix/{name}")
    rows = read_logs(path, timezone="UTC", year=2026)
    assert len(_RESULT.findall(path.read_bytes())) == results
    expired = rows["status_word"].isin(["expired", "force-expired"])
    assert ((~expired).sum(), expired.sum()) == (results, ends)


def test_public_messages(public_log: Log, read_text: Read) -> None:
    """Single messages that another tool's patterns are tested with: those with a status are one row each."""
    seen = 0
    for path in sorted(public_log("postfix/grok-patterns").glob("*.yaml")):
        (text,) = re.findall(r"^data: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        text = text.strip("\"'").replace('\\"', '"').replace("''", "'")
        service = path.stem.rpartition("_")[0]
        if service in ("smtp", "lmtp", "local", "virtual", "pipe", "error", "discard", "tls_features"):
            tag = "smtp" if service == "tls_features" else service
            rows = plain(read_text(f"Nov 23 16:32:10 mail postfix/{tag}[12]: {text}\n".encode()))
            assert len(rows) == (": to=" in text and "status=" in text), text
            field = re.search(r", tls=([^,/]*)", text)
            assert [row["tls_policy"] for row in rows] == [
                field and field[1].strip("!?").partition(":")[0]
            ] * len(rows)
            seen += len(rows)
    assert seen == 22


@pytest.mark.parametrize("folder", ["sendmail", "qmail", "courier", "domino", "kerio"])
def test_negative_controls(folder: str, public_log: Log) -> None:
    """Rejects at the door are no delivery attempts."""
    for path in sorted(public_log(folder).rglob("*")):
        if path.is_file() and "LICENSE" not in path.name:
            assert len(read_logs(path, timezone="UTC", year=2026)) == 0, path.name


# -- forms ----------------------------------------------------------------------------------------------------

HEAD = b"Nov 23 16:32:10 mail "
BORN = HEAD + b"postfix/cleanup[9]: 4F1AA12345: message-id=<1@a.test>\n"
TAKEN = HEAD + b"postfix/qmgr[8]: 4F1AA12345: from=<s@a.test>, size=1, nrcpt=1 (queue active)\n"
TLS = (
    HEAD
    + b"postfix/smtp[7]: Trusted TLS connection established to mx.b.test[192.0.2.1]:25: TLSv1.3 with cipher "
    b"TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519\n"
)
SENT = (
    HEAD + b"postfix/smtp[7]: 4F1AA12345: to=<r@b.test>, relay=mx.b.test[192.0.2.1]:25, delay=1.5, "
    b"delays=0.1/0/1/0.4, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as X)\n"
)
GONE = HEAD + b"postfix/qmgr[8]: 4F1AA12345: removed\n"

FORMS = [
    ("2.2: no dsn, no delays, no port",
     b"to=<r@b.test>, relay=mx.b.test[192.0.2.1], delay=3, status=sent (250 OK)",
     {"action": "delivered", "enhanced_code": None, "relay_port": None, "delay_seconds": 3.0, "reply_code": 250}),
    ("alias and a connection used again",
     b"to=<r@b.test>, orig_to=<x@b.test>, relay=mx.b.test[192.0.2.1]:25, conn_use=2, delay=1, delays=0/0/0/1, "
     b"dsn=2.0.0, status=sent (250 2.0.0 Ok)",
     {"recipient": "r@b.test", "relay_host": "mx.b.test"}),
    ("IPv6", b"to=<r@b.test>, relay=mx.b.test[2001:db8::1]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 Ok)",
     {"relay_address": "2001:db8::1", "relay_port": 25}),
    ("a quoted local part",
     b'to=<"a, >b"@b.test>, relay=none, delay=1, delays=0/0/0/1, dsn=4.4.1, status=deferred (connect to x: no)',
     {"recipient": '"a, >b"@b.test', "recipient_domain": "b.test", "tls_level": None, "relay_host": None}),
    ("a reply that looks like fields",
     b"to=<r@b.test>, relay=mx.b.test[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=5.0.0, status=bounced (host "
     b"mx.b.test[192.0.2.1] said: 550 to=<evil@x>, relay=none, status=sent (250 ok) (in reply to RCPT TO))",
     {"action": "failed", "reply_code": 550, "recipient": "r@b.test"}),
    ("cut in the text", b"to=<r@b.test>, relay=mx.b.test[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (25",
     {"action": "delivered", "reply_text": "25", "reply_code": None}),
    ("a socket", b"to=<r@b.test>, relay=b.test[/var/run/lmtp], delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)",
     {"tls_level": None, "relay_host": "b.test", "relay_address": None}),
    ("a local mailbox", b"to=<r@b.test>, relay=local, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (delivered)",
     {"tls_level": None, "relay_host": "local", "reply_code": None}),
    ("SMTPUTF8", "to=<jürgen@bücher.test>, relay=none, delay=1, delays=0/0/0/1, dsn=4.4.3, status=deferred (x)".encode(),
     {"recipient": "jürgen@bücher.test", "recipient_domain": "xn--bcher-kva.test"}),
    ("no UTF-8", b"to=<j\xfcrgen@b.test>, relay=none, delay=1, delays=0/0/0/1, dsn=4.4.3, status=deferred (x)",
     {"recipient": "j\\xfcrgen@b.test", "recipient_domain": "b.test"}),
    ("soft bounce", b"to=<r@b.test>, relay=none, delay=1, delays=0/0/0/1, dsn=5.1.1, status=SOFTBOUNCE (no)",
     {"action": "delayed", "status_word": "SOFTBOUNCE"}),
    ("a probe", b"to=<r@b.test>, relay=mx.b.test[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=2.1.5, status=deliverable (ok)",
     {"action": None, "tls_outcome": "ok", "attempted": True}),
    ("not tried: the destination is being avoided",
     b"to=<r@b.test>, relay=none, delay=1, delays=0/0/0/1, tls=dane?, dsn=4.7.5, status=deferred (delivery temporarily "
     b"suspended: Server certificate not verified)",
     {"attempted": False, "action": "delayed", "tls_outcome": "certificate_unverified", "tls_level": None}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [pytest.param(t, e, id=why) for why, t, e in FORMS])
def test_form(text: bytes, expected: dict[str, Any], read_text: Read) -> None:
    """A delivery line of any version is one row, cut at its start, whatever the peer said."""
    (row,) = plain(read_text(BORN + TAKEN + HEAD + b"postfix/smtp[7]: 4F1AA12345: " + text + b"\n"))
    assert {name: row[name] for name in expected} == expected
    assert (row["sender"], row["message_id"], row["mta"], row["transport"]) == (
        "s@a.test",
        "1@a.test",
        "postfix",
        "smtp",
    )


@pytest.mark.parametrize(
    ("tag", "rows"),
    [
        (b"postfix/smtp[7]", 1),
        (b"postfix-out/smtp[7]", 1),
        (b"postfix/relay/smtp[7]", 1),
        (b"mailout/lmtp[7]", 1),
        (b"postfix/smtp", 1),
        (b"smtp[7]", 0),
        (b"dovecot/lda[7]", 0),
    ],
)
def test_names(tag: bytes, rows: int, read_text: Read) -> None:
    """Any name before the slash, and the service after the last."""
    assert len(read_text(SENT.replace(b"postfix/smtp[7]", tag))) == rows


def test_cut_before_the_status(read_text: Read) -> None:
    """A delivery line that a relay cut before its status is counted, not guessed."""
    line = SENT.rstrip(b"\n")
    frame = read_text(line[: line.index(b"tus=sent")] + b"\n" + line[: line.index(b"nt (250")] + b"\n")
    assert len(frame) == 0
    assert frame.attrs["coverage"]["skipped"]["postfix: delivery line cut short"]["count"] == 2


# -- tying ----------------------------------------------------------------------------------------------------


def test_tls_line_belongs_to_the_next_request(read_text: Read) -> None:
    """The request after may run over a cached connection in cleartext: it does not inherit the TLS line."""
    other = SENT.replace(b"4F1AA12345", b"5F1AA12345")
    rows = plain(read_text(TLS + SENT + other))
    assert [row["tls_level"] for row in rows] == ["trusted", "none"]  # this smtp writes TLS lines
    assert [row["cipher"] for row in rows] == ["TLS_AES_256_GCM_SHA384", None]


def test_recipients_of_one_request_share_it(read_text: Read) -> None:
    """Several recipients of one connection are several attempts over the same TLS."""
    rows = plain(read_text(TLS + SENT + SENT.replace(b"r@b", b"q@b")))
    assert [row["tls_level"] for row in rows] == ["trusted", "trusted"]


def test_tls_line_of_another_server(read_text: Read) -> None:
    """A TLS line of an earlier MX host, or of another process, is not this attempt's."""
    elsewhere = SENT.replace(b"192.0.2.1", b"192.0.2.2")
    other_process = SENT.replace(b"smtp[7]", b"smtp[6]")
    assert [row["tls_level"] for row in plain(read_text(TLS + elsewhere + other_process))] == ["none", "none"]


def test_untold_is_not_cleartext(read_text: Read) -> None:
    """Without any TLS line of that program, the log does not tell."""
    assert read_text(SENT)["tls_level"].tolist() == ["unknown"]
    other_host = TLS.replace(b" mail ", b" other ")
    assert read_text(other_host + SENT)["tls_level"].tolist() == ["unknown"]


def test_a_queue_id_used_again(read_text: Read) -> None:
    """After `removed`, and after a new Message-ID, an id is another message's."""
    again = BORN.replace(b"<1@", b"<2@") + TAKEN.replace(b"s@a", b"t@a") + SENT
    for between in (GONE, b""):
        rows = plain(read_text(BORN + TAKEN + SENT + between + again))
        assert [(row["message_id"], row["sender"]) for row in rows] == [
            ("1@a.test", "s@a.test"), ("2@a.test", "t@a.test"),
        ]  # fmt: skip


def test_missing_beginnings(read_text: Read) -> None:
    """Of a message whose beginning is lost, sender and Message-ID are missing, not taken from another."""
    (row,) = plain(read_text(BORN + TAKEN + GONE + SENT))
    assert (row["sender"], row["message_id"]) == (None, None)


def test_instances_of_one_host(read_text: Read) -> None:
    """Parts of one Postfix that log under other names share its messages; other hosts' do not."""
    out = SENT.replace(b"postfix/smtp", b"postfix-out/smtp")
    assert plain(read_text(BORN + TAKEN + out))[0]["sender"] == "s@a.test"
    elsewhere = out.replace(b" mail ", b" other ")
    assert plain(read_text(BORN + TAKEN + elsewhere))[0]["sender"] is None


# -- ends without a try ---------------------------------------------------------------------------------------

DEFERRED = (
    HEAD
    + b"postfix/smtp[7]: 4F1AA12345: to=<r@b.test>, relay=mx.b.test[192.0.2.1]:25, delay=1, delays=0/0/0/1, "
    b"tls=!dane/requiretls:nocertmatch, dsn=4.7.5, status=deferred (Server certificate not verified)\n"
)
EXPIRED = HEAD + b"postfix/qmgr[8]: 4F1AA12345: from=<s@a.test>, status=expired, returned to sender\n"


def test_expired(read_text: Read) -> None:
    """An expired message is a row for each recipient still open, with what that one's last try came to."""
    second = DEFERRED.replace(b"r@b", b"q@b").replace(b"4.7.5", b"4.4.1").replace(b"Server certificate", b"x")
    third = SENT.replace(b"r@b", b"p@b")
    rows = plain(read_text(BORN + TAKEN + DEFERRED + second + third + EXPIRED + GONE))
    ends = [row for row in rows if row["status_word"] == "expired"]
    assert [row["recipient"] for row in ends] == ["r@b.test", "q@b.test"]
    assert {row["action"] for row in ends} == {"failed"}
    assert not any(row["attempted"] for row in ends)
    assert [row["tls_outcome"] for row in ends] == ["certificate_unverified", "not_tls"]
    assert [row["enhanced_code"] for row in ends] == ["4.7.5", "4.4.1"]
    assert [(row["tls_level"], row["requiretls"], row["tls_policy"]) for row in ends] == [
        (None, "no_certificate_match", "dane")
    ] * 2


def test_expired_without_its_beginning(read_text: Read) -> None:
    """Where no recipient is known, one row stands for them."""
    (row,) = plain(read_text(EXPIRED))
    assert (row["recipient"], row["action"], row["tls_outcome"]) == (None, "failed", "unknown")


HELD = (
    HEAD
    + b"postfix/smtpd[5]: NOQUEUE: hold: RCPT from c[192.0.2.9]: <s@a.test>: Sender address triggers HOLD action; "
    b"from=<s@a.test> to=<r@b.test> proto=ESMTP helo=<c>\n"
)
CLIENT = HEAD + b"postfix/smtpd[5]: 4F1AA12345: client=c[192.0.2.9]\n"


def test_held_at_the_door(read_text: Read) -> None:
    """A recipient held at the door gets the queue id that its server names next, and the Message-ID."""
    (row,) = plain(read_text(HELD + CLIENT + BORN))
    assert (row["queue_id"], row["message_id"], row["recipient"]) == ("4F1AA12345", "1@a.test", "r@b.test")
    assert (row["action"], row["status_word"], row["attempted"], row["line_number"]) == (
        "delayed",
        "held",
        False,
        1,
    )
    lost = read_text(HELD + HEAD + b"postfix/smtpd[5]: disconnect from c[192.0.2.9]\n" + CLIENT + BORN)
    assert len(lost) == 0


def test_held_by_hand(read_text: Read) -> None:
    """`postsuper -h` holds the recipients that are still open."""
    by_hand = HEAD + b"postfix/postsuper[4]: 4F1AA12345: placed on hold\n"
    rows = plain(read_text(BORN + TAKEN + DEFERRED + by_hand))
    assert [(row["status_word"], row["recipient"]) for row in rows] == [
        ("deferred", "r@b.test"), ("held", "r@b.test"),
    ]  # fmt: skip


# -- connections ----------------------------------------------------------------------------------------------


def test_connections(read_text: Read) -> None:
    """TLS lines, failed handshakes, refused connections: each is a row, and knows the message that came of it."""
    broken = (
        HEAD + b"postfix/smtp[7]: SSL_connect error to mx0.b.test[192.0.2.8]:25: lost connection\n"
        + HEAD + b"postfix/smtp[7]: warning: TLS library problem: error:0A000102:SSL routines::unsupported protocol:x.c:1:\n"
        + HEAD + b"postfix/smtp[7]: 4F1AA12345: Cannot start TLS: handshake failure\n"
        + HEAD + b"postfix/smtp[7]: connect to mx9.b.test[192.0.2.9]:25: Connection timed out\n"
    )  # fmt: skip
    rows = plain(read_text(broken + TLS + SENT, table="connections"))
    assert [(row["relay_host"], row["tls_outcome"], row["tls_level"]) for row in rows] == [
        ("mx0.b.test", "tls_version_too_low", "none"),
        ("mx9.b.test", "not_tls", None),
        ("mx.b.test", "ok", "trusted"),
    ]
    assert {row["queue_id"] for row in rows} == {"4F1AA12345"}
    assert {row["process_id"] for row in rows} == {"7"}


def test_connection_without_a_tls_line(read_text: Read) -> None:
    """Where nothing is logged of TLS, a request's server is one connection, whatever its recipients."""
    rows = plain(read_text(SENT + SENT.replace(b"r@b", b"q@b"), table="connections"))
    assert [(row["relay_host"], row["tls_level"], row["reused"]) for row in rows] == [
        ("mx.b.test", "unknown", False)
    ]


def test_certificate_that_failed(read_text: Read) -> None:
    """The line about the certificate says what was wrong with it, for the connection and for the attempt."""
    log = (
        HEAD + b"postfix/smtp[7]: server certificate verification failed for mx.b.test[192.0.2.1]:25: "
        b"num=10:certificate has expired\n" + TLS.replace(b"Trusted", b"Untrusted") + DEFERRED
    )
    assert plain(read_text(log))[0]["tls_outcome"] == "certificate_expired"
    assert [row["tls_outcome"] for row in plain(read_text(log, table="connections"))] == [
        "certificate_expired"
    ]


REMARKS = [
    (
        "what a lenient sender's own level lacks",
        True,
        "Sender requested REQUIRETLS, but my configured TLS security level 'may' disables certificate matching. "
        "The last attempted server was mx.b.test[192.0.2.1]",
    ),
    (
        "what the server lacks",
        False,
        "Sender requested REQUIRETLS, but REQUIRETLS support was not offered by host mx.b.test[192.0.2.1]",
    ),
    ("a work-around", False, "enabling PIX workarounds: delay_dotcrlf for mx.b.test[192.0.2.1]:25"),
]


@pytest.mark.parametrize(
    ("is_before", "remark"), [row[1:] for row in REMARKS], ids=[row[0] for row in REMARKS]
)
def test_remarks_end_no_connection(read_text: Read, is_before: bool, remark: str) -> None:
    """What is said of a message before its connection or within it makes no second one."""
    line = HEAD + b"postfix/smtp[7]: 4F1AA12345: " + remark.encode() + b"\n"
    log = (line + TLS if is_before else TLS + line) + SENT
    rows = plain(read_text(log, table="connections"))
    assert [(row["tls_level"], row["tls_outcome"], row["queue_id"]) for row in rows] == [
        ("trusted", "ok", "4F1AA12345")
    ]
    assert plain(read_text(log))[0]["tls_version"] == "TLSv1.3"


def test_name_that_does_not_match(read_text: Read) -> None:
    """OpenSSL's words for a wrong name say nothing of certificates; the line they stand in does."""
    log = (
        HEAD + b"postfix/smtp[7]: server certificate verification failed for mx.b.test[192.0.2.1]:25: "
        b"num=62:hostname mismatch\n" + TLS + DEFERRED
    )
    assert plain(read_text(log))[0]["tls_outcome"] == "certificate_host_mismatch"
    assert [row["tls_outcome"] for row in plain(read_text(log, table="connections"))] == [
        "certificate_host_mismatch"
    ]
