"""A rate comes with what it counts, of how many, in which unit, how sure, and what could not be told."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rtls_analysis as rtls
from rtls_analysis import schema
from rtls_analysis.analysis.intervals import newcombe, wilson
from rtls_analysis.analysis.rates import RATE_COLUMNS, ArtefactWarning, differences, rates, with_rates
from rtls_analysis.outcomes import DomainShare
from rtls_analysis.schema import to_frame

WORDS = [str(word) for word in DomainShare]


def _domains(rows: list[tuple[str, str | None]], **columns: list[Any]) -> pd.DataFrame:
    """Domains with a provider and a word for STARTTLS each."""
    frame = to_frame(
        schema.DOMAINS,
        [
            {"domain": f"{number}.example", "provider": provider, "starttls": word}
            for number, (word, provider) in enumerate(rows)
        ],
    )
    return frame.assign(**columns)


def test_one_group_says_everything() -> None:
    """Numerator, denominator (what was told), unit, interval, bounds, and what is left out, by reason."""
    words = (
        ["all"] * 6 + ["some"] * 2 + ["none"] * 4 + ["unknown"] * 3 + ["not_tested"] + ["not_applicable"] * 2
    )
    table = rates(_domains([(word, None) for word in words]), of="starttls")
    assert list(table.columns) == list(RATE_COLUMNS)
    row = table.loc["all"]
    assert (row["numerator"], row["denominator"], row["trials"], row["unit"]) == (8, 12, 12, "domain")
    assert (row["unknown"], row["not_tested"], row["not_applicable"]) == (3, 1, 2)
    assert row["rate"] == 8 / 12
    assert (row["low"], row["high"]) == pytest.approx(wilson(8, 12))
    assert (row["if_unknown_no"], row["if_unknown_yes"]) == (8 / 15, 11 / 15)
    assert not row["is_small"]
    assert table.attrs["yes"] == ["all", "some"]


def test_the_rule_is_an_argument() -> None:
    """Any address is enough, or every one must."""
    frame = _domains([("all", None), ("some", None), ("none", None)])
    assert rates(frame, of="starttls")["numerator"].item() == 2
    assert rates(frame, of="starttls", yes="all")["numerator"].item() == 1


def test_groups_by_size_small_ones_marked_none_hidden() -> None:
    """The largest group first; one of fewer than ten trials is there, with its interval, and marked."""
    frame = _domains([("all", "big.example")] * 30 + [("none", "small.example")] * 3 + [("all", None)] * 12)
    table = rates(frame, of="starttls", by="provider")
    assert list(table.index) == ["big.example", "(none)", "small.example"]
    assert list(table["is_small"]) == [False, False, True]
    assert table.loc["small.example", "high"] == pytest.approx(wilson(0, 3)[1])
    assert list(rates(frame, of="starttls", by="provider", minimum=2)["is_small"]) == [False] * 3
    assert table["trials"].sum() == 45


def test_a_group_without_a_trial_has_no_rate() -> None:
    """What could not be told is no zero: the rate is missing, its bounds are 0 and 1."""
    row = rates(_domains([("unknown", None)] * 4), of="starttls").iloc[0]
    assert (row["trials"], row["unknown"]) == (0, 4)
    assert all(math.isnan(row[name]) for name in ("rate", "low", "high"))
    assert (row["if_unknown_no"], row["if_unknown_yes"]) == (0, 1)
    empty = rates(_domains([]), of="starttls")
    assert empty["trials"].tolist() == [0]
    assert empty["rate"].isna().all()
    assert len(rates(_domains([]), of="starttls", by="provider")) == 0


def test_several_groupings() -> None:
    """Groups of groups, those of text by size, others in their own order."""
    frame = _domains([("all", "a")] * 3 + [("none", "b")] * 5, rank=[5, 2_000, 3, 1, 2, 50_000, 4, 9])
    table = rates(frame, of="starttls", by=["provider", "rank_band"])
    assert list(table.index) == [
        ("b", "1-1,000"),
        ("b", "10,001-100,000"),
        ("a", "1-1,000"),
        ("a", "1,001-10,000"),
    ]
    assert list(table["denominator"]) == [4, 1, 2, 1]
    by_series = rates(frame, of="starttls", by=pd.Series(["x", "y"] * 4, name="half"))
    assert by_series.index.name == "half"
    assert list(rates(frame, of="starttls", by="rank_bin").index) == [1, 40_001]


def test_weights() -> None:
    """A weighted rate is one of weight; its interval stands on Kish's number of trials."""
    frame = _domains([("all", None), ("none", None), ("unknown", None)], mail=[90.0, 10.0, 100.0])
    row = rates(frame, of="starttls", weights="mail").iloc[0]
    assert (row["numerator"], row["denominator"], row["rate"], row["trials"]) == (90, 100, 0.9, 2)
    assert row["effective_trials"] == pytest.approx(100**2 / (90**2 + 10**2))
    n = row["effective_trials"]
    assert (row["low"], row["high"]) == pytest.approx(wilson(0.9 * n, n))
    assert (row["if_unknown_no"], row["if_unknown_yes"]) == (0.45, 0.95)


