"""Folders for snapshots: on a local disk, or at an address such as ``s3://bucket/scan`` of any fsspec file system.

A file appears whole or not at all. On a local disk it is written under a hidden name, synced and renamed; an object
store takes an object whole, and other file systems get a hidden name and a move. fsspec is not loaded for a local
folder.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Address = str | os.PathLike[str]


class StoreProblem(Exception):
    """A directory that cannot be read as, or written as, this snapshot: one line that says what would do."""


class Folder(ABC):
    """A folder, and files in it by names such as ``sessions/part-w1-000001.parquet``; it can be sent elsewhere.

    Attributes
    ----------
    address
        By which `open_folder` finds it again.
    """

    address: str

    @abstractmethod
    def exists(self, name: str = "") -> bool:
        """Whether there is such a file or folder, or this folder itself."""

    @abstractmethod
    def list(self, folder: str, pattern: str = "*") -> list[str]:
        """Give the names of the files of a folder in it that fit a pattern, sorted; hidden ones are files too."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Read a file; `FileNotFoundError` where there is none."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a file so that it appears whole or not at all."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    @abstractmethod
    def move(self, name: str, to: str) -> None:
        """Give a file another name, in place of what has that name."""

    @abstractmethod
    def make(self, folder: str = "") -> None:
        """Make a folder, and those above it; an object store has none and needs none."""

    @abstractmethod
    def remove_all(self, folder: str) -> None:
        """Remove a folder with all that is in it."""

    @abstractmethod
    def sync(self, folder: str) -> None:
        """Put on the disk what was moved or removed in a folder."""

    @abstractmethod
    def open(self, name: str) -> Any:
        """Open a file for reading, for whoever wants to seek in it."""

    @property
    def path(self) -> Path | None:
        """Where it lies on this machine; None elsewhere."""
        return None

    def __str__(self) -> str:
        return self.address


