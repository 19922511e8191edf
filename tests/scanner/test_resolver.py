"""The resolver against a scripted one on loopback, which behaves as badly as the test wants."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtls_analysis.scanner import dns_channels, resolver
from rtls_analysis.scanner.loop import new_loop
from rtls_analysis.scanner.resolver import (
    Resolver,
    ResolverAddress,
    ResolverCheck,
    ResolverProblem,
    parse_server,
    system_server,
)
from rtls_analysis.scanner.smtp_client import LocalTrouble
from rtls_analysis.standards.dns_answer import DnsAnswer, DnsSecurity, DnsStatus
from tests.scanner.relays import some_turns

TRIES = (0.2, 0.2, 0.2)
ADDRESS = "127.0.0.1"


@dataclass
class Query:
    """A question as the scripted server got it."""

    message: dns.message.Message
    wire: bytes
    over_tcp: bool
    client: Any

    @property
    def name(self) -> str:
        return self.message.question[0].name.to_text(omit_final_dot=True)

    @property
    def owner(self) -> str:
        return self.message.question[0].name.to_text()

    @property
    def rdtype(self) -> str:
        return dns.rdatatype.to_text(self.message.question[0].rdtype)

    @property
    def checking_disabled(self) -> bool:
        return bool(self.message.flags & dns.flags.CD)

    def answer(
        self, *lines: str, rcode: int = 0, ad: bool = False, errors: Iterable[tuple[int, str]] = ()
    ) -> dns.message.Message:
        """Make an answer; a line is ``TYPE TEXT`` at the name asked, or ``OWNER TYPE TEXT``."""
        response = dns.message.make_response(self.message, recursion_available=True)
        response.set_rcode(dns.rcode.Rcode(rcode))
        for line in lines:
            words = line.split(" ")
            owner = self.owner if words[0].isupper() else words.pop(0)
            response.answer.append(dns.rrset.from_text(owner, 300, "IN", words[0], " ".join(words[1:])))
        if ad:
            response.flags |= dns.flags.AD
        if errors:
            options = [dns.edns.EDEOption(code, text) for code, text in errors]
            response.use_edns(0, dns.flags.DO, 1232, options=options)
        return response


Reaction = dns.message.Message | bytes | None | list[dns.message.Message | bytes]
Script = Callable[[Query], Reaction]
LIFE = {("localhost", "A"), (".", "NS")}


@dataclass
class Server(asyncio.DatagramProtocol):
    """A name server on loopback that does what a script says; `asked` is what came, repetitions too."""

    script: Script
    asked: list[Query] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    delay: float = 0.0
    close_after: int = 1_000_000  # answers over one connection
    transport: asyncio.DatagramTransport | None = None
    faults: list[Exception] = field(default_factory=list)  # of the script
    conversations: set[asyncio.Task[Any] | None] = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"{ADDRESS}:{self.port}"

    @property
    def questions(self) -> list[tuple[str, str]]:
        return [(query.name, query.rdtype) for query in self.asked]

    def _react(self, wire: bytes, over_tcp: bool, client: Any) -> list[bytes]:
        query = Query(dns.message.from_wire(wire), wire, over_tcp, client)
        self.asked.append(query)
        try:
            reaction = self.script(query)
        except Exception as error:
            self.faults.append(error)
            return []
        made = reaction if isinstance(reaction, list) else [reaction]
        return [
            item.to_wire(max_size=65535) if isinstance(item, dns.message.Message) else item
            for item in made
            if item is not None
        ]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        def send() -> None:
            for wire in self._react(data, False, addr):
                assert self.transport is not None
                self.transport.sendto(wire, addr)

        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, send)
        else:
            send()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.conversations.add(asyncio.current_task())
        done = 0
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while done < self.close_after:
                length = int.from_bytes(await reader.readexactly(2))
                for wire in self._react(await reader.readexactly(length), True, None):
                    writer.write(len(wire).to_bytes(2) + wire)
                    done += 1
                await writer.drain()
        writer.transport.abort()


@contextlib.asynccontextmanager
async def serve(
    script: Script, *, udp: bool = True, tcp: bool = True, tls: ssl.SSLContext | None = None, **more: Any
) -> AsyncIterator[Server]:
    server = Server(script, **more)
    loop = asyncio.get_running_loop()
    for _ in range(50):
        listener = await asyncio.start_server(server.converse, ADDRESS, 0, ssl=tls)
        server.port = listener.sockets[0].getsockname()[1]
        if not tcp:
            listener.close()
        transport: asyncio.BaseTransport | None = None
        try:
            if udp:
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: server, local_addr=(ADDRESS, server.port)
                )
        except OSError:  # somebody has the UDP port
            listener.close()
            continue
        break
    try:
        yield server
    finally:
        listener.close()
        if transport is not None:
            transport.close()
        await some_turns()  # for what was accepted last to be in someone's hands
        for task in server.conversations:
            if task is not None:
                task.cancel()
        await some_turns()  # for transports to close
        if server.faults:
            raise server.faults[0]


@contextlib.asynccontextmanager
async def asking(
    script: Script, *, resolver_options: dict[str, Any] | None = None, **more: Any
) -> AsyncIterator[tuple[Server, Resolver]]:
    async with serve(script, **more) as server:
        options = {"tries": TRIES, **(resolver_options or {})}
        async with Resolver(server.address, **options) as asked:
            yield server, asked


@pytest.fixture(params=["asyncio", "the scanner's own"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine in each loop that the scanner may run in."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else new_loop

    def in_loop(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(work)

    return in_loop


def ask(script: Script, name: str = "x.test", rdtype: str = "A", **more: Any) -> tuple[DnsAnswer, Server]:
    """Ask one question of a script."""

    async def work() -> tuple[DnsAnswer, Server]:
        async with asking(script, **more) as (server, asked):
            return await asked.ask(name, rdtype), server

    return asyncio.run(work())


# -- what an answer amounts to -------------------------------------------------------------------------------

STATUSES = [
    ("records, validated", "noerror", "secure", lambda q: q.answer("A 192.0.2.1", ad=True)),
    ("records, unsigned", "noerror", "insecure", lambda q: q.answer("A 192.0.2.1")),
    ("no such records, validated", "nodata", "secure", lambda q: q.answer(ad=True)),
    ("no such records", "nodata", "insecure", lambda q: q.answer()),
    ("no such name, validated", "nxdomain", "secure", lambda q: q.answer(rcode=3, ad=True)),
    ("no such name", "nxdomain", "insecure", lambda q: q.answer(rcode=3)),
    ("an alias to nothing", "nodata", "insecure", lambda q: q.answer("CNAME y.test.")),
    ("an alias to no name", "nxdomain", "insecure", lambda q: q.answer("CNAME y.test.", rcode=3)),
    ("an alias to itself", "error", "error", lambda q: q.answer("CNAME x.test.")),
    ("SERVFAIL, AD or not", "servfail", "error", lambda q: q.answer(rcode=2, ad=True)),
    ("REFUSED", "refused", "error", lambda q: q.answer(rcode=5)),
    ("NOTIMP", "error", "error", lambda q: q.answer(rcode=4)),
    ("FORMERR", "error", "error", lambda q: q.answer(rcode=1)),
    ("an rcode above fifteen", "error", "error", lambda q: q.answer(rcode=dns.rcode.BADVERS)),
    ("blocked by the resolver", "refused", "error", lambda q: q.answer(rcode=3, errors=[(15, "")])),
    ("forged by the resolver", "refused", "error", lambda q: q.answer("A 192.0.2.1", errors=[(4, "")])),
    ("a stale answer is one", "noerror", "insecure", lambda q: q.answer("A 192.0.2.1", errors=[(3, "")])),
]


@pytest.mark.parametrize(
    ("status", "security", "script"), [pytest.param(*row[1:], id=row[0]) for row in STATUSES]
)
def test_status_and_security(status: str, security: str, script: Script) -> None:
    """Answers, denials and failures are told apart; AD makes the first two secure."""
    answer, _server = ask(script)
    assert (answer.status, answer.security) == (status, security)
    assert answer.failed is (answer.security == "error")
    assert (answer.name, answer.rdtype) == ("x.test", "A")
    assert bool(answer.detail) is answer.failed


@pytest.mark.parametrize(("status", "script"), [pytest.param(row[1], row[3], id=row[0]) for row in STATUSES])
def test_nothing_is_secure_from_a_resolver_that_is_not_trusted(status: str, script: Script) -> None:
    """AD=0 and AD=1 are both `not_tested` then; failures stay failures."""

    async def work() -> DnsAnswer:
        async with asking(script) as (_server, asked):
            asked.trusted = False
            return await asked.ask("x.test", "A")

    answer = asyncio.run(work())
    assert answer.status == status
    assert answer.security == ("error" if answer.failed else "not_tested")


def test_an_answer_tells_all_it_has() -> None:
    """Name in lower case, aliases in order, TTL."""
    answer, server = ask(
        lambda q: q.answer(
            "X.Test. CNAME Y.test.", "y.TEST. CNAME Z.test.", "z.test. MX 10 MX.test.", ad=True
        ),
        name="X.TEST.",
        rdtype="MX",
    )
    assert answer == DnsAnswer(
        "x.test",
        "MX",
        DnsStatus.NOERROR,
        DnsSecurity.SECURE,
        records=("10 MX.test.",),
        canonical="z.test",
        aliases=("x.test", "y.test"),
        ttl=300,
    )
    assert server.questions == [("x.test", "MX")]


def test_the_query_asks_for_ad_and_dnssec() -> None:
    """EDNS with DO and 1232 octets, RD, AD, no CD."""
    _answer, server = ask(lambda q: q.answer())
    (query,) = (query.message for query in server.asked)
    assert query.flags == dns.flags.RD | dns.flags.AD
    assert (query.edns, query.payload, query.ednsflags) == (0, 1232, dns.flags.DO)


@pytest.mark.parametrize("name", ["", "a..b", "bücher.test", "a\\"])
def test_what_is_no_name_is_an_error_and_not_asked(name: str) -> None:
    answer, server = ask(lambda q: q.answer(), name=name)
    assert (answer.status, answer.security) == ("error", "error")
    assert answer.detail.startswith("not a name")
    assert not server.asked


def test_a_name_that_cannot_exist_does_not() -> None:
    """``_25._tcp.`` before a host name of 250 octets is no failure of its DNS."""
    answer, server = ask(lambda q: q.answer(), name="_25._tcp." + "a." * 124 + "b", rdtype="TLSA")
    assert (answer.status, answer.security) == ("nxdomain", "not_tested")
    assert "255" not in answer.detail
    assert "name of" in answer.detail
    assert not server.asked


def test_an_unknown_type_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="no type 'SRV'; there are A, "):
        ask(lambda q: q.answer(), rdtype="SRV")


# -- SERVFAIL ------------------------------------------------------------------------------------------------


def test_an_answer_with_checking_disabled_makes_it_bogus() -> None:
    """SERVFAIL, an answer with CD, SERVFAIL once more."""
    answer, server = ask(lambda q: q.answer("A 192.0.2.1") if q.checking_disabled else q.answer(rcode=2))
    assert (answer.status, answer.security, answer.records) == ("bogus", "error", ())
    assert answer.detail == "SERVFAIL; an answer with checking disabled"
    assert [query.checking_disabled for query in server.asked] == [False, True, False]


def test_a_reason_for_failed_validation_makes_it_bogus() -> None:
    """RFC 8914 codes 6 to 12: nothing more is asked."""
    answer, server = ask(lambda q: q.answer(rcode=2, errors=[(7, "of 2020"), (22, "")]))
    assert answer.status == "bogus"
    assert answer.detail == "SERVFAIL: signature expired (of 2020), no reachable authority"
    assert len(server.asked) == 1


def test_servfail_in_both_ways_is_servfail_with_its_reason() -> None:
    answer, server = ask(lambda q: q.answer(rcode=2, errors=[(22, "at 192.0.2.53")]))
    assert (answer.status, answer.detail) == ("servfail", "SERVFAIL: no reachable authority (at 192.0.2.53)")
    assert [query.checking_disabled for query in server.asked] == [False, True]


def test_a_failure_that_passes_is_none() -> None:
    """A resolver that could not answer the first time, and then can, has not found bogus data."""
    answers = iter([2, 0, 0])
    answer, _server = ask(lambda q: q.answer("A 192.0.2.1", rcode=next(answers), ad=True))
    assert (answer.status, answer.security, answer.records) == ("noerror", "secure", ("192.0.2.1",))


def test_silence_with_checking_disabled_leaves_servfail() -> None:
    answer, _server = ask(lambda q: None if q.checking_disabled else q.answer(rcode=2))
    assert (answer.status, answer.detail) == ("servfail", "SERVFAIL; then no answer")


# -- forgery and garbage -------------------------------------------------------------------------------------


def other_id(wire: bytes) -> bytes:
    return bytes([wire[0] ^ 1]) + wire[1:]


def strangers(query: Query) -> list[dns.message.Message | bytes]:
    """Answers that are none, then the right one."""
    forged = query.answer("A 192.0.2.66", ad=True)
    another = dns.message.make_query("y.test", "A", id=query.message.id)
    return [
        other_id(forged.to_wire()),
        dns.message.make_response(another),
        query.wire,
        b"",
        b"\0",
        query.wire[:11],
        forged.to_wire()[:20],
        query.answer("A 192.0.2.1"),
        forged,
    ]


def test_what_answers_another_question_is_passed_over() -> None:
    """Wrong id, wrong name, a query, a stump: ignored, and the right answer is still waited for."""
    answer, server = ask(strangers)
    assert answer.records == ("192.0.2.1",)
    assert len(server.asked) == 1


def test_a_forged_source_is_not_heard() -> None:
    """The right id and question from another address or port than the resolver's."""

    def script(query: Query) -> Reaction:
        for source in (ADDRESS, "127.0.0.2"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
                forger.bind((source, 0))
                forger.sendto(query.answer("A 192.0.2.66").to_wire(), query.client)
        return query.answer("A 192.0.2.1")

    answer, _server = ask(script)
    assert answer.records == ("192.0.2.1",)


def broken(query: Query) -> bytes:
    return query.answer("A 192.0.2.1").to_wire()[:-20]


def test_a_broken_answer_is_asked_for_again() -> None:
    def script(query: Query) -> Reaction:
        return broken(query) if len(server_holder[0].asked) < 3 else query.answer("A 192.0.2.1")

    server_holder: list[Server] = []

    async def work() -> DnsAnswer:
        async with asking(script) as (server, asked):
            server_holder.append(server)
            return await asked.ask("x.test", "A")

    assert asyncio.run(work()).records == ("192.0.2.1",)


def test_answers_that_stay_broken_are_an_error() -> None:
    answer, server = ask(broken)
    assert (answer.status, answer.security) == ("error", "error")
    assert answer.detail == "unusable answer: a message that breaks off"
    assert len(server.asked) == len(TRIES)


def test_ids_and_ports_are_hard_to_guess() -> None:
    """Questions go out from several ports, with ids in no order."""

    async def work() -> Server:
        async with asking(lambda q: q.answer()) as (server, asked):
            await asyncio.gather(*(asked.ask(f"x{n}.test", "A") for n in range(300)))
            return server

    asked = asyncio.run(work()).asked
    ids = [query.message.id for query in asked]
    assert len(set(ids)) > 280
    assert max(ids) - min(ids) > 50_000
    steps = {(after - before) & 0xFFFF for before, after in itertools.pairwise(ids)}
    assert len(steps) > 250
    assert len({query.client[1] for query in asked}) >= 8


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.binary(max_size=80), st.sampled_from(["A", "AAAA", "CNAME", "MX", "TXT", "TLSA"]), st.booleans())
def test_any_bytes_as_an_answer_end_in_an_answer(tail: bytes, rdtype: str, is_whole: bool) -> None:
    """No bytes from the resolver raise: they are an answer, a denial or a failure."""

    def script(query: Query) -> Reaction:
        if is_whole:
            wire = bytearray(query.answer(*[f"TXT {'a' * 20}"] * (rdtype == "TXT")).to_wire())
            for at, octet in enumerate(tail):
                wire[2 + (at * 7) % (len(wire) - 2)] ^= octet
            return [bytes(wire), query.answer()]
        head = query.wire[:2] + b"\x81\x80\0\1" + tail[:6].ljust(6, b"\1")
        question = query.wire[12 : query.wire.index(b"\0\1\0\0\x29") + 2]
        return [head + question + tail[6:], query.answer()]

    answer, _server = ask(script, rdtype=rdtype)
    assert isinstance(answer.status, DnsStatus)
    assert (answer.security == "error") is answer.failed


