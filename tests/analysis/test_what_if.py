"""Own mail against a scan: what would go, and what happened to mail that really asked for REQUIRETLS."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.analysis.demands import standings
from rtls_analysis.analysis.postfix_policy import postfix_policy
from rtls_analysis.analysis.what_if import (
    not_scanned,
    what_if,
    what_if_domains,
    what_if_losses,
    what_if_totals,
)
from rtls_analysis.analysis.what_if_text import what_if_text
from rtls_analysis.read.logs import read_logs
from rtls_analysis.schema import DELIVERIES, SNAPSHOT_TABLES, TABLES, WHAT_IF, Demand, to_frame
from rtls_analysis.store import Snapshot
from rtls_analysis.table_files import read_table, table_of, write_table
from tests.analysis.destinations import snapshot_of
from tests.servers.prepare import CannotPrepare, layer_folders, ready_roots

DATA = Path(__file__).parents[3] / "shared" / "data" / "mta-logs"
AT = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


def deliveries(*rows: dict[str, Any]) -> pd.DataFrame:
    """Attempts of one server, a minute apart; each goes to `recipient` by `relay_host` unless told otherwise."""
    made = []
    for number, row in enumerate(rows):
        domain = row["recipient"].rpartition("@")[2]
        made.append(
            {
                "logged_at": AT + dt.timedelta(minutes=number),
                "mta": "postfix",
                "reporting_host": "out",
                "queue_id": f"Q{number}",
                "sender": "me@own.example",
                "recipient_domain": domain,
                "relay_host": f"mx.{domain}",
                "transport": "smtp",
                "attempted": True,
                "action": "delivered",
                "tls_level": "untrusted",
                **row,
            }
        )
    return to_frame(DELIVERIES, made)


def snapshot(**tables: list[dict[str, Any]]) -> Snapshot:
    return Snapshot(
        None,
        {"started_at": "2026-11-24T00:00:00+00:00"},
        b"",
        {table.name: to_frame(table, tables.get(table.name, [])) for table in SNAPSHOT_TABLES},
    )


def judged(domain: str, ready: str, obstacle: str = "", **more: Any) -> dict[str, Any]:
    """A row of `domains` as a scan leaves it."""
    found = [obstacle] if obstacle else []
    return {
        "domain": domain,
        "mx_state": "mx",
        "requiretls_ready": ready,
        "obstacle": obstacle,
        "obstacles": found,
        "starttls": "all",
        "provider": domain,
        **more,
    }


def by_domain(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    plain = frame.astype(object).where(frame.notna(), None)
    return {row["recipient_domain"]: row for row in plain.to_dict("records")}


# -- the table -------------------------------------------------------------------------------------------------

VERDICTS = [
    ("every address is ready", judged("a.test", "all"), "delivered", ""),
    ("some addresses are", judged("a.test", "some", obstacles=["no_starttls"]), "at_risk", ""),
    ("none is", judged("a.test", "none", "mx_unauthenticated"), "fails", "mx_unauthenticated"),
    ("it takes no mail", judged("a.test", "not_applicable", "no_mx"), "fails", "no_mx"),
    ("no session", judged("a.test", "unknown", "unreachable"), "unknown", "unreachable"),
    ("opted out", judged("a.test", "not_tested", "unknown"), "unknown", "unknown"),
    ("not scanned", None, "unknown", "unknown"),
    ("a row without verdict columns", {"domain": "a.test"}, "unknown", "unknown"),
]


@pytest.mark.parametrize(
    ("row", "verdict", "obstacle"), [pytest.param(*rest, id=why) for why, *rest in VERDICTS]
)
def test_verdicts(row: dict[str, Any] | None, verdict: str, obstacle: str) -> None:
    """The verdict follows the domain's readiness; a domain that was not scanned is unknown, never a failure."""
    frame = what_if(deliveries({"recipient": "x@a.test"}), snapshot(domains=[row] if row else []))
    (found,) = by_domain(frame).values()
    assert (found["verdict"], found["obstacle"], found["scanned"]) == (verdict, obstacle, row is not None)
    assert list(frame.columns) == WHAT_IF.names()
    assert {name: str(frame[name].dtype) for name in frame} == {c.name: str(c.dtype) for c in WHAT_IF.columns}


