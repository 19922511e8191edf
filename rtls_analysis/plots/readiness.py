"""The readiness funnel, and readiness under several readings, as plots."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from rtls_analysis.analysis import readiness
from rtls_analysis.plots.drawing import (
    FONT_SIZE,
    SMALL,
    as_shares,
    new_axes,
    row_labels,
    small_note,
    titled,
    word_legend,
)
from rtls_analysis.plots.palette import READY, REMAINING, bar_style
from rtls_analysis.plots.rates import rate_intervals
from rtls_analysis.store import Snapshot


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
        In place of the usual one.
    **options
        Of that function: `unit`, `order`, `rule`, `rules`.
    """
    table = (
        snapshot if isinstance(snapshot, pd.DataFrame) else readiness.readiness_funnel(snapshot, **options)
    )
    total = int(table["remaining"].iloc[0])
    unit = str(table["unit"].iloc[0])
    ax = new_axes(ax, width=9.0, height=4.4)
    rows = range(len(table))
    shares = table["share"].fillna(0)
    colours = [REMAINING] * (len(table) - 1) + [READY]
    ax.barh(rows, shares, color=colours, height=0.66)
    left = shares.to_numpy(dtype=float)
    reasons = [name for name in table.attrs.get("reasons", ()) if table[name].any()]
    for reason in reasons:
        widths = (table[reason] / total if total else table[reason] * 0.0).to_numpy(dtype=float)
        ax.barh(rows, widths, left=left, height=0.66, **bar_style(reason))
        left = left + widths
    for row, (count, share, small) in enumerate(
        zip(table["remaining"], shares, table["is_small"], strict=True)
    ):
        is_inside = share > 0.2
        ax.annotate(
            f"{count:,}  ({share:.1%}){SMALL if small else ''}",
            (share if is_inside else max(share, float(left[row])), row),
            xytext=(-6 if is_inside else 6, 0),
            textcoords="offset points",
            ha="right" if is_inside else "left",
            va="center",
            color="white" if is_inside else "black",
            fontsize=FONT_SIZE,
        )
    row_labels(ax, [str(stage) for stage in table["stage"]])
    units = f"{unit}es" if unit.endswith("s") else f"{unit}s"
    as_shares(ax, of=f"{units} listed")
    how = ", in the order of the decision table" if table.attrs.get("order") == "decision" else ""
    titled(
        ax,
        title or f"Readiness for REQUIRETLS{how}, n = {total:,} {units}",
        note=small_note(table["is_small"]),
    )
    word_legend(ax, reasons, title="stopped by")
    return ax


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
