"""Where mail fails, and why: by time, destination and provider, over logs, bounces and TLS reports.

Canonical tables 3 (over time), 5 (reasons, one by precedence and all that apply) and 17 (host rate beside message
rate) of the fact sheet on measurement. Each rate says of what: attempts, messages, sessions of a report.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.events import (
    PERIODS,
    Per,
    Result,
    delivery_events,
    delivery_units,
    events,
    group_names,
    grouped,
    table_of,
    unit_name,
    whole_units,
)
from rtls_analysis.analysis.intervals import CONFIDENCE, wilson
from rtls_analysis.analysis.messages import (
    ACCEPTED,
    STORY,
    columns_of,
    is_local,
    queue_key,
    recipient_ends,
    whole_messages,
)
from rtls_analysis.analysis.rates import MINIMUM, RATE_COLUMNS, rates
from rtls_analysis.frames import Frame, collected, is_dask, mapped, reduced, split_like, together
from rtls_analysis.outcomes import TlsLevel, TlsOutcome
from rtls_analysis.schema import CONNECTIONS, conform

if TYPE_CHECKING:
    import pandas as pd

PRECEDENCE: tuple[TlsOutcome, ...] = (
    # what is known before a connection, in the order in which a sender meets it, then the session, then the message
    TlsOutcome.DNSSEC_INVALID,
    TlsOutcome.DANE_REQUIRED,
    TlsOutcome.STS_POLICY_FETCH_ERROR,
    TlsOutcome.STS_POLICY_INVALID,
    TlsOutcome.STS_WEBPKI_INVALID,
    TlsOutcome.STS_MX_MISMATCH,
    TlsOutcome.MX_UNAUTHENTICATED,
    TlsOutcome.STARTTLS_NOT_SUPPORTED,
    TlsOutcome.STARTTLS_REFUSED,
    TlsOutcome.TLS_VERSION_TOO_LOW,
    TlsOutcome.TLS_HANDSHAKE_FAILED,
    TlsOutcome.TLSA_INVALID,
    TlsOutcome.CERTIFICATE_EXPIRED,
    TlsOutcome.CERTIFICATE_NOT_TRUSTED,
    TlsOutcome.CERTIFICATE_HOST_MISMATCH,
    TlsOutcome.VALIDATION_FAILURE,
    TlsOutcome.CERTIFICATE_UNVERIFIED,
    TlsOutcome.REQUIRETLS_NOT_SUPPORTED,
    TlsOutcome.PEER_REQUIRES_TLS,
    TlsOutcome.LOCAL_POLICY,
    TlsOutcome.UNKNOWN,
    TlsOutcome.NOT_TLS,
    TlsOutcome.OK,
)
"""Of several reasons the first of these is the one that is counted: TLS before what has nothing to do with it."""

_NOT_SENT = frozenset({Result.DELAYED, Result.FAILED})


def as_rates(counts: pd.DataFrame, unit: str, confidence: float, minimum: int) -> pd.DataFrame:
    """Finish a table of `numerator`, `denominator` and `unknown` as `rates` does."""
    import numpy as np

    yes, tested, is_open = (
        counts[name].to_numpy(dtype=float) for name in ("numerator", "denominator", "unknown")
    )
    low, high = wilson(yes, tested, confidence=confidence)
    with np.errstate(invalid="ignore", divide="ignore"):
        table = counts.assign(
            unit=unit,
            rate=yes / tested,
            low=low,
            high=high,
            trials=counts["denominator"],
            not_tested=0,
            if_unknown_no=yes / (tested + is_open),
            if_unknown_yes=(yes + is_open) / (tested + is_open),
            is_small=tested < minimum,
        )
    if "not_applicable" not in table:
        table["not_applicable"] = 0
    return table[[*RATE_COLUMNS, *(name for name in counts.columns if name not in RATE_COLUMNS)]]


# -- how often -------------------------------------------------------------------------------------------------


def failure_rates(
    frame: Frame,
    *,
    by: str | Sequence[str] | None = None,
    per: str = Per.MESSAGE,
    reasons: Sequence[str] | None = None,
    confidence: float = CONFIDENCE,
    minimum: int = MINIMUM,
) -> pd.DataFrame:
    """Count how often mail fails, by time, destination or provider (canonical table 3).

    Parameters
    ----------
    frame
        `deliveries`, `connections`, `bounces` or `tls_reports`.
    by
        ``hour``, ``day``, ``week``, ``month`` (UTC), ``destination``, ``provider``, ``host``, ``sender_domain``,
        ``reporter``; one or several.
    per
        Of deliveries: ``message`` (and recipient; one still queued is `unknown`) or ``attempt`` (one that was put off
        failed).
    reasons
        Words of `TlsOutcome`: only failures for these count, such as ``["starttls_refused"]``.

    Returns
    -------
    DataFrame
        Indexed by group, as of `rates`: `numerator` (failed), `denominator`, `unit`, `rate`, `low`, `high`, `trials`,
        `unknown`, bounds, `is_small`; and `delayed` (counts).

    Notes
    -----
    A log's bounces are only those of its own mail, and DSNs tell of what failed, not of what went: of `bounces` the
    rate is the share of notices that tell of a final failure. Sessions of a TLS report are counted as they are
    reported; many come from one host, so that the interval is too narrow for the next day's.
    """
    rows = whole_units(frame, per=per)
    counts = reduced(rows, _failures, columns=_seen(frame, by), by=by, per=per, reasons=reasons)
    return as_rates(_by_size(counts), unit_name(frame, per), confidence, minimum)


def _seen(frame: Frame, by: str | Sequence[str] | None) -> list[str] | None:
    """Name the columns of a mail table that have to be looked at; all with None."""
    return [*STORY, *group_names(by)] if table_of(frame) == "deliveries" else None


def _failures(
    frame: pd.DataFrame, *, by: str | Sequence[str] | None, per: str, reasons: Sequence[str] | None
) -> pd.DataFrame:
    """Count failures and the like by group."""
    table, names = grouped(events(frame, per=per), by)
    is_attempt = table_of(frame) == "deliveries" and Per(per) is Per.ATTEMPT
    counted = table["result"].isin([str(word) for word in _NOT_SENT] if is_attempt else [str(Result.FAILED)])
    if reasons is not None:
        counted &= table["reason"].isin([str(TlsOutcome(word)) for word in reasons])
    is_open = table["result"] == Result.UNKNOWN
    if not is_attempt:
        is_open |= table["result"] == Result.DELAYED
    weight = table["weight"]
    parts = table.assign(
        numerator=weight.where(counted, 0),
        denominator=weight.where(~is_open, 0),
        unknown=weight.where(is_open, 0),
        delayed=weight.where(table["result"] == Result.DELAYED, 0),
    )
    columns = ["numerator", "denominator", "unknown", "delayed"]
    return parts.groupby(names, observed=True)[columns].sum().astype("int64")


def _by_size(counts: pd.DataFrame) -> pd.DataFrame:
    """Put groups by size; those of time stay in their order."""
    if counts.index.nlevels == 1 and counts.index.name not in PERIODS:
        return counts.sort_values("denominator", ascending=False, kind="stable")
    return counts


# -- why -------------------------------------------------------------------------------------------------------


def failure_reasons(
    frame: Frame,
    *,
    connections: Frame | None = None,
    by: str | Sequence[str] | None = None,
    count: str = "first",
    confidence: float = CONFIDENCE,
    minimum: int = MINIMUM,
) -> pd.DataFrame:
    """Count why mail failed or was put off, one reason each or all that apply (canonical table 5).

    Parameters
    ----------
    frame
        `deliveries` (one trial is a message to one recipient that failed or was put off at least once),
        `connections`, `bounces` or `tls_reports` (sessions).
    connections
        With deliveries: the table `connections` of the same logs. An MX host whose TLS failed before the next one
        took the mail leaves no delivery attempt, only this.
    by
        As for `failure_rates`.
    count
        ``first``: of each the one that comes first in `PRECEDENCE`, so that the shares add up to one; ``all``: each
        that was met, so that they may add up to more.

    Returns
    -------
    DataFrame
        Indexed by group and reason (`TlsOutcome`), those met most often first: as of `rates`, with `delivered`,
        `failed` and `queued`, how those ended that met the reason (counts).
    """
    if count not in ("first", "all"):
        raise ValueError(f"count is {count!r}; give 'first' or 'all'")
    is_mail = table_of(frame) == "deliveries"
    rows = whole_units(frame, per=Per.MESSAGE)
    beside = () if connections is None or not is_mail else (_beside(connections, rows),)
    sums = reduced(rows, _reasons, *beside, by=by, count=count)
    names = [str(name) for name in sums.index.names[:-1]]
    whole = sums.pop("units").groupby(names, observed=True).sum()
    counts = sums.reset_index().join(whole[whole > 0].rename("denominator"), on=names).assign(unknown=0)
    in_time = [name for name in names if name in PERIODS]
    columns = [*in_time, *([] if in_time else ["denominator", *names]), "numerator"]
    rising = [name in names for name in columns]
    counts = counts.sort_values(columns, ascending=rising, kind="stable").set_index([*names, "reason"])
    unit = unit_name(frame, Per.MESSAGE)
    return as_rates(counts, unit, confidence, minimum)


def _beside(connections: Frame, rows: Frame) -> Frame:
    """Give connections beside the messages that they served, partition by partition."""
    if not is_dask(rows):
        return collected(connections, _SERVED)
    served = split_like(connections, rows)
    served = mapped(served, columns_of, columns=_SERVED, table=CONNECTIONS, names=_SERVED)
    return together(served, queue_key, partitions=rows.npartitions)


_SERVED = ["logged_at", "mta", "reporting_host", "process_id", "queue_id", "relay_host", "tls_outcome"]


def _reasons(
    frame: pd.DataFrame,
    connections: pd.DataFrame | None = None,
    *,
    by: str | Sequence[str] | None,
    count: str,
) -> pd.DataFrame:
    """Count reasons by group; `units` are those of which a reason is the first."""
    met, names = grouped(_met(frame, connections), by)
    if count == "first":
        order = {str(word): place for place, word in enumerate(PRECEDENCE)}
        met = met.assign(place=met["reason"].astype(object).map(order))
        met = met.sort_values("place", kind="stable").drop_duplicates("unit")
    else:
        met = met.drop_duplicates(["unit", "reason"])
    met = met.assign(
        reason=met["reason"].astype(object).fillna(str(TlsOutcome.UNKNOWN)),
        units=met["weight"].where(~met["unit"].duplicated(), 0),
        **{word: met["weight"].where(met["end"] == word, 0) for word in ("delivered", "failed", "queued")},
    )
    columns = {"weight": "numerator", "delivered": "delivered", "failed": "failed", "queued": "queued"}
    groups = met.groupby([*names, "reason"], observed=True)
    return groups[[*columns, "units"]].sum().astype("int64").rename(columns=columns)


def _met(frame: pd.DataFrame, connections: pd.DataFrame | None) -> pd.DataFrame:
    """The reasons met: one row per unit and reason, how the unit ended in `end`."""
    import pandas as pd

    if table_of(frame) != "deliveries":
        table = events(frame)
        met = table[table["result"].isin([str(word) for word in _NOT_SENT])]
        words = {str(Result.FAILED): "failed", str(Result.DELAYED): "queued"}
        return met.assign(end=met["result"].astype(object).map(words))
    rows = delivery_units(frame)
    rows = delivery_events(rows[~is_local(rows)])
    last = rows.sort_values("logged_at", kind="stable", na_position="first").drop_duplicates(
        "unit", keep="last"
    )
    words = {str(Result.FAILED): "failed", str(Result.DELAYED): "queued"}
    end = last.set_index("unit")["result"].astype(object).map(words).fillna("delivered")
    bad = rows[rows["result"].isin([str(word) for word in _NOT_SENT])]
    tried = bad["attempted"].fillna(True).astype(bool)
    # an end without a try counts where there was no try at all: that of an expired message repeats its last reason
    met = bad[tried | ~bad["unit"].isin(bad.loc[tried, "unit"])]
    if connections is not None:
        met = pd.concat([met, _of_connections(connections, rows)], ignore_index=True)
    return met.assign(end=met["unit"].map(end))


def _of_connections(connections: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The failed TLS attempts of the messages in these rows of `deliveries`, as reasons that their recipients met.

    One that served a message to several domains counts for the recipients whose relay is of the same provider.
    """
    table = events(connections)
    failed = (table["result"] == Result.FAILED).to_numpy()
    keys = ["mta", "reporting_host", "queue_id"]
    told = conform(connections, CONNECTIONS)[keys].reset_index(drop=True).astype(object)
    table = table.drop(columns=["unit", "destination", "sender_domain"]).assign(**told)[failed]
    units = rows.sort_values("relay_host", na_position="last").drop_duplicates("unit")
    domains = units.groupby(keys, observed=True, dropna=False)["recipient_domain"].transform("nunique")
    units = units.assign(one=domains <= 1)[[*keys, "unit", "destination", "sender_domain", "provider", "one"]]
    units = units[units["queue_id"].notna()].astype({"mta": object})
    joined = table.merge(units, on=keys, suffixes=("", "_of_unit"))
    return joined[joined["one"] | (joined["provider"] == joined["provider_of_unit"])]


