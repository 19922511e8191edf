"""Log files: which ones, in which order, and unpacked by their first bytes whatever they are called."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import os
import re
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from rtls_analysis.addresses import AHEAD_BYTES, RemoteFile, find_files, natural
from rtls_analysis.storage import is_address

MAX_RATIO = 500  # unpacked to packed bytes, beyond the first GiB; logs pack 10 to 100 times

LogPath = str | os.PathLike[str] | IO[bytes]
UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError)


@dataclass(frozen=True, slots=True)
class LogFile:
    """One input: its name as tables show it, and a path, a file at an address, or an open stream."""

    name: str
    path: Path | None = None
    stream: IO[bytes] | None = None
    remote: RemoteFile | None = None

    @property
    def size(self) -> int | None:
        """Bytes on disk; `None` of a stream. A file that is gone, or tells nothing, has none."""
        if self.remote is not None:
            return self.remote.size
        if self.path is None:
            return None
        try:
            return self.path.stat().st_size
        except OSError:  # gone meanwhile: reading it tells
            return 0

    def open(self, ahead: int = AHEAD_BYTES) -> Any:
        """Open it without a buffer, for it is read in large pieces; one at an address so far `ahead`."""
        if self.remote is not None:
            return self.remote.open(ahead)
        if self.path is None:
            raise ValueError(f"{self.name}: neither path nor address")
        return self.path.open("rb", buffering=0)

    def changed(self) -> datetime | None:
        """When it was last changed; `None` where nobody tells."""
        if self.remote is not None:
            return self.remote.changed()
        return None if self.path is None else datetime.fromtimestamp(self.path.stat().st_mtime, UTC)


@dataclass(slots=True)
class Intake:
    """How far the reading of files has come, and what could not be read, and why."""

    taken: int = 0  # bytes, as they lie on disk
    given: int = 0  # bytes of text
    problems: dict[str, str] = field(default_factory=dict)

    def problem(self, file: LogFile, error: BaseException) -> None:
        """Note the first thing that went wrong with a file."""
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        self.problems.setdefault(file.name, reason)


# -- which files, in which order ------------------------------------------------------------------------------

_ENDING = re.compile(r"\.(?:gz|xz|zst|zstd|bz2|lzma)$", re.IGNORECASE)
_NUMBERED = re.compile(r"(.+?)[.-](\d{1,6})")
_DATED = re.compile(r"(.+?)[.-]((?:19|20)\d\d-?\d\d-?\d\d(?:[-T_.]?\d[\d:-]*)?)")


def find_log_files(paths: LogPath | Iterable[LogPath]) -> list[list[LogFile]]:
    """Expand paths, addresses, globs and folders into rotated sets, each oldest file first.

    `-` is standard input; an open binary file may stand for a path. Files, folders and globs may be at an address,
    such as ``s3://bucket/logs/*.gz``. ``mail.log.2.gz``, ``mail.log.1`` and ``mail.log`` are one set, so are
    ``mail.log-20261101.xz`` and ``mail.log``. Sets keep the order in which they were named.

    Raises
    ------
    FileNotFoundError
        A path names nothing, a glob finds nothing, or a folder holds folders only.
    StoreProblem
        An address cannot be used, or not be listed.
    """
    given: list[Any] = (
        [paths] if isinstance(paths, (str, os.PathLike)) or hasattr(paths, "read") else list(paths)
    )
    sets: dict[tuple[str, str], list[tuple[Any, LogFile]]] = {}
    seen: set[str] = set()
    for item in given:
        if not isinstance(item, (str, os.PathLike)):
            name = str(getattr(item, "name", "stream"))
            sets["stream", str(len(sets))] = [((0,), LogFile(name, stream=item))]
            continue
        text = os.fspath(item)
        if text == "-":
            sets["-", "-"] = [((0,), LogFile("-", stream=sys.stdin.buffer))]
            continue
        if is_address(text):
            if not (remotes := find_files(text)):
                raise FileNotFoundError(_no_file(text))
            for remote in remotes:
                if remote.address not in seen:
                    seen.add(remote.address)
                    folder, _slash, name = remote.address.rpartition("/")
                    base, order = _rotation(name)
                    file = LogFile(remote.address, remote=remote)
                    sets.setdefault((folder, base), []).append((order, file))
            continue
        for path in _expand(text):
            if (key := os.path.realpath(path)) in seen:
                continue
            seen.add(key)
            if not path.is_file():  # a pipe: it can be read once
                sets["pipe", key] = [((0,), LogFile(str(path), stream=path.open("rb")))]
                continue
            base, order = _rotation(path.name)
            sets.setdefault((str(path.parent), base), []).append((order, LogFile(str(path), path)))
    return [_in_order(members) for members in sets.values()]


def _expand(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_dir():
        entries = list(path.iterdir())
        found = [entry for entry in entries if entry.is_file()]
        if not entries:  # nothing was logged yet
            return []
    elif path.exists():
        return [path]
    else:
        names = glob.glob(str(path)) if glob.has_magic(text) else []  # noqa: PTH207
        found = [entry for entry in map(Path, names) if not entry.is_dir()]
    if not found:
        raise FileNotFoundError(_no_file(text))
    return sorted(found, key=lambda entry: natural(str(entry)))


def _no_file(text: str) -> str:
    return (
        f"no log file at {text!r}: give a file, a folder that files lie in, a glob, or - for standard input"
    )


def _rotation(name: str) -> tuple[str, tuple[int, Any]]:
    """The name shared by a rotated set, and a key that sorts its oldest file first."""
    bare = _ENDING.sub("", name)
    if match := _DATED.fullmatch(bare):
        return match[1], (0, re.sub(r"\D", "", match[2]))
    if match := _NUMBERED.fullmatch(bare):
        return match[1], (1, -int(match[2]))
    return bare, (2, "")


def _in_order(members: list[tuple[Any, LogFile]]) -> list[LogFile]:
    members = sorted(members, key=lambda member: member[0])
    files = [file for _order, file in members]
    if len(files) > 1 and all(order[0] == 1 for order, _file in members) and _runs_backwards(files):
        files.reverse()
    return files


# -- which ones may tell of the same messages -----------------------------------------------------------------

_DATES = re.compile(
    r"(?<!\d)(?:19|20)\d\d-?(?:0[1-9]|1[0-2])(?:-?[0-3]\d(?:[-T_.]?\d\d){0,3})?(?:-\d{1,4})?(?!\d)"
)
_MULTILOG = re.compile(r"@[0-9a-f]{24}\.[su]|current")
_EXCHANGE_NAME = re.compile(r"(?:MSGTRK|SEND|RECV)[A-Z]*\d{8,10}-\d+\.LOG", re.IGNORECASE)
_HEAD_BYTES = 1 << 16
_EXCHANGE = b"#Software: Microsoft Exchange"


def group_sets(sets: Sequence[list[LogFile]]) -> list[list[list[LogFile]]]:
    """Put sets together that may tell of the same messages; what is known of a message never leaves a group.

    Sets whose names differ by a date in the middle are one group (``mail-20261101.log``), so are the files that
    multilog leaves in a folder, and all logs of Exchange, whose tracking and protocol logs tell of one attempt
    together. Any other set is a group of its own. Groups keep the order of their first sets.
    """
    groups: dict[tuple[str, str], list[list[LogFile]]] = {}
    exchange: dict[tuple[str, str], bool] = {}
    for number, files in enumerate(sets):
        first = files[0]
        if first.stream is not None:
            groups["stream", str(number)] = [files]
            continue
        folder, _slash, name = first.name.replace(os.sep, "/").rpartition("/")
        bare = "current" if _MULTILOG.fullmatch(name) else _DATES.sub("*", _rotation(name)[0])
        key = folder, bare
        if key not in exchange:
            exchange[key] = _is_of_exchange(first, name)
        groups.setdefault(("exchange", "") if exchange[key] else key, []).append(files)
    return list(groups.values())


def _is_of_exchange(file: LogFile, name: str) -> bool:
    if _EXCHANGE_NAME.fullmatch(name):
        return True
    try:
        with open_log(file, _HEAD_BYTES) as opened:
            head = opened.read(256)
    except UNREADABLE:
        return False
    if opened.encoding:
        head = head.decode(opened.encoding, "replace").encode("utf-8", "replace")
    return _EXCHANGE in head


# -- the order of numbered pieces -----------------------------------------------------------------------------

_STAMP = re.compile(
    rb"^(?:(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d\S*)|([A-Z][a-z]{2}) ([ \d]\d) (\d\d:\d\d:\d\d))",
    re.MULTILINE,
)
_MONTHS = b"JanFebMarAprMayJunJulAugSepOctNovDec"


def _runs_backwards(files: list[LogFile]) -> bool:
    """Whether numbered pieces count upwards in time, as `split` and exporters make them: their first stamps tell."""
    stamps = [stamp for file in files if (stamp := _first_stamp(file)) is not None]
    # Months without a year tell nothing across half a year: New Year may lie between.
    return (
        len(stamps) == len(files)
        and len({stamp[0] for stamp in stamps}) == 1
        and all(one > two and abs(one[1] - two[1]) <= 6 for one, two in pairwise(stamps))
    )


def _first_stamp(file: LogFile) -> tuple[bool, int, bytes, bytes] | None:
    """Whether the first stamp has a year, its month (0 with a year), and its date and time."""
    try:
        with open_log(file, _HEAD_BYTES) as opened:
            match = _STAMP.search(opened.read(_HEAD_BYTES))
    except UNREADABLE:
        return None
    if match is None:
        return None
    if match[1]:
        return True, 0, match[1], match[2]
    return False, _MONTHS.find(match[3]) // 3 + 1, match[4], match[5]


# -- opening --------------------------------------------------------------------------------------------------


_GZIP, _XZ, _LZMA, _BZIP2 = b"\x1f\x8b", b"\xfd7zXZ\0", b"]\0\0", b"BZh"
_ZSTD = (b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18")  # a frame, and one to be skipped that may come first
_PACKED = (_GZIP, _XZ, _LZMA, _BZIP2, *_ZSTD)


class OpenLog:
    """A file unpacked by its first bytes; `read` gives what there is, to the last good byte."""

    def __init__(self, file: LogFile, ahead: int = AHEAD_BYTES) -> None:
        self._raw: Any = file.stream
        self._close = file.stream is None
        if self._raw is None:
            self._raw = file.open(ahead)
            head, source = self._raw.read(8), self._raw
            if source.seekable():
                source.seek(0)
            else:  # an address whose server gives it once, from its beginning
                source = _Joined(head, source)
        elif hasattr(self._raw, "peek"):
            head, source = self._raw.peek(8)[:8], self._raw
        else:
            head = self._raw.read(8) or b""
            source = _Joined(head, self._raw)
        self.encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else None
        self._stream: Any
        self.packed = head.startswith(_PACKED)
        if self.packed and file.stream is None:
            source = io.BufferedReader(source, 1 << 18)
        if head.startswith(_GZIP):
            self._stream = gzip.GzipFile(fileobj=source)
        elif head.startswith((_XZ, _LZMA)):
            self._stream = lzma.LZMAFile(source)  # noqa: SIM115
        elif head.startswith(_BZIP2):
            self._stream = bz2.BZ2File(source)
        elif self.packed:
            import pyarrow as pa

            self._stream = pa.CompressedInputStream(pa.PythonFile(source, "r"), "zstd")
        else:
            self._stream = source
        self._read_some = getattr(self._stream, "read1", None) or self._stream.read
        self._given = 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; less only at the end. What a damaged file gave before the damage is kept.

        Raises
        ------
        ValueError
            The file unpacks to a multiple of its size that no log does; others of `UNREADABLE`: it is damaged.
        """
        parts: list[bytes] = []
        missing = size
        while missing > 0:
            try:
                data = self._read_some(missing)
            except UNREADABLE:
                if not parts:
                    raise
                break  # the next call meets the same damage
            if not data:
                break
            parts.append(data)
            missing -= len(data)
        self._given += size - missing
        if self.packed and self._given > 1 << 30 and self._given > MAX_RATIO * max(self.taken(), 1):
            raise ValueError(f"unpacks to more than {MAX_RATIO} times its size")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def taken(self) -> int:
        """Bytes taken from the file so far, as it lies on disk; of a stream that cannot tell, those it gave."""
        try:
            return int(self._raw.tell())
        except (OSError, ValueError, AttributeError):
            return self._given

    def __enter__(self) -> OpenLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._close:
            self._raw.close()


def open_log(file: LogFile, ahead: int = AHEAD_BYTES) -> OpenLog:
    """Open a log file for reading, one at an address so far `ahead`; errors are those of `UNREADABLE`."""
    return OpenLog(file, ahead)


class _Joined:
    """A stream that cannot look ahead, with the bytes already taken from it put back in front."""

    def __init__(self, head: bytes, raw: IO[bytes]) -> None:
        self._head, self._raw, self.closed = head, raw, False

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._raw.read(size)
        size = len(self._head) if size < 0 else size
        taken, self._head = self._head[:size], self._head[size:]
        return taken

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False
