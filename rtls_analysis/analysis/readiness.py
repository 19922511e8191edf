"""Who could receive REQUIRETLS mail, and where the others are lost: the readiness funnel."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rtls_analysis.outcomes import Obstacle
from rtls_analysis.store import Snapshot
from rtls_analysis.verdicts import HopResult, judge_hops

if TYPE_CHECKING:
    import pandas as pd


class Stage(StrEnum):
    """The stages of the funnel, in the order in which the transport comes before the names."""

    LISTED = "listed"
    MX = "mail host"  # an MX host, explicit or implicit, with an address
    ANSWERED = "answered"
    STARTTLS = "STARTTLS offered"
    HANDSHAKE = "TLS handshake"
    MX_AUTHENTICATED = "MX name secured"
    CERTIFICATE = "certificate verified"
    REQUIRETLS = "REQUIRETLS offered"


_STOPS: tuple[tuple[Stage, frozenset[Obstacle]], ...] = (
    (Stage.MX, frozenset({Obstacle.NO_MX})),
    (Stage.ANSWERED, frozenset({Obstacle.DNS_ERROR, Obstacle.UNREACHABLE})),
    (Stage.STARTTLS, frozenset({Obstacle.NO_STARTTLS})),
    (Stage.HANDSHAKE, frozenset({Obstacle.TLS_FAILED, Obstacle.TLS_TOO_OLD})),
    (Stage.MX_AUTHENTICATED, frozenset({Obstacle.STS_FORBIDS_HOST, Obstacle.MX_UNAUTHENTICATED})),
    (Stage.CERTIFICATE, frozenset({Obstacle.DANE_MISMATCH, Obstacle.CERTIFICATE_UNVERIFIED})),
    (Stage.REQUIRETLS, frozenset({Obstacle.REQUIRETLS_NOT_OFFERED})),
)


def _lost_at(hop: HopResult | None, domain: Any) -> tuple[int, Obstacle]:
    """Find the first stage that a hop does not pass, by number, and what stops it; past the end: none."""
    if hop is None:
        obstacle = Obstacle(domain["obstacle"])
        number = next((n for n, (_stage, stops) in enumerate(_STOPS) if obstacle in stops), 0)
        return number, obstacle
    sure, maybe = set(hop.verdict.obstacles), set(hop.verdict.maybe)
    for number, (_stage, stops) in enumerate(_STOPS):
        if found := sure & stops:
            return number, min(found, key=list(Obstacle).index)
        if maybe & stops:
            return number, Obstacle.UNKNOWN
    return len(_STOPS), Obstacle.NONE


def readiness_funnel(snapshot: Snapshot, *, unit: str = "domain") -> pd.DataFrame:
    """Count how many get how far on the way to REQUIRETLS, and what stops the others.

    A domain gets as far as its best address. The order is that of a connection (answer, STARTTLS, handshake, then
    name, certificate, keyword), so that the transport's losses stay visible where the MX name is not secured.

    Parameters
    ----------
    snapshot
        A scan.
    unit
        ``"domain"`` or ``"address"`` (a domain's MX host at one address: shared hosts count for each domain).

    Returns
    -------
    DataFrame
        One row per stage, in order: `stage`, `remaining` (count that passed it), `lost` (count stopped there),
        `share` (`remaining` of all, 0 to 1), and one column of counts per obstacle that stopped any.
    """
    import pandas as pd

    if unit not in ("domain", "address"):
        raise ValueError(f"unit is {unit!r}; give 'domain' or 'address'")
    ends: dict[tuple[str, ...], tuple[int, Obstacle]] = {}
    for domain, hop in judge_hops(snapshot):
        key: tuple[str, ...] = (domain["domain"],)
        if unit == "address":
            key += (hop.mx_host, hop.address) if hop is not None else ()
        end = _lost_at(hop, domain)
        if key not in ends or end[0] > ends[key][0]:
            ends[key] = end
    total = len(ends)
    rows: list[dict[str, Any]] = [{"stage": str(Stage.LISTED), "remaining": total, "lost": 0}]
    remaining = total
    for number, (stage, _stops) in enumerate(_STOPS):
        stopped = [obstacle for at, obstacle in ends.values() if at == number]
        remaining -= len(stopped)
        by_obstacle = {str(obstacle): stopped.count(obstacle) for obstacle in Obstacle if obstacle in stopped}
        rows.append({"stage": str(stage), "remaining": remaining, "lost": len(stopped), **by_obstacle})
    frame = pd.DataFrame(rows)
    obstacles = [str(obstacle) for obstacle in Obstacle if str(obstacle) in frame.columns and obstacle]
    counts = ["remaining", "lost", *obstacles]
    frame[counts] = frame[counts].fillna(0).astype("int64")
    frame.insert(3, "share", frame["remaining"] / total if total else float("nan"))
    return frame[["stage", "remaining", "lost", "share", *obstacles]]
