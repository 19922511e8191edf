"""The plan of a million domains on half a million (MX host, address) pairs, their DNS answers at hand.

    python tests/benchmarks/plan.py [--domains 1000000] [--hosts 500000]

The answers are written to a snapshot as a scan would; a process of its own then reads them back, plans, sums up,
and splits the work for two workers.
"""

from __future__ import annotations

import argparse
import datetime as dt
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rtls_analysis.scanner.addresses import families
from rtls_analysis.scanner.engine import Engine
from rtls_analysis.scanner.options import make_options
from rtls_analysis.scanner.resolver import Resolver
from rtls_analysis.scanner.shares import split
from rtls_analysis.standards.certificates import Roots
from rtls_analysis.store import LOOKUPS, SnapshotWriter

MANIFEST = {"scan": {"domains": 0}}


def write(folder: Path, domains: int, hosts: int) -> None:
    """Write the answers: a few large providers, and many small ones with hosts of their own."""
    random_ = random.Random(1)
    writer = SnapshotWriter(folder, MANIFEST, b"")
    now = dt.datetime.now(dt.UTC)
    for number in range(hosts):
        provider = f"provider{random_.randrange(200)}.example" if number % 2 else f"d{number}.example"
        address = f"{20 + number % 150}.{number // 150 % 256}.{number // 38400 % 256}.{number % 250 + 1}"
        row = {
            "mx_host": f"mx{number}.{provider}",
            "canonical_name": f"mx{number}.{provider}",
            "addresses": [address],
            "addresses_dnssec": "insecure",
            "mx_state": "mx",
            "tlsa": [],
            "tlsa_state": "none",
            "tlsa_dnssec": None,
            "provider": provider,
            "detail": None,
            "resolved_at": now,
        }
        writer.append("hosts", row)
    for number in range(domains):
        row = {
            "domain": f"d{number}.example",
            "rank": number,
            "mx_state": "mx",
            "mx_dnssec": "insecure",
            "mx_canonical": f"d{number}.example",
            "mx": [[10, f"mx{number % hosts}.provider.example"]],
            "sts_record": "valid" if number % 100 == 0 else "absent",
            "sts_texts": ["v=STSv1; id=1;"] if number % 100 == 0 else [],
            "tlsrpt": "absent",
            "tlsrpt_texts": [],
            "detail": None,
            "scanned_at": now.isoformat(),
        }
        if number % 100 == 0:
            row["policy_host"] = {"addresses": ["20.1.1.1"], "provider": f"d{number}.example"}
        writer.append(LOOKUPS, row)
    writer.fold()
    writer.abandon()


def plan(folder: Path) -> None:
    options = make_options({"ehlo_name": "probe.example.org", "contact": "me@example.org"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.monotonic()
    writer = SnapshotWriter(folder, MANIFEST, b"")
    engine = Engine(
        options,
        Resolver("127.0.0.1"),
        writer,
        Roots.builtin(),
        progress=False,
        announce=lambda text: print(text),
    )
    made = engine._view(None, [0], families(), "here").plan
    shares = split(made.jobs, 2, options.manners)
    took = time.monotonic() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"shares of {' and '.join(f'{len(share.jobs):,}' for share in shares)} contacts")
    print(f"{took:.1f} s; peak memory {peak / 1024:.0f} MB, {before / 1024:.0f} MB of them before")
    writer.abandon()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--domains", type=int, default=1_000_000)
    parser.add_argument("--hosts", type=int, default=500_000)
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plan:
        plan(arguments.plan)
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "scan", arguments.domains, arguments.hosts)
        subprocess.run([sys.executable, __file__, "--plan", str(Path(folder) / "scan")], check=True)


if __name__ == "__main__":
    main()
