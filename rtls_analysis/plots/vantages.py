"""The same servers seen twice, as a plot: every pair of answers is a cell, the discordant ones stand out.

Canonical plot 13 of the fact sheet on measurement. Takes what it compares, or the table that it draws.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from rtls_analysis.analysis import vantages
from rtls_analysis.plots.drawing import FONT_SIZE, at_hand, in_plural, new_axes, row_labels, said, titled
from rtls_analysis.plots.palette import GREEN, LIGHT_GREY, VERMILION, readable_on
from rtls_analysis.store import Snapshot

_ORDER = (
    "yes",
    "all",
    "valid",
    "match",
    "some",
    "no",
    "none",
    "failed",
    "unknown",
    "not_tested",
    "not_applicable",
)


@at_hand
def agreement_matrix(
    first: Snapshot | pd.DataFrame,
    second: Snapshot | None = None,
    *,
    ax: Axes | None = None,
    title: str = "",
    **options: Any,
) -> Axes:
    """Draw what two vantage points, or two address families, say of the same servers.

    Parameters
    ----------
    first, second
        Two scans from two places; or one scan, to compare IPv4 with IPv6; or the table of
        `rtls_analysis.analysis.vantages.agreement` or `families` alone.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    **options
        Of these functions: `of`, `unit`.
    """
    if isinstance(first, pd.DataFrame):
        table = first
    elif second is not None:
        table = vantages.agreement(first, second, **options)
    else:
        table = vantages.families(first, **options)
    names = [str(name) for name in table.index.names]
    words = sorted({str(word) for key in table.index for word in key}, key=_place)
    size = len(words)
    ax = new_axes(ax, width=2.4 + 0.95 * max(size, 2), height=1.6 + 0.55 * max(size, 2))
    for (one, other), cell in zip(table.index, table.to_dict("records"), strict=True):
        colour = VERMILION if cell["is_discordant"] else GREEN if cell["agrees"] else LIGHT_GREY
        row, column = words.index(str(one)), words.index(str(other))
        ax.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, facecolor=colour, edgecolor="none"))
        ax.text(
            column,
            row,
            f"{cell['numerator']:,}",
            ha="center",
            va="center",
            fontsize=FONT_SIZE,
            color=readable_on(colour),
        )
    labels = [said(word) for word in words]
    ax.set_xlim(-0.5, max(size, 1) - 0.5)
    ax.set_xticks(range(size), labels, fontsize=FONT_SIZE, rotation=25, ha="right", rotation_mode="anchor")
    row_labels(ax, labels)
    ax.set_ylim(max(size, 1) - 0.5, -0.5)
    ax.set_xlabel(names[1], fontsize=FONT_SIZE)
    ax.set_ylabel(names[0], fontsize=FONT_SIZE)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)
    trials = int(table["trials"].max()) if len(table) else 0
    discordant = int(table.loc[table["is_discordant"].astype(bool), "numerator"].sum()) if len(table) else 0
    of = said(str(table.attrs.get("of", "")))
    units = in_plural(table)
    titled(
        ax,
        title or f"{of} seen twice, n = {trials:,} {units}",
        note=f"green: same word; red: {discordant:,} told otherwise; grey: one did not tell",
    )
    return ax


def _place(word: str) -> tuple[int, str]:
    return (_ORDER.index(word) if word in _ORDER else len(_ORDER), word)