def test_counts() -> None:
    """A message is what one server queued: tries of it are one, its relay is the last that was reached."""
    mail = deliveries(
        {"queue_id": "A", "recipient": "x@a.test", "relay_host": "mx1.a.test", "action": "delayed"},
        {"queue_id": "A", "recipient": "x@a.test", "relay_host": "mx2.a.test"},
        {"queue_id": "A", "recipient": "y@a.test", "relay_host": "mx2.a.test", "action": "failed"},
        {"queue_id": "B", "recipient": "x@a.test", "relay_host": "mx2.a.test"},
        {"queue_id": "A", "recipient": "z@b.test"},
        {"queue_id": "C", "recipient": "x@a.test", "relay_host": "mx1.a.test", "action": "delayed"},
        {
            "queue_id": "C",
            "recipient": "x@a.test",
            "relay_host": None,
            "action": "failed",
            "attempted": False,
        },
    )
    frame = what_if(mail, snapshot(domains=[judged("a.test", "none", "no_starttls")]))
    rows = frame[["recipient_domain", "relay_host", "messages", "messages_delivered", "recipients"]]
    assert rows.to_numpy().tolist() == [
        ["a.test", "mx2.a.test", 2, 2, 2],
        ["a.test", "mx1.a.test", 1, 0, 1],
        ["b.test", "mx.b.test", 1, 1, 1],
    ]
    whole = by_domain(what_if_domains(frame))
    assert (whole["a.test"]["messages"], whole["a.test"]["recipients"]) == (3, 2)
    totals = what_if_totals(frame)
    assert totals["messages"].to_dict() == {"delivered": 0, "at_risk": 0, "fails": 3, "unknown": 1}
    assert totals["domains"].sum() == 2
    assert totals["share"].sum() == pytest.approx(1)
    assert not_scanned(frame) == ["b.test"]


def test_what_is_no_hop_is_left_out() -> None:
    """Local mailboxes have no hop; notices are not stopped by REQUIRETLS, and are counted when asked for."""
    mail = deliveries(
        {"recipient": "x@own.test", "relay_host": "virtual", "transport": "virtual", "tls_level": None},
        {"recipient": "y@own.test", "relay_host": None, "transport": "maildir", "tls_level": None},
        {"recipient": "x@a.test", "sender": ""},
        {"recipient": "x@b.test"},
    )
    frame = what_if(mail, snapshot())
    assert frame["recipient_domain"].tolist() == ["b.test"]
    told = frame.attrs["what_if"]
    assert (told["local_recipients"], told["notices"]) == (2, 1)
    with_notices = what_if(mail, snapshot(), notices=True)
    assert set(with_notices["recipient_domain"]) == {"a.test", "b.test"}


def test_relays() -> None:
    """A relay is an MX host by its name, its canonical name or its address; any other is a smart host."""
    mail = deliveries(
        {"recipient": "1@a.test", "relay_host": "MX.a.test."},
        {"recipient": "2@a.test", "relay_host": "real.host.test"},
        {"recipient": "3@a.test", "relay_host": "ptr.host.test", "relay_address": "192.0.2.1"},
        {"recipient": "4@a.test", "relay_host": None, "relay_address": "192.0.2.1", "action": "delayed"},
        {"recipient": "5@a.test", "relay_host": "smart.own.test"},
        {"recipient": "6@a.test", "relay_host": None, "relay_address": "203.0.113.9", "action": "delayed"},
        {"recipient": "7@a.test", "relay_host": None, "action": "failed", "tls_level": None},
    )
    scan = snapshot(
        domains=[judged("a.test", "all")],
        mx=[{"domain": "a.test", "mx_host": "mx.a.test", "mx_state": "mx", "requiretls_ready": "all"}],
        hosts=[{"mx_host": "mx.a.test", "canonical_name": "real.host.test", "addresses": ["192.0.2.1"]}],
    )
    frame = what_if(mail, scan)
    plain = frame.astype(object).where(frame.notna(), None)
    found = {row["relay_host"]: (row["relay_is_mx"], row["relay_share"]) for row in plain.to_dict("records")}
    assert found == {
        "mx.a.test": (True, "all"),
        "real.host.test": (True, "all"),
        "ptr.host.test": (True, "all"),
        "smart.own.test": (False, None),
        "[203.0.113.9]": (False, None),
        None: (None, None),
    }
    assert set(frame["verdict"]) == {"delivered"}
    text = what_if_text(frame)
    assert "2 messages went by relays that are no MX host" in text
    assert "smart.own.test" in text
    assert "the recipient's domain was judged" in text


