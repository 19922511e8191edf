"""The TLS reason in a text: a public list of texts with their classes, and traps."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from rtls_analysis.outcomes import TlsOutcome
from rtls_analysis.read.tls_reasons import classify

TEXTS = Path(__file__).parents[3] / "shared" / "data" / "bounces" / "tls_texts.csv"

CLASSES = {  # many to one
    "certificate-expired": "certificate_expired",
    "certificate-not-verified": "certificate_unverified",
    "certificate-untrusted": "certificate_not_trusted",
    "dane-dnssec-invalid": "dnssec_invalid",
    "dane-lookup-failure": "dnssec_invalid",
    "dane-no-match": "tlsa_invalid",
    "dane-no-tls": "starttls_not_supported",
    "dane-required-missing": "dane_required",
    "dane-unusable": "tlsa_invalid",
    "handshake-failure": "tls_handshake_failed",
    "none": "not_tls",
    "receiver-requires-tls": "peer_requires_tls",
    "receiver-requires-tls-for-auth": "peer_requires_tls",
    "requiretls-local-policy": "local_policy",
    "requiretls-no-starttls": "starttls_not_supported",
    "requiretls-not-supported": "requiretls_not_supported",
    "starttls-not-offered": "starttls_not_supported",
    "starttls-refused": "starttls_refused",
    "sts-certificate": "certificate_not_trusted",
    "sts-mx-mismatch": "sts_mx_mismatch",
    "sts-no-tls": "starttls_not_supported",
    "sts-policy-fetch": "sts_policy_fetch_error",
    "tls-local-problem": "local_policy",
}


@pytest.mark.skipif(not TEXTS.exists(), reason="no list of texts beside the repository")
def test_list() -> None:
    """Every text of the list is of its class."""
    with TEXTS.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) > 40
    for row in rows:
        assert classify(row["text"], row["status"] or None) == CLASSES[row["tls_class"]], row["text"]


@pytest.mark.parametrize(
    ("text", "code", "outcome"),
    [
        ("", None, "unknown"),
        ("", "5.7.30", "requiretls_not_supported"),
        ("550 5.7.1 see our TLS and mail policy page", "5.7.1", "not_tls"),
        ("host mx said: 550 5.7.10 Encryption needed (in reply to end of DATA command)", "5.7.10", "peer_requires_tls"),
        ("Sender requested REQUIRETLS, but host mx[192.0.2.1] refused to start TLS: 454 4.7.0 TLS not available",
         "5.7.10", "starttls_refused"),
        ("Sender requested REQUIRETLS, but no matching server certificate was found.", "5.7.10",
         "certificate_host_mismatch"),
        ("555 5.5.4 Unsupported option: REQUIRETLS", "5.5.4", "requiretls_not_supported"),
        ("530 5.7.0 Must issue a STARTTLS command first", "5.7.0", "peer_requires_tls"),
        ("Deferred: Name server: mx: host name lookup failure for TLSA RR", "4.4.3", "dnssec_invalid"),
    ],
)  # fmt: skip
def test_traps(text: str, code: str | None, outcome: str) -> None:
    """The text decides before the code, and a text that only mentions TLS is none."""
    assert classify(text, code) == outcome


def test_long_texts_cost_little() -> None:
    """A reason of a megabyte is looked at as far as reasons go."""
    begun = time.process_time()
    for piece in ("tls ", "requiretls ", "mta-sts ", "certificate is ", "a" * 50):
        assert classify(piece * 100_000, None) in TlsOutcome
    assert time.process_time() - begun < 5
