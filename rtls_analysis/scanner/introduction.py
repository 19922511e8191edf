"""Whether our EHLO name and our address agree in the DNS: many servers turn away, or block, a client whose do not."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from rtls_analysis.scanner.addresses import sources
from rtls_analysis.scanner.options import Options
from rtls_analysis.scanner.resolver import Resolver
from rtls_analysis.standards.dns_answer import DnsAnswer
from rtls_analysis.standards.names import fold_host, is_address

_LOOKED_AT = 8  # addresses of the name


async def check_introduction(options: Options, resolver: Resolver) -> list[str]:
    """Say what others would find wrong with the way we introduce ourselves: a line each, none where all agrees.

    The name must have the address we come from, and that address must have the name (RFC 5321 §4.1.4, RFC 1912 §2.1).

    Notes
    -----
    Behind a translator (NAT) or a proxy our own address is not the one that others see: then each address of the
    name is asked for its name, and which of them is ours is not told.
    """
    name = options.ehlo_name
    ours = [] if options.proxy else [address for address in sources(options.source) if _is_public(address)]
    if is_address(name):
        literal = str(ipaddress.ip_address(name.strip("[]").removeprefix("IPv6:")))
        warnings = _not_ours(name, [literal], ours)
        return warnings + await _reverse([literal], "", resolver)
    answers = [await resolver.ask(name, "A"), await resolver.ask(name, "AAAA")]
    named = [str(ipaddress.ip_address(record)) for answer in answers for record in answer.records]
    if not named:
        failed = next((answer for answer in answers if answer.failed), None)
        why = f"could not be looked up: {_why(failed)}" if failed is not None else "has no address"
        return [f"the EHLO name {name} {why}; many servers turn such clients away"]
    warnings = _not_ours(name, named, ours)
    return warnings + await _reverse(ours or named[:_LOOKED_AT], name, resolver)


def _is_public(address: str) -> bool:
    return ipaddress.ip_address(address).is_global


def _not_ours(name: str, named: Sequence[str], ours: Sequence[str]) -> list[str]:
    """Say which of our addresses the name does not stand for."""
    return [
        f"the EHLO name {name} stands for {', '.join(named[:_LOOKED_AT])}, not for this machine's address {address}"
        for address in ours
        if address not in named
    ]


async def _reverse(addresses: Sequence[str], name: str, resolver: Resolver) -> list[str]:
    """Say of which addresses the reverse name is missing, or another one than `name`, where that is given."""
    warnings: list[str] = []
    for address in addresses:
        answer = await resolver.ask(ipaddress.ip_address(address).reverse_pointer, "PTR")
        names = sorted(map(fold_host, answer.records))
        if answer.failed:
            warnings.append(f"the reverse name of {address} could not be looked up: {_why(answer)}")
        elif not names:
            warnings.append(f"{address} has no reverse name; many servers turn such clients away")
        elif name and name not in names:
            warnings.append(f"the reverse name of {address} is {names[0]}, not the EHLO name {name}")
    return warnings


def _why(answer: DnsAnswer) -> str:
    return answer.detail or str(answer.status)