# -- TCP -----------------------------------------------------------------------------------------------------


def too_long(query: Query) -> Reaction:
    if query.over_tcp:
        return query.answer("A 192.0.2.1", ad=True)
    response = query.answer()
    response.flags |= dns.flags.TC
    return response


def test_a_truncated_answer_is_had_over_tcp(run: Callable[..., Any]) -> None:
    async def work() -> tuple[list[DnsAnswer], Server]:
        async with asking(too_long) as (server, asked):
            return await asyncio.gather(*(asked.ask(f"x{n}.test", "A") for n in range(50))), server

    answers, server = run(work())
    assert {answer.records for answer in answers} == {("192.0.2.1",)}
    assert {answer.security for answer in answers} == {DnsSecurity.SECURE}
    assert server.connections == 1  # one connection serves all (RFC 7766)


def test_a_truncated_answer_without_tcp_is_an_error() -> None:
    answer, _server = ask(too_long, tcp=False)
    assert answer.status == "error"
    assert answer.detail == "the answer is too long for UDP, and none came over TCP: connection refused"


def test_an_answer_truncated_over_tcp_is_an_error() -> None:
    def script(query: Query) -> Reaction:
        response = query.answer()
        response.flags |= dns.flags.TC
        return response

    answer, _server = ask(script)
    assert (answer.status, answer.detail) == ("error", "the answer is cut short over TCP too")


