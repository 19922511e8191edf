"""What the plots of mail have in common: stacked bars in the colours of words, axes of dates, names of groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.patches import Patch

from rtls_analysis.analysis.experiment import Promise
from rtls_analysis.analysis.rates import MINIMUM
from rtls_analysis.outcomes import RequireTls
from rtls_analysis.plots.drawing import FONT_SIZE, labelled, named, row_labels, said, small_note, stacked_bars
from rtls_analysis.plots.palette import bar_style

if TYPE_CHECKING:
    import pandas as pd

LIKE: Mapping[str, str] = {
    Promise.KEPT: RequireTls.SENT,
    Promise.KEPT_UNTOLD: "trusted",
    Promise.WEAKENED: RequireTls.SENT_UNAUTHENTICATED,
    Promise.DROPPED: RequireTls.NOT_OFFERED,
    Promise.BROKEN: RequireTls.NO_STARTTLS,
    Promise.REFUSED: "failed",
    Promise.NOT_DELIVERED: "delayed",
    "recovered": "delivered",
    "lost": "failed",
    "queued": "delayed",
    "version_not_told": "unknown",
    "not told": "unknown",
    "cleartext": "none",
}
"""Words of the mail analyses that take the colour of one that means the same."""


def style_of(word: str) -> dict[str, Any]:
    """Give the look of a bar for a word."""
    return bar_style(str(LIKE.get(word, word)))


def is_rates(frame: pd.DataFrame) -> bool:
    """Tell a table of rates from one of mail."""
    return {"rate", "denominator", "is_small"} <= set(frame.columns)


def units(table: pd.DataFrame) -> str:
    """Name what a table of rates counts, in the plural."""
    known = {"message and recipient": "messages by recipient", "recipient of a DSN": "recipients of DSNs"}
    unit = str(table["unit"].iloc[0]) if len(table) else "row"
    return known.get(unit, f"{unit}s")


def in_order(words: Iterable[Any], order: Sequence[str]) -> list[str]:
    """Put the words that are there into an order; those that it does not know come last.

    >>> in_order({"b", "x", "a"}, ["a", "b", "c"])
    ['a', 'b', 'x']
    """
    there = {str(word) for word in words}
    return [word for word in order if word in there] + sorted(there - set(order))


def group_name(group: Any) -> str:
    """Name a group; a moment by its day, and its hour where it has one."""
    if isinstance(group, tuple):
        return ", ".join(map(group_name, group))
    if hasattr(group, "strftime"):
        return str(group.strftime("%Y-%m-%d %H:%M").removesuffix(" 00:00"))
    return named(group)


def stacked(ax: Axes, counts: pd.DataFrame, trials: pd.Series[Any], *, left_out: int = 0) -> str:
    """Draw a bar per row, its parts by word as shares of `trials`, and name the rows; gives the note for the title."""
    shares = counts.div(trials.where(trials > 0), axis=0)
    stacked_bars(ax, shares.rename(columns=lambda word: str(LIKE.get(str(word), word))))
    small = trials < MINIMUM
    row_labels(ax, labelled(map(group_name, counts.index), trials, small))
    return "   ".join(filter(None, (small_note(small), f"{left_out} more not drawn" if left_out > 0 else "")))


def legend(ax: Axes, words: Iterable[str]) -> None:
    """Explain the colours of words, beside the axes."""
    patches = [Patch(label=said(word), **style_of(word)) for word in words]
    if patches:
        ax.legend(
            handles=patches, frameon=False, fontsize=FONT_SIZE, loc="upper left", bbox_to_anchor=(1.01, 1.0)
        )


def counted(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the interval of each bar, and write its count behind."""
    ax.hlines(range(len(table)), table["low"], table["high"], color="black", linewidth=1.2)
    for row, (high, number) in enumerate(zip(table["high"], table["numerator"], strict=True)):
        ax.annotate(
            f"{number:,}",
            (high, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=FONT_SIZE,
        )
    ax.set_xlim(0, min(1.12, 1.15 * float(table["high"].max())) if len(table) else 1)


def with_time(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the group of what has no time: it has no place on an axis of time."""
    return table.iloc[[place for place, at in enumerate(table.index) if not isinstance(at, str)]]


def days(moments: Iterable[Any]) -> list[float]:
    """Give moments as matplotlib counts them, in days since 1970."""
    return [moment.timestamp() / 86_400 for moment in moments]


def dated(ax: Axes) -> None:
    """Label the horizontal axis with dates (UTC)."""
    locator = AutoDateLocator(minticks=2, maxticks=8)  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
