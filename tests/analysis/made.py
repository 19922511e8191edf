"""Snapshots made of rows, for tests that need a world of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rtls_analysis import schema
from rtls_analysis.schema import SNAPSHOT_TABLES, to_frame
from rtls_analysis.store import Snapshot

Rows = Iterable[Mapping[str, Any]]


def made(
    domains: Rows = (), *, started_at: str = "2026-11-25T00:00:00+00:00", roots: bytes = b"", **tables: Rows
) -> Snapshot:
    """A snapshot in memory, of these rows and no others."""
    rows: dict[str, Rows] = {"domains": domains, **tables}
    frames = {table.name: to_frame(table, rows.get(table.name, ())) for table in SNAPSHOT_TABLES}
    return Snapshot(None, {"started_at": started_at, "rules": {}, "state": "complete"}, roots, frames)


def from_each(**seen: Snapshot) -> Snapshot:
    """What a scan from each of several vantages finds, where these snapshots are what it finds from each of them."""
    import pandas as pd

    frames: dict[str, pd.DataFrame] = {}
    for table in SNAPSHOT_TABLES:
        parts = [
            found.assign(vantage=name).astype({"vantage": table["vantage"].dtype})
            if "vantage" in (found := snapshot.table(table.name))
            else found
            for name, snapshot in seen.items()
        ]
        whole = pd.concat(parts, ignore_index=True)
        if table.name in ("hosts", "certificates"):  # once, whoever looked them up
            whole = whole.drop_duplicates(table.key[0], ignore_index=True)
        frames[table.name] = whole
    first = next(iter(seen.values()))
    place = first.manifest.get("vantage", {})
    places = [{**place, "name": name, "ehlo_name": f"{name}.example.org", "workers": 1} for name in seen]
    scan = {**first.manifest.get("scan", {}), "vantages": list(seen)}
    return Snapshot(None, {**first.manifest, "scan": scan, "vantages": places}, first.roots_pem, frames)


def shares(**words: str) -> dict[str, str]:
    """The columns of a domain with these shares, and `none` for the others."""
    names = [column.name for column in schema.DOMAINS.columns if column.name in _SHARES]
    return {name: words.get(name, "none") for name in names} | words


_SHARES = {"starttls", "pkix", "dane", "requiretls_offered", "requiretls_ready", "requiretls_ready_testing"}
