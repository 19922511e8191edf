"""Ports that are a test's own from the moment it knows their number."""

from __future__ import annotations

import socket
import subprocess
import time
from typing import Any


def hold_port(address: str = "127.0.0.1") -> socket.socket:
    """Bind a free port of an address without listening at it: who connects there is refused.

    A port that is found free and let go of may be anybody's a moment later, the source port of a connection for
    instance, even of the very one that asks for it. Who sets ``SO_REUSEADDR``, as servers do, may listen at a port
    that is held; the kernel gives it to nobody else.
    """
    held = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((address, 0))
    except OSError:  # this machine has no such address
        held.close()
        raise
    return held


def wait_for_server(server: subprocess.Popen[Any], port: int, address: str = "127.0.0.1") -> None:
    """Wait until a program that was started listens at a port, for as long as it runs."""
    until = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection((address, port)).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise AssertionError(f"does not listen at {address}:{port}, status {server.poll()}: {server.args!r}")
