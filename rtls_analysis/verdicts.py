"""Verdicts from stored evidence: sessions by certificate and TLSA, domains by the REQUIRETLS decision table.

The scan and `judge` go the same way: both hand rows of evidence, as the tables hold them, to a `Judge`. So an old
snapshot can be judged again, by the same rules or by another reading of the RFCs, without the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rtls_analysis.outcomes import (
    NOT_CONTACTED,
    DaneState,
    DnsSecurity,
    DomainShare,
    FeatureState,
    MxState,
    Obstacle,
    PkixState,
    SecuredBy,
    StsMode,
    StsPolicyState,
    StsRecordState,
    TlsaState,
)
from rtls_analysis.schema import QUESTIONS
from rtls_analysis.standards.certificates import Roots, check_pkix
from rtls_analysis.standards.dane import DaneCheck, TlsaRecord, check_dane, check_tlsa, dane_names
from rtls_analysis.standards.mta_sts import StsPolicy, check_policy_response, matches_mx
from rtls_analysis.standards.requiretls import (
    DaneHop,
    HopFacts,
    HopVerdict,
    Readiness,
    Rules,
    check_hop,
    domain_obstacle,
)

if TYPE_CHECKING:
    import pandas as pd

    from rtls_analysis.store import Snapshot

Row = Mapping[str, Any]

NO_POLICY = frozenset(
    {
        StsPolicyState.REDIRECT,
        StsPolicyState.HTTP_STATUS,
        StsPolicyState.CONTENT_TYPE,
        StsPolicyState.TOO_LARGE,
        StsPolicyState.INVALID,
        StsPolicyState.CERTIFICATE_INVALID,
        StsPolicyState.NO_RECORD,
    }
)
"""Policies served wrongly are no policy, as they are for a sender (RFC 8461 §3.3)."""


class Answer(StrEnum):
    """What one address says to a yes-or-no question about its domain."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"  # tried, no conclusion
    NOT_TESTED = "not_tested"  # the resolver is not trusted
    LEFT_OUT = "left_out"  # not contacted, by our choice or for our vantage


def domain_share(answers: Iterable[Answer]) -> DomainShare:
    """Sum up the answers of a domain's addresses.

    Addresses left out by our choice or by our vantage count only where no other is left.

    >>> domain_share([Answer.YES, Answer.LEFT_OUT]), domain_share([Answer.NO, Answer.UNKNOWN])
    (<DomainShare.ALL: 'all'>, <DomainShare.UNKNOWN: 'unknown'>)
    """
    everything = list(answers)
    contacted = [answer for answer in everything if answer is not Answer.LEFT_OUT]
    if not contacted:
        return DomainShare.NOT_TESTED if everything else DomainShare.NOT_APPLICABLE
    if all(answer is Answer.YES for answer in contacted):
        return DomainShare.ALL
    if Answer.YES in contacted:
        return DomainShare.SOME
    if Answer.UNKNOWN in contacted:
        return DomainShare.UNKNOWN
    if Answer.NOT_TESTED in contacted:
        return DomainShare.NOT_TESTED
    return DomainShare.NONE


@dataclass(frozen=True, slots=True)
class HopResult:
    """One MX host at one address, judged for one domain; `address` is empty where the host has none to ask."""

    mx_host: str
    address: str
    starttls: Answer
    pkix: Answer
    dane: Answer
    requiretls_offered: Answer
    requiretls_ready: Answer
    requiretls_ready_testing: Answer
    verdict: HopVerdict
    dane_check: DaneCheck | None = None


@dataclass(frozen=True, slots=True)
class DomainResult:
    """The verdict columns of a domain and of its MX rows, and the hops they were summed up from."""

    domain: dict[str, Any]
    mx: list[dict[str, Any]]
    hops: list[HopResult]


