"""What a scan of the world must find: the tables that follow from its description.

Single facts come from the catalogue. Here they are only added up, as the meaning of the tables' words has it: the
shares of a domain's addresses, and what stops a REQUIRETLS message on the way to each (RFC 8689 §4.2.1). None of it
uses the code that judges scans, so that each can find the other's mistakes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rtls_analysis.lab.kinds import CERTIFICATES, STS, TLSRPT, UNTOLD, ServerKind, StsKind
from rtls_analysis.lab.world import WHOLE_ZONE, Domain, Host, World

if TYPE_CHECKING:
    import pandas as pd

OBSTACLES = (
    "dns_error",
    "no_mx",
    "unreachable",
    "sts_forbids_host",
    "mx_unauthenticated",
    "no_starttls",
    "tls_failed",
    "tls_too_old",
    "dane_mismatch",
    "certificate_unverified",
    "requiretls_not_offered",
    "unknown",
)
"""In the order in which a sender meets them; none is the empty text, and comes last."""

_READINESS_OPEN = ("dns_error", "unreachable", "unknown")
_QUESTIONS = (
    "starttls",
    "pkix",
    "dane",
    "requiretls_offered",
    "requiretls_ready",
    "requiretls_ready_testing",
)


@dataclass(frozen=True, slots=True)
class _Policy:
    """What a domain's MTA-STS policy says of its hosts; no `mode` without a valid policy."""

    mode: str | None
    told: bool  # False: it could not be had
    matches: bool


def _policy_of(domain: Domain) -> _Policy:
    sts = STS[domain.kind.sts]
    if domain.kind.lookup in WHOLE_ZONE or sts.record == "dns_failure":
        return _Policy(None, False, False)
    return _Policy(sts.mode, sts.policy not in UNTOLD, sts.matches)


@dataclass(frozen=True, slots=True)
class _Hop:
    """One address as seen by one domain: what it answers to each question, and its obstacles."""

    answers: Mapping[str, str]  # yes, no, unknown, left_out
    obstacles: tuple[str, ...]
    open: bool  # something that could be an obstacle was not told

    @property
    def obstacle(self) -> str:
        """The first obstacle; "unknown" where nothing is sure and something is open."""
        return self.obstacles[0] if self.obstacles else "unknown" if self.open else ""


def _hops(domain: Domain, host: Host) -> Iterator[_Hop]:
    if host.kind.mx_state == "dns_failure":
        found = {"dns_error", *_of_the_name(domain, ("enforce",))}
        yield _Hop(dict.fromkeys(_QUESTIONS, "unknown"), _ordered(found), open=True)
        return
    for _address, server in host.places:
        yield _hop(domain, host, server)


def _of_the_name(domain: Domain, modes: Sequence[str]) -> Iterator[str]:
    """Give the obstacles that lie in the MX host's name, before anything of the host is known."""
    policy = _policy_of(domain)
    if policy.mode == "enforce" and not policy.matches:
        yield "sts_forbids_host"
    by_sts = policy.mode in modes and policy.matches
    if domain.via_mx and not domain.kind.secure and not by_sts and policy.told:
        yield "mx_unauthenticated"


def _dane_word(domain: Domain, host: Host, server: ServerKind | None) -> str:
    """Say what DANE comes to for a domain: none, unusable, ok, fail, error, or unknown."""
    kind = host.kind
    if (domain.via_mx and not domain.kind.secure) or kind.tlsa_state in ("none", "insecure"):
        return "none"
    if kind.tlsa_state in ("error", "unusable"):
        return kind.tlsa_state
    if server is None or server.starttls == "unknown":
        return "unknown"
    if not server.has_tls:  # TLS is owed to a host with usable records
        return "fail"
    return "ok" if (kind.dane_for_domain or kind.dane) == "match" else "fail"


def _hop(domain: Domain, host: Host, server: ServerKind | None) -> _Hop:
    dane = _dane_word(domain, host, server)
    if server is None:  # a special address, left alone
        sure = {*_of_the_name(domain, ("enforce",)), *(("dns_error",) if dane == "error" else ())}
        return _Hop(dict.fromkeys(_QUESTIONS, "left_out"), _ordered(sure), open=True)
    found, is_open = _obstacles(domain, server, dane, ("enforce",))
    in_testing, open_in_testing = _obstacles(domain, server, dane, ("enforce", "testing"))
    starttls = {"yes": "yes", "no": "no", "failed": "no", "unknown": "unknown"}[server.starttls]
    answers = dict.fromkeys(_QUESTIONS, starttls)
    if server.has_tls:
        answers["pkix"] = "yes" if CERTIFICATES[server.certificate].pkix == "valid" else "no"
        answers["requiretls_offered"] = server.requiretls_tls
        authenticated = dane == "ok" and (domain.kind.secure or not domain.via_mx)
        answers["dane"] = "yes" if authenticated else "unknown" if dane == "error" else "no"
    answers["requiretls_ready"] = _ready(found, is_open)
    answers["requiretls_ready_testing"] = _ready(in_testing, open_in_testing)
    return _Hop(answers, found, is_open)


