"""The GET of an MTA-STS policy, at addresses of our own resolution and over a judged certificate (RFC 8461 §3.3)."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import h11

from rtls_analysis.scanner.smtp_client import Connect, connect_failure, open_connection
from rtls_analysis.scanner.tls import TlsPump
from rtls_analysis.standards.certificates import PkixState, Roots, check_pkix
from rtls_analysis.standards.mta_sts import StsPolicyState
from rtls_analysis.standards.smtp_session import SessionOutcome

PATH = "/.well-known/mta-sts.txt"

CONNECT_SECONDS = 10.0
"""How long one address may take to accept a connection."""

_ADDRESSES = 2  # tried at most
_READ = 1 << 14
_HEADERS = 1 << 14  # bytes of one header section
_EVENTS = 2000  # pieces of an answer: a policy in chunks of a byte is meant to hurt


@dataclass(frozen=True, slots=True)
class PolicyAttempt:
    """One connection that was made for a policy; `outcome` is a word of `StsPolicyState`, or ``http 200``."""

    address: str
    started_at: dt.datetime
    ended_at: dt.datetime
    outcome: str


@dataclass(frozen=True, slots=True)
class PolicyFetch:
    """What the policy host answered, or why nothing could be had from it.

    `state` is None where an HTTP answer came: `standards.mta_sts.check_policy_response` judges that. `body` is
    as sent, of whatever media type or encoding, and one byte longer than the cap where it was cut there; None
    where the status is not 200. `chain` holds the certificates as sent, DER, leaf first, of the last `address`.
    """

    state: StsPolicyState | None
    http_status: int | None = None
    content_type: str | None = None
    body: bytes | None = None
    address: str | None = None
    chain: tuple[bytes, ...] = ()
    detail: str = ""
    attempts: tuple[PolicyAttempt, ...] = ()


@functools.cache
def policy_context() -> ssl.SSLContext:
    """Make the context for policy hosts: TLS 1.2 and up, ordinary ciphers; we judge the certificate ourselves."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


async def fetch_policy(
    host: str,
    addresses: Sequence[str],
    *,
    roots: Roots,
    port: int = 443,
    deadline: float = 60.0,
    cap: int = 65536,
    user_agent: str = "rtls_analysis",
    source: str | None = None,
    connect: Connect | None = None,
) -> PolicyFetch:
    """Fetch ``https://<host>/.well-known/mta-sts.txt`` as a sender does.

    Parameters
    ----------
    host
        The policy host, ``mta-sts.<policy domain>``, as A-labels.
    addresses
        Where it is, in order; the second is tried only where the first takes no connection, a third never.
    deadline
        Seconds for all of it, however slowly bytes drip in.
    cap
        Bytes of body that are read.
    source, connect
        As for `smtp_client.run_session`.

    Raises
    ------
    LocalTrouble
        A connection failed for want of something on our side.

    Notes
    -----
    No redirect is followed and nothing is decoded (§3.3). The certificate must be good before a byte of the
    request is sent. An answer that broke off is `connect_failed`: the policy could not be had; a body that ends
    with the connection is whole only after a close_notify (RFC 9112 §9.8). An answer that is not HTTP is
    `http_status`, for it was had.
    """
    if not addresses:
        return PolicyFetch(StsPolicyState.NO_ADDRESS, detail=f"{host} has no address")
    told = _Told()
    try:
        async with asyncio.timeout(deadline):
            for address in addresses[:_ADDRESSES]:
                told.begin(address)
                if (link := await _connect(address, port, told, source, connect)) is None:
                    continue
                try:
                    await _shake_hands(link, host, roots, told)
                    await _get(link, host if port == 443 else f"{host}:{port}", user_agent, cap, told)
                finally:
                    link.transport.abort()
                break
    except TimeoutError:
        told.fail(StsPolicyState.TIMEOUT, f"no whole answer within {deadline:g} s")
    except _Failure as failure:
        told.fail(failure.state, str(failure))
    told.end()
    return PolicyFetch(
        state=told.state,
        http_status=told.http_status,
        content_type=told.content_type,
        body=told.body,
        address=told.address,
        chain=told.chain,
        detail="; ".join(told.details),
        attempts=tuple(told.attempts),
    )


@dataclass(slots=True)
class _Told:
    """What is known so far, so that a deadline loses none of it."""

    state: StsPolicyState | None = None
    http_status: int | None = None
    content_type: str | None = None
    body: bytes | None = None
    address: str | None = None
    started_at: dt.datetime | None = None
    chain: tuple[bytes, ...] = ()
    details: list[str] = field(default_factory=list)
    attempts: list[PolicyAttempt] = field(default_factory=list)

    def begin(self, address: str) -> None:
        self.state = None
        self.address = address
        self.started_at = dt.datetime.now(dt.UTC)

    def fail(self, state: StsPolicyState, detail: str) -> None:
        self.state = state
        self.body = None
        self.details.append(detail)

    def end(self) -> None:
        """Put the connection at hand on record."""
        if self.address is not None and self.started_at is not None:
            outcome = str(self.state or f"http {self.http_status}")
            ended_at = dt.datetime.now(dt.UTC)
            self.attempts.append(PolicyAttempt(self.address, self.started_at, ended_at, outcome))
            self.started_at = None


