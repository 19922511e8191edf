"""The probe of one mail server over a socket: `standards.smtp_session` and `scanner.tls` joined (RFC 5321, 3207).

Nothing a server does can make it wait longer than its `Limits`, hold more than its budgets, or raise.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import cast

from rtls_analysis.scanner.tls import TlsFacts, TlsPump
from rtls_analysis.standards.smtp_session import (
    Action,
    ProbeSession,
    Send,
    SessionOutcome,
    SessionRecord,
    SessionStage,
    StartTls,
)

Connect = Callable[[str, int], Awaitable[socket.socket]]
"""Gives a connected, non-blocking socket to an address and port, or raises OSError as `connect` does."""


class LocalTrouble(OSError):
    """Our own side could not make a connection (no file or port left, no such source): no fact about the server."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a probe waits, in seconds, and how much it reads, in bytes and lines.

    Notes
    -----
    RFC 5321 §4.5.3.2 has mail clients wait for minutes; a scan that waits less takes slow servers for silent
    ones, so the limits in use belong into the record of a scan. Each limit begins with the command and ends with
    the whole reply: a server that sends a byte a second gains nothing.
    """

    connect: float = 10.0
    greeting: float = 60.0  # greet delays of 5 to 45 s are common
    reply: float = 30.0
    handshake: float = 30.0
    plaintext: float = 5.0  # for the handshake to begin after all, once plaintext came in its place
    quit: float = 5.0  # for the answer to QUIT, which decides nothing
    session: float = 120.0  # all of it, connecting too
    max_line: int = 4096
    max_lines: int = 200
    max_bytes: int = 65536


_OURS = frozenset(
    {
        errno.EADDRINUSE,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
    }
)


def connect_failure(error: OSError, seconds: float) -> tuple[SessionOutcome, str]:
    """Judge a `connect` that failed or took more than `seconds`: the outcome, and the reason in words.

    Raises
    ------
    LocalTrouble
        The reason is on our side.
    """
    if isinstance(error, LocalTrouble):
        raise error
    number = error.errno
    if number is None:
        if isinstance(error, TimeoutError):
            return SessionOutcome.TIMEOUT, f"no connection within {seconds:g} s"
        return SessionOutcome.UNREACHABLE, str(error) or type(error).__name__
    words = error.strerror or ""
    detail = words if words.startswith("the proxy says") else os.strerror(number).lower()
    if number in _OURS:
        raise LocalTrouble(number, f"cannot connect from here: {detail}") from error
    if number == errno.ECONNREFUSED:
        return SessionOutcome.REFUSED, detail
    if number == errno.ETIMEDOUT:
        return SessionOutcome.TIMEOUT, detail
    if number in (errno.EPERM, errno.EACCES):  # perhaps at this address alone
        return SessionOutcome.UNREACHABLE, f"this machine's own firewall: {detail}"
    return SessionOutcome.UNREACHABLE, detail


async def open_connection(
    protocol: asyncio.BaseProtocol, address: str, port: int, *, source: str | None, connect: Connect | None
) -> None:
    """Connect a protocol to an address: directly, from `source` where given, or through the hook `connect`."""
    loop = asyncio.get_running_loop()
    if connect is None:
        local = (source, 0) if source else None
        await loop.create_connection(lambda: protocol, address, port, local_addr=local)
        return
    connected = await connect(address, port)
    try:
        await loop.create_connection(lambda: protocol, sock=connected)
    except BaseException:
        connected.close()
        raise


async def run_session(
    address: str,
    port: int,
    sni: str | None,
    *,
    ehlo_name: str,
    context: ssl.SSLContext,
    limits: Limits = Limits(),
    source: str | None = None,
    connect: Connect | None = None,
) -> tuple[SessionRecord, TlsFacts | None]:
    """Probe one mail server: greeting, EHLO, STARTTLS, EHLO, QUIT.

    Parameters
    ----------
    address, port
        An IPv4 or IPv6 address, never a name.
    sni
        Server name for TLS: the MX host, or the TLSA base domain (RFC 7672 §8.1).
    context
        `tls.lax_context()`, one for the whole scan.
    source
        Address of ours to connect from.
    connect
        Makes the connection in place of the loop, for a proxy.

    Returns
    -------
    tuple
        The record of the dialogue, and what the handshake settled where one was completed.

    Raises
    ------
    LocalTrouble
        The connection failed for want of something on our side.
    """
    session = ProbeSession(
        ehlo_name, max_line=limits.max_line, max_lines=limits.max_lines, max_bytes=limits.max_bytes
    )
    probe = _Probe(asyncio.get_running_loop(), session, context, sni, limits)
    try:
        try:
            async with asyncio.timeout(min(limits.connect, limits.session)):
                await open_connection(probe, address, port, source=source, connect=connect)
        except OSError as error:
            outcome, detail = connect_failure(error, limits.connect)
            if probe.transport is None:  # or the limit struck just when the connection stood
                session.connect_failed(outcome, detail)
        else:
            await probe.over
        if not session.finished:
            session.timed_out()
    finally:
        probe.hang_up()
    return session.record, probe.facts


_buffers = threading.local()


def _shared_buffer() -> bytearray:
    """The read buffer of this thread's loop; each read is taken out of it before the next one begins."""
    try:
        buffer: bytearray = _buffers.buffer
    except AttributeError:
        buffer = _buffers.buffer = bytearray(1 << 15)
    return buffer


