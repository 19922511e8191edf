"""Certificates as an MTA judges them: path, dates and name, each with its reason (RFC 5280, 9525, 6125)."""

from __future__ import annotations

import hashlib
import re
from binascii import a2b_base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache

import certifi
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from rtls_analysis.standards.names import matches_dns_id
from rtls_analysis.standards.x509 import (
    KEY_CERT_SIGN,
    TLS_USAGES,
    X509,
    GeneralName,
    NameKey,
    NameKind,
    directory_name,
    is_signed_by,
    name_key,
    name_text,
    parse_certificate,
)

MAX_PRESENTED = 100  # certificates of a chain that are looked at; no honest server sends a tenth of it
MAX_DEPTH = 10  # certificates of a path
MAX_SIGNATURES = 100  # signatures checked in the search for paths: an honest chain takes three or four
MAX_PATHS = 8
MAX_KEPT = 1 << 15  # octets of a chain whose reading is kept: larger ones are made to fill memory
MAX_NAME_CHECKS = 20_000  # names times name constraints, of one authority of a path

# purposes that OpenSSL takes for a TLS server; anyExtendedKeyUsage is none of them (RFC 5280 §4.2.1.12 allows that)
_SERVER = {
    "1.3.6.1.5.5.7.3.1",  # serverAuth
    "1.3.6.1.4.1.311.10.3.3",  # server-gated cryptography, of Microsoft and of Netscape
    "2.16.840.1.113730.4.1",
}
_NETSCAPE_SERVER, _NETSCAPE_TLS_CA = 1, 5
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_HOST_LIKE = re.compile(r"\w(?:[\w-]*\w)?(?:\.\w(?:[\w-]*\w)?)+", re.ASCII)
_PEM = re.compile(rb"-----BEGIN (X509 |)CERTIFICATE-----(.*?)-----END \1CERTIFICATE-----", re.DOTALL)


class PkixState(StrEnum):
    """Verdict on a presented chain, the first that holds."""

    NOT_TESTED = "not_tested"  # no TLS
    ANONYMOUS = "anonymous"  # no certificate
    MALFORMED = "malformed"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    SELF_SIGNED = "self_signed"
    BAD_SIGNATURE = "bad_signature"
    UNTRUSTED = "untrusted"  # no path to a root for another reason
    NAME_MISMATCH = "name_mismatch"
    VALID = "valid"


