"""What is deployed: STARTTLS, certificates, DANE, MTA-STS, TLSRPT and REQUIRETLS, by group and by unit.

The same data set gives different rates by different units: every table says which one it counts, and `unit_rates` puts
them side by side. A scan of a whole list has no sampling error about that list; the intervals speak about something
wider.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.cohorts import domain_groups
from rtls_analysis.analysis.hops import QUESTIONS, domain_shares, hop_verdicts
from rtls_analysis.analysis.rates import rates, with_rates
from rtls_analysis.analysis.readiness import RULES, UNITS
from rtls_analysis.analysis.words import Answers, Said, answers, one_of
from rtls_analysis.outcomes import DomainShare, StsMode, StsPolicyState
from rtls_analysis.store import Snapshot, one_vantage

if TYPE_CHECKING:
    import pandas as pd

    Groups = str | Sequence[str] | pd.Series[Any] | None
    Populations = Mapping[str, Collection[str]] | None


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that a domain may have: the column of `domains` that tells, and the words that are a yes."""

    column: str
    yes: tuple[str, ...] | None = None  # those of the vocabulary by default


FEATURES: Mapping[str, Feature] = {
    "mail_host": Feature("mx_state"),
    "mx_dnssec": Feature("mx_dnssec"),
    "starttls": Feature("starttls"),
    "pkix": Feature("pkix"),
    "dane": Feature("dane"),
    "mta_sts": Feature("sts_policy"),
    "mta_sts_enforce": Feature("sts_enforce"),
    "tlsrpt": Feature("tlsrpt"),
    "requiretls_offered": Feature("requiretls_offered"),
    "requiretls_ready": Feature("requiretls_ready"),
}
"""What `deployment` counts: a mail host; its MX answer is secure; STARTTLS works; a certificate valid for the host's
name; DANE authenticates; a valid MTA-STS policy, and one in mode enforce; TLS reports are wanted; REQUIRETLS is
announced after TLS; no obstacle is in its way."""

_EACH, _ANY = (str(DomainShare.ALL),), (str(DomainShare.ALL), str(DomainShare.SOME))
_YES = {"any": _ANY, "all": _EACH, "best_preference": _ANY}


def feature_table(snapshot: Snapshot, *, rule: str = "any") -> pd.DataFrame:
    """Give the table `domains` with a column for every feature.

    `rule` ``"best_preference"`` asks only the most preferred MX hosts of each domain.
    """
    domains = one_vantage(snapshot).domains
    if rule == "best_preference":
        hops = hop_verdicts(snapshot)
        best = hops.groupby("domain")["preference"].transform("min")
        hops = hops[hops["preference"].isna() | hops["preference"].eq(best)]
        domains = domains.assign(
            **{
                question: domains["domain"].map(domain_shares(hops, question)).astype(domains[question].dtype)
                for question in QUESTIONS
            }
        )
    is_weaker = domains["sts_policy"].eq(StsPolicyState.VALID) & domains["sts_mode"].ne(StsMode.ENFORCE)
    words = domains["sts_policy"].astype(object)
    words = words.mask(
        is_weaker.fillna(False), str(StsPolicyState.NO_RECORD)
    )  # such a policy enforces nothing
    return domains.assign(sts_enforce=words.astype(domains["sts_policy"].dtype))


def deployment(
    snapshot: Snapshot,
    *,
    of: Sequence[str] = tuple(FEATURES),
    by: Groups = None,
    populations: Populations = None,
    among: str | None = None,
    unit: str = "domain",
    rule: str = "any",
    **options: Any,
) -> pd.DataFrame:
    """Count who has what, by population, rank, top-level domain or provider (canonical tables 2 and 4).

    Parameters
    ----------
    snapshot
        A scan.
    of
        Features, names of `FEATURES`.
    by, populations
        Groups of the domains, as `rtls_analysis.analysis.cohorts` gives them: ``"rank_band"``, ``"rank_bin"`` for
        adoption by rank in bins of 10,000, ``"tld"``, ``"provider"``, or named lists of domains.
    among
        Count only units that have this feature: ``"starttls"`` gives the share of valid certificates among those
        with TLS, as Durumeric et al. (2015) do.
    unit
        ``"domain"``, ``"address"``, ``"host"``, ``"provider"`` or ``"hop"``; by another unit than the domain only
        what addresses answer is counted.
    rule
        How a unit of several addresses answers: ``"any"``, ``"all"``, or ``"best_preference"`` (any of those at the
        most preferred MX hosts).
    **options
        Of `rtls.rates`: `weights`, `clusters`, `confidence`, `minimum`.

    Returns
    -------
    DataFrame
        One row per feature and group (the index: `feature`, then the groups), with the columns of `rtls.rates`.

    Notes
    -----
    Denominators are what was conclusively tested for each feature, so they differ: no host that could not be reached
    is in that of STARTTLS. For a certificate, DANE and REQUIRETLS a server without STARTTLS is a no.
    """
    import pandas as pd

    one_of("unit", unit, UNITS)
    one_of("rule", rule, RULES)
    for name in [*of, *([among] if among is not None else [])]:
        one_of("feature", name, FEATURES)
    if unit != "domain":
        of = [name for name in of if name in QUESTIONS]
    frame, names = _units(snapshot, unit, rule, [*of, *([among] if among else [])], by, populations)
    if among is not None:
        frame = frame[_answers(frame, among, rule).where(Said.YES)]
    tables = {
        name: rates(
            frame,
            of=FEATURES[name].column,
            by=names or None,
            yes=_yes(name, rule),
            unit=UNITS[unit][0],
            **options,
        )
        for name in of
    }
    table = pd.concat(tables, names=["feature"])
    table = table if names else table.droplevel("group")
    table.attrs = {**next((item.attrs for item in tables.values()), {}), "of": "deployment", "among": among}
    return table


