"""What several log readers share: names of TLS versions, levels that a failure shows, and dicts with a limit."""

from __future__ import annotations

import re
from typing import Any

from rtls_analysis.outcomes import TlsLevel, TlsOutcome
from rtls_analysis.read.log_rows import NO_TLS, UNKNOWN_TLS, Tls
from rtls_analysis.schema import TlsVersion

NEVER_ENCRYPTED = frozenset(
    {TlsOutcome.STARTTLS_NOT_SUPPORTED, TlsOutcome.STARTTLS_REFUSED, TlsOutcome.TLS_HANDSHAKE_FAILED,
     TlsOutcome.TLS_VERSION_TOO_LOW, TlsOutcome.PEER_REQUIRES_TLS}
)  # fmt: skip
BAD_CERTIFICATE = frozenset(
    {TlsOutcome.CERTIFICATE_UNVERIFIED, TlsOutcome.CERTIFICATE_EXPIRED, TlsOutcome.CERTIFICATE_NOT_TRUSTED,
     TlsOutcome.CERTIFICATE_HOST_MISMATCH, TlsOutcome.TLSA_INVALID, TlsOutcome.VALIDATION_FAILURE,
     TlsOutcome.STS_WEBPKI_INVALID}
)  # fmt: skip
BEFORE_SESSION = frozenset(
    {TlsOutcome.STS_POLICY_FETCH_ERROR, TlsOutcome.STS_POLICY_INVALID, TlsOutcome.STS_MX_MISMATCH,
     TlsOutcome.DNSSEC_INVALID, TlsOutcome.DANE_REQUIRED, TlsOutcome.MX_UNAUTHENTICATED}
)  # fmt: skip
CLEAR_TLS = Tls(TlsLevel.NONE)
ENCRYPTED_TLS = Tls(TlsLevel.ENCRYPTED)

_VERSION = re.compile(rb"(?:SP_PROT_)?TLS_?v?1(?:[._]?([0-3]))?(?:_CLIENT|_SERVER)?", re.IGNORECASE).fullmatch
_OLD_VERSION = re.compile(rb"(?:SP_PROT_)?SSL_?v?3(?:\.0)?(?:_CLIENT|_SERVER)?", re.IGNORECASE).fullmatch
_VERSIONS = {
    None: TlsVersion.TLSV1_0, b"0": TlsVersion.TLSV1_0, b"1": TlsVersion.TLSV1_1, b"2": TlsVersion.TLSV1_2,
    b"3": TlsVersion.TLSV1_3,
}  # fmt: skip


def tls_version(text: bytes | None) -> TlsVersion | None:
    """The protocol version by any of its names; `None` where the name is no single version.

    >>> [str(tls_version(name)) for name in (b"TLSv1", b"TLS1.3", b"TLSv1_2", b"SP_PROT_TLS1_1_CLIENT")]
    ['TLSv1.0', 'TLSv1.3', 'TLSv1.2', 'TLSv1.1']
    >>> tls_version(b"TLSv1/SSLv3")
    """
    if text is None:
        return None
    if match := _VERSION(text):
        return _VERSIONS[match[1]]
    return TlsVersion.SSLV3 if _OLD_VERSION(text) else None


def tls_of_failure(outcome: TlsOutcome, otherwise: Tls = UNKNOWN_TLS) -> Tls:
    """What TLS an attempt had reached that failed for this reason; `otherwise` where the reason does not tell."""
    if outcome in NEVER_ENCRYPTED:
        return CLEAR_TLS
    if outcome in BAD_CERTIFICATE:
        return ENCRYPTED_TLS
    return NO_TLS if outcome in BEFORE_SESSION else otherwise


def make_room(table: dict[Any, Any], limit: int) -> list[Any]:
    """Take the oldest quarter out of a full dict; returns what was taken out."""
    if len(table) < limit:
        return []
    return [table.pop(key) for key in list(table)[: max(limit // 4, 1)]]
