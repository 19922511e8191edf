"""How many files and connections this process may have open: a scan uses what there is, and no more."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_RESERVE = 24  # for journals, parts, libraries that are loaded late, and the resolver's second way
_OPEN = Path("/proc/self/fd")


def raise_limit() -> None:
    """Raise the limit on open files to what the system allows this process."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # some systems name a limit that they do not allow
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections_left(wanted: int) -> int:
    """Give how many connections may be open at once: as many as wanted where the limit allows, at least one."""
    if resource is None:
        return wanted
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    try:
        in_use = len(os.listdir(_OPEN))  # noqa: PTH208
    except OSError:
        in_use = 64
    return max(1, min(wanted, soft - in_use - _RESERVE))
