"""Folders for snapshots and tables: on a local disk, or at an address such as ``s3://bucket/scan`` of any file system
that fsspec knows.

A file appears whole or not at all. On a local disk it is written under a hidden name, synced and renamed; an object
store takes an object whole (`WHOLE_OBJECTS`), and on other file systems it is put under a hidden name and moved.
fsspec is not loaded for a local folder.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import shutil
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

Address = str | os.PathLike[str]


class StoreProblem(Exception):
    """A directory that cannot be read as, or written as, this snapshot: one line that says what would do."""


def is_address(text: object) -> bool:
    """Whether this is an address, and no local path.

    >>> is_address("s3://bucket/mail.log"), is_address("/var/log/mail.log")
    (True, False)
    """
    return isinstance(text, str) and "://" in text


@contextlib.contextmanager
def as_os_error(number: int | None = None) -> Iterator[None]:
    """Turn errors of a file system's own library into an `OSError`, of this number: there are dozens of libraries."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        reason = _in_a_line(error)
        raise (OSError(reason) if number is None else OSError(number, reason)) from error


def _in_a_line(error: BaseException) -> str:
    said = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def file_system(address: str, **options: Any) -> tuple[Any, str]:
    """Give the file system of an address, and the path that it goes by there.

    Raises
    ------
    StoreProblem
        fsspec, or what it needs for such an address, is missing.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise StoreProblem(
            f"{address} needs fsspec; install it with: pip install 'rtls_analysis[s3]'"
        ) from None
    try:
        filesystem, path = url_to_fs(address, **options)
    except Exception as error:  # each file system, and what it connects by, has errors of its own
        is_missing = isinstance(error, ImportError) and address.startswith("s3")
        hint = "; pip install 'rtls_analysis[s3]'" if is_missing else ""
        raise StoreProblem(f"cannot use {address}: {_in_a_line(error)}{hint}") from None
    return filesystem, str(path)


class Folder(ABC):
    """A folder, and files in it by names such as ``sessions/part-w1-000001.parquet``; it can be sent elsewhere.

    Whatever goes wrong is an `OSError`, also where a file system has errors of its own.

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
    def read_each(self, names: Sequence[str]) -> Iterator[bytes]:
        """Yield what is in each file, several of them read at once where that is quicker."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a file so that it appears whole or not at all."""

    @abstractmethod
    def put(self, name: str, local: Path) -> None:
        """Write a file that lies ready on this machine, for a local folder beside the place where it goes."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write a small file unless there is one of that name; False where there is."""

    @abstractmethod
    def remove(self, *names: str) -> None:
        """Remove files, if they are there."""

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
    @abstractmethod
    def arrow(self) -> tuple[str, Any]:
        """Its path and its file system as pyarrow, and `frames.from_parts`, take them; None is the local one."""

    @property
    def path(self) -> Path | None:
        """Where it lies on this machine; None elsewhere."""
        return None

    @property
    def is_private(self) -> bool:
        """Whether no other process sees it."""
        return False

    def __str__(self) -> str:
        return self.address


class LocalFolder(Folder):
    """A folder on a disk of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.address = str(path)

    def __reduce__(self) -> tuple[type[LocalFolder], tuple[Path]]:
        return LocalFolder, (self._path.absolute(),)  # others may have another working directory

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._path

    @property
    def arrow(self) -> tuple[str, Any]:
        """Its path."""
        return str(self._path.absolute()), None

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

    def read_each(self, names: Sequence[str]) -> Iterator[bytes]:
        """Yield what is in each file."""
        return map(self.read, names)

    def write(self, name: str, data: bytes) -> None:
        """Write a file under a hidden name, sync it, and rename it."""
        path = self._path / name
        hidden = self._path / hidden_name(name)
        try:
            with hidden.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(path)
        finally:
            hidden.unlink(missing_ok=True)
        _sync_directory(path.parent)

    def put(self, name: str, local: Path) -> None:
        """Rename a file to its place."""
        local.replace(self._path / name)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file unless there is one."""
        try:
            with (self._path / name).open("xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        return True

    def remove(self, *names: str) -> None:
        """Remove files, if they are there."""
        for name in names:
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


def hidden_name(name: str) -> str:
    """Give a hidden name beside a file for what becomes of it: nobody else's, for two may write the same file."""
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}.{last}.{uuid.uuid4().hex}.tmp"


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


WHOLE_OBJECTS = frozenset({
    "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "tos", "r2", "hf", "memory",
})  # fmt: skip
"""File systems of fsspec on which a put is seen whole or not at all; on others a file is moved into its place."""

_AT_ONCE = 64  # objects read at the same time
_BLOCK = 1 << 20  # bytes read ahead: columns that nobody asked for stay where they are


