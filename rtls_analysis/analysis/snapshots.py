"""Two scans compared: which domains came and went, and what each gained and lost."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING

from rtls_analysis.outcomes import DomainShare, StsPolicyState, TlsrptState
from rtls_analysis.store import Snapshot

if TYPE_CHECKING:
    import pandas as pd


class Change(StrEnum):
    """What became of a domain, or of one thing about it."""

    ENTERED = "entered"  # not in the first scan
    LEFT = "left"  # not in the second
    GAINED = "gained"  # a yes that was none
    LOST = "lost"  # no yes that was one
    CHANGED = "changed"  # another word, neither a gain nor a loss


COLUMNS = (
    "starttls",
    "pkix",
    "dane",
    "requiretls_offered",
    "requiretls_ready",
    "requiretls_ready_testing",
    "sts_policy",
    "sts_mode",
    "tlsrpt",
    "obstacle",
)
"""Columns of `domains` that are compared."""

YES = frozenset({DomainShare.ALL, DomainShare.SOME, StsPolicyState.VALID, TlsrptState.VALID})
"""Words that are a yes, of one address at least."""

_GRADED = frozenset(COLUMNS) - {"obstacle", "sts_mode"}


def compare(before: Snapshot, after: Snapshot, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """List what differs between two scans.

    Parameters
    ----------
    before, after
        The scans, the earlier first.
    columns
        Columns of `domains` to compare.

    Returns
    -------
    DataFrame
        One row per domain that entered or left (`column` is then empty) and per (domain, column) that differs:
        `domain`, `column`, `change`, `before`, `after`; missing words are empty. In the order of the domains of
        the second scan, those that left last.
    """
    import pandas as pd

    wanted = ["domain", *columns]
    old = before.table("domains", columns=wanted).astype(object).set_index("domain")
    new = after.table("domains", columns=wanted).astype(object).set_index("domain")
    rows = [(domain, "", Change.ENTERED, "", "") for domain in new.index if domain not in old.index]
    both = new.index.intersection(old.index, sort=False)
    old_both, new_both = old.loc[both].fillna(""), new.loc[both].fillna("")
    differs = old_both != new_both
    for domain in both[differs.any(axis=1)]:
        for column in columns:
            if differs.at[domain, column]:
                was, now = str(old_both.at[domain, column]), str(new_both.at[domain, column])
                rows.append((domain, column, _change(column, was, now), was, now))
    rows += [(domain, "", Change.LEFT, "", "") for domain in old.index if domain not in new.index]
    frame = pd.DataFrame(rows, columns=["domain", "column", "change", "before", "after"])
    return frame.astype({"change": pd.CategoricalDtype([str(word) for word in Change])})


def _change(column: str, was: str, now: str) -> Change:
    if column in _GRADED and (was in YES) != (now in YES):
        return Change.GAINED if now in YES else Change.LOST
    return Change.CHANGED


def changes_text(changes: pd.DataFrame, *, shown: int = 10) -> str:
    """Write a comparison for people: counts for each column, and the first domains that gained or lost."""
    if not len(changes):
        return "Nothing differs."
    moved = changes.loc[changes["column"] == "", "change"].value_counts()
    lines = [f"domains that {word}: {int(count):,}" for word, count in moved.items() if count]
    for column in dict.fromkeys(changes["column"]):
        if not column:
            continue
        rows = changes[changes["column"] == column]
        counts = rows["change"].value_counts()
        lines.append(f"{column}: " + ", ".join(f"{int(n):,} {word}" for word, n in counts.items() if n))
        for word in (Change.GAINED, Change.LOST):
            found = rows[rows["change"] == word]
            named = zip(found["domain"], found["before"], found["after"], strict=True)
            lines += [f"  {word:<6} {domain}: {was} -> {now}" for domain, was, now in islice(named, shown)]
            if len(found) > shown:
                lines.append(f"  ... and {len(found) - shown:,} more {word}")
    return "\n".join(lines)
