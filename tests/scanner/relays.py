"""Things between a scan and the lab that count what passes, and that can fail: a SOCKS5 proxy, a name server."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Self

from tests.ports import hold_port


class _InThread:
    """Runs in an event loop of its own, for tests that are not async; ``with`` starts and ends it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def start(self) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        self.call(self.start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call(self.stop())
        self.call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        await some_turns()  # for what was accepted last to be in someone's hands
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await some_turns()  # for transports to close


async def some_turns() -> None:
    """Let the loop do what is ready, and what that makes ready: by turns, for time passes while nobody works."""
    for _ in range(10):
        await asyncio.sleep(0)


@contextlib.contextmanager
def closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Close a connection after what was written, or, where its task is cancelled, at once."""
    try:
        yield
    except asyncio.CancelledError:
        writer.transport.abort()
        raise
    finally:
        writer.close()


class SocksProxy(_InThread):
    """A SOCKS5 proxy (RFC 1928, 1929): counts connections by address, and can vanish and come back.

    `user` and `password` are asked for where given; `answers` are replies by address in place of a connection.
    """

    def __init__(self, *, user: str = "", password: str = "", answers: dict[str, int] | None = None) -> None:
        super().__init__()
        self.user, self.password, self.answers = user, password, answers or {}
        self.connections: Counter[tuple[str, int]] = Counter()
        self.greetings: list[bytes] = []
        self.vanish_after: int | None = None  # so many connections
        self._listener: socket.socket | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._held = hold_port()  # so that it can come back where it was
        self.port = self._held.getsockname()[1]

    @property
    def url(self) -> str:
        who = f"{self.user}:{self.password}@" if self.user else ""
        return f"socks5://{who}127.0.0.1:{self.port}"

    async def start(self) -> None:
        # not asyncio's own server: one that is closed while it accepts raises in its loop (Python 3.11)
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    async def stop(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()  # what was not accepted is reset with it
            self._listener = None

    async def _end(self) -> None:
        await super()._end()
        self._held.close()

    def _accept(self) -> None:
        if self._listener is not None:
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                task = self._loop.create_task(self._serve(connection))
                self._serving.add(task)
                task.add_done_callback(self._serving.discard)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
        except BaseException:
            connection.close()
            raise
        with closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._talk(reader, writer)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _version, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        self.greetings.append(methods)
        wanted = 2 if self.user else 0
        if wanted not in methods:
            writer.write(b"\x05\xff")
            return
        writer.write(bytes([5, wanted]))
        if wanted == 2:
            _version, length = await reader.readexactly(2)
            user = await reader.readexactly(length)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            good = (user.decode(), password.decode()) == (self.user, self.password)
            writer.write(b"\x01\x00" if good else b"\x01\x01")
            if not good:
                return
        _version, _command, _reserved, kind = await reader.readexactly(4)
        packed = await reader.readexactly(4 if kind == 1 else 16)
        address = str(ipaddress.ip_address(packed))
        port = int.from_bytes(await reader.readexactly(2))
        if self.vanish_after is not None and self.connections.total() >= self.vanish_after:
            await self.stop()
            return
        self.connections[address, port] += 1
        reply = self.answers.get(address)
        if reply is None:
            try:
                onward = await asyncio.open_connection(address, port)
            except ConnectionRefusedError:
                reply = 5
            except OSError:
                reply = 3
        if reply is not None:
            writer.write(bytes([5, reply, 0, 1]) + bytes(6))
            return
        bound = bytes([5, 0, 0, 3, 4]) + b"here" + bytes(2)  # a name, which few expect
        writer.write(bound)
        await _relay(reader, writer, *onward)


async def _relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    async def pass_on(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                to.write(data)
                await to.drain()
        with contextlib.suppress(OSError):
            to.write_eof()

    with closing(far_writer):
        await asyncio.gather(pass_on(reader, far_writer), pass_on(far_reader, writer))


class DnsRelay(_InThread):
    """Passes questions over UDP and TCP on to a name server, counts them, and can fall silent and come back."""

    def __init__(self, server: str) -> None:
        super().__init__()
        host, _, port = server.partition(":")
        self._far = host, int(port)
        self.questions = 0
        self.by_question: Counter[bytes] = Counter()  # name, type and class as sent
        self.silent_after: int | None = None  # so many questions
        self.back_after: int | None = None  # so many questions whether it lives that it did not answer
        self.port = 0
        self._server: asyncio.Server | None = None
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def is_silent(self) -> bool:
        return self.silent_after is not None and self.questions > self.silent_after

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def count_checks(self, question: bytes) -> None:
        if self.back_after is not None and b"\x09localhost\0" in question.lower():
            self.back_after -= 1
            if self.back_after == 0:
                self.silent_after = None

    async def start(self) -> None:
        relay = self

        class Near(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                relay.questions += 1
                relay.by_question[data[12 : data.index(0, 12) + 5].lower()] += 1
                if relay.is_silent:
                    relay.count_checks(data)
                else:
                    task = asyncio.ensure_future(relay._ask(data, addr))
                    task.add_done_callback(lambda done: done.cancelled() or done.exception())

        while self._server is None:
            self._transport, _ = await self._loop.create_datagram_endpoint(Near, ("127.0.0.1", 0))
            self.port = self._transport.get_extra_info("sockname")[1]
            try:
                self._server = await asyncio.start_server(self._serve_tcp, "127.0.0.1", self.port)
            except OSError:  # somebody has that port over TCP: another one
                self._transport.close()

    async def stop(self) -> None:
        if self._transport is not None and self._server is not None:
            self._transport.close()
            self._server.close()

    async def _ask(self, data: bytes, back_to: Any) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            far.setblocking(False)
            far.connect(self._far)
            await self._loop.sock_sendall(far, data)
            async with asyncio.timeout(5):
                answer = await self._loop.sock_recv(far, 1 << 16)
        if self._transport is not None and not self.is_silent:
            self._transport.sendto(answer, back_to)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), contextlib.suppress(OSError):
            if not self.is_silent:
                await _relay(reader, writer, *await asyncio.open_connection(*self._far))
