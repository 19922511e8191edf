"""What a scan found, as sections of the page: who is ready, what stops the rest, and what the answer depends on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.audit import audit
from rtls_analysis.analysis.concentration import (
    leave_one_out,
    one_switches,
    provider_concentration,
    providers,
)
from rtls_analysis.analysis.deployment import mechanisms
from rtls_analysis.analysis.obstacles import WHAT_IT_MEANS, WHAT_TO_DO
from rtls_analysis.analysis.policies import sts_states
from rtls_analysis.analysis.rates import ArtefactWarning, rates
from rtls_analysis.analysis.readiness import loss_reasons, readiness_funnel, readings
from rtls_analysis.analysis.servers import certificate_verdicts
from rtls_analysis.outcomes import DomainShare, Obstacle
from rtls_analysis.plots import readiness as readiness_plots
from rtls_analysis.report.page import Block, Note, Section, Table, draw
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
LARGEST = 10  # providers


def scan_sections(snapshot: Snapshot) -> list[Section]:
    """Make the sections about a scan; what warns of a figure stands in the section of that figure."""
    parts: tuple[tuple[str, Callable[[Snapshot], list[Block]]], ...] = (
        ("What the domains can do", _abilities),
        ("How far they get", _funnel),
        ("What stops the rest", _obstacles),
        ("How much depends on the reading", _readings),
        ("Providers", _providers),
        ("Certificates and TLS", _servers),
        ("MTA-STS, and what goes together", _policies),
        ("How the scan went", _scan),
        ("The domains", _list),
    )
    sections = []
    for title, make in parts:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always", ArtefactWarning)
            blocks = make(snapshot)
        others = [item for item in found if not issubclass(item.category, ArtefactWarning)]
        for item in others:
            warnings.warn_explicit(item.message, item.category, item.filename, item.lineno)
        sections.append(Section(title, [*artefacts(item for item in found if item not in others), *blocks]))
    return sections


def headline(snapshot: Snapshot) -> str:
    """Say what the scan comes to, in a sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ArtefactWarning)
        (row,) = rates(snapshot.domains, of="requiretls_ready").to_dict("records")
    date = str(snapshot.manifest.get("started_at", ""))[:10] or "no date"
    return (
        f"Scan of {date}: {len(snapshot.domains):,} domains. {row['numerator']:,.0f} of the {row['denominator']:,.0f} "
        f"that could be judged ({percent(row['rate'])}) would take REQUIRETLS mail; {row['unknown']:,} could not be "
        "told."
    )


def _abilities(snapshot: Snapshot) -> list[Block]:
    import pandas as pd

    blocks: list[Block] = [Note(ABOUT_RATES)]
    if not snapshot.is_complete:
        state = snapshot.manifest.get("state", "unfinished")
        blocks.append(Note(f"The scan is not complete: {state}.", warning=True))
    if warning := snapshot.manifest.get("resolver", {}).get("warning", ""):
        blocks.append(Note(warning, warning=True))
    table = pd.concat([rates(snapshot.domains, of=question).set_axis([question]) for question in QUESTIONS])
    caption = "A domain counts as a yes where one of its addresses is."
    return [*blocks, rate_table(table, caption, "question", names=lambda key: QUESTIONS[key])]