_FEATURE_ANSWER = {
    FeatureState.YES: Answer.YES,
    FeatureState.NO: Answer.NO,
    FeatureState.FAILED: Answer.NO,
    FeatureState.UNKNOWN: Answer.UNKNOWN,
    FeatureState.NOT_TESTED: Answer.LEFT_OUT,
}
_READY_ANSWER = {
    Readiness.YES: Answer.YES,
    Readiness.NO: Answer.NO,
    Readiness.UNKNOWN: Answer.UNKNOWN,
    Readiness.NOT_APPLICABLE: Answer.UNKNOWN,
}


_HELD_CHECKS = 10_000


@lru_cache(maxsize=_HELD_CHECKS)
def _records(texts: tuple[str, ...]) -> tuple[TlsaRecord, ...]:
    return tuple(map(TlsaRecord.parse, texts))


def host_verdict(host: Row) -> dict[str, Any]:
    """Judge a row of `hosts`: its verdict columns, which depend on no rule (RFC 7672 §2.2)."""
    security = host.get("tlsa_dnssec")
    if host["mx_state"] == MxState.MX_IS_ADDRESS:  # DANE needs a name (§2.2.1)
        state = TlsaState.NONE
    elif security is not None:
        state = check_tlsa(DnsSecurity(security), _records(tuple(host.get("tlsa") or ())))
    else:  # not asked: no address, or an insecure one (§2.2.2)
        not_asked = {DnsSecurity.ERROR: TlsaState.ERROR, DnsSecurity.NOT_TESTED: TlsaState.NOT_TESTED}
        state = not_asked.get(DnsSecurity(host["addresses_dnssec"]), TlsaState.NONE)
    return {"tlsa_state": state}


