"""A scan of real servers finds exactly what was configured, says no more than it must, and can be judged again."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import rtls_analysis as rtls
from rtls_analysis.outcomes import Obstacle
from rtls_analysis.pages import DomainPage
from tests.servers.conftest import RunningWorld, Scanned
from tests.servers.logs import Account, read_log
from tests.servers.materials import policy_text
from tests.servers.start import LOGS
from tests.servers.world import (
    DOMAINS,
    LISTENERS,
    P37,
    POLICY_SERVER,
    SHARES,
    Domain,
    Listener,
    addresses,
)

ADDRESSES = addresses()
ROWS = [pytest.param(row, id=f"{row.host}-{address}") for row, address in ADDRESSES.items()]
REACHED = [
    pytest.param(row, id=f"{row.host}-{address}") for row, address in ADDRESSES.items() if row.has_address
]
HOSTS = {row.host: row for row in reversed(LISTENERS)}  # the first row of a host says its TLSA records
PAIRS = [(row, host) for row in DOMAINS for host in row.mx]


def _need(world: RunningWorld, *hosts: str) -> None:
    world.need(*(row for row in LISTENERS if row.host in hosts))


def _found(row: Mapping[str, Any], truth: Mapping[str, Any]) -> dict[str, Any]:
    """Give of a row what the truth speaks of, lists as lists."""
    return {name: list(row[name]) if isinstance(row[name], tuple) else row[name] for name in truth}


def _dnssec(name: str) -> str:
    return {"signed": "secure", "plain": "insecure", "broken": "error"}[name.split(".")[-2]]


def _chain(world: RunningWorld, row: Listener) -> list[x509.Certificate]:
    """Give the certificates that a server was given to present."""
    if row.pkix in ("not_tested", "anonymous"):
        return []
    pem = (world.folder / "certs" / f"{ADDRESSES[row]}.crt").read_bytes()
    return x509.load_pem_x509_certificates(pem)


def _sha256(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


# -- the tables ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", REACHED)
def test_session(scanned: Scanned, world: RunningWorld, row: Listener) -> None:
    """Every column of `sessions` that the configuration decides has its value."""
    _need(world, row.host)
    server = HOSTS[row.cname] if row.cname else row
    has_tls = row.starttls == "yes"
    chain = _chain(world, row)
    named = row.pkix not in ("name_mismatch", "anonymous", "not_tested")
    truth = {
        "port": 25,
        "sni": row.cname or row.host,
        "outcome": row.outcome,
        "stage": row.stage,
        "reply_code": row.reply_code,
        "attempts": 2 if row.pushes_back else 1,
        "starttls": row.starttls,
        "tls_version": row.tls_version if has_tls else None,
        "chain_sha256": [_sha256(certificate) for certificate in chain] if has_tls else None,
        "certificate_not_after": chain[0].not_valid_after_utc if chain else None,
        "certificate_key": server.certificate_key if chain else None,
        "pkix": row.pkix,
        "name_match": named if chain else None,
        "dns_id_match": (named and row.certificate != "cn_only") if chain else None,
        "dane": row.dane,
        "requiretls_plain": row.requiretls_plain,
        "requiretls_tls": row.requiretls_tls,
        "injected_bytes": len(row.injected.encode().decode("unicode_escape")),
        "injected_text": row.injected or None,
    }
    found = scanned.session(row.host, ADDRESSES[row])
    assert _found(found, truth) == truth
    assert bool(found["pkix_detail"]) is (row.pkix not in ("valid", "not_tested"))
    assert bool(found["dane_detail"]) is (row.tlsa_state != "none")
    if row.key_exchange:
        assert found["key_exchange"] == row.key_exchange
    if row.reply_code is not None:
        assert found["reply_text"]
    if row.server == P37 and row.stage == "greeting":  # Postfix gives these three an enhanced code
        assert found["enhanced_code"] == {554: "5.7.1", 450: "4.7.1", 421: "4.7.0"}[row.reply_code or 0]


@pytest.mark.parametrize("host", HOSTS)
def test_host(scanned: Scanned, world: RunningWorld, host: str) -> None:
    """Every column of `hosts` equals the zones: addresses, aliases, TLSA records and their DNSSEC state."""
    _need(world, host)
    row = HOSTS[host]
    end = row.cname or host
    secure = _dnssec(host) == "secure"
    tlsa_dnssec = None
    if secure:
        tlsa_dnssec = {"error": "error", "insecure": "insecure"}.get(row.tlsa_state, "secure")
    heard = row.tlsa_state in ("usable", "unusable", "insecure")
    alias = "mx.bare.plain.test" if row.tlsa_state == "insecure" else end
    truth = {
        "canonical_name": end,
        "canonical_dnssec": "secure" if row.cname else None,
        "addresses": [address for listener, address in ADDRESSES.items() if listener.host == host]
        if row.has_address
        else [],
        "addresses_dnssec": _dnssec(host),
        "mx_state": "mx_is_cname" if row.cname else "mx" if row.has_address else "dns_failure",
        "tlsa_state": row.tlsa_state,
        "tlsa_base": end if heard else None,
        "tlsa": sorted(_tlsa_of(world, alias)) if heard else [],
        "tlsa_dnssec": tlsa_dnssec,
        "provider": ".".join(host.split(".")[-2:]),
    }
    found = _found(scanned.host(host), truth)
    assert {**found, "tlsa": sorted(found["tlsa"])} == truth


def _tlsa_of(world: RunningWorld, host: str) -> list[str]:
    """Give the TLSA records of a host as they stand in its zone."""
    zone = (world.folder / "zones" / f"{'.'.join(host.split('.')[-2:])}.zone").read_text()
    begin = f"_25._tcp.{host}. IN TLSA "
    return [line.removeprefix(begin) for line in zone.splitlines() if line.startswith(begin)]


def _obstacles(row: Domain) -> list[str]:
    found = {row.obstacle, *row.more_obstacles} - {"", "unknown"}
    return [str(obstacle) for obstacle in Obstacle if obstacle in found]


@pytest.mark.parametrize(
    ("row", "host"), [pytest.param(row, host, id=f"{row.domain}-{host}") for row, host in PAIRS]
)
def test_mx(scanned: Scanned, world: RunningWorld, row: Domain, host: str) -> None:
    """Every column of `mx` is as configured; of several hosts each has the words of the domain it is alone in."""
    _need(world, host)
    alone = row
    if len(row.mx) > 1:
        alone = next(other for other in DOMAINS if other.mx == (host,) and other.secured_by == row.secured_by)
    shares = dict(zip(SHARES, alone.shares.split(), strict=True))
    truth = {
        "preference": 0 if row.mx_state == "implicit_mx" else 10 * (row.mx.index(host) + 1),
        "mx_state": row.host_state,
        "sts_match": row.sts_match,
        "secured_by": row.secured_by,
        "dane": shares["dane"],
        "requiretls_ready": shares["requiretls_ready"],
        "requiretls_ready_testing": shares["requiretls_ready_testing"],
        "obstacle": alone.obstacle,
        "obstacles": _obstacles(alone),
        "provider": ".".join(host.split(".")[-2:]),
    }
    assert _found(scanned.mx(row.domain, host), truth) == truth


@pytest.mark.parametrize("row", [pytest.param(row, id=row.domain) for row in DOMAINS])
def test_domain(scanned: Scanned, world: RunningWorld, row: Domain) -> None:
    """Every column of `domains` is as configured: MX, MTA-STS, TLSRPT, the shares and what stops a message."""
    if row.mx:
        _need(world, *row.mx)
    broken = _dnssec(row.domain) == "error"
    record = "dns_failure" if broken else "valid" if row.policy else "absent"
    served = row.sts_policy == "valid"
    pattern = row.policy.partition("/")[2] or f"mx.{row.domain}"
    truth = {
        "mx_state": row.mx_state,
        "mx_dnssec": _dnssec(row.domain),
        "mx_canonical": row.domain,
        "mx_hosts": len(row.mx),
        "addresses": sum(row.mx.count(listener.host) for listener in ADDRESSES if listener.has_address),
        "sts_record": record,
        "sts_texts": ["v=STSv1; id=20261124;"] if row.policy else [],
        "sts_policy_id": "20261124" if row.policy else None,
        "sts_policy": row.sts_policy,
        "sts_policy_text": policy_text(row.policy, row.domain) if served else None,
        "sts_mode": row.sts_mode,
        "sts_mx": [pattern] if served else None,
        "sts_max_age_seconds": 86400 if served else None,
        "sts_http_status": 200 if served else 301 if row.sts_policy == "redirect" else None,
        "sts_address": POLICY_SERVER if row.policy else None,
        "tlsrpt": record,
        "tlsrpt_rua": [f"mailto:reports@{row.domain}"] if row.policy else None,
        "provider": ".".join(row.mx[0].split(".")[-2:]) if row.mx else None,
        **dict(zip(SHARES, row.shares.split(), strict=True)),
        "obstacle": row.obstacle,
        "obstacles": _obstacles(row),
    }
    assert _found(scanned.domain(row.domain), truth) == truth


def test_nothing_else_is_in_the_tables(scanned: Scanned) -> None:
    """One row for each domain, each of its hosts, each host, and each address of a host; however many share it."""
    snapshot = scanned.snapshot
    asked = {host for row in DOMAINS for host in row.mx}
    assert sorted(snapshot.domains["domain"]) == sorted(row.domain for row in DOMAINS)
    assert sorted(zip(snapshot.mx["domain"], snapshot.mx["mx_host"], strict=True)) == sorted(
        (row.domain, host) for row, host in PAIRS
    )
    assert asked == set(HOSTS)
    assert sorted(snapshot.hosts["mx_host"]) == sorted(HOSTS)
    assert sorted(zip(snapshot.sessions["mx_host"], snapshot.sessions["address"], strict=True)) == sorted(
        (row.host, address) for row, address in ADDRESSES.items() if row.has_address
    )


def test_certificates(scanned: Scanned, world: RunningWorld) -> None:
    """Each certificate seen is kept once, whole, and is one that a server of the world was given."""
    table = scanned.snapshot.certificates
    pems = [path.read_bytes() for path in (world.folder / "certs").glob("*.crt")]
    given = {_sha256(certificate) for pem in pems for certificate in x509.load_pem_x509_certificates(pem)}
    chains = [*scanned.snapshot.sessions["chain_sha256"], *scanned.snapshot.domains["sts_chain_sha256"]]
    shown = {sha256 for chain in chains if chain is not pd.NA for sha256 in chain}
    assert table["sha256"].is_unique
    assert set(table["sha256"]) == shown <= given
    assert [hashlib.sha256(der).hexdigest() for der in table["der"]] == list(table["sha256"])


# -- REQUIRETLS ----------------------------------------------------------------------------------------------


ANNOUNCEMENTS = [
    ("inside TLS only, Postfix 3.11", "mx.ee.signed.test", None, "REQUIRETLS", "all"),
    ("inside TLS only, smtp-server", "mx.node.signed.test", None, "REQUIRETLS", "all"),
    ("before TLS only", "mx.node-early.signed.test", "REQUIRETLS", None, "none"),
    ("before and inside", "mx.node-both.signed.test", "REQUIRETLS", "REQUIRETLS", "all"),
    ("lower case, with a parameter", "mx.node-lower.signed.test", None, "requiretls x=1", "all"),
    ("slipped in before the handshake", "mx.node-injected.signed.test", None, None, "none"),
    ("switched off in Postfix 3.11", "mx.off.signed.test", None, None, "none"),
    ("Postfix 3.7", "mx.old.signed.test", None, None, "none"),
    ("Exim", "mx.exim.signed.test", None, None, "none"),
    ("OpenSMTPD", "mx.open.signed.test", None, None, "none"),
]


@pytest.mark.parametrize(
    ("host", "plain", "tls", "share"), [pytest.param(*rest, id=why) for why, *rest in ANNOUNCEMENTS]
)
def test_announcements_are_told_apart(
    scanned: Scanned, world: RunningWorld, host: str, plain: str | None, tls: str | None, share: str
) -> None:
    """What a server says before TLS and inside it are two facts, each with the reply it was read from."""
    _need(world, host)
    session = scanned.session(host, ADDRESSES[HOSTS[host]])
    assert [line[4:] for line in session["ehlo_plain"] if "requiretls" in line.lower()] == [plain][
        : bool(plain)
    ]
    assert [line[4:] for line in session["ehlo_tls"] if "requiretls" in line.lower()] == [tls][: bool(tls)]
    assert (session["requiretls_plain"], session["requiretls_tls"]) == (
        "yes" if plain else "no",
        "yes" if tls else "no",
    )
    assert scanned.domain(host.removeprefix("mx."))["requiretls_offered"] == share


def test_announced_at_one_of_two_addresses(scanned: Scanned, world: RunningWorld) -> None:
    """A host whose addresses differ has a row for each, and its domain is ready at some."""
    _need(world, "mx.half.signed.test")
    sessions = scanned.snapshot.sessions
    found = sessions[sessions["mx_host"] == "mx.half.signed.test"].set_index("address")["requiretls_tls"]
    assert {":" in address: word for address, word in found.items()} == {False: "yes", True: "no"}
    row = scanned.domain("half.signed.test")
    assert (row["requiretls_offered"], row["requiretls_ready"], row["obstacle"]) == ("some", "some", "")


def test_no_failure_reads_as_no(scanned: Scanned) -> None:
    """Neither refusal, limit, block nor a broken handshake says that a server lacks STARTTLS or REQUIRETLS."""
    sessions = scanned.snapshot.sessions
    ended_early = sessions[sessions["outcome"] != "completed"]
    assert set(ended_early["outcome"]) == {
        "refused",
        "rate_limited",
        "greylisted",
        "blocked",
        "tls_failed",
    }
    assert set(ended_early["starttls"]) == {"unknown", "failed", "yes"}
    assert set(ended_early["requiretls_tls"]) == {"not_tested", "unknown"}
    assert set(ended_early.loc[ended_early["ehlo_plain"].isna(), "requiretls_plain"]) == {"unknown"}
    domains = scanned.snapshot.domains
    untold = domains[domains["obstacle"].isin(["dns_error", "unreachable", "unknown"])]
    assert set(untold["requiretls_ready"]) == {"unknown"}


PAGES = {
    "ee.signed.test": (
        "REQUIRETLS mail can be delivered, at every address.",
        "+ EHLO inside TLS  announces REQUIRETLS",
        "250 REQUIRETLS",
    ),
    "node-early.signed.test": (
        "REQUIRETLS mail cannot be delivered",
        "announces REQUIRETLS before TLS, which proves nothing",
        "x EHLO inside TLS  no REQUIRETLS",
    ),
    "half.signed.test": ("only at some of the addresses", "at fd25::1:", "x EHLO inside TLS  no REQUIRETLS"),
    "stale.signed.test": ("does not match the host's TLSA records",),
    "busy.signed.test": ("no session that would allow a verdict",),
}


@pytest.mark.parametrize("domain", PAGES)
def test_page(scanned: Scanned, world: RunningWorld, domain: str) -> None:
    """The page of a domain shows what its server said, as text and as HTML."""
    _need(world, f"mx.{domain}")
    page = DomainPage(scanned.snapshot, domain)
    for words in PAGES[domain]:
        assert words in str(page)
    assert ("announces REQUIRETLS" in page._repr_html_()) is ("announces REQUIRETLS" in str(page))


def test_command_prints_the_page(world: RunningWorld) -> None:
    """`rtls scan DOMAIN` scans Postfix 3.11 from nothing and prints the announcement it saw inside TLS."""
    options = world.scan_options
    argv = [sys.executable, "-m", "rtls_analysis.cli", "scan", "ee.signed.test"]
    for name in ("resolver", "ca_file", "ehlo_name", "contact"):
        argv += [f"--{name.replace('_', '-')}", options[name]]
    for network in options["allow_special"]:
        argv += ["--allow-special", network]
    done = world.run(argv)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert "REQUIRETLS mail can be delivered, at every address." in printed
    inside = next(number for number, line in enumerate(printed) if "EHLO inside TLS" in line)
    (announced,) = (number for number, line in enumerate(printed) if line.strip() == "250 REQUIRETLS")
    assert announced > inside


# -- what the servers say ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def accounts(scanned: Scanned) -> dict[str, Account]:
    return {server: read_log(server, text) for server, text in scanned.logs.items()}


SPOKEN = {  # stage and STARTTLS of a row: the commands its server must have heard
    ("quit", "yes"): "EHLO STARTTLS EHLO QUIT",
    ("quit", "no"): "EHLO QUIT",
    ("greeting", "unknown"): "QUIT",
    ("starttls", "unknown"): "EHLO STARTTLS QUIT",
    ("handshake", "failed"): "EHLO STARTTLS",
    ("ehlo_tls", "yes"): "EHLO STARTTLS EHLO",
}


def _spoken(row: Listener) -> str:
    spoken = SPOKEN[row.stage, row.starttls]
    if row.reply_code == 421:  # Postfix hangs up with it, and does not count the command it answers so
        spoken = spoken.rpartition(" ")[0]
    return spoken


@pytest.mark.parametrize("row", [row for row in REACHED if row.values[0].server])  # type: ignore[union-attr]
def test_server_heard(
    scanned: Scanned, world: RunningWorld, accounts: Mapping[str, Account], row: Listener
) -> None:
    """By its own log a server was visited as often as `attempts` says, and heard EHLO, STARTTLS, EHLO, QUIT only."""
    _need(world, row.host)
    address = ADDRESSES[row]
    sessions = scanned.snapshot.sessions
    visits = int(
        sessions.loc[sessions["address"] == address, "attempts"].sum()
    )  # an alias shares the address
    seen = accounts[row.server].sessions[address]
    assert [session.commands for session in seen] == [Counter(_spoken(row).split())] * visits
    for session in seen:
        assert session.order in (None, _spoken(row).split())


@pytest.mark.parametrize("row", [row for row in REACHED if row.values[0].server])  # type: ignore[union-attr]
def test_tls_is_as_the_server_logged_it(
    scanned: Scanned, world: RunningWorld, accounts: Mapping[str, Account], row: Listener
) -> None:
    """Version, cipher and key exchange group are those that the server's own TLS library told its log."""
    _need(world, row.host)
    ours = scanned.session(row.host, ADDRESSES[row])
    for seen in accounts[row.server].sessions[ADDRESSES[row]]:
        assert seen.tls_version == ours["tls_version"]
        if seen.cipher is not None:
            assert seen.cipher == ours["cipher"]
        if seen.key_exchange is not None:
            assert seen.key_exchange == ours["key_exchange"]