def test_names_as_people_write_them() -> None:
    """A domain in a log may be written in capitals or in Unicode; what is no domain stays unknown."""
    mail = deliveries(
        {"recipient": "x@B\u00dcCHER.test"}, {"recipient": "x@A.Test."}, {"recipient": "x@[192.0.2.1]"}
    )
    frame = what_if(mail, snapshot(domains=[judged("xn--bcher-kva.test", "all"), judged("a.test", "all")]))
    verdicts = {domain: row["verdict"] for domain, row in by_domain(frame).items()}
    assert verdicts == {"xn--bcher-kva.test": "delivered", "a.test": "delivered", "[192.0.2.1]": "unknown"}


def test_wrong_and_empty_input() -> None:
    """An unknown rule is refused with those there are; no mail is no mail."""
    with pytest.raises(ValueError, match="requiretls, verified, pkix, tls"):
        what_if(deliveries(), snapshot(), rule="smime")
    empty = what_if(deliveries(), snapshot())
    assert list(empty.columns) == WHAT_IF.names()
    assert what_if_text(empty) == "No mail to other hosts."
    assert what_if_totals(empty)["messages"].sum() == 0
    assert what_if_losses(empty).empty
    assert postfix_policy(empty).startswith("# No mail")
    bare = pd.DataFrame({"recipient_domain": ["a.test"], "relay_host": ["mx.a.test"]})
    assert what_if(bare, snapshot(domains=[judged("a.test", "all")]))["verdict"].tolist() == ["delivered"]


# -- the rules -------------------------------------------------------------------------------------------------

SECURE = {"mx_state": "mx", "mx_dnssec": "secure", "sts_record": "absent", "sts_policy": "no_record"}
POLICY = {
    "mx_state": "mx",
    "mx_dnssec": "insecure",
    "sts_record": "valid",
    "sts_policy": "valid",
    "sts_mode": "enforce",
}
TESTING = {**POLICY, "sts_mode": "testing"}
PLAIN = {**SECURE, "mx_dnssec": "insecure"}
UNTOLD = {**PLAIN, "sts_record": "valid", "sts_policy": "timeout"}
BY_DNSSEC = {"secured_by": "dnssec", "dane": "none"}
BY_DANE = {"secured_by": "dnssec", "dane": "all"}
BY_POLICY = {"secured_by": "mta_sts", "sts_match": True, "dane": "none"}
OPEN = {"secured_by": "none", "dane": "none"}
GOOD = {"starttls": "yes", "outcome": "completed", "pkix": "valid", "dns_id_match": True, "dane": "none"}
MATCH = {**GOOD, "dane": "match", "pkix": "self_signed", "dns_id_match": False}
BAD = {**GOOD, "pkix": "expired"}
NO_TLS = {"starttls": "no", "outcome": "completed", "pkix": "not_tested", "dane": "not_tested"}
BROKEN = {**NO_TLS, "starttls": "failed", "outcome": "tls_failed"}
SILENT = {**NO_TLS, "starttls": "unknown", "outcome": "timeout"}

