"""A scan of the lab comes to its truth, in every column that has one, and says nothing that it cannot know."""

from __future__ import annotations

import ast
import contextlib
import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pandas as pd
import pytest

import rtls_analysis as rtls
from rtls_analysis.lab import Lab, truth
from rtls_analysis.lab.kinds import DOMAINS, HOSTS, SERVERS, STS, TLSRPT
from rtls_analysis.lab.world import World
from rtls_analysis.outcomes import NOT_CONTACTED, FeatureState, SessionOutcome
from rtls_analysis.schema import SESSIONS, SNAPSHOT_TABLES, TABLES, rows_of
from tests.lab.truth import differences, disagreements, rows_by_key

# -- the truth -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_scan_comes_to_the_truth(lab: Lab, scans: dict[int, rtls.Snapshot], workers: int) -> None:
    """Each column of `domains`, `mx`, `hosts` and `sessions` that has a truth equals it, however many processes."""
    assert set(lab.truth) == {"domains", "mx", "hosts", "sessions"}
    assert len(scans[workers].domains) == len(lab.domains) == 1000
    assert disagreements(lab, scans[workers]) == []


def test_one_process_and_two_find_the_same(scans: dict[int, rtls.Snapshot]) -> None:
    """All six tables are the same but for the times, each certificate in them once."""
    assert differences(scans[1], scans[2]) == []


def test_every_domain_is_there_once(lab: Lab, scanned: rtls.Snapshot) -> None:
    """Each domain has its row, and no key of any table comes twice."""
    assert set(scanned.domains["domain"]) == set(lab.domains)
    for table in SNAPSHOT_TABLES:
        if table.key:
            rows_by_key(scanned, table.name)


@pytest.mark.parametrize("workers", [1, 2])
def test_connections_made_are_the_distinct_pairs(scans: dict[int, rtls.Snapshot], workers: int) -> None:
    """Each (MX host, address) is connected to once, those left alone never; a policy host once per domain."""
    snapshot = scans[workers]
    sessions = rows_by_key(snapshot, "sessions")
    attempts = snapshot.attempts
    probes = attempts[attempts["purpose"] == "probe"]
    made = Counter(zip(probes["mx_host"], probes["address"], strict=True))
    assert made == {key: row["attempts"] for key, row in sessions.items() if row["attempts"]}
    assert set(made.values()) == {1}
    assert {sessions[key]["outcome"] for key in sessions.keys() - made.keys()} <= NOT_CONTACTED
    policies = attempts[attempts["purpose"] == "policy"]
    asked = snapshot.domains.set_index("domain").loc[policies["domain"].unique()]
    assert policies["domain"].is_unique
    assert (asked["sts_record"] == "valid").all()
    assert probes["domain"].isna().all()
    assert policies["mx_host"].isna().all()


# -- nothing is said that cannot be known --------------------------------------------------------------------


def _keywords(lines: list[str] | None) -> set[str]:
    """The keywords of an EHLO reply, read from its lines as they came; its first line greets."""
    return {line[4:].split(" ")[0].upper() for line in (lines or [])[1:]}


def test_no_is_said_only_where_a_whole_reply_lacks_the_word(scanned: rtls.Snapshot) -> None:
    """No timeout, refusal, 4xx, block or failed handshake is a `no` anywhere: each has the reply that shows it."""
    seen = Counter[str]()
    for row in rows_of(SESSIONS, scanned.sessions):
        plain, inside = row["ehlo_plain"], row["ehlo_tls"]
        for column, lines, word in (
            ("starttls", plain, "STARTTLS"),
            ("requiretls_plain", plain, "REQUIRETLS"),
            ("requiretls_tls", inside, "REQUIRETLS"),
        ):
            if row[column] == FeatureState.NO:
                assert lines, (row["mx_host"], column)
                if row["mx_host"] != "mx1.helo-only.test":  # it has no extensions, and says so with 502
                    assert lines[-1].startswith("250"), row["mx_host"]
                assert word not in _keywords(lines), row["mx_host"]
                seen[column] += 1
        if row["starttls"] == FeatureState.FAILED:
            assert "STARTTLS" in _keywords(plain), row["mx_host"]
            assert row["outcome"] == SessionOutcome.TLS_FAILED
        if row["outcome"] in NOT_CONTACTED:
            assert {row["starttls"], row["requiretls_tls"]} == {FeatureState.NOT_TESTED}
    assert min(seen[column] for column in ("starttls", "requiretls_plain", "requiretls_tls")) > 5


