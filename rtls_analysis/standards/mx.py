"""Finding the servers of a domain: MX, implicit MX, null MX (RFC 5321 §5.1, RFC 7505)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from rtls_analysis.standards.dns_answer import DnsAnswer, DnsStatus
from rtls_analysis.standards.names import fold_host, is_address

MAX_HOSTS = 1000
"""MX hosts of one domain that are looked at, the most preferred first; the most ever seen are some 400."""


class MxState(StrEnum):
    """What the MX lookup of a domain, or the address lookup of one of its hosts, amounts to."""

    MX = "mx"
    IMPLICIT_MX = "implicit_mx"  # no MX record, but an address
    NULL_MX = "null_mx"
    NULL_MX_WITH_OTHERS = "null_mx_with_others"
    NO_MAIL = "no_mail"  # neither MX nor address
    NXDOMAIN = "nxdomain"
    DNS_FAILURE = "dns_failure"
    BAD_NAME = "bad_name"  # not looked up
    MX_IS_ADDRESS = "mx_is_address"
    MX_NO_ADDRESS = "mx_no_address"
    MX_SPECIAL_ADDRESS = "mx_special_address"  # all its addresses are special and not allowed
    MX_IS_CNAME = "mx_is_cname"


@dataclass(frozen=True, slots=True, order=True)
class MxHost:
    """One MX host of a domain; a lower preference is tried first."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class MxCheck:
    """A verdict with its evidence: `hosts` in the order in which they are tried, equals by name."""

    state: MxState
    hosts: tuple[MxHost, ...] = ()
    detail: str = ""


def check_mx(domain: str, answer: DnsAnswer, *, has_address: bool | None) -> MxCheck:
    """Judge the MX answer of a domain: which hosts take its mail (RFC 5321 §5.1, RFC 7505).

    Parameters
    ----------
    domain
        The domain asked about; its implicit MX.
    answer
        The answer to the MX question, a record as ``10 mx.example.org.``.
    has_address
        Whether the domain has an address of its own, which decides where it has no MX record; None where it was
        not asked: it then counts as having one.

    Notes
    -----
    A null MX is one record that names the root; its preference should be 0, another one is noted (RFC 7505 §3).
    Beside others it is an error of the domain and passed over. Where MX records exist the domain's own address
    never counts, however broken they are (RFC 5321 §5.1). A host named twice keeps its better preference.

    Examples
    --------
    >>> from rtls_analysis.standards.dns_answer import DnsSecurity
    >>> answer = DnsAnswer("example.org", "MX", DnsStatus.NOERROR, DnsSecurity.INSECURE, ("10 MX.example.org.",))
    >>> check_mx("example.org", answer, has_address=None).hosts
    (MxHost(preference=10, host='mx.example.org'),)
    """
    if answer.failed:
        return MxCheck(MxState.DNS_FAILURE, detail=answer.detail or f"MX: {answer.status}")
    if answer.status is DnsStatus.NXDOMAIN:
        return MxCheck(MxState.NXDOMAIN)
    if not answer.records:
        if has_address is False:
            return MxCheck(MxState.NO_MAIL)
        return MxCheck(MxState.IMPLICIT_MX, (MxHost(0, domain),))
    return _check_records(answer.records)


def _check_records(records: Collection[str]) -> MxCheck:
    named: dict[str, int] = {}
    nulls: list[int] = []
    details: list[str] = []
    for record in records:
        number, _space, name = record.strip().partition(" ")
        host = fold_host(name.strip())
        if not (number.isascii() and number.isdigit() and len(number) <= 5) or not host:
            details.append(f"no MX record: {record[:80]!r}")
        elif host == ".":
            nulls.append(int(number))
        else:
            named[host] = min(int(number), named.get(host, 65536))
    hosts = sorted(MxHost(preference, host) for host, preference in named.items())
    if nulls and not hosts:
        if any(nulls):
            details.append(f"null MX with preference {max(nulls)}, not 0")
        return MxCheck(MxState.NULL_MX, detail="; ".join(details))
    if nulls:
        details.append("a null MX beside other MX records")
    elif not hosts:
        return MxCheck(MxState.DNS_FAILURE, detail="; ".join(details))
    if len(hosts) > MAX_HOSTS:
        details.append(f"{len(hosts)} MX hosts, {MAX_HOSTS} looked at")
        hosts = hosts[:MAX_HOSTS]
    state = MxState.NULL_MX_WITH_OTHERS if nulls else MxState.MX
    return MxCheck(state, tuple(hosts), "; ".join(details))


def check_mx_host(
    host: str, *, addresses: Collection[str], lookup_failed: bool, all_special: bool, canonical: str
) -> MxState:
    """Judge the address lookup of one MX host, the first word that holds (RFC 5321 §5.1, RFC 2181 §10.3).

    Parameters
    ----------
    host, canonical
        The name as published, and the name at the end of its aliases.
    addresses, lookup_failed
        What was found, and whether a question failed. One family's addresses are an answer, also where the
        question for the other family failed.
    all_special
        Every address is special and not allowed.
    """
    if is_address(host):
        return MxState.MX_IS_ADDRESS
    if not addresses:
        return MxState.DNS_FAILURE if lookup_failed else MxState.MX_NO_ADDRESS
    if all_special:
        return MxState.MX_SPECIAL_ADDRESS
    return MxState.MX_IS_CNAME if canonical != host else MxState.MX
