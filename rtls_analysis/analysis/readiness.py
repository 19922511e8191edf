"""Who could receive REQUIRETLS mail, where the others are lost, and how much of that is a matter of reading."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.cohorts import domain_groups
from rtls_analysis.analysis.funnels import funnel
from rtls_analysis.analysis.hops import domain_shares, hop_verdicts
from rtls_analysis.analysis.rates import ArtefactWarning, rates, with_rates
from rtls_analysis.analysis.words import one_of
from rtls_analysis.outcomes import DnsSecurity, DomainShare, Obstacle
from rtls_analysis.standards.requiretls import Rules
from rtls_analysis.store import Snapshot, one_vantage
from rtls_analysis.verdicts import Answer, judge

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

NOT_TESTED = "not_tested"
"""The reason of those that were left out by our choice; it is no obstacle."""

# -- the funnel ----------------------------------------------------------------------------------------------


class Stage(StrEnum):
    """The stages of the funnel, in the order in which the transport comes before the names."""

    LISTED = "listed"
    MX = "mail host"  # an MX host, explicit or implicit, with an address
    ANSWERED = "answered"
    STARTTLS = "STARTTLS offered"
    HANDSHAKE = "TLS handshake"
    MX_AUTHENTICATED = "MX name secured"
    CERTIFICATE = "certificate verified"
    REQUIRETLS = "REQUIRETLS offered"


class Order(StrEnum):
    """In which order the stages are passed."""

    TRANSPORT = (
        "transport"  # as a connection goes; the transport's losses stay visible behind an unsecured name
    )
    DECISION = "decision"  # as the decision table asks; what is surely in the way comes before what is untold


_STOPS: Mapping[Stage, frozenset[Obstacle]] = {
    Stage.MX: frozenset({Obstacle.NO_MX}),
    Stage.ANSWERED: frozenset({Obstacle.DNS_ERROR, Obstacle.UNREACHABLE}),
    Stage.STARTTLS: frozenset({Obstacle.NO_STARTTLS}),
    Stage.HANDSHAKE: frozenset({Obstacle.TLS_FAILED, Obstacle.TLS_TOO_OLD}),
    Stage.MX_AUTHENTICATED: frozenset({Obstacle.STS_FORBIDS_HOST, Obstacle.MX_UNAUTHENTICATED}),
    Stage.CERTIFICATE: frozenset({Obstacle.DANE_MISMATCH, Obstacle.CERTIFICATE_UNVERIFIED}),
    Stage.REQUIRETLS: frozenset({Obstacle.REQUIRETLS_NOT_OFFERED}),
}
_STAGES: Mapping[Order, tuple[Stage, ...]] = {
    Order.TRANSPORT: tuple(_STOPS),
    Order.DECISION: (
        Stage.MX,
        Stage.ANSWERED,
        Stage.MX_AUTHENTICATED,
        Stage.STARTTLS,
        Stage.HANDSHAKE,
        Stage.CERTIFICATE,
        Stage.REQUIRETLS,
    ),
}
UNITS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "domain": ("domain", ("domain",)),
    "address": ("address", ("mx_host", "address")),
    "host": ("MX host", ("mx_host",)),
    "provider": ("provider", ("provider",)),
    "hop": ("domain's address", ("domain", "mx_host", "address")),
}
"""What can be counted: the word in the tables, and the columns that make one."""

RULES = ("any", "all", "best_preference")
"""How a unit of several hops answers: by any, by all, by any of those at the most preferred MX hosts."""

_REASONS = [*(str(obstacle) for obstacle in Obstacle if obstacle), NOT_TESTED]
_UNTOLD = (Obstacle.UNKNOWN, Obstacle.UNREACHABLE, Obstacle.DNS_ERROR)  # the last one comes first


def readiness_funnel(
    snapshot: Snapshot,
    *,
    unit: str = "domain",
    order: str = Order.TRANSPORT,
    rule: str = "any",
    by: str | Sequence[str] | pd.Series[Any] | None = None,
    populations: Mapping[str, Collection[str]] | None = None,
    rules: Rules | None = None,
) -> pd.DataFrame:
    """Count how many get how far on the way to REQUIRETLS, and what stops the others (canonical table 11).

    Parameters
    ----------
    snapshot
        A scan.
    unit
        What is counted: ``"domain"``; ``"address"``, an MX host at one address, the thing probed, once however
        many domains share it; ``"host"``; ``"provider"``; ``"hop"``, an address once for each domain it serves.
    order
        ``"transport"``: answer, STARTTLS, handshake, then name, certificate, keyword. ``"decision"``: in the
        order of the decision table, where each unit stops at its first obstacle, as `domains.obstacle` does.
    rule
        How a unit of several hops gets on: ``"any"``, as far as its best one, since a sender tries them all;
        ``"all"``, as its weakest; ``"best_preference"``, as its best one among the most preferred MX hosts.
    by, populations
        Groups of the domains, as `rtls_analysis.analysis.cohorts` gives them; a unit counts in each group that it
        serves.
    rules
        Another reading of the RFCs; that of the snapshot by default.

    Returns
    -------
    DataFrame
        One row per stage, in order, of each group: `stage`, `remaining` (count that passed it), `lost` (count
        stopped there), `share` (`remaining` of all that are listed) with `low` and `high` (Wilson), `tested`
        (count that came to this stage and could be told), `passed` (`remaining` of those), `unit`, `is_small`,
        and a column of counts for each obstacle that stopped any. ``unknown`` could not be told, ``not_tested``
        was left out by our choice: neither is in `tested`.

    Warns
    -----
    ArtefactWarning
        DNSSEC was not tested, so that the stages of names and certificates say little.

    Notes
    -----
    Hops left out by our choice count only where a unit has no other. A DANE lookup that was not trusted is counted
    with the certificate, which it would have verified.
    """
    one_of("unit", unit, UNITS)
    one_of("rule", rule, RULES)
    stages = _STAGES[Order(one_of("order", order, Order))]
    _warn_untrusted(snapshot)
    ends, names = _unit_ends(snapshot, unit, Order(order), rule, by, populations, rules)
    label, untold = UNITS[unit][0], [NOT_TESTED, *map(str, _UNTOLD)]
    table = funnel(ends, [Stage.LISTED, *stages], unit=label, untold=untold, by=names, reasons=_REASONS)
    table.attrs |= {"order": str(order), "rule": rule}
    return table


def _unit_ends(
    snapshot: Snapshot,
    unit: str,
    order: Order,
    rule: str,
    by: str | Sequence[str] | pd.Series[Any] | None,
    populations: Mapping[str, Collection[str]] | None,
    rules: Rules | None,
) -> tuple[pd.DataFrame, list[str]]:
    """Tell for each unit, in each of its groups, how far it gets; gives the columns of the groups besides."""
    import pandas as pd

    hops = hop_verdicts(snapshot, rules)
    keys = list(UNITS[unit][1])
    ends = _ends(hops, order)
    hops = pd.concat([hops[["domain", "mx_host", "address", "preference", "provider"]], ends], axis=1)
    if rule == "best_preference":
        best = hops.groupby("domain")["preference"].transform("min")
        hops = hops[hops["preference"].isna() | hops["preference"].eq(best)]
    hops = _of_unit(snapshot, hops, unit)
    names: list[str] = []
    if by is not None or populations is not None:
        groups = domain_groups(one_vantage(snapshot).domains, by, populations)
        names = [f"{name}_of_domain" if name in keys else name for name in groups.columns[1:]]
        groups.columns = ["domain", *names]
        hops = hops.drop(columns=[name for name in names if name in hops.columns]).merge(groups, on="domain")
    wanted = [*names, *keys]
    return (_weakest(hops, wanted) if rule == "all" else _best(hops, wanted, order)), names


def _warn_untrusted(snapshot: Snapshot) -> None:
    security = one_vantage(snapshot).table("domains", columns=["mx_dnssec"])["mx_dnssec"].dropna()
    if len(security) and security.eq(DnsSecurity.NOT_TESTED).all():
        warnings.warn(
            "DNSSEC was not tested, the resolver is not trusted: whether MX names are secured and certificates match"
            " TLSA records could not be told",
            ArtefactWarning,
            stacklevel=3,
        )


def _ends(hops: pd.DataFrame, order: Order) -> pd.DataFrame:
    """Tell for each hop how many stages it passes, and what stops it at the next: `passed`, `reason`."""
    import pandas as pd

    is_left_out = hops["requiretls_ready"].eq(Answer.LEFT_OUT)
    facts = pd.Series(
        list(
            zip(
                hops["obstacle"].astype(object),
                hops["obstacles"],
                hops["maybe"],
                is_left_out,
                hops["mx_host"].notna(),
                strict=True,
            )
        ),
        dtype=object,
    )
    codes, kinds = pd.factorize(facts)
    found = [_end(order, *kind) for kind in kinds]
    passed = pd.Series([end[0] for end in found], dtype="int64")
    reason = pd.Series([str(end[1]) for end in found], dtype=object)
    return pd.DataFrame({"passed": passed.to_numpy()[codes], "reason": reason.to_numpy()[codes]})


def _end(
    order: Order,
    obstacle: str,
    obstacles: Sequence[str],
    maybe: Sequence[str],
    is_left_out: bool,
    has_host: bool,
) -> tuple[int, str]:
    stages = _STAGES[order]
    place = {stop: number for number, stage in enumerate(stages) for stop in _STOPS[stage]}
    if is_left_out:
        return stages.index(Stage.ANSWERED if has_host else Stage.MX), NOT_TESTED
    if order is Order.DECISION and obstacle != Obstacle.UNKNOWN:  # what is sure decides, whatever is open
        return (place[Obstacle(obstacle)], obstacle) if obstacle else (len(stages), "")
    sure = {} if order is Order.DECISION else {place[Obstacle(stop)]: stop for stop in reversed(obstacles)}
    # only DANE can leave it open whether there was a DNS error
    is_open = {
        stages.index(Stage.CERTIFICATE) if stop == Obstacle.DNS_ERROR else place[Obstacle(stop)]
        for stop in maybe
    }
    first = min([*sure, *is_open], default=len(stages))
    return first, sure.get(first, str(Obstacle.UNKNOWN) if first in is_open else "")


def _of_unit(snapshot: Snapshot, hops: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Add the hosts, or providers, that have no address to ask, and drop what is none of the unit."""
    import pandas as pd

    if unit in ("domain", "hop"):
        return hops
    hops = hops[hops["mx_host"].notna()]
    if unit == "address":  # a host whose lookup failed has none that is known
        return hops[hops["address"].ne("")]
    mx = one_vantage(snapshot).table("mx", columns=["domain", "mx_host", "provider", "preference"])
    column = UNITS[unit][1][0]
    rest = mx[~mx[column].isin(hops[column])].assign(passed=0, reason=str(Obstacle.NO_MX))
    return pd.concat([hops, rest], ignore_index=True) if len(rest) else hops


