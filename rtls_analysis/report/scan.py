"""What a scan found, as sections of the page: who is ready, what stops the rest, and what the answer depends on."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.audit import audit
from rtls_analysis.analysis.obstacles import WHAT_IT_MEANS, WHAT_TO_DO
from rtls_analysis.analysis.rates import ArtefactWarning, rates
from rtls_analysis.analysis.readiness import readiness_funnel
from rtls_analysis.outcomes import DomainShare, Obstacle
from rtls_analysis.plots.readiness import readiness_funnel as plot_funnel
from rtls_analysis.report.page import Note, Section, Table, draw
from rtls_analysis.report.tables import (
    ABOUT_RATES,
    artefacts,
    between,
    counted,
    percent,
    rate_table,
    share_table,
    words,
)
from rtls_analysis.store import Snapshot
from rtls_analysis.verdicts import judge

if TYPE_CHECKING:
    import pandas as pd

QUESTIONS = {
    "starttls": "STARTTLS works",
    "pkix": "certificate valid for the MX host",
    "dane": "authenticated by DANE",
    "requiretls_offered": "REQUIRETLS announced",
    "requiretls_ready": "ready for REQUIRETLS",
    "requiretls_ready_testing": "ready, MTA-STS mode testing counted too",
}
LISTED = 500  # domains, at most, in the list of all

READINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("as scanned", {}),
    ("MTA-STS mode testing secures names too", {"sts_modes": ["enforce", "testing"]}),
    ("the certificate must name the host, with DANE as well", {"name_rule": "literal"}),
    ("TLS 1.3 or nothing", {"minimum_tls": "TLSv1.3"}),
)


def scan_sections(snapshot: Snapshot) -> list[Section]:
    """Make the sections about a scan."""
    return [
        _abilities(snapshot),
        _readiness(snapshot),
        _obstacles(snapshot),
        _readings(snapshot),
        _providers(snapshot),
        _mechanisms(snapshot),
        _sessions(snapshot),
        _list(snapshot),
    ]


def headline(snapshot: Snapshot) -> str:
    """Say what the scan comes to, in a sentence."""
    table = _questions(snapshot.domains)
    row = table.to_dict("records")[list(QUESTIONS).index("requiretls_ready")]
    date = str(snapshot.manifest.get("started_at", ""))[:10] or "no date"
    return (
        f"Scan of {date}: {len(snapshot.domains):,} domains. {row['numerator']:,.0f} of the {row['denominator']:,.0f} "
        f"that could be judged ({percent(row['rate'])}) would take REQUIRETLS mail; {row['unknown']:,} could not be "
        "told."
    )


def _questions(domains: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ArtefactWarning)
        tables = [rates(domains, of=question).set_axis([question]) for question in QUESTIONS]
    return pd.concat(tables)


def _abilities(snapshot: Snapshot) -> Section:
    section = Section("What the domains can do", [Note(ABOUT_RATES)])
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", ArtefactWarning)
        for question in QUESTIONS:
            rates(snapshot.domains, of=question)
    section.add(*artefacts(found))
    if not snapshot.is_complete:
        section.add(
            Note(f"The scan is not complete: {snapshot.manifest.get('state', 'unfinished')}.", warning=True)
        )
    if warning := snapshot.manifest.get("resolver", {}).get("warning", ""):
        section.add(Note(warning, warning=True))
    table = _questions(snapshot.domains)
    section.add(
        rate_table(
            table,
            "A domain counts as a yes where one of its addresses is.",
            "question",
            names=lambda key: QUESTIONS[key],
        )
    )
    return section


def _readiness(snapshot: Snapshot) -> Section:
    funnel = readiness_funnel(snapshot)
    total = int(funnel["remaining"].iloc[0])
    stages = [
        (str(stage), int(left)) for stage, left in zip(funnel["stage"], funnel["remaining"], strict=True)
    ]
    told = ", ".join(f"{stage} {left:,}" for stage, left in stages)
    rows = []
    for row in funnel.to_dict("records"):
        lost = ", ".join(f"{words(name)} {row[name]:,}" for name in funnel.attrs["reasons"] if row[name])
        rows.append(
            [
                row["stage"],
                f"{row['remaining']:,} / {total:,}",
                percent(row["share"]),
                between(row["low"], row["high"]),
                f"{row['lost']:,}",
                lost or "-",
            ]
        )
    return Section(
        "How far they get",
        [
            Note(
                "A domain gets as far as its best address. The order is that of a connection: answer, STARTTLS, "
                "handshake; then the security of the MX name, the certificate, and the keyword."
            ),
            draw(
                plot_funnel,
                snapshot,
                alternative=f"Bars that grow shorter, of {total:,} domains: {told}. The table below has the losses.",
                caption=f"Domains that get so far on the way to REQUIRETLS, n = {total:,}; what stopped the others.",
                height=4.4,
            ),
            Table(
                "The same as numbers: domains that passed each stage, and the first obstacle of those that did not.",
                ("stage", "passed / all", "share", "95% interval", "lost", "stopped by"),
                rows,
                frozenset({1, 2, 3, 4}),
            ),
        ],
    )


def _obstacles(snapshot: Snapshot) -> Section:
    domains = snapshot.domains
    counts = counted(domains["obstacle"][domains["obstacle"] != ""])
    if counts.empty:
        return Section("What stops the rest", [Note("Nothing stops any domain.")])
    meaning = {str(obstacle): text for obstacle, text in WHAT_IT_MEANS.items()}
    advice = {str(obstacle): text for obstacle, text in WHAT_TO_DO.items()}
    return Section(
        "What stops the rest",
        [
            share_table(
                counts,
                "What would stop a REQUIRETLS message first, in the order in which a sender decides.",
                "obstacle",
                "domains",
                more=(("what it means", meaning), ("what would do", advice)),
            )
        ],
    )


def _readings(snapshot: Snapshot) -> Section:
    import pandas as pd

    names, tables = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ArtefactWarning)
        for name, options in READINGS:
            judged = judge(snapshot, **options) if options else snapshot
            names.append(name)
            tables.append(rates(judged.domains, of="requiretls_ready"))
    table = pd.concat(tables).set_axis(names)
    table.attrs = tables[0].attrs
    return Section(
        "How much depends on the reading",
        [
            Note(
                "The RFC leaves choices. Here every verdict was computed again from the stored evidence under others, "
                "one at a time."
            ),
            rate_table(table, "Domains ready for REQUIRETLS under each reading.", "reading"),
        ],
    )


def _providers(snapshot: Snapshot) -> Section:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ArtefactWarning)
        table = rates(snapshot.domains, by="provider", of="requiretls_ready")
        verified = rates(snapshot.domains, by="provider", of="pkix")
    return Section(
        "By provider",
        [
            Note(
                "A domain inherits from its provider: the domains of one provider are not independent of each other."
            ),
            rate_table(
                table, "Domains ready for REQUIRETLS, by the provider of their first MX host.", "provider"
            ),
            rate_table(
                verified,
                "Domains with a valid certificate, by provider.",
                "provider",
                folded="Valid certificates by provider",
            ),
        ],
    )


def _mechanisms(snapshot: Snapshot) -> Section:
    domains, sessions = snapshot.domains, snapshot.sessions
    section = Section("Certificates, TLS and policies")
    policies = domains["sts_policy"][domains["sts_record"] == "valid"]
    for values, caption, label, unit in (
        (
            sessions["pkix"],
            "Verdicts on certificates, where TLS came about or not.",
            "certificate",
            "addresses",
        ),
        (sessions["tls_version"].dropna(), "TLS versions, where TLS came about.", "version", "addresses"),
        (sessions["key_exchange"].dropna(), "Key exchange, where TLS came about.", "group", "addresses"),
        (sessions["dane"], "DANE verdicts, whoever's MX the host is.", "DANE", "addresses"),
        (domains["sts_record"], "MTA-STS records.", "record", "domains"),
        (policies, "MTA-STS policies, where there is a record.", "policy", "domains"),
        (domains["sts_mode"].dropna(), "Modes of the policies that are valid.", "mode", "domains"),
        (domains["tlsrpt"], "TLSRPT records.", "record", "domains"),
    ):
        counts = counted(values)
        if len(counts):
            section.add(share_table(counts, caption, label, unit))
    return section


def _sessions(snapshot: Snapshot) -> Section:
    section = Section("How the scan went")
    counts = counted(snapshot.sessions["outcome"])
    if len(counts):
        section.add(
            share_table(
                counts,
                "How sessions ended. A limit, a block or a time-out is never counted as a no.",
                "outcome",
                "addresses",
            )
        )
    breaches = audit(snapshot)
    count = len(snapshot.table("attempts", columns=["address"]))
    if len(breaches):
        section.add(Note(f"{len(breaches):,} times a limit of the scan's manners was broken.", warning=True))
    else:
        section.add(Note(f"{count:,} connections were made, all within the manners of the scan."))
    rules = snapshot.manifest.get("rules", {})
    told = ", ".join(f"{words(name)} {value if not isinstance(value, list) else ' and '.join(value)}"
                     for name, value in rules.items())  # fmt: skip
    section.add(Note(f"Rules that decided: {told}.") if told else None)
    return section


def _list(snapshot: Snapshot) -> Section:
    domains = snapshot.domains.head(LISTED)
    answers = {
        DomainShare.ALL: "yes",
        DomainShare.SOME: "at some addresses",
        DomainShare.NONE: "no",
        DomainShare.UNKNOWN: "could not be told",
        DomainShare.NOT_TESTED: "not tested",
        DomainShare.NOT_APPLICABLE: "takes no mail",
    }
    rows = []
    for name, share, word in zip(
        domains["domain"], domains["requiretls_ready"], domains["obstacle"], strict=True
    ):
        obstacle = Obstacle(word) if isinstance(word, str) else Obstacle.UNKNOWN
        ready = answers[DomainShare(share)] if isinstance(share, str) else "not judged"
        rows.append([name, ready, WHAT_IT_MEANS.get(obstacle, "-")])
    more = f" The first {LISTED:,} of {len(snapshot.domains):,}." if len(snapshot.domains) > LISTED else ""
    table = Table(
        f"Each domain, whether it is ready for REQUIRETLS, and what stops it first.{more}",
        ("domain", "ready", "obstacle"),
        rows,
        folded=f"Show {len(rows):,} domains",
    )
    return Section("The domains", [table])
