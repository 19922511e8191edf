"""Delivery attempts that belong together: one message to one recipient, from its first try to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rtls_analysis.frames import Frame, is_dask, mapped, together
from rtls_analysis.outcomes import Action
from rtls_analysis.schema import DELIVERIES, Table, conform

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

ACCEPTED = frozenset({Action.DELIVERED, Action.RELAYED, Action.EXPANDED})
"""Actions by which a recipient was taken over."""

_NEVER = 2**63 - 1
_LONGEST_DELAY = 10 * 366 * 86_400.0  # seconds; what claims more is no delay
_RELAY = ["relay_host", "relay_address", "relay_port"]


STORY = (
    "logged_at",
    "mta",
    "reporting_host",
    "queue_id",
    "message_id",
    "sender",
    "recipient",
    "sender_domain",
    "recipient_domain",
    "relay_host",
    "relay_address",
    "relay_port",
    "transport",
    "attempted",
    "action",
    "delay_seconds",
    "tls_level",
    "tls_outcome",
)
"""Columns of `deliveries` that tell messages apart, and what became of them."""


def whole_messages(deliveries: Frame, columns: Sequence[str] | None = STORY) -> Frame:
    """Bring all that a Dask frame of `deliveries` tells of a message into one partition; all columns with None.

    Rows are sent from worker to worker for that. A pandas frame stays as it is.
    """
    if not is_dask(deliveries):
        return deliveries
    wanted = list(deliveries.columns) if columns is None else list(dict.fromkeys(columns))
    rows = mapped(deliveries, columns_of, columns=wanted, table=DELIVERIES, names=wanted)
    return together(rows, queue_key)


def columns_of(frame: pd.DataFrame, table: Table, names: list[str]) -> pd.DataFrame:
    """Give these columns of a table, with their declared dtypes."""
    whole = conform(frame, table)
    return whole[[name for name in names if name in whole]]


def queue_key(frame: pd.DataFrame) -> pd.Series[Any]:
    """Give a number for each row of `deliveries` or `connections`, equal where one server had it under one id."""
    import pandas as pd

    ids = ("queue_id", "message_id", "recipient")  # the first that is known; without, a row stands for itself
    known = [frame[name].astype(object) for name in ids if name in frame]
    name = known[0]
    for other in known[1:]:
        name = name.where(name.notna(), other)
    keys = pd.DataFrame({"mta": frame["mta"], "host": frame["reporting_host"], "id": name}).astype(object)
    hashed: pd.Series[Any] = pd.util.hash_pandas_object(keys.where(keys.notna(), ""), index=False)
    return hashed.astype("int64")


def message_numbers(deliveries: pd.DataFrame) -> pd.Series[int]:
    """Number the messages of `deliveries`: a number for each row, equal where the message is.

    A message is what one server queued under one id: the same Message-ID on another host, or queued again by a
    mailing list, is another message. Rows without any id stand for themselves.
    """
    import numpy as np
    import pandas as pd

    ids = ["mta", "reporting_host", "queue_id", "message_id"]
    keys = [pd.factorize(deliveries[name], use_na_sentinel=True)[0] for name in ids]
    nameless = (keys[2] < 0) & (keys[3] < 0)
    numbers = np.zeros(len(deliveries), dtype=np.int64)
    for key in keys:  # fold one key after the other, so that no product grows beyond the rows
        numbers = pd.factorize(numbers * (int(key.max(initial=0)) + 2) + key + 1)[0]
    numbers[nameless] = len(deliveries) + np.flatnonzero(nameless)
    return pd.Series(numbers, index=deliveries.index, name="message")


def pair_numbers(message: pd.Series[int], recipient: pd.Series[str]) -> pd.Series[int]:
    """Number the pairs of message and recipient: a number for each row, from 0."""
    import pandas as pd

    who = pd.factorize(recipient)[0] + 1
    pairs = message.to_numpy() * (int(who.max(initial=0)) + 1) + who
    return pd.Series(pd.factorize(pairs)[0], index=message.index)


def recipient_ends(deliveries: pd.DataFrame) -> pd.DataFrame:
    """What became of each message for each recipient.

    Parameters
    ----------
    deliveries
        Rows of the table `deliveries`, in any order.

    Returns
    -------
    DataFrame
        One row per (message, recipient): the last row of `deliveries` about it, with the columns of that table, and
        before them `message` (a number), `tries` (rows that were attempts), `arrived_at` (as the delays tell it, or
        else the time of the first row), `first_at`, `first_action` and `first_outcome` (time, `action` and
        `tls_outcome` of the first try, or of the first row where there was none). Its relay is the last one that was
        reached: an expired message has that of its last try.
    """
    import numpy as np
    import pandas as pd

    frame = conform(deliveries, DELIVERIES)
    message = message_numbers(frame)
    pair = pair_numbers(message, frame["recipient"]).to_numpy()
    order = np.lexsort((frame["logged_at"].astype("int64"), pair))  # pair by pair, each in the order of time
    begins = np.flatnonzero(np.diff(pair[order], prepend=-1))
    ends = np.append(begins, len(order))[1:] - 1
    first, last = order[begins], order[ends]

    attempted = frame["attempted"].fillna(True).to_numpy(dtype=np.int64)[order]
    reached = (frame["relay_host"].notna() | frame["relay_address"].notna()).to_numpy()[order]
    numbers = np.arange(len(order))
    relays = np.where(reached, numbers, -1)
    trials = np.where(attempted > 0, numbers, len(order))
    arrivals = _arrivals(frame)[order]
    if len(order):  # else there is nothing to reduce
        attempted = np.add.reduceat(attempted, begins)
        relays = np.maximum.reduceat(relays, begins)
        trials = np.minimum.reduceat(trials, begins)
        arrivals = np.minimum.reduceat(arrivals, begins)
    relay = np.where(relays >= 0, order[relays], last)
    first = np.where(trials < len(order), order[np.minimum(trials, len(order) - 1)], first)

    result: pd.DataFrame = frame.iloc[last].reset_index(drop=True)
    for name in _RELAY:
        result[name] = frame[name].iloc[relay].reset_index(drop=True)
    result.insert(0, "message", message.to_numpy()[last])
    result.insert(1, "tries", attempted)
    arrivals = np.where(arrivals == _NEVER, np.datetime64("NaT").astype(np.int64), arrivals)
    result.insert(2, "arrived_at", pd.Series(arrivals.view("datetime64[us]")).dt.tz_localize("UTC"))
    firsts = {"first_at": "logged_at", "first_action": "action", "first_outcome": "tls_outcome"}
    for place, (name, column) in enumerate(firsts.items(), start=3):
        result.insert(place, name, frame[column].iloc[first].reset_index(drop=True))
    return result


def _arrivals(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    """When each row says that its message arrived, in microseconds since 1970; `_NEVER` where it has no time."""
    import numpy as np

    at = frame["logged_at"].dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
    delay = frame["delay_seconds"].clip(0, _LONGEST_DELAY).fillna(0).to_numpy()
    micro = at.astype(np.int64) - np.rint(delay * 1e6).astype(np.int64)
    return np.where(np.isnat(at), _NEVER, micro)


def is_local(ends: pd.DataFrame) -> pd.Series[bool]:
    """Mark what went to a mailbox of the same host: taken over, by a named transport, without a session."""
    host = ends["relay_host"].fillna("")
    no_host = ends["relay_address"].isna() & (~host.str.contains(".", regex=False) | host.str.contains("/"))
    taken = ends["action"].isin(ACCEPTED) & ends["transport"].notna()
    return taken & ends["tls_level"].isna() & no_host
