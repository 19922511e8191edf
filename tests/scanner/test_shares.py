"""A scan split among workers: the manners hold over all of them, though none knows of another."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.scanner.contacts import PolicyTarget
from rtls_analysis.scanner.options import Manners
from rtls_analysis.scanner.politeness import CLOCKS_AGREE, TURN_OPEN, Job, Scheduler, Turn, prefix_of
from rtls_analysis.scanner.shares import Part, split, within_reach

jobs_of_all_kinds = st.lists(
    st.builds(
        lambda net, number, provider, own: Job(
            f"10.0.{net}.{number}", f"p{provider}.example", (net, number, provider), own=own
        ),
        st.integers(0, 6),
        st.integers(0, 9),
        st.integers(0, 6),
        st.booleans(),
    ),
    max_size=60,
)


def homes(parts: list[Part], *, own_addresses: bool) -> dict[str, set[int]]:
    """Give the parts in which each provider, address and network is paced."""
    seen: dict[str, set[int]] = defaultdict(set)
    for number, part in enumerate(parts):
        for job in part.jobs:
            if own_addresses or not job.own:
                for name in (job.provider, job.address, prefix_of(job.address)):
                    seen[name].add(number)
    return seen


@given(jobs=jobs_of_all_kinds, count=st.integers(1, 5), own_addresses=st.booleans())
@settings(max_examples=150, deadline=None)
def test_each_provider_and_network_is_one_workers_alone(
    jobs: list[Job], count: int, own_addresses: bool
) -> None:
    """Limits hold over all workers, for none meets another at a server; every job is somebody's."""
    parts = split(jobs, count, Manners(own_addresses=own_addresses))
    assert len(parts) == count
    assert Counter(id(job) for part in parts for job in part.jobs) == Counter(map(id, jobs))
    assert all(len(numbers) == 1 for numbers in homes(parts, own_addresses=own_addresses).values())
    assert all(not part.turns for part in parts)


