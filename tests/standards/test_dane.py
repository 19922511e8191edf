from __future__ import annotations

import hashlib
from itertools import product
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtls_analysis.standards import certificates
from rtls_analysis.standards.certificates import MAX_SIGNATURES
from rtls_analysis.standards.dane import (
    MAX_AUTHORITIES,
    DaneState,
    TlsaRecord,
    TlsaState,
    check_dane,
    check_tlsa,
    dane_names,
    tlsa_bases,
    tlsa_name,
)
from rtls_analysis.standards.dns_answer import DnsSecurity
from rtls_analysis.standards.x509 import X509, is_signed_by, parse_certificate
from tests.standards.conftest import AT, CLIENT_AUTH, MX, Cert, DaneServers, Forge

LEAF = ("dns:mx.example.org",)
FORGE = Forge(
    {
        "root": Cert(ca=True),
        "mid": Cert("root", ca=True),
        "leaf": Cert("mid", names=LEAF),
        "stranger": Cert(ca=True),
        "own": Cert(names=LEAF),
        "own_ca": Cert(ca=True, names=LEAF, usage=None),
        "of_own_ca": Cert("own_ca", names=LEAF),
        "expired": Cert("mid", names=LEAF, days=(-30, -1)),
        "early": Cert("mid", names=LEAF, days=(1, 30)),
        "late_mid": Cert("root", ca=True, days=(-30, -1)),
        "of_late_mid": Cert("late_mid", names=LEAF),
        "late_root": Cert(ca=True, days=(-30, -1)),
        "mid_of_late": Cert("late_root", ca=True),
        "of_mid_of_late": Cert("mid_of_late", names=LEAF),
        "elsewhere": Cert("mid", names=("dns:mx.example.net",)),
        "nameless": Cert("mid", common_name=""),
        "cn_only": Cert("mid", common_name=MX),
        "cn_beside": Cert("mid", common_name=MX, names=("dns:mx.example.net",)),
        "wild": Cert("mid", names=("dns:*.example.org",)),
        "forged": Cert("mid", names=LEAF, signer="stranger"),
        "client": Cert("mid", names=LEAF, purposes=(CLIENT_AUTH,)),
        "no_ca": Cert("root", ca=False),
        "of_no_ca": Cert("no_ca", names=LEAF),
        "renewed_mid": Cert("root", ca=True, common_name="mid", key="mid", serial=2),
        "cross_mid": Cert("stranger", ca=True, common_name="mid", key="mid"),
        "rsa_root": Cert(ca=True, kind="rsa"),
        "of_rsa": Cert("rsa_root", names=LEAF, kind="rsa"),
        "junk": b"junk",
    }
)


def tlsa(text: str) -> TlsaRecord:
    """Write a record of a certificate by its name, ``3 1 1 leaf``, or with data as it is, ``3 1 1 =aabb``."""
    usage, selector, matching, what = text.split()
    if what.startswith("="):
        return TlsaRecord(int(usage), int(selector), int(matching), bytes.fromhex(what[1:]))
    der = FORGE.der(what)
    data = der if selector == "0" else parse_certificate(der).key_info
    if matching != "0":
        data = hashlib.new("sha256" if matching == "1" else "sha512", data).digest()
    return TlsaRecord(int(usage), int(selector), int(matching), data)


# -- chain against records -----------------------------------------------------------------------------------

KINDS = [f"{selector} {matching}" for selector, matching in product("01", "012")]

