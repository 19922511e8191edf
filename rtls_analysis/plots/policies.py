"""MTA-STS as a plot: record, where having the policy fails, mode, lifetime, MX names (canonical plot 9)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from rtls_analysis.analysis import policies
from rtls_analysis.analysis.rates import MINIMUM
from rtls_analysis.plots.drawing import (
    FONT_SIZE,
    SMALL,
    as_shares,
    at_hand,
    new_axes,
    row_labels,
    said,
    small_note,
    titled,
)
from rtls_analysis.plots.palette import (
    BLUE,
    BROWN,
    GREEN,
    GREY,
    LIME,
    NAVY,
    ORANGE,
    PALE_BLUE,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    colour_of,
    readable_on,
)
from rtls_analysis.store import Snapshot

_ASPECTS = {
    "record": "record",
    "layer": "having the policy",
    "mode": "mode",
    "max_age": "lifetime",
    "mx": "MX hosts named",
    "misconfigured": "misconfigured",
    "loses_mail": "loses mail",
}
_COLOURS = {
    "DNS": GREY,
    "TCP": BROWN,
    "TLS": VERMILION,
    "certificate": YELLOW,
    "HTTP": BLUE,
    "policy": PURPLE,
    "under a day": ORANGE,
    "under a week": PALE_BLUE,
    "under a month": SKY,
    "under half a year": BLUE,
    "half a year or more": NAVY,
    "valid": GREEN,
    "all": GREEN,
    "some": LIME,
}


@at_hand
def sts_states(
    snapshot: Snapshot | pd.DataFrame, *, ax: Axes | None = None, title: str = "", **options: Any
) -> Axes:
    """Draw how MTA-STS is deployed, and where it fails: a bar per question, its parts named (canonical plot 9).

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.policies.sts_states`.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    **options
        Of that function.
    """
    table = snapshot if isinstance(snapshot, pd.DataFrame) else policies.sts_states(snapshot, **options)
    ax = new_axes(ax, width=9.0, height=4.6)
    labels, small = [], []
    unnamed: dict[str, str] = {}
    for row, (aspect, label) in enumerate(_ASPECTS.items()):
        part = table.loc[["health"]].droplevel(0).loc[[aspect]] if aspect in _HEALTH else table.loc[aspect]
        trials = int(part["trials"].max())
        small.append(bool(trials < MINIMUM))
        labels.append(f"{label}  n={trials:,}{SMALL if small[-1] else ''}")
        if aspect in _HEALTH:
            _health(ax, row, part.iloc[0], ORANGE if aspect == "misconfigured" else VERMILION)
            continue
        left = 0.0
        for word, rate in part["rate"].items():
            if not rate > 0:
                continue
            colour = _COLOURS.get(str(word)) or colour_of(str(word))
            if not _part(ax, row, left, rate, str(word), colour):
                unnamed[said(str(word))] = colour
            left += rate
    if unnamed:
        ax.legend(
            handles=[Patch(facecolor=colour, label=word) for word, colour in unnamed.items()],
            frameon=False,
            fontsize=FONT_SIZE,
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
        )
    row_labels(ax, labels)
    as_shares(ax, of="domains, each bar of those that the one above leaves")
    asked = int(table.loc["record"]["trials"].max())
    with_record = int(table.loc["record"]["numerator"]["valid"])
    heading = f"MTA-STS, n = {asked:,} domains asked, {with_record:,} with a valid record"
    titled(ax, title or heading, note=small_note(small))
    return ax


_HEALTH = ("misconfigured", "loses_mail")


def _part(ax: Axes, row: int, left: float, width: float, word: str, colour: str) -> bool:
    """Draw one part of a bar with its word and share, and tell whether there was room for the word."""
    ax.barh(row, width, left=left, height=0.78, facecolor=colour, edgecolor="white", linewidth=0.5)
    share = f"{width:.1%}" if width < 0.1 else f"{width:.0%}"
    has_room = width >= 0.012 * max(len(said(word)), len(share))
    if has_room:
        ax.text(
            left + width / 2,
            row,
            f"{said(word)}\n{share}",
            ha="center",
            va="center",
            fontsize=FONT_SIZE - 1.5,
            color=readable_on(colour),
        )
    return has_room


def _health(ax: Axes, row: int, cell: pd.Series[Any], colour: str) -> None:
    """Draw a bar with its interval, and its share behind."""
    if not cell["trials"]:
        return
    ax.barh(row, cell["rate"], height=0.6, facecolor=colour)
    ax.hlines(row, cell["low"], cell["high"], color="#333333", linewidth=1)
    ax.annotate(
        f"{cell['rate']:.1%}",
        (cell["high"], row),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=FONT_SIZE - 1,
    )
