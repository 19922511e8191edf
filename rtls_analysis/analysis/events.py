"""What happened to mail, in one form for logs, bounces and TLS reports: when, where to, how it went, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.cohorts import NO_GROUP
from rtls_analysis.analysis.messages import (
    ACCEPTED,
    STORY,
    is_local,
    message_numbers,
    pair_numbers,
    recipient_ends,
    whole_messages,
)
from rtls_analysis.frames import Frame, is_dask, mapped, together
from rtls_analysis.outcomes import Action, TlsOutcome
from rtls_analysis.providers import provider_of
from rtls_analysis.schema import BOUNCES, CONNECTIONS, DELIVERIES, TLS_REPORTS, conform

if TYPE_CHECKING:
    import pandas as pd


class Result(StrEnum):
    """How it went."""

    OK = "ok"
    DELAYED = "delayed"  # not this time: it will be, or was, tried again
    FAILED = "failed"
    UNKNOWN = "unknown"  # the source does not tell


class Per(StrEnum):
    """What of a log counts as one."""

    ATTEMPT = "attempt"
    MESSAGE = "message"  # one message to one recipient, by its last attempt


UNITS: Mapping[tuple[str, Per], str] = {
    ("deliveries", Per.ATTEMPT): "delivery attempt",
    ("deliveries", Per.MESSAGE): "message and recipient",
    **dict.fromkeys((("connections", per) for per in Per), "connection"),
    **dict.fromkeys((("bounces", per) for per in Per), "recipient of a DSN"),
    **dict.fromkeys((("tls_reports", per) for per in Per), "session"),
}
"""What one row of the table `events` counts, by the table it was made of."""

PERIODS = ("hour", "day", "week", "month")

_COLUMNS = [
    "unit",
    "at",
    "destination",
    "host",
    "provider",
    "sender_domain",
    "reporter",
    "result",
    "reason",
    "weight",
]


def table_of(frame: Frame) -> str:
    """Tell which of the mail tables a frame is, from its columns.

    Raises
    ------
    ValueError
        It is none of them.
    """
    marks = {
        "tls_reports": {"policy_domain", "failed_sessions"},
        "bounces": {"final_recipient", "diagnostic"},
        "connections": {"relay_host", "process_id"},
        "deliveries": {"recipient_domain", "action"},
    }
    names = {str(name) for name in frame.columns}
    found = next((table for table, columns in marks.items() if columns <= names), None)
    if found is None:
        raise ValueError("not one of the tables deliveries, connections, bounces, tls_reports")
    return found


def whole_units(frame: Frame, *, per: str, by: Sequence[str] = ()) -> Frame:
    """Bring what belongs together of a Dask frame of mail into one partition, so that `events` can be had of each.

    Parameters
    ----------
    frame
        One of the mail tables; a pandas frame stays as it is.
    per
        As for `events`.
    by
        Columns that are needed besides those of `events`.
    """
    if not is_dask(frame):
        return frame
    match table_of(frame):
        case "deliveries" if Per(per) is Per.MESSAGE:
            return whole_messages(frame, (*STORY, *by))
        case "tls_reports":
            return together(mapped(frame, conform, table=TLS_REPORTS), _report_key)
        case _:
            return frame


def _report_key(reports: pd.DataFrame) -> pd.Series[Any]:
    import pandas as pd

    keys = reports[_REPORT].astype(object)
    hashed: pd.Series[Any] = pd.util.hash_pandas_object(keys.where(keys.notna(), "").astype(str), index=False)
    return hashed.astype("int64")


_REPORT = ["organization", "report_id", "source_file", "policy_index"]


def events(frame: pd.DataFrame, *, per: str = Per.ATTEMPT) -> pd.DataFrame:
    """Bring one of the mail tables into one form.

    Parameters
    ----------
    frame
        `deliveries`, `connections`, `bounces` or `tls_reports`.
    per
        Of deliveries: one row per ``attempt``, or per ``message`` and recipient, as it stood last.

    Returns
    -------
    DataFrame
        `unit` (a number: what belongs together), `at`, `destination` (domain), `host` (relay), `provider` (of the
        host, or else of the destination), `sender_domain`, `reporter` (server or organization that tells),
        `result` (a word of `Result`), `reason` (`TlsOutcome`) and `weight` (sessions of a TLS report; else 1).

    Notes
    -----
    Local mailboxes are left out. Sessions of a report whose failures are not detailed in full are failures for
    an unknown reason; a report's successes carry the reason ``ok``.
    """
    table = table_of(frame)
    match table:
        case "deliveries":
            result = _deliveries(frame, Per(per))
        case "connections":
            result = _connections(frame)
        case "bounces":
            result = _bounces(frame)
        case _:
            result = _tls_reports(frame)
    result = result.assign(provider=_providers(result))
    result["result"] = _categorical(result["result"], Result)
    result["reason"] = _categorical(result["reason"], TlsOutcome)
    result = result[_COLUMNS].reset_index(drop=True)
    result.attrs = {"table": table, "per": str(per)}
    return result


def unit_name(frame: Frame, per: str = Per.ATTEMPT) -> str:
    """Name what one row of the table `events` counts, that is made of a frame."""
    return UNITS[table_of(frame), Per(per)]


def _categorical(values: pd.Series[Any], words: type[StrEnum]) -> Any:
    import pandas as pd

    return pd.Categorical(values.astype(object), categories=[str(word) for word in words])


def _providers(frame: pd.DataFrame) -> pd.Series[Any]:
    known = frame["host"].astype(object).where(frame["host"].notna(), frame["destination"].astype(object))
    held = {name: provider_of(name) for name in known.dropna().unique() if "." in name and name[0] != "["}
    return known.map(held).astype("str")


def _result_of(action: pd.Series[Any]) -> pd.Series[Any]:
    words = {str(word): str(Result.OK) for word in ACCEPTED}
    words |= {str(Action.DELAYED): str(Result.DELAYED), str(Action.FAILED): str(Result.FAILED)}
    return action.astype(object).map(words).fillna(str(Result.UNKNOWN))


def _deliveries(frame: pd.DataFrame, per: Per) -> pd.DataFrame:
    if per is Per.MESSAGE:
        rows = recipient_ends(frame)
        rows = rows.assign(unit=range(len(rows)))
    else:
        rows = delivery_units(frame)
        rows = rows[rows["attempted"].fillna(True).astype(bool)]
    return delivery_events(rows[~is_local(rows)])


def delivery_units(frame: pd.DataFrame) -> pd.DataFrame:
    """Give the rows of `deliveries` with a column `unit`, a number for each message and recipient."""
    frame = conform(frame, DELIVERIES)
    return frame.assign(unit=pair_numbers(message_numbers(frame), frame["recipient"]))


def delivery_events(rows: pd.DataFrame) -> pd.DataFrame:
    """Name what rows of `deliveries` tell as `events` names it; further columns stay."""
    rows = rows.assign(
        at=rows["logged_at"],
        destination=rows["recipient_domain"],
        host=rows["relay_host"],
        reporter=rows["reporting_host"],
        result=_result_of(rows["action"]),
        reason=rows["tls_outcome"],
        weight=1,
    )
    return rows.assign(provider=_providers(rows))


def _connections(frame: pd.DataFrame) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    rows = conform(frame, CONNECTIONS)
    words = {str(TlsOutcome.OK): str(Result.OK), str(TlsOutcome.UNKNOWN): str(Result.UNKNOWN)}
    outcome = rows["tls_outcome"].astype(object)
    result = outcome.map(words).where(outcome.isin(list(words)), str(Result.FAILED))
    return rows.assign(
        unit=np.arange(len(rows)),
        at=rows["logged_at"],
        destination=pd.Series(pd.NA, rows.index, dtype=object),
        sender_domain=pd.Series(pd.NA, rows.index, dtype=object),
        host=rows["relay_host"],
        reporter=rows["reporting_host"],
        result=result.where(outcome.notna(), str(Result.UNKNOWN)),
        reason=rows["tls_outcome"],
        weight=1,
    )


def _bounces(frame: pd.DataFrame) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    rows = conform(frame, BOUNCES)
    return rows.assign(
        unit=np.arange(len(rows)),
        at=rows["reported_at"],
        destination=rows["recipient_domain"],
        sender_domain=pd.Series(pd.NA, rows.index, dtype=object),
        host=rows["remote_mta"],
        reporter=rows["reporting_mta"],
        result=_result_of(rows["action"]),
        reason=rows["tls_outcome"],
        weight=1,
    )


def _tls_reports(frame: pd.DataFrame) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    rows = conform(frame, TLS_REPORTS)
    impossible = rows["impossible"].fillna(False).astype(bool)
    rows = rows[~impossible].reset_index(drop=True)
    policy = rows.groupby(_REPORT, dropna=False, sort=False).ngroup().to_numpy()
    rows = rows.assign(
        unit=np.arange(len(rows)),
        at=rows["begins_at"],
        destination=rows["policy_domain"],
        sender_domain=pd.Series(pd.NA, rows.index, dtype=object),
        host=rows["receiving_mx"],
        reporter=rows["organization"],
        policy=policy,
    )
    first = rows.drop_duplicates("policy")
    detailed = rows["failed_sessions"].fillna(0).groupby(policy).sum()
    rest = first["sessions_failed"].fillna(0).to_numpy() - detailed[first["policy"]].to_numpy()
    failures = rows[rows["failed_sessions"].fillna(0) > 0]
    parts = [
        first.assign(
            result=str(Result.OK), reason=str(TlsOutcome.OK), weight=first["sessions_ok"].fillna(0), host=None
        ),
        failures.assign(
            result=str(Result.FAILED),
            reason=failures["tls_outcome"].astype(object),
            weight=failures["failed_sessions"],
        ),
        first.assign(
            result=str(Result.FAILED), reason=str(TlsOutcome.UNKNOWN), weight=np.maximum(rest, 0), host=None
        ),
    ]
    whole = pd.concat([part.astype({"reason": object, "host": object}) for part in parts], ignore_index=True)
    whole = whole[whole["weight"] > 0]
    return whole.assign(unit=np.arange(len(whole)), weight=whole["weight"].astype("int64"))


# -- groups ----------------------------------------------------------------------------------------------------


def period(at: pd.Series[Any], every: str) -> pd.Series[Any]:
    """Give the hour, day, week (from Monday) or month (UTC) in which each moment lies, by its begin."""
    import pandas as pd

    if every not in PERIODS:
        raise ValueError(f"no period {every!r}: there are {', '.join(PERIODS)}")
    begin = at.dt.floor("h" if every == "hour" else "D")
    if every == "week":
        begin = begin - pd.to_timedelta(begin.dt.day_of_week, unit="D")
    elif every == "month":
        begin = begin - pd.to_timedelta(begin.dt.day - 1, unit="D")
    return pd.Series(begin, name=every)


def group_names(by: str | Sequence[str] | None) -> list[str]:
    """Name the groups that a caller asks for."""
    return [by] if isinstance(by, str) else list(by or ())


def grouped(frame: pd.DataFrame, by: str | Sequence[str] | None) -> tuple[pd.DataFrame, list[str]]:
    """Add the groups that are asked for to a frame with a column `at`, and give their names.

    A period gets a column of its name; text without a value becomes ``(none)``. Without groups all rows are one,
    in a column `group`.
    """
    names = group_names(by)
    if unknown := [name for name in names if name not in PERIODS and name not in frame.columns]:
        known = ", ".join([*PERIODS, *map(str, frame.columns)])
        raise ValueError(f"no column {', '.join(unknown)} to group by; there are {known}")
    if not names:
        return frame.assign(group="all"), ["group"]
    added: dict[str, Any] = {}
    for name in names:
        if name in PERIODS:
            added[name] = period(frame["at"], name)
        else:
            values = frame[name].astype(object)
            added[name] = values.where(values.notna(), NO_GROUP)
    return frame.assign(**added), names