def test_connections_that_close_are_opened_again(run: Callable[..., Any]) -> None:
    """A server that answers twice a connection, and one after another."""

    async def work() -> tuple[list[DnsAnswer], Server]:
        async with asking(too_long, close_after=2) as (server, asked):
            return await asyncio.gather(*(asked.ask(f"x{n}.test", "A") for n in range(20))), server

    answers, server = run(work())
    assert {answer.records for answer in answers} == {("192.0.2.1",)}
    assert 10 <= server.connections <= 20


def test_garbage_over_tcp_ends(run: Callable[..., Any]) -> None:
    """Lengths without sense, other people's answers, half messages: a reason in bounded time."""

    def script(query: Query) -> Reaction:
        if not query.over_tcp:
            return too_long(query)
        return [b"", b"\0", other_id(query.answer("A 192.0.2.66").to_wire()), query.wire, broken(query)]

    async def work() -> DnsAnswer:
        async with asking(script) as (_server, asked):
            return await asked.ask("x.test", "A")

    answer = run(work())
    assert (answer.status, answer.records) == ("error", ())
    assert "breaks off" in answer.detail or "none came over TCP" in answer.detail


def test_huge_answers_are_read() -> None:
    """64 KiB over TCP; over UDP more than we said we take."""
    texts = [f'TXT "{n:04}{"x" * 200}"' for n in range(280)]
    answer, _server = ask(lambda q: q.answer(*texts) if q.over_tcp else too_long(q), rdtype="TXT")
    assert len(answer.records) == 280
    answer, server = ask(lambda q: q.answer(*texts[:40]), rdtype="TXT")
    assert len(answer.records) == 40
    assert [query.over_tcp for query in server.asked] == [False]


