"""Files at addresses such as ``s3://bucket/logs/mail.log``, on any file system that fsspec knows.

A text with ``://`` in it is an address, anything else a local path; fsspec is never loaded for a local path. Keys and
endpoints come from where each file system takes its own: its environment, or fsspec's configuration.
"""

from __future__ import annotations

import glob
import io
import os
import re
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rtls_analysis.store import StoreProblem

AHEAD_BYTES = 8 << 20  # read ahead, at once

_DIGITS = re.compile(r"(\d+)")

# What is put there appears at once, and whole; elsewhere a file grows under its name while it is written.
_OBJECT_STORES = frozenset({
    "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "tos", "r2", "hf", "memory",
})  # fmt: skip


def is_address(text: object) -> bool:
    """Whether this is an address, and no local path.

    >>> is_address("s3://bucket/mail.log"), is_address("/var/log/mail.log")
    (True, False)
    """
    return isinstance(text, str) and "://" in text


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Errors of a file system's own library as an `OSError`: there are dozens of such libraries."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise OSError(reason) from error


def _file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path that it goes by there."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise StoreProblem(
            f"{address} needs fsspec; install it with: pip install 'rtls_analysis[s3]'"
        ) from None
    try:
        with _as_os_error():
            filesystem, path = url_to_fs(address)
    except OSError as error:
        raise StoreProblem(f"cannot use {address}: {error}") from None
    return filesystem, str(path)


# -- reading --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at an address; it can be sent to another process.

    Attributes
    ----------
    address
        As users see it.
    path, filesystem
        By which fsspec finds it.
    size
        Its bytes when it was found; 0 where that is not known.
    """

    address: str
    path: str
    filesystem: Any = field(repr=False, compare=False)
    size: int = 0

    def open(self, ahead: int = AHEAD_BYTES) -> io.RawIOBase:
        """Open it for reading; errors are those of a local file, whatever the file system says."""
        with _as_os_error():
            return _Opened(
                self.filesystem.open(self.path, "rb", block_size=ahead, cache_type="readahead"), self.size
            )

    def ranges(self, begins: Sequence[int], size: int) -> list[bytes]:
        """Read pieces of so many bytes from these places on, several at a time."""
        with _as_os_error():
            count = len(begins)
            ends = [begin + size for begin in begins]
            pieces = self.filesystem.cat_ranges([self.path] * count, list(begins), ends, on_error="raise")
            return [bytes(piece) for piece in pieces]

    def changed(self) -> datetime | None:
        """When it was last changed; `None` where its file system does not tell."""
        try:
            with _as_os_error():
                when = self.filesystem.modified(self.path)
        except OSError:
            return None
        if not isinstance(when, datetime):
            return None
        return when if when.tzinfo is not None else when.replace(tzinfo=UTC)

    def is_there(self) -> bool:
        """Whether this process sees it."""
        try:
            with _as_os_error():
                return bool(self.filesystem.exists(self.path))
        except OSError:
            return False


def read_whole(files: Sequence[RemoteFile]) -> list[bytes | OSError]:
    """Read small files of one file system whole, several at a time; an error stands in the place of its file."""
    if not files:
        return []
    paths, sizes = [file.path for file in files], [file.size for file in files]
    try:
        with _as_os_error():  # `cat` would take a name with brackets for a glob
            found = files[0].filesystem.cat_ranges(paths, [0] * len(files), sizes, on_error="return")
    except OSError as error:
        return [error] * len(files)
    return [_bytes_or_error(value) for value in found]


def _bytes_or_error(value: Any) -> bytes | OSError:
    if isinstance(value, OSError):
        return value
    if isinstance(value, Exception):
        return OSError(f"{type(value).__name__}: {value}")
    return bytes(value)


class _Opened(io.RawIOBase):
    """A remote file as an ordinary one."""

    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        self._size = size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        with _as_os_error():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _as_os_error():
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        with _as_os_error():
            return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            with suppress(OSError), _as_os_error():  # nothing was written
                self._file.close()
        super().close()


def find_files(address: str, *, below: bool = False) -> list[RemoteFile]:
    """Expand an address: a file, a folder (what lies directly in it, or with `below` anywhere in it), or a glob.

    In the order of their names, with numbers in them as numbers. A file of which nothing can be learnt is given all
    the same: reading it tells why.

    Raises
    ------
    FileNotFoundError
        There is nothing.
    StoreProblem
        fsspec, or what it needs for such an address, is missing, or the folder cannot be listed.
    """
    filesystem, path = _file_system(address)
    try:
        with _as_os_error():
            filesystem.invalidate_cache()
            found = _listed(filesystem, path, below=below)
    except (FileNotFoundError, NotADirectoryError):
        found = {}
    except OSError as error:
        if glob.has_magic(path):
            raise StoreProblem(f"cannot list {address}: {error}") from None
        return [RemoteFile(address, path, filesystem)]
    if not found:
        raise FileNotFoundError(f"nothing at {address}: give the address of a file or a folder, or a glob")
    files = [
        RemoteFile(_address_of(address, path, name, filesystem), name, filesystem, int(info.get("size") or 0))
        for name, info in found.items()
        if info.get("type") == "file"
    ]
    return sorted(files, key=lambda file: _natural(file.path))


def _listed(filesystem: Any, path: str, *, below: bool) -> dict[str, Any]:
    if glob.has_magic(path) and not filesystem.exists(path):
        found: dict[str, Any] = filesystem.glob(path, detail=True)
        if below:
            for name in [name for name, info in found.items() if info.get("type") == "directory"]:
                found |= filesystem.find(name, detail=True)
        return found
    info = filesystem.info(path)
    if info.get("type") != "directory":
        return {path: info}
    if below:
        return dict(filesystem.find(path, detail=True))
    return {one["name"]: one for one in filesystem.ls(path, detail=True)}


def _address_of(given: str, path: str, name: str, filesystem: Any) -> str:
    """The address of what was found, written as the one that was given: also ``simplecache::s3://...``."""
    before, found, after = given.rpartition(path) if path else ("", "", "")
    return f"{before}{name}{after.rstrip('/')}" if found else str(filesystem.unstrip_protocol(name))


