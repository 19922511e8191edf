"""What the probed servers showed: how far a connection gets, what their certificates are worth, how TLSA sets err."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.funnels import funnel
from rtls_analysis.analysis.rates import ArtefactWarning, with_rates
from rtls_analysis.analysis.words import one_of
from rtls_analysis.frames import Frame, collected
from rtls_analysis.outcomes import (
    NOT_CONTACTED,
    DaneState,
    FeatureState,
    MxState,
    Obstacle,
    PkixState,
    SessionOutcome,
    SessionStage,
    TlsaState,
)
from rtls_analysis.standards.dane import TlsaRecord, check_dane
from rtls_analysis.store import Snapshot, one_vantage

if TYPE_CHECKING:
    import datetime as dt

    import pandas as pd

# -- how far a connection gets -------------------------------------------------------------------------------

STAGES: Mapping[str, tuple[str, ...]] = {
    "domain": (
        "listed",
        "MX found",
        "address found",
        "answered",
        "greeted (220)",
        "EHLO accepted",
        "STARTTLS offered",
        "TLS handshake",
        "certificate valid",
    ),
    "address": (
        "listed",
        "answered",
        "greeted (220)",
        "EHLO accepted",
        "STARTTLS offered",
        "TLS handshake",
        "certificate valid",
    ),
}
"""The stages of `probe_funnel`, for each unit."""

_NO_CONCLUSION = frozenset(
    map(
        str,
        (
            *NOT_CONTACTED,
            MxState.DNS_FAILURE,
            SessionOutcome.RATE_LIMITED,
            SessionOutcome.GREYLISTED,
            SessionOutcome.BLOCKED,
            "not_tested",
        ),
    )
)
"""Losses that tell of our side, or of a limit set to it: no conclusion about the server."""

_ANSWERED, _GREETED, _EHLO, _STARTTLS, _HANDSHAKE, _CERTIFICATE = range(6)


def probe_funnel(snapshot: Snapshot, *, unit: str = "domain") -> pd.DataFrame:
    """Count how far a connection gets, from the name to a valid certificate (canonical table 1).

    Parameters
    ----------
    snapshot
        A scan.
    unit
        ``"domain"``, which gets as far as the best of its addresses, or ``"address"``, an MX host at one address.

    Returns
    -------
    DataFrame
        One row per stage: the columns of `rtls_analysis.analysis.funnels.funnel` and a column of counts for each
        reason that stopped any: words of `MxState`, `SessionOutcome`, `PkixState`, and ``no_starttls``. A limit or
        a block at our address is lost, but no conclusion: it is not in `tested`.

    Warns
    -----
    ArtefactWarning
        Most of those that answered fail at the greeting or at EHLO: then it is the scanner, or its address, that
        they do not like.
    """
    one_of("unit", unit, STAGES)
    ends = _session_ends(snapshot)
    if unit == "domain":
        ends = _domain_ends(snapshot, ends)
    table = funnel(ends, STAGES[unit], unit=unit, untold=_NO_CONCLUSION)
    came = table.set_index("stage")["remaining"]
    answered, accepted = int(came["answered"]), int(came["EHLO accepted"])
    if answered >= 10 and accepted < answered / 2:
        warnings.warn(
            f"{answered - accepted:,} of {answered:,} that answered fail at the greeting or at EHLO:"
            " look at the scanner's name and address first",
            ArtefactWarning,
            stacklevel=2,
        )
    return table


def _session_ends(snapshot: Snapshot) -> pd.DataFrame:
    """Tell of each session how many stages it passes after its address is known, and what stops it."""
    import numpy as np
    import pandas as pd

    columns = ["mx_host", "address", "outcome", "stage", "starttls", "pkix"]
    sessions = one_vantage(snapshot).table("sessions", columns=columns)
    outcome, stage, starttls = (sessions[name] for name in ("outcome", "stage", "starttls"))
    has_tls = starttls.eq(FeatureState.YES)
    conditions: list[tuple[Any, int, Any]] = [
        (outcome.isin([str(word) for word in NOT_CONTACTED]), _ANSWERED, outcome),
        (has_tls & sessions["pkix"].eq(PkixState.VALID), _CERTIFICATE + 1, ""),
        (has_tls, _CERTIFICATE, sessions["pkix"]),
        (starttls.eq(FeatureState.NO), _STARTTLS, str(Obstacle.NO_STARTTLS)),
        (starttls.eq(FeatureState.FAILED), _HANDSHAKE, str(Obstacle.TLS_FAILED)),
        (stage.eq(SessionStage.CONNECT), _ANSWERED, outcome),
        (stage.eq(SessionStage.GREETING), _GREETED, outcome),
        (stage.eq(SessionStage.EHLO), _EHLO, outcome),
    ]
    tests = [condition.fillna(False).to_numpy(dtype=bool) for condition, _passed, _reason in conditions]
    reasons = [
        np.full(len(sessions), reason, dtype=object) if isinstance(reason, str) else reason.astype(object)
        for _condition, _passed, reason in conditions
    ]
    return pd.DataFrame(
        {
            "mx_host": sessions["mx_host"],
            "address": sessions["address"],
            "passed": np.select(tests, [passed for _c, passed, _r in conditions], default=_HANDSHAKE),
            "reason": np.select(tests, reasons, default=outcome.astype(object)),
        }
    )


def _domain_ends(snapshot: Snapshot, sessions: pd.DataFrame) -> pd.DataFrame:
    """Give each domain the best of its ends: of its own lookup, of its hosts, of their sessions."""
    import pandas as pd

    domains = one_vantage(snapshot).table("domains", columns=["domain", "mx_state"])
    mx = one_vantage(snapshot).table("mx", columns=["domain", "mx_host", "mx_state"])
    own = pd.DataFrame(
        {
            "domain": domains["domain"],
            "passed": 0,
            "reason": domains["mx_state"].astype(object).fillna("not_tested"),
        }
    )
    hosts = pd.DataFrame({"domain": mx["domain"], "passed": 1, "reason": mx["mx_state"].astype(object)})
    with_address = mx.merge(sessions, on="mx_host")[["domain", "passed", "reason"]]
    with_address["passed"] += 2
    hosts = hosts[hosts["domain"].isin(domains["domain"])]
    ends = pd.concat([own, hosts, with_address], ignore_index=True)
    left_out = ends["reason"].isin([str(word) for word in NOT_CONTACTED])  # they count where no other is left
    order = 2 * ends["passed"] + ~left_out
    return ends.iloc[order.argsort(kind="stable")].drop_duplicates("domain", keep="last")


# -- certificates --------------------------------------------------------------------------------------------

WEAK_KEY = "weak_key"
_VERDICT_UNITS = {
    "address": ("address", ["mx_host", "address"]),
    "host": ("MX host", ["mx_host"]),
    "domain": ("domain", ["domain"]),
}
_KEY = re.compile(r"(RSA|DSA|EC)-(?:P-|secp|brainpoolP)?(\d{2,5})")


def is_weak_key(key: str) -> bool:
    """Tell whether a key is below 112 bits of strength (NIST SP 800-57): RSA under 2048, EC under 224, any DSA.

    >>> is_weak_key("RSA-1024"), is_weak_key("RSA-2048"), is_weak_key("EC-P-256"), is_weak_key("Ed25519")
    (True, False, False, False)
    """
    match = _KEY.match(key)
    if match is None:
        return False
    return match[1] == "DSA" or int(match[2]) < (2048 if match[1] == "RSA" else 224)


def certificate_verdicts(
    snapshot: Snapshot, *, unit: str = "address", confidence: float = 0.95
) -> pd.DataFrame:
    """Count what certificates are worth: valid, or wrong in which way (canonical table 8).

    Parameters
    ----------
    snapshot
        A scan.
    unit
        ``"address"``, ``"host"`` or ``"domain"``. A unit of several addresses counts once: by the best verdict, and
        by every fault that any of them has.
    confidence
        Of the intervals.

    Returns
    -------
    DataFrame
        One row per verdict (the index: `counted`, `verdict`) with the columns of `rtls.rates`. Where `counted` is
        ``first``, each unit is counted by the first word of `PkixState` that holds; where it is ``all``, by each
        fault that its leaf shows: ``expired``, ``not_yet_valid``, ``self_signed``, ``name_mismatch``, ``weak_key``,
        and that word. The denominator is the units with TLS.

    Notes
    -----
    A weak key is a fault of its own: a certificate may be valid and have one. Faults of the authorities are told
    by the first word alone.
    """
    import pandas as pd

    one_of("unit", unit, _VERDICT_UNITS)
    label, keys = _VERDICT_UNITS[unit]
    found = _faults(snapshot)
    if unit == "domain":
        found = one_vantage(snapshot).table("mx", columns=["domain", "mx_host"]).merge(found, on="mx_host")
    words = [str(word) for word in PkixState if word != PkixState.NOT_TESTED]
    best = found.sort_values("place", kind="stable").drop_duplicates(keys, keep="last")
    first = best["pkix"].value_counts()
    faults = [*words[:-1], WEAK_KEY]
    every = found.groupby(keys, observed=True)[faults].any().sum()
    rows = [("first", word, int(first.get(word, 0))) for word in words]
    rows += [("all", word, int(every[word])) for word in faults]
    counts = pd.DataFrame(rows, columns=["counted", "verdict", "numerator"]).assign(trials=len(best))
    return with_rates(counts.set_index(["counted", "verdict"]), unit=label, confidence=confidence)


def _faults(snapshot: Snapshot) -> pd.DataFrame:
    """Tell of each session with TLS its verdict, with its place in the order, and every fault of its leaf."""
    columns = [
        "mx_host",
        "address",
        "started_at",
        "starttls",
        "pkix",
        "name_match",
        "chain_sha256",
        "certificate_not_after",
        "certificate_key",
    ]
    sessions = one_vantage(snapshot).table("sessions", columns=columns)
    sessions = sessions[sessions["starttls"].eq(FeatureState.YES)].reset_index(drop=True)
    certificates = snapshot.table("certificates", columns=["sha256", "subject", "issuer", "not_before"])
    leaf = sessions["chain_sha256"].map(lambda chain: chain[0] if len(chain) else None, na_action="ignore")
    seen = certificates.set_index("sha256").reindex(leaf).set_index(sessions.index)
    words = list(PkixState)
    found = sessions[["mx_host", "address"]].assign(
        pkix=sessions["pkix"].astype(object),
        place=[words.index(PkixState(word)) for word in sessions["pkix"]],
        **{str(word): sessions["pkix"].eq(word) for word in words},
    )
    found["expired"] |= sessions["certificate_not_after"] < sessions["started_at"]
    found["not_yet_valid"] |= seen["not_before"] > sessions["started_at"]
    found["self_signed"] |= seen["subject"].eq(seen["issuer"]) & ~sessions["pkix"].eq(PkixState.VALID)
    found["name_mismatch"] |= sessions["name_match"].eq(False).fillna(False).astype(bool)
    weak = {key: is_weak_key(key) for key in sessions["certificate_key"].dropna().unique()}
    found[WEAK_KEY] = sessions["certificate_key"].map(weak).fillna(False).astype(bool)
    return found


# -- TLSA ----------------------------------------------------------------------------------------------------


def tlsa_matches(snapshot: Snapshot) -> pd.DataFrame:
    """Hold each TLSA record of a usable, secure set against the chains that its hosts presented.

    Parameters
    ----------
    snapshot
        A scan.

    Returns
    -------
    DataFrame
        One row per set, record and MX host that showed a chain: `tlsa_base`, `tlsa`, `mx_host`, and `matches`
        (a flag: a sender would accept each address that showed a chain by this record alone).

    Notes
    -----
    A weaker digest beside a stronger one of its kind is not used (RFC 7671 §9): where the set does not match, none
    of its records does.
    """
    import pandas as pd

    hosts = snapshot.table(
        "hosts",
        columns=["mx_host", "tlsa_state", "tlsa_base", "tlsa"],
        where={"tlsa_state": TlsaState.USABLE},
    )
    sessions = one_vantage(snapshot).table(
        "sessions",
        columns=["mx_host", "dane", "chain_sha256", "started_at"],
        where={"mx_host": list(hosts["mx_host"])},
    )
    sessions = sessions[sessions["dane"].isin([str(DaneState.MATCH), str(DaneState.MISMATCH)])]
    wanted = sorted({sha256 for chain in sessions["chain_sha256"].dropna() for sha256 in chain})
    certificates = snapshot.table("certificates", columns=["sha256", "der"], where={"sha256": wanted})
    ders = dict(zip(certificates["sha256"], certificates["der"], strict=True))
    of_host: dict[str, list[tuple[tuple[bytes, ...], dt.datetime]]] = {}
    for host, chain, at in zip(
        sessions["mx_host"], sessions["chain_sha256"], sessions["started_at"], strict=True
    ):
        found = tuple(ders[sha256] for sha256 in chain) if isinstance(chain, list) else ()
        of_host.setdefault(host, []).append((found, at.to_pydatetime()))
    rows = []
    for host, base, texts in zip(hosts["mx_host"], hosts["tlsa_base"], hosts["tlsa"], strict=True):
        name = base if isinstance(base, str) else host
        whole = tuple(TlsaRecord.parse(text) for text in dict.fromkeys(texts if host in of_host else ()))
        for record in whole:
            checks = [
                check_dane(chain, TlsaState.USABLE, records, (name,), at)
                for chain, at in of_host[host]
                for records in ((record,), whole)
            ]
            rows.append((name, record.text, host, all(check.state is DaneState.MATCH for check in checks)))
    frame = pd.DataFrame(rows, columns=["tlsa_base", "tlsa", "mx_host", "matches"])
    return frame.astype({"tlsa_base": "str", "tlsa": "str", "mx_host": "str", "matches": "bool"})


def tlsa_errors(snapshot: Snapshot, *, rule: str = "any", confidence: float = 0.95) -> pd.DataFrame:
    """Count the same errors of TLSA by record, by set, by host and by domain (canonical table 15).

    Parameters
    ----------
    snapshot
        A scan.
    rule
        When a domain errs: ``"any"``, where none of its hosts with TLSA passes (any one is enough to deliver), or
        ``"all"``, where one of them fails.
    confidence
        Of the intervals.

    Returns
    -------
    DataFrame
        What `errors_by_unit` gives.
    """
    mx = one_vantage(snapshot).table("mx", columns=["domain", "mx_host"])
    return errors_by_unit(tlsa_matches(snapshot), mx, rule=rule, confidence=confidence)


def errors_by_unit(matches: Frame, mx: Frame, *, rule: str = "any", confidence: float = 0.95) -> pd.DataFrame:
    """Count errors of TLSA by record, by set, by host and by domain.

    Parameters
    ----------
    matches
        What `tlsa_matches` gives.
    mx
        `domain` and `mx_host`: who is served by which host.
    rule, confidence
        As for `tlsa_errors`.

    Returns
    -------
    DataFrame
        One row per unit (the index, `counted`: ``record``, ``RRset``, ``host``, ``domain``): the columns of
        `rtls.rates`, the numerator being those in error. A record errs where it matches at none of its hosts, a set
        where at one of its hosts no record matches, a host where no record does.
    """
    import pandas as pd

    one_of("rule", rule, ("any", "all"))
    matches, mx = collected(matches), collected(mx, ["domain", "mx_host"])
    records = matches.groupby(["tlsa_base", "tlsa"])["matches"].any()
    hosts = matches.groupby(["tlsa_base", "mx_host"])["matches"].any()
    sets = hosts.groupby("tlsa_base").all()
    served = mx.merge(hosts.rename("passes").reset_index(), on="mx_host").groupby("domain")["passes"]
    domains = served.any() if rule == "any" else served.all()
    units: Sequence[tuple[str, str, pd.Series[Any]]] = (
        ("record", "TLSA record", records),
        ("RRset", "TLSA RRset", sets),
        ("host", "MX host", hosts),
        ("domain", "domain", domains),
    )
    tables = [
        with_rates(
            pd.DataFrame(
                {"numerator": [int((~passes.astype(bool)).sum())], "trials": [len(passes)]},
                index=pd.Index([counted], name="counted"),
            ),
            unit=unit,
            confidence=confidence,
        )
        for counted, unit, passes in units
    ]
    return pd.concat(tables)
