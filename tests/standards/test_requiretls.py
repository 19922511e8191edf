"""The decision table for REQUIRETLS messages, for notices, and for `TLS-Required: No` (RFC 8689 §4.2, §5)."""

from __future__ import annotations

from dataclasses import fields
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.standards.dns_answer import DnsSecurity
from rtls_analysis.standards.mta_sts import StsMode
from rtls_analysis.standards.requiretls import (
    CertFail,
    DaneHop,
    Disposition,
    HopFacts,
    HopVerdict,
    Obstacle,
    Readiness,
    Rules,
    StsWithDane,
    check_hop,
    check_tls_required_no,
    domain_disposition,
    domain_obstacle,
)
from rtls_analysis.standards.smtp_session import FeatureState

YES, NO, FAILED, UNKNOWN = FeatureState.YES, FeatureState.NO, FeatureState.FAILED, FeatureState.UNKNOWN
SIGNED: dict[str, Any] = {"mx_security": DnsSecurity.SECURE}
UNTRUSTED: dict[str, Any] = {"mx_security": DnsSecurity.NOT_TESTED, "dane": DaneHop.UNKNOWN}
ENFORCED: dict[str, Any] = {"sts_mode": StsMode.ENFORCE, "sts_match": True}
TESTED: dict[str, Any] = {"sts_mode": StsMode.TESTING, "sts_match": True}
UNTOLD: dict[str, Any] = {"sts_told": False}
BAD_CERTIFICATE: dict[str, Any] = {"pkix_ok": False, "pkix_dns_id_ok": False, "name_in_certificate": False}
CN_ONLY: dict[str, Any] = {"pkix_dns_id_ok": False}
SILENT: dict[str, Any] = {"session_ok": False, "starttls": UNKNOWN, "requiretls": UNKNOWN}
NOT_ASKED: dict[str, Any] = {"session_ok": None, "starttls": UNKNOWN, "requiretls": UNKNOWN}
CLEARTEXT: dict[str, Any] = {"starttls": NO, "requiretls": UNKNOWN}
BROKEN: dict[str, Any] = {"starttls": FAILED, "requiretls": UNKNOWN}

