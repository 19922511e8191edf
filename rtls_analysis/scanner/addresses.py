"""Which addresses a scan must not contact, and which families this machine can reach (RFC 6890, IANA registries).

Anybody can publish any address in the DNS: an MX at 127.0.0.1 or in a neighbour's network is asked about after
every resolution, in whatever disguise it comes.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_PROC_NET = Path("/proc/self/net")
_OWN_SECONDS = 60.0  # how old the list of our own addresses may be: laptops move

_Block = tuple[int, int, str]  # the bits of a network, the mask that leaves them, what it is for


def _blocks(*rows: tuple[str, str]) -> tuple[_Block, ...]:
    """Prepare networks for a quick search; of two that overlap, the first counts."""
    networks = [(ipaddress.ip_network(network), reason) for network, reason in rows]
    return tuple((int(network[0]), int(network.netmask), reason) for network, reason in networks)


_IPV4 = _blocks(
    ("0.0.0.0/32", "unspecified"),
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared by carriers (CGNAT)"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "protocol assignment"),
    ("192.0.2.0/24", "documentation"),
    ("192.31.196.0/24", "AS112 sink"),
    ("192.52.193.0/24", "multicast tunnel (AMT)"),
    ("192.88.99.0/24", "6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("192.175.48.0/24", "AS112 sink"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("240.0.0.0/4", "reserved"),
)

_IPV6 = _blocks(
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("::ffff:0:0:0/96", "IPv4-translated"),
    ("::/96", "IPv4-compatible"),
    ("64:ff9b::/96", "NAT64"),
    ("64:ff9b:1::/48", "NAT64"),
    ("100::/64", "discard-only"),
    ("100:0:0:1::/64", "dummy prefix"),
    ("2001::/32", "Teredo"),
    ("2001:2::/48", "benchmarking"),
    ("2001:3::/32", "multicast tunnel (AMT)"),
    ("2001:4:112::/48", "AS112 sink"),
    ("2001:10::/28", "ORCHID"),
    ("2001:20::/28", "ORCHID"),
    ("2001:30::/28", "remote identification (DET)"),
    ("2001::/23", "protocol assignment"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4"),
    ("2620:4f:8000::/48", "AS112 sink"),
    ("3ffe::/16", "reserved"),  # the 6bone, given back (RFC 3701)
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("fc00::/7", "unique local"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)
_GLOBAL_UNICAST = 0b001  # the first three bits of all that is given out (RFC 4291 §2.4)

_LAST_32 = frozenset({"IPv4-mapped", "IPv4-translated", "IPv4-compatible"})
_NAT64_WELL_KNOWN = int(IPv6Address("64:ff9b::")) >> 32
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})  # RFC 5214 §6.1


def special_reason(address: str) -> str:
    """Say why an address is no ordinary public unicast one; empty where it is.

    Text that is no address gives a reason too, as does one with a zone: the caller may contact whatever comes
    back empty.

    Notes
    -----
    IPv6 addresses that carry an IPv4 address (mapped, compatible, translated, NAT64, 6to4, Teredo) are refused
    whatever they carry: no mail server is published by one, and where it leads is for others to say. An ISATAP
    address is refused where the IPv4 address in it is. An operator's own NAT64 prefix cannot be told from any
    other (RFC 6052 §2.2).

    Examples
    --------
    >>> special_reason("::ffff:10.0.0.1")
    'IPv4-mapped (10.0.0.1: private)'
    >>> special_reason("100.100.1.1"), special_reason("9.9.9.9")
    ('shared by carriers (CGNAT)', '')
    """
    known = _parse(address)
    if known is None:
        return "not an address"
    if isinstance(known, IPv6Address):
        if known.scope_id is not None:
            return "an address with a zone"
        return _special_ipv6(known) or _own_reason(known)
    return _special_ipv4(known) or _own_reason(known)


def _parse(address: str) -> Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None


def _special_ipv4(address: IPv4Address) -> str:
    return _find(_IPV4, int(address))


def _find(blocks: Iterable[_Block], bits: int) -> str:
    for begins, mask, reason in blocks:
        if bits & mask == begins:
            return reason
    return ""


def _special_ipv6(address: IPv6Address) -> str:
    bits = int(address)
    reason = _find(_IPV6, bits)
    carried = _carried(bits, reason)
    if reason:
        if carried is None:
            return reason
        inner = _special_ipv4(carried) or _own_reason(carried)
        return f"{reason} ({carried}: {inner})" if inner else f"{reason} ({carried})"
    if bits >> 125 != _GLOBAL_UNICAST:
        return "reserved"
    if carried is not None and (inner := _special_ipv4(carried) or _own_reason(carried)):
        return f"ISATAP ({carried}: {inner})"
    return ""


def _carried(bits: int, reason: str) -> IPv4Address | None:
    """Give the IPv4 address inside an IPv6 address, where its form says that there is one."""
    if reason in _LAST_32 or bits >> 32 == _NAT64_WELL_KNOWN:
        return IPv4Address(bits & 0xFFFFFFFF)
    if reason == "NAT64":  # a /48 leaves out bits 64 to 71 (RFC 6052 §2.2)
        return IPv4Address((bits >> 64 & 0xFFFF) << 16 | bits >> 40 & 0xFFFF)
    if reason == "6to4":
        return IPv4Address(bits >> 80 & 0xFFFFFFFF)
    if reason == "Teredo":  # the client's, every bit flipped (RFC 4380 §4)
        return IPv4Address(bits & 0xFFFFFFFF ^ 0xFFFFFFFF)
    if not reason and bits >> 32 & 0xFFFFFFFF in _ISATAP:
        return IPv4Address(bits & 0xFFFFFFFF)
    return None


# -- our own -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OwnAddresses:
    """What this machine takes for itself: `addresses`, `networks` of such, and `broadcasts` of its networks."""

    addresses: frozenset[Address]
    networks: tuple[Network, ...] = ()
    broadcasts: frozenset[Address] = frozenset()
    read_at: float = 0.0  # time.monotonic


_held: list[OwnAddresses] = []


def own_addresses(*, refresh: bool = False) -> OwnAddresses:
    """List the addresses of this machine's own interfaces, as its routing tables have them.

    The list is read again when it is a minute old, or at once with `refresh`.
    """
    now = time.monotonic()
    if refresh or not _held or now - _held[0].read_at > _OWN_SECONDS:
        _held[:] = [_read_own(now)]
    return _held[0]


def _own_reason(address: Address) -> str:
    own = own_addresses()
    if address in own.addresses or any(address in network for network in own.networks):
        return "own interface"
    return "broadcast of a local network" if address in own.broadcasts else ""


def _read_own(now: float) -> OwnAddresses:
    networks: set[Network] = set()
    broadcasts: set[Address] = set()
    with contextlib.suppress(OSError):
        _read_fib_trie((_PROC_NET / "fib_trie").read_text(), networks, broadcasts)
    with contextlib.suppress(OSError):
        _read_ipv6_route((_PROC_NET / "ipv6_route").read_text(), networks)
    addresses = {network[0] for network in networks if network.prefixlen == network.max_prefixlen}
    for family, peer in ((socket.AF_INET, _PEER_V4), (socket.AF_INET6, _PEER_V6)):
        if (source := _source(family, peer)) is not None:  # all there is where /proc is not Linux's
            addresses.add(source)
    wide = tuple(network for network in networks if network.prefixlen != network.max_prefixlen)
    return OwnAddresses(frozenset(addresses), wide, frozenset(broadcasts), now)


def _read_fib_trie(text: str, networks: set[Network], broadcasts: set[Address]) -> None:
    """Read the IPv4 routes of the kernel: a leaf is ``|-- ADDRESS``, below it ``/BITS SCOPE TYPE``."""
    address = ""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == "|--":
            address = words[1]
        elif len(words) == 3 and words[0].startswith("/") and words[2] in ("LOCAL", "BROADCAST"):
            with contextlib.suppress(ValueError):
                network = IPv4Network(address + words[0])
                if words[2] == "LOCAL":
                    networks.add(network)
                else:
                    broadcasts.add(network[0])


_RTF_LOCAL, _RTF_ANYCAST = 0x80000000, 0x00100000


def _read_ipv6_route(text: str, networks: set[Network]) -> None:
    """Read the IPv6 routes of the kernel: destination, its bits, ..., flags, device, in hexadecimal."""
    for line in text.splitlines():
        words = line.split()
        with contextlib.suppress(ValueError, IndexError):
            if int(words[8], 16) & (_RTF_LOCAL | _RTF_ANYCAST):
                networks.add(IPv6Network((int(words[0], 16), int(words[1], 16))))


# -- what the user allows ------------------------------------------------------------------------------------


class AllowedNetworks:
    """Special addresses and networks that the user declares their own.

    An IPv4 network counts in its IPv4-mapped form too, either way round.

    Raises
    ------
    ValueError
        An entry is neither an address nor a network; the message says which.

    Examples
    --------
    >>> AllowedNetworks(["127.0.0.0/8"]).allows("::ffff:127.0.0.1")
    True
    """

    def __init__(self, entries: Iterable[str]) -> None:
        networks = tuple(_parse_network(entry) for entry in entries)
        self._allows = functools.lru_cache(maxsize=10_000)(lambda address: _covers(networks, address))
        self.networks = networks

    def allows(self, address: str) -> bool:
        """Whether an address lies in one of them; text that is no address, or has a zone, does not."""
        return bool(self.networks) and self._allows(address)


_MAPPED = IPv6Network("::ffff:0:0/96")


def _parse_network(entry: str) -> Network:
    try:
        # with a zone it is no network: the name of an interface means nothing in an answer of the DNS
        network = ipaddress.ip_network("" if "%" in entry else entry.strip(), strict=False)
    except ValueError:
        raise ValueError(
            f"not an address or network: {entry!r}; give 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32"
        ) from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network[0]) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def _covers(networks: Iterable[Network], address: str) -> bool:
    known = _parse(address)
    if known is None:
        return False
    if isinstance(known, IPv6Address):
        if known.scope_id is not None:
            return False
        known = known.ipv4_mapped or known
    return any(known in network for network in networks)


# -- families ------------------------------------------------------------------------------------------------

_PEER_V4, _PEER_V6 = "9.9.9.9", "2620:fe::fe"  # any public address would do: nothing is sent there


def families(given: Sequence[str] = ()) -> tuple[bool, bool]:
    """Tell whether this machine has a route to the public IPv4 and IPv6 Internet, without sending a packet.

    `given` are own addresses from which alone it may connect: a family without one is not reached.
    """
    v4, v6 = _sources(given)
    return v4 is not None, v6 is not None


def sources(given: Sequence[str] = ()) -> tuple[str, ...]:
    """Give the addresses from which this machine talks to the public Internet, of each family that it reaches."""
    return tuple(str(address) for address in _sources(given) if address is not None)


def _sources(given: Sequence[str]) -> tuple[Address | None, Address | None]:
    if not given:
        return _source(socket.AF_INET, _PEER_V4), _source(socket.AF_INET6, _PEER_V6)
    v4 = next((address for address in given if ":" not in address), None)
    v6 = next((address for address in given if ":" in address), None)
    return (
        None if v4 is None else _source(socket.AF_INET, _PEER_V4, v4),
        None if v6 is None else _source(socket.AF_INET6, _PEER_V6, v6),
    )


def _source(family: socket.AddressFamily, peer: str, own: str | None = None) -> Address | None:
    """Give the address from which this machine would talk to `peer`, or could from `own`; None without a route."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            if own is not None:
                probe.bind((own, 0))
            probe.connect((peer, 25))
            return _parse(probe.getsockname()[0].partition("%")[0])
    except OSError:
        return None