def _yes(name: str, rule: str) -> tuple[str, ...] | None:
    return _YES[rule] if name in QUESTIONS else FEATURES[name].yes


def _answers(frame: pd.DataFrame, name: str, rule: str) -> Answers:
    return answers(frame[FEATURES[name].column], _yes(name, rule))


def _units(
    snapshot: Snapshot, unit: str, rule: str, of: Sequence[str], by: Groups, populations: Populations
) -> tuple[pd.DataFrame, list[str]]:
    """Give a table with a row per unit and group, and a column for each feature; and the columns of the groups."""
    import pandas as pd

    keys = list(UNITS[unit][1])
    names: list[str] = []
    if unit == "domain":
        frame = feature_table(snapshot, rule=rule)
    else:
        frame = hop_verdicts(snapshot)
        frame = frame[frame["mx_host"].notna() & (frame["address"].ne("") if "address" in keys else True)]
        if rule == "best_preference":
            frame = frame[frame["preference"].eq(frame.groupby("domain")["preference"].transform("min"))]
    if by is not None or populations is not None:
        groups = domain_groups(one_vantage(snapshot).domains, by, populations)
        names = [f"{name}_of_domain" if name in keys else str(name) for name in groups.columns[1:]]
        groups.columns = ["domain", *names]
        frame = frame.drop(columns=[name for name in names if name in frame.columns]).merge(
            groups, on="domain"
        )
    if unit == "domain":
        return frame, names
    shares = [domain_shares(frame, name, [*names, *keys]) for name in dict.fromkeys(of)]
    return pd.concat(shares, axis=1).reset_index(), names


# -- by unit -------------------------------------------------------------------------------------------------


