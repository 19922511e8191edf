"""The order of connections: who may be contacted now, and how long to wait for the others.

No clock and no sockets here: the engine says what time it is. One scheduler serves a whole run; jobs at the user's
own addresses run unpaced unless the manners say otherwise.
"""

from __future__ import annotations

import heapq
import ipaddress
from collections import deque
from collections.abc import Iterable, Mapping
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


@dataclass(frozen=True, slots=True)
class Turn:
    """One of several schedulers that contact the same network, and whose turn comes round with the clock.

    `of` of them, in processes that know nothing of each other, have the network by turns: each may begin a connection
    only in a short time at the start of its own turn, so that two beginnings stay the spacing apart as long as the
    clocks of their machines agree to `CLOCKS_AGREE` seconds. Of the connections at once each has its share.
    """

    index: int
    of: int

    def begins(self, now: float, spacing: float) -> float:
        """Give the first time from `now` on, in seconds of the wall clock, at which a connection may begin."""
        length = spacing + TURN_OPEN + CLOCKS_AGREE
        since = (now - self.index * length) % (self.of * length)
        return now if since < TURN_OPEN else now + self.of * length - since + _WITHIN


TURN_OPEN = 0.3
"""Seconds at the start of a turn in which a connection may begin."""

CLOCKS_AGREE = 0.2
"""Seconds by which the clocks of machines that take turns may differ."""

_WITHIN = 0.005  # seconds after a turn's start: neither rounding nor a timer that is early leads out of it


@dataclass(slots=True, eq=False)
class _Lane:
    """What one address, prefix or provider allows: so many at once, so long apart; and who waits for it.

    Those who wait are queues, and other lanes whose own queues all wait for this one.
    """

    at_once: int
    spacing: float
    turn: Turn | None = None  # where it is shared with other schedulers, and has a spacing
    clock: float = 0.0  # to be added to a time for that of the wall clock
    active: int = 0
    free_at: float = 0.0
    waiters: deque[_Queue | _Lane] | None = None  # most addresses never have any
    is_armed: bool = False  # a timer is set for the time when it is free
    is_listed: bool = False  # among those to look at now
    is_waiting: bool = False  # itself, for another lane

    def wait(self, now: float) -> float:
        """Seconds until a connection may begin; infinite while too many are open."""
        if self.active >= self.at_once:
            return _NEVER
        wait = max(0.0, self.free_at - now)
        if self.turn is None:
            return wait
        at = now + wait + self.clock
        return wait + self.turn.begins(at, self.spacing) - at

    def hold(self, waiter: _Queue | _Lane) -> None:
        """Let a queue or lane wait here."""
        if self.waiters is None:
            self.waiters = deque()
        self.waiters.append(waiter)


@dataclass(slots=True, eq=False)
class _Queue:
    """Jobs that have all their lanes in common: one provider's at one address."""

    provider: str
    lanes: tuple[_Lane, ...]
    jobs: list[Job] = field(default_factory=list)  # the next one last
    is_known: bool = False  # it waits somewhere

    def busy(self, now: float) -> _Lane | None:
        """Give the lane that holds it up, if one does."""
        return next((lane for lane in self.lanes if lane.wait(now)), None)


_NEVER = float("inf")
_MARGIN = 0.05  # seconds more than the spacing: a connection begins a little after it was let go
_LOOK_AHEAD = 16  # queues at one lane that are looked through for one whose other lanes are free


