from __future__ import annotations

import datetime as dt
import hashlib
import warnings
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.standards import certificates
from rtls_analysis.standards.certificates import (
    MAX_PATHS,
    MAX_SIGNATURES,
    Certificate,
    PkixState,
    Roots,
    check_path,
    check_pkix,
    describe_certificate,
)
from rtls_analysis.standards.x509 import is_signed_by, parse_certificate
from tests.standards.conftest import (
    ANY_PURPOSE,
    AT,
    CERT_SIGN,
    CLIENT_AUTH,
    CRL_SIGN,
    DIGITAL_SIGNATURE,
    MX,
    NON_REPUDIATION,
    SERVER_AUTH,
    STEP_UP,
    Cert,
    Forge,
    Said,
    oid,
    pem,
    serial_of,
    tlv,
)

LEAF = ("dns:mx.example.org",)
DNS_ID = tlv(0x82, b"mx.example.org")
UNKNOWN, CERT_TYPE, PROXY = "1.3.6.1.4.1.55555.1", "2.16.840.1.113730.1.1", "1.3.6.1.5.5.7.1.14"
NAMES, USAGE, CONSTRAINTS, POLICY = "2.5.29.17", "2.5.29.15", "2.5.29.30", "2.5.29.36"
ACCESS = "1.3.6.1.5.5.7.1.1"
BASE = tlv(0x82, b"example.org")
HOLES = bytes([192, 0, 2, 0, 255, 0, 255, 0])
NO_KEY_ID = {"key_id": b"", "issuer_key_id": b""}


def trees(*parts: bytes) -> bytes:
    """Write name constraints that permit one subtree, of these parts."""
    return tlv(0x30, tlv(0xA0, tlv(0x30, *parts)))


def subject(tag: int, text: bytes) -> bytes:
    """Write a subject of one common name in some alphabet."""
    return tlv(0x30, tlv(0x31, tlv(0x30, oid("2.5.4.3"), tlv(tag, text))))


