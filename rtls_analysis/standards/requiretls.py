"""Can a message that asks for REQUIRETLS, or for the opposite, go this way? (RFC 8689 §4.2)

The conditions of RFC 8689 §4.2.1 stand beside those of DANE (RFC 7672) and MTA-STS (RFC 8461), which bind every
message to a domain that publishes them. Where the RFCs leave a choice it is a field of `Rules`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from rtls_analysis.standards.dns_answer import DnsSecurity
from rtls_analysis.standards.mta_sts import StsMode
from rtls_analysis.standards.smtp_session import FeatureState


class Obstacle(StrEnum):
    """What stops a REQUIRETLS message at one address, in the order in which a sender would meet it."""

    DNS_ERROR = "dns_error"
    NO_MX = "no_mx"
    UNREACHABLE = "unreachable"  # no session worth a verdict
    STS_FORBIDS_HOST = "sts_forbids_host"
    MX_UNAUTHENTICATED = "mx_unauthenticated"
    NO_STARTTLS = "no_starttls"
    TLS_FAILED = "tls_failed"
    TLS_TOO_OLD = "tls_too_old"
    DANE_MISMATCH = "dane_mismatch"
    CERTIFICATE_UNVERIFIED = "certificate_unverified"
    REQUIRETLS_NOT_OFFERED = "requiretls_not_offered"
    UNKNOWN = "unknown"  # nothing sure, something could not be told
    NONE = ""  # no obstacle


_ORDER = {obstacle: place for place, obstacle in enumerate(Obstacle)}


class Readiness(StrEnum):
    """Whether a REQUIRETLS message can go."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not_applicable"  # the domain takes no mail


class Disposition(StrEnum):
    """What a sender does with the message (RFC 8689 §4.2.1, §4.2.2, §5)."""

    SEND = "send"  # as it asked: with REQUIRETLS, or over TLS
    SEND_UNPROTECTED = "send_unprotected"  # a DSN without the parameter; `TLS-Required: No` in cleartext
    DEFER = "defer"
    BOUNCE = "bounce"
    UNKNOWN = "unknown"


class DaneHop(StrEnum):
    """What DANE comes to at one address of one domain: the MX answer counts, then the host (RFC 7672 §2.2)."""

    OK = "ok"
    NONE = "none"  # no secure TLSA records, or they do not count
    UNUSABLE = "unusable"  # TLS is owed, DANE asks no authentication
    FAIL = "fail"
    ERROR = "error"
    UNKNOWN = "unknown"


class NameRule(StrEnum):
    """Whose names must be in the certificate of a host that DANE authenticates."""

    AS_APPLICABLE = "as_applicable"  # DANE-EE none, DANE-TA one of RFC 7672 §3.2.2: as mox and Postfix do
    LITERAL = "literal"  # the MX host's, always: the last sentence of RFC 8689 §4.2.1 as it stands


class StsWithDane(StrEnum):
    """What an MTA-STS policy in mode enforce asks of a host that DANE authenticates."""

    BOTH = "both"  # a PKIX certificate too: RFC 8461 §2 gives DANE no way round it
    DANE_WINS = "dane_wins"


class CertFail(StrEnum):
    """What becomes of a message whose host fails DANE or the policy's certificate check."""

    BOUNCE = "bounce"  # RFC 8689 §4.2.1; Postfix
    DEFER = "defer"  # RFC 7672 §2.2, RFC 8461 §5


_TLS_VERSIONS = ("SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3")