def test_weights_by_rank_and_by_own_traffic() -> None:
    """By 1/rank, where there is one; by messages to each domain, where there are any."""
    frame = _domains([("all", None), ("none", None), ("all", None)], rank=[1, 4, None])
    assert rates(frame, of="starttls", weights="rank")["rate"].item() == 0.8
    traffic = pd.Series({"1.example": 30, "2.example": 10, "elsewhere.example": 5})
    row = rates(frame, of="starttls", weights=traffic).iloc[0]
    assert (row["numerator"], row["denominator"]) == (10, 40)
    with pytest.raises(ValueError, match="a weight is negative"):
        rates(frame, of="starttls", weights=pd.Series([1, -1, 1]))


def test_clusters() -> None:
    """The published example: the interval of sixteen hundred domains at ten providers is that of three trials."""
    sizes = [1000, 400, 100, 50, 20, 10, 5, 5, 5, 5]
    having = [1000, 0, 90, 50, 10, 10, 0, 5, 5, 0]
    rows = [
        ("all" if number < yes else "none", f"{size}-{place}")
        for place, (size, yes) in enumerate(zip(sizes, having, strict=True))
        for number in range(size)
    ]
    row = rates(_domains(rows), of="starttls", clusters="provider").iloc[0]
    assert (row["rate"], row["clusters"]) == (0.73125, 10)
    assert (round(row["standard_error"], 4), round(row["design_effect"], 1)) == (0.2621, 559.4)
    n = 1600 / row["design_effect"]
    assert (row["low"], row["high"]) == pytest.approx(wilson(0.73125 * n, n))
    naive = rates(_domains(rows), of="starttls").iloc[0]
    assert [round(naive[name], 4) for name in ("low", "high")] == [0.7090, 0.7524]


def test_without_a_cluster_each_stands_alone() -> None:
    """A domain whose provider is not known decides for itself."""
    frame = _domains([("all", None), ("none", None), ("all", "a"), ("all", "a")])
    assert rates(frame, of="starttls", clusters="provider")["clusters"].item() == 3


def test_what_one_row_is_must_be_told() -> None:
    """The same data set gives other rates by other units: a table that does not say which one warns."""
    counted = pd.DataFrame({"ok": [True, False]})
    with pytest.warns(ArtefactWarning, match="what one row is cannot be told"):
        table = rates(counted, of="ok")
    assert table["unit"].item() == "row"
    assert rates(counted, of="ok", unit="message")["unit"].item() == "message"


def test_not_tested_is_no_zero() -> None:
    """The famous 0.0 % for DANE, from a resolver that does not validate, comes with a warning and without a rate."""
    frame = _domains([("not_tested", None)] * 5)
    with pytest.warns(ArtefactWarning, match="starttls was not tested in 5 of 5 rows: a share of 0 %"):
        row = rates(frame, of="starttls").iloc[0]
    assert math.isnan(row["rate"])
    assert row["not_tested"] == 5
    with pytest.warns(ArtefactWarning, match="no finding"):
        rates(_domains([("not_tested", None)] * 5 + [("none", None)] * 2), of="starttls")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rates(_domains([("not_tested", None)] * 2 + [("none", None)] * 5), of="starttls")


