"""Notices out of mail: the real ones of the lab, the public corpus, every malformed relative, and hostile bytes."""

from __future__ import annotations

import base64
import csv
import io
import json
import quopri
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.outcomes import TlsOutcome, Told
from rtls_analysis.read import dsn
from rtls_analysis.read.dsn import iter_dsns, read_dsns, summarise_dsns, write_dsns
from rtls_analysis.read.dsn_message import MailKind, Notice, read_notice
from rtls_analysis.read.log_output import read_coverage
from rtls_analysis.schema import BOUNCES, Returned, conform

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


def shared(*names: str) -> Path:
    path = SHARED_DATA.joinpath(*names)
    if not path.exists():
        pytest.skip(f"no {'/'.join(names)} beside the repository")
    return path


# -- the notices of real servers, and their truth -----------------------------------------------------------------

T = TlsOutcome
NOT_TLS = {T.NOT_TLS}
CERTIFICATE = {
    T.CERTIFICATE_UNVERIFIED,
    T.CERTIFICATE_HOST_MISMATCH,
    T.CERTIFICATE_NOT_TRUSTED,
    T.CERTIFICATE_EXPIRED,
}

# What the lab knows to have happened, and the outcomes that say so.
LAB_OUTCOMES: dict[str, set[TlsOutcome]] = {
    "certificate_not_verified": CERTIFICATE | {T.TLSA_INVALID},
    "tls_handshake_failed": {T.TLS_HANDSHAKE_FAILED},
    "dane_lookup_failed": {T.DNSSEC_INVALID},
    "tls_required_but_not_offered": {T.STARTTLS_NOT_SUPPORTED},
    "starttls_refused_by_server": {T.STARTTLS_REFUSED},
    "remote_says_encryption_needed": {T.PEER_REQUIRES_TLS},
    "sender_config_disables_cert_matching": {T.LOCAL_POLICY},
    "server_rejected_requiretls_at_mail_from": {T.REQUIRETLS_NOT_SUPPORTED},
    "server_rejected_recipient_requiretls": {T.REQUIRETLS_NOT_SUPPORTED},
    "server_lacks_requiretls": {T.REQUIRETLS_NOT_SUPPORTED},
    "second_hop: server_lacks_requiretls": {T.REQUIRETLS_NOT_SUPPORTED},
    "server_lacks_starttls_for_requiretls": {T.STARTTLS_NOT_SUPPORTED},
    "server_refused_starttls_for_requiretls": {T.STARTTLS_REFUSED},
    "server_certificate_not_acceptable_for_requiretls": CERTIFICATE,
}
# Words with which a notice admits that it was given up, and leaves open why.
SILENT = re.compile(
    r"(?:host \S+ \[\S+\] ?)?(?:retry timeout exceeded)?|all hosts for .* have been failing .*|Envelope expired"
    r"|Network error on destination MXs|Failure Reason: Error: Too many failures \(Tried all MXs\)"
)


def lab_cases() -> list[dict[str, Any]]:
    path = SHARED_DATA / "dsn-lab" / "truth.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize(
    "server", ["exim", "haraka", "opensmtpd", "postfix-3.10", "postfix-3.11", "sendmail"]
)
def test_lab(server: str) -> None:
    """Recipient, action, status and TLS outcome of every real notice are those of the truth."""
    shared("dsn-lab", "truth.jsonl")
    cases = [case for case in lab_cases() if case["file"].startswith(server)]
    assert cases
    for case in cases:
        notice = read_notice(shared("dsn-lab", case["file"]).read_bytes())
        assert [
            (row["final_recipient"], str(row["action"]), row["enhanced_code"] or "") for row in notice.rows
        ] == [(one["recipient"], one["action"].split(" ")[0], one["status"]) for one in case["recipients"]], (
            case["file"]
        )
        for row, one in zip(notice.rows, case["recipients"], strict=True):
            category = one["reason_category"]
            if category.startswith("delivered"):
                assert row["tls_outcome"] is T.OK, case["file"]
            elif row["tls_outcome"] is T.UNKNOWN:
                assert SILENT.fullmatch(row["diagnostic"] or ""), case["file"]
            else:
                assert row["tls_outcome"] in LAB_OUTCOMES.get(category, NOT_TLS), (case["file"], row)
            assert row["original_message_id"] == case["original_message_id"].strip("<>")
            assert str(row["returned"]) == case["returned"]
            assert row["redacted"] is (case["returned"] == "headers")
            assert row["tls_required_no"] is (
                Told.NO if case["original_tls_required_header"] == "none" else Told.YES
            )
            if row["requiretls_requested"] is Told.YES or case["requiretls_requested"] == "yes":
                assert (row["requiretls_requested"], case["requiretls_requested"]) == (Told.YES, "yes"), case[
                    "file"
                ]
            assert row["reporting_mta"] == case["reporting_mta"]


# -- a public corpus ----------------------------------------------------------------------------------------------


