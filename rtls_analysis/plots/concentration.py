"""How much hangs on few providers, as plots: the largest, Lorenz, sizes of servers, one left out, one that switches.

Canonical plots 6, 7 and 18 of the fact sheet on measurement. Each takes a snapshot, or the table that it draws.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from rtls_analysis.analysis import concentration
from rtls_analysis.analysis.rates import MINIMUM
from rtls_analysis.plots.drawing import (
    FONT_SIZE,
    SMALL,
    as_counts,
    as_shares,
    at_hand,
    height_for,
    in_plural,
    named,
    new_axes,
    row_labels,
    said,
    small_note,
    titled,
)
from rtls_analysis.plots.palette import BLUE, GREEN, PALE_BLUE, REMAINING, VERMILION, bar_style, colour_of
from rtls_analysis.store import Snapshot


@at_hand
def top_providers(
    snapshot: Snapshot | pd.DataFrame,
    before: Snapshot | None = None,
    *,
    ax: Axes | None = None,
    title: str = "",
    **options: Any,
) -> Axes:
    """Draw the largest providers with their shares, what their domains have, and the change (canonical plot 6).

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.concentration.providers`.
    before
        An earlier scan.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    **options
        Of that function: `of`, `largest`, `unit`.
    """
    table = (
        snapshot
        if isinstance(snapshot, pd.DataFrame)
        else concentration.providers(snapshot, before, **options)
    )
    ax = new_axes(ax, height=height_for(len(table)))
    rows = range(len(table))
    of = str(table["of"].iloc[0]) if len(table) else ""
    having = table["rate"] * (
        table["having"] / table["having_trials"].where(table["having_trials"] > 0)
    ).fillna(0)
    ax.barh(rows, table["rate"], height=0.66, facecolor=PALE_BLUE, label="its share")
    ax.barh(rows, having, height=0.66, facecolor=GREEN, label=f"of it with {said(of)}, as far as told")
    ax.hlines(rows, table["low"], table["high"], color="#333333", linewidth=1)
    for row, (count, high) in enumerate(zip(table["numerator"], table["high"], strict=True)):
        change = ""
        if "change" in table.columns:
            moved = int(table["change"].iloc[row])
            sign = "+" if moved > 0 else "\N{MINUS SIGN}" if moved < 0 else "±"
            change = f"  ({sign}{abs(moved):,})"
        ax.annotate(
            f"{count:,}{change}",
            (high, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=FONT_SIZE - 1,
        )
    row_labels(ax, [named(provider) for provider in table.index])
    units = in_plural(table)
    highest = float(table["high"].max()) if len(table) else 1.0
    as_shares(ax, of=f"{units} whose provider is known", limits=(0, 1.18 * highest))
    total = int(table["trials"].max()) if len(table) else 0
    untold = int(table["unknown"].max()) if len(table) else 0
    note = "lines: 95% intervals" + (
        "; in brackets: change of the count" if "change" in table.columns else ""
    )
    note += f"; provider of {untold:,} more not known" if untold else ""
    titled(ax, title or f"The largest providers, n = {total:,} {units}", note=note)
    ax.legend(frameon=False, fontsize=FONT_SIZE, loc="lower right")
    return ax


@at_hand
def lorenz_curve(
    snapshot: Snapshot | pd.Series[Any], *, ax: Axes | None = None, title: str = "", unit: str = "domain"
) -> Axes:
    """Draw how unequal providers are: the curve sags the more, the more few of them have (canonical plot 7).

    Parameters
    ----------
    snapshot
        A scan, or what each provider has.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    unit
        ``"domain"``, ``"host"`` or ``"address"``.
    """
    if isinstance(snapshot, pd.Series):
        sizes, unknown = snapshot, 0
        unit = str(sizes.attrs.get("unit", unit))
    else:
        sizes, unknown = concentration.provider_sizes(snapshot, unit=unit)
    table = concentration.lorenz(sizes)
    measures = concentration.concentration(sizes, unknown=unknown, unit=unit, largest=(1, 4))
    ax = new_axes(ax, width=5.4, height=4.6)
    ax.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    ax.fill_between(table["providers"], table["cumulative"], table["providers"], color=PALE_BLUE, alpha=0.5)
    ax.plot(table["providers"], table["cumulative"], color=BLUE, linewidth=1.8)
    as_shares(ax, of="providers, the smallest first")
    as_shares(ax, of=f"{unit}s", axis="y")
    lines = []
    for reading, row in measures.iterrows():
        lines.append(
            f"HHI {row['hhi']:,.0f}, Gini {row['gini']:.2f}, CR1 {row['cr1']:.0%}, CR4 {row['cr4']:.0%}"
        )
        if not unknown:
            break
        lines[-1] = f"{lines[-1]}\n   ({unknown:,} unknown: {reading})"
    ax.text(0.04, 0.96, "\n".join(lines), transform=ax.transAxes, va="top", fontsize=FONT_SIZE)
    total, count = int(table.attrs["total"]), int(table.attrs["providers"])
    titled(ax, title or f"Concentration, n = {total:,} {unit}s at {count:,} providers")
    return ax


@at_hand
def server_sizes(
    snapshot: Snapshot | pd.DataFrame, *, ax: Axes | None = None, title: str = "", **options: Any
) -> Axes:
    """Draw the share of domains at servers up to a size, apart by what they answer (canonical plot 7).

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.concentration.server_sizes`.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    **options
        Of that function: `of`.
    """
    table = (
        snapshot if isinstance(snapshot, pd.DataFrame) else concentration.server_sizes(snapshot, **options)
    )
    ax = new_axes(ax, width=7.0, height=4.0)
    largest = int(table["size"].max()) if len(table) else 1
    for answer, style in (("yes", "-"), ("no", "-"), ("unknown", "--")):
        rows = table[table["said"] == answer]
        if not len(rows):
            continue
        sizes = [0.9, *rows["size"], largest * 1.2]
        steps = [0.0, *rows["cumulative"], 1.0]
        trials = int(rows["trials"].iloc[0])
        label = f"{answer}  n={trials:,}{SMALL if trials < MINIMUM else ''}"
        colour = colour_of("timeout") if answer == "unknown" else colour_of(answer)
        ax.step(sizes, steps, where="post", linestyle=style, linewidth=1.8, color=colour, label=label)
    ax.set_xscale("log")
    ax.set_xlim(0.9, largest * 1.2)
    as_counts(ax, of="domains at the same MX host", axis="x")
    as_shares(ax, of="domains with this answer", axis="y", limits=(0, 1.02))
    ax.grid(color="#e4e4e4", linewidth=0.6)
    ax.set_axisbelow(True)
    of = said(str(table.attrs.get("of", "")))
    total = int(table["domains"].sum())
    small = [trials < MINIMUM for trials in table["trials"]]
    titled(ax, title or f"{of}, by size of the server, n = {total:,} domains", note=small_note(small))
    if len(table):
        ax.legend(frameon=False, fontsize=FONT_SIZE, title=of, title_fontsize=FONT_SIZE, loc="lower right")
    return ax


@at_hand
def leave_one_out(
    snapshot: Snapshot | pd.DataFrame, *, ax: Axes | None = None, title: str = "", **options: Any
) -> Axes:
    """Draw the rate without each of the largest providers, beside that with all (canonical plot 18).

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.concentration.leave_one_out`.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    **options
        Of that function: `of`, `largest`.
    """
    table = (
        snapshot if isinstance(snapshot, pd.DataFrame) else concentration.leave_one_out(snapshot, **options)
    )
    of = said(str(options.get("of", table.attrs.get("of", "requiretls_ready"))))
    return _worlds(table, "without", title or f"{of} without one provider", ax)


@at_hand
def one_switches(
    snapshot: Snapshot | pd.DataFrame, *, ax: Axes | None = None, title: str = "", **options: Any
) -> Axes:
    """Draw the rate if one provider switched, beside that as it is (canonical plot 18).

    Parameters
    ----------
    snapshot
        A scan, or the table of `rtls_analysis.analysis.concentration.one_switches`.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    **options
        Of that function: `of`, `remove`, `largest`.
    """
    table = (
        snapshot if isinstance(snapshot, pd.DataFrame) else concentration.one_switches(snapshot, **options)
    )
    of = said(str(options.get("of", table.attrs.get("of", "requiretls_ready"))))
    return _worlds(table, "if switched:", title or f"{of} if one provider switched", ax)


def _worlds(table: pd.DataFrame, words: str, title: str, ax: Axes | None) -> Axes:
    """Draw rates of worlds that differ by one provider, as steps from the world as it is."""
    ax = new_axes(ax, height=height_for(len(table)))
    base = float(table["rate"].iloc[0])
    rows = range(len(table))
    bounds = table["if_unknown_yes"] - table["if_unknown_no"]
    ax.barh(rows, bounds, left=table["if_unknown_no"], height=0.5, zorder=1, **bar_style("unknown"))
    for row, (rate, change) in enumerate(zip(table["rate"], table["change"], strict=True)):
        colour = REMAINING if not row else GREEN if change > 0 else VERMILION if change < 0 else REMAINING
        ax.hlines(row, min(base, rate), max(base, rate), color=colour, linewidth=3, zorder=2)
        face = "white" if table["is_small"].iloc[row] else colour
        ax.plot(rate, row, "o", color=colour, markerfacecolor=face, zorder=3, clip_on=False)
        text = f"{rate:.1%}" if not row else f"{rate:.1%}  ({100 * change:+.1f} points)"
        ax.annotate(
            text.replace("-", "\N{MINUS SIGN}"),
            (1, row),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=FONT_SIZE - 1,
        )
    ax.axvline(base, color="#444444", linewidth=0.8, linestyle=":")
    names = [f"{words} {named(name)}" if name else "as it is" for name in table.index]
    row_labels(ax, [f"{name}  n={count:,}" for name, count in zip(names, table["trials"], strict=True)])
    ends = float(table[["rate", "if_unknown_yes"]].max().max())
    as_shares(ax, of="domains tested", limits=(0, min(1.0, 1.08 * ends) if ends > 0 else 1.0))
    note = f"n = {int(table['trials'].iloc[0]):,} domains tested; hatched: if unknown were no ... yes   "
    titled(ax, title, note=(note + small_note(table["is_small"])).strip())
    return ax
