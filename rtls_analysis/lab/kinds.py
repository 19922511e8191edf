"""The catalogue of the lab: every kind of server, host, policy and domain, each with the truth about it.

The truth is stated here by hand, from the RFCs and the words of the tables; nothing of it is computed by the code
that judges scans. `why` says what is odd about a kind, in a phrase.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Misdeed(StrEnum):
    """What a server does at a stage in place of a reply."""

    SILENT = "silent"  # keeps the connection and says nothing
    CLOSE = "close"
    GARBAGE = "garbage"  # a line that is no reply
    ENDLESS_LINE = "endless_line"
    ENDLESS_REPLY = "endless_reply"
    DRIP = "drip"  # a byte now and then, never a whole line
    ALERT = "alert"  # a TLS alert in place of the handshake


Speech = bytes | Misdeed


@dataclass(frozen=True, slots=True)
class CertificateKind:
    """A kind of certificate chain; `pkix` is its verdict for the host's name, `dns_id` whether a DNS-ID names it."""

    name: str
    pkix: str = "valid"
    name_match: bool | None = True
    dns_id: bool = True


CERTIFICATES = {
    kind.name: kind
    for kind in (
        CertificateKind("valid"),
        CertificateKind("rsa"),
        CertificateKind("wildcard"),
        CertificateKind("with_root"),
        CertificateKind("huge"),
        CertificateKind("cn_only", dns_id=False),
        CertificateKind("expired", "expired"),
        CertificateKind("expired_with_root", "expired"),
        CertificateKind("expired_intermediate", "expired"),
        CertificateKind("not_yet_valid", "not_yet_valid"),
        CertificateKind("self_signed", "self_signed"),
        CertificateKind("untrusted", "untrusted"),
        CertificateKind("incomplete", "untrusted"),
        CertificateKind("bad_signature", "bad_signature"),
        CertificateKind("wrong_name", "name_mismatch", False, False),
        CertificateKind("wrong_name_with_root", "name_mismatch", False, False),
        CertificateKind("wildcard_too_high", "name_mismatch", False, False),
        CertificateKind("cn_beside_other_name", "name_mismatch", False, False),
        CertificateKind("for_domain", "name_mismatch", False, False),
        CertificateKind("anonymous", "anonymous", None, False),
    )
}


@dataclass(frozen=True, slots=True)
class ServerKind:
    """How a mail server behaves at one address, and what a session with it must come to.

    `greeting` ... `quit` are what it says at each stage; None for the two EHLO replies stands for the usual list
    with the keywords of `plain` and `inside` at its end. `listens` is False where nothing accepts.
    """

    name: str
    why: str
    certificate: str = "valid"
    tls: str = ""  # the one version spoken; any modern one without
    plain: tuple[str, ...] = ("STARTTLS",)
    inside: tuple[str, ...] = ()
    greeting: Speech = b"220 %h ESMTP lab\r\n"
    ehlo: Speech | None = None
    helo: Speech = b"250 %h\r\n"
    starttls_reply: Speech = b"220 2.0.0 ready\r\n"
    handshake: Misdeed | None = None
    ehlo_inside: Speech | None = None
    quit: Speech = b"221 2.0.0 bye\r\n"
    listens: bool = True
    # the truth
    outcome: str = "completed"
    stage: str = "quit"
    starttls: str = "yes"
    tls_version: str | None = "TLSv1.3"
    requiretls_plain: str = "no"
    requiretls_tls: str = "no"
    injected_bytes: int = 0

    @property
    def has_tls(self) -> bool:
        """TLS comes about."""
        return self.starttls == "yes"


def _no_tls(name: str, why: str, outcome: str, stage: str, **more: object) -> ServerKind:
    """Describe a server with which no TLS comes about, and why is not told: each feature stays unknown."""
    truth: dict[str, object] = {
        "starttls": "unknown",
        "tls_version": None,
        "requiretls_plain": "unknown",
        "requiretls_tls": "not_tested",
    }
    return replace(ServerKind(name, why, outcome=outcome, stage=stage), **{**truth, **more})  # type: ignore[arg-type]


def _plain(name: str, why: str, **more: object) -> ServerKind:
    """Describe a server that offers no STARTTLS."""
    truth: dict[str, object] = {"starttls": "no", "tls_version": None, "requiretls_tls": "not_tested"}
    return replace(ServerKind(name, why), **{**truth, **more})  # type: ignore[arg-type]


_OFFERED = {"requiretls_plain": "no"}  # the plain EHLO reply was whole, STARTTLS in it
_BROKEN = {"requiretls_plain": "no", "starttls": "failed"}
_INJECTED = b"250-mx.test\r\n250 REQUIRETLS\r\n"
_REQUIRETLS = ("REQUIRETLS",)

