"""Contacts made as the manners allow, and what is doubted: servers, or ourselves."""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import pytest

from rtls_analysis.outcomes import FeatureState, SessionOutcome, SessionStage, StsPolicyState
from rtls_analysis.scanner import contacts
from rtls_analysis.scanner.contacts import Contacts, PolicyTarget, ScanStopped
from rtls_analysis.scanner.options import Manners, Options
from rtls_analysis.scanner.policy_fetch import PolicyAttempt, PolicyFetch
from rtls_analysis.scanner.politeness import Job
from rtls_analysis.scanner.probe import ProbeTarget
from rtls_analysis.scanner.smtp_client import LocalTrouble
from rtls_analysis.standards.certificates import Roots
from rtls_analysis.store import POLICIES, VISITS

FAST = Manners(
    address_spacing=0,
    provider_spacing=0,
    prefix_spacing=0,
    provider_at_once=9,
    prefix_at_once=9,
    pause=0.02,
    longest_pause=0.05,
)
NOW = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)
ROOTS = Roots.builtin()


class World:
    """Servers by address, as scripts: each visit takes the next of its outcomes, the last one for ever.

    An outcome is a word of `SessionOutcome`, a number of seconds to wait before it, a condition to wait for, or an
    error to raise.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.scripts: dict[str, list[Any]] = defaultdict(lambda: ["completed"])
        self.policies: dict[str, list[Any]] = defaultdict(lambda: [200])
        self.made: list[tuple[str, str]] = []
        self.open: Counter[str] = Counter()
        self.most_open = 0
        self.tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.reported: Counter[str] = Counter()
        self.connect: Any = None
        monkeypatch.setattr(contacts, "probe", self.probe)
        monkeypatch.setattr(contacts, "fetch_policy", self.fetch)
        monkeypatch.setattr(contacts, "families", lambda *given: (True, True))
        given = {"manners": FAST, **options}
        self.options = Options("probe.example.org", "me@example.org", **given)

    def contacts(self) -> Contacts:
        return Contacts(
            self.options,
            ROOTS,
            self.append,
            connect=self.connect,
            report=lambda outcome: self.reported.update((outcome,)),
        )

    def append(self, table: str, row: Mapping[str, Any]) -> None:
        self.tables[table].append(dict(row))

    def run(self, jobs: list[Job], visits: Any = None) -> None:
        asyncio.run(self.contacts().run(jobs, visits))

    async def _step(self, script: list[Any], who: tuple[str, str]) -> Any:
        self.made.append(who)
        self.open.update((who[1],))
        self.most_open = max(self.most_open, self.open.total())
        try:
            said = script.pop(0) if len(script) > 1 else script[0]
            await asyncio.sleep(0.001)
            while isinstance(said, float) or callable(said):
                if isinstance(said, float):
                    await asyncio.sleep(said)
                elif not said():
                    await asyncio.sleep(0.001)
                    continue
                said = script.pop(0) if len(script) > 1 else script[0]
        finally:
            self.open.subtract((who[1],))
        if isinstance(said, BaseException):
            raise said
        return said

    async def probe(self, target: ProbeTarget, **_: Any) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        said = await self._step(self.scripts[target.address], (target.mx_host, target.address))
        no_contact = said in ("timeout", "refused", "unreachable")
        stage = SessionStage.CONNECT if no_contact else SessionStage.GREETING
        row = {
            "mx_host": target.mx_host,
            "address": target.address,
            "started_at": dt.datetime.now(dt.UTC),
            "outcome": SessionOutcome(said),
            "stage": stage,
            "starttls": FeatureState.UNKNOWN,
            "attempts": 1,
        }
        return row, ()

    async def fetch(self, host: str, addresses: list[str], **_: Any) -> PolicyFetch:
        (address,) = addresses
        said = await self._step(self.policies[address], (host, address))
        moment = dt.datetime.now(dt.UTC)
        if isinstance(said, int):
            made = (PolicyAttempt(address, moment, moment, f"http {said}"),)
            return PolicyFetch(None, said, "text/plain", b"x", address, attempts=made)
        state = StsPolicyState(said)
        return PolicyFetch(state, address=address, attempts=(PolicyAttempt(address, moment, moment, state),))

    def outcomes(self) -> dict[str, str]:
        """What `sessions` says, by address; each in it once."""
        rows = self.tables["sessions"]
        found = {row["address"]: str(row["outcome"]) for row in rows}
        assert len(found) == len(rows)
        return found


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def probe(address: str, provider: str = "", name: str = "") -> Job:
    provider = provider or f"p{address}.example"
    return Job(address, provider, ProbeTarget(name or f"mx.{provider}", address, 25, f"mx.{provider}"))


def policy(domain: str, *addresses: str) -> Job:
    return Job(addresses[0], domain, PolicyTarget(domain, addresses))


def far(count: int, first: int = 0) -> list[str]:
    """Addresses in as many networks."""
    return [f"198.41.{number}.1" for number in range(first, first + count)]


# -- visits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["rate_limited", "greylisted", "blocked"])
def test_who_pushes_back_is_visited_again_later(world: World, word: str) -> None:
    """At most two more times, each a connection on record; the last visit counts."""
    gives_in, stays = far(2)
    world.scripts[gives_in] = [word, "completed"]
    world.scripts[stays] = [word]
    world.run([probe(gives_in), probe(stays)])
    assert world.outcomes() == {gives_in: "completed", stays: word}
    assert {row["address"]: row["attempts"] for row in world.tables["sessions"]} == {gives_in: 2, stays: 3}
    assert [str(row["outcome"]) for row in world.tables["attempts"] if row["address"] == stays] == [word] * 3
    assert world.reported == {"completed": 1, word: 1}


@pytest.mark.parametrize("word", ["timeout", "refused", "protocol_error", "closed_early", "tls_failed"])
def test_other_outcomes_are_final(world: World, word: str) -> None:
    """Who does not ask for a pause is not visited again."""
    world.scripts["198.41.0.1"] = [word, "completed"]
    world.run([probe("198.41.0.1")])
    assert world.outcomes() == {"198.41.0.1": word}
    assert len(world.made) == 1


def test_a_visit_is_kept_for_the_time_after_an_interruption(world: World) -> None:
    """What a server said before it is visited again is stored aside; a resumed scan counts on from there."""
    (address,) = far(1)
    world.scripts[address] = ["rate_limited"]
    job = probe(address)
    visit = {**asyncio.run(world.probe(job.payload))[0], "attempts": 2, "pkix": "not_tested"}
    world.made.clear()
    world.run([job], {(job.payload.mx_host, address): visit})
    assert len(world.made) == 1
    assert world.tables["sessions"][0]["attempts"] == 3
    assert [row["attempts"] for row in world.tables[VISITS]] == [3]


def test_a_provider_that_refuses_too_much_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the error window the rest of its servers are not contacted; those that were keep what they said."""
    manners = Manners(
        **{name: getattr(FAST, name) for name in FAST.__slots__ if name not in ("error_minimum", "retries")},
        error_minimum=5,
        retries=0,
    )
    world = World(monkeypatch, manners=manners, concurrency=1)
    bad = [f"198.41.0.{number}" for number in range(30)]
    for address in bad:
        world.scripts[address] = ["blocked"]
    good = far(10, 1)
    jobs = [probe(address, "bad.example", f"mx{address}.bad.example") for address in bad]
    world.run([*jobs, *map(probe, good), policy("x.bad.example", "198.41.0.99")])
    outcomes = world.outcomes()
    assert Counter(outcomes[address] for address in bad) == {"blocked": 5, "not_sampled": 25}
    assert {outcomes[address] for address in good} == {"completed"}
    left = [row for row in world.tables["sessions"] if row["outcome"] == SessionOutcome.NOT_SAMPLED]
    assert all(row["attempts"] == 0 and row["pkix"] == "not_tested" for row in left)
    assert {row["detail"] for row in left} == {"left alone: bad.example pushed back too often"}
    assert world.tables[POLICIES][0]["sts_policy"] is None  # its provider is its own domain


