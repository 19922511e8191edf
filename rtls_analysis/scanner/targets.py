"""The domains to scan: lists as people have them, each name in the form the DNS wants."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import operator
import sys
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtls_analysis.standards.names import NameProblem, to_ascii

_NAME_COLUMNS = (
    "domain",
    "domains",
    "domain_name",
    "domainname",
    "host",
    "hostname",
    "name",
    "site",
    "root domain",
)
_RANK_COLUMNS = ("rank", "globalrank", "global_rank", "position", "#")


class ListProblem(ValueError):
    """A list that cannot be read: one line that says which and why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A domain to scan: `domain` as A-labels, or the text as it came where `problem` says why it is no name."""

    domain: str
    rank: int | None = None
    problem: str = ""


def make_targets(names: Iterable[str | tuple[str, int | None]]) -> list[Target]:
    """Turn names, or (name, rank) pairs, into targets: each domain once, the first mention counts.

    >>> make_targets(["Example.ORG.", "bücher.example", "example.org"])[:2]  # doctest: +NORMALIZE_WHITESPACE
    [Target(domain='example.org', rank=None, problem=''),
     Target(domain='xn--bcher-kva.example', rank=None, problem='')]

    Raises
    ------
    ListProblem
        An item is neither.
    """
    targets: dict[str, Target] = {}
    for item in names:
        text, rank = _name_and_rank(item)
        try:
            target = Target(to_ascii(text), rank)
        except NameProblem as problem:
            shown = text.strip().encode("utf-8", "backslashreplace").decode()[:300]
            target = Target(shown, rank, str(problem))
        targets.setdefault(target.domain, target)
    return list(targets.values())


def _name_and_rank(item: Any) -> tuple[str, int | None]:
    """Take a name, or a name with its rank, as frames and lists of other makes have them."""
    if isinstance(item, str):
        return item, None
    try:
        text, rank = item
        if isinstance(text, str):
            is_missing = rank is None or rank != rank  # NaN
            whole = int(rank) if isinstance(rank, float) and rank.is_integer() else rank
            return text, None if is_missing else operator.index(whole)
    except (TypeError, ValueError):
        pass
    raise ListProblem(f"not a name: {item!r:.100}; give names, or pairs of a name and its rank")


def read_list(path: str | Path) -> list[Target]:
    """Read a list of domains: one a line, or CSV with a rank or a header; ``-`` is standard input.

    Blank lines and comments (``#``) are passed over, as is a header; ``1,example.org`` gives the rank; gzip, bzip2,
    xz and zip (of one file) are unpacked. A line that holds no domain name becomes a target with its `problem`.

    Raises
    ------
    ListProblem
        The file cannot be read, or no line of it holds anything.
    """
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        elif data[:3] == b"BZh":
            data = bz2.decompress(data)
        elif data[:6] == b"\xfd7zXZ\0":
            data = lzma.decompress(data)
        elif data[:4] == b"PK\x03\x04":
            data = _only_member(data)
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ListProblem(f"cannot read the list {path}: {reason}") from None
    targets = parse_list(_decode(data))
    if not targets:
        raise ListProblem(f"the list {path} names no domain; give one domain a line")
    return targets


# what reading and unpacking raise
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    lzma.LZMAError,
    zlib.error,
    zipfile.BadZipFile,
)


def _only_member(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = [name for name in archive.namelist() if not name.endswith("/")]
        if len(files) != 1:
            raise ValueError(f"{len(files)} files in the archive, not one")
        return archive.read(files[0])


def _decode(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "surrogateescape").replace("\0", "\ufffd")


def parse_list(text: str) -> list[Target]:
    r"""Parse the text of a list, as `read_list` describes.

    >>> [target.domain for target in parse_list("rank,domain\n1,Example.org\n\n# a comment\n2,example.net.\n")]
    ['example.org', 'example.net']
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        return []
    delimiter = next((sign for sign in (",", ";", "\t") if sign in lines[0]), None)
    rows: Sequence[Sequence[str]]
    if delimiter is None:
        rows = [[line.split("#", 1)[0].strip()] for line in lines]
        if any(" " in row[0] for row in rows[:1]):  # "1 example.org"
            rows = [row[0].split() for row in rows]
    else:
        rows = [_fields(line, delimiter) for line in lines]
    name_at, rank_at, rows = _columns(rows)
    names: list[tuple[str, int | None]] = []
    for row in rows:
        if len(row) > name_at >= 0:
            names.append((row[name_at], _rank(row[rank_at]) if 0 <= rank_at < len(row) else None))
        elif row:  # a line of another shape: its last field is the best guess at a name
            names.append((row[-1], None))
    return make_targets(names)


def _fields(line: str, delimiter: str) -> Sequence[str]:
    """Split one line: by itself, so that a stray quote swallows no other."""
    try:
        return next(csv.reader((line,), delimiter=delimiter, skipinitialspace=True))
    except csv.Error:  # a field without end
        return (line,)


def _columns(rows: Sequence[Sequence[str]]) -> tuple[int, int, Sequence[Sequence[str]]]:
    """Find the columns of name and rank, and drop a header."""
    first = [field.strip().lower() for field in rows[0]]
    name_at = next((first.index(name) for name in _NAME_COLUMNS if name in first), -1)
    if name_at >= 0:
        rank_at = next((first.index(name) for name in _RANK_COLUMNS if name in first), -1)
        return name_at, rank_at, list(rows[1:])
    if len(first) > 1 and _rank(first[0]) is not None:
        return 1, 0, list(rows)
    return 0, 1 if len(first) > 1 and _rank(first[1]) is not None else -1, list(rows)


def _rank(text: str) -> int | None:
    stripped = text.strip()
    return int(stripped) if stripped.isascii() and stripped.isdigit() and len(stripped) < 12 else None
