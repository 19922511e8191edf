"""A share of a scan: lookups and contacts in one event loop, in the process of the scan or in one of its own.

A worker process is ``python -m rtls_analysis.scanner.worker``: it takes messages on standard input and answers on
standard output, pickled, each with its length before it. It ends when its input does, so that it never outlives
the scan that started it. What it finds it writes to journals of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import pickle
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from rtls_analysis.scanner.addresses import AllowedNetworks
from rtls_analysis.scanner.contacts import ASKED_FOR_REST, PATIENCE, Contacts, ScanStopped
from rtls_analysis.scanner.descriptors import raise_limit
from rtls_analysis.scanner.lookups import Lookups
from rtls_analysis.scanner.loop import new_loop
from rtls_analysis.scanner.options import Manners, Options
from rtls_analysis.scanner.politeness import Job, OptOut, Turn
from rtls_analysis.scanner.probe import ProbeTarget
from rtls_analysis.scanner.resolver import Resolver, ResolverProblem
from rtls_analysis.scanner.smtp_client import LocalTrouble
from rtls_analysis.scanner.socks import proxy_connect
from rtls_analysis.scanner.targets import Target
from rtls_analysis.standards.certificates import Roots
from rtls_analysis.storage import Folder
from rtls_analysis.store import LOOKUPS, POLICIES, ROOTS, VISITS, Journals

LOOKUPS_AT_ONCE = 300  # domains or hosts whose questions are on their way; the resolver bounds the questions
PROGRESS_SECONDS = 0.25


def questions_each(count: int) -> int:
    """Give the questions that each of so many workers may have on their way to the same resolver.

    The socket of a resolver on this machine holds 180 or so.
    """
    return max(180 // count, 40)


@dataclass(frozen=True, slots=True)
class Domains:
    """Domains to look up."""

    targets: Sequence[Target]


@dataclass(frozen=True, slots=True)
class Hosts:
    """MX hosts to look up."""

    names: Sequence[str]


@dataclass(frozen=True, slots=True)
class Share:
    """Contacts that one worker makes, and what an earlier run left of them."""

    jobs: Sequence[Job]
    visits: Mapping[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    contacts: Sequence[Mapping[str, Any]] = ()  # of a moment ago, as in `attempts`: the manners count them
    turns: Mapping[str, Turn] = field(default_factory=dict)  # for networks that others contact too


Work = Domains | Hosts | Share

Stored = Callable[[str, Sequence[str] | None], Iterable[dict[str, Any]]]
"""Yields rows of a table by its name: some columns, or all."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What was done since the last word of it, the MX hosts that came to light, and the connections open now."""

    outcomes: Mapping[str, int]
    hosts: Sequence[str] = ()
    in_flight: int = 0


