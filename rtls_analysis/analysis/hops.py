"""Every MX host at each address, judged for each domain it serves: the table under readiness and its units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from rtls_analysis.outcomes import DaneState, DomainShare, MxState, Obstacle, StsPolicyState, TlsaState
from rtls_analysis.schema import DOMAINS, HOSTS, MX, SESSIONS, rows_of
from rtls_analysis.standards.certificates import Roots
from rtls_analysis.standards.requiretls import Rules
from rtls_analysis.store import Snapshot, one_vantage
from rtls_analysis.verdicts import Answer, HopResult, Judge

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    _Row = Mapping[str, Any]
    Positions = npt.NDArray[np.intp]

QUESTIONS = (
    "starttls",
    "pkix",
    "dane",
    "requiretls_offered",
    "requiretls_ready",
    "requiretls_ready_testing",
)
"""What each hop answers, with the words of `rtls_analysis.verdicts.Answer`."""

# What a verdict depends on, column by column: rows that agree in all of them are judged once
_DOMAIN_FACTS = ("mx_state", "mx_dnssec", "sts_record", "sts_policy", "sts_mode")
_MX_FACTS = ("mx_state", "sts_match")
_HOST_FACTS = ("tlsa_state", "addresses_dnssec")
_SESSION_FACTS = (
    "outcome",
    "starttls",
    "requiretls_tls",
    "tls_version",
    "pkix",
    "dns_id_match",
    "name_match",
    "dane",
)
_DOMAIN_COLUMNS = (
    "domain",
    *_DOMAIN_FACTS,
    "mx_canonical",
    "sts_policy_text",
    "sts_policy_bytes",
    "sts_http_status",
    "sts_detail",
    "sts_content_type",
)
_MX_COLUMNS = ("domain", "preference", "mx_host", "provider", *_MX_FACTS)
_HOST_COLUMNS = ("mx_host", *_HOST_FACTS, "tlsa", "tlsa_base")
_SESSION_COLUMNS = ("mx_host", "address", "started_at", "chain_sha256", *_SESSION_FACTS, "dane_detail")


@dataclass(frozen=True, slots=True)
class _Verdict:
    answers: tuple[Answer | None, ...]  # to QUESTIONS; None does not apply
    obstacle: Obstacle
    obstacles: tuple[Obstacle, ...] = ()
    maybe: tuple[Obstacle, ...] = ()


def hop_verdicts(snapshot: Snapshot, rules: Rules | None = None) -> pd.DataFrame:
    """Judge every MX host at each of its addresses for each domain that it serves.

    Parameters
    ----------
    snapshot
        A scan.
    rules
        Another reading of the RFCs; that of the snapshot by default. `cn_id` must be the snapshot's own: the
        certificates are not looked at again (`rtls.judge` does that).

    Returns
    -------
    DataFrame
        One row per domain, MX host and address, in the order of the tables, and one without a host for a domain
        that has no hop: `domain`, `mx_host`, `address` (empty where the host's lookup failed), `preference`,
        `provider` of the host, the answers `starttls`, `pkix`, `dane`, `requiretls_offered`, `requiretls_ready`,
        `requiretls_ready_testing` (words of `Answer`), `obstacle` (the first), `obstacles` (all that are sure) and
        `maybe` (those that could not be told), tuples of words.

    Notes
    -----
    The verdicts are those of `rtls_analysis.verdicts`. Hops that agree in all facts have one verdict, so a hundred
    thousand domains take seconds.
    """
    kinds = _KINDS.get(snapshot)
    if kinds is None:
        kinds = _KINDS[snapshot] = _kinds(snapshot)
    held = Rules.of(**snapshot.manifest.get("rules", {}))
    if rules is not None and rules.cn_id != held.cn_id:
        raise ValueError("another cn_id needs the certificates; judge the snapshot again with rtls.judge")
    no_roots = Roots(())  # the sessions bring their verdicts on PKIX along
    judge = Judge(rules or held, no_roots, kinds.certificates.__getitem__)
    return _table(kinds, _judged(judge, kinds.examples))


@dataclass(frozen=True, slots=True)
class _Kinds:
    """The hops of a snapshot, sorted into kinds that agree in all facts."""

    hops: pd.DataFrame  # whose they are
    code: Positions  # the kind of each
    examples: list[tuple[_Row | None, ...]]  # of each kind, the rows of one hop: domain, mx, host, session
    certificates: Mapping[str, bytes]  # those that a verdict may have to look at


_KINDS: WeakKeyDictionary[Snapshot, _Kinds] = WeakKeyDictionary()  # they take seconds and little memory


def _kinds(snapshot: Snapshot) -> _Kinds:
    import numpy as np
    import pandas as pd

    domains = one_vantage(snapshot).table("domains", columns=_DOMAIN_COLUMNS)
    mx = snapshot.table("mx", columns=_MX_COLUMNS)
    hosts = snapshot.table("hosts", columns=_HOST_COLUMNS)
    sessions = snapshot.table("sessions", columns=_SESSION_COLUMNS)
    places = _places(domains, mx, hosts, sessions)
    parts = (
        (DOMAINS, domains, _DOMAIN_FACTS),
        (MX, mx, _MX_FACTS),
        (HOSTS, hosts, _HOST_FACTS),
        (SESSIONS, sessions, _SESSION_FACTS),
    )
    code = np.zeros(len(places["domains"]), dtype=np.int64)
    for table, frame, facts in parts:
        code = _combined(code, _codes(frame, facts), places[table.name])
    # These depend on more than words, and each is a kind of its own: a policy may be read otherwise by its text, and
    # an authority (usage 2) that does not vouch for the host's name may for that of the domain
    own = _flags(domains["sts_policy"].eq(StsPolicyState.CONTENT_TYPE), places["domains"])
    own |= _flags(sessions["dane"].eq(DaneState.MISMATCH), places["sessions"]) & _flags(
        _has_authority(hosts), places["hosts"]
    )
    code = pd.factorize(code * (len(code) + 1) + np.where(own, np.arange(1, len(code) + 1), 0))[0]
    first = np.unique(code, return_index=True)[1]
    rows = []
    for table, frame, _facts in parts:
        at = places[table.name][first]
        found = iter(rows_of(table, frame.iloc[at[at >= 0]]))
        rows.append([next(found) if place >= 0 else None for place in at])
    hops = pd.DataFrame(
        {
            "domain": _taken(domains["domain"], places["domains"]),
            "mx_host": _taken(mx["mx_host"], places["mx"]),
            "address": _taken(sessions["address"], places["sessions"]),
            "preference": _taken(mx["preference"], places["mx"]),
            "provider": _taken(mx["provider"], places["mx"]),
        }
    )
    hops.loc[hops["mx_host"].notna() & hops["address"].isna(), "address"] = ""
    return _Kinds(hops, code, list(zip(*rows, strict=True)), _certificates(snapshot, rows[-1]))


def _flags(of_row: Any, at: Positions) -> npt.NDArray[np.bool_]:
    """Give the flag of each hop's row in a table; false where it has none."""
    import numpy as np

    flags = np.asarray(of_row, dtype=bool)
    return flags[at] & (at >= 0) if len(flags) else np.zeros(len(at), dtype=bool)


def _places(
    domains: pd.DataFrame, mx: pd.DataFrame, hosts: pd.DataFrame, sessions: pd.DataFrame
) -> dict[str, Positions]:
    """Give for each hop its rows in the four tables, -1 for none."""
    import numpy as np
    import pandas as pd

    pairs = pd.DataFrame(
        {
            "mx_host": mx["mx_host"],
            "domains": pd.Index(domains["domain"]).get_indexer(pd.Index(mx["domain"])),
            "mx": np.arange(len(mx)),
            "hosts": pd.Index(hosts["mx_host"]).get_indexer(pd.Index(mx["mx_host"])),
        }
    )
    pairs = pairs[(pairs["domains"] >= 0) & (pairs["hosts"] >= 0)]
    failed = mx["mx_state"].eq(MxState.DNS_FAILURE).to_numpy()
    of_host = pd.DataFrame({"mx_host": sessions["mx_host"], "sessions": np.arange(len(sessions))})
    asked = pairs[~failed[pairs["mx"]]].merge(of_host, on="mx_host")
    unasked = pairs[failed[pairs["mx"]]].assign(sessions=-1)
    alone = np.setdiff1d(np.arange(len(domains)), np.concatenate([asked["domains"], unasked["domains"]]))
    rest = pd.DataFrame({"domains": alone, "mx": -1, "hosts": -1, "sessions": -1})
    names = ["domains", "mx", "hosts", "sessions"]
    hops = pd.concat([part[names] for part in (asked, unasked, rest) if len(part)] or [rest])
    hops = hops.sort_values(names, kind="stable")
    return {name: hops[name].to_numpy(dtype=np.intp) for name in names}


def _codes(frame: pd.DataFrame, facts: tuple[str, ...]) -> Positions:
    """Number the distinct combinations of some columns, from 1."""
    import numpy as np
    import pandas as pd

    code = np.zeros(len(frame), dtype=np.int64)
    for name in facts:
        values, words = pd.factorize(frame[name])
        code = code * (len(words) + 1) + values + 1
        code = pd.factorize(code)[0]
    return code + 1


def _combined(code: Positions, of_table: Positions, at: Positions) -> Positions:
    """Refine the numbers of the hops by those of one table's rows; 0 where a hop has no row there."""
    import numpy as np
    import pandas as pd

    more = np.where(at >= 0, of_table[at], 0) if len(of_table) else np.zeros(len(at), dtype=np.int64)
    return pd.factorize(code * (int(more.max(initial=0)) + 1) + more)[0]


def _has_authority(hosts: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Tell which hosts have a usable TLSA set with an authority in it (usage 2), which asks for names."""
    import numpy as np

    found = np.zeros(len(hosts), dtype=bool)
    for place in np.flatnonzero(hosts["tlsa_state"].eq(TlsaState.USABLE).to_numpy()):
        found[place] = any(text.startswith("2 ") for text in hosts["tlsa"].iloc[place])
    return found


def _certificates(snapshot: Snapshot, sessions: Iterable[_Row | None]) -> Mapping[str, bytes]:
    """Give the certificates of some sessions: those with an authority in DANE need them."""
    wanted = {sha256 for row in sessions if row is not None for sha256 in row["chain_sha256"] or ()}
    table = snapshot.table("certificates", columns=["sha256", "der"], where={"sha256": sorted(wanted)})
    return dict(zip(table["sha256"], table["der"], strict=True))


def _judged(judge: Judge, examples: Sequence[tuple[_Row | None, ...]]) -> list[_Verdict]:
    """Judge one hop of each kind, or a domain that has none."""
    verdicts = []
    for domain, mx, host, session in examples:
        assert domain is not None
        name = "" if mx is None else mx["mx_host"]
        result = judge.domain(
            domain,
            [] if mx is None else [mx],
            {} if host is None else {name: host},
            {} if session is None else {name: [session]},
        )
        verdicts.append(_of_hop(result.hops[0]) if result.hops else _of_domain(result.domain))
    return verdicts


def _of_hop(hop: HopResult) -> _Verdict:
    verdict = hop.verdict
    answers = tuple(getattr(hop, question) for question in QUESTIONS)
    return _Verdict(answers, verdict.obstacle, tuple(verdict.obstacles), tuple(verdict.maybe))


_OF_SHARE = {DomainShare.UNKNOWN: Answer.UNKNOWN, DomainShare.NOT_TESTED: Answer.LEFT_OUT}


def _of_domain(domain: Mapping[str, Any]) -> _Verdict:
    answers = tuple(_OF_SHARE.get(domain[question]) for question in QUESTIONS)
    return _Verdict(answers, domain["obstacle"], tuple(domain["obstacles"]))


def _table(kinds: _Kinds, verdicts: list[_Verdict]) -> pd.DataFrame:
    import pandas as pd

    words = list(Answer)
    columns: dict[str, Any] = {}
    for number, question in enumerate(QUESTIONS):
        said = [verdict.answers[number] for verdict in verdicts]
        codes = [-1 if answer is None else words.index(answer) for answer in said]
        columns[question] = _categories(words, codes, kinds.code)
    of_verdict = [list(Obstacle).index(verdict.obstacle) for verdict in verdicts]
    columns["obstacle"] = _categories(Obstacle, of_verdict, kinds.code)
    for name in ("obstacles", "maybe"):
        lists = pd.Series([tuple(map(str, getattr(verdict, name))) for verdict in verdicts], dtype=object)
        columns[name] = lists.iloc[kinds.code].reset_index(drop=True)
    return kinds.hops.assign(**columns)


def _categories(words: Iterable[str], of_verdict: list[int], code: Positions) -> Any:
    import numpy as np
    import pandas as pd

    dtype: Any = pd.CategoricalDtype([str(word) for word in words])
    return pd.Categorical.from_codes(np.asarray(of_verdict, dtype=np.int8)[code], dtype=dtype)


def _taken(values: pd.Series[Any], at: Positions) -> pd.Series[Any]:
    """Take values by position, missing for -1."""
    return values.reset_index(drop=True).reindex(at).reset_index(drop=True)


def domain_shares(hops: pd.DataFrame, question: str, by: str | Sequence[str] = "domain") -> pd.Series[Any]:
    """Sum up the answers of hops for each domain, or for each of other columns: words of `DomainShare`.

    The rule is that of `rtls_analysis.verdicts.domain_share`, here for whole tables.
    """
    import numpy as np
    import pandas as pd

    said = hops[question]
    is_contacted = said.notna() & ~said.eq(Answer.LEFT_OUT)
    counts = (
        pd.DataFrame(
            {
                "asked": said.notna(),
                "contacted": is_contacted,
                **{str(word): said.eq(word) for word in (Answer.YES, Answer.UNKNOWN, Answer.NOT_TESTED)},
            }
        )
        .astype("int64")
        .groupby([hops[name] for name in ([by] if isinstance(by, str) else by)], sort=False, observed=True)
        .sum()
    )
    contacted, yes = counts["contacted"], counts[str(Answer.YES)]
    word = np.select(
        [
            counts["asked"].eq(0),
            contacted.eq(0),
            yes.eq(contacted),
            yes.gt(0),
            counts[str(Answer.UNKNOWN)].gt(0),
            counts[str(Answer.NOT_TESTED)].gt(0),
        ],
        [
            str(word)
            for word in (
                DomainShare.NOT_APPLICABLE,
                DomainShare.NOT_TESTED,
                DomainShare.ALL,
                DomainShare.SOME,
                DomainShare.UNKNOWN,
                DomainShare.NOT_TESTED,
            )
        ],
        default=str(DomainShare.NONE),
    )
    dtype = pd.CategoricalDtype([str(word) for word in DomainShare])
    return pd.Series(word, index=counts.index, name=question).astype(dtype)
