"""What several readings took in, as one: the coverages of rotated sets, of groups of files, of a cluster's tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SAMPLES = 3  # of what gave nothing, for one reason
MAX_WARNINGS = 100


def merge(coverages: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge coverages in the order in which their inputs were named: as if one reading had taken in all of them.

    Counts add up, of samples and warnings the first ones stay, and what is said once for all comes from the first.

    Examples
    --------
    >>> merge([{"rows": 1, "skipped": {"empty": {"count": 1}}}, {"rows": 2, "skipped": {"empty": {"count": 4}}}])
    {'rows': 3, 'skipped': {'empty': {'count': 5}}}
    """
    merged: dict[str, Any] = {}
    for coverage in coverages:
        add_coverage(merged, coverage)
    return in_order(merged)


def add_coverage(merged: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add another coverage to one that is in the making; `in_order` finishes it."""
    for name, value in more.items():
        before = merged.get(name)
        match value:
            case bool():
                merged[name] = value or bool(before)
            case int():
                merged[name] = value + (before or 0)
            case Mapping():
                add_coverage(merged.setdefault(name, {}), value)
            case list() if name == "samples":
                merged[name] = [*(before or ()), *value][:SAMPLES]
            case list():
                merged[name] = list(dict.fromkeys([*(before or ()), *value]))[:MAX_WARNINGS]
            case _:
                merged.setdefault(name, value)


def in_order(merged: Mapping[str, Any]) -> dict[str, Any]:
    """Give a coverage of logs with its kinds of lines in the order that `Coverage.as_dict` gives them."""
    result = dict(merged)
    if "understood" in result:
        result["understood"] = dict(sorted(result["understood"].items()))
        result["skipped"] = dict(
            sorted(result["skipped"].items(), key=lambda item: (-item[1]["count"], item[0]))
        )
    return result
