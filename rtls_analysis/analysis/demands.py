"""How the destinations of a scan stand to what a sender may ask of the way: REQUIRETLS, authentication, or any TLS.

REQUIRETLS is judged when a scan ends, and its verdict is taken as it stands; the weaker demands are read off the
same columns. No certificate is checked again, so that whoever holds the tables can ask.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rtls_analysis.outcomes import (
    NOT_CONTACTED,
    DaneState,
    DomainShare,
    FeatureState,
    MxState,
    Obstacle,
    PkixState,
    SecuredBy,
    StsMode,
    StsPolicyState,
    StsRecordState,
)
from rtls_analysis.schema import DOMAINS, MX, SESSIONS, Demand, Table, VerifiedBy, rows_of
from rtls_analysis.standards.requiretls import HopVerdict, Rules, StsWithDane, domain_obstacle
from rtls_analysis.store import Snapshot, one_vantage
from rtls_analysis.verdicts import Answer, domain_share

Row = Mapping[str, Any]

_DOMAIN_COLUMNS = [
    "domain",
    "mx_state",
    "sts_record",
    "sts_policy",
    "sts_mode",
    "sts_mx",
    "provider",
    "starttls",
    "requiretls_ready",
    "obstacle",
    "obstacles",
    "scanned_at",
]
_MX_COLUMNS = ["domain", "mx_host", "mx_state", "sts_match", "secured_by", "dane", "requiretls_ready"]
_SESSION_COLUMNS = ["mx_host", "address", "outcome", "starttls", "pkix", "dns_id_match", "dane"]

_POLICY_NOT_HAD = frozenset(
    {
        StsPolicyState.DNS_FAILURE,
        StsPolicyState.NO_ADDRESS,
        StsPolicyState.ADDRESS_REFUSED,
        StsPolicyState.CONNECT_FAILED,
        StsPolicyState.TIMEOUT,
        StsPolicyState.TLS_FAILED,
        StsPolicyState.NOT_TESTED,
    }
)
_TRANSPORT: Mapping[FeatureState, tuple[Answer, Obstacle]] = {
    FeatureState.YES: (Answer.YES, Obstacle.NONE),
    FeatureState.NO: (Answer.NO, Obstacle.NO_STARTTLS),
    FeatureState.FAILED: (Answer.NO, Obstacle.TLS_FAILED),
    FeatureState.UNKNOWN: (Answer.UNKNOWN, Obstacle.UNREACHABLE),
    FeatureState.NOT_TESTED: (Answer.LEFT_OUT, Obstacle.UNKNOWN),
}
_OPEN = (Obstacle.DNS_ERROR, Obstacle.UNREACHABLE, Obstacle.UNKNOWN)
_YES = frozenset({DomainShare.ALL, DomainShare.SOME})


@dataclass(frozen=True, slots=True)
class Standing:
    """How one domain stands to a demand; `hosts` are its MX hosts with theirs."""

    domain: str
    share: DomainShare
    obstacle: Obstacle
    obstacles: tuple[Obstacle, ...]
    starttls: DomainShare
    verified_by: VerifiedBy | None = None
    sts_mx: tuple[str, ...] = ()
    provider: str | None = None
    scanned_at: Any = None
    hosts: Mapping[str, DomainShare] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Hop:
    """What one address of one MX host answers to a demand, and what stands against it."""

    answer: Answer
    obstacles: tuple[Obstacle, ...] = ()

    @property
    def obstacle(self) -> Obstacle:
        """The first one that decides: of a no a sure one, else the reason why nothing could be told."""
        match self.answer:
            case Answer.YES:
                return Obstacle.NONE
            case Answer.NO:
                return next(item for item in self.obstacles if item not in _OPEN)
            case _:
                return next((item for item in _OPEN if item in self.obstacles), Obstacle.UNKNOWN)


def standings(snapshot: Snapshot, demand: Demand, domains: Collection[str]) -> dict[str, Standing]:
    """How these domains stand to a demand; those that were not scanned are left out.

    Parameters
    ----------
    snapshot
        A scan. REQUIRETLS is judged by the rules of its manifest; `rtls.judge` gives it under others.
    demand
        What a sender asks.
    domains
        Recipient domains.
    """
    rules = Rules.of(**snapshot.manifest.get("rules", {}))
    mx: dict[str, list[Row]] = {}
    for row in _rows(snapshot, MX, _MX_COLUMNS, "domain", domains):
        mx.setdefault(row["domain"], []).append(row)
    names = {row["mx_host"] for rows in mx.values() for row in rows}
    sessions: dict[str, list[Row]] = {}
    for row in _rows(snapshot, SESSIONS, _SESSION_COLUMNS, "mx_host", names):
        sessions.setdefault(row["mx_host"], []).append(row)
    judge = _Judge(demand, rules, sessions)
    found = (
        judge.domain(row, mx.get(row["domain"], ()))
        for row in _rows(snapshot, DOMAINS, _DOMAIN_COLUMNS, "domain", domains)
    )
    return {standing.domain: standing for standing in found}


def _rows(
    snapshot: Snapshot, table: Table, columns: Sequence[str], key: str, wanted: Collection[str]
) -> list[dict[str, Any]]:
    return rows_of(
        table, one_vantage(snapshot).table(table.name, columns=columns, where={key: sorted(wanted)})
    )


class _Judge:
    """Judges domains by one demand."""

    def __init__(self, demand: Demand, rules: Rules, sessions: Mapping[str, Sequence[Row]]) -> None:
        self.demand = demand
        self.rules = rules
        self._sessions = sessions

    def domain(self, domain: Row, mx: Sequence[Row]) -> Standing:
        if self.demand is Demand.REQUIRETLS:
            share = _share(domain["requiretls_ready"])
            obstacle = Obstacle(domain["obstacle"] if domain["obstacle"] is not None else Obstacle.UNKNOWN)
            obstacles = tuple(map(Obstacle, domain["obstacles"] or ()))
            hosts = {row["mx_host"]: _share(row["requiretls_ready"]) for row in mx}
        else:
            hops = {row["mx_host"]: self._hops(domain, row) for row in mx}
            everywhere = [hop for found in hops.values() for hop in found]
            share, obstacle, obstacles = _sum_up(domain, everywhere)
            hosts = {name: domain_share(hop.answer for hop in found) for name, found in hops.items()}
        return Standing(
            domain["domain"],
            share,
            obstacle,
            obstacles,
            _share(domain["starttls"]),
            self._verified_by(mx, hosts),
            tuple(domain["sts_mx"] or ()),
            domain["provider"],
            domain["scanned_at"],
            hosts,
        )

    def _verified_by(self, mx: Sequence[Row], hosts: Mapping[str, DomainShare]) -> VerifiedBy | None:
        """What vouches for the hosts that qualify: DANE before a policy, as a sender would have it."""
        if self.demand not in (Demand.REQUIRETLS, Demand.VERIFIED):
            return None
        ways = {
            VerifiedBy.DANE if row["dane"] in _YES else _SECURED[_secured(row)]
            for row in mx
            if hosts[row["mx_host"]] in _YES
        }
        return next((way for way in VerifiedBy if way in ways), None)

    def _hops(self, domain: Row, row: Row) -> list[_Hop]:
        if row["mx_state"] == MxState.DNS_FAILURE:
            return [_Hop(Answer.UNKNOWN, (Obstacle.DNS_ERROR,))]
        return [self._hop(domain, row, session) for session in self._sessions.get(row["mx_host"], ())]

    def _hop(self, domain: Row, row: Row, session: Row) -> _Hop:
        contacted = session["outcome"] not in NOT_CONTACTED
        state = FeatureState(session["starttls"]) if contacted else FeatureState.NOT_TESTED
        answer, stop = _TRANSPORT[state]
        against: list[Obstacle] = [] if answer is Answer.YES else [stop]
        if self.demand is Demand.PKIX and answer is Answer.YES and session["pkix"] != PkixState.VALID:
            answer = Answer.NO
            against.append(Obstacle.CERTIFICATE_UNVERIFIED)
        elif self.demand is Demand.VERIFIED:
            answer, against = self._verified(domain, row, session, answer, against)
        return _Hop(answer, tuple(item for item in Obstacle if item in against))

    def _verified(
        self, domain: Row, row: Row, session: Row, transport: Answer, against: list[Obstacle]
    ) -> tuple[Answer, list[Obstacle]]:
        """Ask whether DANE or an MTA-STS policy authenticates this address, and nothing of either forbids it."""
        has_tls = transport is Answer.YES
        by_dane = _dane_answer(row, session) if has_tls else transport
        by_policy = self._policy_answer(domain, row, session) if has_tls else transport
        secured = _secured(row)
        enforced = domain["sts_mode"] == StsMode.ENFORCE
        excused = by_dane is Answer.YES and self.rules.sts_with_dane is StsWithDane.DANE_WINS
        if enforced and row["sts_match"] is False:
            against.append(Obstacle.STS_FORBIDS_HOST)
        elif enforced and by_policy is Answer.NO and has_tls and not excused:
            against.append(Obstacle.CERTIFICATE_UNVERIFIED)
        if secured is SecuredBy.NONE:
            against.append(Obstacle.MX_UNAUTHENTICATED)
        elif secured is SecuredBy.UNKNOWN:
            against.append(Obstacle.UNKNOWN)
        if has_tls and secured in (SecuredBy.DNSSEC, SecuredBy.IMPLICIT_MX):
            if session["dane"] == DaneState.MISMATCH and by_dane is not Answer.YES:
                against.append(Obstacle.DANE_MISMATCH)
            elif session["dane"] == DaneState.ERROR:
                against.append(Obstacle.DNS_ERROR)
        if transport in (Answer.LEFT_OUT, Answer.UNKNOWN):  # without a session there is no verdict
            return transport, against
        if any(item not in _OPEN for item in against):
            return Answer.NO, against
        if Obstacle.DNS_ERROR in against:
            return Answer.UNKNOWN, against
        if Answer.YES in (by_dane, by_policy):
            return Answer.YES, []
        if Answer.UNKNOWN in (by_dane, by_policy) or secured is SecuredBy.UNKNOWN:
            return Answer.UNKNOWN, against or [Obstacle.UNKNOWN]
        return Answer.NO, [*against, Obstacle.CERTIFICATE_UNVERIFIED]

    def _policy_answer(self, domain: Row, row: Row, session: Row) -> Answer:
        """Answer whether a policy that counts names the host and its certificate fits (RFC 8461 §4.1, §4.2)."""
        mode = domain["sts_mode"]
        if mode is None:
            record = domain["sts_record"]
            not_asked = record in (StsRecordState.DNS_FAILURE, StsRecordState.NOT_TESTED, None)
            not_had = record == StsRecordState.VALID and domain["sts_policy"] in _POLICY_NOT_HAD
            return Answer.UNKNOWN if not_asked or not_had else Answer.NO
        if StsMode(mode) not in self.rules.sts_modes or not row["sts_match"]:
            return Answer.NO
        fits = session["pkix"] == PkixState.VALID and session["dns_id_match"]
        return Answer.YES if fits else Answer.NO


_SECURED: Mapping[SecuredBy, VerifiedBy | None] = {
    SecuredBy.DNSSEC: VerifiedBy.DNSSEC,
    SecuredBy.MTA_STS: VerifiedBy.MTA_STS,
    SecuredBy.IMPLICIT_MX: VerifiedBy.IMPLICIT_MX,
    SecuredBy.NONE: None,
    SecuredBy.UNKNOWN: None,
}


def _share(word: str | None) -> DomainShare:
    return DomainShare(word) if word is not None else DomainShare.NOT_TESTED


def _secured(row: Row) -> SecuredBy:
    word = row["secured_by"]
    return SecuredBy(word) if word is not None else SecuredBy.UNKNOWN


def _dane_answer(row: Row, session: Row) -> Answer:
    """Answer whether DANE authenticates this address for this domain: as the host's sum, where that is mixed alone."""
    match _share(row["dane"]):
        case DomainShare.ALL:
            return Answer.YES
        case DomainShare.NONE | DomainShare.NOT_APPLICABLE:
            return Answer.NO
        case DomainShare.SOME:
            state = session["dane"]
            if state == DaneState.MATCH:
                return Answer.YES
            return Answer.UNKNOWN if state in (DaneState.ERROR, DaneState.NOT_TESTED) else Answer.NO
        case _:
            return Answer.UNKNOWN


def _sum_up(domain: Row, hops: Sequence[_Hop]) -> tuple[DomainShare, Obstacle, tuple[Obstacle, ...]]:
    """Sum up a domain's addresses as the judge of a scan does."""
    if not hops:
        state = domain["mx_state"]
        if state is None:  # opted out, not looked up
            return DomainShare.NOT_TESTED, Obstacle.UNKNOWN, ()
        failed = state == MxState.DNS_FAILURE
        obstacle = Obstacle.DNS_ERROR if failed else Obstacle.NO_MX
        return DomainShare.UNKNOWN if failed else DomainShare.NOT_APPLICABLE, obstacle, (obstacle,)
    contacted = [hop for hop in hops if hop.answer is not Answer.LEFT_OUT]
    found = {item for hop in hops for item in hop.obstacles}
    return (
        domain_share(hop.answer for hop in hops),
        _first(contacted or hops),
        tuple(item for item in Obstacle if item in found),
    )


def _first(hops: Iterable[_Hop]) -> Obstacle:
    return domain_obstacle(HopVerdict(hop.obstacle) for hop in hops)
