"""Failures over logs, bounces and reports: small tables by hand, and the real-server lab's own truth."""

from __future__ import annotations

import csv
import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rtls_analysis.analysis.events import events, period, table_of
from rtls_analysis.analysis.experiment import (
    asked_for_requiretls,
    promises,
    requiretls_experiment,
)
from rtls_analysis.analysis.failures import (
    PRECEDENCE,
    failure_rates,
    failure_reasons,
    host_and_message_rates,
    repeated_failures,
)
from rtls_analysis.analysis.log_tls import key_exchange, key_exchanges, tls_versions
from rtls_analysis.outcomes import TlsOutcome
from rtls_analysis.read.logs import read_logs
from rtls_analysis.schema import BOUNCES, CONNECTIONS, DELIVERIES, TLS_REPORTS, to_frame

DATA = Path(__file__).parents[3] / "shared" / "data" / "mta-logs"
AT = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


def deliveries(*rows: dict[str, Any]) -> pd.DataFrame:
    """Attempts of one server; `at` in hours since noon."""
    made = []
    for number, row in enumerate(map(dict, rows)):
        recipient = row.get("recipient", "x@a.test")
        domain = recipient.rpartition("@")[2]
        made.append(
            {
                "logged_at": AT + dt.timedelta(hours=row.pop("at", number)),
                "mta": "postfix",
                "reporting_host": "out",
                "queue_id": f"Q{number}",
                "sender_domain": "own.test",
                "recipient": recipient,
                "recipient_domain": domain,
                "relay_host": f"mx.{domain}",
                "transport": "smtp",
                "attempted": True,
                "action": "delivered",
                "tls_level": "untrusted",
                "tls_outcome": "ok",
                **row,
            }
        )
    return to_frame(DELIVERIES, made)


OFF = {"action": "delayed", "tls_outcome": "starttls_refused"}
MAIL = deliveries(
    {"queue_id": "A"},
    {"queue_id": "B", **OFF},
    {"queue_id": "B"},
    {"queue_id": "C", **OFF, "recipient": "x@b.test"},
    {"queue_id": "C", **OFF, "tls_outcome": "not_tls", "recipient": "x@b.test"},
    {"queue_id": "C", "action": "failed", "attempted": False, "tls_outcome": "not_tls", "recipient": "x@b.test"},
    {"queue_id": "D", **OFF, "recipient": "x@b.test", "at": 13},
    {"queue_id": "E", "transport": "virtual", "relay_host": "virtual", "tls_level": None, "action": "delivered"},
    {"queue_id": "F", "action": "delayed", "attempted": False, "status_word": "held", "tls_outcome": "not_tls"},
)  # fmt: skip


def counts(table: pd.DataFrame, *columns: str) -> dict[Any, Any]:
    chosen = table[list(columns or ("numerator", "denominator", "unknown"))]
    return {key: tuple(row) for key, row in zip(chosen.index, chosen.to_numpy().tolist(), strict=True)}


# -- one form ----------------------------------------------------------------------------------------------------


def test_table_of() -> None:
    """Each of the mail tables is known by its columns; another is refused."""
    for table in (DELIVERIES, CONNECTIONS, BOUNCES, TLS_REPORTS):
        assert table_of(to_frame(table, [])) == table.name
        assert events(to_frame(table, [])).empty
    with pytest.raises(ValueError, match="tls_reports"):
        table_of(pd.DataFrame({"domain": []}))


def test_periods() -> None:
    """A period is named by its begin; a week begins on Monday."""
    at = pd.Series(pd.to_datetime(["2026-11-25T13:59:00Z", None], format="ISO8601"))
    begins = {
        every: period(at, every).dt.strftime("%d %H").iloc[0] for every in ("hour", "day", "week", "month")
    }
    assert begins == {"hour": "25 13", "day": "25 00", "week": "23 00", "month": "01 00"}
    with pytest.raises(ValueError, match="fortnight"):
        period(at, "fortnight")


