from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rtls_analysis.scanner.policy_fetch import PATH, PolicyFetch, fetch_policy
from rtls_analysis.scanner.smtp_client import LocalTrouble
from rtls_analysis.standards.certificates import Roots
from rtls_analysis.standards.mta_sts import StsMode, StsPolicyState, check_policy_response

HOST = "mta-sts.example.org"
POLICY = b"version: STSv1\r\nmode: enforce\r\nmx: mx.example.org\r\nmax_age: 604800\r\n"
CAP = 4096


class Server:
    """A server on loopback that answers each connection with what a test says, whatever HTTP would want."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.server_names: list[str | None] = []
        self._listening: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()

    def start(
        self,
        answer: Callable[[Any], None],
        credentials: Any = None,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> int:
        """Serve `answer` over TLS, or, without credentials, over the bare connection: gives the port."""
        context = None
        if credentials is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(credentials.chain, credentials.key)
            context.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        listening = socket.create_server((address, port))
        self._listening.append(listening)
        self._run(self._accept, listening, context, answer)
        return int(listening.getsockname()[1])

    def _run(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(
        self, listening: socket.socket, context: ssl.SSLContext | None, answer: Callable[[Any], None]
    ) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            self._run(self._serve, connection, context, answer)

    def _serve(
        self, connection: socket.socket, context: ssl.SSLContext | None, answer: Callable[[Any], None]
    ) -> None:
        connection.settimeout(10)
        stream: Any = connection
        try:
            if context is not None:
                stream = context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False)
                self.requests.append(self._request(stream))
            answer(stream)
        except OSError:
            pass
        finally:
            stream.close()
            connection.close()

    @staticmethod
    def _request(stream: Any) -> bytes:
        request = b""
        try:
            while b"\r\n\r\n" not in request and (data := stream.recv(4096)):
                request += data
        except OSError:
            pass
        return request

    def pause(self, seconds: float) -> bool:
        """Wait, but not beyond the end of the test: tells whether there is one."""
        return self._over.wait(seconds)

    def stop(self) -> None:
        self._over.set()
        while self._listening:
            listening = self._listening.pop()
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def roots(authority: Any) -> Roots:
    return Roots.from_pem(authority.root_pem)


def fetch(roots: Roots, port: int, *addresses: str, loop: Any = None, **options: Any) -> PolicyFetch:
    settings = {"cap": CAP, "deadline": 30.0, "roots": roots, "port": port, **options}
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(fetch_policy(HOST, addresses or ("127.0.0.1",), **settings))


def well(data: bytes) -> Callable[[Any], None]:
    """Answer, and end TLS in good order."""

    def answer(stream: Any) -> None:
        stream.sendall(data)
        stream.unwrap()

    return answer


def abruptly(data: bytes) -> Callable[[Any], None]:
    """Answer, and end the connection without a word."""

    def answer(stream: Any) -> None:
        stream.sendall(data)
        stream.shutdown(socket.SHUT_RDWR)

    return answer


def response(
    body: bytes = POLICY,
    status: str = "200 OK",
    *more: str,
    media_type: str = "text/plain",
    length: bool = True,
) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {media_type}", *more]
    lines += [f"Content-Length: {len(body)}"] * length
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunks(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])
    return response(coded, "200 OK", "Transfer-Encoding: chunked", length=False)


OLD = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"

# why, what is answered, how it ends; state (None: there is an answer to judge), status, body, words of the detail
ANSWERS: list[tuple[str, bytes, Callable[..., Any], StsPolicyState | None, int | None, bytes | None, str]] = [
    ("a policy", response(), well, None, 200, POLICY, ""),
    ("a policy, then no farewell", response(), abruptly, None, 200, POLICY, ""),
    ("more behind it", response() + b"HTTP/1.1 200 OK\r\n\r\n", abruptly, None, 200, POLICY, ""),
    ("in chunks", chunks(POLICY, 7), well, None, 200, POLICY, ""),
    ("HTTP/1.0, until the end", OLD + POLICY, well, None, 200, POLICY, ""),
    ("empty", response(b""), well, None, 200, b"", ""),
    ("media type with parameters", response(media_type="text/plain; charset=utf-8"), well, None, 200, POLICY, ""),
    ("another media type", response(b"<html>", media_type="text/html"), well, None, 200, b"<html>", ""),
    ("no media type", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", well, None, 200, b"abc", ""),
    ("early hints before it", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + response(), well, None, 200, POLICY, ""),
    ("compressed", response(gzip.compress(POLICY, mtime=0), "200 OK", "Content-Encoding: gzip"), well, None, 200,
     gzip.compress(POLICY, mtime=0), "content-encoding: gzip"),
    ("a bomb", response(gzip.compress(bytes(10_000_000), mtime=0), "200 OK", "Content-Encoding: gzip"), abruptly, None,
     200, gzip.compress(bytes(10_000_000), mtime=0)[: CAP + 1], f"gzip; body longer than {CAP} bytes"),
    ("exactly the cap", response(b"x" * CAP), well, None, 200, b"x" * CAP, ""),
    ("one more than the cap", response(b"x" * (CAP + 1)), abruptly, None, 200, b"x" * (CAP + 1), "longer than 4096"),
    ("much more, in chunks", chunks(b"x" * 100_000, 5000), abruptly, None, 200, b"x" * (CAP + 1), "longer than 4096"),
    ("much more, until the end", OLD + b"x" * 100_000, abruptly, None, 200, b"x" * (CAP + 1), "longer than 4096"),
    ("a length of exabytes", b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\nabc", well,
     StsPolicyState.CONNECT_FAILED, 200, None, "the answer broke off"),
    ("redirect 301", response(b"", "301 Moved Permanently", "Location: https://www.example.org/x"), well, None, 301,
     None, "location: https://www.example.org/x"),
    ("redirect 302 to itself", response(b"", "302 Found", f"Location: {PATH}"), well, None, 302, None, f"location: {PATH}"),
    ("redirect 307 without a place", response(b"", "307 Temporary Redirect"), well, None, 307, None, ""),
    ("not found", response(b"no", "404 Not Found"), well, None, 404, None, ""),
    ("created, but not ok", response(POLICY, "201 Created"), well, None, 201, None, ""),
    ("no content", b"HTTP/1.1 204 No Content\r\n\r\n", well, None, 204, None, ""),
    ("partial content", response(POLICY, "206 Partial Content"), well, None, 206, None, ""),
    ("server error", response(b"", "503 Service Unavailable"), well, None, 503, None, ""),
    ("HTTP/1.0, until the end, no farewell", OLD + POLICY, abruptly, StsPolicyState.CONNECT_FAILED, 200, None,
     "the connection ended within the answer"),
    ("shorter than its length", response(POLICY + b"x")[:-1], well, StsPolicyState.CONNECT_FAILED, 200, None,
     "the answer broke off"),
    ("shorter than its length, no farewell", response(POLICY + b"x")[:-1], abruptly, StsPolicyState.CONNECT_FAILED,
     200, None, "the connection ended within the answer"),
    ("chunks without the last", chunks(POLICY, 7)[:-5], well, StsPolicyState.CONNECT_FAILED, 200, None, "broke off"),
    ("a chunk of no number", response(b"zz\r\nabc\r\n0\r\n\r\n", "200 OK", "Transfer-Encoding: chunked", length=False),
     well, StsPolicyState.CONNECT_FAILED, 200, None, "the answer broke off"),
    ("two lengths", response(POLICY, "200 OK", "Content-Length: 3"), well, StsPolicyState.HTTP_STATUS, None, None,
     "no HTTP answer"),
    ("nothing", b"", well, StsPolicyState.CONNECT_FAILED, None, None, "closed TLS without an answer"),
    ("nothing, no farewell", b"", abruptly, StsPolicyState.CONNECT_FAILED, None, None, "ended within the answer"),
    ("half a status line", b"HTTP/1.1 20", well, StsPolicyState.CONNECT_FAILED, None, None, "without an answer"),
    ("garbage", b"\0\1\2garbage\r\n\r\n", well, StsPolicyState.HTTP_STATUS, None, None, "no HTTP answer"),
    ("the policy without HTTP", POLICY + b"\r\n", well, StsPolicyState.HTTP_STATUS, None, None, "no HTTP answer"),
    ("mail", b"220 mx.example.org ESMTP\r\n\r\n", well, StsPolicyState.HTTP_STATUS, None, None, "no HTTP answer"),
    ("HTTP/2 without being asked", b"\0\0\x12\4\0\0\0\0\0" + bytes(18), well, StsPolicyState.HTTP_STATUS, None, None, ""),
    ("another protocol", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", well, StsPolicyState.HTTP_STATUS,
     None, None, "no HTTP answer"),
    ("header without end", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40_000, abruptly, StsPolicyState.HTTP_STATUS, None, None,
     "no HTTP answer"),
    ("hints without end", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5000, abruptly, StsPolicyState.TOO_LARGE, None, None,
     "an answer in more than 2000 pieces"),
    ("chunks of one byte without end", chunks(b"x" * 5000, 1), abruptly, StsPolicyState.TOO_LARGE, 200, None,
     "an answer in more than 2000 pieces"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "ending", "state", "status", "body", "words"),
    [pytest.param(*row, id=why) for why, *row in ANSWERS],
)
def test_answers(
    server: Server,
    authority: Any,
    roots: Roots,
    data: bytes,
    ending: Callable[[bytes], Callable[[Any], None]],
    state: StsPolicyState | None,
    status: int | None,
    body: bytes | None,
    words: str,
) -> None:
    """What is answered is handed on as it came, or it is said why it could not be had."""
    port = server.start(ending(data), authority.good)
    got = fetch(roots, port)
    assert (got.state, got.http_status, got.body) == (state, status, body)
    assert words in got.detail
    assert bool(got.detail) == bool(words) or state is not None
    assert got.chain == authority.good.ders
    assert [attempt.outcome for attempt in got.attempts] == [str(state or f"http {status}")]
    assert got.attempts[0].started_at <= got.attempts[0].ended_at


JUDGED = [
    ("a policy", "valid"),
    ("in chunks", "valid"),
    ("HTTP/1.0, until the end", "valid"),
    ("media type with parameters", "valid"),
    ("empty", "invalid"),
    ("another media type", "content_type"),
    ("no media type", "content_type"),
    ("compressed", "invalid"),
    ("redirect 301", "redirect"),
    ("redirect 307 without a place", "redirect"),
    ("not found", "http_status"),
    ("created, but not ok", "http_status"),
    ("partial content", "http_status"),
    ("server error", "http_status"),
]


@pytest.mark.parametrize(("why", "state"), JUDGED)
def test_what_is_made_of_an_answer(
    server: Server, authority: Any, roots: Roots, why: str, state: str
) -> None:
    """The fetch does not judge; what it hands on gets the word that DESIGN has for it."""
    data, ending = next(row[1:3] for row in ANSWERS if row[0] == why)
    got = fetch(roots, server.start(ending(data), authority.good))
    assert got.http_status is not None
    assert check_policy_response(got.http_status, got.content_type, got.body).state == state


@pytest.mark.parametrize(
    "why", ["a policy", "HTTP/1.0, until the end, no farewell", "header without end", "nothing"]
)
def test_uvloop(server: Server, authority: Any, roots: Roots, why: str) -> None:
    """The loop that runs the fetch makes no difference."""
    uvloop = pytest.importorskip("uvloop")
    row = next(row for row in ANSWERS if row[0] == why)
    got = fetch(roots, server.start(row[2](row[1]), authority.good), loop=uvloop.new_event_loop)
    assert (got.state, got.http_status, got.body) == row[3:6]
    assert row[6] in got.detail


def test_more_than_64_kib_is_too_large(server: Server, authority: Any, roots: Roots) -> None:
    """With the default cap a body is cut one byte behind it, which is enough to call it too large."""
    port = server.start(abruptly(response(b"x" * 200_000)), authority.good)
    got = fetch(roots, port, cap=65536)
    assert got.body is not None
    assert len(got.body) == 65537
    assert check_policy_response(200, got.content_type, got.body).state is StsPolicyState.TOO_LARGE


def test_request(server: Server, authority: Any, roots: Roots) -> None:
    """The request is the one a sender would make: the well-known path, no other coding, server name and host."""
    port = server.start(well(response()), authority.good)
    fetch(roots, port, user_agent="probe of example.org")
    request, end, rest = server.requests[0].partition(b"\r\n\r\n")
    assert (end, rest) == (b"\r\n\r\n", b"")
    line, *fields = request.decode().lower().split("\r\n")
    assert line == "get /.well-known/mta-sts.txt http/1.1"
    assert sorted(fields) == [
        "accept-encoding: identity",
        "connection: close",
        f"host: {HOST}:{port}",
        "user-agent: probe of example.org",
    ]
    assert server.server_names == [HOST]


def test_no_redirect_is_followed(server: Server, authority: Any, roots: Roots) -> None:
    """After a redirect nothing more is asked, of nobody."""
    data = response(b"", "302 Found", f"Location: https://{HOST}{PATH}")
    fetch(roots, server.start(well(data), authority.good))
    assert len(server.requests) == 1


# -- certificates --------------------------------------------------------------------------------------------

CERTIFICATES = [
    (
        "wrong_name",
        "certificate_invalid",
        "the certificate is for www.example.org, not for mta-sts.example.org",
    ),
    ("cn_only", "certificate_invalid", "the certificate has no name to compare with mta-sts.example.org"),
    ("expired", "certificate_invalid", "expired on"),
    ("self_signed", "certificate_invalid", "is self-signed"),
]


@pytest.mark.parametrize(("which", "state", "words"), CERTIFICATES)
def test_certificates(
    server: Server, authority: Any, roots: Roots, which: str, state: str, words: str
) -> None:
    """Without a good certificate not a byte of the request is sent, and the chain is kept as evidence."""
    credentials = getattr(authority, which)
    got = fetch(roots, server.start(well(response()), credentials))
    server.stop()
    assert got.state == state
    assert words in got.detail
    assert got.chain == credentials.ders
    assert (got.http_status, got.body) == (None, None)
    assert [attempt.outcome for attempt in got.attempts] == [state]
    assert server.requests == [b""]


def test_unknown_root(server: Server, authority: Any) -> None:
    """A good certificate under roots that do not hold its own is none."""
    got = fetch(Roots([]), server.start(well(response()), authority.good))
    server.stop()
    assert got.state is StsPolicyState.CERTIFICATE_INVALID
    assert "the root 'root' is not trusted" in got.detail
    assert server.requests == [b""]


def test_rsa(server: Server, authority: Any, roots: Roots) -> None:
    """The kind of key is the host's affair."""
    assert fetch(roots, server.start(well(response()), authority.rsa)).body == POLICY


