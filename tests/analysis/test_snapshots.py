"""Two scans compared: every difference is named once, by what it is."""

from __future__ import annotations

from typing import Any

from rtls_analysis.analysis.snapshots import changes_text, compare
from rtls_analysis.store import Snapshot, SnapshotWriter


def snapshot(**domains: dict[str, Any]) -> Snapshot:
    writer = SnapshotWriter(None, {"scan": {}}, b"")
    table = writer.replacement("domains")
    for name, columns in domains.items():
        table.add({"domain": f"{name}.example", **columns})
    table.finish()
    writer.close()
    return writer.snapshot()


def test_compare() -> None:
    """Entered, left, gained, lost and changed are told apart; what stays is not listed, and silence is no loss."""
    before = snapshot(
        stays={"starttls": "all", "obstacle": "mx_unauthenticated"},
        gains={"requiretls_offered": "none", "obstacle": "requiretls_not_offered"},
        loses={"starttls": "all", "tlsrpt": "valid", "sts_policy": "valid"},
        is_silent={"starttls": "all", "requiretls_ready": "unknown", "sts_policy": "valid"},
        weakens={"starttls": "all"},
        leaves={"starttls": "all"},
        publishes={"sts_policy": "no_record"},
    )
    after = snapshot(
        enters={"starttls": "all"},
        stays={"starttls": "all", "obstacle": "mx_unauthenticated"},
        gains={"requiretls_offered": "some", "obstacle": ""},
        loses={"starttls": "none", "tlsrpt": "absent", "sts_policy": "http_status"},
        is_silent={"starttls": "unknown", "requiretls_ready": "all", "sts_policy": "timeout"},
        weakens={"starttls": "some"},
        publishes={"sts_policy": "valid", "sts_mode": "enforce"},
    )
    rows = compare(before, after)
    assert [tuple(row) for row in rows.astype(object).itertuples(index=False)] == [
        ("enters.example", "", "entered", "", ""),
        ("gains.example", "requiretls_offered", "gained", "none", "some"),
        ("gains.example", "obstacle", "changed", "requiretls_not_offered", ""),
        ("loses.example", "starttls", "lost", "all", "none"),
        ("loses.example", "sts_policy", "lost", "valid", "http_status"),
        ("loses.example", "tlsrpt", "lost", "valid", "absent"),
        ("is_silent.example", "starttls", "changed", "all", "unknown"),
        ("is_silent.example", "requiretls_ready", "changed", "unknown", "all"),
        ("is_silent.example", "sts_policy", "changed", "valid", "timeout"),
        ("weakens.example", "starttls", "changed", "all", "some"),
        ("publishes.example", "sts_policy", "gained", "no_record", "valid"),
        ("publishes.example", "sts_mode", "changed", "", "enforce"),
        ("leaves.example", "", "left", "", ""),
    ]
    text = changes_text(rows)
    assert "domains that entered: 1" in text
    assert "gained gains.example: none -> some" in text


def test_nothing_differs() -> None:
    """A scan equals itself."""
    same = snapshot(a={"starttls": "all"}, b={})
    assert not len(compare(same, same))
    assert changes_text(compare(same, same)) == "Nothing differs."