# row, why, facts, rules, obstacles found ("?": nothing sure, something open), disposition, code
TABLE: list[tuple[str, str, dict[str, Any], dict[str, Any], str, str, str]] = [
    ("1", "address lookup failed", {**SIGNED, "host_dns_failed": True, **NOT_ASKED}, {}, "dns_error", "defer", ""),
    ("1", "bogus MX answer", {"mx_security": DnsSecurity.ERROR}, {}, "dns_error mx_unauthenticated", "defer", ""),
    ("1", "TLSA lookup failed", {**SIGNED, "dane": DaneHop.ERROR}, {}, "dns_error", "defer", ""),
    ("1", "before all else", {"dane": DaneHop.ERROR, **CLEARTEXT}, {}, "dns_error mx_unauthenticated no_starttls", "defer", ""),
    ("1b", "no session", {**SIGNED, **SILENT}, {}, "unreachable", "defer", ""),
    ("1b", "no session, and the name not secured", SILENT, {}, "unreachable mx_unauthenticated", "defer", ""),
    ("1b", "not contacted", {**SIGNED, **NOT_ASKED}, {}, "?", "unknown", ""),
    ("1b", "not contacted, but the name is not secured", NOT_ASKED, {}, "mx_unauthenticated", "bounce", ""),
    ("2", "the policy names others", {**ENFORCED, "sts_match": False}, {}, "sts_forbids_host mx_unauthenticated", "defer", ""),
    ("2", "even where the MX record is signed", {**SIGNED, **ENFORCED, "sts_match": False}, {}, "sts_forbids_host", "defer", ""),
    ("2", "in mode testing it forbids nothing", {**SIGNED, **TESTED, "sts_match": False}, {}, "", "send", ""),
    ("3", "neither DNSSEC nor MTA-STS", {}, {}, "mx_unauthenticated", "bounce", ""),
    ("3", "DNSSEC secures the name", SIGNED, {}, "", "send", ""),
    ("3", "MTA-STS secures the name", ENFORCED, {}, "", "send", ""),
    ("3", "no MX record, nothing to secure", {"via_mx": False}, {}, "", "send", ""),
    ("3", "mode testing does not count", TESTED, {}, "mx_unauthenticated", "bounce", ""),
    ("3", "unless one reads it so", TESTED, {"sts_modes": ["enforce", "testing"]}, "", "send", ""),
    ("3", "mode none is no policy", {"sts_mode": StsMode.NONE}, {"sts_modes": ["enforce", "testing"]}, "mx_unauthenticated", "bounce", ""),
    ("3", "the policy could not be had", UNTOLD, {}, "?", "defer", ""),
    ("3", "nor was it needed", {**UNTOLD, **SIGNED}, {}, "", "send", ""),
    ("3", "the resolver is not trusted", UNTRUSTED, {}, "?", "unknown", ""),
    ("3", "nor was DNSSEC needed for the name", {**UNTRUSTED, **ENFORCED}, {}, "?", "unknown", ""),
    ("4", "no STARTTLS", {**SIGNED, **CLEARTEXT}, {}, "no_starttls", "bounce", "5.7.10"),
    ("4", "surely, whatever is open", {**UNTRUSTED, **CLEARTEXT}, {}, "no_starttls", "bounce", "5.7.10"),
    ("5", "refused for good, or a broken handshake", {**SIGNED, **BROKEN}, {}, "tls_failed", "bounce", "5.7.10"),
    ("6", "TLS 1.1", {**SIGNED, "tls_version": "TLSv1.1"}, {}, "tls_too_old", "bounce", "5.7.10"),
    ("6", "TLS 1.1 as RFC 8689 alone has it", {**SIGNED, "tls_version": "TLSv1.1"}, {"minimum_tls": "TLSv1.0"}, "", "send", ""),
    ("6", "TLS 1.2 where 1.3 is wanted", {**SIGNED, "tls_version": "TLSv1.2"}, {"minimum_tls": "TLSv1.3"}, "tls_too_old", "bounce", "5.7.10"),
    ("6", "TLS 1.2 is enough", {**SIGNED, "tls_version": "TLSv1.2"}, {}, "", "send", ""),
    ("6", "a version that is not known", {**SIGNED, "tls_version": None}, {}, "?", "unknown", ""),
    ("7", "TLSA do not match, PKIX good", {**SIGNED, "dane": DaneHop.FAIL}, {}, "dane_mismatch", "bounce", "5.7.10"),
    ("7", "deferred, as RFC 7672 has it", {**SIGNED, "dane": DaneHop.FAIL}, {"cert_fail": "defer"}, "dane_mismatch", "defer", ""),
    ("7", "owed by records, without STARTTLS", {**SIGNED, **CLEARTEXT, "dane": DaneHop.FAIL}, {}, "no_starttls dane_mismatch", "bounce", "5.7.10"),
    ("8", "DANE-EE, any name and date", {**SIGNED, **BAD_CERTIFICATE, "dane": DaneHop.OK}, {}, "", "send", ""),
    ("8", "read literally it needs the name", {**SIGNED, **BAD_CERTIFICATE, "dane": DaneHop.OK}, {"name_rule": "literal"}, "certificate_unverified", "bounce", "5.7.10"),
    ("8", "which an expired one may have", {**SIGNED, **BAD_CERTIFICATE, "name_in_certificate": True, "dane": DaneHop.OK}, {"name_rule": "literal"}, "", "send", ""),
    ("9", "bad certificate without DANE", {**SIGNED, **BAD_CERTIFICATE}, {}, "certificate_unverified", "bounce", "5.7.10"),
    ("9", "never deferred", {**SIGNED, **BAD_CERTIFICATE}, {"cert_fail": "defer"}, "certificate_unverified", "bounce", "5.7.10"),
    ("9", "unusable records ask for PKIX", {**SIGNED, **BAD_CERTIFICATE, "dane": DaneHop.UNUSABLE}, {}, "certificate_unverified", "bounce", "5.7.10"),
    ("9", "and are content with it", {**SIGNED, "dane": DaneHop.UNUSABLE}, {}, "", "send", ""),
    ("9", "bad certificate, DANE not told", {**ENFORCED, **UNTRUSTED, "pkix_ok": False}, {}, "?", "unknown", ""),
    ("9b", "the policy wants PKIX beside DANE", {**SIGNED, **ENFORCED, **BAD_CERTIFICATE, "dane": DaneHop.OK}, {}, "certificate_unverified", "bounce", "5.7.10"),
    ("9b", "deferred, as RFC 8461 has it", {**SIGNED, **ENFORCED, **BAD_CERTIFICATE, "dane": DaneHop.OK}, {"cert_fail": "defer"}, "certificate_unverified", "defer", ""),
    ("9b", "unless DANE wins", {**SIGNED, **ENFORCED, **BAD_CERTIFICATE, "dane": DaneHop.OK}, {"sts_with_dane": "dane_wins"}, "", "send", ""),
    ("9b", "a common name is not enough for it", {**ENFORCED, **CN_ONLY}, {}, "certificate_unverified", "bounce", "5.7.10"),
    ("9b", "without a policy it is", {**SIGNED, **CN_ONLY}, {}, "", "send", ""),
    ("9b", "mode testing asks nothing", {**SIGNED, **TESTED, **CN_ONLY}, {}, "", "send", ""),
    ("10", "no REQUIRETLS inside TLS", {**SIGNED, "requiretls": NO}, {}, "requiretls_not_offered", "bounce", "5.7.30"),
    ("10", "the EHLO inside TLS was not answered", {**SIGNED, "requiretls": UNKNOWN}, {}, "?", "unknown", ""),
    ("10", "all that is wrong is on record", {**BAD_CERTIFICATE, "requiretls": NO, "tls_version": "TLSv1.0"}, {}, "mx_unauthenticated tls_too_old certificate_unverified requiretls_not_offered", "bounce", ""),
    ("11", "signed, DANE and REQUIRETLS", {**SIGNED, "dane": DaneHop.OK}, {}, "", "send", ""),
    ("11", "policy, PKIX and REQUIRETLS", ENFORCED, {}, "", "send", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "rules", "obstacles", "disposition", "code"),
    [pytest.param(*row[2:], id=f"row {row[0]}: {row[1]}") for row in TABLE],
)
def test_requiretls_message(
    facts: dict[str, Any], rules: dict[str, Any], obstacles: str, disposition: str, code: str
) -> None:
    """The first condition that surely fails decides; all that fail are named; what is open is never a no."""
    verdict = check_hop(HopFacts(**facts), Rules.of(**rules))
    found = () if obstacles == "?" else tuple(obstacles.split())
    assert verdict.obstacles == found
    assert verdict.obstacle == ("unknown" if obstacles == "?" else found[0] if found else "")
    assert (verdict.disposition, verdict.enhanced_code) == (disposition, code)


