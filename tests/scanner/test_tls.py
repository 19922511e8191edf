from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtls_analysis.scanner.tls import (
    HANDSHAKE_BUDGET,
    PLAINTEXT_BUDGET,
    KeyExchangeReader,
    TlsPump,
    group_name,
    lax_context,
)

RETRY_REQUEST = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
CONTEXT = lax_context()


def record(kind: int, body: bytes) -> bytes:
    return bytes([kind, 3, 3]) + len(body).to_bytes(2) + body


def message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(3) + body


def server_hello(extensions: bytes, random: bytes = bytes(32), session: bytes = bytes(32)) -> bytes:
    body = b"\x03\x03" + random + bytes([len(session)]) + session + b"\x13\x01\x00"
    return message(2, body + len(extensions).to_bytes(2) + extensions)


def hello_13(group: int, random: bytes = bytes(32), share: bytes = b"\x00\x01x") -> bytes:
    key_share = group.to_bytes(2) + share
    extensions = b"\x00\x2b\x00\x02\x03\x04" + b"\x00\x33" + len(key_share).to_bytes(2) + key_share
    return server_hello(extensions, random)


def hello_12(key_exchange: bytes | None) -> bytes:
    """Everything up to ServerHelloDone, with a certificate of 3,000 bytes."""
    flight = server_hello(b"\xff\x01\x00\x01\x00") + message(11, bytes(3000))
    if key_exchange is not None:
        flight += message(12, key_exchange)
    return flight + message(14, b"")


