"""Make ``data/lab-series``: one small world of the lab, scanned at three dates between which it changes.

``python -m tests.make_lab_series [FOLDER]``, run by hand; it needs the program ``faketime`` (Debian: faketime), so that the
servers, their certificates and the scanner agree on the date. What changes is written in `CHANGES` and `Later`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import rtls_analysis as rtls
from rtls_analysis.lab import Lab
from rtls_analysis.lab import __main__ as lab_main
from rtls_analysis.lab.kinds import DOMAINS, DomainKind
from rtls_analysis.lab.world import PROVIDERS, World
from rtls_analysis.schema import SNAPSHOT_TABLES
from rtls_analysis.store import MANIFEST, ROOTS

FOLDER = Path(__file__).parents[1] / "data" / "lab-series"
DATES = ("2026-05-04", "2026-08-03", "2026-11-02")
DRAWN = 150
SEED = 8689
SIZE = len(DOMAINS) + DRAWN

CHANGES: tuple[dict[str, tuple[tuple[int, str], ...]], ...] = (
    {},
    {
        "cheaphost.test": ((0, "valid"),),  # its certificate gets the right name
        "onehost.test": ((10, "dane_311"), (20, "dane_311")),  # it announces REQUIRETLS
    },
    {"outpost.test": ((0, "requiretls"),)},  # so does a large one
)
"""The hosts of providers that change from a date on."""


class Later(World):
    """The world as drawn, and what became of its own hosts by a date: each domain has its own fate.

    Of the domains with a valid certificate and a host of their own, a part turns on REQUIRETLS, a part secures its MX
    names, and a few let their certificate expire.
    """

    def __init__(self, date: int) -> None:
        self.date = date
        self.drawn = 0
        for changes in CHANGES[: date + 1]:
            for name, hosts in changes.items():
                PROVIDERS[name] = replace(PROVIDERS[name], hosts=hosts)
        super().__init__(SIZE, SEED)

    def _drawn(self, random_: random.Random) -> DomainKind:
        kind = super()._drawn(random_)
        self.drawn += 1
        fate = random.Random(self.drawn)
        expires, turns_on, secures = (fate.random() for _ in range(3))
        if kind.hosts == ((10, "valid"),):
            if expires < 0.1 * self.date:
                kind = replace(kind, hosts=((10, "expired"),))
            elif turns_on < 0.3 * self.date:
                kind = replace(kind, hosts=((10, "requiretls"),))
        is_late = kind.sts == "testing" and self.date == 2
        is_new = kind.sts == "absent" and secures < 0.2 * self.date
        if kind.name == "drawn" and kind.mx_state == "mx" and (is_new or is_late):
            kind = replace(kind, sts="enforce")
        return kind


def targets(world: World, date: int) -> list[tuple[str, int]]:
    """Give the list that is scanned: drawn domains with ranks; a few leave it, a few enter."""
    names = list(world.domains)[len(DOMAINS) :]
    ranked = [(name, round(10 ** (6 * (place + 1) / DRAWN))) for place, name in enumerate(names)]
    return [
        row
        for place, row in enumerate(ranked)
        if not (place % 17 == 5 and date >= 1 + place % 2) and not (place % 13 == 3 and date < 1 + place % 2)
    ]


def serve(date: int) -> None:
    """Be the servers: what ``python -m rtls_analysis.lab`` does, with the world of that date."""
    vars(lab_main)["World"] = lambda *_arguments: Later(date)
    sys.argv = ["lab", "--domains", str(SIZE)]
    lab_main.main()


@contextmanager
def running(date: int) -> Iterator[Lab]:
    """Start the servers of a date."""
    command = [sys.executable, "-m", __spec__.name, "--serve", str(date)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with Lab(Later(date), process, json.loads(process.stdout.readline())) as lab:
        yield lab


def scan(date: int, out: Path) -> None:
    """Scan the world of a date, which is today's for this process, and keep the snapshot as small as it goes."""
    with running(date) as lab, tempfile.TemporaryDirectory() as work:
        options = lab.scan_options | {"seed": SEED}
        found = rtls.scan(targets(Later(date), date), Path(work) / "scan", progress=False, **options)
        found.manifest["roots"]["source"] = "the lab"  # not where on this machine it lay
        found.save(out)


def main() -> None:
    """Make the three snapshots, each by a process that lives at its date."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    if shutil.which("faketime") is None:
        sys.exit("faketime is needed: apt-get install faketime")
    for date, day in enumerate(DATES):
        out = folder / day
        shutil.rmtree(out, ignore_errors=True)
        command = [
            "faketime",
            "-f",
            f"@{day} 09:00:00",
            sys.executable,
            "-m",
            __spec__.name,
            "--scan",
            str(date),
            str(out),
        ]
        subprocess.run(command, check=True, env=os.environ | {"TZ": "UTC"})
        kept = [MANIFEST, ROOTS, *(table.name for table in SNAPSHOT_TABLES)]
        size = sum(
            path.stat().st_size
            for name in kept
            for path in [out / name, *(out / name).glob("*")]
            if path.is_file()
        )
        print(f"{out}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    match sys.argv[1:2]:
        case ["--serve"]:
            serve(int(sys.argv[2]))
        case ["--scan"]:
            scan(int(sys.argv[2]), Path(sys.argv[3]))
        case _:
            main()
