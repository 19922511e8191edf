"""Comments of Received fields: where most servers tell of TLS, of the client, and who they are.

RFC 5321 §4.4 gives comments no meaning; what stands here was learned from the servers' sources and their mail. The
forms do not overlap, so that a comment is read for what it is wherever it stands.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

from rtls_analysis.standards.names import NameProblem, to_ascii


@dataclass(frozen=True, slots=True)
class Comment:
    """What one comment says. `None`: it does not say."""

    text: str
    encrypted: bool | None = None
    version: str | None = None
    cipher: str | None = None
    bits: str | None = None
    certificate: str | None = None  # of the client: whether there was one, or what its verification came to
    is_authenticated: bool = False  # the client logged in
    has_requiretls: bool = False
    client: Client | None = None  # where it is none of the above


@dataclass(frozen=True, slots=True)
class Client:
    """What a comment says of a host if it stands with `from` or `by` (`TCP-info` in RFC 5321 §4.4)."""

    name: str | None = None  # the whole `from` clause is in the comment
    helo: str | None = None
    reverse: str | None = None
    address: str | None = None
    is_local: bool = False


# -- TLS -----------------------------------------------------------------------------------------------------

_VERSION = r"(?:TLS|SSL)[-_ ]?v?[0-9][0-9._]*(?:/SSLv3)?"
_PAIR = re.compile(
    r"""(?<![A-Za-z])([A-Za-z]+)=("[^"]*"|[^\s,"]+)"""
)  # sendmail, Google, Exchange, Yahoo, Ecelerity
_USING = re.compile(  # Postfix, Stalwart, Kerio
    r"using ((?:TLS|SSL)[^\s,]*)(?: with cipher (\S+))?(?: \((\d+)(?:/\d+)? bits\))?", re.IGNORECASE
)
_COLONS = re.compile(  # Exim, OpenSMTPD, KumoMTA
    rf"(?:(?:tls_)?cipher )?({_VERSION}):([^\s:]+)(?::(\d+))?(?::(YES|NO))?(?![^\s,])", re.IGNORECASE
)
_BARE = re.compile(rf"({_VERSION})(?: ([A-Z0-9][A-Za-z0-9_+-]+))?", re.IGNORECASE)  # Exim, mox
_LISTED = re.compile(rf"TLS: ?({_VERSION}), ?(\d+) ?bits, ?([^\s,]+)")  # Courier, McAfee
_OVER = re.compile(rf"over [A-Z]+, (?:({_VERSION})|plain text!)")  # chasquid
_ENCRYPTED = re.compile(r"(?:([A-Z0-9]+[-_][A-Za-z0-9_-]+)|TLS|SSL) encrypted")  # qmail
_CERTIFICATE = re.compile(r"(?:no )?client (?:certificate|did not present|cn|rpk)\b", re.IGNORECASE)
_LOGIN = re.compile(r"auth(?:enticated\b|: )|\S+ authenticated user ", re.IGNORECASE)
_MAY_TELL = re.compile(  # how all of these begin: it spares the other comments a dozen tries
    r"version=|cipher|tls|ssl|using |auth|\S+ authenticated|over |no client|client |requiretls|[A-Z]+: ",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def read_comment(text: str) -> Comment:
    """Read a comment, its parentheses taken off.

    >>> read_comment("using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519").bits
    '256'
    >>> read_comment("mx.example.net [IPv6:2001:db8::25]").client.address
    '2001:db8::25'
    """
    if match := _PLAIN_CLIENT.fullmatch(text):  # nearly all that are not known by their text
        return Comment(text, client=Client(None, None, _reverse(match[1]), match[2]))
    if _MAY_TELL.match(text) is None and not text.endswith(" encrypted"):
        return Comment(text, client=_read_client(text))
    lead = text[:8].lower()
    if lead.startswith(("version=", "cipher=")):
        return read_pairs(text)
    if match := _USING.match(text):
        return Comment(text, True, match[1], match[2], match[3])
    if match := _COLONS.match(text):
        version, cipher, bits, certificate = match.groups()
        return Comment(text, True, version, cipher, bits, certificate, "auth=yes" in text)
    if match := _BARE.fullmatch(text):
        return Comment(text, True, match[1], match[2])
    if lead in ("tls", "ssl"):
        return Comment(text, True)
    if match := _LISTED.search(text):
        version, bits, cipher = match.groups()
        return Comment(text, True, version, cipher, bits, is_authenticated=text.startswith("AUTH: "))
    if match := _OVER.match(text):
        return Comment(text, match[1] is not None, match[1])
    if match := _ENCRYPTED.fullmatch(text):
        return Comment(text, True, cipher=match[1])
    if text.lower() == "requiretls":
        return Comment(text, has_requiretls=True)
    if _CERTIFICATE.match(text):
        return Comment(text, certificate=text)
    if _LOGIN.match(text):
        return Comment(text, is_authenticated=True)
    return Comment(text, client=_read_client(text))


def read_pairs(text: str) -> Comment:
    """Read ``version=TLSv1.2 cipher=... bits=256/256 verify=NO``, or a part of it."""
    pairs = {name.lower(): value.strip('"') for name, value in _PAIR.findall(text)}
    version = pairs.get("version")
    if version is not None and not version.upper().startswith(("TLS", "SSL")):
        return Comment(text)
    bits = pairs.get("bits", "").partition("/")[0]
    return Comment(text, True, version, pairs.get("cipher"), bits or None, pairs.get("verify"))


# -- the client ----------------------------------------------------------------------------------------------

_HELO = re.compile(r"(?:^|[\s,])(?:helo=|(?:HELO|EHLO|LHLO) )([^\s,]+)")
_REVERSE = re.compile(r"(?:\S+@)?([\w-]+(?:\.[\w-]+)*)\.? ?(?=\[)|([\w-]+(?:\.[\w-]+)+)\.?$")
_LOCAL = ("[local]", "[UNIX: ", "[unix socket]")
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_PLAIN_CLIENT = re.compile(rf"(?:([A-Za-z0-9_.-]+) )?\[({_IPV4})\]")
_ADDRESSES = (
    re.compile(rf"\[(?:({_IPV4})|(?:IPv6:)?([0-9a-f]*:[0-9a-f.:]{{1,44}})(?:%[^\]\s]*)?)\]", re.IGNORECASE),
    re.compile(rf"(?<![\w.:-])({_IPV4})(?![\w.-])()"),
    re.compile(r"(?<![\w.:-])()([0-9a-f]{0,4}:[0-9a-f:]*:[0-9a-f.]*)(?![\w:-])", re.IGNORECASE),
)


def _read_client(text: str) -> Client:
    told = text[:512].removeprefix("from ")
    helo = _HELO.search(told)
    reverse = _REVERSE.match(told)
    return Client(
        name=told.split(" ", 1)[0] if text.startswith("from ") else None,
        helo=read_host(helo[1]) if helo is not None else None,
        reverse=_reverse(reverse[1] or reverse[2]) if reverse is not None else None,
        address=read_address(told),
        is_local=any(map(told.__contains__, _LOCAL)),
    )


def _reverse(name: str | None) -> str | None:
    """A DNS name as it stands before an address; `unknown` and the address once more are none."""
    if name is None or name.lower() == "unknown" or not name.strip("0123456789."):
        return None
    return read_host(name)


def read_address(text: str) -> str | None:
    """Find the first IP address in a text; one in brackets comes before others.

    >>> read_address("10-0-0-1.example.net [IPv6:2001:DB8::1]"), read_address("1.2.3.4.5")
    ('2001:db8::1', None)
    """
    for pattern in _ADDRESSES:
        for match in pattern.finditer(text):
            if match[1]:
                return match[1]
            try:
                address = ipaddress.IPv6Address(match[2])
            except ValueError:
                continue
            return match[2].lower() if address.ipv4_mapped is not None else str(address)
    return None


def read_host(word: str) -> str | None:
    """Give a name as our tables write it: lower case, A-labels, no final dot; an address literal in its brackets.

    >>> read_host("MX.Example.ORG."), read_host("[192.0.2.1]"), read_host("<>")
    ('mx.example.org', '[192.0.2.1]', None)
    """
    name = word.strip('<>,;"').lower().rstrip(".")
    if not name.isascii():
        try:
            return to_ascii(name)
        except NameProblem:
            return name
    return name or None


# -- the server ----------------------------------------------------------------------------------------------

_PROGRAMS = {
    "amavisd": "amavisd",
    "chasquid": "chasquid",
    "communigate": "communigate",
    "courier": "courier",
    "cyrus": "cyrus",
    "domino": "domino",
    "dovecot": "dovecot",
    "ecelerity": "ecelerity",
    "exim": "exim",
    "fetchmail": "fetchmail",
    "haraka": "haraka",
    "icewarp": "icewarp",
    "james": "james",
    "kerio": "kerio",
    "kumomta": "kumomta",
    "mdaemon": "mdaemon",
    "mxl": "mxlogic",
    "nemesis": "nemesis",
    "ofmipd": "qmail",
    "opensmtpd": "opensmtpd",
    "oracle": "oracle",
    "postfix": "postfix",
    "qmail": "qmail",
    "qpsmtpd": "qpsmtpd",
    "stalwart": "stalwart",
    "zonemta": "zonemta",
}
_PROGRAM = re.compile(r"(?:Lotus |IBM |HCL |Apache )?([A-Za-z]+)")
_SENDMAIL = re.compile(r"(?:\w+-)?8\.\d+(?:\.\w+)*(?:[+-]\w+)*/")


@lru_cache(maxsize=1024)
def read_program(text: str) -> str | None:
    """Name the mail server that a comment names, in one word; sendmail gives but its version.

    >>> read_program("Exim 4.98"), read_program("8.18.1/8.18.1"), read_program("mx7")
    ('exim', 'sendmail', None)
    """
    if match := _PROGRAM.match(text):
        return _PROGRAMS.get(match[1].lower())
    return "sendmail" if _SENDMAIL.match(text) else None
