"""How much hangs on few providers: shares, CR-n, HHI, Gini, Lorenz, and what one of them changes by itself.

A provider is the registrable domain of an MX host, through a map of names that belong together: a gateway hides the
mailbox host behind it.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.hops import QUESTIONS, domain_shares, hop_verdicts
from rtls_analysis.analysis.rates import ArtefactWarning, with_rates
from rtls_analysis.analysis.words import Said, answers, one_of
from rtls_analysis.frames import collected
from rtls_analysis.outcomes import DomainShare, MxState, Obstacle
from rtls_analysis.store import Snapshot, one_vantage
from rtls_analysis.verdicts import Answer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

UNITS = ("domain", "host", "address")
"""By what the size of a provider is told: domains that it serves, its MX hosts, its addresses."""

ALL_DISTINCT = "all distinct"
ONE_FIRM = "one firm"


# -- measures ------------------------------------------------------------------------------------------------


def hhi(sizes: Any) -> float:
    """Give the Herfindahl-Hirschman index: the sum of squared shares in percent, 10,000 for a monopoly.

    >>> hhi([1, 1, 1, 1]), hhi([5])
    (2500.0, 10000.0)
    """
    import numpy as np

    values = np.asarray(collected(sizes), dtype=float)
    total = values.sum()
    return float(((100 * values / total) ** 2).sum()) if total > 0 else float("nan")


def gini(sizes: Any) -> float:
    """Give the Gini coefficient of sizes: 0 where all are equal, towards 1 where one has everything.

    >>> gini([1, 1, 1, 1]), gini([0, 0, 0, 1]), gini([1, 2, 3, 4])
    (0.0, 0.75, 0.25)
    """
    import numpy as np

    values = np.sort(np.asarray(collected(sizes), dtype=float))
    total, count = values.sum(), len(values)
    if not count or total <= 0:
        return float("nan")
    return float(((2 * np.arange(1, count + 1) - count - 1) * values).sum() / (count * total))


def concentration_ratio(sizes: Any, largest: int) -> float:
    """Give the share that the largest few have together, 0 to 1 (CR-n).

    >>> concentration_ratio([1, 2, 3, 4], 2)
    0.7
    """
    import numpy as np

    values = np.sort(np.asarray(collected(sizes), dtype=float))[::-1]
    total = values.sum()
    return float(values[:largest].sum() / total) if total > 0 else float("nan")


def _with_unknown(sizes: Any, unknown: int) -> dict[str, npt.NDArray[np.float64]]:
    """Give the sizes under both readings of those whose provider is not known."""
    import numpy as np

    known = np.asarray(sizes, dtype=float)
    if not unknown:
        return {ALL_DISTINCT: known, ONE_FIRM: known}
    return {
        ALL_DISTINCT: np.concatenate([known, np.ones(unknown)]),
        ONE_FIRM: np.concatenate([known, [float(unknown)]]),
    }


def concentration(
    sizes: pd.Series[Any] | Snapshot,
    *,
    unknown: int = 0,
    largest: Sequence[int] = (1, 2, 4, 8, 16),
    unit: str | None = None,
) -> pd.DataFrame:
    """Measure how concentrated sizes are (canonical table 7).

    Parameters
    ----------
    sizes
        What each provider has, or a scan.
    unknown
        How many have a provider that is not known; of a scan this is counted.
    largest
        The n of the CR-n.
    unit
        What the sizes count; of a scan ``"domain"`` (the default), ``"host"`` or ``"address"``.

    Returns
    -------
    DataFrame
        One row per reading of the unknown ones (the index, `unknown_as`: ``all distinct``, ``one firm``): `unit`,
        `total`, `unknown`, `providers`, `hhi` (shares in percent), `gini`, and `cr1`, `cr2`, ... (0 to 1).

    Warns
    -----
    ArtefactWarning
        The unit is not told: the same provider in the same list can have 22 % by one unit and 41 % by another.

    Examples
    --------
    >>> import pandas as pd
    >>> table = concentration(pd.Series([6, 3, 1]), unknown=2, largest=[1], unit="domain")
    >>> table[["total", "cr1"]].round(2)
                  total  cr1
    unknown_as
    all distinct     12  0.5
    one firm         12  0.5
    """
    import pandas as pd

    if isinstance(sizes, Snapshot):
        sizes, unknown = provider_sizes(sizes, unit=unit or "domain")
    counts: pd.Series[Any] = collected(sizes)
    unit = unit if unit is not None else counts.attrs.get("unit")
    if unit is None:
        warnings.warn(
            "what the sizes count is not told, and a provider's share differs by unit; give unit=",
            ArtefactWarning,
            stacklevel=2,
        )
    rows = {
        reading: {
            "unit": unit or "row",
            "total": int(values.sum()),
            "unknown": unknown,
            "providers": len(values),
            "hhi": hhi(values),
            "gini": gini(values),
            **{f"cr{n}": concentration_ratio(values, n) for n in largest},
        }
        for reading, values in _with_unknown(counts, unknown).items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("unknown_as")


def lorenz(sizes: pd.Series[Any]) -> pd.DataFrame:
    """Give the Lorenz curve of sizes, from the smallest provider to the largest (canonical table 7).

    Returns
    -------
    DataFrame
        One row per step, the first at the origin: `providers` and `cumulative` (shares, 0 to 1).
    """
    import numpy as np
    import pandas as pd

    sizes = collected(sizes)
    values = np.sort(sizes.to_numpy(dtype=float))
    total = values.sum()
    steps = np.concatenate([[0.0], np.cumsum(values) / total if total > 0 else values])
    table = pd.DataFrame({"providers": np.linspace(0, 1, len(steps)), "cumulative": steps})
    table.attrs = {"unit": sizes.attrs.get("unit", "row"), "providers": len(values), "total": float(total)}
    return table


# -- providers of a snapshot ---------------------------------------------------------------------------------


def provider_sizes(snapshot: Snapshot, *, unit: str = "domain") -> tuple[pd.Series[Any], int]:
    """Tell what each provider has, the largest first, and of how many the provider is not known.

    Parameters
    ----------
    snapshot
        A scan.
    unit
        ``"domain"``: domains by the provider of their most preferred MX host; ``"host"``: MX hosts;
        ``"address"``: MX hosts at one address.

    Notes
    -----
    Not known is the provider of a domain whose MX lookup failed, or that was left out. A domain that takes no mail
    has none, and is not counted.
    """
    one_of("unit", unit, UNITS)
    unknown = 0
    if unit == "domain":
        domains = one_vantage(snapshot).table("domains", columns=["mx_state", "provider"])
        provider = domains["provider"]
        told = answers(domains["mx_state"], unknown=[str(MxState.DNS_FAILURE)])
        missing = provider.isna().to_numpy()
        unknown = int((missing & (told.where(Said.UNKNOWN) | domains["mx_state"].isna().to_numpy())).sum())
    else:
        hosts = snapshot.table("hosts", columns=["mx_host", "provider"])
        provider = hosts["provider"]
        if unit == "address":
            sessions = one_vantage(snapshot).table("sessions", columns=["mx_host"])
            provider = sessions.merge(hosts, on="mx_host", how="left")["provider"]
    sizes = provider.value_counts().rename_axis("provider").rename(unit)
    sizes.attrs["unit"] = unit
    return sizes, unknown


def provider_concentration(snapshot: Snapshot, *, units: Sequence[str] = UNITS) -> pd.DataFrame:
    """Measure the concentration of a scan's providers by several units, side by side (canonical table 7).

    Gives what `concentration` gives, with the unit in front of the index: a provider that serves many domains from
    few hosts is large by one unit and small by another.
    """
    import pandas as pd

    tables = {}
    for unit in units:
        sizes, unknown = provider_sizes(snapshot, unit=unit)
        tables[unit] = concentration(sizes, unknown=unknown)
    return pd.concat(tables, names=["counted"])


def providers(
    snapshot: Snapshot,
    before: Snapshot | None = None,
    *,
    of: str = "requiretls_offered",
    largest: int | None = 20,
    unit: str = "domain",
) -> pd.DataFrame:
    """List the largest providers with their shares, what their domains have, and how that changed (canonical table 6).

    Parameters
    ----------
    snapshot
        A scan.
    before
        An earlier one of the same list.
    of
        A question: how many of their domains have it.
    largest
        How many to list; all with None.
    unit
        What the share is of: ``"domain"``, ``"host"`` or ``"address"``.

    Returns
    -------
    DataFrame
        One row per provider, the largest first (the index): the columns of `rtls.rates` (its part of all whose
        provider is known; those of which it is not are `unknown`), `of`, `having` and `having_trials` (its domains
        that are a yes, of those that could be told), and with `before` `numerator_before`, `trials_before`, `change`
        (a count) and `change_share` (of shares, 0.01 is a percentage point).
    """
    one_of("question", of, QUESTIONS)
    sizes, unknown = provider_sizes(snapshot, unit=unit)
    counts = sizes.rename("numerator").to_frame().assign(trials=int(sizes.sum()), unknown=unknown)
    domains = one_vantage(snapshot).table("domains", columns=["provider", of])
    told = answers(domains[of])
    yes, no = told.where(Said.YES), told.where(Said.NO)
    having = (
        domains.assign(having=yes, having_trials=yes | no)
        .groupby("provider")[["having", "having_trials"]]
        .sum()
    )
    counts = counts.join(having.astype("int64")).fillna({"having": 0, "having_trials": 0})
    counts.insert(3, "of", of)
    counts = counts.astype({"having": "int64", "having_trials": "int64"})
    if before is not None:
        earlier, _unknown = provider_sizes(before, unit=unit)
        counts["numerator_before"] = earlier.reindex(counts.index).fillna(0).astype("int64")
        counts["trials_before"] = int(earlier.sum())
        counts["change"] = counts["numerator"] - counts["numerator_before"]
        was = counts["numerator_before"] / counts["trials_before"].where(counts["trials_before"] > 0)
        counts["change_share"] = counts["numerator"] / counts["trials"] - was
    table = with_rates(counts, unit=unit)
    return table if largest is None else table.head(largest)


def server_sizes(snapshot: Snapshot, *, of: str = "pkix") -> pd.DataFrame:
    """Tell how large the servers are that serve domains with a yes and with a no (canonical table 7).

    Parameters
    ----------
    snapshot
        A scan.
    of
        A question: what the most preferred MX hosts of a domain answer.

    Returns
    -------
    DataFrame
        One row per answer (``yes``, ``no``, ``unknown``) and size: `said`, `size` (domains that the same MX host
        serves, the most preferred one of each), `domains` (a count), `cumulative` (share of the domains with this
        answer that are at servers of this size or smaller, 0 to 1), `trials` (domains with this answer), `unit`.
    """
    import numpy as np
    import pandas as pd

    one_of("question", of, QUESTIONS)
    hops = hop_verdicts(snapshot)
    hops = hops[hops["mx_host"].notna()]
    best = hops[hops["preference"].eq(hops.groupby("domain")["preference"].transform("min"))]
    first = best.drop_duplicates("domain")[["domain", "mx_host"]]
    size = first["mx_host"].map(first["mx_host"].value_counts())
    shares = first["domain"].map(domain_shares(best, of))
    told = answers(shares.astype(pd.CategoricalDtype([str(word) for word in DomainShare])))
    said = np.select(
        [told.where(what) for what in (Said.YES, Said.NO, Said.UNKNOWN)], ["yes", "no", "unknown"], default=""
    )
    frame = pd.DataFrame({"said": said, "size": size.to_numpy()})
    frame = frame[frame["said"] != ""]
    table = frame.groupby(["said", "size"]).size().rename("domains").reset_index()
    of_answer = table.groupby("said")["domains"]
    table["trials"] = of_answer.transform("sum")
    table["cumulative"] = of_answer.cumsum() / table["trials"]
    table["unit"] = "domain"
    table.attrs = {"of": of}
    return table[["said", "size", "domains", "cumulative", "trials", "unit"]]


# -- one provider --------------------------------------------------------------------------------------------


def leave_one_out(
    snapshot: Snapshot, *, of: str = "requiretls_ready", largest: int | None = 10
) -> pd.DataFrame:
    """Give the rate of domains without each of the largest providers (canonical table 18).

    Parameters
    ----------
    snapshot
        A scan.
    of
        A question that addresses answer.
    largest
        How many providers; all with None.

    Returns
    -------
    DataFrame
        One row per provider left out, the largest first, an empty name for none (the index): the columns of
        `rtls.rates` (unit: domain) without its domains, `domains` (that it has) and `change` (to the rate with all,
        a difference of shares).
    """
    one_of("question", of, QUESTIONS)
    domains = one_vantage(snapshot).table("domains", columns=["provider", of])
    told = answers(domains[of])
    counts = _said_counts(told, domains["provider"])
    total = counts.sum()
    sizes, _unknown = provider_sizes(snapshot)
    names = list(sizes.index if largest is None else sizes.index[:largest])
    rows = total - counts.reindex(names)
    return _compared(rows, total, sizes)


def _said_counts(told: Any, labels: pd.Series[Any]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(
        {
            "numerator": told.where(Said.YES),
            "trials": told.where(Said.YES) | told.where(Said.NO),
            "unknown": told.where(Said.UNKNOWN),
            "not_tested": told.where(Said.NOT_TESTED),
            "not_applicable": told.where(Said.NOT_APPLICABLE),
        }
    ).astype("int64")
    return frame.groupby(labels.astype(object).fillna("").to_numpy()).sum()


def _compared(rows: pd.DataFrame, base: pd.Series[Any], sizes: pd.Series[Any]) -> pd.DataFrame:
    """Put the rates of some worlds below that of the world as it is, with their changes."""
    import pandas as pd

    whole = pd.DataFrame([base], index=[""])
    counts = pd.concat([whole, rows]).rename_axis("provider")
    counts["domains"] = sizes.reindex(counts.index).fillna(0).astype("int64")
    table = with_rates(counts, unit="domain")
    table["change"] = table["rate"] - table["rate"].iloc[0]
    return table


def one_switches(
    snapshot: Snapshot,
    *,
    of: str = "requiretls_ready",
    remove: Collection[str] = (Obstacle.REQUIRETLS_NOT_OFFERED,),
    largest: int | None = 10,
) -> pd.DataFrame:
    """Give the rate of domains if one provider switched, for those that would change most (canonical table 18).

    Parameters
    ----------
    snapshot
        A scan.
    of
        A question that addresses answer. A provider that switches makes each of its addresses a yes, but for
        ``"requiretls_ready"``: there it removes obstacles, and others may remain.
    remove
        The obstacles that it removes at its addresses: by default it announces REQUIRETLS. What its customers have
        to do, such as signing their zones, stays undone.
    largest
        How many providers; all that would change anything with None.

    Returns
    -------
    DataFrame
        One row per provider that switches, the one that gains most first, an empty name for none (the index): the
        columns of `rtls.rates` (unit: domain), `domains` (that have it as their first provider), `gained` (domains
        that become a yes) and `change` (a difference of shares).
    """
    import pandas as pd

    one_of("question", of, QUESTIONS)
    removed = {str(Obstacle(word)) for word in remove}
    hops = hop_verdicts(snapshot)
    hops = hops[hops["mx_host"].notna() & ~hops[of].eq(Answer.LEFT_OUT)]
    if of == "requiretls_ready":
        kinds = {
            kind: not (set(kind[0]) | set(kind[1])) - removed
            for kind in set(zip(hops["obstacles"], hops["maybe"], strict=True))
        }
        can = [kinds[kind] for kind in zip(hops["obstacles"], hops["maybe"], strict=True)]
        hops = hops[pd.Series(can, index=hops.index, dtype=bool)]
    domains = one_vantage(snapshot).table("domains", columns=["domain", of])
    told = answers(domains[of])
    state = pd.Series(told.said, index=pd.Index(domains["domain"]))
    pairs = hops[["domain", "provider"]].drop_duplicates()
    pairs = pairs.assign(said=pairs["domain"].map(state))
    pairs = pairs[~pairs["said"].isin([Said.YES, Said.NOT_APPLICABLE])]
    total = _said_counts(told, domains["domain"]).sum()
    moves = pairs.groupby(["provider", "said"]).size().unstack("said", fill_value=0)
    moves = moves.reindex(columns=[Said.NO, Said.UNKNOWN, Said.NOT_TESTED], fill_value=0)
    gained = moves.sum(axis=1).sort_values(ascending=False, kind="stable")
    gained = gained if largest is None else gained.head(largest)
    moves = moves.loc[gained.index]
    rows = pd.DataFrame(
        {
            "numerator": total["numerator"] + gained,
            "trials": total["trials"] + gained - moves[Said.NO],
            "unknown": total["unknown"] - moves[Said.UNKNOWN],
            "not_tested": total["not_tested"] - moves[Said.NOT_TESTED],
            "not_applicable": total["not_applicable"],
        }
    )
    sizes, _unknown = provider_sizes(snapshot)
    table = _compared(rows, total, sizes)
    table["gained"] = gained.reindex(table.index).fillna(0).astype("int64")
    return table