# -- what is no TLS ------------------------------------------------------------------------------------------


def send_only(data: bytes) -> Callable[[Any], None]:
    def answer(stream: Any) -> None:
        stream.sendall(data)
        stream.recv(4096)

    return answer


NO_TLS = [
    ("HTTP in the clear", response(), "plaintext in place of the handshake"),
    ("mail in the clear", b"220 mx.example.org ESMTP\r\n", "plaintext in place of the handshake"),
    ("an alert", b"\x15\x03\x03\x00\x02\x02\x28", "the server sent TLS alert handshake_failure"),
    ("a record that breaks off", b"\x16\x03\x03\x00\x7a\x02", "closed the connection during the handshake"),
    ("closed at once", b"", "closed the connection during the handshake"),
]


@pytest.mark.parametrize(("data", "words"), [pytest.param(*row, id=why) for why, *row in NO_TLS])
def test_no_tls(server: Server, roots: Roots, data: bytes, words: str) -> None:
    """What is no TLS is told at once, in words."""
    got = fetch(roots, server.start(send_only(data)))
    assert got.state is StsPolicyState.TLS_FAILED
    assert words in got.detail
    assert (got.chain, got.http_status) == ((), None)


def test_tls_too_old(openssl_server: Callable[..., int], authority: Any, roots: Roots) -> None:
    """A policy host that speaks nothing newer than TLS 1.1 is not spoken to (RFC 8461 §7.2)."""
    credentials = authority.good
    arguments = ["-cert", credentials.chain, "-key", credentials.key, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]
    got = fetch(roots, openssl_server(*arguments))
    assert got.state is StsPolicyState.TLS_FAILED
    assert "alert protocol_version" in got.detail


