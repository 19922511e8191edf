"""Hostile Received fields and TLS reports: exceptions, time that grows faster than the input, memory.

Run by hand: ``python tests/benchmarks/fuzz_mail.py [--seconds N] [--seed S]``. First pieces that are hard for parsers
are repeated to two lengths, and the times compared; then samples of the shared data and of the package's own are
damaged at random for the given time. It ends with an exit code of 1 if anything raised, and prints what was slowest.
"""

from __future__ import annotations

import argparse
import gzip
import io
import itertools
import json
import random
import resource
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from rtls_analysis.read.received import read_header, read_received
from rtls_analysis.read.tls_reports import find_reports
from rtls_analysis.standards.received import parse_received, why_not_requiretls

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
SHORT, LONG = 20_000, 160_000
PIECES_TEXT = (
    '( | (a | ((( | () | (() | ) | ; | " | \\ | \\( | [ | [1.2.3.4 | [:: | : | :: | a: | 1.2. | a@ | a. | . | - | = | a= | '
    "version= | cipher=a  | using TLSv1.2 with cipher | TLS: TLSv1,1bits, | helo= | HELO  | from  | by  | with  | id  | for  | via  | "
    "tls  | ESMTP/TLS/ | x encrypted  | 1 Jan 2020 10:00:00  | Jan 1 10:00:00  | 1 Jan | Mon,  | -0000 | a, | \r\n  | \r\n\t | \r | é | "
    'Received: | \n\n | --x\n | Content-Type: multipart/mixed; boundary=x\n\n--x\n | {"a": | [ | {"policies":[ | , | H4sI | PK\x03\x04 | \x1f\x8b\x08'
)
PIECES = PIECES_TEXT.split(" | ")


def samples() -> list[bytes]:
    """Messages, fields and reports to be damaged."""
    found = [(ROOT / "data" / "received-2019.eml").read_bytes()]
    for pattern in ("tlsrpt/reports/*", "tlsrpt/quirks/*.json", "received/*.txt", "dsn-lab/*/*/000[1-3].eml"):
        found += [path.read_bytes() for path in sorted(SHARED.glob(pattern))]
    fields = SHARED / "received" / "stalwart-received.json"
    if fields.exists():
        found += [
            f"Received: {entry['header'].strip()}\nFrom: a@b\n\n".encode()
            for entry in json.loads(fields.read_text())
        ]
    return found


def packed(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("r.json", gzip.compress(data, 1))
    return file.getvalue()


WORK: dict[str, Callable[[bytes], object]] = {
    "parse_received": lambda data: why_not_requiretls(parse_received(data.decode("utf-8", "replace"))),
    "read_header": read_header,
    "find_reports": find_reports,
}


def measure(work: Callable[[bytes], object], data: bytes) -> float:
    best = float("inf")
    for _ in range(2):
        begin = time.process_time()
        work(data)
        best = min(best, time.process_time() - begin)
    return best


def check_growth() -> list[tuple[float, float, str]]:
    """How much longer the longer text takes, for pieces and pairs of pieces: growth, seconds, what."""
    found = []
    pairs = [(one, "") for one in PIECES] + random.Random(7).sample(
        list(itertools.permutations(PIECES, 2)), 150
    )
    for (one, two), (name, work) in itertools.product(pairs, WORK.items()):
        short, long = (
            (one * (size // (2 * len(one))) + two * (size // 2 // max(len(two), 1))) for size in (SHORT, LONG)
        )
        mixed = (one + two) * (LONG // len(one + two))
        base = max(measure(work, short.encode()), 0.0005)
        for text in (long, mixed):
            taken = measure(work, text.encode())
            found.append((taken / base, taken, f"{name}: {one!r} {two!r}"))
    return sorted(found, reverse=True)


def damage(data: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.randrange(1, 6)):
        place, width = draw.randrange(len(data) + 1), draw.randrange(40)
        piece = draw.choice(
            (draw.randbytes(draw.randrange(8)), draw.choice(PIECES).encode(), data[place : place + width] * 2)
        )
        data = data[:place] + piece + data[place + draw.choice((0, width)) :]
    return data


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    arguments = parser.parse_args()
    growth = check_growth()
    print(f"{SHORT:,} to {LONG:,} bytes, 8 times as many: the longest times and the steepest growth")
    for steep, taken, what in sorted(growth, key=lambda item: -item[1])[:3] + growth[:3]:
        print(f"  {taken * 1000:>8,.1f} ms  {steep:>6.1f} times  {what}")

    draw, seeds = random.Random(arguments.seed), samples()
    runs, failures, slowest = 0, 0, (0.0, "")
    end = time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        data = damage(draw.choice(seeds), draw)
        if runs % 10 == 0:
            data = packed(data)
        for name, work in {
            **WORK,
            "read_received": lambda d: read_received(io.BytesIO(d), progress=False),
        }.items():
            if name == "read_received" and runs % 20:
                continue
            begin = time.process_time()
            try:
                work(data)
            except Exception as error:  # that is what is looked for
                failures += 1
                print(f"{name} raised {error!r} on {data[:200]!r}", file=sys.stderr)
            slowest = max(slowest, (time.process_time() - begin, f"{name} on {len(data):,} bytes"))
        runs += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{runs:,} damaged inputs, {failures} exceptions, slowest {slowest[0] * 1000:,.0f} ms ({slowest[1]}), peak {peak} MiB"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
