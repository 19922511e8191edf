"""From answers of the DNS to the rows of a domain and of a host, with what is asked for and what is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rtls_analysis.outcomes import DnsSecurity, DnsStatus, TlsaState
from rtls_analysis.scanner.addresses import AllowedNetworks
from rtls_analysis.scanner.lookups import MAX_ADDRESSES, Lookups
from rtls_analysis.scanner.politeness import OptOut
from rtls_analysis.scanner.targets import Target
from rtls_analysis.standards.dns_answer import DnsAnswer

SECURE, INSECURE, ERROR, NOT_TESTED = (
    DnsSecurity.SECURE,
    DnsSecurity.INSECURE,
    DnsSecurity.ERROR,
    DnsSecurity.NOT_TESTED,
)
PUBLIC, PUBLIC6, PRIVATE = "198.41.0.4", "2001:503:ba3e::2:30", "192.168.1.1"
TLSA = f"3 1 1 {'ab' * 32}"


class FakeResolver:
    """Answers by name and type: records, a status, or a pair of either and a security; NODATA for the rest.

    An alias is written ``-> NAME``: the rest of the answer is that of the name.
    """

    def __init__(self, answers: dict[str, Any], security: DnsSecurity) -> None:
        self.answers = answers
        self.security = security
        self.asked: list[str] = []

    async def ask(self, name: str, rdtype: str) -> DnsAnswer:
        self.asked.append(f"{name} {rdtype}")
        canonical, aliases, security = name, (), self.security
        while isinstance(alias := self.answers.get(f"{canonical} CNAME"), str) and rdtype != "CNAME":
            aliases = (*aliases, canonical)
            canonical = alias
        held = self.answers.get(f"{canonical} {rdtype}", DnsStatus.NODATA)
        if isinstance(held, tuple):
            held, security = held
        if isinstance(held, DnsStatus):
            failed = held not in (DnsStatus.NODATA, DnsStatus.NXDOMAIN)
            detail = f"{held} said somebody" if failed else ""
            return DnsAnswer(
                name, rdtype, held, ERROR if failed else security, (), canonical, aliases, detail=detail
            )
        records = tuple(held) if isinstance(held, list) else (str(held),)
        return DnsAnswer(name, rdtype, DnsStatus.NOERROR, security, records, canonical, aliases)


def lookups(
    answers: dict[str, Any],
    security: DnsSecurity = INSECURE,
    *,
    allowed: tuple[str, ...] = (),
    opted_out: tuple[str, ...] = (),
    port: int = 25,
) -> tuple[Lookups, FakeResolver]:
    resolver = FakeResolver(answers, security)
    made = Lookups(
        resolver,  # type: ignore[arg-type]
        smtp_port=port,
        allowed=AllowedNetworks(allowed),
        opted_out=OptOut(opted_out),
    )
    return made, resolver


def host(answers: dict[str, Any], security: DnsSecurity = INSECURE, **more: Any) -> dict[str, Any]:
    return asyncio.run(lookups(answers, security, **more)[0].host("mx.example.org"))


def domain(
    answers: dict[str, Any], security: DnsSecurity = INSECURE, **more: Any
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    return asyncio.run(lookups(answers, security, **more)[0].domain(Target("example.org", 7)))


# -- a host --------------------------------------------------------------------------------------------------

A, AAAA = "mx.example.org A", "mx.example.org AAAA"
SERVFAIL, TIMEOUT, BOGUS, NXDOMAIN = (
    DnsStatus.SERVFAIL,
    DnsStatus.TIMEOUT,
    DnsStatus.BOGUS,
    DnsStatus.NXDOMAIN,
)

HOSTS = [
    ("an address", {A: PUBLIC}, "mx", [PUBLIC], "insecure"),
    ("both families", {A: PUBLIC, AAAA: PUBLIC6}, "mx", [PUBLIC, PUBLIC6], "insecure"),
    ("IPv6 only", {AAAA: PUBLIC6}, "mx", [PUBLIC6], "insecure"),
    ("no address", {}, "mx_no_address", [], "insecure"),
    ("no such name", {A: NXDOMAIN, AAAA: NXDOMAIN}, "mx_no_address", [], "insecure"),
    ("a family's lookup fails", {A: PUBLIC, AAAA: SERVFAIL}, "mx", [PUBLIC], "insecure"),
    ("one fails, the other has none", {A: SERVFAIL}, "dns_failure", [], "error"),
    ("both fail", {A: TIMEOUT, AAAA: BOGUS}, "dns_failure", [], "error"),
    ("private", {A: PRIVATE}, "mx_special_address", [PRIVATE], "insecure"),
    ("private beside public", {A: [PRIVATE, PUBLIC]}, "mx", [PRIVATE, PUBLIC], "insecure"),
    ("IPv4-mapped loopback", {AAAA: "::ffff:127.0.0.1"}, "mx_special_address", ["::ffff:127.0.0.1"], "insecure"),
    ("an alias", {"mx.example.org CNAME": "host.example.net", "host.example.net A": PUBLIC}, "mx_is_cname", [PUBLIC], "insecure"),
    ("one family signed, one not", {A: ([PUBLIC], SECURE), AAAA: ([PUBLIC6], INSECURE)}, "mx", [PUBLIC, PUBLIC6], "insecure"),
    ("both signed", {A: ([PUBLIC], SECURE), AAAA: ([PUBLIC6], SECURE)}, "mx", [PUBLIC, PUBLIC6], "secure"),
    ("the resolver is not trusted", {A: ([PUBLIC], NOT_TESTED)}, "mx", [PUBLIC], "not_tested"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "state", "addresses", "security"), [pytest.param(*case, id=why) for why, *case in HOSTS]
)
def test_a_host(answers: dict[str, Any], state: str, addresses: list[str], security: str) -> None:
    """Its state, its addresses and their security; a lookup that failed is said, and is no denial."""
    row = host(answers)
    assert (row["mx_state"], list(row["addresses"]), row["addresses_dnssec"]) == (state, addresses, security)
    assert row["provider"] == "example.org"
    fails = any(value in (SERVFAIL, TIMEOUT, BOGUS) for value in answers.values())
    assert bool(row["detail"]) == fails


def test_an_address_in_place_of_a_host_is_not_asked_for() -> None:
    """No question, no address, and no DANE, which needs a name."""
    made, resolver = lookups({})
    row = asyncio.run(made.host("192.0.2.25"))
    assert (row["mx_state"], row["addresses"], row["tlsa_state"]) == ("mx_is_address", (), "none")
    assert resolver.asked == []


def test_ones_own_addresses_are_not_special() -> None:
    """What the user allows is an address as any other."""
    assert host({A: PRIVATE}, allowed=("192.168.0.0/16",))["mx_state"] == "mx"


def test_a_host_of_very_many_addresses_is_cut() -> None:
    """Nobody's answer sends a scan to thousands of others' servers; that it was cut stands in its detail."""
    many = [f"198.41.{number // 250}.{number % 250}" for number in range(4000)]
    row = host({A: many})
    assert list(row["addresses"]) == many[:MAX_ADDRESSES]
    assert row["detail"] == "4,000 addresses, 100 looked at"


T = "_25._tcp.mx.example.org TLSA"
ALIAS = {"mx.example.org CNAME": "host.example.net", "host.example.net A": PUBLIC}
T_END = "_25._tcp.host.example.net TLSA"

TLSAS = [
    ("signed", {A: PUBLIC, T: TLSA}, SECURE, "usable", "mx.example.org", [T]),
    ("none", {A: PUBLIC}, SECURE, "none", None, [T]),
    ("the lookup fails", {A: PUBLIC, T: SERVFAIL}, SECURE, "error", None, [T]),
    ("the lookup is bogus", {A: PUBLIC, T: BOGUS}, SECURE, "error", None, [T]),
    ("of no use", {A: PUBLIC, T: f"0 1 1 {'ab' * 32}"}, SECURE, "unusable", "mx.example.org", [T]),
    ("an unsigned zone below", {A: PUBLIC, T: ([TLSA], INSECURE)}, SECURE, "insecure", "mx.example.org", [T]),
    ("not asked at an unsigned host", {A: PUBLIC, T: TLSA}, INSECURE, "none", None, []),
    ("not asked of a resolver that is not trusted", {A: PUBLIC, T: TLSA}, NOT_TESTED, "not_tested", None, []),
    ("not asked without an address", {T: TLSA}, SECURE, "none", None, []),
    ("not asked where the address lookup fails", {A: SERVFAIL, T: TLSA}, SECURE, "error", None, []),
    ("at the end of an alias", {**ALIAS, T_END: TLSA}, SECURE, "usable", "host.example.net", [T_END]),
    ("at the alias itself", {**ALIAS, T: TLSA}, SECURE, "usable", "mx.example.org", [T_END, T]),
    ("at both: the end counts", {**ALIAS, T: "3 1 1 00", T_END: TLSA}, SECURE, "usable", "host.example.net", [T_END]),
    ("at neither", {**ALIAS}, SECURE, "none", None, [T_END, T]),
    ("the end fails", {**ALIAS, T: TLSA, T_END: SERVFAIL}, SECURE, "error", None, [T_END]),
    ("a signed alias out of the signed world",
     {**ALIAS, "host.example.net A": ([PUBLIC], INSECURE), T: TLSA}, SECURE, "usable", "mx.example.org", [T]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "security", "state", "base", "asked"), [pytest.param(*case, id=why) for why, *case in TLSAS]
)
def test_tlsa(
    answers: dict[str, Any], security: DnsSecurity, state: str, base: str | None, asked: list[str]
) -> None:
    """TLSA is asked where the addresses are secure, at the end of the aliases first (RFC 7672 §2.2)."""
    made, resolver = lookups(answers, security)
    row = asyncio.run(made.host("mx.example.org"))
    assert (row["tlsa_state"], row.get("tlsa_base")) == (state, base)
    assert [question for question in resolver.asked if question.endswith("TLSA")] == asked
    assert (row["tlsa_state"] == TlsaState.ERROR) == bool(row["detail"])


def test_a_tlsa_name_that_is_too_long_to_be_one() -> None:
    """Where no TLSA records can be, there are none: that is nothing that could not be told."""
    too_long = {A: PUBLIC, "_25._tcp.mx.example.org TLSA": (NXDOMAIN, NOT_TESTED)}
    row = host(too_long, SECURE)
    assert (row["tlsa_state"], row["tlsa_dnssec"], row["tlsa"]) == (TlsaState.NONE, None, ())


def test_the_tlsa_name_has_the_port_in_use() -> None:
    """It is that of ``--smtp-port``."""
    made, resolver = lookups({A: PUBLIC, "_2525._tcp.mx.example.org TLSA": TLSA}, SECURE, port=2525)
    assert asyncio.run(made.host("mx.example.org"))["tlsa_state"] == "usable"
    assert "_2525._tcp.mx.example.org TLSA" in resolver.asked


# -- a domain ------------------------------------------------------------------------------------------------

MX, OWN_A = "example.org MX", "example.org A"
TWO = [[10, "mx1.example.org"], [20, "mx2.example.net"]]

DOMAINS = [
    ("two hosts", {MX: ["20 mx2.example.net.", "10 MX1.example.org."]}, "mx", TWO),
    ("null MX", {MX: "0 ."}, "null_mx", []),
    ("null MX beside another", {MX: ["0 .", "10 mx1.example.org."]}, "null_mx_with_others", TWO[:1]),
    ("no MX, an address", {OWN_A: PUBLIC}, "implicit_mx", [[0, "example.org"]]),
    ("no MX, no address", {}, "no_mail", []),
    ("no MX, the address lookup fails", {OWN_A: SERVFAIL}, "dns_failure", []),
    ("no such domain", {MX: NXDOMAIN}, "nxdomain", []),
    ("SERVFAIL", {MX: SERVFAIL}, "dns_failure", []),
    ("time-out", {MX: TIMEOUT}, "dns_failure", []),
    ("bogus", {MX: BOGUS}, "dns_failure", []),
    ("an address as host", {MX: "10 192.0.2.25."}, "mx", [[10, "192.0.2.25"]]),
]


@pytest.mark.parametrize(
    ("answers", "state", "hosts"), [pytest.param(*case, id=why) for why, *case in DOMAINS]
)
def test_the_servers_of_a_domain(answers: dict[str, Any], state: str, hosts: list[Any]) -> None:
    """What the MX lookup amounts to; where the domain is its own host, that host's row comes with it."""
    row, own = domain(answers)
    assert (row["domain"], row["rank"], row["mx_state"], row["mx"]) == ("example.org", 7, state, hosts)
    assert row["mx_dnssec"] == ("error" if state == "dns_failure" else "insecure")
    assert (own is not None) == (state == "implicit_mx")
    if own is not None:
        assert (own["mx_host"], list(own["addresses"])) == ("example.org", [PUBLIC])
    assert bool(row["detail"]) == (state in ("dns_failure", "null_mx_with_others"))