def test_sessions_of_reports() -> None:
    """Totals that repeat count once; failures without details fail for an unknown reason; the impossible is none."""
    common = {
        "organization": "G",
        "report_id": "1",
        "policy_index": 0,
        "policy_domain": "a.test",
        "begins_at": AT,
    }
    frame = to_frame(
        TLS_REPORTS,
        [
            {**common, "sessions_ok": 90, "sessions_failed": 10, "failed_sessions": 4,
             "tls_outcome": "certificate_expired", "receiving_mx": "mx.a.test"},
            {**common, "sessions_ok": 90, "sessions_failed": 10, "failed_sessions": 3,
             "tls_outcome": "starttls_not_supported", "receiving_mx": "mx.a.test"},
            {**common, "policy_index": 1, "sessions_ok": 5, "sessions_failed": 0, "tls_outcome": "ok"},
            {**common, "report_id": "2", "sessions_ok": -7, "impossible": True, "tls_outcome": "ok"},
        ],
    )  # fmt: skip
    rates = failure_rates(frame)
    assert counts(rates) == {"all": (10, 105, 0)}
    assert rates["unit"].iloc[0] == "session"
    reasons = failure_reasons(frame)
    assert counts(reasons, "numerator", "denominator") == {
        ("all", "certificate_expired"): (4, 10),
        ("all", "starttls_not_supported"): (3, 10),
        ("all", "unknown"): (3, 10),
    }


# -- how often, and why --------------------------------------------------------------------------------------------


def test_failure_rates() -> None:
    """Messages by how they stood last, attempts each; what is queued is unknown; local mail is not counted."""
    assert counts(failure_rates(MAIL)) == {"all": (1, 3, 2)}
    assert counts(failure_rates(MAIL, per="attempt"), "numerator", "denominator", "delayed") == {
        "all": (4, 6, 4)
    }
    by_domain = failure_rates(MAIL, by="destination")
    assert counts(by_domain) == {"a.test": (0, 2, 1), "b.test": (1, 1, 1)}
    assert by_domain.loc["b.test", ["if_unknown_no", "if_unknown_yes"]].tolist() == [0.5, 1]
    by_day = failure_rates(MAIL, by=["day", "destination"], per="attempt")
    assert [str(key[0].date()) for key in by_day.index] == ["2026-11-23", "2026-11-23", "2026-11-24"]
    assert counts(failure_rates(MAIL, per="attempt", reasons=["not_tls"])) == {"all": (1, 6, 0)}
    with pytest.raises(ValueError, match="smime"):
        failure_rates(MAIL, reasons=["smime"])
    with pytest.raises(ValueError, match="destination"):
        failure_rates(MAIL, by="planet")


def test_failure_reasons() -> None:
    """Of several reasons the first by precedence, or all; an expiry repeats its last reason and is none of its own."""
    first = counts(failure_reasons(MAIL), "numerator", "denominator", "delivered", "failed", "queued")
    assert first == {
        ("all", "starttls_refused"): (3, 4, 1, 1, 1),
        ("all", "not_tls"): (1, 4, 0, 0, 1),
    }
    every = counts(failure_reasons(MAIL, count="all"), "numerator", "denominator")
    assert every == {("all", "starttls_refused"): (3, 4), ("all", "not_tls"): (2, 4)}
    assert set(PRECEDENCE) == set(TlsOutcome)
    with pytest.raises(ValueError, match="first"):
        failure_reasons(MAIL, count="some")


def test_reasons_of_connections() -> None:
    """An MX host whose TLS failed before the next one took the mail is a reason that the message met."""
    connections = to_frame(
        CONNECTIONS,
        [
            {"mta": "postfix", "reporting_host": "out", "queue_id": "A", "relay_host": "mx1.a.test",
             "process_id": "1", "tls_level": "none", "tls_outcome": "tls_handshake_failed"},
            {"mta": "postfix", "reporting_host": "out", "queue_id": "M", "relay_host": "mx1.b.test",
             "process_id": "1", "tls_level": "none", "tls_outcome": "tls_handshake_failed"},
            {"mta": "postfix", "reporting_host": "out", "queue_id": None, "relay_host": "mx1.a.test",
             "process_id": "1", "tls_level": "none", "tls_outcome": "tls_handshake_failed"},
        ],
    )  # fmt: skip
    mail = deliveries(
        {"queue_id": "A"},
        {"queue_id": "M", "recipient": "x@a.test"},
        {"queue_id": "M", "recipient": "x@b.test"},
    )
    table = failure_reasons(mail, connections=connections, by="destination")
    assert counts(table, "numerator", "delivered") == {
        ("a.test", "tls_handshake_failed"): (1, 1),
        ("b.test", "tls_handshake_failed"): (1, 1),
    }
    assert counts(failure_rates(connections)) == {"all": (3, 3, 0)}