def labels() -> dict[str, list[dict[str, str]]]:
    by_file = defaultdict(list)
    with shared("bounces", "labels.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            by_file[row["file"]].append(row)
    return by_file


def corpus_file(name: str) -> bytes:
    folder = next(
        folder for folder in ("eml", "err", "not") if shared("bounces", folder, ".").joinpath(name).exists()
    )
    return shared("bounces", folder, name).read_bytes()


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_corpus(newline: bytes) -> None:
    """Of the public corpus 99 files in 100 give exactly their recipients, and 98.5 codes in 100 are right.

    That holds whatever ends the lines. Of the rest, two have no Status field but a code in the Diagnostic-Code, which
    we give as `diagnostic_code` and not as the status; in one the label's address is not the one in the mail.
    """
    exact = statuses = right = 0
    cases = labels()
    for name, rows in cases.items():
        data = corpus_file(name).replace(b"\r\n", b"\n").replace(b"\n", newline)
        found = {row["final_recipient"].lower(): row for row in read_notice(data).rows}
        wanted = [row for row in rows if row["kind"] in ("bounce", "delivered") and row["recipient"]]
        accepted = [set(row["recipient_accept"].split("|")) for row in wanted]
        hits = [found.keys() & spellings for spellings in accepted]
        exact += all(hits) and found.keys() == set().union(*hits)
        for row, hit in zip(wanted, hits, strict=True):
            if row["status_source"] and row["kind"] == "bounce":
                statuses += 1
                right += any(
                    found[address]["enhanced_code"] in row["status_accept"].split("|") for address in hit
                )
    assert exact >= 0.99 * len(cases)
    assert right >= 0.985 * statuses


def test_corpus_kinds() -> None:
    """Complaints, replies of people who are away and ordinary mail give no rows and are counted as what they are."""
    kinds = {"feedback": MailKind.COMPLAINT, "autoreply": MailKind.AUTO_REPLY}
    for name, rows in labels().items():
        if (kind := kinds.get(rows[0]["kind"])) is not None:
            assert read_notice(corpus_file(name)) == Notice(kind), name
    for path in sorted(shared("bounces", "not").iterdir()):
        assert not read_notice(path.read_bytes()).rows, path.name


# -- a notice of our own, and what becomes of it ------------------------------------------------------------------

WORDS = (
    "I'm sorry to have to inform you that your message could not be delivered to one or more recipients.\n"
)
FIELDS = """Reporting-MTA: dns; mx.relay.test
Original-Envelope-Id: QQ314159
Arrival-Date: Mon, 23 Nov 2026 16:32:10 +0000

Final-Recipient: rfc822; a@away.test
Original-Recipient: rfc822;list@away.test
Action: failed
Status: 5.7.10
Remote-MTA: dns; mx.away.test
Diagnostic-Code: smtp; 550 5.7.10 Encryption needed
"""
ORIGINAL = """Message-ID: <1@desk.test>
From: writer@desk.test
To: a@away.test
Subject: lunch
TLS-Required: No
"""
HEADER = """From: Mail Delivery System <MAILER-DAEMON@mx.relay.test>
To: writer@desk.test
Subject: Undelivered Mail Returned to Sender
Date: Mon, 23 Nov 2026 17:32:10 +0100
MIME-Version: 1.0
"""


def part(content_type: str, body: str | bytes, *more: str) -> bytes:
    content = body.encode() if isinstance(body, str) else body
    return "\n".join([f"Content-Type: {content_type}", *more]).encode() + b"\n\n" + content


def report(
    *parts: bytes, top: str = "multipart/report; report-type=delivery-status", header: str = HEADER
) -> bytes:
    middle = b"".join(b"--=_b\n" + one + b"\n" for one in parts)
    return (
        f'{header}Content-Type: {top};\n boundary="=_b"\n\npreamble\n'.encode()
        + middle
        + b"--=_b--\nepilogue\n"
    )


TEXT = part("text/plain", WORDS)
STATUS = part("message/delivery-status", FIELDS)
BACK = part("text/rfc822-headers", ORIGINAL)
PLAIN = report(TEXT, STATUS, BACK)
INNER = PLAIN.replace(b"=_b", b"=_inner")


def encoded(body: str, encoding: str, charset: str = "us-ascii") -> bytes:
    data = base64.encodebytes(body.encode()) if encoding == "base64" else quopri.encodestring(body.encode())
    return part(f"message/delivery-status; charset={charset}", data, f"Content-Transfer-Encoding: {encoding}")


RELATIVES = [
    ("as RFC 3464 wants it", PLAIN),
    ("multipart/mixed, as OpenSMTPD sends it", report(TEXT, STATUS, BACK, top="multipart/mixed")),
    ("no report type", report(TEXT, STATUS, BACK, top="multipart/report")),
    ("another case", report(TEXT, STATUS, BACK, top="MULTIPART/Report; Report-Type=Delivery-Status")),
    ("no words", report(STATUS, BACK)),
    ("a part too many", report(TEXT, part("text/html", "<p>sorry"), STATUS, BACK, part("text/plain", "--\nscanned"))),
    ("words in two forms", report(part('multipart/alternative; boundary="=_b2"', b"--=_b2\n" + TEXT + b"\n--=_b2--"), STATUS, BACK)),
    ("an inner boundary that begins as the outer", report(part('multipart/related; boundary="=_ba"', b"--=_ba\n" + TEXT + b"\n--=_ba--"), STATUS, BACK)),
    ("quoted-printable fields", report(TEXT, encoded(FIELDS, "quoted-printable"), BACK)),
    ("fields in base64", report(TEXT, encoded(FIELDS, "base64"), BACK)),
    ("base64 with something behind it", report(TEXT, encoded(FIELDS, "base64") + b"=\n-- \nscanned", BACK)),
    ("a charset that nobody knows", report(TEXT, encoded(FIELDS, "base64", "x-klingon"), BACK)),
    ("no codec of text", report(TEXT, encoded(FIELDS, "base64", "zlib"), BACK)),
    ("fields as a plain text part", report(TEXT, part("text/plain; name=status.txt", FIELDS), BACK)),
    ("fields as a file", report(TEXT, part("application/octet-stream", FIELDS), BACK)),
    ("fields among the words", report(part("text/plain", WORDS + "\n" + FIELDS), BACK)),
    ("comments in the fields", report(TEXT, STATUS.replace(b"failed", b"failed (for good)").replace(b"5.7.10\n", b"5.7.10 (sorry)\n"), BACK)),
    ("folded fields", report(TEXT, STATUS.replace(b"rfc822; a@", b"rfc822;\n\ta@").replace(b"5.7.10 Enc", b"5.7.10\n Enc"), BACK)),
    ("an address in an encoded word", report(TEXT, STATUS.replace(b"rfc822; a@away.test", b"rfc822; =?utf-8?Q?a=40away=2Etest?="), BACK)),
    ("no final boundary", PLAIN.replace(b"\n--=_b--\nepilogue\n", b"\n")),
    ("a boundary that is not told", PLAIN.replace(b';\n boundary="=_b"', b"")),
    ("a boundary that is told wrongly", PLAIN.replace(b'boundary="=_b"', b'boundary="=_other"')),
    ("a boundary without quotes and with white space", PLAIN.replace(b'boundary="=_b"', b"boundary = =_b ")),
    ("empty lines and a separator line first", b"From MAILER-DAEMON Mon Nov 23 16:32:12 2026\n" + PLAIN),
    ("CRLF", PLAIN.replace(b"\n", b"\r\n")),
    ("CR alone", PLAIN.replace(b"\n", b"\r")),
    ("both, in one message", PLAIN.replace(b"\n", b"\r\n", 9)),
    ("forwarded", report(part("text/plain", "What is this?"), part("message/rfc822", INNER), top="multipart/mixed", header="From: boss@desk.test\nSubject: Fwd: Undelivered\n")),
    ("in a digest", report(b"\n" + INNER, top="multipart/digest", header="From: list@desk.test\nSubject: digest\n")),
    ("about a notice: the outer counts", report(TEXT, STATUS, part("message/rfc822", ORIGINAL.encode() + PLAIN.replace(b"a@away", b"inner@away")))),
]  # fmt: skip


@pytest.mark.parametrize("data", [pytest.param(data, id=why) for why, data in RELATIVES])
def test_relatives(data: bytes, tmp_path: Path) -> None:
    """However a notice is mistreated on its way, it says the same."""
    path = tmp_path / "notice.eml"
    path.write_bytes(data)
    frame = read_dsns(path, progress=False)
    (row,) = frame.to_dict("records")
    assert row["final_recipient"] == "a@away.test"
    assert row["original_recipient"] == "list@away.test"
    assert row["recipient_domain"] == "away.test"
    assert (row["action"], row["enhanced_code"], row["reply_code"]) == ("failed", "5.7.10", 550)
    assert (row["diagnostic_type"], row["diagnostic_code"]) == ("smtp", "5.7.10")
    assert row["diagnostic"].startswith("550 5.7.10 Encryption needed")
    assert (row["remote_mta"], row["reporting_mta"]) == ("mx.away.test", "mx.relay.test")
    assert row["original_envelope_id"] == "QQ314159"
    assert row["tls_outcome"] == "peer_requires_tls"
    assert row["original_message_id"] == "1@desk.test"
    assert (row["tls_required_no"], row["returned"]) == (
        "yes",
        "headers" if b"inner@" not in data else "full",
    )
    assert row["reported_at"] == pd.Timestamp("2026-11-23 16:32:10", tz="UTC")
    assert row["form"] == "rfc3464"
    assert row["source_file"] == str(path)
    assert list(frame.columns) == BOUNCES.names()


INTERNATIONAL = [
    ("the address as it is", "utf-8; jörg@bücher.test", "jörg@bücher.test", "xn--bcher-kva.test"),
    ("in the seven-bit form", r"utf-8; j\x{F6}rg@b\x{FC}cher.test", "jörg@bücher.test", "xn--bcher-kva.test"),
    ("an ASCII domain", "utf-8; 用户@away.test", "用户@away.test", "away.test"),
    ("of type rfc822 all the same", "rfc822; jörg@away.test", "jörg@away.test", "away.test"),
]


@pytest.mark.parametrize(
    ("field", "address", "domain"), [pytest.param(*case, id=why) for why, *case in INTERNATIONAL]
)
@pytest.mark.parametrize("encoding", ["8bit", "base64", "quoted-printable"])
def test_rfc6533(field: str, address: str, domain: str, encoding: str) -> None:
    """Internationalised notices are read, whatever form the address has and however the part is encoded."""
    fields = FIELDS.replace("rfc822; a@away.test", field).replace(
        "Encryption needed", "Verschlüsselung, encryption needed"
    )
    body = {"8bit": lambda d: d, "base64": base64.encodebytes, "quoted-printable": quopri.encodestring}[
        encoding
    ](fields.encode())
    status = part("message/global-delivery-status", body, f"Content-Transfer-Encoding: {encoding}")
    original = part("message/global-headers", ORIGINAL.replace("lunch", "Mittagessen für jörg"))
    (row,) = read_notice(report(TEXT, status, original)).rows
    assert (row["form"], row["final_recipient"], row["recipient_domain"]) == ("rfc6533", address, domain)
    assert row["diagnostic"] == "550 5.7.10 Verschlüsselung, encryption needed"
    assert (row["returned"], row["tls_required_no"]) == (Returned.HEADERS, Told.YES)


def test_several_recipients() -> None:
    """Each recipient is a row, with what its own fields and its own words say."""
    fields = (
        "Reporting-MTA: dns; mx.relay.test\n\n"
        "Final-Recipient: rfc822; a@away.test\nAction: delayed\nStatus: 4.7.5\n\n"
        "Final-Recipient: rfc822; b@away.test\nAction: relayed (to non-DSN-aware mailer)\nStatus: 2.0.0\n\n"
        "Final-Recipient: rfc822; c@away.test\nAction: failed\nStatus: 5.0.0\nDiagnostic-Code: X-Postfix; unknown user\n"
    )
    words = "Delivery failed.\n\n  a@away.test\n    TLS session: (gnutls_handshake): timed out\n  c@away.test\n    gone\n"
    notice = read_notice(report(part("text/plain", words), part("message/delivery-status", fields)))
    assert [(row["final_recipient"], str(row["action"]), str(row["tls_outcome"])) for row in notice.rows] == [
        ("a@away.test", "delayed", "tls_handshake_failed"),
        ("b@away.test", "relayed", "ok"),
        ("c@away.test", "failed", "not_tls"),
    ]
    assert [row["diagnostic"] for row in notice.rows] == [
        "TLS session: (gnutls_handshake): timed out",
        None,
        "unknown user",
    ]
    assert notice.kind is MailKind.DSN


def test_status_as_it_stands() -> None:
    """The status is that of its field, also where the reply or the action says something else."""
    data = PLAIN.replace(b"Status: 5.7.10", b"Status: 4.4.7")
    (row,) = read_notice(data).rows
    assert (row["enhanced_code"], row["diagnostic_code"], str(row["action"])) == ("4.4.7", "5.7.10", "failed")
    (row,) = read_notice(PLAIN.replace(b"Status: 5.7.10\n", b"")).rows
    assert (row["enhanced_code"], row["diagnostic_code"]) == (None, "5.7.10")


ORDER = [
    ("the words of the field before the code", "550 5.7.30 TLS is required, but was not offered", "5.7.30", "", "starttls_not_supported"),
    ("the words for people before the code", "", "5.7.10", "certificate has expired", "certificate_expired"),
    ("the field before the words for people", "550 5.7.1 Encryption needed", "5.7.1", "certificate has expired", "peer_requires_tls"),
    ("the code of the reply, where no words tell", "550 5.7.30 abgelehnt", "5.0.0", "", "requiretls_not_supported"),
    ("the status, where nothing else tells", "", "4.7.321", "", "starttls_not_supported"),
    ("another reason", "550 5.1.1 user unknown", "5.1.1", "", "not_tls"),
    ("a code that stands for anything", "", "5.7.5", "", "unknown"),
    ("no reason at all", "", "5.0.0", "retry timeout exceeded", "unknown"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("diagnostic", "status", "said", "outcome"), [pytest.param(*case, id=why) for why, *case in ORDER]
)
def test_order_of_evidence(diagnostic: str, status: str, said: str, outcome: str) -> None:
    """The field decides, then the words for people, and a code only where no words do."""
    fields = f"Final-Recipient: rfc822; a@away.test\nAction: failed\nStatus: {status}\n"
    fields += f"Diagnostic-Code: smtp; {diagnostic}\n" if diagnostic else ""
    words = f"Delivery failed.\n\n  a@away.test\n    {said}\n"
    (row,) = read_notice(report(part("text/plain", words), part("message/delivery-status", fields))).rows
    assert row["tls_outcome"] == outcome


MARKS = [
    ("Postfix's field", "Require-TLS-ESMTP: yes\n", Told.YES),
    (
        "mox's comment",
        "Received: from a by b via tcp with UTF8ESMTPS (requiretls)\n\tid x; Mon, 23 Nov 2026\n",
        Told.YES,
    ),
    (
        "Exim 4.92's protocol",
        "Received: from a by b with esmtpS (Exim 4.92) id x; Mon, 23 Nov 2026\n",
        Told.YES,
    ),
    (
        "Exim's ordinary TLS",
        "Received: from a by b with esmtps (Exim 4.96) id x; Mon, 23 Nov 2026\n",
        Told.UNKNOWN,
    ),
    ("nothing", "", Told.UNKNOWN),
]


@pytest.mark.parametrize(("mark", "told"), [pytest.param(m, t, id=why) for why, m, t in MARKS])
def test_requiretls_requested(mark: str, told: Told) -> None:
    """Marks in the returned header tell that the message asked for REQUIRETLS; their lack tells nothing."""
    (row,) = read_notice(report(TEXT, STATUS, part("text/rfc822-headers", mark + ORIGINAL))).rows
    assert row["requiretls_requested"] is told


def test_refusal_tells_the_wish() -> None:
    """A refusal that speaks of REQUIRETLS was of a message that asked for it."""
    (row,) = read_notice(
        PLAIN.replace(b"5.7.10 Encryption needed", b"5.7.30 REQUIRETLS support required")
    ).rows
    assert (row["requiretls_requested"], row["tls_outcome"]) == (Told.YES, T.REQUIRETLS_NOT_SUPPORTED)


FIELDS_OF_WISH = [
    ("RFC 8689", "TLS-Required: No", Told.YES),
    ("another case, folded", "tls-required:\n no", Told.YES),
    ("the drafts' name", "RequireTLS: NO", Told.YES),
    ("another value counts as none", "TLS-Required: yes", Told.NO),
    ("not there", "X-Other: No", Told.NO),
]


@pytest.mark.parametrize(("line", "told"), [pytest.param(line, t, id=why) for why, line, t in FIELDS_OF_WISH])
def test_tls_required_no(line: str, told: Told) -> None:
    """The field counts in the returned message, and in the notice to which Postfix copies it."""
    original = part("message/rfc822", ORIGINAL.replace("TLS-Required: No", line) + "\nShall we?\n")
    (row,) = read_notice(report(TEXT, STATUS, original)).rows
    assert (row["tls_required_no"], row["returned"], row["redacted"]) == (told, Returned.FULL, False)
    (row,) = read_notice(report(TEXT, STATUS, header=f"{HEADER}{line}\n")).rows
    assert row["tls_required_no"] is (Told.UNKNOWN if told is Told.NO and "Other" in line else told)
    assert (row["returned"], row["redacted"]) == (Returned.NONE, None)


# -- what is no notice --------------------------------------------------------------------------------------------

NO_NOTICES = [
    ("a letter", "From: a@desk.test\nSubject: lunch\n\nShall we?\n", MailKind.ORDINARY),
    ("a question about a bounce", "From: a@desk.test\nSubject: Re: Undelivered Mail Returned to Sender\n\nWhy can't I send to b@away.test?\n\n"
     "> <b@away.test>: host mx.away.test said: 550 5.1.1 unknown\n> Final-Recipient: rfc822; b@away.test\n> Action: failed\n> Status: 5.1.1\n", MailKind.ORDINARY),
    ("a newsletter about mail", "From: news@desk.test\nSubject: Deliverability report\n\nMail to a@away.test could not be delivered? Read on.\n", MailKind.ORDINARY),
    ("away", "From: a@desk.test\nAuto-Submitted: auto-replied\nSubject: lunch\n\nI am away; b@desk.test helps.\n", MailKind.AUTO_REPLY),
    ("away, by its subject", "From: a@desk.test\nSubject: Automatic reply: lunch\n\nI am away.\n", MailKind.AUTO_REPLY),
    ("away, from the null sender", "Return-Path: <>\nFrom: a@desk.test\nAuto-Submitted: auto-replied\nSubject: x\n\nback soon\nb@desk.test\n", MailKind.AUTO_REPLY),
    ("a complaint", report(TEXT, part("message/feedback-report", "Feedback-Type: abuse\n"), BACK, top="multipart/report; report-type=feedback-report").decode(), MailKind.COMPLAINT),
    ("a complaint in multipart/mixed", report(TEXT, part("message/feedback-report", "Feedback-Type: abuse\n"), top="multipart/mixed").decode(), MailKind.COMPLAINT),
    ("a receipt", report(TEXT, part("message/disposition-notification", "Final-Recipient: rfc822; a@away.test\nDisposition: manual-action; displayed\n"), top="multipart/report; report-type=disposition-notification").decode(), MailKind.RECEIPT),
    ("a TLS report", report(TEXT, part("application/tlsrpt+gzip", "..."), top="multipart/report; report-type=tlsrpt").decode(), MailKind.TLS_REPORT),
    ("no mail", "\x00\x01 nothing\n", MailKind.UNREADABLE),
    ("nothing", "", MailKind.UNREADABLE),
]  # fmt: skip


@pytest.mark.parametrize(("data", "kind"), [pytest.param(d, k, id=why) for why, d, k in NO_NOTICES])
def test_no_notices(data: str, kind: MailKind) -> None:
    """What is no notice is told apart and gives no row."""
    notice = read_notice(data.encode())
    assert (notice.kind, list(notice.rows)) == (kind, [])


def test_forwarded_in_the_text() -> None:
    """A notice that somebody forwarded in the text of a letter is read; one that is quoted in a reply is not."""
    words = (
        "<a@away.test>: host mx.away.test[192.0.2.1] said: 530 5.7.0 Must issue a STARTTLS command first\n"
    )
    quoted = "".join(
        f"> {line}\n"
        for line in f"{HEADER}\nThis is the mail system. It could not be delivered.\n\n{words}".splitlines()
    )
    forward = f"From: a@desk.test\nSubject: Fwd: Undelivered\n\nLook:\n\nBegin forwarded message:\n\n{quoted}"
    (row,) = read_notice(forward.encode()).rows
    assert (row["final_recipient"], row["enhanced_code"], row["tls_outcome"]) == (
        "a@away.test",
        "5.7.0",
        T.PEER_REQUIRES_TLS,
    )
    reply = forward.replace("Begin forwarded message:", "MAILER-DAEMON wrote:").replace("Fwd:", "Re:")
    assert not read_notice(reply.encode()).rows


TOLD = {
    "notificationType": "Bounce",
    "bounce": {
        "bounceType": "Permanent",
        "reportingMTA": "dns; mx.relay.test",
        "bouncedRecipients": [
            {
                "emailAddress": "a@away.test",
                "action": "failed",
                "status": "5.1.1",
                "diagnosticCode": "smtp; 550 5.1.1 unknown",
            }
        ],
    },
    "mail": {"messageId": "0001-2"},
}
DELIVERED = {
    "eventType": "Delivery",
    "delivery": {
        "recipients": ["a@away.test"],
        "smtpResponse": "250 2.6.0 received",
        "reportingMTA": "mx.relay.test",
    },
    "mail": {"messageId": "0001-2"},
}


def json_mail(record: object) -> bytes:
    text = json.dumps(record)
    return f"From: no-reply@relay.test\nSubject: notification\n\n{text}\n\n--\nunsubscribe\n".encode()


@pytest.mark.parametrize("wrapped", [False, True])
def test_json(wrapped: bool) -> None:
    """Amazon SES tells of bounces and deliveries in JSON, by mail; SNS may have wrapped it."""

    def told(record: dict[str, Any]) -> Notice:
        return read_notice(
            json_mail({"Type": "Notification", "Message": json.dumps(record)} if wrapped else record)
        )

    (row,) = told(TOLD).rows
    assert (row["final_recipient"], row["enhanced_code"], row["reply_code"], row["form"]) == (
        "a@away.test",
        "5.1.1",
        550,
        "amazon-ses",
    )
    assert (row["original_message_id"], row["reporting_mta"], str(row["action"])) == (
        "0001-2",
        "mx.relay.test",
        "failed",
    )
    (row,) = told(DELIVERED).rows
    assert (row["final_recipient"], row["enhanced_code"], str(row["action"])) == (
        "a@away.test",
        "2.6.0",
        "delivered",
    )
    assert told({"notificationType": "Complaint", "mail": {"messageId": "1"}}) == Notice(MailKind.COMPLAINT)
    for lacking in ("bounce", "mail", "notificationType"):
        assert not told({name: value for name, value in TOLD.items() if name != lacking}).rows


# -- tables -------------------------------------------------------------------------------------------------------


def test_folder(tmp_path: Path) -> None:
    """Files of every kind become one table, and the coverage tells what was no notice, or should have been one."""
    (tmp_path / "cur").mkdir()
    (tmp_path / "cur" / "1").write_bytes(PLAIN)
    (tmp_path / "mbox").write_bytes(
        b"".join(
            b"From x Mon Nov 23 16:32:12 2026\n" + one + b"\n"
            for one in (PLAIN, PLAIN.replace(b"failed", b"delayed"))
        )
    )
    (tmp_path / "letter.eml").write_bytes(b"From: a@desk.test\nSubject: lunch\n\nShall we?\n")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "nobody.eml").write_bytes(
        report(TEXT, part("message/delivery-status", "Reporting-MTA: dns; a.test\n"))
    )
    frame = read_dsns(tmp_path, progress=False)
    names = [str(tmp_path / name) for name in ("mbox#1", "mbox#2", "cur/1")]
    assert frame["source_file"].tolist() == names
    assert frame.attrs["coverage"] == {
        "messages_read": 6,
        "messages_matched": 3,
        "kinds": {"dsn": 3, "delay": 1, "ordinary": 1, "unreadable": 1},
        "skipped": {
            "empty": {"count": 1, "samples": [str(tmp_path / "empty")]},
            "a notice that names no recipient": {"count": 1, "samples": [str(tmp_path / "nobody.eml")]},
        },
        "rows": 3,
        "unreadable_files": {},
    }
    text = summarise_dsns(frame)
    assert "6 messages read" in text
    assert "3  peer_requires_tls: 550 5.7.10 Encryption needed" in text
    assert str(tmp_path / "nobody.eml") in text


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_written(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file has the same rows, however many parts it was written in, and the same summary."""
    monkeypatch.setattr(dsn, "PART_ROWS", 10)
    (tmp_path / "mbox").write_bytes((b"From x Mon Nov 23 16:32:12 2026\n" + PLAIN + b"\n") * 25)
    frame = read_dsns(tmp_path / "mbox", progress=False)
    path = tmp_path / f"bounces.{ending}"
    assert str(write_dsns(tmp_path / "mbox", path, progress=False)) == summarise_dsns(frame)
    read = {
        "parquet": pd.read_parquet,
        "csv": pd.read_csv,
        "jsonl": lambda name: pd.read_json(name, lines=True),
    }
    written = conform(read[ending](path), BOUNCES)
    pd.testing.assert_frame_equal(written, frame)
    if ending == "parquet":
        assert read_coverage(path) == frame.attrs["coverage"]


def test_summary_is_printable(tmp_path: Path) -> None:
    """Control characters of strangers do not reach the terminal."""
    path = tmp_path / "a\x1b[2J.eml"
    path.write_bytes(PLAIN.replace(b"Encryption needed", b"Encryption \x1b]0;x\x07 needed"))
    assert summarise_dsns(read_dsns(path, progress=False)).replace("\n", "").isprintable()


def test_parts_of_a_table() -> None:
    """The table comes in parts of bounded size, and they are the same rows."""
    mbox = b"".join(b"From x Mon Nov 23 16:32:12 2026\n" + PLAIN + b"\n" for _ in range(25))
    parts = list(iter_dsns(io.BytesIO(mbox), progress=False, rows=10))
    assert [len(one) for one in parts] == [10, 10, 5]
    assert [one.attrs["coverage"]["rows"] for one in parts] == [10, 20, 25]
    pd.testing.assert_frame_equal(
        pd.concat(parts, ignore_index=True), read_dsns(io.BytesIO(mbox), progress=False)
    )


def test_nothing_to_read(tmp_path: Path) -> None:
    """No mail is an empty table with all its columns; a path to nothing is the caller's error."""
    frame = read_dsns(tmp_path, progress=False)
    assert (len(frame), list(frame.columns)) == (0, BOUNCES.names())
    assert frame.attrs["coverage"]["messages_read"] == 0
    assert "0 recipients" in summarise_dsns(frame)
    with pytest.raises(FileNotFoundError):
        read_dsns(tmp_path / "nothing", progress=False)


# -- hostile mail -------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    inner = b"Content-Type: text/plain\n\nx"
    for number in range(depth):
        inner = (
            b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n' % (number, number)
            + inner
            + b"\n--%d--" % number
        )
    return b"From: MAILER-DAEMON\nSubject: failure notice\n" + inner


FAILURE = HEADER.encode() + b"\nDelivery failed.\n\n"
HOSTILE: list[tuple[str, Callable[[int], bytes]]] = [
    ("a header line", lambda n: b"From: MAILER-DAEMON\nSubject: " + b"x" * n + b"\n\nfailed"),
    ("a folded header line", lambda n: b"Subject: x\nReceived: " + b"x\n " * (n // 3) + b"\n\nfailed"),
    ("header fields without end", lambda n: b"X: y\n" * (n // 5)),
    ("parts in parts", lambda n: nested(n // 60)),
    ("messages in messages", lambda n: b"From: MAILER-DAEMON\nContent-Type: message/rfc822\n\n" * (n // 55)),
    ("boundaries without end", lambda n: b'Content-Type: multipart/mixed; boundary="b"\n\n' + b"--b\n\nx\n" * (n // 7)),
    ("boundaries that begin alike", lambda n: b'Content-Type: multipart/mixed; boundary="b"\n\n' + b"--bb\nx\n" * (n // 7)),
    ("recipients without end", lambda n: report(part("message/delivery-status", "Final-Recipient: rfc822; a@x.test\n\n" * (n // 40)))),
    ("continuation lines", lambda n: report(part("message/delivery-status", "Final-Recipient: rfc822; a@x\nStatus: 5\n" + " x\n" * (n // 3)))),
    ("lines that lost their folding", lambda n: report(part("message/delivery-status", "Final-Recipient: rfc822; a@x\n" + "x\n" * (n // 2)))),
    ("white space", lambda n: report(part("message/delivery-status", "Final-Recipient: rfc822; a@x\n" + " " * n))),
    ("addresses in words", lambda n: FAILURE + b"<a@x.test>:\n" * (n // 12)),
    ("addresses in words, all of them others", lambda n: FAILURE + b"".join(b"<%d@x.test>:\n" % k for k in range(n // 14))),
    ("addresses with labels", lambda n: FAILURE + b"".join(b"Recipient: %d@x.test\n" % k for k in range(n // 20))),
    ("addresses in sentences", lambda n: FAILURE + b"could not be delivered to %d@x.test " * (n // 38)),
    ("failed recipients in the header", lambda n: b"From: MAILER-DAEMON\nX-Failed-Recipients: " + b"".join(b"%d@x.test,\n " % k for k in range(n // 14)) + b"\n\nfailed\n 5@x.test\n  x"),
    ("dialogues", lambda n: FAILURE + b">>> RCPT TO:<a@x.test>\n<<< 550 x\n" * (n // 35)),
    ("recipients without end, all of them others", lambda n: report(part("message/delivery-status", "".join(f"Final-Recipient: rfc822; {k}@x.test\n\n" for k in range(n // 36))))),
    ("a line of at signs", lambda n: FAILURE + b" " + b"a@" * (n // 2)),
    ("a line of angle brackets", lambda n: FAILURE + b" " + b"<" * n),
    ("a line of dashes", lambda n: FAILURE + b"\n" + b"-" * n),
    ("dashes and message", lambda n: FAILURE + b"\n" + b"-- message " * (n // 11)),
    ("header lines in words", lambda n: FAILURE + b"\n" + b"Received: x\n\n" * (n // 13)),
    ("words that may be fields", lambda n: FAILURE + b"\n" + b"Reporting-MTA: x\n" * (n // 17)),
    ("tags", lambda n: HEADER.encode() + b"Content-Type: text/html\n\nDelivery failed" + b"<style>" * (n // 7)),
    ("encoded words", lambda n: b"From: MAILER-DAEMON\nSubject: " + b"=?utf-8?Q?x?= " * (n // 14) + b"\n\nfailed"),
    ("half encoded words", lambda n: b"From: MAILER-DAEMON\nSubject: " + b"=?" * (n // 2) + b"\n\nfailed"),
    ("a charset to choke on", lambda n: report(part("text/plain; charset=punycode", "failed" + "a-" * (n // 2)), top="multipart/mixed")),
    ("digits and dots", lambda n: FAILURE + b" " + b"5." * (n // 2)),
    ("JSON", lambda n: HEADER.encode() + b'\n{"notificationType": ' + b"[" * n),
    ("a diagnostic about TLS", lambda n: PLAIN.replace(b"Encryption needed", b"tls certificate " * (n // 16))),
]  # fmt: skip


@pytest.mark.parametrize("make", [pytest.param(make, id=why) for why, make in HOSTILE])
def test_hostile(make: Callable[[int], bytes]) -> None:
    """Whatever is repeated without end, nothing raises; `tests/fuzz` measures that time stays in proportion."""
    notice = read_notice(make(200_000))
    assert isinstance(notice.kind, MailKind)
    assert all(row["final_recipient"] for row in notice.rows)


def test_too_many_recipients() -> None:
    """A notice of more recipients than anybody writes to gives the first of them, and says so."""
    fields = "".join(
        f"Final-Recipient: rfc822; {number}@x.test\nAction: failed\n\n" for number in range(10_100)
    )
    notice = read_notice(report(part("message/delivery-status", fields)))
    assert (len(notice.rows), notice.rows[-1]["final_recipient"]) == (10_000, "9999@x.test")
    assert notice.detail == "only the first 10,000 recipients of a notice"


def test_lone_surrogates() -> None:
    """A charset in which halves of a character can be written makes no exception, nor in the table."""
    words = "Delivery failed.\n\n<a@away.test>:\n+2Qk- gone\n\nMessage-ID: <1@x.test>\nFrom: +2Qk-\nTo: b@x.test\nSubject: x\n\n"
    data = f"{HEADER}Content-Type: text/plain; charset=utf-7\n\n\xff{words}".encode("latin-1")
    (row,) = read_dsns(io.BytesIO(data), progress=False).to_dict("records")
    assert (row["final_recipient"], row["original_message_id"]) == ("a@away.test", "1@x.test")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_mutated(data: st.DataObject) -> None:
    """A notice with any bytes cut out, put in or doubled is read without an exception."""
    message = data.draw(st.sampled_from([PLAIN, *(relative for _, relative in RELATIVES)]))
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(message)))
        end = data.draw(st.integers(begin, min(len(message), begin + 200)))
        message = (
            message[:begin]
            + data.draw(st.sampled_from([b"", b"\n", b"\0", b"--=_b\n", b"\xff", message[begin:end] * 2]))
            + message[end:]
        )
    notice = read_notice(message)
    for row in notice.rows:
        assert row["final_recipient"]
        assert set(row) <= set(BOUNCES.names())