CERTIFICATES: dict[str, Cert | bytes] = {
    "root": Cert(ca=True),
    "mid": Cert("root", ca=True),
    "low": Cert("mid", ca=True),
    "leaf": Cert("mid", names=LEAF),
    "by_root": Cert("root", names=LEAF),
    "by_low": Cert("low", names=LEAF),
    "stranger": Cert(ca=True),
    "junk": b"no certificate",
    # kinds of keys and digests
    "rsa_root": Cert(ca=True, kind="rsa"),
    "rsa_mid": Cert("rsa_root", ca=True, kind="rsa"),
    "rsa_leaf": Cert("rsa_mid", names=LEAF, kind="rsa"),
    "ec_of_rsa": Cert("rsa_mid", names=LEAF),
    "sha1_leaf": Cert("rsa_mid", names=LEAF, digest="sha1"),
    "md5_leaf": Cert("rsa_mid", names=LEAF, digest="md5"),
    "sha1_mid": Cert("rsa_root", ca=True, kind="rsa", digest="sha1"),
    "of_sha1_mid": Cert("sha1_mid", names=LEAF),
    "md5_mid": Cert("rsa_root", ca=True, kind="rsa", digest="md5"),
    "of_md5_mid": Cert("md5_mid", names=LEAF),
    "sha1_ec_leaf": Cert("mid", names=LEAF, digest="sha1"),
    "pss_leaf": Cert("rsa_mid", names=LEAF, digest="pss"),
    "short_leaf": Cert("rsa_mid", names=LEAF, kind="rsa1024"),
    "short_mid": Cert("rsa_root", ca=True, kind="rsa1024"),
    "of_short_mid": Cert("short_mid", names=LEAF),
    "p384_mid": Cert("root", ca=True, kind="p384"),
    "of_p384_mid": Cert("p384_mid", names=LEAF),
    "ed_root": Cert(ca=True, kind="ed25519"),
    "ed_leaf": Cert("ed_root", names=LEAF, kind="ed25519"),
    "ed448_root": Cert(ca=True, kind="ed448"),
    "of_ed448": Cert("ed448_root", names=LEAF),
    "dsa_root": Cert(ca=True, kind="dsa"),
    "of_dsa": Cert("dsa_root", names=LEAF),
    # dates
    "expired": Cert("mid", names=LEAF, days=(-30, -1)),
    "early": Cert("mid", names=LEAF, days=(1, 30)),
    "late_mid": Cert("root", ca=True, days=(-30, -1)),
    "of_late_mid": Cert("late_mid", names=LEAF),
    "early_mid": Cert("root", ca=True, days=(1, 30)),
    "of_early_mid": Cert("early_mid", names=LEAF),
    "late_root": Cert(ca=True, days=(-30, -1)),
    "of_late_root": Cert("late_root", names=LEAF),
    "late_and_early": Cert("late_mid", names=LEAF, days=(1, 30)),
    "last_second": Cert("mid", names=LEAF, days=(-30, 0)),
    "first_second": Cert("mid", names=LEAF, days=(0, 30)),
    "after_2050": Cert("mid", names=LEAF, days=(-30, 9999)),
    # self-signed, self-issued
    "own": Cert(names=LEAF),
    "own_ca": Cert(ca=True, names=LEAF),
    "own_expired": Cert(names=LEAF, days=(-30, -1)),
    "own_forged": Cert(names=LEAF, signer="stranger"),
    "of_own": Cert("own", names=LEAF),
    "new_root": Cert("root", ca=True, common_name="root"),
    "of_new_root": Cert("new_root", names=LEAF),
    # signatures
    "forged": Cert("mid", names=LEAF, signer="stranger"),
    "forged_mid": Cert("root", ca=True, key="mid", common_name="mid", signer="stranger"),
    "forged_rsa": Cert("rsa_mid", names=LEAF, signer="rsa_root"),
    "two_algorithms": Cert("rsa_mid", names=LEAF, inner_digest="sha1"),
    # cross-signing, twins
    "cross_mid": Cert("stranger", ca=True, key="mid", common_name="mid"),
    "late_cross_mid": Cert("stranger", ca=True, key="mid", common_name="mid", days=(-30, -1)),
    "cross_root": Cert("stranger", ca=True, key="root", common_name="root"),
    "cross_stranger": Cert("root", ca=True, key="stranger", common_name="stranger"),
    "late_twin": Cert("root", ca=True, key="mid", common_name="mid", days=(-30, -1)),
    "twin": Cert("root", ca=True, common_name="mid"),
    "plain": Cert(ca=True, **NO_KEY_ID),
    "plain_mid": Cert("plain", ca=True, **NO_KEY_ID),
    "plain_leaf": Cert("plain_mid", names=LEAF, **NO_KEY_ID),
    "plain_twin": Cert("plain", ca=True, common_name="plain_mid", **NO_KEY_ID),
    "plain_root_twin": Cert(ca=True, common_name="plain", **NO_KEY_ID),
    # one name, written in several ways
    "our_ca": Cert("root", ca=True, common_name="Our \xc9 CA"),
    "of_folded": Cert("our_ca", names=LEAF, issuer_name=" our  \xc9 ca "),
    "of_bmp": Cert("our_ca", names=LEAF, issuer_name=subject(30, "Our \xc9 CA".encode("utf-16-be"))),
    "of_t61": Cert("our_ca", names=LEAF, issuer_name=subject(20, b"OUR \xc9 CA")),
    "of_small": Cert("our_ca", names=LEAF, issuer_name="our \xe9 ca"),
    "of_joined": Cert("our_ca", names=LEAF, issuer_name="Our\xc9CA"),
    "of_bits": Cert("our_ca", names=LEAF, issuer_name=subject(3, b"\0" + "Our \xc9 CA".encode())),
    # key identifiers
    "wrong_id": Cert("mid", names=LEAF, issuer_key_id=b"another"),
    "no_id": Cert("mid", names=LEAF, issuer_key_id=b""),
    "right_serial": Cert("mid", names=LEAF, issuer_key_id=b"", issuer_serial=serial_of("mid")),
    "wrong_serial": Cert("mid", names=LEAF, issuer_key_id=b"", issuer_serial=77),
    "id_and_wrong_serial": Cert("mid", names=LEAF, issuer_serial=77),
    # authorities that may not sign
    "no_ca": Cert("root", ca=False),
    "of_no_ca": Cert("no_ca", names=LEAF),
    "no_basic": Cert("root", ca=None, usage=None),
    "of_no_basic": Cert("no_basic", names=LEAF),
    "usage_only": Cert("root", ca=None, usage=(CERT_SIGN, CRL_SIGN)),
    "of_usage_only": Cert("usage_only", names=LEAF),
    "usage_only_root": Cert(ca=None, usage=(CERT_SIGN,)),
    "of_usage_only_root": Cert("usage_only_root", names=LEAF),
    "no_cert_sign": Cert("root", ca=True, usage=(DIGITAL_SIGNATURE, CRL_SIGN)),
    "of_no_cert_sign": Cert("no_cert_sign", names=LEAF),
    "no_usage": Cert("root", ca=True, usage=None),
    "of_no_usage": Cert("no_usage", names=LEAF),
    "v1_root": Cert(version=1, kind="rsa"),
    "of_v1_root": Cert("v1_root", names=LEAF, issuer_key_id=b""),
    "v1_mid": Cert("rsa_root", version=1, kind="rsa"),
    "of_v1_mid": Cert("v1_mid", names=LEAF, issuer_key_id=b""),
    "v3_bare_root": Cert(ca=None, usage=None),
    "of_v3_bare_root": Cert("v3_bare_root", names=LEAF),
    "v1_leaf": Cert("mid", version=1, common_name=MX),
    "of_leaf": Cert("leaf", names=LEAF),
    # path length
    "zero": Cert("root", ca=True, path_length=0),
    "of_zero": Cert("zero", names=LEAF),
    "below_zero": Cert("zero", ca=True),
    "of_below_zero": Cert("below_zero", names=LEAF),
    "self_issued": Cert("zero", ca=True, common_name="zero"),
    "of_self_issued": Cert("self_issued", names=LEAF),
    "one": Cert(ca=True, path_length=1),
    "below_one": Cert("one", ca=True),
    "of_below_one": Cert("below_one", names=LEAF),
    "two_below_one": Cert("below_one", ca=True),
    "of_two_below_one": Cert("two_below_one", names=LEAF),
    "ca_leaf": Cert("zero", ca=True, names=LEAF),
    "leaf_with_length": Cert("mid", names=LEAF, path_length=0),
    # purposes
    "server": Cert("mid", names=LEAF, purposes=(SERVER_AUTH,)),
    "both": Cert("mid", names=LEAF, purposes=(CLIENT_AUTH, SERVER_AUTH)),
    "client": Cert("mid", names=LEAF, purposes=(CLIENT_AUTH,)),
    "any": Cert("mid", names=LEAF, purposes=(ANY_PURPOSE,)),
    "step_up": Cert("mid", names=LEAF, purposes=(STEP_UP,)),
    "client_mid": Cert("root", ca=True, purposes=(CLIENT_AUTH,)),
    "of_client_mid": Cert("client_mid", names=LEAF),
    "server_mid": Cert("root", ca=True, purposes=(SERVER_AUTH,)),
    "of_server_mid": Cert("server_mid", names=LEAF),
    "any_mid": Cert("root", ca=True, purposes=(ANY_PURPOSE,)),
    "of_any_mid": Cert("any_mid", names=LEAF),
    "client_root": Cert(ca=True, purposes=(CLIENT_AUTH,)),
    "of_client_root": Cert("client_root", names=LEAF),
    "signs_only": Cert("mid", names=LEAF, usage=(DIGITAL_SIGNATURE,)),
    "agrees_only": Cert("mid", names=LEAF, usage=(4,)),
    "repudiates_not": Cert("mid", names=LEAF, usage=(NON_REPUDIATION,)),
    "cert_sign_leaf": Cert("mid", names=LEAF, usage=(CERT_SIGN,)),
    "old_type_server": Cert("mid", names=LEAF, extensions=((CERT_TYPE, True, b"\x03\x02\x06\x40"),)),
    "old_type_client": Cert("mid", names=LEAF, extensions=((CERT_TYPE, False, b"\x03\x02\x07\x80"),)),
    # extensions
    "critical": Cert("mid", names=LEAF, extensions=((UNKNOWN, True, b"\x05\x00"),)),
    "not_critical": Cert("mid", names=LEAF, extensions=((UNKNOWN, False, b"\x05\x00"),)),
    "critical_mid": Cert("root", ca=True, extensions=((UNKNOWN, True, b"\x05\x00"),)),
    "of_critical_mid": Cert("critical_mid", names=LEAF),
    "critical_root": Cert(ca=True, extensions=((UNKNOWN, True, b"\x05\x00"),)),
    "of_critical_root": Cert("critical_root", names=LEAF),
    "critical_access": Cert("mid", names=LEAF, extensions=((ACCESS, True, b"\x30\x00"),)),
    "policy_mid": Cert("root", ca=True, extensions=((POLICY, True, b"\x30\x03\x80\x01\x00"),)),
    "of_policy_mid": Cert("policy_mid", names=LEAF),
    "proxy": Cert(
        "mid", names=LEAF, extensions=((PROXY, False, tlv(0x30, tlv(0x30, oid("1.3.6.1.5.5.7.21.1")))),)
    ),
    "latin_name": Cert("mid", names=(*LEAF, "dns:b\xfccher.example")),
    "short_address": Cert("mid", extensions=((NAMES, False, tlv(0x30, DNS_ID, tlv(0x87, b"123"))),)),
    "x400_name": Cert("mid", extensions=((NAMES, False, tlv(0x30, DNS_ID, tlv(0xA3))),)),
    "t61_mid": Cert("root", ca=True, common_name=subject(20, b"B\xfccher")),
    "of_t61_mid": Cert("t61_mid", names=LEAF),
    "printable": Cert("mid", names=LEAF, common_name=subject(19, b"B\xfccher")),
    "long_name": Cert("mid", names=LEAF, common_name="x" * 300),
    "unknown_twice": Cert("mid", names=LEAF, extensions=2 * ((UNKNOWN, False, b"\x05\x00"),)),
    "bad_access": Cert("mid", names=LEAF, extensions=((ACCESS, False, b"\x05\x00"),)),
    "version4": Cert("mid", names=LEAF, version=4),
    "negative": Cert("mid", names=LEAF, serial=-5),
    "empty_part": Cert("mid", names=LEAF, common_name=b"\x30\x02\x31\x00"),
    "no_bits": Cert("mid", names=LEAF, usage=None, extensions=((USAGE, True, b"\x03\x01\x00"),)),
    "bad_and_late": Cert("mid", days=(-30, -1), usage=None, extensions=((USAGE, True, b"\x05\x00"),)),
    "bad_mid": Cert("root", ca=True, usage=None, extensions=((USAGE, True, b"\x05\x00"),)),
    "of_bad_mid": Cert("bad_mid", names=LEAF),
    "worst": Cert(
        "no_ca", purposes=(CLIENT_AUTH,), common_name="", extensions=((UNKNOWN, True, b"\x05\x00"),)
    ),
    "twice": Cert("mid", names=LEAF, extensions=((NAMES, False, tlv(0x30, DNS_ID)),)),
    "bad_names": Cert("mid", extensions=((NAMES, False, b"\x30\x80"),)),
    "bad_usage": Cert("mid", names=LEAF, usage=None, extensions=((USAGE, True, b"\x05\x00"),)),
    # name constraints
    "only_example": Cert("root", ca=True, permitted=("dns:example.org",)),
    "of_only_example": Cert("only_example", names=LEAF),
    "example_itself": Cert("only_example", names=("dns:example.org", *LEAF)),
    "likeness": Cert("only_example", names=(*LEAF, "dns:mx.badexample.org")),
    "wildcard_within": Cert("only_example", names=("dns:*.example.org",)),
    "no_dns_within": Cert("only_example", names=("ip:192.0.2.1",)),
    "upper_within": Cert("only_example", names=("dns:MX.EXAMPLE.ORG",)),
    "cn_within": Cert("only_example", common_name=MX),
    "cn_without": Cert("only_example", common_name="mx.example.net"),
    "cn_no_host": Cert("only_example", common_name="Mail Server 7"),
    "cn_with_nul": Cert("only_example", common_name="mx.example.org\0.example.net"),
    "cn_beside": Cert("only_example", names=LEAF, common_name="mx.example.net"),
    "only_dot_example": Cert("root", ca=True, permitted=("dns:.example.org",)),
    "of_only_dot_example": Cert("only_dot_example", names=LEAF),
    "dot_itself": Cert("only_dot_example", names=("dns:example.org",)),
    "not_example": Cert("root", ca=True, excluded=("dns:example.org",)),
    "of_not_example": Cert("not_example", names=LEAF),
    "of_not_example_net": Cert("not_example", names=("dns:mx.example.net",)),
    "both_ways": Cert("root", ca=True, permitted=("dns:org",), excluded=("dns:example.org",)),
    "of_both_ways": Cert("both_ways", names=LEAF),
    "all": Cert("root", ca=True, permitted=("dns:",)),
    "of_all": Cert("all", names=LEAF),
    "root_only_net": Cert(ca=True, permitted=("dns:example.net",)),
    "of_root_only_net": Cert("root_only_net", names=LEAF),
    "low_of_only_example": Cert("only_example", ca=True),
    "leaf_of_low": Cert("low_of_only_example", names=("dns:mx.example.net",)),
    "only_net_ip": Cert("root", ca=True, permitted=("ip:192.0.2.0/24",)),
    "ip_within": Cert("only_net_ip", names=(*LEAF, "ip:192.0.2.7")),
    "ip_without": Cert("only_net_ip", names=(*LEAF, "ip:198.51.100.7")),
    "ip6_without": Cert("only_net_ip", names=(*LEAF, "ip:2001:db8::1")),
    "no_ip": Cert("root", ca=True, excluded=("ip:0.0.0.0/0", "ip:::/0")),
    "of_no_ip": Cert("no_ip", names=LEAF),
    "ip_of_no_ip": Cert("no_ip", names=(*LEAF, "ip:192.0.2.7")),
    "only_dir": Cert("root", ca=True, permitted=("dir:Right",)),
    "dir_within": Cert("only_dir", names=LEAF, common_name="Right"),
    "dir_without": Cert("only_dir", names=LEAF, common_name="Wrong"),
    "dir_empty": Cert("only_dir", names=LEAF, common_name=""),
    "dir_folded": Cert("only_dir", names=LEAF, common_name="  RIGHT "),
    "not_dir": Cert("root", ca=True, excluded=("dir:Wrong",)),
    "of_not_dir": Cert("not_dir", names=LEAF),
    "wrong_of_not_dir": Cert("not_dir", names=LEAF, common_name="Wrong"),
    "only_mail": Cert("root", ca=True, permitted=("mail:example.org",)),
    "mail_within": Cert("only_mail", names=(*LEAF, "mail:postmaster@example.org")),
    "mail_below": Cert("only_mail", names=(*LEAF, "mail:postmaster@mx.example.org")),
    "mail_without": Cert("only_mail", names=(*LEAF, "mail:postmaster@example.net")),
    "mail_in_subject": Cert("only_mail", names=LEAF, mail="postmaster@example.net"),
    "only_mail_below": Cert("root", ca=True, permitted=("mail:.example.org",)),
    "mail_of_host": Cert("only_mail_below", names=(*LEAF, "mail:postmaster@mx.example.org")),
    "mail_of_domain": Cert("only_mail_below", names=(*LEAF, "mail:postmaster@example.org")),
    "only_box": Cert("root", ca=True, permitted=("mail:me@example.org",)),
    "right_box": Cert("only_box", names=(*LEAF, "mail:me@EXAMPLE.org")),
    "box_in_capitals": Cert("only_box", names=(*LEAF, "mail:ME@example.org")),
    "no_box": Cert("only_box", names=(*LEAF, "mail:example.org")),
    "not_mail": Cert("root", ca=True, excluded=("mail:example.org",)),
    "mail_of_not_mail": Cert("not_mail", names=(*LEAF, "mail:a@example.net")),
    "only_uri": Cert("root", ca=True, permitted=("uri:example.org",)),
    "uri_within": Cert("only_uri", names=(*LEAF, "uri:https://example.org:8080/x")),
    "uri_below": Cert("only_uri", names=(*LEAF, "uri:https://mx.example.org/")),
    "only_uri_below": Cert("root", ca=True, permitted=("uri:.example.org",)),
    "uri_of_host": Cert("only_uri_below", names=(*LEAF, "uri:https://mx.example.org/")),
    "uri_no_host": Cert("only_uri_below", names=(*LEAF, "uri:urn:isbn:0")),
    "only_id": Cert("root", ca=True, permitted=("id:1.2.3",)),
    "of_only_id": Cert("only_id", names=LEAF),
    "id_of_only_id": Cert("only_id", names=(*LEAF, "id:1.2.3")),
    "not_id": Cert("root", ca=True, excluded=("id:1.2.3",)),
    "id_of_not_id": Cert("not_id", names=(*LEAF, "id:1.2.4")),
    "only_dir_named": Cert("root", ca=True, common_name="Right", permitted=("dir:Right",)),
    "self_named": Cert("only_dir_named", ca=True, common_name="Right"),
    "of_self_named": Cert("self_named", names=LEAF, common_name=""),
    "holes": Cert("root", ca=True, extensions=((CONSTRAINTS, True, trees(tlv(0x87, HOLES))),)),
    "ip_of_holes": Cert("holes", names=(*LEAF, "ip:192.7.2.9")),
    "bounded": Cert("root", ca=True, extensions=((CONSTRAINTS, True, trees(BASE, tlv(0x80, b"\x01"))),)),
    "of_bounded": Cert("bounded", names=LEAF),
    "no_trees": Cert("root", ca=True, extensions=((CONSTRAINTS, True, b"\x30\x00"),)),
    "of_no_trees": Cert("no_trees", names=LEAF),
}
for depth in range(14):
    CERTIFICATES[f"deep{depth}"] = Cert(f"deep{depth - 1}" if depth else "root", ca=True)
