"""The name server of the lab: answers like a validating resolver over UDP and TCP (RFC 1035, 4035, 6891, 8914)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from rtls_analysis.lab.kinds import STS, TLSRPT
from rtls_analysis.lab.world import (
    WHOLE_ZONE,
    Domain,
    Host,
    World,
    policy_address,
)

_UDP_PAYLOAD = 1232
_TTL = 300
_LONGEST_ALIAS = 8

TlsaTexts = Callable[[Host], tuple[str, ...]]


@dataclass(slots=True)
class Node:
    """What a name holds: records by type in presentation form, an alias, and what goes wrong at it.

    `faults` maps a type, or ``*`` for any, to ``servfail``, ``bogus``, ``timeout`` or ``refused``. `secure` is None
    where the name is as secure as its zone.
    """

    records: dict[str, list[str]] = field(default_factory=dict)
    alias: str = ""
    secure: bool | None = None
    faults: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Names:
    """All names of the world, and which zones are signed."""

    nodes: dict[str, Node] = field(default_factory=dict)
    signed: dict[str, bool] = field(default_factory=dict)  # by apex
    faulty: dict[str, str] = field(default_factory=dict)  # apex -> fault of the whole zone
    parents: set[str] = field(default_factory=set)  # names that exist because others are below them

    def at(self, name: str) -> Node:
        """Give the node of a name, made where it is new."""
        if name not in self.nodes:
            self.nodes[name] = Node()
            above = name.partition(".")[2]
            while above and above not in self.parents:
                self.parents.add(above)
                above = above.partition(".")[2]
        return self.nodes[name]

    def add(self, name: str, rdtype: str, *texts: str) -> None:
        """Add records to a name."""
        self.at(name).records.setdefault(rdtype, []).extend(texts)

    def zone_of(self, name: str) -> str:
        """Give the closest apex above a name; empty for the root."""
        while name and name not in self.signed:
            name = name.partition(".")[2]
        return name


def make_names(world: World, smtp_port: int, tlsa: TlsaTexts) -> Names:
    """Publish a world; `tlsa` gives a host's TLSA records."""
    names = Names()
    for host in world.hosts.values():
        names.signed.setdefault(host.zone, host.kind.secure)
        _publish_host(names, host, smtp_port, tlsa)
    for domain in world.domains.values():
        _publish_domain(names, domain)
    return names


def _publish_addresses(names: Names, name: str, addresses: Iterable[str]) -> None:
    for address in addresses:
        names.add(name, "AAAA" if ":" in address else "A", address)


def _publish_host(names: Names, host: Host, smtp_port: int, tlsa: TlsaTexts) -> None:
    kind = host.kind
    if kind.mx_state == "mx_is_address" or kind.lookup == "nxdomain":
        return
    node = names.at(host.name)
    if host.canonical != host.name:
        node.alias = host.canonical
        names.signed[host.canonical.partition(".")[2]] = kind.alias == "secure"
    _publish_addresses(names, host.canonical, host.addresses)
    if kind.lookup:
        node.faults.update(A=kind.lookup, AAAA=kind.lookup)
    if not host.addresses and not host.kind.lookup:
        names.add(host.name, "TXT", '"no address here"')
    if kind.tlsa:
        base = f"_{smtp_port}._tcp.{host.name if kind.tlsa_at_alias else host.canonical}"
        names.add(base, "TLSA", *tlsa(host))
        if kind.tlsa_lookup:
            names.at(base).faults["TLSA"] = kind.tlsa_lookup
        if kind.tlsa_insecure:
            names.signed[base.partition(".")[2]] = False


def _publish_domain(names: Names, domain: Domain) -> None:
    kind = domain.kind
    name = domain.name
    names.signed[name] = kind.secure
    if kind.lookup == "nxdomain":
        return
    if kind.lookup in WHOLE_ZONE:
        names.faulty[name] = kind.lookup
    elif kind.lookup:
        names.at(name).faults["MX"] = kind.lookup
    if kind.alias:
        names.at(name).alias = domain.canonical
        names.signed[domain.canonical] = kind.secure
    names.add(domain.canonical, "TXT", '"v=spf1 -all"')
    if kind.null_mx:
        names.add(domain.canonical, "MX", "0 .")
    if domain.via_mx:
        for preference, host in domain.hosts:
            names.add(domain.canonical, "MX", f"{preference} {host.name}.")
    _publish_sts(names, domain)
    tlsrpt = TLSRPT[kind.tlsrpt]
    for text in tlsrpt.texts:
        names.add(f"_smtp._tls.{name}", "TXT", _quoted(text.replace("%d", name)))
    if tlsrpt.lookup:
        names.at(f"_smtp._tls.{name}").faults["*"] = tlsrpt.lookup