RULES = [
    # why, domain, MX host, session, then verdict and obstacle under: verified, pkix, tls
    ("DANE", SECURE, BY_DANE, MATCH, ("all", ""), ("none", "certificate_unverified"), ("all", "")),
    ("MTA-STS", POLICY, BY_POLICY, GOOD, ("all", ""), ("all", ""), ("all", "")),
    (
        "a policy, a bad certificate",
        POLICY,
        BY_POLICY,
        BAD,
        ("none", "certificate_unverified"),
        ("none", "certificate_unverified"),
        ("all", ""),
    ),
    (
        "a policy that names another host",
        POLICY,
        {"secured_by": "none", "sts_match": False, "dane": "none"},
        GOOD,
        ("none", "sts_forbids_host"),
        ("all", ""),
        ("all", ""),
    ),
    (
        "DANE, but the policy asks for a public CA too",
        {**POLICY, "mx_dnssec": "secure"},
        {"secured_by": "dnssec", "sts_match": True, "dane": "all"},
        MATCH,
        ("none", "certificate_unverified"),
        ("none", "certificate_unverified"),
        ("all", ""),
    ),
    (
        "a signed MX record vouches for the name alone",
        SECURE,
        BY_DNSSEC,
        GOOD,
        ("none", "certificate_unverified"),
        ("all", ""),
        ("all", ""),
    ),
    (
        "TLSA records that do not match",
        SECURE,
        BY_DNSSEC,
        {**GOOD, "dane": "mismatch"},
        ("none", "dane_mismatch"),
        ("all", ""),
        ("all", ""),
    ),
    (
        "a TLSA lookup that failed",
        SECURE,
        {"secured_by": "dnssec", "dane": "unknown"},
        {**GOOD, "dane": "error"},
        ("unknown", "dns_error"),
        ("all", ""),
        ("all", ""),
    ),
    (
        "mode testing binds nobody",
        TESTING,
        OPEN,
        GOOD,
        ("none", "mx_unauthenticated"),
        ("all", ""),
        ("all", ""),
    ),
    ("nothing", PLAIN, OPEN, GOOD, ("none", "mx_unauthenticated"), ("all", ""), ("all", "")),
    (
        "a policy that could not be had",
        UNTOLD,
        {"secured_by": "unknown", "dane": "none"},
        GOOD,
        ("unknown", "unknown"),
        ("all", ""),
        ("all", ""),
    ),
    (
        "no STARTTLS",
        SECURE,
        BY_DNSSEC,
        NO_TLS,
        ("none", "no_starttls"),
        ("none", "no_starttls"),
        ("none", "no_starttls"),
    ),
    (
        "a broken handshake",
        SECURE,
        BY_DNSSEC,
        BROKEN,
        ("none", "tls_failed"),
        ("none", "tls_failed"),
        ("none", "tls_failed"),
    ),
    (
        "silence",
        SECURE,
        BY_DNSSEC,
        SILENT,
        ("unknown", "unreachable"),
        ("unknown", "unreachable"),
        ("unknown", "unreachable"),
    ),
    (
        "left out by our choice",
        SECURE,
        BY_DNSSEC,
        {**NO_TLS, "starttls": "not_tested", "outcome": "opted_out"},
        ("not_tested", "unknown"),
        ("not_tested", "unknown"),
        ("not_tested", "unknown"),
    ),
]


@pytest.mark.parametrize(
    ("domain", "host", "session", "verified", "pkix", "tls"),
    [pytest.param(*rest, id=why) for why, *rest in RULES],
)
def test_rules(
    domain: dict[str, Any],
    host: dict[str, Any],
    session: dict[str, Any],
    verified: tuple[str, str],
    pkix: tuple[str, str],
    tls: tuple[str, str],
) -> None:
    """Each rule asks less than the one before it, and what could not be told is never a no."""
    scan = snapshot(
        domains=[{"domain": "a.test", **domain}],
        mx=[{"domain": "a.test", "mx_host": "mx.a.test", "mx_state": "mx", **host}],
        sessions=[{"mx_host": "mx.a.test", "address": "192.0.2.1", **session}],
    )
    for demand, expected in ((Demand.VERIFIED, verified), (Demand.PKIX, pkix), (Demand.TLS, tls)):
        found = standings(scan, demand, ["a.test"])["a.test"]
        assert (found.share, found.obstacle) == expected, demand


def test_some_addresses() -> None:
    """Of two MX hosts one qualifies: the mail is at risk, and what stands against the other is told."""
    scan = snapshot(
        domains=[judged("a.test", "none", "mx_unauthenticated")],
        mx=[{"domain": "a.test", "mx_host": f"mx{n}.a.test", "mx_state": "mx", **OPEN} for n in (1, 2)],
        sessions=[
            {"mx_host": "mx1.a.test", "address": "192.0.2.1", **GOOD},
            {"mx_host": "mx2.a.test", "address": "192.0.2.2", **NO_TLS},
        ],
    )
    mail = deliveries({"recipient": "x@a.test", "relay_host": "mx2.a.test"})
    (row,) = by_domain(what_if(mail, scan, "tls")).values()
    assert (row["verdict"], row["obstacle"], list(row["obstacles"]), row["relay_share"]) == (
        "at_risk",
        "",
        ["no_starttls"],
        "none",
    )