def test_a_domain_is_a_none_only_where_each_address_is(scanned: rtls.Snapshot) -> None:
    """No share is `none` over an address of which nothing is known, nor `all` over one that is no yes."""
    sessions: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(SESSIONS, scanned.sessions):
        sessions.setdefault(row["mx_host"], []).append(row)
    known = {FeatureState.YES: "yes", FeatureState.NO: "no", FeatureState.FAILED: "no"}
    hosts_of = scanned.mx.groupby("domain")["mx_host"].agg(list)
    counted = Counter[str]()
    for row in rows_of(TABLES["domains"], scanned.domains):
        answers = {
            known.get(session["starttls"], session["starttls"])
            for host in hosts_of.get(row["domain"], [])
            for session in sessions.get(host, [])
            if session["outcome"] not in NOT_CONTACTED
        }
        if row["starttls"] == "none":
            assert answers == {"no"}, row["domain"]
        if row["starttls"] == "all":
            assert answers == {"yes"}, row["domain"]
        if "unknown" in answers:
            for question in ("starttls", "pkix", "dane", "requiretls_offered", "requiretls_ready"):
                assert row[question] in ("some", "unknown"), (row["domain"], question)
        counted[row["starttls"]] += 1
    assert min(counted[word] for word in ("all", "none", "unknown")) > 5


def test_pre_tls_and_post_tls_offers_are_told_apart(scanned: rtls.Snapshot) -> None:
    """REQUIRETLS before TLS and inside, in each combination, in lower case, with parameters, at one of several."""
    sessions = scanned.sessions.set_index("mx_host")
    seen = {
        name: tuple(sessions.loc[f"mx1.{name}.test", ["requiretls_plain", "requiretls_tls"]])
        for name in (
            "requiretls",
            "requiretls-both",
            "requiretls-plain-only",
            "valid",
            "requiretls-lower-case",
            "requiretls-parameters",
            "requiretls-lookalike",
            "requiretls-in-greeting-line",
        )
    }
    assert seen == {
        "requiretls": ("no", "yes"),
        "requiretls-both": ("yes", "yes"),
        "requiretls-plain-only": ("yes", "no"),
        "valid": ("no", "no"),
        "requiretls-lower-case": ("no", "yes"),
        "requiretls-parameters": ("no", "yes"),
        "requiretls-lookalike": ("no", "no"),
        "requiretls-in-greeting-line": ("no", "no"),
    }
    assert sorted(sessions.loc["mx1.one-of-three.test", "requiretls_tls"]) == ["no", "no", "yes"]


def test_two_domains_that_share_hosts_have_their_own_verdicts(scanned: rtls.Snapshot) -> None:
    """One probe of a DANE provider's hosts serves a signed domain and one that is not."""
    mx = scanned.mx.set_index("domain")
    signed, unsigned = mx.loc["hosted-signed.test"], mx.loc["hosted-unsigned.test"]
    assert list(signed["mx_host"]) == list(unsigned["mx_host"])
    assert list(signed["dane"]) == ["all", "all"]
    assert list(unsigned["dane"]) == ["none", "none"]
    assert set(signed["secured_by"]) == {"dnssec"}
    assert set(unsigned["secured_by"]) == {"none"}


# -- judging again -------------------------------------------------------------------------------------------


