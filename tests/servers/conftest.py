"""The world of real servers, started once for all tests of this folder and gone with them."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from rtls_analysis.store import Snapshot, open_snapshot
from rtls_analysis.verdicts import snapshot_rows
from tests.servers.oracle import Finding, ask_all
from tests.servers.prepare import CannotPrepare, ready_roots
from tests.servers.start import LOGS
from tests.servers.world import ALLOW_SPECIAL, DOMAINS, EHLO_NAME, RESOLVER, Listener

REPOSITORY = Path(__file__).parents[2]
PRIVATE = (
    "setpriv",
    "--pdeathsig",
    "KILL",
    "unshare",
    "-n",
    "-m",
    "-p",
    "-f",
    "--kill-child",
    "--mount-proc",
)
START_SECONDS = 200  # it takes fifteen on two cores that have nothing else to do

# Those who push back are visited once more, as on the Internet; nobody here minds being asked often.
MANNERS = {
    "own_addresses": True,
    "address_spacing": 0,
    "prefix_at_once": 8,
    "prefix_spacing": 0,
    "provider_at_once": 8,
    "provider_spacing": 0,
    "pause": 0.1,
    "longest_pause": 0.1,
    "retries": 1,
    "error_share": 1,
}

SCAN = """
import json, sys
import rtls_analysis as rtls
given = json.load(sys.stdin)
rtls.scan(given.pop("domains"), given.pop("out"), progress=False, **given)
"""


@dataclass(frozen=True)
class RunningWorld:
    """The world as it runs: its folder as seen from here, and the way into its namespaces."""

    folder: Path
    process_id: int
    missing: dict[str, str]  # server: why it is not there

    def run(
        self, argv: Sequence[str | Path], *, root: str = "", stdin: str = "", seconds: float = 250
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the world's network, on request inside a server's root."""
        way = ["setpriv", "--pdeathsig", "KILL", "nsenter", "-t", str(self.process_id), "-n"]
        if root:
            way += ["-m", "chroot", str(self.folder / "mnt" / root / "root")]
        return subprocess.run(
            [*way, *argv],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
            cwd=REPOSITORY,
        )

    def need(self, *rows: Listener) -> None:
        """Skip a test whose servers could not be prepared."""
        for row in rows:
            if row.server in self.missing:
                pytest.skip(self.missing[row.server])

    @property
    def scan_options(self) -> dict[str, Any]:
        """What a scan of this world needs to be told."""
        return {
            "resolver": RESOLVER,
            "ca_file": str(self.folder / "ca.pem"),
            "allow_special": list(ALLOW_SPECIAL),
            "ehlo_name": EHLO_NAME,
            "contact": "postmaster@plain.test",
        }

    def scan(self, out: Path, **more: Any) -> Snapshot:
        """Scan every domain of the world, from inside its network and with its resolver."""
        given = {"domains": [row.domain for row in DOMAINS], "out": str(out), "manners": MANNERS}
        stdin = json.dumps({**given, **self.scan_options, **more})
        done = self.run([sys.executable, "-c", SCAN], stdin=stdin)
        if done.returncode:
            pytest.fail(f"the scan ended with status {done.returncode}: {done.stderr[-3000:]}")
        return open_snapshot(out)

    def log(self, server: str) -> str:
        """Give a server's own log so far."""
        return (self.folder / "log" / server / LOGS[server]).read_text(errors="replace")


def _child_of(process: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorld]:
    """Start everything in namespaces of its own; skips with the reason where that cannot be."""
    try:
        roots, missing = ready_roots()
    except CannotPrepare as problem:
        pytest.skip(str(problem))
    trial = subprocess.run([*PRIVATE, "true"], capture_output=True, text=True, check=False)
    if trial.returncode:
        pytest.skip(f"no namespaces for the real servers here: {' '.join(trial.stderr.split())[:200]}")
    folder = tmp_path_factory.mktemp("world")
    (folder / "mnt").mkdir()
    script = 'mount -t tmpfs tmpfs "$0"; exec "$@"'  # gone with the namespace
    start = [sys.executable, "-m", "tests.servers.start", roots, folder, json.dumps(missing)]
    with (folder / "start.out").open("w") as errors:
        process = subprocess.Popen(
            [*PRIVATE, "sh", "-ec", script, folder / "mnt", *start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=REPOSITORY,
        )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        if not readable or process.stdout.readline() != "ready\n":
            pytest.fail(f"the real servers did not start: {(folder / 'start.out').read_text()[-3000:]}")
        yield RunningWorld(folder, _child_of(process), missing)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@dataclass(frozen=True)
class Scanned:
    """A scan of the world, and what each server logged while it ran."""

    snapshot: Snapshot
    logs: dict[str, str]

    @cached_property
    def _rows(self) -> dict[str, list[dict[str, Any]]]:
        return {name: snapshot_rows(self.snapshot, name) for name in ("domains", "mx", "hosts", "sessions")}

    def _row(self, table: str, **key: str) -> dict[str, Any]:
        """Give the one row of a table with these values; what does not apply is None."""
        (found,) = (row for row in self._rows[table] if all(row[name] == key[name] for name in key))
        return found

    def session(self, host: str, address: str) -> dict[str, Any]:
        return self._row("sessions", mx_host=host, address=address)

    def host(self, host: str) -> dict[str, Any]:
        return self._row("hosts", mx_host=host)

    def mx(self, domain: str, host: str) -> dict[str, Any]:
        return self._row("mx", domain=domain, mx_host=host)

    def domain(self, domain: str) -> dict[str, Any]:
        return self._row("domains", domain=domain)


@pytest.fixture(scope="session")
def scanned(world: RunningWorld, tmp_path_factory: pytest.TempPathFactory) -> Scanned:
    """Scan the world, and keep what its servers logged meanwhile."""
    before = _settled_logs(world)
    snapshot = world.scan(tmp_path_factory.mktemp("scan") / "snapshot")
    after = _settled_logs(world)
    return Scanned(snapshot, {server: after[server][len(before[server]) :] for server in after})


def _settled_logs(world: RunningWorld) -> dict[str, str]:
    """Wait until no log grows any more: the last line of a session is written after its end, sometime."""
    servers = [server for server in LOGS if server not in world.missing]
    said: dict[str, str] = {}
    quiet = 0
    while quiet < 4:
        time.sleep(0.4)
        now = {server: world.log(server) for server in servers}
        quiet = quiet + 1 if now == said else 0
        said = now
    return said


@pytest.fixture(scope="session")
def oracle(world: RunningWorld) -> Mapping[tuple[str, str], Finding]:
    """Ask posttls-finger about every host at each address, and about every domain."""
    return ask_all(world)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "world" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.servers)