def _urgency(reason: pd.Series[Any]) -> npt.NDArray[Any]:
    """Number the reasons: what was left out first, then the obstacles in their order, then what is untold."""
    words = [NOT_TESTED, *Obstacle]
    ranks = {str(word): 1 + words.index(word) for word in words}
    ranks |= {str(word): 100 + number for number, word in enumerate(_UNTOLD)}
    ranks |= {"": 200, NOT_TESTED: 0}
    return reason.map(ranks).to_numpy(dtype="int64")


def _best(hops: pd.DataFrame, keys: list[str], order: Order) -> pd.DataFrame:
    """Keep of each unit the hop that decides under the rule that any one is enough."""
    import numpy as np

    urgency = _urgency(hops["reason"])
    first = np.where(urgency >= 100, urgency, 0) if order is Order.DECISION else np.zeros_like(urgency)
    return _deciding(hops, keys, (urgency > 0, first, hops["passed"].to_numpy(), urgency))


def _weakest(hops: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Keep of each unit the hop that decides under the rule that every one has to be ready."""
    urgency = _urgency(hops["reason"])
    return _deciding(hops, keys, (urgency > 0, -hops["passed"].to_numpy(), urgency))


def _deciding(hops: pd.DataFrame, keys: list[str], by: tuple[Any, ...]) -> pd.DataFrame:
    import numpy as np

    order = np.lexsort(tuple(reversed(by)))[::-1]
    return hops.iloc[order].drop_duplicates(keys)


def loss_reasons(
    snapshot: Snapshot,
    *,
    unit: str = "domain",
    by: str | Sequence[str] | pd.Series[Any] | None = None,
    populations: Mapping[str, Collection[str]] | None = None,
    rules: Rules | None = None,
) -> pd.DataFrame:
    """Count what stops REQUIRETLS mail, each unit once and by everything that applies (canonical tables 5, 11).

    Parameters
    ----------
    snapshot
        A scan.
    unit, by, populations, rules
        As for `readiness_funnel`.

    Returns
    -------
    DataFrame
        One row per obstacle (the index: the groups, `counted`, `obstacle`) with the columns of `rtls.rates`. Where
        `counted` is ``first``, each unit is counted at its first obstacle in the order of the decision table, an
        empty one where it is ready; where it is ``all``, at each obstacle found at any of its hops. The denominator
        is the units that take mail and were not left out by our choice.
    """
    import pandas as pd

    one_of("unit", unit, UNITS)
    ends, names = _unit_ends(snapshot, unit, Order.DECISION, "any", by, populations, rules)
    ends = ends[~ends["reason"].isin([NOT_TESTED, str(Obstacle.NO_MX)])]
    keys = list(UNITS[unit][1])
    found = hop_verdicts(snapshot, rules)[["domain", "mx_host", "address", "provider", "obstacles"]]
    found = found.explode("obstacles").dropna(subset="obstacles")
    found = found.drop_duplicates([*keys, "obstacles"])[[*keys, "obstacles"]].merge(
        ends[[*names, *keys]], on=keys
    )
    counted = {
        "first": ends.rename(columns={"reason": "obstacle"}),
        "all": found.rename(columns={"obstacles": "obstacle"}),
    }
    rows = pd.concat(
        [frame[[*names, "obstacle"]].assign(counted=name) for name, frame in counted.items()],
        ignore_index=True,
    )
    words: Any = pd.CategoricalDtype(
        [str(Obstacle.NONE), *(str(word) for word in Obstacle if word)], ordered=True
    )
    rows["obstacle"] = rows["obstacle"].astype(words)
    rows["counted"] = rows["counted"].astype(pd.CategoricalDtype(list(counted), ordered=True))
    index = [*names, "counted", "obstacle"]
    counts = rows.groupby(index, observed=True).size().rename("numerator").reset_index()
    if names:
        trials = ends.groupby(names, observed=True).size().rename("trials").reset_index()
        counts = counts.merge(trials, on=names)
    else:
        counts["trials"] = len(ends)
    return with_rates(counts.set_index(index), unit=UNITS[unit][0])


# -- under other readings ------------------------------------------------------------------------------------

_LENIENT: Mapping[str, Any] = {
    "sts_modes": ["enforce", "testing"],
    "minimum_tls": "TLSv1.0",
    "sts_with_dane": "dane_wins",
    "dane_insecure_mx": True,
    "strict_media_type": False,
    "name_rule": "as_applicable",
}
_STRICT: Mapping[str, Any] = {
    "sts_modes": ["enforce"],
    "minimum_tls": "TLSv1.3",
    "sts_with_dane": "both",
    "dane_insecure_mx": False,
    "strict_media_type": True,
    "name_rule": "literal",
}
READINGS: Mapping[str, Mapping[str, Any]] = {
    "as scanned": {},
    "MTA-STS testing counts": {"sts_modes": ["enforce", "testing"]},
    "names literally": {"name_rule": "literal"},
    "TLS 1.0 counts": {"minimum_tls": "TLSv1.0"},
    "TLS 1.3 alone counts": {"minimum_tls": "TLSv1.3"},
    "DANE wins over MTA-STS": {"sts_with_dane": "dane_wins"},
    "DANE behind an unsigned MX": {"dane_insecure_mx": True},
    "any media type": {"strict_media_type": False},
    "all of them strict": _STRICT,
    "all of them lenient": _LENIENT,
}
"""Readings of what RFC 8689 and its neighbours leave open, as parameters of `rtls.judge`."""


def readings(
    snapshot: Snapshot,
    readings: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    by: str | Sequence[str] | pd.Series[Any] | None = None,
    populations: Mapping[str, Collection[str]] | None = None,
    yes: str | Collection[str] | None = None,
) -> pd.DataFrame:
    """Judge readiness under several readings of the RFCs, side by side (canonical table 11).

    Parameters
    ----------
    snapshot
        A scan.
    readings
        Name -> parameters of `rtls.judge`; `READINGS` by default. The first is the one that others are compared
        with. Parameters that a reading does not name are the snapshot's.
    by, populations
        Groups of the domains, as `rtls_analysis.analysis.cohorts` gives them.
    yes
        Words of `DomainShare` that count; ``all`` and ``some`` by default, one address at least.

    Returns
    -------
    DataFrame
        One row per reading (the index, with the groups behind it): the columns of `rtls.rates` (unit: domain),
        the counts of domains that are `all`, `some` and `none`, and `gained` and `lost`, domains that are a yes
        under this reading and not under the first, and the other way round.
    """
    import pandas as pd

    chosen = READINGS if readings is None else readings
    groups = domain_groups(one_vantage(snapshot).domains, by, populations)
    names = [name for name in groups.columns if name != "domain"]
    wanted = (DomainShare.ALL, DomainShare.SOME) if yes is None else [yes] if isinstance(yes, str) else yes
    words = [str(word) for word in wanted]
    base: pd.Series[Any] | None = None
    tables = []
    for name, parameters in chosen.items():
        shares = domain_shares(_judged(snapshot, parameters), "requiretls_ready")
        is_yes = shares.isin(words)
        base = is_yes if base is None else base
        frame = groups.assign(
            requiretls_ready=groups["domain"].map(shares).astype(shares.dtype),
            gained=groups["domain"].map(is_yes & ~base).astype("int64"),
            lost=groups["domain"].map(~is_yes & base).astype("int64"),
        )
        table = rates(frame, of="requiretls_ready", by=names, yes=words, unit="domain")
        of_word = {str(word): frame["requiretls_ready"].eq(word).astype("int64") for word in _GRADES}
        sums = frame.assign(**of_word).groupby(names, observed=True)[[*of_word, "gained", "lost"]].sum()
        table = table.join(sums)
        table.insert(0, "reading", name)
        tables.append(table.set_index("reading", append=True).swaplevel(0, -1))
    result = pd.concat(tables)
    result.attrs = {**tables[0].attrs, "unit": "domain"}
    return result if by is not None or populations is not None else result.droplevel("group")


_GRADES = (DomainShare.ALL, DomainShare.SOME, DomainShare.NONE)


def _judged(snapshot: Snapshot, parameters: Mapping[str, Any]) -> pd.DataFrame:
    """Judge every hop under a reading; certificates are looked at again only where it is about them."""
    held = snapshot.manifest.get("rules", {})
    rules = Rules.of(**{**held, **parameters})
    if rules.cn_id != Rules.of(**held).cn_id:
        return hop_verdicts(judge(snapshot, **parameters))
    return hop_verdicts(snapshot, rules)