CERTIFICATES["of_deep7"] = Cert("deep7", names=LEAF)
CERTIFICATES["of_deep13"] = Cert("deep13", names=LEAF)

# why, chain as sent, roots, PkixState, words of the reason
CHAINS: list[tuple[str, str, str, str, str]] = [
    # a path, whatever else is sent and in whatever order
    ("leaf and intermediate", "leaf mid", "root", "valid", ""),
    ("two intermediates", "by_low low mid", "root", "valid", ""),
    ("by the root itself", "by_root", "root", "valid", ""),
    ("the root is sent too", "leaf mid root", "root", "valid", ""),
    ("wrong order", "by_low mid low", "root", "valid", ""),
    ("duplicates, the leaf too", "leaf leaf mid mid leaf mid", "root", "valid", ""),
    ("junk beside", "leaf junk mid", "root", "valid", ""),
    ("strangers beside", "leaf stranger own mid expired late_mid rsa_mid", "root", "valid", ""),
    ("many roots", "leaf mid", "stranger rsa_root root ed_root", "valid", ""),
    ("ends at a trusted intermediate", "leaf mid", "mid", "valid", ""),
    ("the leaf itself is trusted", "leaf", "leaf", "valid", ""),
    ("the leaf itself is trusted, its issuer has expired", "of_late_mid late_mid", "of_late_mid", "valid", ""),
    ("no intermediate", "leaf", "root", "untrusted", "the issuer of 'leaf' is neither sent nor a root"),
    ("the second intermediate is missing", "by_low low", "root", "untrusted", "the issuer of 'low' is neither"),
    ("unknown root, not sent", "leaf mid", "stranger", "untrusted", "the issuer of 'mid' is neither sent"),
    ("unknown root, sent", "leaf mid root", "stranger", "untrusted", "the root 'root' is not trusted"),
    ("nine certificates between", "of_deep7 deep7 deep6 deep5 deep4 deep3 deep2 deep1 deep0", "root", "valid", ""),
    (
        "more certificates than anybody sends",
        "of_deep13 deep13 deep12 deep11 deep10 deep9 deep8 deep7 deep6 deep5 deep4 deep3 deep2 deep1 deep0",
        "root",
        "untrusted",
        "no root within 10 certificates",
    ),
    # keys and digests
    ("RSA", "rsa_leaf rsa_mid", "rsa_root", "valid", ""),
    ("EC key, RSA authority", "ec_of_rsa rsa_mid", "rsa_root", "valid", ""),
    ("P-384", "of_p384_mid p384_mid", "root", "valid", ""),
    ("RSA-1024 leaf", "short_leaf rsa_mid", "rsa_root", "valid", ""),
    ("RSA-1024 authority", "of_short_mid short_mid", "rsa_root", "valid", ""),
    ("RSASSA-PSS", "pss_leaf rsa_mid", "rsa_root", "valid", ""),
    ("SHA-1", "sha1_leaf rsa_mid", "rsa_root", "valid", ""),
    ("SHA-1 authority", "of_sha1_mid sha1_mid", "rsa_root", "valid", ""),
    ("SHA-1 with EC", "sha1_ec_leaf mid", "root", "valid", ""),
    ("MD5", "md5_leaf rsa_mid", "rsa_root", "valid", ""),
    ("MD5 authority", "of_md5_mid md5_mid", "rsa_root", "valid", ""),
    ("Ed25519", "ed_leaf", "ed_root", "valid", ""),
    ("Ed448", "of_ed448", "ed448_root", "valid", ""),
    ("DSA", "of_dsa", "dsa_root", "valid", ""),
    # dates
    ("expired leaf", "expired mid", "root", "expired", "'expired' expired on 2026-11-23"),
    ("leaf not yet valid", "early mid", "root", "not_yet_valid", "'early' is not valid before 2026-11-25"),
    ("expired intermediate", "of_late_mid late_mid", "root", "expired", "'late_mid' expired"),
    ("intermediate not yet valid", "of_early_mid early_mid", "root", "not_yet_valid", "'early_mid' is not valid"),
    ("expired root", "of_late_root", "late_root", "expired", "'late_root' expired"),
    ("expired comes before not yet valid", "late_and_early late_mid", "root", "expired", "'late_and_early' is not"),
    ("its last second", "last_second mid", "root", "valid", ""),
    ("its first second", "first_second mid", "root", "valid", ""),
    ("ends after 2049", "after_2050 mid", "root", "valid", ""),
    ("expired and without its issuer", "expired", "root", "expired", "the issuer of 'expired' is neither sent"),
    ("expired and self-signed", "own_expired", "root", "expired", "'own_expired' is self-signed"),
    ("expired twin beside", "leaf late_twin mid", "root", "valid", ""),
    ("expired cross-certificate beside", "leaf late_cross_mid", "root stranger mid", "valid", ""),
    # self-signed and self-issued
    ("self-signed", "own", "root", "self_signed", "'own' is self-signed"),
    ("self-signed and trusted", "own", "own", "valid", ""),
    ("self-signed authority's own certificate", "own_ca", "root", "self_signed", "'own_ca' is self-signed"),
    ("the same, trusted: its key is for signing", "own_ca", "own_ca", "untrusted", "not for TLS servers (key usage)"),
    ("self-signed, with strangers", "own mid root", "root", "self_signed", "'own' is self-signed"),
    ("self-signed by another key", "own_forged", "root", "bad_signature", "does not bear out its own signature"),
    ("issued by a leaf", "of_own own", "own", "untrusted", "'own' may not sign certificates"),
    ("self-issued with a new key", "of_new_root new_root", "root", "valid", ""),
    # signatures
    ("signed by another key", "forged mid", "root", "bad_signature", "the signature of 'forged' is not by its issuer"),
    ("forged intermediate", "leaf forged_mid", "root", "bad_signature", "the signature of 'mid' is not by its"),
    ("forged intermediate beside the real one", "leaf forged_mid mid", "root", "valid", ""),
    ("signed by another RSA key", "forged_rsa rsa_mid", "rsa_root", "bad_signature", "'forged_rsa'"),
    ("two algorithms", "two_algorithms rsa_mid", "rsa_root", "bad_signature", "'two_algorithms'"),
    # several ways
    ("cross-signed, the near way", "leaf mid cross_mid", "root", "valid", ""),
    ("cross-signed, the far way", "leaf mid cross_mid", "stranger", "valid", ""),
    ("cross-signed root", "leaf mid cross_root", "stranger", "valid", ""),
    ("the far way alone is sent", "leaf cross_mid", "stranger", "valid", ""),
    ("cross-signed in a circle", "leaf mid cross_root cross_stranger", "rsa_root", "untrusted", "the issuer of"),
    ("in a circle, with a way out", "leaf mid cross_root cross_stranger", "stranger", "valid", ""),
    ("same name, another key, told apart by key identifier", "leaf twin mid", "root", "valid", ""),
    ("same name, another key alone", "leaf twin", "root", "untrusted", "the issuer of 'leaf' is neither sent"),
    ("same name, another key, no identifiers", "plain_leaf plain_mid plain_twin", "plain", "valid", ""),
    ("the same, the wrong one first", "plain_leaf plain_twin plain_mid", "plain", "valid", ""),
    ("the same, the wrong one alone", "plain_leaf plain_twin", "plain", "bad_signature", "the signature of 'plain_leaf'"),
    ("two roots of one name", "plain_leaf plain_mid", "plain_root_twin plain", "valid", ""),
    ("the wrong root of that name", "plain_leaf plain_mid", "plain_root_twin", "bad_signature", "'plain_mid'"),
    # names of authorities
    ("name in capitals and with white space", "of_folded our_ca", "root", "valid", ""),
    ("name in a BMPString", "of_bmp our_ca", "root", "valid", ""),
    ("name in a T61String", "of_t61 our_ca", "root", "valid", ""),
    ("capitals beyond ASCII count", "of_small our_ca", "root", "untrusted", "the issuer of 'of_small' is neither"),
    ("white space counts where there is none", "of_joined our_ca", "root", "untrusted", "the issuer of 'of_joined'"),
    ("name that is no text", "of_bits our_ca", "root", "untrusted", "the issuer of 'of_bits' is neither sent"),
    # key identifiers
    ("identifier of another key", "wrong_id mid", "root", "untrusted", "the issuer of 'wrong_id' is neither sent"),
    ("no identifier", "no_id mid", "root", "valid", ""),
    ("issuer by serial number", "right_serial mid", "root", "valid", ""),
    ("another serial number", "wrong_serial mid", "root", "untrusted", "the issuer of 'wrong_serial' is neither"),
    ("right identifier, another serial number", "id_and_wrong_serial mid", "root", "untrusted", "the issuer of"),
    # authorities
    ("no authority", "of_no_ca no_ca", "root", "untrusted", "'no_ca' may not sign certificates"),
    ("a leaf as authority", "of_leaf leaf mid", "root", "untrusted", "'leaf' may not sign certificates"),
    ("no basicConstraints", "of_no_basic no_basic", "root", "untrusted", "'no_basic' may not sign certificates"),
    ("keyCertSign, no basicConstraints", "of_usage_only usage_only", "root", "untrusted", "'usage_only' may not"),
    ("a root of that kind", "of_usage_only_root", "usage_only_root", "valid", ""),
    ("no keyCertSign", "of_no_cert_sign no_cert_sign", "root", "untrusted", "'no_cert_sign' may not sign"),
    ("no keyUsage", "of_no_usage no_usage", "root", "valid", ""),
    ("root of version 1", "of_v1_root", "v1_root", "valid", ""),
    ("intermediate of version 1", "of_v1_mid v1_mid", "rsa_root", "untrusted", "'v1_mid' may not sign"),
    ("root of version 3 without extensions", "of_v3_bare_root", "v3_bare_root", "untrusted", "may not sign"),
    ("leaf of version 1", "v1_leaf mid", "root", "valid", ""),
    # path length
    ("path length 0, leaf below", "of_zero zero", "root", "valid", ""),
    ("path length 0, authority below", "of_below_zero below_zero zero", "root", "untrusted", "has the path length 0, but 1 below it"),
    ("path length 0, self-issued below", "of_self_issued self_issued zero", "root", "valid", ""),
    ("path length 0, authority as leaf", "ca_leaf zero", "root", "untrusted", "not for TLS servers (key usage)"),
    ("path length 1, one below", "of_below_one below_one", "one", "valid", ""),
    ("path length 1, two below", "of_two_below_one two_below_one below_one", "one", "untrusted", "has the path length 1, but 2 below it"),
    ("path length without authority", "leaf_with_length mid", "root", "valid", ""),
    # purposes
    ("for servers", "server mid", "root", "valid", ""),
    ("for clients and servers", "both mid", "root", "valid", ""),
    ("for clients", "client mid", "root", "untrusted", "'client' is not for TLS servers (extended key usage)"),
    ("for any purpose", "any mid", "root", "untrusted", "'any' is not for TLS servers (extended key usage)"),
    ("server-gated cryptography", "step_up mid", "root", "valid", ""),
    ("authority for clients", "of_client_mid client_mid", "root", "untrusted", "'client_mid' is not for TLS servers"),
    ("authority for servers", "of_server_mid server_mid", "root", "valid", ""),
    ("authority for any purpose", "of_any_mid any_mid", "root", "untrusted", "'any_mid' is not for TLS servers"),
    ("root for clients", "of_client_root", "client_root", "untrusted", "'client_root' is not for TLS servers"),
    ("key for signing in TLS", "signs_only mid", "root", "valid", ""),
    ("key for key agreement", "agrees_only mid", "root", "valid", ""),
    ("key for signing documents", "repudiates_not mid", "root", "untrusted", "not for TLS servers (key usage)"),
    ("key for signing certificates", "cert_sign_leaf mid", "root", "untrusted", "not for TLS servers (key usage)"),
    ("Netscape's type: server", "old_type_server mid", "root", "valid", ""),
    ("Netscape's type: client", "old_type_client mid", "root", "untrusted", "not for TLS servers (key usage)"),
    # extensions
    ("unknown critical extension", "critical mid", "root", "untrusted", "unknown critical extension 1.3.6.1.4.1.55555.1"),
    ("unknown extension", "not_critical mid", "root", "valid", ""),
    ("critical: intermediate", "of_critical_mid critical_mid", "root", "untrusted", "'critical_mid' has an unknown"),
    ("critical: root", "of_critical_root", "critical_root", "untrusted", "'critical_root' has an unknown"),
    ("critical: locator of the authority", "critical_access mid", "root", "untrusted", "extension 1.3.6.1.5.5.7.1.1"),
    ("policies are not looked at", "of_policy_mid policy_mid", "root", "valid", ""),
    ("proxy certificate", "proxy mid", "root", "untrusted", "'proxy' is a proxy certificate"),
    # what is taken though the letter forbids it
    ("host name beyond ASCII", "latin_name mid", "root", "valid", ""),
    ("address of three octets", "short_address mid", "root", "valid", ""),
    ("name of a kind nobody uses", "x400_name mid", "root", "valid", ""),
    ("text string of 1988", "of_t61_mid t61_mid", "root", "valid", ""),
    ("umlaut in a PrintableString", "printable mid", "root", "valid", ""),
    ("common name of 300 characters", "long_name mid", "root", "valid", ""),
    ("unknown extension twice", "unknown_twice mid", "root", "valid", ""),
    ("unreadable locator", "bad_access mid", "root", "valid", ""),
    ("version 4", "version4 mid", "root", "valid", ""),
    ("negative serial number", "negative mid", "root", "valid", ""),
    ("empty part of a name", "empty_part mid", "root", "valid", ""),
    # what is not
    ("no certificate", "junk mid", "root", "malformed", "the certificate cannot be read"),
    ("two subjectAltName", "twice mid", "root", "malformed", "it has two subjectAltName"),
    ("unreadable subjectAltName", "bad_names mid", "root", "malformed", "its subjectAltName cannot be read"),
    ("unreadable keyUsage", "bad_usage mid", "root", "malformed", "its keyUsage cannot be read"),
    ("empty keyUsage", "no_bits mid", "root", "malformed", "its keyUsage cannot be read"),
    ("malformed comes before expired", "bad_and_late mid", "root", "malformed", "expired on"),
    ("unreadable intermediate", "of_bad_mid bad_mid", "root", "untrusted", "1 of the other certificates cannot be read"),
    # name constraints
    ("host within", "of_only_example only_example", "root", "valid", ""),
    ("the domain itself", "example_itself only_example", "root", "valid", ""),
    ("ends like it", "likeness only_example", "root", "untrusted", "forbid 'mx.badexample.org'"),
    ("wildcard within", "wildcard_within only_example", "root", "valid", ""),
    ("names of another kind", "no_dns_within only_example", "root", "valid", ""),
    ("capitals", "upper_within only_example", "root", "valid", ""),
    ("common name within", "cn_within only_example", "root", "valid", ""),
    ("common name without", "cn_without only_example", "root", "untrusted", "forbid 'mx.example.net'"),
    ("common name that is no host", "cn_no_host only_example", "root", "valid", ""),
    ("common name beside a DNS-ID", "cn_beside only_example", "root", "valid", ""),
    ("common name with NUL", "cn_with_nul only_example", "root", "untrusted", "forbid a name that cannot be compared"),
    ("dot before the base: host", "of_only_dot_example only_dot_example", "root", "valid", ""),
    ("dot before the base: itself", "dot_itself only_dot_example", "root", "untrusted", "forbid 'example.org'"),
    ("excluded", "of_not_example not_example", "root", "untrusted", "'not_example' forbid 'mx.example.org'"),
    ("not excluded", "of_not_example_net not_example", "root", "valid", ""),
    ("permitted and excluded", "of_both_ways both_ways", "root", "untrusted", "forbid 'mx.example.org'"),
    ("empty base holds all", "of_all all", "root", "valid", ""),
    ("the root's own constraints", "of_root_only_net", "root_only_net", "untrusted", "forbid 'mx.example.org'"),
    ("constraints two steps up", "leaf_of_low low_of_only_example only_example", "root", "untrusted", "example.net"),
    ("self-issued authorities are free", "of_self_named self_named only_dir_named", "root", "valid", ""),
    ("IPv4 within", "ip_within only_net_ip", "root", "valid", ""),
    ("IPv4 without", "ip_without only_net_ip", "root", "untrusted", "forbid 'c6:33:64:07'"),
    ("IPv6 against IPv4", "ip6_without only_net_ip", "root", "untrusted", "forbid '20:01:0d:b8"),
    ("all addresses excluded, none there", "of_no_ip no_ip", "root", "valid", ""),
    ("all addresses excluded, one there", "ip_of_no_ip no_ip", "root", "untrusted", "forbid 'c0:00:02:07'"),
    ("a mask with holes", "ip_of_holes holes", "root", "valid", ""),
    ("directory name within", "dir_within only_dir", "root", "valid", ""),
    ("directory name folded", "dir_folded only_dir", "root", "valid", ""),
    ("directory name without", "dir_without only_dir", "root", "untrusted", "forbid 'CN=Wrong'"),
    ("no subject, no directory name", "dir_empty only_dir", "root", "valid", ""),
    ("directory name not excluded", "of_not_dir not_dir", "root", "valid", ""),
    ("directory name excluded", "wrong_of_not_dir not_dir", "root", "untrusted", "forbid 'CN=Wrong'"),
    ("mailbox of the host", "mail_within only_mail", "root", "valid", ""),
    ("mailbox of a host below", "mail_below only_mail", "root", "untrusted", "forbid 'postmaster@mx.example.org'"),
    ("mailbox elsewhere", "mail_without only_mail", "root", "untrusted", "forbid 'postmaster@example.net'"),
    ("mailbox elsewhere, in the subject", "mail_in_subject only_mail", "root", "untrusted", "'postmaster@example.net'"),
    ("mailbox of a host of the domain", "mail_of_host only_mail_below", "root", "valid", ""),
    ("mailbox of the domain itself", "mail_of_domain only_mail_below", "root", "untrusted", "'postmaster@example.org'"),
    ("the very mailbox", "right_box only_box", "root", "valid", ""),
    ("another mailbox: capitals count", "box_in_capitals only_box", "root", "untrusted", "forbid 'ME@example.org'"),
    ("no mailbox at all", "no_box only_box", "root", "untrusted", "forbid 'example.org'"),
    ("mailbox not excluded", "mail_of_not_mail not_mail", "root", "valid", ""),
    ("URI of the host", "uri_within only_uri", "root", "valid", ""),
    ("URI of a host below", "uri_below only_uri", "root", "untrusted", "forbid 'https://mx.example.org/'"),
    ("URI of a host of the domain", "uri_of_host only_uri_below", "root", "valid", ""),
    ("URI without a host", "uri_no_host only_uri_below", "root", "untrusted", "forbid 'urn:isbn:0'"),
    ("a kind that is not there", "of_only_id only_id", "root", "valid", ""),
    ("a kind that cannot be compared", "id_of_only_id only_id", "root", "untrusted", "forbid"),
    ("cannot be compared, excluded", "id_of_not_id not_id", "root", "untrusted", "forbid"),
    ("a subtree with bounds", "of_bounded bounded", "root", "untrusted", "forbid 'mx.example.org'"),
    ("no constraint in the constraints", "of_no_trees no_trees", "root", "valid", ""),
]  # fmt: skip

