"""The same servers seen twice, as plots: every pair of answers is a cell, and every reason to differ a bar.

Canonical plot 13 of the fact sheet on measurement. Takes what it compares, or the table that it draws.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from rtls_analysis.analysis import snapshots, vantages
from rtls_analysis.analysis.sights import Difference, Sight
from rtls_analysis.plots.bars import counted
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
from rtls_analysis.plots.palette import GREEN, LIGHT_GREY, VERMILION, bar_style, readable_on
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


_LIKE = {
    Difference.ONE_ONLY: "entered",
    Difference.LEFT_ALONE: "not_sampled",
    Difference.INJECTED_TEXT: "failed",
    Difference.REQUIRETLS_NOT_OFFERED: "requiretls_not_offered",
    Difference.TLS_VERSION: "tls_too_old",
    Difference.CERTIFICATE: "certificate_unverified",
    Difference.VERDICT: "certificate_expired",
    Difference.CAPABILITIES: "changed",
    Difference.CIPHER: "TLSv1.2",
}
"""Reasons that take the colour of a word that means something like it; the others have their own."""


@at_hand
def vantage_reasons(
    first: Snapshot | pd.DataFrame,
    second: Snapshot | None = None,
    *,
    ax: Axes | None = None,
    title: str = "",
    **options: Any,
) -> Axes:
    """Draw why vantages tell otherwise of the same servers: a bar per reason, a server counted once, by the first.

    Parameters
    ----------
    first, second
        A scan from each of several vantages, two scans, or the table of
        `rtls_analysis.analysis.snapshots.vantage_reasons`.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    **options
        Of that function.
    """
    table = first if isinstance(first, pd.DataFrame) else snapshots.vantage_reasons(first, second, **options)
    reasons = table[(table.index.get_level_values("verdict") == Sight.DIFFERS) & (table["numerator"] > 0)]
    index: Any = table.index
    pairs = index.droplevel(["verdict", "reason"]).unique()
    names = [
        said(reason) if len(pairs) == 1 else f"{one} / {other}: {said(reason)}"
        for one, other, _verdict, reason in reasons.index
    ]
    ax = new_axes(ax, width=8.0, height=height_for(len(reasons), per_row=0.36))
    for row, (reason, rate) in enumerate(
        zip(reasons.index.get_level_values("reason"), reasons["rate"], strict=True)
    ):
        ax.barh(row, rate, height=0.62, **bar_style(_LIKE.get(Difference(reason), reason)))
    counted(ax, reasons)
    row_labels(ax, names)
    as_shares(ax, of=in_plural(table), limits=None)
    same = table[table.index.get_level_values("verdict") == Sight.SAME]
    shown = (
        " and ".join(pairs[0])
        if len(pairs) == 1
        else f"{len({name for pair in pairs for name in pair})} vantages"
    )
    trials = int(table["trials"].max()) if len(table) else 0
    agreed = "".join(f"they agree on {row['numerator']:,}" for row in same.to_dict("records")[:1])
    counted_once = "each counted once, by the first reason; lines: 95% intervals"
    usual = f"Where {shown} differ, n = {trials:,} {in_plural(table)}" if len(table) else "Nothing to compare"
    note = "; ".join(filter(None, (agreed if len(pairs) == 1 else "", counted_once)))
    titled(ax, title or usual, note=note)
    return ax
