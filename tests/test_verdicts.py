"""From the answers of addresses to the verdict on a domain."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from rtls_analysis.outcomes import (
    DaneState,
    DnsSecurity,
    DomainShare,
    FeatureState,
    MxState,
    Obstacle,
    PkixState,
    SecuredBy,
    SessionOutcome,
    SessionStage,
    StsPolicyState,
    StsRecordState,
    TlsaState,
)
from rtls_analysis.standards.certificates import Roots
from rtls_analysis.standards.requiretls import Rules
from rtls_analysis.verdicts import Answer, Judge, domain_share, host_verdict

Y, N, U, T, L = Answer.YES, Answer.NO, Answer.UNKNOWN, Answer.NOT_TESTED, Answer.LEFT_OUT
SHARES = [
    ("every address", [Y, Y], DomainShare.ALL),
    ("one of two", [Y, N], DomainShare.SOME),
    ("a yes beside one that could not be told", [Y, U], DomainShare.SOME),
    ("none", [N, N], DomainShare.NONE),
    ("no yes, and one that could not be told", [N, U], DomainShare.UNKNOWN),
    ("left out ones do not count beside others", [Y, L], DomainShare.ALL),
    ("nor beside a no", [N, L], DomainShare.NONE),
    ("all left out, by our choice", [L, L], DomainShare.NOT_TESTED),
    ("the resolver is not trusted", [T, T], DomainShare.NOT_TESTED),
    ("a no beside one that was not tested is no none", [N, T], DomainShare.NOT_TESTED),
    ("no address to ask", [], DomainShare.NOT_APPLICABLE),
]


@pytest.mark.parametrize(("answers", "share"), [pytest.param(a, s, id=why) for why, a, s in SHARES])
def test_domain_share(answers: list[Answer], share: DomainShare) -> None:
    """A share sums up all addresses, and never turns a not-known into a no."""
    assert domain_share(answers) is share
    assert domain_share(reversed(answers)) is share


def domain(**changes: Any) -> dict[str, Any]:
    row = {
        "domain": "example.org",
        "mx_state": MxState.MX,
        "mx_dnssec": DnsSecurity.INSECURE,
        "mx_canonical": "example.org",
        "sts_record": StsRecordState.ABSENT,
    }
    return {**row, **changes}


def host(**changes: Any) -> dict[str, Any]:
    row = {
        "mx_host": "mx.example.org",
        "addresses": ("192.0.2.1",),
        "addresses_dnssec": DnsSecurity.INSECURE,
        "tlsa": (),
        "tlsa_base": None,
        "tlsa_dnssec": None,
        "mx_state": MxState.MX,
    }
    held = {**row, **changes}
    return {**held, **host_verdict(held)}


def session(**changes: Any) -> dict[str, Any]:
    row = {
        "mx_host": "mx.example.org",
        "address": "192.0.2.1",
        "started_at": dt.datetime(2026, 11, 24, tzinfo=dt.UTC),
        "outcome": SessionOutcome.COMPLETED,
        "stage": SessionStage.QUIT,
        "starttls": FeatureState.NO,
        "requiretls_plain": FeatureState.NO,
        "requiretls_tls": FeatureState.NOT_TESTED,
        "chain_sha256": None,
        "tls_version": None,
        "pkix": PkixState.NOT_TESTED,
        "dane": DaneState.NONE,
    }
    return {**row, **changes}


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(Rules(), Roots.builtin(), {}.__getitem__)


SILENT = {"outcome": SessionOutcome.TIMEOUT, "stage": SessionStage.GREETING, "starttls": FeatureState.UNKNOWN}
REFUSED = {"outcome": SessionOutcome.ADDRESS_REFUSED, "starttls": FeatureState.NOT_TESTED}
SIGNED = {"mx_dnssec": DnsSecurity.SECURE}
SHARED = [
    (
        "no STARTTLS is a no for each question",
        domain(),
        session(),
        "none",
        "none",
        Obstacle.MX_UNAUTHENTICATED,
    ),
    (
        "with the MX name secured, STARTTLS is the first",
        domain(**SIGNED),
        session(),
        "none",
        "none",
        Obstacle.NO_STARTTLS,
    ),
    (
        "silence is no verdict",
        domain(**SIGNED),
        session(**SILENT),
        "unknown",
        "unknown",
        Obstacle.UNREACHABLE,
    ),
    (
        "nor where the name is not secured",
        domain(),
        session(**SILENT),
        "unknown",
        "unknown",
        Obstacle.UNREACHABLE,
    ),
    (
        "a special address is left alone",
        domain(**SIGNED),
        session(**REFUSED),
        "not_tested",
        "not_tested",
        Obstacle.UNKNOWN,
    ),
]


@pytest.mark.parametrize(
    ("row", "seen", "starttls", "ready", "obstacle"), [pytest.param(*case, id=why) for why, *case in SHARED]
)
def test_one_address(
    judge: Judge, row: dict[str, Any], seen: dict[str, Any], starttls: str, ready: str, obstacle: Obstacle
) -> None:
    """What one address says becomes the verdict on the domain."""
    mx = [{"mx_host": "mx.example.org", "mx_state": MxState.MX}]
    result = judge.domain(row, mx, {"mx.example.org": host()}, {"mx.example.org": [seen]})
    assert result.domain["starttls"] == starttls
    assert result.domain["requiretls_ready"] == ready
    assert result.domain["obstacle"] == obstacle
    assert result.mx[0]["requiretls_ready"] == ready
    secured = SecuredBy.DNSSEC if row["mx_dnssec"] == DnsSecurity.SECURE else SecuredBy.NONE
    assert result.mx[0]["secured_by"] == secured


NO_SERVERS = [
    ("null MX", MxState.NULL_MX, "not_applicable", Obstacle.NO_MX),
    ("no such domain", MxState.NXDOMAIN, "not_applicable", Obstacle.NO_MX),
    ("the lookup failed", MxState.DNS_FAILURE, "unknown", Obstacle.DNS_ERROR),
    ("not a name", MxState.BAD_NAME, "not_applicable", Obstacle.NO_MX),
    ("opted out, not looked up", None, "not_tested", Obstacle.UNKNOWN),
]


@pytest.mark.parametrize(
    ("state", "share", "obstacle"), [pytest.param(*case, id=why) for why, *case in NO_SERVERS]
)
def test_no_server_to_ask(judge: Judge, state: MxState | None, share: str, obstacle: Obstacle) -> None:
    """Without a server the question does not apply, unless it is DNS that failed."""
    result = judge.domain(domain(mx_state=state), [], {}, {})
    assert {result.domain[name] for name in ("starttls", "pkix", "dane", "requiretls_ready")} == {share}
    assert result.domain["obstacle"] == obstacle


def test_a_host_that_could_not_be_looked_up_is_no_no(judge: Judge) -> None:
    """A failed address lookup leaves the domain without a conclusion, not with a no."""
    failed = host(addresses=(), addresses_dnssec=DnsSecurity.ERROR, mx_state=MxState.DNS_FAILURE)
    mx = [{"mx_host": "mx.example.org", "mx_state": MxState.DNS_FAILURE}]
    result = judge.domain(domain(**SIGNED), mx, {"mx.example.org": failed}, {})
    assert result.domain["starttls"] == "unknown"
    assert result.domain["obstacle"] == Obstacle.DNS_ERROR


POLICIES = [
    ("valid", {"sts_http_status": 200, "sts_content_type": "text/plain"}, "valid", True),
    ("a redirect is no policy", {"sts_http_status": 301}, "redirect", True),
    (
        "another media type is no policy",
        {"sts_http_status": 200, "sts_content_type": "text/html"},
        "content_type",
        True,
    ),
    (
        "a bad certificate is no policy",
        {"sts_policy": StsPolicyState.CERTIFICATE_INVALID},
        "certificate_invalid",
        True,
    ),
    ("a silent policy host leaves it untold", {"sts_policy": StsPolicyState.TIMEOUT}, "timeout", False),
]
BODY = "version: STSv1\nmode: enforce\nmx: *.example.org\nmax_age: 86400\n"


@pytest.mark.parametrize(
    ("changes", "state", "told"), [pytest.param(*case, id=why) for why, *case in POLICIES]
)
def test_policy(judge: Judge, changes: dict[str, Any], state: str, told: bool) -> None:
    """A policy served wrongly is no policy; one that could not be had leaves the question open."""
    row = domain(sts_record=StsRecordState.VALID, sts_policy_text=BODY, **changes)
    columns, policy, is_told = judge.policy(row)
    assert columns["sts_policy"] == state
    assert is_told is told
    assert (policy is not None) == (state == "valid")


def test_a_policy_that_is_not_utf8_is_invalid_again(judge: Judge) -> None:
    """The stored text remembers that the body was no UTF-8, so that judging it again says the same."""
    text = (BODY.encode() + b"x: \xff\n").decode("utf-8", "replace")
    row = domain(
        sts_record=StsRecordState.VALID,
        sts_policy_text=text,
        sts_http_status=200,
        sts_content_type="text/plain",
    )
    assert judge.policy(row)[0]["sts_policy"] == StsPolicyState.INVALID


def test_tlsa_that_was_not_asked_is_told_by_the_addresses() -> None:
    """No TLSA question where the addresses are insecure; an error or an untrusted resolver says so."""
    states = {
        DnsSecurity.INSECURE: TlsaState.NONE,
        DnsSecurity.ERROR: TlsaState.ERROR,
        DnsSecurity.NOT_TESTED: TlsaState.NOT_TESTED,
    }
    for security, state in states.items():
        assert host(addresses_dnssec=security)["tlsa_state"] == state