def test_one_that_waits_for_its_next_visit_keeps_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its provider is given up meanwhile, what it said stays on record, not that it was left out."""
    manners = Manners(
        address_spacing=0, provider_spacing=0, prefix_spacing=0, provider_at_once=9, prefix_at_once=9,
        pause=0.05, error_minimum=2, retries=1,
    )  # fmt: skip
    world = World(monkeypatch, manners=manners)
    first, second, third = (f"198.41.0.{number}" for number in range(3))
    world.scripts[first] = world.scripts[second] = ["blocked"]
    world.scripts[third] = [0.07, "greylisted"]
    world.run(
        [probe(address, "bad.example", f"mx{address}.bad.example") for address in (first, second, third)]
    )
    assert world.outcomes() == {first: "blocked", second: "blocked", third: "greylisted"}


def test_a_busy_policy_host_is_asked_again(world: World) -> None:
    """503 and 429 ask for a pause; another status is final."""
    one, two, three = far(3)
    world.policies[one] = [503, 200]
    world.policies[two] = [429]
    world.policies[three] = [404, 200]
    world.run([policy("a.example", one), policy("b.example", two), policy("c.example", three)])
    found = {row["domain"]: row["sts_http_status"] for row in world.tables[POLICIES]}
    assert found == {"a.example": 200, "b.example": 429, "c.example": 404}
    assert Counter(address for _host, address in world.made) == {one: 2, two: 3, three: 1}


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("word", ["connect_failed", "timeout"])
def test_the_second_address_of_a_policy_host(world: World, word: str, own: bool) -> None:
    """It is asked where the first takes no connection, and counts then; also where that is told at the end only."""
    first, second = far(2)
    world.policies[first] = [word]
    job = policy("a.example", first, second)
    job.own = own
    world.run([job])
    (row,) = world.tables[POLICIES]
    assert (row["sts_address"], row["sts_http_status"]) == (second, 200)
    assert [address for _host, address in world.made] == [first, second]


def test_no_more_connections_at_once_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`concurrency` bounds all of them, probes and policies."""
    world = World(monkeypatch, concurrency=7)
    for address in far(40):
        world.scripts[address] = [0.005, "completed"]
    world.run([*map(probe, far(40)), *(policy(f"{n}.example", f"199.9.{n}.1") for n in range(10))])
    assert len(world.made) == 50
    assert world.most_open == 7