class RemoteFolder(Folder):
    """A folder on a file system of fsspec.

    Keys and endpoints come from where each file system takes its own: its environment, or fsspec's configuration.
    Whoever gets this folder sent, a worker of a cluster for instance, takes them from those of its own machine.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._protocol = self.address.partition("://")[0]
        self._is_whole = self._protocol in WHOLE_OBJECTS
        if set("*?[]") & set(address):
            raise StoreProblem(
                f"{address} has one of * ? [ ] in it, patterns to a file system; give a plain name"
            )
        # What others wrote has to be seen; file systems with real folders keep no listings, or forget them on request.
        options = {"use_listings_cache": False} if self._is_whole else {}
        self._fs, self._root = file_system(self.address, **options)

    def __reduce__(self) -> tuple[type[RemoteFolder], tuple[str]]:
        return RemoteFolder, (self.address,)

    def _trouble(self) -> contextlib.AbstractContextManager[None]:
        return as_os_error(errno.EIO)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else str(self._root)

    @property
    def arrow(self) -> tuple[str, Any]:
        """Its path, and its file system."""
        return self._at(""), self._fs

    @property
    def is_private(self) -> bool:
        """Whether it lies in the memory of this process."""
        return self._protocol == "memory"

    def exists(self, name: str = "") -> bool:
        """Whether there is such an object, or one below that name."""
        with self._trouble():
            return bool(self._fs.exists(self._at(name)))

    def list(self, folder: str, pattern: str = "*") -> list[str]:
        """Give the names of the objects of a folder that fit a pattern."""
        with self._trouble():
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self._at(folder), detail=False)
            except FileNotFoundError:
                return []
        prefix = f"{folder}/" if folder else ""
        names = (str(path).rstrip("/").rpartition("/")[2] for path in found)
        return sorted(prefix + name for name in names if fnmatch.fnmatchcase(name, pattern))

    def read(self, name: str) -> bytes:
        """Read an object."""
        with self._trouble():
            data: bytes = self._fs.cat_file(self._at(name))
        return data

    def read_each(self, names: Sequence[str]) -> Iterator[bytes]:
        """Yield what is in each object; several are read at once."""
        for first in range(0, len(names), _AT_ONCE):
            paths = [self._at(name) for name in names[first : first + _AT_ONCE]]
            with self._trouble():
                data = self._fs.cat(paths)
            yield from (data[path] for path in paths)

    def write(self, name: str, data: bytes) -> None:
        """Put an object, whole."""
        self._whole(name, lambda path: self._fs.pipe_file(path, data))

    def put(self, name: str, local: Path) -> None:
        """Put a file of this machine, whole."""
        self._whole(name, lambda path: self._fs.put_file(str(local), path))

    def _whole(self, name: str, write: Callable[[str], object]) -> None:
        """Have something written so that it appears whole: at once, or under a hidden name and moved."""
        with self._trouble():
            if self._is_whole:
                write(self._at(name))
                return
            hidden = hidden_name(name)
            self._fs.makedirs(self._at(hidden).rpartition("/")[0], exist_ok=True)
            write(self._at(hidden))
        self.move(hidden, name)

    def create(self, name: str, data: bytes) -> bool:
        """Put a small object unless there is one, in one step where the file system can."""
        path = self._at(name)
        with self._trouble():
            if not self._is_whole:
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            try:
                self._fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            except PermissionError:
                raise
            except (OSError, TypeError, ValueError):  # it knows no such thing, or says so in a way of its own
                if self._fs.exists(path):
                    return False
                self._fs.pipe_file(path, data)
        return True

    def remove(self, *names: str) -> None:
        """Remove objects, if they are there."""
        paths = [self._at(name) for name in names]
        with self._trouble():
            if len(paths) > 1 and self._is_whole:
                with contextlib.suppress(FileNotFoundError):
                    self._fs.rm(paths)
                    return
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    self._fs.rm_file(path)

    def move(self, name: str, to: str) -> None:
        """Copy an object within its file system and remove the first; rename a file where there are files."""
        old, new = self._at(name), self._at(to)
        with self._trouble():
            if self._is_whole:
                self._fs.cp_file(old, new)
                self._fs.rm_file(old)
                return
            try:
                self._fs.mv(old, new)
            except OSError:
                if not self._fs.exists(new):
                    raise
                self._fs.rm_file(new)  # some do not rename to a name that is taken
                self._fs.mv(old, new)

    def make(self, folder: str = "") -> None:
        """Make a folder where there are any."""
        if not self._is_whole:
            with self._trouble():
                self._fs.makedirs(self._at(folder), exist_ok=True)

    def remove_all(self, folder: str) -> None:
        """Remove all objects below a folder."""
        with self._trouble(), contextlib.suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            self._fs.rm(self._at(folder), recursive=True)

    def sync(self, folder: str) -> None:
        """Do nothing: what was put is there."""

    def open(self, name: str) -> Any:
        """Open an object for reading."""
        with self._trouble():
            return self._fs.open(self._at(name), "rb", block_size=_BLOCK)


def open_folder(address: Address | Folder) -> Folder:
    """Open a folder, there or not, by its path or its address; one that begins with ``file://`` is a path too.

    Raises
    ------
    StoreProblem
        fsspec, or what it needs for such an address, is missing.
    """
    if isinstance(address, Folder):
        return address
    text = os.fspath(address)
    if text.startswith("file:///"):
        return LocalFolder(Path(unquote(urlsplit(text).path)))
    return RemoteFolder(text) if is_address(text) else LocalFolder(Path(text).expanduser())


# -- who may write -------------------------------------------------------------------------------------------

RENEW_SECONDS = 2.0
"""Seconds after which who holds a lease says so again."""

SURE_SECONDS = 7.0
"""Seconds without a renewal that came through, after which the holder has to believe that it is thought dead."""

LEASE_SECONDS = 10.0
"""Seconds without a word after which another may take a lease over."""

_LEASES = "_work/leases"


def _clock() -> float:
    """Seconds that passed, those in which this machine slept too: others were awake."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Lease:
    """The right of one alone to write under a name in a folder, whichever machine they are on.

    Who holds it says so again and again, in a file of its own. A newcomer who sees no change for `LEASE_SECONDS`, by a
    clock of its own, takes it over; who could not renew it for `SURE_SECONDS`, or sees that another took it over, has
    lost it for good (`is_held`) and must stop.

    Parameters
    ----------
    folder, name
        Where, and for what.

    Notes
    -----
    The files are numbered, and the highest one counts. To take over is to create the next one, which only one
    newcomer can; a renewal that arrives late, from whoever was cut off, lands in the file of a number that is past.
    Where a file system cannot create a file in one step (SFTP, some S3 servers), newcomers look again half a renewal
    later whose word stands; one whose word took longer learns with its first renewal that it is not its turn.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        self._token = uuid.uuid4().hex
        self._count = 0
        self._number = 0
        self._has_it = False
        self._renewed_at = 0.0
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_held(self) -> bool:
        """Whether it is surely still ours; once lost, it is never again."""
        if self._has_it and _clock() - self._renewed_at >= SURE_SECONDS:
            self._has_it = False
        return self._has_it

    def acquire(self, *, wait: bool = True) -> bool:
        """Take it, once nobody has it any more; without `wait` give up when another shows that it is alive."""
        while True:
            seen, since = self._newest(), _clock()
            while seen is not None and _clock() - since < LEASE_SECONDS:
                time.sleep(RENEW_SECONDS / 4)
                if (now := self._newest()) != seen:
                    if not wait and now is not None:
                        return False
                    seen, since = now, _clock()
            if self._take(1 if seen is None else seen[0] + 1):
                break
        self._thread = threading.Thread(target=self._renew, name="rtls-lease", daemon=True)
        self._thread.start()
        return True

    def _file(self, number: int) -> str:
        return f"{_LEASES}/{self._name}.{number:06d}"

    def _numbers(self) -> list[int]:
        return sorted(
            int(file.rpartition(".")[2]) for file in self._folder.list(_LEASES, f"{self._name}.[0-9]*")
        )

    def _newest(self) -> tuple[int, bytes] | None:
        """Give the highest number, and what its holder said last."""
        if not (numbers := self._numbers()):
            return None
        return numbers[-1], self._said(numbers[-1])

    def _said(self, number: int) -> bytes:
        try:
            return self._folder.read(self._file(number))
        except FileNotFoundError:
            return b""

    def _word(self) -> bytes:
        self._count += 1
        return f"{self._token} {self._count}\n".encode()

    def _is_ours(self) -> bool:
        return self._said(self._number).startswith(self._token.encode())

    def _take(self, number: int) -> bool:
        self._number, begun = number, _clock()
        self._folder.make(_LEASES)
        is_new = self._folder.create(self._file(number), self._word())
        if is_new and self._folder.path is None:
            time.sleep(RENEW_SECONDS / 2)
        if not self._is_ours():  # where a put was repeated, the file that was there may be ours
            return False
        self._has_it, self._renewed_at = True, begun
        with contextlib.suppress(OSError):  # they count no more
            self._folder.remove(*(self._file(old) for old in self._numbers() if old < number))
        return True

    def _renew(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            begun = _clock()
            try:
                if not self._is_ours() or self._folder.exists(self._file(self._number + 1)):
                    self._has_it = False
                    return
                self._folder.write(self._file(self._number), self._word())
            except OSError:
                continue  # the next one may come through in time
            if not self.is_held:  # it came through too late
                return
            self._renewed_at = begun

    def release(self) -> None:
        """Let go of it."""
        self._released.set()
        if self._thread is not None:
            self._thread.join()
        if self.is_held:
            with contextlib.suppress(OSError):  # then it counts as left behind
                self._folder.remove(self._file(self._number))
        self._has_it = False

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def leases(folder: Folder) -> list[str]:
    """Give the names for which there are leases in a folder, held or left behind."""
    files = (file.rpartition("/")[2] for file in folder.list(_LEASES, "*.[0-9]*"))
    return sorted({file.rpartition(".")[0] for file in files})


def wait_for_leases(folder: Folder, but: Container[str] = ()) -> None:
    """Wait until nobody holds a lease in a folder, `but` for these, and clear away what the dead left behind."""
    for name in leases(folder):
        if name in but:
            continue
        with Lease(folder, name):
            pass


# -- rows that arrive ----------------------------------------------------------------------------------------

FLUSH_SECONDS = 1.0
"""Seconds after which rows for a remote folder are put there: those that came since count as in flight."""


class Chunks:
    """Files on a remote folder that grow, kind beside kind, as chunks: objects named ``NAME.000001``, and so on.

    An object store cannot append. Data are held and put by a thread, so that `write` never waits for the network. A
    file is begun only when the one of its kind before it is there as a whole. What is held at some moment is put kind
    by kind: data that refer to others, which were added before them, are there only when those are.

    Parameters
    ----------
    folder
        Where to.
    next_name
        Gives the name of the next file of a kind; called by the thread, once there is something to put there.
    order
        Of the kinds that refer to one another, those first that others refer to; any other kind comes after them.
    """

    def __init__(self, folder: Folder, next_name: Callable[[str], str], order: Sequence[str] = ()) -> None:
        self._folder, self._next_name = folder, next_name
        self._rank = {kind: place for place, kind in enumerate(order)}
        self._held: dict[str, list[bytes | None]] = {}  # what is not there yet; None where a file ends
        self._names: dict[str, str] = {}
        self._numbers: dict[str, int] = {}  # of the chunk that is there last
        self._error: OSError | None = None
        self._lock = threading.Lock()  # of what is held
        self._putting = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtls-chunks", daemon=True)
        self._thread.start()

    def write(self, kind: str, data: bytes) -> None:
        """Add data; an `OSError` of an earlier put is raised here."""
        if self._error is not None:
            raise self._error
        self._hold(kind, data)

    def begin(self, kind: str) -> None:
        """Let what comes now go to the next file of that kind."""
        self._hold(kind, None)

    def _hold(self, kind: str, data: bytes | None) -> None:
        with self._lock:
            self._held.setdefault(kind, []).append(data)

    def _run(self) -> None:
        while not self._ending.wait(FLUSH_SECONDS):
            self._put()

    def _put(self) -> None:
        """Put what is held; what could not be put stays held, and goes to the same chunk when it can."""
        with self._putting:
            with self._lock:
                counts = {kind: len(held) for kind, held in self._held.items()}
            try:
                for kind in sorted(counts, key=lambda kind: self._rank.get(kind, len(self._rank))):
                    self._put_kind(kind, counts[kind])
            except OSError as error:
                self._error = error
            else:
                self._error = None

    def _put_kind(self, kind: str, count: int) -> None:
        """Put the oldest pieces of a kind, as many; each file's in one chunk."""
        held = self._held[kind]
        while count:
            with self._lock:
                pieces = _to_the_end_of_a_file(held[:count])
            if pieces:
                if kind not in self._names:
                    self._names[kind], self._numbers[kind] = self._next_name(kind), 0
                number = self._numbers[kind] + 1
                self._folder.write(f"{self._names[kind]}.{number:06d}", b"".join(pieces))
                self._numbers[kind] = number
            taken = len(pieces)
            if taken < count:
                self._names.pop(kind, None)
                taken += 1
            with self._lock:
                del held[:taken]
            count -= taken

    def flush(self) -> None:
        """Put what is held now, and wait until it is there."""
        self._put()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Put the rest."""
        self._ending.set()
        self._thread.join()
        self.flush()


def _to_the_end_of_a_file(held: Iterable[bytes | None]) -> list[bytes]:
    pieces: list[bytes] = []
    for piece in held:
        if piece is None:
            break
        pieces.append(piece)
    return pieces


def chunks_of(folder: Folder, name: str) -> Iterator[bytes]:
    """Yield the chunks of a file that `Chunks` wrote, in their order."""
    return folder.read_each(chunk_names(folder, name))


def chunk_names(folder: Folder, name: str) -> list[str]:
    """Give the names of the chunks of a file, in their order."""
    head, _slash, last = name.rpartition("/")
    return folder.list(head, f"{last}.[0-9]*")