def test_rules_agree_with_the_scan(scanned: Snapshot) -> None:
    """What is read off the columns is what the scan judged, for each domain of the lab."""
    domains = scanned.domains.set_index("domain")
    names = list(domains.index)
    for demand, column in (
        (Demand.TLS, "starttls"),
        (Demand.PKIX, "pkix"),
        (Demand.REQUIRETLS, "requiretls_ready"),
    ):
        found = standings(scanned, demand, names)
        assert {name: str(standing.share) for name, standing in found.items()} == domains[column].astype(
            str
        ).to_dict()
    verified = standings(scanned, Demand.VERIFIED, names)
    tls = standings(scanned, Demand.TLS, names)
    ready = standings(scanned, Demand.REQUIRETLS, names)
    good = {"all", "some"}
    for name in names:
        if verified[name].share in good:
            assert tls[name].share in good, name
        if ready[name].share in good and ready[name].verified_by in ("dane", "mta_sts"):
            assert verified[name].share in good, name
        if domains.at[name, "dane"] == "all" and domains.at[name, "sts_mode"] != "enforce":
            assert verified[name].share == "all", name
    assert {str(standing.verified_by) for standing in verified.values()} >= {"dane", "mta_sts"}


# -- what really happened --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def destinations() -> Snapshot:
    """The destinations of the real-server lab, as a scan would have found them."""
    if not (DATA / "destinations.csv").exists():
        pytest.skip("no mta-logs beside the repository")
    return snapshot_of(DATA / "destinations.csv")


def _asked(sender: str) -> Iterator[dict[str, str]]:
    import csv

    with (DATA / "truth.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if (
                row["sender"] == sender
                and row["requiretls_requested"] == "yes"
                and row["final_action"] != "held"
            ):
                yield row


SENDERS = {
    # what the sender's settings can authenticate: DANE (level dane), MTA-STS (a policy map)
    "pf-dane-enforce": ("maillog", {"dane"}),
    "pf-sts-enforce": ("mail.iso.log", {"mta_sts"}),
    "pf-danests-verbose": ("maillog", {"dane", "mta_sts"}),
}
REFUSED_LATER = {
    "apple.test": "policy rejection",
    "beech.test": "offers REQUIRETLS, refuses the recipient for it",
    "cedar.test": "offers REQUIRETLS, refuses the data",
    "ginkgo.test": "no such user",
    "locust.test": "offers REQUIRETLS, refuses the parameter",
    "peach.test": "greylists for ever",
    "sandal.test": "offers REQUIRETLS, refuses the parameter",
}
"""Destinations that qualify, and refuse the mail all the same once it comes: no scan without mail can see that."""
HALF_DANE = "laurel.test"
"""Its MX record is unsigned: RFC 8689 §4.2.1 forbids it, Postfix takes TLSA records of the host for enough."""


@pytest.mark.parametrize("sender", SENDERS)
def test_agrees_with_what_happened(sender: str, destinations: Snapshot) -> None:
    """REQUIRETLS mail of real Postfix 3.11 went where the table says it goes, as far as the sender's settings allow."""
    log, can = SENDERS[sender]
    mail = read_logs(DATA / "postfix-3.11.7" / sender / log, timezone="UTC", year=2026, progress=False)
    rows = by_domain(what_if_domains(what_if(mail, destinations)))
    compared = 0
    for said in _asked(sender):
        domain = said["destination_domain"]
        row = rows[domain]
        went = said["final_action"] == "delivered"
        if row["verdict"] == "unknown":
            assert not went, domain
        elif row["verdict"] == "fails":
            assert not went or (domain == HALF_DANE and "dane" in can), domain
        elif domain in REFUSED_LATER:
            assert not went, domain
        else:
            able = row["verified_by"] in can or (row["sts_mx"] is not None and "mta_sts" in can)
            assert went is able, (domain, said["reason_category"])
            compared += able
    assert compared >= 3
    assert sum(row["verdict"] in ("delivered", "at_risk") for row in rows.values()) >= 5


# -- for people, and for Postfix -------------------------------------------------------------------------------