# -- the reading of the RFCs ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rules:
    """One reading of what the RFCs leave open; the defaults are the strict ones.

    Parameters
    ----------
    sts_modes
        Modes of an MTA-STS policy that secure the MX name. RFC 8689 §4.2.1 names the MX check of RFC 8461 §4.1
        and no mode.
    name_rule
        Whose names a certificate authenticated by DANE must have.
    minimum_tls
        The lowest version that counts: RFC 8689 §2 recommends RFC 7525, whose successor forbids all below
        TLS 1.2.
    sts_with_dane
        Whether DANE does away with the certificate check of MTA-STS.
    dane_insecure_mx
        Whether DANE authenticates a host that an unsigned MX record names (RFC 7672 §2.2.1, MAY). It never
        secures the name itself.
    cn_id
        Whether a common name counts where the certificate has no DNS-ID; for MTA-STS it never does.
    strict_media_type
        Whether a policy under another media type than text/plain is no policy (RFC 8461 §3.2, SHOULD).
    cert_fail
        What becomes of the message where DANE or the policy refuses the certificate.
    """

    sts_modes: frozenset[StsMode] = frozenset({StsMode.ENFORCE})
    name_rule: NameRule = NameRule.AS_APPLICABLE
    minimum_tls: str = "TLSv1.2"
    sts_with_dane: StsWithDane = StsWithDane.BOTH
    dane_insecure_mx: bool = False
    cn_id: bool = True
    strict_media_type: bool = True
    cert_fail: CertFail = CertFail.BOUNCE

    @classmethod
    def of(cls, **values: Any) -> Rules:
        """Make rules from plain values, as they stand in a call, a TOML file or a manifest.

        >>> rules = Rules.of(sts_modes=["enforce", "testing"], minimum_tls="1.3")
        >>> sorted(rules.sts_modes), rules.minimum_tls
        ([<StsMode.ENFORCE: 'enforce'>, <StsMode.TESTING: 'testing'>], 'TLSv1.3')

        Raises
        ------
        ValueError
            There is no such rule, or no such value of it.
        """
        known = [item.name for item in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"no rule {', '.join(unknown)}; there are {', '.join(known)}")
        return cls(**{name: _RULES[name](name, value) for name, value in values.items()})


def _modes(name: str, value: Any) -> frozenset[StsMode]:
    values = [value] if isinstance(value, str) else list(value)
    return frozenset(_word(name, item, (StsMode.ENFORCE, StsMode.TESTING)) for item in values)


def _word(name: str, value: Any, words: Iterable[Any]) -> Any:
    choices = list(words)
    for word in choices:
        if word == value:
            return word
    raise ValueError(f"{name} is {value!r}; give {' or '.join(choices)}")


def _version(name: str, value: Any) -> str:
    text = str(value)
    return str(_word(name, text if text.startswith("TLSv") else f"TLSv{text}", _TLS_VERSIONS[1:]))


def _flag(name: str, value: Any) -> bool:
    held = {"yes": True, "no": False}.get(value, value) if isinstance(value, str) else value
    if not isinstance(held, bool):
        raise ValueError(f"{name} is {value!r}; give true or false")  # noqa: TRY004 - a value out of a file
    return held


_RULES: Mapping[str, Any] = {
    "sts_modes": _modes,
    "name_rule": lambda name, value: _word(name, value, NameRule),
    "minimum_tls": _version,
    "sts_with_dane": lambda name, value: _word(name, value, StsWithDane),
    "dane_insecure_mx": _flag,
    "cn_id": _flag,
    "strict_media_type": _flag,
    "cert_fail": lambda name, value: _word(name, value, CertFail),
}


# -- one host at one address ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HopFacts:
    """What is known of one MX host at one address, for one domain; None where it could not be told.

    Parameters
    ----------
    via_mx
        The host comes from an MX record; false for the implicit MX, whose name needs no securing.
    mx_security
        The DNSSEC state of the MX answer.
    sts_mode, sts_told, sts_match
        The mode of a valid policy; whether the domain's wish is known (a policy that could not be had is not);
        whether the policy names the host.
    host_dns_failed
        The addresses of the host could not be looked up.
    session_ok
        There was a session that tells of STARTTLS; None where the address was not contacted.
    starttls, tls_version
        What became of STARTTLS, and the version.
    pkix_ok, pkix_dns_id_ok
        The certificate is good for the host; also by a DNS-ID, as MTA-STS asks.
    name_in_certificate
        The certificate has the host's name, whatever else is wrong with it.
    dane
        What DANE comes to.
    requiretls
        REQUIRETLS in the EHLO reply inside TLS.
    """

    via_mx: bool = True
    mx_security: DnsSecurity = DnsSecurity.INSECURE
    sts_mode: StsMode | None = None
    sts_told: bool = True
    sts_match: bool | None = None
    host_dns_failed: bool = False
    session_ok: bool | None = True
    starttls: FeatureState = FeatureState.YES
    tls_version: str | None = "TLSv1.3"
    pkix_ok: bool | None = True
    pkix_dns_id_ok: bool | None = True
    name_in_certificate: bool | None = True
    dane: DaneHop = DaneHop.NONE
    requiretls: FeatureState = FeatureState.YES


