from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rtls_analysis.scanner.smtp_client import Limits, LocalTrouble, connect_failure, run_session
from rtls_analysis.scanner.tls import TlsFacts, lax_context
from rtls_analysis.standards.smtp_session import SessionOutcome, SessionRecord
from tests.ports import hold_port

try:
    import uvloop
except ImportError:  # an optional dependency
    LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.SelectorEventLoop]
else:
    LOOPS = [asyncio.SelectorEventLoop, uvloop.new_event_loop]

CONTEXT = lax_context()
LIMITS = Limits(
    connect=60.0, greeting=60.0, reply=60.0, handshake=60.0, plaintext=0.2, quit=60.0, session=60.0
)
"""More than anybody needs who answers at all, on the slowest machine."""

SHORT = {
    "greeting": {"greeting": 0.4},
    "ehlo": {"reply": 0.4},
    "starttls": {"reply": 0.4},
    "handshake": {"handshake": 0.4},
    "ehlo_tls": {"reply": 0.4},
    "quit": {"quit": 0.3},
}
"""By the stage in which a server is silent, the limit that shall end it; the others are to be out of the way."""

SILENT_SECONDS = 20.0
EHLO_PLAIN = b"250-mx.example.org greets you\r\n250-SIZE 1000\r\n250 STARTTLS\r\n"
EHLO_TLS = b"250-mx.example.org\r\n250-SIZE 1000\r\n250 REQUIRETLS\r\n"


class Peer:
    """The server's end of one connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
    ) -> None:
        self.reader, self.writer, self.context = reader, writer, context
        self.tls: ssl.SSLObject | None = None
        self.lines: list[bytes] = []
        self.ending = "stall"
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        if self.tls is not None:
            self.tls.write(data)
            data = self.outside.read()
        self.writer.write(data)
        await self.writer.drain()

    async def drip(self, data: bytes, pause: float = 0.03) -> None:
        for byte in data:
            await self.send(bytes([byte]))
            await asyncio.sleep(pause)

    async def line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            if self.tls is None:
                data = await self.reader.read(4096)
                if not data:
                    raise EOFError
                self._buffer += data
                continue
            try:
                self._buffer += self.tls.read(4096)
            except ssl.SSLWantReadError:
                data = await self.reader.read(4096)
                if not data:
                    raise EOFError from None
                self.inside.write(data)
        line, self._buffer = self._buffer.split(b"\r\n", 1)
        self.lines.append(line)
        return line

    async def begin(self) -> None:
        """Go on until STARTTLS was answered with 220."""
        await self.send(b"220 mx.example.org ESMTP\r\n")
        await self.line()
        await self.send(EHLO_PLAIN)
        await self.line()
        await self.send(b"220 go\r\n")

    async def first_flight(self) -> bytes:
        self.inside, self.outside = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.waiting = self.context.wrap_bio(self.inside, self.outside, server_side=True)
        while True:
            try:
                self.waiting.do_handshake()
            except ssl.SSLWantReadError:
                if self.outside.pending:
                    return self.outside.read()
                self.inside.write(await self.reader.read(4096))

    async def shake_hands(self, before: bytes = b"") -> None:
        self.writer.write(before + await self.first_flight())
        while True:
            try:
                self.waiting.do_handshake()
                break
            except ssl.SSLWantReadError:
                if not (data := await self.reader.read(4096)):
                    raise EOFError from None
                self.inside.write(data)
        self.writer.write(self.outside.read())
        self.tls = self.waiting

    async def serve_tls(self) -> None:
        """Answer EHLO and QUIT inside TLS."""
        await self.line()
        await self.send(EHLO_TLS)
        await self.line()
        await self.send(b"221 bye\r\n")

    async def stop(self) -> None:
        """Do no more: fall silent, close or reset, as the test wants it."""
        if self.ending == "stall":
            await asyncio.sleep(SILENT_SECONDS)
        if self.ending == "reset":
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()
        raise EOFError


Script = Callable[[Peer], Awaitable[None]]
Result = tuple[SessionRecord, TlsFacts | None, list[bytes], float]


@pytest.fixture(params=LOOPS, ids=lambda factory: "uvloop" if "uvloop" in factory.__module__ else "stdlib")
def converse(request: pytest.FixtureRequest, authority: Any) -> Callable[..., Result]:
    """Run a probe against a script: gives the record, the TLS facts, the lines that came, the seconds it took."""

    def run(
        script: Script,
        *,
        ending: str = "stall",
        chain: Path | None = None,
        ask_certificate: bool = False,
        host: str = "127.0.0.1",
        limits: Limits = LIMITS,
        **options: Any,
    ) -> Result:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain or authority.good.chain, authority.good.key)
        if ask_certificate:
            context.load_verify_locations(authority.good.chain)
            context.verify_mode = ssl.CERT_REQUIRED
        lines: list[bytes] = []

        async def main() -> Result:
            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                peer = Peer(reader, writer, context)
                peer.lines = lines
                peer.ending = ending
                try:
                    await script(peer)
                    while await reader.read(4096):
                        pass
                except (OSError, EOFError, asyncio.CancelledError):
                    pass
                finally:
                    writer.transport.abort()

            server = await asyncio.start_server(handle, host, 0)
            port = server.sockets[0].getsockname()[1]
            begin = time.monotonic()
            try:
                record, facts = await run_session(
                    host,
                    port,
                    "mx.example.org",
                    ehlo_name="probe.example.net",
                    context=CONTEXT,
                    limits=limits,
                    **options,
                )
                took = time.monotonic() - begin
            finally:
                server.close()
                await asyncio.sleep(0.02)
            return record, facts, lines, took

        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main())

    return run


async def complete(peer: Peer) -> None:
    await peer.begin()
    await peer.shake_hands()
    await peer.serve_tls()


def test_complete(converse: Callable[..., Result], authority: Any) -> None:
    """EHLO, STARTTLS, EHLO, QUIT and nothing else; the handshake's facts and both EHLO replies are kept."""
    record, facts, lines, took = converse(complete)
    assert (record.outcome, record.stage) == ("completed", "quit")
    assert (record.starttls, record.requiretls_plain, record.requiretls_tls) == ("yes", "no", "yes")
    assert record.injected_bytes == 0
    assert facts is not None
    assert (facts.version, facts.key_exchange, facts.chain) == ("TLSv1.3", "X25519", authority.good.ders)
    assert lines == [b"EHLO probe.example.net", b"STARTTLS", b"EHLO probe.example.net", b"QUIT"]
    assert took < LIMITS.quit  # the connection was not waited for


