"""Concentration holds its published values; one provider left out, or switching, moves what it serves and no more."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rtls_analysis as rtls
from rtls_analysis.analysis.concentration import (
    ALL_DISTINCT,
    ONE_FIRM,
    concentration,
    concentration_ratio,
    gini,
    hhi,
    leave_one_out,
    lorenz,
    one_switches,
    provider_concentration,
    provider_sizes,
    providers,
    server_sizes,
)
from rtls_analysis.analysis.hops import hop_verdicts
from rtls_analysis.analysis.rates import ArtefactWarning, rates
from rtls_analysis.outcomes import Obstacle
from tests.analysis.made import made, shares

DANE_PROVIDERS = {  # early 2023, domains; 3,684,357 in all (V. Dukhovni, dane-users)
    "one.com": 1_214_586,
    "hostpoint.ch": 288_282,
    "infomaniak.ch": 195_874,
    "transip.nl": 167_120,
    "mijndomein.nl": 160_940,
    "argewebhosting.nl": 153_033,
    "simply.com": 136_256,
    "jouwweb.nl": 123_192,
    "hostnet.nl": 111_941,
    "domeneshop.no": 108_874,
    "loopia.se": 105_109,
    "webhostingserver.nl": 94_171,
    "forpsi.com": 80_000,
    "zxcs.nl": 68_284,
    "active24.com": 43_363,
    "antagonist.nl": 39_704,
}
ALL_DANE = 3_684_357


def test_dane_providers() -> None:
    """CR1 to CR16 and the index of the published list, whose rest is all distinct at the least."""
    sizes = pd.Series(DANE_PROVIDERS)
    table = concentration(sizes, unknown=ALL_DANE - int(sizes.sum()), unit="domain")
    row = table.loc[ALL_DISTINCT]
    ratios = [round(100 * row[f"cr{n}"], 2) for n in (1, 2, 4, 8, 16)]
    assert ratios == [32.97, 40.79, 50.64, 66.21, 83.89]
    assert math.floor(10 * row["hhi"]) / 10 == 1301.3
    assert table.loc[ONE_FIRM, "hhi"] > row["hhi"]
    assert table.loc[ONE_FIRM, "cr2"] > row["cr2"]
    assert table["total"].tolist() == [ALL_DANE] * 2
    assert table["unit"].tolist() == ["domain"] * 2


@pytest.mark.parametrize(
    ("sizes", "value"), [([1, 1, 1, 1], 0), ([0, 0, 0, 1], 0.75), ([1, 2, 3, 4], 0.25), ([4, 2, 1, 3], 0.25)]
)
def test_gini(sizes: list[int], value: float) -> None:
    """The published values."""
    assert gini(sizes) == value


sizes = st.lists(st.integers(1, 10_000), min_size=1, max_size=50)


@settings(max_examples=150, deadline=None)
@given(sizes)
def test_measures(found: list[int]) -> None:
    """Gini is twice the area between Lorenz curve and diagonal; the index lies between 10,000/n and 10,000."""
    curve = lorenz(pd.Series(found))
    area = np.trapezoid(curve["cumulative"], curve["providers"])
    assert gini(found) == pytest.approx(1 - 2 * area)
    assert 10_000 / len(found) - 1e-6 <= hhi(found) <= 10_000 + 1e-6
    ratios = [concentration_ratio(found, n) for n in range(1, len(found) + 1)]
    assert ratios == sorted(ratios)
    assert ratios[-1] == pytest.approx(1)
    assert (curve["cumulative"] <= curve["providers"] + 1e-12).all()


def test_of_nothing() -> None:
    """Nobody has no concentration."""
    assert all(math.isnan(value) for value in (gini([]), hhi([]), concentration_ratio([], 1), gini([0, 0])))
    assert lorenz(pd.Series([], dtype=float))["cumulative"].tolist() == [0]


def test_a_share_without_its_unit_warns() -> None:
    """The same provider in the same list has 22 % by one unit and 41 % by another."""
    with pytest.warns(ArtefactWarning, match="what the sizes count is not told"):
        concentration(pd.Series([3, 1]))


def test_by_several_units(scanned: rtls.Snapshot) -> None:
    """A large provider has many domains at few hosts."""
    table = provider_concentration(scanned)
    assert table.index.get_level_values("counted").unique().tolist() == ["domain", "host", "address"]
    assert table.loc[("domain", ALL_DISTINCT), "cr4"] > table.loc[("host", ALL_DISTINCT), "cr4"]
    for unit in ("domain", "host", "address"):
        counted, unknown = provider_sizes(scanned, unit=unit)
        assert table.loc[(unit, ONE_FIRM), "total"] == counted.sum() + unknown
        assert concentration(scanned, unit=unit).equals(table.loc[unit])


def test_who_takes_no_mail_has_no_provider(scanned: rtls.Snapshot) -> None:
    """Such domains are not counted; one whose lookup failed has a provider that is not known."""
    counted, unknown = provider_sizes(scanned)
    domains = scanned.domains
    assert counted.sum() == domains["provider"].notna().sum()
    failed = domains["mx_state"].eq("dns_failure") & domains["provider"].isna()
    assert unknown == failed.sum() > 0


def test_top_providers(scanned: rtls.Snapshot) -> None:
    """Shares of all whose provider is known, what their domains have, and the change to another scan."""
    before = made([{"domain": "x.example", "provider": "bigmail.test", "mx_state": "mx", **shares()}] * 4)
    table = providers(scanned, before, of="starttls", largest=3)
    assert len(table) == 3
    assert table["numerator"].is_monotonic_decreasing
    row = table.loc["bigmail.test"]
    own = scanned.domains[scanned.domains["provider"].eq("bigmail.test")]
    assert row["numerator"] == len(own)
    assert row["having"] == own["starttls"].isin(["all", "some"]).sum()
    assert (row["numerator_before"], row["trials_before"], row["change"]) == (4, 4, len(own) - 4)
    assert row["change_share"] == pytest.approx(row["rate"] - 1)
    whole = providers(scanned, largest=None)
    assert whole["rate"].sum() == pytest.approx(1)


def test_server_sizes(scanned: rtls.Snapshot) -> None:
    """Each answer's curve ends at one; a size is the number of domains at the same most preferred host."""
    table = server_sizes(scanned, of="pkix")
    for said, rows in table.groupby("said"):
        assert rows["cumulative"].iloc[-1] == pytest.approx(1), said
        assert rows["domains"].sum() == rows["trials"].iloc[0]
        assert rows["size"].is_monotonic_increasing
    yes = table[table["said"] == "yes"]
    assert (yes["domains"] % yes["size"] == 0).sum() >= len(yes) - 3  # whole servers, but for mixed ones
    assert table["domains"].sum() <= scanned.domains["mx_hosts"].gt(0).sum()


