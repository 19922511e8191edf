"""The ways to a resolver: a pool of UDP sockets, and a pipelined connection over TCP or TLS (RFC 7766, 7858).

A channel sends a `Pending` question and hands what answers it to its `Deliver`; who waits, for how long and what an
answer means is the resolver's business. Messages that answer nothing are dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol, cast

from rtls_analysis.scanner.dns_message import Question, Reply, answers
from rtls_analysis.scanner.smtp_client import LocalTrouble

_RECEIVE_BUFFER = 1 << 20  # bytes; the kernel gives what it allows
_BURST = 64  # datagrams read before the loop may do something else
_CONNECT_SECONDS = 5.0
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Pending:
    """A question on its way: the query but for its id, who waits for it, and how it fares."""

    __slots__ = ("channel", "deadline", "fault", "future", "id", "packet", "question", "sent_at", "tries")

    def __init__(
        self, question: Question, packet: bytes, channel: Channel, future: asyncio.Future[Reply]
    ) -> None:
        self.question = question
        self.packet = packet
        self.channel = channel
        self.future = future
        self.id = b""
        self.tries = 0
        self.sent_at = 0.0
        self.deadline = 0.0
        self.fault = ""


Deliver = Callable[[Pending, bytes], None]


class Channel(Protocol):
    """A way to the resolver."""

    fault: str
    """What last went wrong on the way, in words; empty once something was heard."""

    def send(self, pending: Pending) -> None:
        """Send a question, for the first time or again; it is waited for until `forget`."""

    def forget(self, pending: Pending) -> None:
        """Wait for a question no more."""

    def close(self) -> None:
        """Give everything back."""


def local_trouble(error: OSError) -> LocalTrouble | None:
    """Give the error to raise where the reason is on our side: no file, buffer or memory left."""
    if error.errno not in _OURS:
        return None
    return LocalTrouble(error.errno, f"cannot ask the resolver from here: {os.strerror(error.errno).lower()}")


def _in_words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    return os.strerror(error.errno).lower() if error.errno else str(error) or type(error).__name__.lower()


# -- UDP -----------------------------------------------------------------------------------------------------


class Datagrams:
    """Connected UDP sockets, each with a random port and ids of its own.

    The kernel drops what comes from elsewhere. One socket for everything would lose what its buffer cannot hold
    in a burst; one for each question would cost two more system calls and a file each.
    """

    def __init__(self, family: int, peer: tuple[Any, ...], deliver: Deliver, *, sockets: int) -> None:
        self.fault = ""
        self._loop = asyncio.get_running_loop()
        self._deliver = deliver
        self._buffer = memoryview(bytearray(1 << 16))
        self._sockets: list[socket.socket] = []
        self._waiting: list[dict[bytes, Pending]] = []
        try:
            for _ in range(sockets):
                self._open(family, peer)
        except OSError as error:
            self.close()
            raise local_trouble(error) or error from None

    def _open(self, family: int, peer: tuple[Any, ...]) -> None:
        udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        waiting: dict[bytes, Pending] = {}
        self._sockets.append(udp)
        self._waiting.append(waiting)
        with contextlib.suppress(OSError):
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        udp.connect(peer)
        self._loop.add_reader(udp.fileno(), self._receive, udp, waiting)

    def send(self, pending: Pending) -> None:
        """Send a question from one of the sockets, each time with the same id: a late answer is welcome."""
        if not pending.id:
            self._register(pending)
        udp = self._sockets[pending.id[2]]
        message = pending.id[:2] + pending.packet
        for _ in range(2):  # the first may be told of an earlier refusal, in place of being sent
            try:
                udp.send(message)
            except ConnectionRefusedError as error:
                self.fault = _in_words(error)
            except BlockingIOError:
                return  # as good as lost: it is sent again
            except OSError as error:
                self.fault = _in_words(error)
                if (trouble := local_trouble(error)) and not pending.future.done():
                    pending.future.set_exception(trouble)
                return
            else:
                return

    def _register(self, pending: Pending) -> None:
        """Draw an id and a socket; the third octet of `Pending.id` tells which."""
        count = len(self._sockets)
        while True:
            drawn = os.urandom(3)
            at = drawn[2] % count
            if drawn[:2] not in self._waiting[at]:
                break
        pending.id = drawn[:2] + bytes((at,))
        self._waiting[at][drawn[:2]] = pending

    def forget(self, pending: Pending) -> None:
        """Wait for a question no more."""
        if pending.id:
            self._waiting[pending.id[2]].pop(pending.id[:2], None)

    def _receive(self, udp: socket.socket, waiting: dict[bytes, Pending]) -> None:
        buffer = self._buffer
        for _ in range(_BURST):
            try:
                size = udp.recv_into(buffer)
            except BlockingIOError:
                return
            except OSError as error:  # what became of an earlier datagram
                self.fault = _in_words(error)
                continue
            wire = bytes(buffer[:size])
            pending = waiting.get(wire[:2])
            if pending is not None and answers(wire, pending.question):
                self.fault = ""
                self._deliver(pending, wire)

    def close(self) -> None:
        """Close the sockets."""
        for udp in self._sockets:
            if udp.fileno() >= 0:
                self._loop.remove_reader(udp.fileno())
                udp.close()


# -- TCP and TLS ---------------------------------------------------------------------------------------------


class Stream:
    """One connection, opened when there is a question, over which questions are pipelined (RFC 7766 §6.2.1.1).

    Answers may come in any order. A connection that ends is opened again at once for the questions left, as long as
    it brought answers; else with the next try of one of them. `context` makes it TLS, of which `name` is the
    name, or the address, to be verified; `failed` is told when it is not.
    """

    def __init__(
        self,
        host: str,
        port: int,
        deliver: Deliver,
        *,
        context: ssl.SSLContext | None = None,
        name: str | None = None,
        failed: Callable[[ssl.SSLCertVerificationError], Exception] | None = None,
    ) -> None:
        self.fault = ""
        self._host, self._port = host, port
        self._deliver = deliver
        self._context, self._name, self._failed = context, name, failed
        self._waiting: dict[bytes, Pending] = {}
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._heard_at = float("-inf")

    def send(self, pending: Pending) -> None:
        """Send a question; again means over another connection, where this one has fallen silent."""
        is_again = bool(pending.id)
        if not is_again:
            while (drawn := os.urandom(2)) in self._waiting:
                pass
            pending.id = drawn
            self._waiting[drawn] = pending
        if self._connection is None:
            self._connect()
        elif not is_again:
            self._connection.write(pending)
        elif (
            self._heard_at < pending.sent_at
        ):  # not a slow answer, but silence: another connection may do better
            self._connection.drop()
            self._connection = None
            self._connect()

    def forget(self, pending: Pending) -> None:
        """Wait for a question no more."""
        self._waiting.pop(pending.id, None)

    def close(self) -> None:
        """Close the connection."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.drop()
            self._connection = None

    def _connect(self) -> None:
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        more: dict[str, Any] = {}
        if self._context is not None:
            more = {"ssl": self._context, "server_hostname": self._name}
        connection = _Connection(self)
        self.fault = self.fault or "no connection yet"
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await asyncio.get_running_loop().create_connection(
                    lambda: connection, self._host, self._port, **more
                )
        except ssl.SSLCertVerificationError as error:
            self.fault = error.verify_message
            if self._failed is not None:
                self._fail(self._failed(error))
            return
        except OSError as error:  # TimeoutError is one
            self.fault = f"no connection within {_CONNECT_SECONDS:g} s"
            if not isinstance(error, TimeoutError):
                self.fault = _in_words(error)
            if trouble := local_trouble(error):
                self._fail(trouble)
            return
        finally:
            self._connecting = None
        if not connection.is_lost:
            self._connection = connection
            self.fault = ""
            for pending in self._waiting.values():
                connection.write(pending)

    def _fail(self, error: Exception) -> None:
        for pending in self._waiting.values():
            if not pending.future.done():
                pending.future.set_exception(error)

    def received(self, wire: bytes) -> None:
        """Take a message that came."""
        pending = self._waiting.get(wire[:2])
        if pending is not None and answers(wire, pending.question):
            self.fault = ""
            self._heard_at = asyncio.get_running_loop().time()
            if self._connection is not None:
                self._connection.is_useful = True
            self._deliver(pending, wire)

    def lost(self, connection: _Connection, error: Exception | None) -> None:
        """Take notice that a connection is gone."""
        if connection is not self._connection:
            return
        self._connection = None
        self.fault = _in_words(error) if isinstance(error, OSError) else "connection closed"
        if connection.is_useful and self._waiting:
            self._connect()


class _Connection(asyncio.Protocol):
    """Messages with their length before them (RFC 1035 §4.2.2)."""

    def __init__(self, stream: Stream) -> None:
        self.is_useful = False  # it brought an answer
        self.is_lost = False
        self._stream = stream
        self._held = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by behaviour only

    def write(self, pending: Pending) -> None:
        message = pending.id + pending.packet
        if self._transport is not None:
            self._transport.write(len(message).to_bytes(2) + message)

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        held = self._held
        held += data
        at = 0
        while len(held) - at >= 2 and len(held) - at - 2 >= (size := held[at] << 8 | held[at + 1]):
            self._stream.received(bytes(held[at + 2 : at + 2 + size]))
            at += 2 + size
        del held[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._stream.lost(self, exc)
