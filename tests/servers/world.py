"""The world of real servers, as data: every listener and domain, and the words that a scan of it owes.

Three zones below a signed root: ``signed.test`` (NSEC3), ``plain.test`` (an insecure delegation) and ``broken.test``
(expired signatures). Domain ``X.zone.test`` has the MX host ``mx.X.zone.test`` unless its row says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

PREFIX = "10.25"
NAME_SERVER = f"{PREFIX}.0.2"
POLICY_SERVER = f"{PREFIX}.0.3"
RESOLVER = "127.0.0.1"
ALLOW_SPECIAL = (f"{PREFIX}.0.0/16", "fd25::/16")
EHLO_NAME = "probe.plain.test"

P11, P37, EXIM, OPEN, NODE = "postfix-3.11", "postfix-3.7", "exim", "opensmtpd", "smtp-server"
REAL_SERVERS = (P11, P37, EXIM, OPEN, NODE)


@dataclass(frozen=True, slots=True)
class Listener:
    """One MX host at one address: what runs there, and the words of its rows in `hosts` and `sessions`.

    `tlsa` are records as ``usage selector matching what``: ``leaf``, ``issuer``, ``root``, ``other`` (a key of nobody
    here), ``short`` (not a digest), ``forged`` (the leaf's, changed after signing), ``plain`` (an alias into the
    unsigned zone). `settings` are words of `start`. A host at two addresses has two rows; the first says its `tlsa`.
    """

    host: str
    why: str
    server: str
    certificate: str
    tlsa: tuple[str, ...]
    pkix: str
    tlsa_state: str
    dane: str
    requiretls_tls: str
    settings: tuple[str, ...] = ()
    starttls: str = "yes"
    outcome: str = "completed"
    stage: str = "quit"
    reply_code: int | None = None
    requiretls_plain: str = "no"
    tls_version: str = "TLSv1.3"  # where it does TLS
    key_exchange: str = ""  # where the server leaves no choice; its own log tells the others
    injected: str = ""
    cname: str = ""

    @property
    def has_address(self) -> bool:
        """Whether its lookup gives an address; in the broken zone none does."""
        return not self.host.endswith("broken.test")

    @property
    def pushes_back(self) -> bool:
        """Whether it answers in a way that makes a scan come again."""
        return self.outcome in ("rate_limited", "greylisted", "blocked")

    @property
    def certificate_key(self) -> str:
        """The key of its certificate."""
        return "RSA-2048" if "rsa" in self.settings else "EC-P-256"


def _tls(
    label: str,
    why: str,
    server: str,
    certificate: str,
    tlsa: str,
    words: str,
    settings: str = "",
    *,
    plain: str = "no",
    version: str = "TLSv1.3",
    key_exchange: str = "",
    injected: str = "",
    end: str = "completed quit",
    reply_code: int | None = None,
) -> Listener:
    """Write a listener that does TLS; `words` are pkix, tlsa_state, dane, requiretls_tls, `end` outcome and stage."""
    pkix, tlsa_state, dane, requiretls = words.split()
    outcome, stage = end.split()
    return Listener(
        host=f"mx.{label}.test",
        why=why,
        server=server,
        certificate=certificate,
        tlsa=tuple(tlsa.split(", ")) if tlsa else (),
        pkix=pkix,
        tlsa_state=tlsa_state,
        dane=dane,
        requiretls_tls=requiretls,
        settings=tuple(settings.split()),
        outcome=outcome,
        stage=stage,
        reply_code=reply_code,
        requiretls_plain=plain,
        tls_version=version,
        key_exchange=key_exchange,
        injected=injected,
    )


def _no_tls(
    label: str, why: str, server: str, settings: str, outcome: str, stage: str, words: str, tlsa: str = ""
) -> Listener:
    """Write a listener that no TLS session comes of; `words` are starttls, requiretls_plain, reply code or ``-``."""
    starttls, plain, code = words.split()
    return Listener(
        host=f"mx.{label}.test",
        why=why,
        server=server,
        certificate="valid",
        tlsa=tuple(tlsa.split(", ")) if tlsa else (),
        pkix="not_tested",
        tlsa_state="usable" if tlsa else "none",
        dane="not_tested" if tlsa else "none",
        requiretls_tls="not_tested",
        settings=tuple(settings.split()),
        starttls=starttls,
        outcome=outcome,
        stage=stage,
        reply_code=None if code == "-" else int(code),
        requiretls_plain=plain,
    )


LISTENERS: tuple[Listener, ...] = (
    # Postfix 3.11 announces REQUIRETLS inside TLS.
    _tls("ee.signed", "3 1 1", P11, "valid", "3 1 1 leaf", "valid usable match yes"),
    _tls("ta.signed", "2 1 1", P11, "valid", "2 1 1 issuer", "valid usable match yes"),
    _tls(
        "ee-expired.signed", "DANE-EE ignores dates", P11, "expired", "3 1 1 leaf", "expired usable match yes"
    ),
    _tls(
        "ee-self.signed",
        "DANE-EE needs no CA",
        P11,
        "self_signed",
        "3 1 1 leaf",
        "self_signed usable match yes",
    ),
    _tls(
        "ee-name.signed",
        "DANE-EE ignores names",
        P11,
        "wrong_name",
        "3 1 1 leaf",
        "name_mismatch usable match yes",
    ),
    _tls("stale.signed", "the key was changed", P11, "valid", "3 1 1 other", "valid usable mismatch yes"),
    _tls("stale-ta.signed", "another CA", P11, "valid", "2 1 1 other", "valid usable mismatch yes"),
    _tls(
        "unusable.signed", "PKIX-EE", P11, "valid", "1 1 1 leaf, 3 1 1 short", "valid unusable unusable yes"
    ),
    _tls(
        "unusable-self.signed",
        "unusable records owe TLS, RFC 8689 owes a certificate",
        P11,
        "self_signed",
        "3 1 1 short",
        "self_signed unusable unusable yes",
    ),
    _tls(
        "ta-name.signed",
        "DANE-TA minds names",
        P11,
        "wrong_name",
        "2 1 1 issuer",
        "name_mismatch usable mismatch yes",
    ),
    _tls(
        "ta-domain.signed",
        "DANE-TA takes the next hop's name; the host's own row does not know it",
        P11,
        "names_domain",
        "2 1 1 issuer",
        "name_mismatch usable mismatch yes",
    ),
    _tls(
        "ta-expired.signed",
        "DANE-TA minds dates",
        P11,
        "expired",
        "2 1 1 issuer",
        "expired usable mismatch yes",
    ),
    _tls("pkix.signed", "no TLSA", P11, "valid", "", "valid none none yes"),
    _tls("expired.signed", "expired", P11, "expired", "", "expired none none yes"),
    _tls("early.signed", "not yet valid", P11, "not_yet_valid", "", "not_yet_valid none none yes"),
    _tls("name.signed", "wrong name", P11, "wrong_name", "", "name_mismatch none none yes"),
    _tls("self.signed", "self-signed", P11, "self_signed", "", "self_signed none none yes"),
    _tls("stranger.signed", "of a CA nobody trusts", P11, "stranger", "", "untrusted none none yes"),
    _tls("leaf-only.signed", "no intermediate sent", P11, "leaf_only", "", "untrusted none none yes"),
    _tls(
        "off.signed", "REQUIRETLS off", P11, "valid", "3 1 1 leaf", "valid usable match no", "no_requiretls"
    ),
    _no_tls(
        "cleartext.signed", "no STARTTLS", P11, "no_starttls", "completed", "quit", "no no -", "3 1 1 leaf"
    ),
    _no_tls("busy.signed", "454 to STARTTLS", P11, "no_ca", "greylisted", "starttls", "unknown no 454"),
    _no_tls(
        "no-cipher.signed",
        "its ciphers want another key than it has: the handshake breaks",
        P37,
        "no_cipher",
        "tls_failed",
        "handshake",
        "failed no -",
    ),
    _tls(
        "closed-shop.signed",
        "wants a client certificate: TLS comes about, and EHLO inside it is answered by 421",
        P37,
        "valid",
        "",
        "valid none none unknown",
        "client_certificate",
        end="rate_limited ehlo_tls",
        reply_code=421,
    ),
    _tls(
        "nameless.signed",
        "no certificate at all",
        P37,
        "valid",
        "",
        "anonymous none none no",
        "anonymous",
        version="TLSv1.2",
    ),
    _tls(
        "forged.signed", "TLSA changed after signing", P11, "valid", "3 1 1 forged", "valid error error yes"
    ),
    _tls(
        "astray.signed",
        "TLSA by an alias out of the signed tree",
        P11,
        "valid",
        "3 1 1 plain",
        "valid insecure none yes",
    ),
    Listener(
        "mx.alias.signed.test",
        "MX host is an alias: TLSA at its end, the certificate names the end only",
        "",
        "",
        (),
        "name_mismatch",
        "usable",
        "match",
        "yes",
        cname="mx.ee.signed.test",
    ),
    _tls("bare.plain", "TLSA in an unsigned zone", P11, "valid", "3 1 1 leaf", "valid none none yes"),
    _tls("enforce.plain", "MTA-STS enforce", P11, "valid", "", "valid none none yes"),
    _tls("enforce-expired.plain", "MTA-STS enforce, expired", P11, "expired", "", "expired none none yes"),
    _tls("testing.plain", "MTA-STS testing", P11, "valid", "", "valid none none yes"),
    _tls("none.plain", "MTA-STS none", P11, "valid", "", "valid none none yes"),
    _tls("mismatch.plain", "MTA-STS names another MX", P11, "valid", "", "valid none none yes"),
    _tls("wild.plain", "MTA-STS names it with a wildcard", P11, "wildcard", "", "valid none none yes"),
    _tls("bad-policy.plain", "policy host with a bad certificate", P11, "valid", "", "valid none none yes"),
    _tls("moved.plain", "policy host redirects", P11, "valid", "", "valid none none yes"),
    _tls("both.signed", "DNSSEC, and MTA-STS forbids", P11, "valid", "3 1 1 leaf", "valid usable match yes"),
    # Postfix 3.7 knows nothing of REQUIRETLS.
    _tls("old.signed", "3 0 1", P37, "valid", "3 0 1 leaf", "valid usable match no"),
    _tls("old-512.signed", "3 1 2", P37, "valid", "3 1 2 leaf", "valid usable match no", "rsa"),
    _tls("old-full.signed", "3 1 0", P37, "valid", "3 1 0 leaf", "valid usable match no"),
    _tls(
        "old-agile.signed",
        "only the strongest digest counts, and it is stale",
        P37,
        "valid",
        "3 1 1 leaf, 3 1 2 other",
        "valid usable mismatch no",
    ),
    _tls(
        "old-agile-ok.signed",
        "a stale record of another selector does no harm",
        P37,
        "valid",
        "3 1 1 leaf, 3 0 2 other",
        "valid usable match no",
    ),
    _tls(
        "old-root.signed", "2 0 1, the root is sent", P37, "with_root", "2 0 1 root", "valid usable match no"
    ),
    _tls(
        "old-no-root.signed",
        "2 0 1, the root is not sent",
        P37,
        "valid",
        "2 0 1 root",
        "valid usable mismatch no",
    ),
    _tls(
        "old-given.signed", "2 0 0 gives the root itself", P37, "valid", "2 0 0 root", "valid usable match no"
    ),
    _tls("old-cn.signed", "name in the CN only", P37, "cn_only", "", "valid none none no"),
    _tls("old-issuer.signed", "expired intermediate", P37, "expired_issuer", "", "expired none none no"),
    _tls(
        "old-tls10.signed",
        "TLS 1.0 only",
        P37,
        "valid",
        "",
        "valid none none no",
        "tls10 rsa",
        version="TLSv1.0",
        key_exchange="RSA",
    ),
    _tls(
        "old-tls12.signed",
        "TLS 1.2 only",
        P37,
        "valid",
        "",
        "valid none none no",
        "tls12 p384",
        version="TLSv1.2",
        key_exchange="P-384",
    ),
    _tls(
        "old-curve.signed",
        "P-384 only: TLS 1.3 after a HelloRetryRequest",
        P37,
        "valid",
        "",
        "valid none none no",
        "p384",
        key_exchange="P-384",
    ),
    _tls("old-bare.plain", "unsigned, self-signed", P37, "self_signed", "", "self_signed none none no"),
    _no_tls("old-clear.plain", "no STARTTLS", P37, "no_starttls", "completed", "quit", "no no -"),
    _no_tls(
        "blocked.signed", "554 in the greeting", P37, "reject", "blocked", "greeting", "unknown unknown 554"
    ),
    _no_tls(
        "grey.signed", "450 in the greeting", P37, "defer", "greylisted", "greeting", "unknown unknown 450"
    ),
    _no_tls(
        "limited.signed",
        "421 in the greeting",
        P37,
        "limit",
        "rate_limited",
        "greeting",
        "unknown unknown 421",
    ),
    _no_tls("refused.signed", "nobody listens", "", "", "refused", "connect", "unknown unknown -"),
    _tls("bad.broken", "a good server in a broken zone", P37, "valid", "3 1 1 leaf", "valid error error no"),
    # Exim (GnuTLS)
    _tls("exim.signed", "3 1 1", EXIM, "valid", "3 1 1 leaf", "valid usable match no"),
    _tls("exim-stale.signed", "mismatch", EXIM, "valid", "3 1 1 other", "valid usable mismatch no"),
    _tls("exim-expired.signed", "expired", EXIM, "expired", "", "expired none none no"),
    _tls("exim-name.signed", "wrong name", EXIM, "wrong_name", "", "name_mismatch none none no"),
    _tls("exim-self.plain", "self-signed", EXIM, "self_signed", "", "self_signed none none no"),
    _no_tls("exim-clear.signed", "no STARTTLS", EXIM, "no_starttls", "completed", "quit", "no no -"),
    # OpenSMTPD (LibreSSL's API on OpenSSL)
    _tls("open.signed", "2 1 1", OPEN, "valid", "2 1 1 issuer", "valid usable match no"),
    _tls(
        "open-ee.signed",
        "3 1 1, self-signed",
        OPEN,
        "self_signed",
        "3 1 1 leaf",
        "self_signed usable match no",
    ),
    _tls("open-expired.signed", "expired", OPEN, "expired", "", "expired none none no"),
    _tls("open-name.signed", "wrong name", OPEN, "wrong_name", "", "name_mismatch none none no"),
    _no_tls("open-clear.plain", "no STARTTLS", OPEN, "no_starttls", "completed", "quit", "no no -"),
    # nodemailer's smtp-server announces REQUIRETLS where it is told to
    _tls("node.signed", "REQUIRETLS on", NODE, "valid", "3 1 1 leaf", "valid usable match yes"),
    _tls("node-off.signed", "as it comes", NODE, "valid", "", "valid none none no", "no_requiretls"),
    _tls("node-ta.signed", "2 1 1", NODE, "valid", "2 1 1 issuer", "valid usable match yes"),
    _tls("node-expired.signed", "expired", NODE, "expired", "", "expired none none yes"),
    _tls(
        "node-early.signed",
        "REQUIRETLS before TLS only: a promise made to anyone on the path",
        NODE,
        "valid",
        "",
        "valid none none no",
        "plain_requiretls no_requiretls",
        plain="yes",
    ),
    _tls(
        "node-both.signed",
        "before TLS and after",
        NODE,
        "valid",
        "",
        "valid none none yes",
        "plain_requiretls",
        plain="yes",
    ),
    _tls(
        "node-lower.signed",
        "in lower case, with a parameter",
        NODE,
        "valid",
        "",
        "valid none none yes",
        "lower_case",
    ),
    _tls(
        "node-injected.signed",
        "a reply slipped in between the go-ahead for TLS and TLS",
        NODE,
        "valid",
        "",
        "valid none none no",
        "no_requiretls injected",
        injected="250 REQUIRETLS\\r\\n",
    ),
    _no_tls("node-clear.signed", "no STARTTLS", NODE, "no_starttls", "completed", "quit", "no no -"),
    _tls("half.signed", "REQUIRETLS at IPv4", NODE, "valid", "3 1 1 leaf", "valid usable match yes"),
    _tls("half.signed", "none at IPv6", NODE, "valid", "", "valid usable match no", "no_requiretls ipv6"),
    Listener("implicit.signed.test", "the domain itself", P11, "valid", (), "valid", "none", "none", "yes"),
)


def addresses() -> dict[Listener, str]:
    """Give each listener its address; an alias has that of its target."""
    found: dict[Listener, str] = {}
    for number, listener in enumerate(LISTENERS, start=1):
        family = f"fd25::1:{number:x}" if "ipv6" in listener.settings else f"{PREFIX}.1.{number}"
        found[listener] = str(ip_address(family))
    ends = {listener.host: address for listener, address in found.items()}
    return {listener: ends[listener.cname] if listener.cname else found[listener] for listener in found}


@dataclass(frozen=True, slots=True)
class Domain:
    """A policy domain and the words of its rows; `shares` are the six DomainShare columns in their order.

    `policy` is what the policy host serves: an MTA-STS mode, perhaps with ``/pattern``, or a word of `start`.
    """

    domain: str
    shares: str
    obstacle: str
    mx: tuple[str, ...]
    secured_by: str = "dnssec"
    mx_state: str = "mx"
    policy: str = ""
    sts_policy: str = "no_record"
    sts_mode: str | None = None
    sts_match: bool | None = None
    more_obstacles: tuple[str, ...] = ()
    host_state: str = "mx"


SHARES = ("starttls", "pkix", "dane", "requiretls_offered", "requiretls_ready", "requiretls_ready_testing")
_READY = "all all all all all all"
_WITHOUT_DANE = "all all none all all all"


def _at(label: str, shares: str, obstacle: str, *more: str, **words: object) -> Domain:
    mx = words.pop("mx", (f"mx.{label}.test",))
    return Domain(f"{label}.test", shares, obstacle, mx, more_obstacles=more, **words)  # type: ignore[arg-type]


_PLAIN = {"secured_by": "none"}

DOMAINS: tuple[Domain, ...] = (
    _at("ee.signed", _READY, ""),
    _at("ta.signed", _READY, ""),
    _at("ee-expired.signed", "all none all all all all", ""),
    _at("ee-self.signed", "all none all all all all", ""),
    _at("ee-name.signed", "all none all all all all", ""),
    _at("stale.signed", "all all none all none none", "dane_mismatch"),
    _at("stale-ta.signed", "all all none all none none", "dane_mismatch"),
    _at("unusable.signed", _WITHOUT_DANE, ""),
    _at("unusable-self.signed", "all none none all none none", "certificate_unverified"),
    _at("ta-name.signed", "all none none all none none", "dane_mismatch"),
    _at("ta-domain.signed", "all none all all all all", ""),
    _at("ta-expired.signed", "all none none all none none", "dane_mismatch"),
    _at("pkix.signed", _WITHOUT_DANE, ""),
    _at("expired.signed", "all none none all none none", "certificate_unverified"),
    _at("early.signed", "all none none all none none", "certificate_unverified"),
    _at("name.signed", "all none none all none none", "certificate_unverified"),
    _at("self.signed", "all none none all none none", "certificate_unverified"),
    _at("stranger.signed", "all none none all none none", "certificate_unverified"),
    _at("leaf-only.signed", "all none none all none none", "certificate_unverified"),
    _at("off.signed", "all all all none none none", "requiretls_not_offered"),
    _at("cleartext.signed", "none none none none none none", "no_starttls", "dane_mismatch"),
    _at("busy.signed", "unknown unknown unknown unknown unknown unknown", "unreachable"),
    _at("no-cipher.signed", "none none none none none none", "tls_failed"),
    _at("closed-shop.signed", "all all none unknown unknown unknown", "unknown"),
    _at(
        "nameless.signed", "all none none none none none", "certificate_unverified", "requiretls_not_offered"
    ),
    _at("forged.signed", "all all unknown all unknown unknown", "dns_error"),
    _at("astray.signed", _WITHOUT_DANE, ""),
    _at("alias.signed", "all none all all all all", "", host_state="mx_is_cname"),
    _at("bare.plain", "all all none all none none", "mx_unauthenticated", **_PLAIN),
    _at(
        "enforce.plain",
        _WITHOUT_DANE,
        "",
        secured_by="mta_sts",
        policy="enforce",
        sts_policy="valid",
        sts_mode="enforce",
        sts_match=True,
    ),
    _at(
        "enforce-expired.plain",
        "all none none all none none",
        "certificate_unverified",
        secured_by="mta_sts",
        policy="enforce",
        sts_policy="valid",
        sts_mode="enforce",
        sts_match=True,
    ),
    _at(
        "testing.plain",
        "all all none all none all",
        "mx_unauthenticated",
        **_PLAIN,
        policy="testing",
        sts_policy="valid",
        sts_mode="testing",
        sts_match=True,
    ),
    _at(
        "none.plain",
        "all all none all none none",
        "mx_unauthenticated",
        **_PLAIN,
        policy="none",
        sts_policy="valid",
        sts_mode="none",
    ),
    _at(
        "mismatch.plain",
        "all all none all none none",
        "sts_forbids_host",
        "mx_unauthenticated",
        **_PLAIN,
        policy="enforce/mx.elsewhere.plain.test",
        sts_policy="valid",
        sts_mode="enforce",
        sts_match=False,
    ),
    _at(
        "wild.plain",
        _WITHOUT_DANE,
        "",
        secured_by="mta_sts",
        policy="enforce/*.wild.plain.test",
        sts_policy="valid",
        sts_mode="enforce",
        sts_match=True,
    ),
    _at(
        "bad-policy.plain",
        "all all none all none none",
        "mx_unauthenticated",
        **_PLAIN,
        policy="self_signed",
        sts_policy="certificate_invalid",
    ),
    _at(
        "moved.plain",
        "all all none all none none",
        "mx_unauthenticated",
        **_PLAIN,
        policy="redirect",
        sts_policy="redirect",
    ),
    _at(
        "both.signed",
        "all all all all none none",
        "sts_forbids_host",
        policy="enforce/mx.elsewhere.plain.test",
        sts_policy="valid",
        sts_mode="enforce",
        sts_match=False,
    ),
    _at("old.signed", "all all all none none none", "requiretls_not_offered"),
    _at("old-512.signed", "all all all none none none", "requiretls_not_offered"),
    _at("old-full.signed", "all all all none none none", "requiretls_not_offered"),
    _at("old-agile.signed", "all all none none none none", "dane_mismatch", "requiretls_not_offered"),
    _at("old-agile-ok.signed", "all all all none none none", "requiretls_not_offered"),
    _at("old-root.signed", "all all all none none none", "requiretls_not_offered"),
    _at("old-no-root.signed", "all all none none none none", "dane_mismatch", "requiretls_not_offered"),
    _at("old-given.signed", "all all all none none none", "requiretls_not_offered"),
    _at("old-cn.signed", "all all none none none none", "requiretls_not_offered"),
    _at(
        "old-issuer.signed",
        "all none none none none none",
        "certificate_unverified",
        "requiretls_not_offered",
    ),
    _at("old-tls10.signed", "all all none none none none", "tls_too_old", "requiretls_not_offered"),
    _at("old-tls12.signed", "all all none none none none", "requiretls_not_offered"),
    _at("old-curve.signed", "all all none none none none", "requiretls_not_offered"),
    _at(
        "old-bare.plain",
        "all none none none none none",
        "mx_unauthenticated",
        "certificate_unverified",
        "requiretls_not_offered",
        **_PLAIN,
    ),
    _at("old-clear.plain", "none none none none none none", "mx_unauthenticated", "no_starttls", **_PLAIN),
    _at("blocked.signed", "unknown unknown unknown unknown unknown unknown", "unreachable"),
    _at("grey.signed", "unknown unknown unknown unknown unknown unknown", "unreachable"),
    _at("limited.signed", "unknown unknown unknown unknown unknown unknown", "unreachable"),
    _at("refused.signed", "unknown unknown unknown unknown unknown unknown", "unreachable"),
    _at("exim.signed", "all all all none none none", "requiretls_not_offered"),
    _at("exim-stale.signed", "all all none none none none", "dane_mismatch", "requiretls_not_offered"),
    _at(
        "exim-expired.signed",
        "all none none none none none",
        "certificate_unverified",
        "requiretls_not_offered",
    ),
    _at(
        "exim-name.signed", "all none none none none none", "certificate_unverified", "requiretls_not_offered"
    ),
    _at(
        "exim-self.plain",
        "all none none none none none",
        "mx_unauthenticated",
        "certificate_unverified",
        "requiretls_not_offered",
        **_PLAIN,
    ),
    _at("exim-clear.signed", "none none none none none none", "no_starttls"),
    _at("open.signed", "all all all none none none", "requiretls_not_offered"),
    _at("open-ee.signed", "all none all none none none", "requiretls_not_offered"),
    _at(
        "open-expired.signed",
        "all none none none none none",
        "certificate_unverified",
        "requiretls_not_offered",
    ),
    _at(
        "open-name.signed", "all none none none none none", "certificate_unverified", "requiretls_not_offered"
    ),
    _at("open-clear.plain", "none none none none none none", "mx_unauthenticated", "no_starttls", **_PLAIN),
    _at("node.signed", _READY, ""),
    _at("node-off.signed", "all all none none none none", "requiretls_not_offered"),
    _at("node-ta.signed", _READY, ""),
    _at("node-expired.signed", "all none none all none none", "certificate_unverified"),
    _at("node-early.signed", "all all none none none none", "requiretls_not_offered"),
    _at("node-both.signed", _WITHOUT_DANE, ""),
    _at("node-lower.signed", _WITHOUT_DANE, ""),
    _at("node-injected.signed", "all all none none none none", "requiretls_not_offered"),
    _at("node-clear.signed", "none none none none none none", "no_starttls"),
    _at("half.signed", "all all all some some some", "", "requiretls_not_offered"),
    # Domains whose MX is another's host, and those without one
    _at(
        "guest.plain", "all all none all none none", "mx_unauthenticated", **_PLAIN, mx=("mx.ee.signed.test",)
    ),
    _at("outward.signed", _WITHOUT_DANE, "", mx=("mx.enforce.plain.test",)),
    _at(
        "backup.signed",
        "some some some some some some",
        "",
        "no_starttls",
        "dane_mismatch",
        mx=("mx.cleartext.signed.test", "mx.ee.signed.test"),
    ),
    _at(
        "lost.signed",
        "unknown unknown unknown unknown unknown unknown",
        "dns_error",
        mx=("mx.bad.broken.test",),
        host_state="dns_failure",
    ),
    _at(
        "implicit.signed",
        _WITHOUT_DANE,
        "",
        secured_by="implicit_mx",
        mx_state="implicit_mx",
        mx=("implicit.signed.test",),
    ),
    Domain(
        "bad.broken.test", "unknown " * 6, "dns_error", (), mx_state="dns_failure", sts_policy="not_tested"
    ),
    Domain("null.signed.test", "not_applicable " * 6, "no_mx", (), mx_state="null_mx"),
    Domain("silent.signed.test", "not_applicable " * 6, "no_mx", (), mx_state="no_mail"),
    Domain("gone.signed.test", "not_applicable " * 6, "no_mx", (), mx_state="nxdomain"),
)