# -- time-outs, and a resolver that is gone ------------------------------------------------------------------


def test_a_lost_packet_is_sent_again_with_the_same_id() -> None:
    """So that a late answer to the first is welcome too."""
    seen: list[Query] = []

    def script(query: Query) -> Reaction:
        seen.append(query)
        return None if len(seen) < 3 else seen[0].answer("A 192.0.2.1")

    answer, server = ask(script)
    assert answer.records == ("192.0.2.1",)
    assert len({(query.message.id, query.client) for query in server.asked}) == 1


def only_life(query: Query) -> Reaction:
    """Silence about everything but what a resolver knows by itself."""
    return query.answer("A 127.0.0.1") if (query.name, query.rdtype) in LIFE else None


def test_silence_about_one_name_is_a_timeout() -> None:
    """The resolver answers something else: the silence is a fact about the domain."""
    answer, server = ask(only_life)
    assert (answer.status, answer.security) == ("timeout", "error")
    assert answer.detail == "no answer within 0.6 s"
    assert server.questions.count(("x.test", "A")) == len(TRIES)


def test_a_vanished_resolver_is_no_fact_about_domains(run: Callable[..., Any]) -> None:
    """Waiting questions raise; when it is back the same resolver goes on."""
    is_there = True

    def script(query: Query) -> Reaction:
        return query.answer("A 192.0.2.1") if is_there else None

    async def work() -> None:
        nonlocal is_there
        async with asking(script) as (_server, asked):
            assert (await asked.ask("x.test", "A")).records
            is_there = False
            waiting = [asked.ask(f"x{n}.test", "A") for n in range(20)]
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {ResolverProblem}
            assert re.match(
                rf"the resolver {asked.server} stopped answering; once it is back", str(outcomes[0])
            )
            assert not await asked.answers()
            assert (await asked.ask("x.test", "A")).records  # what is known stays known
            is_there = True
            assert await asked.answers()
            assert (await asked.ask("x0.test", "A")).status == "noerror"

    run(work())


def test_a_resolver_that_is_not_there_any_more_is_named_with_the_reason(run: Callable[..., Any]) -> None:
    """Nobody listens at its port: refused, as the kernel tells."""

    async def work() -> None:
        async with asking(lambda q: q.answer()) as (server, asked):
            assert server.transport is not None
            server.transport.close()
            await asyncio.sleep(0.05)
            with pytest.raises(ResolverProblem, match=r"stopped answering \(connection refused\)"):
                await asked.ask("x.test", "A")

    run(work())


