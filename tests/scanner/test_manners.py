"""The manners over a whole scan: what the record of connections says, held against each limit from outside."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

import rtls_analysis as rtls
from rtls_analysis.lab import Lab
from rtls_analysis.scanner import lookups
from rtls_analysis.scanner.politeness import prefix_of
from rtls_analysis.schema import ATTEMPTS, rows_of
from tests.lab.truth import disagreements, rows_by_key
from tests.scanner.relays import SocksProxy

MANNERS = {
    "own_addresses": True,
    "address_at_once": 1,
    "address_spacing": 0.3,
    "provider_at_once": 1,
    "provider_spacing": 0.2,
    "prefix_at_once": 3,
    "prefix_spacing": 0.03,
    "pause": 0.4,
    "longest_pause": 0.6,
    "retries": 2,
}
PUSHING_BACK = ("busy.test", "greylist.test", "blocked.test", "ehlo-busy.test", "ehlo-refused.test")

Row = dict[str, Any]


@pytest.fixture(scope="module")
def domains(lab: Lab) -> list[str]:
    """Domains that share hosts, addresses of one network and policy hosts; and servers that push back."""
    return [*lab.domains[:21], *PUSHING_BACK]


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two"])
def paced(request: pytest.FixtureRequest, lab: Lab, domains: list[str]) -> rtls.Snapshot:
    given = {**lab.scan_options, "concurrency": 4, "manners": MANNERS}
    return rtls.scan(domains, workers=request.param, progress=False, **given)


def record(snapshot: rtls.Snapshot) -> list[Row]:
    """The connections in the order in which they began, times in seconds."""
    rows = rows_of(ATTEMPTS, snapshot.attempts)
    for row in rows:
        row["begin"], row["end"] = row["started_at"].timestamp(), row["ended_at"].timestamp()
    return sorted(rows, key=lambda row: row["begin"])


def grouped(rows: list[Row], name_of: Callable[[Row], str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[name_of(row)].append(row)
    return groups


def most_at_once(rows: list[Row]) -> int:
    """How many were open when one of them had just begun."""
    return max(sum(other["begin"] <= row["begin"] < other["end"] for other in rows) for row in rows)


KINDS: dict[str, Callable[[Row], str]] = {
    "address": lambda row: str(row["address"]),
    "provider": lambda row: str(row["provider"]),
    "prefix": lambda row: prefix_of(row["address"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_limit_is_broken(paced: rtls.Snapshot, kind: str) -> None:
    """Per address, provider and network: so many at once, so far apart, policy hosts among them."""
    rows = record(paced)
    assert {row["purpose"] for row in rows} == {"probe", "policy"}
    groups = grouped(rows, KINDS[kind])
    assert max(map(len, groups.values())) > 1
    for name, group in groups.items():
        gaps = [later["begin"] - earlier["begin"] for earlier, later in itertools.pairwise(group)]
        assert min(gaps, default=1) >= MANNERS[f"{kind}_spacing"], name
        assert most_at_once(group) <= MANNERS[f"{kind}_at_once"], name


def test_the_whole_run_is_bounded(paced: rtls.Snapshot) -> None:
    """No more connections at once than `concurrency`, over all processes."""
    assert most_at_once(record(paced)) <= 4


def test_what_is_found_is_the_truth_all_the_same(lab: Lab, domains: list[str], paced: rtls.Snapshot) -> None:
    """Manners cost time and nothing else; the audit finds no breach."""
    assert disagreements(lab, paced, domains) == []
    assert rtls.audit(paced).empty


def test_who_pushes_back_is_visited_later(paced: rtls.Snapshot) -> None:
    """421, 450 and 554 give a pause, and a longer one; at most two more visits, each on record."""
    sessions = rows_by_key(paced, "sessions")
    groups = grouped(record(paced), KINDS["provider"])
    for domain in PUSHING_BACK:
        visits = groups[domain]
        assert len(visits) == 3
        first, second = (later["begin"] - earlier["end"] for earlier, later in itertools.pairwise(visits))
        assert first >= MANNERS["pause"]
        assert second >= MANNERS["longest_pause"]
        key = visits[0]["mx_host"], visits[0]["address"]
        assert sessions[key]["attempts"] == 3
        assert {row["outcome"] for row in visits} == {sessions[key]["outcome"]}


def test_connections_are_pairs_and_recorded_retries(paced: rtls.Snapshot) -> None:
    """Nothing more: each pair as often as its session says."""
    probes = [row for row in record(paced) if row["purpose"] == "probe"]
    made = {
        key: len(rows) for key, rows in grouped(probes, lambda r: f"{r['mx_host']} {r['address']}").items()
    }
    said = {
        f"{host} {address}": row["attempts"]
        for (host, address), row in rows_by_key(paced, "sessions").items()
    }
    assert made == {key: count for key, count in said.items() if count}


def test_the_others_go_on_while_one_is_paused(paced: rtls.Snapshot) -> None:
    """A pause is a provider's alone."""
    rows = record(paced)
    for domain in PUSHING_BACK:
        first, second, _third = (row for row in rows if row["provider"] == domain)
        meanwhile = [row for row in rows if first["end"] < row["begin"] < second["begin"]]
        if first["begin"] < rows[len(rows) // 2]["begin"]:
            assert meanwhile
            assert {row["provider"] for row in meanwhile} - {domain}


def test_a_provider_that_refuses_too_much_is_left_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the error window its other servers are not contacted: they are `not_sampled`, and no domain a no for it."""
    refusing = [
        "busy.test",
        "greylist.test",
        "blocked.test",
        "ehlo-refused.test",
        "ehlo-busy.test",
        "ehlo-greylist.test",
    ]
    domains = [*refusing, *lab.domains[20:50]]
    monkeypatch.setattr(lookups, "provider_of", lambda name: "large.example")
    manners = {
        "own_addresses": True,
        "pause": 0.01,
        "longest_pause": 0.01,
        "retries": 0,
        "error_minimum": 10,
        "error_share": 0.05,
        **{f"{kind}_spacing": 0 for kind in KINDS},
        "address_at_once": 9,
    }
    given = {**lab.scan_options, "concurrency": 1, "manners": manners, "workers": 1}
    snapshot = rtls.scan([name for name in domains if name != "silent.test"], progress=False, **given)
    sessions = snapshot.sessions
    left = sessions[sessions["outcome"] == "not_sampled"]
    assert 0 < len(left) < len(sessions)
    assert set(left["attempts"]) == {0}
    assert set(left["detail"]) == {"left alone: large.example pushed back too often"}
    assert set(left["starttls"]) == {"not_tested"}
    refused = record(snapshot)
    ended = [row["outcome"] in ("rate_limited", "greylisted", "blocked") for row in refused]
    assert sum(ended) > 0.05 * len(ended)
    assert len(ended) >= 10
    assert sum(ended[:-1]) <= 0.05 * len(ended[:-1]) or len(ended) == 10  # it stopped at once
    alone = set(left["mx_host"])
    of_them = snapshot.mx[snapshot.mx["mx_host"].isin(alone)]["domain"]
    shares = snapshot.domains[snapshot.domains["domain"].isin(of_them)]["starttls"]
    assert "none" not in set(shares)
    assert "not_tested" in set(shares)


def test_a_sample_of_those_that_share_an_address(lab: Lab) -> None:
    """``sample_shared`` probes so many of the names of an address; the others are `not_sampled`, never guessed."""
    shared = lab.truth["sessions"].groupby("address")["mx_host"].agg(list)
    address = shared.map(len).idxmax()
    names = set(shared[address])
    assert len(names) > 2
    mx = lab.truth["mx"]
    domains = list(mx[mx["mx_host"].isin(names)]["domain"].unique())[:40]
    snapshot = rtls.scan(domains, sample_shared=1, progress=False, **lab.scan_options)
    there = snapshot.sessions[snapshot.sessions["address"] == address]
    assert len(there) > 2
    assert sorted(there["outcome"] == "not_sampled") == [False] + [True] * (len(there) - 1)
    left = there[there["outcome"] == "not_sampled"]
    assert left["detail"].str.match(rf"one of \d+ names of {address}, not in the sample of 1").all()
    assert set(left["requiretls_tls"]) == {"not_tested"}
    made = snapshot.attempts[snapshot.attempts["address"] == address]
    assert len(made) == 1
    again = rtls.scan(domains, sample_shared=1, progress=False, **lab.scan_options)
    assert rows_by_key(again, "domains").keys() == rows_by_key(snapshot, "domains").keys()
    assert {key: row["outcome"] for key, row in rows_by_key(again, "sessions").items()} == {
        key: row["outcome"] for key, row in rows_by_key(snapshot, "sessions").items()
    }


def test_who_asked_to_be_left_alone(lab: Lab) -> None:
    """By domain, by MX host, and by network: none is contacted, each is on record as that."""
    hosts = lab.truth["sessions"].set_index("mx_host")["address"]
    opt_out = [
        "valid.test",
        "MX1.bigmail.test.",
        f"{hosts['mx1.requiretls.test']}/32",
        "mta-sts.sts-enforce.test",
    ]
    domains = ["valid.test", "hosted-big.test", "requiretls.test", "sts-enforce.test", "signed.test"]
    given = {**lab.scan_options, "opt_out": opt_out, "progress": False}
    snapshot = rtls.scan(domains, **given)
    contacted = {row["mx_host"] or f"mta-sts.{row['domain']}" for row in record(snapshot)}
    assert contacted == {
        "mx2.bigmail.test",
        "mx3.bigmail.test",
        "mx1.sts-enforce.test",
        "mx1.signed-mail.test",
    }
    sessions = snapshot.sessions.set_index("mx_host")["outcome"]
    assert sessions["mx1.bigmail.test"] == sessions["mx1.requiretls.test"] == "opted_out"
    assert "mx1.valid.test" not in sessions.index
    rows = rows_by_key(snapshot, "domains")
    assert rows["valid.test",]["starttls"] == rows["requiretls.test",]["starttls"] == "not_tested"
    assert rows["valid.test",]["detail"] == "opted out, not looked up"
    assert rows["hosted-big.test",]["starttls"] == "all"  # the others of its hosts decide
    assert (rows["sts-enforce.test",]["sts_policy"], rows["sts-enforce.test",]["sts_mode"]) == (
        "not_tested",
        None,
    )


def test_a_plan_contacts_nobody(lab: Lab, domains: list[str]) -> None:
    """``plan_only`` looks everything up and stores the plan: how many, at whom, how long."""
    with SocksProxy() as proxy:
        given = {**lab.scan_options, "manners": MANNERS, "proxy": proxy.url}
        snapshot = rtls.scan(domains, plan_only=True, progress=False, **given)
        assert not proxy.connections
    assert snapshot.attempts.empty
    assert snapshot.manifest["state"] == "planned"
    assert len(snapshot.hosts) > 20
    plan = snapshot.manifest["plan"]
    hosts = rows_by_key(snapshot, "hosts")
    assert plan["hosts"] == len(hosts)
    assert plan["probes"] == sum(len(row["addresses"]) for row in hosts.values())
    truth = lab.truth["domains"]
    with_policy = truth["domain"].isin(domains) & (truth["sts_record"] == "valid")
    assert plan["policies"] == with_policy.sum() > 0
    assert plan["unpaced"] == 0
    assert plan["slowest"]["kind"] == "prefix"
    assert plan["slowest"]["name"] == "127.64.0.0/24"
    assert plan["expected_seconds"] >= plan["slowest"]["connections"] * MANNERS["prefix_spacing"] - 1
