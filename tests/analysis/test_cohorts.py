"""Rows find their groups: populations, rank bands and bins, top-level domains, providers, address families."""

from __future__ import annotations

import pandas as pd
import pytest

from rtls_analysis import schema
from rtls_analysis.analysis.cohorts import NO_GROUP, cohorts, domain_groups, group_labels, row_values, unit_of
from rtls_analysis.schema import TABLES, to_frame

RANKS = [  # rank, band, first rank of its bin of 10,000
    (1, "1-1,000", 1),
    (1_000, "1-1,000", 1),
    (1_001, "1,001-10,000", 1),
    (10_000, "1,001-10,000", 1),
    (10_001, "10,001-100,000", 10_001),
    (1_000_000, "100,001-1,000,000", 990_001),
    (1_000_001, "above 1,000,000", 1_000_001),
    (None, "no rank", None),
]


def _domains(*names: str, ranks: list[int | None] | None = None) -> pd.DataFrame:
    return to_frame(
        schema.DOMAINS,
        [
            {"domain": name, "rank": rank}
            for name, rank in zip(names, ranks or [None] * len(names), strict=True)
        ],
    )


@pytest.mark.parametrize(("rank", "band", "first"), RANKS)
def test_rank(rank: int | None, band: str, first: int | None) -> None:
    """The end of a band belongs to it; a domain without a rank is told apart."""
    row = cohorts(_domains("a.example", ranks=[rank])).iloc[0]
    assert row["rank_band"] == band
    assert (None if pd.isna(row["rank_bin"]) else row["rank_bin"]) == first


def test_rank_bands_are_ordered() -> None:
    """By rank, not by alphabet, and by the edges that are asked for."""
    frame = cohorts(_domains("a.se", "b.se", "c.se", ranks=[70, 5, None]), rank_edges=[50, 10], rank_bin=50)
    assert list(frame["rank_band"].cat.categories) == ["1-10", "11-50", "above 50", "no rank"]
    assert list(frame.sort_values("rank_band")["domain"]) == ["b.se", "a.se", "c.se"]
    assert list(frame["rank_bin"].dropna()) == [51, 1]


def test_populations_may_overlap() -> None:
    """A domain of two lists is in both; one of none is there too."""
    frame = cohorts(
        _domains("a.se", "b.se", "c.se"), populations={"banks": {"a.se"}, "sweden": ["a.se", "b.se", "x.se"]}
    )
    assert list(zip(frame["domain"], frame["population"], strict=True)) == [
        ("a.se", "banks"),
        ("a.se", "sweden"),
        ("b.se", "sweden"),
        ("c.se", NO_GROUP),
    ]
    groups = domain_groups(_domains("a.se", "b.se"), None, {"banks": ["a.se"]})
    assert list(groups.columns) == ["domain", "population"]


def test_of_a_list_that_names_nobody() -> None:
    """All are of no population, also where there is no row at all."""
    assert list(cohorts(_domains("a.se"), populations={"banks": []})["population"]) == [NO_GROUP]
    assert len(cohorts(_domains(), populations={"banks": ["a.se"]})) == 0


def test_derived_groups() -> None:
    """The top-level domain of a domain, the provider of a host, the family of an address."""
    domains = cohorts(_domains("a.co.uk", "b.example"))
    assert list(domains["tld"]) == ["uk", "example"]
    sessions = pd.DataFrame(
        {"mx_host": ["mx1.googlemail.com", "mx.b.example"], "address": ["192.0.2.1", "2001:db8::1"]}
    )
    found = cohorts(sessions)
    assert list(found["provider"]) == ["google.com", "b.example"]
    assert list(found["family"]) == ["IPv4", "IPv6"]


def test_populations_need_domains() -> None:
    """A list of domains says nothing of a table without them."""
    with pytest.raises(ValueError, match="no column 'domain'"):
        cohorts(pd.DataFrame({"mx_host": ["mx.example"]}), populations={"a": []})


UNITS = {
    "domains": "domain",
    "mx": "domain's MX host",
    "hosts": "MX host",
    "sessions": "address",
    "certificates": "certificate",
    "attempts": "connection",
    "deliveries": "delivery attempt",
    "connections": "connection",
    "bounces": "recipient of a DSN",
    "tls_reports": "failure detail",
    "hops": "Received field",
    "what_if": "recipient domain and relay",
}


@pytest.mark.parametrize(("table", "unit"), UNITS.items())
def test_unit_of(table: str, unit: str) -> None:
    """Every table of the schema says what one row of it is."""
    assert unit_of(to_frame(TABLES[table], [])) == unit


def test_unit_of_nothing() -> None:
    """A table of counts is no table of trials."""
    assert unit_of(pd.DataFrame({"count": [1]})) is None


def test_labels() -> None:
    """Missing labels are a group of their own, also among words and numbers; an order is kept."""
    frame = pd.DataFrame(
        {
            "domain": ["a", "b", "c"],
            "text": ["x", None, "y"],
            "word": pd.Categorical(["p", None, "q"]),
            "number": pd.array([2, None, 1], dtype="Int64"),
        },
        index=[5, 6, 7],
    )
    labels = group_labels(frame, ["text", "word", "number"])
    assert list(labels.index) == [0, 1, 2]
    assert labels.iloc[1].tolist() == [NO_GROUP] * 3
    assert list(labels["number"].cat.categories) == [1, 2, NO_GROUP]
    assert group_labels(frame, None)["group"].tolist() == ["all"] * 3
    with pytest.raises(ValueError, match="no column 'continent' to group by"):
        group_labels(frame, "continent")


def test_values_by_domain() -> None:
    """A Series goes by the index of the table, or by domain; anything else is a mistake."""
    frame = pd.DataFrame({"domain": ["a", "b"]}, index=[5, 6])
    assert row_values(frame, pd.Series([1, 2], index=[5, 6])).tolist() == [1, 2]
    by_domain = row_values(frame, pd.Series({"b": 7.0}, name="mail"))
    assert by_domain.name == "mail"
    assert by_domain.fillna(0).tolist() == [0, 7]
    with pytest.raises(ValueError, match="needs the index of the table"):
        row_values(frame, pd.Series([1, 2], index=["a", "a"]))
    with pytest.raises(ValueError, match="no column 'weight'"):
        row_values(frame, "weight")
