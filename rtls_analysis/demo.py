"""The whole way, offline: a lab is scanned, logs, bounces and reports are read, and what came out becomes pages.

What it shows it prints as the commands would; the tables and pages stay in a folder, to look into.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rtls_analysis.analysis.experiment import promises
from rtls_analysis.analysis.follow import follow
from rtls_analysis.analysis.what_if import what_if
from rtls_analysis.analysis.what_if_text import what_if_text
from rtls_analysis.outcomes import Told
from rtls_analysis.read.dsn import read_dsns
from rtls_analysis.read.logs import read_connections, read_logs
from rtls_analysis.read.received import read_received
from rtls_analysis.read.tls_reports import read_tls_reports
from rtls_analysis.read.trace import TracePage
from rtls_analysis.report import write_report
from rtls_analysis.samples import LOG_YEAR, SAMPLES, load_sample, log_files
from rtls_analysis.scanner.campaign import scan
from rtls_analysis.store import Snapshot, open_snapshot
from rtls_analysis.table_files import write_table

if TYPE_CHECKING:
    import pandas as pd

MESSAGES = 3000  # of the lab's week of mail


class Lab(Protocol):
    """What the demo needs of a running lab (`rtls.start_lab`)."""

    domains: list[str]
    scan_options: dict[str, Any]

    def write_mail_log(self, path: Path, *, messages: int = ...) -> None:
        """Write a log of mail to its domains."""


def run_demo(lab: Lab, out: Path, *, say: Callable[[str], None] = print) -> tuple[Path, Path]:
    """Show the whole way on a lab and on the samples, and leave tables and pages.

    Parameters
    ----------
    lab
        A running lab.
    out
        Folder for the results, made if need be. A scan that is there already stays; everything else is written anew.
    say
        Takes what is told on the way, a paragraph at a time.

    Returns
    -------
    tuple
        The two pages: of the lab, and of real mail.
    """
    out.mkdir(parents=True, exist_ok=True)
    snapshot = _scan(lab, out, say)
    lab_page = _own_mail(lab, snapshot, out, say)
    mail_page = _real_mail(out, say)
    say(
        f"The pages, for a browser:\n  {lab_page}   the lab: who is ready, what stops the rest, own mail\n"
        f"  {mail_page}   real servers: what became of mail that asked for REQUIRETLS\n"
        f"The tables lie beside them: rtls show {out / 'deliveries.parquet'}"
    )
    return lab_page, mail_page


def _scan(lab: Lab, out: Path, say: Callable[[str], None]) -> Snapshot:
    folder, number = out / "scan", 1
    while folder.exists():  # an earlier demo's scan is not resumed: its lab is gone
        number += 1
        folder = out / f"scan-{number}"
    say(f"1. A lab of {len(lab.domains):,} domains runs on loopback. Scanning it ...")
    snapshot = scan(lab.domains, folder, **lab.scan_options)
    say(
        f"{snapshot}\n\nStored in {folder}. One domain, close up: rtls show {folder} --domain {_worth_a_look(snapshot)}"
    )
    return snapshot


def _worth_a_look(snapshot: Snapshot) -> str:
    """Pick a domain whose page has something to tell: ready, or else any."""
    domains = snapshot.domains
    ready = domains[domains["requiretls_ready"].isin(["all", "some"])]
    return str((ready if len(ready) else domains)["domain"].iloc[0])


def _own_mail(lab: Lab, snapshot: Snapshot, out: Path, say: Callable[[str], None]) -> Path:
    log = out / "mail.log"
    lab.write_mail_log(log, messages=MESSAGES)
    say(
        f"2. A week of somebody's mail to these domains, as Postfix would log it: {log}. What if it asked for "
        "REQUIRETLS?"
    )
    deliveries = read_logs(log, timezone="UTC", year=LOG_YEAR, progress=False)
    prospects = what_if(deliveries, snapshot)
    write_table(prospects, out / "what_if.parquet")
    say(what_if_text(prospects, shown=3))
    page = out / "report.html"
    write_report(
        page,
        snapshot=snapshot,
        deliveries=deliveries,
        what_if=prospects,
        title="The lab: a scan, and own mail",
    )
    return page


def _real_mail(out: Path, say: Callable[[str], None]) -> Path:
    say(
        "3. Real logs: Postfix 3.11 sent mail that asked for REQUIRETLS to real servers of every kind, under each of "
        "its three policies."
    )
    files = log_files(SAMPLES["postfix-3.11"].location)
    options: dict[str, Any] = {"timezone": "UTC", "year": LOG_YEAR, "progress": False}
    tables: dict[str, pd.DataFrame] = {
        "deliveries": read_logs(files, **options),
        "connections": read_connections(files, **options),
        "bounces": read_dsns(SAMPLES["postfix-3.11-bounces"].location, progress=False),
        "tls_reports": read_tls_reports(SAMPLES["tls-reports"].location, progress=False),
        "hops": read_received(SAMPLES["postfix-3.11-hops"].location, progress=False),
    }
    for name, table in tables.items():
        write_table(table, out / f"{name}.parquet")
    read = ", ".join(f"{len(table):,} {name.replace('_', ' ')}" for name, table in tables.items())
    say(f"Read: {read}.\n\n{_promises(tables['deliveries'])}")
    say(f"4. One message through log, bounce, report and Received fields\n\n{_one_message(tables)}")
    say(f"5. A hop of 2019 that could not have been REQUIRETLS\n\n{_trace()}")
    page = out / "postfix-3.11.html"
    servers = open_snapshot(SAMPLES["postfix-3.11-scan"].location)
    write_report(page, snapshot=servers, title="Real servers: the Postfix 3.11 experiment", **tables)
    return page


def _promises(deliveries: pd.DataFrame) -> str:
    """How far the promise of REQUIRETLS was kept under each policy, as lines."""
    table = promises(deliveries, of="all")
    lines = ["How far the promise was kept, by sender (a message and recipient is one)"]
    for (sender, promise), row in zip(table.index, table.to_dict("records"), strict=True):
        if row["numerator"]:
            lines.append(
                f"  {sender:<26} {str(promise).replace('_', ' '):<14} {row['numerator']:>4} / {row['denominator']:<4} "
                f"{row['rate']:6.1%}  [{row['low']:.1%}, {row['high']:.1%}]"
            )
    return "\n".join(lines)


def _one_message(tables: dict[str, pd.DataFrame]) -> str:
    """Follow a message that asked for REQUIRETLS and came back."""
    bounces = tables["bounces"]
    asked = bounces[bounces["requiretls_requested"].eq(Told.YES) & bounces["action"].eq("failed")]
    message_id = asked["original_message_id"].dropna().iloc[0]
    page = follow(
        message_id,
        tables["deliveries"],
        bounces,
        tables["tls_reports"],
        tables["hops"],
        connections=tables["connections"],
    )
    return str(page)


def _trace() -> str:
    page = TracePage(load_sample("received-2019"))
    return "\n".join(textwrap.wrap(page.headline, 100))


def print_paragraph(words: str) -> None:
    """Print what is told, with an empty line behind, at once."""
    print(f"{words}\n", flush=True)
