"""The plan: each address of each host once, nobody who shall be left alone, and how long it takes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.scanner.contacts import PolicyTarget
from rtls_analysis.scanner.options import Manners, Options
from rtls_analysis.scanner.plan import Plan, Planner, expected, plan_text
from rtls_analysis.scanner.probe import ProbeTarget

BOTH = (True, True)


def options(**given: Any) -> Options:
    return Options("probe.example.org", "me@example.org", **given)


def host(name: str, *addresses: str, provider: str | None = None, **more: Any) -> dict[str, Any]:
    row = {
        "mx_host": name,
        "provider": provider or ".".join(name.split(".")[-2:]),
        "addresses": list(addresses),
        "tlsa_base": None,
        "tlsa_dnssec": None,
        "tlsa_state": "none",
        "tlsa": [],
    }
    return {**row, **more}


def make(
    hosts: list[dict[str, Any]],
    policies: list[tuple[str, dict[str, Any]]] | None = None,
    *,
    families: tuple[bool, bool] = BOTH,
    done: Any = (),
    fetched: Any = (),
    **given: Any,
) -> Plan:
    planner = Planner(options(**given), families)
    return planner.make(hosts, policies or [], probed=done, fetched=fetched)


def pairs(plan: Plan) -> set[tuple[str, str]]:
    found = [(job.payload.mx_host, job.address) for job in plan.jobs if isinstance(job.payload, ProbeTarget)]
    assert len(found) == len(set(found))
    return set(found)


def left_alone(plan: Plan) -> dict[tuple[str, str], str]:
    return {(left.target.mx_host, left.target.address): str(left.outcome) for left in plan.left_alone}


# -- who is contacted ----------------------------------------------------------------------------------------

A, B, C = "198.41.0.4", "199.9.14.201", "2001:503:ba3e::2:30"


def test_each_address_of_each_host_once() -> None:
    """A host that comes twice, as after a kill, counts once; two hosts at one address are two contacts."""
    plan = make([host("mx1.example.org", A, C), host("mx2.example.org", A), host("mx1.example.org", A, C)])
    assert pairs(plan) == {("mx1.example.org", A), ("mx1.example.org", C), ("mx2.example.org", A)}
    assert plan.hosts == 2
    assert {job.provider for job in plan.jobs} == {"example.org"}


def test_what_is_done_is_not_planned_again() -> None:
    """Pairs and policies of an earlier run are left out, and counted."""
    policies = [(name, {"addresses": [A], "provider": name}) for name in ("example.org", "example.net")]
    hosts = [host("mx1.example.org", A, B), host("mx2.example.org", A)]
    plan = make(hosts, policies, done={("mx1.example.org", A)}, fetched={"example.org"})
    assert pairs(plan) == {("mx1.example.org", B), ("mx2.example.org", A)}
    assert [job.payload.domain for job in plan.jobs if isinstance(job.payload, PolicyTarget)] == [
        "example.net"
    ]
    assert plan.done == 1


LEFT = [
    ("a private address", "10.0.0.1", {}, "address_refused"),
    ("loopback", "127.0.0.1", {}, "address_refused"),
    ("IPv4-mapped loopback", "::ffff:127.0.0.1", {}, "address_refused"),
    ("one's own private address", "10.0.0.1", {"allow_special": ("10.0.0.0/8",)}, None),
    ("another private one beside it", "192.168.0.1", {"allow_special": ("10.0.0.0/8",)}, "address_refused"),
    ("the host opted out", A, {"opt_out": ("mx1.example.org",)}, "opted_out"),
    ("the domain above it did", A, {"opt_out": ("example.org",)}, "opted_out"),
    ("a domain beside it did", A, {"opt_out": ("ample.org", "x.mx1.example.org")}, None),
    ("its network did", A, {"opt_out": ("198.41.0.0/24",)}, "opted_out"),
    ("its IPv6 network did", C, {"opt_out": ("2001:503::/32",)}, "opted_out"),
    ("one's own that opted out", "10.0.0.1", {"allow_special": ("10.0.0.1",), "opt_out": ("10.0.0.1",)}, "opted_out"),
    ("special goes before opted out", "10.0.0.1", {"opt_out": ("example.org",)}, "address_refused"),
    ("IPv4 is missing here", A, {"families": (False, True)}, "family_unavailable"),
    ("IPv6 is missing here", C, {"families": (True, False)}, "family_unavailable"),
    ("IPv6 is missing here, not there", C, {"families": (True, False), "proxy": "socks5://127.0.0.1"}, None),
    ("one's own need no route", "10.0.0.1", {"families": (False, False), "allow_special": ("10.0.0.1",)}, None),
    ("opted out goes before a missing family", C, {"families": (True, False), "opt_out": (C,)}, "opted_out"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "given_", "outcome"), [pytest.param(*case, id=why) for why, *case in LEFT]
)
def test_who_is_left_alone(address: str, given_: dict[str, Any], outcome: str | None) -> None:
    """Special addresses, those who opted out, and families that are missing are put on record and not contacted."""
    plan = make([host("mx1.example.org", address)], **given_)
    pair = ("mx1.example.org", address)
    assert left_alone(plan) == ({pair: outcome} if outcome else {})
    assert pairs(plan) == (set() if outcome else {pair})
    assert all(left.detail for left in plan.left_alone)


POLICY_HOSTS = [
    ("a usual one", {"addresses": [A]}, {}, (A,)),
    ("the first two addresses", {"addresses": [A, B, C]}, {}, (A, B)),
    ("those of a family that is there", {"addresses": [C, A]}, {"families": (True, False)}, (A,)),
    ("none of them is", {"addresses": [C]}, {"families": (True, False)}, "not_tested"),
    ("its network opted out", {"addresses": [A]}, {"opt_out": (A,)}, "not_tested"),
    ("one of two did", {"addresses": [A, B]}, {"opt_out": (A,)}, (B,)),
    ("it opted out by name", {"addresses": [A]}, {"opt_out": ("mta-sts.example.org",)}, "not_tested"),
    ("it has no address", {"state": "no_address", "detail": "none"}, {}, "no_address"),
    ("its lookup failed", {"state": "dns_failure", "detail": "SERVFAIL"}, {}, "dns_failure"),
    ("it is special", {"state": "address_refused", "detail": "loopback"}, {}, "address_refused"),
]


@pytest.mark.parametrize(
    ("found", "given_", "result"), [pytest.param(*case, id=why) for why, *case in POLICY_HOSTS]
)
def test_policy_hosts(found: dict[str, Any], given_: dict[str, Any], result: Any) -> None:
    """A policy host is asked once a domain, at two addresses at most; why it is not asked stays on record."""
    plan = make([], [("example.org", {"provider": "example.org", **found})], **given_)
    if isinstance(result, str):
        (left,) = plan.no_policy
        assert (left.domain, left.state) == ("example.org", result)
        assert left.detail
        assert not plan.jobs
    else:
        (job,) = plan.jobs
        assert job.payload == PolicyTarget("example.org", result)
        assert (job.address, job.provider) == (result[0], "example.org")


def test_the_name_asked_for_in_tls() -> None:
    """It is the TLSA base domain where its records are secure, else the MX host (RFC 7672 §8.1)."""
    rows = [
        host("mx1.example.org", A, tlsa_base="host.example.net", tlsa_dnssec="secure", tlsa_state="usable"),
        host(
            "mx2.example.org", A, tlsa_base="host.example.net", tlsa_dnssec="insecure", tlsa_state="insecure"
        ),
        host("mx3.example.org", A, tlsa_dnssec="secure"),
    ]
    assert {job.payload.mx_host: job.payload.sni for job in make(rows).jobs} == {
        "mx1.example.org": "host.example.net",
        "mx2.example.org": "mx2.example.org",
        "mx3.example.org": "mx3.example.org",
    }


def test_the_order_is_shuffled_by_the_seed() -> None:
    """No provider is asked in a row; the same seed gives the same order."""
    rows = [
        host(f"mx{number}.provider{number // 50}.example", f"198.41.{number // 50}.{number % 50}")
        for number in range(300)
    ]

    def order(seed: int) -> list[str]:
        return [job.payload.mx_host for job in make(rows, seed=seed).jobs]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2))
    providers = [name.split(".")[1] for name in order(1)]
    longest = max(sum(1 for _ in run) for _provider, run in itertools.groupby(providers))
    assert longest < 10


# -- a sample of those who share an address ------------------------------------------------------------------

SHARED = [
    host(f"mx.domain{number}.example", "198.41.0.4", provider=f"domain{number}.example")
    for number in range(40)
]


def test_a_sample_of_the_names_of_a_shared_address() -> None:
    """Of an address with more names than asked for, so many are probed; the others are `not_sampled`, with the reason."""
    others = [host("mx.one.example", A, B), host("mx.two.example", B)]
    plan = make([*SHARED, *others], sample_shared=5)
    at_shared = {name for name, address in pairs(plan) if address == A}
    assert len(at_shared) == 5
    assert {(name, address) for name, address in pairs(plan) if address == B} == {
        ("mx.one.example", B),
        ("mx.two.example", B),
    }
    assert set(left_alone(plan).values()) == {"not_sampled"}
    assert len(plan.left_alone) == 36
    assert plan.left_alone[0].detail == "one of 41 names of 198.41.0.4, not in the sample of 5"
    again = make([*reversed(SHARED), *others], sample_shared=5)
    assert pairs(again) == pairs(plan)
    assert pairs(make([*SHARED, *others], sample_shared=5, seed=9)) != pairs(plan)


@given(done=st.sets(st.integers(0, 39)), limit=st.integers(1, 45))
@settings(max_examples=100, deadline=None)
def test_a_resumed_scan_draws_the_same_sample(done: set[int], limit: int) -> None:
    """Whatever an earlier run put on record, probed or left out, the rest of the sample is the same."""
    whole = make(SHARED, sample_shared=limit)
    stored = {(SHARED[number]["mx_host"], A) for number in done}
    rest = make(SHARED, sample_shared=limit, done=stored)
    assert pairs(rest) == pairs(whole) - stored
    assert left_alone(rest).keys() == left_alone(whole).keys() - stored


def test_those_left_alone_are_no_part_of_a_sample() -> None:
    """Names that opted out do not take the places of others."""
    plan = make(SHARED, sample_shared=39, opt_out=("domain0.example",))
    assert len(pairs(plan)) == 39
    assert left_alone(plan) == {("mx.domain0.example", A): "opted_out"}


# -- what is said of it --------------------------------------------------------------------------------------


def summary(plan: Plan, **given: Any) -> dict[str, Any]:
    return expected(plan, options(**given))


def test_an_address_behind_very_many_names_is_told_of() -> None:
    """A hundred thousand names at one address take more than a day, and the plan says so and what would help."""
    plan = make([host(f"mx.{number}.example", A, provider=f"{number}.example") for number in range(100_000)])
    said = summary(plan)
    assert said["probes"] == 100_000
    assert said["slowest"]["kind"] == "address"
    assert said["expected_seconds"] == pytest.approx(
        300_000, rel=0.01
    )  # a session takes longer than the spacing
    text = plan_text(said, concurrency=50)
    assert "at least 3.5 days at these manners" in text
    assert (
        f"the slowest is the address {A}: 100,000 connections, 3.5 days; --sample-shared N takes a sample"
        in text
    )


LANES = [
    ("an address", [A] * 40, ["p0"] * 40, "address"),
    ("a network", [f"198.41.0.{n}" for n in range(40)], [f"p{n}" for n in range(40)], "prefix"),
    ("a provider", [f"198.41.{n}.1" for n in range(40)], ["p0"] * 40, "provider"),
]


@pytest.mark.parametrize(
    ("addresses", "providers", "kind"), [pytest.param(*case, id=why) for why, *case in LANES]
)
def test_the_slowest_lane(addresses: list[str], providers: list[str], kind: str) -> None:
    """The lane that takes longest is named: an address with many names, a network, or a provider."""
    rows = [
        host(f"mx{number}.example", address, provider=provider)
        for number, (address, provider) in enumerate(zip(addresses, providers, strict=True))
    ]
    manners = Manners(address_spacing=10, prefix_spacing=10, provider_spacing=10)
    slowest = summary(make(rows), manners=manners)["slowest"]
    assert slowest["kind"] == kind
    assert (slowest["connections"], slowest["seconds"]) == (40, 390)


def test_ones_own_addresses_are_not_paced_unless_the_manners_say_so() -> None:
    """The plan of a lab takes no time but that of the sessions."""
    rows = [host(f"mx{number}.example.org", f"10.0.0.{number}") for number in range(50)]
    plan = make(rows, allow_special=("10.0.0.0/8",))
    said = summary(plan, allow_special=("10.0.0.0/8",))
    assert (said["unpaced"], said["slowest"]) == (50, None)
    assert "not paced: all of them are your own addresses" in plan_text(said, concurrency=50)
    paced = summary(plan, manners=Manners(own_addresses=True))
    assert paced["unpaced"] == 0
    assert paced["expected_seconds"] >= 49


def test_the_text_of_a_plan() -> None:
    """Hosts, providers, contacts, those left alone, and the largest providers with their connections."""
    rows = [
        host(f"mx{number}.big.example", f"198.41.{number}.1", provider="big.example") for number in range(30)
    ]
    rows += [host("mx.small.example", "10.0.0.1", provider="small.example")]
    plan = make(
        rows,
        [("example.org", {"addresses": [B], "provider": "example.org"})],
        done={("mx0.big.example", "198.41.0.1")},
    )
    lines = plan_text(summary(plan), concurrency=50).splitlines()
    assert lines == [
        "Plan: 31 MX hosts at 2 providers; 29 addresses to probe and 1 policy to fetch, 50 at once",
        "  done already: 1 address",
        "  left alone: 1 address, address refused",
        "  at least 44 s at these manners",
        "  the slowest is the provider big.example: 29 connections, 44 s",
        "  big.example         29 connections",
        "  example.org          1 connection",
    ]


def test_an_empty_plan() -> None:
    """Nothing to do is a plan too."""
    said = summary(make([]))
    assert (said["probes"], said["policies"], said["expected_seconds"], said["slowest"]) == (0, 0, 0, None)
    assert plan_text(said, concurrency=50).startswith("Plan: 0 MX hosts")