_SERVERS = (
    # what most are
    ServerKind("valid", "STARTTLS with a valid certificate"),
    ServerKind("wrong_name", "certificate for another name", "wrong_name"),
    ServerKind("self_signed", "self-signed certificate", "self_signed"),
    ServerKind("tls12", "speaks TLS 1.2 and nothing else", "rsa", "TLSv1.2", tls_version="TLSv1.2"),
    _no_tls("refused", "refuses connections", "refused", "connect", listens=False),
    _no_tls("silent", "accepts connections and says nothing", "timeout", "greeting", greeting=Misdeed.SILENT),
    _plain("plain", "offers no STARTTLS", plain=()),
    ServerKind("expired", "expired certificate", "expired"),
    # certificates
    ServerKind("wildcard", "wildcard certificate", "wildcard"),
    ServerKind("untrusted", "certificate of an authority nobody knows", "untrusted"),
    ServerKind("incomplete", "does not send the intermediate certificate", "incomplete"),
    ServerKind("not_yet_valid", "certificate of tomorrow", "not_yet_valid"),
    ServerKind("cn_only", "host name in the common name alone", "cn_only"),
    ServerKind("cn_beside_other_name", "common name fits, DNS name does not", "cn_beside_other_name"),
    ServerKind("wildcard_too_high", "wildcard for another level of names", "wildcard_too_high"),
    ServerKind("bad_signature", "certificate with a wrong signature", "bad_signature"),
    ServerKind("expired_intermediate", "expired intermediate certificate", "expired_intermediate"),
    ServerKind("huge_chain", "sends forty certificates too many", "huge"),
    ServerKind("anonymous", "anonymous ciphers, no certificate", "anonymous", tls_version="TLSv1.2"),
    ServerKind("tls11", "speaks TLS 1.1 and nothing else", "rsa", "TLSv1.1", tls_version="TLSv1.1"),
    ServerKind("tls10", "speaks TLS 1.0 and nothing else", "rsa", "TLSv1.0", tls_version="TLSv1.0"),
    # REQUIRETLS
    ServerKind("requiretls", "offers REQUIRETLS inside TLS", inside=_REQUIRETLS, requiretls_tls="yes"),
    ServerKind(
        "requiretls_both",
        "offers REQUIRETLS before TLS and inside",
        plain=("REQUIRETLS", "STARTTLS"),
        inside=_REQUIRETLS,
        requiretls_plain="yes",
        requiretls_tls="yes",
    ),
    ServerKind(
        "requiretls_plain_only",
        "offers REQUIRETLS before TLS and not inside",
        plain=("STARTTLS", "REQUIRETLS"),
        requiretls_plain="yes",
    ),
    ServerKind(
        "requiretls_lower_case",
        "writes keywords in lower case",
        plain=("starttls",),
        inside=("requiretls",),
        requiretls_tls="yes",
    ),
    ServerKind(
        "requiretls_parameters",
        "puts words behind the keyword",
        inside=("REQUIRETLS yes please",),
        requiretls_tls="yes",
    ),
    ServerKind(
        "requiretls_lookalike",
        "has the word everywhere but as a keyword",
        inside=("XREQUIRETLS", "REQUIRETLS2", "X-FEATURES REQUIRETLS", "REQUIRETLS-LATER"),
        ehlo_inside=None,
    ),
    ServerKind(
        "requiretls_in_greeting_line",
        "has the keyword as its host name, which is no offer",
        ehlo_inside=b"250-REQUIRETLS\r\n250 8BITMIME\r\n",
    ),
    ServerKind("requiretls_expired", "REQUIRETLS, certificate expired", "expired", inside=_REQUIRETLS),
    ServerKind("requiretls_wrong_name", "REQUIRETLS, wrong name", "wrong_name", inside=_REQUIRETLS),
    ServerKind("requiretls_cn_only", "REQUIRETLS, name in the CN alone", "cn_only", inside=_REQUIRETLS),
    ServerKind("requiretls_self_signed", "REQUIRETLS, self-signed", "self_signed", inside=_REQUIRETLS),
    ServerKind(
        "requiretls_tls11",
        "REQUIRETLS over TLS 1.1",
        "rsa",
        "TLSv1.1",
        inside=_REQUIRETLS,
        tls_version="TLSv1.1",
    ),
    ServerKind("requiretls_with_root", "REQUIRETLS, sends the root too", "with_root", inside=_REQUIRETLS),
    ServerKind("requiretls_untrusted", "REQUIRETLS, unknown authority", "untrusted", inside=_REQUIRETLS),
    ServerKind("requiretls_for_domain", "REQUIRETLS, named as the domain", "for_domain", inside=_REQUIRETLS),
    ServerKind("expired_with_root", "expired, sends the root too", "expired_with_root", inside=_REQUIRETLS),
    ServerKind(
        "wrong_name_with_root", "wrong name, sends the root too", "wrong_name_with_root", inside=_REQUIRETLS
    ),
    # before EHLO
    _no_tls("unreachable", "has no route to it", "unreachable", "connect", listens=False),
    _no_tls(
        "busy", "greets with 421", "rate_limited", "greeting", greeting=b"421 4.3.2 too many connections\r\n"
    ),
    _no_tls(
        "greylist", "greets with 450", "greylisted", "greeting", greeting=b"450 4.7.1 come back later\r\n"
    ),
    _no_tls("blocked", "greets with 554", "blocked", "greeting", greeting=b"554 5.7.1 you are listed\r\n"),
    _no_tls("closes_at_once", "closes at once", "closed_early", "greeting", greeting=Misdeed.CLOSE),
    _no_tls("garbage", "greets in another protocol", "protocol_error", "greeting", greeting=Misdeed.GARBAGE),
    _no_tls(
        "endless_line", "a greeting without end", "protocol_error", "greeting", greeting=Misdeed.ENDLESS_LINE
    ),
    _no_tls(
        "endless_greeting",
        "greeting lines without end",
        "protocol_error",
        "greeting",
        greeting=Misdeed.ENDLESS_REPLY,
    ),
    _no_tls("drip", "greets a byte at a time", "timeout", "greeting", greeting=Misdeed.DRIP),
    ServerKind(
        "long_greeting", "a greeting of three lines", greeting=b"220-%h\r\n220-hello\r\n220 ESMTP\r\n"
    ),
    # EHLO
    _plain("helo_only", "does not know EHLO", ehlo=b"502 5.5.1 what?\r\n"),
    _no_tls("ehlo_refused", "554 to EHLO", "blocked", "ehlo", ehlo=b"554 5.7.1 not you\r\n"),
    _no_tls("ehlo_busy", "421 to EHLO", "rate_limited", "ehlo", ehlo=b"421 4.7.0 slow down\r\n"),
    _no_tls("ehlo_greylist", "451 to EHLO", "greylisted", "ehlo", ehlo=b"451 4.7.1 later\r\n"),
    _no_tls("ehlo_silent", "no answer to EHLO", "timeout", "ehlo", ehlo=Misdeed.SILENT),
    _no_tls("ehlo_close", "closes at EHLO", "closed_early", "ehlo", ehlo=Misdeed.CLOSE),
    _no_tls("ehlo_garbage", "nonsense to EHLO", "protocol_error", "ehlo", ehlo=Misdeed.GARBAGE),
    _no_tls("ehlo_endless", "keywords without end", "protocol_error", "ehlo", ehlo=Misdeed.ENDLESS_REPLY),
    _no_tls(
        "ehlo_half",
        "closes within the EHLO reply",
        "closed_early",
        "ehlo",
        ehlo=b"250-%h\r\n250-STARTTLS\r\n",
    ),
    ServerKind(
        "odd_lines",
        "bare line feeds, trailing blanks, bytes that are no ASCII, a last line without text",
        ehlo=b"250-%h \xe9\xff  \n250-STARTTLS  \n250-8BITMIME\r\n250\r\n",
    ),
    # STARTTLS
    _no_tls(
        "starttls_busy",
        "STARTTLS, then 454",
        "greylisted",
        "starttls",
        starttls_reply=b"454 4.7.0 TLS not available\r\n",
        **_OFFERED,
    ),
    _no_tls(
        "starttls_refused",
        "STARTTLS, then 502",
        "tls_failed",
        "starttls",
        starttls_reply=b"502 5.5.1 not implemented\r\n",
        **_BROKEN,
    ),
    _no_tls(
        "starttls_limited",
        "STARTTLS, then 421",
        "rate_limited",
        "starttls",
        starttls_reply=b"421 4.7.0 too many\r\n",
        **_OFFERED,
    ),
    _no_tls(
        "starttls_silent",
        "STARTTLS, then silence",
        "timeout",
        "starttls",
        starttls_reply=Misdeed.SILENT,
        **_OFFERED,
    ),
    _no_tls(
        "starttls_close",
        "STARTTLS, then gone",
        "closed_early",
        "starttls",
        starttls_reply=Misdeed.CLOSE,
        **_OFFERED,
    ),
    _no_tls(
        "handshake_close",
        "closes in the handshake",
        "tls_failed",
        "handshake",
        handshake=Misdeed.CLOSE,
        **_BROKEN,
    ),
    _no_tls(
        "handshake_alert",
        "answers the handshake with an alert",
        "tls_failed",
        "handshake",
        handshake=Misdeed.ALERT,
        **_BROKEN,
    ),
    _no_tls(
        "handshake_silent",
        "silent in the handshake",
        "timeout",
        "handshake",
        handshake=Misdeed.SILENT,
        **_OFFERED,
    ),
    ServerKind(
        "injected",
        "plaintext replies after the answer to STARTTLS",
        starttls_reply=b"220 2.0.0 ready\r\n" + _INJECTED,
        injected_bytes=len(_INJECTED),
    ),
    # inside TLS
    ServerKind(
        "inside_silent",
        "silent inside TLS",
        ehlo_inside=Misdeed.SILENT,
        outcome="timeout",
        stage="ehlo_tls",
        requiretls_tls="unknown",
    ),
    ServerKind(
        "inside_close",
        "closes inside TLS",
        ehlo_inside=Misdeed.CLOSE,
        outcome="closed_early",
        stage="ehlo_tls",
        requiretls_tls="unknown",
    ),
    ServerKind(
        "inside_refused",
        "554 to EHLO inside TLS",
        ehlo_inside=b"554 5.7.1 no\r\n",
        outcome="blocked",
        stage="ehlo_tls",
        requiretls_tls="unknown",
    ),
    ServerKind(
        "inside_busy",
        "421 to EHLO inside TLS",
        ehlo_inside=b"421 4.7.0 no\r\n",
        outcome="rate_limited",
        stage="ehlo_tls",
        requiretls_tls="unknown",
    ),
    ServerKind(
        "inside_garbage",
        "nonsense inside TLS",
        ehlo_inside=Misdeed.GARBAGE,
        outcome="protocol_error",
        stage="ehlo_tls",
        requiretls_tls="unknown",
    ),
    ServerKind("quit_close", "closes at QUIT without a word", inside=_REQUIRETLS, quit=Misdeed.CLOSE),
)