def test_key_exchange_is_always_told(scanned: Scanned) -> None:
    """Each session with TLS has a named group, a size of DH, or RSA; TLS 1.0 to 1.3 and four kinds of it are here."""
    sessions = scanned.snapshot.sessions
    assert sessions["key_exchange"].notna().equals(sessions["starttls"] == "yes")
    assert {"RSA", "P-384"} < set(sessions["key_exchange"].dropna())
    assert sessions["key_exchange"].str.match(r"X25519|P-\d+|DHE-\d+|RSA").sum() == sessions["cipher"].count()


COMPLAINTS = {  # a row's setting: what its own configuration makes it say of any client
    "no_ca": ("disabling TLS support", "TLS library problem"),
    "no_cipher": ("SSL_accept error", "no shared cipher", "lost connection after STARTTLS"),
    "client_certificate": ("No client certificate presented",),
    "reject": ("reject: CONNECT",),
    "defer": ("reject: CONNECT",),
    "limit": ("reject: CONNECT",),
}


@pytest.mark.parametrize("server", LOGS)
def test_no_server_complains(world: RunningWorld, accounts: Mapping[str, Account], server: str) -> None:
    """No log has a word of a broken TLS session, an early talker, a lost connection or a message."""
    if server in world.missing:
        pytest.skip(world.missing[server])
    excused = {
        address: tuple(words for setting in row.settings for words in COMPLAINTS.get(setting, ()))
        for row, address in ADDRESSES.items()
    }
    left = [
        line
        for address, line in accounts[server].other_lines
        if not any(words in line for words in excused.get(address, ()))
    ]
    assert left == []