def test_every_row_is_a_test() -> None:
    """No row of the decision table is left out."""
    assert {row[0] for row in TABLE} == {"1", "1b", "2", "3", "4", "5", "6", "7", "8", "9", "9b", "10", "11"}


NOTICES = [
    ("row 10 does not bind", {**SIGNED, "requiretls": NO}, {}, "send_unprotected"),
    ("row 3 does not bind", {}, {}, "send_unprotected"),
    ("row 6 does not bind", {**SIGNED, "tls_version": "TLSv1.0"}, {}, "send_unprotected"),
    ("row 9 does not bind", {**SIGNED, **BAD_CERTIFICATE}, {}, "send_unprotected"),
    ("row 4 does not bind without DANE or a policy", {**SIGNED, **CLEARTEXT}, {}, "send_unprotected"),
    ("row 5 does not bind without DANE or a policy", {**SIGNED, **BROKEN}, {}, "send_unprotected"),
    ("row 4 binds with TLSA records", {**SIGNED, **CLEARTEXT, "dane": DaneHop.FAIL}, {}, "bounce"),
    ("row 4 binds with unusable ones", {**SIGNED, **CLEARTEXT, "dane": DaneHop.UNUSABLE}, {}, "bounce"),
    ("row 5 binds with a policy", {**ENFORCED, **BROKEN}, {}, "bounce"),
    ("mode testing does not bind", {**TESTED, **BROKEN}, {}, "send_unprotected"),
    ("row 1 binds", {**SIGNED, "dane": DaneHop.ERROR}, {}, "defer"),
    ("row 1b binds", {**SIGNED, **SILENT}, {}, "defer"),
    ("row 2 binds", {**ENFORCED, "sts_match": False}, {}, "defer"),
    ("row 7 binds", {**SIGNED, "dane": DaneHop.FAIL}, {}, "bounce"),
    ("row 7 binds, deferred", {**SIGNED, "dane": DaneHop.FAIL}, {"cert_fail": "defer"}, "defer"),
    ("row 9b binds", {**ENFORCED, **CN_ONLY}, {}, "bounce"),
    ("row 9b does not where DANE wins", {**SIGNED, **ENFORCED, **CN_ONLY, "dane": DaneHop.OK}, {"sts_with_dane": "dane_wins"}, "send"),
    ("row 10 open", {**SIGNED, "requiretls": UNKNOWN}, {}, "send_unprotected"),
    ("row 7 open", {**SIGNED, "dane": DaneHop.UNKNOWN}, {}, "unknown"),
    ("all met", SIGNED, {}, "send"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "rules", "disposition"), [pytest.param(*row[1:], id=row[0]) for row in NOTICES]
)
def test_notice(facts: dict[str, Any], rules: dict[str, Any], disposition: str) -> None:
    """A notice goes where its original could not, except against DANE and MTA-STS (RFC 8689 §5)."""
    verdict = check_hop(HopFacts(**facts), Rules.of(**rules), null_sender=True)
    assert verdict.disposition == disposition