class Judge:
    """Judges rows of evidence by one set of rules; those of hosts and sessions bring their own verdicts along.

    Parameters
    ----------
    rules
        The reading of the RFCs.
    roots
        The root certificates that PKIX trusts.
    certificate
        Gives the DER of a certificate by its SHA-256.
    """

    def __init__(self, rules: Rules, roots: Roots, certificate: Callable[[str], bytes]) -> None:
        self.rules = rules
        self.testing_rules = replace(rules, sts_modes=rules.sts_modes | {StsMode.TESTING})
        self.roots = roots
        self._certificate = certificate
        self._dane: dict[tuple[Any, ...], DaneCheck] = {}

    # -- what depends on the host alone ----------------------------------------------------------------------

    def session(self, session: Row, host: Row, chain: Sequence[bytes] | None = None) -> dict[str, Any]:
        """Judge a row of `sessions` with its host's row: its verdict columns.

        `chain` are the certificates as presented, where they are at hand.
        """
        if session.get("starttls") != FeatureState.YES:
            chain = None
        elif chain is None:
            chain = self._chain(session)
        columns = dict.fromkeys(("pkix_detail", "name_match", "dns_id_match"))
        if chain is None:
            columns["pkix"] = PkixState.NOT_TESTED
        else:
            at, cn_id = session["started_at"], self.rules.cn_id
            pkix = check_pkix(chain, self.roots, session["mx_host"], at, cn_id=cn_id)
            columns.update(pkix=pkix.state, pkix_detail=pkix.detail)
            if pkix.state is not PkixState.ANONYMOUS:
                columns.update(name_match=pkix.name_match, dns_id_match=pkix.dns_id_match)
        dane = self._dane_check(chain, session, host, (host.get("tlsa_base") or session["mx_host"],))
        return {**columns, "dane": dane.state, "dane_detail": dane.detail or dane.matched or None}

    def _chain(self, session: Row) -> tuple[bytes, ...]:
        """Give the certificates as presented, () for an anonymous cipher."""
        return tuple(self._certificate(sha256) for sha256 in session.get("chain_sha256") or ())

    def _dane_check(
        self, chain: Sequence[bytes] | None, session: Row, host: Row, names: tuple[str, ...]
    ) -> DaneCheck:
        state = TlsaState(host["tlsa_state"])
        texts = tuple(host.get("tlsa") or ())
        at = session["started_at"]
        if state is not TlsaState.USABLE:
            return check_dane(chain, state, _records(texts), names, at)
        key = (None if chain is None else tuple(session.get("chain_sha256") or ()), texts, names, at)
        if (held := self._dane.get(key)) is None:
            if len(self._dane) >= _HELD_CHECKS:
                self._dane.clear()
            held = self._dane[key] = check_dane(chain, state, _records(texts), names, at)
        return held

    def _dane_for(self, session: Row, host: Row, names: tuple[str, ...]) -> DaneCheck:
        """Judge a session by DANE for one domain: only an authority (usage 2) asks whose MX it is."""
        if session["starttls"] == FeatureState.YES and any(
            text.startswith("2 ") for text in host.get("tlsa") or ()
        ):
            return self._dane_check(self._chain(session), session, host, names)
        return DaneCheck(DaneState(session["dane"]), session.get("dane_detail") or "")

    # -- what depends on whose MX it is ----------------------------------------------------------------------

    def policy(self, domain: Row) -> tuple[dict[str, Any], StsPolicy | None, bool]:
        """Judge the MTA-STS policy of a row of `domains`.

        Gives the verdict columns, the policy where it is valid, and whether the domain's wish is told at all:
        a policy served wrongly is no policy, one that could not be had is untold.
        """
        columns: dict[str, Any] = {
            "sts_mode": None,
            "sts_max_age_seconds": None,
            "sts_mx": None,
            "sts_detail": domain.get("sts_detail"),
        }
        record = domain.get("sts_record")
        if record != StsRecordState.VALID:
            told = record not in (StsRecordState.DNS_FAILURE, StsRecordState.NOT_TESTED, None)
            state = StsPolicyState.NO_RECORD if told else StsPolicyState.NOT_TESTED
            if record is None:
                return {**columns, "sts_policy": None}, None, False
            return {**columns, "sts_policy": state}, None, told
        status = domain.get("sts_http_status")
        if status is None:  # a fact of the transport, not a judgement on what was served
            state = StsPolicyState(domain.get("sts_policy") or StsPolicyState.NOT_TESTED)
            return {**columns, "sts_policy": state}, None, state in NO_POLICY
        text = domain.get("sts_policy_text")
        check = check_policy_response(
            int(status),
            domain.get("sts_content_type"),
            None if text is None else _body(text),
            size=domain.get("sts_policy_bytes"),
            strict_media_type=self.rules.strict_media_type,
        )
        columns["sts_policy"] = check.state
        columns["sts_detail"] = check.detail or None
        policy = check.policy if check.state is StsPolicyState.VALID else None
        if policy is not None:
            columns["sts_mode"] = policy.mode
            columns["sts_max_age_seconds"] = policy.max_age_seconds
            columns["sts_mx"] = policy.mx
        return columns, policy, policy is not None or check.state in NO_POLICY

    def domain(
        self,
        domain: Row,
        mx: Sequence[Row],
        hosts: Mapping[str, Row],
        sessions: Mapping[str, Sequence[Row]],
    ) -> DomainResult:
        """Judge a domain from its row, its MX rows, and the rows of its hosts and their sessions."""
        columns, policy, told = self.policy(domain)
        mx_rows: list[dict[str, Any]] = []
        hops: list[HopResult] = []
        for row in mx:
            host = hosts.get(row["mx_host"])
            of_host = (
                self._host_hops(domain, row, host, sessions.get(row["mx_host"], ()), policy, told)
                if host is not None
                else []
            )
            hops += of_host
            mx_rows.append(self._mx_row(domain, row, of_host, policy, told))
        columns.update(self._sum_up(domain, hops))
        return DomainResult(columns, mx_rows, hops)

    def _host_hops(
        self,
        domain: Row,
        row: Row,
        host: Row,
        sessions: Sequence[Row],
        policy: StsPolicy | None,
        told: bool,
    ) -> list[HopResult]:
        if row["mx_state"] == MxState.DNS_FAILURE:
            facts = self._facts(domain, row, host, None, policy, told, None)
            verdict = check_hop(facts, self.rules)
            unknown = Answer.UNKNOWN
            return [
                HopResult(row["mx_host"], "", unknown, unknown, unknown, unknown, unknown, unknown, verdict)
            ]
        return [self._hop(domain, row, host, session, policy, told) for session in sessions]

    def _hop(
        self,
        domain: Row,
        row: Row,
        host: Row,
        session: Row,
        policy: StsPolicy | None,
        told: bool,
    ) -> HopResult:
        via_mx = _via_mx(domain)
        names = dane_names(
            host.get("tlsa_base") or row["mx_host"],
            domain=domain["domain"],
            canonical_domain=domain.get("mx_canonical") or domain["domain"],
            via_mx=via_mx,
            mx_secure=domain.get("mx_dnssec") == DnsSecurity.SECURE,
        )
        dane = self._dane_for(session, host, names)
        facts = self._facts(domain, row, host, session, policy, told, dane)
        verdict = check_hop(facts, self.rules)
        left_out = session["outcome"] in NOT_CONTACTED
        if left_out:
            answers = dict.fromkeys(QUESTIONS, Answer.LEFT_OUT)
        else:
            starttls = _FEATURE_ANSWER[FeatureState(session["starttls"])]
            has_tls = starttls is Answer.YES
            pkix = starttls
            if has_tls:
                pkix = Answer.YES if facts.pkix_ok else Answer.UNKNOWN if facts.pkix_ok is None else Answer.NO
            offered = _FEATURE_ANSWER[FeatureState(session["requiretls_tls"])] if has_tls else starttls
            testing = check_hop(facts, self.testing_rules)
            answers = {
                "starttls": starttls,
                "pkix": pkix,
                "dane": self._dane_answer(domain, host, starttls, dane),
                "requiretls_offered": offered,
                "requiretls_ready": _READY_ANSWER[verdict.readiness],
                "requiretls_ready_testing": _READY_ANSWER[testing.readiness],
            }
        return HopResult(
            mx_host=row["mx_host"],
            address=session["address"],
            verdict=verdict,
            dane_check=dane,
            **answers,
        )

    @staticmethod
    def _dane_answer(domain: Row, host: Row, starttls: Answer, dane: DaneCheck) -> Answer:
        """Answer the question of `domains.dane`: MX answer and TLSA secure, and the chain matches."""
        if starttls is not Answer.YES:
            return starttls
        if _via_mx(domain):
            if domain.get("mx_dnssec") == DnsSecurity.NOT_TESTED:
                return Answer.NOT_TESTED
            if domain.get("mx_dnssec") != DnsSecurity.SECURE:
                return Answer.NO
        match dane.state:
            case DaneState.MATCH:
                return Answer.YES
            case DaneState.ERROR:
                return Answer.UNKNOWN
            case DaneState.NOT_TESTED:
                untrusted = host.get("addresses_dnssec") == DnsSecurity.NOT_TESTED
                return Answer.NOT_TESTED if untrusted else Answer.UNKNOWN
            case _:
                return Answer.NO

    def _facts(
        self,
        domain: Row,
        row: Row,
        host: Row,
        session: Row | None,
        policy: StsPolicy | None,
        told: bool,
        dane: DaneCheck | None,
    ) -> HopFacts:
        session_ok: bool | None = None
        starttls = requiretls = FeatureState.UNKNOWN
        tls_version: str | None = None
        pkix_ok = dns_id_ok = name_ok = None
        if session is not None and session["outcome"] not in NOT_CONTACTED:
            starttls = FeatureState(session["starttls"])
            session_ok = starttls in (FeatureState.YES, FeatureState.NO, FeatureState.FAILED)
            if starttls is FeatureState.YES:
                requiretls = FeatureState(session["requiretls_tls"])
                tls_version = session.get("tls_version")
                pkix_ok = session["pkix"] == PkixState.VALID
                dns_id_ok = pkix_ok and bool(session["dns_id_match"])
                name_ok = bool(session["name_match"])
        return HopFacts(
            via_mx=_via_mx(domain),
            mx_security=DnsSecurity(domain.get("mx_dnssec") or DnsSecurity.NOT_TESTED),
            sts_mode=policy.mode if policy is not None else None,
            sts_told=told,
            sts_match=_sts_match(policy, row["mx_host"]),
            host_dns_failed=row["mx_state"] == MxState.DNS_FAILURE,
            session_ok=session_ok,
            starttls=starttls,
            tls_version=tls_version,
            pkix_ok=pkix_ok,
            pkix_dns_id_ok=dns_id_ok,
            name_in_certificate=name_ok,
            dane=self._dane_hop(domain, host, session, dane),
            requiretls=requiretls,
        )

    def _dane_hop(self, domain: Row, host: Row, session: Row | None, dane: DaneCheck | None) -> DaneHop:
        """Evaluate DANE for this domain's hop (facts of RFC 7672 §2.2: the MX answer counts, then the host)."""
        if _via_mx(domain):
            security = domain.get("mx_dnssec")
            if security == DnsSecurity.NOT_TESTED:
                return DaneHop.UNKNOWN
            if security == DnsSecurity.INSECURE and not self.rules.dane_insecure_mx:
                return DaneHop.NONE
        match TlsaState(host["tlsa_state"]):
            case TlsaState.ERROR:
                return DaneHop.ERROR
            case TlsaState.NOT_TESTED:
                return DaneHop.UNKNOWN
            case TlsaState.NONE | TlsaState.INSECURE:
                return DaneHop.NONE
            case TlsaState.UNUSABLE:
                return DaneHop.UNUSABLE
        if session is None or session["outcome"] in NOT_CONTACTED or dane is None:
            return DaneHop.UNKNOWN
        starttls = session["starttls"]
        if starttls in (FeatureState.NO, FeatureState.FAILED):
            return DaneHop.FAIL  # TLS is owed to a host with usable records
        if starttls != FeatureState.YES:
            return DaneHop.UNKNOWN
        return DaneHop.OK if dane.state is DaneState.MATCH else DaneHop.FAIL

    def _mx_row(
        self,
        domain: Row,
        row: Row,
        hops: Sequence[HopResult],
        policy: StsPolicy | None,
        told: bool,
    ) -> dict[str, Any]:
        match = _sts_match(policy, row["mx_host"])
        return {
            "sts_match": match,
            "secured_by": self._secured_by(domain, policy, match, told),
            "dane": domain_share(hop.dane for hop in hops),
            "requiretls_ready": domain_share(hop.requiretls_ready for hop in hops),
            "requiretls_ready_testing": domain_share(hop.requiretls_ready_testing for hop in hops),
            **_obstacles(hops),
        }

    def _secured_by(self, domain: Row, policy: StsPolicy | None, match: bool | None, told: bool) -> SecuredBy:
        if not _via_mx(domain):
            return SecuredBy.IMPLICIT_MX
        security = domain.get("mx_dnssec")
        if security == DnsSecurity.SECURE:
            return SecuredBy.DNSSEC
        if policy is not None and policy.mode in self.rules.sts_modes and match:
            return SecuredBy.MTA_STS
        if security == DnsSecurity.INSECURE and told:
            return SecuredBy.NONE
        return SecuredBy.UNKNOWN

    @staticmethod
    def _sum_up(domain: Row, hops: Sequence[HopResult]) -> dict[str, Any]:
        if not hops:
            state = domain["mx_state"]
            if state is None:  # opted out, not looked up
                share = DomainShare.NOT_TESTED
                return {**dict.fromkeys(QUESTIONS, share), "obstacle": Obstacle.UNKNOWN, "obstacles": ()}
            failed = state == MxState.DNS_FAILURE
            share = DomainShare.UNKNOWN if failed else DomainShare.NOT_APPLICABLE
            obstacle = Obstacle.DNS_ERROR if failed else Obstacle.NO_MX
            return {**dict.fromkeys(QUESTIONS, share), "obstacle": obstacle, "obstacles": (obstacle,)}
        columns: dict[str, Any] = {
            question: domain_share(getattr(hop, question) for hop in hops) for question in QUESTIONS
        }
        return {**columns, **_obstacles(hops)}