def test_attempts(scanned: Scanned) -> None:
    """`attempts` has a row for each connection, policies too, and no two at one address at a time."""
    attempts, sessions = scanned.snapshot.attempts, scanned.snapshot.sessions
    probes = attempts[attempts["purpose"] == "probe"]
    made = probes.groupby(["mx_host", "address"]).size()
    assert made.to_dict() == sessions.set_index(["mx_host", "address"])["attempts"].to_dict()
    policies = attempts[attempts["purpose"] == "policy"]
    assert sorted(policies["domain"]) == sorted(row.domain for row in DOMAINS if row.policy)
    assert set(policies["address"]) == {POLICY_SERVER}
    assert set(zip(attempts["purpose"], attempts["port"], strict=True)) == {("probe", 25), ("policy", 443)}
    for _address, group in attempts.sort_values("started_at").groupby("address"):
        assert (group["started_at"].iloc[1:].array >= group["ended_at"].iloc[:-1].array).all()


def test_manners_held(scanned: Scanned, by_workers: rtls.Snapshot) -> None:
    """`rtls.audit` finds no limit broken, with one process and with two."""
    assert rtls.audit(scanned.snapshot).empty
    assert rtls.audit(by_workers).empty


# -- again ---------------------------------------------------------------------------------------------------


def _comparable(snapshot: rtls.Snapshot, name: str) -> list[str]:
    """Give a table as lines of text, in one order, without clocks and without what the resolver says of a failure."""
    clocks = {"started_at", "duration_seconds", "resolved_at", "scanned_at"}
    left_out = clocks | ({"detail"} if name in ("domains", "hosts") else set())
    frame = snapshot.table(name)
    rows = frame[[column for column in frame.columns if column not in left_out]].to_dict("records")
    return sorted(map(repr, rows))


