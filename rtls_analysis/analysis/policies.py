"""MTA-STS and TLSRPT as domains publish them: records, how far a policy can be had, modes, lifetimes, MX names."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.hops import hop_verdicts
from rtls_analysis.analysis.rates import with_rates
from rtls_analysis.analysis.words import Said, answers
from rtls_analysis.outcomes import Obstacle, StsMode, StsPolicyState, StsRecordState
from rtls_analysis.store import Snapshot, one_vantage
from rtls_analysis.verdicts import Answer

if TYPE_CHECKING:
    import pandas as pd


class Layer(StrEnum):
    """Where having a policy fails, as Ashiq et al. (2025) divide it."""

    VALID = "valid"
    DNS = "DNS"
    TCP = "TCP"
    TLS = "TLS"
    CERTIFICATE = "certificate"
    HTTP = "HTTP"
    POLICY = "policy"  # its text


LAYERS: Mapping[StsPolicyState, Layer] = {
    StsPolicyState.VALID: Layer.VALID,
    StsPolicyState.DNS_FAILURE: Layer.DNS,
    StsPolicyState.NO_ADDRESS: Layer.DNS,
    StsPolicyState.CONNECT_FAILED: Layer.TCP,
    StsPolicyState.TIMEOUT: Layer.TCP,
    StsPolicyState.TLS_FAILED: Layer.TLS,
    StsPolicyState.CERTIFICATE_INVALID: Layer.CERTIFICATE,
    StsPolicyState.REDIRECT: Layer.HTTP,
    StsPolicyState.HTTP_STATUS: Layer.HTTP,
    StsPolicyState.CONTENT_TYPE: Layer.HTTP,
    StsPolicyState.TOO_LARGE: Layer.HTTP,
    StsPolicyState.INVALID: Layer.POLICY,
}
"""The layer at which having a policy came to an end; what was not tested has none."""

_DAY = 86_400
_AGES = (
    ("under a day", _DAY),
    ("under a week", 7 * _DAY),
    ("under a month", 30 * _DAY),
    ("under half a year", 182 * _DAY),
)
_LONGEST = "half a year or more"


def sts_states(snapshot: Snapshot, *, confidence: float = 0.95) -> pd.DataFrame:
    """Count how MTA-STS is deployed, and where it fails (canonical table 9).

    Parameters
    ----------
    snapshot
        A scan.
    confidence
        Of the intervals.

    Returns
    -------
    DataFrame
        One row per word (the index: `aspect`, `word`), with the columns of `rtls.rates`; unit: domain.

        - ``record``: the word of `StsRecordState`, of the domains that were asked;
        - ``policy``: the word of `StsPolicyState`, of the domains with a valid record;
        - ``layer``: where having the policy failed (`Layer`), of the same;
        - ``mode`` and ``max_age``, of the valid policies;
        - ``mx``: ``all``, ``some`` or ``none`` of the MX hosts match, of the valid policies that name any;
        - ``health``: ``misconfigured`` (the record is broken, or the policy cannot be had or is not valid, or an
          MX host does not match) and ``loses_mail`` (mode enforce, and no MX host can satisfy it), of the domains
          with a record.

    Notes
    -----
    A policy host that timed out or did not answer at our vantage is counted where it failed; `unknown` are domains
    whose record, or the answer of whose MX hosts, could not be told.
    """
    import pandas as pd

    domains = one_vantage(snapshot).domains
    record = answers(domains["sts_record"])
    asked = int(record.where(Said.YES).sum() + record.where(Said.NO).sum())
    tables: dict[str, pd.DataFrame] = {}
    untold = {
        "unknown": int(record.where(Said.UNKNOWN).sum()),
        "not_tested": int(record.where(Said.NOT_TESTED).sum() + record.where(Said.NOT_APPLICABLE).sum()),
    }
    told = [
        word for word in StsRecordState if word not in (StsRecordState.DNS_FAILURE, StsRecordState.NOT_TESTED)
    ]
    tables["record"] = _counted(domains["sts_record"], told, asked, **untold)

    with_record = domains[domains["sts_record"].eq(StsRecordState.VALID)]
    policy = with_record["sts_policy"]
    tried = [word for word in StsPolicyState if word in LAYERS]
    fetched = int(policy.isin([str(word) for word in tried]).sum())
    skipped = len(policy) - fetched
    tables["policy"] = _counted(policy, tried, fetched, not_tested=skipped)
    layers = policy.astype(object).map({str(state): str(layer) for state, layer in LAYERS.items()})
    tables["layer"] = _counted(layers, list(Layer), fetched, not_tested=skipped)

    valid = with_record[policy.eq(StsPolicyState.VALID)]
    tables["mode"] = _counted(valid["sts_mode"], list(StsMode), len(valid))
    ages = [name for name, _limit in _AGES] + [_LONGEST]
    tables["max_age"] = _counted(valid["sts_max_age_seconds"].map(_age), ages, len(valid))
    tables["mx"] = _mx_matches(snapshot, valid)
    tables["health"] = _health(snapshot, domains)
    table = with_rates(pd.concat(tables, names=["aspect", "word"]), unit="domain", confidence=confidence)
    table.attrs["of"] = "mta_sts"
    return table


def _counted(values: pd.Series[Any], words: list[Any], trials: int, **others: int) -> pd.DataFrame:
    import pandas as pd

    counts = values.value_counts()
    found = [int(counts.get(str(word), 0)) for word in words]
    index = pd.Index([str(word) for word in words], name="word")
    return (
        pd.DataFrame({"numerator": found, "trials": trials, **others}, index=index).fillna(0).astype("int64")
    )


def _age(seconds: int) -> str:
    return next((name for name, limit in _AGES if seconds < limit), _LONGEST)


def _mx_matches(snapshot: Snapshot, valid: pd.DataFrame) -> pd.DataFrame:
    """Count how many of the MX hosts match, over the valid policies that name MX hosts."""
    matches = _matches(snapshot, valid)
    word = matches["all"].map({True: "all", False: "none"}).mask(matches["any"] & ~matches["all"], "some")
    return _counted(word, ["all", "some", "none"], len(word))


def _matches(snapshot: Snapshot, valid: pd.DataFrame) -> pd.DataFrame:
    naming = valid["domain"][valid["sts_mode"].ne(StsMode.NONE)]
    mx = one_vantage(snapshot).table("mx", columns=["domain", "sts_match"])
    mx = mx[mx["domain"].isin(naming) & mx["sts_match"].notna()]
    return mx["sts_match"].astype(bool).groupby(mx["domain"]).agg(["all", "any"])


def _health(snapshot: Snapshot, domains: pd.DataFrame) -> pd.DataFrame:
    """Count what is misconfigured, and what loses mail for a sender that goes by the policy."""
    import pandas as pd

    record, policy = domains["sts_record"], domains["sts_policy"]
    has_record = record.isin(
        [str(w) for w in (StsRecordState.VALID, StsRecordState.MULTIPLE, StsRecordState.MALFORMED)]
    )
    published = domains[
        has_record & policy.isin([str(state) for state in (*LAYERS, StsPolicyState.NO_RECORD)])
    ]
    broken = published["sts_policy"].ne(StsPolicyState.VALID)
    valid = published[~broken]
    matches = _matches(snapshot, valid)
    unmatched = published["domain"].isin(matches.index[~matches["all"]])
    enforced = valid["domain"][valid["sts_mode"].eq(StsMode.ENFORCE)]
    hops = hop_verdicts(snapshot)
    hops = hops[hops["domain"].isin(enforced) & hops["mx_host"].notna()]
    fits = ~hops["obstacles"].map(lambda found: str(Obstacle.STS_FORBIDS_HOST) in found)
    can = fits & hops["pkix"].eq(Answer.YES)  # a sender that goes by the policy asks for PKIX
    open_ = fits & ~hops["pkix"].isin([str(Answer.YES), str(Answer.NO)])
    of_domain = pd.DataFrame({"can": can, "open": open_}).groupby(hops["domain"]).any()
    loses, untold = ~of_domain["can"] & ~of_domain["open"], ~of_domain["can"] & of_domain["open"]
    rows = {
        "misconfigured": (int((broken | unmatched).sum()), len(published), 0),
        "loses_mail": (int(loses.sum()), len(published) - int(untold.sum()), int(untold.sum())),
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["numerator", "trials", "unknown"])
    return table.rename_axis("word")