# -- what a certificate says ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says of itself (RFC 5280 §4.1); a field that cannot be read is empty or None.

    `key` is its kind and size: ``RSA-2048``, ``EC-P-256``, ``Ed25519``. Times are UTC.
    """

    sha256: str
    der: bytes
    subject: str = ""
    issuer: str = ""
    dns_names: tuple[str, ...] = ()
    not_before: datetime | None = None
    not_after: datetime | None = None
    key: str = ""


def describe_certificate(der: bytes) -> Certificate:
    """Describe a certificate as sent (RFC 5280 §4.1); junk gives empty fields, never an exception."""
    sha256 = hashlib.sha256(der).hexdigest()
    if (certificate := load_certificate(der)) is None:
        return Certificate(sha256, der)
    return Certificate(
        sha256=sha256,
        der=der,
        subject=name_text(certificate.subject_name),
        issuer=name_text(certificate.issuer_name),
        dns_names=certificate.dns_ids,
        not_before=certificate.not_before,
        not_after=certificate.not_after,
        key=_key_text(certificate.key),
    )


def load_certificate(der: bytes) -> X509 | None:
    """Load a certificate (RFC 5280 §4.1); None where the bytes are none."""
    return _kept_certificate(der) if len(der) <= MAX_KEPT else _load(der)


@lru_cache(maxsize=1024)
def _kept_certificate(der: bytes) -> X509 | None:
    return _load(der)


def _load(der: bytes) -> X509 | None:
    try:
        return parse_certificate(der)
    except ValueError:
        return None


def name_matches(certificate: X509, host: str, *, cn_id: bool) -> bool:
    """Tell whether a certificate is for a host (RFC 9525 §6.3).

    With `cn_id` the common names count where the certificate has no DNS-ID (RFC 7672 §3.2.3, RFC 6125 §6.4.4).
    """
    patterns = certificate.dns_ids or (certificate.common_names if cn_id else ())
    return _matches(patterns, host)


def _matches(patterns: Iterable[str], host: str) -> bool:
    return any(matches_dns_id(host, pattern) for pattern in patterns)


def _key_text(key: PublicKeyTypes | None) -> str:
    match key:
        case None:
            return ""
        case rsa.RSAPublicKey():
            return f"RSA-{key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"EC-{_CURVES.get(key.curve.name, key.curve.name)}"
        case dsa.DSAPublicKey():
            return f"DSA-{key.key_size}"
        case _:
            return type(key).__name__.removesuffix("PublicKey")


# -- paths ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """What of a certificate on a path matters at a given time."""

    title: str
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class _Path:
    """A path from the leaf up; `problems` say why it may not be used whatever the time, `state` is the word for it."""

    steps: tuple[_Step, ...]
    state: PkixState = PkixState.VALID
    problems: tuple[str, ...] = ()

    def check(self, at: datetime) -> PathCheck:
        """Judge the path at a time: the validity dates of every certificate too (RFC 5280 §6.1.3 (a)(2))."""
        late = [step for step in self.steps if step.not_after < at]
        early = [step for step in self.steps if step.not_before > at]
        state = self.state
        if state is not PkixState.MALFORMED and (late or early):
            state = PkixState.EXPIRED if late else PkixState.NOT_YET_VALID
        reasons = [f"{step.title} expired on {step.not_after:%Y-%m-%d}" for step in late]
        reasons += [f"{step.title} is not valid before {step.not_before:%Y-%m-%d}" for step in early]
        return PathCheck(state, (*reasons, *self.problems))


@dataclass(frozen=True, slots=True)
class _Chain:
    """What a presented chain amounts to under some roots, whatever the time and the name asked for."""

    paths: tuple[_Path, ...]
    leaf: X509
    note: str  # other presented certificates that cannot be read


class _Search:
    """A search for paths from a leaf to a root, bounded whatever is presented (RFC 5280 §6.1, RFC 4158).

    A depth-first walk over issuers that have the right name and key identifier, roots first, no subject and
    key twice in a path: loops of cross-signed authorities end.
    """

    def __init__(self, presented: Sequence[X509], roots: Roots) -> None:
        self.roots = roots
        self.found: list[tuple[X509, ...]] = []
        self.deepest: tuple[X509, ...] = ()
        self.forged: set[X509] = set()  # with an issuer of the right name there, but of another key
        self.checks = 0
        self._presented = _by_subject(presented)

    def climb(self, path: tuple[X509, ...]) -> None:
        """Extend a path to the roots, in every way that the budget allows."""
        if len(path) > len(self.deepest):
            self.deepest = path
        top = path[-1]
        if self.roots.hold(top):
            self.found.append(path)
            return
        if len(path) < MAX_DEPTH:
            for issuer in self._issuers(path):
                self.climb((*path, issuer))

    def _issuers(self, path: tuple[X509, ...]) -> Iterator[X509]:
        top = path[-1]
        for issuer in (*self.roots.named(top.issuer), *self._presented.get(top.issuer, ())):
            if self.checks >= MAX_SIGNATURES or len(self.found) >= MAX_PATHS:
                return
            if not _is_candidate(issuer, path):
                continue
            self.checks += 1
            if _signed(top, issuer):
                yield issuer
            else:
                self.forged.add(top)


def _by_subject(certificates: Iterable[X509]) -> dict[NameKey, list[X509]]:
    index: dict[NameKey, list[X509]] = {}
    for certificate in certificates:
        index.setdefault(certificate.subject, []).append(certificate)
    return index


def _is_candidate(issuer: X509, path: tuple[X509, ...]) -> bool:
    """Tell whether an authority of the right name may be the issuer, by what its key identifier says (§4.2.1.1)."""
    wanted, offered = path[-1].extensions, issuer.extensions
    if wanted.issuer_key_id is not None and offered.key_id not in (None, wanted.issuer_key_id):
        return False
    if wanted.issuer_serial not in (None, issuer.serial):
        return False
    if wanted.issuer_of_issuer not in (None, issuer.issuer):
        return False
    return not any(link.key_info == issuer.key_info and link.subject == issuer.subject for link in path)


def _signed(certificate: X509, issuer: X509) -> bool:
    if len(certificate.der) + len(issuer.der) > MAX_KEPT:
        return is_signed_by(certificate, issuer.key)
    return _kept_signature(certificate, issuer)


@lru_cache(maxsize=2048)
def _kept_signature(certificate: X509, issuer: X509) -> bool:
    return is_signed_by(certificate, issuer.key)


def _path(links: tuple[X509, ...], state: PkixState, *problems: str) -> _Path:
    steps = tuple(_Step(_title(link), link.not_before, link.not_after) for link in links)
    return _Path(steps, state, problems)


def _title(certificate: X509) -> str:
    text = next(iter(certificate.common_names), "") or name_text(certificate.subject_name) or "no name"
    return repr(text[:80])


def _dead_end(search: _Search) -> _Path:
    """Say why no path reaches a root, by the longest one that was tried."""
    links = search.deepest
    leaf, top = links[0], links[-1]
    state = PkixState.UNTRUSTED
    if len(links) == 1 and leaf.self_issued:
        if _signed(leaf, leaf):
            state, reason = PkixState.SELF_SIGNED, f"{_title(leaf)} is self-signed"
        else:
            state, reason = PkixState.BAD_SIGNATURE, f"{_title(leaf)} does not bear out its own signature"
    elif search.checks >= MAX_SIGNATURES:
        reason = f"no root within {MAX_SIGNATURES} signatures"
    elif top in search.forged:
        state = PkixState.BAD_SIGNATURE
        reason = f"the signature of {_title(top)} is not by its issuer's key"
    elif len(links) == MAX_DEPTH:
        reason = f"no root within {MAX_DEPTH} certificates"
    elif top.self_issued:
        reason = f"the root {_title(top)} is not trusted"
    else:
        reason = f"the issuer of {_title(top)} is neither sent nor a root"
    return _path(links, state, reason, *_problems(links))


# -- what authorities may do ---------------------------------------------------------------------------------


def _problems(links: tuple[X509, ...]) -> Iterator[str]:
    """List why a path may not be used, but for dates and signatures (RFC 5280 §6.1.3, §6.1.4)."""
    between = 0  # certificates between this issuer and the leaf that count for the path length
    last = len(links) - 1
    for depth, link in enumerate(links):
        says, title = link.extensions, _title(link)
        if says.unknown_critical:
            yield f"{title} has an unknown critical extension {says.unknown_critical[0]}"
        if says.is_proxy:
            yield f"{title} is a proxy certificate"
        if says.purposes is not None and not says.purposes & _SERVER:
            yield f"{title} is not for TLS servers (extended key usage)"
        if last and link.describes_curve:
            yield f"{title} describes the curve of its key in place of naming it"
        if depth == 0:
            if not _may_serve(link):
                yield f"{title} is not for TLS servers (key usage)"
            continue
        if not _may_sign(link, is_last=depth == last):
            yield f"{title} may not sign certificates"
        if says.path_length is not None and between > says.path_length:
            yield f"{title} has the path length {says.path_length}, but {between} below it"
        if (says.permitted or says.excluded) and (name := _forbidden_name(link, links[:depth])):
            yield f"the name constraints of {title} forbid {name}"
        between += not link.self_issued


def _may_serve(leaf: X509) -> bool:
    """Tell whether the key of a leaf may be used in TLS (RFC 5280 §4.2.1.3)."""
    usage, netscape_type = leaf.extensions.key_usage, leaf.extensions.netscape_type
    return (usage is None or bool(usage & TLS_USAGES)) and (
        netscape_type is None or _NETSCAPE_SERVER in netscape_type
    )


def _may_sign(authority: X509, *, is_last: bool) -> bool:
    """Tell whether a certificate may issue others (RFC 5280 §4.2.1.3, §4.2.1.9).

    Notes
    -----
    As OpenSSL does, of the last of a path, which is trusted, less is asked: without basicConstraints a keyUsage
    with keyCertSign will do, and so will a self-issued certificate of version 1, as old private roots are.
    """
    says = authority.extensions
    if says.key_usage is not None and KEY_CERT_SIGN not in says.key_usage:
        return False
    if says.ca is not None:
        return says.ca
    return is_last and (
        says.key_usage is not None
        or (authority.version == 1 and authority.self_issued)
        or _NETSCAPE_TLS_CA in (says.netscape_type or ())
    )


def _forbidden_name(authority: X509, below: tuple[X509, ...]) -> str:
    """Give the first name that the constraints of an authority forbid below it, or "" (RFC 5280 §4.2.1.10)."""
    permitted, excluded = authority.extensions.permitted, authority.extensions.excluded
    names = list(_constrained_names(below))
    if len(names) * (len(permitted) + len(excluded)) > MAX_NAME_CHECKS:
        return "more names than can be compared"
    wanted = [(tree.base.kind, _folded(tree.base)) for tree in permitted]
    unwanted = [(tree.base.kind, _folded(tree.base)) for tree in excluded]
    bounded = {tree.base.kind for tree in (*permitted, *excluded) if tree.bounded}
    for name in names:
        if name is None:
            return "a name that cannot be compared"
        given = _folded(name)
        allowed = {_is_within(kind, given, tree) for kind, tree in wanted if kind == name.kind}
        denied = {_is_within(kind, given, tree) for kind, tree in unwanted if kind == name.kind}
        untold = name.kind in bounded or None in allowed | denied
        if untold or True in denied or (allowed and True not in allowed):
            return repr(name.text[:80])
    return ""


def _constrained_names(below: tuple[X509, ...]) -> Iterator[GeneralName | None]:
    """List the names that constraints speak of: of self-issued authorities none, of a leaf the common names too."""
    for depth, link in enumerate(below):
        if depth and link.self_issued:
            continue
        if link.subject_name:
            yield GeneralName(NameKind.DIRECTORY, link.subject_der)
        yield from link.mail_in_subject
        yield from link.extensions.names
    leaf = below[0]
    for text in () if leaf.dns_ids else leaf.common_names:
        host = text.rstrip("\0")
        if "\0" in host:
            yield None
        elif _HOST_LIKE.fullmatch(host):
            yield GeneralName(NameKind.DNS, host.encode())


def _folded(name: GeneralName) -> bytes | NameKey:
    """Give a name, or the base of a subtree, in the form in which they are compared."""
    match name.kind:
        case NameKind.DIRECTORY:
            return name_key(directory_name(name))
        case NameKind.DNS | NameKind.URI:
            return name.value.lower()
        case NameKind.MAIL:
            local, at, host = name.value.rpartition(b"@")
            return local + at + host.lower()
    return name.value


def _is_within(kind: int, name: bytes | NameKey, tree: bytes | NameKey) -> bool | None:
    """Tell whether a name lies in a subtree of its kind; None for what cannot be compared."""
    if isinstance(name, tuple) or isinstance(tree, tuple):
        return name[: len(tree)] == tree
    match kind:
        case NameKind.DNS:
            return name.endswith(tree) and (
                len(tree) in (0, len(name)) or b"." in (tree[:1], name[-len(tree) - 1 : -len(tree)])
            )
        case NameKind.ADDRESS:
            return _is_address_within(name, tree)
        case NameKind.MAIL:
            return _is_mail_within(name, tree)
        case NameKind.URI:
            scheme, slashes, rest = name.partition(b"://")
            host = re.split(b"[:/]", rest, maxsplit=1)[0] if slashes and b":" not in scheme else b""
            return _is_host_within(host, tree) if host else None
    return None


def _is_address_within(address: bytes, tree: bytes) -> bool | None:
    half = len(tree) // 2
    if len(address) not in (4, 16) or len(tree) not in (8, 32):
        return None
    octets = zip(address, tree[:half], tree[half:], strict=False)
    return len(address) == half and all(octet & mask == wanted & mask for octet, wanted, mask in octets)


def _is_mail_within(address: bytes, tree: bytes) -> bool | None:
    """Tell whether a mail address is of a mailbox, of a host, or of the hosts of a domain (RFC 5280 §4.2.1.10)."""
    local, at, host = address.rpartition(b"@")
    if not at:
        return None
    wanted_local, at, wanted_host = tree.rpartition(b"@")
    if at:
        return wanted_local in (b"", local) and host == wanted_host
    return address.endswith(tree) if tree[:1] == b"." else host == tree


def _is_host_within(host: bytes, tree: bytes) -> bool:
    return host.endswith(tree) and len(host) > len(tree) if tree[:1] == b"." else host == tree


# -- roots ---------------------------------------------------------------------------------------------------


class Roots:
    """The certificates at which a path may end (RFC 5280 §6.1.1 (d)), and what chains amount to under them.

    Make it once: chains that many hosts share are searched once. `pem` is the text it was made from, `sha256`
    the fingerprint of that text in hexadecimal. `key` is trusted as if it were a root's (RFC 7671 §5.2.3).
    Without `dated` the dates of a root count only where it issued itself.
    """

    def __init__(
        self,
        ders: Iterable[bytes],
        *,
        key: PublicKeyTypes | None = None,
        dated: bool = True,
        pem: bytes = b"",
    ) -> None:
        self.pem = pem
        self.sha256 = hashlib.sha256(pem).hexdigest()
        roots = [root for der in ders if (root := load_certificate(der)) is not None]
        self._ders = frozenset(root.der for root in roots)
        self._key = key
        self._dated = dated
        self._by_subject = _by_subject(roots)
        self._kept_chain = lru_cache(maxsize=1024)(self._search)

    @classmethod
    def from_pem(cls, pem: bytes) -> Roots:
        """Take the certificates of a PEM file, with or without text between them (RFC 7468 §5).

        Raises
        ------
        ValueError
            No certificate is in it, or one is damaged.
        """
        ders = []
        for number, match in enumerate(_PEM.finditer(pem), start=1):
            try:
                ders.append(parse_certificate(a2b_base64(match[2])).der)
            except ValueError as error:
                raise ValueError(f"its certificate {number} cannot be read: {error}") from None
        if not ders:
            raise ValueError("no certificate is in it")
        return cls(ders, pem=pem)

    @classmethod
    def builtin(cls) -> Roots:
        """Take Mozilla's roots, in the edition of the installed package `certifi`."""
        return _builtin_roots()

    def hold(self, certificate: X509) -> bool:
        """Tell whether a path may end here: the certificate is a root, or signed by a key trusted as such."""
        if self._key is not None and is_signed_by(certificate, self._key):
            return True
        return certificate.der in self._ders

    def named(self, subject: NameKey) -> Sequence[X509]:
        """Give the roots of a name."""
        return self._by_subject.get(subject, ())

    def chain(self, chain: tuple[bytes, ...]) -> _Chain | None:
        """Tell what a presented chain, leaf first, amounts to; None where there is no leaf that can be read."""
        if not chain:
            return None
        return self._kept_chain(chain) if sum(map(len, chain)) <= MAX_KEPT else self._search(chain)

    def _search(self, chain: tuple[bytes, ...]) -> _Chain | None:
        if (leaf := load_certificate(chain[0])) is None:
            return None
        if leaf.extensions.faults:
            return _Chain((_path((leaf,), PkixState.MALFORMED, *leaf.extensions.faults),), leaf, note="")
        others = [load_certificate(der) for der in dict.fromkeys(chain[1:MAX_PRESENTED])]
        readable = [other for other in others if other is not None and not other.extensions.faults]
        search = _Search(readable, self)
        search.climb((leaf,))
        junk = len(others) - len(readable)
        return _Chain(
            paths=tuple(map(self._complete, search.found)) or (_dead_end(search),),
            leaf=leaf,
            note=f"{junk} of the other certificates cannot be read" if junk else "",
        )

    def _complete(self, links: tuple[X509, ...]) -> _Path:
        """Judge a path that ends in a root: all but its dates (RFC 5280 §6.1)."""
        root, problems = links[-1], tuple(_problems(links))
        dated = self._dated or root.self_issued or root.der not in self._ders
        steps = links if dated else links[:-1]
        return _path(steps, PkixState.UNTRUSTED if problems else PkixState.VALID, *problems)


