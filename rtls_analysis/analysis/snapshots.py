"""Two scans compared: which domains came and went, what each gained and lost, and whether that is more than chance.

The same domains scanned twice are no independent samples: what is compared is what became of each of them. The same
servers seen from several places are compared one by one too, and each difference has a reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import chain, combinations, islice
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.deployment import FEATURES, feature_table
from rtls_analysis.analysis.intervals import CONFIDENCE, wilson
from rtls_analysis.analysis.rates import MINIMUM, with_rates
from rtls_analysis.analysis.sights import BOTH, FIRST, Row, Sight, differences, facts_of, words_on
from rtls_analysis.analysis.words import Answers, Said, answers
from rtls_analysis.frames import collected
from rtls_analysis.outcomes import DomainShare, StsPolicyState, TlsrptState
from rtls_analysis.schema import SESSIONS, rows_of
from rtls_analysis.store import Snapshot, one_vantage
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
    old = one_vantage(before).table("domains", columns=wanted).astype(object).set_index("domain")
    new = one_vantage(after).table("domains", columns=wanted).astype(object).set_index("domain")
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


# -- what became of each word --------------------------------------------------------------------------------

NOT_LISTED = "(not listed)"
NO_WORD = "(none)"


def transitions(before: Snapshot, after: Snapshot, *, of: str = "requiretls_ready") -> pd.DataFrame:
    """Count from which word to which the domains went (canonical table 12).

    Parameters
    ----------
    before, after
        The scans, the earlier first.
    of
        A column of `domains` with a closed vocabulary.

    Returns
    -------
    DataFrame
        Counts of domains: a row per word before, a column per word after, in the order of the vocabulary, those
        that occur. ``(not listed)`` are domains that entered (a row) and left (a column), ``(none)`` those to which
        the column did not apply.
    """
    import pandas as pd

    old, new = (_by_domain(snapshot, of) for snapshot in (before, after))
    both = pd.DataFrame({"before": old, "after": new}).fillna(NOT_LISTED)
    words = [str(word) for word in one_vantage(before).domains[of].cat.categories]
    present = set(both["before"]) | set(both["after"])
    order = [word for word in [*words, NO_WORD, NOT_LISTED] if word in present]
    matrix = pd.crosstab(both["before"], both["after"]).reindex(index=order, columns=order, fill_value=0)
    matrix.attrs = {"of": of, "unit": "domain", "domains": len(both)}
    return matrix


def _by_domain(snapshot: Snapshot, column: str) -> pd.Series[Any]:
    import pandas as pd

    domains = one_vantage(snapshot).table("domains", columns=list(dict.fromkeys(["domain", column])))
    if not isinstance(domains[column].dtype, pd.CategoricalDtype):
        raise ValueError(f"{column} is no column of words")  # noqa: TRY004 - a caller's word, no wrong type
    return domains.set_index("domain")[column].astype(object).fillna(NO_WORD)


# -- tests ---------------------------------------------------------------------------------------------------

_EXACT_BELOW = 25  # discordant pairs


@dataclass(frozen=True, slots=True)
class McNemar:
    """Whether as many lost as gained: exact, and by χ² with continuity correction; `p` is the one that is due."""

    lost: int
    gained: int
    p: float
    method: str  # `exact` below 25 discordant pairs, else `corrected`
    exact_p: float
    statistic: float
    corrected_p: float


def mcnemar(lost: int, gained: int) -> McNemar:
    """Test whether changes go both ways alike (McNemar 1947; exact below 25 discordant pairs).

    Parameters
    ----------
    lost, gained
        Those that were a yes and are a no, and the other way round. Without any there is nothing to test: p is 1.

    Examples
    --------
    >>> found = mcnemar(5, 25)
    >>> f"{found.exact_p:.9f} {found.statistic:.4f} {found.corrected_p:.9f} {found.method}"
    '0.000324914 12.0333 0.000522575 corrected'
    """
    from scipy import special  # type: ignore[import-untyped]

    pairs = lost + gained
    exact = min(1.0, 2 * float(special.bdtr(min(lost, gained), pairs, 0.5))) if pairs else 1.0
    statistic = (abs(lost - gained) - 1) ** 2 / pairs if lost != gained else 0.0
    corrected = float(special.chdtrc(1, statistic))
    is_exact = pairs < _EXACT_BELOW
    return McNemar(
        lost,
        gained,
        p=exact if is_exact else corrected,
        method="exact" if is_exact else "corrected",
        exact_p=exact,
        statistic=statistic,
        corrected_p=corrected,
    )


@dataclass(frozen=True, slots=True)
class Bowker:
    """Whether a square table of transitions is symmetric: χ², degrees of freedom, p."""

    statistic: float
    degrees: int
    p: float


def bowker(matrix: Any) -> Bowker:
    """Test whether changes between more than two words go both ways alike (Bowker 1948).

    Parameters
    ----------
    matrix
        Counts, square: from each word (rows) to each (columns).

    Notes
    -----
    Pairs of words between which nobody went, in neither direction, tell nothing and are no degree of freedom.

    Examples
    --------
    >>> found = bowker([[900, 25, 5], [5, 40, 5], [2, 3, 15]])
    >>> f"{found.statistic:.4f} {found.degrees} {found.p:.7f}"
    '15.1190 3 0.0017177'
    """
    import numpy as np
    from scipy import special

    counts = np.asarray(matrix, dtype=float)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(
            f"a table of transitions is square; this one is {' x '.join(map(str, counts.shape))}"
        )
    above = np.triu_indices(len(counts), 1)
    there, back = counts[above], counts.T[above]
    moved = there + back > 0
    degrees = int(moved.sum())
    statistic = float(((there - back)[moved] ** 2 / (there + back)[moved]).sum())
    return Bowker(statistic, degrees, float(special.chdtrc(degrees, statistic)) if degrees else 1.0)


def paired_difference(
    kept: int, lost: int, gained: int, neither: int, *, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """Give the difference of two rates over the same domains, after minus before, with its interval.

    Newcombe's method 10 for paired data (1998): his interval for independent rates, narrowed by how much the two
    go together. Without any domain all three are missing (NaN).
    """
    from math import sqrt

    total = kept + lost + gained + neither
    if not total:
        return float("nan"), float("nan"), float("nan")
    yes_before, yes_after = kept + lost, kept + gained
    (low1, high1), (low2, high2) = (
        wilson(yes, total, confidence=confidence) for yes in (yes_before, yes_after)
    )
    rate1, rate2 = yes_before / total, yes_after / total
    margins = yes_before * (total - yes_before) * yes_after * (total - yes_after)
    cross = float(kept * neither - lost * gained)
    if cross > 0:  # the continuity correction of the method
        cross = max(cross - total / 2, 0.0)
    together = cross / sqrt(margins) if margins else 0.0
    below, above = (rate2 - low2, high1 - rate1), (high2 - rate2, rate1 - low1)
    gap = rate2 - rate1
    low, high = (
        sqrt(max(a * a - 2 * together * a * b + b * b, 0.0))
        for a, b in (map(float, below), map(float, above))
    )
    return gap, gap - low, gap + high


def paired_rows(first: Answers, second: Answers, *, confidence: float = CONFIDENCE) -> dict[str, Any]:
    """Compare the answers of the same things at two times, or from two places: one row of `paired_changes`."""
    yes, no = ([item.where(what) for item in (first, second)] for what in (Said.YES, Said.NO))
    kept, neither = int((yes[0] & yes[1]).sum()), int((no[0] & no[1]).sum())
    lost, gained = int((yes[0] & no[1]).sum()), int((no[0] & yes[1]).sum())
    trials = kept + lost + gained + neither
    gap, low, high = paired_difference(kept, lost, gained, neither, confidence=confidence)
    test = asdict(mcnemar(lost, gained))
    return {
        "kept": kept,
        "gained": gained,
        "lost": lost,
        "neither": neither,
        "trials": trials,
        "untold": len(first.said) - trials,
        "rate_before": (kept + lost) / trials if trials else float("nan"),
        "rate_after": (kept + gained) / trials if trials else float("nan"),
        "difference": gap,
        "low": low,
        "high": high,
        "p": test["p"],
        "method": test["method"],
        "statistic": test["statistic"],
        "is_small": trials < MINIMUM,
    }


def paired_changes(
    before: Snapshot,
    after: Snapshot,
    *,
    of: Sequence[str] = tuple(FEATURES),
    rule: str = "any",
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Compare what the same domains have in two scans (canonical table 12).

    Parameters
    ----------
    before, after
        The scans, the earlier first.
    of
        Features, names of `rtls_analysis.analysis.deployment.FEATURES`.
    rule
        ``"any"``, ``"all"`` or ``"best_preference"``, as for `rtls_analysis.analysis.deployment.deployment`.
    confidence
        Of the intervals.

    Returns
    -------
    DataFrame
        One row per feature (the index), of the domains in both scans: `kept`, `gained`, `lost`, `neither` (counts),
        `trials` (their sum: told in both), `untold` (in both lists, but not told in one of them), `rate_before`,
        `rate_after`, `difference` with `low` and `high` (Newcombe, paired; shares), `p`, `method` and `statistic`
        (McNemar), `unit`, `is_small`; `entered` and `left` count the domains of one scan alone.
    """
    import pandas as pd

    tables = [feature_table(snapshot, rule=rule).set_index("domain") for snapshot in (before, after)]
    both = tables[0].index.intersection(tables[1].index, sort=False)
    old, new = (table.loc[both] for table in tables)
    rows = {}
    for name in of:
        if name not in FEATURES:
            raise ValueError(f"no feature {name!r}; there are {', '.join(FEATURES)}")
        column = FEATURES[name].column
        yes = (
            (str(DomainShare.ALL),) if rule == "all" and set(old[column].cat.categories) == _SHARES else None
        )
        rows[name] = paired_rows(answers(old[column], yes), answers(new[column], yes), confidence=confidence)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("feature")
    table["unit"] = "domain"
    table["entered"], table["left"] = len(tables[1]) - len(both), len(tables[0]) - len(both)
    table.attrs = {"confidence": confidence, "rule": rule}
    return table


