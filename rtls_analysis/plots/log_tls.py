"""TLS versions by day and key exchanges in logs as plots (canonical plot 16 of the fact sheet on measurement)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from rtls_analysis.analysis import log_tls
from rtls_analysis.plots.bars import counted, dated, days, is_rates, legend, style_of, units, with_time
from rtls_analysis.plots.drawing import (
    as_counts,
    as_shares,
    at_hand,
    height_for,
    new_axes,
    row_labels,
    titled,
)
from rtls_analysis.schema import TlsVersion

if TYPE_CHECKING:
    import pandas as pd

_LENGTHS = {"hour": 1 / 24, "day": 1.0, "week": 7.0, "month": 28.0}


@at_hand
def tls_versions(frame: pd.DataFrame, *, by: str = "day", ax: Axes | None = None) -> Axes:
    """Draw TLS versions by day, with cleartext and what the log does not tell (canonical plot 16).

    Parameters
    ----------
    frame
        `deliveries` or `connections`, or the table of `rtls_analysis.analysis.log_tls.tls_versions` by a period.
    by
        A period.
    ax
        Axes to draw on; new ones by default.
    """
    table = frame if {"sessions", "tls"} <= set(frame.columns) else log_tls.tls_versions(frame, by=by)
    table = with_time(table)
    by = str(table.index.name or by)
    words = [*(str(word) for word in reversed(TlsVersion)), "version_not_told"]
    parts = table[words].assign(cleartext=table["sessions"] - table["tls"], unknown=table["unknown"])
    used = [str(word) for word in parts.columns if parts[word].any()]
    ax = new_axes(ax)
    at = days(table.index)
    width = 0.86 * min((later - earlier for earlier, later in pairwise(at)), default=_LENGTHS.get(by, 1.0))
    bottom = [0.0] * len(table)
    for word in used:
        heights = parts[word].to_list()
        ax.bar(at, heights, width=width, bottom=bottom, **style_of(word))
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    dated(ax)
    as_counts(ax, of=units(table))
    titled(ax, f"TLS versions by {by}, n = {int(sum(bottom)):,} {units(table)}")
    legend(ax, used)
    return ax


@at_hand
def key_exchanges(frame: pd.DataFrame, *, largest: int = 15, ax: Axes | None = None) -> Axes:
    """Draw how often each key exchange was met under each TLS version (canonical plot 16).

    Parameters
    ----------
    frame
        `deliveries` or `connections`, or the table of `rtls_analysis.analysis.log_tls.key_exchanges` in one group.
    largest
        How many are drawn.
    ax
        Axes to draw on; new ones by default.
    """
    table = (frame if is_rates(frame) else log_tls.key_exchanges(frame)).reset_index()
    shown = table.head(largest)
    ax = new_axes(ax, height=height_for(len(shown)))
    for row, (version, rate) in enumerate(zip(shown["tls_version"], shown["rate"], strict=True)):
        ax.barh(row, rate, height=0.62, **style_of(str(version)))
    row_labels(ax, [_label(*pair) for pair in zip(shown["tls_version"], shown["key_exchange"], strict=True)])
    as_shares(ax, of=f"{units(table)} over TLS", limits=None)
    counted(ax, shown)
    total = int(table["denominator"].max()) if len(table) else 0
    left = f"; {len(table) - len(shown)} more not drawn" if len(table) > len(shown) else ""
    note = f"black: 95% intervals; numbers: counts{left}" if len(table) else ""
    titled(ax, f"Key exchanges, n = {total:,} {units(table)} over TLS", note=note)
    return ax


def _label(version: str, group: str) -> str:
    if version == group == log_tls.NOT_TOLD:
        return "neither told"
    return f"{version}, {group}" if group != log_tls.NOT_TOLD else f"{version}, group {group}"