def test_a_slow_server_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are done while it is waited for."""
    world = World(monkeypatch, concurrency=3)
    slow, *others = far(60)
    world.scripts[slow] = [lambda: len(world.tables["sessions"]) == len(others), "completed"]
    world.run([probe(address, provider=f"x{address}.example") for address in (slow, *others)])
    assert world.tables["sessions"][-1]["address"] == slow
    assert len(world.outcomes()) == 60


# -- the manners after an interruption -----------------------------------------------------------------------


def test_connections_of_a_moment_ago_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interruption the spacing towards a server, and a provider's pause, still hold."""
    manners = Manners(
        address_spacing=1.0, provider_spacing=0, prefix_spacing=0, pause=1.0, provider_at_once=9
    )
    world = World(monkeypatch, manners=manners)
    spaced, paused, free = far(3)
    now = dt.datetime.now(dt.UTC)
    earlier = [
        {"provider": "a.example", "address": spaced, "outcome": "completed"},
        {"provider": "b.example", "address": "199.9.9.9", "outcome": "rate_limited"},
    ]
    begun = world.contacts()
    begun.remember({**row, "started_at": now, "ended_at": now} for row in earlier)
    asyncio.run(begun.run([probe(spaced, "x.example"), probe(paused, "b.example"), probe(free, "c.example")]))
    waited = {row["address"]: row["started_at"] - now for row in world.tables["attempts"]}
    assert waited[free] < dt.timedelta(seconds=1.0)
    assert waited[spaced] >= dt.timedelta(seconds=1.0)
    assert waited[paused] >= dt.timedelta(seconds=1.0)


