"""A small mail Internet on loopback: name servers, mail servers and policy hosts of every kind, and the truth of it.

>>> from rtls_analysis.lab.kinds import DOMAINS
>>> DOMAINS["dane_mismatch"].why
'TLSA 3 1 1 of another key, MX signed'
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rtls_analysis.lab.truth import make_truth
from rtls_analysis.lab.world import DNS_ADDRESS, World

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Lab", "print_and_serve", "start_lab"]

_EHLO_NAME = "probe.lab.test"
_CONTACT = "postmaster@lab.test"
_STOP_SECONDS = 30.0


class Lab:
    """A running lab; `start_lab` makes one. Used with ``with`` it ends by itself.

    Attributes
    ----------
    domains : list of str
        The policy domains, as A-labels: first one of each kind, commonest first, then drawn ones.
    scan_options : dict
        What `rtls.scan` needs to scan it: ``rtls.scan(lab.domains, **lab.scan_options)``.
    command : str
        The same as a line to type.
    """

    def __init__(self, world: World, process: subprocess.Popen[str], where: dict[str, Any]) -> None:
        self._world = world
        self._process = process
        self._where = where
        self.domains = list(world.domains)
        self.scan_options: dict[str, Any] = {
            "resolver": f"{DNS_ADDRESS}:{where['dns_port']}",
            "smtp_port": where["smtp_port"],
            "https_port": where["https_port"],
            "ca_file": where["ca_file"],
            "allow_special": ["127.0.0.0/8", "::1"],
            "ehlo_name": _EHLO_NAME,
            "contact": _CONTACT,
            "concurrency": 100,
            # the tarpits of the lab never end; everybody else answers at once, if the machine is not busy
            "timeouts": {"greeting": 5, "reply": 5, "handshake": 5, "session": 10, "policy": 6},
        }

    @cached_property
    def truth(self) -> dict[str, pd.DataFrame]:
        """What a scan of all `domains` must find: the tables `domains`, `mx`, `hosts`, `sessions`.

        Columns are those of a snapshot that have a truth; None stands for what does not apply.
        """
        return make_truth(self._world, self._where["smtp_port"], self._where["tlsa"])

    def why(self, domain: str) -> str:
        """Say in a line what is special about a domain."""
        return self._world.domains[domain].why

    def write_mail_log(self, path: str | os.PathLike[str], *, messages: int = 5000) -> None:
        """Write a week of somebody's mail to the lab's domains, as a Postfix 3.11 would log it."""
        from rtls_analysis.lab.mail_logs import write_mail_log

        write_mail_log(self._world, Path(path), messages=messages)

    @property
    def command(self) -> str:
        """The command that scans one domain of the lab."""
        options = self.scan_options
        words = ["rtls", "scan", self.domains[0]]
        for name in ("resolver", "smtp_port", "https_port", "ca_file", "ehlo_name", "contact"):
            words += [f"--{name.replace('_', '-')}", str(options[name])]
        for network in options["allow_special"]:
            words += ["--allow-special", network]
        return shlex.join(words)

    def wait(self) -> None:
        """Wait until the lab ends by itself, which it does not while its servers are well."""
        self._process.wait()

    def close(self) -> None:
        """End the servers; a second time does nothing."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Lab of {len(self.domains):,} domains, resolver {self.scan_options['resolver']}>"


def start_lab(domains: int = 200, seed: int = 1) -> Lab:
    """Start a small mail Internet on loopback, to scan it and to compare what was found with the truth.

    Parameters
    ----------
    domains
        How many policy domains: one of each kind of the catalogue as far as they go, commonest first, then
        domains drawn at the rates that surveys report.
    seed
        Decides what is drawn; the same size and seed give the same world.

    Returns
    -------
    Lab
        Running, at free high ports of addresses in 127.0.0.0/8 (and ::1): neither network nor root is needed.
        It ends with `Lab.close`, at the end of a ``with`` block, or with the process that started it.

    Raises
    ------
    ValueError
        `domains` is less than one.

    Examples
    --------
    >>> import rtls_analysis as rtls
    >>> with rtls.start_lab(domains=20) as lab:  # doctest: +SKIP
    ...     snapshot = rtls.scan(lab.domains, **lab.scan_options)
    """
    if isinstance(domains, bool) or not isinstance(domains, int) or domains < 1:
        raise ValueError(f"domains is {domains!r}; give a whole number from 1")
    has_ipv6 = _has_ipv6()
    command = [sys.executable, "-m", "rtls_analysis.lab", "--domains", str(domains), "--seed", str(seed)]
    if not has_ipv6:
        command.append("--no-ipv6")
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # an interrupt is for the scan; the lab ends with its `with` block
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.communicate()
        raise RuntimeError("the servers of the lab did not start; the reason is on standard error")
    return Lab(World(domains, seed, has_ipv6), process, json.loads(line))


def print_and_serve(domains: int = 200, seed: int = 1) -> None:
    """Run a lab for people: print how to scan it, and serve until interrupted."""
    with start_lab(domains, seed) as lab:
        print(f"A lab of {len(lab.domains):,} domains is running on loopback; Ctrl-C ends it.\n")
        width = max(len(domain) for domain in lab.domains[:20])
        for domain in lab.domains[:20]:
            print(f"  {domain:{width}}  {lab.why(domain)}")
        if len(lab.domains) > 20:
            print(f"  ... and {len(lab.domains) - 20:,} more")
        print(f"\nScan one:\n\n  {lab.command}", flush=True)
        lab.wait()


def _has_ipv6() -> bool:
    """Tell whether the loopback interface has ::1."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
