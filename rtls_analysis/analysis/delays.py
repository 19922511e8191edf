"""How long mail takes: time to delivery with what is still queued, what was given up, and the rhythm of retries.

Canonical table 14 of the fact sheet on measurement. A message still queued when the log ends is censored: it took at
least that long. One that was returned competes with delivery: it will not be delivered later, and to count it as
censored would say that it may.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.intervals import CONFIDENCE
from rtls_analysis.analysis.messages import (
    ACCEPTED,
    STORY,
    is_local,
    message_numbers,
    pair_numbers,
    recipient_ends,
    whole_messages,
)
from rtls_analysis.frames import Frame, collected, mapped, reduced
from rtls_analysis.outcomes import Action
from rtls_analysis.schema import DELIVERIES, conform

if TYPE_CHECKING:
    import datetime as dt

    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    Floats = npt.NDArray[Any]


class End(StrEnum):
    """How a message ended for a recipient, as far as the log tells."""

    DELIVERED = "delivered"
    FAILED = "failed"  # returned or expired
    QUEUED = "queued"  # not ended when the log did


def time_to_delivery(deliveries: Frame, *, until: dt.datetime | str | None = None) -> Frame:
    """Measure how long each message took for each recipient (canonical table 14).

    Parameters
    ----------
    deliveries
        Own delivery attempts.
    until
        When the log ends; by default with the last row of each `reporting_host`.

    Returns
    -------
    DataFrame
        One row per (message, recipient): `mta`, `reporting_host`, `queue_id`, `message_id`, `sender_domain`,
        `recipient_domain`, `relay_host`, `tries` (a count), `arrived_at`, `ended_at`, `end` (a word of `End`) and
        `seconds` from arrival to the end; of what is `queued`, to the end of the log: it took at least that long.
        Rows without a time are left out, and what went to a mailbox of the same host. Of a Dask frame a Dask frame,
        its rows in no order.

    Notes
    -----
    Arrival is taken from the delay that the log states, else it is the first row: then a message is as old as its
    first try, which is short of its age where the log began later. A delay that the last row states counts as it
    stands, for it is finer than the time stamps.
    """
    import pandas as pd

    ends = mapped(whole_messages(deliveries), _ends)
    if until is not None:
        moment = pd.Timestamp(until)
        moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
        return mapped(ends, _spans, closes=moment)
    closes = reduced(ends, _log_ends, how="max")["logged_at"]
    return mapped(ends, _spans, closes=closes)


def _ends(deliveries: pd.DataFrame) -> pd.DataFrame:
    ends = recipient_ends(deliveries)
    return ends[ends["logged_at"].notna() & ~is_local(ends)].reset_index(drop=True)


def _spans(ends: pd.DataFrame, closes: pd.Timestamp | pd.Series[Any]) -> pd.DataFrame:
    """Tell how long each took; `closes` is when the log ends, or when that of each server does."""
    import numpy as np
    import pandas as pd

    end = pd.Series(str(End.QUEUED), ends.index, dtype=object)
    end[ends["action"].isin(ACCEPTED)] = str(End.DELIVERED)
    end[ends["action"] == Action.FAILED] = str(End.FAILED)
    is_queued = end == End.QUEUED
    dtype = ends["logged_at"].dtype
    if isinstance(closes, pd.Timestamp):
        closed = pd.Series(closes, ends.index, dtype=dtype)
    else:
        closed = closes.reindex(_host(ends).to_numpy()).set_axis(ends.index)
    ended_at = ends["logged_at"].where(~is_queued, np.maximum(closed, ends["logged_at"]))
    span = (ended_at - ends["arrived_at"]).dt.total_seconds()
    seconds = ends["delay_seconds"].where(~is_queued & (ends["delay_seconds"] >= 0), span)
    names = [
        "mta",
        "reporting_host",
        "queue_id",
        "message_id",
        "sender_domain",
        "recipient_domain",
        "relay_host",
        "tries",
        "arrived_at",
    ]
    return ends[names].assign(
        ended_at=ended_at,
        end=pd.Categorical(end, categories=[str(word) for word in End]),
        seconds=seconds.astype("float64"),
    )


def _host(ends: pd.DataFrame) -> pd.Series[Any]:
    return ends["reporting_host"].astype(object).where(ends["reporting_host"].notna(), "")


def _log_ends(ends: pd.DataFrame) -> pd.DataFrame:
    """When the log of each server ends."""
    return ends.groupby(_host(ends))[["logged_at"]].max()


# -- curves ----------------------------------------------------------------------------------------------------


def survival(seconds: Any, ended: Any, *, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Estimate the share not yet ended after each time (Kaplan and Meier 1958).

    Parameters
    ----------
    seconds
        How long each took, or has taken so far.
    ended
        True where it ended then, False where it was censored.
    confidence
        Of the intervals.

    Returns
    -------
    DataFrame
        One row per time at which one or more ended, the index `seconds`: `at_risk`, `ended`, `censored` (counts;
        the last since the row before), `share` not yet ended (0 to 1), `standard_error` (Greenwood), `low`, `high`
        (log-log; missing where the share is 0).

    Examples
    --------
    >>> curve = survival([362, 542, 542, 1739, 9000], [True, True, True, True, False])
    >>> [round(share, 3) for share in curve["share"]]
    [0.8, 0.4, 0.2]
    """
    import numpy as np
    import pandas as pd

    seconds, ended = collected(seconds), collected(ended)
    times, counts = _events(seconds, np.asarray(ended, dtype=bool).astype(int), 1)
    at_risk, (events,) = counts
    share = np.cumprod(1 - events / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = share * np.sqrt(np.cumsum(events / (at_risk * (at_risk - events))))
    error[share <= 0] = np.nan
    low, high = _log_log(share, error, confidence)
    table = pd.DataFrame(
        {
            "at_risk": at_risk.astype("int64"),
            "ended": events.astype("int64"),
            "share": share,
            "standard_error": error,
            "low": low,
            "high": high,
        },
        index=pd.Index(times, name="seconds"),
    )
    table = table[table["ended"] > 0]
    left = table["at_risk"] - table["ended"]
    before = left.shift(fill_value=len(np.asarray(seconds)))
    table.insert(2, "censored", (before - table["at_risk"]).astype("int64"))
    return table


def survival_time(curve: Frame, share: float = 0.5, *, rule: str = "first") -> float:
    """Read off a curve of `survival` the time after which no more than this share is left, such as the median.

    Parameters
    ----------
    curve
        What `survival` gave.
    share
        Between 0 and 1.
    rule
        ``first``: the first time at which the curve is at the share or below; ``midpoint``: where it is at the share
        exactly, the middle of the time it stays there.

    Returns
    -------
    float
        Seconds; missing (NaN) where the curve never comes so low.
    """
    if rule not in ("first", "midpoint"):
        raise ValueError(f"rule is {rule!r}; give 'first' or 'midpoint'")
    curve = collected(curve)
    reached = curve[curve["share"] <= share + 1e-12]
    times, shares = reached.index.to_list(), reached["share"].to_list()
    if not times:
        return float("nan")
    if rule == "midpoint" and len(times) > 1 and abs(shares[0] - share) <= 1e-12:
        return float(times[0] + times[1]) / 2
    return float(times[0])


def cumulative_incidence(seconds: Any, end: Any, *, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Estimate the share delivered and the share failed after each time, each competing with the other.

    Parameters
    ----------
    seconds
        How long each took, or has taken so far.
    end
        A word of `End` for each; ``queued`` is censored.
    confidence
        Of the intervals.

    Returns
    -------
    DataFrame
        One row per time at which any ended, the index `seconds`: `at_risk` (a count), and for ``delivered`` and
        ``failed`` the count of those that ended so, `..._share` (0 to 1), `..._standard_error`, `..._low` and
        `..._high` (log-log). `queued_share` is what is left: the three shares add up to one.

    Notes
    -----
    The estimate is that of Aalen and Johansen (1978), its variance by the delta method.
    """
    import numpy as np
    import pandas as pd

    seconds, end = collected(seconds), collected(end)
    words = np.asarray(end, dtype=object).astype(str)
    causes = (End.DELIVERED, End.FAILED)
    status = np.zeros(len(words), dtype=int)
    for number, cause in enumerate(causes, start=1):
        status[words == cause] = number
    times, (at_risk, events) = _events(seconds, status, len(causes))
    everything = np.sum(events, axis=0)
    left = np.cumprod(1 - everything / at_risk)
    before = np.append(1.0, left[:-1]) / at_risk  # share still there, over those at risk
    columns: dict[str, Any] = {"at_risk": at_risk.astype("int64")}
    for cause, found in zip(causes, events, strict=True):
        share = np.cumsum(before * found)
        error = _incidence_error(share, before, at_risk, everything, found)
        low, high = _log_log(share, error, confidence)
        columns |= {
            str(cause): found.astype("int64"),
            f"{cause}_share": share,
            f"{cause}_standard_error": error,
            f"{cause}_low": low,
            f"{cause}_high": high,
        }
    table = pd.DataFrame(columns, index=pd.Index(times, name="seconds"))
    table["queued_share"] = left
    ended: pd.DataFrame = table[everything > 0]
    return ended


def _events(
    seconds: Any, status: npt.NDArray[np.int_], causes: int
) -> tuple[Floats, tuple[Floats, list[Floats]]]:
    """The distinct times, how many were at risk just before each, and how many ended then of each cause."""
    import numpy as np

    spans = np.asarray(seconds, dtype=float)
    if len(spans) != len(status):
        raise ValueError(f"{len(spans)} times and {len(status)} ends; give one end for each time")
    known = ~np.isnan(spans)
    times, rank = np.unique(spans[known], return_inverse=True)
    counts = np.bincount(rank, minlength=len(times)).astype(float)
    at_risk = np.cumsum(counts[::-1])[::-1]
    kept = status[known]
    events = [
        np.bincount(rank, weights=kept == cause, minlength=len(times)) for cause in range(1, causes + 1)
    ]
    return times, (at_risk, events)


def _incidence_error(
    share: Floats, before: Floats, at_risk: Floats, everything: Floats, found: Floats
) -> Floats:
    """The standard error of a cumulative incidence by the delta method (Marubini and Valsecchi 1995, §10.3)."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        hazard = everything / (at_risk * (at_risk - everything))
        variance = share**2 * np.cumsum(hazard)
        variance += np.cumsum(share**2 * hazard) - 2 * share * np.cumsum(share * hazard)
        variance += np.cumsum(before**2 * (at_risk - found) * found / at_risk)
        cross = before * found / at_risk
        variance += 2 * (np.cumsum(share * cross) - share * np.cumsum(cross))
        return np.asarray(np.sqrt(np.maximum(variance, 0)), dtype=float)


def _log_log(share: Floats, error: Floats, confidence: float) -> tuple[Floats, Floats]:
    """An interval that stays between 0 and 1: symmetric in log(-log share)."""
    from statistics import NormalDist

    import numpy as np

    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log(share)
        width = z * error / np.abs(share * log)
        low, high = np.exp(log * np.exp(width)), np.exp(log * np.exp(-width))
    undefined = ~((share > 0) & (share < 1) & np.isfinite(error))
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


# -- retries ---------------------------------------------------------------------------------------------------


def retry_schedule(
    deliveries: Frame,
    *,
    by: str | Sequence[str] = "reporting_host",
    same_run_seconds: float = 1.0,
) -> pd.DataFrame:
    """Describe when a message is tried again after it was put off (canonical table 14).

    Parameters
    ----------
    deliveries
        Delivery attempts, one's own, or those of many senders at one's own server.
    by
        Columns whose values are schedules of their own, as `reporting_host`, `mta`, `recipient_domain`.
    same_run_seconds
        Tries that follow each other this closely are one: a sender goes from MX host to MX host.

    Returns
    -------
    DataFrame
        Indexed by group and number of the retry (1 is the second try): `messages` that were tried so often (one per
        recipient), `wait_seconds` since the try before (median), and quartiles and extremes of the time since the
        first try: `since_first_seconds` (median), `first_quartile_seconds`, `third_quartile_seconds`,
        `shortest_seconds`, `longest_seconds`.

    Notes
    -----
    Of a Dask frame the times of all retries are fetched: medians cannot be added up.
    """
    import numpy as np
    import pandas as pd

    keys = [by] if isinstance(by, str) else list(by)
    rows = whole_messages(deliveries, (*STORY, *keys))
    retried = collected(mapped(rows, _retries, keys=keys, same_run_seconds=same_run_seconds))
    groups = retried.groupby([*keys, "retry"], observed=True, dropna=False)
    since = groups["since"]
    table = pd.DataFrame(
        {
            "messages": groups.size().astype("int64"),
            "wait_seconds": groups["wait"].median(),
            "since_first_seconds": since.median(),
            "first_quartile_seconds": since.quantile(0.25),
            "third_quartile_seconds": since.quantile(0.75),
            "shortest_seconds": since.min(),
            "longest_seconds": since.max(),
        }
    )
    return table.astype({name: np.float64 for name in table.columns if name != "messages"})


def _retries(deliveries: pd.DataFrame, *, keys: list[str], same_run_seconds: float) -> pd.DataFrame:
    """Give each try but the first of its message: the groups, its number, and how long after others it was."""
    frame = conform(deliveries, DELIVERIES)
    frame = frame.assign(message=message_numbers(frame))
    tried = frame["attempted"].fillna(True).astype(bool) & frame["logged_at"].notna()
    frame = frame[tried].sort_values("logged_at", kind="stable")
    number = pair_numbers(frame["message"], frame["recipient"])
    wait = frame.groupby(number)["logged_at"].diff().dt.total_seconds()
    starts = wait.isna() | (wait > same_run_seconds)  # the first try of a run
    frame, number = frame[starts], number[starts]
    frame = frame.assign(
        retry=frame.groupby(number).cumcount(),
        wait=frame.groupby(number)["logged_at"].diff().dt.total_seconds(),
        since=(frame["logged_at"] - frame.groupby(number)["logged_at"].transform("first")).dt.total_seconds(),
    )
    again: pd.DataFrame = frame[frame["retry"] > 0]
    return again[[*keys, "retry", "wait", "since"]]
