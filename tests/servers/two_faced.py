"""A Postfix 3.11 that treats clients by where they come from: the first process of its namespaces, or its name server.

``python -m tests.servers.two_faced mail ROOTS FOLDER``, or ``... names FOLDER``, which resolves names on loopback:
either prints ``ready`` when it listens, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rtls_analysis.lab.dns_server import Answerer, Names, serve_dns
from tests.servers.materials import issue, lab_root, write_pair
from tests.servers.namespaces import NET
from tests.servers.prepare import layer_folders
from tests.servers.start import LOGS, World, _run
from tests.servers.world import P11

PREFIX = "10.25.9"
DNS_PORT = 5353
SECOND = f"{NET}.2.0/24"
"""Where the clients are that get the other face."""


@dataclass(frozen=True, slots=True)
class Face:
    """A domain's MX host: its address, settings of its Postfix service, and what differs for the second vantage."""

    domain: str
    address: str
    settings: dict[str, str]
    reason: str = ""

    @property
    def host(self) -> str:
        return f"mx.{self.domain}"


FACES = (
    Face("same.test", f"{PREFIX}.1", {}),
    Face(
        "blocks.test",
        f"{PREFIX}.2",
        {
            "smtpd_client_restrictions": "check_client_access cidr:/etc/postfix/block",
            "smtpd_delay_reject": "no",
        },
        "blocked",
    ),
    Face(
        "strips.test",
        f"{PREFIX}.3",
        {"smtpd_discard_ehlo_keyword_address_maps": "cidr:/etc/postfix/strip_starttls"},
        "no_starttls",
    ),
    Face(
        "hides.test",
        f"{PREFIX}.4",
        {"smtpd_discard_ehlo_keyword_address_maps": "cidr:/etc/postfix/strip_requiretls"},
        "requiretls_not_offered",
    ),
    Face("far.test", f"{PREFIX}.5", {}, "unreachable"),  # the test takes its route away
)
TABLES = {
    "block": "554 5.7.1 nobody from there",
    "strip_starttls": "starttls",
    "strip_requiretls": "requiretls",
}


class TwoFaced(World):
    """One Postfix with a service for each face."""

    def start(self) -> None:
        """Start it, and wait until it listens."""
        certs = self.folder / "certs"
        certs.mkdir()
        (self.folder / "log").mkdir()
        (self.folder / "ca.pem").write_bytes(lab_root().certificate.public_bytes(Encoding.PEM))
        _run(["ip", "link", "set", "lo", "up"])
        for face in FACES:
            write_pair(certs, face.address, *issue("valid", face.host))
            _run(["ip", "address", "add", f"{face.address}/32", "dev", "lo"])
        self.mount(P11, layer_folders(self.roots, P11))
        self.start_postfix(P11)
        self.wait({(face.address, 25) for face in FACES})

    def start_postfix(self, name: str) -> None:
        """Run it; the dialogue with each client is in its log."""
        folder = self.root(name) / "etc" / "postfix"
        for table, action in TABLES.items():
            (folder / table).write_text(f"{SECOND} {action}\n")
        (folder / "main.cf").write_text(
            "compatibility_level = 3.11\nmyhostname = relay.test\nmydestination =\nmynetworks = 127.0.0.1/32\n"
            "smtpd_relay_restrictions = reject_unauth_destination\nsmtpd_peername_lookup = no\nalias_maps =\n"
            "alias_database =\nnotify_classes =\nmaillog_file = /var/log/postfix.log\nsmtpd_tls_security_level = may\n"
            f"smtpd_tls_session_cache_database =\ndebug_peer_list = {NET}.0.0/16\ndebug_peer_level = 1\n"
            "smtpd_client_connection_rate_limit = 0\n"
        )
        lines = (folder / "master.cf").read_text().splitlines()
        kept = [line for line in lines if not re.match(r"smtp\s+inet", line)]
        for face in FACES:
            kept.append(f"{face.address}:25 inet n - n - - smtpd")
            options = {
                "myhostname": face.host,
                "syslog_name": f"postfix/{face.host}",
                "smtpd_tls_chain_files": f"/world/certs/{face.address}.pem",
                **face.settings,
            }
            kept += [f"  -o {{ {key} = {value} }}" for key, value in options.items()]
        (folder / "master.cf").write_text("\n".join(kept) + "\n")
        self.spawn(name, ["chroot", self.root(name), "postfix", "start-fg"])


def log_of(folder: Path) -> Path:
    """Give the log of the Postfix that was started with this folder."""
    return folder / "log" / P11 / LOGS[P11]


def _names(folder: Path) -> Names:
    """Publish the domains, signed, with the TLSA record of the key that each server has."""
    names = Names()
    for face in FACES:
        names.signed[face.domain] = True
        names.add(face.domain, "MX", f"10 {face.host}.")
        names.add(face.host, "A", face.address)
        leaf = x509.load_pem_x509_certificate((folder / "certs" / f"{face.address}.crt").read_bytes())
        key = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        names.add(f"_25._tcp.{face.host}", "TLSA", f"3 1 1 {hashlib.sha256(key).hexdigest()}")
    return names


async def _serve_names(folder: Path) -> None:
    _port, stop = await serve_dns(Answerer(_names(folder)), "127.0.0.1", DNS_PORT)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    stop()


def main() -> None:
    """Start what is asked for, say so, and stay until the one who started us is gone."""
    os.umask(0o022)
    match sys.argv[1:]:
        case ["mail", roots, folder]:
            TwoFaced(Path(roots), Path(folder), ()).start()
            print("ready", flush=True)
            sys.stdin.read()
        case ["names", folder]:
            asyncio.run(_serve_names(Path(folder)))


if __name__ == "__main__":
    main()