class Scheduler:
    """Hands out jobs as the manners allow; the caller says when each ended and whether it was pushed back.

    Parameters
    ----------
    manners
        What is allowed.
    turns
        Networks that other schedulers contact too, and whose turn is when.
    clock
        Seconds to add to the times given here for those of the wall clock, which decides turns.

    `take` gives a job, or the seconds to wait for the next (infinite: until one ends), or None where none is left.

    Notes
    -----
    A queue that may not begin waits at the one lane that holds it up, and a lane that is free again looks at a few
    of those until it is taken: the work for a connection does not grow with the number of those that wait, be it a
    hundred thousand names at one address.
    """

    def __init__(
        self, manners: Manners, turns: Mapping[str, Turn] | None = None, *, clock: float = 0.0
    ) -> None:
        self.manners = manners
        self._turns = turns or {}
        self._clock = clock
        self._own: deque[Job] = deque()
        self._queues: dict[tuple[str, str], _Queue] = {}
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._new: deque[_Queue] = deque()
        self._free: deque[_Lane] = deque()
        self._timers: list[tuple[float, int, _Lane | Job]] = []
        self._pauses: dict[str, float] = {}
        self._ended: dict[
            str, list[int]
        ] = {}  # provider: its jobs that ended, and those pushed back to the last
        self._stopped: set[str] = set()
        self._sequence = 0
        self.given_up: list[Job] = []
        """Jobs of providers at which too many ended in a push-back; the caller takes them from here."""
        self.waiting = 0
        self.active = 0

    def paces(self, job: Job) -> bool:
        """Whether a job is held to the manners: those at the user's own addresses are only where these say so."""
        return self.manners.own_addresses or not job.own

    def add(self, job: Job) -> None:
        """Put a job into its queue."""
        self.waiting += 1
        if not self.paces(job):
            self._own.append(job)
            return
        queue = self._queue_of(job)
        queue.jobs.append(job)
        if not queue.is_known:
            queue.is_known = True
            self._new.append(queue)

    def _queue_of(self, job: Job) -> _Queue:
        key = job.provider, job.address
        if (queue := self._queues.get(key)) is None:
            lanes = (
                self._lane("provider", job.provider),
                self._lane("prefix", prefix_of(job.address)),
                self._lane("address", job.address),
            )
            queue = self._queues[key] = _Queue(job.provider, lanes)
        return queue

    def _lane(self, kind: str, name: str) -> _Lane:
        if (lane := self._lanes.get((kind, name))) is None:
            at_once = getattr(self.manners, f"{kind}_at_once")
            spacing = getattr(self.manners, f"{kind}_spacing")
            lane = self._lanes[kind, name] = _Lane(at_once, spacing + _MARGIN if spacing else 0.0)
            if kind == "prefix" and (turn := self._turns.get(name)) is not None:
                lane.at_once = max(1, at_once // turn.of)
                lane.turn, lane.clock = (turn, self._clock) if spacing else (None, 0.0)
        return lane

    def remember(self, provider: str, address: str, *, began: float, ended: float, pushed_back: bool) -> None:
        """Count a connection of an earlier run, before any is taken: the manners hold across an interruption."""
        lanes = self._queue_of(Job(address, provider, None)).lanes
        for lane in lanes:
            lane.free_at = max(lane.free_at, began + lane.spacing)
        if pushed_back:
            self._pause(provider, lanes[0], ended)

    def take(self, now: float) -> Job | float | None:
        """Take the next job that may begin at `now`."""
        while self._timers and self._timers[0][0] <= now:
            due = heapq.heappop(self._timers)[2]
            if isinstance(due, Job):
                self.waiting -= 1
                self.add(due)
            else:
                due.is_armed = False
                self._look_at(due, now)
        if self._own:
            return self._begin(self._own.popleft(), (), now)
        if (queue := self._next_queue(now)) is not None:
            job = queue.jobs.pop()
            queue.is_known = bool(queue.jobs)
            if queue.is_known:
                self._new.append(queue)
            return self._begin(job, queue.lanes, now)
        if not self.waiting:
            return None
        return max(0.0, self._timers[0][0] - now) if self._timers else _NEVER

    def _next_queue(self, now: float) -> _Queue | None:
        """Give a queue whose next job may begin, if there is one."""
        while self._new:
            queue = self._new.popleft()
            if queue.provider in self._stopped:
                self._give_up(queue)
            elif (busy := queue.busy(now)) is None:
                return queue
            else:
                busy.hold(queue)
                self._look_at(busy, now)
        while self._free:
            lane = self._free.popleft()
            lane.is_listed = False
            if (found := self._next_at(lane, now)) is not None:
                lane.is_listed = True  # it may take another one: it is looked at again first
                self._free.appendleft(lane)
                return found
        return None

    def _next_at(self, lane: _Lane, now: float) -> _Queue | None:
        """Look through those who wait at a lane; where all wait for another one too, so does the lane."""
        waiters = lane.waiters
        if not waiters or lane.wait(now):
            self._look_at(lane, now)
            return None
        blocker: _Lane | None = None
        for _ in range(min(_LOOK_AHEAD, len(waiters))):
            waiter = waiters.popleft()
            if isinstance(waiter, _Lane):
                waiter.is_waiting = False
                self._look_at(waiter, now)
            elif waiter.provider in self._stopped:
                self._give_up(waiter)
            elif (busy := waiter.busy(now)) is None:
                return waiter
            else:
                blocker = busy
                waiters.append(waiter)
        if blocker is None:
            self._look_at(lane, now)
        elif not lane.is_waiting:
            lane.is_waiting = True
            blocker.hold(lane)
            self._look_at(blocker, now)
        return None

    def _look_at(self, lane: _Lane, now: float) -> None:
        """See to it that a lane's waiters are looked at when it is free: now, at its time, or when a job ends."""
        if not lane.waiters:
            return
        wait = lane.wait(now)
        if not wait:
            if not lane.is_listed:
                lane.is_listed = True
                self._free.append(lane)
        elif wait != _NEVER and not lane.is_armed:
            lane.is_armed = True
            self._set_timer(now + wait, lane)

    def _set_timer(self, at: float, what: _Lane | Job) -> None:
        self._sequence += 1
        heapq.heappush(self._timers, (at, self._sequence, what))

    def _begin(self, job: Job, lanes: tuple[_Lane, ...], now: float) -> Job:
        self.waiting -= 1
        self.active += 1
        job.attempts += 1
        for lane in lanes:
            lane.active += 1
            lane.free_at = now + lane.spacing
        return job

    def begins(self, job: Job, now: float) -> None:
        """Say that a job's connection begins only now: spacings count from here."""
        if self.paces(job):
            for lane in self._queue_of(job).lanes:
                lane.free_at = max(lane.free_at, now + lane.spacing)

    def done(self, job: Job, now: float, *, pushed_back: bool = False) -> bool:
        """Say that a job's connection ended; True where it is queued again for a later visit.

        A server that pushes back (421, 45x, a block) gives its provider a pause, twice as long each time; one at
        which more than `error_share` of the jobs were pushed back to the last is left alone.
        """
        if not self.paces(job):
            self.active -= 1
            return False
        provider = self._queue_of(job).lanes[0]
        again = False
        if pushed_back:
            pause = self._pause(job.provider, provider, now)
            if again := job.attempts <= self.manners.retries and job.provider not in self._stopped:
                self.waiting += 1
                self._set_timer(now + pause, job)
        if not again:
            self._count(job, provider, refused=pushed_back)
        self.release(job, now)
        return again

    def release(self, job: Job, now: float) -> None:
        """Say that a job's connection is over, or was none after all, and that it says nothing of its provider."""
        self.active -= 1
        if self.paces(job):
            for lane in self._queue_of(job).lanes:
                lane.active -= 1
                self._look_at(lane, now)

    def _pause(self, provider: str, lane: _Lane, now: float) -> float:
        """Let a provider rest from `now` on, twice as long as the last time; gives the seconds."""
        pause = self._pauses.get(provider, self.manners.pause)
        self._pauses[provider] = min(2 * pause, self.manners.longest_pause)
        lane.free_at = max(lane.free_at, now + pause)
        return pause

    def _count(self, job: Job, lane: _Lane, *, refused: bool) -> None:
        """Count a job that ended, and stop at a provider where too many were refused."""
        ended = self._ended.setdefault(job.provider, [0, 0])
        ended[0] += 1
        ended[1] += refused
        manners = self.manners
        if ended[0] >= manners.error_minimum and ended[1] > manners.error_share * ended[0]:
            self._stopped.add(job.provider)
            lane.free_at = 0.0  # so that those who wait here are soon seen to

    def _give_up(self, queue: _Queue) -> None:
        self.waiting -= len(queue.jobs)
        self.given_up += queue.jobs
        queue.jobs.clear()
        queue.is_known = False
