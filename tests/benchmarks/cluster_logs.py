"""Logs read by two workers of a cluster beside one process; run by hand, prints ratios and peaks of memory.

``python tests/benchmarks/cluster_logs.py`` writes 10 GB of logs in 20 files, each of a host of its own, reads them into
Parquet with one process on one core, then with a scheduler and two workers of one thread each, in turn, and removes
all of it. ``--megabytes 50`` takes a tenth. What is measured is from the call to the last part, start-up left out in
both. On a busy machine the ratio of CPU time says more than that of speed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rtls_analysis as rtls
from rtls_analysis.lab.mail_logs import BEGINS, DAYS, write_mail_log
from rtls_analysis.lab.world import World

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.cluster import cluster

FILES = 20
MESSAGES = 60_000  # of the block that is repeated

_ALONE = """
import io, json, sys, time
from pathlib import Path
from rtls_analysis.read.log_output import open_output
from rtls_analysis.read.logs import LogReading
from rtls_analysis.schema import DELIVERIES
from rtls_analysis import read_logs
read_logs(io.BytesIO(b""), timezone="UTC", progress=False)
begun, spent = time.perf_counter(), time.process_time()
reading = LogReading(sys.argv[1], (DELIVERIES,), timezone="UTC", year=2026, workers=1, progress=False)
rows = 0
with open_output(sys.argv[2], DELIVERIES) as output:
    for _table, part in reading:
        rows += part.num_rows
        output.write(part)
    output.coverage = reading.coverage
print(json.dumps({"seconds": time.perf_counter() - begun, "cpu": time.process_time() - spent, "rows": rows, "peak": int(next(
    line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1]) // 1024}))
"""


def write_logs(folder: Path, files: int, megabytes: int) -> None:
    """Write so many logs of about this size: a week of mail, again and again, each time a week later."""
    block = folder / "block"
    write_mail_log(World(1000), block, messages=MESSAGES)
    week = block.read_bytes()
    block.unlink()
    for number in range(1, files + 1):
        text = week.replace(b" mail ", b" mx%02d " % number)
        with (folder / f"mx{number:02}.log").open("wb") as stream:
            weeks = 0
            while (left := megabytes * 1_000_000 - stream.tell()) > 0:
                later = _later(text, weeks)
                stream.write(later if len(later) <= left else later[: later.rfind(b"\n", 0, left) + 1])
                if len(later) > left:
                    break
                weeks += 1


def _later(text: bytes, weeks: int) -> bytes:
    """The block so many weeks later; what was moved is marked, so that it is not moved twice."""
    if not weeks:
        return text
    text = b"\n" + text
    for number in range(DAYS + 2):  # the last messages are tried for another day
        day = BEGINS + dt.timedelta(days=number)
        text = text.replace(b"\n%b " % _date(day), b"\n\0%b " % _date(day + dt.timedelta(weeks=weeks)))
    return text[1:].replace(b"\0", b"")


def _date(day: dt.datetime) -> bytes:
    return f"{day:%b} {day.day:>2}".encode()


def alone(logs: Path, out: Path) -> dict[str, float]:
    """Seconds, rows and peak of memory of one process."""
    command = [sys.executable, "-c", _ALONE, str(logs), f"{out}/"]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return result


def peak() -> int:
    """The largest resident set of this process so far, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def _warm_up() -> None:
    """Load what reading takes."""
    rtls.read_logs(io.BytesIO(b""), timezone="UTC", progress=False)


def together(logs: Path, out: Path) -> dict[str, float]:
    """Seconds, rows and the peaks of memory of two workers."""
    import dask.dataframe  # noqa: F401

    as_ever = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "True"}  # which the tests turn off
    with cluster(workers=2, environment=as_ever) as running, running.client() as client:
        idle = client.run(peak)
        client.run(_warm_up)
        before = sum(client.run(time.process_time).values())
        begun = time.perf_counter()
        frame = rtls.read_logs(logs, client=client, out=out, timezone="UTC", year=2026, progress=False)
        seconds = time.perf_counter() - begun
        cpu = sum(client.run(time.process_time).values()) - before
        peaks = sorted(client.run(peak).values())
        print(
            f"  peaks of the workers: {peaks} MiB, of that before they did anything: {sorted(idle.values())} MiB"
        )
        rows = frame.attrs["coverage"]["rows"]["deliveries"]
        return {"seconds": seconds, "cpu": cpu, "rows": rows, "peak": peaks[-1]}


def main() -> None:
    """Write the logs, read them both ways in turn, and say how they compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--megabytes", type=int, default=500, help="of each file")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the data may lie for the while")
    given = parser.parse_args()
    total = given.files * given.megabytes
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="rtls-benchmark-") as name:
        folder = Path(name)
        free = shutil.disk_usage(folder).free // 1_000_000
        if free < 1.5 * total:
            sys.exit(f"{folder} has room for {free:,} MB, {1.5 * total:,.0f} MB are needed: give --folder")
        logs = folder / "logs"
        logs.mkdir()
        write_logs(logs, given.files, given.megabytes)
        size = sum(path.stat().st_size for path in logs.iterdir()) / 1e6
        print(f"{size:,.0f} MB in {given.files} files")
        runs: dict[str, list[dict[str, float]]] = {"one process": [], "two workers": []}
        for _ in range(given.repeats):
            for way, measure in (("one process", alone), ("two workers", together)):
                out = folder / "out"
                runs[way].append(measure(logs, out))
                shutil.rmtree(out)
        medians, cpu = (
            {way: statistics.median(one[what] for one in these) for way, these in runs.items()}
            for what in ("seconds", "cpu")
        )
        for way, these in runs.items():
            most = max(one["peak"] for one in these)
            print(f"{way}: {medians[way]:.1f} s, {size / medians[way]:.1f} MB/s, {most:.0f} MiB at most")
        assert len({one["rows"] for these in runs.values() for one in these}) == 1
        speed = medians["one process"] / medians["two workers"]
        print(f"two workers: {speed:.2f} times as fast as one process, {speed / 2:.0%} of twice")
        print(
            f"CPU time of both workers: {cpu['two workers'] / cpu['one process']:.2f} times that of one process"
        )


if __name__ == "__main__":
    main()
