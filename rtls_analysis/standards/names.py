"""Domain names as mail and certificates compare them: A-labels, lower case, no final dot (RFC 5890, 5321, 9525)."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

MAX_NAME = 253  # characters without the final dot (RFC 1035 §2.3.4)
MAX_LABEL = 63

# letters, digits and hyphens (RFC 5321 §4.1.2); the underscore is no part of them, but hosts with one take mail
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_DOTS = re.compile("[\u3002\uff0e\uff61]")  # what people type for a dot (RFC 3490 §3.1)
_LONGEST_TEXT = 4 * MAX_NAME  # no name of more characters becomes one of 253


class NameProblem(ValueError):
    """A text that is no domain name: one phrase that says why."""


def to_ascii(text: str) -> str:
    """Give a domain name in the form the DNS wants: A-labels, lower case, no final dot (RFC 5891 §4).

    Parameters
    ----------
    text
        A name as people write it: U-labels or A-labels, in any case, with or without a final dot.

    Raises
    ------
    NameProblem
        The text is no domain name to which mail could go; the message says why.

    Notes
    -----
    A name that is ASCII already is taken as it is, also where IDNA 2008 would not have made it: such names are
    registered. Letters beyond ASCII are mapped by UTS 46 and then held to IDNA 2008.

    Examples
    --------
    >>> to_ascii("Bücher.Example."), to_ascii("straße.example")
    ('xn--bcher-kva.example', 'xn--strae-oqa.example')
    """
    name = text.strip()
    if not name:
        raise NameProblem("the name is empty")
    if len(name) > _LONGEST_TEXT:
        raise NameProblem(f"the name has {len(name)} characters; {MAX_NAME} are allowed")
    if is_address(name):
        raise NameProblem(f"{_shown(name)} is an address, not a domain name")
    if not name.isascii():
        name = _from_unicode(name)
    name = name.removesuffix(".").lower()
    if len(name) > MAX_NAME:
        raise NameProblem(f"the name has {len(name)} characters; {MAX_NAME} are allowed")
    labels = name.split(".")
    for label in labels:
        if not label:
            raise NameProblem(f"{_shown(text)} has an empty label")
        if len(label) > MAX_LABEL:
            raise NameProblem(
                f"{_shown(text)} has a label of {len(label)} characters; {MAX_LABEL} are allowed"
            )
        if _LABEL.fullmatch(label) is None:
            raise NameProblem(_bad_label(text, label))
    if labels[-1].isdigit():
        raise NameProblem(f"{_shown(text)} ends in a number, as no domain name does")
    return name


def _from_unicode(name: str) -> str:
    import idna

    is_rooted = _DOTS.sub(".", name).endswith(".")
    try:
        ascii_name = idna.encode(name, uts46=True, transitional=False).decode("ascii")
    except (idna.IDNAError, UnicodeError, IndexError) as error:
        raise NameProblem(f"{_shown(name)} is no domain name: {error}") from None
    return ascii_name + "." if is_rooted and not ascii_name.endswith(".") else ascii_name


def _bad_label(text: str, label: str) -> str:
    if "@" in text:
        return f"{_shown(text)} is a mail address; give what stands after its @"
    if "://" in text or "/" in text:
        return f"{_shown(text)} is the address of a page; give its domain name"
    return f"{_shown(text)} is no domain name: {_shown(label)} is no label"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}...")


def to_unicode(name: str) -> str:
    """Give a name for people to read: its A-labels as U-labels where they are valid (RFC 5891 §5).

    >>> to_unicode("xn--bcher-kva.example"), to_unicode("xn--a.example")
    ('bücher.example', 'xn--a.example')
    """
    if "xn--" not in name:
        return name
    return ".".join(map(_label_to_unicode, name.split(".")))


def _label_to_unicode(label: str) -> str:
    import idna

    if not label.startswith("xn--") or len(label) > MAX_LABEL:
        return label
    try:
        return idna.decode(label)
    except (idna.IDNAError, UnicodeError, IndexError):
        return label


def fold_host(name: str) -> str:
    """Give a name out of the DNS in the form in which names are compared: lower case, no final dot.

    >>> fold_host("MX.Example.ORG."), fold_host(".")
    ('mx.example.org', '.')
    """
    return name.lower().removesuffix(".") or name


def is_address(text: str) -> bool:
    """Tell whether a text is an IP address, bare or as an address literal (RFC 5321 §4.1.3).

    >>> is_address("192.0.2.1"), is_address("[IPv6:2001:db8::1]"), is_address("192.0.2.example")
    (True, True, False)
    """
    bare = text
    if text.startswith("[") and text.endswith("]"):
        bare = text[1:-1]
        if bare[:5].lower() == "ipv6:":
            bare = bare[5:]
    if len(bare) > 64 or not bare or not (":" in bare or bare[-1].isdigit()):
        return False
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return False
    return True


def matches_dns_id(host: str, pattern: str) -> bool:
    """Tell whether a DNS-ID is of a host: the same name, or a wildcard for its first label (RFC 9525 §6.3).

    Parameters
    ----------
    host
        The name that is wanted, A-labels.
    pattern
        A DNS-ID of a certificate, or a common name in its place.

    Notes
    -----
    The wildcard is a whole label, the left-most, and stands for exactly one label: ``*.example.org`` is neither
    ``example.org`` nor ``a.b.example.org``, and ``m*.example.org`` is nobody. A host that is an IP address has
    no DNS-ID (§6.2).

    Examples
    --------
    >>> matches_dns_id("mx.example.org", "*.EXAMPLE.org"), matches_dns_id("a.mx.example.org", "*.example.org")
    (True, False)
    """
    wanted, offered = host.lower().removesuffix("."), pattern.lower().removesuffix(".")
    if not wanted or not pattern.isascii() or is_address(wanted):  # ASCII: a Kelvin sign would fold to k
        return False
    if wanted == offered:
        return "*" not in wanted
    first, dot, rest = wanted.partition(".")
    return bool(first and dot and rest) and offered == f"*.{rest}"


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList(only_icann=True)


def registrable_domain(host: str) -> str:
    """Give the domain that somebody registered: one label below the public suffix; a suffix or address as it is.

    Notes
    -----
    Only suffixes of the DNS proper count, not those that companies list for their customers: who runs a server
    is asked, not who shares cookies.

    Examples
    --------
    >>> registrable_domain("mx1.mail.example.co.uk"), registrable_domain("192.0.2.1")
    ('example.co.uk', '192.0.2.1')
    """
    if is_address(host):
        return host
    return _suffixes().privatesuffix(host) or host
