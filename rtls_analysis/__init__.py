"""Measure mandatory TLS in mail: who could receive REQUIRETLS mail, and what stops the rest (RFC 8689).

>>> import rtls_analysis as rtls
>>> "scan" in dir(rtls)
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtls_analysis.analysis.audit import audit
    from rtls_analysis.analysis.cohorts import cohorts
    from rtls_analysis.analysis.concentration import concentration
    from rtls_analysis.analysis.deployment import deployment
    from rtls_analysis.analysis.follow import follow
    from rtls_analysis.analysis.message_page import MessagePage
    from rtls_analysis.analysis.postfix_policy import postfix_policy
    from rtls_analysis.analysis.rates import ArtefactWarning, rates
    from rtls_analysis.analysis.snapshots import compare
    from rtls_analysis.analysis.what_if import what_if
    from rtls_analysis.analysis.what_if_text import what_if_text
    from rtls_analysis.frames import ClusterProblem
    from rtls_analysis.lab import start_lab
    from rtls_analysis.pages import DomainPage, scan_domain
    from rtls_analysis.read.dsn import iter_dsns, read_dsns, write_dsns
    from rtls_analysis.read.logs import (
        iter_logs,
        read_connections,
        read_exchange,
        read_exim,
        read_haraka,
        read_logs,
        read_maddy,
        read_mox,
        read_opensmtpd,
        read_postfix,
        read_qmail,
        read_sendmail,
        read_stalwart,
        write_logs,
    )
    from rtls_analysis.read.received import iter_received, read_received
    from rtls_analysis.read.tls_reports import read_tls_reports
    from rtls_analysis.read.trace import TracePage, read_trace
    from rtls_analysis.report import write_report
    from rtls_analysis.samples import load_sample
    from rtls_analysis.scanner.campaign import ScanInterrupted, scan, scan_async
    from rtls_analysis.scanner.contacts import ScanStopped
    from rtls_analysis.scanner.options import ScanProblem, configure
    from rtls_analysis.scanner.resolver import ResolverProblem
    from rtls_analysis.scanner.targets import ListProblem
    from rtls_analysis.store import Snapshot, StoreProblem, open_snapshot
    from rtls_analysis.table_files import read_table, write_table
    from rtls_analysis.verdicts import judge

__version__ = "0.1.0"

_HOMES = {
    "ArtefactWarning": "rtls_analysis.analysis.rates",
    "ClusterProblem": "rtls_analysis.frames",
    "DomainPage": "rtls_analysis.pages",
    "ListProblem": "rtls_analysis.scanner.targets",
    "MessagePage": "rtls_analysis.analysis.message_page",
    "ResolverProblem": "rtls_analysis.scanner.resolver",
    "ScanInterrupted": "rtls_analysis.scanner.campaign",
    "ScanProblem": "rtls_analysis.scanner.options",
    "ScanStopped": "rtls_analysis.scanner.contacts",
    "Snapshot": "rtls_analysis.store",
    "StoreProblem": "rtls_analysis.store",
    "TracePage": "rtls_analysis.read.trace",
    "audit": "rtls_analysis.analysis.audit",
    "cohorts": "rtls_analysis.analysis.cohorts",
    "compare": "rtls_analysis.analysis.snapshots",
    "concentration": "rtls_analysis.analysis.concentration",
    "configure": "rtls_analysis.scanner.options",
    "deployment": "rtls_analysis.analysis.deployment",
    "follow": "rtls_analysis.analysis.follow",
    "iter_dsns": "rtls_analysis.read.dsn",
    "iter_logs": "rtls_analysis.read.logs",
    "iter_received": "rtls_analysis.read.received",
    "judge": "rtls_analysis.verdicts",
    "load_sample": "rtls_analysis.samples",
    "open_snapshot": "rtls_analysis.store",
    "postfix_policy": "rtls_analysis.analysis.postfix_policy",
    "rates": "rtls_analysis.analysis.rates",
    "read_connections": "rtls_analysis.read.logs",
    "read_dsns": "rtls_analysis.read.dsn",
    "read_exchange": "rtls_analysis.read.logs",
    "read_exim": "rtls_analysis.read.logs",
    "read_haraka": "rtls_analysis.read.logs",
    "read_logs": "rtls_analysis.read.logs",
    "read_maddy": "rtls_analysis.read.logs",
    "read_mox": "rtls_analysis.read.logs",
    "read_opensmtpd": "rtls_analysis.read.logs",
    "read_postfix": "rtls_analysis.read.logs",
    "read_qmail": "rtls_analysis.read.logs",
    "read_received": "rtls_analysis.read.received",
    "read_sendmail": "rtls_analysis.read.logs",
    "read_stalwart": "rtls_analysis.read.logs",
    "read_table": "rtls_analysis.table_files",
    "read_tls_reports": "rtls_analysis.read.tls_reports",
    "read_trace": "rtls_analysis.read.trace",
    "scan": "rtls_analysis.scanner.campaign",
    "scan_async": "rtls_analysis.scanner.campaign",
    "scan_domain": "rtls_analysis.pages",
    "start_lab": "rtls_analysis.lab",
    "what_if": "rtls_analysis.analysis.what_if",
    "what_if_text": "rtls_analysis.analysis.what_if_text",
    "write_dsns": "rtls_analysis.read.dsn",
    "write_logs": "rtls_analysis.read.logs",
    "write_report": "rtls_analysis.report",
    "write_table": "rtls_analysis.table_files",
}
_ROOMS = ("analysis", "outcomes", "plots", "schema")

__all__ = [
    "ArtefactWarning",
    "ClusterProblem",
    "DomainPage",
    "ListProblem",
    "MessagePage",
    "ResolverProblem",
    "ScanInterrupted",
    "ScanProblem",
    "ScanStopped",
    "Snapshot",
    "StoreProblem",
    "TracePage",
    "analysis",
    "audit",
    "cohorts",
    "compare",
    "concentration",
    "configure",
    "deployment",
    "follow",
    "iter_dsns",
    "iter_logs",
    "iter_received",
    "judge",
    "load_sample",
    "open_snapshot",
    "outcomes",
    "plots",
    "postfix_policy",
    "rates",
    "read_connections",
    "read_dsns",
    "read_exchange",
    "read_exim",
    "read_haraka",
    "read_logs",
    "read_maddy",
    "read_mox",
    "read_opensmtpd",
    "read_postfix",
    "read_qmail",
    "read_received",
    "read_sendmail",
    "read_stalwart",
    "read_table",
    "read_tls_reports",
    "read_trace",
    "scan",
    "scan_async",
    "scan_domain",
    "schema",
    "start_lab",
    "what_if",
    "what_if_text",
    "write_dsns",
    "write_logs",
    "write_report",
    "write_table",
]


def __getattr__(name: str) -> Any:
    """Import a public name's home when it is first asked for: `import rtls_analysis` stays instant."""
    if home := _HOMES.get(name):
        value = getattr(import_module(home), name)
    elif name in _ROOMS:
        value = import_module(f"rtls_analysis.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
