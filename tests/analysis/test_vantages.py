"""The same servers seen twice: every pair of words is a cell, and only told ones are discordant."""

from __future__ import annotations

import pytest

import rtls_analysis as rtls
from rtls_analysis.analysis.vantages import agreement, families, family_differences, vantage_differences
from rtls_analysis.store import Snapshot
from tests.analysis.made import made


def _seen(**words: str) -> Snapshot:
    return made(
        sessions=[
            {"mx_host": f"{name}.example", "address": f"192.0.2.{len(name)}", "outcome": "completed", "starttls": word, "requiretls_tls": "no", "pkix": "valid", "dane": "none"}
            for name, word in words.items()
        ]
    )  # fmt: skip


def _two() -> tuple[Snapshot, Snapshot]:
    return (
        _seen(a="yes", bb="yes", ccc="no", dddd="yes", alone="yes"),
        _seen(a="yes", bb="no", ccc="no", dddd="unknown", elsewhere="no", other="no"),
    )


def test_agreement() -> None:
    """Of what both saw: who agrees, and who came to another conclusion; what one saw alone is counted beside."""
    table = agreement(*_two())
    cells = {key: (row["numerator"], row["agrees"], row["is_discordant"]) for key, row in table.iterrows()}
    assert cells == {
        ("yes", "yes"): (1, True, False),
        ("yes", "no"): (1, False, True),
        ("no", "no"): (1, True, False),
        ("yes", "unknown"): (1, False, False),  # a limit at one vantage contradicts nothing
    }
    assert table["trials"].unique().tolist() == [4]
    assert (table.attrs["only_first"], table.attrs["only_second"]) == (1, 2)
    assert table["unit"].unique().tolist() == ["address"]


def test_vantage_differences() -> None:
    """Rates of the same servers, compared in pairs."""
    row = vantage_differences(*_two(), of=["starttls"]).loc["starttls"]
    assert row[["kept", "lost", "gained", "neither", "untold"]].tolist() == [1, 1, 0, 1, 1]
    assert (row["entered"], row["left"]) == (2, 1)
    assert row["difference"] == pytest.approx(-1 / 3)


def test_a_scan_agrees_with_itself(scanned: rtls.Snapshot) -> None:
    """By address and by domain."""
    for unit, of in (("address", "starttls"), ("domain", "requiretls_ready"), ("host", "tlsa_state")):
        table = agreement(scanned, scanned, of=of, unit=unit)
        assert table["agrees"].all()
        assert table["numerator"].sum() == table["trials"].iloc[0]
    with pytest.raises(ValueError, match="unit is 'planet'; give address, host, domain"):
        agreement(scanned, scanned, unit="planet")


def test_one_process_and_two_are_one_vantage(scans: dict[int, rtls.Snapshot]) -> None:
    """Two scans of the lab agree everywhere."""
    table = vantage_differences(scans[1], scans[2])
    assert table[["lost", "gained", "entered", "left"]].to_numpy().sum() == 0


def test_families() -> None:
    """A host says yes by a family where one of its addresses does; one of a single family is counted beside."""
    words = [
        ("a", "192.0.2.1", "no"),
        ("a", "192.0.2.2", "yes"),
        ("a", "2001:db8::1", "no"),
        ("b", "192.0.2.3", "yes"),
        ("b", "2001:db8::2", "not_tested"),
        ("b", "2001:db8::3", "unknown"),
        ("c", "192.0.2.4", "yes"),
        ("d", "2001:db8::4", "yes"),
    ]
    world = made(
        sessions=[
            {"mx_host": f"{host}.example", "address": address, "starttls": word, "pkix": "not_tested", "dane": "not_tested", "requiretls_tls": "not_tested"}
            for host, address, word in words
        ]
    )  # fmt: skip
    table = families(world)
    assert table["numerator"].to_dict() == {("yes", "no"): 1, ("yes", "unknown"): 1}
    assert table["is_discordant"].to_dict() == {("yes", "no"): True, ("yes", "unknown"): False}
    assert (table.attrs["only_IPv4"], table.attrs["only_IPv6"]) == (1, 1)
    row = family_differences(world, of=["starttls"]).loc["starttls"]
    assert row[["kept", "lost", "gained", "neither", "untold"]].tolist() == [0, 1, 0, 0, 1]


def test_families_of_a_scan(scanned: rtls.Snapshot) -> None:
    """The lab has hosts of both families, of IPv4 and of IPv6 alone."""
    table = families(scanned)
    assert table["trials"].iloc[0] > 0
    assert table["numerator"].sum() == table["trials"].iloc[0]
    assert table.attrs["only_IPv4"] > 0
    assert list(family_differences(scanned).index) == ["starttls", "pkix", "dane", "requiretls_tls"]


def test_nobody() -> None:
    """Two empty scans have nothing to compare."""
    assert len(agreement(made(), made())) == 0
    assert vantage_differences(made(), made())["trials"].sum() == 0
    assert len(families(made())) == 0
    assert family_differences(made())["trials"].sum() == 0
