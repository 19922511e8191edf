"""Many scans: the same domains apart from a list that changes, and changes between scans no better timed than that."""

from __future__ import annotations

import pandas as pd
import pytest

from rtls_analysis.analysis.series import FIXED, MOVING, adoption, turning_points
from rtls_analysis.store import Snapshot
from tests.analysis.made import made, shares

DAYS = ("2026-10-01T00:00:00+00:00", "2026-11-01T00:00:00+00:00", "2026-12-01T00:00:00+00:00")


def _scan(day: str, **words: str) -> Snapshot:
    return made(
        [{"domain": f"{name}.example", **shares(requiretls_offered=word)} for name, word in words.items()],
        started_at=day,
    )


def _three() -> list[Snapshot]:
    return [
        _scan(DAYS[0], a="none", b="none", c="all", leaves="all"),
        _scan(DAYS[1], a="all", b="unknown", c="all", enters="all"),
        _scan(DAYS[2], a="all", b="some", c="none", enters="all", late="none"),
    ]


def test_the_curve() -> None:
    """In order of time, whatever the order given; the fixed cohort is those of every scan."""
    table = adoption(reversed(_three()))
    times = [pd.Timestamp(day) for day in DAYS]
    assert table.index.get_level_values("at").unique().tolist() == times
    moving, fixed = table.xs(MOVING, level="population"), table.xs(FIXED, level="population")
    assert moving["numerator"].tolist() == [2, 3, 3]
    assert moving["trials"].tolist() == [4, 3, 5]
    assert moving["listed"].tolist() == [4, 4, 5]
    assert moving["entered"].tolist() == [0, 1, 1]
    assert moving["left"].tolist() == [0, 1, 0]
    assert fixed["numerator"].tolist() == [1, 2, 2]
    assert fixed["trials"].tolist() == [3, 2, 3]
    assert fixed["unknown"].tolist() == [0, 1, 0]
    assert fixed["listed"].tolist() == [3, 3, 3]


def test_strict_and_by_group() -> None:
    """The words that count are an argument, and so are groups."""
    table = adoption(_three(), yes="all", by="tld")
    assert table.index.names == ["at", "population", "tld"]
    assert table.xs(MOVING, level="population")["numerator"].tolist() == [2, 3, 2]


def test_a_list_that_grows_is_no_growth() -> None:
    """The count doubles with the list, the ratio stands still, and the fixed cohort says so."""
    first = _scan(DAYS[0], a="all", b="none")
    second = _scan(DAYS[1], a="all", b="none", c="all", d="none")
    table = adoption([first, second])
    assert table.xs(MOVING, level="population")["numerator"].tolist() == [1, 2]
    assert table.xs(MOVING, level="population")["rate"].tolist() == [0.5, 0.5]
    assert table.xs(FIXED, level="population")["numerator"].tolist() == [1, 1]


def test_turning_points_are_intervals() -> None:
    """A change lies between the last scan that told the old state and the first that told the new one."""
    table = turning_points(reversed(_three()))
    times = [pd.Timestamp(day) for day in DAYS]
    found = {row["domain"]: (row["change"], row["after"], row["by"]) for _, row in table.iterrows()}
    assert found == {
        "a.example": ("gained", times[0], times[1]),
        "b.example": ("gained", times[0], times[2]),  # not told in between
        "c.example": ("lost", times[1], times[2]),
    }
    assert len(turning_points(_three(), of="starttls")) == 0


def test_what_cannot_be_followed() -> None:
    """No scan, a scan twice, or one that does not say when it was."""
    with pytest.raises(ValueError, match="no scan to follow"):
        adoption([])
    with pytest.raises(ValueError, match="started at the same time"):
        adoption([_three()[0], _three()[0]])
    undated = _three()[0]
    undated.manifest.pop("started_at")
    with pytest.raises(ValueError, match="does not say in its manifest when"):
        adoption([undated, _three()[1]])
    with pytest.raises(ValueError, match="no feature 'weather'"):
        adoption(_three(), of="weather")
