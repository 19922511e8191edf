"""Hops judged by kinds are the hops judged one by one, under every reading."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rtls_analysis as rtls
from rtls_analysis.analysis.hops import QUESTIONS, domain_shares, hop_verdicts
from rtls_analysis.analysis.readiness import READINGS
from rtls_analysis.outcomes import DomainShare
from rtls_analysis.standards.requiretls import Rules
from rtls_analysis.verdicts import Answer, domain_share, judge_hops
from tests.analysis.made import made


def _differences(hops: pd.DataFrame, snapshot: rtls.Snapshot) -> list[str]:
    """Where a table of hops says something else than `judge_hops`."""
    expected = list(judge_hops(snapshot))
    assert len(hops) == len(expected)
    found = []
    for row, (domain, hop) in zip(hops.to_dict("records"), expected, strict=True):
        if row["domain"] != domain["domain"]:
            found.append(f"{row['domain']} stands for {domain['domain']}")
        elif hop is None:
            if not pd.isna(row["mx_host"]) or row["obstacle"] != domain["obstacle"]:
                found.append(f"{row['domain']} has no hop")
        else:
            said = {
                "mx_host": hop.mx_host,
                "address": hop.address,
                "obstacle": hop.verdict.obstacle,
                "obstacles": hop.verdict.obstacles,
                "maybe": hop.verdict.maybe,
                **{question: getattr(hop, question) for question in QUESTIONS},
            }
            found += [f"{row['domain']}: {name}" for name, value in said.items() if row[name] != value]
    return found


def test_hops_are_judged_as_one_by_one(scanned: rtls.Snapshot) -> None:
    """The whole lab, the odd kinds and the hostile ones too."""
    assert _differences(hop_verdicts(scanned), scanned) == []


@pytest.mark.parametrize("reading", [READINGS["all of them lenient"], READINGS["all of them strict"]])
def test_under_other_readings(scanned: rtls.Snapshot, reading: dict[str, Any]) -> None:
    """The same evidence by other rules is what `rtls.judge` makes of it."""
    rules = Rules.of(**{**scanned.manifest["rules"], **reading})
    assert _differences(hop_verdicts(scanned, rules), rtls.judge(scanned, **reading)) == []


def test_shares_are_those_of_the_domains(scanned: rtls.Snapshot) -> None:
    """Summed up, the answers of the hops are the columns of `domains` and `mx`."""
    hops = hop_verdicts(scanned)
    domains = scanned.domains.set_index("domain")
    for question in QUESTIONS:
        found = domain_shares(hops, question)
        assert (found.astype(str) == domains[question].reindex(found.index).astype(str)).all(), question
        assert len(found) == len(domains)
    mx = scanned.mx.set_index(["domain", "mx_host"])["requiretls_ready"]
    by_host = domain_shares(hops[hops["mx_host"].notna()], "requiretls_ready", ["domain", "mx_host"])
    assert (by_host.astype(str) == mx.reindex(by_host.index).astype(str)).all()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.sampled_from(list(Answer)), max_size=6), max_size=8))
def test_shares_of_any_answers(of_domains: list[list[Answer]]) -> None:
    """The rule for whole tables is the rule for one domain."""
    dtype = pd.CategoricalDtype([str(answer) for answer in Answer])
    rows = [(str(n), str(answer)) for n, said in enumerate(of_domains) for answer in said or [None]]
    hops = pd.DataFrame(rows, columns=["domain", "dane"])
    hops["dane"] = hops["dane"].where(hops["dane"] != "None").astype(dtype)
    found = domain_shares(hops, "dane")
    assert {int(name): DomainShare(word) for name, word in found.items()} == {
        number: domain_share(said) for number, said in enumerate(of_domains)
    }


def test_nobody() -> None:
    """A snapshot without a domain has no hop; one without a session has its domains."""
    assert len(hop_verdicts(made())) == 0
    alone = hop_verdicts(made([{"domain": "a.example", "mx_state": "mx", "mx_dnssec": "insecure"}]))
    assert alone["obstacle"].tolist() == ["no_mx"]
    assert alone["mx_host"].isna().all()


def test_another_cn_id_needs_the_certificates(scanned: rtls.Snapshot) -> None:
    """It is not made up from words."""
    with pytest.raises(ValueError, match=r"judge the snapshot again with rtls\.judge"):
        hop_verdicts(scanned, Rules.of(cn_id=False))
