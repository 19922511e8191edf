"""SOCKS5 as RFC 1928 and 1929 have it: what the proxy says of a server, apart from what is wrong with the proxy."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.scanner.smtp_client import LocalTrouble, connect_failure
from rtls_analysis.scanner.socks import ProxyProblem, parse_proxy, proxy_connect
from rtls_analysis.standards.smtp_session import SessionOutcome
from tests.scanner.relays import SocksProxy, closing

PROXIES = [
    ("as ssh -D has it", "socks5://127.0.0.1:1080", ("127.0.0.1", 1080, "", "")),
    ("the usual port", "socks5://proxy.example.org", ("proxy.example.org", 1080, "", "")),
    ("names looked up there, which we never do", "socks5h://localhost:9050", ("localhost", 9050, "", "")),
    ("IPv6", "socks5://[2001:db8::1]:1080", ("2001:db8::1", 1080, "", "")),
    ("a user", "socks5://me:p%40ss@10.0.0.1:99", ("10.0.0.1", 99, "me", "p@ss")),
    ("blanks around it, a slash at its end", " socks5://127.0.0.1:1080/ ", ("127.0.0.1", 1080, "", "")),
]
NO_PROXIES = [
    "",
    "127.0.0.1:1080",
    "http://127.0.0.1:3128",
    "socks4://127.0.0.1:1080",
    "socks5://",
    "socks5://:1080",
    "socks5://127.0.0.1:99999",
    "socks5://127.0.0.1:x",
    "socks5://127.0.0.1/path",
    "socks5://[2001:db8::1",
]


@pytest.mark.parametrize(("text", "parsed"), [pytest.param(*case, id=why) for why, *case in PROXIES])
def test_parse_proxy(text: str, parsed: tuple[str, int, str, str]) -> None:
    """A proxy is read as people write it."""
    assert parse_proxy(text) == parsed


@pytest.mark.parametrize("text", NO_PROXIES)
def test_what_is_no_proxy_gets_one_line(text: str) -> None:
    """The line says what came and what would do."""
    with pytest.raises(ProxyProblem, match=r"^not a proxy: .*; give socks5://HOST:PORT$"):
        parse_proxy(text)


@given(text=st.one_of(st.text(max_size=40), st.from_regex(r"socks5://[^\n]{0,30}", fullmatch=True)))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_proxy_or_a_problem(text: str) -> None:
    """No text raises anything else."""
    try:
        host, port, _user, _password = parse_proxy(text)
    except ProxyProblem:
        return
    assert host
    assert 0 < port < 65536


@pytest.fixture
def echo() -> Iterator[int]:
    """A server on 127.0.0.1 and ::1 that says who called, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    async def serve() -> None:
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            await loop.sock_sendall(connection, b"220 hello\r\n")
            connection.close()

    with SocksProxy() as runner:  # only for its loop
        task = asyncio.run_coroutine_threadsafe(serve(), runner._loop)
        yield listener.getsockname()[1]
        task.cancel()
    listener.close()


async def _fetch(proxy: str, address: str, port: int) -> bytes:
    connection = await proxy_connect(proxy)(address, port)
    with connection:
        loop = asyncio.get_running_loop()
        return await loop.sock_recv(connection, 100)


@pytest.mark.parametrize(("user", "password"), [("", ""), ("me", "secret: ü@/"), ("me", "x" * 255)])
def test_a_connection_through_a_proxy(echo: int, user: str, password: str) -> None:
    """The first byte that arrives is the server's, whatever name the proxy gives for itself."""
    with SocksProxy(user=user, password=password) as proxy:
        from urllib.parse import quote

        who = f"{quote(user)}:{quote(password, safe='')}@" if user else ""
        url = f"socks5://{who}127.0.0.1:{proxy.port}"
        assert asyncio.run(_fetch(url, "127.0.0.1", echo)) == b"220 hello\r\n"
        assert proxy.connections == {("127.0.0.1", echo): 1}


