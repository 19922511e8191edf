"""Many scans of a list: how something spreads, among the same domains and in a list that changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.deployment import FEATURES, feature_table
from rtls_analysis.analysis.rates import rates
from rtls_analysis.analysis.snapshots import Change
from rtls_analysis.analysis.words import Said, answers
from rtls_analysis.store import Snapshot

if TYPE_CHECKING:
    import pandas as pd

MOVING, FIXED = "moving", "fixed"


def _dated(snapshots: Iterable[Snapshot]) -> list[tuple[pd.Timestamp, Snapshot]]:
    """Put scans in the order of their times."""
    import pandas as pd

    dated = []
    for snapshot in snapshots:
        started = snapshot.manifest.get("started_at")
        if not started:
            raise ValueError(f"{snapshot!r} does not say in its manifest when it was started")
        dated.append((pd.Timestamp(str(started)).tz_convert("UTC"), snapshot))
    if len({at for at, _snapshot in dated}) < len(dated):
        raise ValueError("two of the scans were started at the same time; give each scan once")
    return sorted(dated, key=lambda pair: pair[0])


def _column(of: str) -> str:
    if of not in FEATURES:
        raise ValueError(f"no feature {of!r}; there are {', '.join(FEATURES)}")
    return FEATURES[of].column


def adoption(
    snapshots: Iterable[Snapshot],
    *,
    of: str = "requiretls_offered",
    yes: str | Sequence[str] | None = None,
    by: str | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Follow count and rate of a feature over time, the same domains apart from all that were listed (table 3).

    Parameters
    ----------
    snapshots
        Two scans or more, in any order; their manifests tell when they began.
    of
        A feature, a name of `rtls_analysis.analysis.deployment.FEATURES`.
    yes
        Words that count; those of the vocabulary by default.
    by
        Groups of the domains, as for `rtls.rates`.
    **options
        Of `rtls.rates`.

    Returns
    -------
    DataFrame
        One row per scan and population (the index: `at`, `population`, then the groups): the columns of `rtls.rates`
        (unit: domain), `listed`, and `entered` and `left`, domains since the scan before. ``moving`` is all domains
        of each scan, ``fixed`` those that are in every scan.

    Notes
    -----
    A ratio can stand still while its count doubles, when the base grows too (DANE, 2020 to 2024), and a count can
    grow because the list did: that is why both populations and both figures are here.
    """
    import pandas as pd

    dated = _dated(snapshots)
    column = _column(of)
    frames = [feature_table(snapshot) for _at, snapshot in dated]
    lists = [set(frame["domain"]) for frame in frames]
    fixed = set.intersection(*lists) if lists else set()
    tables: dict[tuple[pd.Timestamp, str], pd.DataFrame] = {}
    earlier: set[str] | None = None
    for (at, _snapshot), frame, listed in zip(dated, frames, lists, strict=True):
        for name, part in ((MOVING, frame), (FIXED, frame[frame["domain"].isin(fixed)])):
            table = rates(part, of=column, by=by, yes=yes, **options)
            is_moving = name == MOVING and earlier is not None
            table["listed"] = len(part)
            table["entered"] = len(listed - earlier) if is_moving and earlier is not None else 0
            table["left"] = len(earlier - listed) if is_moving and earlier is not None else 0
            tables[at, name] = table
        earlier = listed
    if not tables:
        raise ValueError("no scan to follow; give two or more")
    result = pd.concat(tables, names=["at", "population"])
    result = result if by is not None else result.droplevel("group")
    result.attrs = {**next(iter(tables.values())).attrs, "of": of}
    return result


def turning_points(
    snapshots: Iterable[Snapshot],
    *,
    of: str = "requiretls_offered",
    yes: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Tell between which scans each domain gained or lost a feature: the time of a change is known no better.

    Parameters
    ----------
    snapshots
        Two scans or more, in any order.
    of
        A feature, a name of `rtls_analysis.analysis.deployment.FEATURES`.
    yes
        Words that count; those of the vocabulary by default.

    Returns
    -------
    DataFrame
        One row per change: `domain`, `change` (``gained``, ``lost``), `after` (begin of the last scan that told the
        old state) and `by` (of the first that told the new one): interval-censored. Scans in which a domain could
        not be told, or was not listed, make the interval wider.
    """
    import numpy as np
    import pandas as pd

    dated = _dated(snapshots)
    column = _column(of)
    names: dict[str, int] = {}
    events: list[tuple[str, Change, pd.Timestamp, pd.Timestamp]] = []
    last = np.zeros(0, dtype=np.int8)
    when = np.zeros(0, dtype=np.int64)
    for number, (at, snapshot) in enumerate(dated):
        frame = feature_table(snapshot)
        told = answers(frame[column], yes)
        is_told = told.where(Said.YES) | told.where(Said.NO)
        for domain in frame["domain"][is_told]:
            names.setdefault(domain, len(names))
        grown = len(names) - len(last)
        last, when = np.append(last, np.zeros(grown, np.int8)), np.append(when, np.zeros(grown, np.int64))
        place = frame["domain"][is_told].map(names).to_numpy(dtype=np.int64)
        said = told.said[is_told]
        changed = (last[place] != 0) & (last[place] != said)
        for domain, word, since in zip(
            frame["domain"][is_told][changed], said[changed], when[place][changed], strict=True
        ):
            change = Change.GAINED if word == Said.YES else Change.LOST
            events.append((domain, change, dated[since][0], at))
        last[place], when[place] = said, number
    table = pd.DataFrame(events, columns=["domain", "change", "after", "by"])
    times = {name: pd.DatetimeTZDtype("us", "UTC") for name in ("after", "by")}
    words: Any = pd.CategoricalDtype([str(Change.GAINED), str(Change.LOST)])
    return table.astype({"domain": "str", "change": words, **times})