def test_a_resolver_cut_off_from_the_network_is_no_fact_about_domains() -> None:
    """It answers, but everything new is SERVFAIL: no row is written for that."""
    is_online = True

    def script(query: Query) -> Reaction:
        if (query.name, query.rdtype) in LIFE:
            return query.answer("A 127.0.0.1")
        if not is_online:
            return query.answer(rcode=2)
        return query.answer(rcode=2 if query.name == "broken.test" else 3)

    async def work() -> None:
        nonlocal is_online
        async with asking(script) as (_server, asked):
            await asked.check()
            assert (await asked.ask("broken.test", "A")).status == "servfail"
            is_online = False
            outcomes = await asyncio.gather(
                *(asked.ask(f"x{n}.test", "A") for n in range(20)), return_exceptions=True
            )
            assert {type(outcome) for outcome in outcomes} == {ResolverProblem}
            assert "answers, but reaches nobody" in str(outcomes[0])
            assert not await asked.answers()
            is_online = True
            assert await asked.answers()
            assert (await asked.ask("broken.test", "MX")).status == "servfail"

    asyncio.run(work())


def test_a_resolver_that_never_reached_anybody_is_taken_as_it_is() -> None:
    """In a closed network SERVFAIL says what it says."""

    def script(query: Query) -> Reaction:
        return query.answer() if query.name.endswith("good.test") else query.answer(rcode=2)

    async def work() -> None:
        async with asking(script) as (_server, asked):
            await asked.check(["good.test"])
            for n in range(5):
                assert (await asked.ask(f"x{n}.test", "A")).status == "servfail"

    asyncio.run(work())


@pytest.mark.timeout(30)
def test_silence_costs_each_question_its_tries_and_no_more() -> None:
    """All wait at the same time, and whether the resolver lives is found out for all at once."""

    async def work() -> Server:
        async with asking(only_life) as (server, asked):
            await asyncio.gather(*(asked.ask(f"x{n}.test", "A") for n in range(100)))
            return server

    questions = asyncio.run(work()).questions
    assert sum(name.startswith("x") for name, _rdtype in questions) == 100 * len(TRIES)
    assert len(questions) < 100 * len(TRIES) + 20


# -- sharing -------------------------------------------------------------------------------------------------


def test_a_question_is_asked_once(run: Callable[..., Any]) -> None:
    """In flight and afterwards, in any case of letters; another type is another question."""

    async def work() -> list[tuple[str, str]]:
        async with asking(lambda q: q.answer("A 192.0.2.1"), delay=0.05) as (server, asked):
            names = ["x.test", "X.test", "x.TEST"] * 10
            answers = await asyncio.gather(*(asked.ask(name, "A") for name in names))
            assert len(set(map(id, answers))) == 1
            assert await asked.ask("x.test", "A") is answers[0]
            await asked.ask("x.test", "MX")
            return server.questions

    assert run(work()) == [("x.test", "A"), ("x.test", "MX")]


def test_the_cache_is_bounded_and_drops_the_oldest() -> None:
    async def work() -> list[tuple[str, str]]:
        more = {"resolver_options": {"cache_size": 2}}
        async with asking(lambda q: q.answer(), **more) as (server, asked):
            for name in ("a.test", "b.test", "a.test", "c.test", "a.test", "b.test"):
                await asked.ask(name, "A")
            return server.questions

    assert [name for name, _rdtype in asyncio.run(work())] == ["a.test", "b.test", "c.test", "b.test"]


def test_whoever_asked_first_may_be_cancelled(run: Callable[..., Any]) -> None:
    """The others get their answer all the same."""

    async def work() -> None:
        async with asking(lambda q: q.answer("A 192.0.2.1"), delay=0.1) as (_server, asked):
            first, second, third = (asyncio.ensure_future(asked.ask("x.test", "A")) for _ in range(3))
            await asyncio.sleep(0.02)
            first.cancel()
            second.cancel()
            assert (await third).records == ("192.0.2.1",)
            for task in (first, second):
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert not asked._flights

    run(work())


def test_the_cancellation_of_one_who_waits_is_their_own() -> None:
    async def work() -> None:
        async with asking(lambda q: q.answer("A 192.0.2.1"), delay=0.1) as (server, asked):
            first, second = (asyncio.ensure_future(asked.ask("x.test", "A")) for _ in range(2))
            await asyncio.sleep(0.02)
            second.cancel()
            assert (await first).records == ("192.0.2.1",)
            assert len(server.asked) == 1

    asyncio.run(work())


def test_questions_in_flight_are_bounded() -> None:
    in_flight = most = 0

    async def work() -> None:
        nonlocal in_flight, most

        def script(query: Query) -> Reaction:
            nonlocal in_flight
            in_flight -= 1
            return query.answer()

        class Counting(Server):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                nonlocal in_flight, most
                in_flight += 1
                most = max(most, in_flight)
                super().datagram_received(data, addr)

        server = Counting(script, delay=0.01)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=(ADDRESS, 0))
        port = transport.get_extra_info("sockname")[1]
        async with Resolver(f"{ADDRESS}:{port}", in_flight=7) as asked:
            await asyncio.gather(*(asked.ask(f"x{n}.test", "A") for n in range(100)))
        transport.close()

    asyncio.run(work())
    assert most == 7


def test_thousands_of_questions_lose_none(run: Callable[..., Any]) -> None:
    """A burst is answered without a single repetition."""

    async def work() -> int:
        async with asking(lambda q: q.answer("A 192.0.2.1"), resolver_options={"tries": (5.0,)}) as (
            _,
            asked,
        ):
            answers = await asyncio.gather(*(asked.ask(f"x{n}.test", "A") for n in range(2000)))
            assert {answer.status for answer in answers} == {DnsStatus.NOERROR}
            return asked.sent

    assert run(work()) == 2000


