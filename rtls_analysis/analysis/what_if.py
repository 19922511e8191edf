"""What would become of one's own mail if it asked for more: deliveries joined with a scan of their destinations.

The recipient's domain is judged, for that is what a sender would look up; the relay that the mail really took stands
beside it. A smart host hides the destination: then the domain's own MX hosts are judged, and the text says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.declared import fetched
from rtls_analysis.analysis.demands import Standing, standings
from rtls_analysis.analysis.messages import ACCEPTED, columns_of, is_local, recipient_ends, whole_messages
from rtls_analysis.analysis.obstacles import advice, meaning
from rtls_analysis.frames import Frame, mapped, reduced, tallied, together
from rtls_analysis.outcomes import DomainShare, Obstacle
from rtls_analysis.providers import provider_of
from rtls_analysis.schema import DELIVERIES, HOSTS, WHAT_IF, Demand, Prospect, rows_of, to_frame
from rtls_analysis.standards.names import NameProblem, to_ascii
from rtls_analysis.store import Snapshot

if TYPE_CHECKING:
    import pandas as pd

_PROSPECTS: Mapping[DomainShare, Prospect] = {
    DomainShare.ALL: Prospect.DELIVERED,
    DomainShare.SOME: Prospect.AT_RISK,
    DomainShare.NONE: Prospect.FAILS,
    DomainShare.NOT_APPLICABLE: Prospect.FAILS,  # it takes no mail
    DomainShare.UNKNOWN: Prospect.UNKNOWN,
    DomainShare.NOT_TESTED: Prospect.UNKNOWN,
}


def what_if(
    deliveries: Frame,
    snapshot: Snapshot,
    rule: str = Demand.REQUIRETLS,
    *,
    notices: bool = False,
) -> pd.DataFrame:
    """Say what would become of own mail if every message had asked for it.

    Parameters
    ----------
    deliveries
        Own delivery attempts, as `rtls.read_logs` gives them.
    snapshot
        A scan of the recipients' domains. Under ``requiretls`` its verdicts are taken as they were judged; see
        `rtls.judge` for other readings of the RFC.
    rule
        What is asked: ``requiretls``, ``verified`` (DANE or MTA-STS), ``pkix``, ``tls``.
    notices
        Count mail with the null sender too. RFC 8689 §5 does not have it stopped for want of REQUIRETLS.

    Returns
    -------
    DataFrame
        The table `what_if`: one row per recipient domain and relay host, those with most mail first. A domain that
        was not scanned is `unknown`, one that takes no mail `fails` with the obstacle `no_mx`. ``attrs["what_if"]``
        tells the period of the mail, the date of the scan, and how many recipients were left out and why.

    Raises
    ------
    ValueError
        There is no such rule.

    Notes
    -----
    A message counts once for each domain it goes to. Its relay is the last one that was reached for the recipient,
    found among the domain's MX hosts by name, by canonical name or by address. Local mailboxes are left out: there
    is no hop to judge.
    """
    demand = _demand(rule)
    ends = mapped(whole_messages(deliveries), _ends, notices=notices)
    texts = tallied(ends, ["kind", *_TEXTS])  # as the log writes destinations and relays
    mail = texts.loc[texts["kind"] == "mail", _TEXTS].astype(object)
    mail = mail.where(mail.notna(), None)
    names = {text: _domain_name(text) for text in mail["recipient_domain"].unique() if text is not None}
    standing = standings(snapshot, demand, {name for name in names.values() if name})
    relays = _Relays(snapshot, standing)
    ways: dict[_Text, _Way] = {}
    hosts: dict[_Way, str] = {}
    for text in mail.itertuples(index=False, name=None):
        domain = names.get(text[0])
        relay, host = relays.find(domain, *text[1:])
        ways[text] = (domain, relay)
        if host is not None:
            hosts[domain, relay] = host
    rows = _count(ends, ways)
    for row in rows:
        row |= _judged(row, standing.get(row["recipient_domain"]), hosts, demand)
    frame = to_frame(WHAT_IF, rows)
    of_kind = texts.groupby("kind", observed=False)["count"].sum()
    frame.attrs["what_if"] = {
        **_period(deliveries),
        "scanned_at": str(snapshot.manifest.get("started_at", "")),
        "local_recipients": int(of_kind["local"]),
        "notices": int(of_kind["notice"]),
    }
    return frame


_Text = tuple[str | None, str | None, str | None]
_Way = tuple[str | None, str | None]
_TEXTS = ["recipient_domain", "relay_host", "relay_address"]
_KINDS = ["mail", "local", "notice"]


def _ends(deliveries: pd.DataFrame, *, notices: bool) -> pd.DataFrame:
    """Tell of each message and recipient where it went, whether it was accepted, and what kind of mail it is."""
    import pandas as pd

    ends = recipient_ends(deliveries)
    kind = pd.Series("mail", ends.index, dtype=object)
    if not notices:
        kind[(ends["sender"] == "").fillna(False).astype(bool)] = "notice"
    kind[is_local(ends)] = "local"
    ends = ends.assign(accepted=ends["action"].isin(ACCEPTED), kind=pd.Categorical(kind, categories=_KINDS))
    return ends[["message", "recipient", *_TEXTS, "accepted", "kind"]]


def _demand(rule: str) -> Demand:
    try:
        return Demand(rule)
    except ValueError:
        raise ValueError(f"no rule {rule!r}: there are {', '.join(Demand)}") from None


def _domain_name(text: str) -> str:
    """Give a recipient domain the form that a scan has; what is no domain stays as it is."""
    try:
        return to_ascii(text)
    except NameProblem:
        return text


def _period(deliveries: Frame) -> dict[str, str]:
    """Tell from when to when the mail is; empty where no time is known."""
    import pandas as pd

    moments = reduced(
        deliveries, _moments, columns=["logged_at"], how={"mail_from": "min", "mail_to": "max"}
    ).iloc[0]
    return {
        str(name): "" if pd.isna(moment) else pd.Timestamp(moment).isoformat()
        for name, moment in moments.items()
    }


def _moments(deliveries: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    at = columns_of(deliveries, DELIVERIES, ["logged_at"])["logged_at"]
    return pd.DataFrame({"mail_from": [at.min()], "mail_to": [at.max()]}, index=pd.Index(["all"], name="of"))


class _Relays:
    """Finds the relay that was used among a domain's MX hosts."""

    def __init__(self, snapshot: Snapshot, standing: Mapping[str, Standing]) -> None:
        self._standing = standing
        wanted = sorted({name for found in standing.values() for name in found.hosts})
        columns = ["mx_host", "canonical_name", "addresses"]
        hosts = snapshot.table("hosts", columns=columns, where={"mx_host": wanted})
        self._hosts = {row["mx_host"]: row for row in rows_of(HOSTS, hosts)}

    def find(
        self, domain: str | None, name: str | None, address: str | None
    ) -> tuple[str | None, str | None]:
        """Give the relay by name, or by address in brackets, and the MX host that it is, if it is one."""
        relay = name.lower().rstrip(".") if name else None
        standing = self._standing.get(domain or "")
        host = None if standing is None else self._mx_host(standing.hosts, relay, address)
        return relay or host or (f"[{address}]" if address else None), host

    def _mx_host(self, hosts: Iterable[str], relay: str | None, address: str | None) -> str | None:
        own = list(hosts)
        if relay in own:
            return relay
        for name in own:
            host = self._hosts.get(name)
            if host is None:
                continue
            if (relay and host["canonical_name"] == relay) or (
                address and address in (host["addresses"] or ())
            ):
                return name
        return None


