"""Two scans compared: which domains came and went, and what each gained and lost."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING

from rtls_analysis.outcomes import DomainShare, StsPolicyState, TlsrptState
from rtls_analysis.store import Snapshot
from rtls_analysis.verdicts import NO_POLICY

if TYPE_CHECKING:
    import pandas as pd


class Change(StrEnum):
    """What became of a domain, or of one thing about it."""

    ENTERED = "entered"  # not in the first scan
    LEFT = "left"  # not in the second
    GAINED = "gained"  # a yes that was a sure no
    LOST = "lost"  # a sure no that was a yes
    CHANGED = "changed"  # another word, neither a gain nor a loss: one that could not be told, for instance


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

NO = frozenset(
    {DomainShare.NONE, *NO_POLICY, TlsrptState.ABSENT, TlsrptState.MULTIPLE, TlsrptState.MALFORMED}
)
"""Words that are a sure no: not a time-out, a block or what was not tested, of which nothing is lost."""

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

    Notes
    -----
    A yes that could not be told again (a time-out, a block, a limit) is no loss: it is `changed`, as is one that was
    untold before.
    """
    import pandas as pd

    wanted = ["domain", *columns]
    old = before.table("domains", columns=wanted).astype(object).set_index("domain")
    new = after.table("domains", columns=wanted).astype(object).set_index("domain")
    rows = [(domain, "", Change.ENTERED, "", "") for domain in new.index if domain not in old.index]
    both = new.index.intersection(old.index, sort=False)
    was, now = (frame.loc[both].fillna("").astype(str).to_numpy() for frame in (old, new))
    for at, place in zip(*(was != now).nonzero(), strict=True):
        column, words = columns[place], (was[at, place], now[at, place])
        rows.append((both[at], column, _change(column, *words), *words))
    rows += [(domain, "", Change.LEFT, "", "") for domain in old.index if domain not in new.index]
    frame = pd.DataFrame(rows, columns=["domain", "column", "change", "before", "after"])
    return frame.astype({"change": pd.CategoricalDtype([str(word) for word in Change])})


def _change(column: str, was: str, now: str) -> Change:
    if column in _GRADED and was in NO and now in YES:
        return Change.GAINED
    return Change.LOST if column in _GRADED and was in YES and now in NO else Change.CHANGED


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