# -- in doubt ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["timeout", "refused", "unreachable"])
def test_silence_of_many_in_many_networks_is_ours(world: World, word: str) -> None:
    """Twenty addresses in ten networks that take no connection stop the run; none of them is put on record."""
    for address in far(30):
        world.scripts[address] = [word]
    with pytest.raises(
        ScanStopped, match=r"none of the last \d+ addresses took a connection.* port 25 .*--proxy"
    ):
        world.run(list(map(probe, far(30))))
    assert world.outcomes() == {}
    assert not world.reported
    assert len(world.tables["attempts"]) >= 20  # they were made, and are on record as that


NO_STOPS = [
    ("fewer than twenty", far(19)),
    ("all in a few networks", [f"198.41.{number % 9}.{number}" for number in range(60)]),
]


@pytest.mark.parametrize("addresses", [pytest.param(a, id=why) for why, a in NO_STOPS])
def test_silence_that_may_be_theirs_is_put_on_record(world: World, addresses: list[str]) -> None:
    """Too few, or too near to each other, to speak of this side: at the end they are what they seem."""
    for address in addresses:
        world.scripts[address] = ["timeout"]
    world.run([probe(address, name=f"mx{address}.example") for address in addresses])
    assert world.outcomes() == dict.fromkeys(addresses, "timeout")


def test_a_dead_provider_does_not_fill_the_memory(world: World) -> None:
    """A thousand silent addresses of a few networks are put on record before the end."""
    addresses = [f"198.41.{number % 4}.{number // 4}" for number in range(1020)]
    for address in addresses:
        world.scripts[address] = ["timeout"]
    world.scripts["203.0.113.1"] = [60.0, "completed"]  # the end is far
    begun = world.contacts()

    async def run() -> None:
        jobs = [probe(address, name=f"mx{address}.example") for address in addresses]
        running = asyncio.ensure_future(begun.run([probe("203.0.113.1"), *jobs]))
        while len(world.tables["sessions"]) < 1000:
            await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 30))
    assert set(world.outcomes().values()) == {"timeout"}


def test_an_answer_settles_the_doubts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one in fifteen answers, the silence of the others is theirs, however many they are."""
    world = World(monkeypatch, concurrency=1)
    addresses = far(120)
    for number, address in enumerate(addresses):
        world.scripts[address] = ["completed" if number % 15 == 0 else "timeout"]
    world.run(list(map(probe, addresses)))
    assert Counter(world.outcomes().values()) == {"completed": 8, "timeout": 112}


def test_an_answer_of_our_own_server_settles_nothing(world: World) -> None:
    """One's own network works without a way out."""
    own = [Job(f"10.0.0.{n}", "mine.example", ProbeTarget(f"mx{n}.mine.example", f"10.0.0.{n}", 25, ""), own=True)
           for n in range(30)]  # fmt: skip
    for address in far(30):
        world.scripts[address] = ["timeout"]
    with pytest.raises(ScanStopped, match="none of the last"):
        world.run([*own, *map(probe, far(30))])
    assert not world.outcomes().keys() & set(far(30))


def test_own_servers_are_never_in_doubt(world: World) -> None:
    """Their silence is known to be theirs."""
    jobs = [
        Job(address, "mine.example", ProbeTarget(f"mx.{address}", address, 25, ""), own=True)
        for address in far(40)
    ]
    for address in far(40):
        world.scripts[address] = ["timeout"]
    world.run(jobs)
    assert set(world.outcomes().values()) == {"timeout"}


def test_policy_hosts_that_answer_say_nothing_of_port_25(world: World) -> None:
    """On most laptops and clouds port 443 is open and port 25 is not: the silence is still ours."""
    for address in far(30):
        world.scripts[address] = ["timeout"]
    policies = [policy(f"{number}.example", f"199.9.{number}.1") for number in range(60)]
    with pytest.raises(ScanStopped, match="port 25 is closed on the way out"):
        world.run([job for pair in zip(map(probe, far(30)), policies, strict=False) for job in pair])
    assert world.outcomes() == {}
    assert len(world.tables[POLICIES]) > 5