DIFFERENT = {
    "its last second": "the end of the validity is inside it (RFC 5280 §4.1.2.5); OpenSSL has it outside",
    "more certificates than anybody sends": "MTAs stop at nine (smtp_tls_scert_verifydepth); `openssl verify` at 100",
    "the leaf itself is trusted, its issuer has expired": "OpenSSL judges what is sent above it too",
    "cross-signed, the far way": "OpenSSL follows the first issuer that fits and never looks back",
    "forged intermediate beside the real one": "likewise",
    "the same, the wrong one first": "likewise: it picks by name and identifier, and then checks the signature",
    "two roots of one name": "likewise",
}

FORGE = Forge(CERTIFICATES)


@pytest.fixture(scope="module")
def chain_of(openssl: str) -> Callable[[str], tuple[bytes, ...]]:
    """Give the certificates of a row; one kind of key is made by the openssl command."""
    return FORGE.chain


@pytest.mark.parametrize(
    ("chain", "roots", "state", "words"), [pytest.param(*row, id=why) for why, *row in CHAINS]
)
def test_check_path(
    chain_of: Callable[[str], tuple[bytes, ...]], chain: str, roots: str, state: str, words: str
) -> None:
    """Each chain gets the first word that holds, and the reason in words; a valid one needs none."""
    check = check_path(chain_of(chain), Roots(chain_of(roots)), AT)
    assert check.state == state
    assert words in "; ".join(check.reasons)
    assert (check.state is PkixState.VALID) == (not check.reasons)


