"""Fuzz the DSN reader and the walk over mail files; run by hand, prints what it found.

``python tests/fuzz/dsns.py mutate --minutes 10 FOLDER...`` cuts, doubles, swaps and splices the bytes of the messages
there, reads each mutant as a message and, packed now and then, as a file. ``python tests/fuzz/dsns.py grow`` feeds what
is made to be dear, in sizes that double. Found is: an exception; more than 50 ms and 2 us per byte for a mutant; time
that grows by more than 3 where the size doubles; more memory than 64 MB above the start.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import importlib.util
import io
import lzma
import random
import resource
import sys
import time
import traceback
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from rtls_analysis.read.dsn_message import read_notice
from rtls_analysis.read.mail_files import MailFiles

PIECES = [
    b"\n\n", b"\n", b"\r", b"\0", b"\xff\xfe", b"--", b"=?utf-8?Q?", b"?=", b"<", b">", b"@", b":", b";", b'"', b"\\x{", b"+20",
    b"Content-Type: multipart/report; boundary=x\n\n", b"Content-Transfer-Encoding: base64\n", b"From x Mon Nov 23 16:32:12 2026\n",
    b"Final-Recipient: rfc822; a@b.test\n", b"Content-Type: message/rfc822\n\n", b"Status: 5.7.30\n", b"(" * 50, b"a" * 5000,
]  # fmt: skip
PACKERS = [gzip.compress, bz2.compress, lzma.compress]


def _mutant(dice: random.Random, messages: list[bytes]) -> bytes:
    message = dice.choice(messages)
    for _ in range(dice.randrange(1, 8)):
        begin = dice.randrange(len(message) + 1)
        end = min(begin + int(dice.expovariate(1 / 80)), len(message))
        other = dice.choice(messages)
        place = dice.randrange(len(other) + 1)
        new = dice.choice(
            [b"", message[begin:end] * dice.randrange(2, 50), dice.choice(PIECES), dice.randbytes(end - begin),
             other[place : place + 400], bytes(reversed(message[begin:end])), message[begin:end].upper()]
        )  # fmt: skip
        message = message[:begin] + new + message[end:]
    return message[: 1 << 20]


def _mutate(folders: list[Path], minutes: float, seed: int) -> int:
    messages = [path.read_bytes()[: 1 << 16] for folder in folders for path in folder.rglob("*.eml")]
    dice = random.Random(seed)
    end = time.monotonic() + 60 * minutes
    count = size = rows = found = 0
    slowest = 0.0
    while time.monotonic() < end:
        mutant = _mutant(dice, messages)
        begin = time.process_time()
        try:
            rows += len(read_notice(mutant).rows)
            if count % 20 == 0:
                packed = dice.choice(PACKERS)(mutant)
                cut = packed[: dice.randrange(len(packed) + 1)] if count % 40 else packed
                list(MailFiles(io.BytesIO(cut)))
        except Exception:
            found += 1
            Path(f"fuzz-{seed}-{count}.eml").write_bytes(mutant)
            traceback.print_exc()
        spent = time.process_time() - begin
        slowest = max(slowest, spent)
        if spent > 0.05 + 2e-6 * len(mutant) and _best(
            lambda data=mutant: read_notice(data)
        ) > 0.05 + 2e-6 * len(mutant):
            found += 1
            Path(f"slow-{seed}-{count}.eml").write_bytes(mutant)
            print(f"slow: {spent:.3f} s for {len(mutant):,} bytes")
        count, size = count + 1, size + len(mutant)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{count:,} mutants, {size >> 20:,} MB, {rows:,} rows, slowest {1000 * slowest:.0f} ms, {peak} MB at most"
    )
    print(f"{found} found")
    return 1 if found else 0


def _best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def _grow() -> int:
    path = Path(__file__).parents[1] / "read" / "test_dsn.py"
    spec = importlib.util.spec_from_file_location("dear_messages", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = 0
    for name, make in module.HOSTILE:
        times = []
        for size in (1 << 17, 1 << 18, 1 << 19, 1 << 20):
            data = make(size)
            times.append(_best(lambda data=data: read_notice(data)))
        tracemalloc.start()
        read_notice(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        factor = max(later / max(earlier, 0.002) for earlier, later in pairwise(times))
        bad = factor > 3 or peak > 64 << 20
        found += bad
        shown = " ".join(f"{1000 * spent:7.1f}" for spent in times)
        print(f"{'BAD ' if bad else ''}{name:<42} {shown} ms, at most x{factor:.1f}; {peak >> 20} MB")
    print(f"{found} found")
    return 1 if found else 0


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    mutate = commands.add_parser("mutate")
    mutate.add_argument("folders", type=Path, nargs="+")
    mutate.add_argument("--minutes", type=float, default=10)
    mutate.add_argument("--seed", type=int, default=1)
    mutate.set_defaults(run=lambda given: _mutate(given.folders, given.minutes, given.seed))
    grow = commands.add_parser("grow")
    grow.set_defaults(run=lambda _given: _grow())
    given = parser.parse_args()
    result: int = given.run(given)
    return result


if __name__ == "__main__":
    sys.exit(main())
