"""The mail servers of the lab: asyncio servers that behave, and misbehave, as their kind says (RFC 5321, 3207)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable

from rtls_analysis.lab.kinds import Misdeed, ServerKind, Speech

_READ = 1 << 14
_PATIENCE = 60.0  # seconds until a server gives a client up
_BUDGET = 8 << 20  # bytes that an endless server sends at most
_USUAL = ("PIPELINING", "SIZE 52428800", "8BITMIME", "ENHANCEDSTATUSCODES")
_ALERT = b"\x15\x03\x03\x00\x02\x02\x28"  # fatal, handshake_failure

MakeContext = Callable[[], ssl.SSLContext]
"""Gives the TLS context of an address; made when it is first needed, for many are never asked."""


class Hangup(Exception):
    """The conversation is over."""


class Wire:
    """A connection, in the clear at first and inside TLS after `start_tls`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._held = b""

    async def send(self, data: bytes) -> None:
        """Send, encrypted where TLS is up."""
        if self._tls is not None:
            self._tls.write(data)
            data = self._outgoing.read()
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> bytes:
        """Receive what comes next; raises `Hangup` at the end."""
        while True:
            if self._tls is not None:
                try:
                    if data := self._tls.read(_READ):
                        return data
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError:
                    raise Hangup from None
                else:
                    raise Hangup
            async with asyncio.timeout(_PATIENCE):
                raw = await self._reader.read(_READ)
            if not raw:
                raise Hangup
            if self._tls is None:
                return raw
            self._incoming.write(raw)

    async def line(self) -> bytes:
        """Read a line without its end."""
        while b"\n" not in self._held:
            self._held += await self.receive()
            if len(self._held) > 4096:
                raise Hangup
        line, _, self._held = self._held.partition(b"\n")
        return line.rstrip(b"\r")

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands; what was read before is forgotten. Raises `Hangup` where that fails."""
        self._held = b""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                self._writer.write(self._outgoing.read())
                raise Hangup from None
            else:
                break
            if pending := self._outgoing.read():
                self._writer.write(pending)
            self._incoming.write(await self.receive())
        self._tls = tls
        if pending := self._outgoing.read():
            self._writer.write(pending)

    async def do(self, misdeed: Misdeed, code: bytes = b"220") -> None:
        """Misbehave, then hang up."""
        match misdeed:
            case Misdeed.CLOSE:
                pass
            case Misdeed.ALERT:
                await self.send(_ALERT)
            case Misdeed.GARBAGE:
                await self.send(b"\x00\xffSSH-2.0-OpenSSH_9.9\r\n")
                await self._wait()
            case Misdeed.SILENT:
                await self._wait()
            case Misdeed.DRIP:
                for byte in code + b"-" + b"x" * 300:
                    await self.send(bytes([byte]))
                    await asyncio.sleep(0.2)
            case Misdeed.ENDLESS_LINE:
                await self.send(code + b" ")
                await self._flood(b"x" * 8192)
            case Misdeed.ENDLESS_REPLY:
                await self._flood((code + b"-X-MORE\r\n") * 500)
        raise Hangup

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while True:
                    await self.receive()

    async def _flood(self, piece: bytes) -> None:
        for _ in range(_BUDGET // len(piece)):
            await self.send(piece)

    def hang_up(self) -> None:
        """Close the connection, at once where it is full."""
        if self._tls is not None:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            with contextlib.suppress(OSError, RuntimeError):  # uvloop: the handler is closed
                self._writer.write(self._outgoing.read())
        if self._writer.transport.get_write_buffer_size() > 1 << 16:
            self._writer.transport.abort()
        else:
            self._writer.close()


async def converse(wire: Wire, kind: ServerKind, host: str, context: MakeContext) -> None:
    """Hold one SMTP conversation as a server of a kind."""
    inside = False

    async def say(speech: Speech, code: bytes = b"250") -> None:
        if isinstance(speech, Misdeed):
            await wire.do(speech, code)
        else:
            await wire.send(speech.replace(b"%h", host.encode()))
            if speech.splitlines()[-1][3:4] == b"-":  # a reply that breaks off
                raise Hangup

    await say(kind.greeting, b"220")
    while True:
        line = await wire.line()
        words = line.split(maxsplit=1)
        match words[0].upper() if words else b"":
            case b"EHLO":
                given = kind.ehlo_inside if inside else kind.ehlo
                await say(_ehlo(kind.inside if inside else kind.plain) if given is None else given)
            case b"HELO":
                await say(kind.helo)
            case b"STARTTLS" if not inside:
                await say(kind.starttls_reply, b"220")
                if not isinstance(kind.starttls_reply, bytes) or not kind.starttls_reply.startswith(b"220"):
                    continue
                if kind.handshake is not None:
                    await wire.receive()  # the client's hello
                    await wire.do(kind.handshake)
                await wire.start_tls(context())
                inside = True
            case b"QUIT":
                await say(kind.quit, b"221")
                return
            case b"NOOP" | b"RSET":
                await wire.send(b"250 2.0.0 ok\r\n")
            case b"MAIL" | b"RCPT" | b"DATA":  # nobody is to send mail to the lab
                await wire.send(b"550 5.7.1 no mail here\r\n")
            case _:
                await wire.send(b"500 5.5.2 what?\r\n")


def _ehlo(keywords: tuple[str, ...]) -> bytes:
    lines = ["%h", *_USUAL, *keywords]
    last = len(lines) - 1
    return b"".join(
        b"250" + (b" " if number == last else b"-") + line.encode() + b"\r\n"
        for number, line in enumerate(lines)
    )


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def quietly(handler: Handler) -> Handler:
    """Make a handler that ends without a word when the lab does: asyncio would print what was going on (until 3.12)."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await handler(reader, writer)

    return handle


def smtp_handler(kind: ServerKind, host: str, context: MakeContext) -> Handler:
    """Make the connection handler of one address."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        try:
            await converse(wire, kind, host, context)
        except (Hangup, OSError, TimeoutError, ssl.SSLError, RuntimeError):  # the last: closed, says uvloop
            pass
        finally:
            wire.hang_up()

    return handle