async def no_starttls(peer: Peer) -> None:
    await peer.send(b"220 mx\r\n")
    await peer.line()
    await peer.send(b"250-mx\r\n250 SIZE\r\n")
    await peer.line()
    await peer.send(b"221 bye\r\n")


async def say_nothing(peer: Peer) -> None:
    await peer.stop()


async def drip_greeting(peer: Peer) -> None:
    await peer.drip(b"220-" + b"x" * 999)


async def endless_greeting(peer: Peer) -> None:
    while True:
        await peer.send(b"220-welcome to the endless banner\r\n" * 100)


async def endless_line(peer: Peer) -> None:
    while True:
        await peer.send(b"x" * 4000)


async def no_reply_to_ehlo(peer: Peer) -> None:
    await peer.send(b"220 mx\r\n")
    await peer.line()
    await peer.stop()


async def no_reply_to_starttls(peer: Peer) -> None:
    await peer.send(b"220 mx\r\n")
    await peer.line()
    await peer.send(EHLO_PLAIN)
    await peer.line()
    await peer.stop()


async def no_handshake(peer: Peer) -> None:
    await peer.begin()
    await peer.stop()


async def half_a_handshake(peer: Peer) -> None:
    await peer.begin()
    await peer.send((await peer.first_flight())[:-20])
    await peer.stop()


async def drip_handshake(peer: Peer) -> None:
    await peer.begin()
    await peer.drip(await peer.first_flight())


async def no_reply_in_tls(peer: Peer) -> None:
    await peer.begin()
    await peer.shake_hands()
    await peer.line()
    await peer.stop()


async def drip_in_tls(peer: Peer) -> None:
    await peer.begin()
    await peer.shake_hands()
    await peer.drip(b"250-" + b"x" * 999)