def test_leaving_ends_those_who_wait() -> None:
    """Nobody waits for ever for a resolver that was closed."""

    async def work() -> None:
        async with asking(lambda q: None) as (_server, asked):
            waiting = asyncio.ensure_future(asked.ask("x.test", "A"))
            await asyncio.sleep(0.05)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(work())


# -- our own side --------------------------------------------------------------------------------------------


def test_no_file_left_is_our_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises, and is never a fact about a domain."""

    def no_more(*args: Any, **more: Any) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    async def work() -> None:
        monkeypatch.setattr(dns_channels.socket, "socket", no_more)
        async with Resolver("127.0.0.1:5353"):
            pass

    with pytest.raises(LocalTrouble, match="cannot ask the resolver from here: too many open files"):
        asyncio.run(work())


def test_no_file_left_for_tcp_is_our_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_more(*args: Any, **more: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def work() -> None:
        async with asking(too_long) as (_server, asked):
            monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", no_more)
            await asked.ask("x.test", "A")

    with pytest.raises(LocalTrouble, match="too many open files"):
        asyncio.run(work())


class Full:
    """A socket that sends nothing."""

    error = OSError(errno.ENOBUFS, "No buffer space available")

    def send(self, message: bytes) -> int:
        raise self.error

    def fileno(self) -> int:
        return -1


async def ask_over(replacement: Full) -> DnsAnswer:
    """Ask a question where each socket is replaced."""
    async with asking(only_life) as (_server, asked):
        channel = asked._channel
        assert isinstance(channel, dns_channels.Datagrams)
        held, channel._sockets = channel._sockets, [replacement] * len(channel._sockets)  # type: ignore[list-item]
        try:
            return await asked.ask("x.test", "A")
        finally:
            channel._sockets = held


def test_no_buffer_to_send_from_is_our_trouble() -> None:
    with pytest.raises(LocalTrouble, match="no buffer space available"):
        asyncio.run(ask_over(Full()))


def test_no_route_to_the_resolver_is_no_fact_about_the_domain() -> None:
    """The network went away under a resolver elsewhere."""

    class Unreachable(Full):
        error = OSError(errno.ENETUNREACH, "Network is unreachable")

    with pytest.raises(ResolverProblem, match=r"stopped answering \(network is unreachable\)"):
        asyncio.run(ask_over(Unreachable()))


# -- the check at the start ----------------------------------------------------------------------------------

SIGNED = {".", "ietf.org", "nlnetlabs.nl", "isc.org"}


def world(
    *, ad: set[str] = SIGNED, known: set[str] = SIGNED, broken: int = 2, broken_ad: bool = False
) -> Script:
    """A resolver that knows some of the well-known names, and sets AD for some."""

    def script(query: Query) -> Reaction:
        if query.name == "dnssec-failed.org":
            return query.answer(*["A 192.0.2.1"] * (query.rdtype == "A"), rcode=broken, ad=broken_ad)
        if query.name not in known:
            return query.answer(rcode=3)
        text = {"MX": "10 mx.test.", "NS": "ns.test.", "DNSKEY": "257 3 13 " + "aa" * 16}.get(
            query.rdtype, "a.test. b.test. 1 2 3 4 5"
        )
        return query.answer(f"{query.rdtype} {text}", ad=query.name in ad)

    return script


CHECKS = [
    ("validates", world(), True, r"it validates: AD bit for \. and ietf\.org and nlnetlabs\.nl and isc\.org"),
    ("AD for the root alone, as where the rest is not reached", world(known={"."}), True, "it validates"),
    (
        "no AD",
        world(ad=set()),
        False,
        r"does not validate: no AD bit for ietf\.org and .*; run a validating one",
    ),
    ("no AD for the root of a closed network", world(ad=set(), known={"."}), True, "knows none of the names"),
    ("no AD for the only name known", world(ad=set(), known={"ietf.org"}), False, "no AD bit for ietf.org"),
    ("the broken name is answered", world(broken=0), False, "it answers dnssec-failed.org, which is broken"),
    ("the broken name was repaired", world(broken=0, broken_ad=True), True, "it validates"),
    ("a closed network", world(known=set(), broken=3), True, "knows none of the names .* believed"),
    ("a closed network that fails", lambda q: q.answer(rcode=2), True, "knows none of the names"),
    ("silence about all but our own", only_life, True, "knows none of the names"),
]


@pytest.mark.parametrize(
    ("script", "trusted", "detail"), [pytest.param(*row[1:], id=row[0]) for row in CHECKS]
)
def test_check(script: Script, trusted: bool, detail: str) -> None:
    """AD is believed from loopback unless the check shows that the resolver does not validate."""

    async def work() -> tuple[ResolverCheck, bool]:
        async with asking(script) as (_server, asked):
            return await asked.check(["example.org"]), asked.trusted

    check, is_trusted = asyncio.run(work())
    assert check.trusted is is_trusted is trusted
    assert re.search(detail, check.detail)


def test_a_resolver_elsewhere_is_not_believed_and_the_message_says_what_would_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever it says: the way to it is open to forgery."""
    monkeypatch.setattr(ResolverAddress, "is_private", False)

    async def work() -> tuple[ResolverCheck, DnsAnswer]:
        async with asking(world()) as (_server, asked):
            return await asked.check(), await asked.ask("ietf.org", "MX")

    check, answer = asyncio.run(work())
    assert not check.trusted
    for words in ("could be forged", "unbound", "--resolver 127.0.0.1", "tls://ADDRESS#NAME"):
        assert words in check.detail
    assert (answer.status, answer.security) == ("noerror", "not_tested")


