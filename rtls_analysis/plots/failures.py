"""Failures as plots: how often, by time and destination; why; first tries that failed; hosts beside messages.

Each draws a table of `rtls_analysis.analysis.failures`, and takes that too in place of the mail it is made of.
Canonical plots 3, 5 and 17 of the fact sheet on measurement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rtls_analysis.analysis import failures
from rtls_analysis.analysis.events import PERIODS
from rtls_analysis.plots.bars import (
    counted,
    dated,
    days,
    in_order,
    is_rates,
    legend,
    stacked,
    style_of,
    units,
    with_time,
)
from rtls_analysis.plots.drawing import (
    FONT_SIZE,
    as_shares,
    at_hand,
    height_for,
    new_axes,
    row_labels,
    said,
    small_note,
    titled,
)
from rtls_analysis.plots.palette import ORANGE, REMAINING, bar_style
from rtls_analysis.plots.rates import rate_intervals

if TYPE_CHECKING:
    import pandas as pd


@at_hand
def failures_over_time(
    frame: pd.DataFrame, *, every: str = "day", per: str = "message", ax: Axes | None = None
) -> Axes:
    """Draw the share that failed, period by period, with its interval and its bounds (canonical plot 3).

    Parameters
    ----------
    frame
        `deliveries`, `connections`, `bounces` or `tls_reports`; or the table of `failure_rates` by a period.
    every, per
        As for `rtls_analysis.analysis.failures.failure_rates`.
    ax
        Axes to draw on; new ones by default.
    """
    table = frame if is_rates(frame) else failures.failure_rates(frame, by=every, per=per)
    table = with_time(table)
    ax = new_axes(ax)
    at = days(table.index)
    is_open = table["if_unknown_yes"] > table["if_unknown_no"]
    if is_open.any():
        ax.vlines(
            at,
            table["if_unknown_no"],
            table["if_unknown_yes"],
            color=style_of("unknown")["facecolor"],
            linewidth=7,
        )
    ax.vlines(at, table["low"], table["high"], color=REMAINING, linewidth=1.6)
    ax.plot(at, table["rate"], "-", color=REMAINING, linewidth=0.8, alpha=0.6)
    for is_small, face in ((False, REMAINING), (True, "white")):
        part = table[table["is_small"] == is_small]
        ax.plot(
            days(part.index), part["rate"], "o", markerfacecolor=face, markeredgecolor=REMAINING, markersize=5
        )
    dated(ax)
    as_shares(ax, of=f"{units(table)} that failed", axis="y", limits=(0, 1))
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    name = str(table.index.name) if table.index.name in PERIODS else every
    note = "lines: 95% intervals"
    note += ", grey: if what is not known failed or not" if is_open.any() else ""
    note += ", hollow: fewer than 10 trials" if table["is_small"].any() else ""
    titled(ax, f"Failures by {name}, n = {int(table['denominator'].sum()):,} {units(table)}", note=note)
    return ax


@at_hand
def failures_by(
    frame: pd.DataFrame,
    *,
    by: str = "provider",
    per: str = "message",
    largest: int = 20,
    ax: Axes | None = None,
) -> Axes:
    """Draw the share that failed for each destination, provider, host or sender, with its interval.

    The parameters are those of `rtls_analysis.analysis.failures.failure_rates`; `largest` is how many groups are drawn.
    """
    table = frame if is_rates(frame) else failures.failure_rates(frame, by=by, per=per)
    name = said(str(table.index.name or by))
    title = f"Failures by {name}, n = {int(table['denominator'].sum()):,} {units(table)}"
    ax = rate_intervals(table, ax=ax, title=title, largest=largest)
    as_shares(ax, of=f"{units(table)} that failed", limits=None)
    return ax


@at_hand
def repeated_failures(
    frame: pd.DataFrame, *, by: str = "destination", largest: int = 15, ax: Axes | None = None
) -> Axes:
    """Draw what became of messages whose first try failed: delivered later, lost, still queued.

    Parameters
    ----------
    frame
        `deliveries`, or the table of `rtls_analysis.analysis.failures.repeated_failures`.
    by
        As there.
    largest
        How many groups are drawn, those with most failures first.
    """
    table = frame if is_rates(frame) else failures.repeated_failures(frame, by=by)
    failed = table[table["numerator"] > 0].sort_values("numerator", ascending=False, kind="stable")
    shown = failed.head(largest)
    words = ["recovered", "queued", "lost"]
    ax = new_axes(ax, height=height_for(len(shown)))
    note = stacked(ax, shown[words], shown["numerator"], left_out=len(failed) - len(shown))
    as_shares(ax, of="messages whose first try failed")
    whole, tried = int(table["numerator"].sum()), int(table["denominator"].sum())
    share = f" ({whole / tried:.1%})" if tried else ""
    titled(ax, f"First try failed: {whole:,} of {tried:,} messages by recipient{share}", note=note)
    legend(ax, words)
    return ax


# -- why ---------------------------------------------------------------------------------------------------------


@at_hand
def failure_reasons(
    frame: pd.DataFrame,
    *,
    by: str | None = None,
    count: str = "first",
    connections: pd.DataFrame | None = None,
    largest: int = 15,
    ax: Axes | None = None,
) -> Axes:
    """Draw why mail failed or was put off: one bar a reason, or stacked by group (canonical plot 5).

    Parameters
    ----------
    frame
        A mail table, or the table of `rtls_analysis.analysis.failures.failure_reasons`.
    by, count, connections
        As there. Bars of groups are stacked, which needs ``count="first"``: only then do the shares add up.
    largest
        How many groups are drawn.
    """
    if not is_rates(frame):
        frame = failures.failure_reasons(frame, by=by, count=count, connections=connections)
    table = frame.reset_index()
    names = [str(name) for name in frame.index.names[:-1]]
    if len(table[names].drop_duplicates()) > 1:
        if count != "first":
            raise ValueError("reasons that overlap cannot be stacked; give count='first', or no groups")
        return _reasons_stacked(table, names, largest, ax)
    ax = new_axes(ax, height=height_for(len(table)), width=8.4)
    for row, (word, rate) in enumerate(zip(table["reason"], table["rate"], strict=True)):
        ax.barh(row, rate, height=0.62, **style_of(str(word)))
    row_labels(ax, [said(str(word)) for word in table["reason"]])
    as_shares(ax, of=f"{units(table)} that failed or were put off", limits=None)
    counted(ax, table)
    total = int(table["denominator"].max()) if len(table) else 0
    how = "the first by precedence" if count == "first" else "all that apply"
    note = "black: 95% intervals; numbers: counts" if len(table) else ""
    titled(ax, f"Reasons, {how}, n = {total:,} {units(table)}", note=note)
    return ax


def _reasons_stacked(table: pd.DataFrame, names: list[str], largest: int, ax: Axes | None) -> Axes:
    keys = names[0] if len(names) == 1 else names
    counts = table.pivot_table(index=keys, columns="reason", values="numerator", aggfunc="sum", fill_value=0)
    trials = table.groupby(keys)["denominator"].first()
    if not set(names) & set(PERIODS):
        trials = trials.sort_values(ascending=False, kind="stable")
    trials, everyone = trials.head(largest), len(trials)
    words = in_order(counts.columns, [str(word) for word in failures.PRECEDENCE])
    counts = counts.loc[trials.index, words]
    words = [word for word in words if counts[word].any()]
    ax = new_axes(ax, height=height_for(len(counts)), width=9.6)
    note = stacked(ax, counts[words], trials, left_out=everyone - len(trials))
    as_shares(ax, of=f"{units(table)} that failed or were put off")
    titled(ax, f"Reasons, the first by precedence, n = {int(trials.sum()):,} {units(table)}", note=note)
    legend(ax, words)
    return ax


# -- hosts and messages ------------------------------------------------------------------------------------------

_COLOURS = {"host": ORANGE, "message": REMAINING}


@at_hand
def host_and_message_rates(frame: pd.DataFrame, *, hosts: str = "any", ax: Axes | None = None) -> Axes:
    """Draw the rate of hosts beside that of messages, which few hosts decide (canonical plot 17).

    Parameters
    ----------
    frame
        `deliveries`, or the table of `rtls_analysis.analysis.failures.host_and_message_rates` in one group.
    hosts
        As there.
    """
    if not is_rates(frame):
        frame = failures.host_and_message_rates(frame, hosts=hosts)
    lines: list[dict[Any, Any]] = frame.reset_index().to_dict("records")
    places = {measure: place for place, measure in enumerate(failures.MEASURES)}
    lines.sort(key=lambda line: (places[line["measure"]], line["of"]))
    ax = new_axes(ax, height=height_for(len(lines), per_row=0.4))
    for row, line in enumerate(lines):
        colour = _COLOURS[line["of"]]
        low, high = line["if_unknown_no"], line["if_unknown_yes"]
        ax.barh(row, high - low, left=low, height=0.5, **bar_style("unknown"))
        ax.hlines(row, line["low"], line["high"], color=colour, linewidth=2)
        face = "white" if line["is_small"] else colour
        ax.plot(line["rate"], row, "o", color=colour, markersize=7, markerfacecolor=face, clip_on=False)
    row_labels(ax, [f"{said(line['measure'])}: {line['of']}s  n={line['trials']:,}" for line in lines])
    as_shares(ax, of="hosts, or of messages")
    ax.grid(axis="x", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    handles: list[Artist] = [
        Line2D([], [], color=colour, marker="o", linewidth=2, label=f"{of}s")
        for of, colour in _COLOURS.items()
    ]
    if any(line["if_unknown_yes"] > line["if_unknown_no"] for line in lines):
        handles.append(Patch(label="if unknown were no ... yes", **bar_style("unknown")))
    ax.legend(
        handles=handles, frameon=False, fontsize=FONT_SIZE, loc="upper left", bbox_to_anchor=(1.01, 1.0)
    )
    small = small_note(line["is_small"] for line in lines)
    note = "95% intervals; that of messages is over hosts, which decide for many"
    titled(
        ax,
        "Host rate beside message rate, accepted mail",
        note=f"{note}; hollow: {small[2:]}" if small else note,
    )
    return ax
