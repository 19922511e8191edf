"""Before the first contact: who will be contacted how often, in which order, and how long that takes."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rtls_analysis.outcomes import DnsSecurity, SessionOutcome, StsPolicyState, TlsaState
from rtls_analysis.scanner.addresses import AllowedNetworks, special_reason
from rtls_analysis.scanner.contacts import PolicyTarget
from rtls_analysis.scanner.options import Options
from rtls_analysis.scanner.politeness import Job, OptOut, prefix_of
from rtls_analysis.scanner.probe import ProbeTarget

Row = Mapping[str, Any]

_TYPICAL_SECONDS = 3.0  # of a session with an ordinary server
_LISTED = 10  # providers in the summary
_POLICY_ADDRESSES = 2  # asked at most, the second where the first takes no connection


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """An address that is not contacted, and why."""

    target: ProbeTarget
    outcome: SessionOutcome
    detail: str


@dataclass(frozen=True, slots=True)
class NoPolicy:
    """A policy that is not asked for, and why."""

    domain: str
    state: StsPolicyState
    detail: str


@dataclass(slots=True)
class Plan:
    """The contacts of a scan in their order, and what was left out of it."""

    jobs: list[Job] = field(default_factory=list)
    left_alone: list[LeftAlone] = field(default_factory=list)
    no_policy: list[NoPolicy] = field(default_factory=list)
    hosts: int = 0
    done: int = 0  # contacts that an earlier run made


class Planner:
    """Makes the plan of a scan from the rows of its hosts and domains.

    Parameters
    ----------
    options
        Of the scan.
    families
        Whether this machine can reach IPv4 addresses, and IPv6 addresses.
    """

    def __init__(self, options: Options, families: tuple[bool, bool]) -> None:
        self._options = options
        self._families = families
        self._allowed = AllowedNetworks(options.allow_special)
        self._opted_out = OptOut(options.opt_out)

    def make(
        self,
        hosts: Iterable[Row],
        policy_hosts: Iterable[tuple[str, Row]],
        *,
        probed: Collection[tuple[str, str]] = (),
        fetched: Collection[str] = (),
    ) -> Plan:
        """Plan the contacts.

        Parameters
        ----------
        hosts
            Rows of `hosts`; a host that comes twice counts once.
        policy_hosts
            Domains with a valid MTA-STS record, and what was found of their policy hosts.
        probed, fetched
            (MX host, address) pairs and policies that are done.
        """
        plan = Plan()
        seen: set[str] = set()
        names: dict[str, list[str]] = defaultdict(list)
        for row in hosts:
            if row["mx_host"] not in seen:
                seen.add(row["mx_host"])
                self._add_host(plan, row, probed, names)
        plan.hosts = len(seen)
        self._sample(plan, names)
        for domain, found in policy_hosts:
            if domain not in fetched:
                self._add_policy(plan, domain, found)
        random.Random(self._options.seed).shuffle(plan.jobs)  # so that no provider is asked in a row
        return plan

    def _add_host(
        self, plan: Plan, row: Row, probed: Collection[tuple[str, str]], names: dict[str, list[str]]
    ) -> None:
        name, provider = row["mx_host"], row["provider"]
        base = row.get("tlsa_base")
        is_secure = row.get("tlsa_dnssec") == DnsSecurity.SECURE
        sni = base if base and is_secure else name  # RFC 7672 §8.1, RFC 8461 §7.1
        state, tlsa = TlsaState(row["tlsa_state"]), tuple(row.get("tlsa") or ())
        for address in row["addresses"] or ():
            is_done = (name, address) in probed
            plan.done += is_done
            target = ProbeTarget(name, address, self._options.smtp_port, sni, state, base, tlsa)
            left = self._left_alone(target)
            if left is None and self._options.sample_shared is not None:
                names[address].append(name)  # done or not: a resumed scan draws the same sample
            if is_done:
                continue
            if left is not None:
                plan.left_alone.append(left)
            else:
                plan.jobs.append(Job(address, provider, target, own=self._allowed.allows(address)))

    def _left_alone(self, target: ProbeTarget) -> LeftAlone | None:
        own = self._allowed.allows(target.address)
        if not own and (reason := special_reason(target.address)):
            return LeftAlone(target, SessionOutcome.ADDRESS_REFUSED, f"special address: {reason}")
        if self._opted_out.names(target.mx_host) or self._opted_out.covers(target.address):
            return LeftAlone(target, SessionOutcome.OPTED_OUT, "opted out")
        is_v6 = ":" in target.address
        if not own and not self._options.proxy and not self._families[is_v6]:
            family = "IPv6" if is_v6 else "IPv4"
            return LeftAlone(target, SessionOutcome.FAMILY_UNAVAILABLE, f"no {family} here")
        return None

    def _sample(self, plan: Plan, names: Mapping[str, Sequence[str]]) -> None:
        """Keep a seeded sample of the names of an address that many share, where the user asked for one."""
        limit = self._options.sample_shared
        if limit is None:
            return
        kept = {
            address: set(random.Random(f"{self._options.seed} {address}").sample(sorted(hosts), limit))
            for address, hosts in names.items()
            if len(hosts) > limit
        }
        jobs: list[Job] = []
        for job in plan.jobs:
            if job.address not in kept or job.payload.mx_host in kept[job.address]:
                jobs.append(job)
            else:
                detail = f"one of {len(names[job.address]):,} names of {job.address}, not in the sample of {limit:,}"
                plan.left_alone.append(LeftAlone(job.payload, SessionOutcome.NOT_SAMPLED, detail))
        plan.jobs = jobs

    def _add_policy(self, plan: Plan, domain: str, found: Row) -> None:
        if (state := found.get("state")) is not None:
            plan.no_policy.append(NoPolicy(domain, StsPolicyState(state), found["detail"]))
            return
        opted_out = self._opted_out.names(f"mta-sts.{domain}")
        addresses = [a for a in found["addresses"] if not opted_out and not self._opted_out.covers(a)]
        reachable = [
            a for a in addresses if self._allowed.allows(a) or self._options.proxy or self._families[":" in a]
        ]
        if not reachable:
            why = "no way to the policy host's address family" if addresses else "the policy host opted out"
            plan.no_policy.append(NoPolicy(domain, StsPolicyState.NOT_TESTED, why))
            return
        own = all(map(self._allowed.allows, reachable))
        plan.jobs.append(
            Job(
                reachable[0],
                found["provider"],
                PolicyTarget(domain, tuple(reachable[:_POLICY_ADDRESSES])),
                own=own,
            )
        )


# -- what to say of it ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lane:
    """The longest lane of a kind: whose it is, how many connections, how many seconds at the given manners."""

    kind: str
    name: str
    connections: int
    seconds: float


def expected(plan: Plan, options: Options) -> dict[str, Any]:
    """Sum a plan up: contacts by provider, and the seconds they will take at the given manners.

    Only those are counted that the manners pace; what servers make of them (pauses, silence) comes on top.
    """
    manners = options.manners
    paced = [job for job in plan.jobs if manners.own_addresses or not job.own]
    kinds: tuple[tuple[str, Callable[[Job], str]], ...] = (
        ("address", lambda job: job.address),
        ("prefix", lambda job: prefix_of(job.address)),
        ("provider", lambda job: job.provider),
    )
    longest: list[Lane] = []
    for kind, name_of in kinds:
        counts = Counter(map(name_of, paced))
        for name, count in _most(counts, 1):
            spacing = getattr(manners, f"{kind}_spacing")
            at_once = getattr(manners, f"{kind}_at_once")
            seconds = max((count - 1) * spacing, count * _TYPICAL_SECONDS / max(at_once, 1))
            longest.append(Lane(kind, name, count, seconds))
    whole_run = len(plan.jobs) * _TYPICAL_SECONDS / options.concurrency
    slowest = max(longest, key=lambda lane: lane.seconds, default=None)
    providers = Counter(job.provider for job in plan.jobs)
    policies = sum(isinstance(job.payload, PolicyTarget) for job in plan.jobs)
    return {
        "hosts": plan.hosts,
        "probes": len(plan.jobs) - policies,
        "policies": policies,
        "done_before": plan.done,
        "left_alone": dict(Counter(str(left.outcome) for left in plan.left_alone)),
        "unpaced": len(plan.jobs) - len(paced),
        "providers": len(providers),
        "most": dict(_most(providers, _LISTED)),
        "expected_seconds": round(max([whole_run, *(lane.seconds for lane in longest)]), 1),
        "slowest": asdict(slowest) if slowest is not None else None,
        "whole_run_seconds": round(whole_run, 1),
    }


def _most(counts: Counter[str], listed: int) -> list[tuple[str, int]]:
    """Give the commonest, alike ones by their names: the same plan says the same, in whatever order answers came."""
    return heapq.nsmallest(listed, counts.items(), key=lambda item: (-item[1], item[0]))


def plan_text(summary: Mapping[str, Any], *, concurrency: int) -> str:
    """Write the summary of a plan for people."""
    return "\n".join(_plan_lines(summary, concurrency))


def _plan_lines(summary: Mapping[str, Any], concurrency: int) -> Iterator[str]:
    contacts = summary["probes"] + summary["policies"]
    yield (
        f"Plan: {_counted(summary['hosts'], 'MX host')} at {_counted(summary['providers'], 'provider')}; "
        f"{_counted(summary['probes'], 'address')} to probe and {_counted(summary['policies'], 'policy')} to fetch, "
        f"{concurrency:,} at once"
    )
    if summary["done_before"]:
        yield f"  done already: {_counted(summary['done_before'], 'address')}"
    for outcome, count in summary["left_alone"].items():
        yield f"  left alone: {_counted(count, 'address')}, {outcome.replace('_', ' ')}"
    if summary["unpaced"] == contacts:
        yield "  not paced: all of them are your own addresses"
        return
    yield f"  at least {_duration(summary['expected_seconds'])} at these manners"
    slowest = summary["slowest"]
    if slowest is not None and slowest["seconds"] > 2 * summary["whole_run_seconds"]:
        kind = {"prefix": "network"}.get(slowest["kind"], slowest["kind"])
        line = (
            f"  the slowest is the {kind} {slowest['name']}: {_counted(slowest['connections'], 'connection')}"
        )
        hint = "; --sample-shared N takes a sample of its names" if slowest["kind"] == "address" else ""
        yield f"{line}, {_duration(slowest['seconds'])}{hint}"
    width = max(map(len, summary["most"]), default=0)
    for provider, count in summary["most"].items():
        yield f"  {provider:<{width}}  {count:>9,} connection{'s' if count != 1 else ''}"


def _counted(count: int, what: str) -> str:
    plural = {"address": "addresses", "policy": "policies"}.get(what, f"{what}s")
    return f"{count:,} {what if count == 1 else plural}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
