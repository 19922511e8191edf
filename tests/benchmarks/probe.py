"""Client CPU of a whole probe as a multiple of a bare TLS 1.3 handshake with the same server.

    python tests/benchmarks/probe.py [--probes 2000] [--rounds 3] [--at-once 200]

The bare handshake is a blocking loop over the standard library's `ssl`, connection included. The probe is all that
a scan does for one address: connect, EHLO, STARTTLS, TLS 1.3, EHLO, QUIT, every verdict, and the rows on the disk.
Every second probe meets a certificate that was not seen before. CPU is this process's own (`getrusage`); the
server is another process.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rtls_analysis.lab.authority import Authority
from rtls_analysis.lab.kinds import SERVERS
from rtls_analysis.lab.smtp_server import smtp_handler
from rtls_analysis.outcomes import TlsaState
from rtls_analysis.scanner.contacts import Contacts
from rtls_analysis.scanner.loop import new_loop
from rtls_analysis.scanner.options import make_options
from rtls_analysis.scanner.politeness import Job
from rtls_analysis.scanner.probe import ProbeTarget
from rtls_analysis.standards.certificates import Roots
from rtls_analysis.store import SnapshotWriter


def names(count: int) -> list[str]:
    return [f"mx.d{number}.test" for number in range(max(1, count // 2))]


async def serve(folder: Path, hosts: list[str]) -> None:
    """Serve SMTP with STARTTLS on one port and bare TLS on another, with the same certificates."""
    authority = Authority(folder)
    contexts = {host: authority.context("valid", host, host.partition(".")[2]) for host in hosts}

    def switch(tls: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
        tls.context = contexts[name or hosts[0]]

    context = contexts[hosts[0]]
    context.sni_callback = switch
    handler = smtp_handler(SERVERS["requiretls"], hosts[0], functools.cache(lambda: context))
    smtp = await asyncio.start_server(handler, "127.0.0.1", 0, backlog=1000)

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    bare = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context, backlog=1000)
    ports = [server.sockets[0].getsockname()[1] for server in (smtp, bare)]
    print(json.dumps({"ports": ports, "ca": authority.root_pem.decode()}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def bare_handshakes(port: int, hosts: list[str], count: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    for number in range(count):
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname=hosts[number % len(hosts)]) as tls,
        ):
            assert tls.version() == "TLSv1.3"


def probes(port: int, hosts: list[str], count: int, at_once: int, ca: bytes, tlsa: tuple[str, ...]) -> None:
    options = make_options(
        {
            "ehlo_name": "probe.lab.test",
            "contact": "postmaster@lab.test",
            "concurrency": at_once,
            "smtp_port": port,
            "allow_special": ["127.0.0.0/8"],
        }
    )
    writer = SnapshotWriter(None, {"scan": {}}, ca)
    jobs = [
        Job("127.0.0.1", "lab.test", _target(hosts[number % len(hosts)], port, tlsa), own=True)
        for number in range(count)
    ]
    loop = new_loop()
    contacts = Contacts(options, Roots.from_pem(ca), writer.append)
    loop.run_until_complete(contacts.run(jobs))
    loop.close()
    assert contacts.outcomes == {"completed": count}, contacts.outcomes
    writer.abandon()


def _target(host: str, port: int, tlsa: tuple[str, ...]) -> ProbeTarget:
    if not tlsa:
        return ProbeTarget(host, "127.0.0.1", port, host)
    return ProbeTarget(host, "127.0.0.1", port, host, TlsaState.USABLE, host, tlsa)


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def one_round(where: dict[str, str | list[int]], hosts: list[str], count: int, at_once: int) -> None:
    """Measure once, in a process of its own: nothing is cached from another round. Prints seconds per item."""
    smtp, bare = map(int, where["ports"])
    ca = str(where["ca"]).encode()
    figures = {}
    begin = cpu()
    bare_handshakes(bare, hosts, count)
    figures["bare handshake"] = (cpu() - begin) / count
    for label, tlsa in (
        ("probe", ()),
        ("probe with TLSA, certificates seen before", ("3 1 1 " + "ab" * 32,)),
    ):
        begin = cpu()
        probes(smtp, hosts, count, at_once, ca, tlsa)
        figures[label] = (cpu() - begin) / count
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--probes", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--round", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    hosts = names(arguments.probes)
    if arguments.serve:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(serve(Path(folder), hosts))
        return
    if arguments.round:
        one_round(json.loads(arguments.round), hosts, arguments.probes, arguments.at_once)
        return
    command = [
        sys.executable,
        __file__,
        "--probes",
        str(arguments.probes),
        "--at-once",
        str(arguments.at_once),
    ]
    with subprocess.Popen(
        [*command, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        where = server.stdout.readline()
        ratios: dict[str, list[float]] = {}
        for number in range(1, arguments.rounds + 1):
            done = subprocess.run([*command, "--round", where], capture_output=True, text=True, check=True)
            figures = json.loads(done.stdout)
            for label, seconds in figures.items():
                ratios.setdefault(label, []).append(seconds / figures["bare handshake"])
            words = ", ".join(f"{label} {1e6 * seconds:.0f} us" for label, seconds in figures.items())
            print(f"round {number}: {words}", flush=True)
        for label, values in ratios.items():
            print(f"{label}: {statistics.median(values):.2f} x a bare handshake (median)")
        server.stdin.close()


if __name__ == "__main__":
    main()