def test_judge_gives_the_verdicts_of_the_scan(
    scanned: rtls.Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the stored evidence alone, without network, each verdict column comes out as the scan wrote it."""

    def no_network(*_: Any, **__: Any) -> None:
        raise AssertionError("judging asks the network")

    assert scanned.path is not None
    again = rtls.open_snapshot(scanned.path)
    monkeypatch.setattr(socket, "socket", no_network)
    judged = rtls.judge(again)
    for table in SNAPSHOT_TABLES:
        pd.testing.assert_frame_equal(judged.table(table.name), scanned.table(table.name))


@pytest.fixture(scope="module")
def readings(scanned: rtls.Snapshot) -> dict[str, rtls.Snapshot]:
    """The scan judged under each reading of `READINGS`, by its JSON form."""
    return {json.dumps(reading): rtls.judge(scanned, **reading) for _why, reading, *_ in READINGS}


READINGS = [
    (
        "mode testing secures the MX name too",
        {"sts_modes": ["enforce", "testing"]},
        "requiretls-sts-testing.test",
        ["mx_unauthenticated"],
        [],
    ),
    ("TLS 1.1 will do", {"minimum_tls": "TLSv1.0"}, "tls11-signed.test", ["tls_too_old"], []),
    (
        "nothing below TLS 1.3",
        {"minimum_tls": "TLSv1.3"},
        "tls12.test",
        ["mx_unauthenticated", "requiretls_not_offered"],
        ["mx_unauthenticated", "tls_too_old", "requiretls_not_offered"],
    ),
    (
        "the certificate must name the host whatever DANE says",
        {"name_rule": "literal"},
        "dane-wrong-name-ee.test",
        [],
        ["certificate_unverified"],
    ),
    (
        "TLSA records count though the MX answer is unsigned",
        {"dane_insecure_mx": True},
        "dane-mismatch-insecure-mx.test",
        ["mx_unauthenticated"],
        ["mx_unauthenticated", "dane_mismatch"],
    ),
    (
        "a common name is no name",
        {"cn_id": False},
        "requiretls-cn-only-signed.test",
        [],
        ["certificate_unverified"],
    ),
    (
        "DANE does away with what MTA-STS asks of the certificate",
        {"sts_with_dane": "dane_wins"},
        "dane-self-signed-sts.test",
        ["certificate_unverified"],
        [],
    ),
    (
        "a policy is one whatever its media type",
        {"strict_media_type": False},
        "requiretls-sts-html.test",
        ["mx_unauthenticated"],
        [],
    ),
]


@pytest.mark.parametrize(
    ("reading", "domain", "before", "after"), [pytest.param(*case, id=why) for why, *case in READINGS]
)
def test_another_reading(
    scanned: rtls.Snapshot,
    readings: dict[str, rtls.Snapshot],
    reading: dict[str, Any],
    domain: str,
    before: list[str],
    after: list[str],
) -> None:
    """A reading changes what follows from it, in `domains` and `mx` alike, and none of the evidence."""
    judged = readings[json.dumps(reading)]
    for snapshot, obstacles in ((scanned, before), (judged, after)):
        row = rows_by_key(snapshot, "domains")[domain,]
        assert row["obstacles"] == obstacles
        assert row["requiretls_ready"] == ("none" if obstacles else "all")
        host = rows_by_key(snapshot, "mx")[domain, snapshot.mx.set_index("domain").loc[domain, "mx_host"]]
        assert (host["obstacles"], host["requiretls_ready"]) == (obstacles, row["requiretls_ready"])
    for table in SNAPSHOT_TABLES:
        evidence = [column.name for column in table.columns if not column.verdict]
        pd.testing.assert_frame_equal(
            judged.table(table.name, columns=evidence), scanned.table(table.name, columns=evidence)
        )
    held = judged.manifest["rules"]
    assert {name: held[name] for name in reading} == reading


def test_readings_hold_over_all_domains(scanned: rtls.Snapshot, readings: dict[str, rtls.Snapshot]) -> None:
    """What a reading says of one domain it says of all of its kind."""

    def of(reading: dict[str, Any], table: str) -> pd.DataFrame:
        return readings[json.dumps(reading)].table(table)

    with_testing = of({"sts_modes": ["enforce", "testing"]}, "domains")
    assert (with_testing["requiretls_ready"] == scanned.domains["requiretls_ready_testing"]).all()
    assert not any("tls_too_old" in row for row in of({"minimum_tls": "TLSv1.0"}, "domains")["obstacles"])

    old = set(scanned.sessions.query("tls_version.notna() and tls_version != 'TLSv1.3'")["mx_host"])
    assert len(old) > 3
    for row in rows_of(TABLES["mx"], of({"minimum_tls": "TLSv1.3"}, "mx")):
        assert ("tls_too_old" in row["obstacles"]) == (row["mx_host"] in old)

    without_cn = of({"cn_id": False}, "sessions")
    by_cn = without_cn["dns_id_match"].eq(False).fillna(False) & scanned.sessions["pkix"].eq("valid")
    assert by_cn.sum() > 2
    assert set(without_cn.loc[by_cn, "pkix"]) == {"name_mismatch"}
    pd.testing.assert_series_equal(without_cn.loc[~by_cn, "pkix"], scanned.sessions.loc[~by_cn, "pkix"])


# -- the lab itself ------------------------------------------------------------------------------------------


def test_the_world_is_the_same_for_the_same_size_and_seed() -> None:
    """Names, hosts and addresses are drawn anew for another seed only; a smaller world is the begin of a larger."""
    one, same, other = World(400, 3), World(400, 3), World(400, 4)
    assert one.domains == same.domains
    assert one.hosts == same.hosts
    assert list(one.domains) != list(other.domains)
    assert list(World(50).domains) == list(World(400).domains)[:50]


def test_every_kind_has_its_domain() -> None:
    """The catalogue is in the world from its 209th domain on: servers, hosts, policies and records of each kind."""
    world = World(len(DOMAINS))
    servers = {server.name for host in world.hosts.values() for _address, server in host.places if server}
    assert servers >= SERVERS.keys() - {"valid"}
    assert {host.kind.name for host in world.hosts.values()} >= HOSTS.keys() - {"valid_signed"}
    assert {domain.kind.sts for domain in world.domains.values()} == STS.keys()
    assert {domain.kind.tlsrpt for domain in world.domains.values()} == TLSRPT.keys()
    assert all(domain.why for domain in world.domains.values())


def test_no_address_is_outside_loopback_but_those_never_contacted() -> None:
    """The lab's servers are on loopback; what is not is there to be refused."""
    for host in World(1000).hosts.values():
        for address, server in host.places:
            assert (address == "::1" or address.startswith("127.")) == (server is not None), host


def test_without_ipv6_hosts_are_left_with_their_other_addresses() -> None:
    """Where the machine has no ::1, the world has none either."""
    world = World(400, has_ipv6=False)
    assert not any(":" in address for host in world.hosts.values() for address in host.addresses)
    assert all(host.addresses for host in world.hosts.values() if host.kind.servers)


def test_the_truth_does_not_come_from_the_code_that_judges() -> None:
    """Neither the catalogue nor its sums import a verdict: each can find the other's mistakes."""
    package = Path(truth.__file__).parent
    for name in ("kinds.py", "truth.py", "world.py"):
        for node in ast.walk(ast.parse((package / name).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rtls_analysis"):
                assert node.module.startswith("rtls_analysis.lab"), name


@pytest.mark.parametrize("size", [0, -1, 1.5, "3", True])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    """One clear line for a size that makes no sense."""
    with pytest.raises(ValueError, match="give a whole number from 1"):
        rtls.start_lab(size)


def test_a_lab_ends_with_its_block() -> None:
    """After the block nothing listens any more, and its files are gone."""
    with rtls.start_lab(3, seed=5) as small:
        host, _, port = small.scan_options["resolver"].partition(":")
        ca_file = Path(small.scan_options["ca_file"])
        assert ca_file.exists()
        assert repr(small).startswith("<Lab of 3 domains")
        assert len(rtls.scan(small.domains, progress=False, **small.scan_options).domains) == 3
    assert not ca_file.exists()
    with pytest.raises(OSError, match="refused"), socket.create_connection((host, int(port)), timeout=1):
        pass


def test_a_lab_ends_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever is still being answered, or kept waiting, is hung up on; a notebook shows what is printed then."""
    with rtls.start_lab(30) as small, contextlib.ExitStack() as held:
        host, _, port = small.scan_options["resolver"].partition(":")
        wheres = [(host, int(port))]
        sessions = small.truth["sessions"].set_index("mx_host")
        wheres += [
            (sessions.loc[f"mx1.{name}.test", "address"], small.scan_options["smtp_port"])
            for name in ("silent", "valid")
        ]
        for where in wheres:
            connection = held.enter_context(socket.create_connection(where))
            if where is wheres[-1]:
                assert connection.recv(1)  # so that all are being served
        small.close()
    assert capfd.readouterr() == ("", "")


def _ask(lab: Lab, name: str, rdtype: str, *, tcp: bool = False, **flags: bool) -> dns.message.Message:
    where, _, port = lab.scan_options["resolver"].partition(":")
    query = dns.message.make_query(name, rdtype, want_dnssec=True, payload=1232)
    query.flags |= dns.flags.CD if flags.get("cd") else 0
    return (dns.query.tcp if tcp else dns.query.udp)(query, where, port=int(port), timeout=5)


ANSWERS = [
    ("a signed zone has AD", "signed.test", "MX", "NOERROR", True),
    ("an unsigned one has not", "valid.test", "MX", "NOERROR", False),
    ("a signed denial has AD", "nxdomain-signed.test", "MX", "NXDOMAIN", True),
    ("no such domain", "nxdomain.test", "MX", "NXDOMAIN", False),
    ("a bogus answer is none", "bogus.test", "MX", "SERVFAIL", False),
    ("a broken zone", "servfail.test", "MX", "SERVFAIL", False),
    ("name servers that refuse", "dns-refused.test", "MX", "REFUSED", False),
    ("a name that is not there", "nothing.valid.test", "A", "NXDOMAIN", False),
    ("no records of that type", "valid.test", "TLSA", "NOERROR", False),
]


@pytest.mark.parametrize(
    ("name", "rdtype", "rcode", "ad"), [pytest.param(*case, id=why) for why, *case in ANSWERS]
)
def test_the_name_server_answers_as_a_validating_resolver(
    lab: Lab, name: str, rdtype: str, rcode: str, ad: bool
) -> None:
    """AD is switched on by zone; faults are those of the kind."""
    reply = _ask(lab, name, rdtype)
    assert dns.rcode.to_text(reply.rcode()) == rcode
    assert bool(reply.flags & dns.flags.AD) is ad


def test_the_name_server_tells_bogus_from_broken_and_long_from_short(lab: Lab) -> None:
    """With checking disabled a bogus answer is given; what is too long for UDP is cut and comes over TCP."""
    assert _ask(lab, "bogus.test", "MX", cd=True).rcode() == dns.rcode.NOERROR
    assert _ask(lab, "servfail.test", "MX", cd=True).rcode() == dns.rcode.SERVFAIL
    short = _ask(lab, "many-hosts.test", "MX")
    assert short.flags & dns.flags.TC
    assert not short.answer
    long = _ask(lab, "many-hosts.test", "MX", tcp=True)
    assert len(long.answer[0]) == 12