@pytest.mark.parametrize(
    ("why", "chain", "roots", "state"), [pytest.param(*row[:4], id=row[0]) for row in CHAINS]
)
def test_openssl_agrees(
    openssl_verify: Callable[..., Said], why: str, chain: str, roots: str, state: str
) -> None:
    """`openssl verify` takes the same chains and refuses the same, but for those of `DIFFERENT`."""
    said = openssl_verify(FORGE.chain(chain), FORGE.chain(roots))
    assert said.valid == ((state == PkixState.VALID) == (why not in DIFFERENT)), said.words


# -- chains by chance ----------------------------------------------------------------------------------------

SUBTREES = ["dns:example.org", "dns:.example.org", "dns:org", "dns:", "dns:example.net", "ip:192.0.2.0/24", "dir:leaf",
            "dir:x", "mail:example.org", "mail:.example.org", "uri:example.org", "id:1.2.3"]  # fmt: skip
ALL_NAMES = ["dns:mx.example.org", "dns:example.org", "dns:*.example.org", "dns:mx.example.net", "ip:192.0.2.1",
             "ip:2001:db8::1", "mail:a@example.org", "mail:a@b.example.org", "uri:https://example.org/", "id:1.2.3",
             "dns:b\xfccher.example"]  # fmt: skip
