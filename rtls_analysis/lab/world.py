"""A world of mail domains drawn from the catalogue: which domain has which hosts at which addresses."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from rtls_analysis.lab.kinds import (
    DOMAINS,
    HOSTS,
    SERVERS,
    STS,
    TLSRPT,
    DomainKind,
    HostKind,
    ServerKind,
    StsKind,
)

UNREACHABLE = "127.255.255.255"
"""The broadcast address of the loopback network: a connection to it fails for want of a route."""

REFUSED_ADDRESS = "127.63.0.2"
SPECIAL_ADDRESS = "10.63.0.1"
DNS_ADDRESS = "127.0.0.1"

_OWN_ADDRESSES = 3000  # beyond these, hosts of the same kind share addresses, as virtual hosts do

WHOLE_ZONE = frozenset({"servfail", "refused", "bogus"})
"""Faults that strike every name of a domain; a silent one is silent about its MX only, to save time."""


@dataclass(frozen=True, slots=True)
class Host:
    """An MX host: `places` are its addresses, each with the server there, None where the lab has none."""

    name: str
    kind: HostKind
    domain: str  # whose host it is, as its certificate may say
    zone: str
    canonical: str
    places: tuple[tuple[str, ServerKind | None], ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses, IPv4 first."""
        return tuple(address for address, _server in self.places)


@dataclass(frozen=True, slots=True)
class Domain:
    """A policy domain of the world."""

    name: str
    kind: DomainKind
    hosts: tuple[tuple[int, Host], ...]
    canonical: str

    @property
    def answers(self) -> bool:
        """Its MX lookup comes to servers, or at least to their names."""
        return self.kind.mx_state in ("mx", "implicit_mx", "null_mx_with_others")

    @property
    def via_mx(self) -> bool:
        """Its hosts are named by MX records."""
        return self.kind.mx_state != "implicit_mx"

    @property
    def why(self) -> str:
        """What is special about it, in a line."""
        return self.kind.why


@dataclass(frozen=True, slots=True)
class Provider:
    """A mail operator with many domains; `share` is its part of the drawn domains that have MX records."""

    name: str
    share: float
    hosts: tuple[tuple[int, str], ...]
    signed: float = 0.03  # of its domains
    sts: float = 0.022
    why: str = ""


# Shares of operators by domains, top list of May 2026: the two largest 21.57 and 16.69 %, own hosts 23.07 %
_OWN = 23.07
PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider("bigmail.test", 21.57, ((5, "valid"), (10, "valid"), (20, "valid"))),
        Provider("outpost.test", 16.69, ((0, "dual_stack"),)),
        Provider("gatekeeper.test", 3.55, ((10, "tls12"), (10, "tls12"))),
        Provider("onehost.test", 2.0, ((10, "dane_plain_offer"), (20, "dane_plain_offer")), signed=0.9),
        Provider("alpenpost.test", 1.2, ((10, "dane_plain_offer"),), signed=0.6),
        Provider("readymail.test", 0.5, ((10, "dane_311"),), signed=0.7, sts=0.1),
        Provider("halfway.test", 0.4, ((10, "requiretls"), (20, "valid")), sts=0.5),
        Provider("cheaphost.test", 12.0, ((0, "wrong_name"),), signed=0.01, sts=0.0),
        Provider("oldhost.test", 4.0, ((0, "expired"),), sts=0.0),
        Provider("clearhost.test", 2.0, ((0, "plain"),), sts=0.0),
    )
}

