"""A forge for certificates of any kind, also those that no library would make, and openssl to judge them.

A table names certificates and says what is particular about each (`Cert`); `Forge` writes them octet by octet
(RFC 5280 §4.1), so that old digests, version 1 and broken fields need no tool that allows them.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import ipaddress
import re
import shutil
import subprocess
from base64 import encodebytes
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from tests.ports import hold_port, wait_for_server

AT = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)
"""The moment by which the tests judge."""

MX = "mx.example.org"

Key = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | dsa.DSAPrivateKey
)


@dataclass(frozen=True, slots=True)
class Cert:
    """What is particular about a certificate; the rest is as an honest authority would write it.

    Certificates are named by their place in the table of a `Forge`. General names are written ``dns:``, ``ip:``,
    ``mail:``, ``uri:``, ``dir:`` (a common name) or ``id:`` (a registered ID).
    """

    issuer: str = ""  # by whom; by itself where empty
    ca: bool | None = False  # basicConstraints; None for a certificate without them
    names: tuple[str, ...] = ()  # of the subject alternative name
    common_name: str | bytes | None = None  # its name in the table where None; no subject where empty
    issuer_name: str | bytes | None = None  # where it is not written as the issuer writes it
    mail: str = ""  # emailAddress in the subject
    kind: str = "ec"  # of key: ec, p384, rsa, rsa1024, ed25519, ed448, dsa
    key: str = ""  # the certificate whose key it shares
    signer: str = ""  # the certificate whose key signed it in truth: a forgery
    digest: str = "sha256"
    days: tuple[float, float] = (-30, 60)  # from AT
    version: int = 3
    serial: int = 0  # by its name where 0
    path_length: int | None = None
    usage: tuple[int, ...] | None = ()  # bits of keyUsage; () for those of its kind, None for none
    purposes: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    key_id: bytes | None = None  # of its key where None; not there where empty
    issuer_key_id: bytes | None = None  # likewise
    issuer_serial: int | None = None  # in the authority key identifier
    extensions: tuple[tuple[str, bool, bytes], ...] = ()  # more of them: OID, critical, value
    inner_digest: str = ""  # where the algorithm inside is not the one outside


# -- DER -----------------------------------------------------------------------------------------------------

SEQUENCE, SET, OCTETS, BITS, INTEGER, BOOLEAN, UTF8, IA5, OID = 0x30, 0x31, 4, 3, 2, 1, 12, 22, 6
NULL = b"\x05\x00"
SERVER_AUTH, CLIENT_AUTH, ANY_PURPOSE = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2", "2.5.29.37.0"
STEP_UP = "2.16.840.1.113730.4.1"  # Netscape's server-gated cryptography
DIGITAL_SIGNATURE, NON_REPUDIATION, CERT_SIGN, CRL_SIGN = 0, 1, 5, 6


def tlv(tag: int, *parts: bytes) -> bytes:
    """Write an element of DER: tag, length, content (X.690 §8.1)."""
    content = b"".join(parts)
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def oid(dotted: str) -> bytes:
    """Write an object identifier."""
    first, second, *rest = map(int, dotted.split("."))
    content = b""
    for arc in (first * 40 + second, *rest):
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.insert(0, 0x80 | (arc & 0x7F))
        content += bytes(septets)
    return tlv(OID, content)


def integer(number: int) -> bytes:
    return tlv(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, signed=True))


def bit_string(bits: Sequence[int]) -> bytes:
    """Write a string of named bits, no longer than need be (X.690 §11.2.2)."""
    size = max(bits, default=-1) + 1
    octets = bytearray((size + 7) // 8)
    for bit in bits:
        octets[bit // 8] |= 0x80 >> bit % 8
    return tlv(BITS, bytes([-size % 8]), bytes(octets))


def name(common_name: str | bytes, mail: str = "") -> bytes:
    """Write a distinguished name: of a common name, or, given as octets, of what they are."""
    if isinstance(common_name, bytes):
        return common_name
    parts = [(oid("2.5.4.3"), tlv(UTF8, common_name.encode()))] if common_name else []
    if mail:
        parts.append((oid("1.2.840.113549.1.9.1"), tlv(IA5, mail.encode())))
    return tlv(SEQUENCE, *(tlv(SET, tlv(SEQUENCE, *part)) for part in parts))


def general_name(text: str) -> bytes:
    kind, _, value = text.partition(":")
    match kind:
        case "dns":
            return tlv(0x82, value.encode("latin-1"))
        case "mail":
            return tlv(0x81, value.encode("latin-1"))
        case "uri":
            return tlv(0x86, value.encode("latin-1"))
        case "id":
            return tlv(0x88, oid(value)[2:])
        case "dir":
            return tlv(0xA4, name(value))
        case "ip" if "/" in value:
            network = ipaddress.ip_network(value)
            return tlv(0x87, network.network_address.packed, network.netmask.packed)
        case "ip":
            return tlv(0x87, ipaddress.ip_address(value).packed)
    raise ValueError(f"a general name begins with its kind: {text!r}")


def asn1_time(moment: dt.datetime) -> bytes:
    if moment.year < 2050:  # RFC 5280 §4.1.2.5
        return tlv(0x17, f"{moment:%y%m%d%H%M%S}Z".encode())
    return tlv(0x18, f"{moment:%Y%m%d%H%M%S}Z".encode())


# -- keys and signatures -------------------------------------------------------------------------------------

_RSA_DIGESTS = {"md5": (4, hashes.MD5()), "sha1": (5, hashes.SHA1()), "sha256": (11, hashes.SHA256())}
_EC_DIGESTS = {"sha1": ("1", hashes.SHA1()), "sha256": ("3.2", hashes.SHA256())}
_MGF1_SHA256 = tlv(SEQUENCE, oid("1.2.840.113549.1.1.8"), tlv(SEQUENCE, oid("2.16.840.1.101.3.4.2.1"), NULL))
_PSS = tlv(
    SEQUENCE,
    oid("1.2.840.113549.1.1.10"),
    tlv(
        SEQUENCE,
        tlv(0xA0, tlv(SEQUENCE, oid("2.16.840.1.101.3.4.2.1"), NULL)),
        tlv(0xA1, _MGF1_SHA256),
        tlv(0xA2, integer(32)),
    ),
)


@cache
def make_key(kind: str, owner: str) -> Key:
    """Make the key of a certificate: the same for the same name, where making it takes no time."""
    seed = hashlib.sha512(owner.encode()).digest()
    match kind:
        case "ec":
            return ec.derive_private_key(int.from_bytes(seed[:31]), ec.SECP256R1())
        case "p384":
            return ec.derive_private_key(int.from_bytes(seed[:47]), ec.SECP384R1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.from_private_bytes(seed[:32])
        case "ed448":
            return ed448.Ed448PrivateKey.from_private_bytes(seed[:57])
        case "dsa":
            return dsa.generate_private_key(1024)
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case "rsa1024":
            made = subprocess.run(["openssl", "genrsa", "1024"], capture_output=True, check=True)
            key = load_pem_private_key(made.stdout, None)
            assert isinstance(key, rsa.RSAPrivateKey)
            return key
    raise ValueError(f"no kind of key: {kind!r}")


def public_key(key: Key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _algorithm(key: Key, digest: str) -> bytes:
    match key:
        case rsa.RSAPrivateKey() if digest == "pss":
            return _PSS
        case rsa.RSAPrivateKey():
            return tlv(SEQUENCE, oid(f"1.2.840.113549.1.1.{_RSA_DIGESTS[digest][0]}"), NULL)
        case ec.EllipticCurvePrivateKey():
            return tlv(SEQUENCE, oid(f"1.2.840.10045.4.{_EC_DIGESTS[digest][0]}"))
        case dsa.DSAPrivateKey():
            return tlv(SEQUENCE, oid("2.16.840.1.101.3.4.3.2"))
        case ed25519.Ed25519PrivateKey():
            return tlv(SEQUENCE, oid("1.3.101.112"))
    return tlv(SEQUENCE, oid("1.3.101.113"))


def _sign(key: Key, digest: str, body: bytes) -> bytes:
    match key:
        case rsa.RSAPrivateKey() if digest == "pss":
            return key.sign(body, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        case rsa.RSAPrivateKey():
            return key.sign(body, padding.PKCS1v15(), _RSA_DIGESTS[digest][1])
        case ec.EllipticCurvePrivateKey():
            return key.sign(body, ec.ECDSA(_EC_DIGESTS[digest][1]))
        case dsa.DSAPrivateKey():
            return key.sign(body, hashes.SHA256())
    return key.sign(body)


# -- certificates --------------------------------------------------------------------------------------------


class Forge:
    """Writes the certificates of a table, each once."""

    def __init__(self, table: Mapping[str, Cert | bytes]) -> None:
        self._table = table
        self._ders: dict[str, bytes] = {}

    def key(self, name: str) -> Key:
        """Give the key of a certificate."""
        cert = self._table[name]
        assert isinstance(cert, Cert)
        return self.key(cert.key) if cert.key else make_key(cert.kind, name)

    def der(self, name: str) -> bytes:
        """Give a certificate; octets that the table holds in its place as they are."""
        if name not in self._ders:
            entry = self._table[name]
            self._ders[name] = entry if isinstance(entry, bytes) else self._write(name, entry)
        return self._ders[name]

    def chain(self, names: str) -> tuple[bytes, ...]:
        """Give certificates by their names, with spaces between."""
        return tuple(map(self.der, names.split()))

    def _write(self, own: str, cert: Cert) -> bytes:
        issuer = cert.issuer or own
        by = self._table[issuer]
        assert isinstance(by, Cert)
        signing_key = self.key(cert.signer or issuer)
        algorithm = _algorithm(signing_key, cert.digest)
        fields = [
            tlv(0xA0, integer(cert.version - 1)) if cert.version > 1 else b"",
            integer(cert.serial or _serial(own)),
            _algorithm(signing_key, cert.inner_digest) if cert.inner_digest else algorithm,
            self._name(issuer, by) if cert.issuer_name is None else name(cert.issuer_name),
            tlv(SEQUENCE, *(asn1_time(AT + dt.timedelta(days=days)) for days in cert.days)),
            self._name(own, cert),
            public_key(self.key(own)),
        ]
        if cert.version > 2:
            fields.append(tlv(0xA3, tlv(SEQUENCE, *self._extensions(own, cert, issuer, by))))
        body = tlv(SEQUENCE, *fields)
        return tlv(SEQUENCE, body, algorithm, tlv(BITS, b"\0", _sign(signing_key, cert.digest, body)))

    def _name(self, own: str, cert: Cert) -> bytes:
        return name(own if cert.common_name is None else cert.common_name, cert.mail)

    def _extensions(self, own: str, cert: Cert, issuer: str, by: Cert) -> list[bytes]:
        found: list[tuple[str, bool, bytes]] = []
        if cert.ca is not None:
            flag = tlv(BOOLEAN, b"\xff") if cert.ca else b""
            length = b"" if cert.path_length is None else integer(cert.path_length)
            found.append(("2.5.29.19", True, tlv(SEQUENCE, flag, length)))
        usage = ((CERT_SIGN, CRL_SIGN) if cert.ca else None) if cert.usage == () else cert.usage
        if usage is not None:
            found.append(("2.5.29.15", True, bit_string(usage)))
        if cert.purposes:
            found.append(("2.5.29.37", False, tlv(SEQUENCE, *map(oid, cert.purposes))))
        if cert.names:
            found.append(("2.5.29.17", False, tlv(SEQUENCE, *map(general_name, cert.names))))
        if cert.permitted or cert.excluded:
            trees = [
                tlv(tag, *(tlv(SEQUENCE, general_name(base)) for base in bases)) if bases else b""
                for tag, bases in ((0xA0, cert.permitted), (0xA1, cert.excluded))
            ]
            found.append(("2.5.29.30", True, tlv(SEQUENCE, *trees)))
        key_id = _key_id(self.key(own)) if cert.key_id is None else cert.key_id
        if key_id:
            found.append(("2.5.29.14", False, tlv(OCTETS, key_id)))
        found += self._authority(cert, issuer, by)
        found += cert.extensions
        return [
            tlv(SEQUENCE, oid(kind), tlv(BOOLEAN, b"\xff") if critical else b"", tlv(OCTETS, value))
            for kind, critical, value in found
        ]

    def _authority(self, cert: Cert, issuer: str, by: Cert) -> list[tuple[str, bool, bytes]]:
        key_id = cert.issuer_key_id
        if key_id is None:
            key_id = by.key_id if by.key_id is not None else _key_id(self.key(issuer))
        parts = [tlv(0x80, key_id)] if key_id else []
        if cert.issuer_serial is not None:
            above = self._table[by.issuer or issuer]
            assert isinstance(above, Cert)
            parts.append(tlv(0xA1, tlv(0xA4, self._name(by.issuer or issuer, above))))
            parts.append(tlv(0x82, integer(cert.issuer_serial)[2:]))
        return [("2.5.29.35", False, tlv(SEQUENCE, *parts))] if parts else []


def _key_id(key: Key) -> bytes:
    return hashlib.sha1(public_key(key)).digest()


def _serial(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) | 1


def serial_of(name: str) -> int:
    """Give the serial number that the certificate of a name has unless its table says otherwise."""
    return _serial(name)


def private_pem(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pem(*ders: bytes) -> bytes:
    """Write certificates as PEM (RFC 7468 §5)."""
    return b"".join(
        b"-----BEGIN CERTIFICATE-----\n" + encodebytes(der) + b"-----END CERTIFICATE-----\n" for der in ders
    )


# -- openssl -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """A verdict of openssl, and its words."""

    valid: bool
    words: str


_ERROR = re.compile(r"^error .*?: (.+)$", re.MULTILINE)


@pytest.fixture(scope="session")
def openssl() -> str:
    """Give the path of the openssl command."""
    if (path := shutil.which("openssl")) is None:
        pytest.skip("needs the openssl command")
    return path


@pytest.fixture(scope="session")
def openssl_verify(openssl: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Said]:
    """Ask `openssl verify` about a chain, leaf first, under some roots, as a TLS client would."""
    folder = tmp_path_factory.mktemp("openssl")

    def verify(
        chain: Sequence[bytes], roots: Sequence[bytes], host: str | None = None, at: dt.datetime = AT
    ) -> Said:
        leaf, sent, trusted = folder / "leaf.pem", folder / "sent.pem", folder / "roots.pem"
        leaf.write_bytes(pem(chain[0]))
        sent.write_bytes(pem(*chain[1:]))
        trusted.write_bytes(pem(*roots))
        command: list[str | Path] = [
            openssl,
            "verify",
            "-purpose",
            "sslserver",
            "-partial_chain",
            "-no-CApath",
        ]
        command += ["-no-CAstore", "-CAfile", trusted, "-attime", str(int(at.timestamp()))]
        command += ["-untrusted", sent] if chain[1:] else []
        command += ["-verify_hostname", host] if host else []
        done = subprocess.run([*command, leaf], capture_output=True, text=True, timeout=60, check=False)
        words = ", ".join(dict.fromkeys(_ERROR.findall(done.stderr + done.stdout)))
        return Said(done.returncode == 0, words or done.stderr.strip())

    return verify


def write_credentials(folder: Path, label: str, chain: Sequence[bytes], key: Key) -> tuple[Path, Path, Path]:
    """Write leaf, rest of the chain and key into files, as `openssl s_server` wants them."""
    paths = folder / f"{label}.crt", folder / f"{label}.chain", folder / f"{label}.key"
    for path, data in zip(paths, (pem(chain[0]), pem(*chain[1:]), private_pem(key)), strict=True):
        path.write_bytes(data)
    return paths


class DaneServers:
    """Servers of chains, and `openssl s_client` to hold each against TLSA records."""

    def __init__(self, openssl: str, folder: Path) -> None:
        self._openssl = openssl
        self._folder = folder
        self._ports: dict[tuple[bytes, ...], int] = {}
        self._running: list[subprocess.Popen[bytes]] = []
        self._held = contextlib.ExitStack()

    def ask(self, chain: Sequence[bytes], key: Key, records: Sequence[str], host: str) -> Said:
        """Ask whether one of the records matches the chain, with `host` as the only name."""
        port = self._ports.get(tuple(chain)) or self._serve(tuple(chain), key)
        command = [self._openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-brief"]
        command += ["-dane_tlsa_domain", host, "-dane_ee_no_namechecks", "-verify_return_error"]
        command += ["-attime", str(int(AT.timestamp()))]
        for record in records:
            command += ["-dane_tlsa_rrdata", record]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        said = done.stdout + done.stderr
        return Said("Verification: OK" in said and "DANE TLSA" in said, said)

    def _serve(self, chain: tuple[bytes, ...], key: Key) -> int:
        certificate, rest, key_file = write_credentials(self._folder, str(len(self._ports)), chain, key)
        port: int = self._held.enter_context(hold_port()).getsockname()[1]
        command: list[str | Path] = [self._openssl, "s_server", "-accept", f"127.0.0.1:{port}", "-quiet"]
        command += ["-cert", certificate, "-key", key_file]
        command += ["-cert_chain", rest] if chain[1:] else []
        # its standard input stays open: at its end s_server would quit
        server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._running.append(server)
        wait_for_server(server, port)
        self._ports[chain] = port
        return port

    def stop(self) -> None:
        for server in self._running:
            server.kill()
            server.communicate()
        self._held.close()


@pytest.fixture(scope="module")
def dane_servers(openssl: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaneServers]:
    """Serve chains on loopback for as long as the tests of a module run."""
    servers = DaneServers(openssl, tmp_path_factory.mktemp("dane"))
    yield servers
    servers.stop()