ODDITIES: list[tuple[float, Callable[[Random, bool], dict[str, Any]]]] = [
    (0.1, lambda chance, leaf: {"days": chance.choice([(-30, -1), (1, 30), (-30, 9999), (-9000, 60)])}),
    (0.05, lambda chance, leaf: {"version": chance.choice([1, 2, 4])}),
    (0.15, lambda chance, leaf: {"path_length": chance.randint(0, 2)}),
    (0.2, lambda chance, leaf: {"usage": chance.choice([None, (5, 6), (0,), (0, 5), (2,), (4,), (1,), (6,), (8, 0)])}),
    (0.15, lambda chance, leaf: {"purposes": tuple(chance.sample([SERVER_AUTH, CLIENT_AUTH, ANY_PURPOSE, STEP_UP], 2))}),
    (0.2, lambda chance, leaf: {} if leaf else {"permitted": tuple(chance.sample(SUBTREES, 2))}),
    (0.1, lambda chance, leaf: {} if leaf else {"excluded": tuple(chance.sample(SUBTREES, 2))}),
    (0.1, lambda chance, leaf: {"key_id": chance.choice([b"", b"x"])}),
    (0.1, lambda chance, leaf: {"issuer_key_id": chance.choice([b"", b"x"])}),
    (0.05, lambda chance, leaf: {"issuer_serial": chance.choice([5, serial_of("authority1")])}),
    (0.2, lambda chance, leaf: {"common_name": chance.choice([MX, "", "x", "mx.example.net", "a b.org"])} if leaf else {}),
    (0.05, lambda chance, leaf: {"mail": chance.choice(["a@example.org", "a@example.net"])}),
    (0.05, lambda chance, leaf: {"signer": "stranger"}),
    (0.05, lambda chance, leaf: {"extensions": ((UNKNOWN, chance.random() < 0.5, b"\x05\x00"),)}),
    (0.05, lambda chance, leaf: {"extensions": ((CERT_TYPE, False, bytes([3, 2, 0, chance.choice([0x80, 0x40, 4])])),)}),
]  # fmt: skip


def chain_by_chance(chance: Random) -> tuple[list[bytes], list[bytes]]:
    """Make a chain with some oddities, and the roots to judge it by."""
    table: dict[str, Cert] = {"stranger": Cert(ca=True)}
    path: list[str] = []
    depth = chance.randint(1, 4)
    for step in range(depth):
        leaf = step == depth - 1
        said: dict[str, Any] = {"issuer": path[-1] if path else "", "ca": not leaf}
        said["kind"] = chance.choice(["ec", "ec", "ec", "p384", "ed25519", "ed448"])
        if leaf:
            said["names"] = tuple(chance.sample(ALL_NAMES, chance.randint(0, 3)))
        if chance.random() < 0.1:
            said["ca"] = chance.choice([None, leaf])
        for likelihood, oddity in ODDITIES:
            if chance.random() < likelihood:
                said |= oddity(chance, leaf)
        path.append("leaf" if leaf else f"authority{step}")
        table[path[-1]] = Cert(**said)
    *authorities, _ = path
    root = chance.choice(authorities[:1] * 9 + authorities) if authorities else "leaf"
    sent = authorities[::-1] + ["stranger"] * (chance.random() < 0.2)
    if chance.random() < 0.3:
        chance.shuffle(sent)
    if chance.random() < 0.05:
        sent = sent[1:]
    forge = Forge(table)
    return [forge.der("leaf"), *map(forge.der, sent)], [forge.der(root)]


def test_openssl_agrees_on_chains_by_chance(openssl_verify: Callable[..., Said]) -> None:
    """However oddities come together, `openssl verify` says the same; a few in a hundred chains are valid."""
    valid = 0
    for number in range(200):
        chance = Random(number)
        chain, roots = chain_by_chance(chance)
        host = MX if chance.random() < 0.5 else None
        said = openssl_verify(chain, roots, host)
        state = (
            check_pkix(chain, Roots(roots), host, AT).state
            if host
            else check_path(chain, Roots(roots), AT).state
        )
        assert said.valid == (state is PkixState.VALID), f"{number}: {state}, openssl: {said.words}"
        valid += said.valid
    assert valid > 20


# -- names ---------------------------------------------------------------------------------------------------

# why, names of the certificate, its common name, host, what matches (dns, cn or nothing)
NAMES_OF_HOSTS: list[tuple[str, tuple[str, ...], str, str, str]] = [
    ("DNS-ID", LEAF, "", MX, "dns"),
    ("one of several", ("dns:a.example", "dns:b.example", *LEAF), "", MX, "dns"),
    ("capitals in the certificate", ("dns:MX.Example.ORG",), "", MX, "dns"),
    ("capitals in the host", LEAF, "", "MX.EXAMPLE.ORG", "dns"),
    ("dot at the end of the host", LEAF, "", "mx.example.org.", "dns"),
    ("dot at the end of the DNS-ID", ("dns:mx.example.org.",), "", MX, "dns"),
    ("another host", ("dns:mx.example.net",), "", MX, ""),
    ("the domain", ("dns:example.org",), "", MX, ""),
    ("a host below", ("dns:a.mx.example.org",), "", MX, ""),
    ("wildcard", ("dns:*.example.org",), "", MX, "dns"),
    ("wildcard in capitals", ("dns:*.EXAMPLE.ORG",), "", MX, "dns"),
    ("wildcard for two labels", ("dns:*.example.org",), "", "a.mx.example.org", ""),
    ("wildcard for none", ("dns:*.example.org",), "", "example.org", ""),
    ("wildcard over an A-label", ("dns:*.example.org",), "", "xn--bcher-kva.example.org", "dns"),
    ("wildcard over a label with an underscore", ("dns:*.example.org",), "", "mx_1.example.org", "dns"),
    ("wildcard over a public suffix", ("dns:*.org",), "", "example.org", "dns"),
    ("wildcard in part of a label", ("dns:m*.example.org",), "", MX, ""),
    ("wildcard inside", ("dns:mx.*.org",), "", MX, ""),
    ("two wildcards", ("dns:*.*.org",), "", MX, ""),
    ("wildcard alone", ("dns:*",), "", MX, ""),
    ("wildcard alone, one label", ("dns:*",), "", "localhost", ""),
    ("a host that is a wildcard", ("dns:*.example.org",), "", "*.example.org", ""),
    ("A-label", ("dns:xn--bcher-kva.example",), "", "xn--bcher-kva.example", "dns"),
    ("U-label in Latin-1", ("dns:b\xfccher.example",), "", "xn--bcher-kva.example", ""),
    ("NUL inside", ("dns:mx.example.org\0.example.net",), "", MX, ""),
    ("NUL at the end", ("dns:mx.example.org\0",), "", MX, ""),
    ("space at the end", ("dns:mx.example.org ",), "", MX, ""),
    ("empty DNS-ID", ("dns:",), "", MX, ""),
    ("empty DNS-ID beside", ("dns:", *LEAF), "", MX, "dns"),
    ("address", ("ip:192.0.2.1",), "", MX, ""),
    ("address as a host", ("ip:192.0.2.1",), "", "192.0.2.1", ""),
    ("address written as a DNS-ID", ("dns:192.0.2.1",), "", "192.0.2.1", ""),
    ("URI", ("uri:https://mx.example.org/",), "", MX, ""),
    ("mailbox", ("mail:postmaster@mx.example.org",), "", MX, ""),
    ("common name", (), MX, MX, "cn"),
    ("common name in capitals", (), "MX.EXAMPLE.ORG", MX, "cn"),
    ("common name with a wildcard", (), "*.example.org", MX, "cn"),
    ("common name beside another DNS-ID", ("dns:a.example",), MX, MX, ""),
    ("common name beside an address", ("ip:192.0.2.1",), MX, MX, "cn"),
    ("common name with a Kelvin sign", (), "m\u212a.example.org", "mk.example.org", ""),
    ("common name with NUL", (), "mx.example.org\0.example.net", MX, ""),
    ("no name at all", (), "", MX, ""),
    ("no host", LEAF, "", "", ""),
]