class Worker:
    """Looks up and contacts what it is given, and stores what it finds.

    Parameters
    ----------
    options
        Of the scan.
    journals
        Where rows go.
    resolver
        In this event loop.
    roots
        What PKIX trusts.
    """

    def __init__(self, options: Options, journals: Journals, resolver: Resolver, roots: Roots) -> None:
        self._options = options
        self._journals = journals
        self._resolver = resolver
        self._roots = roots
        self._lookups = Lookups(
            resolver,
            smtp_port=options.smtp_port,
            allowed=AllowedNetworks(options.allow_special),
            opted_out=OptOut(options.opt_out),
            vantage=options.vantage_name,
        )
        self._back: asyncio.Task[None] | None = None
        self._outcomes: Counter[str] = Counter()
        self._hosts: list[str] = []
        self._contacts: Contacts | None = None

    async def do(self, work: Work) -> None:
        """Do all of it; each part is stored when it is done, and all of them can be read when this returns.

        Raises
        ------
        ScanStopped, ResolverProblem, OSError
            It cannot go on from here.
        """
        if isinstance(work, Domains):
            await self._each(work.targets, self._look_up_domain)
        elif isinstance(work, Hosts):
            await self._each(work.names, self._look_up_host)
        else:
            await self._contact(work)
        await asyncio.to_thread(self._journals.flush)

    def progress(self) -> Progress:
        """Tell what was done since the last time."""
        in_flight = self._contacts.in_flight if self._contacts is not None else 0
        progress = Progress(dict(self._outcomes), tuple(self._hosts), in_flight)
        self._outcomes.clear()
        self._hosts.clear()
        return progress

    async def _look_up_domain(self, target: Target) -> None:
        row, host = await self._lookups.domain(target)
        self._journals.append(LOOKUPS, row)
        if host is None:
            self._hosts += (name for _preference, name in row["mx"])
        else:  # second, so that none is there twice: a host that a kill takes away is looked up again
            self._journals.append("hosts", host)
        self._outcomes[row["mx_state"] or "opted_out"] += 1

    async def _look_up_host(self, name: str) -> None:
        row = await self._lookups.host(name)
        self._journals.append("hosts", row)
        self._outcomes[row["mx_state"]] += 1

    async def _each(self, items: Iterable[Any], work: Callable[[Any], Awaitable[None]]) -> None:
        todo = iter(items)

        async def run() -> None:
            for item in todo:
                while True:
                    try:
                        await work(item)
                        break
                    except (ResolverProblem, LocalTrouble) as problem:
                        await self._wait_until_back(problem)

        await all_or_none(run() for _ in range(LOOKUPS_AT_ONCE))

    async def _wait_until_back(self, problem: Exception) -> None:
        """Wait a while for a resolver that stopped answering, all of us together; raise where it does not come back."""
        if self._back is None or self._back.done():
            self._back = asyncio.ensure_future(self._come_back(problem))
        await asyncio.shield(self._back)

    async def _come_back(self, problem: Exception) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while loop.time() < until:
            await asyncio.sleep(1.0)
            with contextlib.suppress(ResolverProblem, LocalTrouble):
                if await self._resolver.answers():
                    return
        raise problem

    async def _contact(self, share: Share) -> None:
        self._contacts = Contacts(
            self._options,
            self._roots,
            self._journals.append,
            connect=proxy_connect(self._options.proxy) if self._options.proxy else None,
            report=lambda outcome: self._outcomes.update((outcome,)),
            turns=share.turns,
        )
        self._contacts.remember(share.contacts)
        await self._contacts.run(share.jobs, share.visits)


def of_late(stored: Stored, manners: Manners) -> list[dict[str, Any]]:
    """Give the connections on record that still count for the manners, in the order of their ends."""
    spacing = max(manners.address_spacing, manners.prefix_spacing, manners.provider_spacing)
    now = dt.datetime.now(dt.UTC)
    spaced = now - dt.timedelta(seconds=spacing)
    paused = now - dt.timedelta(seconds=manners.longest_pause)
    columns = ["address", "provider", "started_at", "ended_at", "outcome"]
    rows = (
        row
        for row in stored("attempts", columns)
        if row["started_at"] > spaced or (row["outcome"] in ASKED_FOR_REST and row["ended_at"] > paused)
    )
    return sorted(rows, key=lambda row: row["ended_at"])


@dataclass(slots=True)
class Held:
    """What is on record of contacts: pairs probed, domains whose policy was fetched, visits that were pushed back."""

    probed: set[tuple[str, str]] = field(default_factory=set)
    fetched: set[str] = field(default_factory=set)
    visits: dict[tuple[str, str], dict[str, Any]] = field(
        default_factory=dict
    )  # the last of each pair not probed


