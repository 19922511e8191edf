"""Why TLS decided a delivery, from the reason as a mail server words it, then from its code.

Codes alone do not tell: Postfix, mox and maddy use 5.7.30 and 5.7.10 for different things, and a remote server's
5.7.10 means that it wants encryption. So the first pattern that fits the text decides, and the code only where
the text names nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import groupby

from rtls_analysis.outcomes import TlsOutcome

MAX_TEXT = 2_000

# Whatever names a TLS reason holds one of these; all other texts are done with here.
_ABOUT_TLS = re.compile(
    r"tls|ssl|certificat|cert_|\bdane\b|tlsa|dnssec|\bsts\b|encrypt|handshake|\bmx record|server (?:verif|not auth)"
)

# The first that is found in the lower-case text decides. What the sender says of its own wish comes first, what
# the peer says last, and the broad words of a handshake after the narrow ones of its cause.
_TEXTS: tuple[tuple[str, TlsOutcome], ...] = (
    (r"requested requiretls, but my configured tls security level", TlsOutcome.LOCAL_POLICY),
    (r"requiretls policy configuration error", TlsOutcome.LOCAL_POLICY),
    (r"requires verified tls but transport does not verify", TlsOutcome.LOCAL_POLICY),
    (r"our tls engine is unavailable", TlsOutcome.LOCAL_POLICY),
    (r"tls is required, but unavailable", TlsOutcome.LOCAL_POLICY),
    (r"client tls configuration problem", TlsOutcome.LOCAL_POLICY),
    (r"requested requiretls, but host \S+ refused to start tls", TlsOutcome.STARTTLS_REFUSED),
    (r"requested requiretls, but tls service was not offered", TlsOutcome.STARTTLS_NOT_SUPPORTED),
    (r"requested requiretls, but no matching server certificate", TlsOutcome.CERTIFICATE_HOST_MISMATCH),
    (r"requested requiretls, but no trusted server certificate", TlsOutcome.CERTIFICATE_UNVERIFIED),
    (r"failed to establish the mx record authenticity", TlsOutcome.MX_UNAUTHENTICATED),
    (r"missing required tls verification mechanism", TlsOutcome.MX_UNAUTHENTICATED),
    (r"no usable dane records and no mta-sts policy", TlsOutcome.MX_UNAUTHENTICATED),
    (r"tls it not available or unauthenticated but required", TlsOutcome.STARTTLS_NOT_SUPPORTED),
    (r"no server was found that supports requiretls", TlsOutcome.REQUIRETLS_NOT_SUPPORTED),
    (r"does not (?:implement|support) requiretls", TlsOutcome.REQUIRETLS_NOT_SUPPORTED),
    (r"do not support requiretls", TlsOutcome.REQUIRETLS_NOT_SUPPORTED),
    (r"requiretls (?:support )?(?:is |was )?(?:required|needed)", TlsOutcome.REQUIRETLS_NOT_SUPPORTED),
    (r"requiretls (?:support )?(?:is |was )?not (?:supported|implemented|offered)",
     TlsOutcome.REQUIRETLS_NOT_SUPPORTED),
    (r"(?:unsupported|unadvertised|unrecognized|unknown) .{0,40}requiretls", TlsOutcome.REQUIRETLS_NOT_SUPPORTED),
    (r"requiretls .{0,60}(?:not offered|not allowed|disabled|unsupported)", TlsOutcome.REQUIRETLS_NOT_SUPPORTED),
    (r"sts-policy-fetch-error|mta-sts .{0,200}failed to fetch", TlsOutcome.STS_POLICY_FETCH_ERROR),
    (r"sts-policy-invalid|invalid mta-sts policy", TlsOutcome.STS_POLICY_INVALID),
    (r"sts-webpki-invalid|certificate failed mta-sts validation", TlsOutcome.STS_WEBPKI_INVALID),
    (r"does not match enforced mta-sts policy", TlsOutcome.STS_MX_MISMATCH),
    (r"mx hosts? of .{0,260} failed mta-sts validation", TlsOutcome.STS_MX_MISMATCH),
    (r"mta-sts .{0,260}(?:not authorized|not listed|mx mismatch)", TlsOutcome.STS_MX_MISMATCH),
    (r"(?:unsupported or failed|not supported).{0,20}dane", TlsOutcome.STARTTLS_NOT_SUPPORTED),
    (r"(?:unavailable|unsupported) or failed \(mta-sts", TlsOutcome.STARTTLS_NOT_SUPPORTED),
    (r"dane-required|non dnssec destination|lookup not dnssec", TlsOutcome.DANE_REQUIRED),
    (r"no tlsa records? found|tlsa lookup fail\b", TlsOutcome.DANE_REQUIRED),
    (r"dnssec-invalid|invalid dnssec|dnssec bogus|bogus dnssec", TlsOutcome.DNSSEC_INVALID),
    (r"tlsa lookup (?:error|defer)|lookup failure for tlsa", TlsOutcome.DNSSEC_INVALID),
    (r"tlsa-invalid|tlsa records? unusable|tlsa mismatch", TlsOutcome.TLSA_INVALID),
    (r"no matching (?:dane )?tlsa|no matching certificates? found in tlsa", TlsOutcome.TLSA_INVALID),
    (r"failed dane validation|dane failed to authenticate|dane_fail", TlsOutcome.TLSA_INVALID),
    (r"dane check failed\.", TlsOutcome.TLSA_INVALID),
    (r"the certificate differs|ca constrain(?:t?)s were violated", TlsOutcome.TLSA_INVALID),
    (r"certificate-host-mismatch|altname_invalid|altnames", TlsOutcome.CERTIFICATE_HOST_MISMATCH),
    (r"certificate (?:peer |host)?name (?:verification failed|mismatch)", TlsOutcome.CERTIFICATE_HOST_MISMATCH),
    (r"not present in server certificate|host ?name mismatch", TlsOutcome.CERTIFICATE_HOST_MISMATCH),
    (r"certificate is (?:not )?valid for|certificate name does not match", TlsOutcome.CERTIFICATE_HOST_MISMATCH),
    (r"certificate(?:-| has | is )expired|cert_has_expired", TlsOutcome.CERTIFICATE_EXPIRED),
    (r"certificate-not-trusted|certificate not trusted", TlsOutcome.CERTIFICATE_NOT_TRUSTED),
    (r"self[-_ ]signed|untrusted (?:issuer|root)|untrustedroot", TlsOutcome.CERTIFICATE_NOT_TRUSTED),
    (r"unable[_ ]to[_ ](?:get|verify)\b|unknown (?:ca|authority|issuer)\b|unknownissuer",
     TlsOutcome.CERTIFICATE_NOT_TRUSTED),
    (r"signed by (?:an )?unknown|issuer certificate not found", TlsOutcome.CERTIFICATE_NOT_TRUSTED),
    (r"certificate not verified|certificate verif(?:y|ication) failed", TlsOutcome.CERTIFICATE_UNVERIFIED),
    (r"server verification failed|server not authenticated", TlsOutcome.CERTIFICATE_UNVERIFIED),
    (r"failed tls verification|tls: authentication failed", TlsOutcome.CERTIFICATE_UNVERIFIED),
    (r"certificate (?:is )?invalid|bad certificate", TlsOutcome.CERTIFICATE_UNVERIFIED),
    (r"validation-failure", TlsOutcome.VALIDATION_FAILURE),
    (r"starttls-not-supported|did not offer (?:tls|starttls)", TlsOutcome.STARTTLS_NOT_SUPPORTED),
    (r"tls is required, but was not offered", TlsOutcome.STARTTLS_NOT_SUPPORTED),
    (r"starttls (?:is |was )?not (?:advertised|offered|supported)", TlsOutcome.STARTTLS_NOT_SUPPORTED),
    (r"does not (?:support|offer) (?:starttls|tls)", TlsOutcome.STARTTLS_NOT_SUPPORTED),
    (r"no tls available but required|starttls is required to send", TlsOutcome.STARTTLS_NOT_SUPPORTED),
    (r"tls (?:is )?required,? but (?:is )?(?:not (?:supported|available|offered)|un(?:supported|available))",
     TlsOutcome.STARTTLS_NOT_SUPPORTED),
    (r"missing starttls|encryption too weak 0 less", TlsOutcome.STARTTLS_NOT_SUPPORTED),
    (r"refused to start tls|attempt to start tls failed", TlsOutcome.STARTTLS_REFUSED),
    (r"starttls (?:command )?(?:was )?(?:rejected|refused|failed)", TlsOutcome.STARTTLS_REFUSED),
    (r"tls (?:is |service )?(?:currently |temporarily )?(?:not available|unavailable)", TlsOutcome.STARTTLS_REFUSED),
    (r"unsupported[_ ]protocol|alert protocol version|wrong[_ ]ssl[_ ]version", TlsOutcome.TLS_VERSION_TOO_LOW),
    (r"no protocols available|tls version too (?:low|old)", TlsOutcome.TLS_VERSION_TOO_LOW),
    (r"encryption (?:is )?(?:needed|required)\b(?! for requested auth)", TlsOutcome.PEER_REQUIRES_TLS),
    (r"must (?:first )?issue (?:a )?starttls|(?:use|need|issue) starttls", TlsOutcome.PEER_REQUIRES_TLS),
    (r"starttls (?:is )?required|starttls (?:command )?first", TlsOutcome.PEER_REQUIRES_TLS),
    (r"(?:requires?|without) (?:starttls|tls|encryption)\b", TlsOutcome.PEER_REQUIRES_TLS),
    (r"\btls (?:connection )?(?:is )?(?:required|needed)\b", TlsOutcome.PEER_REQUIRES_TLS),
    (r"encryption required", TlsOutcome.PEER_REQUIRES_TLS),
    (r"handshake|cannot start tls|ssl_connect|gnutls_|ssl routines", TlsOutcome.TLS_HANDSHAKE_FAILED),
    (r"before secure tls connection|waiting on starttls", TlsOutcome.TLS_HANDSHAKE_FAILED),
    (r"tls session: |wrong version number|tls[-_ ]connect[-_ ]fail", TlsOutcome.TLS_HANDSHAKE_FAILED),
    (r"(?:tls|ssl)[- ](?:negotiation |connection )?(?:failure|failed|error)", TlsOutcome.TLS_HANDSHAKE_FAILED),
)  # fmt: skip

_PATTERNS: tuple[tuple[TlsOutcome, re.Pattern[str]], ...] = tuple(
    (outcome, re.compile("|".join(pattern for pattern, _outcome in rows), re.DOTALL))
    for outcome, rows in groupby(_TEXTS, key=lambda row: row[1])
)

_CODES = {  # without their class: 5.7.30 and 4.7.30 mean the same
    "7.30": TlsOutcome.REQUIRETLS_NOT_SUPPORTED,
    "7.10": TlsOutcome.PEER_REQUIRES_TLS,
    "7.11": TlsOutcome.PEER_REQUIRES_TLS,
}


def classify(text: str, code: str | None) -> TlsOutcome:
    """Name the TLS reason in the text of a failure, else in its enhanced status code.

    Parameters
    ----------
    text
        The reason or the reply, as logged or quoted; the first 2,000 characters count.
    code
        The enhanced status code, where there is one.

    Returns
    -------
    TlsOutcome
        `not_tls` where neither names one; `unknown` where there is neither text nor code.

    Examples
    --------
    >>> str(classify("Cannot start TLS: handshake failure", "4.7.5"))
    'tls_handshake_failed'
    >>> str(classify("550 5.7.1 see our TLS and mail policy page", "5.7.1"))
    'not_tls'
    """
    if not text and not code:
        return TlsOutcome.UNKNOWN
    return _classify(text[:MAX_TEXT], code)


@lru_cache(maxsize=4096)
def _classify(text: str, code: str | None) -> TlsOutcome:
    lower = text.lower()
    if _ABOUT_TLS.search(lower):
        for outcome, pattern in _PATTERNS:
            if pattern.search(lower):
                return outcome
    return _CODES.get(code[2:], TlsOutcome.NOT_TLS) if code and code[1:2] == "." else TlsOutcome.NOT_TLS
