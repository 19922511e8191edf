"""TLS versions and key exchanges in logs, by day (canonical table 16 of the fact sheet on measurement)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rtls_analysis.analysis.events import (
    Result,
    delivery_events,
    delivery_units,
    events,
    group_names,
    grouped,
    table_of,
)
from rtls_analysis.analysis.failures import as_rates
from rtls_analysis.analysis.intervals import CONFIDENCE
from rtls_analysis.analysis.messages import STORY, is_local
from rtls_analysis.analysis.rates import MINIMUM, rates
from rtls_analysis.frames import Frame, reduced
from rtls_analysis.outcomes import TlsLevel
from rtls_analysis.schema import CONNECTIONS, TlsVersion, conform

if TYPE_CHECKING:
    import pandas as pd

NOT_TOLD = "not told"
"""The key exchange where a cipher's name does not give it: TLS 1.3 outside GnuTLS, a group without its name."""

_IN_TEXT = re.compile(r" key-exchange (\S+)")
_GNUTLS = re.compile(r"(?:ECDHE|DHE)_([A-Z][A-Z0-9]*[0-9][A-Z0-9]*)_{2}")
_GROUPS = {
    "SECP256R1": "P-256",
    "SECP384R1": "P-384",
    "SECP521R1": "P-521",
    "PRIME256V1": "P-256",
    "P-256": "P-256",
    "X25519": "X25519",
    "X448": "X448",
}
_KINDS = ((re.compile(r"(?:TLS_)?ECDHE[-_]"), "ECDHE"), (re.compile(r"(?:TLS_)?(?:DHE|EDH)[-_]"), "DHE"))
_TLS_1_3 = re.compile(r"TLS_(?:AES|CHACHA20|SM4|AEGIS)")


def key_exchange(cipher: str | None, text: str | None = None) -> str:
    """Read the key exchange off a log's own words, or else off the cipher suite.

    Parameters
    ----------
    cipher
        As the log writes it: OpenSSL, IANA and GnuTLS names.
    text
        The line, as Postfix writes it (``key-exchange X25519``).

    Returns
    -------
    str
        The group, such as ``X25519`` or ``P-256``; ``RSA``, ``ECDHE`` or ``DHE`` where only that much is told; else
        ``not told``.

    Examples
    --------
    >>> key_exchange("ECDHE_X25519__RSA_PSS_RSAE_SHA256__AES_256_GCM"), key_exchange("AES256-SHA")
    ('X25519', 'RSA')
    >>> key_exchange("TLS_AES_256_GCM_SHA384"), key_exchange("ECDHE-RSA-AES128-GCM-SHA256")
    ('not told', 'ECDHE')
    """
    if text and (found := _IN_TEXT.search(text)):
        return _GROUPS.get(found[1].upper(), found[1])
    if not cipher:
        return NOT_TOLD
    name = cipher.upper()
    if found := _GNUTLS.match(name):
        return _GROUPS.get(found[1], found[1])
    if _TLS_1_3.match(name):
        return NOT_TOLD
    for pattern, kind in _KINDS:
        if pattern.match(name):
            return kind
    if name.startswith(("TLS_RSA_", "RSA_", "AES", "CAMELLIA", "DES-CBC3", "RC4", "SEED", "ARIA")):
        return "RSA"
    return NOT_TOLD


def _seen(by: str | Sequence[str] | None) -> list[str]:
    """Name the columns that have to be looked at."""
    more = ("cipher", "tls_version", "process_id", "reused", "text")
    return [*STORY, *more, *group_names(by)]


def _sessions(frame: pd.DataFrame) -> pd.DataFrame:
    """The sessions of a log: accepted deliveries, or connections that came about."""
    if table_of(frame) == "deliveries":
        rows = delivery_units(frame)
        rows = delivery_events(rows[~is_local(rows)])
        rows = rows[(rows["result"] == Result.OK) & rows["tls_level"].notna()]
        return rows.assign(text=None)
    rows = conform(frame, CONNECTIONS).reset_index(drop=True)
    rows = rows.assign(**events(rows)[["at", "destination", "host", "provider", "reporter", "result"]])
    rows = rows[~rows["reused"].fillna(False).astype(bool)]
    return rows[rows["tls_level"].notna()]