def prime(bits: int) -> bytes:
    data = ((1 << bits) - 1).to_bytes((bits + 7) // 8)
    return len(data).to_bytes(2) + data + b"\x00\x01\x02" + b"\x00\x04abcd"


ECDHE_P256 = b"\x03\x00\x17\x41" + bytes(65)
HANDSHAKES = [
    ("TLS 1.3 ServerHello", "TLS_AES_128_GCM_SHA256", [record(22, hello_13(29))], "X25519"),
    ("TLS 1.3, post-quantum", "TLS_AES_128_GCM_SHA256", [record(22, hello_13(4588))], "X25519MLKEM768"),
    ("TLS 1.3, group without a name", "TLS_AES_128_GCM_SHA256", [record(22, hello_13(0xABC))], "0x0ABC"),
    (
        "the ServerHello after a HelloRetryRequest counts, a ChangeCipherSpec between them",
        "TLS_AES_128_GCM_SHA256",
        [record(22, hello_13(23, RETRY_REQUEST, b"")), record(20, b"\x01"), record(22, hello_13(24))],
        "P-384",
    ),
    ("TLS 1.3, no key share", "TLS_AES_128_GCM_SHA256", [record(22, server_hello(b"\0\x2b\0\2\3\4"))], ""),
    ("TLS 1.2 ECDHE", "ECDHE-RSA-AES128-SHA", [record(22, hello_12(ECDHE_P256))], "P-256"),
    ("anonymous ECDH", "AECDH-AES128-SHA", [record(22, hello_12(ECDHE_P256))], "P-256"),
    ("explicit curve", "ECDHE-RSA-AES128-SHA", [record(22, hello_12(b"\x01" + bytes(80)))], ""),
    ("TLS 1.2 DHE", "DHE-RSA-AES128-SHA", [record(22, hello_12(prime(2048)))], "DHE-2048"),
    ("DHE, length like a named curve", "DHE-RSA-AES128-SHA", [record(22, hello_12(prime(6144)))], "DHE-6144"),
    ("anonymous DH, odd size", "ADH-AES128-SHA", [record(22, hello_12(prime(1023)))], "DHE-1023"),
    ("DHE, leading zero byte", "DHE-RSA-AES128-SHA", [record(22, hello_12(b"\0\x81\0" + b"\xff" * 128))], "DHE-1024"),
    ("static RSA", "AES128-SHA", [record(22, hello_12(None))], "RSA"),
    (
        "one message over many records",
        "ECDHE-RSA-AES128-SHA",
        [record(22, bytes([byte])) for byte in hello_12(ECDHE_P256)],
        "P-256",
    ),
]  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
@pytest.mark.parametrize(
    ("cipher", "records", "name"), [pytest.param(c, r, n, id=why) for why, c, r, n in HANDSHAKES]
)
def test_key_exchange_reader(cipher: str, records: list[bytes], name: str, chunk: int) -> None:
    """The key exchange is read out of the handshake however its bytes are cut."""
    reader = KeyExchangeReader()
    data = b"".join(records)
    for at in range(0, len(data), chunk):
        reader.feed(data[at : at + chunk])
    assert reader.name(cipher) == name
    assert reader.done


@given(
    st.binary(max_size=400), st.integers(1, 50), st.sampled_from(["TLS_X", "ECDHE-X", "DHE-X", "AES128-SHA"])
)
def test_key_exchange_reader_takes_anything(data: bytes, chunk: int, cipher: str) -> None:
    """Whatever comes is read without an exception, and the same however it is cut."""
    whole, cut = KeyExchangeReader(), KeyExchangeReader()
    whole.feed(data)
    for at in range(0, len(data), chunk):
        cut.feed(data[at : at + chunk])
    assert whole.name(cipher) == cut.name(cipher)


@given(st.binary(max_size=300))
def test_server_hello_of_anything(body: bytes) -> None:
    """A ServerHello with any body is read without an exception."""
    reader = KeyExchangeReader()
    reader.feed(record(22, message(2, body) + message(12, body) + message(14, b"")))
    reader.name("ECDHE-X")
    reader.name("DHE-X")


def test_reader_keeps_little() -> None:
    """Of an endless message no more is kept than the longest ServerHello would be."""
    reader = KeyExchangeReader()
    for _ in range(200):
        reader.feed(record(22, b"\x02\xff\xff\xff" + bytes(16000)))
        assert len(reader._message) <= 20_004


def connect(port: int, chunk: int = 16384, sni: str | None = "mx.example.org.") -> tuple[TlsPump, bytes]:
    """Shake hands with a server on loopback; gives the pump and what it decrypted."""
    pump, decrypted = TlsPump(), b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        wire.sendall(pump.start(CONTEXT, sni))
        while not (pump.established or pump.failure):
            if not (data := wire.recv(chunk)):
                break
            clear, answer = pump.feed(data)
            decrypted += clear
            wire.sendall(answer)
    return pump, decrypted


S_CLIENT_GROUPS = {"prime256v1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def ask_s_client(port: int) -> tuple[str, str, str]:
    """What `openssl s_client` says of the same server: version, cipher, key exchange."""
    command = [
        "openssl",
        "s_client",
        "-connect",
        f"127.0.0.1:{port}",
        "-cipher",
        "ALL:COMPLEMENTOFALL:@SECLEVEL=0",
    ]
    shown = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20
    ).stdout
    version = re.search(r"^ *Protocol *: (\S+)|^New, (TLSv1.3),", shown, re.MULTILINE)
    cipher = re.search(r"^New, .*Cipher is (\S+)", shown, re.MULTILINE)
    assert version is not None, shown
    assert cipher is not None, shown
    key = re.search(r"^Server Temp Key: (?:(ECDH|DH), )?(?:([\w-]+), )?(\d+) bits", shown, re.MULTILINE)
    if key is None:
        group = "RSA"
    elif key[1] == "DH":
        group = f"DH {key[3]}"
    else:
        group = S_CLIENT_GROUPS.get(key[2], key[2])
    protocol = version[1] or version[2]
    return "TLSv1.0" if protocol == "TLSv1" else protocol, cipher[1], group


WEAK = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"
SERVERS = [
    ("TLS 1.3", "good", [], "TLSv1.3", "X25519"),
    *((f"TLS 1.3, {g}, by retry", "good", ["-groups", g], "TLSv1.3", g) for g in ("P-256", "P-384", "P-521")),
    *((f"TLS 1.3, {g}", "good", ["-groups", g], "TLSv1.3", g) for g in ("X448", "ffdhe2048", "ffdhe3072")),
    *((f"TLS 1.2, {g}", "good", ["-tls1_2", "-groups", g], "TLSv1.2", g) for g in ("P-256", "P-384", "X25519")),
    ("TLS 1.1", "rsa", ["-tls1_1", "-cipher", WEAK], "TLSv1.1", "X25519"),
    ("TLS 1.0", "rsa", ["-tls1", "-cipher", WEAK], "TLSv1.0", "X25519"),
    ("TLS 1.0, static RSA", "rsa", ["-tls1", "-cipher", "AES128-SHA:@SECLEVEL=0"], "TLSv1.0", "RSA"),
    ("static RSA", "rsa", ["-tls1_2", "-cipher", "AES256-SHA"], "TLSv1.2", "RSA"),
    ("DHE", "rsa", ["-tls1_2", "-cipher", "DHE"], "TLSv1.2", "DHE-2048"),
    ("anonymous ECDH", None, ["-tls1_2", "-cipher", "AECDH:@SECLEVEL=0"], "TLSv1.2", "X25519"),
    ("anonymous DH", None, ["-tls1_2", "-cipher", "ADH:@SECLEVEL=0"], "TLSv1.2", "DHE-3072"),
]  # fmt: skip


@pytest.mark.parametrize("chunk", [16384, 5])
@pytest.mark.parametrize(
    ("credentials", "arguments", "version", "key_exchange"),
    [pytest.param(c, a, v, k, id=why) for why, c, a, v, k in SERVERS],
)
def test_as_s_client_says(
    credentials: str | None,
    arguments: list[str],
    version: str,
    key_exchange: str,
    chunk: int,
    authority: Any,
    openssl_server: Callable[..., int],
) -> None:
    """Version, cipher and group are what `openssl s_client` prints for the same server; the chain is as sent."""
    if credentials is None:
        chain: tuple[bytes, ...] = ()
        port = openssl_server("-nocert", *arguments)
    else:
        files = getattr(authority, credentials)
        chain = files.ders
        port = openssl_server("-cert", files.chain, "-cert_chain", files.chain, "-key", files.key, *arguments)
        chain = (chain[0], *chain)  # s_server sends its leaf, then all of the chain file
    pump, _ = connect(port, chunk)
    assert pump.failure == ""
    facts = pump.facts()
    assert (facts.version, facts.key_exchange) == (version, key_exchange)
    assert facts.chain == chain
    assert facts.cipher_bits in (128, 256)
    said_version, said_cipher, said_group = ask_s_client(port)
    assert (said_version, said_cipher) == (facts.version, facts.cipher)
    assert said_group == re.sub(r"^(?:DHE-|ffdhe)", "DH ", facts.key_exchange)


DH_1024 = """-----BEGIN DH PARAMETERS-----
MIGHAoGBAI5na1LUM9NFvvoaeWtSP4AcFGjyvBr3I0MyzN94kxrPdkOPtLqrGlio
sjG0PT5mZDb39khLsfys1r2GsupyiarCYzUGOATfiiLx5g9kku3bsfhowFcSlRCl
2TYO1XKJbshhkLn4x398ZfJo8sZq3vLsvFWmlGewk1xkHIIBnTq/AgEC
-----END DH PARAMETERS-----
"""


def test_small_prime(authority: Any, openssl_server: Callable[..., int], tmp_path: Path) -> None:
    """A prime that ordinary clients refuse is a fact to record."""
    parameters = tmp_path / "dh.pem"
    parameters.write_text(DH_1024)
    weak = ["-tls1_2", "-cipher", "DHE:@SECLEVEL=0", "-dhparam", parameters]
    port = openssl_server("-cert", authority.rsa.chain, "-key", authority.rsa.key, *weak)
    pump, _ = connect(port)
    assert pump.failure == ""
    assert pump.facts().key_exchange == "DHE-1024"


class MemoryServer:
    """A TLS server over memory."""

    def __init__(self, credentials: Any = None, *, ask_certificate: bool = False, ciphers: str = "") -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if credentials is not None:
            context.load_cert_chain(credentials.chain, credentials.key)
        if ask_certificate:
            context.load_verify_locations(credentials.chain)
            context.verify_mode = ssl.CERT_REQUIRED
        if ciphers:
            context.set_ciphers(ciphers)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.inside, self.outside = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.inside, self.outside, server_side=True)
        self.sni: list[str | None] = []
        context.sni_callback = lambda _tls, name, _context: self.sni.append(name)
        self.up = False

    def answer(self, data: bytes) -> bytes:
        self.inside.write(data)
        try:
            if not self.up:
                self.tls.do_handshake()
                self.up = True
            self.tls.read(1)
        except ssl.SSLError:
            pass
        return self.outside.read()

    def write(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outside.read()


def shake(
    pump: TlsPump, server: MemoryServer, hello: bytes, chunk: int = 1 << 20, before: bytes = b""
) -> None:
    to_client = before + server.answer(hello)
    while to_client and not pump.failure:
        to_server = b""
        for at in range(0, len(to_client), chunk):
            to_server += pump.feed(to_client[at : at + chunk])[1]
        to_client = server.answer(to_server) if to_server else b""


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"220 2.0.0 again\r\n", id="a second reply"),
        pytest.param(b"250-x\r\n250 REQUIRETLS\r\n", id="an injected EHLO reply"),
        pytest.param(b"\x16\x03\x09\x15\x03\x01\x40\x16\x03", id="bytes that begin as records do"),
        pytest.param(b"x" * PLAINTEXT_BUDGET, id="as much as is allowed"),
    ],
)
def test_plaintext_before_the_handshake(text: bytes, chunk: int, authority: Any) -> None:
    """Plaintext in front of the first TLS record is kept out of TLS and kept as evidence (RFC 3207 §5)."""
    pump, server = TlsPump(), MemoryServer(authority.good)
    shake(pump, server, pump.start(CONTEXT, None), chunk, before=text)
    assert pump.failure == ""
    assert pump.established
    assert pump.plaintext == text
    assert pump.feed(server.write(b"250 ok\r\n")) == (b"250 ok\r\n", b"")


