"""Rates that say what they count: numerator, denominator, unit, interval, and what could not be told.

No function gives a bare percentage. The denominator is what was conclusively tested; beside each rate stand its two
bounds, what could not be told taken for a no and for a yes.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.cohorts import NO_GROUP, SOURCES, named, row_labels, row_values, unit_of
from rtls_analysis.analysis.declared import declared, table_to_declare
from rtls_analysis.analysis.intervals import CONFIDENCE, cluster_spread, difference, wilson
from rtls_analysis.analysis.words import Answers, Said, answers
from rtls_analysis.frames import Frame, collected, is_dask, mapped, tallied

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

MINIMUM = 10
"""Trials below which a cell is marked as small."""

RATE_COLUMNS = (
    "numerator",
    "denominator",
    "unit",
    "rate",
    "low",
    "high",
    "trials",
    "unknown",
    "not_tested",
    "not_applicable",
    "if_unknown_no",
    "if_unknown_yes",
    "is_small",
)


class ArtefactWarning(UserWarning):
    """A figure that looks like a finding and may be an artefact of the measurement."""


def rates(
    frame: Frame,
    *,
    of: str,
    by: str | Sequence[str] | pd.Series[Any] | None = None,
    yes: str | Collection[Any] | None = None,
    unknown: Collection[str] | None = None,
    not_tested: Collection[str] | None = None,
    unit: str | None = None,
    weights: str | pd.Series[Any] | None = None,
    clusters: str | pd.Series[Any] | None = None,
    counts: str | None = None,
    confidence: float = CONFIDENCE,
    minimum: int = MINIMUM,
) -> pd.DataFrame:
    """Count how often a column says yes, for each group, with everything that a reader needs to judge it.

    Parameters
    ----------
    frame
        Any table: one row is one trial. Equal rows of a Dask frame are counted where they lie.
    of
        The column that answers. Flags answer by themselves, words by their vocabulary
        (`rtls_analysis.analysis.words`): for a `DomainShare` both ``all`` and ``some`` are a yes, which is the rule
        *any address*; ``yes="all"`` is the rule *every address*.
    by
        The groups: columns, or names that `rtls_analysis.analysis.cohorts` derives (``tld``, ``rank_band``,
        ``rank_bin``, ``provider``, ``family``), or a Series of labels. All rows are one group by default.
    yes, unknown, not_tested
        Words that count as such instead; all others of the vocabulary are a no, unless they do not apply. A
        missing value does not apply.
    unit
        What one row is; told from the columns by default.
    weights
        Column of weights, or a Series of them, of the frame's own index or by domain (then a domain without one
        weighs nothing), such as one's own traffic. ``"rank"`` weighs a domain by 1/rank.
    clusters
        Column, or a Series, of what decides for several rows at once, such as ``provider``; a row without one
        stands alone.
    counts
        Column that tells for how many trials a row stands, in a table of which equal rows were counted before.
    confidence
        Of the intervals.
    minimum
        Trials below which a group is marked as small.

    Returns
    -------
    DataFrame
        One row per group, its index; groups of text by size, others in their own order. `numerator` and
        `denominator` (what was conclusively tested; weighted sums where there are weights), `unit`, `rate`,
        `low`, `high` (fractions, Wilson), `trials` (conclusively tested rows), `unknown`, `not_tested`,
        `not_applicable` (rows), `if_unknown_no`, `if_unknown_yes` (bounds of the rate) and `is_small`. With
        weights or clusters also `effective_trials`, on which the interval stands (Kish's number, or the trials
        divided by the design effect); with clusters `clusters`, `standard_error` and `design_effect`.

    Warns
    -----
    ArtefactWarning
        The unit cannot be told; or nothing is a yes and most was not tested, so that 0 % would be no finding.

    Notes
    -----
    A full scan of a list has no sampling error about that list: the interval speaks about something wider, such
    as the next list of its kind. A group without a trial has no rate.

    Examples
    --------
    >>> import pandas as pd
    >>> domains = pd.DataFrame({"domain": list("abcd"), "starttls": ["all", "none", "unknown", "all"]})
    >>> rates(domains, of="starttls")[["numerator", "denominator", "unit", "if_unknown_no", "if_unknown_yes"]]
           numerator  denominator    unit  if_unknown_no  if_unknown_yes
    group
    all            2            3  domain            0.5            0.75
    """
    import pandas as pd

    if of not in frame.columns:
        raise ValueError(f"no column {of!r} to count; there are {', '.join(map(str, frame.columns))}")
    given = _Given(by, weights, clusters)
    asked = mapped(
        given.columns_in(frame),
        _asked,
        columns=given.needed(of, counts),
        of=of,
        given=given,
        counts=counts,
        table=table_to_declare(frame),
    )
    if is_dask(frame):
        asked = tallied(asked, [name for name in asked.columns if name != _COUNT], counts=_COUNT)
    rows = asked.pop(_COUNT).to_numpy()
    told = answers(asked.pop(_OF).rename(of), yes, unknown, not_tested)
    if unit is None and (unit := unit_of(frame)) is None:
        warnings.warn(
            "what one row is cannot be told from its columns, and the same data gives other rates by other units;"
            " give unit=",
            ArtefactWarning,
            stacklevel=2,
        )
        unit = "row"
    if artefact := untested(told, of, rows):
        warnings.warn(artefact, ArtefactWarning, stacklevel=2)

    labels = [name for name in asked.columns if name not in (_WEIGHT, _CLUSTER)]
    keys = pd.DataFrame({name: named(asked[label]) for name, label in zip(given.names, labels, strict=True)})
    table = _rates(
        told,
        keys=keys,
        by_group=by is not None,
        rows=rows,
        weights=None if weights is None else asked[_WEIGHT].to_numpy(),
        clusters=None if clusters is None else _clusters(asked[_CLUSTER]),
        confidence=confidence,
    )
    table.insert(2, "unit", unit)
    table["is_small"] = table["trials"] < minimum
    table.attrs = {"of": of, "yes": list(told.yes), "confidence": confidence, "minimum": minimum}
    return table


_OF, _BY, _COUNT, _WEIGHT, _CLUSTER = "of", "by", "count", "weight", "cluster"


class _Given:
    """What a caller groups, weighs and clusters by: names of columns, or Series, which may be Dask's."""

    def __init__(self, by: Any, weights: Any, clusters: Any) -> None:
        import pandas as pd

        one = isinstance(by, (str, pd.Series)) or is_dask(by)
        self.by: list[Any] | None = None if by is None else [by] if one else list(by)
        self.weights = weights
        self.clusters = clusters
        self.names = (
            ["group"] if by is None else list(dict.fromkeys(_label_of(item) for item in self.by or ()))
        )

    def columns_in(self, frame: Frame) -> Frame:
        """Put Series of Dask's into the frame that they belong to, as columns; from then on they are names."""
        added: dict[str, Any] = {}

        def placed(item: Any, name: str) -> Any:
            if is_dask(item) and is_dask(frame) and item.index.dtype.kind == "i":
                added[name] = item
                return name
            return _by_domain(collected(item)) if is_dask(frame) else collected(item)

        if self.by is not None:
            self.by = [placed(item, f"_by_{number}") for number, item in enumerate(self.by)]
        self.weights = placed(self.weights, "_weights")
        self.clusters = placed(self.clusters, "_clusters")
        return frame.assign(**added) if added else frame

    def needed(self, of: str, counts: str | None) -> list[str]:
        """Name the columns that have to be looked at."""
        told = (of, counts, *(self.by or ()), self.weights, self.clusters, *SOURCES)
        return [name for name in told if isinstance(name, str)]


