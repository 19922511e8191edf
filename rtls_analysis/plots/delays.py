"""Time to delivery and retries as plots (canonical plot 14 of the fact sheet on measurement)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from rtls_analysis.analysis import delays
from rtls_analysis.analysis.cohorts import NO_GROUP
from rtls_analysis.analysis.delays import End
from rtls_analysis.frames import collected
from rtls_analysis.plots.bars import group_name
from rtls_analysis.plots.drawing import FONT_SIZE, as_shares, at_hand, new_axes, titled
from rtls_analysis.plots.palette import bar_style, colour_of, colours_of

if TYPE_CHECKING:
    import pandas as pd

_TICKS = (0.01, 0.1, 1, 10, 60, 600, 3600, 6 * 3600, 86_400, 5 * 86_400)
_LEAST = 0.01


def _span(seconds: float, _place: int | None = None) -> str:
    """A span of time as people say it.

    >>> _span(0.1), _span(600), _span(86400)
    ('0.1 s', '10 min', '1 d')
    """
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"


def _in_time(ax: Axes, axis: str, least: float, most: float) -> None:
    """Make an axis one of spans of time, logarithmic, with the marks that people know."""
    (ax.set_xscale if axis == "x" else ax.set_yscale)("log")
    scale = ax.xaxis if axis == "x" else ax.yaxis
    scale.set_major_locator(FixedLocator([tick for tick in _TICKS if least <= tick <= most] or [least]))
    scale.set_minor_locator(NullLocator())
    scale.set_major_formatter(FuncFormatter(_span))
    (ax.set_xlim if axis == "x" else ax.set_ylim)(least, most)


@at_hand
def time_to_delivery(
    frame: pd.DataFrame, *, by: str | None = None, largest: int = 6, ax: Axes | None = None
) -> Axes:
    """Draw the share delivered and the share failed after each time, what is still queued between them.

    Parameters
    ----------
    frame
        `deliveries`, or the table of `rtls_analysis.analysis.delays.time_to_delivery`.
    by
        A column of that table, such as `reporting_host` or `recipient_domain`: then the share delivered is drawn for
        each of the largest groups.
    largest
        How many groups.
    ax
        Axes to draw on; new ones by default.
    """
    table = frame if {"end", "seconds"} <= set(frame.columns) else delays.time_to_delivery(frame)
    table = collected(table, ["end", "seconds", *([by] if by else [])])
    ax = new_axes(ax, width=8.4)
    longest = float(table["seconds"].max()) if len(table) else 1.0
    most = max(1.0, longest * 1.3)
    if by is None:
        _competing(ax, table, most)
    else:
        sizes = table[by].astype(object).value_counts()
        shown = sizes.head(largest)
        colours = colours_of([str(name) for name in shown.index])
        for name, count in shown.items():
            part = table[table[by] == name]
            curve = delays.cumulative_incidence(part["seconds"], part["end"])
            label = f"{group_name(name)}  n={count:,}"
            _curve(ax, curve, End.DELIVERED, most, {"color": colours[str(name)]}, label=label)
        if len(sizes) > len(shown):
            ax.plot([], [], " ", label=f"{len(sizes) - len(shown):,} more not drawn")
    _in_time(ax, "x", _LEAST, most)
    as_shares(ax, of="messages by recipient", axis="y", limits=(0, 1))
    ax.set_xlabel("time since arrival (logarithmic)", fontsize=FONT_SIZE)
    ax.legend(frameon=False, fontsize=FONT_SIZE, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    what = "Time to delivery" + (f" by {by.replace('_', ' ')}: delivered" if by else "")
    titled(ax, f"{what}, n = {len(table):,} messages by recipient", note="bands: 95% intervals")
    return ax


def _competing(ax: Axes, table: pd.DataFrame, most: float) -> None:
    """Delivered from below, failed from above: the gap is what was still queued."""
    curve = delays.cumulative_incidence(table["seconds"], table["end"])
    for end, is_below in ((End.DELIVERED, True), (End.FAILED, False)):
        count = int((table["end"] == end).sum())
        style = {"color": colour_of(end)}
        _curve(ax, curve, end, most, style, label=f"{end}  n={count:,}", is_below=is_below, fill=True)
    queued = int((table["end"] == End.QUEUED).sum())
    ax.plot([], [], " ", label=f"between: queued  n={queued:,} at the end")


def _curve(
    ax: Axes,
    curve: pd.DataFrame,
    end: End,
    most: float,
    style: dict[str, Any],
    *,
    label: str,
    is_below: bool = True,
    fill: bool = False,
) -> None:
    """Draw one cumulative incidence as steps with its band; from above where it is not below."""
    times = np.concatenate(([_LEAST], np.maximum(curve.index.to_numpy(dtype=float), _LEAST), [most]))

    def steps(column: str) -> Any:
        values = curve[f"{end}_{column}"].to_numpy(dtype=float)
        values = np.concatenate(([0.0], values, values[-1:] if len(values) else [0.0]))
        return values if is_below else 1 - values

    share = steps("share")
    if fill:
        bar = {name: value for name, value in bar_style(str(end)).items() if name == "facecolor"}
        ax.fill_between(times, share, 0 if is_below else 1, step="post", alpha=0.18, linewidth=0, **bar)
    ax.fill_between(times, steps("low"), steps("high"), step="post", alpha=0.25, linewidth=0, **style)
    ax.step(times, share, where="post", linewidth=1.6, label=label, **style)


@at_hand
def retry_schedule(
    frame: pd.DataFrame, *, by: str = "reporting_host", largest: int = 8, ax: Axes | None = None
) -> Axes:
    """Draw when messages were tried again: for each retry the median time since the first try, and the quartiles.

    Parameters
    ----------
    frame
        `deliveries`, or the table of `rtls_analysis.analysis.delays.retry_schedule`.
    by
        As there.
    largest
        How many schedules are drawn, those with most retries first.
    ax
        Axes to draw on; new ones by default.
    """
    table = frame if "since_first_seconds" in frame else delays.retry_schedule(frame, by=by)
    flat = table.reset_index()
    names = [str(name) for name in table.index.names[:-1]]
    told = flat[names].astype(object).where(flat[names].notna(), NO_GROUP).astype(str)
    label = told.agg(", ".join, axis=1) if len(flat) else flat["retry"].astype(str)
    sizes = flat.groupby(label)["messages"].sum().sort_values(ascending=False, kind="stable")
    shown = sizes.head(largest)
    colours = colours_of([str(name) for name in shown.index])
    ax = new_axes(ax, width=8.4)
    most = float(flat["third_quartile_seconds"].max()) * 1.4 if len(flat) else 10.0
    least = max(_LEAST, float(flat["first_quartile_seconds"].min()) / 1.4) if len(flat) else _LEAST
    for place, name in enumerate(shown.index):
        part = flat[label == name]
        number = part["retry"] + (place - len(shown) / 2) * 0.06
        colour = colours[str(name)]
        ax.vlines(
            number, part["first_quartile_seconds"], part["third_quartile_seconds"], color=colour, linewidth=2
        )
        tried = int(part["messages"].max())
        ax.plot(number, part["since_first_seconds"], "o-", color=colour, markersize=5, linewidth=0.8,
                label=f"{name}  n={tried:,}")  # fmt: skip
    _in_time(ax, "y", least, max(most, least * 10))
    ax.set_ylabel("time since the first try (logarithmic)", fontsize=FONT_SIZE)
    ax.set_xlabel("retry", fontsize=FONT_SIZE)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(shown):
        ax.legend(frameon=False, fontsize=FONT_SIZE, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    left = f"; {len(sizes) - len(shown):,} more not drawn" if len(sizes) > len(shown) else ""
    first = int(flat.loc[flat["retry"] == 1, "messages"].sum())
    titled(ax, f"Retries, n = {first:,} messages tried again", note=f"dots: medians, lines: quartiles{left}")
    return ax