def _natural(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(path)]


# -- writing --------------------------------------------------------------------------------------------------


class Folder:
    """A folder, local or at an address, in which a file appears whole or not at all. It can be sent to other processes.

    Attributes
    ----------
    address
        As users see it, without a slash at its end.
    path, filesystem
        By which fsspec finds it; locally the absolute path, and `None`.
    """

    def __init__(self, address: str | os.PathLike[str]) -> None:
        text = os.fspath(address)
        self.filesystem: Any = None
        if is_address(text):
            self.filesystem, self.path = _file_system(text)
            self.address = text.rstrip("/")
            self.path = self.path.rstrip("/")
        else:
            self.path = self.address = str(Path(text).expanduser().absolute())

    def path_of(self, name: str) -> str:
        """Where a file of this name lies, as fsspec, or the machine, names it."""
        return f"{self.path}/{name}"

    def make(self) -> None:
        """Make the folder, where folders are made at all."""
        if self.filesystem is None:
            Path(self.path).mkdir(parents=True, exist_ok=True)
        elif not self._is_object_store():
            with _as_os_error():
                self.filesystem.makedirs(self.path, exist_ok=True)

    def names(self) -> list[str]:
        """The names of the files in it, sorted; none where there is no folder."""
        if self.filesystem is None:
            folder = Path(self.path)
            return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        try:
            with _as_os_error():
                self.filesystem.invalidate_cache()
                found = self.filesystem.ls(self.path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(one["name"].rpartition("/")[2] for one in found if one.get("type") == "file")

    def read(self, name: str) -> bytes:
        """Read a file whole."""
        if self.filesystem is None:
            return Path(self.path_of(name)).read_bytes()
        with _as_os_error():
            return bytes(self.filesystem.cat_file(self.path_of(name)))

    def write_whole(self, name: str, data: bytes) -> None:
        """Write a file, in the place of another one of this name."""
        if self.filesystem is None:
            self._write_local(name, data)
            return
        with _as_os_error():
            if self._is_object_store():
                self.filesystem.pipe_file(self.path_of(name), data)
                return
            hidden = self.path_of(f".{name}.{uuid.uuid4().hex}.tmp")
            self.filesystem.pipe_file(hidden, data)
            self.filesystem.mv(hidden, self.path_of(name))

    def _write_local(self, name: str, data: bytes) -> None:
        target = Path(self.path_of(name))
        hidden = target.with_name(f".{name}.{uuid.uuid4().hex}.tmp")
        try:
            with hidden.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            hidden.replace(target)
        finally:
            hidden.unlink(missing_ok=True)

    def put_whole(self, name: str, local: Path) -> None:
        """Write a file that lies ready on this machine."""
        if self.filesystem is None:
            local.replace(self.path_of(name))
            return
        with _as_os_error():
            if self._is_object_store():
                self.filesystem.put_file(str(local), self.path_of(name))
                return
            hidden = self.path_of(f".{name}.{uuid.uuid4().hex}.tmp")
            self.filesystem.put_file(str(local), hidden)
            self.filesystem.mv(hidden, self.path_of(name))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self.filesystem is None:
            Path(self.path_of(name)).unlink(missing_ok=True)
            return
        with suppress(FileNotFoundError), _as_os_error():
            self.filesystem.rm_file(self.path_of(name))

    def _is_object_store(self) -> bool:
        protocol = self.filesystem.protocol
        names = (protocol,) if isinstance(protocol, str) else protocol
        return not _OBJECT_STORES.isdisjoint(names)


def is_folder(address: str | os.PathLike[str]) -> bool:
    """Whether an output is meant to be a folder: it ends in a slash, or there is such a folder already."""
    text = os.fspath(address)
    if text.endswith("/"):
        return True
    if not is_address(text):
        return Path(text).expanduser().is_dir()
    filesystem, path = _file_system(text)
    try:
        with _as_os_error():
            filesystem.invalidate_cache()
            return bool(filesystem.isdir(path))
    except OSError:
        return False


@contextmanager
def file_to_write(address: str | os.PathLike[str]) -> Iterator[tuple[Path, Folder, str]]:
    """Give a hidden local file to write in the place of this one, and the folder and name to put it under.

    Beside a local file; for one at an address in the machine's folder for such things. Whatever is left of it is
    removed.
    """
    text = os.fspath(address)
    if is_address(text):
        before, _slash, name = text.rpartition("/")
        folder = Folder(before)
        handle, hidden_name = tempfile.mkstemp(prefix="rtls-", suffix=f"-{name}")
        os.close(handle)
        hidden = Path(hidden_name)
    else:
        path = Path(text)
        folder, name, hidden = Folder(path.parent), path.name, path.with_name(f".{path.name}.tmp")
    try:
        yield hidden, folder, name
    finally:
        hidden.unlink(missing_ok=True)