_SHARES = {str(word) for word in DomainShare}


# -- the same servers from several places --------------------------------------------------------------------

_SERVER = ("mx_host", "address")
_COMPARED = (
    *_SERVER,
    *("outcome", "starttls", "requiretls_tls", "injected_bytes", "tls_version", "cipher", "key_exchange"),
    *("chain_sha256", "pkix", "dane", "ehlo_plain", "ehlo_tls", "reply_code", "reply_text", "detail"),
)


def compare_vantages(first: Snapshot, second: Snapshot | None = None) -> pd.DataFrame:
    """Compare what several vantages say of each server: the same, or what differs and why.

    Parameters
    ----------
    first
        A scan from each of several vantages (``vantage="each"``); or one from a single place.
    second
        A scan of the same servers from another place.

    Returns
    -------
    DataFrame
        One row per pair of vantages and (MX host, address): `mx_host`, `address`, `first` and `second` (the names of
        the vantages), `verdict` (`Sight`), `reason` (`Difference`; missing where they say the same), `at` (the
        vantage where the reason holds, where it holds at one), `reasons` (all that hold), `first_outcome`,
        `second_outcome`, and `detail` (what each says of the reason).

    Raises
    ------
    ValueError
        There is one vantage only.

    Notes
    -----
    What one vantage could not tell (a time-out, a block) is no other word on what would have come after it: such a
    row has that reason, and none for TLS.
    """
    import pandas as pd

    seen = _seen(first, second)
    rows: dict[tuple[str, str], list[tuple[Any, ...]]] = {pair: [] for pair in combinations(seen, 2)}
    for part in _in_parts(seen):
        for (one, other), told in rows.items():
            told += _pairs(one, other, part)
    table = pd.DataFrame(chain.from_iterable(rows.values()), columns=list(_PAIR_COLUMNS)).astype(
        _PAIR_COLUMNS
    )
    table.attrs = {"vantages": list(seen)}
    return table