def test_repeated_failures() -> None:
    """First tries that failed, what became of the messages, and whether the destination still fails."""
    table = repeated_failures(MAIL)
    assert counts(table, "numerator", "denominator", "recovered", "lost", "queued", "most_tries") == {
        "a.test": (1, 2, 1, 0, 0, 2),
        "b.test": (2, 2, 0, 1, 1, 2),
    }
    assert table["is_failing"].to_dict() == {"a.test": False, "b.test": True}
    assert table.loc["b.test", "first_failed_at"] == AT + dt.timedelta(hours=3)
    assert table.loc["a.test", "recovered_rate"] == 1
    whole = repeated_failures(MAIL, by=[])
    assert counts(whole, "numerator", "denominator") == {"all": (3, 4)}


def test_host_and_message_rates() -> None:
    """In May 2014 three quarters of the hosts offered TLS and little more than half of the messages had it."""
    mail = deliveries(
        *({"recipient": f"{n}@big.test", "tls_level": "none"} for n in range(6)),
        *({"recipient": f"x@small{n}.test", "tls_level": "verified"} for n in range(3)),
        {"recipient": "x@log.test", "tls_level": "encrypted"},
        {"recipient": "x@mixed.test", "tls_level": "trusted"},
        {"recipient": "y@mixed.test", "tls_level": "none"},
        {"recipient": "z@lost.test", "tls_level": "none", "action": "failed"},
    )
    table = host_and_message_rates(mail)
    assert counts(table) == {
        ("all", "encrypted", "message"): (5, 12, 0),
        ("all", "encrypted", "host"): (5, 6, 0),
        ("all", "certificate_valid", "message"): (4, 11, 1),
        ("all", "certificate_valid", "host"): (4, 5, 1),
        ("all", "verified", "message"): (3, 11, 1),
        ("all", "verified", "host"): (3, 5, 1),
    }
    assert table.loc[("all", "encrypted", "message"), "design_effect"] > 1
    strict = host_and_message_rates(mail, hosts="all")
    assert strict.loc[("all", "encrypted", "host"), "numerator"] == 4
    with pytest.raises(ValueError, match="any"):
        host_and_message_rates(mail, hosts="most")


# -- the wish for REQUIRETLS ---------------------------------------------------------------------------------------

WISHES = deliveries(
    {"requiretls": "sent", "requiretls_strict": "yes", "tls_level": "verified"},
    {"requiretls": "sent", "requiretls_strict": "no", "tls_level": "trusted"},
    {"requiretls": "sent", "requiretls_strict": "unknown", "tls_level": "verified"},
    {"requiretls": "sent_unauthenticated", "requiretls_strict": "no"},
    {"requiretls": "not_offered"},
    {"requiretls": "no_starttls", "tls_level": "none"},
    {"requiretls": "not_offered", "requiretls_violated": True, "action": "failed"},
    {"requiretls": "sent", "requiretls_strict": "yes", "action": "failed", "tls_outcome": "not_tls"},
    {"requiretls": "undecided", "action": "delayed"},
    {"requiretls": "not_requested"},
    {"requiretls": "unknown"},
)


def test_experiment() -> None:
    """Shares of what was decided; what was not stands beside; mail that did not ask is not counted."""
    table = requiretls_experiment(WISHES)
    assert counts(table) == {
        ("own.test", "sent"): (4, 8, 1),
        ("own.test", "sent_unauthenticated"): (1, 8, 1),
        ("own.test", "not_offered"): (2, 8, 1),
        ("own.test", "no_starttls"): (1, 8, 1),
        ("own.test", "no_encryption"): (0, 8, 1),
        ("own.test", "no_certificate_match"): (0, 8, 1),
    }
    by_day = requiretls_experiment(WISHES, by=["sender_domain", "day"])
    assert by_day.index.nlevels == 3
    assert by_day["numerator"].sum() == 8
    empty = requiretls_experiment(WISHES.iloc[:0])
    assert empty.empty


