"""The servers of a lab as a process of their own: ``python -m rtls_analysis.lab``, until its standard input ends."""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import random
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtls_analysis.lab.authority import Authority
from rtls_analysis.lab.dns_server import Answerer, make_names, serve_dns
from rtls_analysis.lab.kinds import STS, ServerKind, StsKind
from rtls_analysis.lab.policy_server import policy_handler
from rtls_analysis.lab.smtp_server import Handler, MakeContext, quietly, smtp_handler
from rtls_analysis.lab.world import DNS_ADDRESS, Domain, Host, World, policy_address

_BACKLOG = 128


def _listen(addresses: list[str]) -> tuple[int, dict[str, socket.socket]]:
    """Listen at one free port of all addresses; an address each, for nothing shall be open to the network."""
    random_ = random.Random()
    for _ in range(100):
        port = random_.randrange(20_000, 32_000)  # below the ports that the system hands out
        held: dict[str, socket.socket] = {}
        try:
            for address in addresses:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                listener = held[address] = socket.socket(family, socket.SOCK_STREAM)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((address, port))
                listener.listen(_BACKLOG)
                listener.setblocking(False)
        except OSError:
            for listener in held.values():
                listener.close()
            continue
        return port, held
    raise OSError("no port free for the lab's servers")


def _raise_file_limit() -> None:
    try:
        import resource
    except ImportError:
        return
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Contexts:
    """TLS contexts of the world's servers, each by the name that a client asks for."""

    def __init__(self, world: World, authority: Authority) -> None:
        self._authority = authority
        self._domains = world.domains
        self._hosts: dict[str, Host] = {}
        self.at: dict[str, Host] = {}
        for host in world.hosts.values():
            self._hosts[host.name] = self._hosts[host.canonical] = host
            for address in host.addresses:
                self.at.setdefault(address, host)

    def of_server(self, kind: ServerKind, default: Host) -> ssl.SSLContext:
        """Give the context of a mail server: whatever name is asked for, there is a certificate."""

        def of(host: Host) -> ssl.SSLContext:
            return self._authority.context(kind.certificate, host.name, host.domain, kind.tls)

        def switch(tls: ssl.SSLObject | ssl.SSLSocket, name: str, _context: ssl.SSLContext) -> None:
            tls.context = of(self._hosts.get((name or "").lower(), default))

        context = of(default)
        context.sni_callback = switch
        return context

    def domain_of(self, policy_host: str) -> Domain | None:
        """Find whose policy host a name is."""
        return self._domains.get(policy_host.removeprefix("mta-sts."))

    def of_policy_host(self, sts: StsKind) -> ssl.SSLContext:
        """Give the context of the policy hosts of a kind."""

        def of(name: str) -> ssl.SSLContext:
            return self._authority.context(sts.certificate, name, name.removeprefix("mta-sts."))

        def switch(tls: ssl.SSLObject | ssl.SSLSocket, name: str, _context: ssl.SSLContext) -> None:
            tls.context = of((name or "mta-sts.invalid").lower())

        context = of("mta-sts.invalid")
        context.sni_callback = switch
        return context


async def _serve(world: World, folder: Path, ready: Callable[[dict[str, Any]], None]) -> None:
    """Serve the world until standard input ends."""
    authority = Authority(folder)
    contexts = _Contexts(world, authority)
    smtp_port, listeners = _listen([at for at, kind in world.servers.items() if kind.listens])
    policy_kinds = {
        at: sts
        for sts in STS.values()
        if not sts.address and (at := policy_address(sts)) is not None and sts.record == "valid"
    }
    https_port, policy_listeners = _listen(list(policy_kinds))

    @functools.cache
    def tlsa(host: Host) -> tuple[str, ...]:
        certificate = next((server.certificate for _at, server in host.places if server), "valid")
        chain = authority.chain(certificate, host.name, host.domain)
        return tuple(authority.tlsa(template, chain) for template in host.kind.tlsa)

    names = make_names(world, smtp_port, tlsa)
    dns_port, stop_dns = await serve_dns(Answerer(names), DNS_ADDRESS)
    servers = []
    for at, listener in listeners.items():
        kind, host = world.servers[at], contexts.at[at]
        make: MakeContext = functools.cache(functools.partial(contexts.of_server, kind, host))
        servers.append(await _start(smtp_handler(kind, host.name, make), listener))
    for at, listener in policy_listeners.items():
        make = functools.cache(functools.partial(contexts.of_policy_host, policy_kinds[at]))
        servers.append(await _start(policy_handler(policy_kinds[at], make, contexts.domain_of), listener))
    ca_file = folder / "ca.pem"
    ca_file.write_bytes(authority.root_pem)
    ready(
        {
            "dns_port": dns_port,
            "smtp_port": smtp_port,
            "https_port": https_port,
            "ca_file": str(ca_file),
            "tlsa": {host.name: tlsa(host) for host in world.hosts.values() if host.kind.tlsa},
        }
    )
    await _end_of_input()
    stop_dns()
    for server in servers:
        server.close()


async def _start(handler: Handler, listener: socket.socket) -> asyncio.Server:
    return await asyncio.start_server(quietly(handler), sock=listener, limit=1 << 16)


async def _end_of_input() -> None:
    """Wait until standard input ends: then whoever started the lab is gone."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    while await reader.read(1 << 12):
        pass


def main() -> None:
    """Serve a lab; its ports and the file of its root certificate are printed as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m rtls_analysis.lab")
    parser.add_argument("--domains", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-ipv6", action="store_true")
    arguments = parser.parse_args()
    _raise_file_limit()
    world = World(arguments.domains, arguments.seed, not arguments.no_ipv6)

    def ready(where: dict[str, Any]) -> None:
        print(json.dumps(where), flush=True)

    with tempfile.TemporaryDirectory(prefix="rtls-lab-") as folder, _runner() as runner:
        runner.run(_serve(world, Path(folder), ready))


def _runner() -> asyncio.Runner:
    try:
        import uvloop
    except ImportError:  # an optional dependency
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


if __name__ == "__main__":
    main()