def _label_of(item: Any) -> str:
    name = item if isinstance(item, str) else item.name
    return "group" if name is None else str(name)


def _by_domain(values: Any) -> Any:
    """Refuse a Series that is of the rows of a Dask frame: these have no index to find them by."""
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    if isinstance(values, pd.Series) and is_numeric_dtype(values.index.dtype):
        raise ValueError(
            "a Series of the rows of a Dask frame has to be a Dask one; else give one value for each domain"
        )
    return values


def _asked(
    frame: pd.DataFrame, *, of: str, given: _Given, counts: str | None, table: str | None
) -> pd.DataFrame:
    """Give what has to be known of each row: what it answers, its labels, weight and cluster, and how many it is."""
    import pandas as pd

    frame = declared(frame, table)
    labels = row_labels(frame, given.by)
    columns: dict[str, Any] = {_OF: frame[of].reset_index(drop=True)}
    columns |= {f"{_BY} {number}": labels[name] for number, name in enumerate(labels.columns)}
    if given.weights is not None:
        columns[_WEIGHT] = _weights(frame, given.weights)
    if given.clusters is not None:
        columns[_CLUSTER] = row_labels(frame, given.clusters).iloc[:, 0]
    columns[_COUNT] = 1 if counts is None else frame[counts].to_numpy(dtype="int64")
    return pd.DataFrame(columns)