TLS_REQUIRED_NO = [
    ("TLS, whatever the policies say", {**BAD_CERTIFICATE, "dane": DaneHop.FAIL}, False, "send"),
    ("a policy that names others", {**ENFORCED, "sts_match": False}, False, "send"),
    ("a TLSA lookup that failed", {**SIGNED, "dane": DaneHop.ERROR}, False, "send"),
    ("the handshake fails: cleartext", BROKEN, False, "send_unprotected"),
    ("no STARTTLS: cleartext", CLEARTEXT, False, "send_unprotected"),
    ("the server insists, and TLS does not come about", BROKEN, True, "bounce"),
    ("the server insists, and has no STARTTLS", CLEARTEXT, True, "bounce"),
    ("the server insists, and has it", {}, True, "send"),
    ("no session", SILENT, False, "defer"),
    ("MX lookup failed", {"mx_security": DnsSecurity.ERROR}, False, "defer"),
    ("address lookup failed", {"host_dns_failed": True, **NOT_ASKED}, False, "defer"),
    ("not contacted", NOT_ASKED, False, "unknown"),
]


@pytest.mark.parametrize(
    ("facts", "insists", "disposition"), [pytest.param(*row[1:], id=row[0]) for row in TLS_REQUIRED_NO]
)
def test_tls_required_no(facts: dict[str, Any], insists: bool, disposition: str) -> None:
    """`TLS-Required: No` goes whatever the policies say, as long as the recipient lets it (RFC 8689 §4.2.2)."""
    assert check_tls_required_no(HopFacts(**facts), insists_on_tls=insists) == disposition