def test_promises() -> None:
    """Delivered is not kept: half-DANE and an unauthenticated server weaken, an opportunistic policy drops or breaks."""
    assert asked_for_requiretls(WISHES)["promise"].tolist() == [
        "kept",
        "weakened",
        "kept_untold",
        "weakened",
        "dropped",
        "broken",
        "refused",
        "not_delivered",
        "not_delivered",
    ]
    table = promises(WISHES)
    assert table["denominator"].unique().tolist() == [6]
    assert "refused" not in table.index.get_level_values("promise")
    whole = promises(WISHES, by=None, of="all")
    assert whole["numerator"].sum() == 9
    with pytest.raises(ValueError, match="delivered"):
        promises(WISHES, of="some")


def test_a_message_has_the_word_of_its_last_attempt() -> None:
    """Retries are one message: greylisted, then sent on; its end may come without a word."""
    mail = deliveries(
        {"queue_id": "A", "requiretls": "undecided", **OFF},
        {"queue_id": "A", "requiretls": "sent", "requiretls_strict": "yes"},
        {"queue_id": "B", "requiretls": "undecided", **OFF},
        {"queue_id": "B", "requiretls": "unknown", "action": "failed", "attempted": False},
    )
    rows = asked_for_requiretls(mail)
    assert rows["promise"].tolist() == ["kept", "not_delivered"]
    assert rows["result"].tolist() == ["ok", "failed"]
    assert len(asked_for_requiretls(mail, per="attempt")) == 3


TRUTH = {
    "delivered_requiretls_satisfied": {"kept"},
    "delivered_requiretls_with_half_dane": {"weakened"},
    "delivered_requiretls_sent_without_cert_match": {"weakened"},
    "delivered_requiretls_not_supported_by_server_tls": {"dropped"},
    "delivered_requiretls_not_supported_by_server_cleartext": {"broken"},
    "sender_config_disables_cert_matching": {"refused"},
    "server_certificate_not_acceptable_for_requiretls": {"refused"},
    "server_lacks_requiretls": {"refused"},
    "server_lacks_starttls_for_requiretls": {"refused"},
    "server_refused_starttls_for_requiretls": {"refused"},
}
"""What the lab's truth says of a REQUIRETLS message, and the promise that it comes to; others were not delivered."""


def test_promises_of_real_postfix() -> None:
    """Of every REQUIRETLS message that real Postfix 3.11 servers sent, the promise is what the lab's truth says."""
    if not (DATA / "truth.csv").exists():
        pytest.skip("no mta-logs beside the repository")
    with (DATA / "truth.csv").open(encoding="utf-8", newline="") as stream:
        said = {
            (row["queue_id"], row["recipient"]): TRUTH.get(row["reason_category"], {"not_delivered"})
            for row in csv.DictReader(stream)
            if row["requiretls_requested"] == "yes" and row["log_tls_field"]
        }
    logs = [DATA / "postfix-3.11.7" / "pf-*" / "mail*"]
    mail = read_logs(list(map(str, logs)), timezone="UTC", year=2026, progress=False)
    rows = asked_for_requiretls(mail)
    found = {(row.queue_id, row.recipient): row.promise for row in rows.itertuples()}
    assert len(said) > 400
    wrong = {key: (found.get(key), words) for key, words in said.items() if found.get(key) not in words}
    assert wrong == {}
    assert Counter(found.values())["broken"] == 14


# -- TLS versions and key exchanges ----------------------------------------------------------------------------------