_PAIR_COLUMNS: dict[str, Any] = dict.fromkeys(
    ("mx_host", "address", "first", "second", "verdict", "reason", "at"), "str"
) | {"reasons": object, "first_outcome": "str", "second_outcome": "str", "detail": "str"}

_AT_ONCE = 20_000  # servers: their whole dialogues as Python values are large

_Seen = dict[tuple[str, str], tuple[Row, Row]]
"""By (MX host, address): the row of `sessions`, and the facts of it that are compared."""


def _seen(first: Snapshot, second: Snapshot | None) -> dict[str, pd.DataFrame]:
    """Give the sessions from each vantage, by its name."""
    if second is not None:
        scans = [one_vantage(snapshot) for snapshot in (first, second)]
        names = [scan.vantages[0] if len(scan.vantages) == 1 else "" for scan in scans]
        if "" in names or names[0] == names[1]:
            names = ["first", "second"]
        return {
            name: scan.table("sessions", columns=_COMPARED) for name, scan in zip(names, scans, strict=True)
        }
    if not first.is_from_each:
        known = ", ".join(first.vantages) or "no vantage"
        raise ValueError(
            f"this snapshot has {known}, and tells of each server once; give a scan from another place too, or one "
            'that was made with vantage="each"'
        )
    return {
        name: first.table("sessions", columns=_COMPARED, where={"vantage": name}) for name in first.vantages
    }


