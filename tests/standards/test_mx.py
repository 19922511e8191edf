from __future__ import annotations

from random import Random

import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtls_analysis.standards.dns_answer import FAILURES, DnsAnswer, DnsSecurity, DnsStatus
from rtls_analysis.standards.mx import MAX_HOSTS, MxHost, check_mx, check_mx_host

DOMAIN = "example.org"


def answer(*records: str, status: DnsStatus = DnsStatus.NOERROR, detail: str = "") -> DnsAnswer:
    security = DnsSecurity.ERROR if status in FAILURES else DnsSecurity.SECURE
    return DnsAnswer(DOMAIN, "MX", status, security, records, detail=detail)


# why, records, state, hosts, words of the detail
RECORDS: list[tuple[str, list[str], str, list[tuple[int, str]], str]] = [
    ("one", ["10 mx.example.org."], "mx", [(10, "mx.example.org")], ""),
    ("in order of preference", ["20 b.example.", "5 a.example."], "mx", [(5, "a.example"), (20, "b.example")], ""),
    ("preference is a number", ["100 a.example.", "20 b.example."], "mx", [(20, "b.example"), (100, "a.example")], ""),
    ("equal preference, by name", ["10 b.example.", "10 a.example."], "mx", [(10, "a.example"), (10, "b.example")], ""),
    ("highest preference", ["65535 mx.example."], "mx", [(65535, "mx.example")], ""),
    ("preference 0", ["0 mx.example."], "mx", [(0, "mx.example")], ""),
    ("capitals", ["10 MX.Example.ORG."], "mx", [(10, "mx.example.org")], ""),
    ("no final dot", ["10 mx.example.org"], "mx", [(10, "mx.example.org")], ""),
    ("twice, the better preference", ["20 mx.example.", "10 MX.example."], "mx", [(10, "mx.example")], ""),
    ("the domain itself", ["10 example.org."], "mx", [(10, "example.org")], ""),
    ("one label", ["10 localhost."], "mx", [(10, "localhost")], ""),
    ("an address", ["10 192.0.2.1."], "mx", [(10, "192.0.2.1")], ""),
    ("null MX", ["0 ."], "null_mx", [], ""),
    ("null MX with a preference", ["10 ."], "null_mx", [], "null MX with preference 10, not 0"),
    ("two null MX", ["0 .", "0 ."], "null_mx", [], ""),
    ("null MX beside others", ["0 .", "10 mx.example."], "null_mx_with_others", [(10, "mx.example")], "a null MX beside"),
    ("unreadable beside another", ["x mx.example.", "10 mx.example."], "mx", [(10, "mx.example")], "no MX record: 'x mx"),
    ("unreadable alone", ["mx.example."], "dns_failure", [], "no MX record: 'mx.example.'"),
    ("no name", ["10 "], "dns_failure", [], "no MX record"),
    ("unreadable beside a null MX", ["0 .", "x"], "null_mx", [], "no MX record: 'x'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("records", "state", "hosts", "words"), [pytest.param(*row, id=why) for why, *row in RECORDS]
)
@pytest.mark.parametrize("has_address", [True, False, None])
def test_records(
    records: list[str], state: str, hosts: list[tuple[int, str]], words: str, has_address: bool | None
) -> None:
    """Where MX records exist they alone decide: the domain's own address never counts (RFC 5321 §5.1)."""
    check = check_mx(DOMAIN, answer(*records), has_address=has_address)
    assert check.state == state
    assert check.hosts == tuple(MxHost(*host) for host in hosts)
    assert words in check.detail
    assert bool(words) == bool(check.detail)


# why, status of the MX question, has the domain an address, state, hosts
WITHOUT_RECORDS = [
    ("no MX, an address", "nodata", True, "implicit_mx", [DOMAIN]),
    ("no MX, no address", "nodata", False, "no_mail", []),
    ("no MX, address not asked", "nodata", None, "implicit_mx", [DOMAIN]),
    ("no such domain", "nxdomain", True, "nxdomain", []),
    ("no such domain, no address", "nxdomain", False, "nxdomain", []),
    *((f"{status}", status, True, "dns_failure", []) for status in sorted(FAILURES)),
    ("failed, no address either", "servfail", False, "dns_failure", []),
]


@pytest.mark.parametrize(
    ("status", "has_address", "state", "hosts"), [pytest.param(*row, id=why) for why, *row in WITHOUT_RECORDS]
)
def test_without_records(status: str, has_address: bool | None, state: str, hosts: list[str]) -> None:
    """A denial makes the domain its own MX where it has an address; a failure is never a denial."""
    check = check_mx(DOMAIN, answer(status=DnsStatus(status)), has_address=has_address)
    assert check.state == state
    assert check.hosts == tuple(MxHost(0, host) for host in hosts)


def test_failure_says_why() -> None:
    """The resolver's own words are the detail, or else the status."""
    failed = answer(status=DnsStatus.BOGUS, detail="signature expired")
    assert check_mx(DOMAIN, failed, has_address=None).detail == "signature expired"
    assert check_mx(DOMAIN, answer(status=DnsStatus.TIMEOUT), has_address=None).detail == "MX: timeout"


def test_too_many_hosts() -> None:
    """Of thousands of hosts the most preferred are looked at, and it is said that there are more."""
    records = [f"{number} mx{number}.example." for number in range(5000, 0, -1)]
    check = check_mx(DOMAIN, answer(*records), has_address=None)
    assert [host.preference for host in check.hosts] == list(range(1, MAX_HOSTS + 1))
    assert check.detail == f"5000 MX hosts, {MAX_HOSTS} looked at"


# why, host, end of its aliases, addresses, did a question fail, are all special, state
HOSTS = [
    ("address", "mx.example", "mx.example", ["192.0.2.1"], False, False, "mx"),
    ("one family failed", "mx.example", "mx.example", ["192.0.2.1"], True, False, "mx"),
    ("alias", "mx.example", "host.example", ["192.0.2.1"], False, False, "mx_is_cname"),
    ("no address", "mx.example", "mx.example", [], False, False, "mx_no_address"),
    ("alias to nothing", "mx.example", "host.example", [], False, False, "mx_no_address"),
    ("lookup failed", "mx.example", "mx.example", [], True, False, "dns_failure"),
    ("special address", "mx.example", "mx.example", ["127.0.0.1"], False, True, "mx_special_address"),
    ("alias to a special address", "mx.example", "host.example", ["10.0.0.1"], False, True, "mx_special_address"),
    ("an address for a name", "192.0.2.1", "192.0.2.1", [], False, False, "mx_is_address"),
    ("IPv6 for a name", "2001:db8::1", "2001:db8::1", [], False, False, "mx_is_address"),
    ("an address for a name, lookup failed", "192.0.2.1", "192.0.2.1", [], True, False, "mx_is_address"),
    ("an address for a name that resolves", "192.0.2.1", "192.0.2.1", ["192.0.2.1"], False, False, "mx_is_address"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("host", "canonical", "addresses", "failed", "special", "state"),
    [pytest.param(*row, id=why) for why, *row in HOSTS],
)
def test_check_mx_host(
    host: str, canonical: str, addresses: list[str], failed: bool, special: bool, state: str
) -> None:
    """A host gets the first word that holds; an answer for one family is an answer."""
    found = check_mx_host(
        host, addresses=addresses, lookup_failed=failed, all_special=special, canonical=canonical
    )
    assert found == state


# -- any answer ----------------------------------------------------------------------------------------------

preferences = st.integers(0, 65535)
names = st.from_regex(r"([a-z0-9]{1,8}\.){1,3}", fullmatch=True)
record_texts = st.one_of(st.builds("{} {}".format, preferences, names), st.just("0 ."), st.text(max_size=20))


@given(st.lists(record_texts, max_size=8), st.randoms(use_true_random=False))
@example(["10 " + "a." * 50_000], Random(1))
@settings(deadline=None)
def test_any_records(records: list[str], random: Random) -> None:
    """Any texts for records get a verdict, the same in any order, with hosts sorted, once each and never the root."""
    check = check_mx(DOMAIN, answer(*records), has_address=True)
    shuffled = list(records)
    random.shuffle(shuffled)
    again = check_mx(DOMAIN, answer(*shuffled), has_address=True)
    assert (again.state, again.hosts) == (check.state, check.hosts)
    assert list(check.hosts) == sorted(check.hosts)
    assert len({host.host for host in check.hosts}) == len(check.hosts)
    assert all(host.host not in ("", ".") for host in check.hosts)
    assert bool(check.hosts) == (check.state in ("mx", "null_mx_with_others", "implicit_mx"))


@given(preferences, names)
def test_records_as_dnspython_writes_them(preference: int, name: str) -> None:
    """What dnspython reads from the wire and writes as text is read back."""
    record = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.MX, f"{preference} {name}")
    check = check_mx(DOMAIN, answer(record.to_text()), has_address=None)
    assert check.hosts == (MxHost(preference, name.removesuffix(".")),)
