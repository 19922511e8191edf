"""A funnel as bars: what remains at each stage, and beside it what stopped the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from rtls_analysis.plots.drawing import (
    FONT_SIZE,
    SMALL,
    as_shares,
    in_plural,
    new_axes,
    row_labels,
    small_note,
    titled,
    word_legend,
)
from rtls_analysis.plots.palette import READY, REMAINING, bar_style

if TYPE_CHECKING:
    import pandas as pd

_INSIDE = 0.2  # a bar this long has room for its count


def funnel_bars(table: pd.DataFrame, *, title: str, ax: Axes | None = None) -> Axes:
    """Draw a table of `rtls_analysis.analysis.funnels.funnel`, of one group; the title gets n behind it."""
    total = int(table["remaining"].iloc[0]) if len(table) else 0
    units = in_plural(table)
    ax = new_axes(ax, width=9.0, height=1.2 + 0.4 * len(table))
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
        is_inside = share > _INSIDE
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
    as_shares(ax, of=f"{units} listed")
    titled(ax, f"{title}, n = {total:,} {units}", note=small_note(table["is_small"]))
    word_legend(ax, reasons, title="stopped by", columns=1 if len(reasons) <= 14 else 2)
    return ax
