"""Which TLS reason a text gives: the words of servers and libraries, and traps that only look like it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.outcomes import TlsOutcome
from rtls_analysis.read.dsn_message import read_notice
from rtls_analysis.read.tls_reasons import reason_in_code, reason_in_words

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"

# Typed from the sources and documents of the programs, or made up after them; hosts are ours.
TEXTS = [
    ("not_tls", "550 5.7.1 Rejected: looks like a gift certificate scam"),
    ("not_tls", "lost connection with mx.x.test[192.0.2.1] while performing the EHLO handshake"),
    ("not_tls", "550 5.1.1 Dane Doe: invalid recipient"),
    ("starttls_not_supported", "tls policy is Required but STARTTLS is not advertised by mx.x.test"),
    ("starttls_not_supported", "450 4.4.317 Cannot connect to remote server [Message=451 5.7.3 STARTTLS is required to send mail] [LastAttemptedServerName=mx.example.org]"),
    ("certificate_unverified", "450 4.7.320 certificate validation failed: Destination mail server certificate chain is not valid"),
    ("starttls_not_supported", "450 4.7.321 starttls-not-supported: Destination mail server must support TLS to receive mail."),
    ("dnssec_invalid", "550 5.7.324 dnssec-invalid: Destination domain returned invalid DNSSEC records"),
    ("certificate_host_mismatch", "550 5.7.325 certificate-host-mismatch: Remote certificate MUST have a common name or subject alternative name matching the hostname (DANE)"),
    ("certificate_host_mismatch", "550 5.7.5 Remote certificate failed MTA-STS validation. Reason: NameMismatch"),
    ("certificate_expired", "450 4.7.5 Remote certificate failed MTA-STS validation. Reason: CertExpired"),
    ("certificate_not_trusted", "450 4.7.5 Remote certificate failed MTA-STS validation. Reason: UntrustedRoot"),
    ("sts_mx_mismatch", "Failed to establish the MX record authenticity (MTA-STS)"),
    ("mx_unauthenticated", "Failed to establish the MX record authenticity (REQUIRETLS)"),
    ("starttls_not_supported", "TLS it not available or unauthenticated but required (REQUIRETLS)"),
    ("certificate_not_trusted", "Recipient server TLS certificate is not trusted but authentication is required by MTA-STS"),
    ("dane_required", "<u@e.org> (DANE failed to authenticate 'mx.e.org': No TLSA records found)"),
    ("dane_required", "<u@e.org> (DANE failed to authenticate 'mx.e.org': No valid TLSA records were found.)"),
    ("dane_required", "<u@e.org> (DANE failed to authenticate 'mx.e.org': No TLSA DNSSEC records found)"),
    ("tlsa_invalid", "<u@e.org> (DANE failed to authenticate 'mx.e.org': No certificates were provided by host)"),
    ("sts_mx_mismatch", "<u@e.org> (MTA-STS failed to authenticate 'mx.e.org': MX not authorized by policy.)"),
    ("sts_policy_invalid", "<u@e.org> (MTA-STS failed to authenticate 'e.org': Invalid policy: missing mx)"),
    ("sts_policy_invalid", "<u@e.org> (MTA-STS failed to authenticate 'e.org': Failed to parse policy: Invalid max_age)"),
    ("sts_policy_fetch_error", "<u@e.org> (MTA-STS failed to authenticate 'e.org': Failed to obtain policy DNS record)"),
    ("certificate_not_trusted", "<u@e.org> (TLS error from 'mx.e.org': Handshake failed: invalid peer certificate: UnknownIssuer)"),
    ("certificate_expired", "<u@e.org> (TLS error from 'mx.e.org': Handshake failed: invalid peer certificate: Expired)"),
    ("certificate_host_mismatch", "<u@e.org> (TLS error from 'mx.e.org': Handshake failed: invalid peer certificate: NotValidForName)"),
    ("tls_handshake_failed", "<u@e.org> (TLS error from 'mx.e.org': Handshake failed: received fatal alert: HandshakeFailure)"),
    ("tls_version_too_low", "<u@e.org> (TLS error from 'mx.e.org': Handshake failed: peer is incompatible: ServerDoesNotSupportTls12Or13)"),
    ("starttls_refused", "a TLS session is required, but an attempt to start TLS failed"),
    ("requiretls_not_supported", "REQUIRETLS support is required from the server but it was not offered"),
    ("dnssec_invalid", "DANE error: tlsa lookup DEFER"),
    ("dane_required", "DANE error: tlsa lookup FAIL"),
    ("dane_required", "DANE error: mx1.x.test lookup not DNSSEC"),
    ("tls_handshake_failed", "TLS session: (SSL_connect): error:0A000126:SSL routines::unexpected eof while reading"),
    ("tls_version_too_low", "TLS session: (gnutls_handshake): A packet with illegal or unsupported version was received."),
    ("tls_version_too_low", "TLS session: (SSL_connect): error:0A000102:SSL routines::unsupported protocol"),
    ("certificate_host_mismatch", "TLS session: (certificate verification failed): certificate invalid: name mismatch"),
    ("certificate_expired", "TLS session: (SSL_connect): certificate verification failed, The certificate has expired"),
    ("requiretls_not_supported", "destination servers do not support requiretls"),
    ("mx_unauthenticated", "missing required tls verification mechanism"),
    ("mx_unauthenticated", "verified tls is required, but destination has no usable dane records and no mta-sts policy"),
    ("tls_handshake_failed", "tls error: starttls: remote error: tls: handshake failure"),
    ("certificate_not_trusted", "tls error: x509: certificate signed by unknown authority"),
    ("certificate_host_mismatch", "tls error: x509: certificate is valid for a.example, not mx.example.org"),
    ("certificate_expired", "tls error: x509: certificate has expired or is not yet valid: current time 2026"),
    ("starttls_not_supported", "403 4.7.0 encryption too weak 0 less than 112"),
    ("certificate_unverified", "403 4.7.0 not authenticated"),
    ("starttls_refused", "454 4.3.3 TLS not available: error generating SSL handle"),
    ("starttls_refused", "454 4.3.3 TLS currently not available"),
    ("starttls_refused", "TLS currently unavailable"),
    ("peer_requires_tls", "530 5.7.0 Must issue a STARTTLS command first"),
    ("peer_requires_tls", "530 5.7.0 STARTTLS required for mail delivery"),
    ("peer_requires_tls", "550 5.7.1 Session encryption is required"),
    ("peer_requires_tls", "550 5.7.1 TLS conversation required"),
    ("peer_requires_tls", "550 5.7.10 Encryption needed"),
    ("peer_requires_tls", "451 4.7.1 This server only accepts mail over TLS"),
    ("peer_requires_tls", "554 5.7.1 We do not accept mail from you over an unencrypted connection"),
    ("peer_requires_tls", "550-5.7.29 This message was sent without TLS. 550 5.7.29 https://support.google.com/mail/answer/81126 - gsmtp"),
    ("peer_requires_tls", "421 4.7.29 Your email has been rate limited because this message was not sent over a TLS connection."),
    ("starttls_not_supported", "500 Remote server does not support TLS (state 6)"),
    ("tls_handshake_failed", "TLS Negotiation failed: FAILED_PRECONDITION: starttls error (71): 123:error:10000438:SSL routines:OPENSSL_internal:TLSV1_ALERT_INTERNAL_ERROR"),
    ("certificate_host_mismatch", "Certificate verification failed: hostname mismatch"),
    ("starttls_not_supported", "STARTTLS is not supported by the server"),
    ("starttls_not_supported", "server does not offer STARTTLS"),
    ("peer_requires_tls", "host mx.x.test[192.0.2.1] refused to talk to me: 554 5.7.0 TLS required"),
    ("certificate_not_trusted", "IO Error: certificate verification failed: self-signed certificate"),
    ("starttls_not_supported", "TLS required but not supported by remote host"),
    ("starttls_refused", "STARTTLS rejected: 502 command not implemented"),
    ("certificate_host_mismatch", "Sender requested REQUIRETLS, but no matching server certificate was found. The last attempted server was mx1.x.test[192.0.2.1]"),
    ("starttls_refused", "Sender requested REQUIRETLS, but host mx1.x.test[192.0.2.1] refused to start TLS: 454 4.7.0 TLS not available due to local problem"),
    ("requiretls_not_supported", "555 5.5.4 REQUIRETLS parameter unrecognized"),
    ("requiretls_not_supported", "501 <a@x.test> REQUIRETLS: malformed address: REQUIRETLS may not follow <a@x.test>"),
    ("requiretls_not_supported", "503 5.5.4 Invalid command arguments: Unsupported option REQUIRETLS"),
    ("requiretls_not_supported", "530 REQUIRETLS not permitted on non-TLS connections"),
    ("requiretls_not_supported", "Server does not support REQUIRETLS extension (RFC 8689)"),
    ("requiretls_not_supported", "smtp: server does not support REQUIRETLS"),
    ("requiretls_not_supported", "523 5.7.10 requiretls only allowed on tls-encrypted connections"),
    ("starttls_not_supported", "Mail delivery failed; the receiving server does not support STARTTLS"),
    ("local_policy", "454 4.7.5 The certificate specified in TlsCertificateName of the SendConnector could not be found."),
    ("local_policy", "450 4.7.0 TLS is required, but our TLS engine is unavailable"),
    ("not_tls", "server unavailable or unable to receive mail"),
    ("not_tls", "550 5.7.1 <tls@example.org>: Recipient address rejected: Access denied"),
    ("not_tls", "550 5.1.1 <dane.smith@encrypt.example>: user unknown"),
    ("not_tls", "552 5.7.0 Our system detected an illegal attachment on your message: ssl-certificate.zip"),
    ("not_tls", "550 5.7.1 message contains an invalid S/MIME certificate"),
    ("not_tls", "550 5.7.20 DKIM signature expired; see https://example.org/certificate-expired"),
    ("not_tls", "554 5.7.1 spam message rejected: subject contains 'SSL certificate expired'"),
    ("not_tls", "550 5.7.1 Message rejected for policy reasons; see our TLS and mail policy page"),
    ("not_tls", "host tls.example.org[192.0.2.1] said: 452 4.2.2 Mailbox full"),
    ("not_tls", "connect to starttls.example.org[192.0.2.1]:25: Connection refused"),
    ("not_tls", "550 5.7.1 mail from handshake.example.org rejected"),
    ("not_tls", "421 4.7.0 mx.x.test Error: too many errors (using TLSv1.2 with cipher ECDHE)"),
    ("not_tls", "535 5.7.8 Error: authentication failed: authentication failure"),
    ("not_tls", "554 5.7.1 <mail.ssl.example>: Helo command rejected: Host not found"),
    ("not_tls", "530 5.7.0 Authentication required"),
    ("peer_requires_tls", "538 5.7.11 Encryption required for requested authentication mechanism"),
    ("not_tls", "550 5.7.23 The message was rejected because of Sender Policy Framework violation, DANE Doe"),
    ("not_tls", "550 5.2.1 Mailbox encrypt-key rotation in progress"),
    ("not_tls", "451 4.3.5 server configuration error: certificate of delivery database missing"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "text"), [pytest.param(o, t, id=f"{n}-{o}") for n, (o, t) in enumerate(TEXTS)]
)
def test_texts(outcome: str, text: str) -> None:
    """The words decide, whoever says them and whatever names stand among them."""
    assert reason_in_words(text) == outcome


@pytest.mark.parametrize(
    ("outcome", "text"), [pytest.param(o, t, id=f"{n}-{o}") for n, (o, t) in enumerate(TEXTS)]
)
def test_names_decide_nothing(outcome: str, text: str) -> None:
    """Names that are made of the words of TLS, and the case of the words, change nothing."""
    assert (
        reason_in_words(f"{text} (starttls.dane.test[192.0.2.1], <tls-certificate@requiretls.test>)")
        == outcome
    )
    assert reason_in_words(text.upper()) == outcome


CODES = [
    ("5.7.30", "requiretls_not_supported"),
    ("4.7.30", "requiretls_not_supported"),
    ("5.7.10", "peer_requires_tls"),
    ("5.7.11", "peer_requires_tls"),
    ("4.7.323", "tlsa_invalid"),
    ("4.7.5", "not_tls"),  # Postfix for a certificate, Microsoft for MTA-STS, others for anything
    ("5.1.1", "not_tls"),
    (None, "not_tls"),
]


@pytest.mark.parametrize(("code", "outcome"), CODES)
def test_codes(code: str | None, outcome: str) -> None:
    """A code counts only where it stands for one thing."""
    assert reason_in_code(code) == outcome


# The classes of the shared texts, in our words; several of theirs are one of ours.
CLASSES = {
    "requiretls-not-supported": TlsOutcome.REQUIRETLS_NOT_SUPPORTED,
    "requiretls-no-starttls": TlsOutcome.STARTTLS_NOT_SUPPORTED,
    "requiretls-local-policy": TlsOutcome.LOCAL_POLICY,
    "tls-local-problem": TlsOutcome.LOCAL_POLICY,
    "starttls-not-offered": TlsOutcome.STARTTLS_NOT_SUPPORTED,
    "dane-no-tls": TlsOutcome.STARTTLS_NOT_SUPPORTED,
    "sts-no-tls": TlsOutcome.STARTTLS_NOT_SUPPORTED,
    "starttls-refused": TlsOutcome.STARTTLS_REFUSED,
    "handshake-failure": TlsOutcome.TLS_HANDSHAKE_FAILED,
    "certificate-not-verified": TlsOutcome.CERTIFICATE_UNVERIFIED,
    "certificate-untrusted": TlsOutcome.CERTIFICATE_NOT_TRUSTED,
    "certificate-expired": TlsOutcome.CERTIFICATE_EXPIRED,
    "sts-certificate": TlsOutcome.CERTIFICATE_NOT_TRUSTED,  # the host's, for an untrusted root: no matter of the policy host
    "dane-lookup-failure": TlsOutcome.DNSSEC_INVALID,
    "dane-dnssec-invalid": TlsOutcome.DNSSEC_INVALID,
    "dane-required-missing": TlsOutcome.DANE_REQUIRED,
    "dane-unusable": TlsOutcome.TLSA_INVALID,
    "dane-no-match": TlsOutcome.TLSA_INVALID,
    "sts-mx-mismatch": TlsOutcome.STS_MX_MISMATCH,
    "sts-policy-fetch": TlsOutcome.STS_POLICY_FETCH_ERROR,
    "receiver-requires-tls": TlsOutcome.PEER_REQUIRES_TLS,
    "receiver-requires-tls-for-auth": TlsOutcome.PEER_REQUIRES_TLS,
    "none": TlsOutcome.NOT_TLS,
}


def shared_texts() -> list[dict[str, str]]:
    path = SHARED_DATA / "bounces" / "tls_texts.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{row['id']}-{row['tls_class']}") for row in shared_texts()]
)
def test_shared_texts(row: dict[str, str]) -> None:
    """In a notice, each text gets the class that somebody else gave it, traps included."""
    kind = "smtp" if row["side"] == "receiver" else "X-Unix"
    status = f"Status: {row['status']}\n" if row["status"] else ""
    fields = f"Final-Recipient: rfc822; a@away.test\nAction: failed\n{status}Diagnostic-Code: {kind}; {row['text']}\n"
    (told,) = read_notice(
        f"From: MAILER-DAEMON\nContent-Type: message/delivery-status\n\n{fields}".encode()
    ).rows
    assert told["tls_outcome"] is CLASSES[row["tls_class"]]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.sampled_from([text for _, text in TEXTS]), st.text(max_size=80))
def test_any_text(before: str, text: str, behind: str) -> None:
    """Any text has an outcome."""
    assert reason_in_words(before + text + behind) in TlsOutcome
