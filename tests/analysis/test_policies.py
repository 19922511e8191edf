"""MTA-STS: records, where having the policy fails, modes, lifetimes, MX names, and what loses mail."""

from __future__ import annotations

from collections import Counter

import pytest

import rtls_analysis as rtls
from rtls_analysis.analysis.policies import LAYERS, Layer, sts_states
from rtls_analysis.outcomes import StsPolicyState
from tests.analysis.made import made


def test_every_state_has_its_layer() -> None:
    """But for what was never tried."""
    assert set(StsPolicyState) - set(LAYERS) == {
        StsPolicyState.NO_RECORD,
        StsPolicyState.NOT_TESTED,
        StsPolicyState.ADDRESS_REFUSED,
    }
    assert set(LAYERS.values()) == set(Layer)


def test_the_states_of_a_scan(scanned: rtls.Snapshot) -> None:
    """Each aspect adds up to its own denominator, and counts the words of the table."""
    table = sts_states(scanned)
    for aspect in ("record", "policy", "layer", "mode", "max_age", "mx"):
        rows = table.loc[aspect]
        assert rows["numerator"].sum() == rows["trials"].iloc[0], aspect
    domains = scanned.domains
    records = Counter(domains["sts_record"])
    assert table.loc["record"]["numerator"].to_dict() == {
        word: records[word] for word in ("valid", "absent", "multiple", "malformed")
    }
    assert table.loc[("record", "valid"), "unknown"] == records["dns_failure"]
    with_record = domains[domains["sts_record"].eq("valid")]
    policies = Counter(with_record["sts_policy"])
    assert all(count == policies[word] for word, count in table.loc["policy"]["numerator"].items())
    valid = with_record[with_record["sts_policy"].eq("valid")]
    assert table.loc["mode"]["numerator"].to_dict() == {
        word: int(valid["sts_mode"].eq(word).sum()) for word in ("enforce", "testing", "none")
    }
    assert table["unit"].unique().tolist() == ["domain"]


AGES = [
    (0, "under a day"),
    (86_399, "under a day"),
    (86_400, "under a week"),
    (604_800, "under a month"),
    (2_592_000, "under half a year"),
    (31_557_600, "half a year or more"),
]


@pytest.mark.parametrize(("seconds", "word"), AGES)
def test_lifetimes(seconds: int, word: str) -> None:
    """RFC 8461 advises weeks or more."""
    domain = {"domain": "a.example", "mx_state": "mx", "sts_record": "valid", "sts_policy": "valid", "sts_mode": "testing", "sts_max_age_seconds": seconds}  # fmt: skip
    counts = sts_states(made([domain])).loc["max_age"]["numerator"]
    assert counts[counts > 0].to_dict() == {word: 1}


LOSSES = [  # mode, match of the MX host, PKIX of its session, STARTTLS; misconfigured, loses mail, untold
    ("enforce", True, "valid", "yes", 0, 0, 0),
    ("enforce", False, "valid", "yes", 1, 1, 0),
    ("enforce", True, "expired", "yes", 0, 1, 0),
    ("enforce", True, "not_tested", "no", 0, 1, 0),
    ("enforce", True, "not_tested", "unknown", 0, 0, 1),
    ("testing", False, "valid", "yes", 1, 0, 0),
    ("testing", True, "expired", "yes", 0, 0, 0),
]


@pytest.mark.parametrize(("mode", "match", "pkix", "starttls", "misconfigured", "loses", "untold"), LOSSES)
def test_who_loses_mail(
    mode: str, match: bool, pkix: str, starttls: str, misconfigured: int, loses: int, untold: int
) -> None:
    """Mode enforce, and no MX host that is named, has TLS and a good certificate; a silent host tells nothing."""
    host = "mx.example" if match else "other.example"
    text = f"version: STSv1\nmode: {mode}\nmx: mx.example\nmax_age: 604800\n"
    world = made(
        [{
            "domain": "a.example", "mx_state": "mx", "mx_dnssec": "insecure", "sts_record": "valid", "sts_policy": "valid",
            "sts_mode": mode, "sts_max_age_seconds": 604800, "sts_policy_text": text, "sts_http_status": 200,
            "sts_content_type": "text/plain", "sts_policy_bytes": len(text),
        }],
        mx=[{"domain": "a.example", "preference": 10, "mx_host": host, "mx_state": "mx", "sts_match": match}],
        hosts=[{"mx_host": host, "mx_state": "mx", "tlsa_state": "none"}],
        sessions=[{
            "mx_host": host, "address": "192.0.2.1", "outcome": "completed", "starttls": starttls, "pkix": pkix, "dane": "none",
            "requiretls_tls": "no", "tls_version": "TLSv1.3", "name_match": True, "dns_id_match": True,
        }],
    )  # fmt: skip
    table = sts_states(world).loc["health"]
    assert table["numerator"].to_dict() == {"misconfigured": misconfigured, "loses_mail": loses}
    assert table.loc["loses_mail", "unknown"] == untold


def test_a_broken_record_is_misconfigured() -> None:
    """So is a policy that cannot be had; a domain without a record is neither."""
    domains = [
        {"domain": "a.example", "sts_record": "malformed", "sts_policy": "no_record"},
        {"domain": "b.example", "sts_record": "valid", "sts_policy": "tls_failed"},
        {"domain": "c.example", "sts_record": "absent", "sts_policy": "no_record"},
        {"domain": "d.example", "sts_record": "valid", "sts_policy": "address_refused"},
    ]
    table = sts_states(made(domains))
    health = table.loc[("health", "misconfigured")]
    assert (health["numerator"], health["trials"]) == (2, 2)
    assert table.loc[("layer", "TLS"), ["numerator", "trials", "not_tested"]].tolist() == [1, 1, 1]


def test_nobody() -> None:
    """An empty snapshot counts nobody."""
    assert sts_states(made())[["numerator", "trials"]].sum().sum() == 0
