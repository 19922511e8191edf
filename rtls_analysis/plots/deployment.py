"""What is deployed, as plots: features by group, by rank and by unit, shares of domains, mechanisms together.

Canonical plots 2, 4, 10 and 17 of the fact sheet on measurement. Each takes a snapshot, or the table that it draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from rtls_analysis.analysis import deployment
from rtls_analysis.analysis.rates import MINIMUM
from rtls_analysis.plots.drawing import (
    FONT_SIZE,
    SMALL,
    as_counts,
    as_shares,
    at_hand,
    height_for,
    in_plural,
    labelled,
    named,
    new_axes,
    row_labels,
    said,
    small_note,
    stacked_bars,
    titled,
    word_legend,
)
from rtls_analysis.plots.palette import REMAINING, colour_of, readable_on
from rtls_analysis.plots.rates import rate_intervals
from rtls_analysis.store import Snapshot


@at_hand
def deployment_rates(
    snapshot: Snapshot | pd.DataFrame,
    *,
    ax: Axes | None = None,
    title: str = "",
    largest: int | None = 25,
    **options: Any,
) -> Axes:
    """Draw who has what: a dot, an interval and the bounds for each feature and group (canonical plot 2).

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.deployment.deployment`.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    largest
        How many rows to draw.
    **options
        Of that function: `of`, `by`, `populations`, `among`, `unit`, `rule`, ...
    """
    table = snapshot if isinstance(snapshot, pd.DataFrame) else deployment.deployment(snapshot, **options)
    names = [
        ": ".join([said(key[0]), *map(named, key[1:])]) if isinstance(key, tuple) else said(key)
        for key in table.index
    ]
    shown = table.set_axis(pd.Index(names))
    shown.attrs = table.attrs
    most = int(table["trials"].max()) if len(table) else 0
    among = f" of those with {said(table.attrs['among'])}" if table.attrs.get("among") else ""
    heading = title or f"What is deployed{among}, n up to {most:,} {in_plural(table)} tested"
    return rate_intervals(shown, ax=ax, title=heading, largest=largest, limits=(0, 1))


@at_hand
def adoption_by_rank(
    snapshot: Snapshot | pd.DataFrame,
    *,
    of: Sequence[str] = ("starttls", "mta_sts", "dane", "requiretls_offered"),
    ax: Axes | None = None,
    title: str = "",
    **options: Any,
) -> Axes:
    """Draw adoption by rank, in bins of 10,000: a line per feature, a band for its interval (canonical plot 4).

    Parameters
    ----------
    snapshot
        A scan of a ranked list, or the table of `rtls_analysis.analysis.deployment.deployment` by ``rank_bin``.
    of
        Features.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    **options
        Of that function.
    """
    if isinstance(snapshot, pd.DataFrame):
        table = snapshot
    else:
        table = deployment.deployment(snapshot, of=of, by="rank_bin", **options)
    ax = new_axes(ax, width=8.0, height=4.0)
    features = list(dict.fromkeys(table.index.get_level_values("feature")))
    for feature in features:
        rows = table.loc[feature]
        rows = rows[
            [not isinstance(first, str) for first in rows.index]
        ]  # those without a rank have no place
        ranks = [int(first) for first in rows.index]
        colour = colour_of(feature)
        ax.fill_between(ranks, rows["low"], rows["high"], color=colour, alpha=0.18, linewidth=0)
        label = f"{said(feature)}  n={int(rows['trials'].sum()):,}"
        ax.plot(ranks, rows["rate"], "-", color=colour, linewidth=1.6, label=label)
        faces = ["white" if small else colour for small in rows["is_small"]]
        ax.scatter(ranks, rows["rate"], c=faces, edgecolors=colour, s=22, zorder=3, clip_on=False)
    ax.set_xlabel("rank, first of its bin", fontsize=FONT_SIZE)
    as_counts(ax, of="rank, first of its bin", axis="x")
    as_shares(ax, of=f"{in_plural(table)} tested", axis="y", limits=None)
    ax.set_ylim(bottom=0)
    most = max((int(table.loc[feature]["trials"].sum()) for feature in features), default=0)
    note = "   ".join(filter(None, ("bands: 95% intervals", small_note(table["is_small"]))))
    titled(ax, title or f"Adoption by rank, n up to {most:,} {in_plural(table)} tested", note=note)
    if features:
        ax.legend(frameon=False, fontsize=FONT_SIZE, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return ax


@at_hand
def rates_by_unit(
    snapshot: Snapshot | pd.DataFrame, *, ax: Axes | None = None, title: str = "", **options: Any
) -> Axes:
    """Draw one feature by several units, which give other rates from the same data (canonical plot 17).

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.deployment.unit_rates`.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    **options
        Of that function: `of`, `units`, `rule`, `traffic`.
    """
    table = snapshot if isinstance(snapshot, pd.DataFrame) else deployment.unit_rates(snapshot, **options)
    of = said(str(table.attrs.get("of", "rate")))
    most = int(table["trials"].max()) if len(table) else 0
    shown = table.assign(unit="unit")
    ax = rate_intervals(shown, ax=ax, title=title or f"{of} by what is counted, n up to {most:,}")
    ax.set_xlabel("share of what was tested, by unit", fontsize=FONT_SIZE)
    return ax


@at_hand
def share_bars(
    snapshot: Snapshot | pd.DataFrame,
    *,
    ax: Axes | None = None,
    title: str = "",
    largest: int | None = 20,
    **options: Any,
) -> Axes:
    """Draw how many of their addresses are a yes, as a bar per group whose parts are words, unknown ones too.

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.deployment.shares`.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    largest
        How many groups to draw.
    **options
        Of that function: `of`, `by`, `populations`.
    """
    table = snapshot if isinstance(snapshot, pd.DataFrame) else deployment.shares(snapshot, **options)
    left_out = max(0, len(table) - largest) if largest is not None else 0
    shown = table.iloc[: len(table) - left_out]
    words = [word for word in table.attrs["words"] if shown[word].any()]
    ax = new_axes(ax, height=height_for(len(shown), least=1.8))
    stacked_bars(ax, shown[words].div(shown["domains"].where(shown["domains"] > 0), axis=0))
    small = shown["domains"] < MINIMUM
    row_labels(ax, labelled(shown.index, shown["domains"], small))
    as_shares(ax, of="domains")
    note = "   ".join(
        filter(None, (small_note(small), f"{left_out} more groups not drawn" if left_out else ""))
    )
    total = int(table["domains"].sum())
    titled(ax, title or f"{said(str(table.attrs.get('of', '')))}, n = {total:,} domains", note=note)
    word_legend(ax, words)
    return ax


@at_hand
def mechanism_sets(
    snapshot: Snapshot | pd.DataFrame,
    *,
    ax: Axes | None = None,
    title: str = "",
    largest: int = 12,
    **options: Any,
) -> Axes:
    """Draw which mechanisms occur together: a bar per combination, and below it what it is made of (canonical plot 10).

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.deployment.mechanisms`.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    largest
        How many combinations to draw.
    **options
        Of that function: `of`, `rule`.
    """
    table = snapshot if isinstance(snapshot, pd.DataFrame) else deployment.mechanisms(snapshot, **options)
    shown = table.head(largest)
    names = [str(name) for name in table.index.names]
    ax = new_axes(ax, width=8.0, height=5.0)
    places = range(len(shown))
    top = 1.15 * float(shown["high"].max()) if len(shown) else 1.0
    step = 0.11 * top  # between the rows of dots, which lie below zero
    at = [-(row + 0.8) * step for row in range(len(names))]
    ax.bar(places, shown["rate"], color=REMAINING, width=0.62)
    ax.vlines(places, shown["low"], shown["high"], color="#333333", linewidth=1)
    for place, (count, high) in enumerate(zip(shown["numerator"], shown["high"], strict=True)):
        ax.annotate(
            f"{count:,}",
            (place, high),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=FONT_SIZE - 1,
        )
    for row, y in enumerate(at):
        ax.axhspan(y - step / 2, y + step / 2, color="white" if row % 2 else "#f4f4f4", zorder=0)
    for place, combination in enumerate(shown.index.to_frame(index=False).to_numpy(dtype=bool)):
        colours = [REMAINING if flag else "#dcdcdc" for flag in combination]
        ax.scatter([place] * len(at), at, s=34, c=colours, zorder=2)
        having = [y for y, flag in zip(at, combination, strict=True) if flag]
        if len(having) > 1:
            ax.vlines(place, min(having), max(having), color=REMAINING, linewidth=1.4, zorder=1)
    shares = [tick for tick in MaxNLocator(5).tick_values(0, top) if 0 <= tick <= top]
    ax.set_yticks(
        [*shares, *at], [*(f"{tick:.0%}" for tick in shares), *map(said, names)], fontsize=FONT_SIZE
    )
    ax.set_ylim(at[-1] - step / 2, top)
    ax.set_xlim(-0.6, max(len(shown), 1) - 0.4)
    ax.axhline(0, color="#333333", linewidth=0.8)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(labelbottom=False, bottom=False, left=False)
    told = int(table["trials"].max()) if len(table) else 0
    untold = int(table["unknown"].max()) if len(table) else 0
    left_out = len(table) - len(shown)
    note = "share of those told; lines: 95% intervals"
    note += f"   {left_out} rarer combinations not drawn" if left_out else ""
    titled(
        ax,
        title or f"Mechanisms together, n = {told:,} domains with a mail host ({untold:,} more not told)",
        note=note,
    )
    return ax


@at_hand
def mechanism_matrix(
    snapshot: Snapshot | pd.DataFrame, *, ax: Axes | None = None, title: str = "", **options: Any
) -> Axes:
    """Draw, among the domains that have one mechanism (rows), the share that has another (columns; canonical plot 10).

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.deployment.mechanism_pairs`.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    **options
        Of that function: `of`, `rule`.
    """
    table = (
        snapshot if isinstance(snapshot, pd.DataFrame) else deployment.mechanism_pairs(snapshot, **options)
    )
    names = list(dict.fromkeys(table.index.get_level_values("given")))
    ax = new_axes(ax, width=1.9 + 0.95 * len(names), height=1.2 + 0.5 * len(names))
    trials = table.groupby("given", sort=False)["trials"].first()
    for row, given in enumerate(names):
        for column, also in enumerate(names):
            if given == also:
                continue
            cell = table.loc[(given, also)]
            is_told = cell["trials"] > 0
            colour = _shade(float(cell["rate"])) if is_told else "#ffffff"
            ax.add_patch(_square(column, row, colour))
            text = f"{cell['rate']:.0%}{SMALL if cell['is_small'] else ''}" if is_told else "-"
            ax.text(
                column, row, text, ha="center", va="center", fontsize=FONT_SIZE, color=readable_on(colour)
            )
    ax.set_xlim(-0.5, max(len(names), 1) - 0.5)
    ax.set_xticks(
        range(len(names)), [said(name) for name in names], fontsize=FONT_SIZE, rotation=20, ha="right"
    )
    row_labels(ax, labelled([said(name) for name in names], trials, [False] * len(names)))
    ax.set_ylim(max(len(names), 1) - 0.5, -0.5)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)
    titled(
        ax,
        title
        or f"Of those with one (rows), the share with another, n = {table.attrs.get('domains', 0):,} domains",
        note=small_note(table["is_small"]),
    )
    return ax


def _square(column: int, row: int, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=colour, edgecolor="none")


def _shade(share: float) -> str:
    """Give a shade of blue, the darker the larger the share."""
    ends = ((0xF2, 0xF6, 0xFA), (0x00, 0x51, 0x86))
    red, green, blue = (round(low + (high - low) * share) for low, high in zip(*ends, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"
