"""Whether mail servers can be reached from here at all: port 25 is closed on most laptops and clouds."""

from __future__ import annotations

import asyncio
import contextlib
import re

from rtls_analysis.scanner.contacts import ScanStopped
from rtls_analysis.scanner.options import Options, ScanProblem
from rtls_analysis.scanner.smtp_client import LocalTrouble, connect_failure
from rtls_analysis.scanner.socks import proxy_connect
from rtls_analysis.standards.names import is_address


def parse_responder(text: str, port: int) -> tuple[str, int]:
    """Parse the address of a server that is known to answer: ``ADDRESS``, ``ADDRESS:PORT`` or ``[IPv6]:PORT``.

    >>> parse_responder("192.0.2.1", 25), parse_responder("[2001:db8::1]:2525", 25)
    (('192.0.2.1', 25), ('2001:db8::1', 2525))

    Raises
    ------
    ScanProblem
        The text is none.
    """
    where = text.strip()
    match = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?|([^:]+)(?::(\d{1,5}))?", where)
    host, number = (where, None) if match is None else (match[1] or match[3], match[2] or match[4])
    if not is_address(host) or not 1 <= int(number or port) <= 65535:
        raise ScanProblem(
            f"not a responder: {text!r}; give the address of a mail server, ADDRESS or ADDRESS:PORT"
        )
    return host, int(number or port)


async def check_responder(options: Options) -> None:
    """Connect to the user's well-known responder, if there is one, and hang up after its greeting.

    Raises
    ------
    ScanStopped
        It takes no connection: neither would others.
    """
    if options.responder is None:
        return
    address, port = parse_responder(options.responder, options.smtp_port)
    seconds = options.timeouts.connect
    try:
        async with asyncio.timeout(seconds):
            if options.proxy is not None:
                connection = await proxy_connect(options.proxy)(address, port)
                reader, writer = await asyncio.open_connection(sock=connection)
            else:
                own = options.source_for(address)
                local = (own, 0) if own is not None else None
                reader, writer = await asyncio.open_connection(address, port, local_addr=local)
    except OSError as error:
        try:
            _outcome, detail = connect_failure(error, seconds)
        except LocalTrouble as trouble:
            detail = trouble.strerror or str(trouble)
        raise ScanStopped(
            f"{options.responder} takes no connection from here ({detail}): port {port} is closed on the way out, as "
            "on most laptops and clouds, and every server would look silent; scan from another place, or through "
            "one with --proxy socks5://HOST:PORT"
        ) from None
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(seconds):
            await reader.readline()
            writer.write(b"QUIT\r\n")
            await reader.readline()
    writer.close()