def test_openssl_serves_a_policy(
    openssl_server: Callable[..., int],
    authority: Any,
    roots: Roots,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`openssl s_server -WWW` serves a policy, over TLS 1.2 and 1.3."""
    (tmp_path / ".well-known").mkdir()
    (tmp_path / ".well-known" / "mta-sts.txt").write_bytes(POLICY)
    monkeypatch.chdir(tmp_path)
    credentials = authority.good
    for version in ("-tls1_2", "-tls1_3"):
        got = fetch(
            roots, openssl_server("-cert", credentials.chain, "-key", credentials.key, "-WWW", version)
        )
        assert (got.state, got.http_status, got.body) == (None, 200, POLICY)
        check = check_policy_response(200, got.content_type, got.body)
        assert check.policy is not None
        assert check.policy.mode is StsMode.ENFORCE


# -- addresses -----------------------------------------------------------------------------------------------


def test_no_address(roots: Roots) -> None:
    """A host without an address is no connection."""
    got = asyncio.run(fetch_policy(HOST, (), roots=roots))
    assert (got.state, got.attempts) == (StsPolicyState.NO_ADDRESS, ())


def test_second_address(server: Server, authority: Any, roots: Roots) -> None:
    """Where the first address takes no connection the second one is tried, and both are on record."""
    port = server.start(well(response()), authority.good, address="127.0.0.3")
    got = fetch(roots, port, "127.0.0.2", "127.0.0.3")
    assert (got.state, got.body, got.address) == (None, POLICY, "127.0.0.3")
    assert got.detail == "127.0.0.2: connection refused"
    assert [(attempt.address, attempt.outcome) for attempt in got.attempts] == [
        ("127.0.0.2", "connect_failed"),
        ("127.0.0.3", "http 200"),
    ]


def test_two_addresses_at_most(server: Server, authority: Any, roots: Roots) -> None:
    """A third address is never tried."""
    port = server.start(well(response()), authority.good, address="127.0.0.4")
    got = fetch(roots, port, "127.0.0.2", "127.0.0.3", "127.0.0.4")
    assert got.state is StsPolicyState.CONNECT_FAILED
    assert [attempt.address for attempt in got.attempts] == ["127.0.0.2", "127.0.0.3"]
    assert server.requests == []


def test_second_address_is_no_second_opinion(server: Server, authority: Any, roots: Roots) -> None:
    """An address that took the connection has the last word, however bad it is."""
    port = server.start(well(response()), authority.expired, address="127.0.0.2")
    server.start(well(response()), authority.good, address="127.0.0.3", port=port)
    got = fetch(roots, port, "127.0.0.2", "127.0.0.3")
    assert got.state is StsPolicyState.CERTIFICATE_INVALID
    assert [attempt.address for attempt in got.attempts] == ["127.0.0.2"]


# -- time ----------------------------------------------------------------------------------------------------


def test_deadline_in_a_drip(server: Server, authority: Any, roots: Roots) -> None:
    """A body that drips in is cut off at the deadline; certificate and status remain as evidence."""

    def answer(stream: Any) -> None:
        stream.sendall(response(b"", length=False)[:-2] + b"Content-Length: 1000\r\n\r\n")
        for _ in range(1000):
            stream.sendall(b"x")
            if server.pause(0.02):
                return

    got = fetch(roots, server.start(answer, authority.good), deadline=1.0)
    assert (got.state, got.http_status, got.body) == (StsPolicyState.TIMEOUT, 200, None)
    assert got.detail == "no whole answer within 1 s"
    assert got.chain == authority.good.ders
    assert got.address == "127.0.0.1"
    assert [attempt.outcome for attempt in got.attempts] == ["timeout"]


@pytest.mark.parametrize("stage", ["handshake", "answer"])
def test_deadline_in_silence(server: Server, authority: Any, roots: Roots, stage: str) -> None:
    """A server that takes the connection and says nothing is a time-out."""
    port = server.start(lambda _: server.pause(10), authority.good if stage == "answer" else None)
    got = fetch(roots, port, deadline=1.0)
    assert (got.state, got.http_status) == (StsPolicyState.TIMEOUT, None)
    assert bool(got.chain) == (stage == "answer")
    assert len(got.attempts) == 1


def test_connecting_has_a_limit_of_its_own(
    server: Server, authority: Any, roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that does not answer leaves time for the second one."""
    monkeypatch.setattr("rtls_analysis.scanner.policy_fetch.CONNECT_SECONDS", 0.2)
    port = server.start(well(response()), authority.good)

    async def connect(address: str, port: int) -> socket.socket:
        if address == "192.0.2.1":
            await asyncio.sleep(10)
        return socket.create_connection(("127.0.0.1", port))

    got = fetch(roots, port, "192.0.2.1", "192.0.2.2", connect=connect)
    assert (got.body, got.address) == (POLICY, "192.0.2.2")
    assert got.detail == "192.0.2.1: no connection within 0.2 s"
    assert [attempt.outcome for attempt in got.attempts] == ["timeout", "http 200"]


def test_deadline_while_connecting(roots: Roots) -> None:
    """The deadline holds for connecting too."""

    async def connect(address: str, port: int) -> socket.socket:
        await asyncio.sleep(10)
        raise AssertionError("not reached")

    got = fetch(roots, 443, "192.0.2.1", "192.0.2.2", connect=connect, deadline=0.2)
    assert got.state is StsPolicyState.TIMEOUT
    assert [attempt.outcome for attempt in got.attempts] == ["timeout"]


# -- hooks ---------------------------------------------------------------------------------------------------


def test_source_address(server: Server, authority: Any, roots: Roots) -> None:
    """The connection comes from the address that the caller names."""
    peers = []

    def answer(stream: Any) -> None:
        peers.append(stream.getpeername()[0])
        well(response())(stream)

    port = server.start(answer, authority.good)
    assert fetch(roots, port, source="127.0.0.9").body == POLICY
    assert peers == ["127.0.0.9"]


def test_connect_hook(server: Server, authority: Any, roots: Roots) -> None:
    """A hook makes the connection in place of the loop, and is asked with address and port."""
    port = server.start(well(response()), authority.good)
    asked = []

    async def connect(address: str, port_asked: int) -> socket.socket:
        asked.append((address, port_asked))
        connected = socket.create_connection(("127.0.0.1", port))
        connected.setblocking(False)
        return connected

    got = fetch(roots, 443, "192.0.2.7", connect=connect)
    assert (got.body, got.address) == (POLICY, "192.0.2.7")
    assert asked == [("192.0.2.7", 443)]
    assert b"host: mta-sts.example.org\r\n" in server.requests[0].lower()


def test_connect_hook_that_fails(roots: Roots) -> None:
    """What a hook raises is judged as `connect` itself; trouble of our own is no fact about the host."""

    async def refuses(address: str, port: int) -> socket.socket:
        raise ConnectionRefusedError(111, "refused")

    async def is_broken(address: str, port: int) -> socket.socket:
        raise LocalTrouble("the proxy is down")

    got = fetch(roots, 443, "192.0.2.7", connect=refuses)
    assert (got.state, got.detail) == (StsPolicyState.CONNECT_FAILED, "192.0.2.7: connection refused")
    with pytest.raises(LocalTrouble, match="the proxy is down"):
        fetch(roots, 443, "192.0.2.7", connect=is_broken)
