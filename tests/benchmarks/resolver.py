"""Client CPU per cold DNS query with AD: the scanner's resolver beside `dns.asyncresolver`, in one run.

Run by hand: ``python tests/benchmarks/resolver.py [--names N] [--rounds N] [--at-once N]``. A responder in another
process answers what a scan asks of a domain with one MX host: MX and A with records, ``_mta-sts`` and ``_smtp._tls``
without. CPU is that of this process (user and system), medians over the rounds; the clients take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import socket
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import dns.asyncresolver
import dns.exception
import dns.flags

from rtls_analysis.scanner.loop import new_loop
from rtls_analysis.scanner.resolver import Resolver
from rtls_analysis.standards.dns_answer import DnsSecurity

Ask = Callable[[str, str], Awaitable[bool]]
"""Asks a question, and says whether the answer is secure."""

_OPT = bytes.fromhex("00 0029 04d0 00 00 8000 0000")
_SOA = bytes.fromhex("c00c 0006 0001 0000012c 0016 00 00 00000001 00000e10 00000384 00093a80 0000012c")
_MX = bytes.fromhex("c00c 000f 0001 0000012c 0008 000a 03 6d7831 c00c")
_MX_2 = bytes.fromhex("c00c 000f 0001 0000012c 0008 0014 03 6d7832 c00c")
_A = bytes.fromhex("c00c 0001 0001 0000012c 0004 c0000201")


def _respond(port_queue: multiprocessing.Queue[int]) -> None:
    """Answer over UDP for ever: records for MX and A, NXDOMAIN for the rest; AD always."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    server.bind(("127.0.0.1", 0))
    port_queue.put(server.getsockname()[1])
    found = {
        15: (b"\x81\xa0\0\1\0\2\0\0\0\1", _MX + _MX_2 + _OPT),
        1: (b"\x81\xa0\0\1\0\1\0\0\0\1", _A + _OPT),
    }
    denied = (b"\x81\xa3\0\1\0\0\0\1\0\1", _SOA + _OPT)
    while True:
        query, client = server.recvfrom(4096)
        ends = query.index(b"\0\0", 12) + 5 if query[12] else 17
        head, tail = found.get(int.from_bytes(query[ends - 4 : ends - 2]), denied)
        server.sendto(query[:2] + head + query[12:ends] + tail, client)


@contextmanager
def responder() -> Iterator[int]:
    """Run the responder in a process of its own: gives its port on 127.0.0.1."""
    context = multiprocessing.get_context("spawn")
    ports: multiprocessing.Queue[int] = context.Queue()
    process = context.Process(target=_respond, args=(ports,), daemon=True)
    process.start()
    try:
        yield ports.get(timeout=30)
    finally:
        process.kill()
        process.join()


@asynccontextmanager
async def ours(port: int) -> AsyncIterator[Ask]:
    """Give the scanner's resolver."""
    async with Resolver(f"127.0.0.1:{port}") as resolver:

        async def ask(name: str, rdtype: str) -> bool:
            answer = await resolver.ask(name, rdtype)
            return answer.security is DnsSecurity.SECURE

        yield ask


@asynccontextmanager
async def theirs(port: int) -> AsyncIterator[Ask]:
    """Give `dns.asyncresolver`, told to ask in the same way."""
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = port
    resolver.use_edns(0, dns.flags.DO, 1232)
    resolver.flags = dns.flags.RD | dns.flags.AD

    async def ask(name: str, rdtype: str) -> bool:
        try:
            answer = await resolver.resolve(name, rdtype, search=False, raise_on_no_answer=False)
        except dns.asyncresolver.NXDOMAIN as denial:
            response = denial.response(denial.qnames()[0])
        else:
            response = answer.response
        return bool(response.flags & dns.flags.AD)

    yield ask


def measure(
    client: Callable[[int], object],
    port: int,
    names: list[str],
    at_once: int,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> tuple[float, float]:
    """Look up all names: seconds of CPU and of the clock per query."""
    questions = iter(
        [
            question
            for name in names
            for question in (
                (name, "MX"),
                (f"mx1.{name}", "A"),
                (f"_mta-sts.{name}", "TXT"),
                (f"_smtp._tls.{name}", "TXT"),
            )
        ]
    )
    count = 4 * len(names)

    async def work(ask: Ask) -> None:
        for name, rdtype in questions:
            if not await ask(name, rdtype):
                raise AssertionError(f"no AD for {rdtype} {name}")

    async def run() -> tuple[float, float]:
        async with client(port) as ask:  # type: ignore[attr-defined]
            before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            await asyncio.gather(*(work(ask) for _ in range(at_once)))
            after, ended = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return cpu / count, (ended - began) / count

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(run())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=5000, help="domains of four questions each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=150, help="questions in flight")
    options = parser.parse_args()
    clients = {
        "rtls_analysis, uvloop": (ours, new_loop, options.names),
        "rtls_analysis, asyncio": (ours, asyncio.new_event_loop, options.names),
        "dns.asyncresolver, uvloop": (theirs, new_loop, options.names // 5),
        "dns.asyncresolver, asyncio": (theirs, asyncio.new_event_loop, options.names // 5),
    }
    results: dict[str, list[tuple[float, float]]] = {label: [] for label in clients}
    with responder() as port:
        for turn in range(options.rounds):
            for at, (label, (client, factory, count)) in enumerate(clients.items()):
                names = [f"r{turn}n{n}.c{at}.test" for n in range(count)]
                results[label].append(measure(client, port, names, options.at_once, factory))
    print(f"{'client':28} {'CPU us/query':>12} {'queries/s':>10}")
    cpu = {}
    for label, rounds in results.items():
        cpu[label] = statistics.median(used for used, _wall in rounds)
        wall = statistics.median(wall for _used, wall in rounds)
        print(f"{label:28} {cpu[label] * 1e6:12.1f} {1 / wall:10,.0f}")
    for loop in ("uvloop", "asyncio"):
        ratio = cpu[f"dns.asyncresolver, {loop}"] / cpu[f"rtls_analysis, {loop}"]
        print(f"ratio, {loop}: {ratio:.1f}")


if __name__ == "__main__":
    main()