# What looking up MX comes to: 5.77 % SERVFAIL and 0.98 % NXDOMAIN of gTLD names (June 2021), two thirds with MX in
# a top list, about 1.3 % null MX; the rest has an address or nothing
_STATES = {
    "mx": 66.6,
    "no_mail": 18.0,
    "servfail": 5.77,
    "implicit_mx": 7.0,
    "null_mx": 1.3,
    "nxdomain": 0.98,
    "dns_timeout": 0.3,
}
# Own hosts: STARTTLS at 96 %, some 30 % of certificates invalid, names first. Of all addresses a third times out in
# surveys; here fewer do, for the sake of time
_OWN_HOSTS = {
    "valid": 48.0,
    "tls12": 8.0,
    "wildcard": 4.0,
    "wrong_name": 10.0,
    "self_signed": 7.0,
    "expired": 3.0,
    "untrusted": 1.5,
    "incomplete": 1.5,
    "plain": 3.5,
    "silent": 2.0,
    "refused": 5.0,
    "unreachable": 1.0,
    "busy": 0.7,
    "greylist": 0.7,
    "blocked": 1.0,
    "starttls_busy": 0.3,
    "starttls_refused": 0.3,
    "injected": 1.0,
    "tls10": 0.4,
    "alias": 0.8,
    "no_address": 0.8,
    "special": 0.6,
    "requiretls": 1.0,
}
_SIGNED_HOSTS = {
    "valid_signed": 70.0,
    "dane_plain_offer": 17.0,
    "plain_signed": 3.0,
    "silent_signed": 2.0,
    "dane_mismatch_common": 1.0,
    "dane_311": 1.0,
    "requiretls_signed": 1.0,
}
_SIGNED = 0.06  # 23.2 of 390 M domains
_TLSRPT = 0.029
_STS_MISCONFIGURED = 0.296
_STS_GOOD = {"enforce": 40.0, "testing": 55.0, "mode_none": 5.0}
_STS_BAD = {
    "enforce_mismatch": 11.0,
    "policy_wrong_name": 30.0,
    "not_found": 20.0,
    "policy_no_address": 15.0,
    "policy_expired": 8.0,
    "redirect": 6.0,
    "bad_mode": 5.0,
    "malformed": 5.0,
}

_FIRST = "amber brisk calm dusty early fair green hazy idle jolly keen lucky mild noble old plain quiet red soft tidy"
_SECOND = "anchor bridge cedar dune ember ford grove harbour isle jetty knoll lake meadow north orchard pine quay river"


def _draw(random_: random.Random, weights: dict[str, float]) -> str:
    return random_.choices(list(weights), list(weights.values()))[0]


