"""The readiness funnel counts what the lab's truth says, at each stage and for each obstacle."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
import pytest

import rtls_analysis as rtls
from rtls_analysis.analysis.readiness import Stage, readiness_funnel, readings
from rtls_analysis.lab import Lab
from rtls_analysis.outcomes import Obstacle

STAGES = [str(stage) for stage in Stage]


@pytest.fixture(scope="module")
def funnel(scanned: rtls.Snapshot) -> pd.DataFrame:
    return readiness_funnel(scanned)


def _remaining(funnel: pd.DataFrame) -> dict[str, int]:
    return dict(zip(funnel["stage"], funnel["remaining"], strict=True))


def test_the_funnel_is_that_of_the_truth(lab: Lab, funnel: pd.DataFrame) -> None:
    """Who has a mail host, whose TLS comes about, and who is ready: as the lab was made."""
    truth = lab.truth["domains"]
    remaining = _remaining(funnel)
    assert list(remaining) == STAGES
    assert remaining[Stage.LISTED] == len(truth) == 1000
    assert remaining[Stage.MX] == (truth["obstacle"] != "no_mx").sum()
    assert remaining[Stage.REQUIRETLS] == truth["requiretls_ready"].isin(["all", "some"]).sum()
    by_best = _furthest(lab)
    assert remaining == {stage: sum(end > at for end in by_best.values()) for at, stage in enumerate(STAGES)}


def _furthest(lab: Lab) -> dict[str, int]:
    """How many stages each domain's best address passes, added up from the truth of its parts."""
    truth = lab.truth
    sessions: dict[str, list[dict[str, Any]]] = {}
    for session in truth["sessions"].to_dict("records"):
        sessions.setdefault(session["mx_host"], []).append(session)
    hosts = {row["mx_host"]: row for row in truth["hosts"].to_dict("records")}
    domains = {row["domain"]: row for row in truth["domains"].to_dict("records")}
    furthest = {name: 1 if row["obstacle"] == "no_mx" else 2 for name, row in domains.items()}
    for mx in truth["mx"].to_dict("records"):
        domain, host = domains[mx["domain"]], hosts[mx["mx_host"]]
        for session in sessions.get(mx["mx_host"], []):
            passed = _passed(domain, mx, host, session)
            furthest[mx["domain"]] = max(furthest[mx["domain"]], passed)
    return furthest


def _passed(domain: dict[str, Any], mx: dict[str, Any], host: dict[str, Any], session: dict[str, Any]) -> int:
    """The stages that one address passes: listed, has a host, answers, STARTTLS, TLS, name, certificate, keyword."""
    counts_dane = domain["mx_dnssec"] == "secure" or domain["mx_state"] == "implicit_mx"
    failed = counts_dane and host["tlsa_state"] == "error"
    conditions = [
        session["starttls"] in ("yes", "no", "failed") and not failed,
        session["starttls"] != "no",
        session["starttls"] == "yes" and session["tls_version"] in ("TLSv1.2", "TLSv1.3"),
        mx["secured_by"] not in ("none", "unknown")
        and not (domain["sts_mode"] == "enforce" and not mx["sts_match"]),
        not {"dane_mismatch", "certificate_unverified"} & set(mx["obstacles"]),
        session["requiretls_tls"] == "yes",
    ]
    return 2 + next((at for at, holds in enumerate(conditions) if not holds), len(conditions))


def test_the_funnel_adds_up(funnel: pd.DataFrame) -> None:
    """Each stage loses what its obstacles say; shares are of all that are listed."""
    reasons = funnel.attrs["reasons"]
    assert set(reasons) - {"not_tested"} <= set(map(str, Obstacle))
    assert (funnel["lost"] == funnel[reasons].sum(axis=1)).all()
    assert (funnel["remaining"].diff().fillna(0) == -funnel["lost"]).all()
    assert (funnel["share"] == funnel["remaining"] / funnel["remaining"].iloc[0]).all()
    assert funnel["remaining"].is_monotonic_decreasing
    assert ((funnel["low"] <= funnel["share"]) & (funnel["share"] <= funnel["high"])).all()