@dataclass(frozen=True, slots=True)
class HopVerdict:
    """The verdict on one address.

    `obstacle` is the first one found, UNKNOWN where none is sure and something could not be told, NONE where the
    message goes; `obstacles` are all that are sure, in order, `maybe` those that could not be told. `disposition`
    is what a sender does if this host is the last one left, `enhanced_code` the status of its notice (RFC 8689
    §4.2.1), "" where none is assigned.
    """

    obstacle: Obstacle
    obstacles: tuple[Obstacle, ...] = ()
    maybe: tuple[Obstacle, ...] = ()
    disposition: Disposition = Disposition.SEND
    enhanced_code: str = ""

    @property
    def readiness(self) -> Readiness:
        """Whether a REQUIRETLS message can go this way."""
        match self.obstacle:
            case Obstacle.NONE:
                return Readiness.YES
            case Obstacle.DNS_ERROR | Obstacle.UNREACHABLE | Obstacle.UNKNOWN:
                return Readiness.UNKNOWN
            case Obstacle.NO_MX:
                return Readiness.NOT_APPLICABLE
            case _:
                return Readiness.NO


def check_hop(facts: HopFacts, rules: Rules = Rules(), *, null_sender: bool = False) -> HopVerdict:
    """Judge whether a REQUIRETLS message can go to one address (RFC 8689 §4.2.1).

    Parameters
    ----------
    facts
        What is known of the address.
    rules
        The reading of the RFCs.
    null_sender
        The message is a notice with an empty reverse-path: what REQUIRETLS asks does not bind it (§5), what
        DANE and MTA-STS ask does. It then goes without the parameter (`SEND_UNPROTECTED`).

    Notes
    -----
    Three-valued: a condition that surely fails decides, whatever is open before it; where none surely fails and
    one may, the verdict is UNKNOWN. The order of obstacles is for reporting.

    Examples
    --------
    >>> check_hop(HopFacts(mx_security=DnsSecurity.SECURE, requiretls=FeatureState.NO)).obstacle
    <Obstacle.REQUIRETLS_NOT_OFFERED: 'requiretls_not_offered'>
    """
    conditions = tuple(_conditions(facts, rules))
    found = {obstacle for obstacle, holds in conditions if holds}
    is_open = {obstacle for obstacle, holds in conditions if holds is None} - found
    obstacles, maybe = (tuple(sorted(some, key=_ORDER.__getitem__)) for some in (found, is_open))
    first = obstacles[0] if obstacles else Obstacle.UNKNOWN if maybe else Obstacle.NONE
    fate = _notice(facts, rules, conditions, first) if null_sender else _fate(first, facts, rules)
    return HopVerdict(first, obstacles, maybe, *fate)


def _conditions(facts: HopFacts, rules: Rules) -> Iterator[tuple[Obstacle, bool | None]]:
    """Give each obstacle with whether it stands in the way; None where that could not be told."""
    is_enforced = facts.sts_mode is StsMode.ENFORCE
    yield Obstacle.DNS_ERROR, _dns_error(facts)
    yield Obstacle.UNREACHABLE, _not(facts.session_ok)
    yield Obstacle.STS_FORBIDS_HOST, is_enforced and facts.sts_match is False
    yield Obstacle.MX_UNAUTHENTICATED, _not(_name_secured(facts, rules))
    if facts.dane is DaneHop.FAIL:
        yield Obstacle.DANE_MISMATCH, True
    if not facts.session_ok:
        return
    match facts.starttls:
        case FeatureState.NO:
            yield Obstacle.NO_STARTTLS, True
        case FeatureState.FAILED:
            yield Obstacle.TLS_FAILED, True
        case FeatureState.YES:
            yield Obstacle.TLS_TOO_OLD, _too_old(facts.tls_version, rules.minimum_tls)
            yield Obstacle.DANE_MISMATCH, None if facts.dane is DaneHop.UNKNOWN else False
            yield Obstacle.CERTIFICATE_UNVERIFIED, _unverified(facts, rules)
            offered = {FeatureState.YES: True, FeatureState.NO: False, FeatureState.FAILED: False}
            yield Obstacle.REQUIRETLS_NOT_OFFERED, _not(offered.get(facts.requiretls))
        case _:
            yield Obstacle.NO_STARTTLS, None


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _any(*values: bool | None) -> bool | None:
    """Three-valued or."""
    return True if True in values else None if None in values else False