def _offering(kind: ServerKind) -> ServerKind:
    """Fill in the truth of those that offer REQUIRETLS inside TLS and do nothing else unusual."""
    return replace(kind, requiretls_tls="yes") if kind.inside == _REQUIRETLS else kind


SERVERS = {kind.name: _offering(kind) for kind in _SERVERS}


@dataclass(frozen=True, slots=True)
class HostKind:
    """An MX host: its addresses, each with a server, and what the DNS says of it.

    `dane` is the verdict on its chain against its TLSA records where TLS comes about and they are usable;
    `dane_for_domain` that for the domain whose host it is, where it differs. `lookup` and `tlsa_lookup` are faults
    of the DNS (``servfail``, ``bogus``, ``timeout``); `literal` are addresses that no server of the lab has.
    """

    name: str
    why: str = ""
    servers: tuple[str, ...] = ("valid",)
    secure: bool = False
    tlsa: tuple[str, ...] = ()
    tlsa_lookup: str = ""
    tlsa_insecure: bool = False  # the zone below the host is not signed
    alias: str = ""  # the host is a CNAME; its target's zone is ``secure`` or ``insecure``
    tlsa_at_alias: bool = False  # at the name of the alias, not at its target
    literal: tuple[str, ...] = ()
    lookup: str = ""
    ipv6: bool = False  # its (last) address is ::1
    # the truth
    mx_state: str = "mx"
    tlsa_state: str = "none"
    dane: str = "none"
    dane_for_domain: str = ""


