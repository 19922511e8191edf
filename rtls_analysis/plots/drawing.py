"""What every plot has in common: axes, scales of shares, counts, legends, and the mark of a small cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, PercentFormatter

from rtls_analysis.analysis.rates import MINIMUM
from rtls_analysis.frames import collected, is_dask
from rtls_analysis.plots.palette import bar_style
from rtls_analysis.schema import BOUNCES, CONNECTIONS, DELIVERIES, TLS_REPORTS
from rtls_analysis.table_files import table_of

if TYPE_CHECKING:
    import pandas as pd

FONT_SIZE = 9
SMALL = "†"
"""The mark of a cell with few trials."""


_P = ParamSpec("_P")
_MAIL = (DELIVERIES, CONNECTIONS, BOUNCES, TLS_REPORTS)


def at_hand(plot: Callable[_P, Axes]) -> Callable[_P, Axes]:
    """Let a plot take Dask frames: results are fetched, tables of mail are counted where they lie."""

    @wraps(plot)
    def draw(*args: _P.args, **kwargs: _P.kwargs) -> Axes:
        known: Any = plot
        ax: Axes = known(*map(_fetched, args), **{name: _fetched(value) for name, value in kwargs.items()})
        return ax

    return draw


def _fetched(value: Any) -> Any:
    is_mail = is_dask(value) and table_of(map(str, getattr(value, "columns", ()))) in _MAIL
    return value if is_mail else collected(value)


def new_axes(ax: Axes | None, *, width: float = 8.0, height: float = 4.4) -> Axes:
    """Give the axes to draw on, new ones where the caller brings none; inches, as in a notebook or on a page."""
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=FONT_SIZE)
    return ax


def height_for(rows: int, *, per_row: float = 0.34, least: float = 2.2) -> float:
    """Give the height of a plot with a row per group, in inches."""
    return max(least, 1.2 + per_row * rows)


def as_shares(ax: Axes, *, of: str, axis: str = "x", limits: tuple[float, float] | None = (0.0, 1.0)) -> None:
    """Label an axis as shares of something, in percent."""
    scale = ax.xaxis if axis == "x" else ax.yaxis
    scale.set_major_formatter(PercentFormatter(1.0))
    scale.set_label_text(f"share of {of}", fontsize=FONT_SIZE)
    if limits is not None:
        (ax.set_xlim if axis == "x" else ax.set_ylim)(*limits)


def as_counts(ax: Axes, *, of: str, axis: str = "y") -> None:
    """Label an axis as counts of something, with thousands told apart."""
    scale = ax.xaxis if axis == "x" else ax.yaxis
    scale.set_major_formatter(
        FuncFormatter(lambda value, _place: f"{value:,.0f}" if value == int(value) else "")
    )
    scale.set_label_text(of, fontsize=FONT_SIZE)


def titled(ax: Axes, title: str, *, note: str = "") -> None:
    """Put the title above, with n in it, and a note in smaller type below it."""
    text = ax.set_title(title, loc="left", fontsize=11)
    if note:
        text.set_text(f"{title}\n")
        ax.annotate(
            note,
            (0, 1),
            xytext=(0, 4),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=FONT_SIZE - 1,
            color="#444444",
        )


def small_note(is_small: Iterable[bool]) -> str:
    """Explain the mark of small cells, where there are any."""
    return f"{SMALL} fewer than {MINIMUM} trials" if any(is_small) else ""


def labelled(groups: Iterable[Any], trials: Iterable[int], is_small: Iterable[bool]) -> list[str]:
    """Name each group with its trials, and mark the small ones."""
    return [
        f"{named(group)}  n={int(count):,}{SMALL if small else ''}"
        for group, count, small in zip(groups, trials, is_small, strict=True)
    ]


def named(group: Any) -> str:
    """Give a group, of one level or several, as it is written in a label.

    >>> named(("example.org", 2026))
    'example.org, 2026'
    """
    return ", ".join(map(named, group)) if isinstance(group, tuple) else str(group)


_SPELT = {
    word.lower(): word
    for word in (
        "DANE",
        "DNS",
        "DNSSEC",
        "EHLO",
        "HTTP",
        "MX",
        "REQUIRETLS",
        "STARTTLS",
        "TLS",
        "TLSA",
        "TLSRPT",
    )
} | {"mta": "MTA", "sts": "MTA-STS", "pkix": "certificate", "nxdomain": "NXDOMAIN"}


def said(word: str) -> str:
    """Give a word of a vocabulary as people read it.

    >>> said("no_starttls"), said("sts_mx_mismatch"), said("mta_sts"), said("")
    ('no STARTTLS', 'MTA-STS MX mismatch', 'MTA-STS', 'ready')
    """
    parts = [_SPELT.get(part, part) for part in str(word).split("_")]
    text = " ".join(parts).replace("MTA MTA-STS", "MTA-STS")
    return text if text else "ready"


def row_labels(ax: Axes, labels: Sequence[str]) -> None:
    """Name the rows, the first one on top."""
    ax.set_yticks(range(len(labels)), labels, fontsize=FONT_SIZE)
    ax.set_ylim(len(labels) - 0.4, -0.6)


def stacked_bars(
    ax: Axes, shares: pd.DataFrame, *, height: float = 0.62, labels: bool = True, least: float = 0.045
) -> None:
    """Draw a horizontal bar per row, its parts by word: the columns, in their order, as shares of the whole."""
    from rtls_analysis.plots.palette import colour_of, readable_on

    left = [0.0] * len(shares)
    for word in shares.columns:
        widths = shares[word].fillna(0).to_numpy(dtype=float)
        ax.barh(range(len(shares)), widths, left=left, height=height, **bar_style(str(word)))
        for row, width in enumerate(widths):
            if labels and width >= least:
                ax.text(
                    left[row] + width / 2,
                    row,
                    f"{width:.0%}",
                    ha="center",
                    va="center",
                    fontsize=FONT_SIZE - 1,
                    color=readable_on(colour_of(str(word))),
                )
            left[row] += float(width)


def in_plural(table: pd.DataFrame) -> str:
    """Name what a table counts, in the plural.

    >>> import pandas as pd
    >>> in_plural(pd.DataFrame({"unit": ["address"]}))
    'addresses'
    """
    unit = str(table["unit"].iloc[0]) if len(table) else "row"
    return f"{unit}es" if unit.endswith("s") else f"{unit}s"


def word_legend(
    ax: Axes, words: Iterable[str], *, title: str = "", below: bool = False, columns: int = 1
) -> None:
    """Explain the colours of words, beside the axes or below them."""
    patches = [Patch(label=said(word), **bar_style(word)) for word in words]
    if not patches:
        return
    place: dict[str, Any] = (
        {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": min(len(patches), 4)}
        if below
        else {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "ncols": columns}
    )
    ax.legend(
        handles=patches,
        title=title or None,
        frameon=False,
        fontsize=FONT_SIZE,
        title_fontsize=FONT_SIZE,
        alignment="left",
        **place,
    )