async def no_reply_to_quit(peer: Peer) -> None:
    await peer.begin()
    await peer.shake_hands()
    await peer.line()
    await peer.send(EHLO_TLS)
    await peer.line()
    await peer.stop()


async def slow_everywhere(peer: Peer) -> None:
    await asyncio.sleep(0.3)
    await peer.send(b"220 mx\r\n")
    await peer.line()
    await asyncio.sleep(0.3)
    await peer.send(EHLO_PLAIN)
    await peer.line()
    await asyncio.sleep(0.3)
    await peer.send(b"220 go\r\n")
    await peer.stop()


async def garbage_for_handshake(peer: Peer) -> None:
    await peer.begin()
    await peer.reader.read(4096)
    await peer.send(b"\x16\x03\x03\x00\x40" + bytes(range(64)))


async def text_for_handshake(peer: Peer) -> None:
    await peer.begin()
    await peer.reader.read(4096)
    await peer.send(b"500 5.5.1 command unrecognized\r\n")
    await peer.stop()


async def endless_text_for_handshake(peer: Peer) -> None:
    await peer.begin()
    while True:
        await peer.send(b"250-injected\r\n" * 200)


async def endless_records(peer: Peer) -> None:
    await peer.begin()
    await peer.send(await peer.first_flight())
    while True:
        await peer.send(b"\x17\x03\x03\x40\x00" + bytes(16384))


async def endless_in_tls(peer: Peer) -> None:
    await peer.begin()
    await peer.shake_hands()
    while True:
        await peer.send(b"250-more\r\n" * 100)


async def handshake_then_stop(peer: Peer) -> None:
    await peer.begin()
    await peer.shake_hands()
    await peer.stop()


HOSTILE = [
    ("no greeting", say_nothing, "stall", "timeout", "greeting", "unknown", "unknown"),
    ("greeting that drips", drip_greeting, "stall", "timeout", "greeting", "unknown", "unknown"),
    ("greeting without end", endless_greeting, "stall", "protocol_error", "greeting", "unknown", "unknown"),
    ("line without end", endless_line, "stall", "protocol_error", "greeting", "unknown", "unknown"),
    ("no reply to EHLO", no_reply_to_ehlo, "stall", "timeout", "ehlo", "unknown", "unknown"),
    ("no reply to STARTTLS", no_reply_to_starttls, "stall", "timeout", "starttls", "unknown", "no"),
    ("no handshake", no_handshake, "stall", "timeout", "handshake", "unknown", "no"),
    ("handshake stalls half-way", half_a_handshake, "stall", "timeout", "handshake", "unknown", "no"),
    ("handshake that drips", drip_handshake, "stall", "timeout", "handshake", "unknown", "no"),
    ("no reply inside TLS", no_reply_in_tls, "stall", "timeout", "ehlo_tls", "yes", "no"),
    ("reply inside TLS that drips", drip_in_tls, "stall", "timeout", "ehlo_tls", "yes", "no"),
    ("reply inside TLS without end", endless_in_tls, "stall", "protocol_error", "ehlo_tls", "yes", "no"),
    ("no reply to QUIT", no_reply_to_quit, "stall", "completed", "quit", "yes", "no"),
    ("closed before the greeting", say_nothing, "close", "closed_early", "greeting", "unknown", "unknown"),
    ("closed before the reply to EHLO", no_reply_to_ehlo, "close", "closed_early", "ehlo", "unknown", "unknown"),
    ("closed before the reply to STARTTLS", no_reply_to_starttls, "close", "closed_early", "starttls", "unknown", "no"),
    ("closed in place of the handshake", no_handshake, "close", "tls_failed", "handshake", "failed", "no"),
    ("closed half-way through the handshake", half_a_handshake, "close", "tls_failed", "handshake", "failed", "no"),
    ("closed right after the handshake", handshake_then_stop, "close", "closed_early", "ehlo_tls", "yes", "no"),
    ("closed before the reply inside TLS", no_reply_in_tls, "close", "closed_early", "ehlo_tls", "yes", "no"),
    ("closed before the reply to QUIT", no_reply_to_quit, "close", "completed", "quit", "yes", "no"),
    ("garbage for a handshake", garbage_for_handshake, "stall", "tls_failed", "handshake", "failed", "no"),
    ("text for a handshake", text_for_handshake, "stall", "tls_failed", "handshake", "failed", "no"),
    ("text without end, no handshake", endless_text_for_handshake, "stall", "tls_failed", "handshake", "failed", "no"),
    ("records without end", endless_records, "stall", "closed_early", "ehlo_tls", "yes", "no"),
]  # fmt: skip
HOSTILE += [
    (why.replace("closed", "reset"), script, "reset", *expected)
    for why, script, ending, *expected in HOSTILE
    if ending == "close"
]


