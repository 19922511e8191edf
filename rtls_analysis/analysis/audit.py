"""Proof from the record of connections that the manners of a scan held: towards each server, network and provider."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rtls_analysis.scanner.addresses import AllowedNetworks, special_reason
from rtls_analysis.scanner.options import Manners
from rtls_analysis.scanner.politeness import OptOut, prefix_of
from rtls_analysis.store import Snapshot

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 0.05
"""Seconds by which two begins may be nearer on record than the manners ask: what it takes to write them down."""

COLUMNS = ("rule", "who", "started_at", "detail")


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that was broken: which, towards whom, by which connection, and how."""

    rule: str
    who: str
    started_at: Any
    detail: str


@dataclass(frozen=True, slots=True)
class _Attempt:
    begin: float
    end: float
    row: Mapping[str, Any]


def audit(snapshot: Snapshot) -> pd.DataFrame:
    """Check every connection of a scan against its manners, as its manifest states them.

    Parameters
    ----------
    snapshot
        A scan, finished or not.

    Returns
    -------
    DataFrame
        One row per breach: `rule` (``address_at_once``, ``address_spacing``, the same for ``prefix`` and
        ``provider``, ``run_at_once``, ``retries``, ``special_address``, ``opted_out``, ``attempts_recorded``),
        `who`, `started_at` of the connection that broke it, and `detail`. Empty where all limits held.

    Notes
    -----
    Addresses that the user allowed as their own are held to the limits only where the manners say
    `own_addresses`. A pause that a run's interruption cut in two is not looked for.
    """
    import pandas as pd

    from rtls_analysis.schema import ATTEMPTS, rows_of

    rows = rows_of(ATTEMPTS, snapshot.attempts)
    breaches = list(_breaches(rows, snapshot))
    frame = pd.DataFrame([(b.rule, b.who, b.started_at, b.detail) for b in breaches], columns=list(COLUMNS))
    return frame.astype(
        {"rule": "str", "who": "str", "detail": "str", "started_at": ATTEMPTS["started_at"].dtype}
    )


def _breaches(rows: Sequence[Mapping[str, Any]], snapshot: Snapshot) -> Iterator[Breach]:
    manifest = snapshot.manifest
    manners = Manners(**manifest.get("manners", {}))
    scan = manifest.get("scan", {})
    allowed = AllowedNetworks(scan.get("allow_special", ()))
    attempts = sorted(
        (_Attempt(row["started_at"].timestamp(), row["ended_at"].timestamp(), row) for row in rows),
        key=lambda attempt: attempt.begin,
    )
    paced = [
        attempt for attempt in attempts if manners.own_addresses or not allowed.allows(attempt.row["address"])
    ]
    kinds: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
        ("address", lambda row: str(row["address"])),
        ("prefix", lambda row: prefix_of(row["address"])),
        ("provider", lambda row: str(row["provider"])),
    )
    for kind, name_of in kinds:
        groups: dict[str, list[_Attempt]] = {}
        for attempt in paced:
            groups.setdefault(name_of(attempt.row), []).append(attempt)
        at_once, spacing = getattr(manners, f"{kind}_at_once"), getattr(manners, f"{kind}_spacing")
        for name, group in groups.items():
            yield from _too_many(group, at_once, f"{kind}_at_once", name)
            yield from _too_near(group, spacing, f"{kind}_spacing", name)
    yield from _too_many(attempts, int(manifest.get("concurrency", 50)), "run_at_once", "the whole run")
    yield from _too_often(paced, manners, snapshot)
    yield from _forbidden(attempts, allowed, OptOut(scan.get("opt_out", ())))


def _too_many(group: Sequence[_Attempt], at_once: int, rule: str, who: str) -> Iterator[Breach]:
    """Find connections that began while as many as are allowed were open."""
    import heapq

    open_ends: list[float] = []
    for attempt in group:
        while open_ends and open_ends[0] <= attempt.begin:
            heapq.heappop(open_ends)
        if len(open_ends) >= at_once:
            detail = f"{len(open_ends) + 1} at once, {at_once} are allowed"
            yield Breach(rule, who, attempt.row["started_at"], detail)
        heapq.heappush(open_ends, attempt.end)


def _too_near(group: Sequence[_Attempt], spacing: float, rule: str, who: str) -> Iterator[Breach]:
    """Find connections that began too soon after the one before."""
    for earlier, later in pairwise(group):
        gap = later.begin - earlier.begin
        if gap < spacing - TOLERANCE:
            detail = f"{gap:.3f} s after the one before, {spacing:g} s are due"
            yield Breach(rule, who, later.row["started_at"], detail)


def _too_often(paced: Sequence[_Attempt], manners: Manners, snapshot: Snapshot) -> Iterator[Breach]:
    """Find servers that were visited more often than the manners allow, or more often than is on record."""
    visits: dict[tuple[str, str], list[_Attempt]] = {}
    for attempt in paced:
        if attempt.row["mx_host"] is not None:
            visits.setdefault((attempt.row["mx_host"], attempt.row["address"]), []).append(attempt)
    sessions = snapshot.table("sessions", columns=["mx_host", "address", "attempts"])
    said = {
        (host, address): int(count)
        for host, address, count in zip(
            sessions["mx_host"], sessions["address"], sessions["attempts"].fillna(0), strict=True
        )
    }
    restarts = int(snapshot.manifest.get("runs", 1)) - 1  # what was in flight at a kill is done again
    for (host, address), found in visits.items():
        who = f"{host} at {address}"
        if len(found) > 1 + manners.retries + restarts:
            detail = f"{len(found)} visits, {1 + manners.retries} are allowed"
            yield Breach("retries", who, found[-1].row["started_at"], detail)
        told = said.get((host, address))
        if told is not None and not told <= len(found) <= told + restarts:
            detail = f"{len(found)} connections on record, the session says {told}"
            yield Breach("attempts_recorded", who, found[-1].row["started_at"], detail)


def _forbidden(attempts: Sequence[_Attempt], allowed: AllowedNetworks, opted_out: OptOut) -> Iterator[Breach]:
    """Find connections to those who must not be contacted."""
    for attempt in attempts:
        row = attempt.row
        if not allowed.allows(row["address"]) and (reason := special_reason(row["address"])):
            yield Breach("special_address", row["address"], row["started_at"], reason)
        name = row["mx_host"] or row["domain"] or ""
        if opted_out.names(name) or opted_out.covers(row["address"]):
            yield Breach("opted_out", f"{name} at {row['address']}", row["started_at"], "opted out")
