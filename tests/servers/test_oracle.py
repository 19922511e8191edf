"""posttls-finger, Postfix's own prober, agrees with the scanner and with the table about every host and domain."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.servers.conftest import RunningWorld, Scanned
from tests.servers.oracle import Finding
from tests.servers.world import DOMAINS, LISTENERS, Listener, addresses

ROWS = [pytest.param(row, id=f"{row.host}-{address}") for row, address in addresses().items()]
ONE_MX = [pytest.param(row.domain, row.mx[0], id=row.domain) for row in DOMAINS if len(row.mx) == 1]

Findings = Mapping[tuple[str, str], Finding]


@pytest.mark.parametrize("row", ROWS)
def test_oracle_finds_what_was_configured(world: RunningWorld, oracle: Findings, row: Listener) -> None:
    """The table of the world is true: another program, without a line of ours, finds the same."""
    world.need(row)
    found = oracle[row.host, addresses()[row]]
    assert found.pkix == (row.pkix if row.has_address else "not_tested"), found.said
    assert found.dane == row.dane, found.said


@pytest.mark.parametrize("row", [row for row in ROWS if row.values[0].has_address])
def test_scanner_agrees_with_oracle(
    scanned: Scanned, world: RunningWorld, oracle: Findings, row: Listener
) -> None:
    """At every address the PKIX verdict with its reason, the DANE verdict and the TLS version are the same."""
    world.need(row)
    ours = scanned.session(row.host, addresses()[row])
    found = oracle[row.host, addresses()[row]]
    assert (found.pkix, found.dane) == (ours["pkix"], ours["dane"]), found.said
    assert found.tls_version == ours["tls_version"], found.said


@pytest.mark.parametrize(("domain", "host"), ONE_MX)
def test_scanner_agrees_with_oracle_about_domain(
    scanned: Scanned, world: RunningWorld, oracle: Findings, domain: str, host: str
) -> None:
    """Mail for the domain would go over a connection that DANE verified exactly where the scanner says so."""
    world.need(*(row for row in LISTENERS if row.host == host))
    found = oracle[domain, ""]
    assert (found.dane == "match") == (scanned.domain(domain)["dane"] == "all"), found.said