def _dane(name: str, why: str, tlsa: str, dane: str, server: str = "requiretls", **more: object) -> HostKind:
    """Describe a signed host with TLSA records, written with commas between them."""
    state = "usable" if dane in ("match", "mismatch") else dane
    given = HostKind(
        name,
        why,
        (server,),
        secure=True,
        tlsa=tuple(tlsa.split(", ")),
        tlsa_state=state,
        dane=dane,
    )
    return replace(given, **more)  # type: ignore[arg-type]


_HOSTS = (
    *(HostKind(kind.name, kind.why, (kind.name,)) for kind in SERVERS.values()),
    *(HostKind(f"{name}_signed", "", (name,), secure=True) for name in ("valid", "requiretls", "plain")),
    HostKind(
        "requiretls_expired_signed",
        "REQUIRETLS and a signed zone, certificate expired",
        ("requiretls_expired",),
        True,
    ),
    HostKind(
        "requiretls_cn_only_signed", "REQUIRETLS, name in the CN alone", ("requiretls_cn_only",), secure=True
    ),
    HostKind("tls11_signed", "REQUIRETLS over TLS 1.1", ("requiretls_tls11",), secure=True),
    HostKind("silent_signed", "says nothing", ("silent",), secure=True),
    HostKind("starttls_busy_signed", "STARTTLS, then 454", ("starttls_busy",), secure=True),
    HostKind("handshake_close_signed", "closes in the handshake", ("handshake_close",), secure=True),
    HostKind("inside_silent_signed", "silent inside TLS", ("inside_silent",), secure=True),
    HostKind(
        "one_of_three",
        "REQUIRETLS on one of three addresses",
        ("valid", "requiretls", "valid"),
        secure=True,
    ),
    HostKind("half_silent", "one of two addresses says nothing", ("requiretls", "silent"), secure=True),
    HostKind("ipv6_only", "IPv6 only", ("valid",), ipv6=True),
    HostKind("dual_stack", "IPv4 and IPv6", ("valid", "valid"), ipv6=True),
    # DANE
    _dane("dane_311", "TLSA 3 1 1 matches", "3 1 1 leaf", "match"),
    _dane("dane_211", "TLSA 2 1 1 matches", "2 1 1 intermediate", "match"),
    _dane("dane_301", "TLSA 3 0 1 matches", "3 0 1 leaf", "match"),
    _dane("dane_312", "TLSA 3 1 2 matches", "3 1 2 leaf", "match"),
    _dane("dane_310", "TLSA 3 1 0, the key in full, matches", "3 1 0 leaf", "match"),
    _dane("dane_300", "TLSA 3 0 0, the certificate in full, matches", "3 0 0 leaf", "match"),
    _dane(
        "dane_201", "TLSA 2 0 1 of a root that is sent matches", "2 0 1 root", "match", "requiretls_with_root"
    ),
    _dane("dane_200", "TLSA 2 0 0, a root in full that is not sent", "2 0 0 root", "match"),
    _dane("dane_plain_offer", "TLSA matches, no REQUIRETLS", "3 1 1 leaf", "match", "valid"),
    _dane("dane_mismatch", "TLSA 3 1 1 of another key", "3 1 1 other", "mismatch"),
    _dane("dane_mismatch_common", "TLSA of an old key, no REQUIRETLS", "3 1 1 other", "mismatch", "valid"),
    _dane("dane_one_of_two", "one of two TLSA records matches", "3 1 1 other, 3 1 1 leaf", "match"),
    _dane("dane_ta_not_sent", "TLSA 2 1 1 of a root that is not sent", "2 1 1 root", "mismatch"),
    _dane("dane_agility", "a stale 3 1 2 beside a good 3 1 1", "3 1 2 other, 3 1 1 leaf", "mismatch"),
    _dane("dane_expired_ee", "expired, TLSA 3 1 1", "3 1 1 leaf", "match", "requiretls_expired"),
    _dane("dane_expired_ta", "expired, TLSA 2 1 1", "2 1 1 root", "mismatch", "expired_with_root"),
    _dane("dane_wrong_name_ee", "wrong name, TLSA 3 1 1", "3 1 1 leaf", "match", "requiretls_wrong_name"),
    _dane("dane_wrong_name_ta", "wrong name, TLSA 2 1 1", "2 1 1 root", "mismatch", "wrong_name_with_root"),
    _dane(
        "dane_domain_name_ta",
        "TLSA 2 1 1, certificate named as the domain",
        "2 1 1 intermediate",
        "mismatch",
        "requiretls_for_domain",
        dane_for_domain="match",
    ),
    _dane("dane_self_signed", "self-signed, TLSA 3 1 1", "3 1 1 leaf", "match", "requiretls_self_signed"),
    _dane("dane_pkix_usages", "TLSA usages 0 and 1 alone", "0 1 1 intermediate, 1 1 1 leaf", "unusable"),
    _dane("dane_undefined", "undefined selector and matching type", "3 2 1 leaf, 3 1 9 leaf", "unusable"),
    _dane("dane_short", "digest of the wrong length", "3 1 1 short", "unusable"),
    _dane(
        "dane_unusable_bad_certificate",
        "unusable TLSA, self-signed certificate",
        "3 2 1 leaf",
        "unusable",
        "requiretls_self_signed",
    ),
    _dane("dane_some_unusable", "one unusable TLSA, one that matches", "1 1 1 leaf, 3 1 1 leaf", "match"),
    _dane("dane_plain", "TLSA, and no STARTTLS", "3 1 1 leaf", "match", "plain"),
    _dane("dane_anonymous", "TLSA, and anonymous ciphers", "3 1 1 leaf", "mismatch", "anonymous"),
    _dane("dane_starttls_refused", "TLSA, and STARTTLS refused", "3 1 1 leaf", "match", "starttls_refused"),
    _dane("dane_silent", "TLSA, and silence", "3 1 1 leaf", "match", "silent"),
    _dane("tlsa_bogus", "TLSA lookup bogus", "3 1 1 leaf", "error", tlsa_lookup="bogus"),
    _dane("tlsa_servfail", "TLSA lookup fails", "3 1 1 leaf", "error", tlsa_lookup="servfail"),
    _dane(
        "tlsa_insecure",
        "TLSA in an unsigned zone below a signed host",
        "3 1 1 other",
        "none",
        tlsa_insecure=True,
        tlsa_state="insecure",
    ),
    _dane("dane_alias_secure", "CNAME, TLSA at its target", "3 1 1 leaf", "match", alias="secure"),
    _dane(
        "dane_alias_insecure",
        "signed CNAME to an unsigned target, TLSA at the CNAME",
        "3 1 1 leaf",
        "match",
        alias="insecure",
        tlsa_at_alias=True,
    ),
    HostKind(
        "dane_insecure_zone", "TLSA in an unsigned zone", ("requiretls",), tlsa=("3 1 1 leaf",), dane="none"
    ),
    # the DNS
    HostKind("alias", "MX host is a CNAME", alias="insecure", mx_state="mx_is_cname"),
    HostKind("no_address", "MX host without address", (), mx_state="mx_no_address"),
    HostKind("no_name", "MX host does not exist", (), lookup="nxdomain", mx_state="mx_no_address"),
    HostKind(
        "host_servfail",
        "address lookup of the MX host fails",
        lookup="servfail",
        mx_state="dns_failure",
        tlsa_state="error",
    ),
    HostKind(
        "host_bogus",
        "addresses of the MX host are bogus",
        secure=True,
        lookup="bogus",
        mx_state="dns_failure",
        tlsa_state="error",
    ),
    HostKind(
        "special",
        "MX host at a private address",
        (),
        literal=("10.20.30.40",),
        mx_state="mx_special_address",
    ),
    HostKind(
        "special_signed",
        "signed MX host at a link-local address",
        (),
        secure=True,
        literal=("169.254.10.20",),
        mx_state="mx_special_address",
    ),
    HostKind("half_special", "one of two addresses is private", ("valid",), literal=("192.168.7.7",)),
)
HOSTS = {kind.name: replace(kind, mx_state="mx_is_cname") if kind.alias else kind for kind in _HOSTS}


