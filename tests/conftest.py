"""One lab for the whole session, and scans of it that many tests look at."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib as mpl
import pytest
from hypothesis import HealthCheck, settings

import rtls_analysis as rtls
from rtls_analysis.lab import Lab
from tests.s3 import S3, s3_server

mpl.use("agg")

# A shell that starts us in the background has interrupts ignored, here and in what we start: tests send some.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Programs that tests start, kernels of notebooks too, are to run the package that the tests import, wherever they run.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(Path(rtls.__file__).parents[1]), os.environ.get("PYTHONPATH")))
)

# The same examples every time, however slow the machine; others with ``--hypothesis-profile explore``.
slow = [HealthCheck.too_slow]
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=slow)
settings.register_profile("explore", deadline=None, suppress_health_check=slow)
settings.load_profile("same")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    """An S3 server of this module's own."""
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab of 1,000 domains: first one of each kind, the quick ones before the tarpits."""
    with rtls.start_lab(1000) as running:
        yield running


@pytest.fixture(scope="session")
def scans(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[int, rtls.Snapshot]:
    """The whole lab, scanned to directories in one process and by two: snapshots by the number of processes."""
    folder = tmp_path_factory.mktemp("scans")

    def scan(workers: int) -> rtls.Snapshot:
        out = folder / str(workers)
        return rtls.scan(lab.domains, out, workers=workers, progress=False, **lab.scan_options)

    with ThreadPoolExecutor(
        2
    ) as pool:  # at the same time, for most of it is waiting for those that are silent
        return dict(zip((1, 2), pool.map(scan, (1, 2)), strict=True))


@pytest.fixture(scope="session")
def scanned(scans: dict[int, rtls.Snapshot]) -> rtls.Snapshot:
    """The whole lab, scanned in one process."""
    return scans[1]


@pytest.fixture
def tiny(lab: Lab, tmp_path: Path) -> rtls.Snapshot:
    """A scan of a few domains, in a directory of the test's own."""
    return rtls.scan(lab.domains[:20], tmp_path / "tiny", progress=False, **lab.scan_options)