DOMAINS = [
    ("one address is ready", "  no_starttls", "", "send"),
    ("one could not be told", "no_starttls unknown", "unknown", "unknown"),
    ("the first of the open ones", "unknown unreachable no_starttls", "unreachable", "unknown"),
    ("DNS before silence", "unreachable dns_error", "dns_error", "defer"),
    ("the one that got furthest", "no_starttls requiretls_not_offered mx_unauthenticated", "requiretls_not_offered", "bounce"),
    ("a host that the policy forbids may come back", "sts_forbids_host no_starttls", "no_starttls", "defer"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("firsts", "obstacle", "disposition"), [pytest.param(*row[1:], id=row[0]) for row in DOMAINS]
)
def test_domain(firsts: str, obstacle: str, disposition: str) -> None:
    """A sender tries every host: the best decides, in whatever order they come."""
    fates = {
        "": "send",
        "unknown": "unknown",
        "unreachable": "defer",
        "dns_error": "defer",
        "sts_forbids_host": "defer",
    }
    verdicts = [
        HopVerdict(Obstacle(first), disposition=Disposition(fates.get(first, "bounce")))
        for first in firsts.split(" ")
    ]
    for order in permutations(verdicts):
        assert domain_obstacle(order) == obstacle
        assert domain_disposition(order) == disposition


def test_domain_without_hosts() -> None:
    """Null MX, no such domain: there is nobody to send to."""
    assert domain_obstacle([]) == Obstacle.NO_MX
    assert domain_disposition([]) == Disposition.BOUNCE
    assert HopVerdict(Obstacle.NO_MX).readiness is Readiness.NOT_APPLICABLE


RULES = [
    ("nothing given", {}, Rules()),
    ("one mode as a word", {"sts_modes": "testing"}, Rules(sts_modes=frozenset({StsMode.TESTING}))),
    ("no mode secures the name", {"sts_modes": []}, Rules(sts_modes=frozenset())),
    ("a version by its number", {"minimum_tls": 1.3}, Rules(minimum_tls="TLSv1.3")),
    ("a flag as a word", {"cn_id": "no"}, Rules(cn_id=False)),
    ("words", {"sts_with_dane": "dane_wins", "cert_fail": "defer"}, Rules(sts_with_dane=StsWithDane.DANE_WINS, cert_fail=CertFail.DEFER)),
]  # fmt: skip


@pytest.mark.parametrize(("given_values", "rules"), [pytest.param(*row[1:], id=row[0]) for row in RULES])
def test_rules(given_values: dict[str, Any], rules: Rules) -> None:
    """Rules come from plain values, and give them back."""
    assert Rules.of(**given_values) == rules
    assert Rules.of(**{item.name: getattr(rules, item.name) for item in fields(rules)}) == rules


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mood": 1}, "mood"),
        ({"sts_modes": ["none"]}, "none"),
        ({"minimum_tls": "2.0"}, "2.0"),
        ({"name_rule": "loose"}, "loose"),
        ({"cn_id": 1}, "cn_id"),
    ],
)
def test_rules_that_are_none(wrong: dict[str, Any], said: str) -> None:
    """What is no rule is named, with what would do."""
    with pytest.raises(ValueError, match=said):
        Rules.of(**wrong)


BOOLS = st.sampled_from([True, False, None])
FACTS = st.builds(
    HopFacts,
    via_mx=st.booleans(),
    mx_security=st.sampled_from(DnsSecurity),
    sts_mode=st.none() | st.sampled_from(StsMode),
    sts_told=st.booleans(),
    sts_match=BOOLS,
    host_dns_failed=st.booleans(),
    session_ok=BOOLS,
    starttls=st.sampled_from(FeatureState),
    tls_version=st.none() | st.sampled_from(["SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3", "?"]),
    pkix_ok=BOOLS,
    pkix_dns_id_ok=BOOLS,
    name_in_certificate=BOOLS,
    dane=st.sampled_from(DaneHop),
    requiretls=st.sampled_from(FeatureState),
)
ANY_RULES = st.builds(
    Rules,
    sts_modes=st.frozensets(st.sampled_from([StsMode.ENFORCE, StsMode.TESTING])),
    minimum_tls=st.sampled_from(["TLSv1.0", "TLSv1.2", "TLSv1.3"]),
    sts_with_dane=st.sampled_from(StsWithDane),
    cert_fail=st.sampled_from(CertFail),
)


@settings(max_examples=300, deadline=None)
@given(FACTS, ANY_RULES, st.booleans())
def test_a_yes_has_every_condition(facts: HopFacts, rules: Rules, null_sender: bool) -> None:
    """A message goes only where TLS is up, the name secured, the certificate good and the keyword there."""
    verdict = check_hop(facts, rules, null_sender=null_sender)
    order = list(Obstacle)
    assert list(verdict.obstacles) == sorted(set(verdict.obstacles), key=order.index)
    if verdict.obstacles:
        assert verdict.obstacle is verdict.obstacles[0]
    if verdict.readiness is Readiness.YES:
        assert verdict.disposition is Disposition.SEND
        assert (facts.session_ok, facts.starttls, facts.requiretls) == (True, YES, YES)
        by_sts = facts.sts_mode in rules.sts_modes and facts.sts_match
        assert not facts.via_mx or facts.mx_security is DnsSecurity.SECURE or by_sts
        assert facts.dane is DaneHop.OK or (facts.dane in (DaneHop.NONE, DaneHop.UNUSABLE) and facts.pkix_ok)
