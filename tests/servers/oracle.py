"""posttls-finger, Postfix's own prober, as the oracle: its verdicts in our words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from tests.servers.world import DOMAINS, P11, P37, addresses

_REASONS = {
    "certificate has expired": "expired",
    "certificate is not yet valid": "not_yet_valid",
    "certificate not yet valid": "not_yet_valid",
    "self-signed certificate": "self_signed",
    "untrusted issuer": "untrusted",
    "unable to get local issuer certificate": "untrusted",
    "hostname mismatch": "name_mismatch",
}
_ESTABLISHED = re.compile(r"posttls-finger: (\w+) TLS connection established to \S+ (\S+) with cipher (\S+)")
_LOOKUP_FAILED = (
    "TLSA lookup error",
    "address lookup failed",
    "MX lookup failed",
    "DANE TLSA lookup problem",
)
_LAX = ("-p", ">=TLSv1", "-o", "tls_medium_cipherlist=ALL:@SECLEVEL=0")
# A level that matches certificates raises OpenSSL to security level 1, whatever is set. There version 3.5 knows no
# TLS 1.0, and 3.0 only without the SHA-1 signatures of its key exchanges: older Postfix, and a key exchange by RSA.
_LAX_TO_TLS10 = ("-p", ">=TLSv1", "-o", "tls_medium_cipherlist=kRSA:@SECLEVEL=0")


class Ran(Protocol):
    """What came of running a program."""

    stdout: str
    stderr: str


class World(Protocol):
    """What this module needs of the running world."""

    @property
    def run(self) -> Callable[..., Ran]: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """What posttls-finger found: words of PkixState and DaneState, the TLS settled, and what it printed."""

    pkix: str
    dane: str
    tls_version: str | None
    cipher: str | None
    said: str


def read_pkix(verify: str, encrypt: str) -> str:
    """Read a run at level verify: the certificate for the host's name against the lab's CA.

    That level offers no anonymous ciphers; a run at level encrypt does.
    """
    established = _ESTABLISHED.search(verify)
    if established is None:
        without = _ESTABLISHED.search(encrypt)
        return "anonymous" if without is not None and without[1] == "Anonymous" else "not_tested"
    if established[1] == "Verified":
        return "valid"
    for reason, word in _REASONS.items():
        if reason in verify:
            return word
    return "no reason given"


def read_dane(said: str) -> str:
    """Read a run at level dane; where TLSA does not call for authentication it goes on without.

    Where the MX answer is insecure it still matches, and says that it takes the server for no more than trusted:
    DANE does not count there (RFC 7672 §2.2.1).
    """
    if any(words in said for words in _LOOKUP_FAILED):
        return "error"
    if "all TLSA records unusable" in said:
        return "unusable"
    if "DNSSEC-signed TLSA record" not in said or "MX RRset insecure" in said:
        return "none"
    established = _ESTABLISHED.search(said)
    if established is None:
        return "not_tested"
    return "match" if established[1] == "Verified" and "Matched DANE" in said else "mismatch"


def _finger(world: World, level: str, *more: str, root: str = P11) -> str:
    argv = ["posttls-finger", "-c", "-t", "10", "-T", "10", "-l", level, "-L", "summary,certmatch,verbose"]
    done = world.run([*argv, *more], root=root)
    return f"{done.stdout}{done.stderr}"


def _ask_host(world: World, host: str, address: str, old: bool) -> Finding:
    """Ask a host by its name in brackets, which spares the MX lookup, at one of its addresses."""
    family = ("-o", f"inet_protocols={'ipv6' if ':' in address else 'ipv4'}")
    lax, root = (_LAX_TO_TLS10, P37) if old else (_LAX, P11)
    ask = (*lax, *family)
    verify = _finger(world, "verify", *ask, "-F", "/world/ca.pem", f"[{host}]", host, root=root)
    encrypt = ""
    if _ESTABLISHED.search(verify) is None:
        encrypt = _finger(world, "encrypt", *ask, f"[{host}]", root=root)
    dane = _finger(world, "dane", *ask, f"[{host}]", root=root)
    established = _ESTABLISHED.search(verify) or _ESTABLISHED.search(encrypt)
    version, cipher = (established[2], established[3]) if established else (None, None)
    return Finding(
        read_pkix(verify, encrypt),
        read_dane(dane),
        {"TLSv1": "TLSv1.0"}.get(version or "", version),
        cipher,
        f"{verify}\n{encrypt}\n{dane}",
    )


def _ask_domain(world: World, domain: str) -> Finding:
    said = _finger(world, "dane", *_LAX, domain)
    return Finding("not_tested", read_dane(said), None, None, said)


def ask_all(world: World) -> Mapping[tuple[str, str], Finding]:
    """Ask about every host at each address, and about every domain with one MX host (its address is "")."""
    with ThreadPoolExecutor(4) as pool:
        found = {
            (row.host, address): pool.submit(_ask_host, world, row.host, address, "tls10" in row.settings)
            for row, address in addresses().items()
        }
        for domain in (row.domain for row in DOMAINS if len(row.mx) == 1):
            found[domain, ""] = pool.submit(_ask_domain, world, domain)
        return {key: finding.result() for key, finding in found.items()}
