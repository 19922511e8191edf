"""Every plot draws its table on the Axes that it is given, shows n, and draws what could not be told."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.axes import Axes

import rtls_analysis as rtls
from rtls_analysis.analysis import (
    concentration,
    deployment,
    policies,
    readiness,
    series,
    servers,
    snapshots,
    vantages,
)
from rtls_analysis.analysis.rates import differences, rates
from rtls_analysis.plots import concentration as plot_concentration
from rtls_analysis.plots import deployment as plot_deployment
from rtls_analysis.plots import policies as plot_policies
from rtls_analysis.plots import rates as plot_rates
from rtls_analysis.plots import readiness as plot_readiness
from rtls_analysis.plots import series as plot_series
from rtls_analysis.plots import servers as plot_servers
from rtls_analysis.plots import snapshots as plot_snapshots
from rtls_analysis.plots import vantages as plot_vantages
from rtls_analysis.store import Snapshot
from tests.analysis.made import made, shares

Draw = Callable[..., Axes]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def later(scanned: rtls.Snapshot) -> Snapshot:
    """The lab a month on: fewer domains, more of them announcing REQUIRETLS, some silent."""
    names = ("mx", "hosts", "sessions", "certificates", "attempts")
    domains = scanned.domains.iloc[30:].reset_index(drop=True)
    domains.loc[domains.index % 9 == 0, "requiretls_offered"] = "all"
    domains.loc[domains.index % 31 == 0, "starttls"] = "unknown"
    domains["rank"] = pd.array(range(1, len(domains) + 1), dtype="Int64") * 50
    frames = {name: scanned.table(name) for name in names}
    manifest = {**scanned.manifest, "started_at": "2027-01-01T00:00:00+00:00"}
    return Snapshot(None, manifest, scanned.roots_pem, {**frames, "domains": domains})


PLOTS: list[tuple[str, Draw, Callable[[Snapshot, Snapshot], Any], dict[str, Any]]] = [
    # plot, its function, what it takes in place of a snapshot, options
    ("readiness_funnel", plot_readiness.readiness_funnel, lambda s, _l: readiness.readiness_funnel(s), {}),
    ("loss_reasons", plot_readiness.loss_reasons, lambda s, _l: readiness.loss_reasons(s), {}),
    ("readiness_by_reading", plot_readiness.readiness_by_reading, lambda s, _l: readiness.readings(s), {}),
    ("deployment_rates", plot_deployment.deployment_rates, lambda s, _l: deployment.deployment(s), {}),
    ("rates_by_unit", plot_deployment.rates_by_unit, lambda s, _l: deployment.unit_rates(s), {}),
    (
        "share_bars",
        plot_deployment.share_bars,
        lambda s, _l: deployment.shares(s, by="provider"),
        {"by": "provider"},
    ),
    ("mechanism_sets", plot_deployment.mechanism_sets, lambda s, _l: deployment.mechanisms(s), {}),
    ("mechanism_matrix", plot_deployment.mechanism_matrix, lambda s, _l: deployment.mechanism_pairs(s), {}),
    ("probe_funnel", plot_servers.probe_funnel, lambda s, _l: servers.probe_funnel(s), {}),
    (
        "certificate_verdicts",
        plot_servers.certificate_verdicts,
        lambda s, _l: servers.certificate_verdicts(s),
        {},
    ),
    ("tlsa_errors_by_unit", plot_servers.tlsa_errors_by_unit, lambda s, _l: servers.tlsa_errors(s), {}),
    ("sts_states", plot_policies.sts_states, lambda s, _l: policies.sts_states(s), {}),
    ("top_providers", plot_concentration.top_providers, lambda s, _l: concentration.providers(s), {}),
    ("lorenz_curve", plot_concentration.lorenz_curve, lambda s, _l: concentration.provider_sizes(s)[0], {}),
    ("server_sizes", plot_concentration.server_sizes, lambda s, _l: concentration.server_sizes(s), {}),
    ("leave_one_out", plot_concentration.leave_one_out, lambda s, _l: concentration.leave_one_out(s), {}),
    ("one_switches", plot_concentration.one_switches, lambda s, _l: concentration.one_switches(s), {}),
    ("agreement_matrix", plot_vantages.agreement_matrix, lambda s, _l: vantages.families(s), {}),
]
PAIRS: list[tuple[str, Draw, Callable[[Snapshot, Snapshot], Any]]] = [
    ("transition_matrix", plot_snapshots.transition_matrix, snapshots.transitions),
    ("changes_by_feature", plot_snapshots.changes_by_feature, snapshots.paired_changes),
    ("agreement_matrix", plot_vantages.agreement_matrix, vantages.agreement),
]


def _words(ax: Axes) -> str:
    """All that is written on a plot."""
    legend = ax.get_legend()
    texts = [*ax.texts, *ax.get_yticklabels(), *ax.get_xticklabels(), *(legend.get_texts() if legend else [])]
    return "\n".join([ax.get_title(loc="left"), *(text.get_text() for text in texts)])


def _png(ax: Axes) -> bytes:
    file = io.BytesIO()
    assert ax.figure is not None
    ax.figure.savefig(file, format="png", dpi=60)
    return file.getvalue()


def _drawn(ax: Axes) -> list[tuple[float, ...]]:
    """Where its bars, patches and lines are."""
    patches = [tuple(patch.get_bbox().bounds) for patch in ax.patches if hasattr(patch, "get_bbox")]
    lines = [tuple(map(float, line.get_xydata().ravel())) for line in ax.lines]
    return [*patches, *lines]


@pytest.mark.parametrize(("name", "draw", "table_of", "options"), PLOTS, ids=[plot[0] for plot in PLOTS])
def test_a_plot_of_a_scan(
    scanned: rtls.Snapshot,
    later: Snapshot,
    name: str,
    draw: Draw,
    table_of: Callable[..., Any],
    options: dict[str, Any],
) -> None:
    """On the Axes that it is given, the same for a snapshot and for its table, with n, without a warning."""
    figure, ax = plt.subplots()
    assert draw(scanned, ax=ax, **options) is ax
    assert plt.get_fignums() == [figure.number]
    assert re.search(r"n (=|up to) ?[\d,]+", _words(ax)), name
    by_table = draw(table_of(scanned, later))
    assert repr(_drawn(by_table)) == repr(_drawn(ax))
    assert _png(by_table).startswith(b"\x89PNG")
    assert getattr(rtls.plots, name) is draw


@pytest.mark.parametrize(("name", "draw", "table_of"), PAIRS, ids=[plot[0] for plot in PAIRS])
def test_a_plot_of_two_scans(
    scanned: rtls.Snapshot, later: Snapshot, name: str, draw: Draw, table_of: Callable[..., Any]
) -> None:
    """Two snapshots, or the table that compares them."""
    figure, ax = plt.subplots()
    assert draw(scanned, later, ax=ax) is ax
    assert plt.get_fignums() == [figure.number]
    assert re.search(r"n (=|up to) [\d,]+", _words(ax)), name
    by_table = draw(table_of(scanned, later))
    assert _drawn(by_table) == _drawn(ax)
    assert _png(by_table).startswith(b"\x89PNG")
    assert getattr(rtls.plots, name) is draw


def test_a_comparison_needs_two(scanned: rtls.Snapshot) -> None:
    """One scan has no transitions."""
    with pytest.raises(ValueError, match="give the later one too"):
        plot_snapshots.transition_matrix(scanned)


def test_the_adoption_curve(scanned: rtls.Snapshot, later: Snapshot) -> None:
    """A line for the list as it was, one for the same domains; counts in words; unknown as a band."""
    table = series.adoption([later, scanned])
    ax = plot_series.adoption_curve([scanned, later])
    moving = table.xs(series.MOVING, level="population")
    assert [list(line.get_ydata()) for line in ax.lines[:1]] == [moving["rate"].tolist()]
    for count, trials in zip(moving["numerator"], moving["trials"], strict=True):
        assert f"{count:,} of {trials:,}" in _words(ax)
    assert "if unknown were no ... yes" in _words(ax)
    assert "n = " in ax.get_title(loc="left")
    assert _png(plot_series.adoption_curve(table)).startswith(b"\x89PNG")
    assert rtls.plots.adoption_curve is plot_series.adoption_curve


def test_adoption_by_rank(later: Snapshot) -> None:
    """A line per feature over the bins of rank; a list without ranks draws nothing, and no error."""
    table = deployment.deployment(later, of=["starttls", "dane"], by="rank_bin")
    ax = plot_deployment.adoption_by_rank(later, of=["starttls", "dane"])
    for line, feature in zip(ax.lines, ("starttls", "dane"), strict=True):
        rows = table.loc[feature]
        assert list(line.get_xdata()) == list(rows.index)
        assert list(line.get_ydata()) == rows["rate"].tolist()
    assert "STARTTLS  n=" in _words(ax)


def test_intervals_bounds_and_small_cells() -> None:
    """A hollow dot and a mark for few trials, a hatched band for the bounds, a word where there is no trial."""
    rows = [("all", "big")] * 12 + [("none", "big")] * 8 + [("unknown", "big")] * 5 + [("all", "small")] * 3
    rows += [("unknown", "silent")] * 2
    world = made(
        [
            {"domain": f"{n}.example", "provider": name, **shares(starttls=word)}
            for n, (word, name) in enumerate(rows)
        ]
    )
    table = rates(world.domains, of="starttls", by="provider")
    ax = plot_rates.rate_intervals(table)
    words = _words(ax)
    assert "big  n=20\n" in words
    assert "small  n=3†" in words
    assert "† fewer than 10 trials" in words
    assert "no trial" in words
    full, hollow = ax.lines[:2]
    assert list(full.get_xdata()) == [0.6]
    assert 1.0 in list(hollow.get_xdata())
    assert hollow.get_markerfacecolor() == "white"
    band = ax.containers[0][0]
    assert band.get_hatch() is not None
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((12 / 25, 17 / 25))
    few = plot_rates.rate_intervals(table, largest=1)
    assert "2 more groups not drawn" in _words(few)


def test_differences() -> None:
    """A dot and an interval around zero, in percentage points, both n shown."""
    frame = pd.DataFrame(
        {"year": [2023] * 100 + [2025] * 50, "tls": [True] * 60 + [False] * 40 + [True] * 45 + [False] * 5}
    )
    table = differences(rates(frame, of="tls", by="year", unit="message"), against=2023)
    ax = plot_rates.rate_differences(table)
    assert ax.collections[-1].get_offsets()[0][0] == pytest.approx(30)
    assert "2025  n=50" in _words(ax)
    assert "n = 100" in _words(ax)


def test_unknown_is_drawn(scanned: rtls.Snapshot) -> None:
    """In every plot of words there is a hatched part, or a hatched band, for what could not be told."""
    for ax in (
        plot_readiness.readiness_funnel(scanned),
        plot_readiness.loss_reasons(scanned),
        plot_readiness.readiness_by_reading(scanned),
        plot_deployment.deployment_rates(scanned),
        plot_deployment.share_bars(scanned, by="tld"),
        plot_servers.probe_funnel(scanned),
        plot_concentration.leave_one_out(scanned),
    ):
        assert any(patch.get_hatch() for patch in ax.patches), ax.get_title(loc="left")
    assert "more not told" in _words(plot_deployment.mechanism_sets(scanned))
    assert "more not known" in _words(plot_concentration.top_providers(scanned))


NOBODY = [plot for plot in PLOTS if plot[0] != "agreement_matrix"]


@pytest.mark.parametrize(("name", "draw", "_table_of", "options"), NOBODY, ids=[plot[0] for plot in NOBODY])
def test_nobody(name: str, draw: Draw, _table_of: Any, options: dict[str, Any]) -> None:
    """A scan of nobody draws, and saves, without a warning."""
    assert _png(draw(made(), **options)).startswith(b"\x89PNG"), name


def test_nobody_twice() -> None:
    """Nor does comparing nobody with nobody."""
    for _name, draw, _table_of in PAIRS:
        assert _png(draw(made(), made())).startswith(b"\x89PNG")
    assert _png(plot_deployment.adoption_by_rank(made())).startswith(b"\x89PNG")
    curve = plot_series.adoption_curve([made(), made(started_at="2027-01-01T00:00:00+00:00")])
    assert _png(curve).startswith(b"\x89PNG")
