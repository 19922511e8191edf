"""Many scans as a curve: the rate and the count over time, the same domains apart from all that were listed.

Canonical plot 3 of the fact sheet on measurement. Takes snapshots, or the table that it draws.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from rtls_analysis.analysis import series
from rtls_analysis.analysis.series import FIXED, MOVING
from rtls_analysis.plots.bars import dated, days
from rtls_analysis.plots.drawing import FONT_SIZE, as_shares, at_hand, new_axes, said, small_note, titled
from rtls_analysis.plots.palette import REMAINING, VERMILION, colour_of
from rtls_analysis.store import Snapshot

_LOOKS = {
    MOVING: (REMAINING, "-", "all that were listed"),
    FIXED: (VERMILION, "--", "the same domains in every scan"),
}


@at_hand
def adoption_curve(
    snapshots: Iterable[Snapshot] | pd.DataFrame, *, ax: Axes | None = None, title: str = "", **options: Any
) -> Axes:
    """Draw how a feature spreads: a line for all that were listed, one for the same domains, counts beside the dots.

    Parameters
    ----------
    snapshots
        Scans, or the table of `rtls_analysis.analysis.series.adoption` without groups.
    ax
        Axes to draw on; new ones by default.
    title
        In place of the usual one.
    **options
        Of that function: `of`, `yes`.
    """
    table = snapshots if isinstance(snapshots, pd.DataFrame) else series.adoption(snapshots, **options)
    ax = new_axes(ax, width=8.0, height=4.2)
    for population, (colour, line, label) in _LOOKS.items():
        rows = table.xs(population, level="population")
        at = days(rows.index)
        is_open = rows["if_unknown_yes"].gt(rows["if_unknown_no"])
        if population == MOVING and is_open.any():
            ax.fill_between(
                at,
                rows["if_unknown_no"],
                rows["if_unknown_yes"],
                color=colour_of("unknown"),
                alpha=0.45,
                linewidth=0,
                label="if unknown were no ... yes",
            )
        ax.vlines(at, rows["low"], rows["high"], color=colour, linewidth=1.4)
        ax.plot(at, rows["rate"], line, color=colour, linewidth=1.6, label=label)
        faces = ["white" if small else colour for small in rows["is_small"]]
        ax.scatter(at, rows["rate"], c=faces, edgecolors=colour, s=30, zorder=3, clip_on=False)
    _counts(ax, table)
    dated(ax)
    ax.margins(x=0.1)
    as_shares(ax, of="domains tested", axis="y", limits=None)
    ax.set_ylim(bottom=0)
    ax.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    ax.set_axisbelow(True)
    moving = table.xs(MOVING, level="population")
    counts = moving["trials"]
    span = f"{int(counts.min()):,}" + (f" to {int(counts.max()):,}" if counts.nunique() > 1 else "")
    note = "   ".join(filter(None, ("lines at the dots: 95% intervals", small_note(table["is_small"]))))
    of = said(str(table.attrs.get("of", "")))
    titled(ax, title or f"{of} over {len(moving)} scans, n = {span} domains tested", note=note)
    ax.legend(frameon=False, fontsize=FONT_SIZE, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return ax


def _counts(ax: Axes, table: pd.DataFrame) -> None:
    """Write counts above the higher interval of each scan and below the lower one."""
    moving, fixed = (table.xs(name, level="population") for name in (MOVING, FIXED))
    for day, one, other in zip(days(moving.index), moving.itertuples(), fixed.itertuples(), strict=True):
        is_above = not other.rate > one.rate
        for row, above, population in ((one, is_above, MOVING), (other, not is_above, FIXED)):
            if row.rate != row.rate:
                continue
            ax.annotate(
                f"{row.numerator:,.0f} of {row.trials:,}",
                (day, row.high if above else row.low),
                xytext=(0, 3 if above else -4),
                textcoords="offset points",
                ha="center",
                va="bottom" if above else "top",
                fontsize=FONT_SIZE - 2,
                color=_LOOKS[population][0],
            )
