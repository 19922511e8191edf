"""The manners: played through with a clock of the test's own, and checked from outside."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.scanner.options import Manners
from rtls_analysis.scanner.politeness import Job, Scheduler, _Queue, prefix_of


def play(
    jobs: list[Job], manners: Manners, *, duration: float = 0.5, at_once: int = 50, pushed_back: int = 0
) -> list[tuple[float, float, Job]]:
    """Run a scheduler to its end; gives begin, end and job of each connection.

    `pushed_back` first visits of each address are answered with a push-back.
    """
    scheduler = Scheduler(manners)
    for job in jobs:
        scheduler.add(job)
    now, running, record = 0.0, [], []
    visits: Counter[str] = Counter()
    while True:
        while len(running) < at_once:
            job = scheduler.take(now)
            if not isinstance(job, Job):
                break
            heapq.heappush(running, (now + duration, len(record), job))
            record.append((now, now + duration, job))
        if job is None and not running:
            return record
        ends = running[0][0] if running else float("inf")
        wait = now + job if isinstance(job, float) else float("inf")
        now = min(ends, wait)
        assert now < float("inf"), "it waits for nothing"
        while running and running[0][0] <= now:
            _, _, ended = heapq.heappop(running)
            visits[ended.address] += 1
            scheduler.done(ended, now, pushed_back=visits[ended.address] <= pushed_back)


def job(number: int, provider: str, *, own: bool = False) -> Job:
    return Job(f"192.0.{number % 7}.{number % 200}", provider, number, own=own)


def worst(record: list[tuple[float, float, Job]], key: str) -> tuple[float, int]:
    """The shortest time between two begins, and the most at once, over all values of a job's attribute."""
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for begin, end, done in record:
        name = prefix_of(done.address) if key == "prefix" else getattr(done, key)
        groups[name].append((begin, end))
    gap, most = float("inf"), 0
    for times in groups.values():
        begins = sorted(begin for begin, _end in times)
        gap = min([gap, *(later - earlier for earlier, later in itertools.pairwise(begins))])
        most = max([most, *(sum(b <= begin < e for b, e in times) for begin in begins)])
    return gap, most


@settings(max_examples=60, deadline=None)
@given(
    numbers=st.lists(st.tuples(st.integers(0, 300), st.sampled_from("abcd")), max_size=60),
    duration=st.sampled_from([0.1, 0.9, 3.0, 11.0]),
    at_once=st.integers(1, 60),
)
def test_no_limit_is_ever_broken(numbers: list[tuple[int, str]], duration: float, at_once: int) -> None:
    """However the jobs lie, each address, prefix and provider gets no more than the manners allow."""
    manners = Manners()
    record = play([job(n, p) for n, p in numbers], manners, duration=duration, at_once=at_once)
    assert Counter(done.payload for _, _, done in record) == Counter(n for n, _ in numbers)
    for key in ("address", "prefix", "provider"):
        gap, most = worst(record, key)
        assert gap >= getattr(manners, f"{key}_spacing") - 1e-9
        assert most <= getattr(manners, f"{key}_at_once")


def test_own_addresses_run_unpaced() -> None:
    """A lab is scanned at full speed, unless the manners shall be tested on it."""
    jobs = [job(1, "a", own=True) for _ in range(20)]
    assert max(begin for begin, _, _ in play(jobs, Manners())) == 0.0
    paced = play([job(1, "a", own=True) for _ in range(5)], Manners(own_addresses=True))
    assert worst(paced, "address")[0] >= 2.0


def test_push_back_pauses_the_provider_and_is_visited_later() -> None:
    """A 421 gives the provider a pause, doubling; two more visits at the most, then it rests."""
    jobs = [Job("192.0.2.1", "a", "limited"), Job("192.0.9.1", "b", "other")]
    record = play(jobs, Manners(), pushed_back=9)
    limited = [begin for begin, _, done in record if done.payload == "limited"]
    assert len(limited) == 3
    assert limited[1] - limited[0] >= 60
    assert limited[2] - limited[1] >= 120


def test_a_slow_provider_holds_nobody_else_up() -> None:
    """Others go on while one provider's jobs wait for their turn."""
    jobs = [job(n, "big") for n in range(100)] + [Job(f"198.51.{n}.1", f"small{n}", n) for n in range(100)]
    record = play(jobs, Manners())
    small = [begin for begin, _, done in record if done.provider != "big"]
    assert max(small) < 20


@pytest.mark.parametrize(
    ("address", "prefix"),
    [("203.0.113.9", "203.0.113.0/24"), ("2001:db8::1", "2001:db8::/48"), ("::1", "::/48")],
)
def test_prefix(address: str, prefix: str) -> None:
    """Neighbours are an IPv4 /24 and an IPv6 /48."""
    assert prefix_of(address) == prefix


def test_a_provider_that_refuses_too_much_is_left_alone() -> None:
    """Past the error window the rest of a provider's servers are not contacted; others go on."""
    manners = Manners(pause=1, retries=0, error_minimum=10, error_share=0.05)
    jobs = [job(number, "refuses.test") for number in range(50)] + [
        job(number, "other.test") for number in range(5)
    ]
    scheduler = Scheduler(manners)
    for item in jobs:
        scheduler.add(item)
    now, made = 0.0, []
    while (item := scheduler.take(now)) is not None:
        if isinstance(item, float):
            now += item
            continue
        made.append(item)
        scheduler.done(item, now + 0.1, pushed_back=item.provider == "refuses.test")
    assert Counter(item.provider for item in made) == {"refuses.test": 10, "other.test": 5}
    assert len(scheduler.given_up) == 40


def test_many_names_at_one_address_cost_no_more_than_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of the scheduler for a connection do not grow with the number of those that wait."""
    busy, looks = _Queue.busy, []

    def counted(queue: _Queue, now: float) -> Any:
        looks.append(queue)
        return busy(queue, now)

    monkeypatch.setattr(_Queue, "busy", counted)
    steps = {}
    for count in (200, 20_000):
        looks.clear()
        scheduler = Scheduler(Manners())
        for number in range(count):
            scheduler.add(Job(f"192.0.2.{number % 2}", f"{number}.test", number))
        now = 0.0
        for _ in range(100):
            item = scheduler.take(now)
            while isinstance(item, float):
                now += item
                item = scheduler.take(now)
            assert item is not None
            scheduler.done(item, now + 0.01)
        steps[count] = len(looks) - count
    assert steps[20_000] <= 2 * steps[200]
