from __future__ import annotations

import datetime as dt

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtls_analysis.standards.x509 import (
    X509,
    Attribute,
    elements,
    is_signed_by,
    load_key,
    name_key,
    name_text,
    parse_certificate,
)
from tests.standards.conftest import AT, Cert, Forge, oid, public_key, tlv

FORGE = Forge(
    {
        "root": Cert(ca=True),
        "leaf": Cert("root", names=("dns:mx.example.org", "ip:192.0.2.1", "dir:x", "mail:a@b.example")),
        "rsa": Cert(ca=True, kind="rsa"),
        "old": Cert(version=1, days=(-20_000, 60)),
        "late": Cert(days=(-30, 1_000_000)),
    }
)

# -- DER -----------------------------------------------------------------------------------------------------

DER = [
    ("nothing", b"", []),
    ("null", b"\x05\x00", [(5, b"")]),
    ("two", b"\x02\x01\x07\x05\x00", [(2, b"\x07"), (5, b"")]),
    ("length of two octets", b"\x04\x81\x80" + bytes(128), [(4, bytes(128))]),
    ("length longer than it need be", b"\x04\x82\x00\x01x", [(4, b"x")]),
    ("no length", b"\x05", None),
    ("longer than what is there", b"\x04\x02x", None),
    ("length without an end", b"\x30\x80\x00\x00", None),
    ("length of five octets", b"\x04\x85\x00\x00\x00\x00\x01x", None),
    ("length cut off", b"\x04\x82\x01", None),
    ("tag of two octets", b"\x1f\x81\x00\x00", None),
]


@pytest.mark.parametrize(("data", "found"), [pytest.param(*row, id=why) for why, *row in DER])
def test_elements(data: bytes, found: list[tuple[int, bytes]] | None) -> None:
    """Values of DER are split as they stand; what does not come out even raises."""
    if found is None:
        with pytest.raises(ValueError, match="not DER"):
            elements(data)
    else:
        assert [(element.tag, element.content) for element in elements(data)] == found
        assert b"".join(element.der for element in elements(data)) == data


@given(st.lists(st.tuples(st.sampled_from([2, 4, 5, 0x30, 0xA3]), st.binary(max_size=300)), max_size=5))
def test_what_is_written_is_read_back(values: list[tuple[int, bytes]]) -> None:
    """What the forge of the tests writes is what the reader finds."""
    data = b"".join(tlv(tag, content) for tag, content in values)
    assert [(element.tag, element.content) for element in elements(data)] == values


# -- certificates --------------------------------------------------------------------------------------------


def test_parse_certificate() -> None:
    """A certificate is read part by part."""
    leaf, root = parse_certificate(FORGE.der("leaf")), parse_certificate(FORGE.der("root"))
    assert (leaf.version, leaf.not_before, leaf.not_after) == (
        3,
        AT - dt.timedelta(days=30),
        AT + dt.timedelta(days=60),
    )
    assert leaf.issuer == root.subject != leaf.subject
    assert root.self_issued
    assert not leaf.self_issued
    assert leaf.dns_ids == ("mx.example.org",)
    assert leaf.common_names == ("leaf",)
    assert [name.text for name in leaf.extensions.names] == [
        "mx.example.org",
        "c0:00:02:01",
        "CN=x",
        "a@b.example",
    ]
    assert (leaf.extensions.ca, root.extensions.ca) == (False, True)
    assert root.extensions.key_usage == {5, 6}
    assert leaf.extensions.issuer_key_id == root.extensions.key_id
    assert leaf.key_info == public_key(FORGE.key("leaf"))
    assert is_signed_by(leaf, root.key)
    assert not is_signed_by(leaf, leaf.key)


def test_times_of_both_forms() -> None:
    """A year before 2050 is written with two digits, a later one with four (RFC 5280 §4.1.2.5)."""
    assert parse_certificate(FORGE.der("old")).not_before == AT - dt.timedelta(days=20_000)
    assert parse_certificate(FORGE.der("late")).not_after == AT + dt.timedelta(days=1_000_000)