def _count(ends: Frame, ways: Mapping[_Text, _Way]) -> list[dict[str, Any]]:
    """Count messages and recipients for each way, and for each domain by any way; the busiest domain first."""
    messages = _by_way(reduced(ends, _messages, ways=ways))
    met = together(mapped(ends, _recipients, ways=ways), _recipient_key)
    recipients = _by_way(reduced(met, _distinct, of="recipient"))
    rows: list[dict[str, Any]] = []
    for (level, domain, relay), (found, delivered) in messages.items():
        if level == "way":
            whole, of_domain = messages["domain", domain, None], ("domain", domain, None)
            rows.append(
                {
                    "recipient_domain": domain,
                    "relay_host": relay,
                    "messages": found,
                    "messages_delivered": delivered,
                    "recipients": recipients[level, domain, relay][0],
                    "domain_messages": whole[0],
                    "domain_delivered": whole[1],
                    "domain_recipients": recipients[of_domain][0],
                }
            )
    rows.sort(
        key=lambda row: (
            -row["domain_messages"],
            row["recipient_domain"] or "",
            -row["messages"],
            row["relay_host"] or "",
        )
    )
    return rows


def _sent(ends: pd.DataFrame, ways: Mapping[_Text, _Way]) -> pd.DataFrame:
    """Give the mail with the domain and the relay of each row."""
    import pandas as pd

    mail = ends[ends["kind"] == "mail"]
    texts = mail[_TEXTS].astype(object)
    texts = texts.where(texts.notna(), None)
    found = [ways[text] for text in texts.itertuples(index=False, name=None)]
    return mail.assign(
        domain=pd.Series([domain for domain, _relay in found], mail.index, dtype=object),
        relay=pd.Series([relay for _domain, relay in found], mail.index, dtype=object),
    )


