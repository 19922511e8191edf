"""Why TLS decided a delivery: from the words of a log or a notice, then from its code.

No list of sentences. The words are first cleared of what only looks like a reason (addresses, host names, file names, a
cipher in passing), and then asked what they are about, from the particular to the general: REQUIRETLS, MTA-STS, DANE,
a certificate, STARTTLS, the handshake. Codes come last: servers use 5.7.30, 5.7.10 and 4.7.5 for different things.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rtls_analysis.outcomes import TlsOutcome

MAX_TEXT = 4000  # characters that are looked at

Rules = tuple[tuple[TlsOutcome, re.Pattern[str]], ...]


def _either(*phrases: str) -> re.Pattern[str]:
    return re.compile("|".join(phrases))


def _rules(*rules: tuple[TlsOutcome, tuple[str, ...]]) -> Rules:
    return tuple((outcome, _either(*phrases)) for outcome, phrases in rules)


# -- clearing the words -------------------------------------------------------------------------------------------

_ABOUT_TLS = (
    "tls", "ssl", "certif", "dane", "dnssec", "sts", "encrypt", "handshake", "509", "mx record auth", "secure c",
    "server veri", "authenticat",
)  # fmt: skip
_NAMES = _either(
    r"<[^<>\s]*@[^<>\s]*>",
    r"[^\s<>\"'()]+@[^\s<>\"'(),;]+",
    r"https?://\S+",
    r"\[[^\]\s]*\]",  # an IP address, or one more of its names
    r"\((?:using )?(?:tls|ssl)v?[\d.]+ with cipher[^)]*\)",
    r"(?<![\w.])(?!x\.509|(?:tls|ssl)v?1\.)[\w-]+(?:\.[\w-]+)+",  # a host or a file
)
_CONTENT = _either(
    r"dkim", r"dmarc", r"\bspf\b", r"sender policy", r"s/?mime", r"pgp\b", r"attachment", r"\bsubject\b(?! alt)",
    r"\bspam", r"virus", r"phish", r"scam", r"\bgift\b", r"message (?:body|text|contains)", r"policy page",
)  # fmt: skip
_STILL_TLS = _either(
    r"starttls",
    r"requiretls",
    r"handshake",
    r"tlsa\b",
    r"mta-sts",
    r"(?:over|without|use|using|requires?) tls",
)

# -- what they are about ------------------------------------------------------------------------------------------

# The result types of RFC 8460, where a text uses the words themselves.
_RESULT_TYPES: Rules = tuple(
    (outcome, re.compile(rf"\b{outcome.replace('_', '-')}\b"))
    for outcome in (
        TlsOutcome.STARTTLS_NOT_SUPPORTED, TlsOutcome.CERTIFICATE_HOST_MISMATCH, TlsOutcome.CERTIFICATE_EXPIRED,
        TlsOutcome.CERTIFICATE_NOT_TRUSTED, TlsOutcome.VALIDATION_FAILURE, TlsOutcome.TLSA_INVALID,
        TlsOutcome.DNSSEC_INVALID, TlsOutcome.DANE_REQUIRED, TlsOutcome.STS_POLICY_FETCH_ERROR,
        TlsOutcome.STS_POLICY_INVALID, TlsOutcome.STS_WEBPKI_INVALID,
    )
)  # fmt: skip

_SENDER: Rules = _rules(
    (
        TlsOutcome.MX_UNAUTHENTICATED,
        (
            r"required tls verification mechanism",
            r"no usable dane records? and no mta-sts",
            r"mx record.{0,30}not authenticated",
            r"mx record authenticity(?! \(mta-sts)",
        ),
    ),
    (
        TlsOutcome.LOCAL_POLICY,
        (
            r"\b(?:my|our) (?:\w+ ){0,2}(?:tls|ssl|certificate|security level)",
            r"policy configuration error",
            r"(?:client|local) tls configuration",
            r"tls (?:is )?required,? but (?:is )?(?:unavailable$|our)",
            r"requires verified tls but (?:the )?transport",
            r"sendconnector",
            r"tls library",
            r"(?:load|read)\w* (?:the )?(?:local |client |own )?certificate",
        ),
    ),
)

_REQUIRETLS: Rules = _rules(
    (TlsOutcome.STARTTLS_REFUSED, (r"refused to start tls",)),
    (
        TlsOutcome.STARTTLS_NOT_SUPPORTED,
        (r"\btls (?:service |it |is )*(?:was )?not (?:offered|available)", r"\btls.{0,20} unavailable"),
    ),
    (
        TlsOutcome.CERTIFICATE_HOST_MISMATCH,
        (r"no matching (?:server )?certificate", r"certificate.*(?:name|mismatch)"),
    ),
    (TlsOutcome.CERTIFICATE_UNVERIFIED, (r"certificate",)),
    (TlsOutcome.MX_UNAUTHENTICATED, (r"\bmx\b.*authent", r"authent.*\bmx\b")),
)

_ABOUT_STS = _either(r"mta-?sts", r"\bsts\b")
_STS_POLICY: Rules = _rules(
    (
        TlsOutcome.STS_WEBPKI_INVALID,
        (r"webpki", r"policy (?:host|server)[^.]{0,40}certificate", r"certificate of (?:the )?policy"),
    ),
    (
        TlsOutcome.STS_POLICY_FETCH_ERROR,
        (r"fetch", r"download", r"obtain", r"retriev", r"https?\b", r"(?:dns|policy) (?:record )?lookup"),
    ),
    (
        TlsOutcome.STS_POLICY_INVALID,
        (
            r"pars(?:e|ing)",
            r"(?:invalid|malformed|bad) (?:\w+ )?policy",
            r"policy (?:is |was )?(?:invalid|malformed)",
        ),
    ),
)
_STS_HOST: Rules = _rules(
    (TlsOutcome.CERTIFICATE_UNVERIFIED, (r"certificat",)),
    (
        TlsOutcome.STARTTLS_NOT_SUPPORTED,
        (
            r"\b(?:start)?tls\b.*(?:not|un)[- ]?(?:supported|available|offered|advertised)",
            r"no (?:start)?tls",
        ),
    ),
    (
        TlsOutcome.STS_MX_MISMATCH,
        (
            r"\bmx\b",
            r"\bhosts?\b[^.]{0,60}(?:not|mismatch|fail|match)",
            r"authori[sz]ed",
            r"not listed",
            r"policy (?:mismatch|violat|fail)",
        ),
    ),
)

# A person or a list may be called dane.
_ABOUT_DANE = _either(
    r"tlsa",
    r"dnssec",
    r"\bdane[ :()-]*(?:validat|check|fail|authent|verif|requir|polic|error|enforc|tls|record|result|lookup|mis|$)",
    r"(?:enforced|required|failed|protected|secured) (?:by |for )?dane\b",
)
_DANE: Rules = _rules(
    (TlsOutcome.STARTTLS_REFUSED, (r"dane check failed temporarily", r"tls not available (?:due|after)")),
    (
        TlsOutcome.STARTTLS_NOT_SUPPORTED,
        (
            r"missing starttls",
            r"starttls (?:is )?(?:missing|not)",
            r"\btls\b.{0,40}(?:unsupported|unavailable|not (?:offered|supported|available))",
        ),
    ),
    (
        TlsOutcome.DANE_REQUIRED,
        (
            r"no (?:valid |secure |usable )?(?:tlsa|dane)\b(?:(?! match).)*(?:found|record|present|available)",
            r"no tlsa dnssec",
            r"tlsa (?:dnssec )?records? (?:were |was )?(?:not found|missing)",
            r"tlsa lookup fail\b",  # Exim: there is none
            r"(?:not|non|no)[- ]dnssec",
            r"unsigned",
            r"insecure (?:mx|dns|zone)",
            r"dane (?:is )?required",
        ),
    ),
    (
        TlsOutcome.DNSSEC_INVALID,
        (
            r"(?:tlsa|dnssec|dane)[^.]{0,40}(?:lookup|look up|query)[^.]{0,40}(?:error|fail|defer|time|problem)",
            r"lookup (?:error|failure)[^.]{0,40}tlsa",
            r"(?:bogus|invalid|fail\w*|broken|expired) dnssec",
            r"dnssec[^.]{0,40}(?:bogus|invalid|fail|error|broken|expired)",
            r"servfail",
        ),
    ),
    (
        TlsOutcome.TLSA_INVALID,
        (
            r"match",
            r"unusable",
            r"invalid",
            r"fail",
            r"differ",
            r"verif",
            r"no certificate",
            r"not authenticated",
        ),
    ),
)

_ABOUT_CERTIFICATE = _either(
    r"certificat", r"x\.?509", r"self[- ]signed", r"cert_has", r"altname", r"ca constrain", r"tls verification",
    r"unknownissuer", r"server (?:verification failed|not authenticated)",
)  # fmt: skip
_CERTIFICATE: Rules = _rules(
    (
        TlsOutcome.TLSA_INVALID,
        (r"certificate differs", r"ca constrain"),
    ),  # GnuTLS of records that do not match
    (TlsOutcome.CERTIFICATE_EXPIRED, (r"expired\b", r"not ?yet ?valid", r"out of date")),
    (
        TlsOutcome.CERTIFICATE_HOST_MISMATCH,
        (
            r"(?:host ?name|\bname\b|altname|identity|common name|subject)[^,;]{0,60}"
            r"(?:mismatch|not|match|differ|wrong|fail|incorrect|valid)",
            r"(?:name|host)[- ]?mismatch",
            r"notvalidforname",
            r"no matching server certificate",
            r"certificate is (?:not )?valid (?:only )?for",
            r"certificate (?:does not|doesn't|did not) match",
            r"(?:not|n't) match(?:ing)? (?:the )?(?:host|name|any)",
            r"not valid for",
        ),
    ),
    (
        TlsOutcome.CERTIFICATE_NOT_TRUSTED,
        (
            r"self[-_ ]?signed",
            r"untrusted",
            r"not? trusted",
            r"unknown[-_ ]?(?:ca|issuer|authority|root)",
            r"unknown certificate authority",
            r"signed by (?:an )?unknown",
            r"issuer",
            r"\broot\b",
            r"revo[ck]",
            r"trust anchor",
            r"unable[_ ]to[_ ](?:get|verify)",
            r"partial ?chain",
        ),
    ),
)
_SOMETHING_WRONG = _either(
    r"verif", r"valid", r"accept", r"bad\b", r"check", r"fail", r"trust", r"reject", r"unknown", r"unsupported",
    r"required but", r"not (?:match|authenticated)",
)  # fmt: skip

_STARTTLS: Rules = _rules(
    (
        TlsOutcome.TLS_VERSION_TOO_LOW,
        (
            r"unsupported[_ ]protocol",
            r"protocol[_ ]version",
            r"version too low",
            r"wrong ssl version",
            r"no protocols? available",
            r"unsupported (?:tls |ssl |protocol )?version",
            r"doesnotsupporttls1",
            r"(?:tls|ssl)v?1?[ .]?[0123]? (?:is )?(?:too old|deprecated|no longer)",
        ),
    ),
    (
        TlsOutcome.STARTTLS_REFUSED,
        (
            r"refused to start tls",
            r"starttls (?:was |is |command )?(?:rejected|refused|failed:? \d)",
            r"rejected starttls",
            r"attempt to start tls failed",
            r"tls (?:currently |temporarily |service |is )*(?:not available|unavailable)(?! but| with)",
        ),
    ),
    (
        TlsOutcome.STARTTLS_NOT_SUPPORTED,
        (
            r"(?:start)?tls\b.{0,60}\b(?:not|never) (?:been )?(?:offered|advertised|supported|announced|listed)",
            r"not (?:offer|support|advertis\w+|announce)(?: (?:for|the|of|any))* (?:start)?(?:tls|ssl)",
            r"no (?:start)?tls (?:available|support|offered)",
            r"no (?:starttls|encryption) (?:capability|extension)",
            r"tls\b[^.]{0,40}required,? but (?:is |was )?(?:not|un)",
            r"lacks? (?:start)?tls",
            r"without starttls support",
            r"missing starttls",
            r"must support (?:start)?tls",
            r"starttls is required to send",  # what Exchange Online says as a sender
            r"encryption too weak 0 ",  # and sendmail
        ),
    ),
    (
        TlsOutcome.PEER_REQUIRES_TLS,
        (
            r"(?:issue|use|need|send|try) (?:a |the )?starttls",
            r"(?:encryption|encrypted|starttls|tls|ssl)\b[^.]{0,30} (?:is |are )?(?:required|needed|mandatory)",
            r"(?:requires?|needs?|demands?|enforces?|only (?:accept|allow)\w*|must (?:use|be|start|send))\b"
            r"[^.]{0,40}\b(?:start)?(?:tls|ssl|encrypt\w+)",
            r"(?:without|not (?:sent |using )?(?:over|via|using)?|un)[ -]?(?:an? )?(?:tls|encrypt(?:ed|ion))\b",
            r"(?:tls|encryption) first",
        ),
    ),
    (
        TlsOutcome.VALIDATION_FAILURE,
        (r"encryption too weak", r"cipher[^.]{0,20}too weak", r"dh[_ ]key[_ ]too[_ ]small"),
    ),
    (
        TlsOutcome.TLS_HANDSHAKE_FAILED,
        (
            r"(?<![eh][hel]lo )\bhandshake",  # that of EHLO is Postfix's word for the greeting
            r"while (?:sending|performing|negotiating) (?:the )?(?:start)?tls",
            r"(?:cannot|can't|could not|unable to|failed to) (?:start|negotiate|establish) (?:an? )?(?:tls|ssl|secure)",
            r"ssl_connect",
            r"gnutls",
            r"(?:ssl|tls) (?:routines|error|alert|library)",
            r"wrong version number",
            r"tls session\b",
            r"tls_connect",
            r"(?:start)?tls[- ](?:connect\w*|negotiation|session|setup)?[- ]?(?:fail|error|was non-properly)",
        ),
    ),
)

# sendmail's rules for the server that it talks to; AUTH would get a 535
_RULESET = re.compile(
    r"4(?:03|54) 4\.7\.0 (?:authentication fail|not authenticated|no authentication requested)"
)

# -- the two questions --------------------------------------------------------------------------------------------

_CODES = {
    "7.30": TlsOutcome.REQUIRETLS_NOT_SUPPORTED,
    "7.10": TlsOutcome.PEER_REQUIRES_TLS,
    "7.11": TlsOutcome.PEER_REQUIRES_TLS,
    "7.320": TlsOutcome.CERTIFICATE_UNVERIFIED,  # from here on Microsoft's
    "7.321": TlsOutcome.STARTTLS_NOT_SUPPORTED,
    "7.322": TlsOutcome.CERTIFICATE_EXPIRED,
    "7.323": TlsOutcome.TLSA_INVALID,
    "7.324": TlsOutcome.DNSSEC_INVALID,
    "7.325": TlsOutcome.CERTIFICATE_HOST_MISMATCH,
}


def classify(text: str, code: str | None) -> TlsOutcome:
    """Name the TLS reason in the text of a failure, else in its enhanced status code.

    Parameters
    ----------
    text
        The reason or the reply, as logged or quoted.
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
    outcome = reason_in_words(text)
    return outcome if outcome is not TlsOutcome.NOT_TLS else reason_in_code(code)


