"""Connections through a SOCKS5 proxy, such as ``ssh -D``: for a vantage where port 25 is open (RFC 1928, 1929)."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from urllib.parse import unquote, urlsplit

from rtls_analysis.scanner.smtp_client import Connect, LocalTrouble

_VERSION = 5
_NO_AUTHENTICATION, _PASSWORD, _NONE_FITS = 0, 2, 0xFF
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4

# what the proxy says when it has no connection (RFC 1928 §6): that one server could not be had through it
_REPLIES = {
    1: (errno.EHOSTUNREACH, "general failure"),
    2: (errno.EHOSTUNREACH, "not allowed by its rules"),
    3: (errno.ENETUNREACH, "network unreachable"),
    4: (errno.EHOSTUNREACH, "host unreachable"),
    5: (errno.ECONNREFUSED, "connection refused"),
    6: (errno.ETIMEDOUT, "time to live expired"),
    7: (errno.EHOSTUNREACH, "it cannot connect"),
    8: (errno.EHOSTUNREACH, "it does not take this kind of address"),
}


class ProxyProblem(ValueError):
    """A text that names no proxy: one line that says what came and what would do."""


def parse_proxy(text: str) -> tuple[str, int, str, str]:
    """Parse ``socks5://[USER:PASSWORD@]HOST:PORT``: host, port, user and password.

    >>> parse_proxy("socks5://127.0.0.1:1080")
    ('127.0.0.1', 1080, '', '')

    Raises
    ------
    ProxyProblem
        The text is none.
    """
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port or 1080
    except ValueError:
        host, port, parts = None, 0, None
    if parts is None or parts.scheme not in ("socks5", "socks5h") or not host or parts.path.strip("/"):
        raise ProxyProblem(f"not a proxy: {text!r}; give socks5://HOST:PORT")
    return host, port, unquote(parts.username or ""), unquote(parts.password or "")


def proxy_connect(proxy: str) -> Connect:
    """Give the hook that connects through a proxy, to addresses only: names are looked up here.

    The hook raises OSError for what the proxy says of a server, and `LocalTrouble` for what is wrong with the
    proxy: that is no fact about the server.

    Notes
    -----
    ``ssh -D`` reports success before it has tried, and closes the connection where it then fails: such servers come
    out as `closed_early` before the greeting.
    """
    host, port, user, password = parse_proxy(proxy)

    async def connect(address: str, to_port: int) -> socket.socket:
        connection = await _open(host, port)
        try:
            await _greet(connection, user, password)
            await _ask(connection, address, to_port)
        except BaseException:
            connection.close()
            raise
        return connection

    return connect


async def _open(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LocalTrouble(errno.EHOSTUNREACH, f"the proxy {host} is not known: {error.strerror}") from None
    family, kind, protocol, _name, where = found[0]
    connection = socket.socket(family, kind, protocol)
    connection.setblocking(False)
    try:
        await loop.sock_connect(connection, where)
    except OSError as error:
        connection.close()
        raise LocalTrouble(
            error.errno, f"the proxy {host}:{port} does not answer: {error.strerror}"
        ) from None
    except BaseException:
        connection.close()
        raise
    return connection


async def _send(connection: socket.socket, data: bytes) -> None:
    try:
        await asyncio.get_running_loop().sock_sendall(connection, data)
    except OSError as error:
        raise _broken(error.strerror) from None


async def _read(connection: socket.socket, size: int) -> bytes:
    """Read so many bytes and no more: what follows is the server's."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        try:
            more = await loop.sock_recv(connection, size - len(data))
        except OSError as error:
            raise _broken(error.strerror) from None
        if not more:
            raise _broken("it closed the connection")
        data += more
    return data


def _broken(why: str | None) -> LocalTrouble:
    return LocalTrouble(errno.EPROTO, f"the proxy is of no use: {why or 'the connection to it broke'}")


async def _greet(connection: socket.socket, user: str, password: str) -> None:
    methods = bytes([_NO_AUTHENTICATION, _PASSWORD] if user else [_NO_AUTHENTICATION])
    await _send(connection, bytes([_VERSION, len(methods)]) + methods)
    version, method = await _read(connection, 2)
    if version != _VERSION:
        raise _broken("it does not speak SOCKS5")
    if method == _NONE_FITS or method not in methods:
        raise _broken("it wants another way of logging in")
    if method == _PASSWORD:
        name, word = user.encode()[:255], password.encode()[:255]
        await _send(connection, b"\x01" + bytes([len(name)]) + name + bytes([len(word)]) + word)
        if (await _read(connection, 2))[1] != 0:
            raise _broken("it does not take this user and password")


async def _ask(connection: socket.socket, address: str, port: int) -> None:
    packed = ipaddress.ip_address(address).packed
    kind = _IPV4 if len(packed) == 4 else _IPV6
    await _send(connection, bytes([_VERSION, _CONNECT, 0, kind]) + packed + port.to_bytes(2))
    version, reply, _reserved, kind = await _read(connection, 4)
    if version != _VERSION:
        raise _broken("it does not speak SOCKS5")
    if reply:
        number, words = _REPLIES.get(reply, (errno.EHOSTUNREACH, f"reply {reply}"))
        raise OSError(number, f"the proxy says: {words}")
    length = {_IPV4: 4, _IPV6: 16}.get(kind)
    if length is None:
        length = (await _read(connection, 1))[0] if kind == _NAME else 0
    await _read(connection, length + 2)
