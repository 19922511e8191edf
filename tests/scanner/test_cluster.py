"""A scan by the workers of a cluster: the same tables as on one machine, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rtls_analysis as rtls
from rtls_analysis.lab import Lab
from tests.cluster import Running, cluster
from tests.lab.truth import differences, disagreements, rows_by_key
from tests.s3 import s3_server
from tests.scanner.test_campaign import (
    SLOW,
    of_many_kinds,
    scan_command,
    visits,
    visits_said,
    wait_for,
    with_manners,
)

Options = dict[str, Any]


@pytest.fixture(scope="module")
def dask() -> Iterator[Running]:
    """A scheduler and two workers, of a vantage that has no name of its own."""
    with cluster(workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def domains(lab: Lab) -> list[str]:
    return of_many_kinds(lab, 60)


@pytest.fixture(scope="module")
def slow(lab: Lab) -> Options:
    """Options under which a scan takes some seconds, at manners that hold for the lab too."""
    return with_manners(lab, SLOW)


@pytest.fixture(scope="module")
def undisturbed(domains: list[str], slow: Options) -> rtls.Snapshot:
    return rtls.scan(domains, **slow)


def test_the_whole_lab(lab: Lab, dask: Running, scanned: rtls.Snapshot, tmp_path: Path) -> None:
    """A thousand domains by two workers: every table as on one machine, and as the lab's truth has it."""
    with dask.client() as client:
        snapshot = rtls.scan(
            lab.domains, tmp_path / "scan", client=client, progress=False, **lab.scan_options
        )
    assert snapshot.is_complete
    assert differences(snapshot, scanned) == []
    assert disagreements(lab, snapshot) == []
    assert visits(snapshot) == visits_said(snapshot)
    assert {part.name.split("-")[1] for part in (tmp_path / "scan" / "sessions").iterdir()} >= {"c1", "c2"}
    assert differences(rtls.judge(snapshot), snapshot) == []
    assert [place["workers"] for place in snapshot.manifest["vantages"]] == [2]
    assert not (tmp_path / "scan" / "_work").exists()


def test_in_memory_and_by_command(
    dask: Running, domains: list[str], slow: Options, undisturbed: rtls.Snapshot, tmp_path: Path
) -> None:
    """Without a directory the tables stay in memory; `rtls scan --scheduler` does the same by address."""
    snapshot = rtls.scan(domains, client=dask.address, **slow)
    assert snapshot.path is None
    assert differences(snapshot, undisturbed) == []
    assert rtls.audit(snapshot).empty
    words = [*scan_command(domains, slow, tmp_path), "--scheduler", dask.address]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert differences(rtls.open_snapshot(tmp_path / "scan"), undisturbed) == []