SNI = [
    ("a name", "mx.example.org", "mx.example.org"),
    ("final dot", "mx.example.org.", "mx.example.org"),
    ("underscore", "_mx.example.org", "_mx.example.org"),
    ("none", None, None),
    ("empty", "", None),
    ("the root", ".", None),
    ("IPv4 address", "192.0.2.1", None),
    ("IPv6 address", "2001:db8::1", None),
    ("not ASCII", "b\u00fccher.example", None),
    ("NUL inside", "a\0b.example", None),
    ("leading dot", ".example.org", None),
    ("too long", "a" * 300, None),
]


@pytest.mark.parametrize(("sni", "sent"), [pytest.param(g, s, id=why) for why, g, s in SNI])
def test_sni(sni: str | None, sent: str | None, authority: Any) -> None:
    """A host name is sent without its final dot, anything else not at all; none raises."""
    pump, server = TlsPump(), MemoryServer(authority.good)
    shake(pump, server, pump.start(CONTEXT, sni))
    assert pump.established
    assert server.sni == [sent]


def test_alert_in_words(authority: Any) -> None:
    """The alert of a server that refuses is named."""
    pump, server = TlsPump(), MemoryServer(authority.rsa, ciphers="NULL-SHA256:@SECLEVEL=0")
    hello = pump.start(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "mx.example.org")
    assert pump.feed(server.answer(hello))[0] == b""
    assert pump.failure == "the server sent TLS alert handshake_failure"


