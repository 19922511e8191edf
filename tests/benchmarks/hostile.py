"""Ten thousand servers, a third of them hostile or silent: the run ends in its bound, in flat memory.

    python tests/benchmarks/hostile.py [--hosts 10000] [--at-once 500]

Every address of 127.0.0.0/8 is a host of its own: one process answers for all of them, each as its kind of the lab
does (drips, stalls, floods, garbage, endless lines and replies, broken handshakes). Blackholes are listeners that
never accept. Times and memory are this process's own.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import ipaddress
import json
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rtls_analysis.lab.authority import Authority
from rtls_analysis.lab.kinds import SERVERS
from rtls_analysis.lab.smtp_server import smtp_handler
from rtls_analysis.scanner.contacts import Contacts
from rtls_analysis.scanner.loop import new_loop
from rtls_analysis.scanner.options import make_options
from rtls_analysis.scanner.politeness import Job
from rtls_analysis.scanner.probe import ProbeTarget
from rtls_analysis.standards.certificates import Roots

BLACKHOLE = "blackhole"
NORMAL = ("valid", "requiretls", "plain", "wrong_name", "self_signed", "injected")
_BAD = ("timeout", "protocol_error", "tls_failed", "closed_early")
HOSTILE = (
    *(n for n, k in SERVERS.items() if k.listens and k.certificate != "anonymous" and k.outcome in _BAD),
    BLACKHOLE,
)
TIMES = {"connect": 3, "greeting": 4, "reply": 4, "handshake": 4, "session": 8}


def kind_of(number: int) -> str:
    return HOSTILE[number // 3 % len(HOSTILE)] if number % 3 == 0 else NORMAL[number % len(NORMAL)]


def address_of(number: int) -> str:
    return str(ipaddress.IPv4Address("127.65.0.1") + number)


async def serve(folder: Path) -> None:
    authority = Authority(folder)

    @functools.cache
    def context(certificate: str) -> ssl.SSLContext:
        return authority.context(certificate, "mx.lab.test", "lab.test")

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here = ipaddress.IPv4Address(writer.get_extra_info("sockname")[0])
        kind = SERVERS[kind_of(int(here) - int(ipaddress.IPv4Address("127.65.0.1")))]
        await smtp_handler(kind, "mx.lab.test", lambda: context(kind.certificate))(reader, writer)

    server = await asyncio.start_server(handle, "0.0.0.0", 0, backlog=4000)
    port = server.sockets[0].getsockname()[1]
    hole = socket.socket()
    hole.bind(("0.0.0.0", 0))
    hole.listen(0)
    plugs = [socket.socket() for _ in range(4)]
    for plug in plugs:  # its queue is full from now on
        plug.setblocking(False)
        plug.connect_ex(("127.0.0.1", hole.getsockname()[1]))
    told = {"port": port, "hole": hole.getsockname()[1], "ca": authority.root_pem.decode()}
    print(json.dumps(told), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def memory() -> float:
    """Memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def scan(where: dict[str, Any], hosts: int, at_once: int) -> None:
    options = make_options(
        {
            "ehlo_name": "probe.lab.test",
            "contact": "postmaster@lab.test",
            "concurrency": at_once,
            "allow_special": ["127.0.0.0/8"],
            "timeouts": TIMES,
        }
    )
    rows: list[tuple[str, float]] = []

    def append(table: str, row: Any) -> None:
        if table == "sessions":
            rows.append((str(row["outcome"]), row["duration_seconds"]))

    def job(number: int) -> Job:
        port = where["hole"] if kind_of(number) == BLACKHOLE else where["port"]
        target = ProbeTarget(f"mx{number}.lab.test", address_of(number), port, "mx.lab.test")
        return Job(target.address, "lab.test", target, own=True)

    contacts = Contacts(options, Roots.from_pem(where["ca"].encode()), append)
    loop = new_loop()
    loop.run_until_complete(contacts.run([job(number) for number in range(100)]))  # a warm-up
    rows.clear()
    jobs = [job(number) for number in range(hosts)]
    before, begin = memory(), time.monotonic()
    highest = before

    async def watch() -> None:
        nonlocal highest
        while True:
            highest = max(highest, memory())
            await asyncio.sleep(0.1)

    async def run() -> None:
        watching = asyncio.ensure_future(watch())
        await contacts.run(jobs)
        watching.cancel()

    loop.run_until_complete(run())
    took = time.monotonic() - begin
    bad = sum(kind_of(number) in HOSTILE for number in range(hosts))
    deadline = TIMES["session"]
    bound = (bad / at_once + 1) * (deadline + 2) + (hosts - bad) * 0.01
    slowest = max(seconds for _outcome, seconds in rows)
    print(
        f"{hosts:,} hosts, {bad:,} of them hostile or silent, {at_once} at once: {took:.0f} s, bound {bound:.0f} s"
    )
    print(
        f"slowest host {slowest:.2f} s, deadline {deadline} s + 2 s; memory {before:.0f} -> {highest:.0f} MB"
    )
    print(", ".join(f"{word} {count:,}" for word, count in Counter(word for word, _ in rows).most_common()))
    good = len(rows) == hosts and took <= bound and slowest <= deadline + 2 and highest - before < 64
    print("within all bounds" if good else "OUT OF BOUNDS")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=500)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if arguments.serve:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(serve(Path(folder)))
        return
    with subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        scan(json.loads(server.stdout.readline()), arguments.hosts, arguments.at_once)
        server.stdin.close()


if __name__ == "__main__":
    main()
