"""A real Postfix seen from two network namespaces: what differs is told, with the reason that its settings are."""

from __future__ import annotations

import json
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pandas as pd
import pytest

import rtls_analysis as rtls
from rtls_analysis.analysis import compare_vantages, vantage_reasons
from rtls_analysis.store import Snapshot
from tests.servers.conftest import PRIVATE, REPOSITORY, START_SECONDS, _child_of
from tests.servers.namespaces import Place, inside, places, why_not
from tests.servers.prepare import CannotPrepare, ready_roots
from tests.servers.two_faced import DNS_PORT, FACES, PREFIX, Face, log_of
from tests.servers.world import P11

RESOLVER = f"127.0.0.1:{DNS_PORT}"
MANNERS = """
[manners]
own_addresses = true
address_spacing = 0.2
prefix_spacing = 0.2
provider_spacing = 0.2
pause = 0.5
longest_pause = 0.5
retries = 1
error_share = 1
"""


@dataclass(frozen=True)
class TwoFacedWorld:
    """A Postfix, and two places from which it is seen, each with a resolver on its own loopback."""

    folder: Path
    hub: int  # a process where the servers are
    places: dict[str, Place]

    @property
    def log(self) -> str:
        """What Postfix logged so far."""
        return log_of(self.folder).read_text(errors="replace")

    def options(self, name: str) -> dict[str, str]:
        """What a scan from a place is told, by the names of the command line."""
        return {
            "vantage": name,
            "source": self.places[name].address,
            "ehlo-name": f"{name}.example.org",
            "contact": f"{name}@example.org",
            "resolver": RESOLVER,
            "ca-file": str(self.folder / "ca.pem"),
            "allow-special": f"{PREFIX}.0/24",
            "config": str(self.folder / "manners.toml"),
        }


@contextmanager
def two_faced_world(folder: Path, names: tuple[str, ...] = ("ams", "bos")) -> Iterator[TwoFacedWorld]:
    """Start the Postfix and make the places; skips with the reason where that cannot be."""
    try:
        roots, missing = ready_roots()
    except CannotPrepare as problem:
        pytest.skip(str(problem))
    if reason := missing.get(P11) or why_not():
        pytest.skip(reason)
    (folder / "mnt").mkdir()
    (folder / "manners.toml").write_text(MANNERS)
    with ExitStack() as stack:
        script = 'mount -t tmpfs tmpfs "$0"; exec "$@"'  # gone with the namespace
        begin = [*PRIVATE, "sh", "-ec", script, str(folder / "mnt")]
        hub = _child_of(_started(stack, [*begin, *_module("mail", roots, folder)], folder / "mail.out"))
        made = stack.enter_context(places(hub, names))
        for name, place in made.items():
            _started(stack, [*place.prefix, *_module("names", folder)], folder / f"{name}.out")
        (far,) = (face.address for face in FACES if face.reason == "unreachable")
        done = made[names[1]].run(["ip", "route", "add", "unreachable", f"{far}/32"])
        assert done.returncode == 0, done.stderr
        yield TwoFacedWorld(folder, hub, made)


def _module(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "tests.servers.two_faced", *map(str, words)]


def _started(stack: ExitStack, command: list[str], said: Path) -> subprocess.Popen[str]:
    """Start a process that ends with the stack, and wait until it is ready."""
    with said.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=REPOSITORY,
        )
    stack.callback(_end, process)
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    if not readable or process.stdout.readline() != "ready\n":
        pytest.fail(f"{' '.join(command[-4:])} did not start: {said.read_text()[-3000:]}")
    return process


def _end(process: subprocess.Popen[str]) -> None:
    streams: list[IO[str]] = [stream for stream in (process.stdin, process.stdout) if stream is not None]
    streams[0].close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    streams[-1].close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoFacedWorld]:
    with two_faced_world(tmp_path_factory.mktemp("two-faced")) as running:
        yield running


@pytest.fixture(scope="module")
def seen(world: TwoFacedWorld, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Snapshot]:
    """Scans of all domains by ``rtls scan`` in each of the two namespaces."""
    folder = tmp_path_factory.mktemp("scans")
    found = {}
    for name, place in world.places.items():
        options = [f"--{option}={value}" for option, value in world.options(name).items()]
        domains = [face.domain for face in FACES]
        command = [
            sys.executable,
            "-m",
            "rtls_analysis.cli",
            "scan",
            *domains,
            "-o",
            folder / name,
            "--quiet",
        ]
        done = place.run([*command, *options])
        assert done.returncode == 0, done.stderr
        found[name] = rtls.open_snapshot(folder / name)
    return found


def test_each_place_names_itself(world: TwoFacedWorld, seen: dict[str, Snapshot]) -> None:
    """Tables and manifest say from where it was seen, and by whom; the manners held towards the servers."""
    for name, snapshot in seen.items():
        assert snapshot.is_complete
        assert snapshot.vantages == [name]
        place = snapshot.manifest["vantage"]
        assert (place["name"], place["ehlo_name"]) == (name, f"{name}.example.org")
        assert (place["source"], place["ipv4"]) == ([world.places[name].address], True)
        assert set(snapshot.attempts["vantage"]) == {name}
        assert rtls.audit(snapshot).empty
        assert set(snapshot.hosts["tlsa_state"]) == {"usable"}


