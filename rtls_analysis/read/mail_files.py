"""Messages out of files: single ones, mbox, Maildir, folders, packed or in archives, nested in each other.

Nothing here looks into a message. Every file that is no mbox and no archive counts as one message, so that reports
that lie about as plain JSON come the same way. What cannot be read is noted in `MailFiles.problems`; the rest goes on.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import os
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from rtls_analysis.addresses import RemoteFile, find_files, read_whole
from rtls_analysis.storage import is_address

BLOCK_BYTES = 1 << 20
MAX_MESSAGE_BYTES = 32 << 20
MAX_SKIPPED_BYTES = 256 << 20  # of one message beyond its limit; a bomb is given up there
MAX_UNPACKED_BYTES = 8 << 30  # of one file, and `MAX_RATIO` times its size on top
MAX_RATIO = 200
FILES_AT_ONCE = 64  # small ones at an address, which are fetched together
MAX_DEPTH = 3  # archives in archives, packed files in packed files

MailPath = str | os.PathLike[str] | IO[bytes]
MailFile = str | RemoteFile
Read = Callable[[int], bytes]

_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,  # a packing method of a zip that we lack
    RuntimeError,  # a zip with a password
    struct.error,
    lzma.LZMAError,
    zlib.error,
    zipfile.BadZipFile,
)


class MailFiles:
    """Messages of files, one after the other, in bounded memory: iterate for (source name, bytes).

    The name is the path, with ``#2`` for the second message of an mbox of several and ``!name`` for a member of an
    archive. The separator lines of an mbox are cut off; its ``>From`` stays as it stands.

    Parameters
    ----------
    paths
        Files, folders (with all below them), globs, all of these also at an address, as ``s3://bucket/mail/``; open
        binary files, `-` for standard input; one or many.
    limit
        Bytes of a message that are kept; the rest of a longer one is passed over, which `problems` tells.

    Attributes
    ----------
    problems
        What could not be read, or not to its end: source name and reason.
    bytes_read
        Bytes taken from files so far, as they lie on disk.

    Raises
    ------
    FileNotFoundError
        A path names nothing, or a glob finds nothing.
    StoreProblem
        An address cannot be used, or not be listed.
    """

    def __init__(self, paths: MailPath | Iterable[MailPath], *, limit: int = MAX_MESSAGE_BYTES) -> None:
        given: list[Any] = (
            [paths] if isinstance(paths, (str, os.PathLike)) or hasattr(paths, "read") else list(paths)
        )
        self.limit = limit
        self.problems: dict[str, str] = {}
        self.bytes_read = 0
        self._inputs: list[Any] = []
        for item in given:
            if not isinstance(item, (str, os.PathLike)):
                self._inputs.append(item)
            elif (text := os.fspath(item)) == "-":
                self._inputs.append(sys.stdin.buffer)
            elif is_address(text):
                self._inputs += _find_remote(text)
            else:
                self._inputs += _expand(text)

    @classmethod
    def of(cls, files: Iterable[MailFile], *, limit: int = MAX_MESSAGE_BYTES) -> MailFiles:
        """Messages of these very files; one that is gone is noted in `problems`."""
        made = cls((), limit=limit)
        made._inputs = list(files)
        return made

    @property
    def bytes_total(self) -> int | None:
        """The bytes of all files together; `None` where local folders or streams leave that open."""
        sizes = [
            None if isinstance(item, str) and Path(item).is_dir() else size_of(item) for item in self._inputs
        ]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def files(self) -> list[MailFile]:
        """All files, also those in folders, in the order in which they are read.

        Raises
        ------
        ValueError
            A stream is among the inputs.
        """
        streams = [item for item in self._inputs if not isinstance(item, (str, RemoteFile))]
        if streams:
            raise ValueError(
                "an open file, or standard input, cannot be sent to a cluster: give paths or addresses"
            )
        found: list[MailFile] = []
        for item in self._inputs:
            found += self._walk(item) if isinstance(item, str) else [item]
        return found

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        small: list[RemoteFile] = []
        for item in self._inputs:
            if isinstance(item, RemoteFile) and 0 < item.size <= min(BLOCK_BYTES, self.limit):
                small.append(item)
                if len(small) >= FILES_AT_ONCE:
                    yield from self._fetched(small)
                    small = []
                continue
            yield from self._fetched(small)
            small = []
            if isinstance(item, str):
                for path in self._walk(item):
                    yield from self._file(path)
            elif isinstance(item, RemoteFile):
                yield from self._file(item)
            else:
                name = "-" if item is sys.stdin.buffer else str(getattr(item, "name", "stream"))
                yield from self._guarded(name, _Source(self, item.read, 0), single=False)
        yield from self._fetched(small)

    def _fetched(self, files: list[RemoteFile]) -> Iterator[tuple[str, bytes]]:
        """Messages of small files at addresses."""
        for file, data in zip(files, read_whole(files), strict=True):
            if isinstance(data, OSError):
                self._problem(file.address, data)
                continue
            single = _is_single(file.address)
            if _kind_of(data, single) is None:
                self.bytes_read += len(data)
                yield file.address, _without_from_line(data)
                continue
            raw = io.BytesIO(data)
            yield from self._guarded(file.address, _Source(self, raw.read, len(data), raw), single=single)

    def _walk(self, path: str) -> Iterator[str]:
        """Files at or below a path in the order of their names; what lies in `tmp` of a Maildir is unfinished."""
        if not Path(path).is_dir():
            yield path
            return
        for folder, names, files in os.walk(path, onerror=self._folder_problem):
            maildir = "cur" in names and "new" in names
            names[:] = sorted(
                name for name in names if _is_open(folder, name) and not (maildir and name == "tmp")
            )
            for name in sorted(files):
                if not _CONTROL_FILE.match(name):
                    yield str(Path(folder) / name)

    def _folder_problem(self, error: OSError) -> None:
        self._problem(str(error.filename), error)

    def _problem(self, name: str, error: BaseException | str) -> None:
        reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        self.problems.setdefault(name, reason)

    def _file(self, file: MailFile) -> Iterator[tuple[str, bytes]]:
        path = file if isinstance(file, str) else file.address
        single = _is_single(path)
        try:
            with Path(path).open("rb", buffering=0) if isinstance(file, str) else file.open() as raw:
                size = os.fstat(raw.fileno()).st_size if isinstance(file, str) else file.size
                if 0 < size <= min(BLOCK_BYTES, self.limit):
                    data = raw.read(size) or b""
                    if _kind_of(data, single) is None:  # nearly all files of a Maildir
                        self.bytes_read += len(data)
                        yield path, _without_from_line(data)
                        return
                    raw.seek(0)
                before = self.bytes_read
                yield from self._guarded(path, _Source(self, raw.read, size, raw), single=single)
                self.bytes_read = max(self.bytes_read, before + size)
        except OSError as error:
            self._problem(path, error)

    def _guarded(self, name: str, source: _Source, *, single: bool) -> Iterator[tuple[str, bytes]]:
        try:
            yield from self._messages(name, source.read, source, single=single, depth=0)
        except _UNREADABLE as error:
            self._problem(name, error)

    # -- one stream -------------------------------------------------------------------------------------------

    def _messages(
        self, name: str, read: Read, source: _Source, *, single: bool, depth: int
    ) -> Iterator[tuple[str, bytes]]:
        head = _exactly(read, 1024)
        joined = _Joined(head, read)
        kind = _kind_of(head, single)
        if kind == "mbox":
            yield from self._mbox(name, joined.read)
            return
        if kind is not None and depth == MAX_DEPTH:
            self._problem(name, f"packed more than {MAX_DEPTH} times")
            return
        if kind == "zip":
            yield from self._zip(name, joined.read, source, depth)
        elif kind == "tar":
            yield from self._tar(name, joined.read, source, depth)
        elif kind is not None:
            unpacked = _Unpacked(_UNPACKERS[kind](joined), source)
            yield from self._messages(name, unpacked.read, source, single=single, depth=depth + 1)
            if unpacked.damage:
                self._problem(name, unpacked.damage)
        else:
            data = _exactly(joined.read, self.limit + 1)
            if len(data) > self.limit:
                data = data[: self.limit]
                self._problem(name, f"cut at {self.limit:,} bytes")
            yield name, _without_from_line(data)

    def _mbox(self, name: str, read: Read) -> Iterator[tuple[str, bytes]]:
        """Cut at lines that begin with ``From `` and hold a time, with a header field in the next (RFC 4155)."""
        rest = _exactly(read, BLOCK_BYTES)
        first = _FROM_LINE.match(rest)
        newline = b"\r" if first is not None and first[1] == b"\r" else b"\n"
        rest = rest[first.end() :] if first is not None else rest
        scan = 0  # in `rest`: no separator begins before here
        number, passed_over = 1, 0
        cut: bytes | None = None  # the message at hand, where it is too long
        while True:
            block = read(BLOCK_BYTES)
            buffer = rest + block
            until = max(len(buffer) - _LOOK_AHEAD, 0) if block else len(buffer)
            begin = 0
            while (separator := _find_separator(buffer, newline, scan, until)) is not None:
                end, after = separator
                yield self._of_mbox(f"{name}#{number}", buffer[begin:end], cut)
                begin = scan = after
                number, passed_over, cut = number + 1, 0, None
            if not block:
                label = name if number == 1 else f"{name}#{number}"
                yield self._of_mbox(label, buffer[begin:], cut)
                return
            rest, scan = buffer[begin:], max(scan, until) - begin
            if len(rest) > self.limit + _LOOK_AHEAD:
                cut = rest[: self.limit] if cut is None else cut
                passed_over += len(rest) - _LOOK_AHEAD
                rest, scan = rest[-_LOOK_AHEAD:], max(scan - len(rest) + _LOOK_AHEAD, 0)
                if passed_over > self.limit + MAX_SKIPPED_BYTES:
                    self._problem(f"{name}#{number}", "a message without end")
                    return

    def _of_mbox(self, label: str, data: bytes, cut: bytes | None) -> tuple[str, bytes]:
        if cut is None and len(data) <= self.limit:
            return label, data
        self._problem(label, f"cut at {self.limit:,} bytes")
        return label, (data if cut is None else cut)[: self.limit]

    def _zip(self, name: str, read: Read, source: _Source, depth: int) -> Iterator[tuple[str, bytes]]:
        if depth == 0 and source.file is not None and source.file.seekable():
            whole: IO[bytes] = source.file
        else:
            data = _exactly(read, self.limit + 1)
            if len(data) > self.limit:
                self._problem(name, f"a zip archive of more than {self.limit:,} bytes in another file")
                return
            whole = io.BytesIO(data)
        with zipfile.ZipFile(whole) as archive:
            for member in archive.infolist():
                if member.is_dir():
                    continue
                inner = f"{name}!{member.filename}"
                try:
                    with archive.open(member) as stream:
                        unpacked = _Unpacked(stream, source)
                        single = _is_single(member.filename)
                        yield from self._messages(
                            inner, unpacked.read, source, single=single, depth=depth + 1
                        )
                    if unpacked.damage:
                        self._problem(inner, unpacked.damage)
                except _UNREADABLE as error:
                    self._problem(inner, error)

    def _tar(self, name: str, read: Read, source: _Source, depth: int) -> Iterator[tuple[str, bytes]]:
        """Members in the order in which they come; `tarfile` would read what a header claims into memory."""
        long_name = ""
        while len(header := _exactly(read, 512)) == 512 and header.strip(b"\0"):
            member = _Member(read, _tar_number(header[124:136]))
            kind, padding = header[156:157], -member.left % 512
            if kind in (b"L", b"x"):  # the name of the next member, as GNU or POSIX write it
                data = member.read(1 << 16)
                record = re.search(rb"\d+ path=([^\n]*)\n", data) if kind == b"x" else None
                if kind == b"L" or record:
                    long_name = os.fsdecode(record[1] if record else data.rstrip(b"\0"))
            elif kind in (b"0", b"\0", b"7"):
                prefix, own = header[345:500].split(b"\0", 1)[0], header[:100].split(b"\0", 1)[0]
                posix = header[257:263] == b"ustar\0" and prefix
                path = long_name or os.fsdecode(prefix + b"/" + own if posix else own)
                long_name = ""
                inner = f"{name}!{path}"
                single = _is_single(path)
                yield from self._messages(inner, member.read, source, single=single, depth=depth + 1)
                if member.ended_early:
                    self._problem(inner, "EOFError: the archive ends within it")
            _pass_over(read, member.left + padding)


# -- which files ----------------------------------------------------------------------------------------------

_CONTROL_FILE = re.compile(r"\.|dovecot[.-]|courierimap|maildir(?:size|folder)$|subscriptions$|cyrus\.")
_MAGIC = re.compile(r"[*?\[]")
_SINGLE = re.compile(r"\.(?:eml|msg|json)(?:\.(?:gz|xz|zst|zstd|bz2|lzma))?$", re.IGNORECASE)


def _expand(text: str) -> list[str]:
    path = Path(text).expanduser()
    if path.exists():
        return [str(path)]
    found = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(text) else []  # noqa: PTH207
    if not found:
        raise FileNotFoundError(
            f"no mail at {text!r}: give a message, an mbox, a Maildir or other folder, a glob, or - for standard input"
        )
    return found


def _find_remote(address: str) -> list[RemoteFile]:
    """Files at or below an address, but for those that are passed over in local folders too."""
    files = find_files(address, below=True)
    if files and files[0].address == address:
        return files
    fixed = _MAGIC.split(address)[0]
    base = f"{address.rstrip('/')}/" if fixed == address else fixed[: fixed.rfind("/") + 1]
    inner = [(file, PurePosixPath(file.address.removeprefix(base))) for file in files]
    folders = {str(folder) for _file, path in inner for folder in path.parents}
    return [file for file, path in inner if _is_wanted(path, folders)]


def _is_wanted(path: PurePosixPath, folders: set[str]) -> bool:
    """Whether a file that lies here in a folder is read: it is no control file, and not in a folder left alone."""
    for folder in path.parents:
        if folder.name.startswith(".") and str(folder / "cur") not in folders:
            return False
        beside = folder.parent
        if folder.name == "tmp" and {str(beside / "cur"), str(beside / "new")} <= folders:
            return False
    return not _CONTROL_FILE.match(path.name)


def size_of(file: Any) -> int | None:
    """Bytes of a file as it lies there; `None` of a stream."""
    if isinstance(file, RemoteFile):
        return file.size
    if not isinstance(file, str):
        return None
    try:
        return Path(file).stat().st_size
    except OSError:  # gone meanwhile: reading it tells
        return 0


def _is_open(folder: str, name: str) -> bool:
    """Whether to go into a folder: hidden ones are left alone but for those of a Maildir."""
    return not name.startswith(".") or (Path(folder) / name / "cur").is_dir()


def _is_single(path: str) -> bool:
    """Whether a file is one message by its place or name, whatever a line in it looks like."""
    return Path(path).parent.name in ("cur", "new") or _SINGLE.search(path) is not None


# -- what a file is, by its first bytes -----------------------------------------------------------------------

_FROM_LINE = re.compile(
    rb"(?:\xef\xbb\xbf)?[\r\n]{0,8}From [^\r\n]{0,400}?\d\d:\d\d[^\r\n]{0,100}(\r\n|\n|\r)"
    rb"(?=[!-9;-~]{1,100}[ \t]*:|>From )"
)
_LOOK_AHEAD = 1024  # more than such a line and the name of the field below it


def _kind_of(head: bytes, single: bool) -> str | None:
    """The name of a packing, an archive or an mbox that begins so; `None`: a message."""
    if not single and head[:16].lstrip(b"\xef\xbb\xbf\r\n").startswith(b"From ") and _FROM_LINE.match(head):
        return "mbox"
    first = head[:1]
    if first in b"\x1f\xfd]B\x28\x50P":
        if head.startswith(b"\x1f\x8b"):
            return "gzip"
        if head.startswith((b"\xfd7zXZ\0", b"]\0\0")):
            return "xz"
        if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
            return "bzip2"
        if head.startswith((b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18")):
            return "zstd"
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return "zip"
    return "tar" if head[257:262] == b"ustar" else None


def _open_zstd(raw: Any) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")


_UNPACKERS: dict[str, Callable[[Any], Any]] = {
    "gzip": lambda raw: gzip.GzipFile(fileobj=raw),
    "xz": lzma.LZMAFile,
    "bzip2": bz2.BZ2File,
    "zstd": _open_zstd,
}


def _without_from_line(data: bytes) -> bytes:
    if data[:5] != b"From " and data[:1] not in b"\xef\r\n":
        return data
    match = _FROM_LINE.match(data)
    return data[match.end() :] if match else data.removeprefix(b"\xef\xbb\xbf")


# -- separators of an mbox ------------------------------------------------------------------------------------

_WEEKDAY = re.compile(rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? ")


def _find_separator(buffer: bytes, newline: bytes, begin: int, until: int) -> tuple[int, int] | None:
    """The end of a message and the begin of the next, of the first separator that begins in this range.

    A separator without an empty line before it counts where its time has the form of RFC 4155: some programs leave
    the line out, and a sentence may begin with ``From``.
    """
    place = buffer.find(newline + b"From ", begin, until + 5)
    while place >= 0:
        if (match := _FROM_LINE.match(buffer, place + 1)) is not None:
            crlf = newline == b"\n" and buffer[place - 1 : place] == b"\r"
            end = place - 1 if crlf else place  # of the line before, without its own end
            if buffer[end - 1 : end] in (newline, b"") or _WEEKDAY.search(match[0]):
                return end, match.end()
        place = buffer.find(newline + b"From ", place + 1, until + 5)
    return None


# -- streams --------------------------------------------------------------------------------------------------


class _Source:
    """The bytes of one file as they lie on disk, counted, and what may be unpacked out of them."""

    def __init__(self, owner: MailFiles, read: Any, size: int, file: Any = None) -> None:
        self._owner, self._read, self.file = owner, read, file
        self._left = MAX_UNPACKED_BYTES + MAX_RATIO * size

    def read(self, size: int) -> bytes:
        data: bytes = self._read(size) or b""
        self._owner.bytes_read += len(data)
        return data

    def spend(self, unpacked: int) -> None:
        self._left -= unpacked
        if self._left < 0:
            raise ValueError("unpacks to more than is reasonable for its size")


class _Unpacked:
    """What a packed stream holds, to the last good byte; `damage` says why there is no more."""

    def __init__(self, stream: Any, source: _Source) -> None:
        self._read = getattr(stream, "read1", None) or stream.read
        self._source = source
        self.damage = ""

    def read(self, size: int) -> bytes:
        if self.damage:
            return b""
        try:
            data: bytes = self._read(min(size, BLOCK_BYTES))
            self._source.spend(len(data))
        except _UNREADABLE as error:
            self.damage = f"{type(error).__name__}: {error}"
            return b""
        return data


class _Joined:
    """A stream with bytes already taken from it put back in front."""

    def __init__(self, head: bytes, read: Read) -> None:
        self._head, self._read, self.closed = head, read, False

    def read(self, size: int = -1) -> bytes:
        if self._head:
            size = len(self._head) if size < 0 else size
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._read(size if size >= 0 else BLOCK_BYTES)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


class _Member:
    """A member of a tar archive."""

    def __init__(self, read: Read, size: int) -> None:
        self._read, self.left, self.ended_early = read, size, False

    def read(self, size: int) -> bytes:
        if not (wanted := min(size, self.left)):
            return b""
        data = self._read(wanted)
        self.left -= len(data)
        self.ended_early = not data
        return data


def _tar_number(field: bytes) -> int:
    """A number of a tar header: octal digits, or binary where the first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(field[4:], "big")
    return int(field.strip(b"\0 ") or b"0", 8)


def _exactly(read: Read, size: int) -> bytes:
    """So many bytes, or fewer at the end."""
    data = read(size)
    if len(data) == size or not data:
        return data
    parts, missing = [data], size - len(data)
    while missing and (data := read(missing)):
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def _pass_over(read: Read, size: int) -> None:
    while size and (data := read(min(size, BLOCK_BYTES))):
        size -= len(data)