def _obstacles(
    domain: Domain, server: ServerKind, dane: str, modes: Sequence[str]
) -> tuple[tuple[str, ...], bool]:
    """List what surely stops a message at one address, and whether more is open."""
    policy = _policy_of(domain)
    certificate = CERTIFICATES[server.certificate]
    found = set(_of_the_name(domain, modes))
    is_open = domain.via_mx and not domain.kind.secure and not policy.told
    if dane == "error":
        found.add("dns_error")
    if dane == "fail":
        found.add("dane_mismatch")
    match server.starttls:
        case "unknown":
            found.add("unreachable")
        case "no":
            found.add("no_starttls")
        case "failed":
            found.add("tls_failed")
        case "yes":
            if server.tls_version in ("TLSv1.0", "TLSv1.1"):
                found.add("tls_too_old")
            if dane in ("none", "unusable") and certificate.pkix != "valid":
                found.add("certificate_unverified")
            if policy.mode == "enforce" and not (certificate.pkix == "valid" and certificate.dns_id):
                found.add("certificate_unverified")
            if server.requiretls_tls == "no":
                found.add("requiretls_not_offered")
            is_open = is_open or server.requiretls_tls == "unknown"
    return _ordered(found), is_open


def _ready(obstacles: Sequence[str], is_open: bool) -> str:
    if not obstacles:
        return "unknown" if is_open else "yes"
    return "unknown" if obstacles[0] in _READINESS_OPEN else "no"


def _ordered(obstacles: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(obstacles), key=OBSTACLES.index))


def _share(answers: Iterable[str]) -> str:
    """Sum up addresses; those left out count only where no other is left."""
    everything = list(answers)
    asked = [answer for answer in everything if answer != "left_out"]
    if not asked:
        return "not_tested" if everything else "not_applicable"
    if "yes" in asked:
        return "all" if set(asked) == {"yes"} else "some"
    return "unknown" if "unknown" in asked else "none"


def _sum_up(hops: Sequence[_Hop], questions: Iterable[str]) -> dict[str, Any]:
    """Sum the hops of a domain or of one of its hosts up."""
    row: dict[str, Any] = {question: _share(hop.answers[question] for hop in hops) for question in questions}
    if not hops:
        return {**row, "obstacle": "no_mx", "obstacles": ["no_mx"]}
    asked = [hop for hop in hops if hop.answers["requiretls_ready"] != "left_out"]
    firsts = [hop.obstacle for hop in asked or hops]
    if "" in firsts:
        row["obstacle"] = ""
    elif still_open := [word for word in _READINESS_OPEN if word in firsts]:
        row["obstacle"] = still_open[0]
    else:
        row["obstacle"] = max(firsts, key=OBSTACLES.index)
    row["obstacles"] = list(_ordered(word for hop in hops for word in hop.obstacles))
    return row


def _found(host: Host) -> tuple[str, ...]:
    return () if host.kind.mx_state == "dns_failure" else host.addresses


def _security(secure: bool) -> str:
    return "secure" if secure else "insecure"


def _domain_row(domain: Domain) -> dict[str, Any]:
    kind, sts, tlsrpt = domain.kind, STS[domain.kind.sts], TLSRPT[domain.kind.tlsrpt]
    failed = kind.mx_state == "dns_failure"
    zone_failed = kind.lookup in WHOLE_ZONE
    denied = kind.lookup == "nxdomain"
    hosts = domain.hosts if domain.answers else ()
    hops = [hop for _preference, host in hosts for hop in _hops(domain, host)]
    row: dict[str, Any] = {
        "domain": domain.name,
        "mx_state": kind.mx_state,
        "mx_dnssec": "error" if failed else _security(kind.secure),
        "mx_canonical": domain.canonical,
        "mx_hosts": len(hosts),
        "addresses": len({address for _preference, host in hosts for address in _found(host)}),
        "sts_texts": [] if zone_failed or denied else list(sts.texts),
        "tlsrpt_texts": [] if zone_failed or denied else _filled(tlsrpt.texts, domain),
    }
    if zone_failed:
        row.update(_sts_columns(STS["record_servfail"], domain), tlsrpt="dns_failure", tlsrpt_rua=None)
    elif denied:
        row.update(_sts_columns(STS["absent"], domain), tlsrpt="absent", tlsrpt_rua=None)
    else:
        rua = _filled(tlsrpt.rua, domain) if tlsrpt.rua is not None else None
        row.update(_sts_columns(sts, domain), tlsrpt=tlsrpt.state, tlsrpt_rua=rua)
    row.update(_sum_up(hops, _QUESTIONS))
    if failed:
        row.update(dict.fromkeys(_QUESTIONS, "unknown"), obstacle="dns_error", obstacles=["dns_error"])
    return row