@dataclass(frozen=True, slots=True)
class StsKind:
    """An MTA-STS set-up: the TXT record and what the policy host serves, with the truth about both (RFC 8461).

    In `body` and `texts`, ``%m`` stands for an ``mx:`` line for each MX host and ``%d`` for the policy domain.
    """

    name: str
    why: str = ""
    texts: tuple[str, ...] = ("v=STSv1; id=20261101;",)
    body: bytes = b"version: STSv1\r\nmode: enforce\r\n%mmax_age: 604800\r\n"
    status: int = 200
    media_type: str = "text/plain"
    headers: tuple[tuple[str, str], ...] = ()
    certificate: str = "valid"
    misdeed: str = ""  # silent, drip, close, plaintext, endless, short, not_http: in place of an answer
    address: str = ""  # refused, none, special; the lab's policy host without
    lookup: str = ""  # a fault of the DNS at the policy host
    record_lookup: str = ""
    alias: bool = False  # record and policy host are CNAMEs to a provider
    # the truth
    record: str = "valid"
    policy: str = "valid"
    mode: str | None = "enforce"
    max_age_seconds: int | None = 604800
    matches: bool = True
    patterns: tuple[str, ...] | None = None  # the MX hosts without
    policy_id: str | None = "20261101"


def _bad_policy(name: str, why: str, policy: str, **more: object) -> StsKind:
    """Describe a valid record whose policy is none."""
    return replace(StsKind(name, why, policy=policy, mode=None, max_age_seconds=None), **more)  # type: ignore[arg-type]