def _dns_error(facts: HopFacts) -> bool | None:
    if facts.host_dns_failed or facts.mx_security is DnsSecurity.ERROR or facts.dane is DaneHop.ERROR:
        return True
    return None if facts.dane is DaneHop.UNKNOWN else False


def _name_secured(facts: HopFacts, rules: Rules) -> bool | None:
    """Tell whether the MX name is what the domain said: rows 3 of the table (RFC 8689 §4.2.1 step 2)."""
    if not facts.via_mx or facts.mx_security is DnsSecurity.SECURE:
        return True
    if facts.sts_mode in rules.sts_modes and facts.sts_match:
        return True
    is_sure = facts.sts_told and facts.mx_security is not DnsSecurity.NOT_TESTED
    return False if is_sure else None


def _too_old(version: str | None, minimum: str) -> bool | None:
    if version not in _TLS_VERSIONS:
        return None
    return _TLS_VERSIONS.index(version) < _TLS_VERSIONS.index(minimum)


def _unverified(facts: HopFacts, rules: Rules) -> bool | None:
    """Tell whether the certificate fails: rows 8, 9 and 9b of the table."""
    for_sts: bool | None = False
    if facts.sts_mode is StsMode.ENFORCE:
        by_dane = facts.dane is DaneHop.OK and rules.sts_with_dane is StsWithDane.DANE_WINS
        for_sts = False if by_dane else _not(facts.pkix_dns_id_ok)
    match facts.dane:
        case DaneHop.OK:
            literal = rules.name_rule is NameRule.LITERAL
            return _any(for_sts, _not(facts.name_in_certificate) if literal else False)
        case DaneHop.NONE | DaneHop.UNUSABLE:
            return _any(for_sts, _not(facts.pkix_ok))
        case DaneHop.UNKNOWN:
            return _any(for_sts, False if facts.pkix_ok else None)
        case _:
            return for_sts


_CODES = {
    Obstacle.NO_STARTTLS: "5.7.10",
    Obstacle.TLS_FAILED: "5.7.10",
    Obstacle.TLS_TOO_OLD: "5.7.10",
    Obstacle.DANE_MISMATCH: "5.7.10",
    Obstacle.CERTIFICATE_UNVERIFIED: "5.7.10",
    Obstacle.REQUIRETLS_NOT_OFFERED: "5.7.30",
}
_TEMPORARY = frozenset({Obstacle.DNS_ERROR, Obstacle.UNREACHABLE, Obstacle.STS_FORBIDS_HOST})


def _fate(first: Obstacle, facts: HopFacts, rules: Rules) -> tuple[Disposition, str]:
    """Say what becomes of a message whose first obstacle is this one."""
    if first is Obstacle.NONE:
        return Disposition.SEND, ""
    if first in _TEMPORARY:
        return Disposition.DEFER, ""
    if first is Obstacle.UNKNOWN:  # a policy that could not be had may come next time
        return (Disposition.UNKNOWN if facts.sts_told else Disposition.DEFER), ""
    refused_by_policy = first is Obstacle.DANE_MISMATCH or (
        first is Obstacle.CERTIFICATE_UNVERIFIED and _is_sts_alone(facts, rules)
    )
    if refused_by_policy and rules.cert_fail is CertFail.DEFER:
        return Disposition.DEFER, ""
    return Disposition.BOUNCE, _CODES.get(first, "")


def _is_sts_alone(facts: HopFacts, rules: Rules) -> bool:
    """Tell row 9b from row 9: DANE is satisfied, or PKIX is but for a DNS-ID, and the policy asks for more."""
    if facts.dane is DaneHop.OK:
        named = rules.name_rule is NameRule.AS_APPLICABLE or bool(facts.name_in_certificate)
        return named and facts.sts_mode is StsMode.ENFORCE
    return bool(facts.pkix_ok)


