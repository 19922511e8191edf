"""A scan and what happened to mail as one self-contained HTML page, to read, to print and to send."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator

from rtls_analysis.addresses import file_to_write
from rtls_analysis.analysis.declared import fetched
from rtls_analysis.frames import Frame
from rtls_analysis.report.logs import log_headline, log_sections
from rtls_analysis.report.notices import bounce_section, hop_section, tls_report_section
from rtls_analysis.report.page import Section, render
from rtls_analysis.report.scan import headline, scan_sections
from rtls_analysis.report.tables import coverage_tables
from rtls_analysis.report.what_if import what_if_headline, what_if_section
from rtls_analysis.store import Snapshot, one_vantage

TITLE = "Mandatory TLS in mail"


def write_report(
    path: str | os.PathLike[str],
    *,
    snapshot: Snapshot | None = None,
    deliveries: Frame | None = None,
    connections: Frame | None = None,
    bounces: Frame | None = None,
    tls_reports: Frame | None = None,
    hops: Frame | None = None,
    what_if: Frame | None = None,
    title: str = TITLE,
) -> None:
    """Write what a scan and the tables of mail come to as one HTML page.

    The page needs nothing besides itself: no network, no script. Plots are images in it, with the tables that they
    were drawn from; every rate has its numerator, its denominator and its interval.

    Parameters
    ----------
    path
        The file, which appears whole or not at all; it may be at an address.
    snapshot
        A scan.
    deliveries, connections, bounces, tls_reports, hops
        What `rtls.read_logs` and its like gave; any of them. Logs as Dask frames are counted where they lie, many
        times over; bounces, reports and Received fields are fetched.
    what_if
        What `rtls.what_if` gave. Where it is left out and there are a scan and deliveries, it is computed for the rule
        ``requiretls``.
    title
        Of the page.

    Raises
    ------
    ValueError
        There is nothing to report on.
    """
    frames = {
        "deliveries": deliveries,
        "connections": connections,
        "bounces": bounces,
        "tls_reports": tls_reports,
        "hops": hops,
    }
    given = {name: frame for name, frame in frames.items() if frame is not None}
    if snapshot is None and what_if is None and not given:
        raise ValueError(
            f"nothing to report on: give snapshot=, what_if=, {', '.join(f'{name}=' for name in frames)}"
        )
    if snapshot is not None:
        snapshot = one_vantage(snapshot)
    if what_if is None and snapshot is not None and deliveries is not None:
        from rtls_analysis.analysis.what_if import what_if as judge_mail

        what_if = judge_mail(deliveries, snapshot)
    if what_if is not None:
        what_if = fetched(what_if)
    lead: list[str] = []
    sections: list[Section] = []
    if snapshot is not None:
        lead.append(headline(snapshot))
    if deliveries is not None:
        lead.append(log_headline(deliveries))
    if what_if is not None:
        lead.append(what_if_headline(what_if))
        sections.append(what_if_section(what_if))
    if snapshot is not None:
        sections += scan_sections(snapshot)
    sections += _mail_sections(given)
    page = render(title, lead, sections, [_ending(snapshot)])
    with file_to_write(path) as (hidden, folder, name):
        hidden.write_text(page, encoding="utf-8")
        folder.put(name, hidden)


def _mail_sections(given: dict[str, Frame]) -> Iterator[Section]:
    if (deliveries := given.get("deliveries")) is not None:
        yield from log_sections(deliveries, given.get("connections"))
    for name, make in (
        ("bounces", bounce_section),
        ("tls_reports", tls_report_section),
        ("hops", hop_section),
    ):
        if (frame := given.get(name)) is not None:
            yield make(frame)
    if read := coverage_tables(given):
        yield Section("What was read", [*read])


def _ending(snapshot: Snapshot | None) -> str:
    """Say when and by what the page was made."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        made_by = f"rtls_analysis {version('rtls_analysis')}"
    except PackageNotFoundError:
        made_by = "rtls_analysis"
    words = f"Made by {made_by} on {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC."
    if snapshot is not None:
        scanned_by = snapshot.manifest.get("versions", {}).get("rtls_analysis", "unknown")
        words += f" The scan was made by version {scanned_by}."
    return words