# why, chain as sent, records, state, words of the detail
CHAINS: list[tuple[str, str, list[str], str, str]] = [
    *((f"3 {kind} of the leaf", "leaf mid root", [f"3 {kind} leaf"], "match", "") for kind in KINDS),
    *((f"3 {kind} of an issuer", "leaf mid root", [f"3 {kind} mid"], "mismatch", "not the certificate that was sent")
      for kind in KINDS),
    *((f"2 {kind} of the issuer, depth 1", "leaf mid root", [f"2 {kind} mid"], "match", "") for kind in KINDS),
    *((f"2 {kind} of the root, depth 2", "leaf mid root", [f"2 {kind} root"], "match", "") for kind in KINDS),
    *((f"2 {kind} of the leaf, depth 0", "leaf mid root", [f"2 {kind} leaf"], "mismatch", "") for kind in KINDS),
    *((f"2 {kind} of a self-signed leaf", "own", [f"2 {kind} own"], "mismatch", "") for kind in KINDS if kind != "1 0"),
    ("2 1 0 of a self-signed leaf: its own key signed it", "own", ["2 1 0 own"], "match", ""),
    *((f"2 {kind} of a stranger", "leaf mid root", [f"2 {kind} stranger"], "mismatch", "") for kind in KINDS),
    ("RSA", "of_rsa rsa_root", ["3 1 1 of_rsa"], "match", ""),
    ("RSA authority", "of_rsa rsa_root", ["2 1 2 rsa_root"], "match", ""),
    # is the authority sent?
    ("authority not sent", "leaf", ["2 0 1 mid"], "mismatch", "2 0 1: no certificate of this authority was sent"),
    ("the root is not sent", "leaf mid", ["2 1 1 root"], "mismatch", "no certificate of this authority was sent"),
    ("given in full in place of sent, depth 1", "leaf", ["2 0 0 mid"], "match", ""),
    ("given in full in place of sent, depth 2", "leaf mid", ["2 0 0 root"], "match", ""),
    ("given in full, the one between is missing", "leaf", ["2 0 0 root"], "mismatch", "neither sent nor a root"),
    ("given as a key, depth 1", "leaf", ["2 1 0 mid"], "match", ""),
    ("given as a key, depth 2", "leaf mid", ["2 1 0 root"], "match", ""),
    ("given as a key, the one between is missing", "leaf", ["2 1 0 root"], "mismatch", "neither sent nor a root"),
    ("given as a key, RSA", "of_rsa", ["2 1 0 rsa_root"], "match", ""),
    ("given as a key of another", "leaf mid", ["2 1 0 stranger"], "mismatch", "neither sent nor a root"),
    ("sent, but no issuer of the leaf", "leaf mid stranger", ["2 0 1 stranger"], "mismatch", "neither sent nor"),
    ("in wrong order", "leaf root mid", ["2 0 1 root"], "match", ""),
    ("another certificate of that key", "leaf renewed_mid", ["2 1 1 mid"], "match", ""),
    ("another certificate of that key, by certificate", "leaf renewed_mid", ["2 0 1 mid"], "mismatch", "was sent"),
    ("cross-signed, either issuer", "leaf cross_mid stranger", ["2 0 1 stranger"], "match", ""),
    # dates
    ("expired leaf, usage 3", "expired mid root", ["3 1 1 expired"], "match", ""),
    ("expired leaf, usage 2", "expired mid root", ["2 1 1 mid"], "mismatch", "2 1 1: 'expired' expired on 2026-11-23"),
    ("leaf not yet valid, usage 3", "early mid", ["3 0 1 early"], "match", ""),
    ("leaf not yet valid, usage 2", "early mid", ["2 0 1 mid"], "mismatch", "'early' is not valid before"),
    ("expired authority, certified by another", "of_late_mid late_mid root", ["2 0 1 late_mid"], "match", ""),
    ("the same, given in full", "of_late_mid", ["2 0 0 late_mid"], "match", ""),
    ("the same, as a key", "of_late_mid late_mid", ["2 1 0 late_mid"], "match", ""),
    ("expired root", "of_mid_of_late mid_of_late late_root", ["2 0 1 late_root"], "mismatch", "'late_root' expired"),
    ("expired root, given in full", "of_mid_of_late mid_of_late", ["2 0 0 late_root"], "mismatch", "'late_root' exp"),
    ("expired root, as a key", "of_mid_of_late mid_of_late", ["2 1 0 late_root"], "match", ""),
    ("expired below the authority", "of_late_mid late_mid root", ["2 0 1 root"], "mismatch", "'late_mid' expired"),
    ("expired above the authority", "of_mid_of_late mid_of_late late_root", ["2 0 1 mid_of_late"], "match", ""),
    # names
    ("another name, usage 3", "elsewhere mid", ["3 1 1 elsewhere"], "match", ""),
    ("another name, usage 2", "elsewhere mid", ["2 1 1 mid"], "mismatch", "2 1 1: the certificate is not for mx.example.org"),
    ("no name, usage 3", "nameless mid", ["3 1 1 nameless"], "match", ""),
    ("no name, usage 2", "nameless mid", ["2 1 1 mid"], "mismatch", "not for mx.example.org"),
    ("common name, usage 2", "cn_only mid", ["2 1 1 mid"], "match", ""),
    ("common name beside a DNS-ID, usage 2", "cn_beside mid", ["2 1 1 mid"], "mismatch", "not for mx.example.org"),
    ("wildcard, usage 2", "wild mid", ["2 1 1 mid"], "match", ""),
    # the rest of the path
    ("self-signed, usage 3", "own", ["3 1 1 own"], "match", ""),
    ("self-signed, sent twice, usage 2", "own own", ["2 0 1 own"], "mismatch", "2 0 1: no certificate of this authority"),
    ("below a self-signed server certificate", "of_own_ca own_ca", ["2 0 1 own_ca"], "match", ""),
    ("forged, usage 3", "forged mid", ["3 0 1 forged"], "match", ""),
    ("forged, usage 2", "forged mid", ["2 0 1 mid"], "mismatch", "2 0 1: the signature of 'forged' is not by"),
    ("for clients, usage 3", "client mid", ["3 0 1 client"], "match", ""),
    ("for clients, usage 2", "client mid", ["2 0 1 mid"], "mismatch", "not for TLS servers"),
    ("no authority, as a key", "of_no_ca no_ca", ["2 1 0 no_ca"], "mismatch", "'no_ca' may not sign certificates"),
    ("no authority, as a key, not sent", "of_no_ca", ["2 1 0 no_ca"], "match", ""),
    ("no authority", "of_no_ca no_ca", ["2 0 1 no_ca"], "mismatch", "'no_ca' may not sign certificates"),
    # several records
    ("one of several", "leaf mid", ["3 1 1 stranger", "3 0 1 own", "3 1 1 leaf"], "match", ""),
    ("none of several", "leaf mid", ["3 1 1 own", "2 1 1 stranger"], "mismatch", "3 1 1: not the certificate that was "
     "sent; 2 1 1: no certificate of this authority was sent"),
    ("a matching one of usage 2 beside", "leaf mid", ["3 1 1 own", "2 1 1 mid"], "match", ""),
    ("stale 3 1 2 beside a matching 3 1 1", "leaf mid", ["3 1 1 leaf", "3 1 2 own"], "mismatch", "3 1 2: not the"),
    ("stale 3 0 2 beside a matching 3 1 1", "leaf mid", ["3 1 1 leaf", "3 0 2 own"], "match", ""),
    ("stale 2 1 2 beside a matching 3 1 1", "leaf mid", ["3 1 1 leaf", "2 1 2 own"], "match", ""),
    ("stale 2 1 2 beside a matching 2 1 1", "leaf mid", ["2 1 1 mid", "2 1 2 own"], "mismatch", "2 1 2: no cert"),
    ("stale 2 1 1 beside a matching 2 0 1", "leaf mid", ["2 0 1 mid", "2 1 1 own"], "match", ""),
    ("stale 3 1 1 beside a matching 3 1 2", "leaf mid", ["3 1 1 own", "3 1 2 leaf"], "match", ""),
    ("matching 3 1 0 beside a stale 3 1 2", "leaf mid", ["3 1 0 leaf", "3 1 2 own"], "match", ""),
    ("stale 3 1 0 beside a matching 3 1 1", "leaf mid", ["3 1 0 own", "3 1 1 leaf"], "match", ""),
    ("3 1 2 of a wrong length beside a matching 3 1 1", "leaf mid", ["3 1 1 leaf", "3 1 2 =aabb"], "match", ""),
    ("matching 3 1 1 beside an unknown matching type", "leaf mid", ["3 1 1 leaf", "3 1 9 =aabb"], "match", ""),
    ("unusable beside a mismatch", "leaf mid", ["3 1 1 own", "3 1 2 =aabb"], "mismatch", "3 1 1: not the cert"),
    ("a full one that is no certificate, beside", "leaf mid", ["3 0 0 =3000", "3 0 1 leaf"], "match", ""),
    ("a full one that is no key, beside", "leaf mid", ["2 1 0 =3000", "2 1 1 mid"], "match", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("chain", "records", "state", "words"), [pytest.param(*row, id=why) for why, *row in CHAINS]
)
def test_check_dane(chain: str, records: list[str], state: str, words: str) -> None:
    """A chain matches where one record does that counts; the detail says why none did."""
    usable = [tlsa(record) for record in records]
    check = check_dane(FORGE.chain(chain), TlsaState.USABLE, usable, (MX,), AT)
    assert check.state == state
    assert words in check.detail
    assert (check.state is DaneState.MATCH) == (not check.detail)
    assert (check.matched in [record.text for record in usable]) == (check.state is DaneState.MATCH)


@pytest.mark.parametrize(
    ("chain", "records", "state"), [pytest.param(*row[1:4], id=row[0]) for row in CHAINS]
)
def test_openssl_agrees(dane_servers: DaneServers, chain: str, records: list[str], state: str) -> None:
    """`openssl s_client -dane_tlsa_rrdata` says the same of every chain and its records."""
    key = FORGE.key(chain.split()[0])
    said = dane_servers.ask(FORGE.chain(chain), key, [tlsa(record).text for record in records], MX)
    assert said.valid == (state == DaneState.MATCH), said.words


def test_any_name_is_enough() -> None:
    """A certificate under a DANE-TA record need have but one of the names (RFC 7672 §3.2.2)."""
    for names, state in (((MX,), "mismatch"), ((MX, "mx.example.net"), "match"), ((), "mismatch")):
        check = check_dane(FORGE.chain("elsewhere mid"), TlsaState.USABLE, [tlsa("2 1 1 mid")], names, AT)
        assert check.state == state


# why, chain (None where no handshake was seen), TLSA state, records, state
WITHOUT_CHAIN = [
    ("no records", "leaf mid", "none", [], "none"),
    ("insecure records", "leaf mid", "insecure", ["3 1 1 leaf"], "none"),
    ("lookup failed", "leaf mid", "error", [], "error"),
    ("resolver not trusted", "leaf mid", "not_tested", ["3 1 1 leaf"], "not_tested"),
    ("none usable", "leaf mid", "unusable", ["3 1 1 =aabb"], "unusable"),
    ("no handshake", None, "usable", ["3 1 1 leaf"], "not_tested"),
    ("no handshake, none usable", None, "unusable", ["3 1 1 =aabb"], "unusable"),
    ("no handshake, no records", None, "none", [], "none"),
    ("no handshake, lookup failed", None, "error", [], "error"),
    ("anonymous cipher", "", "usable", ["3 1 1 leaf"], "mismatch"),
    ("anonymous cipher, none usable", "", "unusable", ["0 0 1 leaf"], "unusable"),
    ("junk for a leaf, by key", "junk mid", "usable", ["3 1 1 leaf"], "mismatch"),
    ("junk for a leaf, by its octets", "junk mid", "usable", ["3 0 1 junk"], "match"),
    ("junk for a leaf, under an authority", "junk mid", "usable", ["2 0 1 mid"], "mismatch"),
    ("junk beside", "leaf junk mid", "usable", ["2 1 1 mid"], "match"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("chain", "tlsa_state", "records", "state"), [pytest.param(*row, id=why) for why, *row in WITHOUT_CHAIN]
)
def test_check_dane_without(chain: str | None, tlsa_state: str, records: list[str], state: str) -> None:
    """What the records or the chain do not allow to be told is told apart from a mismatch."""
    sent = None if chain is None else FORGE.chain(chain)
    check = check_dane(sent, TlsaState(tlsa_state), [tlsa(record) for record in records], (MX,), AT)
    assert check.state == state
    assert check.detail or state in ("none", "not_tested", "match")


# -- records -------------------------------------------------------------------------------------------------

S256, S512 = "aa" * 32, "aa" * 64
# why, DNSSEC state, records, state, word of what is wrong with the records
RRSETS = [
    ("none, secure denial", "secure", [], "none", ""),
    ("none, insecure denial", "insecure", [], "none", ""),
    ("insecure", "insecure", [f"3 1 1 ={S256}"], "insecure", ""),
    ("lookup failed", "error", [], "error", ""),
    ("bogus", "error", [f"3 1 1 ={S256}"], "error", ""),
    ("resolver not trusted", "not_tested", [f"3 1 1 ={S256}"], "not_tested", ""),
    *((f"3 {selector} 1", "secure", [f"3 {selector} 1 ={S256}"], "usable", "") for selector in "01"),
    *((f"2 {selector} 2", "secure", [f"2 {selector} 2 ={S512}"], "usable", "") for selector in "01"),
    ("3 0 0", "secure", ["3 0 0 leaf"], "usable", ""),
    ("2 1 0", "secure", ["2 1 0 mid"], "usable", ""),
    ("PKIX-TA", "secure", [f"0 0 1 ={S256}"], "unusable", "usage 0 is not for SMTP"),
    ("PKIX-EE", "secure", [f"1 1 1 ={S256}"], "unusable", "usage 1 is not for SMTP"),
    ("PrivCert", "secure", [f"255 1 1 ={S256}"], "unusable", "usage 255 is not for SMTP"),
    ("unknown usage", "secure", [f"4 1 1 ={S256}"], "unusable", "usage 4 is not for SMTP"),
    ("unknown selector", "secure", [f"3 2 1 ={S256}"], "unusable", "selector 2 is unknown"),
    ("unknown matching type", "secure", [f"3 1 3 ={S256}"], "unusable", "matching type 3 is unknown"),
    ("31 octets for SHA2-256", "secure", [f"3 1 1 ={S256[2:]}"], "unusable", "its digest has 31 octets, not 32"),
    ("33 octets for SHA2-256", "secure", [f"3 1 1 ={S256}aa"], "unusable", "its digest has 33 octets, not 32"),
    ("SHA2-512 cut to 32 octets", "secure", [f"3 1 2 ={S256}"], "unusable", "its digest has 32 octets, not 64"),
    ("SHA2-256 with 64 octets", "secure", [f"3 1 1 ={S512}"], "unusable", "its digest has 64 octets, not 32"),
    ("no digest", "secure", ["3 1 1 ="], "unusable", "its digest has 0 octets"),
    ("a full certificate that is none", "secure", ["3 0 0 =3000"], "unusable", "its data cannot be read"),
    ("a full certificate that is empty", "secure", ["3 0 0 ="], "unusable", "its data cannot be read"),
    ("a full certificate that is a digest", "secure", [f"3 0 0 ={S256}"], "unusable", "its data cannot be read"),
    ("a full certificate with more behind it", "secure", [f"3 0 0 ={FORGE.der('leaf').hex()}00"], "unusable", "cannot be read"),
    ("a full key that is a certificate", "secure", [f"2 1 0 ={FORGE.der('mid').hex()}"], "unusable", "cannot be read"),
    ("a full key with more behind it", "secure", [f"{tlsa('2 1 0 mid').text.replace('2 1 0 ', '2 1 0 =')}00"], "unusable", "cannot be read"),
    ("one usable beside", "secure", ["3 1 1 =aabb", f"0 0 1 ={S256}", f"3 1 1 ={S256}"], "usable", ""),
    ("none of several", "secure", ["3 1 1 =aabb", f"0 0 1 ={S256}"], "unusable", "not 32; 0 0 1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("security", "records", "state", "words"), [pytest.param(*row, id=why) for why, *row in RRSETS]
)
def test_check_tlsa(security: str, records: list[str], state: str, words: str) -> None:
    """A record counts where its numbers are known and its data is well formed, whatever stands beside it."""
    parsed = [tlsa(record) for record in records]
    assert check_tlsa(DnsSecurity(security), parsed) == state
    if state == TlsaState.UNUSABLE:
        assert words in check_dane(FORGE.chain("leaf mid"), TlsaState.UNUSABLE, parsed, (MX,), AT).detail


def asks_openssl(record: str) -> bool:
    """Tell whether a record can be given to `s_client`, and is of a usage that only mail rules out."""
    usage, _, _, data = record.split()
    return usage not in ("0", "1") and data != "="


@pytest.mark.parametrize(
    "record",
    [pytest.param(record, id=row[0]) for row in RRSETS for record in row[2][:1] if asks_openssl(record)],
)
def test_openssl_agrees_on_records(dane_servers: DaneServers, record: str) -> None:
    """`openssl s_client` takes the same records for usable."""
    parsed = tlsa(record)
    said = dane_servers.ask(FORGE.chain("leaf mid"), FORGE.key("leaf"), [parsed.text], MX)
    unusable = "Failed to import any TLSA records" in said.words or "bad TLSA rrdata" in said.words
    assert unusable == (check_tlsa(DnsSecurity.SECURE, [parsed]) is TlsaState.UNUSABLE), said.words


TEXTS = [
    ("3 1 1 AABB", "3 1 1 aabb"),
    ("3 1 1 aa bb cc", "3 1 1 aabbcc"),
    ("  3\t1 1\n aabb ", "3 1 1 aabb"),
    ("003 001 001 aabb", "3 1 1 aabb"),
    ("255 255 255", "255 255 255 "),
    ("3 1 1", "3 1 1 "),
    ("", None),
    ("3 1", None),
    ("3 1 one aabb", None),
    ("3 1 256 aabb", None),
    ("3 1 -1 aabb", None),
    ("3 1 +1 aabb", None),
    ("3 1 0001 aabb", None),
    ("3 1 1 aab", None),
    ("3 1 1 xyz", None),
    ("3 1 ١ aabb", None),
    ("3 1 1 ａａ", None),
    (r"\# 4 03010101", None),
]


@pytest.mark.parametrize(("text", "record"), TEXTS)
def test_parse(text: str, record: str | None) -> None:
    """The presentation form is read with any white space; what is none raises and says what came."""
    if record is None:
        with pytest.raises(ValueError, match="TLSA record"):
            TlsaRecord.parse(text)
    else:
        assert TlsaRecord.parse(text).text == record


# -- names ---------------------------------------------------------------------------------------------------

# why, host, end of its aliases, security of the addresses, of the first alias, bases
BASES = [
    ("no alias, secure", "a.example", "a.example", "secure", None, ("a.example",)),
    ("no alias, insecure", "a.example", "a.example", "insecure", None, ()),
    ("no alias, lookup failed", "a.example", "a.example", "error", None, ()),
    ("no alias, resolver not trusted", "a.example", "a.example", "not_tested", None, ()),
    ("alias, all secure", "a.example", "z.example", "secure", "secure", ("z.example", "a.example")),
    ("signed alias out of the signed world", "a.example", "z.test", "insecure", "secure", ("a.example",)),
    ("insecure alias", "a.example", "z.test", "insecure", "insecure", ()),
    ("alias whose lookup failed", "a.example", "z.test", "insecure", "error", ()),
    ("alias not asked about", "a.example", "z.test", "insecure", None, ()),
    ("alias to what cannot be looked up", "a.example", "z.test", "error", "secure", ()),
    ("alias, resolver not trusted", "a.example", "z.test", "not_tested", "not_tested", ()),
]


@pytest.mark.parametrize(
    ("host", "canonical", "host_security", "alias_security", "bases"),
    [pytest.param(*row, id=why) for why, *row in BASES],
)
def test_tlsa_bases(
    host: str, canonical: str, host_security: str, alias_security: str | None, bases: tuple[str, ...]
) -> None:
    """TLSA is asked at the end of the aliases first, then at the name itself, and only in the signed world."""
    alias = DnsSecurity(alias_security) if alias_security else None
    found = tlsa_bases(host, canonical, host_security=DnsSecurity(host_security), alias_security=alias)
    assert found == bases


# why, base, domain, end of the aliases of its MX lookup, by an MX record, secure, names
NAMES = [
    ("secure MX", "mx.test", "a.test", "a.test", True, True, ("mx.test", "a.test")),
    (
        "secure MX, domain an alias",
        "mx.test",
        "a.test",
        "z.test",
        True,
        True,
        ("mx.test", "a.test", "z.test"),
    ),
    ("insecure MX", "mx.test", "a.test", "z.test", True, False, ("mx.test",)),
    ("no MX", "a.test", "a.test", "a.test", False, True, ("a.test",)),
    ("no MX, domain an alias", "z.test", "a.test", "z.test", False, True, ("z.test", "a.test")),
    ("the domain is its own MX", "a.test", "a.test", "a.test", True, True, ("a.test",)),
]


@pytest.mark.parametrize(
    ("base", "domain", "canonical", "via_mx", "mx_secure", "names"),
    [pytest.param(*row, id=why) for why, *row in NAMES],
)
def test_dane_names(
    base: str, domain: str, canonical: str, via_mx: bool, mx_secure: bool, names: tuple[str, ...]
) -> None:
    """The base domain comes first; the domain's own name counts only where it was found securely."""
    found = dane_names(base, domain=domain, canonical_domain=canonical, via_mx=via_mx, mx_secure=mx_secure)
    assert found == names


def test_tlsa_name() -> None:
    """The port stands in the name as a plain number."""
    assert tlsa_name("mx.example.org", 25) == "_25._tcp.mx.example.org"
    assert tlsa_name("mx.example.org", 2525) == "_2525._tcp.mx.example.org"


# -- hostile input -------------------------------------------------------------------------------------------

octets = st.integers(0, 255)
any_record = st.builds(TlsaRecord, octets, octets, octets, st.binary(max_size=70))
real_record = st.sampled_from(
    [
        tlsa(f"{usage} {kind} {name}")
        for usage in "23"
        for kind in KINDS
        for name in ("leaf", "mid", "root", "own")
    ]
)
likely_record = st.builds(
    TlsaRecord,
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(0, 3),
    st.sampled_from([b"", b"a" * 32, b"a" * 64]),
)
records = st.lists(st.one_of(any_record, likely_record, real_record), max_size=8)


@given(st.lists(st.binary(max_size=200), max_size=4), records, st.lists(st.text(max_size=30), max_size=3))
@settings(deadline=None)
def test_any_chain(chain: list[bytes], rrset: list[TlsaRecord], names: list[str]) -> None:
    """Any octets for a chain, any records and any names get a verdict, and never a match by chance."""
    state = check_tlsa(DnsSecurity.SECURE, rrset)
    check = check_dane(chain, state, rrset, names, AT)
    wanted = {TlsaState.NONE: "none", TlsaState.UNUSABLE: "unusable", TlsaState.USABLE: "mismatch"}[state]
    assert check.state == wanted


@given(records, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_of_records_is_nothing(rrset: list[TlsaRecord], random: Random) -> None:
    """The DNS gives records in any order, so the order decides nothing, nor does a record that is there twice."""
    chain, shuffled = FORGE.chain("leaf mid root"), [*rrset, *rrset[:2]]
    random.shuffle(shuffled)
    state = check_tlsa(DnsSecurity.SECURE, rrset)
    assert check_tlsa(DnsSecurity.SECURE, shuffled) is state
    found = check_dane(chain, state, rrset, (MX,), AT).state
    assert check_dane(chain, state, shuffled, (MX,), AT).state is found


@given(records)
@settings(deadline=None)
def test_unusable_records_decide_nothing(rrset: list[TlsaRecord]) -> None:
    """A record that cannot be used is as if it were not there, but that some record is."""
    usable = [record for record in rrset if check_tlsa(DnsSecurity.SECURE, [record]) is TlsaState.USABLE]
    assert (check_tlsa(DnsSecurity.SECURE, rrset) is TlsaState.USABLE) == bool(usable)
    if usable:
        chain = FORGE.chain("leaf mid root")
        found = check_dane(chain, TlsaState.USABLE, rrset, (MX,), AT).state
        assert check_dane(chain, TlsaState.USABLE, usable, (MX,), AT).state is found


@given(any_record)
def test_what_prints_parses_back(record: TlsaRecord) -> None:
    """A record is its text."""
    assert TlsaRecord.parse(record.text) == record


@given(st.text(max_size=80))
@example("1 1 1 " + "0" * 10_000)
@example("9" * 10_000 + " 1 1 00")
def test_parse_takes_anything(text: str) -> None:
    """Any text is a record or raises ValueError, in few words."""
    try:
        record = TlsaRecord.parse(text)
    except ValueError as error:
        reason = str(error)
        record = None
    assert TlsaRecord.parse(record.text) == record if record else len(reason) < 500


def test_hostile_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand keys for authorities and a hundred certificates of one name cost a bounded number of signatures."""
    table: dict[str, Cert | bytes] = {
        f"loop{number}": Cert(
            f"loop{(number + 1) % 99}", ca=True, common_name="L", key_id=b"", issuer_key_id=b""
        )
        for number in range(99)
    }
    forge = Forge(table | {"in_loop": Cert("loop0", names=LEAF, issuer_key_id=b"")})
    chain = [forge.der("in_loop"), *map(forge.der, table)]
    keys = [parse_certificate(FORGE.der(name)).key_info for name in ("stranger", "own", "root")]
    rrset = [TlsaRecord(2, 1, 0, key) for key in keys for _ in range(400)]
    checked = []

    def count(certificate: X509, key: PublicKeyTypes | None) -> bool:
        checked.append(None)
        return is_signed_by(certificate, key)

    monkeypatch.setattr(certificates, "is_signed_by", count)
    assert check_dane(chain, TlsaState.USABLE, rrset, (MX,), AT).state is DaneState.MISMATCH
    assert len(checked) <= MAX_AUTHORITIES * (2 * MAX_SIGNATURES + 1)
