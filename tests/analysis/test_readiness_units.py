"""Units, rules, groups and readings of readiness, on worlds small enough to count by hand."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd
import pytest

import rtls_analysis as rtls
from rtls_analysis.analysis.rates import ArtefactWarning
from rtls_analysis.analysis.readiness import READINGS, Stage, loss_reasons, readiness_funnel, readings
from rtls_analysis.outcomes import Obstacle
from rtls_analysis.schema import DOMAINS, to_frame
from rtls_analysis.store import Snapshot
from tests.analysis.made import made


def _world() -> Snapshot:
    """Two providers: one serves two domains from two hosts, one of them ready; the other is silent."""
    domains = [
        {
            "domain": "a.example",
            "mx_state": "mx",
            "mx_dnssec": "secure",
            "rank": 5,
            "provider": "two.example",
        },
        {
            "domain": "b.test",
            "mx_state": "mx",
            "mx_dnssec": "insecure",
            "rank": 5_000,
            "provider": "two.example",
        },
        {
            "domain": "c.test",
            "mx_state": "mx",
            "mx_dnssec": "secure",
            "rank": 9_000,
            "provider": "one.example",
        },
        {"domain": "d.test", "mx_state": "null_mx", "mx_dnssec": "secure"},
    ]
    for row in domains:
        row |= {"sts_record": "absent", "sts_policy": "no_record"}
    hosts = [
        {
            "mx_host": name,
            "mx_state": "mx",
            "tlsa_state": "none",
            "addresses_dnssec": "insecure",
            "provider": provider,
        }
        for name, provider in (
            ("mx1.two.example", "two.example"),
            ("mx2.two.example", "two.example"),
            ("mx.one.example", "one.example"),
            ("gone.one.example", "one.example"),
        )
    ]
    mx = [
        {
            "domain": domain,
            "preference": 10 * number,
            "mx_host": host,
            "mx_state": "mx",
            "provider": host.split(".", 1)[1],
        }
        for domain in ("a.example", "b.test")
        for number, host in enumerate(("mx1.two.example", "mx2.two.example"), 1)
    ]
    mx.append(
        {
            "domain": "c.test",
            "preference": 0,
            "mx_host": "mx.one.example",
            "mx_state": "mx",
            "provider": "one.example",
        }
    )
    at = pd.Timestamp("2026-11-25", tz="UTC").to_pydatetime()
    whole: dict[str, Any] = {
        "started_at": at, "outcome": "completed", "stage": "quit", "starttls": "yes", "tls_version": "TLSv1.3",
        "pkix": "valid", "name_match": True, "dns_id_match": True, "dane": "none", "requiretls_tls": "yes",
    }  # fmt: skip
    silent = {
        "started_at": at,
        "outcome": "timeout",
        "stage": "connect",
        "starttls": "unknown",
        "requiretls_tls": "not_tested",
        "pkix": "not_tested",
        "dane": "not_tested",
    }
    sessions = [
        {**whole, "mx_host": "mx1.two.example", "address": "192.0.2.1", "requiretls_tls": "no"},
        {**whole, "mx_host": "mx2.two.example", "address": "192.0.2.2"},
        {**silent, "mx_host": "mx.one.example", "address": "192.0.2.3"},
    ]
    return made(domains, mx=mx, hosts=hosts, sessions=sessions)


def _remaining(table: pd.DataFrame) -> dict[str, int]:
    return dict(zip(table["stage"], table["remaining"], strict=True))


READY = [  # unit, rule, listed, ready
    ("domain", "any", 4, 1),
    ("domain", "all", 4, 0),
    ("domain", "best_preference", 4, 0),
    ("address", "any", 3, 1),
    ("address", "all", 3, 0),
    ("host", "any", 3, 1),
    ("provider", "any", 2, 1),
    ("provider", "all", 2, 0),
    ("hop", "any", 6, 1),
]


@pytest.mark.parametrize(("unit", "rule", "listed", "ready"), READY)
@pytest.mark.parametrize("order", ["transport", "decision"])
def test_units_and_rules(unit: str, rule: str, listed: int, ready: int, order: str) -> None:
    """a.example is ready at its second host; b.test shares the hosts, but its MX is not signed."""
    table = readiness_funnel(_world(), unit=unit, rule=rule, order=order)
    assert _remaining(table)[Stage.LISTED] == listed
    assert _remaining(table)[Stage.REQUIRETLS] == ready
    assert (table["lost"].sum(), table["remaining"].iloc[-1]) == (listed - ready, ready)


def test_what_stops_whom_in_which_order() -> None:
    """b.test is stopped by its name, c.test could not be told, d.test takes no mail."""
    world = _world()
    transport = readiness_funnel(world).set_index("stage")
    assert transport.loc[Stage.MX, "no_mx"] == 1
    assert transport.loc[Stage.ANSWERED, "unreachable"] == 1
    assert transport.loc[Stage.HANDSHAKE, "remaining"] == 2
    assert transport.loc[Stage.MX_AUTHENTICATED, "mx_unauthenticated"] == 1
    assert transport.loc[Stage.ANSWERED, ["tested", "passed"]].tolist() == [2, 1.0]
    decision = list(readiness_funnel(world, order="decision")["stage"])
    assert decision.index(Stage.MX_AUTHENTICATED) < decision.index(Stage.STARTTLS)


def test_groups() -> None:
    """A funnel for each band, top-level domain or list; a unit counts in each group that it serves."""
    world = _world()
    by_rank = readiness_funnel(world, by="rank_band")
    listed = by_rank[by_rank["stage"] == Stage.LISTED].set_index("rank_band")["remaining"]
    assert listed.to_dict() == {"1-1,000": 1, "1,001-10,000": 2, "no rank": 1}
    by_tld = readiness_funnel(world, unit="host", by="tld")
    listed = by_tld[by_tld["stage"] == Stage.LISTED].set_index("tld")["remaining"]
    assert listed.to_dict() == {"example": 2, "test": 3}
    lists = readiness_funnel(world, populations={"mine": ["a.example", "c.test"], "theirs": ["a.example"]})
    listed = lists[lists["stage"] == Stage.LISTED].set_index("population")["remaining"]
    assert listed.to_dict() == {"mine": 2, "theirs": 1, "(none)": 2}
    of_providers = readiness_funnel(world, unit="provider", by="provider")
    assert of_providers["provider_of_domain"].unique().tolist() == ["one.example", "two.example"]


def test_left_out_is_neither_unknown_nor_no() -> None:
    """What was left out by our choice has a reason of its own, and is in no denominator."""
    frames = {
        name: _world().table(name)
        for name in ("domains", "mx", "hosts", "sessions", "certificates", "attempts")
    }
    sessions = frames["sessions"].copy()
    sessions.loc[sessions["mx_host"] == "mx.one.example", "outcome"] = "opted_out"
    sessions.loc[sessions["mx_host"] == "mx.one.example", "starttls"] = "not_tested"
    asked_nothing = to_frame(DOMAINS, [{"domain": "e.test", "starttls": "not_tested"}])
    domains = pd.concat([frames["domains"], asked_nothing], ignore_index=True)
    world = Snapshot(None, {"rules": {}}, b"", {**frames, "sessions": sessions, "domains": domains})
    table = readiness_funnel(world).set_index("stage")
    assert table.loc[Stage.MX, "not_tested"] == 1  # nobody asked for it
    assert table.loc[Stage.ANSWERED, "not_tested"] == 1
    assert "unknown" not in table.columns
    assert table.loc[Stage.MX, "tested"] == 4
    reasons = loss_reasons(world)
    assert reasons["trials"].unique().tolist() == [2]


def test_reasons_once_and_all(scanned: rtls.Snapshot) -> None:
    """Counted first they are the domains' `obstacle`, counted all their `obstacles`."""
    table = loss_reasons(scanned)
    domains = scanned.domains[scanned.domains["obstacle"].ne(Obstacle.NO_MX)]
    domains = domains[domains["requiretls_ready"].ne("not_tested")]
    first, every = table.loc["first"], table.loc["all"]
    assert first["numerator"].to_dict() == {
        word: count for word, count in domains["obstacle"].value_counts().items() if count
    }
    assert first["numerator"].sum() == first["trials"].iloc[0] == len(domains)
    assert every["numerator"].to_dict() == domains["obstacles"].explode().dropna().value_counts().to_dict()
    assert (every["numerator"] >= first["numerator"].reindex(every.index).fillna(0)).all()
    by_unit = loss_reasons(scanned, unit="address")
    assert by_unit["unit"].unique().tolist() == ["address"]
    grouped = loss_reasons(scanned, by="tld")
    assert grouped.index.names == ["tld", "counted", "obstacle"]
    assert grouped.loc["test"]["numerator"].equals(table["numerator"])


