"""TLS over memory, verifying nothing and losing nothing: alerts, leftovers, chain, key exchange (RFC 8446, 5246).

The handshake of a probe is one that any opportunistic sender would complete, and then some: TLS 1.0,
anonymous ciphers and small keys are facts to record. Judging the chain is the work of `standards.certificates`
and `standards.dane`.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import sys
from dataclasses import dataclass

CIPHERS = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"
"""What is offered to mail servers up to TLS 1.2: static RSA and anonymous ciphers too, keys of any size."""

HANDSHAKE_BUDGET = 1 << 18
"""Bytes that a server may send before the handshake is complete."""

SESSION_BUDGET = 1 << 20
"""Bytes of TLS records that a server may send after the handshake."""

PLAINTEXT_BUDGET = 1 << 14
"""Bytes of plaintext that a server may send where its handshake should begin."""

# RFC 8446 §4.1.3: the `random` that makes a ServerHello a HelloRetryRequest
_RETRY_REQUEST = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")

_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE = 20, 21, 22
_SERVER_HELLO, _SERVER_KEY_EXCHANGE, _SERVER_HELLO_DONE = 2, 12, 14
_SUPPORTED_VERSIONS, _KEY_SHARE = 43, 51
_TLS13 = b"\x03\x04"

# type alert or handshake, major version 3, and a length that a plaintext record may have (RFC 8446 §5.1)
_RECORD_HEADER = re.compile(
    rb"\x15\x03[\x00-\x04]\x00\x02|\x16\x03[\x00-\x04](?:[\x00-\x3f][\x00-\xff]|\x40\x00)", re.DOTALL
)

_SERVER_HELLO_LIMIT = 20_000  # OpenSSL accepts no longer ServerHello
_KEY_EXCHANGE_PREFIX = 64  # enough for a curve or for the length and first bits of a prime

_GROUPS = {
    15: "secp160k1",
    16: "secp160r1",
    17: "secp160r2",
    18: "secp192k1",
    19: "P-192",
    20: "secp224k1",
    21: "P-224",
    22: "secp256k1",
    23: "P-256",
    24: "P-384",
    25: "P-521",
    26: "brainpoolP256r1",
    27: "brainpoolP384r1",
    28: "brainpoolP512r1",
    29: "X25519",
    30: "X448",
    31: "brainpoolP256r1tls13",
    32: "brainpoolP384r1tls13",
    33: "brainpoolP512r1tls13",
    34: "GC256A",
    35: "GC256B",
    36: "GC256C",
    37: "GC256D",
    38: "GC512A",
    39: "GC512B",
    40: "GC512C",
    41: "curveSM2",
    256: "ffdhe2048",
    257: "ffdhe3072",
    258: "ffdhe4096",
    259: "ffdhe6144",
    260: "ffdhe8192",
    512: "MLKEM512",
    513: "MLKEM768",
    514: "MLKEM1024",
    4587: "SecP256r1MLKEM768",
    4588: "X25519MLKEM768",
    4589: "SecP384r1MLKEM1024",
    4590: "curveSM2MLKEM768",
    25497: "X25519Kyber768Draft00",
    25498: "SecP256r1Kyber768Draft00",
}


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What a completed handshake settled.

    `version` is ``TLSv1.0`` to ``TLSv1.3``, `cipher` OpenSSL's name, `key_exchange` a group (``X25519``,
    ``P-256``, ``ffdhe2048``), ``DHE-2048`` with the size of the prime, or ``RSA``; empty where it could not
    be read. `chain` holds the certificates as sent, DER, leaf first; none for an anonymous cipher.
    """

    version: str
    cipher: str
    cipher_bits: int
    key_exchange: str
    chain: tuple[bytes, ...]


