"""What would become of own mail as plots: the totals, and the destinations that carry the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from rtls_analysis.analysis import what_if
from rtls_analysis.outcomes import Obstacle
from rtls_analysis.plots.bars import in_order, legend, style_of
from rtls_analysis.plots.drawing import (
    FONT_SIZE,
    as_counts,
    as_shares,
    at_hand,
    height_for,
    new_axes,
    row_labels,
    said,
    stacked_bars,
    titled,
)
from rtls_analysis.schema import Demand, Prospect

if TYPE_CHECKING:
    import pandas as pd

_UNITS = {
    "messages": "messages",
    "messages_delivered": "messages accepted today",
    "recipients": "recipients",
    "domains": "domains",
}


@at_hand
def what_if_totals(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw what would become of the mail: by messages, recipients and domains, what could not be told among it.

    Parameters
    ----------
    frame
        The table `what_if`.
    ax
        Axes to draw on; new ones by default.
    """
    totals = what_if.what_if_totals(frame)[list(_UNITS)].T
    whole = totals.sum(axis=1)
    ax = new_axes(ax, height=height_for(len(totals), per_row=0.5))
    stacked_bars(ax, totals.div(whole.where(whole > 0), axis=0))
    row_labels(ax, [f"{_UNITS[str(name)]}  n={int(count):,}" for name, count in whole.items()])
    as_shares(ax, of="each")
    demand = Demand(frame["rule"].iloc[0]) if len(frame) else Demand.REQUIRETLS
    titled(ax, f"If all mail had asked: rule {demand}, n = {int(whole['messages']):,} messages")
    legend(ax, [str(word) for word in Prospect])
    return ax


@at_hand
def what_if_losses(
    frame: pd.DataFrame, *, by: str = "recipient_domain", rows: int = 15, ax: Axes | None = None
) -> Axes:
    """Draw the destinations that carry most of the loss, in the colour of what stops the mail there first.

    Parameters
    ----------
    frame
        The table `what_if`.
    by
        ``recipient_domain`` or ``provider``.
    rows
        How many are drawn.
    ax
        Axes to draw on; new ones by default.

    Notes
    -----
    The length of a bar is the mail that is accepted today and would be lost; the figure behind it is the share of all
    such mail, this one and those above it together.
    """
    losses = what_if.what_if_losses(frame, by=by, rows=None)
    shown = losses.head(rows)
    ax = new_axes(ax, height=height_for(len(shown)), width=9.2)
    for row, line in enumerate(shown.to_dict("records")):
        ax.barh(row, line["messages_delivered"], height=0.62, **style_of(str(line["obstacle"])))
        if line["messages_delivered"]:
            text = f"{line['messages_delivered']:,}  ({line['cumulative']:.0%})"
            place = (line["messages_delivered"], row)
            ax.annotate(
                text, place, xytext=(5, 0), textcoords="offset points", va="center", fontsize=FONT_SIZE
            )
    names = [name if isinstance(name, str) else "(none)" for name in shown[by]]
    if by == "provider":
        names = [
            f"{name}  ({domains:,} domains)" for name, domains in zip(names, shown["domains"], strict=True)
        ]
    row_labels(ax, names)
    as_counts(ax, of="messages accepted today that would fail", axis="x")
    ax.margins(x=0.16)
    ax.set_xlim(left=0)
    lost = int(losses["messages_delivered"].sum())
    kind = "providers" if by == "provider" else "domains"
    left = f"; {len(losses) - len(shown):,} more not drawn" if len(losses) > len(shown) else ""
    note = f"in brackets: share of the loss so far{left}" if len(shown) else ""
    titled(ax, f"Destinations that carry the loss, n = {lost:,} messages, {len(losses):,} {kind}", note=note)
    legend(ax, in_order(set(shown["obstacle"].astype(str)), [str(word) for word in Obstacle]))
    return ax


@at_hand
def what_if_obstacles(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw what stops how much of the mail first, by messages accepted today.

    Parameters
    ----------
    frame
        The table `what_if`.
    ax
        Axes to draw on; new ones by default.
    """
    domains = what_if.what_if_domains(frame)
    stopped = domains[domains["verdict"].isin([Prospect.FAILS, Prospect.UNKNOWN])]
    counts = stopped.groupby(stopped["obstacle"].astype(str))["messages_delivered"].agg(["sum", "size"])
    counts = counts.sort_values("sum", ascending=False, kind="stable")
    ax = new_axes(ax, height=height_for(len(counts)))
    for row, (word, line) in enumerate(counts.iterrows()):
        ax.barh(row, line["sum"], height=0.62, **style_of(str(word)))
        text = f"{int(line['sum']):,}  ({int(line['size']):,} domains)"
        ax.annotate(
            text,
            (line["sum"], row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=FONT_SIZE,
        )
    row_labels(ax, [said(str(word)) for word in counts.index])
    as_counts(ax, of="messages accepted today", axis="x")
    ax.margins(x=0.2)
    ax.set_xlim(left=0)
    whole = int(domains["messages_delivered"].sum())
    titled(ax, f"What stops the mail first, n = {whole:,} messages accepted today")
    return ax