@lru_cache(maxsize=1)
def _builtin_roots() -> Roots:
    return Roots.from_pem(certifi.contents().encode())


# -- verdicts ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PathCheck:
    """A verdict on path and dates, whatever the name: VALID, or the first reason that holds, and all in words."""

    state: PkixState
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PkixCheck:
    """A verdict on a chain for a host, with its evidence.

    `trusted` tells of path and dates, whatever the name; `name_match` of the name by DNS-ID or, where the
    rules allow, common name; `dns_id_match` by DNS-ID alone. They are None where no certificate could be read.
    `name_from_cn` says that the name matched a common name. `detail` holds every reason, "; " between.
    """

    state: PkixState
    detail: str = ""
    trusted: bool | None = None
    name_match: bool | None = None
    dns_id_match: bool | None = None
    name_from_cn: bool = False


def check_path(chain: Sequence[bytes], roots: Roots, at: datetime) -> PathCheck:
    """Judge path and dates of a presented chain (RFC 5280 §6).

    Parameters
    ----------
    chain
        The certificates as sent, DER, leaf first, the others in any order; empty for an anonymous cipher.
    roots
        Where a path may end.
    at
        The time to judge by; UTC where it has no zone.

    Notes
    -----
    The dates of every certificate of the path count, the root's too, as with OpenSSL. Of several paths the
    first that is good decides; certificates that it does not need may be expired or junk. Revocation is not
    looked at: senders of mail do not.
    """
    return _check_path(chain, roots.chain(tuple(chain)), at)


