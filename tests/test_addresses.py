"""Files and folders at addresses: found, read, and written whole or not at all."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from rtls_analysis.addresses import file_to_write, find_files, is_folder, read_whole
from rtls_analysis.storage import Folder, StoreProblem, is_address, open_folder


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, empty before and after."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


NAMES = [
    "a/mail.log",
    "a/mail.log.1",
    "a/mail.log.10",
    "a/mail.log.2",
    "a/b/mail.log",
    "c/mail.log",
    "c/x[1].log",
]


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("memory://top/a/mail.log", ["a/mail.log"]),
        ("memory://top/a", ["a/mail.log", "a/mail.log.1", "a/mail.log.2", "a/mail.log.10"]),
        ("memory://top/a/", ["a/mail.log", "a/mail.log.1", "a/mail.log.2", "a/mail.log.10"]),
        ("memory://top/*/mail.log", ["a/mail.log", "c/mail.log"]),
        ("memory://top/**/mail.log", ["a/b/mail.log", "a/mail.log", "c/mail.log"]),
        ("memory://top/a/mail.log.?", ["a/mail.log.1", "a/mail.log.2"]),
        ("memory://top/c/x[1].log", ["c/x[1].log"]),
        ("simplecache::memory://top/c/mail.log", ["c/mail.log"]),
    ],
)
def test_what_is_found(memory: Any, address: str, found: list[str]) -> None:
    """Files, folders and globs; the address of each is written like the one that was given, and can be given again."""
    for name in NAMES:
        memory.pipe_file(f"/top/{name}", name.encode())
    files = find_files(address)
    root = address[: address.index("top/") + 4]
    assert [file.address for file in files] == [f"{root}{name}" for name in found]
    for file, name in zip(files, found, strict=True):
        with pickle.loads(pickle.dumps(file)).open() as stream:
            assert stream.read() == name.encode()
        (again,) = find_files(file.address)
        assert again == file


def test_everything_below(memory: Any) -> None:
    """A folder with all that lies in it, also one that a glob finds."""
    for name in NAMES:
        memory.pipe_file(f"/top/{name}", name.encode())
    assert len(find_files("memory://top", below=True)) == len(NAMES)
    assert next(file.path for file in find_files("memory://top/a*", below=True)) == "/top/a/b/mail.log"
    files = find_files("memory://top/c", below=True)
    assert read_whole(files) == [b"c/mail.log", b"c/x[1].log"]
    memory.rm("/top/c/mail.log")
    gone, there = read_whole(files)
    assert isinstance(gone, FileNotFoundError)
    assert there == b"c/x[1].log"
    assert not files[0].is_there()
    assert files[1].is_there()


@pytest.mark.parametrize("address", ["memory://none", "memory://none/*.log", "memory://none/"])
def test_nothing_there(memory: Any, address: str) -> None:
    """It is the caller's error, and says what would do."""
    with pytest.raises(FileNotFoundError, match="give the address of a file or a folder, or a glob"):
        find_files(address)


def test_what_a_library_raises(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is, it is an error of reading, or a clear line about listing."""
    memory.pipe_file("/top/a.log", b"x")
    (file,) = find_files("memory://top/a.log")

    def fail(*_: Any, **__: Any) -> Any:
        raise LookupError("no such key")

    monkeypatch.setattr(type(memory), "_open", fail)
    with pytest.raises(OSError, match="LookupError: no such key"):
        file.open()
    monkeypatch.setattr(type(memory), "glob", fail)
    with pytest.raises(StoreProblem, match=r"cannot list memory://top/\*: LookupError: no such key"):
        find_files("memory://top/*")
    with pytest.raises(StoreProblem, match="cannot use nope://a: ValueError: Protocol not known: nope"):
        find_files("nope://a")


@pytest.mark.parametrize("where", ["local", "memory", "other"])
def test_a_folder(memory: Any, tmp_path: Path, where: str) -> None:
    """What is written can be read, replaces what was there, and is never seen in part."""
    address = {"local": str(tmp_path / "out"), "memory": "memory://out", "other": f"local://{tmp_path}/out"}[
        where
    ]
    folder: Folder = pickle.loads(pickle.dumps(open_folder(address)))
    assert folder.list("") == []
    folder.make()
    folder.write("b", b"one")
    folder.write("a", b"two")
    folder.write("b", b"three")
    assert folder.list("") == ["a", "b"]
    assert (folder.read("a"), folder.read("b")) == (b"two", b"three")
    with file_to_write(f"{address}/c.csv") as (hidden, place, name):
        hidden.write_bytes(b"four")
        assert "c.csv" not in folder.list("")
        place.put(name, hidden)
    assert folder.read("c.csv") == b"four"
    with pytest.raises(ZeroDivisionError), file_to_write(f"{address}/d.csv") as (hidden, place, name):  # noqa: PT012
        hidden.write_bytes(b"half")
        raise ZeroDivisionError
    assert folder.list("") == ["a", "b", "c.csv"]
    assert not hidden.exists()
    folder.remove("a")
    folder.remove("a")
    assert folder.list("") == ["b", "c.csv"]
    with pytest.raises(FileNotFoundError):
        folder.read("a")
    assert is_folder(address)
    assert is_folder(f"{address}/new/")
    assert not is_folder(f"{address}/new")
    assert not is_folder(f"{address}/b")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: neither a part of the file, nor a hidden one."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        open_folder(tmp_path).write("a", b"x")
    assert list(tmp_path.iterdir()) == []


def test_addresses_and_paths() -> None:
    """A local path is never taken for an address."""
    assert is_address("s3://b/x")
    assert not is_address(Path("s3://b/x"))
    assert not is_address("C:/x")
