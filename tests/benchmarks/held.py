"""Memory for each connection in flight: two thousand held at once, TLS up, waiting for a reply that never comes.

python tests/benchmarks/held.py [--held 2000]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from rtls_analysis.lab.authority import Authority
from rtls_analysis.lab.kinds import SERVERS
from rtls_analysis.lab.smtp_server import smtp_handler
from rtls_analysis.scanner.contacts import Contacts
from rtls_analysis.scanner.loop import new_loop
from rtls_analysis.scanner.options import make_options
from rtls_analysis.scanner.politeness import Job
from rtls_analysis.scanner.probe import ProbeTarget
from rtls_analysis.standards.certificates import Roots


async def serve(folder: Path) -> None:
    authority = Authority(folder)
    context = authority.context("valid", "mx.lab.test", "lab.test")
    handler = smtp_handler(SERVERS["inside_silent"], "mx.lab.test", lambda: context)
    server = await asyncio.start_server(handler, "127.0.0.1", 0, backlog=4000)
    told = {"port": server.sockets[0].getsockname()[1], "ca": authority.root_pem.decode()}
    print(json.dumps(told), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def memory() -> float:
    """Memory of this process now, in KB."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e3


async def hold(port: int, ca: bytes, held: int) -> None:
    options = make_options(
        {
            "ehlo_name": "probe.lab.test",
            "contact": "postmaster@lab.test",
            "concurrency": held,
            "allow_special": ["127.0.0.0/8"],
            "timeouts": {"reply": 120, "session": 120, "connect": 60, "greeting": 120, "handshake": 120},
        }
    )
    roots = Roots.from_pem(ca)
    for count in (20, held):  # the first is a warm-up
        contacts = Contacts(options, roots, lambda table, row: None)
        before = memory()
        target = ProbeTarget("mx.lab.test", "127.0.0.1", port, "mx.lab.test")
        jobs = [Job("127.0.0.1", "lab.test", target, own=True) for _ in range(count)]
        running = asyncio.ensure_future(contacts.run(jobs))
        while contacts.in_flight < count:
            await asyncio.sleep(0.1)
        last = 0.0
        while (now := memory()) > last:  # until all handshakes are over
            last = now
            await asyncio.sleep(3)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        if count == held:
            print(f"{held:,} connections held: {(last - before) / held:.1f} KB each")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--held", type=int, default=2000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if arguments.serve:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(serve(Path(folder)))
        return
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        where = json.loads(server.stdout.readline())
        loop = new_loop()
        loop.run_until_complete(hold(where["port"], where["ca"].encode(), arguments.held))
        server.kill()


if __name__ == "__main__":
    main()