def _body(text: str) -> bytes:
    """Give the policy body back from its stored text; a replacement character stands for bytes that are not UTF-8."""
    return text.encode("utf-8").replace("\ufffd".encode(), b"\xff")


def _sts_match(policy: StsPolicy | None, host: str) -> bool | None:
    """Tell whether a policy names a host; None where there is none, or one of mode none."""
    return None if policy is None or policy.mode is StsMode.NONE else matches_mx(policy.mx, host)


def _via_mx(domain: Row) -> bool:
    return bool(domain["mx_state"] != MxState.IMPLICIT_MX)


def _obstacles(hops: Sequence[HopResult]) -> dict[str, Any]:
    """Sum up what stops a message at these addresses; those left out do not decide where another is left."""
    if not hops:
        return {"obstacle": Obstacle.NO_MX, "obstacles": (Obstacle.NO_MX,)}
    contacted = [hop for hop in hops if hop.requiretls_ready is not Answer.LEFT_OUT]
    found = {obstacle for hop in hops for obstacle in hop.verdict.obstacles}
    return {
        "obstacle": domain_obstacle(hop.verdict for hop in contacted or hops),
        "obstacles": tuple(obstacle for obstacle in Obstacle if obstacle in found),
    }


# -- a whole snapshot ----------------------------------------------------------------------------------------


