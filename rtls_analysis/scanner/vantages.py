"""Vantages: the places from which a scan is made, as each machine names its own."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from rtls_analysis.scanner.addresses import families
from rtls_analysis.scanner.options import EACH as EACH
from rtls_analysis.scanner.options import (
    SAYS,
    Options,
    ScanProblem,
    checked_contact,
    checked_ehlo_name,
    checked_source,
    checked_vantage,
)


@dataclass(frozen=True, slots=True)
class Vantage:
    """A place from which servers are contacted, and how whoever stands there introduces itself.

    `source` are own addresses from which alone it connects, `ipv4` and `ipv6` whether it has a route to that
    Internet, `version` is that of rtls_analysis there.
    """

    name: str
    ehlo_name: str
    contact: str
    source: tuple[str, ...] = ()
    ipv4: bool = True
    ipv6: bool = True
    version: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Give it as the manifest keeps it, where versions have a place of their own."""
        return {
            "name": self.name,
            "ehlo_name": self.ehlo_name,
            "contact": self.contact,
            "source": list(self.source),
            "ipv4": self.ipv4,
            "ipv6": self.ipv6,
        }


def own_vantage(options: Options) -> Vantage:
    """Say what this machine is to a scan with these options, whatever its environment says."""
    has_v4, has_v6 = families(options.source)
    return Vantage(
        options.vantage_name,
        options.ehlo_name,
        options.contact,
        options.source,
        has_v4,
        has_v6,
        version("rtls_analysis"),
    )


def describe_vantage(options: Options) -> Vantage:
    """Say what this machine is to somebody else's scan: its own environment goes before the options it was sent.

    Raises
    ------
    ScanProblem
        The environment says what cannot be, or a source address is not this machine's; the line names the variable.
    """
    own = {name: _said(name, variable) for name, variable in SAYS.items() if os.environ.get(variable)}
    if options.source and "source" not in own:
        own["source"] = checked_source(options.source)
    if own.get("vantage") == EACH:
        raise ScanProblem(f"{SAYS['vantage']} is {EACH!r}, which is no name of a place; name this one")
    if own.get("source") and options.proxy is not None:
        raise ScanProblem(
            "a source address and a proxy: the proxy connects from its own; give one of the two"
        )
    return own_vantage(replace(options, **own))


def _said(name: str, variable: str) -> Any:
    """Read what the environment says, checked."""
    check = {
        "ehlo_name": checked_ehlo_name,
        "contact": checked_contact,
        "vantage": checked_vantage,
        "source": checked_source,
    }[name]
    try:
        return check(os.environ[variable])
    except ScanProblem as problem:
        raise ScanProblem(f"{variable}: {problem}") from None