def held_of(stored: Stored, vantage: str | None = None) -> Held:
    """Give what is on record of the contacts made from a vantage, or from all of them."""

    def rows(table: str, names: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        found = stored(table, None if names is None else [*names, "vantage"])
        return (row for row in found if vantage is None or row["vantage"] == vantage)

    held = Held()
    held.fetched.update(row["domain"] for row in rows(POLICIES, ["domain"]))
    held.probed.update((row["mx_host"], row["address"]) for row in rows("sessions", ["mx_host", "address"]))
    for row in rows(VISITS, None):
        pair = row["mx_host"], row["address"]
        if pair not in held.probed and row["attempts"] >= held.visits.get(pair, row)["attempts"]:
            held.visits[pair] = row
    return held


def left_of(work: Work, stored: Stored, manners: Manners, vantage: str | None = None) -> Work:
    """Give what is left of a share of which some is on record: of a domain, host or address nothing is done twice.

    Parameters
    ----------
    work
        A share.
    stored
        Yields the rows of a table that its worker wrote, those of earlier pieces of work too.
    manners
        Of the scan: connections of a moment ago count for them.
    vantage
        Where each target is contacted from each vantage: that of the share.
    """
    if isinstance(work, Domains):
        done = {row["domain"] for row in stored(LOOKUPS, ["domain"])}
        return Domains([target for target in work.targets if target.domain not in done])
    if isinstance(work, Hosts):
        known = {row["mx_host"] for row in stored("hosts", ["mx_host"])}
        return Hosts([name for name in work.names if name not in known])

    held = held_of(stored, vantage)
    jobs = [
        job
        for job in work.jobs
        if (
            (job.payload.mx_host, job.payload.address) not in held.probed
            if isinstance(job.payload, ProbeTarget)
            else job.payload.domain not in held.fetched
        )
    ]
    return Share(
        jobs, {**work.visits, **held.visits}, [*work.contacts, *of_late(stored, manners)], work.turns
    )


async def all_or_none(work: Iterable[Awaitable[None]]) -> None:
    """Run tasks together; the first failure, or a cancellation, ends them all before it is raised."""
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# -- in a process of its own ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The first message to a worker process."""

    options: Options
    folder: Folder
    name: str
    trusted: bool  # whether the resolver's word on DNSSEC is believed
    reaches_out: bool  # whether the resolver is known to resolve new names
    questions: int  # on their way at the same time


@dataclass(frozen=True, slots=True)
class Trouble:
    """The worker cannot go on: the problem, to be raised where the scan is."""

    problem: Exception


class Done:
    """All that was asked for last is done."""


def write_message(stream: IO[bytes], message: Any) -> None:
    """Write a message with its length before it."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    stream.write(len(data).to_bytes(4) + data)
    stream.flush()


class Messages:
    """Takes messages out of bytes as they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take bytes; yields the messages that are whole."""
        self._buffer += data
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[:4])
            if len(self._buffer) < end:
                return
            message = pickle.loads(bytes(self._buffer[4:end]))
            del self._buffer[:end]
            yield message


class _Input(asyncio.Protocol):
    """Standard input of a worker process as a queue of messages; None at its end."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self._reading = Messages()

    def data_received(self, data: bytes) -> None:
        for message in self._reading.feed(data):
            self.messages.put_nowait(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self.messages.put_nowait(None)


async def _serve(answers: IO[bytes]) -> None:
    loop = asyncio.get_running_loop()
    incoming = _Input()
    await loop.connect_read_pipe(lambda: incoming, sys.stdin)
    begin = await incoming.messages.get()
    if begin is None:
        return
    roots = Roots.from_pem(begin.folder.read(ROOTS))
    journals = Journals(begin.folder, begin.name)
    options = begin.options
    async with Resolver(options.resolver, ca_file=options.ca_file, in_flight=begin.questions) as resolver:
        resolver.trusted, resolver.reaches_out = begin.trusted, begin.reaches_out
        worker = Worker(options, journals, resolver, roots)
        try:
            while (work := await incoming.messages.get()) is not None:
                answer = await _do(worker, work, incoming, answers)
                if answer is None:
                    return
                write_message(answers, answer)
        finally:
            journals.close()


async def _do(worker: Worker, work: Work, incoming: _Input, answers: IO[bytes]) -> Done | Trouble | None:
    """Do what was asked for, and say how it goes; None where the scan ends meanwhile."""
    doing = asyncio.ensure_future(worker.do(work))
    ending = asyncio.ensure_future(incoming.messages.get())
    try:
        while not doing.done() and not ending.done():
            await asyncio.wait((doing, ending), timeout=PROGRESS_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            write_message(answers, worker.progress())
        if not doing.done():
            return None
        problem = doing.exception()
        return Done() if problem is None else Trouble(portable(problem))
    finally:
        doing.cancel()
        ending.cancel()
        await asyncio.gather(doing, ending, return_exceptions=True)


def portable(problem: BaseException) -> Exception:
    """Give a problem in a form that another process can raise."""
    if isinstance(problem, (ScanStopped, ResolverProblem, OSError)):
        return problem
    return RuntimeError(f"{type(problem).__name__}: {problem}")


_PR_SET_PDEATHSIG = 1


def _end_with_the_scan() -> None:
    """Ask Linux to end this process at once with the one that started it, lest it write into a scan resumed."""
    import ctypes

    # on other systems the end of its input ends it a little later
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Run a worker process."""
    _end_with_the_scan()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the scan that started it says when to stop
    raise_limit()
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing else may write there
    loop = new_loop()
    try:
        loop.run_until_complete(_serve(answers))
    except BrokenPipeError:  # the scan is gone, and nobody listens
        os.dup2(os.open(os.devnull, os.O_WRONLY), answers.fileno())
    finally:
        loop.close()


if __name__ == "__main__":
    main()