@pytest.mark.parametrize("security", [SECURE, INSECURE, NOT_TESTED])
def test_the_security_of_the_mx_answer(security: DnsSecurity) -> None:
    """It is that of the answer, a denial included."""
    for answers in ({MX: "10 mx1.example.org."}, {MX: NXDOMAIN}, {MX: "0 ."}, {}):
        assert domain(answers, security)[0]["mx_dnssec"] == security


def test_the_end_of_the_domains_aliases() -> None:
    """It is kept: a certificate under DANE-TA may name it."""
    row, _ = domain({"example.org CNAME": "real.example.net", "real.example.net MX": "10 mx.example.net."})
    assert (row["mx_canonical"], row["mx"]) == ("real.example.net", [[10, "mx.example.net"]])


STS, STS_A, STS_AAAA = "_mta-sts.example.org TXT", "mta-sts.example.org A", "mta-sts.example.org AAAA"
RECORD = "v=STSv1; id=1;"

POLICIES = [
    ("no record", {}, "absent", None),
    ("the lookup fails", {STS: SERVFAIL}, "dns_failure", None),
    ("malformed", {STS: "v=STSv1; x"}, "malformed", None),
    ("two", {STS: [RECORD, RECORD]}, "multiple", None),
    ("a policy host", {STS: RECORD, STS_A: PUBLIC, STS_AAAA: PUBLIC6}, "valid", [PUBLIC, PUBLIC6]),
    ("a special address beside another", {STS: RECORD, STS_A: [PRIVATE, PUBLIC]}, "valid", [PUBLIC]),
    ("special addresses only", {STS: RECORD, STS_A: PRIVATE}, "valid", "address_refused"),
    ("no address", {STS: RECORD}, "valid", "no_address"),
    ("its lookup fails", {STS: RECORD, STS_A: SERVFAIL}, "valid", "dns_failure"),
    ("one family's does", {STS: RECORD, STS_A: PUBLIC, STS_AAAA: SERVFAIL}, "valid", [PUBLIC]),
]


