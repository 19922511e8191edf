"""How a scan of a lab is held against the truth of it, and one scan against another."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from rtls_analysis import Snapshot
from rtls_analysis.lab import Lab
from rtls_analysis.schema import SNAPSHOT_TABLES, TABLES, Kind, rows_of

Row = dict[str, Any]

UNORDERED = {"addresses", "sts_texts", "tlsa", "tlsrpt_texts", "tlsrpt_rua"}
"""Lists whose order means nothing."""

_MOMENTS = {"duration_seconds"}
"""Besides times, what differs between two scans of the same servers."""


def rows_by_key(snapshot: Snapshot, table: str) -> dict[tuple[Any, ...], Row]:
    """The rows of a table by its key within a vantage; a key that comes twice fails."""
    rows = rows_of(TABLES[table], snapshot.table(table))
    keyed = {_key(table, row): row for row in rows}
    assert len(keyed) == len(rows), f"{table}: {len(rows) - len(keyed)} keys come twice"
    return keyed


def _key(table: str, row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in TABLES[table].key if name != "vantage")


def comparable(column: str, value: Any) -> Any:
    """A value in a form in which equal means the same."""
    if isinstance(value, (list, tuple)):
        return sorted(value) if column in UNORDERED else list(value)
    return value


def disagreements(lab: Lab, snapshot: Snapshot, domains: Collection[str] | None = None) -> list[str]:
    """Every value of a snapshot that is not the truth, each in a line, and every row that is there too much or not.

    `domains` are those that were scanned; all of the lab's without.
    """
    truth = _truth(lab, set(lab.domains if domains is None else domains))
    return [line for table in truth for line in _in_table(lab, table, truth[table], snapshot)]


def _truth(lab: Lab, domains: Collection[str]) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {table: frame.to_dict("records") for table, frame in lab.truth.items()}
    mx = [row for row in rows["mx"] if row["domain"] in domains]
    hosts = {row["mx_host"] for row in mx}
    return {
        "domains": [row for row in rows["domains"] if row["domain"] in domains],
        "mx": mx,
        "hosts": [row for row in rows["hosts"] if row["mx_host"] in hosts],
        "sessions": [row for row in rows["sessions"] if row["mx_host"] in hosts],
    }


def _in_table(lab: Lab, table: str, truth: list[Row], snapshot: Snapshot) -> Iterator[str]:
    found = rows_by_key(snapshot, table)
    true = {_key(table, row): row for row in truth}
    for key in found.keys() - true.keys():
        yield f"{table} {key}: there is no such row in truth"
    for key, row in true.items():
        if key not in found:
            yield f"{table} {key}: the row is missing"
            continue
        why = lab.why(key[0]) if table in ("domains", "mx") else ""
        for column, value in row.items():
            seen = comparable(column, found[key][column])
            if seen != comparable(column, value):
                yield f"{table} {key} {column}: {seen!r}, in truth {value!r} ({why})"


def differences(one: Snapshot, other: Snapshot, but: Collection[str] = ()) -> list[str]:
    """Every value in which two scans of the same servers differ, times and these columns aside, each in a line."""
    lines: list[str] = []
    for table in SNAPSHOT_TABLES:
        if table.name == "attempts":  # a record of connections, which has no key
            continue
        columns = [c.name for c in table.columns if c.kind is not Kind.TIME and c.name not in _MOMENTS]
        if table.name == "certificates":
            columns = table.names()
        ones, others = rows_by_key(one, table.name), rows_by_key(other, table.name)
        lines += [f"{table.name} {key}: only in one of them" for key in ones.keys() ^ others.keys()]
        for key in ones.keys() & others.keys():
            drips = ones[key].get("outcome") == "timeout"  # its detail says how many bytes came in time
            for column in columns:
                if column in but:
                    continue
                mine, theirs = (comparable(column, rows[key][column]) for rows in (ones, others))
                if mine != theirs and not (drips and column == "detail"):
                    lines.append(f"{table.name} {key} {column}: {mine!r}, {theirs!r}")
    return lines
