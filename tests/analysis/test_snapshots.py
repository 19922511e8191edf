"""Two scans compared: every difference is named once, by what it is, and tested for what chance can do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats import contingency_tables

import rtls_analysis as rtls
from rtls_analysis.analysis.deployment import FEATURES
from rtls_analysis.analysis.intervals import newcombe
from rtls_analysis.analysis.snapshots import (
    NO_WORD,
    NOT_LISTED,
    bowker,
    changes_text,
    compare,
    mcnemar,
    paired_changes,
    paired_difference,
    transitions,
)
from rtls_analysis.store import Snapshot, SnapshotWriter
from tests.analysis.made import made, shares


def snapshot(**domains: dict[str, Any]) -> Snapshot:
    writer = SnapshotWriter(None, {"scan": {}}, b"")
    table = writer.replacement("domains")
    for name, columns in domains.items():
        table.add({"domain": f"{name}.example", **columns})
    table.finish()
    writer.close()
    return writer.snapshot()


def test_compare() -> None:
    """Entered, left, gained, lost and changed are told apart; what stays is not listed, and silence is no loss."""
    before = snapshot(
        stays={"starttls": "all", "obstacle": "mx_unauthenticated"},
        gains={"requiretls_offered": "none", "obstacle": "requiretls_not_offered"},
        loses={"starttls": "all", "tlsrpt": "valid", "sts_policy": "valid"},
        is_silent={"starttls": "all", "requiretls_ready": "unknown", "sts_policy": "valid"},
        weakens={"starttls": "all"},
        leaves={"starttls": "all"},
        publishes={"sts_policy": "no_record"},
    )
    after = snapshot(
        enters={"starttls": "all"},
        stays={"starttls": "all", "obstacle": "mx_unauthenticated"},
        gains={"requiretls_offered": "some", "obstacle": ""},
        loses={"starttls": "none", "tlsrpt": "absent", "sts_policy": "http_status"},
        is_silent={"starttls": "unknown", "requiretls_ready": "all", "sts_policy": "timeout"},
        weakens={"starttls": "some"},
        publishes={"sts_policy": "valid", "sts_mode": "enforce"},
    )
    rows = compare(before, after)
    assert [tuple(row) for row in rows.astype(object).itertuples(index=False)] == [
        ("enters.example", "", "entered", "", ""),
        ("gains.example", "requiretls_offered", "gained", "none", "some"),
        ("gains.example", "obstacle", "changed", "requiretls_not_offered", ""),
        ("loses.example", "starttls", "lost", "all", "none"),
        ("loses.example", "sts_policy", "lost", "valid", "http_status"),
        ("loses.example", "tlsrpt", "lost", "valid", "absent"),
        ("is_silent.example", "starttls", "changed", "all", "unknown"),
        ("is_silent.example", "requiretls_ready", "changed", "unknown", "all"),
        ("is_silent.example", "sts_policy", "changed", "valid", "timeout"),
        ("weakens.example", "starttls", "changed", "all", "some"),
        ("publishes.example", "sts_policy", "gained", "no_record", "valid"),
        ("publishes.example", "sts_mode", "changed", "", "enforce"),
        ("leaves.example", "", "left", "", ""),
    ]
    text = changes_text(rows)
    assert "domains that entered: 1" in text
    assert "gained gains.example: none -> some" in text


def test_nothing_differs() -> None:
    """A scan equals itself."""
    same = snapshot(a={"starttls": "all"}, b={})
    assert not len(compare(same, same))
    assert changes_text(compare(same, same)) == "Nothing differs."


# -- transitions ---------------------------------------------------------------------------------------------


def _two() -> tuple[Snapshot, Snapshot]:
    before = made(
        [
            {"domain": "kept.example", **shares(starttls="all"), "sts_mode": "enforce"},
            {"domain": "gained.example", **shares(starttls="none")},
            {"domain": "lost.example", **shares(starttls="some")},
            {"domain": "hidden.example", **shares(starttls="all")},
            {"domain": "left.example", **shares(starttls="all")},
        ]
    )
    after = made(
        [
            {"domain": "gained.example", **shares(starttls="all"), "sts_mode": "testing"},
            {"domain": "kept.example", **shares(starttls="some"), "sts_mode": "enforce"},
            {"domain": "lost.example", **shares(starttls="none")},
            {"domain": "hidden.example", **shares(starttls="unknown")},
            {"domain": "entered.example", **shares(starttls="none")},
        ]
    )
    return before, after


def test_transitions() -> None:
    """Each domain is in one cell: from its word to its word; who entered and left is told apart from who changed."""
    matrix = transitions(*_two(), of="starttls")
    assert list(matrix.index) == list(matrix.columns) == ["all", "some", "none", "unknown", NOT_LISTED]
    moves = {
        (was, now): int(matrix.loc[was, now])
        for was in matrix.index
        for now in matrix.columns
        if matrix.loc[was, now]
    }
    assert moves == {
        ("all", "some"): 1,
        ("none", "all"): 1,
        ("some", "none"): 1,
        ("all", "unknown"): 1,
        ("all", NOT_LISTED): 1,
        (NOT_LISTED, "none"): 1,
    }
    modes = transitions(*_two(), of="sts_mode")
    assert modes.loc[NO_WORD, "testing"] == 1
    assert matrix.attrs["domains"] == matrix.to_numpy().sum() == 6
    with pytest.raises(ValueError, match="domain is no column of words"):
        transitions(*_two(), of="domain")


def test_paired_changes() -> None:
    """Of the domains in both scans: kept, gained, lost, neither, and those that were not told in one of them."""
    table = paired_changes(*_two(), of=["starttls", "requiretls_ready"])
    row = table.loc["starttls"]
    assert row[["kept", "gained", "lost", "neither", "trials", "untold"]].tolist() == [1, 1, 1, 0, 3, 1]
    assert (row["entered"], row["left"], row["unit"]) == (1, 1, "domain")
    assert (row["rate_before"], row["rate_after"], row["difference"]) == (2 / 3, 2 / 3, 0)
    assert (row["p"], row["method"]) == (1, "exact")
    assert table.loc["requiretls_ready", ["kept", "neither"]].tolist() == [0, 4]
    strict = paired_changes(*_two(), of=["starttls"], rule="all").loc["starttls"]
    assert strict[["kept", "gained", "lost", "neither"]].tolist() == [0, 1, 1, 1]
    with pytest.raises(ValueError, match="no feature 'weather'; there are mail_host, "):
        paired_changes(*_two(), of=["weather"])


def test_a_scan_and_itself(scanned: rtls.Snapshot) -> None:
    """Nothing moves, nothing is gained; what is kept and not had are the scan's own counts."""
    matrix = transitions(scanned, scanned)
    assert (matrix.to_numpy() == np.diag(np.diag(matrix.to_numpy()))).all()
    table = paired_changes(scanned, scanned)
    assert list(table.index) == list(FEATURES)
    assert table[["gained", "lost", "entered", "left"]].to_numpy().sum() == 0
    assert table.loc["starttls", "kept"] == scanned.domains["starttls"].isin(["all", "some"]).sum()
    assert (table["trials"] + table["untold"] == len(scanned.domains)).all()


