"""Delivery attempts that belong together: one message to one recipient, from its first try to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtls_analysis.outcomes import Action
from rtls_analysis.schema import DELIVERIES, conform

if TYPE_CHECKING:
    import pandas as pd

ACCEPTED = frozenset({Action.DELIVERED, Action.RELAYED, Action.EXPANDED})
"""Actions by which a recipient was taken over."""

_RELAY = ["relay_host", "relay_address", "relay_port"]


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
        before them `message` (a number), `tries` (rows that were attempts), `first_at` (time of the first row)
        and `first_outcome` (its `tls_outcome`). Its relay is the last one that was reached: an expired message has
        that of its last try.
    """
    import numpy as np
    import pandas as pd

    frame = conform(deliveries, DELIVERIES)
    message = message_numbers(frame).to_numpy()
    recipient = pd.factorize(frame["recipient"])[0] + 1
    pair = pd.factorize(message * (int(recipient.max(initial=0)) + 1) + recipient)[0]
    order = np.lexsort((frame["logged_at"].astype("int64"), pair))  # pair by pair, each in the order of time
    begins = np.flatnonzero(np.diff(pair[order], prepend=-1))
    ends = np.append(begins, len(order))[1:] - 1
    first, last = order[begins], order[ends]

    attempted = frame["attempted"].fillna(True).to_numpy(dtype=np.int64)
    reached = (frame["relay_host"].notna() | frame["relay_address"].notna()).to_numpy()
    places = np.where(reached[order], np.arange(len(order)), -1)
    relay = last.copy()
    tries = first.copy()
    if len(order):
        tries = np.add.reduceat(attempted[order], begins)
        place = np.maximum.reduceat(places, begins)
        relay = np.where(place >= 0, order[place], last)

    result: pd.DataFrame = frame.iloc[last].reset_index(drop=True)
    for name in _RELAY:
        result[name] = frame[name].iloc[relay].reset_index(drop=True)
    result.insert(0, "message", message[last])
    result.insert(1, "tries", tries)
    result.insert(2, "first_at", frame["logged_at"].iloc[first].reset_index(drop=True))
    result.insert(3, "first_outcome", frame["tls_outcome"].iloc[first].reset_index(drop=True))
    return result