@pytest.mark.parametrize("lines", [30, 150])
def test_a_worker_that_is_killed(
    domains: list[str], slow: Options, undisturbed: rtls.Snapshot, tmp_path: Path, lines: int
) -> None:
    """Its share is resumed: no row is missing or twice, nobody is visited again but who was just being visited."""
    out = tmp_path / "scan"
    with cluster(workers=2) as running, running.client() as client:

        def kill() -> None:
            wait_for(out, lines)
            os.kill(running.worker_pids()[0], signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        snapshot = rtls.scan(domains, out, client=client, **slow)
        thread.join()
    assert snapshot.is_complete
    assert differences(snapshot, undisturbed) == []
    assert len(snapshot.manifest["worker_deaths"]) == 1
    again = visits(snapshot) - visits_said(snapshot)
    assert not visits_said(snapshot) - visits(snapshot)
    assert again.total() <= slow["concurrency"]
    assert rtls.audit(snapshot).empty


def test_a_snapshot_on_an_object_store(domains: list[str], slow: Options, undisturbed: rtls.Snapshot) -> None:
    """Two workers write to S3, one is killed meanwhile, and the same address gives the tables of one machine."""
    with s3_server() as s3, cluster(workers=2, environment=s3.environment) as running:
        out = s3.address("scan")
        killed = threading.Event()

        def kill() -> None:
            files = s3.file_system()
            until = time.monotonic() + 60
            while time.monotonic() < until:
                if any("/sessions-c" in name for name in files.find(f"{s3.bucket}/scan/_work")):
                    os.kill(running.worker_pids()[0], signal.SIGKILL)
                    killed.set()
                    return
                time.sleep(0.05)

        thread = threading.Thread(target=kill)
        thread.start()
        snapshot = rtls.scan(domains, out, client=running.address, **slow)
        thread.join()
        assert killed.is_set()
        assert snapshot.address == out
        assert snapshot.path is None
        read = rtls.open_snapshot(out)
        assert differences(read, undisturbed) == []
        assert rtls.audit(read).empty
        assert not s3.file_system().find(f"{s3.bucket}/scan/_work")
        again = rtls.scan(domains, out, client=running.address, **slow)
        assert differences(again, read) == []
        done = subprocess.run(
            [sys.executable, "-m", "rtls_analysis.cli", "show", out], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "59 domains" in done.stdout


def test_an_interrupt_keeps_what_was_done(
    dask: Running, domains: list[str], slow: Options, undisturbed: rtls.Snapshot, tmp_path: Path
) -> None:
    """Ctrl-C takes the shares back; the same scan goes on later, on one machine as well."""
    out = tmp_path / "scan"

    def interrupt() -> None:
        wait_for(out, 150)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with dask.client() as client, pytest.raises(rtls.ScanInterrupted) as caught:
        rtls.scan(domains, out, client=client, **slow)
    thread.join()
    assert 0 < len(caught.value.snapshot.sessions) < len(undisturbed.sessions)
    resumed = rtls.scan(domains, out, **slow)
    assert differences(resumed, undisturbed) == []
    assert visits(resumed) == visits_said(resumed)
    assert rtls.audit(resumed).empty


def test_a_scan_that_is_killed(
    dask: Running, domains: list[str], slow: Options, undisturbed: rtls.Snapshot, tmp_path: Path
) -> None:
    """Its workers stop by themselves, and the same command goes on where they were."""
    out = tmp_path / "scan"
    words = [*scan_command(domains, slow, tmp_path), "--scheduler", dask.address, "--quiet"]
    process = subprocess.Popen(words)
    wait_for(out, 150, lambda: process.poll() is not None)
    process.kill()
    process.wait()
    assert subprocess.run(words).returncode == 0
    snapshot = rtls.open_snapshot(out)
    assert differences(snapshot, undisturbed) == []
    assert visits(snapshot) == visits_said(snapshot)
    assert rtls.audit(snapshot).empty


def test_two_vantages(lab: Lab, domains: list[str], slow: Options, undisturbed: rtls.Snapshot) -> None:
    """Each worker says from where it looks; between them they contact everybody once."""
    with two_places() as running, running.client() as client:
        snapshot = rtls.scan(domains, client=client, **slow)
    places = Counter(snapshot.sessions["vantage"])
    assert set(places) == {"left", "right"}
    assert visits(snapshot) == visits_said(snapshot)
    assert {place["ehlo_name"] for place in snapshot.manifest["vantages"]} == {"a.example", "b.example"}
    assert rtls.audit(snapshot).empty
    whole = rows_by_key(undisturbed, "domains")
    for key, row in rows_by_key(snapshot, "domains").items():
        assert row["obstacle"] == whole[key]["obstacle"], key


def two_places() -> Any:
    return cluster(
        workers=2,
        environments=[
            {"RTLS_VANTAGE": "left", "RTLS_EHLO_NAME": "a.example"},
            {"RTLS_VANTAGE": "right", "RTLS_EHLO_NAME": "b.example"},
        ],
    )


def test_every_target_from_each_vantage(
    domains: list[str], slow: Options, undisturbed: rtls.Snapshot, tmp_path: Path
) -> None:
    """Each place's tables are those of a scan of its own, and the manners held over both together."""
    with two_places() as running, running.client() as client:
        snapshot = rtls.scan(domains, tmp_path / "scan", client=client, vantage="each", **slow)
    assert snapshot.vantages == ["left", "right"]
    judged = rtls.judge(snapshot)
    for name in snapshot.vantages:
        own = snapshot.from_vantage(name)
        assert differences(judged.from_vantage(name), own) == []
        assert len(own.sessions) == len(undisturbed.sessions)
        assert differences(own, undisturbed, but=["vantage"]) == []
        assert visits(own) == visits_said(own)
    assert rtls.audit(snapshot).empty


AHEAD = """
import time
real = time.time
time.time = lambda: real() + 3
"""


def test_clocks_that_differ(domains: list[str], slow: Options, tmp_path: Path) -> None:
    """Who takes turns by the clock, and says by it when a server was contacted, has the time that others have."""
    (tmp_path / "sitecustomize.py").write_text(AHEAD)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    line = r"the clock of the worker tcp://\S+ is [23]\.\d seconds ahead of that of tcp://\S+; set them"
    with (
        cluster(workers=2, environments=[{}, {"PYTHONPATH": path}]) as running,
        pytest.raises(rtls.ScanProblem, match=line),
    ):
        rtls.scan(domains, tmp_path / "scan", client=running.address, **slow)


def test_what_the_caller_does_wrong(lab: Lab, dask: Running, tmp_path: Path) -> None:
    """One clear line each."""
    given = {**lab.scan_options, "progress": False}
    with pytest.raises(rtls.ClusterProblem, match=r"no Dask scheduler at tcp://127\.0\.0\.1:1"):
        rtls.scan(lab.domains[:2], client="tcp://127.0.0.1:1", **given)
    with pytest.raises(rtls.ClusterProblem, match="int is no Dask client"):
        rtls.scan(lab.domains[:2], client=7, **given)
    with pytest.raises(
        rtls.ScanProblem, match=r"the worker tcp://\S+ does not see memory://scan; give a directory"
    ):
        rtls.scan(lab.domains[:2], "memory://scan", client=dask.address, **given)
    with dask.client() as client:
        pass
    with pytest.raises(rtls.ClusterProblem, match="the Dask client is closed; connect another one"):
        rtls.scan(lab.domains[:2], client=client, **given)
    with cluster(workers=0) as empty, pytest.raises(rtls.ClusterProblem, match="has no worker; start one"):
        rtls.scan(lab.domains[:2], client=empty.address, **given)
    code = (
        "import sys; sys.modules['distributed'] = None; from rtls_analysis.cli import main; sys.exit(main())"
    )
    words = [
        "scan",
        lab.domains[0],
        "--scheduler",
        dask.address,
        "--ehlo-name",
        "a.example",
        "--contact",
        "a@b.example",
    ]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "rtls: a cluster needs Dask; install it with: pip install 'rtls_analysis[dask]'\n"