def untested(told: Answers, of: str, rows: npt.NDArray[np.int64] | None = None) -> str:
    """Say that a share of 0 % would be no finding, where nothing is a yes and most was not tested.

    `rows` tells how many there are of each.
    """
    import numpy as np

    each = np.ones(len(told.said), dtype=np.int64) if rows is None else rows
    skipped, yes, no = (int(each[told.where(what)].sum()) for what in (Said.NOT_TESTED, Said.YES, Said.NO))
    if yes or not skipped or skipped < no:
        return ""
    return (
        f"{of} was not tested in {skipped:,} of {int(each.sum()):,} rows: a share of 0 % is no finding here"
    )


def _rates(
    told: Answers,
    *,
    keys: pd.DataFrame,
    by_group: bool,
    rows: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64] | None,
    clusters: pd.DataFrame | None,
    confidence: float,
) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    is_yes, is_trial = told.where(Said.YES), told.where(Said.YES) | told.where(Said.NO)
    weight = np.ones(len(is_yes)) if weights is None else weights
    parts = pd.DataFrame(
        {
            "numerator": rows * weight * is_yes,
            "denominator": rows * weight * is_trial,
            "open": rows * weight * told.where(Said.UNKNOWN),
            "squares": rows * weight**2 * is_trial,
            "trials": rows * is_trial,
            "unknown": rows * told.where(Said.UNKNOWN),
            "not_tested": rows * told.where(Said.NOT_TESTED),
            "not_applicable": rows * told.where(Said.NOT_APPLICABLE),
        }
    )
    labels = [keys[name] for name in keys.columns]
    table = parts.groupby(labels, observed=by_group).sum()  # all rows are one group also where there is none
    yes, tested, is_open = (table[name].to_numpy() for name in ("numerator", "denominator", "open"))
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = yes / tested
        effective = tested**2 / table["squares"].to_numpy()
        bounds = yes / (tested + is_open), (yes + is_open) / (tested + is_open)
    extra = {"effective_trials": effective}
    if clusters is not None:
        alone = clusters["is_alone"].to_numpy()
        equal = np.where(alone, rows, 1)  # rows that stand alone are as many clusters
        sizes = parts[["numerator", "denominator"]].div(equal, axis=0).assign(equal=equal)
        by_cluster = sizes.groupby([*labels, clusters["cluster"]], observed=True)
        sums = by_cluster.agg({"numerator": "sum", "denominator": "sum", "equal": "max"})
        extra = _over_clusters(sums, table, rate)
        effective = extra["effective_trials"]
    low, high = wilson(rate * effective, effective, confidence=confidence)
    count = "int64" if weights is None else "float64"
    result = pd.DataFrame(
        {
            "numerator": yes.astype(count),
            "denominator": tested.astype(count),
            "rate": rate,
            "low": low,
            "high": high,
            **{name: table[name] for name in ("trials", "unknown", "not_tested", "not_applicable")},
            "if_unknown_no": bounds[0],
            "if_unknown_yes": bounds[1],
            **(extra if weights is not None or clusters is not None else {}),
        },
        index=table.index,
    )
    return _in_order(result, keys)