@pytest.mark.parametrize(
    ("script", "ending", "outcome", "stage", "starttls", "plain"),
    [pytest.param(*row[1:], id=row[0]) for row in HOSTILE],
)
def test_hostile(
    converse: Callable[..., Result],
    script: Script,
    ending: str,
    outcome: str,
    stage: str,
    starttls: str,
    plain: str,
) -> None:
    """Every server ends within its time limit, in the right word, and never as one without TLS."""
    limits = replace(LIMITS, **SHORT[stage]) if ending == "stall" else LIMITS
    record, facts, lines, took = converse(script, ending=ending, limits=limits)
    assert (record.outcome, record.stage, record.starttls) == (outcome, stage, starttls)
    assert record.requiretls_plain == plain
    assert took < SILENT_SECONDS / 2
    assert (facts is not None) == (starttls == "yes")
    if outcome != "completed":
        assert record.detail
        assert record.requiretls_tls == ("unknown" if starttls == "yes" else "not_tested")
    assert b"MAIL" not in b" ".join(lines).upper()


def test_session_limit(converse: Callable[..., Result]) -> None:
    """The limit of a session holds where each reply is in time."""
    record, _, _, took = converse(slow_everywhere, limits=replace(LIMITS, session=1.2))
    assert (record.outcome, record.stage) == ("timeout", "handshake")
    assert 1.15 < took < 2.0  # from the start, not from the last reply
    assert "1.2 s" in record.detail


def test_words_for_time_limits(converse: Callable[..., Result]) -> None:
    """The detail names the limit that was used: a shorter one finds more silence."""
    record, *_ = converse(say_nothing, limits=replace(LIMITS, greeting=0.4))
    assert "0.4 s" in record.detail


async def inject_after_220(peer: Peer) -> None:
    await peer.send(b"220 mx\r\n")
    await peer.line()
    await peer.send(EHLO_PLAIN)
    await peer.line()
    await peer.send(b"220 go\r\n250-evil\r\n250 REQUIRETLS\r\n")
    await peer.shake_hands()
    await peer.line()
    await peer.send(b"250-mx\r\n250 SIZE\r\n")
    await peer.line()
    await peer.send(b"221 bye\r\n")


async def inject_after_hello(peer: Peer) -> None:
    await peer.begin()
    await peer.shake_hands(before=b"250-evil\r\n250 REQUIRETLS\r\n")
    await peer.line()
    await peer.send(b"250-mx\r\n250 SIZE\r\n")
    await peer.line()
    await peer.send(b"221 bye\r\n")


async def inject_both(peer: Peer) -> None:
    await peer.send(b"220 mx\r\n")
    await peer.line()
    await peer.send(EHLO_PLAIN)
    await peer.line()
    await peer.send(b"220 go\r\n250-evil\r\n")
    await peer.shake_hands(before=b"250 REQUIRETLS\r\n")
    await peer.line()
    await peer.send(b"250-mx\r\n250 SIZE\r\n")
    await peer.line()
    await peer.send(b"221 bye\r\n")


@pytest.mark.parametrize("script", [inject_after_220, inject_after_hello, inject_both])
def test_injected(converse: Callable[..., Result], script: Script) -> None:
    """Plaintext between the 220 and the handshake is evidence and never an answer (RFC 3207 §5)."""
    record, facts, _, _ = converse(script)
    assert (record.outcome, record.starttls, record.requiretls_tls) == ("completed", "yes", "no")
    assert record.injected_bytes == len(b"250-evil\r\n250 REQUIRETLS\r\n")
    assert "REQUIRETLS" in record.injected_text
    assert facts is not None


