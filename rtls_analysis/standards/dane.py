"""DANE for SMTP: which TLSA records count, and whether a presented chain matches them (RFC 6698, 7671, 7672)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from rtls_analysis.standards.certificates import (
    MAX_KEPT,
    MAX_PRESENTED,
    PkixState,
    Roots,
    check_path,
    load_certificate,
    name_matches,
)
from rtls_analysis.standards.dns_answer import DnsSecurity
from rtls_analysis.standards.x509 import load_key

DANE_TA, DANE_EE = 2, 3  # usages; the others are not for SMTP (RFC 7672 §3.1.3)
CERT, SPKI = 0, 1  # selectors
FULL = 0  # matching type: the data itself
MAX_AUTHORITIES = 50  # records of usage 2 that are looked at; no honest host has a tenth of them
_DIGESTS: dict[int, Callable[[bytes], bytes]] = {
    1: lambda data: hashlib.sha256(data).digest(),
    2: lambda data: hashlib.sha512(data).digest(),
}
_DIGEST_LENGTH = {1: 32, 2: 64}


class TlsaState(StrEnum):
    """Verdict on the TLSA RRset of a host (RFC 7672 §2.2)."""

    USABLE = "usable"
    UNUSABLE = "unusable"  # secure, but no record that a client may use
    NONE = "none"
    INSECURE = "insecure"
    ERROR = "error"
    NOT_TESTED = "not_tested"


class DaneState(StrEnum):
    """Verdict on a chain against the secure TLSA records of the host, whoever's MX it is."""

    NONE = "none"
    UNUSABLE = "unusable"
    MATCH = "match"
    MISMATCH = "mismatch"
    ERROR = "error"
    NOT_TESTED = "not_tested"  # usable records but no chain seen, or DNS not trusted


# -- where to ask --------------------------------------------------------------------------------------------


def tlsa_name(base: str, port: int) -> str:
    """Give the owner name of the TLSA records of a base domain (RFC 6698 §3).

    >>> tlsa_name("mx.example.org", 25)
    '_25._tcp.mx.example.org'
    """
    return f"_{port}._tcp.{base}"


def tlsa_bases(
    host: str, canonical: str, *, host_security: DnsSecurity, alias_security: DnsSecurity | None
) -> tuple[str, ...]:
    """List the TLSA base domains to try for a host, in order; none where TLSA is not asked (RFC 7672 §2.2.2).

    Parameters
    ----------
    host, canonical
        The name of the host, and the name at the end of its aliases: the same without an alias.
    host_security
        The DNSSEC state of its addresses, aliases included.
    alias_security
        That of its first alias alone; None without an alias.

    Notes
    -----
    The end of the aliases comes first, then the name itself; names in between never count (§2.2.3). An alias
    that is signed and points out of the signed world leaves its own name as the only base.
    """
    if host_security is DnsSecurity.SECURE:
        return tuple(dict.fromkeys((canonical, host)))
    is_signed_alias = canonical != host and alias_security is DnsSecurity.SECURE
    return (host,) if host_security is DnsSecurity.INSECURE and is_signed_alias else ()


def dane_names(
    base: str, *, domain: str, canonical_domain: str, via_mx: bool, mx_secure: bool
) -> tuple[str, ...]:
    """List the names of which the certificate under a DANE-TA record must have one (RFC 7672 §3.2.2).

    Parameters
    ----------
    base
        The TLSA base domain.
    domain, canonical_domain
        The next-hop domain, before and after the aliases of its MX lookup.
    via_mx, mx_secure
        Whether the host comes from an MX record, and whether that answer is secure: the domain's name counts
        only where it is (§2.2.1).
    """
    if not via_mx:
        return tuple(dict.fromkeys((base, domain)))
    return tuple(dict.fromkeys((base, domain, canonical_domain))) if mx_secure else (base,)


