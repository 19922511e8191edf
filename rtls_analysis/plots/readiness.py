"""The readiness funnel as a plot."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from rtls_analysis.analysis import readiness
from rtls_analysis.outcomes import Obstacle
from rtls_analysis.plots.palette import OBSTACLES, READY, REMAINING
from rtls_analysis.store import Snapshot


def readiness_funnel(snapshot: Snapshot, *, unit: str = "domain", ax: Axes | None = None) -> Axes:
    """Draw how many get how far on the way to REQUIRETLS, and beside each stage what stopped the others.

    The table behind it is `rtls_analysis.analysis.readiness.readiness_funnel`, with the same `unit`.
    """
    funnel = readiness.readiness_funnel(snapshot, unit=unit)
    total = int(funnel["remaining"].iloc[0])
    if ax is None:
        _, ax = plt.subplots(figsize=(9, 4.6), layout="constrained")
    rows = range(len(funnel))
    shares = funnel["share"].fillna(0)
    colours = [REMAINING] * (len(funnel) - 1) + [READY]
    ax.barh(rows, shares, color=colours, height=0.62)
    drawn: dict[str, None] = {}
    for row, (_, line) in zip(rows, funnel.iterrows(), strict=True):
        left = float(shares.iloc[row])
        for name in funnel.columns[4:]:
            if line[name] and total:
                width = line[name] / total
                colour = OBSTACLES[Obstacle(name)]
                label = name.replace("_", " ") if name not in drawn else None
                ax.barh(
                    row,
                    width,
                    left=left,
                    color=colour,
                    height=0.62,
                    edgecolor="white",
                    linewidth=0.5,
                    label=label,
                )
                left += width
                drawn[name] = None
    for row, (count, share) in enumerate(zip(funnel["remaining"], shares, strict=True)):
        inside = share > 0.16
        ax.annotate(
            f"{count:,}  ({share:.1%})",
            (share if inside else max(share, float(shares.iloc[max(row - 1, 0)])), row),
            xytext=(-6 if inside else 6, 0),
            textcoords="offset points",
            ha="right" if inside else "left",
            va="center",
            color="white" if inside else "black",
            fontsize=9,
        )
    ax.set_yticks(list(rows), list(funnel["stage"]))
    ax.invert_yaxis()
    ax.set_xlim(0, 1.0)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    units = "domains" if unit == "domain" else "(domain, MX host, address)"
    ax.set_xlabel(f"share of {units}")
    ax.set_title(f"Readiness for REQUIRETLS, n = {total:,} {units}", loc="left", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    if drawn:
        ax.legend(
            title="stopped by", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9
        )
    return ax