class _Failure(Exception):
    """The fetch is over without an HTTP answer to judge."""

    def __init__(self, state: StsPolicyState, detail: str) -> None:
        super().__init__(detail)
        self.state = state


class _Link:
    """TLS over a connection: decrypted bytes in, plain bytes out."""

    __slots__ = ("_decrypted", "pump", "reader", "transport")

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.Transport) -> None:
        self.reader = reader
        self.transport = transport
        self.pump = TlsPump()
        self._decrypted = b""

    def write(self, data: bytes) -> None:
        self.transport.write(self.pump.write(data))

    async def receive(self) -> bool:
        """Take in what comes next; False at the end of the connection."""
        try:
            data = await self.reader.read(_READ)
        except OSError:  # reset
            return False
        decrypted, outgoing = self.pump.feed(data)
        self._decrypted += decrypted
        if outgoing:
            self.transport.write(outgoing)
        return bool(data)

    async def read(self) -> bytes:
        """Give decrypted bytes; none where the server closed TLS in good order."""
        while not self._decrypted:
            if self.pump.closed:
                return b""
            if self.pump.failure:
                raise _Failure(StsPolicyState.TLS_FAILED, f"{self.pump.failure}, after the handshake")
            if not await self.receive():
                raise _Failure(StsPolicyState.CONNECT_FAILED, "the connection ended within the answer")
        data, self._decrypted = self._decrypted, b""
        return data


async def _connect(
    address: str, port: int, told: _Told, source: str | None, connect: Connect | None
) -> _Link | None:
    """Connect to one address; None, with the reason told, where that fails."""
    reader = asyncio.StreamReader(limit=_READ)
    protocol = _Opened(reader)
    link = None
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await open_connection(protocol, address, port, source=source, connect=connect)
        if protocol.made is not None:
            link = _Link(reader, protocol.made)
    except OSError as error:
        outcome, detail = connect_failure(error, CONNECT_SECONDS)
        timed_out = outcome is SessionOutcome.TIMEOUT
        state = StsPolicyState.TIMEOUT if timed_out else StsPolicyState.CONNECT_FAILED
        told.fail(state, f"{address}: {detail}")
        told.end()
    finally:
        if link is None and protocol.made is not None:  # the limit struck just when the connection stood
            protocol.made.abort()
    return link


class _Opened(asyncio.StreamReaderProtocol):
    """A stream that keeps its transport at hand."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self.made: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        super().connection_made(transport)


async def _shake_hands(link: _Link, host: str, roots: Roots, told: _Told) -> None:
    pump = link.pump
    link.transport.write(pump.start(policy_context(), host))
    while not pump.established:
        alive = await link.receive()
        if pump.failure:
            raise _Failure(StsPolicyState.TLS_FAILED, pump.failure)
        if len(pump.plaintext) >= 5 and not pump.spoke_tls:
            raise _Failure(StsPolicyState.TLS_FAILED, "plaintext in place of the handshake")
        if not alive:
            raise _Failure(StsPolicyState.TLS_FAILED, "the server closed the connection during the handshake")
    told.chain = pump.facts().chain
    check = check_pkix(told.chain, roots, host, dt.datetime.now(dt.UTC), cn_id=False)
    if check.state is not PkixState.VALID:
        raise _Failure(StsPolicyState.CERTIFICATE_INVALID, check.detail or str(check.state))


async def _get(link: _Link, authority: str, user_agent: str, cap: int, told: _Told) -> None:
    """Ask for the policy and read the answer into `told`."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEADERS)
    headers = [
        ("Host", authority),
        ("User-Agent", user_agent),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    request = http.send(h11.Request(method="GET", target=PATH, headers=headers)) or b""
    link.write(request + (http.send(h11.EndOfMessage()) or b""))
    body = bytearray()
    for _ in range(_EVENTS):
        try:
            event = http.next_event()
        except h11.RemoteProtocolError as error:
            if told.http_status is None:
                raise _Failure(StsPolicyState.HTTP_STATUS, f"no HTTP answer: {error}") from None
            raise _Failure(StsPolicyState.CONNECT_FAILED, f"the answer broke off: {error}") from None
        if event is h11.NEED_DATA:
            data = await link.read()
            if not data and told.http_status is None:
                raise _Failure(StsPolicyState.CONNECT_FAILED, "the server closed TLS without an answer")
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            told.http_status = event.status_code
            told.content_type = _header(event, b"content-type")
            if event.status_code != 200:
                if location := _header(event, b"location"):
                    told.details.append(f"location: {location}")
                return
            if encoding := _header(event, b"content-encoding"):
                told.details.append(f"content-encoding: {encoding}")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > cap:
                told.body = bytes(body[: cap + 1])
                told.details.append(f"body longer than {cap} bytes")
                return
        elif isinstance(event, h11.EndOfMessage):
            told.body = bytes(body)
            return
    raise _Failure(StsPolicyState.TOO_LARGE, f"an answer in more than {_EVENTS} pieces")


def _header(response: h11.Response, name: bytes) -> str | None:
    """Give the first field of a name, no longer than evidence need be."""
    for key, value in response.headers:
        if key == name:
            return bytes(value[:512]).decode("latin-1")
    return None