def _over_clusters(
    sums: pd.DataFrame, table: pd.DataFrame, rate: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.float64]]:
    """Sum up the clusters of each group of a table.

    `sums` has a row for each group and cluster, and how many there are that are `equal`.
    """
    import numpy as np
    import pandas as pd

    sums = sums[sums["denominator"] > 0].droplevel(-1)
    group = table.index.get_indexer(sums.index)
    y, m, equal = (sums[name].to_numpy() for name in ("numerator", "denominator", "equal"))
    squares = (y - rate[group] * m) ** 2
    of_group = (
        pd.DataFrame({"squares": equal * squares, "m": equal * m, "m2": equal * m * m, "clusters": equal})
        .groupby(group)
        .sum()
        .reindex(range(len(table)), fill_value=0)
    )
    squares, total, total2, clusters = (of_group[name].to_numpy(dtype=float) for name in of_group.columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        decisions = total**2 / total2
    trials = table["trials"].to_numpy(dtype=float)
    error, effect, effective = cluster_spread(rate, squares, total, trials, clusters, decisions)
    return {
        "effective_trials": effective,
        "clusters": clusters.astype("int64"),
        "standard_error": error,
        "design_effect": effect,
    }


def _weights(frame: pd.DataFrame, weights: str | pd.Series[Any]) -> npt.NDArray[np.float64]:
    import numpy as np

    if isinstance(weights, str) and weights == "rank":
        values = 1 / row_values(frame, "rank").to_numpy(dtype=float, na_value=np.nan)
    else:
        values = row_values(frame, weights).to_numpy(dtype=float, na_value=0.0)
    if (values < 0).any():
        raise ValueError("a weight is negative; give weights of 0 or more")
    return np.nan_to_num(values, nan=0.0, posinf=0.0)


def _clusters(labels: pd.Series[Any]) -> pd.DataFrame:
    """Number each row's cluster; a row without one is a cluster of its own, and `is_alone`."""
    import numpy as np
    import pandas as pd

    labels = labels.astype(object)
    codes, _found = pd.factorize(labels)
    alone = (labels.isna() | (labels == NO_GROUP)).to_numpy()
    codes[alone] = -1 - np.arange(int(alone.sum()))
    return pd.DataFrame({"cluster": codes, "is_alone": alone})


def _in_order(table: pd.DataFrame, keys: pd.DataFrame) -> pd.DataFrame:
    """Put groups of text by size, the largest first; others stay in the order of their values."""
    import pandas as pd
    from pandas.api.types import is_object_dtype, is_string_dtype

    names = list(keys.columns)
    rows = table.reset_index()
    by = []
    for name in names:
        dtype = keys[name].dtype
        if isinstance(dtype, pd.CategoricalDtype):
            by_size = not dtype.ordered
        else:
            by_size = is_object_dtype(dtype) or is_string_dtype(dtype)
        if by_size:
            sizes = rows.groupby(name, observed=True)["denominator"].transform("sum")
            rows[f"_size_{name}"] = -sizes
            by.append(f"_size_{name}")
        by.append(name)
    return rows.sort_values(by, kind="stable").set_index(names)[list(table.columns)]


def with_rates(counts: Frame, *, unit: str, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Complete counts to a table of rates.

    `counts` has `numerator` and `trials`, and, where there are such rows, `unknown`, `not_tested` and
    `not_applicable`. Gives the columns of `rates`, further ones behind them.
    """
    import pandas as pd

    counts = collected(counts)
    zero = pd.Series(0, index=counts.index, dtype="int64")
    numerator, trials = counts["numerator"].astype("int64"), counts["trials"].astype("int64")
    others = {
        name: counts.get(name, zero).fillna(0).astype("int64")
        for name in ("unknown", "not_tested", "not_applicable")
    }
    low, high = wilson(numerator, trials, confidence=confidence)
    widest = (trials + others["unknown"]).where(trials + others["unknown"] > 0)
    table = pd.DataFrame(
        {
            "numerator": numerator,
            "denominator": trials,
            "unit": unit,
            "rate": numerator / trials.where(trials > 0),
            "low": low,
            "high": high,
            "trials": trials,
            **others,
            "if_unknown_no": numerator / widest,
            "if_unknown_yes": (numerator + others["unknown"]) / widest,
            "is_small": trials < MINIMUM,
        },
        index=counts.index,
    )
    more = [name for name in counts.columns if name not in table.columns]
    whole: pd.DataFrame = pd.concat([table, counts[more]], axis=1)
    whole.attrs = {"confidence": confidence, "minimum": MINIMUM}
    return whole


def differences(table: Frame, *, against: Any) -> pd.DataFrame:
    """Compare each group of a table of `rates` with one of them.

    Parameters
    ----------
    table
        What `rates` gave.
    against
        The group, a label of the index, that is subtracted from each of the others.

    Returns
    -------
    DataFrame
        One row per other group: `difference`, `low`, `high` (Newcombe, from the two intervals; shares, 0.01 is a
        percentage point), `unit`, `trials`, `trials_against` and `is_small` (one of the two is).

    Notes
    -----
    Holds for independent groups. The same domains scanned twice are not: see
    `rtls_analysis.analysis.snapshots.paired_changes`.

    Examples
    --------
    >>> import pandas as pd
    >>> mail = pd.DataFrame({"year": [2023] * 100 + [2025] * 100, "tls": [True] * 60 + [False] * 40 + [True] * 100})
    >>> found = differences(rates(mail, by="year", of="tls", unit="message"), against=2023)
    >>> found[["difference", "low"]].round(2)
          difference  low
    year
    2025         0.4  0.3
    """
    import pandas as pd

    table = collected(table)
    is_base = table.index == against
    if not is_base.any():
        raise ValueError(f"no group {against!r}; there are {', '.join(map(str, table.index))}")
    base, others = table[is_base], table[~is_base]
    limits = ("rate", "low", "high")
    gap, low, high = difference(
        *(others[name].to_numpy() for name in limits), *(base[name].to_numpy() for name in limits)
    )
    return pd.DataFrame(
        {
            "difference": gap,
            "low": low,
            "high": high,
            "unit": others["unit"],
            "trials": others["trials"],
            "trials_against": base["trials"].to_numpy()[0],
            "is_small": others["is_small"] | base["is_small"].to_numpy()[0],
        }
    )