@pytest.mark.parametrize(
    ("answers", "record", "found"), [pytest.param(*case, id=why) for why, *case in POLICIES]
)
def test_the_policy_host(answers: dict[str, Any], record: str, found: Any) -> None:
    """It is looked up where the record is valid only, and asked at addresses that are not special only."""
    row, _ = domain({MX: "10 mx1.example.org.", **answers})
    assert row["sts_record"] == record
    held = row.get("policy_host")
    if found is None:
        assert held is None
    elif isinstance(found, str):
        assert held["state"] == found
        assert "mta-sts.example.org" in held["detail"] or PRIVATE in held["detail"]
    else:
        assert (held["addresses"], held["provider"]) == (found, "example.org")


def test_the_policy_host_of_a_provider() -> None:
    """Its limits are those of the name at the end of its aliases."""
    row, _ = domain(
        {
            MX: "10 mx1.example.org.",
            STS: RECORD,
            "mta-sts.example.org CNAME": "sts.provider.example",
            "sts.provider.example A": PUBLIC,
        }
    )
    assert row["policy_host"] == {"addresses": [PUBLIC], "provider": "provider.example"}


def test_the_tls_reporting_record() -> None:
    """Where reports go, for a valid record only; a lookup that fails is no absence."""
    name = "_smtp._tls.example.org TXT"
    row, _ = domain({name: "v=TLSRPTv1; rua=mailto:tls@example.org"})
    assert (row["tlsrpt"], row["tlsrpt_rua"]) == ("valid", ["mailto:tls@example.org"])
    row, _ = domain({name: TIMEOUT})
    assert (row["tlsrpt"], row.get("tlsrpt_rua")) == ("dns_failure", None)
    assert "_smtp._tls: timeout said somebody" in row["detail"]
    assert domain({})[0]["tlsrpt"] == "absent"


@pytest.mark.parametrize(
    ("target", "opted_out", "state", "detail"),
    [
        (Target("no name", None, "not a domain: 'no name'"), (), "bad_name", "not a domain: 'no name'"),
        (Target("example.org"), ("example.org",), None, "opted out, not looked up"),
        (Target("sub.example.org"), ("example.org",), None, "opted out, not looked up"),
    ],
)
def test_who_is_not_looked_up(
    target: Target, opted_out: tuple[str, ...], state: str | None, detail: str
) -> None:
    """Text that is no name, and domains that opted out: no question is asked, and nothing is claimed."""
    made, resolver = lookups({OWN_A: PUBLIC}, opted_out=opted_out)
    row, own = asyncio.run(made.domain(target))
    assert resolver.asked == []
    assert own is None
    assert (row["mx_state"], row["detail"], row["mx"]) == (state, detail, [])
    assert {row["mx_dnssec"], row["sts_record"], row["tlsrpt"]} == {"not_tested"}
