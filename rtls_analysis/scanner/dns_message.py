"""DNS messages: questions written, answers read, in wire form (RFC 1035 §4, EDNS RFC 6891, EDE RFC 8914).

No sockets here. Only the types that the scanner asks are understood; dnspython reads the same messages in the tests.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

RDTYPES = {
    "A": 1,
    "NS": 2,
    "CNAME": 5,
    "SOA": 6,
    "PTR": 12,
    "MX": 15,
    "TXT": 16,
    "AAAA": 28,
    "DNSKEY": 48,
    "TLSA": 52,
}
"""The types that can be asked, and their numbers."""

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
RCODES = {
    NOERROR: "NOERROR",
    FORMERR: "FORMERR",
    SERVFAIL: "SERVFAIL",
    NXDOMAIN: "NXDOMAIN",
    NOTIMP: "NOTIMP",
    REFUSED: "REFUSED",
    6: "YXDOMAIN",
    9: "NOTAUTH",
    16: "BADVERS",
    23: "BADCOOKIE",
}
DNSSEC_FAILURES = frozenset(range(6, 13))
"""Extended errors that say why validation failed (RFC 8914 §4.7 to §4.13)."""
POLICY_ERRORS = frozenset({4, 15, 16, 17, 18})
"""Extended errors that say that the resolver tells something else than the domain (RFC 8914 §4.5, §4.16 to §4.19)."""

_EXTENDED_ERRORS = {
    0: "other error",
    1: "unsupported DNSKEY algorithm",
    2: "unsupported DS digest type",
    3: "stale answer",
    4: "forged answer",
    5: "DNSSEC indeterminate",
    6: "DNSSEC bogus",
    7: "signature expired",
    8: "signature not yet valid",
    9: "DNSKEY missing",
    10: "RRSIGs missing",
    11: "no zone key bit set",
    12: "NSEC missing",
    13: "cached error",
    14: "not ready",
    15: "blocked",
    16: "censored",
    17: "filtered",
    18: "prohibited",
    19: "stale NXDOMAIN answer",
    20: "not authoritative",
    21: "not supported",
    22: "no reachable authority",
    23: "network error",
    24: "invalid data",
}

_IN = 1
_CNAME, _OPT = 5, 41
_EDE = b"\0\x0f"  # option of EDNS
_PAYLOAD = 1232  # bytes of an answer over UDP: fits any path unfragmented
_MAX_ALIASES = 16
_MAX_POINTERS = 126  # more than any honest name needs
_MAX_NAME = 255
_MAX_LABEL = 63
_MAX_ERRORS = 8
_MAX_TEXT = 200  # characters of an extended error that are kept
_MAX_TTL = 0x7FFFFFFF  # more is zero (RFC 2181 §8)


class BadName(ValueError):
    """A name that cannot be asked: no such labels."""


class NameTooLong(BadName):
    """A name that cannot exist: of more than 255 octets, or with a label of more than 63 (RFC 1035 §2.3.4)."""


class Malformed(ValueError):
    """A message that cannot be read."""


# -- names ---------------------------------------------------------------------------------------------------

_PLAIN_NAME = re.compile(r"[-\w.]*", re.ASCII)
_PLAIN_LABELS = re.compile(rb"[-\w.]*", re.ASCII)
_SIGN = re.compile(r"\\(\d{3}|\D)|([^\\.])|(\.)", re.ASCII | re.DOTALL)


def parse_labels(name: str) -> list[bytes]:
    r"""Give the labels of a name, lower case; a final dot may be there, and escapes as `decode_labels` makes them.

    >>> parse_labels(r"Mx\046one.example.")
    [b'mx.one', b'example']

    Raises
    ------
    BadName, NameTooLong
    """
    if name == ".":
        return []
    plain = _PLAIN_NAME.fullmatch(name)
    labels = (name.encode("ascii").split(b".") if plain else list(_unescaped(name))) or [b""]
    if len(labels) > 1 and not labels[-1]:  # the final dot
        labels.pop()
    if not all(labels):
        raise BadName(f"empty label in {name[:_MAX_NAME]!r}")
    if (longest := max(map(len, labels))) > _MAX_LABEL:
        raise NameTooLong(f"label of {longest} octets in {name[:_MAX_NAME]!r}")
    if (octets := sum(map(len, labels)) + len(labels) + 1) > _MAX_NAME:
        raise NameTooLong(f"name of {octets} octets: {name[:_MAX_NAME]!r}")
    return [label.lower() for label in labels]


def _unescaped(name: str) -> Iterator[bytes]:
    label = bytearray()
    at = 0
    while at < len(name):
        match = _SIGN.match(name, at)
        if match is None:
            raise BadName(f"broken escape in {name[:_MAX_NAME]!r}")
        at = match.end()
        escape, sign, dot = match.groups()
        if dot:
            yield bytes(label)
            label.clear()
        elif escape and len(escape) == 3:
            if int(escape) > 255:
                raise BadName(f"broken escape in {name[:_MAX_NAME]!r}")
            label.append(int(escape))
        else:
            try:
                label += (escape or sign).encode("ascii")
            except UnicodeEncodeError:
                raise BadName(f"not A-labels: {name[:_MAX_NAME]!r}") from None
    yield bytes(label)


def decode_labels(labels: list[bytes]) -> str:
    r"""Write labels as text without a final dot, odd octets as ``\DDD`` (RFC 1035 §5.1); the root is ``.``.

    >>> decode_labels([b"a.b", b"ex ample"])
    'a\\.b.ex\\032ample'
    """
    joined = b".".join(labels)
    if joined.count(b".") == len(labels) - 1 and _PLAIN_LABELS.fullmatch(joined):
        return joined.decode("ascii")
    return ".".join("".join(map(_escaped, label)) for label in labels) or "."


def _escaped(octet: int) -> str:
    sign = chr(octet)
    if sign in '"().;\\@$':
        return "\\" + sign
    return sign if 0x20 < octet < 0x7F else f"\\{octet:03d}"


def _read_name(wire: bytes, at: int) -> tuple[list[bytes], int]:
    """Read a name, compressed or not: its labels, and where it ends (RFC 1035 §4.1.4)."""
    labels: list[bytes] = []
    end = -1
    length = 1
    pointers = 0
    lowest = at  # pointers lead to what stands before (RFC 1035), so that they cannot go round
    while True:
        size = wire[at]
        if size == 0:
            return labels, at + 1 if end < 0 else end
        if size <= _MAX_LABEL:
            length += size + 1
            if length > _MAX_NAME:
                raise Malformed("a name of more than 255 octets")
            label = wire[at + 1 : at + 1 + size]
            labels.append(label)
            at += size + 1
            continue
        if size < 0xC0:
            raise Malformed("a label of unknown type")
        pointers += 1
        if end < 0:
            end = at + 2
        at = (size & 0x3F) << 8 | wire[at + 1]
        if at >= lowest or pointers > _MAX_POINTERS:
            raise Malformed("a name that points forward, or too often")
        lowest = at


# -- questions -----------------------------------------------------------------------------------------------

# RD and AD; one question, one additional record. AD in a query asks for AD in the answer (RFC 6840 §5.7)
_HEAD = b"\x01\x20\0\1\0\0\0\0\0\1"
_HEAD_UNCHECKED = b"\x01\x30\0\1\0\0\0\0\0\1"  # CD too
_OPT_BEGINS = b"\0" + _OPT.to_bytes(2)  # of the root
_OPT_RECORD = _OPT_BEGINS + _PAYLOAD.to_bytes(2) + b"\0\0\x80\0\0\0"  # version 0, DO


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a name and a type of class IN; `wire` is the question section, in lower case."""

    name: str
    rdtype: str
    wire: bytes

    def query(self, *, checking_disabled: bool = False) -> bytes:
        """Write the query, all but the two octets of its id: EDNS with DO, RD, AD, and CD where asked for."""
        return (_HEAD_UNCHECKED if checking_disabled else _HEAD) + self.wire + _OPT_RECORD