@given(jobs=jobs_of_all_kinds, count=st.integers(2, 5), at_once=st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_a_group_that_is_too_large_is_cut_through_networks_only(
    jobs: list[Job], count: int, at_once: int
) -> None:
    """Providers and addresses stay whole, and no network has more workers than connections at once."""
    manners = Manners(own_addresses=True, prefix_at_once=at_once)
    parts = split(jobs, count, manners, too_large=1)
    assert Counter(id(job) for part in parts for job in part.jobs) == Counter(map(id, jobs))
    for name, numbers in homes(parts, own_addresses=True).items():
        if name.endswith("/24"):
            assert len(numbers) <= at_once
            turns = [parts[number].turns.get(name) for number in sorted(numbers)]
            expected = [Turn(index, len(numbers)) for index in range(len(numbers))]
            assert turns == (expected if len(numbers) > 1 else [None])
        else:
            assert len(numbers) == 1


def test_a_chain_of_networks_is_cut_where_it_is_thin() -> None:
    """Of a long chain of providers, each in two networks, two workers share one network."""
    jobs = [
        Job(f"10.0.{number + step}.{number % 250}", f"p{number}.example", None)
        for number in range(200)
        for step in (0, 1)
    ]
    parts = split(jobs, 2, Manners(), too_large=10)
    assert [len(part.jobs) for part in parts] == [200, 200]
    assert 1 <= len(parts[0].turns) <= 2
    assert parts[0].turns.keys() == parts[1].turns.keys()


def test_the_second_address_of_a_policy_host_counts() -> None:
    """A policy is asked for at another address where the first takes no connection: in the same worker."""
    policies = [
        Job("10.0.0.1", "a.example", PolicyTarget("a.example", ("10.0.0.1", "10.0.1.1"))),
        Job("10.0.1.1", "b.example", PolicyTarget("b.example", ("10.0.1.1",))),
    ]
    others = [Job("10.0.9.1", "c.example", None)]
    parts = split(policies + others, 2, Manners())
    assert sorted(len(part.jobs) for part in parts) == [1, 2]


def test_those_that_are_not_paced_level_the_shares() -> None:
    """One's own addresses go to whoever has the least."""
    strangers = [Job(f"198.41.{number}.1", f"p{number}.example", None) for number in range(7)]
    own = [Job(f"10.0.0.{number}", "mine.example", None, own=True) for number in range(23)]
    parts = split(strangers + own, 3, Manners())
    assert sorted(len(part.jobs) for part in parts) == [10, 10, 10]


def test_families_go_to_those_who_reach_them() -> None:
    """What needs IPv6 goes to a worker that has it; where nobody reaches all of a group, who reaches the most."""
    old = [Job(f"198.41.{number}.1", f"old{number}.example", None) for number in range(6)]
    new = [Job(f"2001:503:{number:x}::1", f"new{number}.example", None) for number in range(3)]
    both = [Job("198.51.9.1", "both.example", 1), Job("198.51.9.2", "both.example", 2)]
    both.append(Job("2001:503:ff::1", "both.example", 3))
    only_v4, only_v6 = split(old + new + both, 2, Manners(), reach=[(True, False), (False, True)])
    assert {job.provider for job in only_v6.jobs} == {job.provider for job in new}
    assert all(job in only_v4.jobs for job in old + both)
    left = [job for job in only_v4.jobs if within_reach(job, (True, False)) is None]
    assert [job.payload for job in left] == [3]
    dual, _ = split(new + both, 2, Manners(), reach=[(True, True), (True, False)])
    assert {job.provider for job in dual.jobs} == {job.provider for job in new + both}


def test_a_policy_is_asked_where_its_host_is_reached() -> None:
    """Addresses of the other family are dropped; one's own are always tried."""
    job = Job("2001:503::1", "a.example", PolicyTarget("a.example", ("2001:503::1", "198.41.0.4")))
    reached = within_reach(job, (True, False))
    assert reached is not None
    assert (reached.address, reached.payload.addresses) == ("198.41.0.4", ("198.41.0.4",))
    assert within_reach(job, (True, True)) is job
    own = Job("::1", "mine.example", None, own=True)
    assert within_reach(own, (True, False)) is own


# -- taking turns --------------------------------------------------------------------------------------------


@given(
    now=st.floats(0, 2e9),
    of=st.integers(1, 5),
    spacing=st.floats(0.01, 30),
    where=st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=200, deadline=None)
def test_turns_come_round(now: float, of: int, spacing: float, where: float) -> None:
    """Whenever one asks, one's next turn is near, and nobody else's is open then, with clocks a little apart."""
    index = int(where * of)
    length = spacing + TURN_OPEN + CLOCKS_AGREE
    at = Turn(index, of).begins(now, spacing)
    assert now <= at <= now + of * length + 0.01
    assert Turn(index, of).begins(at, spacing) == at
    for other in set(range(of)) - {index}:
        theirs = Turn(other, of).begins(at, spacing)
        assert theirs - at >= spacing + CLOCKS_AGREE - 0.01


Begun = tuple[float, float, Job]  # begin, end, whose


def run(schedulers: list[Scheduler], skews: list[float], seconds: float) -> list[Begun]:
    """Let schedulers, each with its own idea of the time, hand out all their jobs; gives what really happened."""
    made: list[Begun] = []
    draw = random.Random(1)
    events: list[tuple[float, int, int, Job | None]] = [(0.0, n, n, None) for n in range(len(schedulers))]
    sequence = len(events)
    while events:
        now, _sequence, number, ended = heapq.heappop(events)
        scheduler = schedulers[number]
        local = now + skews[number]  # a monotonic clock, whose zero is nobody's
        if ended is not None:
            scheduler.done(ended, local)
        while isinstance(job := scheduler.take(local), Job):
            took = draw.uniform(0.2, 2.0) * seconds
            made.append((now, now + took, job))
            sequence += 1
            heapq.heappush(events, (now + took, sequence, number, job))
        if isinstance(job, float) and job != float("inf"):
            sequence += 1
            heapq.heappush(events, (now + max(job, 1e-3), sequence, number, None))
    return sorted(made, key=lambda one: one[0])


@pytest.mark.parametrize("spacing", [0.0, 1.0])
@pytest.mark.parametrize("at_once", [2, 5])
def test_limits_hold_over_workers_that_know_nothing_of_each_other(spacing: float, at_once: int) -> None:
    """Hundreds of customers in one hosting network, cut among workers whose clocks differ a little."""
    jobs = [
        Job(f"10.0.{number % 3}.{number % 250}", f"p{number % 250}.example", number) for number in range(600)
    ]
    manners = Manners(
        prefix_at_once=at_once,
        prefix_spacing=spacing,
        address_spacing=0.0,
        provider_spacing=0.0,
        own_addresses=True,
    )
    parts = split(jobs, 4, manners, too_large=50)
    sharing = Counter(prefix for part in parts for prefix in part.turns)
    assert sharing
    assert max(sharing.values()) <= at_once
    draw = random.Random(2)
    schedulers, skews = [], []
    for part in parts:
        skews.append(draw.uniform(1e5, 1e6))
        error = draw.uniform(-CLOCKS_AGREE / 2, CLOCKS_AGREE / 2)
        scheduler = Scheduler(manners, part.turns, clock=error - skews[-1])
        for job in part.jobs:
            scheduler.add(job)
        schedulers.append(scheduler)
    made = run(schedulers, skews, 1.0)
    assert sorted(job.payload for _b, _e, job in made) == list(range(600))
    by_network: dict[str, list[Begun]] = defaultdict(list)
    for one in made:
        by_network[prefix_of(one[2].address)].append(one)
    for begun in by_network.values():
        assert all(later[0] - earlier[0] >= spacing - 1e-6 for earlier, later in pairwise(begun))
        for begin, _end, _job in begun:
            open_then = sum(b <= begin < e for b, e, _ in begun)
            assert open_then <= at_once
    rate: Any = {0.0: 0.0, 1.0: 0.5}[spacing]  # connections a second that turns still allow, of one
    assert all(len(begun) / (begun[-1][0] + 1) >= rate for begun in by_network.values())
