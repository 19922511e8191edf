"""Funnels: how many pass each stage, and what stops the others, whatever is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.intervals import wilson
from rtls_analysis.analysis.rates import MINIMUM

if TYPE_CHECKING:
    import pandas as pd

FUNNEL_COLUMNS = (
    "stage",
    "remaining",
    "lost",
    "share",
    "low",
    "high",
    "tested",
    "passed",
    "unit",
    "is_small",
)


def funnel(
    ends: pd.DataFrame,
    stages: Sequence[str],
    *,
    unit: str,
    untold: Collection[str],
    by: Sequence[str] = (),
    reasons: Sequence[str] = (),
) -> pd.DataFrame:
    """Count how many pass each stage.

    Parameters
    ----------
    ends
        One row per thing that is counted: `passed` (how many stages it passes, the first one apart) and `reason`
        (what stops it at the next one; empty where it passes all), and the columns of `by`.
    stages
        All stages, the first of which everything passes.
    unit
        What is counted.
    untold
        Reasons that are no conclusion: they are lost, but not in `tested`.
    by
        Columns of the groups.
    reasons
        The order of the columns of reasons; others follow, those of earlier stages first.

    Returns
    -------
    DataFrame
        One row per stage of each group: `FUNNEL_COLUMNS` and a column of counts per reason that stopped any.
    """
    import pandas as pd

    groups: list[tuple[Any, pd.DataFrame]] = (
        list(ends.groupby(list(by), observed=True)) if by else [((), ends)]
    )
    rows = [
        {**dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True)), **row}
        for key, part in groups
        for row in _rows(part, stages, untold)
    ]
    table = pd.DataFrame(
        rows, columns=None if rows else [*by, "stage", "remaining", "lost", "listed", "tested"]
    )
    listed, tested = table["listed"], table["tested"]
    table["share"] = table["remaining"] / listed.where(listed > 0)
    table["low"], table["high"] = wilson(table["remaining"], listed)
    table["passed"] = table["remaining"] / tested.where(tested > 0)
    table["unit"], table["is_small"] = unit, tested < MINIMUM
    known = [name for name in table.columns if name not in (*by, *FUNNEL_COLUMNS, "listed")]
    order = [name for name in reasons if name in known] + [name for name in known if name not in reasons]
    table[order] = table[order].fillna(0).astype("int64")
    table = table[[*by, *FUNNEL_COLUMNS, *order]]
    table.attrs = {"unit": unit, "reasons": order}
    return table


def _rows(ends: pd.DataFrame, stages: Sequence[str], untold: Collection[str]) -> list[Mapping[str, Any]]:
    counts = Counter(zip(ends["passed"].tolist(), ends["reason"].tolist(), strict=True))
    listed = remaining = len(ends)
    rows: list[Mapping[str, Any]] = [
        {"stage": str(stages[0]), "remaining": listed, "lost": 0, "listed": listed, "tested": listed}
    ]
    for number, stage in enumerate(stages[1:]):
        stopped = {str(reason): count for (at, reason), count in sorted(counts.items()) if at == number}
        came, remaining = remaining, remaining - sum(stopped.values())
        rows.append(
            {
                "stage": str(stage),
                "remaining": remaining,
                "lost": came - remaining,
                "listed": listed,
                "tested": came - sum(count for reason, count in stopped.items() if reason in untold),
                **stopped,
            }
        )
    return rows