@pytest.mark.parametrize("script", [text_for_handshake, endless_text_for_handshake])
def test_text_for_handshake_is_evidence(converse: Callable[..., Result], script: Script) -> None:
    """Text in place of the handshake is kept, and named as the reason."""
    record, *_ = converse(script)
    assert record.injected_bytes > 0
    assert record.injected_text
    assert "plaintext" in record.detail


def test_client_certificate_wanted(converse: Callable[..., Result]) -> None:
    """A server that wants a client certificate breaks off after the handshake: STARTTLS works, the rest is unknown."""

    async def script(peer: Peer) -> None:
        await peer.begin()
        try:
            await peer.shake_hands()
        except ssl.SSLError:
            await peer.send(peer.outside.read())
            peer.writer.close()

    record, facts, _, _ = converse(script, ask_certificate=True)
    assert (record.outcome, record.stage) == ("closed_early", "ehlo_tls")
    assert (record.starttls, record.requiretls_tls) == ("yes", "unknown")
    assert "certificate_required" in record.detail
    assert facts is not None


def test_huge_chain(converse: Callable[..., Result], authority: Any, tmp_path: Path) -> None:
    """A chain beyond the limit of our library fails the handshake, in words that say whose limit it is."""
    bundle = tmp_path / "huge.pem"
    bundle.write_bytes(authority.good.chain.read_bytes() * 200)

    async def script(peer: Peer) -> None:
        await peer.begin()
        await peer.shake_hands()

    record, facts, _, _ = converse(script, chain=bundle)
    assert (record.outcome, record.starttls, facts) == ("tls_failed", "failed", None)
    assert "our TLS library refuses" in record.detail


def test_tls_alert_in_words(converse: Callable[..., Result], authority: Any) -> None:
    """A server that refuses the handshake is quoted."""

    async def script(peer: Peer) -> None:
        peer.context.set_ciphers("NULL-SHA256:@SECLEVEL=0")
        peer.context.maximum_version = ssl.TLSVersion.TLSv1_2
        peer.context.set_ecdh_curve("secp521r1")
        await peer.begin()
        await peer.reader.read(4096)
        await peer.send(b"\x15\x03\x03\x00\x02\x02\x28")

    record, *_ = converse(script)
    assert (record.outcome, record.starttls) == ("tls_failed", "failed")
    assert record.detail == "the server sent TLS alert handshake_failure"


def test_ipv6(converse: Callable[..., Result]) -> None:
    """IPv6 addresses are probed as IPv4 ones are."""
    try:
        hold_port("::1").close()
    except OSError:
        pytest.skip("no ::1 on this machine")
    record, *_ = converse(complete, host="::1")
    assert record.outcome == "completed"


def test_source_address(converse: Callable[..., Result]) -> None:
    """The probe comes from the address asked for."""
    seen = []

    async def script(peer: Peer) -> None:
        seen.append(peer.writer.get_extra_info("peername")[0])
        await complete(peer)

    record, *_ = converse(script, source="127.0.0.2")
    assert record.outcome == "completed"
    assert seen == ["127.0.0.2"]


def test_source_address_not_ours(converse: Callable[..., Result]) -> None:
    """A source address that is not ours is no fact about the server."""
    with pytest.raises(LocalTrouble):
        converse(complete, source="192.0.2.1")


def test_connect_hook(converse: Callable[..., Result]) -> None:
    """A hook may make the connection, for a proxy."""
    asked = []

    async def connect(address: str, port: int) -> socket.socket:
        asked.append(address)
        made = socket.socket()
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (address, port))
        return made

    record, *_ = converse(complete, connect=connect)
    assert record.outcome == "completed"
    assert asked == ["127.0.0.1"]


CONNECT = [
    (errno.ECONNREFUSED, "refused"),
    (errno.ETIMEDOUT, "timeout"),
    (errno.ENETUNREACH, "unreachable"),
    (errno.EHOSTUNREACH, "unreachable"),
    (errno.ECONNRESET, "unreachable"),
    (errno.EPERM, "unreachable"),  # a rule of our own firewall, for that address perhaps alone
    (errno.EACCES, "unreachable"),
    (errno.EMFILE, None),
    (errno.ENFILE, None),
    (errno.ENOBUFS, None),
    (errno.ENOMEM, None),
    (errno.EADDRNOTAVAIL, None),
]