def test_readings_agree_with_judging_again(scanned: rtls.Snapshot) -> None:
    """Each row is what `rtls.judge` says under that reading; another cn_id goes back to the certificates."""
    chosen = {
        **{name: READINGS[name] for name in ("as scanned", "all of them lenient", "names literally")},
        "no CN": {"cn_id": False},
    }
    table = readings(scanned, chosen)
    assert list(table.index) == list(chosen)
    for name, parameters in chosen.items():
        words = rtls.judge(scanned, **parameters).domains["requiretls_ready"].value_counts()
        assert [table.loc[name, word] for word in ("all", "some", "none", "unknown")] == [
            words[word] for word in ("all", "some", "none", "unknown")
        ], name
    strict = readings(scanned, chosen, yes="all")
    assert (strict["numerator"] == table["all"]).all()
    grouped = readings(scanned, {"as scanned": {}}, by="provider")
    assert grouped.index.names == ["reading", "provider"]
    assert grouped["trials"].sum() == table["trials"].iloc[0]


def test_an_untrusted_resolver_is_said() -> None:
    """Where DNSSEC was not tested the transport's stages still tell, and a warning says that the others do not."""
    world = _world()
    domains = world.domains.assign(
        mx_dnssec=pd.Categorical(["not_tested"] * 4, dtype=world.domains["mx_dnssec"].dtype)
    )
    frames = {name: world.table(name) for name in ("mx", "hosts", "sessions", "certificates", "attempts")}
    frames["hosts"] = frames["hosts"].assign(
        tlsa_state=pd.Categorical(["not_tested"] * 4, dtype=frames["hosts"]["tlsa_state"].dtype)
    )
    untrusted = Snapshot(None, {"rules": {}}, b"", {**frames, "domains": domains})
    with pytest.warns(ArtefactWarning, match="DNSSEC was not tested, the resolver is not trusted"):
        table = readiness_funnel(untrusted).set_index("stage")
    assert table.loc[Stage.HANDSHAKE, "remaining"] == 2
    assert table.loc[Stage.MX_AUTHENTICATED, "unknown"] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        readiness_funnel(world)