def test_a_closed_network_shows_life_by_the_names_to_scan() -> None:
    def script(query: Query) -> Reaction:
        return query.answer() if query.name == "intra.test" else None

    async def work() -> ResolverCheck:
        async with asking(script) as (_server, asked):
            return await asked.check(["not a name\\", "intra.test"])

    assert asyncio.run(work()).trusted


@pytest.mark.parametrize("is_there", [True, False], ids=["silent", "nobody listens"])
def test_a_resolver_that_does_not_answer_is_a_problem(is_there: bool) -> None:
    async def work() -> None:
        async with asking(lambda q: None, udp=is_there) as (_server, asked):
            await asked.check(["x.test"])

    reason = "" if is_there else r" \(connection refused\)"
    with pytest.raises(
        ResolverProblem, match=rf"the resolver 127\.0\.0\.1:\d+ does not answer{reason}; give one"
    ):
        asyncio.run(work())


def test_a_resolver_that_refuses_everything_is_a_problem() -> None:
    async def work() -> None:
        async with asking(lambda q: q.answer(rcode=5)) as (_server, asked):
            await asked.check(["x.test"])

    with pytest.raises(ResolverProblem, match="refuses to answer us; give one"):
        asyncio.run(work())


# -- DNS over TLS --------------------------------------------------------------------------------------------