# -- tests ---------------------------------------------------------------------------------------------------


def test_mcnemar() -> None:
    """The published example; exact below 25 discordant pairs, corrected from there."""
    found = mcnemar(5, 25)
    assert round(found.exact_p, 9) == 0.000324914
    assert round(found.statistic, 4) == 12.0333
    assert round(found.corrected_p, 9) == 0.000522575
    assert (found.method, found.p) == ("corrected", found.corrected_p)
    few = mcnemar(2, 22)
    assert (few.method, few.p) == ("exact", few.exact_p)
    assert mcnemar(0, 0).p == 1


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_agrees_with_statsmodels(lost: int, gained: int) -> None:
    """Both ways of it, whatever the concordant pairs; and it does not matter which side lost."""
    found = mcnemar(lost, gained)
    assert found.p == mcnemar(gained, lost).p
    if lost + gained == 0:
        return
    table = [[17, lost], [gained, 4]]
    exact = contingency_tables.mcnemar(table, exact=True)
    assert found.exact_p == pytest.approx(exact.pvalue, abs=1e-12)
    if lost != gained:  # there it corrects beyond zero
        corrected = contingency_tables.mcnemar(table, exact=False, correction=True)
        assert found.statistic == pytest.approx(corrected.statistic)
        assert found.corrected_p == pytest.approx(corrected.pvalue)