class _Probe(asyncio.BufferedProtocol):
    """The driver of one session: it moves bytes and watches the clock; `ProbeSession` decides."""

    __slots__ = (
        "_buffer",
        "_context",
        "_due",
        "_last",
        "_limits",
        "_loop",
        "_pump",
        "_session",
        "_sni",
        "_timer",
        "_timer_at",
        "facts",
        "over",
        "transport",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        session: ProbeSession,
        context: ssl.SSLContext,
        sni: str | None,
        limits: Limits,
    ) -> None:
        self._loop = loop
        self._session = session
        self._context = context
        self._sni = sni
        self._limits = limits
        self._buffer = _shared_buffer()
        self._pump: TlsPump | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._due = 0.0
        self._last = loop.time() + limits.session
        self.transport: asyncio.Transport | None = None
        self.facts: TlsFacts | None = None
        self.over: asyncio.Future[None] = loop.create_future()

    # events of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._set_timer(self._last)  # before anything that can fail: nothing may wait for ever
        self._perform(self._session.connected())
        self._wait()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.over.done():
            return
        data = bytes(memoryview(self._buffer)[:nbytes])
        if self._pump is None:
            self._perform(self._session.receive(data))
        else:
            self._feed_tls(self._pump, data)
        if self._session.finished:
            self._end()

    def eof_received(self) -> None:
        self._closed("the server closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed("the server reset the connection" if exc else "the server closed the connection")

    # the dialogue

    def _perform(self, actions: Iterable[Action], pending: bytes = b"") -> None:
        """Carry out what the session asks for; `pending` goes out before it, in the same packet."""
        sent = False
        for action in actions:
            if isinstance(action, Send):
                pending += self._pump.write(action.data) if self._pump else action.data
                sent = True
            elif isinstance(action, StartTls):
                self._pump = TlsPump()
                pending += self._pump.start(self._context, self._sni)
                sent = True
        if pending and self.transport is not None:
            self.transport.write(pending)
        if sent:
            self._wait()

    def _feed_tls(self, pump: TlsPump, data: bytes) -> None:
        established = pump.established
        decrypted, outgoing = pump.feed(data)
        actions: list[Action] = []
        if not established:
            if pump.spoke_tls or pump.failure:
                self._hand_over_plaintext(pump)
            elif pump.plaintext:
                self._wait(self._limits.plaintext, shorten=True)
            if pump.established:
                self.facts = pump.facts()
                actions += self._session.tls_established()
            elif pump.failure:
                actions += self._session.tls_failed(pump.failure)
        if decrypted and not self._session.finished:
            actions += self._session.receive(decrypted)
        self._perform(actions, outgoing)
        if pump.established and not self._session.finished:
            if pump.failure:
                self._session.closed(f"{pump.failure}, after the handshake")
            elif pump.closed:
                self._session.closed("the server closed TLS")

    def _hand_over_plaintext(self, pump: TlsPump) -> None:
        if pump.plaintext:
            self._session.injected(pump.plaintext)
            pump.plaintext = b""

    def _closed(self, how: str) -> None:
        if self.over.done():
            return
        pump = self._pump
        if pump is None or pump.established:
            self._session.closed(how)
        else:
            self._hand_over_plaintext(pump)
            self._session.tls_failed(f"{how} during the handshake")
        self._end()

    # the clock

    def _wait(self, seconds: float | None = None, *, shorten: bool = False) -> None:
        """Set the limit for what the session waits for; without `seconds`, by the stage it is in."""
        if seconds is None:
            seconds = self._limit()
        due = min(self._loop.time() + seconds, self._last)
        if shorten and due > self._due:
            return
        self._due = due
        if self._timer is not None:
            if self._timer_at <= due:  # moved when it fires: cheaper than a new timer for each reply
                return
            self._timer.cancel()
        self._set_timer(due)

    def _limit(self) -> float:
        match self._session.stage:
            case SessionStage.GREETING:
                return self._limits.greeting
            case SessionStage.HANDSHAKE:
                return self._limits.handshake
            case SessionStage.QUIT:
                return self._limits.quit
        return self._limits.reply

    def _set_timer(self, when: float) -> None:
        self._timer = self._loop.call_at(when, self._tick)
        self._timer_at = when

    def _tick(self) -> None:
        self._timer = None
        if self.over.done():
            return
        now = self._loop.time()
        if self._due - now > 0.01:
            self._set_timer(self._due)
            return
        pump = self._pump
        if pump is not None and not pump.established and pump.plaintext:
            self._hand_over_plaintext(pump)
            self._session.tls_failed("plaintext in place of the handshake")
        elif self._due == self._last:
            self._session.timed_out(f"session not over within {self._limits.session:g} s")
        else:
            self._session.timed_out(f"nothing whole within {self._limit():g} s")
        self._end()

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)
            self.hang_up()

    def hang_up(self) -> None:
        """Close in good order where that needs no waiting, and in any case."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        transport, self.transport = self.transport, None
        if transport is None:
            return
        if self._pump is not None and (farewell := self._pump.finish()):
            transport.write(farewell)  # servers log a missing close_notify as an error
        transport.close()
        if transport.get_write_buffer_size():
            self._loop.call_later(1.0, transport.abort)
