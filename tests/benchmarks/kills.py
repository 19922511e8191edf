"""Twenty kills of one scan at random moments, and what they cost: rows lost, contacts and questions repeated.

Run by hand, from the root of the repository: ``python -m tests.benchmarks.kills [--domains N] [--kills N]
[--workers N] [--seed S]``. The command scans the lab through a proxy and a name server that count what really passes.
It is killed (SIGKILL) when it has written a random number of rows, while resolving, planning and contacting, and
started again each time; then its tables are held against those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import rtls_analysis as rtls
from rtls_analysis.lab import Lab
from rtls_analysis.scanner.worker import LOOKUPS_AT_ONCE
from tests.lab.truth import differences, disagreements
from tests.scanner.relays import DnsRelay, SocksProxy

CONCURRENCY = 20
MANNERS = """
own_addresses = true
address_spacing = 0.2
provider_spacing = 0
prefix_spacing = 0
prefix_at_once = 20
pause = 0.5
"""
_MX = bytes([0, 15, 0, 1])  # the end of a question for MX


def main() -> None:
    """Run the kills, and print what they cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--domains", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with (
        rtls.start_lab(given.domains) as lab,
        tempfile.TemporaryDirectory() as folder,
        DnsRelay(lab.scan_options["resolver"]) as dns,
        SocksProxy() as proxy,
    ):
        _run(lab, Path(folder), dns, proxy, given)


def _command(lab: Lab, folder: Path, dns: DnsRelay, proxy: SocksProxy, out: Path, workers: int) -> list[str]:
    (folder / "list").write_text("\n".join(lab.domains))
    times = "".join(f"{name} = {value}\n" for name, value in lab.scan_options["timeouts"].items())
    (folder / "scan.toml").write_text(f"[timeouts]\n{times}[manners]\n{MANNERS}")
    words = [sys.executable, "-m", "rtls_analysis.cli", "scan", "-i", str(folder / "list"), "--quiet"]
    words += ["--config", str(folder / "scan.toml"), "--concurrency", str(CONCURRENCY)]
    words += ["--resolver", dns.address, "--proxy", proxy.url, "--workers", str(workers)]
    for name in ("smtp_port", "https_port", "ca_file", "ehlo_name", "contact"):
        words += [f"--{name.replace('_', '-')}", str(lab.scan_options[name])]
    for network in lab.scan_options["allow_special"]:
        words += ["--allow-special", network]
    return [*words, "-o", str(out)]


def _rows(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (out / "_work").glob("*.jsonl"))


def _run(lab: Lab, folder: Path, dns: DnsRelay, proxy: SocksProxy, given: argparse.Namespace) -> None:
    whole_out, out = folder / "whole", folder / "killed"
    began = time.monotonic()
    most = 0
    process = subprocess.Popen(_command(lab, folder, dns, proxy, whole_out, given.workers))
    while process.poll() is None:
        most = max(most, _rows(whole_out))
        time.sleep(0.05)
    seconds = time.monotonic() - began
    once, asked_once = proxy.connections.copy(), dns.by_question.copy()
    print(
        f"undisturbed: {seconds:.1f} s, {once.total():,} connections, {asked_once.total():,} questions, "
        f"{most:,} rows"
    )
    proxy.connections.clear()
    dns.by_question.clear()
    rng = random.Random(given.seed)
    moments = sorted(rng.randrange(1, most) for _ in range(given.kills))
    command = _command(lab, folder, dns, proxy, out, given.workers)
    resolving = starts = 0
    for moment in moments:
        process = subprocess.Popen(command)
        starts += 1
        while process.poll() is None and _rows(out) < moment:
            time.sleep(0.001)
        time.sleep(rng.random() / 50)
        process.kill()
        process.wait()
        resolving += not list((out / "_work").glob("attempts-*"))
        if process.returncode != -signal.SIGKILL:
            print(f"  the scan had ended before {moment:,} rows (status {process.returncode})")
            break
    subprocess.run(command, check=True)

    snapshot, whole = rtls.open_snapshot(out), rtls.open_snapshot(whole_out)
    repeated = proxy.connections - once
    probes = snapshot.attempts.query("purpose == 'probe'")
    on_record = Counter(zip(probes["mx_host"], probes["address"], strict=True))
    pairs = len(snapshot.sessions)
    print(f"{starts} kills, {resolving} of them before the first contact")
    print(f"tables that differ from the undisturbed run: {len(differences(snapshot, whole))} values")
    print(f"values that differ from the truth of the lab: {len(disagreements(lab, snapshot))}")
    print(
        f"connections made again: {repeated.total()} of {once.total():,} "
        f"({repeated.total() / starts:.1f} a kill; at most {CONCURRENCY} were in flight)"
    )
    print(
        f"pairs with more connections on record than visits: {(on_record - _visits(snapshot)).total()} of {pairs:,}"
    )
    mx = {question for question in asked_once if question.endswith(_MX)}
    again = sum((dns.by_question - asked_once)[question] for question in mx)
    print(
        f"domains looked up again: {again} of {len(mx):,} "
        f"({again / max(resolving, 1):.0f} a kill while resolving; at most {LOOKUPS_AT_ONCE} were in flight)"
    )
    print(f"breaches that the audit finds: {len(rtls.audit(snapshot))}")


def _visits(snapshot: rtls.Snapshot) -> Counter[tuple[str, str]]:
    rows = snapshot.sessions[["mx_host", "address", "attempts"]]
    return Counter({(host, address): int(count) for host, address, count in rows.itertuples(index=False)})


if __name__ == "__main__":
    main()