# -- once and again --------------------------------------------------------------------------------------------


def repeated_failures(
    deliveries: Frame,
    *,
    by: str | Sequence[str] = "destination",
    confidence: float = CONFIDENCE,
    minimum: int = MINIMUM,
) -> pd.DataFrame:
    """Count messages whose first try failed, what became of them, and when their destination failed and took mail.

    Parameters
    ----------
    deliveries
        Own delivery attempts.
    by
        As for `failure_rates`; a period is that of the first try.

    Returns
    -------
    DataFrame
        Indexed by group; of messages (and recipients): `numerator` whose first try failed or was put off, of
        `denominator` that were tried, with the other columns of `rates`; of those that failed at first `recovered`
        (delivered later), `lost`, `queued` (counts), `recovered_rate` (of those that ended) with `recovered_low` and
        `recovered_high`, and `most_tries`; of the group `first_failed_at`, `last_failed_at`, `last_delivered_at`
        (times of attempts), and `is_failing`: the last attempt that came to an end failed.
    """
    sums = reduced(
        whole_messages(deliveries, (*STORY, *group_names(by))),
        _repeated,
        by=by,
        how={
            "most_tries": "max",
            "first_failed_at": "min",
            "last_failed_at": "max",
            "last_delivered_at": "max",
        },
    )
    sums = _by_size(sums[sums["denominator"] + sums["unknown"] > 0])  # else no message began there
    columns = ["numerator", "denominator", "unknown", "recovered", "lost", "queued"]
    table = as_rates(sums[columns], "message and recipient", confidence, minimum)
    ended = table["recovered"] + table["lost"]
    low, high = wilson(table["recovered"], ended, confidence=confidence)
    table["recovered_rate"] = (table["recovered"] / ended.where(ended > 0)).astype("float64")
    table["recovered_low"], table["recovered_high"] = low, high
    times = ["first_failed_at", "last_failed_at", "last_delivered_at"]
    table = table.join(sums[["most_tries", *times]].astype({"most_tries": "int64"}))
    last, took = table["last_failed_at"], table["last_delivered_at"]
    return table.assign(is_failing=last.notna() & (took.isna() | (last > took)))