def tls_server(credentials: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(credentials.chain, credentials.key)
    return context


@pytest.fixture
def roots(authority: Any, tmp_path: Path) -> Path:
    path = tmp_path / "roots.pem"
    path.write_bytes(authority.root_pem)
    return path


def test_dns_over_tls_is_pipelined_over_one_connection(
    run: Callable[..., Any], authority: Any, roots: Path
) -> None:
    """RFC 7858: verified by name, trusted from anywhere, answers in any order."""
    held: list[Query] = []

    def script(query: Query) -> Reaction:
        """Answer in pairs, the second first."""
        held.append(query)
        if len(held) < 2:
            return None
        pair = [query.answer("A 192.0.2.1", ad=True) for query in reversed(held)]
        held.clear()
        return [*pair]

    async def work() -> tuple[list[DnsAnswer], Server]:
        async with serve(script, udp=False, tls=tls_server(authority.good)) as server:
            where = f"tls://{server.address}#mta-sts.example.org"
            async with Resolver(where, ca_file=roots, tries=(2.0, 2.0)) as asked:
                assert asked.server == where
                return await asyncio.gather(*(asked.ask(f"x{n}.test", "A") for n in range(100))), server

    answers, server = run(work())
    assert {answer.records for answer in answers} == {("192.0.2.1",)}
    assert {answer.security for answer in answers} == {DnsSecurity.SECURE}
    assert server.connections == 1
    assert [query.name for query in server.asked] == [f"x{n}.test" for n in range(100)]


@pytest.mark.parametrize("close_after", [1, 3])
def test_dns_over_tls_connects_again(
    run: Callable[..., Any], authority: Any, roots: Path, close_after: int
) -> None:
    """Servers close when they like; questions left are asked over the next connection."""

    async def work() -> list[DnsAnswer]:
        script: Script = lambda q: q.answer("A 192.0.2.1")  # noqa: E731
        tls = tls_server(authority.good)
        async with (
            serve(script, udp=False, tls=tls, close_after=close_after) as server,
            Resolver(f"tls://{server.address}#mta-sts.example.org", ca_file=roots) as asked,
        ):
            answers = await asyncio.gather(*(asked.ask(f"x{n}.test", "A") for n in range(10)))
            await asyncio.sleep(0.05)
            return [*answers, await asked.ask("later.test", "A")]

    assert {answer.records for answer in run(work())} == {("192.0.2.1",)}


def test_dns_over_tls_that_falls_silent_connects_again(authority: Any, roots: Path) -> None:
    """A connection on which nothing comes any more is given up for a new one."""

    async def work() -> tuple[DnsAnswer, int]:
        def script(query: Query) -> Reaction:
            return query.answer("A 192.0.2.1") if server.connections > 1 else None

        async with (
            serve(script, udp=False, tls=tls_server(authority.good)) as server,
            Resolver(f"tls://{server.address}#mta-sts.example.org", ca_file=roots, tries=TRIES) as asked,
        ):
            return await asked.ask("x.test", "A"), server.connections

    answer, connections = asyncio.run(work())
    assert answer.records == ("192.0.2.1",)
    assert connections == 2


CERTIFICATES = [
    ("a name that it does not bear", "good", "#dns.example.org", True, "Hostname mismatch"),
    ("no name: the address must stand in it", "good", "", True, "IP address mismatch"),
    ("expired", "expired", "#mta-sts.example.org", True, "certificate has expired"),
    ("a root that is not ours", "good", "#mta-sts.example.org", False, "self-signed certificate in"),
]


@pytest.mark.parametrize(
    ("kind", "name", "with_root", "reason"), [pytest.param(*row[1:], id=row[0]) for row in CERTIFICATES]
)
def test_a_certificate_that_does_not_verify_is_a_problem(
    run: Callable[..., Any], authority: Any, roots: Path, kind: str, name: str, with_root: bool, reason: str
) -> None:
    """Opportunistic encryption would leave AD open to forgery: nothing is asked."""

    async def work() -> Server:
        tls = tls_server(getattr(authority, kind))
        async with serve(lambda q: q.answer(), udp=False, tls=tls) as server:
            holder.append(server)
            ca_file = roots if with_root else None
            async with Resolver(f"tls://{server.address}{name}", ca_file=ca_file) as asked:
                await asked.check()
        return server

    holder: list[Server] = []
    with pytest.raises(ResolverProblem, match=f"does not verify: {reason}.*; give its name"):
        run(work())
    assert not holder[0].asked


def test_dns_over_tls_where_nobody_speaks_it(roots: Path) -> None:
    """Plain TCP at the port, or nobody: one line with the reason."""

    async def work(*, tcp: bool) -> None:
        async with (
            serve(lambda q: q.answer(), udp=False, tcp=tcp) as server,
            Resolver(f"tls://{server.address}", ca_file=roots, tries=TRIES) as asked,
        ):
            await asked.check()

    with pytest.raises(ResolverProblem, match=r"does not answer \(connection refused\)"):
        asyncio.run(work(tcp=False))
    with pytest.raises(ResolverProblem, match=r"does not answer \(no connection yet\)"):
        asyncio.run(work(tcp=True))


@pytest.mark.parametrize("content", [None, "no certificates"])
def test_roots_that_cannot_be_read_are_a_problem(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "roots.pem"
    if content is not None:
        path.write_text(content)

    async def work() -> None:
        async with Resolver("tls://127.0.0.1", ca_file=path):
            pass

    with pytest.raises(ResolverProblem, match=r"cannot read the roots .*roots\.pem.*; give a PEM file"):
        asyncio.run(work())


# -- where it is ---------------------------------------------------------------------------------------------

SERVERS = [
    ("127.0.0.1", "127.0.0.1:53", True),
    (" 127.0.0.1:5353 ", "127.0.0.1:5353", True),
    ("127.8.8.8", "127.8.8.8:53", True),
    ("9.9.9.9", "9.9.9.9:53", False),
    ("::1", "[::1]:53", True),
    ("[::1]", "[::1]:53", True),
    ("[::1]:5353", "[::1]:5353", True),
    ("::ffff:127.0.0.1", "127.0.0.1:53", True),
    ("2620:FE::FE", "[2620:fe::fe]:53", False),
    ("fe80::1%eth0", "[fe80::1%eth0]:53", False),
    ("tls://9.9.9.9", "tls://9.9.9.9:853", True),
    ("TLS://9.9.9.9:8853#DNS.quad9.net.", "tls://9.9.9.9:8853#dns.quad9.net", True),
    ("tls://[2620:fe::fe]:853#dns.quad9.net", "tls://[2620:fe::fe]:853#dns.quad9.net", True),
    ("tls://2620:fe::fe", "tls://[2620:fe::fe]:853", True),
]


@pytest.mark.parametrize(("text", "server", "is_private"), SERVERS)
def test_parse_server(text: str, server: str, is_private: bool) -> None:
    """Every form that users write; what prints, parses back."""
    address = parse_server(text)
    assert str(address) == server
    assert parse_server(server) == address
    assert address.is_private is is_private


NO_SERVERS = [
    "",
    "localhost",
    "dns.quad9.net",
    "127.0.0.1:",
    "127.0.0.1:0",
    "127.0.0.1:65536",
    "127.0.0.1:dns",
    "127.0.0.1:٥٣",
    "127.1",
    "127.0.0.1@5353",
    "127.0.0.1#dns.quad9.net",
    "[127.0.0.1]:53",
    "[::1",
    "[::1]5353",
    "[::1]:",
    "tls://",
    "tls://dns.quad9.net",
    "tls://9.9.9.9#",
    "tls://9.9.9.9#a b",
    "tls://9.9.9.9#-x",
    "https://9.9.9.9/dns-query",
    "9.9.9.9,1.1.1.1",
]


@pytest.mark.parametrize("text", NO_SERVERS)
def test_text_that_is_no_resolver_says_what_would_be(text: str) -> None:
    with pytest.raises(ResolverProblem, match=r"not a resolver: .+; ") as caught:
        Resolver(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


RESOLV_CONFS = [
    ("nameserver 192.0.2.53\nnameserver 192.0.2.54\n", "192.0.2.53:53"),
    ("# nameserver 192.0.2.1\n;nameserver 192.0.2.2\nsearch x\n nameserver  ::1 # mine\n", "[::1]:53"),
    ("nameserver\nnameserver dns.test\nnameserver fe80::1%lo\n", "[fe80::1%lo]:53"),
    ("nameserver \xff\xfe\nnameserver 127.0.0.53", "127.0.0.53:53"),
]


@pytest.mark.parametrize(("text", "server"), RESOLV_CONFS)
def test_the_systems_own_resolver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, server: str
) -> None:
    """The first usable name server of resolv.conf."""
    monkeypatch.setattr(resolver, "_RESOLV_CONF", tmp_path / "resolv.conf")
    (tmp_path / "resolv.conf").write_bytes(text.encode("latin-1"))
    assert str(system_server()) == server
    assert Resolver(None).server == server


@pytest.mark.parametrize("text", [None, "", "search test\n", "nameserver dns.test\n"])
def test_no_name_server_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.setattr(resolver, "_RESOLV_CONF", tmp_path / "resolv.conf")
    if text is not None:
        (tmp_path / "resolv.conf").write_text(text)
    with pytest.raises(ResolverProblem, match=r"no name server in .*resolv\.conf; give one with --resolver"):
        Resolver(None)


def test_an_address_without_a_route_is_a_problem() -> None:
    async def work() -> None:
        async with Resolver("[fe80::1%nowhere]:53"):
            pass

    with pytest.raises(ResolverProblem, match="cannot be reached: "):
        asyncio.run(work())