def lax_context() -> ssl.SSLContext:
    """Make the context for probing mail servers, one for a whole scan: nothing verified, everything offered."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # first: CERT_NONE raises ValueError while this is on
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED  # naming TLSv1 would warn
    context.set_ciphers(CIPHERS)
    context.options |= 0x4  # OP_LEGACY_SERVER_CONNECT, named from 3.12
    context.options |= ssl.OP_NO_RENEGOTIATION  # a hostile server could order one handshake after another
    return context


def presented_chain(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    """Give the certificates as sent, DER, leaf first, duplicates and junk included; none where anonymous."""
    if sys.version_info >= (3, 13):
        return tuple(tls.get_unverified_chain() or ())
    import _ssl  # 3.11 and 3.12: private but frozen

    sent = tls._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return tuple(certificate.public_bytes(_ssl.ENCODING_DER) for certificate in sent or ())


def group_name(group: int) -> str:
    """Name a TLS supported group (IANA registry); ``0x1234`` for one without a name here."""
    return _GROUPS.get(group) or f"0x{group:04X}"


class KeyExchangeReader:
    """Reads the key exchange out of the server's own handshake bytes, as they come in.

    Python's `ssl` does not tell the group. It stands in the clear: in the ServerHello of TLS 1.3 (the second
    one after a HelloRetryRequest), in the ServerKeyExchange before. Messages may be split over records and
    records over reads. Nothing but the message at hand is kept, and only until `done`.
    """

    __slots__ = ("_found", "_header", "_message", "_record_left", "_record_type", "_skip", "_wanted", "done")

    def __init__(self) -> None:
        self.done = False
        self._found: int | bytes | None = None  # TLS 1.3 group, or the beginning of a ServerKeyExchange
        self._header = b""
        self._record_type = 0
        self._record_left = 0
        self._message = bytearray()  # header (4) and as much of the body as is wanted
        self._wanted = 4
        self._skip = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the server."""
        at, end = 0, len(data)
        while at < end and not self.done:
            if self._record_left == 0:
                taken = data[at : at + 5 - len(self._header)]
                at += len(taken)
                self._header += taken
                if len(self._header) == 5:
                    self._record_type = self._header[0]
                    self._record_left = int.from_bytes(self._header[3:])
                    self._header = b""
                    # a ChangeCipherSpec may stand between HelloRetryRequest and ServerHello
                    self.done = self._record_type not in (_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE)
                continue
            piece = data[at : at + self._record_left]
            at += len(piece)
            self._record_left -= len(piece)
            if self._record_type == _HANDSHAKE:
                self._feed_messages(piece)
        if self.done:
            self._message.clear()

    def _feed_messages(self, data: bytes) -> None:
        at, end = 0, len(data)
        while at < end and not self.done:
            if self._skip and not self._message:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
                continue
            taken = data[at : at + self._wanted - len(self._message)]
            at += len(taken)
            self._message += taken
            if len(self._message) == 4 == self._wanted:
                length = int.from_bytes(self._message[1:4])
                kept = self._kept(self._message[0], length)
                self._wanted += kept
                self._skip = length - kept
            if len(self._message) == self._wanted:
                self._read(self._message[0], bytes(self._message[4:]))
                self._message.clear()
                self._wanted = 4

    def _kept(self, kind: int, length: int) -> int:
        """How much of the body of a message is worth keeping."""
        if kind == _SERVER_HELLO:
            return min(length, _SERVER_HELLO_LIMIT)
        return min(length, _KEY_EXCHANGE_PREFIX) if kind == _SERVER_KEY_EXCHANGE else 0

    def _read(self, kind: int, body: bytes) -> None:
        if kind == _SERVER_HELLO:
            self._read_server_hello(body)
        elif kind == _SERVER_KEY_EXCHANGE:
            self._found = body
            self.done = True
        elif kind == _SERVER_HELLO_DONE:
            self.done = True

    def _read_server_hello(self, body: bytes) -> None:
        if len(body) < 35 or body[2:34] == _RETRY_REQUEST:
            return  # a retry request names a group too, but the second ServerHello has the last word
        at = 35 + body[34] + 2 + 1 + 2  # session id, cipher suite, compression, length of the extensions
        extensions: dict[int, bytes] = {}
        while at + 4 <= len(body):
            length = int.from_bytes(body[at + 2 : at + 4])
            extensions[int.from_bytes(body[at : at + 2])] = body[at + 4 : at + 4 + length]
            at += 4 + length
        if extensions.get(_SUPPORTED_VERSIONS) == _TLS13:
            share = extensions.get(_KEY_SHARE, b"")
            self._found = int.from_bytes(share[:2]) if len(share) >= 2 else None
            self.done = True

    def name(self, cipher: str) -> str:
        """Name the key exchange, given the cipher settled (OpenSSL's name); "" where it was not seen."""
        found = self._found
        if isinstance(found, int):
            return group_name(found)
        if cipher.startswith("TLS_"):  # TLS 1.3 without a key share
            return ""
        if found is None:
            return "RSA"
        if cipher.startswith(("ECDHE-", "AECDH-")):
            named_curve = found[:1] == b"\x03" and len(found) >= 3
            return group_name(int.from_bytes(found[1:3])) if named_curve else ""
        length = int.from_bytes(found[:2])
        prime = found[2 : 2 + length]
        significant = prime.lstrip(b"\x00")
        if not significant:
            return ""
        leading_bits = 8 * (len(prime) - len(significant)) + 8 - significant[0].bit_length()
        return f"DHE-{8 * length - leading_bits}"


_ALERT_REASON = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?(.+)")

# what OpenSSL, as we have it, will not do with what the server chose or sent: no fault of the server's TLS
_OUR_LIMITS = frozenset(
    {
        "CA_KEY_TOO_SMALL",
        "CA_MD_TOO_WEAK",
        "DH_KEY_TOO_SMALL",
        "EE_KEY_TOO_SMALL",
        "EXCESSIVE_MESSAGE_SIZE",
        "MODULUS_TOO_LARGE",
        "MODULUS_TOO_SMALL",
        "NO_PROTOCOLS_AVAILABLE",
        "UNKNOWN_CERTIFICATE_TYPE",
        "UNSAFE_LEGACY_RENEGOTIATION_DISABLED",
        "UNSUPPORTED_ELLIPTIC_CURVE",
        "UNSUPPORTED_PROTOCOL",
        "VERSION_TOO_LOW",
    }
)


