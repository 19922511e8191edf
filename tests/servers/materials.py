"""Certificates, TLSA records and zone files of the world, written into a folder before anything is started."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from tests.servers.world import DOMAINS, NAME_SERVER, POLICY_SERVER, Listener, addresses

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DAY = dt.timedelta(days=1)
TTL = 3600


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, and the certificate that issued it."""

    certificate: x509.Certificate
    key: Key
    issuer: Issued | None = None

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def _issue(
    common_name: str,
    issuer: Issued | None,
    *,
    names: tuple[str, ...] = (),
    days: tuple[int, int] = (-2, 30),
    authority: bool = False,
    key: Key | None = None,
) -> Issued:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + days[0] * DAY)
        .not_valid_after(NOW + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    if authority:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    return Issued(builder.sign(signer, hashes.SHA256()), key, issuer)


@cache
def authority(common_name: str, last_day: int = 400) -> Issued:
    """Give the authority of that name: an intermediate below a root of its own name."""
    root = _issue(f"{common_name} root", None, days=(-30, 400), authority=True)
    return _issue(f"{common_name} intermediate", root, days=(-30, last_day), authority=True)


def lab_root() -> Issued:
    """Give the only root that scanner and oracle trust."""
    root = authority("Lab").issuer
    assert root is not None
    return root


@cache
def _lab_issuer_expired() -> Issued:
    return _issue("Lab late intermediate", lab_root(), days=(-30, -1), authority=True)


def issue(kind: str, host: str, key: Key | None = None) -> tuple[Issued, list[Issued]]:
    """Issue a certificate of a kind for a host: the leaf, and the chain as the server sends it."""
    lab = authority("Lab")
    parent = host.partition(".")[2]
    make = partial(_issue, key=key)
    match kind:
        case "valid" | "leaf_only" | "with_root":
            leaf = make(host, lab, names=(host,))
        case "expired":
            leaf = make(host, lab, names=(host,), days=(-20, -1))
        case "not_yet_valid":
            leaf = make(host, lab, names=(host,), days=(5, 30))
        case "wrong_name":
            leaf = make("mail.elsewhere.test", lab, names=("mail.elsewhere.test",))
        case "names_domain":
            leaf = make(parent, lab, names=(parent,))
        case "wildcard":
            leaf = make(f"*.{parent}", lab, names=(f"*.{parent}",))
        case "cn_only":
            leaf = make(host, lab)
        case "self_signed":
            leaf = make(host, None, names=(host,))
        case "stranger":
            leaf = make(host, authority("Stranger"), names=(host,))
        case "expired_issuer":
            leaf = make(host, _lab_issuer_expired(), names=(host,))
        case _:
            raise ValueError(f"no certificate of kind {kind!r}")
    chain = [leaf]
    if leaf.issuer and kind != "leaf_only":
        chain.append(leaf.issuer)
    if kind == "with_root":
        chain.append(lab_root())
    return leaf, chain


def write_pair(folder: Path, name: str, leaf: Issued, chain: list[Issued]) -> None:
    """Write key, chain, and both in one file, as the servers want them."""
    key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certificates = b"".join(issued.certificate.public_bytes(Encoding.PEM) for issued in chain)
    for ending, data in (("key", key), ("crt", certificates), ("pem", key + certificates)):
        path = folder / f"{name}.{ending}"
        path.write_bytes(data)
        path.chmod(0o640 if ending != "crt" else 0o644)


def tlsa_data(record: str, leaf: Issued) -> str:
    """Turn a TLSA record of the table into its presentation form."""
    usage, selector, matching, what = record.split()
    issued = {
        "leaf": leaf,
        "forged": leaf,
        "issuer": leaf.issuer or leaf,
        "root": lab_root(),
        "other": authority("Stranger"),
        "short": leaf,
    }[what]
    data = issued.der
    if selector == "1":
        data = issued.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if matching != "0":
        data = hashlib.new({"1": "sha256", "2": "sha512"}[matching], data).digest()
    if what == "short":
        data = data[:20]
    return f"{usage} {selector} {matching} {data.hex()}"


def _zone(name: str, lines: list[str]) -> str:
    head = [
        f"$TTL {TTL}",
        f"{name} IN SOA ns.test. hostmaster.test. 1 7200 3600 864000 {TTL}",
        f"{name} IN NS ns.test.",
    ]
    return "\n".join([*head, *dict.fromkeys(lines)]) + "\n"


def _host_lines(listener: Listener, address: str, leaf: Issued | None) -> list[str]:
    if listener.cname:
        return [f"{listener.host}. IN CNAME {listener.cname}."]
    lines = [f"{listener.host}. IN {'AAAA' if ':' in address else 'A'} {address}"]
    owner = f"_25._tcp.{listener.host}."
    for record in listener.tlsa:
        if record.endswith("plain"):
            lines.append(f"{owner} IN CNAME _25._tcp.mx.bare.plain.test.")
        elif leaf is None:
            lines.append(f"{owner} IN TLSA {record.replace('leaf', 'aa' * 32)}")
        else:
            lines.append(f"{owner} IN TLSA {tlsa_data(record, leaf)}")
    return lines


def _domain_lines() -> list[str]:
    lines = []
    for row in DOMAINS:
        if row.mx_state == "null_mx":
            lines.append(f"{row.domain}. IN MX 0 .")
        elif row.mx_state == "no_mail":
            lines.append(f'{row.domain}. IN TXT "no mail here"')
        elif row.domain.endswith("broken.test"):
            lines.append(f"{row.domain}. IN MX 10 mx.{row.domain}.")
        elif row.mx_state == "mx":
            lines += [
                f"{row.domain}. IN MX {10 * number} {host}." for number, host in enumerate(row.mx, start=1)
            ]
        if row.policy:
            lines += [
                f'_mta-sts.{row.domain}. IN TXT "v=STSv1; id=20261124;"',
                f'_smtp._tls.{row.domain}. IN TXT "v=TLSRPTv1; rua=mailto:reports@{row.domain}"',
                f"mta-sts.{row.domain}. IN A {POLICY_SERVER}",
            ]
    return lines


def write_materials(folder: Path) -> None:
    """Write ``ca.pem``, ``certs/`` (a pair for each address and policy host) and ``zones/`` (not yet signed)."""
    certs, zones = folder / "certs", folder / "zones"
    for made in (certs, zones):
        made.mkdir(parents=True)
    (folder / "ca.pem").write_bytes(lab_root().certificate.public_bytes(Encoding.PEM))
    lines = _domain_lines()
    issued: dict[str, tuple[Issued, list[Issued]]] = {}
    for listener, address in addresses().items():
        leaf = None
        if listener.certificate and not listener.cname:
            key = rsa.generate_private_key(65537, 2048) if listener.certificate_key == "RSA-2048" else None
            if listener.host not in issued:  # one certificate for all addresses of a host
                issued[listener.host] = issue(listener.certificate, listener.host, key)
            leaf, chain = issued[listener.host]
            write_pair(certs, address, leaf, chain)
        lines += _host_lines(listener, address, leaf)
    for row in DOMAINS:
        if row.policy:
            kind = "self_signed" if row.policy == "self_signed" else "valid"
            leaf, chain = issue(kind, f"mta-sts.{row.domain}")
            write_pair(certs, f"mta-sts.{row.domain}", leaf, chain)
    write_zones(zones, lines)


def write_zones(zones: Path, lines: list[str]) -> None:
    """Write the three zones that these lines belong to, and those above them."""
    for zone in ("signed.test.", "plain.test.", "broken.test."):
        own = [line for line in lines if line.split(maxsplit=1)[0].endswith(zone)]
        (zones / f"{zone}zone").write_text(_zone(zone, own))
    glue = f"ns.test. IN A {NAME_SERVER}"
    parts = [f"{zone} IN NS ns.test." for zone in ("signed.test.", "plain.test.", "broken.test.")]
    (zones / "test.zone").write_text(_zone("test.", [glue, *parts]))
    (zones / "root.zone").write_text(_zone(".", ["test. IN NS ns.test.", glue]))


def policy_text(row_policy: str, domain: str) -> str:
    """Give the body of a policy: its mode, and the domain's own MX host unless a pattern is named."""
    mode, _, pattern = row_policy.partition("/")
    lines = ["version: STSv1", f"mode: {mode}", f"mx: {pattern or f'mx.{domain}'}", "max_age: 86400"]
    return "".join(f"{line}\r\n" for line in lines)
