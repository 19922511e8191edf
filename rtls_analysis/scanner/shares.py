"""Splitting the contacts of a scan among workers that know nothing of each other, so that its manners still hold.

Whatever is paced together goes to one worker: a provider, an address, and by way of these everything connected with
them. Most of the Internet's networks hang together in one such group, by hosting companies whose customers are each a
provider of their own; a group that is too large for one worker is cut through networks only, never through a provider
or an address. A network that was cut is contacted by turns (`Turn`), each worker with its share of the connections.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rtls_analysis.scanner.contacts import PolicyTarget
from rtls_analysis.scanner.options import Manners
from rtls_analysis.scanner.politeness import Job, Turn, prefix_of

TOO_LARGE = 20_000
"""Contacts that go together from which on they are cut, where they are also more than one worker's fair share."""


@dataclass(slots=True)
class Part:
    """What one worker contacts, and the networks that others contact too."""

    jobs: list[Job] = field(default_factory=list)
    turns: Mapping[str, Turn] = field(default_factory=dict)


def split(
    jobs: Sequence[Job],
    count: int,
    manners: Manners,
    *,
    reach: Sequence[tuple[bool, bool]] = (),
    too_large: int | None = None,
) -> list[Part]:
    """Split jobs among `count` workers.

    Those at the user's own addresses, which are not paced unless the manners say so, go to whoever has the least.

    Parameters
    ----------
    jobs
        The contacts of a plan.
    count
        Of workers.
    manners
        Which are to hold over all of them together.
    reach
        Whether each worker reaches IPv4, and IPv6; all of them do where nothing is said. What goes together goes to
        one that reaches all of it, if there is one, else to one that reaches the most.
    too_large
        In place of `TOO_LARGE`.
    """
    if count <= 1:
        return [Part(list(jobs))]
    paced = [job for job in jobs if manners.own_addresses or not job.own]
    own = [job for job in jobs if not (manners.own_addresses or not job.own)]
    largest = max(TOO_LARGE if too_large is None else too_large, -(-3 * len(jobs) // (2 * count)))
    parts = [Part() for _ in range(count)]
    ways = min(
        count, manners.prefix_at_once
    )  # a network in no more pieces than it allows connections at once
    pieces: list[list[Job]] = []
    is_cut = False
    for group in _connected(paced):
        if ways > 1 and len(group) > largest:
            pieces += _cut(group, min(ways, -(-len(group) // largest)))
            is_cut = True
        else:
            pieces.append(group)
    pieces.sort(key=len, reverse=True)
    for piece in pieces:
        missed = [sum(not _is_reached(job, families) for job in piece) for families in reach] or [0] * count
        fit = [part for part, misses in zip(parts, missed, strict=True) if misses == min(missed)]
        min(fit, key=lambda part: len(part.jobs)).jobs.extend(piece)
    if is_cut:
        _take_turns(parts)
    _level(parts, own)
    return parts


def _is_reached(job: Job, families: tuple[bool, bool]) -> bool:
    return any(families[":" in address] for address in _addresses(job))


def within_reach(job: Job, families: tuple[bool, bool]) -> Job | None:
    """Give a job as it can be done where only these families are reached, IPv4 and IPv6; None where it cannot."""
    if job.own or not _is_reached(job, families):
        return job if job.own else None
    if isinstance(job.payload, PolicyTarget):
        reached = tuple(address for address in job.payload.addresses if families[":" in address])
        if reached != job.payload.addresses:
            return replace(job, address=reached[0], payload=PolicyTarget(job.payload.domain, reached))
    return job


def _level(parts: Sequence[Part], own: Sequence[Job]) -> None:
    """Give unpaced jobs to those who have the least."""
    fewest = sorted(parts, key=lambda part: len(part.jobs))
    level = -(-(len(own) + sum(len(part.jobs) for part in parts)) // len(parts))
    at = 0
    for part in fewest:
        until = at + max(0, level - len(part.jobs))
        part.jobs.extend(own[at:until])
        at = until
    fewest[0].jobs.extend(own[at:])


def _take_turns(parts: Sequence[Part]) -> None:
    """Give the turns for the networks that several of them contact."""
    who: dict[str, list[int]] = defaultdict(list)
    for number, part in enumerate(parts):
        for prefix in {prefix for job in part.jobs for prefix in _prefixes(job)}:
            who[prefix].append(number)
    turns: list[dict[str, Turn]] = [{} for _ in parts]
    for prefix, numbers in who.items():
        if len(numbers) > 1:
            for index, number in enumerate(numbers):
                turns[number][prefix] = Turn(index, len(numbers))
    for part, of_part in zip(parts, turns, strict=True):
        part.turns = of_part


def _addresses(job: Job) -> tuple[str, ...]:
    return job.payload.addresses if isinstance(job.payload, PolicyTarget) else (job.address,)


def _prefixes(job: Job) -> set[str]:
    return {prefix_of(address) for address in _addresses(job)}


def _connected(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Give what is connected by providers and networks."""
    groups = _Groups()
    for job in jobs:
        for prefix in _prefixes(job):
            groups.join(f"provider {job.provider}", f"prefix {prefix}")
    yield from _by_group(jobs, groups).values()


def _by_group(jobs: Sequence[Job], groups: _Groups) -> dict[str, list[Job]]:
    """Give the jobs of each group, by the group of their providers."""
    members: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        members[groups.of(f"provider {job.provider}")].append(job)
    return members


def _cut(jobs: Sequence[Job], ways: int) -> Iterator[list[Job]]:
    """Cut a group through networks: providers stay whole, and all that share an address.

    Neighbours stay together as far as a piece has room, so that few networks are shared.
    """
    units = _Groups()  # a provider, and all that shares an address with it
    for job in jobs:
        for address in _addresses(job):
            units.join(f"provider {job.provider}", f"address {address}")
    members = _by_group(jobs, units)
    networks = {unit: {prefix for job in held for prefix in _prefixes(job)} for unit, held in members.items()}
    neighbours: dict[str, list[str]] = defaultdict(list)
    for unit, prefixes in networks.items():
        for prefix in prefixes:
            neighbours[prefix].append(unit)
    left = dict.fromkeys(sorted(members, key=lambda unit: len(members[unit]), reverse=True))
    missing = len(jobs)
    for pieces_left in range(ways, 0, -1):
        room, piece = -(-missing // pieces_left), list[Job]()
        queue: deque[str] = deque()
        while left and (pieces_left == 1 or not piece or len(piece) < room):
            unit = queue.popleft() if queue else next(iter(left))
            if unit not in left:
                continue
            del left[unit]
            piece.extend(members[unit])
            for prefix in networks[unit]:
                queue.extend(neighbours.pop(prefix, ()))
        missing -= len(piece)
        if piece:
            yield piece


class _Groups:
    """Things that belong together, directly or through others (union-find)."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def of(self, thing: str) -> str:
        """Give the one that stands for a thing's group."""
        above = self._above.setdefault(thing, thing)
        while above != thing:
            self._above[thing] = higher = self._above[above]
            thing, above = above, higher
        return thing

    def join(self, one: str, other: str) -> None:
        """Put two things into one group."""
        self._above[self.of(one)] = self.of(other)
