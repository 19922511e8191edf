"""TLS reports that come more than once, where several read them who know nothing of each other: each counts once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Occurrence:
    """What one report says of one domain: what tells it from others, and what it says, as digests.

    `source` and `policies`, the places of its policies, name the `rows` that came of it; none where it came before.
    """

    key: str
    content: str
    source: str = ""
    policies: tuple[int, ...] = ()
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Repeats:
    """What several readings had that one before them had.

    `rows` has for each reading the places of policies, by source; those are `row_count` rows.
    """

    rows: list[dict[str, list[int]]]
    row_count: int
    duplicates: int
    that_differ: int


def find_repeats(readings: Sequence[Sequence[Occurrence]]) -> Repeats:
    """Find what came before in readings that did not know of each other, in their order, as one reading would."""
    known: dict[str, str] = {}
    repeats: list[dict[str, list[int]]] = []
    row_count = duplicates = that_differ = 0
    for seen in readings:
        rows: dict[str, list[int]] = {}
        for one in seen:
            if (before := known.get(one.key)) is None:
                known[one.key] = one.content
                continue
            duplicates += 1
            that_differ += before != one.content
            if one.policies:
                row_count += one.rows
                rows.setdefault(one.source, []).extend(one.policies)
        repeats.append(rows)
    return Repeats(repeats, row_count, duplicates, that_differ)


def without_rows(rows: pa.Table, repeats: Mapping[str, Sequence[int]]) -> pa.Table:
    """Rows of `tls_reports` but for those of these policies."""
    import pyarrow as pa

    gone = {
        (source.encode("utf-8", "backslashreplace").decode(), place)
        for source, places in repeats.items()
        for place in places
    }
    names = zip(rows["source_file"].to_pylist(), rows["policy_index"].to_pylist(), strict=True)
    return rows.filter(pa.array([name not in gone for name in names], pa.bool_()))
