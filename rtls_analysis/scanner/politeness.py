"""The order of connections: who may be contacted now, and how long to wait for the others.

No clock and no sockets here: the engine says what time it is. One scheduler serves a whole run; jobs at the user's
own addresses run unpaced unless the manners say otherwise.
"""

from __future__ import annotations

import heapq
import ipaddress
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rtls_analysis.scanner.options import Manners
from rtls_analysis.standards.names import to_ascii


def prefix_of(address: str) -> str:
    """Give the network that counts as one neighbour: an IPv4 /24, an IPv6 /48.

    >>> prefix_of("192.0.2.77"), prefix_of("2001:db8:1:2::3")
    ('192.0.2.0/24', '2001:db8:1::/48')
    """
    bits = 48 if ":" in address else 24
    return str(ipaddress.ip_network((address, bits), strict=False))


class OptOut:
    """Those who asked to be left alone: domains (with what is below them), MX hosts and networks.

    Raises
    ------
    ValueError
        An entry is neither a name nor an address or network.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._names: set[str] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in entries:
            try:
                self._networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                self._names.add(to_ascii(entry))  # a NameProblem is a ValueError that says what came

    def names(self, name: str) -> bool:
        """Whether a domain or an MX host opted out, itself or by a name above it."""
        labels = name.split(".")
        return any(".".join(labels[at:]) in self._names for at in range(len(labels)))

    def covers(self, address: str) -> bool:
        """Whether an address lies in a network that opted out."""
        if not self._networks:
            return False
        known = ipaddress.ip_address(address)
        return any(known in network for network in self._networks)


@dataclass(slots=True, eq=False)
class Job:
    """A connection to make: to an address, on account of a provider; `own` ones are not paced."""

    address: str
    provider: str
    payload: Any
    own: bool = False
    attempts: int = 0
    prefix: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self.prefix = prefix_of(self.address)


@dataclass(slots=True)
class _Lane:
    """What one address, prefix or provider allows: so many at once, so long apart."""

    at_once: int
    spacing: float
    active: int = 0
    free_at: float = 0.0

    def wait(self, now: float) -> float:
        """Seconds until a connection may begin; infinite while too many are open."""
        return float("inf") if self.active >= self.at_once else max(0.0, self.free_at - now)


class Scheduler:
    """Hands out jobs as the manners allow; the caller says when each ended and whether it was pushed back.

    `take` gives a job, or the seconds to wait for the next (infinite: until one ends), or None where none is left.
    """

    _LOOK_AHEAD = 16  # jobs of one provider to look through for one whose address is free

    def __init__(self, manners: Manners) -> None:
        self.manners = manners
        self._own: deque[Job] = deque()
        self._queues: dict[str, deque[Job]] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._parked: set[str] = set()
        self._later: list[tuple[float, int, Job]] = []
        self._addresses: dict[str, _Lane] = {}
        self._prefixes: dict[str, _Lane] = {}
        self._providers: dict[str, _Lane] = {}
        self._pauses: dict[str, float] = {}
        self._sequence = 0
        self.waiting = 0
        self.active = 0

    def add(self, job: Job) -> None:
        """Put a job into its queue."""
        self.waiting += 1
        if job.own and not self.manners.own_addresses:
            self._own.append(job)
            return
        queue = self._queues.setdefault(job.provider, deque())
        queue.append(job)
        if len(queue) == 1:
            self._push(job.provider, 0.0)

    def _push(self, provider: str, at: float) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (at, self._sequence, provider))

    def take(self, now: float) -> Job | float | None:
        """Take the next job that may begin at `now`."""
        while self._later and self._later[0][0] <= now:
            job = heapq.heappop(self._later)[2]
            self.waiting -= 1
            self.add(job)
        if self._own:
            return self._begin(self._own.popleft(), now)
        while self._heap and self._heap[0][0] <= now:
            _at, _sequence, provider = heapq.heappop(self._heap)
            queue = self._queues[provider]
            wait = self._lane(self._providers, provider, "provider").wait(now)
            if wait == 0.0:
                wait, job = self._first_free(queue, now)
                if job is not None:
                    if queue:
                        self._push(provider, now)
                    return self._begin(job, now)
            if wait == float("inf"):
                self._parked.add(provider)
            else:
                self._push(provider, now + wait)
        if not self.waiting:
            return None
        next_times = [heap[0][0] for heap in (self._heap, self._later) if heap]
        return max(0.0, min(next_times) - now) if next_times else float("inf")

    def _first_free(self, queue: deque[Job], now: float) -> tuple[float, Job | None]:
        shortest = float("inf")
        for _ in range(min(len(queue), self._LOOK_AHEAD)):
            job = queue.popleft()
            wait = max(
                self._lane(self._addresses, job.address, "address").wait(now),
                self._lane(self._prefixes, job.prefix, "prefix").wait(now),
            )
            if wait == 0.0:
                return 0.0, job
            shortest = min(shortest, wait)
            queue.append(job)
        return shortest, None

    def _lane(self, lanes: dict[str, _Lane], key: str, kind: str) -> _Lane:
        if (lane := lanes.get(key)) is None:
            manners = self.manners
            lane = lanes[key] = _Lane(
                getattr(manners, f"{kind}_at_once"), float(getattr(manners, f"{kind}_spacing"))
            )
        return lane

    def _lanes(self, job: Job) -> tuple[_Lane, ...]:
        if job.own and not self.manners.own_addresses:
            return ()
        return (
            self._lane(self._addresses, job.address, "address"),
            self._lane(self._prefixes, job.prefix, "prefix"),
            self._lane(self._providers, job.provider, "provider"),
        )

    def _begin(self, job: Job, now: float) -> Job:
        self.waiting -= 1
        self.active += 1
        job.attempts += 1
        for lane in self._lanes(job):
            lane.active += 1
            lane.free_at = now + lane.spacing
        return job

    def done(self, job: Job, now: float, *, pushed_back: bool = False) -> bool:
        """Say that a job's connection ended; True where it is queued again for a later visit.

        A server that pushes back (421, 45x, a block) gives its provider a pause, twice as long each time.
        """
        self.active -= 1
        lanes = self._lanes(job)
        for lane in lanes:
            lane.active -= 1
        again = False
        if lanes:
            if pushed_back:
                pause = self._pauses.get(job.provider, self.manners.pause)
                self._pauses[job.provider] = min(2 * pause, self.manners.longest_pause)
                provider = self._providers[job.provider]
                provider.free_at = max(provider.free_at, now + pause)
                if again := job.attempts <= self.manners.retries:
                    self._sequence += 1
                    self.waiting += 1
                    heapq.heappush(self._later, (now + pause, self._sequence, job))
            for provider_name in list(self._parked):  # a lane is free again: look at them anew
                self._parked.discard(provider_name)
                self._push(provider_name, now)
        return again