def test_client_certificate_wanted(authority: Any) -> None:
    """In TLS 1.3 a server that wants a client certificate says so after our handshake."""
    pump, server = TlsPump(), MemoryServer(authority.good, ask_certificate=True)
    _, answer = pump.feed(server.answer(pump.start(CONTEXT, None)))
    assert pump.established
    pump.feed(server.answer(answer + pump.write(b"EHLO x\r\n")))
    assert pump.failure == "the server sent TLS alert certificate_required"
    assert pump.finish() == b""


def test_close_notify(authority: Any) -> None:
    """A close_notify is the end in good order; ours is sent in turn."""
    pump, server = TlsPump(), MemoryServer(authority.good)
    shake(pump, server, pump.start(CONTEXT, None))
    last = server.write(b"221 bye\r\n")
    with pytest.raises(ssl.SSLWantReadError):
        server.tls.unwrap()
    assert pump.feed(last + server.outside.read())[0] == b"221 bye\r\n"
    assert pump.closed
    assert pump.failure == ""
    assert pump.feed(b"more") == (b"", b"")
    server.inside.write(pump.finish())
    server.tls.unwrap()


def test_huge_chain(authority: Any, tmp_path: Path) -> None:
    """A chain beyond what OpenSSL takes ends the handshake, with the reason that this is our limit."""
    pem = authority.good.chain.read_bytes()
    bundle = tmp_path / "huge.pem"
    bundle.write_bytes(pem * 200)
    server = MemoryServer(replace(authority.good, chain=bundle))
    pump = TlsPump()
    shake(pump, server, pump.start(CONTEXT, None))
    assert pump.failure == "our TLS library refuses: excessive message size"


