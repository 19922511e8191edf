"""A scan of the lab at several sizes: domains and probes a second, CPU and memory, the lab's own CPU beside it.

    python tests/benchmarks/scan.py [--sizes 1000 10000 100000] [--at-once 400] [--workers 2]

Servers and scan share the cores of this machine. CPU of the scan is that of its process and its workers, CPU of the
lab that of the one process that is all its servers. Memory is the peak of the largest single process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rtls_analysis.lab import start_lab
from rtls_analysis.scanner.campaign import scan
from rtls_analysis.store import open_snapshot


def cpu_of(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def one(given: dict[str, object]) -> None:
    """Scan, in a process of its own, and print what it took as JSON."""
    begin = time.monotonic()
    scan(given.pop("domains"), given.pop("out"), progress=False, **given)  # type: ignore[arg-type]
    own, workers = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        json.dumps(
            {
                "seconds": time.monotonic() - begin,
                "cpu": own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime,
                "own_peak": own.ru_maxrss / 1024,
                "worker_peak": workers.ru_maxrss / 1024,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--at-once", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(json.load(sys.stdin))
        return
    print(
        f"{'domains':>8} {'seconds':>8} {'domains/s':>10} {'probes/s':>9} {'scan CPU':>9} {'lab CPU':>8} {'peak MB (scan, worker)'}"
    )
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder, start_lab(size) as lab:
            out = Path(folder) / "scan"
            given = {
                "domains": lab.domains,
                "out": str(out),
                "workers": arguments.workers,
                **lab.scan_options,
            }
            given["concurrency"] = arguments.at_once
            before = cpu_of(lab._process.pid)
            done = subprocess.run(
                [sys.executable, __file__, "--one"],
                input=json.dumps(given),
                capture_output=True,
                text=True,
                check=True,
            )
            lab_cpu = cpu_of(lab._process.pid) - before
            took = json.loads(done.stdout)
            snapshot = open_snapshot(out)
            contacts, pairs = len(snapshot.attempts), len(snapshot.sessions)
            assert len(snapshot.domains) == size
            print(
                f"{size:>8,} {took['seconds']:>8.1f} {size / took['seconds']:>10.0f} {contacts / took['seconds']:>9.0f} "
                f"{took['cpu']:>8.1f}s {lab_cpu:>7.1f}s {took['own_peak']:>8.0f}, {took['worker_peak']:.0f}"
                f"   ({contacts:,} connections, {pairs:,} pairs)",
                flush=True,
            )


if __name__ == "__main__":
    main()