class LocalFolder(Folder):
    """A folder on a disk of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.address = str(path)

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._path

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file or folder."""
        return (self._path / name).exists()

    def list(self, folder: str, pattern: str = "*") -> list[str]:
        """Give the names of the files of a folder in it that fit a pattern."""
        prefix = f"{folder}/" if folder else ""
        return sorted(prefix + path.name for path in (self._path / folder).glob(pattern))

    def read(self, name: str) -> bytes:
        """Read a file."""
        return (self._path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write a file under a hidden name, sync it, and rename it."""
        path = self._path / name
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self._path / name).unlink(missing_ok=True)

    def move(self, name: str, to: str) -> None:
        """Rename a file."""
        (self._path / name).replace(self._path / to)

    def make(self, folder: str = "") -> None:
        """Make a folder, and those above it."""
        (self._path / folder).mkdir(parents=True, exist_ok=True)

    def remove_all(self, folder: str) -> None:
        """Remove a folder with all that is in it."""
        shutil.rmtree(self._path / folder, ignore_errors=True)

    def sync(self, folder: str) -> None:
        """Put on the disk what was renamed or removed in a folder."""
        _sync_directory(self._path / folder)

    def open(self, name: str) -> Any:
        """Open a file for reading."""
        return (self._path / name).open("rb")


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


WHOLE_OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "adl", "oss", "memory"})
"""File systems of fsspec on which a put is seen whole or not at all; on others a file is moved into its place."""


class RemoteFolder(Folder):
    """A folder on a file system of fsspec.

    Keys and endpoints come from where each file system takes its own: its environment, or fsspec's configuration.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._protocol = self.address.partition("://")[0]
        self._connect()

    def _connect(self) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise StoreProblem(
                f"{self.address} needs fsspec; install it with: pip install 'rtls_analysis[s3]'"
            ) from None
        try:
            self._fs, self._root = url_to_fs(self.address, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise StoreProblem(f"cannot use {self.address}: {reason}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address, "_protocol": self._protocol}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._connect()

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else str(self._root)

    def exists(self, name: str = "") -> bool:
        """Whether there is such an object, or one below that name."""
        return bool(self._fs.exists(self._at(name)))

    def list(self, folder: str, pattern: str = "*") -> list[str]:
        """Give the names of the objects below a folder that fit a pattern."""
        try:
            found = self._fs.ls(self._at(folder), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        except TypeError:  # it keeps no listing, and knows no `refresh`
            found = self._fs.ls(self._at(folder), detail=False)
        prefix = f"{folder}/" if folder else ""
        names = (str(path).rstrip("/").rpartition("/")[2] for path in found)
        return sorted(prefix + name for name in names if fnmatch.fnmatchcase(name, pattern))

    def read(self, name: str) -> bytes:
        """Read an object."""
        data: bytes = self._fs.cat_file(self._at(name))
        return data

    def write(self, name: str, data: bytes) -> None:
        """Put an object, whole."""
        if self._protocol in WHOLE_OBJECTS:
            self._fs.pipe_file(self._at(name), data)
            return
        folder, _slash, last = name.rpartition("/")
        self._fs.makedirs(self._at(folder), exist_ok=True)
        hidden = self._at(f"{folder}/.{last}.tmp" if folder else f".{last}.tmp")
        self._fs.pipe_file(hidden, data)
        self._fs.mv(hidden, self._at(name))

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._at(name))

    def move(self, name: str, to: str) -> None:
        """Copy an object within its file system, and remove the first."""
        self._fs.mv(self._at(name), self._at(to))

    def make(self, folder: str = "") -> None:
        """Make a folder where there are any."""
        if self._protocol not in WHOLE_OBJECTS:
            self._fs.makedirs(self._at(folder), exist_ok=True)

    def remove_all(self, folder: str) -> None:
        """Remove all objects below a folder."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._at(folder), recursive=True)

    def sync(self, folder: str) -> None:
        """Do nothing: what was put is there."""

    def open(self, name: str) -> Any:
        """Open an object for reading."""
        return self._fs.open(self._at(name), "rb")


def open_folder(address: Address | Folder) -> Folder:
    """Open a folder, there or not, by its path or its address.

    Raises
    ------
    StoreProblem
        fsspec, or what it needs for such an address, is missing.
    """
    if isinstance(address, Folder):
        return address
    text = os.fspath(address)
    return RemoteFolder(text) if "://" in text else LocalFolder(Path(text))


# -- who may write -------------------------------------------------------------------------------------------

RENEW_SECONDS = 2.0
"""Seconds after which who holds a lease says so again."""

LEASE_SECONDS = 10.0
"""Seconds without a word after which another may take a lease over."""

_SURE_SECONDS = 7.0  # without a renewal that came through: from then on others may believe us gone


class Lease:
    """The right of one alone to write under a name in a folder, whichever machine they are on.

    Who holds it says so again and again. A newcomer who sees no change for `LEASE_SECONDS` by a clock of its own takes
    it over; who could not renew it in time, or finds another's token, no longer holds it (`is_held`) and must stop.

    Parameters
    ----------
    folder, name
        Where, and for what.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._file = folder, f"_work/lease-{name}"
        self._token = uuid.uuid4().hex
        self._count = 0
        self._renewed_at = float("-inf")
        self._lost = False
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_held(self) -> bool:
        """Whether it is surely still ours."""
        return not self._lost and time.monotonic() - self._renewed_at < _SURE_SECONDS

    def acquire(self, *, wait: bool = True) -> bool:
        """Take it, once nobody has it any more; without `wait` False where somebody may have it."""
        seen, since = self._seen(), time.monotonic()
        while seen is not None and time.monotonic() - since < LEASE_SECONDS:
            if not wait:
                return False
            time.sleep(RENEW_SECONDS / 4)
            if (now := self._seen()) != seen:
                seen, since = now, time.monotonic()
        self._say()
        time.sleep(0 if seen is None else RENEW_SECONDS / 4)  # another newcomer may have taken it with us
        if not self._is_ours():
            return self.acquire(wait=wait) if wait else False
        self._thread = threading.Thread(target=self._renew, name="rtls-lease", daemon=True)
        self._thread.start()
        return True

    def _seen(self) -> bytes | None:
        try:
            return self._folder.read(self._file)
        except FileNotFoundError:
            return None

    def _is_ours(self) -> bool:
        said = self._seen()
        return said is not None and said.startswith(self._token.encode())

    def _say(self) -> None:
        self._count += 1
        begun = time.monotonic()
        self._folder.write(self._file, f"{self._token} {self._count}\n".encode())
        self._renewed_at = begun

    def _renew(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            with contextlib.suppress(OSError):  # the next one may come through in time
                if not self._is_ours():
                    self._lost = True
                    return
                self._say()

    def release(self) -> None:
        """Let go of it."""
        self._released.set()
        if self._thread is not None:
            self._thread.join()
        if not self._lost:
            with contextlib.suppress(OSError):
                if self._is_ours():
                    self._folder.remove(self._file)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def leases(folder: Folder) -> list[str]:
    """Give the names for which there are leases in a folder, held or left behind."""
    return [name.rpartition("/lease-")[2] for name in folder.list("_work", "lease-*")]


def wait_for_leases(folder: Folder, but: Container[str] = ()) -> None:
    """Wait until nobody holds a lease in a folder, `but` for these, and clear away what the dead left behind."""
    for name in leases(folder):
        if name in but:
            continue
        with Lease(folder, name):
            pass


# -- rows that arrive ----------------------------------------------------------------------------------------

FLUSH_SECONDS = 1.0
"""Seconds after which rows for a remote folder are put there at the latest: those count as in flight until then."""


class Chunks:
    """A file on a remote folder that grows, as chunks: objects whose names end in ``.000001``, ``.000002`` ...

    An object store cannot append. Data are held and put by a thread, so that `write` never waits for the network.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        self._data: list[bytes] = []
        self._number = 0
        self._error: OSError | None = None
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtls-chunks", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> int:
        """Add data; an `OSError` of an earlier put is raised here."""
        if self._error is not None:
            raise self._error
        with self._lock:
            self._data.append(data)
        return len(data)

    def _run(self) -> None:
        while not self._ending.wait(FLUSH_SECONDS):
            self._put()

    def _put(self) -> None:
        with self._lock:
            data, self._data = b"".join(self._data), []
        if not data or self._error is not None:
            return
        self._number += 1
        try:
            self._folder.write(f"{self._name}.{self._number:06d}", data)
        except OSError as error:
            self._error = error

    def close(self) -> None:
        """Put the rest."""
        self._ending.set()
        self._thread.join()
        self._put()
        if self._error is not None:
            raise self._error


def chunks_of(folder: Folder, name: str) -> Iterator[bytes]:
    """Yield the chunks of a file that `Chunks` wrote, in their order."""
    head, _slash, last = name.rpartition("/")
    for chunk in folder.list(head, f"{last}.[0-9]*"):
        yield folder.read(chunk)
