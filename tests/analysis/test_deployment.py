"""Who has what, by group and by unit: the same features as the columns of a scan, counted the same way everywhere."""

from __future__ import annotations

import pandas as pd
import pytest

import rtls_analysis as rtls
from rtls_analysis.analysis.deployment import (
    FEATURES,
    deployment,
    feature_table,
    mechanism_pairs,
    mechanisms,
    shares,
    unit_rates,
)
from rtls_analysis.analysis.rates import RATE_COLUMNS, rates
from tests.analysis.made import made
from tests.analysis.made import shares as share_words


def test_features_are_the_columns_of_a_scan(scanned: rtls.Snapshot) -> None:
    """Each feature has its numerator, denominator, unit, interval and bounds, as `rates` gives them for its column."""
    table = deployment(scanned)
    assert list(table.index) == list(FEATURES)
    assert list(table.columns) == list(RATE_COLUMNS)
    for name in ("starttls", "pkix", "dane", "tlsrpt", "requiretls_offered", "requiretls_ready"):
        expected = rates(scanned.domains, of=name).iloc[0]
        assert table.loc[name].drop("unit").tolist() == expected.drop("unit").tolist(), name
    domains = scanned.domains
    enforced = domains["sts_mode"].eq("enforce") & domains["sts_policy"].eq("valid")
    assert table.loc["mta_sts_enforce", "numerator"] == enforced.sum()
    assert table.loc["mta_sts_enforce", "denominator"] == table.loc["mta_sts", "denominator"]
    assert table.loc["mta_sts", "numerator"] == domains["sts_policy"].eq("valid").sum()


def test_by_group_everybody_is_somewhere(scanned: rtls.Snapshot) -> None:
    """Groups of any kind add up to the whole."""
    whole = deployment(scanned, of=["starttls"]).iloc[0]
    for by in ("provider", "tld", "rank_band", "mx_state"):
        parts = deployment(scanned, of=["starttls"], by=by)
        assert parts.index.names == ["feature", by]
        for name in ("numerator", "trials", "unknown", "not_tested", "not_applicable"):
            assert parts[name].sum() == whole[name], (by, name)


def test_populations(scanned: rtls.Snapshot) -> None:
    """A named list counts its domains, those of two lists in both."""
    first, second = list(scanned.domains["domain"][:40]), list(scanned.domains["domain"][20:60])
    table = deployment(scanned, of=["starttls"], populations={"first": first, "second": second})
    counted = table[["trials", "unknown", "not_tested", "not_applicable"]].sum(axis=1)
    assert counted.droplevel("feature").to_dict() == {
        "first": 40,
        "second": 40,
        "(none)": len(scanned.domains) - 60,
    }


def test_among_those_with_tls(scanned: rtls.Snapshot) -> None:
    """The share of valid certificates among those with TLS is another one than among all."""
    among = deployment(scanned, of=["pkix"], among="starttls").loc["pkix"]
    overall = deployment(scanned, of=["pkix"]).loc["pkix"]
    domains = scanned.domains
    with_tls = domains[domains["starttls"].isin(["all", "some"])]
    assert among["trials"] == len(with_tls)
    assert among["numerator"] == with_tls["pkix"].isin(["all", "some"]).sum()
    assert among["rate"] > overall["rate"]


UNITS = [("address", ["mx_host", "address"]), ("host", ["mx_host"]), ("provider", ["provider"])]


@pytest.mark.parametrize(("unit", "keys"), UNITS)
@pytest.mark.parametrize("rule", ["any", "all"])
def test_by_unit(scanned: rtls.Snapshot, unit: str, keys: list[str], rule: str) -> None:
    """An address answers for itself, a host or provider by its addresses, under the rule that is named."""
    row = deployment(scanned, of=["starttls"], unit=unit, rule=rule).iloc[0]
    sessions = scanned.sessions.merge(scanned.hosts[["mx_host", "provider"]], on="mx_host")
    served = scanned.mx["mx_host"].unique()
    sessions = sessions[sessions["mx_host"].isin(served) & sessions["starttls"].ne("not_tested")]
    answers = sessions["starttls"].astype(str).groupby([sessions[key] for key in keys]).agg(set)
    yes = answers.map(lambda said: "yes" in said)
    if rule == "all":
        yes = answers.map(lambda said: said == {"yes"})
    assert row["numerator"] == yes.sum()
    if unit == "address":
        assert row["unknown"] == answers.map(lambda said: said == {"unknown"}).sum()
    assert row["trials"] + row["unknown"] + row["not_tested"] >= len(answers)


