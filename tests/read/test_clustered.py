"""Logs and mail read by two workers of a real cluster: the tables of one machine, whoever dies meanwhile."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest

import rtls_analysis as rtls
from rtls_analysis.frames import ClusterProblem, collected
from rtls_analysis.read import clustered
from rtls_analysis.read.dsn import write_dsns
from rtls_analysis.read.log_output import read_coverage
from rtls_analysis.read.logs import write_logs
from rtls_analysis.schema import BOUNCES, CONNECTIONS, DELIVERIES, HOPS, TLS_REPORTS, Table
from rtls_analysis.table_files import read_table
from tests.cluster import Running, cluster
from tests.read.test_log_pieces import busy_log
from tests.s3 import S3

DATA = Path(__file__).parents[2] / "data"
UTC = {"timezone": "UTC", "year": 2026, "progress": False}


@pytest.fixture(scope="module")
def dask(s3: S3) -> Iterator[Running]:
    """Two workers, in a zone of their own, which reach the S3 server too."""
    with cluster(workers=2, environment={**s3.environment, "TZ": "Pacific/Auckland"}) as running:
        yield running


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs of many hosts and servers: rotated sets, daily files, one that is damaged, one that is none."""
    folder = tmp_path_factory.mktemp("logs")
    for number in range(4):
        host = folder / f"mx{number}"
        host.mkdir()
        lines = busy_log(3_000, seed=number).replace(b" mail ", b" mx%d " % number).splitlines(keepends=True)
        (host / "mail.log.2.gz").write_bytes(gzip.compress(b"".join(lines[:1_000])))
        (host / "mail.log.1").write_bytes(b"".join(lines[1_000:2_000])[:-30])  # cut in the middle of a line
        (host / "mail.log").write_bytes(b"".join(lines[1_000:2_000])[-30:] + b"".join(lines[2_000:]))
    (folder / "mx3" / "mail.log.2.gz").write_bytes((folder / "mx3" / "mail.log.2.gz").read_bytes()[:-200])
    daily = folder / "daily"
    daily.mkdir()
    lines = busy_log(2_000, seed=9).splitlines(keepends=True)
    for day in range(4):
        (daily / f"mail-2026-11-2{day}.log").write_bytes(b"".join(lines[day * 500 : (day + 1) * 500]))
    for path in sorted(DATA.glob("*/*.log"))[:6]:
        (folder / path.parent.name).mkdir(exist_ok=True)
        (folder / path.parent.name / path.name).write_bytes(path.read_bytes())
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_bytes(b"no log\nat all\n")
    (folder / "notes" / "nothing.log").write_bytes(b"")
    return folder


def paths_of(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.iterdir())]


def assert_same(frame: Any, alone: pd.DataFrame, table: Table) -> None:
    """A Dask frame has the rows, the columns, the dtypes and the coverage of the pandas one."""
    assert list(frame.columns) == list(alone.columns) == table.names()
    assert frame.dtypes.astype(str).tolist() == alone.dtypes.astype(str).tolist()
    assert frame.attrs["coverage"] == json.loads(json.dumps(alone.attrs["coverage"]))
    pd.testing.assert_frame_equal(collected(frame), alone)


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(["source_file", "line_number"], kind="stable", ignore_index=True)


# -- logs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "table"), [(rtls.read_logs, DELIVERIES), (rtls.read_connections, CONNECTIONS)]
)
def test_logs(dask: Running, logs: Path, tmp_path: Path, read: Any, table: Table) -> None:
    """Into a folder and into memory: the table and the coverage of one machine, a damaged file among many told."""
    alone = read(paths_of(logs), **UTC)
    assert len(alone) > 500
    assert len(alone.attrs["coverage"]["unreadable_files"]) == 1
    with dask.client() as client, client.as_current():
        written = read(paths_of(logs), client=client, out=tmp_path / "out", **UTC)
        assert written.npartitions > 4
        assert_same(written, alone, table)
        assert_same(read(paths_of(logs), client=client, **UTC), alone, table)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert all(name == "_coverage.json" or name.startswith("part-") for name in names)
    again = rtls.read_table(tmp_path / "out")
    pd.testing.assert_frame_equal(again, alone)
    assert again.attrs["coverage"] == alone.attrs["coverage"]
    lazy = read_table(f"{tmp_path}/out/", dask=True)
    assert_same(lazy, alone, table)
    pd.testing.assert_frame_equal(in_order(again), in_order(alone))