JUDGED = ("domains", "mx", "hosts", "sessions")


@pytest.mark.parametrize("name", JUDGED)
def test_judge_gives_the_verdicts_of_the_scan(
    scanned: Scanned, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """From the stored evidence alone, outside of the servers' network and with no socket at all."""

    def no_socket(*_given: object, **_named: object) -> None:
        raise AssertionError("judging needs no network")

    monkeypatch.setattr("socket.socket", no_socket)
    again = rtls.judge(scanned.snapshot).table(name)
    pd.testing.assert_frame_equal(again, scanned.snapshot.table(name), check_like=True)


def test_judge_by_another_reading(scanned: Scanned) -> None:
    """The same evidence under other rules: testing counts, a name is wanted with DANE too, TLS 1.0 will do."""
    before = scanned.snapshot.domains.set_index("domain")["requiretls_ready"]
    for reading, gained, lost in (
        ({"sts_modes": ["enforce", "testing"]}, {"testing.plain.test"}, set()),
        (
            {"name_rule": "literal"},
            set(),
            {"ee-name.signed.test", "ta-domain.signed.test", "alias.signed.test"},
        ),
        ({"dane_insecure_mx": True}, set(), set()),
    ):
        after = rtls.judge(scanned.snapshot, **reading).domains.set_index("domain")["requiretls_ready"]
        changed = before.index[before.astype(str) != after.astype(str)]
        assert {name for name in changed if after[name] == "all"} == gained, reading
        assert {name for name in changed if after[name] == "none"} == lost, reading
    loose = rtls.judge(scanned.snapshot, minimum_tls="TLSv1.0").domains.set_index("domain")
    assert loose.loc["old-tls10.signed.test", "obstacle"] == "requiretls_not_offered"


@pytest.fixture(scope="module")
def by_workers(
    world: RunningWorld, scanned: Scanned, tmp_path_factory: pytest.TempPathFactory
) -> rtls.Snapshot:
    out = tmp_path_factory.mktemp("workers") / "snapshot"
    return world.scan(out, workers=2)


@pytest.mark.parametrize("name", [*JUDGED, "certificates"])
def test_workers_find_the_same(scanned: Scanned, by_workers: rtls.Snapshot, name: str) -> None:
    """A scan in two worker processes comes to the same tables."""
    assert _comparable(by_workers, name) == _comparable(scanned.snapshot, name)