@pytest.mark.parametrize(
    ("number", "outcome"), [pytest.param(n, o, id=errno.errorcode[n]) for n, o in CONNECT]
)
def test_connect_failures(converse: Callable[..., Result], number: int, outcome: str | None) -> None:
    """What fails on the way to the server is an outcome; what fails here is trouble of ours."""

    async def connect(address: str, port: int) -> socket.socket:
        raise OSError(number, "?")

    if outcome is None:
        with pytest.raises(LocalTrouble) as caught:
            converse(complete, connect=connect)
        assert caught.value.errno == number
        return
    record, facts, _, _ = converse(complete, connect=connect)
    assert (record.outcome, record.stage, record.starttls, facts) == (outcome, "connect", "unknown", None)


def test_connect_limit(converse: Callable[..., Result]) -> None:
    """A connection that does not come about in time is a time-out."""

    async def connect(address: str, port: int) -> socket.socket:
        await asyncio.sleep(SILENT_SECONDS)
        raise AssertionError

    record, _, _, took = converse(complete, connect=connect, limits=replace(LIMITS, connect=0.2))
    assert (record.outcome, record.stage, record.detail) == (
        "timeout",
        "connect",
        "no connection within 0.2 s",
    )
    assert took < SILENT_SECONDS / 2


def test_refused(converse: Callable[..., Result]) -> None:
    """A closed port refuses."""

    async def main(port: int) -> SessionRecord:
        record, _ = await run_session(
            "127.0.0.1", port, None, ehlo_name="probe.example.net", context=CONTEXT, limits=LIMITS
        )
        return record

    with hold_port() as held:
        assert asyncio.run(main(held.getsockname()[1])).outcome == "refused"


def test_trouble_of_a_hook_stays_trouble() -> None:
    """A proxy that is not there is no fact about the server, whatever its error."""
    with pytest.raises(LocalTrouble):
        connect_failure(LocalTrouble(errno.ECONNREFUSED, "proxy refused"), 1.0)
    assert connect_failure(OSError("odd"), 1.0) == (SessionOutcome.UNREACHABLE, "odd")


def test_cancelled(converse: Callable[..., Result]) -> None:
    """An interrupted probe leaves no connection behind."""
    gone = []

    async def script(peer: Peer) -> None:
        await peer.send(b"220 mx\r\n")
        await peer.line()
        gone.append(await peer.reader.read(10))

    async def interrupt(address: str, port: int) -> socket.socket:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.2, task.cancel)
        made = socket.socket()
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (address, port))
        return made

    with pytest.raises(asyncio.CancelledError):
        converse(script, connect=interrupt)
    assert gone in ([b""], [])


@pytest.mark.parametrize("arguments", [["-tls1_3"], ["-tls1_2"], ["-tls1", "-cipher", "ALL:@SECLEVEL=0"]])
def test_openssl_starttls(authority: Any, openssl_server: Callable[..., int], arguments: list[str]) -> None:
    """`openssl s_server -starttls smtp` speaks no SMTP inside TLS: the handshake is known, the rest times out."""
    if (
        "-starttls"
        not in subprocess.run(["openssl", "s_server", "-help"], capture_output=True, text=True).stderr
    ):
        pytest.skip("this openssl s_server has no -starttls")
    files = authority.rsa
    port = openssl_server("-starttls", "smtp", "-quiet", "-cert", files.chain, "-key", files.key, *arguments)
    limits = replace(LIMITS, reply=1.0)
    record, facts = asyncio.run(
        run_session(
            "127.0.0.1", port, "mx.example.org", ehlo_name="probe.example.net", context=CONTEXT, limits=limits
        )
    )
    assert (record.outcome, record.stage, record.starttls) == ("timeout", "ehlo_tls", "yes")
    assert facts is not None
    assert facts.version.replace("v1.0", "v1") == arguments[0].replace("-tls1", "TLSv1").replace("_", ".")