READ_OTHERWISE = {
    "dot at the end of the host": "the same name (RFC 1034 §3.1); OpenSSL compares the characters",
    "dot at the end of the DNS-ID": "likewise",
    "wildcard over a label with an underscore": "OpenSSL wants letters, digits and hyphens there",
    "wildcard over a public suffix": "RFC 9525 §6.3 leaves out no suffix; OpenSSL wants two dots",
    "wildcard in part of a label": "RFC 9525 §6.3 wants the whole label; OpenSSL takes less unless told otherwise",
    "a host that is a wildcard": "it is no host; OpenSSL compares the characters",
    "address written as a DNS-ID": "an address is no DNS name (RFC 9525 §6.2); OpenSSL was told of a host name",
    "no host": "OpenSSL then checks no name",
}


def named(names: tuple[str, ...], common_name: str) -> tuple[bytes, bytes]:
    """Make a chain whose leaf has these names."""
    forge = Forge({**CERTIFICATES, "named": Cert("mid", names=names, common_name=common_name)})
    return forge.der("named"), FORGE.der("mid")


@pytest.mark.parametrize(
    ("names", "common_name", "host", "matched"), [pytest.param(*row, id=why) for why, *row in NAMES_OF_HOSTS]
)
def test_names(names: tuple[str, ...], common_name: str, host: str, matched: str) -> None:
    """A certificate is for a host by DNS-ID, or, where mail allows it and there is none, by common name."""
    chain, roots = named(names, common_name), Roots(FORGE.chain("root"))
    for cn_id in (True, False):
        check = check_pkix(chain, roots, host, AT, cn_id=cn_id)
        matches = matched == "dns" or (cn_id and matched == "cn")
        assert check.state == (PkixState.VALID if matches else PkixState.NAME_MISMATCH)
        assert check.name_match == matches == (not check.detail)
        assert check.dns_id_match == (matched == "dns")
        assert check.name_from_cn == (cn_id and matched == "cn")
        assert check.trusted


@pytest.mark.parametrize(
    ("why", "names", "common_name", "host", "matched"),
    [pytest.param(*row, id=row[0]) for row in NAMES_OF_HOSTS],
)
def test_openssl_agrees_on_names(
    openssl_verify: Callable[..., Said],
    why: str,
    names: tuple[str, ...],
    common_name: str,
    host: str,
    matched: str,
) -> None:
    """`openssl verify -verify_hostname` takes the same names, but for those of `READ_OTHERWISE`."""
    said = openssl_verify(named(names, common_name), FORGE.chain("root"), host or None)
    assert said.valid == (bool(matched) == (why not in READ_OTHERWISE)), said.words


# why, chain, roots, host, state, words of the detail
PRECEDENCE = [
    ("no certificate", "", "root", MX, "anonymous", "no certificate"),
    ("valid", "leaf mid", "root", MX, "valid", ""),
    ("another host", "leaf mid", "root", "mx.example.net", "name_mismatch", "for mx.example.org, not for mx.example.net"),
    ("expired and another host", "expired mid", "root", "a.example", "expired", "'expired' expired on 2026-11-23; the"),
    ("self-signed and another host", "own", "root", "a.example", "self_signed", "self-signed; the certificate is for"),
    ("untrusted and another host", "leaf", "root", "a.example", "untrusted", "nor a root; the certificate is for"),
    ("forged and another host", "forged mid", "root", "a.example", "bad_signature", "key; the certificate is for"),
    ("malformed and another host", "twice mid", "root", "a.example", "malformed", "it has two subjectAltName; the"),
    ("for clients, unknown extension, wrong issuer", "worst no_ca", "root", "a.example", "untrusted",
     "'no name' has an unknown critical extension 1.3.6.1.4.1.55555.1; 'no name' is not for TLS servers (extended key "
     "usage); 'no_ca' may not sign certificates; the certificate has no name to compare with a.example"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("chain", "roots", "host", "state", "words"), [pytest.param(*row, id=why) for why, *row in PRECEDENCE]
)
def test_precedence(chain: str, roots: str, host: str, state: str, words: str) -> None:
    """The first word that holds is the verdict; every reason is told."""
    check = check_pkix(FORGE.chain(chain), Roots(FORGE.chain(roots)), host, AT)
    assert check.state == state
    assert words in check.detail
    assert check.trusted == (None if state == "anonymous" else state in ("valid", "name_mismatch"))


def test_junk_has_no_name() -> None:
    """Of what cannot be read it is not told whether it is for a host."""
    check = check_pkix([b"\x30\x00"], Roots(FORGE.chain("root")), MX, AT)
    assert (check.state, check.trusted, check.name_match, check.dns_id_match) == (
        "malformed",
        None,
        None,
        None,
    )


def test_many_names_are_not_all_told() -> None:
    """A certificate for a thousand hosts makes no detail of a thousand lines."""
    check = check_pkix(
        named(tuple(f"dns:{number}.example" for number in range(1000)), ""),
        Roots(FORGE.chain("root")),
        MX,
        AT,
    )
    assert (
        check.detail == "the certificate is for 0.example, 1.example, 2.example, ..., not for mx.example.org"
    )


def test_a_time_without_zone_is_utc() -> None:
    """Stored times that lost their zone are judged as UTC."""
    roots = Roots(FORGE.chain("root"))
    for hours, state in ((-25, "valid"), (-23, "expired")):
        at = AT + dt.timedelta(hours=hours)
        assert check_path(FORGE.chain("expired mid"), roots, at).state == state
        assert check_path(FORGE.chain("expired mid"), roots, at.replace(tzinfo=None)).state == state


# -- roots ---------------------------------------------------------------------------------------------------


def test_roots_of_a_file() -> None:
    """A PEM file is read with the text between its certificates, and its fingerprint is kept."""
    text = (
        b"# our roots\n\n"
        + pem(FORGE.der("stranger"))
        + b"and\r\n"
        + pem(FORGE.der("root")).replace(b"\n", b"\r\n")
    )
    roots = Roots.from_pem(text)
    assert check_path(FORGE.chain("leaf mid"), roots, AT).state is PkixState.VALID
    assert roots.pem == text
    assert roots.sha256 == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(b"", "no certificate is in it", id="empty"),
        pytest.param(
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no certificate", id="key"
        ),
        pytest.param(pem(b"\x30\x00"), "its certificate 1 cannot be read", id="damaged"),
        pytest.param(
            pem(FORGE.der("root"), b"junk"), "its certificate 2 cannot be read", id="second damaged"
        ),
        pytest.param(pem(FORGE.der("root"))[:-200], "no certificate is in it", id="cut off"),
        pytest.param(pem(b"abc").replace(b"YWJj", b"YWJjZ"), "cannot be read", id="bad base64"),
    ],
)
def test_roots_of_a_bad_file(text: bytes, words: str) -> None:
    """What a user takes for a file of roots, and is none, raises and says why."""
    with pytest.raises(ValueError, match=words):
        Roots.from_pem(text)


def test_builtin_roots_are_read_as_cryptography_reads_them() -> None:
    """Each of Mozilla's roots, as another library reads it: names, dates, key; and it bears out its own signature."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one has the serial number 0
        roots = x509.load_pem_x509_certificates(Roots.builtin().pem)
    assert len(roots) > 100
    for root in roots:
        der = root.public_bytes(Encoding.DER)
        assert_same(describe_certificate(der), root)
        assert any("is self-signed" in reason for reason in check_path([der], Roots([]), AT).reasons)
        own = parse_certificate(der)
        assert is_signed_by(own, own.key)


# -- descriptions --------------------------------------------------------------------------------------------


def assert_same(found: Certificate, wanted: x509.Certificate) -> None:
    """Hold a description to what cryptography reads in the same certificate."""
    assert found.sha256 == wanted.fingerprint(hashes.SHA256()).hex()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lengths of names that nobody keeps
        assert (found.subject, found.issuer) == (
            wanted.subject.rfc4514_string(),
            wanted.issuer.rfc4514_string(),
        )
    assert (found.not_before, found.not_after) == (wanted.not_valid_before_utc, wanted.not_valid_after_utc)
    try:
        names = wanted.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        assert not found.dns_names
    else:
        assert found.dns_names == tuple(names.get_values_for_type(x509.DNSName))


def read_by_cryptography(der: bytes) -> x509.Certificate | None:
    """Give a certificate as cryptography reads it; None where it cannot read all of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read = x509.load_der_x509_certificate(der)
            assert read.extensions is not None
            assert read.subject.rfc4514_string() + read.issuer.rfc4514_string() is not None
    except (
        ValueError,
        TypeError,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ):
        return None
    return read


