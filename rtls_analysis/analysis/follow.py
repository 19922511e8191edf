"""One message through all that is known of it: logs, bounces, TLS reports and Received fields, and what is not known.

What belongs to the message is found by its Message-ID, then by what hangs on that: the queue ids under which servers
held it (also the one in ``queued as ...``, which the next server gave), envelope ids of notices, and, where a log has
no Message-ID, its recipient and the time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.message_page import MessagePage
from rtls_analysis.analysis.stories import Found, Row, queued_as, short_name
from rtls_analysis.frames import Frame, picked
from rtls_analysis.outcomes import Action
from rtls_analysis.schema import BOUNCES, CONNECTIONS, DELIVERIES, HOPS, TLS_REPORTS, Table, conform, rows_of

if TYPE_CHECKING:
    import pandas as pd

_NOTICE_WITHIN = dt.timedelta(minutes=10)
_MOST_ROWS = 2000


def follow(
    message_id: str,
    deliveries: Frame | None = None,
    bounces: Frame | None = None,
    reports: Frame | None = None,
    hops: Frame | None = None,
    *,
    connections: Frame | None = None,
) -> MessagePage:
    """Follow one message through all that is known of it.

    Parameters
    ----------
    message_id
        Its Message-ID, with or without angle brackets; a queue id does where no message has such a Message-ID.
    deliveries
        Delivery attempts, also those of several servers on its way.
    bounces, reports, hops, connections
        The tables `bounces`, `tls_reports`, `hops` and `connections`; any may be left out.

    Returns
    -------
    MessagePage
        A page: HTML in a notebook, text when printed. It says what is not known, and why.

    Raises
    ------
    LookupError
        No table tells of such a message.

    Notes
    -----
    A TLS report names no message: those about the recipient's domain at that time stand beside it, no more. Of Dask
    frames only what belongs to the message is fetched.
    """
    given = {
        "deliveries": deliveries,
        "bounces": bounces,
        "tls_reports": reports,
        "hops": hops,
        "connections": connections,
    }
    wanted = message_id.strip().removeprefix("<").removesuffix(">")
    found = _find(wanted, {name: frame for name, frame in given.items() if frame is not None})
    if not (found.deliveries or found.bounces or found.hops):
        names = ", ".join(name for name, frame in given.items() if frame is not None) or "no table was given"
        raise LookupError(f"no message {wanted!r} in what was given ({names})")
    return MessagePage(wanted, found, {name for name, frame in given.items() if frame is not None})


# -- what belongs to it ----------------------------------------------------------------------------------------


def _find(wanted: str, given: Mapping[str, Frame]) -> Found:
    hops = _picked(given, HOPS, message_id=[wanted])
    bounces = _bounces(given, wanted)
    attempts = _picked(given, DELIVERIES, message_id=[wanted])
    if attempts.empty and bounces.empty and hops.empty:  # a queue id, perhaps
        attempts = _picked(given, DELIVERIES, queue_id=[wanted])
        for own in attempts["message_id"].dropna().unique()[:1]:
            return _find(own, given)
    attempts, guessed = _more_attempts(given, attempts, hops, bounces)
    tries, notices = _rows(DELIVERIES, attempts), _rows(BOUNCES, bounces)
    return Found(
        tries,
        _connections(given, tries),
        notices,
        _reports(given, tries, notices),
        _rows(HOPS, hops),
        guessed,
    )


def _picked(given: Mapping[str, Frame], table: Table, **values: Collection[Any]) -> pd.DataFrame:
    """Fetch the rows of a table in which one of these columns has one of these values; their index is their place."""
    import pandas as pd

    frame = given.get(table.name)
    wanted = {name: sorted({str(value) for value in of if value is not None}) for name, of in values.items()}
    if frame is None or not any(wanted.values()):
        return conform(pd.DataFrame(), table)
    return picked(frame, _with_values, table=table, values=wanted)


def _with_values(frame: pd.DataFrame, table: Table, values: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    import numpy as np

    found = np.zeros(len(frame), dtype=bool)
    for name, wanted in values.items():
        if name in frame:
            found |= frame[name].isin(wanted).fillna(False).to_numpy(dtype=bool)
    return conform(frame[found], table)


def _together(*parts: pd.DataFrame) -> pd.DataFrame:
    """Put rows that were picked several times together, each once, in the order of their table."""
    import pandas as pd

    rows = pd.concat([part for part in parts if len(part)] or parts[:1])
    return rows[~rows.index.duplicated()].sort_index()


def _rows(table: Table, frame: pd.DataFrame) -> list[dict[str, Any]]:
    return rows_of(table, frame.head(_MOST_ROWS)[table.names()])


def _bounces(given: Mapping[str, Frame], wanted: str) -> pd.DataFrame:
    """Notices of the message: by its Message-ID (some write it as the envelope id), then by their envelope ids."""
    own = _picked(given, BOUNCES, original_message_id=[wanted], original_envelope_id=[wanted, f"<{wanted}>"])
    near = _picked(given, BOUNCES, original_envelope_id=own["original_envelope_id"].dropna().unique())
    return _together(own, near[near["original_message_id"].isna()])


def _connections(given: Mapping[str, Frame], tries: Sequence[Row]) -> list[dict[str, Any]]:
    """Connections that served the message, by the queue ids of its attempts."""
    held = {(row["reporting_host"], row["queue_id"]) for row in tries if row["queue_id"]}
    near = _picked(given, CONNECTIONS, queue_id=[queue for _host, queue in held])
    return [row for row in _rows(CONNECTIONS, near) if (row["reporting_host"], row["queue_id"]) in held]


def _more_attempts(
    given: Mapping[str, Frame], attempts: pd.DataFrame, hops: pd.DataFrame, bounces: pd.DataFrame
) -> tuple[pd.DataFrame, bool]:
    """Attempts in logs without Message-IDs: by queue ids that are known, or else by recipient and time."""
    queues = {
        (short_name(row["by_host"]), row["queue_id"])
        for row in _rows(HOPS, hops)
        if row["queue_id"] is not None
    }
    for row in _rows(DELIVERIES, attempts):
        if queue := queued_as(row["reply_text"]):
            queues.add((short_name(row["relay_host"]), queue))
        queues.add((short_name(row["reporting_host"]), row["queue_id"]))
    candidates = _nameless(given, queue_id=[queue for _host, queue in queues])
    ours = [
        (short_name(host), queue) in queues
        for host, queue in zip(candidates["reporting_host"], candidates["queue_id"], strict=True)
    ]
    more = candidates[ours]
    guessed = False
    if attempts.empty and more.empty:
        more = _by_recipient(given, bounces)
        guessed = len(more) > 0
    return _together(attempts, more), guessed


def _nameless(given: Mapping[str, Frame], **values: Collection[Any]) -> pd.DataFrame:
    """Fetch attempts in logs without Message-IDs."""
    rows = _picked(given, DELIVERIES, **values)
    return rows[rows["message_id"].isna()]


def _by_recipient(given: Mapping[str, Frame], bounces: pd.DataFrame) -> pd.DataFrame:
    """The one message that failed for a notice's recipient, at the server that wrote the notice, just before it."""
    import pandas as pd

    found: set[tuple[Any, Any]] = set()
    notices = _rows(BOUNCES, bounces)
    names = [notice[name] for notice in notices for name in ("final_recipient", "original_recipient")]
    nameless = _nameless(given, recipient=names)
    for notice in notices:
        if notice["action"] != Action.FAILED or notice["reported_at"] is None:
            continue
        to = nameless["recipient"].isin([notice["final_recipient"], notice["original_recipient"]])
        age = pd.Timestamp(notice["reported_at"]) - nameless["logged_at"]
        near = (age >= dt.timedelta(seconds=-5)) & (age <= _NOTICE_WITHIN)
        rows = nameless[to & near & (nameless["action"] == Action.FAILED)]
        own = {
            (host, queue)
            for host, queue in zip(rows["reporting_host"], rows["queue_id"], strict=True)
            if short_name(host) == short_name(notice["reporting_mta"])
        }
        if len(own) == 1:
            found |= own
    more = _nameless(given, queue_id=[queue for _host, queue in found])
    pairs = zip(more["reporting_host"], more["queue_id"], strict=True)
    return more[[pair in found for pair in pairs]]


def _reports(given: Mapping[str, Frame], mail: Sequence[Row], notices: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of TLS reports about the recipients' domains, or their relays, at the time of the attempts."""
    times = [row["logged_at"] for row in mail] + [row["reported_at"] for row in notices]
    known = [time for time in times if time is not None]
    names = {row["recipient_domain"] for row in (*mail, *notices)} | {row["relay_host"] for row in mail}
    names.discard(None)
    if not known:
        return []
    about = _picked(given, TLS_REPORTS, policy_domain=names, receiving_mx=names)
    at_that_time = (about["begins_at"] <= max(known)) & (about["ends_at"] >= min(known))
    return _rows(TLS_REPORTS, about[at_that_time.fillna(False)])