def test_the_reasons_are_those_of_the_domains(lab: Lab, scanned: rtls.Snapshot) -> None:
    """In the order of the decision table a domain is lost to the obstacle that `domains` names."""
    funnel = readiness_funnel(scanned, order="decision")
    counted = Counter({name: int(funnel[name].sum()) for name in funnel.attrs["reasons"]})
    left_out = counted.pop("not_tested", 0)
    truth = Counter(lab.truth["domains"]["obstacle"])
    ready = truth.pop("")
    assert funnel["remaining"].iloc[-1] == ready
    truth["unknown"] -= left_out  # the obstacle of those that were left out by our choice
    assert counted == +truth


UNITS = [("address", ["mx_host", "address"]), ("hop", ["domain", "mx_host", "address"])]


@pytest.mark.parametrize(("unit", "keys"), UNITS)
def test_units(lab: Lab, scanned: rtls.Snapshot, unit: str, keys: list[str]) -> None:
    """An address counts once, however many domains share it; a domain's address once for each domain."""
    funnel = readiness_funnel(scanned, unit=unit)
    pairs = lab.truth["mx"].merge(lab.truth["sessions"], on="mx_host", suffixes=("", "_of_session"))
    distinct = pairs[keys].drop_duplicates()
    listed = funnel["remaining"].iloc[0]
    if unit == "hop":  # a domain without any, and a host whose lookup failed, stand for themselves
        assert listed > len(distinct)
        assert listed - funnel["no_mx"].sum() - funnel["dns_error"].sum() <= len(distinct)
    else:
        assert listed == len(distinct)
    with_tls = pairs[pairs["starttls"] == "yes"][keys].drop_duplicates()
    assert funnel.set_index("stage")["remaining"][Stage.HANDSHAKE] <= len(with_tls)


def test_testing_mode_lets_more_pass(scanned: rtls.Snapshot) -> None:
    """Another reading moves the last stage as the `_testing` column says."""
    from rtls_analysis.standards.requiretls import Rules

    lenient = readiness_funnel(scanned, rules=Rules.of(sts_modes=["enforce", "testing"]))
    ready = scanned.domains["requiretls_ready_testing"].isin(["all", "some"]).sum()
    assert lenient["remaining"].iloc[-1] == ready > readiness_funnel(scanned)["remaining"].iloc[-1]


def test_readings_side_by_side(scanned: rtls.Snapshot) -> None:
    """The first reading is the scan's own; each other one says how many it gained and lost."""
    table = readings(scanned)
    own = scanned.domains["requiretls_ready"].value_counts()
    first = table.iloc[0]
    assert (first["all"], first["some"], first["none"]) == (own["all"], own["some"], own["none"])
    assert (first["gained"], first["lost"]) == (0, 0)
    yes = table["all"] + table["some"]
    assert (yes - yes.iloc[0] == table["gained"] - table["lost"]).all()
    assert (table["gained"] + table["lost"]).gt(0).any()


def test_a_scan_of_nobody(lab: Lab) -> None:
    """A snapshot in which nobody has a mail host has a funnel too."""
    snapshot = rtls.scan(["nxdomain.test", "null-mx.test"], progress=False, **lab.scan_options)
    funnel = readiness_funnel(snapshot)
    assert list(funnel["remaining"]) == [2, 0, 0, 0, 0, 0, 0, 0]
    assert funnel["no_mx"].sum() == 2


def test_a_word_that_is_none_is_refused(scanned: rtls.Snapshot) -> None:
    """One line says what there is."""
    for name in ("unit", "order", "rule"):
        with pytest.raises(ValueError, match=rf"{name} is 'continent'; give"):
            readiness_funnel(scanned, **{name: "continent"})