def _funnel(snapshot: Snapshot) -> list[Block]:
    funnel = readiness_funnel(snapshot)
    total = int(funnel["remaining"].iloc[0])
    stages = zip(funnel["stage"], funnel["remaining"], strict=True)
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
    return [
        Note(
            "A domain gets as far as its best address. The order is that of a connection: answer, STARTTLS, "
            "handshake; then the security of the MX name, the certificate, and the keyword."
        ),
        draw(
            readiness_plots.readiness_funnel,
            funnel,
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
    ]


def _obstacles(snapshot: Snapshot) -> list[Block]:
    table = loss_reasons(snapshot)
    if table.empty:
        return [Note("There is no domain to be stopped.")]
    once, every = (_counted(table, which) for which in ("first", "all"))
    once = once.sort_values("numerator", ascending=False, kind="stable")
    rows = []
    for word, row in zip(once.index, once.to_dict("records"), strict=True):
        obstacle = Obstacle(word) if word in list(Obstacle) else Obstacle.UNKNOWN
        rows.append(
            [
                words(word) if word else "ready: nothing stops it",
                f"{row['numerator']:,} / {row['denominator']:,}",
                percent(row["rate"]),
                between(row["low"], row["high"]),
                WHAT_IT_MEANS.get(obstacle, "-"),
                WHAT_TO_DO.get(obstacle, "-"),
            ]
        )
    return [
        Table(
            "What would stop a REQUIRETLS message first, in the order in which a sender decides; domains with a mail "
            "host, each once.",
            ("obstacle", "domains / all", "share", "95% interval", "what it means", "what would do"),
            rows,
            frozenset({1, 2, 3}),
        ),
        rate_table(
            every.sort_values("numerator", ascending=False, kind="stable"),
            "All that stands against it at any address; a domain may have several obstacles.",
            "obstacle",
            names=words,
            most=20,
        ),
    ]


def _counted(table: pd.DataFrame, which: str) -> pd.DataFrame:
    """Take the rows that are counted once, or by all that applies."""
    part: pd.DataFrame = table[table.index.get_level_values("counted") == which].droplevel("counted")
    return part


def _readings(snapshot: Snapshot) -> list[Block]:
    table = readings(snapshot)
    lowest, highest = float(table["rate"].min()), float(table["rate"].max())
    span = f"between {percent(lowest)} and {percent(highest)}" if lowest < highest else percent(lowest)
    return [
        Note(
            "The RFCs leave choices. Here every verdict was computed again from the stored evidence, under one other "
            f"choice at a time: {span} of the domains are ready{'' if lowest < highest else ' under each'}."
        ),
        draw(
            readiness_plots.readiness_by_reading,
            table,
            alternative=f"A dot and an interval for each of {len(table)} readings; ready are {span}. The table below "
            "has the numbers.",
            caption="Domains ready for REQUIRETLS under each reading.",
        ),
        rate_table(table, "The same as numbers.", "reading"),
    ]


def _providers(snapshot: Snapshot) -> list[Block]:
    largest = providers(snapshot, of="requiretls_ready", largest=LARGEST)
    if largest.empty:
        return [Note("No domain has a provider.")]
    rows = [
        [
            name,
            f"{row['numerator']:,} / {row['denominator']:,}",
            percent(row["rate"]),
            between(row["low"], row["high"]),
            f"{row['having']:,} / {row['having_trials']:,}",
        ]
        for name, row in zip(largest.index, largest.to_dict("records"), strict=True)
    ]
    concentration = provider_concentration(snapshot)
    sizes = [
        [
            f"{unit}, unknown as {unknown_as}",
            f"{row['total']:,}",
            f"{row['providers']:,}",
            percent(row["cr1"]),
            percent(row["cr4"]),
            f"{row['hhi']:,.0f}",
            f"{row['gini']:.2f}",
        ]
        for (unit, unknown_as), row in zip(concentration.index, concentration.to_dict("records"), strict=True)
    ]
    without = leave_one_out(snapshot, largest=LARGEST // 2)
    switched = one_switches(snapshot, largest=LARGEST // 2)
    return [
        Note(
            "A domain inherits from its provider, so the domains of one provider are not independent: one decision "
            "may move them all."
        ),
        Table(
            "The largest providers, by the most preferred MX host of each domain.",
            ("provider", "domains / all", "share", "95% interval", "ready / tested"),
            rows,
            frozenset({1, 2, 3, 4}),
        ),
        rate_table(
            without, "Domains ready without those of one of the largest.", "without", names=_provider, folded=_FOLD[0]
        ),
        rate_table(
            switched,
            "Domains ready if one provider turned REQUIRETLS on.",
            "switches",
            names=_provider,
            folded=_FOLD[1],
        ),
        Table(
            "Concentration: how much the largest have.",
            ("counted by", "all", "providers", "largest", "largest four", "HHI", "Gini"),
            sizes,
            frozenset(range(1, 7)),
            _FOLD[2],
        ),
    ]  # fmt: skip


_FOLD = ("Leave one provider out", "One provider switches", "Concentration")


def _provider(name: Any) -> str:
    return str(name) or "none"


def _servers(snapshot: Snapshot) -> list[Block]:
    verdicts = _counted(certificate_verdicts(snapshot), "first")
    blocks: list[Block] = []
    if verdicts["denominator"].sum():
        caption = "What certificates are worth, by the first fault; of the addresses with TLS."
        blocks.append(rate_table(_found(verdicts), caption, "certificate", names=words, most=20))
    sessions = snapshot.sessions
    for values, caption, label in (
        (sessions["tls_version"].dropna(), "TLS versions, where TLS came about.", "version"),
        (sessions["key_exchange"].dropna(), "Key exchange, where TLS came about.", "group"),
        (sessions["dane"], "DANE: the chain against the TLSA records of the host.", "DANE"),
    ):
        counts = counted(values)
        if len(counts):
            blocks.append(share_table(counts, caption, label, "addresses"))
    return blocks or [Note("With no address a session came about.")]


def _found(table: pd.DataFrame) -> pd.DataFrame:
    """Take the rows of what occurred."""
    return table[table["numerator"] > 0]


def _policies(snapshot: Snapshot) -> list[Block]:
    blocks: list[Block] = []
    states = _found(sts_states(snapshot))
    if len(states):
        names = {key: f"{words(key[0])}: {words(key[1])}" for key in states.index}
        caption = (
            "MTA-STS: records of the domains asked; policies and the layer where having them failed, of the domains "
            "with a record; mode, max_age and match of the MX hosts, of the valid policies."
        )
        blocks.append(rate_table(states, caption, "aspect", names=lambda key: names[key], most=40))
    together = mechanisms(snapshot)
    if len(together):
        caption = "Which mechanisms domains have together."
        blocks.append(rate_table(together, caption, "mechanisms", names=_together(together.index.names)))
    return blocks or [Note("No domain was asked.")]


def _together(columns: Any) -> Callable[[Any], str]:
    """Name a combination by what is in it."""

    def name(key: Any) -> str:
        present = [words(column) for column, has in zip(columns, key, strict=True) if has]
        return " + ".join(present) or "none of them"

    return name


def _scan(snapshot: Snapshot) -> list[Block]:
    blocks: list[Block] = []
    counts = counted(snapshot.sessions["outcome"])
    if len(counts):
        caption = "How sessions ended. A limit, a block or a time-out is never counted as a no."
        blocks.append(share_table(counts, caption, "outcome", "addresses"))
    breaches = audit(snapshot)
    count = len(snapshot.table("attempts", columns=["address"]))
    if len(breaches):
        blocks.append(
            Note(f"{len(breaches):,} times a limit of the scan's manners was broken.", warning=True)
        )
    else:
        blocks.append(Note(f"{count:,} connections were made, all within the manners of the scan."))
    rules = {
        name: " and ".join(value) if isinstance(value, list) else value
        for name, value in snapshot.manifest.get("rules", {}).items()
    }
    if rules:
        told = ", ".join(f"{words(name)} {value}" for name, value in rules.items())
        blocks.append(Note(f"Rules that decided: {told}."))
    return blocks


_READY = {
    DomainShare.ALL: "yes",
    DomainShare.SOME: "at some addresses",
    DomainShare.NONE: "no",
    DomainShare.UNKNOWN: "could not be told",
    DomainShare.NOT_TESTED: "not tested",
    DomainShare.NOT_APPLICABLE: "takes no mail",
}


def _list(snapshot: Snapshot) -> list[Block]:
    domains = snapshot.domains.head(LISTED)
    rows = []
    for name, share, word in zip(
        domains["domain"], domains["requiretls_ready"], domains["obstacle"], strict=True
    ):
        obstacle = Obstacle(word) if isinstance(word, str) else Obstacle.UNKNOWN
        ready = _READY[DomainShare(share)] if isinstance(share, str) else "not judged"
        rows.append([name, ready, WHAT_IT_MEANS.get(obstacle, "-")])
    more = f" The first {LISTED:,} of {len(snapshot.domains):,}." if len(snapshot.domains) > LISTED else ""
    return [
        Table(
            f"Each domain, whether it is ready for REQUIRETLS, and what stops it first.{more}",
            ("domain", "ready", "obstacle"),
            rows,
            folded=f"Show {len(rows):,} domains",
        )
    ]
