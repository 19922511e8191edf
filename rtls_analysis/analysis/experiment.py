"""What became of the wish for REQUIRETLS in own mail: the experiment that Postfix 3.11 keeps in its log.

Only a log with a word for the wish tells (Postfix's field ``tls=``); mail of other servers is not counted here. New in
the literature: there is no canonical table yet. Reasons of those that failed are table 5 (`failures`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.events import Per, Result, delivery_events, delivery_units, group_names, grouped
from rtls_analysis.analysis.intervals import CONFIDENCE
from rtls_analysis.analysis.messages import STORY, is_local, whole_messages
from rtls_analysis.analysis.rates import MINIMUM, rates
from rtls_analysis.frames import Frame, mapped, reduced
from rtls_analysis.outcomes import RequireTls, TlsLevel, Told

if TYPE_CHECKING:
    import pandas as pd

ASKED: tuple[RequireTls, ...] = (
    RequireTls.SENT,
    RequireTls.SENT_UNAUTHENTICATED,
    RequireTls.NOT_OFFERED,
    RequireTls.NO_STARTTLS,
    RequireTls.NO_ENCRYPTION,
    RequireTls.NO_CERTIFICATE_MATCH,
    RequireTls.UNDECIDED,
)
"""Words that a message gets whose sender asked, from the best to what could not be told."""


class Promise(StrEnum):
    """How far a delivery kept what its sender asked for (RFC 8689 §4.2.1)."""

    KEPT = "kept"  # sent on with REQUIRETLS, to an authenticated server with a secured name
    KEPT_UNTOLD = "kept_untold"  # sent on with REQUIRETLS; the log does not tell how the name was secured
    WEAKENED = "weakened"  # sent on with REQUIRETLS, but the server or its name was not authenticated
    DROPPED = "dropped"  # delivered over TLS without REQUIRETLS
    BROKEN = "broken"  # delivered in cleartext
    REFUSED = "refused"  # refused by the sender's own policy, as was asked
    NOT_DELIVERED = "not_delivered"  # for another reason, or not yet


_DELIVERED = frozenset({Promise.KEPT, Promise.KEPT_UNTOLD, Promise.WEAKENED, Promise.DROPPED, Promise.BROKEN})


def asked_for_requiretls(deliveries: Frame, *, per: str = Per.MESSAGE) -> Frame:
    """The attempts, or of each message and recipient the last one, whose sender asked for REQUIRETLS.

    Parameters
    ----------
    deliveries
        Own delivery attempts.
    per
        ``message`` (and recipient) or ``attempt``.

    Returns
    -------
    DataFrame
        Rows of `deliveries` with `at`, `destination`, `host`, `provider`, `reporter`, `result` as of
        `rtls_analysis.analysis.events`, and `promise` (a word of `Promise`). A message's `result` is that of its end.
        Of a Dask frame a Dask frame, each partition in the order of time.
    """
    return mapped(whole_messages(deliveries, None), _asked, per=Per(per))


_WISH = (*STORY, "requiretls", "requiretls_strict", "requiretls_violated")
"""Columns of `deliveries` that tell of the wish and what became of it."""


def _asked(deliveries: pd.DataFrame, *, per: Per) -> pd.DataFrame:
    import pandas as pd

    rows = delivery_units(deliveries)
    rows = rows[~is_local(rows)].sort_values("logged_at", kind="stable", na_position="first")
    last_action = rows.drop_duplicates("unit", keep="last").set_index("unit")["action"]
    asked = rows[rows["requiretls"].isin([str(word) for word in ASKED])]
    if per is Per.MESSAGE:
        asked = asked.drop_duplicates("unit", keep="last")
        asked = asked.assign(action=last_action.reindex(asked["unit"].to_numpy()).set_axis(asked.index))
    asked = delivery_events(asked)
    return asked.assign(promise=pd.Categorical(_promises(asked), categories=[str(word) for word in Promise]))


def _promises(asked: pd.DataFrame) -> pd.Series[str]:
    import pandas as pd

    went = asked["result"] == Result.OK
    word, strict = asked["requiretls"], asked["requiretls_strict"]
    sent = word.isin([RequireTls.SENT, RequireTls.SENT_UNAUTHENTICATED])
    weak = (word == RequireTls.SENT_UNAUTHENTICATED) | (strict == Told.NO)
    cleartext = asked["tls_level"] == TlsLevel.NONE
    refused = asked["requiretls_violated"].fillna(False).astype(bool)
    promise = pd.Series(str(Promise.NOT_DELIVERED), asked.index, dtype=object)
    promise[~went & refused] = str(Promise.REFUSED)
    promise[went] = str(Promise.DROPPED)
    promise[went & cleartext & ~sent] = str(Promise.BROKEN)
    promise[went & sent] = str(Promise.KEPT_UNTOLD)
    promise[went & sent & (strict == Told.YES)] = str(Promise.KEPT)
    promise[went & sent & weak] = str(Promise.WEAKENED)
    return promise


def requiretls_experiment(
    deliveries: Frame,
    *,
    by: str | Sequence[str] | None = "sender_domain",
    per: str = Per.MESSAGE,
    confidence: float = CONFIDENCE,
    minimum: int = MINIMUM,
) -> pd.DataFrame:
    """Share out the mail that asked for REQUIRETLS by what became of the wish.

    Parameters
    ----------
    deliveries
        Own delivery attempts.
    by
        ``sender_domain``, ``destination``, ``provider``, ``host``, ``reporter``, a period (``hour``, ``day``, ``week``,
        ``month``), or several; None for one group.
    per
        ``message`` (and recipient; as the last attempt with a word for it stood) or ``attempt``.

    Returns
    -------
    DataFrame
        Indexed by group and `requiretls` (each of `ASKED` but ``undecided``): as of `rates`. The denominator is what
        was decided; `unknown` is what was not, such as a connection that never came about.

    Notes
    -----
    Over time give ``by=["sender_domain", "day"]``. That the mail was accepted by the next hop says nothing of the
    hops behind it.
    """
    return _shares(
        _counts(deliveries, by, Per(per), "requiretls"),
        group_names(by) or ["group"],
        of="requiretls",
        words=[str(word) for word in ASKED if word is not RequireTls.UNDECIDED],
        unknown=[str(RequireTls.UNDECIDED)],
        unit="message and recipient" if Per(per) is Per.MESSAGE else "delivery attempt",
        confidence=confidence,
        minimum=minimum,
    )


def _counts(deliveries: Frame, by: str | Sequence[str] | None, per: Per, of: str) -> pd.DataFrame:
    """Count what asked for REQUIRETLS by group and word."""
    rows = whole_messages(deliveries, (*_WISH, *group_names(by)))
    return reduced(rows, _wishes, by=by, per=per, of=of).reset_index()


def _wishes(deliveries: pd.DataFrame, *, by: str | Sequence[str] | None, per: Per, of: str) -> pd.DataFrame:
    rows, names = grouped(_asked(deliveries, per=per), by)
    return rows.groupby([*names, of], observed=True).size().rename("count").to_frame()


def _shares(
    rows: pd.DataFrame, names: list[str], *, of: str, words: list[str], **options: Any
) -> pd.DataFrame:
    """Give the rate of each word for each group: group by group, the words in their order."""
    import pandas as pd

    tables = {word: rates(rows, of=of, by=names, yes=word, counts="count", **options) for word in words}
    table = pd.concat(tables, names=[of])
    table = table.reorder_levels([*range(1, table.index.nlevels), 0])
    groups = [key if isinstance(key, tuple) else (key,) for key in tables[words[0]].index]
    return table.loc[[(*key, word) for key in groups for word in words]]


def promises(
    deliveries: Frame,
    *,
    by: str | Sequence[str] | None = "sender_domain",
    of: str = "delivered",
    confidence: float = CONFIDENCE,
    minimum: int = MINIMUM,
) -> pd.DataFrame:
    """Say how far deliveries kept the promise of REQUIRETLS, and where policy was violated.

    Parameters
    ----------
    deliveries
        Own delivery attempts.
    by
        As for `requiretls_experiment`.
    of
        ``delivered``: of the messages that asked and were delivered; ``all``: of all that asked.

    Returns
    -------
    DataFrame
        Indexed by group and `promise`: as of `rates`, one trial a message and recipient.

    Notes
    -----
    ``refused`` is a violation that was prevented: the message was returned. ``dropped`` and ``broken`` are deliveries
    against the wish, as Postfix makes them under its opportunistic policies; ``weakened`` is a delivery that Postfix
    counts as compliant and RFC 8689 does not, such as half-DANE (an unsigned MX record).
    """
    if of not in ("delivered", "all"):
        raise ValueError(f"of is {of!r}; give 'delivered' or 'all'")
    rows = _counts(deliveries, by, Per.MESSAGE, "promise")
    words = [word for word in Promise if of == "all" or word in _DELIVERED]
    rows = rows[rows["promise"].isin([str(word) for word in words])]
    return _shares(
        rows,
        group_names(by) or ["group"],
        of="promise",
        words=[str(word) for word in words],
        unknown=[],
        unit="message and recipient",
        confidence=confidence,
        minimum=minimum,
    )