@dataclass(slots=True)
class World:
    """All of the lab's Internet, the same for the same size and seed.

    Parameters
    ----------
    size
        How many domains: first one of each kind of the catalogue, commonest first, then drawn ones.
    seed
        Decides what is drawn.
    has_ipv6
        Hosts may be at ``::1``; without, they are left with their IPv4 addresses.
    """

    size: int
    seed: int = 1
    has_ipv6: bool = True
    domains: dict[str, Domain] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    servers: dict[str, ServerKind] = field(default_factory=dict)  # by address
    _addresses: Iterator[str] = field(init=False)
    _shared: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._addresses = _address_plan()
        kinds = list(DOMAINS.values())[: self.size]
        for kind in kinds:
            label = kind.label or kind.name.replace("_", "-")
            self._add(f"{label}.test", kind)
        random_ = random.Random(self.seed)
        for number in range(len(kinds), self.size):
            words = (random_.choice(_FIRST.split()), random_.choice(_SECOND.split()), str(number))
            self._add(f"{'-'.join(words)}.test", self._drawn(random_))

    def _drawn(self, random_: random.Random) -> DomainKind:
        """Draw what a domain is like."""
        state = _draw(random_, _STATES)
        secure = random_.random() < _SIGNED
        tlsrpt = "mail" if random_.random() < _TLSRPT else "absent"
        if state in ("servfail", "null_mx", "nxdomain", "no_mail", "dns_timeout"):
            return DOMAINS[state]
        if state == "implicit_mx":
            host = _draw(random_, _OWN_HOSTS)
            if HOSTS[host].mx_state != "mx" or HOSTS[host].secure:
                host = "valid"
            why = f"no MX; {HOSTS[host].why}"
            return DomainKind("drawn", why, ((0, host),), mx_state="implicit_mx", tlsrpt=tlsrpt)
        shares = {"": _OWN} | {provider.name: provider.share for provider in PROVIDERS.values()}
        name = _draw(random_, shares)
        if name:
            provider = PROVIDERS[name]
            secure = random_.random() < provider.signed
            sts = self._drawn_sts(random_, provider.sts)
            kind = DomainKind("drawn", "", provider=name)
        else:
            host = _draw(random_, _SIGNED_HOSTS if secure else _OWN_HOSTS)
            sts = self._drawn_sts(random_, 0.022)
            kind = DomainKind("drawn", HOSTS[host].why, ((10, host),))
        kind = replace(kind, secure=secure, sts=sts, tlsrpt=tlsrpt)
        return replace(kind, why=explain(kind))

    @staticmethod
    def _drawn_sts(random_: random.Random, share: float) -> str:
        if random_.random() >= share:
            return "absent"
        return _draw(random_, _STS_BAD if random_.random() < _STS_MISCONFIGURED else _STS_GOOD)

    def _add(self, name: str, kind: DomainKind) -> None:
        label = name.partition(".")[0]
        target = f"{label}-real.test" if kind.alias else name
        hosts: list[tuple[int, Host]] = []
        if kind.provider:
            hosts = [
                (preference, self._host(f"mx{number}.{kind.provider}", host, kind.provider, kind.provider))
                for number, (preference, host) in enumerate(PROVIDERS[kind.provider].hosts, 1)
            ]
        for number, (preference, host_name) in enumerate(kind.hosts, 1):
            host = HOSTS[host_name]
            zone = target if host.secure == kind.secure else f"{label}-mail.test"
            if kind.mx_state == "implicit_mx":
                zone = full = name
            elif host_name == "literal":
                full = "192.0.2.25"
            elif host_name == "long":
                full = f"mx{number:02}-{'a' * 50}.{'b' * 60}.{'c' * 60}.{zone}"
            else:
                full = f"mx{number}.{zone}"
            hosts.append((preference, self._host(full, host_name, name, zone)))
        self.domains[name] = Domain(name, kind, tuple(hosts), target)

    def _host(self, name: str, kind_name: str, domain: str, zone: str) -> Host:
        if (known := self.hosts.get(name)) is not None:
            return known
        kind = HOSTS[kind_name]
        places: list[tuple[str, ServerKind | None]] = []
        for number, server in enumerate(kind.servers, 1):
            at_v6 = kind.ipv6 and self.has_ipv6 and number == len(kind.servers)
            places.append((self._address(server, at_v6=at_v6), SERVERS[server]))
        places += [(address, None) for address in kind.literal]
        canonical = f"host.{zone.partition('.')[0]}-target.test" if kind.alias else name
        host = self.hosts[name] = Host(name, kind, domain, zone, canonical, tuple(places))
        return host

    def _address(self, server: str, *, at_v6: bool) -> str:
        if server == "unreachable":
            return UNREACHABLE
        if at_v6:
            self.servers.setdefault("::1", SERVERS[server])
            return "::1"
        shared = self._shared.setdefault(server, [])
        if len(self.servers) < _OWN_ADDRESSES or not shared:
            address = next(self._addresses)
            self.servers[address] = SERVERS[server]
            shared.append(address)
            return address
        shared.append(shared.pop(0))
        return shared[-1]


def policy_address(sts: StsKind) -> str | None:
    """Give the address of the policy host of an MTA-STS kind; None for none."""
    match sts.address:
        case "refused":
            return REFUSED_ADDRESS
        case "special":
            return SPECIAL_ADDRESS
        case "none":
            return None
    return f"127.63.1.{list(STS).index(sts.name) + 1}"


def explain(kind: DomainKind) -> str:
    """Say in a line what a drawn domain is like."""
    parts = [f"hosted by {kind.provider}" if kind.provider else kind.why]
    parts += [STS[kind.sts].why, TLSRPT[kind.tlsrpt].why, "MX signed" if kind.secure else ""]
    return ", ".join(part for part in parts if part)


def _address_plan() -> Iterator[str]:
    for second in range(64, 128):
        for third in range(256):
            for fourth in range(1, 255):
                yield f"127.{second}.{third}.{fourth}"