def test_one_left_out(scanned: rtls.Snapshot) -> None:
    """The rate without a provider is the rate over the other domains."""
    table = leave_one_out(scanned, of="starttls", largest=4)
    assert table.index[0] == ""
    for name, row in table.iterrows():
        others = scanned.domains[scanned.domains["provider"].ne(name) | (name == "")]
        expected = rates(others, of="starttls").iloc[0]
        for column in ("numerator", "denominator", "unknown", "not_tested", "rate", "low", "high"):
            assert row[column] == pytest.approx(expected[column]), (name, column)
        assert row["change"] == pytest.approx(row["rate"] - table.iloc[0]["rate"])


def test_one_switches(scanned: rtls.Snapshot) -> None:
    """If one provider announced REQUIRETLS, who is stopped by nothing else at it becomes ready."""
    table = one_switches(scanned, largest=None)
    hops = hop_verdicts(scanned)
    ready = set(hops["domain"][hops["requiretls_ready"].eq("yes")])
    only = hops[hops["obstacles"].map(lambda found: set(found) <= {str(Obstacle.REQUIRETLS_NOT_OFFERED)})]
    only = only[only["maybe"].map(lambda found: set(found) <= {str(Obstacle.REQUIRETLS_NOT_OFFERED)})]
    only = only[only["mx_host"].notna()]
    gained = only[~only["domain"].isin(ready)].groupby("provider")["domain"].nunique()
    assert table["gained"].iloc[1:].to_dict() == gained.to_dict()
    assert table["gained"].iloc[1:].is_monotonic_decreasing
    base = table.iloc[0]
    assert base["numerator"] == scanned.domains["requiretls_ready"].isin(["all", "some"]).sum()
    assert (table["numerator"] == base["numerator"] + table["gained"]).all()
    everybody = ["trials", "unknown", "not_tested", "not_applicable"]
    assert (table[everybody].sum(axis=1) == len(scanned.domains)).all()


def test_one_switches_a_feature(scanned: rtls.Snapshot) -> None:
    """A provider that turns a feature on moves all its domains that were asked and had it not."""
    table = one_switches(scanned, of="dane", largest=3)
    name = table.index[1]
    own = scanned.mx[scanned.mx["provider"].eq(name)]["domain"].unique()
    without = scanned.domains[
        scanned.domains["domain"].isin(own) & ~scanned.domains["dane"].isin(["all", "some"])
    ]
    assert table.loc[name, "gained"] == len(without)
    assert len(one_switches(scanned, remove=[], largest=None)) == 1  # nothing removed, nothing gained


def test_words_that_are_none_are_refused(scanned: rtls.Snapshot) -> None:
    """One line says what there is."""
    with pytest.raises(ValueError, match="unit is 'planet'; give domain, host, address"):
        provider_sizes(scanned, unit="planet")
    with pytest.raises(ValueError, match="question is 'tlsrpt'; give starttls, "):
        leave_one_out(scanned, of="tlsrpt")
    with pytest.raises(ValueError, match="'laziness'"):
        one_switches(scanned, remove=["laziness"])