@pytest.mark.parametrize("name", [name for name, cert in CERTIFICATES.items() if isinstance(cert, Cert)])
def test_describe_certificate_as_cryptography_does(openssl: str, name: str) -> None:
    """What cryptography can read of a certificate, we read in the same way, and more than that."""
    found = describe_certificate(FORGE.der(name))
    assert found.not_after is not None
    if (wanted := read_by_cryptography(FORGE.der(name))) is not None:
        assert_same(found, wanted)


KEYS = [
    ("leaf", "EC-P-256"),
    ("p384_mid", "EC-P-384"),
    ("rsa_leaf", "RSA-2048"),
    ("short_leaf", "RSA-1024"),
    ("ed_leaf", "Ed25519"),
    ("ed448_root", "Ed448"),
    ("dsa_root", "DSA-1024"),
]


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_describe_key(openssl: str, name: str, key: str) -> None:
    """A key is named by its kind and size."""
    assert describe_certificate(FORGE.der(name)).key == key


def test_describe_subject() -> None:
    """A subject is written as RFC 4514 wants it, whatever alphabet it is in."""
    assert describe_certificate(FORGE.der("t61_mid")).subject == "CN=B\xfccher"
    odd = Forge({"odd": Cert(common_name=' a,b+"c"\\<d>;#e ', mail="a@b.example")}).der("odd")
    assert describe_certificate(odd).subject == (
        '1.2.840.113549.1.9.1=a@b.example,CN=\\ a\\,b\\+\\"c\\"\\\\\\<d\\>\\;#e\\ '
    )
    assert describe_certificate(odd).subject == x509.load_der_x509_certificate(odd).subject.rfc4514_string()


def test_describe_junk() -> None:
    """Junk is described by its fingerprint alone."""
    junk = describe_certificate(b"junk")
    assert junk == Certificate(hashlib.sha256(b"junk").hexdigest(), b"junk")


# -- hostile input -------------------------------------------------------------------------------------------


@pytest.fixture
def signatures(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Give a list that grows by one with each signature that is checked."""
    checked: list[None] = []

    def count(*arguments: Any) -> bool:
        checked.append(None)
        return is_signed_by(*arguments)

    certificates._kept_signature.cache_clear()
    monkeypatch.setattr(certificates, "is_signed_by", count)
    return checked


def loop_table(size: int) -> dict[str, Cert]:
    """Describe a hundred certificates of one name, each signed by the next one's key."""
    return {
        f"loop{number}": Cert(f"loop{(number + 1) % size}", ca=True, common_name="Loop", **NO_KEY_ID)
        for number in range(size)
    } | {"in_loop": Cert("loop0", names=LEAF, **NO_KEY_ID)}


def mesh_table(size: int) -> dict[str, Cert]:
    """Describe authorities that have each certified each other."""
    own = {f"own{number}": Cert(ca=True, common_name=f"A{number}", **NO_KEY_ID) for number in range(size)}
    cross = {
        f"cross{number}_{by}": Cert(
            f"own{by}", ca=True, common_name=f"A{number}", key=f"own{number}", **NO_KEY_ID
        )
        for number in range(size)
        for by in range(size)
        if number != by
    }
    return own | cross | {"in_mesh": Cert("own0", names=LEAF, **NO_KEY_ID)}


def ladder_table(rungs: int) -> dict[str, Cert]:
    """Describe a ladder of authorities that is there twice on every rung: two to the power of rungs ways."""
    table = {"top": Cert(ca=True, **NO_KEY_ID)}
    for rung in range(rungs):
        by = f"rung{rung - 1}a" if rung else "top"
        for side in "ab":
            table[f"rung{rung}{side}"] = Cert(
                by, ca=True, common_name=f"R{rung}", key=f"rung{rung}a" * (side == "b"), **NO_KEY_ID
            )
    return table | {"on_ladder": Cert(f"rung{rungs - 1}a", names=LEAF, **NO_KEY_ID)}


HOSTILE = [
    ("a hundred of one name", loop_table(99), "in_loop", "untrusted"),
    ("ten that certified each other", mesh_table(10), "in_mesh", "untrusted"),
    ("a ladder without a root", ladder_table(9), "on_ladder", "untrusted"),
]


@pytest.mark.parametrize(("table", "leaf", "state"), [pytest.param(*row, id=why) for why, *row in HOSTILE])
def test_hostile_graphs(signatures: list[None], table: dict[str, Cert], leaf: str, state: str) -> None:
    """However authorities are tangled, the search ends after a hundred signatures and says so."""
    forge = Forge(table)
    chain = [forge.der(leaf), *(forge.der(name) for name in table if name not in (leaf, "top"))]
    check = check_path(chain, Roots(FORGE.chain("root")), AT)
    assert check.state == state
    assert f"no root within {MAX_SIGNATURES} signatures" in check.reasons[0]
    assert len(signatures) <= MAX_SIGNATURES


def test_hostile_ladder_with_a_root(signatures: list[None]) -> None:
    """Where every way leads to a root the search stops at the eighth."""
    table = ladder_table(8)
    forge = Forge(table)
    chain = [forge.der("on_ladder"), *(forge.der(name) for name in table if name != "on_ladder")]
    roots = Roots([forge.der("top")])
    assert check_path(chain, roots, AT).state is PkixState.VALID
    assert len(roots.chain(tuple(chain)).paths) == MAX_PATHS
    assert len(signatures) <= MAX_SIGNATURES


def test_hostile_length(signatures: list[None]) -> None:
    """Of a chain of thousands only the first hundred certificates are looked at."""
    table = loop_table(2)
    forge = Forge(table)
    late = [FORGE.der("leaf"), *[forge.der("loop0"), forge.der("loop1")] * 3000, FORGE.der("mid")]
    assert check_path(late, Roots(FORGE.chain("root")), AT).state is PkixState.UNTRUSTED
    assert len(signatures) <= MAX_SIGNATURES


def test_hostile_constraints() -> None:
    """Thousands of names under hundreds of constraints are not all compared."""
    names = tuple(f"dns:{number}.example" for number in range(1000))
    table = {
        "root": Cert(ca=True),
        "strict": Cert("root", ca=True, excluded=tuple(f"dns:{number}.example.org" for number in range(100))),
        "many": Cert("strict", names=names),
    }
    forge = Forge(table)
    check = check_path(forge.chain("many strict"), Roots([forge.der("root")]), AT)
    assert check.reasons == ("the name constraints of 'strict' forbid more names than can be compared",)


CHAIN = FORGE.chain("leaf mid root")
ROOTS = Roots(FORGE.chain("root"))


@given(st.lists(st.binary(max_size=300), max_size=5), st.text(max_size=40))
def test_any_octets(chain: list[bytes], host: str) -> None:
    """Any octets in place of certificates, and any text for a host, get a verdict."""
    state = check_pkix(chain, ROOTS, host, AT).state
    assert state == (PkixState.MALFORMED if chain else PkixState.ANONYMOUS)
    for der in chain:
        assert describe_certificate(der).der == der


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """Give a real certificate of some kind with a few octets changed, taken out or put in."""
    name = draw(
        st.sampled_from(
            ["leaf", "sha1_ec_leaf", "right_serial", "uri_within", "ip_of_holes", "t61_mid", "holes"]
        )
    )
    data = bytearray(FORGE.der(name))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        piece = draw(st.binary(max_size=3))
        data[at : at + draw(st.integers(0, 3))] = piece
        if not data:
            break
    return bytes(data)


@given(mutations(), st.integers(0, 2))
@settings(max_examples=300, deadline=None)
def test_any_mutation(der: bytes, place: int) -> None:
    """A damaged certificate, wherever it stands in the chain, gets a verdict and a description."""
    chain = [*CHAIN[:place], der, *CHAIN[place:]]
    assert check_pkix(chain, ROOTS, MX, AT).state in PkixState
    assert check_pkix(chain, Roots([der]), MX, AT).state in PkixState
    assert describe_certificate(der).sha256 == hashlib.sha256(der).hexdigest()


@given(st.integers(0, 1 << 20), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_a_changed_octet_is_found(at: int, change: int) -> None:
    """No octet of a certificate can be changed without breaking its signature."""
    leaf = bytearray(CHAIN[0])
    leaf[at % len(leaf)] ^= change
    assert check_path([bytes(leaf), *CHAIN[1:]], ROOTS, AT).state is not PkixState.VALID


@given(mutations())
@settings(max_examples=300, deadline=None)
def test_mutations_are_read_as_cryptography_reads_them(der: bytes) -> None:
    """Where cryptography can read a damaged certificate, and we can, we read the same in it."""
    found = describe_certificate(der)
    if found.not_after is not None and (wanted := read_by_cryptography(der)) is not None:
        assert_same(found, wanted)