def test_best_preference_asks_the_first_hosts_only() -> None:
    """A backup without TLS counts under `all`, not under `best_preference`."""
    world = made(
        [{"domain": "a.example", "mx_state": "mx", "mx_dnssec": "insecure", "sts_record": "absent", **share_words(starttls="some")}],
        mx=[
            {"domain": "a.example", "preference": 10, "mx_host": "mx1.example", "mx_state": "mx"},
            {"domain": "a.example", "preference": 20, "mx_host": "mx2.example", "mx_state": "mx"},
        ],
        hosts=[{"mx_host": f"mx{n}.example", "mx_state": "mx", "tlsa_state": "none"} for n in (1, 2)],
        sessions=[
            {"mx_host": f"mx{n}.example", "address": f"192.0.2.{n}", "outcome": "completed", "starttls": word, "pkix": pkix, "dane": "none", "requiretls_tls": "no", "tls_version": "TLSv1.3"}
            for n, word, pkix in ((1, "yes", "valid"), (2, "no", "not_tested"))
        ],
    )  # fmt: skip
    numerators = {
        rule: deployment(world, of=["starttls"], rule=rule)["numerator"].item()
        for rule in ("any", "all", "best_preference")
    }
    assert numerators == {"any": 1, "all": 0, "best_preference": 1}
    assert feature_table(world, rule="best_preference")["starttls"].item() == "all"
    assert deployment(world, of=["starttls"], rule="best_preference", unit="address")["trials"].item() == 1


def test_units_side_by_side(scanned: rtls.Snapshot) -> None:
    """One feature by address, host, provider, domain and message: each row says its unit."""
    domains = scanned.domains
    yes = domains["domain"][domains["starttls"].isin(["all", "some"])]
    no = domains["domain"][domains["starttls"].eq("none")]
    traffic = pd.Series({yes.iloc[0]: 90, no.iloc[0]: 10, "elsewhere.example": 1000})
    table = unit_rates(scanned, traffic=traffic)
    assert list(table.index) == ["address", "host", "provider", "domain", "message"]
    assert list(table["unit"]) == ["address", "MX host", "provider", "domain", "message"]
    assert table.loc["message", ["numerator", "denominator", "rate"]].tolist() == [90, 100, 0.9]
    assert table.loc["domain", "numerator"] == len(yes)
    assert table["rate"].nunique() > 2
    assert unit_rates(scanned, of="requiretls_ready", units=["domain"])["numerator"].dtype == "int64"


def test_shares(scanned: rtls.Snapshot) -> None:
    """Counts of each word, by group."""
    table = shares(scanned, by="provider")
    words = scanned.domains["requiretls_ready"].value_counts()
    for word, count in words.items():
        assert table[word].sum() == count
    assert table["domains"].sum() == len(scanned.domains)
    assert table["domains"].is_monotonic_decreasing
    with pytest.raises(ValueError, match="'domain' is no column of words; there are mx_state, "):
        shares(scanned, of="domain")


def test_mechanisms_together(scanned: rtls.Snapshot) -> None:
    """Every domain with a mail host of which all is told has one combination; the others are counted beside."""
    table = mechanisms(scanned)
    told = table["numerator"].sum()
    assert told == table["trials"].iloc[0]
    with_host = scanned.domains["mx_state"].isin(["mx", "implicit_mx"]).sum()
    assert told + table["unknown"].iloc[0] == with_host
    flags = table.index.to_frame(index=False)
    assert not (flags["pkix"] & ~flags["starttls"]).any()  # a certificate without TLS
    assert not (flags["requiretls_offered"] & ~flags["starttls"]).any()
    assert table["numerator"].is_monotonic_decreasing


def test_mechanism_pairs(scanned: rtls.Snapshot) -> None:
    """Among those that have one, how many have the other; every certificate was seen over TLS."""
    table = mechanism_pairs(scanned, of=["starttls", "pkix", "dane"])
    assert len(table) == 6
    assert table.loc[("pkix", "starttls"), "rate"] == 1
    assert table.loc[("pkix", "dane"), "numerator"] == table.loc[("dane", "pkix"), "numerator"]
    assert table.attrs["untold"] > 0


def test_words_that_are_none_are_refused(scanned: rtls.Snapshot) -> None:
    """One line says what there is."""
    with pytest.raises(ValueError, match="feature is 'startls'; give mail_host, "):
        deployment(scanned, of=["startls"])
    with pytest.raises(ValueError, match="unit is 'continent'; give domain, "):
        deployment(scanned, unit="continent")
    with pytest.raises(ValueError, match="rule is 'most'; give any, all, best_preference"):
        deployment(scanned, rule="most")


def test_nobody() -> None:
    """An empty snapshot has every table, without a rate."""
    empty = made()
    assert deployment(empty)["trials"].sum() == 0
    assert len(mechanisms(empty)) == 0
    assert mechanism_pairs(empty)["trials"].sum() == 0
    assert unit_rates(empty)["trials"].sum() == 0
