"""Make ``data/two-vantages``: ``python -m tests.servers.make_two_vantages``, run by hand, as root.

A real Postfix is scanned from two network namespaces by the two workers of a Dask cluster; it treats one of them otherwise
in a way that each of its hosts has for itself (`two_faced.FACES`).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from rtls_analysis.store import MANIFEST
from tests.servers.conftest import REPOSITORY
from tests.servers.test_vantages import scan_from_each, two_faced_world

TARGET = REPOSITORY / "data" / "two-vantages"


def main() -> None:
    """Scan, and put the snapshot in its place."""
    with tempfile.TemporaryDirectory() as name, two_faced_world(Path(name)) as world:
        snapshot = scan_from_each(world, Path(name) / "scan")
        shutil.rmtree(TARGET, ignore_errors=True)
        snapshot.save(TARGET)
    manifest = TARGET / MANIFEST
    told = json.loads(manifest.read_text())
    told["roots"]["source"] = "ca.pem"
    manifest.write_text(json.dumps(told, indent=2) + "\n")
    print(snapshot)


if __name__ == "__main__":
    main()