def _messages(ends: pd.DataFrame, ways: Mapping[_Text, _Way]) -> pd.DataFrame:
    return _distinct(_sent(ends, ways), of="message")


def _recipients(ends: pd.DataFrame, ways: Mapping[_Text, _Way]) -> pd.DataFrame:
    """Give each recipient once for each way."""
    mail = _sent(ends, ways)
    return mail.drop_duplicates(["domain", "relay", "recipient"])[
        ["domain", "relay", "recipient", "accepted"]
    ]


def _recipient_key(mail: pd.DataFrame) -> pd.Series[Any]:
    import pandas as pd

    names = mail["recipient"].astype(object)
    hashed: pd.Series[Any] = pd.util.hash_pandas_object(names.where(names.notna(), ""), index=False)
    return hashed.astype("int64")


def _distinct(mail: pd.DataFrame, *, of: str) -> pd.DataFrame:
    """Count distinct values of a column, and those accepted, for each way, and for each domain by any way.

    What is missing is one value.
    """
    import pandas as pd

    tables = []
    for level, keys in (("way", ["domain", "relay"]), ("domain", ["domain"])):
        each = mail.groupby([*keys, of], dropna=False, sort=False)["accepted"].any().reset_index()
        sizes = each.groupby(keys, dropna=False)["accepted"].agg(["size", "sum"]).reset_index()
        tables.append(sizes.assign(level=level))
    table = pd.concat(tables, ignore_index=True).astype({"size": "int64", "sum": "int64"})
    return table.set_index(["level", "domain", "relay"])


def _by_way(counts: pd.DataFrame) -> dict[tuple[str | None, ...], tuple[int, int]]:
    import pandas as pd

    return {
        tuple(None if pd.isna(part) else part for part in key): (int(found), int(accepted))
        for key, found, accepted in zip(counts.index, counts["size"], counts["sum"], strict=True)
    }


def _judged(
    row: Mapping[str, Any],
    standing: Standing | None,
    hosts: Mapping[tuple[str | None, str | None], str],
    demand: Demand,
) -> dict[str, Any]:
    domain, relay = row["recipient_domain"], row["relay_host"]
    if standing is None:
        return {
            "rule": demand,
            "scanned": False,
            "provider": provider_of(relay) if relay is not None and not relay.startswith("[") else None,
            "verdict": Prospect.UNKNOWN,
            "obstacle": Obstacle.UNKNOWN,
        }
    host = hosts.get((domain, relay))
    return {
        "rule": demand,
        "scanned": True,
        "provider": standing.provider,
        "relay_is_mx": None if relay is None else host is not None,
        "verdict": _PROSPECTS[standing.share],
        "obstacle": standing.obstacle,
        "obstacles": list(standing.obstacles),
        "relay_share": None if host is None else standing.hosts[host],
        "starttls": standing.starttls,
        "verified_by": standing.verified_by,
        "sts_mx": list(standing.sts_mx) or None,
        "scanned_at": standing.scanned_at,
    }


# -- summed up -------------------------------------------------------------------------------------------------


