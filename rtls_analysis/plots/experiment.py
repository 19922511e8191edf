"""What became of the wish for REQUIRETLS as plots, a bar per sender, period or destination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from rtls_analysis.analysis import experiment
from rtls_analysis.analysis.events import PERIODS
from rtls_analysis.outcomes import RequireTls
from rtls_analysis.plots.bars import in_order, is_rates, legend, stacked, units
from rtls_analysis.plots.drawing import as_shares, at_hand, height_for, new_axes, titled

if TYPE_CHECKING:
    import pandas as pd


@at_hand
def requiretls_experiment(
    frame: pd.DataFrame,
    *,
    by: str | Sequence[str] | None = "sender_domain",
    largest: int = 20,
    ax: Axes | None = None,
) -> Axes:
    """Draw what became of the wish for REQUIRETLS; what was not decided is drawn too.

    Parameters
    ----------
    frame
        `deliveries`, or the table of `rtls_analysis.analysis.experiment.requiretls_experiment`.
    by
        As there: ``sender_domain``, ``day``, both, ...
    largest
        How many bars are drawn.
    ax
        Axes to draw on; new ones by default.
    """
    table = frame if is_rates(frame) else experiment.requiretls_experiment(frame, by=by)
    counts = _counts(table, "requiretls")
    flat = table.reset_index()
    names = [str(name) for name in table.index.names[:-1]]
    undecided = flat.groupby(names[0] if len(names) == 1 else names)["unknown"].first()
    counts = counts.assign(**{str(RequireTls.UNDECIDED): undecided})
    order = [str(word) for word in experiment.ASKED]
    title = "What became of the wish for REQUIRETLS"
    return _draw(counts, order, units(table), "that asked for REQUIRETLS", title, largest, ax)


@at_hand
def promises(
    frame: pd.DataFrame,
    *,
    by: str | Sequence[str] | None = "sender_domain",
    of: str = "delivered",
    largest: int = 20,
    ax: Axes | None = None,
) -> Axes:
    """Draw how far deliveries kept the promise of REQUIRETLS.

    Parameters
    ----------
    frame
        `deliveries`, or the table of `rtls_analysis.analysis.experiment.promises`.
    by, of
        As there.
    largest
        How many bars are drawn.
    ax
        Axes to draw on; new ones by default.
    """
    table = frame if is_rates(frame) else experiment.promises(frame, by=by, of=of)
    which = "that asked for it" + (" and were delivered" if of == "delivered" else "")
    order = [str(word) for word in experiment.Promise]
    title = "How far REQUIRETLS was honoured"
    return _draw(_counts(table, "promise"), order, units(table), which, title, largest, ax)


def _counts(table: pd.DataFrame, words: str) -> pd.DataFrame:
    names = [str(name) for name in table.index.names[:-1]]
    keys = names[0] if len(names) == 1 else names
    flat = table.reset_index()
    return flat.pivot_table(index=keys, columns=words, values="numerator", aggfunc="sum", fill_value=0)


def _draw(
    counts: pd.DataFrame, order: list[str], what: str, which: str, title: str, largest: int, ax: Axes | None
) -> Axes:
    trials = counts.sum(axis=1)
    if not set(counts.index.names) & set(PERIODS):
        trials = trials.sort_values(ascending=False, kind="stable")
    shown = trials.head(largest)
    words = [word for word in in_order(counts.columns, order) if counts.loc[shown.index, word].any()]
    ax = new_axes(ax, height=height_for(len(shown)), width=9.6)
    note = stacked(ax, counts.loc[shown.index, words], shown, left_out=len(trials) - len(shown))
    as_shares(ax, of=f"{what} {which}")
    titled(ax, f"{title}, n = {int(trials.sum()):,} {what}", note=note)
    legend(ax, words)
    return ax