def _no_record(name: str, why: str, record: str, texts: tuple[str, ...], **more: object) -> StsKind:
    policy = "not_tested" if record == "dns_failure" else "no_record"
    kind = StsKind(
        name, why, texts, record=record, policy=policy, mode=None, max_age_seconds=None, policy_id=None
    )
    return replace(kind, **more)  # type: ignore[arg-type]


UNTOLD = frozenset(
    {"dns_failure", "no_address", "address_refused", "connect_failed", "timeout", "tls_failed"}
)
"""States of a policy that could not be had, which leaves open what the domain wishes."""

_MAX_AGE = b"max_age: 604800\r\n"
_STS = (
    _no_record("absent", "", "absent", ()),
    StsKind("enforce", "MTA-STS enforce"),
    StsKind(
        "testing",
        "MTA-STS testing",
        body=b"version: STSv1\nmode: testing\n%nmax_age: 86400\n",
        mode="testing",
        max_age_seconds=86400,
    ),
    StsKind(
        "mode_none",
        "MTA-STS mode none",
        body=b"version: STSv1\r\nmode: none\r\nmax_age: 3600\r\n",
        mode="none",
        max_age_seconds=3600,
        patterns=(),
    ),
    StsKind(
        "enforce_wildcard",
        "MTA-STS enforce with a wildcard",
        body=b"version: STSv1\r\nmode: enforce\r\nmx: *.%d\r\n" + _MAX_AGE,
        patterns=("*.%d",),
        media_type="text/plain; charset=utf-8",
    ),
    StsKind(
        "enforce_mismatch",
        "MTA-STS enforce names other hosts",
        body=b"version: STSv1\r\nmode: enforce\r\nmx: mx.elsewhere.test\r\n" + _MAX_AGE,
        patterns=("mx.elsewhere.test",),
        matches=False,
    ),
    StsKind(
        "testing_mismatch",
        "MTA-STS testing names other hosts",
        body=b"version: STSv1\r\nmode: testing\r\nmx: mx.elsewhere.test\r\n" + _MAX_AGE,
        mode="testing",
        patterns=("mx.elsewhere.test",),
        matches=False,
    ),
    StsKind(
        "other_texts",
        "other TXT strings beside the record",
        ("v=spf1 -all", "v=STSv1; id=20261101;", "hello"),
    ),
    StsKind("delegated", "record and policy host are CNAMEs", alias=True),
    StsKind(
        "huge_txt",
        "TXT answer too long for UDP",
        (*(f"{number:0240d}" for number in range(12)), "v=STSv1; id=20261101;"),
    ),
    _bad_policy(
        "redirect",
        "policy host redirects",
        "redirect",
        status=301,
        headers=(("Location", "https://www.elsewhere.test/"),),
    ),
    _bad_policy("not_found", "no policy at the policy host", "http_status", status=404),
    _bad_policy("server_error", "policy host fails", "http_status", status=500),
    _bad_policy("html", "policy as text/html", "content_type", media_type="text/html"),
    _bad_policy(
        "too_large",
        "policy of 100,000 bytes",
        "too_large",
        body=b"version: STSv1\r\n" + b"x: " + b"y" * 100_000 + b"\r\n",
    ),
    _bad_policy("endless", "policy without end", "too_large", misdeed="endless"),
    _bad_policy("no_mode", "policy without mode", "invalid", body=b"version: STSv1\r\n%mmax_age: 604800\r\n"),
    _bad_policy(
        "bad_mode",
        "mode: enforced",
        "invalid",
        body=b"version: STSv1\r\nmode: enforced\r\n%mmax_age: 604800\r\n",
    ),
    _bad_policy(
        "web_page", "a web page for a policy", "invalid", body=b"<!doctype html><title>Welcome</title>\n"
    ),
    _bad_policy("empty", "an empty policy", "invalid", body=b""),
    _bad_policy(
        "policy_expired",
        "certificate of the policy host expired",
        "certificate_invalid",
        certificate="expired",
    ),
    _bad_policy(
        "policy_wrong_name",
        "policy host with another's certificate",
        "certificate_invalid",
        certificate="wrong_name",
    ),
    _bad_policy(
        "policy_self_signed", "self-signed policy host", "certificate_invalid", certificate="self_signed"
    ),
    _bad_policy(
        "policy_cn_only", "policy host named in the CN alone", "certificate_invalid", certificate="cn_only"
    ),
    _bad_policy("policy_silent", "policy host says nothing", "timeout", misdeed="silent"),
    _bad_policy("policy_drip", "policy host sends a byte now and then", "timeout", misdeed="drip"),
    _bad_policy("policy_close", "policy host closes at the request", "connect_failed", misdeed="close"),
    _bad_policy("policy_short", "policy breaks off", "connect_failed", misdeed="short"),
    _bad_policy("policy_plaintext", "policy host without TLS", "tls_failed", misdeed="plaintext"),
    _bad_policy("policy_not_http", "policy host speaks something else", "http_status", misdeed="not_http"),
    _bad_policy("policy_refused", "policy host refuses connections", "connect_failed", address="refused"),
    _bad_policy("policy_no_address", "policy host without address", "no_address", address="none"),
    _bad_policy("policy_special", "policy host at a private address", "address_refused", address="special"),
    _bad_policy("policy_servfail", "lookup of the policy host fails", "dns_failure", lookup="servfail"),
    _no_record("multiple", "two MTA-STS records", "multiple", ("v=STSv1; id=1;", "v=STSv1; id=2;")),
    _no_record("malformed", "MTA-STS record without id", "malformed", ("v=STSv1; n=1;",)),
    _no_record("spf_instead", "SPF answers for _mta-sts", "absent", ("v=spf1 -all",)),
    _no_record("record_servfail", "lookup of _mta-sts fails", "dns_failure", (), record_lookup="servfail"),
)
STS = {kind.name: kind for kind in _STS}