def reason_in_code(code: str | None) -> TlsOutcome:
    """Name the TLS reason that an enhanced status code stands for; `not_tls` where it tells none.

    >>> str(reason_in_code("5.7.30")), str(reason_in_code("5.1.1"))
    ('requiretls_not_supported', 'not_tls')
    """
    return _CODES.get(code[2:], TlsOutcome.NOT_TLS) if code else TlsOutcome.NOT_TLS


def reason_in_words(text: str) -> TlsOutcome:
    """Name the TLS reason that a text gives; `not_tls` where it gives none.

    Parameters
    ----------
    text
        The reason or the reply, as a notice or a log quotes it.

    Examples
    --------
    >>> str(reason_in_words("host mx.x.test[192.0.2.1] said: 530 5.7.0 Must issue a STARTTLS command first"))
    'peer_requires_tls'
    >>> str(reason_in_words("550 5.1.1 <starttls@dane.test>: user unknown"))
    'not_tls'
    """
    words = text[:MAX_TEXT].lower()
    if not any(word in words for word in _ABOUT_TLS):  # as nearly all are not
        return TlsOutcome.NOT_TLS
    return _reason(words)


@lru_cache(maxsize=8192)
def _reason(text: str) -> TlsOutcome:
    if _RULESET.match(text):
        return TlsOutcome.CERTIFICATE_UNVERIFIED
    words = " ".join(_NAMES.sub(" _ ", text).split())
    if _CONTENT.search(words) and not _STILL_TLS.search(words):
        return TlsOutcome.NOT_TLS
    if outcome := _first(_RESULT_TYPES, words) or _first(_SENDER, words):
        return outcome
    if "requiretls" in words:
        return _first(_REQUIRETLS, words) or TlsOutcome.REQUIRETLS_NOT_SUPPORTED
    if _ABOUT_STS.search(words):
        why = _first(_CERTIFICATE, words) if "certificate" in words else None
        return _first(_STS_POLICY, words) or why or _first(_STS_HOST, words) or TlsOutcome.VALIDATION_FAILURE
    if _ABOUT_DANE.search(words) and (outcome := _first(_DANE, words)):
        return outcome
    if _ABOUT_CERTIFICATE.search(words):
        if outcome := _first(_CERTIFICATE, words):
            return outcome
        if _SOMETHING_WRONG.search(words):
            return TlsOutcome.CERTIFICATE_UNVERIFIED
    return _first(_STARTTLS, words) or TlsOutcome.NOT_TLS


def _first(rules: Rules, words: str) -> TlsOutcome | None:
    return next((outcome for outcome, pattern in rules if pattern.search(words)), None)
