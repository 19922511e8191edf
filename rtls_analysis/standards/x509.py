"""What a certificate says, read as the TLS library of an MTA reads it (RFC 5280 §4, X.690).

Mail is sent every day over certificates with names in old alphabets, addresses of a wrong length, a path length
without an authority. OpenSSL takes them; a reader by the letter of the standard would call them malformed. This
one is as strict as OpenSSL, and no stricter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import (
    MD5,
    SHA1,
    SHA3_224,
    SHA3_256,
    SHA3_384,
    SHA3_512,
    SHA224,
    SHA256,
    SHA384,
    SHA512,
    HashAlgorithm,
)
from cryptography.hazmat.primitives.serialization import load_der_public_key

# -- DER -----------------------------------------------------------------------------------------------------

_BOOLEAN, _INTEGER, _BITS, _OCTETS, _OID, _SEQUENCE, _SET = 0x01, 0x02, 0x03, 0x04, 0x06, 0x30, 0x31
_STRINGS = {
    12: "utf-8",
    18: "latin-1",
    19: "latin-1",
    20: "latin-1",
    22: "latin-1",
    28: "utf-32-be",
    30: "utf-16-be",
}
_IA5 = 22


class Element(NamedTuple):
    """A value of DER: its tag, its content, and both as they stand (X.690 §8.1)."""

    tag: int
    content: bytes
    der: bytes


def elements(data: bytes) -> list[Element]:
    """Split octets into the values that follow each other in them (X.690 §8.1).

    Raises
    ------
    ValueError
        The octets do not come out even, or use a form that no certificate needs.
    """
    found = []
    at, end = 0, len(data)
    while at < end:
        if data[at] & 0x1F == 0x1F or at + 2 > end:
            raise ValueError("not DER: a tag without a length, or of more than one octet")
        length, start = data[at + 1], at + 2
        if length >= 0x80:
            octets = length - 0x80
            length, start = int.from_bytes(data[start : start + octets]), start + octets
            if not 1 <= octets <= 4:
                raise ValueError("not DER: a length without an end, or without bounds")
        if start + length > end:
            raise ValueError("not DER: a value longer than what holds it")
        found.append(Element(data[at], data[start : start + length], data[at : start + length]))
        at = start + length
    return found


def _only(data: bytes, tag: int) -> bytes:
    """Give the content of the one value that the octets are."""
    match elements(data):
        case [Element(found, content, _)] if found == tag:
            return content
    raise ValueError("not DER: not the one value that should be here")


def _integer(content: bytes) -> int:
    if not content:
        raise ValueError("not DER: a number without digits")
    return int.from_bytes(content, signed=True)


def _oid(content: bytes) -> str:
    """Write an object identifier with dots (X.690 §8.19)."""
    if not content or content[-1] & 0x80 or len(content) > 64:
        raise ValueError("not DER: an object identifier without an end, or without bounds")
    arcs, arc = [], 0
    for octet in content:
        arc = arc << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def _bits(content: bytes) -> frozenset[int]:
    """List the named bits that are set, of the first two octets (X.690 §8.6.2)."""
    if not content or content[0] > 7:
        raise ValueError("not DER: a bit string without its first octet")
    return frozenset(
        8 * place + bit for place, octet in enumerate(content[1:3]) for bit in range(8) if octet & 0x80 >> bit
    )


# -- names ---------------------------------------------------------------------------------------------------


class Attribute(NamedTuple):
    """A part of a distinguished name; `text` is None where the value is no text."""

    oid: str
    tag: int
    value: bytes
    text: str | None

    @property
    def key(self) -> tuple[str, bytes]:
        """The form in which parts are compared: case and white space of ASCII folded (RFC 5280 §7.1)."""
        if self.text is None:
            return self.oid, bytes([self.tag]) + self.value
        return self.oid, b" ".join(self.text.encode("utf-8", "surrogatepass").lower().split())


Name = tuple[tuple[Attribute, ...], ...]
NameKey = tuple[frozenset[tuple[str, bytes]], ...]

COMMON_NAME, EMAIL_ADDRESS = "2.5.4.3", "1.2.840.113549.1.9.1"
_SHORT = {
    COMMON_NAME: "CN",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
}
_ESCAPED = re.compile(r'[,+"\\<>;]|^[ #]| $')


def _name(content: bytes) -> Name:
    """Read a distinguished name (RFC 5280 §4.1.2.4)."""
    return tuple(tuple(map(_attribute, elements(_expect(rdn, _SET)))) for rdn in elements(content))


def _attribute(element: Element) -> Attribute:
    kind, value = _exactly(elements(_expect(element, _SEQUENCE)), 2)
    if value.tag in (_BOOLEAN, _INTEGER, _OCTETS, _OID):
        raise ValueError("a name with a value that is no text")
    encoding = _STRINGS.get(value.tag)
    return Attribute(
        oid=_oid(_expect(kind, _OID)),
        tag=value.tag,
        value=value.content,
        text=value.content.decode(encoding) if encoding else None,
    )


def name_key(name: Name) -> NameKey:
    """Give a distinguished name in the form in which names are compared (RFC 5280 §7.1)."""
    return tuple(frozenset(attribute.key for attribute in rdn) for rdn in name)


def name_text(name: Name) -> str:
    """Write a distinguished name for people (RFC 4514): ``CN=mx.example.org,O=Example``."""
    return ",".join("+".join(map(_attribute_text, rdn)) for rdn in reversed(name))


def _attribute_text(attribute: Attribute) -> str:
    if attribute.text is None:
        value = f"#{attribute.value.hex()}"
    else:
        value = _ESCAPED.sub(r"\\\g<0>", attribute.text).replace("\0", r"\00")
    return f"{_SHORT.get(attribute.oid, attribute.oid)}={value}"


class NameKind(IntEnum):
    """The choices of GeneralName that are compared with anything (RFC 5280 §4.2.1.6)."""

    MAIL = 1
    DNS = 2
    DIRECTORY = 4
    URI = 6
    ADDRESS = 7


class GeneralName(NamedTuple):
    """A name of a subject alternative name, or the base of a name constraint: its kind and its octets."""

    kind: int
    value: bytes

    @property
    def text(self) -> str:
        """The name for people and for comparison with host names."""
        match self.kind:
            case NameKind.DIRECTORY:
                return name_text(directory_name(self))
            case NameKind.ADDRESS:
                return self.value.hex(":")
        return self.value.decode("latin-1")


def directory_name(general: GeneralName) -> Name:
    """Read the distinguished name in a general name."""
    return _name(_only(general.value, _SEQUENCE))


def _general_name(element: Element) -> GeneralName:
    kind = element.tag & 0x1F
    if element.tag & 0xC0 != 0x80 or kind > 8:
        raise ValueError("no general name")
    general = GeneralName(kind, element.content)
    if kind == NameKind.DIRECTORY:
        directory_name(general)
    return general


# -- extensions ----------------------------------------------------------------------------------------------

KEY_CERT_SIGN = 5
TLS_USAGES = frozenset({0, 2, 4})  # digitalSignature, keyEncipherment, keyAgreement


class Subtree(NamedTuple):
    """A name constraint (RFC 5280 §4.2.1.10); `bounded` where it has the minimum or maximum that none may have."""

    base: GeneralName
    bounded: bool


@dataclass(slots=True)
class Extensions:
    """What the extensions of a certificate say (RFC 5280 §4.2); None where one is not there."""

    ca: bool | None = None
    path_length: int | None = None
    key_usage: frozenset[int] | None = None
    purposes: frozenset[str] | None = None
    netscape_type: frozenset[int] | None = None
    names: tuple[GeneralName, ...] = ()
    permitted: tuple[Subtree, ...] = ()
    excluded: tuple[Subtree, ...] = ()
    key_id: bytes | None = None
    issuer_key_id: bytes | None = None
    issuer_serial: int | None = None
    issuer_of_issuer: NameKey | None = None
    is_proxy: bool = False  # a proxy certificate (RFC 3820 §3.8), which no TLS client takes
    unknown_critical: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    """Extensions that cannot be read, or are there twice: nobody builds a path over such a certificate."""


def _read_basic_constraints(found: Extensions, value: bytes) -> None:
    found.ca = False
    for element in elements(_only(value, _SEQUENCE)):
        if element.tag == _BOOLEAN:
            found.ca = any(element.content)
        else:
            found.path_length = _integer(_expect(element, _INTEGER))
            if found.path_length < 0:
                raise ValueError("a path length below zero")


def _read_key_usage(found: Extensions, value: bytes) -> None:
    found.key_usage = _bits(_only(value, _BITS))
    if not found.key_usage:
        raise ValueError("no usage at all")


def _read_purposes(found: Extensions, value: bytes) -> None:
    found.purposes = frozenset(_oid(_expect(item, _OID)) for item in elements(_only(value, _SEQUENCE)))


def _read_netscape_type(found: Extensions, value: bytes) -> None:
    found.netscape_type = _bits(_only(value, _BITS))


def _read_names(found: Extensions, value: bytes) -> None:
    found.names = tuple(map(_general_name, elements(_only(value, _SEQUENCE))))


def _read_name_constraints(found: Extensions, value: bytes) -> None:
    for part in elements(_only(value, _SEQUENCE)):
        trees = tuple(map(_subtree, elements(part.content)))
        match part.tag:
            case 0xA0:
                found.permitted = trees
            case 0xA1:
                found.excluded = trees
            case _:
                raise ValueError("neither permitted nor excluded")


def _subtree(element: Element) -> Subtree:
    base, *bounds = elements(_expect(element, _SEQUENCE))
    minimum = [bound for bound in bounds if bound.tag == 0x80]
    return Subtree(
        _general_name(base), len(bounds) > len(minimum) or any(any(bound.content) for bound in minimum)
    )


def _read_key_id(found: Extensions, value: bytes) -> None:
    found.key_id = _only(value, _OCTETS)


def _read_authority_key_id(found: Extensions, value: bytes) -> None:
    for part in elements(_only(value, _SEQUENCE)):
        match part.tag:
            case 0x80:
                found.issuer_key_id = part.content
            case 0xA1:
                names = [_general_name(element) for element in elements(part.content)]
                named = [name_key(directory_name(name)) for name in names if name.kind == NameKind.DIRECTORY]
                found.issuer_of_issuer = named[0] if named else None
            case 0x82:
                found.issuer_serial = _integer(part.content)
            case _:
                raise ValueError("an unknown part")


def _read_distribution_points(found: Extensions, value: bytes) -> None:
    elements(_only(value, _SEQUENCE))


def _read_proxy(found: Extensions, value: bytes) -> None:
    found.is_proxy = True


_READERS: dict[str, tuple[str, Callable[[Extensions, bytes], None]]] = {
    "2.5.29.19": ("basicConstraints", _read_basic_constraints),
    "2.5.29.15": ("keyUsage", _read_key_usage),
    "2.5.29.37": ("extendedKeyUsage", _read_purposes),
    "2.16.840.1.113730.1.1": ("netscape-cert-type", _read_netscape_type),
    "2.5.29.17": ("subjectAltName", _read_names),
    "2.5.29.30": ("nameConstraints", _read_name_constraints),
    "2.5.29.14": ("subjectKeyIdentifier", _read_key_id),
    "2.5.29.35": ("authorityKeyIdentifier", _read_authority_key_id),
    "2.5.29.31": ("cRLDistributionPoints", _read_distribution_points),
    "1.3.6.1.5.5.7.1.14": ("proxyCertInfo", _read_proxy),
}
_KNOWN_CRITICAL = {
    *_READERS,
    "2.5.29.32",  # certificatePolicies; senders of mail ask for no policy, so these four decide nothing
    "2.5.29.33",  # policyMappings
    "2.5.29.36",  # policyConstraints
    "2.5.29.54",  # inhibitAnyPolicy
    "1.3.6.1.5.5.7.1.7",  # address and AS resources (RFC 3779)
    "1.3.6.1.5.5.7.1.8",
} - {"2.5.29.14", "2.5.29.35"}


def _extensions(content: bytes) -> Extensions:
    found = Extensions()
    seen: set[str] = set()
    faults: list[str] = []
    unknown: list[str] = []
    for element in elements(_only(content, _SEQUENCE)):
        kind, *flags, value = elements(_expect(element, _SEQUENCE))
        oid = _oid(_expect(kind, _OID))
        octets = _expect(value, _OCTETS)
        if any(any(_expect(flag, _BOOLEAN)) for flag in flags) and oid not in _KNOWN_CRITICAL:
            unknown.append(oid)
        if oid not in _READERS:
            continue
        title, read = _READERS[oid]
        try:
            read(found, octets)
        except ValueError as error:
            faults.append(f"its {title} cannot be read: {error}")
        if oid in seen:
            faults.append(f"it has two {title}")
        seen.add(oid)
    found.faults, found.unknown_critical = tuple(faults), tuple(unknown)
    return found


# -- certificates --------------------------------------------------------------------------------------------

_EC_KEY = "1.2.840.10045.2.1"


@dataclass(frozen=True, eq=False)
class X509:
    """A certificate, part by part (RFC 5280 §4.1); two are the same where their `der` is. Times are UTC."""

    der: bytes
    body: bytes  # what is signed
    algorithm: bytes  # of the signature, as DER
    same_algorithm: bool  # inside and outside (§4.1.1.2)
    signature: bytes
    version: int
    serial: int
    issuer_name: Name
    not_before: datetime
    not_after: datetime
    subject_name: Name
    subject_der: bytes
    key_info: bytes  # SubjectPublicKeyInfo, as DER
    describes_curve: bool  # the key, in place of naming it, as none may (RFC 5480 §2.1.1)
    extensions: Extensions

    @cached_property
    def subject(self) -> NameKey:
        """The subject in the form in which names are compared."""
        return name_key(self.subject_name)

    @cached_property
    def issuer(self) -> NameKey:
        """The issuer in the form in which names are compared."""
        return name_key(self.issuer_name)

    @property
    def self_issued(self) -> bool:
        """Subject and issuer are the same."""
        return self.subject == self.issuer

    @cached_property
    def key(self) -> PublicKeyTypes | None:
        """The public key; None for one of a kind that we do not know."""
        return load_key(self.key_info)

    @property
    def dns_ids(self) -> tuple[str, ...]:
        """The host names in the subject alternative name."""
        return tuple(name.text for name in self.extensions.names if name.kind == NameKind.DNS)

    @property
    def common_names(self) -> tuple[str, ...]:
        """The common names in the subject."""
        return tuple(part.text for part in self._subject_parts(COMMON_NAME) if part.text is not None)

    @property
    def mail_in_subject(self) -> tuple[GeneralName | None, ...]:
        """The mail addresses in the subject; None for one in another alphabet than it must have."""
        return tuple(
            GeneralName(NameKind.MAIL, part.value) if part.tag == _IA5 else None
            for part in self._subject_parts(EMAIL_ADDRESS)
        )

    def _subject_parts(self, oid: str) -> Iterator[Attribute]:
        return (part for rdn in self.subject_name for part in rdn if part.oid == oid)


def parse_certificate(der: bytes) -> X509:
    """Read a certificate (RFC 5280 §4.1).

    Raises
    ------
    ValueError
        The octets are no certificate, or not that alone.
    """
    body, algorithm, signature = _exactly(elements(_only(der, _SEQUENCE)), 3)
    fields = elements(_expect(body, _SEQUENCE))
    version = 1
    if fields and fields[0].tag == 0xA0:
        version = _integer(_only(fields.pop(0).content, _INTEGER)) + 1
    if len(fields) < 6:
        raise ValueError("a certificate has six fields at least")
    serial, inner, issuer, validity, subject, key_info, *rest = fields
    not_before, not_after = map(_time, _exactly(elements(_expect(validity, _SEQUENCE)), 2))
    _algorithm(algorithm.der)
    key_algorithm, _ = _exactly(elements(_expect(key_info, _SEQUENCE)), 2)
    key_kind, key_parameters = _algorithm(key_algorithm.der)
    extensions = [field.content for field in rest if field.tag == 0xA3]
    return X509(
        der=der,
        body=body.der,
        algorithm=algorithm.der,
        same_algorithm=inner.der == algorithm.der,
        signature=_whole_octets(_expect(signature, _BITS)),
        version=version,
        serial=_integer(_expect(serial, _INTEGER)),
        issuer_name=_name(_expect(issuer, _SEQUENCE)),
        not_before=not_before,
        not_after=not_after,
        subject_name=_name(_expect(subject, _SEQUENCE)),
        subject_der=subject.der,
        key_info=key_info.der,
        describes_curve=key_kind == _EC_KEY and key_parameters[:1] == b"\x30",
        extensions=_extensions(extensions[0]) if extensions else Extensions(),
    )


def _time(element: Element) -> datetime:
    """Read a time of the validity (RFC 5280 §4.1.2.5)."""
    text = element.content.decode("ascii")
    match element.tag, len(text):
        case 0x17, 13:
            text = ("19" if text >= "5" else "20") + text
        case 0x18, 15:
            pass
        case _:
            raise ValueError("a time in a form that no certificate has")
    if not text[:14].isdigit() or text[14] != "Z":
        raise ValueError("a time in a form that no certificate has")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _whole_octets(bits: bytes) -> bytes:
    """Give the octets of a bit string; none where it does not end with one, as no signature does."""
    return bits[1:] if bits[:1] == b"\0" else b""


def _expect(element: Element, tag: int) -> bytes:
    if element.tag != tag:
        raise ValueError("not DER: another kind of value than should be here")
    return element.content


T = TypeVar("T")


def _exactly(items: list[T], count: int) -> list[T]:
    if len(items) != count:
        raise ValueError(f"{len(items)} values where {count} should be")
    return items


# -- keys and signatures -------------------------------------------------------------------------------------


def load_key(key_info: bytes) -> PublicKeyTypes | None:
    """Load a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7); None where the octets are none, or of an unknown kind."""
    try:
        return load_der_public_key(key_info)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


_SHA2: tuple[HashAlgorithm, ...] = (SHA224(), SHA256(), SHA384(), SHA512())
_SHA3: tuple[HashAlgorithm, ...] = (SHA3_224(), SHA3_256(), SHA3_384(), SHA3_512())
_RSA, _EC, _NIST = "1.2.840.113549.1.1", "1.2.840.10045.4", "2.16.840.1.101.3.4"


def _numbered(arc: str, numbers: Sequence[int], digests: Sequence[HashAlgorithm]) -> dict[str, HashAlgorithm]:
    return {f"{arc}.{number}": digest for number, digest in zip(numbers, digests, strict=True)}


_DIGESTS = {
    "1.2.840.113549.2.5": MD5(),
    "1.3.14.3.2.26": SHA1(),
    **_numbered(f"{_NIST}.2", (4, 1, 2, 3, 7, 8, 9, 10), _SHA2 + _SHA3),
}
_RSA_DIGESTS = {
    "1.3.14.3.2.29": SHA1(),
    **_numbered(_RSA, (4, 5, 14, 11, 12, 13), (MD5(), SHA1(), *_SHA2)),
    **_numbered(f"{_NIST}.3", (13, 14, 15, 16), _SHA3),
}
_EC_DIGESTS = {
    f"{_EC}.1": SHA1(),
    **_numbered(f"{_EC}.3", (1, 2, 3, 4), _SHA2),
    **_numbered(f"{_NIST}.3", (9, 10, 11, 12), _SHA3),
}
_DSA_DIGESTS = {"1.2.840.10040.4.3": SHA1(), **_numbered(f"{_NIST}.3", (1, 2, 3, 4), _SHA2)}
_RSA_PSS = "1.2.840.113549.1.1.10"


def is_signed_by(certificate: X509, key: PublicKeyTypes | None) -> bool:
    """Tell whether a key made the signature of a certificate (RFC 5280 §6.1.3 (a)(1)).

    Notes
    -----
    Old digests (SHA-1, MD5) and small keys count as signatures, as they do for an MTA at OpenSSL's security
    level 0: that they are weak is told by the key and the certificate, not by a verdict of "untrusted".
    """
    if not certificate.same_algorithm:
        return False
    signature, body = certificate.signature, certificate.body
    try:
        oid, parameters = _algorithm(certificate.algorithm)
        match key:
            case rsa.RSAPublicKey() if oid == _RSA_PSS:
                key.verify(signature, body, *_pss(parameters))
            case rsa.RSAPublicKey():
                key.verify(signature, body, padding.PKCS1v15(), _RSA_DIGESTS[oid])
            case ec.EllipticCurvePublicKey():
                key.verify(signature, body, ec.ECDSA(_EC_DIGESTS[oid]))
            case dsa.DSAPublicKey():
                key.verify(signature, body, _DSA_DIGESTS[oid])
            case ed25519.Ed25519PublicKey() if oid == "1.3.101.112":
                key.verify(signature, body)
            case ed448.Ed448PublicKey() if oid == "1.3.101.113":
                key.verify(signature, body)
            case _:
                return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, KeyError):
        return False
    return True


def _pss(parameters: bytes) -> tuple[padding.PSS, HashAlgorithm]:
    """Read the parameters of RSASSA-PSS (RFC 4055 §3.1)."""
    digest: HashAlgorithm = SHA1()
    mask: HashAlgorithm = SHA1()
    salt = 20
    for part in elements(_only(parameters, _SEQUENCE)):
        match part.tag:
            case 0xA0:
                digest = _DIGESTS[_algorithm(part.content)[0]]
            case 0xA1:
                mask = _DIGESTS[_algorithm(_algorithm(part.content)[1])[0]]
            case 0xA2:
                salt = _integer(_only(part.content, _INTEGER))
    if not 0 <= salt <= 0xFFFF:
        raise ValueError("a salt longer than a key")
    return padding.PSS(padding.MGF1(mask), salt), digest


def _algorithm(der: bytes) -> tuple[str, bytes]:
    """Read an AlgorithmIdentifier: its name, and its parameters as DER (RFC 5280 §4.1.1.2)."""
    kind, *parameters = elements(_only(der, _SEQUENCE))
    return _oid(_expect(kind, _OID)), parameters[0].der if parameters else b""
