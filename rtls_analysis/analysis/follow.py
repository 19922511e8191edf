"""One message through all that is known of it: logs, bounces, TLS reports and Received fields, and what is not known.

What belongs to the message is found by its Message-ID, then by what hangs on that: the queue ids under which servers
held it (also the one in ``queued as ...``, which the next server gave), envelope ids of notices, and, where a log has
no Message-ID, its recipient and the time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.message_page import MessagePage
from rtls_analysis.analysis.stories import Found, Row, queued_as, short_name
from rtls_analysis.outcomes import Action
from rtls_analysis.schema import BOUNCES, CONNECTIONS, DELIVERIES, HOPS, TLS_REPORTS, Table, conform, rows_of

if TYPE_CHECKING:
    import pandas as pd

_NOTICE_WITHIN = dt.timedelta(minutes=10)
_MOST_ROWS = 2000


def follow(
    message_id: str,
    deliveries: pd.DataFrame | None = None,
    bounces: pd.DataFrame | None = None,
    reports: pd.DataFrame | None = None,
    hops: pd.DataFrame | None = None,
    *,
    connections: pd.DataFrame | None = None,
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
    A TLS report names no message: those about the recipient's domain at that time stand beside it, no more.
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


def _find(wanted: str, given: Mapping[str, pd.DataFrame]) -> Found:
    import pandas as pd

    tables = (DELIVERIES, CONNECTIONS, BOUNCES, TLS_REPORTS, HOPS)
    frames = {table.name: conform(given.get(table.name, pd.DataFrame()), table) for table in tables}
    mail = frames["deliveries"]
    hops = frames["hops"][frames["hops"]["message_id"] == wanted]
    bounces = _bounces(frames["bounces"], wanted)
    attempts = mail[mail["message_id"] == wanted]
    if attempts.empty and bounces.empty and hops.empty:  # a queue id, perhaps
        attempts = mail[mail["queue_id"] == wanted]
        for own in attempts["message_id"].dropna().unique()[:1]:
            return _find(own, given)
    attempts, guessed = _more_attempts(mail, attempts, hops, bounces)
    tries, notices = _rows(DELIVERIES, attempts), _rows(BOUNCES, bounces)
    return Found(
        tries,
        _connections(frames["connections"], tries),
        notices,
        _reports(frames["tls_reports"], tries, notices),
        _rows(HOPS, hops),
        guessed,
    )


def _rows(table: Table, frame: pd.DataFrame) -> list[dict[str, Any]]:
    return rows_of(table, frame.head(_MOST_ROWS)[table.names()])


def _bounces(frame: pd.DataFrame, wanted: str) -> pd.DataFrame:
    """Notices of the message: by its Message-ID (some write it as the envelope id), then by their envelope ids."""
    named = frame["original_message_id"] == wanted
    as_envelope = frame["original_envelope_id"].isin([wanted, f"<{wanted}>"])
    own = (named | as_envelope).fillna(False).astype(bool)
    envelopes = frame.loc[own, "original_envelope_id"].dropna().unique()
    nameless = frame["original_message_id"].isna() & frame["original_envelope_id"].isin(envelopes)
    return frame[own | nameless]


def _connections(frame: pd.DataFrame, tries: Sequence[Row]) -> list[dict[str, Any]]:
    """Connections that served the message, by the queue ids of its attempts."""
    held = {(row["reporting_host"], row["queue_id"]) for row in tries if row["queue_id"]}
    near = frame[frame["queue_id"].isin([queue for _host, queue in held])]
    return [row for row in _rows(CONNECTIONS, near) if (row["reporting_host"], row["queue_id"]) in held]


def _more_attempts(
    frame: pd.DataFrame, attempts: pd.DataFrame, hops: pd.DataFrame, bounces: pd.DataFrame
) -> tuple[pd.DataFrame, bool]:
    """Attempts in logs without Message-IDs: by queue ids that are known, or else by recipient and time."""
    nameless = frame[frame["message_id"].isna()]
    queues = {
        (short_name(row["by_host"]), row["queue_id"])
        for row in _rows(HOPS, hops)
        if row["queue_id"] is not None
    }
    for row in _rows(DELIVERIES, attempts):
        if queue := queued_as(row["reply_text"]):
            queues.add((short_name(row["relay_host"]), queue))
        queues.add((short_name(row["reporting_host"]), row["queue_id"]))
    candidates = nameless[nameless["queue_id"].isin([queue for _host, queue in queues])]
    ours = [
        (short_name(host), queue) in queues
        for host, queue in zip(candidates["reporting_host"], candidates["queue_id"], strict=True)
    ]
    more = candidates[ours]
    guessed = False
    if attempts.empty and more.empty:
        more = _by_recipient(nameless, bounces)
        guessed = len(more) > 0
    return frame[frame.index.isin(attempts.index) | frame.index.isin(more.index)], guessed


def _by_recipient(nameless: pd.DataFrame, bounces: pd.DataFrame) -> pd.DataFrame:
    """The one message that failed for a notice's recipient, at the server that wrote the notice, just before it."""
    import pandas as pd

    found: set[tuple[Any, Any]] = set()
    for notice in _rows(BOUNCES, bounces):
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
    pairs = zip(nameless["reporting_host"], nameless["queue_id"], strict=True)
    return nameless[[pair in found for pair in pairs]]


def _reports(frame: pd.DataFrame, mail: Sequence[Row], notices: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of TLS reports about the recipients' domains, or their relays, at the time of the attempts."""
    times = [row["logged_at"] for row in mail] + [row["reported_at"] for row in notices]
    known = [time for time in times if time is not None]
    names = {row["recipient_domain"] for row in (*mail, *notices)} | {row["relay_host"] for row in mail}
    names.discard(None)
    if not known:
        return []
    about = frame["policy_domain"].isin(names) | frame["receiving_mx"].isin(names)
    at_that_time = (frame["begins_at"] <= max(known)) & (frame["ends_at"] >= min(known))
    return _rows(TLS_REPORTS, frame[about & at_that_time.fillna(False)])
