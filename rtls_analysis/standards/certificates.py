"""Certificates as an MTA judges them: path, dates and name, each with its reason (RFC 5280, 9525, 6125)."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar

import certifi
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from rtls_analysis.standards.names import matches_dns_id

MAX_PRESENTED = 100  # certificates of a chain that are looked at; no honest server sends a tenth of it
MAX_DEPTH = 10  # certificates of a path
MAX_SIGNATURES = 100  # signatures checked in the search for paths: an honest chain takes three or four
MAX_PATHS = 8
MAX_NAME_CHECKS = 100_000  # names times name constraints

UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the parsing of a stranger's certificate or key may raise, at once or as late as at a field's first use."""

_KNOWN_EXTENSIONS = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.NAME_CONSTRAINTS,
    ExtensionOID.CERTIFICATE_POLICIES,
    ExtensionOID.POLICY_CONSTRAINTS,
    ExtensionOID.POLICY_MAPPINGS,
    ExtensionOID.INHIBIT_ANY_POLICY,
    ExtensionOID.CRL_DISTRIBUTION_POINTS,
}
_SERVER = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}

NameKey = tuple[frozenset[tuple[str, str]], ...]
T = TypeVar("T")
ExtensionT = TypeVar("ExtensionT", bound=x509.ExtensionType)


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
        subject=_read(lambda: certificate.subject.rfc4514_string(), ""),
        issuer=_read(lambda: certificate.issuer.rfc4514_string(), ""),
        dns_names=_read(lambda: _dns_ids(certificate), ()),
        not_before=_read(lambda: certificate.not_valid_before_utc, None),
        not_after=_read(lambda: certificate.not_valid_after_utc, None),
        key=_read(lambda: _key_text(certificate.public_key()), ""),
    )


@lru_cache(maxsize=4096)
def load_certificate(der: bytes) -> x509.Certificate | None:
    """Load a certificate (RFC 5280 §4.1); None where the bytes are none."""
    with warnings.catch_warnings():
        # Serial numbers of zero and the like: true of some public roots, and of no interest to a sender
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return _read(lambda: x509.load_der_x509_certificate(der), None)


def name_matches(certificate: x509.Certificate, host: str, *, cn_id: bool) -> bool:
    """Tell whether a certificate is for a host (RFC 9525 §6.3).

    With `cn_id` the common names count where the certificate has no DNS-ID (RFC 7672 §3.2.3, RFC 6125 §6.4.4).
    A certificate whose names cannot be read is for nobody.
    """
    patterns = _read(lambda: _dns_ids(certificate), None)
    if patterns == () and cn_id:
        patterns = _read(lambda: _common_names(certificate), None)
    return _matches(patterns or (), host)


def _matches(patterns: Iterable[str], host: str) -> bool:
    return any(matches_dns_id(host, pattern) for pattern in patterns)


def _read(get: Callable[[], T], otherwise: T) -> T:
    try:
        return get()
    except UNREADABLE:
        return otherwise


def _dns_ids(certificate: x509.Certificate) -> tuple[str, ...]:
    names = _extension(certificate, x509.SubjectAlternativeName)
    return tuple(names.get_values_for_type(x509.DNSName)) if names is not None else ()


def _common_names(certificate: x509.Certificate) -> tuple[str, ...]:
    return tuple(str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME))


def _extension(certificate: x509.Certificate, kind: type[ExtensionT]) -> ExtensionT | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _key_text(key: PublicKeyTypes) -> str:
    match key:
        case rsa.RSAPublicKey():
            return f"RSA-{key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"EC-{_CURVES.get(key.curve.name, key.curve.name)}"
        case dsa.DSAPublicKey():
            return f"DSA-{key.key_size}"
        case _:
            return type(key).__name__.removesuffix("PublicKey")


