"""Asking a validating resolver: each question once, many at a time, and what is known of its word on DNSSEC.

The scanner does not validate signatures. It takes the AD bit of a resolver that it may believe (RFC 4035 §4.9.3,
RFC 7672 §2.1.1), asks over UDP, TCP or TLS, and tells apart what a domain does from what the resolver does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import re
import secrets
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rtls_analysis.scanner.dns_channels import Channel, Datagrams, Pending, Stream
from rtls_analysis.scanner.dns_message import (
    DNSSEC_FAILURES,
    NOERROR,
    NXDOMAIN,
    POLICY_ERRORS,
    RDTYPES,
    REFUSED,
    SERVFAIL,
    BadName,
    Malformed,
    NameTooLong,
    Question,
    Reply,
    make_question,
    read_reply,
)
from rtls_analysis.scanner.smtp_client import LocalTrouble
from rtls_analysis.standards.dns_answer import DnsAnswer, DnsSecurity, DnsStatus

TRIES = (1.5, 2.5, 4.0)
"""Seconds that each try of a question may take."""

_SOCKETS = 16
_IN_FLIGHT = 180  # as many as the usual socket of a resolver (208 KiB) holds, should they come all at once
_CACHE = (
    20_000  # answers; the scan keeps what it found, so that only names shared by many are asked for again
)
_SWEEP_SECONDS = 0.05
_LONG_QUEUE = 2000
_CHECK_SECONDS = 5.0

_RESOLV_CONF = Path("/etc/resolv.conf")
_FORMS = "ADDR, ADDR:PORT, [IPv6]:PORT or tls://ADDR[:PORT][#NAME]"
_SIGNED = ((".", "SOA"), ("ietf.org", "MX"), ("nlnetlabs.nl", "MX"), ("isc.org", "MX"))
_BROKEN = (("dnssec-failed.org", "A"), ("dnssec-failed.org", "SOA"))
_LATEST = 64  # outcomes
_MANY_FAIL = (
    0.2  # of the latest outcomes: then perhaps nobody is reached, and what is answered was remembered
)
_LIFE_SIGNS = (("localhost", "A"), (".", "NS"))  # a resolver answers these by itself


class ResolverProblem(Exception):
    """A resolver that cannot be used: one line that says what came and what would do.

    Where it ended a scan, `snapshot` holds what was done until then.
    """

    snapshot: Any = None


class _Silence(Exception):
    """Nothing came within the time for all tries; the last was sent at `sent_at`."""

    def __init__(self, sent_at: float) -> None:
        super().__init__("no answer")
        self.sent_at = sent_at


class _Unreadable(Exception):
    """What came could not be read, each time."""


# -- where it is ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ResolverAddress:
    """Where a resolver is: its text parses back. `name` is the one its certificate must bear, over TLS only."""

    host: str
    port: int
    tls: bool = False
    name: str = ""

    def __str__(self) -> str:
        where = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        if not self.tls:
            return where
        return f"tls://{where}#{self.name}" if self.name else f"tls://{where}"

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can forge its answers: it is on this machine, or speaks TLS."""
        return self.tls or ipaddress.ip_address(self.host).is_loopback