def _repeated(deliveries: pd.DataFrame, *, by: str | Sequence[str]) -> pd.DataFrame:
    """Count first tries by group, and tell when each group failed and took mail."""
    ends = recipient_ends(deliveries)
    ends = ends[~is_local(ends) & (ends["tries"] > 0)]
    ends = delivery_events(ends.assign(unit=range(len(ends))))
    first_failed = ~ends["first_action"].isin(ACCEPTED) & ends["first_action"].notna()
    ends = ends.assign(
        at=ends["first_at"],
        numerator=first_failed.astype(int),
        denominator=ends["first_action"].notna().astype(int),
        unknown=ends["first_action"].isna().astype(int),
        recovered=(first_failed & (ends["result"] == Result.OK)).astype(int),
        lost=(first_failed & (ends["result"] == Result.FAILED)).astype(int),
        queued=(first_failed & (ends["result"] == Result.DELAYED)).astype(int),
    )
    ends, names = grouped(ends, by)
    columns = ["numerator", "denominator", "unknown", "recovered", "lost", "queued"]
    groups = ends.groupby(names, observed=True)
    sums = groups[columns].sum().join(groups["tries"].max().rename("most_tries"))
    table = sums.join(_last_times(deliveries, names), how="outer")
    return table.fillna(dict.fromkeys([*columns, "most_tries"], 0)).astype(dict.fromkeys(columns, "int64"))


