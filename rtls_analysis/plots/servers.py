"""What the probed servers showed, as plots: how far connections get, certificates, errors of TLSA by unit.

Canonical plots 1, 8 and 15 of the fact sheet on measurement. Each takes a snapshot, or the table that it draws.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from rtls_analysis.analysis import servers
from rtls_analysis.plots.drawing import (
    FONT_SIZE,
    as_shares,
    at_hand,
    height_for,
    in_plural,
    new_axes,
    row_labels,
    said,
    small_note,
    titled,
)
from rtls_analysis.plots.funnels import funnel_bars
from rtls_analysis.plots.palette import bar_style
from rtls_analysis.plots.rates import rate_intervals
from rtls_analysis.store import Snapshot


@at_hand
def probe_funnel(
    snapshot: Snapshot | pd.DataFrame, *, ax: Axes | None = None, title: str = "", **options: Any
) -> Axes:
    """Draw how far a connection gets, from the name to a valid certificate (canonical plot 1).

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.servers.probe_funnel`.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one, without n.
    **options
        Of that function: `unit`.
    """
    table = snapshot if isinstance(snapshot, pd.DataFrame) else servers.probe_funnel(snapshot, **options)
    return funnel_bars(table, title=title or "How far a connection gets", ax=ax)


@at_hand
def certificate_verdicts(
    snapshot: Snapshot | pd.DataFrame, *, ax: Axes | None = None, title: str = "", **options: Any
) -> Axes:
    """Draw what certificates are worth: each unit once, and by every fault of its leaf (canonical plot 8).

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.servers.certificate_verdicts`.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one, without n.
    **options
        Of that function: `unit`.
    """
    table = (
        snapshot if isinstance(snapshot, pd.DataFrame) else servers.certificate_verdicts(snapshot, **options)
    )
    parts = {name: table.xs(name, level="counted") for name in ("first", "all")}
    found = dict.fromkeys(word for part in parts.values() for word in part.index[part["numerator"] > 0])
    words = sorted(
        found, key=lambda word: (word != "valid", list(table.index.get_level_values(1)).index(word))
    )
    ax = new_axes(ax, height=height_for(len(words), per_row=0.44))
    for name, offset, alpha in (("all", 0.18, 0.45), ("first", -0.18, 1.0)):
        for row, word in enumerate(words):
            if word not in parts[name].index:
                continue
            cell = parts[name].loc[word]
            bar = ax.barh(row + offset, cell["rate"], height=0.34, **bar_style(word))
            bar[0].set_alpha(alpha)
            ax.hlines(row + offset, cell["low"], cell["high"], color="#333333", linewidth=1)
            ax.annotate(
                f"{int(cell['numerator']):,}",
                (cell["high"], row + offset),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=FONT_SIZE - 1,
            )
    units = in_plural(table)
    row_labels(ax, [said(word) for word in words])
    as_shares(ax, of=f"{units} with TLS", limits=(0, 1.08))
    note = "full: counted once, by the first that holds; pale: by all that apply; lines: 95% intervals"
    titled(
        ax,
        f"{title or 'What certificates are worth'}, n = {int(table['trials'].max()):,} {units} with TLS",
        note=note,
    )
    return ax


@at_hand
def tlsa_errors_by_unit(
    snapshot: Snapshot | pd.DataFrame, *, ax: Axes | None = None, title: str = "", **options: Any
) -> Axes:
    """Draw the same errors of TLSA by record, set, host and domain (canonical plot 15).

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.servers.tlsa_errors`.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    **options
        Of that function: `rule`.
    """
    table = snapshot if isinstance(snapshot, pd.DataFrame) else servers.tlsa_errors(snapshot, **options)
    counted = ", ".join(
        f"{count:,} {unit}s" for count, unit in zip(table["trials"], table["unit"], strict=True)
    )
    ax = rate_intervals(table, ax=ax, title=title or f"TLSA in error, n = {counted}", colour="#d55e00")
    ax.set_xlabel("share in error, by unit", fontsize=FONT_SIZE)
    note = small_note(table["is_small"])
    if note:
        titled(ax, title or f"TLSA in error, n = {counted}", note=note)
    return ax