def _check_path(chain: Sequence[bytes], held: _Chain | None, at: datetime) -> PathCheck:
    if not chain:
        return PathCheck(PkixState.ANONYMOUS, ("no certificate",))
    if held is None:
        return PathCheck(PkixState.MALFORMED, ("the certificate cannot be read",))
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    checks = [path.check(at) for path in held.paths]
    best = min(checks, key=lambda check: len(check.reasons))
    if best.state is PkixState.VALID or not held.note:
        return best
    return PathCheck(best.state, (*best.reasons, held.note))


def check_pkix(
    chain: Sequence[bytes], roots: Roots, host: str, at: datetime, *, cn_id: bool = True
) -> PkixCheck:
    """Judge a presented chain for a host, as an MTA does that trusts these roots (RFC 5280 §6, RFC 9525 §6).

    Parameters
    ----------
    chain, roots, at
        As for `check_path`.
    host
        The name that the certificate must be for, an A-label.
    cn_id
        Whether the common names count where the certificate has no DNS-ID: for mail (RFC 7672 §3.2.3, as
        RFC 8689 §4.2.1 leaves it open), never for the policy host of MTA-STS (RFC 8461 §3.3).
    """
    held = roots.chain(tuple(chain))
    path = _check_path(chain, held, at)
    if held is None:
        return PkixCheck(path.state, "; ".join(path.reasons))
    dns_ids = held.leaf.dns_ids
    dns_id_match = _matches(dns_ids, host)
    name_from_cn = cn_id and not dns_ids and _matches(held.leaf.common_names, host)
    trusted = path.state is PkixState.VALID
    name_match = dns_id_match or name_from_cn
    reasons = path.reasons if name_match else (*path.reasons, _misnamed(held.leaf, host, cn_id=cn_id))
    return PkixCheck(
        state=PkixState.NAME_MISMATCH if trusted and not name_match else path.state,
        detail="; ".join(reasons),
        trusted=trusted,
        name_match=name_match,
        dns_id_match=dns_id_match,
        name_from_cn=name_from_cn,
    )


def _misnamed(leaf: X509, host: str, *, cn_id: bool) -> str:
    names = leaf.dns_ids or (leaf.common_names if cn_id else ())
    if not names:
        return f"the certificate has no name to compare with {host}"
    shown = ", ".join(name[:80] for name in names[:3]) + (", ..." if len(names) > 3 else "")
    return f"the certificate is for {shown}, not for {host}"
