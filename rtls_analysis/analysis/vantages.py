"""The same servers seen twice: from two places, or by IPv4 and IPv6; where the answers differ, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.cohorts import cohorts
from rtls_analysis.analysis.intervals import CONFIDENCE
from rtls_analysis.analysis.rates import with_rates
from rtls_analysis.analysis.snapshots import paired_rows
from rtls_analysis.analysis.words import Said, answers, one_of
from rtls_analysis.outcomes import FeatureState
from rtls_analysis.store import Snapshot, one_vantage

if TYPE_CHECKING:
    import pandas as pd

NO_WORD = "(none)"
UNITS = {
    "address": ("sessions", ["mx_host", "address"], "address"),
    "host": ("hosts", ["mx_host"], "MX host"),
    "domain": ("domains", ["domain"], "domain"),
}
QUESTIONS = ("starttls", "pkix", "dane", "requiretls_tls")
"""What sessions answer."""


def _pairs(first: Snapshot, second: Snapshot, of: Sequence[str], unit: str) -> tuple[pd.DataFrame, int, int]:
    """Join what both scans saw; gives also how many the first and the second saw alone."""
    one_of("unit", unit, UNITS)
    table, keys, _label = UNITS[unit]
    one, other = (one_vantage(snapshot).table(table, columns=[*keys, *of]) for snapshot in (first, second))
    both = one.merge(other, on=keys, suffixes=("_first", "_second"))
    return both, len(one) - len(both), len(other) - len(both)


def agreement(
    first: Snapshot,
    second: Snapshot,
    *,
    of: str = "starttls",
    unit: str = "address",
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Count what two scans from different places say of the same servers, word by word (canonical table 13).

    Parameters
    ----------
    first, second
        Scans of one list, from two vantage points, at about the same time.
    of
        A column of words of `sessions` (or of `hosts` or `domains`, by another unit).
    unit
        ``"address"``, ``"host"`` or ``"domain"``.
    confidence
        Of the intervals.

    Returns
    -------
    DataFrame
        One row per pair of words that occurs (the index: `first`, `second`), the commonest first: the columns of
        `rtls.rates` (the denominator is what both saw), `agrees`, and `is_discordant`: both came to a conclusion,
        and not to the same. ``attrs`` has `only_first` and `only_second`, what one of them saw alone.
    """
    both, only_first, only_second = _pairs(first, second, [of], unit)
    table = _cells(both[f"{of}_first"], both[f"{of}_second"], ("first", "second"), UNITS[unit][2], confidence)
    table.attrs |= {"of": of, "only_first": only_first, "only_second": only_second}
    return table


def _cells(
    one: pd.Series[Any], other: pd.Series[Any], names: tuple[str, str], unit: str, confidence: float
) -> pd.DataFrame:
    import pandas as pd

    said = [answers(values).said for values in (one, other)]
    words = [values.astype(object).fillna(NO_WORD) for values in (one, other)]
    frame = pd.DataFrame({names[0]: words[0], names[1]: words[1]})
    told = [(values == Said.YES) | (values == Said.NO) for values in said]
    frame["is_discordant"] = told[0] & told[1] & (said[0] != said[1])
    counts = frame.groupby([*names, "is_discordant"]).size().rename("numerator").reset_index()
    counts["trials"] = len(frame)
    counts["agrees"] = counts[names[0]] == counts[names[1]]
    counts = counts.sort_values("numerator", ascending=False, kind="stable").set_index(list(names))
    return with_rates(counts, unit=unit, confidence=confidence)