def tls_versions(
    frame: Frame,
    *,
    by: str | Sequence[str] | None = "day",
    confidence: float = CONFIDENCE,
    minimum: int = MINIMUM,
) -> pd.DataFrame:
    """Count TLS versions by day (canonical table 16).

    Parameters
    ----------
    frame
        `deliveries` (accepted ones count) or `connections` (new ones count, whatever became of the mail).
    by
        A period, ``reporter``, ``provider``, ``host``, or several; None for one group.

    Returns
    -------
    DataFrame
        Indexed by group: `sessions` of which TLS is told, `tls` (with TLS), a column for each version (``TLSv1.2``),
        `version_not_told`; and of TLS among the sessions `rate`, `low`, `high`, `unknown` (TLS not told), `unit`,
        `is_small`.
    """
    rows = reduced(frame, _versions, columns=_seen(by), by=by).reset_index()
    names = group_names(by) or ["group"]
    unit = "delivery attempt" if table_of(frame) == "deliveries" else "connection"
    table = rates(
        rows,
        of="answer",
        by=names,
        yes="yes",
        unknown=["unknown"],
        unit=unit,
        counts="count",
        confidence=confidence,
        minimum=minimum,
    )
    encrypted = rows[rows["answer"] == "yes"]
    version, count = encrypted["tls_version"].astype(object), encrypted["count"]
    has = {str(word): version == word for word in TlsVersion} | {"version_not_told": version.isna()}
    counts = {name: count.where(is_it, 0) for name, is_it in has.items()}
    sums = encrypted.assign(**counts).groupby(names, observed=True)[list(counts)].sum()
    table = table.rename(columns={"denominator": "sessions", "numerator": "tls"})
    table = table[["sessions", "tls", "unit", "rate", "low", "high", "unknown", "is_small"]]
    return table.join(sums).fillna(dict.fromkeys(counts, 0)).astype(dict.fromkeys(counts, "int64"))


def _versions(frame: pd.DataFrame, *, by: str | Sequence[str] | None) -> pd.DataFrame:
    """Count sessions by group, by whether they had TLS, and by its version."""
    rows, names = grouped(_sessions(frame), by)
    known = {str(word): "yes" for word in TlsLevel} | {TlsLevel.NONE: "no", TlsLevel.UNKNOWN: "unknown"}
    rows = rows.assign(answer=rows["tls_level"].astype(object).map(known))
    sizes = rows.groupby([*names, "answer", "tls_version"], observed=True, dropna=False).size()
    return sizes.rename("count").to_frame()


def key_exchanges(
    frame: Frame,
    *,
    by: str | Sequence[str] | None = None,
    confidence: float = CONFIDENCE,
    minimum: int = MINIMUM,
) -> pd.DataFrame:
    """Count key exchanges under each TLS version (canonical table 16).

    Parameters
    ----------
    frame
        `deliveries` or `connections`, as for `tls_versions`. Postfix names the group only in the lines of its TLS
        connections, so that its `connections` tell more than its `deliveries`.
    by
        As for `tls_versions`; one group by default.

    Returns
    -------
    DataFrame
        Indexed by group, `tls_version` and `key_exchange`, those met most often first: as of `rates`, of the sessions
        with TLS.
    """
    sums = reduced(frame, _exchanges, columns=_seen(by), by=by)
    names = group_names(by) or ["group"]
    whole = sums.groupby(names, observed=True)["numerator"].sum().rename("denominator")
    counts = sums.reset_index().join(whole, on=names).assign(unknown=0)
    rising = [True for _name in names]
    counts = counts.sort_values([*names, "numerator"], ascending=[*rising, False], kind="stable")
    unit = "delivery attempt" if table_of(frame) == "deliveries" else "connection"
    return as_rates(counts.set_index([*names, *_EXCHANGE]), unit, confidence, minimum)


_EXCHANGE = ["tls_version", "key_exchange"]


def _exchanges(frame: pd.DataFrame, *, by: str | Sequence[str] | None) -> pd.DataFrame:
    """Count sessions with TLS by group, version and key exchange."""
    rows, names = grouped(_sessions(frame), by)
    rows = rows[~rows["tls_level"].isin([TlsLevel.NONE, TlsLevel.UNKNOWN])]
    pairs = rows[["cipher", "text"]].astype(object).where(rows[["cipher", "text"]].notna(), None)
    held = {pair: key_exchange(*pair) for pair in pairs.drop_duplicates().itertuples(index=False, name=None)}
    version = rows["tls_version"].astype(object)
    rows = rows.assign(
        tls_version=version.where(version.notna(), NOT_TOLD),
        key_exchange=[held[pair] for pair in pairs.itertuples(index=False, name=None)],
    )
    return rows.groupby([*names, *_EXCHANGE], observed=True).size().rename("numerator").to_frame()
