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
    from rtls_analysis.analysis.snapshots import compare
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
    from rtls_analysis.scanner.campaign import ScanInterrupted, scan, scan_async
    from rtls_analysis.scanner.contacts import ScanStopped
    from rtls_analysis.scanner.options import ScanProblem, configure
    from rtls_analysis.scanner.resolver import ResolverProblem
    from rtls_analysis.scanner.targets import ListProblem
    from rtls_analysis.store import Snapshot, StoreProblem, open_snapshot
    from rtls_analysis.verdicts import judge

__version__ = "0.1.0"

_HOMES = {
    "DomainPage": "rtls_analysis.pages",
    "ListProblem": "rtls_analysis.scanner.targets",
    "ResolverProblem": "rtls_analysis.scanner.resolver",
    "ScanInterrupted": "rtls_analysis.scanner.campaign",
    "ScanProblem": "rtls_analysis.scanner.options",
    "ScanStopped": "rtls_analysis.scanner.contacts",
    "Snapshot": "rtls_analysis.store",
    "StoreProblem": "rtls_analysis.store",
    "TracePage": "rtls_analysis.read.trace",
    "audit": "rtls_analysis.analysis.audit",
    "compare": "rtls_analysis.analysis.snapshots",
    "configure": "rtls_analysis.scanner.options",
    "iter_dsns": "rtls_analysis.read.dsn",
    "iter_logs": "rtls_analysis.read.logs",
    "iter_received": "rtls_analysis.read.received",
    "judge": "rtls_analysis.verdicts",
    "open_snapshot": "rtls_analysis.store",
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
    "read_tls_reports": "rtls_analysis.read.tls_reports",
    "read_trace": "rtls_analysis.read.trace",
    "scan": "rtls_analysis.scanner.campaign",
    "scan_async": "rtls_analysis.scanner.campaign",
    "scan_domain": "rtls_analysis.pages",
    "start_lab": "rtls_analysis.lab",
    "write_dsns": "rtls_analysis.read.dsn",
    "write_logs": "rtls_analysis.read.logs",
}
_ROOMS = ("outcomes", "plots", "schema")

__all__ = [
    "DomainPage",
    "ListProblem",
    "ResolverProblem",
    "ScanInterrupted",
    "ScanProblem",
    "ScanStopped",
    "Snapshot",
    "StoreProblem",
    "TracePage",
    "audit",
    "compare",
    "configure",
    "iter_dsns",
    "iter_logs",
    "iter_received",
    "judge",
    "open_snapshot",
    "outcomes",
    "plots",
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
    "read_tls_reports",
    "read_trace",
    "scan",
    "scan_async",
    "scan_domain",
    "schema",
    "start_lab",
    "write_dsns",
    "write_logs",
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