def parse_server(text: str) -> ResolverAddress:
    """Parse a resolver as users write it: ``ADDR``, ``ADDR:PORT``, ``[IPv6]:PORT``, ``tls://ADDR[:PORT][#NAME]``.

    >>> str(parse_server("::1")), str(parse_server("tls://9.9.9.9#dns.quad9.net"))
    ('[::1]:53', 'tls://9.9.9.9:853#dns.quad9.net')

    Raises
    ------
    ResolverProblem
    """
    where = text.strip()
    tls = where.lower().startswith("tls://")
    where, sign, name = (where[6:] if tls else where).partition("#")
    if sign and not tls:
        raise ResolverProblem(f"not a resolver: {text!r}; a name goes with tls:// only")
    if sign and not re.fullmatch(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", name):
        raise ResolverProblem(f"not a resolver: {text!r}; the name after # is that of its certificate")
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", where)
    if bracketed:
        host, port = bracketed.groups()
    elif where.count(":") > 1:
        host, port = where, None
    else:
        host, sign, port_text = where.partition(":")
        port = port_text if sign else None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ResolverProblem(f"not a resolver: {text!r}; give an address: {_FORMS}") from None
    if bracketed and address.version == 4:
        raise ResolverProblem(f"not a resolver: {text!r}; brackets are for IPv6: {_FORMS}")
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    number = 853 if tls else 53
    if port is not None:
        number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
        if not 1 <= number <= 65535:
            raise ResolverProblem(f"not a resolver: {text!r}; a port is a number from 1 to 65535")
    return ResolverAddress(str(address), number, tls, name.rstrip(".").lower())


def system_server() -> ResolverAddress:
    """Give the first usable name server of ``/etc/resolv.conf``.

    Raises
    ------
    ResolverProblem
        There is none.
    """
    text = ""
    with contextlib.suppress(OSError):
        text = _RESOLV_CONF.read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                return ResolverAddress(str(ipaddress.ip_address(words[1])), 53)
    raise ResolverProblem(f"no name server in {_RESOLV_CONF}; give one with --resolver: {_FORMS}")


# -- asking --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ResolverCheck:
    """Whether the resolver's AD bit is believed, and why."""

    trusted: bool
    detail: str


class Resolver:
    """Asks one resolver, many questions at once; used with ``async with``, in one event loop.

    Parameters
    ----------
    server
        As `parse_server` reads it; None for the system's own.
    ca_file
        PEM file of roots for DNS over TLS, in place of the built-in ones.
    tries
        Seconds for each try of a question: their sum bounds a question.
    in_flight
        Questions on their way at the same time; the others wait.
    cache_size
        Answers that are kept: those not asked for longest go first.

    Attributes
    ----------
    server : str
        The resolver in text form.
    trusted : bool
        Whether its AD bit is believed; `check` may find that it is not.
    reaches_out : bool
        Whether it is known to resolve names that nobody can have told it before, as `check` found: then failures
        of everything show that it is cut off. Like `trusted`, to be handed on to a worker that does not check.
    sent : int
        Queries that were sent, repetitions among them.

    Raises
    ------
    ResolverProblem
        `server` is none, or there is none.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        ca_file: str | os.PathLike[str] | None = None,
        tries: Sequence[float] = TRIES,
        in_flight: int = _IN_FLIGHT,
        cache_size: int = _CACHE,
    ) -> None:
        self._address = parse_server(server) if server is not None else system_server()
        self.server = str(self._address)
        self.trusted = self._address.is_private
        self.reaches_out = False
        self.sent = 0
        self._ca_file = ca_file
        self._tries = tuple(tries)
        self._slots = asyncio.Semaphore(in_flight)
        self._cache: dict[tuple[str, str], DnsAnswer] = {}
        self._cache_size = cache_size
        self._flights: dict[tuple[str, str], asyncio.Future[DnsAnswer]] = {}
        self._queues: tuple[deque[Pending], ...] = tuple(deque() for _ in self._tries)
        self._sweeping: asyncio.TimerHandle | None = None
        self._heard_at = float("-inf")
        self._well_at = float("-inf")  # an answer or a denial
        self._failing = 0.0  # moving average: the share of failures among the latest outcomes
        self._reached_at = float("-inf")
        self._testing: asyncio.Task[str] | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        at = self._address
        if at.tls:
            self._channel: Channel = Stream(
                at.host,
                at.port,
                self._deliver,
                context=_tls_context(self._ca_file),
                name=at.name or at.host,
                failed=self._not_the_one,
            )
            self._fallback = self._channel
            return self
        try:
            found = socket.getaddrinfo(at.host, at.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
            self._channel = Datagrams(found[0][0], found[0][4], self._deliver, sockets=_SOCKETS)
        except LocalTrouble:
            raise
        except OSError as error:
            raise self._problem(f"cannot be reached: {error.strerror}") from None
        self._fallback = Stream(at.host, at.port, self._deliver)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._testing is not None:
            self._testing.cancel()
        self._channel.close()
        self._fallback.close()
        for pending in chain.from_iterable(self._queues):
            pending.future.cancel()

    def _problem(self, what: str) -> ResolverProblem:
        return ResolverProblem(
            f"the resolver {self.server} {what}; give one that answers here, with --resolver: {_FORMS}"
        )

    def _not_the_one(self, error: ssl.SSLCertVerificationError) -> ResolverProblem:
        return ResolverProblem(
            f"the certificate of the resolver {self.server} does not verify: {error.verify_message}; "
            "give its name (tls://ADDRESS#NAME), or the root it was issued under with --ca-file"
        )

    async def ask(self, name: str, rdtype: str) -> DnsAnswer:
        r"""Ask for the records of a type at a name; each question once per run, as long as the cache lasts.

        Parameters
        ----------
        name
            A-labels, in any case; the final dot and escapes (``\DDD``) may be there.
        rdtype
            ``A`` ``AAAA`` ``CNAME`` ``MX`` ``PTR`` ``TXT`` ``TLSA``.

        Returns
        -------
        DnsAnswer
            Whatever the domain does is in it. A name of more than 255 octets does not exist (`NXDOMAIN`, nothing
            asked); other text that is no name is an `ERROR`.

        Raises
        ------
        ResolverProblem
            The resolver stopped answering: nothing is known of the domain. Once it is back, ask again.
        LocalTrouble
            Our own side could not ask.
        """
        key = (name.lower(), rdtype)
        while True:
            if (answer := self._cache.pop(key, None)) is not None:
                self._cache[key] = answer  # now the youngest
                return answer
            if (flight := self._flights.get(key)) is None:
                return await self._lead(key)
            try:
                return await asyncio.shield(flight)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not flight.cancelled() or (task is not None and task.cancelling()):
                    raise
                # only the one who asked was cancelled: somebody else asks

    async def _lead(self, key: tuple[str, str]) -> DnsAnswer:
        flight = self._flights[key] = self._loop.create_future()
        try:
            answer = await self._find_out(*key)
        except asyncio.CancelledError:
            flight.cancel()
            raise
        except BaseException as error:
            flight.set_exception(error)
            flight.exception()  # perhaps nobody else waits: then it is not "never retrieved"
            raise
        else:
            flight.set_result(answer)
            self._cache[key] = answer
            while len(self._cache) > self._cache_size:
                del self._cache[next(iter(self._cache))]
            return answer
        finally:
            del self._flights[key]

    # -- from a reply to an answer ---------------------------------------------------------------------------

    async def _find_out(self, name: str, rdtype: str) -> DnsAnswer:
        if rdtype not in RDTYPES:
            raise ValueError(f"no type {rdtype!r}; there are {', '.join(RDTYPES)}")
        try:
            question = make_question(name, rdtype)
        except NameTooLong as problem:
            return DnsAnswer(
                name, rdtype, DnsStatus.NXDOMAIN, DnsSecurity.NOT_TESTED, detail=f"no such name: {problem}"
            )
        except BadName as problem:
            return _failure(name, rdtype, DnsStatus.ERROR, f"not a name: {problem}")
        asked_at = self._loop.time()
        try:
            reply = await self._reply(question)
            if reply.rcode == SERVFAIL:
                answer = await self._explain(question, reply)
                if answer.status is DnsStatus.SERVFAIL:
                    await self._make_sure(asked_at, asked_at)
                return answer
        except _Silence as silence:
            await self._make_sure(asked_at, silence.sent_at)
            seconds = sum(self._tries)
            return _failure(question.name, rdtype, DnsStatus.TIMEOUT, f"no answer within {seconds:g} s")
        except _Unreadable as problem:
            return _failure(question.name, rdtype, DnsStatus.ERROR, str(problem))
        return self._answer(question, reply)

    def _answer(self, question: Question, reply: Reply) -> DnsAnswer:
        name, rdtype = question.name, question.rdtype
        if not POLICY_ERRORS.isdisjoint(reply.errors):  # a denial or an address that is not the domain's word
            detail = f"{reply.rcode_text}, by the resolver's own policy: {reply.error_text}"
            return _failure(name, rdtype, DnsStatus.REFUSED, detail)
        if reply.rcode == NOERROR:
            status = DnsStatus.NOERROR if reply.records else DnsStatus.NODATA
        elif reply.rcode == NXDOMAIN:
            status = DnsStatus.NXDOMAIN
        else:
            detail = f"{reply.rcode_text}: {reply.error_text}" if reply.error_text else reply.rcode_text
            refused = reply.rcode == REFUSED
            return _failure(name, rdtype, DnsStatus.REFUSED if refused else DnsStatus.ERROR, detail)
        if not self.trusted:
            security = DnsSecurity.NOT_TESTED
        else:
            security = DnsSecurity.SECURE if reply.authentic else DnsSecurity.INSECURE
        return DnsAnswer(
            name, rdtype, status, security, reply.records, reply.canonical, reply.aliases, reply.ttl
        )

    async def _explain(self, question: Question, reply: Reply) -> DnsAnswer:
        """Tell a SERVFAIL for want of a valid signature from one for want of an answer.

        An answer with checking disabled shows that validation failed, unless the first failure was a passing one:
        the question is put once more.
        """
        name, rdtype = question.name, question.rdtype
        detail = f"SERVFAIL: {reply.error_text}" if reply.error_text else "SERVFAIL"
        if not DNSSEC_FAILURES.isdisjoint(reply.errors):
            return _failure(name, rdtype, DnsStatus.BOGUS, detail)
        try:
            unchecked = await self._reply(question, checking_disabled=True)
            if unchecked.rcode not in (NOERROR, NXDOMAIN):
                return _failure(name, rdtype, DnsStatus.SERVFAIL, detail)
            again = await self._reply(question)
        except (_Silence, _Unreadable) as problem:
            return _failure(name, rdtype, DnsStatus.SERVFAIL, f"{detail}; then {problem}")
        if again.rcode != SERVFAIL:
            return self._answer(question, again)
        return _failure(name, rdtype, DnsStatus.BOGUS, f"{detail}; an answer with checking disabled")

    async def _reply(self, question: Question, *, checking_disabled: bool = False) -> Reply:
        packet = question.query(checking_disabled=checking_disabled)
        async with self._slots:
            reply = await self._exchange(question, packet, self._channel)
            if not reply.truncated:
                return reply
            try:
                reply = await self._exchange(question, packet, self._fallback)
            except _Silence:
                fault = f": {self._fallback.fault}" if self._fallback.fault else ""
                raise _Unreadable(f"the answer is too long for UDP, and none came over TCP{fault}") from None
        if reply.truncated:
            raise _Unreadable("the answer is cut short over TCP too")
        return reply

    # -- one question and its tries --------------------------------------------------------------------------

    async def _exchange(self, question: Question, packet: bytes, channel: Channel) -> Reply:
        pending = Pending(question, packet, channel, self._loop.create_future())
        try:
            self._try(pending)
            return await pending.future
        finally:
            channel.forget(pending)

    def _try(self, pending: Pending) -> None:
        """Send a question, or give it up when all tries are spent."""
        now = self._loop.time()
        if pending.tries == len(self._tries):
            if not pending.future.done():
                self._count(failed=True)
                error = _Unreadable(pending.fault) if pending.fault else _Silence(pending.sent_at)
                pending.future.set_exception(error)
            return
        pending.channel.send(pending)
        self.sent += 1
        pending.sent_at = now
        pending.deadline = now + self._tries[pending.tries]
        # each queue is in order by itself, for its tries all take the same time
        self._queues[pending.tries].append(pending)
        pending.tries += 1
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Try again whatever has waited long enough: one timer for all questions."""
        self._sweeping = None
        now = self._loop.time()
        for tries, queue in enumerate(self._queues, start=1):
            if len(queue) > _LONG_QUEUE:  # most of it answered long since, behind one that is not
                waiting = [pending for pending in queue if not pending.future.done()]
                queue.clear()
                queue.extend(waiting)
            while queue and (
                (pending := queue[0]).future.done() or pending.tries != tries or pending.deadline <= now
            ):
                queue.popleft()
                if not pending.future.done() and pending.tries == tries:
                    self._try(pending)
        if self._sweeping is None and any(self._queues):
            self._sweeping = self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _deliver(self, pending: Pending, wire: bytes) -> None:
        self._heard_at = self._loop.time()
        if pending.future.done():
            return
        try:
            reply = read_reply(wire, pending.question)
        except Malformed as problem:
            pending.fault = f"unusable answer: {problem}"
            self._try(pending)
            return
        pending.fault = ""
        pending.future.set_result(reply)
        if reply.rcode in (NOERROR, NXDOMAIN):
            self._well_at = self._heard_at
            self._count(failed=False)
        elif reply.rcode == SERVFAIL:
            self._count(failed=True)

    def _count(self, *, failed: bool) -> None:
        self._failing += (failed - self._failing) / _LATEST

    # -- the resolver itself ---------------------------------------------------------------------------------

    async def _make_sure(self, asked_at: float, sent_at: float) -> None:
        """Raise where a failure is the resolver's own, not that of those whom it asks.

        A question failed that was `asked_at`, and `sent_at` for the last time. As long as others fared well
        meanwhile, nothing needs to be done.
        """
        is_silent = self._heard_at < sent_at
        well_at = self._reached_at if self._failing > _MANY_FAIL else self._well_at
        if not is_silent and (well_at >= asked_at or not self.reaches_out):
            return
        if self._testing is None:
            self._testing = self._loop.create_task(self._what_is_wrong())
            self._testing.add_done_callback(self._forget_testing)
        if wrong := await asyncio.shield(self._testing):
            raise ResolverProblem(
                f"the resolver {self.server} {wrong}; once it is back, or with another by --resolver, run the "
                "same scan again: what was done is kept"
            )

    def _forget_testing(self, task: asyncio.Task[str]) -> None:
        self._testing = None
        if not task.cancelled():
            task.exception()  # perhaps nobody waits any more

    async def _what_is_wrong(self) -> str:
        """Say what is wrong with the resolver now; empty where it works."""
        seconds = sum(self._tries)
        if not await self._gather(_LIFE_SIGNS, seconds, enough=1):
            return "stopped answering" + self._way_fault()
        if self.reaches_out:
            replies = await self._gather(_news(), seconds)
            if not any(reply.rcode in (NOERROR, NXDOMAIN) for reply in replies.values()):
                return "answers, but reaches nobody: is this machine off the network?"
            self._reached_at = self._loop.time()
        return ""

    def _way_fault(self) -> str:
        return f" ({self._channel.fault})" if self._channel.fault else ""

    async def answers(self) -> bool:
        """Whether the resolver works now, whatever domains do: it answers, and reaches others if it ever did.

        After `ask` raised `ResolverProblem`, this tells whether to go on.
        """
        return not await self._what_is_wrong()

    async def check(self, domains: Iterable[str] = ()) -> ResolverCheck:
        """Find out whether the resolver's AD bit may be believed (RFC 7672 §2.1.1), before anything depends on it.

        Well-known signed names must have AD, and one that is broken on purpose must not be answered; where none of
        them is known, as in a closed network, nothing speaks against it. From a resolver that is neither on this
        machine nor reached over TLS, AD is not believed whatever it says.

        Parameters
        ----------
        domains
            A few names that it ought to know, so that a closed network shows a sign of life.

        Raises
        ------
        ResolverProblem
            It does not answer, or refuses everything.
        """
        news = _news()
        own = [(domain, "MX") for domain in domains]
        replies = await self._gather([*_SIGNED, *_BROKEN, *_LIFE_SIGNS, *news, *own], _CHECK_SECONDS)
        if not replies:
            raise self._problem(f"does not answer{self._way_fault()}")
        if all(reply.rcode == REFUSED for reply in replies.values()):
            raise self._problem("refuses to answer us")
        self.reaches_out = any(replies[key].rcode in (NOERROR, NXDOMAIN) for key in news if key in replies)
        check = self._judge(replies)
        self.trusted = check.trusted
        return check

    def _judge(self, replies: dict[tuple[str, str], Reply]) -> ResolverCheck:
        answered = {key: reply for key, reply in replies.items() if reply.rcode == NOERROR and reply.records}
        signed = [key for key in _SIGNED if key in answered]
        with_ad = [key for key in signed if answered[key].authentic]
        broken = [key for key in _BROKEN if key in answered and not answered[key].authentic]
        without_ad = {name for name, _rdtype in signed} - {"."}  # a closed network may have a root of its own
        would_do = "run a validating one, such as unbound, on this machine and give --resolver 127.0.0.1"
        if not self._address.is_private:
            return ResolverCheck(
                False,
                f"what the resolver {self.server} says of DNSSEC could be forged on the way here; {would_do}, "
                "or reach one over TLS: --resolver tls://ADDRESS#NAME",
            )
        if without_ad and not with_ad:
            names = " and ".join(sorted(without_ad))
            return ResolverCheck(
                False, f"the resolver {self.server} does not validate: no AD bit for {names}; {would_do}"
            )
        if broken:
            return ResolverCheck(
                False,
                f"the resolver {self.server} does not validate: it answers {broken[0][0]}, which is broken on "
                f"purpose; {would_do}",
            )
        if with_ad:
            names = " and ".join(name for name, _rdtype in with_ad)
            return ResolverCheck(True, f"it validates: AD bit for {names}")
        return ResolverCheck(
            True, "it knows none of the names that would show whether it validates; believed for where it is"
        )

    async def _gather(
        self, asked: Iterable[tuple[str, str]], seconds: float, *, enough: int | None = None
    ) -> dict[tuple[str, str], Reply]:
        """Put questions aside from the ordinary ones: the replies that came in time, or the first `enough`."""
        tasks: dict[asyncio.Task[Reply], tuple[str, str]] = {}
        for key in asked:
            with contextlib.suppress(BadName):
                question = make_question(*key)
                work = self._exchange(question, question.query(), self._channel)
                tasks[self._loop.create_task(work)] = key
        replies: dict[tuple[str, str], Reply] = {}
        ends = time.monotonic() + seconds
        left = set(tasks)
        try:
            while left and (enough is None or len(replies) < enough):
                done, left = await asyncio.wait(
                    left, timeout=max(ends - time.monotonic(), 0), return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                for task in done:
                    with contextlib.suppress(_Silence, _Unreadable):
                        replies[tasks[task]] = task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return replies


def _news() -> list[tuple[str, str]]:
    """Make questions that nobody can have asked before: only who reaches the name servers can answer them."""
    return [(f"{secrets.token_hex(8)}.{zone}", "A") for zone in ("com", "net")]


def _failure(name: str, rdtype: str, status: DnsStatus, detail: str) -> DnsAnswer:
    return DnsAnswer(name, rdtype, status, DnsSecurity.ERROR, detail=detail)


def _tls_context(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext:
    """Make the context of DNS over TLS: a verified certificate, whatever the profile (RFC 8310 §8.1)."""
    import certifi

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(certifi.where() if ca_file is None else ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ResolverProblem(
            f"cannot read the roots for DNS over TLS from {ca_file}: {error.strerror}; give a PEM file"
        ) from None
    return context
