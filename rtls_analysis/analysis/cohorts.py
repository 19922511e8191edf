"""Groups of domains, hosts and addresses: population, rank, top-level domain, provider, address family."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.declared import declared, table_to_declare
from rtls_analysis.frames import Frame, collected, is_dask, mapped
from rtls_analysis.providers import provider_of

if TYPE_CHECKING:
    import pandas as pd

NO_GROUP = "(none)"
"""The group of rows that have no label."""

RANK_EDGES = (1_000, 10_000, 100_000, 1_000_000)
"""Upper ends of rank bands."""

RANK_BIN = 10_000
"""Width of the bins in which adoption by rank is drawn (Lee et al. 2020)."""


def cohorts(
    frame: Frame,
    *,
    populations: Mapping[str, Collection[str]] | None = None,
    rank_edges: Sequence[int] = RANK_EDGES,
    rank_bin: int = RANK_BIN,
) -> Frame:
    """Put each row of a table into its groups.

    Parameters
    ----------
    frame
        A table with a column `domain`, or `mx_host`, or `address`.
    populations
        Named lists of domains. A domain of several has a row in each of them; those of none are ``(none)``.
    rank_edges
        Upper ends of the rank bands.
    rank_bin
        Width of the rank bins.

    Returns
    -------
    DataFrame
        The same rows with those of these columns that can be had: `population`, `rank_band` (ordered words),
        `rank_bin` (the first rank of the bin), `tld` of the domain, `provider` of the MX host, `family` of the
        address. Of a Dask frame a Dask frame; with `populations` its rows are in the order of the partitions.

    Examples
    --------
    >>> import pandas as pd
    >>> domains = pd.DataFrame({"domain": ["a.se", "b.org"], "rank": [7, 20_000]})
    >>> cohorts(domains, populations={"top": ["a.se"]})[["domain", "population", "rank_band", "tld"]].values.tolist()
    [['a.se', 'top', '1-1,000', 'se'], ['b.org', '(none)', '10,001-100,000', 'org']]
    """
    return mapped(
        frame,
        _cohorts,
        populations=populations,
        rank_edges=rank_edges,
        rank_bin=rank_bin,
        table=table_to_declare(frame),
    )


def _cohorts(
    frame: pd.DataFrame,
    populations: Mapping[str, Collection[str]] | None = None,
    rank_edges: Sequence[int] = RANK_EDGES,
    rank_bin: int = RANK_BIN,
    table: str | None = None,
) -> pd.DataFrame:
    import pandas as pd

    frame = declared(frame, table)
    if populations is not None:
        if "domain" not in frame.columns:
            raise ValueError("populations are lists of domains; this table has no column 'domain'")
        pieces = [
            frame[frame["domain"].isin(list(domains))].assign(population=name)
            for name, domains in populations.items()
        ]
        listed = {domain for domains in populations.values() for domain in domains}
        pieces.append(frame[~frame["domain"].isin(listed)].assign(population=NO_GROUP))
        frame = pd.concat([piece for piece in pieces if len(piece)] or pieces[-1:], ignore_index=True)
        words = [*populations, NO_GROUP]
        frame["population"] = pd.Categorical(frame["population"], categories=words, ordered=True)
    added: dict[str, Any] = {}
    if "rank" in frame.columns:
        added["rank_band"] = _rank_band(frame, rank_edges)
        added["rank_bin"] = (frame["rank"].astype("Int64") - 1) // rank_bin * rank_bin + 1
    for name, (source, function) in _DERIVED.items():
        if source in frame.columns and name not in frame.columns:
            added[name] = _mapped(frame[source], function)
    return frame.assign(**added)


def domain_groups(
    domains: pd.DataFrame,
    by: str | Sequence[str] | pd.Series[Any] | None,
    populations: Mapping[str, Collection[str]] | None = None,
) -> pd.DataFrame:
    """Give the groups of each domain, for tables that have to be joined: `domain` and a column per grouping.

    A domain of several populations has several rows. With `populations` alone these are the groups.
    """
    if populations is not None:
        domains = cohorts(domains, populations=populations)
        by = "population" if by is None else by
    labels = group_labels(domains, by)
    labels.insert(0, "domain", domains["domain"].to_numpy())
    return labels


def _rank_band(frame: pd.DataFrame, edges: Sequence[int]) -> pd.Series[Any]:
    import pandas as pd

    ends = sorted({int(edge) for edge in edges})
    words = [f"{low + 1:,}-{high:,}" for low, high in pairwise((0, *ends))]
    words += [f"above {ends[-1]:,}" if ends else "any rank", "no rank"]
    ranks = frame["rank"].astype("Float64").to_numpy(dtype=float, na_value=float("nan"))
    bands = pd.cut(ranks, [0, *ends, float("inf")], labels=words[:-1])
    values = pd.Series(bands, index=frame.index).astype(object).fillna("no rank")
    return values.astype(pd.CategoricalDtype(words, ordered=True))


def _top_level(domain: str) -> str:
    return domain.rpartition(".")[2]


def _family(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


_DERIVED = {
    "tld": ("domain", _top_level),
    "provider": ("mx_host", provider_of),
    "family": ("address", _family),
}


SOURCES = ("rank", *(source for source, _function in _DERIVED.values()))
"""Columns that groups are derived from."""


def _mapped(values: pd.Series[Any], function: Any) -> pd.Series[Any]:
    """Apply a function to each distinct text of a column; missing stays missing."""
    held = {value: function(value) for value in values.dropna().unique() if value != ""}
    return values.map(held).astype("str")


# -- what the rows of a table are ----------------------------------------------------------------------------

_UNITS: tuple[tuple[str, frozenset[str]], ...] = (
    ("connection", frozenset({"purpose", "ended_at"})),
    ("Received field", frozenset({"hop", "by_host"})),
    ("delivery attempt", frozenset({"recipient", "queue_id"})),
    ("connection", frozenset({"process_id", "relay_address"})),
    ("recipient of a DSN", frozenset({"final_recipient", "reporting_mta"})),
    ("failure detail", frozenset({"policy_index", "report_id"})),
    ("recipient domain and relay", frozenset({"recipient_domain", "relay_host", "verdict"})),
    ("domain's address", frozenset({"domain", "mx_host", "address"})),
    ("domain's MX host", frozenset({"domain", "mx_host"})),
    ("address", frozenset({"mx_host", "address"})),
    ("MX host", frozenset({"mx_host"})),
    ("domain", frozenset({"domain"})),
    ("certificate", frozenset({"sha256", "der"})),
    ("certificate", frozenset({"sha256", "issuer"})),
)


def unit_of(frame: pd.DataFrame) -> str | None:
    """Tell what one row of a table is from its columns; None where they do not tell.

    >>> import pandas as pd
    >>> unit_of(pd.DataFrame({"mx_host": ["mx.example.org"], "address": ["192.0.2.1"], "starttls": ["yes"]}))
    'address'
    """
    names = {str(name) for name in frame.columns}
    return next((unit for unit, columns in _UNITS if columns <= names), None)


def group_labels(frame: pd.DataFrame, by: str | Sequence[str] | pd.Series[Any] | None) -> pd.DataFrame:
    """Give each row its labels: a column per grouping, the index that of a fresh range; missing is ``(none)``."""
    import pandas as pd

    labels = row_labels(frame, by)
    return pd.DataFrame({name: named(labels[name]) for name in labels.columns})


def row_labels(frame: pd.DataFrame, by: str | Sequence[str] | pd.Series[Any] | None) -> pd.DataFrame:
    """Give each row its labels as `group_labels` does, but those that are missing without a name."""
    import pandas as pd

    if by is None:
        return pd.DataFrame({"group": pd.Categorical(["all"] * len(frame), categories=["all"])})
    wanted = [by] if isinstance(by, (str, pd.Series)) or is_dask(by) else list(by)
    columns: dict[str, Any] = {}
    derived: pd.DataFrame | None = None
    for item in map(collected, wanted):
        if isinstance(item, str) and item not in frame.columns:
            derived = _cohorts(frame) if derived is None else derived
            if item not in derived.columns:
                known = ", ".join(map(str, derived.columns))
                raise ValueError(f"no column {item!r} to group by; there are {known}")
            labels = derived[item]
        else:
            labels = row_values(frame, item)
        columns[str(labels.name if labels.name is not None else "group")] = labels.reset_index(drop=True)
    return pd.DataFrame(columns)


def named(labels: pd.Series[Any]) -> pd.Series[Any]:
    """Name what has no label, and keep the order of what has one."""
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    if not labels.isna().any():
        return labels
    if isinstance(labels.dtype, pd.CategoricalDtype):
        if NO_GROUP not in labels.cat.categories:
            labels = labels.cat.add_categories([NO_GROUP])
        return labels.fillna(NO_GROUP)
    if is_numeric_dtype(labels.dtype):
        values = sorted(labels.dropna().unique())
        words = pd.CategoricalDtype([*values, NO_GROUP], ordered=True)
        return labels.astype(object).fillna(NO_GROUP).astype(words)
    return labels.astype(object).fillna(NO_GROUP)


def row_values(frame: pd.DataFrame, values: str | pd.Series[Any]) -> pd.Series[Any]:
    """Give a value for each row: a column, or a Series of the frame's own index or by domain."""
    import pandas as pd

    if isinstance(values, str):
        if values not in frame.columns:
            raise ValueError(f"no column {values!r}; there are {', '.join(map(str, frame.columns))}")
        return frame[values]
    if values.index.equals(frame.index):
        return values
    if "domain" not in frame.columns or not values.index.is_unique:
        raise ValueError("a Series needs the index of the table, or one value for each domain")
    return pd.Series(frame["domain"].map(values), name=values.name)