def make_question(name: str, rdtype: str) -> Question:
    """Make the question for a name, in any case, with or without a final dot.

    Raises
    ------
    BadName, NameTooLong
    """
    labels = parse_labels(name)
    return Question(decode_labels(labels), rdtype, _key(labels) + RDTYPES[rdtype].to_bytes(2) + b"\0\1")


# -- answers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """What an answer says: its `rcode`, the AD bit, and the records at the end of the aliases.

    `aliases` lists the names on the way, the question's own first; `canonical` is the name at their end. `ttl` is
    the shortest of records and aliases. `errors` are the codes of the extended errors, `error_text` says them in
    words; they may come with any rcode.
    """

    rcode: int
    authentic: bool
    truncated: bool = False
    records: tuple[str, ...] = ()
    canonical: str = ""
    aliases: tuple[str, ...] = ()
    ttl: int | None = None
    errors: tuple[int, ...] = ()
    error_text: str = ""

    @property
    def rcode_text(self) -> str:
        """The mnemonic of the rcode."""
        return RCODES.get(self.rcode, f"rcode {self.rcode}")


def answers(wire: bytes, question: Question) -> bool:
    """Whether a message is an answer to this question, whatever it says: a response with the question repeated.

    Names compare without regard to case. An error may come without the question, as from a server that could not
    read it.
    """
    if len(wire) < 12 or not wire[2] & 0x80:
        return False
    asked = question.wire
    if wire[4:6] == b"\0\1":
        # the octets of lengths, type and class are left alone by `lower`, or compare unequal as they are
        return wire[12 : 12 + len(asked)].lower() == asked
    return wire[4:6] == b"\0\0" and wire[3] & 0x0F in (FORMERR, SERVFAIL, NOTIMP, REFUSED)


def read_reply(wire: bytes, question: Question) -> Reply:
    """Read an answer to a question (`answers` holds): what the header tells, and records where there are any.

    Raises
    ------
    Malformed
        The message breaks off, or is no DNS.

    Notes
    -----
    Only records of the type asked for and CNAMEs, in class IN, in the answer section count; in the order of the
    aliases, in whatever order they stand. NXDOMAIN is about the end of the aliases (RFC 6604 §2). Aliases that go
    round, or more than 16, are `Malformed`, as senders give up on them.
    """
    rcode, authentic = wire[3] & 0x0F, bool(wire[3] & 0x20)
    if wire[2] & 0x02:
        return Reply(rcode, authentic, truncated=True)
    try:
        upper_bits, errors = _read_edns(wire)
        rcode |= upper_bits
        if wire[6:8] == b"\0\0" or rcode not in (NOERROR, NXDOMAIN):
            reply = Reply(rcode, authentic, canonical=question.name)
        else:
            reply = _read_answer(wire, question, rcode, authentic)
    except IndexError:
        raise Malformed("a message that breaks off") from None
    if not errors:
        return reply
    text = ", ".join(_describe(code, more) for code, more in errors)
    return replace(reply, errors=tuple(code for code, _more in errors), error_text=text)


def _read_answer(wire: bytes, question: Question, rcode: int, authentic: bool) -> Reply:
    wanted = RDTYPES[question.rdtype]
    key = question.wire[:-4]
    found: dict[bytes, list[tuple[int, int, int]]] = {}  # owner -> TTL, beginning, end
    targets: dict[bytes, tuple[int, int, int]] = {}
    at = 12 + len(question.wire)
    for _ in range(int.from_bytes(wire[6:8])):
        if wire[at] == 0xC0 and wire[at + 1] == 12:  # the name asked for, as most servers write it
            owner, at = key, at + 2
        else:
            labels, at = _read_name(wire, at)
            owner = _key(labels)
        begins = at + 10
        ends = begins + (wire[at + 8] << 8 | wire[at + 9])
        if ends > len(wire):
            raise Malformed("a record that breaks off")
        if wire[at + 2 : at + 4] == b"\0\1":
            rdtype = wire[at] << 8 | wire[at + 1]
            place = (int.from_bytes(wire[at + 4 : at + 8]), begins, ends)
            if rdtype == wanted:
                found.setdefault(owner, []).append(place)
            elif rdtype == _CNAME:
                targets.setdefault(owner, place)
        at = ends
    aliases: list[str] = []
    name = question.name
    ttl = _MAX_TTL + 1
    seen = {key}
    while key not in found and key in targets:
        seconds, begins, ends = targets[key]
        labels, end = _read_name(wire, begins)
        if end != ends:
            raise Malformed("an alias that ends in the wrong place")
        aliases.append(name)
        ttl = min(ttl, _seconds(seconds))
        key = _key(labels)
        name = decode_labels(labels).lower()
        if key in seen:
            raise Malformed("aliases that go round")
        if len(aliases) > _MAX_ALIASES:
            raise Malformed(f"more than {_MAX_ALIASES} aliases")
        seen.add(key)
    places = found.get(key, ()) if rcode == NOERROR else ()
    ttl = min(ttl, *(_seconds(place[0]) for place in places)) if places else ttl
    return Reply(
        rcode,
        authentic,
        records=tuple(
            dict.fromkeys(_text(question.rdtype, wire, begins, ends) for _ttl, begins, ends in places)
        ),
        canonical=name,
        aliases=tuple(aliases),
        ttl=ttl if ttl <= _MAX_TTL else None,
    )


def _key(labels: list[bytes]) -> bytes:
    """Give the form in which names are compared: wire form, lower case."""
    return b"".join(bytes((len(label),)) + label for label in labels).lower() + b"\0"


def _seconds(ttl: int) -> int:
    return ttl if ttl <= _MAX_TTL else 0


def _read_edns(wire: bytes) -> tuple[int, Sequence[tuple[int, str]]]:
    """Read what EDNS adds: the upper bits of the rcode, and extended errors (RFC 6891 §6.1.3, RFC 8914 §2)."""
    if wire[10:12] == b"\0\0":
        return 0, ()
    if wire[-11:-8] == _OPT_BEGINS and wire[-2:] == b"\0\0":  # the usual end: no options, nothing to walk for
        return wire[-6] << 4, ()
    at = 12
    for _ in range(int.from_bytes(wire[4:6])):
        at = _read_name(wire, at)[1] + 4
    for _ in range(sum(int.from_bytes(wire[place : place + 2]) for place in (6, 8, 10))):
        at = _read_name(wire, at)[1]
        ends = at + 10 + (wire[at + 8] << 8 | wire[at + 9])
        if ends > len(wire):
            raise Malformed("a record that breaks off")
        if wire[at] << 8 | wire[at + 1] == _OPT:
            return wire[at + 4] << 4, tuple(islice(_extended_errors(wire[at + 10 : ends]), _MAX_ERRORS))
        at = ends
    return 0, ()


def _extended_errors(options: bytes) -> Iterator[tuple[int, str]]:
    at = 0
    while at + 4 <= len(options):
        begins = at + 4
        ends = begins + int.from_bytes(options[at + 2 : begins])
        if options[at : at + 2] == _EDE and begins + 2 <= ends <= len(options):
            more = options[begins + 2 : ends].decode("utf-8", "backslashreplace").rstrip("\0")
            yield int.from_bytes(options[begins : begins + 2]), more
        at = ends


def _describe(code: int, more: str) -> str:
    text = _EXTENDED_ERRORS.get(code, f"extended error {code}")
    shown = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in more[:_MAX_TEXT])
    return f"{text} ({shown})" if shown else text


# -- records -------------------------------------------------------------------------------------------------


def _text(rdtype: str, wire: bytes, begins: int, ends: int) -> str:
    """Write one record in presentation form; those of no interest to mail as they came, in hexadecimal."""
    data = wire[begins:ends]
    if rdtype == "A" and len(data) == 4:
        return socket.inet_ntop(socket.AF_INET, data)
    if rdtype == "AAAA" and len(data) == 16:
        return socket.inet_ntop(socket.AF_INET6, data)
    if rdtype == "TXT":
        return decode_text(b"".join(_strings(data)))
    if rdtype == "TLSA" and len(data) >= 3:
        return f"{data[0]} {data[1]} {data[2]} {data[3:].hex()}"
    if rdtype == "MX" and len(data) >= 3:
        return f"{data[0] << 8 | data[1]} {_target(wire, begins + 2, ends)}"
    if rdtype in ("CNAME", "PTR"):
        return _target(wire, begins, ends)
    if rdtype in ("A", "AAAA", "TLSA", "MX"):
        raise Malformed(f"{rdtype} record of {len(data)} octets")
    return data.hex()


def _target(wire: bytes, begins: int, ends: int) -> str:
    labels, end = _read_name(wire, begins)
    if end != ends:
        raise Malformed("a name that ends in the wrong place")
    return decode_labels(labels) + "." if labels else "."


def _strings(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        ends = at + 1 + data[at]
        if ends > len(data):
            raise Malformed("a string that breaks off")
        yield data[at + 1 : ends]
        at = ends


_LOOKS_ESCAPED = re.compile(r"\\(?=x[0-9a-f]{2})")


def decode_text(data: bytes) -> str:
    r"""Write the octets of a TXT record as text: UTF-8, and each octet that is none as ``\xNN``.

    Reversible (`encode_text`): a backslash that stands before ``xNN`` in the record itself becomes ``\x5c``.

    >>> decode_text(b"v=1; caf\xe9 \\x")
    'v=1; caf\\xe9 \\x'
    >>> encode_text(decode_text(b"\\xe9")) == b"\\xe9"
    True
    """
    if data.isascii() and b"\\" not in data:
        return data.decode("ascii")
    text = data.decode("utf-8", "surrogateescape")
    text = _LOOKS_ESCAPED.sub(r"\\x5c", text)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def encode_text(text: str) -> bytes:
    r"""Give the octets of a TXT record back from the text that `decode_text` made."""
    return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), text.encode("utf-8"))