def rules_record(rules: Rules) -> dict[str, Any]:
    """Write the rules as the manifest keeps them."""
    record = asdict(rules)
    record["sts_modes"] = sorted(rules.sts_modes)
    return record


def judge(snapshot: Snapshot, **reading: Any) -> Snapshot:
    """Compute every verdict column of a snapshot again, from its stored evidence alone.

    Parameters
    ----------
    snapshot
        What `rtls.scan` or `rtls.open_snapshot` gave.
    **reading
        Parameters of the decision table, where they shall differ from those in the snapshot's manifest:
        `sts_modes` (modes that secure the MX name: ``["enforce"]`` or ``["enforce", "testing"]``), `name_rule`
        (``"as_applicable"``, ``"literal"``), `minimum_tls` (``"TLSv1.0"``, ``"TLSv1.2"``, ``"TLSv1.3"``),
        `sts_with_dane` (``"both"``, ``"dane_wins"``), `dane_insecure_mx`, `cn_id`, `strict_media_type`,
        `cert_fail`. They are described at `rtls_analysis.standards.requiretls.Rules`.

    Returns
    -------
    Snapshot
        In memory, the evidence untouched, its manifest naming the rules that decided.

    Raises
    ------
    ValueError
        A parameter is unknown, or its value is.
    """
    from rtls_analysis.schema import SNAPSHOT_TABLES, to_frame
    from rtls_analysis.store import Snapshot as SnapshotClass

    rules = _rules_of(snapshot, **reading)
    rows = {name: snapshot_rows(snapshot, name) for name in ("domains", "mx", "hosts", "sessions")}
    judge = _judge_of(snapshot, rules, snapshot.certificates)
    judged = judge_rows(rows, judge, from_each=snapshot.is_from_each)
    frames = {
        table.name: to_frame(table, judged[table.name])
        if table.name in judged
        else snapshot.table(table.name)
        for table in SNAPSHOT_TABLES
    }
    manifest = {**snapshot.manifest, "rules": rules_record(rules)}
    return SnapshotClass(None, manifest, snapshot.roots_pem, frames)


