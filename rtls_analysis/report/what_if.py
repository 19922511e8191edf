"""What would become of own mail if it asked for more, as a section of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtls_analysis.analysis.intervals import wilson
from rtls_analysis.analysis.what_if import what_if_losses, what_if_totals
from rtls_analysis.analysis.what_if_text import WHAT_IS_ASKED, what_if_notes
from rtls_analysis.plots import what_if as plots
from rtls_analysis.report.page import Figure, Note, Section, Table, draw
from rtls_analysis.report.tables import between, percent, words
from rtls_analysis.schema import WHAT_IF, Demand, Prospect, conform

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 20

_MEANINGS = {
    Prospect.DELIVERED: "it would go: every address qualifies",
    Prospect.AT_RISK: "it would go as long as one of the addresses that qualify answers",
    Prospect.FAILS: "it would come back",
    Prospect.UNKNOWN: "not scanned, or it could not be told",
}


def what_if_headline(frame: pd.DataFrame) -> str:
    """Say what would become of the mail, in a sentence."""
    if frame.empty:
        return "What if: no mail to other hosts."
    totals = what_if_totals(frame)["messages"]
    whole = int(totals.sum())
    fails, unknown = int(totals[Prospect.FAILS]), int(totals[Prospect.UNKNOWN])
    return (
        f"What if all this mail had asked for {WHAT_IS_ASKED[Demand(frame['rule'].iloc[0])]}? Of {whole:,} messages "
        f"{fails:,} ({percent(fails / whole)}) would fail; {unknown:,} could not be told."
    )


def what_if_section(frame: pd.DataFrame) -> Section:
    """Make the section about own mail, for one rule."""
    table = conform(frame, WHAT_IF)
    section = Section("What if own mail asked for more")
    if table.empty:
        section.add(Note("No mail to other hosts."))
        return section
    section.add(
        Note(what_if_headline(table)), _figure(table), _totals(table), _losses(table, "recipient_domain")
    )
    section.add(
        _losses(table, "provider"),
        *(Note(words) for words in what_if_notes(table, shown=SHOWN)),
    )
    return section


def _figure(table: pd.DataFrame) -> Figure:
    totals = what_if_totals(table)
    told = ", ".join(f"{words(str(word))} {row['share']:.0%}" for word, row in totals.iterrows())
    return draw(
        plots.what_if_totals,
        table,
        alternative=f"Three bars, for messages, recipients and domains, in parts by prospect; of the messages {told}. "
        "The table below has the numbers.",
        caption="What would become of own mail, by messages, recipients and domains.",
        height=2.6,
    )


def _totals(table: pd.DataFrame) -> Table:
    totals = what_if_totals(table)
    whole = int(totals["messages"].sum())
    rows = []
    for word, row in totals.iterrows():
        messages = int(row["messages"])
        low, high = wilson(messages, whole)
        rows.append(
            [
                words(str(word)),
                f"{messages:,} / {whole:,}",
                percent(messages / whole if whole else float("nan")),
                between(float(low), float(high)),
                f"{row['messages_delivered']:,.0f}",
                f"{row['recipients']:,.0f}",
                f"{row['domains']:,.0f}",
                _MEANINGS[Prospect(str(word))],
            ]
        )
    columns = (
        "prospect",
        "messages / all",
        "share",
        "95% interval",
        "accepted today",
        "recipients",
        "domains",
        "meaning",
    )
    return Table("Own mail by what would become of it.", columns, rows, frozenset(range(1, 7)))


def _losses(table: pd.DataFrame, by: str) -> Table | None:
    losses = what_if_losses(table, by=by, rows=None)
    if by == "provider":
        losses = losses[losses["domains"] > 1]
    if losses.empty:
        return None
    rows = [
        [
            row[by] if isinstance(row[by], str) else "(none)",
            f"{row['messages']:,}",
            f"{row['messages_delivered']:,}",
            percent(row["share"]),
            percent(row["cumulative"]),
            row["meaning"],
            row["advice"],
        ]
        for row in losses.head(SHOWN).to_dict("records")
    ]
    more = f" The first {SHOWN} of {len(losses):,}." if len(losses) > SHOWN else ""
    whose = {"recipient_domain": "recipient domain", "provider": "provider"}[by]
    caption = {
        "recipient_domain": "The destinations that carry most of the loss, and what each would have to change.",
        "provider": "Providers that carry several of these domains.",
    }[by]
    columns = (whose, "messages", "accepted today", "of the loss", "so far", "what stops it", "what would do")
    return Table(caption + more, columns, rows, frozenset({1, 2, 3, 4}))
