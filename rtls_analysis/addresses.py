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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rtls_analysis.storage import (
    Folder,
    StoreProblem,
    as_os_error,
    file_system,
    hidden_name,
    is_address,
    open_folder,
)

AHEAD_BYTES = 8 << 20  # read ahead, at once

_DIGITS = re.compile(r"(\d+)")


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
        with as_os_error():
            return _Opened(
                self.filesystem.open(self.path, "rb", block_size=ahead, cache_type="readahead"), self.size
            )

    def ranges(self, begins: Sequence[int], size: int) -> list[bytes]:
        """Read pieces of so many bytes from these places on, several at a time."""
        with as_os_error():
            count = len(begins)
            ends = [begin + size for begin in begins]
            pieces = self.filesystem.cat_ranges([self.path] * count, list(begins), ends, on_error="raise")
            return [bytes(piece) for piece in pieces]

    def changed(self) -> datetime | None:
        """When it was last changed; `None` where its file system does not tell."""
        try:
            with as_os_error():
                when = self.filesystem.modified(self.path)
        except OSError:
            return None
        if not isinstance(when, datetime):
            return None
        return when if when.tzinfo is not None else when.replace(tzinfo=UTC)

    def is_there(self) -> bool:
        """Whether this process sees it."""
        try:
            with as_os_error():
                return bool(self.filesystem.exists(self.path))
        except OSError:
            return False


def read_whole(files: Sequence[RemoteFile]) -> list[bytes | OSError]:
    """Read small files of one file system whole, several at a time; an error stands in the place of its file."""
    if not files:
        return []
    paths, sizes = [file.path for file in files], [file.size for file in files]
    try:
        with as_os_error():  # `cat` would take a name with brackets for a glob
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
        with as_os_error():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with as_os_error():
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        with as_os_error():
            return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            with suppress(OSError), as_os_error():  # nothing was written
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
    filesystem, path = file_system(address)
    try:
        with as_os_error():
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
    return sorted(files, key=lambda file: natural(file.path))


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


def natural(path: str) -> list[tuple[int, str]]:
    """Give the key by which paths are sorted with numbers in them as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(path)]


# -- writing --------------------------------------------------------------------------------------------------


def is_folder(address: str | os.PathLike[str]) -> bool:
    """Whether an output is meant to be a folder: it ends in a slash, or there is such a folder already."""
    text = os.fspath(address)
    if text.endswith("/"):
        return True
    if not is_address(text):
        return Path(text).expanduser().is_dir()
    filesystem, path = file_system(text)
    try:
        with as_os_error():
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
        folder = open_folder(before)
        handle, temporary = tempfile.mkstemp(prefix="rtls-", suffix=f"-{name}")
        os.close(handle)
        hidden = Path(temporary)
    else:
        path = Path(text).expanduser()
        folder, name, hidden = open_folder(path.parent), path.name, path.with_name(hidden_name(path.name))
    try:
        yield hidden, folder, name
    finally:
        hidden.unlink(missing_ok=True)
