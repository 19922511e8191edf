from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.standards.received import (
    MAX_FIELD,
    TLS_VERSIONS,
    HopTls,
    is_anonymous,
    parse_received,
    tls_version,
    why_not_requiretls,
)

SHARED = Path(__file__).parents[3] / "shared" / "data" / "received"
DATE = "; Mon, 3 Aug 2026 10:00:00 +0000 (UTC)"
FROM = "from mx1.example.net (mx1.example.net [192.0.2.25])"
USING = (
    "(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519 server-signature"
)


def encrypted(
    version: str | None, cipher: str | None, bits: int | None = None, **more: Any
) -> dict[str, Any]:
    return {"tls": "encrypted", "tls_version": version, "cipher": cipher, "cipher_bits": bits, **more}


SHAPES: list[tuple[str, str, dict[str, Any]]] = [
    (
        "Postfix, raw public key",
        f"{FROM} {USING} ECDSA (prime256v1 raw public key) server-digest SHA256) (No client certificate requested) "
        "by mx.example.org (Postfix) with ESMTPS id 4abc",
        encrypted("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, mta="postfix", queue_id="4abc"),
    ),
    (
        "Postfix, the client's certificate verified",
        f'{FROM} {USING} RSA-PSS (2048 bits)) (Client CN "a (b)", Issuer "C" (verified OK)) by m.example (Postfix) '
        "with ESMTPS id 1",
        encrypted("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, tls="authenticated_client"),
    ),
    (
        "Postfix, the client's raw key is but named",
        f"{FROM} {USING} RSA-PSS (2048 bits)) (Client RPK ecdsa digest 01:02) by m.example (Postfix) with ESMTPS id 1",
        encrypted(
            "TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, client_certificate="Client RPK ecdsa digest 01:02"
        ),
    ),
    (
        "Postfix without smtpd_tls_received_header",
        f"{FROM} by mx.example.org (Postfix) with ESMTPS id 4abc for <a@example.org>",
        encrypted(None, None, recipient="a@example.org", mta="postfix"),
    ),
    (
        "Postfix, cleartext",
        f"{FROM} by mx.example.org (Postfix) with ESMTP id 4abc",
        {"tls": "none", "mta": "postfix"},
    ),
    (
        "Exim 4.93 and later",
        "from mx1.example.net ([192.0.2.25]) by mx.example.org with esmtps (TLS1.3) tls TLS_AES_256_GCM_SHA384 "
        "(Exim 4.98) (envelope-from <a@example.net>) id 1uXyZa-000000001ab-2Bcd for a@example.org",
        encrypted("TLSv1.3", "TLS_AES_256_GCM_SHA384", mta="exim", queue_id="1uXyZa-000000001ab-2Bcd"),
    ),
    (
        "Exim with GnuTLS",
        "from [192.0.2.25] (helo=x.example.net) by m.example with esmtpsa "
        "(TLS1.3:ECDHE_X25519__RSA_PSS_RSAE_SHA256__AES_256_GCM:256) (Exim 4.92.3) id 1abcde-000abc-Xy",
        encrypted(
            "TLSv1.3",
            "ECDHE_X25519__RSA_PSS_RSAE_SHA256__AES_256_GCM",
            256,
            helo_name="x.example.net",
            is_authenticated=True,
        ),
    ),
    (
        "Exim 4.50 with GnuTLS, within one host",
        "from root (helo=a.example.net) by b.example.net with local-esmtps (tls_cipher TLS-1.0:RSA_AES_256_CBC_SHA:32) "
        "(Exim 4.50 #1 (Debian)) id 1FwHqR-0008Bw-OG",
        encrypted("TLSv1.0", "RSA_AES_256_CBC_SHA", 32, is_inside_host=True),
    ),
    (
        "Exim, TLS on connect, whose word has no final s",
        "from a.example ([192.0.2.1]) by b.example with essmtpa (Exim 4.98) id 1uXyZa-000000001ab-2Bcd",
        encrypted(None, None, is_authenticated=True),
    ),
    (
        "Exim 4.92 with its REQUIRETLS experiment",
        "from a.example ([192.0.2.1]) by b.example with esmtpS (TLS1.2:X-Y:256) (Exim 4.92.3) id 1abcde-000abc-Xy",
        encrypted("TLSv1.2", "X-Y", 256, requiretls_mark="esmtpS"),
    ),
    (
        "the same word in capitals is the common one",
        "from a.example ([192.0.2.1]) by b.example with ESMTPS id 1",
        encrypted(None, None, requiretls_mark=None),
    ),
    (
        "sendmail tells TLS in a comment only",
        f"{FROM} by h.example (8.13.1/8.13.1) with ESMTP id n01 (version=TLSv1/SSLv3 cipher=DHE-RSA-AES256-SHA "
        "bits=256 verify=FAIL)",
        encrypted(None, "DHE-RSA-AES256-SHA", 256, client_certificate="FAIL", mta="sendmail"),
    ),
    (
        "sendmail, the client's certificate verified",
        f"{FROM} by h.example (8.18.1/8.18.1) with ESMTPS id n01 (version=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384 "
        "bits=256 verify=OK)",
        encrypted("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, tls="authenticated_client"),
    ),
    ("sendmail, cleartext", f"{FROM} by h.example (8.18.1/8.18.1) with ESMTP id n01", {"tls": "none"}),
    (
        "Gmail",
        f"{FROM} by mx.google.com with ESMTPS id a1si2.1.2026.08.03.03.00.00 for <a@example.org> (version=TLS1_3 "
        "cipher=TLS_AES_256_GCM_SHA384 bits=256/256)",
        encrypted("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, mta="google"),
    ),
    (
        "within Google, where nothing is said",
        f"{FROM} by mail-x.google.com with SMTP id a1.1.2026.08.03.03.00.00",
        {"tls": "unknown", "mta": "google"},
    ),
    (
        "Exchange",
        "from a.outlook.com (2603:10a6::1) by b.outlook.com (2603:10a6::2) with Microsoft SMTP Server (version=TLS1_2, "
        "cipher=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384) id 15.20.1.1 via Frontend Transport",
        encrypted(
            "TLSv1.2",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            with_protocol="Microsoft SMTP Server",
            mta="exchange",
            from_address="2603:10a6::1",
            queue_id="15.20.1.1",
        ),
    ),
    (
        "Exchange, within a mailbox server",
        "from a.outlook.com ([fe80::1]) by a.outlook.com ([fe80::1%6]) with mapi id 15.20.1.1",
        {"tls": "unknown", "with_protocol": "mapi", "is_inside_host": True, "mta": "exchange"},
    ),
    (
        "Yahoo, the comment behind the date",
        f"from 192.0.2.25 (EHLO a.example) by atlas.yahoo.com with SMTPS{DATE} (version=TLS1_3 "
        "cipher=TLS_AES_128_GCM_SHA256)",
        encrypted(
            "TLSv1.3", "TLS_AES_128_GCM_SHA256", mta="yahoo", helo_name="a.example", from_address="192.0.2.25"
        ),
    ),
    (
        "OpenSMTPD, the client's certificate verified",
        f"{FROM} by m.example (OpenSMTPD) with ESMTPSA id 0badc0de (TLSv1.3:TLS_AES_256_GCM_SHA384:256:YES) auth=yes user=u",
        encrypted(
            "TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, tls="authenticated_client", client_certificate="YES"
        ),
    ),
    (
        "OpenSMTPD, a local socket",
        "from localhost (m.example [local]) by m.example (OpenSMTPD) with ESMTPA id 5db34e0d",
        {"tls": "none", "is_inside_host": True},
    ),
    (
        "qmail with the TLS patch, cipher in a comment",
        "from unknown (HELO a.example) (192.0.2.25) by b.example with (ECDHE-RSA-AES256-GCM-SHA384 encrypted) SMTP",
        encrypted(
            None, "ECDHE-RSA-AES256-GCM-SHA384", with_protocol="SMTP", mta="qmail", from_address="192.0.2.25"
        ),
    ),
    (
        "qmail with the TLS patch, cipher in words",
        "from a.example (HELO b.example) (192.0.2.25) by c.example with AES256-SHA encrypted SMTP",
        encrypted(None, "AES256-SHA", with_protocol="SMTP", reverse_name="a.example", helo_name="b.example"),
    ),
    (
        "Haraka",
        f"{FROM} by m.example (Haraka/3.3.4) with ESMTPSA id U-1.1 envelope-from <a@example.net> tls "
        "TLS_AES_256_GCM_SHA384 (authenticated bits=0)",
        encrypted(None, "TLS_AES_256_GCM_SHA384", is_authenticated=True, mta="haraka", queue_id="U-1.1"),
    ),
    (
        "Stalwart",
        "from a.example (a.example [2001:db8::25] (AS1 64500, CC)) (using TLSv1.3 with cipher TLS13_AES_256_GCM_SHA384) "
        "by m.example (Stalwart SMTP) with ESMTPS id 3A1",
        encrypted("TLSv1.3", "TLS13_AES_256_GCM_SHA384", mta="stalwart", from_address="2001:db8::25"),
    ),
    (
        "mox, with the mark of REQUIRETLS",
        f"{FROM} by m.example ([192.0.2.26]) via tcp with ESMTPS (requiretls) id X (TLS1.3 TLS_AES_128_GCM_SHA256) for "
        "<a@example.org>",
        encrypted("TLSv1.3", "TLS_AES_128_GCM_SHA256", mta="mox", requiretls_mark="requiretls"),
    ),
    (
        "maddy, with a word that is not registered",
        f"{FROM} by m.example (envelope-sender <a@example.net>) with UTF8ESMTPS id 0a1b",
        encrypted(None, None, mta="maddy", with_protocol="UTF8ESMTPS"),
    ),
    (
        "chasquid",
        "from [192.0.2.25] (a.example) by m.example (chasquid) with ESMTPS tls TLS_AES_128_GCM_SHA256 (over SMTP, TLS-1.3, "
        'envelope from "a@example.net")',
        encrypted("TLSv1.3", "TLS_AES_128_GCM_SHA256", mta="chasquid"),
    ),
    (
        "chasquid says that there was none",
        'from [192.0.2.25] (a.example) by m.example (chasquid) with ESMTP (over SMTP, plain text!, envelope from "")',
        {"tls": "none", "mta": "chasquid"},
    ),
    (
        "Ecelerity, a comment that is never closed",
        "from [192.0.2.25] by m.example (ecelerity 3.6.5.1 r(Core:3.6.5.0)) with ESMTPS (cipher=AES256-SHA id 2/0",
        encrypted(None, "AES256-SHA", with_protocol="ESMTPS", mta="ecelerity"),
    ),
    (
        "Mimecast names STARTTLS as a second protocol",
        f"{FROM} by relay.mimecast.com with ESMTP with STARTTLS (version=TLSv1.3, cipher=TLS_AES_256_GCM_SHA384) id us-mta-1",
        encrypted("TLSv1.3", "TLS_AES_256_GCM_SHA384", with_protocol="ESMTP", mta="mimecast"),
    ),
    (
        "Courier, with the login beside",
        "from [192.0.2.1] (a.example [192.0.2.1]) (AUTH: CRAM-MD5 u@x, TLS: TLS1.3, 128bits, ECDHE_RSA_AES_128_GCM_SHA256) "
        "by m.example with ESMTPSA id 00000000005DC0D6.0000000064EC6711.00003756",
        encrypted("TLSv1.3", "ECDHE_RSA_AES_128_GCM_SHA256", 128, mta="courier", is_authenticated=True),
    ),
    (
        "the clause of RFC 8314",
        f"{FROM} by m.example with ESMTPS tls 0x1301 group secp256r1 id 1",
        encrypted(None, "0x1301", queue_id="1"),
    ),
    (
        "CommuniGate's own word",
        "from [192.0.2.1] (account u HELO [192.0.2.9]) by m.example (CommuniGate Pro SMTP 3.5.7) with ESMTP-TLS id 2",
        encrypted(None, None, with_protocol="ESMTP-TLS", helo_name="[192.0.2.9]"),
    ),
    (
        "an unknown server's ESMTP tells nothing",
        "from a.example ([192.0.2.1]) by b.example with ESMTP id 1",
        {"tls": "unknown", "mta": None},
    ),
    (
        "SMTPSVC holds the letters SMTPS",
        "from a.example ([192.0.2.1]) by b.example with Microsoft SMTPSVC(6.0.3790.1830)",
        {"tls": "unknown", "mta": "smtpsvc", "with_protocol": "Microsoft SMTPSVC"},
    ),
    (
        "words of TLS in the client's names tell nothing",
        "from with.tls.example (ESMTPS [192.0.2.1]) by mx.example (Postfix) with ESMTP id 1",
        {"tls": "none", "cipher": None, "with_protocol": "ESMTP"},
    ),
    (
        "a client that greets with a word of TLS",
        "from unknown (HELO encrypted) (192.0.2.25) by b.example with SMTP",
        {"tls": "unknown", "cipher": None, "helo_name": "encrypted"},
    ),
    (
        "a client that greets with words of a Received field",
        "from a with ESMTPS cipher=X-Y (unknown [192.0.2.1]) by mx.example (Postfix) with ESMTP id 1",
        {"tls": "none", "with_protocol": "ESMTP", "from_address": "192.0.2.1"},
    ),
    (
        "a client that greets with a keyword",
        "from by (unknown [192.0.2.1]) by mx.example (Postfix) with ESMTP id 1",
        {"from_name": "by", "by_host": "mx.example", "tls": "none"},
    ),
    (
        "an anonymous cipher, whatever else is said",
        f"{FROM} (using TLSv1.2 with cipher AECDH-AES256-SHA (256/256 bits)) (No client certificate requested) by "
        "m.example (Postfix) with ESMTPS id 1",
        encrypted("TLSv1.2", "AECDH-AES256-SHA", 256, tls="anonymous"),
    ),
    (
        "a cipher that encrypts nothing",
        f"{FROM} by m.example (8.15.2/8.15.2) with ESMTPS id 1 (version=TLSv1.2 cipher=NULL-SHA256 bits=0 verify=NO)",
        {"tls": "none", "cipher": "NULL-SHA256", "cipher_bits": 0},
    ),
    (
        "still quoted-printable",
        "from a.outlook.com (192.0.2.1) by b.outlook.com (192.0.2.2) with Microsoft SMTP Server (version=3DTLS1_2, "
        "cipher=3DTLS_RSA_WITH_AES_128_CBC_SHA)",
        encrypted("TLSv1.2", "TLS_RSA_WITH_AES_128_CBC_SHA"),
    ),
    (
        "a pickup by the local program",
        "by mx.example.org (Postfix, from userid 0) id 4abc",
        {"mta": "postfix", "is_inside_host": True, "by_host": "mx.example.org", "tls": "unknown"},
    ),
    ("no keyword at all", "(qmail 27981 invoked by uid 225)", {"mta": "qmail", "is_inside_host": True}),
    (
        "`by` before `from`",
        "by b.example (Postfix) with ESMTPS id 7 from a.example ([192.0.2.1])",
        encrypted(
            None, None, from_name="a.example", by_host="b.example", mta="postfix", from_address="192.0.2.1"
        ),
    ),
    ("capital keywords", "FROM a.example BY b.example WITH SMTP ID 7 FOR <c@d.example>", {"queue_id": "7"}),
    (
        "an address mapped into IPv6",
        "from a ([::ffff:127.0.0.1]) by b with esmtp",
        {"from_address": "::ffff:127.0.0.1"},
    ),
    (
        "names beyond ASCII",
        "from Bücher.example by b.example with UTF8SMTPS id 1",
        {"from_name": "xn--bcher-kva.example"},
    ),
    ("nothing but a date", "", {"by_host": None, "tls": "unknown"}),
]


@pytest.mark.parametrize(("value", "expected"), [pytest.param(v, e, id=why) for why, v, e in SHAPES])
def test_parse_received(value: str, expected: dict[str, Any]) -> None:
    """Each server's form gives the facts that it tells, and no others."""
    hop = parse_received(value + DATE)
    assert {name: getattr(hop, name) for name in expected} == expected
    assert hop.received_at == datetime(2026, 8, 3, 10, tzinfo=UTC)


def shapes() -> list[dict[str, str]]:
    path = SHARED / "shapes.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


WRITERS = {
    "Cisco/IronPort": "ironport",
    "CommuniGate Pro": "communigate",
    "Exchange (HTTPS hop)": "exchange",
    "Kerio Connect": "kerio",
    "McAfee MX Logic": "mxlogic",
    "McAfee gateway": "mcafee",
    "Microsoft SMTPSVC": "smtpsvc",
    "Nemesis (1&1)": "nemesis",
    "Oracle Messaging Server": "oracle",
    "Postfix and derivatives": "postfix",
    "qmail with a TLS patch": "qmail",
}
NOT_NAMED = {"", "emfmta", "IBM SMTP gateway", "unknown (via SSL)"}


@pytest.mark.skipif(not shapes(), reason="no received/shapes.csv beside the repository")
@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in shapes()])
def test_shapes_of_real_mail(row: dict[str, str]) -> None:
    """Every shape of a field with a TLS clause that was seen is read as its truth says."""
    hop = parse_received(row["value"])
    has_tls = hop.tls not in (HopTls.NONE, HopTls.UNKNOWN)
    version = row["tls_version"].replace("ambiguous", "")
    assert (has_tls, hop.with_protocol or "") == (row["tls"] == "yes", row["with_protocol"])
    assert (hop.tls_version or "") == (f"TLSv{version}" if version else "")
    assert (hop.tls_version_text or "", hop.cipher or "") == (row["tls_version_raw"], row["cipher"])
    assert str(hop.cipher_bits or "") == row["bits"]
    assert hop.is_authenticated == (row["auth"] == "yes")
    assert (hop.client_certificate or "") == (row["client_cert"] or row["verify"])
    assert (hop.requiretls_mark is not None) == (row["requiretls"] == "yes")
    if row["family"] not in NOT_NAMED:
        assert hop.mta == WRITERS.get(row["family"], row["family"].lower())


def corpus() -> list[dict[str, Any]]:
    path = SHARED / "stalwart-received.json"
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return found


# Where we read a field otherwise than that project does, with our reason.
READ_OTHERWISE = {
    28: "a queue id goes on after its slash",
    29: "a queue id goes on after its slash",
    30: "a queue id goes on after its slash",
    64: "the address stands behind the name of the user",
    86: "the address stands behind the name of the user",
    87: "the address stands behind the name of the user",
    97: "the address stands behind the name of the user",
    116: "the address stands behind the name of the user",
    119: "the address stands behind the name of the user",
    123: "the first `by` names the host",
    125: "the word as it stands",
    151: "a word in brackets is a name too",
    155: "a field that was damaged on its way",
    165: "qmail names no host there",
    166: "the address of the client is told",
    171: "no `from` clause, but words in a comment",
}


@pytest.mark.skipif(not corpus(), reason="no received/stalwart-received.json beside the repository")
def test_names_of_real_mail() -> None:
    """Hosts, addresses, ids and recipients of another parser's corpus are read as it reads them, but for our reasons."""
    differ = set()
    for number, entry in enumerate(corpus()):
        hop, truth = parse_received(entry["header"]), entry["expected"]
        name, host = (next(iter((truth.get(key) or {"": ""}).values())).lower() for key in ("from", "by"))
        pairs = [
            (name, (hop.from_name or "").strip("[]")),
            (host, (hop.by_host or "").strip("[]")),
            (truth.get("from_ip") or name, hop.from_address or name),
            (truth.get("id"), hop.queue_id),
            (truth.get("for_"), hop.recipient),
        ]
        if any(theirs != ours for theirs, ours in pairs):
            differ.add(number)
        if truth.get("tls_cipher") and hop.cipher != truth["tls_cipher"]:
            differ.add(number)
    assert differ == set(READ_OTHERWISE)


REASONS = [
    (
        "a certificate that may or may not have been verified",
        "(using TLSv1.2 with cipher ECDHE-RSA-X)",
        "TLSv1.2",
        "",
    ),
    ("below the minimum", "(using TLSv1.1 with cipher ECDHE-RSA-X)", "TLSv1.2", "TLSv1.1 is below TLSv1.2"),
    ("at a lower minimum", "(using TLSv1.1 with cipher ECDHE-RSA-X)", "TLSv1.0", ""),
    ("a family of ciphers fits TLS 1.2 too", "(using TLSv1/SSLv3 with cipher AES-X)", "TLSv1.2", ""),
    ("but not TLS 1.3", "(using TLSv1/SSLv3 with cipher AES-X)", "TLSv1.3", "TLSv1/SSLv3 is below TLSv1.3"),
    (
        "anonymous",
        "(using TLSv1.2 with cipher ADH-AES256-SHA)",
        "TLSv1.2",
        "anonymous cipher: the server sent no",
    ),
    ("anonymous, whatever the version", "(using TLSv1 with cipher ADH-X)", "TLSv1.0", "anonymous cipher"),
    ("no TLS", "", "TLSv1.2", "no TLS, which postfix names wherever there is any"),
    ("nothing encrypted", "(using TLSv1.2 with cipher NULL-SHA)", "TLSv1.2", "NULL-SHA encrypts nothing"),
]


@pytest.mark.parametrize(
    ("comment", "minimum", "reason"), [pytest.param(c, m, r, id=why) for why, c, m, r in REASONS]
)
def test_why_not_requiretls(comment: str, minimum: str, reason: str) -> None:
    """A hop is disproved by what it says, and only by that."""
    hop = parse_received(f"{FROM} {comment} by mx.example.org (Postfix) with ESMTP id 1{DATE}")
    found = why_not_requiretls(hop, minimum)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_postfix_before_it_named_tls() -> None:
    """Postfix of 2007 wrote `with ESMTP` for TLS sessions too, so its silence is no cleartext."""
    hop = parse_received(
        f"{FROM} by mx.example.org (Postfix) with ESMTP id 1; Wed, 27 Jun 2007 23:31:23 +0200"
    )
    assert (hop.tls, why_not_requiretls(hop)) == ("unknown", "")


INSIDE = [
    ("loopback", "from a.example (localhost [127.0.0.1]) by b.example (Postfix) with ESMTP id 1", True),
    (
        "loopback in IPv6",
        "from a.example (localhost [IPv6:::1]) by b.example (Postfix) with ESMTP id 1",
        True,
    ),
    (
        "the content filter",
        "from a.example ([192.0.2.1]) by localhost (b.example [127.0.0.1]) with ESMTP id 1",
        True,
    ),
    (
        "its own DNS name",
        "from localhost (b.example [192.0.2.1]) by b.example (Postfix) with ESMTP id 1",
        True,
    ),
    (
        "one address twice",
        "from a.example (10.0.0.1) by b.example (10.0.0.1) with Microsoft SMTP Server id 1",
        True,
    ),
    ("no from", "by b.example (Postfix, from userid 1000) id 1", True),
    (
        "sendmail's submission",
        "(from u@localhost) by b.example (8.12.11/8.12.11/Submit) id iBADHRP6011034",
        True,
    ),
    ("a local protocol", "from u by b.example with local (Exim 4.98) id 1", True),
    ("the pickup of SMTPSVC", "from mail pickup service by b.example with Microsoft SMTPSVC", True),
    ("the same name at a private address", "from b.example ([10.1.2.3]) by b.example with ESMTP id 1", True),
    (
        "a host of a laboratory",
        "from a.test (a.test [127.31.1.2]) by b.test (Postfix) with ESMTP id 1",
        False,
    ),
    (
        "a stranger greets with our name",
        "from b.example (x.example [192.0.2.1]) by b.example with ESMTP id 1",
        False,
    ),
    (
        "a private network has hosts",
        "from a.example (a.example [10.1.2.3]) by b.example (Postfix) with ESMTP id 1",
        False,
    ),
]


@pytest.mark.parametrize(("value", "inside"), [pytest.param(v, i, id=why) for why, v, i in INSIDE])
def test_hops_inside_one_host(value: str, inside: bool) -> None:
    """What is handed over within one host is no hop, so its cleartext disproves nothing."""
    hop = parse_received(value + DATE)
    assert hop.is_inside_host == inside
    if inside:
        assert why_not_requiretls(hop) == ""


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("TLSv1.2", "TLSv1.2"),
        ("TLS1_2", "TLSv1.2"),
        ("TLS1.2", "TLSv1.2"),
        ("TLSv1_2", "TLSv1.2"),
        ("TLS-1.2", "TLSv1.2"),
        ("TLS1_0", "TLSv1.0"),
        ("TLSv1", "TLSv1.0"),
        ("TLS1", "TLSv1.0"),
        ("tlsv1.3", "TLSv1.3"),
        ("SSLv3", "SSLv3"),
        ("TLSv1/SSLv3", None),
        ("SSLv2", None),
        ("TLSv1.7", None),
        ("TLS", None),
    ],
)
def test_tls_version(text: str, version: str | None) -> None:
    """Servers spell versions in many ways; one that fits several sessions is none."""
    assert tls_version(text) == version