def _filled(texts: Iterable[str], domain: Domain) -> list[str]:
    return [text.replace("%d", domain.name) for text in texts]


def _sts_columns(sts: StsKind, domain: Domain) -> dict[str, Any]:
    patterns = None
    if sts.mode is not None:
        named = [host.name for _preference, host in domain.hosts] or [f"mx.{domain.name}"]
        patterns = named if sts.patterns is None else _filled(sts.patterns, domain)
    return {
        "sts_record": sts.record,
        "sts_policy": sts.policy,
        "sts_mode": sts.mode,
        "sts_max_age_seconds": sts.max_age_seconds,
        "sts_policy_id": sts.policy_id,
        "sts_mx": patterns,
    }


def _mx_row(domain: Domain, preference: int, host: Host) -> dict[str, Any]:
    policy = _policy_of(domain)
    has_patterns = policy.mode in ("enforce", "testing")
    if not domain.via_mx:
        secured_by = "implicit_mx"
    elif domain.kind.secure:
        secured_by = "dnssec"
    elif policy.mode == "enforce" and policy.matches:
        secured_by = "mta_sts"
    else:
        secured_by = "none" if policy.told else "unknown"
    return {
        "domain": domain.name,
        "preference": preference,
        "mx_host": host.name,
        "mx_state": host.kind.mx_state,
        "sts_match": policy.matches if has_patterns else None,
        "secured_by": secured_by,
        **_sum_up(list(_hops(domain, host)), ("dane", "requiretls_ready", "requiretls_ready_testing")),
    }


def _host_row(host: Host, tlsa: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    kind = host.kind
    failed = kind.mx_state == "dns_failure"
    secure = kind.secure and kind.alias != "insecure"
    heard = bool(kind.tlsa) and not kind.tlsa_lookup and (secure or kind.tlsa_at_alias)
    security = "error" if failed else _security(secure)
    if kind.mx_state == "mx_is_address":
        security = "not_tested"
    return {
        "mx_host": host.name,
        "canonical_name": host.canonical,
        "addresses": list(_found(host)),
        "addresses_dnssec": security,
        "mx_state": kind.mx_state,
        "tlsa_state": kind.tlsa_state,
        "tlsa_base": (host.name if kind.tlsa_at_alias else host.canonical) if heard else None,
        "tlsa": list(tlsa[host.name]) if heard else [],
    }


def _session_row(host: Host, address: str, server: ServerKind | None, port: int) -> dict[str, Any]:
    row: dict[str, Any] = {"mx_host": host.name, "address": address, "port": port, "pkix": "not_tested"}
    state = host.kind.tlsa_state
    row["dane"] = {"usable": "not_tested", "insecure": "none"}.get(state, state)
    if server is None:
        not_tested = dict.fromkeys(("starttls", "requiretls_plain", "requiretls_tls"), "not_tested")
        more = {"tls_version": None, "name_match": None, "injected_bytes": 0}
        return {**row, "outcome": "address_refused", "stage": "connect", **not_tested, **more}
    certificate = CERTIFICATES[server.certificate] if server.has_tls else None
    if certificate is not None:
        row["pkix"] = certificate.pkix
        row["dane"] = host.kind.dane if state == "usable" else row["dane"]
    return {
        **row,
        "outcome": server.outcome,
        "stage": server.stage,
        "starttls": server.starttls,
        "tls_version": server.tls_version,
        "name_match": certificate.name_match if certificate is not None else None,
        "requiretls_plain": server.requiretls_plain,
        "requiretls_tls": server.requiretls_tls,
        "injected_bytes": server.injected_bytes,
    }


def make_truth(world: World, smtp_port: int, tlsa: Mapping[str, Sequence[str]]) -> dict[str, pd.DataFrame]:
    """Make the tables `domains`, `mx`, `hosts` and `sessions` that a scan of the whole world must come to.

    `tlsa` holds the TLSA records of each host that has some. Words are plain text, lists are lists, and None stands
    for what does not apply.
    """
    import pandas as pd

    domains, mx = [], []
    wanted: dict[str, Host] = {}
    for domain in world.domains.values():
        domains.append(_domain_row(domain))
        for preference, host in domain.hosts if domain.answers else ():
            mx.append(_mx_row(domain, preference, host))
            wanted[host.name] = host
    hosts = [_host_row(host, tlsa) for host in wanted.values()]
    sessions = [
        _session_row(host, address, server, smtp_port)
        for host in wanted.values()
        if host.kind.mx_state != "dns_failure"
        for address, server in host.places
    ]
    rows = {"domains": domains, "mx": mx, "hosts": hosts, "sessions": sessions}
    return {name: pd.DataFrame(table, dtype=object) for name, table in rows.items()}