def _notice(
    facts: HopFacts, rules: Rules, conditions: Iterable[tuple[Obstacle, bool | None]], first: Obstacle
) -> tuple[Disposition, str]:
    """Say what becomes of a notice: only DANE and MTA-STS bind it (RFC 8689 §5, RFC 7672 §2.2, RFC 8461 §5)."""
    is_enforced = facts.sts_mode is StsMode.ENFORCE
    binding = {*_TEMPORARY, Obstacle.DANE_MISMATCH}
    if is_enforced or facts.dane in (DaneHop.OK, DaneHop.UNUSABLE, DaneHop.FAIL):  # TLS is owed
        binding |= {Obstacle.NO_STARTTLS, Obstacle.TLS_FAILED}
    dane_wins = facts.dane is DaneHop.OK and rules.sts_with_dane is StsWithDane.DANE_WINS
    if is_enforced and not facts.pkix_dns_id_ok and not dane_wins:
        binding.add(Obstacle.CERTIFICATE_UNVERIFIED)
    holds = {obstacle: held for obstacle, held in conditions if obstacle in binding and held is not False}
    sure = [obstacle for obstacle, held in holds.items() if held]
    if sure:
        return _fate(min(sure, key=_ORDER.__getitem__), facts, rules)
    if holds:
        return Disposition.UNKNOWN, ""
    return (Disposition.SEND if first is Obstacle.NONE else Disposition.SEND_UNPROTECTED), ""


def check_tls_required_no(facts: HopFacts, *, insists_on_tls: bool = False) -> Disposition:
    """Judge what becomes of a message with `TLS-Required: No` at one address (RFC 8689 §4.2.2).

    Parameters
    ----------
    facts
        What is known of the address. Policies, TLSA records and certificates do not count.
    insists_on_tls
        The server refuses mail in cleartext (530 and kin): then the recipient has the last word.

    Examples
    --------
    >>> check_tls_required_no(HopFacts(starttls=FeatureState.FAILED, dane=DaneHop.FAIL))
    <Disposition.SEND_UNPROTECTED: 'send_unprotected'>
    """
    if facts.host_dns_failed or facts.mx_security is DnsSecurity.ERROR:
        return Disposition.DEFER
    if facts.session_ok is None:
        return Disposition.UNKNOWN
    match facts.starttls:
        case FeatureState.YES:
            return Disposition.SEND
        case FeatureState.NO | FeatureState.FAILED:
            return Disposition.BOUNCE if insists_on_tls else Disposition.SEND_UNPROTECTED
        case _:
            return Disposition.DEFER


# -- a domain ------------------------------------------------------------------------------------------------

_READINESS_OPEN = (Obstacle.DNS_ERROR, Obstacle.UNREACHABLE, Obstacle.UNKNOWN)


def domain_obstacle(verdicts: Iterable[HopVerdict]) -> Obstacle:
    """Give what stops a message to a domain: the sender tries every host (RFC 8689 §4.2.1).

    None where one address is ready; where that could not be told, the first reason for it; else the obstacle of
    the address that got furthest. Without any address it is `no_mx`.

    >>> str(domain_obstacle([HopVerdict(Obstacle.NO_STARTTLS), HopVerdict(Obstacle.REQUIRETLS_NOT_OFFERED)]))
    'requiretls_not_offered'
    """
    firsts = {verdict.obstacle for verdict in verdicts}
    if not firsts:
        return Obstacle.NO_MX
    if Obstacle.NONE in firsts:
        return Obstacle.NONE
    for obstacle in _READINESS_OPEN:
        if obstacle in firsts:
            return obstacle
    return max(firsts, key=_ORDER.__getitem__)


def domain_disposition(verdicts: Iterable[HopVerdict]) -> Disposition:
    """Say what becomes of a message to a domain whose hosts were judged (RFC 8689 §4.2.1, RFC 8461 §5).

    It goes where one host takes it; it waits where one may take it later; else it is returned. A domain without
    hosts returns it.
    """
    fates = {verdict.disposition for verdict in verdicts}
    order = (Disposition.SEND, Disposition.SEND_UNPROTECTED, Disposition.UNKNOWN, Disposition.DEFER)
    return next((fate for fate in order if fate in fates), Disposition.BOUNCE)