# -- what a path needs to know of a certificate --------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Link:
    """A certificate read once for path building; two are the same where they are the same object."""

    certificate: x509.Certificate
    subject: NameKey
    issuer: NameKey
    key: CertificatePublicKeyTypes | None
    title: str  # for people: the common name, or the whole subject
    not_before: datetime
    not_after: datetime
    may_sign: bool
    path_length: int | None
    for_servers: bool
    unknown_critical: tuple[str, ...]
    constraints: x509.NameConstraints | None
    names: tuple[x509.GeneralName, ...]  # of the subject alternative name
    key_id: bytes | None
    issuer_key_id: bytes | None

    @property
    def self_issued(self) -> bool:
        return self.subject == self.issuer


@lru_cache(maxsize=4096)
def _link(der: bytes) -> _Link | None:
    """Read a certificate for path building; None where a part of it cannot be read."""
    certificate = load_certificate(der)
    return None if certificate is None else _read(lambda: _read_link(certificate), None)


def _read_link(certificate: x509.Certificate) -> _Link:
    subject, issuer = _name_key(certificate.subject), _name_key(certificate.issuer)
    basic = _extension(certificate, x509.BasicConstraints)
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    names = _extension(certificate, x509.SubjectAlternativeName)
    key_id = _extension(certificate, x509.SubjectKeyIdentifier)
    issuer_key_id = _extension(certificate, x509.AuthorityKeyIdentifier)
    return _Link(
        certificate=certificate,
        subject=subject,
        issuer=issuer,
        key=_read(certificate.public_key, None),
        title=_title(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        may_sign=_may_sign(certificate, basic, self_issued=subject == issuer),
        path_length=basic.path_length if basic is not None else None,
        for_servers=purposes is None or bool(_SERVER.intersection(purposes)),
        unknown_critical=tuple(
            extension.oid.dotted_string
            for extension in certificate.extensions
            if extension.critical and extension.oid not in _KNOWN_EXTENSIONS
        ),
        constraints=_extension(certificate, x509.NameConstraints),
        names=tuple(names) if names is not None else (),
        key_id=key_id.digest if key_id is not None else None,
        issuer_key_id=issuer_key_id.key_identifier if issuer_key_id is not None else None,
    )


def _may_sign(
    certificate: x509.Certificate, basic: x509.BasicConstraints | None, *, self_issued: bool
) -> bool:
    """Tell whether a certificate may issue others (RFC 5280 §4.2.1.3, §4.2.1.9).

    Notes
    -----
    As OpenSSL does: without basicConstraints a keyUsage with keyCertSign will do, and so will a self-issued
    certificate of version 1, as old private roots are.
    """
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        return False
    if basic is not None:
        return basic.ca
    return usage is not None or (certificate.version is x509.Version.v1 and self_issued)


def _name_key(name: x509.Name) -> NameKey:
    """Give a name in the form in which names are compared: case and white space folded (RFC 5280 §7.1)."""
    return tuple(
        frozenset((part.oid.dotted_string, _folded(part.value)) for part in rdn) for rdn in name.rdns
    )


def _folded(value: str | bytes) -> str:
    return value.hex() if isinstance(value, bytes) else " ".join(value.lower().split())


def _title(certificate: x509.Certificate) -> str:
    text = next(iter(_common_names(certificate)), "") or certificate.subject.rfc4514_string() or "no name"
    return repr(text[:80])


# -- paths ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """What of a certificate on a path matters at a given time."""

    title: str
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class _Path:
    """A path from the leaf up; `problem` is why it may not be used whatever the time, `state` the word for it."""

    steps: tuple[_Step, ...]
    state: PkixState = PkixState.VALID
    problem: str = ""

    def dates(self, at: datetime) -> tuple[PkixState | None, list[str]]:
        """Judge the validity dates of every certificate of the path (RFC 5280 §6.1.3 (a)(2))."""
        late = [step for step in self.steps if step.not_after < at]
        early = [step for step in self.steps if step.not_before > at]
        reasons = [f"{step.title} expired on {step.not_after:%Y-%m-%d}" for step in late]
        reasons += [f"{step.title} is not valid before {step.not_before:%Y-%m-%d}" for step in early]
        return PkixState.EXPIRED if late else PkixState.NOT_YET_VALID if early else None, reasons


@dataclass(frozen=True, slots=True)
class _Chain:
    """What a presented chain amounts to under some roots, whatever the time and the name asked for."""

    paths: tuple[_Path, ...]
    dns_ids: tuple[str, ...]
    common_names: tuple[str, ...]
    note: str  # other presented certificates that cannot be read


class _Search:
    """A search for paths from a leaf to a root, bounded whatever is presented (RFC 5280 §6.1, RFC 4158).

    A depth-first walk over issuers that have the right name and key identifier, roots first, no subject and
    key twice in a path: loops of cross-signed authorities end.
    """

    def __init__(self, presented: Sequence[_Link], roots: Roots) -> None:
        self.roots = roots
        self.found: list[tuple[_Link, ...]] = []
        self.deepest: tuple[_Link, ...] = ()
        self.forged: set[_Link] = (
            set()
        )  # an issuer of the right name is there, but its key is not the right one
        self._checks = 0
        self._presented = _by_subject(presented)

    def climb(self, path: tuple[_Link, ...]) -> None:
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

    def _issuers(self, path: tuple[_Link, ...]) -> Iterator[_Link]:
        top = path[-1]
        for issuer in (*self.roots.named(top.issuer), *self._presented.get(top.issuer, ())):
            if self._checks >= MAX_SIGNATURES or len(self.found) >= MAX_PATHS:
                return
            if not _is_candidate(issuer, path):
                continue
            self._checks += 1
            if _signed(top, issuer):
                yield issuer
            else:
                self.forged.add(top)


def _by_subject(links: Iterable[_Link]) -> dict[NameKey, list[_Link]]:
    index: dict[NameKey, list[_Link]] = {}
    for link in links:
        index.setdefault(link.subject, []).append(link)
    return index


def _is_candidate(issuer: _Link, path: tuple[_Link, ...]) -> bool:
    wanted, offered = path[-1].issuer_key_id, issuer.key_id
    if wanted is not None and offered is not None and wanted != offered:
        return False
    return not any(link.subject == issuer.subject and link.key == issuer.key for link in path)


@lru_cache(maxsize=8192)
def _signed(link: _Link, issuer: _Link) -> bool:
    return is_signed_by(link.certificate, issuer.key)


def is_signed_by(certificate: x509.Certificate, key: PublicKeyTypes | None) -> bool:
    """Tell whether a key made the signature of a certificate (RFC 5280 §6.1.3 (a)(1)).

    Notes
    -----
    Old digests (SHA-1, MD5) and small keys count as signatures, as they do for an MTA at OpenSSL's security
    level 0: that they are weak is told by the key and the certificate, not by a verdict of "untrusted".
    """
    signature, body = certificate.signature, certificate.tbs_certificate_bytes
    try:
        digest, parameters = certificate.signature_hash_algorithm, certificate.signature_algorithm_parameters
        match key, parameters:
            case rsa.RSAPublicKey(), padding.AsymmetricPadding() if digest is not None:
                key.verify(signature, body, parameters, digest)
            case ec.EllipticCurvePublicKey(), ec.ECDSA():
                key.verify(signature, body, parameters)
            case dsa.DSAPublicKey(), None if digest is not None:
                key.verify(signature, body, digest)
            case ((ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey()), None):
                key.verify(signature, body)
            case _:
                return False
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def _path(links: tuple[_Link, ...], state: PkixState, problem: str) -> _Path:
    return _Path(tuple(_Step(link.title, link.not_before, link.not_after) for link in links), state, problem)


def _complete(links: tuple[_Link, ...]) -> _Path:
    """Judge a path that ends in a root: all but its dates (RFC 5280 §6.1)."""
    problem = next(_problems(links), "")
    return _path(links, PkixState.UNTRUSTED if problem else PkixState.VALID, problem)


def _problems(links: tuple[_Link, ...]) -> Iterator[str]:
    between = 0  # certificates between this issuer and the leaf that count for the path length
    for depth, link in enumerate(links):
        if link.unknown_critical:
            yield f"{link.title} has an unknown critical extension {link.unknown_critical[0]}"
        if not link.for_servers:
            yield f"{link.title} is not for TLS servers (extended key usage)"
        if depth == 0:
            continue
        if not link.may_sign:
            yield f"{link.title} may not sign certificates"
        if link.path_length is not None and between > link.path_length:
            yield f"{link.title} allows {link.path_length} authorities below it, not {between}"
        if link.constraints is not None and (name := _forbidden_name(link.constraints, links[:depth])):
            yield f"the name constraints of {link.title} forbid {name}"
        between += not link.self_issued


def _forbidden_name(constraints: x509.NameConstraints, below: tuple[_Link, ...]) -> str:
    """Give the first name that the constraints of an authority forbid below it, or "" (RFC 5280 §4.2.1.10)."""
    names = list(_constrained_names(below))
    permitted, excluded = constraints.permitted_subtrees or [], constraints.excluded_subtrees or []
    if len(names) * (len(permitted) + len(excluded)) > MAX_NAME_CHECKS:
        return "more names than can be compared"
    for name in names:
        allowed = [base for base in permitted if type(base) is type(name)]
        denied = [base for base in excluded if type(base) is type(name)]
        if allowed and not any(_within(name, base, unknown=False) for base in allowed):
            return _shown(name)
        if any(_within(name, base, unknown=True) for base in denied):
            return _shown(name)
    return ""


def _constrained_names(below: tuple[_Link, ...]) -> Iterator[x509.GeneralName]:
    """List the names that constraints speak of: of self-issued authorities none, of a leaf the common names too."""
    for depth, link in enumerate(below):
        if depth and link.self_issued:
            continue
        if link.subject:
            yield x509.DirectoryName(link.certificate.subject)
        yield from link.names
    leaf = below[0]
    if not any(isinstance(name, x509.DNSName) for name in leaf.names):
        for text in _common_names(leaf.certificate):
            if text.isascii() and "." in text and " " not in text:
                yield x509.DNSName(text)


def _within(name: x509.GeneralName, base: x509.GeneralName, *, unknown: bool) -> bool:
    """Tell whether a name lies in a subtree; `unknown` for the kinds of names that we cannot compare."""
    match name, base:
        case x509.DNSName(), x509.DNSName():
            child, parent = name.value.lower(), base.value.lower().removeprefix(".")
            return parent in ("", child) or child.endswith(f".{parent}")
        case x509.IPAddress(), x509.IPAddress():
            return not isinstance(base.value, type(name.value)) and name.value in base.value  # type: ignore[operator]
        case x509.DirectoryName(), x509.DirectoryName():
            child_key, parent_key = _name_key(name.value), _name_key(base.value)
            return child_key[: len(parent_key)] == parent_key
        case _:
            return unknown


def _shown(name: x509.GeneralName) -> str:
    return repr(str(name.value)[:80])


# -- roots ---------------------------------------------------------------------------------------------------


class Roots:
    """The certificates at which a path may end (RFC 5280 §6.1.1 (d)), and what chains amount to under them.

    Make it once: chains that many hosts share are searched once. `pem` is the text it was made from, `sha256`
    the fingerprint of that text in hexadecimal. `keys` are trusted as if they were roots' (RFC 7671 §5.2.3).
    """

    def __init__(
        self, ders: Iterable[bytes], keys: Iterable[PublicKeyTypes | None] = (), *, pem: bytes = b""
    ) -> None:
        self.pem = pem
        self.sha256 = hashlib.sha256(pem).hexdigest()
        links = [link for der in ders if (link := _link(der)) is not None]
        self._certificates = frozenset(link.certificate for link in links)
        self._keys = tuple(keys)
        self._by_subject = _by_subject(links)
        self.chain = lru_cache(maxsize=4096)(self._chain)

    @classmethod
    def from_pem(cls, pem: bytes) -> Roots:
        """Take the certificates of a PEM file, with or without text between them (RFC 7468 §5).

        Raises
        ------
        ValueError
            No certificate is in it, or one is damaged.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            certificates = x509.load_pem_x509_certificates(pem)
        return cls((_der(certificate) for certificate in certificates), pem=pem)

    @classmethod
    def builtin(cls) -> Roots:
        """Take Mozilla's roots, in the edition of the installed package `certifi`."""
        return _builtin_roots()

    def hold(self, link: _Link) -> bool:
        """Tell whether a path may end here: the certificate is a root, or signed by a key trusted as such."""
        return link.certificate in self._certificates or any(
            is_signed_by(link.certificate, key) for key in self._keys
        )

    def named(self, subject: NameKey) -> Sequence[_Link]:
        """Give the roots of a name."""
        return self._by_subject.get(subject, ())

    def _chain(self, chain: tuple[bytes, ...]) -> _Chain | None:
        """Search the paths of a presented chain, leaf first; None where the leaf cannot be read."""
        if (leaf := _link(chain[0])) is None:
            return None
        others = [_link(der) for der in dict.fromkeys(chain[1:MAX_PRESENTED])]
        search = _Search([link for link in others if link is not None], self)
        search.climb((leaf,))
        junk = others.count(None)
        return _Chain(
            paths=tuple(_complete(links) for links in search.found) or (_dead_end(search),),
            dns_ids=_dns_ids(leaf.certificate),
            common_names=_common_names(leaf.certificate),
            note=f"{junk} of the other certificates cannot be read" if junk else "",
        )


@lru_cache(maxsize=1)
def _builtin_roots() -> Roots:
    return Roots.from_pem(certifi.contents().encode())


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _dead_end(search: _Search) -> _Path:
    """Say why no path reaches a root, by the longest one that was tried."""
    links = search.deepest
    leaf, top = links[0], links[-1]
    if len(links) == 1 and leaf.self_issued:
        if _signed(leaf, leaf):
            return _path(links, PkixState.SELF_SIGNED, f"{leaf.title} is self-signed")
        return _path(links, PkixState.BAD_SIGNATURE, f"{leaf.title} does not bear out its own signature")
    if top in search.forged:
        return _path(
            links, PkixState.BAD_SIGNATURE, f"the signature of {top.title} is not by its issuer's key"
        )
    if top.self_issued:
        return _path(links, PkixState.UNTRUSTED, f"the root {top.title} is not trusted")
    return _path(links, PkixState.UNTRUSTED, f"the issuer of {top.title} is neither sent nor a root")


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
    if not chain:
        return PathCheck(PkixState.ANONYMOUS, ("no certificate",))
    if (held := roots.chain(tuple(chain))) is None:
        return PathCheck(PkixState.MALFORMED, ("the certificate cannot be read",))
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    checks = [_check_dates(path, at) for path in held.paths]
    best = min(checks, key=lambda check: len(check.reasons))
    if best.state is PkixState.VALID or not held.note:
        return best
    return PathCheck(best.state, (*best.reasons, held.note))


def _check_dates(path: _Path, at: datetime) -> PathCheck:
    state, reasons = path.dates(at)
    return PathCheck(state or path.state, (*reasons, path.problem) if path.problem else tuple(reasons))


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
    path = check_path(chain, roots, at)
    held = roots.chain(tuple(chain)) if chain else None
    if held is None:
        return PkixCheck(path.state, "; ".join(path.reasons))
    dns_id_match = _matches(held.dns_ids, host)
    name_from_cn = cn_id and not held.dns_ids and _matches(held.common_names, host)
    trusted = path.state is PkixState.VALID
    name_match = dns_id_match or name_from_cn
    reasons = path.reasons if name_match else (*path.reasons, _misnamed(held, host, cn_id=cn_id))
    return PkixCheck(
        state=PkixState.NAME_MISMATCH if trusted and not name_match else path.state,
        detail="; ".join(reasons),
        trusted=trusted,
        name_match=name_match,
        dns_id_match=dns_id_match,
        name_from_cn=name_from_cn,
    )


def _misnamed(held: _Chain, host: str, *, cn_id: bool) -> str:
    names = held.dns_ids or (held.common_names if cn_id else ())
    if not names:
        return f"the certificate has no name to compare with {host}"
    shown = ", ".join(name[:80] for name in names[:3]) + (", ..." if len(names) > 3 else "")
    return f"the certificate is for {shown}, not for {host}"
