"""Proof from the record of connections that the manners of a scan held: towards each server, network and provider."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rtls_analysis.scanner.addresses import AllowedNetworks, special_reason
from rtls_analysis.scanner.contacts import ASKED_FOR_REST
from rtls_analysis.scanner.options import Manners
from rtls_analysis.scanner.politeness import OptOut, prefix_of
from rtls_analysis.store import Snapshot

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 0.05
"""Seconds by which two begins may be nearer on record than the manners ask: what it takes to write them down."""

IN_FLIGHT = 1.0
"""Seconds within which a connection may still begin that was let go before its provider asked for a rest."""

COLUMNS = ("rule", "who", "started_at", "detail")


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that was broken: which, towards whom, by which connection, and how."""

    rule: str
    who: str
    started_at: Any
    detail: str


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of a scan, and what it was held to: a scan that is resumed may have other manners.

    Where a worker of a cluster died and was replaced a run is taken for two.
    """

    begin: float
    manners: Manners
    run_at_once: int

    def limit(self, rule: str) -> float:
        """Give what a rule allows."""
        return self.run_at_once if rule == "run_at_once" else float(getattr(self.manners, rule))


@dataclass(frozen=True, slots=True)
class _Attempt:
    begin: float
    end: float
    run: _Run
    row: Mapping[str, Any]

    @property
    def memory(self) -> tuple[_Run, str | None]:
        """Who knows how often a provider pushed back: those of one run, and at one vantage."""
        return self.run, self.row["vantage"]


def audit(snapshot: Snapshot) -> pd.DataFrame:
    """Check every connection of a scan against its manners, as its manifest states them for each of its runs.

    The limits hold over all workers and all vantages together, whoever of them made a connection.

    Parameters
    ----------
    snapshot
        A scan, finished or not.

    Returns
    -------
    DataFrame
        One row per breach: `rule` (``address_at_once``, ``address_spacing``, the same for ``prefix`` and
        ``provider``, ``pause``, ``run_at_once``, ``retries``, ``special_address``, ``opted_out``,
        ``attempts_recorded``),
        `who`, `started_at` of the connection that broke it, and `detail`. Empty where all limits held.

    Notes
    -----
    Addresses that the user allowed as their own are held to the limits only where the manners say
    `own_addresses`. A pause doubles with each push-back; of those before an interruption, the death of a worker or
    at another vantage only the shortest is asked for. Each vantage may visit a server as often as `retries` says,
    where every server is contacted from each.
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
    scan = manifest.get("scan", {})
    allowed = AllowedNetworks(scan.get("allow_special", ()))
    runs = _runs(manifest)
    attempts = sorted((_attempt(row, runs) for row in rows), key=lambda attempt: attempt.begin)
    paced = [
        attempt
        for attempt in attempts
        if attempt.run.manners.own_addresses or not allowed.allows(attempt.row["address"])
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
        for name, group in groups.items():
            yield from _too_many(group, f"{kind}_at_once", name)
            yield from _too_near(group, f"{kind}_spacing", name)
            if kind == "provider":
                yield from _too_early(group, name)
    yield from _too_many(attempts, "run_at_once", "the whole run")
    restarts = sum(run.begin > attempts[0].begin for run in runs) if attempts else 0
    yield from _too_often(paced, snapshot, restarts)
    yield from _forbidden(attempts, allowed, OptOut(scan.get("opt_out", ())))


def _runs(manifest: Mapping[str, Any]) -> list[_Run]:
    """Give the runs of a scan in order: the first, those that resumed it, and what followed the death of a worker."""
    manners, at_once = manifest.get("manners", {}), int(manifest.get("concurrency", 50))
    runs = [_Run(float("-inf"), Manners(**manners), at_once)]
    for entry in manifest.get("resumed", ()):
        begin = dt.datetime.fromisoformat(entry["at"]).timestamp()
        runs.append(_Run(begin, Manners(**entry.get("manners", manners)), entry.get("concurrency", at_once)))
    deaths = (
        dt.datetime.fromisoformat(death["at"]).timestamp() for death in manifest.get("worker_deaths", ())
    )
    replaced = [replace(_run_at(begin, runs), begin=begin) for begin in deaths]
    return sorted([*runs, *replaced], key=lambda run: run.begin)


def _run_at(moment: float, runs: Sequence[_Run]) -> _Run:
    return runs[max(0, bisect_right(runs, moment, key=lambda run: run.begin) - 1)]


def _attempt(row: Mapping[str, Any], runs: Sequence[_Run]) -> _Attempt:
    begin = row["started_at"].timestamp()
    return _Attempt(begin, row["ended_at"].timestamp(), _run_at(begin, runs), row)


def _too_many(group: Sequence[_Attempt], rule: str, who: str) -> Iterator[Breach]:
    """Find connections that began while as many as are allowed were open."""
    import heapq

    open_ends: list[float] = []
    for attempt in group:
        while open_ends and open_ends[0] <= attempt.begin:
            heapq.heappop(open_ends)
        if len(open_ends) >= (allowed := attempt.run.limit(rule)):
            detail = f"{len(open_ends) + 1} at once, {allowed:g} are allowed"
            yield Breach(rule, who, attempt.row["started_at"], detail)
        heapq.heappush(open_ends, attempt.end)


def _too_near(group: Sequence[_Attempt], rule: str, who: str) -> Iterator[Breach]:
    """Find connections that began too soon after the one before."""
    for earlier, later in pairwise(group):
        gap, spacing = later.begin - earlier.begin, later.run.limit(rule)
        if gap < spacing - TOLERANCE:
            detail = f"{gap:.3f} s after the one before, {spacing:g} s are due"
            yield Breach(rule, who, later.row["started_at"], detail)


def _too_early(group: Sequence[_Attempt], who: str) -> Iterator[Breach]:
    """Find connections to a provider that began within the rest it had asked for (421, 45x, a block)."""
    asked = sorted((a for a in group if a.row["outcome"] in ASKED_FOR_REST), key=lambda attempt: attempt.end)
    at, memory, pause = 0, None, 0.0
    quiet_until = quiet_after_all = float("-inf")  # by those of the same memory, and of earlier ones
    for attempt in group:
        while at < len(asked) and asked[at].end < attempt.begin - IN_FLIGHT:
            manners, ended = asked[at].run.manners, asked[at].end
            is_known = asked[at].memory == memory
            pause = min(2 * pause, manners.longest_pause) if is_known else manners.pause
            memory = asked[at].memory
            quiet_until = max(quiet_until, ended + pause) if memory == attempt.memory else float("-inf")
            quiet_after_all = max(quiet_after_all, ended + manners.pause)
            at += 1
        if memory != attempt.memory:
            quiet_until = float("-inf")
        until = max(quiet_until, quiet_after_all)
        if attempt.begin < until - TOLERANCE:
            detail = f"{until - attempt.begin:.1f} s before the end of a pause that was asked for"
            yield Breach("pause", who, attempt.row["started_at"], detail)


def _too_often(paced: Sequence[_Attempt], snapshot: Snapshot, restarts: int) -> Iterator[Breach]:
    """Find servers that were visited more often than the manners allow, or more often than is on record.

    What was in flight at a kill is done again: each restart may have cost a visit.
    """
    names = ["vantage", "mx_host", "address"] if snapshot.is_from_each else ["mx_host", "address"]
    visits: dict[tuple[Any, ...], list[_Attempt]] = {}
    for attempt in paced:
        if attempt.row["mx_host"] is not None:
            visits.setdefault(tuple(attempt.row[name] for name in names), []).append(attempt)
    sessions = snapshot.table("sessions", columns=[*names, "attempts"])
    keys = zip(*(sessions[name] for name in names), strict=True)
    said = dict(zip(keys, map(int, sessions["attempts"].fillna(0)), strict=True))
    for key, found in visits.items():
        who = f"{key[-2]} at {key[-1]}" + (f" from {key[0]}" if len(key) > 2 else "")
        retries = max(attempt.run.manners.retries for attempt in found)
        if len(found) > 1 + retries + restarts:
            detail = f"{len(found)} visits, {1 + retries} are allowed"
            yield Breach("retries", who, found[-1].row["started_at"], detail)
        told = said.get(key)
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