def unit_rates(
    snapshot: Snapshot,
    *,
    of: str = "starttls",
    units: Sequence[str] = ("address", "host", "provider", "domain"),
    rule: str = "any",
    traffic: pd.Series[Any] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Put the rate of one feature by several units side by side (canonical table 17).

    Parameters
    ----------
    snapshot
        A scan.
    of
        A question that addresses answer, such as ``"starttls"`` or ``"requiretls_ready"``.
    units
        What is counted.
    rule
        As for `deployment`.
    traffic
        Messages by domain: adds the unit ``message``, where each domain weighs what one sends there.
    **options
        Of `rtls.rates`.

    Returns
    -------
    DataFrame
        One row per unit (the index), with the columns of `rtls.rates`. In May 2014 76 % of hosts and 58 % of
        messages had STARTTLS.
    """
    import pandas as pd

    one_of("feature", of, QUESTIONS)
    tables = []
    for unit in units:
        table = deployment(snapshot, of=[of], unit=unit, rule=rule, **options)
        tables.append(table.set_axis(pd.Index([unit], name="counted")))
    if traffic is not None:
        domains = feature_table(snapshot, rule=rule)
        table = rates(domains, of=of, yes=_YES[rule], unit="message", weights=traffic, **options)
        tables.append(table.set_axis(pd.Index(["message"], name="counted")))
    result = pd.concat(tables)
    result.attrs = {**tables[0].attrs, "of": of}
    return result


# -- shares of domains ---------------------------------------------------------------------------------------


def shares(
    snapshot: Snapshot,
    *,
    of: str = "requiretls_ready",
    by: Groups = None,
    populations: Populations = None,
) -> pd.DataFrame:
    """Count domains by how many of their addresses are a yes, a column of counts for each word.

    Parameters
    ----------
    snapshot
        A scan.
    of
        A column of `domains` with a closed vocabulary, such as ``"starttls"`` or ``"sts_policy"``.
    by, populations
        Groups of the domains, as `rtls_analysis.analysis.cohorts` gives them.

    Returns
    -------
    DataFrame
        One row per group, with `domains` (all of them), `unit`, and a column of counts for each word: ``all``,
        ``some``, ``none``, ``unknown``, ``not_tested``, ``not_applicable``.
    """
    import pandas as pd

    domains = one_vantage(snapshot).domains
    if of not in domains.columns or not isinstance(domains[of].dtype, pd.CategoricalDtype):
        words = [name for name in domains.columns if isinstance(domains[name].dtype, pd.CategoricalDtype)]
        raise ValueError(f"{of!r} is no column of words; there are {', '.join(words)}")
    groups = domain_groups(domains, by, populations)
    names = list(groups.columns[1:])
    words = [str(word) for word in domains[of].cat.categories]
    of_domain = domains.set_index("domain")[of]
    flags = {word: groups["domain"].map(of_domain.eq(word)).astype("int64") for word in words}
    table = pd.DataFrame(flags).groupby([groups[name] for name in names], observed=True).sum()
    size = groups.groupby(names, observed=True).size()
    table.insert(0, "domains", size)
    table.insert(1, "unit", "domain")
    table.attrs = {"of": of, "words": words}
    return table.sort_values("domains", ascending=False, kind="stable") if names == ["provider"] else table


# -- mechanisms together -------------------------------------------------------------------------------------

MECHANISMS = ("starttls", "pkix", "dane", "mta_sts", "tlsrpt", "requiretls_offered")
"""What domains may combine; all but the first two need a decision of their own."""


def _told(snapshot: Snapshot, of: Sequence[str], rule: str) -> tuple[pd.DataFrame, int]:
    """Tell of each domain with a mail host what it has, where all is told; and of how many it is not."""
    import pandas as pd

    for name in of:
        one_of("mechanism", name, FEATURES)
    domains = feature_table(snapshot, rule=rule)
    domains = domains[_answers(domains, "mail_host", rule).where(Said.YES)].reset_index(drop=True)
    said = {name: _answers(domains, name, rule) for name in of}
    told = pd.DataFrame({name: item.where(Said.YES) | item.where(Said.NO) for name, item in said.items()})
    has = pd.DataFrame({name: item.where(Said.YES) for name, item in said.items()})
    whole = told.all(axis=1)
    return has[whole], int((~whole).sum())


def mechanisms(
    snapshot: Snapshot, *, of: Sequence[str] = MECHANISMS, rule: str = "any", confidence: float = 0.95
) -> pd.DataFrame:
    """Count which mechanisms occur together (canonical table 10).

    Parameters
    ----------
    snapshot
        A scan.
    of
        Features, names of `FEATURES`.
    rule
        As for `deployment`.
    confidence
        Of the intervals.

    Returns
    -------
    DataFrame
        One row per combination that occurs (the index: a flag per mechanism), the commonest first, with the columns
        of `rtls.rates`. The denominator is the domains with a mail host of which all of these could be told; those
        of which one could not are `unknown`.
    """
    has, untold = _told(snapshot, of, rule)
    counts = has.groupby(list(of)).size().rename("numerator").to_frame()
    counts["trials"], counts["unknown"] = len(has), untold
    return with_rates(counts, unit="domain", confidence=confidence).sort_values(
        "numerator", ascending=False, kind="stable"
    )


def mechanism_pairs(
    snapshot: Snapshot, *, of: Sequence[str] = MECHANISMS, rule: str = "any", confidence: float = 0.95
) -> pd.DataFrame:
    """Count, among the domains that have one mechanism, those that have another one too (canonical table 10).

    Parameters
    ----------
    snapshot, of, rule, confidence
        As for `mechanisms`.

    Returns
    -------
    DataFrame
        One row per pair (the index: `given`, `also`), with the columns of `rtls.rates`: the denominator is the
        domains that have `given`, of those of which all mechanisms could be told (``attrs["untold"]`` others could
        not).
    """
    import pandas as pd

    has, untold = _told(snapshot, of, rule)
    rows = [
        (given, also, int((has[given] & has[also]).sum()), int(has[given].sum()))
        for given in of
        for also in of
        if given != also
    ]
    counts = pd.DataFrame(rows, columns=["given", "also", "numerator", "trials"])
    table = with_rates(counts.set_index(["given", "also"]), unit="domain", confidence=confidence)
    table.attrs |= {"domains": len(has), "untold": untold}
    return table