def what_if_domains(frame: Frame) -> pd.DataFrame:
    """The table `what_if` with one row per recipient domain: all relays together, the most used one named."""
    table = fetched(frame)
    domains = table.sort_values("messages", ascending=False, kind="stable")
    domains = domains.drop_duplicates("recipient_domain")
    counts = {
        "messages": "domain_messages",
        "messages_delivered": "domain_delivered",
        "recipients": "domain_recipients",
    }
    domains = domains.assign(**{name: domains[whole] for name, whole in counts.items()})
    order = ["messages", "recipient_domain"]
    return domains.sort_values(order, ascending=[False, True]).reset_index(drop=True)


def what_if_totals(frame: Frame) -> pd.DataFrame:
    """Sum up by verdict.

    Returns
    -------
    DataFrame
        One row per word of `Prospect`, in their order: `messages`, `messages_delivered` (accepted today),
        `recipients`, `domains` (counts), and `share` of the messages (0 to 1). Messages to two domains count for each.
    """
    domains = what_if_domains(frame)
    groups = domains.groupby("verdict", observed=False)
    totals = groups[["messages", "messages_delivered", "recipients"]].sum().astype("int64")
    totals["domains"] = groups.size().astype("int64")
    whole = int(totals["messages"].sum())
    totals["share"] = totals["messages"] / whole if whole else float("nan")
    return totals


def what_if_losses(frame: Frame, *, by: str = "recipient_domain", rows: int | None = 10) -> pd.DataFrame:
    """List the destinations that carry most of the loss, and what each would have to change.

    Parameters
    ----------
    frame
        The table `what_if`.
    by
        ``recipient_domain``, or ``provider``: then domains at the same provider with the same obstacles are one.
    rows
        How many; None for all.

    Returns
    -------
    DataFrame
        Those whose mail fails, most mail that is accepted today first: `recipient_domain`, `provider`, `domains`,
        `messages`, `messages_delivered`, `recipients` (counts), `share` (of all mail accepted today that would be
        lost, 0 to 1), `cumulative`, `obstacle`, `obstacles` (all that has to go, joined by commas), `meaning` and
        `advice` (of each of them, in words).
    """
    if by not in ("recipient_domain", "provider"):
        raise ValueError(f"by is {by!r}; give 'recipient_domain' or 'provider'")
    frame = fetched(frame)
    domains = what_if_domains(frame)
    lost = domains[domains["verdict"] == Prospect.FAILS]
    lost = lost.assign(obstacles=[",".join(found or ()) for found in lost["obstacles"].array])
    keys = [*(["recipient_domain"] if by == "recipient_domain" else []), "provider", "obstacle", "obstacles"]
    groups = lost.groupby(keys, observed=True, dropna=False, sort=False)
    table = groups[["messages", "messages_delivered", "recipients"]].sum().astype("int64")
    table.insert(0, "domains", groups.size().astype("int64"))
    table = table.reset_index().sort_values(
        ["messages_delivered", "messages", keys[0]], ascending=[False, False, True], kind="stable"
    )
    whole = int(table["messages_delivered"].sum())
    share = table["messages_delivered"] / whole if whole else table["messages_delivered"] * float("nan")
    table["share"], table["cumulative"] = share, share.cumsum()
    demand = Demand(frame["rule"].iloc[0]) if len(frame) else Demand.REQUIRETLS
    found = [
        tuple(map(Obstacle, all_of.split(","))) if all_of else (Obstacle(first),)
        for first, all_of in zip(table["obstacle"], table["obstacles"], strict=True)
    ]
    table["meaning"] = ["; ".join(meaning(item, demand) for item in items) for items in found]
    table["advice"] = [" ".join(advice(item, demand) for item in items) for items in found]
    counts = ["domains", "messages", "messages_delivered", "recipients", "share", "cumulative"]
    table = table[[*keys[:-2], *counts, "obstacle", "obstacles", "meaning", "advice"]]
    losses: pd.DataFrame = table.reset_index(drop=True)
    return losses if rows is None else losses.head(rows)


def not_scanned(frame: Frame) -> list[str]:
    """The recipient domains that the snapshot lacks, those with most mail first: a list to scan next."""
    domains = what_if_domains(frame)
    missing = domains.loc[~domains["scanned"].fillna(False).astype(bool), "recipient_domain"]
    return [name for name in missing if isinstance(name, str)]
