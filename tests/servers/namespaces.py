"""Places from which a scan may be made: network namespaces with an address each, around one where servers run.

They are gone with whoever made them, however that ends: no name is given to them, and nothing is left on the machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NET = "10.78"
"""The first two numbers of the places' addresses."""

REPOSITORY = Path(__file__).parents[2]
_PRIVATE = ("setpriv", "--pdeathsig", "KILL", "unshare", "-n")
_END_SECONDS = 10


@dataclass(frozen=True)
class Place:
    """A network namespace: `address` is its own, `gateway` that of the servers' namespace on the way to it."""

    name: str
    process_id: int
    address: str
    gateway: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before a command that is to run there."""
        return ("setpriv", "--pdeathsig", "KILL", *inside(self.process_id))

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        seconds: float = 250,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program there."""
        return subprocess.run(
            [*self.prefix, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
        )


def inside(process_id: int) -> tuple[str, ...]:
    """Give the words that run a command in the network of a process."""
    return ("nsenter", "-t", str(process_id), "-n")


def why_not() -> str:
    """Say why there can be no such places on this machine; empty where there can."""
    if missing := [tool for tool in ("ip", "nsenter", "setpriv", "unshare") if shutil.which(tool) is None]:
        return f"network namespaces need {', '.join(missing)}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    trial = "ip link add trial0 type veth peer name trial1 && ip link delete trial0"
    done = subprocess.run([*_PRIVATE, "sh", "-c", trial], capture_output=True, text=True, check=False)
    return f"no network namespaces here: {' '.join(done.stderr.split())[:200]}" if done.returncode else ""


@contextmanager
def places(hub: int, names: Sequence[str]) -> Iterator[dict[str, Place]]:
    """Make a place for each name, linked to the network of a process, the hub, in which servers run.

    Parameters
    ----------
    hub
        A process of the namespace in which servers run. Whatever address these have is reached from every place, and
        each place from the hub: a scheduler that they all are to reach is started there.
    names
        Of the places. The first has the address ``10.78.1.2``, the hub ``10.78.1.1`` on the way to it, and so on.

    Raises
    ------
    RuntimeError
        They cannot be made; see `why_not`.
    """
    with contextlib.ExitStack() as stack:
        _run([*inside(hub), "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
        made = {}
        for number, name in enumerate(names, start=1):
            holder = _holder(stack)
            gateway, address = _link(hub, holder, number)
            _run([*inside(holder), "ip", "route", "add", "default", "via", gateway])
            made[name] = Place(name, holder, address, gateway)
        yield made


def _holder(stack: contextlib.ExitStack) -> int:
    """Start a process with a network of its own, which holds that as long as it lives."""
    process = subprocess.Popen(
        [*_PRIVATE, "sh", "-c", "echo; exec sleep infinity"], stdout=subprocess.PIPE, text=True
    )
    stack.callback(_end, process)
    assert process.stdout is not None
    if process.stdout.readline() != "\n":
        raise RuntimeError("no network namespace could be made")
    return process.pid


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(_END_SECONDS)
    if process.stdout is not None:
        process.stdout.close()


def _link(hub: int, other: int, number: int) -> tuple[str, str]:
    """Link the networks of two processes; gives the hub's address on this way, and the other one."""
    gateway, address = f"{NET}.{number}.1", f"{NET}.{number}.2"
    ours, theirs = f"to{number}", "eth0"
    way, back = ([*inside(process), "ip"] for process in (hub, other))
    _run([*way, "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", str(other)])
    for command, device, own in ((way, ours, gateway), (back, theirs, address)):
        _run([*command, "address", "add", f"{own}/24", "dev", device])
        _run([*command, "link", "set", device, "up"])
    _run([*back, "link", "set", "lo", "up"])
    return gateway, address


def _run(argv: Sequence[str]) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr or done.stdout}")