def test_anonymous_ciphers_in_every_spelling() -> None:
    """OpenSSL, IANA and GnuTLS each have their own words for a suite without a certificate."""
    anonymous = (
        "ADH-AES256-SHA",
        "AECDH-AES128-SHA",
        "EXP-ADH-RC4-MD5",
        "TLS_DH_anon_WITH_AES_128_CBC_SHA",
        "TLS_ECDH_ANON_WITH_AES_128_CBC_SHA",
        "ANON_DH_AES_256_CBC_SHA1",
    )
    others = (
        "ECDH-RSA-AES128-SHA",
        "DHE-RSA-AES256-SHA",
        "TLS_AES_128_GCM_SHA256",
        "DH-DSS-AES256-SHA",
        "canonical-x",
    )
    assert all(map(is_anonymous, anonymous))
    assert not any(map(is_anonymous, others))


WORDS = """from by with id for via tls TLS ESMTPS ( ) ( ) ; ; " \\ [ ] < > @ = , : version=TLSv1.2 cipher= using over helo=
(TLS1.3) 127.0.0.1 [::1] ::ffff:1.2.3.4 Mon, 3 Aug 2026 10:00:00 99:99:99 +9999 -0000 0000 \x00 \ud800 é ADH-X"""
PIECES = st.sampled_from(WORDS.split())


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(PIECES, st.text(max_size=8)), max_size=60).map(" ".join), st.sampled_from(TLS_VERSIONS)
)
def test_nothing_in_a_field_makes_it_fail(value: str, minimum: str) -> None:
    """Whatever a field holds, it becomes a record, and the same one when folded."""
    hop = parse_received(value)
    assert isinstance(why_not_requiretls(hop, minimum), str)
    assert parse_received(value.replace(" ", "\r\n\t")) == hop


@pytest.mark.parametrize(
    "piece", ["(", "(a", "a@", '"', "\\(", "[1.2.3.4", "1 Jan 2020 10:00:00 ", "::", "a=", "(()"]
)
def test_long_fields(piece: str) -> None:
    """A field of 200 kB is read as far as any server writes, its begin like that of a short one."""
    value = f"{FROM} by m.example (Postfix) with ESMTPS id 1 {piece * (200_000 // len(piece))}"
    assert (hop := parse_received(value)).by_host == "m.example"
    assert hop == parse_received(value[:MAX_FIELD])
