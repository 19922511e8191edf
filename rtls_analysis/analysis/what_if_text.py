"""What would become of one's own mail, as text: the totals, the destinations that carry the loss, and what to know."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.declared import fetched
from rtls_analysis.analysis.what_if import what_if_domains, what_if_losses, what_if_totals
from rtls_analysis.frames import Frame
from rtls_analysis.read.mail_coverage import printable
from rtls_analysis.schema import Demand, Prospect

if TYPE_CHECKING:
    import pandas as pd

WHAT_IS_ASKED: Mapping[Demand, str] = {
    Demand.REQUIRETLS: "REQUIRETLS: TLS, authenticated, to a server that promises the same (RFC 8689)",
    Demand.VERIFIED: "a server authenticated by DANE or by an MTA-STS policy",
    Demand.PKIX: "a certificate of a trusted CA for the MX host's name",
    Demand.TLS: "any TLS",
}
"""What each rule asks, in a phrase."""

_WIDTH = 100


def what_if_text(frame: Frame, *, shown: int = 10) -> str:
    """Write the table `what_if` for people: the totals, the worst destinations, and what has to be known."""
    frame = fetched(frame)
    if frame.empty:
        return "No mail to other hosts."
    demand = Demand(frame["rule"].iloc[0])
    totals = what_if_totals(frame)
    title = f"What if all this mail had asked for {WHAT_IS_ASKED[demand]}?"
    lines = [*textwrap.wrap(title, _WIDTH), *_period(frame), "", *_totals_lines(totals)]
    lines += ["", *_loss_lines(frame, shown)]
    for note in what_if_notes(frame, shown=shown):
        lines += ["", *textwrap.wrap(note, _WIDTH)]
    return "\n".join(lines)


def _period(frame: pd.DataFrame) -> list[str]:
    told = frame.attrs.get("what_if", {})
    days = [str(told.get(name, ""))[:10] for name in ("mail_from", "mail_to", "scanned_at")]
    parts = [f"mail of {days[0]} to {days[1]}"] if days[0] else []
    parts += [f"scan of {days[2]}"] if days[2] else []
    return [", ".join(parts)] if parts else []


def _totals_lines(totals: pd.DataFrame) -> list[str]:
    lines = [f"{'':<10} {'messages':>10} {'':>7} {'accepted today':>15} {'recipients':>11} {'domains':>9}"]
    lines += [
        f"{str(word).replace('_', ' '):<10} {row['messages']:>10,.0f} {row['share']:>7.1%} "
        f"{row['messages_delivered']:>15,.0f} {row['recipients']:>11,.0f} {row['domains']:>9,.0f}"
        for word, row in totals.iterrows()
    ]
    shares = totals["share"].to_dict()
    low = shares[Prospect.FAILS]
    high = low + shares[Prospect.UNKNOWN]
    told = f"{low:.1%} of the messages would fail"
    if high > low:
        told += f"; {high:.1%} if all that could not be told fails too"
    return [*lines, f"{told}."]


def _loss_lines(frame: pd.DataFrame, shown: int) -> list[str]:
    losses = what_if_losses(frame, rows=None)
    if losses.empty:
        return ["No destination would fail for sure."]
    lines = ["Destinations that carry most of the loss"]
    for number, row in enumerate(islice(losses.to_dict("records"), shown), start=1):
        name = _name(row["recipient_domain"])
        provider = row["provider"]
        if isinstance(provider, str) and provider != row["recipient_domain"]:
            name += f" (at {_name(provider)})"
        told = f"{row['messages']:,} messages to {row['recipients']:,} recipients"
        told += f", {row['messages_delivered']:,} of them accepted today"
        if row["messages_delivered"]:
            told += f"; {row['share']:.1%} of the loss, {row['cumulative']:.1%} so far"
        lines.append(f"{number:>3}. {name}: {told}")
        reason = f"{row['meaning'][0].upper()}{row['meaning'][1:]}. {row['advice']}"
        lines += textwrap.wrap(reason, _WIDTH, initial_indent="     ", subsequent_indent="     ")
    if len(losses) > shown:
        lines.append(f"     ... and {len(losses) - shown:,} more destinations")
    by_provider = what_if_losses(frame, by="provider", rows=None)
    shared = by_provider[(by_provider["domains"] > 1) & by_provider["provider"].notna()]
    if len(shared):
        lines += ["", "Providers that carry several of these domains"]
        lines += [
            f"  {_name(row['provider'])}: {row['domains']:,} domains, {row['messages_delivered']:,} messages: "
            f"{row['meaning']}"
            for row in islice(shared.to_dict("records"), 5)
        ]
    return lines


def what_if_notes(frame: Frame, *, shown: int = 10) -> list[str]:
    """What has to be known to read the table rightly: what was not scanned, smart hosts, what was left out."""
    frame = fetched(frame)
    return [] if frame.empty else _notes(frame, Demand(frame["rule"].iloc[0]), shown)


def _notes(frame: pd.DataFrame, demand: Demand, shown: int) -> list[str]:
    """What has to be known to read the text rightly."""
    notes = []
    if note := _not_scanned(frame, shown):
        notes.append(note)
    risky = what_if_domains(frame)
    risky = risky[risky["verdict"] == Prospect.AT_RISK]
    if len(risky):
        notes.append(
            f"At risk: of {_some(risky['recipient_domain'], shown)} only some addresses qualify; a sender tries one "
            "after the other, and the mail goes as long as one that qualifies answers."
        )
    hidden = frame[(frame["relay_is_mx"] == False).fillna(False).astype(bool)]  # noqa: E712
    if len(hidden):
        relays = hidden.groupby("relay_host")["messages"].sum().sort_values(ascending=False)
        notes.append(
            f"{int(hidden['messages'].sum()):,} messages went by relays that are no MX host of the recipient's domain "
            f"in the scan ({_some(relays.index, shown)}): a smart host, or the domain has moved since. A smart host "
            "hides the destination, so the recipient's domain was judged; the smart host itself has to qualify too, "
            "and to ask for the same on its way onward."
        )
    told = frame.attrs.get("what_if", {})
    if told.get("notices"):
        notes.append(
            f"Left out: mail with the null sender to {told['notices']:,} recipients (delivery notices). RFC 8689 does "
            "not have it stopped for want of REQUIRETLS."
        )
    if told.get("local_recipients"):
        notes.append(f"Left out: {told['local_recipients']:,} local recipients; there is no hop to judge.")
    if demand is Demand.REQUIRETLS:
        notes.append(
            "An announcement of REQUIRETLS is a promise: what the next server does with the message behind it was not "
            "seen. Only the first hop was judged, and not what your own server can do: Postfix returns all such mail "
            "unless its TLS level matches certificates."
        )
    return notes


def _not_scanned(frame: pd.DataFrame, shown: int) -> str:
    domains = what_if_domains(frame)
    missing = domains[(domains["scanned"] == False).fillna(False).astype(bool)]  # noqa: E712
    if missing.empty:
        return ""
    return (
        f"Not scanned: {len(missing):,} domains with {int(missing['messages'].sum()):,} messages "
        f"({_some(missing['recipient_domain'], shown)}). Scan them to know."
    )


def _some(names: Iterable[Any], shown: int) -> str:
    everything = list(names)
    listed = ", ".join(_name(name) for name in everything[:shown])
    return listed if len(everything) <= shown else f"{listed} and {len(everything) - shown:,} more"


def _name(name: Any) -> str:
    return printable(name, 80) if isinstance(name, str) else "(no domain)"