def _publish_sts(names: Names, domain: Domain) -> None:
    sts = STS[domain.kind.sts]
    record, policy_host = f"_mta-sts.{domain.name}", f"mta-sts.{domain.name}"
    if sts.record_lookup:
        names.at(record).faults["*"] = sts.record_lookup
    if not sts.texts:
        return
    if sts.alias:
        label = domain.name.partition(".")[0]
        names.at(record).alias = record = f"_mta-sts.{label}.policies.test"
        names.at(policy_host).alias = policy_host = f"{label}.policies.test"
        names.signed["policies.test"] = False
    names.add(record, "TXT", *(_quoted(text) for text in sts.texts))
    if sts.record != "valid":
        return
    if (at := policy_address(sts)) is not None:
        names.add(policy_host, "A", at)
    if sts.lookup:
        names.at(policy_host).faults["*"] = sts.lookup


def _quoted(text: str) -> str:
    """Write a TXT record, in two strings where there is room for it: the pieces are joined without spaces."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    half = len(escaped) // 2 if len(escaped) > 20 else len(escaped)
    return " ".join(f'"{part}"' for part in (escaped[:half], escaped[half:]) if part) or '""'


@dataclass(frozen=True, slots=True)
class _Found:
    """What there is at a name: `records` as resource records in wire form, their owners written out."""

    rcode: dns.rcode.Rcode
    records: tuple[bytes, ...] = ()
    secure: bool = False
    fault: str = ""


_QR, _TC, _RD, _RA, _AD, _CD = 0x8000, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
_DO = 0x8000
_BOGUS = b"lab: signature does not verify"
_EDE = struct.pack("!HHH", 15, 2 + len(_BOGUS), 6) + _BOGUS  # DNSSEC bogus (RFC 8914 §4.7)


@dataclass(frozen=True, slots=True)
class _Query:
    """A question, and how it may be answered."""

    identity: bytes
    flags: int
    question: bytes
    name: str
    rdtype: str
    payload: int  # 0 without EDNS
    wants_dnssec: bool

    @classmethod
    def parse(cls, wire: bytes) -> _Query | None:
        """Read a query with one question (RFC 1035 §4.1, RFC 6891 §6.1); None where it is none."""
        try:
            flags, questions, answers, _authorities, extras = struct.unpack_from("!5H", wire, 2)
            if flags & _QR or questions != 1 or answers:
                return None
            labels, at = [], 12
            while length := wire[at]:
                if length > 63:
                    return None
                labels.append(wire[at + 1 : at + 1 + length])
                at += 1 + length
            (rdtype,) = struct.unpack_from("!H", wire, at + 1)
            end = at + 5
            payload = dnssec = 0
            if extras and wire[end : end + 3] == b"\0\0\x29":
                payload, _rcode, _version, dnssec = struct.unpack_from("!HBBH", wire, end + 3)
        except (struct.error, IndexError):
            return None
        name = b".".join(labels).decode("ascii", "backslashreplace").lower()
        wants_dnssec = bool(dnssec & _DO or flags & _AD)
        text = _TYPES.get(rdtype) or dns.rdatatype.to_text(dns.rdatatype.RdataType.make(rdtype))
        return cls(wire[:2], flags, wire[12:end], name, text, payload, wants_dnssec)


_TYPES = {1: "A", 28: "AAAA", 5: "CNAME", 15: "MX", 16: "TXT", 52: "TLSA", 2: "NS", 6: "SOA"}


class Answerer:
    """Turns a query into an answer, as a validating resolver would give it.

    Notes
    -----
    A lab of a hundred thousand domains answers half a million questions on the cores of the scan: answers are put
    together from bytes. dnspython writes the records that are not plain.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._find = functools.lru_cache(maxsize=50_000)(self._look)

    def answer(self, wire: bytes, *, over_tcp: bool) -> bytes | None:
        """Answer a query in wire form; None where the lab is silent."""
        query = _Query.parse(wire)
        if query is None:
            return None
        found = self._find(query.name, query.rdtype)
        if found.fault == "timeout":
            return None
        flags = _QR | _RA | (query.flags & (_RD | _CD))
        records: tuple[bytes, ...] = ()
        option = b""
        if found.fault == "bogus" and not query.flags & _CD:
            rcode = dns.rcode.SERVFAIL
            option = _EDE
        elif found.fault in ("servfail", "refused"):
            rcode = dns.rcode.SERVFAIL if found.fault == "servfail" else dns.rcode.REFUSED
        else:
            rcode, records = found.rcode, found.records
            if found.secure and not found.fault and not query.flags & _CD and query.wants_dnssec:
                flags |= _AD
        edns = b""
        if query.payload:
            edns = (
                struct.pack("!BHHIH", 0, 41, _UDP_PAYLOAD, _DO if query.wants_dnssec else 0, len(option))
                + option
            )
        body = b"".join(records)
        limit = 65535 if over_tcp else max(min(query.payload, _UDP_PAYLOAD), 512)
        if 12 + len(query.question) + len(body) + len(edns) > limit:
            body, records, flags = b"", (), flags | _TC
        counts = struct.pack("!5H", flags | rcode, 1, len(records), 0, 1 if edns else 0)
        return query.identity + counts + query.question + body + edns

    def _look(self, name: str, rdtype: str) -> _Found:
        names = self._names
        answer: list[bytes] = []
        secure = True
        for _ in range(_LONGEST_ALIAS):
            zone = names.zone_of(name)
            node = names.nodes.get(name)
            fault = names.faulty.get(zone, "")
            if node is not None:
                fault = fault or node.faults.get(rdtype) or node.faults.get("*", "")
            if node is not None and node.secure is not None:
                secure = secure and node.secure
            else:
                secure = secure and names.signed.get(zone, False)
            if fault in ("servfail", "timeout", "refused"):
                return _Found(dns.rcode.SERVFAIL, fault=fault)
            if node is None:
                exists = not name or name in names.parents
                code = dns.rcode.NOERROR if exists else dns.rcode.NXDOMAIN
                return _Found(code, tuple(answer), secure, fault)
            if node.alias and rdtype != "CNAME":
                answer += _records(name, "CNAME", [f"{node.alias}."])
                name = node.alias
                continue
            records = [f"{node.alias}."] if node.alias else node.records.get(rdtype, [])
            if records:
                answer += _records(name, rdtype, records)
            return _Found(dns.rcode.NOERROR, tuple(answer), secure, fault)
        return _Found(dns.rcode.SERVFAIL, fault="servfail")