@dataclass(frozen=True, slots=True)
class TlsrptKind:
    """A TLSRPT record at ``_smtp._tls``, with the truth about it (RFC 8460 §3); ``%d`` is the policy domain."""

    name: str
    why: str
    texts: tuple[str, ...]
    state: str
    rua: tuple[str, ...] | None = None
    lookup: str = ""


TLSRPT = {
    kind.name: kind
    for kind in (
        TlsrptKind("absent", "", (), "absent"),
        TlsrptKind(
            "mail",
            "TLSRPT by mail",
            ("v=TLSRPTv1; rua=mailto:tls@%d",),
            "valid",
            ("mailto:tls@%d",),
        ),
        TlsrptKind(
            "mail_and_web",
            "TLSRPT by mail and HTTPS",
            ("v=TLSRPTv1;rua=mailto:tls@%d,https://reports.%d/tls",),
            "valid",
            ("mailto:tls@%d", "https://reports.%d/tls"),
        ),
        TlsrptKind("no_rua", "TLSRPT without rua", ("v=TLSRPTv1;",), "malformed"),
        TlsrptKind(
            "two",
            "two TLSRPT records",
            ("v=TLSRPTv1; rua=mailto:a@%d", "v=TLSRPTv1; rua=mailto:b@%d"),
            "multiple",
        ),
        TlsrptKind("servfail", "lookup of _smtp._tls fails", (), "dns_failure", lookup="servfail"),
    )
}


@dataclass(frozen=True, slots=True)
class DomainKind:
    """A policy domain: its MX hosts by kind, and its policies.

    `hosts` are pairs of preference and host kind. `lookup` is a fault of the DNS at the domain itself.
    """

    name: str
    why: str = ""
    hosts: tuple[tuple[int, str], ...] = ()
    secure: bool = False
    sts: str = "absent"
    tlsrpt: str = "absent"
    lookup: str = ""
    null_mx: bool = False
    alias: bool = False  # the domain is a CNAME
    label: str = ""  # first label, where it is not made from the name
    provider: str = ""  # whose hosts it uses, in place of its own
    mx_state: str = "mx"


def _one(
    host: str,
    *,
    secure: bool = False,
    sts: str = "absent",
    name: str = "",
    tlsrpt: str = "absent",
    why: str = "",
) -> DomainKind:
    """Describe a domain with one MX host of its own."""
    parts = [why or HOSTS[host].why, STS[sts].why, TLSRPT[tlsrpt].why, "MX signed" if secure else ""]
    return DomainKind(
        name or host, ", ".join(part for part in parts if part), ((10, host),), secure, sts, tlsrpt
    )