def failure_reason(error: ssl.SSLError) -> str:
    """Say why TLS ended: the server's alert, a limit of our own library, or what was wrong with its bytes."""
    reason = error.reason or ""
    if match := _ALERT_REASON.fullmatch(reason):
        return f"the server sent TLS alert {match[1].lower()}"
    words = (reason or str(error)).lower().replace("_", " ")
    if reason in _OUR_LIMITS:
        return f"our TLS library refuses: {words}"
    return f"broken TLS: {words}"


class TlsPump:
    """One TLS client over memory: bytes of the server in, decrypted bytes and bytes for the server out.

    It never raises for what the server sends: `failure` says in words why TLS ended, `closed` that the server
    ended it in good order.

    Notes
    -----
    What comes before the first bytes that are the header of a TLS record is not fed to TLS but kept in
    `plaintext`: a late second reply, or an injection (RFC 3207 §5). The handshake then goes on.
    """

    __slots__ = (
        "_facts",
        "_from_server",
        "_left",
        "_reader",
        "_tls",
        "_to_server",
        "closed",
        "established",
        "failure",
        "plaintext",
        "spoke_tls",
    )

    def __init__(self) -> None:
        self.spoke_tls = False
        """A TLS record came."""
        self.established = False
        self.closed = False
        self.failure = ""
        self.plaintext = b""
        self._left = HANDSHAKE_BUDGET
        self._reader = KeyExchangeReader()

    def start(self, context: ssl.SSLContext, sni: str | None) -> bytes:
        """Begin the handshake: gives the ClientHello.

        Parameters
        ----------
        context
            `lax_context` for mail servers.
        sni
            Server name to send, whether or not it has a final dot. An address, or what cannot be a name, is
            not sent (RFC 6066 §3).
        """
        self._from_server, self._to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _wrap(context, self._from_server, self._to_server, sni)
        self._shake_hands()
        return self._to_server.read()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes of the server: gives what was decrypted and what must be sent."""
        if not self.spoke_tls:
            data = self._skip_plaintext(data)
        if not data or self.failure or self.closed:
            return b"", b""
        self._left -= len(data)
        if self._left < 0:
            place = "after the handshake" if self.established else "in the handshake"
            self.failure = f"too many bytes {place}"
            return b"", b""
        self._from_server.write(data)
        if not self.established:
            if not self._reader.done:
                self._reader.feed(data)
            self._shake_hands()
        decrypted = self._read() if self.established else b""
        return decrypted, self._to_server.read() if self._to_server.pending else b""

    def write(self, data: bytes) -> bytes:
        """Encrypt bytes for the server."""
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            self.failure = self.failure or failure_reason(error)
        return self._to_server.read()

    def finish(self) -> bytes:
        """End TLS in good order: gives our close_notify, or nothing where there is none to send."""
        if not self.established or self.failure:
            return b""
        with contextlib.suppress(ssl.SSLError):  # wants the server's own, which nobody waits for
            self._tls.unwrap()
        return self._to_server.read()

    def facts(self) -> TlsFacts:
        """What the handshake settled; it must be `established`."""
        return self._facts

    def _settled(self) -> TlsFacts:
        version = self._tls.version() or ""
        cipher, _, bits = self._tls.cipher() or ("", "", 0)
        return TlsFacts(
            version="TLSv1.0" if version == "TLSv1" else version,
            cipher=cipher,
            cipher_bits=bits,
            key_exchange=self._reader.name(cipher),
            chain=presented_chain(self._tls),
        )

    def _skip_plaintext(self, data: bytes) -> bytes:
        """Give the bytes from the first TLS record on; keep what stands before it."""
        searched = max(0, len(self.plaintext) - 4)
        data = self.plaintext + data
        if (header := _RECORD_HEADER.search(data, searched)) is None:
            self.plaintext = data
            if len(data) >= PLAINTEXT_BUDGET + 5:  # the last four may begin a header
                self.failure = "plaintext without end in place of the handshake"
            return b""
        self.spoke_tls = True
        self.plaintext = data[: header.start()]
        return data[header.start() :]

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            self.failure = failure_reason(error)
            return
        self.established = True
        self._left = SESSION_BUDGET
        self._facts = self._settled()  # now: after a failure OpenSSL no longer tells

    def _read(self) -> bytes:
        parts = []
        try:
            while data := self._tls.read(16384):
                parts.append(data)
            self.closed = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        except ssl.SSLError as error:
            self.failure = failure_reason(error)
        return b"".join(parts)


def _wrap(
    context: ssl.SSLContext, from_server: ssl.MemoryBIO, to_server: ssl.MemoryBIO, sni: str | None
) -> ssl.SSLObject:
    if sni:
        try:
            # as bytes, or Python would put it through IDNA 2003
            return context.wrap_bio(from_server, to_server, server_hostname=sni.rstrip(".").encode("ascii"))
        except (ValueError, TypeError, ssl.SSLError):  # empty, not ASCII, NUL inside, too long
            pass
    return context.wrap_bio(from_server, to_server)