def test_the_server_saw_both_addresses_and_names(world: TwoFacedWorld, seen: dict[str, Snapshot]) -> None:
    """Its own log has each client by its address, greeting with the name of that place and no other."""
    for name, place in world.places.items():
        assert place.address != place.gateway
        lines = [line for line in world.log.splitlines() if f"[{place.address}]" in line]
        assert any(": connect from" in line for line in lines)
        said = {match[1] for line in lines if (match := re.search(r"< \S+: EHLO (\S+)", line))}
        assert said == {f"{name}.example.org"}
    clients = set(re.findall(r": connect from \S*\[([\d.]+)\]", world.log))
    assert clients == {place.address for place in world.places.values()}


@pytest.mark.parametrize("face", [pytest.param(face, id=face.domain) for face in FACES])
def test_what_differs_has_the_reason_that_the_server_has(face: Face, seen: dict[str, Snapshot]) -> None:
    """Where Postfix, or the way to it, treats one of the places otherwise the comparison says how, and where."""
    row = compare_vantages(seen["ams"], seen["bos"]).set_index("mx_host").loc[face.host]
    assert (row["first"], row["second"], row["address"]) == ("ams", "bos", face.address)
    if face.reason:
        assert (row["verdict"], row["reason"], row["at"]) == ("differs", face.reason, "bos")
    else:
        assert (row["verdict"], row["reasons"]) == ("same", ())


def test_what_one_place_sees_is_no_word_on_the_other(seen: dict[str, Snapshot]) -> None:
    """Mail from the first place could be authenticated everywhere; from the second only where it is not hindered."""
    starttls = {
        name: snapshot.domains.set_index("domain")["starttls"].to_dict() for name, snapshot in seen.items()
    }
    assert set(starttls["ams"].values()) == {"all"}
    assert starttls["bos"] == {
        "same.test": "all",
        "blocks.test": "unknown",
        "strips.test": "none",
        "hides.test": "all",
        "far.test": "unknown",
    }
    ready = {
        name: snapshot.domains.set_index("domain")["requiretls_ready"].to_dict()
        for name, snapshot in seen.items()
    }
    assert set(ready["ams"].values()) == {"all"}
    assert [domain for domain, word in ready["bos"].items() if word == "all"] == ["same.test"]


def test_reasons_are_counted(seen: dict[str, Snapshot]) -> None:
    """A server counts once, by its first reason."""
    table = vantage_reasons(seen["ams"], seen["bos"])
    counts = table["numerator"].droplevel(["first", "second", "verdict"])
    expected = {face.reason: 1 for face in FACES}
    assert {reason: count for reason, count in counts.items() if count} == expected
    assert set(table["denominator"]) == {len(FACES)}


# -- every target from each place, by the workers of a cluster -----------------------------------------------

BY_CLUSTER = """
import json, sys
import rtls_analysis as rtls
from tests.cluster import cluster
given = json.load(sys.stdin)
with cluster(workers=2, **given["cluster"]) as running, running.client() as client:
    rtls.scan(given["domains"], given["out"], client=client, progress=False, vantage="each", **given["options"])
"""


def scan_from_each(world: TwoFacedWorld, out: Path) -> Snapshot:
    """Scan by two workers, one in each namespace, the scheduler being where the servers are."""
    own = [world.options(name) for name in world.places]
    given = {
        "domains": [face.domain for face in FACES],
        "out": str(out),
        "cluster": {
            "host": next(iter(world.places.values())).gateway,
            "worker_hosts": [place.address for place in world.places.values()],
            "prefixes": [place.prefix for place in world.places.values()],
            "environments": [
                {
                    "RTLS_VANTAGE": words["vantage"],
                    "RTLS_SOURCE": words["source"],
                    "RTLS_EHLO_NAME": words["ehlo-name"],
                    "RTLS_CONTACT": words["contact"],
                }
                for words in own
            ],
        },
        "options": {
            "ehlo_name": "caller.example.org",
            "contact": "caller@example.org",
            "resolver": RESOLVER,
            "ca_file": own[0]["ca-file"],
            "allow_special": [own[0]["allow-special"]],
            "config": own[0]["config"],
        },
    }
    done = subprocess.run(
        [*inside(world.hub), sys.executable, "-c", BY_CLUSTER],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return rtls.open_snapshot(out)


@pytest.fixture(scope="module")
def each(world: TwoFacedWorld, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return scan_from_each(world, tmp_path_factory.mktemp("each") / "scan")


def test_one_scan_from_each_place_is_a_scan_from_both(
    world: TwoFacedWorld, seen: dict[str, Snapshot], each: Snapshot
) -> None:
    """What each worker sees from its place is what a scan from there alone sees, and differs for the same reasons."""
    assert each.is_complete
    assert each.vantages == ["ams", "bos"]
    for name, alone in seen.items():
        one = each.from_vantage(name)
        assert one.manifest["vantage"]["source"] == [world.places[name].address]
        for table, key, words in (
            ("domains", ["domain"], ["starttls", "pkix", "dane", "requiretls_ready", "obstacle"]),
            ("mx", ["domain", "mx_host"], ["dane", "requiretls_ready", "secured_by", "obstacle"]),
            (
                "sessions",
                ["mx_host", "address"],
                ["outcome", "attempts", "starttls", "requiretls_tls", "pkix"],
            ),
        ):
            found, expected = (
                snapshot.table(table).set_index(key)[words].astype(str).sort_index()
                for snapshot in (one, alone)
            )
            pd.testing.assert_frame_equal(found, expected)
    columns = ["mx_host", "verdict", "reason", "at"]
    found = compare_vantages(each)[columns].sort_values("mx_host", ignore_index=True)
    expected = compare_vantages(seen["ams"], seen["bos"])[columns].sort_values("mx_host", ignore_index=True)
    pd.testing.assert_frame_equal(found, expected)
    assert rtls.audit(each).empty