_NO_OWN_DOMAIN = {"valid", "requiretls", "valid_signed", "requiretls_signed", "plain_signed", "special"}
_COMMON = (
    _one("valid"),
    DomainKind("no_mail", "neither MX nor address", mx_state="no_mail"),
    _one("wrong_name"),
    DomainKind("servfail", "MX lookup fails", lookup="servfail", mx_state="dns_failure"),
    _one("valid", secure=True, name="signed"),
    DomainKind("implicit_mx", "no MX, an address of its own", ((0, "valid"),), mx_state="implicit_mx"),
    _one("dane_plain_offer", secure=True),
    DomainKind("null_mx", "null MX: takes no mail", null_mx=True, mx_state="null_mx"),
    _one("self_signed"),
    _one("refused"),
    _one("plain"),
    DomainKind("nxdomain", "does not exist", lookup="nxdomain", mx_state="nxdomain"),
    _one("valid", sts="enforce", name="sts_enforce", tlsrpt="mail"),
    _one("requiretls", why="REQUIRETLS, MX name not secured"),
    _one("dane_311", secure=True),
    _one("requiretls", sts="enforce", name="requiretls_sts"),
    _one("requiretls_signed", secure=True, name="requiretls_dnssec", why="REQUIRETLS, PKIX and DNSSEC"),
    _one("valid", sts="testing", name="sts_testing"),
    DomainKind("hosted_signed", "hosted by a DANE provider, MX signed", secure=True, provider="onehost.test"),
    DomainKind("hosted_unsigned", "hosted by the same DANE provider, MX not signed", provider="onehost.test"),
    DomainKind("hosted_big", "hosted by a large provider", provider="bigmail.test"),
)
_TAKEN = {host for kind in _COMMON for _preference, host in kind.hosts}
_DOMAINS = (
    *_COMMON,
    *(
        _one(kind.name, secure=kind.secure)
        for kind in HOSTS.values()
        if kind.name not in _TAKEN | _NO_OWN_DOMAIN
    ),
    _one("requiretls", sts="testing", name="requiretls_sts_testing"),
    _one("requiretls", sts="enforce_mismatch", name="requiretls_sts_mismatch"),
    _one("requiretls_signed", secure=True, sts="enforce_mismatch", name="signed_sts_mismatch"),
    _one("requiretls_cn_only", sts="enforce", name="cn_only_sts"),
    _one("dane_self_signed", secure=True, sts="enforce", name="dane_self_signed_sts"),
    _one("dane_311", secure=True, sts="enforce", name="dane_and_sts"),
    _one("requiretls", sts="policy_silent", name="requiretls_sts_untold"),
    _one("requiretls_signed", secure=True, sts="policy_refused", name="signed_sts_untold"),
    _one("requiretls", sts="html", name="requiretls_sts_html"),
    *(
        _one("valid", sts=kind.name, name=f"sts_{kind.name}")
        for kind in STS.values()
        if kind.name not in ("absent", "enforce", "testing")
    ),
    *(
        _one("valid", tlsrpt=kind.name, name=f"tlsrpt_{kind.name}")
        for kind in TLSRPT.values()
        if kind.name != "absent"
    ),
    _one("dane_311", name="dane_insecure_mx", why="DANE host, MX answer not signed"),
    _one("dane_mismatch", name="dane_mismatch_insecure_mx", why="TLSA mismatch, MX answer not signed"),
    _one("requiretls", secure=True, name="signed_unsigned_host", why="signed MX, host elsewhere unsigned"),
    _one("plain_signed", secure=True, name="signed_plain"),
    DomainKind(
        "two_hosts",
        "two hosts, the backup offers REQUIRETLS",
        ((10, "valid_signed"), (20, "requiretls_signed")),
        secure=True,
    ),
    DomainKind(
        "half_ready",
        "REQUIRETLS on one of two hosts of equal preference",
        ((10, "dane_311"), (10, "valid_signed")),
        secure=True,
    ),
    DomainKind("one_dead_host", "one host refuses connections", ((10, "refused"), (20, "valid"))),
    DomainKind(
        "one_unknown_host", "one host without address", ((10, "no_name"), (20, "requiretls")), sts="enforce"
    ),
    DomainKind("special_beside_good", "one host at a private address", ((10, "special"), (20, "valid"))),
    DomainKind(
        "null_mx_with_others",
        "null MX beside a real one",
        ((10, "valid"),),
        null_mx=True,
        mx_state="null_mx_with_others",
    ),
    DomainKind(
        "implicit_requiretls",
        "no MX, REQUIRETLS at its address",
        ((0, "requiretls"),),
        mx_state="implicit_mx",
    ),
    DomainKind(
        "implicit_dane", "no MX, signed, TLSA", ((0, "dane_311"),), secure=True, mx_state="implicit_mx"
    ),
    DomainKind(
        "bogus", "MX answer is bogus", ((10, "valid"),), secure=True, lookup="bogus", mx_state="dns_failure"
    ),
    DomainKind(
        "dns_timeout", "name servers are silent at the MX question", lookup="timeout", mx_state="dns_failure"
    ),
    DomainKind("dns_refused", "name servers refuse", lookup="refused", mx_state="dns_failure"),
    DomainKind("null_mx_signed", "null MX in a signed zone", null_mx=True, secure=True, mx_state="null_mx"),
    DomainKind(
        "nxdomain_signed",
        "signed proof that it does not exist",
        lookup="nxdomain",
        secure=True,
        mx_state="nxdomain",
    ),
    DomainKind("mx_is_address", "MX names an address", ((10, "literal"),)),
    DomainKind("many_hosts", "MX answer too long for UDP", tuple((number, "long") for number in range(12))),
    DomainKind("alias_domain", "the domain is a CNAME", ((10, "valid"),), alias=True),
    DomainKind("idn", "an internationalised name", ((10, "valid"),), label="xn--mller-post-9db"),
)
HOSTS["literal"] = HostKind("literal", "an address in place of a name", (), mx_state="mx_is_address")
HOSTS["long"] = HostKind("long", "a very long name", ("valid",))
DOMAINS = {kind.name: kind for kind in _DOMAINS}