def test_parts_of_one_group(
    dask: Running, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lay in the folder of an earlier table is gone; other files stay, other Parquet files are an error."""
    out = tmp_path / "out"
    with dask.client() as client:
        rtls.read_logs(paths_of(logs), client=client, out=out, **UTC)
        (out / "note.txt").write_text("mine")
        one = rtls.read_logs(logs / "mx0", client=client, out=out, **UTC)
        assert_same(one, rtls.read_logs(logs / "mx0", **UTC), DELIVERIES)
        assert sorted(path.name for path in out.iterdir()) == [
            "_coverage.json", "note.txt", "part-00000-000001.parquet",
        ]  # fmt: skip
        (out / "other.parquet").write_bytes(b"")
        with pytest.raises(rtls.StoreProblem, match=r"holds other Parquet files, as other\.parquet"):
            rtls.read_logs(logs / "mx0", client=client, out=out, **UTC)
        nothing = rtls.read_logs(logs / "notes", client=client, out=tmp_path / "nothing", **UTC)
        assert_same(nothing, rtls.read_logs(logs / "notes", **UTC), DELIVERIES)
        (tmp_path / "empty").mkdir()
        empty = rtls.read_logs(tmp_path / "empty", client=client, out=tmp_path / "nothing", **UTC)
        assert_same(empty, rtls.read_logs(tmp_path / "empty", **UTC), DELIVERIES)


@pytest.mark.parametrize("domains_too", [False, True])
def test_pseudonyms(dask: Running, logs: Path, tmp_path: Path, domains_too: bool) -> None:
    """They are those of one machine, and no line of the logs is in the coverage."""
    key = tmp_path / "key"
    key.write_bytes(b"a secret of 16 bytes or more")
    options = {**UTC, "pseudonymise": key, "domains_too": domains_too}
    alone = rtls.read_logs(logs / "mx0", **options)
    with dask.client() as client:
        frame = rtls.read_logs(logs / "mx0", client=client, out=tmp_path / "out", **options)
    assert_same(frame, alone, DELIVERIES)
    assert alone["sender"].str.startswith("u").all()
    assert not any(one["samples"] for one in frame.attrs["coverage"]["skipped"].values())


@pytest.mark.parametrize("zone", ["Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3", None])
def test_the_zone_is_that_of_the_caller(
    dask: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str | None
) -> None:
    """Stamps without a zone are the caller's, through the night in which an hour comes twice; so are years."""
    lines = busy_log(400)
    (tmp_path / "a.log").write_bytes(
        lines.replace(b"Nov 23 00", b"Oct 25 02") + lines.replace(b"Nov 23", b"Jan  1")
    )
    (tmp_path / "b.log").write_bytes(lines.replace(b"Nov 23 00", b"Oct 25 02") * 2)
    if zone is None:
        monkeypatch.delenv("TZ", raising=False)
    else:
        monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for options in (
            {},
            {"year": 2025},
            {"timezone": "America/New_York"},
            {"mta": "postfix"},
            {"mta": "exim"},
        ):
            alone = rtls.read_logs(tmp_path, progress=False, **options)
            with dask.client() as client:
                frame = rtls.read_logs(
                    tmp_path, client=client, out=tmp_path / "out", progress=False, **options
                )
            assert_same(frame, alone, DELIVERIES)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_by_command_and_address(dask: Running, logs: Path, tmp_path: Path) -> None:
    """`write_logs` with a scheduler's address writes both tables, and sums up as on one machine."""
    one, two = tmp_path / "d", tmp_path / "c"
    summary, coverage = write_logs(paths_of(logs), one, two, client=dask.address, **UTC)
    (tmp_path / "alone").mkdir()
    expected, told = write_logs(paths_of(logs), tmp_path / "alone.parquet", tmp_path / "alone", **UTC)
    assert str(summary) == str(expected)
    assert coverage == read_coverage(one) == read_coverage(two) == told
    pd.testing.assert_frame_equal(rtls.read_table(two), rtls.read_table(tmp_path / "alone"))
    pd.testing.assert_frame_equal(rtls.read_table(one), rtls.read_table(tmp_path / "alone.parquet"))


def test_progress_is_that_of_dask(
    dask: Running, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is shown on a terminal, unless turned off, and not in a file."""
    told = {}
    for terminal in (True, False):
        for shown in (True, False):
            output = io.StringIO()
            monkeypatch.setattr(output, "isatty", lambda terminal=terminal: terminal)
            with dask.client() as client, redirect_stdout(output):
                rtls.read_logs(
                    logs / "mx0", client=client, out=tmp_path / "out", **{**UTC, "progress": shown}
                )
            told[terminal, shown] = output.getvalue()
    assert "Completed" in told.pop((True, True))
    assert set(told.values()) == {""}


# -- S3 -------------------------------------------------------------------------------------------------------


def put(s3: S3, folder: Path, name: str) -> None:
    files = s3.file_system()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files.pipe_file(f"{s3.bucket}/{name}/{path.relative_to(folder)}", path.read_bytes())


def placeless(frame: pd.DataFrame, root: str) -> pd.DataFrame:
    return frame.assign(source_file=frame["source_file"].str.removeprefix(root))


def test_logs_at_addresses(dask: Running, s3: S3, logs: Path) -> None:
    """Logs in a bucket, alone and by the cluster, into a bucket: the rows of local files, under their addresses."""
    put(s3, logs, "logs")
    root = s3.address("logs/")
    local = rtls.read_logs([str(logs / name) for name in ("mx0", "mx3", "daily")], **UTC)
    given = [f"{root}mx0", f"{root}mx3/mail.log*", f"{root}daily/*.log"]
    alone = rtls.read_logs(given, **UTC)
    pd.testing.assert_frame_equal(placeless(alone, root), placeless(local, f"{logs}/"))
    (damaged,) = alone.attrs["coverage"]["unreadable_files"]
    assert damaged == f"{root}mx3/mail.log.2.gz"
    with dask.client() as client:
        frame = rtls.read_logs(given, client=client, out=s3.address("out/deliveries/"), **UTC)
        assert_same(frame, alone, DELIVERIES)
    whole = rtls.read_table(s3.address("out/deliveries"))
    pd.testing.assert_frame_equal(whole, alone)
    assert whole.attrs["coverage"] == alone.attrs["coverage"]
    assert not [name for name in s3.file_system().ls(f"{s3.bucket}/out/deliveries") if "_group" in name]


def test_an_object_that_cannot_be_read(s3: S3, logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbidden, gone, or broken off: a problem that is told; the others are read."""
    put(s3, logs / "mx0", "unreadable/mx0")
    put(s3, logs / "mx1", "unreadable/mx1")
    root = s3.address("unreadable/")
    import s3fs

    opened = s3fs.S3FileSystem._open

    def refuse(self: Any, path: str, *args: Any, **options: Any) -> Any:
        if path.endswith("mx1/mail.log"):
            raise RuntimeError("what a library raises")
        return opened(self, path, *args, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_open", refuse)
    frame = rtls.read_logs(f"{root}*/mail.log*", **UTC)
    assert frame.attrs["coverage"]["unreadable_files"] == {
        f"{root}mx1/mail.log": "OSError: RuntimeError: what a library raises"
    }
    assert set(frame["source_file"]) == {
        f"{root}{name}" for name in ("mx0/mail.log", "mx0/mail.log.1", "mx0/mail.log.2.gz", "mx1/mail.log.1", "mx1/mail.log.2.gz")
    }  # fmt: skip


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_file_at_an_address(s3: S3, logs: Path, ending: str) -> None:
    """It appears whole, or not at all; and it is read back."""
    address = s3.address(f"files/d.{ending}")
    write_logs(logs / "mx0", address, **UTC)
    alone = rtls.read_logs(logs / "mx0", **UTC)
    pd.testing.assert_frame_equal(rtls.read_table(address), alone)
    with pytest.raises(FileNotFoundError):
        write_logs(logs / "none", s3.address(f"files/none.{ending}"), **UTC)
    assert s3.file_system().ls(f"{s3.bucket}/files") == [
        f"{s3.bucket}/files/{name}" for name in sorted({f"d.{one}" for one in ("parquet", "csv", "jsonl") if s3.file_system().exists(f"{s3.bucket}/files/d.{one}")})
    ]  # fmt: skip
    with pytest.raises(rtls.StoreProblem, match="there is no file s3://"):
        rtls.read_table(s3.address(f"files/none.{ending}"))


# -- mail -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Maildir, an mbox, a folder with what is left alone, and TLS reports, some of which come again."""
    folder = tmp_path_factory.mktemp("mail")
    for name in ("cur", "new", "tmp", ".Sent/cur", ".git"):
        (folder / "Maildir" / name).mkdir(parents=True)
    notices = sorted((DATA / "postfix-3.11").rglob("*.mbox"))
    assert notices
    for number, path in enumerate(notices):
        (folder / f"{number}.mbox").write_bytes(path.read_bytes())
        messages = path.read_bytes().split(b"\nFrom ")[1:40]
        for place, message in enumerate(messages):
            data = message.partition(b"\n")[2]
            (folder / "Maildir" / "cur" / f"{number}.{place}:2,S").write_bytes(data)
    for name in ("new/1", "tmp/1", ".Sent/cur/1", ".git/1", "dovecot-uidlist", "new/broken.gz"):
        (folder / "Maildir" / name).write_bytes(b"From: a@b.test\n\nhello\n")
    (folder / "Maildir" / "new" / "broken.gz").write_bytes(gzip.compress(b"x" * 99_999)[:-9])
    for number in range(12):
        (folder / "reports" / f"{number % 3}").mkdir(parents=True, exist_ok=True)
        text = json.dumps(report(number % 5, failed=number // 7)).encode()
        data = gzip.compress(text) if number % 2 else text
        (folder / "reports" / f"{number % 3}" / f"{number:02}.json{'.gz' * (number % 2)}").write_bytes(data)
    return folder


def report(number: int, failed: int) -> dict[str, Any]:
    """A report; one that comes again says something else, if `failed` differs."""
    policies = [
        {
            "policy": {"policy-type": kind, "policy-string": ["v"], "policy-domain": domain},
            "summary": {"total-successful-session-count": 5, "total-failure-session-count": failed},
            "failure-details": [{"result-type": "certificate-expired", "failed-session-count": 1}]
            * (2 * failed),
        }
        for kind, domain in (("sts", "a.test"), ("tlsa", "a.test"), ("sts", "b.test"))
    ]
    return {
        "organization-name": "O",
        "report-id": f"r{number}",
        "date-range": {"start-datetime": "2026-11-01T00:00:00Z", "end-datetime": "2026-11-01T23:59:59Z"},
        "policies": policies,
    }


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustered, "GROUP_FILES", 3)
    monkeypatch.setattr(clustered, "GROUP_BYTES", 60_000)


MAIL = [
    (rtls.read_dsns, BOUNCES, ""),
    (rtls.read_received, HOPS, ""),
    (rtls.read_tls_reports, TLS_REPORTS, "reports"),
]


@pytest.mark.parametrize(("read", "table", "below"), MAIL)
@pytest.mark.usefixtures("small_groups")
def test_mail(dask: Running, s3: S3, mail: Path, tmp_path: Path, read: Any, table: Table, below: str) -> None:
    """Notices, hops and reports: as on one machine, in folders, in memory and in a bucket."""
    folder = mail / below
    alone = read(folder, progress=False)
    assert len(alone) > 8
    put(s3, mail, f"mail-{table.name}")
    root = s3.address(f"mail-{table.name}/")
    remote = read(f"{root}{below}", progress=False)
    pd.testing.assert_frame_equal(
        placeless(remote, root).sort_values("source_file", kind="stable", ignore_index=True),
        placeless(alone, f"{mail}/").sort_values("source_file", kind="stable", ignore_index=True),
    )
    for name in ("messages_read", "messages_matched"):
        assert remote.attrs["coverage"][name] == alone.attrs["coverage"][name]
    with dask.client() as client, client.as_current():
        frame = read(folder, client=client, out=tmp_path / "out", progress=False)
        assert_same(frame, alone, table)
        assert_same(read(folder, client=client, progress=False), alone, table)
        given, out = f"{root}{below}", s3.address(f"out/{table.name}/")
        assert_same(read(given, client=client, out=out, progress=False), remote, table)
    pd.testing.assert_frame_equal(rtls.read_table(tmp_path / "out"), alone)


def test_reports_that_come_again(mail: Path) -> None:
    """The data of the test above has what it is about: reports that came before, and say the same or not."""
    coverage = rtls.read_tls_reports(mail / "reports", progress=False).attrs["coverage"]
    assert 0 < coverage["duplicates_that_differ"] < coverage["duplicates"]


@pytest.mark.usefixtures("small_groups")
def test_notices_are_summed_up(dask: Running, mail: Path, tmp_path: Path) -> None:
    """What `rtls dsns` says is the same."""
    summary = write_dsns(mail, tmp_path / "b", client=dask.address, progress=False)
    expected = write_dsns(mail, tmp_path / "b.parquet", progress=False)
    assert str(summary) == str(expected)


# -- what goes wrong ------------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Five hosts' logs: two small ones, which are read at once, and three that take a worker a while."""
    folder = tmp_path / "large"
    folder.mkdir()
    block = busy_log(20_000)
    for number, times in enumerate((1, 1, 16, 16, 16)):
        (folder / f"mx{number}.log").write_bytes(block.replace(b" mail ", b" mx%d " % number) * times)
    return folder


def wait_for_notes(folder: Path, count: int) -> list[Path]:
    """Wait until so many groups are done."""
    until = time.monotonic() + 60
    while len(notes := list(folder.glob("_group-0*.json"))) < count:
        assert time.monotonic() < until
        time.sleep(0.002)
    return notes


def busy_threads(dask_worker: Any) -> int:
    """How many tasks a worker is at, also those that nobody wants."""
    return len(dask_worker.active_threads)


def test_a_worker_that_is_retired(large: Path, tmp_path: Path) -> None:
    """One that is asked to end in the middle of a group gives it back; nothing is missing or twice."""
    out = tmp_path / "out"
    alone = rtls.read_logs(large, **UTC)
    with cluster(workers=2) as running, running.client() as client:

        def retire() -> None:
            wait_for_notes(out, 1)
            with running.client() as other:
                (first, *_) = other.processing()
                other.retire_workers([first], close_workers=True)

        thread = threading.Thread(target=retire)
        thread.start()
        frame = rtls.read_logs(large, client=client, out=out, **UTC)
        thread.join()
        assert len(client.processing()) == 1
        assert_same(frame, alone, DELIVERIES)


def test_a_worker_that_is_killed(large: Path, tmp_path: Path) -> None:
    """Its group is read again, those that were done are not; no row is missing or twice."""
    out = tmp_path / "out"
    alone = rtls.read_logs(large, **UTC)
    with cluster(workers=2, environment={"TZ": "UTC"}) as running, running.client() as client:
        noted: dict[str, float] = {}

        def kill() -> None:
            noted.update({path.name: path.stat().st_mtime_ns for path in wait_for_notes(out, 2)})
            os.kill(running.worker_pids()[0], signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        kept = clustered.finish_folder

        def look(folder: Any, *args: Any) -> Any:
            after = {name: (out / name).stat().st_mtime_ns for name in noted}
            assert after == noted
            return kept(folder, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clustered, "finish_folder", look)
            frame = rtls.read_logs(large, client=client, out=out, **UTC)
        thread.join()
        assert len(noted) >= 2
        assert_same(frame, alone, DELIVERIES)


def test_an_interrupt_keeps_what_was_written(large: Path, tmp_path: Path) -> None:
    """The tasks are taken back and stop midway, parts stay and can be read, and the coverage says what they are."""
    out = tmp_path / "out"
    (large / "mx1.log").unlink()
    with cluster(workers=2) as running, running.client() as client:

        def interrupt() -> None:
            wait_for_notes(out, 1)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            rtls.read_logs(large, client=client, out=out, **UTC)
        thread.join()
        until = time.monotonic() + 60
        while any(client.run(busy_threads).values()):
            assert time.monotonic() < until
            time.sleep(0.02)
    assert not list(out.glob("_group-*"))  # nobody went on to the end
    kept = rtls.read_table(out)
    alone = rtls.read_logs(large, **UTC)
    assert 0 < len(kept) < len(alone)
    assert not kept.duplicated(["source_file", "line_number", "recipient"]).any()
    assert kept.attrs["coverage"]["warnings"] == [
        "interrupted: 1 of 4 groups of files were read to their end"
    ]


def test_what_the_caller_does_wrong(dask: Running, logs: Path, tmp_path: Path) -> None:
    """One clear line each."""
    out = tmp_path / "out"
    fsspec.filesystem("memory").pipe_file("/logs/mail.log", b"x\n")
    with dask.client() as client:
        for stream in ("-", io.BytesIO(b"")):
            for read in (rtls.read_logs, rtls.read_dsns, rtls.read_tls_reports, rtls.read_received):
                with pytest.raises(ValueError, match="cannot be sent to a cluster: give paths or addresses"):
                    read(stream, client=client, out=out, progress=False)
        with pytest.raises(
            ClusterProblem, match=r"the worker tcp://\S+ does not see memory://\S+; give a path that all"
        ):
            rtls.read_logs("memory://logs/mail.log", client=client, out=out, **UTC)
        with pytest.raises(ClusterProblem, match=r"does not see memory://out; give a path"):
            rtls.read_logs(logs / "mx0", client=client, out="memory://out/", **UTC)
    with pytest.raises(ValueError, match="without out=FOLDER the table stays with the workers"):
        rtls.read_logs(logs / "mx0", client=dask.address, **UTC)
    with pytest.raises(ValueError, match="out= is where a cluster writes the table"):
        rtls.read_logs(logs / "mx0", out=out, **UTC)
    with pytest.raises(ValueError, match="a cluster writes the deliveries into a folder"):
        write_logs(logs / "mx0", client=dask.address, **UTC)
    with pytest.raises(FileNotFoundError, match="nothing at memory://none"):
        rtls.read_logs("memory://none/*.log", **UTC)
    with pytest.raises(rtls.StoreProblem, match="cannot use foo://x: ValueError: Protocol not known: foo"):
        rtls.read_logs("foo://x", **UTC)


def test_a_worker_that_does_not_see_the_files(logs: Path, tmp_path: Path) -> None:
    """One that has other files under the same names is told from one that sees them."""
    wanted = clustered._Wanted(rtls.__version__, (str(logs / "none"),), {}, (), (), "")
    assert clustered._look(wanted) == (
        f"does not see {logs / 'none'}; give a path that all of them share, or an address such as s3://BUCKET/NAME"
    )
    other = clustered._Wanted(rtls.__version__, (), {str(logs / "mx0" / "mail.log"): "0"}, (), (), "")
    assert clustered._look(other).startswith(f"has another file at {logs / 'mx0' / 'mail.log'}; give a path")
    older = clustered._Wanted("0.0", (), {}, (), (), "")
    assert "install the same" in clustered._look(older)


def test_without_fsspec(logs: Path) -> None:
    """One line that says how to install it; local paths do not need it, nor load it, nor Dask."""
    code = (
        "import sys; sys.modules['fsspec'] = None; sys.modules['dask'] = None; import rtls_analysis as rtls\n"
        "print(len(rtls.read_logs(sys.argv[1], timezone='UTC', progress=False)))\n"
        "try: rtls.read_logs('s3://bucket/mail.log')\n"
        "except rtls.StoreProblem as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(logs / "mx0")], capture_output=True, text=True, check=True
    )
    count, problem = done.stdout.splitlines()
    assert int(count) > 100
    assert problem == "s3://bucket/mail.log needs fsspec; install it with: pip install 'rtls_analysis[s3]'"