def test_bowker() -> None:
    """The published example; pairs of words between which nobody went are no degree of freedom."""
    matrix = [[900, 25, 5], [5, 40, 5], [2, 3, 15]]
    found = bowker(matrix)
    assert (round(found.statistic, 4), found.degrees, round(found.p, 7)) == (15.1190, 3, 0.0017177)
    padded = [[*row, 0] for row in matrix] + [[0, 0, 0, 9]]
    assert bowker(padded) == found
    assert bowker([[5, 0], [0, 5]]).p == 1
    with pytest.raises(ValueError, match="is square; this one is 1 x 2"):
        bowker([[1, 2]])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=16, max_size=16))
def test_bowker_agrees_with_statsmodels(cells: list[int]) -> None:
    """For any table without empty cells."""
    matrix = np.reshape(cells, (4, 4))
    found = bowker(matrix)
    expected = contingency_tables.SquareTable(matrix, shift_zeros=False).symmetry(method="bowker")
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.degrees == expected.df


cells = st.tuples(*[st.integers(0, 300)] * 4).filter(any)


@settings(max_examples=150, deadline=None)
@given(cells)
def test_paired_differences(found: tuple[int, int, int, int]) -> None:
    """The interval holds the difference, turns its sign with it, and is at most a little wider than one of independents."""
    kept, lost, gained, neither = found
    gap, low, high = paired_difference(kept, lost, gained, neither)
    total = sum(found)
    assert gap == pytest.approx((gained - lost) / total)
    assert -1 - 1e-9 <= low <= gap + 1e-12
    assert gap - 1e-12 <= high <= 1 + 1e-9
    assert paired_difference(kept, gained, lost, neither) == pytest.approx((-gap, -high, -low), abs=1e-12)
    independent = newcombe((kept + gained, total), (kept + lost, total))
    if kept * neither >= lost * gained:  # the same domains go together: the interval is not wider
        assert high - low <= independent[2] - independent[1] + 1e-9


def test_a_paired_difference_of_nobody() -> None:
    """There is none."""
    assert all(math.isnan(value) for value in paired_difference(0, 0, 0, 0))


@pytest.mark.parametrize("shares_of", [(0.6, 0.1, 0.1, 0.2), (0.3, 0.05, 0.3, 0.35), (0.2, 0.1, 0.2, 0.5)])
def test_the_paired_interval_covers(shares_of: tuple[float, ...]) -> None:
    """Over all outcomes of twenty domains, weighed by their chance, it holds the true difference nearly 95 times in 100."""
    total, covered = 20, 0.0
    truth = shares_of[2] - shares_of[1]
    for kept in range(total + 1):
        for lost in range(total + 1 - kept):
            for gained in range(total + 1 - kept - lost):
                cell = (kept, lost, gained, total - kept - lost - gained)
                _gap, low, high = paired_difference(*cell)
                if low <= truth <= high:
                    ways = math.factorial(total)
                    for count in cell:
                        ways //= math.factorial(count)
                    covered += ways * math.prod(
                        share**count for share, count in zip(shares_of, cell, strict=True)
                    )
    assert 0.93 <= covered <= 0.995