# -- records -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TlsaRecord:
    """A TLSA record (RFC 6698 §2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes

    @property
    def text(self) -> str:
        """Presentation form, the data as lower-case hexadecimal without spaces (RFC 6698 §2.2)."""
        return f"{self.usage} {self.selector} {self.matching} {self.data.hex()}"

    @classmethod
    def parse(cls, text: str) -> TlsaRecord:
        """Parse the presentation form; the data may have spaces in it, or be missing (RFC 6698 §2.2).

        >>> TlsaRecord.parse("3 1 1 AB CD").text
        '3 1 1 abcd'

        Raises
        ------
        ValueError
            The text is no TLSA record.
        """
        fields = text.split()
        numbers = fields[:3]
        if len(numbers) < 3 or not all(part.isascii() and part.isdigit() for part in numbers):
            raise ValueError(f"a TLSA record begins with three numbers: {text[:80]!r}")
        if any(len(part) > 3 or int(part) > 255 for part in numbers):
            raise ValueError(f"the numbers of a TLSA record are at most 255: {text[:80]!r}")
        try:
            data = bytes.fromhex("".join(fields[3:]))
        except ValueError:
            raise ValueError(f"the data of a TLSA record is hexadecimal: {text[:80]!r}") from None
        usage, selector, matching = map(int, numbers)
        return cls(usage, selector, matching, data)


def check_tlsa(answer_security: DnsSecurity, records: Sequence[TlsaRecord]) -> TlsaState:
    """Judge the TLSA RRset of a host (RFC 7672 §2.2; RFC 6698 §4.1); no records: the answer denies them."""
    match answer_security:
        case DnsSecurity.ERROR:
            return TlsaState.ERROR
        case DnsSecurity.NOT_TESTED:
            return TlsaState.NOT_TESTED
    if not records:
        return TlsaState.NONE
    if answer_security is DnsSecurity.INSECURE:
        return TlsaState.INSECURE
    return TlsaState.USABLE if any(not _fault(record) for record in records) else TlsaState.UNUSABLE


@lru_cache(maxsize=4096)
def _fault(record: TlsaRecord) -> str:
    """Say why a sender of mail may not use a record; "" where it may (RFC 7672 §3.1, RFC 6698 §4.1)."""
    if record.usage not in (DANE_TA, DANE_EE):
        return f"usage {record.usage} is not for SMTP"
    if record.selector not in (CERT, SPKI):
        return f"selector {record.selector} is unknown"
    if record.matching == FULL:
        held = load_certificate(record.data) if record.selector == CERT else load_key(record.data)
        return "" if held is not None else "its data cannot be read"
    if (length := _DIGEST_LENGTH.get(record.matching)) is None:
        return f"matching type {record.matching} is unknown"
    return "" if len(record.data) == length else f"its digest has {len(record.data)} octets, not {length}"


def _agreed(records: Iterable[TlsaRecord]) -> list[TlsaRecord]:
    """Keep of each usage and selector the full data and the strongest digest (RFC 7671 §9)."""
    usable = [record for record in records if not _fault(record)]
    strongest: dict[tuple[int, int], int] = {}
    for record in usable:
        kind = record.usage, record.selector
        strongest[kind] = max(strongest.get(kind, FULL), record.matching)
    return [
        record for record in usable if record.matching in (FULL, strongest[record.usage, record.selector])
    ]


# -- verdict -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DaneCheck:
    """A verdict with its evidence: `matched` is the text of the record that matched, `detail` why none did."""

    state: DaneState
    detail: str = ""
    matched: str = ""


_WITHOUT_RECORDS = {
    TlsaState.NONE: DaneCheck(DaneState.NONE),
    TlsaState.INSECURE: DaneCheck(DaneState.NONE, "the TLSA records are not signed"),
    TlsaState.ERROR: DaneCheck(DaneState.ERROR, "the TLSA lookup failed"),
    TlsaState.NOT_TESTED: DaneCheck(DaneState.NOT_TESTED),
}


def check_dane(
    chain: Sequence[bytes] | None,
    tlsa_state: TlsaState,
    records: Sequence[TlsaRecord],
    names: Sequence[str],
    at: datetime,
) -> DaneCheck:
    """Judge a presented chain by the TLSA records of its host (RFC 7671 §5, RFC 7672 §3).

    Parameters
    ----------
    chain
        The certificates as sent, DER, leaf first; None where no handshake was seen, empty for an anonymous
        cipher.
    tlsa_state, records
        The RRset and the verdict of `check_tlsa` on it.
    names
        The names of `dane_names`; used for DANE-TA alone.
    at
        The time by which a path to a DANE-TA record is judged.

    Notes
    -----
    One matching record is enough. DANE-EE looks at the leaf only, neither at names nor at dates (RFC 7672
    §3.1.1). DANE-TA never matches the leaf, asks for a good path from there to the leaf and for a name
    (§3.1.2). Its authority may be given in full by ``2 0 0`` alone (RFC 7671 §5.2.2), or as the bare key of
    ``2 1 0`` (§5.2.3), without being sent. As with OpenSSL, that an authority which another one certified has
    expired itself does not count.
    """
    if (without := _WITHOUT_RECORDS.get(tlsa_state)) is not None:
        return without
    if tlsa_state is TlsaState.UNUSABLE:
        faults = dict.fromkeys(f"{record.text[:40]}: {_fault(record)}" for record in records)
        return DaneCheck(DaneState.UNUSABLE, "; ".join(list(faults)[:10]))
    if chain is None:
        return DaneCheck(DaneState.NOT_TESTED, "no certificate was seen")
    if not chain:
        return DaneCheck(DaneState.MISMATCH, "no certificate: the cipher is anonymous")
    agreed = _agreed(records)
    authorities = [record for record in agreed if record.usage == DANE_TA]
    reasons: dict[str, None] = {}
    for record in (*(record for record in agreed if record.usage == DANE_EE), *authorities[:MAX_AUTHORITIES]):
        reason = _mismatch(record, tuple(chain[:MAX_PRESENTED]), tuple(names), at)
        if not reason:
            return DaneCheck(DaneState.MATCH, matched=record.text)
        reasons[reason] = None
    return DaneCheck(DaneState.MISMATCH, "; ".join(list(reasons)[:10]))


def _mismatch(record: TlsaRecord, chain: tuple[bytes, ...], names: tuple[str, ...], at: datetime) -> str:
    """Say why a usable record does not match a chain; "" where it does."""
    label = f"{record.usage} {record.selector} {record.matching}"
    if record.usage == DANE_EE:
        return "" if _is_of(record, chain[0]) else f"{label}: not the certificate that was sent"
    anchors = _anchors(record, chain)
    if anchors is None:
        return f"{label}: no certificate of this authority was sent"
    path = check_path(chain, anchors, at)
    if path.state is not PkixState.VALID:
        return f"{label}: {'; '.join(path.reasons)}"
    leaf = load_certificate(chain[0])
    if leaf is None or not any(name_matches(leaf, name, cn_id=True) for name in names):
        return f"{label}: the certificate is not for {' or '.join(names)}"
    return ""


def _anchors(record: TlsaRecord, chain: tuple[bytes, ...]) -> Roots | None:
    """Give the authorities that a DANE-TA record names, sent or given in full; None where there are none."""
    return _kept_anchors(record, chain) if sum(map(len, chain)) <= MAX_KEPT else _find_anchors(record, chain)


@lru_cache(maxsize=512)
def _kept_anchors(record: TlsaRecord, chain: tuple[bytes, ...]) -> Roots | None:
    return _find_anchors(record, chain)


def _find_anchors(record: TlsaRecord, chain: tuple[bytes, ...]) -> Roots | None:
    leaf, *others = dict.fromkeys(chain)
    if sent := [der for der in others if _is_of(record, der)]:
        return Roots(sent, dated=False)
    if record.matching != FULL:
        return None
    if record.selector == SPKI:
        return Roots((), key=load_key(record.data))
    return Roots((record.data,), dated=False) if record.data != leaf else None


def _is_of(record: TlsaRecord, der: bytes) -> bool:
    """Tell whether a record is of a certificate: by selector and matching type (RFC 6698 §2.1)."""
    selected = der
    if record.selector == SPKI:
        if (certificate := load_certificate(der)) is None:
            return False
        selected = certificate.key_info
    return record.data == (selected if record.matching == FULL else _DIGESTS[record.matching](selected))
