"""Rates as dots with their intervals, and with the bounds of what could not be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import offset_copy

from rtls_analysis.plots.drawing import (
    FONT_SIZE,
    as_shares,
    at_hand,
    height_for,
    labelled,
    new_axes,
    row_labels,
    said,
    small_note,
    titled,
)
from rtls_analysis.plots.palette import REMAINING, bar_style

if TYPE_CHECKING:
    import pandas as pd


@at_hand
def rate_intervals(
    table: pd.DataFrame,
    *,
    ax: Axes | None = None,
    title: str = "",
    colour: str = REMAINING,
    largest: int | None = 25,
    limits: tuple[float, float] | None = None,
) -> Axes:
    """Draw a dot and an interval per group, so that a small group looks as uncertain as it is.

    Parameters
    ----------
    table
        What `rtls.rates` gave. The hatched band is from the rate with what could not be told as a no to that with
        it as a yes; a hollow dot marks a group of few trials.
    ax
        Axes to draw on; new ones by default.
    title, colour
        Of the plot.
    largest
        Draw the first so many groups, and say how many are left out.
    limits
        Of the scale; from 0 to what is drawn by default.
    """
    left_out = max(0, len(table) - largest) if largest is not None else 0
    shown = table.iloc[: len(table) - left_out]
    ax = new_axes(ax, height=height_for(len(shown)))
    rows = range(len(shown))
    bounds = shown["if_unknown_yes"] - shown["if_unknown_no"]
    if bounds.gt(0).any():
        ax.barh(rows, bounds, left=shown["if_unknown_no"], height=0.5, zorder=1, **bar_style("unknown"))
    ax.hlines(rows, shown["low"], shown["high"], color=colour, linewidth=1.6, zorder=2)
    for is_small, face in ((False, colour), (True, "white")):
        part = shown["is_small"].to_numpy() == is_small
        ax.plot(
            shown["rate"][part],
            [row for row, flag in zip(rows, part, strict=True) if flag],
            "o",
            markerfacecolor=face,
            markeredgecolor=colour,
            markersize=6,
            clip_on=False,
            zorder=3,
        )
    for row, (rate, low) in enumerate(zip(shown["rate"], shown["low"], strict=True)):
        if low != low:
            ax.annotate(
                "no trial", (0, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
            )
        else:
            ax.annotate(
                f"{rate:.1%}",
                (1, row),
                xycoords=("axes fraction", "data"),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=FONT_SIZE - 1,
            )
    row_labels(ax, labelled(shown.index, shown["trials"], shown["is_small"]))
    unit = str(table["unit"].iloc[0]) if len(table) else "row"
    ends = shown[["high", "if_unknown_yes"]].max().max()
    as_shares(ax, of=f"{unit}s tested", limits=limits or (0.0, min(1.0, 1.08 * ends) if ends > 0 else 1.0))
    ax.grid(axis="x", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    titled(
        ax,
        title or f"{said(table.attrs.get('of', 'rate'))}, n = {int(table['trials'].sum()):,} {unit}s tested",
        note="   ".join(
            filter(
                None, (small_note(shown["is_small"]), f"{left_out} more groups not drawn" if left_out else "")
            )
        ),
    )
    _legend(ax, colour, table.attrs.get("confidence"), has_bounds=bool(bounds.gt(0).any()))
    return ax


def _legend(ax: Axes, colour: str, confidence: float | None, *, has_bounds: bool) -> None:
    label = "rate" + (f" and {confidence:.0%} interval" if confidence else " and interval")
    handles: list[Artist] = [Line2D([], [], color=colour, marker="o", linewidth=1.6, label=label)]
    if has_bounds:
        handles.append(Patch(label="if unknown were no ... yes", **bar_style("unknown")))
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0),
        bbox_transform=offset_copy(ax.transAxes, fig=ax.get_figure(root=True), y=-34, units="points"),
        ncols=2,
        frameon=False,
        fontsize=FONT_SIZE - 1,
    )


@at_hand
def rate_differences(table: pd.DataFrame, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw the difference of each group to the one they are compared with, in percentage points.

    `table` is what `rtls_analysis.analysis.rates.differences` gave.
    """
    ax = new_axes(ax, height=height_for(len(table)))
    rows = range(len(table))
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.hlines(rows, table["low"] * 100, table["high"] * 100, color=REMAINING, linewidth=1.6)
    faces: Sequence[str] = ["white" if small else REMAINING for small in table["is_small"]]
    ax.scatter(table["difference"] * 100, rows, c=faces, edgecolors=REMAINING, clip_on=False, zorder=3)
    row_labels(ax, labelled(table.index, table["trials"], table["is_small"]))
    ax.set_xlabel("difference in percentage points", fontsize=FONT_SIZE)
    ax.grid(axis="x", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    against = int(table["trials_against"].iloc[0]) if len(table) else 0
    titled(ax, title or f"Difference, against n = {against:,}", note=small_note(table["is_small"]))
    return ax