def _rules_of(snapshot: Snapshot, **reading: Any) -> Rules:
    """Give the rules of a snapshot's manifest, with what is read otherwise."""
    return Rules.of(**{**snapshot.manifest.get("rules", {}), **reading})


def _judge_of(snapshot: Snapshot, rules: Rules, certificates: pd.DataFrame) -> Judge:
    """Make a judge by a snapshot's own roots and these rows of `certificates`."""
    ders = dict(zip(certificates["sha256"], certificates["der"], strict=True))
    return Judge(rules, Roots.from_pem(snapshot.roots_pem), ders.__getitem__)


def judge_rows(
    rows: Mapping[str, Sequence[Row]], judge: Judge, *, from_each: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """Judge the rows of the four tables; gives them with their verdict columns put in place.

    With `from_each` a domain is judged by what was seen from the vantage of its row.
    """
    hosts = {host["mx_host"]: {**host, **host_verdict(host)} for host in rows["hosts"]}
    sessions = [
        {**session, **judge.session(session, hosts[session["mx_host"]])} for session in rows["sessions"]
    ]
    by_host = _by(sessions, "mx_host", from_each=from_each)
    by_domain = _by(rows["mx"], "domain", from_each=from_each)
    domains: list[dict[str, Any]] = []
    mx: list[dict[str, Any]] = []
    for domain in rows["domains"]:
        place = domain["vantage"] if from_each else None
        of_domain = by_domain.get(place, {}).get(domain["domain"], [])
        result = judge.domain(domain, of_domain, hosts, by_host.get(place, {}))
        domains.append({**domain, **result.domain})
        mx += [{**row, **columns} for row, columns in zip(of_domain, result.mx, strict=True)]
    return {"domains": domains, "mx": mx, "hosts": list(hosts.values()), "sessions": sessions}


def judge_hops(snapshot: Snapshot) -> Iterator[tuple[Row, HopResult | None]]:
    """Judge every hop of a snapshot: pairs of a domain's row and one of its hops, None where it has none."""
    judge = _judge_of(snapshot, _rules_of(snapshot), snapshot.certificates)
    hosts = {row["mx_host"]: row for row in snapshot_rows(snapshot, "hosts")}
    from_each = snapshot.is_from_each
    sessions = _by(snapshot_rows(snapshot, "sessions"), "mx_host", from_each=from_each)
    mx = _by(snapshot_rows(snapshot, "mx"), "domain", from_each=from_each)
    for domain in snapshot_rows(snapshot, "domains"):
        place = domain["vantage"] if from_each else None
        of_domain = mx.get(place, {}).get(domain["domain"], ())
        hops = judge.domain(domain, of_domain, hosts, sessions.get(place, {})).hops
        for hop in hops or (None,):
            yield domain, hop


def _by(rows: Iterable[Row], name: str, *, from_each: bool) -> dict[str | None, dict[str, list[Row]]]:
    """Sort rows by vantage, where each tells of all targets, and by what they are of."""
    sorted_: dict[str | None, dict[str, list[Row]]] = {}
    for row in rows:
        place = row["vantage"] if from_each else None
        sorted_.setdefault(place, {}).setdefault(row[name], []).append(row)
    return sorted_


def explain(snapshot: Snapshot, domain: str) -> DomainResult:
    """Judge one domain of a snapshot again and keep every hop's verdict, for a page that tells why."""
    from rtls_analysis.store import one_vantage

    snapshot = one_vantage(snapshot)
    rows = snapshot_rows(snapshot, "domains", {"domain": domain})
    if not rows:
        raise KeyError(domain)
    mx = snapshot_rows(snapshot, "mx", {"domain": domain})
    names = [row["mx_host"] for row in mx]
    hosts = {row["mx_host"]: row for row in snapshot_rows(snapshot, "hosts", {"mx_host": names})}
    sessions: dict[str, list[Row]] = {}
    row: Row
    for row in snapshot_rows(snapshot, "sessions", {"mx_host": names}):
        sessions.setdefault(row["mx_host"], []).append(row)
    wanted = {sha for found in sessions.values() for row in found for sha in row.get("chain_sha256") or ()}
    certificates = snapshot.table("certificates", where={"sha256": sorted(wanted)})
    judge = _judge_of(snapshot, _rules_of(snapshot), certificates)
    return judge.domain(rows[0], mx, hosts, sessions)


def snapshot_rows(
    snapshot: Snapshot, table: str, where: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Rows of a snapshot's table as mappings, missing values as None."""
    from rtls_analysis.schema import TABLES, rows_of

    return rows_of(TABLES[table], snapshot.table(table, where=where))
