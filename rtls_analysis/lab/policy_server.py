"""The MTA-STS policy hosts of the lab: HTTPS by hand, so that it can go wrong in every way (RFC 8461 §3.3)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from rtls_analysis.lab.kinds import STS, Misdeed, StsKind
from rtls_analysis.lab.smtp_server import Handler, Hangup, MakeContext, Wire
from rtls_analysis.lab.world import Domain

_ENDLESS = 16 << 20  # bytes that an endless policy has at most
_SPACE = b"x: " + b"y" * 8000 + b"\r\n"


def policy_body(domain: Domain) -> bytes:
    """Write the policy that a domain's policy host serves."""
    hosts = [host.name for _preference, host in domain.hosts] or [f"mx.{domain.name}"]
    lines = "".join(f"mx: {host}\r\n" for host in hosts).encode()
    body = STS[domain.kind.sts].body
    body = body.replace(b"%m", lines).replace(b"%n", lines.replace(b"\r", b""))
    return body.replace(b"%d", domain.name.encode())


def policy_handler(sts: StsKind, context: MakeContext, domain_of: Callable[[str], Domain | None]) -> Handler:
    """Make the connection handler of the policy hosts of one kind; `domain_of` finds whose host a name is."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        try:
            if sts.misdeed == "plaintext":
                await wire.receive()
                await wire.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                return
            await wire.start_tls(context())
            await _answer(wire, sts, domain_of)
        except (Hangup, OSError, TimeoutError, ssl.SSLError, RuntimeError):  # the last: closed, says uvloop
            pass
        finally:
            wire.hang_up()

    return handle


async def _answer(wire: Wire, sts: StsKind, domain_of: Callable[[str], Domain | None]) -> None:
    request = (await wire.line()).split()
    host = ""
    while header := await wire.line():
        name, _, value = header.decode("latin-1").partition(":")
        if name.lower() == "host":
            host = value.strip().partition(":")[0].lower()
    domain = domain_of(host)
    if domain is None or request[1:2] != [b"/.well-known/mta-sts.txt"]:
        await wire.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        return
    body = policy_body(domain)
    lines = [f"HTTP/1.1 {sts.status} Lab", f"Content-Type: {sts.media_type}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in sts.headers]
    match sts.misdeed:
        case "silent":
            await wire.do(Misdeed.SILENT)
        case "drip":
            await wire.do(Misdeed.DRIP, b"HTTP/1.1 200 OK")
        case "close":
            return
        case "not_http":
            await wire.send(b"220 this is no web server\r\n\r\n")
            return
        case "short":
            lines.append(f"Content-Length: {len(body) + 100}")
        case "endless":
            pass
        case _:
            lines.append(f"Content-Length: {len(body)}")
    await wire.send("\r\n".join([*lines, "", ""]).encode() + body)
    if sts.misdeed == "endless":
        for _ in range(_ENDLESS // len(_SPACE)):
            await wire.send(_SPACE)
