"""Folders on a disk, in memory, on an S3 server and on a file system without whole puts: the same manners everywhere."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis import storage
from rtls_analysis.storage import (
    Chunks,
    Folder,
    Lease,
    LocalFolder,
    RemoteFolder,
    StoreProblem,
    chunks_of,
    leases,
    open_folder,
    wait_for_leases,
)
from tests.s3 import S3, fresh_address

KINDS = ["disk", "memory", "s3", "moved"]
"""Of folders; "moved" is a file system where a file is put under a hidden name and moved."""


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "moved":
        pytest.importorskip("fsspec")
        return RemoteFolder(f"local://{tmp_path}/scan")
    return open_folder(fresh_address(request.param, request, tmp_path))


creates_in_one_step = pytest.mark.parametrize("folder", ["disk", "memory", "s3"], indirect=True)
on_disk_and_s3 = pytest.mark.parametrize("folder", ["disk", "s3"], indirect=True)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases and chunks that take a fraction of their time."""
    monkeypatch.setattr(storage, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(storage, "SURE_SECONDS", 1.4)
    monkeypatch.setattr(storage, "LEASE_SECONDS", 2.0)
    monkeypatch.setattr(storage, "FLUSH_SECONDS", 0.05)


def until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


# -- files ---------------------------------------------------------------------------------------------------


def test_files_come_back(folder: Folder) -> None:
    """What was written is read, listed, moved, replaced and removed by its name."""
    assert not folder.exists()
    assert folder.list("a") == []
    folder.make("a")
    for name in ("a/two-1", "a/one-2", "a/.one-3", "top"):
        folder.write(name, name.encode())
    assert folder.exists()
    assert folder.exists("a/two-1")
    assert not folder.exists("a/none")
    assert folder.list("a", "one-*") == ["a/one-2"]
    assert folder.list("a", ".one-*") == ["a/.one-3"]
    assert "top" in folder.list("", "t*")
    assert folder.read("a/two-1") == b"a/two-1"
    assert list(folder.read_each(["top", "a/one-2"])) == [b"top", b"a/one-2"]
    folder.write("top", b"new")
    folder.move("a/two-1", "top")
    assert folder.read("top") == b"a/two-1"
    assert not folder.exists("a/two-1")
    with folder.open("top") as file:
        file.seek(2)
        assert file.read() == b"two-1"
    folder.sync("a")
    folder.remove("a/one-2", "a/none", "a/.one-3")
    folder.remove("top")
    folder.remove("top")
    folder.remove()
    assert folder.list("a") == []
    folder.make("b")
    folder.write("b/x", b"")
    assert folder.read("b/x") == b""
    folder.remove_all("b")
    folder.remove_all("b")
    assert not folder.exists("b/x")
    folder.remove_all("")
    assert not folder.exists()


def test_what_is_not_there_is_a_missing_file(folder: Folder) -> None:
    """Reading, in each way, says so as Python does."""
    for read in (folder.read, folder.open, lambda name: list(folder.read_each([name, name]))):
        with pytest.raises(FileNotFoundError):
            read("none")


def test_what_others_wrote_is_seen(folder: Folder) -> None:
    """A folder keeps no memory of an earlier look: files that come and go elsewhere do so here."""
    other: Folder = pickle.loads(pickle.dumps(folder))
    other.make("a")
    assert folder.list("a") == []
    other.write("a/x", b"1")
    assert folder.list("a") == ["a/x"]
    assert folder.read("a/x") == b"1"
    other.write("a/x", b"22")
    assert folder.read("a/x") == b"22"
    with folder.open("a/x") as file:
        assert file.read() == b"22"
    other.remove("a/x")
    assert not folder.exists("a/x")
    assert folder.list("a") == []


def test_one_alone_creates(folder: Folder) -> None:
    """Of several who create a file the first one does, and its word stands."""
    folder.make("a")
    assert folder.create("a/x", b"first")
    assert not folder.create("a/x", b"second")
    assert folder.read("a/x") == b"first"
    folder.remove("a/x")
    assert folder.create("a/x", b"third")


@creates_in_one_step
def test_of_many_at_once_one_creates(folder: Folder) -> None:
    """So it is where they come at the same time; where that takes two steps a lease looks twice."""
    folder.make("a")
    with ThreadPoolExecutor(8) as pool:
        for number in range(5):
            made = list(pool.map(partial(folder.create, f"a/{number}"), [b"x"] * 8))
            assert sorted(made) == [False] * 7 + [True]


def test_a_server_that_cannot_create_in_one_step(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server refuses the condition it looks first, then puts."""
    folder = open_folder(s3.address(uuid.uuid4().hex))
    assert isinstance(folder, RemoteFolder)
    put = folder._fs.pipe_file

    def refuse(path: str, data: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise OSError(errno.ENOSYS, "A header you provided implies functionality that is not implemented")
        put(path, data)

    monkeypatch.setattr(folder._fs, "pipe_file", refuse)
    assert folder.create("x", b"1")
    assert not folder.create("x", b"2")
    assert folder.read("x") == b"1"


def test_errors_of_others_are_os_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system's own kind of error is one that a full disk has too: callers need to know no other."""
    pytest.importorskip("fsspec")
    folder = open_folder("memory://tests/errors")
    assert isinstance(folder, RemoteFolder)

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("no route\nto host")

    for name in ("pipe_file", "cat_file", "cat", "ls", "exists", "rm_file", "rm", "cp_file", "open"):
        monkeypatch.setattr(folder._fs, name, fail)
    for call in (
        lambda: folder.write("x", b""),
        lambda: folder.create("x", b""),
        lambda: folder.read("x"),
        lambda: list(folder.read_each(["x"])),
        lambda: folder.list("x"),
        lambda: folder.exists("x"),
        lambda: folder.remove("x"),
        lambda: folder.remove("x", "y"),
        lambda: folder.move("x", "y"),
        lambda: folder.open("x"),
    ):
        with pytest.raises(OSError, match=r"RuntimeError: no route$") as caught:
            call()
        assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("kind", ["disk", "moved"])
def test_a_write_that_fails_leaves_what_was_there(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full in the middle of a file: the old one is still there, whole."""
    pytest.importorskip("fsspec")
    folder = RemoteFolder(f"local://{tmp_path}/x") if kind == "moved" else LocalFolder(tmp_path / "x")
    folder.make()
    folder.write("f", b"old")

    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if isinstance(folder, RemoteFolder):
        put = folder._fs.pipe_file

        def full_soon(path: str, data: bytes) -> None:
            put(path, data[:2])
            full()

        monkeypatch.setattr(folder._fs, "pipe_file", full_soon)
    else:
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write("f", b"newer")
    assert folder.read("f") == b"old"
    assert folder.list("", "f*") == ["f"]


def test_a_name_that_is_taken_is_replaced_where_a_move_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On file systems that rename only to a free name the old file goes first."""
    pytest.importorskip("fsspec")
    folder = RemoteFolder(f"local://{tmp_path}/x")
    move = folder._fs.mv

    def to_free_name(old: str, new: str) -> None:
        if Path(new).exists():
            raise FileExistsError(new)
        move(old, new)

    monkeypatch.setattr(folder._fs, "mv", to_free_name)
    folder.write("f", b"old")
    folder.write("f", b"new")
    assert folder.read("f") == b"new"


def test_an_object_is_whole_when_its_writer_is_killed(s3: S3) -> None:
    """A kill -9 in the middle of puts of 24 MB leaves one of the objects that were put, and no part of one."""
    folder = open_folder(s3.address(uuid.uuid4().hex))
    size = 24 << 20
    code = textwrap.dedent(f"""
        from rtls_analysis.storage import open_folder
        folder = open_folder({folder.address!r})
        while True:
            for letter in (b"a", b"b"):
                folder.write("big", letter * {size})
    """)
    for wait in (0.0, 0.11, 0.23):
        with subprocess.Popen([sys.executable, "-c", code]) as process:
            until(lambda: folder.exists("big"), 60)
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        data = folder.read("big")
        assert len(data) == size
        assert data.count(data[:1]) == size
        folder.remove("big")


PLACES = [
    ("a path", "a/b", LocalFolder, "a/b"),
    ("an absolute path", "/a/b", LocalFolder, "/a/b"),
    ("a Path", Path("a"), LocalFolder, "a"),
    ("a file's address", "file:///a%20b/c", LocalFolder, "/a b/c"),
    ("an address", "memory://a/b/", RemoteFolder, "memory://a/b"),
]


@pytest.mark.parametrize(
    ("address", "kind", "found"), [pytest.param(a, k, f, id=why) for why, a, k, f in PLACES]
)
def test_an_address_says_where(address: Any, kind: type[Folder], found: str) -> None:
    """What has ``://`` in it is elsewhere, but for files of this machine; a folder is itself."""
    if kind is RemoteFolder:
        pytest.importorskip("fsspec")
    folder = open_folder(address)
    assert isinstance(folder, kind)
    assert str(folder) == folder.address == found
    assert open_folder(folder) is folder
    assert (folder.path is None) == (kind is RemoteFolder)


def test_a_folder_is_the_same_one_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path that is sent to another process does not depend on where that one works."""
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickle.dumps(open_folder("x"))).path == tmp_path / "x"


WRONG = [
    ("no such kind", "nothing://x/y", "cannot use nothing://x/y: ValueError: Protocol not known"),
    ("patterns", "memory://x/[a]", "patterns to a file system; give a plain name"),
]


@pytest.mark.parametrize(("address", "message"), [pytest.param(a, m, id=why) for why, a, m in WRONG])
def test_what_cannot_be_used_gets_one_line(address: str, message: str) -> None:
    """One line says what is wrong with an address."""
    pytest.importorskip("fsspec")
    with pytest.raises(StoreProblem, match=message) as caught:
        open_folder(address)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("missing", "address"), [("fsspec", "s3://x/y"), ("s3fs", "s3://x/y")])
def test_what_is_not_installed_is_named(missing: str, address: str) -> None:
    """Without fsspec, or without what it needs, the line has the command; a local path needs neither."""
    pytest.importorskip("fsspec")
    code = textwrap.dedent(f"""
        import sys
        sys.modules[{missing!r}] = None
        from rtls_analysis.storage import StoreProblem, open_folder
        open_folder("/tmp")
        try:
            open_folder({address!r})
        except StoreProblem as problem:
            print(problem)
    """)
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert address in said
    assert "pip install 'rtls_analysis[s3]'" in said
    assert said.count("\n") == 1


def test_fsspec_is_not_loaded_for_a_local_folder() -> None:
    """Start-up time of all who scan to a disk stays what it is."""
    code = (
        "import sys, rtls_analysis.store as store; store.open_folder('/tmp').list(''); "
        "print(*{'fsspec', 's3fs', 'pyarrow', 'pandas', 'dask'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"\n"


# -- leases --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hasty")
@on_disk_and_s3
def test_a_lease_is_handed_over(folder: Folder) -> None:
    """Who waits gets it when it is released, at once; nothing of it is left."""
    folder.make("_work")
    first, second = Lease(folder, "w"), Lease(folder, "w")
    assert not first.is_held
    assert first.acquire()
    assert leases(folder) == ["w"]
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(second.acquire)
        time.sleep(1.5 * storage.LEASE_SECONDS)
        assert not taken.done()
        assert first.is_held
        first.release()
        assert not first.is_held
        assert taken.result(20)
    assert second.is_held
    second.release()
    assert leases(folder) == []


@pytest.mark.usefixtures("hasty")
@on_disk_and_s3
def test_without_waiting_a_living_holder_is_enough(folder: Folder) -> None:
    """`wait=False` gives up when the holder shows that it is alive, and takes over from one that does not."""
    folder.make("_work")
    with Lease(folder, "w") as first:
        assert not Lease(folder, "w").acquire(wait=False)
        other = Lease(folder, "other")
        assert other.acquire(wait=False)
        other.release()
        assert first._thread is not None
        first._released.set()  # it goes on no more, and says nothing of it
        first._thread.join()
        begun = time.monotonic()
        second = Lease(folder, "w")
        assert second.acquire(wait=False)
        assert time.monotonic() - begun >= storage.LEASE_SECONDS - storage.RENEW_SECONDS
        assert not first.is_held
    assert second.is_held  # what the first one releases is not its any more
    assert second._is_ours()
    second.release()


@pytest.mark.usefixtures("hasty")
def test_who_was_cut_off_has_lost_it_before_another_has_it(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder whose writes hang knows that it is no longer sure, before the newcomer begins, and for good."""
    folder.make("_work")
    mine: Folder = pickle.loads(pickle.dumps(folder))
    write, is_cut_off, connected = mine.write, threading.Event(), threading.Event()
    hanging = threading.Event()

    def hang(name: str, data: bytes) -> None:
        if is_cut_off.is_set():
            hanging.set()
            connected.wait()
        write(name, data)

    monkeypatch.setattr(mine, "write", hang)
    first, second = Lease(mine, "w"), Lease(folder, "w")
    assert first.acquire()
    is_cut_off.set()
    assert hanging.wait(20)
    assert second.acquire()
    assert not first.is_held
    connected.set()  # its word arrives, late
    assert first._thread is not None
    first._thread.join(20)
    assert not first.is_held
    time.sleep(3 * storage.RENEW_SECONDS)
    assert second.is_held
    first.release()
    assert second._is_ours()
    second.release()


@pytest.mark.usefixtures("hasty")
@on_disk_and_s3
def test_a_theft_is_noticed(folder: Folder) -> None:
    """Whoever wrote over the file, or removed it, ends the lease with the next renewal."""
    folder.make("_work")
    with Lease(folder, "a") as first, Lease(folder, "b") as second:
        folder.write("_work/leases/a.000001", b"thief 1\n")
        folder.remove("_work/leases/b.000001")
        until(lambda: not first.is_held and not second.is_held, storage.SURE_SECONDS)


@pytest.mark.usefixtures("hasty")
@on_disk_and_s3
def test_a_storage_out_of_reach_ends_a_lease(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals that fail are tried again, for as long as nobody can have taken over."""
    folder.make("_work")
    lease = Lease(folder, "w")
    assert lease.acquire()
    read, renewed_at = folder.read, lease._renewed_at
    failures = iter([True, True, False])

    def unsure(name: str) -> bytes:
        if next(failures, True):
            raise OSError(errno.EHOSTUNREACH, "No route to host")
        return read(name)

    monkeypatch.setattr(folder, "read", unsure)
    until(lambda: lease._renewed_at > renewed_at)  # by the third try
    assert lease.is_held
    until(lambda: not lease.is_held)
    lease.release()


@pytest.mark.usefixtures("hasty")
@creates_in_one_step
def test_of_many_newcomers_one_gets_a_dead_ones_lease(folder: Folder) -> None:
    """Never two at once, whoever comes, and each gets its turn."""
    folder.make("_work/leases")
    folder.create("_work/leases/w.000007", b"dead 1\n")
    here: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with Lease(folder, "w") as lease:
            here.append(number)
            most.append(len(here))
            time.sleep(0.3)
            assert lease.is_held
            here.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]
    assert leases(folder) == []


@pytest.mark.usefixtures("hasty")
@on_disk_and_s3
def test_what_the_dead_left_is_cleared(folder: Folder) -> None:
    """`wait_for_leases` takes over what nobody holds, but for those named."""
    folder.make("_work/leases")
    for name in ("a.000001", "b.000002", "b.000003", "main.000001"):
        folder.create(f"_work/leases/{name}", b"dead 1\n")
    assert leases(folder) == ["a", "b", "main"]
    wait_for_leases(folder, but=("main",))
    assert leases(folder) == ["main"]


def test_a_killed_holder_is_followed(s3: S3) -> None:
    """With the real numbers: a process that is killed -9 loses its lease after ten seconds, not before."""
    folder = open_folder(s3.address(uuid.uuid4().hex))
    code = textwrap.dedent(f"""
        import time
        from rtls_analysis.storage import Lease, open_folder
        assert Lease(open_folder({folder.address!r}), "w").acquire()
        print("taken", flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"taken\n"
        process.send_signal(signal.SIGKILL)
    begun = time.monotonic()
    with Lease(folder, "w") as lease:
        assert lease.is_held
        assert time.monotonic() - begun >= storage.LEASE_SECONDS


# -- chunks --------------------------------------------------------------------------------------------------


def names_of(name: str) -> Callable[[str], str]:
    numbers = iter(range(1, 1000))
    return lambda kind: f"{name}-{next(numbers)}"


@pytest.fixture
def memory() -> RemoteFolder:
    pytest.importorskip("fsspec")
    return RemoteFolder(f"memory://tests/{uuid.uuid4().hex}")


@pytest.mark.usefixtures("hasty")
@given(
    pieces=st.lists(st.one_of(st.binary(min_size=1, max_size=9), st.none()), max_size=30),
    waits=st.sets(st.integers(0, 30), max_size=2),
)
@settings(max_examples=40)
def test_what_is_added_is_read(pieces: list[bytes | None], waits: set[int]) -> None:
    """Whatever came when, the files hold what was added to each, in order; None begins the next file."""
    pytest.importorskip("fsspec")
    folder = RemoteFolder(f"memory://tests/{uuid.uuid4().hex}")
    chunks = Chunks(folder, names_of("f"))
    files = [b""]
    for place, piece in enumerate(pieces):
        if piece is None:
            chunks.begin("k")
            files.append(b"")
        else:
            chunks.write("k", piece)
            files[-1] += piece
        if place in waits:
            time.sleep(0.06)
    chunks.close()
    held = [data for data in files if data]  # a file to which nothing was added is none
    assert [b"".join(chunks_of(folder, f"f-{number + 1}")) for number in range(len(held))] == held
    assert b"".join(chunks_of(folder, f"f-{len(held) + 1}")) == b""


@pytest.mark.usefixtures("hasty")
def test_rows_are_put_within_a_moment(folder: Folder) -> None:
    """A reader elsewhere sees them soon, without anything being closed."""
    chunks = Chunks(folder, lambda kind: "a/f")
    folder.make("a")
    chunks.write("k", b"1\n")
    chunks.write("k", b"2\n")
    until(lambda: b"".join(chunks_of(folder, "a/f")) == b"1\n2\n")
    chunks.write("k", b"3\n")
    until(lambda: b"".join(chunks_of(folder, "a/f")) == b"1\n2\n3\n")
    chunks.close()
    assert len(folder.list("a")) == 2


@pytest.mark.usefixtures("hasty")
def test_adding_never_waits(memory: RemoteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put that hangs holds nobody up, and a file is begun only when the one before it is there."""
    write, let_go, order = memory.write, threading.Event(), list[str]()

    def slow(name: str, data: bytes) -> None:
        let_go.wait()
        order.append(name)
        write(name, data)

    monkeypatch.setattr(memory, "write", slow)
    chunks = Chunks(memory, names_of("f"))
    for number in range(1000):
        chunks.write("k", b"%d\n" % number)
        if number % 400 == 399:
            chunks.begin("k")
    assert order == []
    let_go.set()
    chunks.close()
    assert order == sorted(order)
    lines = b"".join(b"".join(chunks_of(memory, f"f-{number}")) for number in (1, 2, 3)).split()
    assert lines == [b"%d" % number for number in range(1000)]


KINDS = ("told of first", "second", "refers to both", "no matter")


@pytest.mark.usefixtures("hasty")
@given(rounds=st.lists(st.sampled_from([*KINDS, "wait", "break", "begin"]), max_size=40))
@settings(max_examples=40)
def test_what_refers_to_others_is_there_after_them(rounds: list[str]) -> None:
    """Whenever one looks, and whichever put fails, a piece is there only with all of earlier kinds before it."""
    pytest.importorskip("fsspec")
    folder = RemoteFolder(f"memory://tests/{uuid.uuid4().hex}")
    write, failing = folder.write, [0]
    added: dict[str, list[int]] = {kind: [] for kind in KINDS}

    def look() -> dict[str, list[int]]:
        return {
            kind: [
                int(line)
                for number in range(1, 42)
                for line in b"".join(chunks_of(folder, f"{kind}-{number}")).split()
            ]
            for kind in KINDS
        }

    def check() -> None:
        seen = look()
        for place, kind in enumerate(KINDS[:3]):
            assert seen[kind] == added[kind][: len(seen[kind])]
            last = max(seen[kind], default=-1)
            for earlier in KINDS[:place]:
                assert [n for n in added[earlier] if n < last] == [n for n in seen[earlier] if n < last]

    def put(name: str, data: bytes) -> None:
        if failing[0]:
            failing[0] -= 1
            raise OSError(errno.EIO, "not now")
        write(name, data)
        check()

    folder.write = put  # type: ignore[method-assign]
    numbers = Counter[str]()

    def next_name(kind: str) -> str:
        numbers[kind] += 1
        return f"{kind}-{numbers[kind]}"

    chunks = Chunks(folder, next_name, KINDS[:3])
    for number, word in enumerate(rounds):
        match word:
            case "wait":
                with contextlib.suppress(OSError):
                    chunks.flush()
            case "break":
                failing[0] += 1
            case "begin":
                chunks.begin(KINDS[number % 4])
            case kind:
                with contextlib.suppress(OSError):
                    chunks.write(kind, b"%d\n" % number)
                    added[kind].append(number)
    failing[0] = 0
    chunks.close()
    assert look() == added


@pytest.mark.usefixtures("hasty")
def test_an_error_is_told_and_nothing_is_lost(memory: RemoteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put that fails is an error for who adds next; what is held is put when that works again."""
    write, is_broken, tries = memory.write, threading.Event(), list[str]()

    def full(name: str, data: bytes) -> None:
        if is_broken.is_set():
            tries.append(name)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(name, data)

    monkeypatch.setattr(memory, "write", full)
    chunks = Chunks(memory, lambda kind: "f")
    chunks.write("k", b"1\n")
    until(lambda: memory.exists("f.000001"))
    is_broken.set()
    chunks.write("k", b"2\n")
    until(lambda: len(tries) > 1)
    with pytest.raises(OSError, match="No space"):
        chunks.write("k", b"lost\n")
    is_broken.clear()
    until(lambda: memory.exists("f.000002"))
    chunks.write("k", b"3\n")
    is_broken.set()
    with pytest.raises(OSError, match="No space"):
        chunks.close()
    is_broken.clear()
    chunks.close()
    assert b"".join(chunks_of(memory, "f")) == b"1\n2\n3\n"


@pytest.mark.usefixtures("hasty")
def test_rows_outlive_their_writer(s3: S3) -> None:
    """What came more than a moment before a kill -9 is there, from several processes at once, each in its order."""
    folder = open_folder(s3.address(uuid.uuid4().hex))
    with contextlib.ExitStack() as stack:
        processes = []
        for name in ("a", "b"):
            code = textwrap.dedent(f"""
                import time
                from rtls_analysis import storage
                storage.FLUSH_SECONDS = 0.1
                chunks = storage.Chunks(storage.open_folder({folder.address!r}), lambda kind: {name!r})
                number = 0
                while True:
                    chunks.write("k", b"%d\\n" % number)
                    number += 1
                    time.sleep(0.001)
            """)
            processes.append(stack.enter_context(subprocess.Popen([sys.executable, "-c", code])))
        until(lambda: all(len(folder.list("", f"{name}.*")) >= 3 for name in "ab"), 60)
        for process in processes:
            process.send_signal(signal.SIGKILL)
    for name in "ab":
        numbers = [int(line) for line in b"".join(chunks_of(folder, name)).split()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > 20