def vantage_differences(
    first: Snapshot,
    second: Snapshot,
    *,
    of: Sequence[str] = QUESTIONS,
    unit: str = "address",
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Compare the rates that two scans from different places give of the same servers (canonical table 13).

    Parameters
    ----------
    first, second, unit, confidence
        As for `agreement`.
    of
        Columns that answer.

    Returns
    -------
    DataFrame
        One row per column (the index), as `rtls_analysis.analysis.snapshots.paired_changes` has them: ``before`` is
        the first vantage, ``after`` the second, `lost` what only the first saw and `gained` what only the second
        did.
    """
    import pandas as pd

    both, only_first, only_second = _pairs(first, second, list(of), unit)
    rows = {
        name: paired_rows(
            answers(both[f"{name}_first"]), answers(both[f"{name}_second"]), confidence=confidence
        )
        for name in of
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("question")
    table["unit"] = UNITS[unit][2]
    table["entered"], table["left"] = only_second, only_first
    table.attrs = {"confidence": confidence}
    return table


def families(snapshot: Snapshot, *, of: str = "starttls", confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Count what the same MX hosts say by IPv4 and by IPv6 (canonical table 13).

    Parameters
    ----------
    snapshot
        A scan from a vantage that has both.
    of
        A column of words of `sessions`.
    confidence
        Of the intervals.

    Returns
    -------
    DataFrame
        What `agreement` gives, the index being the words `IPv4` and `IPv6` (``yes``, ``no``, ``unknown``,
        ``not_tested``): a host says yes by a family where one of its addresses does. Unit: MX host with addresses
        of both; ``attrs`` has how many have one family alone.
    """
    hosts = _by_family(snapshot, [of])
    both = hosts[f"{of}_IPv4"].notna() & hosts[f"{of}_IPv6"].notna()
    table = _cells(
        hosts[f"{of}_IPv4"][both], hosts[f"{of}_IPv6"][both], ("IPv4", "IPv6"), "MX host", confidence
    )
    table.attrs |= {
        "of": of,
        "only_IPv4": int(hosts[f"{of}_IPv6"].isna().sum()),
        "only_IPv6": int(hosts[f"{of}_IPv4"].isna().sum()),
    }
    return table


def family_differences(
    snapshot: Snapshot, *, of: Sequence[str] = QUESTIONS, confidence: float = CONFIDENCE
) -> pd.DataFrame:
    """Compare the rates of the same MX hosts by IPv4 and by IPv6 (canonical table 13).

    Gives what `vantage_differences` gives: ``before`` is IPv4, ``after`` IPv6; unit: MX host with addresses of both.
    """
    import pandas as pd

    hosts = _by_family(snapshot, of)
    both = hosts[hosts[f"{of[0]}_IPv4"].notna() & hosts[f"{of[0]}_IPv6"].notna()] if len(of) else hosts
    rows = {
        name: paired_rows(answers(both[f"{name}_IPv4"]), answers(both[f"{name}_IPv6"]), confidence=confidence)
        for name in of
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("question")
    table["unit"] = "MX host"
    table["entered"], table["left"] = len(hosts) - len(both), 0
    table.attrs = {"confidence": confidence}
    return table


def _by_family(snapshot: Snapshot, of: Sequence[str]) -> pd.DataFrame:
    """Give each MX host's answers by family, in the words of `FeatureState`; missing where it has no address of it."""
    import numpy as np
    import pandas as pd

    sessions = cohorts(one_vantage(snapshot).table("sessions", columns=["mx_host", "address", *of]))
    keys = [sessions["mx_host"], sessions["family"]]
    order = (
        FeatureState.NO,
        FeatureState.NOT_TESTED,
        FeatureState.UNKNOWN,
        FeatureState.YES,
    )  # the last wins
    of_said = {
        Said.NOT_APPLICABLE: FeatureState.NO,
        Said.NO: FeatureState.NO,
        Said.YES: FeatureState.YES,
        Said.UNKNOWN: FeatureState.UNKNOWN,
        Said.NOT_TESTED: FeatureState.NOT_TESTED,
    }
    strength = np.array([order.index(of_said[said]) for said in Said], dtype=np.int8)
    dtype: Any = pd.CategoricalDtype([str(word) for word in FeatureState])
    columns: dict[str, Any] = {}
    for name in of:
        best = (
            pd.Series(strength[answers(sessions[name]).said], index=sessions.index)
            .groupby(keys)
            .max()
            .unstack()
        )
        for family in ("IPv4", "IPv6"):
            values = best[family] if family in best else pd.Series(np.nan, index=best.index)
            words = values.map({at: str(word) for at, word in enumerate(order)})
            columns[f"{name}_{family}"] = words.astype(dtype)
    return pd.DataFrame(columns)
