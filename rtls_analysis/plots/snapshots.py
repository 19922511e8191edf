"""Two scans compared, as plots: from which word to which, and what the same domains gained and lost.

Canonical plot 12 of the fact sheet on measurement. Each takes two snapshots, or the table that it draws.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_hex
from matplotlib.pyplot import get_cmap

from rtls_analysis.analysis import snapshots
from rtls_analysis.analysis.snapshots import NO_WORD, NOT_LISTED
from rtls_analysis.plots.drawing import (
    FONT_SIZE,
    SMALL,
    at_hand,
    height_for,
    new_axes,
    row_labels,
    said,
    small_note,
    titled,
)
from rtls_analysis.plots.palette import bar_style, readable_on
from rtls_analysis.store import Snapshot


@at_hand
def transition_matrix(
    before: Snapshot | pd.DataFrame,
    after: Snapshot | None = None,
    *,
    ax: Axes | None = None,
    title: str = "",
    **options: Any,
) -> Axes:
    """Draw from which word (rows) to which (columns) the domains went; who stayed lies on the diagonal.

    Parameters
    ----------
    before, after
        Two scans, or the table of `rtls_analysis.analysis.snapshots.transitions` alone.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    **options
        Of that function: `of`.
    """
    matrix = (
        before if isinstance(before, pd.DataFrame) else _both(snapshots.transitions, before, after, options)
    )
    words = [str(word) for word in matrix.index]
    size = len(words)
    ax = new_axes(ax, width=2.4 + 0.85 * size, height=1.5 + 0.5 * size)
    largest = max(int(matrix.to_numpy().max()) if size else 1, 2)
    shades = get_cmap("Blues")
    scale = LogNorm(1, largest)
    for row, was in enumerate(matrix.index):
        for column, now in enumerate(matrix.columns):
            count = int(matrix.loc[was, now])
            colour = to_hex(shades(0.08 + 0.8 * float(scale(count)))) if count else "#fafafa"
            ax.add_patch(_cell(column, row, colour, is_kept=row == column))
            ax.text(
                column,
                row,
                f"{count:,}" if count else "·",
                ha="center",
                va="center",
                fontsize=FONT_SIZE,
                color=readable_on(colour) if count else "#aaaaaa",
            )
    ax.set_xlim(-0.5, max(size, 1) - 0.5)
    labels = [_label(word) for word in words]
    ax.set_xticks(range(size), labels, fontsize=FONT_SIZE, rotation=25, ha="right", rotation_mode="anchor")
    row_labels(ax, labels)
    ax.set_ylim(max(size, 1) - 0.5, -0.5)
    ax.set_xlabel("after", fontsize=FONT_SIZE)
    ax.set_ylabel("before", fontsize=FONT_SIZE)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)
    total = int(matrix.attrs.get("domains", matrix.to_numpy().sum()))
    of = said(str(matrix.attrs.get("of", "")))
    titled(ax, title or f"{of} in two scans, n = {total:,} domains", note="outlined: unchanged")
    return ax


def _both(function: Any, before: Any, after: Any, options: Any) -> pd.DataFrame:
    if after is None:
        raise ValueError("two scans are compared; give the later one too")
    table: pd.DataFrame = function(before, after, **options)
    return table


def _label(word: str) -> str:
    return word if word in (NOT_LISTED, NO_WORD) else said(word)


def _cell(column: int, row: int, colour: str, *, is_kept: bool) -> Any:
    from matplotlib.patches import Rectangle

    edge = "#333333" if is_kept else "none"
    return Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, facecolor=colour, edgecolor=edge, linewidth=1)


@at_hand
def changes_by_feature(
    before: Snapshot | pd.DataFrame,
    after: Snapshot | None = None,
    *,
    ax: Axes | None = None,
    title: str = "",
    **options: Any,
) -> Axes:
    """Draw what the same domains gained (right) and lost (left), with the net change and its interval.

    Parameters
    ----------
    before, after
        Two scans, or the table of `rtls_analysis.analysis.snapshots.paired_changes` alone.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    **options
        Of that function: `of`, `rule`.
    """
    table = (
        before
        if isinstance(before, pd.DataFrame)
        else _both(snapshots.paired_changes, before, after, options)
    )
    ax = new_axes(ax, height=height_for(len(table), per_row=0.4))
    rows = range(len(table))
    trials = table["trials"].where(table["trials"] > 0)
    ax.barh(rows, table["gained"] / trials * 100, height=0.6, label="gained", **bar_style("gained"))
    ax.barh(rows, -table["lost"] / trials * 100, height=0.6, label="lost", **bar_style("lost"))
    ax.axvline(0, color="#444444", linewidth=0.8)
    ax.hlines(rows, table["low"] * 100, table["high"] * 100, color="black", linewidth=1.2)
    ax.plot(table["difference"] * 100, rows, "o", color="black", markersize=4, label="net, with 95% interval")
    for row, (gained, lost, p) in enumerate(zip(table["gained"], table["lost"], table["p"], strict=True)):
        ax.annotate(
            f"+{gained:,} \N{MINUS SIGN}{lost:,}   p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}",
            (1, row),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=FONT_SIZE - 1,
        )
    marks = [SMALL if small else "" for small in table["is_small"]]
    names = [
        f"{said(str(name))}  n={count:,}{mark}"
        for name, count, mark in zip(table.index, table["trials"], marks, strict=True)
    ]
    row_labels(ax, names)
    ax.set_xlabel("percentage points of the domains told in both scans (McNemar)", fontsize=FONT_SIZE)
    most = int(table["trials"].max()) if len(table) else 0
    note = "   ".join(
        filter(
            None,
            (
                f"{int(table['entered'].max()):,} entered, {int(table['left'].max()):,} left"
                if len(table)
                else "",
                small_note(table["is_small"]),
            ),
        )
    )
    titled(ax, title or f"What the same domains gained and lost, n up to {most:,}", note=note)
    ax.legend(frameon=False, fontsize=FONT_SIZE - 1, ncols=3, loc="upper left", bbox_to_anchor=(0, -0.14))
    return ax
