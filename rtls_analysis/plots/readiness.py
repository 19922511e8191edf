"""The readiness funnel, what stops the mail, and readiness under several readings, as plots (canonical 5 and 11)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from rtls_analysis.analysis import readiness
from rtls_analysis.plots.drawing import (
    FONT_SIZE,
    as_shares,
    at_hand,
    height_for,
    in_plural,
    new_axes,
    row_labels,
    said,
    titled,
)
from rtls_analysis.plots.funnels import funnel_bars
from rtls_analysis.plots.palette import bar_style
from rtls_analysis.plots.rates import rate_intervals
from rtls_analysis.store import Snapshot


@at_hand
def readiness_funnel(
    snapshot: Snapshot | pd.DataFrame, *, ax: Axes | None = None, title: str = "", **options: Any
) -> Axes:
    """Draw how many get how far on the way to REQUIRETLS, and beside each stage what stopped the others.

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.readiness.readiness_funnel` for one group.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one, without n.
    **options
        Of that function: `unit`, `order`, `rule`, `rules`.
    """
    table = (
        snapshot if isinstance(snapshot, pd.DataFrame) else readiness.readiness_funnel(snapshot, **options)
    )
    how = ", in the order of the decision table" if table.attrs.get("order") == "decision" else ""
    return funnel_bars(table, title=title or f"Readiness for REQUIRETLS{how}", ax=ax)


@at_hand
def loss_reasons(
    snapshot: Snapshot | pd.DataFrame, *, ax: Axes | None = None, title: str = "", **options: Any
) -> Axes:
    """Draw what stops REQUIRETLS mail: each unit counted once, at its first obstacle, and at all that apply.

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.readiness.loss_reasons` for one group.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one, without n.
    **options
        Of that function: `unit`, `rules`.
    """
    table = snapshot if isinstance(snapshot, pd.DataFrame) else readiness.loss_reasons(snapshot, **options)
    how = table.index.get_level_values("counted")
    every, first = (table[how == name].droplevel("counted") for name in ("all", "first"))
    words = [word for word in dict.fromkeys([*every.index, *first.index]) if word]
    ax = new_axes(ax, width=8.0, height=height_for(len(words), per_row=0.42))
    trials = int(table["trials"].max()) if len(table) else 0
    units = in_plural(table)
    for rows, offset, alpha in ((every, -0.18, 0.45), (first, 0.18, 1.0)):
        part = rows.reindex(words)
        for row, word in enumerate(words):
            rate = part["rate"].iloc[row]
            if rate != rate:
                continue
            bar = ax.barh(row + offset, rate, height=0.34, **bar_style(word))
            bar[0].set_alpha(alpha)
            ax.hlines(
                row + offset, part["low"].iloc[row], part["high"].iloc[row], color="#333333", linewidth=1
            )
            ax.annotate(
                f"{int(part['numerator'].iloc[row]):,}",
                (part["high"].iloc[row], row + offset),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=FONT_SIZE - 1,
            )
    row_labels(ax, [said(word) for word in words])
    highest = float(table["high"].max()) if len(table) else 1.0
    as_shares(ax, of=units, limits=(0, min(1.0, 1.1 * highest) if highest > 0 else 1.0))
    note = "full: counted once, by the first obstacle; pale: by all that apply; lines: 95% intervals"
    titled(ax, f"{title or 'What stops REQUIRETLS mail'}, n = {trials:,} {units}", note=note)
    return ax


@at_hand
def readiness_by_reading(
    snapshot: Snapshot | pd.DataFrame, *, ax: Axes | None = None, title: str = "", **options: Any
) -> Axes:
    """Draw readiness under several readings of the RFCs: how much the answer depends on them.

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.readiness.readings`, without groups.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    **options
        Of that function: `readings`, `yes`.
    """
    table = snapshot if isinstance(snapshot, pd.DataFrame) else readiness.readings(snapshot, **options)
    trials = int(table["trials"].max()) if len(table) else 0
    axes = rate_intervals(
        table, ax=ax, title=title or f"Ready for REQUIRETLS, by reading, n = {trials:,} domains tested"
    )
    if len(table):
        axes.axvline(table["rate"].iloc[0], color="#444444", linewidth=0.8, linestyle=":")
    for row, (gained, lost) in enumerate(zip(table["gained"], table["lost"], strict=True)):
        moves = [f"+{gained:,}" if gained else "", f"\u2212{lost:,}" if lost else ""]
        axes.annotate(
            " ".join(filter(None, moves)),
            (table["high"].iloc[row], row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=FONT_SIZE - 1,
        )
    return axes