def test_losses_and_text(destinations: Snapshot) -> None:
    """The destinations that carry the loss come first, each with all that has to change."""
    mail = deliveries(
        *({"recipient": f"{n}@pine.test"} for n in range(3)),
        {"recipient": "x@lemon.test"},
        {"recipient": "x@magnolia.test", "action": "failed", "relay_host": None},
        {"recipient": "x@chestnut.test"},
        {"recipient": "x@ebony.test"},
        {"recipient": "x@never-scanned.test"},
    )
    frame = what_if(mail, destinations)
    losses = what_if_losses(frame)
    assert losses["recipient_domain"].tolist() == ["pine.test", "lemon.test", "magnolia.test"]
    assert losses["share"].tolist() == [0.75, 0.25, 0.0]
    assert losses["cumulative"].iloc[1] == 1
    pine = losses.iloc[0]
    assert pine["obstacles"] == "mx_unauthenticated,requiretls_not_offered"
    assert "DNSSEC" in pine["advice"]
    assert "RFC 8689" in pine["advice"]
    text = what_if_text(frame)
    assert "62.5% of the messages would fail; 75.0% if all that could not be told fails too." in text
    assert "1. pine.test: 3 messages to 3 recipients, 3 of them accepted today; 75.0% of the loss" in text
    assert "At risk: of ebony.test only some addresses qualify" in text
    assert "Not scanned: 1 domains with 1 messages (never-scanned.test)" in text
    by_provider = what_if_losses(frame, by="provider")
    assert by_provider["messages"].tolist() == [3, 1, 1]
    with pytest.raises(ValueError, match="provider"):
        what_if_losses(frame, by="tld")


def test_text_is_safe() -> None:
    """What strangers write into addresses reaches no terminal as it is."""
    mail = deliveries({"recipient": "x@a\x1b[31m\r\n.test"})
    text = what_if_text(what_if(mail, snapshot()))
    assert "\x1b" not in text
    assert "\\x1b" in text


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.text(max_size=30), st.one_of(st.none(), st.text(max_size=20))), max_size=5))
def test_any_text_in_a_log(names: list[tuple[str, str | None]]) -> None:
    """Whatever stands for a domain or a relay, the table, the text and the proposal are made, and only host names are proposed."""
    mail = deliveries(
        *(
            {"recipient": f"x@{domain}", "recipient_domain": domain, "relay_host": relay}
            for domain, relay in names
        )
    )
    scan = snapshot(domains=[judged(domain, "none", "no_starttls") for domain in {name for name, _ in names}])
    frame = what_if(mail, scan)
    assert what_if_totals(frame)["messages"].sum() == len(names)
    assert what_if_text(frame).replace("\n", "").isprintable()
    keys = re.findall(r"\{ (.*) = opportunistic \}", postfix_policy(frame))
    assert all(
        re.fullmatch(r"[a-z0-9_.-]+", key) for key in keys if "$mydomain" not in key and key != "localhost"
    )


def _proposal(destinations: Snapshot, rule: str = "requiretls", **options: Any) -> str:
    names = ["chestnut", "rosewood", "quince", "ebony", "lemon", "juniper", "teak", "magnolia", "acacia"]
    mail = deliveries(
        *({"recipient": f"x@{name}.test", "relay_host": f"mx1.{name}.test"} for name in names),
        {"recipient": "x@nutmeg.test", "relay_host": "smart.own.test"},
        {"recipient": "x@a$mydomain} { b.test = none"},
        {"recipient": "x@never-scanned.test"},
    )
    return postfix_policy(what_if(mail, destinations, rule), **options)