def test_mail_servers_that_answer_settle_the_silence_of_policy_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Policy hosts that take no connection beside mail servers that do are put on record as that."""
    world = World(monkeypatch, concurrency=1)
    hosts = [f"199.9.{number}.1" for number in range(40)]
    for address in hosts:
        world.policies[address] = ["timeout"]
    jobs = [policy(f"{address}.example", address) for address in hosts]
    world.run([job for pair in zip(jobs, map(probe, far(40)), strict=True) for job in pair])
    assert [row["sts_policy"] for row in world.tables[POLICIES]] == ["timeout"] * 40


# -- trouble of our own --------------------------------------------------------------------------------------


def test_trouble_that_passes_leaves_no_trace(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contact that failed for want of something here is made again, and counts once."""
    monkeypatch.setattr(contacts, "PATIENCE", 1.0)
    world.scripts["198.41.0.1"] = [LocalTrouble(errno.EMFILE, "too many"), "completed"]
    world.run(list(map(probe, far(5))))
    assert set(world.outcomes().values()) == {"completed"}
    assert {row["attempts"] for row in world.tables["sessions"]} == {1}
    assert len(world.tables["attempts"]) == 5


def test_trouble_that_lasts_stops_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what is wrong here; nothing is said of servers."""
    monkeypatch.setattr(contacts, "PATIENCE", 0.3)
    for address in far(5):
        world.scripts[address] = [LocalTrouble(errno.ENETDOWN, "cannot connect from here: network is down")]
    with pytest.raises(ScanStopped, match=r"^cannot connect from here: network is down; mend that, and run"):
        world.run(list(map(probe, far(5))))
    assert not world.tables


def test_too_many_connections_become_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where descriptors are short, fewer connections are made at once; all are made."""
    monkeypatch.setattr(contacts, "PATIENCE", 1.0)
    world = World(monkeypatch, concurrency=40)
    for address in far(40):
        world.scripts[address] = [LocalTrouble(errno.EMFILE, "too many"), 0.02, "completed"]
    began = world.contacts()
    asyncio.run(began.run(list(map(probe, far(40)))))
    assert set(world.outcomes().values()) == {"completed"}
    assert 10 <= began._at_once < 40  # not reduced once for each of those that failed together


@pytest.mark.parametrize("word", ["closed_early", "timeout"])
def test_a_proxy_that_takes_every_connection(
    world: World, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """``ssh -D`` takes each and drops it where it finds nobody: only a server that speaks was reached."""

    async def probe_by_proxy(target: ProbeTarget, **options: Any) -> Any:
        row, chain = await world.probe(target, **options)
        return {**row, "stage": SessionStage.GREETING}, chain

    monkeypatch.setattr(contacts, "probe", probe_by_proxy)
    world.connect = probe_by_proxy  # never called: the probe is a script
    for address in far(30):
        world.scripts[address] = [word]
    with pytest.raises(ScanStopped, match="none of the last"):
        world.run(list(map(probe, far(30))))
    assert world.outcomes() == {}
    world.connect = None
    world.run(list(map(probe, far(30))))
    assert set(world.outcomes().values()) == {word}


def test_a_route_that_is_lost_is_not_the_servers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unreachable while this machine has no route to that family at all: nothing is said of it."""
    monkeypatch.setattr(contacts, "PATIENCE", 0.2)
    monkeypatch.setattr(contacts, "families", lambda *given: (True, False))
    four, six = "198.41.0.1", "2001:503:ba3e::2:30"
    world.scripts[four] = world.scripts[six] = ["unreachable"]
    world.scripts["198.41.1.1"] = ["completed"]
    with pytest.raises(ScanStopped, match="no route to IPv6 addresses any more"):
        world.run([probe(four), probe(six), probe("198.41.1.1")])
    assert six not in world.outcomes()


def test_a_row_that_cannot_be_stored_stops_the_run(world: World) -> None:
    """A full disk is raised as it is, and ends all connections."""

    def full(table: str, row: Mapping[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for address in far(5):
        world.scripts[address] = [0.01, "completed"]
    world.append = full  # type: ignore[method-assign]
    with pytest.raises(OSError, match="No space left"):
        world.run(list(map(probe, far(5))))
    assert world.open.total() == 0