def _last_times(deliveries: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """When each group failed first and last, and when it took mail last."""
    tries, names = grouped(events(deliveries), None if names == ["group"] else names)
    failed = tries["at"].where(tries["result"].isin([str(word) for word in _NOT_SENT]))
    tries = tries.assign(failed=failed, took=tries["at"].where(tries["result"] == Result.OK))
    groups = tries.groupby(names, observed=True)
    return groups.agg(
        first_failed_at=("failed", "min"), last_failed_at=("failed", "max"), last_delivered_at=("took", "max")
    )


# -- hosts and messages ----------------------------------------------------------------------------------------

MEASURES: dict[str, tuple[str, ...]] = {
    "encrypted": tuple(str(word) for word in TlsLevel if word not in (TlsLevel.NONE, TlsLevel.UNKNOWN)),
    "certificate_valid": (str(TlsLevel.TRUSTED), str(TlsLevel.VERIFIED)),
    "verified": (str(TlsLevel.VERIFIED),),
}
"""What is asked of the TLS level of a session."""


def host_and_message_rates(
    deliveries: Frame,
    *,
    hosts: str = "any",
    by: str | Sequence[str] | None = None,
    confidence: float = CONFIDENCE,
    minimum: int = MINIMUM,
) -> pd.DataFrame:
    """Put the rate of hosts beside that of messages: few hosts take most mail (canonical table 17).

    Parameters
    ----------
    deliveries
        Own delivery attempts; those that were accepted count.
    hosts
        When a relay is a yes: ``any`` or ``all`` of its deliveries were.
    by
        As for `failure_rates`.

    Returns
    -------
    DataFrame
        Indexed by group, measure (``encrypted``; ``certificate_valid``: `trusted` or `verified`; ``verified``: by DANE,
        a policy, or a level that demands it) and `of` (``host``, ``message``): as of `rates`. Messages of one host
        are not independent: their interval is cluster-robust over hosts, with `design_effect`.

    Notes
    -----
    A level ``encrypted`` tells nothing of the certificate: there ``certificate_valid`` and ``verified`` are unknown.
    """
    import pandas as pd

    if hosts not in ("any", "all"):
        raise ValueError(f"hosts is {hosts!r}; give 'any' or 'all'")
    rows = reduced(deliveries, _levels, columns=_seen(deliveries, by), by=by).reset_index()
    names = group_names(by) or ["group"]
    tables = {}
    for measure, yes in MEASURES.items():
        unknown = [str(TlsLevel.UNKNOWN), *([] if measure == "encrypted" else [str(TlsLevel.ENCRYPTED)])]
        said = rows["tls_level"].astype(object)
        answer = said.isin(yes).map({True: "yes", False: "no"}).where(~said.isin(unknown), "unknown")
        asked = rows.assign(answer=answer)
        options: dict[str, Any] = {"of": "answer", "yes": "yes", "unknown": ["unknown"]}
        options |= {"by": names, "confidence": confidence, "minimum": minimum}
        tables[measure, "message"] = rates(asked, unit="message", clusters="host", counts="count", **options)
        tables[measure, "host"] = rates(_hosts(asked, names, hosts), unit="host", **options)
    table = pd.concat(tables, names=["measure", "of"])
    return table.reorder_levels([*range(2, table.index.nlevels), 0, 1])


def _levels(deliveries: pd.DataFrame, *, by: str | Sequence[str] | None) -> pd.DataFrame:
    """Count what was accepted over sessions by group, host and TLS level."""
    rows = delivery_units(deliveries)
    rows = delivery_events(rows[~is_local(rows)])
    rows = rows[(rows["result"] == Result.OK) & rows["tls_level"].notna() & rows["host"].notna()]
    rows, names = grouped(rows, by)
    keys = list(dict.fromkeys([*names, "host", "tls_level"]))
    return rows.groupby(keys, observed=True).size().rename("count").to_frame()


def _hosts(asked: pd.DataFrame, names: list[str], rule: str) -> pd.DataFrame:
    """One row per relay host with its answer."""
    keys = [*names, *(["host"] if "host" not in names else [])]
    has = {word: asked["answer"] == word for word in ("yes", "no", "unknown")}
    sums = asked.assign(**has).groupby(keys, observed=True, dropna=False)[list(has)].any()
    answer = sums["yes"].map({True: "yes", False: "no"})
    if rule == "all":
        answer = answer.where(~sums["no"], "no")
    open_ = ~sums["yes"] & sums["unknown"] if rule == "any" else sums["unknown"] & ~sums["no"]
    return answer.where(~open_, "unknown").rename("answer").reset_index()