def test_proposal(destinations: Snapshot) -> None:
    """Levels for what qualifies, exemptions as comments for what does not, and nothing that a log could smuggle in."""
    text = _proposal(destinations)
    lines = [line.strip() for line in text.splitlines()]
    assert "{ rosewood.test = secure match=mx1.rosewood.test servername=hostname }" in lines
    assert "{ quince.test = verify }" in lines
    assert "# { lemon.test = opportunistic+starttls }" in lines
    assert "# { juniper.test = opportunistic }" in lines
    assert "smtp_tls_security_level = dane" in lines
    for left_out in ("chestnut.test", "nutmeg.test", "magnolia.test", "teak.test", "mydomain} { b"):
        assert left_out not in text, left_out
    relaxed = _proposal(destinations, relaxed=True)
    assert "{ lemon.test = opportunistic+starttls }" in [line.strip() for line in relaxed.splitlines()]
    assert "{ chestnut.test = dane-only }" in _proposal(destinations, "verified")
    assert "{ lemon.test = verify }" in _proposal(destinations, "pkix")
    assert "{ lemon.test = encrypt }" in _proposal(destinations, "tls")
    assert "requiretls" not in _proposal(destinations, "tls")


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_stored_table_says_the_same(destinations: Snapshot, ending: str, tmp_path: Path) -> None:
    """The table comes back from a file with the same totals and the same proposal."""
    mail = deliveries(
        *({"recipient": f"x@{name}.test"} for name in ("chestnut", "rosewood", "lemon", "ebony", "new"))
    )
    frame = what_if(mail, destinations)
    write_table(frame, tmp_path / f"what_if.{ending}")
    back = read_table(tmp_path / f"what_if.{ending}")
    assert table_of(back.columns) is WHAT_IF
    pd.testing.assert_frame_equal(what_if_totals(back), what_if_totals(frame))
    assert postfix_policy(back) == postfix_policy(frame)
    assert "Not scanned: 1 domains with 1 messages (new.test)" in what_if_text(back)


def test_patterns_of_a_policy() -> None:
    """A wildcard of MTA-STS becomes a leading dot; a pattern that is no name gives no line."""
    scan = snapshot(
        domains=[
            judged("a.test", "all", sts_mx=["mx.a.test", "*.b.test"]),
            judged("c.test", "all", sts_mx=["mx.c.test:evil }"]),
            judged("d.test", "all"),
        ],
        mx=[
            {
                "domain": f"{name}.test",
                "mx_host": f"mx.{name}.test",
                "mx_state": "mx",
                "requiretls_ready": "all",
                "secured_by": "implicit_mx" if name == "d" else "mta_sts",
                "dane": "none",
            }
            for name in "acd"
        ],
    )
    mail = deliveries(*({"recipient": f"x@{name}.test"} for name in "acd"))
    text = postfix_policy(what_if(mail, scan))
    assert "{ a.test = secure match=mx.a.test:.b.test servername=hostname }" in text
    assert "{ d.test = secure match=nexthop }" in text
    assert "c.test" not in text


_IN_A_ROOT = """
set -e
folder="$1"; lower="$2"
mount -t tmpfs tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
cat >> "$folder/root/etc/postfix/main.cf"
exec chroot "$folder/root" sh -ec '
postconf -n > /dev/null
for name in rosewood.test quince.test lemon.test; do
  postmap -q "$name" "$(postconf -xh smtp_tls_policy_maps)" || echo -
done
postconf -xh smtp_requiretls_policy | tr -s " \\n" "  "
'
"""


@pytest.mark.servers
def test_postfix_takes_the_proposal(destinations: Snapshot, tmp_path: Path) -> None:
    """A real Postfix 3.11 reads both forms of the proposal and finds in its tables what was meant."""
    try:
        roots, missing = ready_roots()
    except CannotPrepare as problem:
        pytest.skip(str(problem))
    if "postfix-3.11" in missing:
        pytest.skip(missing["postfix-3.11"])
    said: Mapping[bool, list[str]] = {}
    for relaxed in (False, True):
        lower = ":".join(map(str, layer_folders(roots, "postfix-3.11")))
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", _IN_A_ROOT, "sh", tmp_path, lower],
            input=_proposal(destinations, relaxed=relaxed),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr
        assert "fatal" not in done.stderr
        said = {**said, relaxed: done.stdout.splitlines()}
    assert said[False][:3] == ["secure match=mx1.rosewood.test servername=hostname", "verify", "-"]
    policies = {relaxed: lines[3].strip() for relaxed, lines in said.items()}
    assert policies[False].startswith("inline:{ { ")
    assert policies[False].endswith("{ ::/0 opportunistic } }, enforce")
    assert policies[True].startswith("inline:{ { ")
    assert "{ lemon.test = opportunistic+starttls }" in policies[True]
    assert policies[True].endswith(policies[False])


def test_the_table_is_declared() -> None:
    """The table is among those that have a description."""
    assert TABLES["what_if"] is WHAT_IF