def test_a_column_that_is_none_is_refused() -> None:
    """One line says what there is."""
    with pytest.raises(ValueError, match=r"no column 'startls' to count; there are domain, "):
        rates(_domains([]), of="startls")


rows = st.lists(
    st.tuples(st.sampled_from(WORDS), st.sampled_from(["a", "b", None]), st.integers(0, 9)), max_size=60
)


@settings(max_examples=100, deadline=None)
@given(rows)
def test_rates_are_plain_counts(found: list[tuple[str, str | None, int]]) -> None:
    """Whatever the rows: each is counted once, bounds enclose the rate, the rate is in its interval."""
    frame = _domains([(word, provider) for word, provider, _weight in found])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ArtefactWarning)
        table = rates(frame, of="starttls", by="provider")
    counted = table[["trials", "unknown", "not_tested", "not_applicable"]].sum(axis=1)
    assert counted.sum() == len(found)
    for group, row in table.iterrows():
        of_group = [word for word, provider, _w in found if (provider or "(none)") == group]
        assert row["numerator"] == sum(word in ("all", "some") for word in of_group)
        assert row["denominator"] == row["numerator"] + of_group.count("none")
        if row["trials"]:
            assert 0 <= row["low"] <= row["rate"] <= row["high"] <= 1
            assert row["if_unknown_no"] <= row["rate"] <= row["if_unknown_yes"]


@settings(max_examples=60, deadline=None)
@given(rows)
def test_weights_are_repetitions(found: list[tuple[str, str | None, int]]) -> None:
    """A row of weight three counts as three rows in every sum."""
    frame = _domains([(word, provider) for word, provider, _weight in found])
    weights = [weight for _word, _provider, weight in found]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ArtefactWarning)
        weighted = rates(frame, of="starttls", by="provider", weights=pd.Series(weights, dtype="float64"))
        repeated = rates(frame.loc[np.repeat(frame.index, weights)], of="starttls", by="provider")
    for group, row in repeated.iterrows():
        for name in ("numerator", "denominator", "rate", "if_unknown_no", "if_unknown_yes"):
            assert weighted.loc[group, name] == pytest.approx(row[name], nan_ok=True)


def test_differences() -> None:
    """Newcombe's interval, in shares, of each group to the one that is named."""
    groups = (
        [("all", "before")] * 60
        + [("none", "before")] * 40
        + [("all", "after")] * 75
        + [("none", "after")] * 5
    )
    frame = _domains(groups, when=[group for _word, group in groups])
    found = differences(rates(frame, of="starttls", by="when"), against="before")
    assert list(found.index) == ["after"]
    row = found.iloc[0]
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(newcombe((75, 80), (60, 100)))
    assert (row["trials"], row["trials_against"], row["unit"], row["is_small"]) == (80, 100, "domain", False)
    with pytest.raises(ValueError, match="no group 'then'; there are before, after"):
        differences(rates(frame, of="starttls", by="when"), against="then")


def test_counts_become_rates() -> None:
    """A table of counts is completed to the same columns, further ones behind them."""
    counts = pd.DataFrame(
        {"numerator": [3, 0], "trials": [12, 0], "unknown": [2, 1], "more": ["x", "y"]}, index=["a", "b"]
    )
    table = with_rates(counts, unit="domain")
    assert list(table.columns) == [*RATE_COLUMNS, "more"]
    assert (table.loc["a", "rate"], table.loc["a", "if_unknown_no"], table.loc["a", "if_unknown_yes"]) == (
        0.25,
        3 / 14,
        5 / 14,
    )
    assert math.isnan(table.loc["b", "rate"])
    assert list(table["is_small"]) == [False, True]


def test_a_scan(scanned: rtls.Snapshot) -> None:
    """The rates of a scan are the counts of its words."""
    words = scanned.domains["requiretls_ready"].value_counts()
    row = rates(scanned.domains, of="requiretls_ready").iloc[0]
    assert row["numerator"] == words["all"] + words["some"]
    assert row["denominator"] == row["numerator"] + words["none"]
    assert (row["unknown"], row["not_tested"]) == (words["unknown"], words["not_tested"])
    sessions = rates(scanned.sessions, of="starttls", by="family")
    assert sessions["unit"].unique().tolist() == ["address"]
    assert set(sessions.index) == {"IPv4", "IPv6"}
