"""The certification authority of the lab: roots, chains and TLSA records of every kind (RFC 5280, 6698)."""

from __future__ import annotations

import datetime as dt
import hashlib
import ssl
import tempfile
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_VERSIONS = {
    "TLSv1.0": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
_ELSEWHERE = "www.elsewhere.test"


@dataclass(frozen=True, slots=True)
class Chain:
    """Certificates as a server presents them, leaf first, and the leaf's key; no certificate for an anonymous one."""

    certificates: tuple[x509.Certificate, ...]
    key: Key


class Authority:
    """Issues what the certificate kinds of `kinds.CERTIFICATES` describe, from one trusted root.

    Parameters
    ----------
    folder
        Where keys and chains are laid down for OpenSSL, which reads files only.

    Notes
    -----
    A few keys serve all certificates: making a key is what takes time, and no verdict depends on it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        self._serial = 1000
        self._key: Key = ec.generate_private_key(ec.SECP256R1())
        self._rsa_key: Key = rsa.generate_private_key(65537, 2048)
        self._ca_key: Key = ec.generate_private_key(ec.SECP256R1())
        self._intermediate_key: Key = ec.generate_private_key(ec.SECP256R1())
        self._rogue_key: Key = ec.generate_private_key(ec.SECP256R1())
        self._root = self._issue("Lab Root", self._ca_key, is_ca=True)
        self._rogue = self._issue("Lab Rogue Root", self._rogue_key, is_ca=True)
        by_root = (self._root.subject, self._ca_key)
        self._intermediate = self._issue("Lab Intermediate", self._intermediate_key, by_root, is_ca=True)
        self._expired_intermediate = self._issue(
            "Lab Intermediate", self._intermediate_key, by_root, is_ca=True, ends_in_days=-2
        )
        self._extra = tuple(
            self._issue(f"Lab Bystander {number}", self._rogue_key, is_ca=True) for number in range(40)
        )
        self._key_files = {
            id(key): self._write_key(name, key)
            for name, key in (("ec", self._key), ("rsa", self._rsa_key), ("rogue", self._rogue_key))
        }
        self.root_pem = self._root.public_bytes(serialization.Encoding.PEM)

    def _write_key(self, name: str, key: Key) -> Path:
        path = self._folder / f"{name}.key"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return path

    def _issue(
        self,
        common_name: str,
        key: Key,
        issuer: tuple[x509.Name, Key] | None = None,
        *,
        dns_names: tuple[str, ...] = (),
        is_ca: bool = False,
        starts_in_days: int = -30,
        ends_in_days: int = 60,
        signing_key: Key | None = None,
    ) -> x509.Certificate:
        # a common name holds 64 characters (RFC 5280, ub-common-name)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
        issuer_name, issuer_key = issuer or (subject, key)
        self._serial += 1
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer_name)
            .public_key(key.public_key())
            .serial_number(self._serial)
            .not_valid_before(self._now + dt.timedelta(days=starts_in_days))
            .not_valid_after(self._now + dt.timedelta(days=ends_in_days))
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
            purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
            builder = builder.add_extension(purpose, critical=False)
        if dns_names:
            names = x509.SubjectAlternativeName([x509.DNSName(name) for name in dns_names])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(signing_key or issuer_key, hashes.SHA256())

    @lru_cache(maxsize=20_000)  # noqa: B019  one authority lives as long as its process
    def chain(self, kind: str, host: str, domain: str) -> Chain:
        """Issue a chain of a certificate kind for a host; `domain` is whose host it is."""
        key = self._rsa_key if kind == "rsa" else self._key
        by_intermediate = (self._intermediate.subject, self._intermediate_key)
        names: tuple[str, ...] = (host,)
        parent = host.partition(".")[2]
        issuer: tuple[x509.Name, Key] | None = by_intermediate
        dates = (-30, 60)
        rest: tuple[x509.Certificate, ...] = (self._intermediate,)
        common_name = "Lab Server"
        signing_key: Key | None = None
        match kind:
            case "anonymous":
                return Chain((), key)
            case "wildcard":
                names = (f"*.{parent}",)
            case "wildcard_too_high":
                names = (f"*.{parent.partition('.')[2]}", f"*.{host}")
            case "cn_only":
                names, common_name = (), host
            case "cn_beside_other_name":
                names, common_name = (_ELSEWHERE,), host
            case "wrong_name":
                names = (_ELSEWHERE,)
            case "for_domain":
                names = (domain,)
            case "expired":
                dates = (-90, -1)
            case "not_yet_valid":
                dates = (1, 60)
            case "expired_intermediate":
                rest = (self._expired_intermediate,)
            case "self_signed":
                issuer, rest, common_name = None, (), host
            case "untrusted":
                issuer, rest = (self._rogue.subject, self._rogue_key), (self._rogue,)
            case "incomplete":
                rest = ()
            case "bad_signature":
                signing_key = self._rogue_key
            case "with_root":
                rest = (self._intermediate, self._root)
            case "huge":
                rest = (self._intermediate, *self._extra)
            case "wrong_name_with_root":
                names, rest = (_ELSEWHERE,), (self._intermediate, self._root)
            case "expired_with_root":
                dates, rest = (-90, -1), (self._intermediate, self._root)
        leaf = self._issue(
            common_name,
            key,
            issuer,
            dns_names=names,
            starts_in_days=dates[0],
            ends_in_days=dates[1],
            signing_key=signing_key,
        )
        return Chain((leaf, *rest), key)

    @lru_cache(maxsize=5_000)  # noqa: B019
    def context(self, kind: str, host: str, domain: str, version: str = "") -> ssl.SSLContext:
        """Make a server's TLS context: its chain, and the one protocol `version` it speaks (any modern one for "")."""
        chain = self.chain(kind, host, domain)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old versions are the point
            if version:
                context.minimum_version = min(_VERSIONS[version], ssl.TLSVersion.TLSv1_2)
                context.maximum_version = _VERSIONS[version]
                context.minimum_version = _VERSIONS[version]
        if not chain.certificates:
            context.maximum_version = ssl.TLSVersion.TLSv1_2  # no later version has anonymous ciphers
            context.set_ciphers("aNULL:!eNULL:@SECLEVEL=0")
            return context
        if version in ("TLSv1.0", "TLSv1.1"):
            context.set_ciphers("ALL:@SECLEVEL=0")
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".pem") as file:
            file.write(b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain.certificates))
            file.flush()
            context.load_cert_chain(file.name, self._key_files[id(chain.key)])
        return context

    def tlsa(self, template: str, chain: Chain) -> str:
        """Write a TLSA record for a chain, in presentation form.

        `template` is usage, selector, matching type and what is described: ``leaf``, ``intermediate`` or
        ``root``, ``other`` (none of them), ``short`` (a digest cut off).

        Notes
        -----
        Selectors and matching types that no registry knows describe the leaf as 1 and 1 would.
        """
        usage, selector, matching, subject = template.split()
        certificate = {
            "leaf": chain.certificates[0] if chain.certificates else self._rogue,
            "intermediate": self._intermediate,
            "root": self._root,
            "other": self._rogue,
            "short": self._rogue,
        }[subject]
        if selector == "0":
            content = certificate.public_bytes(serialization.Encoding.DER)
        else:
            content = certificate.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        match matching:
            case "0":
                data = content
            case "2":
                data = hashlib.sha512(content).digest()
            case _:
                data = hashlib.sha256(content).digest()
        if subject == "short":
            data = data[:10]
        return f"{usage} {selector} {matching} {data.hex()}"
