"""The plots of readiness draw what their tables say, on the Axes that they are given."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest

import rtls_analysis as rtls
from rtls_analysis.analysis import readiness as tables
from rtls_analysis.lab import Lab
from rtls_analysis.plots import readiness as plots


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.mark.parametrize("unit", ["domain", "address"])
def test_the_funnel_as_a_plot(scanned: rtls.Snapshot, unit: str) -> None:
    """A bar a stage, as long as its share; beside it what stopped the others, up to the stage before; counts in words."""
    table = tables.readiness_funnel(scanned, unit=unit)
    ax = plots.readiness_funnel(scanned, unit=unit)
    bars, *stops = ax.containers
    assert [bar.get_width() for bar in bars] == pytest.approx(list(table["share"]))
    reasons = [name for name in table.attrs["reasons"] if table[name].any()]
    assert len(stops) == len(reasons)
    total = table["remaining"].iloc[0]
    for reason, patches in zip(reasons, stops, strict=True):
        assert [bar.get_width() for bar in patches] == pytest.approx(list(table[reason] / total))
    ends = [
        max(patches[row].get_x() + patches[row].get_width() for patches in stops)
        for row in range(1, len(table))
    ]
    assert ends == pytest.approx(list(table["share"])[:-1])
    counts = [re.match(r"[\d,]+", text.get_text()) for text in ax.texts[: len(table)]]
    assert [int(found[0].replace(",", "")) for found in counts if found] == list(table["remaining"])
    assert [label.get_text() for label in ax.get_yticklabels()] == list(table["stage"])
    assert f"n = {total:,}" in ax.get_title(loc="left")
    legend = ax.get_legend() or ax.figure.legends[0]
    assert len({text.get_text() for text in legend.get_texts()}) == len(reasons)
    low, high = ax.get_ylim()
    assert low > high  # the first stage on top


def test_it_draws_on_the_axes_it_is_given(scanned: rtls.Snapshot) -> None:
    """And opens no figure of its own."""
    figure, ax = plt.subplots()
    assert plots.readiness_funnel(scanned, ax=ax) is ax
    assert plt.get_fignums() == [figure.number]


def test_a_plot_of_a_table_is_that_of_its_snapshot(scanned: rtls.Snapshot) -> None:
    """The table behind it may be at hand already."""
    by_table = plots.readiness_funnel(tables.readiness_funnel(scanned))
    by_snapshot = plots.readiness_funnel(scanned)
    for one, other in zip(by_table.containers, by_snapshot.containers, strict=True):
        assert [bar.get_width() for bar in one] == [bar.get_width() for bar in other]


def test_nobody_and_nothing(lab: Lab) -> None:
    """A scan of nobody draws, and saves, without a warning."""
    snapshot = rtls.scan(["nxdomain.test"], progress=False, **lab.scan_options)
    for plot in (plots.readiness_funnel, plots.readiness_by_reading):
        file = io.BytesIO()
        plot(snapshot).figure.savefig(file, format="png")
        assert file.getvalue().startswith(b"\x89PNG")


def test_the_public_name(scanned: rtls.Snapshot) -> None:
    """`rtls.plots.readiness_funnel` is the one that the notebooks use."""
    assert rtls.plots.readiness_funnel is plots.readiness_funnel
    assert rtls.plots.readiness_funnel(scanned).containers
