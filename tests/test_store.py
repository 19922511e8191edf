"""A snapshot on disk: what was written comes back, whatever was cut off in between."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rtls_analysis import store
from rtls_analysis.outcomes import SessionOutcome
from rtls_analysis.schema import HOSTS, SESSIONS, SNAPSHOT_TABLES, to_frame
from rtls_analysis.store import LOOKUPS, Snapshot, SnapshotWriter, StoreProblem, open_snapshot

MANIFEST = {"scan": {"domains": 1, "seed": 0}, "state": "running"}


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


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    """Words, times, lists and bytes survive the way through journal and Parquet."""
    writer = SnapshotWriter(tmp_path / "scan", MANIFEST, b"roots")
    rows = [session(number) for number in range(5)]
    for row in rows:
        writer.append("sessions", row)
    writer.append("certificates", certificate())
    writer.close()
    snapshot = open_snapshot(tmp_path / "scan")
    pd.testing.assert_frame_equal(snapshot.sessions, to_frame(SESSIONS, rows))
    assert snapshot.certificates["der"].iloc[0] == b"\x30\x00\xff"
    assert snapshot.roots_pem == b"roots"
    assert list(snapshot.hosts.columns) == HOSTS.names()


def test_memory_and_directory_give_the_same_tables(tmp_path: Path) -> None:
    """A snapshot in memory equals the same one on disk, and `save` writes it there."""
    memory = SnapshotWriter(None, MANIFEST, b"roots")
    disk = SnapshotWriter(tmp_path / "a", MANIFEST, b"roots")
    for writer in (memory, disk):
        writer.append("sessions", session(1))
        writer.append("certificates", certificate())
        writer.close()
    first = memory.snapshot()
    for second in (disk.snapshot(), first.save(tmp_path / "b")):
        for table in SNAPSHOT_TABLES:
            pd.testing.assert_frame_equal(first.table(table.name), second.table(table.name))


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


def test_a_part_and_its_journal_are_not_counted_twice(tmp_path: Path) -> None:
    """A kill between the renaming of a part and the removal of its journal doubles nothing."""
    out = tmp_path / "scan"
    writer = SnapshotWriter(out, MANIFEST, b"roots")
    writer.append("sessions", session(1))
    journal = next((out / "_work").glob("sessions-*.jsonl"))
    copy = journal.read_bytes()
    writer.close()
    journal.write_bytes(copy)
    again = SnapshotWriter(out, MANIFEST, b"roots")
    assert len(list(again.stored("sessions"))) == 1
    again.close()
    assert len(open_snapshot(out).sessions) == 1


def test_many_rows_become_several_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full journal becomes a part while the scan goes on; the order of the rows stays."""
    monkeypatch.setattr(store, "_ROWS_PER_PART", 10)
    writer = SnapshotWriter(tmp_path / "scan", MANIFEST, b"roots")
    for number in range(35):
        writer.append("sessions", session(number))
    writer.close()
    assert len(list((tmp_path / "scan" / "sessions").glob("part-*.parquet"))) == 4
    hosts = list(open_snapshot(tmp_path / "scan").sessions["mx_host"])
    assert hosts == [f"mx{number}.example" for number in range(35)]


def test_replace_puts_rows_in_the_place_of_a_table(tmp_path: Path) -> None:
    """The judged tables are written as a whole, and written again when a scan is resumed."""
    writer = SnapshotWriter(tmp_path / "scan", MANIFEST, b"roots")
    for names in (["a.example"], ["b.example", "c.example"]):
        table = writer.replacement("domains")
        for name in names:
            table.add({"domain": name})
        table.finish()
    writer.append(LOOKUPS, {"domain": "a.example"})
    writer.close()
    writer.drop_work()
    assert list(open_snapshot(tmp_path / "scan").domains["domain"]) == ["b.example", "c.example"]
    assert not (tmp_path / "scan" / "_work").exists()


def test_another_scan_is_refused(tmp_path: Path) -> None:
    """A directory of another scan gets one line that says what differs."""
    SnapshotWriter(tmp_path / "scan", MANIFEST, b"roots").close()
    with pytest.raises(StoreProblem, match=r"another scan .different seed.; give a new directory"):
        SnapshotWriter(tmp_path / "scan", {"scan": {"domains": 1, "seed": 9}}, b"roots")


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    """A second process that would write to the same directory is told so."""
    writer = SnapshotWriter(tmp_path / "scan", MANIFEST, b"roots")
    with pytest.raises(StoreProblem, match="another process"):
        SnapshotWriter(tmp_path / "scan", MANIFEST, b"roots")
    writer.close()


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
def held(tmp_path: Path) -> Snapshot:
    writer = SnapshotWriter(tmp_path / "scan", MANIFEST, b"roots")
    for number in range(4):
        writer.append("sessions", session(number))
    writer.close()
    return open_snapshot(tmp_path / "scan")


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


def test_a_column_that_an_old_part_lacks_is_missing(held: Snapshot) -> None:
    """A snapshot of an older version opens; what it did not record is missing."""
    import pyarrow.parquet as pq

    assert held.path is not None
    part = next((held.path / "sessions").glob("*.parquet"))
    pq.write_table(pq.read_table(part, partitioning=None).drop(["key_exchange"]), part)
    assert open_snapshot(held.path).sessions["key_exchange"].isna().all()


def test_manifest_is_readable_json(held: Snapshot) -> None:
    """The manifest is there for people and other programs too."""
    assert held.path is not None
    assert json.loads((held.path / "manifest.json").read_text())["scan"] == MANIFEST["scan"]


def test_a_selection_of_nothing_is_empty(held: Snapshot) -> None:
    """An empty list of values selects no rows, from the disk and from memory."""
    for _where in ("disk", "memory"):
        frame = held.table("sessions", where={"mx_host": []})
        assert len(frame) == 0
        assert list(frame.columns) == SESSIONS.names()
        assert len(held.sessions) == 4  # which takes the table into memory
