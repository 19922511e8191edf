"""How far connections get, what certificates are worth, and how TLSA errs by unit."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
import pytest

import rtls_analysis as rtls
from rtls_analysis.analysis.rates import ArtefactWarning
from rtls_analysis.analysis.servers import (
    STAGES,
    certificate_verdicts,
    errors_by_unit,
    is_weak_key,
    probe_funnel,
    tlsa_errors,
    tlsa_matches,
)
from rtls_analysis.outcomes import NOT_CONTACTED
from tests.analysis.made import made

AT = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)

ENDS = [  # session, the last stage it passes, why it goes no further
    ({"outcome": "opted_out", "stage": "connect", "starttls": "not_tested"}, "listed", "opted_out"),
    ({"outcome": "refused", "stage": "connect", "starttls": "unknown"}, "listed", "refused"),
    ({"outcome": "blocked", "stage": "greeting", "starttls": "unknown"}, "answered", "blocked"),
    ({"outcome": "closed_early", "stage": "ehlo", "starttls": "unknown"}, "greeted (220)", "closed_early"),
    ({"outcome": "completed", "stage": "quit", "starttls": "no"}, "EHLO accepted", "no_starttls"),
    ({"outcome": "greylisted", "stage": "starttls", "starttls": "unknown"}, "STARTTLS offered", "greylisted"),
    ({"outcome": "tls_failed", "stage": "handshake", "starttls": "failed"}, "STARTTLS offered", "tls_failed"),
    ({"outcome": "completed", "stage": "quit", "starttls": "yes", "pkix": "expired"}, "TLS handshake", "expired"),
    ({"outcome": "timeout", "stage": "ehlo_tls", "starttls": "yes", "pkix": "valid"}, "certificate valid", ""),
]  # fmt: skip


@pytest.mark.parametrize(("session", "passed", "reason"), ENDS)
def test_where_a_session_ends(session: dict[str, Any], passed: str, reason: str) -> None:
    """Each session is lost at the stage after the last one it passed, for its own reason."""
    table = probe_funnel(
        made(sessions=[{"mx_host": "mx.example", "address": "192.0.2.1", **session}]), unit="address"
    )
    reached = [row["stage"] for _, row in table.iterrows() if row["remaining"]]
    assert reached == list(STAGES["address"])[: len(reached)]
    assert reached[-1] == passed
    assert table.attrs["reasons"] == ([reason] if reason else [])
    lost = table.set_index("stage")["lost"]
    assert lost.sum() == bool(reason)


def test_a_limit_is_lost_but_no_conclusion() -> None:
    """What a server says of us is not in the denominator: of two that answered one could be told, and greeted."""
    sessions = [
        {
            "mx_host": "a",
            "address": "192.0.2.1",
            "outcome": "blocked",
            "stage": "greeting",
            "starttls": "unknown",
        },
        {"mx_host": "b", "address": "192.0.2.2", "outcome": "completed", "stage": "quit", "starttls": "no"},
    ]
    row = probe_funnel(made(sessions=sessions), unit="address").set_index("stage").loc["greeted (220)"]
    assert (row["remaining"], row["lost"], row["tested"], row["passed"]) == (1, 1, 1, 1.0)


def test_the_funnel_of_a_scan(scanned: rtls.Snapshot) -> None:
    """Domains and addresses add up, from the name to the certificate."""
    domains = probe_funnel(scanned)
    remaining = domains.set_index("stage")["remaining"]
    assert remaining["listed"] == len(scanned.domains)
    assert remaining["MX found"] == scanned.domains["mx_hosts"].gt(0).sum()
    assert remaining["TLS handshake"] == scanned.domains["starttls"].isin(["all", "some"]).sum()
    assert remaining["certificate valid"] == scanned.domains["pkix"].isin(["all", "some"]).sum()
    addresses = probe_funnel(scanned, unit="address")
    remaining = addresses.set_index("stage")["remaining"]
    assert remaining["listed"] == len(scanned.sessions)
    assert remaining["TLS handshake"] == scanned.sessions["starttls"].eq("yes").sum()
    assert remaining["certificate valid"] == scanned.sessions["pkix"].eq("valid").sum()
    for table in (domains, addresses):
        reasons = table.attrs["reasons"]
        assert (table["lost"] == table[reasons].sum(axis=1)).all()
        assert table["remaining"].is_monotonic_decreasing
    not_contacted = scanned.sessions["outcome"].isin([str(word) for word in NOT_CONTACTED]).sum()
    assert addresses.set_index("stage").loc["answered", "tested"] == len(scanned.sessions) - not_contacted


@pytest.mark.parametrize("turned", [False, True])
def test_a_domain_gets_as_far_as_its_best_address(turned: bool) -> None:
    """One that we left out counts where no other is left, whatever the order."""
    sessions = [
        {"mx_host": "mx.example", "address": "192.0.2.1", "outcome": "opted_out", "stage": "connect", "starttls": "not_tested"},
        {"mx_host": "mx.example", "address": "192.0.2.2", "outcome": "refused", "stage": "connect", "starttls": "unknown"},
    ]  # fmt: skip
    world = made(
        [
            {"domain": "a.example", "mx_state": "mx"},
            {"domain": "b.example", "mx_state": "mx"},
            {"domain": "c.example"},
        ],
        mx=[
            {"domain": "a.example", "mx_host": "mx.example", "mx_state": "mx", "preference": 10},
            {"domain": "b.example", "mx_host": "gone.example", "mx_state": "mx_no_address", "preference": 10},
        ],
        sessions=sessions[::-1] if turned else sessions,
    )
    table = probe_funnel(world).set_index("stage")
    assert table.loc["answered", "refused"] == 1
    assert "opted_out" not in table.columns
    assert table.loc["address found", "mx_no_address"] == 1
    assert table.loc["MX found", ["not_tested", "tested"]].tolist() == [1, 2]


def test_nine_of_ten_failing_at_ehlo_is_our_own_fault() -> None:
    """The known artefact: hosts that admit us and then refuse EHLO are a finding about the scanner."""
    sessions = [
        {
            "mx_host": f"mx{n}.example",
            "address": f"192.0.2.{n}",
            "outcome": "blocked" if n else "completed",
            "stage": "ehlo" if n else "quit",
            "starttls": "unknown" if n else "no",
        }
        for n in range(10)
    ]
    with pytest.warns(ArtefactWarning, match="9 of 10 that answered fail at the greeting or at EHLO"):
        probe_funnel(made(sessions=sessions), unit="address")


KEYS = [
    ("RSA-512", True),
    ("RSA-1024", True),
    ("RSA-2047", True),
    ("RSA-2048", False),
    ("RSA-16384", False),
    ("EC-P-192", True),
    ("EC-secp192r1", True),
    ("EC-P-224", False),
    ("EC-P-256", False),
    ("EC-brainpoolP160r1", True),
    ("DSA-2048", True),
    ("Ed25519", False),
    ("", False),
]


@pytest.mark.parametrize(("key", "is_weak"), KEYS)
def test_weak_keys(key: str, is_weak: bool) -> None:
    """Below 112 bits of strength, whatever the algorithm."""
    assert is_weak_key(key) is is_weak


def _certified() -> rtls.Snapshot:
    """A domain with two addresses: one expired, for another name and with a weak key, the other good."""
    common = {"mx_host": "mx.example", "started_at": AT, "starttls": "yes", "outcome": "completed"}
    leaf = {"subject": "CN=a", "issuer": "CN=ca", "not_before": AT - dt.timedelta(days=90)}
    return made(
        [{"domain": "a.example", "mx_state": "mx"}],
        mx=[{"domain": "a.example", "preference": 10, "mx_host": "mx.example", "mx_state": "mx"}],
        sessions=[
            {
                **common,
                "address": "192.0.2.1",
                "pkix": "expired",
                "name_match": False,
                "certificate_key": "RSA-1024",
                "certificate_not_after": AT - dt.timedelta(days=1),
                "chain_sha256": ["old"],
            },
            {
                **common,
                "address": "192.0.2.2",
                "pkix": "valid",
                "name_match": True,
                "certificate_key": "EC-P-256",
                "certificate_not_after": AT + dt.timedelta(days=1),
                "chain_sha256": ["new"],
            },
            {**common, "address": "192.0.2.3", "starttls": "no", "pkix": "not_tested"},
        ],
        certificates=[
            {**leaf, "sha256": "new", "der": b""},
            {**leaf, "sha256": "old", "der": b"", "issuer": "CN=a"},
        ],
    )


def test_verdicts_on_certificates() -> None:
    """Counted once by the first that holds, and by every fault of the leaf; the denominator is those with TLS."""
    table = certificate_verdicts(_certified())
    assert table["trials"].unique().tolist() == [2]
    first, every = table.loc["first"]["numerator"], table.loc["all"]["numerator"]
    assert first[first > 0].to_dict() == {"expired": 1, "valid": 1}
    assert every[every > 0].to_dict() == {
        "expired": 1,
        "self_signed": 1,
        "name_mismatch": 1,
        "weak_key": 1,
    }


@pytest.mark.parametrize("unit", ["host", "domain"])
def test_a_unit_of_several_addresses_counts_once(unit: str) -> None:
    """By its best verdict; a fault of any address is a fault that it has."""
    table = certificate_verdicts(_certified(), unit=unit)
    assert table["trials"].unique().tolist() == [1]
    assert table.loc[("first", "valid"), "numerator"] == 1
    assert table.loc[("all", "expired"), "numerator"] == 1


def test_verdicts_of_a_scan(scanned: rtls.Snapshot) -> None:
    """The first verdicts are the sessions' own words; each fault is at least as frequent among all."""
    table = certificate_verdicts(scanned)
    words = scanned.sessions["pkix"].value_counts()
    first, every = table.loc["first"]["numerator"], table.loc["all"]["numerator"]
    assert first.to_dict() == {word: words[word] for word in first.index}
    assert all(every[word] >= first[word] for word in every.index if word in first.index)