TIMES = [b"\x17\x0b2611241200Z", b"\x17\x0d261124120000+", b"\x17\x0d261324120000Z", b"\x17\x0d26112412000 Z",
         b"\x18\x0f20261124120000+", b"\x18\x0d261124120000Z", b"\x17\x11261124120000+0100", b"\x04\x0d261124120000Z",
         b"\x18\x1120261124120000.0Z", b"\x17\x00"]  # fmt: skip


@pytest.mark.parametrize("time", TIMES)
def test_times_of_other_forms(time: bytes) -> None:
    """A time in a form that OpenSSL does not take makes no certificate."""
    good = next(
        element.der
        for element in elements(elements(elements(FORGE.der("leaf"))[0].content)[0].content)
        if element.content.startswith(b"\x17")
    )
    bad = tlv(0x30, time, elements(elements(good)[0].content)[1].der)
    body = elements(elements(FORGE.der("leaf"))[0].content)
    spoiled = tlv(0x30, tlv(0x30, body[0].content.replace(good, bad)), *(element.der for element in body[1:]))
    with pytest.raises(ValueError):  # noqa: PT011  whatever the time is not, the certificate is none
        parse_certificate(spoiled)


def test_trailing_octets() -> None:
    """A certificate and more is no certificate, as for OpenSSL in a handshake and in a TLSA record."""
    with pytest.raises(ValueError, match="not DER"):
        parse_certificate(FORGE.der("leaf") + b"\0")


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """Give a certificate with a few octets changed, one value put in the place of another, or cut off."""
    data = bytearray(FORGE.der(draw(st.sampled_from(["leaf", "root", "old"]))))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data) - 1))
        data[at] = draw(st.sampled_from([0, 1, 2, 3, 5, 6, 0x30, 0x31, 0x7F, 0x80, 0x82, 0xA0, 0xA3, 0xFF]))
    return bytes(data[: draw(st.integers(len(data) // 2, len(data) * 3))])


@given(st.one_of(st.binary(max_size=200), mutations(), mutations().map(lambda der: der + der)))
@example(tlv(0x30, tlv(0x30), tlv(0x30), tlv(3)))
@example(b"\x30\x80" * 50_000)
@settings(max_examples=500, deadline=None)
def test_any_octets(der: bytes) -> None:
    """Any octets are a certificate of which everything can be asked, or raise ValueError."""
    try:
        certificate = parse_certificate(der)
    except ValueError:
        return
    assert certificate.der == der
    assert len(certificate.subject) == len(certificate.subject_name)
    assert len(certificate.issuer) == len(certificate.issuer_name)
    assert all(isinstance(name, str) for name in (*certificate.dns_ids, *certificate.common_names))
    assert all(isinstance(name.text, str) for name in certificate.extensions.names)
    assert len(certificate.mail_in_subject) <= sum(map(len, certificate.subject_name))
    assert isinstance(name_text(certificate.subject_name), str)
    assert is_signed_by(certificate, certificate.key) in (True, False)


# -- names ---------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def named(text: str, tag: int = 12) -> tuple[tuple[Attribute, ...], ...]:
    return ((Attribute("2.5.4.3", tag, text.encode(), text),),)


@given(texts)
def test_names_are_folded(text: str) -> None:
    """Case and white space of ASCII make no difference between names, the alphabet none, anything else does."""
    folded = name_key(named(text))
    spread = text.replace(" ", " \t ")
    assert name_key(named(f"  {spread}\n", 30)) == folded
    assert name_key(named(text.encode().upper().decode())) == folded
    assert name_key(named(f"{text}x")) != folded
    assert name_key(named(f"{text}é")) != folded


# -- signatures ----------------------------------------------------------------------------------------------

_RSA, _EC, _NIST = "1.2.840.113549.1.1", "1.2.840.10045.4", "2.16.840.1.101.3.4.3"
# kind of key, algorithm, digest that it stands for
ALGORITHMS: list[tuple[str, str, hashes.HashAlgorithm]] = [
    ("rsa", f"{_RSA}.4", hashes.MD5()),
    ("rsa", f"{_RSA}.5", hashes.SHA1()),
    ("rsa", "1.3.14.3.2.29", hashes.SHA1()),
    ("rsa", f"{_RSA}.14", hashes.SHA224()),
    ("rsa", f"{_RSA}.11", hashes.SHA256()),
    ("rsa", f"{_RSA}.12", hashes.SHA384()),
    ("rsa", f"{_RSA}.13", hashes.SHA512()),
    ("rsa", f"{_NIST}.13", hashes.SHA3_224()),
    ("rsa", f"{_NIST}.14", hashes.SHA3_256()),
    ("rsa", f"{_NIST}.15", hashes.SHA3_384()),
    ("rsa", f"{_NIST}.16", hashes.SHA3_512()),
    ("root", f"{_EC}.1", hashes.SHA1()),
    ("root", f"{_EC}.3.1", hashes.SHA224()),
    ("root", f"{_EC}.3.2", hashes.SHA256()),
    ("root", f"{_EC}.3.3", hashes.SHA384()),
    ("root", f"{_EC}.3.4", hashes.SHA512()),
    ("root", f"{_NIST}.9", hashes.SHA3_224()),
    ("root", f"{_NIST}.12", hashes.SHA3_512()),
]


def signed(signer: str, algorithm: str, digest: hashes.HashAlgorithm) -> X509:
    """Sign the body of a certificate by another algorithm than it had."""
    body, _, _ = elements(elements(FORGE.der("leaf"))[0].content)
    named_algorithm = tlv(0x30, oid(algorithm))
    fields = elements(body.content)
    fields[2] = elements(named_algorithm)[0]
    content = tlv(0x30, *(field.der for field in fields))
    key = FORGE.key(signer)
    match key:
        case rsa.RSAPrivateKey():
            signature = key.sign(content, padding.PKCS1v15(), digest)
        case ec.EllipticCurvePrivateKey():
            signature = key.sign(content, ec.ECDSA(digest))
        case _:
            raise AssertionError(key)
    return parse_certificate(tlv(0x30, content, named_algorithm, tlv(3, b"\0", signature)))


@pytest.mark.parametrize(("signer", "algorithm", "digest"), ALGORITHMS)
def test_algorithms(signer: str, algorithm: str, digest: hashes.HashAlgorithm) -> None:
    """A signature counts with the digest that its algorithm names, by its own kind of key, and no other."""
    certificate = signed(signer, algorithm, digest)
    key, other = (load_key(public_key(FORGE.key(name))) for name in (signer, "leaf"))
    assert is_signed_by(certificate, key)
    assert not is_signed_by(certificate, other)
    assert not is_signed_by(certificate, None)
    mistaken = hashes.SHA256() if digest.name != "sha256" else hashes.SHA384()
    assert not is_signed_by(signed(signer, algorithm, mistaken), key)


@pytest.mark.parametrize(
    "algorithm", ["1.2.3.4", f"{_RSA}.2", f"{_EC}.3.2", f"{_NIST}.2", f"{_RSA}.10", "1.3.101.112"]
)
def test_algorithms_of_another_kind(algorithm: str) -> None:
    """An RSA signature under the name of another algorithm is none."""
    key = load_key(public_key(FORGE.key("rsa")))
    assert not is_signed_by(signed("rsa", algorithm, hashes.SHA256()), key)


PSS = [b"", b"\x05\x00", tlv(0x30), tlv(0x30, tlv(0xA2, b"\x02\x01\xff")), tlv(0x30, tlv(0xA2, b"\x02\x09" + b"\x7f" * 9)),
       tlv(0x30, tlv(0xA0, b"\x30\x00")), tlv(0x30, tlv(0xA1, tlv(0x30, oid("1.2.3"))))]  # fmt: skip


@pytest.mark.parametrize("parameters", PSS)
def test_hostile_pss(parameters: bytes) -> None:
    """Parameters of RSASSA-PSS of any shape make a signature that is none, and nothing worse."""
    body, _, signature = elements(elements(FORGE.der("leaf"))[0].content)
    fields = elements(body.content)
    algorithm = tlv(0x30, oid(f"{_RSA}.10"), parameters)
    content = tlv(0x30, *(field.der for field in fields[:2]), algorithm, *(field.der for field in fields[3:]))
    certificate = parse_certificate(tlv(0x30, content, algorithm, signature.der))
    assert certificate.same_algorithm
    assert not is_signed_by(certificate, load_key(public_key(FORGE.key("rsa"))))