def _in_parts(seen: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, _Seen]]:
    """Yield what each vantage saw of some servers, then of some more, in the order in which they come."""
    import numpy as np
    import pandas as pd

    key = list(_SERVER)
    servers = pd.concat([sessions[key] for sessions in seen.values()]).groupby(key, sort=False, dropna=False)
    parts = servers.ngroup().to_numpy() // _AT_ONCE
    ends = np.cumsum([len(sessions) for sessions in seen.values()])
    for part in range(parts.max(initial=-1) + 1):
        in_part = np.split(parts == part, ends[:-1])
        yield {
            name: {
                (row["mx_host"], row["address"]): (row, facts_of(row))
                for row in rows_of(SESSIONS, sessions[here])
            }
            for (name, sessions), here in zip(seen.items(), in_part, strict=True)
        }


def _pairs(one: str, other: str, seen: Mapping[str, _Seen]) -> Iterator[tuple[Any, ...]]:
    """Compare two vantages server by server, in the order in which any vantage tells of them."""
    ours, theirs = seen[one], seen[other]
    nothing = (None, None)
    for server in dict.fromkeys(chain.from_iterable(seen.values())):
        if server not in ours and server not in theirs:
            continue
        (row, facts), (other_row, other_facts) = ours.get(server, nothing), theirs.get(server, nothing)
        found = differences(facts, other_facts) if facts != other_facts else {}
        reason = next(iter(found), None)
        at = detail = None
        if reason is not None:
            at = None if found[reason] == BOTH else one if found[reason] == FIRST else other
            said = words_on(reason, row, facts, other_facts), words_on(reason, other_row, other_facts, facts)
            detail = f"{one}: {said[0]}; {other}: {said[1]}"
        yield (
            *server,
            one,
            other,
            str(Sight.SAME if reason is None else Sight.DIFFERS),
            reason,
            at,
            tuple(map(str, found)),
            None if row is None else row["outcome"],
            None if other_row is None else other_row["outcome"],
            detail,
        )


def sights_text(compared: pd.DataFrame, *, shown: int = 10) -> str:
    """Write what `compare_vantages` gave for people: of each pair the counts by reason, and the first servers."""
    if not len(compared):
        return "No server was seen from two vantages."
    lines = []
    for (first, second), pair in compared.groupby(["first", "second"], sort=False):
        differs = pair[pair["verdict"] == Sight.DIFFERS]
        same = f"{len(pair) - len(differs):,} of {len(pair):,} servers"
        lines.append(f"{first} and {second} say the same of {same}")
        for reason, count in differs["reason"].value_counts().items():
            rows = differs[differs["reason"] == reason]
            lines.append(f"{reason}: {count:,}")
            details = rows["detail"].str.replace("\n", " / ")  # replies of several lines
            named = zip(rows["mx_host"], rows["address"], details, strict=True)
            lines += [f"  {host} [{address}]: {detail}" for host, address, detail in islice(named, shown)]
            if count > shown:
                lines.append(f"  ... and {count - shown:,} more")
    return "\n".join(lines)


def vantage_reasons(
    first: pd.DataFrame | Snapshot, second: Snapshot | None = None, *, confidence: float = CONFIDENCE
) -> pd.DataFrame:
    """Count on how many servers two vantages agree, and why they differ on the others.

    Parameters
    ----------
    first, second
        What `compare_vantages` gave, or what it takes.
    confidence
        Of the intervals.

    Returns
    -------
    DataFrame
        One row per pair of vantages, verdict and reason (the index: `first`, `second`, `verdict`, `reason`, which is
        empty where they say the same), those that agree first and then the commonest: the columns of `rtls.rates`
        (the denominator is all of the pair's MX hosts at their addresses), and `also`, on how many of them the
        reason holds behind another one.
    """
    import pandas as pd

    table = compare_vantages(first, second) if isinstance(first, Snapshot) else collected(first)
    pair, by = ["first", "second"], ["first", "second", "reason"]
    plain = table[[*by, "reasons"]].astype(dict.fromkeys(by, object)).fillna({"reason": ""})
    held = plain.explode("reasons").dropna(subset="reasons")
    counts = pd.DataFrame(
        {
            "numerator": plain.groupby(by).size(),
            "held": held.groupby([*pair, "reasons"]).size().rename_axis(by),
        }
    )
    counts = counts.fillna(0).astype("int64").reset_index()
    counts["trials"] = counts.groupby(pair)["numerator"].transform("sum")
    counts["also"] = (counts["held"] - counts["numerator"]).clip(lower=0)
    differs = counts["reason"] != ""
    counts["verdict"] = differs.map({False: str(Sight.SAME), True: str(Sight.DIFFERS)})
    order = counts.assign(differs=differs, rarity=-counts["numerator"])
    counts = counts.loc[order.sort_values([*pair, "differs", "rarity"], kind="stable").index]
    counts = counts.drop(columns="held").set_index([*pair, "verdict", "reason"])
    return with_rates(counts, unit="address", confidence=confidence)