def test_errors_of_tlsa_by_unit() -> None:
    """The published example: bad records 5 of 10, sets 2 of 6, domains 11 of 1,612."""
    sets = [("10", 1000), ("10", 500), ("1", 100), ("0", 10), ("11", 1), ("00", 1)]
    matches, served = [], []
    for number, (flags, domains) in enumerate(sets):
        host = f"mx{number}.example"
        matches += [(host, f"3 1 1 {place:02x}", host, flag == "1") for place, flag in enumerate(flags)]
        served += [(f"{number}-{domain}.example", host) for domain in range(domains)]
    table = errors_by_unit(
        pd.DataFrame(matches, columns=["tlsa_base", "tlsa", "mx_host", "matches"]),
        pd.DataFrame(served, columns=["domain", "mx_host"]),
    )
    found = {name: (row["numerator"], row["trials"]) for name, row in table.iterrows()}
    assert found == {"record": (5, 10), "RRset": (2, 6), "host": (2, 6), "domain": (11, 1612)}
    assert list(table["unit"]) == ["TLSA record", "TLSA RRset", "MX host", "domain"]


def test_a_domain_of_two_hosts_errs_by_rule() -> None:
    """Any host that passes is enough to deliver; under `all` one that fails is an error."""
    matches = pd.DataFrame(
        [("a", "3 1 1 00", "a", True), ("b", "3 1 1 01", "b", False)],
        columns=["tlsa_base", "tlsa", "mx_host", "matches"],
    )
    served = pd.DataFrame([("d.example", "a"), ("d.example", "b")], columns=["domain", "mx_host"])
    assert errors_by_unit(matches, served).loc["domain", "numerator"] == 0
    assert errors_by_unit(matches, served, rule="all").loc["domain", "numerator"] == 1


def test_tlsa_of_a_scan(scanned: rtls.Snapshot) -> None:
    """A host errs where its session says mismatch: records judged one by one come to the same."""
    matches = tlsa_matches(scanned)
    by_host = matches.groupby("mx_host")["matches"].any()
    dane = scanned.sessions.groupby("mx_host")["dane"].agg(lambda said: set(said.astype(str)))
    assert len(by_host) > 20
    for host, passes in by_host.items():
        assert passes == ("mismatch" not in dane[host]), host
    table = tlsa_errors(scanned)
    assert table.loc["record", "trials"] == len(matches[["tlsa_base", "tlsa"]].drop_duplicates())
    assert 0 < table.loc["host", "numerator"] < table.loc["host", "trials"]


def test_nobody() -> None:
    """An empty snapshot has its tables, all counts zero."""
    assert probe_funnel(made())["remaining"].sum() == 0
    assert certificate_verdicts(made())["trials"].sum() == 0
    assert tlsa_errors(made())["trials"].sum() == 0
    with pytest.raises(ValueError, match="unit is 'planet'"):
        probe_funnel(made(), unit="planet")
    with pytest.raises(ValueError, match="unit is 'planet'"):
        certificate_verdicts(made(), unit="planet")
