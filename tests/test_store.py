"""A snapshot on a disk, or elsewhere: what was written comes back, whatever was cut off in between."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import json
import subprocess
import sys
import textwrap
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis import cli, storage, store
from rtls_analysis.outcomes import SessionOutcome
from rtls_analysis.schema import CERTIFICATES, HOSTS, SESSIONS, SNAPSHOT_TABLES, to_frame
from rtls_analysis.storage import Folder, open_folder
from rtls_analysis.store import LOOKUPS, Snapshot, SnapshotWriter, StoreProblem, open_snapshot
from tests.s3 import fresh_address

MANIFEST = {"scan": {"domains": 1, "seed": 0}, "state": "running"}

HASTY = {"RENEW_SECONDS": 0.2, "SURE_SECONDS": 1.4, "LEASE_SECONDS": 2.0, "FLUSH_SECONDS": 0.05}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases and chunks that take a fraction of their time."""
    for name, seconds in HASTY.items():
        monkeypatch.setattr(storage, name, seconds)


@pytest.fixture(params=["disk", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """Where a snapshot may lie; nothing is there yet."""
    return open_folder(fresh_address(request.param, request, tmp_path))


elsewhere = pytest.mark.parametrize("place", ["memory", "s3"], indirect=True)
on_s3 = pytest.mark.parametrize("place", ["s3"], indirect=True)


def beside(place: Folder, name: str) -> str:
    return f"{place.address}-{name}"


def until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def run_beside(code: str) -> subprocess.Popen[bytes]:
    """Start a process in which storage is as hasty as here."""
    begin = f"from rtls_analysis import storage; vars(storage).update({HASTY!r})\n"
    return subprocess.Popen([sys.executable, "-c", begin + textwrap.dedent(code)], stdout=subprocess.PIPE)


def session(number: int) -> dict[str, Any]:
    return {
        "mx_host": f"mx{number}.example",
        "address": "192.0.2.1",
        "port": 25,
        "started_at": dt.datetime(2026, 11, 24, 12, 0, number % 60, 123456, tzinfo=dt.UTC),
        "duration_seconds": 0.5,
        "outcome": SessionOutcome.COMPLETED,
        "ehlo_plain": ("250-mx", "250 STARTTLS"),
        "chain_sha256": (),
        "banner": None,
    }


def certificate() -> dict[str, Any]:
    return {"sha256": "ab", "der": b"\x30\x00\xff", "dns_names": ["mx.example"]}


def test_rows_come_back_as_they_were(place: Folder) -> None:
    """Words, times, lists and bytes survive the way through journal and Parquet."""
    writer = SnapshotWriter(place.address, MANIFEST, b"roots")
    rows = [session(number) for number in range(5)]
    for row in rows:
        writer.append("sessions", row)
    writer.append("certificates", certificate())
    writer.close()
    snapshot = open_snapshot(place.address)
    pd.testing.assert_frame_equal(snapshot.sessions, to_frame(SESSIONS, rows))
    assert snapshot.certificates["der"].iloc[0] == b"\x30\x00\xff"
    assert snapshot.roots_pem == b"roots"
    assert list(snapshot.hosts.columns) == HOSTS.names()
    assert snapshot.address == place.address
    assert snapshot.path == place.path
    assert place.address in repr(snapshot)
    assert snapshot.count("sessions") == 5


def test_memory_and_directory_give_the_same_tables(place: Folder) -> None:
    """A snapshot in memory equals the same one elsewhere, and `save` writes it there, where nothing is yet."""
    memory = SnapshotWriter(None, MANIFEST, b"roots")
    stored = SnapshotWriter(place, MANIFEST, b"roots")
    for writer in (memory, stored):
        writer.append("sessions", session(1))
        writer.append("certificates", certificate())
        writer.close()
    first = memory.snapshot()
    assert first.address is None
    assert first.path is None
    for second in (stored.snapshot(), first.save(beside(place, "saved"))):
        for table in SNAPSHOT_TABLES:
            pd.testing.assert_frame_equal(first.table(table.name), second.table(table.name))
    with pytest.raises(StoreProblem, match="exists"):
        first.save(beside(place, "saved"))


def test_a_kill_loses_only_the_torn_line(tmp_path: Path) -> None:
    """Rows appended before a kill -9 are all there; a half-written line is not, and nothing raises."""
    out = tmp_path / "scan"
    code = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from rtls_analysis.store import SnapshotWriter
        writer = SnapshotWriter(Path({str(out)!r}), {MANIFEST!r}, b"roots")
        for number in range(7):
            writer.append("sessions", {{"mx_host": f"mx{{number}}.example", "address": "192.0.2.1"}})
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    subprocess.run([sys.executable, "-c", code], check=False)
    journal = next((out / "_work").glob("sessions-*.jsonl"))
    with journal.open("ab") as file:
        file.write(b'{"mx_host":"torn')
    writer = SnapshotWriter(out, MANIFEST, b"other roots")
    assert writer.resumed
    assert writer.roots_pem == b"roots"
    assert [row["mx_host"] for row in writer.stored("sessions")] == [f"mx{n}.example" for n in range(7)]
    writer.append("sessions", session(7))
    writer.close()
    assert len(open_snapshot(out).sessions) == 8


def test_a_part_and_its_journal_are_not_counted_twice(place: Folder) -> None:
    """A kill between the appearance of a part and the removal of its journal doubles nothing."""
    writer = SnapshotWriter(place, MANIFEST, b"roots")
    writer.append("sessions", session(1))
    until(lambda: bool(place.list("_work", "sessions-*")))
    (journal,) = place.list("_work", "sessions-*")
    copy = place.read(journal)
    writer.close()
    assert place.list("_work", "sessions-*") == []
    place.write(journal, copy)
    again = SnapshotWriter(place, MANIFEST, b"roots")
    assert len(list(again.stored("sessions"))) == 1
    again.close()
    assert len(open_snapshot(place).sessions) == 1


def test_many_rows_become_several_parts(place: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full journal becomes a part while the scan goes on; the order of the rows stays."""
    monkeypatch.setattr(store, "_ROWS_PER_PART", 10)
    writer = SnapshotWriter(place, MANIFEST, b"roots")
    hosts = [f"mx{number}.example" for number in range(95)]
    for number in range(35):
        writer.append("sessions", session(number))
    until(lambda: len(list(writer.stored("sessions"))) == 35)
    writer.fold(finished=False)
    assert len(place.list("sessions", "part-*.parquet")) == 3
    assert [row["mx_host"] for row in writer.stored("sessions")] == hosts[:35]
    for number in range(35, 95):
        writer.append("sessions", session(number))
    writer.close()
    assert len(place.list("sessions", "part-*.parquet")) == 10
    snapshot = open_snapshot(place)
    assert list(snapshot.sessions["mx_host"]) == hosts
    assert snapshot.count("sessions") == 95


def test_replace_puts_rows_in_the_place_of_a_table(place: Folder) -> None:
    """The judged tables are written as a whole, and written again when a scan is resumed."""
    writer = SnapshotWriter(place, MANIFEST, b"roots")
    for names in (["a.example"], ["b.example", "c.example"]):
        table = writer.replacement("domains")
        for name in names:
            table.add({"domain": name})
        table.finish()
    writer.append(LOOKUPS, {"domain": "a.example"})
    writer.close()
    writer.drop_work()
    assert list(open_snapshot(place).domains["domain"]) == ["b.example", "c.example"]
    assert place.list("domains") == ["domains/part-main-000002.parquet"]
    assert not place.exists("_work")


def test_another_scan_is_refused(place: Folder) -> None:
    """A directory of another scan gets one line that says what differs."""
    SnapshotWriter(place, MANIFEST, b"roots").close()
    with pytest.raises(StoreProblem, match=r"another scan .different seed.; give a new directory"):
        SnapshotWriter(place, {"scan": {"domains": 1, "seed": 9}}, b"roots")


def test_two_writers_at_once_are_refused(place: Folder) -> None:
    """A second process that would write to the same directory is told so."""
    writer = SnapshotWriter(place, MANIFEST, b"roots")
    with pytest.raises(StoreProblem, match="another process"):
        SnapshotWriter(place, MANIFEST, b"roots")
    writer.append("sessions", session(1))
    writer.close()
    again = SnapshotWriter(place, MANIFEST, b"roots")  # now it is free
    assert again.resumed
    again.close()


NO_SNAPSHOTS = [
    ("no such directory", lambda path: None, "no such directory"),
    ("an empty directory", lambda path: path.mkdir(), "has no manifest.json"),
    ("a file", lambda path: path.write_text("x"), "no such directory"),
    (
        "a torn manifest",
        lambda path: (path.mkdir(), (path / "manifest.json").write_text("{")),
        "cannot be read",
    ),
    ("no object", lambda path: (path.mkdir(), (path / "manifest.json").write_text("[]")), "no JSON object"),
]


@pytest.mark.parametrize(("make", "message"), [pytest.param(m, t, id=why) for why, m, t in NO_SNAPSHOTS])
def test_what_is_no_snapshot_gets_one_clear_line(tmp_path: Path, make: Any, message: str) -> None:
    """Opening something else says what it is."""
    make(tmp_path / "it")
    with pytest.raises(StoreProblem, match=message):
        open_snapshot(tmp_path / "it")


@pytest.fixture
def held(place: Folder) -> Snapshot:
    writer = SnapshotWriter(place, MANIFEST, b"roots")
    for number in range(4):
        writer.append("sessions", session(number))
    writer.close()
    return open_snapshot(place)


def test_table_selects_columns_and_rows(held: Snapshot) -> None:
    """`table` reads only what was asked for, in the order asked for."""
    frame = held.table(
        "sessions", columns=["outcome", "mx_host"], where={"mx_host": ["mx1.example", "mx3.example"]}
    )
    assert frame.columns.tolist() == ["outcome", "mx_host"]
    assert frame["mx_host"].tolist() == ["mx1.example", "mx3.example"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "nothing"}, "no table 'nothing'"),
        ({"name": "sessions", "columns": ["tls"]}, "no column tls"),
        ({"name": "sessions", "where": {"x": 1}}, "no column x"),
    ],
)
def test_table_says_what_there_is(held: Snapshot, arguments: dict[str, Any], message: str) -> None:
    """A wrong name is one clear error."""
    with pytest.raises(ValueError, match=message):
        held.table(**arguments)


def test_a_frame_handed_out_is_the_callers_own(held: Snapshot) -> None:
    """Writing to a table that was handed out changes neither the snapshot nor the next one handed out."""
    frame = held.sessions
    frame.loc[:, "mx_host"] = "changed"
    assert held.sessions["mx_host"].iloc[0] == "mx0.example"


def test_a_column_that_an_old_part_lacks_is_missing(held: Snapshot, place: Folder) -> None:
    """A snapshot of an older version opens; what it did not record is missing, as a Dask frame too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (part,) = place.list("sessions")
    old = pq.read_table(pa.BufferReader(place.read(part))).drop(["key_exchange", "vantage"])
    store.write_part(place, part, old)
    snapshot = open_snapshot(place)
    assert snapshot.sessions["key_exchange"].isna().all()
    assert snapshot.table("sessions", columns=["vantage", "mx_host"])["vantage"].isna().all()
    assert len(snapshot.table("sessions", where={"vantage": "here"})) == 0
    assert len(snapshot.table("sessions", columns=["vantage"])) == 4
    pytest.importorskip("dask")
    pd.testing.assert_frame_equal(snapshot.dask("sessions").compute(), snapshot.sessions)
    assert snapshot.dask("sessions")["vantage"].compute().isna().tolist() == [True] * 4


def test_manifest_is_readable_json(held: Snapshot, place: Folder) -> None:
    """The manifest is there for people and other programs too."""
    assert json.loads(place.read("manifest.json"))["scan"] == MANIFEST["scan"]


def test_a_selection_of_nothing_is_empty(held: Snapshot) -> None:
    """An empty list of values selects no rows, from the disk and from memory."""
    for _where in ("disk", "memory"):
        frame = held.table("sessions", where={"mx_host": []})
        assert len(frame) == 0
        assert list(frame.columns) == SESSIONS.names()
        assert len(held.sessions) == 4  # which takes the table into memory


def test_a_dask_frame_of_a_table(place: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the table's rows, columns and dtypes, a partition for each part; one in memory has none."""
    pytest.importorskip("dask")
    monkeypatch.setattr(store, "_ROWS_PER_PART", 10)
    writer = SnapshotWriter(place, MANIFEST, b"roots")
    for number in range(25):
        writer.append("sessions", session(number))
    writer.close()
    snapshot = open_snapshot(place)
    frame = snapshot.dask("sessions")
    assert frame.npartitions == 3
    pd.testing.assert_frame_equal(frame.compute().reset_index(drop=True), snapshot.sessions)
    empty = snapshot.dask("hosts").compute()
    pd.testing.assert_frame_equal(empty, snapshot.hosts)
    with pytest.raises(ValueError, match="no table 'x'"):
        snapshot.dask("x")
    with pytest.raises(StoreProblem, match="save it first"):
        Snapshot(None, {}, b"", {"hosts": snapshot.hosts}).dask("hosts")


@on_s3
def test_columns_that_nobody_asked_for_stay_where_they_are(
    place: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a part with 16 MB of certificates their names are read, and little else."""
    import random

    rows = [
        {"sha256": f"{number:064x}", "der": random.Random(number).randbytes(16_000)} for number in range(1000)
    ]
    Snapshot(
        None, {}, b"", {t.name: to_frame(t, rows if t is CERTIFICATES else []) for t in SNAPSHOT_TABLES}
    ).save(place.address)
    from s3fs.core import S3File

    sizes: list[int] = []
    fetch = S3File._fetch_range

    def watched(file: S3File, start: int, end: int) -> bytes:
        sizes.append(end - start)
        data: bytes = fetch(file, start, end)
        return data

    monkeypatch.setattr(S3File, "_fetch_range", watched)
    snapshot = open_snapshot(place)
    assert snapshot.count("certificates") == 1000
    frame = snapshot.table("certificates", columns=["sha256"])
    assert list(frame["sha256"]) == [row["sha256"] for row in rows]
    assert sum(sizes) < 3 << 20
    assert snapshot.table("certificates")["der"].map(len).eq(16_000).all()
    assert sum(sizes) > 16_000_000


# -- several at once, and cut off --------------------------------------------------------------------------------


@elsewhere
def test_a_writer_that_died_is_followed(place: Folder) -> None:
    """Its lease is taken over when it has said nothing for a while, and what it wrote goes on."""
    writer = SnapshotWriter(place, MANIFEST, b"roots")
    writer.append("sessions", session(1))
    until(lambda: bool(place.list("_work", "sessions-*")))
    assert isinstance(writer._lock, storage.Lease)
    assert writer._lock._thread is not None
    writer._lock._released.set()
    writer._lock._thread.join()  # it is dead, and does not know
    again = SnapshotWriter(place, MANIFEST, b"roots")
    assert again.resumed
    uses: list[Callable[[], None]] = [
        lambda: writer.append("sessions", session(2)),
        writer.fold,
        writer.write_manifest,
    ]
    for use in uses:
        with pytest.raises(OSError, match="another may be writing to it") as caught:
            use()
        assert caught.value.errno == errno.ESTALE
    again.append("sessions", session(3))
    again.close()
    assert list(open_snapshot(place).sessions["mx_host"]) == ["mx1.example", "mx3.example"]


@on_s3
def test_a_kill_loses_what_was_in_flight(place: Folder) -> None:
    """Rows that were there for a moment before a kill -9 come back; the scan resumes with the same roots."""
    code = f"""
        import time
        from rtls_analysis import store
        store._ROWS_PER_PART = 20
        writer = store.SnapshotWriter({place.address!r}, {MANIFEST!r}, b"roots")
        for number in range(50):
            writer.append("sessions", {{"mx_host": f"mx{{number}}.example", "address": "192.0.2.1"}})
        time.sleep(0.5)
        writer.fold(finished=False)
        print("there", flush=True)
        while True:
            writer.append("hosts", {{"mx_host": "mx.example"}})
            time.sleep(0.01)
    """
    with run_beside(code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        process.kill()
    writer = SnapshotWriter(place, MANIFEST, b"other roots")
    assert writer.resumed
    assert writer.roots_pem == b"roots"
    assert [row["mx_host"] for row in writer.stored("sessions")] == [f"mx{n}.example" for n in range(50)]
    writer.append("sessions", session(50))
    writer.close()
    assert [part.rpartition("-")[2] for part in place.list("sessions")] == [
        f"{number:06d}.parquet" for number in (1, 2, 3, 4)
    ]
    assert len(open_snapshot(place).sessions) == 51


def test_processes_write_while_others_fold_and_read(place: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writers of their own, a fold that goes on, and a reader: no row is missing at any time, none is doubled."""
    if place.address.startswith("memory:"):
        pytest.skip("other processes do not see it")
    monkeypatch.setattr(store, "_ROWS_PER_PART", 50)
    writer = SnapshotWriter(place, MANIFEST, b"roots")
    code = """
        import time
        from rtls_analysis import store
        store._ROWS_PER_PART = 50
        journals = store.Journals(storage.open_folder({address!r}), {name!r})
        for number in range(400):
            journals.append("sessions", {{"mx_host": f"{name}-{{number}}", "address": "192.0.2.1"}})
            time.sleep(0.004)
        journals.close()
    """
    seen: set[str] = set()
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(run_beside(code.format(address=place.address, name=name)))
            for name in ("w1", "w2")
        ]
        while any(process.poll() is None for process in processes):
            writer.fold(finished=False)
            now = [row["mx_host"] for row in store.stored_rows(place, "sessions", ["mx_host"])]
            assert seen <= set(now)
            seen.update(now)
            own = [row["mx_host"] for row in store.stored_rows(place, "sessions", writer="w1")]
            assert all(host.startswith("w1-") for host in own)
        assert [process.wait() for process in processes] == [0, 0]
    writer.close()
    hosts = list(open_snapshot(place).sessions["mx_host"])
    assert sorted(hosts) == sorted(f"{name}-{number}" for name in ("w1", "w2") for number in range(400))
    assert [host for host in hosts if host.startswith("w1")] == [f"w1-{number}" for number in range(400)]


@elsewhere
def test_a_reader_meets_rows_twice_rather_than_not_at_all(
    place: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal becomes a part, chunk by chunk gone, in the middle of a look at it."""
    monkeypatch.setattr(store, "_ROWS_PER_PART", 30)
    writer = SnapshotWriter(place, MANIFEST, b"roots")
    hosts = {f"mx{number}.example" for number in range(60)}
    for number in range(60):
        writer.append("sessions", session(number))
        if number % 10 == 9:
            time.sleep(0.12)
    until(lambda: len(list(writer.stored("sessions"))) == 60)
    assert len(place.list("_work", "sessions-*")) > 3
    rows = store.stored_rows(place, "sessions", ["mx_host"])
    seen = [next(rows)["mx_host"]]
    writer.fold()
    seen.extend(row["mx_host"] for row in rows)
    assert set(seen) == hosts
    writer.close()
    assert len(open_snapshot(place).sessions) == 60


def test_a_fold_that_is_cut_off_anywhere_doubles_and_loses_nothing(
    place: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever write or removal is the last one that comes through, the next run has every row once."""
    monkeypatch.setattr(store, "_ROWS_PER_PART", 10)
    writer = SnapshotWriter(place, MANIFEST, b"roots")
    for number in range(25):
        writer.append("sessions", session(number))
        if number % 4 == 0:
            time.sleep(0.06)
    writer._own.close()
    whole = {
        name: place.read(name) for name in [*place.list("_work", "sessions-*"), "manifest.json", "roots.pem"]
    }
    writer.abandon()
    for steps in range(40):
        if place.path is None:
            place.remove_all("")
        else:
            for name in place.list("_work", "sessions-*") + place.list("sessions"):
                place.remove(name)
        for name, data in whole.items():
            place.write(name, data)
        broken = SnapshotWriter(place, MANIFEST, b"roots")
        with monkeypatch.context() as patch:
            left = [steps]

            def limited(do: Callable[..., Any], left: list[int] = left) -> Callable[..., Any]:
                def step(*arguments: Any) -> Any:
                    if not left[0]:
                        raise OSError(errno.EIO, "cut off")
                    left[0] -= 1
                    return do(*arguments)

                return step

            folder = broken.folder
            patch.setattr(folder, "write", limited(folder.write))
            patch.setattr(folder, "remove", limited(folder.remove))
            is_cut_off = False
            try:
                broken.fold()
            except OSError:
                is_cut_off = True
        broken.abandon()
        again = SnapshotWriter(place, MANIFEST, b"roots")
        assert sorted(row["mx_host"] for row in again.stored("sessions")) == sorted(
            f"mx{number}.example" for number in range(25)
        )
        again.close()
        assert sorted(open_snapshot(place).sessions["mx_host"]) == sorted(
            f"mx{number}.example" for number in range(25)
        )
        if not is_cut_off:
            return
    raise AssertionError("it never came to its end")


@elsewhere
def test_an_error_is_raised_by_the_next_row(place: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage that takes nothing any more stops the scan, as a full disk does; what is held is put at the end."""
    writer = SnapshotWriter(place, MANIFEST, b"roots")
    with monkeypatch.context() as patch:

        def full(_name: str, _data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(writer.folder, "write", full)
        writer.append("sessions", session(0))

        def append() -> bool:
            writer.append("hosts", {"mx_host": "mx.example"})
            writer.append("sessions", session(1))
            return False

        with pytest.raises(OSError, match="No space"):
            until(append)
    writer.close()
    assert "mx0.example" in set(open_snapshot(place).sessions["mx_host"])


@elsewhere
@pytest.mark.parametrize("broken", ["attempts", "certificates"])
def test_a_row_is_there_only_with_those_that_it_refers_to(
    place: Folder, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has a session is not contacted again: it is put after the connections and certificates that belong to it."""
    journals = store.Journals(place, "w")
    write, tries = place.write, list[str]()

    def put(name: str, data: bytes) -> None:
        tries.append(name)
        if f"/{broken}-" in name:
            raise OSError(errno.EIO, "not now")
        write(name, data)

    rows = {
        "sessions": session(0),
        "certificates": certificate(),
        "attempts": {"address": "192.0.2.1"},
    }
    with monkeypatch.context() as patch:
        patch.setattr(place, "write", put)
        for table, row in rows.items():
            journals.append(table, row)
        with pytest.raises(OSError, match="not now"):
            journals.flush()
    assert any(f"/{broken}-" in name for name in tries)
    assert not any("/sessions-" in name for name in [*tries, *place.list("_work")])
    journals.flush()
    for table in rows:
        assert len(list(store.stored_rows(place, table))) == 1
    journals.close()


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["sessions", "hosts", LOOKUPS]), st.integers(1, 7)),
        st.sampled_from([("fold", 0), ("reopen", 0), ("cut off", 0), ("other", 3), ("wait", 0)]),
    ),
    max_size=14,
)


@given(actions=ACTIONS)
@settings(max_examples=30)
@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_what_is_appended_is_read(kind: str, actions: list[tuple[str, int]], tmp_path_factory: Any) -> None:
    """Whatever was folded, opened again or cut off in between: each row once, those of a writer in their order."""
    if kind == "memory":
        pytest.importorskip("fsspec")
    name = uuid.uuid4().hex
    place = open_folder(
        f"memory://tests/{name}" if kind == "memory" else tmp_path_factory.getbasetemp() / name
    )
    expected: dict[str, list[str]] = {"sessions": [], "hosts": [], LOOKUPS: []}
    column = {"sessions": "mx_host", "hosts": "mx_host", LOOKUPS: "domain"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_ROWS_PER_PART", 4)
        patch.setattr(storage, "RENEW_SECONDS", 0.01)
        writer = SnapshotWriter(place, MANIFEST, b"roots")
        for action, count in actions:
            match action:
                case "fold":
                    writer.fold(finished=False)
                case "wait":
                    time.sleep(0.06)
                case "reopen" | "cut off":
                    (writer.close if action == "reopen" else writer.abandon)()
                    writer = SnapshotWriter(place, MANIFEST, b"roots")
                case "other":
                    with contextlib.closing(writer.journals("w1")) as journals:
                        for _ in range(count):
                            host = f"other{len(expected['sessions'])}"
                            journals.append("sessions", {"mx_host": host, "address": "192.0.2.1"})
                            expected["sessions"].append(host)
                case table:
                    for _ in range(count):
                        host = f"own{len(expected[table])}"
                        writer.append(table, {column[table]: host})
                        expected[table].append(host)
        writer._own.close()
        for table, rows in expected.items():
            stored = [row[column[table]] for row in writer.stored(table)]
            assert len(stored) == len(rows)
            for who, name in (("own", "main"), ("other", "w1")):
                its = [host for host in rows if host.startswith(who)]
                assert [host for host in stored if host.startswith(who)] == its
                named = store.stored_rows(place, table, writer=name)
                assert Counter(row[column[table]] for row in named) == Counter(its)
        writer.close()
        snapshot = open_snapshot(place)
        for table in ("sessions", "hosts"):
            hosts = list(snapshot.table(table)["mx_host"])
            for who in ("own", "other"):
                assert [h for h in hosts if h.startswith(who)] == [
                    h for h in expected[table] if h.startswith(who)
                ]


# -- the command ---------------------------------------------------------------------------------------------------


@on_s3
def test_the_command_takes_addresses(
    tiny: Snapshot, place: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`rtls show`, `audit`, `compare` and `report` read a snapshot at an address as one in a directory."""
    tiny.save(place.address)
    assert tiny.path is not None
    for words in (("show",), ("show", "--domain", str(tiny.domains["domain"].iloc[0])), ("audit",)):
        command, *rest = words
        said = []
        for where in (str(tiny.path), place.address):
            assert cli.main([command, where, *rest]) == 0
            said.append(capsys.readouterr().out)
        assert said[0] == said[1]
        assert said[0]
    assert cli.main(["compare", str(tiny.path), place.address]) == 0
    assert cli.main(["report", "--snapshot", place.address, "-o", str(tmp_path / "report.html")]) == 0
    assert (tmp_path / "report.html").stat().st_size > 10_000
    at_address = beside(place, "report.html")
    assert cli.main(["report", "--snapshot", place.address, "-o", at_address]) == 0
    parent, _slash, name = at_address.rpartition("/")
    assert open_folder(parent).read(name).startswith(b"<!doctype html>")
    capsys.readouterr()
    assert cli.main(["show", beside(place, "none")]) == 2
    assert "is no snapshot: it has no manifest.json" in capsys.readouterr().err