def _records(name: str, rdtype: str, texts: Iterable[str]) -> Iterator[bytes]:
    """Yield resource records in wire form (RFC 1035 §3.2.1)."""
    number = dns.rdatatype.from_text(rdtype)
    owner = _name(f"{name}.") + struct.pack("!HHI", number, dns.rdataclass.IN, _TTL)
    for text in texts:
        data = _rdata(rdtype, text)
        yield owner + len(data).to_bytes(2) + data


def _rdata(rdtype: str, text: str) -> bytes:
    match rdtype:
        case "A":
            return socket.inet_aton(text)
        case "CNAME":
            return _name(text)
        case "MX":
            preference, host = text.split()
            return int(preference).to_bytes(2) + _name(host)
        case "TLSA":  # some are broken on purpose, which dnspython would not write
            usage, selector, matching, data = text.split()
            return bytes((int(usage), int(selector), int(matching))) + bytes.fromhex(data)
        case _:
            return dns.rdata.from_text("IN", rdtype, text).to_wire() or b""


def _name(text: str) -> bytes:
    labels = text.rstrip(".").encode().split(b".") if text != "." else []
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._answerer.answer(data, over_tcp=False)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)


async def serve_dns(answerer: Answerer, address: str, port: int = 0) -> tuple[int, Callable[[], None]]:
    """Serve over UDP and TCP at one port, without one at any that is free; gives it, and how to stop."""
    loop = asyncio.get_running_loop()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                reply = answerer.answer(await reader.readexactly(length), over_tcp=True)
                if reply is not None:
                    writer.write(len(reply).to_bytes(2, "big") + reply)
                    await writer.drain()
        writer.close()

    for _ in range(50):
        server = await asyncio.start_server(converse, address, port)
        found: int = server.sockets[0].getsockname()[1]
        try:
            transport, _protocol = await loop.create_datagram_endpoint(
                lambda: _Datagrams(answerer), local_addr=(address, found)
            )
        except OSError:  # somebody has the UDP port
            server.close()
            continue

        def stop(server: asyncio.Server = server, transport: asyncio.BaseTransport = transport) -> None:
            server.close()
            transport.close()

        return found, stop
    raise OSError(f"no port free for DNS on {address}")
