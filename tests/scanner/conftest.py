"""Certificates, and servers that we did not write, for the tests of the scanner."""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.ports import hold_port, wait_for_server

HOST = "mta-sts.example.org"


@dataclass(frozen=True)
class Credentials:
    """Files of a chain (leaf first) and its key, and the certificates in them."""

    chain: Path
    key: Path
    ders: tuple[bytes, ...]


@dataclass(frozen=True)
class Authority:
    """A root and what it has certified."""

    root_pem: bytes
    good: Credentials  # for HOST, EC P-256
    rsa: Credentials  # for HOST, RSA 2048
    wrong_name: Credentials
    cn_only: Credentials  # HOST stands in the common name alone
    expired: Credentials
    self_signed: Credentials


def _certificate(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    common_name: str,
    issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None = None,
    *,
    dns_name: str | None = None,
    is_ca: bool = False,
    days: int = 30,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    issuer_name, issuer_key = issuer or (subject, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=90))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    if is_ca:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    if dns_name:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns_name)]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("certificates")
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = _certificate(root_key, "root", is_ca=True)
    by_root = (root.subject, root_key)

    def save(
        name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *chain: x509.Certificate
    ) -> Credentials:
        chain_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
        chain_file.write_bytes(b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Credentials(
            chain_file, key_file, tuple(c.public_bytes(serialization.Encoding.DER) for c in chain)
        )

    key = ec.generate_private_key(ec.SECP256R1())
    rsa_key = rsa.generate_private_key(65537, 2048)
    return Authority(
        root_pem=root.public_bytes(serialization.Encoding.PEM),
        good=save("good", key, _certificate(key, "leaf", by_root, dns_name=HOST), root),
        rsa=save("rsa", rsa_key, _certificate(rsa_key, "leaf", by_root, dns_name=HOST)),
        wrong_name=save("wrong", key, _certificate(key, "leaf", by_root, dns_name="www.example.org")),
        cn_only=save("cn", key, _certificate(key, HOST, by_root)),
        expired=save("expired", key, _certificate(key, "leaf", by_root, dns_name=HOST, days=-1)),
        self_signed=save("self", key, _certificate(key, HOST, dns_name=HOST)),
    )


@pytest.fixture
def openssl_server() -> Iterator[Callable[..., int]]:
    """Start `openssl s_server` with these arguments: gives its port on 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str | Path) -> int:
        port: int = held.enter_context(hold_port()).getsockname()[1]
        command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", *map(str, arguments)]
        # its standard input stays open: at its end s_server would quit
        server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        running.append(server)
        wait_for_server(server, port)
        return port

    with contextlib.ExitStack() as held:
        yield start
        for server in running:
            server.kill()
            server.communicate()