ENDLESS = [
    ("plaintext", b"250-hello\r\n" * 100, "plaintext without end in place of the handshake"),
    ("warning alerts", record(21, b"\x01\x5a"), "broken TLS: "),
    ("ServerHello after ServerHello", record(22, hello_13(29)), "broken TLS: "),
    ("one message without end", record(22, message(11, bytes(16000))[:16000]), "broken TLS: "),
    ("empty records", record(22, b""), "broken TLS: "),
]


@pytest.mark.parametrize(("data", "reason"), [pytest.param(d, r, id=why) for why, d, r in ENDLESS])
def test_endless(data: bytes, reason: str) -> None:
    """Whatever is sent without end ends within the budget, with a reason."""
    pump = TlsPump()
    pump.start(CONTEXT, None)
    sent = 0
    while not pump.failure:
        pump.feed(data)
        sent += len(data)
        assert sent <= HANDSHAKE_BUDGET + len(data)
    assert pump.failure.startswith((reason, "too many bytes in the handshake"))
    assert pump.feed(data) == (b"", b"")


def test_endless_after_the_handshake(authority: Any) -> None:
    """Records without end after the handshake end within a budget too."""
    pump, server = TlsPump(), MemoryServer(authority.good)
    shake(pump, server, pump.start(CONTEXT, None))
    for _ in range(100):
        pump.feed(server.write(bytes(16000)))
    assert pump.failure == "too many bytes after the handshake"


@given(st.binary(min_size=1, max_size=300), st.integers(1, 100))
def test_any_bytes_in_place_of_the_handshake(data: bytes, chunk: int) -> None:
    """No bytes of a server make the pump raise or establish anything."""
    pump = TlsPump()
    pump.start(CONTEXT, "mx.example.org")
    for prefix in (b"", record(22, hello_13(29))):
        for at in range(0, len(data), chunk):
            pump.feed((prefix + data)[at : at + chunk])
    assert not pump.established


@given(at=st.integers(0, 3000), byte=st.integers(0, 255))
def test_any_byte_changed(at: int, byte: int, good_flight: tuple[TlsPump, bytes]) -> None:
    """A server's flight with a byte changed never raises."""
    flight = bytearray(good_flight[1])
    flight[at % len(flight)] = byte
    pump = TlsPump()
    pump.start(CONTEXT, None)
    pump.feed(bytes(flight))
    assert not pump.established


@pytest.fixture(scope="module")
def good_flight(authority: Any) -> tuple[TlsPump, bytes]:
    pump = TlsPump()
    return pump, MemoryServer(authority.good).answer(pump.start(CONTEXT, None))


def test_group_names() -> None:
    """Groups bear the names of the registry, in the spelling of this package; others their number."""
    assert [group_name(g) for g in (23, 24, 25, 29, 30, 256, 4588)] == [
        "P-256", "P-384", "P-521", "X25519", "X448", "ffdhe2048", "X25519MLKEM768",
    ]  # fmt: skip
    assert group_name(0x1234) == "0x1234"
