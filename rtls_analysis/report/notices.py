"""What others tell of mail, as sections of the page: bounces, TLS reports and Received fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtls_analysis.analysis.failures import failure_rates, failure_reasons
from rtls_analysis.frames import Frame, collected
from rtls_analysis.outcomes import TlsOutcome, Told
from rtls_analysis.report.page import Note, Section, Table
from rtls_analysis.report.tables import counted, example_table, last_word, period_of, rate_table, share_table
from rtls_analysis.schema import BOUNCES, HOPS, TLS_REPORTS, conform, rows_of

if TYPE_CHECKING:
    pass

SHOWN = 12  # hops that disprove


def bounce_section(bounces: Frame) -> Section:
    """Make the section about bounces."""
    notices = conform(collected(bounces), BOUNCES)
    section = Section("What came back")
    if notices.empty:
        section.add(Note("No notice with a recipient."))
        return section
    when = period_of(notices["reported_at"])
    section.add(
        Note(
            f"{len(notices):,} recipients in notices{f' of {when}' if when else ''}. Notices tell of what failed, "
            "not of what went."
        ),
        share_table(
            counted(notices["action"]), "What the notices say became of the mail.", "action", "recipients"
        ),
    )
    reasons = failure_reasons(notices)
    if len(reasons):
        caption = "Why, of those that failed or were put off."
        section.add(rate_table(reasons, caption, "reason", names=last_word, most=20))
    caption = "Whether the mail had asked for REQUIRETLS, as the notice tells."
    section.add(share_table(counted(notices["requiretls_requested"]), caption, "asked", "recipients"))
    about_tls = notices[~notices["tls_outcome"].isin([TlsOutcome.NOT_TLS, TlsOutcome.OK])]
    caption = "What they say about TLS, an example of each."
    section.add(example_table(about_tls, "tls_outcome", "diagnostic", "final_recipient", caption))
    return section


def tls_report_section(reports: Frame) -> Section:
    """Make the section about TLS reports."""
    rows = conform(collected(reports), TLS_REPORTS)
    section = Section("What others report (TLSRPT)")
    if rows.empty:
        section.add(Note("No report."))
        return section
    when = period_of(rows["begins_at"])
    names = rows["organization"].dropna().nunique()
    section.add(
        Note(
            f"Reports of {names:,} {'organisation' if names == 1 else 'organisations'}{f', {when}' if when else ''}. "
            "They count sessions, not messages."
        ),
        rate_table(
            failure_rates(rows, by="destination"), "Sessions that failed, by policy domain.", "policy domain"
        ),
        rate_table(failure_rates(rows, by="reporter"), "The same by who reports.", "organisation"),
    )
    reasons = failure_reasons(rows)
    if len(reasons):
        section.add(rate_table(reasons, "Why sessions failed.", "reason", names=last_word, most=20))
    return section


def hop_section(hops: Frame) -> Section:
    """Make the section about Received fields."""
    rows = conform(collected(hops), HOPS)
    section = Section("What the Received fields show")
    between_hosts = rows[~rows["inside_host"].fillna(False).astype(bool)]
    if between_hosts.empty:
        section.add(Note("No hop between hosts."))
        return section
    messages = between_hosts["source_file"].nunique()
    told = between_hosts["could_be_requiretls"].astype(object)
    verdicts = told.map({str(Told.NO): "could not have been REQUIRETLS"}).fillna("cannot be told")
    section.add(
        Note(
            f"{len(between_hosts):,} hops of {messages:,} {'message' if messages == 1 else 'messages'}. A Received "
            "field can disprove REQUIRETLS, never prove it: it does not tell whether the server was verified."
        ),
        share_table(counted(between_hosts["tls_state"]), "What the hops tell of TLS.", "TLS", "hops"),
        share_table(counted(verdicts), "What they tell of REQUIRETLS.", "REQUIRETLS", "hops"),
    )
    disproved = between_hosts[between_hosts["could_be_requiretls"] == Told.NO]
    if len(disproved):
        shown = [
            [row["message_id"] or "-", f"{row['hop']}", row["by_host"] or "-", row["detail"] or "-"]
            for row in rows_of(HOPS, disproved.head(SHOWN))
        ]
        caption = "The first hops that could not have been REQUIRETLS, with the reason."
        section.add(Table(caption, ("message", "hop", "by", "why"), shown, frozenset({1})))
    return section
