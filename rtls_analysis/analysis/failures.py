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
    grouped,
    table_of,
    unit_name,
)
from rtls_analysis.analysis.intervals import CONFIDENCE, wilson
from rtls_analysis.analysis.messages import ACCEPTED, is_local, recipient_ends
from rtls_analysis.analysis.rates import MINIMUM, RATE_COLUMNS, rates
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
    frame: pd.DataFrame,
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
    table = events(frame, per=per)
    unit = unit_name(table)
    table, names = grouped(table, by)
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
    counts = _sums(parts, names, ["numerator", "denominator", "unknown", "delayed"])
    return as_rates(counts, unit, confidence, minimum)


def _sums(parts: pd.DataFrame, names: list[str], columns: list[str]) -> pd.DataFrame:
    """Sum columns by groups: those of time in their order, others by size."""
    sums = parts.groupby(names, observed=True)[columns].sum().astype("int64")
    if len(names) == 1 and names[0] not in PERIODS:
        sums = sums.sort_values(columns[1], ascending=False, kind="stable")
    return sums


# -- why -------------------------------------------------------------------------------------------------------


def failure_reasons(
    frame: pd.DataFrame,
    *,
    connections: pd.DataFrame | None = None,
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
    met, unit = _met(frame, connections)
    met, names = grouped(met, by)
    if count == "first":
        order = {str(word): place for place, word in enumerate(PRECEDENCE)}
        met = met.assign(place=met["reason"].astype(object).map(order))
        met = met.sort_values("place", kind="stable").drop_duplicates("unit")
    else:
        met = met.drop_duplicates(["unit", "reason"])
    met = met.assign(reason=met["reason"].astype(object).fillna(str(TlsOutcome.UNKNOWN)))
    whole = met.drop_duplicates("unit").groupby(names, observed=True)["weight"].sum()
    ends = {word: met["weight"].where(met["end"] == word, 0) for word in ("delivered", "failed", "queued")}
    groups = met.assign(**ends).groupby([*names, "reason"], observed=True)
    counts = groups[["weight", *ends]].sum().astype("int64").rename(columns={"weight": "numerator"})
    counts = counts.reset_index().join(whole.rename("denominator"), on=names).assign(unknown=0)
    in_time = [name for name in names if name in PERIODS]
    columns = [*in_time, *([] if in_time else ["denominator", *names]), "numerator"]
    rising = [name in names for name in columns]
    counts = counts.sort_values(columns, ascending=rising, kind="stable").set_index([*names, "reason"])
    return as_rates(counts, unit, confidence, minimum)


def _met(frame: pd.DataFrame, connections: pd.DataFrame | None) -> tuple[pd.DataFrame, str]:
    """The reasons met: one row per unit and reason, how the unit ended in `end`."""
    import pandas as pd

    if table_of(frame) != "deliveries":
        table = events(frame)
        met = table[table["result"].isin([str(word) for word in _NOT_SENT])]
        words = {str(Result.FAILED): "failed", str(Result.DELAYED): "queued"}
        return met.assign(end=met["result"].astype(object).map(words)), unit_name(table)
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
    return met.assign(end=met["unit"].map(end)), "message and recipient"


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
    deliveries: pd.DataFrame,
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
    table = as_rates(_sums(ends, names, columns), "message and recipient", confidence, minimum)
    ended = table["recovered"] + table["lost"]
    low, high = wilson(table["recovered"], ended, confidence=confidence)
    table["recovered_rate"] = (table["recovered"] / ended.where(ended > 0)).astype("float64")
    table["recovered_low"], table["recovered_high"] = low, high
    table["most_tries"] = ends.groupby(names, observed=True)["tries"].max().reindex(table.index)
    return table.join(_last_times(deliveries, names), how="left")


def _last_times(deliveries: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """When each group failed first and last, and when it took mail last."""
    tries, names = grouped(events(deliveries), None if names == ["group"] else names)
    failed = tries["at"].where(tries["result"].isin([str(word) for word in _NOT_SENT]))
    tries = tries.assign(failed=failed, took=tries["at"].where(tries["result"] == Result.OK))
    groups = tries.groupby(names, observed=True)
    table = groups.agg(
        first_failed_at=("failed", "min"), last_failed_at=("failed", "max"), last_delivered_at=("took", "max")
    )
    last, took = table["last_failed_at"], table["last_delivered_at"]
    return table.assign(is_failing=last.notna() & (took.isna() | (last > took)))


# -- hosts and messages ----------------------------------------------------------------------------------------

MEASURES: dict[str, tuple[str, ...]] = {
    "encrypted": tuple(str(word) for word in TlsLevel if word not in (TlsLevel.NONE, TlsLevel.UNKNOWN)),
    "certificate_valid": (str(TlsLevel.TRUSTED), str(TlsLevel.VERIFIED)),
    "verified": (str(TlsLevel.VERIFIED),),
}
"""What is asked of the TLS level of a session."""


def host_and_message_rates(
    deliveries: pd.DataFrame,
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
    rows = delivery_units(deliveries)
    rows = delivery_events(rows[~is_local(rows)])
    rows = rows[(rows["result"] == Result.OK) & rows["tls_level"].notna() & rows["host"].notna()]
    rows, names = grouped(rows, by)
    tables = {}
    for measure, yes in MEASURES.items():
        unknown = [str(TlsLevel.UNKNOWN), *([] if measure == "encrypted" else [str(TlsLevel.ENCRYPTED)])]
        said = rows["tls_level"].astype(object)
        answer = said.isin(yes).map({True: "yes", False: "no"}).where(~said.isin(unknown), "unknown")
        asked = rows.assign(answer=answer)
        options: dict[str, Any] = {"of": "answer", "yes": "yes", "unknown": ["unknown"]}
        options |= {"by": names, "confidence": confidence, "minimum": minimum}
        tables[measure, "message"] = rates(asked, unit="message", clusters="host", **options)
        tables[measure, "host"] = rates(_hosts(asked, names, hosts), unit="host", **options)
    table = pd.concat(tables, names=["measure", "of"])
    return table.reorder_levels([*range(2, table.index.nlevels), 0, 1])


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