CIPHERS = [
    ("GnuTLS, TLS 1.3", "ECDHE_X25519__RSA_PSS_RSAE_SHA256__AES_256_GCM", None, "X25519"),
    ("GnuTLS, TLS 1.2", "ECDHE_SECP521R1__RSA_SHA512__AES_256_GCM", None, "P-521"),
    ("GnuTLS, DHE", "DHE_FFDHE2048__RSA_SHA256__AES_128_GCM", None, "FFDHE2048"),
    ("GnuTLS, static RSA", "RSA__AES_256_CBC__SHA1", None, "RSA"),
    ("OpenSSL, TLS 1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", None, "ECDHE"),
    ("OpenSSL, DHE", "DHE-RSA-AES256-SHA", None, "DHE"),
    ("OpenSSL, static RSA", "AES128-SHA", None, "RSA"),
    ("IANA, TLS 1.2", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", None, "ECDHE"),
    ("IANA, static RSA", "TLS_RSA_WITH_AES_128_CBC_SHA", None, "RSA"),
    ("TLS 1.3 does not tell", "TLS_CHACHA20_POLY1305_SHA256", None, "not told"),
    ("Postfix tells", "TLS_AES_256_GCM_SHA384", "... (256/256 bits) key-exchange X25519MLKEM768 server-", "X25519MLKEM768"),
    ("Postfix with OpenSSL's name", "TLS_AES_256_GCM_SHA384", "x key-exchange prime256v1", "P-256"),
    ("nothing", None, None, "not told"),
    ("nonsense", "-", "key-exchange", "not told"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("cipher", "text", "expected"), [pytest.param(*rest, id=why) for why, *rest in CIPHERS]
)
def test_key_exchange(cipher: str | None, text: str | None, expected: str) -> None:
    """The group where it is told, the kind where only that is, and nothing guessed."""
    assert key_exchange(cipher, text) == expected


def test_published_log_counts() -> None:
    """The counts of Siebenmann's logs of April 2023 come back: versions, and key exchanges under each."""
    published = {
        ("TLSv1.3", "X25519"): 25_774,
        ("TLSv1.2", "P-256"): 19_678,
        ("TLSv1.2", "P-384"): 11_159,
        ("TLSv1.2", "P-521"): 2_916,
        ("TLSv1.2", "X25519"): 2_599,
        ("TLSv1.3", "P-256"): 435,
        ("TLSv1.0", "P-256"): 203,
        ("TLSv1.2", "RSA"): 74,
        ("TLSv1.0", "RSA"): 26,
        ("TLSv1.1", "P-521"): 16,
        ("TLSv1.1", "RSA"): 5,
    }
    names = {"X25519": "X25519", "P-256": "SECP256R1", "P-384": "SECP384R1", "P-521": "SECP521R1"}
    shapes = {
        (version, group): f"ECDHE_{names[group]}__RSA_SHA256__AES_128_GCM"
        if group in names
        else "RSA__AES_128_CBC__SHA1"
        for version, group in published
    }
    pieces = []
    for number, (key, count) in enumerate({**published, ("none", ""): 94_037 - 62_885}.items()):
        row = {
            "queue_id": f"Q{number}",
            "tls_level": "encrypted",
            "tls_version": key[0],
            "cipher": shapes.get(key),
        }
        if key[0] == "none":
            row |= {"tls_level": "none", "tls_version": None}
        piece = deliveries({**row, "at": 0})
        pieces.append(piece.loc[piece.index.repeat(count)])
    mail = pd.concat(pieces, ignore_index=True)
    mail["queue_id"] = mail.index.astype(str)
    versions = tls_versions(mail)
    row = versions.iloc[0]
    assert (row["sessions"], row["tls"]) == (94_037, 62_885)
    assert row[["TLSv1.3", "TLSv1.2", "TLSv1.1", "TLSv1.0"]].tolist() == [26_209, 36_426, 21, 229]
    table = key_exchanges(mail)
    assert {key[1:]: n for key, n in table["numerator"].items()} == published
    assert table.index[0][1:] == ("TLSv1.3", "X25519")
    assert table["denominator"].unique().tolist() == [62_885]


def test_versions_of_connections() -> None:
    """A connection used again is none anew; one whose TLS is not told is unknown."""
    frame = to_frame(
        CONNECTIONS,
        [
            {"logged_at": AT, "process_id": "1", "tls_level": "trusted", "tls_version": "TLSv1.3", "reused": False,
             "tls_outcome": "ok", "cipher": "TLS_AES_256_GCM_SHA384", "text": "x key-exchange X25519 y"},
            {"logged_at": AT, "process_id": "1", "tls_level": "trusted", "tls_version": "TLSv1.3", "reused": True,
             "tls_outcome": "ok"},
            {"logged_at": AT, "process_id": "2", "tls_level": "none", "tls_outcome": "starttls_not_supported"},
            {"logged_at": AT, "process_id": "3", "tls_level": "unknown", "tls_outcome": "not_tls"},
        ],
    )  # fmt: skip
    row = tls_versions(frame).iloc[0]
    assert (row["sessions"], row["tls"], row["unknown"], row["TLSv1.3"]) == (2, 1, 1, 1)
    assert counts(key_exchanges(frame), "numerator") == {("all", "TLSv1.3", "X25519"): (1,)}
