"""A scan whose snapshot lies at an address: the same tables as in a directory, by one process and by several."""

from __future__ import annotations

import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

import rtls_analysis as rtls
from rtls_analysis import storage
from rtls_analysis.lab import Lab
from rtls_analysis.storage import open_folder
from tests.lab.truth import differences, disagreements
from tests.s3 import S3, fresh_address
from tests.scanner.test_campaign import (
    SLOW,
    of_many_kinds,
    scan_command,
    visits,
    visits_said,
    with_manners,
)

Options = dict[str, Any]


@pytest.fixture(params=["memory", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where nothing is yet."""
    return fresh_address(request.param, request, tmp_path)


@pytest.fixture(scope="module")
def domains(lab: Lab) -> list[str]:
    return of_many_kinds(lab, 60)


@pytest.fixture(scope="module")
def options(lab: Lab) -> Options:
    return with_manners(lab, SLOW)


@pytest.fixture(scope="module")
def undisturbed(
    domains: list[str], options: Options, tmp_path_factory: pytest.TempPathFactory
) -> rtls.Snapshot:
    return rtls.scan(domains, tmp_path_factory.mktemp("undisturbed") / "scan", **options)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_tables_are_those_of_a_directory(
    address: str, workers: int, lab: Lab, domains: list[str], options: Options, undisturbed: rtls.Snapshot
) -> None:
    """What is looked up is read back from there to plan the contacts, and what came of them to judge it."""
    snapshot = rtls.scan(domains, address, workers=workers, **options)
    assert snapshot.is_complete
    assert snapshot.address == address
    assert differences(snapshot, undisturbed) == []
    assert disagreements(lab, snapshot, domains) == []
    assert visits(snapshot) == visits_said(snapshot)
    assert rtls.audit(snapshot).empty
    folder = open_folder(address)
    assert folder.list("_work") == []
    again = rtls.scan(domains, address, **{**options, "resolver": "127.0.0.1:1"})  # where nobody answers
    assert differences(again, snapshot) == []


def test_a_plan_is_gone_on_with(
    address: str, domains: list[str], options: Options, undisturbed: rtls.Snapshot
) -> None:
    """What was looked up for the plan is not looked up again."""
    planned = rtls.scan(domains, address, plan_only=True, **options)
    assert (len(planned.hosts), len(planned.sessions)) == (len(undisturbed.hosts), 0)
    assert planned.manifest["plan"] == undisturbed.manifest["plan"]
    snapshot = rtls.scan(domains, address, **options)
    assert differences(snapshot, undisturbed) == []
    times = [
        dict(zip(seen.hosts["mx_host"], seen.hosts["resolved_at"], strict=True))
        for seen in (planned, snapshot)
    ]
    assert times[0] == times[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_scan_goes_on(
    s3: S3, workers: int, domains: list[str], options: Options, undisturbed: rtls.Snapshot, tmp_path: Path
) -> None:
    """What had reached the object store stays; whom the rest was about is visited again, after the lease ran out."""
    out = s3.address(f"{uuid.uuid4().hex}/scan")
    folder = open_folder(out)
    command = [*scan_command(domains, options, tmp_path)[:-1], out, "--workers", str(workers)]
    process = subprocess.Popen(command)
    until = time.monotonic() + 60
    while not any("/sessions-" in name for name in folder.list("_work")):
        assert process.poll() is None
        assert time.monotonic() < until, "the scan does not get on"
        time.sleep(0.05)
    process.kill()
    process.wait()
    kept = rtls.open_snapshot(out).count("sessions")
    assert subprocess.run(command).returncode == 0
    snapshot = rtls.open_snapshot(out)
    assert kept < len(snapshot.sessions)
    assert differences(snapshot, undisturbed) == []
    assert rtls.audit(snapshot).empty
    again = visits(snapshot) - visits_said(snapshot)
    assert again.total() <= options["concurrency"]


def test_what_does_not_show_what_was_written_is_no_finished_scan(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that hides a journal ends the scan with a line; once it shows it, the same call completes it."""
    real, hidden = storage.LocalFolder.list, True

    def hides(self: storage.LocalFolder, folder: str, pattern: str = "*") -> list[str]:
        names = real(self, folder, pattern)
        return [name for name in names if not (hidden and "/hosts-" in name)]

    monkeypatch.setattr(storage.LocalFolder, "list", hides)
    given: Options = {**lab.scan_options, "progress": False}
    out = tmp_path / "scan"
    with pytest.raises(
        rtls.ScanStopped, match=r"scan shows \d+ of 20 domains that are done; run the same scan again"
    ):
        rtls.scan(lab.domains[:20], out, **given)
    assert rtls.open_snapshot(out).manifest["state"] == "stopped"
    hidden = False
    snapshot = rtls.scan(lab.domains[:20], out, **given)
    assert snapshot.is_complete
    assert len(snapshot.domains) == 20
    assert disagreements(lab, snapshot, lab.domains[:20]) == []