REPLIES = [
    (1, SessionOutcome.UNREACHABLE, "the proxy says: general failure"),
    (2, SessionOutcome.UNREACHABLE, "the proxy says: not allowed by its rules"),
    (3, SessionOutcome.UNREACHABLE, "the proxy says: network unreachable"),
    (4, SessionOutcome.UNREACHABLE, "the proxy says: host unreachable"),
    (5, SessionOutcome.REFUSED, "the proxy says: connection refused"),
    (6, SessionOutcome.TIMEOUT, "the proxy says: time to live expired"),
    (7, SessionOutcome.UNREACHABLE, "the proxy says: it cannot connect"),
    (8, SessionOutcome.UNREACHABLE, "the proxy says: it does not take this kind of address"),
    (99, SessionOutcome.UNREACHABLE, "the proxy says: reply 99"),
]


@pytest.mark.parametrize(("reply", "outcome", "detail"), REPLIES)
@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_what_a_proxy_says_of_a_server(
    reply: int, outcome: SessionOutcome, detail: str, address: str
) -> None:
    """A reply is a fact about that server, as a failed connection of our own would be."""
    with SocksProxy(answers={address: reply}) as proxy:
        with pytest.raises(OSError, match="the proxy says") as caught:
            asyncio.run(_fetch(proxy.url, address, 25))
        assert connect_failure(caught.value, 10.0) == (outcome, detail)
        assert proxy.connections == {(address, 25): 1}


NONSENSE = [
    ("a web server", b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak SOCKS5"),
    ("SOCKS4", b"\x00\x5b\x00\x00", "does not speak SOCKS5"),
    ("it hangs up", b"", "closed the connection"),
    ("half a word", b"\x05", "closed the connection"),
    ("it wants GSSAPI", b"\x05\x01", "another way of logging in"),
    ("it wants what we did not offer", b"\x05\x02", "another way of logging in"),
    ("nothing fits", b"\x05\xff", "another way of logging in"),
    ("another protocol in the second reply", b"\x05\x00\x04\x00\x00\x01", "does not speak SOCKS5"),
    ("the second reply breaks off", b"\x05\x00\x05\x00\x00\x01\x7f", "closed the connection"),
]


@pytest.mark.parametrize(("said", "words"), [pytest.param(*case, id=why) for why, *case in NONSENSE])
def test_a_proxy_that_is_none_is_our_own_trouble(said: bytes, words: str) -> None:
    """It says nothing of the server."""

    async def run() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with closing(writer), contextlib.suppress(ConnectionResetError):
                writer.write(said)
                writer.write_eof()
                await reader.read()
            is_over.set()

        is_over = asyncio.Event()
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            try:
                await _fetch(f"socks5://127.0.0.1:{port}", "192.0.2.1", 25)
            finally:
                await is_over.wait()
                await asyncio.sleep(0)  # for its transport to close

    with pytest.raises(LocalTrouble, match=words) as caught:
        asyncio.run(run())
    with pytest.raises(LocalTrouble):
        connect_failure(caught.value, 10.0)


def test_a_proxy_that_does_not_know_us_is_our_own_trouble() -> None:
    """A wrong password, and one where the proxy wants a login and there is none."""
    with SocksProxy(user="me", password="secret") as proxy:
        with pytest.raises(LocalTrouble, match="does not take this user and password"):
            asyncio.run(_fetch(f"socks5://me:wrong@127.0.0.1:{proxy.port}", "192.0.2.1", 25))
        with pytest.raises(LocalTrouble, match="another way of logging in"):
            asyncio.run(_fetch(f"socks5://127.0.0.1:{proxy.port}", "192.0.2.1", 25))
        assert not proxy.connections


def test_a_proxy_that_is_not_there_is_our_own_trouble() -> None:
    """Refused, or unknown by name: the line names the proxy."""
    with pytest.raises(LocalTrouble, match=r"the proxy 127\.0\.0\.1:1 does not answer") as caught:
        asyncio.run(_fetch("socks5://127.0.0.1:1", "192.0.2.1", 25))
    assert caught.value.errno == errno.ECONNREFUSED
    with pytest.raises(LocalTrouble, match=r"the proxy nowhere\.invalid is not known"):
        asyncio.run(_fetch("socks5://nowhere.invalid:1", "192.0.2.1", 25))
